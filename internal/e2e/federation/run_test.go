package federation

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// run is one pass of a workload over the domains.
type run struct {
	t       *testing.T
	name    string
	dir     string
	ledger  string
	binary  string
	domains []*domain
	jobs    []work
	log     map[string]*logFile
	configs map[string]string

	mu    sync.Mutex
	up    map[string]chan struct{} // closed while the domain's gateway is ready
	acked map[string]soap.EPR
	final map[string]bes.Status
	begin time.Time
	waits map[string]string // what the jobs waited for, as they were last told
	notes []string          // of faults
	said  said              // by gateways that were killed since
}

// newRun makes the directories of a run, and its ledger, which jobs of all accounts write.
func newRun(t *testing.T, name, dir, binary string, domains []*domain, jobs []work) *run {
	t.Helper()
	r := &run{
		t: t, name: name, dir: filepath.Join(dir, name), binary: binary, domains: domains, jobs: jobs,
		log: map[string]*logFile{}, configs: map[string]string{}, up: map[string]chan struct{}{}, waits: map[string]string{}, acked: map[string]soap.EPR{}, final: map[string]bes.Status{},
	}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.ledger = write(t, filepath.Join(r.dir, "ledger"), "")
	if err := os.Chmod(r.ledger, 0o666); err != nil { // whatever the umask
		t.Fatal(err)
	}
	for _, d := range domains {
		r.log[d.name] = new(logFile)
		r.up[d.name] = make(chan struct{})
	}
	return r
}

// again starts the gateway of a domain, on the same data if there was one.
func (r *run) again(d *domain) error {
	g, err := d.serve(context.WithoutCancel(r.t.Context()), r.binary, r.configs[d.name], filepath.Join(r.dir, d.name), r.log[d.name])
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d.gateway = g
	close(r.up[d.name])
	return nil
}

// kill kills the gateway of a domain.
func (r *run) kill(d *domain) {
	r.mu.Lock()
	g := d.gateway
	r.up[d.name] = make(chan struct{})
	r.mu.Unlock()
	// What it counted is lost with it.
	if list, err := g.peers(r.t.Context()); err == nil {
		r.said.add(list)
	}
	g.kill()
}

// stopAll stops the gateways.
func (r *run) stopAll() {
	for _, d := range r.domains {
		if d.gateway == nil {
			continue
		}
		if err := d.gateway.stop(); err != nil {
			r.t.Error(err)
		}
		d.gateway = nil
	}
	if r.t.Failed() {
		n := 0
		for _, j := range r.jobs {
			if why := r.waits[j.id]; why != "" && n < 15 {
				n++
				r.t.Logf("%s: %s waited: %s", r.name, j.id, why)
			}
		}
		for name, l := range r.log {
			r.t.Logf("%s: the log of the gateway of %s:\n%s", r.name, name, l.tail())
		}
	}
}

// client waits for the gateway of a domain.
func (r *run) client(ctx context.Context, d *domain) (*gateway, error) {
	for {
		r.mu.Lock()
		up, g := r.up[d.name], d.gateway
		r.mu.Unlock()
		select {
		case <-up:
			if g != nil {
				return g, nil
			}
			r.mu.Lock()
			g = d.gateway
			r.mu.Unlock()
			return g, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// work submits the jobs, each at its time, and waits until all are final. faults, if there
// are any, go on beside it.
func (r *run) work(patience time.Duration, faults func(ctx context.Context)) {
	ctx, stop := context.WithTimeout(r.t.Context(), patience)
	defer stop()
	r.begin = time.Now()
	var all sync.WaitGroup
	if faults != nil {
		all.Go(func() { faults(ctx) })
	}
	for _, d := range r.domains {
		var mine []work
		for _, j := range r.jobs {
			if j.origin == d.name {
				mine = append(mine, j)
			}
		}
		all.Go(func() { r.submit(ctx, d, mine) })
		all.Go(func() { r.watch(ctx, d, len(mine)) })
	}
	all.Wait()
}

// submit submits one domain's jobs, each until there is an answer.
func (r *run) submit(ctx context.Context, d *domain, jobs []work) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, j := range jobs {
		if !pause(ctx, time.Until(r.begin.Add(j.at))) {
			return
		}
		all.Go(func() {
			for {
				g, err := r.client(ctx, d)
				if err != nil {
					return
				}
				a, err := g.client.CreateActivity(ctx, &bes.CreateActivityRequest{Document: j.document(r.ledger), SubmissionID: "urn:federation:" + r.name + ":" + j.id})
				if err == nil {
					r.mu.Lock()
					r.acked[j.id] = a.Activity
					r.mu.Unlock()
					return
				}
				if k := fail.KindOf(err); k != fail.Uncertain && k != fail.Unavailable && ctx.Err() == nil {
					r.t.Errorf("%s: submitting %s: %v", r.name, j.id, err)
					return
				}
				if !pause(ctx, 100*time.Millisecond) {
					return
				}
			}
		})
	}
}

// watch asks for the states of a domain's jobs until all n are final.
func (r *run) watch(ctx context.Context, d *domain, n int) {
	for done := 0; done < n; {
		if !pause(ctx, 500*time.Millisecond) {
			return
		}
		var ids []string
		var eprs []soap.EPR
		r.mu.Lock()
		done = 0
		for _, j := range r.jobs {
			if j.origin != d.name {
				continue
			}
			if _, ok := r.final[j.id]; ok {
				done++
			} else if e, ok := r.acked[j.id]; ok {
				ids, eprs = append(ids, j.id), append(eprs, e)
			}
		}
		r.mu.Unlock()
		if len(eprs) == 0 {
			continue
		}
		g, err := r.client(ctx, d)
		if err != nil {
			return
		}
		list, err := g.client.GetActivityStatuses(ctx, &bes.StatusRequest{Activities: eprs})
		if err != nil {
			continue // it was killed, or is busy: it is asked again
		}
		r.mu.Lock()
		for i, s := range list {
			switch {
			case s.Err != nil:
				r.t.Errorf("%s: the acknowledged job %s is gone: %v", r.name, ids[i], s.Err)
				r.final[ids[i]] = bes.Status{}
			case s.Status.State.Final():
				r.final[ids[i]] = s.Status
			case s.Status.State == bes.Pending && s.Status.Details != nil && s.Status.Details.Reason != "":
				r.waits[ids[i]] = s.Status.Details.Reason
			}
		}
		r.mu.Unlock()
	}
}

// pause lets time pass, unless ctx ends: when something happens is a time here, not an event.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// results holds the ledger against what the gateways told, and measures.
func (r *run) results(f *federation) *figures {
	where := map[string]string{}
	for _, d := range r.domains {
		where[d.space.inode] = d.name
	}
	wrote, err := readLedger(r.ledger, where)
	if err != nil {
		r.t.Fatalf("%s: %v", r.name, err)
	}
	told := map[string]bool{}
	for id, s := range r.final {
		ok := s.State == bes.Finished && s.Details != nil && s.Details.ExitStatus != nil && *s.Details.ExitStatus == 0
		told[id] = ok
		if !ok {
			why := ""
			if s.Details != nil {
				why = s.Details.Reason
			}
			r.t.Errorf("%s: %s ended as %s: %s", r.name, id, s.State, why)
		}
	}
	c := judge(r.jobs, wrote, told)
	for what, ids := range map[string][]string{"lost": c.lost, "run twice": c.twice, "run and never submitted": c.strange, "run where their VO is not served": c.strayed, "run as another account than the rules say": c.astray} {
		if len(ids) > 0 {
			r.t.Errorf("%s: %d jobs were %s: %v", r.name, len(ids), what, ids[:min(len(ids), 10)])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(told)) {
		if slices.Contains(c.lost, id) {
			r.t.Logf("%s: %s, %s: %+v", r.name, id, fmt.Sprint(told[id]), wrote[id])
		}
	}
	out := measure(r.jobs, wrote, r.begin, c)
	out.faults = r.notes
	if f != nil {
		out.peers = f.traffic(r.t.Context(), r, wrote)
		for _, d := range r.domains {
			if !slices.ContainsFunc(r.jobs, func(j work) bool { return j.origin == d.name && wrote[j.id].elsewhere(d.name) }) {
				r.t.Errorf("%s: %s, overloaded, had none of its jobs run elsewhere", r.name, d.name)
			}
		}
	}
	return out
}
