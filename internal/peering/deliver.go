package peering

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/wire"
)

// Takes reports whether an item is about jobs, and so for Deliver.
func Takes(m wire.Message) bool {
	switch m.(type) {
	case *wire.Route, *wire.Answer, *wire.Report, *wire.Grant, *wire.Control, *wire.Settle, *wire.Query, *wire.Read, *wire.Output:
		return true
	}
	return false
}

// Deliver hears what a peer says of jobs: peers.Handler. Done is called when what it caused
// is durable and what answers it was put. Items of which Takes says no are passed over.
func (e *Engine) Deliver(from string, items []wire.Message, done func()) {
	verdicts := e.judge(from, items)
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.term
	if t == nil {
		// Jobs repeat what is not answered.
		if done != nil {
			done()
		}
		return
	}
	var left atomic.Int64
	left.Store(1)
	// The last one tells the session, after all that was put before: from within release,
	// with the lock held.
	finish := func() {
		if left.Add(-1) == 0 && done != nil {
			e.post(from, letter{done: done})
		}
	}
	for i, item := range items {
		switch m := item.(type) {
		case *wire.Read:
			e.read(t, from, m)
			continue
		case *wire.Output:
			e.reads.hear(from, m)
			continue
		}
		m, c, ok := fromWire(item)
		if !ok {
			continue
		}
		if x := e.receive(from, m, c, verdicts[i]); x != nil {
			left.Add(1)
			e.durable(x, finish)
		}
	}
	finish()
}

// verdict is what the gate says of a route.
type verdict struct {
	admitted Admitted
	err      error
	packed   []byte
	asked    bool
}

// judge asks the gate about the routes that are new.
func (e *Engine) judge(from string, items []wire.Message) map[int]verdict {
	type question struct {
		i    int
		r    *wire.Route
		here int
	}
	var ask []question
	e.mu.Lock()
	here := e.here[from]
	for i, item := range items {
		r, ok := item.(*wire.Route)
		if !ok {
			continue
		}
		if x := e.jobs[keyOf(r.About)]; x != nil && x.taken() && string(x.job.Taken.Token) == r.Token {
			continue // it was answered before
		}
		ask = append(ask, question{i, r, here})
		here++
	}
	e.mu.Unlock()
	if len(ask) == 0 {
		return nil
	}
	out := make(map[int]verdict, len(ask))
	var mu sync.Mutex
	var all sync.WaitGroup
	for part := range min(runtime.GOMAXPROCS(0), len(ask)) {
		all.Go(func() {
			for n := part; n < len(ask); n += runtime.GOMAXPROCS(0) {
				v := e.admit(from, ask[n].r, ask[n].here)
				mu.Lock()
				out[ask[n].i] = v
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return out
}

// admit judges one route. What is wrong with it for every gateway is found first.
func (e *Engine) admit(from string, r *wire.Route, here int) verdict {
	v := verdict{asked: true}
	refuse := func(kind fail.Kind, format string, args ...any) verdict {
		v.err = fail.Errorf("peering.admit", kind, r.Origin+"/"+r.ID, format, args...)
		return v
	}
	if r.Digest != digestOf(r.Document, r.VO, r.Deadline) {
		return refuse(fail.Invalid, "the digest of the route is not that of its document, VO and deadline: send it again as it was")
	}
	if e.o.Gate == nil {
		return refuse(fail.NotAccepting, "the domain %s takes no jobs of peers", e.o.Domain)
	}
	e.mu.Lock()
	t := e.term
	e.mu.Unlock()
	if t == nil {
		return refuse(fail.Unavailable, "the gateway of %s is starting; try again in a moment", e.o.Domain)
	}
	f := freight{Document: r.Document, Assertion: r.Assertion}
	if v.packed, v.err = f.encode(); v.err != nil {
		return v
	}
	v.admitted, v.err = e.o.Gate.Admit(t.ctx, from, r, here)
	return v
}

// crowded reports whether there are as many records of a peer's jobs that are over as may be:
// each is kept until its recall deadline, and a peer can have them made without end. Then nothing
// is answered that would make another; where a route were refused without a record, it could be
// taken when it comes again, and its giver have placed the job elsewhere. The caller holds the lock.
func (e *Engine) crowded(from string, k handover.Key) bool {
	n, bytes := e.past[from], e.pastBytes[from]
	if n < limits.PastJobs && bytes < limits.RecordBytes {
		return false
	}
	if p := e.peer(from); time.Since(p.crowded) >= crowdedTime {
		p.crowded = time.Now()
		e.o.Log.Warn("a peer had so many jobs refused, recalled or ended that no other is answered until their recall deadlines have passed: it is to send fewer, or to agree on a shorter lease",
			"peer", from, "job", k.String(), "jobs", n, "bytes", bytes, "most", limits.PastJobs)
	}
	return true
}

// crowdedTime is how seldom the log has it.
const crowdedTime = time.Minute

// receive steps a job for a message and gives its entry; nil if there is nothing to wait for.
// The caller holds the lock.
func (e *Engine) receive(from string, m handover.Message, c cargo, v verdict) *entry {
	key, token := m.About()
	x := e.entryOf(key)
	in := handover.Received{From: from, Message: m, Terms: e.peer(from).terms, Owed: e.owes(from, key, token)}
	switch m := m.(type) {
	case handover.Route:
		if x.job == nil && e.crowded(from, key) {
			return nil // it comes again
		}
		if !v.asked && (!x.taken() || x.job.Taken.Token != token) {
			return nil // what was known of it is gone meanwhile; it comes again
		}
		if in.Refuse = v.err; in.Refuse == nil && !(x.taken() && live(x.job)) {
			in.Refuse = e.full(from, key)
		}
		v.err = in.Refuse
	case handover.Answer:
		if !m.Accepted {
			x.cause = &cause{refusal: &m}
		}
	case handover.Report:
		x.cause = &cause{report: &m}
		if e.learn(x, from, &m, c) {
			x.pending = append(x.pending, effect{publish: true})
		}
	case handover.Control:
		if x.job == nil && e.crowded(from, key) {
			return nil
		}
	case handover.Settle, handover.Query, handover.Granted:
	}
	if r, ok := m.(handover.Route); ok {
		// What is known of the copy is there before the step that acts on it.
		if v.err == nil && v.asked && e.begins(x, from, r) {
			e.carry(x, token, c, v)
		}
	}
	err := e.step(x, in)
	x.cause = nil
	if x.taken() && live(x.job) && x.Activity != "" {
		e.acts[x.Activity] = x
	}
	if err != nil {
		e.o.Log.Debug("what a peer says of a job is not heeded", "peer", from, "job", key.String(), "cause", err)
	}
	return x
}

// full gives why no further job of a peer is taken, whatever the gate says; the caller holds the lock.
func (e *Engine) full(from string, k handover.Key) error {
	if n, bytes := e.here[from], e.hereBytes[from]; n >= limits.Jobs || bytes >= limits.RecordBytes {
		return fail.Errorf("peering.receive", fail.Exhausted, k.String(), "%d jobs of the domain %s are at %s, and no more than %d may be: send others when some have ended, or elsewhere", n, from, e.o.Domain, limits.Jobs)
	}
	return nil
}

// begins reports whether a route begins a copy, if it is accepted: where it does not, the
// step leaves all as it is.
func (e *Engine) begins(x *entry, from string, r handover.Route) bool {
	switch {
	case x.job == nil:
		return true
	case !x.taken() || live(x.job):
		return false
	}
	return r.Token.Compare(x.job.Taken.Token) > 0 && (x.job.Taken.Settled || x.job.Taken.Refused || x.job.Used == 0 || x.job.Taken.From != from)
}

// carry keeps what came with a route.
func (e *Engine) carry(x *entry, token handover.Token, c cargo, v verdict) {
	e.unname(x)
	x.meta = meta{Since: now(), Owner: v.admitted.Owner, Account: v.admitted.Account, VO: c.VO, Deadline: c.Deadline, Agreement: c.Agreement, Trace: c.Trace}
	x.LocalVO = v.admitted.VO
	x.freight = &freight{Document: c.Document, Assertion: c.Assertion}
	x.packed = v.packed
	x.Activity = e.o.Jobs.Activity(Copy{x.key, token}, x.Since)
	x.why, x.toldWhy, x.told, x.theirs = "", "", time.Time{}, ""
	x.worker.reset()
}

// learn takes in what a report tells beside the handover; it reports whether the broker is to
// hear of it though nothing else has changed.
func (e *Engine) learn(x *entry, from string, r *handover.Report, c cargo) bool {
	j := x.job
	if j == nil || j.Phase != handover.Given || j.Gave.To != from || j.Gave.Token != r.Token || r.Revision < j.Gave.Revision {
		return false
	}
	if c.Site != "" {
		x.Site = c.Site
	}
	if r.Status == handover.IsRunning && !x.Ran {
		x.Ran, x.Started = true, c.At
		if x.Started.IsZero() {
			x.Started = now()
		}
	}
	why := r.Reason
	if r.Status != handover.IsWaiting && r.Status != handover.IsPlaced {
		why = ""
	}
	told := x.theirs != why
	x.theirs = why
	return told
}
