package boinc

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// Find gives the handles of tags that are placed. What is remembered is asked of the
// project where it is in doubt; tags that nothing is remembered of are looked for in
// the account's batches.
func (a *Adapter) Find(ctx context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	found := map[adapters.Tag]adapters.Handle{}
	var unknown []adapters.Tag
	for _, tag := range tags {
		if tag.Validate() != nil {
			continue
		}
		a.mu.Lock()
		placing := a.placing[tag]
		a.mu.Unlock()
		if placing != nil { // it is being placed just now: wait for what becomes of it
			select {
			case <-placing:
			case <-ctx.Done():
				return nil, wrap("find", ctx.Err(), false)
			}
		}
		h, err := a.placed(ctx, tag)
		if err != nil {
			return nil, err
		}
		if h == nil {
			unknown = append(unknown, tag)
			continue
		}
		found[tag] = h
	}
	if len(unknown) == 0 {
		return found, nil
	}
	adopted, err := a.adopt(ctx, unknown)
	if err != nil {
		return nil, err
	}
	maps.Copy(found, adopted)
	return found, nil
}

// placed gives the handle of a tag that is remembered, once it is sure that the
// project has it; nil when it is not remembered.
func (a *Adapter) placed(ctx context.Context, tag adapters.Tag) (adapters.Handle, error) {
	a.mu.Lock()
	j := a.jobs[tag]
	if j == nil {
		a.mu.Unlock()
		return nil, nil
	}
	b, open := j.batch, j.batch.state == batchOpen
	a.mu.Unlock()
	if !open {
		if err := a.resolve(ctx, b); err != nil {
			return nil, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if j = a.jobs[tag]; j == nil {
		return nil, nil
	}
	return a.handleOf(j), nil
}

// adopt looks for jobs that nothing is remembered of in the batches of the account
// that bear the gateway's prefix and are not known.
func (a *Adapter) adopt(ctx context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	list, err := a.c.queryBatches(ctx)
	if err != nil {
		return nil, wrap("query_batches", err, false)
	}
	for _, info := range list {
		if !strings.HasPrefix(info.name, a.settings.Prefix+"_") || info.jobs == 0 {
			continue
		}
		a.mu.Lock()
		known := a.byID[info.id] != nil
		a.mu.Unlock()
		if known {
			continue
		}
		if err := a.takeIn(ctx, info.id); err != nil {
			return nil, err
		}
	}
	found := map[adapters.Tag]adapters.Handle{}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, tag := range tags {
		if j := a.jobs[tag]; j != nil && j.batch.state == batchOpen {
			found[tag] = a.handleOf(j)
		}
	}
	return found, nil
}

// takeIn remembers a batch that is found at the project.
func (a *Adapter) takeIn(ctx context.Context, id int64) error {
	info, err := a.c.queryBatch(ctx, id)
	if gone(err) {
		return nil
	}
	if err != nil {
		return wrap("query_batch", err, false)
	}
	if info.state == stateRetired || len(info.list) == 0 {
		return nil
	}
	record := &batchRecord{Name: info.name, App: a.settings.Wrapper, At: time.Unix(info.created, 0), Adopted: id}
	for _, j := range info.list {
		tag, ours := strings.CutPrefix(j.name, a.settings.Prefix+"_")
		if !ours || adapters.Tag(tag).Validate() != nil {
			return nil //nolint:nilerr // not a batch of this adapter's
		}
		record.Jobs = append(record.Jobs, jobRecord{Tag: adapters.Tag(tag), Quorum: 1})
	}
	a.mu.Lock()
	if a.byID[id] != nil || a.batches[info.name] != nil {
		a.mu.Unlock()
		return nil
	}
	for _, j := range record.Jobs {
		if a.jobs[j.Tag] != nil {
			a.mu.Unlock()
			return nil // names are unique: what is known is there already
		}
	}
	a.addBatch(record)
	a.mu.Unlock()
	return a.note(true, entry{Batch: record})
}
