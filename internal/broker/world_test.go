package broker

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/jsdl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// document gives a job for the fake site.
func document(script string, hosts ...string) []byte {
	var b bytes.Buffer
	b.WriteString(`<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:p="` + jsdl.NSPOSIX + `"><jsdl:JobDescription>` +
		`<jsdl:JobIdentification><jsdl:JobName>job</jsdl:JobName></jsdl:JobIdentification>` +
		`<jsdl:Application><p:POSIXApplication><p:Executable>fake:`)
	_ = xml.EscapeText(&b, []byte(script))
	b.WriteString(`</p:Executable></p:POSIXApplication></jsdl:Application>`)
	if len(hosts) > 0 {
		b.WriteString(`<jsdl:Resources><jsdl:CandidateHosts>`)
		for _, h := range hosts {
			b.WriteString(`<jsdl:HostName>` + h + `</jsdl:HostName>`)
		}
		b.WriteString(`</jsdl:CandidateHosts></jsdl:Resources>`)
	}
	b.WriteString(`</jsdl:JobDescription></jsdl:JobDefinition>`)
	return b.Bytes()
}

func newStore(t testing.TB) store.Store {
	st := mem.New()
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// gateway is a broker that runs.
type gateway struct {
	t testing.TB
	*Broker
	cancel context.CancelFunc
	done   chan error
}

func start(t testing.TB, cfg Config) *gateway {
	t.Helper()
	cfg.BaseURL = func() string { return "http://gw.example.org/bes" }
	if cfg.Jitter == nil {
		cfg.Jitter = func() float64 { return 0.5 }
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &gateway{t, b, cancel, make(chan error, 1)}
	go func() { g.done <- b.Run(ctx) }()
	return g
}

func (g *gateway) stop() {
	g.t.Helper()
	g.cancel()
	if err := <-g.done; err != nil {
		g.t.Errorf("Run: %v", err)
	}
}

func as(name string) context.Context {
	return soap.WithPrincipal(context.Background(), soap.Principal{Name: name, Method: "none"})
}

func (g *gateway) submit(script string, hosts ...string) soap.EPR {
	g.t.Helper()
	r, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document(script, hosts...)})
	if err != nil {
		g.t.Fatalf("CreateActivity: %v", err)
	}
	return r.Activity
}

func (g *gateway) status(e soap.EPR) bes.Status {
	g.t.Helper()
	rs, err := g.GetActivityStatuses(as("ada"), &bes.StatusRequest{Activities: []soap.EPR{e}})
	if err != nil || rs[0].Err != nil {
		g.t.Fatalf("GetActivityStatuses: %v, %v", err, rs)
	}
	return rs[0].Status
}

// until waits for a state and sub-state ("" for any), by asking to be told.
func (g *gateway) until(e soap.EPR, state bes.State, sub string) bes.Status {
	g.t.Helper()
	for after := int64(0); ; {
		rs, err := g.GetActivityStatuses(as("ada"), &bes.StatusRequest{Activities: []soap.EPR{e}, Wait: time.Minute, After: after})
		if err != nil || rs[0].Err != nil {
			g.t.Fatalf("GetActivityStatuses: %v, %v", err, rs)
		}
		s := rs[0].Status
		if s.State == state && (sub == "" || len(s.SubStates) == 1 && s.SubStates[0].Local == sub) {
			return s
		}
		if s.State.Final() {
			g.t.Fatalf("it is %s (%s), want %s %s\n%s", s.State, s.Details.Reason, state, sub, g.story(e))
		}
		if s.Details.Revision == after && g.patience() {
			g.t.Fatalf("it stays %s %v (%s), want %s %s\n%s", s.State, s.SubStates, s.Details.Reason, state, sub, g.story(e))
		}
		after = s.Details.Revision
	}
}

func (g *gateway) patience() bool { return false }

func (g *gateway) story(e soap.EPR) string {
	h, err := g.GetActivityHistory(as("ada"), e)
	s := fmt.Sprintln(err)
	for _, l := range h {
		s += fmt.Sprintf("%3d %s %s/%s %s %s#%d %s\n", l.Sequence, l.Time.Format("15:04:05.000"), l.State, l.SubState, l.Event, l.Site, l.Attempt, l.Reason)
	}
	return s
}

// events gives the events of a history.
func (g *gateway) events(e soap.EPR) string {
	g.t.Helper()
	h, err := g.GetActivityHistory(as("ada"), e)
	if err != nil {
		g.t.Fatal(err)
	}
	s := ""
	for i, l := range h {
		if i > 0 {
			s += " "
		}
		s += l.Event
	}
	return s
}

// ask gives the one answer of a vector operation.
func one1(rs []bes.Result, err error) error {
	if err != nil {
		return err
	}
	return rs[0].Err
}

func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// life is one incarnation of a gateway's process: it counts deeds and dies at one
// of them, before or after it is done. What is dead does nothing any more.
type life struct {
	mu    sync.Mutex
	left  int // deeds until death; negative: never
	after bool
	dead  chan struct{}
}

var errDead = fail.Errorf("life", fail.Unavailable, "", "the process is dead")

// deed does f, unless the process is dead or dies now.
func (l *life) deed(f func()) error {
	l.mu.Lock()
	select {
	case <-l.dead:
		l.mu.Unlock()
		return errDead
	default:
	}
	dies := l.left == 0
	if l.left >= 0 {
		l.left--
	}
	if dies {
		close(l.dead)
	}
	l.mu.Unlock()
	if !dies {
		f()
		return nil
	}
	if l.after {
		f()
	}
	return errDead
}

func (l *life) gone() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// mortalStore is a store as seen by a process that may die.
type mortalStore struct {
	store.Store
	life *life
	sick func(op string) (answer, bool) // when set: faults of the store itself
}

// ill gives the error that befalls a write, and whether it is done all the same.
func (m mortalStore) ill(op string) (err error, done bool) {
	if m.sick == nil {
		return nil, true
	}
	a, ok := m.sick(op)
	if !ok {
		return nil, true
	}
	return fail.Errorf("store."+op, a.kind, "", "injected"), a.done && a.kind == fail.Uncertain
}

func (m mortalStore) Create(ctx context.Context, n store.NewJob) (j store.Job, c bool, err error) {
	ill, done := m.ill("create")
	if derr := m.life.deed(func() {
		if done {
			j, c, err = m.Store.Create(ctx, n)
		}
	}); derr != nil {
		ill = derr
	}
	if ill != nil {
		return store.Job{}, false, ill
	}
	return j, c, err
}

func (m mortalStore) Update(ctx context.Context, s store.Session, cs ...store.Change) (out []store.Changed) {
	ill, done := m.ill("update")
	if derr := m.life.deed(func() {
		if done {
			out = m.Store.Update(ctx, s, cs...)
		}
	}); derr != nil {
		ill = derr
	}
	if ill != nil {
		out = make([]store.Changed, len(cs))
		for i := range out {
			out[i].Err = ill
		}
	}
	return out
}

func (m mortalStore) Join(ctx context.Context, r string) (store.Session, error) {
	if m.life.gone() {
		return nil, errDead
	}
	return m.Store.Join(ctx, r)
}

func (m mortalStore) Close() error { return nil }

// mortal is an adapter as used by a process that may die.
type mortal struct {
	adapters.Adapter
	life   *life
	polled bool // it does not push
}

func (m mortal) Properties() adapters.Properties {
	p := m.Adapter.Properties()
	p.Push = !m.polled
	return p
}

func (m mortal) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	out := make([]adapters.Placed, 0, len(jobs))
	for i := range jobs {
		var p adapters.Placed
		if err := m.life.deed(func() { p = m.Adapter.Submit(ctx, jobs[i:i+1])[0] }); err != nil {
			p = adapters.Placed{Err: fail.E("mortal", fail.Uncertain, "", err)}
		}
		out = append(out, p)
	}
	return out
}

func (m mortal) Find(ctx context.Context, tags []adapters.Tag) (found map[adapters.Tag]adapters.Handle, err error) {
	if derr := m.life.deed(func() { found, err = m.Adapter.Find(ctx, tags) }); derr != nil {
		return nil, derr
	}
	return found, err
}

func (m mortal) Cancel(ctx context.Context, hs []adapters.Handle) (errs []error) {
	if err := m.life.deed(func() { errs = m.Adapter.Cancel(ctx, hs) }); err != nil {
		errs = make([]error, len(hs))
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

func (m mortal) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return m.Adapter.(adapters.Watcher).Watch(ctx, func(es []adapters.Evidence) {
		if !m.life.gone() {
			emit(es)
		}
	})
}

func (m mortal) Suspend(ctx context.Context, hs []adapters.Handle) []error {
	return m.Adapter.(adapters.Suspender).Suspend(ctx, hs)
}

func (m mortal) Resume(ctx context.Context, hs []adapters.Handle) []error {
	return m.Adapter.(adapters.Suspender).Resume(ctx, hs)
}

func (m mortal) Extend(ctx context.Context, xs []adapters.Extension) (errs []error) {
	if err := m.life.deed(func() { errs = m.Adapter.(adapters.Leaser).Extend(ctx, xs) }); err != nil {
		errs = make([]error, len(xs))
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

func (m mortal) Output(ctx context.Context, h adapters.Handle, s adapters.Stream, off int64) (io.ReadCloser, error) {
	return m.Adapter.Output(ctx, h, s, off)
}

// consistent checks a job's history against the table and its status.
func consistent(st store.Status, lines []store.Event) error {
	phase := Phase("")
	for i, l := range lines {
		if l.Sequence != i+1 {
			return fmt.Errorf("line %d has sequence %d", i+1, l.Sequence)
		}
		if phase.Final() {
			return fmt.Errorf("line %d (%s) comes after the end", l.Sequence, l.Event)
		}
		tr, ok := transitions[phase][Event(l.Event)]
		if !ok {
			return fmt.Errorf("line %d: %s in %s is not in the table", l.Sequence, l.Event, phase)
		}
		if got := Phase(l.Phase); got != tr.to && (tr.to != Requeued || got != Withheld) {
			return fmt.Errorf("line %d: %s --%s--> %s, the table says %s", l.Sequence, phase, l.Event, got, tr.to)
		}
		if l.Reason == "" {
			return fmt.Errorf("line %d (%s) gives no reason", l.Sequence, l.Event)
		}
		phase = Phase(l.Phase)
	}
	if string(phase) != st.Phase {
		return fmt.Errorf("the status is %s, the history ends with %s", st.Phase, phase)
	}
	if len(lines) != st.Sequence {
		return errors.New("the status does not count the lines")
	}
	return nil
}
