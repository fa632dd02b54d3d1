package jsdl

import (
	"math"
	"slices"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// The types of jsdl.xsd (JSDL 1.0, GFD.56 §6) as tables.

// Helpers that make the reading half of a part.

// text reads xsd:string into a pointer: an empty element is not an absent one.
func text[T any](at func(*T) **string) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		if s, ok := d.leaf(e); ok {
			*at(t) = &s
		}
	}
}

// texts reads one more xsd:string.
func texts[T any](at func(*T) *[]string) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		if s, ok := d.leaf(e); ok {
			*at(t) = append(*at(t), s)
		}
	}
}

// boolean reads xsd:boolean.
func boolean[T any](at func(*T) **bool) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		s, ok := d.leaf(e)
		if !ok {
			return
		}
		v, ok := parseBoolean(s)
		if !ok {
			d.invalid(e, quote(s)+" is not a boolean", "expected true, false, 1 or 0")
			return
		}
		*at(t) = &v
	}
}

// ncName reads an xsd:NCName element.
func ncName[T any](at func(*T) *string) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		s, ok := d.leaf(e)
		if !ok {
			return
		}
		if *at(t), ok = parseNCName(s); !ok {
			d.invalid(e, quote(s)+" is not a name (xsd:NCName)", wantNCName)
		}
	}
}

const wantNCName = "expected a letter or _, then letters, digits, . - and _"

// ncNameAttribute reads an xsd:NCName attribute.
func ncNameAttribute[T any](local string, at func(*T) *string) func(*decoder, *T, *etree.Element, string) {
	return func(d *decoder, t *T, e *etree.Element, v string) {
		var ok bool
		if *at(t), ok = parseNCName(v); !ok {
			d.invalid(e, "the attribute "+local+" is "+quote(v)+", not a name (xsd:NCName)", wantNCName)
		}
	}
}

// enumeration reads one of a list of words. They are restrictions of xsd:string:
// white space around one makes it another.
func enumeration[T any](words []string, at func(*T) *string) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		s, ok := d.leaf(e)
		if !ok {
			return
		}
		if !slices.Contains(words, s) {
			d.invalid(e, quote(s)+" is not one of the standard's words", wantWord(words, s))
			return
		}
		*at(t) = s
	}
}

// child reads an element of a complex type into a new value.
func child[T, U any](c *content[U], at func(*T) **U) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		u := *at(t)
		if u == nil { // a second one was reported; the first keeps its place
			u = new(U)
			*at(t) = u
		}
		read(d, e, u, c)
	}
}

// children reads one more element of a complex type.
func children[T, U any](c *content[U], at func(*T) *[]U) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		list := at(t)
		*list = append(*list, *new(U))
		read(d, e, &(*list)[len(*list)-1], c)
	}
}

var jobDefinitionType = content[JobDefinition]{
	space: NS, any: true, anyAttr: true,
	foreign: func(j *JobDefinition) *Foreign { return &j.Foreign },
	attrs: []attribute[JobDefinition]{{local: "id", read: func(d *decoder, j *JobDefinition, e *etree.Element, v string) {
		j.ID = d.id(e, "id", v)
	}}},
	parts: []part[JobDefinition]{
		el(NS, "JobDescription", once, func(d *decoder, j *JobDefinition, e *etree.Element) {
			read(d, e, &j.Description, &jobDescriptionType)
		}),
	},
}

var jobDescriptionType = content[JobDescription]{
	space: NS, any: true, anyAttr: true,
	foreign: func(j *JobDescription) *Foreign { return &j.Foreign },
	parts: []part[JobDescription]{
		el(NS, "JobIdentification", optional, child(&jobIdentificationType, func(j *JobDescription) **JobIdentification { return &j.Identification })),
		el(NS, "Application", optional, child(&applicationType, func(j *JobDescription) **Application { return &j.Application })),
		el(NS, "Resources", optional, child(&resourcesType, func(j *JobDescription) **Resources { return &j.Resources })),
		el(NS, "DataStaging", repeated, children(&dataStagingType, func(j *JobDescription) *[]DataStaging { return &j.DataStaging })),
	},
}

var jobIdentificationType = content[JobIdentification]{
	space: NS, any: true, anyAttr: true, aloof: true,
	foreign: func(j *JobIdentification) *Foreign { return &j.Foreign },
	parts: []part[JobIdentification]{
		el(NS, "JobName", optional, text(func(j *JobIdentification) **string { return &j.JobName })),
		el(NS, "Description", optional, text(func(j *JobIdentification) **string { return &j.Description })),
		el(NS, "JobAnnotation", repeated, texts(func(j *JobIdentification) *[]string { return &j.Annotations })),
		el(NS, "JobProject", repeated, texts(func(j *JobIdentification) *[]string { return &j.Projects })),
	},
}

var applicationType = content[Application]{
	space: NS, any: true, anyAttr: true,
	foreign: func(a *Application) *Foreign { return &a.Foreign },
	claim:   claimApplication,
	after:   checkApplication,
	parts: []part[Application]{
		el(NS, "ApplicationName", optional, text(func(a *Application) **string { return &a.Name })),
		el(NS, "ApplicationVersion", optional, text(func(a *Application) **string { return &a.Version })),
		el(NS, "Description", optional, text(func(a *Application) **string { return &a.Description })),
	},
}

var resourcesType = content[Resources]{
	space: NS, any: true, anyAttr: true,
	foreign: func(r *Resources) *Foreign { return &r.Foreign },
	claim:   claimOurs,
	after: func(d *decoder, _ *Resources, e *etree.Element) {
		if d.lax == 0 {
			d.resources = e
		}
	},
	parts: []part[Resources]{
		el(NS, "CandidateHosts", optional, func(d *decoder, r *Resources, e *etree.Element) { read(d, e, r, &candidateHostsType) }),
		el(NS, "FileSystem", repeated, children(&fileSystemType, func(r *Resources) *[]FileSystem { return &r.FileSystems })),
		el(NS, "ExclusiveExecution", optional, boolean(func(r *Resources) **bool { return &r.ExclusiveExecution })),
		el(NS, "OperatingSystem", optional, child(&operatingSystemType, func(r *Resources) **OperatingSystem { return &r.OperatingSystem })),
		el(NS, "CPUArchitecture", optional, child(&cpuArchitectureType, func(r *Resources) **CPUArchitecture { return &r.CPUArchitecture })),
		el(NS, "IndividualCPUSpeed", optional, quantity(func(r *Resources) **RangeValue { return &r.IndividualCPUSpeed }, measure)),
		el(NS, "IndividualCPUTime", optional, quantity(func(r *Resources) **RangeValue { return &r.IndividualCPUTime }, measure)),
		el(NS, "IndividualCPUCount", optional, quantity(func(r *Resources) **RangeValue { return &r.IndividualCPUCount }, number)),
		el(NS, "IndividualNetworkBandwidth", optional, quantity(func(r *Resources) **RangeValue { return &r.IndividualNetworkBandwidth }, measure)),
		el(NS, "IndividualPhysicalMemory", optional, quantity(func(r *Resources) **RangeValue { return &r.IndividualPhysicalMemory }, measure)),
		el(NS, "IndividualVirtualMemory", optional, quantity(func(r *Resources) **RangeValue { return &r.IndividualVirtualMemory }, measure)),
		el(NS, "IndividualDiskSpace", optional, quantity(func(r *Resources) **RangeValue { return &r.IndividualDiskSpace }, measure)),
		el(NS, "TotalCPUTime", optional, quantity(func(r *Resources) **RangeValue { return &r.TotalCPUTime }, measure)),
		el(NS, "TotalCPUCount", optional, quantity(func(r *Resources) **RangeValue { return &r.TotalCPUCount }, number)),
		el(NS, "TotalPhysicalMemory", optional, quantity(func(r *Resources) **RangeValue { return &r.TotalPhysicalMemory }, measure)),
		el(NS, "TotalVirtualMemory", optional, quantity(func(r *Resources) **RangeValue { return &r.TotalVirtualMemory }, measure)),
		el(NS, "TotalDiskSpace", optional, quantity(func(r *Resources) **RangeValue { return &r.TotalDiskSpace }, measure)),
		el(NS, "TotalResourceCount", optional, quantity(func(r *Resources) **RangeValue { return &r.TotalResourceCount }, number)),
	},
}

// CandidateHosts has no wildcard of either kind; its names are the resources' own field.
var candidateHostsType = content[Resources]{
	space: NS,
	parts: []part[Resources]{
		el(NS, "HostName", several, texts(func(r *Resources) *[]string { return &r.CandidateHosts })),
	},
}

var fileSystemType = content[FileSystem]{
	space: NS, any: true, anyAttr: true,
	foreign: func(f *FileSystem) *Foreign { return &f.Foreign },
	attrs:   []attribute[FileSystem]{{"name", true, ncNameAttribute("name", func(f *FileSystem) *string { return &f.Name }), ""}},
	parts: []part[FileSystem]{
		el(NS, "FileSystemType", optional, enumeration(fileSystemTypes, func(f *FileSystem) *string { return &f.Type })),
		el(NS, "Description", optional, text(func(f *FileSystem) **string { return &f.Description })),
		el(NS, "MountSource", optional, readMountSource).not("remove it: the schema of JSDL 1.0 has no MountSource; MountPoint names the place"),
		el(NS, "MountPoint", optional, text(func(f *FileSystem) **string { return &f.MountPoint })),
		el(NS, "DiskSpace", optional, quantity(func(f *FileSystem) **RangeValue { return &f.DiskSpace }, measure)),
	},
}

var operatingSystemType = content[OperatingSystem]{
	space: NS, any: true, anyAttr: true,
	foreign: func(o *OperatingSystem) *Foreign { return &o.Foreign },
	parts: []part[OperatingSystem]{
		el(NS, "OperatingSystemType", optional, func(d *decoder, o *OperatingSystem, e *etree.Element) {
			o.HasType = true
			read(d, e, o, &operatingSystemTypeType)
		}),
		el(NS, "OperatingSystemVersion", optional, text(func(o *OperatingSystem) **string { return &o.Version })),
		el(NS, "Description", optional, text(func(o *OperatingSystem) **string { return &o.Description })),
	},
}

var operatingSystemTypeType = content[OperatingSystem]{
	space: NS, any: true, anyAttr: true,
	foreign: func(o *OperatingSystem) *Foreign { return &o.TypeForeign },
	parts: []part[OperatingSystem]{
		el(NS, "OperatingSystemName", once, enumeration(operatingSystemNames, func(o *OperatingSystem) *string { return &o.Name })),
	},
}

var cpuArchitectureType = content[CPUArchitecture]{
	space: NS, any: true, anyAttr: true,
	foreign: func(c *CPUArchitecture) *Foreign { return &c.Foreign },
	parts: []part[CPUArchitecture]{
		el(NS, "CPUArchitectureName", once, enumeration(cpuArchitectureNames, func(c *CPUArchitecture) *string { return &c.Name })),
	},
}

var dataStagingType = content[DataStaging]{
	space: NS, any: true, anyAttr: true,
	foreign: func(s *DataStaging) *Foreign { return &s.Foreign },
	claim:   claimCredential,
	after: func(d *decoder, s *DataStaging, e *etree.Element) {
		d.refer(e, s.FilesystemName)
		d.rule(e, Unsupported, "the file "+quote(s.FileName)+" is to be staged, which this gateway does not do yet",
			"remove DataStaging, and name files that the site has")
	},
	attrs: []attribute[DataStaging]{{"name", false, ncNameAttribute("name", func(s *DataStaging) *string { return &s.Name }), ""}},
	parts: []part[DataStaging]{
		el(NS, "FileName", once, func(d *decoder, s *DataStaging, e *etree.Element) {
			v, _ := d.leaf(e)
			s.FileName = trim(v)
		}),
		el(NS, "FilesystemName", optional, ncName(func(s *DataStaging) *string { return &s.FilesystemName })),
		el(NS, "FileSystemName", optional, ncName(func(s *DataStaging) *string { return &s.FilesystemName })).not("write FilesystemName, with a small s"),
		el(NS, "CreationFlag", once, enumeration(creationFlags, func(s *DataStaging) *string { return &s.CreationFlag })).or(func(s *DataStaging) string {
			s.CreationFlag = "overwrite"
			return "overwrite is assumed"
		}),
		el(NS, "DeleteOnTermination", optional, boolean(func(s *DataStaging) **bool { return &s.DeleteOnTermination })),
		el(NS, "Source", optional, child(&locationType, func(s *DataStaging) **Location { return &s.Source })),
		el(NS, "Target", optional, child(&locationType, func(s *DataStaging) **Location { return &s.Target })),
	},
}

var locationType = content[Location]{
	space: NS, any: true, anyAttr: true,
	foreign: func(l *Location) *Foreign { return &l.Foreign },
	parts: []part[Location]{
		el(NS, "URI", optional, func(d *decoder, l *Location, e *etree.Element) {
			s, ok := d.leaf(e)
			if !ok {
				return
			}
			// The value is not shown: passwords inside are common.
			if s, ok = parseURI(s); !ok {
				d.invalid(e, "the text is not a URI", "expected a URI of RFC 3986")
			}
			l.URI = &s
		}),
	},
}

var rangeValueType = content[RangeValue]{
	space: NS, anyAttr: true,
	foreign:  func(r *RangeValue) *Foreign { return &r.Foreign },
	bareText: readBareCount,
	parts: []part[RangeValue]{
		el(NS, "UpperBoundedRange", optional, child(&boundaryType, func(r *RangeValue) **Bound { return &r.Upper })),
		el(NS, "LowerBoundedRange", optional, child(&boundaryType, func(r *RangeValue) **Bound { return &r.Lower })),
		el(NS, "Exact", repeated, children(&exactType, func(r *RangeValue) *[]Exact { return &r.Exact })),
		el(NS, "Range", repeated, children(&rangeType, func(r *RangeValue) *[]Range { return &r.Ranges })),
	},
}

var rangeType = content[Range]{
	space: NS, anyAttr: true,
	extra: func(r *Range) *[]Attribute { return &r.Attributes },
	parts: []part[Range]{
		el(NS, "LowerBound", once, func(d *decoder, r *Range, e *etree.Element) { read(d, e, &r.Lower, &boundaryType) }),
		el(NS, "UpperBound", once, func(d *decoder, r *Range, e *etree.Element) { read(d, e, &r.Upper, &boundaryType) }),
	},
}

var boundaryType = content[Bound]{
	space: NS, anyAttr: true,
	extra: func(b *Bound) *[]Attribute { return &b.Attributes },
	attrs: []attribute[Bound]{{"exclusiveBound", false, func(d *decoder, b *Bound, e *etree.Element, v string) {
		var ok bool
		if b.Exclusive, ok = parseBoolean(v); !ok {
			d.invalid(e, "the attribute exclusiveBound is "+quote(v), "expected true, false, 1 or 0")
		}
	}, ""}},
	text: func(d *decoder, b *Bound, e *etree.Element, s string) { b.Value = d.double(e, "", s) },
}

var exactType = content[Exact]{
	space: NS, anyAttr: true,
	extra: func(x *Exact) *[]Attribute { return &x.Attributes },
	attrs: []attribute[Exact]{{"epsilon", false, func(d *decoder, x *Exact, e *etree.Element, v string) {
		if x.Epsilon = d.double(e, "the attribute epsilon: ", v); x.Epsilon < 0 {
			d.rule(e, Invalid, "the attribute epsilon is negative, so that nothing matches", "expected 0 or more")
		}
	}, ""}},
	text: func(d *decoder, x *Exact, e *etree.Element, s string) { x.Value = d.double(e, "", s) },
}

// double reads a number for a RangeValue. NaN is a double, but no set of numbers
// can be described with it.
func (d *decoder) double(e *etree.Element, of, s string) float64 {
	v, ok := parseDouble(s)
	switch {
	case !ok:
		d.invalid(e, of+quote(s)+" is not a number", "expected a number such as 4, 1.5, 2e9 or INF")
	case math.IsNaN(v):
		d.rule(e, Invalid, of+"NaN is not a number that a resource can have", "expected a number such as 4, 1.5, 2e9 or INF")
		v = 0
	}
	return v
}

// id reads an xsd:ID attribute: a name that no other has in the document.
func (d *decoder) id(e *etree.Element, local, v string) string {
	s, ok := parseNCName(v)
	switch {
	case !ok:
		d.invalid(e, "the attribute "+local+" is "+quote(v)+", not a name (xsd:ID)", wantNCName)
	case d.ids[s]:
		d.invalid(e, "the attribute "+local+" repeats the identifier "+quote(s), "expected one that no other element has")
	case d.ids == nil:
		d.ids = map[string]bool{s: true}
	default:
		d.ids[s] = true
	}
	return s
}

// refer notes that a file system's name is used.
func (d *decoder) refer(e *etree.Element, name string) {
	if name != "" && d.lax == 0 {
		d.refs = append(d.refs, mention{e, name})
	}
}

// claimCredential takes the credential of a staged file (GFD.135): it belongs to
// the staging, which is refused as a whole, so it is not reported on its own.
func claimCredential(d *decoder, s *DataStaging, e *etree.Element, n xmldoc.Name) bool {
	if n.Local != "Credential" || !slices.Contains(credentialSpaces, n.Space) {
		return false
	}
	d.checkLax(e, n)
	d.keep(e, &s.Foreign)
	return true
}

// credentialSpaces are the namespaces in which clients write a Credential: the
// right one and three mistakes of long standing.
var credentialSpaces = []string{
	nsCredential,
	"http://schemas.ogf.org/hpcp/2007/01/fs",
	"http://schemas.ogf.org/hpcp/2007/01/ac",
	"http://schemas.org.org/hpcp/2007/11/ac",
}
