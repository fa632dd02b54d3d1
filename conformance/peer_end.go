package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

var peerEndChecks = []check{
	{"PEER-END-1", chapter("Sessions: Closing"), "CloseSession with draining is answered, and whoever reads it drains too", drains},
	{"PEER-END-2", chapter("Sessions: Closing (drained)"), "what was under way is done with before the session ends", drainsWhole},
	{"PEER-END-3", chapter("Sessions: Closing (ended)"), "CloseSession with ended closes the other side too", ends},
	{"PEER-END-4", chapter("Sessions: Closing; Messages: Idempotence"), "CloseSession that comes again is answered again", endsAgain},
	{"PEER-END-5", chapter("Sessions: Closing"), "whoever closed answers Exchange and Heartbeat with ended", endedAnswers},
	{"PEER-END-6", chapter("Sessions: Closing; Opening (OpenSession: session)"), "a session that was closed is not opened again by its name", endedName},
	{"PEER-END-7", chapter("Sessions: Resuming; Closing"), "a session that was closed is not resumed", endedResume},
	{"PEER-RSM-1", chapter("Sessions: Resuming"), "ResumeSession of a session that was not broken is answered with cursors and instance", resumes},
	{"PEER-RSM-2", chapter("Sessions: Resuming"), "after ResumeSession both go on from the other's got + 1", resumesItems},
	{"PEER-RSM-3", chapter("Sessions: Resuming; Faults: CursorMismatch"), "ResumeSession by another instance is a loss of state: the session is over", otherInstance},
	{"PEER-RSM-4", chapter("Sessions: Resuming; Faults: UnknownSession"), "ResumeSession of a session that nobody opened is refused", resumesUnknown},
	{"PEER-RSM-5", chapter("Sessions: Resuming; Faults: CursorMismatch"), "ResumeSession with cursors that can't be is refused", resumesWrong},
}

// close tells the other side how far the end is.
func (v *visit) close(ctx context.Context, c wire.Closing, reason wire.CloseReason) (*wire.Frame, error) {
	f := v.frame()
	f.Closing = c
	m, err := v.p.send(ctx, &wire.Close{Frame: f, Reason: reason, Sentence: "the kit looks how sessions end"}, 0)
	if err != nil {
		return nil, fmt.Errorf("CloseSession: %w", err)
	}
	a, ok := m.(*wire.Closed)
	if !ok {
		return nil, fmt.Errorf("CloseSession was answered with %s", wire.Name(m).Local)
	}
	return &a.Frame, v.read(&a.Frame)
}

// toEnd gives signs of life of a side that drains until the other says that it has closed.
func (v *visit) toEnd(ctx context.Context) error {
	for until := time.Now().Add(v.p.opts.Settle); time.Now().Before(until); {
		f := v.frame()
		f.Hold, f.Poll, f.Closing = time.Second, true, wire.Draining
		a, err := v.exchanged(ctx, f)
		if err != nil {
			return err
		}
		if a.Closing == wire.Ended {
			return nil
		}
		if a.Closing != wire.Draining {
			return fmt.Errorf("the kit drains, and the endpoint's frame has closing=%q", a.Closing)
		}
	}
	return fmt.Errorf("all items are done with, and the session did not end within %v", v.p.opts.Settle)
}

func drains(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, nil)
	if err != nil {
		return "", err
	}
	f, err := v.close(ctx, wire.Draining, wire.Shutdown)
	if err != nil {
		return "", err
	}
	if f.Closing == "" {
		return "", errors.New("the answer to CloseSession does not say that the endpoint drains too")
	}
	if f.Closing != wire.Ended {
		if err := v.toEnd(ctx); err != nil {
			return "", err
		}
	}
	return "closing=" + string(f.Closing), nil
}

func drainsWhole(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, nil)
	if err != nil {
		return "", err
	}
	v.holds = true
	q := v.asks(3)
	if _, err := v.give(ctx, q...); err != nil {
		return "", err
	}
	for _, m := range q {
		if _, err := v.answered(ctx, 0, m); err != nil {
			return "", err
		}
	}
	f, err := v.close(ctx, wire.Draining, wire.Shutdown)
	if err != nil {
		return "", err
	}
	if f.Closing == wire.Ended {
		return "", errors.New("the kit is not done with three items, and the session is closed")
	}
	v.holds = false
	return "it waited for what was not done with", v.toEnd(ctx)
}

func ends(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, nil)
	if err != nil {
		return "", err
	}
	f, err := v.close(ctx, wire.Ended, wire.Withdrawn)
	if err != nil {
		return "", err
	}
	if f.Closing != wire.Ended {
		return "", fmt.Errorf("the kit closed the session, and the answer has closing=%q", f.Closing)
	}
	return "closing=ended", nil
}

// ended gives a session that was closed.
func (p *probe) ended(ctx context.Context) (*visit, error) {
	v, err := p.begin(ctx, nil)
	if err == nil {
		_, err = v.close(ctx, wire.Ended, wire.Withdrawn)
	}
	return v, err
}

func endsAgain(ctx context.Context, p *probe) (string, error) {
	v, err := p.ended(ctx)
	if err != nil {
		return "", err
	}
	f, err := v.close(ctx, wire.Ended, wire.Withdrawn)
	if fault, ok := errors.AsType[*wire.Fault](err); ok && (fault.Code == wire.UnknownSession || fault.Code == wire.SessionClosed) {
		return string(fault.Code), nil
	}
	if err != nil {
		return "", err
	}
	if f.Closing != wire.Ended {
		return "", fmt.Errorf("the answer to the second CloseSession has closing=%q", f.Closing)
	}
	return "closing=ended", nil
}

func endedAnswers(ctx context.Context, p *probe) (string, error) {
	v, err := p.ended(ctx)
	if err != nil {
		return "", err
	}
	saw, err := v.over(ctx)
	if err != nil {
		return "", fmt.Errorf("Heartbeat: %w", err)
	}
	f, err := v.give(ctx, v.asks(1)...)
	if fault, ok := errors.AsType[*wire.Fault](err); ok && (fault.Code == wire.UnknownSession || fault.Code == wire.SessionClosed) {
		return saw, nil
	}
	if err != nil {
		return "", err
	}
	if f.Closing != wire.Ended || f.Got != 0 {
		return "", fmt.Errorf("an Exchange of a closed session is answered with closing=%q and got %d", f.Closing, f.Got)
	}
	return saw, nil
}

func endedName(ctx context.Context, p *probe) (string, error) {
	v, err := p.ended(ctx)
	if err != nil {
		return "", err
	}
	m, err := p.patient(ctx, v.open)
	return wantCode(m, err, wire.SessionClosed, wire.BadMessage, wire.UnknownSession)
}

// resume takes the session up; change may change what is said.
func (v *visit) resume(ctx context.Context, change func(*wire.Resume)) (*wire.Resumed, error) {
	r := &wire.Resume{Frame: v.frame(), Instance: v.open.Instance}
	if change != nil {
		change(r)
	}
	m, err := v.p.send(ctx, r, 0)
	if err != nil {
		return nil, err
	}
	a, ok := m.(*wire.Resumed)
	if !ok {
		return nil, fmt.Errorf("ResumeSession was answered with %s", wire.Name(m).Local)
	}
	return a, v.read(&a.Frame)
}

func endedResume(ctx context.Context, p *probe) (string, error) {
	v, err := p.ended(ctx)
	if err != nil {
		return "", err
	}
	a, err := v.resume(ctx, nil)
	if err == nil {
		if a.Closing == wire.Ended {
			return "closing=ended", nil
		}
		return "", fmt.Errorf("the session was closed, and is resumed with closing=%q", a.Closing)
	}
	return wantCode(nil, err, wire.SessionClosed, wire.UnknownSession, wire.CursorMismatch)
}

func resumes(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	a, err := v.resume(ctx, nil)
	if err != nil {
		return "", err
	}
	if a.Instance != v.opened.Instance {
		return "", fmt.Errorf("the instance is %q, and was %q when the session was opened", a.Instance, v.opened.Instance)
	}
	if a.Got != v.sent {
		return "", fmt.Errorf("the cursor is %d, and the kit sent %d items", a.Got, v.sent)
	}
	_, err = v.heartbeat(ctx)
	return fmt.Sprintf("got %d, sent %d", a.Got, a.Sent), err
}

func resumesItems(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, nil)
	if err != nil {
		return "", err
	}
	q := v.asks(2)
	if _, err := v.give(ctx, q...); err != nil {
		return "", err
	}
	for _, m := range q {
		if _, err := v.answered(ctx, 0, m); err != nil {
			return "", err
		}
	}
	// As if the answers that brought them were lost: no frame told that they are here.
	v.mu.Lock()
	told := int(v.done)
	lost := v.seen[told:]
	v.seen, v.got = v.seen[:told:told], uint64(told)
	v.mu.Unlock()
	if _, err := v.resume(ctx, nil); err != nil {
		return "", err
	}
	for i, want := range lost {
		if _, err := await(ctx, v, told+i, "item that was lost", func(m wire.Message) bool { return same(m, want) }); err != nil {
			return "", err
		}
	}
	mark, again := v.mark(), v.asks(1)
	if _, err := v.give(ctx, again...); err != nil {
		return "", err
	}
	_, err = v.answered(ctx, mark, again[0])
	return fmt.Sprintf("%d items came again, and others went on", len(lost)), err
}

func otherInstance(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, nil)
	if err != nil {
		return "", err
	}
	_, err = v.resume(ctx, func(r *wire.Resume) { r.Instance = "another" })
	if err == nil {
		return "", errors.New("another instance resumed the session")
	}
	saw, err := wantCode(nil, err, wire.CursorMismatch)
	if err != nil {
		return "", err
	}
	if _, err := v.over(ctx); err != nil {
		return "", fmt.Errorf("after that the session should be over: %w", err)
	}
	return saw, nil
}

func resumesUnknown(ctx context.Context, p *probe) (string, error) {
	m, _, err := p.stray()
	if err != nil {
		return "", err
	}
	got, err := p.send(ctx, &wire.Resume{Frame: m.Frame, Instance: "conformance"}, 0)
	return wantCode(got, err, wire.UnknownSession)
}

func resumesWrong(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, nil)
	if err != nil {
		return "", err
	}
	_, err = v.resume(ctx, func(r *wire.Resume) { r.Got = v.theirs.Sent + 10 })
	if err == nil {
		return "", errors.New("the kit said that it has items that nobody sent, and the session is resumed")
	}
	return wantCode(nil, err, wire.CursorMismatch)
}
