package wire

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// placeholder stands in the description for the endpoint's address.
const placeholder = "@ADDRESS@"

// WSDL gives the description of the endpoint at an address, flat: its schema is inside.
// Both are made of the messages, so that they can't say anything else.
func WSDL(address string) []byte {
	b := new(strings.Builder)
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<wsdl:definitions name="Peer" targetNamespace="` + NS + `"
    xmlns:p="` + NS + `"
    xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/"
    xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/"
    xmlns:soap12="http://schemas.xmlsoap.org/wsdl/soap12/"
    xmlns:wsam="http://www.w3.org/2007/05/addressing/metadata">
  <wsdl:types>
`)
	_, schema, _ := strings.Cut(string(Schema()), "?>\n")
	b.WriteString(schema)
	b.WriteString("  </wsdl:types>\n")
	for _, o := range operations {
		for _, n := range []string{o.name, o.name + "Response"} {
			fmt.Fprintf(b, "  <wsdl:message name=\"%s\"><wsdl:part name=\"parameters\" element=\"p:%s\"/></wsdl:message>\n", n, n)
		}
	}
	b.WriteString("  <wsdl:message name=\"PeerFault\"><wsdl:part name=\"detail\" element=\"p:PeerFault\"/></wsdl:message>\n")
	b.WriteString("  <wsdl:message name=\"Trace\"><wsdl:part name=\"header\" element=\"p:Trace\"/></wsdl:message>\n")
	b.WriteString("  <wsdl:portType name=\"PeerPortType\">\n")
	for _, o := range operations {
		fmt.Fprintf(b, `    <wsdl:operation name="%[1]s">
      <wsdl:input name="%[1]s" message="p:%[1]s" wsam:Action="%[2]s"/>
      <wsdl:output name="%[1]sResponse" message="p:%[1]sResponse" wsam:Action="%[3]s"/>
      <wsdl:fault name="PeerFault" message="p:PeerFault" wsam:Action="%[4]s"/>
    </wsdl:operation>
`, o.name, Action(o.request()), Action(o.answer()), faultAction)
	}
	b.WriteString("  </wsdl:portType>\n")
	bindings := []struct{ prefix, suffix string }{{"soap", ""}, {"soap12", "Soap12"}}
	for _, s := range bindings {
		fmt.Fprintf(b, "  <wsdl:binding name=\"PeerBinding%s\" type=\"p:PeerPortType\">\n    <%s:binding style=\"document\" transport=\"http://schemas.xmlsoap.org/soap/http\"/>\n", s.suffix, s.prefix)
		for _, o := range operations {
			fmt.Fprintf(b, `    <wsdl:operation name="%[1]s">
      <%[2]s:operation soapAction="%[3]s" style="document"/>
      <wsdl:input name="%[1]s"><%[2]s:header message="p:Trace" part="header" use="literal"/><%[2]s:body use="literal"/></wsdl:input>
      <wsdl:output name="%[1]sResponse"><%[2]s:body use="literal"/></wsdl:output>
      <wsdl:fault name="PeerFault"><%[2]s:fault name="PeerFault" use="literal"/></wsdl:fault>
    </wsdl:operation>
`, o.name, s.prefix, Action(o.request()))
		}
		b.WriteString("  </wsdl:binding>\n")
	}
	b.WriteString("  <wsdl:service name=\"PeerService\">\n")
	for _, s := range bindings {
		fmt.Fprintf(b, "    <wsdl:port name=\"PeerPort%[1]s\" binding=\"p:PeerBinding%[1]s\"><%[2]s:address location=\"%[3]s\"/></wsdl:port>\n", s.suffix, s.prefix, placeholder)
	}
	b.WriteString("  </wsdl:service>\n</wsdl:definitions>\n")
	escaped := bytes.ReplaceAll(xmldoc.AppendText(nil, address), []byte(`"`), []byte("&quot;"))
	return bytes.ReplaceAll([]byte(b.String()), []byte(placeholder), escaped)
}
