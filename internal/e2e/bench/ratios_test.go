package bench

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/condor"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/adapters/slurm"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/jsdl"
)

func TestMain(m *testing.M) {
	// The adapters start this binary again beside each job.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case shell.SuperviseWord:
			os.Exit(shell.SuperviseMain(os.Args[2:]))
		case slurm.RunWord:
			os.Exit(slurm.RunMain(os.Args[2:]))
		case condor.RunWord:
			os.Exit(condor.RunMain(os.Args[2:]))
		}
	}
	debug.SetGCPercent(400) // as serve does; it is the same process for both sides
	os.Exit(m.Run())
}

const (
	clients = 64
	rounds  = 5               // the middle one of them counts
	turn    = 3 * time.Second // of one side in one round
)

// document is a job as people send them, of about 1 KiB.
const document = `<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:posix="` + jsdl.NSPOSIX + `">
  <jsdl:JobDescription>
    <jsdl:JobIdentification>
      <jsdl:JobName>conversion of run 2471</jsdl:JobName>
      <jsdl:JobProject>detector-calibration</jsdl:JobProject>
    </jsdl:JobIdentification>
    <jsdl:Application>
      <posix:POSIXApplication>
        <posix:Executable>/bin/true</posix:Executable>
        <posix:Argument>--input=/data/run-2471/events.dat</posix:Argument>
        <posix:Argument>--threshold</posix:Argument>
        <posix:Argument>0.75</posix:Argument>
        <posix:Output>events.out</posix:Output>
        <posix:Error>events.err</posix:Error>
        <posix:Environment name="CALIBRATION">2026-02</posix:Environment>
        <posix:WallTimeLimit>3600</posix:WallTimeLimit>
      </posix:POSIXApplication>
    </jsdl:Application>
    <jsdl:Resources>
      <jsdl:TotalCPUCount><jsdl:Exact>1</jsdl:Exact></jsdl:TotalCPUCount>
    </jsdl:Resources>
  </jsdl:JobDescription>
</jsdl:JobDefinition>`

const message = `<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="` + soap.NS11 + `"><soap:Header xmlns:wsa="` + soap.NSWSA + `"><wsa:Action>` + bes.NSFactory +
	`/BESFactoryPortType/CreateActivity</wsa:Action><wsa:MessageID>urn:uuid:9d7a66bf-9b68-4736-af6d-a4c473351931</wsa:MessageID>` +
	`<wsa:To>http://127.0.0.1/bes</wsa:To></soap:Header><soap:Body><bes:CreateActivity xmlns:bes="` + bes.NSFactory + `"><bes:ActivityDocument>` +
	document + `</bes:ActivityDocument></bes:CreateActivity></soap:Body></soap:Envelope>`

// BenchmarkRatios prints the four ratios with the numbers beneath.
func BenchmarkRatios(b *testing.B) {
	fmt.Printf("\n%d CPUs, %s; each side %d times %v, in turns; medians\n", runtime.NumCPU(), runtime.Version(), rounds, turn)
	for b.Loop() {
		g := open(b)
		throughput(b, g)
		latency(b, g)
		g.close(b)
		decoding(b)
		jobs(b)
	}
	fmt.Println()
}

// report prints a ratio and gives it to the benchmark's own output.
func report(b *testing.B, unit string, ratio float64, aim string) {
	fmt.Printf("   ratio %.2f (aim %s)\n", ratio, aim)
	b.ReportMetric(ratio, unit)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// gateway is everything that `serve` ties together, in this process so that the
// raw puts go through the same etcd.
type gateway struct {
	store   *etcd.Store
	site    adapters.Adapter
	server  *http.Server
	address string
	request []byte
	blocker *soap.EPR // a job that is ended first
	broker  *broker.Broker
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// open makes a gateway before a shell of one slot, which is taken: what is submitted
// is queued, and the numbers are of submission alone.
func open(b *testing.B) *gateway {
	b.Helper()
	site, err := shell.Open(shell.Options{Dir: b.TempDir(), Slots: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	g := openWith(b, broker.Site{Name: "shell", Adapter: site})
	r, err := bes.NewClient(&soap.Client{URL: "http://" + g.address + "/bes"}).CreateActivity(b.Context(), &bes.CreateActivityRequest{
		Document: fmt.Appendf(nil, `<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:Application><p:POSIXApplication xmlns:p="%s"><p:Executable>/bin/sleep</p:Executable><p:Argument>3600</p:Argument></p:POSIXApplication></j:Application></j:JobDescription></j:JobDefinition>`, jsdl.NS, jsdl.NSPOSIX),
	})
	if err != nil {
		b.Fatal(err)
	}
	g.blocker = &r.Activity
	return g
}

// openWith makes a gateway before one site.
func openWith(b *testing.B, site broker.Site) *gateway {
	b.Helper()
	dir := b.TempDir()
	log := slog.New(slog.DiscardHandler)
	g := &gateway{site: site.Adapter}
	var err error
	must := func() {
		if err != nil {
			b.Fatal(err)
		}
	}
	g.store, err = etcd.Open(b.Context(), etcd.Options{Dir: dir + "/etcd", Log: log})
	must()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must()
	g.address = listener.Addr().String()
	g.broker, err = broker.New(broker.Config{
		Store: g.store, Replica: "bench", Sites: []broker.Site{site},
		BaseURL: func() string { return "http://" + g.address + "/bes" }, Log: log, Alone: true,
		Limits: broker.Limits{Live: 50_000_000, LivePerOwner: 50_000_000},
	})
	must()
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	g.stop = stop
	g.done.Go(func() {
		if err := g.broker.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	<-g.broker.Ready()
	endpoint := bes.NewServer(g.broker, bes.ServerOptions{Verifier: soap.DevVerifier{}, Log: log})
	g.server = soap.NewHTTPServer(soap.NewRouter(map[string]http.Handler{"/bes": endpoint}), log)
	g.done.Go(func() {
		if err := g.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			b.Error(err)
		}
	})
	g.request = fmt.Appendf(nil, "POST /bes HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml; charset=utf-8\r\nSOAPAction: \"%s/BESFactoryPortType/CreateActivity\"\r\nContent-Length: %d\r\n\r\n%s",
		g.address, bes.NSFactory, len(message), message)
	return g
}

func (g *gateway) close(b *testing.B) {
	b.Helper()
	// The blocker is ended first, and nothing else begins: the site is stopped with it.
	if g.blocker != nil {
		c := bes.NewClient(&soap.Client{URL: "http://" + g.address + "/bes"})
		if _, err := c.TerminateActivities(b.Context(), []soap.EPR{*g.blocker}); err != nil {
			b.Error(err)
		}
	}
	if err := g.server.Close(); err != nil {
		b.Error(err)
	}
	g.stop()
	g.done.Wait()
	if err := g.site.Close(); err != nil {
		b.Error(err)
	}
	if err := g.store.Close(); err != nil {
		b.Error(err)
	}
}

var value = bytes.Repeat([]byte("0123456789abcdef"), 64) // 1 KiB

var puts atomic.Int64

// put is one raw etcd put of 1 KiB under a new key: a setting is stored as it is,
// with a put of its own.
func (g *gateway) put() error {
	return g.store.SetSetting(context.Background(), fmt.Sprintf("bench/%016x", puts.Add(1)), value)
}

func (g *gateway) raw(int) (func() error, func(), error) { return g.put, func() {}, nil }

func (g *gateway) submit(int) (func() error, func(), error) {
	c, err := dial(g.address)
	if err != nil {
		return nil, nil, err
	}
	return func() error { return c.do(g.request, made) }, func() { _ = c.conn.Close() }, nil
}

// side is the medians of one side.
type side struct{ perSecond, processor float64 }

// inTurn measures two sides in rounds and gives the medians of both and of the
// ratio of their rates, the first over the second.
func inTurn(b *testing.B, n int, ours, theirs func(int) (func() error, func(), error)) (o, t side, ratio float64) {
	b.Helper()
	var rates [2][]float64
	var used [2][]float64
	var ratios []float64
	for range rounds {
		var r [2]rate
		for i, s := range []func(int) (func() error, func(), error){ours, theirs} {
			var err error
			if r[i], err = during(turn, n, s); err != nil {
				b.Fatal(err)
			}
			rates[i], used[i] = append(rates[i], r[i].perSecond()), append(used[i], r[i].each())
		}
		ratios = append(ratios, r[0].perSecond()/r[1].perSecond())
	}
	return side{median(rates[0]), median(used[0])}, side{median(rates[1]), median(used[1])}, median(ratios)
}

func throughput(b *testing.B, g *gateway) {
	o, t, r := inTurn(b, clients, g.submit, g.raw)
	fmt.Printf("1  durable SOAP submissions by %d clients  %8.0f /s   (%4.0f µs of processor each, clients included)\n", clients, o.perSecond, o.processor)
	fmt.Printf("   raw etcd puts of 1 KiB by %d clients     %8.0f /s   (%4.0f µs)\n", clients, t.perSecond, t.processor)
	report(b, "submissions/puts", r, "≥ 0.8")
}

func latency(b *testing.B, g *gateway) {
	o, t, r := inTurn(b, 1, g.submit, g.raw)
	fmt.Printf("2  acknowledged submission by 1 client     %8.0f µs   (%4.0f µs of processor)\n", 1e6/o.perSecond, o.processor)
	fmt.Printf("   raw etcd put of 1 KiB by 1 client       %8.0f µs   (%4.0f µs)\n", 1e6/t.perSecond, t.processor)
	report(b, "submission/put-latency", 1/r, "≤ 1.5")
}

// arrived is a service that takes nothing: it notes when a request reached it,
// wholly read.
type arrived struct {
	bes.Service
	at  time.Time
	job *jsdl.JobDefinition
}

func (a *arrived) CreateActivity(_ context.Context, r *bes.CreateActivityRequest) (*bes.CreateActivityResponse, error) {
	a.at, a.job = time.Now(), r.Job
	return nil, fail.Errorf("bench", fail.NotAccepting, "", "this takes nothing")
}

// decoding times our reading of a message, from its bytes to a job that was
// checked, beside encoding/xml, which checks nothing, reading the same into
// structs of the same shape.
func decoding(b *testing.B) {
	const n = 2000
	svc := new(arrived)
	endpoint := bes.NewServer(svc, bes.ServerOptions{Verifier: soap.DevVerifier{}})
	var os, ts, rs []float64
	for range rounds {
		var ours time.Duration
		for range n {
			r := httptest.NewRequest(http.MethodPost, "/bes", bytes.NewReader([]byte(message)))
			r.Header.Set("Content-Type", "text/xml; charset=utf-8")
			w := httptest.NewRecorder()
			began := time.Now()
			endpoint.ServeHTTP(w, r)
			if svc.job == nil || svc.job.Program().Executable.Value != "/bin/true" {
				b.Fatalf("the message was not read: %s", w.Body)
			}
			ours += svc.at.Sub(began)
			svc.job = nil
		}
		began := time.Now()
		for range n {
			var e plainEnvelope
			if err := xml.Unmarshal([]byte(message), &e); err != nil {
				b.Fatal(err)
			}
			if e.Body.CreateActivity.ActivityDocument.Job.Description.Application.POSIX.Executable.Value != "/bin/true" {
				b.Fatal("encoding/xml did not read the message")
			}
		}
		theirs := time.Since(began)
		os, ts = append(os, float64(ours.Nanoseconds())/n/1000), append(ts, float64(theirs.Nanoseconds())/n/1000)
		rs = append(rs, float64(ours)/float64(theirs))
	}
	fmt.Printf("3  SOAP and JSDL, read and checked         %8.1f µs   (%d bytes)\n", median(os), len(message))
	fmt.Printf("   encoding/xml Unmarshal of the same      %8.1f µs\n", median(ts))
	report(b, "decode/encodingxml", median(rs), "≤ 1.0")
}

// perRound is how many jobs one round of the fourth ratio runs.
const perRound = 600

// jobs compares the shell adapter's jobs with bare fork and exec of the same
// program, as many at once.
func jobs(b *testing.B) {
	slots := 2 * runtime.NumCPU()
	site, err := shell.Open(shell.Options{Dir: b.TempDir(), Slots: slots})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := site.Close(); err != nil {
			b.Error(err)
		}
	}()
	watch, stop := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	ended := make(chan adapters.Evidence, perRound)
	wg.Go(func() {
		_ = site.Watch(watch, func(es []adapters.Evidence) { // it ends with watch
			for _, e := range es {
				if e.Phase.Final() {
					ended <- e
				}
			}
		})
	})
	definition, problems := jsdl.Parse(fmt.Appendf(nil, `<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:Application><p:POSIXApplication xmlns:p="%s"><p:Executable>/bin/true</p:Executable></p:POSIXApplication></j:Application></j:JobDescription></j:JobDefinition>`, jsdl.NS, jsdl.NSPOSIX), jsdl.Options{})
	if problems.Err() != nil {
		b.Fatal(problems)
	}
	var os, ts, rs []float64
	for round := range rounds {
		began := time.Now()
		var bare sync.WaitGroup
		var left atomic.Int64
		left.Store(perRound)
		var broken atomic.Pointer[error]
		for range slots {
			bare.Go(func() {
				for left.Add(-1) >= 0 {
					if err := exec.Command("/bin/true").Run(); err != nil {
						broken.Store(&err)
						return
					}
				}
			})
		}
		bare.Wait()
		if err := broken.Load(); err != nil {
			b.Fatal(*err)
		}
		theirs := perRound / time.Since(began).Seconds()

		began = time.Now()
		batch := make([]adapters.Job, perRound)
		for i := range batch {
			batch[i] = adapters.Job{Tag: adapters.Tag(fmt.Sprintf("bench-%d-%d", round, i)), Definition: definition, Owner: "bench"}
		}
		handles := make([]adapters.Handle, 0, perRound)
		for _, p := range site.Submit(b.Context(), batch) {
			if p.Err != nil {
				b.Fatal(p.Err)
			}
			handles = append(handles, p.Handle)
		}
		seen := map[adapters.Tag]bool{}
		for len(seen) < perRound {
			e := <-ended
			if e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != 0 {
				b.Fatalf("a job ended as %+v", e)
			}
			seen[e.Tag] = true
		}
		ours := perRound / time.Since(began).Seconds()
		for _, h := range handles {
			if err := site.Forget(b.Context(), h); err != nil {
				b.Fatal(err)
			}
		}
		os, ts, rs = append(os, ours), append(ts, theirs), append(rs, ours/theirs)
	}
	fmt.Printf("4  shell jobs, %2d at once                  %8.0f /s\n", slots, median(os))
	fmt.Printf("   bare fork and exec of the same program  %8.0f /s\n", median(ts))
	report(b, "jobs/forkexec", median(rs), "≥ 0.8")
}
