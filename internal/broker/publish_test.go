package broker

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/internal/soap"
)

// A site that was taken out of the configuration while nobody was here leaves the shared
// model: not before its jobs have ended, and never while another gateway has it.
func TestOrphansLeaveTheModel(t *testing.T) {
	for _, alone := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			st := newStore(t)
			w := map[string]*fake.World{}
			for _, name := range []string{"a", "b", "c", "other"} {
				w[name] = fake.NewWorld(4)
				t.Cleanup(w[name].Close)
			}
			run := func(replica string, names ...string) *gateway {
				c := Config{Store: st, Replica: replica, Alone: alone}
				for _, n := range names {
					c.Sites = append(c.Sites, Site{Name: n, Adapter: w[n].Open(environment(4))})
				}
				g := start(t, c)
				<-g.Ready()
				synctest.Wait()
				return g
			}
			believed := func(g *gateway) string {
				m, err := g.Resources(as("ada"), time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				for s := range m.Sites() {
					names = append(names, s.Key.String())
				}
				return strings.Join(names, " ")
			}
			g := run("one", "a", "b", "c")
			e := g.submit("hang", "b")
			synctest.Wait()
			if got := believed(g); got != "a b c" {
				t.Errorf("the model has %s", got)
			}
			g.stop()
			want := "a b"
			if !alone {
				h := run("two", "other")
				defer h.stop()
				want = "a b other"
			}
			g = run("one", "a")
			if !alone && believed(g) != "a b c other" {
				t.Errorf("who else has c was not waited for: %s", believed(g))
			}
			time.Sleep(3 * time.Minute)
			if got := believed(g); got != want {
				t.Errorf("alone %t: the model has %s, not %s", alone, got, want)
			}
			if err := one1(g.AbandonActivities(as("ada"), []soap.EPR{e})); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := believed(g); got != strings.Replace(want, " b", "", 1) {
				t.Errorf("alone %t: after its job was given up the model has %s", alone, got)
			}
			g.stop()
		})
	}
}
