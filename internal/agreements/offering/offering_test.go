package offering

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// noon is the first moment of every test.
var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// settings make guarantees cost something.
var settings = terms.Settings{Penalty: 5000, Unit: "credit"}

// world gives today's templates of sites with one share each, of 80 CPUs.
func world(t testing.TB, sites ...string) []agreement.Template {
	t.Helper()
	d := resourcemodel.Delta{Revision: 1, At: noon}
	for _, name := range sites {
		stamp := resourcemodel.Stamp{Version: 1, Changed: noon, Source: "a test"}
		d.Changes = append(d.Changes, resourcemodel.Change{
			Key: resourcemodel.Key{Site: name},
			Static: &resourcemodel.Static{
				Stamp: stamp, Type: "slurm", Shares: []resourcemodel.Share{{ID: "batch", Default: true, Environments: []string{"n"}, Slots: 80}},
				Environments: []resourcemodel.Environment{{ID: "n", CPUs: 8, Memory: 32 << 30}},
			},
			Dynamic: &resourcemodel.Dynamic{
				Stamp: stamp, Up: true, Shares: map[string]resourcemodel.ShareState{"batch": {Open: true, FreeSlots: 80}},
				Environments: map[string]resourcemodel.EnvironmentState{"n": {Nodes: 10, Available: 10, FreeNodes: 10, FreeCPUs: 80}},
			},
		})
	}
	m, err := resourcemodel.Empty().Apply(d)
	if err != nil {
		t.Fatal(err)
	}
	return terms.Templates(m, resourcemodel.Subject{User: "ann", VO: "bio"}, noon, settings)
}

func templateNamed(t testing.TB, list []agreement.Template, name string) *agreement.Template {
	t.Helper()
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	t.Fatalf("there is no template %s", name)
	return nil
}

// job writes a JSDL document; limit 0 is without one.
func job(name string, limit int) []byte {
	wall := ""
	if limit > 0 {
		wall = fmt.Sprintf("<x:WallTimeLimit>%d</x:WallTimeLimit>", limit)
	}
	return fmt.Appendf(nil, `<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:JobIdentification><j:JobName>%s</j:JobName></j:JobIdentification>`+
		`<j:Application><x:POSIXApplication xmlns:x="%s"><x:Executable>/bin/true</x:Executable>%s</x:POSIXApplication></j:Application></j:JobDescription></j:JobDefinition>`,
		jsdl.NS, name, jsdl.NSPOSIX, wall)
}

// accepted makes sure that the gateway would take an offer, and gives what it reads in it.
func accepted(t testing.TB, tpl *agreement.Template, o *agreement.Offer) *terms.Request {
	t.Helper()
	// As it comes over the wire.
	back, err := agreement.ParseOffer(xmldoc.Marshal(o.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	c, err := tpl.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if broken := c.CheckStrictly(back); len(broken) > 0 {
		t.Fatalf("%+v\n%s", broken, xmldoc.Marshal(o.Encode()))
	}
	if err := terms.Adheres(tpl, &back.Agreement); err != nil {
		t.Fatal(err)
	}
	q, err := terms.Read(&back.Agreement, noon, settings)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestAWishBecomesAnOfferThatIsTaken(t *testing.T) {
	list := world(t, "slurm", "condor")
	friday := time.Date(2026, 12, 4, 23, 0, 0, 0, time.UTC)
	for name, x := range map[string]struct {
		wish     Wish
		template string
		holds    func(*terms.Service) bool
	}{
		"finish by": {
			Wish{Kind: terms.FinishBy, By: friday, Job: job("a", 3600), Name: "mine"},
			"finish-by",
			func(s *terms.Service) bool { return s.FinishBy.Equal(friday) && s.Place.IsZero() },
		},
		"finish by, at a site": {
			Wish{Kind: terms.FinishBy, By: friday, Job: job("a", 3600), Site: "condor"},
			"finish-by@condor/batch",
			func(s *terms.Service) bool {
				return s.FinishBy.Equal(friday) && s.Place == terms.Place{Site: "condor", Share: "batch"}
			},
		},
		"start by": {
			Wish{Kind: terms.StartBy, By: friday, Job: job("a", 3600)},
			"start-by",
			func(s *terms.Service) bool { return s.StartBy.Equal(friday) },
		},
		"a reservation": {
			Wish{Kind: terms.AdvanceReservation, Window: terms.Window{Start: friday, End: friday.Add(2 * time.Hour)}, Job: job("a", 0)},
			"advance-reservation",
			func(s *terms.Service) bool { return s.Window.Length() == 2*time.Hour },
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Make(list, x.wish)
			if err != nil {
				t.Fatal(err)
			}
			if m.Template.Name != x.template || m.Unchecked != "" {
				t.Errorf("the template is %s, unchecked because %q", m.Template.Name, m.Unchecked)
			}
			q := accepted(t, m.Template, m.Offer)
			if s := &q.Services[0]; q.Kind != x.wish.Kind || len(q.Guarantees) != 1 || s.Job.Name() != "a" || !x.holds(s) {
				t.Errorf("%+v", q)
			}
			if x.wish.Name != "" && m.Offer.Name != x.wish.Name {
				t.Errorf("it is named %q", m.Offer.Name)
			}
		})
	}
}

// A gateway with one share has no template for any place.
func TestTheOnlyPlaceIsTaken(t *testing.T) {
	list := world(t, "slurm")
	w := Wish{Kind: terms.FinishBy, By: noon.Add(24 * time.Hour), Job: job("a", 3600)}
	for _, site := range []string{"", "slurm"} {
		w.Site = site
		m, err := Make(list, w)
		if err != nil || m.Template.Name != "finish-by@slurm/batch" {
			t.Fatalf("%+v, %v", m, err)
		}
		if q := accepted(t, m.Template, m.Offer); q.Services[0].Place.Site != "slurm" {
			t.Errorf("it is at %s", q.Services[0].Place)
		}
	}
}

func TestWishesThatCantBe(t *testing.T) {
	list := world(t, "slurm", "condor")
	w := Wish{Kind: terms.FinishBy, By: noon.Add(24 * time.Hour), Job: job("a", 3600)}
	for name, x := range map[string]struct {
		change func(*Wish)
		list   []agreement.Template
		kind   fail.Kind
		says   string
	}{
		"no such site":      {func(w *Wish) { w.Site = "mars" }, list, fail.Invalid, `"mars" is not allowed`},
		"no such template":  {func(*Wish) {}, []agreement.Template{*templateNamed(t, list, "start-by")}, fail.NotFound, "no template that promises finish-by"},
		"none at that site": {func(w *Wish) { w.Site = "mars" }, world(t, "slurm"), fail.NotFound, `at the site "mars"`},
		"far too late":      {func(w *Wish) { w.By = noon.AddDate(5, 0, 0) }, list, fail.Invalid, "finishBy"},
		"too soon":          {func(w *Wish) { w.By = noon.Add(-time.Hour) }, list, fail.Invalid, "finishBy"},
		"no limit":          {func(w *Wish) { w.Job = job("a", 0) }, list, fail.Invalid, "can't be promised to finish by: give it a WallTimeLimit"},
		"no JSDL":           {func(w *Wish) { w.Job = []byte("hello") }, list, fail.Invalid, "the job can't be read"},
		"another document":  {func(w *Wish) { w.Job = []byte("<a/>") }, list, fail.Invalid, "no jsdl:JobDefinition"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w
			x.change(&w)
			m, err := Make(x.list, w)
			if err == nil || !fail.Is(err, x.kind) || !strings.Contains(fail.Sentence(err), x.says) {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

func TestTemplatesAreFilledByTheNamesOfTheirItems(t *testing.T) {
	list := world(t, "slurm", "condor")
	start, end := noon.Add(24*time.Hour), noon.Add(26*time.Hour)
	iso := func(t time.Time) string { return t.Format(time.RFC3339) }
	t.Run("capacity", func(t *testing.T) {
		tpl := templateNamed(t, list, "capacity")
		o, err := Fill(tpl, Filling{Values: []Value{{"share", "batch"}, {"CPUs", "32"}, {"start", iso(start)}, {"end", iso(end)}, {"site", "slurm"}}})
		if err != nil {
			t.Fatal(err)
		}
		b := accepted(t, tpl, o).Services[0].Capacity
		if b == nil || b.Amount.CPUs != 32 || b.Place != (terms.Place{Site: "slurm", Share: "batch"}) || !b.Window.Start.Equal(start) || !b.Window.End.Equal(end) {
			t.Errorf("%+v", b)
		}
	})
	t.Run("where", func(t *testing.T) {
		tpl := templateNamed(t, list, "finish-by")
		o, err := Fill(tpl, Filling{Jobs: [][]byte{job("a", 60)}, Values: []Value{{"site", "slurm"}}})
		if err != nil {
			t.Fatal(err)
		}
		if broken, unchecked := Check(tpl, o); len(broken) > 0 || unchecked != "" {
			t.Errorf("%q, %q", broken, unchecked)
		}
		if q, err := terms.Preferred(&o.Agreement); err != nil || q.Services[0].Place != (terms.Place{Site: "slurm"}) {
			t.Errorf("%+v, %v", q, err)
		}
	})
	t.Run("CPUs of a job", func(t *testing.T) {
		tpl := templateNamed(t, list, "finish-by")
		o, err := Fill(tpl, Filling{Jobs: [][]byte{job("a", 60)}, Values: []Value{{"cpus", "16"}, {"finishBy", iso(end)}}})
		if err != nil {
			t.Fatal(err)
		}
		if s := accepted(t, tpl, o).Services[0]; s.Need.CPUs != 16 || !s.FinishBy.Equal(end) {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a bare JobDescription", func(t *testing.T) {
		tpl := templateNamed(t, list, "best-effort")
		doc, err := xmldoc.ReadBytes(job("a", 60), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		bare := xmldoc.Marshal(xmldoc.Detach(xmldoc.Child(doc.Root(), jsdl.NS, "JobDescription")))
		o, err := Fill(tpl, Filling{Jobs: [][]byte{bare}, Values: []Value{{"cpus", "4"}}})
		if err != nil {
			t.Fatal(err)
		}
		if s := accepted(t, tpl, o).Services[0]; s.Need.CPUs != 4 || s.Job.Name() != "a" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("times as people write them", func(t *testing.T) {
		o, err := Fill(templateNamed(t, list, "finish-by"), Filling{
			Jobs: [][]byte{job("a", 60)}, Values: []Value{{"finishBy", "FRIDAY"}},
			Moment: func(s string) (time.Time, error) {
				if s != "FRIDAY" {
					t.Errorf("asked for %q", s)
				}
				return end.In(time.FixedZone("X", 3600)), nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := xmldoc.Text(o.Term("finishBy").(*agreement.ServiceDescription).Description); got != iso(end) {
			t.Errorf("it is %s", got)
		}
	})
	// The template is as it was, whatever was made of it.
	for i, tpl := range world(t, "slurm", "condor") {
		if a, b := xmldoc.Marshal(tpl.Encode()), xmldoc.Marshal(list[i].Encode()); string(a) != string(b) {
			t.Errorf("the template %s has changed", tpl.Name)
		}
	}
}

func TestWhatCantBeFilledIn(t *testing.T) {
	list := world(t, "slurm", "condor")
	finish, capacity := templateNamed(t, list, "finish-by"), templateNamed(t, list, "capacity")
	one := [][]byte{job("a", 60)}
	for name, x := range map[string]struct {
		template *agreement.Template
		f        Filling
		says     string
	}{
		"no job":              {finish, Filling{}, "is for a job: name its JSDL document"},
		"two jobs":            {finish, Filling{Jobs: [][]byte{one[0], one[0]}}, "has 1 services with a job each, and 2 JSDL documents are given"},
		"a job for none":      {capacity, Filling{Jobs: one}, "has no job in it"},
		"no such item":        {finish, Filling{Jobs: one, Values: []Value{{"finishby?", "x"}}}, "it has job, cpus"},
		"a number of a named": {finish, Filling{Jobs: one, Values: []Value{{"1", "x"}}}, `has no item "1"`},
		"no value":            {finish, Filling{Jobs: one, Values: []Value{{"job", "x"}}}, "is no single value"},
		"nothing there":       {finish, Filling{Jobs: one, Values: []Value{{"leastCPUs", "1"}}}, `nothing where "leastCPUs" would be`},
		"no time":             {finish, Filling{Jobs: one, Values: []Value{{"finishBy", "soon"}}}, "finishBy: "},
		"no number":           {finish, Filling{Jobs: one, Values: []Value{{"cpus", "many"}}}, "is no number"},
		"another place":       {templateNamed(t, list, "finish-by@slurm/batch"), Filling{Jobs: one, Values: []Value{{"cpus", "x"}}}, "is no number"},
		"too many":            {finish, Filling{Jobs: one, Values: make([]Value, MaxValues+1)}, "at most 1000 are taken"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := Fill(x.template, x.f)
			if err == nil || !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), x.says) {
				t.Errorf("%+v, %v", o, err)
			}
		})
	}
}

// What was filled in against the limits is filled in, and Check says what is wrong.
func TestCheckTellsWhatIsWrong(t *testing.T) {
	list := world(t, "slurm", "condor")
	tpl := templateNamed(t, list, "capacity")
	o, err := Fill(tpl, Filling{Values: []Value{{"cpus", "100000"}, {"site", "mars"}}})
	if err != nil {
		t.Fatal(err)
	}
	broken, unchecked := Check(tpl, o)
	if unchecked != "" || len(broken) != 2 || !strings.Contains(broken[0]+broken[1], `"100000"`) || !strings.Contains(broken[0]+broken[1], `"mars"`) {
		t.Errorf("%q, %q", broken, unchecked)
	}
	if err := Broken(tpl, broken); !strings.Contains(err.Error(), `the template "capacity" demands`) {
		t.Error(err)
	}
	strange := *tpl
	strange.Element = nil
	strange.Constraints.Items = []agreement.Item{{Name: "x", Location: "count(//a)"}}
	if broken, unchecked := Check(&strange, o); len(broken) > 0 || unchecked == "" {
		t.Errorf("%q, %q", broken, unchecked)
	}
}

// parse reads a template of another make, with items and jobs as given.
func parse(t testing.TB, inner, items string) *agreement.Template {
	t.Helper()
	tpl, err := agreement.ParseTemplate([]byte(`<w:Template xmlns:w="` + agreement.NS + `" w:TemplateId="1"><w:Name>t</w:Name>
 <w:Context><w:ServiceProvider>AgreementResponder</w:ServiceProvider></w:Context><w:Terms><w:All>` + inner + `</w:All></w:Terms>
 <w:CreationConstraints xmlns:xs="http://www.w3.org/2001/XMLSchema">` + items + `</w:CreationConstraints></w:Template>`))
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

const (
	thing = `<w:ServiceDescriptionTerm w:Name="a" w:ServiceName="s"><x:Thing xmlns:x="urn:x" size="1"><x:Colour>red</x:Colour><x:Colour>blue</x:Colour></x:Thing></w:ServiceDescriptionTerm>`
	steps = `/w:Template/w:Terms/w:All/w:ServiceDescriptionTerm/x:Thing`
)

func item(name, location, facets string) string {
	if name != "" {
		name = ` w:Name="` + name + `"`
	}
	return `<w:Item` + name + `><w:Location xmlns:x="urn:x">` + location + `</w:Location><w:ItemConstraint>` + facets + `</w:ItemConstraint></w:Item>`
}

func TestAttributesAndUnnamedItems(t *testing.T) {
	tpl := parse(t, thing, item("size", steps+"/@size", `<xs:maxInclusive value="9"/>`)+item("", steps+"/x:Colour", `<xs:enumeration value="red"/><xs:enumeration value="green"/>`))
	o, err := Fill(tpl, Filling{Values: []Value{{"size", "7"}, {"2", "green"}}, Name: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	e := o.Term("a").(*agreement.ServiceDescription).Description
	if e.SelectAttrValue("size", "") != "7" || string(xmldoc.Marshal(e)) != `<x:Thing xmlns:x="urn:x" size="7"><x:Colour>green</x:Colour><x:Colour>green</x:Colour></x:Thing>` {
		t.Errorf("%s", xmldoc.Marshal(e))
	}
	if o.Name != "mine" || o.Context.TemplateName != "t" || o.Context.TemplateID != "1" || o.ID != "" {
		t.Errorf("%+v", o.Context)
	}
	if broken, unchecked := Check(tpl, o); len(broken) > 0 || unchecked != "" {
		t.Errorf("%q, %q", broken, unchecked)
	}
}

func TestEachServiceHasItsJob(t *testing.T) {
	j := func(service, name string) string {
		return `<w:ServiceDescriptionTerm w:Name="` + name + `" w:ServiceName="` + service + `">` + string(job("old", 60)) + `</w:ServiceDescriptionTerm>`
	}
	tpl := parse(t, `<w:ExactlyOne>`+j("s", "a")+j("s", "b")+`</w:ExactlyOne>`+j("r", "c"), "")
	o, err := Fill(tpl, Filling{Jobs: [][]byte{job("one", 60), job("two", 60)}})
	if err != nil {
		t.Fatal(err)
	}
	for term, want := range map[string]string{"a": "one", "b": "one", "c": "two"} {
		if e := o.Term(term).(*agreement.ServiceDescription).Description; !strings.Contains(string(xmldoc.Marshal(e)), want) {
			t.Errorf("%s: %s", term, xmldoc.Marshal(e))
		}
	}
	// A job that no item lets anybody change stays where none is given.
	if _, err := Fill(tpl, Filling{}); err != nil {
		t.Error(err)
	}
}

func TestLimitsInWords(t *testing.T) {
	for facets, want := range map[string]string{
		``: "",
		`<xs:minInclusive value="1"/><xs:maxInclusive value="64"/>`:                                      "1 to 64",
		`<xs:minInclusive value="1"/>`:                                                                   "at least 1",
		`<xs:maxInclusive value="64"/>`:                                                                  "at most 64",
		`<xs:enumeration value="a"/>`:                                                                    "a",
		`<xs:enumeration value="a"/><xs:enumeration value="b"/><xs:enumeration value=""/>`:               `a, b or ""`,
		`<xs:minInclusive value="2026-11-27T12:00:00Z"/><xs:maxInclusive value="2026-12-27T12:00:00Z"/>`: "2026-11-27 13:00 to 2026-12-27 13:00",
		strings.Repeat(`<xs:enumeration value="a"/>`, 15):                                                "a, a, a, a, a, a, a, a, a, a, a, a or 3 others",
		`<xs:sequence minOccurs="0"/>`:                                                                   "an element with",
		`<xs:pattern value="[a-z]+"/>`:                                                                   "[a-z]+",
		`<xs:minExclusive value="1"/>`:                                                                   "1",
		`<xs:simpleType><xs:restriction base="xs:int"/></xs:simpleType><xs:maxInclusive value="64"/>`:    "64",
	} {
		tpl := parse(t, thing, item("i", steps, facets))
		got := Limits(tpl, time.FixedZone("CET", 3600))
		if len(got) != 1 || got[0].Item != "i" || !strings.Contains(got[0].Words, want) || want == "" && got[0].Words != "" {
			t.Errorf("%s: %+v", facets, got)
		}
	}
	tpl := parse(t, thing, item("", steps, "")+`<w:Constraint><p:Assert xmlns:p="`+agreement.NSPortolan+`" message="must be odd">true()</p:Assert></w:Constraint><w:Constraint><o:Other xmlns:o="urn:o"/></w:Constraint>`)
	if got := Limits(tpl, time.UTC); got[0].Item != "1" {
		t.Errorf("%+v", got)
	}
	if got := Conditions(tpl); !slices.Equal(got, []string{"must be odd", "a condition in a language that is not known here"}) {
		t.Errorf("%q", got)
	}
}

func ours(t testing.TB, local, inner string) *etree.Element {
	t.Helper()
	doc, err := xmldoc.ReadBytes([]byte(`<p:`+local+` xmlns:p="`+agreement.NSPortolan+`">`+inner+`</p:`+local+`>`), xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return doc.Root()
}

func TestAccount(t *testing.T) {
	tpl := templateNamed(t, world(t, "slurm"), "finish-by@slurm/batch")
	users := *tpl
	users.Terms = &agreement.Compositor{Kind: agreement.All, Terms: slices.Clone(tpl.Terms.Terms)}
	for i, term := range users.Terms.Terms {
		if g, ok := term.(*agreement.Guarantee); ok {
			c := *g
			c.Obligated, c.Values.Rewards = agreement.ServiceConsumer, c.Values.Penalties
			users.Terms.Terms[i] = &c
		}
	}
	for name, x := range map[string]struct {
		template *agreement.Template
		state    agreement.GuaranteeState
		entries  string // "" is no sub-state
		want     string
		total    string
	}{
		"by the terms":     {tpl, agreement.Violated, "", "[{penalty 5 credit true by the terms of finish}]", "[{ 5 credit true }]"},
		"of a user":        {&users, agreement.Violated, "", "[{penalty 5 credit false by the terms of finish}]", "[{ 5 credit false }]"},
		"for a user":       {&users, agreement.Fulfilled, "", "[{reward 5 credit true by the terms of finish}]", "[{ 5 credit true }]"},
		"kept":             {tpl, agreement.Fulfilled, "", "[]", "[]"},
		"open":             {tpl, agreement.NotDetermined, "", "[]", "[]"},
		"told nothing":     {tpl, agreement.Violated, `<p:Owner>ann</p:Owner>`, "[]", "[]"},
		"told":             {tpl, agreement.Violated, `<p:Entry kind="penalty" amount="-2.5" unit="credit">it  was late</p:Entry>`, "[{penalty 2.5 credit true it was late}]", "[{ 2.5 credit true }]"},
		"what is no money": {tpl, agreement.Violated, `<p:Entry kind="penalty" amount="x"/><p:Entry kind="price" amount="0"/><q:Entry xmlns:q="urn:q" kind="price" amount="1"/>`, "[]", "[]"},
		"several": {
			tpl, agreement.Violated, `<p:Entry kind="usage" amount="60" unit="cpu-second"/><p:Entry kind="price" amount="0.3" unit="credit"/><p:Entry kind="penalty" amount="-0.1" unit="credit"/><p:Entry kind="penalty" amount="-1" unit="EUR"/>`,
			"[{usage 60 cpu-second false } {price 0.3 credit false } {penalty 0.1 credit true } {penalty 1 EUR true }]", "[{ 0.2 credit false } { 1 EUR true }]",
		},
		"even": {tpl, agreement.Violated, `<p:Entry kind="price" amount="1" unit="credit"/><p:Entry kind="penalty" amount="-1" unit="credit"/>`, "[{price 1 credit false } {penalty 1 credit true }]", "[]"},
	} {
		p := &agreement.Properties{Agreement: x.template.Agreement, Guarantees: []agreement.GuaranteeTermState{{Term: "finish", State: x.state}}}
		if x.entries != "" {
			p.SubState = ours(t, "Agreement", x.entries)
		}
		list := Account(p)
		if got := fmt.Sprint(list); got != x.want {
			t.Errorf("%s: %s", name, got)
		}
		if got := fmt.Sprint(Total(list)); got != x.total {
			t.Errorf("%s: in all %s", name, got)
		}
	}
}

func TestHistory(t *testing.T) {
	p := &agreement.Properties{}
	if got := History(p); len(got) != 0 {
		t.Error(got)
	}
	p.SubState = ours(t, "Agreement", `<p:Event at="2026-11-27T12:00:00Z" name="accepted" state="Observed">by  the plan</p:Event><p:Event name="no time"/><p:Event at="2026-11-27T13:00:00Z" name="completed" state="Complete"/>`)
	if got := History(p); len(got) != 2 || got[0] != (Event{noon, "accepted", "Observed", "by the plan"}) || got[1].Name != "completed" {
		t.Errorf("%+v", got)
	}
	p.SubState.Tag = "Other"
	if got := History(p); len(got) != 0 {
		t.Error(got)
	}
}

func TestActivitiesAndFacts(t *testing.T) {
	doc, err := xmldoc.ReadBytes([]byte(`<p:Job xmlns:p="`+agreement.NSPortolan+`" attempt="2"><p:State>Running</p:State><p:More><wsa:EndpointReference xmlns:wsa="`+nsWSA+`"><wsa:Address>http://h/bes</wsa:Address></wsa:EndpointReference><p:At> 12 </p:At></p:More><p:Evidence at="2026-11-27T12:00:00Z">late</p:Evidence><p:Entry amount="1">x</p:Entry></p:Job>`), xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	p := &agreement.Properties{Services: []agreement.ServiceTermState{{Term: "none"}, {Term: "job", Detail: doc.Root()}}}
	if got := Activities(p); len(got) != 1 || got[0].Term != "job" || got[0].Reference.Tag != "EndpointReference" {
		t.Errorf("%+v", got)
	}
	if got := fmt.Sprint(Facts(doc.Root())); got != "[{attempt 2 0001-01-01 00:00:00 +0000 UTC} {State Running 0001-01-01 00:00:00 +0000 UTC} {More/At 12 0001-01-01 00:00:00 +0000 UTC} {Evidence late 2026-11-27 12:00:00 +0000 UTC}]" {
		t.Error(got)
	}
	if got := Facts(nil); len(got) != 0 {
		t.Error(got)
	}
	var many strings.Builder
	for range 2 * maxFacts {
		many.WriteString("<a b='1'>x</a>")
	}
	if doc, err = xmldoc.ReadBytes([]byte("<l>"+many.String()+"</l>"), xmldoc.Limits{}); err != nil {
		t.Fatal(err)
	}
	if got := Facts(doc.Root()); len(got) != maxFacts {
		t.Error(len(got))
	}
}
