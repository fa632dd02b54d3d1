package resourcemodel

import (
	"math"
	"slices"

	"github.com/portolan-project/portolan/jsdl"
)

// asked is what the Index knows of a class of requests: by what it passes rows over, and
// which classes of places fit.
type asked struct {
	request *Request // one of them
	plan    plan
	planned uint64 // the grid's round
	classed uint64 // that of the classes

	once  []clause // static clauses about the moment alone
	class []clause // those that a class of places answers alike
	row   []clause // those that every place answers for itself

	// Two bits for each class of places, an answer. 32 classes that are neighbours are
	// together.
	fits map[uint32]uint64
	// simple is that a place may fit simply.
	simple bool
}

// The answers of a class of places.
const (
	fitsUnasked = iota
	fitsNever
	fitsSimply // one host serves a job, and only its CPUs, slots and memory count
	fitsSomehow
)

// maxAsked bounds the classes of requests that are remembered.
const maxAsked = 2048

// askedTable finds them.
type askedTable struct {
	all map[Class]*asked
	// The request that was asked last, and what is known of it.
	request *Request
	last    *asked
}

func (t *askedTable) init() { *t = askedTable{all: map[Class]*asked{}} }

// forgetUsers forgets everything if classes of requests are not what they were.
func (t *askedTable) forgetUsers(changed bool) {
	if changed {
		t.init()
	}
}

// of gives what is known of the request's class.
func (x *Index) of(r *Request) *asked {
	if x.asked.request == r {
		return x.asked.last
	}
	k := x.Class(r)
	a := x.asked.all[k]
	if a == nil {
		if len(x.asked.all) >= maxAsked {
			clear(x.asked.all)
		}
		a = newAsked(r)
		x.asked.all[k] = a
	}
	x.asked.request, x.asked.last = r, a
	return a
}

// Class gives what the request has in common with those that every place answers alike.
func (x *Index) Class(r *Request) Class {
	if x.users > 0 {
		return r.UserClass()
	}
	return r.Class()
}

// NamesUsers reports whether classes depend on who the users are. When that changes, all
// classes do.
func (x *Index) NamesUsers() bool { return x.users > 0 }

func newAsked(r *Request) *asked {
	a := &asked{request: r}
	for _, c := range r.clauses[:r.static] {
		switch c.element {
		case "Deadline":
			a.once = append(a.once, c)
		case "CandidateHosts", "Share", "Criterion Domain", "Criterion Site", "Criterion Share", "Criterion Environment", "Criterion HostName", "Criterion DataDistance":
			a.row = append(a.row, c) // about names, or what else is known of the place
		default:
			if c.element == elementAllocation && len(r.hosts) > 0 {
				a.row = append(a.row, c)
			} else {
				a.class = append(a.class, c)
			}
		}
	}
	n := &r.Need
	a.simple = len(a.once)+len(a.row)+len(r.hard) == 0 && r.NotBefore.IsZero() && r.Deadline.IsZero() &&
		n.CPUs >= 1 && !n.Exclusive && n.GPUs == 0 && len(n.Consumables) == 0
	return a
}

// ready brings the plan up to date, and what is remembered of classes of places.
func (a *asked) ready(x *Index) {
	if a.planned != x.grid.round {
		a.plan = x.plan(a.request)
		a.planned = x.grid.round
	}
	if a.fits == nil || a.classed != x.classes.round {
		a.fits, a.classed = map[uint32]uint64{}, x.classes.round
	}
}

// fit reports whether a place fits, but for the clauses about the moment.
func (a *asked) fit(p *at, class uint32) bool {
	answer := a.answer(class)
	if answer == fitsUnasked {
		switch {
		case !met(a.class, p):
			answer = fitsNever
		case a.simple && a.fitsSimply(p):
			answer = fitsSimply
		default:
			answer = fitsSomehow
		}
		a.fits[class/32] |= answer << (class % 32 * 2)
	}
	return answer != fitsNever && met(a.row, p)
}

// answer gives what is known of a class of places.
func (a *asked) answer(class uint32) uint64 { return a.fits[class/32] >> (class % 32 * 2) & 3 }

// fitsSimply looks whether one host of a place that fits is what the need says.
func (a *asked) fitsSimply(p *at) bool {
	space, n := p.room(), &a.request.Need
	one, ok := a.request.ask.solve(&space)
	return ok && one.Hosts == 1 && one.CPUs == n.CPUs && one.Memory == n.Memory
}

// A plan has what must be so of a row for a request to fit there, as far as columns tell:
// rows that are otherwise are passed over, the others are looked at.
type plan struct {
	conds []cond
	words []wordCond
	// How many of them are of what a place is; the others of how it stands.
	static int
	cpus   int64 // that the job takes at least
}

// cond wants a number from least to most.
type cond struct {
	column      *column
	least, most float64
	unknown     bool // what is not known may be so
	except      except
	from, to    uint64 // lanes of the codes of least and most
}

// maxConds and maxWords bound the conditions that rows are passed over for; the rest is
// left to the clauses.
const (
	maxConds = 44
	maxWords = 20
)

// wordCond wants one of some words.
type wordCond struct {
	column  *wordColumn
	numbers []uint16
	bits    uint64
}

// planner makes a plan.
type planner struct {
	index *Index
	plan  plan
}

func (x *Index) plan(r *Request) plan {
	p := planner{index: x}
	p.plan.conds = make([]cond, 0, 12+len(r.hard))
	p.static(r)
	for i := range r.hard {
		if !r.hard[i].dynamic() {
			p.criterion(&r.hard[i])
		}
	}
	p.plan.static = len(p.plan.conds)
	p.dynamic(r)
	for i := range r.hard {
		if r.hard[i].dynamic() {
			p.criterion(&r.hard[i])
		}
	}
	return p.plan
}

// number wants a number of an attribute of the table.
func (p *planner) number(name string, least, most float64, unknown bool, except except) {
	p.add(p.index.grid.named[name], least, most, unknown, except)
}

func (p *planner) add(c *column, least, most float64, unknown bool, except except) {
	one := cond{column: c, least: least, most: most, unknown: unknown, except: except, from: spread(codeNothing), to: spread(codeMost)}
	if !math.IsInf(least, -1) {
		one.from = spread(codeOf(least))
	}
	if !math.IsInf(most, 1) {
		one.to = spread(codeOf(most))
	}
	if len(p.plan.conds) < maxConds {
		p.plan.conds = append(p.plan.conds, one)
	}
}

// atLeast wants as much of what rules a place out only where it is known.
func (p *planner) atLeast(name string, n int64, except except) {
	if n > 0 {
		p.number(name, float64(n), math.Inf(1), true, except)
	}
}

// word wants one of some words, where one is known.
func (p *planner) word(attribute string, unknown bool, words ...string) {
	c := p.index.grid.word(attribute)
	if c == nil {
		return
	}
	one := wordCond{column: c, bits: wordBit(wordAny), numbers: []uint16{wordAny}}
	if unknown {
		one.bits |= wordBit(wordNone)
		one.numbers = append(one.numbers, wordNone)
	}
	for _, w := range words {
		if n, ok := c.numbers[w]; ok {
			one.bits |= wordBit(n)
			one.numbers = append(one.numbers, n)
		}
	}
	if len(p.plan.words) < maxWords {
		p.plan.words = append(p.plan.words, one)
	}
}

// least gives the least number that a part of the request allows.
func (a *ask) least(q part, from int64) int64 {
	if !a.given.has(q) {
		return from
	}
	n, _ := a.want[q].from(from)
	return n
}

// shape gives how many CPUs and hosts every allocation has at least.
func (a *ask) shape() (cpus, hosts int64) {
	hosts = a.least(partHosts, max(1, a.leastHosts))
	each := a.least(partEach, 1)
	cpus = max(a.least(partTotal, max(1, a.leastCPUs)), hosts*min(each, maxCount))
	return cpus, hosts
}

// static has the document's wishes about what a place is.
func (p *planner) static(r *Request) {
	a := &r.ask
	cpus, hosts := a.shape()
	p.plan.cpus = cpus
	p.atLeast("CPUs", a.least(partEach, 0), never)
	p.atLeast("MaxCPUs", cpus, never)
	p.atLeast("MaxNodes", hosts, never)
	if a.given.has(partMemoryEach) {
		m := a.least(partMemoryEach, 0)
		p.atLeast("Memory", m, never)
		p.atLeast("MaxMemory", m, never)
	}
	p.atLeast("VirtualMemory", a.least(partVirtualEach, 0), never)
	p.atLeast("Disk", a.least(partDiskEach, 0), never)
	p.atLeast("MaxWallTime", max(r.wallLimit, a.least(partTimeEach, 0)), momentary)
	p.atLeast("GPUs", a.gpus, never)
	res := r.definition.Description.Resources
	if res == nil {
		return
	}
	p.hull("CPUSpeed", res.IndividualCPUSpeed)
	p.hull("Bandwidth", res.IndividualNetworkBandwidth)
	if o := res.OperatingSystem; o != nil {
		if o.HasType && o.Name != "Unknown" && o.Name != "Not_Applicable" {
			p.word("OperatingSystem", true, o.Name)
		}
		if o.Version != nil {
			p.word("OperatingSystemVersion", true, *o.Version)
		}
	}
	if c := res.CPUArchitecture; c != nil {
		names := []string{c.Name}
		if c.Name == "x86" {
			names = append(names, "x86_64", "x86_32")
		}
		p.word("CPUArchitecture", true, names...)
	}
	if q := res.Placement; q != nil && q.Share != nil {
		p.word("Share", false, *q.Share)
	}
}

// hull wants what lies between the outermost numbers of a range.
func (p *planner) hull(name string, r *jsdl.RangeValue) {
	if r == nil {
		return
	}
	least, most := math.Inf(1), math.Inf(-1)
	join := func(lo, hi float64) { least, most = min(least, lo), max(most, hi) }
	if r.Lower != nil || r.Upper != nil {
		lo, hi := math.Inf(-1), math.Inf(1)
		if r.Lower != nil {
			lo = r.Lower.Value
		}
		if r.Upper != nil {
			hi = r.Upper.Value
		}
		join(lo, hi)
	}
	for _, e := range r.Exact {
		width := math.Abs(e.Epsilon)
		width += 1e-9 * (math.Abs(e.Value) + width) // for the rounding of Contains
		join(e.Value-width, e.Value+width)
	}
	for i := range r.Ranges {
		join(r.Ranges[i].Lower.Value, r.Ranges[i].Upper.Value)
	}
	if len(r.Exact)+len(r.Ranges) == 0 && r.Lower == nil && r.Upper == nil {
		return
	}
	p.number(name, least, most, true, never)
}

// dynamic has the wishes about how a place stands.
func (p *planner) dynamic(r *Request) {
	a := &r.ask
	cpus, hosts := a.shape()
	p.atLeast("FreeCPUs", cpus, never)
	p.atLeast("AvailableNodes", hosts, never)
	p.atLeast("FreeSlots", int64(r.Need.Slots), unslotted)
	memory := a.least(partMemoryTotal, 0)
	if a.given.has(partMemoryEach) {
		memory = max(memory, times(a.least(partMemoryEach, 0), hosts))
	}
	p.atLeast("FreeMemory", memory, merged)
	p.atLeast("FreeGPUs", times(a.gpus, hosts), merged)
	if a.given.has(partExclusive) {
		p.atLeast("FreeNodes", hosts, merged)
	}
}

// criterion wants what a HARD criterion wants: what is not known does not meet it.
func (p *planner) criterion(c *criterion) {
	if c.attribute.number == nil {
		if (c.Operator == "eq" || c.Operator == "in") && !c.attribute.List && !slices.Contains(c.words, "") {
			p.word(c.attribute.Name, false, c.words...)
		}
		return
	}
	column := p.index.grid.column(c.attribute, c.argument)
	if column == nil {
		return
	}
	least, most := math.Inf(-1), math.Inf(1)
	switch c.Operator {
	case "eq", "in":
		least, most = slices.Min(c.numbers), slices.Max(c.numbers)
	case "lt", "le":
		most = c.numbers[0]
	case "gt", "ge":
		least = c.numbers[0]
	}
	p.add(column, least, most, false, never)
}
