package slurm_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters/slurm"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == slurm.RunWord {
		os.Exit(slurm.RunMain(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}
