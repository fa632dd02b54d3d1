package jsdl

import (
	"math/big"
	"strconv"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// The types of jsdl-posix.xsd (GFD.56 §8) and jsdl-hpcpa.xsd (GFD.111) as tables.

const (
	// nsHPCPAMisspelt is how some clients write NSHPCPA, with ogf for ggf.
	nsHPCPAMisspelt = "http://schemas.ogf.org/jsdl/2006/07/jsdl-hpcpa"
	// nsHPCPADraft is the namespace of drafts of GFD.111.
	nsHPCPADraft = "http://schemas.ggf.org/jsdl/2006/07/jsdl-hpcp"
)

// fileName reads a text that names a file: white space around it is layout in
// real documents, never part of the name.
func fileName[T any](c *content[Text], at func(*T) **Text) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		x := *at(t)
		if x == nil {
			x = new(Text)
			*at(t) = x
		}
		read(d, e, x, c)
		x.Value = trim(x.Value)
	}
}

// fileString is fileName for an application without file systems.
func fileString[T any](c *content[string], at func(*T) **string) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		s := new(string)
		read(d, e, s, c)
		*s = trim(*s)
		*at(t) = s
	}
}

func textExtra(t *Text) *[]Attribute                    { return &t.Attributes }
func variableExtra(v *EnvironmentVariable) *[]Attribute { return &v.Attributes }

func setText(_ *decoder, t *Text, _ *etree.Element, s string)     { t.Value = s }
func setArgument(_ *decoder, t *Text, _ *etree.Element, s string) { t.Value = normalize(s) }
func setString(_ *decoder, t *string, _ *etree.Element, s string) { *t = s }

// below is the attribute filesystemName.
var below = attribute[Text]{local: "filesystemName", read: func(d *decoder, t *Text, e *etree.Element, v string) {
	ncNameAttribute("filesystemName", func(t *Text) *string { return &t.FileSystem })(d, t, e, v)
	d.refer(e, t.FileSystem)
}}

var (
	posixFileType     = content[Text]{space: NSPOSIX, anyAttr: true, extra: textExtra, attrs: []attribute[Text]{below}, text: setText}
	posixArgumentType = content[Text]{space: NSPOSIX, anyAttr: true, extra: textExtra, attrs: []attribute[Text]{below}, text: setArgument}
	posixStringType   = content[string]{space: NSPOSIX, anyAttr: true, text: setString}
)

var posixEnvironmentType = content[EnvironmentVariable]{
	space: NSPOSIX, anyAttr: true, extra: variableExtra,
	attrs: []attribute[EnvironmentVariable]{
		{"name", true, ncNameAttribute("name", func(v *EnvironmentVariable) *string { return &v.Name }), ""},
		{"filesystemName", false, func(d *decoder, v *EnvironmentVariable, e *etree.Element, s string) {
			below.read(d, &v.Text, e, s)
		}, ""},
	},
	text: func(_ *decoder, v *EnvironmentVariable, _ *etree.Element, s string) { v.Value = s },
}

// limit reads xsd:nonNegativeInteger.
func limit[T any](c *content[*big.Int], at func(*T) **big.Int) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) { read(d, e, at(t), c) }
}

var posixLimitType = content[*big.Int]{
	space: NSPOSIX, anyAttr: true,
	text: func(d *decoder, v **big.Int, e *etree.Element, s string) {
		n, ok, cut := parseInteger(s)
		if !ok || n.Sign() < 0 {
			d.invalid(e, quote(trim(s))+" is not a limit", "expected a whole number, 0 or more")
			return
		}
		if cut {
			d.rule(e, Warning, "the number has more than "+strconv.Itoa(maxDigits)+" digits and is no limit in effect", "leave the limit out")
		}
		*v = n
	},
}

var posixApplicationType = content[POSIXApplication]{
	space: NSPOSIX, anyAttr: true,
	foreign: func(p *POSIXApplication) *Foreign { return &p.Foreign },
	leaves:  func(p *POSIXApplication) *[]LeafAttribute { return &p.Leaves },
	attrs:   []attribute[POSIXApplication]{{"name", false, ncNameAttribute("name", func(p *POSIXApplication) *string { return &p.Name }), ""}},
	after: func(d *decoder, p *POSIXApplication, e *etree.Element) {
		d.checkEnvironment(e, NSPOSIX, p.Environment)
	},
	parts: []part[POSIXApplication]{
		el(NSPOSIX, "Executable", optional, executable(fileName(&posixFileType, func(p *POSIXApplication) **Text { return &p.Executable }),
			func(p *POSIXApplication) bool { return p.Executable.Value != "" || p.Executable.FileSystem != "" })),
		el(NSPOSIX, "Argument", repeated, children(&posixArgumentType, func(p *POSIXApplication) *[]Text { return &p.Arguments })),
		el(NSPOSIX, "Input", optional, fileName(&posixFileType, func(p *POSIXApplication) **Text { return &p.Input })),
		el(NSPOSIX, "Output", optional, fileName(&posixFileType, func(p *POSIXApplication) **Text { return &p.Output })),
		el(NSPOSIX, "Error", optional, fileName(&posixFileType, func(p *POSIXApplication) **Text { return &p.Error })),
		el(NSPOSIX, "WorkingDirectory", optional, fileName(&posixFileType, func(p *POSIXApplication) **Text { return &p.WorkingDirectory })),
		el(NSPOSIX, "Environment", repeated, children(&posixEnvironmentType, func(p *POSIXApplication) *[]EnvironmentVariable { return &p.Environment })),
		el(NSPOSIX, "WallTimeLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.WallTime })),
		el(NSPOSIX, "FileSizeLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.FileSize })),
		el(NSPOSIX, "CoreDumpLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.CoreDump })),
		el(NSPOSIX, "DataSegmentLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.DataSegment })),
		el(NSPOSIX, "LockedMemoryLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.LockedMemory })),
		el(NSPOSIX, "MemoryLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.Memory })),
		el(NSPOSIX, "OpenDescriptorsLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.OpenDescriptors })),
		el(NSPOSIX, "PipeSizeLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.PipeSize })),
		el(NSPOSIX, "StackSizeLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.StackSize })),
		el(NSPOSIX, "CPUTimeLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.CPUTime })),
		el(NSPOSIX, "ProcessCountLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.ProcessCount })),
		el(NSPOSIX, "VirtualMemoryLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.VirtualMemory })),
		el(NSPOSIX, "ThreadCountLimit", optional, limit(&posixLimitType, func(p *POSIXApplication) **big.Int { return &p.Limits.ThreadCount })),
		el(NSPOSIX, "UserName", optional, posixString(func(p *POSIXApplication) **string { return &p.UserName })),
		el(NSPOSIX, "GroupName", optional, posixString(func(p *POSIXApplication) **string { return &p.GroupName })),
	},
}

func posixString[T any](at func(*T) **string) func(*decoder, *T, *etree.Element) {
	return child(&posixStringType, at)
}

var (
	hpcApplicationType         = hpcApplication(NSHPCPA)
	hpcApplicationTypeMisspelt = hpcApplication(nsHPCPAMisspelt)
)

// hpcApplication makes the table of GFD.111 for a namespace.
func hpcApplication(space string) *content[HPCProfileApplication] {
	text := &content[string]{space: space, anyAttr: true, text: setString}
	environment := &content[EnvironmentVariable]{
		space: space, anyAttr: true, extra: variableExtra,
		attrs: []attribute[EnvironmentVariable]{
			{"name", true, ncNameAttribute("name", func(v *EnvironmentVariable) *string { return &v.Name }), ""},
		},
		text: func(_ *decoder, v *EnvironmentVariable, _ *etree.Element, s string) { v.Value = s },
	}
	return &content[HPCProfileApplication]{
		space: space, anyAttr: true,
		foreign: func(h *HPCProfileApplication) *Foreign { return &h.Foreign },
		leaves:  func(h *HPCProfileApplication) *[]LeafAttribute { return &h.Leaves },
		attrs:   []attribute[HPCProfileApplication]{{"name", false, ncNameAttribute("name", func(h *HPCProfileApplication) *string { return &h.Name }), ""}},
		after: func(d *decoder, h *HPCProfileApplication, e *etree.Element) {
			d.checkEnvironment(e, space, h.Environment)
		},
		parts: []part[HPCProfileApplication]{
			el(space, "Executable", optional, executable(fileString(text, func(h *HPCProfileApplication) **string { return &h.Executable }),
				func(h *HPCProfileApplication) bool { return *h.Executable != "" })),
			el(space, "Argument", repeated, children(text, func(h *HPCProfileApplication) *[]string { return &h.Arguments })),
			el(space, "Input", optional, fileString(text, func(h *HPCProfileApplication) **string { return &h.Input })),
			el(space, "Output", optional, fileString(text, func(h *HPCProfileApplication) **string { return &h.Output })),
			el(space, "Error", optional, fileString(text, func(h *HPCProfileApplication) **string { return &h.Error })),
			el(space, "WorkingDirectory", optional, fileString(text, func(h *HPCProfileApplication) **string { return &h.WorkingDirectory })),
			el(space, "Environment", repeated, children(environment, func(h *HPCProfileApplication) *[]EnvironmentVariable { return &h.Environment })),
			el(space, "UserName", optional, child(text, func(h *HPCProfileApplication) **string { return &h.UserName })),
		},
	}
}

// claimApplication reads the application elements that can be run here. A second
// one of a kind stays foreign.
func claimApplication(d *decoder, a *Application, e *etree.Element, n xmldoc.Name) bool {
	switch n {
	case xmldoc.Name{Space: NSPOSIX, Local: "POSIXApplication"}:
		if a.POSIX == nil {
			a.POSIX = new(POSIXApplication)
			read(d, e, a.POSIX, &posixApplicationType)
			return true
		}
	case xmldoc.Name{Space: NSHPCPA, Local: "HPCProfileApplication"}:
		if a.HPC == nil {
			a.HPC = new(HPCProfileApplication)
			read(d, e, a.HPC, hpcApplicationType)
			return true
		}
	case xmldoc.Name{Space: NSSPMD, Local: "SPMDApplication"}:
		if a.SPMD == nil {
			a.SPMD = new(SPMDApplication)
			read(d, e, a.SPMD, &spmdApplicationType)
			return true
		}
	case xmldoc.Name{Space: nsHPCPAMisspelt, Local: "HPCProfileApplication"}:
		if a.HPC == nil {
			d.rule(e, Warning, "the namespace "+n.Space+" is taken for "+NSHPCPA, "write schemas.ggf.org")
			a.HPC = new(HPCProfileApplication)
			read(d, e, a.HPC, hpcApplicationTypeMisspelt)
			return true
		}
	}
	return false
}
