package bes_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/bes/bestest"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func get(t testing.TB, h http.Handler, url string) (int, []byte) {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, url, nil))
	return rec.Code, rec.Body.Bytes()
}

// ownSchema puts our schemas, as they are served, into a folder and gives the
// path of one.
func ownSchema(t testing.TB, name string) string {
	t.Helper()
	h := bes.NewServer(&bestest.Service{}, bes.ServerOptions{})
	dir := t.TempDir()
	location := regexp.MustCompile(`schemaLocation="[^"]*\?xsd=`)
	files, err := filepath.Glob("wsdl/*.xsd")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		code, b := get(t, h, address+"?xsd="+filepath.Base(f))
		if code != http.StatusOK {
			t.Fatalf("%s: status %d", f, code)
		}
		b = location.ReplaceAll(b, []byte(`schemaLocation="`))
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, name)
}

func TestDescription(t *testing.T) {
	for _, o := range []bes.ServerOptions{{}, {Dialect: bes.Dialect2007}, {ExternalURL: "https://g.example/bes"}} {
		h := bes.NewServer(&bestest.Service{}, o)
		code, b := get(t, h, "http://10.0.0.7:8080/bes?wsdl")
		if code != http.StatusOK {
			t.Fatal(code)
		}
		doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		want := "http://10.0.0.7:8080/bes"
		if o.ExternalURL != "" {
			want = o.ExternalURL
		}
		addresses := doc.Root().FindElements("//address")
		for _, a := range addresses {
			if got := a.SelectAttrValue("location", ""); got != want {
				t.Errorf("a port is at %q, want %q", got, want)
			}
		}
		if len(addresses) != 6 {
			t.Errorf("%d ports", len(addresses))
		}
		if strings.Contains(string(b), "schemaLocation") || strings.Contains(string(b), "@") || strings.Contains(string(b), "<no value>") {
			t.Error("the description is not flat or not filled in")
		}
		if got := strings.Contains(string(b), `"Cancelled" type="xsd:boolean"`) && strings.Contains(string(b), "InvalidActivityIdentifierFault"); got != (o.Dialect == bes.Dialect2007) {
			t.Errorf("dialect %d: the other dialect's words", o.Dialect)
		}
	}
}

// TestDescriptionAgreesWithTheServer: what is described is answered, with the
// same actions, and what is answered is described.
func TestDescriptionAgreesWithTheServer(t *testing.T) {
	for name, svc := range map[string]bes.Service{"a controller": &bestest.Service{}, "a service": struct{ bes.Service }{&bestest.Service{}}} {
		h := bes.NewServer(svc, bes.ServerOptions{})
		_, b := get(t, h, address+"?wsdl")
		doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		described := map[string]bool{}
		for _, op := range doc.Root().FindElements("//binding/operation/operation") {
			described[op.SelectAttrValue("soapAction", "")] = true
		}
		var served []string
		for _, op := range h.Operations {
			served = append(served, op.Action)
			if !described[op.Action] {
				t.Errorf("%s: %s is not described", name, op.Action)
			}
			if _, ok := doc.Root(), strings.Contains(string(b), `wsam:Action="`+op.ReplyAction+`"`); !ok {
				t.Errorf("%s: %s is not described", name, op.ReplyAction)
			}
			if !strings.Contains(string(b), `wsam:Action="`+op.FaultAction+`"`) {
				t.Errorf("%s: %s is not described", name, op.FaultAction)
			}
		}
		for a := range described {
			if !slices.Contains(served, a) {
				t.Errorf("%s: %s is described and not served", name, a)
			}
		}
	}
}

func TestOwnSchemasTakeWhatTheStandardsTake(t *testing.T) {
	w := newWorld(t, bes.ServerOptions{}, soap.V11)
	everyOperation(t, w, bes.ServerOptions{})
	for space, bodies := range w.payloads(t) {
		if space != soap.NS11 {
			validate(t, "wsdl/"+map[string]string{bes.NSFactory: "bes-factory.xsd", bes.NSManagement: "bes-management.xsd", bes.NSPortolan: "portolan-bes.xsd"}[space], bodies...)
		}
	}
}
