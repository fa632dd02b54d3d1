package showing

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Model is what is used of modelstore.Model.
type Model interface {
	Snapshot() *resourcemodel.Snapshot
	Updates(tell func(resourcemodel.Delta)) (stop func())
	Import(ctx context.Context, sess store.Session, changes []resourcemodel.Change) (int64, []resourcemodel.Key, error)
	Written(domain string) []*resourcemodel.Site
	Confirm(domain string)
	Confirmed(k resourcemodel.Key) time.Time
}

// Link is what carries items to peers: peers.Table.
type Link interface {
	Put(domain string, items ...wire.Message) error
}

// To is what one peer is shown, and what it may show.
type To struct {
	routing.Exporting
	Role  routing.Role
	Every time.Duration // the shortest time between two pushes; default 1 s
	// MostSites and MostBytes bound what the peer may show; default 20 000 sites and 64 MiB.
	MostSites, MostBytes int
}

// Options are those of a Showing. Domain, Model and Link are required.
type Options struct {
	Domain string
	Model  Model
	Link   Link
	// Quotas tells what the VOs of a peer may use here, and use; nil tells nothing.
	Quotas func(domain string) []wire.Quota
	// Verify is how often digests are sent without being asked for; default 10 min.
	Verify time.Duration
	// Log is told what peers do wrong.
	Log *slog.Logger
	Now func() time.Time // nil is time.Now
}

// Showing shows the gateway's resources to its peers, and keeps what they show. Its methods
// are safe for concurrent use.
type Showing struct {
	o    Options
	wake chan struct{}

	mu      sync.Mutex
	sess    store.Session // nil: another replica talks to the peers
	to      map[string]To
	peers   map[string]*peer
	changed bool // the model did, since it was shown
	gone    []string

	counts struct { // apart from mu: who tells of them may be asked for the quotas
		sync.Mutex
		of map[string]bool // whose jobs were counted anew
	}
}

// Recount says that there are more jobs of a peer here, or less, than before, so that its quotas are
// to be told. It is quick, and calls nobody.
func (s *Showing) Recount(domain string) {
	s.counts.Lock()
	defer s.counts.Unlock()
	if !s.counts.of[domain] {
		if s.counts.of == nil {
			s.counts.of = map[string]bool{}
		}
		s.counts.of[domain] = true
		s.nudge()
	}
}

// recounted reports whether Recount was called for a peer, and takes that.
func (s *Showing) recounted(domain string, take bool) bool {
	s.counts.Lock()
	defer s.counts.Unlock()
	was := s.counts.of[domain]
	if take {
		delete(s.counts.of, domain)
	}
	return was
}

// New makes one; Run makes it work.
func New(o Options) (*Showing, error) {
	if o.Domain == "" || o.Model == nil || o.Link == nil {
		return nil, fail.Errorf("showing.New", fail.Invalid, o.Domain, "what is shown to peers needs a domain, a model and a link")
	}
	o.Verify = cmp.Or(o.Verify, 10*time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Showing{o: o, wake: make(chan struct{}, 1), to: map[string]To{}, peers: map[string]*peer{}}, nil
}

// SetPeers tells which peers there are and what each is shown. The sites of one that is not
// there any more leave the model.
func (s *Showing) SetPeers(to map[string]To) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for domain := range s.to {
		if _, ok := to[domain]; !ok {
			s.gone = append(s.gone, domain)
			delete(s.peers, domain)
		}
	}
	s.to = maps.Clone(to)
	for domain, t := range s.to {
		t.Every = cmp.Or(t.Every, time.Second)
		t.MostSites = cmp.Or(t.MostSites, limits.Sites)
		t.MostBytes = cmp.Or(t.MostBytes, limits.ShownBytes)
		s.to[domain] = t
		if p := s.peers[domain]; p != nil {
			p.i.MostSites, p.i.MostBytes = t.MostSites, t.MostBytes
		}
		s.gone = slices.DeleteFunc(s.gone, func(g string) bool { return g == domain })
	}
	s.changed = true
	s.nudge()
}

func (s *Showing) now() time.Time {
	if s.o.Now != nil {
		return s.o.Now()
	}
	return time.Now()
}

func (s *Showing) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Begin begins a term of the replica that talks to the peers, under its session. It comes before the
// sessions do: a peer asks for what we show as soon as it has one, once, and would not be answered.
func (s *Showing) Begin(sess store.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sess, s.changed = sess, true
	clear(s.peers) // of the term before, as its sessions ended
}

// Run works for the term that Begin began, until ctx ends.
func (s *Showing) Run(ctx context.Context) error {
	stop := s.o.Model.Updates(func(d resourcemodel.Delta) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range d.Changes {
			if s.shows(d.Changes[i].Key.Domain) {
				s.changed = true
				s.nudge()
				return
			}
		}
	})
	defer stop()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sess = nil
		clear(s.peers)
	}()
	for {
		wait := s.tick(ctx, time.Now())
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		case <-s.wake:
		}
		t.Stop()
	}
}

// shows reports whether sites of a domain are shown to anybody: our own, and children's.
func (s *Showing) shows(domain string) bool {
	return domain == "" || s.to[domain].Role == routing.Child
}

// children are the domains that we show as our own.
func (s *Showing) children() []string {
	var out []string
	for domain, t := range s.to {
		if t.Role == routing.Child {
			out = append(out, domain)
		}
	}
	slices.Sort(out)
	return out
}

// Takes reports whether an item is about resources, and so for Deliver.
func Takes(m wire.Message) bool {
	switch m.(type) {
	case *wire.Pull, *wire.Resources, *wire.Digests, *wire.Compare, *wire.Quotas:
		return true
	}
	return false
}

// Opened says that a session with a peer begins.
func (s *Showing) Opened(domain string, a session.Agreement) {
	s.with(domain, func(p *peer) { p.opened(a) })
}

// Closed says that it is over, or lost, and will not be resumed.
func (s *Showing) Closed(domain string) {
	s.with(domain, func(p *peer) { p.open = false; p.out = nil })
}

// Alive says whether the session is: while it is, what the peer showed is confirmed by its
// digests; while it is not, it grows old.
func (s *Showing) Alive(domain string, alive bool) {
	s.with(domain, func(p *peer) { p.alive = alive })
}

// Free says that there is room for items again.
func (s *Showing) Free(domain string) { s.with(domain, func(*peer) {}) }

func (s *Showing) with(domain string, do func(*peer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peer(domain); p != nil {
		do(p)
		s.nudge()
	}
}

// peer gives that of a domain; nil if it is none. s.mu is held.
func (s *Showing) peer(domain string) *peer {
	p := s.peers[domain]
	if _, ok := s.to[domain]; p == nil && ok {
		p = newPeer(s, domain)
		s.peers[domain] = p
	}
	return p
}

// Deliver takes items of a peer, in order; those that are not about resources are passed
// over. Done is called when what they caused is durable. The error, fail.Invalid or
// fail.Exhausted, says that the peer broke the protocol or its bounds: what it showed stays as it was, and the
// session should be closed.
func (s *Showing) Deliver(ctx context.Context, domain string, items []wire.Message, done func()) error {
	if done != nil {
		defer done()
	}
	s.mu.Lock()
	p, sess := s.peer(domain), s.sess
	if p == nil || sess == nil {
		s.mu.Unlock()
		return nil // it is told anew in the next session
	}
	var changes []resourcemodel.Change
	var err error
	for _, m := range items {
		var more []resourcemodel.Change
		if more, err = p.take(m); err != nil {
			break
		}
		changes = append(changes, more...)
	}
	s.nudge()
	s.mu.Unlock()
	if werr := p.write(ctx, sess, changes); werr != nil && ctx.Err() == nil {
		s.o.Log.Warn("what a peer shows is not in the model yet; it is compared again", "peer", domain, "cause", werr)
	}
	return err
}

// tick does what is due, and gives how long nothing will be.
func (s *Showing) tick(ctx context.Context, now time.Time) time.Duration {
	s.mu.Lock()
	changed, gone, sess := s.changed, s.gone, s.sess
	s.changed, s.gone = false, nil
	if changed {
		for domain := range s.to {
			if p := s.peer(domain); p != nil {
				p.stale = true
			}
		}
	}
	children, m := s.children(), s.o.Model.Snapshot()
	wait := s.o.Verify
	for _, p := range s.peers {
		wait = min(wait, p.tick(m, children, now))
	}
	s.mu.Unlock()
	for _, domain := range gone {
		var changes []resourcemodel.Change
		for _, site := range s.o.Model.Written(domain) {
			changes = append(changes, resourcemodel.Change{Key: site.Key, Gone: true})
		}
		if _, _, err := s.o.Model.Import(ctx, sess, changes); err != nil && ctx.Err() == nil {
			s.o.Log.Warn("the sites of a peer that is gone are still in the model", "peer", domain, "cause", err)
			s.mu.Lock()
			if _, back := s.to[domain]; !back {
				s.gone = append(s.gone, domain)
			}
			s.mu.Unlock()
			wait = min(wait, time.Second)
		}
	}
	return max(wait, time.Millisecond)
}

// Status is how it stands with what one peer is shown and shows.
type Status struct {
	Shown     uint64 // revision of what it is shown, and that which it has
	Told      uint64
	Detail    resourcemodel.Detail
	Sites     int  // that it shows
	Agreed    bool // what we have of it is known to be what it shows
	Quotas    []wire.Quota
	Confirmed time.Time // when it was heard of its resources last
	Problem   string    // what it did wrong, or why what it shows is not in the model
}

// Status tells it; false is no peer.
func (s *Showing) Status(domain string) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[domain]
	if p == nil {
		return Status{}, false
	}
	return p.status(), true
}
