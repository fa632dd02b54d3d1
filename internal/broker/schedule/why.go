package schedule

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Waiting says why a job waits.
type Waiting struct {
	// Sentence says in one sentence what it waits for.
	Sentence string `json:"sentence"`
	// Never is that no place that is known could ever run it as it is.
	Never bool `json:"never,omitempty"`
	// Position is the job's among those that are alike to all places and in its group,
	// from 1; Alike is how many these are.
	Position int `json:"position,omitempty"`
	Alike    int `json:"alike,omitempty"`
	// Next is the place which is likely to be the first to have room.
	Next *resourcemodel.Place `json:"next,omitempty"`
	// Until is when time alone ends the wait; zero where it does not.
	Until time.Time `json:"until,omitzero"`
	// Nearest is the smallest change of the request with which it could start now, or, if
	// no place could ever run it and none would start it now, be run at all, in words; ""
	// where there is none.
	Nearest string `json:"nearest,omitempty"`
}

// Why says what a job waits for; false is that it does not wait here.
func (s *Scheduler) Why(id string, now time.Time) (Waiting, bool) {
	w := s.jobs[id]
	if w == nil {
		return Waiting{}, false
	}
	out := s.why(&w.Entry, w, now)
	return out, true
}

// why says it of a job that may be in (w) or not (nil).
func (s *Scheduler) why(e *Entry, w *waiting, now time.Time) Waiting {
	if from := e.from(); from.After(now) {
		return Waiting{Sentence: "it waits for its time: it is not to be placed before " + from.UTC().Format(time.RFC3339), Until: from}
	}
	for _, l := range s.limitsOf(e.Owner, e.VO) {
		if l.used >= l.most {
			kind, name, _ := strings.Cut(l.group, ":")
			return Waiting{Sentence: fmt.Sprintf("it waits for a job of the %s %s to end: as many are at sites as may be at once, %d", kindWord(kind), name, l.most)}
		}
	}
	d := s.derived(now)
	cands := s.candidates(e.Request, d)
	of := classOf(e)
	if e.Only != nil {
		if cands = slices.DeleteFunc(cands, func(c policy.Candidate) bool { return e.Only.bars(c.Place.Key, c.Place.Share) }); len(cands) == 0 {
			return s.unpinnable(e, now)
		}
	}
	var open []held
	for i := range cands {
		if at := s.site(cands[i].Place.Key); s.room(of, at, cands[i].Order, cands[i].Free, now) > 0 {
			open = append(open, held{&cands[i], cands[i].Order, at})
		}
	}
	var out Waiting
	if w != nil {
		out.Position, out.Alike = s.position(w)
	}
	switch {
	case len(open) > 0:
		s.soon(&out, e, w, open, now)
	case len(cands) == 0:
		s.shut(&out, e.Request, d)
	case s.allPromised(&out, of, cands, now):
	default:
		s.allFull(&out, e, cands, d, now)
	}
	if len(open) == 0 {
		if said := s.afar(e, classOf(e), now); said != "" {
			out.Sentence += said
			out.Never = out.Never && !s.farFits(e, now)
		}
	}
	return out
}

// unpinnable is about a job whose site, by its agreement, takes none such now.
func (s *Scheduler) unpinnable(e *Entry, now time.Time) Waiting {
	out := Waiting{Sentence: "it waits for " + e.Only.String() + ", where it is to run by its agreement"}
	if v := s.sites[e.Only.Key]; v != nil && v.closed(now) {
		out.Sentence, out.Until = out.Sentence+": "+v.sentence(), v.Reopen
	}
	return out
}

func kindWord(kind string) string {
	if kind == "vo" {
		return "VO"
	}
	return kind
}

func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// soon is about a job that some places have room for.
func (s *Scheduler) soon(out *Waiting, e *Entry, w *waiting, open []held, now time.Time) {
	choice := s.books[0].set.chooser(e)
	soften(e.Request, open, s.derived(now))
	ranked, ok := s.rank(choice, e.Job, open, now)
	if !ok {
		out.Sentence = fmt.Sprintf("the policy %s gives it none of the %s that have room for it", choice.name, count(len(open), "place"))
		if w != nil && w.barred {
			out.Until = s.retry
		}
		return
	}
	p := open[ranked[0].at].Place
	out.Next = &p
	out.Sentence = fmt.Sprintf("%s has room for it, and its turn comes with the next round", p)
	if out.Position > 1 {
		out.Sentence = fmt.Sprintf("%s has room for jobs like it, and it is number %d of %d of them", p, out.Position, out.Alike)
	}
}

// shut is about a job that no place could run at present, or ever.
func (s *Scheduler) shut(out *Waiting, r *resourcemodel.Request, d resourcemodel.Derived) {
	verdicts := s.verdicts(r, d, maxVerdicts)
	out.Never = !slices.ContainsFunc(verdicts, func(v resourcemodel.Verdict) bool { return v.Could })
	out.Sentence = resourcemodel.WaitsFor(r, verdicts)
	out.Nearest = s.nearest(r, d, !out.Never)
}

// verdicts judges places, at most so many, those that could start the request first,
// then those that could ever run it.
func (s *Scheduler) verdicts(r *resourcemodel.Request, d resourcemodel.Derived, most int) []resourcemodel.Verdict {
	var out []resourcemodel.Verdict
	for w := range s.places.All() {
		if len(out) == most {
			break
		}
		out = append(out, r.Judge(w.Site, w.Share, w.Environment, d))
	}
	slices.SortStableFunc(out, func(a, b resourcemodel.Verdict) int { return order(&a) - order(&b) })
	return out
}

func order(v *resourcemodel.Verdict) int {
	switch {
	case v.Now:
		return 0
	case v.Could:
		return 1
	}
	return 2
}

// nearest says the smallest change of a request with which it could start now; where it
// could never start as it is, else that with which some place takes it.
func (s *Scheduler) nearest(r *resourcemodel.Request, d resourcemodel.Derived, could bool) string {
	if a, ok := resourcemodel.Nearest(r, s.places.All(), d, true); ok {
		return a.Sentence
	}
	if could {
		return ""
	}
	a, _ := resourcemodel.Nearest(r, s.places.All(), d, false)
	return a.Sentence
}

// maxVerdicts bounds the places that are judged to say why a job waits.
const maxVerdicts = 10_000

// allFull is about a job whose places have no room.
func (s *Scheduler) allFull(out *Waiting, e *Entry, cands []policy.Candidate, d resourcemodel.Derived, now time.Time) {
	full := slices.DeleteFunc(slices.Clone(cands), func(c policy.Candidate) bool {
		return s.site(c.Place.Key).closed(now) || slices.Contains(e.Avoid, c.Place.Key)
	})
	if len(full) == 0 {
		s.allClosed(out, e, cands, now)
		return
	}
	cpus := e.Request.Need.CPUs
	var bounded []*site // that are given no more, whatever is free there
	ready := slices.DeleteFunc(slices.Clone(full), func(c policy.Candidate) bool {
		v := s.site(c.Place.Key)
		if v.creditFor(cpus) > 0 {
			return false
		}
		if !slices.Contains(bounded, v) {
			bounded = append(bounded, v)
		}
		return true
	})
	var more []string
	for i, v := range bounded {
		switch {
		case i == 0 && len(ready) == 0: // the sentence begins with it
		case i == maxBounded:
			more = append(more, fmt.Sprintf("; likewise %s more", count(len(bounded)-i, "site")))
		case i < maxBounded:
			more = append(more, fmt.Sprintf("; the site %s %s", v.key, v.spentFor(cpus)))
		}
	}
	others := strings.Join(more, "")
	if len(ready) == 0 {
		out.Sentence = fmt.Sprintf("it waits for a job at the site %s to end, which %s", bounded[0].key, bounded[0].spentFor(cpus)) + others
		out.Next = &full[0].Place
		return
	}
	next := slices.MinFunc(ready, func(a, b policy.Candidate) int {
		x, known := waitOf(&a, e.Request, d)
		y, also := waitOf(&b, e.Request, d)
		if known && also && x != y {
			return cmp.Compare(x, y)
		}
		return cmp.Or(cmp.Compare(a.Load, b.Load), cmp.Compare(a.Preference, b.Preference), cmp.Compare(a.Order, b.Order))
	})
	out.Next = &next.Place
	which := fmt.Sprintf("all %d places that could run it are full", len(full))
	if len(full) == 1 {
		which = "the only place that could run it is full"
	}
	turn := ""
	if out.Alike > 1 {
		turn = fmt.Sprintf("; it is number %d of %d alike", out.Position, out.Alike)
	}
	likely := fmt.Sprintf(", and %s is likely to be free first", next.Place)
	if len(full) == 1 {
		likely = fmt.Sprintf(": %s", next.Place)
	}
	if t, known := waitOf(&next, e.Request, d); known {
		likely += fmt.Sprintf(", in about %s", t.Round(time.Second))
	}
	out.Sentence = which + likely + turn + others
	if a, ok := resourcemodel.Nearest(e.Request, s.taking(cpus, now), d, true); ok {
		out.Nearest = a.Sentence
	}
}

// maxBounded bounds the sites of which a sentence says that they are given no more.
const maxBounded = 3

// taking gives the places of the sites that are given jobs of so many CPUs now, if there
// is room.
func (s *Scheduler) taking(cpus int, now time.Time) iter.Seq[resourcemodel.Where] {
	return func(yield func(resourcemodel.Where) bool) {
		for w := range s.places.All() {
			if v := s.sites[w.Site.Key]; v != nil && (v.closed(now) || v.creditFor(cpus) == 0) {
				continue
			}
			if !yield(w) {
				return
			}
		}
	}
}

func waitOf(c *policy.Candidate, r *resourcemodel.Request, d resourcemodel.Derived) (time.Duration, bool) {
	if d.Wait != nil {
		if t, ok := d.Wait(c.Place, &r.Need); ok {
			return t, true
		}
	}
	return c.State.Forecast, c.State.Forecast > 0
}

// allClosed is about a job whose sites are all closed by the gateway, or not to have it.
func (s *Scheduler) allClosed(out *Waiting, e *Entry, cands []policy.Candidate, now time.Time) {
	var why []string
	closed := false
	for i := range cands {
		k := cands[i].Place.Key
		v := s.site(k)
		said := fmt.Sprintf("it is not to get the site %s again", k)
		if !slices.Contains(e.Avoid, k) {
			said, closed = v.sentence(), true
			if !v.Reopen.IsZero() && (out.Until.IsZero() || v.Reopen.Before(out.Until)) {
				out.Until = v.Reopen
			}
		}
		if !slices.Contains(why, said) && len(why) < 4 {
			why = append(why, said)
		}
	}
	out.Sentence = "it waits for a site to open: " + strings.Join(why, "; ")
	if !closed {
		out.Sentence = "it waits for another site: " + strings.Join(why, "; ") + ", and no other could run it now"
	}
}

// position counts the jobs that go before one, among those that are alike and in its
// group.
func (s *Scheduler) position(w *waiting) (at, of int) {
	b := s.books[0]
	c := w.spot.in
	if c == nil {
		return 0, 0
	}
	at = 1
	for _, x := range c.heap.items {
		if b.before(x, w) {
			at++
		}
	}
	return at, c.heap.len()
}
