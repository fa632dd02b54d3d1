package slurm_test

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/slurm"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testbed"
	"github.com/portolan-project/portolan/jsdl"
)

// proof is how a row of the mapping is proven.
type proof struct {
	suite string // by this part of the suite
	// A job that has the element, and what Slurm then says of it: "Key=value" each.
	with func(w *world, d *jsdl.JobDefinition)
	says []string
	// or it is refused
	refused bool
}

// world is the cluster of the proofs.
type world struct {
	nodes    []string
	deadline time.Time
	begin    time.Time
}

func atLeast(v float64) *jsdl.RangeValue { return &jsdl.RangeValue{Lower: &jsdl.Bound{Value: v}} }
func exactly(v float64) *jsdl.RangeValue { return &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: v}}} }

func resources(set func(w *world, r *jsdl.Resources)) func(*world, *jsdl.JobDefinition) {
	return func(w *world, d *jsdl.JobDefinition) {
		d.Description.Resources = new(jsdl.Resources)
		set(w, d.Description.Resources)
	}
}

func placement(set func(w *world, p *jsdl.Placement)) func(*world, *jsdl.JobDefinition) {
	return resources(func(w *world, r *jsdl.Resources) {
		r.Placement = new(jsdl.Placement)
		set(w, r.Placement)
	})
}

func limits(set func(l *jsdl.Limits)) func(*world, *jsdl.JobDefinition) {
	return func(_ *world, d *jsdl.JobDefinition) { set(&d.Description.Application.POSIX.Limits) }
}

func identified(set func(id *jsdl.JobIdentification)) func(*world, *jsdl.JobDefinition) {
	return func(_ *world, d *jsdl.JobDefinition) {
		d.Description.Identification = new(jsdl.JobIdentification)
		set(d.Description.Identification)
	}
}

func spmd(set func(s *jsdl.SPMDApplication)) func(*world, *jsdl.JobDefinition) {
	return func(_ *world, d *jsdl.JobDefinition) {
		s := &jsdl.SPMDApplication{Executable: &jsdl.Text{Value: "/bin/true"}, Variation: jsdl.VariationMPI}
		set(s)
		d.Description.Application = &jsdl.Application{SPMD: s}
	}
}

func processes(n int64) *jsdl.ProcessCount { return &jsdl.ProcessCount{Value: big.NewInt(n)} }

// proofs has one for each row, by its element.
var proofs = map[string]proof{
	"UserName":         {suite: "Programs/Account"},
	"GroupName":        {suite: "Programs/Accounts"},
	"FileSystem":       {suite: "Programs/FileSystems"},
	"Executable":       {suite: "Programs/Lookup"},
	"Argument":         {suite: "Programs/Arguments"},
	"Input":            {suite: "Programs/Stdin"},
	"Output":           {suite: "Programs/Files"},
	"Error":            {suite: "Programs/Files"},
	"WorkingDirectory": {suite: "Programs/WorkingDirectory"},
	"Environment":      {suite: "Programs/Environment"},
	"CPUTimeLimit":     {suite: "Programs/Limits"}, "FileSizeLimit": {suite: "Programs/Limits"}, "CoreDumpLimit": {suite: "Programs/Limits"},
	"DataSegmentLimit": {suite: "Programs/Limits"}, "LockedMemoryLimit": {suite: "Programs/Limits"}, "OpenDescriptorsLimit": {suite: "Programs/Limits"},
	"StackSizeLimit": {suite: "Programs/Limits"}, "VirtualMemoryLimit": {suite: "Programs/Limits"},
	"Placement/Share": {with: placement(func(_ *world, p *jsdl.Placement) { p.Share = new("short") }), says: []string{"Partition=short"}},
	"CandidateHosts":  {with: resources(func(w *world, r *jsdl.Resources) { r.CandidateHosts = []string{"elsewhere", w.nodes[1]} }), says: []string{"ReqNodeList={node2}"}},
	"OperatingSystem": {with: resources(func(_ *world, r *jsdl.Resources) {
		r.OperatingSystem = &jsdl.OperatingSystem{Name: "LINUX", HasType: true}
	}), says: []string{"ExcNodeList=(null)"}},
	"OperatingSystemVersion": {suite: "Programs/Resources"},
	"CPUArchitecture":        {suite: "Programs/Resources"},
	"ExclusiveExecution":     {with: resources(func(_ *world, r *jsdl.Resources) { r.ExclusiveExecution = new(true) }), says: []string{"OverSubscribe=NO"}},
	"NumberOfProcesses":      {with: spmd(func(s *jsdl.SPMDApplication) { s.NumberOfProcesses = processes(3) }), says: []string{"NumTasks=3"}},
	"ProcessesPerHost": {with: spmd(func(s *jsdl.SPMDApplication) {
		s.NumberOfProcesses, s.ProcessesPerHost = processes(4), big.NewInt(2)
	}), says: []string{"NumTasks=4", "NumNodes=2", "NtasksPerN:B:S:C=2:0:*:*"}},
	"ThreadsPerProcess":        {with: spmd(func(s *jsdl.SPMDApplication) { s.NumberOfProcesses, s.ThreadsPerProcess = processes(2), processes(2) }), says: []string{"NumTasks=2", "CPUs/Task=2"}},
	"SPMDVariation":            {suite: "Programs/SPMD"},
	"TotalResourceCount":       {with: resources(func(_ *world, r *jsdl.Resources) { r.TotalResourceCount = atLeast(2) }), says: []string{"NumNodes=2"}},
	"IndividualCPUCount":       {with: resources(func(_ *world, r *jsdl.Resources) { r.IndividualCPUCount = atLeast(3) }), says: []string{"CPUs/Task=3", "NumCPUs=3", "NumNodes=1"}},
	"TotalCPUCount":            {with: resources(func(_ *world, r *jsdl.Resources) { r.TotalCPUCount = exactly(6) }), says: []string{"NumTasks=6", "NumCPUs=6"}}, // over as many nodes as are free in part
	"IndividualPhysicalMemory": {with: resources(func(_ *world, r *jsdl.Resources) { r.IndividualPhysicalMemory = atLeast(100<<20 + 1) }), says: []string{"MinMemoryNode=101M"}},
	"TotalPhysicalMemory": {with: resources(func(_ *world, r *jsdl.Resources) {
		r.TotalPhysicalMemory, r.TotalResourceCount = atLeast(300<<20), exactly(2)
	}), says: []string{"MinMemoryNode=150M"}},
	"IndividualVirtualMemory": {with: resources(func(_ *world, r *jsdl.Resources) { r.IndividualVirtualMemory = atLeast(200 << 20) }), says: []string{"MinMemoryNode=200M"}},
	"TotalVirtualMemory":      {with: resources(func(_ *world, r *jsdl.Resources) { r.TotalVirtualMemory = atLeast(201 << 20) }), says: []string{"MinMemoryNode=201M"}},
	"IndividualDiskSpace":     {with: resources(func(_ *world, r *jsdl.Resources) { r.IndividualDiskSpace = atLeast(9<<20 + 1) }), says: []string{"MinTmpDiskNode=10M"}},
	"TotalDiskSpace": {with: resources(func(_ *world, r *jsdl.Resources) {
		r.TotalDiskSpace, r.TotalResourceCount = atLeast(20<<20), exactly(2)
	}), says: []string{"MinTmpDiskNode=10M"}},
	"IndividualCPUTime":             {with: resources(func(_ *world, r *jsdl.Resources) { r.IndividualCPUTime = atLeast(7201) }), says: []string{"TimeLimit=02:01:00"}},
	"TotalCPUTime":                  {with: resources(func(_ *world, r *jsdl.Resources) { r.TotalCPUTime, r.IndividualCPUCount = atLeast(4*7200), exactly(2) }), says: []string{"TimeLimit=04:00:00"}},
	"IndividualCPUSpeed":            {with: resources(func(_ *world, r *jsdl.Resources) { r.IndividualCPUSpeed = atLeast(1) }), refused: true},
	"IndividualNetworkBandwidth":    {with: resources(func(_ *world, r *jsdl.Resources) { r.IndividualNetworkBandwidth = atLeast(1) }), refused: true},
	"WallTimeLimit":                 {with: limits(func(l *jsdl.Limits) { l.WallTime = big.NewInt(601) }), says: []string{"TimeLimit=00:11:00"}},
	"MemoryLimit":                   {with: limits(func(l *jsdl.Limits) { l.Memory = big.NewInt(100 << 20) }), says: []string{"MinMemoryNode=132M"}},
	"ProcessCountLimit":             {with: limits(func(l *jsdl.Limits) { l.ProcessCount = big.NewInt(9) }), refused: true},
	"PipeSizeLimit":                 {with: limits(func(l *jsdl.Limits) { l.PipeSize = big.NewInt(9) }), refused: true},
	"ThreadCountLimit":              {with: limits(func(l *jsdl.Limits) { l.ThreadCount = big.NewInt(9) }), refused: true},
	"Placement/QualityOfService":    {with: placement(func(_ *world, p *jsdl.Placement) { p.QualityOfService = new("high") }), says: []string{"QOS=high"}},
	"Placement/Reservation":         {with: placement(func(_ *world, p *jsdl.Placement) { p.Reservation = new("tonight") }), says: []string{"Reservation=tonight"}},
	"Placement/Deadline":            {with: placement(func(w *world, p *jsdl.Placement) { p.Deadline = &w.deadline }), says: []string{"Deadline={deadline}"}},
	"Placement/NotBefore":           {with: placement(func(w *world, p *jsdl.Placement) { p.NotBefore = &w.begin }), says: []string{"EligibleTime={begin}"}},
	"Placement/Priority":            {with: placement(func(_ *world, p *jsdl.Placement) { p.Priority = new(-7) }), says: []string{"Nice=7"}},
	"Placement/Rerunnable":          {with: placement(func(_ *world, p *jsdl.Placement) { p.Rerunnable = new(true) }), says: []string{"Requeue=1"}},
	"Placement/GPU":                 {with: placement(func(_ *world, p *jsdl.Placement) { p.GPUs = []jsdl.GPU{{Type: "tesla", Count: 2}} }), says: []string{"TresPerNode=gres:gpu:tesla:2"}},
	"Placement/Licence":             {with: placement(func(_ *world, p *jsdl.Placement) { p.Licences = []jsdl.Licence{{Name: "matlab", Count: 2}} }), says: []string{"Licenses=matlab:2"}},
	"Placement/Constraint":          {with: placement(func(_ *world, p *jsdl.Placement) { p.Constraint = new("fast&big") }), says: []string{"Features=fast&big"}},
	"Placement/Container":           {with: placement(func(_ *world, p *jsdl.Placement) { p.Container = new("/no/image") }), refused: true},
	"Placement/Quorum":              {with: placement(func(_ *world, p *jsdl.Placement) { p.Quorum = new(2) }), refused: true},
	"Placement/Replicas":            {with: placement(func(_ *world, p *jsdl.Placement) { p.Replicas = new(2) }), refused: true},
	"Placement/Manager":             {with: placement(func(_ *world, p *jsdl.Placement) { p.Manager = []jsdl.ManagerAttribute{{Name: "A", Value: "1"}} }), refused: true},
	"JobName":                       {with: identified(func(id *jsdl.JobIdentification) { id.JobName = new("a 'name' $(id) ż") }), says: []string{"Comment=a 'name' $(id) ż "}},
	"JobIdentification/Description": {with: identified(func(id *jsdl.JobIdentification) { id.Description = new("line\nbreak") }), says: []string{"Comment=line break "}},
	"Description":                   {suite: "Programs/JobName"},
	"JobAnnotation":                 {with: identified(func(id *jsdl.JobIdentification) { id.Annotations = []string{"one", "two"} }), says: []string{"Comment=one - two "}},
	"JobProject":                    {with: identified(func(id *jsdl.JobIdentification) { id.Projects = []string{"not an account", "grid"} }), says: []string{"Account=grid", "Comment=not an account "}},
	"ApplicationName":               {with: func(_ *world, d *jsdl.JobDefinition) { d.Description.Application.Name = new("blast") }, says: []string{"Comment=[blast] "}},
	"ApplicationVersion": {with: func(_ *world, d *jsdl.JobDefinition) {
		a := d.Description.Application
		a.Name, a.Version = new("blast"), new("2.1")
	}, says: []string{"Comment=[blast 2.1] "}},
	"DataStaging": {with: func(_ *world, d *jsdl.JobDefinition) {
		d.Description.DataStaging = []jsdl.DataStaging{{FileName: "f", CreationFlag: "overwrite"}}
	}, refused: true},
}

// Each row of the mapping is proven by asking Slurm what it got, in both ways to it.
func TestMapping(t *testing.T) {
	t.Parallel()
	root := os.Getuid() == 0
	s := testbed.StartSlurm(t, testbed.SlurmOptions{
		Nodes: 3, DBD: true, REST: root, Cgroup: root && testbed.MemoryController(),
		Conf:  []string{"GresTypes=gpu", "NodeExtra=Gres=gpu:tesla:2 Feature=fast,big", "Licenses=matlab:4"},
		Files: map[string]string{"gres.conf": "AutoDetect=off\nName=gpu Type=tesla File=/dev/null\nName=gpu Type=tesla File=/dev/zero\n"},
	})
	s.MustRun(t, "scontrol", "create", "reservation", "reservationname=tonight", "starttime=now", "duration=60", "users=root", "nodecnt=1", "flags=ignore_jobs")
	ways := map[string]string{"commands": "path: commands\n"}
	if root {
		ways["slurmrestd"] = "path: slurmrestd\nslurmrestd: unix:" + s.RESTSocket + "\n"
	}
	for name, settings := range ways {
		t.Run(name, func(t *testing.T) {
			site := shared(t, s, 0o711)
			a := open(t, s, filepath.Join(site, "data"), "spool: "+filepath.Join(site, "spool")+"\npoll: 200ms\nrequestsPerSecond: -1\n"+settings)
			defer func() {
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			}()
			w := &world{nodes: s.Nodes, deadline: time.Now().Add(3 * time.Hour).Truncate(time.Second), begin: time.Now().Add(2 * time.Hour).Truncate(time.Second)}
			for _, row := range slurm.Mapping() {
				proveRow(t, s, a, w, row)
			}
		})
	}
	for _, row := range slurm.Mapping() {
		if proofs[row.Element].suite == "" && proofs[row.Element].with == nil {
			t.Errorf("nothing proves the row of %s", row.Element)
		}
	}
}

func proveRow(t *testing.T, s *testbed.Slurm, a adapters.Adapter, w *world, row adapters.MappingRow) {
	p := proofs[row.Element]
	if p.with == nil {
		return
	}
	t.Run(strings.ReplaceAll(row.Element, "/", "_"), func(t *testing.T) {
		d := adaptertest.Command("/bin/true")
		p.with(w, d)
		err := a.Check(d)
		if p.refused {
			local := row.Element[strings.LastIndexByte(row.Element, '/')+1:]
			if !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), local) {
				t.Errorf("Check gives %v, want fail.Unsupported that names %s", err, local)
			}
			return
		}
		if row.Becomes == "" {
			t.Fatalf("the row says that %s is refused, and its proof that it is not", row.Element)
		}
		if err != nil {
			t.Fatalf("Check: %v", err)
		}
		tag := adapters.Tag(fmt.Sprintf("row-%d", time.Now().UnixNano()))
		placed := a.Submit(t.Context(), []adapters.Job{{Tag: tag, Definition: d}})[0]
		if placed.Err != nil {
			t.Fatalf("Submit: %v", placed.Err)
		}
		defer a.Cancel(t.Context(), []adapters.Handle{placed.Handle})
		out := strings.ReplaceAll(s.MustRun(t, "scontrol", "--oneliner", "show", "job"), "\n\n", "\n")
		job := ""
		for line := range strings.Lines(out) {
			if strings.Contains(line, "."+string(tag)+".") {
				job = " " + line
			}
		}
		fill := strings.NewReplacer("{node2}", w.nodes[1], "{deadline}", w.deadline.Local().Format("2006-01-02T15:04:05"), "{begin}", w.begin.Local().Format("2006-01-02T15:04:05"))
		for _, want := range p.says {
			if want = fill.Replace(want); !strings.Contains(job, " "+want) {
				t.Errorf("%s becomes %s, but Slurm does not have %q:\n%s", row.Element, row.Becomes, want, job)
			}
		}
	})
}

func TestMappingIsWhole(t *testing.T) {
	if _, err := adapters.Mapped(slurm.Mapping()); err != nil {
		t.Error(err)
	}
}
