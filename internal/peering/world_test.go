package peering

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a few domains in one process, over links in memory.
type world struct {
	t     testing.TB
	mu    sync.Mutex
	gates map[string]*gate
	links map[[2]string]*link // by sender and receiver
	terms wire.Terms
	bg    sync.WaitGroup
	quit  chan struct{}

	tables    func(domain string) *peers.Table // real ones, in place of links
	unchecked bool                             // whether what is sent can be written
}

// gate is one domain: its store and its broker outlive its engine.
type gate struct {
	w      *world
	domain string
	store  Store
	jobs   *brokerTwin
	book   *bookTwin
	refuse func(from string, r *wire.Route) error
	*Engine
	cancel context.CancelFunc
	done   chan error
}

// testTerms are those of all sessions of a world.
var testTerms = wire.Terms{Lease: 10 * time.Minute, Skew: 5 * time.Second, StopWithin: 30 * time.Second, Resend: 10 * time.Second, Keep: time.Hour}

func newWorld(t testing.TB, domains ...string) *world {
	w := &world{t: t, gates: map[string]*gate{}, links: map[[2]string]*link{}, terms: testTerms, quit: make(chan struct{})}
	for _, d := range domains {
		st := mem.New()
		t.Cleanup(func() { _ = st.Close() })
		w.gates[d] = &gate{w: w, domain: d, store: st, jobs: newBrokerTwin(), book: &bookTwin{owes: map[string]bool{}}}
	}
	return w
}

// start starts the engine of a domain, and waits until it serves.
func (g *gate) start() { <-g.launch() }

// launch starts it, and gives what is closed when it serves.
func (g *gate) launch() <-chan struct{} {
	g.w.t.Helper()
	serving := make(chan struct{})
	var once sync.Once
	e, err := New(Options{
		Domain: g.domain, Store: g.store, Link: sender{g.w, g.domain}, Jobs: g.jobs, Gate: g, Book: g.book,
		Serve: func(ctx context.Context, _ store.Session) error {
			once.Do(func() { close(serving) })
			<-ctx.Done()
			return nil
		},
	})
	if err != nil {
		g.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.w.mu.Lock()
	g.Engine, g.cancel, g.done = e, cancel, make(chan error, 1)
	g.w.mu.Unlock()
	done := g.done
	go func() { done <- e.Run(ctx) }()
	return serving
}

// stop ends it as kindly as an engine ends.
func (g *gate) stop() {
	g.w.t.Helper()
	g.w.mu.Lock()
	e := g.Engine
	g.Engine = nil
	g.w.mu.Unlock()
	if e == nil {
		return
	}
	for k, l := range g.w.links {
		if k[0] == g.domain || k[1] == g.domain {
			l.drop()
		}
	}
	g.cancel()
	if err := <-g.done; err != nil {
		g.w.t.Errorf("%s: Run: %v", g.domain, err)
	}
}

func (g *gate) engine() *Engine {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.Engine
}

// Admit implements Gate.
func (g *gate) Admit(_ context.Context, from string, r *wire.Route, _ int) (Admitted, error) {
	if g.refuse != nil {
		if err := g.refuse(from, r); err != nil {
			return Admitted{}, err
		}
	}
	return Admitted{Owner: "guest-of-" + from, Account: "guest", VO: r.VO}, nil
}

// connect makes links between two domains and opens their session.
func (w *world) connect(a, b string) {
	for _, p := range [][2]string{{a, b}, {b, a}} {
		if w.links[p] == nil {
			w.links[p] = newLink(w, p[0], p[1])
		}
	}
	w.open(a, b)
}

// open opens the session again.
func (w *world) open(a, b string) {
	for _, p := range [][2]string{{a, b}, {b, a}} {
		if e := w.gates[p[0]].engine(); e != nil {
			e.Opened(p[1], session.Agreement{Session: "s", Terms: w.terms, Features: []string{"output"}, Theirs: wire.Party{Domain: p[1], Provides: true, Consumes: true}})
		}
	}
}

// lose ends the session, with what was not delivered.
func (w *world) lose(a, b string) {
	for _, p := range [][2]string{{a, b}, {b, a}} {
		w.links[p].drop()
		if e := w.gates[p[0]].engine(); e != nil {
			e.Closed(p[1], wire.Forgotten, "it was cut in a test")
		}
	}
}

func (w *world) close() {
	close(w.quit)
	w.bg.Wait()
	for _, g := range w.gates {
		g.stop()
	}
	for _, l := range w.links {
		l.close()
	}
	for _, g := range w.gates {
		g.jobs.close()
	}
}

// sender is the Link of a domain.
type sender struct {
	w    *world
	from string
}

func (s sender) Put(to string, items ...wire.Message) error {
	s.w.mu.Lock()
	tables := s.w.tables
	s.w.mu.Unlock()
	if tables != nil {
		return tables(s.from).Put(to, items...)
	}
	l := s.w.links[[2]string{s.from, to}]
	if l == nil {
		return fail.Errorf("test.Put", fail.NotFound, to, "there is no such peer")
	}
	return l.put(items)
}

// link is one direction between two domains: in order, once, after a while.
type link struct {
	w        *world
	from, to string
	mu       sync.Mutex
	queue    []wire.Message
	wake     chan struct{}
	quit     chan struct{}
	over     chan struct{}
	count    int
	busy     func() bool // puts are refused
	seen     func(wire.Message)
}

const latency = time.Millisecond

func newLink(w *world, from, to string) *link {
	l := &link{w: w, from: from, to: to, wake: make(chan struct{}, 1), quit: make(chan struct{}), over: make(chan struct{})}
	go l.run()
	return l
}

func (l *link) put(items []wire.Message) error {
	// What can't be written must not be sent.
	for i, m := range items {
		if l.w.unchecked {
			break
		}
		_, err := wire.Encode(&wire.Exchange{Frame: wire.Frame{Session: "s", Number: 1, Sent: 1, Clock: time.Unix(1, 0), First: 1, Items: items[i : i+1]}})
		if err != nil {
			l.w.t.Errorf("%s sends to %s what can't be written: %#v: %v", l.from, l.to, m, err)
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy != nil && l.busy() {
		return fail.Errorf("test.Put", fail.Exhausted, l.to, "there is no room")
	}
	for _, m := range items {
		if l.seen != nil {
			l.seen(m)
		}
	}
	l.queue = append(l.queue, items...)
	l.count += len(items)
	nudge(l.wake)
	return nil
}

func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = nil
}

func (l *link) close() { close(l.quit); <-l.over }

func (l *link) run() {
	defer close(l.over)
	for {
		select {
		case <-l.quit:
			return
		case <-l.wake:
		}
		time.Sleep(latency)
		l.mu.Lock()
		items := l.queue
		l.queue = nil
		l.mu.Unlock()
		if e := l.w.gates[l.to].engine(); e != nil && len(items) > 0 {
			done := make(chan struct{})
			e.Deliver(l.from, items, sync.OnceFunc(func() { close(done) }))
			if e.served() {
				select {
				case <-done:
				case <-l.quit:
				case <-time.After(time.Hour):
					l.w.t.Errorf("what %s said to %s was never done with", l.from, l.to)
				}
			}
		}
	}
}

func (e *Engine) served() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.term != nil
}

// bookTwin is a ledger that knows what is owed.
type bookTwin struct {
	mu     sync.Mutex
	owes   map[string]bool
	earned []handover.Charge
}

func (b *bookTwin) Load(context.Context) error { return nil }

func (b *bookTwin) Owes(provider string, k handover.Key, t handover.Token) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.owes[provider+" "+k.String()+"#"+string(t)]
}

func (b *bookTwin) Charge(owe, earn []handover.Charge) ([]store.RecordChange, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []store.RecordChange
	for _, c := range owe {
		b.owes[c.Provider+" "+c.Key.String()+"#"+string(c.Token)] = true
		out = append(out, store.RecordChange{Key: "peers/ledger/" + store.Segment(c.Provider+c.Key.String()+string(c.Token)), Value: []byte("{}"), If: -1})
	}
	b.earned = append(b.earned, earn...)
	return out, nil
}

// brokerTwin is the broker's side: jobs run as their documents say. It outlives engines.
type brokerTwin struct {
	mu      sync.Mutex
	jobs    map[string]*twinJob // by submission
	starts  map[string]int      // how often each copy was begun to run
	watch   map[int]chan []State
	onward  func(activity string, g Given) bool // the broker places it elsewhere
	outputs map[string]string
	trouble func(op string) error

	waitsFor string // what jobs that do not run wait for
}

type twinJob struct {
	g        Given
	st       State
	script   string
	timer    *time.Timer
	lease    *time.Timer
	left     time.Duration
	since    time.Time
	notAfter time.Time
	away     bool // it is at a peer
}

func newBrokerTwin() *brokerTwin {
	return &brokerTwin{jobs: map[string]*twinJob{}, starts: map[string]int{}, watch: map[int]chan []State{}, outputs: map[string]string{}}
}

var scripts = regexp.MustCompile(`fake:([^<]*)<`)

func (b *brokerTwin) Start(_ context.Context, gs ...Given) []Started {
	out := make([]Started, len(gs))
	for i, g := range gs {
		out[i].State, out[i].Err = b.start(g)
	}
	return out
}

func (b *brokerTwin) start(g Given) (State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.trouble != nil {
		if err := b.trouble("start"); err != nil {
			return State{}, err
		}
	}
	if j := b.jobs[g.Submission()]; j != nil {
		return j.st, nil
	}
	m := scripts.FindStringSubmatch(g.Document)
	if m == nil || strings.Contains(m[1], "unfit") {
		return State{}, fail.Errorf("twin.Start", fail.Unsupported, "", "no site can run it")
	}
	j := &twinJob{g: g, script: m[1], notAfter: g.NotAfter}
	j.st = State{Activity: b.Activity(g.Copy, g.Since), Status: handover.IsPlaced, Site: "local"}
	b.jobs[g.Submission()] = j
	for f := range strings.FieldsSeq(strings.ReplaceAll(m[1], ";", " ")) {
		if d, err := time.ParseDuration(f); err == nil {
			j.left = d
		}
	}
	j.lease = time.AfterFunc(time.Until(g.NotAfter), func() { b.expire(j) })
	if b.onward != nil && b.onward(j.st.Activity, g) {
		j.away = true
		return j.st, nil
	}
	b.run(j)
	return j.st, nil
}

func (b *brokerTwin) Reasons(ids ...string) map[string]broker.ForeignReason {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]broker.ForeignReason{}
	for _, id := range ids {
		if j := b.job(id); j != nil && b.waitsFor != "" {
			out[id] = broker.ForeignReason{Sentence: b.waitsFor}
		}
	}
	return out
}

func (b *brokerTwin) run(j *twinJob) {
	if strings.Contains(j.script, "queue") {
		return
	}
	b.starts[j.g.Submission()]++
	if j.st.Began {
		b.starts[j.g.Submission()]-- // it goes on
	}
	j.st.Began, j.st.Status, j.since = true, handover.IsRunning, time.Now()
	if !strings.Contains(j.script, "hang") {
		j.timer = time.AfterFunc(j.left, func() { b.finish(j) })
	}
	b.tell(j)
}

func (b *brokerTwin) tell(j *twinJob) {
	for _, c := range b.watch {
		select {
		case c <- []State{j.st}:
		default:
			panic("the engine does not watch")
		}
	}
}

func (b *brokerTwin) end(j *twinJob, st handover.Status, r *handover.Result, reason string) {
	if j.st.Status == handover.IsEnded || j.st.Status == handover.IsReturned {
		return
	}
	j.lease.Stop()
	if j.timer != nil {
		j.timer.Stop()
	}
	if j.st.Began {
		j.st.Used = handover.CPU(1, time.Since(j.since))
	}
	j.st.Status, j.st.Result, j.st.Reason = st, r, reason
	b.tell(j)
}

func (b *brokerTwin) finish(j *twinJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j.st.Status != handover.IsRunning {
		return
	}
	r := &handover.Result{Outcome: handover.Finished}
	if i := strings.Index(j.script, "exit "); i >= 0 {
		r.ExitCode, _ = strconv.Atoi(j.script[i+5:])
	}
	b.end(j, handover.IsEnded, r, "")
}

func (b *brokerTwin) expire(j *twinJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Now().Before(j.notAfter) {
		j.lease.Reset(time.Until(j.notAfter))
		return
	}
	b.end(j, handover.IsReturned, nil, "its lease is over")
}

func (b *brokerTwin) Activity(c Copy, since time.Time) string {
	return broker.ForeignID(since, c.Submission())
}

func (b *brokerTwin) job(activity string) *twinJob {
	for _, j := range b.jobs {
		if j.st.Activity == activity {
			return j
		}
	}
	return nil
}

func (b *brokerTwin) States(_ context.Context, ids ...string) ([]State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []State
	for _, id := range ids {
		if j := b.job(id); j != nil {
			out = append(out, j.st)
		}
	}
	return out, nil
}

func (b *brokerTwin) Stop(_ context.Context, activity, _ string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.job(activity)
	if j == nil {
		return fail.Errorf("twin.Stop", fail.NotFound, "", "it is not here")
	}
	if !j.away {
		b.end(j, handover.IsReturned, nil, "terminated as asked")
	}
	return nil
}

func (b *brokerTwin) Hold(_ context.Context, activity string, held bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.job(activity)
	switch {
	case j == nil:
		return fail.Errorf("twin.Hold", fail.NotFound, "", "it is not here")
	case held && j.st.Status == handover.IsRunning:
		if j.timer != nil {
			j.timer.Stop()
		}
		j.left -= time.Since(j.since)
		j.st.Status = handover.IsSuspended
		b.tell(j)
	case held && j.st.Status == handover.IsPlaced:
		j.st.Status = handover.IsSuspended
		b.tell(j)
	case !held && j.st.Status == handover.IsSuspended:
		j.st.Status = handover.IsPlaced
		b.tell(j)
		b.run(j)
	}
	return nil
}

func (b *brokerTwin) Extend(_ context.Context, activity string, at time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.job(activity); j != nil && at.After(j.notAfter) {
		j.notAfter = at
	}
	return nil
}

func (b *brokerTwin) Output(_ context.Context, activity, stream string, offset int64, most int) ([]byte, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := false
	for _, j := range b.jobs {
		known = known || j.st.Activity == activity
	}
	if !known {
		return nil, false, fail.Errorf("twin.Output", fail.NotFound, activity, "there is no job %s of a peer here", activity)
	}
	s := b.outputs[activity+" "+stream]
	s = s[min(int(offset), len(s)):]
	more := false
	for _, j := range b.jobs {
		more = more || j.st.Activity == activity && j.st.Status == handover.IsRunning
	}
	return []byte(s[:min(len(s), most)]), more, nil
}

func (b *brokerTwin) Watch(ctx context.Context, emit func([]State)) error {
	c := make(chan []State, 100_000)
	b.mu.Lock()
	n := len(b.watch) + 1
	for b.watch[n] != nil {
		n++
	}
	b.watch[n] = c
	var all []State
	for _, j := range b.jobs {
		if j.st.Status != handover.IsEnded && j.st.Status != handover.IsReturned {
			all = append(all, j.st)
		}
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.watch, n)
	}()
	if len(all) > 0 {
		emit(all)
	}
	emit(nil)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-c:
			emit(s)
		}
	}
}

// became ends a job that the broker placed elsewhere, as the evidence says.
func (b *brokerTwin) became(activity string, e adapters.Evidence) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if j.st.Activity != activity || !j.away {
			continue
		}
		switch e.Phase { //nolint:exhaustive // others end nothing
		case adapters.Running:
			j.st.Status = handover.IsRunning
			b.tell(j)
		case adapters.Exited:
			j.away = false
			b.end(j, handover.IsEnded, &handover.Result{Outcome: handover.Finished, ExitCode: *e.ExitStatus}, "")
		case adapters.Cancelled:
			j.away = false
			b.end(j, handover.IsReturned, nil, e.Reason)
		case adapters.Lost, adapters.Stopped:
			j.away = false
			b.run(j) // here, then
		}
	}
}

func (b *brokerTwin) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		j.lease.Stop()
		if j.timer != nil {
			j.timer.Stop()
		}
	}
}

// runs gives the copies that ever ran, by key.
func (b *brokerTwin) runs(k handover.Key) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s, starts := range b.starts {
		if strings.HasPrefix(s, "peer:"+k.String()+"#") {
			n += starts
		}
	}
	return n
}

// definition gives a job for the twin.
func definition(script string) *jsdl.JobDefinition {
	d, ps := jsdl.Parse([]byte(`<jsdl:JobDefinition xmlns:jsdl="`+jsdl.NS+`" xmlns:p="`+jsdl.NSPOSIX+`"><jsdl:JobDescription>`+
		`<jsdl:Application><p:POSIXApplication><p:Executable>fake:`+script+`</p:Executable></p:POSIXApplication></jsdl:Application>`+
		`</jsdl:JobDescription></jsdl:JobDefinition>`), jsdl.Options{})
	if err := ps.Err(); err != nil {
		panic(err)
	}
	return d
}

// give gives a job to a peer.
func (g *gate) give(to, tag, script string) adapters.Placed {
	return g.Site(to).Submit(context.Background(), []adapters.Job{{Tag: adapters.Tag(tag), Definition: definition(script), Owner: "ada"}})[0]
}

func (g *gate) look(h adapters.Handle) adapters.Evidence {
	g.w.t.Helper()
	es, err := g.engine().status([]adapters.Handle{h})
	if err != nil {
		g.w.t.Fatal(err)
	}
	return es[0]
}

// until waits for a phase, in virtual time.
func (g *gate) until(h adapters.Handle, phases ...adapters.Phase) adapters.Evidence {
	g.w.t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		e := g.look(h)
		if slices.Contains(phases, e.Phase) {
			return e
		}
		if e.Phase.Final() || time.Since(began) > 3*time.Hour {
			g.w.t.Fatalf("it is %v (%s) after %v, want %v", e.Phase, e.Reason, time.Since(began), phases)
		}
	}
}
