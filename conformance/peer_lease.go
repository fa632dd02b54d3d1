package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

// second gives copy 2 of a job, which runs, and copy 1, which was never here.
func (p *probe) second(ctx context.Context) (v *visit, runs *wire.Route, low wire.About, err error) {
	if v, err = p.standing(ctx); err != nil {
		return nil, nil, low, err
	}
	if runs, err = v.route(p.documentFor(p.opts.Programs.Sleep, "60")); err != nil {
		return nil, nil, low, err
	}
	low = runs.About
	runs.Token = "2"
	a, err := v.place(ctx, runs)
	if err == nil && !a.Accepted {
		err = skip("the endpoint takes no such job of the kit's domain: %s: %s", a.Kind, a.Reason)
	}
	return v, runs, low, err
}

func queriedLower(ctx context.Context, p *probe) (string, error) {
	v, r, low, err := p.second(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Query{About: low}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, low, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if rep.Status != wire.IsReturned {
		return "", fmt.Errorf("copy 2 is here, and copy 1 is %s: wanted %s", rep.Status, wire.IsReturned)
	}
	return string(rep.Status) + ": " + rep.Reason, nil
}

func controlledLower(ctx context.Context, p *probe) (string, error) {
	v, r, low, err := p.second(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if err := v.caughtUp(ctx, &wire.Control{About: low, Number: 7, Want: wire.Cancel, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if final(rep) || rep.Heeded != 0 {
		return "", fmt.Errorf("copy 1 was cancelled, and copy 2 is %s with heeded %d", rep.Status, rep.Heeded)
	}
	return "copy 2 is " + string(rep.Status), nil
}

// brief gives a copy that sleeps, whose recall deadline is as near as the terms let it be, with
// some time to begin it.
func (p *probe) brief(ctx context.Context, room time.Duration) (*visit, *wire.Route, int, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	t := v.opened.Terms
	for ; ; room *= 2 {
		ahead := 2*t.Skew + t.StopWithin + room
		if ahead > p.opts.Settle {
			return nil, nil, 0, skip("with skew %v and stopWithin %v no copy is taken that is over within %v", t.Skew, t.StopWithin, p.opts.Settle)
		}
		r, err := v.route(p.documentFor(p.opts.Programs.Sleep, "600"))
		if err != nil {
			return nil, nil, 0, err
		}
		r.RecallBy = time.Now().UTC().Add(ahead).Truncate(time.Millisecond)
		mark := v.mark()
		a, err := v.place(ctx, r)
		if err != nil {
			return nil, nil, 0, err
		}
		if a.Accepted {
			return v, r, mark, nil
		}
		if a.Kind != wire.Conflict { // else it came too near to its deadline
			return nil, nil, 0, skip("the endpoint takes no such job of the kit's domain: %s: %s", a.Kind, a.Reason)
		}
	}
}

// briefest is the room with which brief begins.
const briefest = 1500 * time.Millisecond

func lapses(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.brief(ctx, briefest)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	rep, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", fmt.Errorf("no later deadline was granted: %w", err)
	}
	if rep.Status == wire.IsEnded && rep.Result.Outcome == wire.Finished {
		return "", errors.New("a copy that sleeps for 10 minutes ended well after its deadline of a few seconds")
	}
	if late := rep.At.Sub(r.RecallBy.Add(v.opened.Terms.Skew)); late > 0 {
		return "", fmt.Errorf("the copy is %s since %v after it should have been dead everywhere", rep.Status, late)
	}
	return string(rep.Status) + ": " + rep.Reason, nil
}

func renews(ctx context.Context, p *probe) (string, error) {
	for room := briefest; ; room *= 2 {
		v, r, mark, err := p.brief(ctx, room)
		if err != nil {
			return "", err
		}
		saw, late, err := v.renewed(ctx, r, mark)
		v.drop(r.About)
		if !late {
			return saw, err
		}
	}
}

// renewed grants a copy a later deadline as it asks for one, and looks at it after its first one;
// late says that the Grant may have come when the copy was given up already.
func (v *visit) renewed(ctx context.Context, r *wire.Route, mark int) (saw string, late bool, err error) {
	t := v.opened.Terms
	rep, err := v.status(ctx, mark, r.About, "asks for a later deadline", func(*wire.Report) bool { return true })
	if err == nil {
		_, err = v.give(ctx, &wire.Grant{About: r.About, RecallBy: time.Now().UTC().Add(t.Lease / 2).Truncate(time.Millisecond)})
	}
	if err != nil || time.Now().After(r.RecallBy.Add(-2*t.Skew-t.StopWithin)) {
		return "", err == nil, err
	}
	if final(rep) {
		return "", false, fmt.Errorf("the copy was just taken, and is %s: %s", rep.Status, rep.Reason)
	}
	for dead := r.RecallBy.Add(t.Skew); time.Now().Before(dead); {
		if _, err := v.poll(ctx, min(time.Second, time.Until(dead))); err != nil {
			return "", false, err
		}
	}
	mark = v.mark()
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", false, err
	}
	if rep, err = v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true }); err != nil {
		return "", false, err
	}
	if final(rep) {
		return "", false, fmt.Errorf("the copy was granted a later deadline, and after its first one it is %s: %s", rep.Status, rep.Reason)
	}
	return string(rep.Status) + " after its first deadline", false, nil
}

// running gives a copy that runs.
func (p *probe) running(ctx context.Context) (*visit, *wire.Route, int, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return nil, nil, 0, err
	}
	rep, err := v.status(ctx, mark, r.About, "the copy runs", func(x *wire.Report) bool { return x.Status == wire.IsRunning || final(x) })
	if err == nil && final(rep) {
		err = fmt.Errorf("the copy was just taken, and is %s: %s", rep.Status, rep.Reason)
	}
	if err != nil {
		v.drop(r.About)
	}
	return v, r, v.mark(), err
}

func recalledIdle(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.running(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 1, Want: wire.Run, Recall: wire.RecallIdle, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "Control 1 was heeded", func(x *wire.Report) bool { return x.Heeded >= 1 || final(x) })
	if err != nil {
		return "", err
	}
	if final(rep) {
		return "", fmt.Errorf("the copy runs, was to be given back if idle, and is %s: %s", rep.Status, rep.Reason)
	}
	return string(rep.Status), nil
}

func settledUnwanted(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.running(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Settle{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", fmt.Errorf("the copy does not count any more for the kit: %w", err)
	}
	if rep.Status == wire.IsEnded && rep.Result.Outcome == wire.Finished {
		return "", errors.New("a copy that sleeps for a minute ended well at once")
	}
	return string(rep.Status) + ": " + rep.Reason, nil
}
