package conformance

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/wire"
)

// spoiler stands between the kit and a host and breaks one thing. What it does not say is
// passed on as it is.
type spoiler struct {
	ask    func(wire.Message)                 // changes a request
	answer func(request, answer wire.Message) // changes its answer
	fault  func(*wire.Fault)                  // or the fault
	raw    func(asked, *answer)               // changes what goes over HTTP, last
}

var soapBody = regexp.MustCompile(`(?s)(<\w+:Body[^>]*>)(.*)(</\w+:Body>)`)

// around applies the spoiler.
func (s spoiler) around(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "cut", http.StatusBadRequest)
			return
		}
		var request wire.Message
		if doc, err := xmldoc.ReadBytes(sent, xmldoc.Limits{Bytes: replyLimit}); err == nil {
			if b := xmldoc.Child(doc.Root(), xmldoc.NameOf(doc.Root()).Space, "Body"); b != nil && len(b.ChildElements()) == 1 {
				request, _ = wire.Decode(nil, b.ChildElements()[0])
			}
		}
		body := sent
		if request != nil && s.ask != nil {
			s.ask(request)
			if text, err := textOf(request); err == nil {
				body = soapBody.ReplaceAllFunc(sent, func([]byte) []byte { return []byte("<s:Body>" + text + "</s:Body>") })
			}
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		a := &answer{rec.Code, rec.Header(), rec.Body.String()}
		s.change(request, a)
		if s.raw != nil {
			s.raw(asked{r, string(sent)}, a)
		}
		maps.Copy(w.Header(), a.header)
		w.Header().Del("Content-Length")
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	})
}

// change changes what the host answered.
func (s spoiler) change(request wire.Message, a *answer) {
	if s.answer == nil && s.fault == nil {
		return
	}
	rep := &reply{status: a.status, header: a.header, raw: []byte(a.body)}
	if rep.parse() != nil {
		return
	}
	m, err := rep.spoken()
	f, isFault := err.(*wire.Fault) //nolint:errorlint // it is one, or something else
	switch {
	case err == nil && s.answer != nil:
		s.answer(request, m)
		text, err := textOf(m)
		if err != nil {
			text = "<!-- " + strings.ReplaceAll(err.Error(), "--", "") + " -->"
		}
		a.body = soapBody.ReplaceAllString(a.body, "${1}"+strings.ReplaceAll(text, "$", "$$")+"${3}")
	case isFault && s.fault != nil:
		was := string(f.Code)
		s.fault(f)
		a.body = strings.ReplaceAll(a.body, was, string(f.Code))
	}
}

// fails makes the answer a fault of the protocol.
func (a *answer) fails(code wire.FaultCode) {
	text, _ := textOf(&wire.Fault{Code: code, Sentence: "spoiled"})
	a.status = http.StatusInternalServerError
	a.header.Set("Content-Type", "text/xml; charset=utf-8")
	a.header.Del("Content-Encoding")
	a.body = envelope(soap.V11, `<s:Body><s:Fault xmlns:p="`+wire.NS+`"><faultcode>p:`+string(code)+`</faultcode><faultstring>spoiled</faultstring><detail>`+text+`</detail></s:Fault></s:Body>`)
}

// nothing is about a copy that nobody gave.
var nothing = &wire.Grant{About: wire.About{Origin: "nobody.example", ID: "nothing", Token: "1"}, RecallBy: time.Unix(1<<30, 0).UTC()}

// items changes the items of answers, one by one; what gives nil is hidden.
func items(change func(wire.Message) wire.Message) spoiler {
	return spoiler{answer: func(_, a wire.Message) {
		x, ok := a.(*wire.Exchanged)
		if !ok {
			return
		}
		for i, m := range x.Items {
			if x.Items[i] = change(m); x.Items[i] == nil {
				x.Items[i] = nothing // in its place: something that nobody waits for
			}
		}
	}}
}

// each is items for those of one type.
func each[T wire.Message](change func(T)) spoiler {
	return items(func(m wire.Message) wire.Message {
		if x, ok := m.(T); ok {
			change(x)
		}
		return m
	})
}

// asks changes requests of one type.
func asks[T wire.Message](change func(T)) spoiler {
	return spoiler{ask: func(m wire.Message) {
		if x, ok := m.(T); ok {
			change(x)
		}
	}}
}

// gives changes items that the kit sends, of one type.
func gives[T wire.Message](change func(T)) spoiler {
	return asks(func(x *wire.Exchange) {
		for _, m := range x.Items {
			if i, ok := m.(T); ok {
				change(i)
			}
		}
	})
}

// answers changes answers of one type.
func answers[T wire.Message](change func(T)) spoiler {
	return spoiler{answer: func(_, m wire.Message) {
		if x, ok := m.(T); ok {
			change(x)
		}
	}}
}

// framed changes the frame of every answer.
func framed(change func(*wire.Frame)) spoiler {
	return spoiler{answer: func(_, m wire.Message) { changeFrame(m, change) }}
}

func changeFrame(m wire.Message, change func(*wire.Frame)) {
	switch m := m.(type) {
	case *wire.Exchanged:
		change(&m.Frame)
	case *wire.HeartbeatAnswer:
		change(&m.Frame)
	case *wire.Closed:
		change(&m.Frame)
	case *wire.Resumed:
		change(&m.Frame)
	case *wire.Exchange:
		change(&m.Frame)
	case *wire.Heartbeat:
		change(&m.Frame)
	case *wire.Close:
		change(&m.Frame)
	case *wire.Resume:
		change(&m.Frame)
	}
}

// miscoded gives every fault of a code another one.
func miscoded(from, to wire.FaultCode) spoiler {
	return spoiler{fault: func(f *wire.Fault) {
		if f.Code == from {
			f.Code = to
		}
	}}
}

// rawly changes what goes over HTTP.
func rawly(f func(asked, *answer)) spoiler { return spoiler{raw: f} }

// slow answers late what is about an operation.
func slow(operation string, d time.Duration) spoiler {
	return rawly(func(r asked, _ *answer) {
		if r.about(operation) {
			time.Sleep(d)
		}
	})
}

func accept(a *wire.Answer) { a.Accepted, a.Kind, a.Reason = true, "", "" }
func refuse(a *wire.Answer) { a.Accepted, a.Kind, a.Reason = false, wire.Internal, "spoiled" }

func returned(r *wire.Report) { r.Status, r.Result, r.Reason = wire.IsReturned, nil, "spoiled" }

// spoilers break, for each check, what it proves; each is made afresh.
var spoilers = map[string]func() spoiler{}

func spoils(s func() spoiler, ids ...string) {
	for _, id := range ids {
		spoilers[id] = s
	}
}

func always(s spoiler) func() spoiler { return func() spoiler { return s } }

func span(chapter string, from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf("PEER-%s-%d", chapter, i))
	}
	return out
}

func init() {
	unknown := always(rawly(func(r asked, a *answer) {
		if r.Method == http.MethodPost {
			a.fails(wire.UnknownSession)
		}
	}))
	spoils(always(rawly(func(_ asked, a *answer) { a.header.Set("Content-Type", "text/plain") })), span("MSG", 1, 2)...)
	spoils(always(rawly(func(r asked, a *answer) {
		if strings.HasPrefix(r.body, "\x1f\x8b") {
			a.status, a.body = http.StatusUnsupportedMediaType, "no"
		}
	})), "PEER-MSG-3")
	spoils(always(rawly(func(_ asked, a *answer) { a.header.Set("Content-Encoding", "br") })), "PEER-MSG-4")
	spoils(always(rawly(func(r asked, a *answer) {
		if r.Header.Get("Accept-Encoding") == "gzip" {
			a.header.Set("Content-Encoding", "gzip")
			a.body = "not at all"
		}
	})), "PEER-MSG-5")
	spoils(unknown, span("MSG", 6, 11)...)
	spoils(always(rawly(rewrite(`(Action[^>]*>)[^<]*<`, "${1}urn:other<"))), "PEER-WSA-1", "PEER-WSA-4")
	spoils(always(rawly(rewrite(`(RelatesTo[^>]*>)[^<]*<`, "${1}urn:other<"))), "PEER-WSA-2")
	spoils(always(rawly(rewrite(`<\w+:MessageID.*?</\w+:MessageID>`, ""))), "PEER-WSA-3")
	spoils(always(rawly(func(r asked, a *answer) {
		if strings.Contains(r.body, peerPort+"OpenSession<") && r.about("Heartbeat") {
			a.fails(wire.BadMessage)
		}
	})), "PEER-WSA-5")
	spoils(unknown, "PEER-WSA-6", "PEER-WSA-7", "PEER-TRC-2")
	spoils(always(rawly(func(r asked, a *answer) {
		if r.about("Trace") {
			a.fails(wire.BadMessage)
		}
	})), "PEER-TRC-1")
	spoils(always(rawly(replace(":UnknownSession<", ":Unknown<"))), "PEER-FLT-1", "PEER-FLT-2")
	spoils(always(miscoded(wire.UnknownSession, wire.SessionClosed)), "PEER-FLT-3")
	spoils(always(rawly(replace("PeerPortType/Exchange\"", "PeerPort/Exchange\""))), "PEER-WSDL-1")
	spoils(always(rawly(replace(`name="recallBy"`, `name="recall-by"`))), "PEER-WSDL-2")
	spoils(always(rawly(rewrite(`<soap12:address [^>]*>`, ""))), "PEER-WSDL-3")

	spoils(always(answers(func(m *wire.Opened) { m.Role = wire.Child })), "PEER-OPN-1")
	spoils(always(answers(func(m *wire.Opened) { m.Version = "0.9" })), "PEER-OPN-2")
	spoils(always(miscoded(wire.NoVersion, wire.TermsRefused)), "PEER-OPN-3")
	spoils(always(answers(func(m *wire.Opened) { m.Features = append(m.Features, "x-nobody-knows") })), "PEER-OPN-4")
	spoils(always(answers(func(m *wire.Opened) { m.Beat /= 2 })), "PEER-OPN-5")
	spoils(always(answers(func(m *wire.Opened) { m.Lost -= time.Second })), "PEER-OPN-6")
	spoils(always(answers(func(m *wire.Opened) { m.Terms.Lease += time.Minute })), "PEER-OPN-7")
	spoils(always(miscoded(wire.TermsRefused, wire.NoVersion)), "PEER-OPN-8", "PEER-OPN-9")
	spoils(func() spoiler {
		n := 0
		return answers(func(m *wire.Opened) {
			if n++; n > 1 {
				m.Window++
			}
		})
	}, "PEER-OPN-10")
	spoils(always(miscoded(wire.BadMessage, wire.InternalProblem)), "PEER-OPN-11")
	spoils(always(framed(func(f *wire.Frame) { f.Closing = "" })), "PEER-OPN-12")
	spoils(always(answers(func(m *wire.Opened) { m.Endpoint = "" })), "PEER-OPN-13")
	spoils(always(miscoded(wire.NotTrusted, wire.BadMessage)), "PEER-TRU-1", "PEER-TRU-2", "PEER-TRU-4")
	spoils(unknown, "PEER-TRU-3")
	spoils(func() spoiler { // has one session and no more
		closed := false
		return spoiler{answer: func(q, a wire.Message) {
			if o, ok := q.(*wire.Open); ok {
				closed = o.Domain == thirdDomain
			}
			changeFrame(a, func(f *wire.Frame) {
				if closed {
					f.Closing = wire.Ended
				}
			})
		}}
	}, "PEER-TWO-1")
	spoils(always(miscoded(wire.NotTrusted, wire.UnknownSession)), span("TWO", 2, 5)...)
	spoils(always(miscoded(wire.CursorMismatch, wire.UnknownSession)), "PEER-TWO-6")
	spoils(always(each(func(r *wire.Report) { r.Heeded = 9 })), "PEER-TWO-7")

	spoils(always(framed(func(f *wire.Frame) { f.Heard = 0 })), "PEER-FRM-1")
	spoils(always(framed(func(f *wire.Frame) { f.Number = 1 })), "PEER-FRM-2")
	spoils(always(framed(func(f *wire.Frame) { f.Limit-- })), "PEER-FRM-3")
	spoils(always(framed(func(f *wire.Frame) { f.Done = 0 })), "PEER-FRM-4")
	spoils(takingTwice, "PEER-FRM-5")
	spoils(func() spoiler {
		next := uint64(1)
		return asks(func(m *wire.Exchange) {
			if len(m.Items) > 0 {
				m.First = min(m.First, next) // whatever comes is the next
				next = m.First + uint64(len(m.Items))
			}
		})
	}, "PEER-FRM-6")
	spoils(always(spoiler{answer: func(q, a wire.Message) {
		if q, ok := q.(*wire.Exchange); ok && len(q.Items) > 0 {
			changeFrame(a, func(f *wire.Frame) { f.Got = q.First + uint64(len(q.Items)) - 1 })
		}
	}}), "PEER-FRM-7")
	spoils(func() spoiler {
		last := uint64(0)
		return spoiler{ask: func(m wire.Message) {
			changeFrame(m, func(f *wire.Frame) {
				f.Number = max(f.Number, last+1)
				last = f.Number
			})
		}}
	}, "PEER-FRM-8")
	spoils(always(miscoded(wire.CursorMismatch, wire.BadMessage)), span("FRM", 9, 11)...)
	spoils(always(spoiler{ask: func(m wire.Message) {
		if o, ok := m.(*wire.Open); ok {
			o.Window = 64
		}
		changeFrame(m, func(f *wire.Frame) { f.Limit += 64 })
	}}), "PEER-FRM-12")
	spoils(forgetful, "PEER-FRM-13")
	spoils(chatty, "PEER-FRM-14")
	spoils(always(miscoded(wire.BadMessage, wire.InternalProblem)), "PEER-FRM-15")
	spoils(always(spoiler{
		ask: func(m wire.Message) {
			if o, ok := m.(*wire.Open); ok {
				o.Features = wire.Features()
			}
		},
		answer: func(_, m wire.Message) {
			if o, ok := m.(*wire.Opened); ok {
				o.Features = nil
			}
		},
	}), "PEER-FRM-16")

	spoils(always(asks(func(m *wire.Exchange) { m.Hold = 0 })), "PEER-POL-1")
	spoils(always(slow("Exchange", promptly+500*time.Millisecond)), "PEER-POL-2", "PEER-POL-3", "PEER-POL-4", "PEER-POL-5")
	spoils(always(slow("Heartbeat", promptly+500*time.Millisecond)), "PEER-POL-6")

	changes := func(change func(*wire.Resources, *wire.SiteChange)) func() spoiler {
		return always(each(func(r *wire.Resources) {
			for i := range r.Changes {
				change(r, &r.Changes[i])
			}
		}))
	}
	spoils(changes(func(_ *wire.Resources, c *wire.SiteChange) { c.Static = "" }), "PEER-RES-1")
	spoils(changes(func(_ *wire.Resources, c *wire.SiteChange) { c.Static += "\n" }), "PEER-RES-2")
	spoils(always(each(func(d *wire.Digests) { d.Dynamic[7] ^= 1 })), "PEER-RES-3")
	spoils(always(gives(func(m *wire.Pull) { m.View, m.Revision = "", 0 })), "PEER-RES-4")
	spoils(always(each(func(d *wire.Digests) { d.View = "urn:nobody:has:this" })), "PEER-RES-5")
	spoils(always(each(func(r *wire.Resources) {
		if r.Buckets > 0 {
			r.Changes = r.Changes[1:]
		}
	})), "PEER-RES-6")
	spoils(always(each(func(r *wire.Resources) {
		if r.Buckets > 0 {
			r.Repairs[0], r.Repairs[1] = 0xff, 0xff
		}
	})), "PEER-RES-7")
	spoils(changes(func(r *wire.Resources, c *wire.SiteChange) {
		if r.Buckets > 0 {
			c.Dynamic = "all the same"
		}
	}), "PEER-RES-8")
	spoils(always(each(func(r *wire.Resources) { r.Detail = wire.Full })), "PEER-RES-9")

	hide := func(which func(wire.Message) bool) spoiler {
		return items(func(m wire.Message) wire.Message {
			if which(m) {
				return nil
			}
			return m
		})
	}
	spoils(always(hide(func(m wire.Message) bool { _, ok := m.(*wire.Answer); return ok })), "PEER-JOB-1", "PEER-JOB-23")
	spoils(func() spoiler {
		n := 0
		return each(func(a *wire.Answer) {
			if n++; n > 1 {
				refuse(a)
			}
		})
	}, "PEER-JOB-2", "PEER-JOB-9")
	spoils(always(each(accept)), "PEER-JOB-3", "PEER-JOB-4", "PEER-JOB-5", "PEER-JOB-8", "PEER-JOB-10", "PEER-JOB-11", "PEER-JOB-21")
	spoils(always(miscoded(wire.BadMessage, wire.InternalProblem)), "PEER-JOB-6", "PEER-JOB-7")
	spoils(always(each(func(r *wire.Report) {
		if r.Result != nil {
			r.Result.Outcome = wire.Failed
		}
	})), "PEER-JOB-12")
	spoils(func() spoiler {
		n := 0
		return hide(func(m wire.Message) bool {
			r, ok := m.(*wire.Report)
			if ok && final(r) {
				n++
			}
			return n > 1
		})
	}, "PEER-JOB-13")
	spoils(always(each(func(r *wire.Report) {
		if r.Status == wire.IsReturned {
			r.Status = wire.IsWaiting
		}
	})), "PEER-JOB-19", "PEER-JOB-31")
	spoils(func() spoiler {
		settled := false
		return spoiler{
			ask: func(m wire.Message) {
				if x, ok := m.(*wire.Exchange); ok {
					for _, m := range x.Items {
						if _, ok := m.(*wire.Settle); ok {
							settled = true
						}
					}
				}
			},
			answer: each(func(r *wire.Report) {
				if settled {
					r.Status, r.Result = wire.IsRunning, nil
				}
			}).answer,
		}
	}, "PEER-JOB-14")
	// A Query is taken for a Control, which does something to a copy that is not there yet.
	spoils(always(asks(func(x *wire.Exchange) {
		for i, m := range x.Items {
			if q, ok := m.(*wire.Query); ok {
				x.Items[i] = &wire.Control{About: q.About, Number: 1, Want: wire.Cancel, RecallBy: time.Now().UTC().Add(time.Hour)}
			}
		}
	})), "PEER-JOB-15")
	spoils(always(each(func(r *wire.Report) { r.Used = 0 })), "PEER-JOB-27")
	spoils(always(each(accept)), "PEER-JOB-28")
	spoils(always(each(func(a *wire.Answer) {
		if a.Accepted {
			refuse(a)
			a.Kind = wire.Invalid
		}
	})), "PEER-JOB-29")
	spoils(func() spoiler {
		n := 0
		return each(func(a *wire.Answer) {
			if n++; n > 1 {
				a.Kind = wire.Exhausted
			}
		})
	}, "PEER-JOB-30")
	spoils(always(gives(func(m *wire.Control) { m.Token = "2" })), "PEER-JOB-32")
	spoils(always(hide(func(m wire.Message) bool {
		r, ok := m.(*wire.Report)
		return ok && final(r)
	})), "PEER-DLN-1")
	spoils(always(gives(func(m *wire.Grant) { m.RecallBy = time.Now().UTC() })), "PEER-DLN-2")

	spoils(always(hide(func(m wire.Message) bool { _, ok := m.(*wire.Quotas); return ok })), "PEER-QUO-1")
	spoils(always(each(func(q *wire.Quotas) {
		for i := range q.List {
			q.List[i].Jobs = 0
		}
	})), "PEER-QUO-2")

	ours := wire.Pair{Provider: hostDomain, Consumer: guestDomain}
	spoils(always(each(func(a *wire.Account) { a.Number, a.Sum, a.Heard, a.Digest = 0, 0, 0, nil })), "PEER-LED-1")
	spoils(always(each(func(s *wire.Statements) {
		s.List[0].Canonical = bytes.Replace(s.List[0].Canonical, []byte("\ntoken:1:1\n"), []byte("\ntoken:01:1\n"), 1)
	})), "PEER-LED-2")
	spoils(always(each(func(s *wire.Statements) { s.List[0].Signature[3] ^= 1 })), "PEER-LED-3")
	spoils(always(gives(func(a *wire.Account) { a.Number, a.Sum, a.Heard, a.Digest = 0, 0, 0, nil })), "PEER-LED-4")
	spoils(always(each(func(a *wire.Account) { a.Heard = a.Number })), "PEER-LED-5")
	spoils(always(each(func(a *wire.Account) { a.Heard = 0 })), "PEER-LED-6")
	strangers := wire.Pair{Provider: hostDomain, Consumer: "stranger.invalid"}
	spoils(func() spoiler {
		asked := false
		return spoiler{
			ask: gives(func(a *wire.Account) {
				if a.Pair == strangers {
					a.Pair, asked = ours, true
				}
			}).ask,
			answer: each(func(s *wire.Statements) {
				if asked {
					s.Pair = strangers
				}
			}).answer,
		}
	}, "PEER-LED-7")
	spoils(always(gives(func(s *wire.Statements) { s.List[0].Signature, _ = seal(guestDomain).Sign(s.List[0].Canonical) })), "PEER-LED-8")
	spoils(always(each(func(v *wire.Verdicts) { v.List[0].Verdict, v.List[0].Reason = wire.VerdictAgreed, "" })), "PEER-LED-9")
	spoils(always(hide(func(m wire.Message) bool { _, ok := m.(*wire.Probe); return ok })), "PEER-LED-10")
	spoils(always(gives(func(m *wire.Control) {
		if m.Recall != "" {
			m.Recall = wire.RecallRunning
		}
	})), "PEER-JOB-33")
	spoils(always(hide(func(m wire.Message) bool {
		r, ok := m.(*wire.Report)
		return ok && final(r)
	})), "PEER-JOB-34")
	spoils(always(hide(func(m wire.Message) bool { _, ok := m.(*wire.Pull); return ok })), "PEER-IMP-1")
	spoils(func() spoiler {
		n := 0
		return hide(func(m wire.Message) bool {
			_, ok := m.(*wire.Pull)
			if ok {
				n++
			}
			return n > 1
		})
	}, "PEER-IMP-2")
	spoils(always(gives(func(d *wire.Digests) { d.Static = make([]byte, 32) })), "PEER-IMP-3")
	spoils(always(gives(func(d *wire.Digests) { d.Static[0] ^= 1 })), "PEER-IMP-4")
	spoils(always(rawly(func(r asked, a *answer) {
		if r.Header.Get("Content-Encoding") == "x-nobody-knows" {
			a.status = http.StatusBadRequest
		}
	})), "PEER-MSG-12")
	spoils(func() spoiler {
		return rawly(func(r asked, a *answer) {
			if a.status == http.StatusInternalServerError && r.about("Heartbeat") {
				a.status, a.body = http.StatusOK, soapBody.ReplaceAllString(r.body, `<s:Body><p:HeartbeatResponse xmlns:p="`+wire.NS+`" session="x" number="1" clock="2026-01-02T03:04:05Z"/></s:Body>`)
			}
		})
	}, "PEER-TRU-5")
	spoils(always(slow("Exchange", promptly+500*time.Millisecond)), "PEER-POL-7")
	spoils(always(framed(func(f *wire.Frame) { f.Closing = "" })), "PEER-STR-26")
	spoils(always(miscoded(wire.Busy, wire.InternalProblem)), "PEER-BSY-1")
	spoils(always(each(returned)), "PEER-JOB-16", "PEER-JOB-18", "PEER-JOB-22")
	spoils(always(each(func(r *wire.Report) { r.Heeded = 0 })), "PEER-JOB-17", "PEER-JOB-20")
	spoils(always(each(func(o *wire.Output) { o.Data = bytes.ToUpper(o.Data) })), "PEER-JOB-24")
	spoils(always(each(func(o *wire.Output) { o.Kind, o.Reason = "", "" })), "PEER-JOB-25")
	spoils(always(gives(func(m *wire.Read) { m.Most = 5 })), "PEER-JOB-26")

	spoils(always(miscoded(wire.BadMessage, wire.InternalProblem)), span("STR", 1, 25)...)
	spoils(func() spoiler {
		n := 0
		return rawly(func(r asked, a *answer) {
			if !r.about("OpenSession") {
				return
			}
			if n++; n > 1 {
				a.fails(wire.BadMessage)
			}
		})
	}, "PEER-STR-4", "PEER-STR-5")

	open := framed(func(f *wire.Frame) { f.Closing = "" })
	spoils(always(open), "PEER-END-1", "PEER-END-3", "PEER-END-4", "PEER-END-5", "PEER-END-7")
	spoils(always(framed(func(f *wire.Frame) {
		if f.Closing == wire.Draining {
			f.Closing = wire.Ended
		}
	})), "PEER-END-2")
	spoils(always(miscoded(wire.SessionClosed, wire.InternalProblem)), "PEER-END-6")
	spoils(always(answers(func(m *wire.Resumed) { m.Instance = "another" })), "PEER-RSM-1", "PEER-PHS-3")
	spoils(func() spoiler {
		var mu sync.Mutex
		resumed := false
		return spoiler{answer: func(_, a wire.Message) {
			mu.Lock()
			defer mu.Unlock()
			if _, ok := a.(*wire.Resumed); ok {
				resumed = true
			}
			if x, ok := a.(*wire.Exchanged); ok && resumed {
				x.First, x.Items = 0, nil
			}
		}}
	}, "PEER-RSM-2")
	spoils(always(miscoded(wire.CursorMismatch, wire.BadMessage)), "PEER-RSM-3", "PEER-RSM-5")
	spoils(always(miscoded(wire.UnknownSession, wire.BadMessage)), "PEER-RSM-4")
	spoils(always(miscoded(wire.MustResume, wire.SessionClosed)), "PEER-PHS-1", "PEER-PHS-2")
}

// takingTwice has items of a frame that comes twice taken twice.
func takingTwice() spoiler {
	seen, more := map[uint64]bool{}, uint64(0)
	return spoiler{
		ask: func(m wire.Message) {
			changeFrame(m, func(f *wire.Frame) {
				if seen[f.Number] {
					more += uint64(len(f.Items))
				}
				seen[f.Number] = true
				if f.First > 0 {
					f.First += more
				}
				f.Sent += more
			})
		},
		answer: func(_, m wire.Message) {
			changeFrame(m, func(f *wire.Frame) {
				f.Got, f.Done, f.Limit = f.Got-min(more, f.Got), f.Done-min(more, f.Done), f.Limit-min(more, f.Limit)
			})
		},
	}
}

// forgetful takes every item that it sent for one that was got.
func forgetful() spoiler {
	last := uint64(0)
	return spoiler{
		ask: func(m wire.Message) {
			changeFrame(m, func(f *wire.Frame) {
				f.Got, f.Done = max(f.Got, last), max(f.Done, last)
				f.Limit += last
			})
		},
		answer: func(_, m wire.Message) {
			changeFrame(m, func(f *wire.Frame) {
				if n := uint64(len(f.Items)); n > 0 {
					last = f.First + n - 1
				}
			})
		},
	}
}

// chatty says its first item again and again.
func chatty() spoiler {
	var first wire.Message
	return answers(func(x *wire.Exchanged) {
		if len(x.Items) > 0 && x.First == 1 {
			first = x.Items[0]
		}
		if len(x.Items) == 0 && first != nil {
			x.First, x.Items = 1, []wire.Message{first}
		}
	})
}

// TestEveryPeerCheckCanFail: each check fails against a host that breaks what it proves, in
// its own subject, and not because nothing worked.
func TestEveryPeerCheckCanFail(t *testing.T) {
	t.Parallel()
	all := List(Peer)
	got := make([]Check, len(all))
	var wg sync.WaitGroup
	room := make(chan struct{}, 32)
	for i, c := range all {
		fresh := spoilers[c.ID]
		if fresh == nil {
			t.Errorf("nothing breaks what %s proves (%s)", c.ID, c.Title)
			continue
		}
		s := fresh()
		o := hosted(t, s.around)
		o.Filter, o.Settle = []string{c.ID}, 4*time.Second
		if c.ID == "PEER-TRU-5" {
			o = sealing(o)
		}
		if strings.HasPrefix(c.ID, "PEER-PHS") || strings.HasPrefix(c.ID, "PEER-DLN") {
			o.Settle = 7 * time.Second // a session is lost after 6 s, and a copy given up after 5 s at most
		}
		if c.ID == "PEER-DLN-2" {
			o.Settle = 15 * time.Second // on a busy machine the deadline is put off until the Grant comes in time
		}
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			rep, err := Run(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			for _, x := range rep.Checks {
				if x.ID == c.ID {
					got[i] = x
				}
			}
		})
	}
	wg.Wait()
	for i, c := range all {
		switch x := got[i]; {
		case spoilers[c.ID] == nil:
		case x.Result != Fail:
			t.Errorf("%s (%s) is a %s against a host that breaks it: %s", c.ID, c.Title, x.Result, x.Saw)
		case strings.Contains(x.Saw, "OpenSession:") && !strings.HasPrefix(c.ID, "PEER-OPN"), strings.Contains(x.Saw, "mistake of the kit"), strings.Contains(x.Saw, "is empty"):
			t.Errorf("%s (%s) does not fail for what it proves: %s", c.ID, c.Title, x.Saw)
		default:
			t.Logf("%s: %s", c.ID, x.Saw)
		}
	}
	known := map[string]bool{}
	for _, c := range all {
		known[c.ID] = true
	}
	for id := range spoilers {
		if !known[id] {
			t.Errorf("there is no check %s", id)
		}
	}
}
