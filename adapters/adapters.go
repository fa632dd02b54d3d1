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
	// Account is the local account that the owner is mapped to; "" runs the job as
	// the account that the site is configured with.
	Account string
	// NotAfter is the end of the job's lease (Leaser); zero is none. A site without
	// Properties.Lease is given no such job, and refuses it (fail.Unsupported).
	NotAfter time.Time
	// Reservation is the one that the job runs in (Reserver); nil is none. A site without
	// Properties.Reserve is given no such job, and refuses it (fail.Unsupported). A
	// reservation that is not there refuses the job with fail.NotFound, one of another
	// account with fail.Denied.
	Reservation Handle
	// Agreement is the one by which room of another domain is ours, in which the job is to run:
	// only sites that are domains (Properties.Domain) are given one. "" is none.
	Agreement string
}

// Placed is the outcome of submitting one job. A nil Err gives a Handle. What an
// Err means is its ClassOf: the broker asks Find before anything else when it is
// Doubtful, tries again when it is Transient, and gives this site up for the job
// when it is Permanent.
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
	NotRun     bool   // with Stopped, Cancelled or Lost: certain that the program never started
	Started    time.Time
	Ended      time.Time
	// LeaseEnded, with Stopped, says that the site ended the job, or never started it, as
	// its NotAfter had come.
	LeaseEnded bool
	Err        error // Phase Unknown: why nothing is known

	// What some managers tell beside; the zero value is "not told".
	Progress   float64           // of the work, 0 to 1
	Hosts      []string          // where it runs or ran
	Usage      Usage             // what it used so far
	Attributes map[string]string // the manager's own, by its own names; at most MaxAttributes
}

// Usage is what a job used.
type Usage struct {
	CPU    time.Duration // user and system, of all its processes
	Memory int64         // bytes, the most that was resident at once
}

// MaxAttributes bounds Evidence.Attributes.
const MaxAttributes = 64

// Properties say what an adapter is and can, once: they do not change while it is
// open, and asking costs nothing.
type Properties struct {
	Type       string // "shell", "slurm"…
	ManagerURI string // LocalResourceManagerType, an absolute URI
	Version    string // of the manager; "" when it never answered yet
	// Abilities.
	Suspend bool // Suspender
	Hold    bool // Holder
	Push    bool // Watcher delivers evidence; else the broker asks Status
	Bulk    bool // alike jobs of one Submit cost the manager about one request
	Recall  bool // Recaller
	Lease   bool // Leaser: it keeps Job.NotAfter
	Reserve bool // Reserver: it keeps room for a window, and Job.Reservation
	// Recallable says that Lost means more than elsewhere: whoever has the job gave it back
	// or lost the right to run it, so that it runs there no more. It may then be run again
	// unless its document forbids that.
	Recallable bool
	// Domain is the domain to which the site leads, where it is a peer; "" is our own.
	Domain string
	// Limits.
	MaxBatch  int     // items in one call of Submit or Status; 0 is no bound
	MaxJobs   int     // placements that are not final at once; 0 is no bound
	Requests  float64 // budget: requests a second to the manager that are never exceeded; 0 is none
	MaxOutput int64   // bytes of one stream that can be read back; 0 is no bound
}

// Path is one way to the manager: "slurmrestd v0.0.40", "commands", "schedd".
type Path string

// Health is how a site's adapter stands with its manager. It is what the adapter
// knows already: asking it sends no request.
type Health struct {
	Path    Path      // in use
	Version string    // of the manager, as it last said
	Problem string    // a sentence; "" while the manager answers
	Since   time.Time // when Problem began, or the manager began to answer
	Contact time.Time // of the last good answer
	// Interval is how often the manager is asked by itself, as long as nothing keeps it
	// from that; one that answers nothing for twice as long is away. 0: it is asked only when the adapter is.
	Interval time.Duration
	Requests int64    // sent to the manager since Open
	Waiting  int      // requests that wait for the budget
	Offered  []Path   // what was probed, the best first, with why the better ones are not used in Remarks
	Remarks  []string // sentences for an administrator
}

// Resources is what a site has, shaped as GLUE 2.0: shares (queues, partitions)
// over environments (sets of like nodes). What seldom changes and what changes all
// the time are versioned apart, so that a reader can keep the one and take the other.
type Resources struct {
	Static  uint64 // version: grows when a static attribute of anything changes
	Dynamic uint64 // the same of dynamic attributes

	Environments []Environment
	Shares       []Share
}

// Environment is a set of like nodes (GLUE2 ExecutionEnvironment). Numbers are
// per node; 0 is unknown.
type Environment struct {
	ID              string
	OperatingSystem string // of JSDL's enumeration
	OSVersion       string
	CPUArchitecture string // of JSDL's enumeration
	CPUs            int
	CPUSpeed        float64        // hertz
	Memory          int64          // bytes
	VirtualMemory   int64          // bytes
	Disk            int64          // bytes for jobs
	GPUs            map[string]int // by type; "" is any
	Features        []string
	HostNames       []string // at most MaxHostNames are listed
	// Dynamic.
	Nodes, Available int // in all, and fit to take jobs
	FreeCPUs         int // of all nodes together
	FreeMemory       int64
}

// MaxHostNames bounds Environment.HostNames.
const MaxHostNames = 4096

// Share is a queue, partition or the like (GLUE2 ComputingShare). 0 is no limit.
type Share struct {
	ID           string
	Default      bool
	Environments []string // IDs
	MaxWallTime  time.Duration
	MaxCPUs      int // of one job
	MaxNodes     int // of one job
	MaxMemory    int64
	Slots        int // jobs at once
	// Dynamic.
	Open      bool // takes jobs
	Running   int
	Waiting   int
	FreeSlots int
}

// Capacity sums a site up in one record.
type Capacity struct {
	Hosts           int
	OperatingSystem string
	OSVersion       string
	CPUArchitecture string
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
	// Status gives evidence for each handle. A handle whose job the manager has no
	// trace of any more is Lost; one that it can't tell about now is Unknown.
	Status(context.Context, []Handle) ([]Evidence, error)
	// Cancel asks for jobs to be ended, as whole process trees. It is
	// idempotent; the end is seen as evidence. A nil error means that it will happen;
	// fail.NotFound that there is no such job.
	Cancel(context.Context, []Handle) []error
	// Output opens a stream of a job for reading from the byte offset; it ends at
	// what is written so far.
	Output(ctx context.Context, h Handle, s Stream, offset int64) (io.ReadCloser, error)
	// Forget lets the adapter drop what it keeps of a job that ended.
	Forget(context.Context, Handle) error
	// Resources tells what the site has and what is free of it.
	Resources(context.Context) (Resources, error)
	// Health tells how the adapter stands with its manager.
	Health() Health
	// Close lets go of the manager; jobs go on.
	Close() error
}

// Suspender is the ability Properties.Suspend.
type Suspender interface {
	Suspend(context.Context, []Handle) []error
	Resume(context.Context, []Handle) []error
}

// Holder is the ability Properties.Hold: a job that has not started is kept from
// starting, until it is released. Holding a job that runs is fail.Conflict.
type Holder interface {
	Hold(context.Context, []Handle) []error
	Release(context.Context, []Handle) []error
}

// Recaller is the ability Properties.Recall: jobs that have not begun are asked back, for
// the reason given. That it was asked is no evidence: a job that came back is Lost, with
// the reason, and one that began meanwhile goes on.
type Recaller interface {
	Recall(ctx context.Context, handles []Handle, reason string) []error
}

// Watcher is the ability Properties.Push. Watch calls emit with evidence of
// changes, as they come, until ctx ends. Evidence may repeat and may be missed
// while nobody watches. Once nothing more is missed, Watch calls emit with no
// evidence at all: the broker then asks Status about everything. A Watch that
// does not say so is asked when it is called.
type Watcher interface {
	Watch(ctx context.Context, emit func([]Evidence)) error
}

// AccountChecker is an Adapter whose Check depends on who the job runs as.
type AccountChecker interface {
	// CheckAs is Check for a job whose owner is mapped to the local account, which Submit gets
	// as Job.Account.
	CheckAs(d *jsdl.JobDefinition, account string) error
}

// Leaser is the ability Properties.Lease. A job with a NotAfter never starts after it, by
// the clock of the machine that runs it, and has ended by then as a whole process tree,
// though the gateway be dead, and the manager's controller too where its execute side can
// do without. Its end is Stopped with LeaseEnded, and NotRun if it never started.
type Leaser interface {
	// Extend moves the NotAfter of jobs on. An earlier one than a job has is not heeded, nor
	// is any for a job that was placed without. It is idempotent. A nil error means that the
	// later one holds, or that the job has ended; after any other the earlier one may hold.
	// fail.NotFound says that there is no such job.
	Extend(context.Context, []Extension) []error
}

// Extension is a later NotAfter for a placed job.
type Extension struct {
	Handle   Handle
	NotAfter time.Time
}

// Reserver is the ability Properties.Reserve: the manager keeps room for a window, in which
// jobs that name it (Job.Reservation) start at once though the site be full of other work.
// What jobs of others run now is not disturbed: only room that will be free by then is
// reserved, as far as the manager can know, which goes by the bounds of jobs' wall times.
//
// A job that is placed before the window waits for it. One that has not begun when the
// window ends, or the reservation is released, waits on as any other; one that runs in it
// then may be ended by the manager (Stopped).
type Reserver interface {
	// Reserve makes reservations, and answers them in order. It is idempotent: a tag
	// that is reserved already gives its handle, whatever else is asked for this time. Tags
	// are of the same kind as those of jobs but do not meet them, and none is used again
	// once it was released. Kinds of errors: fail.Invalid for what makes no sense anywhere;
	// fail.Unsupported for what the site could never give; fail.Denied where the manager
	// does not let the gateway do it; fail.Exhausted where there is no room in the window, as
	// things are; fail.Unavailable where nothing was done; fail.Uncertain, after which
	// Reservations tells.
	Reserve(context.Context, []Reservation) []Reserved
	// Reservations tells how reservations stand, by their tags and in their order; nil tags
	// stand for all that are kept at the site for this gateway and not yet released, among them any
	// that nobody remembers. A tag that is ReservationGone is certainly not reserved, and
	// never will be by an earlier call; one for which that can't be told yet is
	// ReservationUnknown.
	Reservations(ctx context.Context, tags []Tag) ([]ReservationState, error)
	// Unreserve releases reservations, whether their windows have begun or not. It is
	// idempotent: nil says that it is gone, or never was. fail.Conflict says that jobs run in
	// it, which some managers do not allow: nothing was changed, and the caller waits for
	// them or ends them.
	Unreserve(context.Context, []Handle) []error
}

// Reservation asks for room in a window.
type Reservation struct {
	Tag   Tag
	Share string // of Resources; "" is the site's default
	// CPUs in all, and Nodes that they are spread over evenly. Without Nodes the
	// manager chooses these; without CPUs the nodes are whole. A site that counts slots gives
	// one for each CPU, and has one node.
	CPUs, Nodes int
	// From and Until are the window, to the second. A From that is not in the future, and the
	// zero time, are now.
	From, Until time.Time
	// Account is the local account whose jobs may use it, as Job.Account: "" is the account
	// that the site is configured with.
	Account string
}

// Reserved is the outcome of making one reservation. Handles are as those of jobs:
// opaque, versioned, and valid across restarts.
type Reserved struct {
	Handle Handle
	Err    error
}

// ReservationPhase is where a reservation stands.
type ReservationPhase uint8

// The phases of reservations.
const (
	ReservationUnknown ReservationPhase = iota // nothing can be told now: Err says why
	ReservationPending                         // made; its window is to come
	ReservationActive                          // its window is now
	ReservationEnded                           // its window is over; it is told of until it is released, for a week at least
	ReservationGone                            // there is none, or none any more: it was released, or Problem says what befell it
)

// ReservationState is how a reservation stands at a moment.
type ReservationState struct {
	Tag    Tag
	Handle Handle // nil for one that is unknown or gone
	Phase  ReservationPhase
	// What was got, as the manager has it; it may be more than was asked for.
	Share       string
	From, Until time.Time
	CPUs        int      // in all; 0 is not told
	Nodes       []string // at most MaxHostNames are listed; they may change while it is pending
	// Problem is a sentence about what keeps it from being what it was made for: a node of
	// it that is down, or that it was deleted by somebody else.
	Problem string
	Err     error
}

// AttributePath is the attribute (Evidence.Attributes) in which a site that leads to a
// peer tells the job's way from there: see Path.
const AttributePath = "path"
