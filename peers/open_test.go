package peers_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// Two that ask each other at the same moment come to one session, that of the domain which
// is first, however long the requests are on their way.
func TestAtOnce(t *testing.T) {
	for _, delay := range []time.Duration{0, 10 * time.Millisecond, time.Second, 4 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{net: new(peertest.Network), keys: peertest.NewKeys(domA, domB), put: map[string]int{}}
				w.net.Faults(func(_, _ string, _ *http.Request) peertest.Fault {
					return peertest.Fault{Delay: delay, Back: delay}
				})
				w.a, w.b = peertest.NewGateway(t, w.net, w.keys, domA), peertest.NewGateway(t, w.net, w.keys, domB)
				synctest.Wait()
				ofB, ofA := pair(false)
				must(t, w.b.Table.Add(ofA))
				must(t, w.a.Table.Add(ofB))
				pass(20 * time.Second)
				w.alive(t)
				if s := status(t, w.a, domB); !s.Agreement.Opener || s.Sessions != 1 {
					t.Errorf("a's session: %+v", s)
				}
				if s := status(t, w.b, domA); s.Sessions != 1 {
					t.Errorf("b had %d sessions", s.Sessions)
				}
				w.send(t, w.a, 3)
				w.send(t, w.b, 3)
				pass(20 * time.Second)
				w.got(t, w.b, domA)
				w.got(t, w.a, domB)
			})
		})
	}
}

// An answer to OpenSession that is lost is asked for again: the same session comes to be.
func TestOpenedIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{net: new(peertest.Network), keys: peertest.NewKeys(domA, domB), put: map[string]int{}}
		n := 0
		var mu sync.Mutex
		w.net.Faults(func(_, _ string, r *http.Request) peertest.Fault {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasSuffix(r.Header.Get("SOAPAction"), `/OpenSession"`) {
				n++
			}
			return peertest.Fault{LoseAnswer: n < 3}
		})
		w.a, w.b = peertest.NewGateway(t, w.net, w.keys, domA), peertest.NewGateway(t, w.net, w.keys, domB)
		synctest.Wait()
		ofB, ofA := pair(true)
		must(t, w.b.Table.Add(ofA))
		must(t, w.a.Table.Add(ofB))
		pass(2 * time.Minute)
		w.alive(t)
		if s := status(t, w.b, domA); s.Sessions != 1 || n != 3 {
			t.Errorf("%d sessions with %d requests", s.Sessions, n)
		}
	})
}

// Who does not fit is told why, and asked again not too often; a change of mind helps.
func TestRefused(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(ofB *peers.Peer, w *world)
		mend  func(ofB *peers.Peer, w *world)
		want  string
	}{
		{"roles", func(p *peers.Peer, _ *world) { p.Role = wire.Parent }, func(p *peers.Peer, _ *world) { p.Role = wire.Peer }, "TermsRefused: one side says"},
		{"terms", func(p *peers.Peer, _ *world) {
			p.Terms = wire.Terms{Lease: 40 * time.Second, Skew: time.Second, StopWithin: time.Second, Resend: time.Second}
		}, func(p *peers.Peer, _ *world) { p.Terms = wire.Terms{} }, "TermsRefused: the shorter lease"},
		{"key", func(_ *peers.Peer, w *world) { w.keys.Set(domA, "") }, func(_ *peers.Peer, w *world) { w.keys.Set(domA, "password of "+domA) }, "NotTrusted"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{net: new(peertest.Network), keys: peertest.NewKeys(domA, domB), put: map[string]int{}}
				w.a, w.b = peertest.NewGateway(t, w.net, w.keys, domA), peertest.NewGateway(t, w.net, w.keys, domB)
				synctest.Wait()
				ofB, ofA := pair(false)
				ofA.URL = ""
				must(t, w.b.Table.Add(ofA))
				c.spoil(&ofB, w)
				must(t, w.a.Table.Add(ofB))
				pass(time.Second)
				s := status(t, w.a, domB)
				if s.Phase != "" || !strings.Contains(s.Trouble, c.want) || !strings.Contains(s.Reason, c.want) || s.NextTry.Before(time.Now().Add(10*time.Second)) {
					t.Fatalf("%+v", s)
				}
				kind(t, w.a.Table.Put(domB, query(domA, 1)), fail.Unavailable)
				pass(10 * time.Minute)
				if s := status(t, w.a, domB); s.Out.Messages > 20 {
					t.Errorf("%d requests in ten minutes", s.Out.Messages)
				}
				c.mend(&ofB, w)
				must(t, w.a.Table.Change(ofB))
				pass(time.Second)
				w.alive(t)
			})
		})
	}
}

func TestChange(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		out := !status(t, w.b, domA).Agreement.Dials
		ofB, _ := pair(out)
		ofB.Shows = wire.Full
		must(t, w.a.Table.Change(ofB))
		pass(time.Second)
		w.alive(t)
		if s := status(t, w.a, domB); s.Sessions != 1 || s.Peer.Shows != wire.Full {
			t.Errorf("what is shown made another session: %+v", s)
		}
		w.send(t, w.a, 5)
		ofB.VOs = []string{"bio"}
		must(t, w.a.Table.Change(ofB))
		pass(5 * time.Second)
		w.alive(t)
		if s := status(t, w.b, domA); s.Sessions != 2 || len(s.Agreement.Theirs.VOs) != 1 {
			t.Errorf("%+v", s)
		}
		w.got(t, w.b, domA)
		events(t, w.b, "a.example: opened", "a.example: draining", "a.example: closed drained", "a.example: opened")
	})
}

func TestRemove(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		out := !status(t, w.b, domA).Agreement.Dials
		_, ofA := pair(out)
		w.send(t, w.a, 5)
		must(t, w.b.Table.Remove(domA))
		kind(t, w.b.Table.Remove(domA), fail.NotFound)
		kind(t, w.b.Table.Put(domA, query(domB, 1)), fail.NotFound)
		pass(2 * time.Second)
		w.got(t, w.b, domA)
		s := status(t, w.a, domB)
		if s.Phase != "" || !strings.Contains(s.Reason, "drained") && !strings.Contains(s.Reason, "NotTrusted") {
			t.Errorf("%+v", s)
		}
		pass(5 * time.Minute)
		if s := status(t, w.a, domB); !strings.Contains(s.Trouble, "NotTrusted") {
			t.Errorf("%+v", s)
		}
		must(t, w.b.Table.Add(ofA))
		kind(t, w.b.Table.Add(ofA), fail.Conflict)
		must(t, w.a.Table.Retry(domB))
		pass(time.Second)
		w.alive(t)
		// Anew while the old one is still being drained.
		w.a.Seen.Hold = true
		w.send(t, w.b, 3)
		pass(time.Second)
		must(t, w.b.Table.Remove(domA))
		must(t, w.b.Table.Add(ofA))
		must(t, w.b.Table.Remove(domA))
		must(t, w.b.Table.Add(ofA))
		w.a.Seen.Release()
		pass(2 * time.Minute)
		w.alive(t)
	})
}

// late is a trust that knows nobody to call before it is told to.
type late struct {
	peers.Trust
	known *atomic.Bool
}

func (l late) ClientTLS(domain string) (*tls.Config, error) {
	if !l.known.Load() {
		return nil, fail.Errorf("test", fail.Denied, domain, "nothing is trusted for %s", domain)
	}
	return l.Trust.ClientTLS(domain)
}

// Who could not be called for want of trust is called once there is some.
func TestTrustThatComesLater(t *testing.T) {
	keys := peertest.NewKeys(domA, domB)
	b := newSite(t, domB, keys.Trust(domB), nil)
	known := new(atomic.Bool)
	a := newSite(t, domA, late{keys.Trust(domA), known}, nil)
	ofB, ofA := pair(true)
	ofB.URL = b.http.URL + "/peer"
	must(t, b.table.Add(ofA))
	must(t, a.table.Add(ofB))
	must(t, a.table.Retry(domB))
	if _, err := a.table.Session(domB); err != nil {
		t.Fatal(err)
	}
	known.Store(true)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for { // as a person would who tries again
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				if err := a.table.Retry(domB); err != nil {
					t.Error(err)
				}
			}
		}
	})
	until(t, a.seen, "the session is alive", isAlive(a, domB))
	close(stop)
	wg.Wait()
}

// A credit is kept to: who is slow is sent no more, and where the queue is full Put says so.
func TestFlood(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.b.Seen.Hold = true
		put := 0
		var err error
		for err == nil {
			if err = w.a.Table.Put(domB, query(domA, put)); err == nil {
				put++
			}
		}
		kind(t, err, fail.Exhausted)
		if put != 128 {
			t.Errorf("%d were put; the queue is 128", put)
		}
		kind(t, w.a.Table.Put(domB, query(domA, put), query(domA, put+1)), fail.Exhausted)
		pass(5 * time.Minute)
		w.alive(t)
		if n := len(w.b.Seen.Items(domA)); n != 64 {
			t.Errorf("%d came; the window is 64", n)
		}
		s := status(t, w.a, domB)
		if s.Unacknowledged != put || s.Room != 0 || time.Since(s.Oldest) < 5*time.Minute || status(t, w.b, domA).Undone != 64 {
			t.Errorf("%+v", s)
		}
		w.b.Seen.Release()
		pass(5 * time.Second)
		w.put[domA] = put
		w.got(t, w.b, domA)
		events(t, w.a, "b.example: opened", "b.example: free")
		if s := status(t, w.a, domB); s.Unacknowledged != 0 || s.Room != 128 {
			t.Errorf("%+v", s)
		}
	})
}

// What was not agreed on is not sent.
func TestFeatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{net: new(peertest.Network), keys: peertest.NewKeys(domA, domB), put: map[string]int{}}
		w.a, w.b = peertest.NewGateway(t, w.net, w.keys, domA), peertest.NewGateway(t, w.net, w.keys, domB)
		ofB, ofA := pair(false)
		ofA.Features = []string{wire.FeatureQuotas}
		must(t, w.b.Table.Add(ofA))
		must(t, w.a.Table.Add(ofB))
		pass(10 * time.Second)
		w.alive(t)
		read := &wire.Read{About: wire.About{Origin: domA, ID: "1", Token: "1"}, Request: 1, Stream: "stdout", Most: 1}
		kind(t, w.a.Table.Put(domB, read), fail.Unsupported)
		must(t, w.a.Table.Put(domB, &wire.Quotas{}))
		kind(t, w.a.Table.Put(domB, &wire.Heartbeat{}), fail.Invalid)
		kind(t, w.a.Table.Put(domB, &wire.Query{}), fail.Invalid)
		kind(t, w.a.Table.Put("c.example", query(domA, 1)), fail.NotFound)
		phase(t, w.a, domB, session.Alive)
	})
}

func TestWhatIsNoPeer(t *testing.T) {
	w := &world{keys: peertest.NewKeys(domA)}
	table, err := peers.New(peers.Options{Domain: domA, Trust: w.keys.Trust(domA), Handler: new(peertest.Recorder), MaxPeers: 1})
	must(t, err)
	good := peers.Peer{Domain: domB, URL: "https://b.example/peer"}
	for name, spoil := range map[string]func(*peers.Peer){
		"no domain":      func(p *peers.Peer) { p.Domain = "" },
		"its own domain": func(p *peers.Peer) { p.Domain = domA },
		"a bad domain":   func(p *peers.Peer) { p.Domain = "b example"; p.VOs = []string{""} },
		"no way":         func(p *peers.Peer) { p.URL = "" },
		"a bad URL":      func(p *peers.Peer) { p.URL = "ftp://b.example/" },
		"a password":     func(p *peers.Peer) { p.URL = "https://u:p@b.example/" },
		"a role":         func(p *peers.Peer) { p.Role = "cousin" },
		"a detail":       func(p *peers.Peer) { p.Shows = "some" },
		"a feature":      func(p *peers.Peer) { p.Features = []string{"teleport"} },
		"a beat":         func(p *peers.Peer) { p.Beat = time.Millisecond },
		"a lease":        func(p *peers.Peer) { p.Terms.Lease = time.Second },
	} {
		p := good
		spoil(&p)
		if err := table.Add(p); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", name, err)
		} else if !strings.Contains(err.Error(), ":") {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, table.Add(good))
	other := good
	other.Domain = "c.example"
	kind(t, table.Add(other), fail.Exhausted)
	kind(t, table.Change(other), fail.NotFound)
	kind(t, table.Retry("c.example"), fail.NotFound)
	kind(t, table.Put(domB, query(domA, 1)), fail.Unavailable)
	if _, err := peers.New(peers.Options{Domain: domA}); !fail.Is(err, fail.Invalid) {
		t.Errorf("%v", err)
	}
	must(t, table.Close(t.Context()))
}

// TestAnswerIsSlower: who agreed to a session speaks in it before its answer is there; that is no reason to end it.
func TestAnswerIsSlower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{net: new(peertest.Network), keys: peertest.NewKeys(domA, domB), put: map[string]int{}}
		w.net.Faults(func(_, _ string, r *http.Request) peertest.Fault {
			if strings.HasSuffix(r.Header.Get("SOAPAction"), `/OpenSession"`) {
				return peertest.Fault{Back: 3 * time.Second}
			}
			return peertest.Fault{}
		})
		w.a, w.b = peertest.NewGateway(t, w.net, w.keys, domA), peertest.NewGateway(t, w.net, w.keys, domB)
		synctest.Wait()
		ofB, ofA := pair(false)
		ofA.URL = "" // b waits for a
		must(t, w.b.Table.Add(ofA))
		must(t, w.a.Table.Add(ofB))
		pass(time.Second)
		w.send(t, w.b, 3)
		pass(20 * time.Second)
		w.alive(t)
		w.got(t, w.a, domB)
		events(t, w.a, "b.example: opened")
		events(t, w.b, "a.example: opened")
	})
}

// TestMoved: a peer that came back at another port is called where it says that it is, though its
// URL is known; when that answers no more, at its URL again.
func TestMoved(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		if !status(t, w.a, domB).Agreement.Dials {
			return // there is nobody to be called
		}
		const old = "old.example"
		ofB, _ := pair(!status(t, w.b, domA).Agreement.Dials)
		ofB.URL = "http://" + old + "/peer"
		must(t, w.a.Table.Change(ofB)) // as b was reached before it came back elsewhere
		w.send(t, w.a, 5)
		pass(time.Minute)
		w.alive(t)
		w.got(t, w.b, domA)
		if s := status(t, w.a, domB); s.Endpoint != w.b.URL() {
			t.Errorf("it is called at %s", s.Endpoint)
		}
		w.net.Serve(old, w.b.Server)
		w.net.Serve(domB, nil)
		w.send(t, w.a, 5)
		pass(time.Minute)
		w.alive(t)
		w.got(t, w.b, domA)
		if s := status(t, w.a, domB); s.Endpoint != ofB.URL {
			t.Errorf("it is called at %s", s.Endpoint)
		}
	})
}
