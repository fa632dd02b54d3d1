package peering

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// atTable is the handler of a table that outlives engines.
type atTable struct{ g *gate }

func (a atTable) with(f func(*Handler)) bool {
	e := a.g.engine()
	if e != nil {
		f(&Handler{Engine: e})
	}
	return e != nil
}

func (a atTable) Opened(d string, x session.Agreement) { a.with(func(h *Handler) { h.Opened(d, x) }) }

func (a atTable) Turned(d string, t session.Turn) { a.with(func(h *Handler) { h.Turned(d, t) }) }

func (a atTable) Draining(d, s string) { a.with(func(h *Handler) { h.Draining(d, s) }) }
func (a atTable) Free(d string)        { a.with(func(h *Handler) { h.Free(d) }) }

func (a atTable) Closed(d string, r wire.CloseReason, s string) {
	a.with(func(h *Handler) { h.Closed(d, r, s) })
}

func (a atTable) Deliver(d string, items []wire.Message, done func()) {
	if !a.with(func(h *Handler) { h.Deliver(d, items, done) }) {
		done()
	}
}

// TestTable: jobs over real sessions, SOAP and HTTP included; cut for a while, and with the
// sessions of a gateway lost; one side can't be reached by the other in turn.
func TestTable(t *testing.T) {
	for _, outbound := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			network, keys := new(peertest.Network), peertest.NewKeys("a", "b")
			defer network.Wait()
			gws := map[string]*peertest.Gateway{}
			for d, g := range w.gates {
				g.start()
				gws[d] = peertest.NewGateway(t, network, keys, d, func(o *peers.Options) { o.Handler = atTable{g} })
			}
			w.mu.Lock()
			w.tables = func(d string) *peers.Table { return gws[d].Table }
			w.mu.Unlock()
			join := func(d, to string) {
				p := peers.Peer{
					Domain: to, URL: gws[to].URL(), Provides: true, Consumes: true, Beat: 10 * time.Second, Lost: time.Minute, Terms: testTerms,
				}
				if outbound {
					if d == "b" {
						p.URL = ""
					} else {
						p.OutboundOnly = true
					}
				}
				if err := gws[d].Table.Add(p); err != nil {
					t.Fatal(err)
				}
			}
			join("b", "a")
			join("a", "b")
			time.Sleep(time.Minute)
			a, b := w.gates["a"], w.gates["b"]
			var handles []adapters.Handle
			for _, id := range []string{"j1", "j2", "j3"} {
				began := time.Now()
				p := a.give("b", id+"-1", "sleep 40m;exit 3")
				if p.Err != nil {
					t.Fatal(p.Err)
				}
				if took := time.Since(began); took > 100*time.Millisecond {
					t.Errorf("the answer took %v", took)
				}
				handles = append(handles, p.Handle)
			}
			a.until(handles[0], adapters.Running)
			b.jobs.mu.Lock()
			for _, j := range b.jobs.jobs {
				b.jobs.outputs[j.st.Activity+" stdout"] = strings.Repeat("0123456789", 60_000)
			}
			b.jobs.mu.Unlock()
			if got := a.read(t, handles[1], 0); len(got) != 600_000 {
				t.Errorf("%d bytes of output", len(got))
			}
			network.Partition("a", "b", true)
			time.Sleep(4 * time.Minute)
			network.Partition("a", "b", false)
			time.Sleep(5 * time.Minute)
			gws["b"].Kill()
			gws["b"].Start(t)
			join("b", "a")
			for i, h := range handles {
				if e := a.until(h, adapters.Exited); *e.ExitStatus != 3 {
					t.Errorf("it ended so: %+v", e)
				}
				if n := b.jobs.runs(handover.Key{Origin: "a", ID: []string{"j1", "j2", "j3"}[i]}); n != 1 {
					t.Errorf("it ran %d times", n)
				}
			}
			time.Sleep(time.Minute)
			if b.book.mu.Lock(); len(b.book.earned) != 3 {
				t.Errorf("%d are claimed", len(b.book.earned))
			}
			b.book.mu.Unlock()
			for _, g := range gws {
				g.Kill()
			}
			w.close()
		})
	}
}
