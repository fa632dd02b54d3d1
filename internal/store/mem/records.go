package mem

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/internal/store"
)

// named is a store.Record as it is kept.
type named struct {
	store.Record
	bound *session // whose end is its own; nil of most
}

// keepBytes bounds the values that are remembered for watchers that lag behind.
const keepBytes = 64 << 20

// PutRecords implements store.Records.
func (s *Store) PutRecords(ctx context.Context, sess store.Session, changes ...store.RecordChange) (int64, error) {
	const op = "store.PutRecords"
	if err := store.CheckRecords(sess, changes); err != nil {
		return 0, err
	}
	if err := s.lock(ctx, op); err != nil {
		return 0, err
	}
	defer s.d.mu.Unlock()
	var own *session
	if sess != nil {
		var ok bool
		if own, ok = sess.(*session); !ok || s.d.sessions[own.replica] != own {
			return 0, store.LostSession(op, "")
		}
	}
	var needed []named
	newest := int64(0)
	for _, c := range changes {
		old, there := s.d.records[c.Key]
		if c.If >= 0 && c.If != old.Revision {
			return 0, store.RecordMovedOn(op, c.Key)
		}
		newest = max(newest, old.Revision)
		n := named{Record: store.Record{Key: c.Key}}
		if c.Value != nil {
			n.Value = append([]byte{}, c.Value...)
			if c.Bound {
				n.bound = own
			}
		}
		if there != (c.Value != nil) || there && (!bytes.Equal(old.Value, n.Value) || old.bound != n.bound) {
			needed = append(needed, n)
		}
	}
	if len(needed) == 0 {
		return newest, nil
	}
	s.d.write(s.d.revision+1, needed)
	return s.d.revision, nil
}

// write changes records at one revision; those without a value go.
func (d *data) write(revision int64, changes []named) {
	d.revision = revision
	for _, n := range changes {
		n.Revision = d.revision
		if n.Value == nil {
			delete(d.records, n.Key)
		} else {
			d.records[n.Key] = n
		}
		d.recordLog = append(d.recordLog, n.Record)
		d.recordBytes += len(n.Value)
	}
	if len(d.recordLog) > 2*keep || d.recordBytes > keepBytes {
		d.compactRecords(d.recordLog[len(d.recordLog)/2].Revision)
	}
	close(d.grown)
	d.grown = make(chan struct{})
}

// recordWatch is a watch and how far it is.
type recordWatch struct {
	prefix string
	after  int64
}

// compactRecords forgets the changes up to and with the revision. Watches that have
// nothing to tell of them go on.
func (d *data) compactRecords(to int64) {
	for w := range d.recordWatches {
		if w.after < to && !slices.ContainsFunc(d.recordLog[recordsAfter(d.recordLog, w.after):recordsAfter(d.recordLog, to)], w.tells) {
			w.after = to
		}
	}
	d.recordsCompacted = to
	d.recordLog = slices.Clone(d.recordLog[recordsAfter(d.recordLog, to):])
	d.recordBytes = 0
	for _, r := range d.recordLog {
		d.recordBytes += len(r.Value)
	}
}

func (w *recordWatch) tells(r store.Record) bool { return strings.HasPrefix(r.Key, w.prefix) }

// unbind removes the records of a session that has ended.
func (d *data) unbind(sess *session) {
	var gone []named
	for _, key := range slices.Sorted(maps.Keys(d.records)) {
		if d.records[key].bound == sess {
			gone = append(gone, named{Record: store.Record{Key: key}})
		}
	}
	if len(gone) > 0 {
		d.write(d.revision+1, gone)
	}
}

// recordsAfter gives where the changes after the revision begin.
func recordsAfter(log []store.Record, revision int64) int {
	i, _ := slices.BinarySearchFunc(log, revision+1, func(r store.Record, at int64) int { return cmp.Compare(r.Revision, at) })
	return i
}

// ListRecords implements store.Records.
func (s *Store) ListRecords(ctx context.Context, prefix string, o store.RecordOptions) ([]store.Record, int64, error) {
	const op = "store.ListRecords"
	if err := store.CheckPrefix(op, prefix); err != nil {
		return nil, 0, err
	}
	if err := s.lock(ctx, op); err != nil {
		return nil, 0, err
	}
	defer s.d.mu.Unlock()
	var keys []string
	for key := range s.d.records {
		after := o.After == "" || key > o.After
		if o.Newest {
			after = o.After == "" || key < o.After
		}
		if after && strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if o.Newest {
		slices.Reverse(keys)
	}
	if o.Limit > 0 {
		keys = keys[:min(o.Limit, len(keys))]
	}
	var found []store.Record
	for _, key := range keys {
		r := s.d.records[key].Record
		r.Value = bytes.Clone(r.Value)
		found = append(found, r)
	}
	return found, s.d.revision, nil
}

// WatchRecords implements store.Records.
func (s *Store) WatchRecords(ctx context.Context, prefix string, after int64, emit func([]store.Record, int64)) error {
	const op = "store.WatchRecords"
	if err := store.CheckPrefix(op, prefix); err != nil {
		return err
	}
	w := &recordWatch{prefix, after}
	if err := s.lock(ctx, op); err != nil {
		return err
	}
	defer func() {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		delete(s.d.recordWatches, w)
	}()
	for d := s.d; ; {
		if w.after < d.recordsCompacted {
			d.mu.Unlock()
			return store.TooOld(op, w.after)
		}
		d.recordWatches[w] = true
		var changes []store.Record
		for _, r := range d.recordLog[recordsAfter(d.recordLog, w.after):] {
			if w.tells(r) {
				changes = append(changes, r)
			}
		}
		changes = store.Coalesce(changes)
		for i := range changes {
			changes[i].Value = bytes.Clone(changes[i].Value)
		}
		w.after = max(w.after, d.revision)
		told, grown := w.after, d.grown
		d.mu.Unlock()
		if len(changes) > 0 {
			emit(changes, told)
		} else {
			select {
			case <-grown:
			case <-s.closed:
			case <-ctx.Done():
			}
		}
		if err := s.lock(ctx, op); err != nil {
			return err
		}
	}
}
