package broker

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// shared is what this replica keeps in the store together with the others.
type shared struct {
	model  *modelstore.Model
	limits *limits.Limiter
	sess   store.Session
}

// openShared reads it anew, for the term of a session.
func (b *Broker) openShared(ctx context.Context, sess store.Session) (*shared, error) {
	m := b.cfg.Model
	if m == nil {
		var err error
		o := modelstore.Options{Replica: b.cfg.Replica, Log: b.cfg.Log, Silence: max(time.Minute, 3*b.cfg.AuditInterval)}
		if m, err = modelstore.Open(ctx, b.cfg.Store, o); err != nil {
			return nil, err
		}
	}
	l, err := limits.Open(ctx, b.cfg.Store, limits.Options{Replica: b.cfg.Replica, Log: b.cfg.Log, Changed: func() { nudge(b.wakeDispatch) }})
	if err != nil {
		return nil, err
	}
	return &shared{m, l, sess}, nil
}

// feedLoop tells the shared model what our sites have, whenever one was measured, came
// or went.
func (b *Broker) feedLoop(ctx context.Context, sh *shared) error {
	published := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wakeFeed:
		}
		if !b.feedModel(ctx, sh, published) {
			if !sleep(ctx, time.Second) {
				return nil
			}
			nudge(b.wakeFeed)
		}
	}
}

// feedModel does it once; false is that some must be told again.
func (b *Broker) feedModel(ctx context.Context, sh *shared, published map[string]bool) bool {
	type news struct {
		key     resourcemodel.Key
		site    *site
		static  *resourcemodel.Static
		dynamic *resourcemodel.Dynamic
	}
	var all []news
	now := time.Now()
	b.mu.Lock()
	r := b.roster.Load()
	for _, s := range r.sites {
		if !s.news || s.told == nil || s.static == nil {
			continue
		}
		s.news = false
		d := dynamicOf(s.told, standing{Problem: clean(s.outageLocked())})
		d.Stamp = resourcemodel.Stamp{Changed: now.UTC().Round(0), Source: s.source}
		all = append(all, news{s.key(), s, s.static, d})
	}
	b.mu.Unlock()
	well := true
	for _, n := range all {
		_, err := sh.model.Feed(ctx, sh.sess, n.key, n.static, n.dynamic)
		switch {
		case err == nil:
			published[n.key.Site] = true
		case fail.Is(err, fail.Conflict): // another replica tells of it, or our lease is lost
			b.cfg.Log.Debug("a site is told of by another replica", "site", n.key.String(), "cause", err)
		case fail.Is(err, fail.Invalid), fail.Is(err, fail.Exhausted):
			b.cfg.Log.Error("what a site has is not taken into the resource model", "site", n.key.String(), "cause", err)
		default:
			if ctx.Err() == nil {
				b.cfg.Log.Warn("the resource model is not told of a site now", "site", n.key.String(), "cause", err)
			}
			b.mu.Lock()
			n.site.news = true
			b.mu.Unlock()
			well = false
		}
	}
	for name := range published {
		if r.at(name) >= 0 {
			continue
		}
		if _, err := sh.model.Remove(ctx, sh.sess, resourcemodel.Key{Site: name}); err != nil && !fail.Is(err, fail.Conflict) && !fail.Is(err, fail.NotFound) {
			well = false
			continue
		}
		delete(published, name)
	}
	return well
}
