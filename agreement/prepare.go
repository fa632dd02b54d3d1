package agreement

import (
	"context"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// What is ours for agreements that are made together with others, all or none: a critical
// extension of CreatePendingAgreement, and an operation of the agreement that it makes.
const (
	extPrepare = "Prepare"
	opConfirm  = "Confirm"

	// MaxPreparationKey is the most bytes of a Preparation's Key.
	MaxPreparationKey = 256
)

const confirmAction = NSPortolan + "/" + opConfirm

// Preparation is a p:Prepare: what is offered is to be held, and waits for its initiator, who
// confirms it or lets it go.
type Preparation struct {
	// Key names the request among those of the caller, so that it may be sent again where the
	// answer was lost: the same offer with the same Key and Until gives the same agreement.
	Key string
	// Until is when what is held is let go, by the responder's clock, unless it was confirmed.
	Until time.Time
}

// Preparer is a Service whose agreements can be made together with others, all or none (an
// extension of ours). A server whose Service is none refuses p:Prepare, which is critical, as an
// extension that it does not know.
type Preparer interface {
	// Prepare holds what is offered, and gives the key of an agreement that is Pending until it
	// is confirmed, terminated, or the time has come that the Preparation names: it is Rejected
	// then, and nothing is held. The errors are those of Create; fail.Conflict says that this
	// Preparation was let go already.
	Prepare(context.Context, *CreateRequest, Preparation) (key string, err error)
	// Confirm makes an agreement that was prepared binding: it is Observed. Again, it changes
	// nothing. When it was let go before, that is fail.Conflict: then it holds nothing, and
	// never will.
	Confirm(ctx context.Context, key string) error
}

var _ Preparer = (*Client)(nil)

// encode makes the critical extension.
func (p Preparation) encode() *etree.Element {
	e := portolan(extPrepare)
	e.CreateElement("p:Key").SetText(p.Key)
	e.CreateElement("p:Until").SetText(p.Until.UTC().Format(time.RFC3339Nano))
	return e
}

// Check reports what is wrong with it.
func (p Preparation) Check() error {
	switch {
	case p.Key == "" || p.Key != xmldoc.Collapse(p.Key):
		return fail.Errorf("agreement.Prepare", fail.Invalid, "", "the Key of %s is %s; give the request a name without spaces around it", extPrepare, quoted(p.Key))
	case len(p.Key) > MaxPreparationKey:
		return fail.Errorf("agreement.Prepare", fail.Invalid, "", "the Key of %s has %d bytes; it may have %d", extPrepare, len(p.Key), MaxPreparationKey)
	case p.Until.IsZero():
		return fail.Errorf("agreement.Prepare", fail.Invalid, "", "%s does not say until when the offer is to be held; give it Until", extPrepare)
	}
	return nil
}

// prepare reads the p:Prepare among what is left; nil: there is none.
func (r *reader) prepare(c *children) *Preparation {
	if len(c.left) == 0 || r.err != nil || r.doc.Name(c.left[0]) != (xmldoc.Name{Space: NSPortolan, Local: extPrepare}) {
		return nil
	}
	e := c.left[0]
	c.left = c.left[1:]
	r.attributes(e, "")
	inner := r.children(e)
	p := &Preparation{}
	need := func(local string) *etree.Element {
		if r.err != nil {
			return nil
		}
		if len(inner.left) == 0 || r.doc.Name(inner.left[0]) != (xmldoc.Name{Space: NSPortolan, Local: local}) {
			r.refuse(e, "takes Key and Until, in this order; %s is missing", local)
			return nil
		}
		x := inner.left[0]
		inner.left = inner.left[1:]
		return x
	}
	k := need("Key")
	p.Key = xmldoc.Collapse(r.text(k, "", MaxPreparationKey))
	if k != nil && p.Key == "" {
		r.refuse(k, "is empty; give the request a name, to know it again by")
	}
	if u := need("Until"); u != nil {
		p.Until = r.time(u)
	}
	inner.end()
	return p
}

// Prepare sends an offer that waits to be confirmed. Where the answer was lost, the error is
// fail.Uncertain: the same request may be sent again.
func (c *Client) Prepare(ctx context.Context, req *CreateRequest, p Preparation) (string, error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	body := encodeCreate(opCreatePending, req)
	body.AddChild(p.encode())
	return c.created(ctx, opCreatePending, body)
}

// Confirm makes an agreement that was prepared binding.
func (c *Client) Confirm(ctx context.Context, key string) error {
	epr, err := c.EPR(key)
	if err != nil {
		return err
	}
	return c.ConfirmEPR(ctx, epr)
}

// ConfirmEPR is Confirm by EPR.
func (c *Client) ConfirmEPR(ctx context.Context, epr soap.EPR) error {
	_, err := c.call(ctx, opConfirm, confirmAction+"Request", &epr, portolan(opConfirm), soap.Idempotent)
	return err
}

func confirmOperation(h handler) soap.Operation {
	return soap.Operation{
		Name:        xmldoc.Name{Space: NSPortolan, Local: opConfirm},
		Action:      confirmAction + "Request",
		ReplyAction: confirmAction + "Response",
		FaultAction: NS + "/Fault",
		Handle:      handling(h, func() *etree.Element { return portolan(opConfirm + "Response") }),
	}
}

func (s *server) confirm(ctx context.Context, m *soap.Verified, _ *etree.Element) error {
	r := newReader(m.Document)
	r.attributes(m.Payload, "")
	r.children(m.Payload).end()
	if r.err != nil {
		return r.err
	}
	key, err := needKey(m)
	if err != nil {
		return err
	}
	return s.preparer.Confirm(ctx, key)
}
