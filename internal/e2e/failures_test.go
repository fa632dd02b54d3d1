package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testbed"
)

// TestPolicyPlugin: a policy that is a program of its own chooses, and the built-in
// one when that is killed.
func TestPolicyPlugin(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "payday")
	if out, err := exec.Command("go", "build", "-o", program, "../broker/policy/pluginpolicy/example").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config := filepath.Join(dir, "gateway.yaml")
	text := fmt.Sprintf(`sites:
  - {name: first, type: shell, settings: {slots: 2}}
  - {name: paid, type: shell, settings: {slots: 2}, model: {labels: [prepaid]}}
policies:
  payday: {command: [%s], timeout: 10s, settings: {label: prepaid}, selection: first-fit}
`, program)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startOn(t, filepath.Join(dir, "data"), "--config", config)
	mustCLI(t, g, "policy", "set", "gateway", "selection", "plugin:payday")
	if got := siteOf(t, g, schedulable{name: "liked"}.submit(t, g)); got != "paid" {
		t.Errorf("the plug-in likes the place paid, and the job ran at %s", got)
	}
	if out, code := cli(t, g, "policy", "set", "gateway", "selection", "plugin:nobody"); code != 3 || !strings.Contains(out, "nobody") {
		t.Errorf("a plug-in that is not there: exit %d\n%s", code, out)
	}
	mustCLI(t, g, "policy", "set", "gateway", "replication", "wqr")
	if out := mustCLI(t, g, "policy", "get", "gateway"); !strings.Contains(out, "wqr") {
		t.Errorf("replication is in force, and this tells\n%s", out)
	}
	if out, code := cli(t, g, "policy", "set", "--shadow", "gateway", "replication", "wqr"); code != 3 || !strings.Contains(out, "replication decides nothing about those") {
		t.Errorf("replication in shadow: exit %d\n%s", code, out)
	}
}

// slurmPoll is how often the gateway asks Slurm in these tests.
const slurmPoll = 10 * time.Second

// TestNodeKilled: a node of a real Slurm dies under load. Its jobs that may be run
// again are finished on another, each comes to its end once, and none is lost.
func TestNodeKilled(t *testing.T) {
	slurm := testbed.StartSlurm(t, testbed.SlurmOptions{Nodes: 2, Conf: []string{"SlurmdTimeout=5", "UnkillableStepTimeout=5"}})
	setenv(t, slurm.Env())
	dir := openDir(t)
	spool := filepath.Join(dir, "slurm")
	if err := os.Mkdir(spool, 0o755); err != nil {
		t.Fatal(err)
	}
	config, ran := filepath.Join(dir, "gateway.yaml"), filepath.Join(dir, "ran")
	text := fmt.Sprintf("sites:\n  - {name: slurm, type: slurm, ahead: 0, settings: {spool: %s, requestsPerSecond: 20, poll: %s}}\n  - {name: shell, type: shell, settings: {slots: 4}}\n", spool, slurmPoll)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startOn(t, t.TempDir(), "--config", config)
	mustCLI(t, g, "policy", "set", "gateway", "selection", "first-fit")

	gate := filepath.Join(dir, "gate")
	var all []soap.EPR
	for i := range 8 { // as many as Slurm has CPUs
		all = append(all, schedulable{
			name: fmt.Sprint(i), rerunable: true,
			script: fmt.Sprintf("echo %d >>%s; while [ ! -e %s ]; do sleep 0.05; done; echo done %d >>%s", i, ran, gate, i, ran),
		}.submit(t, g))
	}
	hosts := map[string][]soap.EPR{}
	for _, e := range all {
		s, err := waitFor(t.Context(), g.client(), e, func(s bes.Status) bool {
			return s.State == bes.Running && s.Details != nil && !s.Details.Started.IsZero() && len(s.Details.Hosts) > 0
		})
		if err != nil {
			t.Fatal(err)
		}
		hosts[s.Details.Hosts[0]] = append(hosts[s.Details.Hosts[0]], e)
	}
	t.Logf("jobs of each node: %d nodes", len(hosts))
	node := slurm.Nodes[0]
	victims := hosts[node]
	if len(victims) == 0 {
		t.Fatalf("no job runs on %s: %v", node, hosts)
	}
	slurm.KillNode(t, node)
	known := make(chan time.Time, 1)
	go func() { known <- slurm.UntilDown(t, node) }()
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	for _, e := range victims {
		s, err := waitFor(ctx, g.client(), e, func(s bes.Status) bool {
			return s.Details != nil && (len(s.SubStates) != 1 || s.SubStates[0].Local != "Executing" || s.Details.Site != "slurm")
		})
		if err != nil {
			t.Fatalf("%v: %+v", err, s)
		}
	}
	// Slurm takes its own time to call a node dead; from then on ours runs.
	noticed := time.Since(<-known)
	t.Logf("that %d jobs of the dead node do not run any more was known %s after Slurm knew", len(victims), noticed.Round(time.Millisecond))
	if noticed > 2*slurmPoll+slurmPoll/2 { // in which the end of each is told
		t.Errorf("noticed after %s, more than two intervals of %s", noticed, slurmPoll)
	}
	open(t, gate)
	for _, e := range all {
		siteOf(t, g, e)
	}
	id := victims[0].Address[strings.LastIndexByte(victims[0].Address, '/')+1:]
	t.Logf("one of them:\n%s", mustCLI(t, g, "history", "-o", "wide", id))
	b, err := os.ReadFile(ran)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if n := strings.Count(string(b), fmt.Sprintf("done %d\n", i)); n != 1 {
			t.Errorf("job %d came to its end %d times", i, n)
		}
	}
}

// TestSiteGone: a whole Slurm dies under load, with its controller and all that runs
// there, and does not come back. That is noticed within two intervals; once somebody
// vouches for it, and though the gateway is killed in the middle, what may run elsewhere
// does, before what came later: nothing is lost, and nothing runs twice.
func TestSiteGone(t *testing.T) {
	slurm := testbed.StartSlurm(t, testbed.SlurmOptions{Nodes: 2})
	setenv(t, slurm.Env())
	dir := openDir(t)
	spool := filepath.Join(dir, "slurm")
	if err := os.Mkdir(spool, 0o755); err != nil {
		t.Fatal(err)
	}
	config, data, ran := filepath.Join(dir, "gateway.yaml"), t.TempDir(), filepath.Join(dir, "ran")
	text := fmt.Sprintf("sites:\n  - {name: slurm, type: slurm, settings: {spool: %s, requestsPerSecond: 20, poll: %s}}\n  - {name: shell, type: shell, ahead: 0, settings: {slots: 2}}\n", spool, slurmPoll)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startOn(t, data, "--config", config)
	mustCLI(t, g, "policy", "set", "gateway", "selection", "first-fit")

	gate, late := filepath.Join(dir, "gate"), filepath.Join(dir, "late")
	waits := func(name, gate string, again bool, site string) soap.EPR {
		return schedulable{
			name: name, rerunable: again, site: site,
			script: fmt.Sprintf("echo start %s >>%s; while [ ! -e %s ]; do sleep 0.05; done; echo done %s >>%s", name, ran, gate, name, ran),
		}.submit(t, g)
	}
	blocks := []soap.EPR{waits("block0", late, false, "shell"), waits("block1", late, false, "shell")}
	for _, e := range blocks {
		if _, err := waitFor(t.Context(), g.client(), e, func(s bes.Status) bool { return s.Details != nil && !s.Details.Started.IsZero() }); err != nil {
			t.Fatal(err)
		}
	}
	var again, once, queued, later []soap.EPR
	for i := range 4 { // as many as Slurm has CPUs, together
		again = append(again, waits(fmt.Sprintf("again%d", i), gate, true, ""))
		once = append(once, waits(fmt.Sprintf("once%d", i), gate, false, ""))
	}
	for _, e := range append(again, once...) {
		if _, err := waitFor(t.Context(), g.client(), e, func(s bes.Status) bool {
			return s.State == bes.Running && s.Details != nil && !s.Details.Started.IsZero() && s.Details.Site == "slurm"
		}); err != nil {
			t.Fatal(err)
		}
	}
	const many = 200
	for i := range many {
		queued = append(queued, schedulable{name: fmt.Sprint("queued", i), script: fmt.Sprintf("echo start queued%d >>%s; echo done queued%d >>%s", i, ran, i, ran)}.submit(t, g))
	}
	for _, e := range queued {
		if _, err := waitFor(t.Context(), g.client(), e, func(s bes.Status) bool {
			return s.State == bes.Running && s.Details != nil && s.Details.Site == "slurm" && s.SubStates[0].Local == "Submitted"
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range slurm.Nodes {
		slurm.KillNode(t, node)
	}
	slurm.Kill(t, testbed.Slurmctld)
	began := time.Now()
	for !strings.Contains(mustCLI(t, g, "sites", "slurm"), " down ") {
		if time.Since(began) > time.Minute {
			t.Fatalf("the site is not known to be down:\n%s", mustCLI(t, g, "sites"))
		}
	}
	noticed := time.Since(began)
	t.Logf("that the site is down was known after %s", noticed.Round(time.Millisecond))
	if noticed > 2*slurmPoll+slurmPoll/2 { // in which the program above is run
		t.Errorf("noticed after %s, more than two intervals of %s", noticed, slurmPoll)
	}
	for i := range 20 {
		later = append(later, schedulable{name: fmt.Sprint("later", i), script: fmt.Sprintf("echo start later%d >>%s", i, ran)}.submit(t, g))
	}
	t.Log(mustCLI(t, g, "fence", "--reason", "burnt down", "slurm"))
	g.kill()
	g = startOn(t, data, "--config", config)
	open(t, gate)
	open(t, late)
	for _, e := range append(append(again, queued...), later...) {
		if site := siteOf(t, g, e); site != "shell" {
			t.Errorf("%s ran at %s", e.Address, site)
		}
	}
	for _, e := range once {
		s, err := waitFinal(t.Context(), g.client(), e)
		if err != nil || s.State != bes.Failed || !strings.Contains(s.Details.Reason, "burnt down") || !strings.Contains(s.Details.Reason, "Rerunnable") {
			t.Errorf("%v: %s: %s", err, s.State, reason(s))
		}
	}
	for what, e := range map[string]soap.EPR{"one that ran": again[0], "one that waited": queued[0]} {
		id := e.Address[strings.LastIndexByte(e.Address, '/')+1:]
		t.Logf("%s:\n%s", what, mustCLI(t, g, "history", "-o", "wide", id))
	}
	b, err := os.ReadFile(ran)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]int{}
	firstLater, lastQueued := -1, -1
	for i, line := range strings.Split(string(b), "\n") {
		lines[line]++
		if strings.HasPrefix(line, "start later") && firstLater < 0 {
			firstLater = i
		}
		if strings.HasPrefix(line, "start queued") {
			lastQueued = i
		}
	}
	for i := range many {
		if n := lines[fmt.Sprint("start queued", i)]; n != 1 {
			t.Errorf("job queued%d began %d times", i, n)
		}
	}
	for i := range 4 {
		if done, ran := lines[fmt.Sprint("done again", i)], lines[fmt.Sprint("start again", i)]; done != 1 || ran != 2 {
			t.Errorf("job again%d began %d times and came to its end %d times", i, ran, done)
		}
		if done, ran := lines[fmt.Sprint("done once", i)], lines[fmt.Sprint("start once", i)]; done != 0 || ran != 1 {
			t.Errorf("job once%d began %d times and came to its end %d times", i, ran, done)
		}
	}
	for i := range later {
		if n := lines[fmt.Sprint("start later", i)]; n != 1 {
			t.Errorf("job later%d began %d times", i, n)
		}
	}
	if firstLater < lastQueued-4 { // two slots: neighbours may be written the other way round
		t.Errorf("one that came later began as line %d, the last of the site that is gone as line %d", firstLater, lastQueued)
	}
}
