package jsdl

import (
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// What the schemas cannot express: rules of the specification's prose, and what
// this gateway does not do. A contradiction in the document is Invalid, since no
// service could obey it (GFD.108: InvalidRequestMessage); what another service
// could do is Unsupported.

// wellKnown are the file systems that may be used without being declared.
var wellKnown = []string{"HOME", "ROOT", "TMP", "SCRATCH"}

// WellKnownFileSystem reports whether name is one of the file systems that a job
// may use without declaring it: HOME, ROOT, TMP and SCRATCH.
func WellKnownFileSystem(name string) bool { return slices.Contains(wellKnown, name) }

// rules checks what concerns several elements.
func (d *decoder) rules(j *JobDefinition) {
	r := j.Description.Resources
	var declared map[string]bool
	if r != nil && len(r.FileSystems) > 0 {
		declared = make(map[string]bool, len(r.FileSystems))
		var at []*etree.Element
		for i := range r.FileSystems {
			name := r.FileSystems[i].Name
			if name != "" && declared[name] {
				if at == nil {
					at = d.fileSystemElements()
				}
				e := d.resources
				if i < len(at) {
					e = at[i]
				}
				d.rule(e, Invalid, "the file system "+quote(name)+" is declared twice", "give each FileSystem a name of its own")
			}
			declared[name] = true
		}
	}
	if r != nil {
		d.checkCounts(r)
		if a := j.Description.Application; a != nil && a.SPMD != nil {
			d.checkSPMD(a.SPMD, r)
		}
	}
	for _, ref := range d.refs {
		if !declared[ref.name] && !WellKnownFileSystem(ref.name) {
			d.rule(ref.at, Invalid, "the file system "+quote(ref.name)+" is not declared",
				"declare it in Resources, or use one of "+strings.Join(wellKnown, ", "))
		}
	}
}

// fileSystemElements gives the FileSystem elements in the order in which they were read.
func (d *decoder) fileSystemElements() []*etree.Element {
	var out []*etree.Element
	for _, c := range d.resources.ChildElements() {
		if d.name(c) == (xmldoc.Name{Space: NS, Local: "FileSystem"}) {
			out = append(out, c)
		}
	}
	return out
}

// checkCounts holds the three counts against each other where each asks for one
// number: TotalCPUCount is TotalResourceCount times IndividualCPUCount.
func (d *decoder) checkCounts(r *Resources) {
	if r.TotalCPUCount == nil || r.TotalResourceCount == nil || r.IndividualCPUCount == nil {
		return
	}
	total, ok1 := r.TotalCPUCount.Single()
	nodes, ok2 := r.TotalResourceCount.Single()
	each, ok3 := r.IndividualCPUCount.Single()
	if ok1 && ok2 && ok3 && total != nodes*each {
		e := xmldoc.Child(d.resources, NS, "TotalCPUCount")
		if e == nil {
			e = d.resources
		}
		d.rule(e, Invalid, "TotalCPUCount "+number64(total)+" contradicts TotalResourceCount "+number64(nodes)+
			" times IndividualCPUCount "+number64(each), "expected "+number64(nodes*each)+", or leave one of the three out")
	}
}

func number64(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// checkApplication decides what an Application asks for once all of it is read.
func checkApplication(d *decoder, a *Application, e *etree.Element) {
	if d.lax > 0 {
		return
	}
	switch second := laterApplication(d, e); {
	case a.SPMD != nil && (a.POSIX != nil || a.HPC != nil):
		d.rule(second, Unsupported, "the job has two applications, and only one program can be run",
			"leave all but one of POSIXApplication, HPCProfileApplication and SPMDApplication out")
	case a.POSIX != nil && a.HPC != nil:
		if why := differ(a.POSIX, a.HPC); !d.opts.Lenient || why != "" {
			what := "the job has two applications, and only one program can be run"
			if why != "" && d.opts.Lenient {
				what += ": they differ in " + why
			}
			d.rule(second, Unsupported, what, "leave one of POSIXApplication and HPCProfileApplication out")
		} else {
			d.rule(second, Warning, "the job has two applications that say the same", "leave one of them out")
		}
	}
}

// laterApplication gives the last of the application elements.
func laterApplication(d *decoder, e *etree.Element) *etree.Element {
	last := e
	for _, c := range e.ChildElements() {
		switch n := d.name(c); n.Local {
		case "POSIXApplication", "HPCProfileApplication", "SPMDApplication":
			last = c
		}
	}
	return last
}

// differ names what two applications do not agree on, or "". What only the POSIX
// application can say, such as limits, is no disagreement.
func differ(p *POSIXApplication, h *HPCProfileApplication) string {
	same := func(t *Text, s *string) bool {
		if t == nil || s == nil {
			return t == nil && s == nil
		}
		return t.FileSystem == "" && t.Value == *s
	}
	switch {
	case !same(p.Executable, h.Executable):
		return "Executable"
	case len(p.Arguments) != len(h.Arguments):
		return "Argument"
	case !same(p.Input, h.Input):
		return "Input"
	case !same(p.Output, h.Output):
		return "Output"
	case !same(p.Error, h.Error):
		return "Error"
	case !same(p.WorkingDirectory, h.WorkingDirectory):
		return "WorkingDirectory"
	case len(p.Environment) != len(h.Environment):
		return "Environment"
	case (p.UserName == nil) != (h.UserName == nil), p.UserName != nil && *p.UserName != *h.UserName:
		return "UserName"
	}
	for i := range p.Arguments {
		if !same(&p.Arguments[i], &h.Arguments[i]) {
			return "Argument"
		}
	}
	for i := range p.Environment {
		if p.Environment[i].Name != h.Environment[i].Name || !same(&p.Environment[i].Text, &h.Environment[i].Value) {
			return "Environment"
		}
	}
	return ""
}

// executable wraps the reading of an Executable. One without a name is refused:
// taking it for a job that runs nothing would obey half of what is asked.
func executable[T any](read func(*decoder, *T, *etree.Element), named func(*T) bool) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		before := d.told[Invalid]
		read(d, t, e)
		if d.told[Invalid] == before && !named(t) {
			d.rule(e, Unsupported, "Executable is empty and names no program",
				"expected the name of one file; leave the element out for a job that runs nothing")
		}
	}
}

// checkEnvironment warns of a variable that is given twice: the last one holds.
func (d *decoder) checkEnvironment(e *etree.Element, space string, vars []EnvironmentVariable) {
	if len(vars) < 2 || d.lax > 0 {
		return
	}
	seen := make(map[string]bool, len(vars))
	var again []int
	for i := range vars {
		if seen[vars[i].Name] {
			again = append(again, i)
		}
		seen[vars[i].Name] = true
	}
	if again == nil {
		return
	}
	var at []*etree.Element
	for _, c := range e.ChildElements() {
		if d.name(c) == (xmldoc.Name{Space: space, Local: "Environment"}) {
			at = append(at, c)
		}
	}
	for _, i := range again {
		d.rule(at[i], Warning, "the variable "+quote(vars[i].Name)+" is given twice", "the last one holds")
	}
}

// refusal says why a foreign element cannot be obeyed.
func refusal(n xmldoc.Name) (what, want string) {
	switch n.Space {
	case NSSPMD:
		if n.Local == "SPMDApplication" {
			return "the job has more than one SPMDApplication, or has it in the wrong place", "expected one, in Application"
		}
	case NSPortolan:
		if n.Local == "Placement" || n.Local == "Criteria" {
			return "the job has more than one " + n.Local + ", or has it in the wrong place", "expected one, in Resources"
		}
	case NSSweep:
		return "parameter sweeps (" + n.String() + ") are not expanded by this gateway yet", "submit one job for each set of values"
	case NSPOSIX:
		if n.Local == "POSIXApplication" {
			return "the job has more than one POSIXApplication, or has it in the wrong place", "expected one, in Application"
		}
	case NSHPCPA, nsHPCPAMisspelt:
		if n.Local == "HPCProfileApplication" {
			return "the job has more than one HPCProfileApplication, or has it in the wrong place", "expected one, in Application"
		}
	case nsHPCPADraft:
		return "the extension " + n.String() + " is of a draft and not understood here", "use the namespace " + NSHPCPA
	}
	return "the extension " + n.String() + " is not understood here and could change what runs or where", "remove it"
}
