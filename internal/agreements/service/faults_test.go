package service

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func costly(_ *broker.Config, o *Options) { o.Settings.Penalty = 5000 }

// A site dies under a promise: where there is no other, it is broken, and the ledger shows it; where
// there is one, the job is saved there.
func TestSiteIsKilled(t *testing.T) {
	for _, others := range []bool{false, true} {
		t.Run(fmt.Sprint(others), func(t *testing.T) {
			sites := []site{{name: "here", world: fake.NewWorld(2), options: fake.Options{NoReserve: true}}}
			if others {
				sites = append(sites, site{name: "there", world: fake.NewWorld(2), options: fake.Options{NoReserve: true}})
			}
			alone(t, sites, func(t *testing.T, g *gateway) {
				now := time.Now()
				from := now.Add(time.Hour)
				o := g.by("ada", "start-by@here/fake").say("job", job("sleep 60", 10*time.Minute, 1)).say("startBy", startBy(from.Add(30*time.Minute)))
				o = notBefore(o, from)
				key := g.must("ada", o)
				time.Sleep(30 * time.Minute)
				sites[0].world.Down("a test")
				g.until("the promise is kept or broken", func() bool { return g.guarantee(key, "start").State != agreement.NotDetermined })
				state := g.guarantee(key, "start").State
				list, err := Ledger(new(g.record(key)))
				if err != nil {
					t.Fatal(err)
				}
				penalties := 0
				for _, e := range list {
					if e.Kind == "penalty" {
						penalties++
						if e.Amount.String() != "-5" || e.Agreement != key || !strings.Contains(e.Evidence, "guarantee start") {
							t.Errorf("%+v", e)
						}
					}
				}
				if others && (state != agreement.Fulfilled || penalties != 0) || !others && (state != agreement.Violated || penalties != 1) {
					t.Errorf("%s, %d penalties\n%s", state, penalties, g.story(key))
				}
				sites[0].world.Up()
				if r := g.ends(key); r.State != agreement.Complete || r.Due != map[bool]int64{true: 0, false: -5000}[others] {
					t.Errorf("%s, due %d\n%s", r.State, r.Due, g.story(key))
				}
			}, costly, whole)
		})
	}
}

// notBefore has the job of an offer wait.
func notBefore(o offering, t time.Time) offering {
	d := o.Term("job").(*agreement.ServiceDescription)
	s := string(xmldoc.Marshal(d.Description))
	s = strings.Replace(s, "</jsdl:Resources>", `<q:Placement xmlns:q="http://portolan-project.org/ns/2026/jsdl"><q:NotBefore>`+at(t)+`</q:NotBefore></q:Placement></jsdl:Resources>`, 1)
	return o.say("job", s)
}

// initiator is who is told of decisions.
type initiator struct {
	mu   sync.Mutex
	told []string
	fail int
}

func (i *initiator) tell(what, key string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fail > 0 {
		i.fail--
		return fail.Errorf("initiator", fail.Unavailable, "", "not now")
	}
	i.told = append(i.told, what+" "+key)
	return nil
}

func (i *initiator) Accept(_ context.Context, key string) error { return i.tell("accept", key) }

func (i *initiator) Reject(_ context.Context, key string, _ []*etree.Element) error {
	return i.tell("reject", key)
}

// inside carries requests to a handler without a socket.
type inside struct{ h http.Handler }

func (w inside) RoundTrip(r *http.Request) (*http.Response, error) {
	in := httptest.NewRequest(r.Method, r.URL.String(), r.Body)
	in.Header = r.Header
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, in.WithContext(r.Context()))
	return rec.Result(), nil
}

func (g *gateway) pending(who string, o offering, to string) (string, error) {
	doc := xmldoc.Marshal(o.Encode())
	parsed, err := agreement.ParseOffer(doc)
	if err != nil {
		g.t.Fatal(err)
	}
	req := &agreement.CreateRequest{Offer: *parsed, Received: doc}
	if to != "" {
		req.AcceptanceEPR = new(agreement.NewEPR(to, "mine"))
	}
	return g.CreatePending(as1(who), req)
}

// Who offered is told of the decision, again where that fails; and only at addresses that are allowed.
func TestPendingIsTold(t *testing.T) {
	who := &initiator{fail: 2}
	door := agreement.NewAcceptanceServer(who, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
	calls := func(_ *broker.Config, o *Options) {
		o.Callbacks, o.Transport = []string{"initiator.example", "*.friends.example", "10.0.0.0/8"}, inside{door}
	}
	alone(t, one(2), func(t *testing.T, g *gateway) {
		from := time.Now().Add(time.Hour)
		reserve := func(cpus int) offering {
			return g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, cpus)).say("window", window(from, from.Add(time.Hour)))
		}
		for _, to := range []string{"ftp://initiator.example/x", "http://evil.example/", "http://127.0.0.1/", "http://169.254.169.254/latest", "http://friends.example/", "http://x:y@initiator.example/", "//initiator.example", "http://11.0.0.1/"} {
			if _, err := g.pending("ada", reserve(1), to); !fail.Is(err, fail.Denied) && !fail.Is(err, fail.Invalid) {
				t.Errorf("%s: %v", to, err)
			}
		}
		key, err := g.pending("ada", reserve(1), "https://initiator.example/acceptance")
		if err != nil {
			t.Fatal(err)
		}
		g.until("it is decided", func() bool { return g.record(key).State == agreement.Observed })
		g.until("it is told", func() bool { who.mu.Lock(); defer who.mu.Unlock(); return len(who.told) == 1 })
		if who.told[0] != "accept mine" {
			t.Errorf("%q", who.told)
		}
		if reservations(t, g) != 1 {
			t.Errorf("%s", g.story(key))
		}
		if r := g.ends(key); r.State != agreement.Complete {
			t.Errorf("%s", g.story(key))
		}
		for _, to := range []string{"http://10.1.2.3/", "http://a.friends.example/x"} {
			if err := g.callers.users.allows(to); err != nil {
				t.Errorf("%s: %v", to, err)
			}
		}
	}, calls, whole)
}

// A pending agreement that the site's manager refuses is rejected, and that is told too.
func TestPendingIsRejected(t *testing.T) {
	who := &initiator{}
	door := agreement.NewAcceptanceServer(who, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
	calls := func(_ *broker.Config, o *Options) {
		o.Callbacks, o.Transport = []string{"initiator.example"}, inside{door}
	}
	sites := one(2)
	alone(t, sites, func(t *testing.T, g *gateway) {
		from := time.Now().Add(time.Hour)
		fill(t, g, from)
		key, err := g.pending("ada", g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, 1)).say("window", window(from, from.Add(time.Hour))), "http://initiator.example/")
		if err != nil {
			t.Fatal(err)
		}
		if r := g.ends(key); r.State != agreement.Rejected {
			t.Errorf("%s", g.story(key))
		}
		g.until("it is told", func() bool { who.mu.Lock(); defer who.mu.Unlock(); return len(who.told) == 1 })
		if who.told[0] != "reject mine" {
			t.Errorf("%q", who.told)
		}
	}, calls, whole)
}

// A decision that could not be told before the gateway went is told by the next one, or by another replica; and so
// often altogether, and no oftener.
func TestDecisionIsToldByTheNext(t *testing.T) {
	for _, replicas := range []bool{false, true} {
		t.Run(fmt.Sprint(replicas), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				who := &initiator{fail: 1 << 20}
				door := agreement.NewAcceptanceServer(who, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
				st := mem.New()
				defer st.Close()
				sites := one(2)
				defer sites[0].world.Close()
				open := func(name string) *gateway {
					return start(t, st, sites, whole, func(c *broker.Config, o *Options) {
						c.Replica = name
						o.Callbacks, o.Transport = []string{"initiator.example"}, inside{door}
						o.Join = func(ctx context.Context) (store.Session, error) { return st.Join(ctx, name+"-agreements") }
					})
				}
				a := open("a")
				defer a.stop()
				next := a
				if replicas {
					next = open("b")
					defer next.stop()
				}
				from := time.Now().Add(time.Hour)
				fill(t, a, from)
				var keys []string
				for range 6 { // some are either replica's
					key, err := a.pending("ada", a.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, 1)).say("window", window(from, from.Add(time.Hour))), "http://initiator.example/")
					if err != nil {
						t.Fatal(err)
					}
					if r := a.ends(key); r.State != agreement.Rejected { // which lets others have the room
						t.Errorf("%s", a.story(key))
					}
					keys = append(keys, key)
				}
				tries := func(g *gateway, key string) int {
					n, err := noteOf(new(g.record(key)))
					if err != nil {
						t.Fatal(err)
					}
					return n.Tries
				}
				for _, key := range keys {
					a.until("it was tried", func() bool { return tries(a, key) > 1 })
				}
				a.stop()
				who.mu.Lock()
				who.fail = 0
				who.mu.Unlock()
				if !replicas {
					next = open("c")
					defer next.stop()
				}
				next.until("it is told", func() bool { who.mu.Lock(); defer who.mu.Unlock(); return len(who.told) >= len(keys) })
				time.Sleep(time.Hour)
				who.mu.Lock()
				if len(who.told) != len(keys) {
					t.Errorf("%q", who.told)
				}
				who.mu.Unlock()
				for _, key := range keys {
					if n := tries(next, key); n < 2 || n > mostTries {
						t.Errorf("it was tried %d times", n)
					}
				}
			})
		})
	}
}

// A gateway that is not responsible for a moment, in which it is to tell of a decision, tells of it later.
func TestDecisionIsToldAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		who := &initiator{fail: 1 << 20}
		door := agreement.NewAcceptanceServer(who, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
		st := mem.New()
		defer st.Close()
		sites := one(2)
		defer sites[0].world.Close()
		sessions := make(chan store.Session, 1)
		open := func(name string) *gateway {
			return start(t, st, sites, whole, func(c *broker.Config, o *Options) {
				c.Replica = name
				o.Callbacks, o.Transport = []string{"initiator.example"}, inside{door}
				o.Join = func(ctx context.Context) (store.Session, error) {
					s, err := st.Join(ctx, name+"-agreements")
					if err == nil && name == "a" {
						sessions <- s
					}
					return s, err
				}
			})
		}
		a := open("a")
		defer a.stop()
		b := open("b")
		defer b.stop()
		synctest.Wait()
		session := <-sessions
		from := time.Now().Add(time.Hour)
		fill(t, a, from)
		key := ""
		for key == "" {
			k, err := a.pending("ada", a.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, 1)).say("window", window(from, from.Add(time.Hour))), "http://initiator.example/")
			if err != nil {
				t.Fatal(err)
			}
			if a.ends(k); a.engine.Responsible(k) {
				key = k
			}
		}
		synctest.Wait()
		n, err := noteOf(new(a.record(key)))
		if err != nil || n.Again.IsZero() {
			t.Fatalf("it was not tried: %+v, %v", n, err)
		}
		// Its record runs out just before it would try again, and it is there again just after.
		time.Sleep(time.Until(n.Again) - 500*time.Millisecond)
		who.mu.Lock()
		who.fail = 0
		who.mu.Unlock()
		if _, err := st.PutRecords(t.Context(), nil, store.RecordChange{Key: engine.Prefix + "replica/a", If: -1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if a.engine.Responsible(key) {
			t.Fatal("it is responsible all the time")
		}
		if err := a.engine.Attend(t.Context(), session); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n, err := noteOf(new(a.record(key))); err != nil || !n.Told {
			t.Errorf("it is not told: %+v, %v\n%s", n, err, a.story(key))
		}
	})
}

// A reservation that could not be released yet when its gateway went is released by another one.
func TestReservationIsReleasedByTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := mem.New()
		defer st.Close()
		sites := one(4)
		defer sites[0].world.Close()
		open := func(name string) *gateway {
			return start(t, st, sites, whole, func(c *broker.Config, o *Options) {
				c.Replica = name
				o.Join = func(ctx context.Context) (store.Session, error) { return st.Join(ctx, name+"-agreements") }
			})
		}
		a := open("a")
		defer a.stop()
		b := open("b")
		defer b.stop()
		time.Sleep(time.Minute)
		from := time.Now().Add(10 * 24 * time.Hour)
		key := ""
		for key == "" {
			k := a.must("ada", a.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, 1)).say("window", window(from, from.Add(time.Hour))))
			if a.engine.Responsible(k) {
				key = k
				break
			}
			if err := a.Terminate(as1("ada"), k, nil); err != nil {
				t.Fatal(err)
			}
			a.ends(k)
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Minute)
		if n := reservations(t, b); n != 1 {
			t.Fatalf("there are %d reservations", n)
		}
		sites[0].world.Inject(func(op string, _ adapters.Tag) fake.Fault {
			if op == "unreserve" {
				return fake.Fault{Err: fail.Errorf("test", fail.Unavailable, "", "not now")}
			}
			return fake.Fault{}
		})
		if err := a.Terminate(as1("ada"), key, nil); err != nil {
			t.Fatal(err)
		}
		a.ends(key)
		time.Sleep(time.Minute)
		a.stop()
		sites[0].world.Inject(nil)
		time.Sleep(time.Hour)
		if n := reservations(t, b); n != 0 {
			t.Errorf("an hour later there are %d reservations\n%s", n, b.story(key))
		}
	})
}

// An agreement with a job can't be replaced, as both jobs would run; one of capacity can.
func TestOnlyCapacityIsReplaced(t *testing.T) {
	alone(t, one(4), func(t *testing.T, g *gateway) {
		from := time.Now().Add(time.Hour)
		capacity := g.by("ada", "capacity@here/fake").say("capacity", "<p:Capacity"+pns+"><p:Site>here</p:Site><p:Share>fake</p:Share><p:CPUs>1</p:CPUs><p:StartTime>"+at(from)+"</p:StartTime><p:EndTime>"+at(from.Add(time.Hour))+"</p:EndTime></p:Capacity>")
		working := g.by("ada", "finish-by@here/fake").say("job", job("sleep 600", 20*time.Minute, 1)).say("finishBy", finishBy(from.Add(2*time.Hour)))
		replace := func(key string, by offering) error {
			p, err := g.Plan(as1("ada"), by.Offer)
			if err != nil {
				t.Fatal(err)
			}
			p.ID, p.Replaces = "replaces-"+key, key
			_, err = g.engine.Propose(t.Context(), p)
			return err
		}
		if key := g.must("ada", working); replace(key, working) == nil || g.record(key).State != agreement.Observed {
			t.Errorf("an agreement with a job is replaced\n%s", g.story(key))
		}
		if key := g.must("ada", capacity); replace(key, capacity) != nil || g.record(key).State != agreement.Terminated {
			t.Errorf("one of capacity is not\n%s", g.story(key))
		}
	}, whole)
}

// An agreement tells once that there is less than was promised, though that lasts longer than the news of it.
func TestDangerIsTold(t *testing.T) {
	sites := one(4, fake.Options{NoReserve: true})
	alone(t, sites, func(t *testing.T, g *gateway) {
		from := time.Now().Add(10 * time.Hour)
		key := g.must("ada", g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, 2)).say("window", window(from, from.Add(time.Hour))))
		time.Sleep(time.Minute)
		sites[0].world.Down("a test")
		time.Sleep(time.Hour)
		if n := strings.Count(g.story(key), "danger [Observed] of "); n != 1 {
			t.Errorf("it is told %d times; in danger are %+v\n%s", n, g.engine.Endangered(), g.story(key))
		}
		sites[0].world.Up()
	}, whole)
}

// Who asks to be told after the agreement was made, at another process of the domain, is told before it ends.
func TestDecisionIsToldOnceAsked(t *testing.T) {
	who := &initiator{}
	door := agreement.NewAcceptanceServer(who, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
	calls := func(_ *broker.Config, o *Options) {
		o.Callbacks, o.Transport = []string{"initiator.example"}, inside{door}
	}
	alone(t, one(2), func(t *testing.T, g *gateway) {
		from := time.Now().Add(24 * time.Hour)
		key := g.must("ada", g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, 1)).say("window", window(from, from.Add(time.Hour))))
		time.Sleep(time.Minute)
		there, err := engine.New(t.Context(), g.st, engine.Options{Replica: "replica-b"})
		if err != nil {
			t.Fatal(err)
		}
		epr := acceptanceOf(&agreement.CreateRequest{AcceptanceEPR: new(agreement.NewEPR("http://initiator.example/", "mine"))})
		if _, err := there.Update(t.Context(), key, func(r *engine.Record) error {
			d, err := detailOf(r)
			if err != nil {
				return err
			}
			d.Acceptance = epr
			r.Plan.Detail, err = json.Marshal(d)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		who.mu.Lock()
		defer who.mu.Unlock()
		if len(who.told) != 1 || who.told[0] != "accept mine" {
			t.Errorf("told is %q\n%s", who.told, g.story(key))
		}
	}, calls, whole)
}

// One who never answers is given up, over starts too.
func TestDecisionIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		who := &initiator{fail: 1 << 20}
		door := agreement.NewAcceptanceServer(who, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
		st := mem.New()
		defer st.Close()
		sites := one(2)
		defer sites[0].world.Close()
		open := func() *gateway {
			return start(t, st, sites, whole, func(_ *broker.Config, o *Options) {
				o.Callbacks, o.Transport = []string{"initiator.example"}, inside{door}
			})
		}
		g := open()
		from := time.Now().Add(time.Hour)
		fill(t, g, from)
		key, err := g.pending("ada", g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, 1)).say("window", window(from, from.Add(time.Hour))), "http://initiator.example/")
		if err != nil {
			t.Fatal(err)
		}
		g.ends(key)
		for range 5 {
			time.Sleep(time.Minute)
			g.stop()
			g = open()
		}
		time.Sleep(time.Hour)
		n, err := noteOf(new(g.record(key)))
		if err != nil || !n.Told || n.Tries != mostTries || !strings.Contains(g.story(key), "could not be told of the decision") {
			t.Errorf("%+v %v\n%s", n, err, g.story(key))
		}
		called := func() int {
			who.mu.Lock()
			defer who.mu.Unlock()
			return 1<<20 - who.fail
		}
		calls := called()
		g.stop()
		g = open()
		time.Sleep(time.Hour)
		if again := called(); again != calls || calls != mostTries {
			t.Errorf("it was called %d times, and %d after it was given up", calls, again-calls)
		}
		g.stop()
	})
}

// What a manager refuses is had elsewhere, and else refused with what it said.
func TestManagerRefuses(t *testing.T) {
	sites := []site{{name: "here", world: fake.NewWorld(2)}, {name: "there", world: fake.NewWorld(2)}}
	alone(t, sites, func(t *testing.T, g *gateway) {
		from := time.Now().Add(time.Hour)
		fill(t, g, from)
		reserve := func(template string) offering {
			return g.by("ada", template).say("job", job("sleep 60", 0, 1)).say("window", window(from, from.Add(time.Hour)))
		}
		_, err := g.offer("ada", reserve("advance-reservation@here/fake"))
		if !strings.Contains(refusal(t, err, agreement.NoCapacity).Error(), "the manager of the site here") {
			t.Errorf("%v", err)
		}
		key := g.must("ada", reserve("advance-reservation"))
		if r := g.record(key); r.Plan.Name != "there/fake" {
			t.Errorf("%s", g.story(key))
		}
		if r := g.ends(key); r.State != agreement.Complete || g.guarantee(key, "start").State != agreement.Fulfilled {
			t.Errorf("%s", g.story(key))
		}
	}, whole)
}

// Two gateways on one store promise nothing twice, and one goes on with what the other left.
func TestTwoServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := mem.New()
		defer st.Close()
		w := fake.NewWorld(8)
		defer w.Close()
		sites := []site{{name: "here", world: w, options: fake.Options{NoReserve: true}}}
		named := func(name string) func(*broker.Config, *Options) {
			return func(c *broker.Config, o *Options) {
				c.Replica = name
				o.Settings.Promise = 100
				o.Join = func(ctx context.Context) (store.Session, error) { return st.Join(ctx, name+"-agreements") }
			}
		}
		a, b := start(t, st, sites, named("a")), start(t, st, sites, named("b"))
		defer b.stop()
		defer a.stop()
		by := time.Now().Add(2*time.Hour + time.Minute)
		var mu sync.Mutex
		var keys []string
		var wg sync.WaitGroup
		for i := range 40 {
			g := []*gateway{a, b}[i%2]
			o := g.by("ada", "finish-by@here/fake").say("job", job("sleep 3000", 2*time.Hour, 1)).say("finishBy", finishBy(by))
			wg.Go(func() {
				key, err := g.offer("ada", o)
				if err != nil {
					refusal(t, err, agreement.NoCapacity)
					return
				}
				mu.Lock()
				keys = append(keys, key)
				mu.Unlock()
			})
		}
		wg.Wait()
		if len(keys) != 8 {
			t.Errorf("%d were accepted; there is room for 8", len(keys))
		}
		time.Sleep(10 * time.Minute)
		a.stop()
		for _, key := range keys {
			if r := b.ends(key); r.State != agreement.Complete || len(r.Jobs) != 1 {
				t.Errorf("%s", b.story(key))
			}
			if b.guarantee(key, "finish").State != agreement.Fulfilled {
				t.Errorf("%s", b.story(key))
			}
		}
	})
}

// fill has the manager of the site here keep all of it for somebody else.
func fill(t *testing.T, g *gateway, from time.Time) {
	t.Helper()
	if _, err := g.broker.Reserve(t.Context(), "here", "zoe", adapters.Reservation{Tag: "others", CPUs: 2, From: from.Add(-time.Minute), Until: from.Add(2 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
}
