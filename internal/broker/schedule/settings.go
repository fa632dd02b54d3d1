package schedule

import (
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/fail"
)

// Catalogue makes policies of their settings. A site's own policies come in here.
type Catalogue struct {
	Order      func(policy.Setting) (policy.Order, error)
	Choice     func(policy.Setting) (policy.Choice, error)
	Matchmaker func(policy.Setting) (policy.Matchmaker, error) // nil, nil: jobs are not paired
}

// BuiltIn has the policies that need nothing else.
func BuiltIn() *Catalogue {
	return &Catalogue{Order: policy.NewOrder, Choice: policy.NewChoice, Matchmaker: policy.NewMatchmaker}
}

type ordering struct {
	policy.Order
	scope    Scope
	name     string
	revision uint64                                                    // of the keys, where the order has revisions
	tiered   policy.Tiered                                             // nil: it knows no tiers
	weight   func(group string, now time.Time, u policy.Usage) float64 // of a group in its tier
}

// batched gives the order's way to make many keys at once; nil if it has none.
func (o *ordering) batched() policy.Batched {
	b, _ := o.Order.(policy.Batched)
	return b
}

// revised reports whether the keys of some order are others than they were, once.
func (set *settings) revised() bool {
	revised := false
	for _, o := range set.orders {
		if r, ok := o.Order.(policy.Revised); ok && r.Revision() != o.revision {
			o.revision, revised = r.Revision(), true
		}
	}
	return revised
}

type chooser struct {
	policy.Choice
	marker policy.Marker // nil: it wants the candidates together
	scope  Scope
	name   string
}

type pairer struct {
	policy.Matchmaker
	scope Scope
	name  string
}

// settings are the policies of one book, ready for use.
type settings struct {
	orders   map[Scope]*ordering
	choosers map[Scope]*chooser
	pairers  map[Scope]*pairer            // Matchmaker is nil where the scope has "none"
	copiers  map[Scope]*policy.Replicator // nil where the scope has "none"
	named    map[[3]Scope]map[policy.Kind]string
}

// effective gives what would be in force if the shadows were.
func effective(p *Policies, shadow bool) map[Scope]map[policy.Kind]policy.Setting {
	out := map[Scope]map[policy.Kind]policy.Setting{}
	lay := func(m map[Scope]map[policy.Kind]policy.Setting) {
		for scope, kinds := range m {
			if out[scope] == nil {
				out[scope] = map[policy.Kind]policy.Setting{}
			}
			maps.Copy(out[scope], kinds)
		}
	}
	lay(p.InForce)
	if shadow {
		lay(p.Shadow)
	}
	return out
}

func newSettings(inForce map[Scope]map[policy.Kind]policy.Setting, cat *Catalogue) (*settings, error) {
	set := &settings{orders: map[Scope]*ordering{}, choosers: map[Scope]*chooser{}, pairers: map[Scope]*pairer{}, copiers: map[Scope]*policy.Replicator{}, named: map[[3]Scope]map[policy.Kind]string{}}
	for _, scope := range slices.Sorted(maps.Keys(inForce)) {
		for _, kind := range slices.Sorted(maps.Keys(inForce[scope])) {
			if err := set.put(scope, kind, inForce[scope][kind], cat); err != nil {
				return nil, err
			}
		}
	}
	for _, kind := range policy.Kinds() {
		if _, own := inForce[Gateway][kind]; !own {
			if err := set.put(Gateway, kind, policy.Default(kind), cat); err != nil {
				return nil, err
			}
		}
	}
	return set, nil
}

func (set *settings) put(scope Scope, kind policy.Kind, v policy.Setting, cat *Catalogue) error {
	switch kind {
	case policy.Scheduling:
		o, err := cat.Order(v)
		if err != nil {
			return err
		}
		made := &ordering{Order: o, scope: scope, name: v.String(), weight: o.Weight}
		if t, ok := o.(policy.Tiered); ok {
			made.tiered, made.weight = t, t.GroupWeight
		}
		if r, ok := o.(policy.Revised); ok {
			made.revision = r.Revision()
		}
		set.orders[scope] = made
	case policy.Selection:
		c, err := cat.Choice(v)
		if err != nil {
			return err
		}
		m, _ := c.(policy.Marker)
		set.choosers[scope] = &chooser{c, m, scope, v.String()}
	case policy.Pairing:
		m, err := cat.Matchmaker(v)
		if err != nil {
			return err
		}
		set.pairers[scope] = &pairer{m, scope, v.String()}
	case policy.Replication: // of jobs that run, which do not wait
		r, err := policy.NewReplication(v)
		if err != nil {
			return err
		}
		set.copiers[scope] = r
	default:
		return fail.Errorf("schedule.SetPolicies", fail.Invalid, string(kind), "there is no kind of policy %q: scheduling, selection, pairing and replication are the kinds", kind)
	}
	return nil
}

// narrowest gives the setting of the narrowest scope of a job that has one.
func narrowest[T any](m map[Scope]T, e *Entry) T {
	if len(m) > 1 {
		if e.Queue != "" {
			if v, ok := m["queue:"+Scope(e.Queue)]; ok {
				return v
			}
		}
		if e.VO != "" {
			if v, ok := m["vo:"+Scope(e.VO)]; ok {
				return v
			}
		}
	}
	return m[Gateway]
}

func (set *settings) ordering(e *Entry) *ordering { return narrowest(set.orders, e) }
func (set *settings) chooser(e *Entry) *chooser   { return narrowest(set.choosers, e) }

// pairer is nil where jobs are not paired.
func (set *settings) pairer(e *Entry) *pairer {
	if p := narrowest(set.pairers, e); p.Matchmaker != nil {
		return p
	}
	return nil
}

func (set *settings) scopes(e *Entry) (scheduling, pairing Scope) {
	return narrowest(set.orders, e).scope, narrowest(set.pairers, e).scope
}

// names gives the policies that decide a job. The map is shared, and not to be changed.
func (set *settings) names(e *Entry) map[policy.Kind]string {
	o, c, p := narrowest(set.orders, e), narrowest(set.choosers, e), narrowest(set.pairers, e)
	k := [3]Scope{o.scope, c.scope, p.scope}
	names := set.named[k]
	if names == nil {
		names = map[policy.Kind]string{policy.Scheduling: o.name, policy.Selection: c.name, policy.Pairing: p.name}
		set.named[k] = names
	}
	return names
}
