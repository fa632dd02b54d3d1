package bes

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

// The description is one flat WSDL with all its schemas inside, so that any
// stack reads it without fetching anything else. The schemas are of our own
// writing, with the content models of the standards' and none of their defects:
// nothing is imported from hosts that are gone, actions are in the namespace
// that tools look for, and a service says where it is.

//go:embed wsdl
var wsdlFiles embed.FS

// schemaFiles are in the order in which each finds what it imports before it.
var schemaFiles = []string{"ws-addressing.xsd", "soap-fault.xsd", "jsdl.xsd", "jsdl-posix.xsd", "jsdl-hpcpa.xsd", "bes-factory.xsd", "bes-management.xsd", "portolan-bes.xsd"}

// placeholder stands in a description for the service's address.
const placeholder = "@ADDRESS@"

// described is what the template wants to know of a port type.
type described struct {
	portType
	Name       string // of its binding and port
	Operations []describedOperation
}

type describedOperation struct {
	Name   string
	Faults []string
}

func (d described) Type() string              { return d.name }
func (d described) Action(name string) string { return d.action(name) }

// portTypes lists what the WSDL describes.
func portTypes(control, match bool, unknown string) []described {
	vectorFaults := []string{unknown, faultDenied, faultInvalid}
	ports := []described{
		{factoryPort, "BESFactory", []describedOperation{
			{opCreate, []string{faultDenied, faultNotAccepting, faultUnsupported, faultInvalid}},
			{opStatuses, vectorFaults},
			{opTerminate, append(slices.Clone(vectorFaults), faultState)},
			{opDocuments, vectorFaults},
			{opFactory, []string{faultDenied, faultInvalid}},
		}},
		{managementPort, "BESManagement", []describedOperation{
			{opStop, []string{faultDenied, faultInvalid}},
			{opStart, []string{faultDenied, faultInvalid}},
		}},
	}
	if control {
		one := append(slices.Clone(vectorFaults), faultUnsupported)
		ports = append(ports, described{controlPort, "ActivityControl", []describedOperation{
			{opSuspend, vectorFaults},
			{opResume, vectorFaults},
			{opHistory, one},
			{opOutput, one},
		}})
	}
	if match {
		last := &ports[len(ports)-1]
		last.Operations = append(last.Operations, describedOperation{opMatch, []string{faultDenied, faultUnsupported, faultInvalid}})
	}
	return ports
}

var (
	schemaHead     = regexp.MustCompile(`(?s)^\s*<\?xml.*?\?>\s*`)
	schemaLocation = regexp.MustCompile(`schemaLocation="([^"]*)"`)
)

// description is the WSDL and the schemas of one server, but for the address.
type description struct {
	once    sync.Once
	wsdl    []byte
	schemas map[string][]byte
}

func (s *server) makeDescription() {
	unknown, boolean := faultUnknown, "Terminated"
	if s.o.Dialect == Dialect2007 {
		unknown, boolean = faultUnknown2007, "Cancelled"
	}
	words := strings.NewReplacer("@TERMINATED@", boolean, "@UNKNOWN@", unknown)
	d := &s.description
	d.schemas = map[string][]byte{}
	type message struct{ Name, Part, Element string }
	var data struct {
		Schemas  []string
		Messages []message
		Ports    []described
		Bindings []struct{ Prefix, Suffix string }
	}
	for _, name := range schemaFiles {
		b, err := wsdlFiles.ReadFile(path.Join("wsdl", name))
		if err != nil {
			panic(err) // it is embedded
		}
		x := words.Replace(string(b))
		d.schemas[name] = []byte(schemaLocation.ReplaceAllString(x, `schemaLocation="`+placeholder+`?xsd=$1"`))
		data.Schemas = append(data.Schemas, strings.TrimSpace(schemaLocation.ReplaceAllString(schemaHead.ReplaceAllString(x, ""), "")))
	}
	data.Ports = portTypes(s.control != nil, s.matcher != nil, unknown)
	data.Bindings = []struct{ Prefix, Suffix string }{{"soap", ""}, {"soap12", "12"}}
	var faults []string
	for _, p := range data.Ports {
		for _, op := range p.Operations {
			data.Messages = append(data.Messages,
				message{op.Name + "Request", "parameters", p.prefix + ":" + op.Name},
				message{op.Name + "Response", "parameters", p.prefix + ":" + op.Name + "Response"})
			faults = append(faults, op.Faults...)
		}
	}
	slices.Sort(faults)
	for _, f := range slices.Compact(faults) {
		data.Messages = append(data.Messages, message{f, "detail", "bf:" + f})
	}
	var b bytes.Buffer
	t := template.Must(template.ParseFS(wsdlFiles, "wsdl/bes.wsdl"))
	if err := t.Execute(&b, data); err != nil {
		panic(err) // the template and the data are ours
	}
	d.wsdl = b.Bytes()
}

// describe gives the WSDL, or one of its schemas by name, for the service as it
// is seen at an address.
func (s *server) describe(address, kind, name string) ([]byte, bool) {
	s.description.once.Do(s.makeDescription)
	var doc []byte
	switch kind {
	case "wsdl":
		doc = s.description.wsdl
	case "xsd":
		doc = s.description.schemas[name]
	}
	if doc == nil {
		return nil, false
	}
	if i := strings.LastIndex(address, activityPath); i >= 0 { // asked of an activity
		address = address[:i]
	}
	escaped := bytes.ReplaceAll(xmldoc.AppendText(nil, address), []byte(`"`), []byte("&quot;"))
	return bytes.ReplaceAll(doc, []byte(placeholder), escaped), true
}
