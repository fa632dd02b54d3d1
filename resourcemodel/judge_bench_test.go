package resourcemodel

import (
	"slices"
	"testing"

	"github.com/portolan-project/portolan/jsdl"
)

func benchRequest(b *testing.B) *Request {
	b.Helper()
	criteria := &jsdl.Criteria{List: []jsdl.Criterion{
		{Name: "CPUSpeed", Type: "decimal", Operator: "ge", Value: "1e9", Hard: true},
		{Name: "Price", Type: "decimal", Operator: "min", Priority: 100},
		{Name: "FreeCPUs", Type: "integer", Operator: "max", Priority: 50},
	}}
	r, err := CompileWith(document(b, atLeast("IndividualPhysicalMemory", "1073741824")+exact("TotalCPUCount", "8")), Subject{User: "ann"}, criteria)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func BenchmarkCompile(b *testing.B) {
	def := document(b, atLeast("IndividualPhysicalMemory", "1073741824")+exact("TotalCPUCount", "8"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(def, Subject{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStarts(b *testing.B) {
	r, w, d := benchRequest(b), hpc().where("long"), Derived{Now: noon}
	b.ReportAllocs()
	for b.Loop() {
		if !r.Starts(w, d) {
			b.Fatal("it does not start")
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	r, w, d := benchRequest(b), hpc().where("bio"), Derived{Now: noon}
	b.ReportAllocs()
	for b.Loop() {
		if v := r.Judge(w.Site, w.Share, w.Environment, d); v.Could {
			b.Fatal("it could run")
		}
	}
}

func BenchmarkSoftScore(b *testing.B) {
	r, d := benchRequest(b), Derived{Now: noon}
	places := slices.Repeat(three(), 100)
	b.ReportAllocs()
	for b.Loop() {
		if s := r.SoftScore(places, d); len(s) != len(places) {
			b.Fatal("scores are missing")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(places)), "ns/place")
}

func BenchmarkNearest(b *testing.B) {
	r, err := Compile(document(b, atLeast("IndividualPhysicalMemory", "137438953472")+exact("TotalCPUCount", "64")), Subject{})
	if err != nil {
		b.Fatal(err)
	}
	places, d := slices.Values(slices.Repeat(three(), 1000)), Derived{Now: noon}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Nearest(r, places, d, true); !ok {
			b.Fatal("there is none")
		}
	}
}
