package soap

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// ErrNoAddress is the cause of DecodeEPR's error where wsa:Address is not there
// or is empty (MissingAddressInEPR).
var ErrNoAddress = errors.New("wsa:Address is missing")

// DecodeEPR reads a wsa:EndpointReference (WS-Addressing 1.0 core §2.2). The
// element may have any name: it is the type that counts. White space in the
// address is collapsed, as xs:anyURI has it. The error is a fail.Invalid.
func DecodeEPR(e *etree.Element) (EPR, error) {
	epr := EPR{Source: xmldoc.Detach(e)}
	addresses := 0
	for _, c := range epr.Source.ChildElements() {
		n := xmldoc.NameOf(c)
		if n.Space != NSWSA {
			epr.Extensions = append(epr.Extensions, xmldoc.Detach(c))
			continue
		}
		switch n.Local {
		case "Address":
			addresses++
			epr.Address = xmldoc.Collapse(xmldoc.Text(c))
		case "ReferenceParameters":
			epr.ReferenceParameters = append(epr.ReferenceParameters, detachChildren(c)...)
		case "Metadata":
			epr.Metadata = append(epr.Metadata, detachChildren(c)...)
		default:
			epr.Extensions = append(epr.Extensions, xmldoc.Detach(c))
		}
	}
	switch {
	case addresses > 1:
		return epr, fail.Errorf("soap.DecodeEPR", fail.Invalid, e.Tag, "the endpoint reference %s has %d wsa:Address elements: it takes one", bounded(e.Tag), addresses)
	case epr.Address == "":
		return epr, fail.Errorf("soap.DecodeEPR", fail.Invalid, e.Tag, "the endpoint reference %s lacks its wsa:Address", bounded(e.Tag)).Because(ErrNoAddress)
	}
	return epr, nil
}

func detachChildren(e *etree.Element) []*etree.Element {
	var list []*etree.Element
	for _, c := range e.ChildElements() {
		list = append(list, xmldoc.Detach(c))
	}
	return list
}

// Element writes the reference as an element of that name. Every reference
// parameter declares its namespaces itself: gSOAP copies them as text and loses
// what is declared above.
func (e *EPR) Element(prefix string, n xmldoc.Name) *etree.Element {
	el := etree.NewElement(n.Local)
	el.Space = prefix
	declare(el, prefix, n.Space)
	declare(el, "wsa", NSWSA)
	el.CreateElement("wsa:Address").SetText(e.Address)
	add := func(local string, list []*etree.Element) {
		if len(list) == 0 {
			return
		}
		wrap := el.CreateElement("wsa:" + local)
		for _, p := range list {
			wrap.AddChild(xmldoc.Detach(p))
		}
	}
	add("ReferenceParameters", e.ReferenceParameters)
	add("Metadata", e.Metadata)
	for _, x := range e.Extensions {
		el.AddChild(xmldoc.Detach(x))
	}
	return el
}

// Echo gives the reference back under the name that the answer wants: the
// sender's own element where there is one, so that nothing it put there is lost.
func (e *EPR) Echo(prefix string, n xmldoc.Name) *etree.Element {
	if e.Source == nil {
		return e.Element(prefix, n)
	}
	el := e.Source.Copy()
	free := prefix
	for i := 1; ; i++ {
		uri, err := xmldoc.ResolveQName(el, strings.TrimPrefix(free+":x", ":"))
		if free != "" && err != nil {
			declare(el, free, n.Space) // nothing below can be using it
			break
		}
		if err == nil && uri.Space == n.Space {
			break
		}
		free = fmt.Sprintf("%s%d", cmp.Or(prefix, "n"), i)
	}
	el.Space, el.Tag = free, n.Local
	return el
}

// declare puts a namespace declaration on e.
func declare(e *etree.Element, prefix, uri string) {
	if prefix == "" {
		e.CreateAttr("xmlns", uri)
		return
	}
	e.CreateAttr("xmlns:"+prefix, uri)
}
