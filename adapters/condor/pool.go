package condor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// slot is what one slot of the pool has: all of it, whoever uses it now.
type slot struct {
	Machine, OpSys, OpSysAndVer, Arch string
	CPUs                              int64
	Memory, Virtual, Disk             int64 // bytes
	GPUs                              int64
	GPUNames                          []string
	Partitionable, Containers         bool
	// What changes.
	freeCPUs, freeMemory int64
	open                 bool
}

// facts are what is known of a pool.
type facts struct {
	slots    []slot
	groups   []string // accounting groups
	licences []string // concurrency limits
	running  int
	waiting  int
	version  string
}

// stock keeps the facts, and asks for them once for all who want them.
type stock struct {
	asking sync.Mutex

	mu    sync.Mutex
	facts *facts
	at    time.Time
	last  adapters.Resources
}

// get gives facts that are no older than age; with an error it gives what is known of
// before, which may be nothing.
func (s *stock) get(ctx context.Context, a *Adapter, age time.Duration) (*facts, error) {
	have := func() (*facts, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.facts, s.facts != nil && time.Since(s.at) < age
	}
	if f, fresh := have(); fresh {
		return f, nil
	}
	begin := time.Now()
	s.asking.Lock()
	defer s.asking.Unlock()
	s.mu.Lock()
	f, at := s.facts, s.at
	s.mu.Unlock()
	if f != nil && at.After(begin) { // somebody asked while we waited
		return f, nil
	}
	fresh, err := a.askPool(ctx)
	if err != nil {
		return f, err
	}
	s.mu.Lock()
	s.facts, s.at = fresh, time.Now()
	s.mu.Unlock()
	a.well(fresh.version)
	return fresh, nil
}

// slotAd is what the collector tells of a slot.
type slotAd struct {
	Name, Machine, State, OpSys, OpSysAndVer, Arch, SlotType text
	Cpus, Memory, Disk, VirtualMemory                        number
	TotalVirtualMemory                                       number
	TotalSlotCpus, TotalSlotMemory, TotalSlotDisk            number
	GPUs, TotalSlotGPUs                                      number
	DeviceName                                               text `json:"GPUs_DeviceName"`
	AssignedGPUs                                             text
	HasContainer, HasSingularity, HasDocker                  truth
	Start                                                    *truth
}

// truth is a boolean, or false where the ad has something else.
type truth bool

// UnmarshalJSON reads it.
func (t *truth) UnmarshalJSON(data []byte) error {
	*t = truth(string(data) == "true")
	return nil
}

const slotAttributes = "Name,Machine,State,OpSys,OpSysAndVer,Arch,SlotType,Cpus,Memory,Disk,VirtualMemory,TotalVirtualMemory,TotalSlotCpus,TotalSlotMemory," +
	"TotalSlotDisk,GPUs,TotalSlotGPUs,GPUs_DeviceName,AssignedGPUs,HasContainer,HasSingularity,HasDocker,Start"

// askPool asks the collector for the slots and for the schedd.
func (a *Adapter) askPool(ctx context.Context) (*facts, error) {
	var pool []string
	if a.settings.Pool != "" {
		pool = []string{"-pool", a.settings.Pool}
	}
	f := new(facts)
	ans, err := a.run(ctx, as{}, "", "condor_status", append(slices.Clone(pool), "-json", "-attributes", slotAttributes)...)
	if err == nil && ans.code != 0 {
		err = complaint("condor_status", ans)
	}
	if err != nil {
		return nil, err
	}
	if f.slots, err = parseSlots(ans.out); err != nil {
		return nil, fail.Errorf("condor.Resources", fail.Unavailable, "", "%v", err)
	}
	args := append(slices.Clone(pool), "-schedd", "-json", "-attributes", "Name,Machine,CondorVersion,TotalRunningJobs,TotalIdleJobs,TotalHeldJobs")
	if a.settings.Schedd != "" {
		args = append(args, "-constraint", "Name == "+quote(a.settings.Schedd))
	}
	if ans, err = a.run(ctx, as{}, "", "condor_status", args...); err != nil {
		return nil, err
	}
	f.version, f.running, f.waiting = parseSchedds(ans.out)
	if ans, err := a.exec(ctx, as{}, "", "condor_config_val", "-summary"); err == nil && ans.code == 0 {
		f.groups, f.licences = parseConfig(string(ans.out))
	}
	return f, nil
}

// parseSlots reads the slots; what a partitionable one gave away is counted in it.
func parseSlots(data []byte) ([]slot, error) {
	if len(strings.TrimSpace(string(data))) == 0 {
		return nil, nil
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("the collector's answer can't be understood: %w", err)
	}
	var out []slot
	for _, r := range raw {
		var x slotAd
		if json.Unmarshal(r, &x) != nil || x.Machine == "" || x.SlotType == "Dynamic" {
			continue
		}
		part := x.SlotType == "Partitionable"
		size := func(whole, now number, unit float64) int64 {
			n := float64(now)
			if part && whole > 0 {
				n = float64(whole)
			}
			return int64(max(0, min(n*unit, 1<<60)))
		}
		s := slot{
			Machine: string(x.Machine), OpSys: string(x.OpSys), OpSysAndVer: string(x.OpSysAndVer), Arch: string(x.Arch),
			CPUs: size(x.TotalSlotCpus, x.Cpus, 1), Memory: size(x.TotalSlotMemory, x.Memory, 1<<20), Disk: size(x.TotalSlotDisk, x.Disk, 1<<10),
			Virtual: size(0, max(x.TotalVirtualMemory, x.VirtualMemory), 1<<10), GPUs: size(x.TotalSlotGPUs, x.GPUs, 1),
			Partitionable: part, Containers: bool(x.HasContainer || x.HasSingularity || x.HasDocker),
			open: (x.Start == nil || bool(*x.Start)) && x.State != "Owner" && x.State != "Drained",
		}
		if x.DeviceName != "" {
			s.GPUNames = []string{string(x.DeviceName)}
		}
		// The devices have an ad each, GPUs_CUDA0 and so on.
		var all map[string]json.RawMessage
		if json.Unmarshal(r, &all) == nil {
			for name, v := range all {
				var device struct{ DeviceName text }
				if strings.HasPrefix(name, "GPUs_") && json.Unmarshal(v, &device) == nil && device.DeviceName != "" {
					s.GPUNames = append(s.GPUNames, string(device.DeviceName))
				}
			}
		}
		if part || x.State == "Unclaimed" {
			s.freeCPUs, s.freeMemory = min(size(0, x.Cpus, 1), s.CPUs), min(size(0, x.Memory, 1<<20), s.Memory)
		}
		out = append(out, s)
	}
	return out, nil
}

// parseSchedds sums schedds up.
func parseSchedds(data []byte) (version string, running, waiting int) {
	var ads []struct {
		CondorVersion    text
		TotalRunningJobs number
		TotalIdleJobs    number
		TotalHeldJobs    number
	}
	if json.Unmarshal(data, &ads) != nil {
		return "", 0, 0
	}
	for _, x := range ads {
		if version == "" {
			version = plainVersion(string(x.CondorVersion))
		}
		running += int(max(0, min(x.TotalRunningJobs, 1<<30)))
		waiting += int(max(0, min(x.TotalIdleJobs+x.TotalHeldJobs, 1<<30)))
	}
	return version, running, waiting
}

// plainVersion takes "23.9.6" out of "$CondorVersion: 23.9.6 2026-07-12 … $".
func plainVersion(s string) string {
	for f := range strings.FieldsSeq(s) {
		if strings.Trim(f, "0123456789.") == "" && strings.Contains(f, ".") {
			return f
		}
	}
	return ""
}

// parseConfig takes accounting groups and concurrency limits out of a configuration.
func parseConfig(summary string) (groups, licences []string) {
	for line := range strings.Lines(summary) {
		name, value, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if strings.EqualFold(name, "GROUP_NAMES") {
			groups = strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r <= ' ' })
		}
		if limit, ok := strings.CutSuffix(strings.ToUpper(name), "_LIMIT"); ok && limitName.MatchString(limit) {
			licences = append(licences, strings.ToLower(limit))
		}
	}
	return groups, licences
}

// resourcesAge is how old the answer of Resources may be.
const resourcesAge = time.Second

// Resources tells what the pool has: like slots of machines are an environment, the
// schedd's queue is the one share.
func (a *Adapter) Resources(ctx context.Context) (adapters.Resources, error) {
	f, err := a.stock.get(ctx, a, resourcesAge)
	if err != nil {
		return adapters.Resources{}, err
	}
	s := &a.stock
	s.mu.Lock()
	defer s.mu.Unlock()
	r := f.resources()
	last := s.last
	r.Static, r.Dynamic = max(last.Static, 1), max(last.Dynamic, 1)
	if last.Static > 0 && !reflect.DeepEqual(static(last), static(r)) {
		r.Static++
	}
	if last.Dynamic > 0 && !reflect.DeepEqual(dynamic(last), dynamic(r)) {
		r.Dynamic++
	}
	s.last = r
	return r, nil
}

// static leaves of resources what seldom changes.
func static(r adapters.Resources) adapters.Resources {
	out := adapters.Resources{Environments: slices.Clone(r.Environments), Shares: slices.Clone(r.Shares)}
	for i := range out.Environments {
		e := &out.Environments[i]
		e.Disk = e.Disk >> 30 // it changes with every file
		e.Nodes, e.Available, e.FreeCPUs, e.FreeMemory = 0, 0, 0, 0
	}
	for i := range out.Shares {
		h := &out.Shares[i]
		h.Open, h.Running, h.Waiting, h.FreeSlots = false, 0, 0, 0
	}
	return out
}

// dynamic leaves the rest.
func dynamic(r adapters.Resources) (d [][5]int64) {
	for _, e := range r.Environments {
		d = append(d, [5]int64{int64(e.Nodes), int64(e.Available), int64(e.FreeCPUs), e.FreeMemory})
	}
	for _, h := range r.Shares {
		open := int64(0)
		if h.Open {
			open = 1
		}
		d = append(d, [5]int64{open, int64(h.Running), int64(h.Waiting), int64(h.FreeSlots)})
	}
	return d
}

// node is a machine with all of its slots.
type node struct {
	slot
	free bool
}

// resources shapes the facts as GLUE 2.0 has them.
func (f *facts) resources() adapters.Resources {
	machines := map[string]*node{}
	for _, s := range f.slots {
		n := machines[s.Machine]
		if n == nil {
			copied := s
			machines[s.Machine] = &node{slot: copied, free: s.open}
			continue
		}
		n.CPUs, n.Memory, n.Disk, n.GPUs = n.CPUs+s.CPUs, n.Memory+s.Memory, n.Disk+s.Disk, n.GPUs+s.GPUs
		n.freeCPUs, n.freeMemory = n.freeCPUs+s.freeCPUs, n.freeMemory+s.freeMemory
		n.free, n.Containers = n.free || s.open, n.Containers || s.Containers
		n.GPUNames = append(n.GPUNames, s.GPUNames...)
	}
	envs := map[string]*adapters.Environment{}
	share := adapters.Share{ID: shareName, Default: true, Open: true, Running: f.running, Waiting: f.waiting}
	for _, name := range slices.Sorted(maps.Keys(machines)) {
		n := machines[name]
		id := fmt.Sprintf("%s-%s-%dcpu-%dMiB", lower(n.OpSysAndVer, n.OpSys, "unknown"), lower(n.Arch, "unknown"), n.CPUs, n.Memory>>20)
		if n.GPUs > 0 {
			id += fmt.Sprintf("-%dgpu", n.GPUs)
		}
		e := envs[id]
		if e == nil {
			e = &adapters.Environment{
				ID: id, OperatingSystem: reverse(systems, n.OpSys, "other"), OSVersion: n.OpSysAndVer, CPUArchitecture: reverse(architectures, n.Arch, "other"),
				CPUs: int(n.CPUs), Memory: n.Memory, VirtualMemory: n.Virtual, Disk: n.Disk,
			}
			if n.GPUs > 0 {
				kind := ""
				if len(n.GPUNames) > 0 {
					kind = n.GPUNames[0]
				}
				e.GPUs = map[string]int{kind: int(n.GPUs)}
			}
			if n.Containers {
				e.Features = []string{"container"}
			}
			envs[id] = e
		}
		e.Nodes++
		e.VirtualMemory, e.Disk = min(e.VirtualMemory, n.Virtual), min(e.Disk, n.Disk)
		if n.free {
			e.Available++
			e.FreeCPUs += int(n.freeCPUs)
			e.FreeMemory += n.freeMemory
		}
		if len(e.HostNames) < adapters.MaxHostNames {
			e.HostNames = append(e.HostNames, name)
		}
		share.Slots += int(n.CPUs)
		share.MaxCPUs = max(share.MaxCPUs, int(n.CPUs))
		share.MaxMemory = max(share.MaxMemory, n.Memory)
	}
	share.MaxNodes = 1
	var r adapters.Resources
	for _, id := range slices.Sorted(maps.Keys(envs)) {
		e := envs[id]
		r.Environments = append(r.Environments, *e)
		share.Environments = append(share.Environments, id)
		share.FreeSlots += e.FreeCPUs
	}
	share.FreeSlots = min(share.FreeSlots, share.Slots)
	r.Shares = []adapters.Share{share}
	return r
}

func lower(words ...string) string {
	for _, w := range words {
		if w != "" {
			return strings.ToLower(w)
		}
	}
	return ""
}

// expressions remembers what the pool said of expressions.
type expressions struct {
	mu    sync.Mutex
	known map[string]error
}

// maxKnown bounds the memory for them.
const maxKnown = 1000

// parseExpression asks the pool whether an expression is one. When it can't be asked
// the submission will tell.
func (a *Adapter) parseExpression(expr string) error {
	x := &a.exprs
	x.mu.Lock()
	err, ok := x.known[expr]
	x.mu.Unlock()
	if ok {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var args []string
	if a.settings.Pool != "" {
		args = []string{"-pool", a.settings.Pool}
	}
	ans, runErr := a.run(ctx, as{}, "", "condor_status", append(args, "-limit", "1", "-af", "Name", "-constraint", expr)...)
	if runErr != nil {
		return nil // see above
	}
	if ans.code != 0 {
		said := strings.Join(strings.Fields(string(ans.complaint)), " ")
		if !strings.Contains(said, "constraint") && !strings.Contains(said, "pars") {
			return nil
		}
		err = fail.Errorf("condor.Check", fail.Invalid, "", "HTCondor can't read it")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.known == nil || len(x.known) >= maxKnown {
		x.known = map[string]error{}
	}
	x.known[expr] = err
	return err
}

// Detect reports whether a local HTCondor answers with its default settings, and its
// version.
func Detect(ctx context.Context) (version string, err error) {
	s := new(Settings)
	if err := s.ensureDefaults(); err != nil {
		return "", err
	}
	a := &Adapter{tools: newTools(s), settings: s}
	f, err := a.stock.get(ctx, a, 0)
	if err != nil {
		return "", err
	}
	if f.version == "" {
		return "", fail.Errorf("condor.Detect", fail.Unavailable, "", "HTCondor's collector answers, but knows of no schedd")
	}
	if ans, err := a.run(ctx, as{}, "", "condor_q", "-totals", "-constraint", "false"); err != nil || ans.code != 0 {
		if err == nil {
			err = complaint("condor_q", ans)
		}
		return "", err
	}
	return f.version, nil
}
