package resourcemodel

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/jsdl"
)

// A second matcher, written from the standard's text (JSDL 1.0 §5.2; the rules R, S and
// M of the notes on it) and slow: it tries numbers of hosts, CPUs and bytes one after
// the other. It shares nothing with the first but RangeValue.Contains, which the range
// oracle judges.

// most bounds what the slow matcher tries where the place sets no bound; no document
// that it is given needs more.
const most = 12

// slow is one question to it.
type slow struct {
	def *jsdl.JobDefinition
	res *jsdl.Resources
	who Subject
	w   Where
	now time.Time
}

// limits of one place; 0 hosts, CPUs or bytes are none at all here.
type limits struct {
	hosts, each, total int
	bytes              [3]int // of a host
	memory             int    // free in all
	whole, gpus        int
	wall               int // seconds; -1 is none
}

func in(r *jsdl.RangeValue, n int) bool { return r == nil || r.Contains(float64(n)) }

// could is rules S1 to S3 over all allocations.
func (s *slow) could() bool { return s.wishes() && s.allocation(s.place()) }

func (s *slow) place() limits {
	share, env, nodes := s.w.Share, s.w.Environment, s.w.Site.Dynamic.Environments[s.w.Environment.ID]
	or := func(n, none int) int {
		if n == 0 {
			return none
		}
		return n
	}
	l := limits{hosts: or(nodes.Nodes, most), each: or(env.CPUs, most), wall: or(int(share.MaxWallTime/time.Second), -1), whole: most, gpus: 1 << 20, memory: 1 << 20}
	l.hosts = min(l.hosts, or(share.MaxNodes, most))
	l.total = min(l.hosts*l.each, or(share.MaxCPUs, 1<<20))
	l.bytes = [3]int{or(int(env.Memory), most), or(int(env.VirtualMemory), most), or(int(env.Disk), most)}
	l.bytes[0] = min(l.bytes[0], or(int(share.MaxMemory), most))
	if len(s.res.CandidateHosts) > 0 && len(env.HostNames) >= nodes.Nodes && len(env.HostNames) > 0 && !s.siteNamed() {
		n := 0
		for _, h := range env.HostNames {
			for _, c := range s.res.CandidateHosts {
				if strings.EqualFold(h, c) {
					n++
					break
				}
			}
		}
		l.hosts = min(l.hosts, n)
	}
	return l
}

func (s *slow) siteNamed() bool {
	for _, c := range s.res.CandidateHosts {
		for _, l := range append([]string{s.w.Site.Site}, s.w.Site.Static.Labels...) {
			if strings.EqualFold(c, l) {
				return true
			}
		}
	}
	return false
}

// nowFits is the same over what is free.
func (s *slow) nowFits() bool {
	dyn := s.w.Site.Dynamic
	state, known := dyn.Shares[s.w.Share.ID]
	if !s.could() || !dyn.Up || !known || !state.Open || s.w.Share.Slots > 0 && state.FreeSlots < 1 {
		return false
	}
	if p := s.res.Placement; p != nil {
		if p.NotBefore != nil && s.now.Before(*p.NotBefore) {
			return false
		}
		for _, l := range p.Licences {
			if n, ok := state.Consumables[l.Name]; ok && n < int64(l.Count) {
				return false
			}
			if n, ok := dyn.Consumables[l.Name]; ok && n < int64(l.Count) {
				return false
			}
		}
	}
	l := s.place()
	n := dyn.Environments[s.w.Environment.ID]
	l.hosts, l.total = min(l.hosts, n.Available), min(l.total, n.FreeCPUs)
	if n.FreeMemory > 0 {
		l.memory = int(n.FreeMemory)
	}
	if n.FreeGPUs > 0 {
		l.gpus = n.FreeGPUs
	}
	switch {
	case n.FreeNodes > 0:
		l.whole = n.FreeNodes
	case s.w.Environment.CPUs > 0:
		l.whole = n.FreeCPUs / s.w.Environment.CPUs
	}
	return s.allocation(l)
}

// wishes are those that are about what a place is.
func (s *slow) wishes() bool {
	site, share, env, p := s.w.Site.Static, s.w.Share, s.w.Environment, s.res.Placement
	for _, policy := range []Policy{site.Policy, share.Policy} {
		allowed := len(policy.Allow) == 0
		for _, a := range policy.Allow {
			allowed = allowed || a == "*" || s.who.VO != "" && a == "vo:"+s.who.VO || a == "user:"+s.who.User
		}
		for _, a := range policy.Deny {
			allowed = allowed && !(a == "*" || s.who.VO != "" && a == "vo:"+s.who.VO || a == "user:"+s.who.User)
		}
		if !allowed {
			return false
		}
	}
	if len(s.res.CandidateHosts) > 0 && !s.siteNamed() && s.place().hosts == 0 {
		return false
	}
	if o := s.res.OperatingSystem; o != nil {
		if o.HasType && o.Name != "Unknown" && o.Name != "Not_Applicable" && env.OperatingSystem != "" && o.Name != env.OperatingSystem {
			return false
		}
		if o.Version != nil && env.OSVersion != "" && *o.Version != env.OSVersion {
			return false
		}
	}
	if a := s.res.CPUArchitecture; a != nil && env.CPUArchitecture != "" && a.Name != env.CPUArchitecture && (a.Name != "x86" || !strings.HasPrefix(env.CPUArchitecture, "x86_")) {
		return false
	}
	if env.CPUSpeed > 0 && s.res.IndividualCPUSpeed != nil && !s.res.IndividualCPUSpeed.Contains(env.CPUSpeed) {
		return false
	}
	if env.Bandwidth > 0 && s.res.IndividualNetworkBandwidth != nil && !s.res.IndividualNetworkBandwidth.Contains(env.Bandwidth) {
		return false
	}
	if limit := s.def.Description.Application.POSIX; limit != nil && limit.Limits.WallTime != nil && share.MaxWallTime > 0 &&
		time.Duration(limit.Limits.WallTime.Int64())*time.Second > share.MaxWallTime {
		return false
	}
	if p == nil {
		return true
	}
	if p.Share != nil && *p.Share != share.ID || p.Deadline != nil && !s.now.Before(*p.Deadline) {
		return false
	}
	asked, have := 0, 0
	for _, n := range env.GPUs {
		have += n
	}
	for _, g := range p.GPUs {
		if asked += g.Count; g.Type != "" && env.GPUs[g.Type] < g.Count {
			return false
		}
	}
	if asked > have {
		return false
	}
	for _, l := range p.Licences {
		total, known := int64(-1), len(site.Consumables)+len(share.Consumables) > 0
		for _, c := range append(append([]Consumable{}, site.Consumables...), share.Consumables...) { // the share's holds
			if c.Name == l.Name {
				total = c.Total
			}
		}
		if known && total < int64(l.Count) {
			return false
		}
	}
	return true
}

// allocation tries all of them.
func (s *slow) allocation(l limits) bool {
	if t := s.res.IndividualCPUTime; t != nil && !s.time(t, l.wall) {
		return false
	}
	processes, threads, perHost := 0, 1, 0
	if spmd := s.def.Description.Application.SPMD; spmd != nil {
		processes = int(spmd.NumberOfProcesses.Value.Int64())
		if spmd.ThreadsPerProcess != nil {
			threads = int(spmd.ThreadsPerProcess.Value.Int64())
		}
		if spmd.ProcessesPerHost != nil {
			perHost = int(spmd.ProcessesPerHost.Int64())
		}
	}
	gpus := 0
	if p := s.res.Placement; p != nil {
		for _, g := range p.GPUs {
			gpus += g.Count
		}
	}
	exclusive := s.res.ExclusiveExecution != nil && *s.res.ExclusiveExecution
	for k := 1; k <= l.hosts; k++ {
		if !in(s.res.TotalResourceCount, k) || perHost > 0 && k*perHost < processes || exclusive && k > l.whole || k*gpus > l.gpus {
			continue
		}
		if s.bytes(k, l.bytes[0], l.memory, s.res.IndividualPhysicalMemory, s.res.TotalPhysicalMemory) &&
			s.bytes(k, l.bytes[1], 1<<20, s.res.IndividualVirtualMemory, s.res.TotalVirtualMemory) &&
			s.bytes(k, l.bytes[2], 1<<20, s.res.IndividualDiskSpace, s.res.TotalDiskSpace) &&
			s.cpus(k, l, processes, threads, exclusive) {
			return true
		}
	}
	return false
}

// cpus tries numbers in all: any where IndividualCPUCount is absent, as the site may
// spread them (S3), else the same number on each host.
func (s *slow) cpus(k int, l limits, processes, threads int, exclusive bool) bool {
	for total := k; total <= min(l.total, k*l.each); total++ {
		if !in(s.res.TotalCPUCount, total) {
			continue
		}
		if s.res.IndividualCPUCount != nil && (total%k != 0 || !in(s.res.IndividualCPUCount, total/k)) {
			continue
		}
		// Each thread has a CPU where the document allows as many, else each process, else, on
		// hosts of one's own, they share (M3).
		if processes > 0 && total < processes*threads {
			if s.reaches(processes*threads) || total < processes && (s.reaches(processes) || !exclusive) {
				continue
			}
		}
		if t := s.res.TotalCPUTime; t != nil && !s.time(t, wallOf(l.wall, total)) {
			continue
		}
		return true
	}
	return false
}

func wallOf(wall, cpus int) int {
	if wall < 0 {
		return wall
	}
	return wall * cpus
}

// reaches reports whether TotalCPUCount has a number from n on.
func (s *slow) reaches(n int) bool {
	for m := n; m < n+100; m++ {
		if in(s.res.TotalCPUCount, m) {
			return true
		}
	}
	return false
}

// time reports whether a number of seconds up to the bound is in the range; -1 is no bound.
func (s *slow) time(r *jsdl.RangeValue, bound int) bool {
	if bound < 0 {
		bound = 1000
	}
	for t := 0; t <= bound; t++ {
		if r.Contains(float64(t)) {
			return true
		}
	}
	return false
}

// bytes tries amounts of k hosts, each of one unbroken stretch of the Individual range:
// reached holds the sums that so many hosts can have.
func (s *slow) bytes(k, each, sum int, individual, total *jsdl.RangeValue) bool {
	if individual == nil && total == nil {
		return true
	}
	for lo := 0; lo <= each; lo++ {
		if !in(individual, lo) || lo > 0 && in(individual, lo-1) {
			continue // not where a stretch begins
		}
		var reached [most*most + 1]bool
		reached[0] = true
		for range k {
			var next [most*most + 1]bool
			for already := range reached {
				for m := lo; reached[already] && m <= each && in(individual, m); m++ {
					next[already+m] = true
				}
			}
			reached = next
		}
		for n, ok := range reached {
			if ok && n <= sum && in(total, n) {
				return true
			}
		}
	}
	return false
}

// chance makes questions.
type chance struct{ *rand.Rand }

func (c chance) one(in int) bool { return c.IntN(in) == 0 }

func (c chance) value() float64 {
	v := float64(c.IntN(9))
	if c.one(8) {
		v += 0.5
	}
	return v
}

func (c chance) bound() *jsdl.Bound { return &jsdl.Bound{Value: c.value(), Exclusive: c.one(4)} }

func (c chance) values(in int) *jsdl.RangeValue {
	if !c.one(in) {
		return nil
	}
	r := new(jsdl.RangeValue)
	switch c.IntN(6) {
	case 0:
		r.Lower = c.bound()
	case 1:
		r.Upper = c.bound()
	case 2:
		r.Lower, r.Upper = c.bound(), c.bound()
	case 3, 4:
		for range 1 + c.IntN(2) {
			x := jsdl.Exact{Value: c.value()}
			if c.one(4) {
				x.Epsilon = float64(c.IntN(3)) / 2
			}
			r.Exact = append(r.Exact, x)
		}
	case 5:
		for range 1 + c.IntN(2) {
			r.Ranges = append(r.Ranges, jsdl.Range{Lower: *c.bound(), Upper: *c.bound()})
		}
		if c.one(3) {
			r.Exact = append(r.Exact, jsdl.Exact{Value: c.value()})
		}
	}
	return r
}

func pick[T any](c chance, list ...T) T { return list[c.IntN(len(list))] }

func (c chance) definition() *jsdl.JobDefinition {
	res := &jsdl.Resources{
		IndividualCPUSpeed: c.values(12), IndividualNetworkBandwidth: c.values(12), IndividualCPUTime: c.values(10), TotalCPUTime: c.values(8),
		IndividualCPUCount: c.values(3), TotalCPUCount: c.values(3), TotalResourceCount: c.values(3),
		IndividualPhysicalMemory: c.values(5), TotalPhysicalMemory: c.values(5), IndividualVirtualMemory: c.values(15), TotalVirtualMemory: c.values(15),
		IndividualDiskSpace: c.values(15), TotalDiskSpace: c.values(15),
	}
	if c.one(6) {
		x := c.one(2)
		res.ExclusiveExecution = &x
	}
	if c.one(8) {
		res.CandidateHosts = []string{pick(c, "a", "B", "site", "label", "x"), pick(c, "a", "b", "y")}[:1+c.IntN(2)]
	}
	if c.one(8) {
		res.OperatingSystem = &jsdl.OperatingSystem{HasType: true, Name: pick(c, "LINUX", "LINUX", "AIX", "Unknown")}
		if c.one(3) {
			v := pick(c, "1", "2")
			res.OperatingSystem.Version = &v
		}
	}
	if c.one(8) {
		res.CPUArchitecture = &jsdl.CPUArchitecture{Name: pick(c, "x86", "x86_64", "x86_32", "arm")}
	}
	if c.one(4) {
		p := new(jsdl.Placement)
		if c.one(3) {
			s := pick(c, "s", "t")
			p.Share = &s
		}
		if c.one(4) {
			t := noon.Add(time.Duration(c.IntN(3)-1) * time.Hour)
			p.NotBefore = &t
		}
		if c.one(6) {
			t := noon.Add(time.Duration(c.IntN(4)-1) * time.Hour)
			p.Deadline = &t
		}
		if c.one(2) {
			p.GPUs = append(p.GPUs, jsdl.GPU{Count: 1 + c.IntN(2)})
		}
		if c.one(3) {
			p.GPUs = append(p.GPUs, jsdl.GPU{Type: "k", Count: 1 + c.IntN(2)})
		}
		if c.one(3) {
			p.Licences = append(p.Licences, jsdl.Licence{Name: pick(c, "m", "n"), Count: 1 + c.IntN(3)})
		}
		res.Placement = p
	}
	def := &jsdl.JobDefinition{Description: jsdl.JobDescription{Resources: res, Application: &jsdl.Application{}}}
	if c.one(6) {
		spmd := &jsdl.SPMDApplication{Executable: &jsdl.Text{Value: "a"}, NumberOfProcesses: &jsdl.ProcessCount{Value: big.NewInt(int64(1 + c.IntN(4)))}, Variation: jsdl.VariationMPI}
		if c.one(2) {
			spmd.ProcessesPerHost = big.NewInt(int64(1 + c.IntN(3)))
		}
		if c.one(3) {
			spmd.ThreadsPerProcess = &jsdl.ProcessCount{Value: big.NewInt(int64(1 + c.IntN(3)))}
		}
		def.Description.Application.SPMD = spmd
	} else {
		def.Description.Application.POSIX = &jsdl.POSIXApplication{Executable: &jsdl.Text{Value: "a"}}
		if c.one(6) {
			def.Description.Application.POSIX.Limits.WallTime = big.NewInt(int64(1 + c.IntN(5)))
		}
	}
	return def
}

func (c chance) policy() Policy {
	if !c.one(6) {
		return Policy{}
	}
	rules := []string{"vo:bio", "vo:chem", "user:ann", "*"}
	var p Policy
	for range c.IntN(3) {
		p.Allow = append(p.Allow, pick(c, rules...))
	}
	if c.one(3) {
		p.Deny = append(p.Deny, pick(c, rules...))
	}
	return p
}

func (c chance) place() Where {
	small := func(n int) int { // 0, unknown or without limit, is rare
		if c.one(12) {
			return 0
		}
		return 1 + c.IntN(n)
	}
	rare := func(n int) int {
		if !c.one(4) {
			return 0
		}
		return 1 + c.IntN(n)
	}
	env := Environment{
		ID: "e", OperatingSystem: pick(c, "LINUX", "LINUX", "AIX", ""), OSVersion: pick(c, "1", "2", ""), CPUArchitecture: pick(c, "x86_64", "x86_64", "x86_32", "arm", ""),
		CPUs: small(8), CPUSpeed: float64(small(8)), Bandwidth: float64(rare(8)), Memory: int64(small(8)), VirtualMemory: int64(rare(10)), Disk: int64(rare(10)),
		HostNames: []string{"a", "b", "c", "d"}[:c.IntN(5)],
	}
	if c.one(2) {
		env.GPUs = map[string]int{"": c.IntN(2), "k": c.IntN(3)}
	}
	share := Share{
		ID: "s", Environments: []string{"e"}, MaxCPUs: rare(12), MaxNodes: rare(4), MaxMemory: int64(rare(6)), Slots: rare(3),
		MaxWallTime: time.Duration(rare(5)) * time.Second, Policy: c.policy(),
	}
	static := &Static{Type: "slurm", Environments: []Environment{env}, Policy: c.policy()}
	state := ShareState{Open: !c.one(6), FreeSlots: c.IntN(3)}
	nodes := small(4)
	es := EnvironmentState{Nodes: nodes, Available: c.IntN(max(nodes, 3) + 1), FreeGPUs: c.IntN(3)}
	es.FreeCPUs = c.IntN(es.Available*max(env.CPUs, 4) + 1)
	if c.one(2) {
		es.FreeMemory = int64(c.IntN(20))
	}
	if c.one(2) && es.Available > 0 {
		es.FreeNodes = c.IntN(es.Available + 1)
	}
	dyn := &Dynamic{Up: !c.one(8), Shares: map[string]ShareState{}, Environments: map[string]EnvironmentState{"e": es}}
	if c.one(3) {
		static.Consumables = []Consumable{{"m", int64(c.IntN(4))}}
		dyn.Consumables = map[string]int64{"m": int64(c.IntN(3))}
	}
	if c.one(4) {
		share.Consumables = []Consumable{{"n", int64(c.IntN(4))}}
		state.Consumables = map[string]int64{"n": int64(c.IntN(3))}
	}
	if !c.one(12) {
		dyn.Shares["s"] = state
	}
	if c.one(3) {
		static.Labels = []string{"Label"}
	}
	static.Shares = []Share{share}
	site := &Site{Key: Key{Site: "site"}, Static: static, Dynamic: dyn}
	return Where{site, &static.Shares[0], &static.Environments[0]}
}

func (c chance) subject() Subject {
	return Subject{User: pick(c, "ann", "bob"), VO: pick(c, "", "bio", "chem")}
}

// The matcher agrees with the slow one on random jobs and places.
func TestMatchesLikeTheStandard(t *testing.T) {
	pairs, each := 1_000_000, 25
	if testing.Short() {
		pairs = 100_000
	}
	var could, now, impossible int
	for i := range pairs / each {
		seed := uint64(i)
		c := chance{rand.New(rand.NewPCG(seed, 4))}
		def, who := c.definition(), c.subject()
		r, err := Compile(def, who)
		if err != nil {
			impossible++
		}
		for range each {
			s := slow{def: def, res: def.Description.Resources, who: who, w: c.place(), now: noon}
			d := Derived{Now: noon}
			wantCould := s.could()
			if err != nil {
				if wantCould {
					t.Fatalf("seed %d: refused for good (%v), but it fits: %s", seed, err, s.String())
				}
				continue
			}
			wantNow := s.nowFits()
			v := r.Judge(s.w.Site, s.w.Share, s.w.Environment, d)
			if v.Could != wantCould || v.Now != wantNow {
				t.Fatalf("seed %d: could %v, now %v, and by the standard %v, %v: %+v\n%s", seed, v.Could, v.Now, wantCould, wantNow, v.Clauses, s.String())
			}
			if r.Fits(s.w, d) != v.Could || r.Starts(s.w, d) != v.Now || v.Now != (len(v.Clauses) == 0) {
				t.Fatalf("seed %d: Fits and Starts say otherwise than %+v", seed, v)
			}
			if v.Could {
				could++
			}
			if v.Now {
				now++
			}
		}
	}
	t.Logf("%d pairs: %d could run, %d of them now; %d of %d jobs are for no place at all", pairs, could, now, impossible, pairs/each)
	if could < pairs/20 || could > pairs*19/20 || now < pairs/100 {
		t.Errorf("the questions are one-sided: of %d pairs %d could run and %d of them now", pairs, could, now)
	}
}

func (s *slow) String() string {
	var b strings.Builder
	for p := range partProcesses {
		if r := rangeOf(s.res, p); r != nil {
			fmt.Fprintf(&b, "%s %s; ", p, exactly(r))
		}
	}
	fmt.Fprintf(&b, "%+v %+v\nsubject %+v share %+v environment %+v dynamic %+v", *s.res, s.res.Placement, s.who, *s.w.Share, *s.w.Environment, *s.w.Site.Dynamic)
	if spmd := s.def.Description.Application.SPMD; spmd != nil {
		fmt.Fprintf(&b, " spmd %+v", spmd)
	}
	return b.String()
}

// A range decides about a place as the independent implementation of the oracle says: as
// the speed of a CPU, and where the number is whole, as a count and an amount.
func TestRangesDecideLikeTheOracle(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(testenv.Shared(t), "samples", "jsdl", "range-oracle.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(lines) < 100 {
		t.Fatalf("only %d lines", len(lines))
	}
	asked := 0
	for _, line := range lines[1:] {
		f := strings.Split(line, "\t")
		x, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		def := document(t, "<jsdl:IndividualCPUSpeed>"+f[0]+"</jsdl:IndividualCPUSpeed>")
		want := f[2] == "true"
		if x > 0 {
			r, err := Compile(def, Subject{})
			if err != nil {
				t.Fatalf("%s: %v", f[0], err)
			}
			w := hpc().where("long")
			w.Environment.CPUSpeed = x
			if got := r.Fits(w, Derived{}); got != want {
				t.Errorf("%s with CPUs of %s Hz: fits %v, want %v", f[0], f[1], got, want)
			}
			asked++
		}
		if n := int64(x); float64(n) == x && n >= 0 {
			set := runsOf(def.Description.Resources.IndividualCPUSpeed, 0)
			if m, ok := set.from(n); (ok && m == n) != want {
				t.Errorf("%s as whole numbers %v: %d is in it %v, want %v", f[0], set, n, ok && m == n, want)
			}
			asked++
		}
	}
	if asked < 100 {
		t.Errorf("only %d questions", asked)
	}
}
