package slurm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// A reservation is named at Slurm as its tag says, PREFIX.TAG, so that whatever becomes of
// an answer, or of the gateway, the name tells whose it is; and Slurm takes no name twice.
// Its record is on disk before Slurm hears of it.

const reservationPrefix = "slurm-reservation/1 "

// reservationRecord is what is known of a reservation, beside what Slurm says.
type reservationRecord struct {
	Version int          `json:"version"`
	Tag     adapters.Tag `json:"tag"`
	Began   time.Time    `json:"began"` // when it was about to be made, the last time
	Made    bool         `json:"made"`  // Slurm said so
	Share   string       `json:"share"`
	From    time.Time    `json:"from"`
	Until   time.Time    `json:"until"`
}

// keepEnded is for how long a reservation is told of whose window is over.
const keepEnded = 14 * 24 * time.Hour

// reservationFor names a reservation at Slurm.
func (a *Adapter) reservationFor(tag adapters.Tag) string { return a.prefix() + string(tag) }

func reservationHandle(name string) adapters.Handle {
	return adapters.Handle(reservationPrefix + name)
}

// reservationName reads a handle: the name at Slurm, and the tag.
func reservationName(h adapters.Handle) (string, adapters.Tag, error) {
	name, ok := strings.CutPrefix(string(h), reservationPrefix)
	rest, ours := strings.CutPrefix(name, "portolan.")
	instance, tag, both := strings.Cut(rest, ".")
	if !ok || !ours || !both || instance == "" || !validBatch(instance) || adapters.Tag(tag).Validate() != nil {
		return "", "", fail.Errorf("slurm", fail.Invalid, "", "the handle is not of a reservation of the Slurm adapter")
	}
	return name, adapters.Tag(tag), nil
}

func (s spool) reservation(tag adapters.Tag) string { return s.path(dirReservations, string(tag)) }

func (s spool) writeReservation(r *reservationRecord) error {
	r.Version = specVersion
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeFile(s.reservation(r.Tag), data, 0o600)
}

// readReservation gives a record; nil if there is none.
func (s spool) readReservation(tag adapters.Tag) (*reservationRecord, error) {
	data, err := readBounded(s.reservation(tag), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(reservationRecord)
	if err := json.Unmarshal(data, r); err != nil || r.Version != specVersion || r.Tag != tag {
		return nil, fmt.Errorf("%s can't be understood", s.reservation(tag))
	}
	return r, nil
}

func (s spool) removeReservation(tag adapters.Tag) error {
	if err := os.Remove(s.reservation(tag)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// reservations lists the tags of which there are records.
func (s spool) reservations() ([]adapters.Tag, error) {
	entries, err := os.ReadDir(s.path(dirReservations))
	if err != nil {
		return nil, err
	}
	var tags []adapters.Tag
	for _, e := range entries {
		if tag := adapters.Tag(e.Name()); tag.Validate() == nil {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

// mayReserve finds out whether reservations are made here: Slurm lets root, its own account
// and its operators make them.
func (a *Adapter) mayReserve(ctx context.Context, cmds *commands) bool {
	switch {
	case a.settings.Reservations == "off" || !cmds.there():
		return false
	case a.settings.Reservations == "on" || a.root:
		return true
	case a.facts == nil:
		return false
	}
	return mayActForOthers(a.facts, a.own.user) || a.facts.Accounting && cmds.operator(ctx, a.own.user)
}

// books gives the way to reservations, which is by commands whatever the way in use, and
// makes sure that one thing at a time is done to them; done ends that.
func (a *Adapter) books(ctx context.Context, op string) (cmds *commands, done func(), err error) {
	if a.reserver == nil {
		return nil, nil, fail.Errorf(op, fail.Unsupported, "", "the gateway makes no reservations at this site: Slurm lets its operators make them; see the setting reservations")
	}
	if _, err := a.manager(); err != nil {
		return nil, nil, err
	}
	select {
	case a.reserving <- struct{}{}:
		return a.reserver, func() { <-a.reserving }, nil
	case <-ctx.Done():
		return nil, nil, fail.Errorf(op, fail.Unavailable, "", "other reservations are being made").Because(ctx.Err())
	}
}

// Reserve implements adapters.Reserver.
func (a *Adapter) Reserve(ctx context.Context, reservations []adapters.Reservation) []adapters.Reserved {
	const op = "slurm.Reserve"
	out := make([]adapters.Reserved, len(reservations))
	for i := range reservations {
		out[i].Err = reservations[i].Validate(time.Now())
	}
	all := func(err error) []adapters.Reserved {
		for i := range out {
			if out[i].Err == nil {
				out[i].Err = err
			}
		}
		return out
	}
	cmds, done, err := a.books(ctx, op)
	if err != nil {
		return all(err)
	}
	defer done()
	info, f, err := a.ready(ctx)
	if err != nil {
		return all(err)
	}
	for i := range reservations {
		if out[i].Err != nil { // unless it is made, whatever is asked for now
			if r, err := a.spool.readReservation(reservations[i].Tag); reservations[i].Tag.Validate() == nil && err == nil && r != nil && r.Made {
				out[i] = adapters.Reserved{Handle: reservationHandle(a.reservationFor(r.Tag))}
			}
			continue
		}
		if out[i].Err = a.reserveOne(ctx, cmds, info, f, &reservations[i]); out[i].Err == nil {
			out[i].Handle = reservationHandle(a.reservationFor(reservations[i].Tag))
		}
	}
	return out
}

// reserveOne makes one reservation. One whose answer was lost is simply asked for again:
// Slurm takes its name but once.
func (a *Adapter) reserveOne(ctx context.Context, cmds *commands, info *siteInfo, f *facts, want *adapters.Reservation) error {
	const op = "slurm.Reserve"
	cant := func(err error) error {
		return fail.Errorf(op, fail.Unavailable, string(want.Tag), "the reservation could not be written to the site's spool: %s", why(err)).Because(err)
	}
	before, err := a.spool.readReservation(want.Tag)
	if err != nil {
		return cant(err)
	}
	if before != nil && before.Made {
		return nil
	}
	if before != nil { // while the site is full, Slurm says so before it says that a name is taken
		all, err := cmds.bookings(ctx)
		if err != nil {
			a.unwell(err)
			return unavailable(op, string(want.Tag), err)
		}
		if slices.ContainsFunc(all, func(x booked) bool { return x.Name == a.reservationFor(want.Tag) }) {
			before.Made = true
			if err := a.spool.writeReservation(before); err != nil {
				return cant(err)
			}
			return nil
		}
	}
	b, err := a.planBooking(info, f, want)
	if err != nil {
		return err
	}
	r := &reservationRecord{Tag: want.Tag, Began: time.Now(), Share: b.Partition, From: b.From, Until: b.Until}
	if r.From.IsZero() {
		r.From = r.Began.Truncate(time.Second)
	}
	if err := a.spool.writeReservation(r); err != nil {
		return cant(err)
	}
	err = cmds.book(ctx, b)
	if err == nil && b.Cores == 0 {
		err = a.got(ctx, cmds, b)
	}
	switch {
	case err == nil:
		r.Made = true
		if err := a.spool.writeReservation(r); err != nil { // the name still tells
			a.log.Warn("that a reservation was made could not be written down", "tag", want.Tag, "error", err)
		}
		return nil
	case fail.Is(err, fail.Uncertain) || before != nil: // of which the first try may still be under way
		a.unwell(err)
		return err
	}
	a.unwell(err)
	if e := a.spool.removeReservation(want.Tag); e != nil {
		a.log.Warn("a reservation that was not made leaves a file behind", "tag", want.Tag, "error", e)
	}
	return err
}

// got takes a reservation of nodes back that has fewer than it asked for, as Slurm makes it
// where there are no more.
func (a *Adapter) got(ctx context.Context, cmds *commands, b *booking) error {
	all, err := cmds.bookings(ctx)
	if err != nil {
		return fail.Errorf("slurm.Reserve", fail.Uncertain, b.Name, "Slurm did not say what it reserved").Because(err)
	}
	i := slices.IndexFunc(all, func(x booked) bool { return x.Name == b.Name })
	if i < 0 || len(all[i].Nodes) >= b.Nodes {
		return nil
	}
	if _, err := cmds.unbook(ctx, b.Name); err != nil {
		return fail.Errorf("slurm.Reserve", fail.Uncertain, b.Name, "Slurm reserved too little, and could not take it back").Because(err)
	}
	return fail.Errorf("slurm.Reserve", fail.Exhausted, b.Name, "the site has no room for the reservation in its window: %d of %d nodes are free", len(all[i].Nodes), b.Nodes)
}

// Reservations implements adapters.Reserver, with one request for all.
func (a *Adapter) Reservations(ctx context.Context, tags []adapters.Tag) ([]adapters.ReservationState, error) {
	const op = "slurm.Reservations"
	if tags != nil && len(tags) == 0 {
		return nil, nil
	}
	cmds, done, err := a.books(ctx, op)
	if err != nil {
		return nil, err
	}
	defer done()
	asked := time.Now()
	all, err := cmds.bookings(ctx)
	if err != nil {
		a.unwell(err)
		return nil, unavailable(op, "", err)
	}
	known := map[adapters.Tag]*booked{}
	for i := range all {
		if tag, ok := strings.CutPrefix(all[i].Name, a.prefix()); ok && adapters.Tag(tag).Validate() == nil {
			known[adapters.Tag(tag)] = &all[i]
		}
	}
	everything := tags == nil
	if everything {
		if tags, err = a.spool.reservations(); err != nil {
			return nil, fail.Errorf(op, fail.Unavailable, "", "the site's spool can't be read: %s", why(err)).Because(err)
		}
		for tag := range known {
			if !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
		slices.Sort(tags)
	}
	var down map[string]bool
	if len(known) > 0 {
		down = a.downNodes(ctx)
	}
	states := make([]adapters.ReservationState, 0, len(tags))
	for _, tag := range tags {
		s := a.reservation(tag, known[tag], down, asked)
		if everything && s.Phase == adapters.ReservationGone && s.Problem == "" {
			continue
		}
		states = append(states, s)
	}
	return states, nil
}

// downNodes names the nodes that take no jobs, as far as is known; that it is not known is
// no reason to say nothing else.
func (a *Adapter) downNodes(ctx context.Context) map[string]bool {
	down := map[string]bool{}
	info, err := a.info(ctx, max(a.settings.poll, time.Second))
	if err != nil {
		return nil
	}
	for i := range info.Nodes {
		if n := &info.Nodes[i]; !n.fit("RESERVED") {
			down[n.Name] = true
		}
	}
	return down
}

// reservation says how one stands, by what Slurm has and what was written down.
func (a *Adapter) reservation(tag adapters.Tag, at *booked, down map[string]bool, asked time.Time) adapters.ReservationState {
	const op = "slurm.Reservations"
	s := adapters.ReservationState{Tag: tag, Phase: adapters.ReservationGone}
	if tag.Validate() != nil {
		return s
	}
	r, err := a.spool.readReservation(tag)
	if err != nil {
		s.Phase, s.Err = adapters.ReservationUnknown, fail.Errorf(op, fail.Unavailable, string(tag), "the record of the reservation can't be read: %s", why(err)).Because(err)
		return s
	}
	if at != nil {
		if r == nil || !r.Made {
			r = &reservationRecord{Tag: tag, Began: asked, Made: true, Share: at.Partition, From: at.From, Until: at.Until}
			if err := a.spool.writeReservation(r); err != nil {
				a.log.Warn("that a reservation was made could not be written down", "tag", tag, "error", err)
			}
		}
		s.Handle, s.Share, s.From, s.Until, s.CPUs = reservationHandle(at.Name), at.Partition, at.From, at.Until, at.CPUs
		s.Nodes = at.Nodes[:min(len(at.Nodes), adapters.MaxHostNames)]
		switch s.Phase = s.PhaseAt(asked); { // Slurm's own word counts where its clock differs
		case at.Active:
			s.Phase = adapters.ReservationActive
		case s.Phase == adapters.ReservationActive:
			s.Phase = adapters.ReservationPending
		}
		s.Problem = nodeProblem(at.Nodes, down)
		return s
	}
	if r == nil {
		return s
	}
	forget := func() {
		if err := a.spool.removeReservation(tag); err != nil {
			a.log.Warn("a reservation that is no more leaves a file behind", "tag", tag, "error", err)
		}
	}
	switch {
	case !r.Made && a.mayBeUnderWay(r, asked):
		s.Phase, s.Err = adapters.ReservationUnknown, fail.Errorf(op, fail.Unavailable, string(tag), "Slurm does not know the reservation, but may still be about to make it; ask again in a few seconds")
	case !r.Made:
		forget()
	case !asked.Before(r.Until.Add(keepEnded)):
		forget()
	case !asked.Before(r.Until):
		s.Handle, s.Phase, s.Share, s.From, s.Until = reservationHandle(a.reservationFor(tag)), adapters.ReservationEnded, r.Share, r.From, r.Until
	default:
		s.Problem = "Slurm has the reservation no more: somebody deleted it, or a controller that was killed has forgotten it"
	}
	return s
}

// nodeProblem says which nodes of a reservation take no jobs.
func nodeProblem(nodes []string, down map[string]bool) string {
	var bad []string
	for _, n := range nodes {
		if down[n] {
			bad = append(bad, n)
		}
	}
	switch len(bad) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("the node %s of the reservation takes no jobs", bad[0])
	}
	return fmt.Sprintf("%d of the reservation's %d nodes take no jobs: %s", len(bad), len(nodes), clip(hostlist(bad)))
}

// Unreserve implements adapters.Reserver.
func (a *Adapter) Unreserve(ctx context.Context, handles []adapters.Handle) []error {
	const op = "slurm.Unreserve"
	errs := make([]error, len(handles))
	cmds, done, trouble := a.books(ctx, op)
	if trouble == nil {
		defer done()
	}
	for i, h := range handles {
		name, tag, err := reservationName(h)
		switch { // a handle that is none is refused in any case
		case err != nil:
		case trouble != nil:
			err = trouble
		default:
			err = a.unreserveOne(ctx, cmds, name, tag)
		}
		errs[i] = err
	}
	return errs
}

func (a *Adapter) unreserveOne(ctx context.Context, cmds *commands, name string, tag adapters.Tag) error {
	const op = "slurm.Unreserve"
	there, err := cmds.unbook(ctx, name)
	if err != nil {
		a.unwell(err)
		return err
	}
	if name != a.reservationFor(tag) { // of a spool of before
		return nil
	}
	r, err := a.spool.readReservation(tag)
	if err == nil && r != nil && !r.Made && !there && a.mayBeUnderWay(r, time.Now()) {
		return fail.Errorf(op, fail.Unavailable, name, "Slurm does not know the reservation, but may still be about to make it; try again in a few seconds")
	}
	if err := a.spool.removeReservation(tag); err != nil {
		return fail.Errorf(op, fail.Unavailable, name, "the site's spool can't be written to: %s", why(err)).Because(err)
	}
	return nil
}

// mayBeUnderWay reports whether Slurm may still make a reservation that it does not know: it
// is on its way through a controller that hangs, or has just woken up.
func (a *Adapter) mayBeUnderWay(r *reservationRecord, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	window := 10 * time.Second
	if a.facts != nil && a.facts.MessageTimeout > 0 {
		window = a.facts.MessageTimeout
	}
	return now.Before(r.Began.Add(window)) || now.Before(a.health.Since.Add(calm))
}

// within puts a planned job into the reservation that it names.
func (a *Adapter) within(p *plan, job *adapters.Job) error {
	if len(job.Reservation) == 0 {
		return nil
	}
	const op = "slurm.Submit"
	if a.reserver == nil {
		return job.WithoutReservations(op)
	}
	name, tag, err := reservationName(job.Reservation)
	if err != nil {
		return err
	}
	if p.request.Reservation != "" && p.request.Reservation != name {
		return fail.Errorf(op, fail.Invalid, string(job.Tag), "Reservation: the job is placed into a reservation already, and can't name another")
	}
	p.request.Reservation, p.spec.Reservation = name, name
	if r, err := a.spool.readReservation(tag); err == nil && r != nil && p.request.Partition == "" {
		p.request.Partition = r.Share
	}
	return nil
}
