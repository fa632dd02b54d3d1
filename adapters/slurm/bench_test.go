package slurm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/internal/testbed"
	"github.com/portolan-project/portolan/jsdl"
)

// later is a job that takes its place in the queue and nothing else.
func later() *jsdl.JobDefinition {
	d := adaptertest.Command("/bin/true")
	d.Description.Resources = &jsdl.Resources{Placement: &jsdl.Placement{NotBefore: new(time.Now().Add(5 * time.Hour).Truncate(time.Hour))}}
	return d
}

var benchTags atomic.Int64

func batchOf(n int, d *jsdl.JobDefinition) []adapters.Job {
	jobs := make([]adapters.Job, n)
	for i := range jobs {
		jobs[i] = adapters.Job{Tag: adapters.Tag(fmt.Sprintf("bench-%d-%d", os.Getpid(), benchTags.Add(1))), Definition: d}
	}
	return jobs
}

// BenchmarkSubmission compares submissions a second: a tight loop over slurmrestd by
// hand, the adapter one by one, the adapter with arrays, and sbatch by hand.
func BenchmarkSubmission(b *testing.B) {
	s := testbed.StartSlurm(b, testbed.SlurmOptions{REST: true})
	token := strings.TrimPrefix(strings.TrimSpace(s.MustRun(b, "scontrol", "token", "username=root", "lifespan=3600")), "SLURM_JWT=")
	rate := func(b *testing.B, jobs int) { b.ReportMetric(float64(jobs)/b.Elapsed().Seconds(), "jobs/s") }
	b.Run("slurmrestd", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.RESTSocket)
		}}}
		defer client.CloseIdleConnections()
		body, err := json.Marshal(map[string]any{"script": "#!/bin/sh\ntrue\n", "job": map[string]any{
			"name": "loop", "current_working_directory": "/tmp", "environment": map[string]string{"A": "1"}, "begin_time": time.Now().Add(5 * time.Hour).Format("2006-01-02T15:04:05"),
		}})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for b.Loop() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://x/slurm/v0.0.38/job/submit", bytes.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			req.Header = http.Header{"X-Slurm-User-Name": {"root"}, "X-Slurm-User-Token": {token}, "Content-Type": {"application/json"}}
			resp, err := client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Fatal(resp.Status)
			}
			n++
		}
		rate(b, n)
	})
	b.Run("sbatch", func(b *testing.B) {
		n := 0
		for b.Loop() {
			s.MustRun(b, "sbatch", "--parsable", "--begin=now+5hours", "--chdir=/tmp", "--wrap=true")
			n++
		}
		rate(b, n)
	})
	for _, c := range []struct {
		name, settings string
		batch          int
	}{
		{"rest", "slurmrestd: unix:" + s.RESTSocket + "\nfold: 1\n", 64},
		{"commands", "path: commands\nfold: 1\n", 64},
		{"restArrays", "slurmrestd: unix:" + s.RESTSocket + "\n", 1000},
		{"commandsArrays", "path: commands\n", 1000},
	} {
		b.Run(c.name, func(b *testing.B) {
			site := shared(b, s, 0o711)
			a := open(b, s, filepath.Join(site, "data"), "spool: "+filepath.Join(site, "spool")+"\nrequestsPerSecond: -1\n"+c.settings)
			d := later()
			a.Submit(b.Context(), batchOf(1, d)) // what is done once
			n := 0
			for b.Loop() {
				for _, p := range a.Submit(b.Context(), batchOf(c.batch, d)) {
					if p.Err != nil {
						b.Fatal(p.Err)
					}
				}
				n += c.batch
			}
			rate(b, n)
			if err := a.Close(); err != nil {
				b.Error(err)
			}
			s.MustRun(b, "scancel", "--user=root")
		})
	}
}

// BenchmarkNotice measures from a program's end to the evidence of it.
func BenchmarkNotice(b *testing.B) {
	s := testbed.StartSlurm(b, testbed.SlurmOptions{})
	site := shared(b, s, 0o711)
	a := open(b, s, filepath.Join(site, "data"), "path: commands\nspool: "+filepath.Join(site, "spool")+"\nrequestsPerSecond: 5\n")
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	ends := make(chan adapters.Evidence, 10)
	watching.Go(func() {
		_ = a.(adapters.Watcher).Watch(ctx, func(all []adapters.Evidence) {
			for _, e := range all {
				if e.Phase.Final() {
					ends <- e
				}
			}
		})
	})
	var sum time.Duration
	n := 0
	for b.Loop() {
		if p := a.Submit(b.Context(), batchOf(1, adaptertest.Command("/bin/sleep", "1")))[0]; p.Err != nil {
			b.Fatal(p.Err)
		}
		e := <-ends
		sum += time.Since(e.Ended)
		n++
	}
	b.ReportMetric(float64(sum.Milliseconds())/float64(n), "ms/notice")
	stop()
	watching.Wait()
	if err := a.Close(); err != nil {
		b.Error(err)
	}
}
