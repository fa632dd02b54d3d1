package peering

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/store"
)

// BenchmarkJobs runs short jobs to their ends: at the gateway's own site, and at a peer's
// through the whole path, broker to broker over a link in memory, with stores in memory.
func BenchmarkJobs(b *testing.B) {
	for _, where := range []string{"local", "b"} {
		b.Run("at="+map[string]string{"local": "home", "b": "peer"}[where], func(b *testing.B) {
			w := newWorld(b)
			w.unchecked = true
			hs := []*house{newHouse(w, "a", 0, "b"), newHouse(w, "b", 0, "a")}
			w.connect("a", "b")
			var counts []*tally
			for _, h := range hs {
				c := &tally{Store: h.store}
				h.bench, h.store, counts = true, c, append(counts, c)
				h.open(b)
			}
			w.open("a", "b")
			a := hs[0]
			doc := document("exit 0", where)
			before := w.links[[2]string{"a", "b"}].count + w.links[[2]string{"b", "a"}].count
			var all sync.WaitGroup
			b.ResetTimer()
			next := make(chan int)
			for range 256 { // clients
				all.Go(func() {
					for range next {
						if _, err := a.broker.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: doc}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			for i := range b.N {
				next <- i
			}
			close(next)
			all.Wait()
			submitted := time.Since(time.Now().Add(-b.Elapsed()))
			for a.starts()+hs[1].starts() < b.N { // reading all that lives costs more
				time.Sleep(20 * time.Millisecond)
			}
			for {
				n, err := a.st.Live(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if len(n) == 0 {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
			b.ReportMetric(float64(b.N)/submitted.Seconds(), "submitted/s")
			items := w.links[[2]string{"a", "b"}].count + w.links[[2]string{"b", "a"}].count - before
			b.ReportMetric(float64(items)/float64(b.N), "items/job")
			if where == "b" {
				for i, side := range []string{"giver", "taker"} {
					c := counts[i]
					b.ReportMetric(float64(c.writes.Load())/float64(b.N), side+"-writes/job")
					b.ReportMetric(float64(c.changes.Load())/float64(b.N), side+"-records/job")
					b.ReportMetric(float64(c.bytes.Load())/float64(b.N), side+"-bytes/job")
				}
			}
			if where == "b" && hs[1].starts() != b.N {
				b.Errorf("%d jobs ran, of %d", hs[1].starts(), b.N)
			}
			close(w.quit)
			for _, h := range hs {
				h.shut(b)
				h.world.Close()
				_ = h.st.Close()
			}
			for _, l := range w.links {
				l.close()
			}
		})
	}
}

// tally counts what an engine writes.
type tally struct {
	Store
	writes, changes, bytes atomic.Int64
}

func (c *tally) PutRecords(ctx context.Context, s store.Session, changes ...store.RecordChange) (int64, error) {
	c.writes.Add(1)
	c.changes.Add(int64(len(changes)))
	for _, x := range changes {
		c.bytes.Add(int64(len(x.Value)))
	}
	return c.Store.PutRecords(ctx, s, changes...)
}
