package adaptertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/jsdl"
)

// Harness is what the suite needs to know of an adapter. Only Open is needed; the
// zero value of every other field has a meaning.
type Harness struct {
	// Open opens the adapter on one and the same site each time it is called
	// within a part; site is made once for each part.
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
	// adapter enforces. The others it must refuse. "IndividualPhysicalMemory" says
	// that memory asked for as a resource is enforced as well.
	Limits map[string]bool
	// Lacks says what the manager really cannot do: the name of a part ("Suspend"),
	// of a group ("Faults") or of a detail of a part ("Signal/SIGSEGV",
	// "Programs/Arguments/newline") with the sentence why. A part and a group are
	// skipped with that sentence. A string that is lacking must be refused by Check
	// instead. A name that is none, and one of an ability that the adapter claims,
	// are errors.
	Lacks map[string]string
	// Many is how many jobs are placed at once in the part Many; 0 is 200.
	Many int
	// Short leaves the part of five thousand jobs out, as -short does: for an
	// adapter that passes the suite in several settings.
	Short bool
	// Patience bounds each wait for something that must happen; 0 is a minute.
	Patience time.Duration
	// Poll is how often the suite asks again for what is not pushed; 0 is 20 ms.
	Poll time.Duration
	// Pace is how long a job must run for the manager to show that it runs, at
	// least; 0 is a second.
	Pace time.Duration
	// WallTime is the shortest WallTimeLimit that the manager keeps; 0 is a second.
	WallTime time.Duration
	// Lease is how long a lease is in which a job begins at a site that is free and is seen to
	// run, though the machine be busy; 0 is three times Pace, and eight seconds at least.
	Lease time.Duration
	// Starts gives how often a tag was really started, where the site knows.
	Starts func(site any, tag adapters.Tag) int
	// Seen gives the job as it reached the manager, where the site can tell. It is
	// how strings are judged when jobs are no programs of this machine.
	Seen func(site any, tag adapters.Tag) Seen
	// Bearing makes a job that ends well and bears the string wherever it may; nil
	// is /bin/true with it as argument, variable, name and project.
	Bearing func(s string) *jsdl.JobDefinition
	// Manager is what the test can do to the manager behind the adapter.
	Manager Manager
	// OldHandles writes the handle as earlier versions of the adapter did.
	OldHandles func(site any, h adapters.Handle) []adapters.Handle
	// Dir makes a directory that jobs can reach and write to; nil is TempDir.
	Dir func(t testing.TB) string
	// Accounts are local accounts that Job.Account may name here.
	Accounts []string
	// Rank is how a process of an SPMD job sees its rank, as a shell's word; "" tries
	// the variables of the well-known launchers.
	Rank string
	// Parallel says that sites are apart from each other, so that the parts of the
	// suite may run at once.
	Parallel bool
	// Umask is what the adapter gives jobs, e.g. 0o022.
	Umask int
}

// Manager is what can befall the manager behind an adapter. Each deed is done when
// the function returns, and fails the test when it can't be done. Parts whose
// deeds are nil are skipped aloud.
type Manager struct {
	// Stop takes the manager down, Start brings it back; jobs that run, run on.
	Stop, Start func(t testing.TB, site any)
	// Restart kills the manager's controller with SIGKILL and starts it again.
	Restart func(t testing.TB, site any)
	// Forgets says that a controller that is killed may have forgotten what it started
	// in the seconds before, and ends that when it is back: a job that had begun may be
	// lost then, and is never run again by the manager.
	Forgets bool
	// LoseNextAnswer makes the answer to the next submission get lost: after it was
	// done, or with done false on its way to the manager, so that nothing was done.
	LoseNextAnswer func(t testing.TB, site any, done bool)
	// LoseNextReservation makes the answer to the next reservation get lost, likewise.
	LoseNextReservation func(t testing.TB, site any, done bool)
	// ReuseIDs makes the manager forget what ended and give the ids of those jobs,
	// or of some of them, to the next ones.
	ReuseIDs func(t testing.TB, site any)
	// Requests counts what reached the manager; nil takes the adapter's word
	// (Health.Requests).
	Requests func(site any) int64
}

// Seen is a job as its manager has it. A nil field is not told.
type Seen struct {
	Executable       *string
	Arguments        []string
	Environment      map[string]string
	JobName, Project *string
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

// ensureDefaults fills in what is not said.
func (h *Harness) ensureDefaults() {
	if h.Define == nil {
		h.Define = POSIX
	}
	if h.Bearing == nil {
		h.Bearing = bearing
	}
	if h.Many == 0 {
		h.Many = 200
	}
	if h.Patience == 0 {
		h.Patience = time.Minute
	}
	if h.Poll == 0 {
		h.Poll = 20 * time.Millisecond
	}
	if h.Pace == 0 {
		h.Pace = time.Second
	}
	if h.Lease == 0 {
		h.Lease = max(3*h.Pace, 8*time.Second)
	}
	if h.WallTime == 0 {
		h.WallTime = time.Second
	}
	if h.Site == nil {
		h.Site = func(testing.TB) any { return nil }
	}
	if h.Crash == nil {
		h.Crash = func(a adapters.Adapter) { _ = a.Close() }
	}
	if h.Dir == nil {
		h.Dir = func(t testing.TB) string { return t.TempDir() }
	}
}

// pace is Pace in whole seconds, for jobs that sleep.
func (h *Harness) pace() int { return max(1, int((h.Pace+time.Second-1)/time.Second)) }

// Run judges an adapter in a test.
func Run(t *testing.T, h Harness) {
	h.ensureDefaults()
	setSecret(t)
	if err := h.names(); err != nil {
		t.Error(err)
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			if h.Parallel {
				t.Parallel()
			}
			p.run(t, &h)
		})
	}
}
