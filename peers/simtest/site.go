package simtest

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/peers/handover"
)

// run is a placement at a site; the site outlives its gateway.
type run struct {
	key      handover.Key
	token    handover.Token
	state    string // queued, running, held, ended, stopped
	notAfter time.Time
	left     time.Duration
	since    time.Time
	used     time.Duration
	epoch    int
	result   *handover.Result
}

// The site.

func tag(k handover.Key, t handover.Token) string { return k.String() + "#" + string(t) }

func (g *gateway) show(r *run, e handover.Evidence) {
	e.Token = r.token
	g.w.after(g.w.between(0, time.Second), func() {
		if g.up {
			g.step(r.key, e)
		}
	})
}

// manager is what the site's manager does when it is told.
func (g *gateway) manager(k handover.Key, o handover.Output) {
	w := g.w
	find := func(t handover.Token) (*run, bool) {
		r := g.site[tag(k, t)]
		if r != nil {
			return r, true
		}
		r = &run{key: k, token: t, state: "queued", left: w.between(time.Second, 6*time.Minute)}
		g.site[tag(k, t)] = r
		return r, false
	}
	switch o := o.(type) {
	case handover.Start:
		r, known := find(o.Token)
		if !known {
			r.notAfter = o.NotAfter
			g.limit(r)
		}
		g.tell(r)
		g.schedule()
	case handover.Extend:
		if r, known := find(o.Token); known && !r.notAfter.IsZero() && o.NotAfter.After(r.notAfter) {
			r.notAfter = o.NotAfter
			g.limit(r)
		} else if !known {
			delete(g.site, tag(k, o.Token))
		}
	case handover.Stop:
		r, known := find(o.Token)
		if !known {
			r.state = "stopped"
		}
		if r.state == "ended" || r.state == "stopped" {
			g.tell(r)
			return
		}
		d := w.between(0, g.quickest())
		w.after(d, func() { g.kill(r) })
	case handover.Hold:
		r, known := find(o.Token)
		switch {
		case !known:
			delete(g.site, tag(k, o.Token))
		case o.Held && r.state == "running":
			g.pause(r)
			r.state = "held"
			g.tell(r)
		case o.Held && r.state == "queued":
			r.state = "held"
			g.tell(r)
		case !o.Held && r.state == "held":
			r.state = "queued"
			g.tell(r)
			g.schedule()
		}
	}
}

// quickest is a time within which the site stops jobs whatever terms they came under.
func (g *gateway) quickest() time.Duration {
	d := time.Second
	for _, p := range g.peers {
		d = max(d, 0)
		if s := g.w.links[[2]int{g.i, p}].terms.StopWithin; s < d {
			d = s
		}
	}
	return d
}

// limit ends the job by the site's own clock, whatever becomes of the gateway.
func (g *gateway) limit(r *run) {
	if r.notAfter.IsZero() {
		return
	}
	at := r.notAfter
	g.w.after(at.Add(-g.offset).Sub(g.w.now), func() {
		switch {
		case r.notAfter.After(at):
		case g.clock().Before(at):
			g.limit(r)
		default:
			g.kill(r)
		}
	})
}

func (g *gateway) kill(r *run) {
	if r.state == "ended" || r.state == "stopped" {
		return
	}
	g.pause(r)
	r.state = "stopped"
	g.tell(r)
	g.schedule()
}

// pause notes that it does not run from now on.
func (g *gateway) pause(r *run) {
	if r.state != "running" {
		return
	}
	ran := g.w.now.Sub(r.since)
	r.left -= ran
	r.used += ran
	r.epoch++
	g.w.rests(g, r)
}

// schedule starts what waits, while slots are free.
func (g *gateway) schedule() {
	w := g.w
	busy := 0
	var waiting []*run
	for _, k := range w.jobs {
		for _, name := range sortedTags(g.site, k) {
			switch r := g.site[name]; r.state {
			case "running":
				busy++
			case "queued":
				waiting = append(waiting, r)
			}
		}
	}
	for _, r := range waiting {
		if busy >= g.slots {
			return
		}
		if !r.notAfter.IsZero() && !g.clock().Before(r.notAfter) {
			continue // its limit is about to end it
		}
		busy++
		r.state, r.since = "running", w.now
		r.epoch++
		epoch := r.epoch
		w.runs(g, r)
		g.tell(r)
		fails := w.now.Before(w.calm) && w.chance(0.06)
		w.after(r.left, func() {
			if r.state != "running" || r.epoch != epoch {
				return
			}
			if fails {
				g.kill(r) // its node broke
				return
			}
			g.pause(r)
			r.state = "ended"
			r.result = &handover.Result{Outcome: handover.Finished, ExitCode: w.rng.IntN(2)}
			w.truth[r.key].complete[r.token] = true
			g.tell(r)
			g.schedule()
		})
	}
}

func sortedTags(site map[string]*run, k handover.Key) []string {
	var out []string
	for name, r := range site {
		if r.key == k {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// tell shows the gateway how the job stands.
func (g *gateway) tell(r *run) {
	switch r.state {
	case "running":
		g.show(r, handover.Evidence{Shows: handover.HasStarted})
	case "held":
		g.show(r, handover.Evidence{Shows: handover.HasPaused})
	case "ended":
		g.show(r, handover.Evidence{Shows: handover.HasEnded, Result: r.result, Used: handover.CPU(1, r.used)})
	case "stopped":
		g.show(r, handover.Evidence{Shows: handover.NotRun, Reason: "the site ended it", Used: handover.CPU(1, r.used)})
	}
}
