package jsdl

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// The benchmarks read the richest sample: once by this package, once by
// encoding/xml into structs of the same shape, which checks nothing.

func blast(b testing.TB) []byte {
	b.Helper()
	doc, err := os.ReadFile(filepath.Join(testenv.Shared(b), "samples", "jsdl", "ogf-jsdl_blast_instance-1b4d7.xml"))
	if err != nil {
		b.Fatal(err)
	}
	return doc
}

func BenchmarkParse(b *testing.B) {
	doc := blast(b)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if j, _ := Parse(doc, Options{}); j == nil {
			b.Fatal("not read")
		}
	}
}

// simpleJob is what most jobs look like.
const simpleJob = `<?xml version="1.0" encoding="UTF-8"?>
<jsdl:JobDefinition xmlns:jsdl="` + NS + `" xmlns:posix="` + NSPOSIX + `">
  <jsdl:JobDescription>
    <jsdl:JobIdentification><jsdl:JobName>bench</jsdl:JobName></jsdl:JobIdentification>
    <jsdl:Application>
      <posix:POSIXApplication>
        <posix:Executable>/bin/echo</posix:Executable>
        <posix:Argument>hello</posix:Argument>
        <posix:Output>out</posix:Output>
      </posix:POSIXApplication>
    </jsdl:Application>
    <jsdl:Resources><jsdl:TotalCPUCount><jsdl:Exact>1.0</jsdl:Exact></jsdl:TotalCPUCount></jsdl:Resources>
  </jsdl:JobDescription>
</jsdl:JobDefinition>
`

func BenchmarkParseSimple(b *testing.B) {
	doc := []byte(simpleJob)
	b.ReportAllocs()
	for b.Loop() {
		if _, ps := Parse(doc, Options{}); len(ps) > 0 {
			b.Fatal(ps)
		}
	}
}

func BenchmarkUnmarshalSimple(b *testing.B) {
	doc := []byte(simpleJob)
	b.ReportAllocs()
	for b.Loop() {
		var j xmlJob
		if err := xml.Unmarshal(doc, &j); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecode leaves out reading the XML.
func BenchmarkDecode(b *testing.B) {
	doc, err := xmldoc.ReadBytes([]byte(simpleJob), xmldoc.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ps := Decode(doc, doc.Root(), Options{}); len(ps) > 0 {
			b.Fatal(ps)
		}
	}
}

func BenchmarkMarshal(b *testing.B) {
	j, _ := Parse(blast(b), Options{})
	b.ReportAllocs()
	for b.Loop() {
		j.Marshal()
	}
}

type xmlPath struct {
	FS    string `xml:"filesystemName,attr"`
	Name  string `xml:"name,attr"`
	Value string `xml:",chardata"`
}

type xmlBound struct {
	Exclusive bool    `xml:"exclusiveBound,attr"`
	Epsilon   float64 `xml:"epsilon,attr"`
	Value     float64 `xml:",chardata"`
}

type xmlRange struct {
	Upper *xmlBound  `xml:"UpperBoundedRange"`
	Lower *xmlBound  `xml:"LowerBoundedRange"`
	Exact []xmlBound `xml:"Exact"`
	Range []struct {
		Lower xmlBound `xml:"LowerBound"`
		Upper xmlBound `xml:"UpperBound"`
	} `xml:"Range"`
}

type xmlJob struct {
	XMLName xml.Name `xml:"http://schemas.ggf.org/jsdl/2005/11/jsdl JobDefinition"`
	ID      string   `xml:"id,attr"`
	Job     struct {
		Identification *struct {
			JobName, Description      *string
			JobAnnotation, JobProject []string
		} `xml:"JobIdentification"`
		Application *struct {
			ApplicationName, ApplicationVersion, Description *string
			POSIX                                            *struct {
				Executable, Input, Output, Error, WorkingDirectory  *xmlPath
				Argument, Environment                               []xmlPath
				WallTimeLimit, FileSizeLimit, CoreDumpLimit         *uint64
				DataSegmentLimit, LockedMemoryLimit, MemoryLimit    *uint64
				OpenDescriptorsLimit, PipeSizeLimit, StackSizeLimit *uint64
				CPUTimeLimit, ProcessCountLimit, VirtualMemoryLimit *uint64
				ThreadCountLimit                                    *uint64
				UserName, GroupName                                 *string
			} `xml:"POSIXApplication"`
		}
		Resources *struct {
			CandidateHosts struct{ HostName []string }
			FileSystem     []struct {
				Name                                    string `xml:"name,attr"`
				FileSystemType, Description, MountPoint *string
				DiskSpace                               *xmlRange
			}
			ExclusiveExecution *bool
			OperatingSystem    *struct {
				OperatingSystemType                 *struct{ OperatingSystemName string }
				OperatingSystemVersion, Description *string
			}
			CPUArchitecture                                   *struct{ CPUArchitectureName string }
			IndividualCPUSpeed, IndividualCPUTime             *xmlRange
			IndividualCPUCount, IndividualNetworkBandwidth    *xmlRange
			IndividualPhysicalMemory, IndividualVirtualMemory *xmlRange
			IndividualDiskSpace, TotalCPUTime, TotalCPUCount  *xmlRange
			TotalPhysicalMemory, TotalVirtualMemory           *xmlRange
			TotalDiskSpace, TotalResourceCount                *xmlRange
		}
		DataStaging []struct {
			Name                                   string `xml:"name,attr"`
			FileName, FilesystemName, CreationFlag string
			DeleteOnTermination                    *bool
			Source, Target                         *struct{ URI *string }
		}
	} `xml:"JobDescription"`
}

func BenchmarkUnmarshal(b *testing.B) {
	doc := blast(b)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		var j xmlJob
		if err := xml.Unmarshal(doc, &j); err != nil {
			b.Fatal(err)
		}
	}
}
