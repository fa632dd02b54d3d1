package conformance

import (
	"encoding/xml"
	"net/http"
	"strings"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/jsdl"
)

// message is a request to be written. Everything in it is raw XML.
type message struct {
	version  soap.Version // 0 is 1.1
	envelope string       // the whole message instead of headers and body
	attrs    string       // further attributes of the Envelope
	headers  string       // inside the Header; without any, there is no Header
	body     string       // inside the Body

	action     string // SOAPAction, or the action parameter
	noAction   bool   // no SOAPAction header at all
	media      string // Content-Type instead of the version's own
	header     http.Header
	anyVersion bool // the answer may be in either version
	client     *http.Client
	patience   time.Duration
	to         string              // the URL that it is sent to instead of the endpoint's
	sign       func([]byte) []byte // the text; nil leaves it as it is
}

func versionName(v soap.Version) string {
	if v == soap.V12 {
		return "1.2"
	}
	return "1.1"
}

func namespaceOf(v soap.Version) string {
	if v == soap.V12 {
		return soap.NS12
	}
	return soap.NS11
}

// text gives the message's XML.
func (m message) text() string {
	if m.envelope != "" {
		return m.envelope
	}
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n")
	b.WriteString(`<s:Envelope xmlns:s="` + namespaceOf(m.version) + `"` + m.attrs + `>`)
	if m.headers != "" {
		b.WriteString(`<s:Header>` + m.headers + `</s:Header>`)
	}
	b.WriteString(`<s:Body>` + m.body + `</s:Body></s:Envelope>`)
	return b.String()
}

// request gives the message as HTTP (SOAP 1.1 §6, SOAP 1.2 part 2 §7).
func (m message) request() request {
	r := request{header: m.header.Clone(), body: []byte(m.text()), contentType: m.media, client: m.client, patience: m.patience, query: m.to}
	if r.header == nil {
		r.header = http.Header{}
	}
	if m.sign != nil {
		r.body = m.sign(r.body)
	}
	if m.version == soap.V12 {
		if r.contentType == "" {
			r.contentType = "application/soap+xml; charset=utf-8"
			if !m.noAction && m.action != "" {
				r.contentType += `; action="` + m.action + `"`
			}
		}
		return r
	}
	if r.contentType == "" {
		r.contentType = "text/xml; charset=utf-8"
	}
	if !m.noAction {
		r.header.Set("SOAPAction", `"`+m.action+`"`)
	}
	return r
}

// with gives m in another version.
func (m message) with(v soap.Version) message { m.version = v; return m }

// under gives m with these header blocks added.
func (m message) under(headers string) message { m.headers += headers; return m }

// Action URIs (BES 1.0 WSDL).
const (
	factoryPort    = bes.NSFactory + "/BESFactoryPortType/"
	managementPort = bes.NSManagement + "/BESManagementPortType/"
)

// factory gives a request of the Factory port type.
func factory(operation, content string) message {
	return message{
		action: factoryPort + operation,
		body:   `<bf:` + operation + ` xmlns:bf="` + bes.NSFactory + `">` + content + `</bf:` + operation + `>`,
	}
}

// management gives a request of the Management port type.
func management(operation string) message {
	return message{action: managementPort + operation, body: `<bm:` + operation + ` xmlns:bm="` + bes.NSManagement + `"/>`}
}

// plain is the request that asks for least: what tests of the layers below send.
func plain() message { return factory("GetFactoryAttributesDocument", "") }

// create gives a CreateActivity with a whole JobDefinition element.
func create(jobDefinition string) message {
	return factory("CreateActivity", `<bf:ActivityDocument>`+jobDefinition+`</bf:ActivityDocument>`)
}

// identifiers wraps EPR contents, as createActivity gives them, for a vector operation.
func identifiers(eprs ...string) string {
	var b strings.Builder
	for _, e := range eprs {
		b.WriteString(`<bf:ActivityIdentifier xmlns:bf="` + bes.NSFactory + `">` + e + `</bf:ActivityIdentifier>`)
	}
	return b.String()
}

// stranger is the content of an EPR that no endpoint made.
func stranger(word string) string {
	return `<a:Address xmlns:a="` + soap.NSWSA + `">http://stranger.invalid/bes/` + word + `</a:Address>` +
		`<a:ReferenceParameters xmlns:a="` + soap.NSWSA + `"><x:Id xmlns:x="urn:stranger">` + word + `</x:Id></a:ReferenceParameters>`
}

// Header blocks of WS-Addressing 1.0.

func wsaHeader(local, attrs, content string) string {
	return `<wsa:` + local + ` xmlns:wsa="` + soap.NSWSA + `"` + attrs + `>` + content + `</wsa:` + local + `>`
}

func address(uri string) string {
	return `<wsa:Address xmlns:wsa="` + soap.NSWSA + `">` + uri + `</wsa:Address>`
}

// addressed adds To, Action and MessageID to m.
func (p *probe) addressed(m message, id string) message {
	return m.under(wsaHeader("To", "", escape(p.opts.Endpoint)) + wsaHeader("Action", "", m.action) + wsaHeader("MessageID", "", id))
}

// job gives a JobDefinition around the content of its JobDescription.
func job(description string) string {
	return `<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `"><jsdl:JobDescription>` + description + `</jsdl:JobDescription></jsdl:JobDefinition>`
}

// posix gives an Application element that runs a program.
func posix(program string, arguments ...string) string {
	return application("POSIXApplication", jsdl.NSPOSIX, program, arguments)
}

func application(element, ns, program string, arguments []string) string {
	var b strings.Builder
	b.WriteString(`<jsdl:Application xmlns:jsdl="` + jsdl.NS + `"><app:` + element + ` xmlns:app="` + ns + `">`)
	b.WriteString(`<app:Executable>` + escape(program) + `</app:Executable>`)
	for _, a := range arguments {
		b.WriteString(`<app:Argument>` + escape(a) + `</app:Argument>`)
	}
	b.WriteString(`</app:` + element + `></jsdl:Application>`)
	return b.String()
}

// escape writes text for element content or an attribute.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}
