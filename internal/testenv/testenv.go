// Package testenv finds what tests need from outside this repository, and says
// plainly when it is not there: a failure where CI=true, else a skip.
package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Shared gives the folder of schemas and samples that stands beside the
// repository, or where PORTOLAN_SHARED says.
func Shared(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("PORTOLAN_SHARED")
	if dir == "" {
		dir = filepath.Join(filepath.Dir(Root(t)), "shared")
	}
	if _, err := os.Stat(filepath.Join(dir, "samples")); err != nil {
		Missing(t, "the folder of schemas and samples is not at %s: put it beside the repository or set PORTOLAN_SHARED", dir)
	}
	return dir
}

// Root gives the root of the repository.
func Root(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("the path of the sources is not known")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Tool gives the path of a program that a test runs; apt names the Debian
// package that has it.
func Tool(t testing.TB, name, apt string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s is not installed: apt-get install %s", name, apt)
	}
	return path
}

// Missing fails the test under CI=true and skips it elsewhere.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
