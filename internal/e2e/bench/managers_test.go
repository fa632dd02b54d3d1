package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/condor"
	"github.com/portolan-project/portolan/adapters/slurm"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testbed"
	"github.com/portolan-project/portolan/jsdl"
)

const (
	managerRounds = 3
	placements    = 3000   // jobs that one round gives to a manager through the gateway
	restJobs      = 300    // that one round gives to slurmrestd
	oneByOne      = 60     // that one round gives to a manager by its own command
	tracked       = 10_000 // jobs of the seventh ratio
	endings       = 7      // jobs whose end is timed on each side
)

// BenchmarkManagerRatios prints what the gateway costs in front of a real Slurm and
// a real HTCondor, beside using them directly.
func BenchmarkManagerRatios(b *testing.B) {
	for b.Loop() {
		cluster := testbed.StartSlurm(b, testbed.SlurmOptions{DBD: true, REST: true, Conf: []string{"MaxJobCount=60000", "MaxArraySize=20001"}})
		for _, v := range cluster.Env() {
			name, value, _ := strings.Cut(v, "=")
			b.Setenv(name, value)
		}
		slurmSubmissions(b, cluster)
		slurmEnds(b, cluster)
		slurmRequests(b, cluster)
		cluster.Down()

		pool := testbed.StartCondor(b, testbed.CondorOptions{})
		for _, v := range pool.Env() {
			name, value, _ := strings.Cut(v, "=")
			b.Setenv(name, value)
		}
		condorSubmissions(b, pool)
	}
	fmt.Println()
}

// site opens an adapter in a directory that jobs of any account can reach.
func site(b *testing.B, open func(adapters.Config) (adapters.Adapter, error), settings string) adapters.Adapter {
	b.Helper()
	dir, err := os.MkdirTemp("", "portolan-bench-") //nolint:usetesting // other accounts must reach it
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	s, err := adapters.ParseSettings(settings)
	if err != nil {
		b.Fatal(err)
	}
	a, err := open(adapters.Config{Site: "site", Dir: dir, Settings: s, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// waiting is a job that waits at a manager that is busy with others, so that the numbers
// are of submission alone. It must not name a time before which it is not to start: the
// gateway keeps such jobs to itself until then.
func waiting() []byte {
	return fmt.Appendf(nil, `<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:Application><p:POSIXApplication xmlns:p="%s"><p:Executable>/bin/true</p:Executable></p:POSIXApplication></j:Application></j:JobDescription></j:JobDefinition>`,
		jsdl.NS, jsdl.NSPOSIX)
}

// occupy fills all nodes of the cluster.
func occupy(b *testing.B, cluster *testbed.Slurm) {
	b.Helper()
	nodes := len(cluster.Nodes)
	for range nodes {
		cluster.MustRun(b, "sbatch", "--parsable", "--exclusive", "-N1", "-o", "/dev/null", "--wrap", "sleep 100000")
	}
	until(b, "the nodes to be full", func() bool {
		return strings.Count(cluster.MustRun(b, "squeue", "-h", "-t", "running", "-o", "run"), "run") == nodes
	})
}

// occupyPool gives the pool more jobs than it has slots, which it starts first.
func occupyPool(b *testing.B, pool *testbed.Condor) {
	b.Helper()
	pool.MustRun(b, "condor_submit", "-terse", "executable=/bin/sleep", "arguments=100000", "-queue", "64")
	until(b, "the pool to start some", func() bool {
		return strings.Contains(pool.MustRun(b, "condor_q", "-allusers", "-constraint", "JobStatus == 2", "-af", "JobStatus"), "2")
	})
}

// until asks for something again until it is so.
func until(b *testing.B, what string, is func() bool) {
	b.Helper()
	for end := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(end) {
			b.Fatalf("waiting for %s took too long", what)
		}
		<-time.After(200 * time.Millisecond)
	}
}

// submissionTo is the message that submits a document, as bytes for a kept connection.
func submissionTo(g *gateway, definition []byte) []byte {
	body := strings.Replace(message, document, string(definition), 1)
	return fmt.Appendf(nil, "POST /bes HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml; charset=utf-8\r\nSOAPAction: \"%s/BESFactoryPortType/CreateActivity\"\r\nContent-Length: %d\r\n\r\n%s",
		g.address, bes.NSFactory, len(body), body)
}

// through submits n jobs over SOAP by many clients and gives the rate at which they
// are placed: from the first message until known says that the manager has them all.
func through(b *testing.B, g *gateway, n int, definition []byte, known func() int) float64 {
	b.Helper()
	before := known()
	request := submissionTo(g, definition)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		share := n / clients
		if i < n%clients {
			share++
		}
		wg.Go(func() {
			c, err := dial(g.address)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.conn.Close()
			for range share {
				if err := c.do(request, made); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for known()-before < n {
		if b.Failed() || time.Since(began) > 3*time.Minute {
			b.Fatalf("%d of %d jobs were placed", known()-before, n)
		}
		<-time.After(5 * time.Millisecond)
	}
	return float64(n) / time.Since(began).Seconds()
}

// counting counts the jobs that the adapter has given to its manager: a wrapper, so
// that counting costs the manager nothing.
type counting struct {
	adapters.Adapter
	placed atomic.Int64
}

func (c *counting) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	out := c.Adapter.Submit(ctx, jobs)
	for _, p := range out {
		if p.Err == nil {
			c.placed.Add(1)
		}
	}
	return out
}

// Watch passes on what the manager's adapter tells; both have it.
func (c *counting) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return c.Adapter.(adapters.Watcher).Watch(ctx, emit)
}

func (c *counting) known() int { return int(c.placed.Load()) }

// slurmSubmissions: the gateway folds alike jobs into arrays; slurmrestd is asked for
// one job after another over a kept connection, which is the fastest that it takes
// them; sbatch is a program for each job.
func slurmSubmissions(b *testing.B, cluster *testbed.Slurm) {
	a := &counting{Adapter: site(b, slurm.Open, "requestsPerSecond: -1\nconf: "+cluster.Conf()+"\nslurmrestd: http://"+cluster.RESTAddr+"\n")}
	g := openWith(b, broker.Site{Name: "slurm", Adapter: a})
	defer g.close(b)
	occupy(b, cluster)
	rest := newRestLoop(b, cluster)
	var ours, theirs, command, overRest, overCommand []float64
	for range managerRounds {
		o := through(b, g, placements, waiting(), a.known)
		r := rest.rate(b, restJobs)
		began := time.Now()
		for range oneByOne {
			cluster.MustRun(b, "sbatch", "--parsable", "--begin=now+1day", "-o", "/dev/null", "--wrap", "/bin/true")
		}
		c := oneByOne / time.Since(began).Seconds()
		ours, theirs, command = append(ours, o), append(theirs, r), append(command, c)
		overRest, overCommand = append(overRest, o/r), append(overCommand, o/c)
	}
	fmt.Printf("5  gateway to Slurm, alike jobs in arrays  %8.0f /s\n", median(ours))
	fmt.Printf("   slurmrestd, one after another           %8.0f /s\n", median(theirs))
	report(b, "slurm/slurmrestd", median(overRest), "≥ 0.7")
	fmt.Printf("   sbatch, one after another               %8.0f /s\n", median(command))
	report(b, "slurm/sbatch", median(overCommand), "≥ 20")
	cluster.MustRun(b, "scancel", "--user=root")
}

// restLoop asks slurmrestd to submit, over one connection.
type restLoop struct {
	client *http.Client
	url    string
	token  string
	body   []byte
}

func newRestLoop(b *testing.B, cluster *testbed.Slurm) *restLoop {
	b.Helper()
	token := strings.TrimSpace(cluster.MustRun(b, "scontrol", "token", "lifespan=3600"))
	_, token, _ = strings.Cut(token, "=")
	return &restLoop{
		client: &http.Client{Timeout: time.Minute}, url: "http://" + cluster.RESTAddr + "/slurm/v0.0.38/job/submit", token: token,
		body: fmt.Appendf(nil, `{"script":"#!/bin/sh\n/bin/true\n","job":{"name":"bench","current_working_directory":"/tmp","standard_output":"/dev/null","environment":{"PATH":"/bin"},"begin_time":%q}}`, time.Now().Add(24*time.Hour).Format("2006-01-02T15:04:05")),
	}
}

func (r *restLoop) rate(b *testing.B, n int) float64 {
	b.Helper()
	began := time.Now()
	for range n {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, r.url, bytes.NewReader(r.body))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-SLURM-USER-NAME", "root")
		req.Header.Set("X-SLURM-USER-TOKEN", r.token)
		res, err := r.client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"job_id"`)) {
			b.Fatalf("slurmrestd: %s: %.300s (%v)", res.Status, answer, err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// slurmEnds times how long after a job's end its client knows: a client of the
// gateway that waits for the status, and sbatch --wait.
func slurmEnds(b *testing.B, cluster *testbed.Slurm) {
	a := site(b, slurm.Open, "conf: "+cluster.Conf()+"\n")
	g := openWith(b, broker.Site{Name: "slurm", Adapter: a})
	defer g.close(b)
	dir := b.TempDir()
	client := bes.NewClient(&soap.Client{URL: "http://" + g.address + "/bes"})
	var ours, theirs []float64
	for i := range endings {
		mark := filepath.Join(dir, strconv.Itoa(i))
		script := fmt.Sprintf("sleep 1.%d; date +%%s.%%N > %s", i, mark)
		r, err := client.CreateActivity(b.Context(), &bes.CreateActivityRequest{Document: fmt.Appendf(nil,
			`<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:Application><p:POSIXApplication xmlns:p="%s"><p:Executable>/bin/sh</p:Executable><p:Argument>-c</p:Argument><p:Argument>%s</p:Argument></p:POSIXApplication></j:Application></j:JobDescription></j:JobDefinition>`,
			jsdl.NS, jsdl.NSPOSIX, strings.ReplaceAll(script, ">", "&gt;"))})
		if err != nil {
			b.Fatal(err)
		}
		var after int64
		for {
			s, err := client.GetActivityStatuses(b.Context(), &bes.StatusRequest{Activities: []soap.EPR{r.Activity}, Wait: time.Minute, After: after})
			if err != nil || s[0].Err != nil {
				b.Fatal(err, s)
			}
			if s[0].Status.State.Final() {
				break
			}
			after = s[0].Status.Details.Revision
		}
		ours = append(ours, since(b, mark))
		cluster.MustRun(b, "sbatch", "--wait", "-o", "/dev/null", "--wrap", fmt.Sprintf("sleep 1.%d; date +%%s.%%N > %s", i, mark))
		theirs = append(theirs, since(b, mark))
	}
	fmt.Printf("6  end of a job to its client, by gateway  %8.0f ms\n", 1000*median(ours))
	fmt.Printf("   by sbatch --wait                        %8.0f ms\n", 1000*median(theirs))
	report(b, "notice/sbatchwait", median(ours)/median(theirs), "≤ 0.2")
}

// since gives the seconds from the moment that a file names.
func since(b *testing.B, path string) float64 {
	b.Helper()
	now := time.Now()
	text, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	then, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	if err != nil {
		b.Fatal(err)
	}
	return float64(now.UnixMicro())/1e6 - then
}

// slurmRequests counts what the controller is asked while many jobs are tracked,
// beside asking for each job as often.
func slurmRequests(b *testing.B, cluster *testbed.Slurm) {
	const poll = 2 * time.Second
	a := &counting{Adapter: site(b, slurm.Open, "conf: "+cluster.Conf()+"\n")}
	g := openWith(b, broker.Site{Name: "slurm", Adapter: a})
	defer g.close(b)
	occupy(b, cluster)
	through(b, g, tracked, waiting(), a.known)
	before, began := a.Health().Requests, time.Now()
	<-time.After(30 * time.Second)
	asked := float64(a.Health().Requests - before)
	rounds := time.Since(began).Seconds() / poll.Seconds()
	fmt.Printf("7  requests for %d jobs in 30 s         %8.0f\n", tracked, asked)
	fmt.Printf("   one for each job every %v               %8.0f\n", poll, tracked*rounds)
	fmt.Printf("   ratio %.6f (aim ≤ 0.001)\n", asked/(tracked*rounds))
	b.ReportMetric(asked/(tracked*rounds), "requests/polling")
	cluster.MustRun(b, "scancel", "--user=root")
}

// condorSubmissions: the gateway makes clusters of alike jobs.
func condorSubmissions(b *testing.B, pool *testbed.Condor) {
	a := &counting{Adapter: site(b, condor.Open, "requestsPerSecond: -1\n")}
	g := openWith(b, broker.Site{Name: "condor", Adapter: a})
	defer g.close(b)
	occupyPool(b, pool)
	var ours, theirs, ratios []float64
	for range managerRounds {
		o := through(b, g, placements, waiting(), a.known)
		began := time.Now()
		for range oneByOne {
			pool.MustRun(b, "condor_submit", "-terse", "executable=/bin/true", "hold=true", "-queue", "1")
		}
		t := oneByOne / time.Since(began).Seconds()
		ours, theirs, ratios = append(ours, o), append(theirs, t), append(ratios, o/t)
	}
	fmt.Printf("8  gateway to HTCondor, alike jobs         %8.0f /s\n", median(ours))
	fmt.Printf("   condor_submit, one after another        %8.0f /s\n", median(theirs))
	fmt.Printf("   ratio %.1f\n", median(ratios))
	b.ReportMetric(median(ratios), "condor/condor_submit")
	pool.MustRun(b, "condor_rm", "-all")
}
