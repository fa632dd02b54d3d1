package jsdl

import (
	"math/big"

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

// Application says what is run. At most one of POSIX and HPC is set in a job
// that this gateway takes.
type Application struct {
	Name        *string
	Version     *string
	Description *string
	POSIX       *POSIXApplication
	HPC         *HPCProfileApplication
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

// Program is what a job runs, the same for both applications.
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
}
