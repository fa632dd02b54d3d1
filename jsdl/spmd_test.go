package jsdl

import (
	"math"
	"math/big"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSPMDProgram(t *testing.T) {
	b, err := os.ReadFile("testdata/good_spmd.xml")
	if err != nil {
		t.Fatal(err)
	}
	j, ps := Parse(b, Options{})
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	user := "u"
	want := Program{
		Executable: Text{Value: "solver"}, Arguments: []Text{{Value: "-v"}}, Input: &Text{Value: "in", FileSystem: "HOME"}, Output: &Text{Value: "out"},
		Error: &Text{Value: "err"}, WorkingDirectory: &Text{Value: "w"}, Environment: []EnvironmentVariable{{Name: "E", Text: Text{Value: "v"}}}, UserName: &user,
		SPMD: &SPMD{ProcessesActual: true, ProcessesPerHost: 4, Threads: 2, Variation: VariationMPI},
	}
	if got := j.Program(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v with %+v\nwant %+v with %+v", got, got.SPMD, want, want.SPMD)
	}
	again, ps := Parse(j.Marshal(), Options{})
	if len(ps) > 0 || !reflect.DeepEqual(again.Program(), want) {
		t.Errorf("written and read again: %v\n%s", ps, j.Marshal())
	}
}

// GFD.115's numbers, each way in which they can stand.
func TestSPMDNumbers(t *testing.T) {
	four, huge := big.NewInt(4), new(big.Int).Lsh(big.NewInt(1), 99)
	for _, c := range []struct {
		give SPMDApplication
		want SPMD
	}{
		{SPMDApplication{}, SPMD{}},
		{SPMDApplication{NumberOfProcesses: &ProcessCount{}, ThreadsPerProcess: &ProcessCount{}}, SPMD{}},
		{SPMDApplication{NumberOfProcesses: &ProcessCount{Actual: true}, ThreadsPerProcess: &ProcessCount{Actual: true}}, SPMD{ProcessesActual: true, ThreadsActual: true}},
		{SPMDApplication{NumberOfProcesses: &ProcessCount{Value: four}, ThreadsPerProcess: &ProcessCount{Value: four}}, SPMD{Processes: 4, Threads: 4}},
		{SPMDApplication{NumberOfProcesses: &ProcessCount{Value: huge}, ProcessesPerHost: huge}, SPMD{Processes: math.MaxInt32, ProcessesPerHost: math.MaxInt32}},
	} {
		j := &JobDefinition{Description: JobDescription{Application: &Application{SPMD: &c.give}}}
		if got := *j.Program().SPMD; got != c.want {
			t.Errorf("%+v gives %+v, want %+v", c.give, got, c.want)
		}
	}
}

func TestVariations(t *testing.T) {
	list := Variations()
	if len(list) != 13 || len(slices.Compact(slices.Sorted(slices.Values(list)))) != 13 {
		t.Errorf("%d variations: %v", len(list), list)
	}
	for _, v := range list {
		if VariationName(v) == "" || !strings.HasSuffix(v, "/"+VariationName(v)) {
			t.Errorf("%s is named %q", v, VariationName(v))
		}
	}
	list[0] = ""
	if Variations()[0] != VariationMPI {
		t.Error("a caller changes the list of others")
	}
}
