package bench

// The structs into which encoding/xml reads the message: all that it says, by the
// shape of the schemas.

type plainEnvelope struct {
	Header struct {
		Action    string `xml:"http://www.w3.org/2005/08/addressing Action"`
		MessageID string `xml:"http://www.w3.org/2005/08/addressing MessageID"`
		To        string `xml:"http://www.w3.org/2005/08/addressing To"`
	} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Header"`
	Body struct {
		CreateActivity struct {
			ActivityDocument struct {
				Job plainJob `xml:"http://schemas.ggf.org/jsdl/2005/11/jsdl JobDefinition"`
			}
		} `xml:"http://schemas.ggf.org/bes/2006/08/bes-factory CreateActivity"`
	} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body"`
}

type plainText struct {
	FileSystem string `xml:"filesystemName,attr"`
	Name       string `xml:"name,attr"`
	Value      string `xml:",chardata"`
}

type plainRange struct {
	Upper, Lower *plainBound
	Exact        []plainBound
	Range        []struct{ LowerBound, UpperBound plainBound }
}

type plainBound struct {
	Exclusive bool    `xml:"exclusiveBound,attr"`
	Epsilon   float64 `xml:"epsilon,attr"`
	Value     float64 `xml:",chardata"`
}

type plainJob struct {
	ID          string `xml:"id,attr"`
	Description struct {
		Identification *struct {
			JobName, Description      *string
			JobAnnotation, JobProject []string
		} `xml:"JobIdentification"`
		Application *struct {
			ApplicationName, ApplicationVersion, Description *string

			POSIX *struct {
				Executable, Input, Output, Error, WorkingDirectory        *plainText
				Argument, Environment                                     []plainText
				WallTimeLimit, FileSizeLimit, CoreDumpLimit, CPUTimeLimit *uint64
				DataSegmentLimit, LockedMemoryLimit, MemoryLimit          *uint64
				OpenDescriptorsLimit, PipeSizeLimit, StackSizeLimit       *uint64
				ProcessCountLimit, VirtualMemoryLimit, ThreadCountLimit   *uint64
				UserName, GroupName                                       *string
			} `xml:"POSIXApplication"`
		}
		Resources *struct {
			CandidateHosts                    *struct{ HostName []string }
			ExclusiveExecution                *bool
			IndividualCPUCount, TotalCPUCount *plainRange
			IndividualPhysicalMemory          *plainRange
		}
	} `xml:"JobDescription"`
}
