package broker

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
)

// createTime bounds the write of one submission. It outlives the request: a
// client that goes away must not leave a job that nobody takes in.
const createTime = 30 * time.Second

// caller gives who asks, or why they may not.
func (b *Broker) caller(ctx context.Context, op string, p Permission) (soap.Principal, error) {
	who := soap.PrincipalFrom(ctx)
	if who.Name == "" {
		who.Name = "anonymous"
	}
	if err := b.cfg.Authorise(who, p); err != nil {
		return who, fail.Errorf(op, fail.Denied, who.Name, "%s may not %s here", who.Name, p).Because(err)
	}
	return who, nil
}

// Permit gives who asks in a context, or fail.Denied where they may not: for what is asked of
// the gateway and is not the broker's.
func (b *Broker) Permit(ctx context.Context, op string, p Permission) (soap.Principal, error) {
	return b.caller(ctx, op, p)
}

// oversees reports whether the caller sees everybody's activities.
func (b *Broker) oversees(who soap.Principal) bool { return b.cfg.Authorise(who, Oversee) == nil }

// CreateActivity makes a job durable and gives its reference.
func (b *Broker) CreateActivity(ctx context.Context, req *bes.CreateActivityRequest) (*bes.CreateActivityResponse, error) {
	const op = "broker.CreateActivity"
	for _, prefix := range []string{ForeignPrefix, PromisePrefix} {
		if strings.HasPrefix(req.SubmissionID, prefix) {
			return nil, fail.Errorf(op, fail.Invalid, "SubmissionId",
				"the SubmissionId begins with %q, as those of jobs that %s do; choose another, such as a UUID", prefix, prefixes[prefix])
		}
	}
	rec, _, err := b.createActivity(ctx, op, req, nil)
	if err != nil {
		return nil, err
	}
	return &bes.CreateActivityResponse{Activity: b.reference(rec.ID)}, nil
}

// prefixes says whose jobs have SubmissionIDs that begin so.
var prefixes = map[string]string{ForeignPrefix: "peers hand over", PromisePrefix: "agreements are about"}

// admissible says whether a job would be taken, as far as that can be told of its document.
func (b *Broker) admissible(ctx context.Context, op string, req *bes.CreateActivityRequest, p *Promise) (who soap.Principal, def *jsdl.JobDefinition, k *kind, err error) {
	if who, err = b.caller(ctx, op, Submit); err != nil {
		return who, nil, nil, err
	}
	if !b.accepting.Load() {
		select {
		case <-b.ready:
			return who, nil, nil, fail.Errorf(op, fail.NotAccepting, "", "the gateway takes no new activities at present; its operator has stopped them")
		default:
			return who, nil, nil, errStarting
		}
	}
	if n := len(req.Document); n > b.cfg.Limits.Document {
		return who, nil, nil, fail.Errorf(op, fail.Invalid, "", "the job's document has %d bytes; at most %d are taken", n, b.cfg.Limits.Document)
	}
	if def = req.Job; def == nil {
		var problems jsdl.Problems
		def, problems = jsdl.Parse(req.Document, b.cfg.JSDL)
		if err := judge(def, problems); err != nil {
			return who, nil, nil, err
		}
	}
	key := kindKey{sum: sha256.Sum256(req.Document), owner: who.Name, guest: who.Account}
	k, known, err := b.submitted(def, key, len(req.Document), false)
	if err != nil {
		return who, nil, nil, err
	}
	if err := b.member(who, k.request.Subject.VO); err != nil {
		return who, nil, nil, err
	}
	if err = b.refusal(op, k, who.Name); err != nil && known { // of what the adapters said before
		if k, _, err = b.submitted(def, key, len(req.Document), true); err == nil {
			err = b.refusal(op, k, who.Name)
		}
	}
	if err == nil && p != nil {
		err = b.promisable(op, k, p)
	}
	return who, def, k, err
}

// createActivity makes a job durable, with what is promised of it, if that is not nil.
func (b *Broker) createActivity(ctx context.Context, op string, req *bes.CreateActivityRequest, p *Promise) (rec store.Job, created bool, err error) {
	who, def, k, err := b.admissible(ctx, op, req, p)
	if err != nil {
		return rec, false, err
	}
	id, err := newID()
	if err != nil {
		return rec, false, err
	}
	cpus := max(1, k.request.Need.CPUs)
	st, line, _, err := step(store.Status{VO: k.request.Subject.VO, Gateway: b.cfg.Replica, CPUs: cpus, Promise: p}, fact{event: Accepted, at: time.Now(), reason: "accepted from " + who.Name + promisedWords(p)})
	if err != nil {
		return rec, false, err
	}
	rec, created, err = b.admit(ctx, op, k, limits.Use{User: who.Name, VO: k.request.Subject.VO, CPUs: cpus}, store.NewJob{
		ID: id, Owner: who.Name, Name: def.Name(), SubmissionID: req.SubmissionID,
		Document: req.Document, Submitted: line.Time, Status: st, Event: *line,
	})
	if err != nil {
		return rec, false, err
	}
	if created && b.cfg.Hooks.Submitted != nil {
		b.cfg.Hooks.Submitted(b.roster.Load().pinned(k))
	}
	return rec, created, nil
}

// admit makes a job of the kind durable and ours, if the limits allow it.
func (b *Broker) admit(ctx context.Context, op string, k *kind, use limits.Use, n store.NewJob) (rec store.Job, created bool, err error) {
	if err := b.reserve(op, n.Owner, n.ID); err != nil {
		return rec, false, err
	}
	release, err := b.reserveShared(ctx, use)
	if err != nil {
		b.mu.Lock()
		b.unreserve(n.Owner, n.ID)
		b.mu.Unlock()
		return rec, false, err
	}
	rec, created, err = b.create(ctx, op, n)
	kept := fail.Is(err, fail.Uncertain) // it may be there: it counts until that is known
	b.mu.Lock()
	b.unreserve(n.Owner, n.ID)
	if err == nil && created && b.serving {
		if k.key == (kindKey{}) {
			k.key = keyOfRecord(&rec)
		}
		if old := b.kinds[k.key]; old == nil || old.epoch < k.epoch {
			b.kinds[k.key] = k // it is taken by the job that is adopted, or by nobody
		}
		if j := b.adopt(rec); j != nil && !j.counted {
			j.counted, kept = true, true
		}
		if k.refs == 0 && b.kinds[k.key] == k {
			delete(b.kinds, k.key)
			b.spare.put(k)
		}
	}
	b.mu.Unlock()
	if !kept {
		release()
	}
	return rec, created, err
}

// pinned gives the site that alone is allowed; "" if there is a choice.
func (r *roster) pinned(k *kind) string {
	if len(r.sites) < 2 || len(k.barred) != len(r.sites)-1 {
		return ""
	}
	for _, s := range r.sites {
		if _, barred := k.barred[s.name]; !barred {
			return s.name
		}
	}
	return ""
}

// judge gives the error that the problems of a document amount to.
func judge(def *jsdl.JobDefinition, problems jsdl.Problems) error {
	err := problems.Err()
	if err == nil && def == nil {
		err = fail.Errorf("broker.judge", fail.Invalid, "", "the document is not a JobDefinition")
	}
	return err
}

// create writes a job. An answer that was lost is settled by reading back.
func (b *Broker) create(ctx context.Context, op string, n store.NewJob) (store.Job, bool, error) {
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTime)
	defer cancel()
	rec, created, err := b.cfg.Store.Create(wctx, n)
	switch {
	case err == nil:
		return rec, created, nil
	case fail.Is(err, fail.Uncertain) || isContext(err):
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTime)
		defer cancel()
		if recs, rerr := b.cfg.Store.Get(rctx, n.ID); rerr == nil {
			if rec, ok := recs[n.ID]; ok {
				return rec, true, nil
			}
		}
		b.mu.Lock()
		b.doubtful[n.ID] = time.Now()
		b.mu.Unlock()
		return rec, false, fail.Errorf(op, fail.Uncertain, n.ID,
			"it is not known whether the activity was created; ask again with the same SubmissionId, or look for it among your activities").Because(err)
	case fail.Is(err, fail.Conflict):
		return rec, false, fail.Errorf(op, fail.Invalid, n.SubmissionID,
			"the SubmissionId %q belongs to an activity of yours with another document; choose a new one", n.SubmissionID).Because(err)
	case fail.Is(err, fail.Exhausted):
		e, _ := errors.AsType[*fail.Error](err)
		s := "the gateway has no room to store another activity; its operator must make room, and then it takes activities again"
		if e.Public != "" {
			s += " (" + e.Public + ")"
		}
		return rec, false, fail.Errorf(op, fail.NotAccepting, "", "%s", s).Because(err)
	}
	return rec, false, err
}

// find gives the records of activities, in order; an error for each that does not
// exist or is none of the caller's business, which they must not tell apart.
func (b *Broker) find(ctx context.Context, op string, activities []soap.EPR) ([]store.Job, []error, error) {
	who, err := b.caller(ctx, op, Submit)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-b.ready:
	default:
		return nil, nil, errStarting
	}
	all := b.oversees(who)
	recs, errs := make([]store.Job, len(activities)), make([]error, len(activities))
	ids := make([]string, len(activities))
	var missing []string
	reasons := mostReasons
	b.mu.Lock()
	for i, a := range activities {
		if ids[i], errs[i] = idOf(a); errs[i] != nil {
			continue
		}
		if j := b.jobs[ids[i]]; j != nil {
			recs[i] = b.shown(j, &reasons)
		} else {
			missing = append(missing, ids[i])
		}
	}
	b.mu.Unlock()
	var stored map[string]store.Job
	if len(missing) > 0 {
		if stored, err = b.cfg.Store.Get(ctx, missing...); err != nil {
			return nil, nil, err
		}
	}
	for i := range activities {
		if errs[i] != nil {
			continue
		}
		if recs[i].ID == "" {
			recs[i] = stored[ids[i]]
		}
		if recs[i].ID == "" || (recs[i].Owner != who.Name || recs[i].Status.Of != "") && !all {
			recs[i], errs[i] = store.Job{}, fail.Errorf(op, fail.NotFound, ids[i], "no activity %s of yours is known here", ids[i])
		}
	}
	return recs, errs, nil
}

// GetActivityStatuses gives states; with Wait, once there is news.
func (b *Broker) GetActivityStatuses(ctx context.Context, req *bes.StatusRequest) ([]bes.StatusResult, error) {
	const op = "broker.GetActivityStatuses"
	if req.Wait > 0 {
		if err := b.await(ctx, req); err != nil {
			return nil, err
		}
	}
	recs, errs, err := b.find(ctx, op, req.Activities)
	if err != nil {
		return nil, err
	}
	out := make([]bes.StatusResult, len(recs))
	for i, a := range req.Activities {
		out[i] = bes.StatusResult{Activity: a, Err: errs[i]}
		if errs[i] == nil {
			out[i].Status = statusOf(&recs[i])
		}
	}
	return out, nil
}

// await returns when one of the activities is newer than req.After or final, when
// there is nothing to wait for, or when the time is up.
func (b *Broker) await(ctx context.Context, req *bes.StatusRequest) error {
	recs, errs, err := b.find(ctx, "broker.GetActivityStatuses", req.Activities)
	if err != nil {
		return err
	}
	news := func(j *store.Job) bool { return j.Status.Final || j.Revision > req.After }
	wake := make(chan struct{}, 1)
	var watched []*job
	b.mu.Lock()
	if b.waiters >= b.cfg.Limits.Waiters {
		b.mu.Unlock()
		return nil
	}
	if !b.serving { // nothing changes now, and whoever asks in a loop must not spin
		b.mu.Unlock()
		sleep(ctx, min(req.Wait, time.Second))
		return nil
	}
	ready := false
	for i := range recs {
		if errs[i] != nil {
			continue
		}
		j := b.jobs[recs[i].ID]
		if j == nil || news(&j.rec) {
			ready = true // ended, or newer
			break
		}
		watched = append(watched, j)
	}
	if ready || len(watched) == 0 {
		b.mu.Unlock()
		return nil
	}
	for _, j := range watched {
		if j.waiters == nil {
			j.waiters = map[chan struct{}]struct{}{}
		}
		j.waiters[wake] = struct{}{}
	}
	b.waiters++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		for _, j := range watched {
			delete(j.waiters, wake)
		}
		b.waiters--
		b.mu.Unlock()
	}()

	t := time.NewTimer(min(req.Wait, b.cfg.Limits.Wait))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return fail.Errorf("broker.GetActivityStatuses", fail.Unavailable, "", "the gateway stops waiting for news; ask again").Because(context.Cause(ctx))
		case <-t.C:
			return nil
		case <-wake:
		}
		b.mu.Lock()
		for _, j := range watched {
			if b.jobs[j.rec.ID] != j || news(&j.rec) {
				ready = true
			}
		}
		ready = ready || !b.serving
		b.mu.Unlock()
		if ready {
			return nil
		}
	}
}

// statusOf tells a record in the words of BES.
func statusOf(rec *store.Job) bes.Status {
	st := &rec.Status
	p := Phase(st.Phase)
	d := &bes.Details{
		Name: rec.Name, Reason: st.Reason, ExitStatus: st.ExitStatus, Signal: st.Signal,
		Submitted: rec.Submitted, Started: st.Started, Revision: rec.Revision,
	}
	if st.Final {
		d.Ended = st.Ended
	}
	if st.Placement != nil {
		d.Site = st.Placement.Site
	}
	if t := st.Told; t != nil {
		d.Progress, d.Hosts, d.Attributes = t.Progress, t.Hosts, t.Attributes
		d.Usage = bes.Usage{CPU: t.CPU, Memory: t.Memory}
	}
	showForeign(rec, d)
	showPromise(rec, d)
	showBought(rec, d)
	return bes.Status{State: p.State(), SubStates: p.SubStates(), Details: d}
}

// GetActivityDocuments gives the documents as they were sent.
func (b *Broker) GetActivityDocuments(ctx context.Context, activities []soap.EPR) ([]bes.DocumentResult, error) {
	recs, errs, err := b.find(ctx, "broker.GetActivityDocuments", activities)
	if err != nil {
		return nil, err
	}
	out := make([]bes.DocumentResult, len(recs))
	for i, a := range activities {
		out[i] = bes.DocumentResult{Activity: a, Err: errs[i]}
		if errs[i] == nil {
			out[i].Document, out[i].Err = b.cfg.Store.Document(ctx, recs[i].ID)
		}
	}
	return out, nil
}
