package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/agreements/offering"
	"github.com/portolan-project/portolan/jsdl"
)

func (a *app) runCmd() *cobra.Command {
	var flags clientFlags
	var job jsdl.Command
	var env []string
	var site, form string
	var detach, wait, show bool
	var limit time.Duration
	var more wishes
	var kept promise
	cmd := &cobra.Command{
		Use:   "run [--site NAME] [--finish-by TIME] [--criteria FILE] [--vo NAME] [--env NAME=VALUE] [--detach] -- CMD ARG…",
		Short: "Run a command line as a job",
		Long: `Make a JSDL document of a command line, send it to a BES service, and print what the job
writes while it runs: its standard output on standard output, its standard error on
standard error. The exit code is 0 if the job finished with exit status 0, else 1; the
job's own exit status is told in a last line on standard error.

The job runs where the service says and with the service's environment: nothing of this
shell goes along but what --env names. With --detach, it prints the id and does not wait.
With -o, it waits, but standard output holds that form and not what the job writes.

` + promiseHelp + ` Here --limit is the WallTimeLimit.`,
		Example: `  portolan run -- /bin/sh -c 'echo hello; exit 3'
  portolan run --limit 10m --finish-by 18:00 -- /usr/bin/make
  portolan run --env GREETING=hello --limit 10m -- /usr/bin/env
  id=$(portolan run --detach -- /bin/sleep 600)`,
		Args: needs(1, 0, "a command line behind --"),
		RunE: func(cmd *cobra.Command, args []string) error {
			job.Argv = args
			wish, err := kept.wish(site, thisSecond())
			if err != nil {
				return err
			}
			if site != "" && wish == nil {
				job.CandidateHosts = []string{site}
			}
			if limit < 0 || limit%time.Second != 0 {
				return usagef("the limit %s is no number of whole seconds", limit)
			}
			job.WallTime = int64(limit / time.Second)
			for _, v := range env {
				name, value, given := strings.Cut(v, "=")
				if !given {
					if value = a.env(name); value == "" {
						return usagef("--env %s: this shell has no such variable; write NAME=VALUE", name)
					}
				}
				job.Environment = append(job.Environment, jsdl.EnvironmentVariable{Name: name, Text: jsdl.Text{Value: value}})
			}
			def, err := job.Definition()
			if err != nil {
				return usagef("%s", sentence(err))
			}
			documents := [][]byte{def.Marshal()}
			if err := a.apply(more, documents, []string{"the command"}); err != nil {
				return err
			}
			document := documents[0]
			if show {
				fmt.Fprintln(a.out, strings.TrimRight(string(document), "\n"))
				return nil
			}
			return a.run(cmd.Context(), flags, document, wish, detach || !wait, form)
		},
	}
	cmd.Flags().SetInterspersed(false)
	flags.add(cmd)
	more.add(cmd)
	kept.add(cmd)
	cmd.Flags().StringVar(&job.Name, "name", "", "name of the job")
	cmd.Flags().StringArrayVar(&env, "env", nil, "NAME=VALUE for the job's environment, or NAME for this shell's value")
	cmd.Flags().StringVar(&job.Input, "stdin", "", "file, on the job's machine, that is its standard input")
	cmd.Flags().StringVar(&job.WorkingDirectory, "chdir", "", "directory, on the job's machine, to run in")
	cmd.Flags().DurationVar(&limit, "limit", 0, "end the job after this time")
	cmd.Flags().Int64Var(&job.CPUs, "cpus", 0, "CPUs that the job needs")
	cmd.Flags().StringVar(&site, "site", "", "run at this site only")
	cmd.Flags().BoolVar(&detach, "detach", false, "print the id and do not wait")
	cmd.Flags().BoolVar(&wait, "wait", true, "wait for the end; --wait=false is --detach")
	cmd.Flags().BoolVar(&show, "print", false, "print the JSDL document and send nothing")
	for _, f := range []string{"name", "env", "stdin", "chdir", "limit", "cpus", "site"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(f, cobra.NoFileCompletions))
	}
	cmd.MarkFlagsMutuallyExclusive("detach", "print")
	formFlag(cmd, &form, "text", "json", "name")
	return cmd
}

func (a *app) run(ctx context.Context, flags clientFlags, document []byte, wish *offering.Wish, detach bool, form string) error {
	c, err := a.dial(flags)
	if err != nil {
		return err
	}
	tell := a.tellAgreement(form)
	if !detach {
		tell = a.tellAgreement("") // standard output is the job's
	}
	create, err := c.promised(wish, tell)
	if err != nil {
		return err
	}
	act, err := create(ctx, document, "the command")
	if err != nil {
		return err
	}
	if form == "name" || form == "text" && detach {
		fmt.Fprintln(a.out, act.id)
	}
	if detach {
		return a.showSent(form, []sent{{activity: act}})
	}
	if form != "text" {
		code, err := a.watch(ctx, c, []activity{act}, form)
		if err == nil && code != exitDone {
			err = quietly(code)
		}
		return err
	}
	outcomes, err := a.attend(ctx, c, act)
	switch {
	case ctx.Err() != nil:
		return &exitError{code: exitInterrupted, err: fmt.Errorf("no longer waiting; the job goes on: 'portolan output -f %s' shows it, 'portolan cancel %s' ends it", act.id, act.id)}
	case err != nil:
		return c.refused(err)
	case !outcomes[0].well():
		return failedf("%s  %s", act.id, describe(outcomes[0]))
	}
	return nil
}

// attend copies what the job writes while it waits for its end.
func (a *app) attend(ctx context.Context, c *client, act activity) ([]outcome, error) {
	quiet := func(int, outcome) {}
	p := newProgress(a.err, false, []activity{act})
	defer p.close()
	copied, ended := make(chan error, 1), make(chan struct{})
	cctx, stop := context.WithCancel(ctx)
	defer stop()
	if control, err := c.controller(); err == nil {
		go func() { copied <- followAll(cctx, streams(a, control, act), ended) }()
	} else {
		copied <- err
	}
	outcomes, err := c.await(ctx, []activity{act}, quiet, p.away)
	close(ended)
	if err != nil {
		stop()
	}
	cerr := <-copied
	if err != nil {
		return outcomes, err
	}
	if cerr != nil && !errors.Is(cerr, context.Canceled) {
		// The outcome is what counts for the exit code.
		a.complain("the output could not be read: " + sentence(cerr))
	}
	return outcomes, nil
}
