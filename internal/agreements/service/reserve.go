package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
)

// tagPrefix begins the tags of reservations for agreements; the agreement's id follows, which is a
// UUID, and what tells those of one agreement apart.
const tagPrefix = "wsag-"

const uuidLength = 36

// tagOf gives the tag of the n-th reservation that an agreement asks for; none is used twice.
func tagOf(id string, n int) adapters.Tag {
	return adapters.Tag(fmt.Sprintf("%s%s-%d", tagPrefix, id, n))
}

// agreementOf gives the agreement that a tag is of.
func agreementOf(tag adapters.Tag) (string, bool) {
	rest, ok := strings.CutPrefix(string(tag), tagPrefix)
	if !ok || len(rest) < uuidLength {
		return "", false
	}
	return rest[:uuidLength], true
}

// wantsReservation reports whether a manager is to be asked for what is promised. Capacity is kept by
// the gateway's own calendar everywhere: a manager would keep it from the VO's jobs too, which do
// not name it.
func (s *Service) wantsReservation(k terms.Kind, placed []terms.Placed) bool {
	return k == terms.AdvanceReservation && slices.ContainsFunc(placed, func(p terms.Placed) bool { return s.b.Reserves(p.Site) })
}

// secure has the managers of the sites of an agreement's plan make what they are to keep; where one
// refuses, the next of the plans is tried. The error is what the last one said.
func (s *Service) secure(ctx context.Context, r engine.Record, plans []engine.Plan) (engine.Record, error) {
	offset := 0
	for {
		done, refused := s.reserve(ctx, r)
		if refused == nil {
			return done, nil
		}
		if err := s.release(ctx, r.ID); err != nil {
			s.o.Log.Warn("a reservation is released later", "agreement", r.ID, "cause", err)
		}
		at := offset + r.Alternative
		if at+1 >= len(plans) {
			return r, refused
		}
		next, err := s.e.Replan(ctx, r.ID, "another place is tried: "+fail.Sentence(refused), plans[at+1:])
		if err != nil {
			return r, refused
		}
		r, offset = next, at+1
	}
}

// reserve makes the reservations of a plan. A manager that does not let the gateway make any leaves
// it to the gateway's own calendar. Again, it goes on with what was begun.
func (s *Service) reserve(ctx context.Context, r engine.Record) (engine.Record, error) {
	x, err := s.read(ctx, &r)
	if err != nil {
		return r, err
	}
	placed, err := terms.Placements(r.Plan)
	if err != nil || x.detail.Kind != terms.AdvanceReservation {
		return r, err
	}
	// It is written down before a manager is asked, so that it is found whatever happens.
	var wanted []reserved
	begun, err := s.e.Update(ctx, r.ID, func(r *engine.Record) error {
		n, err := noteOf(r)
		if err != nil {
			return err
		}
		wanted = nil
		fresh := false
		for i := range placed {
			if !s.b.Reserves(placed[i].Site) || len(placed[i].Holds) == 0 {
				continue
			}
			at := slices.IndexFunc(n.Reservations, func(w reserved) bool {
				return w.Service == i && w.Site == placed[i].Site && (!w.Released || w.Own)
			})
			if at >= 0 {
				if w := n.Reservations[at]; len(w.Handle) == 0 && !w.Own {
					wanted = append(wanted, w)
				}
				continue
			}
			w := reserved{Service: i, Site: placed[i].Site, Tag: tagOf(r.ID, len(n.Reservations))}
			n.Reservations, wanted, fresh = append(n.Reservations, w), append(wanted, w), true
		}
		if !fresh {
			return errSame
		}
		return n.encode(r)
	})
	switch {
	case err == nil:
		r = begun
	case !errors.Is(err, errSame):
		return r, err
	}
	if len(wanted) == 0 {
		return r, nil
	}
	var own []string // kept by our own calendar
	for i := range wanted {
		w := &wanted[i]
		at, h := placed[w.Service], r.Plan.Holds[placed[w.Service].Holds[0]]
		w.Handle, err = s.b.Reserve(ctx, w.Site, r.Owner, adapters.Reservation{
			Tag: w.Tag, Share: at.Share, Account: x.detail.Account, CPUs: int(at.CPUs), Nodes: int(at.Nodes), From: h.From, Until: h.Until,
		})
		switch {
		case err == nil:
		case fail.Is(err, fail.Denied) || fail.Is(err, fail.Unsupported):
			o, lost := s.b.Outlook(at.Site, at.Share, int(max(1, at.CPUs)), h.Until.Sub(h.From), r.VO)
			if lost != nil || o.Start.IsZero() || o.Start.After(h.From) {
				return r, refusedBy(w.Site, err)
			}
			w.Released, w.Own = true, true // there is none
			own = append(own, fmt.Sprintf("the manager of %s makes no reservation (%s): the gateway keeps the room by itself", w.Site, fail.Sentence(err)))
		default:
			return r, refusedBy(w.Site, err)
		}
	}
	return s.e.Update(ctx, r.ID, func(r *engine.Record) error {
		n, err := noteOf(r)
		if err != nil {
			return err
		}
		for _, w := range wanted {
			for i := range n.Reservations {
				if n.Reservations[i].Tag == w.Tag {
					n.Reservations[i] = w
				}
			}
			if w.Released {
				continue
			}
			r.Tell(s.now(), "reserved", fmt.Sprintf("the manager of the site %s keeps it, as %s", w.Site, w.Tag))
		}
		for _, why := range own {
			r.Tell(s.now(), "kept", why)
		}
		return n.encode(r)
	})
}

// refusedBy is a refusal of a site's manager.
func refusedBy(site string, err error) error {
	if fail.Is(err, fail.Unavailable) || fail.Is(err, fail.Uncertain) {
		return fail.Errorf("service.reserve", fail.KindOf(err), site, "the manager of the site %s does not answer (%s); try again later, or ask for another site", site, fail.Sentence(err)).Because(err)
	}
	r := agreement.Refuse(agreement.NoCapacity, fmt.Sprintf("the manager of the site %s does not reserve it: %s", site, fail.Sentence(err)))
	r.Cause = err
	return r
}

// release releases the reservations of an agreement that may be there. fail.Conflict is that jobs run
// in one.
func (s *Service) release(ctx context.Context, id string) error {
	r, err := s.e.Get(ctx, id)
	if err != nil {
		return err
	}
	n, err := noteOf(&r)
	if err != nil || !n.kept() {
		return err
	}
	gone := map[adapters.Tag]bool{}
	var failed error
	for i := range n.Reservations {
		w := &n.Reservations[i]
		if w.Released {
			continue
		}
		if err := s.unreserve(ctx, w.Site, w.Tag, w.Handle); err != nil {
			failed = err
			continue
		}
		gone[w.Tag] = true
	}
	if len(gone) == 0 {
		return failed
	}
	_, err = s.e.Update(ctx, id, func(r *engine.Record) error {
		n, err := noteOf(r)
		if err != nil {
			return err
		}
		for i := range n.Reservations {
			if w := &n.Reservations[i]; gone[w.Tag] && !w.Released {
				w.Released = true
				if len(w.Handle) > 0 {
					r.Tell(s.now(), "released", fmt.Sprintf("the reservation %s at the site %s is released", w.Tag, w.Site))
				}
			}
		}
		return n.encode(r)
	})
	if err != nil {
		return err
	}
	return failed
}

// unreserve releases a reservation whose handle may not be known.
func (s *Service) unreserve(ctx context.Context, site string, tag adapters.Tag, h adapters.Handle) error {
	if len(h) == 0 {
		states, err := s.b.Reservations(ctx, site, []adapters.Tag{tag})
		switch {
		case err != nil:
			return err
		case len(states) != 1:
			return fail.Errorf("service.release", fail.Internal, site, "the site %s tells of %d reservations where it was asked for one", site, len(states))
		case states[0].Phase == adapters.ReservationGone:
			return nil
		case states[0].Phase == adapters.ReservationUnknown || len(states[0].Handle) == 0:
			return fail.Errorf("service.release", fail.Unavailable, site, "the site %s can't tell of a reservation now", site).Because(states[0].Err)
		}
		h = states[0].Handle
	}
	return s.b.Unreserve(ctx, site, h)
}

// sweepLoop looks once, at each site, for reservations that nobody needs any more: of agreements that
// ended while nobody was here.
func (s *Service) sweepLoop(ctx context.Context) error {
	swept := map[string]bool{}
	for wait := time.Second; ; wait = min(2*wait, 10*time.Minute) {
		left := false
		for _, site := range s.b.Reserving() {
			if swept[site] {
				continue
			}
			if err := s.sweep(ctx, site); err != nil {
				s.o.Log.Info("the reservations of a site are looked through later", "site", site, "cause", err)
				left = true
				continue
			}
			swept[site] = true
		}
		if ctx.Err() != nil || !left {
			return nil //nolint:nilerr // what fails is tried again
		}
		if !pause(ctx, wait) {
			return nil
		}
	}
}

// sweep releases the reservations of a site that no agreement has.
func (s *Service) sweep(ctx context.Context, site string) error {
	states, err := s.b.Reservations(ctx, site, nil)
	if err != nil {
		return err
	}
	var failed error
	for i := range states {
		st := &states[i]
		id, ours := agreementOf(st.Tag)
		if !ours || len(st.Handle) == 0 {
			continue
		}
		r, err := s.e.Get(ctx, id)
		switch {
		case fail.Is(err, fail.NotFound):
		case err != nil:
			failed = err
			continue
		case !r.Final():
			continue
		}
		if err := s.b.Unreserve(ctx, site, st.Handle); err != nil {
			failed = err
			continue
		}
		s.o.Log.Info("a reservation that no agreement needs any more was released", "site", site, "tag", string(st.Tag))
	}
	return failed
}
