package resourcemodel

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// What an Index says of one place, by short ways where there are such, is what the request
// says of it as it stands without what was taken.
func TestIndexRoomIsRoom(t *testing.T) {
	noon := time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC)
	rng := rand.New(rand.NewPCG(11, 11))
	parts := func() string {
		s := ""
		add := func(element string, unit int) {
			n := (1 + rng.IntN(12)) * unit
			form := []string{
				fmt.Sprintf("<jsdl:LowerBoundedRange>%d</jsdl:LowerBoundedRange>", n),
				fmt.Sprintf("<jsdl:Exact>%d</jsdl:Exact>", n),
				fmt.Sprintf("<jsdl:UpperBoundedRange>%d</jsdl:UpperBoundedRange>", n),
				fmt.Sprintf("<jsdl:Exact>%d</jsdl:Exact><jsdl:Exact>%d</jsdl:Exact>", n, n+2*unit),
				fmt.Sprintf("<jsdl:Range><jsdl:LowerBound>%d</jsdl:LowerBound><jsdl:UpperBound>%d</jsdl:UpperBound></jsdl:Range>", n, n+4*unit),
			}[rng.IntN(5)]
			s += "<jsdl:" + element + ">" + form + "</jsdl:" + element + ">"
		}
		for _, e := range []struct {
			name string
			unit int
		}{
			{"IndividualCPUCount", 1},
			{"IndividualPhysicalMemory", 1 << 20},
			{"TotalCPUCount", 1},
			{"TotalPhysicalMemory", 1 << 20},
			{"TotalResourceCount", 1},
		} {
			if rng.IntN(3) == 0 {
				add(e.name, e.unit)
			}
		}
		if rng.IntN(6) == 0 {
			s = "<jsdl:ExclusiveExecution>true</jsdl:ExclusiveExecution>" + s
		}
		return s
	}
	short, agreed, simple := 0, 0, 0
	for range 4000 {
		def, problems := jsdl.Parse([]byte(`<jsdl:JobDefinition xmlns:jsdl="`+jsdl.NS+`" xmlns:posix="`+jsdl.NSPOSIX+`"><jsdl:JobDescription>`+
			`<jsdl:Application><posix:POSIXApplication><posix:Executable>/bin/true</posix:Executable></posix:POSIXApplication></jsdl:Application>`+
			`<jsdl:Resources>`+parts()+`</jsdl:Resources></jsdl:JobDescription></jsdl:JobDefinition>`), jsdl.Options{})
		if problems.Err() != nil {
			continue
		}
		r, err := Compile(def, Subject{})
		if err != nil {
			continue // no number is in all of its ranges
		}
		d := Derived{Now: noon}
		key := Key{Site: "a"}
		x := NewIndex(Empty())
		for revision := range int64(20) {
			nodes, cpus := rng.IntN(4), rng.IntN(12)
			n := EnvironmentState{Nodes: nodes, Available: rng.IntN(nodes + 1), FreeCPUs: rng.IntN(nodes*cpus + 1), FreeMemory: int64(rng.IntN(40)) << 20}
			n.FreeNodes = min(n.Available, rng.IntN(4))
			stamp := Stamp{Version: uint64(revision) + 1, Changed: noon, Source: "test"}
			_, err := x.Apply(Delta{Revision: revision + 1, At: noon, Changes: []Change{{
				Key: key,
				Static: &Static{
					Stamp: stamp, Type: "fake", Shares: []Share{{ID: "all", Environments: []string{"node"}, Slots: rng.IntN(5)}},
					Environments: []Environment{{ID: "node", CPUs: cpus, Memory: int64(rng.IntN(16)) << 20}},
				},
				Dynamic: &Dynamic{
					Stamp: stamp, Up: rng.IntN(9) > 0, Environments: map[string]EnvironmentState{"node": n},
					Shares: map[string]ShareState{"all": {Open: rng.IntN(9) > 0, FreeSlots: rng.IntN(5)}},
				},
			}}})
			if err != nil {
				t.Fatal(err)
			}
			id, _ := x.Find(Place{key, "all", "node"})
			for range rng.IntN(3) {
				x.Take(nil, id, &Need{Slots: 1, CPUs: rng.IntN(3), Memory: int64(rng.IntN(3)) << 20})
			}
			w, fits := x.Where(id), x.Fits(id, r, d)
			want, got := r.Room(w, d), x.Room(id, r, d)
			s := x.Standing(id)
			switch {
			case fits != r.Fits(w, d):
				t.Fatal("it fits and does not")
			case got != want || x.Starts(id, r, d) != (want > 0):
				t.Fatalf("%s\nneeds %+v\nat %+v\nstanding %+v: %d could start, not %d", def.Marshal(), r.Need, w.Environment, w.Site.Dynamic, want, got)
			case s.State.FreeSlots != w.Site.Dynamic.Shares["all"].FreeSlots || s.Nodes != w.Site.Dynamic.Environments["node"]:
				t.Fatalf("it stands as %+v, and is %+v", s, w.Site.Dynamic)
			case x.Exhausted(key) && want > 0:
				t.Fatal("it is exhausted, and has room")
			}
			if !fits {
				continue
			}
			agreed++
			if got > 0 {
				short++
			}
			if _, ok := x.simply(id, x.of(r), r); ok {
				simple++
			}
		}
	}
	if agreed < 5000 || short < 1000 || simple < 1000 {
		t.Fatalf("only %d places were held against requests, %d had room, %d the short way", agreed, short, simple)
	}
	t.Logf("%d places, %d with room, %d the short way", agreed, short, simple)
}
