package jsdl

import (
	"math/big"
	"time"

	"github.com/beevik/etree"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Random definitions, as rich as the types allow.

func definition() *rapid.Generator[*JobDefinition] {
	return rapid.Custom(func(t *rapid.T) *JobDefinition {
		g := generator{t}
		j := &JobDefinition{ID: g.maybeName()}
		j.Foreign = g.foreign(true)
		d := &j.Description
		if g.bool() {
			d.Identification = &JobIdentification{
				JobName: g.maybeText(), Description: g.maybeText(), Annotations: g.texts(), Projects: g.texts(), Foreign: g.foreign(true),
			}
		}
		if g.bool() {
			d.Application = &Application{Name: g.maybeText(), Version: g.maybeText(), Description: g.maybeText(), Foreign: g.foreign(true)}
			if g.bool() {
				d.Application.POSIX = g.posix()
			}
			if g.bool() {
				d.Application.HPC = g.hpc()
			}
			if g.bool() {
				d.Application.SPMD = g.spmd()
			}
		}
		if g.bool() {
			d.Resources = g.resources()
		}
		for range g.few() {
			d.DataStaging = append(d.DataStaging, g.staging())
		}
		d.Foreign = g.foreign(true)
		return j
	})
}

type generator struct{ *rapid.T }

func (g generator) bool() bool { return rapid.Bool().Draw(g.T, "") }
func (g generator) few() int   { return rapid.IntRange(0, 3).Draw(g.T, "") }

func (g generator) text() string {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"", " ", "a", " two words ", "line\nend", "tab\there", "<&>\"'", "]]>", "é漢𝄞", "\r", "%s", "-"}),
		rapid.StringOfN(rapid.RuneFrom([]rune("ab \t\n<&>\"'é漢\u2028")), 0, 12, -1),
	).Draw(g.T, "text")
}

// trimmed is a text of those that are read without white space around them.
func (g generator) trimmed() string { return trim(g.text()) }

func (g generator) name() string {
	return rapid.StringMatching(`[A-Za-z_é][A-Za-z0-9._\-é]{0,8}`).Draw(g.T, "name")
}

func (g generator) maybeName() string {
	if g.bool() {
		return ""
	}
	return g.name()
}

func (g generator) maybeText() *string { return g.maybe(g.text) }

func (g generator) maybe(f func() string) *string {
	if g.bool() {
		return nil
	}
	s := f()
	return &s
}

func (g generator) texts() (out []string) {
	for range g.few() {
		out = append(out, g.text())
	}
	return out
}

func (g generator) attributes() (out []Attribute) {
	for i := range g.few() {
		space := rapid.SampledFrom([]string{"urn:one", "urn:two"}).Draw(g.T, "space")
		out = append(out, Attribute{xmldoc.Name{Space: space, Local: "a" + string(rune('a'+i))}, rapid.SampledFrom([]string{"", "v", "<&\"\n\t"}).Draw(g.T, "value")})
	}
	return out
}

func (g generator) foreign(elements bool) Foreign {
	if !g.bool() {
		return Foreign{}
	}
	f := Foreign{Attributes: g.attributes()}
	for range g.few() {
		if !elements {
			break
		}
		e := etree.NewElement("x:Thing")
		e.CreateAttr("xmlns:x", "urn:thing")
		e.CreateElement("x:Inner").CreateText(g.text() + "t")
		f.Elements = append(f.Elements, e)
	}
	return f
}

func (g generator) path() *Text {
	if g.bool() {
		return nil
	}
	return &Text{Value: g.trimmed(), FileSystem: g.maybeName(), Attributes: g.attributes()}
}

func (g generator) environment(files bool) (out []EnvironmentVariable) {
	for range g.few() {
		v := EnvironmentVariable{Name: g.name(), Text: Text{Value: g.text(), Attributes: g.attributes()}}
		if files {
			v.FileSystem = g.maybeName()
		}
		out = append(out, v)
	}
	return out
}

// leaves are attributes of the children of that name.
func (g generator) leaves(local string, children int) (out []LeafAttribute) {
	for i := range children {
		for _, a := range g.attributes() {
			out = append(out, LeafAttribute{local, i, a})
		}
	}
	return out
}

func (g generator) posix() *POSIXApplication {
	p := &POSIXApplication{
		Name: g.maybeName(), Executable: g.path(), Input: g.path(), Output: g.path(), Error: g.path(), WorkingDirectory: g.path(),
		Environment: g.environment(true), UserName: g.maybeText(), GroupName: g.maybeText(), Foreign: g.foreign(false),
	}
	for range g.few() {
		p.Arguments = append(p.Arguments, Text{Value: normalize(g.text()), FileSystem: g.maybeName(), Attributes: g.attributes()})
	}
	for _, l := range p.Limits.all() {
		if g.bool() {
			n, _ := new(big.Int).SetString(rapid.StringMatching(`0|[1-9][0-9]{0,20}`).Draw(g.T, "limit"), 10)
			*l.value = n
			p.Leaves = append(p.Leaves, g.leaves(l.element, 1)...)
		}
	}
	return p
}

func (g generator) hpc() *HPCProfileApplication {
	h := &HPCProfileApplication{
		Name: g.maybeName(), Executable: g.maybe(g.trimmed), Arguments: g.texts(), Input: g.maybe(g.trimmed), Output: g.maybe(g.trimmed),
		Error: g.maybe(g.trimmed), WorkingDirectory: g.maybe(g.trimmed), Environment: g.environment(false), UserName: g.maybeText(),
		Foreign: g.foreign(false),
	}
	h.Leaves = g.leaves("Argument", len(h.Arguments))
	if h.UserName != nil {
		h.Leaves = append(h.Leaves, g.leaves("UserName", 1)...)
	}
	return h
}

func (g generator) spmd() *SPMDApplication {
	s := &SPMDApplication{
		Name: g.maybeName(), Executable: g.path(), Input: g.path(), Output: g.path(), Error: g.path(), WorkingDirectory: g.path(),
		Environment: g.environment(true), UserName: g.maybeText(), NumberOfProcesses: g.processCount(), ThreadsPerProcess: g.processCount(),
		Variation: rapid.SampledFrom(variations).Draw(g.T, "variation"), Foreign: g.foreign(true),
	}
	for range g.few() {
		s.Arguments = append(s.Arguments, Text{Value: normalize(g.text()), FileSystem: g.maybeName(), Attributes: g.attributes()})
	}
	if g.bool() {
		s.ProcessesPerHost = g.positive()
		s.Leaves = g.leaves("ProcessesPerHost", 1)
	}
	if s.NumberOfProcesses != nil {
		s.Leaves = append(s.Leaves, g.leaves("NumberOfProcesses", 1)...)
	}
	return s
}

func (g generator) positive() *big.Int {
	n, _ := new(big.Int).SetString(rapid.StringMatching(`[1-9][0-9]{0,20}`).Draw(g.T, "positive"), 10)
	return n
}

func (g generator) processCount() *ProcessCount {
	switch rapid.IntRange(0, 3).Draw(g.T, "count") {
	case 0:
		return nil
	case 1:
		return &ProcessCount{Value: g.positive()}
	}
	return &ProcessCount{Actual: g.bool()}
}

func (g generator) line() string {
	return rapid.StringMatching(`[a-z<&>"'é漢𝄞]([a-z<&>"'é漢𝄞 ]{0,8}[a-z<&>"'é漢𝄞])?`).Draw(g.T, "line")
}

func (g generator) moment() *time.Time {
	if g.bool() {
		return nil
	}
	t := time.Unix(rapid.Int64Range(-30000000000, 250000000000).Draw(g.T, "time"), rapid.SampledFrom([]int64{0, 1, 5e8}).Draw(g.T, "fraction"))
	t = t.In(time.FixedZone("", 60*rapid.IntRange(-14*60, 14*60).Draw(g.T, "zone")))
	return &t
}

func (g generator) within(least, most int) *int {
	if g.bool() {
		return nil
	}
	n := rapid.IntRange(least, most).Draw(g.T, "number")
	return &n
}

func (g generator) placement() *Placement {
	p := &Placement{
		Share: g.maybe(func() string { return xmldoc.Collapse(g.line()) }), QualityOfService: g.maybe(func() string { return xmldoc.Collapse(g.line()) }),
		Reservation: g.maybe(func() string { return xmldoc.Collapse(g.line()) }), Deadline: g.moment(), NotBefore: g.moment(),
		Priority: g.within(-maxPriority, maxPriority), Constraint: g.maybe(g.line), Container: g.maybe(func() string { return xmldoc.Collapse(g.line()) }),
		Quorum: g.within(1, maxReplicas), Replicas: g.within(1, maxReplicas), Foreign: g.foreign(true),
		VO: g.maybe(func() string { return xmldoc.Collapse(g.line()) }),
	}
	if g.bool() {
		b := g.bool()
		p.Rerunnable = &b
	}
	for range g.few() {
		p.GPUs = append(p.GPUs, GPU{rapid.SampledFrom([]string{"", "a100", "a 100-S.x_2+"}).Draw(g.T, "gpu"), rapid.IntRange(1, maxGPUs).Draw(g.T, "gpus")})
		p.Licences = append(p.Licences, Licence{rapid.SampledFrom([]string{"m", "m@db:1/x"}).Draw(g.T, "licence"), rapid.IntRange(1, maxLicences).Draw(g.T, "tokens")})
		p.Manager = append(p.Manager, ManagerAttribute{rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_.]{0,6}`).Draw(g.T, "attribute"), g.line()})
	}
	return p
}

func (g generator) criteria() *Criteria {
	c := &Criteria{Foreign: g.foreign(true)}
	for range 1 + g.few() {
		one := rapid.SampledFrom([]Criterion{
			{"FreeCPUs", "integer", "ge", "16", true, 100},
			{"Price", "decimal", "min", "", false, 7},
			{"Wait", "duration", "le", "PT1H30M", false, 1000},
			{"Feature", "string", "matches", "a b.*", true, 100},
			{"Site", "string", "in", "here there", true, 100},
			{"Up", "boolean", "ne", "false", true, 1},
		}).Draw(g.T, "criterion")
		c.List = append(c.List, one)
	}
	return c
}

func (g generator) float() float64 {
	return rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{0, 1, 2, 1e18, 1e17, 0.1, -1, 1 << 40, 1e300, 5e-324})).Draw(g.T, "number")
}

func (g generator) bound() Bound {
	return Bound{Value: g.float(), Exclusive: g.bool(), Attributes: g.attributes()}
}

func (g generator) rangeValue() *RangeValue {
	if g.bool() {
		return nil
	}
	r := &RangeValue{Foreign: Foreign{Attributes: g.attributes()}}
	if g.bool() {
		b := g.bound()
		r.Upper = &b
	}
	if g.bool() {
		b := g.bound()
		r.Lower = &b
	}
	for range g.few() {
		x := Exact{Value: g.float(), Attributes: g.attributes()}
		if g.bool() {
			x.Epsilon = rapid.Float64Min(0).Draw(g.T, "epsilon")
		}
		r.Exact = append(r.Exact, x)
	}
	for range g.few() {
		r.Ranges = append(r.Ranges, Range{Lower: g.bound(), Upper: g.bound(), Attributes: g.attributes()})
	}
	return r
}

func (g generator) resources() *Resources {
	r := &Resources{
		CandidateHosts:     g.texts(),
		IndividualCPUSpeed: g.rangeValue(), IndividualCPUTime: g.rangeValue(), IndividualCPUCount: g.rangeValue(),
		IndividualNetworkBandwidth: g.rangeValue(), IndividualPhysicalMemory: g.rangeValue(), IndividualVirtualMemory: g.rangeValue(),
		IndividualDiskSpace: g.rangeValue(), TotalCPUTime: g.rangeValue(), TotalCPUCount: g.rangeValue(), TotalPhysicalMemory: g.rangeValue(),
		TotalVirtualMemory: g.rangeValue(), TotalDiskSpace: g.rangeValue(), TotalResourceCount: g.rangeValue(), Foreign: g.foreign(true),
	}
	if g.bool() {
		b := g.bool()
		r.ExclusiveExecution = &b
	}
	if g.bool() {
		r.OperatingSystem = &OperatingSystem{Version: g.maybeText(), Description: g.maybeText(), Foreign: g.foreign(true)}
		if g.bool() {
			r.OperatingSystem.HasType = true
			r.OperatingSystem.Name = rapid.SampledFrom(operatingSystemNames).Draw(g.T, "system")
			r.OperatingSystem.TypeForeign = g.foreign(true)
		}
	}
	if g.bool() {
		r.CPUArchitecture = &CPUArchitecture{Name: rapid.SampledFrom(cpuArchitectureNames).Draw(g.T, "cpu"), Foreign: g.foreign(true)}
	}
	for range g.few() {
		f := FileSystem{Name: g.name(), Description: g.maybeText(), MountPoint: g.maybeText(), DiskSpace: g.rangeValue(), Foreign: g.foreign(true)}
		if g.bool() {
			f.Type = rapid.SampledFrom(fileSystemTypes).Draw(g.T, "type")
		}
		r.FileSystems = append(r.FileSystems, f)
	}
	if g.bool() {
		r.Placement = g.placement()
	}
	if g.bool() {
		r.Criteria = g.criteria()
	}
	return r
}

func (g generator) staging() DataStaging {
	s := DataStaging{
		Name: g.maybeName(), FileName: g.trimmed(), FilesystemName: g.maybeName(),
		CreationFlag: rapid.SampledFrom(creationFlags).Draw(g.T, "flag"), Source: g.location(), Target: g.location(), Foreign: g.foreign(true),
	}
	if g.bool() {
		b := g.bool()
		s.DeleteOnTermination = &b
	}
	return s
}

func (g generator) location() *Location {
	if g.bool() {
		return nil
	}
	return &Location{Foreign: g.foreign(true), URI: g.maybe(func() string {
		return rapid.SampledFrom([]string{"", "http://h/p", "file:/x", "urn:a:b", "../x", "http://h/é b", "scp://u@h:22/x?y#z"}).Draw(g.T, "uri")
	})}
}
