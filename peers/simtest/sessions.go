package simtest

import (
	"fmt"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/exchange"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// sessions carry messages as items, each once and in order as long as a session lasts; it
// ends with the process of either side.
type sessions struct {
	w     *World
	sides map[[2]int]*side
}

// side is what a gateway has of its session with a peer; all of it is in memory.
type side struct {
	c        *sessions
	g, peer  *gateway
	config   session.Config
	detail   resourcemodel.Detail // at which it shows its sites
	children []string             // of the gateway, whose sites it shows as its own

	s        session.State
	open     bool
	name     string // of the session, which may be over
	epoch    int    // counts sessions
	opening  *wire.Open
	opened   int
	accepted map[string]*wire.Opened
	asked    map[uint64]func(wire.Message, *wire.Fault)
	requests uint64
	wake     time.Time
	inbox    []wire.Message
	upto     uint64
	working  bool
	rest     []wire.Message // about resources, for which there was no room

	exporter *exchange.Exporter
	importer *exchange.Importer
	pushing  bool
	auditing bool

	seen  [2]*resourcemodel.Snapshot // by differs, with what it said
	wrong string
}

func (x *side) other() *side { return x.c.sides[[2]int{x.peer.i, x.g.i}] }

func newSessions(w *World) *sessions {
	c := &sessions{w: w, sides: map[[2]int]*side{}}
	for a := range w.gates {
		for _, b := range w.gates[a].peers {
			if a > b {
				continue
			}
			l := w.links[[2]int{a, b}]
			hidden := w.rng.IntN(6) // which of both can't be reached
			for k, p := range [][2]int{{a, b}, {b, a}} {
				x := &side{c: c, g: w.gates[p[0]], peer: w.gates[p[1]], detail: details[w.rng.IntN(len(details))]}
				role := wire.Peer
				switch {
				case l.family && k == 0:
					role = wire.Parent
				case l.family:
					role = wire.Child
				}
				x.config = session.Config{
					Party: wire.Party{Domain: x.g.g.Domain, Role: role, Shows: wire.Full, Provides: true, Consumes: true}, Features: []string{"digests", wire.FeatureLedger},
					Beat: w.between(time.Second, 30*time.Second).Truncate(time.Second), Lost: w.between(time.Second, 5*time.Minute).Truncate(time.Second), Window: 1 + w.rng.IntN(40), Terms: termsOf(l.terms),
				}
				if hidden != k {
					x.config.Party.Endpoint = "https://" + x.g.g.Domain + ".example/peer"
				}
				c.sides[p] = x
			}
		}
	}
	for _, g := range w.gates {
		for _, x := range c.of(g) {
			for _, p := range g.peers {
				if p != x.peer.i && w.links[[2]int{g.i, p}].family && p > g.i {
					x.children = append(x.children, w.gates[p].g.Domain)
				}
			}
		}
	}
	return c
}

// of lists a gateway's sides in the order of its peers.
func (c *sessions) of(g *gateway) []*side {
	var out []*side
	for _, p := range g.peers {
		out = append(out, c.sides[[2]int{g.i, p}])
	}
	return out
}

// begin: the process is there, and has nothing yet.
func (c *sessions) begin(i int) {
	g := c.w.gates[i]
	g.model = g.ground()
	for _, x := range c.of(g) {
		x.config.Instance = fmt.Sprintf("%s.%d", g.g.Domain, g.life)
		x.accepted, x.asked = map[string]*wire.Opened{}, map[uint64]func(wire.Message, *wire.Fault){}
		x.exporter, x.importer = exchange.NewExporter(fmt.Sprintf("%s.%d", g.g.Domain, g.life)), exchange.NewImporter(x.peer.g.Domain)
		x.seek(10 * time.Second)
	}
	c.changing(g)
}

func (c *sessions) crashed(i int) {
	for _, x := range c.of(c.w.gates[i]) {
		x.end()
		x.opening, x.name, x.accepted, x.asked = nil, "", nil, nil
		x.exporter, x.importer = nil, nil
	}
}

// start begins a session that was agreed on.
func (x *side) start(a session.Agreement) {
	w := x.g.w
	w.counters.Opened++
	w.say("%s has the session %s with %s", x.g.g.Domain, a.Session, x.peer.g.Domain)
	if a.Terms != x.config.Terms {
		w.breach("the terms %+v came of %+v", a.Terms, x.config.Terms)
	}
	x.end()
	x.s, x.open, x.name = session.New(x.config, a, w.now), true, a.Session
	x.exporter.Begin()
	x.step(session.Tick{})
	x.add(x.importer.Pull())
	if !w.options.Faults.LedgerNotTold {
		x.add(x.accounts()...)
	}
	if w.now.Before(w.calm) && w.chance(0.05) {
		epoch := x.epoch
		w.after(w.between(time.Second, 10*time.Minute), func() {
			if x.open && x.epoch == epoch {
				x.step(session.Stop{Reason: wire.Withdrawn, Sentence: "its administrator wants so", Drain: w.chance(0.7), By: w.now.Add(time.Minute)})
			}
		})
	}
	x.verifying(x.epoch)
}

// end: what the session had under way is lost.
func (x *side) end() {
	x.open, x.working, x.pushing, x.auditing = false, false, false, false
	x.epoch++
	x.inbox, x.rest, x.wake = nil, nil, time.Time{}
}

func (x *side) step(in session.Input) {
	w := x.g.w
	var outs []session.Output
	x.s, outs = x.s.Step(in, w.now)
	epoch := x.epoch
	for _, o := range outs {
		x.act(o)
		if x.epoch != epoch {
			return
		}
	}
	if at, ok := x.s.Wake(); ok && !at.Equal(x.wake) {
		if at.Before(w.now) {
			at = w.now
		}
		x.wake = at
		w.after(at.Sub(w.now), func() {
			if x.epoch == epoch && x.wake.Equal(w.now) {
				x.wake = time.Time{}
				x.step(session.Tick{})
			}
		})
	}
}

func (x *side) act(o session.Output) {
	w, epoch := x.g.w, x.epoch
	here := func() bool { return x.g.up && x.epoch == epoch }
	switch o := o.(type) {
	case session.Ask:
		w.counters.Requests++
		name := x.name
		w.after(o.Within, func() {
			if here() {
				x.step(session.Failed{ID: o.ID}) // unless it was answered
			}
		})
		w.fly(x.g.i, x.peer.i, func() {
			if !x.peer.up {
				return
			}
			x.other().request(name, w.weigh(o.Message), func(m wire.Message, f *wire.Fault) {
				w.fly(x.peer.i, x.g.i, func() {
					switch {
					case !here():
					case f != nil:
						x.step(session.Failed{ID: o.ID, Fault: f})
					default:
						x.step(session.Response{ID: o.ID, Message: w.weigh(m)})
					}
				})
			})
		})
	case session.Reply:
		answer := x.asked[o.ID]
		if answer == nil {
			w.breach("%s answers a request of %s twice, or one that is none", x.g.g.Domain, x.peer.g.Domain)
			return
		}
		delete(x.asked, o.ID)
		answer(o.Message, o.Fault)
	case session.Deliver:
		x.inbox = append(x.inbox, o.Items...)
		x.upto = o.First + uint64(len(o.Items)) - 1
		if !x.working {
			x.working = true
			w.after(w.between(0, 100*time.Millisecond), func() {
				if here() {
					x.work()
				}
			})
		}
	case session.Turn:
		w.say("%s takes %s for %s: %s", x.g.g.Domain, x.peer.g.Domain, o.To, o.Reason)
		switch {
		case o.To == session.Lost:
			w.counters.Lost++
		case o.To == session.Alive && o.From == session.Lost:
			w.counters.Resumed++
		case o.To == session.Closed:
			w.counters.Closed++
			x.open = false
			x.inbox, x.rest = nil, nil
			x.seek(20 * time.Second)
			if o := x.other(); x.peer.up && !o.open {
				o.seek(20 * time.Second)
			}
		}
	case session.Free:
		w.after(0, func() {
			if here() {
				x.add()
			}
		})
	case session.Rejected:
		if !fail.Is(o.Err, fail.Exhausted) && !fail.Is(o.Err, fail.NotAccepting) {
			w.breach("%s with %s: %v", x.g.g.Domain, x.peer.g.Domain, o.Err)
		}
	case session.Draining:
	}
}

// request is a message of the other side.
func (x *side) request(name string, m wire.Message, answer func(wire.Message, *wire.Fault)) {
	if name != x.name || name == "" {
		answer(nil, &wire.Fault{Code: wire.UnknownSession, Session: name, Sentence: "there is no such session; open one"})
		return
	}
	x.requests++
	x.asked[x.requests] = answer
	x.step(session.Request{ID: x.requests, Message: m})
}

// work is done with items; what they cause is durable after it.
func (x *side) work() {
	w, epoch := x.g.w, x.epoch
	items, upto := x.inbox, x.upto
	x.inbox, x.working = nil, false
	for _, m := range items {
		if h := fromItem(m); h != nil {
			x.g.receive(x.peer, w.links[[2]int{x.peer.i, x.g.i}].terms, h)
		} else {
			x.thing(m)
		}
		if x.epoch != epoch {
			return // it died of it, or the session did
		}
	}
	x.step(session.Done{Upto: upto})
}

// carry puts a message into the session; what there is no room for, is said again later.
func (c *sessions) carry(from, to int, m handover.Message) {
	x := c.sides[[2]int{from, to}]
	if !x.open || x.s.Room() == 0 {
		c.w.counters.Unsent++
		return
	}
	x.step(session.Put{Items: []wire.Message{toItem(m)}})
}

// books: they go over sessions.
func (c *sessions) books(float64) {}

func (c *sessions) earned(i int, consumer string) {
	for _, x := range c.of(c.w.gates[i]) {
		if x.peer.g.Domain == consumer {
			x.auditSoon()
		}
	}
}

// add puts items about resources and accounts behind those that wait for room, and what there is room
// for into the session.
func (x *side) add(items ...wire.Message) {
	x.rest = append(x.rest, items...)
	epoch := x.epoch
	for x.open && x.epoch == epoch && len(x.rest) > 0 {
		n := min(len(x.rest), x.s.Room())
		if n == 0 {
			x.step(session.Put{Items: x.rest[:1]}) // in vain, so that Free is told
			return
		}
		put := x.rest[:n]
		x.rest = x.rest[n:]
		x.step(session.Put{Items: put})
	}
}

// weigh passes some messages through the XML, and gives them as they were read.
func (w *World) weigh(m wire.Message) wire.Message {
	if m == nil || !w.chance(0.01) {
		return m
	}
	e, err := wire.Encode(m)
	if err != nil {
		w.breach("%T can't be written: %v", m, err)
		return m
	}
	b := xmldoc.Marshal(e)
	w.counters.Weighed++
	w.counters.Bytes += len(b)
	doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err == nil {
		m, err = wire.Decode(doc, doc.Root())
	}
	if err != nil {
		w.breach("what was written is not read: %v", err)
	}
	return m
}
