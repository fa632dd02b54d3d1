package jsdl

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

func TestElements(t *testing.T) {
	list := Elements()
	if s := slices.Compact(slices.Sorted(slices.Values(list))); len(s) != len(list) {
		t.Errorf("a name stands twice in %v", list)
	}
	for _, want := range []string{
		"jsdl:JobIdentification/jsdl:JobName", "jsdl:Application/jsdl:ApplicationName", "posix:Executable", "posix:WallTimeLimit", "posix:GroupName",
		"hpcpa:Executable", "spmd:NumberOfProcesses", "spmd:SPMDVariation", "jsdl:Resources/jsdl:CandidateHosts", "jsdl:Resources/jsdl:FileSystem",
		"jsdl:Resources/jsdl:FileSystem/jsdl:MountPoint", "jsdl:Resources/jsdl:OperatingSystem/jsdl:OperatingSystemVersion",
		"jsdl:Resources/jsdl:CPUArchitecture", "jsdl:Resources/jsdl:TotalResourceCount", "portolan:Placement/portolan:GPU", "jsdl:DataStaging",
	} {
		if !slices.Contains(list, want) {
			t.Errorf("%s is not in %v", want, list)
		}
	}
	list[0] = "changed"
	if Elements()[0] == "changed" {
		t.Error("a caller changes the list of others")
	}
}

// found lists the entries of Elements in a document by walking it: a second way to
// the answer of Uses.
func found(e *etree.Element, path string, out map[string]bool) {
	n := xmldoc.NameOf(e)
	p := prefixes[n.Space]
	if p == "" {
		return
	}
	switch n.Local {
	case "JobDefinition", "JobDescription", "POSIXApplication", "HPCProfileApplication", "SPMDApplication":
		path = ""
	case "Placement":
		path = "portolan:Placement/"
	default:
		if path += p + ":" + n.Local; slices.Contains(elements, path) {
			out[path] = true
		}
		path += "/"
	}
	for _, c := range e.ChildElements() {
		found(c, path, out)
	}
}

func sameUses(t interface{ Fatalf(string, ...any) }, j *JobDefinition) {
	want := map[string]bool{}
	found(j.Element(), "", want)
	got := map[string]bool{}
	at := 0
	for _, e := range j.Uses() {
		i := slices.Index(elements, e)
		if i < at || got[e] {
			t.Fatalf("%s is no entry of Elements, or stands out of order, in %v", e, j.Uses())
		}
		at, got[e] = i, true
	}
	for _, e := range elements {
		if got[e] != want[e] {
			t.Fatalf("%s is used: %v, want %v:\n%s", e, got[e], want[e], j.Marshal())
		}
	}
}

func TestUses(t *testing.T) {
	all := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) { sameUses(t, definition().Draw(t, "definition")) })
	for seed := range 500 { // always the same, so that each element has its turn
		j := definition().Example(seed)
		sameUses(t, j)
		for _, e := range j.Uses() {
			all[e] = true
		}
	}
	for _, e := range elements {
		if !all[e] {
			t.Errorf("no definition used %s", e)
		}
	}
	if got := new(JobDefinition).Uses(); len(got) != 0 {
		t.Errorf("an empty definition uses %v", got)
	}
}

// Every element of real documents is an entry, or lies in one.
func TestUsesOfSamples(t *testing.T) {
	dir, list := samples(t)
	for _, s := range list {
		if !strings.HasPrefix(s.kind, "valid") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, s.file))
		if err != nil {
			t.Fatal(err)
		}
		if j, _ := Parse(b, Options{}); j != nil {
			sameUses(t, stripForeign(j))
		}
	}
}
