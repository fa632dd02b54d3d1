package simtest

import (
	"time"

	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

// document stands for every job's.
const document = `<JobDefinition xmlns="http://schemas.ggf.org/jsdl/2005/11/jsdl"/>`

func termsOf(t handover.Terms) wire.Terms {
	return wire.Terms{Lease: t.Lease, Skew: t.Skew, StopWithin: t.StopWithin, Resend: t.Resend, Keep: t.Keep}
}

func about(m handover.Message) wire.About {
	k, t := m.About()
	return wire.About{Origin: k.Origin, ID: k.ID, Token: string(t)}
}

var recalls = map[handover.Recall]wire.Recall{handover.Keep: "", handover.Idle: wire.RecallIdle, handover.Running: wire.RecallRunning}

// toItem makes an item of the protocol of a message about a job.
func toItem(m handover.Message) wire.Message {
	a := about(m)
	switch m := m.(type) {
	case handover.Route:
		return &wire.Route{About: a, RecallBy: m.RecallBy, Hops: m.Hops, Digest: m.Digest, Path: m.Path, Document: document}
	case handover.Answer:
		if m.Accepted {
			return &wire.Answer{About: a, Accepted: true}
		}
		return &wire.Answer{About: a, Kind: wire.RefusalOf(m.Kind), Reason: m.Reason}
	case handover.Report:
		out := &wire.Report{
			About: a, Revision: m.Revision, Heeded: m.Seq, Status: wire.Status(m.Status), Used: time.Duration(m.Used) * time.Millisecond, Reason: m.Reason, Where: m.Where,
		}
		if r := m.Result; r != nil {
			out.Result = &wire.Result{Outcome: wire.Outcome(r.Outcome), ExitCode: r.ExitCode, Reason: r.Reason, Token: string(r.Token)}
		}
		return out
	case handover.Granted:
		return &wire.Grant{About: a, RecallBy: m.RecallBy}
	case handover.Control:
		return &wire.Control{About: a, Number: m.Seq, Want: wire.Want(m.Want), Recall: recalls[m.Recall], RecallBy: m.RecallBy}
	case handover.Settle:
		return &wire.Settle{About: a, Taken: m.Taken}
	case handover.Query:
		return &wire.Query{About: a}
	}
	return nil
}

// fromItem makes a message about a job of an item; nil where it is about none.
func fromItem(m wire.Message) handover.Message {
	of := func(a wire.About) (handover.Key, handover.Token) {
		return handover.Key{Origin: a.Origin, ID: a.ID}, handover.Token(a.Token)
	}
	switch m := m.(type) {
	case *wire.Route:
		k, t := of(m.About)
		return handover.Route{Key: k, Token: t, RecallBy: m.RecallBy, Path: m.Path, Hops: m.Hops, Digest: m.Digest}
	case *wire.Answer:
		k, t := of(m.About)
		out := handover.Answer{Key: k, Token: t, Accepted: m.Accepted, Reason: m.Reason}
		if !m.Accepted {
			out.Kind = m.Kind.Kind()
		}
		return out
	case *wire.Report:
		k, t := of(m.About)
		out := handover.Report{
			Key: k, Token: t, Revision: m.Revision, Seq: m.Heeded, Status: handover.Status(m.Status), Where: m.Where, Reason: m.Reason, Used: handover.CPUTime(m.Used.Milliseconds()),
		}
		if r := m.Result; r != nil {
			out.Result = &handover.Result{Outcome: handover.Outcome(r.Outcome), ExitCode: r.ExitCode, Reason: r.Reason, Token: handover.Token(r.Token)}
		}
		return out
	case *wire.Grant:
		k, t := of(m.About)
		return handover.Granted{Key: k, Token: t, RecallBy: m.RecallBy}
	case *wire.Control:
		k, t := of(m.About)
		out := handover.Control{Key: k, Token: t, Seq: m.Number, Want: handover.Want(m.Want), RecallBy: m.RecallBy}
		for r, s := range recalls {
			if s == m.Recall {
				out.Recall = r
			}
		}
		return out
	case *wire.Settle:
		k, t := of(m.About)
		return handover.Settle{Key: k, Token: t, Taken: m.Taken}
	case *wire.Query:
		k, t := of(m.About)
		return handover.Query{Key: k, Token: t}
	}
	return nil
}
