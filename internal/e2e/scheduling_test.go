package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testbed"
)

// job is a document with what a test of scheduling varies.
type schedulable struct {
	name      string
	script    string // default: exit 0
	site      string // CandidateHosts; "" is any
	cpus      int
	vo        string
	deadline  time.Time
	priority  int
	limit     int // WallTimeLimit, seconds
	criteria  string
	rerunable bool
}

func (s schedulable) document() []byte {
	script := cmp.Or(s.script, "exit 0")
	limit, hosts, cpus, deadline, vo, priority, criteria, rerun := "", "", "", "", "", "", "", ""
	if s.limit > 0 {
		limit = fmt.Sprintf("<p:WallTimeLimit>%d</p:WallTimeLimit>", s.limit)
	}
	if s.site != "" {
		hosts = "<j:CandidateHosts><j:HostName>" + s.site + "</j:HostName></j:CandidateHosts>"
	}
	if s.cpus > 0 {
		cpus = fmt.Sprintf("<j:TotalCPUCount><j:Exact>%d</j:Exact></j:TotalCPUCount>", s.cpus)
	}
	if !s.deadline.IsZero() {
		deadline = "<o:Deadline>" + s.deadline.UTC().Format("2006-01-02T15:04:05Z") + "</o:Deadline>"
	}
	if s.priority != 0 {
		priority = fmt.Sprintf("<o:Priority>%d</o:Priority>", s.priority)
	}
	if s.rerunable {
		rerun = "<o:Rerunnable>true</o:Rerunnable>"
	}
	if s.vo != "" {
		vo = "<o:VO>" + s.vo + "</o:VO>"
	}
	if s.criteria != "" {
		criteria = "<o:Criteria>" + s.criteria + "</o:Criteria>"
	}
	return fmt.Appendf(nil, `<j:JobDefinition xmlns:j="http://schemas.ggf.org/jsdl/2005/11/jsdl" xmlns:p="http://schemas.ggf.org/jsdl/2005/11/jsdl-posix" xmlns:o="http://portolan-project.org/ns/2026/jsdl"><j:JobDescription>`+
		`<j:JobIdentification><j:JobName>%s</j:JobName></j:JobIdentification>`+
		`<j:Application><p:POSIXApplication><p:Executable>/bin/sh</p:Executable><p:Argument>-c</p:Argument><p:Argument>%s</p:Argument>%s</p:POSIXApplication></j:Application>`+
		`<j:Resources>%s%s<o:Placement>%s%s%s%s</o:Placement>%s</j:Resources></j:JobDescription></j:JobDefinition>`,
		s.name, xmlText(script), limit, hosts, cpus, deadline, priority, rerun, vo, criteria)
}

func xmlText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

func hard(name, typ, op, value string) string {
	return fmt.Sprintf(`<o:Criterion name="%s" type="%s" operator="%s">%s</o:Criterion>`, name, typ, op, xmlText(value))
}

func soft(name, typ, op, value string, priority int) string {
	return fmt.Sprintf(`<o:Criterion name="%s" type="%s" operator="%s" kind="SOFT" priority="%d">%s</o:Criterion>`, name, typ, op, priority, xmlText(value))
}

// submit creates an activity.
func (s schedulable) submit(t *testing.T, g *gateway) soap.EPR {
	t.Helper()
	r, err := g.client().CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: s.document()})
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	return r.Activity
}

// cli runs the program as a user of the gateway does.
func cli(t *testing.T, g *gateway, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "PORTOLAN_ENDPOINT="+g.endpoint)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	code := 0
	if err != nil {
		code = cmd.ProcessState.ExitCode()
		out = append(out, stderr.String()...)
	}
	return string(out), code
}

func mustCLI(t *testing.T, g *gateway, args ...string) string {
	t.Helper()
	out, code := cli(t, g, args...)
	if code != 0 {
		t.Fatalf("portolan %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// siteOf waits for an activity's end and says where it ran.
func siteOf(t *testing.T, g *gateway, e soap.EPR) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	s, err := waitFinal(ctx, g.client(), e)
	if err != nil {
		t.Fatal(err)
	}
	if s.State != bes.Finished || s.Details == nil {
		t.Fatalf("%s ended as %s: %s", e.Address, s.State, reason(s))
	}
	return s.Details.Site
}

// setenv sets NAME=VALUE for as long as the test runs.
func setenv(t *testing.T, list []string) {
	t.Helper()
	for _, v := range list {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

// schedulingSites starts a real Slurm and a real HTCondor and writes a
// configuration with them and the shell, which has one slot.
func schedulingSites(t *testing.T) string {
	t.Helper()
	slurm := testbed.StartSlurm(t, testbed.SlurmOptions{Nodes: 2})
	condor := testbed.StartCondor(t, testbed.CondorOptions{})
	setenv(t, append(slurm.Env(), condor.Env()...))
	dir := openDir(t)
	spool := filepath.Join(dir, "slurm")
	if err := os.Mkdir(spool, 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "portolan.yaml")
	text := fmt.Sprintf(`sites:
  - name: shell
    type: shell
    settings: {slots: 1}
    ahead: 1
    model: {price: 3, labels: [desk]}
  - name: slurm
    type: slurm
    settings: {spool: %s, requestsPerSecond: 20, poll: 500ms}
    ahead: 1
    model: {price: 1, labels: [cluster], deny: ["vo:guests"]}
  - name: condor
    type: condor
    ahead: 1
    model: {price: 2, labels: [pool]}
`, spool)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// TestScheduling: with a real Slurm, a real HTCondor and the shell as sites, hard
// criteria exclude, soft ones reorder, VO rights hold, each policy gives its
// order, and one that is changed by command while 500 jobs wait holds for the next
// decision and after a kill.
func TestScheduling(t *testing.T) {
	config := schedulingSites(t)
	data := t.TempDir()
	g := startOn(t, data, "--config", config)

	t.Run("HardExcludes", func(t *testing.T) {
		for _, c := range []struct{ criteria, want string }{
			{hard("Site", "string", "eq", "condor"), "condor"},
			{hard("Price", "decimal", "ge", "3"), "shell"},
			{hard("Label", "string", "eq", "cluster"), "slurm"},
			{hard("Manager", "string", "in", "boinc condor"), "condor"},
		} {
			if got := siteOf(t, g, schedulable{name: "hard", criteria: c.criteria}.submit(t, g)); got != c.want {
				t.Errorf("%s: it ran at %s, not at %s", c.criteria, got, c.want)
			}
		}
	})
	t.Run("SoftReorders", func(t *testing.T) {
		for _, c := range []struct{ criteria, want string }{
			{soft("Price", "decimal", "min", "", 100), "slurm"},
			{soft("Price", "decimal", "max", "", 100), "shell"},
			{soft("Price", "decimal", "min", "", 1) + soft("Site", "string", "eq", "condor", 1000), "condor"},
		} {
			if got := siteOf(t, g, schedulable{name: "soft", criteria: c.criteria}.submit(t, g)); got != c.want {
				t.Errorf("%s: it ran at %s, not at %s", c.criteria, got, c.want)
			}
		}
	})
	t.Run("Rights", func(t *testing.T) {
		if got := siteOf(t, g, schedulable{name: "guest", vo: "guests", criteria: soft("Price", "decimal", "min", "", 100)}.submit(t, g)); got != "condor" {
			t.Errorf("a guest's job, which slurm does not take, ran at %s, not at the next cheapest", got)
		}
	})
	t.Run("Selection", func(t *testing.T) {
		for _, c := range []struct{ policy, want string }{{"cheapest", "slurm"}, {"first-fit", "shell"}} {
			mustCLI(t, g, "policy", "set", "gateway", "selection", c.policy)
			if got := siteOf(t, g, schedulable{name: c.policy}.submit(t, g)); got != c.want {
				t.Errorf("%s: it ran at %s, not at %s", c.policy, got, c.want)
			}
		}
	})
	t.Run("Orders", func(t *testing.T) {
		base := time.Now().Add(time.Hour).Truncate(time.Second)
		jobs := []schedulable{
			{name: "a", deadline: base.Add(40 * time.Minute), limit: 60, priority: -5},
			{name: "b", deadline: base.Add(30 * time.Minute), limit: 10, priority: 9},
			{name: "c", deadline: base.Add(50 * time.Minute), limit: 3000, priority: 3},
			{name: "d", priority: 100},
		}
		for _, c := range []struct{ policy, want string }{
			{"fifo", "a b c d"},
			{"edf", "b a c d"},
			{"realtime", "c b a d"}, // least slack: 0, 29:50, 39:00
			{"priority", "d b c a"},
		} {
			mustCLI(t, g, "policy", "set", "gateway", "scheduling", c.policy)
			if got := strings.Join(order(t, g, jobs), " "); got != c.want {
				t.Errorf("%s: they ran as %s, not as %s", c.policy, got, c.want)
			}
		}
		mustCLI(t, g, "policy", "set", "gateway", "scheduling", "fairshare")
		fair := []schedulable{{name: "x1", vo: "x"}, {name: "x2", vo: "x"}, {name: "x3", vo: "x"}, {name: "y1", vo: "y"}, {name: "y2", vo: "y"}}
		if got := order(t, g, fair); slices.Index(got, "y1") > 2 || slices.Index(got, "x3") < slices.Index(got, "y1") {
			t.Errorf("fairshare: they ran as %s: the VO y, which has used nothing, waited behind all of x", got)
		}
	})
	t.Run("Changed", func(t *testing.T) { policyChanged(t, g, data, config) })
}

// order runs jobs one at a time at the shell, all of them waiting behind one that
// blocks it, and says in which order they started.
func order(t *testing.T, g *gateway, jobs []schedulable) []string {
	t.Helper()
	gate := filepath.Join(t.TempDir(), "gate")
	blockers := block(t, g, gate)
	ran := filepath.Join(t.TempDir(), "ran")
	var all []soap.EPR
	for _, j := range jobs {
		j.site, j.script = "shell", "echo "+j.name+" >>"+ran
		all = append(all, j.submit(t, g))
	}
	open(t, gate)
	for _, e := range append(blockers, all...) {
		siteOf(t, g, e)
	}
	b, err := os.ReadFile(ran)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// block keeps the shell's one slot and the one place ahead of it until the gate is there.
func block(t *testing.T, g *gateway, gate string) []soap.EPR {
	t.Helper()
	var out []soap.EPR
	for range 2 {
		e := schedulable{name: "blocker", site: "shell", script: "while [ ! -e " + gate + " ]; do sleep 0.05; done"}.submit(t, g)
		if _, err := waitFor(t.Context(), g.client(), e, func(s bes.Status) bool { return s.State == bes.Running }); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func open(t *testing.T, gate string) {
	t.Helper()
	if err := os.WriteFile(gate, nil, 0o666); err != nil {
		t.Fatal(err)
	}
}

// policyChanged: 500 jobs wait in the order of their age; once the policy is
// edf, the very next one is that of the earliest deadline, the last submitted; a
// kill forgets neither the policy nor a job.
func policyChanged(t *testing.T, g *gateway, data, config string) {
	mustCLI(t, g, "policy", "set", "gateway", "scheduling", "fifo")
	gate, ran := filepath.Join(t.TempDir(), "gate"), filepath.Join(t.TempDir(), "ran")
	blockers := block(t, g, gate)
	const waiting = 500
	base := time.Now().Add(100 * time.Hour)
	all := make([]soap.EPR, waiting)
	for i := range all {
		all[i] = schedulable{
			name: fmt.Sprint(i), site: "shell", script: fmt.Sprintf("echo %d >>%s; sleep 0.02", i, ran),
			deadline: base.Add(-time.Duration(i) * time.Minute),
		}.submit(t, g)
	}
	mustCLI(t, g, "policy", "set", "gateway", "scheduling", "edf")
	open(t, gate)
	for _, e := range blockers {
		siteOf(t, g, e)
	}
	first := func(n int) []string {
		for {
			b, _ := os.ReadFile(ran) // not there before the first
			if names := strings.Fields(string(b)); len(names) >= n {
				return names
			}
			pause(t.Context(), 20*time.Millisecond)
			if t.Context().Err() != nil {
				t.Fatal("the jobs do not run")
			}
		}
	}
	if names := first(5); !slices.Equal(names[:5], []string{"499", "498", "497", "496", "495"}) {
		t.Errorf("after the policy was changed to edf, the first jobs were %v", names[:5])
	}
	g.kill()
	g = startOn(t, data, "--config", config)
	if out := mustCLI(t, g, "policy", "get", "gateway"); !strings.Contains(out, "edf") {
		t.Errorf("after a kill the policy is\n%s", out)
	}
	for _, e := range all {
		siteOf(t, g, e)
	}
	b, err := os.ReadFile(ran)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(b))
	if len(names) != waiting {
		t.Errorf("%d jobs ran %d times", waiting, len(names))
	}
	// What was on its way to the site when the gateway was killed, one for its slot and one
	// ahead of that, is looked for there first, and what is placed meanwhile may overtake it.
	late, least := 0, waiting
	for _, name := range names {
		if n := number(name); n > least {
			late++
		} else {
			least = n
		}
	}
	if late > 2 {
		t.Errorf("they did not run in the order of their deadlines: %v", names)
	}
}

func number(s string) (n int) {
	_, _ = fmt.Sscan(s, &n) // a name that is no number is 0
	return n
}

// TestMatch: a document that can't be run anywhere names the clause of every site
// and the nearest change, to the command and to a BES client alike.
func TestMatch(t *testing.T) {
	config := schedulingSites(t)
	g := startOn(t, t.TempDir(), "--config", config)
	doc := schedulable{name: "huge", cpus: 100000}
	file := filepath.Join(t.TempDir(), "huge.jsdl")
	if err := os.WriteFile(file, doc.document(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := cli(t, g, "match", file)
	if code != 1 {
		t.Errorf("match of an impossible document: exit %d, not 1\n%s", code, out)
	}
	_, err := g.client().CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: doc.document()})
	if err == nil {
		t.Fatal("an impossible document was taken")
	}
	for what, text := range map[string]string{"match": out, "the fault": err.Error()} {
		for _, want := range []string{"shell", "slurm", "condor", "TotalCPUCount", "100000"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not name %s:\n%s", what, want, text)
			}
		}
		if !strings.Contains(text, "instead of") {
			t.Errorf("%s names no change that would fit:\n%s", what, text)
		}
	}

	// One that could run, but not now: the status says for what it waits.
	gate := filepath.Join(t.TempDir(), "gate")
	block(t, g, gate)
	defer open(t, gate)
	e := schedulable{name: "waits", site: "shell"}.submit(t, g)
	s, err := g.client().GetActivityStatuses(t.Context(), &bes.StatusRequest{Activities: []soap.EPR{e}})
	if err != nil || s[0].Err != nil {
		t.Fatal(err, s)
	}
	if text := reason(s[0].Status); !strings.Contains(text, "is full") || !strings.Contains(text, "shell") {
		t.Errorf("a job that waits for the shell says %q", text)
	}

	// And why it went where it went.
	done := schedulable{name: "why", criteria: hard("Site", "string", "eq", "slurm")}.submit(t, g)
	siteOf(t, g, done)
	id := done.Address[strings.LastIndexByte(done.Address, '/')+1:]
	why := mustCLI(t, g, "history", "--why", id)
	for _, want := range []string{"slurm", "shell", "condor", "Site"} {
		if !strings.Contains(why, want) {
			t.Errorf("history --why does not name %s:\n%s", want, why)
		}
	}
	var sites []map[string]any
	if err := json.Unmarshal([]byte(mustCLI(t, g, "sites", "-o", "json")), &sites); err != nil || len(sites) != 3 {
		t.Errorf("sites: %v, %v", sites, err)
	}
}
