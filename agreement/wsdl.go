package agreement

import (
	"bytes"
	"embed"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/template"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// The description is one flat WSDL with all its schemas inside, so that any stack
// reads it without fetching anything else. It is of our own writing: the WSDLs of
// the standard are not to be had; their message types are, and have the content
// models of these.

//go:embed wsdl
var wsdlFiles embed.FS

// schemaFiles are in the order in which each finds what it imports before it.
var schemaFiles = []string{"ws-addressing.xsd", "portolan-agreement.xsd", "base-faults.xsd", "resource.xsd", "resource-properties.xsd", "ws-agreement.xsd"}

// negotiationFile is the schema that the description of a negotiation has beside those.
const negotiationFile = "ws-agreement-negotiation.xsd"

// placeholder stands in a description for the endpoint's address.
const placeholder = "@ADDRESS@"

// described is what the template wants to know of a port type.
type described struct {
	Name       string
	Operations []describedOperation
}

type describedOperation struct {
	Name                             string // of the wsdl:operation
	Request, Response                string // qualified names of elements
	Action, ReplyAction, FaultAction string
	Faults                           []describedFault
}

type describedFault struct{ Prefix, Local string }

var (
	faultContinuing  = describedFault{"wsag", continuing.Local}
	faultUnknown     = describedFault{"wsrf-r", resourceUnknown.Local}
	faultUnavailable = describedFault{"wsrf-r", resourceUnavailable.Local}
	faultProperty    = describedFault{"wsrf-rp", invalidProperty.Local}
)

func describedMessage(name, op string, faults ...describedFault) describedOperation {
	o := operation(op, nil)
	return describedOperation{name, "wsag:" + op, "wsag:" + answerOf(op), o.Action, o.ReplyAction, o.FaultAction, faults}
}

func describedProperty(op string, faults ...describedFault) describedOperation {
	o := propertyOperation(op, nil)
	return describedOperation{op, "wsrf-rp:" + op, "wsrf-rp:" + op + "Response", o.Action, o.ReplyAction, o.FaultAction, append(faults, faultUnknown, faultUnavailable, faultContinuing)}
}

// factoryPorts lists what the WSDL of a Service describes.
func factoryPorts(lists, prepares bool) []described {
	properties := []describedOperation{
		describedProperty(opProperty, faultProperty),
		describedProperty(opProperties, faultProperty),
		describedProperty(opDocument),
	}
	ports := []described{
		{"AgreementFactory", append([]describedOperation{describedMessage("CreateAgreement", opCreate, faultContinuing)}, properties...)},
		{"PendingAgreementFactory", []describedOperation{describedMessage("CreatePendingAgreement", opCreatePending, faultContinuing)}},
		{"Agreement", append([]describedOperation{describedMessage("Terminate", opTerminate, faultContinuing, faultUnknown, faultUnavailable)}, properties...)},
		{"AgreementState", properties},
	}
	if lists {
		o := listOperation(nil)
		ports = append(ports, described{"AgreementList", []describedOperation{
			{opList, "p:" + opList, "p:" + opList + "Response", o.Action, o.ReplyAction, o.FaultAction, []describedFault{faultContinuing}},
		}})
	}
	if prepares {
		o := confirmOperation(nil)
		ports = append(ports, described{"PreparedAgreement", []describedOperation{
			{opConfirm, "p:" + opConfirm, "p:" + opConfirm + "Response", o.Action, o.ReplyAction, o.FaultAction, []describedFault{faultContinuing, faultUnknown, faultUnavailable}},
		}})
	}
	return ports
}

// acceptancePort is what the WSDL of an Acceptor describes.
var acceptancePort = described{"AgreementAcceptance", []describedOperation{
	describedMessage("Accept", opAccept, faultContinuing, faultUnknown, faultUnavailable),
	describedMessage("Reject", opReject, faultContinuing, faultUnknown, faultUnavailable),
}}

var (
	schemaHead     = regexp.MustCompile(`(?s)^\s*<\?xml.*?\?>\s*`)
	schemaLocation = regexp.MustCompile(`schemaLocation="([^"]*)"`)
)

// negotiationPorts lists what ?wsdl=negotiation describes: apart, since Terminate would
// be there twice.
func negotiationPorts() []described {
	message := func(name, op string, faults ...describedFault) describedOperation {
		o := negotiationOperation(op, nil)
		return describedOperation{name, "neg:" + op, "neg:" + negotiationAnswer(op), o.Action, o.ReplyAction, o.FaultAction, append(faults, faultContinuing)}
	}
	about := []describedFault{faultUnknown, faultUnavailable}
	return []described{
		{"NegotiationFactory", []describedOperation{message("InitiateNegotiation", opInitiate, about...)}},
		{"Negotiation", []describedOperation{
			message("Negotiate", opNegotiate, about...), message("Terminate", opTerminate, about...),
			describedProperty(opProperty, faultProperty), describedProperty(opProperties, faultProperty), describedProperty(opDocument),
		}},
		{"OfferAdvertisement", []describedOperation{message("Advertise", opAdvertise, about...)}},
	}
}

// describe gives what serves the WSDL of some port types, that of a negotiation by its
// name where there is one, and their schemas by name, for the endpoint as it is seen at
// an address.
func describe(ports, negotiating []described) func(address, kind, name string) ([]byte, bool) {
	wsdl := sync.OnceValue(func() []byte { return makeWSDL(NS, ports, schemaFiles) })
	second := sync.OnceValue(func() []byte {
		return makeWSDL(NSNegotiation, negotiating, append(slices.Clone(schemaFiles), negotiationFile))
	})
	return func(address, kind, name string) ([]byte, bool) {
		var doc []byte
		switch kind {
		case "wsdl":
			switch {
			case name != "negotiation":
				doc = wsdl()
			case negotiating == nil:
				return nil, false
			default:
				doc = second()
			}
		case "xsd":
			b, err := wsdlFiles.ReadFile(path.Join("wsdl", name))
			if err != nil || !strings.HasSuffix(name, ".xsd") {
				return nil, false
			}
			doc = schemaLocation.ReplaceAll(b, []byte(`schemaLocation="`+placeholder+`?xsd=$1"`))
		default:
			return nil, false
		}
		escaped := bytes.ReplaceAll(xmldoc.AppendText(nil, address), []byte(`"`), []byte("&quot;"))
		return bytes.ReplaceAll(doc, []byte(placeholder), escaped), true
	}
}

func makeWSDL(target string, ports []described, files []string) []byte {
	type message struct{ Name, Part, Element string }
	var data struct {
		Service  string
		Target   string
		Schemas  []string
		Messages []message
		Ports    []described
		Bindings []struct{ Prefix, Suffix string }
	}
	data.Service, data.Target = ports[0].Name+"Service", target
	data.Ports = ports
	data.Bindings = []struct{ Prefix, Suffix string }{{"soap", ""}, {"soap12", "12"}}
	for _, name := range files {
		b, err := wsdlFiles.ReadFile(path.Join("wsdl", name))
		if err != nil {
			panic(err) // it is embedded
		}
		data.Schemas = append(data.Schemas, strings.TrimSpace(schemaLocation.ReplaceAllString(schemaHead.ReplaceAllString(string(b), ""), "")))
	}
	seen := map[string]bool{}
	add := func(name, part, element string) {
		if !seen[name] {
			seen[name] = true
			data.Messages = append(data.Messages, message{name, part, element})
		}
	}
	for _, p := range ports {
		for _, op := range p.Operations {
			add(op.Name+"Request", "parameters", op.Request)
			add(op.Name+"Response", "parameters", op.Response)
			for _, f := range op.Faults {
				add(f.Local, "detail", f.Prefix+":"+f.Local)
			}
		}
	}
	var b bytes.Buffer
	t := template.Must(template.ParseFS(wsdlFiles, "wsdl/agreement.wsdl"))
	if err := t.Execute(&b, data); err != nil {
		panic(err) // the template and the data are ours
	}
	return b.Bytes()
}
