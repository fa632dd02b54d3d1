package peers_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/session"
)

// both runs a scenario where both sides can be reached, and where a is outbound-only.
func both(t *testing.T, do func(t *testing.T, w *world)) {
	for name, out := range map[string]bool{"both ways": false, "outbound-only": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, out)
				pass(time.Second)
				w.alive(t)
				do(t, w)
			})
		})
	}
}

func TestItemsComeOnceAndInOrder(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		for range 20 {
			w.send(t, w.a, 3)
			w.send(t, w.b, 5)
			pass(100 * time.Millisecond)
		}
		pass(3 * time.Second)
		w.got(t, w.b, domA)
		w.got(t, w.a, domB)
		for _, s := range append(w.a.Table.Sessions(), w.b.Table.Sessions()...) {
			if s.Unacknowledged != 0 || s.Undone != 0 || !s.Oldest.IsZero() || s.Trouble != "" {
				t.Errorf("%+v", s)
			}
		}
	})
}

// A session in which nothing happens costs one request a beat, and nobody minds.
func TestIdle(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		before := status(t, w.b, domA)
		pass(time.Hour)
		w.alive(t)
		after := status(t, w.b, domA)
		if n := after.In.Messages - before.In.Messages; n < 340 || n > 400 {
			t.Errorf("%d requests in an hour, for beats of 10 s", n)
		}
		if len(w.a.Seen.Events())+len(w.b.Seen.Events()) != 2 {
			t.Errorf("something happened\n%s", w)
		}
		if d := after.Clock.Difference; d.Abs() > after.Clock.Within {
			t.Errorf("the clocks differ by %v ± %v", d, after.Clock.Within)
		}
	})
}

func TestBreakAndResume(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.send(t, w.a, 5)
		pass(5 * time.Second)
		w.net.Partition(domA, domB, true)
		w.send(t, w.a, 10)
		w.send(t, w.b, 10)
		pass(35 * time.Second)
		phase(t, w.a, domB, session.Suspect)
		pass(30 * time.Second)
		phase(t, w.a, domB, session.Lost)
		phase(t, w.b, domA, session.Lost)
		if s := status(t, w.a, domB); s.Unacknowledged != 10 || time.Since(s.Oldest) < time.Minute || s.Trouble == "" {
			t.Errorf("%+v", s)
		}
		pass(time.Hour)
		phase(t, w.a, domB, session.Lost)
		w.net.Partition(domA, domB, false)
		pass(3 * time.Minute)
		w.alive(t)
		w.got(t, w.b, domA)
		w.got(t, w.a, domB)
		events(t, w.a, "b.example: opened", "b.example: alive→suspect", "b.example: suspect→lost", "b.example: lost→alive")
	})
}

// A gateway that is started anew knows nothing of the session; the other hears of it.
func TestRestart(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		ofB, ofA := pair(!status(t, w.b, domA).Agreement.Dials)
		for range 3 {
			for _, g := range []string{"b", "a"} {
				restarted, p := w.b, ofA
				if g == "a" {
					restarted, p = w.a, ofB
				}
				w.net.Serve(restarted.Domain, nil)
				restarted.Kill()
				pass(20 * time.Second)
				restarted.Start(t)
				must(t, restarted.Table.Add(p))
				w.net.Serve(restarted.Domain, restarted.Server)
				pass(2 * time.Minute)
				w.alive(t)
			}
		}
		w.send(t, w.a, 5)
		w.send(t, w.b, 5)
		pass(3 * time.Second)
		w.got(t, w.b, domA)
		w.got(t, w.a, domB)
	})
}

func TestCloseDrains(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.b.Seen.Hold = true
		w.send(t, w.a, 5)
		w.send(t, w.b, 5)
		time.AfterFunc(20*time.Second, w.b.Seen.Release)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		must(t, w.a.Table.Close(ctx))
		if took := time.Since(began); took < 19*time.Second || took > 40*time.Second {
			t.Errorf("it took %v", took)
		}
		synctest.Wait()
		w.got(t, w.b, domA)
		w.got(t, w.a, domB)
		kind(t, w.a.Table.Put(domB, query(domA, 0)), fail.Unavailable)
		pass(time.Second)
		events(t, w.a, "b.example: opened", "b.example: closed drained")
		events(t, w.b, "a.example: opened", "a.example: draining", "a.example: closed drained")
	})
}

func TestCloseWithoutTime(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.b.Seen.Hold = true
		w.send(t, w.a, 5)
		pass(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := w.a.Table.Close(ctx); err == nil {
			t.Error("it drained what nobody was done with")
		}
		w.a.Kill()
		pass(time.Second)
		events(t, w.a, "b.example: opened", "b.example: closed shutdown")
		events(t, w.b, "a.example: opened", "a.example: draining", "a.example: closed shutdown")
	})
}

// TestRemoveWaits: what was put is done with before a removed peer's session is over, unless it is hurried.
func TestRemoveWaits(t *testing.T) {
	for _, hurry := range []bool{false, true} {
		both(t, func(t *testing.T, w *world) {
			w.b.Seen.Hold = true
			w.send(t, w.a, 5)
			time.AfterFunc(10*time.Second, w.b.Seen.Release)
			must(t, w.a.Table.Left(t.Context(), domB)) // it is a peer
			began := time.Now()
			must(t, w.a.Table.Remove(domB))
			if hurry {
				w.a.Table.Hurry(domB)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			must(t, w.a.Table.Left(ctx, domB))
			if took := time.Since(began); hurry && took > 8*time.Second || !hurry && took < 9*time.Second {
				t.Errorf("hurried %v: it took %v", hurry, took)
			}
			w.b.Seen.Release()
			w.a.Table.Hurry(domB) // nothing is left
			pass(time.Minute)
		})
	}
}
