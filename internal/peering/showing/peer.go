package showing

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/exchange"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// peer is one peer; Showing.mu guards it.
type peer struct {
	s        *Showing
	domain   string
	e        *exchange.Exporter
	i        *exchange.Importer
	open     bool
	alive    bool
	features []string
	stale    bool           // what it is shown may be another
	out      []wire.Message // for which there was no room yet
	pushed   time.Time
	verified time.Time
	quotas   []wire.Quota // that were told; nil: none yet
	quoted   time.Time    // when it was looked at them
	heard    time.Time
	sites    map[string]int // bytes of each site that it shows
	bytes    int
	problem  string
	shut     time.Time // until when nothing that it shows is heeded, as it showed too much

	// What is asked for while something is on its way waits; the last of each kind counts.
	asks    *rate.Limiter
	pull    *wire.Pull
	compare *wire.Compare

	writing sync.Mutex // held while what it showed is written, so that it is in order
	again   bool       // something was not written: all is to be written anew
}

func newPeer(s *Showing, domain string) *peer {
	p := &peer{s: s, domain: domain, e: exchange.NewExporter(uuid.NewString()), stale: true, asks: rate.NewLimiter(rate.Every(limits.PullEvery), limits.Pulls)}
	p.e.Confirmed = s.o.Model.Confirmed
	p.seed()
	return p
}

// seed begins with what the model has of the peer.
func (p *peer) seed() {
	p.i, p.sites, p.bytes = exchange.NewImporter(p.domain), map[string]int{}, 0
	to := p.s.to[p.domain]
	p.i.MostSites, p.i.MostBytes = to.MostSites, to.MostBytes
	have := p.s.o.Model.Written(p.domain)
	p.i.Seed(have)
	for _, site := range have {
		p.count(resourcemodel.Change{Key: site.Key, Static: site.Static, Dynamic: site.Dynamic, Gone: true})
	}
}

func (p *peer) opened(a session.Agreement) {
	p.open, p.alive, p.features, p.out = true, true, a.Features, nil
	p.e.Begin()
	p.quotas, p.quoted, p.problem = nil, time.Time{}, ""
	p.pull, p.compare, p.shut = nil, nil, time.Time{}
	if p.again {
		p.again = false
		p.seed()
	}
	p.put(p.i.Pull())
}

// put queues messages; those of a feature that was not agreed on are left out.
func (p *peer) put(all ...wire.Message) {
	for _, m := range all {
		if over, _ := wire.Beyond(p.features, []wire.Message{m}); over == nil {
			p.out = append(p.out, m)
		}
	}
}

// answer answers what the peer asked for, as far as it is time: each may be answered with all
// that we show, and whoever asks without end is not to have that many times over wait for it. It gives
// after how long there is more to answer; 0 is when something else happens.
func (p *peer) answer(now time.Time) time.Duration {
	for p.pull != nil || p.compare != nil {
		if len(p.out) > 0 {
			return 0 // once it is sent
		}
		if !p.asks.AllowN(now, 1) {
			return limits.PullEvery
		}
		m := p.compare
		if p.pull == nil {
			p.compare = nil
			p.put(p.e.Compare(m)...)
			continue
		}
		pull := p.pull
		p.pull, p.compare = nil, nil    // what it compared it has asked for anew since, or is told by this
		if p.e.Wants(pull) || p.stale { // it is answered with no more than that, and with what there is
			if err := p.show(p.s.o.Model.Snapshot(), p.s.children(), p.s.to[p.domain]); err != nil {
				p.s.o.Log.Warn("some of our sites can't be shown to a peer", "peer", p.domain, "cause", err)
			}
		}
		p.put(p.e.Pull(pull)...)
	}
	return 0
}

// take takes a message, and gives what changes in the model.
func (p *peer) take(m wire.Message) ([]resourcemodel.Change, error) {
	switch m := m.(type) {
	case *wire.Pull:
		p.pull, p.compare = m, nil
		return nil, nil
	case *wire.Compare:
		p.compare = m
		return nil, nil
	case *wire.Resources, *wire.Digests, *wire.Quotas:
		if _, ok := m.(*wire.Quotas); !ok && !p.shut.IsZero() {
			return nil, nil
		}
		p.heard = time.Now()
		changes, answers, err := p.i.Take(m)
		if err == nil {
			for _, c := range changes {
				p.count(c)
			}
			to := p.s.to[p.domain]
			switch {
			case len(p.sites) > to.MostSites:
				err = fail.Errorf("showing.Deliver", fail.Exhausted, p.domain, "the domain %s shows %d sites, and %d are allowed here: show fewer, or less of them", p.domain, len(p.sites), to.MostSites)
			case p.bytes > to.MostBytes:
				err = fail.Errorf("showing.Deliver", fail.Exhausted, p.domain, "the domain %s shows %d bytes of records, and %d are allowed here: show fewer sites, or less of them", p.domain, p.bytes, to.MostBytes)
			}
		}
		if err != nil {
			p.problem = fail.Sentence(err)
			p.seed() // as it is in the model
			if fail.Is(err, fail.Exhausted) {
				p.shut = p.s.now().Add(limits.Retry)
			}
			return nil, err
		}
		p.put(answers...)
		if _, ok := m.(*wire.Digests); ok {
			p.s.o.Model.Confirm(p.domain)
		}
		return changes, nil
	}
	return nil, nil
}

// count keeps the number of sites and bytes that the peer shows.
func (p *peer) count(c resourcemodel.Change) {
	size := p.sites[c.Key.Site]
	p.bytes -= size
	if c.Gone {
		size = 0
		if c.Static == nil {
			delete(p.sites, c.Key.Site)
			return
		}
	}
	// A dynamic part that comes again counts anew: what is bounded is counted too high rather
	// than too low, until the site is shown anew.
	if c.Static != nil {
		b, _ := c.Static.Encode()
		size = len(b)
	}
	if c.Dynamic != nil && (c.Static != nil || size == 0) {
		b, _ := c.Dynamic.Encode()
		size += len(b)
	}
	p.sites[c.Key.Site] = size
	p.bytes += size
}

// write writes what the peer showed. What can't be written now is found by comparing, once a
// session begins anew.
func (p *peer) write(ctx context.Context, sess store.Session, changes []resourcemodel.Change) error {
	if len(changes) == 0 {
		return nil
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	var err error
	var skipped []resourcemodel.Key
	for try := range 3 {
		if _, skipped, err = p.s.o.Model.Import(ctx, sess, changes); err == nil || !fail.Is(err, fail.Unavailable) && !fail.Is(err, fail.Uncertain) {
			break
		}
		t := time.NewTimer(100 * time.Millisecond << try)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if err != nil {
		p.again, p.problem = true, fail.Sentence(err)
		if p.open { // the model has less than was shown: what differs is told again
			p.again = false
			p.seed()
			p.put(p.i.Pull())
			p.s.nudge()
		}
	}
	if len(skipped) > 0 {
		p.problem = "the domain tells of itself in the store that we share, so that what it shows over the session is not needed"
	}
	return err
}

// tick shows what is to be shown, and gives how long nothing will be due.
func (p *peer) tick(m *resourcemodel.Snapshot, children []string, now time.Time) time.Duration {
	to := p.s.to[p.domain]
	wait := p.s.o.Verify
	if !p.open {
		return wait
	}
	if !p.shut.IsZero() {
		if due := p.shut.Sub(now); due > 0 {
			wait = min(wait, due)
		} else { // it may show less by now
			p.shut, p.problem = time.Time{}, ""
			p.put(p.i.Pull())
		}
	}
	if again := p.answer(now); again > 0 {
		wait = min(wait, again)
	}
	if p.stale {
		if due := p.pushed.Add(to.Every).Sub(now); due > 0 && !p.pushed.IsZero() {
			wait = min(wait, due)
		} else if len(p.out) == 0 {
			p.stale, p.pushed = false, now
			if err := p.show(m, children, to); err != nil {
				p.s.o.Log.Warn("some of our sites can't be shown to a peer", "peer", p.domain, "cause", err)
			}
			p.put(p.e.Push()...)
		}
	}
	if p.s.o.Quotas != nil {
		look := p.quoted.Add(quotaTime)
		if p.s.recounted(p.domain, false) {
			look = p.quoted.Add(to.Every)
		}
		if due := look.Sub(now); due > 0 {
			wait = min(wait, due)
		} else if wait = min(wait, quotaTime); len(p.out) == 0 {
			p.quoted = now
			p.tellQuotas()
		}
	}
	if len(p.out) == 0 && now.Sub(p.verified) >= p.s.o.Verify {
		p.verified = now
		p.put(p.e.Verify()...)
	}
	for len(p.out) > 0 {
		err := p.s.o.Link.Put(p.domain, p.out[0])
		if err == nil {
			p.out = p.out[1:]
			continue
		}
		if fail.Is(err, fail.Invalid) { // it would never go
			p.s.o.Log.Error("what a peer is to be shown can't be sent", "peer", p.domain, "cause", err)
			p.out = p.out[1:]
			continue
		}
		break // Free, or the next session, goes on
	}
	if p.pull != nil || p.compare != nil {
		if again := p.answer(now); again > 0 {
			wait = min(wait, again)
		}
		if len(p.out) > 0 {
			p.s.nudge()
		}
	}
	return wait
}

// show makes the exporter's view that of the model.
func (p *peer) show(m *resourcemodel.Snapshot, children []string, to To) error {
	shown, err := routing.Export(m, p.s.o.Domain, children, routing.Peer{Domain: p.domain, Role: to.Role}, to.Exporting)
	if err != nil {
		return err
	}
	own := make([]resourcemodel.Change, 0, shown.Len())
	var of []string
	for site := range shown.Sites() {
		k := resourcemodel.Key{Site: site.Site}
		if child, rest, ok := strings.Cut(site.Site, resourcemodel.Via); ok { // the exporter puts the name together again
			k = resourcemodel.Key{Domain: child, Site: rest}
			of = append(of, child)
		}
		own = append(own, resourcemodel.Change{Key: k, Static: site.Static, Dynamic: site.Dynamic})
	}
	slices.Sort(of)
	as, err := resourcemodel.Empty().Apply(resourcemodel.Delta{Revision: max(m.Revision(), 1), At: m.At(), Changes: own})
	if err != nil {
		return err
	}
	return p.e.Show(as, to.Detail, slices.Compact(of)...)
}

// quotaTime is how often it is looked whether quotas or their use are others, though nobody said so.
const quotaTime = 10 * time.Second

// tellQuotas tells the quotas of the peer's VOs, if they are others than were told.
func (p *peer) tellQuotas() {
	p.s.recounted(p.domain, true) // what changes from here on is told next
	now := append([]wire.Quota{}, p.s.o.Quotas(p.domain)...)
	same := slices.EqualFunc(now, p.quotas, func(a, b wire.Quota) bool {
		a.Measured, b.Measured = time.Time{}, time.Time{}
		return a == b
	})
	if !same || p.quotas == nil {
		p.quotas = now
		p.put(&wire.Quotas{List: now})
	}
}

func (p *peer) status() Status {
	now, told := p.e.Revision()
	_, _, sites, agreed := p.i.State()
	return Status{
		Shown: now, Told: told, Detail: p.s.to[p.domain].Detail, Sites: sites, Agreed: agreed, Quotas: p.i.Quotas(), Confirmed: p.heard, Problem: p.problem,
	}
}
