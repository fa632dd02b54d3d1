package boinc_test

import (
	bigint "math/big"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/boinc"
	"github.com/portolan-project/portolan/adapters/boinc/boinctest"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

func big(n int64) *bigint.Int { return bigint.NewInt(n) }

func exactly(v float64) *jsdl.RangeValue { return &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: v}}} }
func atLeast(v float64) *jsdl.RangeValue { return &jsdl.RangeValue{Lower: &jsdl.Bound{Value: v}} }
func atMost(v float64) *jsdl.RangeValue  { return &jsdl.RangeValue{Upper: &jsdl.Bound{Value: v}} }

// asks are jobs that ask for one element each. has looks at what reached the project;
// a job whose element the table refuses needs none.
var asks = map[string]struct {
	ask func(d *jsdl.JobDefinition)
	has func(w boinctest.Workunit, b boinctest.Batch, script string) bool
}{
	"JobName": {func(d *jsdl.JobDefinition) {
		d.Description.Identification = &jsdl.JobIdentification{JobName: new("My <job> & é 7")}
	}, func(_ boinctest.Workunit, b boinctest.Batch, _ string) bool {
		return strings.HasPrefix(b.Name, "portolan_My-job-7_")
	}},
	"Description": {func(d *jsdl.JobDefinition) {
		d.Description.Identification = &jsdl.JobIdentification{Description: new("x")}
	}, anything},
	"JobAnnotation": {func(d *jsdl.JobDefinition) {
		d.Description.Identification = &jsdl.JobIdentification{Annotations: []string{"x"}}
	}, anything},
	"JobProject": {func(d *jsdl.JobDefinition) {
		d.Description.Identification = &jsdl.JobIdentification{Projects: []string{"x"}}
	}, anything},
	"ApplicationName": {func(d *jsdl.JobDefinition) { d.Description.Application = &jsdl.Application{Name: new("tool")} }, isApp(2)},
	"ApplicationVersion": {func(d *jsdl.JobDefinition) {
		d.Description.Application = &jsdl.Application{Name: new("tool"), Version: new("1")}
	}, isApp(2)},
	"Executable":       {func(d *jsdl.JobDefinition) { posix(d).Executable.Value = "/opt/it's here" }, inScript(`'/opt/it'\''s here'`)},
	"Argument":         {func(d *jsdl.JobDefinition) { posix(d).Arguments = []jsdl.Text{{Value: "$(x) 'y'"}} }, inScript(`'$(x) '\''y'\'''`)},
	"Input":            {func(d *jsdl.JobDefinition) { posix(d).Input = &jsdl.Text{Value: "some in"} }, inScript(`in='some in'`)},
	"Output":           {func(d *jsdl.JobDefinition) { posix(d).Output = &jsdl.Text{Value: "some out"} }, inScript(`out='some out'`)},
	"Error":            {func(d *jsdl.JobDefinition) { posix(d).Error = &jsdl.Text{Value: "some err"} }, inScript(`err='some err'`)},
	"WorkingDirectory": {func(d *jsdl.JobDefinition) { posix(d).WorkingDirectory = &jsdl.Text{Value: "sub/dir"} }, inScript(`dir='sub/dir'`)},
	"Environment": {func(d *jsdl.JobDefinition) {
		posix(d).Environment = []jsdl.EnvironmentVariable{{Name: "A.b", Text: jsdl.Text{Value: "c d"}}}
	}, inScript(`'A.b=c d'`)},
	"WallTimeLimit": {func(d *jsdl.JobDefinition) { posix(d).Limits.WallTime = big(7200) }, func(w boinctest.Workunit, _ boinctest.Batch, script string) bool {
		return w.Limits.FpopsBound == 7260*5e9*10 && strings.Contains(script, "timeout -k 5 7200")
	}},
	"FileSizeLimit":        {func(d *jsdl.JobDefinition) { posix(d).Limits.FileSize = big(51200) }, inScript("ulimit -f 100 ")},
	"CoreDumpLimit":        {func(d *jsdl.JobDefinition) { posix(d).Limits.CoreDump = big(0) }, inScript("ulimit -c 0 ")},
	"DataSegmentLimit":     {func(d *jsdl.JobDefinition) { posix(d).Limits.DataSegment = big(1 << 30) }, inScript("ulimit -d 1048576 ")},
	"LockedMemoryLimit":    {func(d *jsdl.JobDefinition) { posix(d).Limits.LockedMemory = big(65536) }, inScript("ulimit -l 64 ")},
	"MemoryLimit":          {ask: func(d *jsdl.JobDefinition) { posix(d).Limits.Memory = big(1) }},
	"OpenDescriptorsLimit": {func(d *jsdl.JobDefinition) { posix(d).Limits.OpenDescriptors = big(17) }, inScript("ulimit -n 17 ")},
	"PipeSizeLimit":        {ask: func(d *jsdl.JobDefinition) { posix(d).Limits.PipeSize = big(1) }},
	"StackSizeLimit":       {func(d *jsdl.JobDefinition) { posix(d).Limits.StackSize = big(1 << 20) }, inScript("ulimit -s 1024 ")},
	"CPUTimeLimit":         {func(d *jsdl.JobDefinition) { posix(d).Limits.CPUTime = big(9) }, inScript("ulimit -S -t 9 ")},
	"ProcessCountLimit":    {ask: func(d *jsdl.JobDefinition) { posix(d).Limits.ProcessCount = big(1) }},
	"VirtualMemoryLimit":   {func(d *jsdl.JobDefinition) { posix(d).Limits.VirtualMemory = big(1 << 30) }, inScript("ulimit -v 1048576 ")},
	"ThreadCountLimit":     {ask: func(d *jsdl.JobDefinition) { posix(d).Limits.ThreadCount = big(1) }},
	"UserName":             {ask: func(d *jsdl.JobDefinition) { posix(d).UserName = new("root") }},
	"GroupName":            {ask: func(d *jsdl.JobDefinition) { posix(d).GroupName = new("root") }},
	"CandidateHosts":       {func(d *jsdl.JobDefinition) { resources(d).CandidateHosts = []string{"VOLUNTEERS"} }, anything},
	"FileSystem": {func(d *jsdl.JobDefinition) {
		resources(d).FileSystems = []jsdl.FileSystem{{Name: "SCRATCH", DiskSpace: atLeast(3e9)}}
		posix(d).Arguments = []jsdl.Text{{Value: "x", FileSystem: "SCRATCH"}}
	}, func(w boinctest.Workunit, _ boinctest.Batch, script string) bool {
		return w.Limits.DiskBound == 3e9 && strings.Contains(script, `"$here"'/scratch/x'`)
	}},
	"ExclusiveExecution": {ask: func(d *jsdl.JobDefinition) { resources(d).ExclusiveExecution = new(true) }},
	"OperatingSystem": {func(d *jsdl.JobDefinition) {
		resources(d).OperatingSystem = &jsdl.OperatingSystem{Name: "LINUX", HasType: true}
	}, anything},
	"CPUArchitecture":            {func(d *jsdl.JobDefinition) { resources(d).CPUArchitecture = &jsdl.CPUArchitecture{Name: "x86_64"} }, anything},
	"IndividualCPUSpeed":         {ask: func(d *jsdl.JobDefinition) { resources(d).IndividualCPUSpeed = atLeast(1) }},
	"IndividualCPUTime":          {func(d *jsdl.JobDefinition) { resources(d).IndividualCPUTime = atMost(3540) }, bound(3600 * 5e9 * 10)},
	"IndividualCPUCount":         {func(d *jsdl.JobDefinition) { resources(d).IndividualCPUCount = exactly(1) }, anything},
	"IndividualNetworkBandwidth": {ask: func(d *jsdl.JobDefinition) { resources(d).IndividualNetworkBandwidth = atLeast(1) }},
	"IndividualPhysicalMemory":   {func(d *jsdl.JobDefinition) { resources(d).IndividualPhysicalMemory = atLeast(5e8) }, memory(5e8)},
	"IndividualVirtualMemory":    {func(d *jsdl.JobDefinition) { resources(d).IndividualVirtualMemory = atLeast(6e8) }, memory(6e8)},
	"IndividualDiskSpace":        {func(d *jsdl.JobDefinition) { resources(d).IndividualDiskSpace = atLeast(7e9) }, disk(7e9)},
	"TotalCPUTime":               {func(d *jsdl.JobDefinition) { resources(d).TotalCPUTime = atMost(3540) }, bound(3600 * 5e9 * 10)},
	"TotalCPUCount":              {func(d *jsdl.JobDefinition) { resources(d).TotalCPUCount = exactly(1) }, anything},
	"TotalPhysicalMemory":        {func(d *jsdl.JobDefinition) { resources(d).TotalPhysicalMemory = atLeast(5e8) }, memory(5e8)},
	"TotalVirtualMemory":         {func(d *jsdl.JobDefinition) { resources(d).TotalVirtualMemory = atLeast(6e8) }, memory(6e8)},
	"TotalDiskSpace":             {func(d *jsdl.JobDefinition) { resources(d).TotalDiskSpace = atLeast(7e9) }, disk(7e9)},
	"TotalResourceCount":         {func(d *jsdl.JobDefinition) { resources(d).TotalResourceCount = exactly(1) }, anything},
	"DataStaging": {ask: func(d *jsdl.JobDefinition) {
		d.Description.DataStaging = []jsdl.DataStaging{{FileName: "f", CreationFlag: "overwrite"}}
	}},
	"Placement/Share":            {func(d *jsdl.JobDefinition) { placement(d).Share = new("run") }, isApp(1)},
	"Placement/QualityOfService": {ask: func(d *jsdl.JobDefinition) { placement(d).QualityOfService = new("x") }},
	"Placement/Reservation":      {ask: func(d *jsdl.JobDefinition) { placement(d).Reservation = new("x") }},
	"Placement/Deadline": {func(d *jsdl.JobDefinition) { placement(d).Deadline = new(time.Now().Add(time.Hour)) }, func(w boinctest.Workunit, _ boinctest.Batch, _ string) bool {
		return w.Limits.DelayBound <= 3600 && w.Limits.DelayBound > 3500
	}},
	"Placement/NotBefore": {ask: func(d *jsdl.JobDefinition) { placement(d).NotBefore = new(time.Now().Add(time.Hour)) }},
	"Placement/Priority": {func(d *jsdl.JobDefinition) { placement(d).Priority = new(7) }, func(w boinctest.Workunit, _ boinctest.Batch, _ string) bool {
		return w.Priority == 7
	}},
	"Placement/Rerunnable": {func(d *jsdl.JobDefinition) { placement(d).Rerunnable = new(true) }, func(w boinctest.Workunit, _ boinctest.Batch, _ string) bool {
		return w.Limits.MaxTotal == 4 && w.Limits.TargetResults == 1
	}},
	"Placement/GPU":        {ask: func(d *jsdl.JobDefinition) { placement(d).GPUs = []jsdl.GPU{{Count: 1}} }},
	"Placement/Licence":    {ask: func(d *jsdl.JobDefinition) { placement(d).Licences = []jsdl.Licence{{Name: "x", Count: 1}} }},
	"Placement/Constraint": {ask: func(d *jsdl.JobDefinition) { placement(d).Constraint = new("x") }},
	"Placement/Container":  {ask: func(d *jsdl.JobDefinition) { placement(d).Container = new("x") }},
	"Placement/Quorum": {func(d *jsdl.JobDefinition) { placement(d).Quorum = new(3) }, func(w boinctest.Workunit, _ boinctest.Batch, script string) bool {
		return w.Limits.MinQuorum == 3 && w.Limits.TargetResults == 3 && w.Limits.MaxTotal == 6 && w.Limits.MaxSuccess <= 6 && strings.Contains(script, "times=0")
	}},
	"Placement/Replicas": {func(d *jsdl.JobDefinition) { placement(d).Quorum, placement(d).Replicas = new(2), new(4) }, func(w boinctest.Workunit, _ boinctest.Batch, _ string) bool {
		return w.Limits.MinQuorum == 2 && w.Limits.TargetResults == 4
	}},
	"Placement/Manager": {ask: func(d *jsdl.JobDefinition) { placement(d).Manager = []jsdl.ManagerAttribute{{Name: "x"}} }},
	"NumberOfProcesses": {ask: spmd(func(a *jsdl.SPMDApplication) { a.NumberOfProcesses = &jsdl.ProcessCount{Value: big(2)} })},
	"ProcessesPerHost":  {ask: spmd(func(a *jsdl.SPMDApplication) { a.ProcessesPerHost = big(2) })},
	"ThreadsPerProcess": {ask: spmd(func(a *jsdl.SPMDApplication) { a.ThreadsPerProcess = &jsdl.ProcessCount{Value: big(2)} })},
	"SPMDVariation":     {ask: spmd(func(a *jsdl.SPMDApplication) { a.Variation = "http://www.ogf.org/jsdl/2007/02/jsdl-spmd/MPI" })},
}

func spmd(change func(*jsdl.SPMDApplication)) func(*jsdl.JobDefinition) {
	return func(d *jsdl.JobDefinition) {
		a := &jsdl.SPMDApplication{Executable: &jsdl.Text{Value: "/bin/true"}}
		change(a)
		d.Description.Application = &jsdl.Application{SPMD: a}
	}
}

func posix(d *jsdl.JobDefinition) *jsdl.POSIXApplication { return d.Description.Application.POSIX }

func resources(d *jsdl.JobDefinition) *jsdl.Resources {
	if d.Description.Resources == nil {
		d.Description.Resources = &jsdl.Resources{}
	}
	return d.Description.Resources
}

func placement(d *jsdl.JobDefinition) *jsdl.Placement {
	if resources(d).Placement == nil {
		resources(d).Placement = &jsdl.Placement{}
	}
	return resources(d).Placement
}

func anything(boinctest.Workunit, boinctest.Batch, string) bool { return true }

func inScript(text string) func(boinctest.Workunit, boinctest.Batch, string) bool {
	return func(_ boinctest.Workunit, _ boinctest.Batch, script string) bool {
		return strings.Contains(script, text)
	}
}

func isApp(id int64) func(boinctest.Workunit, boinctest.Batch, string) bool {
	return func(w boinctest.Workunit, _ boinctest.Batch, _ string) bool { return w.App == id }
}

func bound(f float64) func(boinctest.Workunit, boinctest.Batch, string) bool {
	return func(w boinctest.Workunit, _ boinctest.Batch, _ string) bool { return w.Limits.FpopsBound == f }
}

func memory(f float64) func(boinctest.Workunit, boinctest.Batch, string) bool {
	return func(w boinctest.Workunit, _ boinctest.Batch, _ string) bool { return w.Limits.MemoryBound == f }
}

func disk(f float64) func(boinctest.Workunit, boinctest.Batch, string) bool {
	return func(w boinctest.Workunit, _ boinctest.Batch, _ string) bool { return w.Limits.DiskBound == f }
}

// TestMapping asks the project what each element became, and that Check refuses by
// name what the table says has no place there.
func TestMapping(t *testing.T) {
	t.Parallel()
	config := boinctest.Standard()
	config.Apps = append(config.Apps, boinctest.App{
		ID: 2, Name: "tool", OutputTemplate: "<result></result>", InputTemplate: "<workunit></workunit>",
		Versions: []boinctest.AppVersion{{Number: 100, Platform: boinctest.Linux}},
	})
	s := start(t, config) // with no hosts: jobs stay as they came
	a := s.gateway(t, "applications: [{name: tool}]\nabsolutePaths: false")
	if _, err := adapters.Mapped(boinc.Mapping()); err != nil {
		t.Error(err)
	}
	for _, row := range boinc.Mapping() {
		name, element, _ := strings.Cut(row.Element, "/")
		if element == "" {
			element = name
		}
		c, tested := asks[row.Element]
		switch {
		case row.Element == "" || row.Note == "":
			t.Errorf("the row %+v says too little", row)
			continue
		case !tested:
			t.Errorf("no job asks for %s", row.Element)
			continue
		}
		d := adaptertest.Command("/bin/true")
		c.ask(d)
		if row.Becomes == "" {
			if err := a.Check(d); !fail.Is(err, fail.Unsupported) {
				t.Errorf("%s: the table says that it is refused, Check says %v", row.Element, err)
				continue
			}
			refused(t, a, d, element)
			continue
		}
		if c.has == nil {
			t.Errorf("%s: nobody looks for what it became", row.Element)
			continue
		}
		tag := adapters.Tag("map-" + strings.ReplaceAll(row.Element, "/", "-"))
		h, err := submit(t, a, tag, d)
		if err != nil || h == nil {
			t.Errorf("%s: %v", row.Element, err)
			continue
		}
		w := s.workunit(t, tag)
		script := ""
		if len(w.Inputs) > 0 {
			content, err := s.Project().Content(w.Inputs[0].Name)
			if err != nil {
				t.Fatal(err)
			}
			script = string(content)
		}
		var batch boinctest.Batch
		for _, b := range s.Project().Batches() {
			if b.ID == w.Batch {
				batch = b
			}
		}
		if !c.has(w, batch, script) {
			t.Errorf("%s: the project holds %+v in batch %q with the script\n%s", row.Element, w, batch.Name, script)
		}
	}
}

// What stands against hosts of strangers is refused by name.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard())
	a := s.gateway(t, "absolutePaths: false\ncapacity: {memory: 1000000000, disk: 1000000000}")
	job := func(change func(*jsdl.JobDefinition)) *jsdl.JobDefinition {
		d := adaptertest.Command("/bin/true")
		change(d)
		return d
	}
	for _, c := range []struct {
		words []string
		d     *jsdl.JobDefinition
	}{
		{[]string{"Input"}, job(func(d *jsdl.JobDefinition) { posix(d).Input = &jsdl.Text{Value: "/etc/passwd"} })},
		{[]string{"Output"}, job(func(d *jsdl.JobDefinition) { posix(d).Output = &jsdl.Text{Value: "../../x"} })},
		{[]string{"WorkingDirectory"}, job(func(d *jsdl.JobDefinition) { posix(d).WorkingDirectory = &jsdl.Text{Value: "/tmp"} })},
		{[]string{"FileSystem"}, job(func(d *jsdl.JobDefinition) {
			resources(d).FileSystems = []jsdl.FileSystem{{Name: "data", MountPoint: new("/data")}}
		})},
		{[]string{"CandidateHosts"}, job(func(d *jsdl.JobDefinition) { resources(d).CandidateHosts = []string{"localhost"} })},
		{[]string{"OperatingSystem"}, job(func(d *jsdl.JobDefinition) {
			resources(d).OperatingSystem = &jsdl.OperatingSystem{Name: "WINNT", HasType: true}
		})},
		{[]string{"CPUArchitecture"}, job(func(d *jsdl.JobDefinition) { resources(d).CPUArchitecture = &jsdl.CPUArchitecture{Name: "sparc"} })},
		{[]string{"IndividualCPUCount"}, job(func(d *jsdl.JobDefinition) { resources(d).IndividualCPUCount = atLeast(2) })},
		{[]string{"TotalResourceCount"}, job(func(d *jsdl.JobDefinition) { resources(d).TotalResourceCount = exactly(2) })},
		{[]string{"IndividualPhysicalMemory"}, job(func(d *jsdl.JobDefinition) { resources(d).IndividualPhysicalMemory = atLeast(2e9) })},
		{[]string{"TotalDiskSpace"}, job(func(d *jsdl.JobDefinition) { resources(d).TotalDiskSpace = atLeast(2e9) })},
		{[]string{"Placement/Quorum"}, job(func(d *jsdl.JobDefinition) { placement(d).Quorum = new(100) })},
		{[]string{"Placement/Replicas"}, job(func(d *jsdl.JobDefinition) { placement(d).Quorum, placement(d).Replicas = new(3), new(2) })},
		{[]string{"UserName", "CandidateHosts", "Constraint"}, job(func(d *jsdl.JobDefinition) {
			posix(d).UserName = new("x")
			resources(d).CandidateHosts = []string{"h"}
			placement(d).Constraint = new("x")
		})},
	} {
		refused(t, a, c.d, c.words...)
	}
	if p := a.Submit(t.Context(), []adapters.Job{{Tag: "account", Definition: sh("true"), Account: "alice"}}); !fail.Is(p[0].Err, fail.Unsupported) {
		t.Errorf("a job for a local account gives %v", p[0].Err)
	}
}

// Without a wrapper application only installed ones run.
func TestWithoutWrapper(t *testing.T) {
	t.Parallel()
	config := boinctest.Standard()
	config.Apps = append(config.Apps, boinctest.App{
		ID: 2, Name: "wc_2", InputTemplate: "<input_template><workunit></workunit></input_template>",
		OutputTemplate: `<file_info><name><OUTFILE_0/></name></file_info><result><file_ref><file_name><OUTFILE_0/></file_name><open_name>stdout</open_name><copy_file/></file_ref></result>`,
		Versions:       []boinctest.AppVersion{{Number: 100, Platform: boinctest.Linux}, {Number: 200, Platform: boinctest.Linux}},
		Program:        boinctest.Program{Kind: "native", Path: "/bin/echo"},
	})
	s := start(t, config, host())
	key, err := s.WriteKey()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := adapters.ParseSettings("url: " + s.URL + "\nauthenticatorFile: " + key + "\npoll: 50ms\nrequestsPerSecond: 200\napplications: [{name: wordcount, app: wc_2, appVersion: 200, stdout: 0}]")
	if err != nil {
		t.Fatal(err)
	}
	b, err := boinc.Open(adapters.Config{Site: "x", Dir: t.TempDir(), Settings: parsed})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	refused(t, b, sh("true"), "Executable", "wordcount")
	refused(t, b, &jsdl.JobDefinition{}, "Application", "wordcount")
	refused(t, b, &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{Name: new("other")}}}, "ApplicationName", "wordcount")
	d := &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{Name: new("wordcount"), POSIX: &jsdl.POSIXApplication{Arguments: []jsdl.Text{{Value: "a"}, {Value: "b"}}}}}}
	h := place(t, b, "native", d)
	exits(t, b, h, 0)
	if out := output(t, b, h, adapters.Stdout); out != "a b\n" {
		t.Errorf("the output is %q", out)
	}
	if w := s.workunit(t, "native"); w.VersionNum != 200 || w.CommandLine != "a b" {
		t.Errorf("the project holds %+v", w)
	}
	withEnvironment := &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{Name: new("wordcount"), POSIX: &jsdl.POSIXApplication{
		Environment: []jsdl.EnvironmentVariable{{Name: "A"}}, Output: &jsdl.Text{Value: "x"}, Limits: jsdl.Limits{CPUTime: big(1)},
	}}}}
	refused(t, b, withEnvironment, "Environment", "Output", "CPUTimeLimit")
}
