package offering

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/internal/xsd"
)

// Limit is what an item of a template may be, in words.
type Limit struct {
	Item  string // its name, or its number from 1 on if it has none
	Words string // "1 to 64", "slurm or shell"; "" is anything
}

// Limits tells the limits of a template's items, their times in a zone.
func Limits(t *agreement.Template, zone *time.Location) []Limit {
	var list []Limit
	for i := range t.Constraints.Items {
		x := &t.Constraints.Items[i]
		l := Limit{Item: x.Name, Words: words(x.Constraint, zone)}
		if l.Item == "" {
			l.Item = strconv.Itoa(i + 1)
		}
		list = append(list, l)
	}
	return list
}

// Conditions tells a template's conditions across its items: the sentences that an
// offer which breaks them is answered with.
func Conditions(t *agreement.Template) []string {
	var list []string
	for _, f := range t.Constraints.Free {
		said := "a condition in a language that is not known here"
		if e := xmldoc.Child(f, agreement.NSPortolan, "Assert"); e != nil {
			if m := xmldoc.Collapse(e.SelectAttrValue("message", "")); m != "" {
				said = m
			}
		}
		list = append(list, said)
	}
	return list
}

// words tells a constraint: a range or a choice as people write it, and anything else
// as refusals do.
func words(c *etree.Element, zone *time.Location) string {
	if c == nil {
		return ""
	}
	var choice []string
	bound := map[string]string{}
	for _, f := range c.ChildElements() {
		value := f.SelectAttrValue("value", "")
		switch name := xmldoc.NameOf(f); {
		case name.Space != xsd.NS:
			return allowed(c)
		case name.Local == "enumeration":
			choice = append(choice, readable(value, zone))
		case slices.Contains([]string{"minInclusive", "maxInclusive", "minExclusive", "maxExclusive"}, name.Local) && bound[name.Local] == "":
			bound[name.Local] = readable(value, zone)
		default:
			return allowed(c)
		}
	}
	if len(choice) > 0 {
		if len(bound) > 0 {
			return allowed(c)
		}
		return either(choice)
	}
	low, high := bound["minInclusive"], bound["maxInclusive"]
	switch {
	case len(bound) == 2 && low != "" && high != "":
		return low + " to " + high
	case len(bound) == 1 && low != "":
		return "at least " + low
	case len(bound) == 1 && high != "":
		return "at most " + high
	}
	return allowed(c)
}

func allowed(c *etree.Element) string {
	t, err := xsd.Compile(c)
	switch {
	case err != nil:
		return "something that can't be checked here: " + fail.Sentence(err)
	case t.Anything():
		return ""
	}
	return t.Allowed()
}

func readable(s string, zone *time.Location) string {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.In(zone).Format("2006-01-02 15:04")
	}
	if s == "" {
		return `""`
	}
	return s
}

// maxNamed is how many of a choice are named.
const maxNamed = 12

func either(list []string) string {
	if more := len(list) - maxNamed; more > 0 {
		list = append(slices.Clone(list[:maxNamed]), fmt.Sprintf("%d others", more))
	}
	if len(list) == 1 {
		return list[0]
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}
