package guarantee

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
)

// The bounds of a guarantee.
const (
	minInterval      = time.Minute
	maxInterval      = 10 * 366 * 24 * time.Hour
	maxCount         = 1_000_000
	maxCompensations = 32
	maxServices      = 1000
	maxUnit          = 64 // characters
)

// Variables are the agreement's own (wsag:Variable), with the values that were found.
type Variables map[string]agreement.Value

// Sort is what a compensation is.
type Sort string

// The sorts: a penalty is due to the other side, a reward from it.
const (
	Penalty Sort = "penalty"
	Reward  Sort = "reward"
)

// Guarantee is a promise that can be watched.
type Guarantee struct {
	Name      string
	Obligated agreement.Obligation // never ""
	Services  []string             // in whose events it takes part; none is in those of all, as one

	condition     *agreement.Expression // nil is always
	objective     *agreement.Expression
	variables     Variables
	compensations []compensation
	momentary     bool // it can be kept again after it was broken
}

type compensation struct {
	sort     Sort
	interval time.Duration // 0 where count is
	count    int64
	unit     string
	amount   *agreement.Expression
}

func refuse(g *agreement.Guarantee, kind fail.Kind, format string, args ...any) error {
	return fail.Errorf("guarantee.Compile", kind, g.Name, "the guarantee "+strconv.Quote(g.Name)+" "+format, args...)
}

// Compile makes a guarantee that can be watched. fail.Unsupported is a KPI or an
// expression language that is not known here; fail.Invalid says what is wrong.
func Compile(g *agreement.Guarantee, vars Variables) (*Guarantee, error) {
	known := KPIs()
	for name, v := range vars {
		if _, taken := kpis[name]; taken {
			return nil, refuse(g, fail.Invalid, "is in an agreement with a variable %s, which is the name of a KPI: give the variable another name", name)
		}
		known[name] = agreement.Declared{Type: v.Type}
	}
	env := agreement.Environment{Variables: known, Target: g.KPIName}
	if _, ok := kpis[g.KPIName]; !ok && g.KPIName != "" {
		return nil, refuse(g, fail.Unsupported, "names the KPI %.100q, which is not watched here; there are %s", g.KPIName, strings.Join(slices.Sorted(maps.Keys(kpis)), ", "))
	}
	if g.Level == nil {
		return nil, refuse(g, fail.Invalid, "has no service level: say what is promised in its CustomServiceLevel")
	}
	out := &Guarantee{Name: g.Name, Obligated: g.Obligated, variables: maps.Clone(vars)}
	switch g.Obligated {
	case "":
		out.Obligated = agreement.ServiceProvider
	case agreement.ServiceProvider, agreement.ServiceConsumer:
	default:
		return nil, refuse(g, fail.Invalid, "obliges %.100q, who is neither ServiceProvider nor ServiceConsumer", string(g.Obligated))
	}
	for _, s := range g.Scopes {
		if s.ServiceName == "" { // all of them, whatever others are named beside it
			out.Services = nil
			break
		}
		if !slices.Contains(out.Services, s.ServiceName) {
			out.Services = append(out.Services, s.ServiceName)
		}
		if len(out.Services) > maxServices {
			return nil, refuse(g, fail.Invalid, "is about more than %d services: split it", maxServices)
		}
	}
	within := func(err error) error {
		return refuse(g, fail.KindOf(err), "can't be watched: %s", fail.Sentence(err))
	}
	var err error
	if out.objective, err = agreement.ParseCondition(g.Level, env); err != nil {
		return nil, within(err)
	}
	if g.QualifyingCondition != nil {
		if out.condition, err = agreement.ParseCondition(g.QualifyingCondition, agreement.Environment{Variables: known}); err != nil {
			return nil, within(err)
		}
		out.momentary = slices.Contains(out.condition.Variables(), SlotsAvailable)
	}
	spoken := out.objective.Variables()
	if !slices.ContainsFunc(spoken, isKPI) {
		return nil, refuse(g, fail.Invalid, "speaks of nothing that is watched; there are %s", strings.Join(slices.Sorted(maps.Keys(kpis)), ", "))
	}
	out.momentary = out.momentary || slices.Contains(spoken, SlotsAvailable)
	for _, list := range []struct {
		sort Sort
		of   []agreement.Compensation
	}{{Penalty, g.Values.Penalties}, {Reward, g.Values.Rewards}} {
		for i := range list.of {
			c, err := out.compile(g, list.sort, &list.of[i], known)
			if err != nil {
				return nil, err
			}
			if out.compensations = append(out.compensations, c); len(out.compensations) > maxCompensations {
				return nil, refuse(g, fail.Invalid, "has more than %d penalties and rewards", maxCompensations)
			}
		}
	}
	return out, nil
}

func isKPI(name string) bool {
	_, ok := kpis[name]
	return ok
}

func (out *Guarantee) compile(g *agreement.Guarantee, sort Sort, c *agreement.Compensation, known map[string]agreement.Declared) (compensation, error) {
	bad := func(format string, args ...any) (compensation, error) {
		return compensation{}, refuse(g, fail.Invalid, "has a "+string(sort)+" that "+format, args...)
	}
	k := compensation{sort: sort, count: c.Count, unit: c.Unit}
	switch {
	case (c.Interval == "") == (c.Count == 0):
		return bad("needs an AssessmentInterval with either a TimeInterval or a Count")
	case c.Count < 0 || c.Count > maxCount:
		return bad("is due for each %d assessments: write a Count from 1 to %d", c.Count, maxCount)
	case utf8.RuneCountInString(c.Unit) > maxUnit:
		return bad("has a ValueUnit of more than %d characters", maxUnit)
	case c.Expression == nil:
		return bad("has no ValueExpression: write how much is due")
	case sort == Reward && c.Count > 0 && out.momentary:
		return bad("is due for each return of the slots, so that losing them would earn it: give it a TimeInterval")
	}
	var err error
	if c.Interval != "" {
		if k.interval, err = agreement.ParseDuration(c.Interval); err != nil {
			return bad("can't be reckoned: %s", fail.Sentence(err))
		}
		if k.interval < minInterval || k.interval > maxInterval {
			return bad("is due each %s: write a TimeInterval from a minute to ten years", agreement.OfDuration(k.interval))
		}
	}
	if k.amount, err = agreement.ParseAmount(c.Expression, agreement.Environment{Variables: known}); err != nil {
		return compensation{}, refuse(g, fail.KindOf(err), "has a %s that can't be reckoned: %s", sort, fail.Sentence(err))
	}
	if k.interval > 0 && slices.ContainsFunc(k.amount.Variables(), isKPI) {
		return bad("is due for each interval and depends on a KPI, which may not be known at its end: give it a Count, or a fixed value")
	}
	return k, nil
}

// String gives the promise in a sentence.
func (g *Guarantee) String() string {
	s := "the provider promises: "
	if g.Obligated == agreement.ServiceConsumer {
		s = "the consumer promises: "
	}
	s += g.objective.String()
	if g.condition != nil {
		s += ", as long as " + g.condition.String()
	}
	for _, c := range g.compensations {
		s += "; " + c.String()
	}
	return s
}

func (c *compensation) String() string {
	s := string(c.sort) + " " + c.amount.String()
	if c.unit != "" {
		s += " " + c.unit
	}
	switch {
	case c.interval > 0:
		return s + " each " + agreement.OfDuration(c.interval).String()
	case c.count == 1:
		return s + " each time"
	}
	return s + " for each " + strconv.FormatInt(c.count, 10) + " times"
}
