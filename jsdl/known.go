package jsdl

import (
	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// The extensions that are checked against their schemas though they are not read:
// parameter sweep (GFD.149), file sweep, and the credential of the file staging
// profile (GFD.135).

const (
	nsSweepFunction = "http://schemas.ogf.org/jsdl/2009/03/sweep/functions"
	nsFileSweep     = "http://schemas.ogf.org/jsdl/2009/03/file-sweep"
	nsCredential    = "http://schemas.ogf.org/hpcp/2007/11/ac"
)

// checked is read by tables that only check.
type checked struct{}

// globals are the global elements of the schemas: what a lax wildcard checks.
var globals map[xmldoc.Name]func(*decoder, *etree.Element)

// register makes every element that the sequence refers to global. Sequences with
// local elements are left out.
func register[T any](c *content[T]) {
	for i := range c.parts {
		p := &c.parts[i]
		if p.mistaken != "" {
			continue
		}
		globals[xmldoc.Name{Space: p.space, Local: p.local}] = func(d *decoder, e *etree.Element) {
			var t T
			p.read(d, &t, e)
		}
	}
}

// root makes one element of the type global.
func root[T any](local string, c *content[T]) {
	globals[xmldoc.Name{Space: c.space, Local: local}] = func(d *decoder, e *etree.Element) {
		var t T
		read(d, e, &t, c)
	}
}

// abstract makes an element global that may not stand itself.
func abstract(local string, members string) {
	globals[xmldoc.Name{Space: NSSweep, Local: local}] = func(d *decoder, e *etree.Element) {
		d.invalid(e, local+" is abstract", "expected "+members)
	}
}

// The map and the recursive tables are filled here: the tables' functions use the
// map, which Go does not allow in its initial value.
func init() {
	globals = make(map[xmldoc.Name]func(*decoder, *etree.Element), 128)
	sweepType.parts = []part[checked]{
		el(NSSweep, "Assignment", several, check[checked](&assignmentType)),
		el(NSSweep, "Sweep", repeated, check[checked](&sweepType)),
	}
	root("JobDefinition", &jobDefinitionType)
	register(&jobDefinitionType)
	register(&jobDescriptionType)
	register(&jobIdentificationType)
	register(&applicationType)
	register(&resourcesType)
	register(&candidateHostsType)
	register(&fileSystemType)
	register(&operatingSystemType)
	register(&operatingSystemTypeType)
	register(&cpuArchitectureType)
	register(&dataStagingType)
	register(&locationType)
	root("POSIXApplication", &posixApplicationType)
	register(&posixApplicationType)
	root("HPCProfileApplication", hpcApplicationType)
	register(hpcApplicationType)
	root("SPMDApplication", &spmdApplicationType)
	register(&spmdApplicationType)
	root("Placement", &placementType)
	root("Criteria", &criteriaType)
	root("Sweep", &sweepType)
	register(&sweepType)
	root("DocumentNode", &documentNodeType)
	root("NamespaceBinding", &namespaceBindingType)
	abstract("Parameter", "DocumentNode or FileSweep")
	abstract("Function", "Values, LoopInteger or LoopDouble")
	root("Values", &valuesType)
	root("LoopInteger", &loopIntegerType)
	root("LoopDouble", &loopDoubleType)
	root("FileSweep", &fileSweepType)
	root("Credential", &credentialType)
}

func check[T, U any](c *content[U]) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, _ *T, e *etree.Element) {
		var u U
		read(d, e, &u, c)
	}
}

// checkText checks an element of a simple type.
func checkText[T any](ok func(string) bool, want string) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, _ *T, e *etree.Element) {
		if s, is := d.leaf(e); is && !ok(s) {
			d.invalid(e, quote(trim(s))+" is not right here", want)
		}
	}
}

func checkAttribute[T any](ok func(string) bool, want string) func(*decoder, *T, *etree.Element, string) {
	return func(d *decoder, _ *T, e *etree.Element, v string) {
		if !ok(v) {
			d.invalid(e, "the attribute value "+quote(v)+" is not right here", want)
		}
	}
}

func anyText(string) bool { return true }

func isInteger(s string) bool { _, ok, _ := parseInteger(s); return ok }
func isDouble(s string) bool  { _, ok := parseDouble(s); return ok }
func isNCName(s string) bool  { _, ok := parseNCName(s); return ok }
func isURI(s string) bool     { _, ok := parseURI(s); return ok }

const (
	wantInteger = "expected a whole number"
	wantDouble  = "expected a number"
	wantURI     = "expected a URI of RFC 3986"
)

var credentialType = content[checked]{
	space: nsCredential,
	attrs: []attribute[checked]{{"Id", false, func(d *decoder, _ *checked, e *etree.Element, v string) { d.id(e, "Id", v) }, ""}},
	parts: []part[checked]{
		stranger(nsCredential, once),
		el(nsCredential, "SupplementalTokens", optional, check[checked](&supplementalTokensType)),
	},
}

var supplementalTokensType = content[checked]{
	space: nsCredential,
	parts: []part[checked]{stranger(nsCredential, several)},
}

// stranger is a wildcard "##other, lax" as a part of its own.
func stranger(space string, o occurs) part[checked] {
	p := el(space, "an element of another namespace", o, func(d *decoder, _ *checked, e *etree.Element) { d.checkLax(e, d.name(e)) })
	p.other = true
	return p
}

var sweepType = content[checked]{space: NSSweep, any: true, anyAttr: true}

// The heads of the substitution groups are abstract: their members stand for them.
var assignmentType = content[checked]{
	space: NSSweep,
	parts: []part[checked]{
		head("Parameter", several, xmldoc.Name{Space: NSSweep, Local: "DocumentNode"}, xmldoc.Name{Space: nsFileSweep, Local: "FileSweep"}),
		head("Function", once, xmldoc.Name{Space: nsSweepFunction, Local: "Values"},
			xmldoc.Name{Space: nsSweepFunction, Local: "LoopInteger"}, xmldoc.Name{Space: nsSweepFunction, Local: "LoopDouble"}),
	},
}

func head(local string, o occurs, members ...xmldoc.Name) part[checked] {
	p := el(NSSweep, local, o, func(d *decoder, _ *checked, e *etree.Element) { d.checkLax(e, d.name(e)) })
	p.group = members
	return p
}

var documentNodeType = content[checked]{
	space: NSSweep,
	parts: []part[checked]{
		el(NSSweep, "NamespaceBinding", several, check[checked](&namespaceBindingType)),
		el(NSSweep, "Match", once, checkText[checked](anyText, "")),
	},
}

var namespaceBindingType = content[checked]{
	space: NSSweep,
	attrs: []attribute[checked]{
		{"ns", true, checkAttribute[checked](isURI, wantURI), ""},
		{"prefix", true, checkAttribute[checked](isNCName, wantNCName), ""},
	},
}

var valuesType = content[checked]{
	space: nsSweepFunction, anyAttr: true,
	parts: []part[checked]{el(nsSweepFunction, "Value", several, func(d *decoder, _ *checked, e *etree.Element) {
		for i := range e.Attr { // xsd:anyType, but not nillable
			if a := &e.Attr[i]; a.Key == "nil" && attributeSpace(e, a) == nsXSI {
				d.instanceAttribute(e, a, false)
			}
		}
		for _, child := range e.ChildElements() {
			d.checkLax(child, d.name(child))
		}
	})},
}

var loopIntegerType = content[checked]{
	space: nsSweepFunction, anyAttr: true,
	attrs: []attribute[checked]{
		{"start", true, checkAttribute[checked](isInteger, wantInteger), ""},
		{"end", true, checkAttribute[checked](isInteger, wantInteger), ""},
		{"step", false, checkAttribute[checked](isInteger, wantInteger), ""},
	},
	parts: []part[checked]{el(nsSweepFunction, "Exception", repeated, checkText[checked](isInteger, wantInteger))},
}

var loopDoubleType = content[checked]{
	space: nsSweepFunction, anyAttr: true,
	attrs: []attribute[checked]{
		{"start", true, checkAttribute[checked](isDouble, wantDouble), ""},
		{"end", true, checkAttribute[checked](isDouble, wantDouble), ""},
		{"step", true, checkAttribute[checked](isDouble, wantDouble), ""},
	},
	parts: []part[checked]{el(nsSweepFunction, "Exception", repeated, checkText[checked](isDouble, wantDouble))},
}

var fileSweepType = content[checked]{
	space: nsFileSweep,
	parts: []part[checked]{
		el(nsFileSweep, "TemplateFile", several, check[checked](&templateFileType)),
		el(nsFileSweep, "FileToken", several, check[checked](&fileTokenType)),
	},
}

var templateFileType = content[checked]{
	space: nsFileSweep,
	parts: []part[checked]{
		el(NS, "FileName", once, checkText[checked](anyText, "")),
		el(NS, "FilesystemName", optional, checkText[checked](isNCName, wantNCName)),
	},
}

var fileTokenType = content[checked]{
	space: nsFileSweep,
	attrs: []attribute[checked]{
		{"value", true, checkAttribute[checked](anyText, ""), ""},
		{"assignDefault", false, checkAttribute[checked](anyText, ""), ""},
	},
}
