package shell

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// SuperviseWord is the first argument of a process that is to be a supervisor:
// main calls SuperviseMain with what follows it.
const SuperviseWord = "supervise-shell-job"

// Options say how the adapter runs jobs. Dir is needed; the rest may be zero.
type Options struct {
	// Dir holds the jobs. One adapter may be open on it at a time.
	Dir string
	// Slots is how many CPUs' worth of jobs run at once: a job takes as many as
	// it asks CPUs for, at least one, and all for ExclusiveExecution. 0 is the
	// number of CPUs.
	Slots int
	// Idle is how many supervisors are kept waiting for jobs; 0 is the number of
	// slots, at most 8. Negative keeps none.
	Idle int
	// Supervisor is the command that runs SuperviseMain with the arguments that
	// are added to it; nil is this program with SuperviseWord.
	Supervisor []string
	// Grace is how long a program has after SIGTERM before SIGKILL; 0 is 5 s.
	Grace time.Duration
	// Umask of jobs; nil is 022.
	Umask *int
	// HostNames are further names, of the site or the machine, that
	// CandidateHosts may give.
	HostNames []string
	// Path is the PATH of jobs that set none; "" is the usual system's.
	Path string
	// Track chooses how process trees are held together: "cgroup2", "cgroup1",
	// "process"; "" is the first of these that works.
	Track string
	// EnforceMemory makes the memory that a job requires its limit, too.
	EnforceMemory bool
	// CPUShares gives jobs processor time by their slots.
	CPUShares bool
	// Sandbox is what every job is confined to.
	Sandbox Sandbox
	// Launchers start the processes of SPMD jobs: see Settings.
	Launchers map[string][]string
	// Environment is added to that of each job, unless the job sets it itself.
	Environment map[string]string
	// Hosts are for OpenHosts.
	Hosts []Host
	// NoSync leaves out what makes placed jobs known after a crash of the machine.
	NoSync bool
	// Log takes what a person who runs the gateway should know; nil is silence.
	Log *slog.Logger

	beat time.Duration // between signs of life of hosts; 0 is the usual
}

const (
	defaultGrace = 5 * time.Second
	defaultUmask = 0o022
	defaultPath  = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	maxSlots     = 1 << 16
)

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() error {
	if o.Slots == 0 {
		o.Slots = runtime.NumCPU()
	}
	if o.Idle == 0 {
		o.Idle = min(o.Slots, 8)
	}
	o.Idle = max(o.Idle, 0)
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	if o.Umask == nil {
		umask := defaultUmask
		o.Umask = &umask
	}
	if o.Path == "" {
		o.Path = defaultPath
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := o.Sandbox.validate(); err != nil {
		return err
	}
	if len(o.Supervisor) == 0 {
		exe, err := os.Executable()
		if err != nil {
			return fail.E("shell.Open", fail.Internal, "", err)
		}
		o.Supervisor = []string{exe, SuperviseWord}
	}
	if o.Dir == "" {
		return fail.Errorf("shell.Open", fail.Invalid, "Dir", "the shell adapter needs a directory for its jobs")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fail.E("shell.Open", fail.Invalid, o.Dir, err)
	}
	o.Dir = dir
	return o.validate()
}

func (o *Options) validate() error {
	bad := func(field, format string, args ...any) error {
		return fail.Errorf("shell.Open", fail.Invalid, field, format, args...)
	}
	switch {
	case o.Slots < 0 || o.Slots > maxSlots:
		return bad("Slots", "the shell adapter has 1 to %d slots, not %d", maxSlots, o.Slots)
	case o.Grace < 0:
		return bad("Grace", "the time between SIGTERM and SIGKILL can't be %v", o.Grace)
	case *o.Umask&^0o777 != 0:
		return bad("Umask", "the umask %#o is not one of 0 to 0777", *o.Umask)
	}
	switch o.Track {
	case "", trackCgroup2, trackCgroup1, trackProcess:
		return nil
	}
	return bad("Track", "trees are tracked by %q, %q or %q, not %q", trackCgroup2, trackCgroup1, trackProcess, o.Track)
}
