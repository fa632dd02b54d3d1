package gateway

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/members"
	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// world is two domains, home and fiu, of which the first gives jobs to the second.
type world struct {
	t       testing.TB
	network *peertest.Network
	keys    *peertest.Keys
	homes   map[string]*house
	ctx     context.Context //nolint:containedctx // it lives as long as the test
	all     sync.WaitGroup
}

// house is one domain: a store, a broker with a site, and the replicas of its gateway.
type house struct {
	w        *world
	domain   string
	identity *identity.Identity
	users    *identity.Users
	signer   *identity.Gateway
	st       store.Store
	model    *modelstore.Model
	broker   *broker.Broker
	site     *fake.World
	mu       sync.Mutex
	replicas []*replica
}

type replica struct {
	*Gateway
	door *peers.Server
	stop func()
}

const (
	home = "home.example"
	fiu  = "fiu.example"
)

// testTerms end in minutes what takes hours else.
var testTerms = wire.Terms{Lease: 10 * time.Minute, Skew: time.Second, StopWithin: 10 * time.Second, Resend: 10 * time.Second, Keep: time.Hour}

// in runs a test in a bubble, with its two domains and one replica of each; what it began has ended after it.
func in(t *testing.T, admission routing.Admission, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		w := &world{t: t, network: new(peertest.Network), keys: peertest.NewKeys(home, fiu), homes: map[string]*house{}, ctx: ctx}
		for _, d := range []string{home, fiu} {
			w.build(d)
		}
		for d, other := range map[string]string{home: fiu, fiu: home} {
			h, o := w.homes[d], w.homes[other]
			if err := h.signer.Trusted.Set([]identity.Anchor{{Domain: other, Pins: []identity.Pin{o.identity.Current().Pin()}}}); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range []string{home, fiu} {
			w.homes[d].replicate("one", admission)
		}
		// Also after a failure: what still runs would hide it behind a deadlock of the bubble.
		defer func() {
			for _, h := range w.homes {
				for _, r := range h.replicas {
					r.stop()
				}
			}
			cancel()
			w.all.Wait()
			for _, h := range w.homes {
				h.broker.Close()
				h.site.Close()
				_ = h.st.Close()
			}
			w.network.Wait()
		}()
		test(t, w)
	})
}

func (w *world) build(domain string) {
	t := w.t
	t.Helper()
	h := &house{w: w, domain: domain, st: mem.New(), site: fake.NewWorld(4)}
	w.homes[domain] = h
	var err error
	if h.identity, err = identity.Open(identity.Options{Domain: domain, Dir: filepath.Join(t.TempDir(), "identity")}); err != nil {
		t.Fatal(err)
	}
	trusted, err := identity.NewTrust()
	if err != nil {
		t.Fatal(err)
	}
	h.signer = &identity.Gateway{Identity: h.identity, Trusted: trusted}
	h.users = identity.NewUsers(h.signer)
	if err := h.users.SetMapping(identity.Mapping{{User: "mallory", Refuse: "mallory runs nothing here"}, {Account: "guest"}}); err != nil {
		t.Fatal(err)
	}
	if h.model, err = modelstore.Open(w.ctx, h.st, modelstore.Options{Domain: domain}); err != nil {
		t.Fatal(err)
	}
	if h.broker, err = broker.New(broker.Config{
		Store: h.st, Domain: domain, Model: h.model, BaseURL: func() string { return "http://" + domain + "/bes" }, Jitter: func() float64 { return 0.5 },
		Sites: []broker.Site{{Name: "local-" + domain, Adapter: h.site.Open(fake.Options{})}},
	}); err != nil {
		t.Fatal(err)
	}
	w.all.Go(func() { _ = h.model.Run(w.ctx) })
	w.all.Go(func() {
		if err := h.broker.Run(w.ctx); err != nil {
			t.Error(err)
		}
	})
	<-h.broker.Ready()
	// Requests come to the replica that has the sessions, as by a balancer in front of them.
	w.network.Serve(domain, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		if len(h.replicas) == 0 {
			h.mu.Unlock()
			http.Error(rw, "no replica has started yet", http.StatusServiceUnavailable)
			return
		}
		to := h.replicas[0]
		for _, x := range h.replicas {
			if x.Table() != nil {
				to = x
			}
		}
		h.mu.Unlock()
		to.door.ServeHTTP(rw, r)
	}))
}

// replicate starts one more replica of the gateway.
func (h *house) replicate(name string, admission routing.Admission) *replica {
	t := h.w.t
	t.Helper()
	trust := h.w.keys.Trust(h.domain)
	r := &replica{door: peers.NewServer(peers.ServerOptions{Trust: trust})}
	var err error
	if r.Gateway, err = New(Options{
		Domain: h.domain, Replica: name, Software: "test", Endpoint: "http://" + h.domain + "/peer", Store: h.st, Model: h.model, Broker: h.broker, Trust: trust,
		Signer: h.signer, Users: h.users, Door: r.door,
		Transport: func(peers.Peer) (http.RoundTripper, error) { return h.w.network.From(h.domain), nil },
	}); err != nil {
		t.Fatal(err)
	}
	other := fiu
	if h.domain == fiu {
		other = home
	}
	r.Follow(members.Settings{Hops: 3, Routing: routing.Policy{Overload: time.Second, Recover: time.Second}, Members: []members.Member{{
		Peer: peers.Peer{
			Domain: other, URL: "http://" + other + "/peer", Provides: h.domain == fiu, Consumes: h.domain == home, Shows: wire.Full, VOs: []string{"bio"},
			Beat: 5 * time.Second, Lost: 30 * time.Second, Terms: testTerms,
		},
		Admission: admission, Export: routing.Exporting{Detail: resourcemodel.Full},
	}}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the replica %s of %s ended: %v", name, h.domain, err)
		}
	})
	h.mu.Lock()
	h.replicas = append(h.replicas, r)
	h.mu.Unlock()
	return r
}

// alive waits until the domains have a session, and the one knows what the other shows.
func (w *world) alive() {
	w.t.Helper()
	for range 120 {
		time.Sleep(time.Second)
		synctest.Wait()
		for _, r := range w.homes[home].replicas {
			if t := r.Table(); t != nil {
				s, err := t.Session(fiu)
				if st, ok := r.Showing.Status(fiu); err == nil && s.Phase == session.Alive && ok && st.Sites > 0 {
					return
				}
			}
		}
	}
	w.t.Fatal("there is no session")
}

func as(name string) context.Context {
	return soap.WithPrincipal(context.Background(), soap.Principal{Name: name, Method: "none"})
}

func document(script, more string) []byte {
	return []byte(`<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:p="` + jsdl.NSPOSIX + `" xmlns:q="` + jsdl.NSPortolan + `"><jsdl:JobDescription>` +
		`<jsdl:Application><p:POSIXApplication><p:Executable>fake:` + script + `</p:Executable></p:POSIXApplication></jsdl:Application>` + more + `</jsdl:JobDescription></jsdl:JobDefinition>`)
}

func (h *house) submit(script, more string) soap.EPR {
	h.w.t.Helper()
	r, err := h.broker.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document(script, more)})
	if err != nil {
		h.w.t.Fatal(err)
	}
	return r.Activity
}

func (h *house) status(a soap.EPR) bes.Status {
	h.w.t.Helper()
	rs, err := h.broker.GetActivityStatuses(as("ada"), &bes.StatusRequest{Activities: []soap.EPR{a}})
	if err != nil || rs[0].Err != nil {
		h.w.t.Fatal(err, rs)
	}
	return rs[0].Status
}

// until waits for a job's state.
func (h *house) until(a soap.EPR, state bes.State, sub string) bes.Status {
	h.w.t.Helper()
	for range 7200 {
		if s := h.status(a); s.State == state && (sub == "" || len(s.SubStates) == 1 && s.SubStates[0].Local == sub) {
			return s
		}
		time.Sleep(time.Second)
		synctest.Wait()
	}
	h.w.t.Fatalf("it is not %s: %+v", state, h.status(a))
	return bes.Status{}
}

const pinned = `<jsdl:Resources><jsdl:CandidateHosts><jsdl:HostName>` + fiu + `</jsdl:HostName></jsdl:CandidateHosts></jsdl:Resources>`

// TestAdmit: which jobs of a peer are taken, as whom they run, and what the others are told at once.
func TestAdmit(t *testing.T) {
	in(t, routing.Admission{MostJobs: 5}, func(t *testing.T, w *world) {
		w.alive()
		g, from := w.homes[fiu].replicas[0], w.homes[home]
		deadline := time.Now().Add(5 * time.Minute)
		limited := strings.Replace(string(document("exit 0", "")), "</p:POSIXApplication>", "<p:WallTimeLimit>600</p:WallTimeLimit></p:POSIXApplication>", 1)
		for i, c := range []struct {
			name, from, user, document string
			deadline                   time.Time
			here                       int
			kind                       fail.Kind
			says                       string
		}{
			{name: "good"},
			{name: "good, in time", deadline: deadline},
			{name: "too late", document: limited, deadline: deadline, kind: fail.Unsupported, says: "a job that may run for 10m can't be sure to have ended by then"},
			{name: "far too late", deadline: time.Now().Add(-time.Minute), kind: fail.Unsupported, says: "which has passed"},
			{name: "a stranger", from: "ibm.example", kind: fail.Denied, says: "the domain ibm.example is no peer of " + fiu},
			{name: "a user who is refused", user: "mallory", kind: fail.Denied, says: "mallory runs nothing here"},
			{name: "too many", here: 5, kind: fail.Exhausted, says: "5 jobs of " + home + " are here, and 5 may be"},
			{name: "no document", document: "<x/>", kind: fail.Invalid},
			{name: "no program", document: string(document("unsupported no such thing", "")), kind: fail.Unsupported, says: "no such thing"},
			{name: "another's assertion", document: string(document("exit 1", "")), user: "-", kind: fail.Unauthenticated},
		} {
			key := handover.Key{Origin: home, ID: "0192b1a0-0000-7000-8000-00000000000" + string(rune('0'+i))}
			doc := string(document("exit 0", ""))
			if c.document != "" {
				doc = c.document
			}
			user, vouched := c.user, doc
			switch user {
			case "":
				user = "ada"
			case "-":
				user, vouched = "ada", doc+" "
			}
			sum, err := from.users.Vouch(t.Context(), fiu, key, user, "bio", vouched, time.Now().Add(10*time.Minute), nil)
			if err != nil {
				t.Fatal(err)
			}
			r := &wire.Route{
				About: wire.About{Origin: home, ID: key.ID, Token: "1"}, RecallBy: time.Now().Add(5 * time.Minute), Hops: 1, Deadline: c.deadline, VO: "bio",
				Path: []string{home}, Document: doc, Assertion: sum,
			}
			peer := home
			if c.from != "" {
				peer = c.from
			}
			got, err := g.Admit(t.Context(), peer, r, c.here)
			if c.kind == 0 {
				if err != nil || got.Owner != "ada@"+home || got.Account != "guest" || got.VO != "bio" {
					t.Errorf("%s: %+v, %v", c.name, got, err)
				}
			} else if !fail.Is(err, c.kind) || !strings.Contains(fail.Sentence(err), c.says) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		// Home takes none of fiu's.
		if _, err := w.homes[home].replicas[0].Admit(t.Context(), fiu, &wire.Route{}, 0); !fail.Is(err, fail.Denied) {
			t.Errorf("it is not said that no jobs are taken: %v", err)
		}
	})
}

// TestQuotas: the peer is told how many jobs it may have and has, and what its VO may use and uses.
func TestQuotas(t *testing.T) {
	in(t, routing.Admission{MostJobs: 7}, func(t *testing.T, w *world) {
		w.alive()
		h, f := w.homes[home], w.homes[fiu]
		five := 5
		if err := f.broker.SetLimit(as("root"), limits.Subject{Scope: limits.VO, Name: "bio"}, &five); err != nil {
			t.Fatal(err)
		}
		a := h.submit("sleep 1h", strings.Replace(pinned, "</jsdl:Resources>", "<q:Placement><q:VO>bio</q:VO></q:Placement></jsdl:Resources>", 1))
		h.until(a, bes.Running, "Executing")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		st, _ := h.replicas[0].Showing.Status(fiu)
		all := map[string]wire.Quota{}
		for _, q := range st.Quotas {
			if q.Measured.IsZero() {
				t.Errorf("%+v", q)
			}
			q.Measured = time.Time{}
			all[q.VO] = q
		}
		if want := (wire.Quota{MaxJobs: 7, Jobs: 1}); all[""] != want {
			t.Errorf("of all it is told %+v", all[""])
		}
		if want := (wire.Quota{VO: "bio", MaxJobs: 5, Jobs: 1, CPUs: 1}); all["bio"] != want || len(all) != 2 {
			t.Errorf("it is told %+v", st.Quotas)
		}
		// Home takes no jobs of fiu, and has no quota for it.
		if st, _ := f.replicas[0].Showing.Status(home); len(st.Quotas) != 0 {
			t.Errorf("fiu is told %+v", st.Quotas)
		}
	})
}

// TestStandby: one replica talks to the peers and the others stand by; when it ends, another goes
// on with the sessions and with what is under way, and no job runs twice.
func TestStandby(t *testing.T) {
	for _, domain := range []string{fiu, home} {
		t.Run(domain, func(t *testing.T) {
			in(t, routing.Admission{}, func(t *testing.T, w *world) {
				w.alive()
				h, f := w.homes[home], w.homes[fiu]
				a := h.submit("out hello; sleep 20m; exit 3", pinned)
				if s := h.until(a, bes.Running, "Executing"); s.Details.Site != fiu {
					t.Fatalf("it is at %s", s.Details.Site)
				}
				at := w.homes[domain]
				first, second := at.replicas[0], at.replicate("two", routing.Admission{})
				time.Sleep(time.Minute)
				synctest.Wait()
				if first.Table() == nil || second.Table() != nil {
					t.Fatal("the second replica talks to the peers though the first one does")
				}
				err := second.Showing.Deliver(t.Context(), fiu, nil, nil)
				if err != nil {
					t.Error(err)
				}
				if err := (link{second.Gateway}).Put(fiu, &wire.Query{}); !fail.Is(err, fail.Unavailable) {
					t.Errorf("the second replica sends: %v", err)
				}
				first.stop()
				if first.Table() != nil {
					t.Error("the first one talks on")
				}
				at.mu.Lock()
				at.replicas = []*replica{second}
				at.mu.Unlock()
				w.alive()
				b := h.submit("exit 4", pinned)
				if s := h.until(b, bes.Finished, ""); s.Details.ExitStatus == nil || *s.Details.ExitStatus != 4 {
					t.Errorf("what came after it ended as %+v", s)
				}
				if s := h.until(a, bes.Finished, ""); s.Details.ExitStatus == nil || *s.Details.ExitStatus != 3 || s.Details.Site != fiu {
					t.Errorf("what was under way ended as %+v", s)
				}
				for tag, n := range f.site.Ledger() {
					if n != 1 {
						t.Errorf("%s ran %d times", tag, n)
					}
				}
				if n := len(f.site.Ledger()); n != 2 {
					t.Errorf("%d jobs ran", n)
				}
			})
		})
	}
}
