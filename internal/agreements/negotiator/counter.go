package negotiator

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// found is an offer that could be kept.
type found struct {
	offer    *agreement.Offer
	proposal engine.Proposal
	plan     engine.Plan // the one that it would be kept by
	lost     int64       // what of the Optional constraints it breaks
}

func (f *found) start() (first time.Time) {
	for _, h := range f.plan.Holds {
		if first.IsZero() || h.From.Before(first) {
			first = h.From
		}
	}
	return first
}

func (f *found) end() (last time.Time) {
	for _, h := range f.plan.Holds {
		if h.Until.After(last) {
			last = h.Until
		}
	}
	return last
}

// search looks for what could be kept in answer to one offer.
type search struct {
	n     *Negotiator
	i     *instance
	offer *agreement.NegotiationOffer
	free  *agreement.Negotiable
	left  int // tries
	tried int
	until time.Time
}

// lasting are the kinds of errors that another offer does not help against, and that say
// nothing about this one.
var lasting = []fail.Kind{fail.Internal, fail.Unauthenticated, fail.Unavailable, fail.Uncertain}

// hopeless are those that say that no change of it would do.
var hopeless = []fail.Kind{fail.Denied, fail.Unsupported, fail.NotFound}

// search gives the offer as it is if it can be kept, and else the best that its
// constraints let; where there is none, why.
func (s *search) search(ctx context.Context) (list []found, why, err error) {
	o := s.offer.Offer()
	if s.free, err = s.offer.Negotiable(); err != nil {
		return nil, err, nil
	}
	e := o.Encode()
	if len(o.Services()) == 0 {
		return nil, fail.Errorf("negotiator.Negotiate", fail.Invalid, "", "the offer describes no service; describe one with a ServiceDescriptionTerm"), nil
	}
	f, p, why := s.try(ctx, e, false)
	switch kind := fail.KindOf(why); {
	case why == nil:
		return []found{*f}, nil, nil
	case slices.Contains(lasting, kind):
		return nil, nil, why
	case slices.Contains(hopeless, kind):
		return nil, why, nil
	}
	for _, look := range []func(context.Context, *etree.Element, *engine.Proposal, error) (*found, error){s.later, s.fewer, s.elsewhere} {
		f, err := look(ctx, e.Copy(), p, why)
		if err != nil {
			return nil, nil, err
		}
		if f != nil {
			list = append(list, *f)
		}
	}
	slices.SortStableFunc(list, func(a, b found) int { return cmp.Compare(a.lost, b.lost) })
	return list[:min(len(list), s.n.opts.MaxCounters)], why, nil
}

// errTries says that nothing more is tried.
var errTries = fail.Errorf("negotiator.Negotiate", fail.Exhausted, "", "too many changes of the offer were tried")

// try says whether an offer could be kept. With permitted, it must be one that the
// constraints let. The proposal is there if there are plans at all.
func (s *search) try(ctx context.Context, e *etree.Element, permitted bool) (*found, *engine.Proposal, error) {
	switch {
	case ctx.Err() != nil:
		return nil, nil, fail.Errorf("negotiator.Negotiate", fail.Unavailable, "", "the request has ended").Because(context.Cause(ctx))
	case s.left <= 0, s.tried > 0 && s.n.now().After(s.until):
		return nil, nil, errTries
	}
	s.left--
	s.tried++
	o, err := agreement.DecodeOffer(e.Copy())
	if err != nil {
		return nil, nil, err
	}
	if permitted {
		if broken := s.free.Check(o); len(broken) > 0 {
			return nil, nil, fail.Errorf("negotiator.Negotiate", fail.Invalid, "", "%s", broken[0].Sentence)
		}
	}
	p, err := s.n.planner.Plan(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	var plan engine.Plan
	if s.i.Agreement == "" {
		plan, _, err = s.n.engine.Quote(ctx, p.VO, p.Alternatives)
	} else {
		plan, _, err = s.n.engine.QuoteInstead(ctx, s.i.Owner, s.i.Agreement, p.VO, p.Alternatives)
	}
	if err != nil {
		return nil, &p, err
	}
	return &found{offer: o, proposal: p, plan: plan, lost: s.free.Lost(o)}, &p, nil
}

// tryPermitted is try of a changed offer; nil where it can't be kept.
func (s *search) tryPermitted(ctx context.Context, e *etree.Element) (*found, *engine.Proposal, error, error) {
	f, p, why := s.try(ctx, e, true)
	if why != nil && slices.Contains(lasting, fail.KindOf(why)) {
		return nil, nil, nil, why
	}
	return f, p, why, nil
}

// changeables gives the elements of an offer that may be changed and that pick says to.
func (s *search) changeables(e *etree.Element, pick func(*etree.Element) bool) []agreement.Changeable {
	list, err := s.free.Changeables(e)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(list, func(c agreement.Changeable) bool { return !pick(c.Element) })
}

// times are the elements whose value is when something is to be.
var times = []string{"StartTime", "EndTime", "StartBy", "FinishBy"}

func instant(e *etree.Element) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, xmldoc.Collapse(xmldoc.Text(e)))
	return t, err == nil
}

// later puts all times of the offer off together, until there is room.
func (s *search) later(ctx context.Context, e *etree.Element, p *engine.Proposal, why error) (*found, error) {
	list := s.changeables(e, func(e *etree.Element) bool {
		_, ok := instant(e)
		return ok && slices.Contains(times, e.Tag)
	})
	if len(list) == 0 {
		return nil, nil
	}
	first := make([]time.Time, len(list))
	for k, c := range list {
		first[k], _ = instant(c.Element)
	}
	var off time.Duration
	for range 8 {
		room, ok := errors.AsType[*engine.NoRoom](why)
		if !ok || room.Earliest.IsZero() || p == nil {
			return nil, nil
		}
		wait := max(time.Second, room.Earliest.Sub(latest(p.Alternatives)))
		off += (wait + time.Second - 1).Truncate(time.Second)
		for k, c := range list {
			if low, ok := lowestTime(&c.Item); ok && c.Item.Type == agreement.Required {
				off = max(off, low.Sub(first[k]))
			}
		}
		for k, c := range list {
			c.Element.SetText(first[k].Add(off).UTC().Format(time.RFC3339Nano))
		}
		f, next, reason, err := s.tryPermitted(ctx, e)
		if f != nil || err != nil {
			return f, err
		}
		p, why = next, reason
	}
	return nil, nil
}

// latest gives when the first of what is asked for would have to begin, at the latest.
func latest(plans []engine.Plan) (at time.Time) {
	for k := range plans {
		begin := plans[k].StartBy
		if begin.IsZero() {
			for _, h := range plans[k].Holds {
				if begin.IsZero() || h.From.Before(begin) {
					begin = h.From
				}
			}
		}
		if begin.After(at) {
			at = begin
		}
	}
	return at
}

// counts are the elements whose value is how much is asked for.
var counts = []string{"CPUs", "Slots", "Nodes", "NumberOfProcesses"}

// counted are those that have the value in a range of JSDL.
var counted = []string{"TotalCPUCount", "IndividualCPUCount", "TotalResourceCount"}

func count(e *etree.Element) (int64, bool) {
	of := e.Tag
	if slices.Contains([]string{"Exact", "LowerBound", "LowerBoundedRange", "UpperBound", "UpperBoundedRange"}, of) {
		for p := e.Parent(); p != nil; p = p.Parent() {
			if slices.Contains(counted, p.Tag) {
				of = counts[0]
				break
			}
		}
	}
	if !slices.Contains(counts, of) {
		return 0, false
	}
	v, err := strconv.ParseFloat(xmldoc.Collapse(xmldoc.Text(e)), 64)
	if err != nil || !(v >= 1 && v <= 1<<40) || v != math.Trunc(v) {
		return 0, false
	}
	return int64(v), true
}

// fewer asks for less of one thing: of those that may be less, what matters least.
func (s *search) fewer(ctx context.Context, e *etree.Element, _ *engine.Proposal, _ error) (*found, error) {
	list := s.changeables(e, func(e *etree.Element) bool { _, ok := count(e); return ok })
	slices.SortStableFunc(list, func(a, b agreement.Changeable) int {
		return cmp.Or(cmp.Compare(rank(&a.Item), rank(&b.Item)), cmp.Compare(a.Item.Importance, b.Item.Importance))
	})
	for _, c := range list {
		f, err := s.less(ctx, e, c)
		if f != nil || err != nil {
			return f, err
		}
	}
	return nil, nil
}

func rank(i *agreement.NegotiationItem) int {
	if i.Type == agreement.Required {
		return 1
	}
	return 0
}

// less looks for the most of one thing, below what was asked for, that can be had.
func (s *search) less(ctx context.Context, e *etree.Element, c agreement.Changeable) (*found, error) {
	was := c.Element.Text()
	defer c.Element.SetText(was)
	asked, _ := count(c.Element)
	with := func(v int64) (*found, error) {
		c.Element.SetText(strconv.FormatInt(v, 10))
		f, _, _, err := s.tryPermitted(ctx, e)
		return f, err
	}
	if values := enumerated(&c.Item); len(values) > 0 {
		var list []int64
		for _, v := range values {
			if n, err := strconv.ParseFloat(xmldoc.Collapse(v), 64); err == nil && n >= 1 && n < float64(asked) && n == math.Trunc(n) {
				list = append(list, int64(n))
			}
		}
		slices.Sort(list)
		for _, v := range slices.Backward(list) {
			if f, err := with(v); f != nil || err != nil {
				return f, err
			}
		}
		if c.Item.Type == agreement.Required {
			return nil, nil
		}
		return most(1, asked-1, with)
	}
	low, high := bounds(&c.Item)
	low, high = max(low, 1), min(high, asked-1)
	f, err := most(low, high, with)
	if f != nil || err != nil || c.Item.Type == agreement.Required {
		return f, err
	}
	return most(1, min(low-1, asked-1), with)
}

// most gives what is found for the greatest value from low to high, if less always does
// where more does.
func most(low, high int64, with func(int64) (*found, error)) (best *found, err error) {
	if low > high {
		return nil, nil
	}
	if best, err = with(low); best == nil || err != nil {
		return nil, err
	}
	for low < high {
		middle := low + (high-low+1)/2
		f, err := with(middle)
		switch {
		case err != nil:
			return nil, err
		case f != nil:
			best, low = f, middle
		default:
			high = middle - 1
		}
	}
	return best, nil
}

// elsewhere asks for another place.
func (s *search) elsewhere(ctx context.Context, e *etree.Element, _ *engine.Proposal, _ error) (*found, error) {
	sites := s.changeables(e, func(e *etree.Element) bool { return e.Tag == "Site" || e.Tag == "HostName" })
	shares := s.changeables(e, func(e *etree.Element) bool { return e.Tag == "Share" })
	var shareless []func() // what may stand beside another site
	for _, c := range shares {
		for _, v := range enumerated(&c.Item) {
			shareless = append(shareless, func() { c.Element.SetText(v) })
		}
	}
	attempt := func(c agreement.Changeable, v string) (*found, error) {
		was := c.Element.Text()
		if xmldoc.Collapse(was) == v {
			return nil, nil
		}
		defer c.Element.SetText(was)
		c.Element.SetText(v)
		f, _, _, err := s.tryPermitted(ctx, e)
		return f, err
	}
	for _, c := range sites {
		values, err := s.places(ctx, &c)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			if f, err := attempt(c, v); f != nil || err != nil {
				return f, err
			}
			for _, share := range shareless {
				was := make([]string, len(shares))
				for k := range shares {
					was[k] = shares[k].Element.Text()
				}
				share()
				f, err := attempt(c, v)
				for k := range shares {
					shares[k].Element.SetText(was[k])
				}
				if f != nil || err != nil {
					return f, err
				}
			}
		}
	}
	for _, c := range shares {
		for _, v := range enumerated(&c.Item) {
			if f, err := attempt(c, v); f != nil || err != nil {
				return f, err
			}
		}
	}
	return nil, nil
}

// places gives the sites that may be tried: those that the constraint lists, or all.
func (s *search) places(ctx context.Context, c *agreement.Changeable) ([]string, error) {
	if values := enumerated(&c.Item); len(values) > 0 || c.Element.Tag != "Site" {
		return values, nil
	}
	if all, ok := s.n.planner.(Siter); ok {
		return all.Sites(ctx)
	}
	return nil, nil
}

// facets gives the values of facets of an item's constraint.
func facets(i *agreement.NegotiationItem, local string) []string {
	if i.Constraint == nil {
		return nil
	}
	var list []string
	for _, f := range i.Constraint.ChildElements() {
		if f.Tag == local {
			list = append(list, strings.TrimSpace(f.SelectAttrValue("value", "")))
		}
	}
	return list
}

func enumerated(i *agreement.NegotiationItem) []string { return facets(i, "enumeration") }

// bounds gives the least and the most whole number that an item's constraint lets.
func bounds(i *agreement.NegotiationItem) (low, high int64) {
	low, high = 1, 1<<40
	for _, b := range []struct {
		facet  string
		change func(float64)
	}{
		{"minInclusive", func(v float64) { low = max(low, int64(math.Ceil(v))) }},
		{"minExclusive", func(v float64) { low = max(low, int64(math.Floor(v))+1) }},
		{"maxInclusive", func(v float64) { high = min(high, int64(math.Floor(v))) }},
		{"maxExclusive", func(v float64) { high = min(high, int64(math.Ceil(v))-1) }},
	} {
		for _, s := range facets(i, b.facet) {
			if v, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(v) <= 1<<40 {
				b.change(v)
			}
		}
	}
	return low, high
}

// lowestTime gives the earliest time that an item's constraint lets.
func lowestTime(i *agreement.NegotiationItem) (low time.Time, ok bool) {
	for _, s := range facets(i, "minInclusive") {
		if t, err := time.Parse(time.RFC3339Nano, s); err == nil && t.After(low) {
			low, ok = t, true
		}
	}
	return low, ok
}
