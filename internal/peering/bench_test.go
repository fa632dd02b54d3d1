package peering

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
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
			for _, h := range hs {
				h.bench = true
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
			for {
				n, err := a.st.Live(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if len(n) == 0 {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
			b.ReportMetric(float64(b.N)/submitted.Seconds(), "submitted/s")
			items := w.links[[2]string{"a", "b"}].count + w.links[[2]string{"b", "a"}].count - before
			b.ReportMetric(float64(items)/float64(b.N), "items/job")
			if where == "b" && hs[1].starts() != b.N {
				b.Error(fmt.Sprintf("%d jobs ran, of %d", hs[1].starts(), b.N))
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
