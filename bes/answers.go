package bes

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// Answers are read by local names and whatever the order: services of other
// makes misplace elements, qualify what should not be and leave out what must be
// there. What is ours is read by namespace.

// child gives the first child of one of the local names, in any namespace.
func child(e *etree.Element, locals ...string) *etree.Element {
	if e == nil {
		return nil
	}
	for _, t := range e.Child {
		if c, ok := t.(*etree.Element); ok && slices.Contains(locals, c.Tag) {
			return c
		}
	}
	return nil
}

func childText(e *etree.Element, local string) string {
	c := child(e, local)
	if c == nil {
		return ""
	}
	return strings.Clone(strings.Trim(xmldoc.Text(c), " \t\r\n"))
}

func childNumber(e *etree.Element, local string) float64 {
	v, err := strconv.ParseFloat(childText(e, local), 64)
	if err != nil || math.IsNaN(v) {
		return 0
	}
	return v
}

func childInt(e *etree.Element, local string) int64 {
	s := childText(e, local)
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		return v
	}
	if v, err := strconv.ParseFloat(s, 64); err == nil && v == math.Trunc(v) && math.Abs(v) < 1<<62 {
		return int64(v)
	}
	return 0
}

func childTime(e *etree.Element, local string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, childText(e, local))
	if err != nil {
		return time.Time{}
	}
	return t
}

// stateOf reads a state as services write it: Terminated for Cancelled, as in
// the prose of GFD.108; VENUS-C's RUNNING_EXECUTING. One that is not known stays
// as it is.
func stateOf(s string) State {
	s = xmldoc.Collapse(s)
	word := s
	if i := strings.IndexAny(s, "_:"); i > 0 {
		word = s[:i]
	}
	for known := range transitions {
		if strings.EqualFold(word, string(known)) {
			return known
		}
	}
	if strings.EqualFold(word, "Terminated") || strings.EqualFold(word, "Canceled") {
		return Cancelled
	}
	return State(strings.Clone(s))
}

// decodeStatus reads an ActivityStatus. Empty elements are sub-states; what else
// stands there is kept.
func decodeStatus(e *etree.Element) Status {
	var s Status
	for i := range e.Attr {
		if a := &e.Attr[i]; a.Key == "state" && (a.Space == "" || s.State == "") {
			s.State = stateOf(a.Value)
		}
	}
	for _, c := range e.ChildElements() {
		n := xmldoc.NameOf(c)
		switch {
		case n == xmldoc.Name{Space: NSPortolan, Local: "ActivityDetails"}:
			s.Details = decodeDetails(c)
		case len(c.ChildElements()) == 0 && strings.TrimSpace(xmldoc.Text(c)) == "":
			s.SubStates = append(s.SubStates, xmldoc.Name{Space: strings.Clone(n.Space), Local: strings.Clone(n.Local)})
		default:
			s.Extensions = append(s.Extensions, xmldoc.Detach(c))
		}
	}
	return s
}

func decodeDetails(e *etree.Element) *Details {
	d := &Details{
		Name: childText(e, "Name"), Site: childText(e, "Site"), Reason: childText(e, "Reason"),
		Signal: childText(e, "Signal"), Submitted: childTime(e, "Submitted"), Started: childTime(e, "Started"),
		Ended: childTime(e, "Ended"), Revision: childInt(e, "Revision"),
	}
	if v, err := strconv.Atoi(childText(e, "ExitStatus")); err == nil {
		d.ExitStatus = &v
	}
	if p := childNumber(e, "Progress"); p > 0 && p <= 1 {
		d.Progress = p
	}
	if u := child(e, "Usage"); u != nil {
		if s := childNumber(u, "CPUTime"); s > 0 && s < math.MaxInt64/1e9 {
			d.Usage.CPU = time.Duration(math.Round(s * 1e9))
		}
		d.Usage.Memory = max(0, childInt(u, "Memory"))
	}
	for _, c := range e.ChildElements() {
		switch c.Tag {
		case "Host":
			d.Hosts = append(d.Hosts, strings.Clone(strings.TrimSpace(xmldoc.Text(c))))
		case "SiteAttribute":
			if d.Attributes == nil {
				d.Attributes = map[string]string{}
			}
			d.Attributes[strings.Clone(c.SelectAttrValue("name", ""))] = strings.Clone(xmldoc.Text(c))
		}
	}
	return d
}

// decodeJob gives the document of an item. In answers JobDefinition is an
// element of bes-factory; some services send jsdl's own.
func decodeJob(doc *xmldoc.Document, e *etree.Element) []byte {
	want := xmldoc.Name{Space: jsdl.NS, Local: "JobDefinition"}
	if doc.Name(e) == want {
		return doc.Standalone(e)
	}
	return doc.RenamedStandalone(e, "jsdl", want)
}

// decodeFactory reads a FactoryResourceAttributesDocument.
func decodeFactory(e *etree.Element) *FactoryAttributes {
	fa := &FactoryAttributes{
		CommonName: childText(e, "CommonName"), LongDescription: childText(e, "LongDescription"),
		TotalNumberOfActivities:  childInt(e, "TotalNumberOfActivities"),
		TotalContainedResources:  childInt(e, "TotalNumberOfContainedResources"),
		LocalResourceManagerType: childText(e, "LocalResourceManagerType"),
	}
	fa.IsAcceptingNewActivities, _ = parseBool(childText(e, "IsAcceptingNewActivities"))
	if b := child(e, "BasicResourceAttributesDocument"); b != nil {
		fa.Basic = decodeBasic(b)
	}
	for _, c := range e.ChildElements() {
		switch c.Tag {
		case "ActivityReference":
			if epr, err := soap.DecodeEPR(c); err == nil {
				fa.Activities = append(fa.Activities, epr)
			}
		case "ContainedResource":
			// The attributes stand in it, or a whole document does; either may be of a
			// nested service.
			inner := c
			if d := child(c, "BasicResourceAttributesDocument", "FactoryResourceAttributesDocument"); d != nil {
				inner = d
			}
			nested := child(inner, "BasicResourceAttributesDocument")
			if nested == nil {
				nested = inner
			}
			r := decodeBasic(nested)
			if r.ResourceName == "" {
				r.ResourceName = childText(inner, "CommonName")
			}
			fa.ContainedResources = append(fa.ContainedResources, *r)
		case "NamingProfile":
			fa.NamingProfiles = append(fa.NamingProfiles, strings.TrimSpace(xmldoc.Text(c)))
		case "BESExtension":
			fa.Extensions = append(fa.Extensions, strings.TrimSpace(xmldoc.Text(c)))
		}
	}
	return fa
}

func decodeBasic(e *etree.Element) *BasicResource {
	b := &BasicResource{
		ResourceName: childText(e, "ResourceName"),
		CPUCount:     childNumber(e, "CPUCount"), CPUSpeed: childNumber(e, "CPUSpeed"),
		PhysicalMemory: childNumber(e, "PhysicalMemory"), VirtualMemory: childNumber(e, "VirtualMemory"),
	}
	if os := child(e, "OperatingSystem"); os != nil {
		b.OperatingSystem = childText(child(os, "OperatingSystemType"), "OperatingSystemName")
		b.OperatingSystemVersion = childText(os, "OperatingSystemVersion")
	}
	b.CPUArchitecture = childText(child(e, "CPUArchitecture"), "CPUArchitectureName")
	return b
}

func decodeHistory(e *etree.Element) []HistoryEntry {
	var list []HistoryEntry
	for _, c := range e.ChildElements() {
		if c.Tag == "Entry" {
			list = append(list, HistoryEntry{
				Sequence: int(childInt(c, "Sequence")), Time: childTime(c, "Time"),
				State: stateOf(childText(c, "State")), SubState: childText(c, "SubState"),
				Site: childText(c, "Site"), Attempt: int(childInt(c, "Attempt")),
				Event: childText(c, "Event"), Reason: childText(c, "Reason"),
			})
		}
	}
	return list
}

func decodeOutput(e *etree.Element) (*OutputChunk, error) {
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(childText(e, "Data")), ""))
	if err != nil {
		return nil, unreadable(opOutput, "its Data is not base64")
	}
	more, ok := parseBool(childText(e, "More"))
	if !ok {
		return nil, unreadable(opOutput, "it does not say whether there is more")
	}
	return &OutputChunk{Data: data, Offset: childInt(e, "Offset"), More: more}, nil
}

// unreadable is an answer that says nothing that we could use.
func unreadable(op, why string) error {
	return fail.Errorf("bes."+op, fail.Unavailable, "", "the answer of the service to %s can't be used: %s", op, why)
}
