package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// createActivity makes an activity and gives the content of its EPR, raw. The
// run ends it later.
func (p *probe) createActivity(ctx context.Context, jobDefinition string) (string, error) {
	return p.sendCreate(ctx, create(jobDefinition))
}

func (p *probe) sendCreate(ctx context.Context, m message) (string, error) {
	rep, err := p.ask(ctx, m)
	if err != nil {
		return "", err
	}
	return p.created(rep)
}

// created reads a CreateActivityResponse.
func (p *probe) created(rep *reply) (string, error) {
	if err := rep.wantPayload(bes.NSFactory, "CreateActivityResponse"); err != nil {
		return "", err
	}
	kids := rep.payload.ChildElements()
	if len(kids) == 0 || !xmldoc.Is(kids[0], bes.NSFactory, "ActivityIdentifier") {
		return "", fmt.Errorf("CreateActivityResponse does not begin with an ActivityIdentifier")
	}
	var b strings.Builder
	for _, c := range kids[0].ChildElements() {
		b.Write(rep.doc.Standalone(c))
	}
	epr := b.String()
	a := xmldoc.Child(kids[0], soap.NSWSA, "Address")
	if a == nil || xmldoc.Collapse(xmldoc.Text(a)) == "" {
		return "", errors.New("the ActivityIdentifier has no wsa:Address")
	}
	p.made = append(p.made, epr)
	return epr, nil
}

// sleeper makes an activity that runs until it is ended, which whoever asks for
// it does as soon as it can.
func (p *probe) sleeper(ctx context.Context) (string, error) {
	return p.createActivity(ctx, job(posix(p.opts.Programs.Sleep, "600")))
}

// two gives two activities that several checks share. They end by themselves:
// what keeps running could take the place that a later check waits for.
func (p *probe) two(ctx context.Context) (a, b string, err error) {
	for len(p.shared) < 2 {
		epr, err := p.createActivity(ctx, job(posix(p.opts.Programs.True)))
		if err != nil {
			return "", "", fmt.Errorf("an activity for this check could not be made: %w", err)
		}
		p.shared = append(p.shared, epr)
	}
	return p.shared[0], p.shared[1], nil
}

// vector asks about EPRs and gives the response items, after seeing that there
// is one for each, about the same activity, in order.
func (p *probe) vector(ctx context.Context, operation string, eprs ...string) ([]*etree.Element, *reply, error) {
	return p.vectorAs(ctx, factory(operation, identifiers(eprs...)), operation, eprs)
}

func (p *probe) vectorAs(ctx context.Context, m message, operation string, eprs []string) ([]*etree.Element, *reply, error) {
	rep, err := p.ask(ctx, m)
	if err != nil {
		return nil, rep, err
	}
	if rep.fault != nil && len(eprs) > 1 {
		// HPC Basic Profile lets an endpoint take one identifier at a time.
		return nil, rep, skip("the endpoint answers a vector of %d with a fault, as HPC Basic Profile lets it: %s", len(eprs), rep)
	}
	if err := rep.wantPayload(bes.NSFactory, operation+"Response"); err != nil {
		return nil, rep, err
	}
	var items []*etree.Element
	for _, c := range rep.payload.ChildElements() {
		switch n := xmldoc.NameOf(c); {
		case n.Space == bes.NSFactory && n.Local == "Response":
			items = append(items, c)
		case n.Space == bes.NSFactory || n.Space == "":
			return nil, rep, fmt.Errorf("%sResponse has a child %s: wanted Response elements only", operation, n)
		}
	}
	if len(items) != len(eprs) {
		return nil, rep, fmt.Errorf("%d identifiers got %d Response items", len(eprs), len(items))
	}
	for i, it := range items {
		first := it.ChildElements()
		if len(first) == 0 || !xmldoc.Is(first[0], bes.NSFactory, "ActivityIdentifier") {
			return nil, rep, fmt.Errorf("item %d does not begin with an ActivityIdentifier", i+1)
		}
		want, err := readEPR(eprs[i])
		if err != nil {
			return nil, rep, err
		}
		if got := flatEPR(first[0]); got != want {
			return nil, rep, fmt.Errorf("item %d is about another activity than was asked for there: wanted %s, got %s", i+1, want, got)
		}
	}
	return items, rep, nil
}

// readEPR reads EPR content of ours for comparison.
func readEPR(content string) (string, error) {
	doc, err := xmldoc.ReadBytes([]byte(`<e>`+content+`</e>`), xmldoc.Limits{})
	if err != nil {
		return "", fmt.Errorf("the endpoint's own EPR is not well-formed: %w", err)
	}
	return flatEPR(doc.Root()), nil
}

// flatEPR writes what identifies an activity: the address and the reference
// parameters, by expanded names, however they are written.
func flatEPR(e *etree.Element) string {
	var b strings.Builder
	if a := xmldoc.Child(e, soap.NSWSA, "Address"); a != nil {
		b.WriteString(xmldoc.Collapse(xmldoc.Text(a)))
	}
	if r := xmldoc.Child(e, soap.NSWSA, "ReferenceParameters"); r != nil {
		for _, c := range r.ChildElements() {
			b.WriteByte(' ')
			flatten(&b, c)
		}
	}
	return b.String()
}

// flatten writes an element by its expanded names, attributes sorted, text as it
// is: equal trees give equal strings whatever their prefixes.
func flatten(b *strings.Builder, e *etree.Element) {
	b.WriteString("<" + xmldoc.NameOf(e).String())
	var attrs []string
	for _, a := range e.Attr {
		if a.Space == "xmlns" || (a.Space == "" && a.Key == "xmlns") {
			continue
		}
		attrs = append(attrs, fmt.Sprintf(" {%s}%s=%q", attributeSpace(e, a), a.Key, a.Value))
	}
	slices.Sort(attrs)
	b.WriteString(strings.Join(attrs, "") + ">")
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.Element:
			flatten(b, t)
		case *etree.CharData:
			b.WriteString(t.Data)
		}
	}
	b.WriteString("</>")
}

// attributeSpace gives the namespace of an attribute: its prefix's, or none.
func attributeSpace(e *etree.Element, a etree.Attr) string {
	if a.Space == "" {
		return ""
	}
	n, err := xmldoc.ResolveQName(e, a.FullKey())
	if err != nil {
		return a.Space
	}
	return n.Space
}

// states are the values of the schema's ActivityStateEnumeration.
var states = []bes.State{bes.Pending, bes.Running, bes.Finished, bes.Cancelled, bes.Failed}

// stateOf reads a status item.
func stateOf(item *etree.Element) (bes.State, error) {
	s := xmldoc.Child(item, bes.NSFactory, "ActivityStatus")
	if s == nil {
		if f := itemFault(item); f != nil {
			return "", fmt.Errorf("the item has a Fault: %s", flatText(f))
		}
		return "", errors.New("the item has neither ActivityStatus nor Fault")
	}
	a := s.SelectAttr("state")
	if a == nil || a.Space != "" {
		return "", errors.New("ActivityStatus has no unqualified attribute state")
	}
	if !slices.Contains(states, bes.State(a.Value)) {
		return "", fmt.Errorf("the state %q is not in the schema's enumeration %v", a.Value, states)
	}
	return bes.State(a.Value), nil
}

// itemFault gives an item's fault; some services write a SOAP Fault there.
func itemFault(item *etree.Element) *etree.Element { return xmldoc.Child(item, bes.NSFactory, "Fault") }

func flatText(e *etree.Element) string {
	var b strings.Builder
	b.WriteString(xmldoc.Text(e))
	for _, c := range e.ChildElements() {
		b.WriteString(" " + flatText(c))
	}
	return printable(b.String())
}

// state asks for the state of one activity.
func (p *probe) state(ctx context.Context, epr string) (bes.State, error) {
	items, _, err := p.vector(ctx, "GetActivityStatuses", epr)
	if err != nil {
		return "", err
	}
	return stateOf(items[0])
}

// await asks for the state until it is as wanted, and gives the states seen, each
// once in a row. Every step must be one that the state model has.
func (p *probe) await(ctx context.Context, epr string, wanted func(bes.State) bool) ([]bes.State, error) {
	limit, stop := context.WithTimeout(ctx, p.opts.Settle)
	defer stop()
	var seen []bes.State
	pause := 20 * time.Millisecond
	for {
		s, err := p.state(limit, epr)
		if err != nil {
			return seen, err
		}
		if len(seen) == 0 || seen[len(seen)-1] != s {
			if len(seen) > 0 && !follows(seen[len(seen)-1], s) {
				return seen, fmt.Errorf("the state went from %s to %s, which the state model does not have", seen[len(seen)-1], s)
			}
			seen = append(seen, s)
		}
		if wanted(s) {
			return seen, nil
		}
		if s.Final() {
			return seen, fmt.Errorf("the activity ended as %s (seen: %v)", s, seen)
		}
		t := time.NewTimer(pause)
		select {
		case <-limit.Done():
			t.Stop()
			return seen, fmt.Errorf("after %v the activity is still %s (seen: %v)", p.opts.Settle, s, seen)
		case <-t.C:
		}
		pause = min(2*pause, time.Second)
	}
}

// follows reports whether a later look may see b after a (BES 1.0 §4.1): states
// between may go unseen, final ones stay.
func follows(a, b bes.State) bool {
	switch a {
	case bes.Pending:
		return true
	case bes.Running:
		return b != bes.Pending
	case bes.Finished, bes.Cancelled, bes.Failed:
		return a == b
	}
	return false
}

// terminated reads the boolean of a TerminateActivities item, by either
// lineage's name.
func terminated(item *etree.Element) (bool, error) {
	for _, local := range []string{"Terminated", "Cancelled"} {
		e := xmldoc.Child(item, bes.NSFactory, local)
		if e == nil {
			continue
		}
		switch xmldoc.Collapse(xmldoc.Text(e)) {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
		return false, fmt.Errorf("%s is %q: wanted a boolean", local, xmldoc.Text(e))
	}
	return false, errors.New("the item has no Terminated (in the published schema: Cancelled), which is required")
}

// wantUnknown fails unless the item's Fault says that the identifier is not
// known, in the shape of SOAP 1.1's Fault type whatever the envelope.
func wantUnknown(item *etree.Element) error {
	f := itemFault(item)
	if f == nil {
		return errors.New("the item for an identifier that nobody made has no Fault of the BES namespace")
	}
	var kids []string
	for _, c := range f.ChildElements() {
		kids = append(kids, xmldoc.NameOf(c).String())
	}
	if len(kids) < 3 || kids[0] != "faultcode" || kids[1] != "faultstring" || kids[len(kids)-1] != "detail" {
		return fmt.Errorf("the item's Fault holds %s: wanted faultcode, faultstring, detail, unqualified", strings.Join(kids, ", "))
	}
	code := xmldoc.Child(f, "", "faultcode")
	n, err := xmldoc.ResolveQName(code, strings.TrimSpace(xmldoc.Text(code)))
	if err != nil {
		return fmt.Errorf("the item's faultcode %q is not a QName in scope: %w", xmldoc.Text(code), err)
	}
	if n.Space == soap.NS11 && n.Local != "Client" {
		return fmt.Errorf("the item's faultcode is %s: wanted Client, for it is the sender's mistake", n.Local)
	}
	if strings.TrimSpace(xmldoc.Text(xmldoc.Child(f, "", "faultstring"))) == "" {
		return errors.New("the item's faultstring is empty")
	}
	for _, d := range xmldoc.Child(f, "", "detail").ChildElements() {
		name := xmldoc.NameOf(d)
		if name.Space == bes.NSFactory && (name.Local == "UnknownActivityIdentifierFault" || name.Local == "InvalidActivityIdentifierFault") {
			if m := xmldoc.Child(d, bes.NSFactory, "Message"); m == nil || strings.TrimSpace(xmldoc.Text(m)) == "" {
				return fmt.Errorf("%s has no Message, which is required", name.Local)
			}
			return nil
		}
	}
	return fmt.Errorf("the item's detail has no UnknownActivityIdentifierFault (in the published schema: InvalidActivityIdentifierFault): %s", flatText(f))
}
