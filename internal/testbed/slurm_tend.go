package testbed

import (
	"context"
	"strings"
	"testing"
	"time"
)

// Tend does until the test ends what the administrator of a cluster does whose
// controller was killed: it gives nodes back to service that Slurm drained. A
// controller that is killed forgets its last seconds, gives the ids of jobs that run to
// new ones, and drains the nodes that tell it so ("Duplicate jobid").
func (s *Slurm) Tend(tb testing.TB) {
	tb.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			// While the controller is down, both fail, and are tried again.
			out, err := s.Run("sinfo", "-h", "-R", "-o", "%N|%E")
			if err != nil {
				continue
			}
			for line := range strings.Lines(out) {
				if nodes, reason, _ := strings.Cut(strings.TrimSpace(line), "|"); reason == "Duplicate jobid" {
					_, _ = s.Run("scontrol", "update", "nodename="+nodes, "state=resume")
				}
			}
		}
	}()
	tb.Cleanup(func() {
		stop()
		<-done
	})
}
