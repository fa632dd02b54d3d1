package faulty

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Op names a method of store.Store.
type Op string

// The methods that can fail.
const (
	Create     Op = "Create"
	Get        Op = "Get"
	Document   Op = "Document"
	Update     Op = "Update"
	History    Op = "History"
	List       Op = "List"
	Count      Op = "Count"
	Live       Op = "Live"
	Watch      Op = "Watch"
	Setting    Op = "Setting"
	SetSetting Op = "SetSetting"
	Join       Op = "Join"
	Health     Op = "Health"

	PutRecords   Op = "PutRecords"
	ListRecords  Op = "ListRecords"
	WatchRecords Op = "WatchRecords"
)

// writes says whether a call changes what is stored.
func (op Op) writes() bool {
	return op == Create || op == Update || op == SetSetting || op == PutRecords
}

// Fault says how one call goes wrong. The zero value lets it pass.
type Fault struct {
	Delay  time.Duration // before anything else
	Before fail.Kind     // the call is not done and fails so; Internal, the zero kind, is none
	After  bool          // the call is done, and its answer lost: writes give fail.Uncertain, reads fail.Unavailable
	Lose   bool          // of Update and PutRecords: the session is lost first
}

// Script gives the fault of each call. It is never called twice at once.
type Script func(Op) Fault

// Rates are how often, of one call, each thing goes wrong: 0 never, 1 always.
type Rates struct {
	Unavailable float64 // refused, not done
	Exhausted   float64 // refused because the disk is full; of writes only
	Lost        float64 // done, the answer lost
	Expire      float64 // of Update and PutRecords: the session lost
	Delay       float64
	Longest     time.Duration // delays are up to this
}

// Seeded gives a script of random faults that is the same for the same seed.
func Seeded(seed uint64, r Rates) Script {
	dice := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test repeats it by its seed
	return func(op Op) Fault {
		var f Fault
		if dice.Float64() < r.Delay && r.Longest > 0 {
			f.Delay = time.Duration(dice.Int64N(int64(r.Longest)) + 1)
		}
		switch roll := dice.Float64(); {
		case roll < r.Unavailable:
			f.Before = fail.Unavailable
		case roll < r.Unavailable+r.Exhausted && op.writes():
			f.Before = fail.Exhausted
		case roll >= 1-r.Lost:
			f.After = true
		}
		f.Lose = (op == Update || op == PutRecords) && dice.Float64() < r.Expire
		return f
	}
}

// Store is a store.Store that fails.
type Store struct {
	inner  store.Store
	mu     sync.Mutex
	script Script
}

var _ store.Store = (*Store)(nil)

// New gives a store that fails as script says and else does as inner does.
func New(inner store.Store, script Script) *Store { return &Store{inner: inner, script: script} }

// Follow replaces the script; nil fails nothing any more.
func (s *Store) Follow(script Script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = script
}

var errInjected = errors.New("injected by the test")

// begin asks the script, waits, and refuses.
func (s *Store) begin(ctx context.Context, op Op) (Fault, error) {
	s.mu.Lock()
	var f Fault
	if s.script != nil {
		f = s.script(op)
	}
	s.mu.Unlock()
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return f, fail.E("store."+string(op), fail.Unavailable, "", context.Cause(ctx))
		}
	}
	if f.Before != fail.Internal {
		return f, fail.Errorf("store."+string(op), f.Before, "", "the store refuses this: it was told to").Because(errInjected)
	}
	return f, nil
}

// lost is the error of a call that was done.
func lost(op Op) error {
	kind := fail.Unavailable
	if op.writes() {
		kind = fail.Uncertain
	}
	return fail.Errorf("store."+string(op), kind, "", "the store's answer was lost: it was told to lose it").Because(errInjected)
}

// do makes a call with the fault that the script has for it.
func do[T any](ctx context.Context, s *Store, op Op, call func() (T, error)) (T, error) {
	var none T
	f, err := s.begin(ctx, op)
	if err != nil {
		return none, err
	}
	v, err := call()
	if err == nil && f.After {
		return none, lost(op)
	}
	return v, err
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, n store.NewJob) (store.Job, bool, error) {
	created := false
	job, err := do(ctx, s, Create, func() (job store.Job, err error) {
		job, created, err = s.inner.Create(ctx, n)
		return job, err
	})
	return job, created && err == nil, err
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, ids ...string) (map[string]store.Job, error) {
	return do(ctx, s, Get, func() (map[string]store.Job, error) { return s.inner.Get(ctx, ids...) })
}

// Document implements store.Store.
func (s *Store) Document(ctx context.Context, id string) ([]byte, error) {
	return do(ctx, s, Document, func() ([]byte, error) { return s.inner.Document(ctx, id) })
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, sess store.Session, changes ...store.Change) []store.Changed {
	f, err := s.begin(ctx, Update)
	var out []store.Changed
	if err == nil {
		if f.Lose && sess != nil {
			_ = sess.Close()
		}
		out = s.inner.Update(ctx, sess, changes...)
		if !f.After {
			return out
		}
		err = lost(Update)
	}
	failed := make([]store.Changed, len(changes))
	for i := range failed {
		failed[i].Err = err
	}
	return failed
}

// History implements store.Store.
func (s *Store) History(ctx context.Context, id string, after int) ([]store.Event, error) {
	return do(ctx, s, History, func() ([]store.Event, error) { return s.inner.History(ctx, id, after) })
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, o store.ListOptions) ([]store.Job, error) {
	return do(ctx, s, List, func() ([]store.Job, error) { return s.inner.List(ctx, o) })
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context, owner string) (int64, error) {
	return do(ctx, s, Count, func() (int64, error) { return s.inner.Count(ctx, owner) })
}

// Live implements store.Store.
func (s *Store) Live(ctx context.Context) ([]store.Job, error) {
	return do(ctx, s, Live, func() ([]store.Job, error) { return s.inner.Live(ctx) })
}

// Watch implements store.Store. A watch whose answer is lost ends after what it
// emitted first.
func (s *Store) Watch(ctx context.Context, after int64, emit func([]store.Job)) error {
	f, err := s.begin(ctx, Watch)
	if err != nil {
		return err
	}
	if !f.After {
		return s.inner.Watch(ctx, after, emit)
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	err = s.inner.Watch(inner, after, func(jobs []store.Job) {
		if inner.Err() == nil {
			emit(jobs)
			cancel()
		}
	})
	if ctx.Err() == nil && inner.Err() != nil {
		return lost(Watch)
	}
	return err
}

// Setting implements store.Store.
func (s *Store) Setting(ctx context.Context, name string) ([]byte, bool, error) {
	ok := false
	v, err := do(ctx, s, Setting, func() (v []byte, err error) {
		v, ok, err = s.inner.Setting(ctx, name)
		return v, err
	})
	return v, ok && err == nil, err
}

// SetSetting implements store.Store.
func (s *Store) SetSetting(ctx context.Context, name string, value []byte) error {
	_, err := do(ctx, s, SetSetting, func() (struct{}, error) { return struct{}{}, s.inner.SetSetting(ctx, name, value) })
	return err
}

// Join implements store.Store. A session whose answer is lost is given back.
func (s *Store) Join(ctx context.Context, replica string) (store.Session, error) {
	f, err := s.begin(ctx, Join)
	if err != nil {
		return nil, err
	}
	sess, err := s.inner.Join(ctx, replica)
	if err == nil && f.After {
		_ = sess.Close()
		return nil, lost(Join)
	}
	return sess, err
}

// Health implements store.Store.
func (s *Store) Health(ctx context.Context) error {
	_, err := do(ctx, s, Health, func() (struct{}, error) { return struct{}{}, s.inner.Health(ctx) })
	return err
}

// Close implements store.Store. It never fails by the script.
func (s *Store) Close() error { return s.inner.Close() }
