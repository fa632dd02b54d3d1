package slurm

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// manager is a way to Slurm. Every method sends at most a few requests, each of
// which it counts and waits for the budget with.
type manager interface {
	// path names the way.
	path() adapters.Path
	// probe asks whether Slurm answers, and what it is.
	probe(context.Context) (*facts, error)
	// takes names the element that a request has and this way can't express; "" is none.
	takes(*request) string
	// submit places one job, or an array of so many where members > 0.
	submit(ctx context.Context, r *request, script string, members int) (job int64, err error)
	// jobs lists the jobs of the accounts that the controller remembers.
	jobs(ctx context.Context, users []string) ([]record, error)
	// past lists the jobs of these names that accounting remembers since then; nil without error
	// where there is no accounting.
	past(ctx context.Context, names []string, since time.Time) ([]record, error)
	// cancel asks for jobs to be ended. That one is not there is no error.
	cancel(ctx context.Context, ids []jobID) error
	// hold keeps jobs from starting, or lets them.
	hold(ctx context.Context, ids []jobID, held bool) error
	// suspend stops a job, or lets it go on.
	suspend(ctx context.Context, id jobID, stopped bool) error
	// site tells of nodes and partitions.
	site(context.Context) (*siteInfo, error)
}

// facts are what a cluster says of itself.
type facts struct {
	Version        string
	Cluster        string
	SlurmUser      string
	MaxArray       int           // members of one array at most
	MessageTimeout time.Duration // after which a request is given up by who sent it
	Accounting     bool          // past jobs can be asked for
	Enforce        bool          // accounts and QOS must be known
	MemoryLimits   bool          // what a job asks for is a limit
	MPI            []string      // what srun's --mpi takes
	Select         string        // the plugin that chooses nodes; "" is not told
}

// cores reports whether the cluster gives cores away, not only whole nodes.
func (f *facts) cores() bool { return strings.HasPrefix(f.Select, "select/cons_") }

// jobID names a job at Slurm: a job, or a member of an array.
type jobID struct {
	Job  int64
	Task int // -1: no array
}

func (id jobID) String() string {
	if id.Task < 0 {
		return strconv.FormatInt(id.Job, 10)
	}
	return fmt.Sprintf("%d_%d", id.Job, id.Task)
}

// parseJobID reads "12" or "12_3".
func parseJobID(s string) (jobID, bool) {
	job, task, array := strings.Cut(s, "_")
	n, err := strconv.ParseUint(job, 10, 32)
	if err != nil {
		return jobID{}, false
	}
	id := jobID{Job: int64(n), Task: -1}
	if array {
		t, err := strconv.ParseUint(task, 10, 31)
		if err != nil {
			return jobID{}, false
		}
		id.Task = int(t)
	}
	return id, true
}

// record is what Slurm says of a job.
type record struct {
	ID                        jobID
	Name                      string
	User                      string
	State                     string // in capitals, without what follows it
	By                        string // who cancelled it, a numeric uid; "" not told
	Reason                    string
	Status                    int  // as wait(2) has it, with the exit code above 255 in full
	Exact                     bool // Status is as the program gave it: accounting makes signals of codes above 128
	Rest                      bool // it stands for all members of the array that have no record of their own
	Nodes                     string
	Restarts                  int
	Submitted, Started, Ended time.Time
}

// final reports whether the job has ended, for good.
func (r *record) final() bool {
	switch r.State {
	case "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT", "LAUNCH_FAILED":
		return true
	}
	return false
}

// request is what is asked of Slurm for a job: the values of the mapping's options.
type request struct {
	Name                                 string // of the batch
	Comment                              string
	Account, Partition, QOS, Reservation string
	Nodes, MaxNodes                      int   // MaxNodes 0: as Nodes
	Tasks, TasksPerNode, CPUsPerTask     int   // 0: not said
	Memory, Tmp                          int64 // MiB of a node; 0: not said
	Minutes                              int64 // 0: the site's default; -1: without limit
	Exclusive, Requeue, Hold             bool
	NodeList, Exclude                    string
	Deadline, Begin                      time.Time
	Nice                                 int
	Gres, Licenses, Constraint           string
	Log                                  string // for what Slurm itself has to say
	Dir                                  string
	User                                 string // "": who the gateway is
	UID, GID                             int
}

// key tells alike requests: those of one array.
func (r request) key() string {
	r.Name, r.Comment, r.Log, r.Hold = "", "", "", false
	return fmt.Sprintf("%+v", r)
}

// siteInfo is what a cluster has.
type siteInfo struct {
	Nodes      []node
	Partitions []partition
	Qualities  []string // of service
}

type node struct {
	Name         string
	Arch, OS     string // x86_64; Linux 6.1.0 …
	CPUs, Alloc  int
	Threads      int    // of a core; 0: not told
	Memory, Used int64  // MiB
	Tmp          int64  // MiB
	State        string // in capitals, with flags: "IDLE+DRAIN"
	Features     []string
	Gres         string
	Partitions   []string
}

type partition struct {
	Name           string
	Default        bool
	Up             bool
	MaxMinutes     int64    // 0: no limit
	DefaultMinutes int64    // 0: not said
	MaxNodes       int      // 0: no limit
	MaxMemory      int64    // MiB of a node; 0: no limit
	Nodes          []string // filled in from the nodes
}

// takes reports whether a node takes jobs.
func (n *node) takes() bool { return n.fit("") }

// fit is takes, where one more flag does not matter.
func (n *node) fit(also string) bool {
	for flag := range strings.SplitSeq(strings.TrimRight(n.State, "*$~#!%@^-"), "+") {
		switch strings.TrimRight(flag, "*$~#!%@^-") {
		case "IDLE", "ALLOCATED", "MIXED", "COMPLETING", "CLOUD", "PLANNED", "POWERED_DOWN", "POWERING_UP", "POWERING_DOWN", "DYNAMIC_NORM":
		case also:
		default:
			return false
		}
	}
	return !strings.Contains(n.State, "*") // it does not respond
}
