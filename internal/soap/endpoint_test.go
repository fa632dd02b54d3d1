package soap

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

const testNS = "urn:test"

// echoEndpoint answers t:Echo with t:EchoResponse around a copy of what came, and
// an empty Body too.
func echoEndpoint() *Endpoint {
	echo := func(_ context.Context, m *Verified) (*etree.Element, error) {
		out := etree.NewElement("t:EchoResponse")
		out.CreateAttr("xmlns:t", testNS)
		if m.Payload != nil {
			out.AddChild(xmldoc.Detach(m.Payload))
		}
		return out, nil
	}
	return &Endpoint{
		Operations: Operations(
			Operation{Name: xmldoc.Name{Space: testNS, Local: "Echo"}, Action: "urn:test/Echo", ReplyAction: "urn:test/EchoResponse", FaultAction: "urn:test/Fault", Handle: echo},
			Operation{ReplyAction: "urn:test/EmptyResponse", Handle: echo},
		),
		Verifier:     DevVerifier{},
		newID:        func() string { return "urn:uuid:00000000-0000-4000-8000-000000000000" },
		newReference: func() string { return "00000000" },
	}
}

// answer is what a client sees.
type answer struct {
	status int
	header http.Header
	body   string
	doc    *xmldoc.Document
}

func post(t testing.TB, e *Endpoint, contentType, body string, header ...string) answer {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://gateway.example/echo", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return ask(t, e, r)
}

func ask(t testing.TB, h http.Handler, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	res := w.Result()
	b, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header, body: string(b)}
	if ct := res.Header.Get("Content-Type"); strings.Contains(ct, "xml") {
		doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
		if err != nil {
			t.Fatalf("the answer is not well-formed: %v\n%s", err, b)
		}
		a.doc = doc
		if want := map[string]string{NS11: "text/xml; charset=utf-8", NS12: "application/soap+xml; charset=utf-8"}[xmldoc.NameOf(doc.Root()).Space]; ct != want && res.Request == nil && xmldoc.NameOf(doc.Root()).Local == "Envelope" {
			t.Errorf("Content-Type %q, want %q", ct, want)
		}
	}
	return a
}

func (a answer) version() Version {
	if xmldoc.NameOf(a.doc.Root()).Space == NS12 {
		return V12
	}
	return V11
}

// header gives the text of the header block, whether it is there, from the reply.
func (a answer) block(space, local string) *etree.Element {
	h := xmldoc.Child(a.doc.Root(), a.version().Namespace(), "Header")
	if h == nil {
		return nil
	}
	return xmldoc.Child(h, space, local)
}

func (a answer) payload() *etree.Element {
	b := xmldoc.Child(a.doc.Root(), a.version().Namespace(), "Body")
	if b == nil || len(b.ChildElements()) == 0 {
		return nil
	}
	return b.ChildElements()[0]
}

// codes gives the fault's code and subcodes as expanded names; nil without a fault.
func (a answer) codes(t testing.TB) []string {
	t.Helper()
	f := a.payload()
	if f == nil || !xmldoc.Is(f, a.version().Namespace(), "Fault") {
		return nil
	}
	resolve := func(e *etree.Element) string {
		n, err := xmldoc.ResolveQName(e, xmldoc.Text(e))
		if err != nil {
			t.Fatalf("%v in %s", err, a.body)
		}
		return n.String()
	}
	if a.version() == V11 {
		return []string{resolve(xmldoc.Child(f, "", "faultcode"))}
	}
	var list []string
	for c := xmldoc.Child(f, NS12, "Code"); c != nil; c = xmldoc.Child(c, NS12, "Subcode") {
		list = append(list, resolve(xmldoc.Child(c, NS12, "Value")))
	}
	return list
}

func (a answer) wantFault(t testing.TB, status int, codes ...string) {
	t.Helper()
	if a.status != status || !slices.Equal(a.codes(t), codes) {
		t.Errorf("status %d, fault %v; want %d, %v\n%s", a.status, a.codes(t), status, codes, a.body)
	}
}

func (a answer) wantReply(t testing.TB) {
	t.Helper()
	if a.status != 200 || a.doc == nil || !xmldoc.Is(a.payload(), testNS, "EchoResponse") {
		t.Errorf("status %d, want the reply:\n%s", a.status, a.body)
	}
}

func in(space, local string) string { return xmldoc.Name{Space: space, Local: local}.String() }

// envelope makes a message; v.Namespace is bound to s, WS-Addressing to wsa.
func envelope(v Version, header, body string) string {
	if header != "" {
		header = "<s:Header>" + header + "</s:Header>"
	}
	return fmt.Sprintf(`<s:Envelope xmlns:s=%q xmlns:wsa=%q xmlns:t=%q>%s<s:Body>%s</s:Body></s:Envelope>`, v.Namespace(), NSWSA, testNS, header, body)
}

const echoBody = `<t:Echo>hi</t:Echo>`

func TestAnswersInTheVersionOfTheRequest(t *testing.T) {
	for _, v := range []Version{V11, V12} {
		a := post(t, echoEndpoint(), v.ContentType(), envelope(v, "", echoBody))
		a.wantReply(t)
		if a.version() != v {
			t.Errorf("asked in %s, answered in %s", v, a.version())
		}
		if a.block(NSWSA, "Action") != nil {
			t.Errorf("addressing in the answer to a client that uses none:\n%s", a.body)
		}
	}
}
