package estimate

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// A Book that was written down and read again estimates the same.
func TestKeep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now := New(Options{}), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		share := func() Share {
			return Share{resourcemodel.Key{Site: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "site")}, rapid.SampledFrom([]string{"short", "long"}).Draw(t, "share")}
		}
		place := func(s Share) resourcemodel.Place {
			return resourcemodel.Place{Key: s.Key, Share: s.Share, Environment: "nodes"}
		}
		state := func() State {
			return State{rapid.Bool().Draw(t, "free"), rapid.IntRange(1, 100).Draw(t, "cpus"), time.Duration(rapid.IntRange(0, 100).Draw(t, "forecast")) * time.Second}
		}
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3600).Draw(t, "later")) * time.Second)
			s := share()
			b.Started(s, state(), time.Duration(rapid.IntRange(0, 1e6).Draw(t, "waited"))*time.Millisecond, now)
			b.Ended(place(s), rapid.SampledFrom([]string{"", "k1", "k2"}).Draw(t, "kind"), time.Duration(rapid.IntRange(0, 1e6).Draw(t, "ran"))*time.Millisecond, rapid.Bool().Draw(t, "well"), now)
		}
		parts, err := b.Encode(rapid.IntRange(1, 5000).Draw(t, "most"), now)
		if err != nil {
			t.Fatal(err)
		}
		c := New(Options{})
		for _, p := range parts {
			if err := c.Take(p); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			s, st := share(), state()
			w1, ok1 := b.Wait(s, st, now)
			w2, ok2 := c.Wait(s, st, now)
			r1, k1 := b.SuccessRate(place(s), now)
			r2, k2 := c.SuccessRate(place(s), now)
			p1, l1 := b.Performance(place(s), now)
			p2, l2 := c.Performance(place(s), now)
			if w1 != w2 || ok1 != ok2 || r1 != r2 || k1 != k2 || p1 != p2 || l1 != l2 {
				t.Fatalf("%+v %v, %v %v, %v %v; before %+v %v, %v %v, %v %v", w2, ok2, r2, k2, p2, l2, w1, ok1, r1, k1, p1, l1)
			}
		}
		again, err := c.Encode(1<<20, now)
		whole, err2 := b.Encode(1<<20, now)
		if err != nil || err2 != nil || fmt.Sprintf("%s", again) != fmt.Sprintf("%s", whole) {
			t.Fatalf("%s\n%s", again, whole)
		}
		if later, err := b.Encode(1<<20, now.Add(100*b.o.HalfLife)); err != nil || len(later) != 0 {
			t.Fatalf("what is of no worth any more is kept: %s (%v)", later, err)
		}
	})
}

func TestTakeBad(t *testing.T) {
	for _, text := range []string{
		`{`, `{}`, `{"share":{"waits":[{"free":2}]}}`, `{"share":{"waits":[{"size":4}]}}`, `{"share":{"waits":[{"weight":{"48":1}}]}}`,
		`{"share":{"waits":[{"weight":{"1":-1}}]}}`, `{"share":{"errors":{"guess":{}}}}`, `{"place":{"success":{"weight":-1}}}`,
		`{"kind":{"length":{"sum":1e300}},"of":"k"}`, `{"kind":{}}`,
	} {
		if err := New(Options{}).Take([]byte(text)); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzTake(f *testing.F) {
	b, now := New(Options{}), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := Share{resourcemodel.Key{Site: "a"}, "s"}
	b.Started(at, State{CPUs: 1, Forecast: time.Second}, time.Minute, now)
	b.Ended(resourcemodel.Place{Key: at.Key, Share: "s", Environment: "e"}, "k", time.Minute, true, now)
	parts, err := b.Encode(1<<20, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Join(parts, nil))
	f.Fuzz(func(t *testing.T, part []byte) {
		c := New(Options{})
		if err := c.Take(part); err != nil && !fail.Is(err, fail.Invalid) {
			t.Error(err)
		}
		c.Wait(at, State{CPUs: 1}, now)
		if _, err := c.Encode(1<<10, now); err != nil {
			t.Error(err)
		}
	})
}
