package etcd

import (
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
	found := make(map[string]store.Job, len(ids))
	if err := s.usable("store.Get"); err != nil {
		return nil, err
	}
	each := min(s.commits.ops/3, 256)
	for some := range slices.Chunk(ids, each) {
		if err := s.getInto(ctx, found, some); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (s *Store) getInto(ctx context.Context, found map[string]store.Job, ids []string) error {
	const op = "store.Get"
	ops := make([]clientv3.Op, 0, 3*len(ids))
	for _, id := range ids {
		ops = append(ops, clientv3.OpGet(partKey(id)), clientv3.OpGet(statusKey(id, false)), clientv3.OpGet(statusKey(id, true)))
	}
	resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).Then(ops...).Commit()
	})
	if err != nil {
		return err
	}
	for i, id := range ids {
		kvs := func(k int) []*mvccpb.KeyValue { return resp.Responses[3*i+k].GetResponseRange().Kvs }
		if len(kvs(0)) == 0 {
			continue
		}
		p, err := decodePart(kvs(0)[0].Value)
		if err != nil {
			return fail.E(op, fail.Internal, id, err)
		}
		s.headers.put(id, p.header)
		status := append(kvs(1), kvs(2)...)
		if len(status) != 1 {
			return fail.E(op, fail.Internal, id, errPart)
		}
		job, err := s.jobOf(&p.header, status[0])
		if err != nil {
			return err
		}
		found[id] = job
	}
	return nil
}

// jobOf puts a job together, and remembers it for updates.
func (s *Store) jobOf(h *header, status *mvccpb.KeyValue) (store.Job, error) {
	var st store.Status
	if err := json.Unmarshal(status.Value, &st); err != nil {
		return store.Job{}, fail.E("store.Get", fail.Internal, h.id, err)
	}
	job := h.job(status.ModRevision, st)
	s.note(&job)
	return job, nil
}

func (s *Store) note(j *store.Job) {
	if b, ok := s.bases.get(j.ID); !ok || b.revision < j.Revision {
		s.bases.put(j.ID, base{j.Revision, j.Status.Sequence, j.Status.Final})
	}
}

// Document implements store.Store.
func (s *Store) Document(ctx context.Context, id string) ([]byte, error) {
	const op = "store.Document"
	p, err := s.part(ctx, op, id)
	if err != nil {
		return nil, err
	}
	packed := p.document
	if p.apart > 0 {
		resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return s.cli.Get(ctx, documentPrefix(id, p.sum), clientv3.WithPrefix())
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
	return s.codec.unpack(p, packed)
}

// part reads a job's immutable part.
func (s *Store) part(ctx context.Context, op, id string) (*part, error) {
	resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return s.cli.Get(ctx, partKey(id))
	})
	if err != nil {
		return nil, err
	}
	if len(resp.Kvs) == 0 {
		return nil, fail.Errorf(op, fail.NotFound, id, "there is no job %s", id)
	}
	p, err := decodePart(resp.Kvs[0].Value)
	if err != nil {
		return nil, fail.E(op, fail.Internal, id, err)
	}
	return p, nil
}

// History implements store.Store.
func (s *Store) History(ctx context.Context, id string, after int) ([]store.Event, error) {
	const op = "store.History"
	prefix := historyPrefix + escape(id)
	resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).Then(clientv3.OpGet(partKey(id)), clientv3.OpGet(prefix, clientv3.WithPrefix())).Commit()
	})
	if err != nil {
		return nil, err
	}
	parts, lines := resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs
	if len(parts) == 0 {
		return nil, fail.Errorf(op, fail.NotFound, id, "there is no job %s", id)
	}
	p, err := decodePart(parts[0].Value)
	if err != nil {
		return nil, fail.E(op, fail.Internal, id, err)
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
	prefix := partPrefix
	if o.Owner != "" {
		prefix = ownerIndex(o.Owner)
	}
	from := prefix
	if o.Before != "" {
		from += newest(o.Before) + "\x00"
	}
	resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return s.cli.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(int64(o.Limit)), clientv3.WithKeysOnly())
	})
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		var ok bool
		if ids[i], ok = newestID(kv.Key[len(prefix):]); !ok {
			return nil, fail.E(op, fail.Internal, "", errPart)
		}
	}
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
	prefix := partPrefix
	if owner != "" {
		prefix = ownerIndex(owner)
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
	for from := livePrefix; ; {
		resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return s.cli.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(livePrefix)), clientv3.WithLimit(livePage), clientv3.WithRev(seen.at))
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
	var unknown []string
	for i, kv := range statuses {
		id, _, ok := statusID(kv.Key)
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
			unknown = append(unknown, id)
		}
	}
	for some := range slices.Chunk(unknown, min(s.commits.ops, 512)) {
		ops := make([]clientv3.Op, len(some))
		for i, id := range some {
			ops[i] = clientv3.OpGet(partKey(id))
		}
		resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.TxnResponse, error) {
			return s.cli.Txn(ctx).Then(ops...).Commit()
		})
		if err != nil {
			return nil, err
		}
		for i, id := range some {
			kvs := resp.Responses[i].GetResponseRange().Kvs
			if len(kvs) == 0 {
				continue // it was removed since
			}
			p, err := decodePart(kvs[0].Value)
			if err != nil {
				return nil, fail.E(op, fail.Internal, id, err)
			}
			headers[id] = &p.header
			s.headers.put(id, p.header)
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
		return s.cli.Get(ctx, settingPrefix+name)
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
		return s.cli.Put(ctx, settingPrefix+name, string(value))
	})
	return err
}
