package resourcemodel

import (
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// document wraps the content of Resources into a whole job.
func document(t testing.TB, resources string) *jsdl.JobDefinition {
	t.Helper()
	return parse(t, `<jsdl:Application><posix:POSIXApplication><posix:Executable>/bin/true</posix:Executable></posix:POSIXApplication></jsdl:Application>`, resources)
}

func parse(t testing.TB, application, resources string) *jsdl.JobDefinition {
	t.Helper()
	j, problems := jsdl.Parse([]byte(`<jsdl:JobDefinition xmlns:jsdl="`+jsdl.NS+`" xmlns:posix="`+jsdl.NSPOSIX+`" xmlns:spmd="`+jsdl.NSSPMD+`" xmlns:p="`+jsdl.NSPortolan+`"><jsdl:JobDescription>`+
		application+`<jsdl:Resources>`+resources+`</jsdl:Resources></jsdl:JobDescription></jsdl:JobDefinition>`), jsdl.Options{})
	if err := problems.Err(); err != nil {
		t.Fatalf("%s: %v", resources, err)
	}
	return j
}

var noon = time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC)

// hpc is a site with two shares over one environment of four nodes.
func hpc() *Site {
	return &Site{
		Key: Key{Site: "hpc"},
		Static: &Static{
			Type: "slurm", Labels: []string{"campus"},
			Shares: []Share{
				{ID: "long", Environments: []string{"thin"}, MaxCPUs: 16, MaxWallTime: 48 * time.Hour, Price: 0.5},
				{ID: "bio", Environments: []string{"thin"}, MaxNodes: 2, MaxWallTime: time.Hour, Slots: 10, Policy: Policy{Allow: []string{"vo:bio"}, Deny: []string{"user:mallory"}}},
			},
			Environments: []Environment{{
				ID: "thin", OperatingSystem: "LINUX", OSVersion: "6.1", CPUArchitecture: "x86_64", CPUs: 16, CPUSpeed: 2.5e9, Memory: 64 << 30, Disk: 1 << 40,
				GPUs: map[string]int{"a100": 2, "": 1}, Features: []string{"ib", "avx"}, HostNames: []string{"n1", "n2", "n3", "n4"},
				FileSystems: []FileSystem{{Name: "work", Type: "normal", MountPoint: "/work", Size: 10 << 40}}, Benchmarks: map[string]float64{"hepspec": 12.5},
			}},
			Applications: []Application{{Name: "blast", Version: "2.1"}, {Name: "lammps", Environments: []string{"other"}}},
			Consumables:  []Consumable{{Name: "matlab", Total: 5}},
			Data:         []Data{{Prefix: "gsiftp://store.campus.example/", Distance: 0}, {Prefix: "http://", Distance: 4}},
		},
		Dynamic: &Dynamic{
			Up: true, Shares: map[string]ShareState{"long": {Open: true, Running: 3, Waiting: 2, FreeSlots: 5}, "bio": {Open: true, FreeSlots: 1}},
			Environments: map[string]EnvironmentState{"thin": {Nodes: 4, Available: 3, FreeNodes: 1, FreeCPUs: 24, FreeMemory: 100 << 30}},
			Consumables:  map[string]int64{"matlab": 2},
		},
	}
}

func (s *Site) where(share string) Where {
	for i := range s.Static.Shares {
		if s.Static.Shares[i].ID == share {
			return Where{s, &s.Static.Shares[i], &s.Static.Environments[0]}
		}
	}
	panic("no such share")
}

const posixBegin, posixEnd = `<jsdl:Application><posix:POSIXApplication><posix:Executable>/bin/true</posix:Executable>`, `</posix:POSIXApplication></jsdl:Application>`

func exact(element, n string) string {
	return "<jsdl:" + element + "><jsdl:Exact>" + n + "</jsdl:Exact></jsdl:" + element + ">"
}

func atLeast(element, n string) string {
	return "<jsdl:" + element + "><jsdl:LowerBoundedRange>" + n + "</jsdl:LowerBoundedRange></jsdl:" + element + ">"
}

// What stands against the share long of hpc, in words; "" starts now.
func TestJudge(t *testing.T) {
	app := func(name, version string) string {
		s := `<jsdl:Application><jsdl:ApplicationName>` + name + `</jsdl:ApplicationName>`
		if version != "" {
			s += `<jsdl:ApplicationVersion>` + version + `</jsdl:ApplicationVersion>`
		}
		return s + `</jsdl:Application>`
	}
	spmd := func(processes, perHost string) string {
		return `<jsdl:Application><spmd:SPMDApplication><posix:Executable>a</posix:Executable><spmd:NumberOfProcesses>` + processes + `</spmd:NumberOfProcesses>` +
			`<spmd:ProcessesPerHost>` + perHost + `</spmd:ProcessesPerHost><spmd:SPMDVariation>` + jsdl.VariationMPI + `</spmd:SPMDVariation></spmd:SPMDApplication></jsdl:Application>`
	}
	placement := func(s string) string { return "<p:Placement>" + s + "</p:Placement>" }
	for _, c := range []struct {
		name, application, resources string
		share                        string
		who                          Subject
		could, now                   bool
		first                        string
	}{
		{name: "nothing asked", could: true, now: true},
		{name: "more than the share allows", resources: exact("TotalCPUCount", "64"), first: "TotalCPUCount asks for 64, and the share long allows 16"},
		{name: "as much as it allows", resources: exact("TotalCPUCount", "16"), could: true, now: true},
		{name: "a range that a smaller place serves", resources: "<jsdl:TotalCPUCount><jsdl:UpperBoundedRange>64</jsdl:UpperBoundedRange></jsdl:TotalCPUCount>", could: true, now: true},
		{name: "more than a node has", resources: atLeast("IndividualCPUCount", "17"), first: "IndividualCPUCount asks for at least 17, and a node of the environment thin has 16"},
		{name: "more nodes than there are", resources: exact("TotalResourceCount", "5"), first: "TotalResourceCount asks for 5, and the environment thin has 4 such nodes"},
		{name: "more nodes than can take jobs", resources: exact("TotalResourceCount", "4"), could: true, first: "TotalResourceCount asks for 4, and of the 4 nodes of the environment thin 3 can take jobs at present"},
		{
			name: "counts that contradict each other here", resources: exact("IndividualCPUCount", "8") + exact("TotalResourceCount", "3"),
			first: "IndividualCPUCount (8) and TotalResourceCount (3) can't be had together: the share long allows 16 (4 nodes, 16 CPUs on each, 64 GiB of memory on each)",
		},
		{name: "memory of a node", resources: atLeast("IndividualPhysicalMemory", "137438953472"), first: "IndividualPhysicalMemory asks for at least 128 GiB, and a node of the environment thin has 64 GiB of memory"},
		{name: "memory in all on several nodes", resources: atLeast("TotalPhysicalMemory", "103079215104"), could: true, now: true},
		{name: "memory in all that is not free", resources: atLeast("TotalPhysicalMemory", "137438953472"), could: true, first: "TotalPhysicalMemory asks for at least 128 GiB, and 100 GiB of memory are free on the environment thin"},
		{
			name: "exclusive hosts", resources: `<jsdl:ExclusiveExecution>true</jsdl:ExclusiveExecution>` + exact("TotalResourceCount", "2"), could: true,
			first: "TotalResourceCount (2) and ExclusiveExecution (hosts of the job's own) can't be had together: the environment thin has 1 idle node (3 nodes, 16 CPUs on each, 64 GiB of memory on each)",
		},
		{name: "a node by name", resources: "<jsdl:CandidateHosts><jsdl:HostName>N3</jsdl:HostName></jsdl:CandidateHosts>", could: true, now: true},
		{name: "the site by its label", resources: "<jsdl:CandidateHosts><jsdl:HostName>campus</jsdl:HostName></jsdl:CandidateHosts>", could: true, now: true},
		{
			name: "another's node", resources: "<jsdl:CandidateHosts><jsdl:HostName>x1</jsdl:HostName></jsdl:CandidateHosts>",
			first: `CandidateHosts asks for "x1", which is neither the site hpc nor a node of the environment thin`,
		},
		{
			name: "more nodes than are named", resources: "<jsdl:CandidateHosts><jsdl:HostName>n1</jsdl:HostName><jsdl:HostName>n2</jsdl:HostName></jsdl:CandidateHosts>" + exact("TotalResourceCount", "3"),
			first: "TotalResourceCount asks for 3, and the environment thin has 2 such nodes",
		},
		{
			name: "another system", resources: "<jsdl:OperatingSystem><jsdl:OperatingSystemType><jsdl:OperatingSystemName>Solaris</jsdl:OperatingSystemName></jsdl:OperatingSystemType></jsdl:OperatingSystem>",
			first: `OperatingSystemName asks for "Solaris", and the nodes of the environment thin run "LINUX"`,
		},
		{name: "x86 of either width", resources: "<jsdl:CPUArchitecture><jsdl:CPUArchitectureName>x86</jsdl:CPUArchitectureName></jsdl:CPUArchitecture>", could: true, now: true},
		{
			name: "the speed is what it is", resources: "<jsdl:IndividualCPUSpeed><jsdl:UpperBoundedRange>2e9</jsdl:UpperBoundedRange></jsdl:IndividualCPUSpeed>",
			first: "IndividualCPUSpeed asks for at most 2 GHz, and the CPUs of the environment thin have 2.5 GHz",
		},
		{name: "a speed that is not known", resources: atLeast("IndividualNetworkBandwidth", "1e9"), could: true, now: true},
		{
			name: "a file system elsewhere", resources: `<jsdl:FileSystem name="work"><jsdl:MountPoint>/data</jsdl:MountPoint></jsdl:FileSystem>`,
			first: `FileSystem work asks for one mounted at "/data", and that of the environment thin is mounted at "/work"`,
		},
		{name: "a file system of one's own", resources: `<jsdl:FileSystem name="mine"/>`, could: true, now: true},
		{name: "an application", application: app("blast", "2.1"), could: true, now: true},
		{name: "another version", application: app("blast", "3"), first: "ApplicationVersion asks for blast 3, and the environment thin has 2.1"},
		{name: "an application elsewhere", application: app("lammps", ""), first: "ApplicationName asks for lammps, which the environment thin does not have"},
		{name: "time", application: posixBegin + "<posix:WallTimeLimit>259200</posix:WallTimeLimit>" + posixEnd, first: "WallTimeLimit asks for 72h, and the share long lets a job run for at most 48h"},
		{name: "time of CPUs", resources: atLeast("TotalCPUTime", "2764801"), first: "TotalCPUTime asks for at least 768h0m1s, and the share long lets a job run for at most 48h"},
		{name: "processes", application: spmd("17", "16"), first: "NumberOfProcesses asks for room for 17 processes, at most 16 on a host, and the share long allows 16"},
		{name: "processes on too many hosts", application: spmd("10", "2"), first: "NumberOfProcesses asks for room for 10 processes, at most 2 on a host, and the share long allows 16"},
		{name: "GPUs of a type", resources: placement(`<p:GPU type="A100">2</p:GPU><p:GPU>1</p:GPU>`), could: true, now: true},
		{name: "too many GPUs of a type", resources: placement(`<p:GPU type="a100">3</p:GPU>`), first: "GPU asks for 3 of the type a100 on each host, and a node of the environment thin has 1 and 2 of the type a100"},
		{name: "licences that are there", resources: placement(`<p:Licence name="matlab">2</p:Licence>`), could: true, now: true},
		{name: "licences that are taken", resources: placement(`<p:Licence name="matlab">3</p:Licence>`), could: true, first: "Licence matlab asks for 3, and 2 are free at the site hpc"},
		{name: "too many licences", resources: placement(`<p:Licence name="matlab">6</p:Licence>`), first: "Licence matlab asks for 6, and the site hpc has 5"},
		{name: "features", resources: placement(`<p:Constraint>ib&amp;avx</p:Constraint>`), could: true, now: true},
		{name: "a feature that is not there", resources: placement(`<p:Constraint>ib&amp;hbm</p:Constraint>`), first: `Constraint asks for "ib&hbm", and the nodes of the environment thin have ib and avx`},
		{name: "an expression of the manager's", resources: placement(`<p:Constraint>[ib*2&amp;avx]</p:Constraint>`), could: true, now: true},
		{name: "another share", resources: placement(`<p:Share>short</p:Share>`), first: `Share asks for "short", and this is long`},
		{name: "too early", resources: placement(`<p:NotBefore>2031-03-01T13:00:00Z</p:NotBefore>`), could: true, first: "NotBefore says that the job must not start before 2031-03-01T13:00:00Z"},
		{name: "too late", resources: placement(`<p:Deadline>2031-03-01T11:00:00Z</p:Deadline>`), first: "Deadline is 2031-03-01T11:00:00Z, which has passed"},
		{name: "another VO's share", share: "bio", first: "the share bio is for the VO bio, and the job is of no VO"},
		{name: "one's own", share: "bio", who: Subject{User: "ann", VO: "bio"}, could: true, now: true},
		{name: "denied", share: "bio", who: Subject{User: "mallory", VO: "bio"}, first: "the share bio is closed to the user mallory, and the job is of the VO bio"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.application == "" {
				c.application = posixBegin + posixEnd
			}
			r, err := Compile(parse(t, c.application, c.resources), c.who)
			if err != nil {
				t.Fatal(err)
			}
			if c.share == "" {
				c.share = "long"
			}
			w, d := hpc().where(c.share), Derived{Now: noon}
			v := r.Judge(w.Site, w.Share, w.Environment, d)
			first := ""
			if len(v.Clauses) > 0 {
				first = v.Clauses[0].Sentence
			}
			if v.Could != c.could || v.Now != c.now || first != c.first {
				t.Errorf("could %v, now %v, %q; want %v, %v, %q", v.Could, v.Now, first, c.could, c.now, c.first)
			}
			if v.Could != r.Fits(w, d) || v.Now != r.Starts(w, d) || v.Now != (r.Room(w, d) > 0) {
				t.Errorf("Fits %v, Starts %v, Room %d; Judge says %+v", r.Fits(w, d), r.Starts(w, d), r.Room(w, d), v)
			}
			for _, one := range v.Clauses {
				if one.Element == "" || one.Asked == "" || one.Has == "" || strings.Contains(one.Sentence, "  ") {
					t.Errorf("%+v", one)
				}
			}
		})
	}
}
