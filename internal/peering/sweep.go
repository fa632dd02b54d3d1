package peering

import (
	"context"
	"encoding/json"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

const (
	// sweepInterval is how often records are looked for that are not needed any more.
	sweepInterval = time.Minute
	// keptInterval is the same of those that tell where output is.
	keptInterval = time.Hour
	// strayTime is how long the record is kept of a job that the store does not know.
	strayTime = time.Hour
	// mostSwept bounds the jobs that the store is asked about at once.
	mostSwept = 500
)

// sweepLoop drops what is not needed any more: own jobs that have ended in the broker, and
// where the output of jobs of peers is, after a while.
func (e *Engine) sweepLoop(t *term) error {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	var swept time.Time
	for {
		select {
		case <-t.ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := e.saveCounts(t.ctx, t); err != nil && t.ctx.Err() == nil {
			e.o.Log.Debug("how many jobs went to and fro can't be written now", "cause", err)
		}
		if err := e.sweep(t); err != nil && t.ctx.Err() == nil {
			e.o.Log.Debug("it can't be seen now which jobs have ended", "cause", err)
		}
		if time.Since(swept) < keptInterval {
			continue
		}
		if err := e.sweepKept(t); err != nil && t.ctx.Err() == nil {
			e.o.Log.Debug("old records of output can't be removed now", "cause", err)
			continue
		}
		swept = time.Now()
	}
}

// sweep drops the records of own jobs that no peer has and that have ended.
func (e *Engine) sweep(t *term) error {
	e.mu.Lock()
	var ids []string
	for k, x := range e.jobs {
		if x.job != nil && !x.taken() && x.job.Phase != handover.Given && k.Origin == e.o.Domain && !x.flying && x.dirty == handover.SaveNothing {
			ids = append(ids, k.ID)
		}
	}
	e.mu.Unlock()
	for len(ids) > 0 {
		some := ids[:min(len(ids), mostSwept)]
		ids = ids[len(some):]
		recs, err := e.o.Store.Get(t.ctx, some...)
		if err != nil {
			return err
		}
		e.mu.Lock()
		for _, id := range some {
			x := e.jobs[handover.Key{Origin: e.o.Domain, ID: id}]
			rec, there := recs[id]
			if there && !rec.Status.Final || x == nil || x.job == nil || x.job.Phase == handover.Given || x.dirty != handover.SaveNothing || x.flying {
				continue
			}
			if !there && (x.Final == nil || time.Since(x.Final.Ended) < strayTime) {
				continue // its submission is on the way, or the store is behind
			}
			e.drop(x)
		}
		e.mu.Unlock()
	}
	return nil
}

// sweepKept removes where the output is of jobs that are over for long.
func (e *Engine) sweepKept(t *term) error {
	for after := ""; ; {
		recs, _, err := e.o.Store.ListRecords(t.ctx, keptPrefix, store.RecordOptions{After: after, Limit: 1000})
		if err != nil {
			return err
		}
		var gone []store.RecordChange
		for _, r := range recs {
			after = r.Key
			var k keptRecord
			if json.Unmarshal(r.Value, &k) != nil || time.Now().After(k.Until) {
				gone = append(gone, store.RecordChange{Key: r.Key, If: -1})
			}
		}
		for len(gone) > 0 {
			n := min(len(gone), store.MaxTransaction)
			if _, err := e.o.Store.PutRecords(t.ctx, t.session, gone[:n]...); err != nil {
				return err
			}
			gone = gone[n:]
		}
		if len(recs) < 1000 {
			return nil
		}
	}
}

// kept gives the broker's name of a job whose record is gone.
func (e *Engine) kept(ctx context.Context, from string, m *wire.Read) (string, error) {
	none := fail.Errorf("peering.read", fail.NotFound, m.Origin+"/"+m.ID, "the output of the job is not kept here, or the job was never here under this token")
	key := keptPrefix + keyPath(keyOf(m.About))
	recs, _, err := e.o.Store.ListRecords(ctx, key, store.RecordOptions{Limit: 1})
	if err != nil {
		return "", err
	}
	var k keptRecord
	if len(recs) == 0 || recs[0].Key != key || json.Unmarshal(recs[0].Value, &k) != nil || k.From != from || string(k.Token) != m.Token {
		return "", none
	}
	return k.Activity, nil
}
