package adapters_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

func TestTag(t *testing.T) {
	for _, tag := range []adapters.Tag{"a", "A-9", adapters.Tag(strings.Repeat("x", adapters.MaxTag))} {
		if err := tag.Validate(); err != nil {
			t.Errorf("%q: %v", tag, err)
		}
	}
	for _, tag := range []adapters.Tag{"", ".", "a/b", "a.b", "a b", "é", "a\n", adapters.Tag(strings.Repeat("x", adapters.MaxTag+1))} {
		if err := tag.Validate(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%q: %v, want invalid", tag, err)
		}
	}
}

func TestRegistry(t *testing.T) {
	broken := errors.New("broken")
	r := adapters.Registry{
		"b": func(adapters.Config) (adapters.Adapter, error) { return nil, broken },
		"a": func(adapters.Config) (adapters.Adapter, error) { return nil, nil },
	}
	if _, err := r.Open("b", adapters.Config{}); !errors.Is(err, broken) {
		t.Errorf("the factory's error is %v", err)
	}
	if _, err := r.Open("c", adapters.Config{}); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), "a, b") {
		t.Errorf("an unknown type gives %v", err)
	}
}

func TestPhaseWords(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range adapters.Phases() {
		text, err := p.MarshalText()
		if err != nil || seen[string(text)] {
			t.Errorf("phase %d is %q (%v)", p, text, err)
		}
		seen[string(text)] = true
		var back adapters.Phase
		if err := back.UnmarshalText(text); err != nil || back != p {
			t.Errorf("%q is read as %v (%v)", text, back, err)
		}
	}
	if _, err := adapters.Phase(99).MarshalText(); err == nil {
		t.Error("a phase without a name is written")
	}
	if new(adapters.Phase).UnmarshalText([]byte("running?")) == nil {
		t.Error("a word that is no phase is read")
	}
}

// A watcher that does not take its evidence holds the newest of each job, in order.
func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f adapters.Feed
		f.Publish(adapters.Evidence{Tag: "before"}) // nobody watches
		ctx, stop := context.WithCancel(t.Context())
		var got []string
		slow := make(chan struct{})
		done := make(chan error)
		go func() {
			done <- f.Watch(ctx, func(batch []adapters.Evidence) {
				if len(batch) == 0 {
					got = append(got, "up")
					return
				}
				s := ""
				for _, e := range batch {
					s += fmt.Sprintf("%s=%v ", e.Tag, e.Phase)
				}
				got = append(got, s)
				<-slow
			})
		}()
		synctest.Wait()
		f.Publish(adapters.Evidence{Tag: "a", Phase: adapters.Queued})
		synctest.Wait()
		f.Publish(adapters.Evidence{Tag: "b", Phase: adapters.Queued})
		f.Publish(adapters.Evidence{Tag: "a", Phase: adapters.Running})
		f.Publish(adapters.Evidence{Tag: "b", Phase: adapters.Exited})
		close(slow)
		synctest.Wait()
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ends with %v", err)
		}
		if want := "[up a=queued  b=exited a=running ]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
