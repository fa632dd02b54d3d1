package together_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/fail"
)

// silent is a provider that says nothing any more of what it is mute about.
type silent struct {
	fake
	mu   sync.Mutex
	mute map[string]bool
	busy map[string]int
	most map[string]int // of the requests at a time
}

func (s *silent) mutes(what ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = map[string]bool{}
	for _, w := range what {
		s.mute[w] = true
	}
}

func (s *silent) wait(ctx context.Context, what string) error {
	s.mu.Lock()
	mute := s.mute[what]
	if s.busy == nil {
		s.busy, s.most = map[string]int{}, map[string]int{}
	}
	s.busy[what]++
	s.most[what] = max(s.most[what], s.busy[what])
	s.mu.Unlock()
	if mute {
		<-ctx.Done()
	}
	s.mu.Lock()
	s.busy[what]--
	s.mu.Unlock()
	if mute {
		return fail.E("test", fail.Unavailable, "", ctx.Err())
	}
	return nil
}

func (s *silent) Prepare(ctx context.Context, req *agreement.CreateRequest, p agreement.Preparation) (string, error) {
	if err := s.wait(ctx, "prepare"); err != nil {
		return "", err
	}
	return s.fake.Prepare(ctx, req, p)
}

func (s *silent) Confirm(ctx context.Context, key string) error {
	if err := s.wait(ctx, "confirm"); err != nil {
		return err
	}
	return s.fake.Confirm(ctx, key)
}

func (s *silent) Agreement(ctx context.Context, key string) (*agreement.Properties, error) {
	if err := s.wait(ctx, "read"); err != nil {
		return nil, err
	}
	return s.fake.Agreement(ctx, key)
}

func (s *silent) Terminate(ctx context.Context, key string, reason *etree.Element) error {
	if err := s.wait(ctx, "terminate"); err != nil {
		return err
	}
	return s.fake.Terminate(ctx, key, reason)
}

// TestSilentProvider: whatever one provider does not answer, and however many ask for it, others are agreed with
// as fast as ever.
func TestSilentProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := &silent{}, &silent{}
		c, err := together.New(memory(t), together.Options{Dial: func(_ context.Context, _, provider, _ string) (together.Provider, error) {
			return map[string]*silent{"bad": bad, "good": good}[provider], nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		front, err := together.NewFront(together.FrontOptions{
			Coordinator: c, VO: func(*agreement.CreateRequest) (string, error) { return "", nil },
			Owner: func(context.Context) (string, error) { return owner, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var run, others sync.WaitGroup
		run.Go(func() { _ = c.Run(ctx) })
		defer func() { cancel(); run.Wait(); others.Wait() }()
		plan := func(id, provider string, parts int) together.Plan {
			p := together.Plan{ID: id, Owner: owner}
			for i := range parts {
				p.Parts = append(p.Parts, together.Part{Name: fmt.Sprint(i), Provider: provider, Offer: offered(t, 1)})
			}
			return p
		}
		n := 0
		atOnce := func(what string) {
			t.Helper()
			synctest.Wait()
			began := time.Now()
			n++
			id := fmt.Sprint("good", n)
			if out, err := c.Coordinate(ctx, plan(id, "good", 3)); err != nil || !out.Committed() || time.Since(began) > time.Second {
				t.Errorf("%s: it is %+v after %s, %v", what, out, time.Since(began), err)
			}
			if g, err := front.Together(ctx, id); err != nil || g.Parts[0].Agreement == nil || time.Since(began) > time.Second {
				t.Errorf("%s: it was told of after %s: %+v, %v", what, time.Since(began), g, err)
			}
		}
		burden := func(what string) {
			for i := range 10 {
				others.Go(func() { _, _ = c.Coordinate(ctx, plan(fmt.Sprint(what, i), "bad", 20)) })
			}
			atOnce(what)
		}
		bad.mutes("prepare")
		burden("prepare")
		time.Sleep(10 * time.Minute)
		bad.mutes("confirm")
		burden("confirm")
		bad.mutes()
		time.Sleep(10 * time.Minute)
		if out, err := c.Coordinate(ctx, plan("ended", "bad", 20)); err != nil || !out.Committed() {
			t.Fatal(out, err)
		}
		bad.mutes("read", "terminate")
		if err := c.Dissolve(ctx, owner, "ended", "enough"); err != nil {
			t.Fatal(err)
		}
		for range 10 { // of a user who can't wait
			others.Go(func() { _, _ = front.Together(ctx, "ended") })
		}
		atOnce("read")
		began := time.Now()
		if out, err := c.Coordinate(ctx, plan("confirmed", "bad", 3)); err != nil || !out.Committed() || time.Since(began) > time.Second {
			t.Errorf("who reads and ends keeps who confirms waiting: %+v after %s, %v", out, time.Since(began), err)
		}
		bad.mutes()
		time.Sleep(10 * time.Minute)
		bad.mu.Lock()
		defer bad.mu.Unlock()
		for what, most := range bad.most {
			if what == "prepare" {
				most -= 8 // to learn what there is to end
			}
			if most > 8 {
				t.Errorf("it was asked to %s %d at a time", what, most)
			}
		}
	})
}

// patient is a provider that takes its time to hold something, and does not where who asked is gone.
type patient struct {
	fake
	takes time.Duration
}

func (p *patient) Prepare(ctx context.Context, req *agreement.CreateRequest, prep agreement.Preparation) (string, error) {
	select {
	case <-time.After(p.takes):
		return p.fake.Prepare(ctx, req, prep)
	case <-ctx.Done():
		return "", fail.E("test", fail.Unavailable, "", ctx.Err())
	}
}

// TestPatientProvider: who has to ask a manager gets half of the time that there is, so that the other half is left
// to ask again.
func TestPatientProvider(t *testing.T) {
	for takes, want := range map[time.Duration]together.State{
		14 * time.Second: together.Committed, // of 30
		16 * time.Second: together.Aborted,
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &patient{takes: takes}
			c, err := together.New(memory(t), together.Options{Dial: func(context.Context, string, string, string) (together.Provider, error) { return p, nil }})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var run sync.WaitGroup
			run.Go(func() { _ = c.Run(ctx) })
			defer func() { cancel(); run.Wait() }()
			if out, err := c.Coordinate(ctx, planOf(t, "1", "a")); err != nil || out.State != want {
				t.Errorf("who takes %s: %+v %v", takes, out, err)
			}
		})
	}
}
