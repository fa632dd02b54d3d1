package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/console"
)

func (a *app) fenceCmd() *cobra.Command {
	var flags clientFlags
	var reason, died string
	var forget bool
	cmd := &cobra.Command{
		Use:   "fence [--reason TEXT] [--died TIME] SITE | fence --forget SITE",
		Short: "Give up what a site has that is out for good",
		Long: `Vouch that a site runs nothing any more of what it was given, and never will: its machines are
off, or gone. That a site is silent proves nothing, so that its jobs wait for it; this lets them
go on elsewhere:

  - jobs that it had not begun wait for another place, before others and with their age;
  - jobs that it ran do so if their document allows that they are run again (Rerunnable in
    Placement); the others are Failed, as how far they came is not known;
  - replicas that it had end, and their jobs go on.

--died is when the site ended, if that was after it answered last: jobs that it may have begun
in between count as begun. TIME is like 2026-02-01T14:03:00Z, or a time ago like 15m.

The site is given no jobs from then on. Should it answer again, everything that was given up is
ended there first; then it is a site like others. One that answers can't be fenced: take it out
of the configuration, so that it is drained.

--forget forgets a fenced site that was taken out of the configuration, and what would have been
ended there: for one that will never be back. A site of its name is a new one from then on. All
this is for managers of the gateway.`,
		Example: `  portolan fence --reason 'power is cut, until March' slurm
  portolan fence --died 20m boinc
  portolan fence --forget slurm`,
		Args: needs(1, 1, "the name of a site"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := console.FenceRequest{Reason: reason}
			if died != "" {
				at, err := momentOrAgo(died, time.Now())
				if err != nil {
					return usagef("--died %s: write a time like 2026-02-01T14:03:00Z, or how long ago like 15m", died)
				}
				in.Died = &at
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			path := strings.ReplaceAll(console.FencePath, "{site}", url.PathEscape(args[0]))
			if forget {
				if err := c.ask(cmd.Context(), call{method: http.MethodDelete, path: path, into: new(struct{})}); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%s: forgotten\n", plain(args[0]))
				return nil
			}
			body, err := json.Marshal(in)
			if err != nil {
				return err
			}
			var r broker.FenceReport
			if err := c.ask(cmd.Context(), call{method: http.MethodPost, path: path, body: body, mediaType: "application/json", into: &r}); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s: %s given up: %d wait for another place, %d have ended\n", plain(args[0]), counted(r.Jobs, "job"), r.Again, r.Ended)
			if r.Replicas > 0 {
				fmt.Fprintf(a.out, "%s: and %s, while their jobs go on\n", plain(args[0]), counted(r.Replicas, "replica"))
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the histories of the jobs")
	cmd.Flags().BoolVar(&forget, "forget", false, "forget a fenced site that is not configured any more")
	cmd.Flags().StringVar(&died, "died", "", "when the site ended; without it, when it answered last")
	cmd.MarkFlagsMutuallyExclusive("forget", "reason")
	cmd.MarkFlagsMutuallyExclusive("forget", "died")
	return cmd
}

func momentOrAgo(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Parse(time.RFC3339, text)
}

// fenceConfig says how the gateway makes sure by itself that a site runs nothing any more.
type fenceConfig struct {
	// After is how long the site must not have answered.
	After time.Duration `yaml:"after"`
	// Command makes sure, by cutting the power of the site's machines, say, and exits with 0 only
	// when it is sure; otherwise it is run again. It finds the site's name in PORTOLAN_SITE, and in
	// PORTOLAN_ANSWERED when it answered last, in RFC 3339. When it knows since when the site runs
	// nothing, it prints that as its first line, the same way; otherwise, jobs that the site may
	// have begun until the command ended count as begun.
	Command []string `yaml:"command"`
	// Timeout bounds the command; 2m.
	Timeout time.Duration `yaml:"timeout"`
}

func (f *fenceConfig) check(say func(format string, args ...any)) {
	switch {
	case f.After < 0 || f.Timeout < 0:
		say("fence: a time is negative")
	case f.After > 0 && f.After < minFence:
		say("fence.after: %s is shorter than %s, in which a manager may just be restarted", f.After, minFence)
	case (f.After > 0) != (len(f.Command) > 0):
		say("fence: after and command go together: how long the site must not have answered, and what then makes sure that nothing runs there")
	case len(f.Command) > 0 && f.Command[0] == "":
		say("fence.command: it names no program")
	}
}

// minFence is the shortest time after which a site is fenced by itself.
const minFence = 10 * time.Second

func (f *fenceConfig) alike(g *fenceConfig) bool { return reflect.DeepEqual(f, g) }

// fencing gives it as the broker takes it.
func (f *fenceConfig) fencing() broker.Fencing {
	if f.After == 0 {
		return broker.Fencing{}
	}
	timeout := f.Timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	return broker.Fencing{After: f.After, Do: func(ctx context.Context, site string, answered time.Time) (time.Time, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, f.Command[0], f.Command[1:]...)
		cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "PORTOLAN_SITE=" + site}
		if !answered.IsZero() {
			cmd.Env = append(cmd.Env, "PORTOLAN_ANSWERED="+answered.UTC().Format(time.RFC3339))
		}
		var out, complaints limited
		cmd.Stdout, cmd.Stderr = &out, &complaints
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second
		if err := cmd.Run(); err != nil {
			what := strings.TrimSpace(complaints.String())
			if ctx.Err() != nil {
				what = fmt.Sprintf("it did not end within %s", timeout)
			}
			return time.Time{}, fmt.Errorf("the fencing command %s: %w: %s", f.Command[0], err, plain(what))
		}
		line, _, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
		died, err := time.Parse(time.RFC3339, strings.TrimSpace(line))
		if err != nil {
			return time.Time{}, nil // it does not say
		}
		return died, nil
	}}
}

// limited keeps the beginning of what is written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 4096 - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
