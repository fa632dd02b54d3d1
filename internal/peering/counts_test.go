package peering

import (
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// TestCounts: each side counts what went to and fro, and whoever is the engine next goes on with that.
func TestCounts(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		p := a.give("b", "j1-1", "sleep 5m;exit 3")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		a.until(p.Handle, adapters.Running)
		if got := a.Counts()["b"]; got != (Counts{GivenLive: 1, Given: 1}) {
			t.Errorf("a: %+v", got)
		}
		if got := b.Counts()["a"]; got != (Counts{TakenLive: 1, Taken: 1}) {
			t.Errorf("b: %+v", got)
		}
		a.until(p.Handle, adapters.Exited)
		time.Sleep(2 * time.Minute)
		for _, g := range []*gate{a, b} {
			g.stop()
			g.start()
		}
		w.connect("a", "b")
		time.Sleep(time.Minute)
		if got := a.Counts()["b"]; got != (Counts{Given: 1}) {
			t.Errorf("a, anew: %+v", got)
		}
		if got := b.Counts()["a"]; got != (Counts{Taken: 1}) {
			t.Errorf("b, anew: %+v", got)
		}
	}, "a", "b")
}
