package federation

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/testenv"
)

// TestFederation is the experiment. It takes minutes and both processors, so that it runs
// where it is asked for: `make federation`.
//
//	PORTOLAN_FEDERATION=all     runs it; or some of isolated,federated,faults
//	PORTOLAN_FEDERATION_SEED=n  of the workload; 1
//	PORTOLAN_FEDERATION_PHASE=d how long each domain is overloaded; 20s
//	PORTOLAN_FEDERATION_CLOCKS=right  leaves wrong clocks out, and so the compilation of all that the program has in it
func TestFederation(t *testing.T) {
	if os.Getenv("PORTOLAN_FEDERATION") == "" {
		t.Skip("set PORTOLAN_FEDERATION=all, as `make federation` does, to run the experiment: it takes minutes")
	}
	if err := missing(); err != nil {
		testenv.Missing(t, "the experiment can't run here: %v", err)
	}
	l := load{seed: 1, domains: []string{"bsc", "fiu", "ibm"}, slots: slots, phase: 20 * time.Second, over: 2, rest: 0.1, mean: 5 * time.Second, house: 0.1}
	if s := os.Getenv("PORTOLAN_FEDERATION_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("PORTOLAN_FEDERATION_SEED: %v", err)
		}
		l.seed = n
	}
	if s := os.Getenv("PORTOLAN_FEDERATION_PHASE"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("PORTOLAN_FEDERATION_PHASE: %v", err)
		}
		l.phase = d
	}
	sweep()
	dir := workshop(t)
	binary, skewed := program(t, dir)
	hub := newNet(t)
	bsc, fiu, ibm := newDomain(t, hub, "bsc", 1), newDomain(t, hub, "fiu", 2), newDomain(t, hub, "ibm", 3)
	bsc.slurm(t, filepath.Join(dir, "slurm"))
	fiu.condor(t, filepath.Join(dir, "condor"))
	ibm.hosts(t, filepath.Join(dir, "hosts"))
	domains := []*domain{bsc, fiu, ibm}
	bsc.policy, fiu.policy, ibm.policy = "fairshare{halfLife=1m}", "fifo", "priority{age=5s}"
	jobs := l.jobs()

	f := newFederation(t, hub, domains, l.phase)
	f.identify(t, dir)
	all := map[string]*figures{}
	var names []string
	// The managers stay from run to run; the gateways, and what they remember, do not.
	pass := func(name string, federated, faulty bool) {
		f.afresh()
		r := newRun(t, name, dir, binary, domains, jobs)
		defer r.stopAll()
		for _, d := range domains {
			if federated {
				r.configs[d.name] = f.configure(t, d, r.dir)
			} else {
				r.configs[d.name] = d.isolated(t, r.dir)
			}
			if d.clock = 0; faulty && skewed {
				d.clock = f.clocks()[d.name]
			}
			if err := r.again(d); err != nil {
				t.Fatal(err)
			}
			if err := d.gateway.order(binary); err != nil {
				t.Fatal(err)
			}
		}
		var with *federation
		var faults func(context.Context)
		if federated {
			with = f
			if err := f.alive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if faulty {
			faults = func(ctx context.Context) { f.suffer(ctx, r, skewed) }
		}
		t.Logf("%s: %d jobs", name, len(jobs))
		r.work(l.phase*3+3*time.Minute, faults)
		names = append(names, name)
		all[name] = r.results(with)
	}
	which := strings.Split(os.Getenv("PORTOLAN_FEDERATION"), ",")
	for _, p := range []struct {
		name              string
		federated, faulty bool
	}{{"isolated", false, false}, {"federated", true, false}, {"faults", true, true}} {
		if slices.Contains(which, "all") || slices.Contains(which, p.name) {
			pass(p.name, p.federated, p.faulty)
		}
	}
	print(os.Stdout, l, names, all)
	if a, b := all["isolated"], all["federated"]; a != nil && b != nil && b.slow.mean() > gain*a.slow.mean() {
		t.Errorf("the mean bounded slowdown is %.2f as peers and %.2f isolated: it was to be at most %.1f of that", b.slow.mean(), a.slow.mean(), gain)
	}
}

// gain is what federated slowdown may be of isolated.
const gain = 0.6
