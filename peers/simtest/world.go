package simtest

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/resourcemodel"
)

// World is a federation in virtual time, made of a seed: gateways with disks that survive
// and memories that do not, clocks that are wrong, sites that go on while their gateway is
// dead, links that lose, repeat, reorder, delay and are cut. It knows what no gateway
// does, and notes whatever is against what is promised.
type World struct {
	rng      *rand.Rand
	now      time.Time // true time
	events   queue
	order    uint64
	gates    []*gateway
	links    map[[2]int]*link
	calm     time.Time // no faults from then on
	options  Options
	carrier  carrier
	skew     time.Duration
	wrong    []string // what was against the promises
	trace    []string
	looked   time.Time // whether all is still
	version  uint64    // of the last record of a site
	jobs     []handover.Key
	truth    map[handover.Key]*truth
	counters Counters
}

// truth is what really happened to one job.
type truth struct {
	running  map[string]bool // sites and tokens
	highest  handover.Token  // that ever ran
	complete map[handover.Token]bool
	promised map[handover.Token]time.Time // the latest deadline that was ever told
	path     map[handover.Token][]string  // who made the token, and its makers before
	late     []handover.Token             // that a giver took for dead at the deadline
	ended    int
	result   *handover.Result
	wants    handover.Want
}

// link is one direction between two gateways.
type link struct {
	terms handover.Terms
	cuts  [][2]time.Time
	slow  bool
	// family: the first is the parent of the second; else they are peers.
	family bool
}

type event struct {
	at    time.Time
	order uint64
	do    func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(a, b int) bool {
	return q[a].at.Before(q[b].at) || q[a].at.Equal(q[b].at) && q[a].order < q[b].order
}
func (q queue) Swap(a, b int) { q[a], q[b] = q[b], q[a] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func (w *World) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{w.now.Add(max(d, 0)), w.order, do})
}

func (w *World) say(format string, args ...any) {
	if w.options.Trace {
		w.trace = append(w.trace, fmt.Sprintf("%10.3fs  ", w.now.Sub(start).Seconds())+fmt.Sprintf(format, args...))
	}
}

func (w *World) breach(format string, args ...any) {
	s := fmt.Sprintf("%.3fs: ", w.now.Sub(start).Seconds()) + fmt.Sprintf(format, args...)
	w.say("BREACH %s", s)
	w.wrong = append(w.wrong, s)
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

func (w *World) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

var start = time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)

const (
	trouble  = 25 * time.Minute // how long faults happen
	horizon  = 4 * time.Hour
	maxSteps = 60_000
	maxHops  = MaxHops
)

// New makes the world of a seed.
func New(seed uint64, o Options) *World {
	w := &World{
		rng: rand.New(rand.NewPCG(seed, 21)), //nolint:gosec // a seed is to repeat a world
		now: start, calm: start.Add(trouble), options: o,
		links: map[[2]int]*link{}, truth: map[handover.Key]*truth{},
	}
	n := 2 + w.rng.IntN(6)
	w.skew = w.between(time.Millisecond, 4*time.Second).Truncate(time.Millisecond)
	for i := range n {
		domain := fmt.Sprintf("d%d", i)
		w.gates = append(w.gates, &gateway{
			w: w, i: i, g: handover.Gateway{Domain: domain}, up: true, disk: map[handover.Key]*handover.Job{}, mem: map[handover.Key]*handover.Job{},
			book: ledger.New(domain), slots: 1 + w.rng.IntN(2), site: map[string]*run{}, tick: map[handover.Key]time.Time{}, heard: map[handover.Key]time.Time{},
			own: resourcemodel.Empty(),
		})
	}
	// A tree of parents and children, and some who are peers beside it.
	for i := 1; i < n; i++ {
		w.connect(w.rng.IntN(i), i, true)
	}
	for range w.rng.IntN(n) {
		if a, b := w.rng.IntN(n), w.rng.IntN(n); a != b && !slices.Contains(w.gates[a].peers, b) {
			w.connect(a, b, false)
		}
	}
	w.carrier = wires{w}
	if o.Sessions {
		w.carrier = newSessions(w)
	}
	for _, g := range w.gates {
		w.carrier.begin(g.i)
		g.reclock()
		if w.chance(0.7) {
			w.after(w.between(0, trouble), g.crash)
		}
		if w.chance(0.08) && n > 2 {
			w.after(w.between(time.Minute, trouble), func() {
				g.lost = true
				g.crash()
			})
		}
	}
	for i := range 1 + w.rng.IntN(4) {
		g := w.gates[w.rng.IntN(n)]
		k := handover.Key{Origin: g.g.Domain, ID: fmt.Sprintf("j%d", i)}
		w.jobs = append(w.jobs, k)
		w.truth[k] = &truth{
			running: map[string]bool{}, complete: map[handover.Token]bool{}, promised: map[handover.Token]time.Time{}, path: map[handover.Token][]string{"": nil}, wants: handover.Run,
		}
		w.after(w.between(0, 5*time.Minute), func() { w.submit(g, k) })
	}
	w.counters.Jobs = len(w.jobs)
	return w
}

// connect makes a session of two gateways, with terms of their own.
func (w *World) connect(a, b int, family bool) {
	t := handover.Terms{
		Lease: w.between(time.Minute, 4*time.Minute), Skew: w.skew, StopWithin: w.between(time.Second, 8*time.Second), Resend: w.between(2*time.Second, 8*time.Second), Keep: w.between(time.Minute, time.Hour),
	}
	for _, d := range []*time.Duration{&t.Lease, &t.Skew, &t.StopWithin, &t.Resend, &t.Keep} {
		*d = d.Truncate(time.Millisecond) // as the protocol has it
	}
	for _, p := range [][2]int{{a, b}, {b, a}} {
		l := &link{terms: t, slow: w.chance(0.2), family: family}
		w.links[p] = l
		w.gates[p[0]].peers = append(w.gates[p[0]].peers, p[1])
	}
	// Cuts are mostly of both directions.
	for range w.rng.IntN(4) {
		from := start.Add(w.between(0, trouble))
		cut := [2]time.Time{from, from.Add(w.between(time.Second, 10*time.Minute))}
		which := w.rng.IntN(4)
		if which != 0 {
			w.links[[2]int{a, b}].cuts = append(w.links[[2]int{a, b}].cuts, cut)
		}
		if which != 1 {
			w.links[[2]int{b, a}].cuts = append(w.links[[2]int{b, a}].cuts, cut)
		}
		w.counters.Cuts++
	}
}

func (l *link) cut(at, calm time.Time) bool {
	return at.Before(calm) && slices.ContainsFunc(l.cuts, func(c [2]time.Time) bool { return !at.Before(c[0]) && at.Before(c[1]) })
}

// submit retries until the origin is up.
func (w *World) submit(g *gateway, k handover.Key) {
	if g.lost {
		return
	}
	if !g.up {
		w.after(time.Minute, func() { w.submit(g, k) })
		return
	}
	if g.mem[k] == nil {
		// It may have had places here before anybody thought of handing it over.
		g.step(k, handover.Submit{Key: k, Digest: "sha256:" + k.ID, Attempts: uint32(w.rng.IntN(3))})
	}
	if g.disk[k] == nil {
		w.after(time.Second, func() { w.submit(g, k) })
		return
	}
	// What the user wants changes.
	for range w.rng.IntN(3) {
		d := w.between(time.Second, trouble)
		if w.chance(0.2) {
			d = w.between(0, 3*time.Second) // it may have no place yet
		}
		w.after(d, func() {
			t := w.truth[k]
			if !g.up || t.wants == handover.Cancel || w.now.After(w.calm) {
				return
			}
			t.wants = []handover.Want{handover.Run, handover.Suspend, handover.Suspend, handover.Cancel}[w.rng.IntN(4)]
			g.step(k, handover.Wish{Want: t.wants})
			if t.wants == handover.Suspend {
				w.after(w.between(time.Second, 3*time.Minute), func() { w.resume(g, k) })
			}
		})
	}
}

// resume retries until the origin is up: nobody leaves a job suspended for ever.
func (w *World) resume(g *gateway, k handover.Key) {
	if g.lost || w.truth[k].wants == handover.Cancel {
		return
	}
	if j := g.mem[k]; !g.up || j != nil && j.Want == handover.Suspend {
		w.after(20*time.Second, func() { w.resume(g, k) })
	}
	if g.up {
		w.truth[k].wants = handover.Run
		g.step(k, handover.Wish{Want: handover.Run})
	}
}

// reclock moves the clock of a gateway within its bound, now and then.
func (g *gateway) reclock() {
	e := g.w.skew
	if g.w.options.Faults.SkewForgotten {
		e = 5*e + 30*time.Second
	}
	g.offset = g.w.between(-e, e)
	g.w.after(g.w.between(time.Minute, 20*time.Minute), func() {
		if g.w.now.Before(g.w.calm.Add(time.Hour)) {
			g.reclock()
		}
	})
}

// Run lets the world go on until all is still, and gives what was against the promises.
func (w *World) Run() []string {
	for len(w.events) > 0 && len(w.wrong) == 0 {
		e := heap.Pop(&w.events).(event)
		if e.at.After(start.Add(horizon)) {
			break
		}
		w.now = e.at
		e.do()
		if w.counters.Steps > maxSteps {
			w.breach("the gateways talk for ever: %d steps", w.counters.Steps)
		}
		if w.chance(0.01) {
			w.carrier.books(0.3)
		}
		if w.now.Sub(w.looked) >= time.Second {
			w.looked = w.now
			if w.still() {
				break
			}
		}
	}
	if len(w.wrong) > 0 {
		return w.wrong
	}
	for _, k := range w.jobs {
		g := w.gateOf(k.Origin)
		if !g.lost && w.truth[k].ended != 1 {
			phase := handover.Phase("nowhere")
			if j := g.disk[k]; j != nil {
				phase = j.Phase
			}
			w.breach("%s ended %d times; it is %s at its origin", k, w.truth[k].ended, phase)
		}
		if !g.lost && len(w.truth[k].running) > 0 {
			w.breach("%s runs on: %v", k, w.truth[k].running)
		}
	}
	if why := w.carrier.restless(); why != "" {
		w.breach("the gateways do not come to rest: %s", why)
	}
	w.ledgers()
	return w.wrong
}

func (w *World) gateOf(domain string) *gateway {
	return w.gates[slices.IndexFunc(w.gates, func(g *gateway) bool { return g.g.Domain == domain })]
}

// still: faults are over, each job has ended, and each copy is settled.
func (w *World) still() bool {
	if w.now.Before(w.calm) {
		return false
	}
	for _, g := range w.gates {
		if g.lost {
			continue
		}
		if !g.up {
			return false
		}
		for _, k := range g.keys {
			j := g.mem[k]
			if j.Taken == nil && j.Phase != handover.Over {
				return false
			}
			if t := j.Taken; t != nil && !t.Refused && !t.Settled && !w.gateOf(t.From).lost {
				return false
			}
		}
		for _, k := range w.jobs {
			if w.gateOf(k.Origin) == g && g.mem[k] == nil {
				return false
			}
		}
	}
	return w.carrier.restless() == ""
}
