package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// envelope is a reply, read.
type envelope struct {
	version soap.Version
	doc     *xmldoc.Document
	header  map[xmldoc.Name]string // text of the header blocks
	body    []byte                 // the Body's child, a document of its own
	name    xmldoc.Name            // of the Body's child
	code    string                 // local name of the fault's most specific code
	top     string                 // local name of the fault's first code
	reason  string
	detail  xmldoc.Name // the first child of the fault's detail
}

func (e *envelope) fault() bool { return e.name.Local == "Fault" }

func (e *envelope) String() string {
	if e.fault() {
		return fmt.Sprintf("fault %s/%s %s: %s", e.top, e.code, e.detail.Local, e.reason)
	}
	return e.name.Local
}

func readEnvelope(b []byte) (*envelope, error) {
	doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{Bytes: 64 << 20})
	if err != nil {
		return nil, fmt.Errorf("%w: %.200s", err, b)
	}
	e := &envelope{doc: doc, header: map[xmldoc.Name]string{}}
	ns := xmldoc.NameOf(doc.Root()).Space
	switch ns {
	case soap.NS11:
		e.version = soap.V11
	case soap.NS12:
		e.version = soap.V12
	default:
		return nil, fmt.Errorf("the reply's root is %s", xmldoc.NameOf(doc.Root()))
	}
	if h := xmldoc.Child(doc.Root(), ns, "Header"); h != nil {
		for _, c := range h.ChildElements() {
			e.header[xmldoc.NameOf(c)] = xmldoc.Collapse(xmldoc.Text(c))
		}
	}
	body := xmldoc.Child(doc.Root(), ns, "Body")
	if body == nil || len(body.ChildElements()) != 1 {
		return nil, fmt.Errorf("the reply's Body does not have one child: %.300s", b)
	}
	p := body.ChildElements()[0]
	e.name, e.body = xmldoc.NameOf(p), doc.Standalone(p)
	if !e.fault() {
		return e, nil
	}
	local := func(s string) string {
		_, l, ok := strings.Cut(strings.TrimSpace(s), ":")
		if !ok {
			l = s
		}
		return l
	}
	detail := xmldoc.Child(p, "", "detail")
	if e.version == soap.V11 {
		if c := xmldoc.Child(p, "", "faultcode"); c != nil {
			e.top = local(xmldoc.Text(c))
		}
		if s := xmldoc.Child(p, "", "faultstring"); s != nil {
			e.reason = xmldoc.Text(s)
		}
		e.code = e.top
	} else {
		detail = xmldoc.Child(p, ns, "Detail")
		if c := xmldoc.Child(p, ns, "Code"); c != nil {
			if v := xmldoc.Child(c, ns, "Value"); v != nil {
				e.top = local(xmldoc.Text(v))
			}
			e.code = e.top
			for s := xmldoc.Child(c, ns, "Subcode"); s != nil; s = xmldoc.Child(s, ns, "Subcode") {
				if v := xmldoc.Child(s, ns, "Value"); v != nil {
					e.code = local(xmldoc.Text(v))
				}
			}
		}
		if r := xmldoc.Child(p, ns, "Reason"); r != nil {
			if t := xmldoc.Child(r, ns, "Text"); t != nil {
				e.reason = xmldoc.Text(t)
			}
		}
	}
	if detail != nil {
		for _, c := range detail.ChildElements() {
			e.detail = xmldoc.NameOf(c)
			break
		}
	}
	return e, nil
}

// schemas collects reply bodies and has libxml2 judge them, all in one run for
// each schema.
type schemas struct {
	shared string
	dir    string
	files  map[string][]string // schema to files
}

func newSchemas(t testing.TB) *schemas {
	return &schemas{shared: testenv.Shared(t), dir: t.TempDir(), files: map[string][]string{}}
}

// add keeps a body for judging under a name.
func (s *schemas) add(t testing.TB, name string, e *envelope) {
	t.Helper()
	schema := map[string]string{bes.NSFactory: "bes-factory.xsd", bes.NSManagement: "bes-management.xsd"}[e.name.Space]
	if schema == "" {
		return
	}
	f := filepath.Join(s.dir, strings.ReplaceAll(name, "/", "_")+".xml")
	if err := os.WriteFile(f, e.body, 0o600); err != nil {
		t.Fatal(err)
	}
	s.files[schema] = append(s.files[schema], f)
}

// judge fails the test for each body that its schema refuses.
func (s *schemas) judge(t testing.TB) {
	t.Helper()
	xmllint := testenv.Tool(t, "xmllint", "libxml2-utils")
	n := 0
	for schema, files := range s.files {
		n += len(files)
		args := append([]string{"--nonet", "--noout", "--schema", filepath.Join(s.shared, "schemas/bes/gfd108-gridsam", schema)}, files...)
		cmd := exec.Command(xmllint, args...)
		cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+filepath.Join(s.shared, "schemas/bes/catalog.xml"))
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Run(); err != nil {
			var bad []string
			for line := range strings.Lines(out.String()) {
				if !strings.Contains(line, " validates") && !strings.Contains(line, "Skipping import") {
					bad = append(bad, line)
				}
			}
			t.Errorf("replies that %s refuses:\n%s", schema, strings.Join(bad, ""))
		}
	}
	if n == 0 {
		t.Error("no reply was judged by a schema")
	}
}
