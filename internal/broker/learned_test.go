package broker

import (
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/estimate"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
)

// What a gateway learned of its sites, the next one knows.
func TestLearnedIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		defer w.Close()
		cfg := Config{Store: newStore(t), Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{})}}}
		g := start(t, cfg)
		<-g.Ready()
		var es []soap.EPR
		for range 6 {
			es = append(es, g.submit("sleep 100"))
		}
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
		time.Sleep(2 * usageInterval)
		said := func(g *gateway) (estimate.Wait, float64) {
			g.mu.Lock()
			defer g.mu.Unlock()
			shares := g.book.Shares()
			if len(shares) != 1 {
				t.Fatalf("it knows of %v", shares)
			}
			wait, ok := g.book.Wait(shares[0], estimate.State{CPUs: 1}, time.Now())
			if !ok {
				t.Error("no estimate")
			}
			rate, ok := g.book.SuccessRate(placeOf(&store.Placement{Site: "here", Share: shares[0].Share, Environment: "fake"}), time.Now())
			if !ok {
				t.Error("no rate of success")
			}
			return wait, rate
		}
		wait, rate := said(g)
		g.stop()
		g = start(t, cfg)
		<-g.Ready()
		if now, r := said(g); now.Median != wait.Median || now.Error != wait.Error || r != rate {
			t.Errorf("%+v and %g; before %+v and %g", now, r, wait, rate)
		}
		g.stop()
	})
}
