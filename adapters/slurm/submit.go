package slurm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// atOnce bounds the submissions that are under way for one call.
const atOnce = 4

// defaultArray bounds an array where Slurm does not say what it takes (MaxArraySize).
const defaultArray = 1000

// Submit places jobs: alike ones as arrays, which cost Slurm one request each.
func (a *Adapter) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	placed := make([]adapters.Placed, len(jobs))
	var mine []int // of those that this call places
	var later []int
	for i := range jobs {
		if err := jobs[i].Tag.Validate(); err != nil {
			placed[i].Err = err
			continue
		}
		if a.claim(jobs[i].Tag) {
			mine = append(mine, i)
		} else {
			later = append(later, i)
		}
	}
	a.submit(ctx, jobs, mine, placed)
	for _, i := range mine {
		a.unclaim(jobs[i].Tag)
	}
	for _, i := range later { // placed before, or by somebody else just now
		placed[i] = a.placedBefore(ctx, jobs[i].Tag)
		if errors.Is(placed[i].Err, errNotPlaced) { // it came to nothing there
			placed[i] = a.Submit(ctx, jobs[i:i+1])[0]
		}
	}
	return placed
}

// errNotPlaced is for a tag that somebody else failed to place.
var errNotPlaced = errors.New("it was not placed")

// claim takes a tag that nobody has placed or is placing.
func (a *Adapter) claim(tag adapters.Tag) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.members[tag] != nil || a.placing[tag] != nil {
		return false
	}
	a.placing[tag] = make(chan struct{})
	return true
}

func (a *Adapter) unclaim(tag adapters.Tag) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.placing[tag])
	delete(a.placing, tag)
}

// settledSoon waits for a submission of the tag that is under way.
func (a *Adapter) settledSoon(ctx context.Context, tag adapters.Tag) error {
	a.mu.Lock()
	busy := a.placing[tag]
	a.mu.Unlock()
	if busy == nil {
		return nil
	}
	select {
	case <-busy:
		return nil
	case <-ctx.Done():
		return fail.Errorf("slurm.Submit", fail.Uncertain, string(tag), "the job is being placed").Because(ctx.Err())
	}
}

// placedBefore gives what became of a tag that is placed, or is being placed.
func (a *Adapter) placedBefore(ctx context.Context, tag adapters.Tag) adapters.Placed {
	if err := a.settledSoon(ctx, tag); err != nil {
		return adapters.Placed{Err: err}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.members[tag]
	switch {
	case m == nil:
		return adapters.Placed{Err: errNotPlaced}
	case !m.batch.settled() && m.begun == nil && !m.evidence.Phase.Final():
		return adapters.Placed{Err: errDoubt(tag)}
	}
	return adapters.Placed{Handle: handleOf(tag)}
}

func errDoubt(tag adapters.Tag) error {
	return fail.Errorf("slurm.Submit", fail.Uncertain, string(tag), "Slurm has not said whether it took the job when it was submitted before")
}

// submit places the jobs of the indices.
func (a *Adapter) submit(ctx context.Context, jobs []adapters.Job, which []int, placed []adapters.Placed) {
	if len(which) == 0 {
		return
	}
	refuseAll := func(err error) {
		for _, i := range which {
			placed[i].Err = err
		}
	}
	if _, err := a.manager(); err != nil {
		refuseAll(err)
		return
	}
	info, f, err := a.ready(ctx)
	if err == nil {
		err = a.insync(ctx)
	}
	if err != nil {
		refuseAll(err)
		return
	}
	runner, err := a.runnerPath()
	if err != nil {
		refuseAll(err)
		return
	}
	groups := map[string][]int{}
	var order []string
	plans := make(map[int]*plan, len(which))
	now := time.Now()
	for _, i := range which {
		p, err := a.make(info, f, now, jobs[i].Definition, jobs[i].Tag, jobs[i].Account)
		if err == nil {
			err = a.within(p, &jobs[i])
		}
		if err != nil {
			placed[i].Err = err
			continue
		}
		p.spec.Owner, p.spec.NotAfter = jobs[i].Owner, jobs[i].NotAfter.UTC().Round(0)
		plans[i] = p
		key := p.request.key()
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], i)
	}
	most := a.fold(f)
	if a.orphans() > 0 { // the members of an array get numbers that nobody can foresee
		most = 1
	}
	var wg sync.WaitGroup
	turn := make(chan struct{}, atOnce)
	for _, key := range order {
		for group := groups[key]; len(group) > 0; {
			n := min(len(group), most)
			some := group[:n]
			group = group[n:]
			wg.Go(func() {
				turn <- struct{}{}
				defer func() { <-turn }()
				mine := make([]*plan, len(some))
				for k, i := range some {
					mine[k] = plans[i]
				}
				errs := a.submitBatch(ctx, runner, mine)
				for k, i := range some {
					if placed[i].Err = errs[k]; errs[k] == nil {
						placed[i].Handle = handleOf(jobs[i].Tag)
					}
				}
			})
		}
	}
	wg.Wait()
}

// fold says how many alike jobs go into one submission.
func (a *Adapter) fold(f *facts) int {
	most := f.MaxArray - 1 // the largest index is one less than MaxArraySize
	if most < 1 {
		most = defaultArray
	}
	if a.settings.Fold > 0 {
		most = min(most, a.settings.Fold)
	}
	return min(max(most, 1), maxMembers)
}

// runnerPath gives the runner's path on the nodes, where a copy is put first.
func (a *Adapter) runnerPath() (string, error) {
	if a.settings.Runner != "" {
		return a.settings.Runner, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.runner != "" {
		if _, err := os.Stat(a.runner); err == nil {
			return a.runner, nil
		}
	}
	exe, err := os.Executable()
	if err == nil {
		a.runner, err = a.spool.install(exe)
	}
	if err != nil {
		return "", fail.Errorf("slurm.Submit", fail.Unavailable, string(a.spool), "the program that runs jobs on the nodes can't be put into the spool %s: %s", a.spool, why(err)).Because(err)
	}
	return a.runner, nil
}

// quote makes one word of a shell's, whatever is in it.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// script is what Slurm runs on the node: nothing of the job is in it.
func (a *Adapter) script(runner, batch string) string {
	return "#!/bin/sh\nexec " + quote(runner) + " " + RunWord + " " + quote(string(a.spool)) + " " + quote(batch) + ` "${SLURM_ARRAY_TASK_ID:-0}"` + "\n"
}

// submitBatch submits alike jobs. Before Slurm hears of them, all is on disk that is
// needed to find them again.
func (a *Adapter) submitBatch(ctx context.Context, runner string, plans []*plan) []error {
	errs := make([]error, len(plans))
	all := func(err error) []error {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
		return errs
	}
	r := plans[0].request
	way, err := a.taker(&r)
	if err != nil {
		return all(err)
	}
	b := &batch{name: a.newBatch(plans[0].spec.Tag), sending: true}
	for _, p := range plans {
		b.tags = append(b.tags, p.spec.Tag)
		if p.request.Comment != r.Comment {
			r.Comment = fmt.Sprintf("%d jobs", len(plans))
		}
	}
	b.record = batchRecord{Began: time.Now(), Request: &r, Array: len(plans) > 1}
	r.Name, r.Log = b.name, a.logPath(b)
	undo := func() {
		for _, tag := range b.tags {
			if err := a.spool.discard(string(a.spool.job(tag))); err != nil {
				a.log.Warn("a job that was not placed leaves files behind", "tag", tag, "error", err)
			}
		}
		_ = a.spool.removeBatch(b.name)
	}
	err = a.spool.writeMembers(b.name, b.tags)
	if err == nil {
		err = a.spool.writeBatch(b.name, b.record)
	}
	for _, p := range plans {
		if err != nil {
			break
		}
		p.spec.Batch = b.name
		var made bool
		if made, err = a.spool.place(p.spec, p.account.uid, p.account.gid); err == nil && !made {
			err = fmt.Errorf("%s is there already", a.spool.job(p.spec.Tag))
		}
	}
	if err != nil {
		undo()
		kind := fail.Unavailable
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			kind = fail.Exhausted
		}
		return all(fail.Errorf("slurm.Submit", kind, b.name, "the job could not be written to the site's spool: %s", why(err)).Because(err))
	}
	a.adopt(b)
	a.mu.Lock()
	for _, p := range plans {
		if m := a.members[p.spec.Tag]; m != nil && m.batch == b && !p.spec.NotAfter.IsZero() {
			m.notAfter = p.spec.NotAfter
			a.watchLease(m, m.notAfter)
		}
	}
	a.mu.Unlock()
	err = a.send(ctx, way, runner, b)
	switch {
	case err == nil:
		return errs
	case fail.Is(err, fail.Uncertain):
		return all(err)
	}
	a.drop(b)
	undo()
	return all(err)
}

func (a *Adapter) logPath(b *batch) string {
	if b.record.Array {
		return a.spool.path(dirLogs, b.name+".%a")
	}
	return a.spool.path(dirLogs, b.name)
}

// adopt makes a batch known, before it is sent, so that no evidence of it comes too
// early.
func (a *Adapter) adopt(b *batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.batches[b.name] = b
	for i, tag := range b.tags {
		m := &member{tag: tag, batch: b, index: i}
		m.evidence = adapters.Evidence{Tag: tag, Handle: handleOf(tag), Phase: adapters.Queued}
		if old := a.members[tag]; old != nil { // it is submitted again
			m.notAfter = old.notAfter
			a.watchLease(m, m.notAfter)
		}
		a.members[tag] = m
		a.live++
	}
	b.left = len(b.tags)
}

// drop makes a batch unknown that came to nothing.
func (a *Adapter) drop(b *batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.batches, b.name)
	for _, tag := range b.tags {
		if m := a.members[tag]; m != nil && m.batch == b {
			if !m.evidence.Phase.Final() {
				a.live--
			}
			delete(a.members, tag)
		}
	}
}

// send submits a batch that is on disk and known.
func (a *Adapter) send(ctx context.Context, way manager, runner string, b *batch) error {
	members := 0
	if b.record.Array {
		members = len(b.tags)
	}
	a.mu.Lock()
	b.floor = a.highest
	a.mu.Unlock()
	job, err := a.sendOnce(ctx, way, runner, b, members)
	for tries := 0; err == nil && a.taken(b, job) && tries < maxBurnt; tries++ {
		// A controller that lost its last jobs gives their numbers away again. One of them
		// still runs, so that a node would refuse this one and be drained by Slurm, or would
		// take the end of the one for that of the other.
		if err = way.cancel(ctx, []jobID{{Job: job, Task: -1}}); err == nil {
			job, err = a.sendOnce(ctx, way, runner, b, members)
		}
	}
	a.mu.Lock()
	b.sending = false
	a.mu.Unlock()
	if err != nil {
		if fail.Is(err, fail.Uncertain) {
			a.mu.Lock()
			b.doubt = time.Now()
			a.mu.Unlock()
			a.soon()
			return err
		}
		a.unwell(err)
		return explain(err)
	}
	a.settle(b, job)
	return nil
}

// maxBurnt bounds the numbers that are passed over for one submission.
const maxBurnt = 200

// sendOnce submits a batch once. While jobs run that Slurm does not know, it is held
// until its number is known to be nobody else's.
func (a *Adapter) sendOnce(ctx context.Context, way manager, runner string, b *batch, members int) (int64, error) {
	r := *b.record.Request
	r.Hold = a.orphans() > 0
	job, err := way.submit(ctx, &r, a.script(runner, b.name), members)
	if err != nil || !r.Hold || a.taken(b, job) {
		return job, err
	}
	if err := way.hold(ctx, []jobID{{Job: job, Task: -1}}, false); err != nil {
		return 0, fail.Errorf("slurm.submit", fail.Uncertain, b.name, "the job was submitted, but could not be released").Because(err)
	}
	return job, nil
}

// taken reports whether another job of ours with that number runs.
func (a *Adapter) taken(b *batch, job int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.members {
		if m.batch != b && m.begun != nil && !m.evidence.Phase.Final() && m.begun.Raw == job {
			return true
		}
	}
	return false
}

// orphans counts the jobs that run while Slurm does not know them.
func (a *Adapter) orphans() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unknown
}

// settle notes what a batch is at Slurm.
func (a *Adapter) settle(b *batch, job int64) {
	a.mu.Lock()
	a.number(b, job)
	record := b.record
	a.mu.Unlock()
	// Should this fail, the name still tells.
	if err := a.spool.writeBatch(b.name, record); err != nil {
		a.log.Warn("the id of a job could not be written down", "job", job, "name", b.name, "error", err)
	}
}

// number notes the number that Slurm gave a batch; the caller holds the lock. One that
// is not above all before it is a number given twice: the controller was killed, and has
// forgotten its last jobs. Should one of those still run, Slurm takes its end for that of
// the new one, which then reads as cancelled (see ended).
func (a *Adapter) number(b *batch, job int64) {
	b.record.Job, b.doubt = job, time.Time{}
	if b.reused = job <= b.floor; b.reused {
		a.forgot = time.Now()
	}
	a.highest = max(a.highest, job+int64(len(b.tags))-1)
}

// explain says which of our elements Slurm means where it refuses an option by its own
// name.
func explain(err error) error {
	if adapters.ClassOf(err) != adapters.Permanent {
		return err
	}
	said := fail.Sentence(err)
	for _, e := range []struct{ words, element string }{
		{"partition", "Share"},
		{"license", "Licence"},
		{"reservation", "Reservation"},
		{"qos", "QualityOfService"},
		{"QOS", "QualityOfService"},
		{"account", "JobProject"},
		{"feature", "Constraint"},
		{"generic resource", "GPU"},
		{"gres", "GPU"},
		{"time limit", "WallTimeLimit or Deadline"},
		{"Memory specification", "IndividualPhysicalMemory"},
		{"Temporary disk", "IndividualDiskSpace"},
		{"node configuration", "Resources"},
		{"node name", "CandidateHosts"},
	} {
		if strings.Contains(said, e.words) {
			return fail.Errorf("slurm.Submit", fail.KindOf(err), "", "%s: %s", e.element, said)
		}
	}
	return err
}
