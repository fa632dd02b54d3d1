package showing

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/peers/exchange"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// half is one gateway: a model in a store of its own, and what it shows.
type half struct {
	domain string
	model  *modelstore.Model
	sess   store.Session
	s      *Showing
	state  session.State
	items  []wire.Message // delivered and not yet taken
}

// world is two gateways with a session between them, driven by hand: messages arrive at
// the next step, or are lost.
type world struct {
	t     *testing.T
	mu    sync.Mutex
	sides [2]*half
	now   time.Time
	next  []func()
	rng   *rand.Rand
	loss  float64
	bytes int
	ids   uint64
	wait  map[uint64]func(wire.Message, *wire.Fault)
}

// Put implements Link.
type link struct {
	w *world
	k int
}

func (l link) Put(_ string, items ...wire.Message) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	h := l.w.sides[l.k]
	if h.state.Room() < len(items) {
		return fail.Errorf("Put", fail.Exhausted, "", "no room")
	}
	for _, m := range items {
		l.w.bytes += wire.Size(m)
	}
	l.w.step(l.k, session.Put{Items: items})
	return nil
}

func newWorld(t *testing.T, seed uint64, to To) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC), rng: rand.New(rand.NewPCG(seed, 1)), wait: map[uint64]func(wire.Message, *wire.Fault){}}
	for k, domain := range []string{"north", "south"} {
		st := mem.New()
		m, err := modelstore.Open(t.Context(), st, modelstore.Options{Domain: domain, Interval: -1, DeadBand: -1})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = m.Run(ctx) })
		sess, err := st.Join(t.Context(), "gateway")
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Options{Domain: domain, Model: m, Link: link{w, k}, Now: func() time.Time { return w.now }})
		if err != nil {
			t.Fatal(err)
		}
		h := &half{domain: domain, model: m, sess: sess, s: s}
		s.SetPeers(map[string]To{[]string{"south", "north"}[k]: to})
		s.Begin(sess) // its loop is driven by hand
		w.sides[k] = h
		t.Cleanup(func() { cancel(); wg.Wait(); _ = sess.Close(); _ = st.Close() })
	}
	w.open()
	return w
}

// open opens a session anew.
func (w *world) open() {
	config := func(domain, endpoint string) session.Config {
		return session.Config{Party: wire.Party{Domain: domain, Endpoint: endpoint, Role: wire.Peer, Shows: wire.Full}, Instance: domain, Beat: 5 * time.Second, Lost: 40 * time.Second, Window: 64, Features: wire.Features()}
	}
	a, b := config("north", ""), config("south", "https://south.example/peer")
	w.ids++
	open := a.Open(fmt.Sprintf("s%d", w.ids), w.now)
	opened, theirs, err := b.Accept(open, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	ours, err := a.Accepted(open, opened)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.next = nil
	clear(w.wait)
	w.sides[0].state, w.sides[1].state = session.New(a, ours, w.now), session.New(b, theirs, w.now)
	w.sides[0].items, w.sides[1].items = nil, nil
	w.mu.Unlock()
	w.sides[0].s.Opened("south", ours)
	w.sides[1].s.Opened("north", theirs)
}

func (w *world) send(do func()) {
	if w.rng.Float64() >= w.loss {
		w.next = append(w.next, do)
	}
}

// step is called with w.mu held.
func (w *world) step(k int, in session.Input) {
	me := w.sides[k]
	var outs []session.Output
	me.state, outs = me.state.Step(in, w.now)
	for _, o := range outs {
		switch o := o.(type) {
		case session.Ask:
			w.send(func() {
				w.ids++
				id := w.ids
				w.wait[id] = func(m wire.Message, f *wire.Fault) {
					w.send(func() {
						if f != nil {
							w.step(k, session.Failed{ID: o.ID, Fault: f})
						} else {
							w.step(k, session.Response{ID: o.ID, Message: m})
						}
					})
				}
				w.step(1-k, session.Request{ID: id, Message: o.Message})
			})
		case session.Reply:
			if answer := w.wait[o.ID]; answer != nil {
				delete(w.wait, o.ID)
				answer(o.Message, o.Fault)
			}
		case session.Deliver:
			me.items = append(me.items, o.Items...)
			w.step(k, session.Done{Upto: o.First + uint64(len(o.Items)) - 1})
		case session.Rejected:
			w.t.Fatal(o.Err)
		case session.Turn, session.Free, session.Draining:
		}
	}
}

// run lets time pass, and each side do what is due.
func (w *world) run(d time.Duration) {
	const tick = 200 * time.Millisecond
	for end := w.now.Add(d); w.now.Before(end); {
		w.mu.Lock()
		w.now = w.now.Add(tick)
		now := w.next
		w.next = nil
		for _, do := range now {
			do()
		}
		for k, h := range w.sides {
			if at, ok := h.state.Wake(); ok && !at.After(w.now) {
				w.step(k, session.Tick{})
			}
		}
		w.mu.Unlock()
		for k, h := range w.sides {
			w.mu.Lock()
			items := h.items
			h.items = nil
			w.mu.Unlock()
			if len(items) > 0 {
				if err := h.s.Deliver(w.t.Context(), w.sides[1-k].domain, items, nil); err != nil {
					w.t.Fatal(err)
				}
			}
			h.s.tick(w.t.Context(), w.now)
		}
	}
}

func (h *half) feed(t *testing.T, site string, cpus, free int) {
	t.Helper()
	st := &resourcemodel.Static{
		Stamp: resourcemodel.Stamp{Source: "test"}, Type: "fake", Shares: []resourcemodel.Share{{ID: "all", Environments: []string{"node"}, Slots: 100}},
		Environments: []resourcemodel.Environment{{ID: "node", CPUs: cpus}},
	}
	d := &resourcemodel.Dynamic{
		Stamp: resourcemodel.Stamp{Source: "test"}, Up: true, Shares: map[string]resourcemodel.ShareState{"all": {Open: true, FreeSlots: free}},
		Environments: map[string]resourcemodel.EnvironmentState{"node": {Nodes: 100, Available: 100, FreeCPUs: free}},
	}
	at, err := h.model.Feed(t.Context(), h.sess, resourcemodel.Key{Site: site}, st, d)
	if err == nil {
		err = h.model.Reached(t.Context(), at)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.s.mu.Lock()
	h.s.changed = true
	h.s.mu.Unlock()
}

// records gives the bytes of all sites of a domain, as a model has them.
func (h *half) records(t *testing.T, domain string) map[string]string {
	t.Helper()
	out := map[string]string{}
	if domain == "" {
		m, err := routing.Export(h.model.Snapshot(), h.domain, nil, routing.Peer{Domain: "x"}, routing.Exporting{})
		if err != nil {
			t.Fatal(err)
		}
		for site := range m.Sites() {
			out[site.Key.Site] = text(t, site)
		}
		return out
	}
	for _, site := range h.model.Written(domain) {
		out[site.Key.Site] = text(t, site)
	}
	return out
}

func text(t *testing.T, s *resourcemodel.Site) string {
	t.Helper()
	a, err := s.Static.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Dynamic.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(a) + "\n" + string(b)
}

// agree reports where what a side shows and what the other has of it are not the same.
func (w *world) agree() error {
	for k, h := range w.sides {
		want, got := h.records(w.t, ""), w.sides[1-k].records(w.t, h.domain)
		if len(want) != len(got) {
			return fmt.Errorf("%s shows %d sites, and %d are known of it", h.domain, len(want), len(got))
		}
		for name, text := range want {
			if got[name] != text {
				return fmt.Errorf("%s/%s is\n%s\nand not\n%s", h.domain, name, got[name], text)
			}
		}
	}
	return nil
}

// TestTheSameAfterCuts: over a session that loses messages, is cut for any time, and is opened
// anew by gateways that lost their memory, both models have the same to the byte, and what
// is said is in proportion to what changed.
func TestTheSameAfterCuts(t *testing.T) {
	for seed := range uint64(3) {
		w := newWorld(t, seed, To{})
		for i := range 200 {
			w.sides[0].feed(t, fmt.Sprintf("n%03d", i), 4, i)
		}
		w.sides[1].feed(t, "s", 8, 3)
		w.run(10 * time.Second)
		if err := w.agree(); err != nil {
			t.Fatal(err)
		}
		full := w.bytes
		for range 6 {
			before := w.bytes
			w.loss = []float64{0.3, 1}[w.rng.IntN(2)]
			n := 1 + w.rng.IntN(3)
			for range n {
				w.sides[0].feed(t, fmt.Sprintf("n%03d", w.rng.IntN(200)), 4+w.rng.IntN(2), w.rng.IntN(100))
			}
			w.run(time.Duration(1+w.rng.IntN(100)) * time.Second)
			w.loss = 0
			if w.rng.IntN(2) == 0 { // the importer begins anew, with what its store has
				s := w.sides[1].s
				s.mu.Lock()
				clear(s.peers)
				s.mu.Unlock()
				w.open()
			} else if phase, _, _ := w.sides[0].state.Phase(); phase == session.Closed {
				w.open()
			}
			w.run(90 * time.Second)
			if err := w.agree(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if said := w.bytes - before; said > full/4 {
				t.Errorf("seed %d: %d sites changed, and %d bytes were said, of %d for all", seed, n, said, full)
			}
		}
		if st, ok := w.sides[1].s.Status("north"); !ok || st.Sites != 200 || st.Problem != "" {
			t.Errorf("%+v", st)
		}
	}
}

// TestBounds: a peer that shows more than it may is told so, and the model keeps what it had.
func TestBounds(t *testing.T) {
	w := newWorld(t, 1, To{MostSites: 3})
	for i := range 3 {
		w.sides[0].feed(t, fmt.Sprint("n", i), 4, i)
	}
	w.run(5 * time.Second)
	if err := w.agree(); err != nil {
		t.Fatal(err)
	}
	change := func(n int) []wire.Message {
		s := w.sides[0].model.Snapshot().Site(resourcemodel.Key{Site: "n0"})
		static, _ := s.Static.Encode()
		r := &wire.Resources{View: "other", To: 1, Detail: wire.Full}
		for i := range n {
			r.Changes = append(r.Changes, wire.SiteChange{Site: fmt.Sprint("x", i), Static: string(static)})
		}
		return []wire.Message{r}
	}
	before := w.sides[1].records(t, "north")
	if err := w.sides[1].s.Deliver(t.Context(), "north", change(4), nil); !fail.Is(err, fail.Exhausted) {
		t.Error(err)
	}
	if got := w.sides[1].records(t, "north"); len(got) != len(before) {
		t.Error(got)
	}
	// A peer that is taken away leaves nothing.
	w.sides[1].s.SetPeers(nil)
	w.sides[1].s.tick(t.Context(), w.now)
	if got := w.sides[1].records(t, "north"); len(got) != 0 {
		t.Error(got)
	}
}

// TestAskedWithoutEnd: a peer that asks for all we show without end, and takes none of it, has no more wait for
// it than once all; one that takes it has it again as time goes on, the last it asked for.
func TestAskedWithoutEnd(t *testing.T) {
	w := newWorld(t, 3, To{})
	h := w.sides[0]
	for i := range 40 {
		h.feed(t, fmt.Sprint("n", i), 4, i)
	}
	w.run(5 * time.Second)
	if err := w.agree(); err != nil {
		t.Fatal(err)
	}
	p := h.s.peers["south"]
	waits := func() (n, bytes int) {
		for _, m := range p.out {
			n, bytes = n+1, bytes+wire.Size(m)
		}
		return n, bytes
	}
	h.s.o.Link = nowhere{}
	ask := func(times int) {
		t.Helper()
		for i := range times {
			items := []wire.Message{&wire.Pull{}, &wire.Compare{View: "other", Revision: 1, Buckets: 16, Static: make([]byte, 128)}, &wire.Pull{Detail: []wire.Detail{wire.Simple, wire.Full}[i%2]}}
			if err := h.s.Deliver(t.Context(), "south", items, nil); err != nil {
				t.Fatal(err)
			}
			h.s.tick(t.Context(), w.now)
		}
	}
	ask(1)
	n, bytes := waits()
	if n == 0 {
		t.Fatal("nothing is to be sent")
	}
	ask(1000)
	if more, is := waits(); more != n || is > 4*bytes { // the detail may be another
		t.Errorf("%d messages of %d bytes wait, and after the first time %d of %d", more, is, n, bytes)
	}
	// With a peer that takes all at once it is a question of time.
	all := &everywhere{}
	h.s.o.Link = all
	h.s.tick(t.Context(), w.now)
	for range 50 {
		ask(100)
		w.now = w.now.Add(100 * time.Millisecond)
	}
	if all.whole < 5 || all.whole > limits.Pulls+5+2 {
		t.Errorf("all was told %d times in 5 s", all.whole)
	}
	w.now = w.now.Add(10 * time.Second)
	h.s.tick(t.Context(), w.now)
	if p.pull != nil || all.last != wire.Full {
		t.Errorf("the last that was asked for is not answered: %+v, %s", p.pull, all.last)
	}
}

// TestAskedAtOnce: what a peer asks for as soon as its session begins is answered, though the loop of the
// term has not begun yet: it asks once.
func TestAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, To{})
		h := w.sides[0]
		h.feed(t, "n", 4, 1)
		link := &everywhere{}
		s, err := New(Options{Domain: "north", Model: h.model, Link: link})
		if err != nil {
			t.Fatal(err)
		}
		s.SetPeers(map[string]To{"south": {}})
		s.Begin(h.sess)
		s.Opened("south", session.Agreement{Features: wire.Features()})
		if err := s.Deliver(t.Context(), "south", []wire.Message{&wire.Pull{}}, nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if link.whole != 1 {
			t.Errorf("all was told %d times", link.whole)
		}
	})
}

// nowhere is a link without room.
type nowhere struct{}

func (nowhere) Put(string, ...wire.Message) error {
	return fail.Errorf("Put", fail.Exhausted, "", "no room")
}

// everywhere is one that takes everything, and counts how often all is told.
type everywhere struct {
	whole int
	last  wire.Detail
}

func (e *everywhere) Put(_ string, items ...wire.Message) error {
	for _, m := range items {
		if r, ok := m.(*wire.Resources); ok && r.From == 0 && !r.More {
			e.whole++
			e.last = r.Detail
		}
	}
	return nil
}

// TestShutOut: a peer that shows more than it may is not heeded for a while, so that neither side goes round
// and round; then it is asked again, and what it shows by then is taken.
func TestShutOut(t *testing.T) {
	w := newWorld(t, 4, To{MostSites: 3})
	w.sides[0].feed(t, "n0", 4, 1)
	south := w.sides[1].s
	south.o.Link = &everywhere{}
	static := func() string {
		b, err := w.sides[0].model.Snapshot().Site(resourcemodel.Key{Site: "n0"}).Static.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}()
	show := func(view string, n int) error {
		r := &wire.Resources{View: view, To: 1, Detail: wire.Full}
		for i := range n {
			r.Changes = append(r.Changes, wire.SiteChange{Site: fmt.Sprint("x", i), Static: static})
		}
		return south.Deliver(t.Context(), "north", []wire.Message{r}, nil)
	}
	if err := show("a", 3); err != nil {
		t.Fatalf("as many as may be: %v", err)
	}
	if err := show("b", 4); !fail.Is(err, fail.Exhausted) {
		t.Fatalf("one more: %v", err)
	}
	st, _ := south.Status("north")
	if st.Problem == "" || len(south.o.Model.Written("north")) != 3 {
		t.Errorf("%+v", st)
	}
	if err := show("c", 1); err != nil || len(south.o.Model.Written("north")) != 3 {
		t.Errorf("what comes meanwhile is heeded: %v", err)
	}
	w.now = w.now.Add(limits.Retry)
	south.tick(t.Context(), w.now)
	if err := show("d", 2); err != nil || len(south.o.Model.Written("north")) != 2 {
		t.Errorf("it is not heeded again: %v", err)
	}
	if st, _ = south.Status("north"); st.Problem != "" {
		t.Error(st.Problem)
	}
}

// TestChildrenAreShown: a parent shows what its children have, and theirs, under their names.
func TestChildrenAreShown(t *testing.T) {
	stamp := resourcemodel.Stamp{Version: 1, Changed: time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC), Source: "test"}
	static := &resourcemodel.Static{
		Stamp: stamp, Type: "shell", Environments: []resourcemodel.Environment{{ID: "e", CPUs: 4}}, Shares: []resourcemodel.Share{{ID: "q", Environments: []string{"e"}}},
	}
	var changes []resourcemodel.Change
	for _, k := range []resourcemodel.Key{{Site: "own"}, {Domain: "leaf", Site: "deeper~s"}, {Domain: "leaf", Site: "s"}, {Domain: "other", Site: "s"}} {
		changes = append(changes, resourcemodel.Change{Key: k, Static: static})
	}
	m, err := resourcemodel.Empty().Apply(resourcemodel.Delta{Revision: 1, At: stamp.Changed, Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	for _, detail := range []resourcemodel.Detail{resourcemodel.Full, resourcemodel.Simple} {
		p := &peer{s: &Showing{o: Options{Domain: "north"}}, domain: "south", e: exchange.NewExporter("v")}
		if err := p.show(m, []string{"leaf"}, To{Exporting: routing.Exporting{Detail: detail}}); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, x := range p.e.Pull(&wire.Pull{Detail: wire.Full}) {
			if r, ok := x.(*wire.Resources); ok {
				for _, c := range r.Changes {
					names = append(names, c.Site)
				}
			}
		}
		if got := fmt.Sprint(names); got != "[leaf~deeper~s leaf~s own]" {
			t.Errorf("%s: %s is shown", detail, got)
		}
	}
}
