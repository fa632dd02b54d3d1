package main

import (
	"context"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

const (
	// holdBack is how long the service may keep an answer for want of news.
	holdBack = 20 * time.Second
	// patience is how long a service that was there may be away while we wait: a
	// gateway that restarts keeps its jobs.
	patience = 3 * time.Minute
)

// outcome is the last that was heard of an activity.
type outcome struct {
	status bes.Status
	err    error // the service does not know it, say
}

// well reports whether the job did what was asked of it.
func (o outcome) well() bool {
	if o.err != nil || o.status.State != bes.Finished {
		return false
	}
	d := o.status.Details
	return d == nil || d.Signal == "" && (d.ExitStatus == nil || *d.ExitStatus == 0)
}

// statuses asks for the states of activities, one answer each.
func (c *client) statuses(ctx context.Context, acts []activity, wait time.Duration, after int64) ([]bes.StatusResult, error) {
	req := &bes.StatusRequest{Activities: references(acts), Wait: wait, After: after}
	got, err := c.service.GetActivityStatuses(ctx, req)
	if err == nil && len(got) != len(acts) {
		err = fail.Errorf("statuses", fail.Unavailable, "", "the service gave %d states for %d activities", len(got), len(acts))
	}
	return got, err
}

func references(acts []activity) []soap.EPR {
	refs := make([]soap.EPR, len(acts))
	for i, act := range acts {
		refs[i] = act.epr
	}
	return refs
}

// await returns when all activities are final or unknown; news is called for
// each state that is not the one before. All are asked for at once: our own
// gateways hold the answer back until there is news, others are asked again
// after a pause that grows while nothing happens.
func (c *client) await(ctx context.Context, acts []activity, news func(i int, o outcome), away func(error)) ([]outcome, error) {
	out := make([]outcome, len(acts))
	told := make([]string, len(acts))
	open := make([]int, len(acts))
	for i := range open {
		open[i] = i
	}
	var after int64
	pause := shortPause
	heard := time.Now()
	for len(open) > 0 {
		asked := make([]activity, len(open))
		for k, i := range open {
			asked[k] = acts[i]
		}
		began := time.Now()
		got, err := c.statuses(ctx, asked, holdBack, after)
		if err != nil {
			if ctx.Err() != nil || !passing(err) || time.Since(heard) > patience {
				return out, err
			}
			away(err)
			if err := rest(ctx, &pause); err != nil {
				return out, err
			}
			continue
		}
		heard = time.Now()
		changed := false
		still := open[:0:0]
		for k, i := range open {
			r := got[k]
			if r.Err != nil && passing(r.Err) {
				still = append(still, i)
				continue
			}
			out[i] = outcome{r.Status, r.Err}
			if s := describe(out[i]); s != told[i] {
				told[i], changed = s, true
				news(i, out[i])
			}
			if d := r.Status.Details; d != nil {
				after = max(after, d.Revision)
			}
			if r.Err == nil && !r.Status.State.Final() {
				still = append(still, i)
			}
		}
		open = still
		switch {
		case changed:
			pause = shortPause
			if after > 0 {
				continue // this service holds its answers back
			}
		case time.Since(began) > time.Second:
			continue // it held this one back
		}
		if len(open) > 0 {
			if err := rest(ctx, &pause); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

const (
	shortPause = 250 * time.Millisecond
	longPause  = 5 * time.Second
)

// rest waits for the pause, and doubles it for the next time.
func rest(ctx context.Context, pause *time.Duration) error {
	t := time.NewTimer(*pause)
	defer t.Stop()
	*pause = min(2**pause, longPause)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// describe tells an outcome in a few words.
func describe(o outcome) string {
	if o.err != nil {
		return "unknown: " + plain(sentence(o.err))
	}
	st := o.status
	s := string(st.State)
	if sub := subStates(st); len(sub) > 0 {
		s += " (" + sub[0] + ")"
	}
	d := st.Details
	if d == nil {
		return plain(s)
	}
	if d.Progress > 0 && !st.State.Final() {
		s += ", " + percent(d.Progress)
	}
	switch {
	case d.Signal != "":
		s += ", ended by " + d.Signal
	case d.ExitStatus != nil:
		s += fmt.Sprintf(", exit status %d", *d.ExitStatus)
	case d.Reason == "" && d.Site != "" && st.State == bes.Running:
		s += " at " + d.Site
	}
	if d.Reason != "" && st.State != bes.Finished {
		s += ": " + d.Reason
	}
	return plain(s)
}

// subStates gives the local names: our own, or another make's.
func subStates(st bes.Status) []string {
	names := make([]string, 0, len(st.SubStates))
	for _, n := range st.SubStates {
		names = append(names, n.Local)
	}
	return names
}
