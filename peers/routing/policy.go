package routing

import (
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
)

// Role is what a peer is to this gateway.
type Role string

// The roles.
const (
	Equal  Role = "peer"
	Parent Role = "parent"
	Child  Role = "child"
)

// Peer is what is known of one beside its resources.
type Peer struct {
	Domain string
	Role   Role
	// Away says why no job can be given to it: its session is not alive, or it is no
	// provider; "" is that one can.
	Away string
	// Given counts our jobs that it has.
	Given   int
	Balance ledger.Balance
	// Measured is what our jobs met with there.
	Measured Measured
	// Bought says in a sentence that room is ours there in which the job fits; "" is that none is.
	Bought string
}

// Measured is what was measured of jobs that were given to a peer.
type Measured struct {
	Jobs    int     // on which the rest rests; 0 is that nothing is known
	Success float64 // part of them that had a valid end, 0 to 1
	Speed   float64 // relative to our own sites, 1 is the same
	// Wait is from giving to start, smoothed.
	Wait time.Duration
}

// Policy is how a gateway routes. The zero value, after EnsureDefaults, works.
type Policy struct {
	// Overload is the wait at the own sites above which jobs flow out, Recover the one to
	// which it must fall before they are kept again, and before idle ones come back.
	Overload time.Duration `json:"overload"`
	Recover  time.Duration `json:"recover"`
	// Gain is what part of the own wait a peer's must be below for a job to flow out.
	Gain float64 `json:"gain"`
	// Hop is what a hand-over costs, and is added to a peer's wait.
	Hop time.Duration `json:"hop"`
	// Typical is how long a job runs that does not say it.
	Typical time.Duration `json:"typical"`
	// The weights of what a peer is chosen by: its room, wait, speed and success, and
	// whether it owes us.
	Room    float64 `json:"room"`
	Wait    float64 `json:"wait"`
	Speed   float64 `json:"speed"`
	Success float64 `json:"success"`
	Favour  float64 `json:"favour"`
	// Doubt is taken off what an aggregate promises, for each step of coarseness.
	Doubt float64 `json:"doubt"`
	// MostGiven bounds our jobs at one peer; 0 is no bound.
	MostGiven int `json:"mostGiven"`
	// MostOwed is what we may owe a peer before it is asked last; 0 is no bound.
	MostOwed handover.CPUTime `json:"mostOwed"`
	// Keep says that jobs of peers are run here or given back, and never forwarded.
	Keep bool `json:"keep"`
}

// EnsureDefaults gives the policy with what is not said filled in.
func (p Policy) EnsureDefaults() Policy {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&p.Overload, 5*time.Minute)
	set(&p.Recover, min(time.Minute, p.Overload/2))
	set(&p.Hop, 5*time.Second)
	set(&p.Typical, 10*time.Minute)
	if p.Gain == 0 {
		p.Gain = 0.8
	}
	if p.Room == 0 && p.Wait == 0 && p.Speed == 0 && p.Success == 0 && p.Favour == 0 {
		p.Room, p.Wait, p.Speed, p.Success, p.Favour = 1, 2, 1, 1, 1
	}
	if p.Doubt == 0 {
		p.Doubt = 0.15
	}
	return p
}

// Check gives fail.Invalid for a policy that contradicts itself.
func (p Policy) Check() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("routing.Policy", fail.Invalid, "", format, args...)
	}
	switch {
	case p.Overload < 0 || p.Recover < 0 || p.Hop < 0 || p.Typical <= 0 || p.MostOwed < 0 || p.MostGiven < 0:
		return bad("the times and bounds of the routing policy must not be negative, and typical must be above zero")
	case p.Recover > p.Overload:
		return bad("recover (%s) must be at most overload (%s), else jobs would go out and come back at once", p.Recover, p.Overload)
	case !(p.Gain > 0 && p.Gain <= 1):
		return bad("gain must be above 0 and at most 1")
	case !(p.Doubt >= 0 && p.Doubt <= 0.5):
		return bad("doubt must be from 0 to 0.5")
	}
	for _, w := range []float64{p.Room, p.Wait, p.Speed, p.Success, p.Favour} {
		if !(w >= 0 && w <= 1e6) {
			return bad("each weight must be from 0 to 1000000")
		}
	}
	return nil
}
