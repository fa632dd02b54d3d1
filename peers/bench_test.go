package peers_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// crowd is one gateway with many peers, all in this process.
type crowd struct {
	hub  *peertest.Gateway
	keys *peertest.Keys
	net  *peertest.Network
	all  []*peers.Table
	up   atomic.Int64
	stop func()
}

// counter counts sessions and does nothing with items.
type quiet struct{ up *atomic.Int64 }

func (q quiet) Opened(string, session.Agreement)              { q.up.Add(1) }
func (quiet) Turned(string, session.Turn)                     {}
func (quiet) Draining(string, string)                         {}
func (quiet) Closed(string, wire.CloseReason, string)         {}
func (quiet) Free(string)                                     {}
func (quiet) Deliver(_ string, _ []wire.Message, done func()) { done() }

func newCrowd(b *testing.B, n int, beat time.Duration) *crowd {
	c := &crowd{keys: peertest.NewKeys("hub.example"), net: new(peertest.Network)}
	c.hub = peertest.NewGateway(b, c.net, c.keys, "hub.example", func(o *peers.Options) { o.Handler = quiet{&c.up} })
	ctx, cancel := context.WithCancel(context.Background()) // it outlives the test's own
	var wg sync.WaitGroup
	c.stop = func() { cancel(); wg.Wait() }
	b.Cleanup(c.stop)
	for i := range n {
		domain := fmt.Sprintf("p%d.example", i)
		c.keys.Set(domain, "x")
		server := peers.NewServer(peers.ServerOptions{Trust: c.keys.Trust(domain)})
		table, err := peers.New(peers.Options{
			Domain: domain, Endpoint: "http://" + domain + "/peer", Trust: c.keys.Trust(domain), Handler: quiet{new(atomic.Int64)},
			Transport: func(peers.Peer) (http.RoundTripper, error) { return c.net.From(domain), nil },
		})
		if err != nil {
			b.Fatal(err)
		}
		server.Serve(table)
		c.net.Serve(domain, server)
		wg.Go(func() { _ = table.Run(ctx) })
		c.all = append(c.all, table)
		if err := c.hub.Table.Add(peers.Peer{Domain: domain, Beat: beat, Lost: 10 * time.Minute}); err != nil {
			b.Fatal(err)
		}
		if err := table.Add(peers.Peer{Domain: "hub.example", URL: c.hub.URL(), Beat: beat, Lost: 10 * time.Minute}); err != nil {
			b.Fatal(err)
		}
	}
	return c
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// BenchmarkIdle has 10 000 sessions of one gateway, both sides in this process, in which
// nothing happens: CPU time of a beat, of both sides together (twice what one gateway
// takes), messages through SOAP and XML but not through sockets; and memory of one side.
func BenchmarkIdle(b *testing.B) {
	const n, beat = 10_000, 30 * time.Second
	before := heap()
	c := newCrowd(b, n, beat)
	for c.up.Load() < n {
		<-time.After(100 * time.Millisecond)
	}
	mem := float64(heap()-before) / (2 * n)
	count := func() (sum uint64) {
		for _, s := range c.hub.Table.Sessions() {
			sum += s.In.Messages
		}
		return sum
	}
	for b.Loop() {
		began, used, had := time.Now(), cpu(), count()
		<-time.After(2 * beat)
		took, spent, beats := time.Since(began), cpu()-used, count()-had
		b.ReportMetric(float64(spent.Microseconds())/float64(beats), "µs/beat")
		b.ReportMetric(100*spent.Seconds()/took.Seconds()/2, "%cpu/side")
	}
	b.ReportMetric(mem, "B/session")
	runtime.KeepAlive(c)
}

// BenchmarkItems puts routes through one session, with and without compression: items a
// second, and bytes of an item on the wire.
func BenchmarkItems(b *testing.B) {
	document := strings.Repeat("<jsdl:Argument>--input=/data/run/0000</jsdl:Argument>", 40) // about 2 kB
	for _, kind := range []string{"query", "route"} {
		b.Run(kind, func(b *testing.B) {
			keys, net := peertest.NewKeys(domA, domB), new(peertest.Network)
			var up atomic.Int64
			a := peertest.NewGateway(b, net, keys, domA, func(o *peers.Options) { o.Handler = quiet{&up} })
			free := make(chan struct{}, 1)
			g := peertest.NewGateway(b, net, keys, domB, func(o *peers.Options) { o.Handler = &freer{free: free} })
			_ = a
			ofB, ofA := pair(false)
			ofB.Window, ofA.Window = 4096, 4096
			if err := g.Table.Add(ofA); err != nil {
				b.Fatal(err)
			}
			if err := a.Table.Add(ofB); err != nil {
				b.Fatal(err)
			}
			for up.Load() == 0 {
				<-time.After(10 * time.Millisecond)
			}
			i := 0
			for b.Loop() {
				var m wire.Message = query(domB, i)
				if kind == "route" {
					m = &wire.Route{About: wire.About{Origin: domB, ID: fmt.Sprint(i), Token: "1"}, Path: []string{domB}, RecallBy: time.Now(), Hops: 3, Document: document + fmt.Sprint(i)}
				}
				for g.Table.Put(domA, m) != nil {
					<-free
				}
				i++
			}
			for {
				s, err := g.Table.Session(domA)
				if err != nil {
					b.Fatal(err)
				}
				if s.Unacknowledged == 0 {
					b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "items/s")
					b.ReportMetric(float64(s.In.Bytes+s.Out.Bytes)/float64(i), "B/item")
					b.ReportMetric(float64(i)/float64(s.Out.Messages), "items/message")
					break
				}
				<-time.After(5 * time.Millisecond)
			}
		})
	}
}

// freer tells when there is room.
type freer struct {
	quiet
	free chan struct{}
}

func (f *freer) Opened(string, session.Agreement) {}
func (f *freer) Free(string) {
	select {
	case f.free <- struct{}{}:
	default:
	}
}
