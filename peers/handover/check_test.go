package handover_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

func TestTokens(t *testing.T) {
	var root handover.Token
	if got := root.Next(2).Next(1).Next(10); got != "2.1.10" || got.Check() != nil {
		t.Errorf("%s: %v", got, got.Check())
	}
	// In order: each is after all before it.
	order := []handover.Token{"", "1", "1.1", "1.1.1", "1.1.2", "1.2", "1.10", "2", "2.1", "10", "4294967295"}
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("%q and %q: %d, not %d", a, b, got, want)
			}
		}
	}
	for _, bad := range []handover.Token{"", ".", "1.", ".1", "0", "1.0", "01", "1..1", "-1", "+1", "a", "4294967296", "1 ", handover.Token(strings.Repeat("1.", handover.MaxToken) + "1")} {
		if err := bad.Check(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%q is taken for a token", bad)
		}
	}
}

func TestTerms(t *testing.T) {
	if err := (handover.Terms{}).EnsureDefaults().Check(); err != nil {
		t.Error(err)
	}
	for name, edit := range map[string]func(*handover.Terms){
		"no lease":              func(t *handover.Terms) { t.Lease = -1 },
		"too long a lease":      func(t *handover.Terms) { t.Lease = handover.MaxLease + 1 },
		"clocks too wrong":      func(t *handover.Terms) { t.Skew = t.Lease/8 + 1 },
		"clocks less than true": func(t *handover.Terms) { t.Skew = -1 },
		"too long to stop":      func(t *handover.Terms) { t.StopWithin = t.Lease/4 + 1 },
		"never repeated":        func(t *handover.Terms) { t.Resend = t.Lease },
		"kept for ever":         func(t *handover.Terms) { t.Keep = handover.MaxKeep + 1 },
	} {
		x := terms
		edit(&x)
		if err := x.Check(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongMessages(t *testing.T) {
	route := handover.Route{Key: key, Token: "1.1", RecallBy: start, Path: []string{"a", "b"}, Hops: 1, Digest: "x"}
	report := handover.Report{Key: key, Token: "1", Status: handover.IsEnded, Result: success}
	control := handover.Control{Key: key, Token: "1", Want: handover.Run, RecallBy: start}
	for _, good := range []handover.Message{route, report, control, handover.Answer{Key: key, Token: "1", Accepted: true}, handover.Settle{Key: key, Token: "1"}} {
		if err := good.Check(); err != nil {
			t.Errorf("%T: %v", good, err)
		}
	}
	var bad []handover.Message
	r := func(edit func(*handover.Route)) {
		x := route
		edit(&x)
		bad = append(bad, x)
	}
	r(func(m *handover.Route) { m.Key.ID = "" })
	r(func(m *handover.Route) { m.Key.ID = "a b" })
	r(func(m *handover.Route) { m.Key.Origin = "b" })
	r(func(m *handover.Route) { m.Token = "1" })
	r(func(m *handover.Route) { m.Token = "x" })
	r(func(m *handover.Route) { m.Path = nil })
	r(func(m *handover.Route) { m.Path = []string{"a", "a"} })
	r(func(m *handover.Route) { m.Path = []string{"a", "b/c"} })
	r(func(m *handover.Route) { m.Hops = -1 })
	r(func(m *handover.Route) { m.Hops = handover.MaxPath })
	r(func(m *handover.Route) { m.RecallBy = time.Time{} })
	r(func(m *handover.Route) { m.Digest = strings.Repeat("x", handover.MaxDigest+1) })
	p := func(edit func(*handover.Report)) {
		x := report
		edit(&x)
		bad = append(bad, x)
	}
	p(func(m *handover.Report) { m.Result = nil })
	p(func(m *handover.Report) { m.Status = handover.IsRunning })
	p(func(m *handover.Report) { m.Status = "gone" })
	p(func(m *handover.Report) { m.Used = -1 })
	p(func(m *handover.Report) { m.Used = handover.MaxUsed + 1 })
	p(func(m *handover.Report) { m.Where = []string{"b", "b"} })
	p(func(m *handover.Report) { m.Result = &handover.Result{Outcome: "good"} })
	p(func(m *handover.Report) { m.Result = &handover.Result{Outcome: handover.Finished, Token: "x"} })
	p(func(m *handover.Report) { m.Result = &handover.Result{Outcome: handover.Failed, Reason: "a\nb"} })
	p(func(m *handover.Report) { m.Status, m.Result, m.Reason = handover.IsReturned, nil, "\xff" })
	p(func(m *handover.Report) { m.Kind = fail.Denied })
	p(func(m *handover.Report) { m.Status, m.Result, m.Kind = handover.IsReturned, nil, 99 })
	c := func(edit func(*handover.Control)) {
		x := control
		edit(&x)
		bad = append(bad, x)
	}
	c(func(m *handover.Control) { m.Want = "stop" })
	c(func(m *handover.Control) { m.Recall = 9 })
	c(func(m *handover.Control) { m.RecallBy = time.Time{} })
	bad = append(bad,
		handover.Answer{Key: key, Token: "1"}, handover.Answer{Key: key, Token: "1", Reason: "no", Kind: 99},
		handover.Answer{Key: key, Token: "1", Reason: strings.Repeat("x", handover.MaxReason+1)},
		handover.Settle{Key: key}, handover.Granted{Token: "1"}, handover.Query{Key: handover.Key{Origin: "a"}, Token: "1"})
	for _, m := range bad {
		if err := m.Check(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%T %+v: %v", m, m, err)
		}
		// And it does nothing where it is received.
		l := newLab(t)
		l.gives("a", "b")
		before := l.jobs["b"]
		if err := l.try("b", handover.Received{From: "a", Message: m, Terms: terms}); err == nil || !reflect.DeepEqual(before, l.jobs["b"]) {
			t.Errorf("%T %+v did something: %v", m, m, err)
		}
	}
}

func TestRecords(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	l.gives("b", "c")
	l.does("c", handover.PlaceHere{})
	for domain, j := range l.jobs {
		b, err := j.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := handover.Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", domain, err)
		}
		again, err := back.Encode()
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("%s is not the same again: %v\n%s\n%s", domain, err, b, again)
		}
		for name, wrong := range map[string]string{
			"an unknown field": strings.Replace(string(b), `"phase"`, `"phrase"`, 1),
			"no phase":         strings.Replace(string(b), `"phase":"`, `"phase":"X`, 1),
			"no key":           strings.Replace(string(b), `"id":"j1"`, `"id":""`, 1),
			"cut off":          string(b[:len(b)/2]),
			"too long":         string(b) + strings.Repeat(" ", handover.MaxRecord),
		} {
			if _, err := handover.Decode([]byte(wrong)); !fail.Is(err, fail.Invalid) {
				t.Errorf("%s: %s: %v", domain, name, err)
			}
		}
	}
	for _, phase := range handover.Phases() {
		if phase == handover.Waiting {
			continue
		}
		if _, err := handover.Decode(fmt.Appendf(nil, `{"key":{"origin":"a","id":"j1"},"phase":%q,"want":"run"}`, phase)); !fail.Is(err, fail.Invalid) {
			t.Errorf("a job that is %s, with nothing of it told: %v", phase, err)
		}
	}
}

// TestTheTable: terminal is final, and each phase is reached and left by events that have
// names.
func TestTheTable(t *testing.T) {
	for phase, want := range map[handover.Phase]string{
		"":                "accepted refused submitted",
		handover.Waiting:  "cancelled ended handed placed released",
		handover.Here:     "ended stopped unrun",
		handover.Stopping: "ended unrun",
		handover.Given:    "ended returned",
		handover.Over:     "settled",
		handover.Released: "",
	} {
		if got := strings.Join(handover.Events(phase), " "); got != want {
			t.Errorf("%s: %q, want %q", phase, got, want)
		}
	}
	if got := fmt.Sprint(handover.Phases()); got != "[Given Here Over Released Stopping Waiting]" {
		t.Error(got)
	}
}

// TestAnythingAtAll throws random inputs at random records: nothing panics, nothing wrong is
// sent, no error is ours, records can be written and read, and a step changes nothing that
// it was given.
func TestAnythingAtAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 5))
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	domains := []string{"a", "b", "c", "d", "e"}
	token := func() handover.Token {
		return handover.Token(pick("1", "2", "3", "1.1", "1.2", "2.1", "2.1.1", "9.9", "x", ""))
	}
	moment := func(now time.Time) time.Time { return now.Add(time.Duration(rng.IntN(30)-10) * time.Minute) }
	result := func() *handover.Result {
		if rng.IntN(3) == 0 {
			return nil
		}
		return &handover.Result{Outcome: handover.Outcome(pick("finished", "failed", "cancelled", "?")), Reason: pick("", "why", "\x00")}
	}
	message := func(now time.Time) handover.Message {
		switch rng.IntN(8) {
		case 0:
			tok := token()
			path := append([]string{"a"}, domains[1:1+rng.IntN(3)]...)
			return handover.Route{Key: key, Token: tok, RecallBy: moment(now), Path: path, Hops: rng.IntN(4), Digest: pick("x", "y")}
		case 1:
			return handover.Answer{Key: key, Token: token(), Accepted: rng.IntN(2) == 0, Reason: pick("", "no")}
		case 2, 3:
			return handover.Report{Key: key, Token: token(), Revision: rng.Uint64N(9), Seq: rng.Uint64N(4), Status: handover.Status(pick("waiting", "running", "ended", "returned", "suspended")), Kind: fail.Kind(rng.IntN(40)), Where: domains[rng.IntN(4):], Result: result(), Used: handover.CPUTime(rng.Int64N(int64(handover.MaxUsed)))}
		case 4:
			return handover.Granted{Key: key, Token: token(), RecallBy: moment(now)}
		case 5:
			return handover.Control{Key: key, Token: token(), Seq: rng.Uint64N(5), Want: handover.Want(pick("run", "suspend", "cancel")), Recall: handover.Recall(rng.IntN(4)), RecallBy: moment(now)}
		case 6:
			return handover.Settle{Key: key, Token: token(), Taken: rng.IntN(2) == 0}
		}
		return handover.Query{Key: key, Token: token()}
	}
	for range 400 {
		self := domains[rng.IntN(4)]
		g := handover.Gateway{Domain: self}
		var j *handover.Job
		now := start
		for range 60 {
			now = now.Add(time.Duration(rng.IntN(60)) * time.Second)
			var in handover.Input
			switch rng.IntN(16) {
			case 0:
				in = handover.Submit{Key: key, Digest: "x"}
			case 1:
				in = handover.PlaceHere{}
			case 2:
				in = handover.Forward{To: pick(domains...), Terms: terms, Hops: rng.IntN(4)}
			case 3:
				in = handover.Wish{Want: handover.Want(pick("run", "run", "suspend", "cancel", "?"))}
			case 4:
				in = handover.TakeBack{Running: rng.IntN(2) == 0}
			case 5:
				in = handover.Return{Reason: pick("", "why\n\xff", strings.Repeat("é", 2000))}
			case 6, 7:
				tok := token()
				if j != nil && rng.IntN(2) == 0 {
					tok = j.Token()
				}
				in = handover.Evidence{Token: tok, Shows: handover.Shows(pick("started", "paused", "resumed", "ended", "not run", "?")), Result: result(), Used: handover.CPUTime(rng.IntN(9)), Reason: pick("", "\x01")}
			case 8:
				in = handover.Tick{}
				switch rng.IntN(4) {
				case 0:
					in = handover.Ask{}
				case 1:
					in = handover.Tell{}
				}
			default:
				r := handover.Received{From: pick(domains...), Message: message(now), Terms: terms, Owed: rng.IntN(2) == 0}
				if rng.IntN(4) == 0 {
					r.Refuse = fail.Errorf("test", fail.Exhausted, "", "full\x07")
				}
				in = r
			}
			var before []byte
			if j != nil {
				before, _ = j.Encode()
			}
			s, err := g.Step(j, in, now)
			if fail.Is(err, fail.Internal) {
				t.Fatalf("%+v: %v", in, err)
			}
			if j != nil {
				if after, _ := j.Encode(); !bytes.Equal(before, after) {
					t.Fatalf("%+v changed the record that it was given", in)
				}
			}
			for _, o := range s.Do {
				if m, ok := o.(handover.Send); ok {
					if err := m.Message.Check(); err != nil {
						t.Fatalf("%+v has %+v sent: %v", in, m, err)
					}
				}
			}
			if j = s.Job; j != nil {
				b, err := j.Encode()
				if err != nil {
					t.Fatal(err)
				}
				back, err := handover.Decode(b)
				if err != nil {
					t.Fatalf("after %+v: %v", in, err)
				}
				if rng.IntN(5) == 0 {
					j = back
				}
				if at := j.Next(); rng.IntN(3) == 0 && at.After(now) && at.Before(now.Add(time.Hour)) {
					now = at
				}
			}
		}
	}
}

func TestCPUTime(t *testing.T) {
	if got := handover.CPU(4, 90*time.Second); got != 360*handover.CPUSecond {
		t.Error(got)
	}
	if got := handover.CPU(1<<40, 1000*time.Hour); got != handover.MaxUsed {
		t.Error(got)
	}
	if got := handover.CPU(-1, time.Hour); got != 0 {
		t.Error(got)
	}
	if a, b := handover.CPUTime(1500).String(), (5 * handover.CPUHour / 2).String(); a != "1.500 CPU seconds" || b != "2.50 CPU hours" {
		t.Error(a, b)
	}
}
