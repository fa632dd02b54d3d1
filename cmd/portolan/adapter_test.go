package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestAdapterScripts runs testdata/adapter/*.txt, with the worked example in $QUEUE.
func TestAdapterScripts(t *testing.T) {
	queue := filepath.Join(t.TempDir(), "queue")
	if out, err := exec.Command("go", "build", "-o", queue, "../../adapters/plugin/examples/go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/adapter",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("QUEUE", queue)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}
