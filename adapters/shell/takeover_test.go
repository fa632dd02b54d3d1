package shell

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// What an adapter finds on opening, it judges: no job of before a restart of the
// machine is started, and no record that can't be read stops it.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	jobs, staging := filepath.Join(dir, dirJobs), filepath.Join(dir, dirStaging)
	for _, sub := range []string{jobs, staging, filepath.Join(staging, "place-left")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put := func(tag adapters.Tag, boot string, started bool) {
		t.Helper()
		s := &spec{Version: recordVersion, Tag: tag, Need: 1, Boot: boot, Executable: "/bin/true"}
		if made, err := place(jobs, staging, s); err != nil || !made {
			t.Fatal(made, err)
		}
		if !started {
			return
		}
		f, err := jobDir(filepath.Join(jobs, string(tag))).claim()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := begin(f, begun{Version: recordVersion, Supervisor: "DEAD"}); err != nil {
			t.Fatal(err)
		}
	}
	boot := inspect(nil).boot
	put("waiting", boot, false)
	put("dead", boot, true)
	put("other-boot-waiting", "other", false)
	put("other-boot-running", "other", true)
	put("damaged", boot, false)
	put("torn", boot, true)
	for tag, content := range map[string]string{"damaged": "", "torn": "{\"version\":1,\"superv"} {
		if err := os.WriteFile(filepath.Join(jobs, tag, nameJob), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(jobs, "not a job"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for tag, want := range map[adapters.Tag]struct {
		phase  adapters.Phase
		reason string
	}{
		"waiting": {adapters.Exited, ""}, "dead": {adapters.Lost, reasonKilled}, "other-boot-waiting": {adapters.Lost, reasonReboot},
		"other-boot-running": {adapters.Lost, reasonReboot}, "damaged": {adapters.Lost, reasonBroken}, "torn": {adapters.Lost, reasonBroken},
	} {
		e := a.evidence(tag)
		for !e.Phase.Final() {
			<-again.C
			e = a.evidence(tag)
		}
		if e.Phase != want.phase || !strings.Contains(e.Reason, want.reason) {
			t.Errorf("%s is %v (%s), want %v (%s)", tag, e.Phase, e.Reason, want.phase, want.reason)
		}
		if found, err := a.Find(t.Context(), []adapters.Tag{tag}); err != nil || found[tag] == nil {
			t.Errorf("%s is not found (%v)", tag, err)
		}
	}
	if left, err := os.ReadDir(staging); err != nil || len(left) != 0 {
		t.Errorf("staging holds %v (%v)", left, err)
	}
}
