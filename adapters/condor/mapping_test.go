package condor_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	osuser "os/user"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/condor"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testbed"
	"github.com/portolan-project/portolan/jsdl"
)

func atLeast(v float64) *jsdl.RangeValue { return &jsdl.RangeValue{Lower: &jsdl.Bound{Value: v}} }

// mapped is an element on its way to the pool.
type mapped struct {
	element string
	set     func(*jsdl.JobDefinition)
	// want are attributes of the job as its schedd has it: a value, or, with "~" before
	// it, a part of an expression. Without any the element is to be refused.
	want map[string]string
}

func resources(d *jsdl.JobDefinition) *jsdl.Resources {
	if d.Description.Resources == nil {
		d.Description.Resources = &jsdl.Resources{}
	}
	return d.Description.Resources
}

func placement(d *jsdl.JobDefinition) *jsdl.Placement {
	r := resources(d)
	if r.Placement == nil {
		r.Placement = &jsdl.Placement{}
	}
	return r.Placement
}

func limits(d *jsdl.JobDefinition) *jsdl.Limits { return &d.Description.Application.POSIX.Limits }

func identification(d *jsdl.JobDefinition) *jsdl.JobIdentification {
	if d.Description.Identification == nil {
		d.Description.Identification = &jsdl.JobIdentification{}
	}
	return d.Description.Identification
}

func spmd(d *jsdl.JobDefinition, change func(*jsdl.SPMDApplication)) {
	p := d.Description.Application.POSIX
	s := &jsdl.SPMDApplication{Executable: p.Executable, NumberOfProcesses: &jsdl.ProcessCount{Value: big.NewInt(2)}, Variation: jsdl.VariationMPI}
	change(s)
	d.Description.Application.POSIX, d.Description.Application.SPMD = nil, s
}

// What is mapped to something of HTCondor's is what the schedd has; what is not is
// refused by its name. What the runner does is proven in the suite, in Programs.
func TestMapping(t *testing.T) {
	c := testbed.StartCondor(t, testbed.CondorOptions{Conf: append([]string{
		"START=False", // jobs are looked at where they wait
		"FOO_LIMIT=3", "GROUP_NAMES=grid, grid.physics",
		"MACHINE_RESOURCE_GPUs=2", "GPUs_DeviceName=\"Tesla T4\"", "HasContainer=True", "STARTD_ATTRS=$(STARTD_ATTRS) HasContainer GPUs_DeviceName",
	}, quick...)})
	site := dir(t, c)
	a := open(t, c, site, "requestsPerSecond: 50\nwholeMachines: true\nmemory: 64")
	t.Cleanup(func() { _ = a.Close() })
	host := strings.Fields(c.MustRun(t, "condor_status", "-af", "Machine"))[0]
	future := time.Now().Add(48 * time.Hour).Truncate(time.Second)
	str := func(s string) *string { return &s }
	yes := true
	seven := big.NewInt(7)
	rows := []mapped{
		{"jsdl:JobIdentification/jsdl:JobName", func(d *jsdl.JobDefinition) { identification(d).JobName = str(`żółć "a", b $(x) 'c' \d`) }, map[string]string{"JobBatchName": `żółć "a", b $(x) 'c' \d`}},
		{"jsdl:JobIdentification/jsdl:Description", func(d *jsdl.JobDefinition) { identification(d).Description = str("what it is") }, map[string]string{"PortolanDescription": "what it is"}},
		{"jsdl:JobIdentification/jsdl:JobAnnotation", func(d *jsdl.JobDefinition) { identification(d).Annotations = []string{"one", "two"} }, map[string]string{"PortolanAnnotation": "one two"}},
		{"jsdl:JobIdentification/jsdl:JobProject", func(d *jsdl.JobDefinition) { identification(d).Projects = []string{"no group", "grid.physics"} }, map[string]string{"AcctGroup": "grid.physics", "PortolanProject": "no group grid.physics"}},
		{"jsdl:Application/jsdl:ApplicationName", func(d *jsdl.JobDefinition) { d.Description.Application.Name = str("blast") }, map[string]string{"PortolanApplication": "blast"}},
		{"jsdl:Application/jsdl:ApplicationVersion", func(d *jsdl.JobDefinition) { d.Description.Application.Version = str("2.1") }, map[string]string{"PortolanApplication": "2.1"}},
		{"posix:CoreDumpLimit", func(d *jsdl.JobDefinition) { limits(d).CoreDump = big.NewInt(512) }, map[string]string{"CoreSize": "512"}},
		{"posix:WallTimeLimit", func(d *jsdl.JobDefinition) { limits(d).WallTime = seven }, map[string]string{"AllowedJobDuration": "72"}},
		{"posix:MemoryLimit", func(d *jsdl.JobDefinition) { limits(d).Memory = seven }, nil},
		{"posix:ProcessCountLimit", func(d *jsdl.JobDefinition) { limits(d).ProcessCount = seven }, nil},
		{"posix:PipeSizeLimit", func(d *jsdl.JobDefinition) { limits(d).PipeSize = seven }, nil},
		{"posix:ThreadCountLimit", func(d *jsdl.JobDefinition) { limits(d).ThreadCount = seven }, nil},
		{"posix:UserName", func(d *jsdl.JobDefinition) { d.Description.Application.POSIX.UserName = str(user(c)) }, map[string]string{"Owner": user(c)}},
		{"posix:GroupName", func(d *jsdl.JobDefinition) { d.Description.Application.POSIX.GroupName = str(group(t, c)) }, map[string]string{"Owner": user(c)}},
		{"spmd:NumberOfProcesses", func(d *jsdl.JobDefinition) { spmd(d, func(*jsdl.SPMDApplication) {}) }, map[string]string{"RequestCpus": "2"}},
		{"spmd:ThreadsPerProcess", func(d *jsdl.JobDefinition) {
			spmd(d, func(s *jsdl.SPMDApplication) { s.ThreadsPerProcess = &jsdl.ProcessCount{Value: big.NewInt(3)} })
		}, map[string]string{"RequestCpus": "6"}},
		{"spmd:ProcessesPerHost", func(d *jsdl.JobDefinition) {
			spmd(d, func(s *jsdl.SPMDApplication) { s.ProcessesPerHost = big.NewInt(2) })
		}, map[string]string{"RequestCpus": "2"}},
		{"jsdl:Resources/jsdl:CandidateHosts", func(d *jsdl.JobDefinition) { resources(d).CandidateHosts = []string{"elsewhere.example", host} }, map[string]string{"Requirements": `~TARGET.Machine == "elsewhere.example" || TARGET.Machine == "` + host + `"`}},
		{"jsdl:Resources/jsdl:ExclusiveExecution", func(d *jsdl.JobDefinition) { resources(d).ExclusiveExecution = &yes }, map[string]string{"RequestCpus": "8", "Requirements": "~TARGET.TotalSlotCpus == 8"}},
		{"jsdl:Resources/jsdl:OperatingSystem/jsdl:OperatingSystemType", func(d *jsdl.JobDefinition) {
			resources(d).OperatingSystem = &jsdl.OperatingSystem{Name: "LINUX", HasType: true}
		}, map[string]string{"Requirements": `~TARGET.OpSys == "LINUX"`}},
		{"jsdl:Resources/jsdl:OperatingSystem/jsdl:OperatingSystemVersion", func(d *jsdl.JobDefinition) {
			v := strings.Fields(c.MustRun(t, "condor_status", "-af", "OpSysAndVer"))[0]
			resources(d).OperatingSystem = &jsdl.OperatingSystem{Version: &v}
		}, map[string]string{"Requirements": `~TARGET.OpSysAndVer == "`}},
		{"jsdl:Resources/jsdl:CPUArchitecture", func(d *jsdl.JobDefinition) { resources(d).CPUArchitecture = &jsdl.CPUArchitecture{Name: "x86"} }, map[string]string{"Requirements": `~TARGET.Arch == "X86_64" || TARGET.Arch == "INTEL"`}},
		{"jsdl:Resources/jsdl:IndividualCPUCount", func(d *jsdl.JobDefinition) { resources(d).IndividualCPUCount = atLeast(2.5) }, map[string]string{"RequestCpus": "3"}},
		{"jsdl:Resources/jsdl:TotalCPUCount", func(d *jsdl.JobDefinition) { resources(d).TotalCPUCount = atLeast(4) }, map[string]string{"RequestCpus": "4"}},
		{"jsdl:Resources/jsdl:TotalResourceCount", func(d *jsdl.JobDefinition) { resources(d).TotalResourceCount = atLeast(1) }, map[string]string{"RequestCpus": "1"}},
		{"jsdl:Resources/jsdl:IndividualPhysicalMemory", func(d *jsdl.JobDefinition) { resources(d).IndividualPhysicalMemory = atLeast(100<<20 + 1) }, map[string]string{"RequestMemory": "101"}},
		{"jsdl:Resources/jsdl:TotalPhysicalMemory", func(d *jsdl.JobDefinition) { resources(d).TotalPhysicalMemory = atLeast(200 << 20) }, map[string]string{"RequestMemory": "200"}},
		{"jsdl:Resources/jsdl:IndividualVirtualMemory", func(d *jsdl.JobDefinition) { resources(d).IndividualVirtualMemory = atLeast(1 << 20) }, map[string]string{"Requirements": "~TARGET.TotalVirtualMemory >= 1024", "RequestMemory": "64"}},
		{"jsdl:Resources/jsdl:TotalVirtualMemory", func(d *jsdl.JobDefinition) { resources(d).TotalVirtualMemory = atLeast(2 << 20) }, map[string]string{"Requirements": "~TARGET.TotalVirtualMemory >= 2048"}},
		{"jsdl:Resources/jsdl:IndividualDiskSpace", func(d *jsdl.JobDefinition) { resources(d).IndividualDiskSpace = atLeast(5<<10 + 1) }, map[string]string{"RequestDisk": "6"}},
		{"jsdl:Resources/jsdl:TotalDiskSpace", func(d *jsdl.JobDefinition) { resources(d).TotalDiskSpace = atLeast(7 << 10) }, map[string]string{"RequestDisk": "7"}},
		{"jsdl:Resources/jsdl:IndividualCPUSpeed", func(d *jsdl.JobDefinition) { resources(d).IndividualCPUSpeed = atLeast(1) }, nil},
		{"jsdl:Resources/jsdl:IndividualNetworkBandwidth", func(d *jsdl.JobDefinition) { resources(d).IndividualNetworkBandwidth = atLeast(1) }, nil},
		{"portolan:Placement/portolan:QualityOfService", func(d *jsdl.JobDefinition) { placement(d).QualityOfService = str("high") }, nil},
		{"portolan:Placement/portolan:Reservation", func(d *jsdl.JobDefinition) { placement(d).Reservation = str("r") }, nil},
		{"portolan:Placement/portolan:Deadline", func(d *jsdl.JobDefinition) { placement(d).Deadline = &future }, map[string]string{"PeriodicRemove": fmt.Sprintf("~time() >= %d", future.Unix()+5)}},
		{"portolan:Placement/portolan:NotBefore", func(d *jsdl.JobDefinition) { placement(d).NotBefore = &future }, map[string]string{"DeferralTime": fmt.Sprint(future.Unix())}},
		{"portolan:Placement/portolan:Priority", func(d *jsdl.JobDefinition) { placement(d).Priority = new(-7) }, map[string]string{"JobPrio": "-7"}},
		{"portolan:Placement/portolan:Rerunnable", func(d *jsdl.JobDefinition) { placement(d).Rerunnable = &yes }, map[string]string{"PortolanRerunnable": "true"}},
		{"portolan:Placement/portolan:GPU", func(d *jsdl.JobDefinition) { placement(d).GPUs = []jsdl.GPU{{Type: "Tesla T4", Count: 2}} }, map[string]string{"RequestGPUs": "2", "RequireGPUs": `~DeviceName == "Tesla T4"`}},
		{"portolan:Placement/portolan:Licence", func(d *jsdl.JobDefinition) { placement(d).Licences = []jsdl.Licence{{Name: "foo", Count: 2}} }, map[string]string{"ConcurrencyLimits": "foo:2"}},
		{"portolan:Placement/portolan:Constraint", func(d *jsdl.JobDefinition) {
			placement(d).Constraint = str("TARGET.Memory > 10 &&\n\tregexp(\"a\", TARGET.Name)")
		}, map[string]string{"Requirements": `~TARGET.Memory > 10 && regexp("a",TARGET.Name)`}},
		{"portolan:Placement/portolan:Container", func(d *jsdl.JobDefinition) { placement(d).Container = str("docker://debian:12") }, map[string]string{"ContainerImage": "docker://debian:12"}},
		{"portolan:Placement/portolan:Quorum", func(d *jsdl.JobDefinition) { placement(d).Quorum = new(2) }, nil},
		{"portolan:Placement/portolan:Replicas", func(d *jsdl.JobDefinition) { placement(d).Replicas = new(2) }, nil},
		{"portolan:Placement/portolan:Manager", func(d *jsdl.JobDefinition) {
			placement(d).Manager = []jsdl.ManagerAttribute{{Name: "WantGlidein", Value: "true"}, {Name: "Weight", Value: "1 + 2"}, {Name: "Site_Name", Value: `"a $(b) c"`}}
		}, map[string]string{"WantGlidein": "true", "Site_Name": "a $(b) c"}},
		{"portolan:Placement/portolan:Share", func(d *jsdl.JobDefinition) { placement(d).Share = str("condor") }, map[string]string{"RequestCpus": "1"}},
		{"jsdl:DataStaging", func(d *jsdl.JobDefinition) {
			d.Description.DataStaging = []jsdl.DataStaging{{FileName: "f", CreationFlag: "overwrite"}}
		}, nil},
	}
	table := map[string]adapters.MappingRow{}
	all, err := adapters.Mapped(condor.Mapping())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range rows {
		seen[r.element] = true
	}
	for _, r := range all {
		table[r.Element] = r
		// The programs of the suite see what the runner does; hpcpa's elements are posix's.
		if r.Becomes != "the runner" && r.Becomes != "nothing" && !strings.HasPrefix(r.Becomes, "(") && !seen[r.Element] && !seen[strings.Replace(r.Element, "hpcpa:", "posix:", 1)] {
			t.Errorf("nothing shows that %s becomes %q", r.Element, r.Becomes)
		}
	}
	var jobs []adapters.Job
	var which []mapped
	for i, r := range rows {
		row, ok := table[r.element]
		if !ok {
			t.Errorf("the table has no %s", r.element)
		}
		if (row.Becomes == "") != (r.want == nil) {
			t.Errorf("the table says of %s that it becomes %q", r.element, row.Becomes)
		}
		d := adaptertest.Command("/bin/true")
		r.set(d)
		err = a.Check(d)
		name := r.element[strings.LastIndexAny(r.element, ":")+1:]
		switch {
		case r.want == nil && (!fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), name)):
			t.Errorf("%s is to be refused by its name; Check says %v", r.element, err)
		case r.want != nil && err != nil:
			t.Errorf("%s is refused: %v", r.element, err)
		case r.want != nil:
			jobs = append(jobs, adapters.Job{Tag: adapters.Tag(fmt.Sprintf("map-%d", i)), Definition: d, Owner: "tester"})
			which = append(which, r)
		}
	}
	for i, p := range a.Submit(t.Context(), jobs) {
		if p.Err != nil {
			t.Errorf("%s: %v", which[i].element, p.Err)
		}
	}
	var ads []map[string]any
	if err := json.Unmarshal([]byte(c.MustRun(t, "condor_q", "-allusers", "-json")), &ads); err != nil {
		t.Fatal(err)
	}
	byTag := map[string]map[string]any{}
	for _, ad := range ads {
		byTag[fmt.Sprint(ad["PortolanTag"])] = ad
	}
	for i, r := range which {
		ad := byTag[string(jobs[i].Tag)]
		if ad == nil {
			t.Errorf("%s: the schedd does not have job %s", r.element, jobs[i].Tag)
			continue
		}
		for name, want := range r.want {
			got := fmt.Sprint(ad[name])
			if f, ok := ad[name].(float64); ok {
				got = fmt.Sprintf("%.0f", f)
			}
			part, isPart := strings.CutPrefix(want, "~")
			if isPart && !strings.Contains(strings.ReplaceAll(got, ", ", ","), strings.ReplaceAll(part, ", ", ",")) || !isPart && got != want {
				t.Errorf("%s: the schedd has %s = %s, want %s", r.element, name, got, want)
			}
		}
	}
}

// user is who jobs run as.
func user(c *testbed.Condor) string {
	if c.User != "" {
		return c.User
	}
	me, err := osuser.Current()
	if err != nil {
		return fmt.Sprint(os.Getuid())
	}
	return me.Username
}

// group is the group of who jobs run as.
func group(t *testing.T, c *testbed.Condor) string {
	t.Helper()
	u, err := osuser.Lookup(user(c))
	if err != nil {
		t.Fatal(err)
	}
	return u.Gid
}

// A job can bring neither an attribute that is not its own, nor an expression that
// would reach beyond its place.
func TestHostileExpressions(t *testing.T) {
	c := testbed.StartCondor(t, testbed.CondorOptions{Conf: []string{"START=False"}})
	a := open(t, c, dir(t, c), "requestsPerSecond: 50")
	t.Cleanup(func() { _ = a.Close() })
	for _, m := range []jsdl.ManagerAttribute{
		{Name: "Owner", Value: `"root"`},
		{Name: "owner", Value: `"root"`},
		{Name: "PortolanTag", Value: `"x"`},
		{Name: "Requirements", Value: "true"},
		{Name: "UserLog", Value: `"/etc/x"`},
		{Name: "a b", Value: "1"},
		{Name: "x = 1\nqueue 5\ny", Value: "1"},
		{Name: "A", Value: ""},
		{Name: "A", Value: "1) || (true"},
		{Name: "A", Value: "\"x"},
		{Name: "A", Value: "1 // x"},
		{Name: "A", Value: "$$(Owner)"},
		{Name: "A", Value: "1\x00"},
		{Name: "A", Value: "foo bar("},
		{Name: "A", Value: "1\nqueue 100"},
		{Name: "Cmd", Value: `"/bin/sh"`},
	} {
		d := adaptertest.Command("/bin/true")
		placement(d).Manager = []jsdl.ManagerAttribute{m}
		if err := a.Check(d); !fail.Is(err, fail.Unsupported) && !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), "Manager") {
			t.Errorf("the attribute %q = %q: %v", m.Name, m.Value, err)
		}
	}
	for _, e := range []string{"true) || (true", "Memory >", "", "(", "\"", "a b", "x /* y */"} {
		d := adaptertest.Command("/bin/true")
		placement(d).Constraint = &e
		if err := a.Check(d); err == nil || !strings.Contains(fail.Sentence(err), "Constraint") {
			t.Errorf("the constraint %q: %v", e, err)
		}
	}
}
