package soap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/etree"
	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func echoRequest() *etree.Element {
	e := etree.NewElement("t:Echo")
	e.CreateAttr("xmlns:t", testNS)
	e.SetText("grüße <&>")
	return e
}

// serve starts a server and gives a client of it.
func serve(t *testing.T, h http.Handler) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c := &Client{URL: s.URL + "/echo", Retries: -1}
	t.Cleanup(c.CloseIdle)
	return c
}

func TestClientAndEndpoint(t *testing.T) {
	for _, v := range []Version{V11, V12} {
		for _, addressing := range []bool{false, true} {
			for _, strict := range []bool{false, true} {
				e := echoEndpoint()
				e.Strict = strict
				c := serve(t, e)
				c.Version, c.Addressing = v, addressing
				r, err := c.Call(t.Context(), "urn:test/Echo", echoRequest())
				if err != nil {
					t.Fatalf("%s addressing %v strict %v: %v", v, addressing, strict, err)
				}
				in := xmldoc.Child(r.Payload, testNS, "Echo")
				if r.Version != v || in == nil || xmldoc.Text(in) != "grüße <&>" {
					t.Errorf("%s: %s", v, xmldoc.Marshal(r.Payload))
				}
				if addressing && r.Addressing.Action != "urn:test/EchoResponse" {
					t.Errorf("action %q", r.Addressing.Action)
				}
			}
		}
	}
}

func TestClientReadsFaults(t *testing.T) {
	detail := etree.NewElement("t:Why")
	detail.CreateAttr("xmlns:t", testNS)
	e := echoEndpoint()
	e.Operations[xmldoc.Name{Space: testNS, Local: "Echo"}].Handle = func(context.Context, *Verified) (*etree.Element, error) {
		return nil, &Fault{Code: Sender, Subcodes: []xmldoc.Name{{Space: testNS, Local: "Wrong"}}, Reason: "no", Detail: []*etree.Element{detail}}
	}
	for _, v := range []Version{V11, V12} {
		c := serve(t, e)
		c.Version, c.Addressing = v, true
		_, err := c.Call(t.Context(), "urn:test/Echo", echoRequest())
		f, ok := errors.AsType[*Fault](err)
		if !ok {
			t.Fatal(err)
		}
		if f.Code != Sender || len(f.Subcodes) != 1 || f.Subcodes[0].Local != "Wrong" || f.Reason != "no [reference 00000000]" {
			t.Errorf("%s: %+v", v, f)
		}
		if len(f.Detail) != 1 || !xmldoc.Is(f.Detail[0], testNS, "Why") || f.Action != "urn:test/Fault" {
			t.Errorf("%s: detail %v action %s", v, f.Detail, f.Action)
		}
		if want := map[Version]int{V11: 500, V12: 400}[v]; f.Status != want {
			t.Errorf("%s: status %d", v, f.Status)
		}
	}
}

// canned answers every request with the same bytes.
func canned(status int, contentType, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func faultEnvelope11(children string) string {
	return `<s:Envelope xmlns:s="` + NS11 + `" xmlns:wsa="` + NSWSA + `"><s:Body><s:Fault>` + children + `</s:Fault></s:Body></s:Envelope>`
}

func TestClientReadsForeignFaults(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		code       Code
		subcodes   []string
		reason     string
	}{
		{"HTTP 200 and qualified children", faultEnvelope11(`<s:faultcode>s:Client</s:faultcode><s:faultstring>no such</s:faultstring><s:detail><x xmlns="u"/></s:detail>`), 200, Sender, nil, "no such"},
		{"bare code", faultEnvelope11(`<faultcode>Server</faultcode><faultstring>x</faultstring>`), 500, Receiver, nil, "x"},
		{"dotted code", faultEnvelope11(`<faultcode>s:Client.Authentication</faultcode><faultstring>x</faultstring>`), 500, Sender, []string{in(NS11, "Client.Authentication")}, "x"},
		{"undeclared prefix", faultEnvelope11(`<faultcode>nowhere:Server</faultcode><faultstring>x</faultstring>`), 500, Receiver, nil, "x"},
		{"addressing code", faultEnvelope11(`<faultcode>wsa:ActionNotSupported</faultcode><faultstring>x</faultstring>`), 500, Sender, []string{wsaCode("ActionNotSupported")}, "x"},
		{"endpoint unavailable", faultEnvelope11(`<faultcode>wsa:EndpointUnavailable</faultcode><faultstring>x</faultstring>`), 500, Receiver, []string{wsaCode("EndpointUnavailable")}, "x"},
		{"nothing in it", faultEnvelope11(``), 500, Receiver, nil, "the endpoint gave no reason"},
		{"CXF, default namespace", sample(t, "soap", "soap-cxf-saaj-soap12-fault.xml"), 500, Receiver, nil, "Error Message."},
		{
			"Axis2, addressing", sample(t, "soap", "wsa-axis2-fault-soap12-InvalidAddressingHeader.xml"), 400, Sender,
			[]string{wsaCode("InvalidAddressingHeader")},
			"A header representing a Message Addressing Property is not valid and the message cannot be processed",
		},
		// The file's name says MessageAddressingHeaderRequired, its content does not.
		{
			"Axis2, header required", sample(t, "soap", "wsa-axis2-fault-soap12-MessageAddressingHeaderRequired.xml"), 400, Sender,
			[]string{wsaCode("InvalidAddressingHeader")},
			"A header representing a Message Addressing Property is not valid and the message cannot be processed",
		},
	} {
		client := serve(t, canned(c.status, "text/xml", c.body))
		_, err := client.Call(t.Context(), "urn:a", echoRequest())
		f, ok := errors.AsType[*Fault](err)
		if !ok {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var subs []string
		for _, s := range f.Subcodes {
			subs = append(subs, s.String())
		}
		if f.Code != c.code || fmt.Sprint(subs) != fmt.Sprint(c.subcodes) || f.Reason != c.reason || f.Status != c.status {
			t.Errorf("%s: %s %v %q %d", c.name, f.Code, subs, f.Reason, f.Status)
		}
	}
}

func TestClientReadsRecordedAnswers(t *testing.T) {
	for _, name := range []string{
		"arex-6.0dev-GetActivityDocuments.response.http", "arex-6.0dev-GetActivityStatuses-one-unknown.response.http",
		"arex-6.0dev-GetActivityStatuses.response.http", "arex-6.0dev-TerminateActivities-unknown.response.http",
	} {
		raw := sample(t, "captured", name)
		c := &Client{URL: "http://arex.example/", Addressing: true, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			return http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), r)
		})}
		r, err := c.Call(t.Context(), "urn:a", echoRequest())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Payload == nil || !strings.HasSuffix(r.Payload.Tag, "Response") || r.Addressing.Action == "" || r.SOAPAction != r.Addressing.Action {
			t.Errorf("%s: %+v", name, r.Addressing)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClientErrors(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := "http://" + closed.Addr().String() + "/"
	_ = closed.Close()
	hangup := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	})
	ok := envelope(V11, "", "<t:EchoResponse/>")
	for _, c := range []struct {
		name       string
		server     http.Handler
		idempotent bool
		kind       fail.Kind
		says       string
	}{
		{"connection refused", nil, false, fail.Unavailable, "could not be reached: the connection was refused"},
		{"answer lost", hangup, false, fail.Uncertain, "may have been carried out"},
		{"answer lost, idempotent", hangup, true, fail.Unavailable, "could not be reached"},
		{"web page", canned(404, "text/html", "<html>Not here</html>"), false, fail.Unavailable, "Not here"},
		{"proxy", canned(502, "text/plain", "bad gateway"), false, fail.Uncertain, "502"},
		{"proxy, idempotent", canned(502, "text/plain", "bad gateway"), true, fail.Unavailable, "bad gateway"},
		{"login wanted", canned(401, "text/plain", "who?"), false, fail.Unauthenticated, "401"},
		{"forbidden", canned(403, "text/plain", "no"), false, fail.Denied, "403"},
		{"redirect", http.RedirectHandler("http://elsewhere.example/", http.StatusFound), false, fail.Unavailable, "moved to http://elsewhere.example/"},
		{"garbage", canned(200, "text/xml", "\x00\x01"), true, fail.Unavailable, "nothing that can be read"},
		{"garbage, not idempotent", canned(200, "text/xml", "<a/>"), false, fail.Uncertain, "may have been"},
		{"too large", canned(200, "text/xml", strings.Repeat(" ", 5000)+ok), true, fail.Unavailable, "nothing that can be read"},
		{"error status without a fault", canned(500, "text/xml", ok), true, fail.Unavailable, "500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := &Client{URL: refusing, Retries: -1}
			if c.server != nil {
				client = serve(t, c.server)
			}
			client.Limits.Bytes = 4000
			var opts []CallOption
			if c.idempotent {
				opts = append(opts, Idempotent)
			}
			_, err := client.Call(t.Context(), "urn:a", echoRequest(), opts...)
			if err == nil || fail.KindOf(err) != c.kind || !strings.Contains(fail.Sentence(err), c.says) {
				t.Errorf("%v (public: %s)", err, fail.Sentence(err))
			}
		})
	}
	if _, err := (&Client{URL: "http://a b/"}).Call(t.Context(), "", nil); !fail.Is(err, fail.Invalid) {
		t.Errorf("bad URL: %v", err)
	}
}

func TestClientChecksWhatItIsAnAnswerTo(t *testing.T) {
	wrong := `<wsa:RelatesTo>urn:uuid:of-another</wsa:RelatesTo>`
	c := serve(t, canned(200, "text/xml", envelope(V11, wrong, "<t:EchoResponse/>")))
	if _, err := c.Call(t.Context(), "urn:a", echoRequest()); err != nil {
		t.Errorf("without addressing it does not matter: %v", err)
	}
	c = serve(t, canned(200, "text/xml", envelope(V11, wrong, "<t:EchoResponse/>")))
	c.Addressing = true
	if _, err := c.Call(t.Context(), "urn:a", echoRequest()); !fail.Is(err, fail.Uncertain) {
		t.Errorf("%v", err)
	}
	if _, err := c.Call(t.Context(), "urn:a", echoRequest(), Idempotent); !fail.Is(err, fail.Unavailable) {
		t.Errorf("%v", err)
	}
}

func TestClientTakes202(t *testing.T) {
	c := serve(t, canned(202, "text/plain", ""))
	r, err := c.Call(t.Context(), "urn:a", echoRequest())
	if err != nil || r.Parsed != nil || r.Status != 202 {
		t.Errorf("%v %v", r, err)
	}
}

// TestClientRetries has a server that is busy twice. A call that is not
// idempotent is never sent again.
func TestClientRetries(t *testing.T) {
	for _, idempotent := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int32
			began := time.Now()
			c := &Client{URL: "http://busy.example/", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				_, _ = io.Copy(io.Discard, r.Body)
				w := httptest.NewRecorder()
				switch calls.Add(1) {
				case 1:
					w.Header().Set("Retry-After", "31536000")
					w.WriteHeader(503)
				case 2:
					return nil, io.ErrUnexpectedEOF
				default:
					w.Header().Set("Content-Type", "text/xml")
					_, _ = io.WriteString(w, envelope(V11, "", "<t:EchoResponse/>"))
				}
				return w.Result(), nil
			})}
			var opts []CallOption
			if idempotent {
				opts = append(opts, Idempotent)
			}
			_, err := c.Call(t.Context(), "urn:a", echoRequest(), opts...)
			if idempotent {
				if err != nil || calls.Load() != 3 {
					t.Errorf("%d calls, %v", calls.Load(), err)
				}
				if waited := time.Since(began); waited > 2*longestWait {
					t.Errorf("waited %s", waited)
				}
			} else if !fail.Is(err, fail.Unavailable) || calls.Load() != 1 {
				t.Errorf("%d calls, %v", calls.Load(), err)
			}
		})
	}
}

func TestClientObeysItsContext(t *testing.T) {
	arrived, ctx := make(chan struct{}), t.Context()
	c := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		<-arrived
		cancel()
	}()
	_, err := c.Call(ctx, "urn:a", echoRequest())
	if !fail.Is(err, fail.Uncertain) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// An answer that comes as the call is given up is let go of, and its connection with it.
func TestClientLetsGoOfLateAnswers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	late := &lateAnswer{cancel: cancel}
	c := &Client{URL: "http://a.example/", Retries: -1, Transport: late}
	if _, err := c.Call(ctx, "urn:a", echoRequest()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if !late.closed {
		t.Error("the body was not closed")
	}
}

type lateAnswer struct {
	cancel func()
	closed bool
}

func (l *lateAnswer) RoundTrip(*http.Request) (*http.Response, error) {
	l.cancel()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: l}, nil
}

func (*lateAnswer) Read([]byte) (int, error) { return 0, io.EOF }

func (l *lateAnswer) Close() error {
	l.closed = true
	return nil
}

func TestClientSendsReferenceParameters(t *testing.T) {
	var seen string
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen = string(b)
		w.WriteHeader(202)
	}))
	c.Addressing = true
	p := etree.NewElement("x:Id")
	p.CreateAttr("xmlns:x", "urn:x")
	p.SetText("7")
	if _, err := c.Call(t.Context(), "urn:a", echoRequest(), To(EPR{Address: "urn:to", ReferenceParameters: []*etree.Element{p}})); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"<wsa:To>urn:to</wsa:To>", `<x:Id xmlns:x="urn:x" xmlns:wsa="` + NSWSA + `" wsa:IsReferenceParameter="true">7</x:Id>`,
		"<wsa:ReplyTo><wsa:Address>" + Anonymous + "</wsa:Address></wsa:ReplyTo>",
	} {
		if !strings.Contains(seen, want) {
			t.Errorf("%s is not in\n%s", want, seen)
		}
	}
	if strings.Contains(seen, "mustUnderstand") {
		t.Error("old servers choke on mustUnderstand")
	}
}

func TestWhyUnreached(t *testing.T) {
	tlsServer := httptest.NewUnstartedServer(canned(200, "text/xml", ""))
	tlsServer.Config.ErrorLog = log.New(io.Discard, "", 0)
	tlsServer.StartTLS()
	defer tlsServer.Close()
	plain := httptest.NewServer(canned(200, "text/xml", ""))
	defer plain.Close()
	for url, says := range map[string]string{
		tlsServer.URL: "its certificate is not trusted",
		strings.Replace(plain.URL, "http:", "https:", 1): "it does not speak TLS",
	} {
		c := &Client{URL: url, Retries: -1}
		_, err := c.Call(t.Context(), "urn:a", echoRequest())
		if !fail.Is(err, fail.Unavailable) || !strings.Contains(fail.Sentence(err), says) {
			t.Errorf("%s: %v", url, err)
		}
		c.CloseIdle()
	}
	for _, c := range []struct {
		err  error
		says string
	}{
		{&net.DNSError{}, "not known"},
		{context.DeadlineExceeded, "too long"},
		{context.Canceled, "cancelled"},
		{io.EOF, "broke"},
	} {
		if got := whyUnreached(fmt.Errorf("w: %w", c.err)); !strings.Contains(got, c.says) {
			t.Errorf("%v: %s", c.err, got)
		}
	}
}
