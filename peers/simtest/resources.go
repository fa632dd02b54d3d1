package simtest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/portolan-project/portolan/peers/exchange"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

var details = []resourcemodel.Detail{resourcemodel.Full, resourcemodel.Full, resourcemodel.Categorized, resourcemodel.Simple, resourcemodel.None}

// ground gives the model of a gateway that knows its own sites and no others.
func (g *gateway) ground() *resourcemodel.Snapshot {
	s := resourcemodel.Empty()
	var changes []resourcemodel.Change
	for site := range g.own.Sites() {
		changes = append(changes, resourcemodel.Change{Key: site.Key, Static: site.Static, Dynamic: site.Dynamic})
	}
	return g.w.apply(s, changes)
}

func (w *World) apply(s *resourcemodel.Snapshot, changes []resourcemodel.Change) *resourcemodel.Snapshot {
	if len(changes) == 0 {
		return s
	}
	next, err := s.Apply(resourcemodel.Delta{Revision: s.Revision() + 1, At: w.now, Changes: changes})
	if err != nil {
		w.breach("a model does not take what was shown: %v", err)
		return s
	}
	return next
}

// changing changes a gateway's own sites now and then, until all is calm.
func (c *sessions) changing(g *gateway) {
	w, life := c.w, g.life
	w.after(w.between(0, 4*time.Minute), func() {
		if !g.up || g.life != life || w.now.After(w.calm) {
			return
		}
		g.alter()
		for _, x := range c.of(g) {
			x.pushSoon()
		}
		c.changing(g)
	})
}

// alter changes one own site: its state, all of it, or whether it is there.
func (g *gateway) alter() {
	w := g.w
	w.counters.Changes++
	k := resourcemodel.Key{Site: fmt.Sprintf("s%d", w.rng.IntN(5))}
	site := g.own.Site(k)
	change := resourcemodel.Change{Key: k}
	// As sources do: a record that says nothing new keeps its stamp.
	static := func() *resourcemodel.Static {
		s := w.static()
		if site != nil && s.Same(site.Static) {
			return site.Static
		}
		return s
	}
	dynamic := func(s *resourcemodel.Static) *resourcemodel.Dynamic {
		d := w.dynamic(s)
		if site != nil && d.Same(site.Dynamic) {
			return site.Dynamic
		}
		return d
	}
	switch how := w.rng.IntN(6); {
	case site == nil || how == 0:
		change.Static = static()
		if site == nil && w.chance(0.25) {
			break // its state comes later
		}
		change.Dynamic = dynamic(change.Static)
	case how == 1:
		change.Gone = true
	case how == 2:
		change.Gone, change.Static = true, site.Static // its state is not known any more
	default:
		change.Dynamic = dynamic(site.Static)
	}
	g.own = w.apply(g.own, []resourcemodel.Change{change})
	g.model = w.apply(g.model, []resourcemodel.Change{change})
}

func (w *World) stamp() resourcemodel.Stamp {
	w.version++
	return resourcemodel.Stamp{Version: w.version, Changed: w.now.UTC(), Source: "sim"}
}

func (w *World) static() *resourcemodel.Static {
	s := &resourcemodel.Static{Stamp: w.stamp(), Type: "sim"}
	for k := range 1 + w.rng.IntN(2) {
		id := fmt.Sprintf("e%d", k)
		s.Environments = append(s.Environments, resourcemodel.Environment{ID: id, CPUArchitecture: "x86_64", CPUs: 8 << w.rng.IntN(3), Memory: int64(16+w.rng.IntN(64)) << 30})
		s.Shares = append(s.Shares, resourcemodel.Share{ID: "q" + id, Environments: []string{id}, MaxWallTime: time.Duration(1+w.rng.IntN(24)) * time.Hour})
	}
	return s
}

func (w *World) dynamic(s *resourcemodel.Static) *resourcemodel.Dynamic {
	d := &resourcemodel.Dynamic{Stamp: w.stamp(), Up: true, Shares: map[string]resourcemodel.ShareState{}, Environments: map[string]resourcemodel.EnvironmentState{}}
	for _, h := range s.Shares {
		d.Shares[h.ID] = resourcemodel.ShareState{Open: true, Running: w.rng.IntN(100), Waiting: w.rng.IntN(100)}
	}
	for _, e := range s.Environments {
		d.Environments[e.ID] = resourcemodel.EnvironmentState{Nodes: 10, Available: 10, FreeCPUs: w.rng.IntN(80)}
	}
	return d
}

// show brings the view up to date.
func (x *side) show() {
	if err := x.exporter.Show(x.g.model, x.detail, x.children...); err != nil {
		x.g.w.breach("%s can't show its sites: %v", x.g.g.Domain, err)
	}
}

// pushSoon tells what changed, a little later, with what changes meanwhile.
func (x *side) pushSoon() {
	w := x.g.w
	if !x.open || x.pushing || w.options.Faults.ChangesNotPushed {
		return
	}
	x.pushing = true
	epoch := x.epoch
	w.after(w.between(0, 10*time.Second), func() {
		if !x.open || x.epoch != epoch {
			return
		}
		x.pushing = false
		if len(x.rest) > 0 {
			x.pushSoon() // the latest only, once there is room
			return
		}
		x.show()
		x.add(x.exporter.Push()...)
	})
}

// verifying sends digests, and how far accounts go, from time to time.
func (x *side) verifying(epoch int) {
	w := x.g.w
	w.after(w.between(9*time.Minute, 10*time.Minute), func() {
		if !x.open || x.epoch != epoch {
			return
		}
		if len(x.rest) == 0 && !w.options.Faults.ResourcesForgotten {
			x.add(x.exporter.Verify()...)
		}
		if len(x.rest) == 0 && !w.options.Faults.LedgerNotTold {
			x.add(x.accounts()...)
		}
		x.verifying(epoch)
	})
}

// thing takes an item that is about no job.
func (x *side) thing(m wire.Message) {
	w := x.g.w
	switch m := m.(type) {
	case *wire.Pull:
		w.counters.Pulls++
		x.show()
		out := x.exporter.Pull(m)
		if w.options.Faults.ResourcesForgotten {
			out = withoutDigests(out)
		}
		x.add(out...)
	case *wire.Compare:
		w.counters.Compares++
		x.show()
		x.add(x.exporter.Compare(m)...)
	case *wire.Account, *wire.Statements, *wire.Verdicts:
		x.audit(m)
	default:
		if _, ok := m.(*wire.Resources); ok {
			w.counters.Resources++
			if w.options.Faults.ResourcesForgotten && w.chance(0.1) {
				return
			}
		}
		changes, answers, err := x.importer.Take(m)
		if err != nil {
			w.breach("%s takes what %s shows for wrong: %v", x.g.g.Domain, x.peer.g.Domain, err)
			return
		}
		if len(changes) > 0 {
			x.g.model = w.apply(x.g.model, changes)
			for _, y := range x.c.of(x.g) {
				if y != x && len(y.children) > 0 {
					y.pushSoon()
				}
			}
		}
		x.add(answers...)
	}
}

func withoutDigests(list []wire.Message) []wire.Message {
	var out []wire.Message
	for _, m := range list {
		if _, ok := m.(*wire.Digests); !ok {
			out = append(out, m)
		}
	}
	return out
}

// restless: each pair that is left has a session in which all was said, and each gateway
// has of its peers' sites what these show it.
func (c *sessions) restless() string {
	for _, g := range c.w.gates {
		for _, x := range c.of(g) {
			if g.lost || x.peer.lost {
				continue
			}
			if why := x.restless(); why != "" {
				return why
			}
		}
	}
	return ""
}

func (x *side) restless() string {
	me, they, o := x.g.g.Domain, x.peer.g.Domain, x.other()
	if !x.open || x.name != o.name {
		return fmt.Sprintf("%s has no session with %s", me, they)
	}
	phase, why, _ := x.s.Phase()
	sent, acked, _, _ := x.s.Cursors()
	if phase != session.Alive || sent != acked || len(x.rest) > 0 || x.pushing || x.auditing {
		return fmt.Sprintf("%s's session with %s is %s (%s), %d of %d items are done with, and %d wait", me, they, phase, why, acked, sent, len(x.rest))
	}
	if why := x.unlike(); why != "" {
		return why
	}
	if seen := [2]*resourcemodel.Snapshot{x.g.model, x.peer.model}; x.seen != seen {
		x.seen, x.wrong = seen, x.differs(o.importer, x.peer.model)
	}
	return x.wrong
}

// differs holds what the peer has of the sites that this side shows against what is there.
func (x *side) differs(i *exchange.Importer, has *resourcemodel.Snapshot) string {
	me, they := x.g.g.Domain, x.peer.g.Domain
	want := map[string]*resourcemodel.Site{}
	for site := range x.g.model.Sites() {
		name := site.Site
		if site.Domain != "" {
			name = site.Domain + resourcemodel.Via + name
			if !slices.Contains(x.children, site.Domain) {
				continue
			}
		}
		if a := resourcemodel.Aggregate(site, x.detail); a != nil && a.Static != nil {
			want[name] = a
		}
	}
	n := 0
	for site := range has.SitesOf(me) {
		n++
		if a := want[site.Site]; a == nil || !x.same(a, site) {
			return fmt.Sprintf("%s shows %s the site %s otherwise than it is there", me, they, site.Site)
		}
	}
	if n != len(want) {
		return fmt.Sprintf("%s shows %s %d sites, and %d are there", me, they, len(want), n)
	}
	if _, revision, sites, _ := i.State(); sites != n {
		return fmt.Sprintf("%s counts %d sites of %s in revision %d, and %d are there", they, sites, me, revision, n)
	}
	return ""
}

// same: to the byte where all is shown; an aggregate that says the same as before keeps
// its stamp.
func (x *side) same(a, b *resourcemodel.Site) bool {
	if (a.Dynamic == nil) != (b.Dynamic == nil) {
		return false
	}
	if x.detail != resourcemodel.Full {
		return a.Static.Same(b.Static) && (a.Dynamic == nil || a.Dynamic.Same(b.Dynamic))
	}
	p, err := a.Static.Encode()
	q, err2 := b.Static.Encode()
	if err != nil || err2 != nil || !bytes.Equal(p, q) {
		return false
	}
	if a.Dynamic == nil {
		return true
	}
	p, err = a.Dynamic.Encode()
	q, err2 = b.Dynamic.Encode()
	return err == nil && err2 == nil && bytes.Equal(p, q)
}
