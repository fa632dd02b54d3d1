package broker

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/store"
)

// EvidenceKind is what a line of a promised job's history means for what is promised.
type EvidenceKind string

// The kinds. What is none of them is told as Other, so that nothing is missing.
const (
	EvidenceSubmitted EvidenceKind = "submitted"
	EvidenceStarted   EvidenceKind = "started"
	EvidenceSuspended EvidenceKind = "suspended" // it was started, and is kept from going on
	EvidenceResumed   EvidenceKind = "resumed"   // it goes on
	EvidenceLost      EvidenceKind = "lost"      // its place is lost, and it waits for another
	EvidenceEnded     EvidenceKind = "ended"     // it is final: see Outcome
	EvidenceDanger    EvidenceKind = "danger"    // the broker acts so that the promise holds: see Reason
	EvidenceOther     EvidenceKind = "other"
)

// Evidence is one line of the history of a promised job. It is in the store before it is told.
type Evidence struct {
	Job       string
	Name      string // the SubmissionID that it was submitted with, within its agreement
	Owner, VO string
	Promise   Promise // as it is now
	Sequence  int     // of the line: grows by one from 1, for each job
	Kind      EvidenceKind
	At        time.Time // when it happened, as far as is known
	Event     string    // the history's word
	Site      string
	Attempt   int
	Reason    string
	// Of EvidenceEnded:
	Outcome    bes.State // bes.Finished, bes.Failed or bes.Cancelled
	ExitStatus *int      // nil where the program did not end by itself
	Signal     string
	Success    bool      // the program ended by itself with exit status 0
	Started    time.Time // zero: it never ran
}

// follow is one who follows promised jobs. Broker.mu guards it.
type follow struct {
	wake    chan struct{}
	pending map[string]bool // jobs of which there may be news
	fresh   bool            // there may be some of all
}

// mostEnded bounds the jobs that ended of which one who follows remembers that they were told.
const mostEnded = 4096

// Follow begins to follow what happens to promised jobs, until ctx ends; what happens from now on is told once tell
// runs. That calls emit with it, line by line, in order for each job, until ctx ends, when it gives nil, or emit gives
// an error, which it gives. It begins with all that the store has of the live ones and of those that after names: of
// these, behind the line named. Whoever keeps for each job the last Sequence that it made use of, and the ids of jobs
// whose end it has not heard of, and asks SubmitPromised again for those whose ids it has not kept yet, misses nothing
// whatever dies when; a line may be told again. A slow emit costs no memory beyond a name for each job.
func (b *Broker) Follow(ctx context.Context, after map[string]int) (tell func(emit func([]Evidence) error) error) {
	f := &follow{wake: make(chan struct{}, 1), pending: map[string]bool{}}
	for id := range after {
		f.pending[id] = true
	}
	b.mu.Lock()
	b.follows[f] = struct{}{}
	for id := range b.promised {
		f.pending[id] = true
	}
	b.mu.Unlock()
	nudge(f.wake)
	cursors := map[string]int{}
	maps.Copy(cursors, after)
	gone := context.AfterFunc(ctx, func() { b.unfollow(f) })
	return func(emit func([]Evidence) error) error {
		defer gone()
		defer b.unfollow(f)
		return b.tell(ctx, f, cursors, emit)
	}
}

func (b *Broker) unfollow(f *follow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.follows, f)
}

// tell tells one who follows what there is, and what comes.
func (b *Broker) tell(ctx context.Context, f *follow, cursors map[string]int, emit func([]Evidence) error) error {
	var ended []string
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
		b.mu.Lock()
		if f.fresh {
			f.fresh = false
			for id := range cursors {
				f.pending[id] = true
			}
		}
		ids := slices.Sorted(maps.Keys(f.pending))
		clear(f.pending)
		b.mu.Unlock()
		for len(ids) > 0 {
			batch := ids[:min(len(ids), mostFollowed)]
			news, err := b.evidence(ctx, batch, cursors)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // what fails while stopping is no failure
			}
			if err != nil {
				b.cfg.Log.Debug("the history of promised jobs can't be read now; it is tried again", "cause", err)
				failures++
				if !sleep(ctx, b.cfg.Retry.backoff(failures, b.cfg.Jitter())) {
					return nil
				}
				continue
			}
			failures, ids = 0, ids[len(batch):]
			if len(news) == 0 {
				continue
			}
			if err := emit(news); err != nil {
				return err
			}
			for i := range news {
				if cursors[news[i].Job] = news[i].Sequence; news[i].Kind == EvidenceEnded {
					ended = append(ended, news[i].Job)
				}
			}
			if over := len(ended) - mostEnded; over > 0 {
				for _, id := range ended[:over] {
					delete(cursors, id) // nothing follows, and nobody speaks of it any more
				}
				ended = slices.Delete(ended, 0, over)
			}
		}
	}
}

// mostFollowed bounds the jobs whose histories are read for one call of emit.
const mostFollowed = 256

// evidence reads what is new of jobs.
func (b *Broker) evidence(ctx context.Context, ids []string, cursors map[string]int) ([]Evidence, error) {
	recs, err := b.cfg.Store.Get(ctx, ids...)
	if err != nil {
		return nil, err
	}
	var out []Evidence
	for _, id := range ids {
		rec, ok := recs[id]
		if !ok || rec.Status.Promise == nil {
			continue
		}
		after := cursors[id]
		if rec.Status.Sequence <= after {
			continue
		}
		lines, err := b.cfg.Store.History(ctx, id, max(0, after-1))
		if err != nil {
			return nil, err
		}
		before := Phase("")
		for i := range lines {
			l := &lines[i]
			if l.Sequence > rec.Status.Sequence {
				break // written since: it comes with the record that has it
			}
			if l.Sequence > after {
				out = append(out, evidenceOf(&rec, before, l))
			}
			before = Phase(l.Phase)
		}
	}
	return out, nil
}

// evidenceOf tells one line, which came in a phase.
func evidenceOf(rec *store.Job, before Phase, l *store.Event) Evidence {
	st := &rec.Status
	e := Evidence{
		Job: rec.ID, Name: strings.TrimPrefix(rec.SubmissionID, PromisePrefix+st.Promise.Agreement+"/"), Owner: rec.Owner, VO: st.VO, Promise: *st.Promise, Sequence: l.Sequence, Kind: kindOfLine(before, Phase(l.Phase), Event(l.Event)),
		At: l.Time, Event: l.Event, Site: l.Site, Attempt: l.Attempt, Reason: l.Reason,
	}
	if e.Kind == EvidenceEnded {
		e.Outcome, e.ExitStatus, e.Signal, e.Started = Phase(st.Phase).State(), st.ExitStatus, st.Signal, st.Started
		e.Success = Phase(st.Phase) == Finished && st.Signal == "" && st.ExitStatus != nil && *st.ExitStatus == 0
	}
	return e
}

// kindOfLine says what a step means for a promise.
func kindOfLine(before, after Phase, e Event) EvidenceKind {
	ran := before == Suspended || before == Resuming
	switch {
	case after.Final():
		return EvidenceEnded
	case e == Accepted:
		return EvidenceSubmitted
	case e == Pressed || e == Loosened:
		return EvidenceDanger
	case after == Running && ran:
		return EvidenceResumed
	case after == Running && before != Running:
		return EvidenceStarted
	case after == Suspended && before == Running:
		return EvidenceSuspended
	case (after == Requeued || after == Withheld) && before.atSite():
		return EvidenceLost
	}
	return EvidenceOther
}

// followed tells who follows that there may be news of a promised job; the caller holds the lock.
func (b *Broker) followed(id string) {
	for f := range b.follows {
		f.pending[id] = true
		nudge(f.wake)
	}
}

// refollow has who follows look at all jobs again, after everything was read anew: some may have ended
// meanwhile. The caller holds the lock.
func (b *Broker) refollow() {
	for f := range b.follows {
		f.fresh = true
		for id := range b.promised {
			f.pending[id] = true
		}
		nudge(f.wake)
	}
}
