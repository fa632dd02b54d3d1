package broker

import (
	"context"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// roster is which sites are given jobs at a moment. It never changes; a change
// of the sites makes another one.
type roster struct {
	sites []*site
	index map[string]int
}

// at gives the index of a site, -1 for one that is given no jobs.
func (r *roster) at(name string) int {
	if i, ok := r.index[name]; ok {
		return i
	}
	return -1
}

// enrol makes the roster anew and lets every job be looked at again, as what
// could run it may have changed. The caller holds the lock.
func (b *Broker) enrol() {
	r := &roster{index: map[string]int{}}
	for _, name := range b.order {
		if s := b.sites[name]; s != nil && s.open && s.conn.Load() != nil {
			r.index[name] = len(r.sites)
			r.sites = append(r.sites, s)
		}
	}
	b.roster.Store(r)
	b.reexamine()
	nudge(b.wakeFeed)
}

// reexamine lets the adapters be asked again which jobs their sites could run; the
// caller holds the lock.
func (b *Broker) reexamine() {
	b.epoch++
	for _, j := range b.jobs {
		if j.queued == waiting {
			b.enqueue(j)
		}
	}
	nudge(b.wakeDispatch)
}

// place gives the site of a name, which need not be configured; the caller holds
// the lock.
func (b *Broker) place(name string) *site {
	s := b.sites[name]
	if s == nil {
		s = newSite(b, name)
		b.sites[name] = s
	}
	return s
}

// Change is what is to become of a site.
type Change struct {
	Name           string
	Accounts       map[string]string // as Site has them
	AccountDefault string
	Model          SiteModel
	Fencing        Fencing
	// Open makes the site's adapter anew, once the one before is closed; nil keeps
	// the one that there is.
	Open func() (adapters.Adapter, error)
}

// finishTime is how long calls under way have to end by themselves when a site's
// adapter is exchanged: a submission that is cut off must be asked after.
const finishTime = 10 * time.Second

// SetSite offers a site, while the gateway runs: a new one, one that was being
// drained, or one whose adapter is to be another. Jobs that it has go on being
// its. The error is Open's: the site then has no adapter, and what jobs it has
// wait.
func (b *Broker) SetSite(c Change) error {
	const op = "broker.SetSite"
	b.ops <- struct{}{}
	defer func() { <-b.ops }()
	b.mu.Lock()
	if !slices.Contains(b.order, c.Name) {
		if n := len(b.order); n >= maxSites {
			b.mu.Unlock()
			return fail.Errorf(op, fail.Invalid, c.Name, "there are %d sites, as many as there may be, so that %s can't be one; some of them may still be draining", n, c.Name)
		}
		b.order = append(b.order, c.Name)
	}
	s := b.place(c.Name)
	s.configured = true
	old := s.conn.Load()
	if c.Open != nil {
		s.open = false // while it is exchanged
		b.enrol()
	}
	b.mu.Unlock()

	var fresh *conn
	var err error
	if c.Open != nil {
		s.stop(finishTime)
		if old != nil {
			old.close(b.cfg.Log, s.name)
		}
		var a adapters.Adapter
		if a, err = c.Open(); err == nil {
			fresh = newConn(a)
		}
		s.conn.Store(fresh)
	} else if old == nil {
		err = fail.Errorf(op, fail.Invalid, c.Name, "the site %s has no adapter to keep", c.Name)
	}
	if fresh != nil {
		s.capacity.Store(nil)
		s.resources.Store(nil)
	}
	b.mu.Lock()
	s.accounts, s.account, s.model = c.Accounts, c.AccountDefault, c.Model
	s.fencing, s.unfenced = c.Fencing, ""
	nudge(s.wakeFence)
	s.told, s.static, s.stale = nil, nil, true
	if r := s.resources.Load(); r != nil && s.conn.Load() != nil {
		s.measured(r, s.conn.Load(), time.Now())
	}
	s.open, s.draining = err == nil, false
	s.broken = err
	if fresh != nil {
		s.failures, s.closed, s.down = 0, time.Time{}, nil
		s.lapsed, s.quarantine, s.credit = false, quarantine{}, credit{} // it is another way to the site
		s.catchUp()
	}
	b.enrol()
	launch := b.launch
	b.mu.Unlock()
	if fresh != nil && launch != nil {
		launch(s)
	}
	return err
}

// DrainSite gives a site no more jobs. Those that it has go on; when the last has
// ended, its adapter is closed and the site is gone.
func (b *Broker) DrainSite(name string) error {
	b.ops <- struct{}{}
	defer func() { <-b.ops }()
	b.mu.Lock()
	s := b.sites[name]
	known := s != nil && s.configured
	if known {
		s.open, s.draining = false, true
		b.enrol()
		nudge(s.wakeSubmit) // what was not handed over yet goes elsewhere
	}
	b.mu.Unlock()
	if !known {
		return fail.Errorf("broker.DrainSite", fail.NotFound, name, "there is no site %s", name)
	}
	nudge(b.wakeReap)
	return nil
}

// reapLoop lets go of drained sites that have no jobs any more.
func (b *Broker) reapLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wakeReap:
		}
		for ctx.Err() == nil { // what is left then is let go of in the next term
			s := b.drained()
			if s == nil {
				break
			}
			b.reap(ctx, s)
		}
	}
}

// drained gives a site that can be let go of.
func (b *Broker) drained() *site {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sites {
		if s.draining && s.inFlight == 0 {
			return s
		}
	}
	return nil
}

func (b *Broker) reap(ctx context.Context, s *site) {
	b.ops <- struct{}{}
	defer func() { <-b.ops }()
	if ctx.Err() != nil {
		return
	}
	b.mu.Lock()
	if !s.draining || s.inFlight > 0 {
		b.mu.Unlock()
		return
	}
	delete(b.sites, s.name)
	b.order = slices.DeleteFunc(b.order, func(n string) bool { return n == s.name })
	b.mu.Unlock()
	s.stop(finishTime)
	if c := s.conn.Swap(nil); c != nil {
		c.close(b.cfg.Log, s.name)
	}
	b.cfg.Log.Info("a site that was taken out of the configuration has no more jobs and is closed", "site", s.name)
}

// startSites starts the loops of all sites, for the term of ctx.
func (b *Broker) startSites(ctx context.Context) {
	b.ops <- struct{}{}
	defer func() { <-b.ops }()
	b.mu.Lock()
	b.launch = func(s *site) { s.start(ctx) }
	sites := b.connected()
	b.mu.Unlock()
	for _, s := range sites {
		s.start(ctx)
	}
}

// stopSites ends them.
func (b *Broker) stopSites() {
	b.ops <- struct{}{}
	defer func() { <-b.ops }()
	b.mu.Lock()
	b.launch = nil
	sites := b.connected()
	b.mu.Unlock()
	for _, s := range sites {
		s.quit()
	}
	for _, s := range sites {
		s.stop(0)
	}
}

// connected gives the sites that have an adapter, in the order of the roster,
// those that are being drained behind; the caller holds the lock.
func (b *Broker) connected() []*site {
	var out []*site
	for _, name := range b.order {
		if s := b.sites[name]; s != nil && s.conn.Load() != nil {
			out = append(out, s)
		}
	}
	return out
}

// Close closes the adapters of all sites; Run must have ended.
func (b *Broker) Close() {
	b.ops <- struct{}{}
	defer func() { <-b.ops }()
	b.mu.Lock()
	sites := b.connected()
	b.mu.Unlock()
	for _, s := range sites {
		s.stop(0)
		if c := s.conn.Swap(nil); c != nil {
			c.close(b.cfg.Log, s.name)
		}
	}
}
