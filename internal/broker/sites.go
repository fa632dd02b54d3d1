package broker

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/estimate"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// SiteState is whether a site is given jobs.
type SiteState string

// The states of a site.
const (
	SiteUp           SiteState = "up"
	SiteDown         SiteState = "down"         // it takes no jobs at present: Problem says why
	SiteFenced       SiteState = "fenced"       // somebody vouched that it runs nothing any more; it is given no jobs before it is rid of those of before
	SiteDraining     SiteState = "draining"     // it was taken out of the configuration, and has jobs
	SiteUnconfigured SiteState = "unconfigured" // jobs are there, and nobody knows how to ask it
)

// SiteStates lists them.
func SiteStates() []SiteState {
	return []SiteState{SiteUp, SiteDown, SiteFenced, SiteDraining, SiteUnconfigured}
}

// SiteStatus is how a site stands.
type SiteStatus struct {
	Name       string
	State      SiteState
	Problem    string              // a sentence; "" while there is none
	Evidence   time.Time           // when a job's evidence came last
	Properties adapters.Properties // zero without an adapter
	Health     adapters.Health
	Resources  *adapters.Resources // nil until known
	Capacity   *adapters.Capacity
	Waits      map[string]estimate.Wait // by share: how long a job of one CPU is estimated to wait, where anybody knows
	Jobs       map[Phase]int            // that it has or is being given
	Live       int                      // their sum
}

// Sites tells how all sites stand, those that are given jobs first.
func (b *Broker) Sites(ctx context.Context) ([]SiteStatus, error) {
	if _, err := b.caller(ctx, "broker.Sites", Submit); err != nil {
		return nil, err
	}
	return b.Survey(), nil
}

// Survey is Sites for the gateway itself. It asks no manager anything.
func (b *Broker) Survey() []SiteStatus {
	b.mu.Lock()
	names := slices.Clone(b.order)
	for _, name := range slices.Sorted(maps.Keys(b.sites)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.fences)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	sites := make([]*site, 0, len(names))
	out := make([]SiteStatus, 0, len(names))
	for _, name := range names {
		s := b.sites[name]
		if f := b.fences[name]; s == nil && f != nil { // it has no jobs, and is not configured
			s = newSite(b, name)
		}
		if s == nil {
			continue
		}
		st := SiteStatus{Name: name, State: SiteUp, Problem: s.troubleLocked(), Jobs: maps.Clone(s.phases), Live: s.inFlight}
		fence := s.fencedLocked()
		switch {
		case fence != "":
			st.State, st.Problem = SiteFenced, fence
		case !s.configured:
			st.State = SiteUnconfigured
		case s.draining:
			st.State = SiteDraining
		case st.Problem != "":
			st.State = SiteDown
		default:
			if st.Problem = s.barredLocked(); st.Problem != "" {
				st.State = SiteDown
			}
		}
		if s.unfenced != "" {
			st.Problem += "; it could not be made sure that it runs nothing any more: " + s.unfenced
		}
		st.Waits = s.waits(time.Now())
		sites, out = append(sites, s), append(out, st)
	}
	b.mu.Unlock()
	for i, s := range sites {
		if n := s.heard.Load(); n != 0 {
			out[i].Evidence = time.Unix(0, n)
		}
		out[i].Resources, out[i].Capacity = s.resources.Load(), s.capacity.Load()
		if c, done, err := s.borrow(); err == nil {
			out[i].Health, out[i].Properties = c.Health(), c.Properties()
			done()
		}
	}
	return out
}

// waits estimates how long a job of one CPU would wait at each share; the caller holds
// the lock.
func (s *site) waits(now time.Time) map[string]estimate.Wait {
	if s.static == nil {
		return nil
	}
	out := map[string]estimate.Wait{}
	for i := range s.static.Shares {
		p := resourcemodel.Place{Key: s.key(), Share: s.static.Shares[i].ID}
		if w, ok := s.b.book.Wait(estimate.Share{Key: p.Key, Share: p.Share}, s.b.stands(p, &resourcemodel.Need{Slots: 1, CPUs: 1}), now); ok {
			out[p.Share] = w
		}
	}
	return out
}

// AbandonActivities gives jobs up whose site can't be asked: they are Failed, as
// nobody knows what became of them, and they are not run again. It is for
// managers of the gateway who know that a site will not come back; what runs
// there goes on if the site is wrong about that.
func (b *Broker) AbandonActivities(ctx context.Context, activities []soap.EPR) ([]bes.Result, error) {
	const op = "broker.AbandonActivities"
	who, err := b.caller(ctx, op, Manage)
	if err != nil {
		return nil, err
	}
	return b.ask(ctx, activities, request{
		op: op, event: Abandon, done: "abandoned",
		reason: "given up by " + who.Name + ", as its site can't be asked: what became of it there is not known, and it is not run again",
		possible: func(id string, st *store.Status) error {
			s := b.siteOf(st)
			if s == nil || !Phase(st.Phase).atSite() || s.troubleLocked() != "" {
				return nil // the table has the word
			}
			return fail.Errorf(op, fail.Conflict, id, "the site %s, which has the activity, answers: terminate the activity", s.name)
		},
	})
}
