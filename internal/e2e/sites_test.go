package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	siteJobs       = 1000
	siteSubmitters = 8
	siteKills      = 2 // of each part
)

// TestSites: one gateway with four sites takes mixed jobs over SOAP, while
// slurmctld, the schedd, the BOINC server and the gateway are each killed with
// SIGKILL and started again, twice. The ledger that the jobs write and the
// statuses say that none was lost, none run twice, and every end is right.
//
//	PORTOLAN_SITES_SEED=n  repeats a seed
//	PORTOLAN_SITES_JOBS=n  how many jobs (default 1000; 100 with -short)
func TestSites(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("PORTOLAN_SITES_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("PORTOLAN_SITES_SEED: %v", err)
		}
		seed = n
	}
	jobs := siteJobs
	if testing.Short() {
		jobs = 100
	}
	if s := os.Getenv("PORTOLAN_SITES_JOBS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("PORTOLAN_SITES_JOBS=%s is no number of jobs", s)
		}
		jobs = n
	}
	t.Logf("PORTOLAN_SITES_SEED=%d, %d jobs", seed, jobs)
	managers := startManagers(t)

	// Jobs of several accounts write the ledger.
	dir := openDir(t)
	l := &lane{
		t: t, name: "sites", seed: seed, log: new(logFile), listen: "127.0.0.1:0", up: make(chan struct{}),
		data: filepath.Join(dir, "data"), ledger: filepath.Join(dir, "ledger"), tokens: make(chan struct{}, jobs),
	}
	if err := os.WriteFile(l.ledger, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.ledger, 0o666); err != nil { // whatever the umask
		t.Fatal(err)
	}
	config := filepath.Join(dir, "portolan.yaml")
	text := "sites:\n  - name: shell\n    type: shell\n    settings: {slots: 4}\n"
	l.sites = []string{"shell"}
	for _, m := range managers {
		text += m.entry
		l.sites = append(l.sites, m.site)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l.args = []string{"--config", config}

	g := l.begin()
	var made atomic.Int64
	var clients sync.WaitGroup
	for i := range siteSubmitters {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)+2))
			for {
				n := made.Add(1)
				if n > int64(jobs) {
					return
				}
				pause(t.Context(), time.Duration(rng.Int64N(int64(400*time.Millisecond)))) // so that what is killed is killed among submissions
				j := l.make(fmt.Sprintf("job-%d", n), rng)
				if !l.acknowledge(j) {
					return
				}
				if j.cancel {
					pause(t.Context(), time.Duration(rng.Int64N(int64(3*time.Second))))
					l.cancel(j)
				}
			}
		})
	}
	// Everything is killed while jobs come in, and again while they run.
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range siteKills {
		for _, i := range rng.Perm(len(managers) + 1) {
			pause(t.Context(), time.Duration(rng.Int64N(int64(4*time.Second))))
			if i == len(managers) {
				t.Logf("round %d: the gateway is killed, with %d jobs acknowledged", round+1, l.acked.Load())
				l.end(g)
				g = l.begin()
				continue
			}
			m := managers[i]
			t.Logf("round %d: %s is killed, with %d jobs acknowledged", round+1, m.name, l.acked.Load())
			m.kill()
			pause(t.Context(), time.Duration(rng.Int64N(int64(3*time.Second))))
			m.restart()
		}
	}
	clients.Wait()
	defer func() {
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", l.log.tail())
		}
		endAll(t, g)
		g.stop(t)
	}()
	if l.acked.Load() != int64(jobs) {
		t.Errorf("%d of %d jobs were acknowledged", l.acked.Load(), jobs)
	}
	l.settle(g, 10*time.Minute)
	perSite := map[string]int{}
	for _, v := range l.jobs.Range {
		j := v.(*crashJob)
		s, err := waitFinal(t.Context(), g.client(), j.activity)
		if err == nil && s.Details != nil {
			perSite[s.Details.Site]++
		}
	}
	t.Logf("jobs of each site: %v", perSite)
	for _, site := range l.sites {
		if perSite[site] < jobs/len(l.sites)/2 {
			t.Errorf("only %d jobs went to %s", perSite[site], site)
		}
	}
}

// openDir is a directory that every account can reach.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "portolan-sites-") //nolint:usetesting // other accounts must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
