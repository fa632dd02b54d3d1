package condor_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/internal/testbed"
)

// Submissions a second, of jobs that wait: by the adapter, a hundred in a call, and by
// one condor_submit a job.
func BenchmarkSubmit(b *testing.B) {
	c := testbed.StartCondor(b, testbed.CondorOptions{Conf: []string{"START=False"}})
	b.Run("adapter", func(b *testing.B) {
		a := open(b, c, dir(b, c), "requestsPerSecond: -1")
		defer a.Close()
		d := adaptertest.Command("/bin/true")
		const fold = 100
		n := 0
		for b.Loop() {
			jobs := make([]adapters.Job, fold)
			for i := range jobs {
				n++
				jobs[i] = adapters.Job{Tag: adapters.Tag(fmt.Sprintf("bench-%d", n)), Definition: d, Owner: "bench"}
			}
			for _, p := range a.Submit(b.Context(), jobs) {
				if p.Err != nil {
					b.Fatal(p.Err)
				}
			}
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "jobs/s")
	})
	b.Run("condor_submit", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			cmd := exec.CommandContext(b.Context(), c.Bin("condor_submit"), "-terse", "executable=/bin/true", "transfer_executable=false", "should_transfer_files=NO", "-queue", "1")
			cmd.Env, cmd.Dir = append(os.Environ(), c.Env()...), "/"
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "jobs/s")
	})
}
