package broker

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/resourcemodel"
)

// A peer is a site whose adapter says to which domain it leads (adapters.Properties). What
// it has is what the shared model has of that domain, and its jobs are placed by the order
// that peers/routing gives: see schedule.Peers. Without such a site nothing of this file
// has any effect.

// Peering is what whoever keeps the sessions knows of the peers, and how jobs are routed.
type Peering struct {
	Own    string // the domain that this gateway speaks for
	Policy routing.Policy
	Hops   int // that a job of our own may make; default 3
	// Peers says how domains stand. One of which nothing is said is given no jobs.
	Peers map[string]Standing
}

// Standing is how a peer stands.
type Standing struct {
	Role routing.Role
	// Away says in a sentence why it can be given no jobs now; "" is that it can.
	Away    string
	Balance ledger.Balance
}

// remeasure is how often what was measured of peers is taken in at most, and rejudge how often
// it is looked at which jobs are to be taken back.
const (
	remeasure = 10 * time.Second
	rejudge   = time.Second
	// mostBack bounds the jobs that are asked back at a time.
	mostBack = 64
	// forgetBack is how long a job that was asked back counts against the room at home.
	forgetBack = time.Minute
)

// afield is what the broker keeps of peers; Broker.mu guards it.
type afield struct {
	own      atomic.Pointer[string] // the domain of this gateway, once it is known; not guarded
	bought   []Bought               // room of other domains that is ours
	peering  *Peering               // nil: there are no peers
	told     *schedule.Peers        // that the scheduler has
	domains  map[string]bool        // of told
	stale    bool                   // the scheduler must be told all anew
	pending  []resourcemodel.Delta
	revision int64 // of what the scheduler has of the peers
	measured time.Time
	judged   time.Time
	back     map[string]time.Time // jobs that were asked back, and when
}

// SetPeers tells how the peers stand and how jobs are routed; nil is that none is given
// jobs. It is to be called whenever something of it changes, and costs little when nothing
// did. The Peering is not to be changed afterwards. The error is fail.Invalid, of a policy
// that contradicts itself.
func (b *Broker) SetPeers(p *Peering) error {
	if p != nil {
		own := *p
		own.Policy = own.Policy.EnsureDefaults()
		def(&own.Hops, 3)
		if err := own.Policy.Check(); err != nil {
			return err
		}
		p = &own
		b.far.own.Store(&own.Own)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.far.peering, b.far.measured = p, time.Time{}
	nudge(b.wakeDispatch)
	return nil
}

// domain gives the domain to which a site leads; "" is our own.
func (s *site) domain() string {
	if c := s.conn.Load(); c != nil {
		return c.props.Domain
	}
	return ""
}

// heardFar is told of each change of the shared model.
func (b *Broker) heardFar(d resourcemodel.Delta) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.far.told == nil || b.far.stale {
		return
	}
	var changes []resourcemodel.Change
	for i := range d.Changes {
		if b.far.domains[d.Changes[i].Key.Domain] {
			changes = append(changes, d.Changes[i])
		}
	}
	if len(changes) == 0 {
		return
	}
	if len(b.far.pending) >= maxPendingFar {
		b.far.stale, b.far.pending = true, nil
	} else {
		b.far.pending = append(b.far.pending, resourcemodel.Delta{At: d.At, Changes: changes})
	}
	nudge(b.wakeDispatch)
}

// maxPendingFar bounds the changes that wait to be taken in: beyond them all is read anew.
const maxPendingFar = 4096

// feedFar brings what the scheduler knows of peers up to now; the caller holds the lock.
func (b *Broker) feedFar(now time.Time) {
	f := &b.far
	if f.peering == nil && f.told == nil {
		return
	}
	if f.stale || f.told == nil || now.Sub(f.measured) >= remeasure {
		f.measured = now
		if is := b.peersNow(now); f.stale || !reflect.DeepEqual(is, f.told) {
			domains := map[string]bool{}
			if is != nil {
				for i := range is.Peers {
					domains[is.Peers[i].Domain] = true
				}
			}
			f.stale = f.stale || !maps.Equal(domains, f.domains)
			f.told, f.domains = is, domains
			b.sched.SetPeers(is)
		}
	}
	sh := b.shared.Load()
	switch {
	case f.told == nil || sh == nil:
		f.pending = nil
	case f.stale:
		f.pending, f.stale = nil, false
		f.revision++
		b.sched.ResetFar(b.farOf(sh.model.Snapshot()))
	default:
		for _, d := range f.pending {
			f.revision++
			d.Revision = f.revision
			if err := b.sched.ApplyFar(d); err != nil {
				b.cfg.Log.Error("the model of the peers could not follow what they show; it is read anew", "cause", err)
				f.stale = true
			}
		}
		f.pending = nil
	}
}

// farOf gives what a snapshot has of the peers' domains.
func (b *Broker) farOf(m *resourcemodel.Snapshot) *resourcemodel.Snapshot {
	d := resourcemodel.Delta{Revision: b.far.revision, At: m.At()}
	for _, domain := range slices.Sorted(maps.Keys(b.far.domains)) {
		for site := range m.SitesOf(domain) {
			d.Changes = append(d.Changes, resourcemodel.Change{Key: site.Key, Static: site.Static, Dynamic: site.Dynamic})
		}
	}
	out, err := resourcemodel.Empty().Apply(d)
	if err != nil {
		b.cfg.Log.Error("what the peers show can't be taken in; they are given no jobs", "cause", err)
		return resourcemodel.Empty()
	}
	return out
}

// peersNow gives the peers among the sites, in the order of the roster; nil without any.
func (b *Broker) peersNow(now time.Time) *schedule.Peers {
	p := b.far.peering
	if p == nil {
		return nil
	}
	out := &schedule.Peers{Own: p.Own, Policy: p.Policy, Hops: p.Hops}
	seen := map[string]bool{}
	for _, s := range b.roster.Load().sites {
		domain := s.domain()
		if domain == "" || seen[domain] {
			continue
		}
		seen[domain] = true
		st, known := p.Peers[domain]
		if !known {
			st.Away = "nothing is known of a session with the domain " + domain
		}
		out.Peers = append(out.Peers, schedule.Peer{
			Site: s.key(), Bought: b.boughtOf(domain, now), Peer: routing.Peer{Domain: domain, Role: st.Role, Away: clean(st.Away), Balance: st.Balance, Measured: b.measuredAt(s, now)},
		})
	}
	if len(out.Peers) == 0 {
		return nil
	}
	return out
}

// Measured tells what our jobs met with at a site: see routing.Measured.
func (b *Broker) Measured(site string) routing.Measured {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sites[site]; s != nil {
		return b.measuredAt(s, time.Now())
	}
	return routing.Measured{}
}

// measuredAt rounds what was measured, so that what is as good as the same is the same. The
// caller holds the lock.
func (b *Broker) measuredAt(s *site, now time.Time) routing.Measured {
	sum := b.book.Site(s.key(), now)
	round := func(x float64) float64 { return math.Round(x*50) / 50 }
	jobs := int(math.Round(sum.Jobs))
	if jobs > 16 { // more make no difference to the trust in it
		jobs = 16 << (uint(math.Log2(sum.Jobs/16)) & 31)
	}
	m := routing.Measured{Jobs: jobs, Success: round(sum.Success), Speed: round(sum.Speed), Wait: sum.Wait.Round(time.Second)}
	if jobs == 0 {
		return routing.Measured{}
	}
	return m
}

// way gives how a job came here from another domain; nil of our own.
func (k *kind) way() *schedule.Way {
	if k.foreign == nil {
		return nil
	}
	return &schedule.Way{Path: k.foreign.Path, Hops: k.foreign.Hops}
}

// cannotFar is cannot for a peer. What it shows not yet may be anything.
func (b *Broker) cannotFar(domain string, r *resourcemodel.Request) string {
	sh := b.shared.Load()
	if sh == nil || b.far.told == nil {
		return ""
	}
	shown, first := false, ""
	for site := range sh.model.Snapshot().SitesOf(domain) {
		if site.Static == nil {
			continue
		}
		shown = true
		for w := range resourcemodel.Widest(site).Places() {
			if r.Fits(w, resourcemodel.Derived{}) {
				return ""
			}
			if first == "" {
				if v := r.Judge(w.Site, w.Share, w.Environment, resourcemodel.Derived{}); len(v.Clauses) > 0 {
					first = ": " + v.Clauses[0].Sentence
				}
			}
		}
	}
	if !shown {
		return ""
	}
	return "none of what the domain " + domain + " shows fits" + first
}

// peered reports whether a domain may be given jobs through a site.
func (b *Broker) peered(domain string) bool { return b.far.told != nil && b.far.domains[domain] }

// takeBack asks for jobs that wait at peers, once the own sites have recovered and could have
// them sooner. It looks at them when something changed, once a second at most, and not while
// others wait. It gives after how long it is to look again; 0 is when something changes.
func (b *Broker) takeBack(now time.Time) time.Duration {
	f := &b.far
	if f.told == nil || b.waits() > 0 {
		return 0
	}
	if due := f.judged.Add(rejudge).Sub(now); due > 0 {
		return due
	}
	f.judged = now
	var idle []*job
	for i := range f.told.Peers {
		s := b.sites[f.told.Peers[i].Site.Site]
		if s == nil || s.phases[AtSite] == 0 {
			continue
		}
		if c := s.conn.Load(); c == nil || c.recaller == nil {
			continue
		}
		for _, j := range b.jobs {
			if j.at == s && Phase(j.rec.Status.Phase) == AtSite && j.given && !j.running && !j.rec.Status.Suspend && s.has(j) && !pinnedTo(j, s.name) {
				idle = append(idle, j)
			}
		}
	}
	outstanding := 0
	for id, at := range f.back {
		if j := b.jobs[id]; j == nil || j.at == nil || j.at.domain() == "" || now.Sub(at) > forgetBack {
			delete(f.back, id)
			continue
		}
		outstanding++
	}
	slices.SortFunc(idle, func(x, y *job) int { return strings.Compare(x.rec.ID, y.rec.ID) })
	for n, j := range idle {
		if n == mostBack {
			break
		}
		if _, asked := f.back[j.rec.ID]; asked {
			continue
		}
		left, known := b.sched.FarWait(j.rec.ID, now)
		why, room, back := b.sched.Back(j.rec.ID, left, known, now)
		if !back || outstanding >= room {
			continue
		}
		outstanding++
		if f.back == nil {
			f.back = map[string]time.Time{}
		}
		f.back[j.rec.ID] = now
		b.cfg.Log.Info("a job that waits at a peer is asked back", "job", j.rec.ID, "site", j.at.name, "because", why)
		if _, other := j.at.steer[j.rec.ID]; !other {
			j.at.steer[j.rec.ID] = DoRecall
			nudge(j.at.wakeSteer)
		}
	}
	return 0
}

// Room tells how our own sites stand: slots that are free and all that there are, as far as
// the managers tell, and the jobs of our own (ours) that wait here.
func (b *Broker) Room() (free, slots, ours int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.roster.Load().sites {
		if s.domain() != "" || s.static == nil || s.dynamic == nil {
			continue
		}
		for i := range s.static.Shares {
			h := &s.static.Shares[i]
			state := s.dynamic.Shares[h.ID]
			most := h.Slots
			if most <= 0 {
				most = state.Running + state.FreeSlots
			}
			slots = min(slots+most, resourcemodel.MaxCount)
			if state.Open && s.dynamic.Up {
				free = min(free+max(0, state.FreeSlots), resourcemodel.MaxCount)
			}
		}
		coming := 0
		for _, n := range s.coming {
			coming += n
		}
		free -= min(free, coming)
	}
	for _, j := range b.jobs {
		if j.rec.Status.Foreign == nil && (j.queued == waiting || j.queued == unread || j.queued == reading) {
			ours++
		}
	}
	return free, slots, ours
}

// Admit judges a job that a peer wants us to take, by how our sites stand: see
// routing.Admit. What of the asking tells of our sites is filled in here.
func (b *Broker) Admit(a routing.Asking, to routing.Admission) error {
	select {
	case <-b.ready:
	default:
		return fail.Errorf("broker.Admit", fail.Unavailable, a.Peer, "the gateway is starting; try again in a moment")
	}
	a.Free, a.Slots, a.Waiting = b.Room()
	a.Agreed = b.agreed(a.Peer, a.Agreement, time.Now())
	return routing.Admit(a, to)
}
