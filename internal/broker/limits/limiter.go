package limits

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
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
	changed func()

	busy  chan struct{} // holds a token while counts are written
	woken chan struct{} // Run has something to write

	mu     sync.Mutex
	queue  []*request
	limits map[Subject]known[limit]
	used   map[Subject]known[counts]
	own    map[Subject]int  // what we count, whether it is limited or not
	dirty  map[Subject]bool // may be counted otherwise than it is written
	all    bool             // everything may be
	// doubted are the keys of counts that a write may have changed whose answer is lost: true
	// until the record was read again, then false until a write of ours is known to have come
	// after it.
	doubted  map[string]bool
	sess     store.Session // the last that reserved or counted
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
	// Changed is called when limits, or what others count, came to be otherwise; it must
	// return at once. Nil is nobody.
	Changed func()
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
	if o.Changed == nil {
		o.Changed = func() {}
	}
	l := &Limiter{
		st: st, replica: o.Replica, log: o.Log, changed: o.Changed,
		busy: make(chan struct{}, 1), woken: make(chan struct{}, 1),
		own: map[Subject]int{}, dirty: map[Subject]bool{}, doubted: map[string]bool{},
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

// writeTime bounds the writing of one round.
const writeTime = 30 * time.Second

// Reserve counts jobs before they are acted on, under the session's lease: for each an
// error or nil. A use for which there is no room counts for nothing, and its error is
// fail.NotAccepting with a sentence that says whose limit it is and what to change; what
// else fails is of the store, and then it counts for nothing either. Alike calls at the
// same time are written together.
func (l *Limiter) Reserve(ctx context.Context, sess store.Session, uses ...Use) []error {
	const op = "limits.Reserve"
	l.mu.Lock()
	if l.unlimited(sess, uses) {
		l.mu.Unlock()
		return make([]error, len(uses))
	}
	r := &request{sess: sess, uses: uses, done: make(chan []error, 1)}
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

// unlimited counts uses that nothing limits, and that need no write therefore; false is
// that some may be limited, and that nothing was counted. l.mu is held.
func (l *Limiter) unlimited(sess store.Session, uses []Use) bool {
	parts := make([]part, 0, 4*len(uses))
	for _, u := range uses {
		parts = append(parts, u.parts()...)
	}
	for _, p := range parts {
		if _, limited := l.most(p.Subject); limited || p.Check() != nil {
			return false
		}
	}
	l.sess = sess
	for _, p := range parts {
		l.own[p.Subject] += p.n
	}
	return true
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
	for i, err := range l.reserveSome(ctx, sess, uses) {
		p := places[i]
		out[p.request][p.use] = err
	}
	for i, r := range requests {
		r.done <- out[i]
	}
}

// reserveSome counts uses in one transaction, or in as few as take them.
func (l *Limiter) reserveSome(ctx context.Context, sess store.Session, uses []Use) []error {
	for {
		if err := l.ascertain(ctx); err != nil {
			return slices.Repeat([]error{err}, len(uses))
		}
		errs, more, changes := l.admit(sess, uses)
		if half := len(uses) / 2; len(changes) > store.MaxTransaction && half > 0 {
			return append(l.reserveSome(ctx, sess, uses[:half]), l.reserveSome(ctx, sess, uses[half:])...)
		}
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
			if k := l.used[s].value[l.replica]; k != l.own[s] {
				if _, limited := l.most(s); limited { // since it was admitted, or not at once
					l.dirty[s] = true
					l.wake()
				}
			}
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
		if errs[i] = l.full(u, more); errs[i] == nil {
			for _, p := range u.parts() {
				more[p.Subject] += p.n
			}
		}
	}
	for s, n := range more {
		changes = append(changes, l.changes(s, l.own[s]+n, "")...)
	}
	return errs, more, unlike(changes)
}

// full says why there is no room for a use beside what counts and more; nil is that
// there is. l.mu is held.
func (l *Limiter) full(u Use, more map[Subject]int) error {
	for _, p := range u.parts() {
		if err := p.Check(); err != nil {
			return err
		}
		if most, limited := l.most(p.Subject); limited {
			if used := l.sum(p.Subject) + more[p.Subject]; used+p.n > most {
				return refusal(p.Subject, p.n, used, most)
			}
		}
	}
	return nil
}

// Full gives the error that Reserve would give for want of room, as known here; nil is
// that there is room. It reserves nothing.
func (l *Limiter) Full(u Use) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full(u, nil)
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
				delete(l.doubted, c.Key)
			}
		}
		return false, nil
	}
	e, ok := errors.AsType[*fail.Error](err)
	if !ok || e.Kind != fail.Conflict {
		l.mu.Lock()
		for _, c := range changes {
			if _, ok := splitKey(c.Key, usedPrefix); ok {
				l.doubted[c.Key] = true
			}
		}
		l.mu.Unlock()
		return false, err
	}
	if e.Subject == "" {
		return false, err
	}
	if err := l.refresh(ctx, changes); err != nil {
		return false, err
	}
	return true, nil
}

// ascertain reads the counts anew of which it is not known whether they were written: what
// is lower in the store than here is no room that others leave to us. The token is held.
func (l *Limiter) ascertain(ctx context.Context) error {
	l.mu.Lock()
	var keys []string
	for key, unread := range l.doubted {
		if unread {
			keys = append(keys, key)
		}
	}
	l.mu.Unlock()
	for _, key := range keys {
		if err := l.refresh(ctx, []store.RecordChange{{Key: key}}); err != nil {
			return err
		}
		l.mu.Lock()
		l.doubted[key] = false
		l.mu.Unlock()
	}
	return nil
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
		for _, p := range u.parts() {
			l.add(p.Subject, -p.n)
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

// Others gives the names of the other replicas that count anything, in order.
func (l *Limiter) Others() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := map[string]bool{}
	for _, k := range l.used {
		for name := range k.value {
			names[name] = true
		}
	}
	delete(names, l.replica)
	return slices.Sorted(maps.Keys(names))
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
		for _, p := range u.parts() {
			l.add(p.Subject, p.n)
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
		if err := l.ascertain(ctx); err != nil {
			return err
		}
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
// it. It ends nothing that runs. Who is remembered with the change.
// The name Everybody is for those that have no limit of their own.
func (l *Limiter) Set(ctx context.Context, who string, s Subject, most int) error {
	if most < 0 || most > MaxLimit {
		return fail.Errorf("limits.Set", fail.Invalid, s.String(), "the limit of %s is %d; it must be from 0 to %d", s, most, int64(MaxLimit))
	}
	return l.set(ctx, who, s, &most)
}

// Unset takes a limit away; none was there is no error.
func (l *Limiter) Unset(ctx context.Context, who string, s Subject) error {
	return l.set(ctx, who, s, nil)
}

// maxLimits bounds the limits that there are.
const maxLimits = 10_000

// maxWho bounds what is kept of the name of who changed a limit, in bytes.
const maxWho = 1024

func (l *Limiter) set(ctx context.Context, who string, s Subject, most *int) error {
	const op = "limits.Set"
	if err := s.Check(); err != nil {
		return err
	}
	if len(who) > maxWho {
		who = strings.ToValidUTF8(who[:maxWho], "")
	}
	for tries := 0; ; tries++ {
		changes, revision, err := l.readChanges(ctx)
		if err != nil {
			return err
		}
		of := store.RecordChange{Key: configKey(s)}
		if err := l.refresh(ctx, []store.RecordChange{of}); err != nil {
			return err
		}
		c := Change{At: time.Now().UTC().Round(0), Who: who, Scope: s.Scope, Name: s.Name, After: most}
		l.mu.Lock()
		if k := l.limits[s]; k.revision != 0 {
			of.If, c.Before = k.revision, &k.value.Max
		}
		n := 0
		for _, k := range l.limits {
			if k.revision != 0 {
				n++
			}
		}
		l.mu.Unlock()
		switch {
		case c.Before == nil && most == nil, c.Before != nil && most != nil && *c.Before == *most:
			return nil
		case c.Before == nil && n >= maxLimits:
			return fail.Errorf(op, fail.Exhausted, s.String(), "there are %d limits, as many as may be; take some away first", n)
		}
		if most != nil {
			of.Value = limit{*most}.encode()
		}
		value, err := json.Marshal(append([]Change{c}, changes[:min(len(changes), MaxChanges-1)]...))
		if err != nil {
			return fail.E(op, fail.Internal, "", err)
		}
		_, err = l.st.PutRecords(ctx, nil, of, store.RecordChange{Key: changesKey, Value: value, If: revision})
		if fail.Is(err, fail.Conflict) && tries < 10 {
			continue // another changed something meanwhile
		}
		if err != nil {
			return err
		}
		if err := l.refresh(ctx, []store.RecordChange{of}); err != nil {
			return err
		}
		l.mu.Lock()
		l.all = true // what had no limit is to be written now, or no more
		l.mu.Unlock()
		l.wake()
		l.changed()
		return nil
	}
}

// readChanges gives what the store remembers of changes.
func (l *Limiter) readChanges(ctx context.Context) ([]Change, int64, error) {
	records, _, err := l.st.ListRecords(ctx, changesKey, store.RecordOptions{Limit: 1})
	if err != nil || len(records) == 0 || records[0].Key != changesKey {
		return nil, 0, err
	}
	var out []Change
	if err := json.Unmarshal(records[0].Value, &out); err != nil {
		l.log.Warn("the record of who changed limits is damaged and begins anew", "cause", err)
		out = nil
	}
	return out, records[0].Revision, nil
}

// Changes gives the last changes of limits, the newest first, at most MaxChanges.
func (l *Limiter) Changes(ctx context.Context) ([]Change, error) {
	out, _, err := l.readChanges(ctx)
	return out, err
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

// Of gives the limit that holds for a subject, its own or that of everybody, and what
// counts towards it as known here; false is that there is none.
func (l *Limiter) Of(s Subject) (Status, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	most, limited := l.most(s)
	if !limited {
		return Status{}, false
	}
	st := Status{Subject: s, Max: most, Used: l.sum(s)}
	if l.limits[s].revision == 0 {
		st.Subject = s.everybody()
	}
	return st, true
}

// Used gives what counts towards a subject as known here, whether it has a limit or not.
func (l *Limiter) Used(s Subject) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum(s)
}

// Room gives how many more jobs like this there is room for by the limits alone, as known
// here; a negative number is no bound. It reserves nothing.
func (l *Limiter) Room(u Use) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := -1
	for _, p := range u.parts() {
		if most, limited := l.most(p.Subject); limited {
			left := max(0, most-l.sum(p.Subject)) / p.n
			if room < 0 || left < room {
				room = left
			}
		}
	}
	return room
}
