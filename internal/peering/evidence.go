package peering

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// ending is how a placement at a peer ended, as it is kept.
type ending struct {
	Phase      adapters.Phase   `json:"phase"`
	ExitStatus *int             `json:"exitStatus,omitempty"`
	Reason     string           `json:"reason,omitempty"`
	NotRun     bool             `json:"notRun,omitempty"`
	Ended      time.Time        `json:"ended"`
	Used       handover.CPUTime `json:"used,omitempty"`
	// Refused says that the peer did not take it, for Kind.
	Refused bool      `json:"refused,omitempty"`
	Kind    fail.Kind `json:"kind,omitempty"`
	// Way is where it was last (adapters.AttributePath).
	Way string `json:"way,omitempty"`
}

// end says how the placement of x at a peer ended, by the step that led to j.
func (x *entry) end(j *handover.Job, now time.Time) *ending {
	f := &ending{Phase: adapters.Lost, Reason: j.Reason, Ended: now.UTC().Round(0), Used: j.Used}
	var report *handover.Report
	var refusal *handover.Answer
	if x.cause != nil {
		report, refusal = x.cause.report, x.cause.refusal
	}
	switch {
	case report != nil && report.Status == handover.IsEnded && j.Result != nil:
		r := j.Result
		f.Reason, f.NotRun = r.Reason, r.Token == "" && report.Used == 0 && !x.Ran
		switch r.Outcome {
		case handover.Finished:
			code := r.ExitCode
			f.Phase, f.ExitStatus, f.NotRun = adapters.Exited, &code, false
		case handover.Failed:
			f.Phase = adapters.Stopped
		case handover.Cancelled:
			f.Phase = adapters.Cancelled
		}
		return f
	case refusal != nil:
		f.Refused, f.Kind, f.NotRun = true, refusal.Kind, true
		f.Reason = cmp.Or(refusal.Reason, f.Reason) // whose it is, is told with it
		if permanent(refusal.Kind) {
			f.Phase = adapters.Stopped // another site is tried, and this one no more
		}
	default:
		// A copy that was given back without having used anything never began: one that did
		// has used a millisecond at least. Of one that is past its deadline nothing is known.
		f.NotRun = report != nil && report.Used == 0 && !x.Ran
		if f.NotRun && permanent(report.Kind) {
			f.Phase = adapters.Stopped // as of one that was refused
		}
	}
	if !live(j) {
		f.Phase = adapters.Cancelled // its end, or it itself, was wanted back
	}
	return f
}

// permanent reports whether a peer that refused a job so will never take it.
func permanent(k fail.Kind) bool {
	switch k {
	case fail.Invalid, fail.Unsupported, fail.Denied, fail.Unauthenticated, fail.NotFound, fail.Conflict:
		return true
	case fail.Internal, fail.NotAccepting, fail.Unavailable, fail.Exhausted, fail.Uncertain:
	}
	return false
}

// evidence tells how the placement stands; x is nil where there is no record.
func (e *Engine) evidence(x *entry, h handle) adapters.Evidence {
	out := adapters.Evidence{Tag: h.tag, Handle: h.encode()}
	if x == nil || x.job == nil || x.Token != h.token || string(h.tag) != x.Tag {
		out.Phase = adapters.Lost
		out.Reason = "the gateway has no record any more of having given it to the domain " + h.to
		return out
	}
	out.Started = x.Started
	if f := x.Final; f != nil {
		out.Phase, out.ExitStatus, out.Reason, out.NotRun, out.Ended = f.Phase, f.ExitStatus, f.Reason, f.NotRun, f.Ended
		out.Usage.CPU = time.Duration(min(f.Used, maxUsed)) * time.Millisecond
		if f.Refused {
			out.Reason = "the domain " + x.Peer + " refused it: " + f.Reason
		}
		out.Attributes = e.told(x, nil)
		return out
	}
	switch x.job.Status() {
	case handover.IsWaiting, handover.IsPlaced:
		if out.Phase = adapters.Queued; x.theirs != "" {
			out.Reason = "the domain " + x.Peer + " says: " + x.theirs
		}
	case handover.IsRunning:
		out.Phase = adapters.Running
	case handover.IsSuspended:
		if out.Phase = adapters.Suspended; !x.Ran {
			out.Phase = adapters.Held
		}
	case handover.IsEnded, handover.IsReturned:
		out.Phase = adapters.Unknown // what ends it is noted in the same step
	}
	out.Attributes = e.told(x, x.job)
	return out
}

// told is the way to the job, the site there and the recall deadline.
func (e *Engine) told(x *entry, j *handover.Job) map[string]string {
	way := []string{x.Peer}
	m := map[string]string{}
	if j != nil {
		if w := j.Where(e.o.Domain); len(w) > 1 {
			way = w[1:]
		}
		if at, ok := j.ElsewhereAt(); ok {
			// Not to the second: it moves on with each word of the peer, and is written down
			// with the job.
			m["peer.recallBy"] = at.UTC().Truncate(time.Minute).Format(time.RFC3339)
		}
		m["peer.accepted"] = strconv.FormatBool(j.Gave.Accepted)
	}
	hops := make([]adapters.Hop, len(way))
	for i, d := range way {
		hops[i].Domain = d
	}
	if j != nil {
		hops[0].At = j.Gave.Routed.Add(-j.Gave.Terms.Lease)
	}
	m[adapters.AttributePath] = adapters.JoinHops(hops)
	if j == nil && x.Final != nil && x.Final.Way != "" {
		m[adapters.AttributePath] = x.Final.Way
	}
	if x.Site != "" {
		m["peer.site"] = x.Site
	}
	m["trace"] = traceID(x.key, x.Trace)
	return m
}

// publish tells the broker how a placement stands; the caller holds the lock.
func (e *Engine) publish(x *entry) {
	if x.Tag == "" || x.job == nil {
		return
	}
	e.peer(x.Peer).feed.Publish(e.evidence(x, x.handle()))
}

// handle names a placement at a peer.
type handle struct {
	tag   adapters.Tag
	key   handover.Key
	token handover.Token
	to    string
}

const handlePrefix = "peer/1 "

func (x *entry) handle() handle {
	return handle{adapters.Tag(x.Tag), x.key, x.Token, x.Peer}
}

// encode gives the handle as the broker keeps it: no part has a blank.
func (h handle) encode() adapters.Handle {
	return adapters.Handle(handlePrefix + strings.Join([]string{string(h.tag), h.key.Origin, h.key.ID, string(h.token), h.to}, " "))
}

func readHandle(b adapters.Handle) (handle, error) {
	rest, ok := strings.CutPrefix(string(b), handlePrefix)
	parts := strings.Split(rest, " ")
	if !ok || len(parts) != 5 {
		return handle{}, fail.Errorf("peering.handle", fail.Invalid, "", "the handle is not of a peer")
	}
	h := handle{adapters.Tag(parts[0]), handover.Key{Origin: parts[1], ID: parts[2]}, handover.Token(parts[3]), parts[4]}
	if err := h.key.Check(); err != nil {
		return handle{}, err
	}
	return h, h.token.Check()
}
