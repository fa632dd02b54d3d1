package agreement

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Bounds on one document, beside those of xmldoc.Limits.
const (
	MaxTerms     = 1000 // terms and compositors
	MaxDepth     = 16   // of compositors in one another
	MaxVariables = 1000 // of all service properties together
	MaxItems     = 500  // of a template's creation constraints; as many free ones
	MaxName      = 1024 // bytes of a name, an id, a metric or a unit
	MaxLocation  = 8192 // bytes of a wsag:Location
	maxList      = 100  // scopes, penalties, rewards, preferences, extensions in one place
	maxInherited = 1 << 20
)

const (
	nsXS  = "http://www.w3.org/2001/XMLSchema"
	nsXSI = "http://www.w3.org/2001/XMLSchema-instance"
)

// older are namespaces of drafts that are still met. They are other languages.
var older = map[string]string{
	"http://www.ggf.org/namespaces/ws-agreement":        "an early draft",
	"http://schemas.ggf.org/graap/2005/09/ws-agreement": "the draft of September 2005",
}

// DecodeOffer reads a wsag:AgreementOffer. What the schema does not let is
// refused with a fail.Invalid that names the element, and so are names of terms
// that repeat and an offer without a service term.
func DecodeOffer(e *etree.Element) (*Offer, error) {
	return newReader(nil).offer(e)
}

// DecodeTemplate reads a wsag:Template; else as DecodeOffer.
func DecodeTemplate(e *etree.Element) (*Template, error) {
	return newReader(nil).template(e)
}

// DecodeProperties reads a wsag:AgreementProperties or a
// wsag:AgreementStateProperties; else as DecodeOffer.
func DecodeProperties(e *etree.Element) (*Properties, error) {
	return newReader(nil).properties(e)
}

// ParseOffer reads a document that is a wsag:AgreementOffer; refusals name the
// line too.
func ParseOffer(b []byte) (*Offer, error) {
	return parse(b, (*reader).offer)
}

// ParseTemplate reads a document that is a wsag:Template; refusals name the line
// too.
func ParseTemplate(b []byte) (*Template, error) {
	return parse(b, (*reader).template)
}

func parse[T any](b []byte, decode func(*reader, *etree.Element) (*T, error)) (*T, error) {
	doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err != nil {
		return nil, fail.Errorf("agreement.Parse", fail.Invalid, "", "%v", err).Because(err)
	}
	return decode(newReader(doc), doc.Root())
}

// reader decodes the elements of one message. Its first refusal stays: what is
// read after one is of no use and costs nothing.
type reader struct {
	doc *xmldoc.Document
	err error

	terms, variables, inherited int
	names                       map[string]bool
}

// newReader makes a reader of elements that doc has read; without one, refusals
// do not know lines.
func newReader(doc *xmldoc.Document) *reader {
	if doc == nil {
		doc = new(xmldoc.Document)
	}
	return &reader{doc: doc}
}

func done[T any](r *reader, v *T) (*T, error) {
	if r.err != nil {
		return nil, r.err
	}
	return v, nil
}

// refuse says what is wrong with e.
func (r *reader) refuse(e *etree.Element, format string, args ...any) {
	if r.err != nil {
		return
	}
	path := strings.TrimPrefix(r.doc.Path(e), "/Envelope/Body")
	at := ""
	if p := r.doc.Position(e); !p.IsZero() {
		at = "line " + p.String() + ": "
	}
	r.err = fail.Errorf("agreement.Decode", fail.Invalid, path, "%s%s: %s", at, path, fmt.Sprintf(format, args...))
}

// root checks the name of a document's root.
func (r *reader) root(e *etree.Element, locals ...string) {
	n := r.doc.Name(e)
	if draft := older[n.Space]; draft != "" {
		r.refuse(e, "is of the namespace %s, %s of WS-Agreement, which is another language; write it in %s", quoted(n.Space), draft, NS)
		return
	}
	if n.Space != NS || !slices.Contains(locals, n.Local) {
		r.refuse(e, "is %s; expected %s of the namespace %s", quoted(n.String()), strings.Join(locals, " or "), NS)
	}
}

// children are those of an element that holds elements only, taken in order.
type children struct {
	r     *reader
	of    *etree.Element
	left  []*etree.Element
	space string // of what take and need name, which is not foreign; "" is wsag's
}

// in gives the same children, of which those of another namespace are named from now on.
func (c *children) in(space string) *children {
	c.space = space
	return c
}

func (c *children) named() string {
	if c.space == "" {
		return NS
	}
	return c.space
}

func (r *reader) children(e *etree.Element) *children {
	c := &children{r: r, of: e}
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.CharData:
			if strings.Trim(t.Data, " \t\r\n") != "" {
				r.refuse(e, "holds the text %s; it takes elements only", quoted(t.Data))
			}
		case *etree.Element:
			c.left = append(c.left, t)
		}
	}
	return c
}

// take gives the next child if it is the element of that name, of wsag unless in says
// otherwise; else nil.
func (c *children) take(local string) *etree.Element {
	if len(c.left) == 0 || c.r.err != nil || c.left[0].Tag != local || c.r.doc.Name(c.left[0]).Space != c.named() {
		return nil
	}
	e := c.left[0]
	c.left = c.left[1:]
	return e
}

// need is take of what must be there; nil once something was refused.
func (c *children) need(local string) *etree.Element {
	e := c.take(local)
	switch {
	case e != nil || c.r.err != nil:
	case len(c.left) == 0:
		c.r.refuse(c.of, "%s is missing", local)
	case older[c.r.doc.Name(c.left[0]).Space] != "":
		c.r.root(c.left[0])
	default:
		c.r.refuse(c.left[0], "stands where %s is expected", local)
	}
	return e
}

// foreign takes the children that stand in another namespace than what is named
// (##other).
func (c *children) foreign() []*etree.Element {
	var list []*etree.Element
	for len(c.left) > 0 && c.r.err == nil {
		if s := c.r.doc.Name(c.left[0]).Space; s == c.named() || s == "" {
			break
		}
		if len(list) == maxList {
			c.r.refuse(c.of, "holds more than %d extensions", maxList)
		}
		list = append(list, c.r.keep(c.left[0]))
		c.left = c.left[1:]
	}
	return list
}

// end refuses what is left.
func (c *children) end() {
	if len(c.left) == 0 || c.r.err != nil {
		return
	}
	e := c.left[0]
	n := c.r.doc.Name(e)
	if draft := older[n.Space]; draft != "" {
		c.r.root(e)
		return
	}
	c.r.refuse(e, "%s does not belong here in %s, or stands there twice or in the wrong order", quoted(n.String()), c.of.Tag)
}

// keep detaches an element, within a bound on the declarations that it takes along.
func (r *reader) keep(e *etree.Element) *etree.Element {
	if e == nil || r.err != nil {
		return nil
	}
	more := xmldoc.Inherited(e)
	for i := range more {
		r.inherited += len(more[i].Key) + len(more[i].Value)
	}
	if r.inherited > maxInherited {
		r.refuse(e, "uses namespaces that are declared far above it and long; declare fewer or shorter ones")
		return nil
	}
	c := e.Copy()
	c.Attr = append(c.Attr, more...)
	return c
}

// attributes gives the wsag attributes of an element by local name, and those of
// negotiation with the prefix neg, all of which must be among those named. typ is its
// type: of wsag, or of XML Schema or negotiation with the prefix xs or neg; "" has no
// name.
func (r *reader) attributes(e *etree.Element, typ string, names ...string) map[string]string {
	found, _ := r.allAttributes(e, typ, false, names...)
	return found
}

func (r *reader) allAttributes(e *etree.Element, typ string, others bool, names ...string) (map[string]string, []Attribute) {
	var found map[string]string
	var list []Attribute
	for i := range e.Attr {
		a := &e.Attr[i]
		if a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns" {
			continue
		}
		if a.Space == "" {
			for _, prefix := range [...]string{"", "neg:"} {
				if slices.Contains(names, prefix+a.Key) {
					r.refuse(e, "the attribute %s is in no namespace; WS-Agreement has it qualified: write %s", a.Key, spelled(prefix+a.Key))
				}
			}
			r.refuse(e, "the attribute %s does not belong here", quoted(a.Key))
			return nil, nil
		}
		n, err := xmldoc.ResolveQName(e, a.Space+":"+a.Key)
		key := ""
		switch n.Space {
		case NS:
			key = strings.Clone(n.Local)
		case NSNegotiation:
			key = "neg:" + n.Local
		}
		switch {
		case err != nil:
			r.refuse(e, "the attribute %s: %v", quoted(a.Key), err)
		case n.Space == nsXSI && (n.Local == "schemaLocation" || n.Local == "noNamespaceSchemaLocation"):
		case r.carried(e, n):
		case n.Space == nsXSI && n.Local == "type":
			want := xmldoc.Name{Space: NS, Local: typ}
			if t, ok := strings.CutPrefix(typ, "xs:"); ok {
				want = xmldoc.Name{Space: nsXS, Local: t}
			} else if t, ok := strings.CutPrefix(typ, "neg:"); ok {
				want = xmldoc.Name{Space: NSNegotiation, Local: t}
			}
			if t, err := xmldoc.ResolveQName(e, a.Value); err != nil || typ == "" || t != want {
				r.refuse(e, "xsi:type is %s, which is not the element's own type; leave it out", quoted(a.Value))
			}
		case key != "" && slices.Contains(names, key):
			if found == nil {
				found = map[string]string{}
			}
			if len(a.Value) > MaxName {
				r.refuse(e, "the attribute %s has %d bytes; at most %d are taken", spelled(key), len(a.Value), MaxName)
			}
			found[key] = strings.Clone(a.Value)
		case others && n.Space != NS && n.Space != nsXSI:
			if len(list) == maxList {
				r.refuse(e, "has more than %d attributes of other namespaces", maxList)
			}
			list = append(list, Attribute{xmldoc.Name{Space: strings.Clone(n.Space), Local: strings.Clone(n.Local)}, strings.Clone(a.Value)})
		default:
			r.refuse(e, "the attribute %s does not belong here", quoted(n.String()))
		}
		if r.err != nil {
			return nil, nil
		}
	}
	return found, list
}

// carried reports whether an attribute of e is one that the child of a Body may have
// whatever it is: of the message, and judged when that came (SOAP 1.1 §4.1.1, 1.2 part 1
// §5.1.1, WS-Security §4.2).
func (r *reader) carried(e *etree.Element, n xmldoc.Name) bool {
	p := e.Parent()
	if p == nil || p.Tag != "Body" {
		return false
	}
	s := r.doc.Name(p).Space
	return (s == soap.NS11 || s == soap.NS12) && (n == xmldoc.Name{Space: s, Local: "encodingStyle"} || n == xmldoc.Name{Space: soap.NSWSU, Local: "Id"})
}

// spelled writes the name of an attribute as attributes has it with its prefix.
func spelled(key string) string {
	if strings.HasPrefix(key, "neg:") {
		return key
	}
	return "wsag:" + key
}

// required gives an attribute that must be there and say something.
func (r *reader) required(e *etree.Element, attrs map[string]string, local string) string {
	v, ok := attrs[local]
	switch {
	case r.err != nil:
	case !ok:
		r.refuse(e, "the attribute %s is missing", spelled(local))
	case strings.TrimSpace(v) == "":
		r.refuse(e, "the attribute %s is empty; others refer to it", spelled(local))
	}
	return v
}

// text gives the content of an element of a simple type; "" for none.
func (r *reader) text(e *etree.Element, typ string, most int) string {
	if e == nil || r.err != nil {
		return ""
	}
	r.attributes(e, typ)
	if kids := e.ChildElements(); len(kids) > 0 {
		r.refuse(kids[0], "does not belong into %s, which takes text", e.Tag)
	}
	s := xmldoc.Text(e)
	if len(s) > most {
		r.refuse(e, "has %d bytes; at most %d are taken", len(s), most)
		return ""
	}
	return strings.Clone(s)
}

func (r *reader) word(e *etree.Element, typ string, words ...string) string {
	s := r.text(e, typ, MaxName)
	if e != nil && !slices.Contains(words, s) {
		r.refuse(e, "is %s; expected %s", quoted(s), oneOf(words))
	}
	return s
}

func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// one takes one foreign element, or none.
func (c *children) one() *etree.Element {
	if len(c.left) == 0 || c.r.err != nil {
		return nil
	}
	if s := c.r.doc.Name(c.left[0]).Space; s == c.named() || s == "" {
		return nil
	}
	e := c.r.keep(c.left[0])
	c.left = c.left[1:]
	return e
}

var (
	whole       = regexp.MustCompile(`^[+-]?[0-9]+$`)
	decimalForm = regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$`)
	duration    = regexp.MustCompile(`^-?P([0-9]+Y)?([0-9]+M)?([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+(\.[0-9]+)?S)?)?$`)
	instant     = regexp.MustCompile(`^([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})?$`)
)

// isDuration tells an xs:duration: a P or a T with nothing behind it is none.
func isDuration(s string) bool {
	return duration.MatchString(s) && !strings.HasSuffix(s, "P") && !strings.HasSuffix(s, "T")
}

func integer(s string) (int64, bool) {
	s = xmldoc.Collapse(s)
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && whole.MatchString(s)
}

// time reads an xs:dateTime; without a zone it is taken as UTC.
func (r *reader) time(e *etree.Element) time.Time {
	s := xmldoc.Collapse(r.text(e, "xs:dateTime", MaxName))
	if r.err != nil {
		return time.Time{}
	}
	m := instant.FindStringSubmatch(s)
	bad := func() time.Time {
		r.refuse(e, "is %s; expected a time such as 2030-01-31T12:00:00Z, in the years 1970 to 9999", quoted(s))
		return time.Time{}
	}
	if m == nil {
		return bad()
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	hour, minute, second := number(m[4]), number(m[5]), number(m[6])
	midnight := hour == 24 && minute == 0 && second == 0 && strings.Trim(m[7], ".0") == ""
	if hour > 23 && !midnight || minute > 59 || second > 59 {
		return bad()
	}
	nanos := number((strings.TrimPrefix(m[7], ".") + "000000000")[:9])
	zone := time.UTC
	if z := m[8]; len(z) > 1 {
		h, m := number(z[1:3]), number(z[4:6])
		if m > 59 || h > 14 || h == 14 && m > 0 {
			return bad()
		}
		off := (h*60 + m) * 60
		if z[0] == '-' {
			off = -off
		}
		zone = time.FixedZone("", off)
	}
	day := time.Date(number(m[1]), time.Month(number(m[2])), number(m[3]), 0, 0, 0, 0, zone)
	if int(day.Month()) != number(m[2]) || day.Day() != number(m[3]) {
		return bad()
	}
	t := time.Date(day.Year(), day.Month(), day.Day(), hour, minute, second, nanos, zone).UTC()
	if t.Year() < 1970 || t.Year() > 9999 {
		return bad()
	}
	return t
}

// quoted shows a stranger's text, bounded.
func quoted(s string) string {
	const most = 100
	if s = strings.TrimSpace(s); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
