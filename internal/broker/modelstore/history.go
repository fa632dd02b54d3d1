package modelstore

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// index is what is known of the history without its values.
type index struct {
	lines []lineSize // in the order of keys, which is that of time
	bytes int
	sites map[resourcemodel.Key]siteLines
	mark  mark
	from  int64 // the revision up to which the history is known
	names names
}

type lineSize struct {
	key  string
	size int
}

// siteLines is how many lines a site has, and when the newest was.
type siteLines struct {
	n      int
	newest time.Time
}

// mark is up to when the history was folded into its beginning.
type mark struct {
	Time     time.Time `json:"time"`
	revision int64
}

func (x *index) find(key string) (int, bool) {
	return slices.BinarySearchFunc(x.lines, key, func(l lineSize, key string) int { return strings.Compare(l.key, key) })
}

func (x *index) add(key string, size int) {
	at, k, ok := x.names.splitLine(key)
	i, found := x.find(key)
	if !ok || found {
		return
	}
	x.lines = slices.Insert(x.lines, i, lineSize{key, size})
	x.bytes += size
	s := x.sites[k]
	s.n++
	if at.After(s.newest) {
		s.newest = at
	}
	x.sites[k] = s
}

func (x *index) remove(key string) {
	_, k, _ := x.names.splitLine(key)
	i, found := x.find(key)
	if !found {
		return
	}
	x.bytes -= x.lines[i].size
	x.lines = slices.Delete(x.lines, i, i+1)
	s := x.sites[k]
	if s.n--; s.n > 0 {
		x.sites[k] = s
	} else {
		delete(x.sites, k)
	}
}

func (x *index) note(r store.Record) error {
	switch {
	case r.Key == markKey:
		if r.Revision <= x.mark.revision {
			return nil
		}
		at, err := decodeMark(r)
		if err != nil {
			return err
		}
		x.mark = at
	case !strings.HasPrefix(r.Key, linePrefix):
	case r.Value == nil:
		x.remove(r.Key)
	default:
		x.add(r.Key, len(r.Key)+len(r.Value))
	}
	return nil
}

func decodeMark(r store.Record) (mark, error) {
	at := mark{revision: r.Revision}
	if r.Value == nil {
		return at, nil
	}
	if err := json.Unmarshal(r.Value, &at); err != nil {
		return at, fail.Errorf("modelstore.At", fail.Internal, "", "the record of where the model's history begins is damaged").Because(err)
	}
	return at, nil
}

func (m *Model) watchedLines(records []store.Record, revision int64) {
	m.mu.Lock()
	for _, r := range records {
		if err := m.lines.note(r); err != nil {
			m.opts.Log.Warn("a record of the resource model's history is damaged", "key", r.Key, "cause", err)
		}
	}
	m.lines.from = max(m.lines.from, revision)
	over := m.excess() > 0
	m.mu.Unlock()
	if over {
		m.wake()
	}
}

// reloadLines reads what the history has.
func (m *Model) reloadLines(ctx context.Context) error {
	x := index{sites: map[resourcemodel.Key]siteLines{}, names: m.names}
	err := m.pages(ctx, historyPrefix, "", func(r store.Record) (bool, error) { return true, x.note(r) }, func(revision int64) {
		if x.from == 0 { // the watch tells what changed since the first page was read
			x.from = revision
		}
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = x
	return nil
}

// page is how many records are read at once.
const page = 256

// pages reads the records of a prefix after a key until do says enough.
func (m *Model) pages(ctx context.Context, prefix, after string, do func(store.Record) (bool, error), read func(revision int64)) error {
	for {
		records, revision, err := m.st.ListRecords(ctx, prefix, store.RecordOptions{After: after, Limit: page})
		if err != nil {
			return err
		}
		if read != nil {
			read(revision)
		}
		for _, r := range records {
			more, err := do(r)
			if err != nil || !more {
				return err
			}
		}
		if len(records) < page {
			return nil
		}
		after = records[len(records)-1].Key
	}
}

// excess gives how many of the oldest lines are to be folded: when a bound is passed, so
// many that an eighth of it is free again. m.mu is held.
func (m *Model) excess() int {
	x := &m.lines
	most, bytes := m.opts.HistoryChanges, m.opts.HistoryBytes
	if len(x.lines) > most || x.bytes > bytes {
		most, bytes = most-most/8, bytes-bytes/8
	}
	oldest := linesAt(m.now().Add(-m.opts.HistoryAge))
	n, left := 0, x.bytes
	for _, l := range x.lines {
		if len(x.lines)-n <= most && left <= bytes && l.key >= oldest {
			break
		}
		n++
		left -= l.size
	}
	return n
}

// untilOld gives for how long no line will be too old.
func (m *Model) untilOld() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.lines.lines) == 0 {
		return idle
	}
	at, _, _ := m.names.splitLine(m.lines.lines[0].key)
	return min(idle, max(time.Second, at.Add(m.opts.HistoryAge).Sub(m.now())))
}

// batch is how many lines one transaction folds: each goes, and changes two parts at most.
const batch = 30

// fold makes the oldest lines part of the state from which the history begins; false
// when there was nothing to do, or another replica did it.
func (m *Model) fold(ctx context.Context) (bool, error) {
	m.mu.Lock()
	n, from := min(batch, m.excess()), m.lines.mark
	m.mu.Unlock()
	if n == 0 {
		return false, nil
	}
	records, _, err := m.st.ListRecords(ctx, linePrefix, store.RecordOptions{Limit: n})
	if err != nil || len(records) == 0 {
		return false, err
	}
	for {
		changes, err := m.names.foldChanges(records, from)
		if err != nil {
			return false, err
		}
		revision, err := m.st.PutRecords(ctx, nil, changes...)
		switch {
		case fail.Is(err, fail.Conflict): // another replica folds
			return false, m.reloadLines(ctx)
		case fail.Is(err, fail.Exhausted) && len(records) > 1:
			records = records[:len(records)/2]
			continue
		case err != nil:
			return false, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, r := range records {
			m.lines.remove(r.Key)
		}
		if revision > m.lines.mark.revision {
			at, _, _ := m.names.splitLine(records[len(records)-1].Key)
			m.lines.mark = mark{Time: later(at, from.Time), revision: revision}
		}
		return true, nil
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// foldChanges gives the transaction that folds lines.
func (n names) foldChanges(records []store.Record, from mark) ([]store.RecordChange, error) {
	var changes []store.RecordChange
	parts := map[string][]byte{} // of the base, by key; nil is gone
	at := from.Time
	for _, r := range records {
		changes = append(changes, store.RecordChange{Key: r.Key, If: r.Revision})
		when, k, ok := n.splitLine(r.Key)
		if !ok {
			continue // of no version of ours: it goes
		}
		at = later(at, when)
		l, err := decodeLine(r.Value)
		if err != nil {
			return nil, err
		}
		static, dynamic := n.baseKey(k, staticPart), n.baseKey(k, dynamicPart)
		if l.Gone {
			parts[static], parts[dynamic] = nil, nil
		}
		if l.Static != nil {
			parts[static] = pack(l.Static)
		}
		if l.Dynamic != nil {
			parts[dynamic] = pack(l.Dynamic)
		}
	}
	for key, value := range parts {
		changes = append(changes, store.RecordChange{Key: key, Value: value, If: -1})
	}
	value, err := json.Marshal(mark{Time: at})
	if err != nil {
		return nil, fail.E("modelstore.fold", fail.Internal, "", err)
	}
	return append(changes, store.RecordChange{Key: markKey, Value: value, If: from.revision}), nil
}

// At gives what was believed at a time, by the clocks of the replicas that fed it. What
// was before the history begins, or before the first site was told of, is fail.NotFound
// with a sentence that says when that is.
// The snapshot's revision is that of the last change in it; 1 when those are folded.
func (m *Model) At(ctx context.Context, t time.Time) (*resourcemodel.Snapshot, error) {
	base, deltas, err := m.read(ctx, "modelstore.At", t)
	if err != nil {
		return nil, err
	}
	all := resourcemodel.Delta{Revision: 1, At: t, Changes: base.Changes}
	for _, d := range deltas {
		all.Changes, all.Revision = append(all.Changes, d.Changes...), max(all.Revision, d.Revision)
	}
	if len(all.Changes) == 0 {
		if base.At.IsZero() { // nothing was folded: there was nothing yet
			return nil, m.unknown(ctx, t)
		}
		return resourcemodel.Empty(), nil
	}
	return resourcemodel.Empty().Apply(all)
}

// unknown says from when on something is known of the sites, to whoever asks for a time
// before that.
func (m *Model) unknown(ctx context.Context, t time.Time) error {
	const op = "modelstore.At"
	records, _, err := m.st.ListRecords(ctx, linePrefix, store.RecordOptions{Limit: 1})
	if err != nil {
		return err
	}
	at := t.UTC().Format(time.RFC3339)
	if len(records) == 1 {
		if first, _, ok := m.names.splitLine(records[0].Key); ok {
			// The next whole second, so that whoever copies it asks for a time that is known.
			from := first.Add(time.Second - 1).UTC().Truncate(time.Second)
			return fail.Errorf(op, fail.NotFound, "", "nothing is known of the sites at %s: the first that is remembered of them is of %s; ask for a time from then on", at, from.Format(time.RFC3339))
		}
	}
	return fail.Errorf(op, fail.NotFound, "", "nothing is known of the sites at %s: nothing is remembered of them yet", at)
}

// History gives all that is kept, for whoever asks more than one question of it.
func (m *Model) History(ctx context.Context, o resourcemodel.HistoryOptions) (*resourcemodel.History, error) {
	base, deltas, err := m.read(ctx, "modelstore.History", m.now().Add(m.opts.HistoryAge))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(deltas, func(a, b resourcemodel.Delta) int { return cmp.Compare(a.Revision, b.Revision) })
	begin := resourcemodel.Empty()
	if base.Revision = 1; len(deltas) > 0 {
		base.Revision = deltas[0].Revision - 1
	}
	if base.Revision > 0 {
		if begin, err = begin.Apply(base); err != nil {
			return nil, err
		}
	}
	h := resourcemodel.NewHistory(begin, o)
	for _, d := range deltas {
		if err := h.Add(d); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// read gives the state from which the history begins, and the changes since, up to and
// with a time and in its order.
func (m *Model) read(ctx context.Context, op string, until time.Time) (base resourcemodel.Delta, deltas []resourcemodel.Delta, err error) {
	for try := 1; ; try++ {
		before, err := m.readMark(ctx)
		if err != nil {
			return base, nil, err
		}
		if until.Before(before.Time) {
			return base, nil, fail.Errorf(op, fail.NotFound, "", "what was believed of the sites at %s is not kept any more: the history begins at %s",
				until.UTC().Format(time.RFC3339), before.Time.UTC().Format(time.RFC3339))
		}
		base = resourcemodel.Delta{At: before.Time}
		if base.Changes, err = m.readBase(ctx); err != nil {
			return base, nil, err
		}
		deltas = nil
		err = m.linesUntil(ctx, time.Time{}, until, func(d resourcemodel.Delta) bool {
			deltas = append(deltas, d)
			return true
		})
		if err != nil {
			return base, nil, err
		}
		after, err := m.readMark(ctx)
		if err != nil {
			return base, nil, err
		}
		if after.revision == before.revision {
			return base, deltas, nil
		}
		if try == tries {
			return base, nil, fail.Errorf(op, fail.Unavailable, "", "the history of the resource model changes too fast to be read at present; try again")
		}
	}
}

func (m *Model) readMark(ctx context.Context) (mark, error) {
	records, _, err := m.st.ListRecords(ctx, markKey, store.RecordOptions{Limit: 1})
	if err != nil || len(records) == 0 {
		return mark{}, err
	}
	return decodeMark(records[0])
}

// readBase reads the state from which the history begins.
func (m *Model) readBase(ctx context.Context) ([]resourcemodel.Change, error) {
	var changes []resourcemodel.Change
	err := m.pages(ctx, basePrefix, "", func(r store.Record) (bool, error) {
		k, what, ok := m.names.splitKey(r.Key, basePrefix)
		if !ok || what != staticPart && what != dynamicPart {
			return true, nil
		}
		b, err := unpack(r.Value)
		if err != nil {
			return false, err
		}
		l := line{}
		if what == staticPart {
			l.Static = b
		} else {
			l.Dynamic = b
		}
		c, err := l.change(k)
		changes = append(changes, c)
		return true, err
	}, nil)
	return changes, err
}

// linesUntil reads the lines after one time and up to and with another.
func (m *Model) linesUntil(ctx context.Context, after, until time.Time, do func(resourcemodel.Delta) bool) error {
	from := ""
	if after.Unix() > 0 {
		from = linesAt(after)
	}
	return m.pages(ctx, linePrefix, from, func(r store.Record) (bool, error) {
		at, k, ok := m.names.splitLine(r.Key)
		if !ok || !at.After(after) {
			return true, nil
		}
		if at.After(until) {
			return false, nil
		}
		l, err := decodeLine(r.Value)
		if err != nil {
			return false, err
		}
		c, err := l.change(k)
		return err == nil && do(resourcemodel.Delta{Revision: r.Revision, At: at, Changes: []resourcemodel.Change{c}}), err
	}, nil)
}

// Changes gives what changed after a time, the oldest first and at most limit, each with
// the revision and time of its own.
func (m *Model) Changes(ctx context.Context, after time.Time, limit int) ([]resourcemodel.Delta, error) {
	var out []resourcemodel.Delta
	err := m.linesUntil(ctx, after, m.now().Add(m.opts.HistoryAge), func(d resourcemodel.Delta) bool {
		out = append(out, d)
		return len(out) < limit
	})
	return out, err
}
