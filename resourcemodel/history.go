package resourcemodel

import (
	"cmp"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// checkpointEvery is how many deltas lie between two snapshots that a History keeps, so
// that an answer applies fewer than so many. Snapshots share what is alike: keeping one
// costs some 10 KiB with 100,000 sites.
const checkpointEvery = 64

// HistoryOptions bound a History; the zero value works.
type HistoryOptions struct {
	Deltas int           // at most so many; 10,000
	Bytes  int64         // at most so many of memory, roughly; 64 MiB
	Age    time.Duration // none older; 24 hours
}

// EnsureDefaults puts the defaults in for what is not given.
func (o *HistoryOptions) EnsureDefaults() {
	if o.Deltas <= 0 {
		o.Deltas = 10_000
	}
	if o.Bytes <= 0 {
		o.Bytes = 64 << 20
	}
	if o.Age <= 0 {
		o.Age = 24 * time.Hour
	}
}

// History answers what the model was: a base snapshot and the deltas since, bounded in
// number, bytes and age. What leaves by a bound is merged into the base. It has no clock
// and no lock: who uses it from several goroutines guards it.
type History struct {
	options HistoryOptions
	base    *Snapshot
	head    *Snapshot
	entries []entry
	bytes   int64
	added   int // deltas, ever
}

// entry is a delta, with the snapshot after it where one is kept.
type entry struct {
	delta Delta
	bytes int64
	at    time.Time // of the snapshot after it, which never goes back
	after *Snapshot
}

// NewHistory begins a history with a snapshot.
func NewHistory(base *Snapshot, o HistoryOptions) *History {
	o.EnsureDefaults()
	return &History{options: o, base: base, head: base}
}

// Head gives the model as it is now.
func (h *History) Head() *Snapshot { return h.head }

// Base gives the model as it was at the beginning of what is kept.
func (h *History) Base() *Snapshot { return h.base }

// Len gives the number of deltas, Bytes roughly what they take of memory.
func (h *History) Len() int { return len(h.entries) }

// Bytes is that of Len.
func (h *History) Bytes() int64 { return h.bytes }

// Add applies a delta, as Snapshot.Apply does, and keeps it. The time of the delta is
// taken for the present one where the bound on the age is kept.
func (h *History) Add(d Delta) error {
	next, err := h.head.Apply(d)
	if err != nil {
		return err
	}
	h.head = next
	e := entry{delta: d, bytes: d.size(), at: next.at}
	if h.added++; h.added%checkpointEvery == 0 {
		e.after = next
	}
	h.entries = append(h.entries, e)
	h.bytes += e.bytes
	h.Compact(next.at)
	return nil
}

// Reset begins anew with a snapshot where deltas were missed; what was kept is forgotten.
func (h *History) Reset(base *Snapshot) { *h = *NewHistory(base, h.options) }

// Compact moves the base forward until all bounds are kept at now. The model as it was
// at now less the bound on the age can still be asked for.
func (h *History) Compact(now time.Time) {
	n, bytes := 0, h.bytes
	oldest := now.Add(-h.options.Age)
	for n < len(h.entries) {
		e := &h.entries[n]
		if len(h.entries)-n <= h.options.Deltas && bytes <= h.options.Bytes && e.at.After(oldest) {
			break
		}
		bytes -= e.bytes
		n++
	}
	if n == 0 {
		return
	}
	h.base = h.after(n)
	h.bytes = bytes
	if rest := h.entries[n:]; len(rest) < cap(h.entries)/4 {
		h.entries = slices.Clone(rest) // let go of what is behind
	} else {
		clear(h.entries[:n])
		h.entries = rest
	}
}

// after gives the model after n of the deltas that are kept.
func (h *History) after(n int) *Snapshot {
	if n == len(h.entries) {
		return h.head
	}
	s, from := h.base, 0
	for i := n - 1; i >= 0; i-- {
		if h.entries[i].after != nil {
			s, from = h.entries[i].after, i+1
			break
		}
	}
	for i := from; i < n; i++ {
		next, err := s.Apply(h.entries[i].delta)
		if err != nil {
			// It was applied before, to the same snapshot: parts are never changed in place.
			panic("resourcemodel: a delta that was applied is refused: " + err.Error())
		}
		s = next
	}
	return s
}

// At gives what was believed at a time: the last snapshot that is not after it.
// fail.NotFound tells of a time before the base.
func (h *History) At(t time.Time) (*Snapshot, error) {
	n, err := h.until("resourcemodel.History.At", t)
	if err != nil {
		return nil, err
	}
	return h.after(n), nil
}

// until gives how many deltas were applied at a time.
func (h *History) until(op string, t time.Time) (int, error) {
	if t.Before(h.base.at) {
		return 0, fail.Errorf(op, fail.NotFound, "", "what was believed at %s is not kept any more: the history begins at %s", t.UTC().Format(time.RFC3339), h.base.at.UTC().Format(time.RFC3339))
	}
	n, _ := slices.BinarySearchFunc(h.entries, t, func(e entry, t time.Time) int {
		if e.at.After(t) {
			return 1
		}
		return -1
	})
	return n, nil
}

// AtRevision gives the model at a revision: the last snapshot that is not above it.
// fail.NotFound tells of one below the base or above the head.
func (h *History) AtRevision(revision int64) (*Snapshot, error) {
	const op = "resourcemodel.History.AtRevision"
	switch {
	case revision < h.base.revision:
		return nil, fail.Errorf(op, fail.NotFound, "", "revision %d of the model is not kept any more: the history begins with %d", revision, h.base.revision)
	case revision > h.head.revision:
		return nil, fail.Errorf(op, fail.NotFound, "", "revision %d of the model is not known yet: the last one is %d", revision, h.head.revision)
	}
	n, found := slices.BinarySearchFunc(h.entries, revision, func(e entry, r int64) int { return cmp.Compare(e.delta.Revision, r) })
	if found {
		n++
	}
	return h.after(n), nil
}

// Belief is what was believed about a site for a while.
type Belief struct {
	Site     *Site // nil: no such site was known
	Revision int64 // with which it began
	Since    time.Time
	Until    time.Time // zero: it is still believed
	Earlier  bool      // it began before the history does, at Since or earlier
}

// Believed tells what was believed about a site at a time; fail.NotFound tells of a time
// before the base.
func (h *History) Believed(k Key, at time.Time) (Belief, error) {
	if _, err := h.until("resourcemodel.History.Believed", at); err != nil {
		return Belief{}, err
	}
	all := h.Beliefs(k)
	i := len(all) - 1
	for i > 0 && all[i].Since.After(at) {
		i--
	}
	return all[i], nil
}

// Beliefs tells all that was believed about a site since the base, the oldest first;
// there is at least one. A delta that says nothing new about the site begins no belief.
func (h *History) Beliefs(k Key) []Belief {
	site := h.base.raw(k)
	all := []Belief{{Site: visible(site), Revision: h.base.revision, Since: h.base.at, Earlier: true}}
	for i := range h.entries {
		e := &h.entries[i]
		next := site
		for j := range e.delta.Changes {
			if c := &e.delta.Changes[j]; c.Key == k {
				next = c.of(next)
			}
		}
		next = shared(site, next)
		known := visible(site) != nil || visible(next) != nil
		if next == site || !known {
			site = next
			continue
		}
		site = next
		all[len(all)-1].Until = e.at
		all = append(all, Belief{Site: visible(site), Revision: e.delta.Revision, Since: e.at})
	}
	return all
}

// raw gives a site even if its static part is not known.
func (s *Snapshot) raw(k Key) *Site {
	c, i, found := s.sites.find(k)
	if !found {
		return nil
	}
	return s.sites[c][i]
}

func visible(s *Site) *Site {
	if s == nil || s.Static == nil {
		return nil
	}
	return s
}

// Sizes in memory, roughly: a struct with its share of slices and maps.
const (
	sizePart   = 512
	sizeRecord = 384
	sizeEntry  = 64
)

// size estimates the memory that keeping a delta takes.
func (d *Delta) size() int64 {
	n := int64(sizeEntry)
	for i := range d.Changes {
		c := &d.Changes[i]
		n += sizeEntry + int64(len(c.Key.Domain)+len(c.Key.Site))
		if c.Static != nil {
			n += c.Static.size()
		}
		if c.Dynamic != nil {
			n += c.Dynamic.size()
		}
	}
	return n
}

func (s *Static) size() int64 {
	n := sizePart + texts64(s.Labels) + texts64(s.Policy.Allow) + texts64(s.Policy.Deny) + int64(len(s.Consumables)+len(s.Data))*sizeEntry
	for i := range s.Shares {
		h := &s.Shares[i]
		n += sizeRecord + texts64(h.Environments) + texts64(h.Policy.Allow) + texts64(h.Policy.Deny) + int64(len(h.Consumables))*sizeEntry
		if h.Span != nil {
			n += sizeRecord + texts64(h.Span.IDs)
		}
	}
	for i := range s.Environments {
		e := &s.Environments[i]
		n += sizeRecord + texts64(e.HostNames) + texts64(e.Features) + int64(len(e.GPUs)+len(e.Benchmarks)+len(e.FileSystems)+len(e.Consumables))*sizeEntry
		if m := e.Span; m != nil {
			n += sizeRecord + texts64(m.OperatingSystems) + texts64(m.OSVersions) + texts64(m.CPUArchitectures) + texts64(m.Features) +
				int64(len(m.GPUs)+len(m.Benchmarks)+len(m.FileSystems)+len(m.Consumables))*sizeEntry
		}
	}
	for i := range s.Applications {
		n += sizeEntry + texts64(s.Applications[i].Environments)
	}
	return n
}

func (d *Dynamic) size() int64 {
	n := int64(sizePart+len(d.Problem)) + int64(len(d.Consumables))*sizeEntry
	for id, s := range d.Shares {
		n += int64(len(id)+2*sizeEntry) + int64(len(s.Consumables))*sizeEntry
	}
	for id := range d.Environments {
		n += int64(len(id) + 2*sizeEntry)
	}
	return n
}

func texts64(list []string) int64 {
	n := int64(len(list)) * 16
	for _, s := range list {
		n += int64(len(s))
	}
	return n
}
