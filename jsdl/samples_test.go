package jsdl

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// sample is a line of samples/jsdl/INDEX.tsv.
type sample struct {
	file, kind, exercises, notes string
}

func samples(t testing.TB) (dir string, list []sample) {
	t.Helper()
	dir = filepath.Join(testenv.Shared(t), "samples", "jsdl")
	b, err := os.ReadFile(filepath.Join(dir, "INDEX.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	for _, line := range lines[1:] {
		f := strings.Split(line, "\t")
		if len(f) < 10 {
			t.Fatalf("INDEX.tsv: a line of %d columns: %s", len(f), line)
		}
		list = append(list, sample{f[0], f[2], f[7], f[9]})
	}
	return dir, list
}

// later reports whether a valid sample needs what this gateway does not do.
func (s sample) later() bool {
	for _, feature := range []string{"stage-in", "stage-out", "sweep", "extension", "foreign ns", "MPIApplication"} {
		if strings.Contains(s.exercises, feature) {
			return true
		}
	}
	return false
}

// expectations gives EXPECTED.json: the content of each sample as another parser sees it.
func expectations(t testing.TB, dir string) map[string]expectation {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "EXPECTED.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]expectation
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

type expectation struct {
	Jobs []expectedJob `json:"jobs"`
}

func TestEverySampleIsJudgedAsItsIndexSays(t *testing.T) {
	dir, list := samples(t)
	if len(list) < 50 {
		t.Fatalf("only %d samples", len(list))
	}
	for _, s := range list {
		later := s.later()
		t.Run(s.file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(dir, s.file))
			if err != nil {
				t.Fatal(err)
			}
			j, ps := Parse(b, Options{File: s.file})
			for _, p := range ps {
				t.Log(p.Severity, p)
				if p.Pos.IsZero() {
					t.Errorf("no position: %v", p)
				}
			}
			switch {
			case s.kind == "malformed", s.kind == "other root":
				if j != nil || len(ps) != 1 || !fail.Is(ps.Err(), fail.Invalid) {
					t.Errorf("got %v, %v; want one invalid problem and nothing read", j, ps)
				}
			case strings.HasPrefix(s.kind, "schema-invalid"):
				if len(ps.Invalid()) == 0 || !fail.Is(ps.Err(), fail.Invalid) {
					t.Error("taken for valid")
				}
			case strings.HasPrefix(s.kind, "valid"):
				if bad := ps.Invalid(); len(bad) > 0 {
					t.Errorf("taken for invalid: %v", bad)
				}
				if got := len(ps.Unsupported()) > 0; got != later {
					t.Errorf("unsupported is %v, want %v for %q", got, later, s.exercises)
				}
			default:
				t.Errorf("a kind that this test does not know: %q", s.kind)
			}
		})
	}
}

// The content of each valid sample, as another parser sees it.
func TestTheContentOfEverySampleIsRead(t *testing.T) {
	dir, list := samples(t)
	expected := expectations(t, dir)
	compared := 0
	for _, s := range list {
		if !strings.HasPrefix(s.kind, "valid") {
			continue
		}
		t.Run(s.file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(dir, s.file))
			if err != nil {
				t.Fatal(err)
			}
			j, ps := Parse(b, Options{})
			if j == nil {
				t.Fatal(ps)
			}
			for _, want := range expected[s.file].Jobs {
				compared++
				want.compare(t, j)
			}
		})
	}
	if compared < 30 {
		t.Errorf("only %d documents were compared", compared)
	}
}

type value struct {
	Value string `json:"value"`
	FS    string `json:"filesystemName"`
	Name  string `json:"name"`
	// of bounds
	Exclusive string `json:"exclusiveBound"`
	Epsilon   string `json:"epsilon"`
}

type expectedRange struct {
	Upper *value  `json:"UpperBoundedRange"`
	Lower *value  `json:"LowerBoundedRange"`
	Exact []value `json:"Exact"`
	Range []struct {
		Lower value `json:"LowerBound"`
		Upper value `json:"UpperBound"`
	} `json:"Range"`
}

type expectedJob struct {
	Identification *struct {
		JobName, Description      *string
		JobAnnotation, JobProject []string
	} `json:"JobIdentification"`
	Application *struct {
		ApplicationName, ApplicationVersion, Description *string
		Specific                                         []struct {
			Type                                                                    string `json:"type"`
			Executable, Input, Output, Error, WorkingDirectory, UserName, GroupName *value
			Argument, Environment                                                   []value
			Limits                                                                  map[string]string
		} `json:"specific"`
	}
	Resources   map[string]json.RawMessage
	DataStaging []map[string]json.RawMessage
}

func (w expectedJob) compare(t *testing.T, j *JobDefinition) {
	t.Helper()
	eq := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	text := func(what string, got, want *string) {
		t.Helper()
		if want == nil {
			eq(what+" absent", got == nil, true)
		} else if got == nil {
			t.Errorf("%s: absent, want %q", what, *want)
		} else {
			eq(what, *got, *want)
		}
	}
	if id := w.Identification; id != nil {
		got := j.Description.Identification
		text("JobName", got.JobName, id.JobName)
		text("Description", got.Description, id.Description)
		eq("JobAnnotation", strings.Join(got.Annotations, "|"), strings.Join(id.JobAnnotation, "|"))
		eq("JobProject", strings.Join(got.Projects, "|"), strings.Join(id.JobProject, "|"))
	} else {
		eq("JobIdentification absent", j.Description.Identification == nil, true)
	}
	if a := w.Application; a != nil {
		got := j.Description.Application
		text("ApplicationName", got.Name, a.ApplicationName)
		text("ApplicationVersion", got.Version, a.ApplicationVersion)
		text("Description", got.Description, a.Description)
		for _, x := range a.Specific {
			if x.Type != "{"+NSPOSIX+"}POSIXApplication" && x.Type != "{"+NSHPCPA+"}HPCProfileApplication" {
				continue
			}
			p := j.Program()
			path := func(what string, got *Text, want *value) {
				t.Helper()
				if want == nil {
					eq(what+" absent", got == nil, true)
				} else if got == nil {
					t.Errorf("%s: absent, want %v", what, *want)
				} else {
					eq(what, got.Value, trim(want.Value))
					eq(what+" filesystemName", got.FileSystem, want.FS)
				}
			}
			if x.Executable != nil {
				path("Executable", &p.Executable, x.Executable)
			}
			path("Input", p.Input, x.Input)
			path("Output", p.Output, x.Output)
			path("Error", p.Error, x.Error)
			path("WorkingDirectory", p.WorkingDirectory, x.WorkingDirectory)
			eq("arguments", len(p.Arguments), len(x.Argument))
			for i, v := range x.Argument {
				eq("Argument", p.Arguments[i].Value, normalize(v.Value))
				eq("Argument filesystemName", p.Arguments[i].FileSystem, v.FS)
			}
			eq("variables", len(p.Environment), len(x.Environment))
			for i, v := range x.Environment {
				eq("Environment name", p.Environment[i].Name, v.Name)
				eq("Environment", p.Environment[i].Value, v.Value)
				eq("Environment filesystemName", p.Environment[i].FileSystem, v.FS)
			}
			limits := 0
			for _, l := range p.Limits.all() {
				if *l.value != nil {
					limits++
					eq(l.element, (*l.value).String(), x.Limits[l.element])
				}
			}
			eq("limits", limits, len(x.Limits))
			if x.UserName != nil {
				eq("UserName", *p.UserName, x.UserName.Value)
			}
			if x.GroupName != nil {
				eq("GroupName", *p.GroupName, x.GroupName.Value)
			}
		}
	} else {
		eq("Application absent", j.Description.Application == nil, true)
	}
	if len(w.Resources) > 0 {
		w.compareResources(t, j.Description.Resources, eq)
	}
	eq("staged files", len(j.Description.DataStaging), len(w.DataStaging))
	for i, s := range w.DataStaging {
		got := j.Description.DataStaging[i]
		eq("FileName", got.FileName, trim(unquote(t, s["FileName"])))
		eq("CreationFlag", got.CreationFlag, unquote(t, s["CreationFlag"]))
		eq("FilesystemName", got.FilesystemName, unquote(t, s["FilesystemName"]))
		eq("name", got.Name, unquote(t, s["name"]))
		deleted := ""
		if got.DeleteOnTermination != nil {
			deleted = strconv.FormatBool(*got.DeleteOnTermination)
		}
		eq("DeleteOnTermination", deleted, unquote(t, s["DeleteOnTermination"]))
		for name, l := range map[string]*Location{"Source": got.Source, "Target": got.Target} {
			raw, ok := s[name]
			eq(name+" given", l != nil, ok)
			if ok && l != nil {
				eq(name+" has a URI", l.URI != nil, string(raw) != "null")
				if l.URI != nil {
					eq(name, *l.URI, trim(unquote(t, raw)))
				}
			}
		}
	}
}

func (w expectedJob) compareResources(t *testing.T, r *Resources, eq func(string, any, any)) {
	ranges := map[string]*RangeValue{
		"IndividualCPUSpeed": r.IndividualCPUSpeed, "IndividualCPUTime": r.IndividualCPUTime,
		"IndividualCPUCount": r.IndividualCPUCount, "IndividualNetworkBandwidth": r.IndividualNetworkBandwidth,
		"IndividualPhysicalMemory": r.IndividualPhysicalMemory, "IndividualVirtualMemory": r.IndividualVirtualMemory,
		"IndividualDiskSpace": r.IndividualDiskSpace, "TotalCPUTime": r.TotalCPUTime, "TotalCPUCount": r.TotalCPUCount,
		"TotalPhysicalMemory": r.TotalPhysicalMemory, "TotalVirtualMemory": r.TotalVirtualMemory,
		"TotalDiskSpace": r.TotalDiskSpace, "TotalResourceCount": r.TotalResourceCount,
	}
	for name, raw := range w.Resources {
		switch name {
		case "CandidateHosts":
			var hosts []string
			unmarshal(t, raw, &hosts)
			eq(name, strings.Join(r.CandidateHosts, "|"), strings.Join(hosts, "|"))
		case "ExclusiveExecution":
			eq(name, strconv.FormatBool(*r.ExclusiveExecution), unquote(t, raw))
		case "CPUArchitecture":
			eq(name, r.CPUArchitecture.Name, unquote(t, raw))
		case "OperatingSystem":
			var os struct {
				OperatingSystemName                 string
				OperatingSystemVersion, Description *string
			}
			unmarshal(t, raw, &os)
			eq(name, r.OperatingSystem.Name, os.OperatingSystemName)
			if os.OperatingSystemVersion != nil {
				eq(name, *r.OperatingSystem.Version, *os.OperatingSystemVersion)
			}
			if os.Description != nil {
				eq(name, *r.OperatingSystem.Description, *os.Description)
			}
		case "FileSystem":
			var list []struct {
				Name           string `json:"name"`
				FileSystemType string
				Description    *string
				MountPoint     *string
				DiskSpace      *expectedRange
			}
			unmarshal(t, raw, &list)
			eq("file systems", len(r.FileSystems), len(list))
			for i, f := range list {
				got := r.FileSystems[i]
				eq("FileSystem name", got.Name, f.Name)
				eq("FileSystemType", got.Type, f.FileSystemType)
				if f.Description != nil {
					eq("Description", *got.Description, *f.Description)
				}
				if f.MountPoint != nil {
					eq("MountPoint", *got.MountPoint, *f.MountPoint)
				}
				if f.DiskSpace != nil {
					f.DiskSpace.compare(t, got.DiskSpace)
				}
			}
		case "extensions":
			var names []string
			unmarshal(t, raw, &names)
			eq("extensions", len(r.Foreign.Elements), len(names))
		default:
			got, ok := ranges[name]
			if !ok || got == nil {
				t.Errorf("%s was not read", name)
				continue
			}
			var want expectedRange
			unmarshal(t, raw, &want)
			want.compare(t, got)
		}
	}
}

func (w *expectedRange) compare(t *testing.T, r *RangeValue) {
	t.Helper()
	same := func(what string, got float64, want string) {
		t.Helper()
		if v, ok := parseDouble(want); !ok || v != got {
			t.Errorf("%s: got %v, want %s", what, got, want)
		}
	}
	if (w.Upper != nil) != (r.Upper != nil) || (w.Lower != nil) != (r.Lower != nil) || len(w.Exact) != len(r.Exact) || len(w.Range) != len(r.Ranges) {
		t.Fatalf("got %+v, want %+v", r, w)
	}
	if w.Upper != nil {
		same("upper", r.Upper.Value, w.Upper.Value)
	}
	if w.Lower != nil {
		same("lower", r.Lower.Value, w.Lower.Value)
	}
	for i, x := range w.Exact {
		same("exact", r.Exact[i].Value, x.Value)
	}
	for i, x := range w.Range {
		same("lower", r.Ranges[i].Lower.Value, x.Lower.Value)
		same("upper", r.Ranges[i].Upper.Value, x.Upper.Value)
	}
}

func unmarshal(t *testing.T, raw json.RawMessage, v any) {
	t.Helper()
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
}

func unquote(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var s string
	unmarshal(t, raw, &s)
	return s
}

// Each line of the oracle: the content of a RangeValue, a number, whether it matches.
func TestRangeOracle(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(testenv.Shared(t), "samples", "jsdl", "range-oracle.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(lines) < 100 {
		t.Fatalf("only %d lines", len(lines))
	}
	for _, line := range lines[1:] {
		f := strings.Split(line, "\t")
		j, ps := Parse([]byte(`<jsdl:JobDefinition xmlns:jsdl="`+NS+`"><jsdl:JobDescription><jsdl:Resources><jsdl:TotalCPUTime>`+f[0]+
			`</jsdl:TotalCPUTime></jsdl:Resources></jsdl:JobDescription></jsdl:JobDefinition>`), Options{})
		if err := ps.Err(); err != nil {
			t.Errorf("%s: %v", f[0], err)
			continue
		}
		x, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		r := j.Description.Resources.TotalCPUTime
		if got := r.Contains(x); strconv.FormatBool(got) != f[2] {
			t.Errorf("%s contains %s: got %v, want %s", f[0], f[1], got, f[2])
		}
		// What is said to be in it is in it.
		if n, ok := r.LowestInteger(math.MinInt64 / 2); ok && !r.Contains(float64(n)) {
			t.Errorf("%s: the lowest integer %d is not in it", f[0], n)
		}
	}
}

// The definitions that eleven client stacks sent, read where they stand: inside
// an envelope, with prefixes declared anywhere above.
func TestCapturedDefinitions(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(testenv.Shared(t), "samples", "captured", "*CreateActivity*.request.http"))
	if err != nil || len(names) < 10 {
		t.Fatalf("%d captured requests, %v", len(names), err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
			if !ok {
				t.Fatal("no body")
			}
			doc, err := xmldoc.ReadBytes(body, xmldoc.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			var at *etree.Element
			for _, e := range doc.Root().FindElements("//JobDefinition") {
				if xmldoc.Is(e, NS, "JobDefinition") {
					at = e
				}
			}
			if at == nil {
				t.Fatal("no JobDefinition")
			}
			j, ps := Decode(doc, at, Options{})
			if err := ps.Err(); err != nil {
				t.Fatal(err)
			}
			if j.Program().Executable.Value == "" {
				t.Errorf("no program: %+v", j.Program())
			}
			// What stands on its own says the same.
			again, ps := Parse(j.Marshal(), Options{})
			if err := ps.Err(); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(again.Program(), j.Program()) {
				t.Errorf("written as %s", j.Marshal())
			}
		})
	}
}
