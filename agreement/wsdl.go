package agreement

import (
	"bytes"
	"embed"
	"path"
	"regexp"
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
var schemaFiles = []string{"ws-addressing.xsd", "base-faults.xsd", "resource.xsd", "resource-properties.xsd", "ws-agreement.xsd", "portolan-agreement.xsd"}

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

// describe gives what serves the WSDL of some port types, and its schemas by name,
// for the endpoint as it is seen at an address.
func describe(ports []described) func(address, kind, name string) ([]byte, bool) {
	wsdl := sync.OnceValue(func() []byte { return makeWSDL(ports) })
	return func(address, kind, name string) ([]byte, bool) {
		var doc []byte
		switch kind {
		case "wsdl":
			doc = wsdl()
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

func makeWSDL(ports []described) []byte {
	type message struct{ Name, Part, Element string }
	var data struct {
		Service  string
		Schemas  []string
		Messages []message
		Ports    []described
		Bindings []struct{ Prefix, Suffix string }
	}
	data.Service = ports[0].Name + "Service"
	data.Ports = ports
	data.Bindings = []struct{ Prefix, Suffix string }{{"soap", ""}, {"soap12", "12"}}
	for _, name := range schemaFiles {
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
