// Package schedule decides which waiting job gets which place, and says why. It is
// pure: the model, the jobs, the policies and the time go in, decisions come out, so
// that the broker, the simulator, the benchmark and the replay run the same code.
package schedule

import (
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Scope is where a policy is in force, the narrowest first: "queue:NAME" (of the
// share that the job names), "vo:NAME", "gateway".
type Scope string

// Gateway is the scope of everything that has none of its own.
const Gateway Scope = "gateway"

// Valid reports whether it is one of the forms that there are.
func (s Scope) Valid() bool {
	kind, name, named := strings.Cut(string(s), ":")
	return s == Gateway || named && name != "" && (kind == "queue" || kind == "vo")
}

// Policies is what is in force, by scope and kind. It is never changed in place.
type Policies struct {
	Revision int64                                    `json:"revision"`
	InForce  map[Scope]map[policy.Kind]policy.Setting `json:"inForce"`
	Shadow   map[Scope]map[policy.Kind]policy.Setting `json:"shadow,omitempty"` // decided too, recorded, not acted on
}

// Decision is one placement with its reasons; it is stored with the job's history.
type Decision struct {
	Job      string                 `json:"job"`
	Attempt  int                    `json:"attempt"`
	At       time.Time              `json:"at"`
	Model    int64                  `json:"model"`    // revision of the snapshot
	Policies int64                  `json:"policies"` // revision of Policies
	Policy   map[policy.Kind]string `json:"policy"`   // names with parameters
	Seed     uint64                 `json:"seed,omitempty"`
	Place    resourcemodel.Place    `json:"place"`
	// Domain is that of the peer which gets the job, Far the place that it showed and that the
	// job fits, and Why the reason that its domain was chosen. Place is then the peer as a
	// site, with the share and the environment of Far.
	Domain string               `json:"domain,omitempty"`
	Far    *resourcemodel.Place `json:"far,omitempty"`
	Why    string               `json:"why,omitempty"`
	// Bought is the agreement with the peer in whose room the job is to run; "" is none.
	Bought string    `json:"bought,omitempty"`
	Waited int       `json:"waited"`           // jobs that waited with it
	Ranked []Ranked  `json:"ranked,omitempty"` // the best first, at most MaxRanked
	Out    []Ruled   `json:"out,omitempty"`    // places ruled out, at most MaxRuled
	More   int       `json:"more,omitempty"`   // further ones that were left out here
	Shadow *Shadowed `json:"shadow,omitempty"`
}

// MaxRanked and MaxRuled bound a decision's record.
const (
	MaxRanked = 16
	MaxRuled  = 32
)

// Ranked is a candidate with its marks.
type Ranked struct {
	Place resourcemodel.Place `json:"place"`
	Soft  float64             `json:"soft"`
	Score float64             `json:"score"`
	Free  int                 `json:"free"`
}

// Ruled is a place that was no candidate, with the clause that ruled it out.
type Ruled struct {
	Place    resourcemodel.Place `json:"place"`
	Element  string              `json:"element"`
	Sentence string              `json:"sentence"`
}

// Shadowed is what the shadow policies would have chosen.
type Shadowed struct {
	Policy map[policy.Kind]string `json:"policy"`
	Place  *resourcemodel.Place   `json:"place"` // nil: the job would have waited
}
