package soap

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/beevik/etree"
)

// reply is what an operation gave; nil for a one-way operation.
type reply struct{ body *etree.Element }

func (x *exchange) id() string {
	if x.e.newID != nil {
		return x.e.newID()
	}
	return newMessageID()
}

func (x *exchange) reference() string {
	if x.e.newReference != nil {
		return x.e.newReference()
	}
	return newReference()
}

// reply sends the answer on the connection (WS-Addressing 1.0 core §3.4).
func (x *exchange) reply(r reply) {
	a := &x.parsed.Addressing
	if r.body == nil || a.ReplyTo != nil && a.ReplyTo.Address == None {
		x.accepted()
		return
	}
	m := message{version: x.version, body: r.body}
	x.address(&m, a.ReplyTo, x.op.ReplyAction)
	x.send(http.StatusOK, &m)
}

// address puts the addressing headers of an answer to a.
func (x *exchange) address(m *message, to *EPR, action string) {
	a := &x.parsed.Addressing
	if !a.Engaged {
		return
	}
	m.engaged = true
	m.to, m.action, m.id, m.relates = Anonymous, action, x.id(), a.MessageID
	if to == nil {
		return
	}
	m.addReferenceParameters(to)
}

// addReferenceParameters turns the parameters into headers (WS-Addressing 1.0
// SOAP binding §2.3): one attribute is added; its prefix must not shadow another.
func (m *message) addReferenceParameters(to *EPR) {
	for _, p := range to.ReferenceParameters {
		h := p.Copy()
		mark := "wsa"
		for i := 1; ; i++ {
			uri, ok := ownDeclaration(h, mark)
			if ok && uri == NSWSA {
				break
			}
			if !ok {
				declare(h, mark, NSWSA)
				break
			}
			mark = "wsa" + strconv.Itoa(i)
		}
		h.CreateAttr(mark+":IsReferenceParameter", "true")
		m.headers = append(m.headers, h)
	}
}

func ownDeclaration(e *etree.Element, prefix string) (string, bool) {
	for i := range e.Attr {
		if a := &e.Attr[i]; a.Space == "xmlns" && a.Key == prefix {
			return a.Value, true
		}
	}
	return "", false
}

// fault logs what went wrong and sends it. cause is for the log; nil where the
// fault says all.
func (x *exchange) fault(f *Fault, cause error) {
	ref := x.reference()
	x.logFault(f, cause, ref)
	f = f.bound(ref)
	m := message{version: x.version, fault: f}
	if x.parsed != nil {
		a := &x.parsed.Addressing
		to := a.FaultTo
		if to == nil {
			to = a.ReplyTo
		}
		if to != nil && to.Address == None { // core §3.4: faults to none are dropped
			x.accepted()
			return
		}
		if to != nil && to.Address != Anonymous { // it cannot be used: back on the connection
			to = nil
		}
		x.address(&m, to, x.faultAction(f))
	}
	if f.RetryAfter > 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
	}
	x.send(f.status(x.version), &m)
}

func (x *exchange) faultAction(f *Fault) string {
	switch {
	case f.Action != "":
		return f.Action
	case len(f.Subcodes) > 0 && f.Subcodes[0].Space == NSWSA:
		return ActionWSAFault
	case x.op != nil && x.op.FaultAction != "" && (f.Code == Sender || f.Code == Receiver) && len(f.Detail) > 0:
		return x.op.FaultAction
	}
	return ActionSOAPFault
}

func (x *exchange) logFault(f *Fault, cause error, ref string) {
	attrs := []any{"reference", ref, "remote", x.r.RemoteAddr, "code", f.Code.String(), "reason", f.Reason}
	if x.op != nil {
		attrs = append(attrs, "operation", x.op.Name.Local)
	}
	if cause != nil {
		attrs = append(attrs, "err", cause)
	}
	if f.Code == Receiver && f.RetryAfter == 0 && !f.Refused {
		x.e.log().Error("a SOAP request failed", attrs...)
		return
	}
	x.e.log().Info("a SOAP request was refused", attrs...)
}

// accepted is the answer where nothing is to be answered (SOAP 1.2 part 2 §7.5.2.2).
func (x *exchange) accepted() {
	x.status = http.StatusAccepted
	x.w.Header().Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusAccepted)
}

func (x *exchange) plain(status int, text string) {
	x.status = status
	http.Error(x.w, text, status)
}

func (x *exchange) send(status int, m *message) {
	x.status = status
	buf := buffers.Get().(*bytes.Buffer)
	defer putBuffer(buf)
	var sign func(context.Context, *etree.Element) error
	if x.e.Signer != nil {
		sign = x.e.Signer(x.sender)
	}
	envelope, err := m.bytes(x.r.Context(), sign, buf.AvailableBuffer())
	if err != nil {
		x.e.log().Error("an answer could not be signed", "remote", x.r.RemoteAddr, "err", err)
		x.plain(http.StatusInternalServerError, "the answer could not be signed")
		return
	}
	buf.Write(envelope) // keeps the grown memory for the next
	b := buf.Bytes()
	h := x.w.Header()
	h.Set("Content-Type", m.version.ContentType())
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("X-Content-Type-Options", "nosniff")
	x.w.WriteHeader(status)
	_, _ = x.w.Write(b) // a client that went away
}
