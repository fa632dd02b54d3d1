// Package estimate learns from what happened how long jobs will wait at a share,
// how likely a place is to run them to their end, and how fast it is. It is pure:
// the moments and the observations go in, and old ones count less and less.
package estimate

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/portolan-project/portolan/resourcemodel"
)

// Share names what waits are learned of.
type Share struct {
	resourcemodel.Key
	Share string
}

// Options say how a Book learns; zero means the default.
type Options struct {
	HalfLife time.Duration // after which an observation counts half; default 6 h
	Least    float64       // observations that make an estimate, those long ago counting less; default 3
	Shares   int           // of which anything is remembered, and as many kinds of jobs; default 4096
}

// Book is what was learned. Its methods may not be called at once from many
// goroutines. Moments that go back count as none passed.
type Book struct {
	o      Options
	shares map[Share]*share
	places map[resourcemodel.Place]*place
	kinds  map[string]*kind
}

// New makes an empty Book.
func New(o Options) *Book {
	o.HalfLife = cmp.Or(o.HalfLife, 6*time.Hour)
	o.Least = cmp.Or(o.Least, 3)
	o.Shares = cmp.Or(o.Shares, 4096)
	return &Book{o: o, shares: map[Share]*share{}, places: map[resourcemodel.Place]*place{}, kinds: map[string]*kind{}}
}

// State is how a share stood when a job was placed there: what waits depend on.
type State struct {
	Free     bool          // a slot was free, and nobody waited
	CPUs     int           // of the job
	Forecast time.Duration // the manager's own for it; 0 is not told
}

// Method is where an estimate comes from.
type Method string

// The methods.
const (
	History  Method = "history"  // quantiles of what jobs waited
	Forecast Method = "forecast" // the manager's own
)

// Wait is an estimate of how long a job will wait at a share.
type Wait struct {
	Median time.Duration // half of the jobs start sooner
	Most   time.Duration // 9 of 10 start sooner; Median for a forecast
	Method Method
	// Error is how far the method was off lately: the factor by which its estimates
	// missed, 1 being none missed; 0 when none was put to the test yet.
	Error float64
	Count float64 // observations behind it, those long ago counting less
}

// classes of jobs by size: small ones slip through where large ones wait.
func class(cpus int) int {
	switch {
	case cpus <= 1:
		return 0
	case cpus <= 8:
		return 1
	case cpus <= 64:
		return 2
	}
	return 3
}

const sizes = 4

type share struct {
	used   time.Time
	waits  [2][sizes]histogram // by whether a slot was free
	errors map[Method]*mean    // of the logarithm of the factor by which it missed
}

// buckets of a histogram: from 1 s in steps of the square root of 2, up to half a year.
const buckets = 48

type histogram struct {
	at     time.Time
	weight [buckets]float64
}

func bucket(d time.Duration) int {
	s := d.Seconds()
	if s < 1 {
		return 0
	}
	return min(buckets-1, 1+int(2*math.Log2(s)))
}

// middle gives the geometric middle of a bucket.
func middle(b int) time.Duration {
	if b == 0 {
		return 0
	}
	return time.Duration(math.Exp2(float64(b)/2-0.25) * float64(time.Second))
}

func decay(from, to time.Time, half time.Duration) float64 {
	if d := to.Sub(from); d > 0 && !from.IsZero() {
		return math.Exp2(-d.Seconds() / half.Seconds())
	}
	return 1
}

func (h *histogram) add(d time.Duration, now time.Time, half time.Duration) {
	f := decay(h.at, now, half)
	for i := range h.weight {
		h.weight[i] *= f
	}
	if now.After(h.at) {
		h.at = now
	}
	h.weight[bucket(d)]++
}

func (h *histogram) count(now time.Time, half time.Duration) float64 {
	sum := 0.0
	for _, w := range h.weight {
		sum += w
	}
	return sum * decay(h.at, now, half)
}

func (h *histogram) quantile(q float64) time.Duration {
	sum := 0.0
	for _, w := range h.weight {
		sum += w
	}
	part := 0.0
	for i, w := range h.weight {
		if part += w; part >= q*sum && w > 0 {
			return middle(i)
		}
	}
	return 0
}

// mean is one that forgets.
type mean struct {
	at          time.Time
	sum, weight float64
}

func (m *mean) add(v float64, now time.Time, half time.Duration) {
	f := decay(m.at, now, half)
	m.sum, m.weight = m.sum*f+v, m.weight*f+1
	if now.After(m.at) {
		m.at = now
	}
}

func (m *mean) value() float64 {
	if m == nil || m.weight == 0 {
		return 0
	}
	return m.sum / m.weight
}

// Started says that a job which was placed at a share in a state waited there so
// long, until now. What the Book would have said is put to the test.
func (b *Book) Started(at Share, s State, waited time.Duration, now time.Time) {
	waited = max(0, waited)
	sh := b.shares[at]
	if sh == nil {
		makeRoom(b.shares, b.o.Shares, func(s *share) time.Time { return s.used })
		sh = &share{errors: map[Method]*mean{}}
		b.shares[at] = sh
	}
	sh.used = now
	test := func(m Method, said time.Duration) {
		if sh.errors[m] == nil {
			sh.errors[m] = new(mean)
		}
		// A second more on both sides: that 1 s was said and it was none is no miss.
		sh.errors[m].add(math.Abs(math.Log((said.Seconds()+1)/(waited.Seconds()+1))), now, b.o.HalfLife)
	}
	if w, ok := b.history(sh, s, now); ok {
		test(History, w.Median)
	}
	if s.Forecast > 0 {
		test(Forecast, s.Forecast)
	}
	sh.waits[index(s.Free)][class(s.CPUs)].add(waited, now, b.o.HalfLife)
}

func index(free bool) int {
	if free {
		return 1
	}
	return 0
}

// Wait estimates how long a job would wait; false when nobody knows. Of history and
// forecast, the one that was off less lately is given.
func (b *Book) Wait(at Share, s State, now time.Time) (Wait, bool) {
	sh := b.shares[at]
	if sh == nil {
		return Wait{Median: s.Forecast, Most: s.Forecast, Method: Forecast}, s.Forecast > 0
	}
	past, ok := b.history(sh, s, now)
	if s.Forecast <= 0 {
		return past, ok
	}
	own := Wait{Median: s.Forecast, Most: s.Forecast, Method: Forecast}
	if m := sh.errors[Forecast]; m != nil {
		own.Error, own.Count = math.Exp(m.value()), m.weight*decay(m.at, now, b.o.HalfLife)
	}
	if ok && past.Error > 0 && own.Error > past.Error {
		return past, true
	}
	return own, true
}

// history gives the quantiles of the jobs most alike of which there are enough.
func (b *Book) history(sh *share, s State, now time.Time) (Wait, bool) {
	w := Wait{Method: History}
	if m := sh.errors[History]; m != nil {
		w.Error = math.Exp(m.value())
	}
	own := &sh.waits[index(s.Free)]
	h := &own[class(s.CPUs)]
	if w.Count = h.count(now, b.o.HalfLife); w.Count < b.o.Least {
		var all histogram
		w.Count = 0
		for i := range own {
			f := decay(own[i].at, now, b.o.HalfLife)
			for k, v := range own[i].weight {
				all.weight[k] += v * f
				w.Count += v * f
			}
		}
		h = &all
	}
	if w.Count < b.o.Least {
		return w, false
	}
	w.Median, w.Most = h.quantile(0.5), h.quantile(0.9)
	return w, true
}

// makeRoom drops the entry that was used longest ago, if there are as many as may be.
func makeRoom[K comparable, V any](m map[K]V, most int, used func(V) time.Time) {
	if len(m) < most {
		return
	}
	var oldest K
	var at time.Time
	first := true
	for k, v := range m {
		if u := used(v); first || u.Before(at) {
			oldest, at, first = k, u, false
		}
	}
	delete(m, oldest)
}

type place struct {
	used    time.Time
	success mean // 1 for each job that ran to its end, 0 for each that did not
	speed   mean // of the logarithm of the usual time of a job's kind by its time here
}

// kind is jobs that are alike.
type kind struct {
	used   time.Time
	length mean // of the logarithm of the run time
	first  resourcemodel.Place
	many   bool // seen at more than one place
}

// Ended says how a job ended at a place: whether the place ran it to its end, and how
// long it ran. Kind is the same for jobs that are alike ("" for one without likes):
// only they tell how fast a place is.
func (b *Book) Ended(at resourcemodel.Place, kindOf string, ran time.Duration, well bool, now time.Time) {
	p := b.places[at]
	if p == nil {
		makeRoom(b.places, b.o.Shares, func(p *place) time.Time { return p.used })
		p = new(place)
		b.places[at] = p
	}
	p.used = now
	v := 0.0
	if well {
		v = 1
	}
	p.success.add(v, now, b.o.HalfLife)
	if kindOf == "" || !well || ran < time.Second { // what is over at once measures the manager, not the nodes
		return
	}
	k := b.kinds[kindOf]
	if k == nil {
		makeRoom(b.kinds, b.o.Shares, func(k *kind) time.Time { return k.used })
		k = &kind{first: at}
		b.kinds[kindOf] = k
	}
	k.used = now
	l := math.Log(ran.Seconds())
	k.many = k.many || k.first != at
	k.length.add(l, now, b.o.HalfLife)
	if k.many {
		p.speed.add(k.length.value()-l, now, b.o.HalfLife)
	}
}

// SuccessRate gives the part of the recent jobs that a place ran to their end; false
// when there were too few.
func (b *Book) SuccessRate(at resourcemodel.Place, now time.Time) (float64, bool) {
	p := b.places[at]
	if p == nil || p.success.weight*decay(p.success.at, now, b.o.HalfLife) < b.o.Least {
		return 0, false
	}
	return p.success.value(), true
}

// Performance gives how fast a place is, 1 being the usual of the places that ran
// jobs of the same kinds; false when there were too few.
func (b *Book) Performance(at resourcemodel.Place, now time.Time) (float64, bool) {
	p := b.places[at]
	if p == nil || p.speed.weight*decay(p.speed.at, now, b.o.HalfLife) < b.o.Least {
		return 0, false
	}
	return math.Exp(p.speed.value()), true
}

// Shares lists what waits are known of, in order.
func (b *Book) Shares() []Share {
	out := make([]Share, 0, len(b.shares))
	for s := range b.shares {
		out = append(out, s)
	}
	slices.SortFunc(out, func(x, y Share) int {
		return cmp.Or(cmp.Compare(x.Domain, y.Domain), cmp.Compare(x.Site, y.Site), cmp.Compare(x.Share, y.Share))
	})
	return out
}

// Summary is what is known of all places of a site together.
type Summary struct {
	Jobs    float64       // observations behind it, those long ago counting less
	Success float64       // part of the jobs that it ran to their end
	Speed   float64       // relative to where jobs of the same kinds ran; 1 where nobody knows
	Wait    time.Duration // median of what jobs waited there
}

// Site sums up what is known of a site.
func (b *Book) Site(k resourcemodel.Key, now time.Time) Summary {
	out := Summary{Speed: 1}
	var well, fast, paced float64
	for at, p := range b.places {
		if at.Key != k {
			continue
		}
		f := decay(p.success.at, now, b.o.HalfLife)
		out.Jobs += p.success.weight * f
		well += p.success.sum * f
		g := decay(p.speed.at, now, b.o.HalfLife)
		fast += p.speed.sum * g
		paced += p.speed.weight * g
	}
	if out.Jobs > 0 {
		out.Success = well / out.Jobs
	}
	if paced > 0 {
		out.Speed = math.Exp(fast / paced)
	}
	var all histogram
	for at, sh := range b.shares {
		if at.Key != k {
			continue
		}
		for i := range sh.waits {
			for j := range sh.waits[i] {
				f := decay(sh.waits[i][j].at, now, b.o.HalfLife)
				for n, v := range sh.waits[i][j].weight {
					all.weight[n] += v * f
				}
			}
		}
	}
	out.Wait = all.quantile(0.5)
	return out
}
