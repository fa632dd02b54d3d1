package agreement

import (
	"context"
	"strconv"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// What is ours for agreements with several domains that are made as one: the port type
// AgreementsTogether.
const (
	opCreateTogether    = "CreateTogether"
	opGetTogether       = "GetTogether"
	opListTogether      = "ListTogether"
	opTerminateTogether = "TerminateTogether"
	opTemplatesOf       = "GetTemplatesOf"

	// MaxTogetherParts is the most offers that are made as one.
	MaxTogetherParts = 32
	maxTogetherID    = 128
	maxTogetherWords = 8 << 10
)

// TogetherRequest asks for agreements with several domains, all or none.
type TogetherRequest struct {
	// ID names it among those of the caller, so that it may be sent again where the answer was
	// lost; "" has the service choose one.
	ID string
	// Deadline is by when it must be decided; zero leaves that to the service.
	Deadline time.Time
	Parts    []TogetherOffer
}

// TogetherOffer is one of its offers.
type TogetherOffer struct {
	Name   string // unlike those of the others; "" is the domain's
	Domain string // to which it is made; "" is the service's own
	Offer  Offer
}

// Together is what became of a TogetherRequest.
type Together struct {
	ID      string
	State   string // in the words of the service: committed, aborted, …
	Reason  string // for a person; "" is none
	Created time.Time
	Parts   []TogetherPart
}

// TogetherPart is what became of one offer.
type TogetherPart struct {
	Name, Domain string
	State        string // in the words of the service: prepared, confirmed, refused, …
	Key          string // of the agreement there; "" is none
	Reason       string
	Earliest     time.Time   // when the domain could, if it said so
	Agreement    *Properties // as it is there now; nil where there is none, or its domain did not answer
}

// Coordinator makes agreements with several domains as one (an extension of ours). Who asks is in
// the context.
type Coordinator interface {
	// CreateTogether makes all of them, and gives how they are, or makes none: then the error is
	// that of the offer that was refused, and names its domain. fail.Unavailable and
	// fail.Uncertain say that it may go on: ask again with the same ID.
	CreateTogether(context.Context, *TogetherRequest) (*Together, error)
	// Together gives what became of one.
	Together(ctx context.Context, id string) (*Together, error)
	// ListTogether gives the ids of the caller's, the newest first, after the id before ("" from
	// the newest), at most limit.
	ListTogether(ctx context.Context, before string, limit int) ([]string, error)
	// TerminateTogether ends all agreements of one; they are asked to end until all have answered.
	TerminateTogether(ctx context.Context, id string, reason *etree.Element) error
	// TemplatesOf gives the templates by which the caller may make offers to a domain ("" is the
	// service's own), for a VO; "" is none.
	TemplatesOf(ctx context.Context, domain, vo string) ([]Template, error)
}

var _ Coordinator = (*Client)(nil)

// encode makes the element of a request.
func (q *TogetherRequest) encode() *etree.Element {
	e := portolan(opCreateTogether)
	textIf(e, "p:ID", q.ID)
	if !q.Deadline.IsZero() {
		e.CreateElement("p:Deadline").SetText(q.Deadline.UTC().Format(time.RFC3339Nano))
	}
	for i := range q.Parts {
		p := e.CreateElement("p:Part")
		textIf(p, "p:Name", q.Parts[i].Name)
		textIf(p, "p:Domain", q.Parts[i].Domain)
		p.AddChild(q.Parts[i].Offer.Encode())
	}
	return e
}

// encode adds what became of one to an answer.
func (t *Together) encode(parent *etree.Element) {
	e := parent.CreateElement("p:Together")
	e.CreateElement("p:ID").SetText(t.ID)
	e.CreateElement("p:State").SetText(t.State)
	textIf(e, "p:Reason", t.Reason)
	if !t.Created.IsZero() {
		e.CreateElement("p:Created").SetText(t.Created.UTC().Format(time.RFC3339Nano))
	}
	size := 0 // of the agreements: of those that are too many, the rest is told
	for i := range t.Parts {
		x := t.Parts[i]
		var a *etree.Element
		if x.Agreement != nil {
			if a = x.Agreement.Encode(); size+xmldoc.Size(a) > maxAnswer {
				a = nil
				if x.Reason == "" {
					x.Reason = "how it is now is left out, as the answer would be too long; ask its domain"
				}
			} else {
				size += xmldoc.Size(a)
			}
		}
		p := e.CreateElement("p:Part")
		p.CreateElement("p:Name").SetText(x.Name)
		p.CreateElement("p:Domain").SetText(x.Domain)
		p.CreateElement("p:State").SetText(x.State)
		textIf(p, "p:Key", x.Key)
		textIf(p, "p:Reason", x.Reason)
		if !x.Earliest.IsZero() {
			p.CreateElement("p:Earliest").SetText(x.Earliest.UTC().Format(time.RFC3339Nano))
		}
		if a != nil {
			p.AddChild(a)
		}
	}
}

// createTogether reads a request.
func (r *reader) createTogether(e *etree.Element) (*TogetherRequest, error) {
	r.attributes(e, "")
	c := r.children(e).in(NSPortolan)
	q := &TogetherRequest{ID: xmldoc.Collapse(r.text(c.take("ID"), "", maxTogetherID))}
	if d := c.take("Deadline"); d != nil {
		q.Deadline = r.time(d)
	}
	for p := c.need("Part"); p != nil; p = c.take("Part") {
		if len(q.Parts) == MaxTogetherParts {
			r.refuse(p, "is more than the %d offers that may be made as one", MaxTogetherParts)
			break
		}
		r.attributes(p, "")
		inner := r.children(p).in(NSPortolan)
		x := TogetherOffer{Name: xmldoc.Collapse(r.text(inner.take("Name"), "", MaxName)), Domain: xmldoc.Collapse(r.text(inner.take("Domain"), "", MaxName))}
		if o := inner.in(NS).need("AgreementOffer"); o != nil {
			offer, err := r.offer(o)
			if err != nil {
				return nil, err
			}
			x.Offer = *offer
		}
		inner.end()
		q.Parts = append(q.Parts, x)
	}
	c.end()
	return done(r, q)
}

// together reads what became of one.
func (r *reader) together(e *etree.Element) (*Together, error) {
	c := r.children(e).in(NSPortolan)
	t := &Together{ID: r.text(c.need("ID"), "", maxTogetherID), State: r.text(c.need("State"), "", MaxName), Reason: r.text(c.take("Reason"), "", maxTogetherWords)}
	if x := c.take("Created"); x != nil {
		t.Created = r.time(x)
	}
	for p := c.take("Part"); p != nil; p = c.take("Part") {
		inner := r.children(p).in(NSPortolan)
		x := TogetherPart{
			Name: r.text(inner.need("Name"), "", MaxName), Domain: r.text(inner.need("Domain"), "", MaxName), State: r.text(inner.need("State"), "", MaxName),
			Key: r.text(inner.take("Key"), "", maxTogetherWords), Reason: r.text(inner.take("Reason"), "", maxTogetherWords),
		}
		if y := inner.take("Earliest"); y != nil {
			x.Earliest = r.time(y)
		}
		if y := inner.in(NS).take("AgreementProperties"); y != nil {
			a, err := r.properties(y)
			if err != nil {
				return nil, err
			}
			x.Agreement = a
		}
		inner.end()
		t.Parts = append(t.Parts, x)
	}
	c.end()
	return done(r, t)
}

// togetherID reads which of them a request is about.
func (r *reader) togetherID(c *children) string {
	id := c.need("ID")
	s := xmldoc.Collapse(r.text(id, "", maxTogetherID))
	if id != nil && s == "" {
		r.refuse(id, "is empty; it is the ID that CreateTogether answered with")
	}
	return s
}

// togetherOperations are those of a Coordinator.
func (s *server) togetherOperations() []soap.Operation {
	return []soap.Operation{
		togetherOperation(opCreateTogether, func(ctx context.Context, m *soap.Verified, out *etree.Element) error {
			q, err := newReader(m.Document).createTogether(m.Payload)
			if err != nil {
				return err
			}
			t, err := s.coordinator.CreateTogether(ctx, q)
			if err != nil {
				return err
			}
			t.encode(out)
			return nil
		}),
		togetherOperation(opGetTogether, func(ctx context.Context, m *soap.Verified, out *etree.Element) error {
			r := newReader(m.Document)
			r.attributes(m.Payload, "")
			c := r.children(m.Payload).in(NSPortolan)
			id := r.togetherID(c)
			if c.end(); r.err != nil {
				return r.err
			}
			t, err := s.coordinator.Together(ctx, id)
			if err != nil {
				return err
			}
			t.encode(out)
			return nil
		}),
		togetherOperation(opListTogether, func(ctx context.Context, m *soap.Verified, out *etree.Element) error {
			before, limit, err := newReader(m.Document).list(m.Payload)
			if err != nil {
				return err
			}
			ids, err := s.coordinator.ListTogether(ctx, before, limit)
			if err != nil {
				return err
			}
			for _, id := range ids {
				out.CreateElement("p:ID").SetText(id)
			}
			return nil
		}),
		togetherOperation(opTerminateTogether, func(ctx context.Context, m *soap.Verified, _ *etree.Element) error {
			r := newReader(m.Document)
			r.attributes(m.Payload, "")
			c := r.children(m.Payload).in(NSPortolan)
			id := r.togetherID(c)
			var reason *etree.Element
			if x := c.take("Reason"); x != nil {
				reason = r.keep(x)
			}
			if c.end(); r.err != nil {
				return r.err
			}
			return s.coordinator.TerminateTogether(ctx, id, reason)
		}),
		togetherOperation(opTemplatesOf, func(ctx context.Context, m *soap.Verified, out *etree.Element) error {
			r := newReader(m.Document)
			r.attributes(m.Payload, "")
			c := r.children(m.Payload).in(NSPortolan)
			domain, vo := xmldoc.Collapse(r.text(c.take("Domain"), "", MaxName)), xmldoc.Collapse(r.text(c.take("VO"), "", MaxName))
			if c.end(); r.err != nil {
				return r.err
			}
			list, err := s.coordinator.TemplatesOf(ctx, domain, vo)
			if err != nil {
				return err
			}
			for i := range list {
				out.AddChild(list[i].Encode())
			}
			return nil
		}),
	}
}

func togetherOperation(op string, h handler) soap.Operation {
	action := NSPortolan + "/" + op
	return soap.Operation{
		Name:        xmldoc.Name{Space: NSPortolan, Local: op},
		Action:      action + "Request",
		ReplyAction: action + "Response",
		FaultAction: NS + "/Fault",
		Handle:      handling(h, func() *etree.Element { return portolan(op + "Response") }),
	}
}

// togetherPort is what the WSDL of a Coordinator describes.
func togetherPort() described {
	d := described{Name: "AgreementsTogether"}
	for _, op := range []string{opCreateTogether, opGetTogether, opListTogether, opTerminateTogether, opTemplatesOf} {
		o := togetherOperation(op, nil)
		faults := []describedFault{faultContinuing}
		if about(&o) {
			faults = append(faults, faultUnknown, faultUnavailable)
		}
		d.Operations = append(d.Operations, describedOperation{op, "p:" + op, "p:" + op + "Response", o.Action, o.ReplyAction, o.FaultAction, faults})
	}
	return d
}

func (c *Client) together(ctx context.Context, op string, body *etree.Element, opts ...soap.CallOption) (*Together, error) {
	r, err := c.call(ctx, op, NSPortolan+"/"+op+"Request", nil, body, opts...)
	if err != nil {
		return nil, err
	}
	e := xmldoc.Child(r.Payload, NSPortolan, "Together")
	if e == nil {
		return nil, unreadable(op, "there is no Together in it")
	}
	t, err := newReader(r.Document).together(e)
	if err != nil {
		return nil, unreadable(op, fail.Sentence(err))
	}
	return t, nil
}

// CreateTogether makes agreements with several domains, all or none. With an ID it may be sent
// again, and is where the answer was lost.
func (c *Client) CreateTogether(ctx context.Context, q *TogetherRequest) (*Together, error) {
	var opts []soap.CallOption
	if q.ID != "" {
		opts = append(opts, soap.Idempotent)
	}
	return c.together(ctx, opCreateTogether, q.encode(), opts...)
}

// Together gives what became of one.
func (c *Client) Together(ctx context.Context, id string) (*Together, error) {
	body := portolan(opGetTogether)
	body.CreateElement("p:ID").SetText(id)
	return c.together(ctx, opGetTogether, body, soap.Idempotent)
}

// ListTogether gives the ids of the caller's.
func (c *Client) ListTogether(ctx context.Context, before string, limit int) ([]string, error) {
	if limit < 1 {
		return nil, nil
	}
	body := portolan(opListTogether)
	textIf(body, "p:Before", before)
	body.CreateElement("p:Limit").SetText(strconv.Itoa(limit))
	r, err := c.call(ctx, opListTogether, NSPortolan+"/"+opListTogether+"Request", nil, body, soap.Idempotent)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range r.Payload.ChildElements() {
		if xmldoc.Is(e, NSPortolan, "ID") {
			ids = append(ids, xmldoc.Collapse(xmldoc.Text(e)))
		}
	}
	return ids, nil
}

// TerminateTogether ends all agreements of one.
func (c *Client) TerminateTogether(ctx context.Context, id string, reason *etree.Element) error {
	body := portolan(opTerminateTogether)
	body.CreateElement("p:ID").SetText(id)
	if reason != nil {
		textIf(body, "p:Reason", xmldoc.Collapse(xmldoc.Text(reason)))
	}
	_, err := c.call(ctx, opTerminateTogether, NSPortolan+"/"+opTerminateTogether+"Request", nil, body, soap.Idempotent)
	return err
}

// TemplatesOf gives the templates of a domain.
func (c *Client) TemplatesOf(ctx context.Context, domain, vo string) ([]Template, error) {
	body := portolan(opTemplatesOf)
	textIf(body, "p:Domain", domain)
	textIf(body, "p:VO", vo)
	r, err := c.call(ctx, opTemplatesOf, NSPortolan+"/"+opTemplatesOf+"Request", nil, body, soap.Idempotent)
	if err != nil {
		return nil, err
	}
	list := []Template{}
	for _, e := range r.Payload.ChildElements() {
		t, err := newReader(r.Document).template(e)
		if err != nil {
			return nil, unreadable(opTemplatesOf, fail.Sentence(err))
		}
		list = append(list, *t)
	}
	return list, nil
}
