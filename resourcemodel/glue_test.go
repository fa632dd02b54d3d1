package resourcemodel

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
)

// TestGLUEIsValid asks libxml2 with the normative schema about random domains and their
// aggregates, and that every reference leads somewhere in the document.
func TestGLUEIsValid(t *testing.T) {
	lint := testenv.Tool(t, "xmllint", "libxml2-utils")
	schemas := filepath.Join(testenv.Shared(t), "schemas", "jsdl")
	dir := t.TempDir()
	args := []string{"--nonet", "--noout", "--schema", filepath.Join(schemas, "glue2.xsd")}
	for seed := range uint64(40) {
		g := newModelGen(seed)
		d := Delta{Revision: 1, At: modelStart}
		for _, name := range []string{"a", "B_c", "9.x-y"}[:g.IntN(4)] {
			s := g.site(Key{Domain: "north", Site: name})
			s.Static.Labels = append(s.Static.Labels, `<&"> é`)
			s.Static.Shares[0].ID = "größe_1 <x>"
			d.Changes = append(d.Changes, Change{Key: s.Key, Static: s.Static, Dynamic: s.Dynamic})
		}
		s, err := Empty().Apply(d)
		if err != nil {
			t.Fatal(err)
		}
		if s, err = Merge(s, "world", oneOf(g, Full, Categorized, Simple), "north"); err != nil {
			t.Fatal(err)
		}
		var b, again bytes.Buffer
		if err := WriteGLUE(&b, s, "world", ""); err != nil {
			t.Fatal(err)
		}
		if err := WriteGLUE(&again, s, "world", "world"); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
			t.Fatal("the same model has another document")
		}
		referencesLead(t, b.Bytes())
		file := filepath.Join(dir, "glue"+string(rune('a'+seed%26))+string(rune('a'+seed/26))+".xml")
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	cmd := exec.CommandContext(t.Context(), lint, args...)
	cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+filepath.Join(schemas, "catalog.xml"))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), " validates\n") != 40 {
		t.Errorf("%v: %.3000s", err, out)
	}
}

// referencesLead checks that each ID is there once, and that what associations name is there.
func referencesLead(t *testing.T, doc []byte) {
	t.Helper()
	tree := etree.NewDocument()
	if err := tree.ReadFromBytes(doc); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, e := range tree.Root().ChildElements() {
		id := e.SelectElement("ID").Text()
		if ids[id] != "" {
			t.Errorf("%s is there twice", id)
		}
		ids[id] = e.Tag
	}
	kinds := map[string]string{
		"ServiceID": "ComputingService", "ShareID": "ComputingShare", "ManagerID": "ComputingManager", "ResourceID": "ExecutionEnvironment",
		"PolicyID": "MappingPolicy", "DomainID": "UserDomain", "BenchmarkID": "Benchmark", "ApplicationEnvironmentID": "ApplicationEnvironment",
	}
	for _, e := range tree.FindElements("//Associations/*") {
		if want := kinds[e.Tag]; want == "" || ids[e.Text()] != want {
			t.Errorf("%s %s leads to %q", e.Tag, e.Text(), ids[e.Text()])
		}
	}
}

func TestGLUEByExample(t *testing.T) {
	st := &Static{
		Stamp: Stamp{Version: 1, Changed: modelStart, Source: "slurm by slurmrestd"}, Type: "shell", Policy: Policy{Allow: []string{"vo:bio", "user:ann"}},
		Shares: []Share{
			{ID: "long", Environments: []string{"n"}, MaxWallTime: 2 * time.Hour, MaxCPUs: 64, MaxMemory: 3 << 30, Slots: 7, Policy: Policy{Allow: []string{"vo:bio", "vo:chem"}, Deny: []string{"user:bob"}}},
			{ID: "shut", Environments: []string{"n"}, Policy: Policy{Allow: []string{"user:cid"}}},
			{ID: "never", Policy: Policy{Allow: []string{"vo:none"}}},
		},
		Environments: []Environment{{ID: "n", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: 16, CPUSpeed: 2.4e9, Memory: 64 << 30, Benchmarks: map[string]float64{"hs06": 12.5}, GPUs: map[string]int{"a100": 4}}},
		Applications: []Application{{Name: "R", Version: "4.1"}},
	}
	st.Policy.Allow = []string{"vo:bio"}
	dyn := &Dynamic{
		Up: true, Shares: map[string]ShareState{"long": {Open: true, Running: 3, Waiting: 4, FreeSlots: 2, Forecast: time.Minute}, "never": {Open: true}},
		Environments: map[string]EnvironmentState{"n": {Nodes: 10, Available: 8, FreeNodes: 5}},
	}
	s, err := Empty().Apply(Delta{Revision: 1, At: modelStart, Changes: []Change{{Key: Key{Site: "a"}, Static: st, Dynamic: dyn}}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := WriteGLUE(&b, s, "", "north.example"); err != nil {
		t.Fatal(err)
	}
	tree := etree.NewDocument()
	if err := tree.ReadFromBytes(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"//AdminDomain/Name": "north.example", "//UserDomain[Name='bio']/Name": "bio", "//ComputingService/TotalJobs": "7",
		"//ComputingService/@CreationTime":           "2026-03-01T14:00:00Z",
		"//ComputingManager/ProductName":             "fork",
		"//ComputingManager/TotalLogicalCPUs":        "160",
		"//ComputingShare[Name='long']/MaxWallTime":  "7200",
		"//ComputingShare[Name='long']/FreeSlots":    "2",
		"//ComputingShare[Name='long']/ServingState": "production", "//ComputingShare[Name='shut']/ServingState": "closed",
		"//ComputingShare[Name='never']/ServingState":              "closed",
		"//ComputingShare[Name='long']/MaxMainMemory":              "3072",
		"//ComputingShare[Name='long']/MaxRunningJobs":             "7",
		"//ComputingShare[Name='long']/MaxSlotsPerJob":             "64",
		"//ComputingShare/EstimatedAverageWaitingTime":             "60",
		"//ComputingShare/Extensions/Extension[Key='Deny']/Value":  "user:bob",
		"//ExecutionEnvironment/Platform":                          "amd64",
		"//ExecutionEnvironment/OSFamily":                          "linux",
		"//ExecutionEnvironment/MainMemorySize":                    "65536",
		"//ExecutionEnvironment/CPUClockSpeed":                     "2400",
		"//ExecutionEnvironment/TotalInstances":                    "10",
		"//ExecutionEnvironment/UsedInstances":                     "3",
		"//ExecutionEnvironment/UnavailableInstances":              "2",
		"//ExecutionEnvironment//Extension[Key='GPUs.a100']/Value": "4",
		"//Benchmark/Value":                                        "12.5",
		"//ApplicationEnvironment/AppName":                         "R",
		"//MappingPolicy[1]/Rule":                                  "vo:bio",
	} {
		path, attribute, _ := strings.Cut(path, "/@")
		e := tree.FindElement(path)
		got := ""
		if e != nil {
			got = e.Text()
			if attribute != "" {
				got = e.SelectAttrValue(attribute, "")
			}
		}
		if got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if n := len(tree.FindElements("//MappingPolicy")); n != 2 {
		t.Errorf("%d policies in\n%s", n, b.String())
	}
}

func TestGLUERefuses(t *testing.T) {
	for _, name := range []string{"", "a b", "a/b"} {
		if err := WriteGLUE(&bytes.Buffer{}, Empty(), "", name); !fail.Is(err, fail.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	full := errors.New("full")
	if err := WriteGLUE(brokenWriter{full}, Empty(), "north", ""); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestGLUEIdentifiers(t *testing.T) {
	g := &glue{domain: "north"}
	var all []string
	for _, parts := range [][]string{{"a", "b"}, {"a:b"}, {"a", "b", ""}, {"a_3Ab"}, {"a_b"}, {"a b"}, {"é"}, {"_C3_A9"}} {
		all = append(all, g.id("share", parts...))
	}
	if unique := slices.Compact(slices.Sorted(slices.Values(all))); len(unique) != len(all) {
		t.Errorf("%q", all)
	}
}
