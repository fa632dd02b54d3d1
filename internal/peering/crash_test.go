package peering

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

// fault is what befalls one write of an engine.
type fault string

const (
	diesBefore fault = "the engine dies before the write"
	diesAfter  fault = "the engine dies after the write"
	refused    fault = "the write is refused"
	lost       fault = "the write is done, and its answer lost"
	expires    fault = "the session is lost before the write"
)

// shaky is a store whose n-th write of records goes wrong, as seen by one engine.
type shaky struct {
	Store
	mu    sync.Mutex
	left  int
	fault fault
	dead  bool
	die   func()
}

func (s *shaky) PutRecords(ctx context.Context, sess store.Session, changes ...store.RecordChange) (int64, error) {
	if m, ok := sess.(mortalSession); ok {
		sess = m.Session
	}
	s.mu.Lock()
	hit := s.left == 0
	s.left--
	f := s.fault
	if s.dead || hit && f == diesBefore {
		s.kill()
		s.mu.Unlock()
		return 0, fail.Errorf("shaky", fail.Unavailable, "", "the process is dead")
	}
	s.mu.Unlock()
	if hit && f == refused {
		return 0, fail.Errorf("shaky", fail.Unavailable, "", "the store is away")
	}
	if hit && f == expires && sess != nil {
		_ = sess.Close()
	}
	rev, err := s.Store.PutRecords(ctx, sess, changes...)
	if !hit || err != nil {
		return rev, err
	}
	switch f {
	case diesAfter:
		s.mu.Lock()
		s.kill()
		s.mu.Unlock()
		return 0, fail.Errorf("shaky", fail.Unavailable, "", "the process is dead")
	case lost:
		return 0, fail.Errorf("shaky", fail.Uncertain, "", "the answer was lost")
	case diesBefore, refused, expires:
	}
	return rev, err
}

func (s *shaky) kill() {
	if !s.dead {
		s.dead = true
		go s.die()
	}
}

func (s *shaky) Join(ctx context.Context, replica string) (store.Session, error) {
	sess, err := s.Store.Join(ctx, replica)
	if err != nil {
		return nil, err
	}
	return mortalSession{sess, s}, nil
}

// mortalSession is one that a dead process does not give back.
type mortalSession struct {
	store.Session
	s *shaky
}

func (m mortalSession) Close() error {
	m.s.mu.Lock()
	dead := m.s.dead
	m.s.mu.Unlock()
	if dead {
		return nil
	}
	return m.Session.Close()
}

// outcome is how a job ended for its user.
type outcome struct {
	ends   int
	last   adapters.Evidence
	places int
}

// life does what a broker does for a job that only the peer can run.
func (g *gate) life(to, id, script string, o *outcome) {
	site := func() adapters.Adapter {
		for {
			if e := g.engine(); e != nil {
				return e.Site(to)
			}
			if !g.pause(time.Second) {
				return nil
			}
		}
	}
	for n := 1; ; n++ {
		tag := adapters.Tag(fmt.Sprintf("%s-%d", id, n))
		s := site()
		if s == nil {
			return
		}
		p := s.Submit(context.Background(), []adapters.Job{{Tag: tag, Definition: definition(script), Owner: "ada"}})[0]
		h := p.Handle
		if adapters.ClassOf(p.Err) == adapters.Doubtful && h == nil {
			h = g.find(to, tag)
		}
		if h == nil {
			if !g.pause(5 * time.Second) {
				return
			}
			continue
		}
		o.places++
		var e adapters.Evidence
		for !e.Phase.Final() {
			if !g.pause(time.Second) {
				return
			}
			if es, err := site().Status(context.Background(), []adapters.Handle{h}); err == nil {
				e = es[0]
			}
		}
		if e.Phase != adapters.Lost && !(e.Phase == adapters.Stopped && e.NotRun) {
			o.ends++
			o.last = e
			return
		}
		for site().Forget(context.Background(), h) != nil {
			if !g.pause(time.Second) {
				return
			}
		}
	}
}

// find asks for what became of a submission in doubt until that is known, as a broker does before it tries again.
func (g *gate) find(to string, tag adapters.Tag) adapters.Handle {
	for g.pause(time.Second) {
		e := g.engine()
		if e == nil {
			continue
		}
		if found, err := e.Site(to).Find(context.Background(), []adapters.Tag{tag}); err == nil {
			return found[tag]
		}
	}
	return nil
}

func (g *gate) pause(d time.Duration) bool {
	select {
	case <-g.w.quit:
		return false
	case <-time.After(d):
		return true
	}
}

// scripted runs four jobs while one write of one engine goes wrong, and says how many writes
// that engine made.
func scripted(t *testing.T, victim string, n int, f fault) (writes int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		a, b, c := w.gates["a"], w.gates["b"], w.gates["c"]
		v := w.gates[victim]
		real := v.store
		shake := &shaky{Store: real, left: n, fault: f}
		revived := make(chan struct{})
		shake.die = func() {
			v.stop()
			time.Sleep(5 * time.Second)
			v.store = real
			v.start()
			for _, p := range [][2]string{{"a", "b"}, {"b", "c"}} {
				w.lose(p[0], p[1])
				w.open(p[0], p[1])
			}
			close(revived)
		}
		v.store = shake
		w.connect("a", "b")
		w.connect("b", "c")
		for _, g := range []*gate{a, b, c} {
			g.launch()
		}
		time.Sleep(time.Minute) // the victim may die meanwhile
		w.open("a", "b")
		w.open("b", "c")
		first := true
		b.refuse = func(_ string, r *wire.Route) error {
			if r.ID == "refused" && first {
				first = false
				return fail.Errorf("test", fail.NotAccepting, "", "there is no room now")
			}
			return nil
		}
		b.jobs.onward = func(activity string, g Given) bool {
			if g.Key.ID != "far" {
				return false
			}
			w.bg.Go(func() { b.follow("c", activity, "sleep 2m;exit 4") })
			return true
		}
		scripts := map[string]string{"near": "sleep 2m;exit 3", "far": "sleep 2m;exit 4", "ended": "hang", "refused": "sleep 1m"}
		outcomes := map[string]*outcome{}
		for id, script := range scripts {
			o := new(outcome)
			outcomes[id] = o
			w.bg.Go(func() { a.life("b", id, script, o) })
		}
		time.Sleep(50 * time.Second)
		// The user ends one: that is asked until it is heard.
		w.bg.Go(func() {
			for a.pause(time.Second) {
				e := a.engine()
				if e == nil {
					continue
				}
				e.mu.Lock()
				x := e.jobsOf("ended")
				var h adapters.Handle
				if x != nil && x.job != nil && x.Tag != "" {
					h = x.handle().encode()
				}
				e.mu.Unlock()
				if h != nil && e.Site("b").Cancel(context.Background(), []adapters.Handle{h})[0] == nil {
					return
				}
			}
		})
		time.Sleep(30 * time.Minute)
		shake.mu.Lock()
		writes = n - shake.left
		dead := shake.dead
		shake.mu.Unlock()
		if dead {
			<-revived
		}
		// How many records go into one write is not always the same, so that the last ones may not be made.
		if f != "" && (shake.left >= 0 && n < 5 || shake.left < 0 && dead != (f == diesBefore || f == diesAfter)) {
			t.Errorf("%s, write %d, %s: it did not happen", victim, n, f)
		}
		w.close()
		codes := map[string]int{"near": 3, "far": 4, "refused": 0}
		for id, o := range outcomes {
			key := handover.Key{Origin: "a", ID: id}
			runs := b.jobs.runs(key) + c.jobs.runs(key)
			if o.ends != 1 || runs != 1 && id != "ended" || runs > 1 {
				t.Errorf("%s, write %d, %s: the job %s ended %d times (%v %s), ran %d times, had %d places", victim, n, f, id, o.ends, o.last.Phase, o.last.Reason, runs, o.places)
				continue
			}
			if code, ok := codes[id]; ok && (o.last.ExitStatus == nil || *o.last.ExitStatus != code) || !ok && o.last.Phase != adapters.Cancelled {
				t.Errorf("%s, write %d, %s: the job %s ended with %+v", victim, n, f, id, o.last)
			}
		}
	})
	return writes
}

// TestEachWrite: whatever goes wrong with any one write of any engine, each job runs once and
// ends once.
func TestEachWrite(t *testing.T) {
	for _, victim := range []string{"a", "b", "c"} {
		total := scripted(t, victim, 1<<30, "")
		t.Logf("the engine of %s writes %d times", victim, total)
		if total < 5 {
			t.Fatalf("the engine of %s hardly writes", victim)
		}
		for _, f := range []fault{diesBefore, diesAfter, refused, lost, expires} {
			for n := range total {
				if testing.Short() && n%5 != 0 {
					continue
				}
				scripted(t, victim, n, f)
				if t.Failed() {
					return
				}
			}
		}
	}
}
