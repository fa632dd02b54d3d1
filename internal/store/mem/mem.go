package mem

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// keep is how many changes are remembered for watchers that lag behind.
const keep = 1 << 16

// Store is a store.Store in memory.
type Store struct {
	d      *data
	once   sync.Once
	closed chan struct{}
}

var _ store.Store = (*Store)(nil)

// data outlives a Store that is closed and opened again.
type data struct {
	mu          sync.Mutex
	revision    int64
	jobs        map[string]*record
	owned       map[string]int
	submissions map[submission]string
	settings    map[string][]byte
	sessions    map[string]*session

	log       []change // the newest changes, in order
	compacted int64    // changes up to here are forgotten
	live      snapshot // what Live gave last
	grown     chan struct{}

	records          map[string]named
	recordLog        []store.Record // the newest changes, in order
	recordBytes      int            // of the values in recordLog
	recordsCompacted int64
	recordWatches    map[*recordWatch]bool
}

// snapshot is how far a Live read saw (at), and the highest revision that its
// caller can know of (top).
type snapshot struct{ top, at int64 }

type submission struct{ owner, id string }

type record struct {
	job      store.Job // without Status
	status   []byte    // JSON, so that nothing is shared with a caller
	sequence int
	final    bool
	document []byte
	history  [][]byte
}

type change struct {
	revision int64
	rec      *record
	status   []byte
}

// New gives an empty store.
func New() *Store {
	return open(&data{
		jobs:        map[string]*record{},
		owned:       map[string]int{},
		submissions: map[submission]string{},
		settings:    map[string][]byte{},
		sessions:    map[string]*session{},
		records:     map[string]named{},

		recordWatches: map[*recordWatch]bool{},
		grown:         make(chan struct{}),
	})
}

func open(d *data) *Store { return &Store{d: d, closed: make(chan struct{})} }

// Reopen closes s and gives a store with the same contents, as a restarted
// process would find them. Sessions stay until another of the same name joins.
func (s *Store) Reopen() *Store {
	_ = s.Close()
	return open(s.d)
}

// Close makes every further call fail with fail.Unavailable, and ends watches.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// lock takes the lock, unless the store is closed or ctx has ended.
func (s *Store) lock(ctx context.Context, op string) error {
	select {
	case <-s.closed:
		return fail.Errorf(op, fail.Unavailable, "", "the store is closed")
	case <-ctx.Done():
		return fail.E(op, fail.Unavailable, "", context.Cause(ctx))
	default:
	}
	s.d.mu.Lock()
	return nil
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, n store.NewJob) (store.Job, bool, error) {
	const op = "store.Create"
	if err := n.Check(); err != nil {
		return store.Job{}, false, err
	}
	rec := &record{
		job: store.Job{
			ID: n.ID, Owner: n.Owner, Name: n.Name, SubmissionID: n.SubmissionID,
			DocumentSum: sha256.Sum256(n.Document), Submitted: n.Submitted.Round(0).UTC(),
		},
		document: bytes.Clone(n.Document),
		sequence: 1,
		final:    n.Status.Final,
	}
	n.Status.Sequence, n.Event.Sequence = 1, 1
	var err error
	if rec.status, err = json.Marshal(n.Status); err != nil {
		return store.Job{}, false, fail.E(op, fail.Invalid, n.ID, err)
	}
	line, err := json.Marshal(n.Event)
	if err != nil {
		return store.Job{}, false, fail.E(op, fail.Invalid, n.ID, err)
	}
	rec.history = [][]byte{line}

	if err := s.lock(ctx, op); err != nil {
		return store.Job{}, false, err
	}
	defer s.d.mu.Unlock()
	key := submission{n.Owner, n.SubmissionID}
	for _, id := range []string{n.ID, s.d.submissions[key]} {
		if old, ok := s.d.jobs[id]; ok {
			job := old.view()
			if err := store.Same(job, n, rec.job.DocumentSum); err != nil {
				return store.Job{}, false, err
			}
			return job, false, nil
		}
	}
	s.d.jobs[n.ID] = rec
	s.d.owned[n.Owner]++
	if n.SubmissionID != "" {
		s.d.submissions[key] = n.ID
	}
	s.d.commit(rec)
	return rec.view(), true, nil
}

// commit gives the record's present status a revision and tells watchers.
func (d *data) commit(rec *record) {
	d.revision++
	rec.job.Revision = d.revision
	d.log = append(d.log, change{d.revision, rec, rec.status})
	if len(d.log) > 2*keep {
		d.compact(d.log[len(d.log)-keep].revision - 1)
	}
	close(d.grown)
	d.grown = make(chan struct{})
}

// compact forgets the changes up to and with the revision.
func (d *data) compact(to int64) {
	d.compacted = to
	i, _ := slices.BinarySearchFunc(d.log, to+1, func(c change, r int64) int { return cmp.Compare(c.revision, r) })
	d.log = slices.Clone(d.log[i:])
}

// Compact forgets every change that watchers have not read yet.
func (s *Store) Compact() {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.compact(s.d.revision)
	s.d.compactRecords(s.d.revision)
}

func (r *record) view() store.Job { return r.at(r.job.Revision, r.status) }

func (r *record) at(revision int64, status []byte) store.Job {
	job := r.job
	job.Revision = revision
	_ = json.Unmarshal(status, &job.Status) // it was made by Marshal
	return job
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, ids ...string) (map[string]store.Job, error) {
	if err := s.lock(ctx, "store.Get"); err != nil {
		return nil, err
	}
	defer s.d.mu.Unlock()
	found := make(map[string]store.Job, len(ids))
	for _, id := range ids {
		if rec, ok := s.d.jobs[id]; ok {
			found[id] = rec.view()
		}
	}
	return found, nil
}

// Document implements store.Store.
func (s *Store) Document(ctx context.Context, id string) ([]byte, error) {
	const op = "store.Document"
	if err := s.lock(ctx, op); err != nil {
		return nil, err
	}
	defer s.d.mu.Unlock()
	rec, ok := s.d.jobs[id]
	if !ok {
		return nil, fail.Errorf(op, fail.NotFound, id, "there is no job %s", id)
	}
	return bytes.Clone(rec.document), nil
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, sess store.Session, changes ...store.Change) []store.Changed {
	const op = "store.Update"
	out := make([]store.Changed, len(changes))
	if err := s.lock(ctx, op); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.d.mu.Unlock()
	for i, c := range changes {
		out[i] = s.d.update(sess, c)
	}
	return out
}

// update makes a change with its With, or neither.
func (d *data) update(sess store.Session, c store.Change) (out store.Changed) {
	if own, ok := sess.(*session); !ok || d.sessions[own.replica] != own {
		return store.Changed{Err: store.LostSession("store.Update", c.ID)}
	}
	if out.Err = c.Check(); out.Err != nil {
		return out
	}
	one, err := d.prepare(c)
	if err != nil {
		return store.Changed{Err: err}
	}
	if c.With != nil {
		two, err := d.prepare(*c.With)
		if err != nil {
			return store.Changed{Err: err}
		}
		out.With = two()
	}
	out.Revision = one()
	return out
}

// prepare checks a change and gives what makes it.
func (d *data) prepare(c store.Change) (func() int64, error) {
	const op = "store.Update"
	rec, ok := d.jobs[c.ID]
	if !ok {
		return nil, fail.Errorf(op, fail.NotFound, c.ID, "there is no job %s", c.ID)
	}
	if rec.job.Revision != c.Revision {
		return nil, store.MovedOn(op, c.ID)
	}
	c.Status.Sequence = rec.sequence + len(c.Events)
	status, err := json.Marshal(c.Status)
	if err != nil {
		return nil, fail.E(op, fail.Invalid, c.ID, err)
	}
	lines := make([][]byte, len(c.Events))
	for i, e := range c.Events {
		e.Sequence = rec.sequence + i + 1
		if lines[i], err = json.Marshal(e); err != nil {
			return nil, fail.E(op, fail.Invalid, c.ID, err)
		}
	}
	return func() int64 {
		rec.status, rec.sequence, rec.final = status, c.Status.Sequence, c.Status.Final
		rec.history = append(rec.history, lines...)
		d.commit(rec)
		if c.Note != nil {
			d.write(d.revision, []named{{Record: store.Record{Key: c.Note.Key, Value: append([]byte{}, c.Note.Value...)}}})
		}
		return rec.job.Revision
	}, nil
}

// History implements store.Store.
func (s *Store) History(ctx context.Context, id string, after int) ([]store.Event, error) {
	const op = "store.History"
	if err := s.lock(ctx, op); err != nil {
		return nil, err
	}
	defer s.d.mu.Unlock()
	rec, ok := s.d.jobs[id]
	if !ok {
		return nil, fail.Errorf(op, fail.NotFound, id, "there is no job %s", id)
	}
	var events []store.Event
	for _, line := range rec.history[min(max(after, 0), len(rec.history)):] {
		var e store.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fail.E(op, fail.Internal, id, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, o store.ListOptions) ([]store.Job, error) {
	if err := s.lock(ctx, "store.List"); err != nil {
		return nil, err
	}
	defer s.d.mu.Unlock()
	if o.Limit <= 0 {
		o.Limit = store.DefaultLimit
	}
	var jobs []store.Job
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(s.d.jobs))) {
		rec := s.d.jobs[id]
		if (o.Owner != "" && rec.job.Owner != o.Owner) || (o.Before != "" && id >= o.Before) {
			continue
		}
		if len(jobs) == o.Limit {
			break
		}
		jobs = append(jobs, rec.view())
	}
	return jobs, nil
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context, owner string) (int64, error) {
	if err := s.lock(ctx, "store.Count"); err != nil {
		return 0, err
	}
	defer s.d.mu.Unlock()
	if owner == "" {
		return int64(len(s.d.jobs)), nil
	}
	return int64(s.d.owned[owner]), nil
}

// Live implements store.Store.
func (s *Store) Live(ctx context.Context) ([]store.Job, error) {
	if err := s.lock(ctx, "store.Live"); err != nil {
		return nil, err
	}
	defer s.d.mu.Unlock()
	var jobs []store.Job
	seen := snapshot{at: s.d.revision}
	for _, rec := range s.d.jobs {
		if !rec.final {
			jobs = append(jobs, rec.view())
			seen.top = max(seen.top, rec.job.Revision)
		}
	}
	s.d.live = seen
	slices.SortFunc(jobs, func(a, b store.Job) int { return cmp.Compare(a.ID, b.ID) })
	return jobs, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, after int64, emit func([]store.Job)) error {
	const op = "store.Watch"
	for {
		if err := s.lock(ctx, op); err != nil {
			return err
		}
		if after < s.d.compacted && after >= s.d.live.top {
			after = max(after, s.d.live.at)
		}
		if after < s.d.compacted {
			s.d.mu.Unlock()
			return store.TooOld(op, after)
		}
		i, _ := slices.BinarySearchFunc(s.d.log, after+1, func(c change, r int64) int { return cmp.Compare(c.revision, r) })
		var jobs []store.Job
		for _, c := range s.d.log[i:min(len(s.d.log), i+1000)] {
			jobs = append(jobs, c.rec.at(c.revision, c.status))
			after = c.revision
		}
		grown := s.d.grown
		s.d.mu.Unlock()
		if len(jobs) > 0 {
			emit(jobs)
			continue
		}
		select {
		case <-grown:
		case <-s.closed:
		case <-ctx.Done():
		}
	}
}

// Setting implements store.Store.
func (s *Store) Setting(ctx context.Context, name string) ([]byte, bool, error) {
	if err := s.lock(ctx, "store.Setting"); err != nil {
		return nil, false, err
	}
	defer s.d.mu.Unlock()
	v, ok := s.d.settings[name]
	return bytes.Clone(v), ok, nil
}

// SetSetting implements store.Store.
func (s *Store) SetSetting(ctx context.Context, name string, value []byte) error {
	if err := s.lock(ctx, "store.SetSetting"); err != nil {
		return err
	}
	defer s.d.mu.Unlock()
	s.d.settings[name] = append([]byte{}, value...)
	return nil
}

// Health implements store.Store.
func (s *Store) Health(ctx context.Context) error {
	if err := s.lock(ctx, "store.Health"); err != nil {
		return err
	}
	s.d.mu.Unlock()
	return nil
}

// session is a lease that runs out only when it is told to.
type session struct {
	d       *data
	replica string
	lost    chan struct{}
}

// Join implements store.Store.
func (s *Store) Join(ctx context.Context, replica string) (store.Session, error) {
	const op = "store.Join"
	if replica == "" {
		return nil, fail.Errorf(op, fail.Invalid, "", "a replica needs a name")
	}
	if err := s.lock(ctx, op); err != nil {
		return nil, err
	}
	defer s.d.mu.Unlock()
	s.d.drop(replica)
	sess := &session{d: s.d, replica: replica, lost: make(chan struct{})}
	s.d.sessions[replica] = sess
	return sess, nil
}

func (d *data) drop(replica string) {
	if old, ok := d.sessions[replica]; ok {
		delete(d.sessions, replica)
		close(old.lost)
		d.unbind(old)
	}
}

// Expire ends a replica's lease, as if its holder had been silent for too long.
func (s *Store) Expire(replica string) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.drop(replica)
}

// Lost implements store.Session.
func (s *session) Lost() <-chan struct{} { return s.lost }

// Close implements store.Session.
func (s *session) Close() error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.sessions[s.replica] == s {
		s.d.drop(s.replica)
	}
	return nil
}
