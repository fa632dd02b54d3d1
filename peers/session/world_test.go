package session

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/wire"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// happening is something at a time.
type happening struct {
	at  time.Time
	seq int
	do  func()
}

type agenda []*happening

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(*happening)) }
func (a *agenda) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

// node is one side with what its gateway does with items.
type node struct {
	name      string
	w         *world
	s         State
	peer      *node
	wake      time.Time
	asked     map[uint64]func(wire.Message, *wire.Fault) // requests of the other that wait here
	requests  uint64
	put       int // items that were put
	got       []string
	turns     []string
	idle      bool // it does nothing with items
	slow      time.Duration
	broken    error
	frees     int
	rejects   int
	bytes     int
	messages  map[string]int
	itemsSent int
}

// world has two sides, a link that may lose, double, reorder and be cut, and the time.
type world struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Time
	agenda agenda
	seq    int
	a, b   *node
	loss   float64
	double float64
	delay  time.Duration // the most, drawn for each message: they overtake each other
	cut    bool
	codec  bool // every message goes through the XML
	steps  int
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.agenda, &happening{at: w.now.Add(d), seq: w.seq, do: do})
}

// configs gives two sides that may talk; out has the first outbound-only.
func configs(out bool) (a, b Config) {
	a = Config{Party: wire.Party{Domain: "a.example", Endpoint: "https://a.example/peer", Role: wire.Peer, Shows: wire.Full, Provides: true}, Instance: "ia", Beat: 10 * time.Second, Lost: time.Minute, Window: 16, Features: []string{"output", "x"}}
	b = Config{Party: wire.Party{Domain: "b.example", Endpoint: "https://b.example/peer", Role: wire.Peer, Shows: wire.Simple, Consumes: true}, Instance: "ib", Beat: 5 * time.Second, Lost: time.Minute, Window: 8, Features: []string{"y", "output"}}
	if out {
		a.Party.Endpoint = ""
	}
	return a, b
}

func newWorld(t testing.TB, seed uint64, out bool, adapt ...func(a, b *Config)) *world {
	t.Helper()
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 9)), now: start, delay: 20 * time.Millisecond}
	ca, cb := configs(out)
	for _, f := range adapt {
		f(&ca, &cb)
	}
	for _, c := range []Config{ca, cb} {
		if err := c.EnsureDefaults().Validate(); err != nil {
			t.Fatal(err)
		}
	}
	open := ca.Open("s1", start)
	answer, theirs, err := cb.Accept(open, start)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := ca.Accepted(open, answer)
	if err != nil {
		t.Fatal(err)
	}
	mk := func(name string, c Config, ag Agreement) *node {
		return &node{name: name, w: w, s: New(c, ag, start), asked: map[uint64]func(wire.Message, *wire.Fault){}, messages: map[string]int{}}
	}
	w.a, w.b = mk("a", ca, ours), mk("b", cb, theirs)
	w.a.peer, w.b.peer = w.b, w.a
	w.a.step(Tick{})
	w.b.step(Tick{})
	return w
}

// pass sends a message through the XML.
func (w *world) pass(m wire.Message) wire.Message {
	if !w.codec || m == nil {
		return m
	}
	e, err := wire.Encode(m)
	if err != nil {
		w.t.Fatalf("%T: %v", m, err)
	}
	doc, err := xmldoc.ReadBytes(xmldoc.Marshal(e), xmldoc.Limits{})
	if err != nil {
		w.t.Fatal(err)
	}
	if m, err = wire.Decode(doc, doc.Root()); err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) lost() bool { return w.cut || w.rng.Float64() < w.loss }

func (w *world) some(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(most)))
}

func item(from string, n int) wire.Message {
	return &wire.Query{About: wire.About{Origin: from, ID: fmt.Sprint(n), Token: "1"}}
}

// step does a step and what comes of it.
func (n *node) step(in Input) {
	w := n.w
	if w.steps++; w.steps > 2_000_000 {
		w.t.Fatal("the two sides go round and round")
	}
	var outs []Output
	before := n.s
	n.s, outs = before.Step(in, w.now)
	for _, o := range outs {
		n.act(o)
	}
	if at, ok := n.s.Wake(); ok && !at.Equal(n.wake) {
		if at.Before(w.now) {
			at = w.now
		}
		n.wake = at
		w.after(at.Sub(w.now), func() {
			if n.wake.Equal(w.now) {
				n.wake = time.Time{}
				n.step(Tick{})
			}
		})
	}
}

func (n *node) act(o Output) {
	w := n.w
	switch o := o.(type) {
	case Ask:
		n.messages[fmt.Sprintf("%T", o.Message)[6:]]++
		n.bytes += wire.Size(o.Message)
		if x, ok := o.Message.(*wire.Exchange); ok {
			n.itemsSent += len(x.Items)
		}
		failed := false
		w.after(o.Within, func() {
			if !failed {
				n.step(Failed{ID: o.ID})
			}
		})
		deliver := func() {
			w.after(w.some(w.delay), func() {
				if w.lost() {
					return
				}
				n.peer.requests++
				id := n.peer.requests
				n.peer.asked[id] = func(m wire.Message, f *wire.Fault) {
					back := func() {
						w.after(w.some(w.delay), func() {
							if w.lost() {
								return
							}
							failed = true
							if f != nil {
								n.step(Failed{ID: o.ID, Fault: f})
							} else {
								n.step(Response{ID: o.ID, Message: w.pass(m)})
							}
						})
					}
					back()
					if w.rng.Float64() < w.double {
						back()
					}
				}
				n.peer.step(Request{ID: id, Message: w.pass(o.Message)})
			})
		}
		deliver()
		if w.rng.Float64() < w.double {
			deliver()
		}
	case Reply:
		reply := n.asked[o.ID]
		if reply == nil {
			w.t.Fatalf("%s answers request %d twice, or one that is none", n.name, o.ID)
		}
		delete(n.asked, o.ID)
		if x, ok := o.Message.(*wire.Exchanged); ok {
			n.itemsSent += len(x.Items)
		}
		reply(o.Message, o.Fault)
	case Deliver:
		for i, m := range o.Items {
			q := m.(*wire.Query)
			if want := fmt.Sprint(len(n.got)); q.ID != want || o.First+uint64(i) != uint64(len(n.got)+1) {
				w.t.Fatalf("%s got item %s (number %d) where %s is next", n.name, q.ID, o.First+uint64(i), want)
			}
			n.got = append(n.got, q.ID)
		}
		if !n.idle {
			upto := o.First + uint64(len(o.Items)) - 1
			w.after(w.some(n.slow), func() { n.step(Done{Upto: upto}) })
		}
	case Turn:
		n.turns = append(n.turns, fmt.Sprintf("%s→%s", o.From, o.To))
	case Free:
		n.frees++
	case Rejected:
		n.rejects++
		n.broken = o.Err
	case Draining:
	}
}

// send puts as many of k items as there is room for.
func (n *node) send(k int) {
	k = min(k, n.s.Room())
	var items []wire.Message
	for range k {
		items = append(items, item(n.name, n.put))
		n.put++
	}
	if k > 0 {
		n.step(Put{Items: items})
	}
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.agenda) > 0 && !w.agenda[0].at.After(end) {
		h := heap.Pop(&w.agenda).(*happening)
		w.now = h.at
		h.do()
	}
	w.now = end
}

func (w *world) settled() bool {
	for _, n := range []*node{w.a, w.b} {
		sent, acked, _, _ := n.s.Cursors()
		_, _, got, done := n.peer.s.Cursors()
		if phase, _, _ := n.s.Phase(); phase != Alive || sent != acked || got != sent || done != sent || len(n.peer.got) != n.put {
			return false
		}
	}
	return true
}

func (w *world) String() string {
	s := ""
	for _, n := range []*node{w.a, w.b} {
		sent, acked, got, done := n.s.Cursors()
		s += fmt.Sprintf("%s: %s (%s) sent %d acked %d got %d done %d put %d closing %q\n", n.name, n.s.phase, n.s.reason, sent, acked, got, done, n.put, n.s.closing)
	}
	return s
}
