package broker

import (
	"context"
	"errors"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
)

func cantApply(op string, rec *store.Job, what string) error {
	st := statusOf(rec)
	return &bes.StateError{Status: st, Cause: fail.Errorf(op, fail.Conflict, rec.ID, "the activity is %s and can't be %s", st.State, what)}
}

// TerminateActivities asks for the end of activities. No error means that it was
// accepted; the end itself is seen later.
func (b *Broker) TerminateActivities(ctx context.Context, activities []soap.EPR) ([]bes.Result, error) {
	return b.ask(ctx, activities, request{
		op: "broker.TerminateActivities", event: Cancel, done: "terminated",
		reason: "its end was asked for",
		// Terminating one that is cancelled is no error; one that ended otherwise is
		// CantApplyOperationToCurrentState.
		fulfilled: func(p Phase) bool { return p == Cancelled },
	})
}

// SuspendActivities keeps activities from running until they are resumed.
func (b *Broker) SuspendActivities(ctx context.Context, activities []soap.EPR) ([]bes.Result, error) {
	return b.ask(ctx, activities, request{
		op: "broker.SuspendActivities", event: Suspend, done: "suspended",
		reason:   "suspension was asked for",
		possible: b.canSuspend,
	})
}

// canSuspend says why the site that has a job can't keep it from running, or nil.
// One that waits at a site which can suspend but not hold is suspended when it
// starts. The caller holds the lock.
func (b *Broker) canSuspend(id string, st *store.Status) error {
	p, s := Phase(st.Phase), b.siteOf(st)
	if s == nil || !p.atSite() {
		return nil
	}
	c := s.conn.Load()
	if c == nil || c.suspend != nil || c.holder != nil && p != Running && p != Suspended {
		return nil
	}
	if c.holder != nil {
		return fail.Errorf("broker.SuspendActivities", fail.Unsupported, id, "the site %s, which has the activity, can hold what waits but can't suspend what runs", s.name)
	}
	return fail.Errorf("broker.SuspendActivities", fail.Unsupported, id, "the site %s, which has the activity, can't suspend", s.name)
}

// unheard says what a request must wait for, as the site that has the job can't
// be asked; "" if it can. The caller holds the lock.
func (b *Broker) unheard(st *store.Status) string {
	if !Phase(st.Phase).atSite() {
		return ""
	}
	if s := b.siteOf(st); s != nil && s.conn.Load() == nil {
		return "; the site " + s.name + " is asked once it can be (" + s.absenceLocked() + ")"
	}
	return ""
}

// ResumeActivities lets suspended activities go on.
func (b *Broker) ResumeActivities(ctx context.Context, activities []soap.EPR) ([]bes.Result, error) {
	return b.ask(ctx, activities, request{
		op: "broker.ResumeActivities", event: Resume, done: "resumed",
		reason: "it was asked to go on",
	})
}

// request is what a user asks of activities.
type request struct {
	op        string
	event     Event
	reason    string
	done      string           // a participle for the refusal
	fulfilled func(Phase) bool // whether a final phase is what was asked for
	// possible says why it can't be asked of a job as it stands when the request is applied; it holds Broker.mu.
	possible func(id string, st *store.Status) error
}

// ask puts a request to activities, all in one write, and gives each one's answer
// once it is durable.
func (b *Broker) ask(ctx context.Context, activities []soap.EPR, r request) ([]bes.Result, error) {
	recs, errs, err := b.find(ctx, r.op, activities)
	if err != nil {
		return nil, err
	}
	out := make([]bes.Result, len(activities))
	replies := make([]chan error, len(activities))
	var ins []input
	for i := range activities {
		out[i] = bes.Result{Activity: activities[i], Err: errs[i]}
		if errs[i] != nil {
			continue
		}
		if recs[i].Status.Final {
			out[i].Err = r.onFinal(&recs[i])
			continue
		}
		r := r
		if recs[i].Status.Foreign != nil {
			if r, out[i].Err = b.ofForeign(ctx, r, &recs[i]); out[i].Err != nil {
				continue
			}
		}
		replies[i] = make(chan error, 1)
		ins = append(ins, input{
			id: recs[i].ID, reply: replies[i], possible: r.possible,
			facts: func(_ *job, st store.Status) []fact {
				f := fact{event: r.event, reason: r.reason}
				if r.event != Abandon {
					f.reason += b.unheard(&st)
				}
				return []fact{f}
			},
		})
	}
	b.post(ins...)
	for i, reply := range replies {
		if reply == nil {
			continue
		}
		select {
		case err = <-reply:
		case <-ctx.Done():
			return nil, fail.E(r.op, fail.Unavailable, "", context.Cause(ctx))
		}
		var no impossible
		switch {
		case errors.As(err, &no):
			out[i].Err = no.error
		case err == nil:
			if r.event == Abandon {
				b.abandon(recs[i].ID, r.reason)
			}
		case errors.Is(err, errEnded) || errors.Is(err, errUnknown):
			// It ended while we asked: the store knows how.
			out[i].Err = err
			now, gerr := b.cfg.Store.Get(ctx, recs[i].ID)
			if rec, ok := now[recs[i].ID]; gerr == nil && ok {
				if out[i].Err = fail.Errorf(r.op, fail.Unavailable, rec.ID, "another gateway has the activity; try again"); rec.Status.Final {
					out[i].Err = r.onFinal(&rec)
				}
			}
		case fail.Is(err, fail.Conflict):
			b.mu.Lock()
			rec := recs[i]
			if j := b.jobs[rec.ID]; j != nil {
				rec = j.rec
			}
			b.mu.Unlock()
			out[i].Err = cantApply(r.op, &rec, r.done)
		default:
			out[i].Err = err
		}
	}
	return out, nil
}

func (r request) onFinal(rec *store.Job) error {
	if r.fulfilled != nil && r.fulfilled(Phase(rec.Status.Phase)) {
		return nil
	}
	return cantApply(r.op, rec, r.done)
}

// GetActivityHistory gives every step of an activity, oldest first.
func (b *Broker) GetActivityHistory(ctx context.Context, activity soap.EPR) ([]bes.HistoryEntry, error) {
	const op = "broker.GetActivityHistory"
	recs, errs, err := b.find(ctx, op, []soap.EPR{activity})
	if err != nil {
		return nil, err
	}
	if errs[0] != nil {
		return nil, errs[0]
	}
	lines, err := b.cfg.Store.History(ctx, recs[0].ID, 0)
	if err != nil {
		return nil, err
	}
	out := make([]bes.HistoryEntry, len(lines))
	for i, l := range lines {
		p := Phase(l.Phase)
		out[i] = bes.HistoryEntry{
			Sequence: l.Sequence, Time: l.Time, State: p.State(), SubState: shown[p].sub,
			Site: l.Site, Attempt: l.Attempt, Event: l.Event, Reason: l.Reason,
		}
	}
	return out, nil
}
