package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

var peerPhaseChecks = []check{
	{"PEER-PHS-1", chapter("Sessions: Phases (lost); Faults: MustResume"), "after silence for lost a Heartbeat is answered with MustResume", mustResume("Heartbeat")},
	{"PEER-PHS-2", chapter("Sessions: Resuming; Faults: MustResume"), "and so is an Exchange", mustResume("Exchange")},
	{"PEER-PHS-3", chapter("Sessions: Phases (from lost only ResumeSession leads back)"), "ResumeSession leads back, and items go on", backFromLost},
}

// silence opens a session and says nothing in it until the other side takes it for lost.
func (p *probe) silence(ctx context.Context) (*visit, error) {
	if p.lost != nil {
		return p.lost, nil
	}
	v, err := p.begin(ctx, func(o *wire.Open) { o.Beat, o.Lost = wire.MinBeat, 0 })
	if err != nil {
		return nil, err
	}
	if v.opened.Lost > p.opts.Settle {
		return nil, skip("the endpoint takes a session for lost after %v, which is too long to wait", v.opened.Lost)
	}
	if _, err := v.heartbeat(ctx); err != nil {
		return nil, err
	}
	t := time.NewTimer(v.opened.Lost + 500*time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.lost = v
	return v, nil
}

func mustResume(with string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		v, err := p.silence(ctx)
		if err != nil {
			return "", err
		}
		if with == "Exchange" {
			f := v.frame()
			f.First, f.Items, f.Sent = v.sent+1, v.asks(1), v.sent+1 // they are sent again, after the session was resumed
			_, err = v.exchanged(ctx, f)
		} else {
			_, err = v.heartbeat(ctx)
		}
		if err == nil {
			return "", fmt.Errorf("the session was silent for %v, and %s is answered", v.opened.Lost, with)
		}
		return wantCode(nil, err, wire.MustResume)
	}
}

func backFromLost(ctx context.Context, p *probe) (string, error) {
	v, err := p.silence(ctx)
	if err != nil {
		return "", err
	}
	p.lost = nil
	a, err := v.resume(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("ResumeSession: %w", err)
	}
	if a.Instance != v.opened.Instance {
		return "", fmt.Errorf("the instance is %q, and was %q", a.Instance, v.opened.Instance)
	}
	if a.Got != v.sent {
		return "", errors.New("what came while the session was lost was taken")
	}
	mark, q := v.mark(), v.asks(1)
	if _, err := v.give(ctx, q...); err != nil {
		return "", err
	}
	_, err = v.answered(ctx, mark, q[0])
	return fmt.Sprintf("after %v", v.opened.Lost), err
}
