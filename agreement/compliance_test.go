package agreement

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const nsJSDL = "http://schemas.ggf.org/jsdl/2005/11/jsdl"

// body is the terms of an offer or template, in which the values of a job stand.
func body(root, inside, constraints string) string {
	return `<wsag:` + root + ` xmlns:wsag="` + NS + `" xmlns:jsdl="` + nsJSDL + `" xmlns:xs="` + nsXS + `" xmlns:p="` + NSPortolan + `" xmlns:x="urn:x">
 <wsag:Name>batch</wsag:Name>
 <wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider><wsag:TemplateId>1</wsag:TemplateId><wsag:TemplateName>batch</wsag:TemplateName></wsag:Context>
 <wsag:Terms><wsag:All>` + inside + `</wsag:All></wsag:Terms>` + constraints + `</wsag:` + root + `>`
}

// job is what offers differ in: "" leaves the element out.
type job struct{ name, cpus, memory, wall, os, start, length, user, host, extra string }

func (j job) terms() string {
	var b strings.Builder
	put := func(format, v string) {
		if v != "" {
			fmt.Fprintf(&b, format, v)
		}
	}
	b.WriteString(`<wsag:ServiceDescriptionTerm wsag:Name="job" wsag:ServiceName="run"><jsdl:JobDefinition><jsdl:JobDescription>`)
	put(`<jsdl:JobIdentification><jsdl:JobName>%s</jsdl:JobName></jsdl:JobIdentification>`, j.name)
	b.WriteString(`<jsdl:Resources>`)
	put(`<jsdl:CandidateHosts>%s</jsdl:CandidateHosts>`, j.host)
	put(`<jsdl:OperatingSystem>%s</jsdl:OperatingSystem>`, j.os)
	put(`<jsdl:TotalCPUTime><jsdl:UpperBoundedRange>%s</jsdl:UpperBoundedRange></jsdl:TotalCPUTime>`, j.wall)
	put(`<jsdl:TotalCPUCount><jsdl:Exact>%s</jsdl:Exact></jsdl:TotalCPUCount>`, j.cpus)
	put(`<jsdl:TotalPhysicalMemory><jsdl:LowerBoundedRange>%s</jsdl:LowerBoundedRange></jsdl:TotalPhysicalMemory>`, j.memory)
	b.WriteString(`</jsdl:Resources></jsdl:JobDescription></jsdl:JobDefinition></wsag:ServiceDescriptionTerm>`)
	b.WriteString(`<wsag:ServiceDescriptionTerm wsag:Name="time" wsag:ServiceName="run"><x:Time>`)
	put(`<x:Start>%s</x:Start>`, j.start)
	put(`<x:Duration>%s</x:Duration>`, j.length)
	put(`<x:User x:id="%s"/>`, j.user)
	b.WriteString(`</x:Time></wsag:ServiceDescriptionTerm>` + j.extra)
	return b.String()
}

// kind of constraint: an Item, and the type by which libxml2 is to judge it.
type kind struct {
	name, location, constraint string
	// typ is what libxml2 restricts where the constraint has no type of its own; "" where it has.
	typ string
	// particle is set where the element itself is validated.
	particle bool
}

const jobAt = `$this/wsag:AgreementOffer/wsag:Terms/wsag:All/wsag:ServiceDescriptionTerm[@wsag:Name="job"]`

func base(t string) string {
	return `<xs:simpleType><xs:restriction base="xs:` + t + `"/></xs:simpleType>`
}

var kinds = []kind{
	{name: "cpus between", location: jobAt + `//jsdl:TotalCPUCount/jsdl:Exact`, constraint: `<xs:minInclusive value="1"/><xs:maxInclusive value="64"/>`, typ: "double"},
	{name: "cpus exclusive", location: `//jsdl:TotalCPUCount/*`, constraint: `<xs:minExclusive value="0"/><xs:maxExclusive value="100"/>`, typ: "double"},
	{name: "cpus typed", location: `//jsdl:Exact`, constraint: base("positiveInteger") + `<xs:maxInclusive value="128"/>`},
	{name: "cpus digits", location: `//jsdl:Exact`, constraint: `<xs:totalDigits value="2"/>`, typ: "decimal"},
	{name: "whole cpus", location: `//jsdl:Exact`, constraint: `<xs:fractionDigits value="0"/>`, typ: "decimal"},
	{name: "cpus enumerated", location: `//jsdl:Exact`, constraint: base("double") + `<xs:enumeration value="1"/><xs:enumeration value="8"/><xs:enumeration value="16"/>`},
	{name: "name of a form", location: `//jsdl:JobName`, constraint: `<xs:pattern value="[a-z][a-z0-9\-]*"/>`, typ: "token"},
	{name: "name not too long", location: `//jsdl:JobName`, constraint: `<xs:maxLength value="8"/>`, typ: "token"},
	{name: "name long enough", location: `//jsdl:JobName`, constraint: `<xs:minLength value="2"/>`, typ: "token"},
	{name: "name of a length", location: `//jsdl:JobName`, constraint: `<xs:length value="3"/>`, typ: "token"},
	{name: "name as it is", location: `//jsdl:JobName`, constraint: `<xs:whiteSpace value="preserve"/><xs:pattern value="\S+"/>`, typ: "string"},
	{name: "system one of", location: `//jsdl:OperatingSystem`, constraint: `<xs:enumeration value="LINUX"/><xs:enumeration value="FreeBSD"/>`, typ: "token"},
	{name: "text of name", location: `//jsdl:JobName/text()`, constraint: `<xs:enumeration value="abc"/><xs:enumeration value="night-1"/>`, typ: "token"},
	{name: "starts before", location: `//x:Start`, constraint: `<xs:maxInclusive value="2030-01-01T00:00:00Z"/>`, typ: "dateTime"},
	{name: "starts after", location: `//x:Time/x:Start[1]`, constraint: `<xs:minExclusive value="2026-01-01T00:00:00Z"/>`, typ: "dateTime"},
	{name: "not longer", location: `//x:Duration`, constraint: `<xs:maxInclusive value="P1M"/>`, typ: "duration"},
	{name: "not shorter", location: `//x:Duration`, constraint: `<xs:minInclusive value="PT1H"/>`, typ: "duration"},
	{name: "attribute", location: `//x:User/@x:id`, constraint: `<xs:pattern value="u\d{1,3}"/>`, typ: "token"},
	{name: "attribute typed", location: `//@x:id`, constraint: base("NCName")},
	{name: "memory or none", location: `//jsdl:TotalPhysicalMemory/jsdl:LowerBoundedRange`, constraint: `<xs:simpleType><xs:union memberTypes="xs:unsignedInt"><xs:simpleType><xs:restriction base="xs:token"><xs:enumeration value="any"/></xs:restriction></xs:simpleType></xs:union></xs:simpleType>`},
	{name: "hosts as a list", location: `//jsdl:CandidateHosts`, constraint: `<xs:simpleType><xs:list itemType="xs:NCName"/></xs:simpleType><xs:maxLength value="2"/>`},
	{name: "anything", location: `//jsdl:TotalCPUTime`},
	{name: "service names", location: `//wsag:ServiceDescriptionTerm/@wsag:ServiceName`, constraint: `<xs:enumeration value="run"/>`, typ: "token"},
	{name: "names of terms", location: `//wsag:ServiceDescriptionTerm[last()]/@wsag:Name | //wsag:GuaranteeTerm/@wsag:Name`, constraint: base("Name") + `<xs:maxLength value="4"/>`},
	{
		name: "resources in order", location: `//jsdl:Resources`, particle: true,
		constraint: `<xs:sequence><xs:element name="CandidateHosts" minOccurs="0"/><xs:element name="OperatingSystem" type="xs:NCName" minOccurs="0"/><xs:element name="TotalCPUTime" minOccurs="0"/><xs:element name="TotalCPUCount"/><xs:element name="TotalPhysicalMemory" minOccurs="0" maxOccurs="2"/></xs:sequence>`,
	},
	{
		name: "range or exact", location: `//jsdl:TotalCPUCount`, particle: true,
		constraint: `<xs:choice><xs:element name="Exact" type="xs:double"/><xs:element name="UpperBoundedRange" type="xs:double"/></xs:choice>`,
	},
	{
		name: "three of any", location: `//x:Time`, particle: true,
		constraint: `<xs:sequence><xs:any namespace="##targetNamespace" processContents="skip" minOccurs="3" maxOccurs="3"/></xs:sequence>`,
	},
	{
		name: "times", location: `//x:Time`, particle: true,
		constraint: `<xs:all><xs:element name="Duration" type="xs:duration"/><xs:element name="Start" type="xs:dateTime" minOccurs="0"/><xs:element name="User" minOccurs="0"/></xs:all>`,
	},
}

func (k kind) item() string {
	return `<wsag:Item wsag:Name="` + k.name + `"><wsag:Location>` + escaped(k.location) + `</wsag:Location><wsag:ItemConstraint>` + k.constraint + `</wsag:ItemConstraint></wsag:Item>`
}

// schema is by what libxml2 judges a node.
func (k kind) schema() string {
	head := `<xs:schema xmlns:xs="` + nsXS + `" elementFormDefault="qualified"`
	if k.particle {
		space, local := nsJSDL, k.location[strings.LastIndexByte(k.location, ':')+1:]
		if local == "Time" {
			space = "urn:x"
		}
		return head + ` targetNamespace="` + space + `"><xs:element name="` + local + `"><xs:complexType>` + k.constraint + `</xs:complexType></xs:element></xs:schema>`
	}
	restriction := `<xs:restriction>` + k.constraint + `</xs:restriction>`
	if k.typ != "" {
		restriction = `<xs:restriction base="xs:` + k.typ + `">` + k.constraint + `</xs:restriction>`
	}
	return head + `><xs:element name="v"><xs:simpleType>` + restriction + `</xs:simpleType></xs:element></xs:schema>`
}

func escaped(s string) string { return string(xmldoc.AppendText(nil, s)) }

func documentOf(t testing.TB, s string) *xmldoc.Document {
	t.Helper()
	doc, err := xmldoc.ReadBytes([]byte(s), xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return doc
}

func templateOf(t testing.TB, terms, constraints string) *Template {
	t.Helper()
	doc := body("Template", terms, `<wsag:CreationConstraints>`+constraints+`</wsag:CreationConstraints>`)
	tmpl, err := DecodeTemplate(documentOf(t, doc).Root())
	if err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	return tmpl
}

func offerOf(t testing.TB, terms string) *Offer {
	t.Helper()
	o, err := DecodeOffer(documentOf(t, body("AgreementOffer", terms, "")).Root())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

var standard = job{name: "abc", cpus: "8", memory: "1024", wall: "3600", os: "LINUX", start: "2027-01-01T00:00:00Z", length: "PT2H", user: "u1", host: "a b"}

// offers gives 320 of them, most but not all with values at the ends of what is allowed.
func offers() []job {
	r := rand.New(rand.NewPCG(6, 28))
	of := func(s ...string) string { return s[r.IntN(len(s))] }
	var jobs []job
	for range 320 {
		j := standard
		for range 1 + r.IntN(4) {
			switch r.IntN(10) {
			case 0:
				j.name = of("", "abc", "a", "ABC", "night-1", " abc ", "a-very-long-name", "1a", "ab", "éé", "abcdefgh", "abcdefghi", "a b c")
			case 1:
				j.cpus = of("", "0", "1", "64", "65", "8.0", "8.5", "16", "99.9", "100", "128", "129", "1e1", "-1", "x", " 16 ", "INF", "064")
			case 2:
				j.memory = of("", "0", "any", "none", "4294967295", "4294967296", "-1", "1.5", " any ")
			case 3:
				j.os = of("", "LINUX", " LINUX\n", "linux", "FreeBSD", "WINNT", "A B")
			case 4:
				j.start = of("", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2030-01-01T00:00:00Z", "2030-01-03T00:00:00", "2029-12-31T23:00:00-01:00", "2029-12-31T23:00:00-01:30", "2025-06-01T00:00:00Z", "soon", "2028-02-29T12:00:00Z")
			case 5:
				j.length = of("", "PT1H", "PT59M", "PT60M", "P32D", "P1M", "P27DT23H", "PT2H30M", "P2M", "2h", "P1Y")
			case 6:
				j.user = of("", "u1", "u999", "u1000", "x", "1", "a:b")
			case 7:
				j.host = of("", "a", "a b", "a b c", "a 1", " a\tb ")
			case 8:
				j.wall = of("", "1", "x")
			case 9:
				j.extra = of("", `<wsag:ServiceDescriptionTerm wsag:Name="other" wsag:ServiceName="run"><x:y/></wsag:ServiceDescriptionTerm>`,
					`<wsag:ServiceDescriptionTerm wsag:Name="others" wsag:ServiceName="walk"><x:User x:id="u7"/></wsag:ServiceDescriptionTerm>`)
			}
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// TestComplianceAgainstLibxml2 is the reference: every offer against every kind of
// constraint, judged here and by libxml2's XPath and schema validator.
func TestComplianceAgainstLibxml2(t *testing.T) {
	t.Parallel()
	scope := map[string]string{"wsag": NS, "jsdl": nsJSDL, "x": "urn:x"}
	jobs := offers()
	var finds []testenv.XPathCase
	documents := []string{body("AgreementOffer", standard.terms(), "")} // as the template's, for what it has itself
	for _, j := range jobs {
		documents = append(documents, body("AgreementOffer", j.terms(), ""))
	}
	for _, d := range documents {
		for _, k := range kinds {
			finds = append(finds, testenv.XPathCase{Document: d, Expression: strings.TrimPrefix(k.location, "$this"), Namespaces: scope})
		}
	}
	found := testenv.XPath(t, finds)
	var schemas []testenv.SchemaCase
	var of []int
	for i, a := range found {
		if a.Error != "" {
			t.Fatalf("%s: %s", finds[i].Expression, a.Error)
		}
		k := kinds[i%len(kinds)]
		if k.constraint == "" {
			continue
		}
		for n := range a.Nodes {
			doc := `<v>` + escaped(a.Texts[n]) + `</v>`
			if k.particle {
				doc = a.XML[n]
			}
			schemas, of = append(schemas, testenv.SchemaCase{Schema: k.schema(), Document: doc}), append(of, i)
		}
	}
	breaks := map[int]string{}
	for i, said := range testenv.Schema(t, schemas) {
		if strings.HasPrefix(said, "schema: ") {
			t.Fatalf("%s: %s", schemas[i].Schema, said)
		}
		if said != "" {
			breaks[of[i]] = said
		}
	}
	accepted, refused := make([]int, len(kinds)), make([]int, len(kinds))
	for ki, k := range kinds {
		c, err := templateOf(t, standard.terms(), k.item()).Compile()
		if err != nil {
			t.Fatal(err)
		}
		for ji := range jobs {
			at := (ji+1)*len(kinds) + ki
			want := breaks[at]
			if len(found[at].Nodes) == 0 && (len(found[ki].Nodes) > 0 || k.particle) {
				want = "nothing is there"
			}
			broken := c.Check(offerOf(t, jobs[ji].terms()))
			if (len(broken) > 0) != (want != "") {
				t.Errorf("%s of %+v: we say %+v, libxml2 %q", k.name, jobs[ji], broken, want)
			}
			for _, b := range broken {
				if b.Item != k.name || b.Sentence == "" || b.Allowed == "" || b.Location != k.location {
					t.Errorf("%s: %+v", k.name, b)
				}
			}
			if want == "" {
				accepted[ki]++
			} else {
				refused[ki]++
			}
		}
		if k.constraint != "" && (accepted[ki] == 0 || refused[ki] == 0) {
			t.Errorf("%s: %d accepted, %d refused: the offers do not try it", k.name, accepted[ki], refused[ki])
		}
	}
	t.Logf("%d offers, %d kinds, accepted %v, refused %v", len(jobs), len(kinds), accepted, refused)
}

// TestBroken: every broken constraint is named, with where, what and what would do.
func TestBroken(t *testing.T) {
	t.Parallel()
	assertion := `<wsag:Constraint><p:Assert message="memory must be at least 512 for each core">//jsdl:LowerBoundedRange &gt;= 512 * //jsdl:Exact</p:Assert></wsag:Constraint>`
	c, err := templateOf(t, standard.terms(), kinds[0].item()+kinds[6].item()+kinds[25].item()+
		`<wsag:Item><wsag:Location>//x:Missing</wsag:Location><wsag:ItemConstraint><xs:sequence><xs:any minOccurs="0"/></xs:sequence></wsag:ItemConstraint></wsag:Item>`+assertion).Compile()
	if err != nil {
		t.Fatal(err)
	}
	j := standard
	j.cpus, j.name, j.memory = "128", "", "1"
	var got []string
	for _, b := range c.Check(offerOf(t, j.terms())) {
		got = append(got, b.Sentence)
	}
	want := []string{
		`the item "cpus between", at /wsag:AgreementOffer/wsag:Terms/wsag:All/wsag:ServiceDescriptionTerm[1]/jsdl:JobDefinition/jsdl:JobDescription/jsdl:Resources/jsdl:TotalCPUCount/jsdl:Exact: "128" is not allowed: it must be a number, at least 1, at most 64`,
		`the item "name of a form": nothing is at //jsdl:JobName, where there must be text, of the form [a-z][a-z0-9\-]*`,
		`the item 4: nothing is at //x:Missing, where there must be an element with optionally any element`,
		`memory must be at least 512 for each core`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	j = standard
	j.memory = "4096"
	for _, b := range c.Check(offerOf(t, j.terms()))[1:] {
		t.Error(b)
	}
}

// TestCompileRefuses: what cannot be checked is refused when the template is loaded.
func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	item := func(location, constraint string) string {
		return kind{name: "it", location: location, constraint: constraint}.item()
	}
	free := func(s string) string { return `<wsag:Constraint>` + s + `</wsag:Constraint>` }
	for _, c := range []struct {
		constraints, want string
		kind              fail.Kind
	}{
		{item(`//a/following::b`, ""), `the Item "it" of the template "batch" cannot be checked here: the axis following:: is not supported, at column 5`, fail.Unsupported},
		{item(`for $a in //b return $a`, ""), `cannot be checked here`, fail.Invalid},
		{item(`//zz:a`, ""), "the prefix zz is not declared", fail.Invalid},
		{item(`count(//x:a)`, ""), "its Location gives a number where nodes are wanted", fail.Invalid},
		{item(`//x:a`, `<xs:minInclusive value="abc"/>`), "have no order that is known", fail.Invalid},
		{item(`//x:a`, `<xs:pattern value="("/>`), "is wrong at character", fail.Invalid},
		{free(`<x:rule/>`), "its language, {urn:x}rule, is not known", fail.Unsupported},
		{free(`some text`), "it must hold one Assert element", fail.Unsupported},
		{free(``), "it must hold one Assert element", fail.Unsupported},
		{free(`<p:Assert message="m">true()</p:Assert><p:Assert message="m">true()</p:Assert>`), "it must hold one Assert element", fail.Unsupported},
		{free(`<p:Assert>true()</p:Assert>`), "lacks the message", fail.Invalid},
		{free(`<p:Assert message="m">1</p:Assert>`), "gives a number where a boolean is wanted", fail.Invalid},
		{free(`<p:Assert message="m">//x:a</p:Assert>`), "gives a node set where a boolean is wanted", fail.Invalid},
		{free(`<p:Assert message="m">id('a') = 1</p:Assert>`), "the function id() is not supported", fail.Unsupported},
		{free(`<p:Assert message="m" level="3">true()</p:Assert>`), "the attribute level of Assert is not known", fail.Invalid},
		{free(`<p:Assert message="m"><x:a/></p:Assert>`), "must hold an XPath expression and no elements", fail.Invalid},
	} {
		tmpl, err := DecodeTemplate(documentOf(t, body("Template", standard.terms(), `<wsag:CreationConstraints>`+c.constraints+`</wsag:CreationConstraints>`)).Root())
		if err == nil {
			_, err = tmpl.Compile()
		}
		if !fail.Is(err, c.kind) || !strings.Contains(fail.Sentence(err), c.want) {
			t.Errorf("%s: %v", c.constraints, err)
		}
	}
	tmpl := templateOf(t, standard.terms(), "")
	tmpl.Constraints.Items = make([]Item, MaxItems+1)
	if _, err := tmpl.Compile(); !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "at most 500 are taken") {
		t.Errorf("too many Items: %v", err)
	}
}

// TestStrict: outside the Items nothing may differ.
func TestStrict(t *testing.T) {
	t.Parallel()
	c, err := templateOf(t, standard.terms(), kinds[0].item()+kinds[17].item()+kinds[12].item()).Compile()
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) string {
		doc := body("AgreementOffer", standard.terms(), "")
		if !strings.Contains(doc, old) {
			t.Fatalf("%s is not in the offer", old)
		}
		return strings.Replace(doc, old, new, 1)
	}
	for _, x := range []struct{ doc, want string }{
		{change(`>8<`, `>64<`), ""},
		{change(`x:id="u1"`, `x:id="u2"`), ""},
		{change(`>abc<`, `>night-1<`), ""},
		{change(`<wsag:Name>batch`, `<wsag:Name>mine`), ""},
		{change(`</wsag:ServiceProvider>`, `</wsag:ServiceProvider><wsag:ExpirationTime>2040-01-01T00:00:00Z</wsag:ExpirationTime>`), ""},
		{change(`<wsag:All>`, "<wsag:All>\n <!-- here -->"), ""},
		{strings.ReplaceAll(change(`xmlns:jsdl`, `xmlns:j`), "jsdl:", "j:"), ""},
		{change(`>1024<`, "> 1024\n<"), ""},
		{change(`>8<`, `>65<`), `"65" is not allowed`},
		{change(`>1024<`, `>2048<`), `LowerBoundedRange is "2048", where the template has "1024" and lets nothing else`},
		{change(`wsag:ServiceName="run"`, `wsag:ServiceName="ran"`), `@ServiceName is "ran", where the template has "run"`},
		{change(`<jsdl:OperatingSystem>LINUX</jsdl:OperatingSystem>`, ``), `where the template has the element jsdl:OperatingSystem`},
		{change(`</x:Duration>`, `</x:Duration><x:More/>`), `is the element x:More, where the template has`},
		{change(`</x:Time>`, `<x:More/></x:Time>`), `is the element x:More, where the template has nothing`},
		{change(`<x:Start>`, `<x:Start a="1">`), `@a is "1", where the template has nothing`},
		{change(`AgreementResponder`, `AgreementInitiator`), `ServiceProvider is "AgreementInitiator"`},
		{change(`<wsag:TemplateId>1`, `<wsag:TemplateId>2`), `TemplateId is "2"`},
		{strings.ReplaceAll(change("urn:x", "urn:y"), "zz", ""), "where the template has the element x:Time"},
	} {
		o, err := DecodeOffer(documentOf(t, x.doc).Root())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range c.CheckStrictly(o) {
			got = append(got, b.Sentence)
		}
		s := strings.Join(got, "\n")
		if (s == "") != (x.want == "") || !strings.Contains(s, x.want) {
			t.Errorf("%s\ngives %q, not %q", x.doc, s, x.want)
		}
	}
}

// TestManyBroken: what is told is bounded.
func TestManyBroken(t *testing.T) {
	t.Parallel()
	c, err := templateOf(t, standard.terms(), kinds[0].item()+`<wsag:Item wsag:Name="many"><wsag:Location>//x:n</wsag:Location><wsag:ItemConstraint><xs:maxInclusive value="0"/></wsag:ItemConstraint></wsag:Item>`+
		`<wsag:Item wsag:Name="slow"><wsag:Location>//*[//*[//*]]</wsag:Location><wsag:ItemConstraint/></wsag:Item>`).Compile()
	if err != nil {
		t.Fatal(err)
	}
	broken := c.Check(offerOf(t, standard.terms()+`<wsag:ServiceDescriptionTerm wsag:Name="n" wsag:ServiceName="n"><x:m>`+strings.Repeat("<x:n>1</x:n>", 3000)+`</x:m></wsag:ServiceDescriptionTerm>`))
	if len(broken) != maxBroken+1 || broken[maxBroken].Sentence != "2901 more constraints are broken" {
		t.Errorf("%d: %v", len(broken), broken[len(broken)-1])
	}
}

// TestSampleTemplates: an offer that is made from a sample as it stands complies, by
// its constraints and strictly; what is not a template is refused.
func TestSampleTemplates(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(testenv.Shared(t), "samples/soap/wsag-*template*.xml"))
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	made := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := ParseTemplate(b)
		if err != nil {
			if !strings.Contains(f, "wsag4j") {
				continue // drafts and what was never valid
			}
			t.Errorf("%s: %v", f, err)
			continue
		}
		c, err := tmpl.Compile()
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		o := &Offer{Agreement: tmpl.Agreement}
		for _, b := range append(c.Check(o), c.CheckStrictly(o)...) {
			t.Errorf("%s: %s", f, b.Sentence)
		}
		o.Context.ServiceProvider = Initiator
		if len(c.Check(o)) != 0 {
			t.Errorf("%s: nothing is constrained", f)
		}
		if broken := c.CheckStrictly(o); len(broken) != 1 {
			t.Errorf("%s: %v", f, broken)
		}
		made++
	}
	if made < 3 {
		t.Errorf("only %d templates", made)
	}
}

func FuzzItem(f *testing.F) {
	for _, k := range kinds {
		f.Add(k.location, k.constraint, "8")
	}
	f.Fuzz(func(t *testing.T, location, constraint, value string) {
		doc, err := xmldoc.ReadBytes([]byte(`<c xmlns:xs="`+nsXS+`">`+constraint+`</c>`), xmldoc.Limits{Bytes: 1 << 16})
		if err != nil {
			return
		}
		tmpl := templateOf(t, standard.terms(), "")
		tmpl.Constraints.Items = []Item{{Location: location, Scope: map[string]string{"wsag": NS, "jsdl": nsJSDL, "x": "urn:x"}, Constraint: doc.Root()}}
		c, err := tmpl.Compile()
		if err != nil {
			if fail.KindOf(err) == fail.Internal {
				t.Fatal(err)
			}
			return
		}
		j := standard
		j.cpus = escaped(strings.ToValidUTF8(value, ""))
		if d, err := xmldoc.ReadBytes([]byte(body("AgreementOffer", j.terms(), "")), xmldoc.Limits{}); err == nil {
			for _, b := range c.Check(&Offer{Element: d.Root()}) {
				if b.Sentence == "" {
					t.Fatal(b)
				}
			}
		}
	})
}
