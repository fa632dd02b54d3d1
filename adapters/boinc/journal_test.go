package boinc_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/boinc/boinctest"
)

// A gateway is killed at any point of the journal: whatever prefix of it is left, tags
// that were submitted are found and run once, and no others are.
func TestJournalCutAnywhere(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard(), host())
	first := s.open(t, "")
	tags := []adapters.Tag{"one", "two", "three"}
	for i, tag := range tags {
		h := place(t, first, tag, sh(fmt.Sprintf("echo %d; exit %d", i, i)))
		exits(t, first, h, i)
	}
	hang := place(t, first, "hang", sh("sleep 1000"))
	if errs := first.Cancel(t.Context(), []adapters.Handle{hang}); errs[0] != nil {
		t.Fatal(errs[0])
	}
	end(t, first, hang)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(s.dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	kept := os.DirFS(filepath.Join(s.dir, "outputs")) // were there before the lines that say so
	lines := strings.SplitAfter(string(whole), "\n")
	for n := range len(lines) {
		s.dir = t.TempDir()
		left := strings.Join(lines[:n], "")
		if n < len(lines)-1 {
			left += lines[n][:len(lines[n])/2] // a line that was cut
		}
		if err := os.WriteFile(filepath.Join(s.dir, "journal"), []byte(left), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(s.dir, "outputs"), kept); err != nil {
			t.Fatal(err)
		}
		a := s.open(t, "")
		found, err := a.Find(t.Context(), append([]adapters.Tag{"hang", "never"}, tags...))
		if err != nil || len(found) != 4 {
			t.Fatalf("after %d lines Find gives %v, %v", n, found, err)
		}
		for i, tag := range tags {
			again, err := submit(t, a, tag, sh("exit 77"))
			if err != nil || string(again) != string(found[tag]) {
				t.Fatalf("after %d lines placing %s again gives %q, %v", n, tag, again, err)
			}
			exits(t, a, again, i)
			if out := output(t, a, again, adapters.Stdout); out != fmt.Sprintf("%d\n", i) {
				t.Errorf("after %d lines the output of %s is %q", n, tag, out)
			}
		}
		if e := end(t, a, found["hang"]); e.Phase != adapters.Cancelled && e.Phase != adapters.Stopped {
			t.Errorf("after %d lines the aborted job is %v", n, e.Phase)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tag := range tags {
		if n := s.Starts(jobName(tag)); n != 1 {
			t.Errorf("%s was started %d times", tag, n)
		}
	}
}
