package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

var factoryAttributeChecks = []check{
	{"BES-GFA-1", "BES 1.0 §7, schema FactoryResourceAttributesDocumentType", "the factory attributes stand in the schema's order, all required ones there", attributeOrder},
	{"BES-GFA-2", "BES 1.0 schema", "booleans, counts and doubles of the factory attributes are what the schema says", attributeValues},
	{"BES-GFA-3", "BES 1.0 §7, schema (NamingProfile, BESExtension, LocalResourceManagerType)", "naming profiles, extensions and manager type are URIs", attributeURIs},
	{"BES-GFA-4", "BES 1.0 §7", "the totals are no less than what is listed", attributeTotals},
	{
		"BES-GFA-5", "BES 1.0 schema (GetFactoryAttributesDocumentType, ##other)", "a foreign element in the request does no harm",
		answered(func(*probe) message { return factory("GetFactoryAttributesDocument", `<x:filter xmlns:x="urn:x"/>`) }),
	},
	{"BES-GFA-6", "BES 1.0 §7; SOAP 1.2 part 1", "the factory attributes come in SOAP 1.2 alike", attributes12},
}

// attributes is what the factory says of itself.
type attributes struct {
	element    *etree.Element
	accepting  bool
	total      int64
	references int
	contained  int64
	listed     int
	extensions []string
}

func (p *probe) readAttributes(ctx context.Context) (*attributes, error) {
	return p.readAttributesIn(ctx, soap.V11)
}

func (p *probe) readAttributesIn(ctx context.Context, v soap.Version) (*attributes, error) {
	rep, err := p.ask(ctx, plain().with(v))
	if err != nil {
		return nil, err
	}
	if err := rep.wantPayload(bes.NSFactory, plainResponse); err != nil {
		return nil, err
	}
	d := xmldoc.Child(rep.payload, bes.NSFactory, "FactoryResourceAttributesDocument")
	if d == nil {
		return nil, errors.New("the response has no FactoryResourceAttributesDocument")
	}
	a := &attributes{element: d}
	for _, c := range d.ChildElements() {
		n := xmldoc.NameOf(c)
		if n.Space != bes.NSFactory {
			continue
		}
		v := xmldoc.Collapse(xmldoc.Text(c))
		switch n.Local {
		case "IsAcceptingNewActivities":
			a.accepting = v == "true" || v == "1"
			if !a.accepting && v != "false" && v != "0" {
				return nil, fmt.Errorf("IsAcceptingNewActivities is %q: wanted a boolean", v)
			}
		case "TotalNumberOfActivities", "TotalNumberOfContainedResources":
			i, err := strconv.ParseInt(v, 10, 64)
			if err != nil || i < 0 {
				return nil, fmt.Errorf("%s is %q: wanted a count", n.Local, v)
			}
			if n.Local == "TotalNumberOfActivities" {
				a.total = i
			} else {
				a.contained = i
			}
		case "ActivityReference":
			a.references++
		case "ContainedResource":
			a.listed++
		case "BESExtension":
			a.extensions = append(a.extensions, v)
		}
	}
	return a, nil
}

// part is a child in a sequence of the schema.
type part struct {
	name               string
	required, repeated bool
}

var factoryParts = []part{
	{"BasicResourceAttributesDocument", false, false},
	{"IsAcceptingNewActivities", true, false},
	{"CommonName", false, false},
	{"LongDescription", false, false},
	{"TotalNumberOfActivities", true, false},
	{"ActivityReference", false, true},
	{"TotalNumberOfContainedResources", true, false},
	{"ContainedResource", false, true},
	{"NamingProfile", true, true},
	{"BESExtension", false, true},
	{"LocalResourceManagerType", true, false},
}

var basicParts = []part{
	{"ResourceName", false, false},
	{"OperatingSystem", false, false},
	{"CPUArchitecture", false, false},
	{"CPUCount", false, false},
	{"CPUSpeed", false, false},
	{"PhysicalMemory", false, false},
	{"VirtualMemory", false, false},
}

// sequence checks an element's children against a sequence that ends in foreign ones.
func sequence(e *etree.Element, parts []part) error {
	kids := e.ChildElements()
	i := 0
	for _, p := range parts {
		n := 0
		for i < len(kids) && xmldoc.Is(kids[i], bes.NSFactory, p.name) && (n == 0 || p.repeated) {
			i++
			n++
		}
		if n == 0 && p.required {
			return fmt.Errorf("%s lacks %s, or has it out of order", xmldoc.NameOf(e).Local, p.name)
		}
	}
	for ; i < len(kids); i++ {
		if n := xmldoc.NameOf(kids[i]); n.Space == bes.NSFactory || n.Space == "" {
			return fmt.Errorf("%s has %s where the schema does not", xmldoc.NameOf(e).Local, n)
		}
	}
	return nil
}

func attributeOrder(ctx context.Context, p *probe) (string, error) {
	a, err := p.readAttributes(ctx)
	if err != nil {
		return "", err
	}
	if err := sequence(a.element, factoryParts); err != nil {
		return "", err
	}
	if b := xmldoc.Child(a.element, bes.NSFactory, "BasicResourceAttributesDocument"); b != nil {
		if err := sequence(b, basicParts); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d attributes", len(a.element.ChildElements())), nil
}

func attributeValues(ctx context.Context, p *probe) (string, error) {
	a, err := p.readAttributes(ctx)
	if err != nil {
		return "", err
	}
	for _, b := range all(a.element, bes.NSFactory, "BasicResourceAttributesDocument") {
		for _, local := range []string{"CPUCount", "CPUSpeed", "PhysicalMemory", "VirtualMemory"} {
			if e := xmldoc.Child(b, bes.NSFactory, local); e != nil {
				if v, err := strconv.ParseFloat(xmldoc.Collapse(xmldoc.Text(e)), 64); err != nil || v < 0 {
					return "", fmt.Errorf("%s is %q: wanted a double that is not negative", local, xmldoc.Text(e))
				}
			}
		}
		if o := xmldoc.Child(b, bes.NSFactory, "OperatingSystem"); o != nil {
			if t := xmldoc.Child(o, jsdl.NS, "OperatingSystemType"); t != nil && xmldoc.Child(t, jsdl.NS, "OperatingSystemName") == nil {
				return "", errors.New("OperatingSystem has a type without jsdl:OperatingSystemName")
			}
		}
		if c := xmldoc.Child(b, bes.NSFactory, "CPUArchitecture"); c != nil && xmldoc.Child(c, jsdl.NS, "CPUArchitectureName") == nil {
			return "", errors.New("CPUArchitecture has no jsdl:CPUArchitectureName")
		}
	}
	for _, r := range a.element.ChildElements() {
		if xmldoc.Is(r, bes.NSFactory, "ActivityReference") && xmldoc.Child(r, soap.NSWSA, "Address") == nil {
			return "", errors.New("an ActivityReference has no wsa:Address")
		}
	}
	return fmt.Sprintf("accepting: %v, activities: %d, contained resources: %d", a.accepting, a.total, a.contained), nil
}

func attributeURIs(ctx context.Context, p *probe) (string, error) {
	a, err := p.readAttributes(ctx)
	if err != nil {
		return "", err
	}
	var seen []string
	for _, c := range a.element.ChildElements() {
		n := xmldoc.NameOf(c)
		if n.Space != bes.NSFactory || !slices.Contains([]string{"NamingProfile", "BESExtension", "LocalResourceManagerType"}, n.Local) {
			continue
		}
		v := xmldoc.Collapse(xmldoc.Text(c))
		if u, err := url.Parse(v); err != nil || !u.IsAbs() {
			return "", fmt.Errorf("%s is %q: wanted an absolute URI", n.Local, v)
		}
		seen = append(seen, n.Local+" "+v)
	}
	if len(seen) == 0 {
		return "", errors.New("there is neither NamingProfile nor LocalResourceManagerType")
	}
	return strings.Join(seen, ", "), nil
}

func attributeTotals(ctx context.Context, p *probe) (string, error) {
	a, err := p.readAttributes(ctx)
	if err != nil {
		return "", err
	}
	if a.total < int64(a.references) || a.contained < int64(a.listed) {
		return "", fmt.Errorf("%d of %d activities and %d of %d contained resources are listed", a.references, a.total, a.listed, a.contained)
	}
	return fmt.Sprintf("%d of %d activities and %d of %d contained resources are listed", a.references, a.total, a.listed, a.contained), nil
}

func attributes12(ctx context.Context, p *probe) (string, error) {
	a, err := p.readAttributesIn(ctx, soap.V12)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d attributes", len(a.element.ChildElements())), sequence(a.element, factoryParts)
}

var createChecks = []check{
	{"BES-CA-1", "BES 1.0 §6.1, schema CreateActivityResponseType", "CreateActivity gives an EPR with an absolute address", func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, create(job(posix(p.opts.Programs.True))))
		if err != nil {
			return "", err
		}
		if _, err := p.created(rep); err != nil {
			return "", err
		}
		id := rep.payload.ChildElements()[0]
		at := xmldoc.Collapse(xmldoc.Text(xmldoc.Child(id, soap.NSWSA, "Address")))
		if u, err := url.Parse(at); err != nil || !u.IsAbs() {
			return "", fmt.Errorf("the activity's address %q is not an absolute URI", at)
		}
		return at, sequence(rep.payload, []part{{"ActivityIdentifier", true, false}, {"ActivityDocument", false, false}})
	}},
	{"BES-CA-2", "BES 1.0 §6.1 (identifiers are unique)", "the same document twice makes two activities", func(ctx context.Context, p *probe) (string, error) {
		var ids [2]string
		for i := range ids {
			epr, err := p.createActivity(ctx, job(posix(p.opts.Programs.True)))
			if err != nil {
				return "", err
			}
			if ids[i], err = readEPR(epr); err != nil {
				return "", err
			}
		}
		if ids[0] == ids[1] {
			return "", fmt.Errorf("both activities are %s", ids[0])
		}
		return ids[0] + " and " + ids[1], nil
	}},
	{"BES-CA-3", "BES 1.0 §6.1 (SOAP 1.2 envelope)", "CreateActivity works in SOAP 1.2", func(ctx context.Context, p *probe) (string, error) {
		return p.sendCreate(ctx, create(job(posix(p.opts.Programs.True))).with(soap.V12))
	}},
	{"BES-CA-4", "BES 1.0 schema CreateActivityType", "CreateActivity without a document is InvalidRequestMessageFault", invalidRequest(func(*probe) message { return factory("CreateActivity", "") })},
	{"BES-CA-5", "BES 1.0 schema CreateActivityType", "CreateActivity with two documents is InvalidRequestMessageFault", invalidRequest(func(p *probe) message {
		d := `<bf:ActivityDocument>` + job(posix(p.opts.Programs.True)) + `</bf:ActivityDocument>`
		return factory("CreateActivity", d+d)
	})},
	{"BES-CA-6", "BES 1.0 schema ActivityDocumentType", "an ActivityDocument without a JobDefinition is InvalidRequestMessageFault", invalidRequest(func(*probe) message { return factory("CreateActivity", `<bf:ActivityDocument/>`) })},
	{"BES-CA-7", "BES 1.0 schema (##other)", "a foreign element beside the document does no harm", func(ctx context.Context, p *probe) (string, error) {
		return p.sendCreate(ctx, factory("CreateActivity", `<bf:ActivityDocument>`+job(posix(p.opts.Programs.True))+`</bf:ActivityDocument><x:hint xmlns:x="urn:x">y</x:hint>`))
	}},
	{"BES-CA-8", "BES 1.0 schema (##other)", "an unknown element of the BES namespace is InvalidRequestMessageFault", invalidRequest(func(p *probe) message {
		return factory("CreateActivity", `<bf:ActivityDocument>`+job(posix(p.opts.Programs.True))+`</bf:ActivityDocument><bf:NoSuchThing/>`)
	})},
	{"BES-CA-9", "real clients (ARC, HPC interop 2006)", "CreateActivity works with neither headers nor SOAPAction", func(ctx context.Context, p *probe) (string, error) {
		m := create(job(posix(p.opts.Programs.True)))
		m.action = ""
		return p.sendCreate(ctx, m)
	}},
}

// invalidRequest makes a check that a message gets InvalidRequestMessageFault
// with its required Message.
func invalidRequest(m func(*probe) message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, m(p))
		if err != nil {
			return "", err
		}
		if rep.fault == nil {
			_, _ = p.created(rep) // so that the run ends what should not be there
			return "", fmt.Errorf("wanted InvalidRequestMessageFault, got %s", rep)
		}
		return rep.String(), wantInvalid(rep)
	}
}

func wantInvalid(rep *reply) error {
	if err := rep.wantFault(soap.Sender); err != nil {
		return err
	}
	d, err := rep.wantBESFault(bes.NSFactory, "InvalidRequestMessageFault")
	if err != nil {
		return err
	}
	if m := xmldoc.Child(d, bes.NSFactory, "Message"); m == nil || strings.TrimSpace(xmldoc.Text(m)) == "" {
		return errors.New("InvalidRequestMessageFault has no Message, which is required")
	}
	return sequence(d, []part{{"InvalidElement", false, true}, {"Message", true, false}})
}

// submissionID is the extension of ours that makes creation idempotent; an
// endpoint that announces it must keep its promise.
const submissionID = bes.NSPortolan + "/submission-id"

var submissionChecks = []check{
	{"BES-SUB-1", "the extension " + submissionID, "one submission id and document, sent twice, make one activity", func(ctx context.Context, p *probe) (string, error) {
		id, err := p.offersSubmissionID(ctx)
		if err != nil {
			return "", err
		}
		var eprs [2]string
		for i := range eprs {
			epr, err := p.sendCreate(ctx, p.submission(id, job(posix(p.opts.Programs.True))))
			if err != nil {
				return "", err
			}
			if eprs[i], err = readEPR(epr); err != nil {
				return "", err
			}
		}
		if eprs[0] != eprs[1] {
			return "", fmt.Errorf("one submission id made two activities: %s and %s", eprs[0], eprs[1])
		}
		return eprs[0] + ", twice", nil
	}},
	{"BES-SUB-2", "the extension " + submissionID, "a submission id with another document is refused", func(ctx context.Context, p *probe) (string, error) {
		id, err := p.offersSubmissionID(ctx)
		if err != nil {
			return "", err
		}
		if _, err := p.sendCreate(ctx, p.submission(id, job(posix(p.opts.Programs.True)))); err != nil {
			return "", err
		}
		return invalidRequest(func(p *probe) message { return p.submission(id, job(posix(p.opts.Programs.Echo, "another"))) })(ctx, p)
	}},
}

func (p *probe) offersSubmissionID(ctx context.Context) (string, error) {
	a, err := p.readAttributes(ctx)
	if err != nil {
		return "", err
	}
	if !slices.Contains(a.extensions, submissionID) {
		return "", skip("the endpoint does not announce %s", submissionID)
	}
	return "urn:x-conformance:" + p.fresh("submission"), nil
}

func (p *probe) submission(id, document string) message {
	return factory("CreateActivity", `<bf:ActivityDocument>`+document+`</bf:ActivityDocument><p:SubmissionId xmlns:p="`+bes.NSPortolan+`">`+escape(id)+`</p:SubmissionId>`)
}
