package terms

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// NSWSAG4J is the namespace of the TimeConstraint that WSAG4J's clients put beside a job.
const NSWSAG4J = "http://schemas.wsag4j.org/2009/07/wsag4j-scheduling-extensions"

// Bounds of the vocabulary; agreement/terms.xsd has the same, and a test holds the two
// together.
const (
	maxWord  = 255             // characters of the name of a site or share
	maxCount = 1_000_000_000   // CPUs, slots or nodes
	maxPrice = 999_999_999.999 // of a CPU-hour
)

// Window is a time from Start until End, which is no part of it.
type Window struct{ Start, End time.Time }

// IsZero says that it is none.
func (w Window) IsZero() bool { return w.Start.IsZero() && w.End.IsZero() }

// Length is how long it is.
func (w Window) Length() time.Duration { return w.End.Sub(w.Start) }

// Element gives the p:Window.
func (w Window) Element() *etree.Element {
	e := ours("Window")
	w.times(e)
	return e
}

func (w Window) times(e *etree.Element) {
	e.CreateElement("p:StartTime").SetText(moment(w.Start))
	e.CreateElement("p:EndTime").SetText(moment(w.End))
}

// Place is where a service is to run: at a site, and on a share of it. "" is any.
type Place struct{ Site, Share string }

// IsZero says that anywhere will do.
func (p Place) IsZero() bool { return p == Place{} }

func (p Place) String() string {
	if p.Share == "" {
		return p.Site
	}
	return p.Site + "/" + p.Share
}

// Element gives the p:Place.
func (p Place) Element() *etree.Element {
	e := ours("Place")
	p.names(e)
	return e
}

func (p Place) names(e *etree.Element) {
	if p.Site != "" {
		e.CreateElement("p:Site").SetText(p.Site)
	}
	if p.Share != "" {
		e.CreateElement("p:Share").SetText(p.Share)
	}
}

// Booking is capacity for a window: one of the amount's kinds is asked for.
type Booking struct {
	Place  Place
	Amount calendar.Amount
	Window Window
}

// Element gives the p:Capacity.
func (b Booking) Element() *etree.Element {
	e := ours("Capacity")
	b.Place.names(e)
	for _, n := range []struct {
		local string
		n     int64
	}{{"CPUs", b.Amount.CPUs}, {"Slots", b.Amount.Slots}, {"Nodes", b.Amount.Nodes}} {
		if n.n > 0 {
			e.CreateElement("p:" + n.local).SetText(strconv.FormatInt(n.n, 10))
			break
		}
	}
	b.Window.times(e)
	return e
}

// Price is the most that a CPU-hour may cost; in a template, what it costs.
type Price struct {
	PerCPUHour float64
	Unit       string // "" is the gateway's own
}

// Element gives the p:Price.
func (p Price) Element() *etree.Element {
	e := ours("Price")
	if p.Unit != "" {
		e.CreateAttr("unit", p.Unit)
	}
	e.SetText(strconv.FormatFloat(p.PerCPUHour, 'f', -1, 64))
	return e
}

// StartByElement gives the p:StartBy.
func StartByElement(t time.Time) *etree.Element { return textual("StartBy", moment(t)) }

// FinishByElement gives the p:FinishBy.
func FinishByElement(t time.Time) *etree.Element { return textual("FinishBy", moment(t)) }

func textual(local, text string) *etree.Element {
	e := ours(local)
	e.SetText(text)
	return e
}

func ours(local string) *etree.Element {
	e := etree.NewElement("p:" + local)
	e.CreateAttr("xmlns:p", agreement.NSPortolan)
	return e
}

// moment writes a time as it is read again: in UTC, exact.
func moment(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

var (
	momentForm = regexp.MustCompile(`^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+\-](0[0-9]|1[0-3]):[0-5][0-9]|[+\-]14:00)$`)
	countForm  = regexp.MustCompile(`^[0-9]{1,10}$`)
	priceForm  = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,3})?$`)
)

// words reads an element of the vocabulary: its first refusal stays.
type words struct {
	term string // the wsag:Name of the service description term
	err  error
}

func (r *words) refuse(e *etree.Element, format string, args ...any) {
	if r.err == nil {
		r.err = unsupported(r.term, "the term %s: "+e.Tag+" "+format, append([]any{quoted(r.term)}, args...)...)
	}
}

// text gives the content of an element that holds text alone.
func (r *words) text(e *etree.Element, attributes ...string) string {
	r.attributes(e, attributes...)
	if kids := e.ChildElements(); len(kids) > 0 {
		r.refuse(e, "holds the element %s; it takes text", quoted(kids[0].Tag))
	}
	return xmldoc.Collapse(xmldoc.Text(e))
}

func (r *words) attributes(e *etree.Element, known ...string) {
	for _, a := range e.Attr {
		if a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns" {
			continue
		}
		if a.Space == "" && len(known) > 0 && a.Key == known[0] {
			continue
		}
		r.refuse(e, "has the attribute %s, which it does not take", quoted(a.FullKey()))
	}
}

func (r *words) moment(e *etree.Element) time.Time {
	s := r.text(e)
	if !momentForm.MatchString(s) {
		r.refuse(e, "is %s; expected a time with its zone, such as 2030-01-31T12:00:00Z", quoted(s))
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		r.refuse(e, "is %s, which is no day of the calendar", quoted(s))
		return time.Time{}
	}
	return t.UTC()
}

func (r *words) word(e *etree.Element) string {
	s := r.text(e)
	if n := utf8.RuneCountInString(s); n == 0 || n > maxWord || strings.ContainsFunc(s, unicode.IsControl) {
		r.refuse(e, "has %d characters; expected a name of 1 to %d", n, maxWord)
	}
	return s
}

func (r *words) count(e *etree.Element) int64 {
	s := r.text(e)
	n, err := strconv.ParseInt(s, 10, 64)
	if !countForm.MatchString(s) || err != nil || n < 1 || n > maxCount {
		r.refuse(e, "is %s; expected a whole number from 1 to %d", quoted(s), maxCount)
		return 0
	}
	return n
}

func (r *words) price(e *etree.Element) (p Price) {
	s := r.text(e, "unit")
	n, err := strconv.ParseFloat(s, 64)
	if !priceForm.MatchString(s) || err != nil || n > maxPrice {
		r.refuse(e, "is %s; expected a price such as 0.25, with three digits behind the point at most", quoted(s))
	}
	p.PerCPUHour = n
	if u, ok := xmldoc.Attr(e, "", "unit"); ok {
		p.Unit = xmldoc.Collapse(u)
		if n := utf8.RuneCountInString(p.Unit); n == 0 || n > maxWord {
			r.refuse(e, "has a unit of %d characters; expected 1 to %d", n, maxWord)
		}
	}
	return p
}

// parts reads the children of e in the order of their names; each stands once at most.
func (r *words) parts(e *etree.Element, space string, names []string, read func(local string, c *etree.Element)) map[string]bool {
	r.attributes(e)
	if s := strings.TrimSpace(xmldoc.Text(e)); s != "" {
		r.refuse(e, "holds the text %s; it takes elements only", quoted(s))
	}
	has := map[string]bool{}
	at := 0
	for _, c := range e.ChildElements() {
		n := xmldoc.NameOf(c)
		for at < len(names) && names[at] != n.Local {
			at++
		}
		if at == len(names) || n.Space != space {
			r.refuse(e, "holds %s, which does not belong there, stands there twice or in the wrong order; it takes %s", quoted(n.String()), strings.Join(names, ", "))
			return has
		}
		has[n.Local] = true
		at++
		read(n.Local, c)
	}
	return has
}

func (r *words) need(e *etree.Element, has map[string]bool, names ...string) {
	for _, n := range names {
		if !has[n] {
			r.refuse(e, "lacks %s", n)
		}
	}
}

func (r *words) ordered(e *etree.Element, w Window) {
	if r.err == nil && !w.End.After(w.Start) {
		r.refuse(e, "ends at %s, which is not after its start at %s", moment(w.End), moment(w.Start))
	}
}

func (r *words) window(e *etree.Element) (w Window) {
	names := []string{"StartTime", "EndTime"}
	has := r.parts(e, agreement.NSPortolan, names, func(local string, c *etree.Element) { w.set(local, r.moment(c)) })
	r.need(e, has, names...)
	r.ordered(e, w)
	return w
}

func (w *Window) set(local string, t time.Time) {
	if local == "StartTime" {
		w.Start = t
	} else {
		w.End = t
	}
}

func (p *Place) set(local, s string) {
	if local == "Site" {
		p.Site = s
	} else {
		p.Share = s
	}
}

func (r *words) place(e *etree.Element) (p Place) {
	has := r.parts(e, agreement.NSPortolan, []string{"Site", "Share"}, func(local string, c *etree.Element) { p.set(local, r.word(c)) })
	r.need(e, has, "Site")
	return p
}

func (r *words) booking(e *etree.Element) (b Booking) {
	amounts := 0
	has := r.parts(e, agreement.NSPortolan, []string{"Site", "Share", "CPUs", "Slots", "Nodes", "StartTime", "EndTime"}, func(local string, c *etree.Element) {
		switch local {
		case "Site", "Share":
			b.Place.set(local, r.word(c))
		case "StartTime", "EndTime":
			b.Window.set(local, r.moment(c))
		case "CPUs":
			b.Amount.CPUs, amounts = r.count(c), amounts+1
		case "Slots":
			b.Amount.Slots, amounts = r.count(c), amounts+1
		case "Nodes":
			b.Amount.Nodes, amounts = r.count(c), amounts+1
		}
	})
	r.need(e, has, "StartTime", "EndTime")
	if has["Share"] {
		r.need(e, has, "Site")
	}
	if amounts != 1 {
		r.refuse(e, "has %d amounts; expected one of CPUs, Slots and Nodes", amounts)
	}
	r.ordered(e, b.Window)
	return b
}

// timeConstraint reads WSAG4J's: a start alone is an earliest one, an end alone a
// deadline. The unit of its Duration is nowhere told, so that one which says more than
// the times do can't be promised.
func (r *words) timeConstraint(e *etree.Element) (w Window) {
	length := int64(-1)
	var at *etree.Element
	r.parts(e, NSWSAG4J, []string{"StartTime", "EndTime", "Duration"}, func(local string, c *etree.Element) {
		if local == "Duration" {
			length, at = r.count(c), c
			return
		}
		w.set(local, r.moment(c))
	})
	if !w.Start.IsZero() && !w.End.IsZero() {
		r.ordered(e, w)
	}
	if l := w.Length(); at != nil && (w.Start.IsZero() || w.End.IsZero() || l != time.Duration(length)*time.Second && l != time.Duration(length)*time.Minute) {
		r.refuse(at, "is %d of a unit that is not told: say when it ends with EndTime, and how long the job runs with WallTimeLimit", length)
	}
	return w
}

// unsupported refuses a term by its name.
func unsupported(term, format string, args ...any) error {
	return fail.Errorf("terms.Read", fail.Unsupported, term, format, args...)
}

// quoted shows a stranger's text, bounded.
func quoted(s string) string {
	const most = 100
	if s = strings.TrimSpace(s); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
