package jsdl

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// The types of jsdl-spmd.xsd (GFD.115) as tables, and what its prose says.

// variationSpace is where the variations of GFD.115 are named. Its host is www, unlike
// that of the namespace.
const variationSpace = "http://www.ogf.org/jsdl/2007/02/jsdl-spmd/"

// The variations of GFD.115: which launcher and library start the processes.
const (
	VariationMPI      = variationSpace + "MPI" // any MPI
	VariationGridMPI  = variationSpace + "GridMPI"
	VariationIntelMPI = variationSpace + "IntelMPI"
	VariationLAMMPI   = variationSpace + "LAM-MPI"
	VariationMPICH1   = variationSpace + "MPICH1"
	VariationMPICH2   = variationSpace + "MPICH2"
	VariationMPICHGM  = variationSpace + "MPICH-GM"
	VariationMPICHMX  = variationSpace + "MPICH-MX"
	VariationMVAPICH  = variationSpace + "MVAPICH"
	VariationMVAPICH2 = variationSpace + "MVAPICH2"
	VariationOpenMPI  = variationSpace + "OpenMPI"
	VariationPOE      = variationSpace + "POE"
	VariationPVM      = variationSpace + "PVM"
)

var variations = []string{
	VariationMPI, VariationGridMPI, VariationIntelMPI, VariationLAMMPI, VariationMPICH1, VariationMPICH2, VariationMPICHGM,
	VariationMPICHMX, VariationMVAPICH, VariationMVAPICH2, VariationOpenMPI, VariationPOE, VariationPVM,
}

// Variations lists the URIs of the variations that GFD.115 names.
func Variations() []string { return slices.Clone(variations) }

// VariationName gives the last word of a variation's URI: "OpenMPI".
func VariationName(uri string) string { return uri[strings.LastIndexByte(uri, '/')+1:] }

// maxProcesses bounds the numbers of processes, threads and hosts of one job.
const maxProcesses = math.MaxInt32

// spmdApplicationType: the first eight elements are in the posix namespace.
var spmdApplicationType = content[SPMDApplication]{
	space: NSSPMD, any: true, anyAttr: true,
	foreign: func(s *SPMDApplication) *Foreign { return &s.Foreign },
	leaves:  func(s *SPMDApplication) *[]LeafAttribute { return &s.Leaves },
	attrs:   []attribute[SPMDApplication]{{"name", false, ncNameAttribute("name", func(s *SPMDApplication) *string { return &s.Name }), ""}},
	after: func(d *decoder, s *SPMDApplication, e *etree.Element) {
		d.checkEnvironment(e, NSPOSIX, s.Environment)
		if d.lax == 0 {
			d.spmd = e
		}
	},
	parts: []part[SPMDApplication]{
		el(NSPOSIX, "Executable", optional, executable(fileName(&posixFileType, func(s *SPMDApplication) **Text { return &s.Executable }),
			func(s *SPMDApplication) bool { return s.Executable.Value != "" || s.Executable.FileSystem != "" })),
		el(NSPOSIX, "Argument", repeated, children(&posixArgumentType, func(s *SPMDApplication) *[]Text { return &s.Arguments })),
		el(NSPOSIX, "Input", optional, fileName(&posixFileType, func(s *SPMDApplication) **Text { return &s.Input })),
		el(NSPOSIX, "Output", optional, fileName(&posixFileType, func(s *SPMDApplication) **Text { return &s.Output })),
		el(NSPOSIX, "Error", optional, fileName(&posixFileType, func(s *SPMDApplication) **Text { return &s.Error })),
		el(NSPOSIX, "WorkingDirectory", optional, fileName(&posixFileType, func(s *SPMDApplication) **Text { return &s.WorkingDirectory })),
		el(NSPOSIX, "Environment", repeated, children(&posixEnvironmentType, func(s *SPMDApplication) *[]EnvironmentVariable { return &s.Environment })),
		el(NSPOSIX, "UserName", optional, posixString(func(s *SPMDApplication) **string { return &s.UserName })),
		el(NSSPMD, "NumberOfProcesses", optional, child(&numberOfProcessesType, func(s *SPMDApplication) **ProcessCount { return &s.NumberOfProcesses })),
		el(NSSPMD, "ProcessesPerHost", optional, limit(&processesPerHostType, func(s *SPMDApplication) **big.Int { return &s.ProcessesPerHost })),
		el(NSSPMD, "ThreadsPerProcess", optional, child(&threadsPerProcessType, func(s *SPMDApplication) **ProcessCount { return &s.ThreadsPerProcess })),
		el(NSSPMD, "SPMDVariation", once, readVariation),
	},
}

var (
	numberOfProcessesType = processCount("actualtotalcpucount", "actualTotalCPUCount")
	threadsPerProcessType = processCount("actualindividualcpucount", "actualIndividualCPUCount")
)

var processesPerHostType = content[*big.Int]{
	space: NSSPMD, anyAttr: true,
	text: func(d *decoder, v **big.Int, e *etree.Element, s string) { *v = d.positive(e, s) },
}

// processCount makes the type of a number that may be nil, with the attribute that
// then says what is meant. The camel-case spelling is that of clients which write
// the element empty, too, instead of nil.
func processCount(actual, camel string) content[ProcessCount] {
	read := func(d *decoder, c *ProcessCount, e *etree.Element, v string) {
		var ok bool
		if c.Actual, ok = parseBoolean(v); !ok {
			d.invalid(e, "the attribute "+actual+" is "+quote(v), "expected true, false, 1 or 0")
		}
	}
	return content[ProcessCount]{
		space: NSSPMD, anyAttr: true, nillable: true,
		attrs: []attribute[ProcessCount]{
			{actual, false, read, ""},
			{camel, false, read, "write " + actual + ", in small letters"},
		},
		text: func(d *decoder, c *ProcessCount, e *etree.Element, s string) {
			if blank(s) && d.opts.Lenient {
				d.rule(e, Warning, "is empty and is taken for nil", `write xsi:nil="true"`)
				return
			}
			c.Value = d.positive(e, s)
		},
		after: func(d *decoder, c *ProcessCount, e *etree.Element) {
			switch {
			case c.Value == nil || !c.Actual:
			case d.opts.Lenient:
				d.rule(e, Warning, "holds a number though "+actual+" is true; the attribute holds", `write xsi:nil="true" and no number`)
				c.Value = nil
			default:
				d.rule(e, Invalid, "holds the number "+quote(c.Value.String())+" though "+actual+" is true",
					`write xsi:nil="true" and no number, or leave the attribute out`)
			}
		},
	}
}

// positive reads xsd:positiveInteger.
func (d *decoder) positive(e *etree.Element, s string) *big.Int {
	n, ok, _ := parseInteger(s)
	if !ok || n.Sign() <= 0 {
		d.invalid(e, quote(trim(s))+" is not a number of processes or threads", "expected a whole number, 1 or more")
		return nil
	}
	if n.Cmp(big.NewInt(maxProcesses)) > 0 {
		d.rule(e, Unsupported, quote(trim(s))+" is more than any site starts", "expected at most "+strconv.Itoa(maxProcesses))
	}
	return n
}

// readVariation reads the variation. One that nobody here knows is refused: another
// launcher would be another program.
func readVariation(d *decoder, t *SPMDApplication, e *etree.Element) {
	s, ok := d.leaf(e)
	if !ok {
		return
	}
	if s, ok = parseURI(s); !ok {
		d.invalid(e, quote(s)+" is not a URI", "expected a URI of RFC 3986, such as "+VariationMPI)
		return
	}
	t.Variation = s
	if !slices.Contains(variations, s) {
		d.rule(e, Unsupported, "the variation "+quote(s)+" is not known here", wantVariation(s))
	}
}

func wantVariation(s string) string {
	names := make([]string, len(variations))
	for i, v := range variations {
		names[i] = VariationName(v)
		if strings.EqualFold(names[i], VariationName(s)) {
			return "did you mean " + v + "?"
		}
	}
	return "expected " + variationSpace + " followed by one of " + strings.Join(names, ", ")
}

// checkSPMD holds the numbers of an SPMD application against the resources: every
// process wants a CPU, unless the job has its hosts for itself and may crowd them.
func (d *decoder) checkSPMD(s *SPMDApplication, r *Resources) {
	at := func(local string) *etree.Element {
		if e := xmldoc.Child(d.spmd, NSSPMD, local); e != nil {
			return e
		}
		return d.spmd
	}
	processes, fixed := s.NumberOfProcesses.number()
	perHost := int64(0)
	if s.ProcessesPerHost != nil {
		perHost = saturated(s.ProcessesPerHost)
	}
	threads := int64(1)
	if n, ok := s.ThreadsPerProcess.number(); ok {
		threads = n
	}
	total, hosts, each := most(r.TotalCPUCount), most(r.TotalResourceCount), most(r.IndividualCPUCount)
	exclusive := r.ExclusiveExecution != nil && *r.ExclusiveExecution
	const share = "ask for more CPUs or fewer processes, or set ExclusiveExecution, with which processes may share CPUs"
	if fixed {
		whole, of := total, "TotalCPUCount allows"
		if r.TotalCPUCount == nil && hosts < maxProcesses && each < maxProcesses {
			whole, of = hosts*each, "TotalResourceCount and IndividualCPUCount allow"
		}
		switch {
		case processes > whole && !exclusive:
			d.rule(at("NumberOfProcesses"), Unsupported, number64(float64(processes))+" processes are more than the CPUs that "+of+", "+number64(float64(whole)), share)
		case processes > whole/threads && !exclusive && threads > 1 && whole < maxProcesses:
			d.rule(at("ThreadsPerProcess"), Warning, "the threads of all processes are more than the CPUs that "+of, "they will share CPUs where the site permits it")
		}
		if perHost > 0 && hosts < maxProcesses && perHost <= maxProcesses && perHost*hosts < processes {
			d.rule(at("ProcessesPerHost"), Invalid, number64(float64(processes))+" processes, "+number64(float64(perHost))+
				" on each host, do not fit on the hosts that TotalResourceCount allows, "+number64(float64(hosts)), "ask for more hosts or for more processes on each")
		}
	}
	if perHost > each && !exclusive {
		d.rule(at("ProcessesPerHost"), Unsupported, number64(float64(perHost))+" processes are more than the CPUs of a host that IndividualCPUCount allows, "+
			number64(float64(each)), share)
	}
}

// number gives the count where it is a number.
func (c *ProcessCount) number() (int64, bool) {
	if c == nil || c.Value == nil || c.Actual {
		return 0, false
	}
	return saturated(c.Value), true
}

// saturated gives the number, or one above every bound.
func saturated(n *big.Int) int64 {
	if !n.IsInt64() {
		return math.MaxInt64
	}
	return n.Int64()
}

// most gives the largest count that a range allows, at most maxProcesses; without a
// range, or with one that allows nothing, which was told elsewhere, there is no bound.
func most(r *RangeValue) int64 {
	if r == nil {
		return maxProcesses
	}
	n, ok := r.HighestInteger()
	if !ok || n < 1 {
		return maxProcesses
	}
	return min(n, maxProcesses)
}

// program gives what the application runs.
func (s *SPMDApplication) program() Program {
	out := Program{
		Arguments: s.Arguments, Input: s.Input, Output: s.Output, Error: s.Error, WorkingDirectory: s.WorkingDirectory,
		Environment: lastOfEach(s.Environment), UserName: s.UserName,
		SPMD: &SPMD{Variation: s.Variation},
	}
	if s.Executable != nil {
		out.Executable = *s.Executable
	}
	count := func(n int64) int { return int(min(n, maxProcesses)) }
	if n, ok := s.NumberOfProcesses.number(); ok {
		out.SPMD.Processes = count(n)
	} else if s.NumberOfProcesses != nil {
		out.SPMD.ProcessesActual = s.NumberOfProcesses.Actual
	}
	if s.ProcessesPerHost != nil {
		out.SPMD.ProcessesPerHost = count(saturated(s.ProcessesPerHost))
	}
	if n, ok := s.ThreadsPerProcess.number(); ok {
		out.SPMD.Threads = count(n)
	} else if s.ThreadsPerProcess != nil {
		out.SPMD.ThreadsActual = s.ThreadsPerProcess.Actual
	}
	return out
}

func (s *SPMDApplication) write(e *etree.Element) {
	attr(e, "name", s.Name)
	path(e, "posix:Executable", s.Executable)
	for i := range s.Arguments {
		path(e, "posix:Argument", &s.Arguments[i])
	}
	path(e, "posix:Input", s.Input)
	path(e, "posix:Output", s.Output)
	path(e, "posix:Error", s.Error)
	path(e, "posix:WorkingDirectory", s.WorkingDirectory)
	writeEnvironment(e, s.Environment)
	optionalText(e, "posix:UserName", s.UserName)
	s.NumberOfProcesses.write(e, "spmd:NumberOfProcesses", "actualtotalcpucount")
	if s.ProcessesPerHost != nil {
		textElement(e, "spmd:ProcessesPerHost", s.ProcessesPerHost.String())
	}
	s.ThreadsPerProcess.write(e, "spmd:ThreadsPerProcess", "actualindividualcpucount")
	textElement(e, "spmd:SPMDVariation", s.Variation)
	writeLeaves(e, s.Leaves)
	s.Foreign.write(e)
}

// write writes the count as an element of that name; a nil count is absent.
func (c *ProcessCount) write(parent *etree.Element, tag, actual string) {
	if c == nil {
		return
	}
	e := parent.CreateElement(tag)
	if c.Actual {
		e.CreateAttr(actual, "true")
	}
	if c.Value == nil {
		e.CreateAttr("xsi:nil", "true")
		return
	}
	setContent(e, c.Value.String())
}

// null reports whether an element of the application is nil and needs xsi.
func (s *SPMDApplication) null() bool {
	for _, c := range []*ProcessCount{s.NumberOfProcesses, s.ThreadsPerProcess} {
		if c != nil && c.Value == nil {
			return true
		}
	}
	return false
}
