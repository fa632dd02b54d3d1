package fake

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Options say what an adapter on a World claims.
type Options struct {
	NoPush      bool // hide Watch
	NoSuspend   bool // hide Suspend and Resume
	NoHold      bool // hide Hold and Release
	NoLease     bool // hide Extend's ability, and refuse jobs with a NotAfter
	NoReserve   bool // hide the ability to make reservations, and refuse jobs in them
	Recallable  bool // claim that what is lost runs there no more, as a peer does
	Domain      string
	Accounts    []string // that owners may be mapped to; nil is any
	Bulk        bool     // claim that alike jobs cost one request, which they do
	MaxBatch    int
	MaxJobs     int                  // placements that are not final at once
	Requests    float64              // budget a second, kept; 0 is none
	Environment adapters.Environment // zero: a machine of 64 CPUs
}

// Open gives an adapter on the world. Any number may be open, one after another
// or at once.
func (w *World) Open(o Options) adapters.Adapter {
	a := &base{world: w, options: o, limiter: rate.NewLimiter(rate.Inf, 0), opened: time.Now()}
	if o.Requests > 0 {
		a.limiter = rate.NewLimiter(rate.Limit(o.Requests), 1)
	}
	s, h, p := suspender{a}, holder{a}, pusher{a}
	switch [3]bool{!o.NoSuspend, !o.NoHold, !o.NoPush} {
	case [3]bool{true, false, false}:
		return struct {
			*base
			suspender
		}{a, s}
	case [3]bool{false, true, false}:
		return struct {
			*base
			holder
		}{a, h}
	case [3]bool{true, true, false}:
		return struct {
			*base
			suspender
			holder
		}{a, s, h}
	case [3]bool{false, false, true}:
		return struct {
			*base
			pusher
		}{a, p}
	case [3]bool{true, false, true}:
		return struct {
			*base
			suspender
			pusher
		}{a, s, p}
	case [3]bool{false, true, true}:
		return struct {
			*base
			holder
			pusher
		}{a, h, p}
	case [3]bool{true, true, true}:
		return struct {
			*base
			suspender
			holder
			pusher
		}{a, s, h, p}
	}
	return a
}

type (
	base struct {
		world   *World
		options Options
		limiter *rate.Limiter
		opened  time.Time

		mu      sync.Mutex
		health  adapters.Health
		pending *query // the next one, which any number of callers share
	}
	suspender struct{ a *base }
	holder    struct{ a *base }
	pusher    struct{ a *base }
)

// Handles are "fake/2 ID TAG"; those of before, "fake/1 TAG", had no id.
const (
	prefix    = "fake/2 "
	oldPrefix = "fake/1 "
)

func (j *job) handle() adapters.Handle {
	return fmt.Appendf(nil, "%s%d %s", prefix, j.id, j.tag)
}

// OldHandle writes a handle as the version before did.
func OldHandle(h adapters.Handle) adapters.Handle {
	tag, _, err := read(h)
	if err != nil {
		return h
	}
	return adapters.Handle(oldPrefix + string(tag))
}

// read gives what a handle names; an id of 0 is any.
func read(h adapters.Handle) (tag adapters.Tag, id int, err error) {
	bad := fail.Errorf("fake", fail.Invalid, "", "the handle is not of this adapter")
	if old, ok := strings.CutPrefix(string(h), oldPrefix); ok {
		return adapters.Tag(old), 0, nil
	}
	rest, ok := strings.CutPrefix(string(h), prefix)
	number, name, both := strings.Cut(rest, " ")
	if !ok || !both {
		return "", 0, bad
	}
	if id, err = strconv.Atoi(number); err != nil || id < 1 {
		return "", 0, bad
	}
	return adapters.Tag(name), id, nil
}

// Properties gives what the adapter claims.
func (a *base) Properties() adapters.Properties {
	o := a.options
	return adapters.Properties{
		Type: "fake", ManagerURI: "urn:portolan:manager:fake", Version: "1",
		Suspend: !o.NoSuspend, Hold: !o.NoHold, Push: !o.NoPush, Bulk: o.Bulk, Lease: !o.NoLease, Reserve: !o.NoReserve,
		Recallable: o.Recallable, Domain: o.Domain,
		MaxBatch: o.MaxBatch, MaxJobs: o.MaxJobs, Requests: o.Requests,
	}
}

// fault asks for the fault of one call for one job and sits its delay out.
func (a *base) fault(ctx context.Context, op string, tag adapters.Tag) Fault {
	a.world.mu.Lock()
	f := a.world.faults
	a.world.mu.Unlock()
	if f == nil {
		return Fault{}
	}
	fault := f(op, tag)
	if fault.Delay > 0 {
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			if fault.Err == nil {
				fault.Err = fail.E("fake."+op, fail.Unavailable, string(tag), ctx.Err())
			}
		}
	}
	return fault
}

// Check refuses scripts that can't be read or that ask for it.
func (a *base) Check(d *jsdl.JobDefinition) error {
	if f := a.fault(context.Background(), "check", ""); f.Err != nil {
		return f.Err
	}
	steps, err := parse(d)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(steps, func(s step) bool { return s.verb == "unsupported" }); i >= 0 {
		return fail.Errorf("fake.Check", fail.Unsupported, "Executable", "Executable: %s", or(steps[i].arg, "the job asks to be refused"))
	}
	if name := d.ByName(); name != "" {
		return fail.Errorf("fake.Check", fail.Unsupported, "ApplicationName", "ApplicationName: a fake site has no application %q; name an Executable", name)
	}
	return placement(d)
}

// CheckAs is Check for those that run as an account.
func (a *base) CheckAs(d *jsdl.JobDefinition, account string) error {
	if err := a.Check(d); err != nil {
		return err
	}
	return a.account(account)
}

func (a *base) account(name string) error {
	if name == "" || a.options.Accounts == nil || slices.Contains(a.options.Accounts, name) {
		return nil
	}
	return fail.Errorf("fake.Check", fail.Unsupported, "", "there is no account %q on this machine", name)
}

// placement names what no fake site has.
func placement(d *jsdl.JobDefinition) error {
	if d.Description.Resources == nil || d.Description.Resources.Placement == nil {
		return nil
	}
	p := d.Description.Resources.Placement
	var no []string
	for _, one := range []struct {
		element string
		asked   bool
	}{
		{"Share", p.Share != nil && *p.Share != "fake"},
		{"QualityOfService", p.QualityOfService != nil},
		{"Reservation", p.Reservation != nil},
		{"Deadline", p.Deadline != nil},
		{"NotBefore", p.NotBefore != nil},
		{"GPU", len(p.GPUs) > 0},
		{"Licence", len(p.Licences) > 0},
		{"Constraint", p.Constraint != nil},
		{"Container", p.Container != nil},
		{"Quorum", p.Quorum != nil},
		{"Replicas", p.Replicas != nil},
		{"ManagerAttribute", len(p.Manager) > 0},
	} {
		if one.asked {
			no = append(no, one.element)
		}
	}
	if len(no) == 0 {
		return nil
	}
	return fail.Errorf("fake.Check", fail.Unsupported, no[0], "%s: a fake site has no such thing", strings.Join(no, ", "))
}

// Submit places jobs.
func (a *base) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	placed := make([]adapters.Placed, len(jobs))
	if err := a.request(ctx, "submit"); err != nil {
		for i, j := range jobs {
			placed[i].Err = err
			if bad := j.Tag.Validate(); bad != nil {
				placed[i].Err = bad
			}
		}
		return placed
	}
	for i, j := range jobs {
		placed[i] = a.submit(ctx, j)
	}
	return placed
}

func (a *base) submit(ctx context.Context, spec adapters.Job) adapters.Placed {
	if err := spec.Tag.Validate(); err != nil {
		return adapters.Placed{Err: err}
	}
	f := a.fault(ctx, "submit", spec.Tag)
	if f.Err != nil && !f.After {
		return adapters.Placed{Err: f.Err}
	}
	steps, err := parse(spec.Definition)
	if err != nil {
		return adapters.Placed{Err: err}
	}
	for _, s := range steps {
		if s.verb == "reject" || s.verb == "unsupported" {
			return adapters.Placed{Err: fail.Errorf("fake.Submit", fail.Unsupported, string(spec.Tag), "%s", or(s.arg, "the job asks to be refused"))}
		}
	}
	if err := placement(spec.Definition); err != nil {
		return adapters.Placed{Err: err}
	}
	if err := a.account(spec.Account); err != nil {
		return adapters.Placed{Err: err}
	}
	if err := a.within(&spec); err != nil {
		return adapters.Placed{Err: err}
	}
	if a.options.NoLease && !spec.NotAfter.IsZero() {
		return adapters.Placed{Err: fail.Errorf("fake.Submit", fail.Unsupported, string(spec.Tag), "the site can't end a job by itself when its lease is over")}
	}
	w := a.world
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.jobs[spec.Tag]
	lost := w.lose
	w.lose = nil
	switch {
	case lost != nil && !*lost:
		return adapters.Placed{Err: answerLost(spec.Tag)}
	case j == nil && a.options.MaxJobs > 0 && w.live >= a.options.MaxJobs:
		return adapters.Placed{Err: fail.Errorf("fake.Submit", fail.NotAccepting, string(spec.Tag), "the site takes %d jobs at once; wait for one to end", a.options.MaxJobs)}
	case j == nil:
		j = w.place(spec, steps)
	}
	if f.Err != nil {
		return adapters.Placed{Err: f.Err}
	}
	if lost != nil {
		return adapters.Placed{Err: answerLost(spec.Tag)}
	}
	return adapters.Placed{Handle: j.handle()}
}

func answerLost(tag adapters.Tag) error {
	return fail.Errorf("fake.Submit", fail.Uncertain, string(tag), "the answer to the submission was lost")
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Find gives the handles of the tags that the world keeps.
func (a *base) Find(ctx context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	if err := a.request(ctx, "find"); err != nil {
		return nil, err
	}
	found := map[adapters.Tag]adapters.Handle{}
	for _, tag := range tags {
		if f := a.fault(ctx, "find", tag); f.Err != nil {
			return nil, f.Err
		}
		a.world.mu.Lock()
		if j := a.world.jobs[tag]; j != nil {
			found[tag] = j.handle()
		}
		a.world.mu.Unlock()
	}
	return found, nil
}

// Status gives evidence.
func (a *base) Status(ctx context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	if err := a.shared(ctx); err != nil {
		return nil, err
	}
	evidence := make([]adapters.Evidence, len(handles))
	for i, h := range handles {
		tag, id, err := read(h)
		if err != nil {
			evidence[i] = adapters.Evidence{Handle: h, Err: err}
			continue
		}
		if f := a.fault(ctx, "status", tag); f.Err != nil {
			return nil, f.Err
		}
		a.world.mu.Lock()
		if j := a.world.known(tag, id); j != nil {
			evidence[i] = j.snapshot()
		} else {
			evidence[i] = adapters.Evidence{Tag: tag, Handle: h, Phase: adapters.Lost, Reason: "the site does not know this job"}
		}
		a.world.mu.Unlock()
	}
	return evidence, nil
}

// each applies f to the job of each handle, with the world locked.
func (a *base) each(ctx context.Context, op string, handles []adapters.Handle, f func(*World, *job) error) []error {
	errs := make([]error, len(handles))
	trouble := a.request(ctx, op)
	for i, h := range handles {
		tag, id, err := read(h)
		if err == nil {
			err = trouble
		}
		if err != nil {
			errs[i] = err
			continue
		}
		fault := a.fault(ctx, op, tag)
		if fault.Err != nil && !fault.After {
			errs[i] = fault.Err
			continue
		}
		err = func() error {
			a.world.mu.Lock()
			defer a.world.mu.Unlock()
			j := a.world.known(tag, id)
			if j == nil {
				return fail.Errorf("fake."+op, fail.NotFound, string(tag), "the site does not know job %s", tag)
			}
			return f(a.world, j)
		}()
		if fault.Err != nil {
			err = fault.Err
		}
		errs[i] = err
	}
	return errs
}

// Cancel ends jobs.
func (a *base) Cancel(ctx context.Context, handles []adapters.Handle) []error {
	return a.each(ctx, "cancel", handles, func(w *World, j *job) error {
		if !j.phase.Final() {
			w.end(j, adapters.Evidence{Phase: adapters.Cancelled})
		}
		return nil
	})
}

// Extend moves the ends of leases on.
func (a *base) Extend(ctx context.Context, extensions []adapters.Extension) []error {
	handles := make([]adapters.Handle, len(extensions))
	for i, x := range extensions {
		handles[i] = x.Handle
	}
	if a.options.NoLease {
		errs := make([]error, len(extensions))
		for i := range errs {
			errs[i] = fail.Errorf("fake.extend", fail.Unsupported, "", "the site keeps no leases")
		}
		return errs
	}
	until := map[string]time.Time{} // the latest of each, as one may be named twice
	for _, x := range extensions {
		if x.NotAfter.After(until[string(x.Handle)]) {
			until[string(x.Handle)] = x.NotAfter
		}
	}
	return a.each(ctx, "extend", handles, func(w *World, j *job) error {
		if at := until[string(j.handle())]; !j.phase.Final() && !j.notAfter.IsZero() && at.After(j.notAfter) {
			j.notAfter = at
			w.lapseLater(j)
		}
		return nil
	})
}

// Suspend stops running jobs for a while.
func (s suspender) Suspend(ctx context.Context, handles []adapters.Handle) []error {
	return s.a.each(ctx, "suspend", handles, func(w *World, j *job) error {
		switch {
		case j.phase == adapters.Suspended:
		case j.phase == adapters.Running:
			j.left = j.stopTimer()
			w.set(j, adapters.Suspended)
		default:
			return fail.Errorf("fake.suspend", fail.Conflict, string(j.tag), "the job is %v; only a running job can be suspended", j.phase)
		}
		return nil
	})
}

// Resume lets them go on.
func (s suspender) Resume(ctx context.Context, handles []adapters.Handle) []error {
	return s.a.each(ctx, "resume", handles, func(w *World, j *job) error {
		switch {
		case j.phase == adapters.Running:
		case j.phase == adapters.Suspended:
			w.set(j, adapters.Running)
			if j.steps[j.next-1].verb == "sleep" {
				w.sleep(j, j.left)
			}
		default:
			return fail.Errorf("fake.resume", fail.Conflict, string(j.tag), "the job is %v; only a suspended job can be resumed", j.phase)
		}
		return nil
	})
}

// Hold keeps jobs from starting.
func (h holder) Hold(ctx context.Context, handles []adapters.Handle) []error {
	return h.a.each(ctx, "hold", handles, func(w *World, j *job) error {
		switch {
		case j.phase == adapters.Held:
		case j.phase == adapters.Queued:
			w.dequeue(j)
			j.evidence.Reason = "held by the owner"
			w.set(j, adapters.Held)
		default:
			return fail.Errorf("fake.hold", fail.Conflict, string(j.tag), "the job is %v; only a job that has not started can be held", j.phase)
		}
		return nil
	})
}

// Release lets them start.
func (h holder) Release(ctx context.Context, handles []adapters.Handle) []error {
	return h.a.each(ctx, "release", handles, func(w *World, j *job) error {
		switch {
		case j.phase == adapters.Held:
			w.release(j)
		case j.phase.Final():
			return fail.Errorf("fake.release", fail.Conflict, string(j.tag), "the job is %v; only a held job can be released", j.phase)
		}
		return nil
	})
}

// Output reads a stream.
func (a *base) Output(ctx context.Context, h adapters.Handle, s adapters.Stream, offset int64) (io.ReadCloser, error) {
	var data []byte
	errs := a.each(ctx, "output", []adapters.Handle{h}, func(_ *World, j *job) error {
		data = j.out
		if s == adapters.Stderr {
			data = j.err
		}
		data = slices.Clone(data[min(max(offset, 0), int64(len(data))):])
		return nil
	})
	if errs[0] != nil {
		return nil, errs[0]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Forget drops a job that ended.
func (a *base) Forget(ctx context.Context, h adapters.Handle) error {
	err := a.each(ctx, "forget", []adapters.Handle{h}, func(w *World, j *job) error {
		if !j.phase.Final() {
			return fail.Errorf("fake.Forget", fail.Conflict, string(j.tag), "the job is %v; only a job that ended can be forgotten", j.phase)
		}
		w.drop(j)
		return nil
	})[0]
	if fail.Is(err, fail.NotFound) {
		return nil
	}
	return err
}

// Resources gives what the options say, with the slots of the world.
func (a *base) Resources(ctx context.Context) (adapters.Resources, error) {
	if err := a.request(ctx, "resources"); err != nil {
		return adapters.Resources{}, err
	}
	if f := a.fault(ctx, "resources", ""); f.Err != nil {
		return adapters.Resources{}, f.Err
	}
	e := a.options.Environment
	if e.ID == "" {
		e = adapters.Environment{
			ID: "fake", OperatingSystem: "LINUX", OSVersion: "6.1", CPUArchitecture: "x86_64", CPUs: 64, CPUSpeed: 2e9,
			Memory: 64 << 30, VirtualMemory: 64 << 30, Disk: 1 << 40, HostNames: []string{"fake", "localhost"}, Nodes: 1, Available: 1,
		}
	}
	w := a.world
	w.mu.Lock()
	defer w.mu.Unlock()
	slots := w.slots
	if slots == 0 {
		slots = 1 << 20
	}
	waiting := w.live - w.running
	kept := 0 // for reservations whose windows are now, and free
	for _, r := range w.reservations {
		if r.activeAt(time.Now()) {
			kept += r.slots - r.running
		}
	}
	if now := [3]int{w.running, waiting, kept}; now != w.told || w.dynamic == 0 {
		w.told = now
		w.dynamic++
	}
	e.FreeCPUs = max(0, e.CPUs*e.Nodes-w.running)
	return adapters.Resources{
		Static: 1, Dynamic: w.dynamic, Environments: []adapters.Environment{e},
		Shares: []adapters.Share{{
			ID: "fake", Default: true, Environments: []string{e.ID}, Slots: slots, Open: true,
			Running: w.running, Waiting: waiting, FreeSlots: max(0, slots-w.running-kept),
		}},
	}, nil
}

// Close leaves the world as it is.
func (a *base) Close() error { return nil }

// Watch delivers evidence as it comes, except while the manager is down.
func (p pusher) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return p.a.world.feed.Watch(ctx, emit)
}
