package resourcemodel

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/jsdl"
)

var updateDocs = flag.Bool("update", false, "rewrite the generated part of docs/criteria.md")

const attributesBegin, attributesEnd = "<!-- attributes:begin -->\n", "<!-- attributes:end -->\n"

// TestAttributesPage: the table in docs/criteria.md is that of the code; -update
// rewrites it.
func TestAttributesPage(t *testing.T) {
	file := filepath.Join(testenv.Root(t), "docs", "criteria.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(page, []byte(attributesBegin))
	_, after, closed := bytes.Cut(rest, []byte(attributesEnd))
	if !ok || !closed {
		t.Fatalf("%s has no place for the table, between %q and %q", file, attributesBegin, attributesEnd)
	}
	var b strings.Builder
	b.WriteString("| attribute | type | unit | of | kind | meaning |\n|---|---|---|---|---|---|\n")
	for _, a := range Attributes() {
		name, kind := a.Name, string(a.Type)
		if a.Argument() {
			name += "NAME"
		}
		if a.List {
			kind += ", any number"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", name, kind, a.Unit, a.Of, a.Kind, strings.ReplaceAll(a.Doc, "|", `\|`))
	}
	want := bytes.Join([][]byte{before, []byte(attributesBegin + "\n" + b.String() + "\n" + attributesEnd), after}, nil)
	switch {
	case bytes.Equal(page, want):
	case *updateDocs:
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is stale; run go test ./resourcemodel -run TestAttributesPage -update", file)
	}
}

// What each attribute is at the share long of hpc; every row of the table has its line.
func TestAttributes(t *testing.T) {
	d := Derived{
		Now:         noon,
		Wait:        func(Place, *Need) (time.Duration, bool) { return 90 * time.Second, true },
		SuccessRate: func(Place) (float64, bool) { return 0.75, true },
		Performance: func(Place) (float64, bool) { return 1.5, true },
	}
	r, err := Compile(parse(t, posixBegin+"<posix:WallTimeLimit>7200</posix:WallTimeLimit>"+posixEnd,
		exact("TotalCPUCount", "4")+"<p:Placement><p:NotBefore>2031-03-01T12:05:00Z</p:NotBefore></p:Placement>"), Subject{})
	if err != nil {
		t.Fatal(err)
	}
	r.data = []string{"gsiftp://store.campus.example/a", "http://elsewhere.example/b"}
	site := hpc()
	site.Domain = "campus"
	site.Static.Shares[0].Default = true
	site.Static.Shares[0].Slots = 20
	e := &site.Static.Environments[0]
	e.VirtualMemory, e.Bandwidth = 80<<30, 1e10
	state := site.Dynamic.Shares["long"]
	state.Forecast = time.Minute
	site.Dynamic.Shares["long"] = state
	nodes := site.Dynamic.Environments["thin"]
	nodes.FreeGPUs = 3
	site.Dynamic.Environments["thin"] = nodes
	want := map[string]string{
		"Domain": "campus", "Site": "hpc", "Manager": "slurm", "Label": "campus", "Application": "blast", "ApplicationVersion:blast": "2.1",
		"Consumable:matlab": "5", "FreeConsumable:matlab": "2", "Up": "true",
		"Share": "long", "DefaultShare": "true", "MaxWallTime": "172800", "MaxCPUs": "16", "MaxNodes": "+Inf", "MaxMemory": "+Inf", "Slots": "20", "Price": "0.5",
		"Open": "true", "Running": "3", "Waiting": "2", "FreeSlots": "5", "Load": "0.25", "Forecast": "60",
		"Environment": "thin", "OperatingSystem": "LINUX", "OperatingSystemVersion": "6.1", "CPUArchitecture": "x86_64", "CPUs": "16", "CPUSpeed": "2.5e+09",
		"Memory": "6.8719476736e+10", "VirtualMemory": "8.589934592e+10", "Disk": "1.099511627776e+12", "Bandwidth": "1e+10", "GPUs": "3", "GPU:A100": "2",
		"Feature": "ib,avx", "HostName": "n1,n2,n3,n4", "FileSystem": "work", "Benchmark:hepspec": "12.5",
		"Nodes": "4", "AvailableNodes": "3", "FreeNodes": "1", "FreeCPUs": "24", "FreeMemory": "1.073741824e+11", "FreeGPUs": "3",
		"EstimatedWait": "90", "EstimatedStart": "300", "JobPrice": "4", "SuccessRate": "0.75", "DataDistance": "2", "Performance": "1.5",
	}
	var p at
	p.set(site.where("long"), r, &d)
	seen := map[string]bool{}
	for name, value := range want {
		a, argument := attributeOf(name)
		if a == nil {
			t.Errorf("%s is not in the table", name)
			continue
		}
		seen[a.Name] = true
		got, ok := "", false
		switch {
		case a.number != nil:
			var x float64
			x, ok = a.number(&p, argument)
			got = fmt.Sprint(x)
		case a.truth != nil:
			var b bool
			b, ok = a.truth(&p)
			got = fmt.Sprint(b)
		default:
			var list []string
			list, ok = a.text(&p, argument)
			got = strings.Join(list, ",")
		}
		if !ok || got != value {
			t.Errorf("%s is %s (known: %v), want %s", name, got, ok, value)
		}
		if (a.number != nil) != a.Type.number() || (a.truth != nil) != (a.Type == Boolean) {
			t.Errorf("%s is said to be of the type %s", name, a.Type)
		}
	}
	for _, a := range Attributes() {
		if !seen[a.Name] {
			t.Errorf("%s has no line in this test", a.Name)
		}
	}
}

// What nothing is known of is unknown, but for what is none or without limit.
func TestAttributesOfAnUnknownPlace(t *testing.T) {
	r, err := Compile(document(t, ""), Subject{})
	if err != nil {
		t.Fatal(err)
	}
	var p at
	p.set(Where{&Site{}, &Share{}, &Environment{}}, r, &Derived{})
	known := map[string]bool{
		"Domain": true, "DefaultShare": true, "MaxWallTime": true, "MaxCPUs": true, "MaxNodes": true, "MaxMemory": true, "Slots": true, "Price": true, "JobPrice": true,
		"GPUs": true, "GPU:": true, "Label": true, "Application": true, "ApplicationVersion:": true, "Feature": true, "HostName": true, "FileSystem": true,
	}
	for _, a := range Attributes() {
		var ok bool
		switch {
		case a.number != nil:
			_, ok = a.number(&p, "x")
		case a.truth != nil:
			_, ok = a.truth(&p)
		default:
			_, ok = a.text(&p, "x")
		}
		if ok != known[a.Name] {
			t.Errorf("%s is known: %v", a.Name, ok)
		}
	}
}

// Operators and types, and what is wrong with a criterion.
func TestCriteria(t *testing.T) {
	w := hpc().where("long")
	for _, c := range []struct {
		criterion string // name type operator value
		met       bool
		soft      float64
	}{
		{"FreeCPUs integer ge 24", true, 1},
		{"FreeCPUs integer gt 24", false, 0.99},
		{"FreeCPUs integer ge 48", false, 0.5},
		{"FreeCPUs integer le 12", false, 0.5},
		{"FreeCPUs integer lt 24.5", true, 1},
		{"FreeCPUs integer eq 24", true, 1},
		{"FreeCPUs integer eq 32", false, 0.75},
		{"FreeCPUs integer ne 24", false, 0},
		{"FreeCPUs integer in 8 24", true, 1},
		{"FreeCPUs integer in 12 6", false, 0.5},
		{"CPUSpeed decimal ge 5e9", false, 0.5},
		{"MaxWallTime duration ge P2D", true, 1},
		{"MaxWallTime duration ge P4D", false, 0.5},
		{"MaxNodes integer ge 1000000", true, 1},
		{"MaxNodes integer le 1000000", false, 0},
		{"OperatingSystem string eq LINUX", true, 1},
		{"OperatingSystem string ne LINUX", false, 0},
		{"OperatingSystem string in AIX LINUX", true, 1},
		{"OperatingSystem string contains INU", true, 1},
		{"OperatingSystem string matches LI.*", true, 1},
		{"OperatingSystem string matches INU", false, 0},
		{"Feature string eq ib", true, 1},
		{"Feature string contains av", false, 0},
		{"Feature string contains avx", true, 1},
		{"Feature string ne ib", false, 0},
		{"Feature string matches a.x", true, 1},
		{"Up boolean eq true", true, 1},
		{"Up boolean eq 0", false, 0},
		{"Up boolean ne false", true, 1},
		{"Benchmark:hepspec decimal ge 25", false, 0.5},
		{"Benchmark:other decimal ge 0", false, 0},
		{"Benchmark:other decimal ne 0", false, 0},
		{"GPU:k80 integer eq 0", true, 1},
	} {
		f := strings.SplitN(c.criterion, " ", 4)
		one := jsdl.Criterion{Name: f[0], Type: f[1], Operator: f[2], Value: f[3], Priority: 7}
		def := document(t, "")
		r, err := CompileWith(def, Subject{}, &jsdl.Criteria{List: []jsdl.Criterion{one}})
		if err != nil {
			t.Errorf("%s: %v", c.criterion, err)
			continue
		}
		if got := r.SoftScore([]Where{w}, Derived{})[0]; math.Abs(got-c.soft) > 1e-9 {
			t.Errorf("%s is satisfied by %g, want %g", c.criterion, got, c.soft)
		}
		one.Hard = true
		if r, err = CompileWith(def, Subject{}, &jsdl.Criteria{List: []jsdl.Criterion{one}}); err != nil {
			t.Fatal(err)
		}
		a, _ := attributeOf(one.Name)
		v := r.Judge(w.Site, w.Share, w.Environment, Derived{})
		if v.Now != c.met || v.Could != (c.met || a.Kind != StaticAttribute) {
			t.Errorf("%s: met %v, want %v: %+v", c.criterion, v.Now, c.met, v)
		}
		for _, said := range v.Clauses {
			if said.Element != "Criterion "+one.Name || said.Dynamic != (a.Kind != StaticAttribute) {
				t.Errorf("%s: %+v", c.criterion, said)
			}
		}
	}
	for criterion, want := range map[string]string{
		"Freecpus integer ge 1":            "did you mean FreeCPUs?",
		"Nonsense integer ge 1":            "docs/criteria.md",
		"Benchmark: integer ge 1":          "did you mean Benchmark:?",
		"FreeCPUs string eq 1":             "can't be compared",
		"Up integer eq 1":                  "can't be compared",
		"OperatingSystem string lt LINUX":  "needs an attribute that is a number",
		"FreeCPUs integer matches 1":       "needs an attribute that is a string",
		"FreeCPUs integer like 1":          "there is no operator",
		"FreeCPUs integer ge many":         "does not read as the type integer",
		"FreeCPUs integer max ":            "make it SOFT",
		"OperatingSystem string matches (": "no regular expression",
		"MaxWallTime duration ge P1Y":      "does not read as the type duration",
		"OperatingSystem string in ":       "a list of values",
	} {
		f := strings.SplitN(criterion, " ", 4)
		_, err := CompileWith(document(t, ""), Subject{}, &jsdl.Criteria{List: []jsdl.Criterion{{Name: f[0], Type: f[1], Operator: f[2], Value: f[3], Hard: true}}})
		if !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), want) {
			t.Errorf("%s: %v, want %q", criterion, err, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]float64{"PT0S": 0, "PT90S": 90, "PT1.5S": 1.5, "PT1H30M": 5400, "P1D": 86400, "P2DT1S": 172801, "-PT1M": -60} {
		if got, ok := parseDuration(s); !ok || got != want {
			t.Errorf("%s is %g (%v), want %g", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "P", "PT", "P1DT", "1H", "PT1", "P1Y", "P1M", "PT1H1H", "T1H", "PT1S ", "P1H", "PT1D"} {
		if got, ok := parseDuration(s); ok {
			t.Errorf("%q is %g", s, got)
		}
	}
}
