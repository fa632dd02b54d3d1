package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// play is a service whose activities go through the states that it was given,
// one further with each question.
type play struct {
	bes.Service
	states map[string][]bes.State
	holds  bool // it holds answers back, and counts revisions
	asked  [][]string
	fails  []error
	rev    int64
}

func (p *play) GetActivityStatuses(_ context.Context, req *bes.StatusRequest) ([]bes.StatusResult, error) {
	if len(p.fails) > 0 {
		err := p.fails[0]
		p.fails = p.fails[1:]
		if err != nil {
			return nil, err
		}
	}
	var ids []string
	var out []bes.StatusResult
	if p.holds && req.After > 0 {
		time.Sleep(req.Wait / 2) // in a bubble
	}
	for _, e := range req.Activities {
		ids = append(ids, e.Address)
		left := p.states[e.Address]
		if len(left) == 0 {
			out = append(out, bes.StatusResult{Activity: e, Err: fail.Errorf("play", fail.NotFound, "", "never heard of it")})
			continue
		}
		st := bes.Status{State: left[0]}
		if p.holds {
			p.rev++
			st.Details = &bes.Details{Revision: p.rev}
		}
		out = append(out, bes.StatusResult{Activity: e, Status: st})
		if len(left) > 1 {
			p.states[e.Address] = left[1:]
		}
	}
	p.asked = append(p.asked, ids)
	return out, nil
}

func acts(ids ...string) (out []activity) {
	for _, id := range ids {
		out = append(out, activity{id, soap.EPR{Address: id}})
	}
	return out
}

func TestAllActivitiesAreWaitedForInOneQuestion(t *testing.T) {
	for _, holds := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := &play{holds: holds, states: map[string][]bes.State{
				"a": {bes.Pending, bes.Finished},
				"b": {bes.Pending, bes.Running, bes.Running, bes.Failed},
			}}
			c := &client{service: p}
			var told []string
			out, err := c.await(t.Context(), acts("a", "b", "c"), func(i int, o outcome) {
				told = append(told, acts("a", "b", "c")[i].id+" "+describe(o))
			}, func(err error) { t.Errorf("away: %v", err) })
			if err != nil {
				t.Fatal(err)
			}
			if !out[0].well() || out[1].well() || out[2].well() || !fail.Is(out[2].err, fail.NotFound) {
				t.Errorf("%+v", out)
			}
			want := []string{"a Pending", "b Pending", "c unknown: never heard of it", "a Finished", "b Running", "b Failed"}
			if !slices.Equal(told, want) {
				t.Errorf("told %q, not %q", told, want)
			}
			if got := p.asked; len(got) != 4 || len(got[0]) != 3 || len(got[1]) != 2 || len(got[2]) != 1 {
				t.Errorf("asked %q", got)
			}
		})
	}
}

func TestAServiceThatRestartsIsWaitedFor(t *testing.T) {
	gone := fail.Errorf("play", fail.Unavailable, "", "connection refused")
	synctest.Test(t, func(t *testing.T) {
		p := &play{states: map[string][]bes.State{"a": {bes.Running, bes.Finished}}, fails: []error{nil, gone, gone, gone}}
		c := &client{service: p}
		away := 0
		out, err := c.await(t.Context(), acts("a"), func(int, outcome) {}, func(error) { away++ })
		if err != nil || !out[0].well() || away != 3 {
			t.Errorf("%+v, %v, away %d times", out, err, away)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := &play{fails: slices.Repeat([]error{gone}, 1000)}
		c := &client{service: p}
		began := time.Now()
		_, err := c.await(t.Context(), acts("a"), func(int, outcome) {}, func(error) {})
		if !errors.Is(err, gone) || time.Since(began) < patience || time.Since(began) > 2*patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		denied := fail.Errorf("play", fail.Denied, "", "no")
		c := &client{service: &play{fails: []error{denied}}}
		if _, err := c.await(t.Context(), acts("a"), func(int, outcome) {}, func(error) {}); !errors.Is(err, denied) {
			t.Errorf("a refusal is not final: %v", err)
		}
	})
}

func TestOutcomes(t *testing.T) {
	three, zero := 3, 0
	for _, c := range []struct {
		o    outcome
		well bool
		says string
	}{
		{outcome{status: bes.Status{State: bes.Finished}}, true, "Finished"},
		{outcome{status: bes.Status{State: bes.Finished, Details: &bes.Details{ExitStatus: &zero}}}, true, "Finished, exit status 0"},
		{outcome{status: bes.Status{State: bes.Finished, Details: &bes.Details{ExitStatus: &three, Reason: "x"}}}, false, "Finished, exit status 3"},
		{outcome{status: bes.Status{State: bes.Finished, Details: &bes.Details{Signal: "SIGSEGV"}}}, false, "Finished, ended by SIGSEGV"},
		{outcome{status: bes.Status{State: bes.Failed, Details: &bes.Details{Reason: "no such\x1b program"}}}, false, "Failed: no such\uFFFD program"},
		{outcome{status: bes.Status{State: bes.Cancelled}}, false, "Cancelled"},
		{outcome{err: errors.New("gone")}, false, "unknown: gone"},
	} {
		if c.o.well() != c.well || describe(c.o) != c.says {
			t.Errorf("%+v: %v, %q", c.o, c.o.well(), describe(c.o))
		}
	}
}
