package schedule

import (
	"cmp"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// book has the waiting jobs in the order that a set of policies gives them. Jobs of
// one lane are under one scheduling policy; a lane has tiers of groups, the lightest
// first (one tier, where the policy knows none), a tier its groups likewise, a group
// has a cell for each class, and a cell is a heap of jobs. Cells of
// sleeping classes leave their group when they come up and come back when the class
// wakes, so that what can't be placed is passed once and not again.
type book struct {
	index  int // of the book in class.awake
	set    *settings
	lanes  []*lane // higher classes of jobs first, then by scope
	lookup map[laneKey]*lane
	awake  int // classes that are not asleep
	any    int // of them, those that any place may help
	hinted map[resourcemodel.Key]int
	made   map[*waiting]policy.Key // keys that were made together, while jobs are filed
}

type laneKey struct {
	class             int
	scheduling, pairs Scope
}

// lane has the jobs under one scheduling and one pairing policy, of one job class.
type lane struct {
	laneKey
	order *ordering
	pairs *pairer // nil: each job by itself
	tiers map[string]*tier
	heap  heap[*tier]
	still bool // the pairing policy pairs no more in this round
}

// tier has groups of which all come before those of the next tier.
type tier struct {
	weighed
	lane   *lane
	at     int // in the lane; -1: it has no group in it
	groups map[string]*group
	heap   heap[*group]
}

// group is what a scheduling policy weighs as one.
type group struct {
	weighed
	tier  *tier
	at    int // in the tier; -1: it has no cell in it
	cells map[*class]*cell
	heap  heap[*cell]
}

// weighed is what has a weight.
type weighed struct {
	name    string
	weight  float64
	version uint64 // of the usage that it was weighed with
}

// weigh gives it the weight that it has now, and reports whether that is another.
func (w *weighed) weigh(of func(string, time.Time, policy.Usage) float64, now time.Time, u *usage) bool {
	w.version = u.version
	if x := of(w.name, now, u); x != w.weight {
		w.weight = x
		return true
	}
	return false
}

// before is the order of two, where other things are equal.
func (w *weighed) before(o *weighed) bool {
	if w.weight != o.weight {
		return w.weight < o.weight
	}
	return w.name < o.name
}

// cell has the jobs of one class in a group.
type cell struct {
	group *group
	class *class
	at    int // in the group; -1: it is out, its class sleeps
	out   int // in class.out, if it is out
	heap  heap[*waiting]
	first policy.Key // of the job on top
}

func newBook(index int, set *settings) *book {
	return &book{index: index, set: set, lookup: map[laneKey]*lane{}, hinted: map[resourcemodel.Key]int{}}
}

// before is the order of jobs within a group.
func (b *book) before(x, y *waiting) bool {
	kx, ky := &x.in(b.index).key, &y.in(b.index).key
	for i := range kx {
		if kx[i] != ky[i] {
			return kx[i] < ky[i]
		}
	}
	return x.ID < y.ID
}

func (b *book) lane(k laneKey, w *waiting) *lane {
	l := b.lookup[k]
	if l == nil {
		l = &lane{laneKey: k, order: b.set.ordering(&w.Entry), pairs: b.set.pairer(&w.Entry), tiers: map[string]*tier{}}
		l.heap.less = func(x, y *tier) bool { // tiers that weigh the same are as one
			if x.weight != y.weight {
				return x.weight < y.weight
			}
			return x.heap.items[0].before(&y.heap.items[0].weighed)
		}
		l.heap.moved = func(t *tier, at int) { t.at = at }
		b.lookup[k] = l
		i, _ := slices.BinarySearchFunc(b.lanes, l, func(x, y *lane) int {
			return cmp.Or(cmp.Compare(y.class, x.class), cmp.Compare(x.scheduling, y.scheduling), cmp.Compare(x.laneKey.pairs, y.laneKey.pairs))
		})
		b.lanes = slices.Insert(b.lanes, i, l)
	}
	return l
}

// add puts a job in.
func (b *book) add(w *waiting) {
	sp := w.in(b.index)
	k := laneKey{class: w.Class}
	k.scheduling, k.pairs = b.set.scopes(&w.Entry)
	l := b.lane(k, w)
	g := l.group(l.order.Group(w.Job))
	c := g.cells[w.class]
	if c == nil {
		c = &cell{group: g, class: w.class, at: -1}
		c.heap.less = b.before
		c.heap.moved = func(w *waiting, at int) {
			sp := w.in(b.index)
			if sp.at = int32(at); at == 0 {
				c.first = sp.key
			}
		}
		g.cells[w.class] = c
	}
	key, made := b.made[w]
	if !made {
		key = l.order.Key(w.Job)
	}
	sp.in, sp.key = c, key
	fresh := c.heap.len() == 0
	c.heap.push(w)
	switch {
	case c.at >= 0:
		g.heap.fix(c.at)
	case !fresh: // it is out
	case w.class.awake[b.index]:
		b.enter(c)
	default:
		b.putOut(c)
	}
}

// group gives the group of a name.
func (l *lane) group(name string) *group {
	tierName := ""
	if l.order.tiered != nil {
		tierName = l.order.tiered.Tier(name)
	}
	t := l.tiers[tierName]
	if t == nil {
		t = &tier{lane: l, weighed: weighed{name: tierName}, at: -1, groups: map[string]*group{}}
		t.heap.less = func(x, y *group) bool { return x.before(&y.weighed) }
		t.heap.moved = func(g *group, at int) { g.at = at }
		l.tiers[tierName] = t
	}
	g := t.groups[name]
	if g == nil {
		g = &group{tier: t, weighed: weighed{name: name}, at: -1, cells: map[*class]*cell{}}
		g.heap.less = func(x, y *cell) bool {
			if x.first != y.first {
				return x.first.Compare(y.first) < 0
			}
			return x.heap.items[0].ID < y.heap.items[0].ID
		}
		g.heap.moved = func(c *cell, at int) { c.at = at }
		t.groups[name] = g
	}
	return g
}

// keysAhead makes the keys of jobs together, for orders that are quicker so.
func (b *book) keysAhead(jobs []*waiting) {
	together := map[*ordering][]*waiting{}
	for _, w := range jobs {
		if o := b.set.ordering(&w.Entry); o.batched() != nil {
			together[o] = append(together[o], w)
		}
	}
	if len(together) == 0 {
		return
	}
	b.made = map[*waiting]policy.Key{}
	for o, list := range together {
		asked := make([]*policy.Job, len(list))
		for i, w := range list {
			asked[i] = w.Job
		}
		keys := o.batched().Keys(asked)
		for i, k := range keys[:min(len(keys), len(list))] {
			b.made[list[i]] = k
		}
	}
}

// putOut files a cell that is in no group's heap until its class wakes.
func (b *book) putOut(c *cell) {
	out := &c.class.out[b.index]
	c.out = len(*out)
	*out = append(*out, c)
}

// enter puts a cell into its group, the group into its tier, and that into its lane.
func (b *book) enter(c *cell) {
	g, t := c.group, c.group.tier
	g.heap.push(c)
	if g.at < 0 {
		t.heap.push(g)
		t.settle()
	}
}

// settle puts a tier where it belongs in its lane, after a change of its groups.
func (t *tier) settle() {
	switch h := &t.lane.heap; {
	case t.at < 0:
		h.push(t)
	default:
		h.fix(t.at)
	}
}

// leave takes a cell out of its group, the group out of its tier when it was the last,
// and likewise the tier.
func (b *book) leave(c *cell) {
	g, t := c.group, c.group.tier
	g.heap.take(c.at)
	if g.heap.len() > 0 {
		return
	}
	if t.heap.len() == 1 { // before it is empty, as tiers are compared by their groups
		t.lane.heap.take(t.at)
		t.heap.take(g.at)
		return
	}
	t.heap.take(g.at)
	t.settle()
}

// remove takes a job out, if it is in.
func (b *book) remove(w *waiting) {
	sp := w.in(b.index)
	c := sp.in
	if c == nil {
		return
	}
	sp.in = nil
	last := c.heap.len() == 1
	if last && c.at >= 0 {
		b.leave(c)
	} else if last {
		out := c.class.out[b.index]
		end := len(out) - 1
		out[c.out] = out[end]
		out[c.out].out = c.out
		out[end] = nil
		c.class.out[b.index] = out[:end]
	}
	c.heap.take(int(sp.at))
	g := c.group
	switch {
	case !last && c.at >= 0:
		g.heap.fix(c.at)
	case last:
		delete(g.cells, c.class)
		if t := g.tier; len(g.cells) == 0 {
			if delete(t.groups, g.name); len(t.groups) == 0 {
				delete(t.lane.tiers, t.name)
			}
		}
	}
}

// head gives the lane's next job of a class that is awake; nil if there is none.
//
// What is used only grows while jobs are placed, and with it the weights. So what was not
// weighed since is at least as heavy as it says, and it is enough to weigh it again when
// it is on top: one placement may weigh on many groups.
func (b *book) head(l *lane, now time.Time, u *usage) *waiting {
	for l.heap.len() > 0 {
		t := l.heap.items[0]
		if t.version != u.version && l.order.tiered != nil && t.weigh(l.order.tiered.TierWeight, now, u) {
			l.heap.fix(0)
			continue
		}
		g := t.heap.items[0]
		if g.version != u.version && g.weigh(l.order.weight, now, u) {
			t.heap.fix(0)
			l.heap.fix(0)
			continue
		}
		c := g.heap.items[0]
		if c.class.awake[b.index] {
			return c.heap.items[0]
		}
		b.leave(c)
		b.putOut(c)
	}
	return nil
}

// next gives the lane whose next job goes first: one of a higher class, and among
// those of a class the one that was submitted first, since no policy compares jobs
// of several scopes.
func (b *book) next(now time.Time, u *usage) (*lane, *waiting) {
	var lane *lane
	var first *waiting
	for _, l := range b.lanes {
		if first != nil && l.class < first.Class {
			break
		}
		if l.still {
			continue
		}
		w := b.head(l, now, u)
		if w == nil {
			continue
		}
		if first == nil || cmp.Or(w.Submitted.Compare(first.Submitted), cmp.Compare(w.ID, first.ID)) < 0 {
			lane, first = l, w
		}
	}
	return lane, first
}

// weigh weighs all groups that have jobs of a class that is awake.
func (b *book) weigh(now time.Time, u *usage) {
	for _, l := range b.lanes {
		l.still = false
		b.weighLane(l, now, u)
	}
}

func (b *book) weighLane(l *lane, now time.Time, u *usage) {
	for _, t := range l.heap.items {
		if l.order.tiered != nil {
			t.weigh(l.order.tiered.TierWeight, now, u)
		}
		for _, g := range t.heap.items {
			g.weigh(l.order.weight, now, u)
		}
		t.heap.order()
	}
	l.heap.order()
}

// wake lets a class be looked at again.
func (b *book) wake(c *class) {
	if !c.awake[b.index] {
		c.awake[b.index] = true
		b.awake++
		b.count(c, 1)
	}
	for i, cell := range c.out[b.index] {
		b.enter(cell)
		c.out[b.index][i] = nil
	}
	c.out[b.index] = c.out[b.index][:0]
}

// sleep lets a class be passed.
func (b *book) sleep(c *class) {
	if c.awake[b.index] {
		c.awake[b.index] = false
		b.awake--
		b.count(c, -1)
	}
}

// count keeps the number of classes by what may help them.
func (b *book) count(c *class, n int) {
	if c.any {
		b.any += n
		return
	}
	for _, k := range c.hints {
		if b.hinted[k] += n; b.hinted[k] == 0 {
			delete(b.hinted, k)
		}
	}
}
