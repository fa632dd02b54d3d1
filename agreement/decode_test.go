package agreement_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// full is a template with everything that one can have.
const full = `<wsag:Template xmlns:wsag="http://schemas.ggf.org/graap/2007/03/ws-agreement" xmlns:x="urn:x" xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" wsag:TemplateId="2" wsag:AgreementId="a" xsi:schemaLocation="a b">
 <wsag:Name>n</wsag:Name>
 <wsag:Context x:a="v">
  <wsag:AgreementInitiator any="thing">CN=me <x:e/></wsag:AgreementInitiator>
  <wsag:AgreementResponder/>
  <wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider>
  <wsag:ExpirationTime>2030-01-01T00:00:00.5+01:00</wsag:ExpirationTime>
  <wsag:TemplateId>2</wsag:TemplateId>
  <wsag:TemplateName>n</wsag:TemplateName>
  <x:e>kept</x:e>
 </wsag:Context>
 <wsag:Terms><wsag:All>
  <wsag:ExactlyOne>
   <wsag:ServiceDescriptionTerm wsag:Name="a" wsag:ServiceName="s"><x:e>1</x:e></wsag:ServiceDescriptionTerm>
   <wsag:OneOrMore><wsag:ServiceReference wsag:Name="b" wsag:ServiceName="s"><x:e/></wsag:ServiceReference></wsag:OneOrMore>
   <wsag:All><wsag:ServiceDescriptionTerm wsag:Name="c" wsag:ServiceName="t"><x:e/></wsag:ServiceDescriptionTerm></wsag:All>
  </wsag:ExactlyOne>
  <wsag:ServiceProperties wsag:Name="p" wsag:ServiceName="s"><wsag:VariableSet>
   <wsag:Variable wsag:Name="v" wsag:Metric="xs:int"><wsag:Location>//x:e</wsag:Location></wsag:Variable>
   <wsag:Variable><wsag:Location/></wsag:Variable>
  </wsag:VariableSet></wsag:ServiceProperties>
  <wsag:GuaranteeTerm wsag:Name="g" wsag:Obligated="ServiceProvider">
   <wsag:ServiceScope wsag:ServiceName="s"><x:e/></wsag:ServiceScope><wsag:ServiceScope/>
   <wsag:QualifyingCondition>true</wsag:QualifyingCondition>
   <wsag:ServiceLevelObjective><wsag:KPITarget><wsag:KPIName>k</wsag:KPIName><wsag:CustomServiceLevel>1</wsag:CustomServiceLevel></wsag:KPITarget></wsag:ServiceLevelObjective>
   <wsag:BusinessValueList>
    <wsag:Importance> 7 </wsag:Importance>
    <wsag:Penalty><wsag:AssessmentInterval><wsag:TimeInterval>PT1H</wsag:TimeInterval></wsag:AssessmentInterval><wsag:ValueUnit>EUR</wsag:ValueUnit><wsag:ValueExpression><x:e/></wsag:ValueExpression></wsag:Penalty>
    <wsag:Reward><wsag:AssessmentInterval><wsag:Count>3</wsag:Count></wsag:AssessmentInterval><wsag:ValueExpression>2</wsag:ValueExpression></wsag:Reward>
    <wsag:Preference><wsag:ServiceTermReference>a</wsag:ServiceTermReference><wsag:Utility>0.25</wsag:Utility><wsag:ServiceTermReference>c</wsag:ServiceTermReference><wsag:Utility>1e1</wsag:Utility></wsag:Preference>
    <wsag:CustomBusinessValue>x</wsag:CustomBusinessValue>
   </wsag:BusinessValueList>
  </wsag:GuaranteeTerm>
  <wsag:GuaranteeTerm wsag:Name="h">
   <wsag:ServiceLevelObjective><wsag:CustomServiceLevel><x:e/></wsag:CustomServiceLevel></wsag:ServiceLevelObjective>
   <wsag:BusinessValueList/>
  </wsag:GuaranteeTerm>
 </wsag:All></wsag:Terms>
 <wsag:CreationConstraints>
  <wsag:Item wsag:Name="i"><wsag:Location xmlns:q="urn:q" xmlns:wsag2="urn:2">declare namespace z="urn:z"; $this//x:e[@q:a="1"]/z:e</wsag:Location><wsag:ItemConstraint><xs:simpleType><xs:restriction base="xs:int"/></xs:simpleType><xs:minInclusive value="1"/><xs:pattern value="a:b"/></wsag:ItemConstraint><x:e/><wsag:Name>z</wsag:Name></wsag:Item>
  <wsag:Item><wsag:Location>/x</wsag:Location><wsag:ItemConstraint><xs:sequence><xs:element name="e"/></xs:sequence></wsag:ItemConstraint></wsag:Item>
  <wsag:Item><wsag:Location>/y</wsag:Location><wsag:ItemConstraint/></wsag:Item>
  <wsag:Constraint><x:e/></wsag:Constraint>
 </wsag:CreationConstraints>
</wsag:Template>`

func TestEverythingIsRead(t *testing.T) {
	tpl, err := agreement.ParseTemplate([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	if v := verdicts(t, full, string(xmldoc.Marshal(tpl.Encode()))); v[0] != "" || v[1] != "" {
		t.Errorf("libxml2: %q", v)
	}
	thereAndBack(t, tpl, agreement.DecodeTemplate)
	c := tpl.Context
	if !c.ExpirationTime.Equal(time.Date(2029, 12, 31, 23, 0, 0, 500_000_000, time.UTC)) {
		t.Errorf("it expires at %v", c.ExpirationTime)
	}
	if len(c.Attributes) != 1 || c.Attributes[0] != (agreement.Attribute{Name: xmldoc.Name{Space: "urn:x", Local: "a"}, Value: "v"}) {
		t.Errorf("the attributes are %v", c.Attributes)
	}
	if got := tpl.Constraints.Items[0].Scope; len(got) != 2 || got["x"] != "urn:x" || got["q"] != "urn:q" {
		t.Errorf("the scope is %v", got)
	}
	g := tpl.Term("g").(*agreement.Guarantee)
	if *g.Values.Importance != 7 || g.Values.Penalties[0].Interval != "PT1H" || g.Values.Rewards[0].Count != 3 || g.Values.Preferences[1] != (agreement.Preference{Term: "c", Utility: 10}) {
		t.Errorf("the values are %+v", g.Values)
	}
	if s := tpl.Services(); len(s) != 2 || s[0].Name != "s" || len(s[0].Descriptions) != 1 || len(s[0].References) != 1 || len(s[0].Properties) != 1 || len(s[0].Guarantees) != 2 || len(s[1].Guarantees) != 2 {
		t.Errorf("the services are %+v", s)
	}
	if !same(tpl.Element, read(t, full).Root()) {
		t.Error("Element is not what was read")
	}
	// The same as an offer.
	o := strings.NewReplacer("<wsag:Template ", "<wsag:AgreementOffer ", "</wsag:Template>", "</wsag:AgreementOffer>", ` wsag:TemplateId="2"`, "").Replace(full)
	i, j := strings.Index(o, "<wsag:CreationConstraints>"), strings.Index(o, "</wsag:AgreementOffer>")
	o = o[:i] + o[j:]
	offer, err := agreement.ParseOffer([]byte(o))
	if err != nil {
		t.Fatal(err)
	}
	thereAndBack(t, offer, agreement.DecodeOffer)
	if v := verdicts(t, o); v[0] != "" {
		t.Error(v)
	}
}

// change is a mutation of the full template, judged by libxml2 too.
type change struct {
	old, new string
	// want is part of the sentence; "" where it is read.
	want string
	// ours says that the schema lets what we refuse, with the reason here.
	ours string
}

func TestRefusedAsTheSchemaHasIt(t *testing.T) {
	const sdt = `<wsag:ServiceDescriptionTerm wsag:Name="a" wsag:ServiceName="s"><x:e>1</x:e></wsag:ServiceDescriptionTerm>`
	changes := []change{
		{old: `wsag:Name="a" wsag:S`, new: `Name="a" wsag:S`, want: "write wsag:Name"},
		{old: ` wsag:TemplateId="2"`, new: ` TemplateId="2"`, want: "write wsag:TemplateId"},
		{old: ` wsag:TemplateId="2"`, new: ``},
		{old: ` wsag:AgreementId="a"`, new: ` wsag:Else="a"`, want: "does not belong here"},
		{old: ` wsag:AgreementId="a"`, new: ` x:a="a"`, want: "does not belong here"},
		{old: ` wsag:AgreementId="a"`, new: ` xml:lang="en"`, want: "does not belong here"},
		{old: ` x:a="v"`, new: ` wsag:Name="v"`, want: "does not belong here"},
		{old: `<wsag:Name>n</wsag:Name>`, new: ``},
		{old: `<wsag:Name>n</wsag:Name>`, new: `<wsag:Name>n</wsag:Name><wsag:Name>n</wsag:Name>`, want: "Context is expected"},
		{old: `<wsag:Name>n</wsag:Name>`, new: `<wsag:Name>n<x:e/></wsag:Name>`, want: "takes text"},
		{old: `<wsag:Name>n</wsag:Name>`, new: `<wsag:Name>n<!-- c --><![CDATA[<]]></wsag:Name>`},
		{old: `<wsag:Name>n</wsag:Name>`, new: `<wsag:Name xsi:type="xs:string">n</wsag:Name>`},
		{old: `<wsag:Name>n</wsag:Name>`, new: `<wsag:Name xsi:type="xs:int">n</wsag:Name>`, want: "xsi:type"},
		{old: `<wsag:Name>n</wsag:Name>`, new: `<wsag:Name xsi:nil="true"></wsag:Name>`, want: "does not belong here"},
		{old: `<wsag:Name>n</wsag:Name>`, new: `stray`, want: "takes elements only"},
		{old: `<wsag:Name>n</wsag:Name>`, new: `<x:e/>`, want: "stands where Context is expected"},
		{old: `<wsag:Name>n</wsag:Name>`, new: `<Name>n</Name>`, want: "stands where Context is expected"},
		{old: `<wsag:AgreementResponder/>`, new: ``},
		{old: `>AgreementResponder<`, new: `>AgreementInitiator<`},
		{old: `>AgreementResponder<`, new: `> AgreementResponder<`, want: "expected AgreementInitiator or AgreementResponder"},
		{old: `<wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider>`, new: ``, want: "ServiceProvider is expected"},
		{old: `<wsag:TemplateId>2</wsag:TemplateId>`, new: `<wsag:TemplateName>n</wsag:TemplateName>`, want: "wrong order"},
		{old: `<x:e>kept</x:e>`, new: `<y:f xmlns:y="urn:y" b="c">lax</y:f><x:e/>`},
		{old: `<x:e>kept</x:e>`, new: `<f/>`, want: "does not belong here"},
		{old: `<x:e>kept</x:e>`, new: `<x:e/><wsag:TemplateId>2</wsag:TemplateId>`, want: "wrong order"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-01-01T00:00:00Z`},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-01-01T24:00:00`},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-01-01T24:00:01Z`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-02-29T00:00:00Z`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2028-02-29T00:00:00.123456789123-14:00`},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2028-02-29T00:00:00-14:01`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-13-01T00:00:00Z`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-01-00T00:00:00Z`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-01-01T00:60:00Z`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-01-01T00:00:60Z`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-01-01 00:00:00`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `2030-01-01T00:00:00+0100`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `tomorrow`, want: "expected a time"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `12030-01-01T00:00:00Z`, want: "expected a time", ours: "no promise is that long"},
		{old: `2030-01-01T00:00:00.5+01:00`, new: `1030-01-01T00:00:00Z`, want: "expected a time", ours: "it is over"},
		{old: sdt, new: `<wsag:ExactlyOne/>`, want: "is empty"},
		{old: sdt, new: `<x:e/>`, want: "does not belong here"},
		{old: sdt, new: `<wsag:Term/>`, want: "does not belong here"},
		{old: sdt, new: `text`, want: "takes elements only"},
		{old: sdt, new: strings.Replace(sdt, `wsag:Name="a" `, ``, 1), want: "wsag:Name is missing"},
		{old: sdt, new: strings.Replace(sdt, ` wsag:ServiceName="s"`, ``, 1), want: "wsag:ServiceName is missing"},
		{old: sdt, new: strings.Replace(sdt, `wsag:Name="a" `, `wsag:Name="" `, 1), want: "wsag:Name is empty", ours: "states refer to it"},
		{old: sdt, new: strings.Replace(sdt, `wsag:Name="a" `, `wsag:Name="g" `, 1), want: `is the second term with the name "g"`, ours: "states refer to it"},
		{old: sdt, new: strings.Replace(sdt, `<x:e>1</x:e>`, ``, 1), want: "is empty"},
		{old: sdt, new: strings.Replace(sdt, `<x:e>1</x:e>`, `1`, 1), want: "takes elements only"},
		{old: sdt, new: strings.Replace(sdt, `<x:e>1</x:e>`, `<x:e/><x:e/>`, 1), want: "is the second element"},
		{old: sdt, new: strings.Replace(sdt, `<x:e>1</x:e>`, `<wsag:All/>`, 1), want: "does not describe a service"},
		{old: sdt, new: strings.Replace(sdt, `<x:e>1</x:e>`, `<e/>`, 1), want: "does not describe a service"},
		{old: sdt, new: strings.Replace(sdt, `<x:e>1</x:e>`, `<j:JobDescription xmlns:j="http://schemas.ggf.org/jsdl/2005/11/jsdl"/>`, 1)},
		{old: `<wsag:Variable><wsag:Location/></wsag:Variable>`, new: ``},
		{old: `<wsag:Variable><wsag:Location/></wsag:Variable>`, new: `<wsag:Variable/>`, want: "Location is missing"},
		{old: `<wsag:Variable><wsag:Location/></wsag:Variable>`, new: `<x:e/>`, want: "does not belong here"},
		{old: ` wsag:Obligated="ServiceProvider"`, new: ` wsag:Obligated="Provider"`, want: "expected ServiceConsumer or ServiceProvider"},
		{old: ` wsag:Obligated="ServiceProvider"`, new: ` wsag:Obligated="ServiceConsumer"`},
		{old: `<wsag:ServiceScope/>`, new: `<wsag:ServiceScope>words</wsag:ServiceScope>`, want: "takes elements only"},
		{old: `<wsag:ServiceScope/>`, new: `<wsag:ServiceScope><wsag:Name/></wsag:ServiceScope>`, want: "does not belong here"},
		{old: `<wsag:QualifyingCondition>true</wsag:QualifyingCondition>`, new: ``},
		{old: `<wsag:QualifyingCondition>true</wsag:QualifyingCondition>`, new: `<wsag:QualifyingCondition/><wsag:QualifyingCondition/>`, want: "ServiceLevelObjective is expected"},
		{old: `<wsag:KPIName>k</wsag:KPIName>`, new: ``, want: "KPIName is expected"},
		{old: `<wsag:KPIName>k</wsag:KPIName>`, new: `<wsag:KPIName> </wsag:KPIName>`, want: "is empty", ours: "it says what is measured"},
		{old: `<wsag:CustomServiceLevel>1</wsag:CustomServiceLevel>`, new: `<wsag:Target>1</wsag:Target>`, want: "CustomServiceLevel is expected"},
		{old: `<wsag:CustomServiceLevel><x:e/></wsag:CustomServiceLevel>`, new: ``, want: "CustomServiceLevel is missing"},
		{old: `<wsag:BusinessValueList/>`, new: ``, want: "BusinessValueList is missing"},
		{old: `> 7 <`, new: `>-7<`},
		{old: `> 7 <`, new: `>+7<`},
		{old: `> 7 <`, new: `>7.0<`, want: "expected a whole number"},
		{old: `> 7 <`, new: `>0x7<`, want: "expected a whole number"},
		{old: `> 7 <`, new: `>9223372036854775808<`, want: "within 64 bits", ours: "nothing is that important"},
		{old: `<wsag:TimeInterval>PT1H</wsag:TimeInterval>`, new: `<wsag:TimeInterval>-P1Y2M3DT4H5M6.7S</wsag:TimeInterval>`},
		{old: `<wsag:TimeInterval>PT1H</wsag:TimeInterval>`, new: `<wsag:TimeInterval>P</wsag:TimeInterval>`, want: "expected a duration"},
		{old: `<wsag:TimeInterval>PT1H</wsag:TimeInterval>`, new: `<wsag:TimeInterval>P1DT</wsag:TimeInterval>`, want: "expected a duration"},
		{old: `<wsag:TimeInterval>PT1H</wsag:TimeInterval>`, new: `<wsag:TimeInterval>1h</wsag:TimeInterval>`, want: "expected a duration"},
		{old: `<wsag:TimeInterval>PT1H</wsag:TimeInterval>`, new: ``, want: "TimeInterval is missing"},
		{old: `<wsag:Count>3</wsag:Count>`, new: `<wsag:Count>0</wsag:Count>`, want: "1 or more"},
		{old: `<wsag:Count>3</wsag:Count>`, new: `<wsag:Count>+3</wsag:Count>`},
		{old: `<wsag:Count>3</wsag:Count>`, new: `<wsag:Count>3</wsag:Count><wsag:Count>3</wsag:Count>`, want: "does not belong here"},
		{old: `<wsag:ValueUnit>EUR</wsag:ValueUnit><wsag:ValueExpression><x:e/></wsag:ValueExpression>`, new: `<wsag:ValueUnit>EUR</wsag:ValueUnit>`, want: "ValueExpression is missing"},
		{old: `<wsag:Utility>1e1</wsag:Utility>`, new: ``, want: "Utility is missing"},
		{old: `>1e1<`, new: `>.5<`},
		{old: `>1e1<`, new: `>5.E-2<`},
		{old: `>1e1<`, new: `>1_0<`, want: "expected a number"},
		{old: `>1e1<`, new: `>0x1p4<`, want: "expected a number"},
		{old: `>1e1<`, new: `>inf<`, want: "expected a number"},
		{old: `>1e1<`, new: `>NaN<`, want: "expected a number", ours: "it compares with nothing"},
		{old: `>1e1<`, new: `>INF<`, want: "expected a number", ours: "it compares with nothing"},
		{old: `<wsag:CustomBusinessValue>x</wsag:CustomBusinessValue>`, new: `<wsag:Importance>1</wsag:Importance>`, want: "wrong order"},
		{old: `<wsag:ItemConstraint/>`, new: ``, want: "ItemConstraint is missing"},
		{old: `<wsag:ItemConstraint/>`, new: `<wsag:ItemConstraint><x:e/></wsag:ItemConstraint>`, want: "takes facets or one particle"},
		{old: `<wsag:ItemConstraint/>`, new: `<wsag:ItemConstraint><xs:choice/><xs:choice/></wsag:ItemConstraint>`, want: "takes one particle"},
		{old: `<wsag:ItemConstraint/>`, new: `<wsag:ItemConstraint><xs:enumeration value="a"/><xs:all/></wsag:ItemConstraint>`, want: "does not belong here"},
		{old: `<wsag:ItemConstraint/>`, new: `<wsag:ItemConstraint><xs:enumeration value="a"/><xs:simpleType><xs:list itemType="xs:int"/></xs:simpleType></wsag:ItemConstraint>`, want: "does not belong here"},
		{old: `<wsag:ItemConstraint/>`, new: `<wsag:ItemConstraint><xs:enumeration/></wsag:ItemConstraint>`, want: "value is missing"},
		{old: `<wsag:ItemConstraint/>`, new: `<wsag:ItemConstraint>5</wsag:ItemConstraint>`, want: "takes elements only"},
		{old: `<wsag:ItemConstraint/>`, new: `<wsag:ItemConstraint><xs:element name="x"/></wsag:ItemConstraint>`, want: "does not belong here"},
		{old: `<wsag:Location>/y</wsag:Location>`, new: ``, want: "Location is expected"},
		{old: `<wsag:Constraint><x:e/></wsag:Constraint>`, new: `<wsag:Constraint/><wsag:Item><wsag:Location/><wsag:ItemConstraint/></wsag:Item>`, want: "wrong order"},
		{old: `</wsag:CreationConstraints>`, new: `</wsag:CreationConstraints><x:e/>`, want: "does not belong here"},
		{old: `wsag="http://schemas.ggf.org/graap/2007/03/ws-agreement"`, new: `wsag="http://schemas.ggf.org/graap/2005/09/ws-agreement"`, want: "the draft of September 2005"},
	}
	docs := make([]string, len(changes))
	for i, c := range changes {
		if docs[i] = strings.Replace(full, c.old, c.new, 1); docs[i] == full {
			t.Fatalf("%s is not in the template", c.old)
		}
	}
	for i, v := range verdicts(t, docs...) {
		c := changes[i]
		tpl, err := agreement.ParseTemplate([]byte(docs[i]))
		name := c.old + " → " + c.new
		if (v == "") != (err == nil || c.ours != "") {
			t.Errorf("%s: %v; libxml2 says %q", name, err, v)
		}
		if err == nil {
			if c.want != "" {
				t.Errorf("%s: it is read", name)
			}
			thereAndBack(t, tpl, agreement.DecodeTemplate)
			continue
		}
		if s := fail.Sentence(err); c.want == "" || !strings.Contains(s, c.want) || !fail.Is(err, fail.Invalid) || !strings.HasPrefix(s, "line ") || !strings.Contains(s, ": /Template") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func small(terms string) string {
	return `<wsag:AgreementOffer xmlns:wsag="http://schemas.ggf.org/graap/2007/03/ws-agreement"><wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider></wsag:Context><wsag:Terms>` + terms + `</wsag:Terms></wsag:AgreementOffer>`
}

func sdt(i int) string {
	return fmt.Sprintf(`<wsag:ServiceDescriptionTerm wsag:Name="t%d" wsag:ServiceName="s"><x:e xmlns:x="urn:x"/></wsag:ServiceDescriptionTerm>`, i)
}

// TestOffersPromiseSomething: an offer without a service term is refused.
func TestOffersPromiseSomething(t *testing.T) {
	const guarantee = `<wsag:GuaranteeTerm wsag:Name="g"><wsag:ServiceLevelObjective><wsag:CustomServiceLevel/></wsag:ServiceLevelObjective><wsag:BusinessValueList/></wsag:GuaranteeTerm>`
	for _, terms := range []string{"", "<wsag:All>" + guarantee + "</wsag:All>"} {
		_, err := agreement.ParseOffer([]byte(small(terms)))
		if err == nil || !strings.Contains(fail.Sentence(err), "no service term") {
			t.Errorf("%s: %v", terms, err)
		}
		if v := verdicts(t, small(terms)); v[0] != "" {
			t.Error(v)
		}
	}
}

// TestBounds: each bound lets as much as it says, and no more.
func TestBounds(t *testing.T) {
	repeat := func(n int, one func(int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(one(i))
		}
		return b.String()
	}
	alike := func(s string) func(int) string { return func(int) string { return s } }
	in := func(open string, n int, one func(int) string, end string) string { return open + repeat(n, one) + end }
	guarantee := func(inner string) string {
		return small(`<wsag:All>` + sdt(0) + `<wsag:GuaranteeTerm wsag:Name="g">` + inner + `</wsag:GuaranteeTerm></wsag:All>`)
	}
	const slo = `<wsag:ServiceLevelObjective><wsag:CustomServiceLevel/></wsag:ServiceLevelObjective>`
	const penalty = `<wsag:Penalty><wsag:AssessmentInterval><wsag:Count>1</wsag:Count></wsag:AssessmentInterval><wsag:ValueExpression/></wsag:Penalty>`
	reward := strings.ReplaceAll(penalty, "Penalty", "Reward")
	offers := map[string]struct {
		most int
		doc  func(n int) string
	}{
		"terms": {agreement.MaxTerms - 1, func(n int) string { return small(in("<wsag:All>", n, sdt, "</wsag:All>")) }},
		"depth": {agreement.MaxDepth, func(n int) string {
			return small(in("", n, alike("<wsag:All>"), sdt(0)) + repeat(n, alike("</wsag:All>")))
		}},
		"variables": {agreement.MaxVariables, func(n int) string {
			return small(`<wsag:All>` + sdt(0) + in(`<wsag:ServiceProperties wsag:Name="p" wsag:ServiceName="s"><wsag:VariableSet>`, n, alike(`<wsag:Variable><wsag:Location/></wsag:Variable>`), `</wsag:VariableSet></wsag:ServiceProperties></wsag:All>`))
		}},
		"name": {agreement.MaxName, func(n int) string {
			return strings.Replace(small("<wsag:All>"+sdt(0)+"</wsag:All>"), `wsag:Name="t0"`, `wsag:Name="`+strings.Repeat("n", n)+`"`, 1)
		}},
		"text": {agreement.MaxName, func(n int) string {
			return strings.Replace(small("<wsag:All>"+sdt(0)+"</wsag:All>"), `<wsag:Context>`, `<wsag:Name>`+strings.Repeat("n", n)+`</wsag:Name><wsag:Context>`, 1)
		}},
		"scopes": {100, func(n int) string {
			return guarantee(in("", n, alike("<wsag:ServiceScope/>"), slo+"<wsag:BusinessValueList/>"))
		}},
		"penalties": {100, func(n int) string {
			return guarantee(in(slo+"<wsag:BusinessValueList>", n, alike(penalty), "</wsag:BusinessValueList>"))
		}},
		"rewards": {100, func(n int) string {
			return guarantee(in(slo+"<wsag:BusinessValueList>", n, alike(reward), "</wsag:BusinessValueList>"))
		}},
		"custom values": {100, func(n int) string {
			return guarantee(in(slo+"<wsag:BusinessValueList>", n, alike("<wsag:CustomBusinessValue/>"), "</wsag:BusinessValueList>"))
		}},
		"preferences": {100, func(n int) string {
			return guarantee(in(slo+"<wsag:BusinessValueList><wsag:Preference>", n, alike("<wsag:ServiceTermReference>t0</wsag:ServiceTermReference><wsag:Utility>1</wsag:Utility>"), "</wsag:Preference></wsag:BusinessValueList>"))
		}},
		"extensions": {100, func(n int) string {
			return strings.Replace(small("<wsag:All>"+sdt(0)+"</wsag:All>"), `</wsag:Context>`, in("", n, alike(`<x:e xmlns:x="urn:x"/>`), `</wsag:Context>`), 1)
		}},
		"attributes": {100, func(n int) string {
			return strings.Replace(small("<wsag:All>"+sdt(0)+"</wsag:All>"), `<wsag:Context>`, in(`<wsag:Context xmlns:x="urn:x"`, n, func(i int) string { return fmt.Sprintf(` x:a%d=""`, i) }, ">"), 1)
		}},
		// Each term inherits the long declaration once, and the offer's own element does not.
		"inherited declarations": {31, func(n int) string {
			term := func(i int) string { return strings.Replace(sdt(i), ` xmlns:x="urn:x"`, "", 1) }
			return strings.Replace(small(in("<wsag:All>", n, term, "</wsag:All>")), `<wsag:AgreementOffer `, `<wsag:AgreementOffer xmlns:x="urn:`+strings.Repeat("x", 1<<15)+`" `, 1)
		}},
	}
	for name, c := range offers {
		if _, err := agreement.ParseOffer([]byte(c.doc(c.most))); err != nil {
			t.Errorf("%s: %d are refused: %.300v", name, c.most, err)
		}
		if _, err := agreement.ParseOffer([]byte(c.doc(c.most + 1))); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %d are taken: %v", name, c.most+1, err)
		}
	}
	template := func(constraints string) string {
		o := strings.Replace(small("<wsag:All>"+sdt(0)+"</wsag:All>"), "</wsag:Terms>", "</wsag:Terms><wsag:CreationConstraints>"+constraints+"</wsag:CreationConstraints>", 1)
		return strings.ReplaceAll(o, "wsag:AgreementOffer", "wsag:Template")
	}
	templates := map[string]struct {
		most int
		doc  func(n int) string
	}{
		"items": {agreement.MaxItems, func(n int) string {
			return template(repeat(n, alike("<wsag:Item><wsag:Location/><wsag:ItemConstraint/></wsag:Item>")))
		}},
		"free constraints": {agreement.MaxItems, func(n int) string { return template(repeat(n, alike("<wsag:Constraint/>"))) }},
		"location": {agreement.MaxLocation, func(n int) string {
			return template("<wsag:Item><wsag:Location>" + strings.Repeat("/", n) + "</wsag:Location><wsag:ItemConstraint/></wsag:Item>")
		}},
		"extensions of an item": {100, func(n int) string {
			return template(in("<wsag:Item><wsag:Location/><wsag:ItemConstraint/>", n, alike("<e/>"), "</wsag:Item>"))
		}},
	}
	for name, c := range templates {
		if _, err := agreement.ParseTemplate([]byte(c.doc(c.most))); err != nil {
			t.Errorf("%s: %d are refused: %.300v", name, c.most, err)
		}
		if _, err := agreement.ParseTemplate([]byte(c.doc(c.most + 1))); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %d are taken: %v", name, c.most+1, err)
		}
	}
}

// TestWithoutADocument: an element alone is read too; refusals then name no line.
func TestWithoutADocument(t *testing.T) {
	tpl, err := agreement.ParseTemplate([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	e := tpl.Encode()
	e.RemoveChildAt(0)
	if _, err := agreement.DecodeTemplate(e); err != nil {
		t.Error(err)
	}
	e.RemoveChildAt(0)
	if _, err := agreement.DecodeTemplate(e); err == nil || fail.Sentence(err) != "/Template/Terms: stands where Context is expected" {
		t.Error(err)
	}
	if _, err := agreement.ParseOffer([]byte("<a>")); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
}
