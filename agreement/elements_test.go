package agreement_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func read(t testing.TB, s string) *xmldoc.Document {
	t.Helper()
	doc, err := xmldoc.ReadBytes([]byte(s), xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return doc
}

// same compares what two elements say: expanded names, attributes, text; not
// prefixes, declarations and comments.
func same(a, b *etree.Element) bool {
	if a == nil || b == nil {
		return a == b
	}
	if xmldoc.NameOf(a) != xmldoc.NameOf(b) || !reflect.DeepEqual(attributesOf(a), attributesOf(b)) {
		return false
	}
	x, y := a.ChildElements(), b.ChildElements()
	if len(x) == 0 && xmldoc.Text(a) != xmldoc.Text(b) {
		return false
	}
	return slices.EqualFunc(x, y, same)
}

func attributesOf(e *etree.Element) map[xmldoc.Name]string {
	m := map[xmldoc.Name]string{}
	for _, a := range e.Attr {
		if a.Space != "xmlns" && (a.Space != "" || a.Key != "xmlns") {
			n := xmldoc.Name{Local: a.Key}
			if a.Space != "" {
				n, _ = xmldoc.ResolveQName(e, a.Space+":"+a.Key)
			}
			m[n] = a.Value
		}
	}
	return m
}

// equal compares documents; elements by what they say, and not the Element that
// a document was read from.
func equal(a, b reflect.Value) bool {
	if a.Type() == reflect.TypeFor[*etree.Element]() {
		return same(a.Interface().(*etree.Element), b.Interface().(*etree.Element))
	}
	switch a.Kind() { //nolint:exhaustive // the others are compared as they are
	case reflect.Interface, reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return a.Elem().Type() == b.Elem().Type() && equal(a.Elem(), b.Elem())
	case reflect.Struct:
		if a.Type().PkgPath() == "time" {
			return reflect.DeepEqual(a.Interface(), b.Interface())
		}
		for i := range a.NumField() {
			if a.Type().Field(i).Name != "Element" && !equal(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !equal(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	default:
		return reflect.DeepEqual(a.Interface(), b.Interface())
	}
}

type document interface{ Encode() *etree.Element }

// thereAndBack checks that what was decoded is the same once it was written and
// read again.
func thereAndBack[T document](t testing.TB, v T, decode func(*etree.Element) (T, error)) {
	t.Helper()
	b := xmldoc.Marshal(v.Encode())
	w, err := decode(read(t, string(b)).Root())
	if err != nil {
		t.Fatalf("%v in what was encoded: %s", err, b)
	}
	if !equal(reflect.ValueOf(v), reflect.ValueOf(w)) {
		t.Fatalf("another document came back: %s\n%s", b, xmldoc.Marshal(w.Encode()))
	}
	// Unused declarations may have been added once.
	b = xmldoc.Marshal(w.Encode())
	w, err = decode(read(t, string(b)).Root())
	if err != nil {
		t.Fatal(err)
	}
	if again := xmldoc.Marshal(w.Encode()); string(again) != string(b) {
		t.Fatalf("not a fixed point:\n%s\n%s", b, again)
	}
}

// driver is a schema that knows WS-Agreement's messages and states and JSDL: what
// stands in a term is checked strictly.
const driver = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:import namespace="http://schemas.ggf.org/graap/2007/03/ws-agreement" schemaLocation="all.xsd"/>
<xs:import namespace="http://schemas.ggf.org/jsdl/2005/11/jsdl" schemaLocation="%[1]s/jsdl/jsdl.xsd"/>
<xs:import namespace="http://schemas.ggf.org/jsdl/2005/11/jsdl-posix" schemaLocation="%[1]s/jsdl/jsdl-posix.xsd"/>
<xs:import namespace="urn:x" schemaLocation="x.xsd"/>
<xs:import namespace="http://docs.oasis-open.org/wsrf/rp-2" schemaLocation="%[1]s/ws/rp-2.xsd"/>
<xs:import namespace="http://docs.oasis-open.org/wsrf/r-2" schemaLocation="%[1]s/ws/r-2.xsd"/>
</xs:schema>`

const all = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="http://schemas.ggf.org/graap/2007/03/ws-agreement">
<xs:include schemaLocation="%[1]s/ws-agreement-factory-wsdl-types.xsd"/>
<xs:include schemaLocation="%[1]s/ws-agreement-pending-agreement-factory-wsdl-types.xsd"/>
<xs:include schemaLocation="%[1]s/ws-agreement-wsdl-types.xsd"/>
<xs:include schemaLocation="%[1]s/ws-agreement-state-wsdl-types.xsd"/>
<xs:include schemaLocation="%[1]s/ws-agreement-acceptance-wsdl-types.xsd"/>
</xs:schema>`

const strangers = `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:x" attributeFormDefault="qualified">
<xs:element name="e"/><xs:attribute name="a"/></xs:schema>`

// extra is what a driver imports beside WS-Agreement.
var extra = `<xs:import namespace="urn:x" schemaLocation="x.xsd"/><xs:import namespace="http://schemas.ggf.org/jsdl/2005/11/jsdl" schemaLocation="jsdl.xsd"/>`

// verdicts asks libxml2 which of the documents are valid: "" is yes.
func verdicts(t testing.TB, docs ...string) []string {
	t.Helper()
	return verdictsBy(t, fmt.Sprintf(driver, filepath.Join(testenv.Shared(t), "schemas")), docs...)
}

func verdictsBy(t testing.TB, schema string, docs ...string) []string {
	t.Helper()
	xmllint := testenv.Tool(t, "xmllint", "libxml2-utils")
	schemas := filepath.Join(testenv.Shared(t), "schemas")
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("driver.xsd", strings.Replace(schema, `schemaLocation="jsdl.xsd"`, `schemaLocation="`+schemas+`/jsdl/jsdl.xsd"`, 1))
	write("all.xsd", fmt.Sprintf(all, filepath.Join(schemas, "ws-agreement", "wsag4j")))
	write("x.xsd", strangers)
	args := []string{"--nonet", "--noout", "--schema", filepath.Join(dir, "driver.xsd")}
	for i, d := range docs {
		name := fmt.Sprintf("%04d.xml", i)
		write(name, d)
		args = append(args, filepath.Join(dir, name))
	}
	cmd := exec.CommandContext(t.Context(), xmllint, args...)
	cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+filepath.Join(schemas, "ws-agreement", "catalog.xml"))
	out, _ := cmd.CombinedOutput()
	list := make([]string, len(docs))
	for i := range docs {
		name := fmt.Sprintf("%04d.xml", i)
		switch {
		case strings.Contains(string(out), name+" validates"):
		case strings.Contains(string(out), name+" fails to validate"):
			list[i] = "invalid"
			for l := range strings.Lines(string(out)) {
				if strings.Contains(l, name+":") {
					list[i] = l
					break
				}
			}
		default:
			t.Fatalf("no verdict on %s:\n%s", docs[i], out)
		}
	}
	return list
}

// TestSamples: every document of the samples is read or refused as the schema has
// it, and those that are read survive. The schema does not know what stands in the
// term of one.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testenv.Shared(t), "samples", "soap", "wsag-*.xml"))
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	var docs []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, string(b))
	}
	count := map[string]int{}
	for i, verdict := range verdicts(t, docs...) {
		name := filepath.Base(files[i])
		tpl, err := agreement.ParseTemplate([]byte(docs[i]))
		valid := verdict == ""
		if name == "wsag-wsag4j-betaas-template-simple.xml" {
			if valid || !strings.Contains(verdict, "TimeConstraint") {
				t.Errorf("%s: libxml2 says %q", name, verdict)
			}
			valid = true
		}
		if (err == nil) != valid {
			t.Errorf("%s: %v; libxml2 says %q", name, err, verdict)
		}
		if err != nil {
			count["refused"]++
			s := fail.Sentence(err)
			if !fail.Is(err, fail.Invalid) || !strings.HasPrefix(s, "line 2:1: /") || !strings.Contains(s, agreement.NS) {
				t.Errorf("%s: %v", name, err)
			}
			if strings.HasPrefix(name, "wsag-atos") && !strings.Contains(s, "http://www.ggf.org/namespaces/ws-agreement") {
				t.Errorf("%s: the older namespace is not named: %s", name, s)
			}
			continue
		}
		count["read"]++
		thereAndBack(t, tpl, agreement.DecodeTemplate)
		if len(tpl.Services()) != 1 || tpl.TemplateID == "" || tpl.TemplateID != tpl.Context.TemplateID || tpl.Name != tpl.Context.TemplateName {
			t.Errorf("%s: read as %+v", name, tpl)
		}
		// An offer made of it is an offer.
		o := &agreement.Offer{Agreement: tpl.Agreement}
		thereAndBack(t, o, agreement.DecodeOffer)
	}
	if count["read"] != 3 || count["refused"] != 5 {
		t.Errorf("%v", count)
	}
}

// TestMetricsKeepTheirPrefix: the QName of a metric means what it meant when it was read, whatever
// its prefix is bound to, there and where the location is.
func TestMetricsKeepTheirPrefix(t *testing.T) {
	for name, c := range map[string]struct{ on, metric, location, space string }{
		"none":                 {},
		"a URI":                {metric: "http://metrics.example/length"},
		"a URN":                {metric: "urn:metrics:length"},
		"a word":               {metric: "seconds"},
		"declared above":       {metric: "xs:dateTime", space: "http://www.w3.org/2001/XMLSchema"},
		"declared there":       {on: `xmlns:m="urn:m"`, metric: "m:length", space: "urn:m"},
		"declared otherwise":   {on: `xmlns:m="urn:m"`, metric: "m:length", location: `xmlns:m="urn:other"`, space: "urn:m"},
		"of the location only": {metric: "m:length", location: `xmlns:m="urn:m"`},
		"as ours":              {metric: "wsag:Name", space: agreement.NS},
		"as ours, bound anew":  {on: `xmlns:o="` + agreement.NS + `" xmlns:wsag="urn:m"`, metric: "wsag:length", space: "urn:m"},
		"the first other":      {on: `xmlns:o="` + agreement.NS + `" xmlns:wsag="urn:m" xmlns:w1="urn:w1"`, metric: "wsag:length", location: `xmlns:w2="urn:w2"`, space: "urn:m"},
		"of XML":               {metric: "xml:lang"},
		"of declarations":      {metric: "xmlns:x"},
	} {
		o := "wsag"
		if strings.Contains(c.on, "xmlns:o=") {
			o = "o"
		}
		v := fmt.Sprintf(`<%[1]s:Variable %[2]s %[1]s:Name="v" %[1]s:Metric="%[3]s"><%[1]s:Location %[4]s>//xs:a/m:b/wsag:c/w1:d/w2:e</%[1]s:Location></%[1]s:Variable>`, o, c.on, c.metric, c.location)
		if c.metric == "" {
			v = strings.Replace(v, o+`:Metric=""`, "", 1)
		}
		doc := `<wsag:AgreementOffer xmlns:wsag="` + agreement.NS + `" xmlns:xs="http://www.w3.org/2001/XMLSchema"><wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider></wsag:Context><wsag:Terms><wsag:All>` + sdt(1) +
			`<wsag:ServiceProperties wsag:Name="p" wsag:ServiceName="s"><wsag:VariableSet>` + v + `</wsag:VariableSet></wsag:ServiceProperties></wsag:All></wsag:Terms></wsag:AgreementOffer>`
		offer, err := agreement.ParseOffer([]byte(doc))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		thereAndBack(t, offer, agreement.DecodeOffer)
		// On the wire, not in our reading of it.
		find := func(e *etree.Element) *etree.Element {
			for _, x := range e.FindElements("//VariableSet/*") {
				return x
			}
			return nil
		}
		before, after := find(read(t, doc).Root()), find(read(t, string(xmldoc.Marshal(offer.Encode()))).Root())
		if !same(before, after) {
			t.Errorf("%s: it has become %s", name, xmldoc.Marshal(after))
		}
		n, err := xmldoc.ResolveQName(after, c.metric)
		if c.space != "" && (err != nil || n.Space != c.space) {
			t.Errorf("%s: the metric is %v, %v in %s", name, n, err, xmldoc.Marshal(xmldoc.Detach(after)))
		}
		for _, prefix := range []string{"xs", "m", "wsag", "w1", "w2"} {
			was, err := xmldoc.ResolveQName(before.ChildElements()[0], prefix+":x")
			is, also := xmldoc.ResolveQName(after.ChildElements()[0], prefix+":x")
			if err == nil && (also != nil || was != is) {
				t.Errorf("%s: %s is %v at the location and was %v", name, prefix, is, was)
			}
		}
	}
}
