package resourcemodel

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// Subject is for whom a request is made.
type Subject struct {
	User string
	VO   string // "" is none
}

// Request is what one job asks of a place, compiled once and matched many times.
// It is never changed after Compile.
type Request struct {
	Subject Subject
	// Need is what the job takes from the place while it runs, and what the policies
	// reckon with.
	Need Need
	// Hard rules places out, Soft orders those that are left: the criteria of the
	// document. What JSDL's own elements demand is not in here: see Clauses.
	Hard, Soft []jsdl.Criterion
	Deadline   time.Time // zero is none
	NotBefore  time.Time
	Priority   int // among the owner's jobs, higher first

	// What was compiled, for Amend.
	definition *jsdl.JobDefinition
	criteria   *jsdl.Criteria

	ask        ask
	spmd       processes
	wallLimit  int64    // seconds of WallTimeLimit; 0 is none
	hosts      []string // CandidateHosts
	data       []string // URIs that the job's files come from and go to
	clauses    []clause // the static first
	static     int      // how many of clauses are
	hard, soft []criterion
	wishes     [sha256.Size]byte
}

// Late says why a job that has not started by now can't be sure to have ended by its Deadline,
// wherever it runs; "" if it can, and of one without a Deadline.
func (r *Request) Late(now time.Time) string {
	if r.NotBefore.After(now) {
		now = r.NotBefore
	}
	if r.Deadline.IsZero() || now.Add(durationOf(r.wallLimit)).Before(r.Deadline) {
		return ""
	}
	return tellDeadline(&at{request: r, derived: &Derived{Now: now}}).Sentence
}

// Need is what a job takes.
type Need struct {
	Slots       int // 1
	CPUs        int
	Hosts       int // 0: any number
	CPUsPerHost int
	Exclusive   bool
	Memory      int64 // bytes, all hosts together
	WallTime    time.Duration
	GPUs        int // all hosts together
	Consumables map[string]int64
}

// Verdict is what one place says to a request.
type Verdict struct {
	Place Place
	// Could is false when the place can never run the job as it is described: the
	// first of Clauses says why.
	Could bool
	// Now is whether it could start now as far as the model knows; Clauses then name
	// nothing.
	Now bool
	// Clauses are what stands against it, the static first.
	Clauses []Clause
}

// Clause is one wish that a place does not meet.
type Clause struct {
	Element  string // of the document: "TotalCPUCount", "Criterion FreeCPUs", "VO"
	Asked    string // "at least 64"
	Has      string // "16"
	Sentence string // "TotalCPUCount asks for at least 64, and the share long allows 16"
	Dynamic  bool   // it may change without anybody changing the site
}

// Derived is what is known of places beside the model; a policy and criteria may ask
// for it. A nil function knows nothing.
type Derived struct {
	Now time.Time
	// Wait estimates how long a job with this need would wait; false when nobody knows.
	Wait func(Place, *Need) (time.Duration, bool)
	// SuccessRate is the part of the recent jobs that the place ran to their end.
	SuccessRate func(Place) (float64, bool)
	// Distance of the data that the request names; false when nobody knows. Nil asks the
	// model: see DataDistance.
	Distance func(Place, *Request) (float64, bool)
	// Performance is a measured speed relative to the other places, 1 for the usual.
	Performance func(Place) (float64, bool)
}

// Where is what a request is held against: a Spot.
type Where = Spot

// Class is what requests have in common that every place answers alike. It is
// comparable, and the same in every process.
type Class struct {
	Wishes [sha256.Size]byte
	VO     string
	User   string // "" unless a policy names users
}

// Class gives the request's class among sites whose policies name no users.
func (r *Request) Class() Class { return Class{Wishes: r.wishes, VO: r.Subject.VO} }

// UserClass gives its class where a policy does: see NamesUsers.
func (r *Request) UserClass() Class {
	c := r.Class()
	c.User = r.Subject.User
	return c
}

// NamesUsers reports whether the answers of the site depend on who the user is, beside
// the VO.
func NamesUsers(s *Site) bool {
	if s.Static == nil {
		return false
	}
	return s.Static.Policy.namesUsers() || slices.ContainsFunc(s.Static.Shares, func(s Share) bool { return s.Policy.namesUsers() })
}

// Data gives the URIs from which the job's files come and to which they go, each once,
// in the document's order.
func (r *Request) Data() []string { return slices.Clone(r.data) }
