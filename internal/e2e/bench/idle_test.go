package bench

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/peering"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

const (
	idleSessions = 10_000
	idleBeat     = 10 * time.Second
	idleTurn     = idleBeat
	usualBeat    = 30 * time.Second // unless a peer is asked for another
)

// silent says nothing and counts the sessions.
type silent struct{ up *atomic.Int64 }

func (s silent) Opened(string, session.Agreement)              { s.up.Add(1) }
func (silent) Turned(string, session.Turn)                     {}
func (silent) Draining(string, string)                         {}
func (silent) Closed(string, wire.CloseReason, string)         {}
func (silent) Free(string)                                     {}
func (silent) Deliver(_ string, _ []wire.Message, done func()) { done() }

// idle has a domain keep many sessions in which nothing happens: its engine, broker and etcd are there,
// and messages go through SOAP and XML, though not through sockets. Both ends of all sessions are in this
// process.
func idle(b *testing.B) {
	b.Helper()
	d := openDomain(b, "hub.example", architectures[0])
	keys, network := peertest.NewKeys(d.name), new(peertest.Network)
	url := "http://" + d.name + "/peer"
	door := peers.NewServer(peers.ServerOptions{Trust: keys.Trust(d.name)})
	network.Serve(d.name, door)
	before := heap()
	var tables sync.WaitGroup
	e, err := peering.New(peering.Options{
		Domain: d.name, Store: d.store, Link: nowhere{}, Jobs: peering.OfBroker(d.broker),
		Serve: func(ctx context.Context, _ store.Session) error { <-ctx.Done(); return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	d.run(b, func() error { return e.Run(d.ctx) })
	t, err := peers.New(peers.Options{
		Domain: d.name, Endpoint: url, Trust: keys.Trust(d.name), Handler: &peering.Handler{Engine: e, Context: d.ctx},
		Transport: func(peers.Peer) (http.RoundTripper, error) { return network.From(d.name), nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	tables.Go(func() { _ = t.Run(d.ctx) })
	door.Serve(t)
	var up atomic.Int64
	var all []*peers.Table
	for i := range idleSessions {
		name := fmt.Sprintf("p%d.example", i)
		keys.Set(name, "x")
		server := peers.NewServer(peers.ServerOptions{Trust: keys.Trust(name)})
		other, err := peers.New(peers.Options{
			Domain: name, Endpoint: "http://" + name + "/peer", Trust: keys.Trust(name), Handler: silent{&up},
			Transport: func(peers.Peer) (http.RoundTripper, error) { return network.From(name), nil },
		})
		if err != nil {
			b.Fatal(err)
		}
		server.Serve(other)
		network.Serve(name, server)
		tables.Go(func() { _ = other.Run(d.ctx) })
		all = append(all, other)
		if err := t.Add(peers.Peer{Domain: name, Provides: true, Beat: idleBeat, Lost: 10 * time.Minute}); err != nil {
			b.Fatal(err)
		}
		if err := other.Add(peers.Peer{Domain: d.name, URL: url, Consumes: true, Beat: idleBeat, Lost: 10 * time.Minute}); err != nil {
			b.Fatal(err)
		}
	}
	for up.Load() < idleSessions {
		<-time.After(50 * time.Millisecond)
	}
	each := float64(heap()-before) / (2 * idleSessions)
	beats := func() (sum uint64) {
		for _, s := range t.Sessions() {
			sum += s.In.Messages
		}
		return sum
	}
	revision := func() int64 {
		_, at, err := d.store.ListRecords(b.Context(), "peers/", store.RecordOptions{Limit: 1})
		if err != nil {
			b.Fatal(err)
		}
		return at
	}
	at, had, began, used := revision(), beats(), time.Now(), processor()
	<-time.After(idleTurn)
	took, spent, n, revisions := time.Since(began), processor()-used, beats()-had, revision()-at
	alive := 0
	for _, s := range t.Sessions() {
		if s.Phase == session.Alive {
			alive++
		}
	}
	runtime.KeepAlive(all)
	if alive != idleSessions || n == 0 {
		b.Fatalf("%d sessions of %d are alive, and said %d words in %v", alive, idleSessions, n, took)
	}
	beat := spent.Seconds() / 2 / float64(n) // of one side
	share := 100 * beat * idleSessions / usualBeat.Seconds()
	fmt.Printf("8  %d idle sessions, one side        %8.1f %% of a processor at a beat of %v (%.0f µs for each)\n", idleSessions, share, usualBeat, beat*1e6)
	fmt.Printf("   memory of each                          %8.0f bytes\n", each)
	fmt.Printf("   revisions of etcd in %v, %d beats   %8d     (aim 0)\n", took.Round(time.Second), n, revisions)
	b.ReportMetric(share, "%processor/10k-idle")
	b.ReportMetric(each, "bytes/idle-session")
	b.ReportMetric(float64(revisions), "revisions")
	d.close(b)
	tables.Wait()
}

// nowhere is the Link of an engine with nothing to say.
type nowhere struct{}

func (nowhere) Put(string, ...wire.Message) error { return nil }

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
