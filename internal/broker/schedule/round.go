package schedule

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// run is one passage through a book.
type run struct {
	book   *book
	now    time.Time
	budget int
	trial  bool // everything is undone afterwards

	decisions []Decision
	aside     []*waiting // taken out of the book, and put back at the end

	// of a trial
	placed map[string]resourcemodel.Place
	given  []*given
	slept  []*class
}

// Round places waiting jobs, at most budget of them (no bound where that is not
// positive), in the order and at the places that the policies want. Jobs that find no
// room do not hold up those behind them. What they get is taken at once, and they do
// not wait any more; a decision that can't be carried out is undone with Left and Add.
func (s *Scheduler) Round(now time.Time, budget int) []Decision {
	if budget <= 0 {
		budget = math.MaxInt
	}
	s.revise()
	s.refresh(now)
	seed := s.seed
	var shadows map[string]resourcemodel.Place
	if s.books[1] != nil {
		shadows = s.try(now, budget)
		s.seed = seed
		if s.tried != nil {
			s.tried(shadows)
		}
	}
	r := &run{book: s.books[0], now: now, budget: budget}
	s.pass(r)
	for i := range r.decisions {
		if s.books[1] == nil {
			break
		}
		d := &r.decisions[i]
		if p, ok := shadows[d.Job]; ok {
			d.Shadow.Place = &p
		}
	}
	if s.recorder != nil {
		s.recorder.round(now, budget, seed, r.decisions)
	}
	return r.decisions
}

// try passes through the shadow book, undoes everything, and tells who would have got
// what. It has the room that the round after it has.
func (s *Scheduler) try(now time.Time, budget int) map[string]resourcemodel.Place {
	r := &run{book: s.books[1], now: now, budget: budget, trial: true, placed: map[string]resourcemodel.Place{}}
	dirty, far := len(s.dirty), s.far.before()
	s.pass(r)
	for _, g := range slices.Backward(r.given) {
		s.takeBack(g)
	}
	s.far.after(far)
	s.tentative = 0
	for _, c := range r.slept {
		r.book.wake(c)
	}
	for _, v := range s.dirty[dirty:] {
		v.dirty = false
	}
	s.dirty = s.dirty[:dirty]
	return r.placed
}

func (s *Scheduler) pass(r *run) {
	b := r.book
	b.weigh(r.now, &s.usage)
	for spent := false; r.budget > 0 && b.awake > 0 && !spent; {
		l, w := b.next(r.now, &s.usage)
		if w == nil {
			break
		}
		awake := b.awake
		var k resourcemodel.Key
		var placed bool
		if l.pairs != nil {
			placed = s.pair(r, l)
			spent = placed && s.spent(b)
		} else if k, placed = s.single(r, w); placed {
			spent = s.exhausted(s.site(k), r.now) && s.spent(b)
		}
		if awake != b.awake {
			spent = s.spent(b)
		}
	}
	for _, w := range r.aside {
		b.add(w)
	}
}

// spent reports whether nothing that woke the classes which are awake has room any
// more: walking them would find nothing.
func (s *Scheduler) spent(b *book) bool {
	if b.any > 0 {
		return false
	}
	for k := range b.hinted {
		if v := s.site(k); v.credit() > 0 && (v.Ahead > v.ahead || !s.places.Exhausted(k)) {
			return false
		}
	}
	return true
}

// exhausted reports whether a site takes no job of any kind.
func (s *Scheduler) exhausted(v *site, now time.Time) bool {
	return v.credit() == 0 || v.closed(now) || v.Ahead <= v.ahead && s.places.Exhausted(v.key)
}

// single gives one job a place, or finds that there is none for it.
func (s *Scheduler) single(r *run, w *waiting) (resourcemodel.Key, bool) {
	if s.far != nil {
		if k, gone := s.overflow(r, w); gone {
			return k, true
		}
	}
	v := s.open(r, w.class)
	if v == nil {
		return resourcemodel.Key{}, false
	}
	ranked, ok := s.rank(r.book.set.chooser(&w.Entry), w.Job, v.cands, r.now)
	if !ok {
		s.spurn(r, w)
		return resourcemodel.Key{}, false
	}
	k := v.cands[ranked[0].at].Place.Key
	s.place(r, w, v, ranked[0].at, ranked, 0)
	return k, true
}

// overflow gives a job to a peer, if that is where it is to go.
func (s *Scheduler) overflow(r *run, w *waiting) (resourcemodel.Key, bool) {
	if s.limited(w.class) || !s.mayLeave(&w.Entry) {
		return resourcemodel.Key{}, false
	}
	return s.beyond(r, w, s.look(w.class, r.now))
}

// open gives what a class sees, if there is room for it; else it sleeps.
func (s *Scheduler) open(r *run, c *class) *view {
	for _, l := range c.limits {
		if l.used >= l.most {
			s.sleep(r, c, l)
			return nil
		}
	}
	v := s.look(c, r.now)
	if len(v.cands) == 0 {
		s.sleep(r, c, nil)
		return nil
	}
	return v
}

// sleep lets a class be passed until something changes that could help it; the limit
// is what stops it, where it is that.
func (s *Scheduler) sleep(r *run, c *class, l *limit) {
	if r.trial {
		r.book.sleep(c)
		r.slept = append(r.slept, c)
		return
	}
	for _, b := range s.books {
		if b != nil {
			b.sleep(c)
		}
	}
	c.any, c.hints = false, nil
	if l != nil {
		c.full = true
		l.classes[c] = true
		return
	}
	if !c.filed {
		c.filed = true
		s.places.Register(c.id, c.request)
	}
}

// spurn sets a job aside that the policy of selection wants at none of the places
// which have room for it.
func (s *Scheduler) spurn(r *run, w *waiting) {
	r.book.remove(w)
	if r.trial {
		r.aside = append(r.aside, w)
		return
	}
	s.bar(w, r.now)
}

// place gives a job a place.
func (s *Scheduler) place(r *run, w *waiting, v *view, at int, ranked []marked, seed uint64) {
	c := v.cands[at]
	ahead := c.Free <= 0
	place := c.Place
	if !r.trial {
		if r.decisions == nil {
			r.decisions = make([]Decision, 0, min(r.budget, len(s.jobs), 64))
		}
		r.decisions = append(r.decisions, s.decision(r.now, w, v, at, ranked, seed))
	}
	r.budget--
	if r.trial {
		s.tentatively(r, w, w.Job, place, nil, ahead)
	} else {
		s.give(w.Job, place, ahead, false)
		s.remove(w.ID)
	}
}

// tentatively gives a job a place in a trial, far being that of a peer; as is the job, with the room
// that it has there.
func (s *Scheduler) tentatively(r *run, w *waiting, as *policy.Job, place resourcemodel.Place, far *resourcemodel.Place, ahead bool) {
	r.book.remove(w)
	r.aside = append(r.aside, w)
	r.given = append(r.given, s.giveTo(as, place, far, ahead, false))
	r.placed[w.ID] = place
	s.tentative++
}

// decision makes the record.
func (s *Scheduler) decision(now time.Time, w *waiting, v *view, at int, ranked []marked, seed uint64) Decision {
	d := Decision{
		Job: w.ID, Attempt: w.Attempt, At: now, Model: s.places.Snapshot().Revision(), Policies: s.policies.Revision,
		Policy: s.books[0].set.names(&w.Entry), Seed: seed, Place: v.cands[at].Place, Waited: len(s.jobs),
	}
	d.Ranked = make([]Ranked, 0, len(ranked))
	chosen := false
	for _, m := range ranked {
		c := v.cands[m.at]
		chosen = chosen || m.at == at
		d.Ranked = append(d.Ranked, Ranked{Place: c.Place, Soft: c.Soft, Score: finite(m.score), Free: c.Free})
	}
	if c := v.cands[at]; !chosen { // a pairing policy wanted another than the best
		if len(d.Ranked) == MaxRanked {
			d.Ranked = d.Ranked[:MaxRanked-1]
		}
		d.Ranked = append(d.Ranked, Ranked{Place: c.Place, Soft: c.Soft, Free: c.Free})
	}
	out, rest := s.ruled(v)
	d.Out, d.More = out, rest+len(v.cands)-len(d.Ranked)
	if b := s.books[1]; b != nil {
		d.Shadow = &Shadowed{Policy: b.set.names(&w.Entry)}
	}
	return d
}

// finite makes a score one that JSON has.
func finite(x float64) float64 { return min(max(x, -math.MaxFloat64), math.MaxFloat64) }

// marked is a candidate, by its index, with its score.
type marked struct {
	at, step int // of the soft criteria: see policy.SoftStep
	score    float64
}

// rank gives the best candidates, the best first, at most MaxRanked, until it is called
// again; false is that the policy wants none of them. The order is that of policy.Rank; a
// queue of a million jobs can't sort all places for each.
func (s *Scheduler) rank(choice *chooser, j *policy.Job, cands []held, now time.Time) ([]marked, bool) {
	var scores []float64
	if choice.marker == nil {
		s.flat = s.flat[:0]
		for i := range cands {
			s.flat = append(s.flat, *cands[i].Candidate)
		}
		scores = choice.Score(j, s.flat, now)
		clear(s.flat)
		if len(scores) != len(cands) {
			return nil, false
		}
	}
	need := j.Need()
	best := s.best[:0]
	for i := range cands {
		c := cands[i].Candidate
		m := marked{at: i, step: policy.SoftSteps}
		if c.Soft != 1 {
			m.step = policy.SoftStep(c.Soft)
		}
		if scores != nil {
			m.score = scores[i]
		} else {
			m.score = choice.marker.Mark(j, need, c)
		}
		if math.IsNaN(m.score) || len(best) == MaxRanked && !m.better(&best[MaxRanked-1], cands) {
			continue
		}
		if len(best) < MaxRanked {
			best = append(best, m)
		}
		k := len(best) - 1
		for ; k > 0 && m.better(&best[k-1], cands); k-- {
			best[k] = best[k-1]
		}
		best[k] = m
	}
	s.best = best
	return best, len(best) > 0
}

// better reports whether it goes before another.
func (m *marked) better(o *marked, cands []held) bool {
	if m.step != o.step {
		return m.step > o.step
	}
	if m.score != o.score {
		return m.score > o.score
	}
	x, y := cands[m.at], cands[o.at]
	if x.Preference != y.Preference {
		return x.Preference < y.Preference
	}
	if x.order != y.order {
		return x.order < y.order
	}
	return x.Place.Compare(y.Place) < 0
}

// pair takes the next jobs of a lane, lets its policy pair them with places, and
// reports whether it did. Those that are left over come up again in the next round.
func (s *Scheduler) pair(r *run, l *lane) bool {
	b := r.book
	var jobs []*policy.Job
	var window []*waiting
	var cands [][]policy.Candidate
	seen := map[*class][]policy.Candidate{}
	sent := false
	for len(window) < min(s.window, r.budget) {
		w := b.head(l, r.now, &s.usage)
		if w == nil {
			break
		}
		if s.far != nil {
			if _, gone := s.overflow(r, w); gone {
				sent = true
				continue
			}
		}
		v := s.open(r, w.class)
		if v == nil {
			continue
		}
		mine, ok := seen[w.class]
		if !ok {
			mine = make([]policy.Candidate, len(v.cands))
			for i, h := range v.cands {
				mine[i] = *h.Candidate
				mine[i].Free = s.room(w.class, h.site, h.order, h.Free, r.now)
			}
			seen[w.class] = mine
		}
		b.remove(w)
		window, jobs, cands = append(window, w), append(jobs, w.Job), append(cands, mine)
		// So that the window is not all of the lightest group.
		s.usage.add(w.Job, charge(w.Job))
	}
	for _, w := range window {
		s.usage.add(w.Job, -charge(w.Job))
	}
	if len(window) == 0 {
		return sent
	}
	seed := s.chance()
	pairs := l.pairs.Match(jobs, cands, r.now, rand.New(rand.NewPCG(seed, uint64(len(jobs))))) //nolint:gosec // it must be the same again in a replay
	slices.SortStableFunc(pairs, func(x, y policy.Pair) int { return cmp.Compare(x.Job, y.Job) })
	paired := make([]bool, len(window))
	any := false
	for _, p := range pairs {
		if p.Job < 0 || p.Job >= len(window) || paired[p.Job] || p.Candidate < 0 || p.Candidate >= len(cands[p.Job]) {
			continue
		}
		w, want := window[p.Job], &cands[p.Job][p.Candidate]
		if s.limited(w.class) {
			continue
		}
		v := s.look(w.class, r.now)
		at := slices.IndexFunc(v.cands, func(h held) bool { return h.Place == want.Place })
		if at < 0 {
			continue
		}
		paired[p.Job], any = true, true
		ranked, _ := s.rank(b.set.chooser(&w.Entry), w.Job, v.cands, r.now)
		s.place(r, w, v, at, ranked, seed)
	}
	for i, w := range window {
		if !paired[i] {
			r.aside = append(r.aside, w)
		}
	}
	l.still = !any && !sent
	for _, l := range b.lanes { // what they were charged by way of trial is void
		b.weighLane(l, r.now, &s.usage)
	}
	return any || sent
}

// limited reports whether a limit stops a class.
func (s *Scheduler) limited(c *class) bool {
	return slices.ContainsFunc(c.limits, func(l *limit) bool { return l.used >= l.most })
}

// chance gives the next seed.
func (s *Scheduler) chance() uint64 {
	s.seed += 0x9e3779b97f4a7c15
	z := s.seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return max(z^z>>31, 1) // 0 is "none" in a record
}
