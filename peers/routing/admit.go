package routing

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
)

// Admission is what a gateway takes of one peer's jobs. The zero value takes all.
type Admission struct {
	// Closed says, in a sentence, why no new job is taken; "" is that they are.
	Closed string `json:"closed,omitempty"`
	// VOs are those whose jobs are taken; none is any.
	VOs []string `json:"vos,omitempty"`
	// MostJobs bounds the peer's jobs here, MostCPUs those of one job, MostWall its length;
	// 0 is no bound.
	MostJobs int           `json:"mostJobs,omitempty"`
	MostCPUs int           `json:"mostCPUs,omitempty"`
	MostWall time.Duration `json:"mostWall,omitempty"`
	// MostDebt is what the peer may owe us before its jobs are taken only
	// while nothing of ours waits; 0 is no bound.
	MostDebt handover.CPUTime `json:"mostDebt,omitempty"`
	// Reserve is the part of the slots that stays for our own jobs.
	Reserve float64 `json:"reserve,omitempty"`
	// OwnOnly takes only jobs that were submitted at the peer itself, none that it forwards.
	OwnOnly bool `json:"ownOnly,omitempty"`
}

// Asking is a job that a peer wants us to take.
type Asking struct {
	Peer     string
	Origin   string
	VO       string
	CPUs     int
	WallTime time.Duration
	// Here counts the peer's jobs that are here, Waiting our own that wait.
	Here, Waiting int
	// Free and Slots count slots of our sites; Slots 0 is not known.
	Free, Slots int
	Balance     ledger.Balance
	// Agreement is that of ours in whose room it is to run, by the peer's word; Agreed is that the room
	// is held for the peer now.
	Agreement string
	Agreed    bool
}

// Admit gives why a job is not taken, as handover's Refuse; nil takes it. The kinds tell the
// peer what to do: fail.Denied and fail.Unsupported are for good, fail.Exhausted and
// fail.NotAccepting for now.
func Admit(a Asking, to Admission) error {
	refuse := func(kind fail.Kind, format string, args ...any) error {
		return fail.Errorf("routing.Admit", kind, a.Peer, format, args...)
	}
	switch {
	case to.Closed != "":
		return refuse(fail.NotAccepting, "%s", to.Closed)
	case to.OwnOnly && a.Origin != a.Peer:
		return refuse(fail.Denied, "only jobs that were submitted at %s itself are taken of it; this one is of %s", a.Peer, a.Origin)
	case len(to.VOs) > 0 && !slices.Contains(to.VOs, a.VO):
		return refuse(fail.Denied, "jobs of the VO %q are not taken of %s; ask for it to be added", a.VO, a.Peer)
	case to.MostCPUs > 0 && a.CPUs > to.MostCPUs:
		return refuse(fail.Unsupported, "the job wants %d CPUs, and jobs of %s may have %d", a.CPUs, a.Peer, to.MostCPUs)
	case to.MostWall > 0 && a.WallTime > to.MostWall:
		return refuse(fail.Unsupported, "the job may run for %s, and jobs of %s may for %s", a.WallTime, a.Peer, to.MostWall)
	case to.MostJobs > 0 && a.Here >= to.MostJobs:
		return refuse(fail.Exhausted, "%d jobs of %s are here, and %d may be; try later", a.Here, a.Peer, to.MostJobs)
	}
	if debt := -a.Balance.Surplus(); to.MostDebt > 0 && debt > to.MostDebt && a.Waiting > 0 && !a.Agreed {
		return refuse(fail.NotAccepting, "%s owes %s, more than the %s allowed while own jobs wait; run some of ours, or try later", a.Peer, debt, to.MostDebt)
	}
	if a.Slots > 0 && to.Reserve > 0 && !a.Agreed && float64(a.Free-1) < to.Reserve*float64(a.Slots) {
		return refuse(fail.NotAccepting, "the free slots that are left are kept for own jobs; try later")
	}
	return nil
}

// Check gives fail.Invalid for an admission that makes no sense.
func (a Admission) Check() error {
	if a.MostJobs < 0 || a.MostCPUs < 0 || a.MostWall < 0 || a.MostDebt < 0 || !(a.Reserve >= 0 && a.Reserve <= 1) {
		return fail.Errorf("routing.Admission", fail.Invalid, "", "the bounds of an admission must not be negative, and reserve must be from 0 to 1")
	}
	return nil
}
