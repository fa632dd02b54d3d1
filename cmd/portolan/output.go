package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
)

func (a *app) outputCmd() *cobra.Command {
	var flags clientFlags
	var stdout, stderr, follow bool
	cmd := &cobra.Command{
		Use:   "output [--stdout] [--stderr] [--follow] ID",
		Short: "Print what a job wrote",
		Long: `Print what a job wrote so far, byte for byte: its standard output on standard output, its
standard error on standard error. With --stdout or --stderr, only that one. With --follow,
go on until the job ends.

A job that sends a stream to a file of its own (Output or Error in its document) has that
file's content here.`,
		Example: `  portolan output 01890a5d-ac96-774b-bcce-b302099a8057
  portolan output --stdout 01890a5d-ac96-774b-bcce-b302099a8057 > result
  portolan output -f 01890a5d-ac96-774b-bcce-b302099a8057`,
		Args:              needs(1, 1, "ID"),
		ValidArgsFunction: a.completeIDs(&flags, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, acts, err := a.targets(flags, args)
			if err != nil {
				return err
			}
			control, err := c.controller()
			if err != nil {
				return err
			}
			tails := streams(a, control, acts[0])
			if stdout != stderr {
				tails = slices.DeleteFunc(tails, func(t *tail) bool { return stdout != (t.stream == bes.Stdout) })
			}
			if follow {
				return c.refused(followAll(cmd.Context(), tails, nil))
			}
			for _, t := range tails {
				if _, err := t.drain(cmd.Context()); err != nil {
					return c.refused(err)
				}
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&stdout, "stdout", false, "standard output only")
	cmd.Flags().BoolVar(&stderr, "stderr", false, "standard error only")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job ends")
	return cmd
}

// chunk is how much of a stream is asked for at once, in bytes.
const chunk = 256 << 10

// tail copies a stream of a job from where it was left.
type tail struct {
	control bes.Controller
	act     activity
	stream  bes.Stream
	to      io.Writer
	offset  int64
	ended   bool // the stream can't grow any more, and was read to its end
}

// streams gives a tail for both streams of a job.
func streams(a *app, control bes.Controller, act activity) []*tail {
	return []*tail{
		{control: control, act: act, stream: bes.Stdout, to: a.out},
		{control: control, act: act, stream: bes.Stderr, to: a.err},
	}
}

// drain copies what there is, and says whether there was anything.
func (t *tail) drain(ctx context.Context) (grown bool, err error) {
	for !t.ended {
		c, err := t.control.GetActivityOutput(ctx, t.act.epr, t.stream, t.offset, chunk)
		if err != nil {
			return grown, err
		}
		if c.Offset != t.offset && len(c.Data) > 0 {
			return grown, fail.Errorf("output", fail.Unavailable, t.act.id, "the service was asked for %s from byte %d and gave it from byte %d", t.stream, t.offset, c.Offset)
		}
		if _, err := t.to.Write(c.Data); err != nil {
			return grown, failedf("writing %s: %v", t.stream, err)
		}
		t.offset += int64(len(c.Data))
		t.ended = !c.More
		if len(c.Data) == 0 {
			return grown, nil
		}
		grown = true
	}
	return grown, nil
}

// followAll copies the streams until the job is at its end. The service has no
// call that waits for output, so it is asked again, less often while nothing
// comes, and at once when ended is closed.
func followAll(ctx context.Context, tails []*tail, ended <-chan struct{}) error {
	pause := shortPause
	for {
		open, grown := false, false
		for _, t := range tails {
			g, err := t.drain(ctx)
			if err != nil {
				if ctx.Err() == nil && passing(err) {
					open = true
					continue
				}
				return err
			}
			open, grown = open || !t.ended, grown || g
		}
		if !open {
			return nil
		}
		if grown {
			pause = shortPause
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("following the output: %w", ctx.Err())
		case <-ended:
			t.Stop()
			ended, pause = nil, shortPause
		case <-t.C:
			pause = min(2*pause, longPause/5)
		}
	}
}
