package schedule

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// The short way to the number of jobs that could start gives what the long one does.
func TestFreeAtIsRoom(t *testing.T) {
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
		r, err := resourcemodel.Compile(def, resourcemodel.Subject{})
		if err != nil {
			continue // no number is in all of its ranges
		}
		d := resourcemodel.Derived{Now: noon}
		for range 20 {
			s := siteOf("a", rng.IntN(4), rng.IntN(12))
			s.Static.Environments[0].Memory = int64(rng.IntN(16)) << 20
			s.Static.Shares[0].Slots = rng.IntN(5)
			n := s.Dynamic.Environments["node"]
			n.Available, n.FreeCPUs, n.FreeMemory = rng.IntN(n.Nodes+1), rng.IntN(n.FreeCPUs+1), int64(rng.IntN(40))<<20
			n.FreeNodes = min(n.Available, rng.IntN(4))
			s.Dynamic.Environments["node"] = n
			s.Dynamic.Shares["all"] = resourcemodel.ShareState{Open: rng.IntN(9) > 0, FreeSlots: rng.IntN(5)}
			s.Dynamic.Up = rng.IntN(9) > 0
			w := resourcemodel.Where{Site: s, Share: &s.Static.Shares[0], Environment: &s.Static.Environments[0]}
			if fit := fitOf(r, w, d); (fit != never) != r.Fits(w, d) {
				t.Fatal("it fits and does not")
			} else if fit == never {
				continue
			} else if fit == simply {
				simple++
			}
			st := standingOf(w, 0)
			want, got := r.Room(w, d), fitOf(r, w, d).freeAt(r, w, &st, d)
			if got != want {
				t.Fatalf("%s\nneeds %+v\nat %+v\nstanding %+v: %d could start, not %d", def.Marshal(), r.Need, s.Static.Environments[0], s.Dynamic, want, got)
			}
			agreed++
			if got > 0 {
				short++
			}
		}
	}
	if agreed < 5000 || short < 1000 || simple < 1000 {
		t.Fatalf("only %d places were held against requests, and %d had room", agreed, short)
	}
	t.Logf("%d places, %d with room, %d the short way", agreed, short, simple)
}
