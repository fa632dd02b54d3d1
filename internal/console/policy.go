package console

import (
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
)

const (
	// PoliciesPath has which policies decide: GET tells, PUT changes one.
	PoliciesPath = "/api/v1/policies"
	// ComparePath tells how the policies in shadow would have decided the newest decisions,
	// as many as the query's most, as a schedule.Comparison.
	ComparePath = "/api/v1/policies/compare"
)

// The newest decisions that are compared.
const (
	usualCompared = 10_000
	mostCompared  = 1_000_000
)

// Policies answers GET.
type Policies struct {
	Revision  int64                `json:"revision"`
	Policies  []Policy             `json:"policies"`  // the gateway's of each kind, then those of narrower scopes
	Catalogue []policy.Description `json:"catalogue"` // what there is
	Changes   []PolicyChange       `json:"changes"`   // the newest first
}

// Policy is one that decides, or that is tried in shadow.
type Policy struct {
	Scope      schedule.Scope     `json:"scope"`
	Kind       policy.Kind        `json:"kind"`
	Setting    string             `json:"setting"` // as people write it: "priority{age=1h}"
	Name       string             `json:"name"`
	Parameters map[string]float64 `json:"parameters,omitempty"` // all of them; durations in seconds
	Shadow     bool               `json:"shadow,omitempty"`
	Default    bool               `json:"default,omitempty"` // nobody chose it
}

// PolicyChange is one change.
type PolicyChange struct {
	broker.PolicyChange
	From string `json:"from,omitempty"` // the settings as people write them
	To   string `json:"to,omitempty"`
}

// SetPolicy is what PUT takes. Without a setting, the scope's own is taken away.
type SetPolicy struct {
	Scope   schedule.Scope `json:"scope"`
	Kind    policy.Kind    `json:"kind"`
	Setting string         `json:"setting,omitempty"`
	Shadow  bool           `json:"shadow,omitempty"`
}

func (a *api) policies(r *http.Request) (any, error) {
	v, err := a.gateway.Policies(r.Context())
	if err != nil {
		return nil, err
	}
	out := Policies{Revision: v.Policies.Revision, Policies: []Policy{}, Catalogue: v.Catalogue, Changes: []PolicyChange{}}
	add := func(scope schedule.Scope, kind policy.Kind, s policy.Setting, shadow, byDefault bool) {
		out.Policies = append(out.Policies, Policy{
			Scope: scope, Kind: kind, Setting: s.String(), Name: s.Name, Parameters: s.Complete(kind).Parameters, Shadow: shadow, Default: byDefault,
		})
	}
	scopes := map[schedule.Scope]bool{}
	for scope := range v.Policies.InForce {
		scopes[scope] = true
	}
	for scope := range v.Policies.Shadow {
		scopes[scope] = true
	}
	delete(scopes, schedule.Gateway)
	for _, scope := range append([]schedule.Scope{schedule.Gateway}, slices.Sorted(maps.Keys(scopes))...) {
		for _, kind := range policy.Kinds() {
			if s, ok := v.Policies.InForce[scope][kind]; ok {
				add(scope, kind, s, false, false)
			} else if scope == schedule.Gateway {
				add(scope, kind, policy.Default(kind), false, true)
			}
			if s, ok := v.Policies.Shadow[scope][kind]; ok {
				add(scope, kind, s, true, false)
			}
		}
	}
	for _, c := range v.Changes {
		out.Changes = append(out.Changes, PolicyChange{c, written(c.Before), written(c.After)})
	}
	return out, nil
}

func written(s *policy.Setting) string {
	if s == nil {
		return ""
	}
	return s.String()
}

func (a *api) setPolicy(r *http.Request) (any, error) {
	const op = "console.setPolicy"
	var q SetPolicy
	if err := decode(r, &q, "scope, kind, setting and shadow"); err != nil {
		return nil, err
	}
	if !slices.Contains(policy.Kinds(), q.Kind) {
		return nil, fail.Errorf(op, fail.Invalid, "", "there is no kind of policy %q: scheduling, selection, pairing and replication are the kinds", q.Kind)
	}
	var s *policy.Setting
	if q.Setting != "" {
		parsed, err := policy.ParseSetting(q.Setting)
		if err != nil {
			return nil, err
		}
		s = &parsed
	}
	if err := a.gateway.SetPolicy(r.Context(), q.Scope, q.Kind, s, q.Shadow); err != nil {
		return nil, err
	}
	return a.policies(r)
}

func (a *api) compare(r *http.Request) (any, error) {
	most := usualCompared
	if text := r.URL.Query().Get("most"); text != "" {
		var err error
		if most, err = strconv.Atoi(text); err != nil || most < 1 || most > mostCompared {
			return nil, fail.Errorf("console.compare", fail.Invalid, "most", "most is %q; expected a number from 1 to %d", text, mostCompared)
		}
	}
	return a.gateway.Compare(r.Context(), most)
}
