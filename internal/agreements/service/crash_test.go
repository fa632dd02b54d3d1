package service

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// mortal is a store as seen by a process that dies at one of its writes, before or after it is done.
type mortal struct {
	store.Store
	mu    sync.Mutex
	left  int
	after bool
	dead  bool
}

var errDead = fail.Errorf("mortal", fail.Unavailable, "", "the process is dead")

func (m *mortal) deed(do func()) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDead
	}
	m.left--
	m.dead = m.left < 0
	dies := m.dead
	m.mu.Unlock()
	if !dies || m.after {
		do()
	}
	if dies {
		return errDead
	}
	return nil
}

func (m *mortal) gone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

func (m *mortal) PutRecords(ctx context.Context, s store.Session, cs ...store.RecordChange) (revision int64, err error) {
	if derr := m.deed(func() { revision, err = m.Store.PutRecords(ctx, s, cs...) }); derr != nil {
		return 0, derr
	}
	return revision, err
}

func (m *mortal) Create(ctx context.Context, n store.NewJob) (j store.Job, created bool, err error) {
	if derr := m.deed(func() { j, created, err = m.Store.Create(ctx, n) }); derr != nil {
		return store.Job{}, false, derr
	}
	return j, created, err
}

func (m *mortal) Update(ctx context.Context, s store.Session, cs ...store.Change) (out []store.Changed) {
	if err := m.deed(func() { out = m.Store.Update(ctx, s, cs...) }); err != nil {
		out = make([]store.Changed, len(cs))
		for i := range out {
			out[i].Err = err
		}
	}
	return out
}

func (m *mortal) Join(ctx context.Context, replica string) (store.Session, error) {
	if m.gone() {
		return nil, errDead
	}
	return m.Store.Join(ctx, replica)
}

func (m *mortal) Close() error { return nil }

// A gateway dies at any of its writes, before or after it is done, and another goes on: what was
// answered holds, each agreement has one job, and nothing is left behind, at the site either.
func TestCrashes(t *testing.T) {
	byThen := func(g *gateway, now time.Time) offering {
		return g.by("ada", "finish-by@here/fake").say("job", job("sleep 60", 10*time.Minute, 1)).say("finishBy", finishBy(now.Add(time.Hour)))
	}
	kinds := map[string]func(g *gateway, now time.Time) offering{
		"finish-by":       byThen,
		"ended meanwhile": byThen,
		"advance-reservation": func(g *gateway, now time.Time) offering {
			return g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 5*time.Minute, 1)).say("window", window(now.Add(5*time.Minute), now.Add(15*time.Minute)))
		},
	}
	away := map[string]time.Duration{"ended meanwhile": 5 * time.Minute} // between the two; no job takes longer
	for kind, offer := range kinds {
		t.Run(kind, func(t *testing.T) {
			deaths := 0
			for cut := range 40 {
				for _, after := range []bool{false, true} {
					synctest.Test(t, func(t *testing.T) {
						if crash(t, cut, after, away[kind], offer) {
							deaths++
						}
					})
				}
				if t.Failed() {
					t.Fatalf("at the write %d", cut)
				}
			}
			if deaths < 10 {
				t.Errorf("it died only %d times", deaths)
			}
		})
	}
}

// crash is one life of a gateway that dies, and the next one's.
func crash(t *testing.T, cut int, after bool, away time.Duration, offer func(*gateway, time.Time) offering) bool {
	st := mem.New()
	defer st.Close()
	w := fake.NewWorld(2)
	defer w.Close()
	sites := []site{{name: "here", world: w}}
	m := &mortal{Store: st, left: 1 << 30, after: after}
	g := start(t, m, sites, whole)
	o := offer(g, time.Now())
	m.mu.Lock()
	m.left = cut
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(as1("ada"), time.Minute)
	doc := xmldoc.Marshal(o.Encode())
	parsed, err := agreement.ParseOffer(doc)
	if err != nil {
		t.Fatal(err)
	}
	key, err := g.Create(ctx, &agreement.CreateRequest{Offer: *parsed, Received: doc})
	cancel()
	for range 60 {
		if m.gone() {
			break
		}
		if key != "" {
			if r := g.record(key); r.Final() {
				break
			}
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
	}
	died := m.gone()
	g.stop()
	if err != nil && !died {
		t.Fatalf("it is refused: %v", err)
	}
	time.Sleep(away)
	next := start(t, st, sites, whole, func(c *broker.Config, _ *Options) {})
	defer next.stop()
	list, err := next.List(as1("ada"), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" && (len(list) != 1 || list[0] != key) {
		t.Fatalf("there are %q, and %s was answered", list, key)
	}
	for _, id := range list {
		r := next.ends(id)
		switch {
		case r.State == agreement.Complete && len(r.Jobs) == 1:
		case r.State == agreement.Rejected && key == "" && len(r.Jobs) == 0: // nobody had an answer
		default:
			t.Errorf("write %d: it is %s with %d jobs\n%s", cut, r.State, len(r.Jobs), next.story(id))
		}
		if n, err := noteOf(&r); err != nil || r.State == agreement.Complete && (!n.Over || n.Services[0].Outcome != "finished") {
			t.Errorf("%+v %v\n%s", n, err, next.story(id))
		}
	}
	next.until("the reservation is gone", func() bool { return reservations(t, next) == 0 })
	for _, p := range next.engine.Pools() {
		if free := next.engine.Free(p.ID, time.Now(), time.Now().Add(time.Hour)); free != p.Capacity {
			t.Errorf("of %s there are %+v free of %+v", p.ID, free, p.Capacity)
		}
	}
	return died
}

// An agreement that expires while the gateway is away is ended by another process of the domain, which does no
// more than that: the gateway writes down what is due when it is back, once.
func TestExpiresMeanwhile(t *testing.T) {
	for length, used := range map[int]float64{
		10800: 7200, // it runs when the agreement expires
		5400:  5400, // it has ended by then
		1800:  1800, // and while the gateway was there
		0:     0,    // it is none
	} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { expires(t, length, used) })
		})
	}
}

func expires(t *testing.T, length int, used float64) {
	st := mem.New()
	defer st.Close()
	sites := one(2)
	defer sites[0].world.Close()
	priced := func(c *broker.Config, _ *Options) { c.Sites[0].Model.Price = 10 }
	g := start(t, st, sites, whole, priced)
	defer g.stop()
	o, entries := g.by("ada", "best-effort@here/fake"), 2
	if length > 0 {
		o = o.say("job", job(fmt.Sprint("sleep ", length), 4*time.Hour, 1))
	} else {
		from := time.Now().Add(30 * time.Minute)
		o, entries = g.by("ada", "capacity@here/fake").say("capacity", "<p:Capacity"+pns+"><p:Site>here</p:Site><p:Share>fake</p:Share><p:CPUs>1</p:CPUs><p:StartTime>"+at(from)+"</p:StartTime><p:EndTime>"+at(from.Add(80*time.Minute))+"</p:EndTime></p:Capacity>"), 1
	}
	o.Context.ExpirationTime = time.Now().Add(2 * time.Hour)
	key := g.must("ada", o)
	time.Sleep(time.Hour)
	g.stop()

	ctx, cancel := context.WithCancel(context.Background())
	e, err := engine.New(ctx, st, engine.Options{Replica: "replica-b"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	time.Sleep(2 * time.Hour)
	r, err := e.Get(ctx, key)
	if err != nil || r.State != agreement.Complete {
		t.Fatalf("it is %s, %v", r.State, err)
	}
	cancel()
	<-ended

	var after int64
	for i := range 2 {
		next := start(t, st, sites, whole, priced)
		defer next.stop()
		time.Sleep(5 * time.Minute)
		r = next.record(key)
		list, err := Ledger(&r)
		if err != nil || len(list) != entries || list[len(list)-1].Kind != "price" {
			t.Fatalf("in the ledger are %+v, %v\n%s", list, err, next.story(key))
		}
		if n, err := strconv.ParseFloat(list[0].Amount.String(), 64); length > 0 && (err != nil || list[0].Kind != "usage" || math.Abs(n-used) > 60) {
			t.Errorf("it used %f CPU seconds, %v; want %f\n%s", n, err, used, next.story(key))
		}
		if i > 0 && r.Revision != after {
			t.Error("it was settled again")
		}
		after = r.Revision
		next.stop()
	}
}
