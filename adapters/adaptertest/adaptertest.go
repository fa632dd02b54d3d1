package adaptertest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/jsdl"
)

// Harness is what the suite needs to know of an adapter.
type Harness struct {
	// Open opens the adapter on one and the same site each time it is called
	// within a test; site is made once for each test.
	Open func(t testing.TB, site any) adapters.Adapter
	// Site makes a fresh site, and cleans it up with t.Cleanup.
	Site func(t testing.TB) any
	// Crash ends an adapter as the death of its process would, so far as that can
	// be done from inside; nil is Close.
	Crash func(a adapters.Adapter)
	// Define makes a job that behaves so; nil is POSIX.
	Define func(Behaviour) *jsdl.JobDefinition
	// Programs says that jobs are real programs of this machine.
	Programs bool
	// Limits names the limits of Limits (by element, "CPUTimeLimit") that the
	// adapter enforces. The others it must refuse.
	Limits map[string]bool
	// Many is how many jobs are placed at once in the test of many; 0 is 200.
	Many int
	// Patience bounds each wait for something that must happen; 0 is 30 s.
	Patience time.Duration
	// Starts gives how often a tag was really started, where the site knows.
	Starts func(site any, tag adapters.Tag) int
	// Parallel says that sites are apart from each other, so that the parts of the
	// suite may run at once.
	Parallel bool
	// Umask is what the adapter gives jobs, e.g. 0o022.
	Umask int
}

// Behaviour is what a job of the first half is to do, in this order.
type Behaviour struct {
	Stdout, Stderr string // a line on each
	Hang           bool   // run until it is cancelled
	Sleep          int    // seconds
	Missing        bool   // the executable does not exist
	Signal         string // end by this signal
	Exit           int    // end with this status
}

// POSIX makes a job of a shell command that behaves so.
func POSIX(b Behaviour) *jsdl.JobDefinition {
	if b.Missing {
		return Command("/no/such/program")
	}
	script := ""
	if b.Stdout != "" {
		script += fmt.Sprintf("echo '%s'\n", b.Stdout)
	}
	if b.Stderr != "" {
		script += fmt.Sprintf("echo '%s' >&2\n", b.Stderr)
	}
	if b.Hang {
		script += "while :; do sleep 1000; done\n"
	}
	if b.Sleep > 0 {
		script += fmt.Sprintf("sleep %d\n", b.Sleep)
	}
	if b.Signal != "" {
		script += fmt.Sprintf("kill -%s $$\n", b.Signal[len("SIG"):])
	}
	return Command("/bin/sh", "-c", script+fmt.Sprintf("exit %d", b.Exit))
}

// Command makes a job that runs a program.
func Command(executable string, arguments ...string) *jsdl.JobDefinition {
	p := &jsdl.POSIXApplication{Executable: &jsdl.Text{Value: executable}}
	for _, a := range arguments {
		p.Arguments = append(p.Arguments, jsdl.Text{Value: a})
	}
	return &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{POSIX: p}}}
}

// secret is a variable of the gateway's that no job may see.
const secret = "PORTOLAN_SECRET_OF_THE_GATEWAY"

// Run judges an adapter.
func Run(t *testing.T, h Harness) {
	if h.Define == nil {
		h.Define = POSIX
	}
	if h.Many == 0 {
		h.Many = 200
	}
	if h.Patience == 0 {
		h.Patience = 30 * time.Second
	}
	if h.Site == nil {
		h.Site = func(testing.TB) any { return nil }
	}
	if h.Crash == nil {
		h.Crash = func(a adapters.Adapter) { _ = a.Close() }
	}
	// For testCleanEnvironment; t.Setenv allows nothing to be parallel.
	if err := os.Setenv(secret, "secret"); err != nil { //nolint:usetesting // see above
		t.Fatal(err)
	}
	for _, part := range []struct {
		name     string
		programs bool
		test     func(*bench)
	}{
		{"Properties", false, testProperties},
		{"Exits", false, testExits},
		{"Signal", false, testSignal},
		{"Missing", false, testMissing},
		{"Nothing", false, testNothing},
		{"BadTags", false, testBadTags},
		{"BadHandles", false, testBadHandles},
		{"UnknownJob", false, testUnknown},
		{"SameTagTwice", false, testSameTag},
		{"SameTagAtOnce", false, testSameTagAtOnce},
		{"Find", false, testFind},
		{"Batch", false, testBatch},
		{"Cancel", false, testCancel},
		{"CancelAtOnce", false, testCancelAtOnce},
		{"CancelEnded", false, testCancelEnded},
		{"CancelSuspended", false, testCancelSuspended},
		{"Suspend", false, testSuspend},
		{"RestartWhileRunning", false, testRestartRunning},
		{"RestartAfterEnd", false, testRestartEnded},
		{"EndWhileAway", false, testEndWhileAway},
		{"CrashWhileQueued", false, testCrashQueued},
		{"Output", false, testOutput},
		{"Forget", false, testForget},
		{"Capacity", false, testCapacity},
		{"Push", false, testPush},
		{"Many", false, testMany},
		{"Times", false, testTimes},
		{"Programs/Arguments", true, testArguments},
		{"Programs/Environment", true, testEnvironment},
		{"Programs/CleanEnvironment", true, testCleanEnvironment},
		{"Programs/HugeEnvironment", true, testHugeEnvironment},
		{"Programs/Lookup", true, testLookup},
		{"Programs/NotRunnable", true, testNotRunnable},
		{"Programs/HPC", true, testHPC},
		{"Programs/JobName", true, testJobName},
		{"Programs/WorkingDirectory", true, testWorkingDirectory},
		{"Programs/BadWorkingDirectory", true, testBadWorkingDirectory},
		{"Programs/FileSystems", true, testFileSystems},
		{"Programs/Stdin", true, testStdin},
		{"Programs/Files", true, testFiles},
		{"Programs/OneFile", true, testOneFile},
		{"Programs/BadFiles", true, testBadFiles},
		{"Programs/Nul", true, testNul},
		{"Programs/Umask", true, testUmask},
		{"Programs/Accounts", true, testAccounts},
		{"Programs/Resources", true, testResources},
		{"Programs/Limits", true, testLimits},
		{"Programs/Tree", true, testTree},
		{"Programs/TreeAfterExit", true, testTreeAfterExit},
		{"Programs/CancelStubborn", true, testCancelStubborn},
		{"Programs/OutputWhileRunning", true, testOutputRunning},
	} {
		t.Run(part.name, func(t *testing.T) {
			if part.programs && !h.Programs {
				t.Skip("skipped: the adapter's jobs are no programs of this machine")
			}
			if h.Parallel {
				t.Parallel()
			}
			b := &bench{T: t, h: &h, site: h.Site(t)}
			b.open()
			t.Cleanup(func() { b.close() })
			part.test(b)
		})
	}
}
