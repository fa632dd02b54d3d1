package adaptertest

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// What our Placement element asks for and the site has not is refused by the
// element's name before submission; nothing in it is passed over.
func testPlacement(b *bench) {
	future := time.Now().Add(time.Hour)
	ask := func(p jsdl.Placement) *jsdl.JobDefinition {
		d := b.h.Define(Behaviour{Hang: true})
		d.Description.Resources = &jsdl.Resources{Placement: &p}
		return d
	}
	none := "no-such-thing-here"
	for _, c := range []struct {
		element string
		p       jsdl.Placement
		never   bool // no site has it
	}{
		{"Share", jsdl.Placement{Share: &none}, true},
		{"QualityOfService", jsdl.Placement{QualityOfService: &none}, false},
		{"Reservation", jsdl.Placement{Reservation: &none}, false},
		{"Deadline", jsdl.Placement{Deadline: new(future.Add(time.Hour))}, false},
		{"Deadline", jsdl.Placement{Deadline: new(time.Now().Add(-time.Hour))}, true},
		{"NotBefore", jsdl.Placement{NotBefore: &future}, false},
		{"Priority", jsdl.Placement{Priority: new(10)}, false},
		{"Rerunnable", jsdl.Placement{Rerunnable: new(true)}, false},
		{"Rerunnable", jsdl.Placement{Rerunnable: new(false)}, false},
		{"GPU", jsdl.Placement{GPUs: []jsdl.GPU{{Type: none, Count: 100000}}}, true},
		{"Licence", jsdl.Placement{Licences: []jsdl.Licence{{Name: none, Count: 1}}}, false},
		{"Constraint", jsdl.Placement{Constraint: &none}, false},
		{"Container", jsdl.Placement{Container: new("/no/such/image")}, false},
		{"Quorum", jsdl.Placement{Quorum: new(2), Replicas: new(3)}, false},
		{"Replicas", jsdl.Placement{Replicas: new(2)}, false},
		{"Manager", jsdl.Placement{Manager: []jsdl.ManagerAttribute{{Name: "PortolanTest", Value: `"x"`}}}, false},
	} {
		b.detail(c.element, func(b *bench) {
			d := ask(c.p)
			switch err := b.a.Check(d); {
			case err != nil:
				if !fail.Is(err, fail.Unsupported) && !fail.Is(err, fail.Invalid) {
					b.Fatalf("Check gives %v; want a refusal that names %s", err, c.element)
				}
				b.sentence(fail.Sentence(err), c.element)
			case c.never:
				// Some managers take it and never start the job.
				p := b.a.Submit(b.Context(), []adapters.Job{{Tag: newTag(), Definition: d, Owner: "tester"}})[0]
				if p.Err == nil {
					b.cancel(p.Handle)
				}
				if adapters.ClassOf(p.Err) != adapters.Permanent {
					b.Fatalf("Check and Submit take a %s that no site has (Submit said: %v); refuse it by its name", c.element, p.Err)
				}
				b.sentence(fail.Sentence(p.Err), c.element)
			case c.p.NotBefore != nil:
				h := b.submit(d)
				for range 3 {
					b.run(b.h.Define(Behaviour{}))
				}
				if e := b.status(h); e.Phase != adapters.Queued && e.Phase != adapters.Held {
					b.Errorf("a job that must not start for an hour is %s", show(e))
				}
				b.cancel(h)
				if e := b.cancelled(h); !e.NotRun {
					b.Errorf("a job that was cancelled an hour before its start gives %s, want NotRun", show(e))
				}
			}
		})
	}
	// The shares that the site names can be asked for.
	for _, s := range b.resources().Shares {
		d := b.h.Define(Behaviour{})
		d.Description.Resources = &jsdl.Resources{Placement: &jsdl.Placement{Share: &s.ID}}
		if err := b.a.Check(d); err != nil && s.Open {
			b.sentence(fail.Sentence(err), "Share")
			if len(b.resources().Shares) > 1 {
				b.Errorf("Resources names the share %q, but Check refuses a job that asks for it: %v", s.ID, err)
			}
		}
	}
}

// placementNames are the details of testPlacement.
var placementNames = []string{
	"Share", "QualityOfService", "Reservation", "Deadline", "NotBefore", "Priority", "Rerunnable", "GPU", "Licence", "Constraint",
	"Container", "Quorum", "Replicas", "Manager",
}

// anyMPI is the variation of GFD.115 that leaves the launcher to the site.
const anyMPI = "http://www.ogf.org/jsdl/2007/02/jsdl-spmd/MPI"

// anyRank is where launchers tell a process its rank.
const anyRank = "${PORTOLAN_RANK:-${PMIX_RANK:-${PMI_RANK:-${OMPI_COMM_WORLD_RANK:-${SLURM_PROCID:-$_CONDOR_PROCNO}}}}}"

// GFD.115: one program is started as so many processes, each of which knows its
// rank; they end together.
func testSPMD(b *bench) {
	c, err := b.capacity()
	if err != nil {
		b.Fatal(err)
	}
	n := max(1, min(3, c.CPUs*max(1, c.Hosts)))
	rank := b.h.Rank
	if rank == "" {
		rank = anyRank
	}
	path := filepath.Join(b.TempDir(), "ranks")
	script(b, path, "", 0o666)
	job := func(script string) *jsdl.JobDefinition {
		return &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{SPMD: &jsdl.SPMDApplication{
			Executable: text("/bin/sh"), Arguments: []jsdl.Text{{Value: "-c"}, {Value: script}, {Value: "sh"}, {Value: path}},
			NumberOfProcesses: &jsdl.ProcessCount{Value: big.NewInt(int64(n))}, Variation: anyMPI,
		}}}}
	}
	if err := b.a.Check(job("true")); err != nil {
		if !fail.Is(err, fail.Unsupported) {
			b.Errorf("Check of an SPMD job gives %v, want fail.Unsupported or nil", err)
		}
		b.Skipf("skipped: the site starts no SPMD jobs: %s", fail.Sentence(err))
	}
	b.exits(job(`echo "`+rank+` $2" >> "$1"`), 0)
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	var got []int
	for f := range strings.FieldsSeq(string(data)) {
		r, err := strconv.Atoi(f)
		if err != nil {
			b.Fatalf("a process's rank is %q; the harness may say where it stands (Harness.Rank)", f)
		}
		got = append(got, r)
	}
	slices.Sort(got)
	if want := fmt.Sprint([]int{0, 1, 2}[:n]); fmt.Sprint(got) != want {
		b.Errorf("the processes had the ranks %v, want %s", got, want)
	}
	if _, e := b.run(job(`[ "` + rank + `" != 0 ] || exit 3`)); e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus == 0 {
		b.Errorf("an SPMD job one of whose processes fails gives %s, want an exit status that is not 0", show(e))
	}
	if err := os.Truncate(path, 0); err != nil {
		b.Fatal(err)
	}
	h := b.submit(job(`echo $$ >> "$1"; while :; do sleep 1000; done`))
	pids := b.pids(path, n)
	b.running(h)
	b.cancel(h)
	b.cancelled(h)
	b.gone(pids)
}

// A job of an owner who has an account here runs as that account, and one of an
// account that there is not is refused.
func testAccount(b *bench) {
	if os.Getuid() != 0 || len(b.h.Accounts) == 0 {
		b.Skip("skipped: other accounts need root and a site that maps to them (Harness.Accounts)")
	}
	for _, account := range b.h.Accounts {
		p := b.a.Submit(b.Context(), []adapters.Job{{Tag: newTag(), Definition: shell(`id -un; : > made-by-me`), Owner: "tester", Account: account}})
		if p[0].Err != nil {
			b.Fatalf("Submit as the account %s: %v", account, p[0].Err)
		}
		e := b.final(p[0].Handle)
		if out := b.output(p[0].Handle, adapters.Stdout, 0); !exited(e, 0) || out != account+"\n" {
			b.Errorf("a job of the account %s gives %s and says that it runs as %q", account, show(e), out)
		}
	}
	p := b.a.Submit(b.Context(), []adapters.Job{{Tag: newTag(), Definition: Command("/bin/true"), Owner: "tester", Account: "no-such-account-here"}})
	if p[0].Err == nil {
		if e := b.final(p[0].Handle); e.Phase != adapters.Stopped || !e.NotRun {
			b.Errorf("a job of an account that there is not gives %s; want it refused, or Stopped and not run", show(e))
		}
	} else if adapters.ClassOf(p[0].Err) != adapters.Permanent {
		b.Errorf("a job of an account that there is not gives %v, which is not for good", p[0].Err)
	}
}

// A job that takes more memory than it asked for is Stopped with a sentence about
// memory, and told apart from one that is killed by anybody else.
func testMemoryKill(b *bench) {
	if !b.h.Limits["IndividualPhysicalMemory"] {
		b.Skip("skipped: the site does not claim to enforce memory asked for as a resource (Harness.Limits)")
	}
	with := func(d *jsdl.JobDefinition) *jsdl.JobDefinition {
		d.Description.Resources = &jsdl.Resources{IndividualPhysicalMemory: &jsdl.RangeValue{Lower: &jsdl.Bound{Value: 64 << 20}}}
		return d
	}
	b.memory(with)
}

func (b *bench) memory(with func(*jsdl.JobDefinition) *jsdl.JobDefinition) {
	b.Helper()
	// tail keeps a last line that never ends.
	greedy := b.submit(with(shell(`exec tail -n 1 /dev/zero`)))
	killed := b.submit(with(shell(`kill -KILL $$`)))
	status := b.submit(with(shell(`exit 137`)))
	modest := b.submit(with(shell(`exit 0`)))
	if e := b.final(greedy); e.Phase != adapters.Stopped || e.NotRun || !strings.Contains(strings.ToLower(e.Reason), "memory") {
		b.Errorf("a job that takes more memory than it may gives %s; want Stopped with a sentence about memory", show(e))
	}
	if e := b.final(killed); e.Phase != adapters.Exited || e.Signal != "SIGKILL" {
		b.Errorf("a job that kills itself, with memory to spare, gives %s; want Exited by SIGKILL", show(e))
	}
	if e := b.final(status); !exited(e, 137) {
		b.Errorf("a job that exits with 137, with memory to spare, gives %s", show(e))
	}
	if e := b.final(modest); !exited(e, 0) {
		b.Errorf("a job that keeps its memory gives %s", show(e))
	}
}

// A job that runs longer than its WallTimeLimit is Stopped with a sentence that
// names the limit; one that does not is left alone.
func testTimeOut(b *bench) {
	n := int64(b.h.WallTime / time.Second)
	with := func(d *jsdl.JobDefinition, n int64) *jsdl.JobDefinition {
		if a := d.Description.Application; a == nil || a.POSIX == nil {
			b.Skip("skipped: the harness's jobs are no POSIX applications, which alone have limits (GFD.56 §8)")
		}
		posix(d).Limits.WallTime = big.NewInt(n)
		return d
	}
	if err := b.a.Check(with(b.h.Define(Behaviour{Hang: true}), n)); err != nil {
		b.sentence(fail.Sentence(err), "WallTimeLimit")
		b.Skipf("skipped: the site keeps no such limit, and says so: %s", fail.Sentence(err))
	}
	over := b.submit(with(b.h.Define(Behaviour{Hang: true}), n))
	under := b.submit(with(b.h.Define(Behaviour{Exit: 5}), n+100))
	b.patient(b.h.WallTime, func(b *bench) { b.wasStopped(b.final(over), false, "WallTimeLimit") })
	if e := b.final(under); !exited(e, 5) {
		b.Errorf("a job that keeps its WallTimeLimit gives %s", show(e))
	}
}
