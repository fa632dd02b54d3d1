package plugin

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// definition puts a job definition on the wire: the document and the view of it.
// What can't travel is refused by the element's name.
func definition(d *jsdl.JobDefinition) (*proto.Definition, error) {
	const op = "plugin.Check"
	if d == nil {
		return nil, fail.Errorf(op, fail.Invalid, "", "there is no job definition")
	}
	p := d.Program()
	if err := travels(&p); err != nil {
		return nil, err
	}
	xml := d.Marshal()
	if len(xml) > maxDefinition {
		element, size := heaviest(&p)
		return nil, fail.Errorf(op, fail.Unsupported, element,
			"%s: the job definition has %d bytes, most of them (%d) there; a plug-in takes at most %d", element, len(xml), size, maxDefinition)
	}
	out := &proto.Definition{
		Jsdl: xml, Name: strings.ToValidUTF8(d.Name(), "\uFFFD"), Program: program(d, &p), Needs: needs(d.Description.Resources), Elements: elements(d),
	}
	if id := d.Description.Identification; id != nil {
		out.Projects = valid(id.Projects)
	}
	for i := range d.Description.DataStaging {
		out.Staging = append(out.Staging, staging(&d.Description.DataStaging[i]))
	}
	return out, nil
}

// texts lists what a program has of strings, with the names of their elements.
func texts(p *jsdl.Program, do func(element, s string)) {
	do("Executable", p.Executable.Value)
	for _, t := range p.Arguments {
		do("Argument", t.Value)
	}
	for name, t := range map[string]*jsdl.Text{"Input": p.Input, "Output": p.Output, "Error": p.Error, "WorkingDirectory": p.WorkingDirectory} {
		if t != nil {
			do(name, t.Value)
		}
	}
	for _, v := range p.Environment {
		do("Environment", v.Value)
	}
}

// travels refuses strings that no program could be given, nor XML carry.
func travels(p *jsdl.Program) error {
	var bad []string
	texts(p, func(element, s string) {
		if (!utf8.ValidString(s) || strings.ContainsRune(s, 0)) && !slices.Contains(bad, element) {
			bad = append(bad, element)
		}
	})
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return fail.Errorf("plugin.Check", fail.Invalid, bad[0], "%s: a NUL or a byte that is no UTF-8 stands there; remove it", strings.Join(bad, ", "))
}

// heaviest names the element with the most bytes.
func heaviest(p *jsdl.Program) (string, int) {
	size := map[string]int{}
	most := "JobDefinition"
	texts(p, func(element, s string) {
		size[element] += len(s)
		if size[element] > size[most] {
			most = element
		}
	})
	return most, size[most]
}

func valid(all []string) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = strings.ToValidUTF8(s, "\uFFFD")
	}
	return out
}

func program(d *jsdl.JobDefinition, p *jsdl.Program) *proto.Program {
	text := func(t *jsdl.Text) *proto.Text {
		if t == nil {
			return nil
		}
		out := &proto.Text{Value: t.Value, FileSystem: t.FileSystem}
		if t.FileSystem == "" {
			return out
		}
		// What the document does not say, or says wrongly, the site must judge.
		if path, err := jsdl.ResolveText(*t, func(name string) (string, bool) {
			if fs := d.FileSystem(name); fs != nil && fs.MountPoint != nil {
				return *fs.MountPoint, true
			}
			return "", false
		}); err == nil {
			out.Path = path
		}
		return out
	}
	out := &proto.Program{
		Input: text(p.Input), Output: text(p.Output), Error: text(p.Error), WorkingDirectory: text(p.WorkingDirectory),
		Limits: limits(&p.Limits), UserName: p.UserName, GroupName: p.GroupName,
	}
	if p.Executable.Value != "" || p.Executable.FileSystem != "" {
		out.Executable = text(&p.Executable)
	}
	for i := range p.Arguments {
		out.Arguments = append(out.Arguments, text(&p.Arguments[i]))
	}
	for i := range p.Environment {
		out.Environment = append(out.Environment, &proto.Variable{Name: p.Environment[i].Name, Value: text(&p.Environment[i].Text)})
	}
	if s := p.SPMD; s != nil {
		out.Spmd = &proto.SPMD{
			Processes: int64(s.Processes), ProcessesActual: s.ProcessesActual, ProcessesPerHost: int64(s.ProcessesPerHost),
			Threads: int64(s.Threads), ThreadsActual: s.ThreadsActual, Variation: s.Variation,
		}
	}
	return out
}

func limits(l *jsdl.Limits) *proto.Limits {
	n := func(b *big.Int) *uint64 {
		if b == nil {
			return nil
		}
		v := uint64(math.MaxUint64)
		if b.IsUint64() {
			v = b.Uint64()
		}
		return &v
	}
	return &proto.Limits{
		WallTime: n(l.WallTime), FileSize: n(l.FileSize), CoreDump: n(l.CoreDump), DataSegment: n(l.DataSegment), LockedMemory: n(l.LockedMemory),
		Memory: n(l.Memory), OpenDescriptors: n(l.OpenDescriptors), PipeSize: n(l.PipeSize), StackSize: n(l.StackSize), CpuTime: n(l.CPUTime),
		ProcessCount: n(l.ProcessCount), VirtualMemory: n(l.VirtualMemory), ThreadCount: n(l.ThreadCount),
	}
}

func needs(r *jsdl.Resources) *proto.Needs {
	if r == nil {
		return &proto.Needs{}
	}
	out := &proto.Needs{
		CandidateHosts: valid(r.CandidateHosts), ExclusiveExecution: r.ExclusiveExecution,
		IndividualCpuSpeed: ranges(r.IndividualCPUSpeed), IndividualCpuTime: ranges(r.IndividualCPUTime), IndividualCpuCount: ranges(r.IndividualCPUCount),
		IndividualNetworkBandwidth: ranges(r.IndividualNetworkBandwidth), IndividualPhysicalMemory: ranges(r.IndividualPhysicalMemory),
		IndividualVirtualMemory: ranges(r.IndividualVirtualMemory), IndividualDiskSpace: ranges(r.IndividualDiskSpace),
		TotalCpuTime: ranges(r.TotalCPUTime), TotalCpuCount: ranges(r.TotalCPUCount), TotalPhysicalMemory: ranges(r.TotalPhysicalMemory),
		TotalVirtualMemory: ranges(r.TotalVirtualMemory), TotalDiskSpace: ranges(r.TotalDiskSpace), TotalResourceCount: ranges(r.TotalResourceCount),
		Placement: placement(r.Placement),
	}
	if o := r.OperatingSystem; o != nil {
		if o.Name != "" {
			out.OperatingSystem = &o.Name
		}
		out.OperatingSystemVersion = o.Version
	}
	if a := r.CPUArchitecture; a != nil {
		out.CpuArchitecture = &a.Name
	}
	for i := range r.FileSystems {
		f := &r.FileSystems[i]
		out.FileSystems = append(out.FileSystems, &proto.FileSystem{Name: f.Name, Type: f.Type, MountPoint: f.MountPoint, DiskSpace: ranges(f.DiskSpace)})
	}
	return out
}

// ranges gives the intervals whose union a RangeValue is (GFD.56 §5.2).
func ranges(r *jsdl.RangeValue) *proto.Range {
	if r == nil || r.Lower == nil && r.Upper == nil && len(r.Exact) == 0 && len(r.Ranges) == 0 {
		return nil
	}
	out := &proto.Range{}
	between := func(lower, upper *jsdl.Bound) {
		v := &proto.Interval{}
		if lower != nil && !math.IsInf(lower.Value, -1) {
			v.Lower, v.LowerExcluded = &lower.Value, lower.Exclusive
		}
		if upper != nil && !math.IsInf(upper.Value, 1) {
			v.Upper, v.UpperExcluded = &upper.Value, upper.Exclusive
		}
		out.Intervals = append(out.Intervals, v)
	}
	if r.Lower != nil || r.Upper != nil {
		between(r.Lower, r.Upper)
	}
	for _, x := range r.Exact {
		if math.IsInf(x.Epsilon, 1) {
			between(nil, nil)
			continue
		}
		between(&jsdl.Bound{Value: x.Value - x.Epsilon}, &jsdl.Bound{Value: x.Value + x.Epsilon})
	}
	for i := range r.Ranges {
		between(&r.Ranges[i].Lower, &r.Ranges[i].Upper)
	}
	return out
}

func placement(p *jsdl.Placement) *proto.Placement {
	if p == nil {
		return nil
	}
	count := func(n *int) *int32 {
		if n == nil {
			return nil
		}
		v := int32(max(math.MinInt32, min(math.MaxInt32, *n)))
		return &v
	}
	out := &proto.Placement{
		Share: p.Share, QualityOfService: p.QualityOfService, Reservation: p.Reservation, Priority: count(p.Priority), Rerunnable: p.Rerunnable,
		Constraint: p.Constraint, Container: p.Container, Quorum: count(p.Quorum), Replicas: count(p.Replicas),
	}
	if p.Deadline != nil {
		out.Deadline = timestamppb.New(*p.Deadline)
	}
	if p.NotBefore != nil {
		out.NotBefore = timestamppb.New(*p.NotBefore)
	}
	for _, g := range p.GPUs {
		out.Gpus = append(out.Gpus, &proto.Device{Type: g.Type, Count: int64(g.Count)})
	}
	for _, l := range p.Licences {
		out.Licences = append(out.Licences, &proto.Token{Name: l.Name, Count: int64(l.Count)})
	}
	for _, a := range p.Manager {
		out.Manager = append(out.Manager, &proto.Attribute{Name: a.Name, Value: a.Value})
	}
	return out
}

func staging(s *jsdl.DataStaging) *proto.Staging {
	uri := func(l *jsdl.Location) *string {
		if l == nil {
			return nil
		}
		if l.URI == nil {
			return new(string)
		}
		return l.URI
	}
	return &proto.Staging{
		FileName: s.FileName, FileSystem: s.FilesystemName, CreationFlag: s.CreationFlag, DeleteOnTermination: s.DeleteOnTermination,
		Source: uri(s.Source), Target: uri(s.Target),
	}
}

// elements names what the document asks for: jsdl.Uses but for what only describes,
// and whatever is of a namespace that nobody here reads.
func elements(d *jsdl.JobDefinition) []string {
	var found []string
	p := d.Program()
	nothing := p.Executable.Value == "" && p.Executable.FileSystem == ""
	for _, e := range d.Uses() {
		switch {
		case strings.HasPrefix(e, "jsdl:JobIdentification/"), strings.HasSuffix(e, ":Description"), strings.HasSuffix(e, ":ApplicationVersion") && !nothing:
		case strings.HasSuffix(e, ":ApplicationName") && !nothing: // a label; alone it is what is to be run
		default:
			found = append(found, e)
		}
	}
	own := []string{jsdl.NS, jsdl.NSPOSIX, jsdl.NSHPCPA, jsdl.NSSPMD, jsdl.NSPortolan}
	var walk func(*etree.Element)
	walk = func(e *etree.Element) {
		for _, c := range e.ChildElements() {
			if slices.Contains(own, c.NamespaceURI()) {
				walk(c)
				continue
			}
			name := strings.ToValidUTF8(fmt.Sprintf("{%s}%s", c.NamespaceURI(), c.Tag), "\uFFFD")
			if !slices.Contains(found, name) && len(found) < maxList {
				found = append(found, name)
			}
		}
	}
	walk(d.Element())
	return found
}

// readDefinition reads what definition wrote, in a plug-in. The view's strings are
// put over the document's: XML makes blanks of some line ends.
func readDefinition(p *proto.Definition) (*jsdl.JobDefinition, error) {
	const op = "plugin"
	if p == nil || len(p.Jsdl) == 0 {
		return nil, fail.Errorf(op, fail.Invalid, "", "there is no job definition")
	}
	d, problems := jsdl.Parse(p.Jsdl, jsdl.Options{Lenient: true})
	if err := problems.Invalid().Err(); err != nil {
		return nil, err
	}
	if d == nil {
		return nil, fail.Errorf(op, fail.Invalid, "", "the job definition could not be read")
	}
	if p.Program != nil && d.Description.Application != nil {
		overlay(d.Description.Application, p.Program)
	}
	return d, nil
}

func overlay(a *jsdl.Application, p *proto.Program) {
	set := func(t *jsdl.Text, from *proto.Text) {
		if t != nil && from != nil {
			t.Value = from.Value
		}
	}
	list := func(texts []jsdl.Text, from []*proto.Text) {
		if len(texts) == len(from) {
			for i := range texts {
				set(&texts[i], from[i])
			}
		}
	}
	variables := func(vars []jsdl.EnvironmentVariable, from []*proto.Variable) {
		values := map[string]*proto.Text{}
		for _, v := range from {
			values[v.Name] = v.Value
		}
		for i := range vars {
			set(&vars[i].Text, values[vars[i].Name])
		}
	}
	switch {
	case a.POSIX != nil:
		x := a.POSIX
		set(x.Executable, p.Executable)
		list(x.Arguments, p.Arguments)
		set(x.Input, p.Input)
		set(x.Output, p.Output)
		set(x.Error, p.Error)
		set(x.WorkingDirectory, p.WorkingDirectory)
		variables(x.Environment, p.Environment)
	case a.SPMD != nil:
		x := a.SPMD
		set(x.Executable, p.Executable)
		list(x.Arguments, p.Arguments)
		set(x.Input, p.Input)
		set(x.Output, p.Output)
		set(x.Error, p.Error)
		set(x.WorkingDirectory, p.WorkingDirectory)
		variables(x.Environment, p.Environment)
	case a.HPC != nil:
		x := a.HPC
		put := func(to *string, from *proto.Text) {
			if to != nil && from != nil {
				*to = from.Value
			}
		}
		put(x.Executable, p.Executable)
		if len(x.Arguments) == len(p.Arguments) {
			for i := range x.Arguments {
				x.Arguments[i] = p.Arguments[i].GetValue()
			}
		}
		put(x.Input, p.Input)
		put(x.Output, p.Output)
		put(x.Error, p.Error)
		put(x.WorkingDirectory, p.WorkingDirectory)
		variables(x.Environment, p.Environment)
	}
}
