package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

const polls = "Sessions: Outbound-only sides"

var peerPollChecks = []check{
	{"PEER-POL-1", chapter(polls + " (hold)"), "a poll is held while there is nothing to say, and answered when hold is over", held},
	{"PEER-POL-2", chapter("Exchange (hold 0)"), "a poll without hold is answered at once", notHeld},
	{"PEER-POL-3", chapter(polls), "a poll is answered as soon as there are items", woken},
	{"PEER-POL-4", chapter(polls), "a newer poll has the older one answered at once", overtaken},
	{"PEER-POL-5", chapter("Sessions: Who says what when"), "an Exchange with items is answered once they are done with, without waiting for hold", notHeldLonger},
	{"PEER-POL-6", chapter("Sessions: Who says what when"), "a Heartbeat is answered at once while a poll is held", besides},
	{"PEER-POL-7", chapter("Sessions: Who says what when (hold)"), "nothing is held for longer than a beat", heldForABeat},
}

// quiet polls until nothing comes, so that nothing is on its way.
func (v *visit) quiet(ctx context.Context) error {
	for range 20 {
		f, err := v.poll(ctx, 200*time.Millisecond)
		if err != nil {
			return err
		}
		if len(f.Items) == 0 {
			if _, err := v.heartbeat(ctx); err != nil {
				return err
			}
			return nil
		}
	}
	return errors.New("the endpoint has something to say all the time")
}

// longHold is how long a poll may be held that must not be; promptly is when its answer must
// be here.
const (
	longHold = 10 * time.Second
	promptly = longHold / 2
)

func held(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if err := v.quiet(ctx); err != nil {
		return "", err
	}
	const hold = 1500 * time.Millisecond
	for range 3 { // what was said to be done with may be told in between
		began := time.Now()
		f, err := v.poll(ctx, hold)
		if err != nil {
			return "", err
		}
		if took := time.Since(began); took >= hold-200*time.Millisecond {
			return fmt.Sprintf("held for %v", took.Round(10*time.Millisecond)), nil
		}
		if len(f.Items) > 0 {
			if err := v.quiet(ctx); err != nil {
				return "", err
			}
		}
	}
	return "", fmt.Errorf("three polls with hold %v were answered before, with nothing to say", hold)
}

func notHeld(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	began := time.Now()
	if _, err := v.poll(ctx, 0); err != nil {
		return "", err
	}
	if took := time.Since(began); took > promptly {
		return "", fmt.Errorf("a poll without hold was answered after %v", took.Round(10*time.Millisecond))
	}
	return fmt.Sprintf("after %v", time.Since(began).Round(time.Millisecond)), nil
}

// aside polls in the background; what comes of it is given by the function.
func (v *visit) aside(ctx context.Context, hold time.Duration) func() (*wire.Frame, time.Duration, error) {
	type result struct {
		f    *wire.Frame
		took time.Duration
		err  error
	}
	f := v.frame()
	f.Hold, f.Poll = hold, true
	out := make(chan result, 1)
	began := time.Now()
	go func() {
		a, err := v.exchanged(ctx, f)
		out <- result{a, time.Since(began), err}
	}()
	return func() (*wire.Frame, time.Duration, error) {
		r := <-out
		return r.f, r.took, r.err
	}
}

func woken(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if err := v.quiet(ctx); err != nil {
		return "", err
	}
	mark := v.mark()
	wait := v.aside(ctx, longHold)
	q := v.asks(1)
	f := v.frame()
	v.with(&f, q...)
	_, sent := v.exchanged(ctx, f)
	_, took, err := wait()
	if err := errors.Join(sent, err); err != nil {
		return "", err
	}
	if _, err := v.answered(ctx, mark, q[0]); err != nil {
		return "", err
	}
	if took > promptly {
		return "", fmt.Errorf("there was an item to say, and the poll was held for %v", took.Round(time.Millisecond))
	}
	return fmt.Sprintf("after %v", took.Round(time.Millisecond)), nil
}

func overtaken(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if err := v.quiet(ctx); err != nil {
		return "", err
	}
	older := v.aside(ctx, longHold)
	newer := v.aside(ctx, 500*time.Millisecond)
	_, _, second := newer()
	_, took, first := older()
	if err := errors.Join(first, second); err != nil {
		return "", err
	}
	if took > promptly {
		return "", fmt.Errorf("there was a newer poll, and the older one was held for %v", took.Round(time.Millisecond))
	}
	return fmt.Sprintf("after %v", took.Round(time.Millisecond)), nil
}

func notHeldLonger(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	mark, q := v.mark(), v.asks(1)
	f := v.frame()
	f.Hold = longHold
	v.with(&f, q...)
	began := time.Now()
	if _, err := v.exchanged(ctx, f); err != nil {
		return "", err
	}
	took := time.Since(began)
	if took > promptly {
		return "", fmt.Errorf("the answer was held for %v", took.Round(time.Millisecond))
	}
	_, err = v.answered(ctx, mark, q[0])
	return fmt.Sprintf("after %v", took.Round(time.Millisecond)), err
}

func besides(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if err := v.quiet(ctx); err != nil {
		return "", err
	}
	wait := v.aside(ctx, longHold)
	began := time.Now()
	_, beat := v.heartbeat(ctx)
	took := time.Since(began)
	_, newer := v.poll(ctx, 0) // which has the older one answered
	_, _, poll := wait()
	if err := errors.Join(beat, newer, poll); err != nil {
		return "", err
	}
	if took > promptly {
		return "", fmt.Errorf("the Heartbeat was answered after %v, with the poll", took.Round(time.Millisecond))
	}
	return fmt.Sprintf("after %v", took.Round(time.Millisecond)), nil
}

func heldForABeat(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, func(o *wire.Open) { o.Beat = wire.MinBeat })
	if err != nil {
		return "", err
	}
	if v.opened.Beat > promptly/2 {
		return "", skip("the endpoint wants a beat of %v, which is too long to wait", v.opened.Beat)
	}
	if err := v.quiet(ctx); err != nil {
		return "", err
	}
	began := time.Now()
	if _, err := v.poll(ctx, longHold); err != nil {
		return "", err
	}
	if took := time.Since(began); took > promptly {
		return "", fmt.Errorf("the beat is %v, and a poll was held for %v", v.opened.Beat, took.Round(10*time.Millisecond))
	}
	return fmt.Sprintf("after %v, the beat being %v", time.Since(began).Round(10*time.Millisecond), v.opened.Beat), nil
}
