package calendar

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"
)

// Profile is what is held of a pool over time. It is not for use by several goroutines at once.
type Profile struct {
	pool   Pool
	points []point // in order, no two alike one after the other; before the first is nothing
	past   int64   // before this second all is forgotten
}

// point is where a step begins.
type point struct {
	at   int64 // seconds since 1970
	held Amount
	lost Amount // to outages
}

// Never and ever bound the times, in seconds since 1970.
const (
	never = math.MinInt64 / 4
	ever  = math.MaxInt64 / 4
)

// NewProfile gives the profile of a pool with holds, which are those of this pool and pass Check.
func NewProfile(p Pool, holds ...Hold) *Profile {
	type edge struct {
		at    int64
		delta Amount
		sign  int64
	}
	edges := make([]edge, 0, 2*len(holds))
	for _, h := range holds {
		edges = append(edges, edge{floor(h.From), h.Amount, 1}, edge{ceil(h.Until), h.Amount, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	f := &Profile{past: never}
	var held Amount
	for i, e := range edges {
		held = held.plus(e.delta, e.sign)
		if i+1 == len(edges) || edges[i+1].at != e.at {
			f.points = append(f.points, point{at: e.at, held: held})
		}
	}
	f.tidy()
	f.SetPool(p)
	return f
}

// tidy drops the points at which nothing changes.
func (f *Profile) tidy() {
	var before point
	f.points = slices.DeleteFunc(f.points, func(q point) bool {
		if q.held == before.held && q.lost == before.lost {
			return true
		}
		before = q
		return false
	})
}

// Pool gives the pool as it is counted.
func (f *Profile) Pool() Pool { return f.pool }

// SetPool replaces the capacity and the outages; what is held stays.
func (f *Profile) SetPool(p Pool) {
	for i := range f.points {
		f.points[i].lost = Amount{}
	}
	f.tidy()
	f.pool = p
	for _, o := range p.Outages {
		until := int64(ever)
		if !o.Until.IsZero() {
			until = ceil(o.Until)
		}
		f.change(floor(o.From), until, Amount{}, o.Less, 1)
	}
}

// Add counts a hold of this pool, whether it fits or not.
func (f *Profile) Add(h Hold) { f.change(floor(h.From), ceil(h.Until), h.Amount, Amount{}, 1) }

// Remove undoes Add of the same hold.
func (f *Profile) Remove(h Hold) { f.change(floor(h.From), ceil(h.Until), h.Amount, Amount{}, -1) }

// change adds sign times the amounts to all steps from one second until another.
func (f *Profile) change(from, until int64, held, lost Amount, sign int64) {
	from = max(from, f.past)
	if from >= until {
		return
	}
	i := f.split(from)
	j := f.split(until)
	for k := i; k < j; k++ {
		f.points[k].held = f.points[k].held.plus(held, sign)
		f.points[k].lost = f.points[k].lost.plus(lost, sign)
	}
	f.join(j)
	f.join(i)
}

// split gives the index of the point at a second, and makes it if there is none.
func (f *Profile) split(at int64) int {
	i := sort.Search(len(f.points), func(i int) bool { return f.points[i].at >= at })
	if i < len(f.points) && f.points[i].at == at {
		return i
	}
	q := point{at: at}
	if i > 0 {
		q.held, q.lost = f.points[i-1].held, f.points[i-1].lost
	}
	f.points = slices.Insert(f.points, i, q)
	return i
}

// join drops a point at which nothing changes.
func (f *Profile) join(i int) {
	var before point
	if i > 0 {
		before = f.points[i-1]
	}
	if q := f.points[i]; q.held == before.held && q.lost == before.lost {
		f.points = slices.Delete(f.points, i, i+1)
	}
}

// Forget drops what was before a time. What is added or removed later counts from then on.
func (f *Profile) Forget(before time.Time) {
	at := floor(before)
	if at <= f.past {
		return
	}
	f.past = at
	if i := f.step(at); i > 0 {
		f.points = slices.Delete(f.points, 0, i)
	}
	if len(f.points) > 0 && f.points[0].at < at {
		f.points[0].at = at
	}
	f.tidy()
}

// step gives the index of the point whose step a second is in; -1 is before the first.
func (f *Profile) step(at int64) int {
	return sort.Search(len(f.points), func(i int) bool { return f.points[i].at > at }) - 1
}

// free gives what is free in a step, which is less than nothing where too much is held.
func (f *Profile) free(i int) Amount {
	a := f.pool.Capacity
	if i >= 0 {
		q := f.points[i]
		a = a.plus(q.lost, -1).floor().plus(q.held, -1)
	}
	if f.pool.Capacity.Nodes == 0 {
		a.Nodes = MaxAmount
	}
	return a
}

// end gives where a step ends.
func (f *Profile) end(i int) int64 {
	if i+1 < len(f.points) {
		return f.points[i+1].at
	}
	return ever
}

// Fits says whether a hold of this pool fits in what is free.
func (f *Profile) Fits(h Hold) bool { return f.fits(h.Amount, floor(h.From), ceil(h.Until)) }

func (f *Profile) fits(a Amount, from, until int64) bool {
	from = max(from, f.past)
	for i := f.step(from); from < until; i++ {
		if !a.Within(f.free(i)) {
			return false
		}
		from = f.end(i)
	}
	return true
}

// Earliest gives the first second, not before notBefore and not after notAfter, at which the
// amount is free for a duration that ends by the horizon. A horizon or notAfter of zero is none.
// The duration is rounded up to a second.
func (f *Profile) Earliest(a Amount, d time.Duration, notBefore, horizon, notAfter time.Time) (time.Time, bool) {
	latest := int64(ever)
	if !notAfter.IsZero() {
		latest = floor(notAfter)
	}
	end := int64(ever)
	if !horizon.IsZero() {
		end = floor(horizon)
	}
	at, ok := f.earliest(a, seconds(d), ceil(notBefore), end, latest)
	if !ok {
		return time.Time{}, false
	}
	return instant(at), true
}

func seconds(d time.Duration) int64 {
	return max(1, int64(d/time.Second)+min(1, int64(d%time.Second)))
}

func (f *Profile) earliest(a Amount, d, start, horizon, latest int64) (int64, bool) {
	start = max(start, f.past)
	for i := f.step(start); start <= latest && start <= horizon-d; i++ {
		end := f.end(i)
		switch {
		case !a.Within(f.free(i)):
			if end == ever {
				return 0, false
			}
			start = end
		case end-start >= d:
			return start, true
		}
	}
	return 0, false
}

// Free gives what is free throughout a time: of each kind the least, and nothing where too much
// is held. Nodes are 0 where the pool does not count them.
func (f *Profile) Free(from, until time.Time) Amount {
	least := Amount{MaxAmount, MaxAmount, MaxAmount}
	at, end := max(floor(from), f.past), ceil(until)
	for i := f.step(at); ; i++ {
		least = least.least(f.free(i))
		if at = f.end(i); at >= end {
			break
		}
	}
	if f.pool.Capacity.Nodes == 0 {
		least.Nodes = 0
	}
	return least.floor()
}

// Step is a time throughout which the same is held.
type Step struct {
	From, Until time.Time // Until is zero for the last, which has no end
	Held        Amount
	Capacity    Amount // less the outages
}

// Over says that more is held than there is.
func (s Step) Over() bool { return !s.Held.Within(s.Capacity) }

// Steps gives the steps between two times in which anything is held or out, in order.
func (f *Profile) Steps(from, until time.Time) []Step {
	var out []Step
	begin, end := floor(from), ceil(until)
	for i := max(0, f.step(begin)); i < len(f.points) && f.points[i].at < end; i++ {
		q := f.points[i]
		if q.held.zero() && q.lost.zero() {
			continue
		}
		s := Step{From: instant(max(q.at, begin)), Held: q.held, Capacity: f.pool.Capacity.plus(q.lost, -1).floor()}
		if f.pool.Capacity.Nodes == 0 {
			s.Held.Nodes, s.Capacity.Nodes = 0, 0
		}
		if e := min(f.end(i), end); e != ever {
			s.Until = instant(e)
		}
		out = append(out, s)
	}
	return out
}

// Len is how many steps there are, which bounds the work of every question.
func (f *Profile) Len() int { return len(f.points) }
