package jsdl

import (
	"math/big"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Namespaces.
const (
	NS      = "http://schemas.ggf.org/jsdl/2005/11/jsdl"
	NSPOSIX = "http://schemas.ggf.org/jsdl/2005/11/jsdl-posix"
	NSHPCPA = "http://schemas.ggf.org/jsdl/2006/07/jsdl-hpcpa"
	NSSPMD  = "http://schemas.ogf.org/jsdl/2007/02/jsdl-spmd"
	NSSweep = "http://schemas.ogf.org/jsdl/2009/03/sweep"
	// NSPortolan is the namespace of our own extension elements.
	NSPortolan = "http://portolan-project.org/ns/2026/jsdl"
)

// Foreign is what stands in an element's wildcard: elements and attributes of
// namespaces that this package does not read. They are kept and written back.
type Foreign struct {
	Elements   []*etree.Element // detached, namespaces declared on each
	Attributes []Attribute
}

// Attribute is a foreign attribute.
type Attribute struct {
	Name  xmldoc.Name
	Value string
}

// JobDefinition is a whole document.
type JobDefinition struct {
	ID          string // @id, an xsd:ID
	Description JobDescription
	Foreign     Foreign
}

// JobDescription describes one job. An empty one is valid: a job that does nothing.
type JobDescription struct {
	Identification *JobIdentification
	Application    *Application
	Resources      *Resources
	DataStaging    []DataStaging
	Foreign        Foreign
}

// JobIdentification names a job for people and accounting.
type JobIdentification struct {
	JobName     *string
	Description *string
	Annotations []string
	Projects    []string
	Foreign     Foreign
}

// Application says what is run. At most one of POSIX, HPC and SPMD is set in a
// job that this gateway takes.
type Application struct {
	Name        *string
	Version     *string
	Description *string
	POSIX       *POSIXApplication
	HPC         *HPCProfileApplication
	SPMD        *SPMDApplication
	Foreign     Foreign
}

// Text is a string that may be a path below a declared file system: with
// FileSystem set, Value is appended to that file system's mount point
// (standards' X1); without, JSDL does not interpret it.
type Text struct {
	Value      string
	FileSystem string
	Attributes []Attribute // foreign
}

// EnvironmentVariable is one variable; the name is an NCName.
type EnvironmentVariable struct {
	Name string
	Text
}

// POSIXApplication is GFD.56 §8. A nil pointer is an absent element.
type POSIXApplication struct {
	Name             string // @name
	Executable       *Text
	Arguments        []Text
	Input            *Text
	Output           *Text
	Error            *Text
	WorkingDirectory *Text
	Environment      []EnvironmentVariable
	Limits           Limits
	UserName         *string
	GroupName        *string
	Leaves           []LeafAttribute
	Foreign          Foreign
}

// LeafAttribute is a foreign attribute of a child element for whose attributes
// the Go type has no place: a limit, a user name, a text of the HPC profile.
type LeafAttribute struct {
	Element string // local name of the child
	Index   int    // among the children of that name, from 0
	Attribute
}

// Limits are the POSIX limits (setrlimit), each a non-negative integer without
// upper bound in the schema; nil is absent; zero is a limit of zero. Times are in
// seconds, sizes in bytes, the rest are counts.
type Limits struct {
	WallTime, FileSize, CoreDump, DataSegment, LockedMemory, Memory *big.Int
	OpenDescriptors, PipeSize, StackSize, CPUTime                   *big.Int
	ProcessCount, VirtualMemory, ThreadCount                        *big.Int
}

// HPCProfileApplication is GFD.111. A nil pointer is an absent element.
type HPCProfileApplication struct {
	Name             string // @name
	Executable       *string
	Arguments        []string
	Input            *string
	Output           *string
	Error            *string
	WorkingDirectory *string
	Environment      []EnvironmentVariable // FileSystem is always empty
	UserName         *string
	Leaves           []LeafAttribute
	Foreign          Foreign
}

// SPMDApplication is GFD.115: one program started as many processes. A nil pointer
// is an absent element.
type SPMDApplication struct {
	Name              string // @name
	Executable        *Text
	Arguments         []Text
	Input             *Text
	Output            *Text
	Error             *Text
	WorkingDirectory  *Text
	Environment       []EnvironmentVariable
	UserName          *string
	NumberOfProcesses *ProcessCount // actual: as many as CPUs are allocated in all
	ProcessesPerHost  *big.Int      // positive
	ThreadsPerProcess *ProcessCount // actual: as many as CPUs are allocated on the host
	Variation         string        // SPMDVariation, an absolute URI
	Leaves            []LeafAttribute
	Foreign           Foreign
}

// ProcessCount is a positive number, or nil in the sense of XML Schema.
type ProcessCount struct {
	Value  *big.Int // nil: xsi:nil
	Actual bool     // @actualtotalcpucount or @actualindividualcpucount
}

// Placement is our own extension, an element of jsdl:Resources: what local managers
// know and JSDL has no word for. A nil pointer or empty list is an absent element.
// A site that has no such thing refuses the job by the element's name.
type Placement struct {
	Share            *string    // queue, partition (GLUE2 ComputingShare)
	QualityOfService *string    // of the manager
	Reservation      *string    // of the manager
	Deadline         *time.Time // by when the job must have ended
	NotBefore        *time.Time // before when it must not start
	Priority         *int       // among the owner's jobs, higher first; -1000 to 1000
	Rerunnable       *bool      // the manager may start it again after a node failed; absent: it may not
	GPUs             []GPU      // per host
	Licences         []Licence
	Constraint       *string // the manager's own expression over its nodes' features
	Container        *string // image to run in: a path or a URI
	Quorum           *int    // results that must agree (volunteer computing)
	Replicas         *int    // results made at first; at least Quorum
	Manager          []ManagerAttribute
	VO               *string // virtual organisation on whose behalf the job runs; for the gateway alone
	Foreign          Foreign
}

// GPU asks for devices; Type "" is any.
type GPU struct {
	Type  string
	Count int
}

// Licence asks for tokens of one that the manager counts.
type Licence struct {
	Name  string
	Count int
}

// ManagerAttribute is handed to the manager as it is: a ClassAd attribute. Managers
// without such attributes refuse it.
type ManagerAttribute struct {
	Name  string
	Value string
}

// Resources are requirements, never hints; nil is no constraint. CPU speeds are
// in hertz, times in seconds, bandwidth in bit/s, memory and disk in bytes.
type Resources struct {
	CandidateHosts             []string
	FileSystems                []FileSystem
	ExclusiveExecution         *bool
	OperatingSystem            *OperatingSystem
	CPUArchitecture            *CPUArchitecture
	IndividualCPUSpeed         *RangeValue
	IndividualCPUTime          *RangeValue
	IndividualCPUCount         *RangeValue
	IndividualNetworkBandwidth *RangeValue
	IndividualPhysicalMemory   *RangeValue
	IndividualVirtualMemory    *RangeValue
	IndividualDiskSpace        *RangeValue
	TotalCPUTime               *RangeValue
	TotalCPUCount              *RangeValue
	TotalPhysicalMemory        *RangeValue
	TotalVirtualMemory         *RangeValue
	TotalDiskSpace             *RangeValue
	TotalResourceCount         *RangeValue
	Placement                  *Placement // ours
	Criteria                   *Criteria  // ours
	Foreign                    Foreign
}

// FileSystem is a file system that the job refers to by name.
type FileSystem struct {
	Name        string // @name, an NCName, unique in the document
	Type        string // "", swap, temporary, spool or normal
	Description *string
	MountSource *string // not in the schema: lenient reading only
	MountPoint  *string
	DiskSpace   *RangeValue
	Foreign     Foreign
}

// OperatingSystem is what the job must run on.
type OperatingSystem struct {
	Name        string // OperatingSystemName, of the standard's enumeration; "" without a type
	HasType     bool
	Version     *string
	Description *string
	TypeForeign Foreign
	Foreign     Foreign
}

// CPUArchitecture is what the job must run on.
type CPUArchitecture struct {
	Name    string // CPUArchitectureName, of the standard's enumeration
	Foreign Foreign
}

// RangeValue is a set of numbers (GFD.56 §5.2): both one-sided bounds together
// are one interval; it is joined with every Exact and Range.
type RangeValue struct {
	Upper   *Bound
	Lower   *Bound
	Exact   []Exact
	Ranges  []Range
	Foreign Foreign // attributes only: the type has no wildcard for elements
}

// Bound is one end.
type Bound struct {
	Value      float64
	Exclusive  bool
	Attributes []Attribute // foreign
}

// Exact is a value with a width to either side, inclusive.
type Exact struct {
	Value      float64
	Epsilon    float64
	Attributes []Attribute // foreign
}

// Range is an interval.
type Range struct {
	Lower, Upper Bound
	Attributes   []Attribute // foreign
}

// DataStaging is one file that is moved in or out.
type DataStaging struct {
	Name                string // @name
	FileName            string
	FilesystemName      string
	CreationFlag        string // overwrite, append or dontOverwrite
	DeleteOnTermination *bool
	Source              *Location
	Target              *Location
	Foreign             Foreign
}

// Location is a Source or Target; URI is nil without one.
type Location struct {
	URI     *string
	Foreign Foreign
}

// Program is what a job runs, the same for all three applications.
type Program struct {
	Executable       Text // Value is "" for a job that runs nothing
	Arguments        []Text
	Input            *Text // nil: standard input is empty
	Output           *Text // nil: kept by the site
	Error            *Text
	WorkingDirectory *Text // nil: a fresh directory
	Environment      []EnvironmentVariable
	Limits           Limits
	UserName         *string
	GroupName        *string
	SPMD             *SPMD // nil: one process
}

// SPMD says how the processes of a program are started.
type SPMD struct {
	Processes        int    // 0: with ProcessesActual as many as CPUs are allocated, else the site's choice
	ProcessesActual  bool   //
	ProcessesPerHost int    // 0: the site's choice
	Threads          int    // each process will make; 0: see ThreadsActual, else 1
	ThreadsActual    bool   // as many as CPUs are allocated on the host
	Variation        string // launcher and library, a URI; VariationMPI is any MPI
}
