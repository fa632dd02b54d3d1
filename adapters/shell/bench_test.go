package shell_test

import (
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
)

// benchBatch is how many jobs one turn of a benchmark runs.
const benchBatch = 200

// BenchmarkShell runs /bin/true as jobs, as many at once as there are CPUs, from
// Submit to the pushed end. jobs/s is to be compared with BenchmarkForkExec's.
func BenchmarkShell(b *testing.B) {
	for _, sync := range []bool{true, false} {
		b.Run(fmt.Sprintf("sync=%v", sync), func(b *testing.B) {
			a, err := shell.Open(shell.Options{Dir: b.TempDir(), Slots: runtime.NumCPU(), NoSync: !sync})
			if err != nil {
				b.Fatal(err)
			}
			defer a.Close()
			benchShell(b, a)
		})
	}
}

func benchShell(b *testing.B, a *shell.Adapter) {
	ended := make(chan adapters.Tag, 4*benchBatch)
	go func() {
		_ = a.Watch(b.Context(), func(batch []adapters.Evidence) {
			for _, e := range batch {
				if e.Phase.Final() {
					ended <- e.Tag
				}
			}
		})
	}()
	d := adaptertest.Command("/bin/true")
	n := 0
	for b.Loop() {
		jobs := make([]adapters.Job, benchBatch)
		for i := range jobs {
			n++
			jobs[i] = adapters.Job{Tag: adapters.Tag(fmt.Sprintf("bench-%d", n)), Definition: d}
		}
		for _, p := range a.Submit(b.Context(), jobs) {
			if p.Err != nil {
				b.Fatal(p.Err)
			}
		}
		for range jobs {
			<-ended
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "jobs/s")
}

// BenchmarkForkExec runs the same program bare, with the same concurrency.
func BenchmarkForkExec(b *testing.B) {
	n := 0
	for b.Loop() {
		var wg sync.WaitGroup
		todo := make(chan struct{}, benchBatch)
		for range benchBatch {
			todo <- struct{}{}
		}
		close(todo)
		for range runtime.NumCPU() {
			wg.Go(func() {
				for range todo {
					if err := exec.CommandContext(b.Context(), "/bin/true").Run(); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		n += benchBatch
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "jobs/s")
}
