package jsdl

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Placement, our own extension, as tables. placement.xsd says the same to other
// programs; tests hold the two together.

// The bounds of Placement's values. Lengths are in characters.
const (
	maxWord       = 255  // of names: shares, reservations, licences
	maxExpression = 4096 // of expressions and images
	maxGPUType    = 64
	maxGPUs       = 1024    // of one type, per host
	maxLicences   = 1000000 // tokens of one name
	maxPriority   = 1000
	maxReplicas   = 1000
)

var placementType = content[Placement]{
	space: NSPortolan, any: true, anyAttr: true,
	foreign: func(p *Placement) *Foreign { return &p.Foreign },
	after:   checkPlacement,
	parts: []part[Placement]{
		el(NSPortolan, "Share", optional, line(maxWord, func(p *Placement) **string { return &p.Share })),
		el(NSPortolan, "QualityOfService", optional, line(maxWord, func(p *Placement) **string { return &p.QualityOfService })),
		el(NSPortolan, "Reservation", optional, line(maxWord, func(p *Placement) **string { return &p.Reservation })),
		el(NSPortolan, "Deadline", optional, moment(func(p *Placement) **time.Time { return &p.Deadline })),
		el(NSPortolan, "NotBefore", optional, moment(func(p *Placement) **time.Time { return &p.NotBefore })),
		el(NSPortolan, "Priority", optional, within(-maxPriority, maxPriority, func(p *Placement) **int { return &p.Priority })),
		el(NSPortolan, "Rerunnable", optional, boolean(func(p *Placement) **bool { return &p.Rerunnable })),
		el(NSPortolan, "GPU", occurs{0, 16}, children(&gpuType, func(p *Placement) *[]GPU { return &p.GPUs })),
		el(NSPortolan, "Licence", occurs{0, 64}, children(&licenceType, func(p *Placement) *[]Licence { return &p.Licences })),
		el(NSPortolan, "Constraint", optional, func(d *decoder, p *Placement, e *etree.Element) {
			if s, ok := d.leaf(e); ok {
				s = d.expression(e, s)
				p.Constraint = &s
			}
		}),
		el(NSPortolan, "Container", optional, line(maxExpression, func(p *Placement) **string { return &p.Container })),
		el(NSPortolan, "Quorum", optional, within(1, maxReplicas, func(p *Placement) **int { return &p.Quorum })),
		el(NSPortolan, "Replicas", optional, within(1, maxReplicas, func(p *Placement) **int { return &p.Replicas })),
		el(NSPortolan, "Manager", occurs{0, 64}, children(&managerType, func(p *Placement) *[]ManagerAttribute { return &p.Manager })),
		el(NSPortolan, "VO", optional, line(maxWord, func(p *Placement) **string { return &p.VO })),
	},
}

var gpuType = content[GPU]{
	space: NSPortolan,
	attrs: []attribute[GPU]{{"type", false, name("type", gpuTypePattern, maxGPUType,
		"expected letters, digits and . _ + -, with single blanks between", func(g *GPU) *string { return &g.Type }), ""}},
	text: func(d *decoder, g *GPU, e *etree.Element, s string) { g.Count = d.count(e, s, 1, maxGPUs) },
}

var licenceType = content[Licence]{
	space: NSPortolan,
	attrs: []attribute[Licence]{{"name", true, name("name", licencePattern, maxWord,
		"expected letters, digits and . _ + - @ : /", func(l *Licence) *string { return &l.Name }), ""}},
	text: func(d *decoder, l *Licence, e *etree.Element, s string) { l.Count = d.count(e, s, 1, maxLicences) },
}

var managerType = content[ManagerAttribute]{
	space: NSPortolan,
	attrs: []attribute[ManagerAttribute]{{"name", true, name("name", managerPattern, maxWord,
		"expected a letter or _, then letters, digits, _ and .", func(m *ManagerAttribute) *string { return &m.Name }), ""}},
	text: func(d *decoder, m *ManagerAttribute, e *etree.Element, s string) { m.Value = d.expression(e, s) },
}

// These names reach command lines and files of managers, so that little is allowed.
var (
	gpuTypePattern = regexp.MustCompile(`^[A-Za-z0-9._+\-]+( [A-Za-z0-9._+\-]+)*$`)
	licencePattern = regexp.MustCompile(`^[A-Za-z0-9._+\-@:/]+$`)
	managerPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
	momentPattern  = regexp.MustCompile(`^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+\-](0[0-9]|1[0-3]):[0-5][0-9]|[+\-]14:00)$`)
)

// line reads one line of text, whose white space is collapsed.
func line(most int, at func(*Placement) **string) func(*decoder, *Placement, *etree.Element) {
	return func(d *decoder, p *Placement, e *etree.Element) {
		if s, ok := d.leaf(e); ok {
			s = xmldoc.Collapse(s)
			d.checkLine(e, s, most)
			*at(p) = &s
		}
	}
}

// expression reads a text whose inner blanks are the manager's business; the layout
// around it is not.
func (d *decoder) expression(e *etree.Element, s string) string {
	s = normalize(s)
	d.checkLine(e, s, maxExpression)
	return trim(s)
}

// checkLine holds a text to one line of bounded length.
func (d *decoder) checkLine(e *etree.Element, s string, most int) {
	switch {
	case blank(s):
		d.invalid(e, "is empty", "leave the element out, or say what is wanted")
	case utf8.RuneCountInString(s) > most:
		d.invalid(e, "has "+strconv.Itoa(utf8.RuneCountInString(s))+" characters", "expected at most "+strconv.Itoa(most))
	case strings.ContainsFunc(s, breaks):
		d.invalid(e, quote(s)+" has a control character or a line end", "expected one line of text")
	}
}

// breaks reports whether r is a control character or ends a line.
func breaks(r rune) bool {
	return r < 0x20 || r >= 0x7F && r <= 0x9F || r == 0x2028 || r == 0x2029
}

// name reads an attribute that is a word of few characters.
func name[T any](local string, pattern *regexp.Regexp, most int, want string, at func(*T) *string) func(*decoder, *T, *etree.Element, string) {
	return func(d *decoder, t *T, e *etree.Element, v string) {
		v = xmldoc.Collapse(v)
		if len(v) > most || !pattern.MatchString(v) {
			d.invalid(e, "the attribute "+local+" is "+quote(v), want+", at most "+strconv.Itoa(most))
		}
		*at(t) = v
	}
}

// count reads a whole number between two bounds.
func (d *decoder) count(e *etree.Element, s string, least, most int) int {
	n, ok, _ := parseInteger(s)
	if !ok || !n.IsInt64() || n.Int64() < int64(least) || n.Int64() > int64(most) {
		d.invalid(e, quote(trim(s))+" is not right here", "expected a whole number from "+strconv.Itoa(least)+" to "+strconv.Itoa(most))
		return least
	}
	return int(n.Int64())
}

// within reads a whole number between two bounds.
func within(least, most int, at func(*Placement) **int) func(*decoder, *Placement, *etree.Element) {
	return func(d *decoder, p *Placement, e *etree.Element) {
		if s, ok := d.leaf(e); ok {
			n := d.count(e, s, least, most)
			*at(p) = &n
		}
	}
}

// moment reads an xsd:dateTime with its time zone: without one it would be another
// moment at each site.
func moment(at func(*Placement) **time.Time) func(*decoder, *Placement, *etree.Element) {
	return func(d *decoder, p *Placement, e *etree.Element) {
		s, ok := d.leaf(e)
		if !ok {
			return
		}
		s = trim(s)
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || !momentPattern.MatchString(s) {
			d.invalid(e, quote(s)+" is not a time with its time zone", "expected one such as 2026-01-31T18:00:00Z or 2026-01-31T18:00:00+01:00")
			return
		}
		// Parse gives the machine's own zone where that fits; the document knows none.
		if _, offset := t.Zone(); offset == 0 {
			t = t.UTC()
		} else {
			t = t.In(time.FixedZone("", offset))
		}
		*at(p) = &t
	}
}

// claimOurs reads our extensions. A second one of each stays foreign and is refused.
func claimOurs(d *decoder, r *Resources, e *etree.Element, n xmldoc.Name) bool {
	switch {
	case n == xmldoc.Name{Space: NSPortolan, Local: "Placement"} && r.Placement == nil:
		r.Placement = new(Placement)
		read(d, e, r.Placement, &placementType)
	case n == nameCriteria && r.Criteria == nil:
		r.Criteria = new(Criteria)
		read(d, e, r.Criteria, &criteriaType)
	default:
		return false
	}
	return true
}

// checkPlacement finds what contradicts itself.
func checkPlacement(d *decoder, p *Placement, e *etree.Element) {
	if d.lax > 0 {
		return
	}
	at := func(local string, i int) *etree.Element {
		for _, c := range e.ChildElements() {
			if d.name(c) != (xmldoc.Name{Space: NSPortolan, Local: local}) {
				continue
			}
			if i == 0 {
				return c
			}
			i--
		}
		return e
	}
	if p.NotBefore != nil && p.Deadline != nil && !p.NotBefore.Before(*p.Deadline) {
		d.rule(at("NotBefore", 0), Invalid, "the job must not start before it must have ended", "expected a time before Deadline")
	}
	if p.Quorum != nil && p.Replicas != nil && *p.Replicas < *p.Quorum {
		d.rule(at("Replicas", 0), Invalid, strconv.Itoa(*p.Replicas)+" results can't reach a quorum of "+strconv.Itoa(*p.Quorum),
			"expected at least "+strconv.Itoa(*p.Quorum))
	}
	seen := map[string]bool{}
	once := func(local string, i int, key, what, want string) {
		if key = local + " " + key; seen[key] {
			d.rule(at(local, i), Invalid, what, want)
		}
		seen[key] = true
	}
	for i, g := range p.GPUs {
		what := "any GPU"
		if g.Type != "" {
			what = "the GPU " + quote(g.Type)
		}
		once("GPU", i, g.Type, what+" is asked for twice", "ask once, with the whole number")
	}
	for i, l := range p.Licences {
		once("Licence", i, l.Name, "the licence "+quote(l.Name)+" is asked for twice", "ask once, with the whole number")
	}
	for i, m := range p.Manager { // the names of ClassAd attributes have no case
		once("Manager", i, strings.ToLower(m.Name), "the attribute "+quote(m.Name)+" is given twice", "give it once; its case makes no difference")
	}
}

func (p *Placement) write(e *etree.Element) {
	optionalText(e, "portolan:Share", p.Share)
	optionalText(e, "portolan:QualityOfService", p.QualityOfService)
	optionalText(e, "portolan:Reservation", p.Reservation)
	optionalTime(e, "portolan:Deadline", p.Deadline)
	optionalTime(e, "portolan:NotBefore", p.NotBefore)
	optionalInt(e, "portolan:Priority", p.Priority)
	optionalBool(e, "portolan:Rerunnable", p.Rerunnable)
	for _, g := range p.GPUs {
		attr(textElement(e, "portolan:GPU", strconv.Itoa(g.Count)), "type", g.Type)
	}
	for _, l := range p.Licences {
		textElement(e, "portolan:Licence", strconv.Itoa(l.Count)).CreateAttr("name", l.Name)
	}
	optionalText(e, "portolan:Constraint", p.Constraint)
	optionalText(e, "portolan:Container", p.Container)
	optionalInt(e, "portolan:Quorum", p.Quorum)
	optionalInt(e, "portolan:Replicas", p.Replicas)
	for _, m := range p.Manager {
		textElement(e, "portolan:Manager", m.Value).CreateAttr("name", m.Name)
	}
	optionalText(e, "portolan:VO", p.VO)
	p.Foreign.write(e)
}

func optionalTime(parent *etree.Element, tag string, t *time.Time) {
	if t != nil {
		textElement(parent, tag, t.Format(time.RFC3339Nano))
	}
}

func optionalInt(parent *etree.Element, tag string, n *int) {
	if n != nil {
		textElement(parent, tag, strconv.Itoa(*n))
	}
}
