package wire

import (
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// NS is the namespace of the protocol.
const NS = "http://portolan-project.org/ns/2026/peer"

// prefix is the one that is written.
const prefix = "p"

// Message is one of the messages of this package, as a pointer.
type Message interface{ visit(*visit) }

// operations are the messages that are bodies of SOAP messages.
var operations = []struct {
	name, meaning   string
	request, answer func() Message
}{
	{"OpenSession", "Asks for a session: who the sender is, what it speaks, wants and offers.", func() Message { return new(Open) }, func() Message { return new(Opened) }},
	{"ResumeSession", "Takes a session up after a break, each side telling its cursor.", func() Message { return new(Resume) }, func() Message { return new(Resumed) }},
	{"Heartbeat", "A sign of life, without items.", func() Message { return new(Heartbeat) }, func() Message { return new(HeartbeatAnswer) }},
	{"Exchange", "Brings items, or waits for some.", func() Message { return new(Exchange) }, func() Message { return new(Exchanged) }},
	{"CloseSession", "Begins to drain a session, or ends it.", func() Message { return new(Close) }, func() Message { return new(Closed) }},
}

// items are the messages that travel in frames.
var items = []struct {
	name, meaning string
	make          func() Message
}{
	{"Pull", "Importer to exporter: asks for resources, all or what changed.", func() Message { return new(Pull) }},
	{"Resources", "Exporter to importer: changes of the view, pulled or pushed, and repairs.", func() Message { return new(Resources) }},
	{"Digests", "Exporter to importer: what the importer must have by now.", func() Message { return new(Digests) }},
	{"Compare", "Importer to exporter: the digests did not agree; finds where.", func() Message { return new(Compare) }},
	{"Quotas", "Exporter to importer: what the importer's VOs may use and use.", func() Message { return new(Quotas) }},
	{"Route", "Giver to taker: hands a job over. The same, to the byte, however often it is sent.", func() Message { return new(Route) }},
	{"Answer", "Taker to giver: accepts a route or refuses it, at once.", func() Message { return new(Answer) }},
	{"Report", "Taker to giver: how a copy stands. One that is not final asks for a later recall deadline and is answered with Grant; a final one with Settle.", func() Message { return new(Report) }},
	{"Grant", "Giver to taker: a later recall deadline.", func() Message { return new(Grant) }},
	{"Control", "Giver to taker: cancel, suspend, resume, recall. Answered with Report.", func() Message { return new(Control) }},
	{"Settle", "Giver to taker: the copy may be forgotten.", func() Message { return new(Settle) }},
	{"Query", "Giver to taker: asks for a Report. A copy that never runs again is returned; one that is not known is not spoken of, as its route may still come.", func() Message { return new(Query) }},
	{"Read", "Giver to taker: asks for output.", func() Message { return new(Read) }},
	{"Output", "Taker to giver: output.", func() Message { return new(Output) }},
	{"Account", "How far an account of the favour ledger goes at the sender; asks for what follows.", func() Message { return new(Account) }},
	{"Statements", "What follows the receiver's account, in order.", func() Message { return new(Statements) }},
	{"Verdicts", "Consumer to provider: what it says to statements.", func() Message { return new(Verdicts) }},
	{"Probe", "Two accounts are not alike: finds the first statement that differs.", func() Message { return new(Probe) }},
}

// Item reports whether m may travel in a frame.
func Item(m Message) bool { return itemName(m) != "" }

// itemName gives the element of an item; "" for what is none.
func itemName(m Message) string {
	switch m.(type) {
	case *Pull:
		return "Pull"
	case *Resources:
		return "Resources"
	case *Digests:
		return "Digests"
	case *Compare:
		return "Compare"
	case *Quotas:
		return "Quotas"
	case *Route:
		return "Route"
	case *Answer:
		return "Answer"
	case *Report:
		return "Report"
	case *Grant:
		return "Grant"
	case *Control:
		return "Control"
	case *Settle:
		return "Settle"
	case *Query:
		return "Query"
	case *Read:
		return "Read"
	case *Output:
		return "Output"
	case *Account:
		return "Account"
	case *Statements:
		return "Statements"
	case *Verdicts:
		return "Verdicts"
	case *Probe:
		return "Probe"
	}
	return ""
}

func bodyName(m Message) string {
	switch m.(type) {
	case *Open:
		return "OpenSession"
	case *Opened:
		return "OpenSessionResponse"
	case *Resume:
		return "ResumeSession"
	case *Resumed:
		return "ResumeSessionResponse"
	case *Heartbeat:
		return "Heartbeat"
	case *HeartbeatAnswer:
		return "HeartbeatResponse"
	case *Exchange:
		return "Exchange"
	case *Exchanged:
		return "ExchangeResponse"
	case *Close:
		return "CloseSession"
	case *Closed:
		return "CloseSessionResponse"
	case *Fault:
		return "PeerFault"
	case *Trace:
		return "Trace"
	}
	return itemName(m)
}

// Name gives the expanded name of a message's element.
func Name(m Message) xmldoc.Name { return xmldoc.Name{Space: NS, Local: bodyName(m)} }

// Action gives the WS-Addressing action of a message that is a body; "" for an item.
func Action(m Message) string {
	if Item(m) {
		return ""
	}
	return NS + "/PeerPortType/" + bodyName(m)
}

// makers are those of all messages, by their element.
var makers = func() map[string]func() Message {
	all := map[string]func() Message{"PeerFault": func() Message { return new(Fault) }, "Trace": func() Message { return new(Trace) }}
	for _, o := range operations {
		all[o.name], all[o.name+"Response"] = o.request, o.answer
	}
	for _, i := range items {
		all[i.name] = i.make
	}
	return all
}()

// Encode makes the element of a message, which declares its prefix. A message that keeps
// not to the bounds is fail.Invalid.
func Encode(m Message) (*etree.Element, error) {
	e := etree.NewElement(prefix + ":" + bodyName(m))
	e.CreateAttr("xmlns:"+prefix, NS)
	var err error
	m.visit(&visit{mode: writing, err: &err, e: e})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Decode reads a message. Doc is the document that e was read with; it tells places, and
// may be nil. The message does not share memory with the document. What does not keep
// to the bounds, or has what is not known in our namespace, is fail.Invalid.
func Decode(doc *xmldoc.Document, e *etree.Element) (Message, error) {
	v := &visit{doc: doc}
	n := v.nameOf(e)
	made := makers[n.Local]
	if n.Space != NS || made == nil {
		return nil, fail.Errorf("wire.Decode", fail.Invalid, n.Local, "%s is no message of the peer protocol %s", shown(n.String()), NS)
	}
	m := made()
	var err error
	root := &visit{mode: reading, err: &err, doc: doc}
	root.read(e, m.visit)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Size estimates the bytes of a message on the wire; it counts no escapes.
func Size(m Message) int {
	n := len(bodyName(m)) + 12
	var err error
	m.visit(&visit{mode: weighing, err: &err, size: &n})
	return n
}

// visitItems goes over the items of a frame.
func visitItems(v *visit, p *[]Message) {
	switch v.mode {
	case describing:
		v.d.Items = true
	case weighing:
		for _, m := range *p {
			*v.size += Size(m)
		}
	case writing:
		if len(*p) > MaxItems {
			v.wrong("items", "are %d; at most %d go into one message", len(*p), MaxItems)
		}
		for _, m := range *p {
			name := itemName(m)
			if name == "" {
				v.wrong("items", "have a %T, which does not travel as an item", m)
			}
			if v.failed() {
				return
			}
			v.write(name, m.visit)
		}
	case reading:
		for len(v.kids) > 0 && !v.failed() {
			c := v.kids[0]
			if v.nameOf(c).Space != NS {
				return
			}
			m := Message(nil)
			for _, i := range items {
				if i.name == c.Tag {
					m = i.make()
				}
			}
			if m == nil {
				v.wrong(c.Tag, "is not one of the items")
				return
			}
			if len(*p) == MaxItems {
				v.wrong("items", "are more than %d", MaxItems)
				return
			}
			v.kids = v.kids[1:]
			v.read(c, m.visit)
			*p = append(*p, m)
		}
	}
}

// validToken reports whether s is a fencing token in the one form that each has.
func validToken(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) > MaxPath {
		return false
	}
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != p {
			return false
		}
	}
	return true
}

// headroom is what a message takes beside one large item.
const headroom = 64 << 10

// Sendable reports whether an item can be sent: it keeps to its bounds, and goes into a
// message. The error is fail.Invalid.
func Sendable(m Message) error {
	if !Item(m) {
		return fail.Errorf("wire.Sendable", fail.Invalid, bodyName(m), "a %T does not travel as an item", m)
	}
	if keeps(m) && Size(m) < MaxMessage/8 { // escapes make at most six bytes of one
		return nil
	}
	e, err := Encode(m) // which also names the place of what is wrong
	if err != nil {
		return err
	}
	if n := len(xmldoc.Marshal(e)); n > MaxMessage-headroom {
		return fail.Errorf("wire.Sendable", fail.Invalid, bodyName(m), "the %s takes %d bytes; a message takes %d: say it in several", bodyName(m), n, MaxMessage-headroom)
	}
	return nil
}

// keeps reports whether a message keeps to its bounds: whether Encode takes it.
func keeps(m Message) bool {
	var err error
	m.visit(&visit{mode: writing, err: &err})
	return err == nil
}

// Answers reports whether m is the answer that a request has.
func Answers(request, m Message) bool {
	return !Item(request) && bodyName(m) == bodyName(request)+"Response"
}

// Requests gives the elements of the requests that are bodies of SOAP messages; that of an
// answer has "Response" behind it.
func Requests() []string {
	names := make([]string, len(operations))
	for i, o := range operations {
		names[i] = o.name
	}
	return names
}
