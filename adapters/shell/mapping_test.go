package shell_test

import (
	"fmt"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// probe is how one element is seen by the program that is run with it.
type probe struct {
	job    *jsdl.JobDefinition
	sees   string              // in what it writes
	ends   string              // in the reason or signal of its end
	cannot *jsdl.JobDefinition // what is refused by the element's name
}

// probes give one for each element that a document can hold.
func probes(t *testing.T, a *shell.Adapter) map[string]probe {
	r, err := a.Resources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	machine := r.Environments[0]
	script := func(s string, change func(*jsdl.POSIXApplication)) *jsdl.JobDefinition {
		d := adaptertest.Command("/bin/sh", "-c", s)
		if change != nil {
			change(d.Description.Application.POSIX)
		}
		return d
	}
	hpc := func(s string, change func(*jsdl.HPCProfileApplication)) *jsdl.JobDefinition {
		sh := "/bin/sh"
		h := &jsdl.HPCProfileApplication{Executable: &sh, Arguments: []string{"-c", s}}
		if change != nil {
			change(h)
		}
		return &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{HPC: h}}}
	}
	needs := func(r jsdl.Resources) *jsdl.JobDefinition {
		d := script("echo ran", nil)
		d.Description.Resources = &r
		return d
	}
	placed := func(p jsdl.Placement) *jsdl.JobDefinition { return needs(jsdl.Resources{Placement: &p}) }
	limit := func(s string, set func(*jsdl.Limits, *big.Int), n int64) *jsdl.JobDefinition {
		return script(s, func(p *jsdl.POSIXApplication) { set(&p.Limits, big.NewInt(n)) })
	}
	text := func(s string) *jsdl.Text { return &jsdl.Text{Value: s} }
	is := func(n float64) *jsdl.RangeValue { return &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: n}}} }
	least := func(n float64) *jsdl.RangeValue { return &jsdl.RangeValue{Lower: &jsdl.Bound{Value: n}} }
	word, other, yes, n := "seen-word", "no-such-thing", true, 2
	share := "shell"
	dir := t.TempDir()
	input := filepath.Join(dir, "input")
	if err := os.WriteFile(input, []byte("from input\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ranked := func(s string, change func(*jsdl.SPMDApplication)) *jsdl.JobDefinition {
		return spmd(2, s, func(app *jsdl.SPMDApplication, _ *jsdl.Resources) {
			if change != nil {
				change(app)
			}
		})
	}
	with := func(d *jsdl.JobDefinition, change func(*jsdl.JobDescription)) *jsdl.JobDefinition {
		change(&d.Description)
		return d
	}
	id := func(s string, id jsdl.JobIdentification) *jsdl.JobDefinition {
		return with(script(s, nil), func(d *jsdl.JobDescription) { d.Identification = &id })
	}
	files := func(f jsdl.FileSystem, s string, args ...jsdl.Text) *jsdl.JobDefinition {
		return with(script(s, func(p *jsdl.POSIXApplication) { p.Arguments = append(append(p.Arguments, *text("sh")), args...) }), func(d *jsdl.JobDescription) {
			d.Resources = &jsdl.Resources{FileSystems: []jsdl.FileSystem{f}}
		})
	}
	uri := "http://example.org/f"
	return map[string]probe{
		"jsdl:JobIdentification/jsdl:JobName":       {job: id("echo $PORTOLAN_JOB_NAME", jsdl.JobIdentification{JobName: &word}), sees: word},
		"jsdl:JobIdentification/jsdl:Description":   {job: id("echo ran", jsdl.JobIdentification{Description: &word}), sees: "ran"},
		"jsdl:JobIdentification/jsdl:JobAnnotation": {job: id("echo ran", jsdl.JobIdentification{Annotations: []string{word}}), sees: "ran"},
		"jsdl:JobIdentification/jsdl:JobProject":    {job: id("echo $PORTOLAN_JOB_PROJECT", jsdl.JobIdentification{Projects: []string{"a", "b"}}), sees: "a,b"},
		"jsdl:Application/jsdl:ApplicationName":     {job: with(script("echo ran", nil), func(d *jsdl.JobDescription) { d.Application.Name = &word }), sees: "ran"},
		"jsdl:Application/jsdl:ApplicationVersion":  {job: with(script("echo ran", nil), func(d *jsdl.JobDescription) { d.Application.Version = &word }), sees: "ran"},
		"jsdl:Application/jsdl:Description":         {job: with(script("echo ran", nil), func(d *jsdl.JobDescription) { d.Application.Description = &word }), sees: "ran"},

		"posix:Executable":       {job: script("readlink /proc/$$/exe", nil), sees: "/"},
		"posix:Argument":         {job: script("echo $0", func(p *jsdl.POSIXApplication) { p.Arguments = append(p.Arguments, *text(word)) }), sees: word},
		"posix:Input":            {job: script("cat", func(p *jsdl.POSIXApplication) { p.Input = text(input) }), sees: "from input"},
		"posix:Output":           {job: script("readlink /proc/$$/fd/1; cat o", func(p *jsdl.POSIXApplication) { p.Output = text("o") }), sees: "/work/o"},
		"posix:Error":            {job: script("readlink /proc/$$/fd/2", func(p *jsdl.POSIXApplication) { p.Error = text("e") }), sees: "/work/e"},
		"posix:WorkingDirectory": {job: script("pwd", func(p *jsdl.POSIXApplication) { p.WorkingDirectory = text(dir) }), sees: dir},
		"posix:Environment": {job: script("echo $SEEN", func(p *jsdl.POSIXApplication) {
			p.Environment = []jsdl.EnvironmentVariable{{Name: "SEEN", Text: *text(word)}}
		}), sees: word},
		"posix:WallTimeLimit":        {job: limit("sleep 1000", func(l *jsdl.Limits, n *big.Int) { l.WallTime = n }, 1), ends: "WallTimeLimit"},
		"posix:FileSizeLimit":        {job: limit("ulimit -f", func(l *jsdl.Limits, n *big.Int) { l.FileSize = n }, 4096), sees: "8\n"},
		"posix:CoreDumpLimit":        {job: limit("ulimit -c", func(l *jsdl.Limits, n *big.Int) { l.CoreDump = n }, 1024), sees: "2\n"},
		"posix:DataSegmentLimit":     {job: limit("ulimit -d", func(l *jsdl.Limits, n *big.Int) { l.DataSegment = n }, 64<<20), sees: "65536\n"},
		"posix:LockedMemoryLimit":    {job: limit("grep 'Max locked' /proc/self/limits", func(l *jsdl.Limits, n *big.Int) { l.LockedMemory = n }, 65536), sees: " 65536 "},
		"posix:MemoryLimit":          {job: limit("exec tail -n 1 /dev/zero", func(l *jsdl.Limits, n *big.Int) { l.Memory = n }, 32<<20), ends: "MemoryLimit"},
		"posix:OpenDescriptorsLimit": {job: limit("ulimit -n", func(l *jsdl.Limits, n *big.Int) { l.OpenDescriptors = n }, 17), sees: "17\n"},
		"posix:PipeSizeLimit":        {cannot: limit("true", func(l *jsdl.Limits, n *big.Int) { l.PipeSize = n }, 4096)},
		"posix:StackSizeLimit":       {job: limit("ulimit -s", func(l *jsdl.Limits, n *big.Int) { l.StackSize = n }, 1<<20), sees: "1024\n"},
		"posix:CPUTimeLimit":         {job: limit("while :; do :; done", func(l *jsdl.Limits, n *big.Int) { l.CPUTime = n }, 1), ends: "CPUTimeLimit"},
		"posix:ProcessCountLimit": {job: limit("(i=0; while [ $i -lt 30 ]; do sleep 1 & i=$((i+1)); done; echo all) 2> /dev/null; echo over",
			func(l *jsdl.Limits, n *big.Int) { l.ProcessCount = n }, 10), sees: "over"},
		"posix:VirtualMemoryLimit": {job: limit("ulimit -v", func(l *jsdl.Limits, n *big.Int) { l.VirtualMemory = n }, 256<<20), sees: "262144\n"},
		"posix:ThreadCountLimit":   {cannot: limit("true", func(l *jsdl.Limits, n *big.Int) { l.ThreadCount = n }, 4)},
		"posix:UserName": {
			job: script("id -un", func(p *jsdl.POSIXApplication) { me := whoami(t); p.UserName = &me }), sees: whoami(t),
			cannot: script("true", func(p *jsdl.POSIXApplication) { p.UserName = &other }),
		},
		"posix:GroupName": {cannot: script("true", func(p *jsdl.POSIXApplication) { p.GroupName = &other }), job: script("id -gn", nil), sees: "\n"},

		"hpcpa:Executable": {job: hpc("readlink /proc/$$/exe", nil), sees: "/"},
		"hpcpa:Argument":   {job: hpc("echo $0", func(h *jsdl.HPCProfileApplication) { h.Arguments = append(h.Arguments, word) }), sees: word},
		"hpcpa:Input":      {job: hpc("cat", func(h *jsdl.HPCProfileApplication) { h.Input = &input }), sees: "from input"},
		"hpcpa:Output": {job: hpc("readlink /proc/$$/fd/1", func(h *jsdl.HPCProfileApplication) {
			o := "o"
			h.Output = &o
		}), sees: "/work/o"},
		"hpcpa:Error": {job: hpc("readlink /proc/$$/fd/2", func(h *jsdl.HPCProfileApplication) {
			e := "e"
			h.Error = &e
		}), sees: "/work/e"},
		"hpcpa:WorkingDirectory": {job: hpc("pwd", func(h *jsdl.HPCProfileApplication) { h.WorkingDirectory = &dir }), sees: dir},
		"hpcpa:Environment": {job: hpc("echo $SEEN", func(h *jsdl.HPCProfileApplication) {
			h.Environment = []jsdl.EnvironmentVariable{{Name: "SEEN", Text: *text(word)}}
		}), sees: word},
		"hpcpa:UserName": {cannot: hpc("true", func(h *jsdl.HPCProfileApplication) { h.UserName = &other }), job: hpc("echo ran", nil), sees: "ran"},

		"spmd:NumberOfProcesses": {job: ranked("echo $PORTOLAN_SIZE", nil), sees: "2\n2\n"},
		"spmd:ProcessesPerHost":  {job: ranked("echo $PORTOLAN_LOCAL_SIZE", func(s *jsdl.SPMDApplication) { s.ProcessesPerHost = big.NewInt(2) }), sees: "2\n2\n"},
		"spmd:ThreadsPerProcess": {job: ranked("echo $OMP_NUM_THREADS", func(s *jsdl.SPMDApplication) {
			s.ThreadsPerProcess = &jsdl.ProcessCount{Value: big.NewInt(2)}
		}), sees: "2\n2\n"},
		"spmd:SPMDVariation": {job: ranked("echo $PORTOLAN_RANK", nil), sees: "0", cannot: ranked("true", func(s *jsdl.SPMDApplication) { s.Variation = jsdl.VariationPVM })},

		"jsdl:Resources/jsdl:CandidateHosts": {job: needs(jsdl.Resources{CandidateHosts: []string{machine.HostNames[0]}}), sees: "ran", cannot: needs(jsdl.Resources{CandidateHosts: []string{other}})},
		"jsdl:Resources/jsdl:FileSystem":     {job: files(jsdl.FileSystem{Name: "DATA"}, `echo "$1"; ls -d "$1"`, jsdl.Text{Value: "", FileSystem: "DATA"}), sees: "/fs/DATA\n"},
		"jsdl:Resources/jsdl:FileSystem/jsdl:FileSystemType": {
			job:    files(jsdl.FileSystem{Name: "SCRATCH", Type: "temporary"}, `ls -d "$1"`, jsdl.Text{FileSystem: "SCRATCH"}),
			sees:   "/scratch\n",
			cannot: files(jsdl.FileSystem{Name: "SWAPS", Type: "swap", DiskSpace: least(1e18)}, "true"),
		},
		"jsdl:Resources/jsdl:FileSystem/jsdl:Description": {job: files(jsdl.FileSystem{Name: "DATA", Description: &word}, "echo ran"), sees: "ran"},
		"jsdl:Resources/jsdl:FileSystem/jsdl:MountPoint": {
			job:    files(jsdl.FileSystem{Name: "DATA", MountPoint: &dir}, `echo "$1"`, jsdl.Text{Value: "x", FileSystem: "DATA"}),
			sees:   dir + "/x\n",
			cannot: files(jsdl.FileSystem{Name: "DATA", MountPoint: &other}, "true"),
		},
		"jsdl:Resources/jsdl:FileSystem/jsdl:DiskSpace": {
			job: files(jsdl.FileSystem{Name: "DATA", DiskSpace: least(1)}, "echo ran"), sees: "ran", cannot: files(jsdl.FileSystem{Name: "DATA", DiskSpace: least(1e18)}, "true"),
		},
		"jsdl:Resources/jsdl:ExclusiveExecution": {job: needs(jsdl.Resources{ExclusiveExecution: &yes}), sees: "ran"},
		"jsdl:Resources/jsdl:OperatingSystem/jsdl:OperatingSystemType": {
			job:  needs(jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Name: machine.OperatingSystem, HasType: true}}),
			sees: "ran", cannot: needs(jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Name: "MSDOS", HasType: true}}),
		},
		"jsdl:Resources/jsdl:OperatingSystem/jsdl:OperatingSystemVersion": {
			job:  needs(jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Version: &machine.OSVersion}}),
			sees: "ran", cannot: needs(jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Version: &other}}),
		},
		"jsdl:Resources/jsdl:OperatingSystem/jsdl:Description": {job: needs(jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Description: &word}}), sees: "ran"},
		"jsdl:Resources/jsdl:CPUArchitecture": {
			job:  needs(jsdl.Resources{CPUArchitecture: &jsdl.CPUArchitecture{Name: machine.CPUArchitecture}}),
			sees: "ran", cannot: needs(jsdl.Resources{CPUArchitecture: &jsdl.CPUArchitecture{Name: "sparc"}}),
		},
		"jsdl:Resources/jsdl:IndividualCPUSpeed":         {job: needs(jsdl.Resources{IndividualCPUSpeed: least(1)}), sees: "ran", cannot: needs(jsdl.Resources{IndividualCPUSpeed: least(1e15)})},
		"jsdl:Resources/jsdl:IndividualCPUTime":          {job: needs(jsdl.Resources{IndividualCPUTime: least(10)}), sees: "ran", cannot: needs(jsdl.Resources{IndividualCPUTime: nothing()})},
		"jsdl:Resources/jsdl:IndividualCPUCount":         {job: needs(jsdl.Resources{IndividualCPUCount: is(1)}), sees: "ran", cannot: needs(jsdl.Resources{IndividualCPUCount: is(1e6)})},
		"jsdl:Resources/jsdl:IndividualNetworkBandwidth": {job: needs(jsdl.Resources{IndividualNetworkBandwidth: least(0)}), sees: "ran", cannot: needs(jsdl.Resources{IndividualNetworkBandwidth: least(1)})},
		"jsdl:Resources/jsdl:IndividualPhysicalMemory":   {job: needs(jsdl.Resources{IndividualPhysicalMemory: least(1 << 20)}), sees: "ran", cannot: needs(jsdl.Resources{IndividualPhysicalMemory: least(1e18)})},
		"jsdl:Resources/jsdl:IndividualVirtualMemory":    {job: needs(jsdl.Resources{IndividualVirtualMemory: least(1 << 20)}), sees: "ran", cannot: needs(jsdl.Resources{IndividualVirtualMemory: least(1e18)})},
		"jsdl:Resources/jsdl:IndividualDiskSpace":        {job: needs(jsdl.Resources{IndividualDiskSpace: least(1)}), sees: "ran", cannot: needs(jsdl.Resources{IndividualDiskSpace: least(1e18)})},
		"jsdl:Resources/jsdl:TotalCPUTime":               {job: needs(jsdl.Resources{TotalCPUTime: least(10)}), sees: "ran", cannot: needs(jsdl.Resources{TotalCPUTime: nothing()})},
		"jsdl:Resources/jsdl:TotalCPUCount":              {job: needs(jsdl.Resources{TotalCPUCount: is(1)}), sees: "ran", cannot: needs(jsdl.Resources{TotalCPUCount: is(1e6)})},
		"jsdl:Resources/jsdl:TotalPhysicalMemory":        {job: needs(jsdl.Resources{TotalPhysicalMemory: least(1 << 20)}), sees: "ran", cannot: needs(jsdl.Resources{TotalPhysicalMemory: least(1e18)})},
		"jsdl:Resources/jsdl:TotalVirtualMemory":         {job: needs(jsdl.Resources{TotalVirtualMemory: least(1 << 20)}), sees: "ran", cannot: needs(jsdl.Resources{TotalVirtualMemory: least(1e18)})},
		"jsdl:Resources/jsdl:TotalDiskSpace":             {job: needs(jsdl.Resources{TotalDiskSpace: least(1)}), sees: "ran", cannot: needs(jsdl.Resources{TotalDiskSpace: least(1e18)})},
		"jsdl:Resources/jsdl:TotalResourceCount":         {job: needs(jsdl.Resources{TotalResourceCount: is(1)}), sees: "ran", cannot: needs(jsdl.Resources{TotalResourceCount: is(2)})},

		"portolan:Placement/portolan:Share":            {job: placed(jsdl.Placement{Share: &share}), sees: "ran", cannot: placed(jsdl.Placement{Share: &other})},
		"portolan:Placement/portolan:Rerunnable":       {job: placed(jsdl.Placement{Rerunnable: &yes}), sees: "ran"},
		"portolan:Placement/portolan:QualityOfService": {cannot: placed(jsdl.Placement{QualityOfService: &word})},
		"portolan:Placement/portolan:Reservation":      {cannot: placed(jsdl.Placement{Reservation: &word})},
		"portolan:Placement/portolan:Deadline":         {cannot: placed(jsdl.Placement{Deadline: &when})},
		"portolan:Placement/portolan:NotBefore":        {cannot: placed(jsdl.Placement{NotBefore: &when})},
		"portolan:Placement/portolan:Priority":         {cannot: placed(jsdl.Placement{Priority: &n})},
		"portolan:Placement/portolan:GPU":              {cannot: placed(jsdl.Placement{GPUs: []jsdl.GPU{{Count: 1}}})},
		"portolan:Placement/portolan:Licence":          {cannot: placed(jsdl.Placement{Licences: []jsdl.Licence{{Name: "x", Count: 1}}})},
		"portolan:Placement/portolan:Constraint":       {cannot: placed(jsdl.Placement{Constraint: &word})},
		"portolan:Placement/portolan:Container":        {cannot: placed(jsdl.Placement{Container: &word})},
		"portolan:Placement/portolan:Quorum":           {cannot: placed(jsdl.Placement{Quorum: &n})},
		"portolan:Placement/portolan:Replicas":         {cannot: placed(jsdl.Placement{Replicas: &n})},
		"portolan:Placement/portolan:Manager":          {cannot: placed(jsdl.Placement{Manager: []jsdl.ManagerAttribute{{Name: "a", Value: "b"}}})},
		"jsdl:DataStaging": {cannot: with(script("true", nil), func(d *jsdl.JobDescription) {
			d.DataStaging = []jsdl.DataStaging{{FileName: "f", CreationFlag: "overwrite", Source: &jsdl.Location{URI: &uri}}}
		})},
	}
}

// What the mapping says of each element is what a program sees, or what Check refuses.
func TestMapping(t *testing.T) {
	t.Parallel()
	a := open(t, func(*shell.Options) {})
	rows, err := adapters.Mapped(shell.Mapping())
	if err != nil {
		t.Fatal(err)
	}
	all := probes(t, a)
	for i, row := range rows {
		t.Run(strings.ReplaceAll(row.Element, "/", " "), func(t *testing.T) {
			p, ok := all[row.Element]
			if !ok {
				t.Fatal("nothing proves this row")
			}
			if (row.Becomes == "") != (p.job == nil) {
				t.Errorf("the mapping says %q (%s)", row.Becomes, row.Note)
			}
			local := row.Element[strings.LastIndex(row.Element, ":")+1:]
			if p.cannot != nil {
				if err := a.Check(p.cannot); !fail.Is(err, fail.Unsupported) || !names(fail.Sentence(err), local) {
					t.Errorf("what can't be is answered with %v", err)
				}
			}
			if p.job == nil {
				return
			}
			if err := a.Check(p.job); err != nil {
				if strings.Contains(row.Note, "refused where") && names(fail.Sentence(err), local) {
					t.Skipf("skipped: %v", err)
				}
				t.Fatal(err)
			}
			e, out := ends(t, a, adapters.Job{Tag: adapters.Tag(fmt.Sprintf("row-%d", i)), Definition: p.job})
			if !strings.Contains(out, p.sees) || !strings.Contains(e.Reason+e.Signal, p.ends) {
				t.Errorf("the job is %+v and wrote %q, want %q %q", e, out, p.sees, p.ends)
			}
			if strings.Contains(row.Element, "ProcessCount") && strings.Contains(out, "all") {
				t.Errorf("thirty processes could be made: %q", out)
			}
		})
	}
}

// names reports whether a refusal names the element, or the one above it.
func names(sentence, local string) bool {
	for _, short := range map[string][]string{
		"OperatingSystemType": {"OperatingSystem"}, "FileSystemType": {"FileSystem"}, "MountPoint": {"MountPoint"},
	}[local] {
		if strings.Contains(sentence, short) {
			return true
		}
	}
	return strings.Contains(sentence, local)
}

var when = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func nothing() *jsdl.RangeValue {
	return &jsdl.RangeValue{Lower: &jsdl.Bound{Value: 2}, Upper: &jsdl.Bound{Value: 1}}
}

func whoami(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}
