package peering

import (
	"context"
	"strings"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// OfBroker gives the broker's side of jobs of peers.
func OfBroker(b *broker.Broker) Jobs { return ofBroker{b} }

type ofBroker struct{ b *broker.Broker }

// Activity implements Jobs.
func (o ofBroker) Activity(c Copy, since time.Time) string {
	return broker.ForeignID(since, c.Submission())
}

// Start implements Jobs.
func (o ofBroker) Start(ctx context.Context, gs ...Given) []Started {
	jobs := make([]broker.Foreign, len(gs))
	for i := range gs {
		g := &gs[i]
		jobs[i] = broker.Foreign{
			SubmissionID: g.Submission(), Since: g.Since, Owner: g.Owner, Account: g.Account, VO: g.VO, Document: []byte(g.Document),
			NotAfter: g.NotAfter, Deadline: g.Deadline, From: g.From, Origin: g.Key.Origin, ID: g.Key.ID, Path: g.Path, Hops: g.Hops, Trace: g.Trace, Agreement: g.Agreement,
		}
	}
	out := make([]Started, len(gs))
	for i, t := range o.b.TakeIn(ctx, jobs...) {
		if out[i].Err = t.Err; t.Err == nil {
			out[i].State = stateOf(&t.State)
		}
	}
	return out
}

// Stop implements Jobs.
func (o ofBroker) Stop(ctx context.Context, activity, reason string) error {
	return o.b.StopForeign(ctx, reason, activity)[0]
}

// Hold implements Jobs.
func (o ofBroker) Hold(ctx context.Context, activity string, held bool) error {
	return o.b.HoldForeign(ctx, held, activity)[0]
}

// Extend implements Jobs.
func (o ofBroker) Extend(ctx context.Context, activity string, notAfter time.Time) error {
	return o.b.ExtendLease(ctx, broker.LeaseExtension{ID: activity, NotAfter: notAfter})[0]
}

// States implements Jobs.
func (o ofBroker) States(ctx context.Context, activities ...string) ([]State, error) {
	all, err := o.b.ForeignStates(ctx, activities...)
	if err != nil {
		return nil, err
	}
	out := make([]State, 0, len(all))
	for _, s := range all {
		out = append(out, stateOf(&s))
	}
	return out, nil
}

// Reasons implements Jobs.
func (o ofBroker) Reasons(activities ...string) map[string]broker.ForeignReason {
	return o.b.ForeignReasons(activities...)
}

// Output implements Jobs.
func (o ofBroker) Output(ctx context.Context, activity, stream string, offset int64, most int) ([]byte, bool, error) {
	c, err := o.b.ForeignOutput(ctx, activity, bes.Stream(stream), offset, most)
	if err != nil {
		return nil, false, err
	}
	return c.Data, c.More, nil
}

// Watch implements Jobs.
func (o ofBroker) Watch(ctx context.Context, emit func([]State)) error {
	return o.b.WatchForeign(ctx, func(all []broker.ForeignState) {
		out := make([]State, 0, len(all))
		for i := range all {
			out = append(out, stateOf(&all[i]))
		}
		emit(out)
	})
}

// stateOf gives a state of the broker in the words of handover.
func stateOf(s *broker.ForeignState) State {
	out := State{
		Activity: s.ID, Revision: s.Revision, Site: s.Site, Reason: s.Reason, Began: !s.Started.IsZero(), Return: s.Return,
		Used: min(handover.CPU(1, s.Used), maxUsed),
	}
	switch s.Phase {
	case broker.ForeignWaiting:
		out.Status, out.Again = handover.IsWaiting, s.Attempt > 0
	case broker.ForeignPlaced:
		out.Status = handover.IsPlaced
	case broker.ForeignRunning:
		out.Status = handover.IsRunning
	case broker.ForeignSuspended:
		out.Status = handover.IsSuspended
	case broker.ForeignGone:
		if out.Status = handover.IsReturned; s.Unfit {
			out.Kind = fail.Unsupported
		}
	case broker.ForeignEnded:
		out.Status = handover.IsEnded
		out.Result = &handover.Result{Outcome: handover.Failed, Reason: s.Reason}
		switch s.Outcome { //nolint:exhaustive // the others are no ends
		case bes.Finished:
			out.Result.Outcome = handover.Finished
		case bes.Cancelled:
			out.Result.Outcome = handover.Cancelled
		}
		switch {
		case s.ExitStatus != nil:
			out.Result.ExitCode = *s.ExitStatus
		case s.Signal != "":
			out.Result.ExitCode = 128 + signals[strings.TrimPrefix(s.Signal, "SIG")]
		}
		// How long it took is what it used, where the site tells nothing better.
		if s.Used == 0 && !s.Started.IsZero() && s.Ended.After(s.Started) {
			out.Used = min(handover.CPU(1, s.Ended.Sub(s.Started)), maxUsed)
		}
	}
	return out
}

// signals are the numbers of those that end programs, as shells tell them.
var signals = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13,
	"ALRM": 14, "TERM": 15, "XCPU": 24, "XFSZ": 25, "SYS": 31,
}
