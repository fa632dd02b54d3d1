package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// decisionPrefix begins the keys of decisions' records: decision/JOB/ATTEMPT.
const decisionPrefix = "decision/"

// mostDecision bounds the record of one decision, in bytes: what does not fit is
// counted in More.
const mostDecision = 4096

func decisionKey(id string, attempt int) string {
	return fmt.Sprintf("%s%s/%06d", decisionPrefix, id, attempt)
}

// decided gives the choice that a plan makes durable; nil if it makes none. The caller
// holds the lock.
func (j *job) decided(p *plan) *schedule.Decision {
	d := j.chosen
	if d == nil || p.after.Placement == nil || p.after.Attempt != d.Attempt || p.before.Attempt == p.after.Attempt {
		return nil
	}
	return d
}

// encodeDecision writes a decision as it is stored.
func encodeDecision(d *schedule.Decision) ([]byte, error) {
	short := *d
	for {
		v, err := json.Marshal(&short)
		if err != nil || len(v) <= mostDecision {
			return v, err
		}
		switch out, ranked := len(short.Out), len(short.Ranked); {
		case out > 1:
			short.Out = short.Out[:out/2]
			short.More += out - out/2
		case ranked > 1:
			short.Ranked = short.Ranked[:(ranked+1)/2]
			short.More += ranked - (ranked+1)/2
		default:
			return v, nil // a name or two of the longest kind
		}
	}
}

// noteDecisions lets the choices that plans make durable be written with them, in the
// same transaction: a placement without its reasons is one that the store had no room
// left to explain.
func (b *Broker) noteDecisions(plans []*plan) {
	chosen := make([]*schedule.Decision, len(plans))
	b.mu.Lock()
	for i, p := range plans {
		chosen[i] = p.j.decided(p)
	}
	b.mu.Unlock()
	for i, d := range chosen {
		if d == nil {
			continue
		}
		v, err := encodeDecision(d)
		if err != nil {
			b.cfg.Log.Error("a decision can't be written down", "job", d.Job, "cause", err)
			continue
		}
		plans[i].note = &store.Note{Key: decisionKey(d.Job, d.Attempt), Value: v}
	}
}

// countDecisions has old decisions removed once some more were stored.
func (b *Broker) countDecisions(done []*plan) {
	more := int64(0)
	for _, p := range done {
		if p.note != nil {
			more++
		}
	}
	if b.kept.Add(more) > int64(b.cfg.Limits.Decisions/8) {
		nudge(b.wakePrune)
	}
}

// recounted is after how many times the records of decisions are counted anew: to count
// them is to read them all, and in between we know how many we added ourselves.
const recounted = 16

// pruneLoop keeps the number of decisions' records within the bound.
func (b *Broker) pruneLoop(ctx context.Context, sess store.Session) error {
	have := 0
	for round := 0; ; round++ {
		var err error
		more := int(b.kept.Swap(0))
		if have += more; round%recounted == 0 || !b.cfg.Alone {
			have, err = b.countRecords(ctx)
		}
		if err == nil {
			var removed int
			removed, err = b.removeDecisions(ctx, sess, have-b.cfg.Limits.Decisions, "")
			have -= removed
		}
		if err != nil {
			round = -1 // what there is is not known now
			if ctx.Err() == nil {
				b.cfg.Log.Warn("old records of decisions could not be removed; it is tried again later", "cause", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.wakePrune:
		}
	}
}

// countRecords gives how many decisions are stored.
func (b *Broker) countRecords(ctx context.Context) (int, error) {
	const page = 1000
	n := 0
	for after := ""; ; {
		recs, _, err := b.cfg.Store.ListRecords(ctx, decisionPrefix, store.RecordOptions{After: after, Limit: page})
		if err != nil {
			return 0, err
		}
		if n += len(recs); len(recs) < page {
			return n, nil
		}
		after = recs[len(recs)-1].Key
	}
}

// removeDecisions removes the oldest records: so many, or those of jobs below an id. It
// gives how many it removed.
func (b *Broker) removeDecisions(ctx context.Context, sess store.Session, n int, below string) (removed int, err error) {
	for n > 0 {
		recs, _, err := b.cfg.Store.ListRecords(ctx, decisionPrefix, store.RecordOptions{Limit: min(n, store.MaxTransaction)})
		if err != nil {
			return removed, err
		}
		var changes []store.RecordChange
		for _, r := range recs {
			if below == "" || r.Key < decisionPrefix+below {
				changes = append(changes, store.RecordChange{Key: r.Key, If: -1})
			}
		}
		if len(changes) == 0 {
			return removed, nil
		}
		if _, err := b.cfg.Store.PutRecords(ctx, sess, changes...); err != nil {
			return removed, err
		}
		n -= len(changes)
		removed += len(changes)
	}
	return removed, nil
}

// Decisions gives the placements of an activity with their reasons.
func (b *Broker) Decisions(ctx context.Context, activity soap.EPR) ([]schedule.Decision, error) {
	const op = "broker.Decisions"
	recs, errs, err := b.find(ctx, op, []soap.EPR{activity})
	if err != nil {
		return nil, err
	}
	if errs[0] != nil {
		return nil, errs[0]
	}
	var out []schedule.Decision
	for after := ""; ; {
		page, _, err := b.cfg.Store.ListRecords(ctx, decisionPrefix+recs[0].ID+"/", store.RecordOptions{After: after, Limit: 100})
		if err != nil {
			return nil, err
		}
		for _, r := range page {
			var d schedule.Decision
			if err := json.Unmarshal(r.Value, &d); err != nil {
				return nil, fail.Errorf(op, fail.Internal, recs[0].ID, "the record of a decision can't be read: it is of another version, or damaged").Because(err)
			}
			out = append(out, d)
		}
		if len(page) < 100 {
			return out, nil
		}
		after = page[len(page)-1].Key
	}
}

// learn notes what a durable plan teaches: how long a job ran, whether a place loses
// jobs, and what was used. The caller holds the lock; the job is still counted.
func (b *Broker) learn(p *plan) {
	now := time.Now()
	for _, l := range p.lines {
		switch e := Event(l.Event); e {
		case Unrun, Rerun, Vanished:
			if pl := p.before.Placement; pl != nil {
				b.learned = true
				b.book.Ended(placeOf(pl), "", 0, false, now)
			}
			if e == Rerun {
				b.charge(p, &p.before, l.Time)
			}
		case Returned: // that a peer gave it back says nothing against it
			b.charge(p, &p.before, l.Time)
		case Moved, Expired, Extended, GiveBack, Accepted, Chosen, Placed, Uncertain, Deferred, Refused, Absent, GaveUp, Waiting, HeldThere, HeldAgain, Paused,
			Started, Exited, Stopped, Ended, Cancel, Suspend, Resume, Unable, Abandon,
			Copied, Outlived, Lapsed, Won, Swapped, Retired, Withdrawn, Pressed, Loosened:
		}
	}
	st := &p.after
	if !st.Final || p.before.Final || st.Placement == nil {
		return
	}
	b.charge(p, st, st.Ended)
	b.finished(p)
	if Phase(st.Phase) == Finished && !st.Started.IsZero() {
		kind := ""
		if p.j.rec.Name != "" {
			kind = p.j.rec.Owner + "\x00" + p.j.rec.Name
		}
		b.learned = true
		b.book.Ended(placeOf(st.Placement), kind, st.Ended.Sub(st.Started), true, now)
	}
}

// charge charges what a job used until a moment to its owner and VO.
func (b *Broker) charge(p *plan, st *store.Status, until time.Time) {
	ran := until.Sub(st.Started)
	if st.Placement == nil || st.Started.IsZero() || ran <= 0 {
		return
	}
	if p.j.replica() {
		b.wasted(p.j, ran.Seconds()*float64(max(1, st.Placement.CPUs)))
	}
	job := policy.Job{Owner: p.j.rec.Owner, VO: st.VO}
	for _, group := range policy.Accounts(&job) {
		used := ran.Seconds() * float64(max(1, st.Placement.CPUs))
		b.sched.Charge(group, used, until)
		b.own.Add(group, used, until)
	}
	b.used = true
}

func placeOf(p *store.Placement) resourcemodel.Place {
	return resourcemodel.Place{Key: resourcemodel.Key{Site: p.Site}, Share: p.Share, Environment: p.Environment}
}
