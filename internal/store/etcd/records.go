package etcd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// tagSize is how many bytes before a record's value name the write that put it: when
// its answer was lost, they tell it from another's write of the same value.
const tagSize = 16

var errRecord = errors.New("a record is damaged")

// tag gives a name that no other write has.
func (s *Store) tag() []byte {
	b := append(make([]byte, 0, tagSize), s.name[:]...)
	return binary.BigEndian.AppendUint64(b, s.tags.Add(1))
}

// shelf is a place of records; those of Shared are beside those of the Store itself.
type shelf struct {
	*Store
	prefix string
	only   []string // beginnings of the only keys that it gives; nil gives all
}

// Shared gives the records that all domains have in common, of those whose keys begin
// with one of the prefixes: the others of a gateway without a domain are in the same
// place and are its own. Sessions are those of the Store, which need not be closed for
// them. Without a domain they are the Store's own records.
func (s *Store) Shared(prefixes ...string) store.Records {
	return &shelf{Store: s, prefix: layoutOf("").records, only: slices.Concat([]string{}, prefixes)}
}

// PutRecords implements store.Records.
func (s *Store) PutRecords(ctx context.Context, sess store.Session, changes ...store.RecordChange) (int64, error) {
	return s.own.PutRecords(ctx, sess, changes...)
}

// ListRecords implements store.Records.
func (s *Store) ListRecords(ctx context.Context, prefix string, o store.RecordOptions) ([]store.Record, int64, error) {
	return s.own.ListRecords(ctx, prefix, o)
}

// WatchRecords implements store.Records.
func (s *Store) WatchRecords(ctx context.Context, prefix string, after int64, emit func([]store.Record, int64)) error {
	return s.own.WatchRecords(ctx, prefix, after, emit)
}

func (s *shelf) key(key string) string { return s.prefix + key }

// has refuses what is not of this shelf.
func (s *shelf) has(op, key string) error {
	if s.only == nil || slices.ContainsFunc(s.only, func(p string) bool { return strings.HasPrefix(key, p) }) {
		return nil
	}
	return fail.Errorf(op, fail.Invalid, key, "the records that the domains share begin with %s; %q is not one of them", strings.Join(s.only, " or "), key)
}

// recordOf gives the record that a key of etcd holds.
func (s *shelf) recordOf(kv *mvccpb.KeyValue) (store.Record, error) {
	key := string(kv.Key[len(s.prefix):])
	if len(kv.Value) < tagSize {
		return store.Record{}, fail.E("store.ListRecords", fail.Internal, key, errRecord)
	}
	return store.Record{Key: key, Value: bytes.Clone(kv.Value[tagSize:]), Revision: kv.ModRevision}, nil
}

// PutRecords implements store.Records. What is there is read first, to leave out what
// is the same; the transaction is done if nothing has changed since.
func (s *shelf) PutRecords(ctx context.Context, sess store.Session, changes ...store.RecordChange) (int64, error) {
	const op = "store.PutRecords"
	if err := store.CheckRecords(sess, changes); err != nil {
		return 0, err
	}
	for _, c := range changes {
		if err := s.has(op, c.Key); err != nil {
			return 0, err
		}
	}
	if err := s.usable(op); err != nil {
		return 0, err
	}
	var own *session
	if sess != nil {
		var ok bool
		if own, ok = sess.(*session); !ok || own.s != s.Store || own.isLost() {
			return 0, store.LostSession(op, "")
		}
	}
	tag := s.tag()
	uncertain := false // a first write may have arrived, and been overwritten since
	for {
		if ctx.Err() != nil {
			return 0, fail.E(op, fail.Unavailable, "", context.Cause(ctx))
		}
		found, err := s.records(ctx, op, own, changes)
		if err != nil {
			return 0, err
		}
		w, newest, err := s.recordWrite(op, own, tag, changes, found)
		if err != nil && uncertain {
			return 0, fail.Errorf(op, fail.Uncertain, "", "the store's answer was lost").Because(err)
		}
		if err != nil || len(w.then) == 0 {
			return newest, err
		}
		out := s.commit(ctx, w)[0]
		switch {
		case out.err != nil:
			return 0, out.err
		case out.ok:
			return out.revision, nil
		case !out.repeated:
			continue // somebody was faster; what is there now decides
		}
		if revision, settled, err := s.settleRecords(ctx, op, own, tag, w, changes); settled {
			return revision, err
		}
		uncertain = true
	}
}

// records reads what the changes are about, and the session's key: an error when that
// is not ours any more.
func (s *shelf) records(ctx context.Context, op string, own *session, changes []store.RecordChange) (map[string]*mvccpb.KeyValue, error) {
	ops := make([]clientv3.Op, 0, len(changes)+1)
	for _, c := range changes {
		ops = append(ops, clientv3.OpGet(s.key(c.Key)))
	}
	if own != nil {
		ops = append(ops, clientv3.OpGet(own.key))
	}
	kvs, err := s.ranges(ctx, op, ops)
	if err != nil {
		return nil, err
	}
	found := make(map[string]*mvccpb.KeyValue, len(kvs))
	for _, kv := range kvs {
		found[string(kv.Key)] = kv
	}
	if own != nil {
		if kv := found[own.key]; kv == nil || kv.ModRevision != own.revision {
			own.lose(errors.New("the key of the session is gone or is another's"))
			return nil, store.LostSession(op, "")
		}
	}
	return found, nil
}

// recordWrite gives the write that makes the changes of what was found; one that does
// nothing when all is so already, and then the newest revision of the records.
func (s *shelf) recordWrite(op string, own *session, tag []byte, changes []store.RecordChange, found map[string]*mvccpb.KeyValue) (*write, int64, error) {
	w := &write{op: op, guard: own}
	newest := int64(0)
	for _, c := range changes {
		key := s.key(c.Key)
		old := found[key]
		at, lease := int64(0), int64(0)
		if old != nil {
			at, lease = old.ModRevision, old.Lease
		}
		if c.If >= 0 && c.If != at {
			return w, 0, store.RecordMovedOn(op, c.Key)
		}
		newest = max(newest, at)
		w.alone = append(w.alone, key)
		w.when = append(w.when, clientv3.Compare(clientv3.ModRevision(key), "=", at))
		bound := int64(0)
		if c.Bound {
			bound = int64(own.lease)
		}
		switch {
		case c.Value == nil && old != nil:
			w.then = append(w.then, clientv3.OpDelete(key))
			w.bytes += len(key) + 32
		case c.Value == nil:
		case old != nil && len(old.Value) >= tagSize && bytes.Equal(old.Value[tagSize:], c.Value) && lease == bound:
		default:
			value := append(bytes.Clone(tag), c.Value...)
			w.then = append(w.then, clientv3.OpPut(key, string(value), clientv3.WithLease(clientv3.LeaseID(bound))))
			w.bytes += len(key) + len(value) + 32
			// What is new and stays must leave room for what exists, as new jobs must.
			w.create = w.create || old == nil && !c.Bound
		}
	}
	return w, newest, nil
}

// settleRecords says whether a write that was sent twice had arrived at first.
func (s *shelf) settleRecords(ctx context.Context, op string, own *session, tag []byte, w *write, changes []store.RecordChange) (revision int64, settled bool, err error) {
	found, err := s.records(ctx, op, nil, changes)
	if err != nil {
		return 0, true, fail.Errorf(op, fail.Uncertain, "", "the store's answer was lost").Because(err)
	}
	puts := false
	for _, o := range w.then {
		if !o.IsPut() {
			continue
		}
		puts = true
		if kv := found[string(o.KeyBytes())]; kv != nil && bytes.HasPrefix(kv.Value, tag) {
			return kv.ModRevision, true, nil
		}
	}
	if puts {
		return 0, false, nil // not ours, or overwritten since: the conditions decide
	}
	// Removals leave no name. That all is gone is what was asked for, unless somebody
	// else may have been the one that the condition is to let through.
	for _, c := range changes {
		if found[s.key(c.Key)] != nil {
			return 0, false, nil
		}
	}
	for _, c := range changes {
		if c.If > 0 {
			return 0, true, fail.Errorf(op, fail.Uncertain, c.Key, "the record %s is gone, and the store's answer was lost", c.Key)
		}
	}
	return 0, false, nil
}

// pageRecords is how many records one request reads.
const pageRecords = 256

// ListRecords implements store.Records.
func (s *shelf) ListRecords(ctx context.Context, prefix string, o store.RecordOptions) ([]store.Record, int64, error) {
	const op = "store.ListRecords"
	if err := cmp.Or(store.CheckPrefix(op, prefix), s.has(op, prefix)); err != nil {
		return nil, 0, err
	}
	for try := 0; ; try++ {
		records, revision, err := s.listRecords(ctx, prefix, o)
		if errors.Is(err, rpctypes.ErrCompacted) && try < sendTries {
			continue // a long list, and the store forgot its revision meanwhile
		}
		return records, revision, err
	}
}

func (s *shelf) listRecords(ctx context.Context, prefix string, o store.RecordOptions) ([]store.Record, int64, error) {
	from, end := s.key(prefix), clientv3.GetPrefixRangeEnd(s.key(prefix))
	if o.After != "" && o.Newest {
		end = min(end, s.key(o.After))
	} else if o.After != "" {
		from = max(from, s.key(o.After)+"\x00")
	}
	if from >= end { // nothing can be there; the revision is asked for all the same
		from, end = schemaKey+"\x00", schemaKey+"\x01"
	}
	if o.Newest && o.Limit > 0 {
		// etcd reads the range wholly to give its last keys.
		records, revision, _, err := s.recordPage(ctx, from, end, clientv3.SortDescend, o.Limit, 0)
		return records, revision, err
	}
	var records []store.Record
	for revision := int64(0); ; {
		limit := pageRecords
		if o.Limit > 0 {
			limit = min(limit, o.Limit-len(records))
		}
		page, at, more, err := s.recordPage(ctx, from, end, clientv3.SortAscend, limit, revision)
		if err != nil {
			return nil, 0, err
		}
		records, revision = append(records, page...), at
		if !more || o.Limit > 0 && len(records) >= o.Limit {
			if o.Newest {
				slices.Reverse(records)
			}
			return records, revision, nil
		}
		from = s.key(page[len(page)-1].Key) + "\x00"
	}
}

// recordPage reads some records of a range, at a revision or, with 0, at the newest.
func (s *shelf) recordPage(ctx context.Context, from, end string, order clientv3.SortOrder, limit int, revision int64) (records []store.Record, at int64, more bool, err error) {
	resp, err := call(ctx, s.Store, "store.ListRecords", func(ctx context.Context) (*clientv3.GetResponse, error) {
		return s.cli.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(limit)), clientv3.WithRev(revision), clientv3.WithSort(clientv3.SortByKey, order))
	})
	if err != nil {
		return nil, 0, false, err
	}
	if revision == 0 {
		revision = resp.Header.Revision
	}
	for _, kv := range resp.Kvs {
		r, err := s.recordOf(kv)
		if err != nil {
			return nil, 0, false, err
		}
		records = append(records, r)
	}
	return records, revision, resp.More && len(records) > 0, nil
}

// backlog is what a watch of records holds for its consumer: of each record the last
// change, and of no more bytes than lagBytes.
type backlog struct {
	mu       sync.Mutex
	changes  map[string]store.Record
	bytes    int
	revision int64 // up to which the changes are known
	err      error // after the changes
	grown    chan struct{}
}

// lagBytes bounds a backlog. A consumer that falls farther behind is served from
// etcd's history when it asks for more.
const lagBytes = 8 << 20

// add takes what etcd told; false when that is too much.
func (b *backlog) add(changes []store.Record, revision int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	size := func(r store.Record) int { return len(r.Key) + len(r.Value) + 64 }
	more := 0
	for _, r := range changes {
		more += size(r)
	}
	if b.bytes > 0 && b.bytes+more > lagBytes {
		return false
	}
	for _, r := range changes {
		if old, ok := b.changes[r.Key]; ok {
			b.bytes -= size(old)
		}
		b.changes[r.Key] = r
		b.bytes += size(r)
	}
	b.revision = max(b.revision, revision)
	b.wake()
	return true
}

func (b *backlog) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	b.wake()
}

func (b *backlog) wake() {
	select {
	case b.grown <- struct{}{}:
	default:
	}
}

// take gives what is to be told, and empties the backlog.
func (b *backlog) take() ([]store.Record, int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changes := make([]store.Record, 0, len(b.changes))
	for _, r := range b.changes {
		changes = append(changes, r)
	}
	clear(b.changes)
	b.bytes = 0
	slices.SortFunc(changes, func(a, b store.Record) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Key, b.Key))
	})
	return changes, b.revision, b.err
}

// WatchRecords implements store.Records.
func (s *shelf) WatchRecords(ctx context.Context, prefix string, after int64, emit func([]store.Record, int64)) error {
	const op = "store.WatchRecords"
	if err := cmp.Or(store.CheckPrefix(op, prefix), s.has(op, prefix)); err != nil {
		return err
	}
	for {
		err := s.followRecords(ctx, prefix, &after, emit)
		if dead := s.usable(op); dead != nil {
			return dead
		}
		var old tooOld
		switch {
		case ctx.Err() != nil:
			return fail.E(op, fail.Unavailable, "", context.Cause(ctx))
		case errors.Is(err, errLag):
		case errors.As(err, &old):
			return store.TooOld(op, after)
		default:
			return err
		}
	}
}

// followRecords emits what changes after the revision, and moves it along.
func (s *shelf) followRecords(ctx context.Context, prefix string, after *int64, emit func([]store.Record, int64)) error {
	if err := s.usable("store.WatchRecords"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wctx := ctx
	if s.etcd == nil {
		wctx = clientv3.WithRequireLeader(ctx)
	}
	answers := s.cli.Watch(wctx, s.key(prefix), clientv3.WithPrefix(), clientv3.WithRev(*after+1), clientv3.WithProgressNotify(), clientv3.WithFragment())
	b := &backlog{changes: map[string]store.Record{}, revision: *after, grown: make(chan struct{}, 1)}
	wg.Go(func() { b.end(s.collect(ctx, answers, b)) })
	for {
		select {
		case <-b.grown:
		case <-s.dead:
			return s.gone("store.WatchRecords")
		}
		changes, revision, err := b.take()
		if len(changes) > 0 {
			emit(changes, revision)
		}
		*after = max(*after, revision)
		if err != nil {
			return err
		}
	}
}

// collect fills the backlog until the watch ends, and gives why it did.
func (s *shelf) collect(ctx context.Context, answers clientv3.WatchChan, b *backlog) error {
	const op = "store.WatchRecords"
	for {
		var resp clientv3.WatchResponse
		var ok bool
		select {
		case resp, ok = <-answers:
		case <-ctx.Done():
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !ok:
			return fail.Errorf(op, fail.Unavailable, "", "the store ended the watch")
		case resp.CompactRevision != 0:
			return tooOld{resp.CompactRevision}
		}
		if err := resp.Err(); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) {
				return tooOld{}
			}
			return s.classify(op, "", err)
		}
		changes := make([]store.Record, 0, len(resp.Events))
		revision := int64(0)
		if resp.IsProgressNotify() {
			revision = resp.Header.Revision
		}
		for _, e := range resp.Events {
			r := store.Record{Key: string(e.Kv.Key[len(s.prefix):]), Revision: e.Kv.ModRevision}
			if e.Type == clientv3.EventTypePut {
				var err error
				if r, err = s.recordOf(e.Kv); err != nil {
					return err
				}
			}
			revision = max(revision, r.Revision)
			changes = append(changes, r)
		}
		if !b.add(changes, revision) {
			return errLag
		}
	}
}

// endOthers removes what an earlier session of the same name bound to its lease, which
// may have a while to run.
func (s *Store) endOthers(ctx context.Context, op string, before *mvccpb.KeyValue, own clientv3.LeaseID) error {
	if before == nil || before.Lease == 0 || clientv3.LeaseID(before.Lease) == own {
		return nil
	}
	_, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		resp, err := s.cli.Revoke(ctx, clientv3.LeaseID(before.Lease))
		if errors.Is(err, rpctypes.ErrLeaseNotFound) { // it ran out by itself
			return resp, nil
		}
		return resp, err
	})
	if err != nil {
		return fmt.Errorf("ending the lease of the process before: %w", err)
	}
	return nil
}
