package schedule

import (
	"math"
	"strconv"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Site is how the gateway deals with a site, beside what the model says of it.
type Site struct {
	// Ahead is how many jobs the site is given beyond those that could start at once: a
	// batch system orders its own queue, and is told of many jobs ahead.
	Ahead int `json:"ahead,omitempty"`
	// Preference is the site's place in the configuration, from 0: it decides between places
	// that are alike to a policy.
	Preference int `json:"preference,omitempty"`
	// Most is how many jobs may be under way to the site or at it; 0 is no bound. A site
	// that answers slowly has credit for few more than it has: their number and that.
	Most int `json:"most,omitempty"`
	// MostCPUs bounds the CPUs that these jobs have; 0 is no bound.
	MostCPUs int `json:"mostCPUs,omitempty"`
	// Limit and LimitCPUs name the limit that Most and MostCPUs come from, with what it
	// allows, for people: "site:slurm: 20 jobs"; "" is that they come from the site.
	Limit     string `json:"limit,omitempty"`
	LimitCPUs string `json:"limitCPUs,omitempty"`
	// Closed is that it gets no jobs until Reopen, or until it is told anew where that is
	// zero.
	Closed  bool      `json:"closed,omitempty"`
	Reopen  time.Time `json:"reopen,omitzero"`
	Problem string    `json:"problem,omitempty"` // why it is closed, in a few words
}

// closed reports whether it gets no jobs at a moment.
func (v *Site) closed(now time.Time) bool {
	return v.Closed && (v.Reopen.IsZero() || v.Reopen.After(now))
}

// candidates gives all places that could run a request and are not shut, in full.
func (s *Scheduler) candidates(r *resourcemodel.Request, d resourcemodel.Derived) []policy.Candidate {
	offers := s.places.Candidates(nil, r, d)
	out := make([]policy.Candidate, len(offers))
	for i, o := range offers {
		s.places.Tell(&out[i], o.Order, r, d)
		out[i].Free, out[i].Soft = o.Free, 1
		if v := s.sites[out[i].Place.Key]; v != nil {
			out[i].Preference = v.Preference
		}
	}
	return out
}

// credit gives how many further jobs of one CPU the site may be given.
func (v *site) credit() int { return v.creditFor(1) }

// creditFor gives how many further jobs the site may be given that have so many CPUs.
func (v *site) creditFor(cpus int) int {
	n := math.MaxInt
	if v.Most > 0 {
		n = max(v.Most-v.jobs, 0)
	}
	if v.MostCPUs > 0 {
		n = min(n, max(v.MostCPUs-v.cpus, 0)/max(cpus, 1))
	}
	return n
}

// spentFor says what bounds the site where it has no credit for a job of so many CPUs,
// as the end of a sentence that begins with the site.
func (v *site) spentFor(cpus int) string {
	switch {
	case v.Most > 0 && v.Most <= v.jobs && v.Limit == "":
		return "has as many jobs of this gateway as it is to have at once, " + strconv.Itoa(v.Most)
	case v.Most > 0 && v.Most <= v.jobs:
		return "has as many jobs as its limit allows at once (" + v.Limit + ")"
	case v.LimitCPUs == "":
		return "has jobs of this gateway with as many CPUs as it is to have at once, " + strconv.Itoa(v.MostCPUs)
	}
	return "has jobs with so many CPUs that its limit leaves no room for " + count(max(cpus, 1), "further CPU") + " (" + v.LimitCPUs + ")"
}

// held names the limit that leaves no credit for a job of so many CPUs; "" where none
// does.
func (v *site) held(cpus int) string {
	switch {
	case v.creditFor(cpus) > 0:
		return ""
	case v.Most > 0 && v.Most <= v.jobs:
		return v.Limit
	}
	return v.LimitCPUs
}

// site is a Site with what it was given.
type site struct {
	Site
	key   resourcemodel.Key
	jobs  int // under way to it or at it
	cpus  int // that these have
	ahead int // jobs that it was given ahead and that do not run yet
	dirty bool
	// Where the log of changes has it last; with more than taking; with more than room.
	noted, gained, modeled int
	order                  int   // of the last of its candidates that were seen first
	keep                   *keep // nil where nothing is promised
}

// Limits bound how many jobs are on their way to sites or at them, for each owner and
// VO; zero is no bound.
type Limits struct {
	EachOwner int            `json:"eachOwner,omitempty"`
	EachVO    int            `json:"eachVO,omitempty"`
	Owner     map[string]int `json:"owner,omitempty"` // instead of EachOwner
	VO        map[string]int `json:"vo,omitempty"`    // instead of EachVO
}

// limit counts the jobs of one owner or VO.
type limit struct {
	group   string // "user:ann"
	most    int
	used    int
	classes map[*class]bool // that it stops
}

// given is a job that has a place.
type given struct {
	job       *policy.Job
	place     resourcemodel.Place
	ahead     bool // it was more than could start
	unsettled bool // the model does not show yet that it runs there
	holds     bool // it is reckoned with at far
	charge    int64
	began     time.Time // zero: it does not run yet, or nobody told when it began
	since     time.Time // when a peer was given it; zero: nobody told
	limits    []*limit
	far       *resourcemodel.Place // the place that the peer showed, of a job that a peer has
}

// UnknownLength is how long a job is reckoned to run whose document does not say.
const UnknownLength = time.Hour

// charge gives the CPU-seconds that a job is reckoned to use; whole ones, so that
// sums are the same however they came about.
func charge(j *policy.Job) int64 {
	length := j.Length
	if length <= 0 {
		length = UnknownLength
	}
	return int64(max(j.CPUs, 1)) * int64(max(length/time.Second, 1))
}

// usage is what was used lately, with what jobs under way are reckoned to use: else
// one owner could fill all places before the first of the jobs ends.
type usage struct {
	base    *policy.Ledger
	under   map[string]*int64                 // CPU-seconds by group, none of them 0
	name    []byte                            // scratch
	asked   func(group string, share float64) // for a trace
	version uint64                            // grows when under changes
}

// Used gives CPU-seconds of a group.
func (u *usage) Used(group string, now time.Time, halfLife time.Duration) float64 {
	sum := 0.0
	if n := u.under[group]; n != nil {
		sum = float64(*n)
	}
	if u.base != nil {
		sum += u.base.Used(group, now, halfLife)
	}
	return sum
}

// Share gives what the group is entitled to.
func (u *usage) Share(group string) float64 {
	share := 1.0
	if u.base != nil {
		share = u.base.Share(group)
	}
	if u.asked != nil {
		u.asked(group, share)
	}
	return share
}

func (u *usage) add(j *policy.Job, amount int64) {
	u.version++
	for i := range policy.NumAccounts {
		u.name = policy.AppendAccount(u.name[:0], j, i)
		n := u.under[string(u.name)]
		if n == nil {
			n = new(int64)
			u.under[string(u.name)] = n
		}
		if *n += amount; *n == 0 {
			delete(u.under, string(u.name))
		}
	}
}
