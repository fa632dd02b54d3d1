package condor

import (
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// What the machines of a pool lack is said once, of what was asked for, and without
// numbers that nobody gave.
func TestNoMachineIsLargeEnough(t *testing.T) {
	most := func(v float64) *jsdl.RangeValue { return &jsdl.RangeValue{Lower: &jsdl.Bound{Value: v}} }
	pool := &facts{slots: []slot{
		{Machine: "wide", CPUs: 64, Memory: 8 << 30, Disk: 100 << 30},
		{Machine: "deep", CPUs: 4, Memory: 512 << 30, Disk: 10 << 30},
	}}
	for name, c := range map[string]struct {
		resources jsdl.Resources
		want      string // "": it can be run
	}{
		"one CPU":      {jsdl.Resources{}, ""},
		"64 CPUs":      {jsdl.Resources{TotalCPUCount: most(64)}, ""},
		"too many":     {jsdl.Resources{TotalCPUCount: most(65)}, "TotalCPUCount: a machine of this pool has at most 64 CPUs for one job, which is not enough"},
		"too large":    {jsdl.Resources{IndividualPhysicalMemory: most(1 << 40)}, "IndividualPhysicalMemory: a machine of this pool has at most 549755813888 bytes of memory, which is not enough"},
		"not together": {jsdl.Resources{IndividualCPUCount: most(8), IndividualPhysicalMemory: most(16 << 30)}, "IndividualPhysicalMemory: of the machines of this pool that have what else the job asks for, each has at most 8589934592 bytes of memory, which is not enough; 17179869184 are asked for"},
		"nor these":    {jsdl.Resources{TotalPhysicalMemory: most(16 << 30), TotalDiskSpace: most(50 << 30)}, "TotalDiskSpace: of the machines of this pool that have what else the job asks for, each has at most 10737418240 bytes of disk for jobs, which is not enough; 53687091200 are asked for"},
	} {
		s := &site{name: "pool", settings: &Settings{}, argMax: argMax(), parse: func(string) error { return nil }}
		def := &jsdl.JobDefinition{Description: jsdl.JobDescription{
			Application: &jsdl.Application{POSIX: &jsdl.POSIXApplication{Executable: &jsdl.Text{Value: "/bin/true"}}}, Resources: &c.resources,
		}}
		_, err := s.make(pool, time.Now(), def, "tag", "ann", "")
		switch got := fail.Sentence(err); {
		case c.want == "" && err != nil, c.want != "" && got != c.want, strings.Contains(got, " 0 bytes of"):
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}
