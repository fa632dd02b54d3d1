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
  payday: {command: [%s], settings: {label: prepaid}, selection: first-fit}
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
	if out, code := cli(t, g, "policy", "set", "gateway", "replication", "wqr"); code != 3 || !strings.Contains(out, "replication") {
		t.Errorf("replication: exit %d\n%s", code, out)
	}
}

// TestNodeKilled: a node of a real Slurm dies under load. Its jobs that may be run
// again are finished on another, each comes to its end once, and none is lost.
func TestNodeKilled(t *testing.T) {
	slurm := testbed.StartSlurm(t, testbed.SlurmOptions{Nodes: 2, Conf: []string{"SlurmdTimeout=5", "UnkillableStepTimeout=5"}})
	for _, v := range slurm.Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	dir := openDir(t)
	spool := filepath.Join(dir, "slurm")
	if err := os.Mkdir(spool, 0o755); err != nil {
		t.Fatal(err)
	}
	config, ran := filepath.Join(dir, "gateway.yaml"), filepath.Join(dir, "ran")
	text := fmt.Sprintf("sites:\n  - {name: slurm, type: slurm, ahead: 0, settings: {spool: %s, requestsPerSecond: 20, poll: 500ms}}\n  - {name: shell, type: shell, settings: {slots: 4}}\n", spool)
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
	began := time.Now()
	slurm.KillNode(t, node)
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
	t.Logf("that %d jobs of the dead node do not run any more was known after %s", len(victims), time.Since(began).Round(time.Second))
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
