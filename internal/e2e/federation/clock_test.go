package federation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wrongClock is the variable of the environment by which the clock of a program that program built
// is wrong, as a duration.
const wrongClock = "PORTOLAN_TEST_CLOCK"

// program builds the gateway's program. The kernel has no namespace for the time of day, and a Go
// program asks the kernel for it and no library, so that its clock can't be wronged from outside:
// this one is built with a time.Now that adds what wrongClock says. Nothing else of it is
// different, and timers go by the monotonic clock as ever. skewed says whether that could be done: it
// can't with a Go whose time.Now looks other than expected.
func program(t *testing.T, dir string) (path string, skewed bool) {
	t.Helper()
	path = filepath.Join(dir, "portolan")
	args := []string{"build", "-o", path}
	if os.Getenv("PORTOLAN_FEDERATION_CLOCKS") != "right" {
		if overlay := clockOverlay(t, dir); overlay != "" {
			args, skewed = append(args, "-overlay", overlay), true
		}
	}
	if out, err := exec.Command("go", append(args, "../../../cmd/portolan")...).CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return path, skewed
}

const amiss = `package time

import "syscall"

var amiss = func() int64 {
	s, _ := syscall.Getenv("` + wrongClock + `")
	d, _ := ParseDuration(s)
	return int64(d)
}()

func wronged(sec int64, nsec int32) (int64, int32) {
	if amiss == 0 {
		return sec, nsec
	}
	n := int64(nsec) + amiss%1e9
	sec += amiss / 1e9
	switch {
	case n < 0:
		n, sec = n+1e9, sec-1
	case n >= 1e9:
		n, sec = n-1e9, sec+1
	}
	return sec, int32(n)
}
`

// clockOverlay gives the file that tells the compiler of the other time.Now; "" is that there is
// none for this Go.
func clockOverlay(t *testing.T, dir string) string {
	t.Helper()
	src := filepath.Join(build.Default.GOROOT, "src", "time")
	b, err := os.ReadFile(filepath.Join(src, "time.go"))
	const reads = "\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if err != nil || bytes.Count(b, []byte(reads)) != 1 {
		return ""
	}
	now := write(t, filepath.Join(dir, "time.go.txt"), strings.Replace(string(b), reads, reads+"\tsec, nsec = wronged(sec, nsec)\n", 1))
	more := write(t, filepath.Join(dir, "amiss.go.txt"), amiss)
	j, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(src, "time.go"): now, filepath.Join(src, "amiss.go"): more}})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(dir, "overlay.json"), string(j))
}

// clockOf gives the environment with a wrong clock.
func clockOf(wrong time.Duration) []string {
	if wrong == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s=%s", wrongClock, wrong)}
}
