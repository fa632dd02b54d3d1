package broker

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
)

// counting is a store that counts what is asked of it.
type counting struct {
	store.Store
	mu                                 sync.Mutex
	creates, updates, changes, records int // calls of Create and Update, changes in these, calls of PutRecords
	notes, decisions, reads            int // records with changes, decisions without, documents read
	bytes                              int // of what changes write
}

func (c *counting) note(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *counting) Create(ctx context.Context, n store.NewJob) (store.Job, bool, error) {
	c.note(func() { c.creates++ })
	return c.Store.Create(ctx, n)
}

func (c *counting) Document(ctx context.Context, id string) ([]byte, error) {
	c.note(func() { c.reads++ })
	return c.Store.Document(ctx, id)
}

func (c *counting) Update(ctx context.Context, s store.Session, changes ...store.Change) []store.Changed {
	c.note(func() {
		c.updates++
		c.changes += len(changes)
		for i := range changes {
			status, _ := json.Marshal(changes[i].Status)
			lines, _ := json.Marshal(changes[i].Events)
			c.bytes += len(status) + len(lines)
			if n := changes[i].Note; n != nil {
				c.notes++
				c.bytes += len(n.Key) + len(n.Value)
			}
		}
	})
	return c.Store.Update(ctx, s, changes...)
}

func (c *counting) PutRecords(ctx context.Context, s store.Session, changes ...store.RecordChange) (int64, error) {
	c.note(func() {
		c.records++
		for _, r := range changes {
			if strings.HasPrefix(r.Key, decisionPrefix) {
				c.decisions++
			}
		}
	})
	return c.Store.PutRecords(ctx, s, changes...)
}

// What a job costs the store is counted, as a clock tells little of it: a submission is one
// write; the way to its end is four changes of it and no further write, with the reasons of
// its placement in the transaction of the placement; alike jobs are compiled once, and the
// site is asked about them once.
func TestCostOfJob(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 200
		w := fake.NewWorld(n)
		t.Cleanup(w.Close)
		st := &counting{Store: newStore(t)}
		var checks atomic.Int64
		site := asked{w.Open(fake.Options{}), &checks}
		g := start(t, Config{Store: st, Alone: true, Sites: []Site{{Name: "here", Adapter: site}}})
		defer g.stop()
		<-g.Ready()
		synctest.Wait()
		var before counting
		st.note(func() {
			before = counting{records: st.records}
			st.creates, st.updates, st.changes, st.bytes = 0, 0, 0, 0
		})
		doc := document("sleep 100")
		def, problems := jsdl.Parse(doc, jsdl.Options{})
		if err := problems.Err(); err != nil {
			t.Fatal(err)
		}
		var last *bes.CreateActivityResponse
		for range n {
			var err error
			if last, err = g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: doc, Job: def}); err != nil {
				t.Fatal(err)
			}
		}
		g.until(last.Activity, bes.Finished, "")
		synctest.Wait()
		st.mu.Lock()
		defer st.mu.Unlock()
		t.Logf("of %d jobs: %d creations, %d changes in %d calls, %d bytes a job; %d records with them, %d calls for other records, %d of decisions; %d documents read, %d checks",
			n, st.creates, st.changes, st.updates, st.bytes/n, st.notes, st.records-before.records, st.decisions, st.reads, checks.Load())
		if st.creates != n || st.changes > 4*n {
			t.Errorf("%d jobs are created by %d writes and changed %d times", n, st.creates, st.changes)
		}
		if st.notes != n || st.decisions != 0 {
			t.Errorf("%d jobs have %d decisions written with their placements, and %d records of decisions written apart", n, st.notes, st.decisions)
		}
		if extra := st.records - before.records; extra > n/10 {
			t.Errorf("%d jobs cost %d writes of other records", n, extra)
		}
		if most := 2600; st.bytes > most*n {
			t.Errorf("a job's changes have %d bytes; at most %d were expected", st.bytes/n, most)
		}
		if st.reads != 0 || checks.Load() > 2 {
			t.Errorf("of %d alike jobs %d documents are read, and the site is asked %d times what stands against them", n, st.reads, checks.Load())
		}
	})
}

// asked is a site that counts how often it is asked what stands against a job.
type asked struct {
	adapters.Adapter
	checks *atomic.Int64
}

func (a asked) Check(def *jsdl.JobDefinition) error {
	a.checks.Add(1)
	return a.Adapter.Check(def)
}

func (a asked) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return a.Adapter.(adapters.Watcher).Watch(ctx, emit)
}
