package boinc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// refresh brings what is known up to date, unless it is as fresh as the poll interval
// says. All who ask meanwhile share one round. A round that was begun is ended even
// if who began it goes away.
func (a *Adapter) refresh(ctx context.Context) error {
	a.mu.Lock()
	if time.Since(a.fresh) < a.settings.Poll {
		defer a.mu.Unlock()
		return a.refreshErr
	}
	wait := a.refreshing
	if wait == nil {
		if a.life.Err() != nil {
			a.mu.Unlock()
			return errClosed
		}
		wait = make(chan struct{})
		a.refreshing = wait
		a.rounds++
		a.asking.Go(func() {
			err := a.round(a.life)
			a.mu.Lock()
			a.fresh, a.refreshErr, a.refreshing = time.Now(), err, nil
			a.mu.Unlock()
			close(wait)
		})
	}
	a.mu.Unlock()
	select {
	case <-wait:
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.refreshErr
	case <-ctx.Done():
		return fail.E("boinc.Status", fail.Unavailable, "", ctx.Err())
	}
}

var errClosed = fail.Errorf("boinc.Status", fail.Unavailable, "", "the adapter is closed")

// maxNamesAsked bounds the batches of one query_batch2.
const maxNamesAsked = 100

// fullEvery says in which rounds the jobs that wait are asked for whether or not they
// changed: that an instance goes out to a host changes the instance's row, not the
// job's, so that news alone do not tell.
const fullEvery = 4

// leastAsked is how many jobs are settled one by one in a round at least.
const leastAsked = 20

// errLater says that a round has asked enough about single jobs.
var errLater = errors.New("the rest is for a later round")

// mayAsk counts questions about single jobs: a round must not take so long that all
// that it knows of the others is old.
func (a *Adapter) mayAsk() bool {
	a.spare--
	return a.spare >= 0
}

// round asks the project for everything that may have changed.
func (a *Adapter) round(ctx context.Context) error {
	a.spare = max(leastAsked, int(a.settings.RequestsPerSecond*a.settings.Poll.Seconds()/2))
	a.introduced(ctx)
	a.giveUp()
	if err := a.sendAborts(ctx); err != nil {
		return err
	}
	full, delta, single := a.due()
	ended := map[*batch]bool{}
	since, latest := a.serverTime, 0.0
	for _, part := range []struct {
		batches []*batch
		since   int64
	}{{full, 0}, {delta, int64(since) - 2}} { // the rows' times have whole seconds
		for some := range slices.Chunk(part.batches, maxNamesAsked) {
			at, err := a.changes(ctx, some, part.since, ended)
			if err != nil {
				return err
			}
			if latest == 0 || at < latest {
				latest = at
			}
		}
	}
	if latest > 0 {
		a.serverTime = latest
	}
	for _, b := range single {
		ended[b] = true
	}
	for b := range ended {
		if err := a.details(ctx, b); err != nil {
			return err
		}
	}
	a.sweep(ctx)
	return nil
}

// due sorts the open batches: those whose jobs must be asked for in full, those of
// which news are enough, and those that must be asked for one by one.
func (a *Adapter) due() (full, delta, single []*batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.batches {
		if b.state != batchOpen || b.open == 0 {
			continue
		}
		waiting := slices.ContainsFunc(b.jobs, func(j *job) bool { return j.final == nil && j.started.IsZero() })
		// What ended and could not be settled yet is looked at again.
		unsettled := slices.ContainsFunc(b.jobs, func(j *job) bool {
			return j.final == nil && (j.status == statusDone || j.status == statusError || j.aborted)
		})
		switch {
		case b.absent || unsettled:
			single = append(single, b)
			if unsettled && !b.absent && waiting && a.rounds%fullEvery == 0 {
				full = append(full, b)
			}
		case !b.whole || a.serverTime == 0 || waiting && a.rounds%fullEvery == 0:
			full = append(full, b)
		default:
			delta = append(delta, b)
		}
	}
	order := func(x, y *batch) int { return int(x.id - y.id) }
	slices.SortFunc(full, order)
	slices.SortFunc(delta, order)
	slices.SortFunc(single, order)
	return full, delta, single
}

// What query_batch2 says of a job.
const (
	statusUnsent  = "UNSENT"
	statusRunning = "IN_PROGRESS"
	statusDone    = "DONE"
	statusError   = "ERROR"
)

// changes asks for news of some batches, and notes which of them have jobs that ended.
func (a *Adapter) changes(ctx context.Context, some []*batch, since int64, ended map[*batch]bool) (float64, error) {
	var names []string
	for _, b := range some {
		names = append(names, b.record.Name)
	}
	n, err := a.c.queryChanges(ctx, names, since)
	if r, ok := errors.AsType[*reported](err); ok && (r.kind() == fail.NotFound || strings.HasPrefix(r.message, "not owner")) {
		// One name that the project does not know, or finds another's batch for, spoils
		// the question: from now on it is asked for by its id.
		a.lacking(r.message, some)
		for _, b := range some {
			ended[b] = true
		}
		return 0, nil
	}
	if err != nil {
		return 0, wrap("query_batch2", err, false)
	}
	var changed []adapters.Evidence
	var lines []entry
	a.mu.Lock()
	for _, b := range some {
		for _, j := range b.jobs {
			if j.final != nil {
				continue
			}
			status, told := n.status[a.jobName(j.record.Tag)]
			if !told {
				if since <= 0 { // in an answer that should have all
					ended[b] = true
				}
				continue
			}
			if j.status != status && status == statusRunning && j.started.IsZero() {
				lines = append(lines, a.startedNow(j)...)
			}
			if status == statusDone || status == statusError {
				ended[b] = true
			}
			if j.status != status {
				j.status = status
				changed = append(changed, a.evidence(j))
			}
		}
		if since <= 0 {
			b.whole = true
		}
	}
	a.mu.Unlock()
	if err := a.note(false, lines...); err != nil {
		return 0, err
	}
	a.publish(changed)
	return n.serverTime, nil
}

// startedNow notes that a host has taken a job.
func (a *Adapter) startedNow(j *job) []entry {
	j.started = time.Now().Truncate(time.Millisecond)
	lines := []entry{{Started: &started{j.record.Tag, j.started}}}
	if app := j.batch.record.App; !a.proven[app] {
		a.proven[app] = true
		lines = append(lines, entry{Proven: app})
	}
	return lines
}

// lacking marks the batch that a question failed for.
func (a *Adapter) lacking(message string, some []*batch) {
	name := strings.TrimPrefix(message, "not owner of ")
	if m := unknownBatch.FindStringSubmatch(message); m != nil {
		name = m[1]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	hit := false
	for _, b := range some {
		if b.record.Name == name {
			b.absent, hit = true, true
		}
	}
	if !hit { // a server that does not say which
		for _, b := range some {
			b.absent = true
		}
	}
}

// details asks for a batch's jobs and settles those that ended.
func (a *Adapter) details(ctx context.Context, b *batch) error {
	info, err := a.c.queryBatch(ctx, b.id)
	if gone(err) {
		return a.settleAll(b, "the project has no trace of the job's batch any more")
	}
	if err != nil {
		return wrap("query_batch", err, false)
	}
	byName := map[string]*jobInfo{}
	for i := range info.list {
		byName[info.list[i].name] = &info.list[i]
	}
	var good []*job
	var bad []*job
	var missing []*job
	infos := map[*job]*jobInfo{}
	var lines []entry
	var changed []adapters.Evidence
	a.mu.Lock()
	for _, j := range b.jobs {
		if j.final != nil {
			continue
		}
		i := byName[a.jobName(j.record.Tag)]
		if i == nil {
			missing = append(missing, j)
			continue
		}
		j.id, infos[j] = i.id, i
		switch {
		case i.canonical != 0 && j.cancel == nil: // even if the project calls it an error
			j.status = statusDone
			good = append(good, j)
		case len(i.errors) > 0 || i.canonical != 0:
			if j.status != statusDone {
				j.status = statusError
			}
			bad = append(bad, j)
		case i.status == "in_progress" && j.status != statusRunning:
			j.status = statusRunning
			if j.started.IsZero() {
				lines = append(lines, a.startedNow(j)...)
			}
			changed = append(changed, a.evidence(j))
		case i.status == "queued":
			j.status = statusUnsent
		}
	}
	a.mu.Unlock()
	if err := a.note(false, lines...); err != nil {
		return err
	}
	a.publish(changed)
	for _, j := range missing {
		if err := a.settle(j, &final{Phase: adapters.Lost, Reason: "the project has no trace of the job any more"}); err != nil {
			return err
		}
	}
	if err := a.settleGood(ctx, b, info, good, infos); err != nil {
		return err
	}
	for _, j := range bad {
		if err := a.settleBad(ctx, j, infos[j]); err != nil {
			return err
		}
	}
	return nil
}

// settle ends a job for good.
func (a *Adapter) settle(j *job, f *final) error {
	f.Tag = j.record.Tag
	now := time.Now().Truncate(time.Millisecond)
	if f.End.IsZero() {
		f.End = now
	}
	if !f.NotRun && f.Start.IsZero() {
		f.Start = j.started
	}
	if f.End.Before(f.Start) {
		f.End = f.Start
	}
	lines := []entry{{Final: f}}
	a.mu.Lock()
	if app := j.batch.record.App; !f.NotRun && f.Phase == adapters.Exited && !a.proven[app] {
		a.proven[app] = true
		lines = append(lines, entry{Proven: app})
	}
	a.mu.Unlock()
	a.gate.RLock()
	defer a.gate.RUnlock()
	if err := a.note(false, lines...); err != nil { // should it be lost, the project tells it again
		return err
	}
	a.mu.Lock()
	if j.final != nil {
		a.mu.Unlock()
		return nil
	}
	j.final = f
	j.batch.open--
	e := a.evidence(j)
	a.mu.Unlock()
	a.publish([]adapters.Evidence{e})
	return nil
}

func (a *Adapter) settleAll(b *batch, why string) error {
	a.mu.Lock()
	jobs := slices.Clone(b.jobs)
	a.mu.Unlock()
	for _, j := range jobs {
		if j.final == nil {
			if err := a.settle(j, &final{Phase: adapters.Lost, Reason: why}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Adapter) publish(list []adapters.Evidence) {
	for _, e := range list {
		a.feed.Publish(e)
	}
}

// giveUp notes the intent to end jobs that waited too long or passed their deadline.
func (a *Adapter) giveUp() {
	now := time.Now()
	var lines []entry
	a.mu.Lock()
	for _, j := range a.jobs {
		if j.final != nil || j.cancel != nil || j.batch.state != batchOpen {
			continue
		}
		reason := ""
		switch d := j.record.Deadline; {
		case !d.IsZero() && now.After(d):
			reason = "Deadline: the job had not ended by " + d.UTC().Format(time.RFC3339)
		case j.started.IsZero() && now.Sub(j.batch.record.At) > a.settings.Pending:
			reason = "no host took the job within " + a.settings.Pending.String() +
				": the application may have no version for the hosts in use, or none of them has the memory and disk that the job asks for"
		}
		if reason != "" {
			j.cancel = &cancelled{Tag: j.record.Tag, Reason: reason}
			lines = append(lines, entry{Cancel: j.cancel})
		}
	}
	a.mu.Unlock()
	if err := a.note(true, lines...); err != nil {
		a.log.Warn("what is given up is not remembered", "error", err)
	}
}

// maxAborted bounds the jobs of one abort_jobs.
const maxAborted = 500

// sendAborts tells the project of every intent that it has not taken yet.
func (a *Adapter) sendAborts(ctx context.Context) error {
	a.mu.Lock()
	var todo []*job
	for _, j := range a.jobs {
		if j.cancel != nil && !j.aborted && j.final == nil && j.batch.state == batchOpen {
			todo = append(todo, j)
		}
	}
	a.mu.Unlock()
	return a.abort(ctx, todo)
}

func (a *Adapter) abort(ctx context.Context, jobs []*job) error {
	slices.SortFunc(jobs, func(x, y *job) int { return strings.Compare(string(x.record.Tag), string(y.record.Tag)) })
	for some := range slices.Chunk(jobs, maxAborted) {
		var names []string
		for _, j := range some {
			names = append(names, a.jobName(j.record.Tag))
		}
		for {
			err := a.c.abortJobs(ctx, names)
			if r, ok := errors.AsType[*reported](err); ok && strings.HasPrefix(r.message, "no job ") {
				// Those before it are aborted; what the project does not know shows
				// when the batch is asked for.
				i := slices.Index(names, strings.TrimPrefix(r.message, "no job "))
				if i < 0 || len(names) == 1 {
					break
				}
				names = slices.Delete(names, i, i+1)
				continue
			}
			if err != nil {
				return wrap("abort_jobs", err, false)
			}
			break
		}
		a.mu.Lock()
		for _, j := range some {
			j.aborted = true
		}
		a.mu.Unlock()
	}
	return nil
}

// sweepEvery is how often batches are looked for that came to nothing.
const sweepEvery = time.Hour

// sweep retires batches of this gateway that never got jobs: what a lost answer to
// create_batch left behind.
func (a *Adapter) sweep(ctx context.Context) {
	a.mu.Lock()
	due := time.Since(a.swept) > sweepEvery
	if due {
		a.swept = time.Now()
	}
	a.mu.Unlock()
	if !due {
		return
	}
	list, err := a.c.queryBatches(ctx)
	if err != nil {
		return
	}
	old := time.Now().Add(-2*a.settings.Settle - a.settings.Timeout).Unix()
	for _, info := range list {
		a.mu.Lock()
		known := a.byID[info.id] != nil
		a.mu.Unlock()
		if known || info.state != stateInit || info.jobs != 0 || info.created > old || !strings.HasPrefix(info.name, a.settings.Prefix+"_") {
			continue
		}
		if err := a.c.retireBatch(ctx, info.id); err != nil {
			a.log.Warn("an empty batch stays at the project", "batch", info.name, "error", bare(err))
			return
		}
	}
}
