package terms

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// MaxPlans bounds the alternatives for one offer.
const MaxPlans = engine.MaxAlternatives

// Plan is one way to keep what a request asks for.
type Plan struct {
	Name string // "slurm/batch", or of several services "slurm/batch + condor/long"
	// Holds are had together, as they are, or all put off by the same time, so that the
	// earliest begins by StartBy; zero: they are not put off. A plan for best effort has none.
	Holds   []calendar.Hold
	StartBy time.Time
	// Price is the most that it can cost, in thousandths of the unit.
	Price  int64
	Placed []Placed // of each service, in the order of the request
}

// Placed is where a plan puts a service.
type Placed struct {
	Service     string `json:"service"`
	Site        string `json:"site,omitempty"` // "" is anywhere, for best effort
	Share       string `json:"share,omitempty"`
	Environment string `json:"environment,omitempty"`
	CPUs        int64  `json:"cpus,omitempty"`  // that are held
	Nodes       int64  `json:"nodes,omitempty"` // whole ones
	Holds       []int  `json:"holds,omitempty"` // which of the plan's
}

// Engine gives the plan as the engine tries it; its Services are what Placements reads.
func (p *Plan) Engine() (engine.Plan, error) {
	b, err := json.Marshal(p.Placed)
	if err != nil {
		return engine.Plan{}, fail.E("terms.Engine", fail.Internal, p.Name, err)
	}
	return engine.Plan{Name: p.Name, Holds: p.Holds, StartBy: p.StartBy, Price: p.Price, Services: b}, nil
}

// Placements gives where a plan of the engine puts the services.
func Placements(p *engine.Plan) ([]Placed, error) {
	var list []Placed
	if len(p.Services) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(p.Services, &list); err != nil {
		return nil, fail.E("terms.Placements", fail.Internal, p.Name, err)
	}
	return list, nil
}

// spot is a place where a service could be.
type spot struct {
	placed Placed
	holds  []calendar.Hold
	price  int64
	first  bool // the share is the site's default
}

// Plans gives the ways to keep a request, the best first: the cheapest, then the one on a
// site's default share, then by name. Several services go together, so that each plan has a
// place for all. Where there is none, the refusal says what stands against the nearest place:
// fail.Exhausted (there will never be room), fail.Invalid (the times don't fit) or
// fail.Denied.
func Plans(q *Request, m *resourcemodel.Snapshot, who resourcemodel.Subject, now time.Time, s Settings) ([]Plan, error) {
	s.EnsureDefaults()
	if len(q.Services) == 0 {
		return nil, fail.Errorf("terms.Plans", fail.Invalid, "", "the request has no services")
	}
	w := world(m, q.Kind, &s)
	choices := make([][]spot, len(q.Services))
	most := int64(math.MaxInt64) // how long all may be put off together
	for i := range q.Services {
		v := &q.Services[i]
		span, late, err := v.span(q.Kind, now)
		if err != nil {
			return nil, err
		}
		most = min(most, int64(late))
		if choices[i], err = v.spots(q.Kind, w, who, span, now); err != nil {
			return nil, err
		}
	}
	var plans []Plan
	for _, pick := range picks(choices, MaxPlans) {
		p := Plan{}
		for i, n := range pick {
			c := choices[i][n]
			placed := c.placed
			placed.Holds = nil
			for _, h := range c.holds {
				placed.Holds = append(placed.Holds, len(p.Holds))
				h.ID = fmt.Sprintf("%d/%s", i, h.Pool)
				if len(h.ID) > calendar.MaxID {
					h.ID = fmt.Sprintf("%d/%d", i, len(placed.Holds))
				}
				p.Holds = append(p.Holds, h)
			}
			p.Placed = append(p.Placed, placed)
			if p.Name += " + "; i == 0 {
				p.Name = ""
			}
			p.Name += cmp.Or(Place{placed.Site, placed.Share}.String(), "anywhere")
			p.Price = min(p.Price+c.price, maxTotal)
		}
		if most > 0 && len(p.Holds) > 0 {
			p.StartBy = slices.MinFunc(p.Holds, func(a, b calendar.Hold) int { return a.From.Compare(b.From) }).From.Add(time.Duration(most))
		}
		plans = append(plans, p)
	}
	return plans, nil
}

const maxTotal = engine.MaxPrice

// picks gives combinations of one of each list, those first whose numbers are least.
func picks(lists [][]spot, most int) [][]int {
	var out [][]int
	limit := 0
	for _, l := range lists {
		limit += len(l) - 1
	}
	var pick func(done []int, left int)
	pick = func(done []int, left int) {
		if len(out) == most {
			return
		}
		i := len(done)
		if i == len(lists) {
			if left == 0 {
				out = append(out, slices.Clone(done))
			}
			return
		}
		rest := 0 // that the lists behind this one can still take
		for _, l := range lists[i+1:] {
			rest += len(l) - 1
		}
		for n := max(0, left-rest); n <= min(left, len(lists[i])-1); n++ {
			pick(append(done, n), left-n)
		}
	}
	for sum := 0; sum <= limit && len(out) < most; sum++ {
		pick(make([]int, 0, len(lists)), sum)
	}
	return out
}

// span gives when a service has its resources if nothing is in the way, and by how much
// that may be put off.
func (v *Service) span(k Kind, now time.Time) (w Window, late time.Duration, err error) {
	w.Start = now
	if v.NotBefore.After(now) {
		w.Start = v.NotBefore
	}
	switch k {
	case BestEffort:
		return w, 0, nil
	case AdvanceReservation, Capacity:
		return v.Window, 0, nil
	case StartBy, FinishBy:
	}
	if v.Duration <= 0 {
		return w, 0, invalid(v.Term, "the job of the service %s does not say how long it may run, so that nothing can be promised: give it a WallTimeLimit", quoted(v.Name))
	}
	w.End = w.Start.Add(v.Duration)
	by := v.StartBy
	if d := v.FinishBy.Add(-v.Duration); !v.FinishBy.IsZero() && (by.IsZero() || d.Before(by)) {
		by = d
	}
	if by.Before(w.Start) {
		if !v.FinishBy.IsZero() {
			return w, 0, invalid(v.Term, "the job of the service %s may run for %s, and if it starts at %s it may end as late as %s: after %s, by which it is to be finished", quoted(v.Name), v.Duration, moment(w.Start), moment(w.End), moment(v.FinishBy))
		}
		return w, 0, invalid(v.Term, "the job of the service %s is to start by %s, and can't before %s", quoted(v.Name), moment(by), moment(w.Start))
	}
	return w, by.Sub(w.Start), nil
}

// world gives the sites that a kind can be had at: nothing is promised of a peer's, but a job
// may go there.
func world(m *resourcemodel.Snapshot, k Kind, s *Settings) []*siteWorth {
	sites := m.SitesOf("")
	if k == BestEffort {
		sites = m.Sites()
	}
	var list []*siteWorth
	for site := range sites {
		list = append(list, worth(site, s))
	}
	return list
}

// reasons collects why places do not do; the last kind of reason that was found is the
// nearest to doing.
type reasons struct {
	rank     int
	sentence string
	count    int
}

func (r *reasons) add(rank int, place Place, format string, args ...any) {
	r.count++
	if s := fmt.Sprintf(format, args...); rank > r.rank || r.sentence == "" {
		r.rank, r.sentence = rank, "at "+place.String()+" "+s
	}
}

// spots gives the places that would do for a service, the best first.
func (v *Service) spots(k Kind, sites []*siteWorth, who resourcemodel.Subject, w Window, now time.Time) ([]spot, error) {
	var job *resourcemodel.Request
	if v.Job != nil {
		var err error
		if job, err = resourcemodel.Compile(v.Job, who); err != nil {
			return nil, fail.Errorf("terms.Plans", fail.KindOf(err), v.Term, "the job of the service %s: %s", quoted(v.Name), fail.Sentence(err))
		}
	}
	var list []spot
	var why reasons
	for _, site := range sites {
		for i := range site.shares {
			h := &site.shares[i]
			at := Place{site.site.Key.String(), h.share.ID}
			if v.Place.Site != "" && v.Place.Site != at.Site || v.Place.Share != "" && v.Place.Share != at.Share {
				continue
			}
			for _, e := range h.spots {
				c, ok := v.spot(k, site, h, e, job, who, w, now, &why)
				if !ok {
					continue
				}
				list = append(list, c)
			}
		}
	}
	if len(list) == 0 {
		return nil, v.nowhere(k, &why)
	}
	slices.SortStableFunc(list, func(a, b spot) int {
		preferred := 0
		switch {
		case a.first && !b.first:
			preferred = -1
		case b.first && !a.first:
			preferred = 1
		}
		return cmp.Or(cmp.Compare(a.price, b.price), preferred,
			comparePlaces(Place{a.placed.Site, a.placed.Share}, Place{b.placed.Site, b.placed.Share}))
	})
	if k == BestEffort {
		// Nothing is held, and where it runs is decided when it does.
		dearest := slices.MaxFunc(list, func(a, b spot) int { return cmp.Compare(a.price, b.price) })
		return []spot{{placed: Placed{Service: v.Name, Site: v.Place.Site, Share: v.Place.Share}, price: dearest.price}}, nil
	}
	return list, nil
}

func (v *Service) nowhere(k Kind, why *reasons) error {
	what := "the job of the service " + quoted(v.Name)
	if v.Job == nil {
		what = "the capacity of the service " + quoted(v.Name)
	}
	if why.count == 0 {
		at := v.Place.String()
		if v.Place.Site == "" {
			at = "any site"
			if v.Place.Share != "" {
				at = "a share " + quoted(v.Place.Share) + " of any site"
			}
		}
		return fail.Errorf("terms.Plans", fail.Exhausted, v.Term, "%s asks for %s, and there is no such place", what, at)
	}
	return fail.Errorf("terms.Plans", fail.Exhausted, v.Term, "%s can't be promised (%s) at any of %d places; the nearest: %s", what, k, why.count, why.sentence)
}

// spot works out what a service takes at a place; false is that it can't be there, and why
// says what stands against it.
func (v *Service) spot(k Kind, site *siteWorth, h *shareWorth, e *environmentWorth, job *resourcemodel.Request, who resourcemodel.Subject, w Window, now time.Time, why *reasons) (c spot, ok bool) {
	at := Place{site.site.Key.String(), h.share.ID}
	c.first = h.share.Default
	c.placed = Placed{Service: v.Name, Site: at.Site, Share: at.Share, Environment: e.environment.ID}
	var slots int64
	if job == nil {
		if !site.site.Static.Policy.Allows(who) || !h.share.Policy.Allows(who) {
			why.add(1, at, "you may not use the share")
			return c, false
		}
		if !v.book(&c, &slots, e, at, why) {
			return c, false
		}
	} else {
		if verdict := job.Judge(site.site, h.share, e.environment, resourcemodel.Derived{Now: now}); !verdict.Could {
			why.add(2, at, "%s", verdict.Clauses[0].Sentence)
			return c, false
		}
		if k != BestEffort && !v.hold(&c, &slots, site.site, h, e, job, at, why) {
			return c, false
		}
		if k == BestEffort {
			c.placed.CPUs = int64(max(1, job.Need.CPUs))
		}
	}
	if v.Price != nil && price(h.share) > v.Price.PerCPUHour {
		why.add(5, at, "a CPU-hour costs %s, and the offer gives %s", decimal(price(h.share)), decimal(v.Price.PerCPUHour))
		return c, false
	}
	length := v.Duration
	if k != BestEffort {
		length = w.Length()
	}
	c.price = cost(price(h.share), c.placed.CPUs, length)
	if k == BestEffort {
		return c, true
	}
	amount := calendar.Amount{Slots: slots, CPUs: c.placed.CPUs, Nodes: c.placed.Nodes}
	if room := h.room(e); !h.open {
		why.add(3, at, "no jobs are taken at present")
		return c, false
	} else if !amount.Within(room) {
		why.add(4, at, "%s are asked for, and %s can be promised at once", tell(amount), tell(room))
		return c, false
	}
	c.holds = []calendar.Hold{{Pool: PoolID(at.Site, at.Share), Amount: amount, From: w.Start, Until: w.End}}
	if e.own {
		c.holds = append(c.holds, calendar.Hold{
			Pool: NodesID(at.Site, e.environment.ID), Amount: calendar.Amount{CPUs: amount.CPUs, Nodes: amount.Nodes}, From: w.Start, Until: w.End,
		})
	}
	return c, true
}

// book is what a capacity takes: whole nodes have all of their CPUs, and a slot is a CPU.
func (v *Service) book(c *spot, slots *int64, e *environmentWorth, at Place, why *reasons) bool {
	a := v.Capacity.Amount
	c.placed.CPUs, c.placed.Nodes, *slots = max(a.CPUs, a.Slots), a.Nodes, a.Slots
	if a.Nodes > 0 {
		if e.environment.CPUs == 0 || e.nodes == 0 {
			why.add(3, at, "it is not known how many nodes of how many CPUs there are: ask for CPUs")
			return false
		}
		c.placed.CPUs = times(a.Nodes, int64(e.environment.CPUs))
	}
	return true
}

// hold is what a job takes of the calendar. A job that wants its hosts shaped, or all of
// them, is given whole nodes: what is left between others' jobs may be of another shape.
func (v *Service) hold(c *spot, slots *int64, site *resourcemodel.Site, h *shareWorth, e *environmentWorth, job *resourcemodel.Request, at Place, why *reasons) bool {
	if len(job.Need.Consumables) > 0 {
		why.add(3, at, "licences and other counted things are not kept for anybody; only best effort can have them")
		return false
	}
	given, ok := job.Allocate(resourcemodel.Where{Site: site, Share: h.share, Environment: e.environment}, resourcemodel.Derived{})
	if !ok {
		why.add(2, at, "the job has no room on one environment")
		return false
	}
	*slots = 1
	each := int64(e.environment.CPUs)
	cpus := int64(max(1, given.CPUs))
	if memory := max(given.Memory, job.Need.Memory); memory > 0 && e.environment.Memory > 0 && each > 0 {
		// Who takes more than a CPU's part of the memory leaves the CPUs without any.
		part := max(1, e.environment.Memory/each)
		cpus = max(cpus, min((memory+part-1)/part, times(int64(max(1, given.Hosts)), each)))
	}
	shaped := given.Hosts > 1 && job.Need.Hosts > 0 || job.Need.CPUsPerHost > 1 || given.CPUsPerHost > 1
	if !job.Need.Exclusive && job.Need.GPUs == 0 && (!shaped || e.nodes == 1) {
		c.placed.CPUs = cpus
		return true
	}
	if each == 0 || e.nodes == 0 {
		why.add(3, at, "it is not known how many nodes of how many CPUs there are, and the job asks for hosts of its own or of a shape")
		return false
	}
	c.placed.Nodes = max(int64(given.Hosts), (cpus+each-1)/each, 1)
	c.placed.CPUs = times(c.placed.Nodes, each)
	return true
}

// cost is in thousandths, rounded up.
func cost(price float64, cpus int64, d time.Duration) int64 {
	if price <= 0 || cpus <= 0 || d <= 0 {
		return 0
	}
	x := math.Ceil(price*1000*float64(cpus)*d.Hours() - 1e-6)
	return int64(max(1, min(x, maxTotal)))
}

// tell says an amount.
func tell(a calendar.Amount) string {
	s := fmt.Sprintf("%d CPUs", a.CPUs)
	if a.CPUs == 1 {
		s = "1 CPU"
	}
	switch {
	case a.Nodes == 1:
		s += " on 1 whole node"
	case a.Nodes > 1:
		s += fmt.Sprintf(" on %d whole nodes", a.Nodes)
	}
	if a.Slots > 1 {
		s += fmt.Sprintf(" in %d slots", a.Slots)
	}
	return s
}
