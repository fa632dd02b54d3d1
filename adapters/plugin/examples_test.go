package plugin_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/plugin"
	"github.com/portolan-project/portolan/internal/testenv"
)

// example judges a plug-in whose jobs are programs of this machine.
func example(t *testing.T, command string, limits map[string]bool) {
	t.Helper()
	adaptertest.Run(t, adaptertest.Harness{
		Site: func(t testing.TB) any { return t.TempDir() },
		Open: func(t testing.TB, site any) adapters.Adapter {
			s, err := adapters.ParseSettings("command: [" + command + "]\nsettings: {slots: 8}\ncallTimeout: 1m")
			if err != nil {
				t.Fatal(err)
			}
			a, err := plugin.Open(adapters.Config{Site: "example", Dir: site.(string), Settings: s})
			if err != nil {
				t.Fatal(err)
			}
			if h := a.Health(); h.Problem != "" {
				_ = a.Close()
				t.Fatal(h.Problem)
			}
			return a
		},
		// The gateway's death is the plug-in's, too.
		Crash:    func(a adapters.Adapter) { plugin.Kill(a); _ = a.Close() },
		Programs: true, Limits: limits, Umask: 0o022, Short: !testenv.Thorough(), Patience: time.Minute,
		Lacks: map[string]string{
			"Faults/Down":             "the plug-in is the manager, and no daemon beside it can be down; its own death is tested apart",
			"Faults/ControllerKilled": "the plug-in is the manager; it is killed in the parts of the crash and in tests of the host's",
			"Faults/AnswerLost":       "jobs are placed by the plug-in itself; that its answer to the gateway is lost is tested apart",
			"Faults/SubmissionLost":   "jobs are placed by the plug-in itself; that it dies before is tested apart",
			"Faults/ReuseIDs":         "jobs have no ids but their tags",
			"OldHandles":              "handles are of the first version",
			"Programs/Account":        "jobs run as the account of the plug-in",
			"Programs/MemoryKill":     "no memory limit is kept; one that is asked for is refused",
		},
	})
}

// The interpreter is Debian's: that is where its packages are.
const python = "/usr/bin/python3"

func TestPythonExample(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command(python, "-c", "import grpc, cryptography, google.protobuf").CombinedOutput(); err != nil {
		testenv.Missing(t, "%s lacks what the example needs: apt-get install python3-grpcio python3-protobuf python3-cryptography (%v: %s)", python, err, out)
	}
	dir, err := filepath.Abs("examples/python")
	if err != nil {
		t.Fatal(err)
	}
	example(t, fmt.Sprintf("%q, -B, %q", python, filepath.Join(dir, "batch.py")), map[string]bool{"WallTimeLimit": true})
}

func TestGoExample(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "queue")
	if out, err := exec.Command("go", "build", "-o", bin, "./examples/go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	example(t, fmt.Sprintf("%q", bin), map[string]bool{"WallTimeLimit": true})
}
