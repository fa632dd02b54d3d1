package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// usagePrefix begins the keys of what replicas know of use: usage/REPLICA/PART.
const usagePrefix = "usage/"

// usageInterval is how often what was used is written down, and what others wrote is
// read.
const usageInterval = time.Minute

// mostLedger bounds one part of a ledger, in bytes.
const mostLedger = 64 << 10

// halfLives gives what the policies in force and in shadow look back.
func halfLives(p *schedule.Policies) []time.Duration {
	var out []time.Duration
	add := func(k policy.Kind, s policy.Setting) {
		if h, ok := s.Complete(k).Parameters["halfLife"]; ok && len(out) < policy.MaxHalfLives-1 {
			out = append(out, time.Duration(h*float64(time.Second)))
		}
	}
	for _, scopes := range []map[schedule.Scope]map[policy.Kind]policy.Setting{p.InForce, p.Shadow} {
		for _, kinds := range scopes {
			for k, s := range kinds {
				add(k, s)
			}
		}
	}
	add(policy.Scheduling, policy.Setting{Name: "fairshare"})
	slices.Sort(out)
	return slices.Compact(out)
}

// usagePart names our own record.
func (b *Broker) usagePart(i int) string {
	return fmt.Sprintf("%s%s/%04d", usagePrefix, store.Segment(b.cfg.Replica), i)
}

// putParts writes down what is kept in parts. Parts of before that are not needed any
// more go.
func (b *Broker) putParts(ctx context.Context, sess store.Session, key func(int) string, parts [][]byte) error {
	for i, p := range parts {
		if _, err := b.cfg.Store.PutRecords(ctx, sess, store.RecordChange{Key: key(i), Value: p, If: -1}); err != nil {
			return err
		}
	}
	for i := len(parts); ; i++ {
		recs, _, err := b.cfg.Store.ListRecords(ctx, key(i), store.RecordOptions{Limit: 1})
		if err != nil || len(recs) == 0 {
			return err
		}
		if _, err := b.cfg.Store.PutRecords(ctx, sess, store.RecordChange{Key: recs[0].Key, If: -1}); err != nil && !fail.Is(err, fail.Conflict) {
			return err
		}
	}
}

// readUsage gives what the other replicas wrote down, and what we did.
func (b *Broker) readUsage(ctx context.Context, keep []time.Duration) (others, own *policy.Ledger, err error) {
	if others, err = policy.NewLedger(keep...); err != nil {
		return nil, nil, err
	}
	if own, err = policy.NewLedger(keep...); err != nil {
		return nil, nil, err
	}
	recs, _, err := b.cfg.Store.ListRecords(ctx, usagePrefix, store.RecordOptions{})
	if err != nil {
		return nil, nil, err
	}
	mine := usagePrefix + store.Segment(b.cfg.Replica) + "/"
	for _, r := range recs {
		l, err := policy.DecodeLedger(r.Value)
		if err != nil {
			b.cfg.Log.Warn("a record of what was used can't be read and is left out", "record", r.Key, "cause", err)
			continue
		}
		if strings.HasPrefix(r.Key, mine) {
			own.Merge(l)
		} else {
			others.Merge(l)
		}
	}
	return others, own, nil
}

// setUsage gives the scheduler what all used; the caller holds the lock.
func (b *Broker) setUsage() error {
	keep := halfLives(&b.policies.Policies)
	sum, err := policy.NewLedger(keep...)
	if err != nil {
		return err
	}
	for _, l := range []*policy.Ledger{b.others, b.own} {
		if err := l.Keep(keep...); err != nil {
			return err
		}
		sum.Merge(l)
	}
	sum.SetShares(b.cfg.Shares)
	b.sched.SetUsage(sum)
	return nil
}

// usageLoop writes down what was used and reads what others wrote.
func (b *Broker) usageLoop(ctx context.Context, sess store.Session) error {
	t := time.NewTicker(usageInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := b.shareUsage(ctx, sess); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("what was used could not be written down or read; it is tried again", "cause", err)
		}
		if err := b.keepLearned(ctx, sess, time.Now()); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("what was learned of the sites could not be written down; it is tried again", "cause", err)
		}
	}
}

func (b *Broker) shareUsage(ctx context.Context, sess store.Session) error {
	b.mu.Lock()
	used := b.used
	b.used = false
	parts, err := b.own.Encode(mostLedger)
	keep := halfLives(&b.policies.Policies)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	if used {
		if err := b.putParts(ctx, sess, b.usagePart, parts); err != nil {
			b.mu.Lock()
			b.used = true
			b.mu.Unlock()
			return err
		}
	}
	if b.cfg.Alone {
		return nil
	}
	others, _, err := b.readUsage(ctx, keep)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.others = others
	return b.setUsage()
}
