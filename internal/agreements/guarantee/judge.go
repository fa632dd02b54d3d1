package guarantee

import (
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/decimal"
)

// far is how far ahead moments are looked for at which something changes by itself.
const far = 100 * 366 * 24 * time.Hour

// Apply notes an event. One that was noted before, or that Check refuses, changes
// nothing. One at or before the state's Now is judged at once; a later one when At
// comes to it.
func (g *Guarantee) Apply(s State, e Event) (State, []Assessment) {
	e.Time, e.Until = plain(e.Time), plain(e.Until)
	if e.Check() != nil {
		return s, nil
	}
	s = s.clone()
	if !s.see(e.Sequence) {
		return s, nil
	}
	if len(g.Services) > 0 && e.Service != "" && !slices.Contains(g.Services, e.Service) {
		return s, nil
	}
	g.note(&s, e)
	if e.Time.After(s.Now) {
		return s, nil
	}
	j := judge{g: g, s: &s}
	j.moment(s.Now)
	return s, j.out
}

// At judges all moments up to now, in their order. Now never goes back. After a very
// long time it stops on the way; Due is then not after now, and At is to be called again.
func (g *Guarantee) At(s State, now time.Time) (State, []Assessment) {
	now = plain(now)
	if !now.After(s.Now) {
		return s, nil
	}
	s = s.clone()
	j := judge{g: g, s: &s}
	for range maxSteps {
		next := g.Due(s)
		if next.IsZero() || next.After(now) {
			s.Now = now
			break
		}
		s.Now = next
		j.moment(next)
	}
	return s, j.out
}

// Due gives the next moment at which something changes: an event that is noted and
// not judged, a deadline that passes, an interval that ends. Zero is none.
func (g *Guarantee) Due(s State) time.Time {
	var next time.Time
	sooner := func(t time.Time) {
		if t.After(s.Now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, e := range s.Events {
		if e.Time.After(s.Now) {
			sooner(e.Time)
			break
		}
	}
	if s.Over {
		return next
	}
	for _, t := range s.Tallies {
		sooner(t.End)
	}
	for _, service := range g.subjects() {
		f := s.facts(service, s.Now)
		sooner(f.Until)
		if v := s.Verdicts[service]; !v.settled(g) && f.Completed.IsZero() {
			sooner(change(s.Now, next, func(t time.Time) bool { return g.truth(&f, t) != v.State }))
		}
	}
	return next
}

// settled reports whether a verdict can't change any more.
func (v Verdict) settled(g *Guarantee) bool { return !g.momentary && v.State != "" }

// change gives the first moment after now at which changed holds, if it holds from
// there on; before limit, or before a time that is far; zero if it does not.
func change(now, limit time.Time, changed func(time.Time) bool) time.Time {
	span := far
	if !limit.IsZero() {
		span = limit.Sub(now)
	}
	if !changed(now.Add(span)) {
		return time.Time{}
	}
	from := time.Duration(0)
	for span-from > 1 {
		if mid := from + (span-from)/2; changed(now.Add(mid)) {
			span = mid
		} else {
			from = mid
		}
	}
	return now.Add(span)
}

// lookup gives what is known of all that the expressions speak of.
func (g *Guarantee) lookup(f *Facts, now time.Time) func(string) agreement.Value {
	return func(name string) agreement.Value {
		if isKPI(name) {
			return f.value(name, now)
		}
		return g.variables[name]
	}
}

// truth gives what holds of a service at a moment, "" for what is not determined.
func (g *Guarantee) truth(f *Facts, now time.Time) agreement.GuaranteeState {
	look := g.lookup(f, now)
	if g.condition != nil {
		if is, ok := g.condition.Evaluate(look).Truth(); !ok || !is {
			return ""
		}
	}
	switch is, ok := g.objective.Evaluate(look).Truth(); {
	case !ok:
		return ""
	case is:
		return agreement.Fulfilled
	}
	return agreement.Violated
}

// judge judges one state.
type judge struct {
	g   *Guarantee
	s   *State
	out []Assessment
}

// moment judges what there is at s.Now.
func (j *judge) moment(now time.Time) {
	completed := false
	for _, service := range j.g.subjects() {
		f := j.s.facts(service, now)
		completed = completed || !f.Completed.IsZero()
		j.service(service, &f, now)
	}
	j.owed(now, false)
	j.intervals(now, completed)
	if completed {
		j.owed(now, true)
		j.s.Over = true
	}
}

// service finds the verdict of one service.
func (j *judge) service(service string, f *Facts, now time.Time) {
	at := now
	if !f.Completed.IsZero() && f.Completed.Before(now) {
		at = f.Completed // by itself nothing changes after the end
	}
	v := j.s.Verdicts[service]
	if !v.settled(j.g) {
		if is := j.g.truth(f, at); is != v.State {
			if v = (Verdict{State: is, At: now}); is == "" {
				delete(j.s.Verdicts, service)
				return
			}
			j.count(service, f, v, at)
			j.flag(service, v.State, now)
		}
	}
	if v.State != "" {
		v.Closed = !j.g.momentary && (v.State == agreement.Fulfilled || f.over(now) || !f.Ended.IsZero() || j.g.known(f, at))
		j.s.Verdicts[service] = v
	}
}

// known reports whether all KPIs of the promise have come to their values.
func (g *Guarantee) known(f *Facts, now time.Time) bool {
	return !slices.ContainsFunc(g.objective.Variables(), func(name string) bool { return isKPI(name) && !f.value(name, now).Known() })
}

// assess gives an assessment out.
func (j *judge) assess(a Assessment) {
	j.s.Number++
	a.Guarantee, a.Number = j.g.Name, j.s.Number
	if !j.broken() {
		j.s.State = a.State
	} else {
		j.s.State = agreement.Violated
	}
	j.out = append(j.out, a)
}

// broken reports whether the promise was broken and can't be kept again.
func (j *judge) broken() bool {
	if j.g.momentary {
		return false
	}
	for _, v := range j.s.Verdicts {
		if v.State == agreement.Violated {
			return true
		}
	}
	return false
}

// count assesses a new verdict, with what is due for each Count of them.
func (j *judge) count(service string, f *Facts, v Verdict, now time.Time) {
	j.s.Verdicts[service] = v
	a := Assessment{At: v.At, Service: service, State: v.State, Evidence: j.g.evidence(f, v.State, now)}
	var later []Owed
	for i := range j.g.compensations {
		c, t := &j.g.compensations[i], &j.s.Tallies[i]
		if c.count == 0 {
			continue
		}
		t.Count++
		if v.State == agreement.Violated && t.BrokenAt.IsZero() {
			t.Broken, t.BrokenAt = service, v.At
		}
		if t.Count < c.count {
			continue
		}
		if (c.sort == Penalty) != t.BrokenAt.IsZero() {
			if amount, ok := c.amount.Evaluate(j.g.lookup(f, now)).Number(); ok {
				a.owe(c, amount)
			} else {
				later = append(later, Owed{i, service, v.State})
			}
		}
		*t = Tally{}
	}
	j.assess(a)
	if room := maxOwed - len(j.s.Owed); len(later) > room {
		later = later[:room]
	}
	j.s.Owed = append(j.s.Owed, later...)
}

// owe makes an amount due; one that is not above zero is none.
func (a *Assessment) owe(c *compensation, amount decimal.Decimal) {
	if amount.Sign() > 0 {
		a.Due = append(a.Due, Due{c.sort, amount, c.unit})
	}
}

// owed reckons what could not be reckoned before; last gives up what still can't be.
func (j *judge) owed(now time.Time, last bool) {
	var left []Owed
	for _, o := range j.s.Owed {
		c := &j.g.compensations[o.Compensation]
		f := j.s.facts(o.Service, now)
		amount, ok := c.amount.Evaluate(j.g.lookup(&f, now)).Number()
		if !ok && !last {
			left = append(left, o)
			continue
		}
		a := Assessment{At: now, Service: o.Service, State: o.State}
		if ok {
			a.Evidence = "the " + string(c.sort) + " could be reckoned now: " + c.amount.String() + " is " + amount.String()
			a.owe(c, amount)
		} else {
			a.Evidence = "the " + string(c.sort) + " could not be reckoned: the agreement ended before " + c.amount.String() + " was known"
		}
		j.assess(a)
	}
	j.s.Owed = left
}

// flag notes for the running intervals how the promise stands.
func (j *judge) flag(service string, state agreement.GuaranteeState, now time.Time) {
	for i := range j.g.compensations {
		if j.g.compensations[i].interval > 0 && !j.s.Over {
			j.flagOne(i, service, state, now)
		}
	}
}

func (j *judge) flagOne(i int, service string, state agreement.GuaranteeState, now time.Time) {
	d, t := j.g.compensations[i].interval, &j.s.Tallies[i]
	if t.End.IsZero() { // the interval that now is in: what is at its end belongs to it
		n := max(1, (now.Sub(j.s.Start)+d-1)/d)
		t.End = j.s.Start.Add(n * d)
	}
	if state == agreement.Violated && t.BrokenAt.IsZero() {
		t.Broken, t.BrokenAt = service, now.Truncate(time.Microsecond)
	}
}

// intervals assesses those that end now, or at last. Compensations that are due each
// same interval share an assessment.
func (j *judge) intervals(now time.Time, last bool) {
	for i := range j.g.compensations {
		d, t := j.g.compensations[i].interval, j.s.Tallies[i]
		if d == 0 || t.End.IsZero() || !last && t.End.After(now) {
			continue
		}
		a := Assessment{At: now, Service: t.Broken, State: agreement.Fulfilled}
		a.Evidence = "from " + agreement.OfTime(t.End.Add(-d)).String() + " to " + agreement.OfTime(now).String() +
			" the promise that " + j.g.objective.String()
		if t.BrokenAt.IsZero() {
			a.Evidence += " was kept"
		} else {
			a.State = agreement.Violated
			a.Evidence += " was broken, first at " + agreement.OfTime(t.BrokenAt).String()
		}
		f := j.s.facts(t.Broken, now)
		if told := f.String(); told != "" {
			a.Evidence += " (" + told + ")"
		}
		var over []int
		for k := i; k < len(j.g.compensations); k++ {
			if c := &j.g.compensations[k]; c.interval == d && j.s.Tallies[k].End.Equal(t.End) {
				over = append(over, k)
				j.s.Tallies[k] = Tally{}
				if (c.sort == Penalty) != (a.State == agreement.Violated) {
					continue
				}
				if amount, ok := c.amount.Evaluate(j.g.lookup(&f, now)).Number(); ok {
					a.owe(c, amount)
				} else {
					a.Evidence += "; the " + string(c.sort) + " can't be reckoned: " + c.amount.String() + " has no value"
				}
			}
		}
		j.assess(a)
		if last {
			continue
		}
		// What stands goes on in the next interval, which begins now.
		for _, service := range j.g.subjects() {
			if v := j.s.Verdicts[service]; v.State != "" && !v.Closed {
				for _, k := range over {
					j.flagOne(k, service, v.State, now.Add(1))
				}
			}
		}
	}
}

// evidence says what was promised and what was seen.
func (g *Guarantee) evidence(f *Facts, state agreement.GuaranteeState, now time.Time) string {
	var seen []string
	for _, name := range g.objective.Variables() {
		if d, ok := kpis[name]; ok {
			v := f.value(name, now)
			said := v.String()
			if is, ok := v.Truth(); ok {
				said = map[bool]string{true: "yes", false: "no"}[is]
			}
			seen = append(seen, d.Words+": "+said)
		}
	}
	word := "kept"
	if state == agreement.Violated {
		word = "broken"
	}
	s := "the promise that " + g.objective.String() + " is " + word + " by " + agreement.OfTime(now).String() + " (" + strings.Join(seen, "; ")
	if told := f.String(); told != "" {
		s += "; " + told
	}
	return s + ")"
}
