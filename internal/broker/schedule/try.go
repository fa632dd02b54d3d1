package schedule

import (
	"cmp"
	"slices"
	"time"

	"github.com/portolan-project/portolan/resourcemodel"
)

// Report is what would become of a job.
type Report struct {
	Verdicts []resourcemodel.Verdict `json:"verdicts"` // of all places, those that could run it first
	Could    bool                    `json:"could"`    // some place could ever run it
	Now      bool                    `json:"now"`      // some place has room for it
	Model    int64                   `json:"model"`
	// Decision is the record that it would get if it were its turn now; nil where no
	// place has room.
	Decision *Decision `json:"decision,omitempty"`
	// Waiting says what it would wait for where there is none.
	Waiting Waiting `json:"waiting,omitzero"`
}

// Try tells what would become of a job, and changes nothing. Most bounds the verdicts.
func (s *Scheduler) Try(e Entry, now time.Time, most int) Report {
	d := s.derived(now)
	r := Report{Verdicts: s.verdicts(e.Request, d, most), Model: s.places.Snapshot().Revision()}
	c := classOf(&e)
	v := &view{class: c, now: now}
	s.dealt(r.Verdicts, &e, now)
	s.sift(v)
	r.Could = len(v.cands)+len(v.full) > 0 || slices.ContainsFunc(r.Verdicts, func(v resourcemodel.Verdict) bool { return v.Could })
	r.Now = len(v.cands) > 0
	stopped := slices.ContainsFunc(s.limitsOf(e.Owner, e.VO), func(l *limit) bool { return l.used >= l.most })
	if s.far != nil && s.mayLeave(&e) && !stopped && !e.from().After(now) && !slices.ContainsFunc(v.cands, func(h held) bool { return h.Free > 0 }) {
		if dec := s.tryFar(&e, v, now); dec != nil {
			r.Decision = dec
			return r
		}
	}
	if !r.Now || stopped || e.from().After(now) {
		r.Waiting = s.why(&e, nil, now)
		return r
	}
	w := &waiting{Entry: e}
	ranked, ok := s.rank(s.books[0].set.chooser(&e), e.Job, v.cands, now)
	if !ok {
		r.Waiting = s.why(&e, nil, now)
		return r
	}
	dec := s.decision(now, w, v, ranked[0].at, ranked, 0)
	dec.Waited, dec.Shadow = len(s.jobs)+1, nil
	r.Decision = &dec
	return r
}

// dealt adds to verdicts what the gateway has against places that could start the job
// by what the model knows: it gives their sites no jobs now, or no more.
func (s *Scheduler) dealt(verdicts []resourcemodel.Verdict, e *Entry, now time.Time) {
	for i := range verdicts {
		v := &verdicts[i]
		at := s.sites[v.Place.Key]
		if !v.Now || at == nil {
			continue
		}
		said, limit := "", at.held(e.Request.Need.CPUs)
		switch {
		case at.closed(now):
			said = at.sentence()
		case at.creditFor(e.Request.Need.CPUs) == 0:
			said = "the site " + at.key.String() + " " + at.spentFor(e.Request.Need.CPUs)
		default:
			if said = s.promisedTo(classOf(e), at, v.Place.Share, now); said == "" {
				continue
			}
			v.Now = false
			v.Clauses = append(v.Clauses, resourcemodel.Clause{Element: "Promise", Asked: "room that is promised to nobody else", Has: "none for so long", Sentence: said, Dynamic: true})
			continue
		}
		v.Now = false
		v.Clauses = append(v.Clauses, resourcemodel.Clause{
			Element: "Site", Asked: "a site that is given jobs", Has: cmp.Or(limit, "none for now"), Sentence: said, Dynamic: true,
		})
	}
	slices.SortStableFunc(verdicts, func(a, b resourcemodel.Verdict) int { return order(&a) - order(&b) })
}
