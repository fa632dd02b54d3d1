package conformance

import (
	"context"
	"errors"
	"fmt"

	"github.com/portolan-project/portolan/peers/wire"
)

// These checks are made by two domains at once.
var peerTwoChecks = []check{
	{"PEER-TWO-1", chapter("Sessions: Opening"), "sessions of two domains stand side by side: one that opens or ends leaves the other as it is", sideBySide},
	{"PEER-TWO-2", chapter("Messages: Who it is; Faults: NotTrusted"), "items that another domain sends in a session are refused, and not taken", anothersItems},
	{"PEER-TWO-3", chapter("Messages: Who it is; Sessions: Resuming; Faults: NotTrusted"), "a session is not resumed by another domain, though it knows instance and cursors", anothersResume},
	{"PEER-TWO-4", chapter("Messages: Who it is; Sessions: Closing; Faults: NotTrusted"), "a session is not closed by another domain", anothersClose},
	{"PEER-TWO-5", chapter("Sessions: Opening (OpenSession: session)"), "the name of a session that stands is not agreed to for another domain", anothersName},
	{"PEER-TWO-6", chapter("Sessions: Resuming; Frames, receiver 3; Faults: CursorMismatch"), "a session is not resumed with the cursors of another domain's", anothersCursors},
	{"PEER-TWO-7", chapter("Handing over: Control, Query, Settle"), "a copy is not controlled, settled or told of for another domain than the one that gave it", anothersCopy},
}

// other gives the kit as the second domain.
func (p *probe) other() (*probe, error) {
	g := p.opts.Guest
	if g.Other == nil {
		return nil, skip("the kit has no certificate of a second domain that is trusted")
	}
	o := p.opts
	o.HTTP = g.Other
	o.Guest.Domain, o.Guest.Sign, o.Guest.Vouch, o.Guest.Signature = g.OtherDomain, g.OtherSign, nil, nil
	return newProbe(o), nil
}

// beside gives a session of the kit, and another of the second domain, which end ends.
func (p *probe) beside(ctx context.Context) (v, w *visit, end func(), err error) {
	q, err := p.other()
	if err != nil {
		return nil, nil, nil, err
	}
	if v, err = p.standing(ctx); err != nil {
		return nil, nil, nil, err
	}
	if w, err = q.begin(ctx, nil); err != nil {
		if f, ok := errors.AsType[*wire.Fault](err); ok && f.Code == wire.NotTrusted {
			return nil, nil, nil, skip("the second domain is no peer of the endpoint: %s", f.Sentence)
		}
		return nil, nil, nil, err
	}
	return v, w, func() {
		f := w.frame()
		f.Closing = wire.Ended
		_, _ = q.send(ctx, &wire.Close{Frame: f, Reason: wire.Shutdown, Sentence: "the check is over"}, 0)
	}, nil
}

// unharmed wants a session as it was.
func (v *visit) unharmed(ctx context.Context) error {
	f, err := v.heartbeat(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("after that the session is not what it was: %w", err)
	case f.Closing != "":
		return fmt.Errorf("after that the session is %s", f.Closing)
	case f.Got != v.sent:
		return fmt.Errorf("after that %d items were got in the session, and %d were sent in it", f.Got, v.sent)
	}
	return nil
}

func sideBySide(ctx context.Context, p *probe) (string, error) {
	v, w, end, err := p.beside(ctx)
	if err != nil {
		return "", err
	}
	if err = v.unharmed(ctx); err == nil {
		err = w.unharmed(ctx)
	}
	end()
	if err == nil {
		err = v.unharmed(ctx)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s and %s have a session each", v.open.Domain, w.open.Domain), nil
}

// intrude has the second domain say something about the kit's session, which is to be refused
// with one of the codes and to leave the session as it was.
func (p *probe) intrude(ctx context.Context, say func(v *visit, f wire.Frame) wire.Message, codes ...wire.FaultCode) (string, error) {
	q, err := p.other()
	if err != nil {
		return "", err
	}
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if err := v.unharmed(ctx); err != nil {
		return "", err
	}
	v.mu.Lock()
	f := wire.Frame{Session: v.open.Session, Number: v.number + 1000, Heard: v.heard, Sent: v.sent, Got: v.got, Done: v.got, Limit: v.limit, Clock: v.opened.Clock}
	v.mu.Unlock()
	got, err := q.send(ctx, say(v, f), 0)
	saw, err := wantCode(got, err, codes...)
	if err != nil {
		return "", err
	}
	return saw, v.unharmed(ctx)
}

func anothersItems(ctx context.Context, p *probe) (string, error) {
	return p.intrude(ctx, func(v *visit, f wire.Frame) wire.Message {
		f.First, f.Sent = f.Sent+1, f.Sent+1
		f.Items = []wire.Message{&wire.Query{About: wire.About{Origin: v.open.Domain, ID: "of-another", Token: "1"}}}
		return &wire.Exchange{Frame: f}
	}, wire.NotTrusted)
}

func anothersResume(ctx context.Context, p *probe) (string, error) {
	return p.intrude(ctx, func(v *visit, f wire.Frame) wire.Message {
		return &wire.Resume{Frame: f, Instance: v.open.Instance}
	}, wire.NotTrusted)
}

func anothersClose(ctx context.Context, p *probe) (string, error) {
	return p.intrude(ctx, func(_ *visit, f wire.Frame) wire.Message {
		f.Closing = wire.Ended
		return &wire.Close{Frame: f, Reason: wire.Withdrawn, Sentence: "the kit is another domain"}
	}, wire.NotTrusted)
}

func anothersName(ctx context.Context, p *probe) (string, error) {
	return p.intrude(ctx, func(v *visit, _ wire.Frame) wire.Message {
		o := *v.open
		o.Domain = p.opts.Guest.OtherDomain
		return &o
	}, wire.NotTrusted, wire.BadMessage)
}

func anothersCursors(ctx context.Context, p *probe) (string, error) {
	v, w, end, err := p.beside(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	// Its cursors must be beyond the other's on both sides, as they stand by now: an older frame is no resumption, and what
	// it says is not judged.
	for n := 0; n == 0 || v.heard <= w.heard+10 || v.number <= w.number+10; n++ {
		if _, err := w.heartbeat(ctx); err != nil {
			return "", fmt.Errorf("the second domain: %w", err)
		}
		for range 12 {
			if _, err := v.heartbeat(ctx); err != nil {
				return "", err
			}
		}
	}
	f := v.frame()
	f.Session = w.open.Session
	got, err := w.p.send(ctx, &wire.Resume{Frame: f, Instance: w.open.Instance}, 0)
	saw, err := wantCode(got, err, wire.CursorMismatch)
	if err != nil {
		return "", err
	}
	return saw, v.unharmed(ctx)
}

func anothersCopy(ctx context.Context, p *probe) (string, error) {
	_, w, end, err := p.beside(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	v, r, mark, err := p.running(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	const number = 9
	items := []wire.Message{
		&wire.Control{About: r.About, Number: number, Want: wire.Cancel, Recall: wire.RecallRunning, RecallBy: r.RecallBy}, &wire.Query{About: r.About}, &wire.Settle{About: r.About},
	}
	if _, err := w.give(ctx, items...); err != nil {
		return "", fmt.Errorf("the second domain: %w", err)
	}
	mark = max(mark, v.mark())
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true })
	switch {
	case err != nil:
		return "", err
	case final(rep):
		return "", fmt.Errorf("%s asked for the end of a copy that %s gave, and it is %s: %s", w.open.Domain, v.open.Domain, rep.Status, rep.Reason)
	case rep.Heeded >= number:
		return "", fmt.Errorf("a Control of %s is heeded about a copy that %s gave", w.open.Domain, v.open.Domain)
	}
	for _, m := range w.since(0) {
		if x, ok := m.(*wire.Report); ok && x.About == r.About && !final(x) {
			return "", fmt.Errorf("%s is told of a copy that %s gave: it is %s", w.open.Domain, v.open.Domain, x.Status)
		}
	}
	return "it is " + string(rep.Status) + " still", nil
}
