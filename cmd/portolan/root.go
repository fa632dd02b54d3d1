package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// app is what the verbs have of the world outside.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	live     bool // out is a terminal, on which a line can be rewritten
}

func newApp() *app {
	return &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv,
		live: term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("TERM") != "dumb",
	}
}

// execute runs one command line and gives its exit code.
func (a *app) execute(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	e, ours := errors.AsType[*exitError](err)
	if !ours { // cobra's own: an unknown flag, a missing argument
		e = &exitError{code: exitUsage, err: err}
	}
	if e.err != nil {
		a.complain(e.err.Error())
	}
	if e.code == exitUsage {
		fmt.Fprintf(a.err, "usage: %s\n('%s --help' tells more)\n", cmd.UseLine(), cmd.CommandPath())
	}
	return e.code
}

// complain says a sentence on standard error.
func (a *app) complain(s string) {
	fmt.Fprintf(a.err, "portolan: %s\n", plainLines(strings.TrimRight(s, "\n")))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "portolan",
		Short: "Run jobs through open standards: JSDL documents, OGSA-BES services",
		Long: `Portolan is a gateway that takes JSDL jobs over an OGSA-BES service and runs them,
and a client that speaks to any such service.

Every client command finds its endpoint in --endpoint, else in PORTOLAN_ENDPOINT, else
in client.yaml (` + configHelp + `), else at ` + defaultEndpoint + `, where
'portolan serve --dev' listens.

Exit codes: 0 done; 1 the job or the check failed; 2 wrong usage; 3 the endpoint could
not be reached or refused; 130 interrupted.`,
		Example: `  portolan serve --dev
  portolan run -- /bin/echo hello
  portolan submit --wait job.jsdl
  portolan status`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.AddGroup(
		&cobra.Group{ID: "jobs", Title: "Jobs:"},
		&cobra.Group{ID: "check", Title: "Checks:"},
		&cobra.Group{ID: "gateway", Title: "The gateway:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			c.DisableFlagsInUseLine = true
			root.AddCommand(c)
		}
	}
	add("jobs", a.submitCmd(), a.runCmd(), a.statusCmd(), a.historyCmd(), a.outputCmd(), a.cancelCmd(), a.suspendCmd(), a.resumeCmd(), a.agreementCmd())
	add("check", a.validateCmd(), a.matchCmd(), a.replayCmd(), a.conformanceCmd(), a.adapterCmd())
	add("gateway", a.serveCmd(), a.sitesCmd(), a.fenceCmd(), a.resourcesCmd(), a.peersCmd(), a.policyCmd(), a.limitCmd(), a.configCmd(), a.versionCmd())
	return root
}

// oneOf gives a completion of fixed words.
func oneOf(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// formFlag adds -o with the forms that a verb has; the first is the default.
func formFlag(cmd *cobra.Command, form *string, forms ...string) {
	cmd.Flags().StringVarP(form, "output", "o", forms[0], "output form: "+strings.Join(forms, ", "))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("output", oneOf(forms...)))
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		for _, f := range forms {
			if f == *form {
				if before != nil {
					return before(cmd, args)
				}
				return nil
			}
		}
		return usagef("there is no output form %q: use %s", *form, strings.Join(forms, ", "))
	}
}

// needs checks how many arguments there are; most is 0 for no bound.
func needs(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s needs %s", cmd.Name(), what)
		case most > 0 && len(args) > most:
			return usagef("%s takes one %s: %q is too many", cmd.Name(), what, args[most])
		}
		return nil
	}
}
