package service

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
)

// slow is a store that does not take the capacity of sites before a time.
type slow struct {
	store.Store
	until time.Time

	mu      sync.Mutex
	refused int
}

func (s *slow) PutRecords(ctx context.Context, sess store.Session, cs ...store.RecordChange) (int64, error) {
	for i := range cs {
		if strings.HasPrefix(cs[i].Key, engine.Prefix+"pool/") && time.Now().Before(s.until) {
			s.mu.Lock()
			s.refused++
			s.mu.Unlock()
			return 0, fail.Errorf("slow", fail.Unavailable, "", "not now")
		}
	}
	return s.Store.PutRecords(ctx, sess, cs...)
}

// What is ready decides offers: the capacity of the sites that answer is known by then, however slow the store is; sites
// that do not answer are not waited for.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slow{Store: mem.New(), until: time.Now().Add(time.Minute)}
		defer st.Close()
		sites := []site{{name: "here", world: fake.NewWorld(2)}, {name: "there", world: fake.NewWorld(2)}}
		for _, s := range sites {
			defer s.world.Close()
		}
		sites[1].world.Down("a test")
		g := start(t, st, sites, whole)
		defer g.stop()
		if st.refused == 0 || time.Now().Before(st.until) || time.Now().After(st.until.Add(time.Minute)) {
			t.Errorf("it was ready at %s, after %d refusals", time.Now(), st.refused)
		}
		key := g.must("ada", g.by("ada", "finish-by@here/fake").say("job", job("sleep 60", 10*time.Minute, 1)).say("finishBy", finishBy(time.Now().Add(time.Hour))))
		if r := g.ends(key); r.State != agreement.Complete {
			t.Errorf("%s", g.story(key))
		}
	})
}
