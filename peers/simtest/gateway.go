package simtest

import (
	"fmt"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/resourcemodel"
)

type gateway struct {
	w      *World
	i      int
	g      handover.Gateway
	up     bool
	lost   bool // for good
	life   int  // counts restarts
	offset time.Duration
	disk   map[handover.Key]*handover.Job
	mem    map[handover.Key]*handover.Job
	keys   []handover.Key // of mem, in order of coming
	book   *ledger.Book
	slots  int
	site   map[string]*run
	tick   map[handover.Key]time.Time
	heard  map[handover.Key]time.Time // when the manager hears the last of what it is told of a job
	peers  []int
	own    *resourcemodel.Snapshot // its sites, as they are
	model  *resourcemodel.Snapshot // in memory: those, and what peers show
}

func (g *gateway) clock() time.Time { return g.w.now.Add(g.offset) }

// crash is kill -9: what was not committed is gone.
func (g *gateway) crash() {
	if !g.up || g.w.now.After(g.w.calm) && !g.lost {
		return
	}
	w := g.w
	w.say("%s crashes; lost %v", g.g.Domain, g.lost)
	w.counters.Crashes++
	g.up = false
	g.life++
	g.mem, g.keys, g.tick = map[handover.Key]*handover.Job{}, nil, map[handover.Key]time.Time{}
	w.carrier.crashed(g.i)
	if g.lost {
		return
	}
	away := w.between(time.Second, 90*time.Second)
	if w.chance(0.3) {
		away = w.between(time.Minute, 15*time.Minute)
	}
	w.after(away, g.restart)
	if w.chance(0.3) {
		w.after(w.between(away, away+trouble/2), g.crash)
	}
}

func (g *gateway) restart() {
	if g.lost || g.up {
		return
	}
	w := g.w
	g.up = true
	w.say("%s restarts", g.g.Domain)
	w.carrier.begin(g.i)
	life := g.life
	for _, k := range w.jobs {
		rec := g.disk[k]
		if rec == nil {
			continue
		}
		if g.life != life {
			return // it died again while it started
		}
		b, err := rec.Encode()
		if err != nil {
			w.breach("%s: %v", g.g.Domain, err)
			continue
		}
		j, err := handover.Decode(b)
		if err != nil {
			w.breach("%s: %v", g.g.Domain, err)
			continue
		}
		if w.options.Faults.RestartForgets {
			j = rec
		}
		g.mem[k] = j
		g.keys = append(g.keys, k)
		g.step(k, handover.Tick{})
	}
}

// step is what a gateway does with an input: step, commit, then act; it may die anywhere
// on the way.
func (g *gateway) step(k handover.Key, in handover.Input) {
	w := g.w
	w.counters.Steps++
	j := g.mem[k]
	r, isReceived := in.(handover.Received)
	if isReceived {
		r.Owed = g.book.Owes(r.From, k, tokenOf(r.Message))
		in = r
	}
	j, in = w.options.Faults.before(w, g, j, in)
	before := g.disk[k]
	s, err := g.g.Step(j, in, g.clock())
	if err != nil {
		if fail.Is(err, fail.Internal) || isReceived && fail.Is(err, fail.Invalid) {
			w.breach("%s: %v", g.g.Domain, err)
		}
		w.say("%s %s %T: %v", g.g.Domain, k, in, err)
	}
	if w.options.Trace {
		to := "forgotten"
		if s.Job != nil {
			to = fmt.Sprintf("%s token %q", s.Job.Phase, s.Job.Token())
		}
		w.say("%s %s %s -> %s save %d", g.g.Domain, k.ID, describe(in), to, s.Save)
	}
	commit := func() {
		if s.Save == handover.SaveNothing || s.Save == handover.SaveLater && w.chance(0.5) {
			return
		}
		g.charge(s)
		if s.Job == nil {
			delete(g.disk, k)
			return
		}
		g.disk[k] = s.Job
		w.check(g, k, before, s.Job)
	}
	die := w.now.Before(w.calm) && w.chance(0.004)
	at := w.rng.IntN(len(s.Do) + 2)
	if die && at == 0 {
		g.crash() // before the commit
		return
	}
	if !w.options.Faults.WrittenAfterSending {
		commit()
	}
	if s.Job == nil {
		if j != nil && j.Phase == handover.Over && !j.Taken.Settled && s.Earn == nil {
			t := w.truth[k] // the giver was away for longer than results are kept
			t.late = append(t.late, j.Taken.Token)
		}
		delete(g.mem, k)
		g.keys = slices.DeleteFunc(g.keys, func(o handover.Key) bool { return o == k })
	} else {
		if g.mem[k] == nil {
			g.keys = append(g.keys, k)
		}
		g.mem[k] = s.Job
	}
	for i, o := range s.Do {
		if die && at == i+1 {
			g.crash()
			return
		}
		g.act(k, o)
	}
	if die {
		g.crash()
		return
	}
	if w.options.Faults.WrittenAfterSending {
		commit()
	}
	g.wake(k)
}

func tokenOf(m handover.Message) handover.Token {
	_, t := m.About()
	return t
}

func describe(in handover.Input) string {
	if r, ok := in.(handover.Received); ok {
		s := fmt.Sprintf("from %s %T ", r.From, r.Message)
		if m, ok := r.Message.(handover.Report); ok && m.Result != nil {
			s += fmt.Sprintf("result %+v ", *m.Result)
			m.Result = nil
			r.Message = m
		}
		return s + fmt.Sprintf("%+v owed %t refuse %v", r.Message, r.Owed, r.Refuse)
	}
	if e, ok := in.(handover.Evidence); ok {
		return fmt.Sprintf("%s of %s, used %s", e.Shows, e.Token, e.Used)
	}
	return fmt.Sprintf("%T %+v", in, in)
}

func (g *gateway) charge(s handover.Step) {
	if s.Owe != nil {
		if err := g.book.Owe(*s.Owe); err != nil {
			g.w.breach("%s: %v", g.g.Domain, err)
		}
	}
	if s.Earn != nil {
		g.w.counters.Charges++
		if _, err := g.book.Earn(*s.Earn, g.clock()); err != nil {
			g.w.breach("%s: %v", g.g.Domain, err)
		}
		g.w.carrier.earned(g.i, s.Earn.Consumer)
	}
}

// wake sees to the next tick of a job.
func (g *gateway) wake(k handover.Key) {
	j := g.mem[k]
	if j == nil {
		return
	}
	next := j.Next()
	if next.IsZero() {
		return
	}
	at := next.Add(-g.offset)
	if at.Before(g.w.now) {
		at = g.w.now
	}
	if have, ok := g.tick[k]; ok && !have.After(at) {
		return
	}
	g.tick[k] = at
	life := g.life
	g.w.after(at.Sub(g.w.now), func() {
		if !g.up || g.life != life || !g.tick[k].Equal(at) {
			return
		}
		delete(g.tick, k)
		j := g.mem[k]
		if j == nil {
			return
		}
		if g.clock().Before(j.Next()) {
			g.wake(k) // the clock was put back
			return
		}
		g.step(k, handover.Tick{})
	})
}

// act does what a step says.
func (g *gateway) act(k handover.Key, o handover.Output) {
	w := g.w
	switch o := o.(type) {
	case handover.Send:
		g.send(o)
	case handover.Place:
		life := g.life
		w.after(w.between(0, 2*time.Second), func() {
			if g.up && g.life == life {
				g.route(k)
			}
		})
	case handover.Start, handover.Stop, handover.Hold, handover.Extend:
		// The manager hears of it a little later; the gateway may be dead then. It hears of one job in
		// order, as the broker is told one thing after the other of it.
		at := w.now.Add(w.between(0, 300*time.Millisecond))
		if before := g.heard[k]; at.Before(before) {
			at = before
		}
		g.heard[k] = at
		w.after(at.Sub(w.now), func() { g.manager(k, o) })
	case handover.Done:
	}
}

func (g *gateway) receive(from *gateway, terms handover.Terms, m handover.Message) {
	key, _ := m.About()
	in := handover.Received{From: from.g.Domain, Message: m, Terms: terms}
	if _, ok := m.(handover.Route); ok && (len(g.keys) > 6 || g.w.now.Before(g.w.calm) && g.w.chance(0.2)) {
		in.Refuse = fail.Errorf("sim.Admit", fail.NotAccepting, key.String(), "the domain %s takes no more jobs at present", g.g.Domain)
	}
	g.step(key, in)
}

// route gives a waiting job a place: any that is allowed, as no choice may do harm.
func (g *gateway) route(k handover.Key) {
	w, j := g.w, g.mem[k]
	if j == nil || j.Phase != handover.Waiting || j.Want != handover.Run {
		return
	}
	again := func() {
		life := g.life
		w.after(w.between(2*time.Second, 30*time.Second), func() {
			if g.up && g.life == life {
				g.route(k)
			}
		})
	}
	calm := w.now.After(w.calm)
	if calm || w.chance(0.35) {
		g.step(k, handover.PlaceHere{})
		return
	}
	var to []int
	for _, p := range g.peers {
		if w.options.Faults.PathNotChecked || handover.MayForward(j, g.g.Domain, w.gates[p].g.Domain) == nil {
			to = append(to, p)
		}
	}
	if j.Taken != nil && w.chance(0.15) {
		g.step(k, handover.Return{Running: w.chance(0.5), Reason: "there is no room"})
		return
	}
	if len(to) == 0 || w.chance(0.1) {
		again()
		return
	}
	p := to[w.rng.IntN(len(to))]
	in := handover.Forward{To: w.gates[p].g.Domain, Terms: w.links[[2]int{g.i, p}].terms, Hops: maxHops - 1}
	if j.Taken == nil && w.chance(0.3) {
		in.Digest = fmt.Sprintf("sha256:%s-%d", k.ID, w.rng.IntN(3)) // other files go with it than the last time
	}
	g.step(k, in)
	if now := g.mem[k]; now != nil && now.Phase == handover.Waiting && g.up {
		again()
	}
	if w.chance(0.1) {
		w.after(w.between(time.Second, 5*time.Minute), func() {
			if g.up && g.mem[k] != nil {
				g.step(k, handover.Ask{})
			}
		})
	}
	if w.chance(0.3) {
		in := w.between(time.Second, 5*time.Minute)
		if w.chance(0.5) {
			in = w.between(0, 3*time.Second) // its route may still be on the way
		}
		w.after(in, func() {
			if now := g.mem[k]; g.up && now != nil && now.Phase == handover.Given && w.now.Before(w.calm) {
				w.counters.Recalls++
				g.step(k, handover.TakeBack{Running: w.chance(0.5)})
			}
		})
	}
}
