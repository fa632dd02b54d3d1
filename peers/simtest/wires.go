package simtest

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/peers/handover"
)

// carrier is how what gateways say comes to the others.
type carrier interface {
	// carry brings a message about a job from one gateway to another, or does not.
	carry(from, to int, m handover.Message)
	// begin is told when a gateway began or restarted, and crashed when it died.
	begin(i int)
	crashed(i int)
	// earned is told when a gateway has a new statement for another.
	earned(i int, consumer string)
	// books makes the ledgers alike, where nothing else does.
	books(loss float64)
	// restless tells why what is under way is not at its end; "" if it is.
	restless() string
}

func (g *gateway) send(o handover.Send) {
	w := g.w
	to := slices.IndexFunc(w.gates, func(x *gateway) bool { return x.g.Domain == o.To })
	if w.links[[2]int{g.i, to}] == nil {
		w.breach("%s sends to %s, with which it has no session", g.g.Domain, o.To)
		return
	}
	m := w.options.Faults.sent(o.Message)
	w.counters.Messages++
	if err := m.Check(); err != nil {
		w.breach("%s sends what is wrong: %v", g.g.Domain, err)
	}
	key, token := m.About()
	t := w.truth[key]
	promise := func(at time.Time) {
		if at.After(t.promised[token]) {
			t.promised[token] = at
		}
	}
	switch m := m.(type) {
	case handover.Route:
		promise(m.RecallBy)
	case handover.Granted:
		promise(m.RecallBy)
	case handover.Answer:
		if !m.Accepted {
			w.counters.Refused++
		}
	case handover.Report, handover.Control, handover.Settle, handover.Query:
	}
	w.carrier.carry(g.i, to, m)
}

// fly has something come from one gateway to another: never, once or several times, and
// before or after what was sent before it.
func (w *World) fly(from, to int, arrive func()) {
	l := w.links[[2]int{from, to}]
	copies := 1
	if w.now.Before(w.calm) {
		switch {
		case l.cut(w.now, w.calm), w.chance(0.08):
			copies = 0
		case w.chance(0.15):
			copies = 1 + w.rng.IntN(3)
		}
	}
	for range copies {
		d := w.between(time.Millisecond, 400*time.Millisecond)
		if w.now.Before(w.calm) {
			switch {
			case w.chance(0.02):
				d = w.between(time.Minute, 20*time.Minute)
			case l.slow || w.chance(0.1):
				d = w.between(0, 20*time.Second)
			}
		}
		w.after(d, arrive)
	}
}

// wires throw each message for itself.
type wires struct{ w *World }

func (c wires) carry(from, to int, m handover.Message) {
	c.w.fly(from, to, func() {
		if p := c.w.gates[to]; p.up {
			p.receive(c.w.gates[from], c.w.links[[2]int{from, to}].terms, m)
		}
	})
}

func (wires) begin(int)          {}
func (wires) crashed(int)        {}
func (wires) earned(int, string) {}
func (wires) restless() string   { return "" }

// books reconciles a pair, or all at the end, by calls, some of which are lost.
func (c wires) books(loss float64) {
	w := c.w
	if loss == 0 {
		for _, a := range w.gates {
			for _, i := range a.peers {
				if b := w.gates[i]; !a.lost && !b.lost {
					w.reconcile(a, b, 0)
				}
			}
		}
		return
	}
	a := w.gates[w.rng.IntN(len(w.gates))]
	b := w.gates[a.peers[w.rng.IntN(len(a.peers))]]
	if a.up && b.up {
		w.reconcile(a, b, loss)
	}
}
