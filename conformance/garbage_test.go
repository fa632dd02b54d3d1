package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick are options for servers that say nothing useful.
func quick(endpoint string) Options {
	return Options{Endpoint: endpoint, Timeout: 150 * time.Millisecond, Settle: 500 * time.Millisecond, Budget: 20 * time.Second}
}

// judge runs the kit and gives the report; whatever the server does, there is one.
func judge(t *testing.T, o Options) *Report {
	t.Helper()
	rep, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(rep.Checks), len(o.selected()); got != want {
		t.Errorf("the report has %d checks of %d", got, want)
	}
	if rep.Summary.Total != rep.Summary.Passed+rep.Summary.Failed+rep.Summary.Skipped {
		t.Errorf("the counts do not add up: %+v", rep.Summary)
	}
	for _, c := range rep.Checks {
		if strings.Contains(c.Saw, "mistake of the kit") {
			t.Errorf("%s broke: %s", c.ID, c.Saw)
		}
		if c.Saw == "" && c.Result != Pass {
			t.Errorf("%s is a %s and does not say why", c.ID, c.Result)
		}
	}
	return rep
}

// TestGarbage points the kit at servers that answer nonsense: it reports
// failures, in bounded time and memory.
func TestGarbage(t *testing.T) {
	const inSOAP = `<s:Envelope xmlns:s="` + soap.NS11 + `"><s:Body>%s</s:Body></s:Envelope>`
	xmlBody := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
			w.Header().Set("Content-Type", "text/xml; charset=utf-8")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	cases := map[string]http.HandlerFunc{
		"random bytes": func(w http.ResponseWriter, _ *http.Request) {
			src := rand.NewChaCha8([32]byte{1})
			_, _ = io.CopyN(w, src, 5000)
		},
		"html": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<!DOCTYPE html><html><body><p>It works!<br></body></html>")
		},
		"nothing":          func(http.ResponseWriter, *http.Request) {},
		"teapot":           func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) },
		"redirect to self": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			blob := bytes.Repeat([]byte("<a>"), 10_000)
			for {
				if _, err := w.Write(blob); err != nil {
					return
				}
			}
		},
		"slow": func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := io.WriteString(w, " "); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		},
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			}
		},
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = io.WriteString(w, "<s:Envelope")
		},
		"not HTTP": func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(c, "220 mail.example.org ESMTP\r\n")
				_ = c.Close()
			}
		},
		"other xml":               xmlBody(200, `<a><b/></a>`),
		"deep xml":                xmlBody(200, strings.Repeat("<a>", 100_000)+strings.Repeat("</a>", 100_000)),
		"empty body":              xmlBody(200, fmt.Sprintf(inSOAP, "")),
		"empty fault":             xmlBody(500, fmt.Sprintf(inSOAP, "<s:Fault/>")),
		"always a fault":          xmlBody(500, fmt.Sprintf(inSOAP, "<s:Fault><faultcode>s:Server</faultcode><faultstring>no</faultstring></s:Fault>")),
		"fault with loose prefix": xmlBody(500, fmt.Sprintf(inSOAP, "<s:Fault><faultcode>zz:Client</faultcode><faultstring>no</faultstring></s:Fault>")),
		"always the same response": xmlBody(200, fmt.Sprintf(inSOAP,
			`<f:GetFactoryAttributesDocumentResponse xmlns:f="`+bes.NSFactory+`"><f:FactoryResourceAttributesDocument/></f:GetFactoryAttributesDocumentResponse>`)),
		"hollow responses": hollow,
	}
	for name, h := range cases {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(h)
			// A handler that has not read the body does not learn that the client
			// left; over ends those that wait.
			base, over := context.WithCancel(context.Background())
			srv.Config.BaseContext = func(net.Listener) context.Context { return base }
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.Start()
			defer srv.Close()
			defer over()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			rep := judge(t, quick(srv.URL))
			runtime.ReadMemStats(&after)
			if rep.Summary.Failed < rep.Summary.Total/3 {
				t.Errorf("a server of garbage failed only %d of %d checks", rep.Summary.Failed, rep.Summary.Total)
			}
			if rep.OK() {
				t.Error("a server of garbage is judged conforming")
			}
			if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 256<<20 {
				t.Errorf("the run holds %d MiB", held>>20)
			}
		})
	}
}

// hollow answers each operation with the right element and nothing in it.
func hollow(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	for _, op := range factoryOperations {
		if bytes.Contains(b, []byte(op)) {
			_, _ = fmt.Fprintf(w, `<s:Envelope xmlns:s="%s"><s:Body><f:%sResponse xmlns:f="%s"><f:Response/><f:ActivityIdentifier/></f:%sResponse></s:Body></s:Envelope>`,
				soap.NS11, op, bes.NSFactory, op)
			return
		}
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rep := judge(t, quick(endpoint))
	if rep.Summary.Passed != 0 || rep.Summary.Failed == 0 {
		t.Errorf("where nobody listens: %+v", rep.Summary)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Endpoint: "not a url"}, {Endpoint: "ftp://x/"}, {Endpoint: "http://127.0.0.1:1/", Filter: []string{"NO-SUCH"}}} {
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := Run(ctx, Options{Endpoint: "http://127.0.0.1:1/"}); err == nil {
		t.Error("a run whose context ended gives no error")
	}
}

func TestListIsWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range List(BES) {
		if seen[c.ID] {
			t.Errorf("two checks have the id %s", c.ID)
		}
		seen[c.ID] = true
		if c.Clause == "" || c.Title == "" || strings.ContainsAny(c.ID, " \t") {
			t.Errorf("%+v is not complete", c)
		}
	}
	if len(seen) < 60 {
		t.Errorf("only %d checks", len(seen))
	}
}

func TestReportForms(t *testing.T) {
	r := &Report{Endpoint: "http://e/", Started: time.Unix(0, 0)}
	r.add(Check{ID: "A-1", Clause: "c", Title: "t <1>", Result: Pass, Saw: "fine"})
	r.add(Check{ID: "A-2", Clause: "c", Title: "t", Result: Fail, Saw: printable("bad \x00\x1b[31m & <tag>\nline")})
	r.add(Check{ID: "B-1", Clause: "c", Title: "t", Result: Skip, Saw: "not offered"})
	var text, js, ju bytes.Buffer
	for _, err := range []error{r.WriteText(&text), r.WriteJSON(&js), r.WriteJUnit(&ju)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if s := text.String(); strings.ContainsAny(s, "\x00\x1b") || !strings.Contains(s, "3 checks: 1 passed, 1 failed, 1 skipped") || !strings.Contains(s, "not offered") {
		t.Errorf("text:\n%s", s)
	}
	var back struct {
		Checks []struct {
			ID, Clause, Title, Saw string
			Result                 string
		}
		Summary map[string]int
	}
	if err := json.Unmarshal(js.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Checks) != 3 || back.Checks[1].Result != "fail" || back.Summary["failed"] != 1 || back.Summary["total"] != 3 {
		t.Errorf("json: %s", js.String())
	}
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(ju.Bytes(), &suite); err != nil {
		t.Fatal(err)
	}
	if suite.Tests != 3 || suite.Failures != 1 || suite.Cases[1].Failure == nil || suite.Cases[2].Skipped == nil || suite.Cases[0].Failure != nil {
		t.Errorf("junit: %s", ju.String())
	}
}

// FuzzReply: whatever an endpoint answers, reading it does not break.
func FuzzReply(f *testing.F) {
	f.Add([]byte(`<s:Envelope xmlns:s="` + soap.NS11 + `"><s:Body><s:Fault><faultcode>s:Client</faultcode></s:Fault></s:Body></s:Envelope>`))
	f.Add([]byte(`<s:Envelope xmlns:s="` + soap.NS12 + `"><s:Body><s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode/></s:Code></s:Fault></s:Body></s:Envelope>`))
	f.Add([]byte(`<Envelope/>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &reply{status: 200, raw: b, header: http.Header{}}
		_ = r.parse()
		_ = printable(r.String())
		if r.fault != nil {
			_ = r.wantFault(soap.Sender)
			_, _ = r.wantBESFault(bes.NSFactory, "X")
			_ = fullText(r)
		}
		if r.payload != nil {
			_ = inspect("TerminateActivities", r.payload)
			_ = wantUnknown(r.payload)
			_ = flatEPR(r.payload)
		}
	})
}
