package resourcemodel

import (
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

func hard(name, kind, operator, value string) *jsdl.Criteria {
	return &jsdl.Criteria{List: []jsdl.Criterion{{Name: name, Type: kind, Operator: operator, Value: value, Hard: true}}}
}

func all(list ...Where) iter.Seq[Where] { return slices.Values(list) }

func TestNearest(t *testing.T) {
	for _, c := range []struct {
		name, application, resources string
		criteria                     *jsdl.Criteria
		who                          Subject
		now, fit                     string // sentences; "" is none
	}{
		{name: "takes it as it is"},
		{
			name: "fewer CPUs", resources: exact("TotalCPUCount", "64"),
			now: "it would start now on long at hpc if TotalCPUCount were 16 instead of 64",
			fit: "it would fit on long at hpc if TotalCPUCount were 16 instead of 64",
		},
		{
			name: "a bound keeps its shape", resources: atLeast("TotalCPUCount", "20"), who: Subject{VO: "bio"},
			now: "", fit: "",
		},
		{
			name: "fewer hosts", resources: exact("IndividualCPUCount", "8") + exact("TotalResourceCount", "3"),
			now: "it would start now on long at hpc if TotalResourceCount were 2 instead of 3",
			fit: "it would fit on long at hpc if TotalResourceCount were 2 instead of 3",
		},
		{
			name: "less memory in all", resources: atLeast("TotalPhysicalMemory", "137438953472"),
			now: "it would start now on long at hpc if TotalPhysicalMemory were at least 100 GiB instead of at least 128 GiB",
		},
		{
			name: "two things", resources: atLeast("IndividualPhysicalMemory", "137438953472") + exact("TotalCPUCount", "64"),
			now: "it would start now on long at hpc if TotalCPUCount were 16 instead of 64 and IndividualPhysicalMemory were at least 64 GiB instead of at least 128 GiB",
			fit: "it would fit on long at hpc if TotalCPUCount were 16 instead of 64 and IndividualPhysicalMemory were at least 64 GiB instead of at least 128 GiB",
		},
		{
			name: "less time", application: posixBegin + "<posix:WallTimeLimit>259200</posix:WallTimeLimit>" + posixEnd,
			now: "it would start now on long at hpc if WallTimeLimit were 48h instead of 72h",
			fit: "it would fit on long at hpc if WallTimeLimit were 48h instead of 72h",
		},
		{
			name: "earlier", resources: "<p:Placement><p:NotBefore>2031-03-01T13:00:00Z</p:NotBefore></p:Placement>",
			now: "it would start now on long at hpc if NotBefore were left out",
		},
		{
			name: "fewer licences", resources: `<p:Placement><p:Licence name="matlab">8</p:Licence></p:Placement>`,
			now: "it would start now on long at hpc if Licence matlab were 2 instead of 8",
			fit: "it would fit on long at hpc if Licence matlab were 5 instead of 8",
		},
		{
			name: "a criterion", criteria: hard("FreeCPUs", "integer", "ge", "100"),
			now: "it would start now on long at hpc if Criterion FreeCPUs were at least 24 instead of at least 100",
		},
		{
			name: "a criterion over what is not known", criteria: hard("Benchmark:linpack", "decimal", "ge", "100"),
			now: "it would start now on long at hpc if Criterion Benchmark:linpack were left out",
			fit: "it would fit on long at hpc if Criterion Benchmark:linpack were left out",
		},
		{
			name: "a system", resources: "<jsdl:OperatingSystem><jsdl:OperatingSystemType><jsdl:OperatingSystemName>AIX</jsdl:OperatingSystemName></jsdl:OperatingSystemType></jsdl:OperatingSystem>",
			now: `it would start now on long at hpc if OperatingSystemName were "LINUX" instead of "AIX"`,
			fit: `it would fit on long at hpc if OperatingSystemName were "LINUX" instead of "AIX"`,
		},
		{name: "no change gives an application", application: "<jsdl:Application><jsdl:ApplicationName>lammps</jsdl:ApplicationName></jsdl:Application>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.application == "" {
				c.application = posixBegin + posixEnd
			}
			r, err := CompileWith(parse(t, c.application, c.resources), c.who, c.criteria)
			if err != nil {
				t.Fatal(err)
			}
			site := hpc()
			for now, want := range map[bool]string{true: c.now, false: c.fit} {
				a, ok := Nearest(r, all(site.where("long"), site.where("bio")), Derived{Now: noon}, now)
				if a.Sentence != want || ok != (want != "") || a.Now != (ok && now) {
					t.Errorf("now %v: %q, want %q", now, a.Sentence, want)
				}
			}
		})
	}
}

// What Nearest says is true: the changed request is taken; and no other single element
// would do where it names two.
func TestNearestIsTaken(t *testing.T) {
	n := 8000
	if testing.Short() {
		n = 3000
	}
	var amended, several, none int
	for i := range n {
		c := chance{rand.New(rand.NewPCG(uint64(i), 9))}
		def := c.definition()
		var list []jsdl.Criterion
		for range c.IntN(3) {
			list = append(list, pick(c,
				jsdl.Criterion{Name: "FreeCPUs", Type: "integer", Operator: pick(c, "ge", "gt", "eq", "lt"), Value: pick(c, "1", "6"), Hard: true},
				jsdl.Criterion{Name: "CPUSpeed", Type: "decimal", Operator: pick(c, "ge", "in", "ne"), Value: pick(c, "3", "6"), Hard: true},
				jsdl.Criterion{Name: "OperatingSystem", Type: "string", Operator: pick(c, "eq", "matches", "contains"), Value: pick(c, "LINUX", "AIX"), Hard: true},
				jsdl.Criterion{Name: "EstimatedWait", Type: "duration", Operator: "lt", Value: "PT1M", Hard: true},
			))
		}
		var criteria *jsdl.Criteria
		if list != nil {
			criteria = &jsdl.Criteria{List: list}
		}
		r, err := CompileWith(def, c.subject(), criteria)
		if err != nil {
			continue
		}
		var places []Where
		for range 1 + c.IntN(4) {
			places = append(places, c.place())
		}
		d := Derived{Now: noon, Wait: func(Place, *Need) (time.Duration, bool) { return 90 * time.Second, true }}
		for _, now := range []bool{true, false} {
			takes := func(r *Request, w Where) bool {
				v := r.Judge(w.Site, w.Share, w.Environment, d)
				return now && v.Now || !now && v.Could
			}
			a, ok := Nearest(r, slices.Values(places), d, now)
			if slices.ContainsFunc(places, func(w Where) bool { return takes(r, w) }) {
				if ok {
					t.Fatalf("seed %d: a place takes it as it is, and still %q", i, a.Sentence)
				}
				continue
			}
			if !ok {
				none++
				continue
			}
			changed, err := r.Amend(a.Edits)
			if err != nil {
				t.Fatalf("seed %d: %s: %v", i, a.Sentence, err)
			}
			if _, problems := jsdl.Parse(changed.definition.Marshal(), jsdl.Options{}); problems.Err() != nil && faults(def) == 0 {
				t.Fatalf("seed %d: %s, which is no document: %v", i, a.Sentence, problems.Err())
			}
			if !slices.ContainsFunc(places, func(w Where) bool { return w.Place() == a.Place && takes(changed, w) }) {
				t.Fatalf("seed %d: %s, but it is not taken", i, a.Sentence)
			}
			amended++
			if len(a.Edits) > 1 {
				several++
				for _, e := range a.Edits { // none of them can be left out
					var less []Edit
					for _, o := range a.Edits {
						if o.Element != e.Element || o.nth != e.nth {
							less = append(less, o)
						}
					}
					fewer, err := r.Amend(less)
					if err == nil && slices.ContainsFunc(places, func(w Where) bool { return takes(fewer, w) }) {
						t.Fatalf("seed %d: %s, but %s need not change", i, a.Sentence, e.Element)
					}
				}
			}
			for _, e := range a.Edits {
				if e.Element == "" || e.From == "" || e.To == "" || e.From == e.To || e.amount < 0 {
					t.Fatalf("seed %d: %+v", i, e)
				}
			}
		}
	}
	t.Logf("%d amendments, %d of several elements; %d times no change helps", amended, several, none)
	if amended < n/10 || several < n/100 {
		t.Errorf("the questions are one-sided: %d amendments, %d of several elements", amended, several)
	}
}

// The change of a single number is the least that there is: tried one by one.
func TestNearestIsTheLeast(t *testing.T) {
	checked := 0
	for i := range 4000 {
		c := chance{rand.New(rand.NewPCG(uint64(i), 10))}
		def := c.definition()
		def.Description.Application.SPMD = nil
		r, err := Compile(def, Subject{})
		if err != nil {
			continue
		}
		w, d := c.place(), Derived{Now: noon}
		a, ok := Nearest(r, all(w), d, true)
		if !ok || len(a.Edits) != 1 {
			continue
		}
		// Any range of one number in the place of any range of the document.
		for p := range partProcesses {
			if !r.ask.given.has(p) {
				continue
			}
			for n := int64(0); n <= 40; n++ {
				far := 1e9
				for _, t := range r.ask.want[p] {
					far = min(far, distance(n, t))
				}
				if far >= a.Edits[0].amount-1e-12 {
					continue
				}
				other, err := r.Amend([]Edit{{Element: p.String(), apply: func(d *draft) {
					*rangeAt(&d.resources, p) = &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: float64(n)}}}
				}}})
				if err == nil && other.Starts(w, d) {
					t.Fatalf("seed %d: %s (by %g), but %s %d is nearer (%g)", i, a.Sentence, a.Edits[0].amount, p, n, far)
				}
			}
			checked++
		}
	}
	if checked < 200 {
		t.Errorf("only %d ranges were tried", checked)
	}
}

func TestWaitsFor(t *testing.T) {
	site := hpc()
	judge := func(resources string, who Subject, change func(*Site)) string {
		t.Helper()
		r, err := Compile(document(t, resources), who)
		if err != nil {
			t.Fatal(err)
		}
		s := site
		if change != nil {
			s = hpc()
			change(s)
		}
		var verdicts []Verdict
		for _, share := range []string{"long", "bio"} {
			w := s.where(share)
			verdicts = append(verdicts, r.Judge(w.Site, w.Share, w.Environment, Derived{Now: noon}))
		}
		return WaitsFor(r, verdicts)
	}
	for _, c := range []struct{ got, want string }{
		{judge("", Subject{}, nil), "it waits for its turn: long at hpc could start it now"},
		{judge(exact("TotalResourceCount", "4"), Subject{}, nil), "it waits for the one place that could run it, long at hpc: TotalResourceCount asks for 4, and of the 4 nodes of the environment thin 3 can take jobs at present"},
		{
			judge("", Subject{VO: "bio"}, func(s *Site) { s.Dynamic.Up, s.Dynamic.Problem = false, "the controller does not answer" }),
			"it waits for one of 2 places that could run it; at the nearest, long at hpc, the site hpc takes no jobs at present: the controller does not answer",
		},
		{judge("<p:Placement><p:NotBefore>2031-03-01T13:00:00Z</p:NotBefore></p:Placement>", Subject{}, nil), "it waits until 2031-03-01T13:00:00Z, before which it must not start"},
		{judge(exact("TotalCPUCount", "640"), Subject{}, nil), "none of the 2 places could ever run it as it is; at the nearest, long at hpc, TotalCPUCount asks for 640, and the share long allows 16"},
		{WaitsFor(nil, nil), "the gateway knows of no place where jobs run"},
	} {
		if c.got != c.want || strings.Contains(c.got, "\n") {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
