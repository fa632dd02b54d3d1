package engine

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/fail"
)

// MaxPools bounds the pools that there are.
const MaxPools = 2000

// Danger is an agreement that can't be kept as things are: of its pool is more held than there
// is, and others were accepted before it.
type Danger struct {
	ID    string // of the agreement
	Hold  string // its hold
	Pool  string
	From  time.Time
	Until time.Time
}

func equalPools(a, b calendar.Pool) bool {
	return a.ID == b.ID && a.Capacity == b.Capacity && slices.EqualFunc(a.Outages, b.Outages, func(x, y calendar.Outage) bool {
		return x.Less == y.Less && x.From.Equal(y.From) && x.Until.Equal(y.Until)
	})
}

// lessThan says whether a may have less than b has, at any time.
func lessThan(a, b calendar.Pool) bool {
	if a.Capacity.Slots < b.Capacity.Slots || a.Capacity.CPUs < b.Capacity.CPUs || a.Capacity.Nodes < b.Capacity.Nodes {
		return true
	}
	for _, o := range a.Outages {
		if !slices.ContainsFunc(b.Outages, func(p calendar.Outage) bool {
			return o.Less == p.Less && o.From.Equal(p.From) && o.Until.Equal(p.Until)
		}) {
			return true
		}
	}
	return false
}

// use makes the calendar count what is written and, where less is told of, that.
func (p *pool) use() {
	c := p.fence.Pool
	if p.less != nil {
		a, b := c.Capacity, p.less.Capacity
		c.Capacity = calendar.Amount{Slots: min(a.Slots, b.Slots), CPUs: min(a.CPUs, b.CPUs), Nodes: min(a.Nodes, b.Nodes)}
		c.Outages = slices.Clone(c.Outages)
		for _, o := range p.less.Outages {
			if !slices.ContainsFunc(c.Outages, func(q calendar.Outage) bool {
				return o.Less == q.Less && o.From.Equal(q.From) && o.Until.Equal(q.Until)
			}) {
				c.Outages = append(c.Outages, o)
			}
		}
	}
	p.profile.SetPool(c)
}

// SetPools says which pools there are, all of them; what is held of one that is not among them
// stays. More capacity is written at once, less when it was told of for as long as
// Options.Patience; until then it only keeps this replica from promising it again, so that a site
// that comes and goes is no alarm and costs no writes. Several replicas may say the same. It
// gives the agreements that are endangered by what is written.
func (e *Engine) SetPools(ctx context.Context, pools []calendar.Pool) ([]Danger, error) {
	const op = "engine.SetPools"
	wanted := make(map[string]calendar.Pool, len(pools))
	if len(pools) > MaxPools {
		return nil, fail.Errorf(op, fail.Exhausted, "", "there are %d pools; there may be %d", len(pools), MaxPools)
	}
	for _, p := range pools {
		if err := p.Check(); err != nil {
			return nil, err
		}
		if _, twice := wanted[p.ID]; twice {
			return nil, fail.Errorf(op, fail.Invalid, p.ID, "the pool %s is there twice", p.ID)
		}
		wanted[p.ID] = p
	}
	e.mu.Lock()
	for id, p := range e.pools {
		if _, ok := wanted[id]; !ok && p.revision != 0 {
			wanted[id] = calendar.Pool{ID: id}
		}
	}
	var due []calendar.Pool
	now := e.now()
	for id, w := range wanted {
		p := e.of(id)
		if p.revision == 0 && w.Capacity == (calendar.Amount{}) {
			e.forgetPool(id) // nothing can be had of it, written or not
			continue
		}
		absent := p.revision != 0 && p.count == 0 && w.Capacity == (calendar.Amount{})
		switch {
		case equalPools(p.fence.Pool, w) && !absent && p.revision != 0:
			if p.less != nil {
				p.less = nil
				p.use()
			}
		case p.revision != 0 && lessThan(w, p.fence.Pool):
			if p.less == nil {
				p.since = now
			}
			if p.less == nil || !equalPools(*p.less, w) {
				p.less = &w
				p.use()
			}
			if now.Sub(p.since) >= e.opts.Patience {
				due = append(due, w)
			} else {
				e.wake()
			}
		default:
			due = append(due, w)
		}
	}
	e.mu.Unlock()
	err := e.writePools(ctx, op, due)
	return e.Endangered(), err
}

// writePools writes what pools have.
func (e *Engine) writePools(ctx context.Context, op string, pools []calendar.Pool) error {
	if len(pools) == 0 {
		return nil
	}
	slices.SortFunc(pools, func(a, b calendar.Pool) int { return cmp.Compare(a.ID, b.ID) })
	var all []*work
	for _, p := range pools {
		all = append(all, &work{op: op, decide: func(b *batch) error {
			b.setPool(p)
			return nil
		}})
	}
	var failed error
	for i, err := range e.doAll(ctx, all) {
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		e.mu.Lock()
		if p := e.pools[pools[i].ID]; p != nil && (p.less == nil || equalPools(*p.less, pools[i])) {
			p.less = nil
			p.use()
			e.forgetPool(pools[i].ID)
		}
		e.mu.Unlock()
	}
	return failed
}

func (b *batch) setPool(p calendar.Pool) {
	d := b.pool(p.ID)
	gone := d.base != 0 && p.Capacity == (calendar.Amount{}) && b.e.of(p.ID).count == 0
	if !gone && d.base != 0 && equalPools(d.fence.Pool, p) {
		return
	}
	old := *d
	b.undo = append(b.undo, func() { *d = old })
	d.fence, d.dirty, d.gone = fence{Pool: p, By: b.fence}, true, gone
}

// Pools gives the pools as they are written, by id.
func (e *Engine) Pools() []calendar.Pool {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []calendar.Pool
	for _, id := range slices.Sorted(maps.Keys(e.pools)) {
		if p := e.pools[id]; p.revision != 0 {
			out = append(out, p.fence.Pool)
		}
	}
	return out
}

// Endangered gives the agreements that can't be kept as the pools are written, those last
// accepted before others. What is over by now endangers nobody.
func (e *Engine) Endangered() []Danger {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	free := map[string]*calendar.Profile{}
	for id, p := range e.pools {
		written := calendar.NewProfile(p.fence.Pool)
		if p.less == nil && !overcommitted(p.profile, now, e.opts.Horizon) {
			continue
		}
		written.Forget(now)
		free[id] = written
	}
	if len(free) == 0 {
		return nil
	}
	records := slices.SortedFunc(maps.Values(e.live), func(a, b *Record) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	var out []Danger
	for _, r := range records {
		for _, h := range r.holds() {
			f := free[h.Pool]
			switch {
			case f == nil || !h.Until.After(now):
			case f.Fits(h):
				f.Add(h)
			default:
				out = append(out, Danger{ID: r.ID, Hold: h.ID, Pool: h.Pool, From: h.From, Until: h.Until})
			}
		}
	}
	return out
}

// overcommitted says whether more is held than there is, at any time to come.
func overcommitted(f *calendar.Profile, now time.Time, horizon time.Duration) bool {
	return slices.ContainsFunc(f.Steps(now, now.Add(horizon+24*time.Hour)), calendar.Step.Over)
}

// tendPools writes what was told of for long enough, and gives how long nothing will be.
func (e *Engine) tendPools(ctx context.Context) (time.Duration, error) {
	var due []calendar.Pool
	wait := idle
	e.mu.Lock()
	now := e.now()
	for _, p := range e.pools {
		if p.less == nil {
			continue
		}
		if left := p.since.Add(e.opts.Patience).Sub(now); left > 0 {
			wait = min(wait, left)
		} else {
			due = append(due, *p.less)
		}
	}
	e.mu.Unlock()
	return wait, e.writePools(ctx, "engine.SetPools", due)
}
