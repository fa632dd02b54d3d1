package resourcemodel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// scanned is a place as the reference has it: all that a query of queryGen may ask for
// in 64 bytes, a cache line, one after the other in the order of places.
type scanned struct {
	memory, disk, freeMemory int64
	price, speed             float64
	freeCPUs, freeSlots      int32
	load                     float32
	wall                     int32
	cpus, nodes              int16
	os, arch                 uint8
	open                     bool
}

var benchSystems, benchArchs = []string{"LINUX", "AIX", "Solaris", "MACOS"}, []string{"x86_64", "arm", "powerpc", "other"}

// unlike makes a snapshot of n sites of one place, in which hardly two are alike, and
// the reference's table of them.
func unlike(tb testing.TB, n int, seed uint64) (*Snapshot, []scanned) {
	tb.Helper()
	rng := rand.New(rand.NewPCG(seed, 5))
	snap := Empty()
	table := make([]scanned, 0, n)
	const most = 1 << 16
	for begin := 0; begin < n; begin += most {
		d := Delta{Revision: snap.Revision() + 1}
		for i := begin; i < min(begin+most, n); i++ {
			s, row := unlikeSite(rng, i)
			table = append(table, row)
			d.Changes = append(d.Changes, Change{Key: s.Key, Static: s.Static, Dynamic: s.Dynamic})
		}
		next, err := snap.Apply(d)
		if err != nil {
			tb.Fatal(err)
		}
		snap = next
	}
	return snap, table
}

func unlikeSite(rng *rand.Rand, i int) (*Site, scanned) {
	skewed := func(most float64) float64 { x := rng.Float64(); return most * x * x }
	cpus := 8 + rng.IntN(120)
	nodes := 1 + int(skewed(200))
	free := rng.IntN(nodes*cpus + 1)
	row := scanned{
		memory: 1<<30 + int64(skewed(512<<30)), disk: 1<<30 + int64(skewed(8<<40)),
		price: math.Round(skewed(10)*1e4) / 1e4, speed: 1e9 + rng.Float64()*3e9,
		freeCPUs: int32(free), freeSlots: int32(rng.IntN(300)), wall: int32(600 + rng.IntN(14*86400)),
		os: uint8(rng.IntN(4) * rng.IntN(2)), arch: uint8(rng.IntN(4) * rng.IntN(2)), open: rng.IntN(20) > 0, cpus: int16(cpus), nodes: int16(nodes),
	}
	row.freeMemory = 1 + int64(rng.Float64()*float64(row.memory)*float64(nodes))
	running, waiting, slots := rng.IntN(300), int(skewed(100)), 1+rng.IntN(400)
	row.load = float32(running+waiting) / float32(slots)
	site := &Site{
		Key: Key{Site: siteName(i)},
		Static: &Static{
			Stamp: Stamp{Version: 1, Source: "bench"}, Type: "slurm",
			Shares: []Share{{ID: "batch", Environments: []string{"nodes"}, Price: row.price, Slots: slots, MaxWallTime: time.Duration(row.wall) * time.Second}},
			Environments: []Environment{{
				ID: "nodes", OperatingSystem: benchSystems[row.os], CPUArchitecture: benchArchs[row.arch], CPUs: cpus, CPUSpeed: row.speed, Memory: row.memory, Disk: row.disk,
			}},
		},
		Dynamic: &Dynamic{
			Stamp: Stamp{Version: 1, Source: "bench"}, Up: true,
			Shares:       map[string]ShareState{"batch": {Open: row.open, Running: running, Waiting: waiting, FreeSlots: int(row.freeSlots)}},
			Environments: map[string]EnvironmentState{"nodes": {Nodes: nodes, Available: nodes, FreeCPUs: free, FreeMemory: row.freeMemory}},
		},
	}
	return site, row
}

// query has six hard conditions and three wishes.
type query struct {
	os, arch            uint8
	cpus                int32
	memory, disk        int64
	price               float64
	weights             [3]float64 // of speed in GHz, free CPUs in thousands, price
	request             *Request
	objective           *Objective
	wantSpeed, wantLoad float64
	softSpeed, softLoad float64 // priorities; 0: the objective decides alone
}

// newQuery makes one: the system, the architecture, CPUs free, memory and disk of a node, and
// the price are hard. Which part of the places meets a condition differs much.
func newQuery(tb testing.TB, rng *rand.Rand, soft bool) *query {
	tb.Helper()
	x := func() float64 { return rng.Float64() }
	q := &query{
		os: uint8(rng.IntN(4) * rng.IntN(2)), arch: uint8(rng.IntN(4) * rng.IntN(2)), cpus: int32(1 + 2000*x()*x()*x()),
		memory: int64(300 * x() * x() * float64(1<<30)), disk: int64(4 * x() * x() * float64(1<<40)), price: math.Round(10*x()*1e4) / 1e4,
		weights: [3]float64{math.Round(100*x()) / 100, math.Round(100*x()) / 100, -math.Round(100*x()) / 100},
	}
	exactly := func(n float64) *jsdl.RangeValue { return &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: n}}} }
	least := func(n float64) *jsdl.RangeValue { return &jsdl.RangeValue{Lower: &jsdl.Bound{Value: n}} }
	def := &jsdl.JobDefinition{Description: jsdl.JobDescription{
		Application: &jsdl.Application{POSIX: &jsdl.POSIXApplication{Executable: &jsdl.Text{Value: "a"}}},
		Resources: &jsdl.Resources{
			OperatingSystem: &jsdl.OperatingSystem{HasType: true, Name: benchSystems[q.os]}, CPUArchitecture: &jsdl.CPUArchitecture{Name: benchArchs[q.arch]},
			TotalCPUCount: exactly(float64(q.cpus)), IndividualPhysicalMemory: least(float64(q.memory)), IndividualDiskSpace: least(float64(q.disk)),
		},
	}}
	criteria := &jsdl.Criteria{List: []jsdl.Criterion{{Name: "Price", Type: "decimal", Operator: "le", Value: strconv.FormatFloat(q.price, 'f', -1, 64), Hard: true}}}
	terms := []Term{{Attribute: "CPUSpeed", Weight: q.weights[0] / 1e9}, {Attribute: "FreeCPUs", Weight: q.weights[1] / 1e3}, {Attribute: "Price", Weight: q.weights[2]}}
	if soft {
		q.wantSpeed, q.wantLoad = math.Round(1e9+3e9*x()), math.Round(100*x())/100
		q.softSpeed, q.softLoad = float64(1+rng.IntN(200)), float64(1+rng.IntN(200))
		criteria.List = append(criteria.List,
			jsdl.Criterion{Name: "CPUSpeed", Type: "decimal", Operator: "ge", Value: strconv.FormatFloat(q.wantSpeed, 'f', -1, 64), Priority: int(q.softSpeed)},
			jsdl.Criterion{Name: "MaxWallTime", Type: "decimal", Operator: "ge", Value: strconv.FormatFloat(q.wantLoad*1e6, 'f', -1, 64), Priority: int(q.softLoad)})
	}
	var err error
	if q.request, err = CompileWith(def, Subject{User: "ann", VO: "bio"}, criteria); err != nil {
		tb.Fatal(err)
	}
	if q.objective, err = NewObjective(0, terms, nil); err != nil {
		tb.Fatal(err)
	}
	return q
}

// scan looks at every place of the table, and leaves each as early as it can.
func (q *query) scan(table []scanned) int {
	best, mark, softMark := -1, math.Inf(-1), math.Inf(-1)
	a, b, c := q.weights[0]/1e9, q.weights[1]/1e3, q.weights[2]
	memory := q.memory
	wall := q.wantLoad * 1e6
	shareSpeed, shareWall := q.softSpeed/(q.softSpeed+q.softLoad), q.softLoad/(q.softSpeed+q.softLoad)
	for i := range table {
		r := &table[i]
		if r.os != q.os || r.arch != q.arch || r.freeCPUs < q.cpus || r.memory < memory || r.disk < q.disk || r.price > q.price ||
			!r.open || r.freeSlots < 1 {
			continue
		}
		if hosts := (q.cpus + int32(r.cpus) - 1) / int32(r.cpus); hosts > int32(r.nodes) || memory*int64(hosts) > r.freeMemory {
			continue
		}
		soft := 1.0
		if q.softSpeed > 0 {
			soft = min(shareSpeed*near(r.speed, q.wantSpeed)+shareWall*near(float64(r.wall), wall), 1)
			if soft < softMark {
				continue
			}
		}
		m := a*r.speed + b*float64(r.freeCPUs) + c*r.price
		if soft > softMark || m > mark {
			best, mark, softMark = i, m, soft
		}
	}
	return best
}

// near is the satisfaction of "at least".
func near(x, want float64) float64 {
	if x >= want {
		return 1
	}
	return min(1-(want-x)/want, nearMiss)
}

// BenchmarkModelRatios prints what the index costs beside the least that its work could.
// MODEL_PLACES makes the model smaller.
func BenchmarkModelRatios(b *testing.B) {
	runtime.LockOSThread() // processor time is that of a thread
	defer runtime.UnlockOSThread()
	n := 1_000_000
	if s := os.Getenv("MODEL_PLACES"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	for b.Loop() {
		manyPlaces(b, n)
		assignments(b)
	}
}

// manyPlaces is what is asked of a large model.
func manyPlaces(b *testing.B, n int) {
	snap, table := unlike(b, n, 1)
	before := heap()
	begin := processor()
	x := NewIndex(snap)
	took := processor() - begin
	each := float64(heap()-before) / float64(n)
	fmt.Printf("\nindex of %d places, no two alike: made in %.1f µs a place\n   %.0f bytes a place beside the model\n", n, us(took)/float64(n), each)
	b.ReportMetric(each, "bytes/place")
	bestOf(b, x, table)
	updates(b, x)
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func middle(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

const benchRounds = 5 // the middle one of them counts

// bestOf is the best place for one job with six hard conditions ÷ the scan.
func bestOf(b *testing.B, x *Index, table []scanned) {
	for _, soft := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(9, 9))
		var ratios, ours, theirs []float64
		var looked Looked
		queries := 0
		for range benchRounds {
			var qs []*query
			for range 200 {
				qs = append(qs, newQuery(b, rng, soft)) // each is a class of its own that was never asked before
			}
			queries += len(qs)
			found, ok, at := make([]Winner, len(qs)), make([]bool, len(qs)), make([]int, len(qs))
			runtime.GC()
			begin := processor()
			for i, q := range qs {
				found[i], ok[i] = x.Best(q.request, q.objective, Derived{Now: noon}, nil)
				looked.add(x.Looked())
			}
			one := processor() - begin
			begin = processor()
			for i, q := range qs {
				at[i] = q.scan(table)
			}
			other := processor() - begin
			for i := range qs {
				if ok[i] != (at[i] >= 0) || ok[i] && x.Place(found[i].Place).Site != siteName(at[i]) {
					b.Fatalf("the index finds %v, and the scan %d", found[i], at[i])
				}
			}
			ratios, ours, theirs = append(ratios, float64(other)/float64(one)), append(ours, us(one)/float64(len(qs))), append(theirs, us(other)/float64(len(qs)))
		}
		name, metric := "weighted numbers", "best/scan"
		if soft {
			name, metric = "two soft criteria, then weighted numbers", "best-soft/scan"
		}
		fmt.Printf("best of %d for six hard conditions and %s: index %.0f µs, scan of packed structs %.0f µs; looked at the bounds of %d groups and %d blocks, into %d blocks, at %d rows\n",
			len(table), name, middle(ours), middle(theirs), looked.Groups/queries, looked.Blocks/queries, looked.Opened/queries, looked.Rows/queries)
		fmt.Printf("   ratio %.1f (aim >= 20), the same winner each time\n", middle(ratios))
		b.ReportMetric(middle(ratios), metric)
	}
}

func (l *Looked) add(o Looked) {
	l.Groups, l.Blocks, l.Opened, l.Rows, l.Places = l.Groups+o.Groups, l.Blocks+o.Blocks, l.Opened+o.Opened, l.Rows+o.Rows, l.Places+o.Places
}

// updates is what it costs to follow a change ÷ writing into a map of as many entries.
func updates(b *testing.B, x *Index) {
	const turns = 200_000
	rng := rand.New(rand.NewPCG(3, 3))
	n := x.Len()
	// What an update is without an index: how a place stands, by its name.
	type standing [12]int32
	plain := make(map[Place]standing, n)
	names := make([]Place, turns)
	for id := range x.All() {
		plain[x.Place(id)] = standing{}
	}
	least := make(map[uint32]int64, n)
	for i := range uint32(n) {
		least[i] = int64(i)
	}
	ids := make([]PlaceID, turns)
	fresh := make([]*Site, turns)
	for i := range ids {
		ids[i] = PlaceID(rng.IntN(n))
		names[i] = x.Place(ids[i])
		site := *x.Where(ids[i]).Site
		d := *site.Dynamic
		d.Version = uint64(i) + 2
		h, e := d.Shares["batch"], d.Environments["nodes"]
		h.FreeSlots, h.Running, e.FreeCPUs = rng.IntN(300), rng.IntN(300), rng.IntN(e.Nodes*64)
		d.Shares, d.Environments = map[string]ShareState{"batch": h}, map[string]EnvironmentState{"nodes": e}
		site.Dynamic = &d
		fresh[i] = &site
	}
	need := &Need{Slots: 1, CPUs: 4, Memory: 1 << 30}
	var take, put, write, bare []float64
	var touched []PlaceID
	for range benchRounds {
		runtime.GC()
		begin := processor()
		for _, id := range ids {
			touched = x.Take(touched[:0], id, need)
		}
		for _, id := range ids {
			touched = x.Give(touched[:0], id, need)
		}
		one := processor() - begin
		begin = processor()
		for _, s := range fresh {
			touched = x.put(touched[:0], s)
		}
		two := processor() - begin
		begin = processor()
		for i := range names {
			plain[names[i]] = standing{int32(i)}
		}
		three := processor() - begin
		begin = processor()
		for i, id := range ids {
			least[uint32(id)] = int64(i)
		}
		four := processor() - begin
		bare = append(bare, us(four)/turns)
		take, put, write = append(take, us(one)/turns/2), append(put, us(two)/turns), append(write, us(three)/turns)
	}
	fmt.Printf("a job's need taken from a place, or given back: %.0f ns; how a site stands: %.0f ns; one write into a Go map of %d places by name: %.0f ns, of numbers by numbers: %.0f ns\n", 1000*middle(take), 1000*middle(put), n, 1000*middle(write), 1000*middle(bare))
	fmt.Printf("   ratios %.1f and %.1f (aim <= 10)\n", middle(take)/middle(write), middle(put)/middle(write))
	b.ReportMetric(middle(take)/middle(write), "take/map-write")
	b.ReportMetric(middle(put)/middle(write), "update/map-write")
}

// assignments is how many jobs a second get the best place there is and what they need
// from it, while as many end, and all of 100,000 slots are full but for those.
func assignments(b *testing.B) {
	const slots, sites, kinds = 100_000, 2000, 60
	for _, same := range []bool{true, false} {
		rng := rand.New(rand.NewPCG(5, 5))
		d := Delta{Revision: 1}
		for i := range sites {
			cpus, memory, price := 16, int64(64<<30), 0.5
			if !same {
				cpus, memory, price = 8+rng.IntN(56), int64(16+rng.IntN(500))<<30, float64(rng.IntN(1000))/100
			}
			s := Change{Key: Key{Site: siteName(i)}, Static: &Static{Stamp: Stamp{Version: 1}, Type: "slurm"}, Dynamic: &Dynamic{Up: true, Shares: map[string]ShareState{}, Environments: map[string]EnvironmentState{}}}
			for _, e := range []string{"fat", "thin"} {
				s.Static.Environments = append(s.Static.Environments, Environment{ID: e, OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: cpus, Memory: memory})
				s.Dynamic.Environments[e] = EnvironmentState{Nodes: 20, Available: 20, FreeCPUs: 20 * cpus, FreeMemory: 20 * memory}
			}
			for _, h := range []string{"long", "short"} {
				s.Static.Shares = append(s.Static.Shares, Share{ID: h, Environments: []string{"fat", "thin"}, Slots: slots / sites / 2, Price: price})
				s.Dynamic.Shares[h] = ShareState{Open: true, FreeSlots: slots / sites / 2}
			}
			d.Changes = append(d.Changes, s)
		}
		snap, err := Empty().Apply(d)
		if err != nil {
			b.Fatal(err)
		}
		before := heap()
		x := NewIndex(snap)
		each := float64(heap()-before) / float64(x.Len())
		// least loaded, then cheapest; a third of the classes has soft criteria
		o, err := NewObjective(20, []Term{{Attribute: "FreeSlots", Weight: 1}}, []Term{{Attribute: "Price", Weight: -1}})
		if err != nil {
			b.Fatal(err)
		}
		var requests []*Request
		for i := range kinds {
			exactly := func(n float64) *jsdl.RangeValue { return &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: n}}} }
			def := &jsdl.JobDefinition{Description: jsdl.JobDescription{
				Application: &jsdl.Application{POSIX: &jsdl.POSIXApplication{Executable: &jsdl.Text{Value: "a"}}},
				Resources:   &jsdl.Resources{TotalCPUCount: exactly(float64(1 + i%4)), IndividualPhysicalMemory: &jsdl.RangeValue{Lower: &jsdl.Bound{Value: float64(i%8) * (1 << 30)}}},
			}}
			criteria := &jsdl.Criteria{List: []jsdl.Criterion{{Name: "Price", Type: "decimal", Operator: "le", Value: strconv.Itoa(2 + i%10), Hard: true}}}
			if i%3 == 0 {
				criteria.List = append(criteria.List, jsdl.Criterion{Name: "Memory", Type: "integer", Operator: "ge", Value: strconv.Itoa(i << 30), Priority: 50})
			}
			r, err := CompileWith(def, Subject{User: "ann", VO: "bio"}, criteria)
			if err != nil {
				b.Fatal(err)
			}
			requests = append(requests, r)
		}
		type job struct {
			place PlaceID
			need  *Need
		}
		var running []job
		var touched []PlaceID
		assign := func(r *Request) bool {
			w, ok := x.Best(r, o, Derived{Now: noon}, nil)
			if ok {
				touched = x.Take(touched[:0], w.Place, &r.Need)
				running = append(running, job{w.Place, &r.Need})
			}
			return ok
		}
		begin := processor()
		for misses := 0; misses < 20*kinds; {
			if !assign(requests[rng.IntN(kinds)]) {
				misses++
			}
		}
		filled, fill := len(running), processor()-begin
		runtime.GC()
		var rates []float64
		var looked Looked
		full := 0
		for range benchRounds {
			const turns = 20_000
			done := 0
			begin := processor()
			for range turns {
				i := rng.IntN(len(running))
				touched = x.Give(touched[:0], running[i].place, running[i].need)
				running[i] = running[len(running)-1]
				running = running[:len(running)-1]
				if assign(requests[rng.IntN(kinds)]) {
					done++
				}
				looked.add(x.Looked())
			}
			rates = append(rates, float64(done)/(processor()-begin).Seconds())
			full += turns - done
		}
		name, metric := "alike sites", "assignments/s"
		if !same {
			name, metric = "unlike sites", "assignments-unlike/s"
		}
		fmt.Printf("%d %s of four places, %d slots, %.0f bytes a place: %d jobs fill them at %.0f a second; %.0f assignments a second, one for each job that ends, %d found no place (aim >= 15000); for each into %d blocks, at %d rows\n", sites, name, slots, each, filled, float64(filled)/fill.Seconds(), middle(rates), full, looked.Opened/(benchRounds*20_000), looked.Rows/(benchRounds*20_000))
		b.ReportMetric(middle(rates), metric)
	}
}

func siteName(i int) string { return fmt.Sprintf("site%07d", i) }

// processor gives the processor time of this thread, so that what else the machine does is not
// measured.
func processor() time.Duration {
	var u syscall.Rusage
	const thread = 1
	if err := syscall.Getrusage(thread, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
