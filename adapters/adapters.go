package adapters

import (
	"context"
	"io"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// Tag names one placement of one job, chosen by the broker and written to the
// store before the adapter hears of it. It travels into the local manager, so
// that after a crash the adapter can find what a lost answer left behind. It is
// made of letters, digits and '-', at most 64 bytes.
type Tag string

// Handle is the adapter's own, versioned memory of a placed job: opaque to the
// broker, which stores it, and valid across restarts of the gateway.
type Handle []byte

// Job is one placement to be made.
type Job struct {
	Tag        Tag
	Definition *jsdl.JobDefinition
	Owner      string // the principal's name, for labels
}

// Placed is the outcome of submitting one job. A nil Err gives a Handle. An Err
// of kind fail.Uncertain means that it may have been placed: the broker asks
// Find before anything else. fail.Unavailable and fail.Exhausted may be tried
// again; every other kind is final for this site.
type Placed struct {
	Handle Handle
	Err    error
}

// Phase is where a placed job stands.
type Phase uint8

// The phases. Unknown is the absence of evidence: it never ends a job.
const (
	Unknown   Phase = iota
	Queued          // known to the manager, not started
	Held            // kept from starting
	Running         // started
	Suspended       // started and stopped for now
	Exited          // the program ended by itself: ExitStatus or Signal is set
	Stopped         // ended by the manager for a limit or an error: Reason says which
	Cancelled       // ended because of Cancel
	Lost            // evidence that the placement is gone and its end will never be known
)

// Final reports whether nothing can follow.
func (p Phase) Final() bool { return p >= Exited }

// Evidence is what is known of a placed job at a moment.
type Evidence struct {
	Tag        Tag
	Handle     Handle
	Phase      Phase
	ExitStatus *int   // for Exited, unless a signal ended it
	Signal     string // for Exited by a signal: "SIGSEGV"
	Reason     string // a sentence for the user: the limit, the missing executable, the hold reason
	NotRun     bool   // with Stopped or Lost: certain that the program never started
	Started    time.Time
	Ended      time.Time
	Err        error // Phase Unknown: why nothing is known
}

// Properties say what an adapter is and can, once.
type Properties struct {
	Type       string // "shell", "slurm"…
	ManagerURI string // LocalResourceManagerType, an absolute URI
	Version    string // of the manager
	// Abilities.
	Suspend bool // Suspend and Resume work
	Push    bool // Watch delivers evidence; else the broker asks Status
	// MaxBatch bounds one call of Submit or Status; 0 is no bound.
	MaxBatch int
}

// Capacity is what a site has and what is free of it.
type Capacity struct {
	Hosts           int
	OperatingSystem string // of JSDL's enumeration
	OSVersion       string
	CPUArchitecture string // of JSDL's enumeration
	CPUs            int
	CPUSpeed        float64 // hertz; 0 unknown
	Memory          int64   // bytes
	VirtualMemory   int64   // bytes
	Disk            int64   // bytes free for jobs
	Slots           int     // jobs at once
	FreeSlots       int
	HostNames       []string
}

// Stream is an output of a job.
type Stream uint8

// The streams.
const (
	Stdout Stream = iota + 1
	Stderr
)

// Adapter is a site's way to run jobs. All methods may be called at once from
// many goroutines, and again after a restart with handles of before. Batches are
// answered in order, one answer for each item.
type Adapter interface {
	Properties() Properties
	// Check says whether the site could ever run the definition, without placing
	// it: nil, or a fail.Unsupported that names each element which stands
	// against it.
	Check(*jsdl.JobDefinition) error
	// Submit places jobs. Placing a tag that is placed already gives its handle.
	Submit(context.Context, []Job) []Placed
	// Find gives the handles of tags that the manager knows; tags that are not in
	// the answer are certainly not placed, and never will be by an earlier call.
	Find(context.Context, []Tag) (map[Tag]Handle, error)
	// Status gives evidence for each handle.
	Status(context.Context, []Handle) ([]Evidence, error)
	// Cancel asks for jobs to be ended, as whole process trees. It is
	// idempotent; the end is seen as evidence. A nil error means that it will happen.
	Cancel(context.Context, []Handle) []error
	// Output opens a stream of a job for reading from the byte offset; it ends at
	// what is written so far.
	Output(ctx context.Context, h Handle, s Stream, offset int64) (io.ReadCloser, error)
	// Forget lets the adapter drop what it keeps of a job that ended.
	Forget(context.Context, Handle) error
	Capacity(context.Context) (Capacity, error)
	Close() error
}

// Suspender is the ability Properties.Suspend.
type Suspender interface {
	Suspend(context.Context, []Handle) []error
	Resume(context.Context, []Handle) []error
}

// Watcher is the ability Properties.Push. Watch calls emit with evidence of
// changes, as they come, until ctx ends. Evidence may repeat and may be missed
// while nobody watches: the broker asks Status once after Watch is up.
type Watcher interface {
	Watch(ctx context.Context, emit func([]Evidence)) error
}
