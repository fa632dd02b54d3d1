package jsdl

import "slices"

// prefixes are how Elements and Marshal write the namespaces.
var prefixes = map[string]string{NS: "jsdl", NSPOSIX: "posix", NSHPCPA: "hpcpa", NSSPMD: "spmd", NSPortolan: "portolan"}

// The elements that hold others, each with the path that its children get. What
// is not named here is an entry of its own, so that an element which a table
// gains is one at once.
var elements = slices.Concat(
	entries("jsdl:JobIdentification/", &jobIdentificationType),
	entries("jsdl:Application/", &applicationType),
	entries("", &posixApplicationType),
	entries("", hpcApplicationType),
	entries("", &spmdApplicationType),
	entries("jsdl:Resources/", &resourcesType),
	entries("portolan:Placement/", &placementType),
	[]string{"jsdl:DataStaging"},
)

// entries lists a table's elements. The posix elements of an SPMD application are
// those of a POSIX one.
func entries[T any](path string, c *content[T]) []string {
	var out []string
	for i := range c.parts {
		p := &c.parts[i]
		if p.mistaken != "" || p.space != c.space || p.space == NSPortolan && p.local == "VO" {
			continue // the VO is for the gateway, as Criteria is
		}
		name := path + prefixes[p.space] + ":" + p.local
		// A manager takes or refuses the children of these two one by one; the
		// declaration of a file system is a demand itself.
		switch {
		case p.local == "FileSystem":
			out = append(append(out, name), entries(name+"/", &fileSystemType)...)
		case p.local == "OperatingSystem":
			out = append(out, entries(name+"/", &operatingSystemType)...)
		default:
			out = append(out, name)
		}
	}
	return out
}

// Elements lists every element that can reach a manager, in the order of a document:
// "jsdl:JobIdentification/jsdl:JobName", "posix:Executable", "hpcpa:Executable",
// "jsdl:Resources/jsdl:TotalCPUCount", "portolan:Placement/portolan:GPU". The names
// come from the tables by which documents are read. An entry stands for all that is
// inside the element, its attributes too: a range with its bounds, a number of
// processes with actualtotalcpucount, a GPU with its type.
func Elements() []string { return slices.Clone(elements) }

// Uses gives the entries of Elements that stand in the definition, in that order.
func (j *JobDefinition) Uses() []string {
	var u uses
	d := &j.Description
	if id := d.Identification; id != nil {
		u.path = "jsdl:JobIdentification/jsdl:"
		u.add("JobName", id.JobName != nil)
		u.add("Description", id.Description != nil)
		u.add("JobAnnotation", len(id.Annotations) > 0)
		u.add("JobProject", len(id.Projects) > 0)
	}
	if a := d.Application; a != nil {
		u.path = "jsdl:Application/jsdl:"
		u.add("ApplicationName", a.Name != nil)
		u.add("ApplicationVersion", a.Version != nil)
		u.add("Description", a.Description != nil)
		u.programs(a)
	}
	if d.Resources != nil {
		u.resources(d.Resources)
	}
	u.path = "jsdl:"
	u.add("DataStaging", len(d.DataStaging) > 0)
	return u.list
}

// uses gathers entries.
type uses struct {
	path string
	list []string
}

func (u *uses) add(local string, given bool) {
	if given {
		u.list = append(u.list, u.path+local)
	}
}

func (u *uses) programs(a *Application) {
	p, s := a.POSIX, a.SPMD
	if p == nil {
		p = new(POSIXApplication)
	}
	if s == nil {
		s = new(SPMDApplication)
	}
	u.path = "posix:"
	u.add("Executable", p.Executable != nil || s.Executable != nil)
	u.add("Argument", len(p.Arguments)+len(s.Arguments) > 0)
	u.add("Input", p.Input != nil || s.Input != nil)
	u.add("Output", p.Output != nil || s.Output != nil)
	u.add("Error", p.Error != nil || s.Error != nil)
	u.add("WorkingDirectory", p.WorkingDirectory != nil || s.WorkingDirectory != nil)
	u.add("Environment", len(p.Environment)+len(s.Environment) > 0)
	for _, l := range p.Limits.all() {
		u.add(l.element, *l.value != nil)
	}
	u.add("UserName", p.UserName != nil || s.UserName != nil)
	u.add("GroupName", p.GroupName != nil)
	if h := a.HPC; h != nil {
		u.path = "hpcpa:"
		u.add("Executable", h.Executable != nil)
		u.add("Argument", len(h.Arguments) > 0)
		u.add("Input", h.Input != nil)
		u.add("Output", h.Output != nil)
		u.add("Error", h.Error != nil)
		u.add("WorkingDirectory", h.WorkingDirectory != nil)
		u.add("Environment", len(h.Environment) > 0)
		u.add("UserName", h.UserName != nil)
	}
	if a.SPMD != nil {
		u.path = "spmd:"
		u.add("NumberOfProcesses", s.NumberOfProcesses != nil)
		u.add("ProcessesPerHost", s.ProcessesPerHost != nil)
		u.add("ThreadsPerProcess", s.ThreadsPerProcess != nil)
		u.add("SPMDVariation", true)
	}
}

func (u *uses) resources(r *Resources) {
	const path = "jsdl:Resources/jsdl:"
	u.path = path
	u.add("CandidateHosts", len(r.CandidateHosts) > 0)
	u.add("FileSystem", len(r.FileSystems) > 0)
	has := func(f func(*FileSystem) bool) bool {
		for i := range r.FileSystems {
			if f(&r.FileSystems[i]) {
				return true
			}
		}
		return false
	}
	u.path = path + "FileSystem/jsdl:"
	u.add("FileSystemType", has(func(f *FileSystem) bool { return f.Type != "" }))
	u.add("Description", has(func(f *FileSystem) bool { return f.Description != nil }))
	u.add("MountPoint", has(func(f *FileSystem) bool { return f.MountPoint != nil }))
	u.add("DiskSpace", has(func(f *FileSystem) bool { return f.DiskSpace != nil }))
	u.path = path
	u.add("ExclusiveExecution", r.ExclusiveExecution != nil)
	if o := r.OperatingSystem; o != nil {
		u.path = path + "OperatingSystem/jsdl:"
		u.add("OperatingSystemType", o.HasType || o.Name != "")
		u.add("OperatingSystemVersion", o.Version != nil)
		u.add("Description", o.Description != nil)
		u.path = path
	}
	u.add("CPUArchitecture", r.CPUArchitecture != nil)
	u.add("IndividualCPUSpeed", r.IndividualCPUSpeed != nil)
	u.add("IndividualCPUTime", r.IndividualCPUTime != nil)
	u.add("IndividualCPUCount", r.IndividualCPUCount != nil)
	u.add("IndividualNetworkBandwidth", r.IndividualNetworkBandwidth != nil)
	u.add("IndividualPhysicalMemory", r.IndividualPhysicalMemory != nil)
	u.add("IndividualVirtualMemory", r.IndividualVirtualMemory != nil)
	u.add("IndividualDiskSpace", r.IndividualDiskSpace != nil)
	u.add("TotalCPUTime", r.TotalCPUTime != nil)
	u.add("TotalCPUCount", r.TotalCPUCount != nil)
	u.add("TotalPhysicalMemory", r.TotalPhysicalMemory != nil)
	u.add("TotalVirtualMemory", r.TotalVirtualMemory != nil)
	u.add("TotalDiskSpace", r.TotalDiskSpace != nil)
	u.add("TotalResourceCount", r.TotalResourceCount != nil)
	if p := r.Placement; p != nil {
		u.path = "portolan:Placement/portolan:"
		u.add("Share", p.Share != nil)
		u.add("QualityOfService", p.QualityOfService != nil)
		u.add("Reservation", p.Reservation != nil)
		u.add("Deadline", p.Deadline != nil)
		u.add("NotBefore", p.NotBefore != nil)
		u.add("Priority", p.Priority != nil)
		u.add("Rerunnable", p.Rerunnable != nil)
		u.add("GPU", len(p.GPUs) > 0)
		u.add("Licence", len(p.Licences) > 0)
		u.add("Constraint", p.Constraint != nil)
		u.add("Container", p.Container != nil)
		u.add("Quorum", p.Quorum != nil)
		u.add("Replicas", p.Replicas != nil)
		u.add("Manager", len(p.Manager) > 0)
	}
}
