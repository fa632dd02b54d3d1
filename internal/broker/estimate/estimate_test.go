package estimate

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/resourcemodel"
)

var (
	at  = Share{resourcemodel.Key{Site: "here"}, "long"}
	now = time.Unix(1e9, 0)
)

func TestWait(t *testing.T) {
	b := New(Options{})
	busy := State{CPUs: 1}
	if w, ok := b.Wait(at, busy, now); ok {
		t.Errorf("of nothing: %+v", w)
	}
	if w, ok := b.Wait(at, State{Forecast: time.Minute}, now); !ok || w.Median != time.Minute || w.Method != Forecast || w.Error != 0 {
		t.Errorf("a forecast alone: %+v", w)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		b.Started(at, busy, time.Duration((0.8+0.4*rng.Float64())*float64(10*time.Minute)), now)
		b.Started(at, State{Free: true, CPUs: 1}, 2*time.Second, now)
	}
	w, ok := b.Wait(at, busy, now)
	if !ok || w.Median < 7*time.Minute || w.Median > 14*time.Minute || w.Most < w.Median || w.Method != History || w.Error < 1 || w.Error > 1.5 {
		t.Errorf("busy: %+v", w)
	}
	if w, ok := b.Wait(at, State{Free: true}, now); !ok || w.Median > 5*time.Second {
		t.Errorf("free: %+v", w)
	}
	if w, ok := b.Wait(at, State{CPUs: 1000}, now); !ok || w.Median < 7*time.Minute {
		t.Errorf("of a size that was not seen: what others waited, not %+v", w)
	}
	// What was long ago is forgotten.
	later := now.Add(100 * time.Hour)
	if w, ok := b.Wait(at, busy, later); ok {
		t.Errorf("long ago: %+v", w)
	}
	for range 5 {
		b.Started(at, busy, time.Hour, later)
	}
	if w, ok := b.Wait(at, busy, later); !ok || w.Median < 45*time.Minute {
		t.Errorf("what is new counts: %+v", w)
	}
}

// The one of history and forecast that was off less is given.
func TestForecastIsPutToTheTest(t *testing.T) {
	for _, c := range []struct {
		forecast time.Duration
		want     Method
	}{{time.Second, History}, {10 * time.Minute, Forecast}} {
		b := New(Options{})
		s := State{CPUs: 4, Forecast: c.forecast}
		for range 50 {
			b.Started(at, s, 10*time.Minute, now)
		}
		if w, ok := b.Wait(at, s, now); !ok || w.Method != c.want {
			t.Errorf("forecast %v: %+v", c.forecast, w)
		}
	}
}

func TestPlaces(t *testing.T) {
	b := New(Options{})
	fast, slow := resourcemodel.Place{Key: resourcemodel.Key{Site: "fast"}}, resourcemodel.Place{Key: resourcemodel.Key{Site: "slow"}}
	if _, ok := b.SuccessRate(fast, now); ok {
		t.Error("of nothing")
	}
	for i := range 40 {
		b.Ended(fast, "a", 50*time.Second, true, now)
		b.Ended(slow, "a", 200*time.Second, i%4 != 0, now)
		b.Ended(fast, "b", 10*time.Hour, true, now) // long, and nowhere else: says nothing
	}
	f, _ := b.Performance(fast, now)
	s, ok := b.Performance(slow, now)
	if !ok || f < 1.3 || s > 0.7 || f/s < 3 || f/s > 5 {
		t.Errorf("fast %v, slow %v", f, s)
	}
	if r, ok := b.SuccessRate(slow, now); !ok || math.Abs(r-0.75) > 0.01 {
		t.Errorf("success %v", r)
	}
	if r, _ := b.SuccessRate(fast, now); r != 1 {
		t.Errorf("success %v", r)
	}
	if _, ok := b.SuccessRate(fast, now.Add(1000*time.Hour)); ok {
		t.Error("long ago")
	}
}

// Whatever is told, in whatever order of moments, estimates are finite, and memory
// is bounded.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := New(Options{Shares: 3, Least: 1})
		when := now
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			when = when.Add(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(1000*time.Hour)).Draw(t, "after")))
			k := resourcemodel.Key{Site: rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "site")}
			s := State{Free: rapid.Bool().Draw(t, "free"), CPUs: rapid.IntRange(-1, 1000).Draw(t, "cpus"), Forecast: time.Duration(rapid.Int64Range(-5, math.MaxInt64).Draw(t, "forecast"))}
			b.Started(Share{k, ""}, s, time.Duration(rapid.Int64().Draw(t, "waited")), when)
			b.Ended(resourcemodel.Place{Key: k}, rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "kind"), time.Duration(rapid.Int64().Draw(t, "ran")), rapid.Bool().Draw(t, "well"), when)
			if len(b.shares) > 3 || len(b.places) > 3 || len(b.kinds) > 3 || len(b.Shares()) != len(b.shares) {
				t.Fatal("too much is remembered")
			}
			if w, ok := b.Wait(Share{k, ""}, s, when); ok && (w.Median < 0 || w.Most < w.Median || w.Error != 0 && !(w.Error >= 1) || math.IsInf(w.Error, 0)) {
				t.Fatalf("%+v", w)
			}
			if r, ok := b.SuccessRate(resourcemodel.Place{Key: k}, when); ok && !(r >= 0 && r <= 1) {
				t.Fatalf("success %v", r)
			}
			if r, ok := b.Performance(resourcemodel.Place{Key: k}, when); ok && (!(r > 0) || math.IsInf(r, 0)) {
				t.Fatalf("performance %v", r)
			}
		}
	})
}
