package shell_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
)

// A job that fills the disk has its exit status all the same. While the disk is
// full, no job is taken; a job that was taken before says why it could not start.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		testenv.Missing(t, "a small file system can't be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	o := options(dir)
	o.Slots = 1
	a, err := shell.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	gate := t.TempDir() + "/gate"
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	filler := place(t, a, "filler", "cat /dev/zero > fill 2> /dev/null; while echo x >> small; do :; done 2> /dev/null; cat "+gate+"; exit 9")
	behind := place(t, a, "behind", "echo hello")
	open, err := os.OpenFile(gate, os.O_WRONLY, 0) // waits for the filler to have filled
	if err != nil {
		t.Fatal(err)
	}
	p := a.Submit(t.Context(), []adapters.Job{{Tag: "late", Definition: adaptertest.Command("/bin/true")}})
	if !fail.Is(p[0].Err, fail.Exhausted) || !strings.Contains(fail.Sentence(p[0].Err), "disk is full") {
		t.Errorf("on a full disk Submit gives %v", p[0].Err)
	}
	_ = open.Close()
	if e := final(t, a, filler); e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != 9 || !strings.Contains(e.Reason, "disk was full") {
		t.Errorf("the job that filled the disk is %+v", e)
	}
	if e := final(t, a, behind); e.Phase != adapters.Stopped || !e.NotRun || !strings.Contains(e.Reason, "the disk is full") {
		t.Errorf("the job behind it is %+v", e)
	}
	if err := a.Forget(t.Context(), filler); err != nil {
		t.Errorf("on a full disk Forget gives %v", err)
	}
	if e := final(t, a, place(t, a, "after", "exit 2")); e.ExitStatus == nil || *e.ExitStatus != 2 {
		t.Errorf("with room again a job is %+v", e)
	}
}

// Forget removes what a job has closed to itself.
func TestForgetClosed(t *testing.T) {
	dir := t.TempDir()
	a, err := shell.Open(options(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	h := place(t, a, "closed", "mkdir -p a/b/c && touch a/b/c/f && chmod 0 a/b/c a/b a")
	final(t, a, h)
	if err := a.Forget(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"/jobs", "/staging"} {
		if left, err := os.ReadDir(dir + sub); err != nil || len(left) != 0 {
			t.Errorf("%s holds %v (%v)", sub, left, err)
		}
	}
}
