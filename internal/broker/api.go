package broker

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/internal/broker/estimate"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Scheduling is how a Broker tells of its decisions and is told how to make them:
// what the console and the command line need beside BES. The caller's principal is
// in the context (soap.WithPrincipal). All methods answer fail.Unavailable until the
// gateway has read what it remembers, and fail.Denied to whom Config.Authorise says no.
type Scheduling interface {
	// Policies tells what is in force, what there is, and who changed what; whoever
	// may Submit may see it.
	Policies(context.Context) (*PolicyView, error)
	// SetPolicy puts a setting in force for a scope, or in shadow; a nil setting takes
	// the scope's own away, so that the next wider one holds again. It is durable when
	// it returns, and the next decision of every replica obeys it. It needs Manage.
	// fail.Invalid names the parameter or scope that is wrong and what would be right;
	// fail.Unsupported that there is no policy of that name.
	SetPolicy(ctx context.Context, scope schedule.Scope, kind policy.Kind, s *policy.Setting, shadow bool) error
	// Match tells what would become of a job of the caller's with this document, for a
	// VO ("" is none), and changes nothing. A document that is wrong is fail.Invalid as
	// it is at CreateActivity.
	Match(ctx context.Context, doc []byte, vo string) (*MatchReport, error)
	// Resources gives the resource model as it was believed at a moment; the zero time
	// is now. fail.NotFound says that the moment is before what is remembered.
	Resources(ctx context.Context, at time.Time) (*resourcemodel.Snapshot, error)
	// Decisions gives the placements of an activity with their reasons, the oldest
	// first; none for one that never had a place or whose records are not kept any more.
	// fail.NotFound as BES gives it.
	Decisions(context.Context, soap.EPR) ([]schedule.Decision, error)
}

var _ Scheduling = (*Broker)(nil)

// PolicyView is which policies decide.
type PolicyView struct {
	Policies  *schedule.Policies
	Catalogue []policy.Description // those that SetPolicy takes
	// Changes are the last ones, the newest first, at most MaxPolicyChanges.
	Changes []PolicyChange
}

// MaxPolicyChanges bounds what is remembered of changes of policies.
const MaxPolicyChanges = 256

// PolicyChange is one change of what is in force.
type PolicyChange struct {
	At     time.Time       `json:"at"`
	Who    string          `json:"who"`
	Scope  schedule.Scope  `json:"scope"`
	Kind   policy.Kind     `json:"kind"`
	Before *policy.Setting `json:"before,omitempty"` // nil: the scope had none of its own
	After  *policy.Setting `json:"after,omitempty"`  // nil: it has none any more
	Shadow bool            `json:"shadow,omitempty"`
}

// MatchReport is what would become of a job.
type MatchReport struct {
	// Verdicts has one for each place, those that could run it first.
	Verdicts []resourcemodel.Verdict
	Could    bool   // some place could ever run it
	Now      bool   // some place could start it now
	Sentence string // what it would wait for, or where it would go
	Nearest  string // the smallest change of the document with which it could start now, in words; "" where there is none
	Model    int64  // revision of the snapshot
	// Ranked are the places in the order of the policies in force, the best first.
	Ranked []schedule.Ranked
	// Waits are how long the job is estimated to wait at the places that could run it, as
	// far as anybody knows.
	Waits map[resourcemodel.Place]estimate.Wait
}
