package slurm

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Find gives the handles of the tags that were placed. A tag whose submission had no
// answer is looked for at Slurm by its batch's name. If it is not there, and Slurm has
// had the time to work off what it had received, the tag is withdrawn: a job of it that
// turns up later after all finds that in its directory, and runs nothing.
func (a *Adapter) Find(ctx context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	found := map[adapters.Tag]adapters.Handle{}
	doubtful := map[*batch]bool{}
	for _, tag := range tags {
		if tag.Validate() != nil {
			continue
		}
		if err := a.settledSoon(ctx, tag); err != nil {
			return nil, fail.Errorf("slurm.Find", fail.Unavailable, string(tag), "%s", fail.Sentence(err))
		}
		a.mu.Lock()
		m := a.members[tag]
		switch {
		case m == nil:
		case m.batch.settled() || m.begun != nil || m.evidence.Phase.Final():
			found[tag] = handleOf(tag)
		default:
			doubtful[m.batch] = true
		}
		a.mu.Unlock()
	}
	if len(doubtful) == 0 {
		return found, nil
	}
	for b := range doubtful {
		if err := a.resolve(ctx, b); err != nil {
			return nil, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, tag := range tags {
		if a.members[tag] != nil {
			found[tag] = handleOf(tag)
		}
	}
	return found, nil
}

// calm is how long Slurm must have answered without a break before its silence about a
// job means anything: when a hung controller wakes up it answers questions and works off
// what it received at the same time.
const calm = 2 * time.Second

// resolve finds out whether a batch was taken.
func (a *Adapter) resolve(ctx context.Context, b *batch) error {
	if _, err := a.manager(); err != nil {
		return err
	}
	a.mu.Lock()
	began, window := b.record.Began, 10*time.Second
	if a.facts != nil && a.facts.MessageTimeout > 0 {
		window = a.facts.MessageTimeout
	}
	a.mu.Unlock()
	asked := time.Now()
	records, _, err := a.queue.get(ctx, 0, a.askQueue)
	if err == nil {
		records, err = a.andPast(ctx, b, records)
	}
	if err != nil {
		return unavailable("slurm.Find", b.name, err)
	}
	for i := range records {
		if records[i].Name == b.name {
			a.settle(b, records[i].ID.Job)
			return nil
		}
	}
	if job, ok := a.whoBegan(b); ok {
		a.settle(b, job)
		return nil
	}
	a.mu.Lock()
	since := a.health.Since
	a.mu.Unlock()
	// It may still be on its way through a controller that hangs.
	if wait := max(began.Add(window).Sub(asked), since.Add(calm).Sub(asked), b.doubt.Add(calm).Sub(asked)); wait > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(min(wait, calm)):
		}
		return fail.Errorf("slurm.Find", fail.Unavailable, b.name, "Slurm does not know the job, but may still be about to take it; ask again in a few seconds")
	}
	if job, ok := a.withdraw(b); ok { // it began in this moment
		a.settle(b, job)
		return nil
	}
	a.drop(b)
	for _, tag := range b.tags {
		if err := a.spool.discard(string(a.spool.job(tag))); err != nil {
			a.log.Warn("a job that was withdrawn leaves files behind", "tag", tag, "error", err)
		}
	}
	return a.spool.removeBatch(b.name)
}

func unavailable(op, subject string, err error) error {
	if e, ok := errors.AsType[*fail.Error](err); ok {
		return e
	}
	return fail.Errorf(op, fail.Unavailable, subject, "Slurm could not be asked in time").Because(err)
}

// andPast adds what accounting knows of a batch that the controller may have forgotten.
func (a *Adapter) andPast(ctx context.Context, b *batch, records []record) ([]record, error) {
	for i := range records {
		if records[i].Name == b.name {
			return records, nil
		}
	}
	way, err := a.manager()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	accounting := a.facts != nil && a.facts.Accounting
	a.mu.Unlock()
	if !accounting {
		return records, nil
	}
	past, err := way.past(ctx, []string{b.name}, b.record.Began.Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	return append(past, records...), nil
}

// whoBegan gives the job that has begun one of the batch's members.
func (a *Adapter) whoBegan(b *batch) (int64, bool) {
	for _, tag := range b.tags {
		s, err := a.spool.job(tag).begun()
		if err == nil && s != nil && !s.Withdrawn {
			job, err := strconv.ParseInt(s.Job, 10, 64)
			return job, err == nil && job > 0
		}
	}
	return 0, false
}

// withdraw sees to it that nobody begins any member of the batch, unless somebody has.
func (a *Adapter) withdraw(b *batch) (job int64, begun bool) {
	for _, tag := range b.tags {
		if !a.spool.job(tag).withdraw() {
			if job, ok := a.whoBegan(b); ok {
				return job, true
			}
		}
	}
	return 0, false
}

// withdraw sees to it that nobody begins the job any more. It gives false if somebody
// has begun it, or may have.
func (d jobDir) withdraw() bool {
	data, err := json.Marshal(begun{Version: specVersion, Withdrawn: true, Started: time.Now()})
	if err != nil {
		return false
	}
	err = create(d.path(nameStart), data)
	if err == nil {
		return true
	}
	if errors.Is(err, fs.ErrNotExist) {
		_, err := os.Lstat(string(d))
		return errors.Is(err, fs.ErrNotExist) // without its directory nobody begins it
	}
	if errors.Is(err, fs.ErrExist) {
		before, err := d.begun()
		return err == nil && before != nil && before.Withdrawn
	}
	return false
}
