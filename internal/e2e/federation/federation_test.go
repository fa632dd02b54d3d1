package federation

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/testenv"
)

// TestFederation is the experiment. It takes minutes and both processors, so that it runs
// where it is asked for: `make federation`.
//
//	PORTOLAN_FEDERATION=all     runs it; "isolated" leaves out what has peers
//	PORTOLAN_FEDERATION_SEED=n  of the workload; 1
//	PORTOLAN_FEDERATION_PHASE=d how long each domain is overloaded; 25s
func TestFederation(t *testing.T) {
	if os.Getenv("PORTOLAN_FEDERATION") == "" {
		t.Skip("set PORTOLAN_FEDERATION=all, as `make federation` does, to run the experiment: it takes minutes")
	}
	if err := missing(); err != nil {
		testenv.Missing(t, "the experiment can't run here: %v", err)
	}
	l := load{seed: 1, domains: []string{"bsc", "fiu", "ibm"}, slots: slots, phase: 25 * time.Second, over: 2, rest: 0.25, mean: 3500 * time.Millisecond}
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
	binary := filepath.Join(dir, "portolan")
	if out, err := exec.Command("go", "build", "-o", binary, "../../../cmd/portolan").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	hub := newNet(t)
	bsc, fiu, ibm := newDomain(t, hub, "bsc", 1), newDomain(t, hub, "fiu", 2), newDomain(t, hub, "ibm", 3)
	bsc.slurm(t, filepath.Join(dir, "slurm"))
	fiu.condor(t, filepath.Join(dir, "condor"))
	ibm.hosts(t, filepath.Join(dir, "hosts"))
	domains := []*domain{bsc, fiu, ibm}
	jobs := l.jobs()

	f := newFederation(t, hub, domains, l.phase)
	f.identify(t, dir)
	all := map[string]*figures{}
	var names []string
	// The managers stay from run to run; the gateways, and what they remember, do not.
	pass := func(name string, federated, faulty bool) {
		r := newRun(t, name, dir, binary, domains, jobs)
		defer r.stopAll()
		for _, d := range domains {
			if federated {
				r.configs[d.name] = f.configure(t, d, r.dir)
			} else {
				r.configs[d.name] = d.isolated(t, r.dir)
			}
			if err := r.again(d); err != nil {
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
			faults = func(ctx context.Context) { f.suffer(ctx, r) }
		}
		t.Logf("%s: %d jobs", name, len(jobs))
		r.work(l.phase*3+3*time.Minute, faults)
		names = append(names, name)
		all[name] = r.results(with)
	}
	which := os.Getenv("PORTOLAN_FEDERATION")
	pass("isolated", false, false)
	if which != "isolated" {
		pass("federated", true, false)
		pass("under faults", true, true)
	}
	print(os.Stdout, l, names, all)
	if a, b := all["isolated"], all["federated"]; b != nil && b.slow.mean() > gain*a.slow.mean() {
		t.Errorf("the mean bounded slowdown is %.2f as peers and %.2f isolated: it was to be at most %.1f of that", b.slow.mean(), a.slow.mean(), gain)
	}
}

// gain is what federated slowdown may be of isolated.
const gain = 0.6
