package boinc

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Status gives what is known, at most a poll interval old.
func (a *Adapter) Status(ctx context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	if len(handles) == 0 {
		return nil, nil
	}
	list := make([]adapters.Evidence, len(handles))
	var open bool
	for i, h := range handles {
		p, err := parseHandle(h)
		if err != nil {
			list[i] = adapters.Evidence{Handle: h, Err: err}
			continue
		}
		j, err := a.known(ctx, p)
		switch {
		case err != nil:
			list[i] = adapters.Evidence{Tag: p.tag, Handle: h, Err: err}
		case j == nil:
			list[i] = adapters.Evidence{Tag: p.tag, Handle: h, Phase: adapters.Lost, Reason: "the project does not know this job, or the gateway has forgotten it"}
		default:
			a.mu.Lock()
			open = open || j.final == nil
			a.mu.Unlock()
		}
	}
	var err error
	if open {
		err = a.refresh(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, h := range handles {
		p, unread := parseHandle(h)
		if unread != nil || list[i].Handle != nil {
			continue // was answered above
		}
		j := a.jobs[p.tag]
		switch {
		case j == nil: // forgotten meanwhile
			list[i] = adapters.Evidence{Tag: p.tag, Phase: adapters.Lost, Reason: "the gateway has forgotten this job"}
		case j.final == nil && err != nil:
			list[i] = adapters.Evidence{Tag: p.tag, Err: err}
		default:
			list[i] = a.evidence(j)
		}
		list[i].Handle = h
	}
	return list, nil
}

// known finds the job of a handle: in memory, or at the project when the memory was
// lost. It is nil when there is none.
func (a *Adapter) known(ctx context.Context, p parsed) (*job, error) {
	a.mu.Lock()
	j, b := a.jobs[p.tag], a.byID[p.batch]
	same := j != nil && j.batch.id == p.batch
	open := same && j.batch.state == batchOpen
	a.mu.Unlock()
	switch {
	case open:
		return j, nil
	case same:
		if _, err := a.placed(ctx, p.tag); err != nil {
			return nil, err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.jobs[p.tag], nil
	case j != nil || b != nil: // placed anew, or forgotten
		return nil, nil
	}
	if !a.own(p) {
		return nil, nil
	}
	if err := a.takeIn(ctx, p.batch); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if j := a.jobs[p.tag]; j != nil && j.batch.id == p.batch {
		return j, nil
	}
	return nil, nil
}

func (a *Adapter) own(p parsed) bool { return p.name == a.jobName(p.tag) }

// evidence says where a job stands.
func (a *Adapter) evidence(j *job) adapters.Evidence {
	e := adapters.Evidence{Tag: j.record.Tag, Handle: a.handleOf(j), Started: j.started}
	if f := j.final; f != nil {
		e.Phase, e.ExitStatus, e.Signal, e.Reason, e.NotRun = f.Phase, f.Exit, f.Signal, f.Reason, f.NotRun
		e.Started, e.Ended, e.Usage.CPU, e.Attributes = f.Start, f.End, f.CPU, f.Attributes
		if f.Phase == adapters.Exited {
			e.Progress = 1
		}
		return e
	}
	e.Phase = adapters.Queued
	if !j.started.IsZero() {
		// Sent: whether it runs this moment, or its host is switched off, nobody tells.
		e.Phase = adapters.Running
	}
	// The project tells nothing of a job's own progress: this is the part of its batch
	// that is done, as the project's fraction_done.
	done := 0
	for _, other := range j.batch.jobs {
		if other.final != nil || other.status == statusDone || other.status == statusError {
			done++
		}
	}
	e.Progress = float64(done) / float64(len(j.batch.jobs))
	e.Attributes = map[string]string{"batch_id": fmt.Sprint(j.batch.id), "fraction_done": fmt.Sprintf("%.4g", e.Progress)}
	switch {
	case j.cancel != nil:
		e.Reason = "the job is to end; the host hears of it when it asks the project next"
	case j.status == statusDone:
		e.Reason = "a result was accepted; its outputs are being fetched"
	}
	return e
}

// Watch delivers evidence as the rounds of questions bring it.
func (a *Adapter) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(a.settings.Poll)
		defer tick.Stop()
		for {
			if a.busy() {
				_ = a.refresh(ctx) // Health shows what is wrong
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	err := a.feed.Watch(ctx, emit)
	cancel()
	<-done
	return err
}

// busy says that there is a job to be asked about.
func (a *Adapter) busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.batches {
		if b.state == batchOpen && b.open > 0 {
			return true
		}
	}
	return false
}

// Cancel notes the intent and tells the project. What the project can't be told now
// it is told later.
func (a *Adapter) Cancel(ctx context.Context, handles []adapters.Handle) []error {
	errs := make([]error, len(handles))
	var lines []entry
	var todo []*job
	var which []int
	for i, h := range handles {
		p, err := parseHandle(h)
		if err != nil {
			errs[i] = err
			continue
		}
		j, err := a.known(ctx, p)
		if err != nil {
			errs[i] = err
			continue
		}
		if j == nil {
			errs[i] = unknownJob("boinc.Cancel", p.tag)
			continue
		}
		a.mu.Lock()
		if j.final == nil {
			if j.cancel == nil {
				j.cancel = &cancelled{Tag: p.tag}
				lines = append(lines, entry{Cancel: j.cancel})
			}
			if !j.aborted && !slices.Contains(todo, j) {
				todo, which = append(todo, j), append(which, i)
			}
		}
		a.mu.Unlock()
	}
	if err := a.note(true, lines...); err != nil {
		for _, i := range which {
			errs[i] = err
		}
		return errs
	}
	if len(todo) > 0 {
		if err := a.abort(ctx, todo); err != nil {
			// It is written down and will be told with the next round.
			a.log.Info("the project is told later to abort jobs", "jobs", len(todo), "error", err)
		}
	}
	return errs
}

// Forget drops a job that ended, with its outputs. When all of a batch are dropped it
// is retired.
func (a *Adapter) Forget(ctx context.Context, h adapters.Handle) error {
	p, err := parseHandle(h)
	if err != nil {
		return err
	}
	a.mu.Lock()
	j, b := a.jobs[p.tag], a.byID[p.batch]
	if j == nil || j.batch.id != p.batch {
		a.mu.Unlock()
		if b == nil {
			return nil
		}
		return a.retire(ctx, b)
	}
	if j.final == nil {
		e := a.evidence(j)
		a.mu.Unlock()
		return fail.Errorf("boinc.Forget", fail.Conflict, string(p.tag), "the job is %v; only a job that ended can be forgotten", e.Phase)
	}
	a.mu.Unlock()
	a.gate.RLock()
	err = a.note(true, entry{Forget: p.tag})
	if err == nil {
		a.mu.Lock()
		a.forget(j)
		a.mu.Unlock()
	}
	a.gate.RUnlock()
	if err != nil {
		return err
	}
	if err := a.removeOutputs(p.tag); err != nil {
		return err
	}
	return a.retire(ctx, j.batch)
}

// retire gives a batch up of which nothing is needed any more.
func (a *Adapter) retire(ctx context.Context, b *batch) error {
	a.mu.Lock()
	over := b.kept == 0 && b.open == 0 && b.state == batchOpen
	a.mu.Unlock()
	if !over {
		return nil
	}
	if err := a.c.retireBatch(ctx, b.id); err != nil && !gone(err) {
		return wrap("retire_batch", err, false)
	}
	a.mu.Lock()
	a.drop(b)
	a.mu.Unlock()
	if err := a.note(false, entry{Dropped: b.record.Name}); err != nil {
		return err
	}
	return a.tidy()
}

// Resources tells what the administrator knows of the hosts: the project tells only
// their platforms.
func (a *Adapter) Resources(ctx context.Context) (adapters.Resources, error) {
	a.introduced(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.platforms == nil {
		return adapters.Resources{}, fail.Errorf("boinc.Resources", fail.Unavailable, a.site, "the project has not told yet which kinds of hosts it has")
	}
	c := a.settings.Capacity
	names := a.platforms
	if len(names) == 0 {
		names = []string{"unknown"}
	}
	running, waiting := 0, 0
	perApp := map[string][2]int{}
	for _, b := range a.batches {
		for _, j := range b.jobs {
			n := perApp[b.record.App]
			switch {
			case b.state == batchGone || j.final != nil:
			case j.started.IsZero():
				waiting++
				n[1]++
			default:
				running++
				n[0]++
			}
			perApp[b.record.App] = n
		}
	}
	open := !a.info.webDown
	var r adapters.Resources
	var ids []string
	for i, name := range names {
		k := kindOf(name)
		e := adapters.Environment{
			ID: name, OperatingSystem: k.system, CPUArchitecture: k.architecture, CPUs: c.CPUs, Memory: c.Memory, VirtualMemory: c.Memory,
			Disk: c.Disk, HostNames: []string{a.site},
		}
		// How the hosts divide among platforms nobody tells: they are shown once.
		if i == 0 {
			e.Nodes, e.Available = c.Hosts, c.Hosts
			e.FreeCPUs = max(0, c.Hosts*c.CPUs-running)
		}
		r.Environments = append(r.Environments, e)
		ids = append(ids, name)
	}
	// Hosts take jobs of all applications: the slots are shown with the first.
	for i, app := range a.apps() {
		s := adapters.Share{
			ID: app, Default: i == 0, Environments: ids, MaxCPUs: 1, MaxNodes: 1, MaxMemory: c.Memory, Open: open && a.unfit[app] == "",
			Running: perApp[app][0], Waiting: perApp[app][1],
		}
		if i == 0 {
			s.Slots, s.FreeSlots = c.Slots, max(0, c.Slots-running)
		}
		r.Shares = append(r.Shares, s)
	}
	a.version(&r, running, waiting)
	return r, nil
}

// apps lists the applications, the default first.
func (a *Adapter) apps() []string {
	var list []string
	if a.settings.Wrapper != "" {
		list = append(list, a.settings.Wrapper)
	}
	for _, m := range a.settings.Applications {
		if !slices.Contains(list, m.App) {
			list = append(list, m.App)
		}
	}
	return list
}

// version counts changes.
func (a *Adapter) version(r *adapters.Resources, running, waiting int) {
	static := fmt.Sprint(a.platforms)
	if static != a.lastStatic {
		a.static++
		a.lastStatic = static
	}
	openShares := 0
	for _, s := range r.Shares {
		if s.Open {
			openShares++
		}
	}
	if state := [3]int{running, waiting, openShares}; state != a.lastState || a.dynamic == 0 {
		a.dynamic++
		a.lastState = state
	}
	r.Static, r.Dynamic = a.static, a.dynamic
}
