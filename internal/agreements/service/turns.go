package service

import (
	"context"
	"sync"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// turns has those who ask for the same come one after the other.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

type turn struct {
	token chan struct{}
	users int // who have it, or wait for it
}

// take waits for one's turn, and gives what to call when it is over.
func (t *turns) take(ctx context.Context, what string) (over func(), err error) {
	t.mu.Lock()
	x := t.of[what]
	if x == nil {
		x = &turn{token: make(chan struct{}, 1)}
		t.of[what] = x
	}
	x.users++
	t.mu.Unlock()
	done := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if x.users--; x.users == 0 {
			delete(t.of, what)
		}
	}
	select {
	case x.token <- struct{}{}:
		return func() { <-x.token; done() }, nil
	case <-ctx.Done():
		done()
		return nil, context.Cause(ctx)
	}
}

// oneAtATime gives who prepares something, when nobody else prepares the same: asked again while a manager is asked,
// it waits for what that says. over is to be called in any case.
func (s *Service) oneAtATime(ctx context.Context, op string, p agreement.Preparation) (who soap.Principal, over func(), err error) {
	if who, err = s.b.Permit(ctx, op, broker.Submit); err != nil {
		return who, func() {}, err
	}
	if over, err = s.asking.take(ctx, together.AgreementID(who.Name, p)); err != nil {
		return who, func() {}, fail.Errorf(op, fail.Unavailable, p.Key, "it is not known yet whether what the Key %q is for can be held: ask again by the same Key", p.Key).Because(err)
	}
	return who, over, nil
}

// holdElsewhere has managers of sites hold what was prepared. Whoever asked may not wait for as long as they take, and
// asks again by the same Key: it goes on meanwhile, and a refusal lets go whoever hears of it.
func (s *Service) holdElsewhere(ctx context.Context, r engine.Record) error {
	later := func(cause error) error {
		return fail.Errorf("service.Prepare", fail.Unavailable, r.ID, "it is not known yet whether it can be held, as managers of sites are asked: ask again by the same Key").Because(cause)
	}
	over, err := s.asking.take(ctx, "held "+r.ID)
	if err != nil {
		return later(err)
	}
	if r, err = s.e.Get(ctx, r.ID); err != nil || !r.Awaiting() {
		over()
		return err
	}
	said := make(chan error, 1)
	go func() {
		defer over()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.Patience)
		defer cancel()
		go func() {
			select {
			case <-s.ended:
				cancel()
			case <-ctx.Done():
			}
		}()
		_, err := s.secure(ctx, r, []engine.Plan{*r.Plan})
		if together.Definite(err) {
			if _, aborted := s.e.Abort(ctx, r.ID, fail.Sentence(err)); aborted != nil {
				s.o.Log.Warn("an agreement that could not be held is let go when its time is over", "agreement", r.ID, "cause", aborted)
			}
		}
		said <- err
	}()
	select {
	case err := <-said:
		return err
	case <-ctx.Done():
		return later(context.Cause(ctx))
	}
}
