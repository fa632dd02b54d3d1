package bes_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/bes/bestest"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const job = `<jsdl:JobDefinition xmlns:jsdl="http://schemas.ggf.org/jsdl/2005/11/jsdl" xmlns:posix="http://schemas.ggf.org/jsdl/2005/11/jsdl-posix">
  <jsdl:JobDescription>
    <jsdl:JobIdentification><jsdl:JobName>hello</jsdl:JobName></jsdl:JobIdentification>
    <jsdl:Application><posix:POSIXApplication><posix:Executable>/bin/echo</posix:Executable><posix:Argument>a &amp; b</posix:Argument></posix:POSIXApplication></jsdl:Application>
  </jsdl:JobDescription>
</jsdl:JobDefinition>`

// wire carries messages to a handler without a socket, and keeps them.
type wire struct {
	h  http.Handler
	mu sync.Mutex
	// answers are the bodies that came back.
	answers [][]byte
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	in := httptest.NewRequest(r.Method, r.URL.String(), r.Body)
	in.Header = r.Header
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, in.WithContext(r.Context()))
	w.mu.Lock()
	w.answers = append(w.answers, bytes.Clone(rec.Body.Bytes()))
	w.mu.Unlock()
	return rec.Result(), nil
}

// world is a service in memory, on the wire, and a client of it.
type world struct {
	svc *bestest.Service
	*bes.Client
	wire *wire
}

const address = "http://gateway.example/bes"

func newWorld(t testing.TB, o bes.ServerOptions, v soap.Version) *world {
	t.Helper()
	svc := &bestest.Service{BaseURL: address}
	o.Verifier = soap.DevVerifier{}
	w := &wire{h: bes.NewServer(svc, o)}
	c := &soap.Client{URL: address, Version: v, Addressing: v == soap.V12, Transport: w, Retries: -1}
	return &world{svc, bes.NewClient(c), w}
}

func (w *world) create(t testing.TB) soap.EPR {
	t.Helper()
	r, err := w.CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: []byte(job)})
	if err != nil {
		t.Fatal(err)
	}
	return r.Activity
}

// post sends a body of bytes in an envelope and gives the status and the answer.
func post(t testing.TB, h http.Handler, v soap.Version, body string) (int, *xmldoc.Document) {
	t.Helper()
	msg := fmt.Sprintf(`<e:Envelope xmlns:e="%s"><e:Body>%s</e:Body></e:Envelope>`, v.Namespace(), body)
	r := httptest.NewRequest(http.MethodPost, address, strings.NewReader(msg))
	r.Header.Set("Content-Type", v.ContentType())
	return send(t, h, r)
}

func send(t testing.TB, h http.Handler, r *http.Request) (int, *xmldoc.Document) {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	b, err := io.ReadAll(rec.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 {
		return rec.Code, nil
	}
	doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err != nil {
		t.Fatalf("status %d, the answer is not XML: %v\n%.2000s", rec.Code, err, b)
	}
	return rec.Code, doc
}

// payload gives the Body's child of an envelope, as a document of its own.
func payload(t testing.TB, doc *xmldoc.Document) *xmldoc.Document {
	t.Helper()
	ns := doc.Name(doc.Root()).Space
	body := xmldoc.Child(doc.Root(), ns, "Body")
	if body == nil || len(body.ChildElements()) != 1 {
		t.Fatalf("the answer has no body:\n%s", doc.Raw(doc.Root()))
	}
	inner, err := xmldoc.ReadBytes(doc.Standalone(body.ChildElements()[0]), xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return inner
}

// validate runs libxml2 over documents; schema is a path below the shared
// folder's schemas, below wsdl/ one of ours, or an absolute one.
func validate(t *testing.T, schema string, docs ...[]byte) {
	t.Helper()
	xmllint := testenv.Tool(t, "xmllint", "libxml2-utils")
	shared := testenv.Shared(t)
	switch {
	case strings.HasPrefix(schema, "wsdl/"):
		schema = ownSchema(t, strings.TrimPrefix(schema, "wsdl/"))
	case !filepath.IsAbs(schema):
		schema = filepath.Join(shared, "schemas", schema)
	}
	dir := t.TempDir()
	args := []string{"--nonet", "--noout", "--schema", schema}
	for i, d := range docs {
		name := filepath.Join(dir, fmt.Sprintf("%03d.xml", i))
		if err := os.WriteFile(name, d, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	cmd := exec.CommandContext(t.Context(), xmllint, args...)
	cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+filepath.Join(shared, "schemas", "bes", "catalog.xml"))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return
	}
	t.Errorf("xmllint: %v\n%s", err, out)
	for i, d := range docs {
		if bytes.Contains(out, fmt.Appendf(nil, "%03d.xml:", i)) {
			t.Logf("%03d.xml: %s", i, d)
		}
	}
}

// payloads gives the bodies that came back, by namespace of the body's element.
func (w *world) payloads(t *testing.T) map[string][][]byte {
	t.Helper()
	m := map[string][][]byte{}
	for _, a := range w.wire.answers {
		doc, err := xmldoc.ReadBytes(a, xmldoc.Limits{})
		if err != nil {
			t.Fatalf("%v in %s", err, a)
		}
		p := payload(t, doc)
		n := p.Name(p.Root())
		m[n.Space] = append(m[n.Space], p.Standalone(p.Root()))
	}
	return m
}
