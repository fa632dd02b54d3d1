package identity_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// Whole sessions under this package's trust: over mutual TLS, signed and not, by CA and by
// key, and signed without TLS, as behind a proxy that ends it.
func TestSessions(t *testing.T) {
	for _, c := range []struct {
		signatures identity.Signatures
		tls, out   bool
	}{{identity.Required, true, false}, {identity.Required, true, true}, {identity.Off, true, false}, {identity.Required, false, false}} {
		t.Run(fmt.Sprintf("%s tls=%v out=%v", c.signatures, c.tls, c.out), func(t *testing.T) {
			var own [2]*identity.Identity
			domains := [2]string{"bsc.example", "fiu.example"}
			for i, d := range domains {
				var err error
				if own[i], err = identity.Open(identity.Options{Domain: d, Dir: filepath.Join(t.TempDir(), "identity")}); err != nil {
					t.Fatal(err)
				}
			}
			anchors := [2]identity.Anchor{byKey(own[0]), byCA(own[1])}
			var tables [2]*peers.Table
			var seen [2]*peertest.Recorder
			var urls [2]string
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			t.Cleanup(func() { cancel(); wg.Wait() })
			for i, d := range domains {
				g := &identity.Gateway{Identity: own[i], Trusted: trust(t, anchors[1-i]), Signatures: c.signatures}
				server := peers.NewServer(peers.ServerOptions{Trust: g})
				h := httptest.NewUnstartedServer(server)
				if c.tls { // httptest would show a certificate of its own
					h.Listener = tls.NewListener(h.Listener, g.ServerTLS())
				}
				h.Start()
				t.Cleanup(h.Close)
				urls[i], seen[i] = h.URL+"/peer", new(peertest.Recorder)
				if c.tls {
					urls[i] = strings.Replace(urls[i], "http:", "https:", 1)
				}
				g.Endpoint = urls[i]
				var err error
				if tables[i], err = peers.New(peers.Options{Domain: d, Endpoint: urls[i], Trust: g, Handler: seen[i]}); err != nil {
					t.Fatal(err)
				}
				server.Serve(tables[i])
				wg.Go(func() {
					if err := tables[i].Run(ctx); err != nil {
						t.Error(err)
					}
				})
			}
			for i := range domains {
				p := peers.Peer{Domain: domains[1-i], URL: urls[1-i], Provides: true, Consumes: true, Beat: time.Second}
				if c.out && i == 1 {
					p.URL = ""
				} else if c.out {
					p.OutboundOnly = true
				}
				if err := tables[i].Add(p); err != nil {
					t.Fatal(err)
				}
			}
			late := time.After(2 * time.Minute)
			wait := func(i int, ok func() bool) {
				t.Helper()
				for {
					changed := seen[i].Changed()
					if ok() {
						return
					}
					select {
					case <-changed:
					case <-late:
						t.Fatalf("%+v %v", tables[i].Sessions(), seen[i].Events())
					}
				}
			}
			for i := range domains {
				other := domains[1-i]
				wait(i, func() bool {
					s, err := tables[i].Session(other)
					return err == nil && s.Phase == session.Alive
				})
				q := &wire.Query{About: wire.About{Origin: domains[i], ID: "1", Token: "1"}}
				if err := tables[i].Put(other, q); err != nil {
					t.Fatal(err)
				}
			}
			for i := range domains {
				wait(i, func() bool { return len(seen[i].Items(domains[1-i])) == 1 })
			}
		})
	}
}
