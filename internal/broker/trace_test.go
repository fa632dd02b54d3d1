package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// What a gateway decided while a trace was written, the replay decides again.
func TestTraceIsReplayed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(2), fake.NewWorld(2)
		g := two(t, a, b, fake.Options{}, func(c *Config) { c.Limits.Ahead = 1 })
		var es []soap.EPR
		for i := range 6 { // some have a place before the trace begins, some wait
			es = append(es, g.submit(fmt.Sprintf("out %d; sleep 10", i)))
		}
		synctest.Wait()
		var out bytes.Buffer
		done := make(chan error, 1)
		go func() { done <- g.Trace(as("ada"), &out, time.Minute) }()
		synctest.Wait()
		if err := g.Trace(as("ada"), new(bytes.Buffer), time.Minute); !fail.Is(err, fail.Conflict) {
			t.Errorf("a second trace: %v", err)
		}
		if err := g.SetPolicy(as("ada"), schedule.Gateway, policy.Selection, &policy.Setting{Name: "first-fit"}, true); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			es = append(es, g.submit(fmt.Sprintf("out %d; sleep 5", i)))
		}
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		got, err := schedule.Replay(&out, nil)
		if err != nil || got.Cut || got.Decisions < 10 || got.Same != got.Decisions || len(got.Differences) > 0 {
			t.Fatalf("%+v, %v", got, err)
		}
		c, err := g.Compare(as("ada"), 1000)
		if err != nil || c.Decisions < 10 || c.Decisions > len(es) || c.Same+c.Elsewhere+c.Waited != c.Decisions {
			t.Errorf("%+v, %v", c, err)
		}
		if c, err := g.Compare(as("ada"), 3); err != nil || c.Decisions > 3 {
			t.Errorf("of three: %+v, %v", c, err)
		}
	})
}

func TestTraceEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		denied := false
		g := two(t, fake.NewWorld(2), fake.NewWorld(2), fake.Options{}, func(c *Config) {
			c.Authorise = func(_ soap.Principal, p Permission) error {
				if denied && p == Manage {
					return errors.New("no")
				}
				return nil
			}
		})
		var out bytes.Buffer
		ctx, stop := context.WithCancel(as("ada"))
		done := make(chan error, 1)
		go func() { done <- g.Trace(ctx, &out, time.Hour) }()
		synctest.Wait()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got, err := schedule.Replay(&out, nil); err != nil || got.Cut {
			t.Errorf("%+v, %v", got, err)
		}
		for _, d := range []time.Duration{0, -1, MaxTrace + 1} {
			if err := g.Trace(as("ada"), &out, d); !fail.Is(err, fail.Invalid) {
				t.Errorf("for %s: %v", d, err)
			}
		}
		if err := g.Trace(as("ada"), broken{}, time.Second); !fail.Is(err, fail.Unavailable) {
			t.Errorf("a reader that is gone: %v", err)
		}
		denied = true
		if err := g.Trace(as("ada"), &out, time.Second); !fail.Is(err, fail.Denied) {
			t.Errorf("without the right: %v", err)
		}
		if _, err := g.Compare(as("ada"), 10); !fail.Is(err, fail.Denied) {
			t.Errorf("without the right: %v", err)
		}
	})
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

// What is not read in time ends a trace, and not the broker.
func TestSpoolIsBounded(t *testing.T) {
	s := &spool{more: make(chan struct{}, 1)}
	big := make([]byte, 1<<20)
	for range mostSpooled / len(big) {
		if _, err := s.Write(big); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Write(big); !fail.Is(err, fail.Exhausted) {
		t.Errorf("beyond the bound: %v", err)
	}
	if err := s.drain(new(bytes.Buffer)); !fail.Is(err, fail.Exhausted) || s.size != 0 {
		t.Errorf("drained: %v, %d bytes left", err, s.size)
	}
}
