package broker

import (
	"context"
	"encoding/json"
	"maps"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// policyKey is the record of what is in force and who changed it.
const policyKey = "policies/current"

// policyRecord is what it holds. It is never changed in place.
type policyRecord struct {
	Policies schedule.Policies `json:"policies"`
	Changes  []PolicyChange    `json:"changes,omitempty"` // the newest first
	revision int64             // of the record; 0: there is none
}

// Policies tells what is in force.
func (b *Broker) Policies(ctx context.Context) (*PolicyView, error) {
	if _, err := b.caller(ctx, "broker.Policies", Submit); err != nil {
		return nil, err
	}
	select {
	case <-b.ready:
	default:
		return nil, errStarting
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.policies
	return &PolicyView{Policies: &p.Policies, Catalogue: policy.Catalogue(), Changes: p.Changes}, nil
}

// SetPolicy puts a setting in force, or in shadow.
func (b *Broker) SetPolicy(ctx context.Context, scope schedule.Scope, kind policy.Kind, set *policy.Setting, shadow bool) error {
	const op = "broker.SetPolicy"
	who, err := b.caller(ctx, op, Manage)
	if err != nil {
		return err
	}
	select {
	case <-b.ready:
	default:
		return errStarting
	}
	if !scope.Valid() || len(scope) > 512 {
		return fail.Errorf(op, fail.Invalid, string(scope), "there is no scope %q: gateway, vo:NAME and queue:NAME are scopes", scope)
	}
	if set != nil {
		if err := set.Check(kind); err != nil {
			return err
		}
		if kind == policy.Replication && shadow {
			return fail.Errorf(op, fail.Unsupported, set.Name, "what is in shadow is compared by where waiting jobs would go, and replication decides nothing about those: put %s in force, in a scope that is narrow enough to try it", set.Name)
		}
	}
	for tries := 0; ; tries++ {
		before, err := b.readPolicies(ctx)
		if err != nil {
			return err
		}
		after, changed, err := before.with(PolicyChange{At: time.Now().UTC().Round(0), Who: who.Name, Scope: scope, Kind: kind, After: set, Shadow: shadow})
		if err != nil || !changed {
			return err
		}
		if _, err := schedule.New(schedule.Options{Places: schedule.NewPlaces(resourcemodel.Empty()), Catalogue: b.cfg.Catalogue, Policies: &after.Policies}); err != nil {
			return err
		}
		value, err := json.Marshal(after)
		if err != nil {
			return fail.E(op, fail.Internal, "", err)
		}
		revision, err := b.cfg.Store.PutRecords(ctx, nil, store.RecordChange{Key: policyKey, Value: value, If: before.revision})
		if fail.Is(err, fail.Conflict) && tries < 10 {
			continue // another changed something meanwhile
		}
		if err != nil {
			return err
		}
		after.revision = revision
		c := after.Changes[0]
		b.cfg.Log.Info("a policy was changed", "who", c.Who, "scope", c.Scope, "kind", c.Kind, "before", said(c.Before), "after", said(c.After), "shadow", c.Shadow)
		b.adoptPolicies(after)
		return nil
	}
}

// said writes a setting for the log.
func said(s *policy.Setting) string {
	if s == nil {
		return "none"
	}
	return s.String()
}

// maxScopes bounds the scopes that have policies of their own.
const maxScopes = 1000

// with gives the record after a change; false when it changes nothing.
func (r *policyRecord) with(c PolicyChange) (*policyRecord, bool, error) {
	next := &policyRecord{Policies: r.Policies}
	side := &next.Policies.InForce
	if c.Shadow {
		side = &next.Policies.Shadow
	}
	all := maps.Clone(*side)
	if all == nil {
		all = map[schedule.Scope]map[policy.Kind]policy.Setting{}
	}
	kinds := maps.Clone(all[c.Scope])
	if old, ok := kinds[c.Kind]; ok {
		c.Before = &old
	}
	switch {
	case c.Before == nil && c.After == nil, c.Before != nil && c.After != nil && c.Before.Equal(*c.After):
		return r, false, nil
	case c.After == nil:
		delete(kinds, c.Kind)
	default:
		if kinds == nil {
			kinds = map[policy.Kind]policy.Setting{}
		}
		kinds[c.Kind] = *c.After
	}
	if all[c.Scope] = kinds; len(kinds) == 0 {
		delete(all, c.Scope)
	}
	if len(all) > maxScopes {
		return nil, false, fail.Errorf("broker.SetPolicy", fail.Exhausted, string(c.Scope), "%d scopes have policies of their own, as many as may; take some away first", maxScopes)
	}
	*side = all
	next.Policies.Revision = r.Policies.Revision + 1
	next.Changes = append([]PolicyChange{c}, r.Changes[:min(len(r.Changes), MaxPolicyChanges-1)]...)
	return next, true, nil
}

// readPolicies gives what the store has.
func (b *Broker) readPolicies(ctx context.Context) (*policyRecord, error) {
	recs, _, err := b.cfg.Store.ListRecords(ctx, policyKey, store.RecordOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(recs) == 0 {
		return &policyRecord{}, nil
	}
	return decodePolicies(recs[0])
}

func decodePolicies(r store.Record) (*policyRecord, error) {
	p := &policyRecord{revision: r.Revision}
	if r.Value == nil {
		return p, nil
	}
	if err := json.Unmarshal(r.Value, p); err != nil {
		return nil, fail.Errorf("broker.Policies", fail.Internal, policyKey, "the record of the policies can't be read: it is of another version, or damaged").Because(err)
	}
	return p, nil
}

// adoptPolicies lets the next decision obey what is newer than what is in force.
func (b *Broker) adoptPolicies(p *policyRecord) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.revision <= b.policies.revision {
		return
	}
	b.policies = p
	if err := b.sched.SetPolicies(&p.Policies); err != nil {
		b.cfg.Log.Error("the policies in force can't be used here; those before decide on", "cause", err)
		return
	}
	if err := b.setUsage(); err != nil {
		b.cfg.Log.Error("what was used can't be reckoned for the policies", "cause", err)
	}
	nudge(b.wakeDispatch)
}

// policyLoop hears of changes that other replicas made.
func (b *Broker) policyLoop(ctx context.Context) error {
	for failures := 0; ; failures++ {
		_, revision, err := b.cfg.Store.ListRecords(ctx, policyKey, store.RecordOptions{Limit: 1})
		if err == nil {
			var p *policyRecord
			if p, err = b.readPolicies(ctx); err == nil {
				b.adoptPolicies(p)
				began := time.Now()
				err = b.cfg.Store.WatchRecords(ctx, policyKey, revision, func(recs []store.Record, _ int64) {
					for _, r := range recs {
						p, err := decodePolicies(r)
						if err != nil {
							b.cfg.Log.Error("a change of the policies is left out", "cause", err)
							continue
						}
						b.adoptPolicies(p)
					}
				})
				if time.Since(began) > time.Minute {
					failures = 0
				}
			}
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what fails while stopping is no failure
		}
		b.cfg.Log.Debug("changes of policies are not heard of now", "cause", err)
		if !sleep(ctx, b.cfg.Retry.backoff(min(failures+1, 6), b.cfg.Jitter())) {
			return nil
		}
	}
}
