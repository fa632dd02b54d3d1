package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/adapters/plugin/plugintest"
	"github.com/portolan-project/portolan/internal/fail"
)

func (a *app) adapterCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "adapter",
		Short:   "Judge adapters that are programs of their own",
		Example: `  portolan adapter test --programs -- ./my-adapter --its-flag`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	test := a.adapterTestCmd()
	test.DisableFlagsInUseLine = true
	cmd.AddCommand(test)
	return cmd
}

func (a *app) adapterTestCmd() *cobra.Command {
	o := plugintest.Options{Umask: 0o022}
	var settingsFile, umask string
	var lacks []string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test [--settings FILE] [--programs] [--only REGEXP] [--lacks NAME=WHY] -- CMD [ARG…]",
		Short: "Judge a plug-in by the suite that every adapter passes",
		Long: `Start CMD as the plug-in of a site, as the gateway does, and judge it by the suite that every
adapter of Portolan passes: life cycles, exit statuses, tags, lost answers, cancelling,
restarts (CMD is killed and started again), outputs, batches, thousands of jobs. A line is
written for each part: pass, fail with what was seen, or skip with the reason.

With --programs the jobs are programs of this machine and share its files: arguments,
environments, files, limits and process trees are judged as well. What the manager really
can't do is said with --lacks; its elements must be refused by name then. An ability that is
not claimed is skipped by itself.

Exit codes: 0 nothing failed; 1 a part failed; 2 wrong usage; 3 CMD is no plug-in or could
not be opened.`,
		Example: `  portolan adapter test --programs -- /usr/local/lib/portolan/batch.py
  portolan adapter test --settings lsf.yaml --only '^(Find|Cancel)' -- lsf-adapter
  portolan adapter test --lacks 'Signal=the manager tells no signals' -- lsf-adapter`,
		Args: needs(1, 0, "the plug-in's program"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Command = args
			if settingsFile != "" {
				text, err := os.ReadFile(settingsFile)
				if err != nil {
					return usagef("the settings can't be read: %v", err)
				}
				o.Settings = string(text)
			}
			n, err := strconv.ParseUint(umask, 8, 9)
			if err != nil {
				return usagef("--umask is three octal digits, such as 022, not %q", umask)
			}
			o.Umask = int(n)
			if o.Lacks, err = pairs(lacks); err != nil {
				return err
			}
			if verbose {
				o.Log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
			report, err := plugintest.Judge(cmd.Context(), plainWriter{a.out}, o)
			switch {
			case cmd.Context().Err() != nil:
				return &exitError{code: exitInterrupted, err: errors.New("interrupted")}
			case err != nil && fail.KindOf(err) == fail.Internal: // the suite's own: a filter, a name of --lacks
				return usagef("%v", err)
			case err != nil:
				return refusal(err)
			case !report.OK():
				return quietly(exitFailed)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&settingsFile, "settings", "", "a YAML file with the plug-in's settings")
	f.BoolVar(&o.Programs, "programs", false, "jobs are programs of this machine")
	f.StringVar(&o.Filter, "only", "", "only the parts whose names match the regular expression")
	f.StringArrayVar(&lacks, "lacks", nil, "a part, group or detail that the manager really lacks, and why (repeatable)")
	f.BoolVar(&o.NoTLS, "no-tls", false, "the plug-in serves without TLS")
	f.BoolVar(&o.Short, "short", false, "leave the part of five thousand jobs out")
	f.IntVar(&o.Many, "many", 0, "jobs that are placed at once in the part Many (default 200)")
	f.DurationVar(&o.Patience, "patience", 0, "how long to wait for whatever must happen (default 30s)")
	f.DurationVar(&o.Pace, "pace", time.Second, "how long a job must run for the manager to show that it runs")
	f.StringVar(&umask, "umask", "022", "the umask that jobs must see")
	f.BoolVarP(&verbose, "verbose", "v", false, "write the plug-in's log to standard error")
	for _, name := range []string{"only", "lacks", "many", "patience", "pace", "umask"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

// pairs reads NAME=WHY.
func pairs(all []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range all {
		name, why, ok := strings.Cut(s, "=")
		if !ok || strings.TrimSpace(why) == "" {
			return nil, usagef("--lacks is a name of the suite, '=' and the reason in a sentence, not %q", s)
		}
		out[name] = why
	}
	return out, nil
}

// plainWriter keeps what a plug-in says from steering the terminal.
type plainWriter struct{ w io.Writer }

func (p plainWriter) Write(b []byte) (int, error) {
	if _, err := fmt.Fprint(p.w, plainLines(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}
