package peers_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// speaker is a hand-made side of a session: it says what a test wants.
type speaker struct {
	t      *testing.T
	client *peers.Client
	open   *wire.Open
	number uint64
}

func (w *world) speaker(t *testing.T, domain string, trust peers.Trust, to string) *speaker {
	return &speaker{t: t, client: &peers.Client{URL: "http://" + to + "/peer", Domain: to, Trust: trust, Transport: w.net.From(domain)}}
}

func (s *speaker) opening(domain, name string) *wire.Open {
	return (session.Config{
		Party:    wire.Party{Domain: domain, Role: wire.Peer, Shows: wire.None, Provides: true, Consumes: true},
		Instance: "i", Features: wire.Features(), Beat: 10 * time.Second, Lost: time.Minute, Window: 64,
	}).Open(name, time.Now())
}

// opens opens a session as a domain.
func (s *speaker) opens(domain, name string) {
	s.t.Helper()
	s.open, s.number = s.opening(domain, name), 0
	if _, err := s.client.Call(s.t.Context(), s.open); err != nil {
		s.t.Fatal(err)
	}
}

func (s *speaker) frame(items ...wire.Message) wire.Frame {
	s.number++
	f := wire.Frame{Session: s.open.Session, Number: s.number, Limit: 64, Clock: time.Now()}
	if len(items) > 0 {
		f.Sent, f.First, f.Items = uint64(len(items)), 1, items
	}
	return f
}

// code is the fault that a message is answered with; "" for none.
func (s *speaker) code(m wire.Message) wire.FaultCode {
	s.t.Helper()
	_, err := s.client.Call(s.t.Context(), m)
	if err == nil {
		return ""
	}
	f, ok := err.(*wire.Fault) //nolint:errorlint // it is one, or the test fails
	if !ok {
		s.t.Fatalf("%T: %v", m, err)
	}
	return f.Code
}

func (s *speaker) want(m wire.Message, want wire.FaultCode) {
	s.t.Helper()
	if got := s.code(m); got != want {
		s.t.Fatalf("%T is answered with %q and not %q", m, got, want)
	}
}

// hostile is a world with a victim, b, whose peers are a and c; what speaks is not a gateway.
func hostile(t *testing.T, do func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{net: new(peertest.Network), keys: peertest.NewKeys(domA, domB, "c.example", "d.example"), put: map[string]int{}}
		w.b = peertest.NewGateway(t, w.net, w.keys, domB)
		synctest.Wait()
		for _, d := range []string{domA, "c.example"} {
			must(t, w.b.Table.Add(peers.Peer{Domain: d, Beat: 10 * time.Second, Lost: time.Minute, Window: 64, Features: []string{wire.FeatureOutput}}))
		}
		do(t, w)
	})
}

func TestWhoIsNotWhoItSays(t *testing.T) {
	hostile(t, func(t *testing.T, w *world) {
		a := w.speaker(t, domA, w.keys.Trust(domA), domB)
		a.opens(domA, "s1")
		beat := func(s *speaker) wire.Message {
			s.open, s.number = a.open, 100
			return &wire.Heartbeat{Frame: s.frame()}
		}
		c := w.speaker(t, "c.example", w.keys.Trust("c.example"), domB)
		c.want(beat(c), wire.NotTrusted) // a peer, in another's session
		c.want(&wire.Close{Frame: func() wire.Frame { f := c.frame(); f.Closing = wire.Ended; return f }(), Reason: wire.Shutdown}, wire.NotTrusted)
		c.want(c.opening(domA, "s2"), wire.NotTrusted) // for another
		c.want(c.opening("c.example", "s1"), wire.NotTrusted)
		d := w.speaker(t, "d.example", w.keys.Trust("d.example"), domB)
		d.want(beat(d), wire.NotTrusted) // trusted, and no peer
		d.want(d.opening("d.example", "s3"), wire.NotTrusted)
		liar := w.speaker(t, domA, w.keys.TrustAs(domA, "guessed"), domB)
		liar.want(beat(liar), wire.NotTrusted)
		unsigned := w.speaker(t, domA, mute{w.keys.Trust(domA)}, domB)
		unsigned.want(beat(unsigned), wire.NotTrusted)
		synctest.Wait()
		phase(t, w.b, domA, session.Alive)
		events(t, w.b, "a.example: opened")
		if s := status(t, w.b, domA); s.In.Messages != 1 {
			t.Errorf("what others said counts as a's: %+v", s.In)
		}
	})
}

// mute signs nothing.
type mute struct{ peers.Trust }

func (mute) Signer(string) peers.Signer { return nil }

func TestReplays(t *testing.T) {
	hostile(t, func(t *testing.T, w *world) {
		a := w.speaker(t, domA, w.keys.Trust(domA), domB)
		a.opens(domA, "s1")
		first := &wire.Exchange{Frame: a.frame(query(domA, 0), query(domA, 1))}
		a.want(first, "")
		a.want(first, "")
		a.want(a.open, "") // the same request, the same session
		again := *a.open
		again.Window = 1
		a.want(&again, wire.BadMessage) // another request of its name
		synctest.Wait()
		if n := len(w.b.Seen.Items(domA)); n != 2 {
			t.Errorf("%d items came, of 2", n)
		}
		pass(35 * time.Second)
		a.want(first, "")
		phase(t, w.b, domA, session.Suspect) // it is no sign of life
		old := a.open
		closing := a.frame()
		closing.Closing, closing.Sent = wire.Ended, 2
		a.want(&wire.Close{Frame: closing, Reason: wire.Shutdown}, "")
		a.want(old, wire.SessionClosed)
		m, err := a.client.Call(t.Context(), first)
		must(t, err)
		if x := m.(*wire.Exchanged); x.Closing != wire.Ended {
			t.Errorf("%+v", x)
		}
		for i := range 100 { // names are remembered when sessions are not
			pass(5 * time.Second)
			a.opens(domA, fmt.Sprint("n", i))
		}
		a.want(a.opening(domA, "n80"), wire.SessionClosed)
		a.want(old, "") // long ago: by then it is trust that refuses it
		a.open = old
		a.number = 50
		a.want(&wire.Heartbeat{Frame: a.frame()}, "")
		a.open = a.opening(domA, "n1")
		a.want(&wire.Heartbeat{Frame: a.frame()}, wire.UnknownSession)
	})
}

func TestTooManySessions(t *testing.T) {
	hostile(t, func(t *testing.T, w *world) {
		a := w.speaker(t, domA, w.keys.Trust(domA), domB)
		busy := 0
		for i := range 50 {
			if a.code(a.opening(domA, fmt.Sprint(i))) == wire.Busy {
				busy++
			}
		}
		if busy < 40 {
			t.Errorf("%d of 50 were refused", busy)
		}
		pass(5 * time.Second)
		a.opens(domA, "later")
	})
}

func TestWhatBreaksTheProtocol(t *testing.T) {
	hostile(t, func(t *testing.T, w *world) {
		a := w.speaker(t, domA, w.keys.Trust(domA), domB)
		a.opens(domA, "s1")
		a.want(&wire.Exchange{Frame: a.frame(&wire.Quotas{})}, wire.BadMessage) // a feature that was not agreed on
		if n := len(w.b.Seen.Items(domA)); n != 0 {
			t.Errorf("%d items came", n)
		}
		synctest.Wait()
		events(t, w.b, "a.example: opened", "a.example: closed broken")
		a.opens(domA, "s2")
		f := a.frame()
		f.Got, f.Done = 7, 7 // of items that never were
		a.want(&wire.Heartbeat{Frame: f}, wire.CursorMismatch)
		a.opens(domA, "s3")
		a.want(&wire.Resume{Frame: a.frame(), Instance: "another"}, wire.CursorMismatch)
		a.opens(domA, "s4")
		many := a.frame()
		for i := range 200 {
			many.Items = append(many.Items, query(domA, i))
		}
		many.First, many.Sent = 1, 200
		a.want(&wire.Exchange{Frame: many}, "") // beyond the credit of 64
		synctest.Wait()
		if n := len(w.b.Seen.Items(domA)); n != 64 {
			t.Errorf("%d items came; the credit is 64", n)
		}
	})
}

// Polls of one session are held four at most.
func TestHeldRequests(t *testing.T) {
	hostile(t, func(t *testing.T, w *world) {
		a := w.speaker(t, domA, w.keys.Trust(domA), domB)
		a.opens(domA, "s1")
		var wg sync.WaitGroup
		var mu sync.Mutex
		answered := 0
		for range 10 {
			f := a.frame(query(domA, 0)) // never done with
			f.Hold = 10 * time.Second
			w.b.Seen.Hold = true
			wg.Go(func() {
				if _, err := a.client.Call(t.Context(), &wire.Exchange{Frame: f}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				answered++
			})
			synctest.Wait()
		}
		mu.Lock()
		if answered != 6 {
			t.Errorf("%d of 10 were answered, so that %d are held", answered, 10-answered)
		}
		mu.Unlock()
		pass(11 * time.Second)
		wg.Wait()
		// Who goes away before the answer costs nothing: what it would have brought comes
		// with the next.
		ctx, cancel := context.WithCancel(t.Context())
		poll := a.frame()
		poll.Sent, poll.Hold, poll.Poll = 1, 10*time.Second, true
		wg.Go(func() { _, _ = a.client.Call(ctx, &wire.Exchange{Frame: poll}) })
		synctest.Wait()
		cancel()
		wg.Wait()
		must(t, w.b.Table.Put(domA, query(domB, 0)))
		f := a.frame()
		f.Sent, f.Hold, f.Poll = 1, 10*time.Second, true
		began := time.Now()
		m, err := a.client.Call(t.Context(), &wire.Exchange{Frame: f})
		must(t, err)
		if x := m.(*wire.Exchanged); len(x.Items) != 1 || time.Since(began) > time.Second {
			t.Errorf("after %v: %+v", time.Since(began), x)
		}
	})
}

// raw sends bytes as they are.
func raw(t *testing.T, h http.Handler, body io.Reader, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+domB+"/peer", body)
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// envelope is a message of a with its password, whatever is in it.
func envelope(header, body string) string {
	return `<s:Envelope xmlns:s="` + soap.NS11 + `"><s:Header><t:From xmlns:t="` + peertest.NS + `" domain="` + domA + `" key="password of ` + domA + `"/>` + header + `</s:Header><s:Body>` + body + `</s:Body></s:Envelope>`
}

func TestRawMessages(t *testing.T) {
	hostile(t, func(t *testing.T, w *world) {
		a := w.speaker(t, domA, w.keys.Trust(domA), domB)
		a.opens(domA, "s1")
		beat := `<p:Heartbeat xmlns:p="` + wire.NS + `" session="s1" number="1" limit="64" clock="2026-01-02T03:04:05Z"/>`
		trace := `<p:Trace xmlns:p="` + wire.NS + `" traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"/>`
		zipped := func(s string) string {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = io.WriteString(z, s)
			_ = z.Close()
			return b.String()
		}
		for _, c := range []struct {
			name, body string
			header     []string
			status     int
			says       string
		}{
			{"good", envelope(trace, beat), nil, 200, "HeartbeatResponse"},
			{"compressed", zipped(envelope("", strings.Replace(beat, `number="1"`, `number="2"`, 1))), []string{"Content-Encoding", "gzip"}, 200, "HeartbeatResponse"},
			{"no compression after all", envelope("", beat), []string{"Content-Encoding", "gzip"}, 400, "could not be read"},
			{"another compression", envelope("", beat), []string{"Content-Encoding", "br"}, 415, "without a content encoding"},
			{"compressed twice", envelope("", beat), []string{"Content-Encoding", "gzip, gzip"}, 415, "without a content encoding"},
			{"cut", zipped(envelope("", beat))[:60], []string{"Content-Encoding", "gzip"}, 400, "could not be read"},
			{"two traces", envelope(trace+trace, beat), nil, 500, "BadMessage"},
			{"a bad trace", envelope(strings.Replace(trace, "00-4", "ff-4", 1), beat), nil, 500, "BadMessage"},
			{"a header to be understood", envelope(`<x:X xmlns:x="urn:x" s:mustUnderstand="1"/>`, beat), nil, 500, "MustUnderstand"},
			{"another operation", envelope("", `<p:Explode xmlns:p="`+wire.NS+`"/>`), nil, 500, "no operation here"},
			{"a field too many", envelope("", strings.Replace(beat, "number", "colour=\"red\" number", 1)), nil, 500, "colour does not belong here"},
			{"DOCTYPE", `<!DOCTYPE x>` + envelope("", beat), nil, 500, "refused"},
			{"no XML", "hello", nil, 500, "refused"},
			{"another media type", envelope("", beat), []string{"Content-Type", "application/json"}, 415, "text/xml"},
			{"an answer elsewhere", envelope(`<w:ReplyTo xmlns:w="`+soap.NSWSA+`"><w:Address>http://c.example/</w:Address></w:ReplyTo><w:Action xmlns:w="`+soap.NSWSA+`">x</w:Action>`, beat), nil, 500, "OnlyAnonymousAddressSupported"},
			{"huge", envelope("", strings.Repeat(" ", 9<<20)), nil, 413, "larger than"},
		} {
			status, body := raw(t, w.b.Server, strings.NewReader(c.body), c.header...)
			if status != c.status || !strings.Contains(body, c.says) {
				t.Errorf("%s: %d %.300s", c.name, status, body)
			}
		}
		phase(t, w.b, domA, session.Alive)
	})
}

// A small body that becomes a large one is read to its bound and no further.
func TestBomb(t *testing.T) {
	hostile(t, func(t *testing.T, w *world) {
		piece := func(s string) []byte {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = io.WriteString(z, s)
			_ = z.Close()
			return b.Bytes()
		}
		var b bytes.Buffer // many members make one stream (RFC 1952 §2.2)
		b.Write(piece(`<s:Envelope xmlns:s="` + soap.NS11 + `"><s:Body>`))
		b.Write(bytes.Repeat(piece(strings.Repeat(" ", 1<<20)), 512))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		status, body := raw(t, w.b.Server, &b, "Content-Encoding", "gzip")
		runtime.ReadMemStats(&after)
		if status != 413 {
			t.Errorf("%d %.200s", status, body)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
			t.Errorf("%d MiB were taken for it", n>>20)
		}
	})
}

// slowly is a body that does not come.
type slowly struct{ ctx context.Context } //nolint:containedctx // it is a reader of one test

func (s slowly) Read([]byte) (int, error) { <-s.ctx.Done(); return 0, s.ctx.Err() }

func TestTooManyUnverified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := peertest.NewKeys(domB)
		server := peers.NewServer(peers.ServerOptions{Trust: keys.Trust(domB), Unverified: 3})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { raw(t, server, slowly{ctx}) })
		}
		synctest.Wait()
		if status, _ := raw(t, server, strings.NewReader("x")); status != 503 {
			t.Errorf("%d", status)
		}
		cancel()
		wg.Wait()
		if status, _ := raw(t, server, strings.NewReader("x")); status != 500 {
			t.Errorf("%d", status)
		}
		// Without a table it is busy.
		keys.Set(domA, "password of "+domA)
		beat := `<p:Heartbeat xmlns:p="` + wire.NS + `" session="s1" number="1" clock="2026-01-02T03:04:05Z"/>`
		if status, body := raw(t, server, strings.NewReader(envelope("", beat))); status != 503 || !strings.Contains(body, "Busy") {
			t.Errorf("%d %s", status, body)
		}
	})
}

// What a peer answers is not believed more than what it asks.
func TestHostileAnswers(t *testing.T) {
	keys := peertest.NewKeys(domA, domB, "c.example")
	answer := func(trust peers.Trust, m wire.Message) string {
		e, err := wire.Encode(m)
		must(t, err)
		doc, err := xmldoc.ReadBytes([]byte(`<s:Envelope xmlns:s="`+soap.NS11+`"><s:Header/><s:Body/></s:Envelope>`), xmldoc.Limits{})
		must(t, err)
		xmldoc.Child(doc.Root(), soap.NS11, "Body").AddChild(e)
		if sign := trust.Signer(domA); sign != nil {
			must(t, sign(t.Context(), doc.Root()))
		}
		return string(xmldoc.Marshal(doc.Root()))
	}
	frame := wire.Frame{Session: "s", Number: 1, Clock: time.Now()}
	good := answer(keys.Trust(domB), &wire.HeartbeatAnswer{Frame: frame})
	for _, c := range []struct {
		name string
		do   func(w http.ResponseWriter)
		want fail.Kind
		ok   bool
	}{
		{name: "good", do: func(w http.ResponseWriter) { _, _ = io.WriteString(w, good) }, ok: true},
		{name: "of another domain", do: func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, answer(keys.Trust("c.example"), &wire.HeartbeatAnswer{Frame: frame}))
		}, want: fail.Denied},
		{name: "unsigned", do: func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, answer(mute{keys.Trust(domB)}, &wire.HeartbeatAnswer{Frame: frame}))
		}, want: fail.Unauthenticated},
		{name: "an unsigned fault", do: func(w http.ResponseWriter) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, `<s:Envelope xmlns:s="`+soap.NS11+`"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>no</faultstring><detail><p:PeerFault xmlns:p="`+wire.NS+`" code="UnknownSession" sentence="gone"/></detail></s:Fault></s:Body></s:Envelope>`)
		}, want: fail.Unauthenticated},
		{name: "to something else", do: func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, answer(keys.Trust(domB), &wire.Closed{Frame: frame}))
		}, want: fail.Invalid},
		{name: "not of the protocol", do: func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, strings.Replace(good, "HeartbeatResponse", "Heartbeats", 2))
		}, want: fail.Invalid},
		{name: "no XML", do: func(w http.ResponseWriter) { _, _ = io.WriteString(w, "hello") }, want: fail.Uncertain},
		{name: "a bomb", do: func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			blanks := bytes.Repeat([]byte(" "), 1<<20)
			for range 64 {
				_, _ = z.Write(blanks)
			}
			_ = z.Close()
		}, want: fail.Uncertain},
		{name: "a redirect", do: func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://c.example/")
			w.WriteHeader(307)
		}, want: fail.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			net := new(peertest.Network)
			net.Serve(domB, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { c.do(w) }))
			client := &peers.Client{URL: "http://" + domB + "/peer", Domain: domB, Trust: keys.Trust(domA), Transport: net.From(domA)}
			_, err := client.Call(t.Context(), &wire.Heartbeat{Frame: frame})
			if c.ok {
				must(t, err)
				return
			}
			kind(t, err, c.want)
		})
	}
}

// A request is compressed for who is seen to take it, and not for others.
func TestCompression(t *testing.T) {
	keys := peertest.NewKeys(domA, domB)
	net := new(peertest.Network)
	var encodings []string
	plain := false
	server := peers.NewServer(peers.ServerOptions{Trust: keys.Trust(domB)})
	net.Serve(domB, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		encodings = append(encodings, r.Header.Get("Content-Encoding"))
		if plain && r.Header.Get("Content-Encoding") != "" {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		server.ServeHTTP(w, r)
	}))
	client := &peers.Client{URL: "http://" + domB + "/peer", Domain: domB, Trust: keys.Trust(domA), Transport: net.From(domA)}
	f := wire.Frame{Session: "s", Number: 1, Clock: time.Now(), First: 1, Sent: 30}
	for i := range 30 {
		f.Items = append(f.Items, query(domA, i))
	}
	for range 2 {
		_, err := client.Call(t.Context(), &wire.Exchange{Frame: f})
		kind(t, err, fail.Unavailable) // Busy, which is an answer
	}
	plain = true
	_, err := client.Call(t.Context(), &wire.Exchange{Frame: f})
	kind(t, err, fail.Unavailable)
	if got := strings.Join(encodings, ","); got != ",gzip,gzip," {
		t.Errorf("the requests were encoded as %q", got)
	}
}

func TestDescription(t *testing.T) {
	server := peers.NewServer(peers.ServerOptions{Trust: peertest.NewKeys().Trust(domB)})
	get := func(target string) (int, string) {
		w := httptest.NewRecorder()
		server.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
		return w.Code, w.Body.String()
	}
	if status, body := get("http://" + domB + "/peer?wsdl"); status != 200 || !strings.Contains(body, `location="http://b.example/peer"`) {
		t.Errorf("%d %.200s", status, body)
	}
	if status, _ := get("http://" + domB + "/peer"); status != 405 {
		t.Errorf("%d", status)
	}
	if status, _ := get("http://" + domB + "/peer?xsd=x"); status != 404 {
		t.Errorf("%d", status)
	}
}

// TestSessionsDoNotAddUp: who opens sessions one after the other has no more taken than one of them may bring
// and another, however long the gateway is busy with the first.
func TestSessionsDoNotAddUp(t *testing.T) {
	hostile(t, func(t *testing.T, w *world) {
		w.b.Seen.Hold = true
		a := w.speaker(t, domA, w.keys.Trust(domA), domB)
		bring := func(n int) {
			t.Helper()
			var items []wire.Message
			for i := range n {
				items = append(items, query(domA, i))
			}
			a.want(&wire.Exchange{Frame: a.frame(items...)}, "")
			synctest.Wait()
		}
		a.opens(domA, "s1")
		bring(64) // the window
		a.opens(domA, "s2")
		bring(1)
		a.want(a.opening(domA, "s3"), wire.Busy)
		_, err := a.client.Call(t.Context(), a.opening(domA, "s4"))
		if f, ok := err.(*wire.Fault); !ok || !strings.Contains(f.Sentence, "65 items of earlier sessions") || f.Retry == 0 { //nolint:errorlint // it is one, or the test fails
			t.Error(err)
		}
		// Another peer is not kept waiting by that.
		c := w.speaker(t, "c.example", w.keys.Trust("c.example"), domB)
		c.opens("c.example", "c1")
		w.b.Seen.Release()
		synctest.Wait()
		pass(5 * time.Second)
		a.opens(domA, "s5")
		bring(1)
	})
}

// TestSessionsAreHeeded: nor do sessions themselves add up while the gateway does not heed what it is told.
func TestSessionsAreHeeded(t *testing.T) {
	hostile(t, func(t *testing.T, w *world) {
		stands := make(chan struct{})
		w.b.Seen.On = func(string, []wire.Message) { <-stands }
		a := w.speaker(t, domA, w.keys.Trust(domA), domB)
		a.opens(domA, "s")
		a.want(&wire.Exchange{Frame: a.frame(query(domA, 0))}, "")
		synctest.Wait()
		opened := 0
		for i := range 100 {
			pass(3 * time.Second)
			if a.code(a.opening(domA, fmt.Sprint("s", i))) == "" {
				opened++
			}
		}
		if opened > limits.Untold || opened < limits.Untold/4 {
			t.Errorf("%d sessions were opened", opened)
		}
		close(stands)
		synctest.Wait()
		pass(3 * time.Second)
		a.opens(domA, "last")
	})
}
