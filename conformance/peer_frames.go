package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

const frames = "Sessions: Frames, numbers, cursors"

var peerFrameChecks = []check{
	{"PEER-FRM-1", chapter(frames + " (heard); Who says what when"), "a Heartbeat is answered, and the answer has heard it", beats},
	{"PEER-FRM-2", chapter(frames + " (number)"), "frames of one sender have numbers that grow", numbersGrow},
	{"PEER-FRM-3", chapter(frames + " (limit), receiver 4"), "the credit begins with the window, and is done and the window from then on", credit},
	{"PEER-FRM-4", chapter(frames + ", receiver 1"), "items are taken in order, and said to be done with", takes},
	{"PEER-FRM-5", chapter(frames + ", receiver 1; Messages: Idempotence"), "a frame that comes twice has its items taken once", takesOnce},
	{"PEER-FRM-6", chapter(frames + ", receiver 1"), "items that come too early are dropped, and taken when they come again in order", takesInOrder},
	{"PEER-FRM-7", chapter(frames + ", receiver 1"), "items above the credit are dropped", takesWithinCredit},
	{"PEER-FRM-8", chapter(frames + ", receiver 2"), "a late frame has its items taken, and nothing else in it heeded", late},
	{"PEER-FRM-9", chapter(frames + ", receiver 3; Faults: CursorMismatch"), "got above what there is is a loss of state: the session is over", mismatch(func(v *visit, f *wire.Frame) { f.Got = v.theirs.Sent + 10 })},
	{"PEER-FRM-10", chapter(frames + ", receiver 3; Faults: CursorMismatch"), "heard above what was made is a loss of state", mismatch(func(v *visit, f *wire.Frame) { f.Heard += 1000 })},
	{"PEER-FRM-11", chapter(frames + ", receiver 3; Faults: CursorMismatch"), "a credit that goes back is a loss of state", mismatch(func(_ *visit, f *wire.Frame) { f.Limit = 1 })},
	{"PEER-FRM-12", chapter(frames + ", sender 2"), "no item is sent above the credit", sendsWithinCredit},
	{"PEER-FRM-13", chapter(frames + ", sender 1 and 3"), "items that were not got come again, the same", sendsAgain},
	{"PEER-FRM-14", chapter(frames + ", sender 1"), "items that were done with do not come again", forgets},
	{"PEER-FRM-15", chapter("Sessions: Opening (features)"), "an item of a feature that was not agreed on is refused", beyondFeatures},
	{"PEER-FRM-16", chapter("Sessions: Opening (features)"), "items of features that were not agreed on are not sent", withinFeatures},
}

func beats(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	f, err := v.heartbeat(ctx)
	if err != nil {
		return "", err
	}
	if f.Heard != v.number {
		return "", fmt.Errorf("the answer to frame %d says that %d was heard last", v.number, f.Heard)
	}
	return fmt.Sprintf("frame %d heard %d", f.Number, f.Heard), nil
}

func numbersGrow(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	var last uint64
	for range 3 {
		f, err := v.heartbeat(ctx)
		if err != nil {
			return "", err
		}
		if f.Number <= last {
			return "", fmt.Errorf("frame %d came after frame %d", f.Number, last)
		}
		last = f.Number
		if f, err = v.poll(ctx, 0); err != nil {
			return "", err
		}
		if f.Number <= last {
			return "", fmt.Errorf("frame %d came after frame %d", f.Number, last)
		}
		last = f.Number
	}
	return fmt.Sprintf("up to %d", last), nil
}

func credit(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	mark, q := v.mark(), v.asks(3)
	if _, err := v.give(ctx, q...); err != nil {
		return "", err
	}
	for _, m := range q {
		if _, err := v.answered(ctx, mark, m); err != nil {
			return "", err
		}
	}
	f, err := v.heartbeat(ctx)
	if err != nil {
		return "", err
	}
	if f.Done != v.sent || f.Limit != f.Done+uint64(v.opened.Window) {
		return "", fmt.Errorf("after %d items done is %d and limit %d: wanted limit to be done and the window, %d", v.sent, f.Done, f.Limit, v.opened.Window)
	}
	return fmt.Sprintf("done %d, limit %d", f.Done, f.Limit), nil
}

func takes(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	mark, q := v.mark(), v.asks(5)
	f, err := v.give(ctx, q...)
	if err != nil {
		return "", err
	}
	if f.Got != v.sent {
		return "", fmt.Errorf("%d items were sent, and got is %d", v.sent, f.Got)
	}
	order := map[wire.About]int{}
	for i, m := range q {
		if _, err := v.answered(ctx, mark, m); err != nil {
			return "", err
		}
		order[m.(*wire.Route).About] = i
	}
	last := -1
	for _, m := range v.since(mark) {
		if r, ok := m.(*wire.Answer); ok {
			if i, asked := order[r.About]; asked && i >= last {
				last = i
			} else if asked {
				return "", fmt.Errorf("the answer to item %d came after that to item %d", i+1, last+1)
			}
		}
	}
	if f, err = v.heartbeat(ctx); err != nil {
		return "", err
	}
	if f.Done != v.sent {
		return "", fmt.Errorf("%d items were sent and answered, and done is %d", v.sent, f.Done)
	}
	return fmt.Sprintf("got and done are %d", f.Done), nil
}

// count gives how many answers about a copy came after a mark.
func (v *visit) count(mark int, q wire.Message) int {
	n := 0
	for _, m := range v.since(mark) {
		if r, ok := m.(*wire.Answer); ok && r.About == q.(*wire.Route).About {
			n++
		}
	}
	return n
}

func takesOnce(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	mark, q := v.mark(), v.asks(2)
	f := v.frame()
	v.with(&f, q...)
	for range 2 {
		if _, err := v.exchanged(ctx, f); err != nil {
			return "", err
		}
	}
	for _, m := range q {
		if _, err := v.answered(ctx, mark, m); err != nil {
			return "", err
		}
	}
	// One more item, so that all answers before its own are here.
	last := v.asks(1)
	if _, err := v.give(ctx, last...); err != nil {
		return "", err
	}
	if _, err := v.answered(ctx, mark, last[0]); err != nil {
		return "", err
	}
	for i, m := range q {
		if n := v.count(mark, m); n != 1 {
			return "", fmt.Errorf("item %d came twice in the same frame, and was heeded %d times", i+1, n)
		}
	}
	if a, err := v.heartbeat(ctx); err != nil || a.Got != v.sent {
		return "", errors.Join(fmt.Errorf("%d items were sent, and got is not that", v.sent), err)
	}
	return "each once", nil
}

func takesInOrder(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	mark, q := v.mark(), v.asks(2)
	before := v.sent
	f := v.frame()
	f.First, f.Items, f.Sent = before+2, q[1:], before+2 // the first one is on its way yet
	m, err := p.send(ctx, &wire.Exchange{Frame: f}, 0)
	if err != nil {
		return "", fmt.Errorf("Exchange: %w", err)
	}
	a, ok := m.(*wire.Exchanged)
	if !ok || a.Got != before {
		return "", fmt.Errorf("item %d came without the one before it, and the answer is %s with got %d: wanted %d", before+2, wire.Name(m).Local, a.Got, before)
	}
	v.sent = before + 2
	if err := v.read(&a.Frame); err != nil {
		return "", err
	}
	g := v.frame()
	g.First, g.Items, g.Sent, g.Hold = before+1, q, before+2, 5*time.Second
	if _, err := v.exchanged(ctx, g); err != nil {
		return "", err
	}
	for i, m := range q {
		if _, err := v.answered(ctx, mark, m); err != nil {
			return "", err
		}
		if n := v.count(mark, m); n != 1 {
			return "", fmt.Errorf("item %d was heeded %d times", i+1, n)
		}
	}
	return fmt.Sprintf("got stayed at %d", before), nil
}

func takesWithinCredit(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	room := int(v.theirs.Limit - v.sent)
	if room+3 > wire.MaxItems {
		return "", skip("the credit, %d items, is more than fits into a frame", room)
	}
	limit, before := v.theirs.Limit, v.sent
	q := v.asks(room + 3)
	f := v.frame()
	f.First, f.Items, f.Sent = before+1, q, before+uint64(len(q))
	v.sent = f.Sent
	m, err := p.send(ctx, &wire.Exchange{Frame: f}, 0)
	if err != nil {
		return "", fmt.Errorf("Exchange: %w", err)
	}
	a, ok := m.(*wire.Exchanged)
	if !ok {
		return "", fmt.Errorf("Exchange was answered with %s", wire.Name(m).Local)
	}
	if a.Got > limit {
		return "", fmt.Errorf("the credit was up to item %d, and got is %d", limit, a.Got)
	}
	if err := v.read(&a.Frame); err != nil {
		return "", err
	}
	// What was dropped comes again, as there is room now.
	for i := range q {
		if v.theirs.Got >= before+uint64(i)+1 {
			continue
		}
		g := v.frame()
		g.First, g.Items, g.Hold = before+uint64(i)+1, q[i:i+1], 5*time.Second
		if _, err := v.exchanged(ctx, g); err != nil {
			return "", err
		}
	}
	if v.theirs.Got != v.sent {
		return "", fmt.Errorf("%d items were sent again within the credit, and got is %d", v.sent, v.theirs.Got)
	}
	return fmt.Sprintf("got %d of %d with the credit %d", a.Got, before+uint64(len(q)), limit), nil
}

func late(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	mark := v.mark()
	old := v.frame() // overtaken by the next one
	if _, err := v.heartbeat(ctx); err != nil {
		return "", err
	}
	q := v.asks(1)
	v.with(&old, q...)
	old.Got, old.Done, old.Limit, old.Heard = 0, 0, 1, 0 // nothing of this may be heeded
	if _, err := v.exchanged(ctx, old); err != nil {
		return "", fmt.Errorf("a frame that was overtaken: %w", err)
	}
	if _, err := v.answered(ctx, mark, q[0]); err != nil {
		return "", err
	}
	f, err := v.heartbeat(ctx)
	if err != nil {
		return "", fmt.Errorf("after a frame that was overtaken: %w", err)
	}
	if f.Closing != "" {
		return "", fmt.Errorf("after a frame that was overtaken the session has closing=%s", f.Closing)
	}
	return "its item was taken, its cursors were not", nil
}

// mismatch sends cursors that can't be.
func mismatch(wrong func(*visit, *wire.Frame)) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		v, err := p.begin(ctx, nil)
		if err != nil {
			return "", err
		}
		if _, err := v.heartbeat(ctx); err != nil {
			return "", err
		}
		f := v.frame()
		wrong(v, &f)
		m, err := p.send(ctx, &wire.Heartbeat{Frame: f}, 0)
		saw, err := wantCode(m, err, wire.CursorMismatch)
		if err != nil {
			return "", err
		}
		if _, err := v.over(ctx); err != nil {
			return "", fmt.Errorf("after that the session should be over: %w", err)
		}
		return saw, nil
	}
}

// narrow opens a session in which the kit takes two items before it is done with any.
func (p *probe) narrow(ctx context.Context) (*visit, error) {
	v, err := p.begin(ctx, func(o *wire.Open) { o.Window = 2 })
	if err != nil {
		return nil, err
	}
	v.holds = true
	_, err = v.give(ctx, v.asks(5)...)
	return v, err
}

func sendsWithinCredit(ctx context.Context, p *probe) (string, error) {
	v, err := p.narrow(ctx)
	if err != nil {
		return "", err
	}
	for range 4 {
		if _, err := v.poll(ctx, 500*time.Millisecond); err != nil {
			return "", err
		}
	}
	if v.mark() > 2 {
		return "", fmt.Errorf("the credit was 2 items, and %d came", v.mark())
	}
	if v.mark() < 2 {
		return "", fmt.Errorf("the kit asked for five answers and gave credit for two, and %d came", v.mark())
	}
	v.holds = false
	for until := time.Now().Add(p.opts.Settle); v.mark() < 5; {
		if time.Now().After(until) {
			return "", fmt.Errorf("there was credit for all five answers, and %d came", v.mark())
		}
		if _, err := v.poll(ctx, time.Second); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("two, and then all %d", v.mark()), nil
}

func sendsAgain(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, nil)
	if err != nil {
		return "", err
	}
	before := v.mark()
	if _, err := v.give(ctx, v.asks(3)...); err != nil {
		return "", err
	}
	for range 10 {
		if v.mark() > before {
			break
		}
		if _, err := v.poll(ctx, time.Second); err != nil {
			return "", err
		}
	}
	// No frame told yet that the kit has them. As if they had been lost, it forgets them.
	v.mu.Lock()
	lost := v.seen[before:]
	v.seen, v.got = v.seen[:before:before], uint64(before)
	v.mu.Unlock()
	if len(lost) == 0 {
		return "", errors.New("three copies were asked for, and nothing was said")
	}
	for i, want := range lost {
		if _, err := await(ctx, v, before+i, "item that was lost", func(m wire.Message) bool { return same(m, want) }); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d items came again", len(lost)), nil
}

func forgets(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	mark, q := v.mark(), v.asks(2)
	if _, err := v.give(ctx, q...); err != nil {
		return "", err
	}
	for _, m := range q {
		if _, err := v.answered(ctx, mark, m); err != nil {
			return "", err
		}
	}
	if _, err := v.heartbeat(ctx); err != nil { // which tells that all is done with
		return "", err
	}
	done := v.done
	for range 2 {
		f, err := v.poll(ctx, 0)
		if err != nil {
			return "", err
		}
		if f.First != 0 && f.First <= done {
			return "", fmt.Errorf("item %d came again, after the kit was done with all up to %d", f.First, done)
		}
	}
	return fmt.Sprintf("nothing up to %d came again", done), nil
}

func beyondFeatures(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, func(o *wire.Open) { o.Features = nil })
	if err != nil {
		return "", err
	}
	f := v.frame()
	v.with(&f, &wire.Read{About: p.unknown(), Request: 1, Stream: wire.Stdout, Most: 10})
	m, err := p.send(ctx, &wire.Exchange{Frame: f}, 0)
	return wantCode(m, err, wire.BadMessage)
}

func withinFeatures(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, func(o *wire.Open) { o.Features = nil })
	if err != nil {
		return "", err
	}
	if len(v.opened.Features) > 0 {
		return "", fmt.Errorf("the kit knows no features, and %q were agreed on", v.opened.Features)
	}
	if _, _, err := v.pull(ctx, &wire.Pull{}); err != nil {
		return "", err
	}
	if err := v.quiet(ctx); err != nil {
		return "", err
	}
	if m, feature := wire.Beyond(nil, v.since(0)); m != nil {
		return "", fmt.Errorf("no features were agreed on, and there came %s, which is of %s", wire.Name(m).Local, feature)
	}
	return fmt.Sprintf("%d items, none of them of a feature", v.mark()), nil
}
