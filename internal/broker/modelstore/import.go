package modelstore

import (
	"context"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// importBatch bounds the sites of one transaction: each has up to four records.
const importBatch = store.MaxTransaction / 4

// Import writes what another domain shows of its sites, as it is: neither are numbers left
// out that changed little, nor are versions and times made anew, so that both models have
// the same to the byte. A change that says Gone without parts removes the site, with parts
// it replaces it. What is there already costs nothing. The sites are claimed under the
// session as fed ones are, and grow old when it is lost or nobody confirms them (Confirm).
//
// A site that is fed by another, as where that domain shares our store, is left to it and
// named among those that were skipped. It gives the revision of the last write, 0 when
// nothing was. fail.Invalid is a site of our own domain, fail.Exhausted too many sites.
func (m *Model) Import(ctx context.Context, sess store.Session, changes []resourcemodel.Change) (revision int64, skipped []resourcemodel.Key, err error) {
	const op = "modelstore.Import"
	if sess == nil {
		return 0, nil, fail.Errorf(op, fail.Invalid, "", "sites are imported under a replica's lease, and there is none")
	}
	for i := range changes {
		if err := m.names.check(changes[i].Key); err != nil {
			return 0, nil, err
		}
		if changes[i].Key.Domain == "" {
			return 0, nil, fail.Errorf(op, fail.Invalid, changes[i].Key.String(), "sites of our own domain are fed, and not imported")
		}
		if err := changes[i].Check(); err != nil {
			return 0, nil, err
		}
	}
	changes = slices.Clone(changes)
	slices.SortStableFunc(changes, func(a, b resourcemodel.Change) int { return a.Key.Compare(b.Key) })
	for len(changes) > 0 {
		n := min(len(changes), importBatch)
		for n < len(changes) && changes[n].Key == changes[n-1].Key {
			n-- // changes of one site follow each other
			if n == 0 {
				return revision, skipped, fail.Errorf(op, fail.Invalid, changes[0].Key.String(), "the site is named too often in one import")
			}
		}
		at, left, err := m.importSome(ctx, op, sess, changes[:n])
		if err != nil {
			return revision, skipped, err
		}
		revision, skipped, changes = max(revision, at), append(skipped, left...), changes[n:]
	}
	return revision, skipped, nil
}

// importSome writes some changes, in one transaction or, where they are large, in several.
func (m *Model) importSome(ctx context.Context, op string, sess store.Session, changes []resourcemodel.Change) (int64, []resourcemodel.Key, error) {
	entries := make([]*entry, len(changes))
	m.mu.Lock()
	for i := range changes {
		e := m.entries[changes[i].Key]
		if e == nil {
			if len(m.entries) >= m.opts.MaxSites {
				m.mu.Unlock()
				return 0, nil, fail.Errorf(op, fail.Exhausted, changes[i].Key.String(), "the resource model has %d sites already; have peers show fewer, or raise its bound", m.opts.MaxSites)
			}
			e = m.entry(changes[i].Key)
		}
		entries[i] = e
	}
	m.mu.Unlock()
	held := map[*entry]bool{}
	defer func() {
		for e := range held {
			m.release(e)
		}
	}()
	for _, e := range entries { // in the order of keys, as all who hold several do
		if held[e] {
			continue
		}
		if err := e.hold(ctx, op); err != nil {
			return 0, nil, err
		}
		held[e] = true
	}
	var last int64
	var skipped []resourcemodel.Key
	for next, try := 0, 1; next < len(changes); {
		m.mu.Lock()
		var plans []*plan
		var writes []store.RecordChange
		bytes, end := 0, next
		var err error
		for ; end < len(changes); end++ {
			if slices.Contains(entries[next:end], entries[end]) {
				break // its record is changed already in this one
			}
			p, ok, perr := m.importPlan(sess, entries[end], &changes[end])
			if perr != nil {
				err = perr
				break
			}
			size := 0
			for _, c := range p.changes {
				size += len(c.Value)
			}
			if len(writes) > 0 && bytes+size > store.MaxRecord {
				break
			}
			if !ok {
				skipped = append(skipped, changes[end].Key)
			}
			bytes += size
			plans, writes = append(plans, p), append(writes, p.changes...)
		}
		m.mu.Unlock()
		if err != nil {
			return last, skipped, err
		}
		at := int64(0)
		if len(writes) > 0 {
			if at, err = m.st.PutRecords(ctx, sess, writes...); err != nil {
				if !fail.Is(err, fail.Conflict) || subject(err) == "" || try == tries {
					return last, skipped, err
				}
				try++
				skipped = slices.DeleteFunc(skipped, func(k resourcemodel.Key) bool {
					return slices.ContainsFunc(changes[next:end], func(c resourcemodel.Change) bool { return c.Key == k })
				})
				for _, e := range entries[next:end] {
					if err := m.refresh(ctx, e); err != nil {
						return last, skipped, err
					}
				}
				continue
			}
		}
		m.mu.Lock()
		now := m.now()
		var unsure []*entry
		for i, p := range plans {
			e := entries[next+i]
			if len(p.changes) > 0 {
				if p.claim && e.feeder != "" {
					unsure = append(unsure, e)
				}
				m.imported(e, sess, p, at, &changes[next+i])
			}
			e.contact = now
		}
		m.mu.Unlock()
		for _, e := range unsure {
			if err := m.refresh(ctx, e); err != nil {
				return last, skipped, err
			}
		}
		last, next, try = max(last, at), end, 1
	}
	m.wake()
	return last, skipped, nil
}

// importPlan works out what is to be written of one change; false is that another feeds the
// site. m.mu is held.
func (m *Model) importPlan(sess store.Session, e *entry, c *resourcemodel.Change) (*plan, bool, error) {
	p := &plan{at: m.now().UTC().Round(0)}
	if e.feeder != "" && e.ours == nil && e.feeder != m.name {
		return p, false, nil
	}
	p.claim = e.ours != sess
	if c.Gone && c.Static == nil {
		if e.static.exists {
			p.changes = append(p.changes, store.RecordChange{Key: m.names.partKey(e.key, staticPart), If: e.static.revision})
		}
		if e.dynamic.exists {
			p.changes = append(p.changes, store.RecordChange{Key: m.names.partKey(e.key, dynamicPart), If: e.dynamic.revision})
		}
		if len(p.changes) > 0 {
			if err := m.addLine(p, e, &line{Gone: true}); err != nil {
				return nil, false, err
			}
		}
		if e.feeder != "" {
			p.changes = append(p.changes, store.RecordChange{Key: m.names.partKey(e.key, feederPart), If: e.claim})
		}
		return p, true, nil
	}
	same := func(a, b interface{ Encode() ([]byte, error) }) bool {
		x, err1 := a.Encode()
		y, err2 := b.Encode()
		return err1 == nil && err2 == nil && slices.Equal(x, y)
	}
	if c.Static != nil && (e.static.value == nil || !same(c.Static, e.static.value)) {
		p.static = c.Static
	}
	if c.Dynamic != nil && (e.dynamic.value == nil || !same(c.Dynamic, e.dynamic.value)) {
		p.dynamic = c.Dynamic
	}
	if err := m.write(p, e); err != nil {
		return nil, false, err
	}
	if c.Gone && c.Dynamic == nil && e.dynamic.exists { // it lost its state
		p.changes = append(p.changes, store.RecordChange{Key: m.names.partKey(e.key, dynamicPart), If: e.dynamic.revision})
	}
	return p, true, nil
}

// imported notes what was written. m.mu is held.
func (m *Model) imported(e *entry, sess store.Session, p *plan, revision int64, c *resourcemodel.Change) {
	if c.Gone && c.Static == nil {
		e.static = part[resourcemodel.Static]{revision: revision}
		e.dynamic = part[resourcemodel.Dynamic]{revision: revision}
		e.feeder, e.ours, e.claim, e.pending, e.newest = "", nil, revision, nil, later(e.newest, p.at)
		return
	}
	m.wrote(e, sess, p, revision)
	if c.Gone && c.Dynamic == nil {
		e.dynamic = part[resourcemodel.Dynamic]{revision: revision}
	}
}

// Confirm says that whoever speaks for a domain was heard of: what it showed, and we wrote,
// still holds. It writes nothing.
func (m *Model) Confirm(domain string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for k, e := range m.entries {
		if k.Domain == domain && e.ours != nil {
			e.contact = now
		}
	}
}

// Written gives the sites of a domain with their parts as they are written, those that the
// snapshot does not have yet too.
func (m *Model) Written(domain string) []*resourcemodel.Site {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*resourcemodel.Site
	for k, e := range m.entries {
		if k.Domain == domain && e.static.value != nil {
			out = append(out, &resourcemodel.Site{Key: k, Static: e.static.value, Dynamic: e.dynamic.value})
		}
	}
	slices.SortFunc(out, func(a, b *resourcemodel.Site) int { return a.Key.Compare(b.Key) })
	return out
}

// Confirmed gives when a site's source last gave a sign of life, as far as is known; zero
// where it is not.
func (m *Model) Confirmed(k resourcemodel.Key) time.Time {
	age, ok := m.Age(k)
	if !ok {
		return time.Time{}
	}
	return m.now().Add(-age)
}
