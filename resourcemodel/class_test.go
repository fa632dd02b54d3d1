package resourcemodel

import (
	"math/rand/v2"
	"testing"
)

// Requests of one class get the same answers everywhere, whoever made them; what is
// compiled twice is of one class.
func TestClass(t *testing.T) {
	a, err := Compile(document(t, exact("TotalCPUCount", "4")), Subject{User: "ann", VO: "bio"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, resources string
		who             Subject
		same, sameUser  bool
	}{
		{"the same", exact("TotalCPUCount", "4"), Subject{User: "ann", VO: "bio"}, true, true},
		{"another user", exact("TotalCPUCount", "4"), Subject{User: "bob", VO: "bio"}, true, false},
		{"another VO", exact("TotalCPUCount", "4"), Subject{User: "ann", VO: "chem"}, false, false},
		{"another number", exact("TotalCPUCount", "5"), Subject{User: "ann", VO: "bio"}, false, false},
		{"another element", exact("IndividualCPUCount", "4"), Subject{User: "ann", VO: "bio"}, false, false},
		{"a priority is nothing to the place", exact("TotalCPUCount", "4") + "<p:Placement><p:Priority>5</p:Priority></p:Placement>", Subject{User: "ann", VO: "bio"}, true, true},
		{"a share is", exact("TotalCPUCount", "4") + "<p:Placement><p:Share>x</p:Share></p:Placement>", Subject{User: "ann", VO: "bio"}, false, false},
	} {
		b, err := Compile(document(t, c.resources), c.who)
		if err != nil {
			t.Fatal(err)
		}
		if (a.Class() == b.Class()) != c.same || (a.UserClass() == b.UserClass()) != c.sameUser {
			t.Errorf("%s: one class %v, with the user %v", c.name, a.Class() == b.Class(), a.UserClass() == b.UserClass())
		}
	}
}

func TestClassAnswersAlike(t *testing.T) {
	classes := map[Class]*Request{}
	met := 0
	for i := range 12_000 {
		c := chance{rand.New(rand.NewPCG(uint64(i%4000), 12))} // some twice
		def, who := c.definition(), c.subject()
		who.User = pick(chance{rand.New(rand.NewPCG(uint64(i), 13))}, "ann", "bob")
		r, err := Compile(def, who)
		if err != nil {
			continue
		}
		first, ok := classes[r.Class()]
		if !ok {
			classes[r.Class()] = r
			continue
		}
		met++
		for range 5 {
			w := c.place()
			d := Derived{Now: noon}
			if NamesUsers(w.Site) && r.UserClass() != first.UserClass() {
				continue
			}
			x, y := r.Judge(w.Site, w.Share, w.Environment, d), first.Judge(w.Site, w.Share, w.Environment, d)
			if x.Could != y.Could || x.Now != y.Now {
				t.Fatalf("seed %d: %+v and %+v of one class", i, x, y)
			}
		}
	}
	if met < 1000 {
		t.Errorf("only %d requests met one of their class", met)
	}
}
