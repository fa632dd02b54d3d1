package handover_test

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
)

// world is a federation in virtual time, made of a seed: gateways with disks that survive
// and memories that do not, clocks that are wrong, sites that go on while their gateway is
// dead, links that lose, repeat, reorder, delay and are cut. It knows what no gateway
// does, and notes whatever is against the promises of the package.
type world struct {
	rng      *rand.Rand
	now      time.Time // true time
	events   queue
	order    uint64
	gates    []*gateway
	links    map[[2]int]*link
	calm     time.Time // no faults from then on
	faults   faults
	skew     time.Duration
	wrong    []string // what was against the promises
	trace    []string
	traced   bool
	jobs     []handover.Key
	truth    map[handover.Key]*truth
	counters counters
}

// counters tell that the worlds are not dull.
type counters struct {
	jobs, hops, crashes, cuts, recalls, late, refused, steps, reruns, cancelled, charges, unclaimed, deepest, messages int

	moves map[handover.Move]int
}

// faults are deliberate breaches of the rules: each must be found.
type faults struct {
	takerIgnoresDeadline bool // it goes on past its deadline, and its site too
	giverIgnoresDeadline bool // it places elsewhere before
	tokenNotCompared     bool // a route is taken whatever was held under a higher or the same token
	pathNotChecked       bool // on either side
	writtenAfterSending  bool
	refusalForgotten     bool
	restartForgets       bool // what was promised before it
	skewForgotten        bool // clocks are wrong by more than was agreed
	resultTwice          bool // a result under an old token is heeded
	recallForgotten      bool // of a copy that was never seen
	hopsNotCounted       bool
	lateEndHeeded        bool // though the job has another place
}

// moved counts a move of a phase.
func (c *counters) moved(m handover.Move) {
	if c.moves == nil {
		c.moves = map[handover.Move]int{}
	}
	c.moves[m]++
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

type gateway struct {
	w      *world
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
	peers  []int
}

// link is one direction between two gateways.
type link struct {
	terms handover.Terms
	cuts  [][2]time.Time
	slow  bool
}

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

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{w.now.Add(max(d, 0)), w.order, do})
}

func (w *world) say(format string, args ...any) {
	if w.traced {
		w.trace = append(w.trace, fmt.Sprintf("%10.3fs  ", w.now.Sub(start).Seconds())+fmt.Sprintf(format, args...))
	}
}

func (w *world) breach(format string, args ...any) {
	s := fmt.Sprintf("%.3fs: ", w.now.Sub(start).Seconds()) + fmt.Sprintf(format, args...)
	w.say("BREACH %s", s)
	w.wrong = append(w.wrong, s)
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

var start = time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)

const (
	trouble  = 25 * time.Minute // how long faults happen
	horizon  = 4 * time.Hour
	maxSteps = 60_000
	maxHops  = 3
)

// newWorld makes the world of a seed.
func newWorld(seed uint64, f faults, traced bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 21)), now: start, calm: start.Add(trouble), faults: f, traced: traced,
		links: map[[2]int]*link{}, truth: map[handover.Key]*truth{},
	}
	n := 2 + w.rng.IntN(6)
	w.skew = w.between(0, 4*time.Second)
	for i := range n {
		domain := fmt.Sprintf("d%d", i)
		w.gates = append(w.gates, &gateway{
			w: w, i: i, g: handover.Gateway{Domain: domain}, up: true, disk: map[handover.Key]*handover.Job{}, mem: map[handover.Key]*handover.Job{},
			book: ledger.New(domain), slots: 1 + w.rng.IntN(2), site: map[string]*run{}, tick: map[handover.Key]time.Time{},
		})
	}
	// A tree of parents and children, and some who are peers beside it.
	for i := 1; i < n; i++ {
		w.connect(w.rng.IntN(i), i)
	}
	for range w.rng.IntN(n) {
		if a, b := w.rng.IntN(n), w.rng.IntN(n); a != b && !slices.Contains(w.gates[a].peers, b) {
			w.connect(a, b)
		}
	}
	for _, g := range w.gates {
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
	w.counters.jobs = len(w.jobs)
	return w
}

// connect makes a session of two gateways, with terms of their own.
func (w *world) connect(a, b int) {
	t := handover.Terms{
		Lease: w.between(time.Minute, 4*time.Minute), Skew: w.skew, StopWithin: w.between(time.Second, 8*time.Second), Resend: w.between(2*time.Second, 8*time.Second), Keep: w.between(time.Minute, time.Hour),
	}
	for _, p := range [][2]int{{a, b}, {b, a}} {
		l := &link{terms: t, slow: w.chance(0.2)}
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
		w.counters.cuts++
	}
}

func (l *link) cut(at, calm time.Time) bool {
	return at.Before(calm) && slices.ContainsFunc(l.cuts, func(c [2]time.Time) bool { return !at.Before(c[0]) && at.Before(c[1]) })
}

// submit retries until the origin is up.
func (w *world) submit(g *gateway, k handover.Key) {
	if g.lost {
		return
	}
	if !g.up {
		w.after(time.Minute, func() { w.submit(g, k) })
		return
	}
	if g.mem[k] == nil {
		g.step(k, handover.Submit{Key: k, Digest: "sha256:" + k.ID})
	}
	if g.disk[k] == nil {
		w.after(time.Second, func() { w.submit(g, k) })
		return
	}
	// What the user wants changes.
	for range w.rng.IntN(3) {
		w.after(w.between(time.Second, trouble), func() {
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
func (w *world) resume(g *gateway, k handover.Key) {
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
	if g.w.faults.skewForgotten {
		e = 5*e + 30*time.Second
	}
	g.offset = g.w.between(-e, e)
	g.w.after(g.w.between(time.Minute, 20*time.Minute), func() {
		if g.w.now.Before(g.w.calm.Add(time.Hour)) {
			g.reclock()
		}
	})
}

func (g *gateway) clock() time.Time { return g.w.now.Add(g.offset) }

// crash is kill -9: what was not committed is gone.
func (g *gateway) crash() {
	if !g.up || g.w.now.After(g.w.calm) && !g.lost {
		return
	}
	w := g.w
	w.say("%s crashes; lost %v", g.g.Domain, g.lost)
	w.counters.crashes++
	g.up = false
	g.life++
	g.mem, g.keys, g.tick = map[handover.Key]*handover.Job{}, nil, map[handover.Key]time.Time{}
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
		if w.faults.restartForgets {
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
	w.counters.steps++
	j := g.mem[k]
	r, isReceived := in.(handover.Received)
	if isReceived {
		r.Owed = g.book.Owes(r.From, k, tokenOf(r.Message))
		in = r
	}
	j, in = w.faults.before(w, g, j, in)
	before := g.disk[k]
	s, err := g.g.Step(j, in, g.clock())
	if err != nil {
		if fail.Is(err, fail.Internal) || isReceived && fail.Is(err, fail.Invalid) {
			w.breach("%s: %v", g.g.Domain, err)
		}
		w.say("%s %s %T: %v", g.g.Domain, k, in, err)
	}
	if w.traced {
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
	if !w.faults.writtenAfterSending {
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
	if w.faults.writtenAfterSending {
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
		g.w.counters.charges++
		if _, err := g.book.Earn(*s.Earn, g.clock()); err != nil {
			g.w.breach("%s: %v", g.g.Domain, err)
		}
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
		// The manager hears of it a little later; the gateway may be dead then.
		w.after(w.between(0, 300*time.Millisecond), func() { g.manager(k, o) })
	case handover.Done:
	}
}

func (g *gateway) send(o handover.Send) {
	w := g.w
	to := slices.IndexFunc(w.gates, func(x *gateway) bool { return x.g.Domain == o.To })
	l := w.links[[2]int{g.i, to}]
	if l == nil {
		w.breach("%s sends to %s, with which it has no session", g.g.Domain, o.To)
		return
	}
	m := w.faults.sent(o.Message)
	w.counters.messages++
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
			w.counters.refused++
		}
	case handover.Report, handover.Control, handover.Settle, handover.Query:
	}
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
		w.after(d, func() {
			p := w.gates[to]
			if p.up {
				p.receive(g, l.terms, m)
			}
		})
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
		if w.faults.pathNotChecked || handover.MayForward(j, g.g.Domain, w.gates[p].g.Domain) == nil {
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
	g.step(k, handover.Forward{To: w.gates[p].g.Domain, Terms: w.links[[2]int{g.i, p}].terms, Hops: maxHops - 1})
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
				w.counters.recalls++
				g.step(k, handover.TakeBack{Running: w.chance(0.5)})
			}
		})
	}
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

// What must hold.

// runs: at no moment two places, and never a lower token after a higher one.
func (w *world) runs(g *gateway, r *run) {
	t := w.truth[r.key]
	w.say("%s runs %s %s", g.g.Domain, r.key.ID, r.token)
	if len(t.running) > 0 {
		w.breach("%s runs at %s under %s while it runs elsewhere", r.key, g.g.Domain, r.token)
	}
	if r.token.Compare(t.highest) < 0 {
		w.breach("%s runs at %s under %s after %s", r.key, g.g.Domain, r.token, t.highest)
	}
	if t.highest != r.token && len(t.complete) > 0 {
		w.counters.reruns++
		for _, done := range slices.Sorted(maps.Keys(t.complete)) {
			if !slices.ContainsFunc(t.late, func(late handover.Token) bool { return within(done, late) }) {
				w.breach("%s runs again at %s under %s, though it ran to its end under %s, which nobody took for dead at a deadline", r.key, g.g.Domain, r.token, done)
			}
		}
	}
	t.highest = r.token
	t.running[g.g.Domain+string(r.token)] = true
	w.inTime(g, r)
}

func (w *world) rests(g *gateway, r *run) {
	w.say("%s rests %s %s", g.g.Domain, r.key.ID, r.token)
	delete(w.truth[r.key].running, g.g.Domain+string(r.token))
	w.inTime(g, r)
}

// inTime: nothing runs under a token past the deadline that was promised for it.
func (w *world) inTime(g *gateway, r *run) {
	t := w.truth[r.key]
	for _, token := range slices.Sorted(maps.Keys(t.promised)) {
		if by := t.promised[token]; within(r.token, token) && w.now.After(by) {
			w.breach("%s runs at %s under %s, %s past the recall deadline of %s", r.key, g.g.Domain, r.token, w.now.Sub(by), token)
		}
	}
}

// within reports whether t was made by who held of.
func within(t, of handover.Token) bool {
	return t == of || strings.HasPrefix(string(t), string(of)+".")
}

// check holds each committed record against the one before.
func (w *world) check(g *gateway, k handover.Key, before, after *handover.Job) {
	t := w.truth[k]
	var from handover.Phase
	if before != nil && (after.Taken == nil || before.Taken.Token == after.Taken.Token) {
		from = before.Phase
	}
	if from != after.Phase {
		w.counters.moved(handover.Move{From: from, To: after.Phase})
	}
	origin := after.Taken == nil
	if origin && after.Phase == handover.Over && (before == nil || before.Phase != handover.Over) {
		t.ended++
		r := *after.Result
		t.result = &r
		w.say("%s ends %s: %+v", g.g.Domain, k.ID, r)
		if t.ended > 1 {
			w.breach("%s ended %d times", k, t.ended)
		}
		if used := w.used(k); after.Used > used {
			w.breach("%s used %s by what its origin was told, and %s in truth", k, after.Used, used)
		}
		if len(t.running) > 0 {
			w.breach("%s ended while it runs: %v", k, t.running)
		}
		if r.Outcome == handover.Cancelled {
			w.counters.cancelled++
			if t.wants != handover.Cancel {
				w.breach("%s was cancelled, and nobody wanted that", k)
			}
		} else if !t.complete[r.Token] {
			w.breach("%s ended under %q, which did not run to its end", k, r.Token)
		}
	}
	if origin && before != nil && before.Phase == handover.Over && after.Phase != handover.Over {
		w.breach("%s went on after its end", k)
	}
	if after.Phase == handover.Given && (before == nil || before.Phase != handover.Given || before.Gave.Token != after.Gave.Token) {
		var base handover.Token
		if after.Taken != nil {
			base = after.Taken.Token
		}
		way := append(slices.Clone(t.path[base]), g.g.Domain)
		t.path[after.Gave.Token] = way
		w.counters.hops++
		w.counters.deepest = max(w.counters.deepest, len(way))
		if slices.Contains(way, after.Gave.To) {
			w.breach("%s goes in a loop: %v, then %s", k, way, after.Gave.To)
		}
		if len(way) > maxHops {
			w.breach("%s makes more hops than its origin allows: %v, then %s", k, way, after.Gave.To)
		}
	}
	if before != nil && before.Phase == handover.Given && after.Gave != nil && after.Gave.Over && !before.Gave.Over && !after.Gave.Done && strings.Contains(after.Reason, "not heard of") {
		w.counters.late++
		t.late = append(t.late, before.Gave.Token)
		if by := t.promised[before.Gave.Token]; !w.now.After(by) {
			w.breach("%s is taken from %s %s before the recall deadline", k, before.Gave.To, by.Sub(w.now))
		}
	}
}

// used is what all placements of a job took.
func (w *world) used(k handover.Key) handover.CPUTime {
	var sum handover.CPUTime
	for _, g := range w.gates {
		for _, r := range g.site {
			if r.key == k {
				sum += handover.CPU(1, r.used)
			}
		}
	}
	return sum
}

// reconcile makes the two books of a pair alike, as far as nothing is lost on the way.
func (w *world) reconcile(provider, consumer *gateway, loss float64) {
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

// run lets the world go on until all is still, and gives what was against the promises.
func (w *world) run() []string {
	for len(w.events) > 0 && len(w.wrong) == 0 {
		e := heap.Pop(&w.events).(event)
		if e.at.After(start.Add(horizon)) {
			break
		}
		w.now = e.at
		e.do()
		if w.counters.steps > maxSteps {
			w.breach("the gateways talk for ever: %d steps", w.counters.steps)
		}
		if w.chance(0.01) {
			a := w.gates[w.rng.IntN(len(w.gates))]
			b := w.gates[a.peers[w.rng.IntN(len(a.peers))]]
			if a.up && b.up {
				w.reconcile(a, b, 0.3)
			}
		}
		if w.still() {
			break
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
	w.ledgers()
	return w.wrong
}

func (w *world) gateOf(domain string) *gateway {
	return w.gates[slices.IndexFunc(w.gates, func(g *gateway) bool { return g.g.Domain == domain })]
}

// still: faults are over, each job has ended, and each copy is settled.
func (w *world) still() bool {
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
	return true
}

// ledgers: after a last exchange both sides of each pair have the same statements, verdicts
// and balances, and contest nothing.
func (w *world) ledgers() {
	for _, a := range w.gates {
		for _, i := range a.peers {
			b := w.gates[i]
			if a.lost || b.lost {
				continue
			}
			w.reconcile(a, b, 0)
			w.reconcile(b, a, 0)
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
				w.counters.unclaimed++
			}
		}
	}
}
