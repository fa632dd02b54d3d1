package slurm

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// look asks for the state of jobs, as long as there are any that have not ended, and
// for Slurm itself when it does not answer.
func (a *Adapter) look(ctx context.Context) {
	better := time.NewTicker(betterEvery)
	defer better.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		took := time.Duration(a.took.Load())
		wait := a.interval()
		if _, err := a.manager(); err != nil {
			wait = againEvery
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-better.C:
			if !a.best() {
				_ = a.reach(ctx) // Health tells
			}
			continue
		case <-a.poke:
			// Who pokes has news for us, of which there may be more in a moment.
			if pause(ctx, max(min(20*time.Millisecond, a.settings.poll), 3*took)) != nil {
				return
			}
		case <-timer.C:
		}
		begin := time.Now()
		a.round(ctx)
		if _, err := a.manager(); err == nil { // how long it took to fail says nothing
			a.took.Store(int64(time.Since(begin)))
		}
	}
}

// interval is how often Slurm is asked: an answer that takes long costs it as much, and
// is asked for less often.
func (a *Adapter) interval() time.Duration {
	return max(a.settings.poll, 10*time.Duration(a.took.Load()))
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// best reports whether the best way is in use and works.
func (a *Adapter) best() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.way != nil && a.way == a.ways[0] && a.health.Problem == ""
}

// round looks once.
func (a *Adapter) round(ctx context.Context) {
	if _, err := a.manager(); err != nil {
		if a.reach(ctx) != nil {
			return
		}
	}
	a.mu.Lock()
	none := a.live == 0 && len(a.strays) == 0
	a.mu.Unlock()
	if none {
		a.looking.Store(false)
		return
	}
	a.scanEvents()
	records, at, err := a.queue.get(ctx, 0, a.askQueue)
	if err != nil {
		return // askQueue told Health
	}
	a.looking.Store(true)
	a.apply(ctx, records, at)
}

// askQueue asks for all jobs of the site at once: one request, whatever their number.
func (a *Adapter) askQueue(ctx context.Context) ([]record, error) {
	way, err := a.manager()
	if err != nil {
		return nil, err
	}
	records, err := way.jobs(ctx, a.users())
	if err != nil {
		a.unwell(err)
		return nil, err
	}
	a.answered(nil)
	return records, nil
}

// users lists the accounts whose jobs are ours.
func (a *Adapter) users() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	users := []string{a.own.user}
	for _, b := range a.batches {
		if r := b.record.Request; r != nil && r.User != "" && !slices.Contains(users, r.User) {
			users = append(users, r.User)
		}
	}
	slices.Sort(users)
	return users
}

// lostAfter is for how long Slurm must not know a job before that means anything.
const lostAfter = 2 * time.Second

// A runner that Slurm knows nothing of is given up when it has left out so many signs
// of life.
const signsMissed = 4

// insync waits until Slurm has said what it knows since it answers again: after a crash
// of its controller nothing is submitted before.
func (a *Adapter) insync(ctx context.Context) error {
	for {
		a.mu.Lock()
		ok := a.live == 0 || a.synced.After(a.health.Since)
		a.mu.Unlock()
		if ok {
			return nil
		}
		records, at, err := a.queue.get(ctx, 0, a.askQueue)
		if err != nil {
			return unavailable("slurm.Submit", a.name, err)
		}
		a.apply(ctx, records, at)
	}
}

// seen is a member with what Slurm says of it.
type seen struct {
	m *member
	r *record
}

// apply holds what Slurm says against what is known. The records answer a question that
// was put at that time.
func (a *Adapter) apply(ctx context.Context, records []record, at time.Time) {
	var there []seen
	var stray []jobID
	var rest []*record
	a.mu.Lock()
	found := make(map[*member]bool, a.live)
	for i := range records {
		r := &records[i]
		if len(r.Name) < len(a.prefix()) || r.Name[:len(a.prefix())] != a.prefix() {
			continue
		}
		b := a.batches[r.Name]
		if r.Rest && b != nil && b.record.Array && b.record.Job == r.ID.Job {
			rest = append(rest, r)
			continue
		}
		m := a.memberOf(b, r)
		switch {
		case m == nil || m.evidence.Phase.Final():
			// Nobody waits for it, or it is over though Slurm does not know that.
			if !r.final() && r.State != "COMPLETING" && (b == nil || !b.sending) {
				stray = append(stray, r.ID)
			}
		case !b.settled():
			if !b.sending {
				a.number(b, r.ID.Job) // it is written down with the next change, and found by its name until then
			}
		}
		if m != nil && !m.evidence.Phase.Final() && b.record.Job == r.ID.Job && !found[m] {
			found[m] = true
			there = append(there, seen{m, r})
		}
	}
	for _, r := range rest {
		b := a.batches[r.Name]
		for _, tag := range b.tags {
			if m := a.members[tag]; m != nil && m.batch == b && !found[m] && !m.evidence.Phase.Final() {
				found[m] = true
				there = append(there, seen{m, r})
			}
		}
	}
	var missing []*member
	for _, m := range a.members {
		if m.evidence.Phase.Final() || found[m] || !m.batch.settled() {
			continue
		}
		missing = append(missing, m)
	}
	fresh := time.Since(a.health.Since) < suspicious
	a.mu.Unlock()
	unknown := 0
	for _, m := range missing {
		if fresh {
			a.observe(m)
		}
		a.mu.Lock()
		if m.begun != nil {
			unknown++
		}
		a.mu.Unlock()
	}
	a.mu.Lock()
	a.unknown, a.synced = unknown, at
	if unknown > 0 {
		a.forgot = time.Now()
	}
	a.mu.Unlock()
	a.keep(ctx, there)
	for _, s := range there {
		a.judge(ctx, s.m, s.r, at)
	}
	if len(missing) > 0 {
		a.search(ctx, missing, at)
	}
	a.resend(ctx, at)
	a.endStrays(ctx, stray)
}

// resend submits once more what was being submitted again as Slurm had lost it, and had
// no answer or no success: nobody asks for it by Find.
func (a *Adapter) resend(ctx context.Context, at time.Time) {
	const window = 15 * time.Second // in which Slurm may yet say that it has it
	late := map[*batch][]*member{}
	a.mu.Lock()
	for _, b := range a.batches {
		if b.settled() || b.sending || b.record.Tries == 0 || b.doubt.IsZero() || at.Sub(b.doubt) < window {
			continue
		}
		for _, tag := range b.tags {
			if m := a.members[tag]; m != nil && m.batch == b && !m.evidence.Phase.Final() {
				late[b] = append(late[b], m)
			}
		}
	}
	a.mu.Unlock()
	for b, members := range late {
		members = slices.DeleteFunc(members, func(m *member) bool { return a.fromRunner(m) || a.begunNow(m) })
		if len(members) > 0 {
			a.again(ctx, b, members)
		}
	}
}

// memberOf finds who a record is about; the caller holds the lock.
func (a *Adapter) memberOf(b *batch, r *record) *member {
	if b == nil {
		return nil
	}
	index := 0
	if b.record.Array {
		index = r.ID.Task
	}
	if index < 0 || index >= len(b.tags) {
		return nil
	}
	if m := a.members[b.tags[index]]; m != nil && m.batch == b && m.index == index {
		return m
	}
	return nil
}

// endAgain is how often Slurm is told to end a job that nobody wants any more, and that it
// still has: it may have failed to.
const endAgain = time.Minute

// endStrays ends jobs of ours that nobody wants any more: of submissions that were
// withdrawn, and of placements that are over.
func (a *Adapter) endStrays(ctx context.Context, ids []jobID) {
	now := time.Now()
	a.mu.Lock()
	seen := map[int64]time.Time{}
	var fresh []jobID
	for _, id := range ids {
		seen[id.Job] = a.strays[id.Job]
		if now.Sub(a.strays[id.Job]) >= endAgain {
			fresh = append(fresh, id)
		}
	}
	for _, id := range fresh {
		seen[id.Job] = now
	}
	a.strays = seen
	a.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	way, err := a.manager()
	if err == nil {
		a.log.Info("ending jobs at Slurm that nobody waits for", "site", a.name, "jobs", len(fresh))
		err = way.cancel(ctx, fresh)
	}
	if err != nil {
		a.unwell(err)
		a.mu.Lock()
		for _, id := range fresh {
			delete(a.strays, id.Job)
		}
		a.mu.Unlock()
	}
}

// search finds out about jobs that the controller does not know: it has forgotten them,
// or lost them.
func (a *Adapter) search(ctx context.Context, missing []*member, at time.Time) {
	var names []string
	var since time.Time
	var gone []*member
	a.mu.Lock()
	f := a.facts
	for _, m := range missing {
		if m.missing.IsZero() {
			m.missing = at
		}
		if at.Sub(m.missing) >= lostAfter || m.begun != nil {
			gone = append(gone, m)
			if !slices.Contains(names, m.batch.name) && len(names) < 500 {
				names = append(names, m.batch.name)
			}
			if since.IsZero() || m.batch.record.Began.Before(since) {
				since = m.batch.record.Began
			}
		}
	}
	a.mu.Unlock()
	if len(gone) < len(missing) {
		time.AfterFunc(lostAfter, a.soon)
	}
	var left []*member
	for _, m := range gone { // what the runner says is enough
		if !a.fromRunner(m) {
			left = append(left, m)
		}
	}
	if len(left) == 0 {
		return
	}
	past := map[*member]*record{}
	if f != nil && f.Accounting {
		way, err := a.manager()
		if err != nil {
			return
		}
		records, err := way.past(ctx, names, since.Add(-time.Hour))
		if err != nil {
			a.log.Warn("accounting does not answer about jobs that the controller does not know", "site", a.name, "cause", err)
			// Jobs that run are looked after all the same; nothing is known of the others.
			left = slices.DeleteFunc(left, func(m *member) bool { return !a.begunNow(m) })
		}
		a.mu.Lock()
		for i := range records {
			r := &records[i]
			if m := a.memberOf(a.batches[r.Name], r); m != nil && r.final() && m.batch.record.Job == r.ID.Job {
				past[m] = r // of several runs the last
			}
		}
		a.mu.Unlock()
	}
	lost := map[*batch][]*member{}
	for _, m := range left {
		if r := past[m]; r != nil {
			a.judge(ctx, m, r, at)
			continue
		}
		a.mu.Lock()
		long := at.Sub(m.missing) >= lostAfter
		a.mu.Unlock()
		if long {
			if a.begunNow(m) {
				a.orphan(m)
			} else {
				lost[m.batch] = append(lost[m.batch], m)
			}
		}
	}
	for b, members := range lost {
		a.again(ctx, b, members)
	}
}

// begunNow looks whether somebody has begun the job.
func (a *Adapter) begunNow(m *member) bool {
	b, err := a.spool.job(m.tag).begun()
	return err != nil || b != nil
}

// orphan looks after a job that runs, or did, while Slurm knows nothing of it: a
// controller that was killed shortly after it started the job does not, and lets it run
// to its end.
func (a *Adapter) orphan(m *member) {
	a.alone(m, "Slurm has lost the job", "Slurm has lost the job, which runs on")
}

// alone tells of a job of which only its runner can say how it is: that it runs, or,
// when nothing has been heard of the runner, that it is lost. A controller that starts
// anew has its nodes end what it has forgotten, with no chance for the runner to say so.
func (a *Adapter) alone(m *member, why, runs string) {
	b, sign, err := a.spool.job(m.tag).lastSign()
	if err != nil || b == nil {
		return
	}
	a.mu.Lock()
	m.begun = b
	cancel, quiet := m.cancel, m.quiet(b, sign)
	a.mu.Unlock()
	if !quiet {
		a.publish(m, a.runningEvidence(m, runs))
		return
	}
	e := adapters.Evidence{Phase: adapters.Lost, Reason: why + ", and what ran it on the node has not been heard of since", Started: b.Started}
	if cancel {
		e.Phase, e.Ended, e.Reason = adapters.Cancelled, sign, ""
		if sign.Before(b.Started) {
			e.Ended = b.Started
		}
	}
	a.publish(m, e)
}

// quiet reports whether the runner has left out its signs of life; the caller holds the
// lock. It is counted by our own clock, from when the last one was first seen: the
// nodes' clocks are others.
func (m *member) quiet(b *begun, sign time.Time) bool {
	if !sign.Equal(m.sign) {
		m.sign, m.heard = sign, time.Now()
	}
	every := time.Duration(showEvery * heedEvery)
	if sign.Sub(b.Started) < young-showYoung*heedEvery { // both by the node's clock
		every = showYoung * heedEvery
	}
	return time.Since(m.heard) > signsMissed*every
}

// again submits jobs once more that Slurm has lost before it started them. Whatever
// turns up of the batch of before finds that the job has gone on to another.
func (a *Adapter) again(ctx context.Context, old *batch, members []*member) {
	const most = 10
	give := func(m *member, why string) {
		if a.spool.job(m.tag).withdraw() {
			a.publish(m, adapters.Evidence{Phase: adapters.Lost, NotRun: true, Reason: why})
		}
	}
	var move []*member
	for _, m := range members {
		switch {
		case a.wantsEnd(m):
			if a.spool.job(m.tag).withdraw() {
				a.publish(m, adapters.Evidence{Phase: adapters.Cancelled, NotRun: true, Ended: time.Now()})
			}
		case old.record.Tries >= most || old.record.Request == nil:
			give(m, "Slurm has lost the job before it started")
		default:
			move = append(move, m)
		}
	}
	if len(move) == 0 {
		return
	}
	way, err := a.taker(old.record.Request)
	if err != nil {
		return
	}
	runner, err := a.runnerPath()
	if err != nil {
		return
	}
	r := *old.record.Request
	b := &batch{name: a.newBatch(move[0].tag), sending: true}
	b.record = batchRecord{Began: time.Now(), Request: &r, Array: len(move) > 1, Tries: old.record.Tries + 1}
	for _, m := range move {
		b.tags = append(b.tags, m.tag)
	}
	r.Name, r.Log = b.name, a.logPath(b)
	a.mu.Lock()
	a.forgot = time.Now()
	a.mu.Unlock()
	a.log.Warn("Slurm has lost jobs before they started; they are submitted again", "site", a.name, "jobs", len(move), "id", old.record.Job)
	// In this order, whatever is interrupted leaves each job with one batch that may run it:
	// the one that its own file names.
	err = a.spool.writeMembers(b.name, b.tags)
	if err == nil {
		err = a.spool.writeBatch(b.name, b.record)
	}
	for _, m := range move {
		if err == nil {
			err = a.spool.rebatch(m.tag, b.name)
		}
	}
	if err != nil {
		a.log.Warn("jobs that Slurm has lost can't be submitted again for now", "site", a.name, "error", err)
		return
	}
	a.mu.Lock()
	a.batches[b.name] = b
	for i, m := range move {
		old.left--
		m.batch, m.index, m.missing, m.unheard, m.held = b, i, time.Time{}, time.Time{}, false
	}
	b.left = len(move)
	empty := old.left <= 0
	if empty {
		delete(a.batches, old.name)
	}
	a.mu.Unlock()
	if empty {
		_ = a.spool.removeBatch(old.name)
	}
	if err := a.send(ctx, way, runner, b); err != nil && !fail.Is(err, fail.Uncertain) {
		a.mu.Lock()
		b.doubt = time.Now() // it is resolved like one whose answer was lost
		a.mu.Unlock()
		if adapters.ClassOf(err) == adapters.Permanent {
			for _, m := range move {
				give(m, "Slurm has lost the job before it started, and refuses it now: "+fail.Sentence(err))
			}
		}
	}
}

// wantsEnd reports whether the job is to be ended.
func (a *Adapter) wantsEnd(m *member) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return m.cancel
}

// jobAttributes are Slurm's own words about a job.
func jobAttributes(r *record) map[string]string {
	out := map[string]string{"JobId": r.ID.String(), "JobState": r.State}
	if r.Reason != "" && r.Reason != "None" {
		out["Reason"] = clipped(r.Reason)
	}
	if r.Restarts > 0 {
		out["Restarts"] = strconv.Itoa(r.Restarts)
	}
	return out
}
