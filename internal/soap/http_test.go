package soap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func TestContentTypes(t *testing.T) {
	for _, c := range []struct {
		contentType string
		v           Version
		status      int
	}{
		{"text/xml", V11, 200},
		{"text/xml; charset=utf-8", V11, 200},
		{`text/xml;charset="UTF-8"`, V11, 200},
		{"TEXT/XML", V11, 200},
		{"text/xml", V12, 200}, // seen often
		{"application/soap+xml", V12, 200},
		{`application/soap+xml; charset=utf-8;action="urn:x"`, V12, 200},
		{"application/soap+xml", V11, 200},
		{"application/xml", V11, 200},
		{"text/xml; charset", V11, 200}, // a broken parameter
		{"text/xml; charset=iso-8859-1", V11, 415},
		{"text/plain", V11, 415},
		{"application/json", V11, 415},
		{`multipart/related; type="application/xop+xml"`, V11, 415},
		{"", V11, 415},
		{";;;", V11, 415},
	} {
		if a := post(t, echoEndpoint(), c.contentType, envelope(c.v, "", echoBody)); a.status != c.status {
			t.Errorf("%q with SOAP %s: status %d, want %d\n%s", c.contentType, c.v, a.status, c.status, a.body)
		}
	}
	latin := `<?xml version="1.0" encoding="ISO-8859-1"?>` + envelope(V11, "", echoBody)
	post(t, echoEndpoint(), "text/xml", latin).wantFault(t, 415, in(NS11, "Client"))
	if a := post(t, echoEndpoint(), "text/xml", envelope(V11, "", echoBody), "Content-Encoding", "gzip"); a.status != 415 || a.header.Get("Accept-Encoding") != "identity" {
		t.Errorf("gzip: %d", a.status)
	}
	post(t, echoEndpoint(), "text/xml", envelope(V11, "", echoBody), "Content-Encoding", "identity").wantReply(t)
}

func TestMethods(t *testing.T) {
	e := echoEndpoint()
	var asked []string
	e.Describe = func(address, kind, name string) ([]byte, bool) {
		asked = append(asked, address+" "+kind+" "+name)
		return []byte("<definitions/>"), name != "unknown"
	}
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/echo?wsdl", 200},
		{"GET", "/echo?WSDL", 200},
		{"HEAD", "/echo?wsdl", 200},
		{"GET", "/echo?xsd=bes.xsd", 200},
		{"GET", "/echo?xsd=unknown", 404},
		{"GET", "/echo", 405},
		{"GET", "/echo?other", 405},
		{"PUT", "/echo", 405},
		{"DELETE", "/echo", 405},
		{"OPTIONS", "/echo", 405},
	} {
		r := httptest.NewRequest(c.method, "http://gw.example"+c.target, nil)
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.target, w.Code, c.status)
		}
		if w.Code == 405 && !strings.Contains(w.Header().Get("Allow"), "POST") {
			t.Errorf("%s %s: Allow is %q", c.method, c.target, w.Header().Get("Allow"))
		}
		if c.method == "HEAD" && w.Body.Len() > 0 {
			t.Error("HEAD with a body")
		}
	}
	if want := "http://gw.example/echo wsdl "; asked[0] != want {
		t.Errorf("described %q, want %q", asked[0], want)
	}
	e.ExternalURL = "https://outside.example/bes"
	e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/echo?xsd=a", nil))
	if want := "https://outside.example/bes xsd a"; asked[len(asked)-1] != want {
		t.Errorf("described %q, want %q", asked[len(asked)-1], want)
	}
}

func TestTooLarge(t *testing.T) {
	for _, v := range []Version{V11, V12} {
		e := echoEndpoint()
		e.Limits.Bytes = 1000
		big := envelope(v, "", "<t:Echo>"+strings.Repeat("x", 1000)+"</t:Echo>")
		code := map[Version]string{V11: in(NS11, "Client"), V12: in(NS12, "Sender")}[v]
		post(t, e, v.ContentType(), big).wantFault(t, 413, code)
		r := httptest.NewRequest(http.MethodPost, "/echo", io.MultiReader(strings.NewReader(big))) // length not announced
		r.Header.Set("Content-Type", v.ContentType())
		r.ContentLength = -1
		ask(t, e, r).wantFault(t, 413, code)
	}
}

// TestAnnouncedLengthIsNotRead has a client that announces too much and sends
// nothing: the answer comes all the same.
func TestAnnouncedLengthIsNotRead(t *testing.T) {
	s := httptest.NewServer(echoEndpoint())
	defer s.Close()
	res := raw(t, s.Listener.Addr(), "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 99999999999\r\n\r\n")
	if res.StatusCode != 413 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// raw sends bytes on a connection of their own and gives the answer, its body read.
func raw(t *testing.T, addr net.Addr, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	res.Body = io.NopCloser(strings.NewReader(string(b)))
	return res
}

func TestWireHabits(t *testing.T) {
	router := NewRouter(map[string]http.Handler{"/echo": echoEndpoint()})
	s := httptest.NewUnstartedServer(router)
	s.Config = NewHTTPServer(router, slog.New(slog.DiscardHandler))
	s.Start()
	defer s.Close()
	msg := envelope(V11, "", echoBody)
	length := fmt.Sprintf("Content-Length: %d\r\n", len(msg))
	for name, req := range map[string]string{
		"absolute URI, lower case (ARC)": "POST http://" + s.Listener.Addr().String() + "/echo HTTP/1.1\r\nHost: other\r\n" + strings.ToLower(length) + "content-type: text/xml\r\nsoapaction: \"\"\r\n\r\n" + msg,
		"chunked (GridSAM)":              "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(msg), msg),
		"Expect (.NET)":                  "POST /echo HTTP/1.0\r\nHost: x\r\nContent-Type: text/xml\r\nExpect: 100-continue\r\n" + length + "\r\n" + msg,
		"slash behind":                   "POST /echo/ HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n" + length + "\r\n" + msg,
		"HTTP 1.0":                       "POST /echo HTTP/1.0\r\nContent-Type: text/xml\r\n" + length + "\r\n" + msg,
	} {
		if res := raw(t, s.Listener.Addr(), req); res.StatusCode != 200 {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
	if res := raw(t, s.Listener.Addr(), "POST /elsewhere HTTP/1.1\r\nHost: x\r\n"+length+"\r\n"+msg); res.StatusCode != 404 {
		t.Errorf("elsewhere: %s", res.Status)
	}
	for version, header := range map[Version]string{
		V11: "",
		V12: `<wsa:To>http://here/elsewhere</wsa:To><wsa:Action>urn:x</wsa:Action>`,
	} {
		lost := envelope(version, header, echoBody)
		res := raw(t, s.Listener.Addr(), fmt.Sprintf("POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s", len(lost), lost))
		body, _ := io.ReadAll(res.Body)
		doc, err := xmldoc.ReadBytes(body, xmldoc.Limits{})
		if err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		p, refused := parseEnvelope(doc, nil)
		if refused == nil {
			refused = parseBody(p)
		}
		if refused != nil {
			t.Fatalf("%v: %s", refused, body)
		}
		f := decodeFault(p, res)
		if res.StatusCode != 404 || !strings.Contains(f.Reason, "/echo") {
			t.Errorf("%v elsewhere: %s %s", version, res.Status, body)
		}
		if version == V12 && (len(f.Subcodes) == 0 || f.Subcodes[0].Local != "DestinationUnreachable") {
			t.Errorf("with addressing: %s", body)
		}
	}
	long := "POST /echo HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n"
	if res := raw(t, s.Listener.Addr(), long); res.StatusCode != 431 {
		t.Errorf("long headers: %s", res.Status)
	}
}

// TestExpectContinue has a client that sends its body only when asked to, and one
// that must not be asked.
func TestExpectContinue(t *testing.T) {
	s := httptest.NewServer(echoEndpoint())
	defer s.Close()
	msg := envelope(V11, "", echoBody)
	for contentType, want := range map[string]string{"text/xml": "HTTP/1.1 100 Continue", "text/plain": "HTTP/1.1 415"} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", contentType, len(msg))
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			t.Errorf("%s: %q %v", contentType, line, err)
		}
		_ = conn.Close()
	}
}

// stalling gives a connection's deadline to the test instead of waiting for it.
type stalling struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
}

func (s *stalling) SetReadDeadline(t time.Time) error {
	s.deadlines = append(s.deadlines, t)
	return nil
}

func TestSlowBody(t *testing.T) {
	w := &stalling{ResponseRecorder: httptest.NewRecorder()}
	began := time.Now()
	r := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(envelope(V11, "", echoBody)))
	r.Header.Set("Content-Type", "text/xml")
	echoEndpoint().ServeHTTP(w, r)
	if len(w.deadlines) != 2 || w.deadlines[0].Before(began.Add(bodyPause)) || w.deadlines[0].After(time.Now().Add(bodyPause)) || !w.deadlines[1].IsZero() {
		t.Errorf("deadlines %v: want one in %s, then none", w.deadlines, bodyPause)
	}
	p := &patientReader{r: strings.NewReader("x"), control: http.NewResponseController(w), until: began.Add(time.Second)}
	_, _ = p.Read(make([]byte, 1))
	if last := w.deadlines[len(w.deadlines)-1]; !last.Equal(began.Add(time.Second)) {
		t.Errorf("a pause must not go beyond the whole time: %v", last)
	}
	// A real connection whose peer stops in the middle.
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // as if the pause were over
		r.Body = struct {
			io.Reader
			io.Closer
		}{expired{}, r.Body}
		echoEndpoint().ServeHTTP(w, r)
	}))
	defer s.Close()
	res := raw(t, s.Listener.Addr(), "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 100\r\n\r\n<s:Env")
	if res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("stalled: %s", res.Status)
	}
}

type expired struct{}

func (expired) Read([]byte) (int, error) { return 0, fmt.Errorf("read: %w", os.ErrDeadlineExceeded) }

func TestHandlerErrors(t *testing.T) {
	detail := etree.NewElement("t:D")
	detail.CreateAttr("xmlns:t", testNS)
	for _, c := range []struct {
		name   string
		handle func() (*etree.Element, error)
		v      Version
		status int
		codes  []string
		says   string
		not    string
	}{
		{"panic", func() (*etree.Element, error) { panic("secret") }, V12, 500, []string{in(NS12, "Receiver")}, "reference 00000000", "secret"},
		{"private error", func() (*etree.Element, error) { return nil, errors.New("secret") }, V11, 500, []string{in(NS11, "Server")}, "log says why", "secret"},
		{"public error", func() (*etree.Element, error) {
			return nil, fail.Errorf("x", fail.NotFound, "s", "no such thing").Because(errors.New("secret"))
		}, V12, 400, []string{in(NS12, "Sender")}, "no such thing", "secret"},
		{"overload", func() (*etree.Element, error) { return nil, fail.Errorf("x", fail.Exhausted, "s", "full") }, V12, 503, []string{in(NS12, "Receiver")}, "full", ""},
		{"timeout", func() (*etree.Element, error) { return nil, context.DeadlineExceeded }, V11, 503, []string{in(NS11, "Server")}, "too long", ""},
		{"long reason", func() (*etree.Element, error) {
			return nil, &Fault{Code: Sender, Reason: strings.Repeat("é", 5000)}
		}, V11, 500, []string{in(NS11, "Client")}, "…", ""},
		{"detail", func() (*etree.Element, error) {
			return nil, &Fault{Code: Receiver, Reason: "r", Detail: []*etree.Element{detail}}
		}, V12, 500, []string{in(NS12, "Receiver")}, `<t:D xmlns:t="urn:test"/>`, ""},
		{"wrapped fault", func() (*etree.Element, error) { return nil, fmt.Errorf("w: %w", &Fault{Code: Sender, Reason: "r"}) }, V11, 500, []string{in(NS11, "Client")}, ">r [", ""},
	} {
		var log strings.Builder
		e := echoEndpoint()
		e.Log = slog.New(slog.NewTextHandler(&log, nil))
		e.Operations[xmldoc.Name{Space: testNS, Local: "Echo"}].Handle = func(context.Context, *Verified) (*etree.Element, error) { return c.handle() }
		a := post(t, e, c.v.ContentType(), envelope(c.v, "", echoBody))
		a.wantFault(t, c.status, c.codes...)
		if !strings.Contains(a.body, c.says) || c.not != "" && strings.Contains(a.body, c.not) {
			t.Errorf("%s: %s", c.name, a.body)
		}
		if len(a.body) > 8000 {
			t.Errorf("%s: %d bytes", c.name, len(a.body))
		}
		if !strings.Contains(log.String(), "reference=00000000") || !strings.Contains(log.String(), c.not) {
			t.Errorf("%s: log %s", c.name, log.String())
		}
		if (a.status == 503) != (a.header.Get("Retry-After") == "5") {
			t.Errorf("%s: Retry-After %q", c.name, a.header.Get("Retry-After"))
		}
	}
}

func TestFaultOf(t *testing.T) {
	e := echoEndpoint()
	e.FaultOf = func(err error, op *Operation, v Version) *Fault {
		return &Fault{Code: Sender, Reason: fmt.Sprint(err, " ", op.Name.Local, " ", v)}
	}
	e.Operations[xmldoc.Name{Space: testNS, Local: "Echo"}].Handle = func(context.Context, *Verified) (*etree.Element, error) {
		return nil, errors.New("why")
	}
	if a := post(t, e, "text/xml", envelope(V12, "", echoBody)); !strings.Contains(a.body, "why Echo 1.2") {
		t.Error(a.body)
	}
}

func TestEveryKindHasAFault(t *testing.T) {
	for _, k := range fail.Kinds() {
		f := FaultOfKind(fail.Errorf("op", k, "s", "sentence of %s", k))
		if f.Code != Sender && f.Code != Receiver || !strings.Contains(f.Reason, k.String()) {
			t.Errorf("%s: %+v", k, f)
		}
	}
}

func TestObserve(t *testing.T) {
	e := echoEndpoint()
	var got []string
	e.Observe = func(op string, status int, took time.Duration) {
		got = append(got, fmt.Sprint(op, " ", status, " ", took >= 0))
	}
	post(t, e, "text/xml", envelope(V11, "", echoBody))
	post(t, e, "text/xml", envelope(V11, "", "<x/>"))
	post(t, e, "text/plain", "x")
	if want := "Echo 200 true; 500 true; 415 true"; strings.Join(got, ";") != want {
		t.Errorf("%q", got)
	}
}

// TestInFlight has one large message at work; another is told to come again, and
// is taken once the first is done.
func TestInFlight(t *testing.T) {
	e := echoEndpoint()
	e.InFlight = 10_000
	large := envelope(V12, "", "<t:Echo>"+strings.Repeat("x", 20_000)+"</t:Echo>")
	op := e.Operations[xmldoc.Name{Space: testNS, Local: "Echo"}]
	inner, nested := op.Handle, answer{}
	op.Handle = func(ctx context.Context, m *Verified) (*etree.Element, error) {
		op.Handle = inner
		nested = post(t, e, "text/xml", large)
		return inner(ctx, m)
	}
	post(t, e, "text/xml", large).wantReply(t)
	nested.wantFault(t, 503, in(NS12, "Receiver"))
	if nested.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	post(t, e, "text/xml", large).wantReply(t)
	if e.held.Load() != 0 {
		t.Errorf("%d bytes are still held", e.held.Load())
	}
}
