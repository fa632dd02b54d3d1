package jsdl

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
)

func criteria(inner string) []byte {
	return fmt.Appendf(nil, `<p:Criteria xmlns:p="%s">%s</p:Criteria>`, NSPortolan, inner)
}

func TestCriteria(t *testing.T) {
	const inner = `<p:Criterion name=" FreeCPUs " type="integer" operator="ge">
		16 </p:Criterion><p:Criterion priority="7" name="Price" kind="SOFT" type="decimal" operator="min"/>` +
		`<p:Criterion name="ApplicationVersion:R 4" type="string" operator="in" kind="HARD">a  b</p:Criterion>`
	want := []Criterion{
		{"FreeCPUs", "integer", "ge", "16", true, 100},
		{"Price", "decimal", "min", "", false, 7},
		{"ApplicationVersion:R 4", "string", "in", "a b", true, 100},
	}
	c, ps := ParseCriteria(criteria(inner), Options{})
	if len(ps) > 0 || !reflect.DeepEqual(c.List, want) {
		t.Fatalf("%v: read %+v", ps, c)
	}
	again, ps := ParseCriteria(c.Marshal(), Options{})
	if len(ps) > 0 || !reflect.DeepEqual(again, c) {
		t.Errorf("written and read again: %v: %+v", ps, again)
	}
}

// The table of what goes together and of what is of a type.
func TestCriterionValues(t *testing.T) {
	for _, c := range []struct{ form, good, bad string }{ // values between bars
		{"integer eq", "0|-1|+16|007|123456789012345678901", "1.0|1e3|16GB|x|0x10|1 2|" + strings.Repeat("9", 400)},
		{"decimal lt", "0|-1.5|.5|5.|+2", "1e3|INF|NaN|2 GHz|,5|1_0|" + strings.Repeat("9", 400)},
		{"duration le", "PT1H|P1D|P1DT2H3M4.5S|-PT1S|PT0S|P000000001D", "P|PT|P1DT|P1Y|P1M|1h|PT1.5H|P1W|PT1S1M|PT.5S|P1234567890D"},
		{"boolean eq", "true|false|1|0", "yes|TRUE|2"},
		{"string eq", "|a|a b|*", ""},
		{"string contains", "a", ""},
		{"string matches", "a.*|[a-z]{2}|^a$", "(|a**|[z-a]"},
		{"string in", "a|a b c", ""},
		{"integer in", "1 2 3|4", "1 b|1,2"},
		{"decimal in", "1.5 2", "a"},
		{"duration in", "PT1H P1D", "PT1H 2"},
	} {
		kind, operator, _ := strings.Cut(c.form, " ")
		read := func(v string) error {
			_, ps := ParseCriteria(criteria(fmt.Sprintf(`<p:Criterion name="A" type=%q operator=%q>%s</p:Criterion>`, kind, operator, v)), Options{})
			return ps.Err()
		}
		for v := range strings.SplitSeq(c.good, "|") {
			if err := read(v); err != nil {
				t.Errorf("%s %q: %v", c.form, v, err)
			}
		}
		if c.bad == "" {
			continue
		}
		for v := range strings.SplitSeq(c.bad, "|") {
			if err := read(v); !fail.Is(err, fail.Invalid) {
				t.Errorf("%s %q is taken: %v", c.form, v, err)
			}
		}
	}
	for _, form := range []string{
		"string lt", "boolean lt", "boolean in", "integer contains", "decimal matches", "string min", "boolean max", "integer like", "number eq",
	} {
		kind, operator, _ := strings.Cut(form, " ")
		if _, ps := ParseCriteria(criteria(fmt.Sprintf(`<p:Criterion name="A" type=%q operator=%q kind="SOFT">1</p:Criterion>`, kind, operator)), Options{}); !fail.Is(ps.Err(), fail.Invalid) {
			t.Errorf("%s is taken", form)
		}
	}
	for _, one := range []string{
		`<p:Criterion type="integer" operator="eq">1</p:Criterion>`,
		`<p:Criterion name="A" operator="eq">1</p:Criterion>`,
		`<p:Criterion name="A" type="integer">1</p:Criterion>`,
		`<p:Criterion name="1A" type="integer" operator="eq">1</p:Criterion>`,
		`<p:Criterion name="A:" type="integer" operator="eq">1</p:Criterion>`,
		`<p:Criterion name="A" type="integer" operator="eq" kind="soft">1</p:Criterion>`,
		`<p:Criterion name="A" type="integer" operator="eq" priority="0">1</p:Criterion>`,
		`<p:Criterion name="A" type="integer" operator="eq" priority="1001">1</p:Criterion>`,
		`<p:Criterion name="A" type="integer" operator="min">1</p:Criterion>`,
		`<p:Criterion name="A" type="integer" operator="min" kind="HARD"/>`,
		`<p:Criterion name="A" type="integer" operator="max" kind="SOFT">1</p:Criterion>`,
		`<p:Criterion name="A" type="string" operator="in"> </p:Criterion>`,
		`<p:Criterion name="A" type="string" operator="matches"/>`,
		`<p:Criterion name="A" type="string" operator="eq">` + strings.Repeat("a", maxCriterion+1) + `</p:Criterion>`,
		`<p:Criterion name="A" type="string" operator="eq">` + "a\u0085b" + `</p:Criterion>`,
		"",
		strings.Repeat(`<p:Criterion name="A" type="integer" operator="eq">1</p:Criterion>`, maxCriteria+1),
		`<q:Other xmlns:q="urn:other"/>`,
	} {
		if _, ps := ParseCriteria(criteria(one), Options{}); ps.Err() == nil {
			t.Errorf("taken: %.200s", one)
		}
	}
	for _, doc := range []string{"", "<Criteria/>", `<p:Placement xmlns:p="` + NSPortolan + `"/>`, `<!DOCTYPE a><p:Criteria xmlns:p="` + NSPortolan + `"/>`} {
		if c, ps := ParseCriteria([]byte(doc), Options{File: "f.xml"}); c != nil || ps.Err() == nil || !strings.HasPrefix(ps[0].String(), "f.xml:") {
			t.Errorf("%q: %v %v", doc, c, ps)
		}
	}
}

func TestAddCriteria(t *testing.T) {
	const price = `<p:Criterion name="Price" type="decimal" operator="min" kind="SOFT"/>`
	for _, c := range []struct {
		name, doc string
		want      int    // criteria
		keeps     string // still there, word for word
	}{
		{"no resources", `<!-- mine --><j:JobDefinition xmlns:j="` + NS + `"><j:JobDescription><j:Application><j:ApplicationName>a &amp; b</j:ApplicationName></j:Application><!-- kept --><j:DataStaging><j:FileName>f</j:FileName><j:CreationFlag>append</j:CreationFlag></j:DataStaging></j:JobDescription></j:JobDefinition>`, 1, "a &amp; b</j:ApplicationName></j:Application><j:Resources>"},
		{"default namespace", `<JobDefinition xmlns="` + NS + `"><JobDescription>
  <JobIdentification/>
</JobDescription></JobDefinition>`, 1, "<JobIdentification/><Resources>"},
		{"resources", `<JobDefinition xmlns="` + NS + `"><JobDescription><Resources><TotalCPUCount><Exact>2</Exact></TotalCPUCount> <!-- two --> </Resources></JobDescription></JobDefinition>`, 1, "<Exact>2</Exact></TotalCPUCount> <!-- two --> "},
		{"criteria under another prefix", `<JobDefinition xmlns="` + NS + `" xmlns:portolan="urn:x"><JobDescription><Resources><Criteria xmlns="` + NSPortolan + `"> <Criterion name="A" type="string" operator="eq">a</Criterion> <x:Later xmlns:x="urn:later"/> </Criteria></Resources></JobDescription></JobDefinition>`, 2, `<x:Later xmlns:x="urn:later"/>`},
	} {
		out, err := AddCriteria([]byte(c.doc), criteria(price))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !strings.Contains(string(out), c.keeps) {
			t.Errorf("%s: %q is not in\n%s", c.name, c.keeps, out)
		}
		j, ps := Parse(out, Options{Ignore: []string{"urn:later"}})
		if len(ps.Invalid()) > 0 || len(j.Description.Resources.Criteria.List) != c.want {
			t.Errorf("%s: %v\n%s", c.name, ps, out)
			continue
		}
		before, _ := Parse([]byte(c.doc), Options{Ignore: []string{"urn:later"}})
		more, _ := ParseCriteria(criteria(price), Options{})
		typed, err := before.WithCriteria(more)
		if err != nil || string(stripForeign(typed).Marshal()) != string(stripForeign(j).Marshal()) {
			t.Errorf("%s: WithCriteria says otherwise (%v):\n%s\n%s", c.name, err, typed.Marshal(), j.Marshal())
		}
		if r := before.Description.Resources; r != nil && r.Criteria != nil && len(r.Criteria.List) != c.want-1 {
			t.Errorf("%s: WithCriteria changed what it was given", c.name)
		}
	}
	full := placement("")
	var err error
	for range maxCriteria {
		if full, err = AddCriteria(full, criteria(price)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := AddCriteria(full, criteria(price)); !fail.Is(err, fail.Invalid) {
		t.Errorf("one more than the most: %v", err)
	}
	j, _ := Parse(full, Options{})
	if _, err := j.WithCriteria(&Criteria{List: []Criterion{{Name: "A"}}}); !fail.Is(err, fail.Invalid) {
		t.Errorf("one more than the most, typed: %v", err)
	}
	for _, c := range []struct{ doc, criteria string }{
		{string(placement("")), "<nothing/>"},
		{string(placement("")), string(criteria(`<p:Criterion name="Price" type="decimal" operator="min"/>`))},
		{"<nothing/>", string(criteria(price))},
		{"nothing", string(criteria(price))},
		{`<JobDefinition xmlns="` + NS + `"/>`, string(criteria(price))},
	} {
		if out, err := AddCriteria([]byte(c.doc), []byte(c.criteria)); !fail.Is(err, fail.Invalid) {
			t.Errorf("%q and %q: %v\n%s", c.doc, c.criteria, err, out)
		}
	}
}

func TestSetVO(t *testing.T) {
	for _, doc := range []string{
		`<JobDefinition xmlns="` + NS + `"><JobDescription/></JobDefinition>`,
		string(placement("")),
		string(placement(`<p:Share>a</p:Share>`)),
		string(placement(`<p:VO>another</p:VO>`)),
		string(placement(`<p:Manager name="A">1</p:Manager> <q:Z xmlns:q="urn:z"/>`)),
	} {
		out, err := SetVO([]byte(doc), "bio.example.org")
		if err != nil {
			t.Error(err)
			continue
		}
		j, ps := Parse(out, Options{Ignore: []string{"urn:z"}})
		if ps.Err() != nil || *j.Description.Resources.Placement.VO != "bio.example.org" {
			t.Errorf("%v\n%s", ps, out)
		}
	}
	for _, vo := range []string{"", " ", "a\x01b", "\xff", strings.Repeat("a", 256)} {
		if out, err := SetVO(placement(""), vo); !fail.Is(err, fail.Invalid) {
			t.Errorf("%q: %v\n%s", vo, err, out)
		}
	}
}

// The gateway's own elements are none that a manager takes or refuses.
func TestGatewaysOwn(t *testing.T) {
	j, _ := Parse(placement(`<p:Share>a</p:Share><p:VO>bio</p:VO>`), Options{})
	j, err := j.WithCriteria(&Criteria{List: []Criterion{{Name: "A", Type: "integer", Operator: "min", Priority: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := j.Uses(); !slices.Equal(got, []string{"portolan:Placement/portolan:Share"}) {
		t.Errorf("uses %v", got)
	}
	for _, e := range Elements() {
		if strings.Contains(e, "VO") && strings.Contains(e, "portolan:Placement") || strings.Contains(e, "Criteri") {
			t.Errorf("%s reaches managers", e)
		}
	}
}

// Any criteria come back from their file, alone or in a document.
func TestCriteriaComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := generator{t}.criteria()
		again, _ := ParseCriteria(c.Marshal(), Options{})
		if again == nil || !reflect.DeepEqual(again.List, c.List) {
			t.Fatalf("read back differently:\n%s\n%+v", c.Marshal(), again)
		}
	})
}

func FuzzParseCriteria(f *testing.F) {
	f.Add(criteria(`<p:Criterion name="FreeCPUs" type="integer" operator="ge" priority="3">16</p:Criterion>`))
	f.Add(criteria(`<p:Criterion name="Feature" type="string" operator="matches">(a|b){1,3}</p:Criterion><q:x xmlns:q="urn:q"/>`))
	f.Add(criteria(`<p:Criterion name="Wait" type="duration" operator="le" kind="SOFT">P1DT2H</p:Criterion>`))
	doc := placement(everyPlacement)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ps := ParseCriteria(b, Options{})
		if c == nil {
			if ps.Err() == nil {
				t.Fatal("nothing was read and nothing said")
			}
			return
		}
		if len(c.List) > maxCriteria && ps.Err() == nil || len(ps) > numSeverities*maxProblems {
			t.Fatalf("%d criteria, %d problems", len(c.List), len(ps))
		}
		out, err := AddCriteria(doc, b)
		if ps.Err() != nil {
			if err == nil {
				t.Fatalf("what is wrong is added:\n%s", out)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		again, said := ParseCriteria(c.Marshal(), Options{})
		if said.Err() != nil || !reflect.DeepEqual(again.List, c.List) {
			t.Fatalf("%v: read back differently:\n%s", said, c.Marshal())
		}
		if j, ps := Parse(out, Options{}); ps.Err() != nil || !reflect.DeepEqual(j.Description.Resources.Criteria.List, c.List) {
			t.Fatalf("%v:\n%s", ps, out)
		}
	})
}
