package broker

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/estimate"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// mostReasons bounds the jobs of one request for which it is worked out what they wait
// for: that looks at every place.
const mostReasons = 64

// shown gives a job as it is told to people: with what the site told since it was
// written, and with what it waits for though no step of its says so, while left is
// above zero. The caller holds the lock.
func (b *Broker) shown(j *job, left *int) store.Job {
	rec := j.rec
	if j.told != nil {
		rec.Status.Told = j.told
	}
	st := &rec.Status
	switch p := Phase(st.Phase); {
	case p.waits() && j.queued == waiting:
		if *left--; *left >= 0 {
			st.Reason = b.waitsFor(j)
		}
	case p.atSite():
		if s := b.siteOf(st); s != nil && s.conn.Load() == nil {
			st.Reason = "the site " + s.name + ", which has it, can't be asked: " + s.absenceLocked()
			if p == Cancelling {
				st.Reason += "; its end is asked for once the site is back"
			} else {
				st.Reason += "; it waits until the site is back"
			}
		}
	}
	return rec
}

// waitsFor says in a sentence what a job with the scheduler waits for, and the smallest
// change with which it would start.
func (b *Broker) waitsFor(j *job) string {
	b.feedAll(time.Now())
	st := &j.rec.Status
	why, could := b.against(j.kind, st.Refused)
	if len(could) == 0 {
		return "no site can run it now, and it waits until one can: " + why
	}
	down := troubles(could)
	var out string
	switch w, ok := b.sched.Why(j.rec.ID, time.Now()); {
	case len(down) == len(could):
		out = "it waits, as no site that could run it takes jobs now: " + strings.Join(down, "; ")
	case !ok:
		return st.Reason
	default:
		if out = w.Sentence; w.Nearest != "" {
			out += "; " + w.Nearest
		}
	}
	if Phase(st.Phase) == Requeued && st.Reason != "" {
		return st.Reason + "; " + out
	}
	return out
}

// troubles gives those of the sites that take no jobs now, each with the reason; the caller
// holds the lock.
func troubles(sites []*site) (down []string) {
	for _, s := range sites {
		if trouble := cmp.Or(s.troubleLocked(), s.barredLocked()); trouble != "" {
			down = append(down, "site "+s.name+": "+trouble)
		}
	}
	return down
}

// refusal says why no site could ever run a kind of job, and the nearest change with
// which one could; nil if one could.
func (b *Broker) refusal(op string, k *kind, owner string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := k.fits; s != nil && s.static == k.as && k.as != nil && k.epoch == b.epoch {
		return nil // as it was for the one before
	}
	why, could := b.against(k, nil)
	if len(could) > 0 {
		k.fits, k.as = could[0], could[0].static
		return nil
	}
	b.feedAll(time.Now())
	if r := b.sched.Try(schedule.Entry{Job: jobOf("", owner, time.Now(), 0, k)}, time.Now(), 1); r.Waiting.Nearest != "" {
		why += "; " + r.Waiting.Nearest
	}
	return fail.Errorf(op, fail.Unsupported, "", "no site here can ever run this: %s", why)
}

// mostVerdicts bounds the places of one MatchReport.
const mostVerdicts = 4096

// Match tells what would become of a job, and changes nothing.
func (b *Broker) Match(ctx context.Context, doc []byte, vo string) (*MatchReport, error) {
	const op = "broker.Match"
	who, err := b.caller(ctx, op, Submit)
	if err != nil {
		return nil, err
	}
	select {
	case <-b.ready:
	default:
		return nil, errStarting
	}
	if n := len(doc); n > b.cfg.Limits.Document {
		return nil, fail.Errorf(op, fail.Invalid, "", "the job's document has %d bytes; at most %d are taken", n, b.cfg.Limits.Document)
	}
	def, problems := jsdl.Parse(doc, b.cfg.JSDL)
	if err := judge(def, problems); err != nil {
		return nil, err
	}
	k, err := compile(def, resourcemodel.Subject{User: who.Name, VO: vo})
	if err != nil {
		return nil, err
	}
	if err := b.member(who, k.request.Subject.VO); err != nil {
		return nil, err
	}
	b.mu.Lock()
	r, epoch := b.roster.Load(), b.epoch
	b.mu.Unlock()
	k.examine(r, epoch)
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.serving {
		return nil, errStarting
	}
	b.feedAll(now)
	e := schedule.Entry{Job: jobOf("", who.Name, now, 0, k), Attempt: 1, Queue: k.queue(), Avoid: k.avoid(nil)}
	e.Room = b.ownRoom(e.Owner, e.VO)
	t := b.sched.Try(e, now, mostVerdicts)
	why, could := b.against(k, nil)
	out := &MatchReport{Verdicts: t.Verdicts, Could: len(could) > 0, Now: t.Now, Nearest: t.Waiting.Nearest, Model: b.believed()}
	for i := range out.Verdicts {
		v := &out.Verdicts[i]
		if no, barred := k.barred[v.Place.Site]; barred && v.Place.Domain == "" {
			v.Could, v.Now = false, false
			v.Clauses = append([]resourcemodel.Clause{{Element: "Site", Asked: "what the document asks for", Has: "no way to express it", Sentence: no}}, v.Clauses...)
		}
	}
	slices.SortStableFunc(out.Verdicts, func(x, y resourcemodel.Verdict) int {
		return rankOf(&x) - rankOf(&y)
	})
	out.Waits = map[resourcemodel.Place]estimate.Wait{}
	for i := range out.Verdicts {
		p := out.Verdicts[i].Place
		if w, ok := b.book.Wait(estimate.Share{Key: p.Key, Share: p.Share}, b.stands(p, &k.request.Need), now); ok && out.Verdicts[i].Could {
			out.Waits[p] = w
		}
	}
	out.Verdicts = append(out.Verdicts, b.beyond(k.request, now, mostVerdicts-len(out.Verdicts))...)
	var full error
	if sh := b.shared.Load(); sh != nil {
		full = sh.limits.Full(limits.Use{User: who.Name, VO: k.request.Subject.VO, CPUs: k.request.Need.CPUs})
	}
	switch d := t.Decision; {
	case !out.Could:
		out.Sentence = "no site here can ever run this: " + why
	case full != nil:
		out.Sentence = "it would not be taken in now: " + fail.Sentence(full)
	case d != nil:
		out.Ranked = d.Ranked
		out.Sentence = "it would be placed at once: " + b.chosenBecause(d)
	default:
		out.Sentence = t.Waiting.Sentence
	}
	return out, nil
}

// believed gives the revision of the shared model.
func (b *Broker) believed() int64 {
	if sh := b.shared.Load(); sh != nil {
		return sh.model.Snapshot().Revision()
	}
	return 0
}

// rankOf orders verdicts: what could start now, what could, and the rest.
func rankOf(v *resourcemodel.Verdict) int {
	switch {
	case v.Now:
		return 0
	case v.Could:
		return 1
	}
	return 2
}

// Resources gives the model as it was believed at a moment.
func (b *Broker) Resources(ctx context.Context, at time.Time) (*resourcemodel.Snapshot, error) {
	const op = "broker.Resources"
	if _, err := b.caller(ctx, op, Submit); err != nil {
		return nil, err
	}
	select {
	case <-b.ready:
	default:
		return nil, errStarting
	}
	sh := b.shared.Load()
	if at.IsZero() {
		return sh.model.Snapshot(), nil
	}
	return sh.model.At(ctx, at)
}
