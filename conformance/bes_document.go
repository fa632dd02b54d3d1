package conformance

import (
	"context"
	"fmt"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

var documentChecks = []check{
	{"BES-GAD-1", "BES 1.0 §6.4, schema GetActivityDocumentResponseType", "GetActivityDocuments gives a JobDefinition of the BES namespace with what was sent", roundTrip("")},
	{"BES-GAD-2", "BES 1.0 §6.4; XML Schema part 2 (string)", "arguments come back with their white space", arguments([]string{" two  blanks ", "trailing ", ""})},
	{"BES-GAD-3", "BES 1.0 §6.4; XML 1.0 §2.2", "arguments come back in every script, escaped or not", arguments([]string{"grüße, 世界, 𝕁, שלום", `<&>"'`, "a\u00a0b", "]]>"})},
	{
		"BES-GAD-4", "JSDL 1.0 §4 (extensibility), BES 1.0 §6.4", "annotations and projects come back in order",
		roundTrip(`<jsdl:JobIdentification><jsdl:JobName>a name</jsdl:JobName><jsdl:JobAnnotation>first</jsdl:JobAnnotation><jsdl:JobAnnotation>second</jsdl:JobAnnotation></jsdl:JobIdentification>`),
	},
	{"BES-GAD-5", "BES 1.0 §6.4", "an unknown identifier gets a Fault of its own", unknownItem("GetActivityDocuments", soap.V11)},
	{"BES-GAD-6", "BES 1.0 §6.4", "one Response for each identifier, in order, duplicates too", documentOrder},
	{"BES-GAD-7", "BES 1.0 schema (minOccurs=0)", "an empty GetActivityDocuments gives an empty response", emptyVector("GetActivityDocuments")},
	{"BES-GAD-8", "BES 1.0 §6.4; SOAP 1.2 part 1", "GetActivityDocuments works in SOAP 1.2", inSOAP12("GetActivityDocuments")},
	{"BES-GAD-9", "Namespaces in XML 1.0 §6.1", "a document whose prefixes are declared on the Envelope comes back whole", outerPrefixes},
}

// document asks for one activity's document.
func (p *probe) document(ctx context.Context, epr string) (*etree.Element, error) {
	items, _, err := p.vector(ctx, "GetActivityDocuments", epr)
	if err != nil {
		return nil, err
	}
	if f := itemFault(items[0]); f != nil {
		return nil, fmt.Errorf("the item has a Fault: %s", flatText(f))
	}
	if err := inspect("GetActivityDocuments", items[0]); err != nil {
		return nil, err
	}
	d := xmldoc.Child(items[0], bes.NSFactory, "JobDefinition")
	if d == nil {
		return nil, fmt.Errorf("the item has no JobDefinition of the BES namespace")
	}
	return d, nil
}

// content writes what stands inside a JobDefinition, by expanded names, without
// the white space between elements.
func content(definition *etree.Element) string {
	var b strings.Builder
	for _, c := range definition.ChildElements() {
		flatten(&b, c)
	}
	return b.String()
}

// contentOf is content of a document of ours.
func contentOf(text string) (string, error) {
	doc, err := xmldoc.ReadBytes([]byte(text), xmldoc.Limits{})
	if err != nil {
		return "", err
	}
	return content(doc.Root()), nil
}

func (p *probe) comesBack(ctx context.Context, m message, document string) (string, error) {
	epr, err := p.sendCreate(ctx, m)
	if err != nil {
		return "", err
	}
	d, err := p.document(ctx, epr)
	if err != nil {
		return "", err
	}
	want, err := contentOf(document)
	if err != nil {
		return "", err
	}
	if got := content(d); got != want {
		return "", fmt.Errorf("the document came back changed: sent %s, got %s", difference(want, got), difference(got, want))
	}
	return fmt.Sprintf("%d bytes of content, the same", len(want)), nil
}

// difference gives a piece of a from a little before where b departs from it.
func difference(a, b string) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return "…" + printable(a[max(0, i-20):min(len(a), i+60)]) + "…"
}

func roundTrip(identification string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d := job(identification + posix(p.opts.Programs.True, "one", "two"))
		return p.comesBack(ctx, create(d), d)
	}
}

func arguments(args []string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d := job(posix(p.opts.Programs.Echo, args...))
		return p.comesBack(ctx, create(d), d)
	}
}

func outerPrefixes(ctx context.Context, p *probe) (string, error) {
	inner := `<jsdl:JobDescription><jsdl:Application><posix:POSIXApplication><posix:Executable>` + escape(p.opts.Programs.True) +
		`</posix:Executable></posix:POSIXApplication></jsdl:Application></jsdl:JobDescription>`
	declarations := ` xmlns:jsdl="` + jsdl.NS + `" xmlns:posix="` + jsdl.NSPOSIX + `"`
	m := create(`<jsdl:JobDefinition>` + inner + `</jsdl:JobDefinition>`)
	m.attrs = declarations
	return p.comesBack(ctx, m, `<jsdl:JobDefinition`+declarations+`>`+inner+`</jsdl:JobDefinition>`)
}

func documentOrder(ctx context.Context, p *probe) (string, error) {
	var eprs, names []string
	for _, n := range []string{"north", "south"} {
		epr, err := p.createActivity(ctx, job(`<jsdl:JobIdentification><jsdl:JobName>`+n+`</jsdl:JobName></jsdl:JobIdentification>`+posix(p.opts.Programs.True)))
		if err != nil {
			return "", err
		}
		eprs, names = append(eprs, epr), append(names, n)
	}
	order := []int{1, 0, 1}
	var ask []string
	for _, i := range order {
		ask = append(ask, eprs[i])
	}
	items, _, err := p.vector(ctx, "GetActivityDocuments", ask...)
	if err != nil {
		return "", err
	}
	for i, it := range items {
		got := all(it, jsdl.NS, "JobName")
		if len(got) != 1 || xmldoc.Text(got[0]) != names[order[i]] {
			return "", fmt.Errorf("item %d does not hold the document of the activity it names (%s)", i+1, names[order[i]])
		}
	}
	return "3 items, each with its own document", nil
}
