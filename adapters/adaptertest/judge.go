package adaptertest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// Report counts what Judge found.
type Report struct {
	Passed, Failed, Skipped int
	Parts                   []Outcome
}

// Outcome is what became of one part, or of one detail of it.
type Outcome struct {
	Name   string
	Result string   // "pass", "fail" or "skip"
	Said   []string // why, and what else it had to say
	Took   time.Duration
}

// OK says that nothing failed and that something was judged.
func (r Report) OK() bool { return r.Failed == 0 && r.Passed > 0 }

// Judge judges an adapter outside of a test: it runs the parts whose names match
// the regular expression, one after another, writes a line for each, and counts.
// A part that panics has failed. It ends early with ctx.
func Judge(ctx context.Context, w io.Writer, h Harness, filter string) (Report, error) {
	var report Report
	match, err := regexp.Compile(filter)
	if err != nil {
		return report, fmt.Errorf("the filter is no regular expression: %w", err)
	}
	h.ensureDefaults()
	if err := h.names(); err != nil {
		return report, err
	}
	if err := os.Setenv(secret, "secret"); err != nil {
		return report, err
	}
	for _, p := range parts {
		if !match.MatchString(p.name) {
			continue
		}
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		j := &judgement{w: w, report: &report}
		j.one(ctx, p.name, func(t testing.TB) { p.run(t, &h) })
	}
	if len(report.Parts) == 0 {
		return report, fmt.Errorf("no part of the suite is named like %q", filter)
	}
	_, err = fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", report.Passed, report.Failed, report.Skipped)
	return report, err
}

// judgement is one part with its details on their way into the report.
type judgement struct {
	w      io.Writer
	report *Report
}

// one runs one test to its end and says whether it has not failed.
func (j *judgement) one(parent context.Context, name string, test func(testing.TB)) bool {
	ctx, cancel := context.WithCancel(parent)
	v := &verdict{name: name, parent: parent, ctx: ctx, judgement: j}
	begin := time.Now()
	v.guard(func() { test(v) })
	cancel() // before the cleanups, as package testing has it
	for {
		v.mu.Lock()
		n := len(v.cleanups)
		if n == 0 {
			v.mu.Unlock()
			break
		}
		last := v.cleanups[n-1]
		v.cleanups = v.cleanups[:n-1]
		v.mu.Unlock()
		v.guard(last)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	o := Outcome{Name: name, Result: "pass", Said: v.said, Took: time.Since(begin)}
	switch {
	case v.failed:
		o.Result = "fail"
		j.report.Failed++
	case v.skipped:
		o.Result = "skip"
		j.report.Skipped++
	default:
		j.report.Passed++
	}
	j.report.Parts = append(j.report.Parts, o)
	j.write(o)
	return !v.failed
}

// write writes the line of a part, with what it had to say.
func (j *judgement) write(o Outcome) {
	fmt.Fprintf(j.w, "%s  %s", o.Result, o.Name)
	if o.Result != "skip" {
		fmt.Fprintf(j.w, " (%v)", o.Took.Round(time.Millisecond))
	}
	for _, s := range o.Said {
		if o.Result == "skip" {
			fmt.Fprintf(j.w, ": %s", strings.TrimPrefix(s, "skipped: "))
		} else {
			fmt.Fprintf(j.w, "\n      %s", strings.ReplaceAll(s, "\n", "\n      "))
		}
	}
	fmt.Fprintln(j.w)
}

// verdict is a testing.TB outside of a test. The embedded interface is nil: it is
// there for the method that nobody outside of package testing can write, which
// nobody calls.
type verdict struct {
	testing.TB
	name      string
	parent    context.Context //nolint:containedctx // testing.TB hands contexts out
	ctx       context.Context //nolint:containedctx // testing.TB hands contexts out
	judgement *judgement

	mu              sync.Mutex
	failed, skipped bool
	said            []string
	cleanups        []func()
	artifacts       string
}

// guard runs f in a goroutine of its own, which Goexit may end.
func (v *verdict) guard(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				v.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		f()
	}()
	<-done
}

func (v *verdict) sub(name string, test func(testing.TB)) {
	if !v.judgement.one(v.parent, v.name+"/"+name, test) {
		v.Fail()
	}
}

func (v *verdict) say(s string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.said = append(v.said, strings.TrimSuffix(s, "\n"))
}

func (v *verdict) Name() string             { return v.name }
func (v *verdict) Helper()                  {}
func (v *verdict) Context() context.Context { return v.ctx }
func (v *verdict) Attr(string, string)      {}

func (v *verdict) Log(args ...any)                 { v.say(fmt.Sprintln(args...)) }
func (v *verdict) Logf(format string, args ...any) { v.say(fmt.Sprintf(format, args...)) }

func (v *verdict) Fail() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed = true
}

func (v *verdict) Failed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failed
}

func (v *verdict) FailNow() {
	v.Fail()
	runtime.Goexit()
}

func (v *verdict) Error(args ...any)                 { v.Log(args...); v.Fail() }
func (v *verdict) Errorf(format string, args ...any) { v.Logf(format, args...); v.Fail() }
func (v *verdict) Fatal(args ...any)                 { v.Log(args...); v.FailNow() }
func (v *verdict) Fatalf(format string, args ...any) { v.Logf(format, args...); v.FailNow() }

func (v *verdict) Skip(args ...any)                 { v.Log(args...); v.SkipNow() }
func (v *verdict) Skipf(format string, args ...any) { v.Logf(format, args...); v.SkipNow() }

func (v *verdict) SkipNow() {
	v.mu.Lock()
	v.skipped = true
	v.mu.Unlock()
	runtime.Goexit()
}

func (v *verdict) Skipped() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.skipped
}

func (v *verdict) Cleanup(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cleanups = append(v.cleanups, f)
}

func (v *verdict) TempDir() string {
	dir, err := os.MkdirTemp("", "portolan-suite-")
	if err != nil {
		v.Fatalf("a directory for the test: %v", err)
	}
	v.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			v.Errorf("removing the test's directory: %v", err)
		}
	})
	return dir
}

func (v *verdict) ArtifactDir() string {
	v.mu.Lock()
	dir := v.artifacts
	v.mu.Unlock()
	if dir == "" {
		dir = filepath.Join(v.TempDir(), "artifacts")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			v.Fatal(err)
		}
		v.mu.Lock()
		v.artifacts = dir
		v.mu.Unlock()
	}
	return dir
}

func (v *verdict) Setenv(key, value string) {
	before, was := os.LookupEnv(key)
	if err := os.Setenv(key, value); err != nil {
		v.Fatal(err)
	}
	v.Cleanup(func() {
		if was {
			_ = os.Setenv(key, before)
		} else {
			_ = os.Unsetenv(key)
		}
	})
}

func (v *verdict) Chdir(dir string) {
	before, err := os.Getwd()
	if err == nil {
		err = os.Chdir(dir)
	}
	if err != nil {
		v.Fatal(err)
	}
	v.Cleanup(func() { _ = os.Chdir(before) })
}

func (v *verdict) Output() io.Writer { return said{v} }

type said struct{ v *verdict }

func (s said) Write(p []byte) (int, error) {
	s.v.say(string(p))
	return len(p), nil
}
