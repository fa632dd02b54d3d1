package testbed

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestCondor(t *testing.T) {
	begin := time.Now()
	c := StartCondor(t, CondorOptions{})
	t.Logf("up in %v", time.Since(begin))
	id, _, _ := strings.Cut(c.MustRun(t, "condor_submit", "-terse", "executable=/bin/sh", `arguments="-c 'exit 7'"`, "should_transfer_files=NO", "-queue", "1"), " ")
	if err := eventually(20*time.Second, func() error {
		out, err := c.Run("condor_history", id, "-af", "ExitCode")
		if err == nil && strings.TrimSpace(out) != "7" {
			err = fmt.Errorf("the history says %q", out)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c.Stop(t, CondorSchedd)
	if _, err := c.Run("condor_q"); err == nil {
		t.Error("a stopped schedd answers")
	}
	c.Start(t, CondorSchedd)
	c.Kill(t, CondorSchedd)
	c.Ready(t)
	c.Freeze(t, CondorSchedd)
	c.Thaw(t, CondorSchedd)
	c.Ready(t)
}
