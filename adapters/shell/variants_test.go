package shell_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
)

// The other ways to hold a tree together pass the same suite.
func TestSuiteTrack(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"cgroup1", "process"} {
		t.Run(way, func(t *testing.T) {
			if testing.Short() && way != "process" {
				t.Skip("skipped: -short")
			}
			a, err := shell.Open(shell.Options{Dir: t.TempDir(), Track: way})
			if fail.Is(err, fail.Unsupported) {
				t.Skipf("skipped: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			h := harness(func(o *shell.Options) { o.Track = way })
			h.Limits, h.Short = able(t, way), true
			adaptertest.Run(t, h)
		})
	}
}

// An ordinary account has fewer means, and passes the suite with what it has.
func TestSuiteUnprivileged(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("skipped: the whole of the tests runs without privileges already")
	}
	setpriv := testenv.Tool(t, "setpriv", "util-linux")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "unprivileged-") //nolint:usetesting // below t.TempDir only its owner may go
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// The test's binary may stand where only root can read it.
	binary := dir + "/shell.test"
	if out, err := exec.Command("cp", exe, binary).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o777, binary: 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", binary, "-test.run=^(TestSuite|TestPrivateTmp|TestNoNetwork|TestNoNewPrivileges|TestSandboxMissing|TestRanks)$", "-test.short")
	cmd.Dir, cmd.Env = dir, []string{"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as an ordinary account: %v\n%s", err, out)
	} else if !strings.Contains(string(out), "PASS") {
		t.Errorf("as an ordinary account: %s", out)
	}
}
