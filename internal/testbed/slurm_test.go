package testbed

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestSlurm(t *testing.T) {
	begin := time.Now()
	s := StartSlurm(t, SlurmOptions{DBD: true, REST: os.Getuid() == 0})
	t.Logf("up in %v", time.Since(begin))
	id := strings.TrimSpace(s.MustRun(t, "sbatch", "--parsable", "--chdir="+s.Dir, "--output=out", "--wrap=exit 7"))
	end := func() {
		t.Helper()
		if err := eventually(2*time.Minute, func() error {
			out, err := s.Run("scontrol", "show", "job", id)
			if err == nil && !strings.Contains(out, "ExitCode=7:0") {
				return os.ErrNotExist
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	end()
	s.Kill(t, Slurmctld)
	if _, err := s.Run("scontrol", "ping"); err == nil {
		t.Error("a killed controller answers")
	}
	s.Start(t, Slurmctld)
	end()
	s.Freeze(t, Slurmctld)
	s.Thaw(t, Slurmctld)
	end()
}
