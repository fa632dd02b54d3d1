package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

func runs(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.True)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	end, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", err
	}
	if end.Status != wire.IsEnded {
		return "", fmt.Errorf("the copy was %s: %s", end.Status, end.Reason)
	}
	var last uint64
	for _, m := range v.since(mark) {
		if x, ok := m.(*wire.Report); ok && x.About == r.About {
			if x.Revision < last {
				return "", fmt.Errorf("a report of revision %d came after one of %d", x.Revision, last)
			}
			last = x.Revision
		}
	}
	if end.Result.Outcome != wire.Finished || end.Result.ExitCode != 0 {
		return "", fmt.Errorf("%s ended as %s with status %d: %s", p.opts.Programs.True, end.Result.Outcome, end.Result.ExitCode, end.Result.Reason)
	}
	return fmt.Sprintf("%s at revision %d, ran as %s", end.Result.Outcome, end.Revision, end.Result.Token), nil
}

func repeats(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.True)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if resend := v.opened.Terms.Resend; resend > p.opts.Settle/3 {
		return "", skip("a report is repeated after %v here, which is too long to wait", resend)
	}
	first, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", err
	}
	if _, err := v.status(ctx, v.mark(), r.About, "the copy is over, again", final); err != nil {
		return "", fmt.Errorf("nobody settled %s: %w", first.Status, err)
	}
	return "it came again", nil
}

func settled(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.True)
	if err != nil {
		return "", err
	}
	if _, err := v.status(ctx, mark, r.About, "the copy is over", final); err != nil {
		return "", err
	}
	if _, err := v.give(ctx, &wire.Settle{About: r.About, Taken: true}); err != nil {
		return "", err
	}
	if err := v.caughtUp(ctx); err != nil {
		return "", err
	}
	// Whether it is forgotten or known as over: it does not live.
	mark = v.mark()
	if err := v.caughtUp(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	again, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if err := v.caughtUp(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	saw := "its route is refused: " + string(again.Kind)
	if again.Accepted {
		saw = "its route is answered as before"
	}
	for _, m := range v.since(mark) {
		if x, ok := m.(*wire.Report); ok && x.About == r.About {
			if !final(x) {
				return "", fmt.Errorf("the copy ended and was settled, and is %s again", x.Status)
			}
			saw += ", and it is " + string(x.Status)
		}
	}
	return saw, nil
}

func queriedUnknown(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.True))
	if err != nil {
		return "", err
	}
	mark := v.mark()
	if err := v.caughtUp(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	for _, m := range v.since(mark) {
		if x, ok := m.(*wire.Report); ok && x.About == r.About {
			return "", fmt.Errorf("nobody has the copy, whose route may be on its way, and it is said to be %s: %s", x.Status, x.Reason)
		}
	}
	a, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if !a.Accepted {
		return "", skip("the endpoint takes no such job of the kit's domain: %s: %s", a.Kind, a.Reason)
	}
	v.drop(r.About)
	return "not spoken of, and taken", nil
}

func queried(ctx context.Context, p *probe) (string, error) {
	v, r, _, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if final(rep) {
		return "", fmt.Errorf("the copy was just taken and sleeps for a minute, and it is %s: %s", rep.Status, rep.Reason)
	}
	return string(rep.Status), nil
}

func cancelled(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 3, Want: wire.Cancel, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", err
	}
	if rep.Heeded < 3 {
		return "", fmt.Errorf("the copy is %s, and heeded is %d: wanted 3", rep.Status, rep.Heeded)
	}
	if rep.Status == wire.IsEnded && rep.Result.Outcome != wire.Cancelled {
		return "", fmt.Errorf("the copy was cancelled, and ended as %s: %s", rep.Result.Outcome, rep.Result.Reason)
	}
	return string(rep.Status), nil
}

func staleControl(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 5, Want: wire.Run, RecallBy: r.RecallBy}, &wire.Control{About: r.About, Number: 4, Want: wire.Cancel, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	if _, err := v.status(ctx, mark, r.About, "Control 5 was heeded", func(x *wire.Report) bool { return x.Heeded == 5 }); err != nil {
		return "", err
	}
	mark = v.mark()
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if final(rep) || rep.Heeded != 5 {
		return "", fmt.Errorf("Control 4, which cancels, came after Control 5, which does not, and the copy is %s with heeded %d", rep.Status, rep.Heeded)
	}
	return string(rep.Status), nil
}

func recalled(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 1, Want: wire.Run, Recall: wire.RecallRunning, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "the recalled copy is returned", final)
	if err != nil {
		return "", err
	}
	if rep.Status != wire.IsReturned {
		return "", fmt.Errorf("a copy that sleeps for a minute was recalled, and is %s", rep.Status)
	}
	mark = v.mark()
	again, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if again.Accepted {
		// It may say what it said before, as long as the copy stays returned.
		if rep, err = v.status(ctx, mark, r.About, "the copy stays returned", func(*wire.Report) bool { return true }); err != nil || rep.Status != wire.IsReturned {
			return "", errors.Join(errors.New("the copy was returned, and its route is accepted again"), err)
		}
	}
	return "returned, and refused afterwards", nil
}

func suspended(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	var saw []string
	for i, want := range []wire.Want{wire.Suspend, wire.Run} {
		n := uint64(i + 1)
		if _, err := v.give(ctx, &wire.Control{About: r.About, Number: n, Want: want, RecallBy: r.RecallBy}); err != nil {
			return "", err
		}
		rep, err := v.status(ctx, mark, r.About, fmt.Sprintf("Control %d was heeded", n), func(x *wire.Report) bool { return x.Heeded >= n })
		if err != nil {
			return "", err
		}
		if final(rep) {
			return "", fmt.Errorf("the copy was to %s, and is %s: %s", want, rep.Status, rep.Reason)
		}
		saw = append(saw, fmt.Sprintf("%s: %s", want, rep.Status))
	}
	return strings.Join(saw, ", "), nil
}

func controlledBefore(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.Sleep, "60"))
	if err != nil {
		return "", err
	}
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 1, Want: wire.Cancel, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Control", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if rep.Status != wire.IsReturned {
		return "", fmt.Errorf("the copy was never seen, and is %s: wanted %s", rep.Status, wire.IsReturned)
	}
	a, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	return refusedWith(a)
}

func granted(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	later, earlier := time.Now().UTC().Add(v.opened.Terms.Lease*95/100).Truncate(time.Millisecond), time.Now().UTC().Add(-time.Hour).Truncate(time.Millisecond)
	if _, err := v.give(ctx, &wire.Grant{About: r.About, RecallBy: later}, &wire.Grant{About: r.About, RecallBy: earlier}); err != nil {
		return "", err
	}
	mark = max(mark, v.mark())
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if final(rep) {
		return "", fmt.Errorf("after an earlier deadline than it has the copy is %s: %s", rep.Status, rep.Reason)
	}
	return string(rep.Status), nil
}

func batch(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if !v.opened.Provides {
		return "", skip("the endpoint says that it takes no jobs of the kit's domain")
	}
	n := min(20, int(v.theirs.Limit-v.sent))
	var routes []wire.Message
	for range n {
		r, err := v.route(p.documentFor(p.opts.Programs.True))
		if err != nil {
			return "", err
		}
		routes = append(routes, r)
	}
	mark, taken := v.mark(), 0
	if _, err := v.give(ctx, routes...); err != nil {
		return "", err
	}
	for _, m := range routes {
		r := m.(*wire.Route)
		a, err := await(ctx, v, mark, "Answer to each route", func(a *wire.Answer) bool { return a.About == r.About })
		if err != nil {
			return "", err
		}
		if a.Accepted {
			taken++
			v.drop(r.About)
		}
	}
	return fmt.Sprintf("%d of %d accepted", taken, n), nil
}
