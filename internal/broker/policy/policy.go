// Package policy has the ways to order waiting jobs and to choose places for them.
// Every policy is a pure function of what it is given: no clock, no chance of its
// own, so that a replay decides the same again.
package policy

import (
	"math/rand/v2"
	"time"

	"github.com/portolan-project/portolan/resourcemodel"
)

// Kind is what a policy decides.
type Kind string

// The kinds.
const (
	Scheduling Kind = "scheduling" // which waiting job comes next
	Selection  Kind = "selection"  // which place a job gets
	Pairing    Kind = "pairing"    // both at once, for all jobs of a round; "none" leaves it to the other two
	// Replication is which running jobs of a bag get further copies on idle places; "none"
	// gives none. See NewReplication.
	Replication Kind = "replication"
)

// Kinds lists them.
func Kinds() []Kind { return []Kind{Scheduling, Selection, Pairing, Replication} }

// Setting is a policy in force: its name and its parameters, as people write them:
// "priority{age=1h}". Parameters have defaults, bounds and words in the catalogue.
type Setting struct {
	Name       string             `json:"name"`
	Parameters map[string]float64 `json:"parameters,omitempty"` // durations in seconds
}

// Job is a waiting job as policies see it. None changes while it waits.
type Job struct {
	ID        string // ordered by submission
	Owner     string
	VO        string
	Submitted time.Time
	Class     int           // 0 is usual; jobs whose place was lost are of a higher one, and go first under every policy
	Priority  int           // the owner's own, higher first
	Deadline  time.Time     // zero is none
	Length    time.Duration // estimated run time; 0 is not known
	CPUs      int
	Room      string // that is kept for it at a site, by its promise; "" is none
	Request   *resourcemodel.Request
}

// Key orders the jobs of a group: the smaller goes first, compared element by
// element, then by the job's ID.
type Key [3]float64

// Order is a scheduling policy. Jobs are put in groups (all in one, or one for each
// user or VO); within a group their order stays as it is while they wait, and the
// groups' own order may change with every decision, so that a queue of a million
// jobs is a heap for each group and a heap of groups.
type Order interface {
	Group(*Job) string
	Key(*Job) Key
	// Weight orders the groups at a moment: the smaller goes first.
	Weight(group string, now time.Time, u Usage) float64
}

// Tiered is an Order whose groups are in tiers, all of which come before the next: the
// lighter tier goes first, in it the lighter group, then the lesser name. That is the
// order of Weight and name, found without weighing all groups of a tier anew whenever
// the tier became heavier.
type Tiered interface {
	Order
	// Tier names the tier of a group.
	Tier(group string) string
	// TierWeight orders tiers, and GroupWeight the groups of tiers that weigh the same.
	TierWeight(tier string, now time.Time, u Usage) float64
	GroupWeight(group string, now time.Time, u Usage) float64
}

// Batched is an Order that makes many keys at once for less than one by one: a policy
// in a program of its own. The keys are those that Key gives.
type Batched interface {
	Keys([]*Job) []Key
}

// Revised is an Order whose keys are made anew now and then: a policy in a program of
// its own gives way to a built-in one while it is down. Keys of two revisions must
// not be compared; whoever keeps keys makes all of them anew when the revision changes.
type Revised interface {
	Revision() uint64
}

// Usage tells what was used lately, with the decay of the policy in force.
type Usage interface {
	// Used gives CPU-seconds of a group ("vo:bio", "user:ann") at now, those long ago counting less.
	Used(group string, now time.Time, halfLife time.Duration) float64
	// Share gives what the group is entitled to relative to others; 1 is usual.
	Share(group string) float64
}

// Candidate is a place that could start a job now, or that takes it into its own
// queue, with everything a selection may ask.
type Candidate struct {
	Place resourcemodel.Place
	Site  *resourcemodel.Site
	Share *resourcemodel.Share
	Env   *resourcemodel.Environment
	State resourcemodel.ShareState
	Nodes resourcemodel.EnvironmentState
	Free  int     // jobs of this need that could start at once
	Load  float64 // jobs that it has or is given, for each slot
	Soft  float64 // how well the soft criteria are met, 0 to 1; 1 without any
	// Preference is that of its site in the configuration, from 0, and Order that of the place
	// in the model: the tie-break.
	Preference int
	Order      int
	Derived    resourcemodel.Derived
}

// Choice is a selection policy: a score for each candidate, the higher the better;
// NaN rules one out. Soft criteria go before the policy: see Rank.
type Choice interface {
	Score(j *Job, cands []Candidate, now time.Time) []float64
}

// Marker is a Choice whose score of a candidate depends on no other candidate: candidates
// are marked where they are, and need not be together.
type Marker interface {
	Choice
	// Mark gives the score of one candidate; need is what the job takes.
	Mark(j *Job, need *resourcemodel.Need, c *Candidate) float64
}

// Pair is one job of a round at one of its candidates.
type Pair struct{ Job, Candidate int }

// Matchmaker is a pairing policy: it chooses for all jobs of a round at once.
// cands[i] are those of jobs[i]; a place takes Free of each at most, all its jobs
// counted. Chance comes from rng, whose seed is in the decision's record.
type Matchmaker interface {
	Match(jobs []*Job, cands [][]Candidate, now time.Time, rng *rand.Rand) []Pair
}
