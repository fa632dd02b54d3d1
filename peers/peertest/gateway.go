package peertest

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/portolan-project/portolan/peers"
)

// Gateway is one domain in a test.
type Gateway struct {
	Domain string
	Table  *peers.Table
	Server *peers.Server
	Seen   *Recorder

	options peers.Options
	cancel  context.CancelFunc
	ended   sync.WaitGroup
}

// NewGateway makes a gateway on a network in memory, reached at http://DOMAIN/peer, and
// starts it. adapt may change its options. It is killed with the test.
func NewGateway(t testing.TB, n *Network, keys *Keys, domain string, adapt ...func(*peers.Options)) *Gateway {
	t.Helper()
	g := &Gateway{Domain: domain, Seen: new(Recorder)}
	g.options = peers.Options{
		Domain: domain, Software: "peertest", Endpoint: "http://" + domain + "/peer", Trust: keys.Trust(domain), Handler: g.Seen,
		Transport: func(peers.Peer) (http.RoundTripper, error) { return n.From(domain), nil },
	}
	for _, f := range adapt {
		f(&g.options)
	}
	g.Server = peers.NewServer(peers.ServerOptions{Trust: g.options.Trust})
	n.Serve(domain, g.Server)
	g.Start(t)
	t.Cleanup(g.Kill)
	return g
}

// URL is where it is reached.
func (g *Gateway) URL() string { return "http://" + g.Domain + "/peer" }

// Start makes a table without peers and runs it: another instance each time.
func (g *Gateway) Start(t testing.TB) {
	t.Helper()
	table, err := peers.New(g.options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // it outlives the test's own
	g.Table, g.cancel = table, cancel
	g.Server.Serve(table)
	g.ended.Go(func() {
		if err := table.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

// Kill ends it as a crash does.
func (g *Gateway) Kill() {
	g.cancel()
	g.ended.Wait()
}
