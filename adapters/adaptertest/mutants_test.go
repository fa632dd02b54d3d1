package adaptertest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// mutant is the fake with some of its methods replaced. Only those that are set are.
type mutant struct {
	adapters.Adapter
	properties func(adapters.Properties) adapters.Properties
	check      func(*jsdl.JobDefinition) error
	submit     func([]adapters.Job) []adapters.Placed
	find       func([]adapters.Tag) (map[adapters.Tag]adapters.Handle, error)
	evidence   func(adapters.Evidence) adapters.Evidence
	status     func([]adapters.Handle) ([]adapters.Evidence, error)
	cancel     func([]adapters.Handle) []error
	output     func(h adapters.Handle, s adapters.Stream, offset int64) (io.ReadCloser, error)
	forget     func(adapters.Handle) error
	resources  func(adapters.Resources) adapters.Resources
	health     func(adapters.Health) adapters.Health
	hold       func([]adapters.Handle) []error
	release    func([]adapters.Handle) []error
	suspend    func([]adapters.Handle) []error
	resume     func([]adapters.Handle) []error
	watch      func(context.Context, func([]adapters.Evidence)) error
	extend     func([]adapters.Extension) []error
	reserve    func([]adapters.Reservation) []adapters.Reserved
	state      func(adapters.ReservationState) adapters.ReservationState
	reserved   func([]adapters.Tag) ([]adapters.ReservationState, error)
	unreserve  func([]adapters.Handle) []error
}

func (m *mutant) Properties() adapters.Properties {
	p := m.Adapter.Properties()
	if m.properties != nil {
		p = m.properties(p)
	}
	return p
}

func (m *mutant) Check(d *jsdl.JobDefinition) error {
	if m.check != nil {
		return m.check(d)
	}
	return m.Adapter.Check(d)
}

func (m *mutant) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	if m.submit != nil {
		return m.submit(jobs)
	}
	return m.Adapter.Submit(ctx, jobs)
}

func (m *mutant) Find(ctx context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	if m.find != nil {
		return m.find(tags)
	}
	return m.Adapter.Find(ctx, tags)
}

func (m *mutant) Status(ctx context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	if m.status != nil {
		return m.status(handles)
	}
	all, err := m.Adapter.Status(ctx, handles)
	if m.evidence != nil {
		for i := range all {
			all[i] = m.evidence(all[i])
		}
	}
	return all, err
}

func (m *mutant) Cancel(ctx context.Context, handles []adapters.Handle) []error {
	if m.cancel != nil {
		return m.cancel(handles)
	}
	return m.Adapter.Cancel(ctx, handles)
}

func (m *mutant) Output(ctx context.Context, h adapters.Handle, s adapters.Stream, offset int64) (io.ReadCloser, error) {
	if m.output != nil {
		return m.output(h, s, offset)
	}
	return m.Adapter.Output(ctx, h, s, offset)
}

func (m *mutant) Forget(ctx context.Context, h adapters.Handle) error {
	if m.forget != nil {
		return m.forget(h)
	}
	return m.Adapter.Forget(ctx, h)
}

func (m *mutant) Resources(ctx context.Context) (adapters.Resources, error) {
	r, err := m.Adapter.Resources(ctx)
	if m.resources != nil {
		r = m.resources(r)
	}
	return r, err
}

func (m *mutant) Health() adapters.Health {
	h := m.Adapter.Health()
	if m.health != nil {
		h = m.health(h)
	}
	return h
}

func (m *mutant) Hold(ctx context.Context, handles []adapters.Handle) []error {
	if m.hold != nil {
		return m.hold(handles)
	}
	return m.Adapter.(adapters.Holder).Hold(ctx, handles)
}

func (m *mutant) Release(ctx context.Context, handles []adapters.Handle) []error {
	if m.release != nil {
		return m.release(handles)
	}
	return m.Adapter.(adapters.Holder).Release(ctx, handles)
}

func (m *mutant) Suspend(ctx context.Context, handles []adapters.Handle) []error {
	if m.suspend != nil {
		return m.suspend(handles)
	}
	return m.Adapter.(adapters.Suspender).Suspend(ctx, handles)
}

func (m *mutant) Resume(ctx context.Context, handles []adapters.Handle) []error {
	if m.resume != nil {
		return m.resume(handles)
	}
	return m.Adapter.(adapters.Suspender).Resume(ctx, handles)
}

func (m *mutant) Extend(ctx context.Context, xs []adapters.Extension) []error {
	if m.extend != nil {
		return m.extend(xs)
	}
	return m.Adapter.(adapters.Leaser).Extend(ctx, xs)
}

func (m *mutant) reserver() adapters.Reserver { return m.Adapter.(adapters.Reserver) }

func (m *mutant) Reserve(ctx context.Context, all []adapters.Reservation) []adapters.Reserved {
	if m.reserve != nil {
		return m.reserve(all)
	}
	return m.reserver().Reserve(ctx, all)
}

func (m *mutant) Reservations(ctx context.Context, tags []adapters.Tag) ([]adapters.ReservationState, error) {
	if m.reserved != nil {
		return m.reserved(tags)
	}
	all, err := m.reserver().Reservations(ctx, tags)
	if m.state != nil {
		for i := range all {
			all[i] = m.state(all[i])
		}
	}
	return all, err
}

func (m *mutant) Unreserve(ctx context.Context, handles []adapters.Handle) []error {
	if m.unreserve != nil {
		return m.unreserve(handles)
	}
	return m.reserver().Unreserve(ctx, handles)
}

func (m *mutant) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	if m.watch != nil {
		return m.watch(ctx, emit)
	}
	return m.Adapter.(adapters.Watcher).Watch(ctx, emit)
}

var bg = context.Background()

func no(kind fail.Kind) error { return fail.Errorf("mutant", kind, "", "so it is") }

func each(handles []adapters.Handle, err error) []error {
	errs := make([]error, len(handles))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// mutants break one promise each; the parts named must see it.
var mutants = []struct {
	breaks string
	parts  string // separated by blanks
	do     func(m *mutant, w *fake.World)
}{
	{"claims what it has not", "Properties", func(m *mutant, _ *fake.World) {
		m.properties = func(p adapters.Properties) adapters.Properties { p.Hold = false; return p }
	}},
	{"has no absolute URI", "Properties", func(m *mutant, _ *fake.World) {
		m.properties = func(p adapters.Properties) adapters.Properties { p.ManagerURI = "fake"; return p }
	}},
	{"reports a signal as exit status 0", "Signal", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if e.Signal != "" {
				e.Signal, e.ExitStatus = "", new(int)
			}
			return e
		}
	}},
	{"takes exit status 137 for SIGKILL", "Exits", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if e.ExitStatus != nil && *e.ExitStatus == 137 {
				e.Signal, e.ExitStatus = "SIGKILL", nil
			}
			return e
		}
	}},
	{"reports every exit as 0", "Exits Many FiveThousand", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if e.ExitStatus != nil {
				e.ExitStatus = new(int)
			}
			return e
		}
	}},
	{"takes a missing program for exit status 127", "Missing", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if e.Phase == adapters.Stopped {
				e.Phase, e.ExitStatus, e.NotRun = adapters.Exited, new(127), false
			}
			return e
		}
	}},
	{"gives no sentence", "Missing TimeOut", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence { e.Reason = ""; return e }
	}},
	{"forgets the ends of leases", "Lease/Ends", func(m *mutant, _ *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			for i := range jobs {
				jobs[i].NotAfter = time.Time{}
			}
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"extends no lease, and says that it did", "Lease/Extend", func(m *mutant, _ *fake.World) {
		m.extend = func(xs []adapters.Extension) []error { return make([]error, len(xs)) }
	}},
	{"says nothing of why a job ended with its lease", "Lease/Ends", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence { e.LeaseEnded = false; return e }
	}},
	{"runs a job in no reservation", "Reserve/Runs Reserve/Ends Reserve/Refused", func(m *mutant, _ *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			for i := range jobs {
				jobs[i].Reservation = nil
			}
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"only says that it reserves", "Reserve/Runs", func(m *mutant, _ *fake.World) {
		made := map[adapters.Tag]adapters.ReservationState{}
		m.reserve = func(all []adapters.Reservation) (out []adapters.Reserved) {
			for _, r := range all {
				h := adapters.Handle("only said " + r.Tag)
				made[r.Tag] = adapters.ReservationState{Tag: r.Tag, Handle: h, CPUs: r.CPUs, From: r.From, Until: r.Until}
				out = append(out, adapters.Reserved{Handle: h})
			}
			return out
		}
		m.reserved = func(tags []adapters.Tag) (out []adapters.ReservationState, _ error) {
			for _, tag := range tags {
				s := made[tag]
				s.Phase = s.PhaseAt(time.Now())
				out = append(out, s)
			}
			return out, nil
		}
		m.unreserve = func(h []adapters.Handle) []error { return each(h, nil) }
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			for i := range jobs {
				jobs[i].Reservation = nil
			}
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"begins a reservation at once", "Reserve/Made Reserve/Runs", func(m *mutant, _ *fake.World) {
		m.reserve = func(all []adapters.Reservation) []adapters.Reserved {
			for i := range all {
				all[i].From = time.Time{}
			}
			return m.reserver().Reserve(bg, all)
		}
	}},
	{"makes another reservation of the same tag", "Reserve/Made", func(m *mutant, _ *fake.World) {
		again := map[adapters.Tag]int{}
		m.reserve = func(all []adapters.Reservation) []adapters.Reserved {
			for i := range all {
				if tag := all[i].Tag; again[tag] > 0 {
					all[i].Tag = adapters.Tag(fmt.Sprintf("%s-%d", tag, again[tag]))
				}
				again[all[i].Tag]++
			}
			return m.reserver().Reserve(bg, all)
		}
	}},
	{"fails all reservations for one that is bad", "Reserve/Made", func(m *mutant, _ *fake.World) {
		m.reserve = func(all []adapters.Reservation) []adapters.Reserved {
			out := m.reserver().Reserve(bg, all)
			for _, r := range out {
				if r.Err != nil {
					for i := range out {
						out[i] = r
					}
				}
			}
			return out
		}
	}},
	{"lists no reservations", "Reserve/Made", func(m *mutant, _ *fake.World) {
		m.reserved = func(tags []adapters.Tag) ([]adapters.ReservationState, error) {
			if tags == nil {
				return nil, nil
			}
			return m.reserver().Reservations(bg, tags)
		}
	}},
	{"remembers reservations only as long as it is open", "Reserve/Made Reserve/AnswerLost Reserve/Ends", func(m *mutant, _ *fake.World) {
		mine := map[adapters.Tag]bool{}
		m.reserve = func(all []adapters.Reservation) []adapters.Reserved {
			for _, r := range all {
				mine[r.Tag] = true
			}
			return m.reserver().Reserve(bg, all)
		}
		m.state = func(s adapters.ReservationState) adapters.ReservationState {
			if !mine[s.Tag] {
				return adapters.ReservationState{Tag: s.Tag, Phase: adapters.ReservationGone}
			}
			return s
		}
	}},
	{"knows reservations that there are not", "Reserve/Made", func(m *mutant, _ *fake.World) {
		m.state = func(s adapters.ReservationState) adapters.ReservationState {
			if s.Phase == adapters.ReservationGone {
				s.Phase, s.Handle, s.From, s.Until = adapters.ReservationPending, adapters.Handle("x"), time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
			}
			return s
		}
	}},
	{"only says that it releases", "Reserve/Made Reserve/Ends", func(m *mutant, _ *fake.World) {
		m.unreserve = func(h []adapters.Handle) []error { return each(h, nil) }
	}},
	{"releases once only", "Reserve/Made", func(m *mutant, _ *fake.World) {
		gone := map[string]bool{}
		m.unreserve = func(h []adapters.Handle) []error {
			errs := m.reserver().Unreserve(bg, h)
			for i := range h {
				if gone[string(h[i])] {
					errs[i] = no(fail.NotFound)
				}
				gone[string(h[i])] = true
			}
			return errs
		}
	}},
	{"forgets a reservation with its window", "Reserve/Ends", func(m *mutant, _ *fake.World) {
		m.state = func(s adapters.ReservationState) adapters.ReservationState {
			if s.Phase == adapters.ReservationEnded {
				return adapters.ReservationState{Tag: s.Tag, Phase: adapters.ReservationGone}
			}
			return s
		}
	}},
	{"promises what it has not", "Reserve/Refused", func(m *mutant, _ *fake.World) {
		m.reserve = func(all []adapters.Reservation) []adapters.Reserved {
			out := m.reserver().Reserve(bg, all)
			for i := range out {
				if fail.Is(out[i].Err, fail.Exhausted) {
					out[i] = adapters.Reserved{Handle: adapters.Handle("fake-reservation/1 " + all[i].Tag)}
				}
			}
			return out
		}
	}},
	{"takes what can't be for what can't be now", "Reserve/Refused", func(m *mutant, _ *fake.World) {
		m.reserve = func(all []adapters.Reservation) []adapters.Reserved {
			out := m.reserver().Reserve(bg, all)
			for i := range out {
				if fail.Is(out[i].Err, fail.Unsupported) {
					out[i].Err = no(fail.Exhausted)
				}
			}
			return out
		}
	}},
	{"takes a lost answer to a reservation for a refusal", "Reserve/AnswerLost", func(m *mutant, _ *fake.World) {
		m.reserve = func(all []adapters.Reservation) []adapters.Reserved {
			out := m.reserver().Reserve(bg, all)
			for i := range out {
				if fail.Is(out[i].Err, fail.Uncertain) {
					out[i].Err = no(fail.Denied)
				}
			}
			return out
		}
	}},
	{"takes reservations for gone while the manager is down", "Reserve/Down", func(m *mutant, _ *fake.World) {
		m.reserved = func(tags []adapters.Tag) ([]adapters.ReservationState, error) {
			all, err := m.reserver().Reservations(bg, tags)
			if err != nil {
				all = make([]adapters.ReservationState, len(tags))
				for i := range tags {
					all[i] = adapters.ReservationState{Tag: tags[i], Phase: adapters.ReservationGone}
				}
			}
			return all, nil
		}
	}},
	{"takes jobs into reservations that it has not", "Reserve/None", func(m *mutant, _ *fake.World) {
		m.properties = func(p adapters.Properties) adapters.Properties { p.Reserve = false; return p }
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			for i := range jobs {
				jobs[i].Reservation = nil
			}
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"makes an empty job fail", "Nothing", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if e.Phase == adapters.Exited {
				e.ExitStatus = new(1)
			}
			return e
		}
	}},
	{"takes any tag", "BadTags", func(m *mutant, _ *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			for i := range jobs {
				if jobs[i].Tag.Validate() != nil {
					jobs[i].Tag = "t" + adapters.Tag(fmt.Sprintf("%x", jobs[i].Tag))[:min(60, 2*len(jobs[i].Tag))]
				}
			}
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"knows jobs of handles that it can't read", "BadHandles", func(m *mutant, _ *fake.World) {
		m.cancel = func(h []adapters.Handle) []error { m.Adapter.Cancel(bg, h); return each(h, nil) }
	}},
	{"says nothing of jobs that it does not know", "UnknownJob", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if e.Phase == adapters.Lost {
				e.Phase, e.Err = adapters.Unknown, no(fail.NotFound)
			}
			return e
		}
	}},
	{"runs a tag twice", "SameTagTwice SameTagAtOnce", func(m *mutant, _ *fake.World) {
		var n int
		var mu sync.Mutex
		seen := map[adapters.Tag]bool{}
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			mu.Lock()
			for i := range jobs {
				if seen[jobs[i].Tag] {
					n++
					jobs[i].Tag = adapters.Tag(fmt.Sprintf("again-%d", n))
				}
				seen[jobs[i].Tag] = true
			}
			mu.Unlock()
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"finds nothing", "Find Faults/AnswerLost", func(m *mutant, _ *fake.World) {
		m.find = func([]adapters.Tag) (map[adapters.Tag]adapters.Handle, error) { return nil, nil }
	}},
	{"finds what is not there", "Find", func(m *mutant, _ *fake.World) {
		m.find = func(tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
			found, err := m.Adapter.Find(bg, tags)
			for _, t := range tags {
				if _, ok := found[t]; !ok {
					found[t] = adapters.Handle("fake/1 " + string(t))
				}
			}
			return found, err
		}
	}},
	{"answers a batch in another order", "Batch", func(m *mutant, _ *fake.World) {
		m.status = func(h []adapters.Handle) ([]adapters.Evidence, error) {
			all, err := m.Adapter.Status(bg, h)
			for i := range len(all) / 2 {
				all[i], all[i+1] = all[i+1], all[i]
			}
			return all, err
		}
	}},
	{"fails a batch for one bad job", "Batch", func(m *mutant, _ *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			placed := m.Adapter.Submit(bg, jobs)
			for _, p := range placed {
				if p.Err != nil {
					for i := range placed {
						placed[i] = p
					}
				}
			}
			return placed
		}
	}},
	{"never cancels", "Cancel CancelQueued CancelHeld", func(m *mutant, _ *fake.World) {
		m.cancel = func(h []adapters.Handle) []error { return each(h, nil) }
	}},
	{"reports a cancel as a signal", "Cancel CancelAtOnce CancelSuspended", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if e.Phase == adapters.Cancelled {
				e.Phase, e.Signal, e.NotRun = adapters.Exited, "SIGTERM", false
			}
			return e
		}
	}},
	{"makes a late cancel the end", "CancelEnded CancelRace", func(m *mutant, _ *fake.World) {
		cancelled := map[string]bool{}
		m.cancel = func(h []adapters.Handle) []error {
			for _, one := range h {
				cancelled[string(one)] = true
			}
			return m.Adapter.Cancel(bg, h)
		}
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if cancelled[string(e.Handle)] {
				e.Phase, e.ExitStatus, e.Ended = adapters.Cancelled, nil, time.Now()
			}
			return e
		}
	}},
	{"does not know that a cancelled job never ran", "CancelQueued CancelHeld", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence { e.NotRun = false; return e }
	}},
	{"only says that it suspends", "Suspend", func(m *mutant, _ *fake.World) {
		m.suspend = func(h []adapters.Handle) []error { return each(h, nil) }
	}},
	{"only says that it resumes", "Suspend", func(m *mutant, _ *fake.World) {
		m.resume = func(h []adapters.Handle) []error { return each(h, nil) }
	}},
	{"forgets that a job is held", "Hold", func(m *mutant, w *fake.World) {
		m.resources = func(r adapters.Resources) adapters.Resources {
			if r.Shares[0].Running == 0 {
				for _, tag := range w.Tags() {
					_ = w.Release(tag)
				}
			}
			return r
		}
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			_, _ = m.Resources(bg)
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"never releases", "Hold", func(m *mutant, _ *fake.World) {
		m.release = func(h []adapters.Handle) []error { return each(h, nil) }
	}},
	{"holds what runs", "HoldRunning", func(m *mutant, _ *fake.World) {
		m.hold = func(h []adapters.Handle) []error { return each(h, nil) }
	}},
	{"starts a tag anew after a restart", "RestartWhileRunning", func(m *mutant, w *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			for _, j := range jobs {
				if w.Starts(j.Tag) > 0 {
					_ = w.Finish(j.Tag, 0)
					h, _ := m.Adapter.Find(bg, []adapters.Tag{j.Tag})
					_ = m.Adapter.Forget(bg, h[j.Tag])
				}
			}
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"loses the times", "Times RestartAfterEnd", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if e.Phase.Final() {
				e.Started, e.Ended = time.Time{}, time.Now()
			}
			return e
		}
	}},
	{"takes an end back", "CancelEnded Batch", func(m *mutant, _ *fake.World) {
		seen := map[adapters.Tag]bool{}
		var mu sync.Mutex
		m.watch = func(ctx context.Context, _ func([]adapters.Evidence)) error { <-ctx.Done(); return ctx.Err() }
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			mu.Lock()
			defer mu.Unlock()
			if e.Phase == adapters.Exited {
				if seen[e.Tag] {
					e.ExitStatus = new(77)
				}
				seen[e.Tag] = true
			}
			return e
		}
	}},
	{"ignores the offset", "Output OutputWhileHanging", func(m *mutant, _ *fake.World) {
		m.output = func(h adapters.Handle, s adapters.Stream, _ int64) (io.ReadCloser, error) {
			return m.Adapter.Output(bg, h, s, 0)
		}
	}},
	{"mixes the streams", "Output RestartAfterEnd", func(m *mutant, _ *fake.World) {
		m.output = func(h adapters.Handle, s adapters.Stream, o int64) (io.ReadCloser, error) {
			return m.Adapter.Output(bg, h, 3-s, o)
		}
	}},
	{"keeps outputs to itself until the end", "OutputWhileHanging", func(m *mutant, _ *fake.World) {
		m.output = func(adapters.Handle, adapters.Stream, int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(nil)), nil
		}
	}},
	{"forgets what runs", "Forget", func(m *mutant, _ *fake.World) {
		m.forget = func(adapters.Handle) error { return nil }
	}},
	{"counts no slots", "Capacity", func(m *mutant, _ *fake.World) {
		m.resources = func(r adapters.Resources) adapters.Resources { r.Shares[0].FreeSlots = r.Shares[0].Slots; return r }
	}},
	{"grows the static version each time", "Resources", func(m *mutant, _ *fake.World) {
		n := uint64(0)
		m.resources = func(r adapters.Resources) adapters.Resources { n++; r.Static = n; return r }
	}},
	{"never grows the dynamic version", "Resources", func(m *mutant, _ *fake.World) {
		m.resources = func(r adapters.Resources) adapters.Resources { r.Dynamic = 1; return r }
	}},
	{"has a share of nowhere", "Resources", func(m *mutant, _ *fake.World) {
		m.resources = func(r adapters.Resources) adapters.Resources {
			r.Shares[0].Environments = []string{"nowhere"}
			return r
		}
	}},
	{"pushes nothing", "Push", func(m *mutant, _ *fake.World) {
		m.watch = func(ctx context.Context, _ func([]adapters.Evidence)) error { <-ctx.Done(); return ctx.Err() }
	}},
	{"pushes an end and goes on", "Push", func(m *mutant, _ *fake.World) {
		m.watch = func(ctx context.Context, emit func([]adapters.Evidence)) error {
			return m.Adapter.(adapters.Watcher).Watch(ctx, func(all []adapters.Evidence) {
				emit(all)
				for i := range all {
					all[i] = adapters.Evidence{Tag: all[i].Tag, Handle: all[i].Handle, Phase: adapters.Running}
				}
				emit(all)
			})
		}
	}},
	{"has no contact", "Health", func(m *mutant, _ *fake.World) {
		m.health = func(h adapters.Health) adapters.Health { h.Contact = time.Time{}; return h }
	}},
	{"asks the manager for its health", "Health", func(m *mutant, _ *fake.World) {
		m.health = func(adapters.Health) adapters.Health {
			_, _ = m.Adapter.Resources(bg)
			return m.Adapter.Health()
		}
	}},
	{"loses every thousandth job", "FiveThousand", func(m *mutant, _ *fake.World) {
		n := 0
		var mu sync.Mutex
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			placed := m.Adapter.Submit(bg, jobs)
			mu.Lock()
			defer mu.Unlock()
			for i := range placed {
				if n++; n%1000 == 0 {
					placed[i].Handle = placed[(i+1)%len(placed)].Handle
				}
			}
			return placed
		}
	}},
	{"runs one of five thousand twice", "FiveThousand", func(m *mutant, w *fake.World) {
		var once sync.Once
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			once.Do(func() {
				p := m.Adapter.Submit(bg, jobs[:1])
				for w.Finish(jobs[0].Tag, 0); m.Adapter.Forget(bg, p[0].Handle) != nil; {
				}
			})
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"asks for each job by itself", "Coalesced", func(m *mutant, _ *fake.World) {
		m.status = func(h []adapters.Handle) (all []adapters.Evidence, err error) {
			for i := range h {
				one, err := m.Adapter.Status(bg, h[i:i+1])
				if err != nil {
					return nil, err
				}
				all = append(all, one...)
			}
			return all, nil
		}
	}},
	{"submits alike jobs one by one", "Alike", func(m *mutant, _ *fake.World) {
		m.properties = func(p adapters.Properties) adapters.Properties { p.Bulk = true; return p }
		m.submit = func(jobs []adapters.Job) (placed []adapters.Placed) {
			for i := range jobs {
				placed = append(placed, m.Adapter.Submit(bg, jobs[i:i+1])...)
			}
			return placed
		}
	}},
	{"exceeds its budget", "Budget", func(m *mutant, _ *fake.World) {
		m.properties = func(p adapters.Properties) adapters.Properties { p.Requests = 5; return p }
	}},
	{"ends jobs that it can't ask about", "Faults/Down", func(m *mutant, _ *fake.World) {
		m.status = func(h []adapters.Handle) ([]adapters.Evidence, error) {
			all, err := m.Adapter.Status(bg, h)
			if err != nil {
				for _, one := range h {
					all = append(all, adapters.Evidence{Handle: one, Phase: adapters.Lost, Reason: "the manager does not know it"})
				}
			}
			return all, nil
		}
	}},
	{"says for good what is only for now", "Faults/Down", func(m *mutant, _ *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			placed := m.Adapter.Submit(bg, jobs)
			for i := range placed {
				if placed[i].Err != nil {
					placed[i].Err = no(fail.Unsupported)
				}
			}
			return placed
		}
	}},
	{"finds nothing while the manager is down", "Faults/Down", func(m *mutant, _ *fake.World) {
		m.find = func(tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
			found, _ := m.Adapter.Find(bg, tags)
			return found, nil
		}
	}},
	{"does not say that the manager is down", "Faults/Down", func(m *mutant, _ *fake.World) {
		m.health = func(h adapters.Health) adapters.Health { h.Problem = ""; return h }
	}},
	{"takes a lost answer for a refusal", "Faults/AnswerLost Faults/SubmissionLost", func(m *mutant, _ *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			placed := m.Adapter.Submit(bg, jobs)
			for i := range placed {
				if placed[i].Err != nil {
					placed[i].Err = no(fail.Denied)
				}
			}
			return placed
		}
	}},
	{"takes a lost answer for one that was not done", "Faults/AnswerLost", func(m *mutant, _ *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			placed := m.Adapter.Submit(bg, jobs)
			for i := range placed {
				if placed[i].Err != nil {
					placed[i].Err = no(fail.Unavailable)
				}
			}
			return placed
		}
	}},
	{"goes by ids that are reused", "Faults/ReuseIDs", func(m *mutant, w *fake.World) {
		now := func(h adapters.Handle) adapters.Handle { // whoever bears the id
			id, _, _ := strings.Cut(strings.TrimPrefix(string(h), "fake/2 "), " ")
			for _, tag := range w.Tags() {
				found, _ := m.Adapter.Find(bg, []adapters.Tag{tag})
				live, _ := m.Adapter.Status(bg, []adapters.Handle{found[tag]})
				if strings.HasPrefix(string(found[tag]), "fake/2 "+id+" ") && len(live) == 1 && !live[0].Phase.Final() {
					return found[tag]
				}
			}
			return h
		}
		m.status = func(h []adapters.Handle) ([]adapters.Evidence, error) {
			ask := make([]adapters.Handle, len(h))
			for i := range h {
				ask[i] = now(h[i])
			}
			return m.Adapter.Status(bg, ask)
		}
	}},
	{"loses what was queued when the controller died", "Faults/ControllerKilled", func(m *mutant, w *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence {
			if h := m.Adapter.Health(); e.Phase == adapters.Queued && h.Requests > 20 {
				_ = w.Lose(e.Tag, true)
			}
			return e
		}
	}},
	{"refuses without a name", "Placement", func(m *mutant, _ *fake.World) {
		m.check = func(d *jsdl.JobDefinition) error {
			if m.Adapter.Check(d) != nil {
				return no(fail.Unsupported)
			}
			return nil
		}
	}},
	{"takes a share that there is not", "Placement", func(m *mutant, _ *fake.World) {
		m.check = func(*jsdl.JobDefinition) error { return nil }
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			for i := range jobs {
				d := *jobs[i].Definition
				d.Description.Resources = nil
				jobs[i].Definition = &d
			}
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"lets a job run on beyond its limit", "TimeOut", func(m *mutant, _ *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			for i := range jobs {
				d := *jobs[i].Definition
				p := *d.Description.Application.POSIX
				p.Limits = jsdl.Limits{}
				d.Description.Application = &jsdl.Application{POSIX: &p}
				jobs[i].Definition = &d
			}
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"drops the quotes", "Strings", func(m *mutant, _ *fake.World) {
		m.submit = func(jobs []adapters.Job) []adapters.Placed {
			for i := range jobs {
				d := *jobs[i].Definition
				p := *d.Description.Application.POSIX
				p.Arguments = nil
				for _, a := range jobs[i].Definition.Description.Application.POSIX.Arguments {
					a.Value = strings.ReplaceAll(a.Value, `"`, "")
					p.Arguments = append(p.Arguments, a)
				}
				d.Description.Application = &jsdl.Application{POSIX: &p}
				jobs[i].Definition = &d
			}
			return m.Adapter.Submit(bg, jobs)
		}
	}},
	{"writes handles of its own kind only", "OldHandles", func(m *mutant, _ *fake.World) {
		m.evidence = func(e adapters.Evidence) adapters.Evidence { return e }
		m.status = func(h []adapters.Handle) ([]adapters.Evidence, error) {
			all, err := m.Adapter.Status(bg, h)
			for i := range all {
				if strings.HasPrefix(string(h[i]), "fake/1 ") {
					all[i] = adapters.Evidence{Handle: h[i], Err: no(fail.Invalid)}
				}
			}
			return all, err
		}
	}},
}

// Each promise, broken, is seen by the part that demands it.
func TestMutants(t *testing.T) {
	t.Parallel()
	for _, c := range mutants {
		t.Run(c.breaks, func(t *testing.T) {
			t.Parallel()
			h := mutable(func(m *mutant, w *fake.World) { c.do(m, w) })
			for part := range strings.FieldsSeq(c.parts) {
				if part == "FiveThousand" && testing.Short() {
					continue
				}
				var out strings.Builder
				r, err := adaptertest.Judge(t.Context(), &out, h, "^"+part+"$")
				if err != nil || r.Failed == 0 {
					t.Errorf("%s does not see an adapter that %s (%v):\n%s", part, c.breaks, err, &out)
				}
			}
		})
	}
}

// The harness of mutants lets the fake itself pass every part that they fail.
func TestNoMutant(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range mutants {
		for part := range strings.FieldsSeq(c.parts) {
			seen[part] = true
		}
	}
	for part := range seen {
		if part == "FiveThousand" && testing.Short() {
			continue
		}
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			h := mutable(func(m *mutant, _ *fake.World) {})
			if part == "Reserve/None" {
				h = harness(fake.Options{NoReserve: true})
			}
			if part == "Budget" || part == "Alike" {
				h = harness(fake.Options{Requests: 50, Bulk: true})
			}
			h.Patience = 20 * time.Second
			var out strings.Builder
			if r, err := adaptertest.Judge(t.Context(), &out, h, "^"+part+"$"); err != nil || !r.OK() || r.Skipped > 0 {
				t.Errorf("%v, %+v\n%s", err, r, &out)
			}
		})
	}
}

func mutable(do func(*mutant, *fake.World)) adaptertest.Harness {
	h := harness(fake.Options{})
	h.Open = func(_ testing.TB, site any) adapters.Adapter {
		m := &mutant{Adapter: world(site).Open(fake.Options{})}
		do(m, world(site))
		return m
	}
	h.Seen = func(site any, tag adapters.Tag) adaptertest.Seen {
		var s adaptertest.Seen
		for _, a := range world(site).Definition(tag).Program().Arguments {
			s.Arguments = append(s.Arguments, a.Value)
		}
		return s
	}
	h.OldHandles = func(_ any, h adapters.Handle) []adapters.Handle { return []adapters.Handle{fake.OldHandle(h)} }
	h.Short = false // the mutants of five thousand jobs need them
	h.Patience = 2 * time.Second
	return h
}
