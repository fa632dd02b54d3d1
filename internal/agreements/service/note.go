package service

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/guarantee"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
)

// NoteName is the name of what is kept here among the Notes of an engine's record.
const NoteName = "service"

// detail is what a plan of the engine says beside what the engine knows. It is the same for as long
// as the agreement is.
type detail struct {
	Kind       terms.Kind `json:"kind"`
	Terms      []string   `json:"terms"`                // of the alternative that the plan is for
	Method     string     `json:"method,omitempty"`     // how the owner was known
	Domain     string     `json:"domain,omitempty"`     // of an owner from elsewhere
	Account    string     `json:"account,omitempty"`    // as which the jobs of that owner run
	Acceptance string     `json:"acceptance,omitempty"` // the EPR that is to be told, as XML
}

func detailOf(r *engine.Record) (d detail, err error) {
	if r.Plan == nil || len(r.Plan.Detail) == 0 {
		return d, fail.Errorf("service.detail", fail.Internal, r.ID, "the agreement %s says nothing of what was chosen", r.ID)
	}
	if err := json.Unmarshal(r.Plan.Detail, &d); err != nil {
		return d, fail.E("service.detail", fail.Internal, r.ID, err)
	}
	return d, nil
}

// note is what is kept of an agreement beside its record.
type note struct {
	Services     []served                   `json:"services,omitempty"` // in the order of the request
	Reservations []reserved                 `json:"reservations,omitempty"`
	Guarantees   map[string]guarantee.State `json:"guarantees,omitempty"`
	Events       uint64                     `json:"events,omitempty"`  // the sequence of the last
	Entries      []ledger.Entry             `json:"entries,omitempty"` // of the ledger
	Over         bool                       `json:"over,omitempty"`    // nothing is watched any more
	Told         bool                       `json:"told,omitempty"`    // who offered was told of the decision, or it was given up
	Tries        int                        `json:"tries,omitempty"`   // to tell them
	Again        time.Time                  `json:"again,omitzero"`    // when it is tried again
	Endangered   bool                       `json:"endangered,omitempty"`
}

// served is what came of one service.
type served struct {
	Job      string            `json:"job,omitempty"`     // id of its activity
	Refused  string            `json:"refused,omitempty"` // why there is none, for good
	Sequence int               `json:"sequence,omitempty"`
	State    bes.State         `json:"state,omitempty"`
	Site     string            `json:"site,omitempty"`
	Ran      bool              `json:"ran,omitempty"` // it was started once
	Since    time.Time         `json:"since,omitzero"`
	Used     time.Duration     `json:"used,omitempty"` // that it ran, before Since, as evidence says
	Ended    time.Time         `json:"ended,omitzero"`
	Outcome  guarantee.Outcome `json:"outcome,omitempty"`
	Cut      bool              `json:"cut,omitempty"` // its window was over, and it was ended

	Opened bool  `json:"opened,omitempty"` // of a capacity: its window has begun
	Usable int64 `json:"usable,omitempty"` // and how much of it there is
}

// over reports whether nothing more is to come of a job.
func (v *served) over() bool { return !v.Ended.IsZero() }

// stop ends a stretch in which it ran.
func (v *served) stop(at time.Time) {
	if !v.Since.IsZero() {
		v.Used += max(0, at.Sub(v.Since))
		v.Since = time.Time{}
	}
}

// reserved is a reservation that a site's manager was asked for.
type reserved struct {
	Service  int             `json:"service"`
	Site     string          `json:"site"`
	Tag      adapters.Tag    `json:"tag"`
	Handle   adapters.Handle `json:"handle,omitempty"` // nil: it is not known to be there
	Released bool            `json:"released,omitempty"`
	Own      bool            `json:"own,omitempty"` // the manager makes none, and the gateway keeps the room by itself
}

// held gives the handle of the reservation that a service has; nil is none.
func (n *note) held(service int) adapters.Handle {
	for i := range n.Reservations {
		if r := &n.Reservations[i]; r.Service == service && len(r.Handle) > 0 && !r.Released {
			return r.Handle
		}
	}
	return nil
}

// kept reports whether a reservation may be there.
func (n *note) kept() bool {
	for i := range n.Reservations {
		if !n.Reservations[i].Released {
			return true
		}
	}
	return false
}

func noteOf(r *engine.Record) (*note, error) {
	n := &note{}
	if b := r.Notes[NoteName]; len(b) > 0 {
		if err := json.Unmarshal(b, n); err != nil {
			return nil, fail.E("service.note", fail.Internal, r.ID, err)
		}
	}
	return n, nil
}

// errSame is that nothing is to be written.
var errSame = errors.New("nothing changed")

// encode puts a note into a record.
func (n *note) encode(r *engine.Record) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fail.E("service.note", fail.Internal, r.ID, err)
	}
	if r.Notes == nil {
		r.Notes = map[string]json.RawMessage{}
	}
	r.Notes[NoteName] = b
	return nil
}

// Ledger gives the entries that an agreement has made in the ledger, the oldest first.
func Ledger(r *engine.Record) ([]ledger.Entry, error) {
	n, err := noteOf(r)
	if err != nil {
		return nil, err
	}
	return n.Entries, nil
}
