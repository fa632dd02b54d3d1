package exchange

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// side is one side of a session over which an exchange runs.
type side struct {
	s    session.State
	take func(wire.Message) []wire.Message
	rest []wire.Message // for which there was no room
	ask  map[uint64]func(wire.Message, *wire.Fault)
	ids  uint64
}

// link runs two sides in steps of 100 ms; what is sent arrives in the next, or is lost.
type link struct {
	w     *world
	now   time.Time
	sides [2]*side // the importer dials and can't be reached
	next  []func()
	loss  float64
	items int
}

const tick = 100 * time.Millisecond

func newLink(t testing.TB, w *world) *link {
	t.Helper()
	config := func(domain, endpoint string) session.Config {
		return session.Config{Party: wire.Party{Domain: domain, Endpoint: endpoint, Role: wire.Peer, Shows: wire.Full}, Instance: domain, Beat: 5 * time.Second, Lost: 40 * time.Second, Window: 8}
	}
	a, b := config("south", ""), config("north", "https://north.example/peer")
	open := a.Open("s1", start)
	opened, theirs, err := b.Accept(open, start)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := a.Accepted(open, opened)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{w: w, now: start}
	l.sides[0] = &side{s: session.New(a, ours, start), take: func(m wire.Message) []wire.Message {
		changes, answers, err := w.i.Take(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(changes) > 0 {
			if w.there, err = w.there.Apply(resourcemodel.Delta{Revision: w.there.Revision() + 1, At: l.now, Changes: changes}); err != nil {
				t.Fatal(err)
			}
		}
		return answers
	}}
	l.sides[1] = &side{s: session.New(b, theirs, start), take: func(m wire.Message) []wire.Message {
		switch m := m.(type) {
		case *wire.Pull:
			return w.e.Pull(m)
		case *wire.Compare:
			return w.e.Compare(m)
		}
		t.Fatalf("%T", m)
		return nil
	}}
	for _, s := range l.sides {
		s.ask = map[uint64]func(wire.Message, *wire.Fault){}
	}
	return l
}

func (l *link) send(do func()) {
	if l.w.rng.Float64() >= l.loss {
		l.next = append(l.next, do)
	}
}

func (l *link) step(k int, in session.Input) {
	me, other := l.sides[k], l.sides[1-k]
	var outs []session.Output
	me.s, outs = me.s.Step(in, l.now)
	for _, o := range outs {
		switch o := o.(type) {
		case session.Ask:
			l.send(func() {
				other.ids++
				id := other.ids
				other.ask[id] = func(m wire.Message, f *wire.Fault) {
					l.send(func() {
						if f != nil {
							l.step(k, session.Failed{ID: o.ID, Fault: f})
						} else {
							l.step(k, session.Response{ID: o.ID, Message: m})
						}
					})
				}
				l.step(1-k, session.Request{ID: id, Message: o.Message})
			})
		case session.Reply:
			answer := me.ask[o.ID]
			delete(me.ask, o.ID)
			answer(o.Message, o.Fault)
		case session.Deliver:
			for _, m := range o.Items {
				l.items++
				me.rest = append(me.rest, me.take(l.w.weigh(m))...)
			}
			l.step(k, session.Done{Upto: o.First + uint64(len(o.Items)) - 1})
		case session.Rejected:
			l.w.t.Fatal(o.Err)
		case session.Turn, session.Free, session.Draining:
		}
	}
	if n := min(len(me.rest), me.s.Room()); n > 0 {
		out := me.rest[:n]
		me.rest = me.rest[n:]
		l.step(k, session.Put{Items: out})
	}
}

// run lets time pass.
func (l *link) run(d time.Duration) {
	for end := l.now.Add(d); l.now.Before(end); {
		l.now = l.now.Add(tick)
		now := l.next
		l.next = nil
		for _, do := range now {
			do()
		}
		for k, s := range l.sides {
			if at, ok := s.s.Wake(); ok && !at.After(l.now) {
				l.step(k, session.Tick{})
			}
		}
	}
}

// TestOverSession: over a session that loses messages and is cut for any time, both models
// have the same records after the last cut, to the byte, without the session having been
// opened anew, without a comparison, and without anything having been told twice.
func TestOverSession(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t, rapid.Uint64().Draw(r, "seed"))
		l := newLink(t, w)
		show := func() {
			if err := w.e.Show(w.model, resourcemodel.Full); err != nil {
				r.Fatal(err)
			}
			// What waits for room is not added to: the latest is sent once there is some.
			if len(l.sides[1].rest) == 0 {
				l.sides[1].rest = w.e.Push()
			}
			l.step(1, session.Tick{})
		}
		l.step(0, session.Put{Items: []wire.Message{w.i.Pull()}})
		for range rapid.IntRange(1, 15).Draw(r, "happenings") {
			switch rapid.IntRange(0, 3).Draw(r, "what") {
			case 0, 1:
				for range rapid.IntRange(1, 10).Draw(r, "changes") {
					w.change(site(rapid.IntRange(0, 20).Draw(r, "site")), rapid.IntRange(0, 4).Draw(r, "how"))
				}
				show()
			case 2:
				l.loss = rapid.SampledFrom([]float64{0, 0.2, 0.5, 1}).Draw(r, "loss")
			case 3:
				l.run(time.Duration(rapid.IntRange(0, 1200).Draw(r, "wait")) * tick)
			}
		}
		l.loss = 0
		l.run(3 * time.Minute)
		show()
		l.run(10 * time.Second)
		l.sides[1].rest = w.e.Verify()
		l.step(1, session.Tick{})
		l.run(10 * time.Second)
		if err := w.agree(resourcemodel.Full); err != nil {
			r.Fatal(err)
		}
		for k, s := range l.sides {
			sent, acked, _, _ := s.s.Cursors()
			_, _, got, _ := l.sides[1-k].s.Cursors()
			if phase, reason, _ := s.s.Phase(); phase != session.Alive || sent != acked || got != sent {
				r.Fatalf("side %d: %s, %s, sent %d acked %d got %d", k, phase, reason, sent, acked, got)
			}
		}
		if w.compares > 0 {
			r.Fatalf("%d comparisons", w.compares)
		}
	})
}
