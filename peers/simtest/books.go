package simtest

import (
	"github.com/portolan-project/portolan/peers/ledger"
)

// reconcile makes the two books of a pair alike, as far as nothing is lost on the way.
func (w *World) reconcile(provider, consumer *gateway, loss float64) {
	p := ledger.Pair{Provider: provider.g.Domain, Consumer: consumer.g.Domain}
	lost := func() bool { return w.chance(loss) }
	bad := func(err error) bool {
		if err != nil {
			w.breach("ledger of %s: %v", p, err)
		}
		return err != nil
	}
	for {
		if lost() {
			return
		}
		entries, err := provider.book.After(consumer.book.Head(p), 3)
		if bad(err) || lost() {
			return
		}
		if bad(consumer.book.Take(p, entries)) || lost() {
			return
		}
		said := consumer.book.Verdicts(p, provider.book.Heard(p), 3)
		if len(said) > 0 && bad(provider.book.Hear(p, said)) {
			return
		}
		if len(entries) == 0 && len(said) == 0 {
			return
		}
	}
}

// ledgers: after a last exchange both sides of each pair have the same statements, verdicts
// and balances, and contest nothing.
func (w *World) ledgers() {
	w.carrier.books(0)
	for _, a := range w.gates {
		for _, i := range a.peers {
			b := w.gates[i]
			if a.lost || b.lost {
				continue
			}
			p := ledger.Pair{Provider: a.g.Domain, Consumer: b.g.Domain}
			if x, y := a.book.Head(p), b.book.Head(p); x != y {
				w.breach("the books of %s differ: %+v, %+v", p, x, y)
			}
			x, y := a.book.Balance(b.g.Domain), b.book.Balance(a.g.Domain)
			if x.Did != y.Got || x.Got != y.Did || x.Unheard != 0 || y.Unheard != 0 {
				w.breach("the balances of %s differ: %+v, %+v", p, x, y)
			}
			if x.Contested != 0 || y.Contested != 0 {
				w.breach("a claim of %s is contested: %+v", p, b.book.Entries(p))
			}
			if y.Unclaimed > 0 {
				w.say("%s leaves unclaimed: %+v", p, y)
				w.counters.Unclaimed++
			}
		}
	}
}
