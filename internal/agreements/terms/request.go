package terms

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/guarantee"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// Kind is what is promised.
type Kind string

// The kinds, the weakest promise first.
const (
	BestEffort         Kind = "best-effort"         // the job runs some time
	StartBy            Kind = "start-by"            // it starts no later than a time
	FinishBy           Kind = "finish-by"           // it has ended by a time
	AdvanceReservation Kind = "advance-reservation" // it has its resources from one time until another
	Capacity           Kind = "capacity"            // resources for a window, whatever runs on them
)

// Kinds gives all of them.
func Kinds() []Kind { return []Kind{BestEffort, StartBy, FinishBy, AdvanceReservation, Capacity} }

// Bounds of one offer.
const (
	MaxServices   = 16
	MaxGuarantees = 64
)

// Request is what an offer asks for.
type Request struct {
	Kind     Kind
	Services []Service // in the order of the document; all of them or none

	// NotBefore, StartBy, FinishBy and Window are those of all services together: the
	// earliest time of each, and the hull of the windows. Zero is none.
	NotBefore, StartBy, FinishBy time.Time
	Window                       Window

	// Guarantees are what is to be watched, Promises the terms that say so, in the same
	// order. Beside what is measured, they may name the variables startBy, finishBy,
	// windowStart and windowEnd: those of the services that they are about, so far as there
	// are such times.
	Guarantees []*guarantee.Guarantee
	Promises   []*agreement.Guarantee
	// Properties are the offer's own words for those: nothing is evaluated at their Locations.
	Properties []*agreement.ServiceProperties
	// Expiration is the agreement's wsag:ExpirationTime; zero is none.
	Expiration time.Time
}

// Service is one of the things that are asked for.
type Service struct {
	Name string // the wsag:ServiceName
	Term string // the wsag:Name of the term that describes the job or the capacity

	// Job and Document are the job to run, always as a jsdl:JobDefinition; nil where
	// Capacity is not.
	Job      *jsdl.JobDefinition
	Document []byte
	Need     jsdl.Request // what the job asks a manager for
	Capacity *Booking

	Duration time.Duration // for which it is to have its resources; 0 is not known
	Place    Place

	NotBefore, StartBy, FinishBy time.Time // zero is none
	Window                       Window
	Price                        *Price // nil is any
}

// Read reads what an offer asks for: the terms of one definite alternative. What is
// not understood is a fail.Unsupported that names the term; what contradicts itself, is
// over or too far ahead is a fail.Invalid.
func Read(a *agreement.Agreement, now time.Time, s Settings) (*Request, error) {
	s.EnsureDefaults()
	q, err := read(a)
	if err != nil {
		return nil, err
	}
	if err := q.timely(now, &s); err != nil {
		return nil, err
	}
	return q, nil
}

func invalid(term, format string, args ...any) error {
	return fail.Errorf("terms.Read", fail.Invalid, term, format, args...)
}

// over refuses what has passed.
func over(format string, args ...any) error {
	return agreement.Refuse(agreement.Expired, fmt.Sprintf(format, args...))
}

// breaks refuses an offer that is not as its template lets.
func breaks(format string, args ...any) error {
	return agreement.Refuse(agreement.NotCompliant, fmt.Sprintf(format, args...))
}

// read reads the terms, whatever the time is.
func read(a *agreement.Agreement) (*Request, error) {
	if p := a.Context.ServiceProvider; p != agreement.Responder {
		return nil, unsupported("Context", "the offer says that its ServiceProvider is the %s; this gateway provides the service, so that it must be %s", quoted(string(p)), agreement.Responder)
	}
	q := &Request{Expiration: a.Context.ExpirationTime}
	var err error
	a.Terms.Walk(func(t agreement.Term) bool {
		switch t := t.(type) {
		case *agreement.Compositor:
			if t.Kind != agreement.All && err == nil {
				err = fail.Errorf("terms.Read", fail.Internal, "", "an offer with a choice left in it can't be read")
			}
		case *agreement.ServiceReference:
			if err == nil {
				err = unsupported(t.Name, "the term %s is a ServiceReference; services that exist already are not taken: describe a job in a ServiceDescriptionTerm", quoted(t.Name))
			}
		case *agreement.ServiceProperties:
			q.Properties = append(q.Properties, t)
		case *agreement.Guarantee:
			q.Promises = append(q.Promises, t)
		}
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	services := a.Services()
	switch {
	case len(services) == 0:
		return nil, invalid("Terms", "the offer describes no service: put a jsdl:JobDefinition or a Capacity into a ServiceDescriptionTerm")
	case len(services) > MaxServices:
		return nil, fail.Errorf("terms.Read", fail.Exhausted, "Terms", "the offer has %d services; %d may go together: make several offers", len(services), MaxServices)
	case len(q.Promises) > MaxGuarantees:
		return nil, fail.Errorf("terms.Read", fail.Exhausted, "Terms", "the offer has %d guarantees; it may have %d", len(q.Promises), MaxGuarantees)
	}
	for i := range services {
		v, kind, err := readService(&services[i])
		if err != nil {
			return nil, err
		}
		if i > 0 && kind != q.Kind {
			return nil, unsupported(v.Term, "the service %s is %s, and %s is %s; one agreement is of one kind: make two offers", quoted(v.Name), kind, quoted(q.Services[0].Name), q.Kind)
		}
		q.Kind = kind
		q.Services = append(q.Services, *v)
	}
	q.summarize()
	for _, p := range q.Properties {
		if !q.has(p.ServiceName) {
			return nil, invalid(p.Name, "the properties %s are of the service %s, which the offer does not describe", quoted(p.Name), quoted(p.ServiceName))
		}
	}
	return q, q.guarantees()
}

// summarize gives the times of all services together.
func (q *Request) summarize() {
	first := func(a *time.Time, b time.Time) {
		if !b.IsZero() && (a.IsZero() || b.Before(*a)) {
			*a = b
		}
	}
	for i := range q.Services {
		v := &q.Services[i]
		first(&q.NotBefore, v.NotBefore)
		first(&q.StartBy, v.StartBy)
		first(&q.FinishBy, v.FinishBy)
		first(&q.Window.Start, v.Window.Start)
		if v.Window.End.After(q.Window.End) {
			q.Window.End = v.Window.End
		}
	}
}

// constants gives the times of an offer that a guarantee of some services may name: of
// each the earliest, and the end of the last window. No services are all.
func (q *Request) constants(scopes []agreement.Scope) map[string]time.Time {
	of := Request{}
	for i := range q.Services {
		if len(scopes) == 0 || slices.ContainsFunc(scopes, func(s agreement.Scope) bool { return s.ServiceName == "" || s.ServiceName == q.Services[i].Name }) {
			of.Services = append(of.Services, q.Services[i])
		}
	}
	of.summarize()
	all := map[string]time.Time{}
	for name, t := range map[string]time.Time{"startBy": of.StartBy, "finishBy": of.FinishBy, "windowStart": of.Window.Start, "windowEnd": of.Window.End} {
		if !t.IsZero() {
			all[name] = t
		}
	}
	return all
}

func (q *Request) has(service string) bool {
	return slices.ContainsFunc(q.Services, func(v Service) bool { return v.Name == service })
}

// guarantees checks what the gateway is asked to watch.
func (q *Request) guarantees() error {
	for _, g := range q.Promises {
		if g.Obligated == agreement.ServiceConsumer {
			return unsupported(g.Name, "the guarantee %s is one that the consumer must keep; only what this gateway must keep is watched", quoted(g.Name))
		}
		for _, s := range g.Scopes {
			if s.ServiceName != "" && !q.has(s.ServiceName) {
				return invalid(g.Name, "the guarantee %s is about the service %s, which the offer does not describe", quoted(g.Name), quoted(s.ServiceName))
			}
			if len(s.Extensions) > 0 {
				return unsupported(g.Name, "the guarantee %s is about a part of a service (%s); only whole services are watched", quoted(g.Name), quoted(s.Extensions[0].Tag))
			}
		}
		vars := guarantee.Variables{}
		for name, t := range q.constants(g.Scopes) {
			vars[name] = agreement.OfTime(t)
		}
		c, err := guarantee.Compile(g, vars)
		if err != nil {
			return fail.E("terms.Read", fail.KindOf(err), g.Name, err)
		}
		q.Guarantees = append(q.Guarantees, c)
	}
	return nil
}

// reading is a service whose descriptions are being read.
type reading struct {
	Service
	terms map[string]string // which term said what
}

// once notes that a term says something, and refuses that it is said twice.
func (r *reading) once(what, term string) error {
	if before, ok := r.terms[what]; ok {
		return invalid(term, "the terms %s and %s both say the %s of the service %s; one may", quoted(before), quoted(term), what, quoted(r.Name))
	}
	r.terms[what] = term
	return nil
}

func readService(s *agreement.ServiceTerms) (*Service, Kind, error) {
	r := &reading{Service: Service{Name: s.Name}, terms: map[string]string{}}
	for _, d := range s.Descriptions {
		if err := r.description(d); err != nil {
			return nil, "", err
		}
	}
	kind, err := r.settle()
	if err != nil {
		return nil, "", err
	}
	return &r.Service, kind, nil
}

const vocabulary = "a jsdl:JobDefinition, or Window, StartBy, FinishBy, Place, Price or Capacity of " + agreement.NSPortolan

func (r *reading) description(d *agreement.ServiceDescription) error {
	e := d.Description
	if e == nil {
		return unsupported(d.Name, "the term %s describes nothing; expected %s", quoted(d.Name), vocabulary)
	}
	w := &words{term: d.Name}
	n := xmldoc.NameOf(e)
	said := func(what string) {
		if w.err == nil {
			w.err = r.once(what, d.Name)
		}
	}
	switch {
	case n.Space == jsdl.NS && (n.Local == "JobDefinition" || n.Local == "JobDescription"):
		said("job")
		if w.err == nil {
			w.err = r.job(d.Name, e)
		}
	case n.Space == NSWSAG4J && n.Local == "TimeConstraint":
		c := w.timeConstraint(e)
		switch {
		case c.Start.IsZero() && c.End.IsZero(): // it constrains nothing
		case c.End.IsZero():
			said("earliest start")
			r.NotBefore = c.Start
		case c.Start.IsZero():
			said("deadline")
			r.FinishBy = c.End
		default:
			said("window")
			r.Window = c
		}
	case n.Space != agreement.NSPortolan:
		return unsupported(d.Name, "the term %s is %s, which is not understood here; expected %s", quoted(d.Name), quoted(n.String()), vocabulary)
	case n.Local == "Window":
		said("window")
		r.Window = w.window(e)
	case n.Local == "StartBy":
		said("latest start")
		r.StartBy = w.moment(e)
	case n.Local == "FinishBy":
		said("deadline")
		r.FinishBy = w.moment(e)
	case n.Local == "Place":
		said("place")
		r.Place = w.place(e)
	case n.Local == "Price":
		said("price")
		p := w.price(e)
		r.Price = &p
	case n.Local == "Capacity":
		said("capacity")
		b := w.booking(e)
		r.Capacity = &b
		r.Term = d.Name
	default:
		return unsupported(d.Name, "the term %s is %s, which is not understood here; expected %s", quoted(d.Name), quoted(n.Local), vocabulary)
	}
	return w.err
}

// job reads either form of a job: bare descriptions are wrapped.
func (r *reading) job(term string, e *etree.Element) error {
	if e.Tag == "JobDescription" {
		d := etree.NewElement("jsdl:JobDefinition")
		d.CreateAttr("xmlns:jsdl", jsdl.NS)
		d.AddChild(xmldoc.Detach(e))
		e = d
	}
	r.Document, r.Term = xmldoc.Marshal(xmldoc.Detach(e)), term
	job, ps := jsdl.Parse(r.Document, jsdl.Options{})
	err := ps.Err()
	if err == nil {
		r.Job = job
		r.Need, err = job.Request()
	}
	if err != nil {
		return fail.Errorf("terms.Read", fail.KindOf(err), term, "the job of the term %s: %s", quoted(term), fail.Sentence(err))
	}
	return nil
}

// settle works out the kind, and what the terms of a service say together.
func (r *reading) settle() (Kind, error) {
	said := func(what string) bool { return r.terms[what] != "" }
	var times []string
	for _, what := range []string{"window", "latest start", "deadline", "earliest start"} {
		if said(what) {
			times = append(times, what)
		}
	}
	if r.Capacity != nil {
		for _, what := range append([]string{"job", "place"}, times...) {
			if said(what) {
				return "", invalid(r.terms[what], "the service %s asks for a Capacity (term %s), which says all by itself: leave out its %s (term %s)", quoted(r.Name), quoted(r.Term), what, quoted(r.terms[what]))
			}
		}
		r.Place, r.Window, r.Duration = r.Capacity.Place, r.Capacity.Window, r.Capacity.Window.Length()
		return Capacity, nil
	}
	if r.Job == nil {
		return "", invalid(r.Name, "the service %s has no job: add a ServiceDescriptionTerm with a jsdl:JobDefinition and the same ServiceName", quoted(r.Name))
	}
	if res := r.Job.Description.Resources; res != nil && res.Placement != nil {
		p := res.Placement
		if p.NotBefore != nil && p.NotBefore.After(r.NotBefore) {
			r.NotBefore = p.NotBefore.UTC()
		}
		if p.Share != nil && r.Place.Share != "" && *p.Share != r.Place.Share {
			return "", invalid(r.Term, "the job of the term %s is for the share %s, and the term %s for %s; make them alike", quoted(r.Term), quoted(*p.Share), quoted(r.terms["place"]), quoted(r.Place.Share))
		}
		if p.Share != nil {
			r.Place.Share = *p.Share
		}
		if err := r.deadline(p.Deadline); err != nil {
			return "", err
		}
	}
	r.Duration = time.Duration(min(r.Need.WallTime, int64(maxSpan/time.Second))) * time.Second
	switch {
	case said("window"):
		if len(times) > 1 {
			return "", invalid(r.terms[times[1]], "the service %s has a window (term %s), which says its times by itself: leave out its %s (term %s)", quoted(r.Name), quoted(r.terms["window"]), times[1], quoted(r.terms[times[1]]))
		}
		if r.Duration > r.Window.Length() {
			return "", invalid(r.terms["window"], "the window of the service %s is %s long, and its job may run for %s: make the window longer, or the job's time limit shorter", quoted(r.Name), r.Window.Length(), r.Duration)
		}
		if r.NotBefore.After(r.Window.Start) {
			return "", invalid(r.Term, "the job of the term %s must not start before %s, and its window begins at %s; begin it later", quoted(r.Term), moment(r.NotBefore), moment(r.Window.Start))
		}
		r.Duration = r.Window.Length()
		return AdvanceReservation, nil
	case said("deadline"):
		if r.Duration > 0 && r.FinishBy.Add(-r.Duration).Before(r.NotBefore) {
			return "", invalid(r.terms["deadline"], "the job of the service %s must not start before %s and may run for %s, so that it can't be sure to end by %s", quoted(r.Name), moment(r.NotBefore), r.Duration, moment(r.FinishBy))
		}
		return FinishBy, r.startable()
	case said("latest start"):
		return StartBy, r.startable()
	}
	return BestEffort, nil
}

// deadline: a Deadline in the job must let the promise be kept, or the gateway would end
// the job that it has promised to run.
func (r *reading) deadline(d *time.Time) error {
	if d == nil {
		return nil
	}
	for _, by := range []struct {
		what string
		t    time.Time
	}{{"window", r.Window.End}, {"deadline", r.FinishBy}, {"latest start", r.StartBy}} {
		if d.Before(by.t) {
			return invalid(r.Term, "the job of the term %s has the Deadline %s, before the %s of the term %s at %s; leave the Deadline out, or make them alike", quoted(r.Term), moment(*d), by.what, quoted(r.terms[by.what]), moment(by.t))
		}
	}
	return nil
}

func (r *reading) startable() error {
	if !r.StartBy.IsZero() && r.NotBefore.After(r.StartBy) {
		return invalid(r.Term, "the job of the term %s must not start before %s, and is to start by %s", quoted(r.Term), moment(r.NotBefore), moment(r.StartBy))
	}
	return nil
}

// maxSpan bounds a duration, so that times can be added.
const maxSpan = 100 * 365 * 24 * time.Hour

// timely checks the times against the clock.
func (q *Request) timely(now time.Time, s *Settings) error {
	horizon := now.Add(s.Horizon)
	for i := range q.Services {
		v := &q.Services[i]
		for _, t := range []struct {
			what     string
			t        time.Time
			past, by bool
		}{
			{"window begins at", v.Window.Start, v.Window.Start.Before(now.Add(s.Notice - s.Grace)), false},
			{"window ends at", v.Window.End, !v.Window.End.After(now), true},
			{"job is to start by", v.StartBy, !v.StartBy.After(now), true},
			{"job is to be finished by", v.FinishBy, !v.FinishBy.After(now), true},
		} {
			switch {
			case t.t.IsZero():
			case t.past && !t.by && s.Notice > 0:
				return invalid(v.Term, "the service %s: its %s %s; nothing is promised before %s", quoted(v.Name), t.what, moment(t.t), moment(now.Add(s.Notice)))
			case t.past:
				return over("the service %s: its %s %s, and that is over", quoted(v.Name), t.what, moment(t.t))
			case t.t.After(horizon):
				return invalid(v.Term, "the service %s: its %s %s; nothing is promised beyond %s", quoted(v.Name), t.what, moment(t.t), moment(horizon))
			}
		}
		if v.Window.Length() > s.MaxWindow {
			return invalid(v.Term, "the service %s: its window is %s long; a window may be %s", quoted(v.Name), v.Window.Length(), s.MaxWindow)
		}
		if v.NotBefore.After(horizon) {
			return invalid(v.Term, "the service %s: its job must not start before %s; nothing is promised beyond %s", quoted(v.Name), moment(v.NotBefore), moment(horizon))
		}
	}
	return q.expires(now)
}

// expires checks that the agreement lasts as long as what it promises.
func (q *Request) expires(now time.Time) error {
	if q.Expiration.IsZero() {
		return nil
	}
	if !q.Expiration.After(now) {
		return over("the offer's ExpirationTime %s is over; choose a later one or leave it out", moment(q.Expiration))
	}
	for i := range q.Services {
		v := &q.Services[i]
		if last := latest(v.Window.End, v.StartBy, v.FinishBy); q.Expiration.Before(last) {
			return invalid("ExpirationTime", "the agreement would expire at %s, before what is promised for the service %s at %s; choose a later ExpirationTime or leave it out", moment(q.Expiration), quoted(v.Name), moment(last))
		}
	}
	return nil
}

func latest(ts ...time.Time) time.Time {
	return slices.MaxFunc(ts, func(a, b time.Time) int { return a.Compare(b) })
}

// Adheres checks that an offer promises what its template does: it is of the template's
// kind, and its guarantees are those of the template, with as high a price for breaking
// them. An offer may leave guarantees out. Constraints can't say that nothing was added.
func Adheres(t *agreement.Template, a *agreement.Agreement) error {
	asked, err := read(a)
	if err != nil {
		return err
	}
	p, err := PatternOf(t)
	if err != nil {
		return err
	}
	return p.adheres(asked)
}

// Pattern is what a template has of that in which an offer may not differ from it.
type Pattern struct {
	template string
	kinds    map[Kind]bool
	promises map[string]*etree.Element // by name
	said     map[string]*agreement.ServiceProperties
}

// PatternOf reads a template, once for all offers by it.
func PatternOf(t *agreement.Template) (*Pattern, error) {
	p := &Pattern{template: t.Name, kinds: map[Kind]bool{}, promises: map[string]*etree.Element{}, said: map[string]*agreement.ServiceProperties{}}
	alternatives, _ := agreement.Choose(t.Terms, nil, maxAlternatives)
	for _, alt := range alternatives {
		x := t.Agreement
		x.Terms = alt.Terms
		q, err := read(&x)
		if err != nil {
			return nil, fail.E("terms.PatternOf", fail.Internal, t.Name, err)
		}
		p.kinds[q.Kind] = true
	}
	t.Terms.Walk(func(term agreement.Term) bool {
		switch x := term.(type) {
		case *agreement.Guarantee:
			if t.Term(x.Name) == term {
				p.promises[x.Name] = bare(x)
			}
		case *agreement.ServiceProperties:
			p.said[x.Name] = x
		}
		return true
	})
	return p, nil
}

// Read is Adheres and Read of an offer.
func (p *Pattern) Read(a *agreement.Agreement, now time.Time, s Settings) (*Request, error) {
	s.EnsureDefaults()
	q, err := read(a)
	if err != nil {
		return nil, err
	}
	if err := p.adheres(q); err != nil {
		return nil, err
	}
	if err := q.timely(now, &s); err != nil {
		return nil, err
	}
	return q, nil
}

func (p *Pattern) adheres(asked *Request) error {
	if !p.kinds[asked.Kind] {
		var names []string
		for _, k := range Kinds() {
			if p.kinds[k] {
				names = append(names, string(k))
			}
		}
		return breaks("the offer asks for %s, and its template %s is for %s: leave its times as they are in the template, or take another template", asked.Kind, quoted(p.template), listed(names))
	}
	for _, g := range asked.Promises {
		same, ok := p.promises[g.Name]
		if !ok {
			return breaks("the guarantee %s is not in the template %s; leave it out", quoted(g.Name), quoted(p.template))
		}
		if !alike(bare(g), same) {
			return breaks("the guarantee %s is another than that of the template %s; take it as it is, or leave it out", quoted(g.Name), quoted(p.template))
		}
	}
	for _, x := range asked.Properties {
		if err := p.says(x); err != nil {
			return err
		}
	}
	return nil
}

// says checks what an offer says of variables. They have the values that the gateway knows, whatever
// is at their Locations: so those are the template's.
func (p *Pattern) says(x *agreement.ServiceProperties) error {
	same, ok := p.said[x.Name]
	switch {
	case !ok:
		for i := range x.Variables {
			if n := x.Variables[i].Name; given(n) {
				return breaks("the properties %s are not in the template %s and have the variable %s, whose value does not come from its Location; leave it out", quoted(x.Name), quoted(p.template), quoted(n))
			}
		}
	case x.ServiceName != same.ServiceName || !slices.EqualFunc(x.Variables, same.Variables, alikeVariables):
		return breaks("the properties %s are others than those of the template %s; take them as they are, or leave them out", quoted(x.Name), quoted(p.template))
	}
	return nil
}

// given reports whether the gateway gives a variable of that name its value.
func given(name string) bool {
	_, measured := guarantee.KPIs()[name]
	return measured || slices.Contains(ownTimes, name)
}

// ownTimes are the variables that are times of an offer.
var ownTimes = []string{"startBy", "finishBy", "windowStart", "windowEnd"}

// alikeVariables compares what two variables say. A prefix that a client's toolkit has lost the
// declaration of says nothing else.
func alikeVariables(a, b agreement.Variable) bool {
	for prefix, space := range a.Scope {
		if other := b.Scope[prefix]; other != "" && other != space {
			return false
		}
	}
	return a.Name == b.Name && xmldoc.Collapse(a.Metric) == xmldoc.Collapse(b.Metric) && xmldoc.Collapse(a.Location) == xmldoc.Collapse(b.Location) &&
		(a.MetricSpace == b.MetricSpace || a.MetricSpace == "" || b.MetricSpace == "")
}

// maxAlternatives of a template are looked at.
const maxAlternatives = 64

// bare gives a guarantee as an element, without what its taker may say of it.
func bare(g *agreement.Guarantee) *etree.Element {
	c := *g
	c.Values.Importance, c.Values.Preferences = nil, nil
	o := agreement.Offer{Agreement: agreement.Agreement{Terms: &agreement.Compositor{Kind: agreement.All, Terms: []agreement.Term{&c}}}}
	e := o.Encode()
	for _, x := range e.ChildElements() {
		if x.Tag == "Terms" {
			return x
		}
	}
	return e
}

// alike compares what two elements say: names, attributes and text, not prefixes.
func alike(a, b *etree.Element) bool {
	if xmldoc.NameOf(a) != xmldoc.NameOf(b) || !slices.Equal(attributes(a), attributes(b)) {
		return false
	}
	x, y := a.ChildElements(), b.ChildElements()
	return (len(x) > 0 || xmldoc.Collapse(xmldoc.Text(a)) == xmldoc.Collapse(xmldoc.Text(b))) && slices.EqualFunc(x, y, alike)
}

func attributes(e *etree.Element) []string {
	var list []string
	for _, a := range e.Attr {
		switch {
		case a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns":
			continue
		case a.Space == "":
			list = append(list, a.Key+"\x00"+a.Value)
		default:
			n, err := xmldoc.ResolveQName(e, a.Space+":"+a.Key)
			if err != nil {
				n.Local = a.FullKey()
			}
			list = append(list, n.String()+"\x00"+a.Value)
		}
	}
	slices.Sort(list)
	return list
}

// listed puts words into a sentence.
func listed(words []string) string {
	switch n := len(words); n {
	case 0:
		return "none"
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}

// comparePlaces orders places.
func comparePlaces(a, b Place) int {
	return cmp.Or(strings.Compare(a.Site, b.Site), strings.Compare(a.Share, b.Share))
}
