package fake

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Options say what an adapter on a World claims.
type Options struct {
	NoPush      bool // hide Watch
	NoSuspend   bool // hide Suspend and Resume
	MaxBatch    int
	Environment adapters.Environment // zero: a machine of 64 CPUs
}

// Open gives an adapter on the world. Any number may be open, one after another
// or at once.
func (w *World) Open(o Options) adapters.Adapter {
	a := &base{world: w, options: o}
	switch {
	case o.NoPush && o.NoSuspend:
		return a
	case o.NoPush:
		return struct {
			*base
			suspender
		}{a, suspender{a}}
	case o.NoSuspend:
		return struct {
			*base
			pusher
		}{a, pusher{a}}
	}
	return struct {
		*base
		suspender
		pusher
	}{a, suspender{a}, pusher{a}}
}

type (
	base struct {
		world   *World
		options Options
	}
	suspender struct{ a *base }
	pusher    struct{ a *base }
)

const prefix = "fake/1 "

func handle(tag adapters.Tag) adapters.Handle { return adapters.Handle(prefix + string(tag)) }

func tagOf(h adapters.Handle) (adapters.Tag, error) {
	tag, ok := strings.CutPrefix(string(h), prefix)
	if !ok {
		return "", fail.Errorf("fake", fail.Invalid, "", "the handle is not of this adapter")
	}
	return adapters.Tag(tag), nil
}

// Properties gives what the adapter claims.
func (a *base) Properties() adapters.Properties {
	return adapters.Properties{
		Type: "fake", ManagerURI: "urn:portolan:manager:fake", Version: "1",
		Suspend: !a.options.NoSuspend, Push: !a.options.NoPush, MaxBatch: a.options.MaxBatch,
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
	return nil
}

// Submit places jobs.
func (a *base) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	placed := make([]adapters.Placed, len(jobs))
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
	w := a.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jobs[spec.Tag] == nil {
		w.place(spec, steps)
	}
	if f.Err != nil {
		return adapters.Placed{Err: f.Err}
	}
	return adapters.Placed{Handle: handle(spec.Tag)}
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Find gives the handles of the tags that the world keeps.
func (a *base) Find(ctx context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	found := map[adapters.Tag]adapters.Handle{}
	for _, tag := range tags {
		if f := a.fault(ctx, "find", tag); f.Err != nil {
			return nil, f.Err
		}
		a.world.mu.Lock()
		if a.world.jobs[tag] != nil {
			found[tag] = handle(tag)
		}
		a.world.mu.Unlock()
	}
	return found, nil
}

// Status gives evidence.
func (a *base) Status(ctx context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	evidence := make([]adapters.Evidence, len(handles))
	for i, h := range handles {
		tag, err := tagOf(h)
		if err != nil {
			evidence[i] = adapters.Evidence{Handle: h, Err: err}
			continue
		}
		if f := a.fault(ctx, "status", tag); f.Err != nil {
			return nil, f.Err
		}
		a.world.mu.Lock()
		if j := a.world.jobs[tag]; j != nil {
			evidence[i] = j.evidence
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
	for i, h := range handles {
		tag, err := tagOf(h)
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
			j := a.world.jobs[tag]
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
		delete(w.jobs, j.tag)
		return nil
	})[0]
	if fail.Is(err, fail.NotFound) {
		return nil
	}
	return err
}

// Resources gives what the options say, with the slots of the world.
func (a *base) Resources(ctx context.Context) (adapters.Resources, error) {
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
	w.asked++
	return adapters.Resources{
		Static: 1, Dynamic: w.asked, Environments: []adapters.Environment{e},
		Shares: []adapters.Share{{
			ID: "fake", Default: true, Environments: []string{e.ID}, Slots: slots, Open: true, Running: w.running, FreeSlots: slots - w.running,
		}},
	}, nil
}

// Health is always good.
func (a *base) Health() adapters.Health {
	return adapters.Health{Path: "memory", Version: "1", Offered: []adapters.Path{"memory"}}
}

// Close leaves the world as it is.
func (a *base) Close() error { return nil }

// Watch delivers evidence as it comes.
func (p pusher) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return p.a.world.feed.Watch(ctx, emit)
}
