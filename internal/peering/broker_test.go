package peering

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/resourcemodel"
)

// viewTwin shows each peer as a large machine.
type viewTwin struct{}

func (viewTwin) Check(string, *jsdl.JobDefinition) error { return nil }

func (viewTwin) Resources(context.Context, string) (adapters.Resources, error) {
	return adapters.Resources{
		Static: 1, Dynamic: 1,
		Environments: []adapters.Environment{{ID: "all", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: 1024, Memory: 1 << 40, VirtualMemory: 1 << 40, Disk: 1 << 40, Nodes: 4, Available: 4, FreeCPUs: 4096}},
		Shares:       []adapters.Share{{ID: "all", Default: true, Environments: []string{"all"}, Slots: 100_000, Open: true, FreeSlots: 100_000}},
	}, nil
}

// house is a domain with everything: a broker with a site of its own and peers as others.
type house struct {
	*gate
	st      store.Store
	world   *fake.World
	broker  *broker.Broker
	sites   []string
	running chan error
	shown   sync.WaitGroup
	bench   bool
}

// lateJobs is the broker's side for an engine that is made before the broker.
type lateJobs struct{ Jobs }

func newHouse(w *world, domain string, slots int, peers ...string) *house {
	st := mem.New()
	w.gates[domain] = &gate{w: w, domain: domain, store: st, book: &bookTwin{owes: map[string]bool{}}}
	return &house{gate: w.gates[domain], st: st, world: fake.NewWorld(slots), sites: peers}
}

// open starts broker and engine, as a process does.
func (h *house) open(t testing.TB) {
	t.Helper()
	late := new(lateJobs)
	serving := make(chan struct{})
	e, err := New(Options{
		Domain: h.domain, Store: h.store, Link: sender{h.w, h.domain}, Jobs: late, Gate: h.gate, Book: h.book, View: viewTwin{},
		Serve: func(ctx context.Context, _ store.Session) error {
			close(serving)
			<-ctx.Done()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := broker.Config{
		Store: h.st, Domain: h.domain, BaseURL: func() string { return "http://" + h.domain + "/bes" }, Jitter: func() float64 { return 0.5 },
		Sites: []broker.Site{{Name: "local", Adapter: h.world.Open(fake.Options{Bulk: h.bench})}}, Alone: h.bench,
	}
	ctx, cancel := context.WithCancel(context.Background())
	model, err := modelstore.Open(ctx, h.st, modelstore.Options{Domain: h.domain})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Model = model
	for _, p := range h.sites {
		cfg.Sites = append(cfg.Sites, broker.Site{Name: p, Adapter: e.Site(p)})
	}
	b, err := broker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	late.Jobs = OfBroker(b)
	h.broker = b
	h.w.mu.Lock()
	h.Engine, h.cancel, h.done = e, cancel, make(chan error, 1)
	h.w.mu.Unlock()
	h.running = make(chan error, 1)
	done := h.done
	go func() { done <- e.Run(ctx) }()
	go func() { h.running <- b.Run(ctx) }()
	h.shown.Go(func() { _ = model.Run(ctx) })
	<-serving
	<-b.Ready()
	h.show(t, ctx, model)
}

// show has the peers in the model, as large machines, and tells the broker that they stand by.
func (h *house) show(t testing.TB, ctx context.Context, model *modelstore.Model) {
	t.Helper()
	sess, err := h.st.Join(ctx, "shows")
	if err != nil {
		t.Fatal(err)
	}
	stamp := resourcemodel.Stamp{Source: "test"}
	standing := &broker.Peering{Own: h.domain, Policy: routing.Policy{}, Peers: map[string]broker.Standing{}}
	var changes []resourcemodel.Change
	for _, p := range h.sites {
		standing.Peers[p] = broker.Standing{Role: routing.Equal}
		changes = append(changes, resourcemodel.Change{
			Key: resourcemodel.Key{Domain: p, Site: "local"},
			Static: &resourcemodel.Static{
				Stamp: stamp, Type: "fake", Shares: []resourcemodel.Share{{ID: "all", Environments: []string{"node"}, Slots: 100_000}}, Environments: []resourcemodel.Environment{{ID: "node", CPUs: 64}},
			},
			Dynamic: &resourcemodel.Dynamic{
				Stamp: stamp, Up: true, Shares: map[string]resourcemodel.ShareState{"all": {Open: true, FreeSlots: 100_000}},
				Environments: map[string]resourcemodel.EnvironmentState{"node": {Nodes: 2000, Available: 2000, FreeCPUs: 128_000}},
			},
		})
	}
	if _, _, err := model.Import(ctx, sess, changes); err != nil {
		t.Fatal(err)
	}
	if err := h.broker.SetPeers(standing); err != nil {
		t.Fatal(err)
	}
	h.shown.Go(func() {
		defer sess.Close()
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			for _, p := range h.sites {
				model.Confirm(p)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

func (h *house) shut(t testing.TB) {
	t.Helper()
	h.gate.stop()
	if err := <-h.running; err != nil {
		t.Error(err)
	}
	h.shown.Wait()
	h.broker.Close()
}

func as(name string) context.Context {
	return soap.WithPrincipal(context.Background(), soap.Principal{Name: name, Method: "none"})
}

func document(script string, hosts ...string) []byte {
	s := `<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:p="` + jsdl.NSPOSIX + `"><jsdl:JobDescription>` +
		`<jsdl:Application><p:POSIXApplication><p:Executable>fake:` + script + `</p:Executable></p:POSIXApplication></jsdl:Application>`
	if len(hosts) > 0 {
		s += `<jsdl:Resources><jsdl:CandidateHosts>`
		for _, h := range hosts {
			s += `<jsdl:HostName>` + h + `</jsdl:HostName>`
		}
		s += `</jsdl:CandidateHosts></jsdl:Resources>`
	}
	return []byte(s + `</jsdl:JobDescription></jsdl:JobDefinition>`)
}

func (h *house) submit(t testing.TB, script string, hosts ...string) soap.EPR {
	t.Helper()
	r, err := h.broker.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document(script, hosts...)})
	if err != nil {
		t.Fatalf("CreateActivity: %v", err)
	}
	return r.Activity
}

func (h *house) status(t testing.TB, a soap.EPR) bes.Status {
	t.Helper()
	rs, err := h.broker.GetActivityStatuses(as("ada"), &bes.StatusRequest{Activities: []soap.EPR{a}})
	if err != nil || rs[0].Err != nil {
		t.Fatal(err, rs)
	}
	return rs[0].Status
}

func (h *house) story(t testing.TB, a soap.EPR) string {
	lines, err := h.broker.GetActivityHistory(as("ada"), a)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s %s/%s %s %s#%d %s\n", l.Time.Format("15:04:05.000"), l.State, l.SubState, l.Event, l.Site, l.Attempt, l.Reason)
	}
	return b.String()
}

// await waits for a state, and a sub-state unless it is "".
func (h *house) await(t testing.TB, a soap.EPR, state bes.State, sub string) bes.Status {
	t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		s := h.status(t, a)
		if s.State == state && (sub == "" || len(s.SubStates) == 1 && s.SubStates[0].Local == sub) {
			return s
		}
		if s.State.Final() || time.Since(began) > 3*time.Hour {
			t.Fatalf("it is %s %v, want %s %s\n%s", s.State, s.SubStates, state, sub, h.story(t, a))
		}
	}
}

// starts gives how often jobs ran at the domain's own site.
func (h *house) starts() (n int) {
	for _, k := range h.world.Ledger() {
		n += k
	}
	return n
}

// street runs f with houses in a row, each with a site of its own and those beside it as peers.
func street(t *testing.T, slots []int, f func(t *testing.T, w *world, hs []*house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		names := []string{"a", "b", "c", "d"}[:len(slots)]
		hs := make([]*house, len(slots))
		for i, d := range names {
			var beside []string
			if i > 0 {
				beside = append(beside, names[i-1])
			}
			if i < len(names)-1 {
				beside = append(beside, names[i+1])
			}
			hs[i] = newHouse(w, d, slots[i], beside...)
		}
		for i := range names[1:] {
			w.connect(names[i], names[i+1])
		}
		for _, h := range hs {
			h.open(t)
		}
		for i := range names[1:] {
			w.open(names[i], names[i+1])
		}
		defer func() {
			close(w.quit)
			w.bg.Wait()
			for _, h := range hs {
				h.shut(t)
			}
			for _, l := range w.links {
				l.close()
			}
			for _, h := range hs {
				h.world.Close()
				_ = h.st.Close()
			}
		}()
		f(t, w, hs)
	})
}

func TestBrokers(t *testing.T) {
	street(t, []int{4, 4}, func(t *testing.T, _ *world, hs []*house) {
		a, b := hs[0], hs[1]
		j := a.submit(t, "out hello;sleep 300;exit 3", "b")
		s := a.await(t, j, bes.Running, "Executing")
		if !strings.HasPrefix(s.Details.Attributes["path"], "b@") || s.Details.Site != "b" {
			t.Errorf("it tells %+v", s.Details)
		}
		c, err := a.broker.GetActivityOutput(as("ada"), j, bes.Stdout, 0, 100)
		if err != nil || string(c.Data) != "hello\n" {
			t.Errorf("its output is %v, %v", c, err)
		}
		if s = a.await(t, j, bes.Finished, ""); *s.Details.ExitStatus != 3 || a.starts() != 0 || b.starts() != 1 {
			t.Errorf("it ended as %+v, and ran %d times at a, %d at b", s.Details, a.starts(), b.starts())
		}
		// It can be read later too.
		time.Sleep(time.Hour)
		if c, err = a.broker.GetActivityOutput(as("ada"), j, bes.Stdout, 0, 100); err != nil || string(c.Data) != "hello\n" || c.More {
			t.Errorf("its output is %v, %v", c, err)
		}
		// What it has ended has no record any more.
		if n := records(t, a.store, jobPrefix) + records(t, b.store, jobPrefix) + records(t, a.store, freightPrefix) + records(t, b.store, freightPrefix); n != 0 {
			t.Errorf("%d records are left", n)
		}
		if t.Failed() {
			t.Log(a.story(t, j))
		}
	})
}

func TestBrokersCancelAndSuspend(t *testing.T) {
	street(t, []int{1, 1}, func(t *testing.T, _ *world, hs []*house) {
		a, b := hs[0], hs[1]
		runs := a.submit(t, "sleep 3000", "b")
		a.await(t, runs, bes.Running, "Executing")
		waits := a.submit(t, "sleep 3000", "b")
		a.await(t, waits, bes.Running, "Submitted")
		steer := func(f func(context.Context, []soap.EPR) ([]bes.Result, error), j soap.EPR) {
			t.Helper()
			if rs, err := f(as("ada"), []soap.EPR{j}); err != nil || rs[0].Err != nil {
				t.Fatal(err, rs)
			}
		}
		steer(a.broker.SuspendActivities, waits)
		a.await(t, waits, bes.Running, "HeldAtSite")
		steer(a.broker.SuspendActivities, runs)
		a.await(t, runs, bes.Running, "Suspended")
		time.Sleep(time.Hour)
		a.await(t, runs, bes.Running, "Suspended")
		steer(a.broker.ResumeActivities, runs)
		a.await(t, runs, bes.Running, "Executing")
		steer(a.broker.ResumeActivities, waits)
		steer(a.broker.TerminateActivities, runs)
		a.await(t, runs, bes.Cancelled, "")
		a.await(t, waits, bes.Running, "Executing")
		steer(a.broker.TerminateActivities, waits)
		a.await(t, waits, bes.Cancelled, "")
		time.Sleep(time.Minute)
		if len(b.world.Ledger()) != 2 {
			t.Errorf("b ran %v", b.world.Ledger())
		}
	})
}

// TestBrokersThreeInARow: the job goes on from b to c, as b has no room of its own.
func TestBrokersThreeInARow(t *testing.T) {
	street(t, []int{1, 1, 4}, func(t *testing.T, _ *world, hs []*house) {
		a, b, c := hs[0], hs[1], hs[2]
		// b's own site does not run what is asked; c's does.
		b.world.Inject(func(op string, _ adapters.Tag) fake.Fault {
			if op == "check" {
				return fake.Fault{Err: errUnfit}
			}
			return fake.Fault{}
		})
		j := a.submit(t, "out far;sleep 1200;exit 5", "b")
		s := a.await(t, j, bes.Running, "Executing")
		if !strings.Contains(s.Details.Attributes["path"], "> c") {
			t.Errorf("the way is %q", s.Details.Attributes["path"])
		}
		o, err := a.broker.GetActivityOutput(as("ada"), j, bes.Stdout, 0, 100)
		if err != nil || string(o.Data) != "far\n" {
			t.Errorf("its output is %v, %v", o, err)
		}
		if s = a.await(t, j, bes.Finished, ""); *s.Details.ExitStatus != 5 || a.starts()+b.starts() != 0 || c.starts() != 1 {
			t.Errorf("it ended as %+v", s.Details)
		}
		if t.Failed() {
			t.Log(a.story(t, j))
		}
	})
}

// TestBrokersPartition: the peer is lost for good with a job that runs. It is placed elsewhere
// after the recall deadline, and its copy has ended by then.
func TestBrokersPartition(t *testing.T) {
	street(t, []int{4, 4, 4}, func(t *testing.T, w *world, hs []*house) {
		o := hs[1]
		j := o.submit(t, "sleep 3000;exit 6", "a", "c")
		s := o.await(t, j, bes.Running, "Executing")
		has, other := hs[0], hs[2]
		if s.Details.Site == "c" {
			has, other = other, has
		}
		time.Sleep(15 * time.Minute)
		w.lose("b", has.domain)
		err := o.broker.SetPeers(&broker.Peering{Own: "b", Peers: map[string]broker.Standing{has.domain: {Role: routing.Equal, Away: "it is cut off"}, other.domain: {Role: routing.Equal}}})
		if err != nil {
			t.Fatal(err)
		}
		e := o.engine()
		e.mu.Lock()
		var at time.Time
		for _, x := range e.jobs {
			at, _ = x.job.ElsewhereAt()
		}
		e.mu.Unlock()
		time.Sleep(time.Until(at) - time.Millisecond)
		if s := o.status(t, j); s.Details.Site != has.domain || s.State != bes.Running {
			t.Fatalf("it is placed elsewhere before its deadline: %+v\n%s", s, o.story(t, j))
		}
		site := has.world.Open(fake.Options{})
		found, err := site.Find(t.Context(), has.world.Tags())
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range found {
			if st, err := site.Status(t.Context(), []adapters.Handle{h}); err != nil || !st[0].Phase.Final() {
				t.Errorf("its copy is %v, %v", st, err)
			}
		}
		if other.starts() != 0 {
			t.Error("it ran elsewhere before its deadline")
		}
		time.Sleep(5 * time.Second)
		if s := o.status(t, j); s.Details.Site != other.domain {
			t.Fatalf("it is not placed elsewhere: %+v\n%s", s, o.story(t, j))
		}
		w.open("b", has.domain)
		if s := o.await(t, j, bes.Finished, ""); *s.Details.ExitStatus != 6 {
			t.Errorf("it ended as %+v", s.Details)
		}
		if has.starts() != 1 || other.starts() != 1 || o.starts() != 0 {
			t.Errorf("%d, %d and %d were started", has.starts(), other.starts(), o.starts())
		}
		if t.Failed() {
			t.Log(o.story(t, j))
		}
	})
}

// TestBrokersRestart: both gateways are stopped and started in the middle of jobs.
func TestBrokersRestart(t *testing.T) {
	street(t, []int{4, 4}, func(t *testing.T, w *world, hs []*house) {
		a, b := hs[0], hs[1]
		var jobs []soap.EPR
		for range 20 {
			jobs = append(jobs, a.submit(t, "sleep 900;exit 2", "b"))
		}
		for _, h := range []*house{b, a, b} {
			time.Sleep(3 * time.Minute)
			h.shut(t)
			time.Sleep(time.Minute)
			h.open(t)
			w.open("a", "b")
		}
		for _, j := range jobs {
			if s := a.await(t, j, bes.Finished, ""); *s.Details.ExitStatus != 2 {
				t.Errorf("it ended as %+v", s.Details)
			}
		}
		if b.starts() != 20 || a.starts() != 0 {
			t.Errorf("they ran %d times at b and %d at a", b.starts(), a.starts())
		}
	})
}

var errUnfit = fail.Errorf("test", fail.Unsupported, "", "nothing is run here")
