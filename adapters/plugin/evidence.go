package plugin

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// phases puts our phases beside those of the wire.
var phases = map[adapters.Phase]proto.Phase{
	adapters.Unknown: proto.Phase_PHASE_UNKNOWN, adapters.Queued: proto.Phase_PHASE_QUEUED, adapters.Held: proto.Phase_PHASE_HELD,
	adapters.Running: proto.Phase_PHASE_RUNNING, adapters.Suspended: proto.Phase_PHASE_SUSPENDED, adapters.Exited: proto.Phase_PHASE_EXITED,
	adapters.Stopped: proto.Phase_PHASE_STOPPED, adapters.Cancelled: proto.Phase_PHASE_CANCELLED, adapters.Lost: proto.Phase_PHASE_LOST,
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func moment(t *timestamppb.Timestamp) time.Time {
	if t == nil || t.CheckValid() != nil {
		return time.Time{}
	}
	return t.AsTime()
}

func evidence(e *adapters.Evidence) *proto.Evidence {
	out := &proto.Evidence{
		Tag: string(e.Tag), Handle: e.Handle, Phase: phases[e.Phase], Signal: clip(e.Signal, maxWord), Reason: clip(e.Reason, maxSentence), NotRun: e.NotRun, LeaseEnded: e.LeaseEnded,
		Started: stamp(e.Started), Ended: stamp(e.Ended), Problem: problem(e.Err), Progress: e.Progress, Memory: e.Usage.Memory,
		Hosts: valid(e.Hosts[:min(len(e.Hosts), maxList)]),
	}
	if e.ExitStatus != nil {
		status := int32(max(math.MinInt32, min(math.MaxInt32, *e.ExitStatus)))
		out.ExitStatus = &status
	}
	if e.Usage.CPU != 0 {
		out.Cpu = durationpb.New(e.Usage.CPU)
	}
	if len(e.Attributes) > 0 {
		out.Attributes = map[string]string{}
		for k, v := range e.Attributes {
			out.Attributes[clip(k, maxWord)] = clip(v, maxAttribute)
		}
	}
	return out
}

// readEvidence takes evidence only if it can be true: whatever can't is Unknown
// with the reason, since it must never end a job. h is the handle that was asked for;
// nil for evidence that was pushed.
func readEvidence(p *proto.Evidence, h adapters.Handle) adapters.Evidence {
	e := adapters.Evidence{Handle: h}
	if p == nil {
		p = &proto.Evidence{}
	}
	if h == nil {
		e.Handle = slices.Clone(p.Handle)
	}
	if p.Tag != "" {
		if err := adapters.Tag(p.Tag).Validate(); err != nil {
			return doubt(e, "a tag that is none: %s", clip(fmt.Sprintf("%q", p.Tag), maxWord))
		}
		e.Tag = adapters.Tag(p.Tag)
	}
	if h == nil && (e.Tag == "" || len(p.Handle) == 0 || len(p.Handle) > maxHandle) {
		return doubt(e, "without a tag or a handle that can be")
	}
	if h != nil && len(p.Handle) > 0 && len(p.Handle) <= maxHandle {
		e.Handle = slices.Clone(p.Handle) // perhaps its form of today
	}
	known := false
	for ours, theirs := range phases {
		if theirs == p.Phase {
			e.Phase, known = ours, true
		}
	}
	if !known {
		return doubt(e, "of the phase %d, which this gateway does not know", p.Phase)
	}
	if e.Phase != adapters.Unknown && e.Tag == "" {
		return doubt(e, "without a tag")
	}
	if e.Phase == adapters.Unknown {
		if e.Err = failure("Status", p.Problem); e.Err == nil {
			return doubt(e, "of no phase, without a problem")
		}
		return e
	}
	e.Signal, e.Reason, e.NotRun = clip(p.Signal, maxWord), clip(p.Reason, maxSentence), p.NotRun
	e.LeaseEnded = p.LeaseEnded && e.Phase == adapters.Stopped
	e.Started, e.Ended = moment(p.Started), moment(p.Ended)
	if p.ExitStatus != nil {
		status := int(*p.ExitStatus)
		e.ExitStatus = &status
	}
	switch {
	case e.Phase != adapters.Exited && (e.ExitStatus != nil || e.Signal != ""):
		return doubt(e, "that is %v with an exit status or a signal", e.Phase)
	case e.Phase == adapters.Exited && (e.ExitStatus != nil) == (e.Signal != ""):
		return doubt(e, "that is exited with both or neither of exit status and signal")
	case e.NotRun && e.Phase != adapters.Stopped && e.Phase != adapters.Cancelled && e.Phase != adapters.Lost:
		return doubt(e, "that is %v and never ran", e.Phase)
	case e.Phase.Final() && e.Phase != adapters.Exited && e.Reason == "":
		e.Reason = map[adapters.Phase]string{
			adapters.Stopped: "the manager stopped the job and did not say why", adapters.Lost: "the manager does not know the job any more",
		}[e.Phase]
	case !e.Phase.Final():
		e.Ended = time.Time{}
	}
	if p.Progress > 0 && p.Progress <= 1 {
		e.Progress = p.Progress
	}
	for _, host := range p.Hosts[:min(len(p.Hosts), maxList)] {
		e.Hosts = append(e.Hosts, clip(host, maxWord))
	}
	if p.Cpu != nil && p.Cpu.CheckValid() == nil {
		e.Usage.CPU = max(p.Cpu.AsDuration(), 0)
	}
	e.Usage.Memory = max(p.Memory, 0)
	if n := len(p.Attributes); n > 0 {
		names := make([]string, 0, n)
		for k := range p.Attributes {
			names = append(names, k)
		}
		slices.Sort(names)
		e.Attributes = map[string]string{}
		for _, k := range names[:min(n, adapters.MaxAttributes)] {
			e.Attributes[clip(k, maxWord)] = clip(p.Attributes[k], maxAttribute)
		}
	}
	return e
}

// doubt makes evidence that says nothing.
func doubt(e adapters.Evidence, format string, args ...any) adapters.Evidence {
	return adapters.Evidence{
		Tag: e.Tag, Handle: e.Handle,
		Err: fail.Errorf("plugin.Status", fail.Uncertain, string(e.Tag), "the plug-in gives evidence "+format, args...),
	}
}

func properties(p adapters.Properties) *proto.Properties {
	return &proto.Properties{
		Type: clip(p.Type, maxWord), ManagerUri: clip(p.ManagerURI, maxWord), Version: clip(p.Version, maxWord),
		Suspend: p.Suspend, Hold: p.Hold, Push: p.Push, Bulk: p.Bulk, Lease: p.Lease,
		MaxBatch: int64(p.MaxBatch), MaxJobs: int64(p.MaxJobs), Requests: p.Requests, MaxOutput: p.MaxOutput,
	}
}

func readProperties(p *proto.Properties) adapters.Properties {
	out := adapters.Properties{
		Type: clip(p.GetType(), maxWord), ManagerURI: clip(p.GetManagerUri(), maxWord), Version: clip(p.GetVersion(), maxWord),
		Suspend: p.GetSuspend(), Hold: p.GetHold(), Push: p.GetPush(), Bulk: p.GetBulk(), Lease: p.GetLease(),
		MaxBatch: int(max(p.GetMaxBatch(), 0)), MaxJobs: int(max(p.GetMaxJobs(), 0)), MaxOutput: max(p.GetMaxOutput(), 0),
	}
	if r := p.GetRequests(); r > 0 && !math.IsInf(r, 1) {
		out.Requests = r
	}
	if out.Type == "" {
		out.Type = Type
	}
	if !strings.Contains(out.ManagerURI, ":") {
		out.ManagerURI = "urn:portolan:manager:plugin"
	}
	return out
}

func resources(r adapters.Resources) *proto.ResourcesReply {
	out := &proto.ResourcesReply{Static: r.Static, Dynamic: r.Dynamic}
	for _, e := range r.Environments {
		x := &proto.Environment{
			Id: clip(e.ID, maxWord), OperatingSystem: clip(e.OperatingSystem, maxWord), OsVersion: clip(e.OSVersion, maxWord),
			CpuArchitecture: clip(e.CPUArchitecture, maxWord), Cpus: int64(e.CPUs), CpuSpeed: e.CPUSpeed, Memory: e.Memory, VirtualMemory: e.VirtualMemory,
			Disk: e.Disk, Features: valid(e.Features), HostNames: valid(e.HostNames), Nodes: int64(e.Nodes), Available: int64(e.Available),
			FreeCpus: int64(e.FreeCPUs), FreeMemory: e.FreeMemory,
		}
		if len(e.GPUs) > 0 {
			x.Gpus = map[string]int64{}
			for k, v := range e.GPUs {
				x.Gpus[clip(k, maxWord)] = int64(v)
			}
		}
		out.Environments = append(out.Environments, x)
	}
	for _, s := range r.Shares {
		x := &proto.Share{
			Id: clip(s.ID, maxWord), Default: s.Default, Environments: valid(s.Environments), MaxCpus: int64(s.MaxCPUs), MaxNodes: int64(s.MaxNodes),
			MaxMemory: s.MaxMemory, Slots: int64(s.Slots), Open: s.Open, Running: int64(s.Running), Waiting: int64(s.Waiting), FreeSlots: int64(s.FreeSlots),
		}
		if s.MaxWallTime > 0 {
			x.MaxWallTime = durationpb.New(s.MaxWallTime)
		}
		out.Shares = append(out.Shares, x)
	}
	return out
}

// count takes a number that counts something: never negative, nor so large that a
// sum of them overflows.
func count(n int64) int { return int(max(0, min(n, 1<<40))) }

func size(n int64) int64 { return max(0, min(n, 1<<60)) }

func words(all []string, most int) []string {
	var out []string
	for _, s := range all[:min(len(all), most)] {
		out = append(out, clip(s, maxWord))
	}
	return out
}

func readResources(r *proto.ResourcesReply) (adapters.Resources, error) {
	out := adapters.Resources{Static: r.Static, Dynamic: r.Dynamic}
	if len(r.Environments) > maxList || len(r.Shares) > maxList {
		return adapters.Resources{}, fail.Errorf("plugin.Resources", fail.Unavailable, "",
			"the plug-in tells %d environments and %d shares; at most %d of each are taken", len(r.Environments), len(r.Shares), maxList)
	}
	for _, e := range r.Environments {
		x := adapters.Environment{
			ID: clip(e.GetId(), maxWord), OperatingSystem: clip(e.GetOperatingSystem(), maxWord), OSVersion: clip(e.GetOsVersion(), maxWord),
			CPUArchitecture: clip(e.GetCpuArchitecture(), maxWord), CPUs: count(e.GetCpus()), Memory: size(e.GetMemory()),
			VirtualMemory: size(e.GetVirtualMemory()), Disk: size(e.GetDisk()), Features: words(e.GetFeatures(), maxList),
			HostNames: words(e.GetHostNames(), adapters.MaxHostNames), Nodes: count(e.GetNodes()), Available: count(e.GetAvailable()),
			FreeCPUs: count(e.GetFreeCpus()), FreeMemory: size(e.GetFreeMemory()),
		}
		if s := e.GetCpuSpeed(); s > 0 && s < 1e15 {
			x.CPUSpeed = s
		}
		if len(e.GetGpus()) > 0 && len(e.GetGpus()) <= maxList {
			x.GPUs = map[string]int{}
			for k, v := range e.GetGpus() {
				x.GPUs[clip(k, maxWord)] = count(v)
			}
		}
		out.Environments = append(out.Environments, x)
	}
	for _, s := range r.Shares {
		x := adapters.Share{
			ID: clip(s.GetId(), maxWord), Default: s.GetDefault(), Environments: words(s.GetEnvironments(), maxList), MaxCPUs: count(s.GetMaxCpus()),
			MaxNodes: count(s.GetMaxNodes()), MaxMemory: size(s.GetMaxMemory()), Slots: count(s.GetSlots()), Open: s.GetOpen(),
			Running: count(s.GetRunning()), Waiting: count(s.GetWaiting()), FreeSlots: count(s.GetFreeSlots()),
		}
		if d := s.GetMaxWallTime(); d != nil && d.CheckValid() == nil {
			x.MaxWallTime = max(d.AsDuration(), 0)
		}
		out.Shares = append(out.Shares, x)
	}
	return out, nil
}

func health(h adapters.Health) *proto.HealthReply {
	out := &proto.HealthReply{
		Path: clip(string(h.Path), maxWord), Version: clip(h.Version, maxWord), Problem: clip(h.Problem, maxSentence), Since: stamp(h.Since),
		Contact: stamp(h.Contact), Requests: h.Requests, Waiting: int64(h.Waiting),
	}
	for _, p := range h.Offered {
		out.Offered = append(out.Offered, clip(string(p), maxWord))
	}
	for _, r := range h.Remarks {
		out.Remarks = append(out.Remarks, clip(r, maxSentence))
	}
	return out
}

func readHealth(p *proto.HealthReply) adapters.Health {
	out := adapters.Health{
		Path: adapters.Path(clip(p.GetPath(), maxWord)), Version: clip(p.GetVersion(), maxWord), Problem: clip(p.GetProblem(), maxSentence),
		Since: moment(p.GetSince()), Contact: moment(p.GetContact()), Requests: max(p.GetRequests(), 0), Waiting: count(p.GetWaiting()),
	}
	for _, o := range words(p.GetOffered(), 64) {
		out.Offered = append(out.Offered, adapters.Path(o))
	}
	for _, r := range p.GetRemarks()[:min(len(p.GetRemarks()), 64)] {
		out.Remarks = append(out.Remarks, clip(r, maxSentence))
	}
	return out
}

func handles(all []adapters.Handle) [][]byte {
	out := make([][]byte, len(all))
	for i, h := range all {
		out[i] = h
	}
	return out
}

// goodHandle says what is wrong with a handle that a plug-in gives.
func goodHandle(h []byte) error {
	if len(h) == 0 || len(h) > maxHandle {
		return fail.Errorf("plugin", fail.Uncertain, "", "the plug-in gives a handle of %d bytes; it has 1 to %d", len(h), maxHandle)
	}
	return nil
}
