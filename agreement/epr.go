package agreement

import (
	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// keyParameter is our reference parameter, in NSPortolan.
const keyParameter = "AgreementKey"

// maxKey is the most bytes of a key that comes in a message.
const maxKey = 1024

// NewEPR gives the reference of an agreement at the endpoint with that address;
// of an initiator's own agreement too, which an Acceptor is told about. Nothing in
// it is secret: knowing a reference gives no right.
func NewEPR(address, key string) soap.EPR {
	p := etree.NewElement("p:" + keyParameter)
	p.CreateAttr("xmlns:p", NSPortolan)
	p.SetText(key)
	return soap.EPR{Address: address, ReferenceParameters: []*etree.Element{p}}
}

// KeyOf gives the key in a reference that NewEPR made, however it was altered on
// the way; ok is false for one of another make.
func KeyOf(e soap.EPR) (key string, ok bool) {
	for _, p := range e.ReferenceParameters {
		if xmldoc.Is(p, NSPortolan, keyParameter) {
			key = xmldoc.Collapse(xmldoc.Text(p))
			return key, key != ""
		}
	}
	return "", false
}
