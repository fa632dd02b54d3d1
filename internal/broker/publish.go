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
		o := modelstore.Options{Domain: b.cfg.Domain, Replica: b.cfg.Replica, Log: b.cfg.Log, Silence: b.silence()}
		records := b.cfg.Shared
		if records == nil {
			records = b.cfg.Store
		}
		if m, err = modelstore.Open(ctx, records, o); err != nil {
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
// or went. Sites that went while nobody was here go as soon as we know that they are
// nobody else's: at once where the store is ours alone, else when whoever else has them
// must have told of them.
func (b *Broker) feedLoop(ctx context.Context, sh *shared) error {
	published := map[string]bool{}
	var grace time.Duration
	if !b.cfg.Alone {
		grace = b.silence()
	}
	sure := time.NewTimer(grace)
	defer sure.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sure.C:
			b.orphans(sh, published)
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

// silence is how long a replica may not hear of a site before it is not the one that tells
// of it any more.
func (b *Broker) silence() time.Duration { return max(time.Minute, 3*b.cfg.AuditInterval) }

// orphans adds the sites that the model has of our domain and that are not configured.
func (b *Broker) orphans(sh *shared, published map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for site := range sh.model.Snapshot().Sites() {
		if s := b.sites[site.Key.Site]; site.Domain == "" && (s == nil || !s.configured || s.domain() != "") {
			published[site.Key.Site] = true
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
		if s.domain() != "" || !s.news || s.told == nil || s.static == nil {
			continue
		}
		s.news = false
		d := dynamicOf(s.told, standing{Problem: clean(s.outageLocked())})
		d.Stamp = resourcemodel.Stamp{Changed: now.UTC().Round(0), Source: s.source}
		all = append(all, news{s.key(), s, s.static, d})
	}
	var gone []string
	for name := range published {
		s := b.sites[name]
		exchanged := s != nil && s.configured && !s.draining && s.broken == nil // it comes back at once, with other settings
		awaited := s != nil && !s.configured && s.inFlight > 0                  // its jobs wait for it to come back
		if r.at(name) < 0 && !exchanged && !awaited {
			gone = append(gone, name)
		}
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
	for _, name := range gone {
		if _, err := sh.model.Remove(ctx, sh.sess, resourcemodel.Key{Site: name}); err != nil && !fail.Is(err, fail.Conflict) && !fail.Is(err, fail.NotFound) {
			well = false
			continue
		}
		delete(published, name)
	}
	return well
}

// Age gives how long ago the values of a site in the shared model were last vouched for
// by the gateway that tells of it; false if it is not known. While that gateway hears of
// the site and holds its lease, it does so all the time.
func (b *Broker) Age(k resourcemodel.Key) (time.Duration, bool) {
	if sh := b.shared.Load(); sh != nil {
		return sh.model.Age(k)
	}
	return 0, false
}

// beyond says of the places of other domains what stands against them: of those with which
// there is no session, that they are known, and no job can be sent there. Most bounds the verdicts.
func (b *Broker) beyond(r *resourcemodel.Request, now time.Time, most int) []resourcemodel.Verdict {
	sh := b.shared.Load()
	if sh == nil {
		return nil
	}
	var out []resourcemodel.Verdict
	for site := range sh.model.Snapshot().Sites() {
		if site.Domain == "" || site.Static == nil {
			continue
		}
		for w := range site.Places() {
			if len(out) >= most {
				return out
			}
			v := r.Judge(w.Site, w.Share, w.Environment, resourcemodel.Derived{Now: now})
			if b.peered(site.Domain) {
				out = append(out, v)
				continue
			}
			v.Could, v.Now = false, false
			v.Clauses = append([]resourcemodel.Clause{{
				Element: "Domain", Asked: "a site that this gateway can send jobs to", Has: "a site of the domain " + site.Domain,
				Sentence: "it is a site of the domain " + site.Domain + ", with which this gateway has no session: it is known, and can't be given jobs from here",
			}}, v.Clauses...)
			out = append(out, v)
		}
	}
	return out
}
