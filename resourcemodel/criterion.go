package resourcemodel

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// criterion is one in compiled form.
type criterion struct {
	jsdl.Criterion
	attribute *Attribute
	argument  string
	numbers   []float64 // of Value; one, or those of "in"
	words     []string
	truth     bool
	pattern   *regexp.Regexp
}

// compileCriterion checks a criterion against the table of attributes.
func compileCriterion(c jsdl.Criterion) (criterion, error) {
	wrong := func(format string, args ...any) (criterion, error) {
		return criterion{}, fail.Errorf("resourcemodel.Compile", fail.Invalid, "Criterion "+c.Name, "Criterion "+clipped(c.Name)+": "+format, args...)
	}
	out := criterion{Criterion: c}
	if out.attribute, out.argument = attributeOf(c.Name); out.attribute == nil {
		if near := likely(c.Name); near != "" {
			return wrong("there is no such attribute; did you mean %s?", near)
		}
		return wrong("there is no such attribute; docs/criteria.md lists them")
	}
	have, want := out.attribute.Type, Type(c.Type)
	if have != want && !(have.number() && want.number()) {
		return wrong("the attribute is of the type %s, and can't be compared with a %s", have, quoted(c.Type))
	}
	switch c.Operator {
	case "min", "max":
		if c.Hard {
			return wrong("%s orders places and rules none out; make it SOFT", c.Operator)
		}
		if !have.number() {
			return wrong("%s needs an attribute that is a number", c.Operator)
		}
		return out, nil
	case "lt", "le", "gt", "ge":
		if !have.number() {
			return wrong("%s needs an attribute that is a number", c.Operator)
		}
	case "contains", "matches":
		if have != String {
			return wrong("%s needs an attribute that is a string", c.Operator)
		}
	case "eq", "ne":
	case "in":
		if have == Boolean {
			return wrong("a boolean is compared by eq or ne")
		}
	default:
		return wrong("there is no operator %s; expected eq, ne, lt, le, gt, ge, in, contains, matches, min or max", quoted(c.Operator))
	}
	values := []string{strings.TrimSpace(c.Value)}
	if c.Operator == "in" {
		if values = strings.Fields(c.Value); len(values) == 0 {
			return wrong("in needs a list of values, with blanks between")
		}
	}
	for _, v := range values {
		switch {
		case have == Boolean:
			b, err := strconv.ParseBool(v)
			if err != nil {
				return wrong("%s is not a boolean", quoted(v))
			}
			out.truth = b
		case have.number():
			x, ok := parseNumber(want, v)
			if !ok {
				return wrong("%s does not read as the type %s", quoted(v), want)
			}
			out.numbers = append(out.numbers, x)
		case c.Operator == "matches":
			p, err := regexp.Compile(`^(?:` + v + `)$`)
			if err != nil {
				return wrong("%s is no regular expression", quoted(v))
			}
			out.pattern = p
		default:
			out.words = append(out.words, v)
		}
	}
	return out, nil
}

func parseNumber(t Type, s string) (float64, bool) {
	if t == Duration {
		return parseDuration(s)
	}
	x, err := strconv.ParseFloat(s, 64)
	return x, err == nil && !math.IsNaN(x) && !math.IsInf(x, 0)
}

var durationPattern = regexp.MustCompile(`^(-?)P(?:(\d{1,9})D)?(T?)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,12}(?:\.\d{1,9})?)S)?$`)

// parseDuration reads an xsd:duration into seconds. Years and months have no fixed
// length and are not taken.
func parseDuration(s string) (float64, bool) {
	m := durationPattern.FindStringSubmatch(s)
	if m == nil || (m[3] == "") != (m[4]+m[5]+m[6] == "") || m[2]+m[3] == "" {
		return 0, false
	}
	sum := 0.0
	for i, unit := range map[int]float64{2: 86400, 4: 3600, 5: 60, 6: 1} {
		if m[i] != "" {
			x, err := strconv.ParseFloat(m[i], 64)
			if err != nil {
				return 0, false
			}
			sum += x * unit
		}
	}
	if m[1] != "" {
		sum = -sum
	}
	return sum, true
}

// likely gives the attribute that was probably meant.
func likely(name string) string {
	for i := range attributes {
		if strings.EqualFold(strings.TrimSuffix(attributes[i].Name, ":"), strings.TrimSuffix(name, ":")) {
			return attributes[i].Name
		}
	}
	return ""
}

// element names the criterion in a clause.
func (c *criterion) element() string { return "Criterion " + c.Name }

func (c *criterion) dynamic() bool {
	return c.attribute.Kind == DynamicAttribute || c.attribute.Kind == DerivedAttribute && c.Name != "JobPrice" && c.Name != "DataDistance"
}

// met reports whether the place meets it. What is not known is not met.
func (c *criterion) met(p *at) bool {
	a := c.attribute
	switch {
	case a.number != nil:
		x, ok := a.number(p, c.argument)
		return ok && !math.IsNaN(x) && c.holds(x)
	case a.truth != nil:
		b, ok := a.truth(p)
		return ok && (b == c.truth) == (c.Operator == "eq")
	}
	list, ok := a.text(p, c.argument)
	if !ok {
		return false
	}
	if c.Operator == "ne" {
		return !slices.Contains(list, c.words[0])
	}
	return slices.ContainsFunc(list, c.like)
}

func (c *criterion) like(s string) bool {
	switch c.Operator {
	case "eq", "in":
		return slices.Contains(c.words, s)
	case "contains":
		// A list contains what is one of its values; a text, a part of it.
		return s == c.words[0] || !c.attribute.List && strings.Contains(s, c.words[0])
	case "matches":
		return c.pattern.MatchString(s)
	}
	return false
}

func (c *criterion) holds(x float64) bool {
	switch c.Operator {
	case "eq", "in":
		return slices.Contains(c.numbers, x)
	case "ne":
		return x != c.numbers[0]
	case "lt":
		return x < c.numbers[0]
	case "le":
		return x <= c.numbers[0]
	case "gt":
		return x > c.numbers[0]
	case "ge":
		return x >= c.numbers[0]
	}
	return true // min and max rule nothing out
}

// nearMiss is the most that an unmet criterion can count.
const nearMiss = 0.99

// satisfied grades the place from 0 to 1, for operators but min and max: 1 where the
// criterion is met, less the farther a number is from what was asked, relative to the
// larger of the two.
func (c *criterion) satisfied(p *at) float64 {
	if c.met(p) {
		return 1
	}
	if c.attribute.number == nil || c.Operator == "ne" {
		return 0
	}
	x, ok := c.attribute.number(p, c.argument)
	if !ok || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	best := 0.0
	for _, v := range c.numbers {
		d := 0.0
		if x != v {
			d = math.Abs(x-v) / max(math.Abs(x), math.Abs(v))
		}
		best = max(best, 1-d)
	}
	return min(best, nearMiss)
}

// asked puts it into words.
func (c *criterion) asked() string {
	say := func(i int) string {
		if c.attribute.Type.number() {
			return c.attribute.say(c.numbers[i])
		}
		if c.attribute.Type == Boolean {
			return strconv.FormatBool(c.truth)
		}
		return quoted(c.words[i])
	}
	switch c.Operator {
	case "eq":
		return say(0)
	case "ne":
		return "anything but " + say(0)
	case "lt":
		return "less than " + say(0)
	case "le":
		return "at most " + say(0)
	case "gt":
		return "more than " + say(0)
	case "ge":
		return "at least " + say(0)
	case "contains":
		return "one that contains " + say(0)
	case "matches":
		return "one that matches " + quoted(c.Value)
	}
	var list []string
	for i := range max(len(c.numbers), len(c.words)) {
		list = append(list, say(i))
	}
	return listed(list, "or")
}

// say puts a number of the attribute into words.
func (a *Attribute) say(x float64) string {
	u := unitCount
	switch a.Unit {
	case "bytes":
		u = unitBytes
	case "hertz":
		u = unitHertz
	case "bit/s":
		u = unitBits
	}
	if a.Type == Duration {
		u = unitSeconds
	}
	return u.say(x)
}

// has puts what the place has into words; "" is not known.
func (c *criterion) has(p *at) string {
	a := c.attribute
	switch {
	case a.number != nil:
		if x, ok := a.number(p, c.argument); ok && !math.IsNaN(x) {
			return a.say(x)
		}
		return ""
	case a.truth != nil:
		if b, ok := a.truth(p); ok {
			return strconv.FormatBool(b)
		}
		return ""
	}
	list, ok := a.text(p, c.argument)
	switch {
	case !ok:
		return ""
	case len(list) == 0:
		return "none"
	}
	var words []string
	for _, s := range list[:min(len(list), 10)] {
		words = append(words, quoted(s))
	}
	return listed(words, "and")
}

// clause makes it rule places out; it is the nth hard one.
func (c *criterion) clause(n int) clause {
	return clause{element: c.element(), dynamic: c.dynamic(), met: c.met, mend: func(p *at, _ bool) (Edit, bool) { return c.mend(p, n) }, tell: func(p *at) Clause {
		has, asked := c.has(p), c.asked()
		s := c.element() + " asks for " + asked + ", and it is " + has
		if has == "" {
			s = c.element() + " asks for " + asked + ", and what it is here is not known"
		}
		return Clause{Asked: asked, Has: has, Sentence: s}
	}}
}

// durationOf gives seconds as a duration.
func durationOf(s int64) time.Duration {
	if s > int64(math.MaxInt64/time.Second) {
		return math.MaxInt64
	}
	return time.Duration(s) * time.Second
}
