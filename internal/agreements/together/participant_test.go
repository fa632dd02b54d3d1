package together_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// provide gives a service with CPUs over an engine that runs.
func provide(t testing.TB, cpus int64, o together.ParticipantOptions) *service {
	t.Helper()
	e, err := engine.New(t.Context(), memory(t), engine.Options{Horizon: horizon})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	if _, err := e.SetPools(t.Context(), []calendar.Pool{{ID: pool, Capacity: calendar.Amount{CPUs: cpus}}}); err != nil {
		t.Fatal(err)
	}
	s, err := newService(e, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func as(t testing.TB, name string) context.Context {
	return soap.WithPrincipal(t.Context(), soap.Principal{Name: name, Method: "none"})
}

func in(d time.Duration) agreement.Preparation {
	return agreement.Preparation{Key: "k", Until: time.Now().Add(d)}
}

func wantKind(t testing.TB, what string, err error, kind fail.Kind, words string) {
	t.Helper()
	if !fail.Is(err, kind) && fail.KindOf(err) != kind || !strings.Contains(fail.Sentence(err), words) {
		t.Errorf("%s: %v; want %v with %q", what, err, kind, words)
	}
}

func TestParticipant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := provide(t, 4, together.ParticipantOptions{MaxHeld: 2})
		ctx, other := as(t, "ann"), as(t, "bob")
		req := &agreement.CreateRequest{Offer: offered(t, 3), Received: []byte("<offer/>")}
		small := &agreement.CreateRequest{Offer: offered(t, 0), Received: []byte("<small/>")}
		free := func(want int64) {
			t.Helper()
			if got := s.engine.Free(pool, from, from.Add(time.Hour)).CPUs; got != want {
				t.Errorf("%d CPUs are free; want %d", got, want)
			}
		}
		for words, p := range map[string]agreement.Preparation{
			"longer than 10m0s": in(10*time.Minute + time.Second),
			"has passed":        in(0),
			"a name":            {Until: time.Now().Add(time.Minute)},
		} {
			_, err := s.Prepare(ctx, req, p)
			wantKind(t, words, err, fail.Invalid, words)
		}
		free(4)
		p := in(10 * time.Minute)
		id, err := s.Prepare(ctx, req, p)
		if err != nil || id != together.AgreementID("ann", p) {
			t.Fatalf("%q, %v", id, err)
		}
		free(1)
		if again, err := s.Prepare(ctx, req, p); err != nil || again != id {
			t.Errorf("again it is %q, %v", again, err)
		}
		_, err = s.Prepare(ctx, small, p)
		wantKind(t, "another offer", err, fail.Conflict, "belongs to another")
		_, err = s.Prepare(other, req, p)
		wantKind(t, "another's, without room", err, fail.Exhausted, "no room")
		wantKind(t, "another confirms", s.Confirm(other, id), fail.NotFound, "no agreement")
		wantKind(t, "another ends it", s.Terminate(other, id, nil), fail.NotFound, "no agreement")
		free(1)
		// Its time is over: it is let go, and stays so.
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		free(4)
		wantKind(t, "too late", s.Confirm(ctx, id), fail.Conflict, "")
		_, err = s.Prepare(ctx, req, p)
		wantKind(t, "prepared again", err, fail.Conflict, "by another Key")

		p = in(time.Minute)
		if id, err = s.Prepare(ctx, req, p); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Confirm(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		free(1)
		if again, err := s.Prepare(ctx, req, p); err != nil || again != id {
			t.Errorf("after it was confirmed it is %q, %v", again, err)
		}
		if done, err := s.Abort(ctx, id, "x"); done || err != nil {
			t.Errorf("what is binding was let go: %t, %v", done, err)
		}
		if err := s.Terminate(ctx, id, nil); err != nil {
			t.Error(err)
		}
		free(4)
		// So much may wait, and no more; others may too.
		for i := range 3 {
			p := in(time.Minute)
			p.Key = fmt.Sprint("small ", i)
			_, err := s.Prepare(ctx, &agreement.CreateRequest{Offer: offered(t, 1), Received: []byte("<one/>")}, p)
			if i < 2 && err != nil {
				t.Error(err)
			} else if i == 2 {
				wantKind(t, "a third", err, fail.Exhausted, "2 agreements wait for you to confirm them")
			}
		}
		if _, err := s.Prepare(other, &agreement.CreateRequest{Offer: offered(t, 1)}, in(time.Minute)); err != nil {
			t.Error(err)
		}
	})
}

// TestHeldElsewhere: what can't be held at the site is not held at all.
func TestHeldElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		refuse := true
		s := provide(t, 4, together.ParticipantOptions{Held: func(_ context.Context, r engine.Record) error {
			told = append(told, r.ID)
			if refuse {
				return fail.Errorf("test", fail.Exhausted, "", "the site makes no reservation")
			}
			return nil
		}})
		req := &agreement.CreateRequest{Offer: offered(t, 3)}
		p := in(time.Minute)
		_, err := s.Prepare(as(t, "ann"), req, p)
		wantKind(t, "refused", err, fail.Exhausted, "makes no reservation")
		if free := s.engine.Free(pool, from, from.Add(time.Hour)).CPUs; free != 4 || len(told) != 1 {
			t.Errorf("%d CPUs are free, and %q were told", free, told)
		}
		refuse, p.Key = false, "another"
		for range 2 {
			if _, err := s.Prepare(as(t, "ann"), req, p); err != nil {
				t.Error(err)
			}
		}
		if len(told) != 3 || told[1] != told[2] {
			t.Errorf("%q were told", told)
		}
	})
}

// TestAgreementID: ids are apart where anything is, and in the order of time.
func TestAgreementID(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	seen := map[string]bool{}
	last := ""
	for i := range 100 {
		until := at.Add(time.Duration(i) * time.Millisecond)
		for _, who := range []string{"ann", "annk"} {
			for _, key := range []string{"k", "kk", ""} {
				id := together.AgreementID(who, agreement.Preparation{Key: key, Until: until})
				if seen[id] || id[:13] < last || len(id) != 36 || id[14] != '8' {
					t.Errorf("%s after %s", id, last)
				}
				seen[id] = true
			}
		}
		last = together.AgreementID("ann", agreement.Preparation{Key: "k", Until: until})[:13]
	}
	for words, o := range map[string]together.ParticipantOptions{"set Engine": {}} {
		_, err := together.NewParticipant(o)
		wantKind(t, words, err, fail.Invalid, words)
	}
}
