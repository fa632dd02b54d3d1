package broker

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// input is something that may change a job.
type input struct {
	id    string
	tag   string // when set: of the placement that it speaks of; of another it is void
	asOf  int    // when set: void unless the job's newest line is still this one
	facts func(*job, store.Status) []fact
	// When set: why it can't be, as the job stands by now, which is answered; it holds Broker.mu.
	possible func(id string, st *store.Status) error
	reply    chan error // when set: gets one answer once the change is durable
	tries    int
	late     bool // it found the job final
}

func (in input) answer(err error) {
	if in.reply != nil {
		in.reply <- err
	}
}

// one is an input of a single fact.
func one(f fact) func(*job, store.Status) []fact {
	return func(*job, store.Status) []fact { return []fact{f} }
}

// impossible answers a request for what can't be.
type impossible struct{ error }

// errEnded answers a request that found its job final: the store has it.
var errEnded = fail.Errorf("broker", fail.Conflict, "", "the activity has ended")

// errUnknown answers a request for a job that is not in memory.
var errUnknown = fail.Errorf("broker", fail.NotFound, "", "no such activity")

// post hands inputs to the committer.
func (b *Broker) post(ins ...input) {
	if len(ins) == 0 {
		return
	}
	b.mu.Lock()
	serving := b.serving
	if serving {
		b.inbox = append(b.inbox, ins...)
	}
	b.mu.Unlock()
	if serving {
		nudge(b.wakeCommit)
		return
	}
	for _, in := range ins {
		in.answer(errStarting)
	}
}

// maxChanges bounds one call of the store's Update.
const maxChanges = 1024

// commitLoop turns inputs into durable changes, all that wait at once.
func (b *Broker) commitLoop(ctx context.Context, sess store.Session) error {
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wakeCommit:
		}
		for {
			plans := b.plan()
			if plans == nil {
				break
			}
			err := b.commit(ctx, sess, plans)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // what fails while stopping is no failure
			}
			if err == nil {
				failures = 0
				continue
			}
			if failures++; failures == 1 {
				b.cfg.Log.Error("changes of jobs can't be written and are tried again", "cause", err)
			}
			if !sleep(ctx, min(b.cfg.Retry.backoff(failures, b.cfg.Jitter())/10, time.Second)) {
				return nil
			}
		}
	}
}

// plan is what is to become of one job.
type plan struct {
	j      *job
	before store.Status
	after  store.Status
	lines  []store.Event
	do     Action
	forget []forgetting // placements that are given up
	ins    []input      // that made it
	steps  [][3]string  // for the hooks
	// with is a plan that is written with this one, both or neither, and carrier the
	// one with which this is.
	with, carrier *plan
	filed         bool // what it calls for is with the site
	// note is the record of the choice that it makes durable; nil if it makes none.
	note *store.Note
}

// file files what a durable plan calls for, together with its being the job's truth:
// whoever finds a placement without an answer in between would look for it though it
// is about to be handed over. The caller holds the lock.
func (b *Broker) file(p *plan) {
	if p.filed {
		return
	}
	p.filed = true
	s := b.siteOf(&p.j.rec.Status)
	if s == nil {
		return
	}
	if p.do != 0 {
		s.todo(p.j, p.do)
	}
	if st := &p.after; st.Foreign != nil && st.Placement != nil && st.Placement.Handle != nil && (p.before.Placement == nil || p.before.Placement.Handle == nil) {
		s.toExtend(p.j) // it may have been extended since it was handed over
	}
	// What became of it between the hand-over and the site's being listened to was told to
	// nobody, and no audit asks about a job without a handle. When a placement of another's was
	// handed over is not known.
	if st := &p.after; st.Placement != nil && st.Placement.Handle != nil && (p.before.Placement == nil || p.before.Placement.Handle == nil) &&
		(b.moved[st.Placement.Tag] == p.j.rec.ID || !s.listening.Before(p.j.handed)) {
		nudge(s.wakeAudit)
	}
}

// batch is what is planned at once.
type batch struct {
	plans []*plan
	byID  map[string]*plan
	moved map[string]string // job by tag: placements that another job has now
}

// of gives the plan of a job.
func (bt *batch) of(j *job) *plan {
	p := bt.byID[j.rec.ID]
	if p == nil {
		p = &plan{j: j, before: j.rec.Status, after: j.rec.Status}
		bt.byID[j.rec.ID], j.writing = p, true
		bt.plans = append(bt.plans, p)
	}
	return p
}

// plan takes what is in the inbox and applies it; nil when there is nothing.
func (b *Broker) plan() []*plan {
	now := time.Now()
	var answers []func()
	b.mu.Lock()
	bt := &batch{byID: make(map[string]*plan, min(len(b.inbox), maxChanges)), moved: map[string]string{}}
	taken := 0
	for _, in := range b.inbox {
		in = bt.home(b, in)
		if bt.byID[in.id] == nil && len(bt.plans) >= maxChanges {
			break
		}
		taken++
		j := b.jobs[in.id]
		if j == nil {
			answers = append(answers, func() { in.answer(errUnknown) })
			continue
		}
		b.apply(bt, bt.of(j), in, now)
	}
	b.inbox = append(b.inbox[:0], b.inbox[taken:]...)
	b.mu.Unlock()
	for _, a := range answers {
		a()
	}
	return bt.plans
}

// apply adds one input to a plan.
func (b *Broker) apply(bt *batch, p *plan, in input, now time.Time) {
	void := in.tag != "" && (p.after.Placement == nil || p.after.Placement.Tag != in.tag) ||
		in.asOf != 0 && in.asOf != p.after.Sequence+len(p.lines) ||
		in.tag != "" && Phase(p.after.Phase) == Outlasted // that placement has ended
	if in.late = p.after.Final; void || in.late {
		p.ins = append(p.ins, in)
		return
	}
	if in.possible != nil {
		if err := in.possible(in.id, &p.after); err != nil {
			in.answer(impossible{err})
			return
		}
	}
	for _, f := range in.facts(p.j, p.after) {
		if f.at.IsZero() {
			f.at = now
		}
		if f.event == Started && f.started.IsZero() {
			f.started = f.at
		}
		if f = b.outlives(bt, p, f); b.win(bt, p, f, now) {
			break
		}
		if err := b.take(bt, p, f, now); err != nil {
			if in.reply != nil {
				in.reply <- err
				return
			}
			b.cfg.Log.Error("a job's change is not in the table", "job", p.j.rec.ID, "phase", p.after.Phase, "event", string(f.event), "cause", err)
			call2(b.cfg.Hooks.Illegal, p.after.Phase, string(f.event))
			break
		}
		if p.after.Final {
			break
		}
	}
	p.ins = append(p.ins, in)
}

// take adds one fact to a plan.
func (b *Broker) take(bt *batch, p *plan, f fact, now time.Time) error {
	next, line, do, err := step(p.after, f)
	if err != nil {
		return err
	}
	if line != nil {
		if line.Time.Before(p.j.last) {
			line.Time = p.j.last // a site's clock may be behind ours
		}
		p.j.last = line.Time
		p.lines = append(p.lines, *line)
		p.steps = append(p.steps, [3]string{p.after.Phase, line.Phase, line.Event})
	}
	if do&DoForget != 0 && p.after.Placement != nil {
		h := f.handle
		if p.after.Placement.Handle != nil {
			h = p.after.Placement.Handle
		}
		p.forget = append(p.forget, forgetting{p.after.Placement.Site, adapters.Handle(h)})
	}
	if do&(DoSuspend|DoResume) != 0 {
		p.do &^= DoSuspend | DoResume // the newest holds
	}
	p.do |= do
	p.after = next
	if line != nil && p.j.leased.After(p.after.NotAfter) {
		p.after.NotAfter = p.j.leased // it costs nothing now
	}
	p.hear(f.told, line != nil, now, b.cfg.ToldInterval)
	if ph := Phase(next.Phase); p.j.replica() && (ph == Requeued || ph == Withheld) {
		return b.take(bt, p, fact{event: Withdrawn, at: now, reason: next.Reason + "; a replica is not placed again"}, now)
	}
	return nil
}

// changed reports whether there is anything to write.
func (p *plan) changed() bool { return len(p.lines) > 0 || !same(p.before, p.after) }

// commit writes plans and then acts on them. Its error says that some could not
// be written at present; they are in the inbox again.
func (b *Broker) commit(ctx context.Context, sess store.Session, plans []*plan) error {
	changes := make([]store.Change, 0, len(plans))
	written := make([]*plan, 0, len(plans))
	var done, again []*plan
	barred, trouble := b.reserveSites(ctx, sess, plans)
	b.noteDecisions(plans)
	for _, p := range plans {
		if p.carrier != nil {
			continue
		}
		if barred[p] {
			again = append(again, p.both()...)
			continue
		}
		if !p.changed() {
			done = append(done, p)
			continue
		}
		c := p.change()
		if p.with != nil {
			with := p.with.change()
			c.With = &with
		}
		changes = append(changes, c)
		written = append(written, p)
	}
	if len(changes) > 0 {
		began := time.Now()
		results := b.cfg.Store.Update(ctx, sess, changes...)
		if b.cfg.Hooks.Committed != nil {
			b.cfg.Hooks.Committed(len(changes), time.Since(began))
		}
		var stale []*plan
		for i, p := range written {
			var err error
			if i < len(results) {
				err = results[i].Err
			} else {
				err = fail.Errorf("broker.commit", fail.Uncertain, p.j.rec.ID, "the store gave no answer")
			}
			switch {
			case err == nil:
				b.written(p, results[i])
				done = append(done, p.both()...)
			case fail.Is(err, fail.Uncertain):
				trouble = err
				stale = append(stale, p.both()...)
			case fail.Is(err, fail.Conflict), fail.Is(err, fail.NotFound):
				stale = append(stale, p.both()...)
			default:
				trouble = err
				again = append(again, p.both()...)
			}
		}
		if len(stale) > 0 {
			select {
			case <-sess.Lost():
				b.drop(plans)
				return errSessionLost
			default:
			}
			settled, unsettled, err := b.reread(ctx, stale)
			if err != nil {
				trouble = err
			}
			done = append(done, settled...)
			again = append(again, unsettled...)
		}
	}
	b.act(done)
	b.countDecisions(done)
	b.mu.Lock()
	for _, p := range plans {
		p.j.writing = false
	}
	b.mu.Unlock()
	b.retry(ctx, again, trouble)
	return trouble
}

// change gives what is written of a plan.
func (p *plan) change() store.Change {
	return store.Change{ID: p.j.rec.ID, Revision: p.j.rec.Revision, Status: p.after, Events: p.lines, Note: p.note}
}

// both gives a plan and the one that is written with it.
func (p *plan) both() []*plan {
	if p.with == nil {
		return []*plan{p}
	}
	return []*plan{p, p.with}
}

// written makes a durable plan the job's truth, and the one that was written with it.
func (b *Broker) written(p *plan, c store.Changed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.with != nil { // each has what the other had
		p.j.limited, p.with.j.limited = p.with.j.limited, p.j.limited
	}
	b.isSo(p, c.Revision)
	if p.with != nil {
		b.isSo(p.with, c.With)
	}
}

// isSo makes one durable plan the job's truth; the caller holds the lock.
func (b *Broker) isSo(p *plan, revision int64) {
	p.after.Sequence = p.before.Sequence + len(p.lines)
	j := p.j
	b.lapsed(p)
	if revision > j.rec.Revision {
		b.dequeue(j)
		j.rec.Status, j.rec.Revision = p.after, revision
	}
	b.learn(p)
	j.reserved, j.chosen, j.deciding = nil, nil, false
	j.toldAt = time.Now()
	b.settle(j)
	b.file(p)
}

// act does what durable plans call for, and answers who asked.
func (b *Broker) act(plans []*plan) {
	h := &b.cfg.Hooks
	b.mu.Lock()
	for _, p := range plans {
		if p.j.reserved != nil || p.j.deciding { // the choice came to nothing
			p.j.reserved, p.j.chosen, p.j.deciding = nil, nil, false
			b.settle(p.j)
		}
		for _, f := range p.forget {
			// What a fenced site has may live: it is ended before it is forgotten.
			if s := b.sites[f.site]; s != nil && len(f.handle) > 0 && b.fences[f.site] == nil {
				s.toForget(f.handle)
			}
		}
		b.file(p)
	}
	b.mu.Unlock()
	for _, p := range plans {
		for _, s := range p.steps {
			if h.Stepped != nil {
				h.Stepped(s[0], s[1], s[2])
			}
		}
		if st := &p.after; st.Final && !p.before.Final && h.Ended != nil && !p.j.replica() {
			b.hookEnded(p)
		}
		for _, in := range p.ins {
			if in.late {
				in.answer(errEnded)
				continue
			}
			in.answer(nil)
		}
	}
}

func (b *Broker) hookEnded(p *plan) {
	st := &p.after
	site, waited, ran := "", st.Ended.Sub(p.j.rec.Submitted), time.Duration(0)
	if st.Placement != nil {
		site = st.Placement.Site
	}
	if !st.Started.IsZero() {
		waited, ran = st.Started.Sub(p.j.rec.Submitted), st.Ended.Sub(st.Started)
	}
	b.cfg.Hooks.Ended(site, st.Phase, waited, ran)
}

// reread settles writes that met a newer record or whose answer was lost, by
// what the store now says.
func (b *Broker) reread(ctx context.Context, stale []*plan) (settled, again []*plan, err error) {
	ids := make([]string, len(stale))
	for i, p := range stale {
		ids[i] = p.j.rec.ID
	}
	recs, err := b.cfg.Store.Get(ctx, ids...)
	if err != nil {
		return nil, stale, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range stale {
		j := p.j
		rec, ok := recs[j.rec.ID]
		p.after.Sequence = p.before.Sequence + len(p.lines)
		ours := ok && rec.Revision > j.rec.Revision && rec.Status.Sequence == p.after.Sequence && alike(rec.Status, p.after)
		j.reserved, j.chosen, j.deciding = nil, nil, false
		switch {
		case !ok:
			b.forget(j)
			j.wake()
		case rec.Revision > j.rec.Revision:
			b.adopt(rec)
		default:
			b.settle(j)
		}
		if ours {
			b.lapsed(p)
			b.file(p)
			settled = append(settled, p)
		} else {
			again = append(again, p)
		}
	}
	return settled, again, nil
}

// retry puts the inputs of plans back at the head of the inbox. People are told
// of trouble at once; evidence is kept until it can be written.
func (b *Broker) retry(ctx context.Context, plans []*plan, trouble error) {
	var back []input
	for _, p := range plans {
		for _, in := range p.ins {
			in.tries++
			switch {
			case in.reply != nil && trouble != nil && ctx.Err() == nil:
				in.answer(trouble)
			case in.reply != nil && in.tries > 10:
				in.answer(fail.Errorf("broker.commit", fail.Conflict, in.id, "others keep changing the activity; try again"))
			default:
				back = append(back, in)
			}
		}
	}
	if len(back) == 0 {
		return
	}
	b.mu.Lock()
	b.inbox = append(back, b.inbox...)
	b.mu.Unlock()
	nudge(b.wakeCommit)
}

// drop answers the inputs of plans that will not be written by this session.
func (b *Broker) drop(plans []*plan) {
	for _, p := range plans {
		for _, in := range p.ins {
			in.answer(errStarting)
		}
	}
}

// alike compares what a store gave back with what was given to it.
func alike(a, b store.Status) bool {
	pa, pb := a.Placement, b.Placement
	if (pa == nil) != (pb == nil) || pa != nil && (pa.Tag != pb.Tag || pa.Site != pb.Site || string(pa.Handle) != string(pb.Handle)) {
		return false
	}
	return a.Phase == b.Phase && a.Attempt == b.Attempt && a.Reason == b.Reason && a.Cancel == b.Cancel && a.Suspend == b.Suspend && a.Of == b.Of
}

func call2(f func(string, string), a, b string) {
	if f != nil {
		f(a, b)
	}
}
