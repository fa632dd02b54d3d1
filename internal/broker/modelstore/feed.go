package modelstore

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// tries is how often a write is repeated when the site was written by another meanwhile.
const tries = 4

// Feed tells what a site's source says now, as often as the source is heard: a part that
// is nil was not asked for. What is new is written under the session's lease, with the
// next version unless the part has a later one than what is known; what is not new costs
// nothing. It gives the revision of what it wrote, 0 when nothing was. A site that
// another replica feeds is fail.Conflict with the site as Subject, a lost session one
// without; what is beyond the model's bounds is fail.Invalid or fail.Exhausted.
func (m *Model) Feed(ctx context.Context, sess store.Session, k resourcemodel.Key, static *resourcemodel.Static, dynamic *resourcemodel.Dynamic) (int64, error) {
	const op = "modelstore.Feed"
	if err := m.names.check(k); err != nil {
		return 0, err
	}
	if sess == nil {
		return 0, fail.Errorf(op, fail.Invalid, k.String(), "a site is fed under a replica's lease, and there is none")
	}
	if static != nil {
		static = static.Canonical()
	}
	if dynamic != nil {
		dynamic = dynamic.Canonical()
	}
	m.mu.Lock()
	e := m.entries[k]
	if e == nil {
		if len(m.entries) >= m.opts.MaxSites {
			m.mu.Unlock()
			return 0, fail.Errorf(op, fail.Exhausted, k.String(), "the resource model has %d sites already; remove some or raise its bound", m.opts.MaxSites)
		}
		e = m.entry(k)
	}
	m.mu.Unlock()
	if err := e.hold(ctx, op); err != nil {
		return 0, err
	}
	defer m.release(e)
	revision, err := m.feed(ctx, op, sess, e, static, dynamic, false)
	if err == nil {
		m.mu.Lock()
		e.contact = m.now()
		m.mu.Unlock()
	}
	m.mu.Lock()
	soon := revision > 0 || e.pending != nil
	m.mu.Unlock()
	if soon {
		m.wake()
	}
	return revision, err
}

// hold waits until nobody else feeds or removes the site from here.
func (e *entry) hold(ctx context.Context, op string) error {
	select {
	case e.feeding <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fail.E(op, fail.Unavailable, e.key.String(), context.Cause(ctx))
	}
}

func (m *Model) release(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	<-e.feeding
	m.forget(e)
}

// plan is what one Feed would write.
type plan struct {
	static  *resourcemodel.Static  // nil is no change
	dynamic *resourcemodel.Dynamic // nil is no change
	later   *resourcemodel.Dynamic // worth writing, but not yet
	claim   bool
	at      time.Time // of the history line
	changes []store.RecordChange
}

// feed writes what is new. With flush, what waited for the interval is due.
func (m *Model) feed(ctx context.Context, op string, sess store.Session, e *entry, static *resourcemodel.Static, dynamic *resourcemodel.Dynamic, flush bool) (int64, error) {
	for try := 1; ; try++ {
		m.mu.Lock()
		p, err := m.plan(op, sess, e, static, dynamic, flush)
		if err == nil && p.later != nil {
			e.pending = p.later
		} else if err == nil && dynamic != nil {
			e.pending = nil
		}
		m.mu.Unlock()
		if err != nil || len(p.changes) == 0 {
			return 0, err
		}
		revision, err := m.st.PutRecords(ctx, sess, p.changes...)
		if err == nil {
			m.mu.Lock()
			unsure := p.claim && e.feeder != "" // the claim may have been this lease's already
			m.wrote(e, sess, p, revision)
			m.mu.Unlock()
			if unsure {
				return revision, m.refresh(ctx, e)
			}
			return revision, nil
		}
		if !fail.Is(err, fail.Conflict) || subject(err) == "" || try == tries {
			m.mu.Lock()
			if dynamic != nil { // nothing is forgotten: the next Feed or the interval tries again
				e.pending = dynamic
			}
			m.mu.Unlock()
			return 0, err
		}
		if err := m.refresh(ctx, e); err != nil {
			return 0, err
		}
	}
}

func subject(err error) string {
	if e, ok := err.(*fail.Error); ok { //nolint:errorlint // of the store's own answer
		return e.Subject
	}
	return ""
}

// plan works out what is to be written. m.mu is held.
func (m *Model) plan(op string, sess store.Session, e *entry, static *resourcemodel.Static, dynamic *resourcemodel.Dynamic, flush bool) (*plan, error) {
	if e.feeder != "" && e.ours == nil && e.feeder != m.name {
		return nil, fail.Errorf(op, fail.Conflict, e.key.String(), "the site %s is fed by the replica %s", e.key, e.feeder)
	}
	now := m.now()
	p := &plan{at: now.UTC().Round(0)}
	p.claim = e.ours != sess
	if static != nil && !static.Same(e.static.value) {
		p.static = static.Stamped(e.static.value, now)
		if static.Version > version(e.static.value) {
			own := *static
			own.Changed = sooner(own.Changed, p.at)
			p.static = &own
		}
	}
	w := weigh(e.dynamic.value, dynamic, m.opts.DeadBand)
	due := flush || m.opts.Interval < 0 || now.Sub(e.wrote) >= m.opts.Interval || now.Before(e.wrote)
	switch {
	case w == urgent, w == news && (due || p.static != nil):
		p.dynamic = dynamic.Stamped(e.dynamic.value, now)
		if dynamic.Version > versionDynamic(e.dynamic.value) {
			own := *dynamic
			own.Changed = sooner(own.Changed, p.at)
			p.dynamic = &own
		}
	case w == news:
		p.later = dynamic
	}
	return p, m.write(p, e)
}

// sooner keeps a clock that is ahead from saying that a change is yet to come.
func sooner(a, now time.Time) time.Time {
	if a.After(now) {
		return now
	}
	return a
}

func version(s *resourcemodel.Static) uint64 {
	if s == nil {
		return 0
	}
	return s.Version
}

func versionDynamic(d *resourcemodel.Dynamic) uint64 {
	if d == nil {
		return 0
	}
	return d.Version
}

// write gives the plan its changes. m.mu is held.
func (m *Model) write(p *plan, e *entry) error {
	var l line
	var err error
	add := func(what string, b []byte, at int64) {
		p.changes = append(p.changes, store.RecordChange{Key: m.names.partKey(e.key, what), Value: pack(b), If: at})
	}
	if p.static != nil {
		if l.Static, err = p.static.Encode(); err != nil {
			return err
		}
		add(staticPart, l.Static, e.static.there())
	}
	if p.dynamic != nil {
		if l.Dynamic, err = p.dynamic.Encode(); err != nil {
			return err
		}
		add(dynamicPart, l.Dynamic, e.dynamic.there())
	}
	if p.static != nil || p.dynamic != nil {
		if err := m.addLine(p, e, &l); err != nil {
			return err
		}
	}
	if len(p.changes) > 0 || p.claim {
		c := store.RecordChange{Key: m.names.partKey(e.key, feederPart), Value: []byte(m.name), If: e.claim, Bound: true}
		if e.feeder == "" {
			c.If = 0
		}
		p.changes = append(p.changes, c)
	}
	return nil
}

// there gives the revision that the record must have for a change.
func (p *part[T]) there() int64 {
	if !p.exists {
		return 0
	}
	return p.revision
}

// addLine adds the history's line. A site's lines are in the order of its changes, even
// where a clock is behind that of the replica that fed the site before.
func (m *Model) addLine(p *plan, e *entry, l *line) error {
	value, err := l.encode()
	if err != nil {
		return err
	}
	newest := later(e.newest, m.lines.sites[e.key].newest)
	newest = later(newest, later(changed(e.static.value), changedDynamic(e.dynamic.value)))
	if !p.at.After(newest) {
		p.at = newest.Add(1)
	}
	p.changes = append(p.changes, store.RecordChange{Key: m.names.lineKey(p.at, e.key), Value: value})
	return nil
}

// wrote notes what was written. m.mu is held.
func (m *Model) wrote(e *entry, sess store.Session, p *plan, revision int64) {
	if p.static != nil {
		e.static = part[resourcemodel.Static]{p.static, revision, true}
	}
	if p.dynamic != nil {
		e.dynamic = part[resourcemodel.Dynamic]{p.dynamic, revision, true}
		e.wrote = m.now()
		e.pending = nil
	}
	if p.static != nil || p.dynamic != nil {
		e.newest = p.at
	}
	if p.claim { // the claim was written: its revision is this
		e.claim, e.feeder, e.ours = revision, m.name, sess
	}
}

// refresh reads a site's records, which another has written.
func (m *Model) refresh(ctx context.Context, e *entry) error {
	records, _, err := m.st.ListRecords(ctx, modelPrefix+m.names.siteOf(e.key)+"/", store.RecordOptions{})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	there := map[string]bool{}
	for _, r := range records {
		_, what, err := m.sight(r)
		if err != nil {
			m.opts.Log.Warn("a record of the resource model is damaged", "key", r.Key, "revision", r.Revision, "cause", err)
		}
		there[what] = true
		if what == feederPart && r.Revision != e.claim { // what was just read is right
			e.claim, e.feeder = r.Revision, string(r.Value)
			if e.feeder != m.name {
				e.ours = nil
			}
		}
	}
	if !there[staticPart] {
		e.static = part[resourcemodel.Static]{}
	}
	if !there[dynamicPart] {
		e.dynamic = part[resourcemodel.Dynamic]{}
	}
	if !there[feederPart] {
		e.feeder, e.ours = "", nil
	}
	return nil
}

// Remove takes a site out of the model; its history stays. A site that another replica
// feeds is fail.Conflict. It gives the revision of the removal, 0 when there was nothing.
func (m *Model) Remove(ctx context.Context, sess store.Session, k resourcemodel.Key) (int64, error) {
	const op = "modelstore.Remove"
	if err := m.names.check(k); err != nil {
		return 0, err
	}
	m.mu.Lock()
	e := m.entry(k)
	m.mu.Unlock()
	if err := e.hold(ctx, op); err != nil {
		return 0, err
	}
	defer m.release(e)
	for try := 1; ; try++ {
		if err := m.refresh(ctx, e); err != nil {
			return 0, err
		}
		m.mu.Lock()
		p := &plan{at: m.now().UTC().Round(0)}
		var err error
		if e.feeder != "" && e.ours == nil && e.feeder != m.name {
			err = fail.Errorf(op, fail.Conflict, k.String(), "the site %s is fed by the replica %s", k, e.feeder)
		}
		if e.static.exists {
			p.changes = append(p.changes, store.RecordChange{Key: m.names.partKey(k, staticPart), If: e.static.revision})
		}
		if e.dynamic.exists {
			p.changes = append(p.changes, store.RecordChange{Key: m.names.partKey(k, dynamicPart), If: e.dynamic.revision})
		}
		if len(p.changes) > 0 && err == nil {
			err = m.addLine(p, e, &line{Gone: true})
		}
		if e.feeder != "" {
			p.changes = append(p.changes, store.RecordChange{Key: m.names.partKey(k, feederPart), If: e.claim})
		}
		m.mu.Unlock()
		if err != nil || len(p.changes) == 0 {
			return 0, err
		}
		revision, err := m.st.PutRecords(ctx, sess, p.changes...)
		if err != nil {
			if fail.Is(err, fail.Conflict) && subject(err) != "" && try < tries {
				continue
			}
			return 0, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		e.static = part[resourcemodel.Static]{revision: revision}
		e.dynamic = part[resourcemodel.Dynamic]{revision: revision}
		e.feeder, e.ours, e.claim, e.pending, e.newest = "", nil, revision, nil, p.at
		return revision, nil
	}
}
