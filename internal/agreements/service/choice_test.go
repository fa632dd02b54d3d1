package service

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// booking is a term of a service of its own: a CPU, at a place if that is said.
func booking(name, site string, cpus int, from, until time.Time) agreement.Term {
	place := ""
	if site != "" {
		place = "<p:Site>" + site + "</p:Site><p:Share>fake</p:Share>"
	}
	content := fmt.Sprintf("<p:Capacity%s>%s<p:CPUs>%d</p:CPUs><p:StartTime>%s</p:StartTime><p:EndTime>%s</p:EndTime></p:Capacity>", pns, place, cpus, at(from), at(until))
	doc, err := xmldoc.ReadBytes([]byte(content), xmldoc.Limits{})
	if err != nil {
		panic(err)
	}
	return &agreement.ServiceDescription{Name: name, ServiceName: "of " + name, Description: doc.Root()}
}

// bookings are five, which may be at either of two sites: in 32 ways.
func bookings(name, site string, from time.Time) *agreement.Compositor {
	c := &agreement.Compositor{Kind: agreement.All}
	for i := range 5 {
		c.Terms = append(c.Terms, booking(fmt.Sprint(name, i), site, 1, from, from.Add(time.Hour)))
	}
	return c
}

func two(slots int) []site {
	return []site{{name: "here", world: fake.NewWorld(slots)}, {name: "there", world: fake.NewWorld(slots)}}
}

// choosing is an offer of a CPU for the tenth hour, and of one of the bookings.
func (g *gateway) choosing(kind agreement.Composition, branches ...agreement.Term) offering {
	now := time.Now()
	first := booking("capacity", "", 1, now.Add(10*time.Hour), now.Add(11*time.Hour)).(*agreement.ServiceDescription)
	o := g.by("ada", "capacity").say("capacity", string(xmldoc.Marshal(first.Description)))
	o.Terms.Terms = append(slices.Clone(o.Terms.Terms), &agreement.Compositor{Kind: kind, Terms: branches})
	return o
}

// Where the first branch of a choice could be had in as many ways as are tried, and there is no room for it
// in any of them, the next is tried all the same.
func TestLaterBranchesAreTried(t *testing.T) {
	alone(t, two(8), func(t *testing.T, g *gateway) {
		now := time.Now()
		for _, s := range []string{"here", "there"} {
			o := g.by("ada", "capacity@"+s+"/fake").say("capacity", string(xmldoc.Marshal(booking("x", s, 8, now.Add(time.Hour), now.Add(2*time.Hour)).(*agreement.ServiceDescription).Description)))
			g.must("ada", o)
		}
		early, late := bookings("early", "", now.Add(time.Hour)), bookings("late", "", now.Add(5*time.Hour))
		_, err := g.offer("ada", g.choosing(agreement.ExactlyOne, early))
		if r := refusal(t, err, agreement.NoCapacity); strings.Contains(r.Error(), "choices of terms") {
			t.Errorf("%s", r)
		}
		key := g.must("ada", g.choosing(agreement.ExactlyOne, early, late))
		p := g.properties("ada", key)
		if p.Term("late0") == nil || p.Term("early0") != nil {
			t.Errorf("%+v", p.Terms)
		}
		if err := g.Terminate(as1("ada"), key, nil); err != nil {
			t.Error(err)
		}
		// Of more choices than are looked at it is said that there are more.
		var hopeless []agreement.Term
		for i := range maxChoices + 1 {
			hopeless = append(hopeless, booking(fmt.Sprint("early", i), "", 8, now.Add(time.Hour), now.Add(2*time.Hour)))
		}
		_, err = g.offer("ada", g.choosing(agreement.ExactlyOne, hopeless...))
		if r := refusal(t, err, agreement.NoCapacity); !strings.Contains(r.Error(), "more choices of terms than the 16") {
			t.Errorf("%s", r)
		}
		_, err = g.offer("ada", g.choosing(agreement.ExactlyOne, hopeless[1:]...))
		if r := refusal(t, err, agreement.NoCapacity); strings.Contains(r.Error(), "choices of terms") {
			t.Errorf("%s", r)
		}
		for i := range hopeless { // what is no refusal of ours, too
			hopeless[i] = booking(fmt.Sprint("past", i), "", 8, now.Add(-3*time.Hour), now.Add(-2*time.Hour))
		}
		if _, err = g.offer("ada", g.choosing(agreement.ExactlyOne, hopeless...)); err == nil || !strings.Contains(err.Error(), "more choices of terms than the 16") {
			t.Errorf("%v", err)
		}
	}, whole)
}

// Each branch has a fair part of the plans that are tried, in the order of its usefulness; what one leaves
// of its part is for the others.
func TestBranchesShareThePlans(t *testing.T) {
	alone(t, two(8), func(t *testing.T, g *gateway) {
		now := time.Now()
		few := bookings("few", "here", now.Add(3*time.Hour)) // two ways: the first booking is anywhere
		for name, c := range map[string]struct {
			branches []agreement.Term
			want     []int
		}{
			"one":                 {[]agreement.Term{bookings("a", "", now.Add(time.Hour))}, []int{32}},
			"two":                 {[]agreement.Term{bookings("a", "", now.Add(time.Hour)), bookings("b", "", now.Add(2*time.Hour))}, []int{16, 16}},
			"three":               {[]agreement.Term{bookings("a", "", now.Add(time.Hour)), bookings("b", "", now.Add(2*time.Hour)), bookings("c", "", now.Add(3*time.Hour))}, []int{11, 11, 10}},
			"the first has few":   {[]agreement.Term{few, bookings("b", "", now.Add(2*time.Hour))}, []int{2, 30}},
			"the last has few":    {[]agreement.Term{bookings("a", "", now.Add(time.Hour)), few}, []int{30, 2}},
			"one can't be":        {[]agreement.Term{bookings("a", "moon", now.Add(time.Hour)), bookings("b", "", now.Add(2*time.Hour))}, []int{32}},
			"few are all of them": {[]agreement.Term{few}, []int{2}},
		} {
			doc := xmldoc.Marshal(g.choosing(agreement.ExactlyOne, c.branches...).Encode())
			o, err := agreement.ParseOffer(doc)
			if err != nil {
				t.Fatal(err)
			}
			p, err := g.prepare(as1("ada"), "test", &agreement.CreateRequest{Offer: *o, Received: doc})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var of []*terms.Request
			var got []int
			for i := range p.plans {
				if len(of) == 0 || of[len(of)-1] != p.plans[i].request {
					of, got = append(of, p.plans[i].request), append(got, 0)
				}
				got[len(got)-1]++
				if e, err := p.plans[i].plan.Engine(); err != nil || string(e.Services) != string(p.proposal.Alternatives[i].Services) || e.Name != p.proposal.Alternatives[i].Name {
					t.Fatalf("%s: the plan %d is another alternative", name, i)
				}
			}
			if !slices.Equal(got, c.want) || len(p.proposal.Alternatives) != len(p.plans) || len(p.plans) > engine.MaxAlternatives {
				t.Errorf("%s: %v of %d, want %v", name, got, len(p.plans), c.want)
			}
			for i := 1; i < len(of); i++ {
				if !of[i].Window.Start.After(of[i-1].Window.Start) && name != "the first has few" {
					t.Errorf("%s: the %d. is at %s", name, i, of[i].Window.Start)
				}
			}
		}
	}, whole)
}

// An initiator takes one branch of a template's choice itself; the limits of the other are nothing to it.
func TestABranchIsTaken(t *testing.T) {
	const term = `<w:ServiceDescriptionTerm w:Name="%s" w:ServiceName="run">%s</w:ServiceDescriptionTerm>`
	item := func(name string) string {
		return fmt.Sprintf(`<w:Item w:Name="%[1]s"><w:Location>/w:AgreementOffer/w:Terms/w:All//w:ServiceDescriptionTerm[@w:Name='%[1]s']/*</w:Location><w:ItemConstraint><xs:maxInclusive value="2000-01-01T06:00:00Z"/></w:ItemConstraint></w:Item>`, name)
	}
	long := time.Date(2000, 1, 1, 5, 0, 0, 0, time.UTC) // where the time of the bubble begins
	list, err := terms.Load(map[string][]byte{"nightly.xml": []byte(`<w:Template xmlns:w="` + agreement.NS + `" xmlns:xs="http://www.w3.org/2001/XMLSchema" w:TemplateId="1"><w:Name>nightly</w:Name>
 <w:Context><w:ServiceProvider>AgreementResponder</w:ServiceProvider></w:Context>
 <w:Terms><w:All>` + fmt.Sprintf(term, "job", job("sleep 60", time.Hour, 1)) + `<w:ExactlyOne>` + fmt.Sprintf(term, "end", finishBy(long)) + fmt.Sprintf(term, "begin", startBy(long)) + `</w:ExactlyOne></w:All></w:Terms>
 <w:CreationConstraints>` + item("end") + item("begin") + `</w:CreationConstraints></w:Template>`)})
	if err != nil {
		t.Fatal(err)
	}
	alone(t, one(4), func(t *testing.T, g *gateway) {
		now := time.Now()
		of := func(names ...string) offering {
			o := g.by("ada", "nightly")
			var kept []agreement.Term
			for _, n := range names {
				kept = append(kept, o.Term(n))
			}
			o.Terms = &agreement.Compositor{Kind: agreement.All, Terms: kept}
			o.Element = nil
			return o
		}
		for names, kind := range map[[2]string]terms.Kind{{"job", "end"}: terms.FinishBy, {"job", "begin"}: terms.StartBy} {
			key := g.must("ada", of(names[:]...))
			if r := g.record(key); !strings.Contains(string(r.Plan.Detail), string(kind)) {
				t.Errorf("%v: %s", names, r.Plan.Detail)
			}
		}
		_, err := g.offer("ada", of("job", "begin").say("begin", startBy(now.Add(8*time.Hour))))
		refusal(t, err, agreement.NotCompliant)
		_, err = g.offer("ada", of("job"))
		refusal(t, err, agreement.NotCompliant)
		_, err = g.offer("ada", of("job", "begin").say("begin", finishBy(now.Add(8*time.Hour)))) // a limit is one of what stands there
		refusal(t, err, agreement.NotCompliant)
	}, whole, func(_ *broker.Config, o *Options) { o.Own = list })
}
