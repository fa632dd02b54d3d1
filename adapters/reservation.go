package adapters

import (
	"fmt"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Validate says what makes no sense anywhere (fail.Invalid), at a moment.
func (r *Reservation) Validate(now time.Time) error {
	const op = "adapters.Reservation"
	if err := r.Tag.Validate(); err != nil {
		return err
	}
	switch {
	case r.CPUs < 0 || r.Nodes < 0 || r.CPUs == 0 && r.Nodes == 0:
		return fail.Errorf(op, fail.Invalid, string(r.Tag), "a reservation must ask for CPUs or nodes")
	case r.CPUs > 0 && r.CPUs < r.Nodes:
		return fail.Errorf(op, fail.Invalid, string(r.Tag), "%d CPUs can't be spread over %d nodes; ask for at least one CPU of each node", r.CPUs, r.Nodes)
	case r.Until.IsZero():
		return fail.Errorf(op, fail.Invalid, string(r.Tag), "a reservation must have an end")
	case !r.Until.After(r.From):
		return fail.Errorf(op, fail.Invalid, string(r.Tag), "the reservation ends before it begins; choose an end after %s", r.From.UTC().Format(time.RFC3339))
	case !r.Until.After(now):
		return fail.Errorf(op, fail.Invalid, string(r.Tag), "the reservation's window is over since %s; choose one to come", r.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

var reservationPhaseNames = [...]string{
	ReservationUnknown: "unknown", ReservationPending: "pending", ReservationActive: "active", ReservationEnded: "ended", ReservationGone: "gone",
}

// ReservationPhases lists every phase of reservations, for tables that must be complete.
func ReservationPhases() []ReservationPhase {
	phases := make([]ReservationPhase, len(reservationPhaseNames))
	for i := range phases {
		phases[i] = ReservationPhase(i)
	}
	return phases
}

// String gives the phase in a word.
func (p ReservationPhase) String() string {
	if int(p) < len(reservationPhaseNames) {
		return reservationPhaseNames[p]
	}
	return fmt.Sprintf("reservation phase %d", uint8(p))
}

// PhaseAt gives the phase of a reservation that is kept, by its window alone.
func (s *ReservationState) PhaseAt(now time.Time) ReservationPhase {
	switch {
	case now.Before(s.From):
		return ReservationPending
	case now.Before(s.Until):
		return ReservationActive
	}
	return ReservationEnded
}

// WithoutReservations refuses a job that names a reservation, for a site that makes none; nil for any other.
func (j *Job) WithoutReservations(op string) error {
	if len(j.Reservation) == 0 {
		return nil
	}
	return fail.Errorf(op, fail.Unsupported, string(j.Tag), "the site makes no reservations; submit the job without one")
}
