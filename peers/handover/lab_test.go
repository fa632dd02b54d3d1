package handover_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// lab is a few gateways with right clocks and a network that a test can cut: for deeds that
// are told one by one. There is one job.
type lab struct {
	t     *testing.T
	now   time.Time
	jobs  map[string]*handover.Job
	mail  []letter
	cut   map[string]bool // domains that are not reached
	did   map[string][]handover.Output
	full  map[string]error // why a domain takes no job
	sent  []letter
	owed  map[string]bool
	earns []handover.Charge
	owes  []handover.Charge
}

type letter struct {
	from string
	handover.Send
}

var start = time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)

var (
	terms = handover.Terms{Lease: 10 * time.Minute, Skew: 5 * time.Second, StopWithin: 30 * time.Second, Resend: 10 * time.Second, Keep: time.Hour}
	key   = handover.Key{Origin: "a", ID: "j1"}
)

func newLab(t *testing.T) *lab {
	l := &lab{t: t, now: start, jobs: map[string]*handover.Job{}, cut: map[string]bool{}, did: map[string][]handover.Output{}, full: map[string]error{}, owed: map[string]bool{}}
	l.does("a", handover.Submit{Key: key, Digest: "sha256:1"})
	return l
}

// try steps and delivers nothing.
func (l *lab) try(domain string, in handover.Input) error {
	l.t.Helper()
	if r, ok := in.(handover.Received); ok {
		r.Owed = l.owed[domain+r.From+string(tokenOf(r.Message))]
		in = r
	}
	s, err := handover.Gateway{Domain: domain}.Step(l.jobs[domain], in, l.now)
	l.jobs[domain] = s.Job
	if s.Owe != nil {
		l.owes = append(l.owes, *s.Owe)
		l.owed[domain+s.Owe.Provider+string(s.Owe.Token)] = true
	}
	if s.Earn != nil {
		l.earns = append(l.earns, *s.Earn)
	}
	for _, o := range s.Do {
		if m, ok := o.(handover.Send); ok {
			l.mail = append(l.mail, letter{domain, m})
			l.sent = append(l.sent, letter{domain, m})
		} else {
			l.did[domain] = append(l.did[domain], o)
		}
	}
	return err
}

// does is try, which must go well, and then all that follows of it.
func (l *lab) does(domain string, in handover.Input) {
	l.t.Helper()
	if err := l.try(domain, in); err != nil {
		l.t.Fatalf("%s %T: %v", domain, in, err)
	}
	l.deliver()
}

func (l *lab) deliver() {
	l.t.Helper()
	for n := 0; len(l.mail) > 0; n++ {
		if n > 200 {
			l.t.Fatal("they talk for ever")
		}
		m := l.mail[0]
		l.mail = l.mail[1:]
		if l.cut[m.from] || l.cut[m.To] {
			continue
		}
		l.hears(m.To, m.from, m.Message)
	}
}

func (l *lab) hears(domain, from string, m handover.Message) {
	l.t.Helper()
	if err := l.try(domain, handover.Received{From: from, Message: m, Terms: terms, Refuse: l.full[domain]}); err != nil && !fail.Is(err, fail.NotFound) {
		l.t.Fatalf("%s hears %T: %v", domain, m, err)
	}
}

// pass lets time go by, with all ticks.
func (l *lab) pass(d time.Duration) {
	l.t.Helper()
	until := l.now.Add(d)
	for n := 0; ; n++ {
		if n > 10_000 {
			l.t.Fatal("ticks for ever")
		}
		var who string
		next := until.Add(1)
		for _, domain := range []string{"a", "b", "c", "d"} {
			if j := l.jobs[domain]; j != nil && !l.cut[domain] {
				if at := j.Next(); !at.IsZero() && at.Before(next) {
					who, next = domain, at
				}
			}
		}
		if who == "" {
			break
		}
		if next.After(l.now) {
			l.now = next
		}
		l.does(who, handover.Tick{})
	}
	l.now = until
}

// gives hands the job on.
func (l *lab) gives(from, to string) {
	l.t.Helper()
	l.does(from, handover.Forward{To: to, Terms: terms, Hops: 3})
}

// shows is evidence of a gateway's own site about its last placement.
func (l *lab) shows(domain string, e handover.Evidence) {
	l.t.Helper()
	e.Token = l.jobs[domain].Token()
	l.does(domain, e)
}

// restart reads the record back.
func (l *lab) restart(domain string) {
	l.t.Helper()
	b, err := l.jobs[domain].Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	if l.jobs[domain], err = handover.Decode(b); err != nil {
		l.t.Fatal(err)
	}
	l.did[domain] = nil
	l.does(domain, handover.Tick{})
}

func (l *lab) is(domain string, p handover.Phase) {
	l.t.Helper()
	have := handover.Phase("nowhere")
	if j := l.jobs[domain]; j != nil {
		have = j.Phase
	}
	if have != p {
		l.t.Fatalf("%s: the job at %s is %s, not %s", l.now.Sub(start), domain, have, p)
	}
}

// has counts what a gateway was to do, by its type: "Start".
func (l *lab) has(domain, what string) int {
	n := 0
	for _, o := range l.did[domain] {
		if strings.TrimPrefix(fmt.Sprintf("%T", o), "handover.") == what {
			n++
		}
	}
	return n
}

// last gives the last message of a domain of the type of m.
func last[M handover.Message](l *lab, from string) M {
	l.t.Helper()
	for _, m := range slices.Backward(l.sent) {
		if x, ok := m.Message.(M); ok && m.from == from {
			return x
		}
	}
	var none M
	l.t.Fatalf("%s never sent %T", from, none)
	return none
}

var success = &handover.Result{Outcome: handover.Finished}

func tokenOf(m handover.Message) handover.Token {
	_, t := m.About()
	return t
}
