package terms

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

func pool(t testing.TB, pools []calendar.Pool, id string) calendar.Amount {
	t.Helper()
	for _, p := range pools {
		if p.ID == id {
			return p.Capacity
		}
	}
	t.Fatalf("there is no pool %s in %+v", id, pools)
	return calendar.Amount{}
}

func TestPools(t *testing.T) {
	pools := Pools(model(t, slurm(), condor(), mixed(), cluster{name: "north", domain: "north", shares: slurm().shares, nodes: slurm().nodes}), Settings{})
	for id, want := range map[string]calendar.Amount{
		"slurm/batch":    {Slots: 64, CPUs: 64, Nodes: 8},
		"condor/default": {Slots: 40, CPUs: 40},
		"mixed/long":     {Slots: 134, CPUs: 134, Nodes: 9}, // of 168 CPUs of 12 nodes
		"mixed/short":    {Slots: 32, CPUs: 32, Nodes: 8},
		"mixed//small":   {CPUs: 32, Nodes: 8},
		"mixed//large":   {CPUs: 102, Nodes: 1},
	} {
		if got := pool(t, pools, id); got != want {
			t.Errorf("%s has %+v, want %+v", id, got, want)
		}
	}
	if len(pools) != 6 {
		t.Errorf("%+v", pools)
	}
	for name, c := range map[string]struct {
		change func(*cluster)
		s      Settings
		want   calendar.Amount
	}{
		"all of it":    {func(*cluster) {}, Settings{Promise: 100}, calendar.Amount{Slots: 80, CPUs: 80, Nodes: 10}},
		"little of it": {func(*cluster) {}, Settings{Promise: 1}, calendar.Amount{}},
		"fewer slots":  {func(c *cluster) { c.shares[0].Slots = 10 }, Settings{}, calendar.Amount{Slots: 8, CPUs: 8, Nodes: 8}},
		"more slots":   {func(c *cluster) { c.shares[0].Slots = 1000 }, Settings{}, calendar.Amount{Slots: 64, CPUs: 64, Nodes: 8}},
		"no slots":     {func(c *cluster) { c.shares[0].Slots = 0 }, Settings{}, calendar.Amount{Slots: 64, CPUs: 64, Nodes: 8}},
		"drained":      {func(c *cluster) { c.nodes[0].available = 5 }, Settings{}, calendar.Amount{Slots: 32, CPUs: 32, Nodes: 4}},
		"down":         {func(c *cluster) { c.down = true }, Settings{}, calendar.Amount{}},
		"closed":       {func(c *cluster) { c.closed = []string{"batch"} }, Settings{}, calendar.Amount{}},
		"unknown":      {func(c *cluster) { c.nodes[0].available = -1 }, Settings{}, calendar.Amount{}},
	} {
		site := slurm()
		c.change(&site)
		if got := pool(t, Pools(model(t, site), c.s), "slurm/batch"); got.Slots > got.CPUs || got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if a, b := PoolID("a/b", "c"), PoolID("a", "b/c"); a == b {
		t.Error("two pools have one id")
	}
	long := strings.Repeat("é", 128)
	if a, b := PoolID(long, long+"x"), PoolID(long, long+"y"); a == b || len(a) > calendar.MaxID {
		t.Errorf("%q (%d bytes) and %q", a, len(a), b)
	}
}

func plans(t testing.TB, m *resourcemodel.Snapshot, terms ...string) []Plan {
	t.Helper()
	q := asked(t, terms...)
	list, err := Plans(q, m, bio, noon, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	sound(t, q, list)
	return list
}

func describe(list []Plan) string {
	var b strings.Builder
	for _, p := range list {
		fmt.Fprintf(&b, "%s %d", p.Name, p.Price)
		if !p.StartBy.IsZero() {
			fmt.Fprintf(&b, " by +%s", p.StartBy.Sub(noon))
		}
		for _, h := range p.Holds {
			fmt.Fprintf(&b, "; %s %d/%d/%d +%s +%s", h.Pool, h.Slots, h.CPUs, h.Nodes, h.From.Sub(noon), h.Until.Sub(noon))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestPlans(t *testing.T) {
	w := sdt("w", window(hours, 2*hours))
	placement := func(inner string) string {
		return `<q:Placement xmlns:q="` + jsdl.NSPortolan + `">` + inner + `</q:Placement>`
	}
	each := func(hosts, cpus int) string {
		return fmt.Sprintf("<j:IndividualCPUCount><j:Exact>%d</j:Exact></j:IndividualCPUCount><j:TotalResourceCount><j:Exact>%d</j:Exact></j:TotalResourceCount>", cpus, hosts)
	}
	capacity := func(inner string) string {
		return sdt("c", "<p:Capacity>"+inner+"<p:StartTime>"+at(hours)+"</p:StartTime><p:EndTime>"+at(2*hours)+"</p:EndTime></p:Capacity>")
	}
	at := func(site, share string) string {
		return sdt("at", "<p:Place><p:Site>"+site+"</p:Site><p:Share>"+share+"</p:Share></p:Place>")
	}
	for name, c := range map[string]struct {
		terms []string
		want  string
	}{
		"best effort": {[]string{sdt("job", job("x", 3600, cpus(4)))}, "anywhere 1000\n"},
		"best effort at a place": {
			[]string{sdt("job", job("x", 3600, cpus(4))), at("condor", "default")},
			"condor/default 0\n",
		},
		"the cheapest first": {
			[]string{sdt("job", job("x", 600, cpus(4))), w},
			"condor/default 0; condor/default 1/4/0 +1h0m0s +2h0m0s\n" +
				"mixed/long 0; mixed/long 1/4/0 +1h0m0s +2h0m0s; mixed//small 0/4/0 +1h0m0s +2h0m0s\n" +
				"mixed/long 0; mixed/long 1/4/0 +1h0m0s +2h0m0s; mixed//large 0/4/0 +1h0m0s +2h0m0s\n" +
				"mixed/short 0; mixed/short 1/4/0 +1h0m0s +2h0m0s; mixed//small 0/4/0 +1h0m0s +2h0m0s\n" +
				"slurm/batch 1000; slurm/batch 1/4/0 +1h0m0s +2h0m0s\n",
		},
		"start by": {
			[]string{sdt("job", job("x", 1800, cpus(4))), at("slurm", "batch"), sdt("by", "<p:StartBy>"+moment(noon.Add(3*hours))+"</p:StartBy>")},
			"slurm/batch 500 by +3h0m0s; slurm/batch 1/4/0 +0s +30m0s\n",
		},
		"finish by": {
			[]string{sdt("job", job("x", 1800, cpus(4))), at("slurm", "batch"), sdt("by", "<p:FinishBy>"+moment(noon.Add(3*hours))+"</p:FinishBy>")},
			"slurm/batch 500 by +2h30m0s; slurm/batch 1/4/0 +0s +30m0s\n",
		},
		"finish by, just": {
			[]string{sdt("job", job("x", 1800, cpus(4))), at("slurm", "batch"), sdt("by", "<p:FinishBy>"+moment(noon.Add(hours/2))+"</p:FinishBy>")},
			"slurm/batch 500; slurm/batch 1/4/0 +0s +30m0s\n",
		},
		"not before": {
			[]string{sdt("job", job("x", 1800, cpus(4)+placement("<q:NotBefore>"+moment(noon.Add(hours))+"</q:NotBefore>"))), at("slurm", "batch"), sdt("by", "<p:FinishBy>"+moment(noon.Add(3*hours))+"</p:FinishBy>")},
			"slurm/batch 500 by +2h30m0s; slurm/batch 1/4/0 +1h0m0s +1h30m0s\n",
		},
		"whole nodes for a shape": {
			[]string{sdt("job", job("x", 600, each(3, 5))), w, at("slurm", "batch")},
			"slurm/batch 6000; slurm/batch 1/24/3 +1h0m0s +2h0m0s\n",
		},
		"whole nodes alone": {
			[]string{sdt("job", job("x", 600, "<j:ExclusiveExecution>true</j:ExclusiveExecution>"+cpus(9))), w, at("slurm", "batch")},
			"slurm/batch 4000; slurm/batch 1/16/2 +1h0m0s +2h0m0s\n",
		},
		"whole nodes for devices": {
			[]string{sdt("job", job("x", 600, placement("<q:GPU>1</q:GPU>"))), w, at("mixed", "long")},
			"mixed/long 0; mixed/long 1/64/1 +1h0m0s +2h0m0s; mixed//large 0/64/1 +1h0m0s +2h0m0s\n",
		},
		"CPUs for memory": {
			[]string{sdt("job", job("x", 600, "<j:TotalPhysicalMemory><j:LowerBoundedRange>17179869184</j:LowerBoundedRange></j:TotalPhysicalMemory>")), w, at("slurm", "batch")},
			"slurm/batch 1000; slurm/batch 1/4/0 +1h0m0s +2h0m0s\n",
		},
		"the price that is given": {
			[]string{sdt("job", job("x", 600, "")), w, sdt("price", "<p:Price>0.1</p:Price>"), sdt("at", "<p:Place><p:Site>condor</p:Site></p:Place>")},
			"condor/default 0; condor/default 1/1/0 +1h0m0s +2h0m0s\n",
		},
		"capacity": {
			[]string{capacity("<p:Site>slurm</p:Site><p:CPUs>64</p:CPUs>")},
			"slurm/batch 16000; slurm/batch 0/64/0 +1h0m0s +2h0m0s\n",
		},
		"capacity in nodes": {
			[]string{capacity("<p:Site>slurm</p:Site><p:Nodes>8</p:Nodes>")},
			"slurm/batch 16000; slurm/batch 0/64/8 +1h0m0s +2h0m0s\n",
		},
		"capacity in slots": {
			[]string{capacity("<p:Site>condor</p:Site><p:Share>default</p:Share><p:Slots>40</p:Slots>")},
			"condor/default 0; condor/default 40/40/0 +1h0m0s +2h0m0s\n",
		},
		"two together": {
			[]string{
				sdtOf("a", "ja", job("x", 600, cpus(4))), sdtOf("a", "wa", window(hours, 2*hours)), sdtOf("a", "pa", "<p:Place><p:Site>slurm</p:Site></p:Place>"),
				sdtOf("b", "jb", job("y", 600, cpus(2))), sdtOf("b", "wb", window(hours, 3*hours)), sdtOf("b", "pb", "<p:Place><p:Site>condor</p:Site></p:Place>"),
			},
			"slurm/batch + condor/default 1000; slurm/batch 1/4/0 +1h0m0s +2h0m0s; condor/default 1/2/0 +1h0m0s +3h0m0s\n",
		},
		"two put off together": {
			[]string{
				sdtOf("a", "ja", job("x", 1800, "")), sdtOf("a", "sa", "<p:StartBy>"+moment(noon.Add(2*hours))+"</p:StartBy>"), sdtOf("a", "pa", "<p:Place><p:Site>slurm</p:Site></p:Place>"),
				sdtOf("b", "jb", job("y", 1800, placement("<q:NotBefore>"+moment(noon.Add(hours))+"</q:NotBefore>"))), sdtOf("b", "sb", "<p:StartBy>"+moment(noon.Add(90*time.Minute))+"</p:StartBy>"), sdtOf("b", "pb", "<p:Place><p:Site>slurm</p:Site></p:Place>"),
			},
			"slurm/batch + slurm/batch 250 by +30m0s; slurm/batch 1/1/0 +0s +30m0s; slurm/batch 1/1/0 +1h0m0s +1h30m0s\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := describe(plans(t, model(t, slurm(), condor(), mixed()), c.terms...)); got != c.want {
				t.Errorf("planned\n%swant\n%s", got, c.want)
			}
		})
	}
}

func TestPlansRefused(t *testing.T) {
	w := sdt("w", window(hours, 2*hours))
	slurmAlone := sdt("at", "<p:Place><p:Site>slurm</p:Site></p:Place>")
	for name, c := range map[string]struct {
		terms []string
		kind  fail.Kind
		says  []string
	}{
		"too many CPUs": {[]string{sdt("job", job("x", 600, cpus(65))), w, slurmAlone}, fail.Exhausted, []string{"slurm/batch", "65 CPUs", "64 CPUs"}},
		"never":         {[]string{sdt("job", job("x", 600, cpus(89))), w, slurmAlone}, fail.Exhausted, []string{"slurm/batch", "TotalCPUCount"}},
		"too long":      {[]string{sdt("job", job("x", 49*3600, "")), sdt("f", "<p:FinishBy>"+at(100*hours)+"</p:FinishBy>"), slurmAlone}, fail.Exhausted, []string{"slurm/batch"}},
		"too cheap":     {[]string{sdt("job", job("x", 600, "")), w, slurmAlone, sdt("price", "<p:Price>0.249</p:Price>")}, fail.Exhausted, []string{"0.25", "0.249"}},
		"no such site":  {[]string{sdt("job", job("x", 600, "")), w, sdt("at", "<p:Place><p:Site>north</p:Site></p:Place>")}, fail.Exhausted, []string{"north", "no such place"}},
		"no time limit": {[]string{sdt("job", job("x", 0, "")), sdt("s", "<p:StartBy>"+at(hours)+"</p:StartBy>")}, fail.Invalid, []string{"WallTimeLimit"}},
		"no time left":  {[]string{sdt("job", job("x", 3601, "")), sdt("f", "<p:FinishBy>"+at(hours)+"</p:FinishBy>")}, fail.Invalid, []string{"by which it is to be finished"}},
		"licences":      {[]string{sdt("job", job("x", 600, `<q:Placement xmlns:q="`+jsdl.NSPortolan+`"><q:Licence name="matlab">1</q:Licence></q:Placement>`)), w, sdt("at", "<p:Place><p:Site>condor</p:Site></p:Place>")}, fail.Exhausted, []string{"licences"}},
		"another VO":    {[]string{sdt("job", job("x", 600, `<q:Placement xmlns:q="`+jsdl.NSPortolan+`"><q:VO>chem</q:VO></q:Placement>`)), w}, fail.Denied, []string{"chem"}},
		"nodes of none": {[]string{sdt("c", "<p:Capacity><p:Site>condor</p:Site><p:Nodes>1</p:Nodes><p:StartTime>"+at(hours)+"</p:StartTime><p:EndTime>"+at(2*hours)+"</p:EndTime></p:Capacity>")}, fail.Exhausted, []string{"ask for CPUs"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Plans(asked(t, c.terms...), model(t, slurm(), condor()), bio, noon, Settings{})
			refused(t, err, c.kind, c.says...)
		})
	}
	closed, denied := slurm(), slurm()
	closed.closed = []string{"batch"}
	denied.policy.Deny = []string{"vo:bio"}
	for _, site := range []cluster{closed, denied} {
		capacity := sdt("c", "<p:Capacity><p:CPUs>1</p:CPUs><p:StartTime>"+at(hours)+"</p:StartTime><p:EndTime>"+at(2*hours)+"</p:EndTime></p:Capacity>")
		for _, terms := range [][]string{{capacity}, {sdt("job", job("x", 600, "")), w}} {
			_, err := Plans(asked(t, terms...), model(t, site), bio, noon, Settings{})
			refused(t, err, fail.Exhausted, "slurm/batch")
		}
	}
	// A peer's site may run a job, and promises nothing.
	north := slurm()
	north.domain, north.name = "north", "n1"
	if _, err := Plans(asked(t, sdt("job", job("x", 600, ""))), model(t, north), bio, noon, Settings{}); err != nil {
		t.Error(err)
	}
	_, err := Plans(asked(t, sdt("job", job("x", 600, "")), w), model(t, north), bio, noon, Settings{})
	refused(t, err, fail.Exhausted, "no such place")
}

// TestPicks: each combination once, those first whose numbers are least, and no more than
// are wanted.
func TestPicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lists [][]spot
		all := 1
		for range rapid.IntRange(1, 4).Draw(t, "lists") {
			n := rapid.IntRange(1, 4).Draw(t, "n")
			all *= n
			lists = append(lists, make([]spot, n))
		}
		most := rapid.IntRange(1, 40).Draw(t, "most")
		got := picks(lists, most)
		if len(got) != min(all, most) {
			t.Fatalf("%d of %d combinations, at most %d", len(got), all, most)
		}
		seen := map[string]bool{}
		last := 0
		for _, p := range got {
			sum := 0
			for i, n := range p {
				if sum += n; n >= len(lists[i]) {
					t.Fatalf("%v", p)
				}
			}
			if seen[fmt.Sprint(p)] || sum < last {
				t.Fatalf("%v stands wrong in %v", p, got)
			}
			seen[fmt.Sprint(p)], last = true, sum
		}
	})
}
