package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	nsWSDL   = "http://schemas.xmlsoap.org/wsdl/"
	nsWSDL11 = "http://schemas.xmlsoap.org/wsdl/soap/"
	nsWSDL12 = "http://schemas.xmlsoap.org/wsdl/soap12/"
	nsXSD    = "http://www.w3.org/2001/XMLSchema"
)

var wsdlChecks = []check{
	{"WSDL-GET-1", "WS-I BP 1.1 R2028; BES 1.0 WSDL", "?wsdl gives a WSDL 1.1 document", wsdlServed},
	{"WSDL-IMP-1", "WSDL 1.1 §2.1.1; WS-I BP 1.1 R2007, R2008", "every import and include of the WSDL can be fetched from the endpoint and is what it says", wsdlImports},
	{"WSDL-OPS-1", "BES 1.0 WSDL", "the WSDL has the Factory's five operations with the standard's SOAPActions", wsdlOperations},
	{"WSDL-ADR-1", "WSDL 1.1 §3.8", "a port of the WSDL says where the service is", wsdlAddress},
}

// wsdlLimits: descriptions are long and repeat declarations.
var wsdlLimits = xmldoc.Limits{Bytes: replyLimit}

// description fetches the WSDL; an endpoint without one is a skip.
func (p *probe) description(ctx context.Context) (*etree.Element, error) {
	rep, err := p.exchange(ctx, request{method: http.MethodGet, query: "?wsdl"})
	if err != nil {
		return nil, err
	}
	if httpRefusal(rep, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusForbidden, http.StatusNotImplemented) {
		return nil, skip("the endpoint serves no ?wsdl (HTTP %d)", rep.status)
	}
	if rep.status != http.StatusOK {
		return nil, fmt.Errorf("?wsdl got %s", rep)
	}
	doc, err := xmldoc.ReadBytes(rep.raw, wsdlLimits)
	if err != nil {
		return nil, fmt.Errorf("?wsdl is not well-formed XML without a document type: %w", err)
	}
	if !xmldoc.Is(doc.Root(), nsWSDL, "definitions") {
		return nil, fmt.Errorf("?wsdl has the root %s: wanted definitions of WSDL 1.1", xmldoc.NameOf(doc.Root()))
	}
	return doc.Root(), nil
}

func wsdlServed(ctx context.Context, p *probe) (string, error) {
	d, err := p.description(ctx)
	if err != nil {
		return "", err
	}
	return "definitions of " + d.SelectAttrValue("targetNamespace", "no namespace"), nil
}

// file is a document of the description with the URL that it came from.
type file struct {
	url  string
	root *etree.Element
}

// maxFiles bounds how many documents a description may have.
const maxFiles = 100

// collect fetches the WSDL with everything that it imports. The problems are
// sentences, one for each reference that leads nowhere.
func (p *probe) collect(ctx context.Context) (files []file, problems []string, err error) {
	d, err := p.description(ctx)
	if err != nil {
		return nil, nil, err
	}
	start := p.opts.Endpoint + "?wsdl"
	files = []file{{start, d}}
	seen := map[string]bool{start: true}
	home, err := url.Parse(start)
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i < len(files); i++ {
		base, err := url.Parse(files[i].url)
		if err != nil {
			return nil, nil, err
		}
		for _, ref := range references(files[i].root) {
			u, err := base.Parse(ref.location)
			if err != nil {
				problems = append(problems, fmt.Sprintf("%q is not a URL", ref.location))
				continue
			}
			u.Fragment = ""
			if seen[u.String()] {
				continue
			}
			seen[u.String()] = true
			if u.Host != home.Host {
				problems = append(problems, fmt.Sprintf("%s is on another host than the endpoint", u))
				continue
			}
			if len(files) == maxFiles {
				return nil, nil, fmt.Errorf("the description has more than %d documents", maxFiles)
			}
			root, why := p.fetchXML(ctx, u.String())
			if why == "" && ref.namespace != "" && root.SelectAttrValue("targetNamespace", "") != ref.namespace {
				why = fmt.Sprintf("has the namespace %q where %q was imported", root.SelectAttrValue("targetNamespace", ""), ref.namespace)
			}
			if why != "" {
				problems = append(problems, u.String()+" "+why)
				continue
			}
			files = append(files, file{u.String(), root})
		}
	}
	return files, problems, nil
}

type reference struct{ location, namespace string }

// references lists what a document imports and includes.
func references(e *etree.Element) []reference {
	var out []reference
	n := xmldoc.NameOf(e)
	switch {
	case n.Space == nsWSDL && n.Local == "import":
		out = append(out, reference{e.SelectAttrValue("location", ""), e.SelectAttrValue("namespace", "")})
	case n.Space == nsXSD && (n.Local == "import" || n.Local == "include"):
		// An import without a location names a schema that stands elsewhere in the same description.
		if l := e.SelectAttrValue("schemaLocation", ""); l != "" {
			out = append(out, reference{l, e.SelectAttrValue("namespace", "")})
		}
	}
	for _, c := range e.ChildElements() {
		out = append(out, references(c)...)
	}
	return out
}

func (p *probe) fetchXML(ctx context.Context, u string) (*etree.Element, string) {
	rep, err := p.exchange(ctx, request{method: http.MethodGet, query: u})
	if err != nil {
		return nil, err.Error()
	}
	if rep.status != http.StatusOK {
		return nil, fmt.Sprintf("got HTTP %d", rep.status)
	}
	doc, err := xmldoc.ReadBytes(rep.raw, wsdlLimits)
	if err != nil {
		return nil, "is not well-formed XML without a document type: " + err.Error()
	}
	return doc.Root(), ""
}

func wsdlImports(ctx context.Context, p *probe) (string, error) {
	files, problems, err := p.collect(ctx)
	if err != nil {
		return "", err
	}
	if len(problems) > 0 {
		return "", fmt.Errorf("%d references lead nowhere: %s", len(problems), strings.Join(problems, "; "))
	}
	// A schema that is imported without a location must be in one of the documents.
	have := map[string]bool{nsXSD: true, "http://www.w3.org/XML/1998/namespace": true}
	for _, f := range files {
		for _, s := range all(f.root, nsXSD, "schema") {
			have[s.SelectAttrValue("targetNamespace", "")] = true
		}
	}
	for _, f := range files {
		for _, i := range all(f.root, nsXSD, "import") {
			if ns := i.SelectAttrValue("namespace", ""); !have[ns] {
				return "", fmt.Errorf("%s imports the namespace %q, which no document of the description defines", f.url, ns)
			}
		}
	}
	return fmt.Sprintf("%d documents, all fetched", len(files)), nil
}

// all gives the elements of a name at and below e.
func all(e *etree.Element, space, local string) []*etree.Element {
	var out []*etree.Element
	if xmldoc.Is(e, space, local) {
		out = append(out, e)
	}
	for _, c := range e.ChildElements() {
		out = append(out, all(c, space, local)...)
	}
	return out
}

var factoryOperations = []string{"CreateActivity", "GetActivityStatuses", "TerminateActivities", "GetActivityDocuments", "GetFactoryAttributesDocument"}

func wsdlOperations(ctx context.Context, p *probe) (string, error) {
	files, _, err := p.collect(ctx)
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
						name := op.SelectAttrValue("name", "")
						actions[name] = append(actions[name], so.SelectAttrValue("soapAction", ""))
					}
				}
			}
		}
	}
	var wrong []string
	for _, op := range factoryOperations {
		if !slices.Contains(actions[op], factoryPort+op) {
			wrong = append(wrong, fmt.Sprintf("%s (%v)", op, actions[op]))
		}
	}
	if len(wrong) > 0 {
		return "", fmt.Errorf("no binding has the standard's soapAction for %s", strings.Join(wrong, ", "))
	}
	return fmt.Sprintf("%d operations bound, the Factory's five among them", len(actions)), nil
}

func wsdlAddress(ctx context.Context, p *probe) (string, error) {
	files, _, err := p.collect(ctx)
	if err != nil {
		return "", err
	}
	var at []string
	for _, f := range files {
		for _, port := range all(f.root, nsWSDL, "port") {
			for _, ns := range []string{nsWSDL11, nsWSDL12} {
				if a := xmldoc.Child(port, ns, "address"); a != nil {
					at = append(at, a.SelectAttrValue("location", ""))
				}
			}
		}
	}
	if len(at) == 0 {
		return "", errors.New("the WSDL has no service with a SOAP port")
	}
	for _, l := range at {
		if u, err := url.Parse(l); err != nil || u.Host == "" {
			return "", fmt.Errorf("a port's address %q is not an absolute URL", l)
		}
	}
	slices.Sort(at)
	return strings.Join(slices.Compact(at), ", "), nil
}
