package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

func (a *app) replayCmd() *cobra.Command {
	var flags clientFlags
	var form, save string
	var swaps []string
	var live bool
	var long time.Duration
	cmd := &cobra.Command{
		Use:   "replay [--swap KIND=POLICY] [-o text|json] FILE | --from-gateway [--for TIME] [--save FILE]",
		Short: "Decide recorded decisions again, and compare",
		Long: `Decide again what a gateway decided, from a trace of all that it was told meanwhile, and
compare: each decision must be alike in every bit. '-' is standard input.

A trace comes from --from-gateway, which has the gateway record from now on for the time of
--for; --save keeps it in a file, with the documents of all jobs, for later.

--swap tells what another policy of a kind would have decided in the place of those that were
in force, in every scope; it can be given once for each kind.

Exit codes: 0 all decisions are identical; 1 some differ.`,
		Example: `  portolan replay --from-gateway --for 10m --save monday.trace
  portolan replay monday.trace
  portolan replay --swap selection=best-fit --swap scheduling='priority{age=30m}' monday.trace`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			swap, err := swapped(swaps)
			if err != nil {
				return err
			}
			switch {
			case live == (len(args) == 1):
				return usagef("replay needs a FILE or --from-gateway, one of them")
			case !live && (save != "" || cmd.Flags().Changed("for")):
				return usagef("--for and --save are for --from-gateway")
			case long <= 0:
				return usagef("--for is %s; write a time like 10m", long)
			}
			var got schedule.Result
			if live {
				got, err = a.replayLive(cmd.Context(), flags, long, save, swap)
			} else {
				got, err = a.replayFile(args[0], swap)
			}
			if err != nil {
				return err
			}
			return a.showReplay(&got, form, swaps)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	flags.add(cmd)
	cmd.Flags().StringArrayVar(&swaps, "swap", nil, "KIND=POLICY: what this policy would have decided")
	cmd.Flags().BoolVar(&live, "from-gateway", false, "record what the gateway decides from now on")
	cmd.Flags().DurationVar(&long, "for", time.Minute, "how long to record")
	cmd.Flags().StringVar(&save, "save", "", "keep what was recorded in this file")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("for", cobra.NoFileCompletions))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("swap", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var out []string
		for _, d := range policy.Catalogue() {
			if d.Kind != policy.Replication {
				out = append(out, string(d.Kind)+"="+d.Name+"\t"+d.What)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}))
	formFlag(cmd, &form, "text", "json")
	return cmd
}

// swapped reads KIND=POLICY.
func swapped(list []string) (map[policy.Kind]policy.Setting, error) {
	out := map[policy.Kind]policy.Setting{}
	for _, s := range list {
		kind, text, ok := strings.Cut(s, "=")
		if !ok || text == "" {
			return nil, usagef("--swap %s: write KIND=POLICY", s)
		}
		if err := checkKind(kind); err != nil {
			return nil, err
		}
		if policy.Kind(kind) == policy.Replication {
			return nil, usagef("--swap %s: copies are of jobs that run; a replay is of those that waited", s)
		}
		if _, twice := out[policy.Kind(kind)]; twice {
			return nil, usagef("--swap: there are two policies of %s", kind)
		}
		set, err := policy.ParseSetting(text)
		if err == nil {
			err = set.Check(policy.Kind(kind))
		}
		if err != nil {
			return nil, usagef("--swap %s: %s", s, sentence(err))
		}
		out[policy.Kind(kind)] = set
	}
	return out, nil
}

func (a *app) replayFile(file string, swap map[policy.Kind]policy.Setting) (schedule.Result, error) {
	in := a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return schedule.Result{}, usagef("the trace could not be read: %v", err)
		}
		defer f.Close()
		in = f
	}
	got, err := replayer().Replay(in, swap)
	if err != nil {
		return got, usagef("%s: %s", file, sentence(err))
	}
	return got, nil
}

// replayLive replays while the gateway records.
func (a *app) replayLive(ctx context.Context, flags clientFlags, long time.Duration, save string, swap map[policy.Kind]policy.Setting) (got schedule.Result, err error) {
	c, err := a.dial(flags)
	if err != nil {
		return got, err
	}
	var kept io.Writer = io.Discard
	if save != "" {
		f, err := os.OpenFile(save, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // the documents of all users are in it
		if err != nil {
			return got, usagef("the trace can't be kept: %v", err)
		}
		defer func() {
			if cerr := f.Close(); err == nil && cerr != nil {
				err = refusedf("the trace could not be kept: %v", cerr)
			}
		}()
		kept = f
	}
	if a.live {
		fmt.Fprintf(a.err, "recording for %s\n", long)
	}
	err = c.ask(ctx, call{
		method: http.MethodGet, path: console.TracePath, query: url.Values{"for": {long.String()}}, longer: long,
		read: func(r io.Reader) error {
			var err error
			if got, err = replayer().Replay(io.TeeReader(r, kept), swap); err != nil {
				return refusedf("the trace of %s can't be replayed: %s", c.Endpoint, sentence(err))
			}
			return nil
		},
	})
	return got, err
}

// replayer reads documents as leniently as any gateway does: it took them.
func replayer() *schedule.Replayer {
	return &schedule.Replayer{Compile: func(s schedule.Source) (*resourcemodel.Request, error) {
		def, problems := jsdl.Parse(s.Document, jsdl.Options{Lenient: true})
		if err := problems.Invalid().Err(); err != nil {
			return nil, err
		}
		if len(s.Criteria) == 0 {
			return resourcemodel.Compile(def, s.Subject)
		}
		criteria, problems := jsdl.ParseCriteria(s.Criteria, jsdl.Options{})
		if err := problems.Err(); err != nil {
			return nil, err
		}
		return resourcemodel.CompileWith(def, s.Subject, criteria)
	}}
}

func (a *app) showReplay(r *schedule.Result, form string, swaps []string) error {
	var differ error
	if r.Same != r.Decisions || len(r.Differences) > 0 {
		differ = quietly(exitFailed)
	}
	if form == "json" {
		return errors.Join(asJSON(a.out, r), differ)
	}
	fmt.Fprintf(a.out, "%s, %d identical\n", counted(r.Decisions, "decision"), r.Same)
	if r.Cut {
		a.complain("the trace has no end: whoever wrote it was stopped, and what followed is not in it")
	}
	if len(r.Differences) > 0 {
		var rows [][]string
		for _, d := range r.Differences {
			is := placed(d.Is)
			if d.Was != nil && d.Is != nil && *d.Was == *d.Is {
				is += ", for other reasons"
			}
			rows = append(rows, []string{strconv.Itoa(d.Round), clock(d.At), d.Job, placed(d.Was), is})
		}
		if err := table(a.out, []string{"ROUND", "TIME", "JOB", "WAS", "IS"}, rows); err != nil {
			return err
		}
		if r.More > 0 {
			fmt.Fprintf(a.out, "and %d more\n", r.More)
		}
	}
	if r.Swapped != nil {
		fmt.Fprintf(a.out, "\nwith %s: ", plain(strings.Join(slices.Clone(swaps), " and ")))
		if err := a.showComparison(r.Swapped, "swapped"); err != nil {
			return err
		}
	}
	return differ
}
