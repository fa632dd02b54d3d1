package conformance

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// probeFunc is the body of a check.
type probeFunc = func(context.Context, *probe) (string, error)

const plainResponse = "GetFactoryAttributesDocumentResponse"

// answered makes a check that a message gets the answer that plain gets.
func answered(m func(*probe) message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, m(p))
		if err != nil {
			return "", err
		}
		return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
	}
}

// refused makes a check that a message gets a fault of the code.
func refused(c soap.Code, m func(*probe) message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, m(p))
		if err != nil {
			return "", err
		}
		return rep.String(), rep.wantFault(c)
	}
}

// subcoded makes a check that a message gets a fault with one of these codes.
func subcoded(space string, locals []string, m func(*probe) message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, m(p))
		if err != nil {
			return "", err
		}
		if err := rep.wantFault(soap.Sender); err != nil {
			return "", err
		}
		return rep.String(), rep.wantSubcode(space, locals...)
	}
}

// tolerated makes a check for a message that the standards let an endpoint take
// or refuse: it must get plain's answer or a fault that blames the sender.
func tolerated(m func(*probe) message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, m(p))
		if err != nil {
			return "", err
		}
		if rep.fault != nil {
			return rep.String(), rep.wantFault(soap.Sender)
		}
		return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
	}
}

// envelope writes a whole message around what stands inside the Envelope.
func envelope(v soap.Version, inside string) string {
	return `<s:Envelope xmlns:s="` + namespaceOf(v) + `">` + inside + `</s:Envelope>`
}

// raw gives a message that is this text and nothing else.
func raw(v soap.Version, text string) message {
	return message{version: v, envelope: text, action: plain().action}
}

// bodyOf gives the Body element of plain in a version.
func bodyOf(_ soap.Version) string { return `<s:Body>` + plain().body + `</s:Body>` }

// unknownBlock is a header block that nobody understands.
func unknownBlock(attrs string) string {
	return `<u:Unknown xmlns:u="urn:portolan:conformance"` + attrs + `>x</u:Unknown>`
}

// wantNotUnderstood fails unless the reply names the unknown block (SOAP 1.2 part 1 §5.4.8).
func wantNotUnderstood(rep *reply) error {
	blocks := rep.blocks(soap.NS12, "NotUnderstood")
	if len(blocks) == 0 {
		return fmt.Errorf("the MustUnderstand fault has no NotUnderstood header block: %s", rep)
	}
	for _, b := range blocks {
		n, err := xmldoc.ResolveQName(b, strings.TrimSpace(b.SelectAttrValue("qname", "")))
		if err != nil {
			return fmt.Errorf("NotUnderstood's qname does not resolve: %w", err)
		}
		if n.Space == "urn:portolan:conformance" && n.Local == "Unknown" {
			return nil
		}
	}
	return fmt.Errorf("no NotUnderstood block names {urn:portolan:conformance}Unknown: %s", rep)
}

// alive asks for least, to see that the endpoint still stands.
func (p *probe) alive(ctx context.Context) error {
	m, space, response := p.ordinary()
	rep, err := p.ask(ctx, m)
	if err != nil {
		return fmt.Errorf("after this message the endpoint did not answer an ordinary one: %w", err)
	}
	if err := rep.wantPayload(space, response); err != nil {
		return fmt.Errorf("after this message an ordinary one went wrong: %w", err)
	}
	return nil
}

// httpRefusal reports whether the reply is a refusal by HTTP with one of the statuses.
func httpRefusal(rep *reply, statuses ...int) bool {
	return slices.Contains(statuses, rep.status)
}

var notAllowed = []int{http.StatusMethodNotAllowed, http.StatusNotImplemented}
