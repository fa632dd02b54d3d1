package limits

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Limiter counts jobs for one replica.
type Limiter struct {
	st      store.Store
	replica string
	log     *slog.Logger

	busy  chan struct{} // holds a token while counts are written
	woken chan struct{} // Run has something to write

	mu       sync.Mutex
	queue    []*request
	limits   map[Subject]known[limit]
	used     map[Subject]known[counts]
	own      map[Subject]int  // what we count, whether it is limited or not
	dirty    map[Subject]bool // may be counted otherwise than it is written
	all      bool             // everything may be
	sess     store.Session    // the last that reserved or counted
	revision int64
}

// known is a record as it was read last; revision 0: it is not there.
type known[T any] struct {
	value    T
	revision int64 // 0: not there
	seen     int64 // of the change that said so
}

// request is one call of Reserve.
type request struct {
	sess store.Session
	uses []Use
	done chan []error
}

// Options says how a Limiter works.
type Options struct {
	Replica string // our name in counts; "" is "gateway"
	Log     *slog.Logger
}

// Open reads the limits and the counts. What an earlier process of this name counted
// counts on until Recount.
func Open(ctx context.Context, st store.Store, o Options) (*Limiter, error) {
	if o.Replica == "" {
		o.Replica = "gateway"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Limiter{
		st: st, replica: o.Replica, log: o.Log,
		busy: make(chan struct{}, 1), woken: make(chan struct{}, 1),
		own: map[Subject]int{}, dirty: map[Subject]bool{},
	}
	if err := l.reload(ctx); err != nil {
		return nil, err
	}
	for s, u := range l.used {
		if n := u.value[l.replica]; n > 0 {
			l.own[s] = n
		}
	}
	return l, nil
}

// reload reads everything.
func (l *Limiter) reload(ctx context.Context) error {
	records, revision, err := l.st.ListRecords(ctx, prefix, store.RecordOptions{})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits, l.used = map[Subject]known[limit]{}, map[Subject]known[counts]{}
	for _, r := range records {
		l.note(r)
	}
	l.revision = revision
	return nil
}

// note takes what a record says. l.mu is held.
func (l *Limiter) note(r store.Record) {
	if s, ok := splitKey(r.Key, configPrefix); ok {
		noteIn(l, l.limits, s, r)
	} else if s, ok := splitKey(r.Key, usedPrefix); ok {
		noteIn(l, l.used, s, r)
	}
}

func noteIn[T any](l *Limiter, m map[Subject]known[T], s Subject, r store.Record) {
	if r.Revision < m[s].seen {
		return
	}
	k := known[T]{seen: r.Revision}
	if r.Value == nil {
		// Kept for its revision: what is older and comes later must not bring it back.
		m[s] = k
		return
	}
	k.revision = r.Revision
	if err := json.Unmarshal(r.Value, &k.value); err != nil {
		l.log.Warn("a record of the limits is damaged and counts as nothing", "key", r.Key, "cause", err)
	}
	m[s] = k
}

// most gives the limit of a subject and whether it has one. l.mu is held.
func (l *Limiter) most(s Subject) (int, bool) {
	if k := l.limits[s]; k.revision != 0 {
		return k.value.Max, true
	}
	if k := l.limits[s.everybody()]; k.revision != 0 {
		return k.value.Max, true
	}
	return 0, false
}

// maxSubjects is how many subjects one transaction writes: each is up to three records
// of it, the count and the two limits that must be as they were.
const maxSubjects = store.MaxTransaction / 3

// writeTime bounds the writing of one round.
const writeTime = 30 * time.Second

// Reserve counts jobs before they are acted on, under the session's lease: for each an
// error or nil. A use for which there is no room counts for nothing, and its error is
// fail.NotAccepting with a sentence that says whose limit it is and what to change; what
// else fails is of the store, and then it counts for nothing either. Alike calls at the
// same time are written together.
func (l *Limiter) Reserve(ctx context.Context, sess store.Session, uses ...Use) []error {
	const op = "limits.Reserve"
	r := &request{sess: sess, uses: uses, done: make(chan []error, 1)}
	l.mu.Lock()
	l.queue = append(l.queue, r)
	l.mu.Unlock()
	select {
	case errs := <-r.done: // done by another
		return errs
	case l.busy <- struct{}{}:
		l.round(ctx)
		<-l.busy
		return <-r.done
	case <-ctx.Done():
	}
	l.mu.Lock()
	i := slices.Index(l.queue, r)
	if i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	}
	l.mu.Unlock()
	if i < 0 { // it is being written
		return <-r.done
	}
	return slices.Repeat([]error{fail.E(op, fail.Unavailable, "", context.Cause(ctx))}, len(uses))
}

// round does all that is asked. The token is held.
func (l *Limiter) round(ctx context.Context) {
	l.mu.Lock()
	requests := l.queue
	l.queue = nil
	l.mu.Unlock()
	// What others asked does not end with our caller.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	for len(requests) > 0 {
		n := 1
		for n < len(requests) && requests[n].sess == requests[0].sess {
			n++
		}
		l.reserve(ctx, requests[0].sess, requests[:n])
		requests = requests[n:]
	}
}

// reserve does requests of one session.
func (l *Limiter) reserve(ctx context.Context, sess store.Session, requests []*request) {
	type place struct{ request, use int }
	var uses []Use
	var places []place
	out := make([][]error, len(requests))
	for i, r := range requests {
		out[i] = make([]error, len(r.uses))
		for k, u := range r.uses {
			uses, places = append(uses, u), append(places, place{i, k})
		}
	}
	for from := 0; from < len(uses); {
		n := l.chunk(uses[from:])
		for i, err := range l.reserveSome(ctx, sess, uses[from:from+n]) {
			p := places[from+i]
			out[p.request][p.use] = err
		}
		from += n
	}
	for i, r := range requests {
		r.done <- out[i]
	}
}

// chunk gives how many of the uses go into one transaction.
func (l *Limiter) chunk(uses []Use) int {
	seen := map[Subject]bool{}
	for i, u := range uses {
		for _, s := range u.subjects() {
			seen[s] = true
		}
		if len(seen) > maxSubjects && i > 0 {
			return i
		}
	}
	return len(uses)
}

// reserveSome counts uses in one transaction.
func (l *Limiter) reserveSome(ctx context.Context, sess store.Session, uses []Use) []error {
	for {
		errs, more, changes := l.admit(sess, uses)
		if len(changes) > 0 {
			moved, err := l.write(ctx, sess, changes)
			if moved {
				continue // by another: what is there now decides
			}
			if err != nil {
				for i := range errs {
					if errs[i] == nil {
						errs[i] = err
					}
				}
				l.mu.Lock()
				for s := range more { // it may have arrived: what we count is written again
					l.dirty[s] = true
				}
				l.mu.Unlock()
				l.wake()
				return errs
			}
		}
		l.mu.Lock()
		for s, n := range more {
			l.own[s] += n
		}
		l.mu.Unlock()
		return errs
	}
}

// add changes what we count. l.mu is held.
func (l *Limiter) add(s Subject, n int) {
	l.dirty[s] = true
	if l.own[s] += n; l.own[s] <= 0 {
		delete(l.own, s)
	}
}

// admit decides which of the uses there is room for, in their order, and gives what they
// add and the transaction that counts them.
func (l *Limiter) admit(sess store.Session, uses []Use) (errs []error, more map[Subject]int, changes []store.RecordChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sess = sess
	errs = make([]error, len(uses))
	more = map[Subject]int{}
	for i, u := range uses {
		subjects := u.subjects()
		for _, s := range subjects {
			if errs[i] = s.Check(); errs[i] != nil {
				break
			}
			most, limited := l.most(s)
			if !limited {
				continue
			}
			k := l.used[s]
			used := k.value.sum() - k.value[l.replica] + l.own[s] + more[s]
			if used >= most {
				errs[i] = refusal(s, used, most)
				break
			}
		}
		if errs[i] == nil {
			for _, s := range subjects {
				more[s]++
			}
		}
	}
	for s, n := range more {
		changes = append(changes, l.changes(s, l.own[s]+n, "")...)
	}
	return errs, more, unlike(changes)
}

// changes gives what writes our count of a subject: its record, on the condition that
// the limits are as we know them. l.mu is held.
func (l *Limiter) changes(s Subject, n int, without string) []store.RecordChange {
	if _, limited := l.most(s); !limited {
		n = 0
	}
	k := l.used[s]
	_, other := k.value[without]
	if k.value[l.replica] == n && !other {
		return nil
	}
	out := []store.RecordChange{{Key: usedKey(s), Value: k.value.with(l.replica, n, without), If: k.revision}}
	for _, of := range []Subject{s, s.everybody()} {
		// The same value again is not written: it is the condition that counts.
		c := store.RecordChange{Key: configKey(of), If: l.limits[of].revision}
		if c.If != 0 {
			c.Value = l.limits[of].value.encode()
		}
		out = append(out, c)
	}
	return out
}

func (l limit) encode() []byte {
	b, err := json.Marshal(l)
	if err != nil {
		panic("limits: a number is no JSON: " + err.Error())
	}
	return b
}

// unlike leaves out what is there twice: the limits of everybody.
func unlike(changes []store.RecordChange) []store.RecordChange {
	seen := map[string]bool{}
	return slices.DeleteFunc(changes, func(c store.RecordChange) bool {
		had := seen[c.Key]
		seen[c.Key] = true
		return had
	})
}

// write sends a transaction. moved says that another was faster, and that what it wrote
// is known now.
func (l *Limiter) write(ctx context.Context, sess store.Session, changes []store.RecordChange) (moved bool, err error) {
	revision, err := l.st.PutRecords(ctx, sess, changes...)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range changes {
			if _, ok := splitKey(c.Key, usedPrefix); ok {
				l.note(store.Record{Key: c.Key, Value: c.Value, Revision: revision})
			}
		}
		return false, nil
	}
	e, ok := errors.AsType[*fail.Error](err)
	if !ok || e.Kind != fail.Conflict || e.Subject == "" {
		return false, err
	}
	if err := l.refresh(ctx, changes); err != nil {
		return false, err
	}
	return true, nil
}

// refresh reads the records of a transaction.
func (l *Limiter) refresh(ctx context.Context, changes []store.RecordChange) error {
	for _, c := range changes {
		// The key itself comes first of those that begin with it.
		records, at, err := l.st.ListRecords(ctx, c.Key, store.RecordOptions{Limit: 1})
		if err != nil {
			return err
		}
		r := store.Record{Key: c.Key, Revision: at}
		if len(records) == 1 && records[0].Key == c.Key {
			r = records[0]
		}
		l.mu.Lock()
		if r.Value != nil || l.known(r.Key) {
			l.note(r)
		}
		l.mu.Unlock()
	}
	return nil
}

// known says whether anything is remembered of a key. l.mu is held.
func (l *Limiter) known(key string) bool {
	if s, ok := splitKey(key, configPrefix); ok {
		return l.limits[s].seen != 0
	}
	s, ok := splitKey(key, usedPrefix)
	return ok && l.used[s].seen != 0
}

// forget drops what is remembered only of a removal. l.mu is held.
func (l *Limiter) forget(key string) {
	if s, ok := splitKey(key, configPrefix); ok && l.limits[s].revision == 0 {
		delete(l.limits, s)
	} else if s, ok := splitKey(key, usedPrefix); ok && l.used[s].revision == 0 {
		delete(l.used, s)
	}
}

// Release takes jobs out of the count. It is written with the next write, or by Run.
func (l *Limiter) Release(uses ...Use) {
	l.mu.Lock()
	for _, u := range uses {
		for _, s := range u.subjects() {
			l.add(s, -1)
		}
	}
	l.mu.Unlock()
	l.wake()
}

func (l *Limiter) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// Recount says which jobs this replica has, all of them: what it counts is that, whatever
// an earlier process of its name wrote. No Reserve may be under way for a job that is not
// among them.
func (l *Limiter) Recount(ctx context.Context, sess store.Session, uses []Use) error {
	return l.count(ctx, sess, uses, "", true)
}

// Adopt counts jobs that this replica takes over from one that is dead, and counts no
// others for that one any more.
func (l *Limiter) Adopt(ctx context.Context, sess store.Session, dead string, uses []Use) error {
	if dead == l.replica {
		return fail.Errorf("limits.Adopt", fail.Invalid, dead, "a replica has its own jobs already: they are counted anew")
	}
	return l.count(ctx, sess, uses, dead, false)
}

func (l *Limiter) count(ctx context.Context, sess store.Session, uses []Use, dead string, anew bool) error {
	select {
	case l.busy <- struct{}{}:
	case <-ctx.Done():
		return fail.E("limits.Recount", fail.Unavailable, "", context.Cause(ctx))
	}
	defer func() { <-l.busy }()
	if err := l.reload(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	if anew {
		clear(l.own)
	}
	for _, u := range uses {
		for _, s := range u.subjects() {
			l.add(s, 1)
		}
	}
	l.sess, l.all = sess, true
	l.mu.Unlock()
	return l.publish(ctx, sess, dead)
}

// publish writes what we count where it is written otherwise, and takes out the counts
// of the dead. The token is held.
func (l *Limiter) publish(ctx context.Context, sess store.Session, dead string) error {
	for {
		l.mu.Lock()
		if l.all {
			for _, s := range l.subjects() {
				l.dirty[s] = true
			}
			l.all = false
		}
		var changes []store.RecordChange
		for s := range l.dirty {
			c := l.changes(s, l.own[s], dead)
			if len(c) == 0 {
				delete(l.dirty, s)
				continue
			}
			if len(changes)+len(c) > store.MaxTransaction {
				break
			}
			changes = append(changes, c...)
		}
		l.mu.Unlock()
		if len(changes) == 0 {
			return nil
		}
		if _, err := l.write(ctx, sess, unlike(changes)); err != nil {
			return err
		}
	}
}

// subjects gives all that are counted here or in the store. l.mu is held.
func (l *Limiter) subjects() []Subject {
	var out []Subject
	for s := range l.own {
		out = append(out, s)
	}
	for s := range l.used {
		out = append(out, s)
	}
	return out
}

// Set puts a limit in force: here at once, on other replicas when their watch delivers
// it. It ends nothing that runs.
// The name Everybody is for those that have no limit of their own.
func (l *Limiter) Set(ctx context.Context, s Subject, most int) error {
	if err := s.Check(); err != nil {
		return err
	}
	if most < 0 || most > MaxLimit {
		return fail.Errorf("limits.Set", fail.Invalid, s.String(), "the limit of %s is %d; it must be from 0 to %d", s, most, int64(MaxLimit))
	}
	return l.set(ctx, s, limit{most}.encode())
}

// Unset takes a limit away; none was there is no error.
func (l *Limiter) Unset(ctx context.Context, s Subject) error {
	if err := s.Check(); err != nil {
		return err
	}
	return l.set(ctx, s, nil)
}

func (l *Limiter) set(ctx context.Context, s Subject, value []byte) error {
	if _, err := l.st.PutRecords(ctx, nil, store.RecordChange{Key: configKey(s), Value: value, If: -1}); err != nil {
		return err
	}
	if err := l.refresh(ctx, []store.RecordChange{{Key: configKey(s)}}); err != nil {
		return err
	}
	l.wake()
	return nil
}

// Limits gives the limits in force and what counts towards them, in order.
func (l *Limiter) Limits() []Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Status
	for s, k := range l.limits {
		if k.revision == 0 {
			continue
		}
		st := Status{Subject: s, Max: k.value.Max}
		if s.Name != Everybody {
			st.Used = l.sum(s)
		} else {
			for of := range l.used {
				if of.Scope == s.Scope && l.limits[of].revision == 0 {
					st.Used = max(st.Used, l.sum(of))
				}
			}
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b Status) int { return a.Subject.compare(b.Subject) })
	return out
}

// sum gives what counts for a subject: what others wrote and what we know. l.mu is held.
func (l *Limiter) sum(s Subject) int {
	k := l.used[s].value
	return k.sum() - k[l.replica] + l.own[s]
}

// Room gives how many more jobs there is room for by the limits alone, as known here; a
// negative number is no bound. It reserves nothing.
func (l *Limiter) Room(u Use) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := -1
	for _, s := range u.subjects() {
		if most, limited := l.most(s); limited {
			left := max(0, most-l.sum(s))
			if room < 0 || left < room {
				room = left
			}
		}
	}
	return room
}
