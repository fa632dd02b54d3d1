package modelstore

import (
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
	at, k, ok := splitLine(key)
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
	_, k, _ := splitLine(key)
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
	x := index{sites: map[resourcemodel.Key]siteLines{}}
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
	at, _, _ := splitLine(m.lines.lines[0].key)
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
		changes, err := foldChanges(records, from)
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
			at, _, _ := splitLine(records[len(records)-1].Key)
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
func foldChanges(records []store.Record, from mark) ([]store.RecordChange, error) {
	var changes []store.RecordChange
	parts := map[string][]byte{} // of the base, by key; nil is gone
	at := from.Time
	for _, r := range records {
		changes = append(changes, store.RecordChange{Key: r.Key, If: r.Revision})
		when, k, ok := splitLine(r.Key)
		if !ok {
			continue // of no version of ours: it goes
		}
		at = later(at, when)
		l, err := decodeLine(r.Value)
		if err != nil {
			return nil, err
		}
		static, dynamic := baseKey(k, staticPart), baseKey(k, dynamicPart)
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
// was before the history begins is fail.NotFound with a sentence that says when that is.
// The snapshot's revision is that of the last change in it.
func (m *Model) At(ctx context.Context, t time.Time) (*resourcemodel.Snapshot, error) {
	const op = "modelstore.At"
	for try := 1; ; try++ {
		before, err := m.readMark(ctx)
		if err != nil {
			return nil, err
		}
		if t.Before(before.Time) {
			return nil, fail.Errorf(op, fail.NotFound, "", "what was believed of the sites at %s is not kept any more: the history begins at %s",
				t.UTC().Format(time.RFC3339), before.Time.UTC().Format(time.RFC3339))
		}
		s, err := m.rebuild(ctx, t)
		if err != nil {
			return nil, err
		}
		after, err := m.readMark(ctx)
		if err != nil {
			return nil, err
		}
		if after.revision == before.revision {
			return s, nil
		}
		if try == tries {
			return nil, fail.Errorf(op, fail.Unavailable, "", "the history of the resource model changes too fast to be read at present; try again")
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

// rebuild reads the history's beginning and applies its lines up to and with t.
func (m *Model) rebuild(ctx context.Context, t time.Time) (*resourcemodel.Snapshot, error) {
	d := resourcemodel.Delta{At: t}
	err := m.pages(ctx, basePrefix, "", func(r store.Record) (bool, error) {
		k, what, ok := splitKey(r.Key, basePrefix)
		b, err := unpack(r.Value)
		if !ok || err != nil {
			return true, err
		}
		l := line{}
		switch what {
		case staticPart:
			l.Static = b
		case dynamicPart:
			l.Dynamic = b
		default:
			return true, nil
		}
		c, err := l.change(k)
		d.Changes, d.Revision = append(d.Changes, c), max(d.Revision, r.Revision)
		return true, err
	}, nil)
	if err != nil {
		return nil, err
	}
	err = m.linesUntil(ctx, time.Time{}, t, func(k resourcemodel.Key, _ time.Time, l *line, revision int64) (bool, error) {
		c, err := l.change(k)
		d.Changes, d.Revision = append(d.Changes, c), max(d.Revision, revision)
		return true, err
	})
	if err != nil || len(d.Changes) == 0 {
		return resourcemodel.Empty(), err
	}
	return resourcemodel.Empty().Apply(d)
}

// linesUntil reads the lines after one time and up to and with another.
func (m *Model) linesUntil(ctx context.Context, after, until time.Time, do func(resourcemodel.Key, time.Time, *line, int64) (bool, error)) error {
	from := ""
	if after.Unix() > 0 {
		from = linesAt(after)
	}
	return m.pages(ctx, linePrefix, from, func(r store.Record) (bool, error) {
		at, k, ok := splitLine(r.Key)
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
		return do(k, at, l, r.Revision)
	}, nil)
}

// Changes gives what changed after a time, the oldest first and at most limit, each with
// the revision and time of its own.
func (m *Model) Changes(ctx context.Context, after time.Time, limit int) ([]resourcemodel.Delta, error) {
	var out []resourcemodel.Delta
	err := m.linesUntil(ctx, after, time.Unix(1<<33, 0), func(k resourcemodel.Key, at time.Time, l *line, revision int64) (bool, error) {
		c, err := l.change(k)
		out = append(out, resourcemodel.Delta{Revision: revision, At: at, Changes: []resourcemodel.Change{c}})
		return len(out) < limit, err
	})
	return out, err
}
