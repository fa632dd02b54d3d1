package modelstore

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Model is the resource model as the store has it. Run keeps it up to date; without, it
// is what Open found.
type Model struct {
	st    store.Records
	opts  Options
	names names
	name  string // our own, in claims

	snapshot atomic.Pointer[resourcemodel.Snapshot]

	deliver   sync.Mutex // held while the snapshot moves on and is told
	listeners []*listener
	seen      map[resourcemodel.Key]*sighted // what the watch delivered
	from      int64                          // the revision up to which it has

	mu      sync.Mutex
	entries map[resourcemodel.Key]*entry
	reached int64         // as from, for those who wait
	moved   chan struct{} // closed when reached grows
	woken   chan struct{} // Run has something to do earlier than it knew
	lines   index
}

// sighted are a site's parts at the snapshot's revision.
type sighted struct {
	static  *resourcemodel.Static
	dynamic *resourcemodel.Dynamic
}

// part is a part as it is written, by us or another; value is nil when it is not there
// or damaged.
type part[T any] struct {
	value    *T
	revision int64
	exists   bool
}

// entry is what we know of a site beyond the snapshot.
type entry struct {
	key    resourcemodel.Key
	static part[resourcemodel.Static]
	// dynamic may be ahead of the snapshot, as static may.
	dynamic part[resourcemodel.Dynamic]

	feeder  string // who claims to feed it; "" is nobody
	claim   int64  // the revision of that
	ours    store.Session
	unfed   time.Time // when the claim was seen to go
	contact time.Time // when it was fed here last
	wrote   time.Time // when its dynamic part was written from here last
	newest  time.Time // of its lines in the history
	pending *resourcemodel.Dynamic

	feeding chan struct{} // holds a token while it is fed or removed from here
}

type listener struct{ tell func(resourcemodel.Delta) }

// Prefixes are the beginnings of the keys of all records that models have: what the
// gateways of a cluster share.
func Prefixes() []string { return []string{modelPrefix, historyPrefix} }

// Open reads the model from the records of all who share it. An unknown record is left
// alone; a damaged one is logged and left out.
func Open(ctx context.Context, st store.Records, o Options) (*Model, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m := &Model{
		st: st, opts: o, names: names{o.Domain}, name: o.Replica,
		seen: map[resourcemodel.Key]*sighted{}, entries: map[resourcemodel.Key]*entry{},
		moved: make(chan struct{}), woken: make(chan struct{}, 1),
	}
	if o.Domain != "" {
		m.name = o.Domain + "/" + o.Replica
	}
	m.snapshot.Store(resourcemodel.Empty())
	if err := m.reload(ctx); err != nil {
		return nil, err
	}
	return m, m.reloadLines(ctx)
}

func (m *Model) now() time.Time { return m.opts.Now() }

// Snapshot gives the model as it is known here.
func (m *Model) Snapshot() *resourcemodel.Snapshot { return m.snapshot.Load() }

// Updates calls tell with all that is known now, and from then on with each change, one
// after the other; a delta's revision is that of the snapshot that it leads to. tell must
// not call Updates, and is not called any more when stop has returned.
func (m *Model) Updates(tell func(resourcemodel.Delta)) (stop func()) {
	l := &listener{tell}
	m.deliver.Lock()
	defer m.deliver.Unlock()
	m.listeners = append(m.listeners, l)
	if s := m.Snapshot(); s.Revision() > 0 {
		tell(resourcemodel.Diff(resourcemodel.Empty(), s))
	}
	return func() {
		m.deliver.Lock()
		defer m.deliver.Unlock()
		m.listeners = slices.DeleteFunc(m.listeners, func(o *listener) bool { return o == l })
	}
}

// Reached waits until the model has all that was written up to the revision, as Feed and
// Remove give it.
func (m *Model) Reached(ctx context.Context, revision int64) error {
	for {
		m.mu.Lock()
		reached, moved := m.reached, m.moved
		m.mu.Unlock()
		if reached >= revision {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fail.E("modelstore.Reached", fail.Unavailable, "", context.Cause(ctx))
		}
	}
}

// Age gives how long ago a site's values were last confirmed; false if the site is not
// known. While a replica claims to feed it, which it does only while it hears of the
// site, that is now; of a site that is fed here it is exact.
func (m *Model) Age(k resourcemodel.Key) (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[k]
	if e == nil || e.static.value == nil && e.dynamic.value == nil {
		return 0, false
	}
	now := m.now()
	last := e.contact
	if e.feeder != "" && e.ours == nil {
		last = now
	}
	for _, t := range []time.Time{e.unfed, changed(e.static.value), changedDynamic(e.dynamic.value)} {
		if t.After(last) {
			last = t
		}
	}
	return max(0, now.Sub(last)), true
}

// Feeder gives the replica that feeds a site at present; "" is none. One of a domain
// with a name is "domain/replica".
func (m *Model) Feeder(k resourcemodel.Key) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[k]; e != nil {
		return e.feeder
	}
	return ""
}

func changed(s *resourcemodel.Static) time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.Changed
}

func changedDynamic(d *resourcemodel.Dynamic) time.Time {
	if d == nil {
		return time.Time{}
	}
	return d.Changed
}

// entry gives that of a site, made if it is not there. m.mu is held.
func (m *Model) entry(k resourcemodel.Key) *entry {
	e := m.entries[k]
	if e == nil {
		e = &entry{key: k, feeding: make(chan struct{}, 1)}
		m.entries[k] = e
	}
	return e
}

// forget drops an entry that says nothing. m.mu is held.
func (m *Model) forget(e *entry) {
	if !e.static.exists && !e.dynamic.exists && e.feeder == "" && e.ours == nil && e.pending == nil && len(e.feeding) == 0 {
		delete(m.entries, e.key)
	}
}

// sight notes what a record of a site says. A record that is older than what is known
// changes nothing. m.mu is held.
func (m *Model) sight(r store.Record) (k resourcemodel.Key, what string, err error) {
	k, what, ok := m.names.splitKey(r.Key, modelPrefix)
	if ok = ok && k.Check() == nil; !ok {
		return k, "", nil // of a newer gateway
	}
	e := m.entry(k)
	switch what {
	case staticPart:
		err = e.static.sight(r, resourcemodel.DecodeStatic)
	case dynamicPart:
		err = e.dynamic.sight(r, resourcemodel.DecodeDynamic)
	case feederPart:
		m.sightClaim(e, r)
	default:
		what = ""
	}
	return k, what, err
}

func (p *part[T]) sight(r store.Record, decode func([]byte) (*T, error)) error {
	if r.Revision <= p.revision {
		return nil
	}
	var value *T
	if r.Value != nil {
		b, err := unpack(r.Value)
		if err == nil {
			value, err = decode(b)
		}
		if err != nil {
			*p = part[T]{nil, r.Revision, true} // the next Feed writes it anew
			return err
		}
	}
	*p = part[T]{value, r.Revision, value != nil}
	return nil
}

func (m *Model) sightClaim(e *entry, r store.Record) {
	if r.Revision <= e.claim {
		return
	}
	e.claim = r.Revision
	if r.Value == nil {
		e.unfed = m.now()
		e.feeder, e.ours = "", nil
		return
	}
	e.feeder, e.ours = string(r.Value), nil
}

// told is what a delivery says of a site.
type told struct {
	static, dynamic *store.Record
}

// receive moves the snapshot on by what the watch delivered, and tells it. With all, the
// records are all that there are.
func (m *Model) receive(records []store.Record, revision int64, all bool) {
	m.deliver.Lock()
	defer m.deliver.Unlock()
	news := map[resourcemodel.Key]*told{}
	var keys []resourcemodel.Key
	d := resourcemodel.Delta{At: m.Snapshot().At()}
	m.mu.Lock()
	for i := range records {
		r := &records[i]
		k, what, err := m.sight(*r)
		if err != nil {
			m.opts.Log.Warn("a record of the resource model is damaged; what was known before stands", "key", r.Key, "revision", r.Revision, "cause", err)
			continue
		}
		if what != staticPart && what != dynamicPart {
			continue
		}
		if news[k] == nil {
			news[k] = &told{}
			keys = append(keys, k)
		}
		if what == staticPart {
			news[k].static = r
		} else {
			news[k].dynamic = r
		}
		d.Revision = max(d.Revision, r.Revision)
	}
	if all {
		keys = m.vanished(records, news, keys)
	}
	for _, k := range keys {
		if c, ok := m.changeOf(k, news[k]); ok {
			d.Changes = append(d.Changes, c)
			for _, t := range []time.Time{changed(c.Static), changedDynamic(c.Dynamic)} {
				if t.After(d.At) {
					d.At = t
				}
			}
		}
		m.forget(m.entry(k))
	}
	m.mu.Unlock()
	slices.SortFunc(d.Changes, func(a, b resourcemodel.Change) int { return a.Key.Compare(b.Key) })
	if len(d.Changes) > 0 {
		if all && d.Revision <= m.Snapshot().Revision() {
			d.Revision = revision // only removals happened, whose revisions a list does not tell
		}
		m.tell(d)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.from = max(m.from, revision)
	if m.from > m.reached {
		m.reached = m.from
		close(m.moved)
		m.moved = make(chan struct{})
	}
}

// tell applies a delta. m.deliver is held.
func (m *Model) tell(d resourcemodel.Delta) {
	next, err := m.Snapshot().Apply(d)
	if err != nil { // each part was checked when it was decoded
		m.opts.Log.Error("a change of the resource model does not fit", "revision", d.Revision, "cause", err)
		return
	}
	m.snapshot.Store(next)
	for _, l := range m.listeners {
		l.tell(d)
	}
}

// vanished notes what a list does not have any more. m.mu is held.
func (m *Model) vanished(records []store.Record, news map[resourcemodel.Key]*told, keys []resourcemodel.Key) []resourcemodel.Key {
	there := make(map[string]bool, len(records))
	for _, r := range records {
		there[r.Key] = true
	}
	for k, e := range m.entries {
		gone := func(what string) *store.Record {
			if there[m.names.partKey(k, what)] {
				return nil
			}
			return &store.Record{Key: m.names.partKey(k, what)}
		}
		static, dynamic := gone(staticPart), gone(dynamicPart)
		if static != nil {
			e.static = part[resourcemodel.Static]{}
		}
		if dynamic != nil {
			e.dynamic = part[resourcemodel.Dynamic]{}
		}
		if gone(feederPart) != nil && e.feeder != "" {
			e.feeder, e.ours, e.claim, e.unfed = "", nil, 0, m.now()
		}
		if m.seen[k] == nil {
			continue
		}
		if static == nil && dynamic == nil {
			continue
		}
		t := news[k]
		if t == nil {
			t = &told{}
			news[k] = t
			keys = append(keys, k)
		}
		t.static, t.dynamic = cmp.Or(t.static, static), cmp.Or(t.dynamic, dynamic)
	}
	return keys
}

// changeOf gives what a delivery changes of a site. m.mu is held.
func (m *Model) changeOf(k resourcemodel.Key, t *told) (resourcemodel.Change, bool) {
	was := m.seen[k]
	if was == nil {
		was = &sighted{}
	}
	is := *was
	e := m.entry(k)
	if t.static != nil {
		is.static = at(t.static, &e.static, resourcemodel.DecodeStatic)
	}
	if t.dynamic != nil {
		is.dynamic = at(t.dynamic, &e.dynamic, resourcemodel.DecodeDynamic)
	}
	c := resourcemodel.Change{Key: k}
	if was.static != nil && is.static == nil || was.dynamic != nil && is.dynamic == nil {
		c = resourcemodel.Change{Key: k, Static: is.static, Dynamic: is.dynamic, Gone: true}
	} else {
		if is.static != was.static {
			c.Static = is.static
		}
		if is.dynamic != was.dynamic {
			c.Dynamic = is.dynamic
		}
	}
	if is.static == nil && is.dynamic == nil {
		delete(m.seen, k)
	} else {
		m.seen[k] = &is
	}
	return c, c.Static != nil || c.Dynamic != nil || c.Gone
}

// at gives the value that a record has: that which is known, when it is of this revision.
func at[T any](r *store.Record, known *part[T], decode func([]byte) (*T, error)) *T {
	if r.Value == nil {
		return nil
	}
	if known.revision == r.Revision {
		return known.value
	}
	b, err := unpack(r.Value)
	if err != nil {
		return known.value
	}
	value, err := decode(b)
	if err != nil {
		return known.value
	}
	return value
}

// reload reads the whole model.
func (m *Model) reload(ctx context.Context) error {
	records, revision, err := m.st.ListRecords(ctx, modelPrefix, store.RecordOptions{})
	if err != nil {
		return err
	}
	m.receive(records, revision, true)
	return nil
}
