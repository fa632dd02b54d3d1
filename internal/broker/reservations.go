package broker

import (
	"context"
	"maps"
	"slices"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// What those who make agreements ask of the broker beside jobs: whether a job would be taken, and
// reservations at sites whose managers make them.

// Admissible says whether a job with this document and promise (nil is none) would be taken from the
// principal in ctx; nothing is made. The errors are those of SubmitPromised, but for limits on how
// many jobs there may be.
func (b *Broker) Admissible(ctx context.Context, doc []byte, p *Promise) error {
	_, _, _, err := b.admissible(ctx, "broker.Admissible", &bes.CreateActivityRequest{Document: doc}, p)
	return err
}

// Belongs gives nil when the principal in ctx may act for a VO ("" is none), or fail.Denied.
func (b *Broker) Belongs(ctx context.Context, vo string) error {
	return b.member(soap.PrincipalFrom(ctx), vo)
}

// Reference gives the EPR of an activity by its id.
func (b *Broker) Reference(id string) soap.EPR { return b.reference(id) }

// Reserves reports whether the manager of a site makes reservations.
func (b *Broker) Reserves(site string) bool {
	s := b.reserving(site)
	if s == nil {
		return false
	}
	c := s.conn.Load()
	return c != nil && c.reserver != nil
}

// Reserving gives the sites whose managers make reservations, by name.
func (b *Broker) Reserving() []string {
	b.mu.Lock()
	names := slices.Sorted(maps.Keys(b.sites))
	b.mu.Unlock()
	return slices.DeleteFunc(names, func(n string) bool { return !b.Reserves(n) })
}

func (b *Broker) reserving(name string) *site {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sites[name]
}

// reserver gives the ability of a site, and what must be called after its use.
func (b *Broker) reserver(op, name string) (*site, adapters.Reserver, func(), error) {
	s := b.reserving(name)
	if s == nil {
		return nil, nil, nil, fail.Errorf(op, fail.NotFound, name, "there is no site %s here", name)
	}
	c, release, err := s.borrow()
	if err != nil {
		return nil, nil, nil, err
	}
	if c.reserver == nil {
		release()
		return nil, nil, nil, fail.Errorf(op, fail.Unsupported, name, "the site %s makes no reservations", name)
	}
	return s, c.reserver, release, nil
}

// Reserve makes a reservation at a site, for the jobs of an owner, whose account there it fills in,
// unless r has one; the errors are those of adapters.Reserver.
func (b *Broker) Reserve(ctx context.Context, site, owner string, r adapters.Reservation) (adapters.Handle, error) {
	s, c, release, err := b.reserver("broker.Reserve", site)
	if err != nil {
		return nil, err
	}
	defer release()
	b.mu.Lock()
	if r.Account == "" {
		r.Account = s.accountOf(owner)
	}
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	made := c.Reserve(ctx, []adapters.Reservation{r})[0]
	return made.Handle, made.Err
}

// Reservations tells how those of a site stand, by their tags; nil tags are all that are kept for
// this gateway.
func (b *Broker) Reservations(ctx context.Context, site string, tags []adapters.Tag) ([]adapters.ReservationState, error) {
	_, c, release, err := b.reserver("broker.Reservations", site)
	if err != nil {
		return nil, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return c.Reservations(ctx, tags)
}

// Unreserve releases one of a site; the errors are those of adapters.Reserver.
func (b *Broker) Unreserve(ctx context.Context, site string, h adapters.Handle) error {
	_, c, release, err := b.reserver("broker.Unreserve", site)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return c.Unreserve(ctx, []adapters.Handle{h})[0]
}
