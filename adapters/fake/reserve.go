package fake

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// reservation keeps slots of a world for a window.
type reservation struct {
	tag         adapters.Tag
	account     string
	slots       int
	from, until time.Time
	running     int // jobs in it
	released    bool
	problem     string
	timers      []*time.Timer
}

func (r *reservation) stop() {
	for _, t := range r.timers {
		t.Stop()
	}
}

// over reports whether nothing is kept any more.
func (r *reservation) over(now time.Time) bool { return r.released || !now.Before(r.until) }

func (r *reservation) activeAt(t time.Time) bool {
	return !r.released && !t.Before(r.from) && t.Before(r.until)
}

func (r *reservation) state() adapters.ReservationState {
	s := adapters.ReservationState{
		Tag: r.tag, Handle: reservationHandle(r.tag), Share: "fake", From: r.from, Until: r.until, CPUs: r.slots, Nodes: []string{"fake"}, Problem: r.problem,
	}
	s.Phase = s.PhaseAt(time.Now())
	return s
}

const reservationPrefix = "fake-reservation/1 "

func reservationHandle(tag adapters.Tag) adapters.Handle {
	return adapters.Handle(reservationPrefix + string(tag))
}

func readReservation(h adapters.Handle) (adapters.Tag, error) {
	name, ok := strings.CutPrefix(string(h), reservationPrefix)
	if tag := adapters.Tag(name); ok && tag.Validate() == nil {
		return tag, nil
	}
	return "", fail.Errorf("fake", fail.Invalid, "", "the handle is not of a reservation of this adapter")
}

// LoseNextReservation loses the answer to the next reservation that is asked for, after it
// was made or on its way there.
func (w *World) LoseNextReservation(done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loseReserved = &done
}

// Trouble makes a reservation tell a problem; "" ends it.
func (w *World) Trouble(tag adapters.Tag, problem string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.reservations[tag]
	if r == nil {
		return fmt.Errorf("there is no reservation %s", tag)
	}
	r.problem = problem
	return nil
}

// What follows is called with mu held.

// named gives the reservation of a handle that still keeps something, or nil.
func (w *World) named(h adapters.Handle) *reservation {
	tag, err := readReservation(h)
	if err != nil {
		return nil
	}
	if r := w.reservations[tag]; r != nil && !r.over(time.Now()) {
		return r
	}
	return nil
}

// runsUntil is when a job that starts then has ended at the latest; the zero time is never.
func (j *job) runsUntil(start time.Time) time.Time {
	var end time.Time
	if d := j.spec.Definition; d != nil {
		if n := d.Program().Limits.WallTime; n != nil && n.IsInt64() && n.Int64() <= int64(1<<31) {
			end = start.Add(time.Duration(n.Int64()) * time.Second)
		}
	}
	if !j.notAfter.IsZero() && (end.IsZero() || j.notAfter.Before(end)) {
		end = j.notAfter
	}
	return end
}

// taken counts the slots that are reserved, or taken by jobs outside of reservations that
// run now, at a moment that is not past.
func (w *World) taken(at time.Time) int {
	n := 0
	for _, r := range w.reservations {
		if r.activeAt(at) {
			n += r.slots
		}
	}
	for _, j := range w.jobs {
		if j.within != nil || j.phase != adapters.Running && j.phase != adapters.Suspended {
			continue
		}
		if end := j.runsUntil(j.evidence.Started); end.IsZero() || end.After(at) || !at.After(time.Now()) {
			n++
		}
	}
	return n
}

// room reports whether so many slots are free from a moment until another; zero is for ever.
func (w *World) room(slots int, from, until time.Time) bool {
	if w.slots == 0 {
		return true
	}
	at := []time.Time{from}
	for _, r := range w.reservations {
		if !r.released && r.from.After(from) && (until.IsZero() || r.from.Before(until)) {
			at = append(at, r.from)
		}
	}
	for _, t := range at {
		if w.taken(t)+slots > w.slots {
			return false
		}
	}
	return true
}

// fits reports whether a queued job may start now.
func (w *World) fits(j *job) bool {
	now := time.Now()
	switch r := j.within; {
	case r != nil:
		return r.activeAt(now) && r.running < r.slots
	case w.slots == 0:
		return true
	case len(w.reservations) == 0:
		return w.running < w.slots
	}
	return w.room(1, now, j.runsUntil(now))
}

// reserve makes a reservation.
func (w *World) reserve(spec *adapters.Reservation) error {
	now := time.Now()
	r := &reservation{tag: spec.Tag, account: spec.Account, slots: max(spec.CPUs, spec.Nodes), from: spec.From, until: spec.Until}
	if r.from.Before(now) {
		r.from = now
	}
	if spec.CPUs == 0 { // whole nodes, of which there is one
		r.slots = max(w.slots, 1)
	}
	if !w.room(r.slots, r.from, r.until) {
		return fail.Errorf("fake.Reserve", fail.Exhausted, string(spec.Tag), "the site has no room for %d CPUs from %s until %s", r.slots, r.from.UTC().Format(time.RFC3339), r.until.UTC().Format(time.RFC3339))
	}
	w.reservations[spec.Tag] = r
	r.timers = []*time.Timer{time.AfterFunc(r.from.Sub(now), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fill()
	}), time.AfterFunc(r.until.Sub(now), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !r.released {
			w.finish(r)
		}
	})}
	w.fill()
	return nil
}

// finish ends what runs in a reservation, and lets what waits for it wait as any other.
func (w *World) finish(r *reservation) {
	for _, j := range w.jobs {
		if j.within != r {
			continue
		}
		if j.phase == adapters.Running || j.phase == adapters.Suspended {
			w.end(j, adapters.Evidence{Phase: adapters.Stopped, Reason: "the reservation that the job ran in has ended"})
		} else if !j.phase.Final() {
			j.within = nil
		}
	}
	w.fill()
}

// Reserve makes reservations.
func (a *base) Reserve(ctx context.Context, all []adapters.Reservation) []adapters.Reserved {
	out := make([]adapters.Reserved, len(all))
	trouble := a.request(ctx, "reserve")
	for i := range all {
		if out[i].Err = a.reserve(ctx, &all[i], trouble); out[i].Err == nil {
			out[i].Handle = reservationHandle(all[i].Tag)
		}
	}
	return out
}

func (a *base) reserve(ctx context.Context, spec *adapters.Reservation, trouble error) error {
	const op = "fake.Reserve"
	if err := spec.Tag.Validate(); err != nil {
		return err
	}
	if a.options.NoReserve {
		return fail.Errorf(op, fail.Unsupported, string(spec.Tag), "the site makes no reservations")
	}
	if trouble != nil {
		return trouble
	}
	f := a.fault(ctx, "reserve", spec.Tag)
	if f.Err != nil && !f.After {
		return f.Err
	}
	w := a.world
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := w.loseReserved
	w.loseReserved = nil
	answerLost := fail.Errorf(op, fail.Uncertain, string(spec.Tag), "the answer to the reservation was lost")
	if lost != nil && !*lost {
		return answerLost
	}
	if w.reservations[spec.Tag] == nil {
		if err := spec.Validate(time.Now()); err != nil {
			return err
		}
		if err := a.account(spec.Account); err != nil {
			return err
		}
		switch {
		case spec.Share != "" && spec.Share != "fake":
			return fail.Errorf(op, fail.Unsupported, string(spec.Tag), "the site has no share %q", spec.Share)
		case spec.Nodes > 1:
			return fail.Errorf(op, fail.Unsupported, string(spec.Tag), "the site has one node, fewer than the %d that are asked for", spec.Nodes)
		case w.slots > 0 && spec.CPUs > w.slots:
			return fail.Errorf(op, fail.Unsupported, string(spec.Tag), "the site has %d slots, fewer than the %d that are asked for", w.slots, spec.CPUs)
		}
		if err := w.reserve(spec); err != nil {
			return err
		}
	}
	if f.Err != nil {
		return f.Err
	}
	if lost != nil {
		return answerLost
	}
	return nil
}

// Reservations tells how they stand.
func (a *base) Reservations(ctx context.Context, tags []adapters.Tag) ([]adapters.ReservationState, error) {
	if a.options.NoReserve {
		return nil, fail.Errorf("fake.Reservations", fail.Unsupported, "", "the site makes no reservations")
	}
	if err := a.request(ctx, "reservations"); err != nil {
		return nil, err
	}
	w := a.world
	if tags == nil {
		w.mu.Lock()
		for tag := range w.reservations {
			tags = append(tags, tag)
		}
		w.mu.Unlock()
		slices.Sort(tags)
	}
	states := make([]adapters.ReservationState, 0, len(tags))
	for _, tag := range tags {
		if f := a.fault(ctx, "reservations", tag); f.Err != nil {
			return nil, f.Err
		}
		s := adapters.ReservationState{Tag: tag, Phase: adapters.ReservationGone}
		w.mu.Lock()
		if r := w.reservations[tag]; r != nil {
			s = r.state()
		}
		w.mu.Unlock()
		states = append(states, s)
	}
	return states, nil
}

// Unreserve releases reservations.
func (a *base) Unreserve(ctx context.Context, handles []adapters.Handle) []error {
	errs := make([]error, len(handles))
	trouble := a.request(ctx, "unreserve")
	for i, h := range handles {
		tag, err := readReservation(h)
		if err == nil {
			err = a.unreserve(ctx, tag, trouble)
		}
		errs[i] = err
	}
	return errs
}

func (a *base) unreserve(ctx context.Context, tag adapters.Tag, trouble error) error {
	const op = "fake.Unreserve"
	if a.options.NoReserve {
		return fail.Errorf(op, fail.Unsupported, string(tag), "the site makes no reservations")
	}
	if trouble != nil {
		return trouble
	}
	f := a.fault(ctx, "unreserve", tag)
	if f.Err != nil && !f.After {
		return f.Err
	}
	w := a.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.reservations[tag]; r != nil {
		if r.running > 0 && r.activeAt(time.Now()) {
			return fail.Errorf(op, fail.Conflict, string(tag), "jobs run in the reservation; end them, or wait for their end")
		}
		r.stop()
		r.released = true
		delete(w.reservations, tag)
		w.finish(r)
	}
	return f.Err
}

// within checks the reservation that a job names.
func (a *base) within(spec *adapters.Job) error {
	if len(spec.Reservation) == 0 {
		return nil
	}
	const op = "fake.Submit"
	if a.options.NoReserve {
		return spec.WithoutReservations(op)
	}
	if _, err := readReservation(spec.Reservation); err != nil {
		return err
	}
	a.world.mu.Lock()
	defer a.world.mu.Unlock()
	switch r := a.world.named(spec.Reservation); {
	case r == nil:
		return fail.Errorf(op, fail.NotFound, string(spec.Tag), "there is no such reservation, or none any more")
	case r.account != spec.Account:
		return fail.Errorf(op, fail.Denied, string(spec.Tag), "the reservation is not for the account %q", spec.Account)
	}
	return nil
}
