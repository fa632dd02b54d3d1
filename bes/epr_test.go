package bes_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func decode(t testing.TB, s string) soap.EPR {
	t.Helper()
	doc, err := xmldoc.ReadBytes([]byte(s), xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	e, err := soap.DecodeEPR(doc.Root())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestActivityIDInAlteredReferences has what clients make of our references.
func TestActivityIDInAlteredReferences(t *testing.T) {
	const p = `"http://portolan-project.org/ns/2026/bes"`
	const wsa = `"http://www.w3.org/2005/08/addressing"`
	for name, c := range map[string]struct{ epr, id string }{
		"as sent": {`<b:ActivityIdentifier xmlns:b="urn:b" xmlns:wsa=` + wsa + `><wsa:Address>http://g/bes/a/7</wsa:Address><wsa:ReferenceParameters><p:ActivityId xmlns:p=` + p + `>7</p:ActivityId></wsa:ReferenceParameters></b:ActivityIdentifier>`, "7"},
		"default namespaces": {`<ActivityIdentifier xmlns="urn:b"><Address xmlns=` + wsa + `>http://g/bes</Address><ReferenceParameters xmlns=` + wsa + `><ActivityId xmlns=` + p + `> 7
</ActivityId></ReferenceParameters></ActivityIdentifier>`, "7"},
		"no namespace, as ARC":      {`<ActivityIdentifier><wsa:Address xmlns:wsa=` + wsa + `>http://g/bes</wsa:Address><wsa:ReferenceParameters xmlns:wsa=` + wsa + `><x:Other xmlns:x="urn:x">9</x:Other><q:ActivityId xmlns:q=` + p + `>7</q:ActivityId></wsa:ReferenceParameters></ActivityIdentifier>`, "7"},
		"parameters dropped":        {`<E xmlns:wsa=` + wsa + `><wsa:Address>https://g.example/bes/a/0190-7</wsa:Address></E>`, "0190-7"},
		"parameter wins":            {`<E xmlns:wsa=` + wsa + `><wsa:Address>https://g.example/bes/a/8</wsa:Address><wsa:ReferenceParameters><p:ActivityId xmlns:p=` + p + `>7</p:ActivityId></wsa:ReferenceParameters></E>`, "7"},
		"another namespace":         {`<E xmlns:wsa=` + wsa + `><wsa:Address>https://g.example/bes</wsa:Address><wsa:ReferenceParameters><p:ActivityId xmlns:p="urn:stub">7</p:ActivityId></wsa:ReferenceParameters></E>`, ""},
		"bes++":                     {`<E xmlns:wsa=` + wsa + `><wsa:Address>https://localhost/[fork://localhost]-[22380]</wsa:Address></E>`, ""},
		"longer than an id":         {`<E xmlns:wsa=` + wsa + `><wsa:Address>https://g/bes/a/7/more</wsa:Address></E>`, ""},
		"empty parameter":           {`<E xmlns:wsa=` + wsa + `><wsa:Address>https://g/bes/a/7</wsa:Address><wsa:ReferenceParameters><p:ActivityId xmlns:p=` + p + `/></wsa:ReferenceParameters></E>`, ""},
		"the service's own address": {`<E xmlns:wsa=` + wsa + `><wsa:Address>https://g/bes/a/</wsa:Address></E>`, ""},
	} {
		if id, ok := bes.ActivityID(decode(t, c.epr)); id != c.id && ok || ok != (c.id != "") {
			t.Errorf("%s: %q, %v; want %q", name, id, ok, c.id)
		}
	}
}

func TestEPRThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringMatching(`[A-Za-z0-9._~-]{1,40}`).Draw(t, "id")
		base := "https://" + rapid.StringMatching(`[a-z]{1,10}(:[1-9][0-9]{1,3})?(/[a-z]{1,8}){0,3}/?`).Draw(t, "base")
		e := bes.NewEPR(base, id)
		written := e.Element("bf", xmldoc.Name{Space: bes.NSFactory, Local: "ActivityIdentifier"})
		doc, err := xmldoc.ReadBytes(xmldoc.Marshal(written), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		back, err := soap.DecodeEPR(doc.Root())
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := bes.ActivityID(back); !ok || got != id || back.Address != e.Address || strings.Contains(back.Address[8:], "//") {
			t.Fatalf("%q became %q, %v in %s", id, got, ok, xmldoc.Marshal(written))
		}
		back.ReferenceParameters = nil
		if got, ok := bes.ActivityID(back); !ok || got != id {
			t.Fatalf("without parameters %q became %q, %v", id, got, ok)
		}
	})
}
