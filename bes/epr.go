package bes

import (
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	activityID   = "ActivityId" // our reference parameter, in NSPortolan
	activityPath = "/a/"        // between a service's address and an activity's id

	// nsARex is where ARC's client looks for the id of a job. It wants the prefix
	// a-rex too, literally.
	nsARex = "http://www.nordugrid.org/schemas/a-rex"
)

// NewEPR gives the reference of an activity of the service at the address base.
// The id stands in it twice: as a reference parameter, and as the tail of the
// address, so that clients which drop parameters still work. Nothing in it is
// secret: knowing a reference gives no right.
func NewEPR(base, id string) soap.EPR {
	p := etree.NewElement("p:" + activityID)
	p.CreateAttr("xmlns:p", NSPortolan)
	p.SetText(id)
	return soap.EPR{
		Address:             strings.TrimRight(base, "/") + activityPath + id,
		ReferenceParameters: []*etree.Element{p},
	}
}

// ActivityID gives the id in a reference that NewEPR made, however a client
// altered its prefixes, order or declarations on the way: by the value of the
// reference parameter, else by the tail of the address. ok is false for a
// reference of another make.
func ActivityID(e soap.EPR) (id string, ok bool) {
	for _, p := range e.ReferenceParameters {
		if xmldoc.Is(p, NSPortolan, activityID) {
			id = xmldoc.Collapse(xmldoc.Text(p))
			return id, id != ""
		}
	}
	i := strings.LastIndex(e.Address, activityPath)
	if i < 0 {
		return "", false
	}
	id = e.Address[i+len(activityPath):]
	return id, id != "" && !strings.ContainsAny(id, "/?#")
}

// withARC adds the parameters by which ARC's client keeps track of a job.
func withARC(e soap.EPR) soap.EPR {
	id, ok := ActivityID(e)
	if !ok {
		return e
	}
	for _, x := range [...]struct{ local, value string }{{"JobID", id}, {"JobSessionDir", e.Address}} {
		p := etree.NewElement("a-rex:" + x.local)
		p.CreateAttr("xmlns:a-rex", nsARex)
		p.SetText(x.value)
		e.ReferenceParameters = append(slices.Clip(e.ReferenceParameters), p)
	}
	return e
}
