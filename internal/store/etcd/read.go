package etcd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, ids ...string) (map[string]store.Job, error) {
	const op = "store.Get"
	if err := s.usable(op); err != nil {
		return nil, err
	}
	found := make(map[string]store.Job, len(ids))
	for some := range slices.Chunk(ids, min(s.commits.ops/2, 512)) {
		ops := make([]clientv3.Op, 0, 2*len(some))
		for _, id := range some {
			ops = append(ops, clientv3.OpGet(s.keys.statusKey(id, false)), clientv3.OpGet(s.keys.statusKey(id, true)))
		}
		statuses, err := s.ranges(ctx, op, ops)
		if err != nil {
			return nil, err
		}
		jobs, err := s.withHeaders(ctx, statuses)
		if err != nil {
			return nil, err
		}
		for _, j := range jobs {
			found[j.ID] = j
		}
	}
	return found, nil
}

// ranges reads in one transaction.
func (s *Store) ranges(ctx context.Context, op string, ops []clientv3.Op) ([]*mvccpb.KeyValue, error) {
	resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).Then(ops...).Commit()
	})
	if err != nil {
		return nil, err
	}
	var kvs []*mvccpb.KeyValue
	for _, r := range resp.Responses {
		kvs = append(kvs, r.GetResponseRange().Kvs...)
	}
	return kvs, nil
}

// jobOf puts a job together, and remembers it for updates.
func (s *Store) jobOf(h *header, status *mvccpb.KeyValue) (store.Job, error) {
	_, st, err := decodeStatus(status.Value)
	if err != nil {
		return store.Job{}, fail.E("store.Get", fail.Internal, h.id, err)
	}
	job := h.job(status.ModRevision, st)
	s.note(&job)
	return job, nil
}

func (s *Store) note(j *store.Job) {
	if b, ok := s.bases.get(j.ID); !ok || b.revision < j.Revision {
		s.bases.put(j.ID, baseOf(j))
	}
}

// Document implements store.Store.
func (s *Store) Document(ctx context.Context, id string) ([]byte, error) {
	const op = "store.Document"
	p, _, err := s.part(ctx, op, id)
	if err != nil {
		return nil, err
	}
	packed := p.document
	if p.apart > 0 {
		resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return s.cli.Get(ctx, s.keys.documentPrefix(id, p.sum), clientv3.WithPrefix())
		})
		if err != nil {
			return nil, err
		}
		if len(resp.Kvs) != p.apart {
			return nil, fail.E(op, fail.Internal, id, errPart)
		}
		packed = nil
		for _, kv := range resp.Kvs {
			packed = append(packed, kv.Value...)
		}
	}
	return unpack(p, packed)
}

// part reads a job's immutable part, and what else is asked for with it.
func (s *Store) part(ctx context.Context, op, id string, more ...clientv3.Op) (*part, []*mvccpb.KeyValue, error) {
	h, ok := s.headers.get(id)
	if !ok {
		jobs, err := s.Get(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		h.owner = jobs[id].Owner
	}
	ops := append([]clientv3.Op{clientv3.OpGet(s.keys.partKey(digest(h.owner), id))}, more...)
	kvs, err := s.ranges(ctx, op, ops)
	if err != nil {
		return nil, nil, err
	}
	if len(kvs) == 0 || !bytes.HasPrefix(kvs[0].Key, []byte(s.keys.parts)) {
		return nil, nil, fail.Errorf(op, fail.NotFound, id, "there is no job %s", id)
	}
	p, err := decodePart(kvs[0].Value)
	if err != nil {
		return nil, nil, fail.E(op, fail.Internal, id, err)
	}
	return p, kvs[1:], nil
}

// History implements store.Store.
func (s *Store) History(ctx context.Context, id string, after int) ([]store.Event, error) {
	const op = "store.History"
	p, lines, err := s.part(ctx, op, id, clientv3.OpGet(s.keys.histories+escape(id), clientv3.WithPrefix()))
	if err != nil {
		return nil, err
	}
	var events []store.Event
	if after < 1 {
		var first store.Event
		if err := json.Unmarshal(p.first, &first); err != nil {
			return nil, fail.E(op, fail.Internal, id, err)
		}
		events = append(events, first)
	}
	for i, kv := range lines {
		if i+1 < len(lines) && firstSequence(lines[i+1].Key) <= after+1 {
			continue // all of these are older
		}
		var some []store.Event
		if err := json.Unmarshal(kv.Value, &some); err != nil {
			return nil, fail.E(op, fail.Internal, id, err)
		}
		for _, e := range some {
			if e.Sequence > after {
				events = append(events, e)
			}
		}
	}
	return events, nil
}

// firstSequence gives the sequence that a history key begins with.
func firstSequence(key []byte) int {
	if len(key) < 8 {
		return 0
	}
	return int(binary.BigEndian.Uint64(key[len(key)-8:]) & (1<<62 - 1))
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, o store.ListOptions) ([]store.Job, error) {
	const op = "store.List"
	if o.Limit <= 0 {
		o.Limit = store.DefaultLimit
	}
	// Everybody's jobs are where their statuses are.
	prefixes := []string{s.keys.final}
	if o.Owner != "" {
		prefixes = []string{s.keys.ownerParts(digest(o.Owner))}
	} else {
		for n := range uint32(shards) {
			prefixes = append(prefixes, s.keys.shardPrefix(n))
		}
	}
	ops := make([]clientv3.Op, len(prefixes))
	for i, prefix := range prefixes {
		from := prefix
		if o.Before != "" {
			from += newest(o.Before) + "\x00"
		}
		ops[i] = clientv3.OpGet(from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(int64(o.Limit)), clientv3.WithKeysOnly())
	}
	kvs, err := s.ranges(ctx, op, ops)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(kvs))
	for i, kv := range kvs {
		// What stands before an id has a length of its own for each kind of key.
		from := len(s.keys.final)
		if o.Owner != "" {
			from = len(prefixes[0])
		} else if bytes.HasPrefix(kv.Key, []byte(s.keys.live)) {
			from = len(prefixes[1])
		}
		var ok bool
		if ids[i], ok = newestID(kv.Key[from:]); !ok {
			return nil, fail.E(op, fail.Internal, "", errPart)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) })
	ids = ids[:min(len(ids), o.Limit)]
	found, err := s.Get(ctx, ids...)
	if err != nil {
		return nil, err
	}
	jobs := make([]store.Job, 0, len(ids))
	for _, id := range ids {
		if j, ok := found[id]; ok {
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context, owner string) (int64, error) {
	prefix := s.keys.parts
	if owner != "" {
		prefix = s.keys.ownerParts(digest(owner))
	}
	resp, err := call(ctx, s, "store.Count", func(ctx context.Context) (*clientv3.GetResponse, error) {
		return s.cli.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	})
	if err != nil {
		return 0, err
	}
	return resp.Count, nil
}

// snapshot is how far a Live read saw (at), and the highest revision that its
// caller can know of (top).
type snapshot struct{ top, at int64 }

// livePage is how many statuses one request reads.
const livePage = 2000

// Live implements store.Store.
func (s *Store) Live(ctx context.Context) ([]store.Job, error) {
	const op = "store.Live"
	var statuses []*mvccpb.KeyValue
	var seen snapshot
	for from := s.keys.live; ; {
		resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return s.cli.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.keys.live)), clientv3.WithLimit(livePage), clientv3.WithRev(seen.at))
		})
		if err != nil {
			return nil, err
		}
		if seen.at == 0 {
			seen.at = resp.Header.Revision
		}
		statuses = append(statuses, resp.Kvs...)
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	jobs, err := s.withHeaders(ctx, statuses)
	if err != nil {
		return nil, err
	}
	for i := range jobs {
		seen.top = max(seen.top, jobs[i].Revision)
	}
	s.live.Store(&seen)
	slices.SortFunc(jobs, func(a, b store.Job) int { return cmp.Compare(a.ID, b.ID) })
	return jobs, nil
}

// withHeaders makes jobs of statuses, in order.
func (s *Store) withHeaders(ctx context.Context, statuses []*mvccpb.KeyValue) ([]store.Job, error) {
	const op = "store.Get"
	headers := make(map[string]*header, len(statuses))
	ids := make([]string, len(statuses))
	var parts []string
	for i, kv := range statuses {
		id, _, ok := s.keys.statusID(kv.Key)
		if !ok {
			return nil, fail.E(op, fail.Internal, "", errPart)
		}
		ids[i] = id
		if _, asked := headers[id]; asked {
			continue
		}
		if h, ok := s.headers.get(id); ok {
			headers[id] = &h
		} else {
			headers[id] = nil
			if len(kv.Value) < digestSize {
				return nil, fail.E(op, fail.Internal, id, errPart)
			}
			parts = append(parts, s.keys.partKey(string(kv.Value[:digestSize]), id))
		}
	}
	for some := range slices.Chunk(parts, min(s.commits.ops, 512)) {
		ops := make([]clientv3.Op, len(some))
		for i, key := range some {
			ops[i] = clientv3.OpGet(key)
		}
		kvs, err := s.ranges(ctx, op, ops) // one that was removed since is not there
		if err != nil {
			return nil, err
		}
		for _, kv := range kvs {
			p, err := decodePart(kv.Value)
			if err != nil {
				return nil, fail.E(op, fail.Internal, "", err)
			}
			headers[p.id] = &p.header
			s.headers.put(p.id, p.header)
		}
	}
	jobs := make([]store.Job, 0, len(statuses))
	for i, kv := range statuses {
		if h := headers[ids[i]]; h != nil {
			job, err := s.jobOf(h, kv)
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, job)
		}
	}
	return jobs, nil
}

// Setting implements store.Store.
func (s *Store) Setting(ctx context.Context, name string) ([]byte, bool, error) {
	resp, err := call(ctx, s, "store.Setting", func(ctx context.Context) (*clientv3.GetResponse, error) {
		return s.cli.Get(ctx, s.keys.settings+name)
	})
	if err != nil || len(resp.Kvs) == 0 {
		return nil, false, err
	}
	return resp.Kvs[0].Value, true, nil
}

// SetSetting implements store.Store.
func (s *Store) SetSetting(ctx context.Context, name string, value []byte) error {
	const op = "store.SetSetting"
	if err := s.usable(op); err != nil {
		return err
	}
	if s.etcd != nil {
		if err := s.room(op, int64(len(name)+len(value)), false); err != nil {
			return err
		}
	}
	_, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.PutResponse, error) {
		return s.cli.Put(ctx, s.keys.settings+name, string(value))
	})
	return err
}
