package soap

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// FuzzEnvelope: whatever arrives, the answer is a well-formed envelope of the
// right kind or plain text, within bounds.
func FuzzEnvelope(f *testing.F) {
	for _, v := range []Version{V11, V12} {
		f.Add(v.ContentType(), "", envelope(v, action+wsa("MessageID", "urn:1")+wsaEPR("ReplyTo", Anonymous, wsa("ReferenceParameters", "<x/>")), echoBody))
		f.Add("text/xml", `"urn:x"`, envelope(v, `<x s:mustUnderstand="1"/>`, echoBody))
	}
	files, _ := filepath.Glob(filepath.Join(testenv.Root(f), "..", "shared", "samples", "soap", "*.xml")) // seeds only
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil {
			f.Add("text/xml", "", string(b))
		}
	}
	e := w3cNode()
	e.Limits = xmldoc.Limits{Bytes: 1 << 16}
	f.Fuzz(func(t *testing.T, contentType, soapAction, body string) {
		r := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(body))
		r.Header["Content-Type"] = []string{contentType}
		r.Header["Soapaction"] = []string{soapAction}
		a := ask(t, e, r) // fails where XML is not well-formed
		if a.status != 200 && a.status != 202 && a.status != 415 && a.status/100 != 4 && a.status/100 != 5 {
			t.Errorf("status %d", a.status)
		}
		if len(a.body) > 4*len(body)+400_000 {
			t.Errorf("%d bytes answered to %d", len(a.body), len(body))
		}
		if a.doc == nil {
			return
		}
		if p, f := parseEnvelope(a.doc, nil); f != nil || parseBody(p) != nil || p.Payload == nil {
			t.Errorf("the answer is no SOAP message:\n%s", a.body)
		}
		if fault := a.codes(t); (a.status == 200) == (fault != nil) {
			t.Errorf("status %d with fault %v", a.status, fault)
		}
	})
}

// FuzzAnswer: whatever a server sends, a client gives a reply or an error.
func FuzzAnswer(f *testing.F) {
	f.Add(200, envelope(V11, "", "<t:EchoResponse/>"))
	f.Add(500, faultEnvelope11(`<faultcode>s:Client.x</faultcode><faultstring>x</faultstring><detail><a/></detail>`))
	f.Add(500, `<s:Envelope xmlns:s="`+NS12+`"><s:Body><s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>x</s:Value></s:Subcode></s:Code></s:Fault></s:Body></s:Envelope>`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		c := &Client{URL: "http://server.example/", Addressing: true, Retries: -1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			w.WriteHeader(200 + (status&0x7fffffff)%400)
			_, _ = w.WriteString(body)
			return w.Result(), nil
		})}
		reply, err := c.Call(t.Context(), "urn:a", echoRequest())
		if (reply == nil) == (err == nil) {
			t.Errorf("%v, %v", reply, err)
		}
	})
}
