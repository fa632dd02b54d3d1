package bes

import (
	"context"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// Namespaces. NSPortolan holds what BES leaves to implementations: sub-states,
// the activity's details, the activity control port type, submission ids.
const (
	NSFactory    = "http://schemas.ggf.org/bes/2006/08/bes-factory"
	NSManagement = "http://schemas.ggf.org/bes/2006/08/bes-management"
	NSActivity   = "http://schemas.ggf.org/bes/2006/08/bes-activity"
	NSPortolan   = "http://portolan-project.org/ns/2026/bes"
)

// State is a base state of an activity. On the wire a terminated activity is
// Cancelled, in every copy of the schema.
type State string

// The base states (GFD.108 §4).
const (
	Pending   State = "Pending"
	Running   State = "Running"
	Finished  State = "Finished"
	Cancelled State = "Cancelled"
	Failed    State = "Failed"
)

// Final reports whether nothing can follow.
func (s State) Final() bool { return s == Finished || s == Cancelled || s == Failed }

// Status is the state of one activity.
type Status struct {
	State State
	// SubStates split the base state (GFD.108 §4.2); ours are in NSPortolan:
	// Queued, Held (Pending); Placing, Submitted, HeldAtSite, Executing, Suspended, Requeued,
	// Cancelling (Running).
	SubStates []xmldoc.Name
	// Details is what our own gateways add; nil from a service of another make.
	Details *Details
	// Extensions are foreign children that nobody here understands.
	Extensions []*etree.Element
}

// Details is what a person wants to know of an activity beyond its state.
type Details struct {
	Name       string
	Site       string
	Reason     string // why it is in this state; a sentence
	ExitStatus *int   // nil until known, and for one ended by a signal
	Signal     string // "SIGSEGV"; "" if none
	Submitted  time.Time
	Started    time.Time // zero until it runs
	Ended      time.Time // zero until final
	Revision   int64     // grows with every change; for WaitAfter

	// What some sites tell beside; zero is "not told".
	Progress   float64  // of the work, 0 to 1
	Hosts      []string // where it runs or ran
	Usage      Usage
	Attributes map[string]string // the site's own, by its own names
}

// Usage is what an activity used so far.
type Usage struct {
	CPU    time.Duration // user and system, of all its processes
	Memory int64         // bytes, the most that was resident at once
}

// CreateActivityRequest is one job to be.
type CreateActivityRequest struct {
	// Document is a stand-alone jsdl:JobDefinition, in the sender's own bytes.
	Document []byte
	// Job is Document, read; a server sets it, a client may leave it nil.
	Job *jsdl.JobDefinition
	// SubmissionID makes creation idempotent: the same caller, id and document
	// give the same activity. Empty: no such promise.
	SubmissionID string
	// Ignored names the foreign elements of the request that had no effect.
	Ignored []xmldoc.Name
}

// CreateActivityResponse names the new activity.
type CreateActivityResponse struct {
	Activity soap.EPR
}

// StatusRequest asks for the states of activities. With Wait, the answer may be
// held back, at most so long, until one of them has a Revision above After or is
// final; a service that does not know this answers at once.
type StatusRequest struct {
	Activities []soap.EPR
	Wait       time.Duration
	After      int64
}

// StatusResult is the answer for one activity; Err is set instead of Status.
type StatusResult struct {
	Activity soap.EPR
	Status   Status
	Err      error
}

// Result is the answer for one activity of an operation that returns nothing;
// nil Err means that it was accepted.
type Result struct {
	Activity soap.EPR
	Err      error
}

// DocumentResult is the answer for one activity: the JobDefinition as it was
// sent, a document of its own, or Err.
type DocumentResult struct {
	Activity soap.EPR
	Document []byte
	Err      error
}

// BasicResource describes one resource (BasicResourceAttributesDocument); zero
// fields are left out. CPUSpeed is in hertz, memory in bytes.
type BasicResource struct {
	ResourceName           string
	OperatingSystem        string // of JSDL's enumeration
	OperatingSystemVersion string
	CPUArchitecture        string // of JSDL's enumeration
	CPUCount               float64
	CPUSpeed               float64
	PhysicalMemory         float64
	VirtualMemory          float64
}

// FactoryAttributes is the FactoryResourceAttributesDocument.
type FactoryAttributes struct {
	Basic                    *BasicResource
	IsAcceptingNewActivities bool
	CommonName               string
	LongDescription          string
	TotalNumberOfActivities  int64 // of the caller
	Activities               []soap.EPR
	TotalContainedResources  int64
	ContainedResources       []BasicResource
	NamingProfiles           []string
	Extensions               []string // BESExtension URIs
	LocalResourceManagerType string
}

// Service is what a basic execution service does: the Factory and Management
// port types. The server exposes one, the client is one, the broker is one. Who
// asks is in the context (soap.PrincipalFrom). Vector operations give one result
// for each activity asked for, in order. Errors are fail errors, by kind:
// Denied, NotAccepting, Unsupported, Invalid, NotFound, Conflict, Unavailable…;
// faults.go says which fault each kind is.
type Service interface {
	CreateActivity(context.Context, *CreateActivityRequest) (*CreateActivityResponse, error)
	GetActivityStatuses(context.Context, *StatusRequest) ([]StatusResult, error)
	TerminateActivities(context.Context, []soap.EPR) ([]Result, error)
	GetActivityDocuments(context.Context, []soap.EPR) ([]DocumentResult, error)
	GetFactoryAttributesDocument(context.Context) (*FactoryAttributes, error)
	StopAcceptingNewActivities(context.Context) error
	StartAcceptingNewActivities(context.Context) error
}

// Controller is the activity control port type (NSPortolan): what users need and
// BES 1.0 leaves out. A Service may implement it.
type Controller interface {
	SuspendActivities(context.Context, []soap.EPR) ([]Result, error)
	ResumeActivities(context.Context, []soap.EPR) ([]Result, error)
	GetActivityHistory(context.Context, soap.EPR) ([]HistoryEntry, error)
	// GetActivityOutput reads from a stream of the activity, from a byte offset, at
	// most max bytes. More is false once the stream can't grow any more and was
	// read to its end.
	GetActivityOutput(ctx context.Context, activity soap.EPR, stream Stream, offset int64, max int) (*OutputChunk, error)
}

// HistoryEntry is one line of an activity's history.
type HistoryEntry struct {
	Sequence int
	Time     time.Time
	State    State
	SubState string
	Site     string
	Attempt  int    // which placement this belongs to, from 1; 0 before any
	Event    string // what happened, one word: "submitted", "placed", "started"…
	Reason   string // why, a sentence
}

// Stream is an output of an activity.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// OutputChunk is a piece of a stream.
type OutputChunk struct {
	Data   []byte
	Offset int64 // of Data's first byte
	More   bool
}
