package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/jsdl"
)

const (
	crashLanes       = 2  // gateways at once: most of a cycle is waiting for one to start
	crashSubmitters  = 4  // clients of each
	crashOutstanding = 40 // jobs of each that have not ended
	crashSlots       = "8"
	earlyKills       = 0.15 // share of the kills that come before the gateway is ready
)

// TestCrash kills the gateway with SIGKILL at random moments under load, starts
// it again on the same data, and proves by a ledger that the jobs themselves
// write that no acknowledged job is lost and none is run twice. The same seed
// gives the same decisions, though not the same timing.
//
//	PORTOLAN_CRASH_SEED=n   repeats a seed
//	PORTOLAN_CRASH_KILLS=n  how many kills in all (default 204; 10 with -short)
func TestCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("PORTOLAN_CRASH_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("PORTOLAN_CRASH_SEED: %v", err)
		}
		seed = n
	}
	kills := 204
	if testing.Short() {
		kills = 10
	}
	if s := os.Getenv("PORTOLAN_CRASH_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("PORTOLAN_CRASH_KILLS: %v", err)
		}
		kills = n
	}
	t.Logf("PORTOLAN_CRASH_SEED=%d, %d kills", seed, kills)
	var done atomic.Int64
	t.Run("lanes", func(t *testing.T) {
		for i := range crashLanes {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				l := newLane(t, i, seed)
				share := kills / crashLanes
				if i == 0 {
					share = kills - share*(crashLanes-1)
				}
				l.run(share)
				done.Add(int64(l.kills))
			})
		}
	})
	if done.Load() < int64(kills) && !t.Failed() {
		t.Errorf("%d kills of %d", done.Load(), kills)
	}
}

// job is one job of the crash test, with what must become of it.
type crashJob struct {
	id       string
	document []byte
	ends     []bes.State // the states it may end in
	exit     *int        // for Finished
	signal   string      // for Finished
	cancel   bool        // its end is asked for
	writes   bool        // it writes to the ledger if it runs

	activity soap.EPR // set once acknowledged
}

// lane is one gateway, again and again on the same data, and its clients.
type lane struct {
	t      *testing.T
	name   string
	seed   uint64
	data   string
	ledger string
	listen string
	args   []string // of serve, beside the address
	sites  []string // that jobs are pinned to in turn; none leaves it to the gateway
	log    *logFile
	kills  int
	early  int

	mu     sync.Mutex
	up     chan struct{} // closed while the gateway is ready
	client *bes.Client

	jobs   sync.Map // id to *crashJob, acknowledged
	acked  atomic.Int64
	again  atomic.Int64 // answers that were lost
	tokens chan struct{}
}

func newLane(t *testing.T, i int, seed uint64) *lane {
	l := &lane{
		t: t, name: fmt.Sprintf("lane%d", i), seed: seed + uint64(i), log: new(logFile), listen: "127.0.0.1:0", args: []string{"--sites", "shell", "--slots", crashSlots},
		up: make(chan struct{}), tokens: make(chan struct{}, crashOutstanding),
	}
	dir := t.TempDir()
	l.data, l.ledger = filepath.Join(dir, "data"), filepath.Join(dir, "ledger")
	return l
}

// serving waits until the gateway is up and gives a client of it.
func (l *lane) serving(ctx context.Context) (*bes.Client, bool) {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	select {
	case <-up:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.client, true
	case <-ctx.Done():
		return nil, false
	}
}

// begin starts the gateway; ready is how it came up.
func (l *lane) begin() *gateway {
	g, err := launch(l.t.Context(), l.data, l.log, append(l.args, "--listen", l.listen)...)
	if err != nil {
		l.t.Fatalf("%s: after %d kills the gateway did not start again: %v", l.name, l.kills, err)
	}
	l.listen = g.address // the same one from now on, as in life
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client = bes.NewClient(&soap.Client{URL: g.endpoint, Retries: -1, Timeout: 20 * time.Second, Transport: new(http.Transport)})
	close(l.up)
	return g
}

func (l *lane) end(g *gateway) {
	l.mu.Lock()
	l.up = make(chan struct{})
	l.mu.Unlock()
	g.kill()
	l.kills++
}

func (l *lane) run(kills int) {
	rng := rand.New(rand.NewPCG(l.seed, 1))
	load, stopLoad := context.WithCancel(l.t.Context())
	defer stopLoad()
	var clients sync.WaitGroup
	for i := range crashSubmitters {
		clients.Go(func() { l.submit(load, rand.New(rand.NewPCG(l.seed, uint64(i)+2)), i) })
	}
	clients.Go(func() { l.watch(load) })

	for l.kills < kills {
		if l.listen != "127.0.0.1:0" && rng.Float64() < earlyKills {
			l.killEarly(time.Duration(rng.Int64N(int64(900 * time.Millisecond))))
			continue
		}
		g := l.begin()
		pause(l.t.Context(), time.Duration(rng.Int64N(int64(500*time.Millisecond))))
		l.end(g)
	}
	g := l.begin()
	stopLoad()
	clients.Wait()
	defer func() {
		if l.t.Failed() {
			l.t.Logf("%s: the gateway's log:\n%s", l.name, l.log.tail())
		}
		endAll(l.t, g)
		g.stop(l.t)
	}()
	l.settle(g, 2*time.Minute)
}

// killEarly kills a gateway while it starts and recovers.
func (l *lane) killEarly(after time.Duration) {
	ctx, stop := context.WithTimeout(l.t.Context(), after)
	defer stop()
	// launch kills the process once ctx ends; if it was ready before, so much the better.
	g, err := launch(ctx, l.data, l.log, append(l.args, "--listen", l.listen)...)
	switch {
	case err == nil:
		<-ctx.Done()
		g.kill()
	case !errors.Is(err, context.DeadlineExceeded):
		l.t.Fatalf("%s: after %d kills the gateway did not start again: %v", l.name, l.kills, err)
	}
	l.kills++
	l.early++
}

// pause lets the load go on for a while: the moment of a kill is a time, not an event.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// submit makes jobs, each under a submission id, until ctx ends. What it began it
// carries through, so that every job is acknowledged in the end.
func (l *lane) submit(ctx context.Context, rng *rand.Rand, n int) {
	for i := 0; ; i++ {
		select {
		case l.tokens <- struct{}{}:
		case <-ctx.Done():
			return
		}
		j := l.make(fmt.Sprintf("%s-%d-%d", l.name, n, i), rng)
		if !l.acknowledge(j) {
			return
		}
		if j.cancel {
			pause(ctx, time.Duration(rng.Int64N(int64(200*time.Millisecond))))
			l.cancel(j)
		}
	}
}

// acknowledge submits a job until there is an answer.
func (l *lane) acknowledge(j *crashJob) bool {
	for {
		c, ok := l.serving(l.t.Context())
		if !ok {
			return false
		}
		r, err := c.CreateActivity(l.t.Context(), &bes.CreateActivityRequest{Document: j.document, SubmissionID: "urn:crash:" + j.id})
		if err == nil {
			j.activity = r.Activity
			l.jobs.Store(j.id, j)
			l.acked.Add(1)
			return true
		}
		l.again.Add(1)
		if k := fail.KindOf(err); k != fail.Uncertain && k != fail.Unavailable && l.t.Context().Err() == nil {
			l.t.Errorf("%s: submitting %s: %v", l.name, j.id, err)
			return false
		}
		pause(l.t.Context(), 5*time.Millisecond)
	}
}

// cancel asks for a job's end until there is an answer.
func (l *lane) cancel(j *crashJob) {
	for {
		c, ok := l.serving(l.t.Context())
		if !ok {
			return
		}
		r, err := c.TerminateActivities(l.t.Context(), []soap.EPR{j.activity})
		switch {
		case err == nil && len(r) == 1 && (r[0].Err == nil || fail.Is(r[0].Err, fail.Conflict)):
			return
		case err == nil:
			l.t.Errorf("%s: cancelling %s: %+v", l.name, j.id, r)
			return
		case l.t.Context().Err() != nil:
			return
		}
		pause(l.t.Context(), 5*time.Millisecond)
	}
}

// watch asks for the states of what has not ended, and lets as many new jobs in
// as have.
func (l *lane) watch(ctx context.Context) {
	ended := map[string]bool{}
	for ctx.Err() == nil {
		var ids []string
		var eprs []soap.EPR
		for id, j := range l.jobs.Range {
			if !ended[id.(string)] {
				ids, eprs = append(ids, id.(string)), append(eprs, j.(*crashJob).activity)
			}
		}
		c, ok := l.serving(ctx)
		if !ok {
			return
		}
		rs, err := c.GetActivityStatuses(ctx, &bes.StatusRequest{Activities: eprs})
		if err == nil {
			for i, r := range rs {
				if r.Err != nil {
					l.t.Errorf("%s: the acknowledged job %s is gone: %v", l.name, ids[i], r.Err)
					ended[ids[i]] = true
				} else if r.Status.State.Final() {
					ended[ids[i]] = true
				} else {
					continue
				}
				<-l.tokens
			}
		}
		pause(ctx, 60*time.Millisecond)
	}
}

// make decides what a job does and what must become of it.
func (l *lane) make(id string, rng *rand.Rand) *crashJob {
	j := &crashJob{id: id, writes: true, ends: []bes.State{bes.Finished}}
	site := ""
	if len(l.sites) > 0 {
		site = l.sites[rng.IntN(len(l.sites))]
	}
	mark := fmt.Sprintf("echo %s >> %s; echo out-%s; echo err-%s >&2; ", id, l.ledger, id, id)
	status := []int{0, 0, 1, 3, 200}[rng.IntN(5)]
	script := mark + fmt.Sprintf("exit %d", status)
	j.exit = &status
	switch rng.IntN(12) {
	case 0, 1, 2:
		script = mark + fmt.Sprintf("sleep 0.%d; exit %d", 1+rng.IntN(6), status)
	case 3:
		script, j.exit, j.signal = mark+"kill -SEGV $$", nil, "SIGSEGV"
	case 4:
		// More output than a pipe holds, so that a lost piece would show.
		script = mark + fmt.Sprintf("i=0; while [ $i -lt 2000 ]; do echo line-$i-of-%s; i=$((i+1)); done; exit %d", id, status)
	case 5: // ended while it runs or waits
		script, j.exit, j.cancel, j.ends = mark+"sleep 600", nil, true, []bes.State{bes.Cancelled}
	case 6: // ended while it ends
		j.cancel, j.ends = true, []bes.State{bes.Finished, bes.Cancelled}
	case 7:
		j.writes, j.exit, j.ends = false, nil, []bes.State{bes.Failed}
		j.document = crashDocument(id, "/no/such/program", "", site)
		return j
	}
	j.document = crashDocument(id, "/bin/sh", script, site)
	return j
}

func crashDocument(name, program, script, site string) []byte {
	var args, pin string
	if site != "" {
		pin = "<j:Resources><j:CandidateHosts><j:HostName>" + site + "</j:HostName></j:CandidateHosts></j:Resources>"
	}
	if script != "" {
		args = "<p:Argument>-c</p:Argument><p:Argument>" + strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(script) + "</p:Argument>"
	}
	return fmt.Appendf(nil, `<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:JobIdentification><j:JobName>%s</j:JobName></j:JobIdentification>`+
		`<j:Application><p:POSIXApplication xmlns:p="%s"><p:Executable>%s</p:Executable>%s</p:POSIXApplication></j:Application>%s</j:JobDescription></j:JobDefinition>`,
		jsdl.NS, name, jsdl.NSPOSIX, program, args, pin)
}

// settle waits until every job is final and holds each against the ledger.
func (l *lane) settle(g *gateway, patience time.Duration) {
	t := l.t
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	c := g.client()
	statuses := map[string]bes.Status{}
	for id, v := range l.jobs.Range {
		j := v.(*crashJob)
		if j.cancel {
			// A cancellation whose client stopped before its answer is asked for again.
			if _, err := c.TerminateActivities(ctx, []soap.EPR{j.activity}); err != nil {
				t.Fatalf("%s: ending %s: %v", l.name, j.id, err)
			}
		}
		s, err := waitFinal(ctx, c, j.activity)
		if err != nil {
			t.Errorf("%s: acknowledged, and lost: %s: %v", l.name, j.id, err)
			continue
		}
		statuses[id.(string)] = s
	}
	lines := l.readLedger()
	for id, v := range l.jobs.Range {
		if s, ok := statuses[id.(string)]; ok {
			l.check(ctx, c, v.(*crashJob), s, lines[id.(string)])
		}
	}
	for id := range lines {
		if _, ok := l.jobs.Load(id); !ok {
			t.Errorf("%s: %s ran and was never acknowledged", l.name, id)
		}
	}
	a, err := c.GetFactoryAttributesDocument(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if a.TotalNumberOfActivities != l.acked.Load() {
		t.Errorf("%s: %d jobs were submitted, and there are %d activities: a submission id made two, or one is lost",
			l.name, l.acked.Load(), a.TotalNumberOfActivities)
	}
	count := map[bes.State]int{}
	for _, s := range statuses {
		count[s.State]++
	}
	twice := 0
	for _, n := range lines {
		if n > 1 {
			twice++
		}
	}
	t.Logf("%s: %d kills (%d while starting); %d jobs acknowledged after %d lost or refused answers, of which %d ran; %d lost, %d run twice; %v",
		l.name, l.kills, l.early, l.acked.Load(), l.again.Load(), len(lines), l.acked.Load()-int64(len(statuses)), twice, count)
	if l.kills > 20 && (count[bes.Finished] == 0 || count[bes.Cancelled] == 0 || count[bes.Failed] == 0 || l.again.Load() == 0) {
		t.Errorf("%s: the load proved too little: %v", l.name, count)
	}
}

// readLedger counts the lines of each job.
func (l *lane) readLedger() map[string]int {
	b, err := os.ReadFile(l.ledger)
	if err != nil {
		l.t.Fatal(err)
	}
	lines := map[string]int{}
	for line := range strings.Lines(string(b)) {
		lines[strings.TrimSpace(line)]++
	}
	return lines
}

// endedBySlurm is told of a job that Slurm itself has its nodes end, as its killed
// controller had forgotten it, and mistakenBySlurm of one that had the number of such a
// job: docs/adapters.md.
const (
	endedBySlurm    = "and what ran it on the node has not been heard of since"
	mistakenBySlurm = "takes the end of a job that it forgot for that of a later one with the same number"
)

// check holds one job against what must have become of it.
func (l *lane) check(ctx context.Context, c *bes.Client, j *crashJob, s bes.Status, ran int) {
	t := l.t
	bad := func(format string, args ...any) {
		h, _ := c.GetActivityHistory(ctx, j.activity)
		var b strings.Builder
		for _, e := range h {
			fmt.Fprintf(&b, "\n  %d %s %s/%s %s attempt %d: %s", e.Sequence, e.Time.Format(time.StampMilli), e.State, e.SubState, e.Event, e.Attempt, e.Reason)
		}
		t.Errorf("%s: %s: %s%s", l.name, j.id, fmt.Sprintf(format, args...), b.String())
	}
	if ran > 1 {
		bad("ran %d times", ran)
	}
	if s.State == bes.Failed && (strings.Contains(reason(s), endedBySlurm) || strings.Contains(reason(s), mistakenBySlurm)) {
		t.Logf("%s: %s: %s", l.name, j.id, reason(s))
		return
	}
	if !slices.Contains(j.ends, s.State) {
		bad("ended as %s (%s): wanted %v", s.State, reason(s), j.ends)
		return
	}
	if s.State == bes.Failed && reason(s) == "" {
		bad("failed without a sentence")
	}
	if s.State == bes.Finished {
		if ran != 1 && j.writes {
			bad("Finished, and ran %d times", ran)
		}
		d := s.Details
		switch {
		case d == nil:
			bad("no details")
			return
		case j.exit != nil && (d.ExitStatus == nil || *d.ExitStatus != *j.exit):
			bad("exit status %v: wanted %d", show(d.ExitStatus), *j.exit)
		case d.Signal != j.signal:
			bad("signal %q: wanted %q", d.Signal, j.signal)
		}
		l.checkOutput(ctx, c, j, bad)
	}
	h, err := c.GetActivityHistory(ctx, j.activity)
	if err != nil {
		bad("history: %v", err)
		return
	}
	finals := 0
	for i, e := range h {
		if e.Sequence != i+1 {
			bad("history line %d has the number %d", i+1, e.Sequence)
			break
		}
		if e.State.Final() {
			finals++
		}
	}
	if finals == 0 || len(h) == 0 || h[len(h)-1].State != s.State {
		bad("the history does not end as %s", s.State)
	}
}

func (l *lane) checkOutput(ctx context.Context, c *bes.Client, j *crashJob, bad func(string, ...any)) {
	for _, s := range []bes.Stream{bes.Stdout, bes.Stderr} {
		got, err := readStream(ctx, c, j.activity, s)
		if err != nil {
			bad("%s: %v", s, err)
			continue
		}
		want := map[bes.Stream]string{bes.Stdout: "out-", bes.Stderr: "err-"}[s] + j.id + "\n"
		if s == bes.Stdout && bytes.Contains(j.document, []byte("line-$i")) {
			for i := range 2000 {
				want += fmt.Sprintf("line-%d-of-%s\n", i, j.id)
			}
		}
		if string(got) != want {
			bad("%s has %d bytes (%.60q…): wanted %d (%.60q…)", s, len(got), got, len(want), want)
		}
	}
}

// readStream reads a stream to its end.
func readStream(ctx context.Context, c *bes.Client, e soap.EPR, s bes.Stream) ([]byte, error) {
	var all []byte
	for {
		o, err := c.GetActivityOutput(ctx, e, s, int64(len(all)), 64<<10)
		if err != nil {
			return all, err
		}
		all = append(all, o.Data...)
		if !o.More {
			return all, nil
		}
		if len(o.Data) == 0 {
			return all, fmt.Errorf("the stream of a job that ended has more to come")
		}
	}
}

func show(n *int) string {
	if n == nil {
		return "none"
	}
	return strconv.Itoa(*n)
}
