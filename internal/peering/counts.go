package peering

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/handover"
)

// countPrefix begins the records of how many jobs went between us and a domain.
const countPrefix = "peers/counts/" // DOMAIN: counted

// counted is how many jobs went, all that ever did. It is written once a minute and at an
// ordered end: who dies between loses count of the last ones.
type counted struct {
	Given int64 `json:"given,omitempty"`
	Taken int64 `json:"taken,omitempty"`

	changed bool
}

// Counts are the jobs that go between this domain and a peer.
type Counts struct {
	GivenLive, TakenLive int   // that have not ended
	Given, Taken         int64 // all, whichever replica was the engine
}

// tellCount has it told that the number of a peer's jobs here is another than before the step; the
// caller holds the lock.
func (e *Engine) tellCount(before, after *handover.Job) {
	if e.o.Recount == nil {
		return
	}
	of := func(j *handover.Job) string {
		if j == nil || j.Taken == nil || !live(j) {
			return ""
		}
		return j.Taken.From
	}
	was, is := of(before), of(after)
	if was == is {
		return
	}
	for _, domain := range []string{was, is} {
		if domain != "" {
			e.o.Recount(domain)
		}
	}
}

// Counts counts the jobs given to peers and taken of them, by domain. It looks at all jobs.
func (e *Engine) Counts() map[string]Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]Counts{}
	for domain, n := range e.counted {
		out[domain] = Counts{Given: n.Given, Taken: n.Taken}
	}
	for domain, n := range e.here {
		c := out[domain]
		c.TakenLive = n
		out[domain] = c
	}
	for _, x := range e.jobs {
		if j := x.job; j != nil && j.Phase == handover.Given {
			c := out[j.Gave.To]
			c.GivenLive++
			out[j.Gave.To] = c
		}
	}
	return out
}

// TakenOf counts the jobs of a domain that are here and have not ended.
func (e *Engine) TakenOf(domain string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.here[domain]
}

// tally counts what a step began; the caller holds the lock.
func (e *Engine) tally(before, after *handover.Job) {
	if after == nil {
		return
	}
	if t := after.Taken; t != nil && !t.Refused && (before == nil || before.Taken == nil || before.Taken.Token != t.Token) {
		n := e.countOf(t.From)
		n.Taken++
		n.changed = true
	}
	if accepted(after) && !(accepted(before) && before.Gave.Token == after.Gave.Token) {
		n := e.countOf(after.Gave.To)
		n.Given++
		n.changed = true
	}
}

func accepted(j *handover.Job) bool { return j != nil && j.Gave != nil && j.Gave.Accepted }

func (e *Engine) countOf(domain string) *counted {
	n := e.counted[domain]
	if n == nil {
		n = &counted{}
		e.counted[domain] = n
	}
	return n
}

// loadCounts reads how many jobs there were.
func (e *Engine) loadCounts(t *term) (map[string]*counted, error) {
	out := map[string]*counted{}
	for after := ""; ; {
		recs, _, err := e.o.Store.ListRecords(t.ctx, countPrefix, store.RecordOptions{After: after, Limit: 1000})
		if err != nil {
			return nil, err
		}
		for _, r := range recs {
			after = r.Key
			n := &counted{}
			domain, ok := store.Text(strings.TrimPrefix(r.Key, countPrefix))
			if !ok || json.Unmarshal(r.Value, n) != nil {
				e.o.Log.Warn("how many jobs went to and fro can't be read; it is counted anew", "record", r.Key)
				continue
			}
			out[domain] = n
		}
		if len(recs) < 1000 {
			return out, nil
		}
	}
}

// saveCounts writes what changed.
func (e *Engine) saveCounts(ctx context.Context, t *term) error {
	var changes []store.RecordChange
	e.mu.Lock()
	for domain, n := range e.counted {
		if !n.changed {
			continue
		}
		value, err := json.Marshal(n)
		if err != nil {
			e.mu.Unlock()
			return err
		}
		n.changed = false
		changes = append(changes, store.RecordChange{Key: countPrefix + store.Segment(domain), Value: value, If: -1})
	}
	e.mu.Unlock()
	for len(changes) > 0 {
		n := min(len(changes), store.MaxTransaction)
		if _, err := e.o.Store.PutRecords(ctx, t.session, changes[:n]...); err != nil {
			e.recount(changes)
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// recount has what was not written be written the next time.
func (e *Engine) recount(changes []store.RecordChange) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range changes {
		if domain, ok := store.Text(strings.TrimPrefix(c.Key, countPrefix)); ok {
			if n := e.counted[domain]; n != nil {
				n.changed = true
			}
		}
	}
}
