package condor_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters/condor"
)

// TestMain runs a job where HTCondor starts this binary as the runner.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == condor.RunWord {
		os.Exit(condor.RunMain(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}
