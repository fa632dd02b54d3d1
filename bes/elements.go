package bes

import (
	"encoding/base64"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// Operation names: the element of the request; the answer's has Response behind.
const (
	opCreate    = "CreateActivity"
	opStatuses  = "GetActivityStatuses"
	opTerminate = "TerminateActivities"
	opDocuments = "GetActivityDocuments"
	opFactory   = "GetFactoryAttributesDocument"
	opStop      = "StopAcceptingNewActivities"
	opStart     = "StartAcceptingNewActivities"
	opSuspend   = "SuspendActivities"
	opResume    = "ResumeActivities"
	opHistory   = "GetActivityHistory"
	opOutput    = "GetActivityOutput"
	opMatch     = "MatchActivity"
)

// portType is a port type of the WSDL: action URIs are made of its parts.
type portType struct{ space, name, prefix string }

var (
	factoryPort    = portType{NSFactory, "BESFactoryPortType", "bf"}
	managementPort = portType{NSManagement, "BESManagementPortType", "bm"}
	controlPort    = portType{NSPortolan, "ActivityControlPortType", "p"}
)

func (p portType) action(name string) string { return p.space + "/" + p.name + "/" + name }

const (
	nsXSI = "http://www.w3.org/2001/XMLSchema-instance"

	namingBasic = "http://schemas.ggf.org/bes/2006/08/bes/naming/BasicWSAddressing"

	// MaxActivities is how many activities one request may name.
	MaxActivities = 10_000
	// MaxOutput is the most bytes of output in one answer.
	MaxOutput = 1 << 20
)

// message makes the element of a request or an answer, with its prefix declared.
func (p portType) message(local string) *etree.Element {
	e := etree.NewElement(p.prefix + ":" + local)
	e.CreateAttr("xmlns:"+p.prefix, p.space)
	return e
}

func text(parent *etree.Element, qname, s string) {
	parent.CreateElement(qname).SetText(s)
}

// textIf leaves out what is empty: it is not known.
func textIf(parent *etree.Element, qname, s string) {
	if s != "" {
		text(parent, qname, s)
	}
}

func timeIf(parent *etree.Element, qname string, t time.Time) {
	if !t.IsZero() {
		text(parent, qname, t.UTC().Format(time.RFC3339Nano))
	}
}

func doubleIf(parent *etree.Element, qname string, v float64) {
	if v != 0 && !math.IsNaN(v) {
		text(parent, qname, formatDouble(v))
	}
}

// formatDouble writes an xsd:double (XML Schema part 2 §3.2.5).
func formatDouble(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "INF"
	case math.IsInf(v, -1):
		return "-INF"
	case v == math.Trunc(v) && math.Abs(v) < 1e15:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// encodeStatus makes bf:ActivityStatus. What is ours declares its namespace on
// itself, beside what profiles add (GFD.108 §4.2).
func encodeStatus(s Status) *etree.Element {
	e := etree.NewElement("bf:ActivityStatus")
	e.CreateAttr("xmlns:bf", NSFactory)
	e.CreateAttr("state", string(s.State))
	for _, sub := range s.SubStates {
		if sub.Space == "" || sub.Space == NSFactory {
			continue // the wildcard is ##other
		}
		c := e.CreateElement("p:" + sub.Local)
		c.CreateAttr("xmlns:p", sub.Space)
	}
	if s.Details != nil {
		e.AddChild(encodeDetails(s.Details))
	}
	for _, x := range s.Extensions {
		e.AddChild(xmldoc.Detach(x))
	}
	return e
}

func encodeDetails(d *Details) *etree.Element {
	e := controlPort.message("ActivityDetails")
	textIf(e, "p:Name", d.Name)
	textIf(e, "p:Site", d.Site)
	textIf(e, "p:Reason", d.Reason)
	if d.ExitStatus != nil {
		text(e, "p:ExitStatus", strconv.Itoa(*d.ExitStatus))
	}
	textIf(e, "p:Signal", d.Signal)
	timeIf(e, "p:Submitted", d.Submitted)
	timeIf(e, "p:Started", d.Started)
	timeIf(e, "p:Ended", d.Ended)
	text(e, "p:Revision", strconv.FormatInt(d.Revision, 10))
	doubleIf(e, "p:Progress", d.Progress)
	for _, h := range d.Hosts {
		text(e, "p:Host", h)
	}
	if d.Usage != (Usage{}) {
		u := e.CreateElement("p:Usage")
		doubleIf(u, "p:CPUTime", d.Usage.CPU.Seconds())
		if d.Usage.Memory != 0 {
			text(u, "p:Memory", strconv.FormatInt(d.Usage.Memory, 10))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
		a := e.CreateElement("p:SiteAttribute")
		a.CreateAttr("name", name)
		a.SetText(d.Attributes[name])
	}
	return e
}

// encodeFactory makes bf:FactoryResourceAttributesDocument, in the order of the
// schema.
func encodeFactory(fa *FactoryAttributes) *etree.Element {
	e := etree.NewElement("bf:FactoryResourceAttributesDocument")
	e.CreateAttr("xmlns:bf", NSFactory)
	if fa.Basic != nil {
		encodeBasic(e.CreateElement("bf:BasicResourceAttributesDocument"), fa.Basic)
	}
	text(e, "bf:IsAcceptingNewActivities", strconv.FormatBool(fa.IsAcceptingNewActivities))
	textIf(e, "bf:CommonName", fa.CommonName)
	textIf(e, "bf:LongDescription", fa.LongDescription)
	text(e, "bf:TotalNumberOfActivities", strconv.FormatInt(fa.TotalNumberOfActivities, 10))
	for i := range fa.Activities {
		e.AddChild(fa.Activities[i].Element("bf", xmldoc.Name{Space: NSFactory, Local: "ActivityReference"}))
	}
	text(e, "bf:TotalNumberOfContainedResources", strconv.FormatInt(fa.TotalContainedResources, 10))
	for i := range fa.ContainedResources {
		// The type of ContainedResource is anyType: the attributes are its children,
		// and xsi:type says which type they are of.
		c := e.CreateElement("bf:ContainedResource")
		c.CreateAttr("xmlns:bf", NSFactory)
		c.CreateAttr("xmlns:xsi", nsXSI)
		c.CreateAttr("xsi:type", "bf:BasicResourceAttributesDocumentType")
		encodeBasic(c, &fa.ContainedResources[i])
	}
	profiles := fa.NamingProfiles
	if len(profiles) == 0 {
		profiles = []string{namingBasic} // the schema wants one, and this one asks for nothing
	}
	for _, p := range profiles {
		text(e, "bf:NamingProfile", p)
	}
	for _, x := range fa.Extensions {
		text(e, "bf:BESExtension", x)
	}
	text(e, "bf:LocalResourceManagerType", fa.LocalResourceManagerType)
	return e
}

func encodeBasic(e *etree.Element, b *BasicResource) {
	textIf(e, "bf:ResourceName", b.ResourceName)
	if b.OperatingSystem != "" || b.OperatingSystemVersion != "" {
		os := e.CreateElement("bf:OperatingSystem")
		os.CreateAttr("xmlns:jsdl", jsdl.NS)
		if b.OperatingSystem != "" {
			text(os.CreateElement("jsdl:OperatingSystemType"), "jsdl:OperatingSystemName", b.OperatingSystem)
		}
		textIf(os, "jsdl:OperatingSystemVersion", b.OperatingSystemVersion)
	}
	if b.CPUArchitecture != "" {
		arch := e.CreateElement("bf:CPUArchitecture")
		arch.CreateAttr("xmlns:jsdl", jsdl.NS)
		text(arch, "jsdl:CPUArchitectureName", b.CPUArchitecture)
	}
	doubleIf(e, "bf:CPUCount", b.CPUCount)
	doubleIf(e, "bf:CPUSpeed", b.CPUSpeed)
	doubleIf(e, "bf:PhysicalMemory", b.PhysicalMemory)
	doubleIf(e, "bf:VirtualMemory", b.VirtualMemory)
}

// encodeHistory fills the answer of GetActivityHistory.
func encodeHistory(e *etree.Element, entries []HistoryEntry) {
	for _, h := range entries {
		c := e.CreateElement("p:Entry")
		text(c, "p:Sequence", strconv.Itoa(h.Sequence))
		text(c, "p:Time", h.Time.UTC().Format(time.RFC3339Nano))
		text(c, "p:State", string(h.State))
		textIf(c, "p:SubState", h.SubState)
		textIf(c, "p:Site", h.Site)
		if h.Attempt != 0 {
			text(c, "p:Attempt", strconv.Itoa(h.Attempt))
		}
		text(c, "p:Event", h.Event)
		textIf(c, "p:Reason", h.Reason)
	}
}

// encodeOutput fills the answer of GetActivityOutput.
func encodeOutput(e *etree.Element, c *OutputChunk) {
	text(e, "p:Offset", strconv.FormatInt(c.Offset, 10))
	text(e, "p:Data", base64.StdEncoding.EncodeToString(c.Data))
	text(e, "p:More", strconv.FormatBool(c.More))
}

// identifier echoes a reference of a request, as it came (so that clients which
// match by string or by reference parameter find it), or writes one of ours.
func (p portType) identifier(e soap.EPR) *etree.Element {
	return e.Echo(p.prefix, xmldoc.Name{Space: p.space, Local: "ActivityIdentifier"})
}
