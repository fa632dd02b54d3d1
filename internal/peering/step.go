package peering

import (
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// The functions of this file are called with the lock held.

// entryOf gives the entry of a key, a new one if there is none. A new one is filed by the
// first step that makes a record.
func (e *Engine) entryOf(k handover.Key) *entry {
	if x := e.jobs[k]; x != nil {
		return x
	}
	return &entry{key: k, index: -1}
}

// step steps a job and files what is to be done once that is durable. An error is one of
// the input: what time brought is heeded all the same.
func (e *Engine) step(x *entry, in handover.Input) error {
	before := x.job
	s, err := e.gateway.Step(before, in, time.Now())
	x.job = s.Job
	e.count(before, -1)
	e.count(x.job, 1)
	e.tally(before, x.job)
	e.tellCount(before, x.job)
	e.note(x, before)
	if before != nil && x.job == nil && before.Taken != nil && before.Result != nil && x.Activity != "" {
		x.keep = &keptRecord{before.Taken.From, before.Taken.Token, x.Activity, now().Add(e.o.Outputs)}
	}
	e.charge(x, s.Owe, true)
	e.charge(x, s.Earn, false)
	switch {
	case s.Save == handover.SaveFirst:
		e.saveFirst(x)
	case s.Save == handover.SaveLater:
		e.saveLater(x)
	}
	if x.job != nil && e.jobs[x.key] != x {
		e.jobs[x.key] = x
	}
	place := false
	for _, o := range s.Do {
		switch o := o.(type) {
		case handover.Send:
			x.tell(o)
		case handover.Place:
			place = true
		case handover.Start, handover.Extend, handover.Stop, handover.Hold:
			// What the broker is to do follows from the record: see work.
		case handover.Done:
			// The broker hears of it as evidence.
		}
	}
	if s.Save != handover.SaveNothing && x.Tag != "" {
		x.pending = append(x.pending, effect{publish: true})
	}
	if changedHere(before, x.job) {
		x.pending = append(x.pending, effect{chore: true})
	}
	e.schedule(x)
	if place && !x.held && x.taken() {
		e.place(x)
	}
	e.release(x)
	return err
}

// place gives a job of a peer that waits for a place to the broker, which has it until it
// ends, or back to its giver if the broker's job is over.
func (e *Engine) place(x *entry) {
	var in handover.Input = handover.PlaceHere{}
	if x.Closed {
		in = handover.Return{Running: true, Reason: x.job.Reason, Kind: x.job.Kind}
	}
	if err := e.step(x, in); err != nil {
		e.o.Log.Debug("a job of a peer has no place", "job", x.key.String(), "cause", err)
	}
}

// changedHere reports whether there may be something to do at the broker's side.
func changedHere(before, after *handover.Job) bool {
	if after == nil || after.Taken == nil {
		return false
	}
	if before == nil || before.Taken == nil || before.Taken.Token != after.Taken.Token {
		return !after.Taken.Refused
	}
	return before.Phase != after.Phase || before.Want != after.Want || before.Taken.Lapsed != after.Taken.Lapsed || !before.Taken.RecallBy.Equal(after.Taken.RecallBy)
}

// count counts the jobs of each peer.
func (e *Engine) count(j *handover.Job, by int) {
	if j == nil || j.Taken == nil {
		return
	}
	in, bytes := e.here, e.hereBytes
	if !live(j) {
		in, bytes = e.past, e.pastBytes
	}
	bytes[j.Taken.From] += by * weight(j)
	if in[j.Taken.From] += by; in[j.Taken.From] == 0 {
		delete(in, j.Taken.From)
		delete(bytes, j.Taken.From)
	}
}

// weight is the bytes of a record of a peer's job that others chose.
func weight(j *handover.Job) int {
	n := len(j.Key.Origin) + len(j.Key.ID) + len(j.Digest) + len(j.Reason) + len(j.Taken.Token)
	for _, d := range j.Taken.Path {
		n += len(d)
	}
	if j.Gave != nil {
		for _, d := range j.Gave.Where {
			n += len(d)
		}
	}
	if j.Result != nil {
		n += len(j.Result.Reason)
	}
	return n
}

func (e *Engine) charge(x *entry, c *handover.Charge, owe bool) {
	if c == nil || e.o.Book == nil || c.Used <= 0 {
		return
	}
	x.charges = append(x.charges, charge{*c, owe})
	if owe {
		e.owing[owed{c.Provider, c.Key, c.Token}] = true
	}
}

// owes reports whether a charge by the provider is noted, or about to be.
func (e *Engine) owes(provider string, k handover.Key, t handover.Token) bool {
	return e.owing[owed{provider, k, t}] || e.o.Book != nil && e.o.Book.Owes(provider, k, t)
}

// tell files a message. Of reports that wait for the same record only the last is sent: it
// tells all that those before it told.
func (x *entry) tell(o handover.Send) {
	if r, ok := o.Message.(handover.Report); ok {
		for i := range x.pending {
			s := x.pending[i].send
			if s == nil || s.To != o.To {
				continue
			}
			if was, ok := s.Message.(handover.Report); ok && was.Token == r.Token && !was.Status.Final() {
				x.pending[i] = effect{} // in its place: it may follow an answer
			}
		}
	}
	x.pending = append(x.pending, effect{send: &o})
}

// saveFirst files the record to be written before anything else is done for the job.
func (e *Engine) saveFirst(x *entry) {
	x.dirty = handover.SaveFirst
	if !x.flying && !x.queued {
		x.queued = true
		e.write = append(e.write, x)
	}
	nudge(e.wakeCommit)
}

// saveLater files the record to be written when there is time.
func (e *Engine) saveLater(x *entry) {
	x.dirty = max(x.dirty, handover.SaveLater)
	if !x.lazy {
		x.lazy, x.lazily = true, time.Now()
		e.later = append(e.later, x)
		if len(e.later) == 1 {
			e.since = x.lazily
			nudge(e.wakeCommit)
		}
	}
}

// release does what waits for the record, if that is durable.
func (e *Engine) release(x *entry) {
	if x.flying || x.dirty == handover.SaveFirst {
		return
	}
	do := x.pending
	x.pending = nil
	e.perform(x, do)
}

// perform does what is to be done now.
func (e *Engine) perform(x *entry, do []effect) {
	for _, f := range do {
		switch {
		case f.send != nil:
			e.post(f.send.To, letter{message: f.send.Message, about: x})
		case f.publish:
			e.publish(x)
		case f.chore:
			e.work(x)
		case f.call != nil:
			f.call()
		}
	}
	if len(x.waits) > 0 {
		e.answer(x)
	}
	if x.job == nil && !x.flying && x.dirty == handover.SaveNothing && e.jobs[x.key] == x {
		delete(e.jobs, x.key)
		e.unname(x)
	}
}

// unname forgets the broker's name of a job.
func (e *Engine) unname(x *entry) {
	if e.acts[x.Activity] == x {
		delete(e.acts, x.Activity)
	}
}

// durable has f called once what the job is now is durable; f must be quick, and not call
// the engine.
func (e *Engine) durable(x *entry, f func()) {
	x.pending = append(x.pending, effect{call: f})
	e.release(x)
}

// note keeps how a placement at a peer ended, when the step from before ended it.
func (e *Engine) note(x *entry, before *handover.Job) {
	if x.Tag == "" || x.Final != nil || before == nil || before.Phase != handover.Given || before.Gave.Token != x.Token {
		return
	}
	j := x.job
	if j == nil || j.Phase == handover.Given && j.Gave.Token == x.Token {
		return
	}
	x.Final = x.end(j, time.Now())
	x.Final.Way = e.told(x, before)[adapters.AttributePath]
}

// drop forgets an own job's record; what comes late of it is answered without one.
func (e *Engine) drop(x *entry) {
	x.job, x.meta = nil, meta{}
	x.freight, x.packed = nil, nil
	if x.index >= 0 {
		e.schedule(x)
	}
	if x.stored || x.flying {
		e.saveLater(x)
	} else {
		x.dirty = handover.SaveNothing
	}
	e.release(x)
}

func notKnown(op string, k handover.Key) error {
	return fail.Errorf(op, fail.NotFound, k.String(), "no peer has the job %s for us", k)
}
