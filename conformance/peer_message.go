package conformance

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/google/uuid"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/wire"
)

// stray is a Heartbeat of a session that nobody opened: the least that can be asked.
func (p *probe) stray() (*wire.Heartbeat, string, error) {
	m := &wire.Heartbeat{Frame: wire.Frame{Session: "urn:uuid:" + uuid.NewString(), Number: 1, Clock: time.Now().UTC()}}
	text, err := textOf(m)
	return m, text, err
}

var peerMessageChecks = []check{
	{"PEER-MSG-1", chapter("Messages: Transport"), "a message in SOAP 1.1 is answered in SOAP 1.1, as text/xml", spokenIn(soap.V11, "text/xml")},
	{"PEER-MSG-2", chapter("Messages: Transport"), "a message in SOAP 1.2 is answered in SOAP 1.2, as application/soap+xml", spokenIn(soap.V12, "application/soap+xml")},
	{"PEER-MSG-3", chapter("Messages: Transport"), "a request that is compressed with gzip is taken", zipped},
	{"PEER-MSG-4", chapter("Messages: Transport"), "an answer is not compressed unless that was asked for", plainAnswer},
	{"PEER-MSG-5", chapter("Messages: Transport"), "where gzip is accepted, the answer is whole, compressed or not", zippedAnswer},
	{"PEER-MSG-6", chapter("Messages: Transport (8 MiB)"), "a message of more than 8 MiB is refused", tooLarge(false)},
	{"PEER-MSG-7", chapter("Messages: Transport (bounds hold after decompression)"), "a small message that grows beyond 8 MiB is refused", tooLarge(true)},
	{"PEER-MSG-8", chapter("Messages: Transport (strict XML)"), "a DOCTYPE is refused", notXML(`<!DOCTYPE s:Envelope>`, "")},
	{"PEER-MSG-9", chapter("Messages: Transport (strict XML)"), "a processing instruction inside is refused", notXML("", `<?do it?>`)},
	{"PEER-MSG-10", chapter("Messages: Transport"), "an element in the Body that is no operation is refused", noOperation},
	{"PEER-MSG-11", chapter("Messages: Transport"), "an answer in the Body is no request", answerAsRequest},
	{"PEER-MSG-12", chapter("Messages: Transport (415)"), "a request in an encoding that nobody knows is answered with HTTP 415", strangeEncoding},
	{"PEER-WSA-1", chapter("Messages: WS-Addressing 1.0"), "an answer has the action of its element", peerHeader("Action")},
	{"PEER-WSA-2", chapter("Messages: WS-Addressing 1.0"), "an answer relates to the request's MessageID", peerHeader("RelatesTo")},
	{"PEER-WSA-3", chapter("Messages: WS-Addressing 1.0"), "an answer has a MessageID of its own", peerHeader("MessageID")},
	{"PEER-WSA-4", chapter("Messages: WS-Addressing 1.0"), "a fault has the action that ends in Fault, and relates to the request", peerFaultHeaders},
	{"PEER-WSA-5", chapter("Messages: WS-Addressing 1.0"), "the operation is found by the element in the Body, and not by the action", otherPeerAction},
	{"PEER-WSA-6", chapter("Messages: WS-Addressing 1.0"), "a ReplyTo elsewhere is refused", peerElsewhere("ReplyTo")},
	{"PEER-WSA-7", chapter("Messages: WS-Addressing 1.0"), "a FaultTo elsewhere is refused", peerElsewhere("FaultTo")},
	{"PEER-TRC-1", chapter("Messages: Trace"), "a Trace that must be understood is", traced(`00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`, wire.UnknownSession)},
	{"PEER-TRC-2", chapter("Messages: Trace; Trace"), "a Trace that is no traceparent of version 00 is refused", traced(`00-00000000000000000000000000000000-00f067aa0ba902b7-01`, wire.BadMessage)},
	{"PEER-FLT-1", chapter("Faults"), "in SOAP 1.1 the code is the faultcode, with a PeerFault in the detail", peerFault(soap.V11)},
	{"PEER-FLT-2", chapter("Faults"), "in SOAP 1.2 the code is the subcode, with a PeerFault in the detail", peerFault(soap.V12)},
	{"PEER-FLT-3", chapter("Faults: UnknownSession"), "a session that nobody opened is unknown, and the fault names it", strangeSession},
	{"PEER-WSDL-1", chapter("the description is at /peer?wsdl"), "?wsdl has the five operations with their actions", peerOperations},
	{"PEER-WSDL-2", chapter("the description is at /peer?wsdl"), "the description has each message, item and fault as it is spoken", peerSchema},
	{"PEER-WSDL-3", chapter("the description is at /peer?wsdl"), "the description has both versions of SOAP, with the endpoint's address", peerPorts},
}

// spokenIn asks in a version, and looks at the answer's.
func spokenIn(v soap.Version, media string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, text, err := p.stray()
		if err != nil {
			return "", err
		}
		rep, err := p.ask(ctx, p.carrying("Heartbeat", text).with(v))
		if err != nil {
			return "", err
		}
		if rep.media() != media {
			return "", fmt.Errorf("the answer is %s: wanted %s", rep.media(), media)
		}
		m, err := rep.spoken()
		return wantCode(m, err, wire.UnknownSession)
	}
}

func zipped(ctx context.Context, p *probe) (string, error) {
	_, text, err := p.stray()
	if err != nil {
		return "", err
	}
	r := p.carrying("Heartbeat", text).request()
	r.body = zip(r.body)
	r.header.Set("Content-Encoding", "gzip")
	rep, err := p.exchange(ctx, r)
	if err != nil {
		return "", err
	}
	if err := rep.parse(); err != nil {
		return "", err
	}
	m, err := rep.spoken()
	return wantCode(m, err, wire.UnknownSession)
}

func plainAnswer(ctx context.Context, p *probe) (string, error) {
	rep, err := p.large(ctx, nil)
	if err != nil {
		return "", err
	}
	if e := rep.header.Get("Content-Encoding"); e != "" && e != "identity" {
		return "", fmt.Errorf("nothing but the plain form was accepted, and the answer has Content-Encoding %q", e)
	}
	if err := rep.parse(); err != nil {
		return "", err
	}
	m, err := rep.spoken()
	if err != nil {
		return "", err
	}
	return wire.Name(m).Local, nil
}

// large asks for an answer that is worth to be compressed.
func (p *probe) large(ctx context.Context, header http.Header) (*reply, error) {
	o := p.offer(nil)
	text, err := textOf(o)
	if err != nil {
		return nil, err
	}
	p.visit = nil // this takes its place
	m := p.carrying("OpenSession", text)
	m.header = header
	rep, err := p.exchange(ctx, m.request())
	if err == nil && rep.status == http.StatusOK {
		return rep, nil
	}
	if err == nil && rep.parse() == nil {
		if _, why := rep.spoken(); why != nil {
			if f, busy := errors.AsType[*wire.Fault](why); busy && f.Code == wire.Busy {
				if _, err := p.patient(ctx, o); err != nil {
					return nil, err
				}
				return p.exchange(ctx, m.request()) // it is the same request
			}
		}
	}
	return rep, err
}

func zippedAnswer(ctx context.Context, p *probe) (string, error) {
	rep, err := p.large(ctx, http.Header{"Accept-Encoding": {"gzip"}})
	if err != nil {
		return "", err
	}
	form := rep.header.Get("Content-Encoding")
	switch form {
	case "", "identity":
		form = "plain"
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(rep.raw))
		if err == nil {
			rep.raw, err = io.ReadAll(io.LimitReader(z, replyLimit))
		}
		if err != nil {
			return "", fmt.Errorf("the answer says that it is gzip, and is not: %w", err)
		}
	default:
		return "", fmt.Errorf("gzip was accepted, and the answer has Content-Encoding %q", form)
	}
	if err := rep.parse(); err != nil {
		return "", err
	}
	m, err := rep.spoken()
	if err != nil {
		return "", err
	}
	return wire.Name(m).Local + ", " + form, nil
}

// beforeBody puts a text before the Body, which may have an id by which it is signed.
func beforeBody(b, text []byte) []byte {
	i := bytes.Index(b, []byte("<s:Body"))
	return slices.Concat(b[:i], text, b[i:])
}

// tooLarge sends a message of nothing but blanks beyond the bound.
func tooLarge(small bool) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, text, err := p.stray()
		if err != nil {
			return "", err
		}
		r := p.carrying("Heartbeat", text).request()
		r.body = beforeBody(r.body, bytes.Repeat([]byte(" "), 2*wire.MaxMessage))
		if small {
			r.body = zip(r.body)
			r.header.Set("Content-Encoding", "gzip")
		}
		rep, err := p.exchange(ctx, r)
		if err != nil {
			if rep == nil && !errors.Is(err, errLate) {
				// It may close the connection instead of reading on.
				return "the connection was closed: " + err.Error(), p.stillThere(ctx)
			}
			return "", err
		}
		if rep.status >= 200 && rep.status < 300 {
			return "", fmt.Errorf("a message of %d bytes got %s", 2*wire.MaxMessage, rep)
		}
		if rep.parse() == nil {
			if _, err := rep.spoken(); err != nil {
				if f, ok := errors.AsType[*wire.Fault](err); ok && f.Code == wire.UnknownSession {
					return "", fmt.Errorf("a message of %d bytes was read to its end: %s", 2*wire.MaxMessage, rep)
				}
			}
		}
		return rep.String(), p.stillThere(ctx)
	}
}

// stillThere asks for least, to see that the endpoint still stands.
func (p *probe) stillThere(ctx context.Context) error {
	m, _, err := p.stray()
	if err != nil {
		return err
	}
	got, err := p.send(ctx, m, 0)
	if _, err = wantCode(got, err, wire.UnknownSession); err != nil {
		return fmt.Errorf("after this message an ordinary one went wrong: %w", err)
	}
	return nil
}

// notXML checks that what stands before the Envelope, or inside it, is refused.
func notXML(before, inside string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, text, err := p.stray()
		if err != nil {
			return "", err
		}
		r := p.carrying("Heartbeat", text).request()
		r.body = bytes.Replace(r.body, []byte("<s:Envelope"), []byte(before+"<s:Envelope"), 1)
		r.body = beforeBody(r.body, []byte(inside))
		return p.refusedAsBad(ctx, r)
	}
}

// refusedAsBad wants a fault that blames the sender, and no other code of the protocol than
// BadMessage.
func (p *probe) refusedAsBad(ctx context.Context, r request) (string, error) {
	rep, err := p.exchange(ctx, r)
	if err != nil {
		return "", err
	}
	if err := rep.parse(); err != nil {
		return "", err
	}
	if err := rep.wantFault(soap.Sender); err != nil {
		return "", err
	}
	if _, err := rep.spoken(); err != nil {
		if f, ok := errors.AsType[*wire.Fault](err); ok && f.Code != wire.BadMessage {
			return "", fmt.Errorf("wanted a fault %s, got %s", wire.BadMessage, rep)
		}
	}
	return rep.String(), nil
}

func noOperation(ctx context.Context, p *probe) (string, error) {
	return p.refusedAsBad(ctx, p.carrying("Greet", `<p:Greet xmlns:p="`+wire.NS+`"/>`).request())
}

func answerAsRequest(ctx context.Context, p *probe) (string, error) {
	text, err := textOf(&wire.HeartbeatAnswer{Frame: wire.Frame{Session: "x", Number: 1, Clock: time.Now().UTC()}})
	if err != nil {
		return "", err
	}
	return p.refusedAsBad(ctx, p.carrying("HeartbeatResponse", text).request())
}

// peerHeader looks at one of the addressing headers of an ordinary answer.
func peerHeader(local string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		v, err := p.standing(ctx)
		if err != nil {
			return "", err
		}
		text, err := textOf(&wire.Heartbeat{Frame: v.frame()})
		if err != nil {
			return "", err
		}
		id := "urn:uuid:" + uuid.NewString()
		m := p.identified("Heartbeat", text, id)
		rep, err := p.ask(ctx, m)
		if err != nil {
			return "", err
		}
		a, err := rep.spoken()
		if err != nil {
			return "", err
		}
		if a, ok := a.(*wire.HeartbeatAnswer); ok {
			if err := v.read(&a.Frame); err != nil {
				return "", err
			}
		}
		got, err := rep.one(local)
		if err != nil {
			return "", err
		}
		want := map[string]string{"Action": peerPort + "HeartbeatResponse", "RelatesTo": id, "MessageID": got}[local]
		if got != want || got == "" || local == "MessageID" && got == id {
			return "", fmt.Errorf("wsa:%s of the answer is %q: wanted %q", local, got, want)
		}
		return "wsa:" + local + " " + got, nil
	}
}

func peerFaultHeaders(ctx context.Context, p *probe) (string, error) {
	_, text, err := p.stray()
	if err != nil {
		return "", err
	}
	id := "urn:uuid:" + uuid.NewString()
	rep, err := p.ask(ctx, p.identified("Heartbeat", text, id))
	if err != nil {
		return "", err
	}
	if err := rep.wantFault(soap.Sender); err != nil {
		return "", err
	}
	for local, want := range map[string]string{"Action": peerPort + "Fault", "RelatesTo": id} {
		if got, err := rep.one(local); err != nil || got != want {
			return "", errors.Join(fmt.Errorf("wsa:%s of the fault is %q: wanted %q", local, got, want), err)
		}
	}
	return peerPort + "Fault", nil
}

func otherPeerAction(ctx context.Context, p *probe) (string, error) {
	_, text, err := p.stray()
	if err != nil {
		return "", err
	}
	m, err := p.say(ctx, p.carrying("OpenSession", text)) // a Heartbeat all the same
	return wantCode(m, err, wire.UnknownSession)
}

func peerElsewhere(local string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, text, err := p.stray()
		if err != nil {
			return "", err
		}
		m := p.identified("Heartbeat", text, "urn:uuid:"+uuid.NewString()).under(wsaHeader(local, "", address("http://elsewhere.invalid/")))
		rep, err := p.ask(ctx, m)
		if err != nil {
			return "", err
		}
		if err := rep.wantFault(soap.Sender); err != nil {
			return "", err
		}
		if m, err := rep.spoken(); err != nil {
			if f, ok := errors.AsType[*wire.Fault](err); ok && f.Code != wire.BadMessage {
				return "", fmt.Errorf("the message was heeded all the same: %s", rep)
			}
		} else {
			return "", fmt.Errorf("the message was answered: %s", wire.Name(m).Local)
		}
		return rep.String(), nil
	}
}

// traced sends a Trace that must be understood.
func traced(parent string, code wire.FaultCode) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, text, err := p.stray()
		if err != nil {
			return "", err
		}
		block := `<p:Trace xmlns:p="` + wire.NS + `" xmlns:s="` + soap.NS11 + `" s:mustUnderstand="1" traceparent="` + parent + `"/>`
		m, err := p.say(ctx, p.carrying("Heartbeat", text).under(block))
		return wantCode(m, err, code)
	}
}

// peerFault looks at the form of a fault.
func peerFault(v soap.Version) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, text, err := p.stray()
		if err != nil {
			return "", err
		}
		rep, err := p.ask(ctx, p.carrying("Heartbeat", text).with(v))
		if err != nil {
			return "", err
		}
		if err := rep.wantFault(soap.Sender); err != nil {
			return "", err
		}
		_, err = rep.spoken()
		f, ok := errors.AsType[*wire.Fault](err)
		if !ok {
			return "", fmt.Errorf("the fault has no PeerFault in its detail: %w", err)
		}
		if err := rep.wantSubcode(wire.NS, string(f.Code)); err != nil {
			return "", err
		}
		return rep.String(), nil
	}
}

func strangeSession(ctx context.Context, p *probe) (string, error) {
	m, _, err := p.stray()
	if err != nil {
		return "", err
	}
	got, err := p.send(ctx, m, 0)
	saw, wrong := wantCode(got, err, wire.UnknownSession)
	if wrong != nil {
		return "", wrong
	}
	if f, ok := errors.AsType[*wire.Fault](err); ok && f.Session != "" && f.Session != m.Session {
		return "", fmt.Errorf("the fault is about the session %q: wanted %q", f.Session, m.Session)
	}
	return saw, nil
}

// described fetches the description; the protocol asks for one.
func (p *probe) described(ctx context.Context) ([]file, error) {
	files, problems, err := p.collect(ctx)
	if s, ok := errors.AsType[skipped](err); ok {
		return nil, errors.New(s.why)
	}
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("%d references lead nowhere: %s", len(problems), strings.Join(problems, "; "))
	}
	return files, err
}

func peerOperations(ctx context.Context, p *probe) (string, error) {
	files, err := p.described(ctx)
	if err != nil {
		return "", err
	}
	actions := map[string][]string{}
	for _, f := range files {
		for _, b := range all(f.root, nsWSDL, "binding") {
			for _, op := range b.ChildElements() {
				if !xmldoc.Is(op, nsWSDL, "operation") {
					continue
				}
				for _, ns := range []string{nsWSDL11, nsWSDL12} {
					if so := xmldoc.Child(op, ns, "operation"); so != nil {
						actions[op.SelectAttrValue("name", "")] = append(actions[op.SelectAttrValue("name", "")], so.SelectAttrValue("soapAction", ""))
					}
				}
			}
		}
	}
	for _, name := range wire.Requests() {
		if !slices.Contains(actions[name], peerPort+name) {
			return "", fmt.Errorf("no binding has %s with the action %s%s, but %q", name, peerPort, name, actions[name])
		}
	}
	return fmt.Sprintf("%d operations", len(actions)), nil
}

// peerSchema holds the description to the tables: each element of the namespace with its
// attributes, whether they must be there, and the elements inside.
func peerSchema(ctx context.Context, p *probe) (string, error) {
	files, err := p.described(ctx)
	if err != nil {
		return "", err
	}
	elements, types := map[string]*etree.Element{}, map[string]*etree.Element{}
	for _, f := range files {
		for _, s := range all(f.root, nsXSD, "schema") {
			if s.SelectAttrValue("targetNamespace", "") != wire.NS {
				continue
			}
			for _, e := range s.ChildElements() {
				switch {
				case xmldoc.Is(e, nsXSD, "element"):
					elements[e.SelectAttrValue("name", "")] = e
				case xmldoc.Is(e, nsXSD, "complexType"):
					types[e.SelectAttrValue("name", "")] = e
				}
			}
		}
	}
	var missing []string
	n := 0
	for _, t := range slices.Concat(wire.Operations(), wire.Items()) {
		e := elements[t.Name]
		if e == nil {
			missing = append(missing, t.Name)
			continue
		}
		theirs := map[string]bool{}
		outline(e, types, theirs, 0)
		for _, f := range t.Fields {
			name := f.Name
			if f.Most == 0 {
				if name = "@" + name; f.Required {
					name += " (required)"
				}
			}
			if n++; !theirs[name] {
				missing = append(missing, t.Name+"/"+name)
			}
		}
	}
	for _, name := range []string{"PeerFault", "Trace"} {
		if elements[name] == nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("the description lacks %d things: %s", len(missing), strings.Join(missing[:min(len(missing), 10)], ", "))
	}
	return fmt.Sprintf("%d elements with %d fields", len(elements), n), nil
}

// outline notes the attributes and elements of a declaration, and of the types that it uses.
func outline(e *etree.Element, types map[string]*etree.Element, into map[string]bool, depth int) {
	if depth > 20 { // a type may use itself
		return
	}
	for _, ref := range []string{"type", "base", "ref"} {
		_, local, ok := strings.Cut(e.SelectAttrValue(ref, ""), ":")
		if t := types[local]; ok && t != nil {
			outline(t, types, into, depth+1)
		}
	}
	for _, c := range e.ChildElements() {
		name := c.SelectAttrValue("name", "")
		if name == "" {
			_, name, _ = strings.Cut(c.SelectAttrValue("ref", ""), ":")
		}
		switch {
		case xmldoc.Is(c, nsXSD, "attribute"):
			into["@"+name] = true
			if c.SelectAttrValue("use", "") == "required" {
				into["@"+name+" (required)"] = true
			}
		case xmldoc.Is(c, nsXSD, "element"):
			into[name] = true
		}
		outline(c, types, into, depth+1)
	}
}

func peerPorts(ctx context.Context, p *probe) (string, error) {
	files, err := p.described(ctx)
	if err != nil {
		return "", err
	}
	at := map[string]string{}
	for _, f := range files {
		for _, port := range all(f.root, nsWSDL, "port") {
			for name, ns := range map[string]string{"1.1": nsWSDL11, "1.2": nsWSDL12} {
				if a := xmldoc.Child(port, ns, "address"); a != nil {
					at[name] = a.SelectAttrValue("location", "")
				}
			}
		}
	}
	for _, v := range []string{"1.1", "1.2"} {
		if u, err := url.Parse(at[v]); err != nil || u.Host == "" {
			return "", fmt.Errorf("the port for SOAP %s has the address %q: wanted an absolute URL", v, at[v])
		}
	}
	return at["1.1"] + ", " + at["1.2"], nil
}

func strangeEncoding(ctx context.Context, p *probe) (string, error) {
	_, text, err := p.stray()
	if err != nil {
		return "", err
	}
	r := p.carrying("Heartbeat", text).request()
	r.header.Set("Content-Encoding", "x-nobody-knows")
	rep, err := p.exchange(ctx, r)
	if err != nil {
		return "", err
	}
	if rep.status != http.StatusUnsupportedMediaType {
		return "", fmt.Errorf("a request with Content-Encoding x-nobody-knows got HTTP %d: wanted %d", rep.status, http.StatusUnsupportedMediaType)
	}
	return rep.String(), p.stillThere(ctx)
}
