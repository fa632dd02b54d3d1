package jsdl

import (
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Criteria is our own extension, an element of jsdl:Resources: what the user demands
// (HARD) and would like (SOFT) of the place, over the attributes of the gateway's
// resource model. The same element stands alone in a file (ParseCriteria). placement.xsd
// says the same to other programs.
type Criteria struct {
	List    []Criterion // at least one
	Foreign Foreign
}

// Criterion is one wish.
type Criterion struct {
	Name     string // of an attribute: docs/criteria.md
	Type     string // integer, decimal, string, boolean, duration
	Operator string // eq ne lt le gt ge in contains matches; min and max (SOFT only: the less or the more the better)
	Value    string // right for Type, white space collapsed; a list separated by blanks for in; "" for min and max
	Hard     bool
	Priority int // weight of a soft one among the others, 1 to 1000; 100 when it is not given
}

type criterionOperator struct {
	name  string
	types []string
}

// The bounds of Criteria.
const (
	maxCriteria     = 64
	maxCriterion    = 1024 // characters of a value
	maxWeight       = 1000
	defaultPriority = 100
)

var (
	nameCriteria     = xmldoc.Name{Space: NSPortolan, Local: "Criteria"}
	attributePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(:[A-Za-z0-9._+\-@:/]+( [A-Za-z0-9._+\-@:/]+)*)?$`)
	criterionTypes   = []string{"integer", "decimal", "string", "boolean", "duration"}
	// criterionOperators has the operators with the types that each is for.
	criterionOperators = []criterionOperator{
		{"eq", criterionTypes},
		{"ne", criterionTypes},
		{"lt", []string{"integer", "decimal", "duration"}},
		{"le", []string{"integer", "decimal", "duration"}},
		{"gt", []string{"integer", "decimal", "duration"}},
		{"ge", []string{"integer", "decimal", "duration"}},
		{"in", []string{"integer", "decimal", "string", "duration"}},
		{"contains", []string{"string"}},
		{"matches", []string{"string"}},
		{"min", []string{"integer", "decimal", "duration"}},
		{"max", []string{"integer", "decimal", "duration"}},
	}
)

var criteriaType = content[Criteria]{
	space: NSPortolan, any: true, anyAttr: true,
	foreign: func(c *Criteria) *Foreign { return &c.Foreign },
	parts: []part[Criteria]{
		el(NSPortolan, "Criterion", occurs{1, maxCriteria}, func(d *decoder, c *Criteria, e *etree.Element) {
			c.List = append(c.List, Criterion{Hard: true, Priority: defaultPriority})
			read(d, e, &c.List[len(c.List)-1], &criterionType)
		}),
	},
}

var criterionType = content[Criterion]{
	space: NSPortolan,
	attrs: []attribute[Criterion]{
		{"name", true, name("name", attributePattern, maxWord, "expected the name of an attribute such as FreeCPUs or Benchmark:specint", func(c *Criterion) *string { return &c.Name }), ""},
		{"type", true, word("type", criterionTypes, func(c *Criterion, s string) { c.Type = s }), ""},
		{"operator", true, word("operator", operatorNames(), func(c *Criterion, s string) { c.Operator = s }), ""},
		{"kind", false, word("kind", []string{"HARD", "SOFT"}, func(c *Criterion, s string) { c.Hard = s == "HARD" }), ""},
		{"priority", false, func(d *decoder, c *Criterion, e *etree.Element, v string) { c.Priority = d.count(e, v, 1, maxWeight) }, ""},
	},
	text: func(d *decoder, c *Criterion, e *etree.Element, s string) {
		if c.Value = xmldoc.Collapse(s); c.Value != "" {
			d.checkLine(e, c.Value, maxCriterion)
		}
	},
	after: checkCriterion,
}

func operatorNames() []string {
	var out []string
	for _, o := range criterionOperators {
		out = append(out, o.name)
	}
	return out
}

// word reads an attribute that is one of a list.
func word[T any](local string, words []string, set func(*T, string)) func(*decoder, *T, *etree.Element, string) {
	return func(d *decoder, t *T, e *etree.Element, v string) {
		v = xmldoc.Collapse(v)
		if !slices.Contains(words, v) {
			d.invalid(e, "the attribute "+local+" is "+quote(v), wantWord(words, v))
			return
		}
		set(t, v)
	}
}

// checkCriterion finds what contradicts itself, which the schema can't say.
func checkCriterion(d *decoder, c *Criterion, e *etree.Element) {
	if c.Type == "" || c.Operator == "" {
		return // told already
	}
	if what, want := c.check(); what != "" {
		d.rule(e, Invalid, what, want)
	}
}

// check says what is wrong with a criterion whose type and operator are words of the schema.
func (c *Criterion) check() (what, want string) {
	i := slices.IndexFunc(criterionOperators, func(o criterionOperator) bool { return o.name == c.Operator })
	if i < 0 || !slices.Contains(criterionTypes, c.Type) {
		return "has the operator " + quote(c.Operator) + " on the type " + quote(c.Type), "expected one of those of the schema"
	}
	if o := criterionOperators[i]; !slices.Contains(o.types, c.Type) {
		return "the operator " + c.Operator + " is not for the type " + c.Type, "expected the type " + strings.Join(o.types, ", ") + ", or another operator"
	}
	values := []string{c.Value}
	switch c.Operator {
	case "min", "max":
		if c.Hard {
			return "the operator " + c.Operator + " orders places and rules none out", `write kind="SOFT"`
		}
		if c.Value != "" {
			return "has the value " + quote(c.Value) + ", and " + c.Operator + " has none", "leave it empty"
		}
		return "", ""
	case "in":
		if values = strings.Fields(c.Value); len(values) == 0 {
			return "is empty", "expected a list of values with blanks between"
		}
	case "contains", "matches":
		if c.Value == "" {
			return "is empty", "say what is wanted"
		}
	}
	if c.Operator == "matches" {
		if _, err := regexp.Compile("^(?:" + c.Value + ")$"); err != nil {
			return quote(c.Value) + " is no regular expression", "expected one of RE2, such as node[0-9]+"
		}
		return "", ""
	}
	for _, v := range values {
		if want := lexical(c.Type, v); want != "" {
			return quote(v) + " is not of the type " + c.Type, want
		}
	}
	return "", ""
}

// durationForm is an xsd:duration without years and months, which have no fixed length.
// Its numbers are bounded so that any of them has so many seconds that an int64 has them.
var durationForm = regexp.MustCompile(`^-?P([0-9]{1,9}D)?(T([0-9]{1,9}H)?([0-9]{1,9}M)?([0-9]{1,12}(\.[0-9]{1,9})?S)?)?$`)

// lexical says what would be right where v is not of the type. Numbers have no units:
// the attribute says in what it counts.
func lexical(kind, v string) (want string) {
	switch kind {
	case "integer":
		if n, ok, cut := parseInteger(v); !ok || cut || !finite(new(big.Float).SetInt(n)) {
			return "expected a whole number without unit, such as 16"
		}
	case "decimal":
		if strings.ContainsAny(v, "eE") || !decimalForm(v) {
			return "expected a number without unit, such as 2.5"
		}
		if f, err := strconv.ParseFloat(v, 64); err != nil || math.IsInf(f, 0) {
			return "expected a smaller number"
		}
	case "boolean":
		if _, ok := parseBoolean(v); !ok {
			return "expected true, false, 1 or 0"
		}
	case "duration":
		if !durationForm.MatchString(v) || strings.HasSuffix(v, "P") || strings.HasSuffix(v, "T") {
			return "expected one in days, hours, minutes and seconds, such as PT1H30M or P2D"
		}
	}
	return ""
}

func finite(f *big.Float) bool {
	x, _ := f.Float64()
	return !math.IsInf(x, 0)
}

// ParseCriteria reads criteria that stand alone in a file. They are nil when the file
// can't be read at all; with problems that Err tells they must not be used.
func ParseCriteria(b []byte, o Options) (*Criteria, Problems) {
	doc, ps := open(b, o)
	if doc == nil {
		return nil, ps
	}
	d := decoder{doc: doc, root: doc.Root(), opts: o}
	if n := d.name(doc.Root()); n != nameCriteria {
		d.invalid(doc.Root(), "the document is a "+n.String()+", not criteria", "expected the root Criteria in the namespace "+NSPortolan)
		return nil, d.problems
	}
	c := new(Criteria)
	read(&d, doc.Root(), c, &criteriaType)
	d.sort()
	return c, d.problems
}

// Marshal writes the criteria as a document of their own. It is valid by the schema when the
// values are.
func (c *Criteria) Marshal() []byte { return xmldoc.Marshal(c.Element()) }

// Element is the root of Marshal.
func (c *Criteria) Element() *etree.Element {
	e := etree.NewElement("portolan:Criteria")
	e.CreateAttr("xmlns:portolan", NSPortolan)
	c.write(e)
	return e
}

func (c *Criteria) write(e *etree.Element) {
	for i := range c.List {
		c.List[i].write(e.CreateElement("portolan:Criterion"))
	}
	c.Foreign.write(e)
}

func (c *Criterion) write(e *etree.Element) {
	e.CreateAttr("name", c.Name)
	e.CreateAttr("type", c.Type)
	e.CreateAttr("operator", c.Operator)
	if !c.Hard {
		e.CreateAttr("kind", "SOFT")
	}
	if c.Priority > 0 && c.Priority != defaultPriority {
		e.CreateAttr("priority", strconv.Itoa(c.Priority))
	}
	setContent(e, c.Value)
}
