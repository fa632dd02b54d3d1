package simtest_test

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers/exchange"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// market is a domain with more jobs than its own site can run, and others that show it
// theirs at one detail: what that costs in bytes, and how good the places are that jobs
// get by it. Exchange and routing are those that ship; each site runs what fits first.
type market struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Time
	events marketEvents
	order  int
	detail resourcemodel.Detail
	home   *bourse
	others []*bourse
	model  *resourcemodel.Snapshot // of the origin: its own site, and what it was shown

	bytes, messages int
	refusals        int // a domain was asked that has no place for the job
	away            int // jobs that others ran
	waits, slow     []float64
	unplaced        int
}

// bourse is one domain.
type bourse struct {
	name     string
	sites    []*cluster
	shown    *resourcemodel.Snapshot
	exporter *exchange.Exporter
	importer *exchange.Importer // at the origin
	over     bool
	measured routing.Measured
	given    int
}

// cluster is a site with sets of like nodes.
type cluster struct {
	name    string
	static  *resourcemodel.Static
	dynamic *resourcemodel.Dynamic
	sets    []*nodes
	waiting []*task
	running int
}

type nodes struct {
	cpus   int
	memory int // GiB
	speed  float64
	free   [][2]int
}

type task struct {
	cpus, memory int
	run          time.Duration
	at           time.Time
	by           *bourse
}

type marketEvent struct {
	at    time.Time
	order int
	do    func()
}

type marketEvents []marketEvent

func (q marketEvents) Len() int { return len(q) }
func (q marketEvents) Less(a, b int) bool {
	return q[a].at.Before(q[b].at) || q[a].at.Equal(q[b].at) && q[a].order < q[b].order
}
func (q marketEvents) Swap(a, b int) { q[a], q[b] = q[b], q[a] }
func (q *marketEvents) Push(x any)   { *q = append(*q, x.(marketEvent)) }
func (q *marketEvents) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func (m *market) after(d time.Duration, do func()) {
	m.order++
	heap.Push(&m.events, marketEvent{m.now.Add(d), m.order, do})
}

const (
	pushEvery = 15 * time.Second
	marketHop = time.Second
)

func newMarket(t testing.TB, seed uint64, detail resourcemodel.Detail) *market {
	m := &market{t: t, rng: rand.New(rand.NewPCG(seed, 5)), now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), detail: detail, model: resourcemodel.Empty()}
	m.home = &bourse{name: "home.example", sites: []*cluster{m.cluster("s0", []*nodes{{cpus: 8, memory: 32, free: make([][2]int, 4)}})}}
	for d := range 5 {
		b := &bourse{name: fmt.Sprintf("d%d.example", d)}
		// Many CPUs here, much memory there, and both in few places: which values go together
		// matters. Sets of one kind are bought over the years, and are nearly alike.
		kinds := [][2]int{{32, 32}, {4, 120}, {16, 60}}
		if d == 4 {
			kinds = append(kinds, [2]int{32, 250})
		}
		for s := range 2 + m.rng.IntN(2) {
			var sets []*nodes
			for range 6 + m.rng.IntN(6) {
				k := kinds[m.rng.IntN(len(kinds))]
				sets = append(sets, &nodes{cpus: k[0], memory: k[1] - m.rng.IntN(k[1]/5), speed: 2e9 + 1e8*float64(m.rng.IntN(20)), free: make([][2]int, 1+m.rng.IntN(2))})
			}
			b.sites = append(b.sites, m.cluster(fmt.Sprintf("s%d", s), sets))
		}
		b.exporter, b.importer = exchange.NewExporter("v"), exchange.NewImporter(b.name)
		b.exporter.Begin()
		m.others = append(m.others, b)
	}
	return m
}

func (m *market) stamp(version uint64) resourcemodel.Stamp {
	return resourcemodel.Stamp{Version: version, Changed: m.now, Source: "sim"}
}

func (m *market) cluster(name string, sets []*nodes) *cluster {
	c := &cluster{name: name, sets: sets}
	s := &resourcemodel.Static{Stamp: m.stamp(1), Type: "sim", Shares: []resourcemodel.Share{{ID: "batch", Default: true}}}
	for i, n := range sets {
		id := fmt.Sprintf("e%d", i)
		s.Environments = append(s.Environments, resourcemodel.Environment{
			ID: id, OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: n.cpus, CPUSpeed: n.speed, Memory: int64(n.memory) << 30, HostNames: hostsOf(name, id, len(n.free)),
		})
		s.Shares[0].Environments = append(s.Shares[0].Environments, id)
		for k := range n.free {
			n.free[k] = [2]int{n.cpus, n.memory}
			s.Shares[0].Slots += n.cpus
		}
	}
	c.static = s
	c.refresh(m)
	return c
}

func hostsOf(site, id string, n int) []string {
	var out []string
	for k := range n {
		out = append(out, fmt.Sprintf("%s-%s-n%02d.cluster.example.org", site, id, k))
	}
	return out
}

// refresh makes the state of the site as it is.
func (c *cluster) refresh(m *market) {
	d := &resourcemodel.Dynamic{Up: true, Shares: map[string]resourcemodel.ShareState{}, Environments: map[string]resourcemodel.EnvironmentState{}}
	slots := 0
	for i, n := range c.sets {
		e := resourcemodel.EnvironmentState{Nodes: len(n.free), Available: len(n.free)}
		for _, f := range n.free {
			e.FreeCPUs += f[0]
			e.FreeMemory += int64(f[1]) << 30
			if f[0] == n.cpus {
				e.FreeNodes++
			}
		}
		slots += e.FreeCPUs
		d.Environments[fmt.Sprintf("e%d", i)] = e
	}
	d.Shares["batch"] = resourcemodel.ShareState{Open: true, Running: c.running, Waiting: len(c.waiting), FreeSlots: slots}
	d.Stamp = m.stamp(1)
	if c.dynamic != nil {
		d.Stamp.Source = c.dynamic.Source
		if d.Same(c.dynamic) {
			return
		}
		d.Stamp = m.stamp(c.dynamic.Version + 1)
	}
	c.dynamic = d
}

func (c *cluster) fits(j *task) bool {
	return slices.ContainsFunc(c.sets, func(n *nodes) bool { return n.cpus >= j.cpus && n.memory >= j.memory })
}

// room gives a node that is free for the job.
func (c *cluster) room(j *task) (*nodes, int) {
	for _, n := range c.sets {
		for k, f := range n.free {
			if f[0] >= j.cpus && f[1] >= j.memory {
				return n, k
			}
		}
	}
	return nil, 0
}

// take has a domain run a job: at a site where it starts at once, else in the shortest
// queue. false: it has no place for it.
func (m *market) take(b *bourse, j *task) bool {
	var best *cluster
	now := false
	for _, c := range b.sites {
		if !c.fits(j) {
			continue
		}
		n, _ := c.room(j)
		if free := n != nil; best == nil || free && !now || free == now && len(c.waiting) < len(best.waiting) {
			best, now = c, free
		}
	}
	if best == nil {
		return false
	}
	j.by = b
	if b != m.home {
		m.away++
		b.given++
	}
	best.waiting = append(best.waiting, j)
	m.schedule(best)
	return true
}

func (m *market) schedule(c *cluster) {
	c.waiting = slices.DeleteFunc(c.waiting, func(j *task) bool {
		n, k := c.room(j)
		if n == nil {
			return false
		}
		n.free[k][0] -= j.cpus
		n.free[k][1] -= j.memory
		c.running++
		wait := m.now.Sub(j.at)
		m.waits = append(m.waits, wait.Seconds())
		m.slow = append(m.slow, max(1, (wait+j.run).Seconds()/max(j.run.Seconds(), 10)))
		if b := j.by; b != m.home {
			b.measured.Wait = (b.measured.Wait*3 + wait) / 4
			b.measured.Jobs++
			b.measured.Success, b.measured.Speed = 1, 1
		}
		m.after(j.run, func() {
			n.free[k][0] += j.cpus
			n.free[k][1] += j.memory
			c.running--
			if j.by != m.home {
				j.by.given--
			}
			m.schedule(c)
		})
		return true
	})
}

// show has a domain tell the origin what changed.
func (m *market) show(b *bourse) {
	d := resourcemodel.Delta{Revision: 1, At: m.now}
	if b.shown != nil {
		d.Revision = b.shown.Revision() + 1
	} else {
		b.shown = resourcemodel.Empty()
	}
	for _, c := range b.sites {
		c.refresh(m)
		d.Changes = append(d.Changes, resourcemodel.Change{Key: resourcemodel.Key{Site: c.name}, Static: c.static, Dynamic: c.dynamic})
	}
	var err error
	if b.shown, err = b.shown.Apply(d); err != nil {
		m.t.Fatal(err)
	}
	if err := b.exporter.Show(b.shown, m.detail); err != nil {
		m.t.Fatal(err)
	}
	m.tell(b, b.exporter.Push())
}

// tell passes messages through the XML and counts them.
func (m *market) tell(b *bourse, list []wire.Message) {
	for _, x := range list {
		changes, answers, err := b.importer.Take(m.weigh(x))
		if err != nil {
			m.t.Fatal(err)
		}
		m.apply(changes)
		for _, a := range answers {
			m.ask(b, a)
		}
	}
}

func (m *market) ask(b *bourse, x wire.Message) {
	switch x := m.weigh(x).(type) {
	case *wire.Pull:
		m.tell(b, b.exporter.Pull(x))
	case *wire.Compare:
		m.tell(b, b.exporter.Compare(x))
	}
}

func (m *market) weigh(x wire.Message) wire.Message {
	e, err := wire.Encode(x)
	if err != nil {
		m.t.Fatal(err)
	}
	bytes := xmldoc.Marshal(e)
	m.bytes += len(bytes)
	m.messages++
	doc, err := xmldoc.ReadBytes(bytes, xmldoc.Limits{})
	if err != nil {
		m.t.Fatal(err)
	}
	if x, err = wire.Decode(doc, doc.Root()); err != nil {
		m.t.Fatal(err)
	}
	return x
}

func (m *market) apply(changes []resourcemodel.Change) {
	if len(changes) == 0 {
		return
	}
	next, err := m.model.Apply(resourcemodel.Delta{Revision: m.model.Revision() + 1, At: m.now, Changes: changes})
	if err != nil {
		m.t.Fatal(err)
	}
	m.model = next
}

// place routes a job as the origin would.
func (m *market) place(j *task) {
	c := m.home.sites[0]
	c.refresh(m)
	m.apply([]resourcemodel.Change{{Key: resourcemodel.Key{Site: c.name}, Static: c.static, Dynamic: c.dynamic}})
	s := routing.Situation{
		Own: m.home.name, Snapshot: m.model, Request: demand(m.t, j), Derived: resourcemodel.Derived{Now: m.now}, Hops: 1, Overflowing: m.home.over,
	}
	for _, b := range m.others {
		s.Peers = append(s.Peers, routing.Peer{Domain: b.name, Role: routing.Equal, Measured: b.measured, Given: b.given})
	}
	d := routing.Route(s, routing.Policy{Overload: 30 * time.Second, Recover: 5 * time.Second, Hop: marketHop, Typical: 2 * time.Minute}.EnsureDefaults())
	m.home.over = d.Overflowing
	m.offer(j, d.Choices)
}

// offer asks the domains in the order of the decision.
func (m *market) offer(j *task, choices []routing.Choice) {
	if len(choices) == 0 {
		m.unplaced++
		return
	}
	if choices[0].Domain == "" {
		if !m.take(m.home, j) {
			m.offer(j, choices[1:])
		}
		return
	}
	b := m.others[slices.IndexFunc(m.others, func(b *bourse) bool { return b.name == choices[0].Domain })]
	m.after(marketHop, func() {
		if !m.take(b, j) {
			m.refusals++
			m.offer(j, choices[1:])
		}
	})
}

var demands = map[[2]int]*resourcemodel.Request{}

// demand is the request of a job of so many CPUs and so much memory on one node.
func demand(t testing.TB, j *task) *resourcemodel.Request {
	t.Helper()
	k := [2]int{j.cpus, j.memory}
	if r := demands[k]; r != nil {
		return r
	}
	bound := func(name string, n int) string {
		return fmt.Sprintf("<j:%s><j:LowerBoundedRange>%d</j:LowerBoundedRange></j:%s>", name, n, name)
	}
	doc := `<j:JobDefinition xmlns:j="` + jsdl.NS + `" xmlns:p="` + jsdl.NSPOSIX + `"><j:JobDescription><j:Application><p:POSIXApplication><p:Executable>/bin/true</p:Executable></p:POSIXApplication></j:Application><j:Resources>` +
		bound("IndividualCPUCount", j.cpus) + bound("IndividualPhysicalMemory", j.memory<<30) + bound("TotalCPUCount", j.cpus) + `</j:Resources></j:JobDescription></j:JobDefinition>`
	def, problems := jsdl.Parse([]byte(doc), jsdl.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	r, err := resourcemodel.Compile(def, resourcemodel.Subject{User: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	demands[k] = r
	return r
}

// run has so many jobs come.
func (m *market) run(jobs int) {
	for _, b := range m.others {
		b.shown = nil
		m.show(b)
		m.ask(b, b.importer.Pull())
	}
	work := rand.New(rand.NewPCG(m.rng.Uint64(), 1)) // the same jobs at each detail
	at := time.Duration(0)
	for range jobs {
		at += time.Duration(work.ExpFloat64() * float64(time.Second))
		kind := [][2]int{{1, 2}, {4, 8}, {8, 8}, {24, 16}, {2, 80}, {4, 30}, {24, 90}}[work.IntN(7)]
		j := &task{cpus: kind[0], memory: kind[1], run: min(time.Duration(math.Exp(4+work.NormFloat64())*float64(time.Second)), 30*time.Minute)}
		m.after(at, func() {
			j.at = m.now
			m.place(j)
		})
	}
	for _, b := range m.others {
		var push func()
		push = func() {
			m.show(b)
			if m.now.Before(start(jobs)) {
				m.after(pushEvery, push)
			}
		}
		m.after(time.Duration(m.rng.Int64N(int64(pushEvery))), push)
	}
	for len(m.events) > 0 {
		e := heap.Pop(&m.events).(marketEvent)
		m.now = e.at
		e.do()
	}
}

// start is when no more is pushed: the jobs have come.
func start(jobs int) time.Time {
	return time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC).Add(time.Duration(jobs) * time.Second)
}

func mean(list []float64) float64 {
	sum := 0.0
	for _, x := range list {
		sum += x
	}
	return sum / float64(max(len(list), 1))
}

// TestDetails compares what domains may show of themselves: FULL, CATEGORIZED, SIMPLE and
// nothing, on the same jobs: bytes, and how good places become by it.
func TestDetails(t *testing.T) {
	const jobs, seeds = 600, 3
	type sum struct {
		bytes, messages, refusals, away, unplaced int
		wait, slow                                float64
	}
	got := map[resourcemodel.Detail]*sum{}
	for _, d := range []resourcemodel.Detail{resourcemodel.Full, resourcemodel.Categorized, resourcemodel.Simple, resourcemodel.None} {
		s := &sum{}
		for seed := range uint64(seeds) {
			m := newMarket(t, seed+1, d)
			m.run(jobs)
			s.bytes, s.messages, s.refusals, s.away, s.unplaced = s.bytes+m.bytes, s.messages+m.messages, s.refusals+m.refusals, s.away+m.away, s.unplaced+m.unplaced
			s.wait += mean(m.waits) / seeds
			s.slow += mean(m.slow) / seeds
			if len(m.waits)+m.unplaced != jobs {
				t.Errorf("%s: %d jobs of %d began", d, len(m.waits), jobs)
			}
		}
		got[d] = s
		t.Logf("%-12s %9d bytes in %5d messages; of %d jobs %4d ran at others, %4d were refused on the way, %4d had no place; wait %6.1f s, bounded slowdown %6.2f on average",
			d, s.bytes, s.messages, jobs*seeds, s.away, s.refusals, s.unplaced, s.wait, s.slow)
	}
	full, middle, simple, none := got[resourcemodel.Full], got[resourcemodel.Categorized], got[resourcemodel.Simple], got[resourcemodel.None]
	if !(none.bytes < simple.bytes && simple.bytes < middle.bytes && middle.bytes < full.bytes) {
		t.Error("less is shown, and it does not cost less")
	}
	if full.refusals > 0 {
		t.Errorf("%d jobs were sent to where all is shown and nothing fits", full.refusals)
	}
	if middle.refusals > simple.refusals {
		t.Error("what shows more has more refusals")
	}
	for d, s := range got {
		if d != resourcemodel.None && !(s.slow < none.slow/2) {
			t.Errorf("%s: a slowdown of %.2f, and %.2f without peers", d, s.slow, none.slow)
		}
	}
}
