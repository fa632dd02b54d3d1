package schedule

import (
	"iter"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Places is what a Scheduler asks of the resource model: where jobs could run, less
// what was given away and is not seen in the model yet.
type Places interface {
	// Snapshot is the model as it is now.
	Snapshot() *resourcemodel.Snapshot
	// Reset begins anew with a snapshot; what was taken is forgotten.
	Reset(*resourcemodel.Snapshot)
	// Apply follows a delta. What was taken stays taken.
	Apply(resourcemodel.Delta) error

	// Class gives what the request has in common with those that every place answers alike.
	Class(*resourcemodel.Request) resourcemodel.Class
	// NamesUsers reports whether classes depend on who the users are; when that changes,
	// all classes do.
	NamesUsers() bool
	// Candidates appends every place that could run the request and is not shut at
	// present, whether it has room or not, in their order.
	Candidates(into []Offer, r *resourcemodel.Request, d resourcemodel.Derived) []Offer
	// At does the same for the places of one site.
	At(into []Offer, k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) []Offer
	// Place names a place.
	Place(order int) resourcemodel.Place
	// Free gives how many jobs with the request's need could start at a place that is among
	// its candidates.
	Free(order int, r *resourcemodel.Request, d resourcemodel.Derived) int
	// Tell says all that is known of a place but Free, Soft and Preference: the last is not
	// of the model, the one before relative to the other candidates.
	Tell(c *policy.Candidate, order int, r *resourcemodel.Request, d resourcemodel.Derived)
	// Frees reports whether some place of the site has free what one job takes: it may say
	// so of a place that is none of the candidates, but never no of one that is, with Free.
	Frees(k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) bool
	// Ruled gives places that are no candidates, at most so many, with the first
	// clause that stands against each, and how many more there are.
	Ruled(r *resourcemodel.Request, d resourcemodel.Derived, most int) (out []Ruled, more int)

	// All gives every place, site by site.
	All() iter.Seq[resourcemodel.Where]

	// Take takes a job's need from a place, Give gives it back. More may be taken than
	// is free: a place that queues jobs owes them what becomes free.
	Take(resourcemodel.Place, *resourcemodel.Need)
	Give(resourcemodel.Place, *resourcemodel.Need)

	// Register says that a class of requests waits, Forget that it does not any more.
	Register(class int, r *resourcemodel.Request)
	Forget(class int)
	// Helped calls yield with the registered classes of which the site could start a job,
	// or, with ahead, take one into its queue: with more than those, never with fewer, in
	// any order.
	Helped(k resourcemodel.Key, ahead bool, d resourcemodel.Derived, yield func(class int))
	// Exhausted reports whether no job of any kind could start at the site.
	Exhausted(k resourcemodel.Key) bool
}

// Offer is a place by its number among all, which holds until the static part of some site
// changes, with how many jobs could start there.
type Offer struct{ Order, Free int }

// Derived gives what is known of places beside the model at a moment; nil knows
// nothing.
type Derived func(now time.Time) resourcemodel.Derived
