package terms

import (
	"bytes"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
)

// written is an administrator's template: the id and the terms.
func written(name, id string, terms ...string) []byte {
	return []byte(`<wsag:Template xmlns:wsag="` + agreement.NS + `" xmlns:p="` + agreement.NSPortolan + `" wsag:TemplateId="` + id + `">
<wsag:Name>` + name + `</wsag:Name>
<wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider></wsag:Context>
<wsag:Terms><wsag:All>
` + strings.Join(terms, "\n") + `
</wsag:All></wsag:Terms>
<wsag:CreationConstraints/>
</wsag:Template>`)
}

func TestLoad(t *testing.T) {
	one := sdt("job", job("x", 60, ""))
	choice := "<wsag:ExactlyOne>" + sdt("soon", "<p:StartBy>2001-01-01T00:00:00Z</p:StartBy>") + sdt("late", "<p:FinishBy>2001-01-01T00:00:00Z</p:FinishBy>") + "</wsag:ExactlyOne>"
	list, err := Load(map[string][]byte{"b.xml": written("nightly", "1", one, choice), "a.xml": written("nightly", "2", one)})
	if err != nil || len(list) != 2 || list[0].TemplateID != "2" || list[1].TemplateID != "1" {
		t.Fatalf("%v %v", list, err)
	}
	if c := list[1].Context; c.TemplateName != "nightly" || c.TemplateID != "1" {
		t.Errorf("%+v", c)
	}
	var seven []string // of which one may take 127 selections
	for n := range strings.SplitSeq("abcdefg", "") {
		seven = append(seven, sdtOf(n, "job "+n, job(n, 60, "")))
	}
	for name, c := range map[string]struct {
		file []byte
		kind fail.Kind
		says []string
	}{
		"no XML":           {[]byte("<"), fail.Invalid, []string{"t.xml:1"}},
		"another document": {[]byte("<x/>"), fail.Invalid, []string{"t.xml:1:"}},
		"a stranger":       {written("n", "1", one, "", sdt("odd", `<x:Thing xmlns:x="urn:x"/>`)), fail.Unsupported, []string{"t.xml:7:1: ", `"odd"`, "urn:x"}},
		"in a choice":      {written("n", "1", one, "<wsag:ExactlyOne>", sdt("w", window(hours, 2*hours)), sdt("odd", `<p:Luck/>`), "</wsag:ExactlyOne>"), fail.Unsupported, []string{"t.xml:8:1: ", "Luck"}},
		"a guarantee":      {written("n", "1", one, guaranteeTerm("g", "luck", "<p:atMost>1</p:atMost>")), fail.Unsupported, []string{"t.xml:6:1: ", "luck"}},
		"no job":           {written("n", "1", sdt("w", window(hours, 2*hours))), fail.Invalid, []string{"t.xml:5:1: ", "no job"}},
		"many choices":     {written("n", "1", append(append([]string{"<wsag:OneOrMore>"}, seven...), "</wsag:OneOrMore>")...), fail.Exhausted, []string{"64"}},
		"no id":            {written("n", "", one), fail.Invalid, []string{"t.xml:1:1: ", "TemplateId"}},
		"no name":          {written("", "1", one), fail.Invalid, []string{"t.xml:1:1: ", "wsag:Name"}},
		"our name":         {written("finish-by", "1", one), fail.Invalid, []string{"gateway gives"}},
		"our name at":      {written("finish-by@x", "1", one), fail.Invalid, []string{"gateway gives"}},
		"a location":       {bytes.Replace(written("n", "1", one), []byte("<wsag:CreationConstraints/>"), []byte("<wsag:CreationConstraints>\n<wsag:Item><wsag:Location>/a</wsag:Location><wsag:ItemConstraint/></wsag:Item>\n<wsag:Item><wsag:Location>/a[</wsag:Location><wsag:ItemConstraint/></wsag:Item></wsag:CreationConstraints>"), 1), fail.Invalid, []string{"t.xml:9:1: "}},
		"a free language":  {bytes.Replace(written("n", "1", one), []byte("<wsag:CreationConstraints/>"), []byte("<wsag:CreationConstraints>\n<wsag:Constraint>luck</wsag:Constraint></wsag:CreationConstraints>"), 1), fail.Unsupported, []string{"t.xml:8:1: ", "Assert"}},
		"another context":  {[]byte(strings.Replace(string(written("n", "1", one)), "</wsag:Context>", "<wsag:TemplateName>m</wsag:TemplateName></wsag:Context>", 1)), fail.Invalid, []string{"Context"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(map[string][]byte{"t.xml": c.file})
			refused(t, err, c.kind, c.says...)
		})
	}
	_, err = Load(map[string][]byte{"a.xml": written("n", "1", one), "b.xml": written("n", "1", one)})
	refused(t, err, fail.Conflict, "b.xml:1:", "a.xml")
	// All that is wrong is told.
	_, err = Load(map[string][]byte{"a.xml": []byte("<x/>"), "b.xml": []byte("<y/>")})
	refused(t, err, fail.Invalid, "a.xml:1", "\nb.xml:1")
}
