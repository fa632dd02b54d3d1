package conformance

import (
	"context"
	"fmt"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var vectorChecks = []check{
	{"BES-GAS-1", "BES 1.0 §6.3, schema ActivityStatusType", "GetActivityStatuses gives a state of the schema", func(ctx context.Context, p *probe) (string, error) {
		a, _, err := p.two(ctx)
		if err != nil {
			return "", err
		}
		s, err := p.state(ctx, a)
		return string(s), err
	}},
	{"BES-GAS-2", "BES 1.0 §6.3", "one Response for each identifier, in order, duplicates too", statusOrder},
	{"BES-GAS-3", "BES 1.0 schema (minOccurs=0)", "an empty GetActivityStatuses gives an empty response", emptyVector("GetActivityStatuses")},
	{"BES-GAS-4", "BES 1.0 §6.3, schema", "an unknown identifier gets a Fault of its own", unknownItem("GetActivityStatuses", soap.V11)},
	{"BES-GAS-5", "BES 1.0 schema (soap11:Fault type)", "in SOAP 1.2 the item's Fault keeps the SOAP 1.1 shape", unknownItem("GetActivityStatuses", soap.V12)},
	{"BES-GAS-6", "Namespaces in XML 1.0; real clients (BES++)", "an EPR whose prefixes were changed is the same EPR", rewritten},
	{"BES-GAS-7", "WS-Addressing 1.0 core §2.3", "an EPR with Metadata and extensions added is the same EPR", extended},
	{"BES-GAS-8", "BES 1.0 §6.3; SOAP 1.2 part 1", "GetActivityStatuses works in SOAP 1.2", inSOAP12("GetActivityStatuses")},
	{"BES-GAS-9", "BES 1.0 schema", "an ActivityIdentifier without an Address gets a fault, whole or of its own", brokenIdentifier},
	{"BES-TA-1", "BES 1.0 §6.2; schema TerminateActivityResponseType", "terminating an unknown identifier gives false and a Fault", unknownItem("TerminateActivities", soap.V11)},
	{"BES-TA-2", "BES 1.0 schema (minOccurs=0)", "an empty TerminateActivities gives an empty response", emptyVector("TerminateActivities")},
	{"BES-TA-3", "BES 1.0 §6.2, §4.1", "a terminated activity becomes Cancelled", terminate},
	{"BES-TA-4", "BES 1.0 §6.2", "terminating twice does no harm, and Cancelled stays", terminateTwice},
	{"BES-TA-5", "BES 1.0 §6.2, §4.1", "terminating a finished activity leaves it Finished", terminateFinished},
	{"BES-TA-6", "BES 1.0 §6.2", "one unknown identifier does not keep the others from being terminated", terminateMixed},
}

// inspect checks one item of an operation's response by the schema.
func inspect(operation string, item *etree.Element) error {
	var parts []part
	switch operation {
	case "GetActivityStatuses":
		parts = []part{{"ActivityIdentifier", true, false}, {"ActivityStatus", false, false}, {"Fault", false, false}}
	case "TerminateActivities":
		if _, err := terminated(item); err != nil {
			return err
		}
		name := "Terminated"
		if xmldoc.Child(item, bes.NSFactory, name) == nil {
			name = "Cancelled"
		}
		parts = []part{{"ActivityIdentifier", true, false}, {name, true, false}, {"Fault", false, false}}
	default:
		parts = []part{{"ActivityIdentifier", true, false}, {"JobDefinition", false, false}, {"Fault", false, false}}
	}
	return sequence(item, parts)
}

func statusOrder(ctx context.Context, p *probe) (string, error) {
	a, b, err := p.two(ctx)
	if err != nil {
		return "", err
	}
	x := stranger(p.fresh("x"))
	items, _, err := p.vector(ctx, "GetActivityStatuses", b, x, a, b, a)
	if err != nil {
		return "", err
	}
	for i, it := range items {
		if err := inspect("GetActivityStatuses", it); err != nil {
			return "", err
		}
		if i == 1 {
			if err := wantUnknown(it); err != nil {
				return "", err
			}
			continue
		}
		if _, err := stateOf(it); err != nil {
			return "", fmt.Errorf("item %d: %w", i+1, err)
		}
	}
	return "5 items, in order", nil
}

func emptyVector(operation string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, factory(operation, ""))
		if err != nil {
			return "", err
		}
		if rep.fault != nil {
			if _, err := rep.wantBESFault(bes.NSFactory, "InvalidRequestMessageFault"); err == nil {
				return "", skip("the endpoint wants at least one identifier, as HPC Basic Profile lets it: %s", rep)
			}
		}
		if err := rep.wantPayload(bes.NSFactory, operation+"Response"); err != nil {
			return "", err
		}
		if n := len(rep.payload.ChildElements()); n != 0 {
			return "", fmt.Errorf("nothing was asked for, and %d items came", n)
		}
		return rep.String(), nil
	}
}

func unknownItem(operation string, v soap.Version) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		x := stranger(p.fresh("x"))
		items, rep, err := p.vectorAs(ctx, factory(operation, identifiers(x)).with(v), operation, []string{x})
		if err != nil {
			return "", err
		}
		if err := wantUnknown(items[0]); err != nil {
			return "", err
		}
		if operation == "TerminateActivities" {
			if done, err := terminated(items[0]); err != nil || done {
				return "", fmt.Errorf("the item for an identifier that nobody made says %v (%w)", done, errorOr(err, "wanted false"))
			}
		}
		return rep.String() + ": " + flatText(itemFault(items[0])), inspect(operation, items[0])
	}
}

func errorOr(err error, text string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%s", text)
}

// rewritten sends the EPR back as other stacks write it: default namespaces, and
// declarations on the outermost element only.
func rewritten(ctx context.Context, p *probe) (string, error) {
	a, _, err := p.two(ctx)
	if err != nil {
		return "", err
	}
	doc, err := xmldoc.ReadBytes([]byte(`<e>`+a+`</e>`), xmldoc.Limits{})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, c := range doc.Root().ChildElements() {
		writeDefault(&b, c)
	}
	m := factory("GetActivityStatuses", "")
	m.body = `<GetActivityStatuses xmlns="` + bes.NSFactory + `"><ActivityIdentifier>` + b.String() + `</ActivityIdentifier></GetActivityStatuses>`
	items, rep, err := p.vectorAs(ctx, m, "GetActivityStatuses", []string{a})
	if err != nil {
		return "", err
	}
	s, err := stateOf(items[0])
	return rep.String() + ", " + string(s), err
}

// writeDefault writes an element with default namespaces in place of prefixes.
// Prefixes are declared all the same, for QNames in content may use them.
func writeDefault(b *strings.Builder, e *etree.Element) {
	n := xmldoc.NameOf(e)
	b.WriteString("<" + n.Local + ` xmlns="` + escape(n.Space) + `"`)
	for _, a := range e.Attr {
		if a.Space == "" && a.Key == "xmlns" {
			continue
		}
		b.WriteString(" " + a.FullKey() + `="` + escape(a.Value) + `"`)
	}
	b.WriteString(">")
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.Element:
			writeDefault(b, t)
		case *etree.CharData:
			b.WriteString(escape(t.Data))
		}
	}
	b.WriteString("</" + n.Local + ">")
}

func extended(ctx context.Context, p *probe) (string, error) {
	a, _, err := p.two(ctx)
	if err != nil {
		return "", err
	}
	if strings.Contains(a, "Metadata") {
		return "", skip("the endpoint's EPRs have Metadata of their own")
	}
	more := a + `<a:Metadata xmlns:a="` + soap.NSWSA + `"><x:note xmlns:x="urn:x">kept by the client</x:note></a:Metadata>` + `<x:more xmlns:x="urn:x"/>`
	items, rep, err := p.vector(ctx, "GetActivityStatuses", more)
	if err != nil {
		return "", err
	}
	s, err := stateOf(items[0])
	return rep.String() + ", " + string(s), err
}

func inSOAP12(operation string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		a, b, err := p.two(ctx)
		if err != nil {
			return "", err
		}
		items, rep, err := p.vectorAs(ctx, factory(operation, identifiers(a, b)).with(soap.V12), operation, []string{a, b})
		if err != nil {
			return "", err
		}
		for _, it := range items {
			if f := itemFault(it); f != nil {
				return "", fmt.Errorf("an item has a Fault: %s", flatText(f))
			}
			if err := inspect(operation, it); err != nil {
				return "", err
			}
			if operation == "GetActivityStatuses" {
				if _, err := stateOf(it); err != nil {
					return "", err
				}
			}
		}
		return rep.String(), nil
	}
}

func brokenIdentifier(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, factory("GetActivityStatuses", `<bf:ActivityIdentifier/>`))
	if err != nil {
		return "", err
	}
	if rep.fault != nil {
		return rep.String(), rep.wantFault(soap.Sender)
	}
	if err := rep.wantPayload(bes.NSFactory, "GetActivityStatusesResponse"); err != nil {
		return "", err
	}
	for _, it := range rep.payload.ChildElements() {
		if itemFault(it) != nil {
			return rep.String() + ": " + flatText(itemFault(it)), nil
		}
	}
	return "", fmt.Errorf("an ActivityIdentifier without an Address got no fault: %s", rep)
}

// end terminates one activity and gives whether that was accepted.
func (p *probe) end(ctx context.Context, epr string) (bool, *etree.Element, error) {
	items, _, err := p.vector(ctx, "TerminateActivities", epr)
	if err != nil {
		return false, nil, err
	}
	if err := inspect("TerminateActivities", items[0]); err != nil {
		return false, nil, err
	}
	done, err := terminated(items[0])
	return done, items[0], err
}

func terminate(ctx context.Context, p *probe) (string, error) {
	epr, err := p.sleeper(ctx)
	if err != nil {
		return "", err
	}
	done, item, err := p.end(ctx, epr)
	if err != nil {
		return "", err
	}
	if !done {
		if f := itemFault(item); f != nil && xmldoc.Child(f, "", "detail") != nil && len(all(f, bes.NSFactory, "OperationWillBeAppliedEventuallyFault")) == 0 {
			return "", fmt.Errorf("a running activity was not terminated: %s", flatText(f))
		}
	}
	seen, err := p.await(ctx, epr, func(s bes.State) bool { return s == bes.Cancelled })
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%v; states %v", done, seen), nil
}

func terminateTwice(ctx context.Context, p *probe) (string, error) {
	epr, err := p.sleeper(ctx)
	if err != nil {
		return "", err
	}
	if _, _, err := p.end(ctx, epr); err != nil {
		return "", err
	}
	if _, _, err := p.end(ctx, epr); err != nil {
		return "", fmt.Errorf("the second time: %w", err)
	}
	if _, err := p.await(ctx, epr, func(s bes.State) bool { return s == bes.Cancelled }); err != nil {
		return "", err
	}
	done, _, err := p.end(ctx, epr)
	if err != nil {
		return "", fmt.Errorf("after Cancelled: %w", err)
	}
	s, err := p.state(ctx, epr)
	if err != nil {
		return "", err
	}
	if s != bes.Cancelled {
		return "", fmt.Errorf("after one more TerminateActivities the state went from Cancelled to %s", s)
	}
	return fmt.Sprintf("after Cancelled: %v, still Cancelled", done), nil
}

func terminateFinished(ctx context.Context, p *probe) (string, error) {
	epr, err := p.createActivity(ctx, job(posix(p.opts.Programs.True)))
	if err != nil {
		return "", err
	}
	if _, err := p.await(ctx, epr, func(s bes.State) bool { return s == bes.Finished }); err != nil {
		return "", err
	}
	done, item, err := p.end(ctx, epr)
	if err != nil {
		return "", err
	}
	s, err := p.state(ctx, epr)
	if err != nil {
		return "", err
	}
	if s != bes.Finished {
		return "", fmt.Errorf("TerminateActivities turned Finished into %s", s)
	}
	saw := fmt.Sprintf("%v, still Finished", done)
	if f := itemFault(item); f != nil {
		saw += ": " + flatText(f)
	}
	return saw, nil
}

func terminateMixed(ctx context.Context, p *probe) (string, error) {
	epr, err := p.sleeper(ctx)
	if err != nil {
		return "", err
	}
	x := stranger(p.fresh("x"))
	items, _, err := p.vector(ctx, "TerminateActivities", x, epr)
	if err != nil {
		return "", err
	}
	if err := wantUnknown(items[0]); err != nil {
		return "", err
	}
	if err := inspect("TerminateActivities", items[1]); err != nil {
		return "", err
	}
	seen, err := p.await(ctx, epr, func(s bes.State) bool { return s == bes.Cancelled })
	return fmt.Sprintf("the known one: states %v", seen), err
}
