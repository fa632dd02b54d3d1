package resourcemodel

import (
	"fmt"
	"iter"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// Edit is a change of one element of a request.
type Edit struct {
	Element string `json:"element"`
	From    string `json:"from"`
	To      string `json:"to"` // "none" where it is left out

	amount float64 // how large it is, relative to what was asked; 1 for words
	nth    int     // of the hard criteria
	apply  func(*draft)
}

// Amendment is a change of a request after which a place takes it.
type Amendment struct {
	Place Place  `json:"place"`
	Now   bool   `json:"now"` // it would start at once; else it would fit some day
	Edits []Edit `json:"edits"`
	// Sentence says it all: "it would start now on long at hpc if TotalCPUCount were 16
	// instead of 64".
	Sentence string `json:"sentence"`
}

func (a *Amendment) amount() float64 {
	sum := 0.0
	for _, e := range a.Edits {
		sum += e.amount
	}
	return sum
}

// draft is a document that is being changed: nothing that others hold is touched.
type draft struct {
	def       jsdl.JobDefinition
	resources jsdl.Resources
	placement jsdl.Placement
	criteria  *jsdl.Criteria
}

func (r *Request) draft() *draft {
	d := &draft{def: *r.definition}
	if res := d.def.Description.Resources; res != nil {
		d.resources = *res
		d.resources.FileSystems = slices.Clone(res.FileSystems)
		if res.Placement != nil {
			d.placement = *res.Placement
			d.placement.GPUs, d.placement.Licences = slices.Clone(d.placement.GPUs), slices.Clone(d.placement.Licences)
		}
	}
	if r.criteria != nil {
		c := *r.criteria
		c.List = slices.Clone(c.List)
		d.criteria = &c
	}
	return d
}

// application clones the application, for a change.
func (d *draft) application() *jsdl.Application {
	a := *d.def.Description.Application
	if a.POSIX != nil {
		p := *a.POSIX
		a.POSIX = &p
	}
	if a.SPMD != nil {
		s := *a.SPMD
		a.SPMD = &s
	}
	d.def.Description.Application = &a
	return &a
}

// Amend gives the request with the edits made; the request itself stays as it is.
func (r *Request) Amend(edits []Edit) (*Request, error) {
	d := r.draft()
	for _, e := range edits {
		e.apply(d)
	}
	if r.definition.Description.Resources != nil {
		if d.resources.Placement != nil {
			d.resources.Placement = &d.placement
		}
		d.def.Description.Resources = &d.resources
	}
	if d.criteria != nil {
		d.criteria.List = slices.DeleteFunc(d.criteria.List, func(c jsdl.Criterion) bool { return c.Operator == dropped })
		if len(d.criteria.List) == 0 {
			d.criteria = nil
		}
	}
	if d.resources.Criteria != nil {
		d.resources.Criteria = d.criteria
	}
	return CompileWith(&d.def, r.Subject, d.criteria)
}

// maxWorkedOut bounds the places for which Nearest works a change out: those that are
// like an earlier one, or farther than the best so far, do not count.
const maxWorkedOut = 1024

// Nearest gives the smallest change of the request that would let one of the places start
// it at once (now), or take it at all: that of the fewest elements, and of those the one
// that changes least, relative to what is asked; of equals that of the first place. It is
// false where a place takes it as it is, and where nothing that the request asks is what
// stands against it: the rights of its VO, a site that is down.
//
// A change of a range keeps its shape where it can: "at least 64" becomes "at least 16".
// Each change was tried: Amend gives a request that the place takes, and that can be
// written as a document.
func Nearest(r *Request, places iter.Seq[Where], d Derived, now bool) (Amendment, bool) {
	type like struct {
		space room
		unmet string
	}
	seen := map[like]bool{}
	var best Amendment
	found, left := false, maxWorkedOut
	for w := range places {
		var p at
		p.set(w, r, &d)
		must, unmet, possible := p.unmet(now)
		switch {
		case !possible || found && must > len(best.Edits):
			continue
		case must == 0:
			return Amendment{}, false
		}
		space := p.room()
		if now {
			space = p.free()
		}
		if unmet == elementAllocation {
			key := like{space, unmet}
			if seen[key] {
				continue
			}
			seen[key] = true
		}
		if left--; left < 0 {
			break
		}
		a, ok := p.amendment(now)
		if ok && (!found || len(a.Edits) < len(best.Edits) || len(a.Edits) == len(best.Edits) && a.amount() < best.amount()) {
			best, found = a, true
		}
	}
	return best, found
}

// unmet counts the wishes that must change at least; false where no change helps.
func (p *at) unmet(now bool) (n int, elements string, possible bool) {
	r := p.request
	var list []string
	for i := range r.clauses {
		c := &r.clauses[i]
		if c.dynamic && !now || c.met(p) {
			continue
		}
		if c.mend == nil && c.element != elementAllocation {
			return 0, "", false
		}
		if !slices.Contains(list, c.element) {
			list = append(list, c.element)
		}
	}
	return len(list), strings.Join(list, ","), true
}

// amendment works the smallest change out for one place.
func (p *at) amendment(now bool) (Amendment, bool) {
	r := p.request
	var edits []Edit
	for i := range r.clauses {
		c := &r.clauses[i]
		if c.mend == nil || c.dynamic && !now || c.met(p) {
			continue
		}
		e, ok := c.mend(p, now)
		if !ok {
			return Amendment{}, false
		}
		if e.Element == "" {
			e.Element = c.element
		}
		if !slices.ContainsFunc(edits, func(have Edit) bool { return have.Element == e.Element && have.nth == e.nth }) {
			edits = append(edits, e)
		}
	}
	best, found := p.allocate(edits, now)
	// Where the named hosts are too few, the whole site may be nearer than other numbers.
	if i := slices.IndexFunc(r.clauses, func(c clause) bool { return c.element == "CandidateHosts" }); i >= 0 && (!found || len(best.Edits) > len(edits)+1) &&
		!slices.ContainsFunc(edits, func(e Edit) bool { return e.Element == "CandidateHosts" }) {
		e, _ := r.clauses[i].mend(p, now)
		e.Element = "CandidateHosts"
		if other, ok := p.allocate(append(slices.Clone(edits), e), now); ok && (!found || len(other.Edits) < len(best.Edits)) {
			best, found = other, true
		}
	}
	return best, found
}

// allocate adds to the edits those of the allocation, if it takes any.
func (p *at) allocate(edits []Edit, now bool) (Amendment, bool) {
	r := p.request
	if len(edits) > 0 {
		next, err := r.Amend(edits)
		if err != nil {
			return Amendment{}, false
		}
		r = next
	}
	if p.takes(r, now) {
		return p.amended(edits, now), len(edits) > 0 && p.request.written(r)
	}
	var q at
	q.set(p.Where, r, p.derived)
	space := q.room()
	if now {
		space = q.free()
	}
	for _, c := range r.ask.nearest(&space, r.spmd) {
		all := slices.Clone(edits)
		for part := range numParts {
			if c.parts.has(part) {
				all = append(all, r.edit(part, &c))
			}
		}
		if next, err := p.request.Amend(all); err == nil && p.takes(next, now) && p.request.written(next) {
			return p.amended(all, now), true
		}
	}
	return Amendment{}, false
}

// written reports whether the changed request can be written as a document that has no
// more faults than the request's own.
func (r *Request) written(changed *Request) bool {
	n := faults(changed.definition)
	return n == 0 || n <= faults(r.definition)
}

func faults(def *jsdl.JobDefinition) int {
	_, problems := jsdl.Parse(def.Marshal(), jsdl.Options{})
	return len(problems) - len(problems.Warnings())
}

func (p *at) takes(r *Request, now bool) bool {
	if now {
		return r.Starts(p.Where, *p.derived)
	}
	return r.Fits(p.Where, *p.derived)
}

func (p *at) amended(edits []Edit, now bool) Amendment {
	a := Amendment{Place: p.Place(), Now: now, Edits: edits}
	verb := "fit on "
	if now {
		verb = "start now on "
	}
	var conditions []string
	for _, e := range edits {
		verb := " were "
		if e.To == none {
			conditions = append(conditions, e.Element+" were left out")
			continue
		}
		conditions = append(conditions, e.Element+verb+e.To+" instead of "+e.From)
	}
	a.Sentence = "it would " + verb + p.Share.ID + " at " + p.Site.String() + " if " + listed(conditions, "and")
	return a
}

// none is what an element becomes that is left out.
const none = "none"

// edit makes the change of a part of the allocation.
func (r *Request) edit(q part, c *change) Edit {
	v := c.value[q]
	e := Edit{Element: q.String(), amount: c.amount / float64(bitsOf(c.parts))}
	switch q {
	case partExclusive:
		e.From, e.To = "true", "false"
		e.apply = func(d *draft) { d.resources.ExclusiveExecution = new(bool) }
	case partGPU:
		gpus := r.definition.Description.Resources.Placement.GPUs
		fewer, left := []jsdl.GPU(nil), int(v)
		for _, g := range gpus {
			if g.Count = min(g.Count, left); g.Count > 0 {
				fewer = append(fewer, g)
			}
			left -= g.Count
		}
		e.From, e.To = describeGPUs(byType(gpus)), describeGPUs(byType(fewer))
		e.apply = func(d *draft) { d.placement.GPUs = fewer }
	case partProcesses:
		n := &jsdl.ProcessCount{Value: big.NewInt(v)}
		if r.spmd.count > 1 {
			e.From, e.To = strconv.FormatInt(r.spmd.count, 10), strconv.FormatInt(v, 10)
			e.apply = func(d *draft) { d.application().SPMD.NumberOfProcesses = n }
			break
		}
		e.Element, e.From, e.To = "ThreadsPerProcess", strconv.FormatInt(r.spmd.threads, 10), strconv.FormatInt(v, 10)
		e.apply = func(d *draft) { d.application().SPMD.ThreadsPerProcess = n }
	case partTotal, partEach, partHosts, partMemoryEach, partMemoryTotal, partVirtualEach, partVirtualTotal, partDiskEach, partDiskTotal, partTimeEach, partTimeTotal, numParts:
		was, u := rangeOf(r.definition.Description.Resources, q), unitOf(q)
		to := reshaped(was, float64(v))
		if q == partTotal && v < times(r.spmd.count, r.spmd.threads) { // or each thread would want a CPU
			to = &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: float64(v)}}}
		}
		e.From, e.To = describe(was, u), describe(to, u)
		e.apply = func(d *draft) { *rangeAt(&d.resources, q) = to }
	}
	return e
}

func bitsOf(s parts) int {
	n := 0
	for q := range numParts {
		if s.has(q) {
			n++
		}
	}
	return n
}

func byType(gpus []jsdl.GPU) map[string]int {
	out := map[string]int{}
	for _, g := range gpus {
		out[g.Type] += g.Count
	}
	return out
}

// reshaped gives a range that has x and is like the one it takes the place of: a bound is
// moved as far as needed, and anything else becomes the number.
func reshaped(r *jsdl.RangeValue, x float64) *jsdl.RangeValue {
	if len(r.Exact) == 0 && len(r.Ranges) == 0 {
		switch {
		case r.Lower != nil && r.Upper == nil && x <= r.Lower.Value:
			return &jsdl.RangeValue{Lower: &jsdl.Bound{Value: x}}
		case r.Upper != nil && r.Lower == nil && x >= r.Upper.Value:
			return &jsdl.RangeValue{Upper: &jsdl.Bound{Value: x}}
		}
	}
	return &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: x}}}
}

// away is how far x is from a range, relative to its nearer end.
func away(r *jsdl.RangeValue, x float64) float64 {
	best := math.Inf(1)
	end := func(v float64) {
		if !math.IsInf(v, 0) {
			best = min(best, math.Abs(x-v)/max(math.Abs(v), 1))
		}
	}
	bounds := func(lower, upper *jsdl.Bound) {
		if lower != nil {
			end(lower.Value)
		}
		if upper != nil {
			end(upper.Value)
		}
	}
	bounds(r.Lower, r.Upper)
	for _, e := range r.Exact {
		end(e.Value - e.Epsilon)
		end(e.Value + e.Epsilon)
	}
	for i := range r.Ranges {
		bounds(&r.Ranges[i].Lower, &r.Ranges[i].Upper)
	}
	if math.IsInf(best, 1) {
		return 1
	}
	return best
}

// mend changes a hard criterion to what the place has.
func (c *criterion) mend(p *at, n int) (Edit, bool) {
	to := c.Criterion
	e := Edit{From: c.asked(), To: none, amount: 1, nth: n}
	keep := false
	e.apply = func(d *draft) {
		i := hardIndex(d.criteria.List, n)
		if !keep {
			d.criteria.List[i].Operator = dropped
			return
		}
		d.criteria.List[i] = to
	}
	a := c.attribute
	switch {
	case a.truth != nil:
		b, ok := a.truth(p)
		if !ok || c.Operator != "eq" {
			return e, true
		}
		to.Value = strconv.FormatBool(b)
	case a.number != nil:
		x, ok := a.number(p, c.argument)
		if !ok || math.IsNaN(x) || math.IsInf(x, 0) || c.Operator == "ne" {
			return e, true
		}
		e.amount = math.Inf(1)
		for _, v := range c.numbers {
			e.amount = min(e.amount, math.Abs(x-v)/max(math.Abs(v), 1))
		}
		switch c.Operator {
		case "lt":
			to.Operator = "le"
		case "gt":
			to.Operator = "ge"
		case "in":
			to.Operator = "eq"
		}
		if to.Type = c.Type; Type(to.Type) == Integer && x != math.Trunc(x) {
			to.Type = string(Decimal)
		}
		if to.Value = plain(x); Type(to.Type) == Duration {
			if to.Value = "PT" + plain(math.Abs(x)) + "S"; x < 0 {
				to.Value = "-" + to.Value
			}
		}
	default:
		list, ok := a.text(p, c.argument)
		if !ok || len(list) == 0 || list[0] == "" || c.Operator == "ne" {
			return e, true
		}
		to.Operator, to.Value = "eq", list[0]
	}
	changed, err := compileCriterion(to)
	if err != nil || !changed.met(p) {
		e.amount = 1
		return e, true
	}
	e.To, keep = changed.asked(), true
	return e, true
}

// dropped marks a criterion that an edit leaves out; no document has it.
const dropped = "(left out)"

// hardIndex gives where the nth hard criterion stands.
func hardIndex(list []jsdl.Criterion, n int) int {
	for i := range list {
		if list[i].Hard {
			if n == 0 {
				return i
			}
			n--
		}
	}
	return -1
}

// WaitsFor says in one sentence what a job waits for, by what the places say to it.
func WaitsFor(r *Request, verdicts []Verdict) string {
	var near *Verdict
	could, early := 0, true
	for i := range verdicts {
		v := &verdicts[i]
		switch {
		case v.Now:
			return "it waits for its turn: " + v.Place.Share + " at " + v.Place.Key.String() + " could start it now"
		case v.Could:
			could++
			early = early && len(v.Clauses) > 0 && v.Clauses[0].Element == "NotBefore"
			if near == nil || !near.Could || len(v.Clauses) < len(near.Clauses) {
				near = v
			}
		case near == nil || !near.Could && len(v.Clauses) < len(near.Clauses):
			near = v
		}
	}
	switch {
	case near == nil:
		return "the gateway knows of no place where jobs run"
	case could == 0:
		return fmt.Sprintf("none of the %s could ever run it as it is; at the nearest, %s at %s, %s", many(int64(len(verdicts)), "place"), near.Place.Share, near.Place.Key, near.sentence())
	case early:
		return "it waits until " + r.NotBefore.UTC().Format(time.RFC3339) + ", before which it must not start"
	case could == 1:
		return fmt.Sprintf("it waits for the one place that could run it, %s at %s: %s", near.Place.Share, near.Place.Key, near.sentence())
	}
	return fmt.Sprintf("it waits for one of %d places that could run it; at the nearest, %s at %s, %s", could, near.Place.Share, near.Place.Key, near.sentence())
}

// sentence joins what stands against the place; two reasons are enough for one sentence.
func (v *Verdict) sentence() string {
	var out []string
	for _, c := range v.Clauses[:min(len(v.Clauses), 2)] {
		out = append(out, c.Sentence)
	}
	s := strings.Join(out, "; and ")
	if n := len(v.Clauses) - 2; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}
