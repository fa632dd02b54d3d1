package peering

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

// maxUsed is the most CPU time that a report can tell.
const maxUsed = handover.CPUTime(100 * 366 * 24 * time.Hour / time.Millisecond)

// cargo is what travels with a message and is none of handover's business.
type cargo struct {
	VO        string
	Deadline  time.Time
	Agreement string
	Trace     string
	Document  string
	Assertion []byte
	Site      string
	At        time.Time
	Why       string // what a job waits for
}

// toWire gives a message as the protocol has it.
func toWire(m handover.Message, c cargo) wire.Message {
	key, token := m.About()
	about := wire.About{Origin: key.Origin, ID: key.ID, Token: string(token)}
	switch m := m.(type) {
	case handover.Route:
		return &wire.Route{
			About: about, RecallBy: m.RecallBy, Hops: m.Hops, Deadline: c.Deadline, VO: c.VO, Digest: m.Digest, Agreement: c.Agreement, Trace: c.Trace,
			Path: slices.Clone(m.Path), Document: c.Document, Assertion: c.Assertion,
		}
	case handover.Answer:
		a := &wire.Answer{About: about, Accepted: m.Accepted, Reason: m.Reason}
		if !m.Accepted {
			a.Kind = wire.RefusalOf(m.Kind)
		}
		return a
	case handover.Report:
		r := &wire.Report{
			About: about, Revision: m.Revision, Heeded: m.Seq, Status: wire.Status(m.Status), Site: c.Site, At: c.At,
			Used: time.Duration(min(m.Used, maxUsed)) * time.Millisecond, Reason: m.Reason, Trace: c.Trace, Where: slices.Clone(m.Where),
		}
		if m.Kind != fail.Internal {
			r.Kind = wire.RefusalOf(m.Kind)
		}
		if !m.Status.Final() {
			r.Reason = c.Why
		}
		if m.Result != nil {
			r.Result = &wire.Result{Outcome: wire.Outcome(m.Result.Outcome), ExitCode: m.Result.ExitCode, Reason: m.Result.Reason, Token: string(m.Result.Token)}
		}
		return r
	case handover.Granted:
		return &wire.Grant{About: about, RecallBy: m.RecallBy}
	case handover.Control:
		return &wire.Control{About: about, Number: m.Seq, Want: wire.Want(m.Want), Recall: recalls[m.Recall], RecallBy: m.RecallBy, Trace: c.Trace}
	case handover.Settle:
		return &wire.Settle{About: about, Taken: m.Taken}
	case handover.Query:
		return &wire.Query{About: about}
	}
	return nil
}

var recalls = map[handover.Recall]wire.Recall{handover.Keep: "", handover.Idle: wire.RecallIdle, handover.Running: wire.RecallRunning}

// fromWire gives what an item says of a handed-over job, and false for an item that is
// about something else.
func fromWire(m wire.Message) (handover.Message, cargo, bool) {
	switch m := m.(type) {
	case *wire.Route:
		return handover.Route{
			Key: keyOf(m.About), Token: handover.Token(m.Token), RecallBy: m.RecallBy, Path: slices.Clone(m.Path), Hops: m.Hops, Digest: m.Digest,
		}, cargo{VO: m.VO, Deadline: m.Deadline, Agreement: m.Agreement, Trace: m.Trace, Document: m.Document, Assertion: m.Assertion}, true
	case *wire.Answer:
		a := handover.Answer{Key: keyOf(m.About), Token: handover.Token(m.Token), Accepted: m.Accepted, Reason: m.Reason}
		if !m.Accepted {
			a.Kind = m.Kind.Kind()
		}
		return a, cargo{}, true
	case *wire.Report:
		r := handover.Report{
			Key: keyOf(m.About), Token: handover.Token(m.Token), Revision: m.Revision, Seq: m.Heeded, Status: handover.Status(m.Status),
			Where: slices.Clone(m.Where), Reason: m.Reason, Kind: m.Kind.Kind(), Used: handover.CPUTime(m.Used / time.Millisecond),
		}
		if m.Result != nil {
			r.Result = &handover.Result{
				Outcome: handover.Outcome(m.Result.Outcome), ExitCode: m.Result.ExitCode, Reason: m.Result.Reason, Token: handover.Token(m.Result.Token),
			}
		}
		return r, cargo{Site: m.Site, At: m.At, Trace: m.Trace}, true
	case *wire.Grant:
		return handover.Granted{Key: keyOf(m.About), Token: handover.Token(m.Token), RecallBy: m.RecallBy}, cargo{}, true
	case *wire.Control:
		c := handover.Control{
			Key: keyOf(m.About), Token: handover.Token(m.Token), Seq: m.Number, Want: handover.Want(m.Want), RecallBy: m.RecallBy,
		}
		for is, says := range recalls {
			if says == m.Recall {
				c.Recall = is
			}
		}
		return c, cargo{Trace: m.Trace}, true
	case *wire.Settle:
		return handover.Settle{Key: keyOf(m.About), Token: handover.Token(m.Token), Taken: m.Taken}, cargo{}, true
	case *wire.Query:
		return handover.Query{Key: keyOf(m.About), Token: handover.Token(m.Token)}, cargo{}, true
	}
	return nil, cargo{}, false
}

func keyOf(a wire.About) handover.Key { return handover.Key{Origin: a.Origin, ID: a.ID} }

// termsOf gives what was agreed on in a session as handover has it.
func termsOf(t wire.Terms) handover.Terms {
	return handover.Terms{Lease: t.Lease, Skew: t.Skew, StopWithin: t.StopWithin, Resend: t.Resend, Keep: t.Keep}
}
