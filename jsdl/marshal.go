package jsdl

import (
	"math"
	"math/big"
	"strconv"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Element writes the definition with fixed prefixes: the same value gives the same
// tree. It is valid by the schema when the values are; a MountSource, which only
// lenient reading gives, is not.
func (j *JobDefinition) Element() *etree.Element {
	e := etree.NewElement("jsdl:JobDefinition")
	e.CreateAttr("xmlns:jsdl", NS)
	if a := j.Description.Application; a != nil {
		if a.POSIX != nil || a.SPMD != nil {
			e.CreateAttr("xmlns:posix", NSPOSIX)
		}
		if a.HPC != nil {
			e.CreateAttr("xmlns:hpcpa", NSHPCPA)
		}
		if a.SPMD != nil {
			e.CreateAttr("xmlns:spmd", NSSPMD)
			if a.SPMD.null() {
				e.CreateAttr("xmlns:xsi", nsXSI)
			}
		}
	}
	if r := j.Description.Resources; r != nil && (r.Placement != nil || r.Criteria != nil) {
		e.CreateAttr("xmlns:portolan", NSPortolan)
	}
	attr(e, "id", j.ID)
	j.Description.write(e.CreateElement("jsdl:JobDescription"))
	j.Foreign.write(e)
	return e
}

// Marshal writes the definition as a UTF-8 document.
func (j *JobDefinition) Marshal() []byte { return xmldoc.Marshal(j.Element()) }

func (j *JobDescription) write(e *etree.Element) {
	if j.Identification != nil {
		j.Identification.write(e.CreateElement("jsdl:JobIdentification"))
	}
	if j.Application != nil {
		j.Application.write(e.CreateElement("jsdl:Application"))
	}
	if j.Resources != nil {
		j.Resources.write(e.CreateElement("jsdl:Resources"))
	}
	for i := range j.DataStaging {
		j.DataStaging[i].write(e.CreateElement("jsdl:DataStaging"))
	}
	j.Foreign.write(e)
}

func (j *JobIdentification) write(e *etree.Element) {
	optionalText(e, "jsdl:JobName", j.JobName)
	optionalText(e, "jsdl:Description", j.Description)
	for _, s := range j.Annotations {
		textElement(e, "jsdl:JobAnnotation", s)
	}
	for _, s := range j.Projects {
		textElement(e, "jsdl:JobProject", s)
	}
	j.Foreign.write(e)
}

func (a *Application) write(e *etree.Element) {
	optionalText(e, "jsdl:ApplicationName", a.Name)
	optionalText(e, "jsdl:ApplicationVersion", a.Version)
	optionalText(e, "jsdl:Description", a.Description)
	if a.POSIX != nil {
		a.POSIX.write(e.CreateElement("posix:POSIXApplication"))
	}
	if a.HPC != nil {
		a.HPC.write(e.CreateElement("hpcpa:HPCProfileApplication"))
	}
	if a.SPMD != nil {
		a.SPMD.write(e.CreateElement("spmd:SPMDApplication"))
	}
	a.Foreign.write(e)
}

func (p *POSIXApplication) write(e *etree.Element) {
	attr(e, "name", p.Name)
	path(e, "posix:Executable", p.Executable)
	for i := range p.Arguments {
		path(e, "posix:Argument", &p.Arguments[i])
	}
	path(e, "posix:Input", p.Input)
	path(e, "posix:Output", p.Output)
	path(e, "posix:Error", p.Error)
	path(e, "posix:WorkingDirectory", p.WorkingDirectory)
	writeEnvironment(e, p.Environment)
	for _, l := range p.Limits.all() {
		if *l.value != nil {
			textElement(e, "posix:"+l.element, (*l.value).String())
		}
	}
	optionalText(e, "posix:UserName", p.UserName)
	optionalText(e, "posix:GroupName", p.GroupName)
	writeLeaves(e, p.Leaves)
	p.Foreign.write(e)
}

func writeEnvironment(e *etree.Element, vars []EnvironmentVariable) {
	for i := range vars {
		x := e.CreateElement("posix:Environment")
		x.CreateAttr("name", vars[i].Name)
		vars[i].Text.write(x)
	}
}

// namedLimit is a limit with the name of its element.
type namedLimit struct {
	element string
	value   **big.Int
}

// all gives the limits in the order of the schema.
func (l *Limits) all() []namedLimit {
	return []namedLimit{
		{"WallTimeLimit", &l.WallTime},
		{"FileSizeLimit", &l.FileSize},
		{"CoreDumpLimit", &l.CoreDump},
		{"DataSegmentLimit", &l.DataSegment},
		{"LockedMemoryLimit", &l.LockedMemory},
		{"MemoryLimit", &l.Memory},
		{"OpenDescriptorsLimit", &l.OpenDescriptors},
		{"PipeSizeLimit", &l.PipeSize},
		{"StackSizeLimit", &l.StackSize},
		{"CPUTimeLimit", &l.CPUTime},
		{"ProcessCountLimit", &l.ProcessCount},
		{"VirtualMemoryLimit", &l.VirtualMemory},
		{"ThreadCountLimit", &l.ThreadCount},
	}
}

func (h *HPCProfileApplication) write(e *etree.Element) {
	attr(e, "name", h.Name)
	optionalText(e, "hpcpa:Executable", h.Executable)
	for _, s := range h.Arguments {
		textElement(e, "hpcpa:Argument", s)
	}
	optionalText(e, "hpcpa:Input", h.Input)
	optionalText(e, "hpcpa:Output", h.Output)
	optionalText(e, "hpcpa:Error", h.Error)
	optionalText(e, "hpcpa:WorkingDirectory", h.WorkingDirectory)
	for i := range h.Environment {
		x := e.CreateElement("hpcpa:Environment")
		x.CreateAttr("name", h.Environment[i].Name)
		h.Environment[i].Text.write(x)
	}
	optionalText(e, "hpcpa:UserName", h.UserName)
	writeLeaves(e, h.Leaves)
	h.Foreign.write(e)
}

func (r *Resources) write(e *etree.Element) {
	if len(r.CandidateHosts) > 0 {
		hosts := e.CreateElement("jsdl:CandidateHosts")
		for _, h := range r.CandidateHosts {
			textElement(hosts, "jsdl:HostName", h)
		}
	}
	for i := range r.FileSystems {
		r.FileSystems[i].write(e.CreateElement("jsdl:FileSystem"))
	}
	optionalBool(e, "jsdl:ExclusiveExecution", r.ExclusiveExecution)
	if r.OperatingSystem != nil {
		r.OperatingSystem.write(e.CreateElement("jsdl:OperatingSystem"))
	}
	if r.CPUArchitecture != nil {
		x := e.CreateElement("jsdl:CPUArchitecture")
		textElement(x, "jsdl:CPUArchitectureName", r.CPUArchitecture.Name)
		r.CPUArchitecture.Foreign.write(x)
	}
	r.IndividualCPUSpeed.write(e, "jsdl:IndividualCPUSpeed")
	r.IndividualCPUTime.write(e, "jsdl:IndividualCPUTime")
	r.IndividualCPUCount.write(e, "jsdl:IndividualCPUCount")
	r.IndividualNetworkBandwidth.write(e, "jsdl:IndividualNetworkBandwidth")
	r.IndividualPhysicalMemory.write(e, "jsdl:IndividualPhysicalMemory")
	r.IndividualVirtualMemory.write(e, "jsdl:IndividualVirtualMemory")
	r.IndividualDiskSpace.write(e, "jsdl:IndividualDiskSpace")
	r.TotalCPUTime.write(e, "jsdl:TotalCPUTime")
	r.TotalCPUCount.write(e, "jsdl:TotalCPUCount")
	r.TotalPhysicalMemory.write(e, "jsdl:TotalPhysicalMemory")
	r.TotalVirtualMemory.write(e, "jsdl:TotalVirtualMemory")
	r.TotalDiskSpace.write(e, "jsdl:TotalDiskSpace")
	r.TotalResourceCount.write(e, "jsdl:TotalResourceCount")
	if r.Placement != nil {
		r.Placement.write(e.CreateElement("portolan:Placement"))
	}
	if r.Criteria != nil {
		r.Criteria.write(e.CreateElement("portolan:Criteria"))
	}
	r.Foreign.write(e)
}

func (f *FileSystem) write(e *etree.Element) {
	e.CreateAttr("name", f.Name)
	if f.Type != "" {
		textElement(e, "jsdl:FileSystemType", f.Type)
	}
	optionalText(e, "jsdl:Description", f.Description)
	optionalText(e, "jsdl:MountSource", f.MountSource)
	optionalText(e, "jsdl:MountPoint", f.MountPoint)
	f.DiskSpace.write(e, "jsdl:DiskSpace")
	f.Foreign.write(e)
}

func (o *OperatingSystem) write(e *etree.Element) {
	if o.HasType || o.Name != "" {
		x := e.CreateElement("jsdl:OperatingSystemType")
		textElement(x, "jsdl:OperatingSystemName", o.Name)
		o.TypeForeign.write(x)
	}
	optionalText(e, "jsdl:OperatingSystemVersion", o.Version)
	optionalText(e, "jsdl:Description", o.Description)
	o.Foreign.write(e)
}

// write writes the range as an element of that name; a nil range is absent.
func (r *RangeValue) write(parent *etree.Element, tag string) {
	if r == nil {
		return
	}
	e := parent.CreateElement(tag)
	if r.Upper != nil {
		r.Upper.write(e, "jsdl:UpperBoundedRange")
	}
	if r.Lower != nil {
		r.Lower.write(e, "jsdl:LowerBoundedRange")
	}
	for _, x := range r.Exact {
		exact := textElement(e, "jsdl:Exact", formatDouble(x.Value))
		if x.Epsilon != 0 {
			exact.CreateAttr("epsilon", formatDouble(x.Epsilon))
		}
		writeAttributes(exact, x.Attributes)
	}
	for _, v := range r.Ranges {
		x := e.CreateElement("jsdl:Range")
		v.Lower.write(x, "jsdl:LowerBound")
		v.Upper.write(x, "jsdl:UpperBound")
		writeAttributes(x, v.Attributes)
	}
	r.Foreign.write(e)
}

func (b *Bound) write(parent *etree.Element, tag string) {
	e := textElement(parent, tag, formatDouble(b.Value))
	if b.Exclusive {
		e.CreateAttr("exclusiveBound", "true")
	}
	writeAttributes(e, b.Attributes)
}

func (s *DataStaging) write(e *etree.Element) {
	attr(e, "name", s.Name)
	textElement(e, "jsdl:FileName", s.FileName)
	if s.FilesystemName != "" {
		textElement(e, "jsdl:FilesystemName", s.FilesystemName)
	}
	textElement(e, "jsdl:CreationFlag", s.CreationFlag)
	optionalBool(e, "jsdl:DeleteOnTermination", s.DeleteOnTermination)
	if s.Source != nil {
		s.Source.write(e.CreateElement("jsdl:Source"))
	}
	if s.Target != nil {
		s.Target.write(e.CreateElement("jsdl:Target"))
	}
	s.Foreign.write(e)
}

func (l *Location) write(e *etree.Element) {
	optionalText(e, "jsdl:URI", l.URI)
	l.Foreign.write(e)
}

func (t *Text) write(e *etree.Element) {
	attr(e, "filesystemName", t.FileSystem)
	writeAttributes(e, t.Attributes)
	setContent(e, t.Value)
}

func (f *Foreign) write(e *etree.Element) {
	writeAttributes(e, f.Attributes)
	for _, x := range f.Elements {
		e.AddChild(x.Copy())
	}
}

// writeLeaves puts attributes on the children of e that they belong to.
func writeLeaves(e *etree.Element, leaves []LeafAttribute) {
	if len(leaves) == 0 {
		return
	}
	type child struct {
		local string
		index int
	}
	of := make(map[child][]Attribute, len(leaves))
	for _, l := range leaves {
		c := child{l.Element, l.Index}
		of[c] = append(of[c], l.Attribute)
	}
	count := make(map[string]int)
	for _, x := range e.ChildElements() {
		writeAttributes(x, of[child{x.Tag, count[x.Tag]}])
		count[x.Tag]++
	}
}

// writeAttributes declares a prefix for each attribute's namespace on the element itself.
func writeAttributes(e *etree.Element, attrs []Attribute) {
	for i, a := range attrs {
		if a.Name.Space == nsXML {
			e.CreateAttr("xml:"+a.Name.Local, a.Value)
			continue
		}
		prefix := ""
		for j := range i { // one prefix for each namespace
			if attrs[j].Name.Space == a.Name.Space {
				prefix = "x" + strconv.Itoa(j)
				break
			}
		}
		if prefix == "" {
			prefix = "x" + strconv.Itoa(i)
			e.CreateAttr("xmlns:"+prefix, a.Name.Space)
		}
		e.CreateAttr(prefix+":"+a.Name.Local, a.Value)
	}
}

func attr(e *etree.Element, local, v string) {
	if v != "" {
		e.CreateAttr(local, v)
	}
}

func path(parent *etree.Element, tag string, t *Text) {
	if t != nil {
		t.write(parent.CreateElement(tag))
	}
}

func optionalText(parent *etree.Element, tag string, s *string) {
	if s != nil {
		textElement(parent, tag, *s)
	}
}

func optionalBool(parent *etree.Element, tag string, b *bool) {
	if b != nil {
		textElement(parent, tag, strconv.FormatBool(*b))
	}
}

func textElement(parent *etree.Element, tag, s string) *etree.Element {
	e := parent.CreateElement(tag)
	setContent(e, s)
	return e
}

func setContent(e *etree.Element, s string) {
	if s != "" {
		e.CreateText(s)
	}
}

// formatDouble writes a number as xsd:double. Whole numbers are written without
// exponent, which readers of counts and bytes expect.
func formatDouble(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "INF"
	case math.IsInf(v, -1):
		return "-INF"
	case v == math.Trunc(v) && math.Abs(v) < 1e18:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
