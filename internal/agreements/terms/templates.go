package terms

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/guarantee"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// nsXS is where the facets of constraints are.
const nsXS = "http://www.w3.org/2001/XMLSchema"

// The names of the terms in the templates that are made here.
const (
	service      = "run" // wsag:ServiceName
	termJob      = "job"
	termPlace    = "place"
	termWindow   = "window"
	termStartBy  = "startBy"
	termFinishBy = "finishBy"
	termPrice    = "price"
	termCapacity = "capacity"
	termValues   = "values"
)

// example is how long the window of a template is, and the job in it may run.
const example = time.Hour

// Templates makes the templates that a subject may offer by: of each kind one for any of our
// sites, named as the kind is, and one for each share, named kind@site/share. Their limits
// are those of today; a share without room to promise has those of best effort only.
func Templates(m *resourcemodel.Snapshot, who resourcemodel.Subject, now time.Time, s Settings) []agreement.Template {
	return TemplatesFor(m, []resourcemodel.Subject{who}, now, s)
}

// TemplatesFor is Templates for one who may act as each of those, as for several VOs.
func TemplatesFor(m *resourcemodel.Snapshot, as []resourcemodel.Subject, now time.Time, s Settings) []agreement.Template {
	s.EnsureDefaults()
	var places []offered
	for site := range m.SitesOf("") {
		w := worth(site, &s)
		for i := range w.shares {
			h := &w.shares[i]
			if !h.open || !allowed(site, h.share, as) || unnameable(site.Site, h.share.ID) {
				continue
			}
			places = append(places, h.offered(site.Site))
		}
	}
	var list []agreement.Template
	add := func(k Kind, o offered) {
		if s.offers(k) && len(list) < s.MaxTemplates && o.can(k) {
			list = append(list, makeTemplate(k, o, now, &s))
		}
	}
	if len(places) > 1 {
		for _, k := range Kinds() {
			add(k, together(places, k))
		}
	}
	for _, o := range places {
		for _, k := range Kinds() {
			add(k, o)
		}
	}
	return list
}

// allowed reports whether a share may be used as one of the subjects.
func allowed(site *resourcemodel.Site, h *resourcemodel.Share, as []resourcemodel.Subject) bool {
	return slices.ContainsFunc(as, func(who resourcemodel.Subject) bool {
		return site.Static.Policy.Allows(who) && h.Policy.Allows(who)
	})
}

// VOs gives the VOs that our sites and their shares are open to by name, sorted.
func VOs(m *resourcemodel.Snapshot) []string {
	var all []string
	add := func(p resourcemodel.Policy) {
		for _, rule := range p.Allow {
			if vo, ok := strings.CutPrefix(rule, "vo:"); ok && vo != "" {
				all = append(all, vo)
			}
		}
	}
	for site := range m.SitesOf("") {
		add(site.Static.Policy)
		for i := range site.Static.Shares {
			add(site.Static.Shares[i].Policy)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Usable reports whether a template of an administrator can be of use to one who may act as each of
// those: not where in all of its alternatives something is at a place that they may not use, and that no
// creation constraint lets an offer change.
func Usable(t *agreement.Template, m *resourcemodel.Snapshot, as []resourcemodel.Subject) bool {
	for i := range t.Constraints.Items {
		if at := t.Constraints.Items[i].Location; strings.Contains(at, "Place") || strings.Contains(at, "Capacity") || strings.Contains(at, "Site") {
			return true
		}
	}
	alternatives, _ := agreement.Choose(t.Terms, nil, maxAlternatives)
	for _, alt := range alternatives {
		x := t.Agreement
		x.Terms = alt.Terms
		q, err := read(&x)
		if err != nil || !slices.ContainsFunc(q.Services, func(v Service) bool { return v.barred(m, as) }) {
			return true
		}
	}
	return len(alternatives) == 0
}

// barred reports whether a service is to be at a place of ours that none of the subjects may use.
func (v *Service) barred(m *resourcemodel.Snapshot, as []resourcemodel.Subject) bool {
	if v.Place.Site == "" {
		return false
	}
	for site := range m.SitesOf("") {
		if site.Site != v.Place.Site {
			continue
		}
		for i := range site.Static.Shares {
			h := &site.Static.Shares[i]
			if (v.Place.Share == "" || v.Place.Share == h.ID) && allowed(site, h, as) {
				return false
			}
		}
		return true
	}
	return false // it may come, and is nobody's secret
}

// unnameable: what our own vocabulary or a template's name can't say is not offered.
func unnameable(site, share string) bool {
	for _, name := range []string{site, share} {
		if name == "" || len(name) > maxWord || xmldoc.Collapse(name) != name {
			return true
		}
	}
	return len(string(AdvanceReservation)+"@"+escaped(site)+"/"+escaped(share)) > engine.MaxName
}

// offered is what a template may let.
type offered struct {
	places []Place // it is for; one, or the choice
	any    bool
	cpus   int64           // the most of one job that is promised
	effort int64           // the most of one job for which nothing is promised; 0 is not known
	amount calendar.Amount // the most of a capacity
	wall   time.Duration   // that one job may run; 0 is no limit
	least  time.Duration   // that one may run at each of the places; 0 is no limit
	price  float64         // the least that has to be paid at one of the places
}

func (h *shareWorth) offered(site string) offered {
	o := offered{places: []Place{{site, h.share.ID}}, amount: h.most(), wall: h.share.MaxWallTime, least: h.share.MaxWallTime, price: price(h.share)}
	o.cpus, o.effort = o.amount.CPUs, h.all
	if n := int64(h.share.MaxCPUs); n > 0 {
		o.cpus, o.effort = min(o.cpus, n), min(max(o.effort, 1), n)
	}
	return o
}

// price gives that of a CPU-hour as documents can say it: in thousandths, rounded up.
func price(h *resourcemodel.Share) float64 {
	if !(h.Price > 0) {
		return 0
	}
	return min(math.Ceil(h.Price*1000-1e-9)/1000, maxPrice)
}

func (o *offered) can(k Kind) bool { return len(o.places) > 0 && (k == BestEffort || o.cpus > 0) }

// together is a choice of those places that can do a kind: the widest limit of each.
func together(places []offered, k Kind) offered {
	all := offered{any: true, price: math.Inf(1)}
	boundless, endless := false, false
	for _, o := range places {
		if !o.can(k) {
			continue
		}
		all.places = append(all.places, o.places...)
		all.cpus, all.effort = max(all.cpus, o.cpus), max(all.effort, o.effort)
		all.amount = calendar.Amount{Slots: max(all.amount.Slots, o.amount.Slots), CPUs: max(all.amount.CPUs, o.amount.CPUs), Nodes: max(all.amount.Nodes, o.amount.Nodes)}
		all.wall, all.price = max(all.wall, o.wall), min(all.price, o.price)
		if o.least > 0 && (all.least == 0 || o.least < all.least) {
			all.least = o.least
		}
		boundless, endless = boundless || o.effort == 0, endless || o.wall == 0
	}
	if boundless {
		all.effort = 0
	}
	if endless {
		all.wall = 0
	}
	return all
}

// limits are what a template's id says, so that it can be told later whether they grew.
type limits struct {
	most    []int64 // the more, the wider
	price   int64   // in thousandths: the less, the wider
	nothing string  // what must be the same
}

// window gives the longest that a template lets.
func (o *offered) window(s *Settings) time.Duration {
	if o.wall > 0 {
		return min(s.MaxWindow, o.wall)
	}
	return s.MaxWindow
}

// builder makes one template.
type builder struct {
	agreement.Template
	kind Kind
	o    offered
	s    *Settings
	now  time.Time
}

func makeTemplate(k Kind, o offered, now time.Time, s *Settings) agreement.Template {
	b := builder{kind: k, o: o, s: s, now: now}
	b.Name = string(k)
	if !o.any {
		b.Name += "@" + escaped(o.places[0].Site) + "/" + escaped(o.places[0].Share)
	}
	b.Terms = &agreement.Compositor{Kind: agreement.All}
	b.describe()
	b.place()
	b.times()
	b.price()
	b.TemplateID = b.identity()
	b.Context = agreement.Context{ServiceProvider: agreement.Responder, TemplateID: b.TemplateID, TemplateName: b.Name}
	return b.Template
}

func (b *builder) term(name string, e *etree.Element) {
	b.Terms.Terms = append(b.Terms.Terms, &agreement.ServiceDescription{Name: name, ServiceName: service, Description: e})
}

// scope binds the prefixes of locations.
var scope = map[string]string{"wsag": agreement.NS, "p": agreement.NSPortolan, "jsdl": jsdl.NS}

const allTerms = "/wsag:AgreementOffer/wsag:Terms/wsag:All/"

// of gives the location of what is in a service description term.
func of(term, path string) string {
	return allTerms + "wsag:ServiceDescriptionTerm[@wsag:Name='" + term + "']/" + path
}

type facet struct{ name, value string }

// item adds a creation constraint; without facets, what is there may be anything.
func (b *builder) item(name, location string, facets ...facet) {
	c := agreement.NewElement("ItemConstraint")
	if len(facets) > 0 {
		c.CreateAttr("xmlns:xs", nsXS)
	}
	for _, f := range facets {
		c.CreateElement("xs:"+f.name).CreateAttr("value", f.value)
	}
	used := map[string]string{}
	for prefix, uri := range scope {
		if strings.Contains(location, prefix+":") {
			used[prefix] = uri
		}
	}
	b.Constraints.Items = append(b.Constraints.Items, agreement.Item{Name: name, Location: location, Scope: used, Constraint: c})
}

func from(s string) facet      { return facet{"minInclusive", s} }
func upTo(s string) facet      { return facet{"maxInclusive", s} }
func whole(n int64) string     { return strconv.FormatInt(n, 10) }
func oneOf(s string) facet     { return facet{"enumeration", s} }
func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// describe adds the job, or the capacity.
func (b *builder) describe() {
	if b.kind == Capacity {
		b.capacity()
		return
	}
	e := etree.NewElement("jsdl:JobDefinition")
	e.CreateAttr("xmlns:jsdl", jsdl.NS)
	app := e.CreateElement("jsdl:JobDescription").CreateElement("jsdl:Application").CreateElement("jsdl-posix:POSIXApplication")
	app.CreateAttr("xmlns:jsdl-posix", jsdl.NSPOSIX)
	app.CreateElement("jsdl-posix:Executable").SetText("/bin/true")
	app.CreateElement("jsdl-posix:WallTimeLimit").SetText(whole(int64(b.length() / time.Second)))
	b.term(termJob, e)
	b.item("job", of(termJob, "*"))
	most := b.o.cpus
	if b.kind == BestEffort {
		most = b.o.effort
	}
	if most > 0 {
		b.item("cpus", of(termJob, "/jsdl:TotalCPUCount/jsdl:Exact"), from("1"), upTo(whole(most)))
		b.item("leastCPUs", of(termJob, "/jsdl:TotalCPUCount/jsdl:LowerBoundedRange"), upTo(whole(most)))
	}
}

// length is how long the example of a template is.
func (b *builder) length() time.Duration {
	d := min(example, b.s.Horizon/8, b.o.window(b.s))
	if b.o.least > 0 {
		d = min(d, b.o.least)
	}
	return max(time.Second, d.Truncate(time.Second))
}

// earliest gives the first time for which something is promised: to the minute, so that a
// template does not change with each second.
func (b *builder) earliest() time.Time { return b.now.Add(b.s.Notice).UTC().Truncate(time.Minute) }

func (b *builder) horizon() time.Time { return b.now.Add(b.s.Horizon).UTC().Truncate(time.Minute) }

// begin is when the example begins: far enough ahead for somebody to take it.
func (b *builder) begin() time.Time {
	return b.earliest().Add(min(time.Hour, b.s.Horizon/8)).Truncate(time.Minute)
}

func (b *builder) capacity() {
	x := Booking{Window: Window{b.begin(), b.begin().Add(b.length())}, Amount: calendar.Amount{CPUs: 1}}
	if !b.o.any {
		x.Place = b.o.places[0]
	}
	b.term(termCapacity, x.Element())
	in := func(local string) string { return of(termCapacity, "p:Capacity/p:"+local) }
	b.item("cpus", in("CPUs"), from("1"), upTo(whole(b.o.amount.CPUs)))
	b.item("start", in("StartTime"), from(moment(b.earliest())), upTo(moment(b.horizon())))
	b.item("end", in("EndTime"), from(moment(b.earliest())), upTo(moment(b.horizon())))
	b.guarantee("available", guarantee.Availability, numberAtLeast(b.s.Availability))
}

// place says where; an offer by the template for any site may choose one.
func (b *builder) place() {
	at := func(local string) string {
		if b.kind == Capacity {
			return of(termCapacity, "p:Capacity/p:"+local)
		}
		return allTerms + "wsag:ServiceDescriptionTerm/p:Place/p:" + local
	}
	if !b.o.any && b.kind != Capacity {
		b.term(termPlace, b.o.places[0].Element())
	}
	var sites, shares []string
	for _, p := range b.o.places {
		sites, shares = append(sites, p.Site), append(shares, p.Share)
	}
	names := func(list []string) (f []facet) {
		slices.Sort(list)
		list = slices.Compact(list)
		if len(list) > maxChoice {
			return nil
		}
		for _, s := range list {
			f = append(f, oneOf(s))
		}
		return f
	}
	b.item("site", at("Site"), names(sites)...)
	b.item("share", at("Share"), names(shares)...)
}

func (b *builder) times() {
	start, most := from(moment(b.earliest())), upTo(moment(b.horizon()))
	switch b.kind {
	case BestEffort, Capacity:
	case StartBy:
		b.term(termStartBy, StartByElement(b.begin()))
		b.item("startBy", of(termStartBy, "p:StartBy"), start, most)
		b.values(variable{"startBy", of(termStartBy, "p:StartBy")})
		b.guarantee("start", guarantee.StartTime, compare(guarantee.StartTime, "startBy", 0))
	case FinishBy:
		b.term(termFinishBy, FinishByElement(b.begin().Add(2*b.length())))
		b.item("finishBy", of(termFinishBy, "p:FinishBy"), start, most)
		b.values(variable{"finishBy", of(termFinishBy, "p:FinishBy")})
		b.guarantee("finish", guarantee.FinishTime, compare(guarantee.FinishTime, "finishBy", 0))
	case AdvanceReservation:
		b.term(termWindow, Window{b.begin(), b.begin().Add(b.length())}.Element())
		b.item("start", of(termWindow, "p:Window/p:StartTime"), start, most)
		b.item("end", of(termWindow, "p:Window/p:EndTime"), start, most)
		b.values(variable{"windowStart", of(termWindow, "p:Window/p:StartTime")}, variable{"windowEnd", of(termWindow, "p:Window/p:EndTime")})
		b.guarantee("start", guarantee.StartTime, compare(guarantee.StartTime, "windowStart", b.s.Grace))
	}
}

// maxChoice is how many sites or shares a constraint names; of more it names none.
const maxChoice = 200

type variable struct{ name, location string }

// values declares the offer's own times, for guarantees to name.
func (b *builder) values(list ...variable) {
	p := &agreement.ServiceProperties{Name: termValues, ServiceName: service}
	for _, v := range list {
		p.Variables = append(p.Variables, agreement.Variable{
			Name: v.name, Metric: "xs:dateTime", MetricSpace: nsXS, Location: v.location,
			Scope: map[string]string{"wsag": agreement.NS, "p": agreement.NSPortolan},
		})
	}
	b.Terms.Terms = append(b.Terms.Terms, p)
}

// compare says that what is measured is no later than a time of the offer, or little.
func compare(measured, constant string, grace time.Duration) *etree.Element {
	x := ours("LessOrEqual")
	x.CreateElement("p:Variable").CreateAttr("name", measured)
	to := x
	if grace > 0 {
		to = x.CreateElement("p:Add")
	}
	to.CreateElement("p:Variable").CreateAttr("name", constant)
	if grace > 0 {
		v := to.CreateElement("p:Value")
		v.CreateAttr("type", "duration")
		v.SetText(iso(grace))
	}
	return x
}

func numberAtLeast(f float64) *etree.Element { return textual("atLeast", decimal(f)) }

// iso writes a duration of whole seconds.
func iso(d time.Duration) string { return "PT" + whole(int64(d/time.Second)) + "S" }

func (b *builder) guarantee(name, kpi string, level *etree.Element) {
	holder := agreement.NewElement("CustomServiceLevel")
	holder.AddChild(level)
	g := &agreement.Guarantee{
		Name: name, Obligated: agreement.ServiceProvider, Scopes: []agreement.Scope{{ServiceName: service}}, KPIName: kpi, Level: holder,
	}
	if b.s.Penalty > 0 {
		v := agreement.NewElement("ValueExpression")
		v.SetText(decimal(float64(b.s.Penalty) / 1000))
		g.Values.Penalties = []agreement.Compensation{{Count: 1, Unit: b.s.Unit, Expression: v}}
	}
	b.Terms.Terms = append(b.Terms.Terms, g)
}

func (b *builder) price() {
	if b.o.price <= 0 {
		return
	}
	b.term(termPrice, Price{b.o.price, b.s.Unit}.Element())
	b.item("price", of(termPrice, "p:Price"), from(decimal(b.o.price)))
	b.item("unit", of(termPrice, "p:Price/@unit"), oneOf(b.s.Unit))
}

// identity names the version of a template: its limits, and a digest of all else but the
// hours of the day. So an id tells by itself whether today's limits are as wide.
func (b *builder) identity() string {
	l := limits{
		most:    []int64{b.o.cpus, b.o.amount.CPUs, b.o.amount.Slots, b.o.amount.Nodes, int64(b.s.Horizon / time.Second), int64(b.o.window(b.s) / time.Second), unlimited(b.o.effort)},
		price:   int64(math.Round(b.o.price * 1000)),
		nothing: strings.Join([]string{string(b.kind), b.s.Notice.String(), b.s.Grace.String(), whole(b.s.Penalty), decimal(b.s.Availability), b.s.Unit}, "\x00"),
	}
	return l.String()
}

func unlimited(n int64) int64 {
	if n == 0 {
		return calendar.MaxAmount
	}
	return n
}

// String gives the id: "c8-8-8-0-…p250-1f2e3d4c5b6a".
func (l limits) String() string {
	sum := sha256.Sum256([]byte(l.nothing))
	var most []string
	for _, n := range l.most {
		most = append(most, strconv.FormatInt(n, 36))
	}
	return fmt.Sprintf("%s.%s.%s", strings.Join(most, "-"), strconv.FormatInt(l.price, 36), hex.EncodeToString(sum[:6]))
}

// parseLimits reads an id: nothing is its digest then.
func parseLimits(id string) (l limits, ok bool) {
	parts := strings.Split(id, ".")
	if len(id) > 200 || len(parts) != 3 {
		return l, false
	}
	for s := range strings.SplitSeq(parts[0], "-") {
		n, err := strconv.ParseInt(s, 36, 64)
		if err != nil || n < 0 {
			return l, false
		}
		l.most = append(l.most, n)
	}
	var err error
	l.price, err = strconv.ParseInt(parts[1], 36, 64)
	l.nothing = parts[2]
	return l, err == nil && l.price >= 0
}

// covers says that whatever the older limits let, the newer ones do.
func covers(newer, older string) bool {
	n, ok := parseLimits(newer)
	o, was := parseLimits(older)
	if !ok || !was || len(n.most) != len(o.most) || n.nothing != o.nothing || n.price > o.price {
		return false
	}
	for i := range n.most {
		if n.most[i] < o.most[i] {
			return false
		}
	}
	return true
}

// Current finds the template that an offer was made by among today's. One whose limits
// have only grown since is still good: the offer is held against today's then. Else the
// refusal, NoSuchTemplate, says what to do.
func Current(list []agreement.Template, name, id string) (*agreement.Template, error) {
	refuse := func(format string, args ...any) (*agreement.Template, error) {
		return nil, agreement.Refuse(agreement.NoSuchTemplate, fmt.Sprintf(format, args...))
	}
	if name == "" {
		return refuse("the offer names no template: put the name and the id of one of the gateway's templates into its Context, as TemplateName and TemplateId")
	}
	var found *agreement.Template
	for i := range list {
		t := &list[i]
		if t.Name != name {
			continue
		}
		if t.TemplateID == id || found == nil && covers(t.TemplateID, id) {
			found = t
		}
		if t.TemplateID == id {
			break
		}
	}
	switch {
	case found != nil:
		return found, nil
	case slices.ContainsFunc(list, func(t agreement.Template) bool { return t.Name == name }):
		if id == "" {
			return refuse("the offer says no TemplateId of the template %s: take it from the template as it is now", quoted(name))
		}
		return refuse("the template %s is not what it was: its limits have changed since %s; get the template anew and make the offer from that", quoted(name), quoted(id))
	}
	return refuse("there is no template %s; there are %s", quoted(name), some(list))
}

// some names a few templates.
func some(list []agreement.Template) string {
	names := map[string]bool{}
	for i := range list {
		names[list[i].Name] = true
	}
	const most = 12
	sorted := slices.Sorted(maps.Keys(names))
	if len(sorted) > most {
		return strings.Join(sorted[:most], ", ") + " and more"
	}
	return listed(sorted)
}
