package peers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

const (
	domA = "a.example"
	domB = "b.example"
)

// world are two gateways on a network in memory, peers of each other.
type world struct {
	net  *peertest.Network
	keys *peertest.Keys
	a, b *peertest.Gateway
	put  map[string]int
}

// pair gives what two gateways say of each other; out has a without endpoint.
func pair(out bool) (ofB, ofA peers.Peer) {
	ofB = peers.Peer{Domain: domB, URL: "http://" + domB + "/peer", Consumes: true, Provides: true, Beat: 10 * time.Second, Lost: time.Minute, Window: 64}
	ofA = peers.Peer{Domain: domA, URL: "http://" + domA + "/peer", Consumes: true, Provides: true, Beat: 10 * time.Second, Lost: time.Minute, Window: 64}
	if out {
		ofA.URL, ofB.OutboundOnly = "", true
	}
	return ofB, ofA
}

func newWorld(t *testing.T, out bool) *world {
	t.Helper()
	w := &world{net: new(peertest.Network), keys: peertest.NewKeys(domA, domB), put: map[string]int{}}
	w.a = peertest.NewGateway(t, w.net, w.keys, domA)
	w.b = peertest.NewGateway(t, w.net, w.keys, domB)
	t.Cleanup(w.net.Wait)
	synctest.Wait() // until they run
	ofB, ofA := pair(out)
	must(t, w.b.Table.Add(ofA))
	must(t, w.a.Table.Add(ofB))
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func query(from string, n int) *wire.Query {
	return &wire.Query{About: wire.About{Origin: from, ID: fmt.Sprint(n), Token: "1"}}
}

// send puts n items from one gateway to the other.
func (w *world) send(t *testing.T, from *peertest.Gateway, n int) {
	t.Helper()
	to := domB
	if from == w.b {
		to = domA
	}
	var items []wire.Message
	for range n {
		items = append(items, query(from.Domain, w.put[from.Domain]))
		w.put[from.Domain]++
	}
	must(t, from.Table.Put(to, items...))
}

// got checks that a gateway got the other's items, each once and in order.
func (w *world) got(t *testing.T, at *peertest.Gateway, from string) {
	t.Helper()
	items := at.Seen.Items(from)
	for i, m := range items {
		if q := m.(*wire.Query); q.ID != fmt.Sprint(i) || q.Origin != from {
			t.Fatalf("item %d at %s is %s of %s", i, at.Domain, q.ID, q.Origin)
		}
	}
	if len(items) != w.put[from] {
		t.Fatalf("%d items of %s came to %s; %d were put\n%s", len(items), from, at.Domain, w.put[from], w)
	}
}

func status(t *testing.T, g *peertest.Gateway, domain string) peers.Status {
	t.Helper()
	s, err := g.Table.Session(domain)
	must(t, err)
	return s
}

func phase(t *testing.T, g *peertest.Gateway, domain string, want session.Phase) {
	t.Helper()
	if s := status(t, g, domain); s.Phase != want {
		t.Fatalf("at %s the session with %s is %q (%s; %s), not %q\n%v", g.Domain, domain, s.Phase, s.Reason, s.Trouble, want, g.Seen.Events())
	}
}

func (w *world) alive(t *testing.T) {
	t.Helper()
	phase(t, w.a, domB, session.Alive)
	phase(t, w.b, domA, session.Alive)
	a, b := status(t, w.a, domB), status(t, w.b, domA)
	if a.Session != b.Session {
		t.Fatalf("a has the session %s and b %s", a.Session, b.Session)
	}
}

func (w *world) String() string {
	s := ""
	for _, g := range []*peertest.Gateway{w.a, w.b} {
		s += fmt.Sprintf("%s: %s\n", g.Domain, strings.Join(g.Seen.Events(), "; "))
		for _, st := range g.Table.Sessions() {
			s += fmt.Sprintf("  %s %s %s (%s) unacknowledged %d undone %d in %v out %v trouble %q\n", st.Peer.Domain, st.Session, st.Phase, st.Reason, st.Unacknowledged, st.Undone, st.In, st.Out, st.Trouble)
		}
	}
	return s
}

// pass lets time go by, and what is due happen.
func pass(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func events(t *testing.T, g *peertest.Gateway, want ...string) {
	t.Helper()
	if got := g.Seen.Events(); !slices.Equal(got, want) {
		t.Fatalf("%s was told\n%s\nand not\n%s", g.Domain, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func kind(t *testing.T, err error, want fail.Kind) {
	t.Helper()
	if !fail.Is(err, want) {
		t.Fatalf("the error is %v and not %v", err, want)
	}
}
