// Package broker is the life of a job: accept, queue, place, watch, retry,
// finish.
//
// states.go is the one table of what may follow what. One goroutine, the
// committer (commit.go), turns events into records: it takes whatever events are
// waiting, applies the table to each job (step.go, pure), writes all changes in
// one call of the store, and only then acts: persist, then act. Everything else
// is a loop that makes events: the dispatcher (dispatch.go) from the pure choice
// in decide.go, a few loops for each site (site.go, handover.go, steering.go,
// condition.go, evidence.go), which come and go with it (roster.go), the service methods that
// users call (service.go, control.go).
//
// What is promised of a job by an agreement is kept in promise.go, and told to whoever made it by
// follow.go; of agreements themselves this package knows nothing.
//
// What is live is in memory; what is final is in the store alone.
//
// One broker at a time owns the jobs of a store. A second one under the same
// replica name takes over; the first then finds its session lost, stops writing
// and reads everything anew.
package broker
