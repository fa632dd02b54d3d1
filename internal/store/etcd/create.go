package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// maxInside is up to which size a packed document is in its job's own key, which
// lists read too.
const maxInside = 4 << 10

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, n store.NewJob) (store.Job, bool, error) {
	const op = "store.Create"
	if err := n.Check(); err != nil {
		return store.Job{}, false, err
	}
	if err := s.usable(op); err != nil {
		return store.Job{}, false, err
	}
	if ctx.Err() != nil {
		return store.Job{}, false, fail.E(op, fail.Unavailable, n.ID, context.Cause(ctx))
	}
	p, err := pack(&n)
	if err != nil {
		return store.Job{}, false, err
	}
	n.Status.Sequence = 1
	owner := digest(n.Owner)
	status, err := encodeStatus(owner, &n.Status)
	if err != nil {
		return store.Job{}, false, err
	}
	w := &write{op: op, id: n.ID, create: true}
	if len(p.document) > maxInside {
		if err := s.putApart(ctx, p, w); err != nil {
			return store.Job{}, false, err
		}
	}
	live, final := s.keys.statusKey(n.ID, false), s.keys.statusKey(n.ID, true)
	w.alone = []string{live}
	w.when = []clientv3.Cmp{absent(live), absent(final)}
	w.put(s.keys.partKey(owner, n.ID), p.encode())
	if n.Status.Final {
		live = final
	}
	w.put(live, status)
	if n.SubmissionID != "" {
		key := s.keys.submissionKey(owner, n.SubmissionID)
		w.alone = append(w.alone, key)
		w.when = append(w.when, absent(key))
		w.or = []string{key}
		w.put(key, []byte(n.ID))
	}
	out := s.commit(ctx, w)[0]
	switch {
	case out.err != nil:
		return store.Job{}, false, out.err
	case !out.ok:
		return s.existing(ctx, &n, p, out)
	}
	st := n.Status
	if !asStored(&st) {
		if _, st, err = decodeStatus(status); err != nil {
			return store.Job{}, false, fail.E(op, fail.Internal, n.ID, err)
		}
	}
	job := p.job(out.revision, st)
	s.bases.put(n.ID, base{out.revision, 1, n.Status.Final, owner})
	s.headers.put(n.ID, p.header)
	return job, true, nil
}

func absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
}

func (w *write) put(key string, value []byte) {
	w.then = append(w.then, clientv3.OpPut(key, string(value)))
	w.bytes += len(key) + len(value) + 32
}

// existing answers a creation that met a job of the same id or SubmissionId.
func (s *Store) existing(ctx context.Context, n *store.NewJob, p *part, out outcome) (store.Job, bool, error) {
	const op = "store.Create"
	ids := []string{n.ID}
	for _, r := range out.found {
		for _, kv := range r.GetResponseRange().Kvs {
			ids = append(ids, string(kv.Value))
		}
	}
	jobs, err := s.Get(ctx, ids...)
	if err != nil {
		return store.Job{}, false, err
	}
	job, ok := jobs[n.ID]
	if !ok {
		job, ok = jobs[ids[len(ids)-1]]
	}
	if !ok {
		return store.Job{}, false, fail.Errorf(op, fail.Unavailable, n.ID, "the job was not stored and nothing stands in its place; try again")
	}
	if err := store.Same(job, *n, p.sum); err != nil {
		return store.Job{}, false, err
	}
	// What a creation finds when its own first answer was lost is its own job.
	return job, out.repeated && job.ID == n.ID, nil
}

// putApart cuts the document into parts under keys of their own. What fits one
// transaction is put with the job; of more, the parts go before it. They are named
// by the document's sum, so that who comes second writes the same, and they are
// never read without a job that names them.
func (s *Store) putApart(ctx context.Context, p *part, w *write) error {
	chunk := min(s.commits.bytes, 1<<20)
	rest := p.document
	p.document = nil
	before := len(rest) > s.commits.bytes/2
	for len(rest) > 0 {
		n := min(len(rest), chunk)
		put := w
		if before {
			put = &write{op: w.op, id: w.id, create: true}
		}
		key := s.keys.documentKey(p.id, p.sum, p.apart)
		put.put(key, rest[:n])
		rest = rest[n:]
		p.apart++
		if before {
			put.alone = []string{key}
			if err := s.commit(ctx, put)[0].err; err != nil {
				if fail.Is(err, fail.Uncertain) { // the job itself certainly is not there
					return fail.Errorf(w.op, fail.Unavailable, w.id, "the store cannot be reached at present").Because(err)
				}
				return err
			}
		}
	}
	return nil
}
