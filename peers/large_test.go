package peers_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
)

// An item goes that a message can just hold, and one that none can is refused at once: it
// would stand in the way of all behind it.
func TestLargeItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, false)
		pass(time.Second)
		w.alive(t)
		part := strings.Repeat("<x>&amp;</x> 0123456789", 1<<20/24)
		sites := func(n int) *wire.Resources {
			r := &wire.Resources{View: "v", To: 1, Detail: wire.Full}
			for i := range n {
				r.Changes = append(r.Changes, wire.SiteChange{Site: fmt.Sprint(i), Confirmed: time.Now(), Static: part})
			}
			return r
		}
		kind(t, w.a.Table.Put(domB, sites(7)), fail.Invalid)
		must(t, w.a.Table.Put(domB, sites(4), query(domA, 1), sites(4)))
		pass(30 * time.Second)
		w.alive(t)
		items := w.b.Seen.Items(domA)
		if len(items) != 3 {
			t.Fatalf("%d items came\n%s", len(items), w)
		}
		if r := items[2].(*wire.Resources); len(r.Changes) != 4 || r.Changes[3].Static != part {
			t.Error("it came another than it went")
		}
	})
}
