package shell_test

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// spmd makes a job of n processes of a script.
func spmd(n int, script string, change func(*jsdl.SPMDApplication, *jsdl.Resources)) *jsdl.JobDefinition {
	s := &jsdl.SPMDApplication{
		Executable: &jsdl.Text{Value: "/bin/sh"}, Arguments: []jsdl.Text{{Value: "-c"}, {Value: script}},
		NumberOfProcesses: &jsdl.ProcessCount{Value: big.NewInt(int64(n))}, Variation: jsdl.VariationMPI,
	}
	r := &jsdl.Resources{}
	if change != nil {
		change(s, r)
	}
	return &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{SPMD: s}, Resources: r}}
}

func sorted(out string) []string {
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	slices.Sort(lines)
	return lines
}

const place4 = `echo "$PORTOLAN_RANK/$PORTOLAN_SIZE local $PORTOLAN_LOCAL_RANK/$PORTOLAN_LOCAL_SIZE node $PORTOLAN_NODE/$PORTOLAN_NODES pmi $PMI_RANK/$PMI_SIZE omp $OMP_NUM_THREADS"`

// Each process knows its place.
func TestRanks(t *testing.T) {
	t.Parallel()
	a := open(t, func(*shell.Options) {})
	e, out := ends(t, a, adapters.Job{Tag: "ranks", Definition: spmd(4, place4, nil)})
	want := []string{}
	for i := range 4 {
		want = append(want, fmt.Sprintf("%d/4 local %d/4 node 0/1 pmi %d/4 omp ", i, i, i))
	}
	if e.ExitStatus == nil || *e.ExitStatus != 0 || !slices.Equal(sorted(out), want) {
		t.Errorf("the job is %+v and wrote %q", e, out)
	}
	_, out = ends(t, a, adapters.Job{Tag: "threads", Definition: spmd(2, "echo $OMP_NUM_THREADS", func(s *jsdl.SPMDApplication, _ *jsdl.Resources) {
		s.ThreadsPerProcess = &jsdl.ProcessCount{Value: big.NewInt(2)}
	})})
	if out != "2\n2\n" {
		t.Errorf("two processes of two threads see %q", out)
	}
	// As many as CPUs are allocated, and each with as many threads (GFD.115).
	_, out = ends(t, a, adapters.Job{Tag: "actual", Definition: spmd(1, "echo $PORTOLAN_SIZE $OMP_NUM_THREADS", func(s *jsdl.SPMDApplication, r *jsdl.Resources) {
		s.NumberOfProcesses = &jsdl.ProcessCount{Actual: true}
		s.ThreadsPerProcess = &jsdl.ProcessCount{Actual: true}
		r.TotalCPUCount = &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: 2}}}
	})})
	if out != "2 2\n2 2\n" {
		t.Errorf("with the actual numbers processes see %q", out)
	}
	// One alone is no different.
	if _, out = ends(t, a, adapters.Job{Tag: "one", Definition: spmd(1, "echo $PORTOLAN_RANK/$PORTOLAN_SIZE", nil)}); out != "0/1\n" {
		t.Errorf("one process sees %q", out)
	}
}

// Lines of several processes are never mixed, however they are written.
func TestRanksOutput(t *testing.T) {
	t.Parallel()
	a := open(t, func(*shell.Options) {})
	script := `i=0; while [ $i -lt 200 ]; do printf "rank$PORTOLAN_RANK-"; printf "line$i-"; printf "$LONG\n"; i=$((i+1)); done; printf "last$PORTOLAN_RANK"; echo "e$PORTOLAN_RANK" >&2`
	long := strings.Repeat("x", 3000)
	e, out := ends(t, a, adapters.Job{Tag: "lines", Definition: spmd(4, script, func(s *jsdl.SPMDApplication, _ *jsdl.Resources) {
		s.Environment = []jsdl.EnvironmentVariable{{Name: "LONG", Text: jsdl.Text{Value: long}}}
	})})
	if e.ExitStatus == nil || *e.ExitStatus != 0 {
		t.Fatalf("the job is %+v", e)
	}
	next := map[string]int{}
	for i := range 4 {
		out = strings.Replace(out, fmt.Sprintf("last%d", i), "", 1)
	}
	for line := range strings.Lines(out) {
		rank, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "-")
		if want := fmt.Sprintf("line%d-%s", next[rank], long); rest != want {
			t.Fatalf("a line of %s is %.60q…", rank, line)
		}
		next[rank]++
	}
	if len(next) != 4 || next["rank0"] != 200 || next["rank3"] != 200 {
		t.Errorf("the lines of each are %v", next)
	}
}

// A process that fails ends the others, and its end is the job's.
func TestRankFails(t *testing.T) {
	t.Parallel()
	a := open(t, func(*shell.Options) {})
	for name, end := range map[string]struct{ script, signal string }{
		"status": {"exit 7", ""}, "signal": {"kill -SEGV $$", "SIGSEGV"},
	} {
		e, _ := ends(t, a, adapters.Job{Tag: adapters.Tag("fails-" + name), Definition: spmd(3, `if [ $PORTOLAN_RANK = 1 ]; then sleep 0.2; `+end.script+`; fi; while :; do sleep 1000; done`, nil)})
		switch {
		case e.Phase != adapters.Exited || e.Signal != end.signal:
			t.Errorf("%s: the job is %+v", name, e)
		case end.signal == "" && (e.ExitStatus == nil || *e.ExitStatus != 7):
			t.Errorf("%s: the job is %+v", name, e)
		}
	}
	// Cancelling ends them all.
	notes := t.TempDir()
	p := a.Submit(t.Context(), []adapters.Job{{Tag: "cancelled", Definition: spmd(2, `echo $$ > `+notes+`/tmp$PORTOLAN_RANK; mv `+notes+`/tmp$PORTOLAN_RANK `+notes+`/$PORTOLAN_RANK; while :; do sleep 1000; done`, nil)}})
	if p[0].Err != nil {
		t.Fatal(p[0].Err)
	}
	pids := []int{pid(t, notes+"/0"), pid(t, notes+"/1")}
	if errs := a.Cancel(t.Context(), []adapters.Handle{p[0].Handle}); errs[0] != nil {
		t.Fatal(errs[0])
	}
	if e := final(t, a, p[0].Handle); e.Phase != adapters.Cancelled {
		t.Errorf("the job is %+v", e)
	}
	for _, p := range pids {
		gone(t, p)
	}
	// A program that is not there ends the job before it ran.
	missing := spmd(2, "", nil)
	missing.Description.Application.SPMD.Executable.Value = "/no/such/program"
	if e, _ := ends(t, a, adapters.Job{Tag: "missing", Definition: missing}); e.Phase != adapters.Stopped || !e.NotRun || !strings.Contains(e.Reason, "/no/such/program") {
		t.Errorf("a missing program gives %+v", e)
	}
}

// Processes share the job's files: each reads all of the input.
func TestRanksFiles(t *testing.T) {
	t.Parallel()
	a := open(t, func(*shell.Options) {})
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/in", []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := spmd(2, "cat; echo err >&2", func(s *jsdl.SPMDApplication, _ *jsdl.Resources) {
		s.WorkingDirectory, s.Input, s.Output, s.Error = &jsdl.Text{Value: dir}, &jsdl.Text{Value: "in"}, &jsdl.Text{Value: "both"}, &jsdl.Text{Value: "both"}
	})
	if _, out := ends(t, a, adapters.Job{Tag: "files", Definition: d}); !slices.Equal(sorted(out), []string{"err", "err", "one", "one", "two", "two"}) {
		t.Errorf("two processes wrote %q", out)
	}
}

func TestRanksRefused(t *testing.T) {
	t.Parallel()
	a := open(t, func(*shell.Options) {})
	exclusive := true
	for _, c := range []struct {
		d    *jsdl.JobDefinition
		want string
	}{
		{spmd(5, "", nil), "NumberOfProcesses"},
		{spmd(2, "", func(s *jsdl.SPMDApplication, _ *jsdl.Resources) { s.ProcessesPerHost = big.NewInt(1) }), "ProcessesPerHost"},
		{spmd(2, "", func(s *jsdl.SPMDApplication, _ *jsdl.Resources) { s.ProcessesPerHost = big.NewInt(2) }), ""},
		{spmd(3, "", func(s *jsdl.SPMDApplication, _ *jsdl.Resources) {
			s.ThreadsPerProcess = &jsdl.ProcessCount{Value: big.NewInt(2)}
		}), "ThreadsPerProcess"},
		{spmd(2, "", func(s *jsdl.SPMDApplication, _ *jsdl.Resources) { s.Variation = jsdl.VariationOpenMPI }), "SPMDVariation"},
		{spmd(2, "", func(_ *jsdl.SPMDApplication, r *jsdl.Resources) {
			r.TotalCPUCount = &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: 1}}}
		}), "NumberOfProcesses"},
		{spmd(2, "", func(_ *jsdl.SPMDApplication, r *jsdl.Resources) {
			r.TotalResourceCount = &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: 2}}}
		}), "TotalResourceCount"},
		{spmd(8, "", func(_ *jsdl.SPMDApplication, r *jsdl.Resources) { r.ExclusiveExecution = &exclusive }), ""},
	} {
		err := a.Check(c.d)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("refused: %v", err)
		case c.want != "" && (!fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), c.want+":")):
			t.Errorf("want a refusal of %s, not %v", c.want, err)
		}
	}
}

// A variation with a launcher is started by it.
func TestLauncher(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	launcher := filepath.Join(dir, "mpiexec")
	if err := os.WriteFile(launcher, []byte("#!/bin/sh\necho \"words: $1 $2 $3\"; cat \"$4\"; shift 4; exec \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := open(t, func(o *shell.Options) {
		o.Launchers = map[string][]string{
			jsdl.VariationOpenMPI: {launcher, "-n{processes}", "{perhost}", "{hosts}", "{hostfile}"},
			jsdl.VariationMPICH2:  {"/no/such/mpiexec"},
		}
	})
	d := spmd(3, `echo "$0 $1"`, func(s *jsdl.SPMDApplication, _ *jsdl.Resources) {
		s.Variation = jsdl.VariationOpenMPI
		s.Arguments = append(s.Arguments, jsdl.Text{Value: "a b"}, jsdl.Text{Value: "$HOME;'"})
	})
	if e, out := ends(t, a, adapters.Job{Tag: "launched", Definition: d}); out != "words: -n3 3 localhost:3\nlocalhost slots=3\na b $HOME;'\n" {
		t.Errorf("the job is %+v and wrote %q", e, out)
	}
	d.Description.Application.SPMD.Variation = jsdl.VariationMPICH2
	if err := a.Check(d); !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "/no/such/mpiexec") {
		t.Errorf("a launcher that is not there gives %v", err)
	}
	if !slices.ContainsFunc(a.Health().Remarks, func(r string) bool { return strings.Contains(r, "/no/such/mpiexec") }) {
		t.Errorf("the remarks %q say nothing of it", a.Health().Remarks)
	}
}
