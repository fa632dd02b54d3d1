package adaptertest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// bench is one part's site with the adapter that is open on it.
type bench struct {
	testing.TB
	name string // of the part, with details
	*world
}

// world is what the bench of a part shares with those of its details.
type world struct {
	h    *Harness
	site any
	a    adapters.Adapter

	placed   []adapters.Handle
	reserved []adapters.Handle // reservations
	stop     context.CancelFunc
	watched  sync.WaitGroup
	mu       sync.Mutex
	news     chan struct{} // closed and made anew when evidence is pushed
	pushed   map[adapters.Tag][]adapters.Evidence
	told     map[adapters.Tag]ending // the ends that Status told: nothing may follow
	heard    map[adapters.Tag]ending // the ends that Watch told
	dropped  map[adapters.Tag]bool   // forgotten: what Watch had under way says nothing any more
	moment   int                     // counts the ends, so that it is known which came first
}

// ending is the end of a job, and when it was seen.
type ending struct {
	adapters.Evidence
	moment int
}

func (b *bench) open() {
	b.a = b.h.Open(b.TB, b.site)
	b.mu.Lock()
	b.news, b.pushed = make(chan struct{}), map[adapters.Tag][]adapters.Evidence{}
	if b.told == nil {
		b.told, b.dropped = map[adapters.Tag]ending{}, map[adapters.Tag]bool{}
	}
	b.heard = map[adapters.Tag]ending{}
	b.mu.Unlock()
	w, ok := b.a.(adapters.Watcher)
	if !ok {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.watched.Go(func() {
		_ = w.Watch(ctx, func(batch []adapters.Evidence) {
			for _, e := range batch {
				b.pushedNow(e)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, e := range batch {
				b.pushed[e.Tag] = append(b.pushed[e.Tag], e)
			}
			close(b.news)
			b.news = make(chan struct{})
		})
	})
}

// end ends the adapter in the way given.
func (b *bench) end(how func(adapters.Adapter)) {
	if b.stop != nil {
		b.stop()
		b.watched.Wait()
		b.stop = nil
	}
	how(b.a)
	b.a = nil
}

func (b *bench) close() {
	if b.a != nil {
		b.clear()
		b.end(func(a adapters.Adapter) {
			if err := a.Close(); err != nil {
				b.Errorf("Close: %v", err)
			}
		})
	}
}

// clear ends what the part placed and left behind, so that it neither outlives the
// test nor writes into a site that is being cleaned up.
func (b *bench) clear() {
	ctx, stop := context.WithTimeout(context.Background(), b.h.Patience)
	defer stop()
	if len(b.reserved) > 0 {
		defer b.unreserveAll(ctx)
	}
	open := b.placed
	for cancelled := false; len(open) > 0; cancelled = true {
		var left []adapters.Handle
		for _, some := range chunks(b, open) {
			all, err := b.a.Status(ctx, some)
			if err != nil || len(all) != len(some) {
				left = append(left, some...)
				continue
			}
			for i, e := range all {
				if !e.Phase.Final() && e.Phase != adapters.Unknown {
					left = append(left, some[i])
				}
			}
		}
		if open = left; !cancelled {
			for _, some := range chunks(b, open) {
				b.a.Cancel(ctx, some)
			}
			if b.Failed() { // it may never end, and the failure is what matters
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(b.h.Poll):
		}
	}
}

// restart ends the adapter as a crash does and opens it again.
func (b *bench) restart() {
	b.end(b.h.Crash)
	b.open()
}

// detail judges one thing of several by itself, so that it can be skipped aloud.
func (b *bench) detail(name string, test func(*bench)) {
	b.Helper()
	full := b.name + "/" + name
	sub(b.TB, name, func(t testing.TB) {
		if why, lacks := b.h.lack(full); lacks {
			t.Skipf("skipped: %s", why)
		}
		test(&bench{TB: t, name: full, world: b.world})
	})
}

// sub runs a test within a test.
func sub(tb testing.TB, name string, test func(testing.TB)) {
	switch t := tb.(type) {
	case *testing.T:
		t.Run(name, func(t *testing.T) { test(t) })
	case *verdict:
		t.sub(name, test)
	default:
		tb.Fatalf("a test of the kind %T has no parts", tb)
	}
}

// patient does something that takes so long by its nature.
func (b *bench) patient(longer time.Duration, do func(*bench)) {
	h := *b.h
	h.Patience += longer
	w := b.world
	before := w.h
	w.h = &h
	defer func() { w.h = before }()
	do(b)
}

// TempDir is a directory that jobs can reach.
func (b *bench) TempDir() string { return b.h.Dir(b.TB) }

var tags atomic.Int64

func newTag() adapters.Tag {
	return adapters.Tag(fmt.Sprintf("test-%d-%d", time.Now().UnixNano(), tags.Add(1)))
}

// submit places one job that must be taken.
func (b *bench) submit(d *jsdl.JobDefinition) adapters.Handle {
	b.Helper()
	h, _ := b.submitTag(newTag(), d)
	return h
}

func (b *bench) submitTag(tag adapters.Tag, d *jsdl.JobDefinition) (adapters.Handle, adapters.Tag) {
	b.Helper()
	if err := b.a.Check(d); err != nil {
		b.Fatalf("Check refuses a job that can run: %v", err)
	}
	placed := b.a.Submit(b.Context(), []adapters.Job{{Tag: tag, Definition: d, Owner: "tester"}})
	if len(placed) != 1 || placed[0].Err != nil || len(placed[0].Handle) == 0 {
		b.Fatalf("Submit of one job must answer one handle: %+v", placed)
	}
	b.placed = append(b.placed, placed[0].Handle)
	return placed[0].Handle, tag
}

// look asks for the evidence of one job.
func (b *bench) look(h adapters.Handle) (adapters.Evidence, error) {
	b.Helper()
	all, err := b.ask(context.Background(), []adapters.Handle{h})
	if err != nil {
		return adapters.Evidence{}, err
	}
	return all[0], nil
}

// ask asks for the evidence of several jobs, and holds it to what any must be.
func (b *bench) ask(ctx context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	b.Helper()
	b.mu.Lock()
	since := b.moment
	b.mu.Unlock()
	all, err := b.a.Status(ctx, handles)
	if err != nil {
		return nil, err
	}
	if len(all) != len(handles) {
		b.Fatalf("Status of %d handles gives %d answers: each handle has one", len(handles), len(all))
	}
	for _, e := range all {
		b.saw(e, since)
	}
	return all, nil
}

func (b *bench) status(h adapters.Handle) adapters.Evidence {
	b.Helper()
	e, err := b.look(h)
	if err != nil {
		b.Fatalf("Status: %v", err)
	}
	return e
}

// saw judges what Status told in a call that began at the moment since: an end that
// was known by then stands.
func (b *bench) saw(e adapters.Evidence, since int) {
	b.Helper()
	b.sane("Status", e)
	b.mu.Lock()
	told, known := b.told[e.Tag]
	heard, pushed := b.heard[e.Tag]
	if e.Phase.Final() && !known && e.Tag != "" {
		b.moment++
		b.told[e.Tag] = ending{e, b.moment}
	}
	b.mu.Unlock()
	if known {
		b.follows("Status", told, e, told.moment <= since)
	}
	if pushed {
		b.follows("Status", heard, e, heard.moment <= since)
	}
}

// pushedNow judges what Watch told: after an end it tells nothing else.
func (b *bench) pushedNow(e adapters.Evidence) {
	b.sane("Watch", e)
	b.mu.Lock()
	if b.dropped[e.Tag] {
		b.mu.Unlock()
		return
	}
	heard, known := b.heard[e.Tag]
	told, asked := b.told[e.Tag]
	if e.Phase.Final() && !known && e.Tag != "" {
		b.moment++
		b.heard[e.Tag] = ending{e, b.moment}
	}
	b.mu.Unlock()
	if known {
		b.follows("Watch", heard, e, true)
	}
	if asked {
		b.follows("Watch", told, e, false) // it may have been under way
	}
}

// follows judges evidence that came after, or about with, an end.
func (b *bench) follows(from string, before ending, e adapters.Evidence, after bool) {
	b.Helper()
	if e.Phase == adapters.Unknown || !e.Phase.Final() && !after || verdictOf(before.Evidence) == verdictOf(e) {
		return
	}
	b.Errorf("%s gives evidence %s for %s, which was %s: an end is final", from, show(e), e.Tag, show(before.Evidence))
}

// sane holds evidence to what any must be, wherever it comes from.
func (b *bench) sane(from string, e adapters.Evidence) {
	b.Helper()
	bad := func(why string) { b.Errorf("%s gives evidence %s for %s: %s", from, show(e), e.Tag, why) }
	switch {
	case e.Phase == adapters.Unknown && e.Err == nil:
		bad("Unknown needs an Err that says why nothing is known")
	case e.Phase != adapters.Exited && (e.ExitStatus != nil || e.Signal != ""):
		bad("only Exited has an exit status or a signal")
	case e.ExitStatus != nil && e.Signal != "":
		bad("a program ends with a status or by a signal, not both")
	case e.NotRun && e.Phase != adapters.Stopped && e.Phase != adapters.Cancelled && e.Phase != adapters.Lost:
		bad("NotRun belongs to Stopped, Cancelled and Lost")
	case !e.Ended.IsZero() && !e.Phase.Final():
		bad("a job that has not ended has no time of its end")
	case e.Progress < 0 || e.Progress > 1:
		bad(fmt.Sprintf("Progress is from 0 to 1, not %v", e.Progress))
	case len(e.Attributes) > adapters.MaxAttributes:
		bad(fmt.Sprintf("%d attributes are more than MaxAttributes", len(e.Attributes)))
	}
}

// verdictOf is what may never change once a job has ended.
func verdictOf(e adapters.Evidence) string {
	status := -1
	if e.ExitStatus != nil {
		status = *e.ExitStatus
	}
	return fmt.Sprint(e.Phase, status, e.Signal)
}

// forgets says that the manager may forget the ends of jobs from now on.
func (b *bench) forgets(tags ...adapters.Tag) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, tag := range tags {
		delete(b.told, tag)
		delete(b.heard, tag)
		b.dropped[tag] = true
	}
}

// forget drops a job that ended.
func (b *bench) forget(h adapters.Handle) error {
	b.forgets(b.status(h).Tag)
	return b.a.Forget(b.Context(), h)
}

// until waits for evidence that satisfies ok. What can't be told for now is waited
// out.
func (b *bench) until(h adapters.Handle, what string, ok func(adapters.Evidence) bool) adapters.Evidence {
	b.Helper()
	var last adapters.Evidence
	var trouble error
	b.eventually(what, func() bool {
		last, trouble = b.look(h)
		if trouble != nil {
			if adapters.ClassOf(trouble) == adapters.Permanent {
				b.Fatalf("Status: %v", trouble)
			}
			return false
		}
		if !ok(last) && last.Phase.Final() {
			b.Fatalf("waiting for %s: the job has ended otherwise: %s", what, show(last))
		}
		return ok(last)
	}, func() string {
		if trouble != nil {
			return trouble.Error()
		}
		return show(last)
	})
	return last
}

// eventually tries again on every push, and now and then in between, for what is
// not pushed.
func (b *bench) eventually(what string, ok func() bool, seen func() string) {
	b.Helper()
	patience := time.NewTimer(b.h.Patience)
	defer patience.Stop()
	again := time.NewTicker(b.h.Poll)
	defer again.Stop()
	for {
		b.mu.Lock()
		news := b.news
		b.mu.Unlock()
		if ok() {
			return
		}
		select {
		case <-news:
		case <-again.C:
		case <-patience.C:
			b.Fatalf("waited %v for %s in vain; last seen: %s", b.h.Patience, what, seen())
		case <-b.Context().Done():
			b.Fatalf("was interrupted waiting for %s; last seen: %s", what, seen())
		}
	}
}

func (b *bench) final(h adapters.Handle) adapters.Evidence {
	b.Helper()
	return b.until(h, "the end", func(e adapters.Evidence) bool { return e.Phase.Final() })
}

func (b *bench) running(h adapters.Handle) adapters.Evidence {
	b.Helper()
	return b.until(h, "the start", func(e adapters.Evidence) bool { return e.Phase == adapters.Running })
}

// busy is how much longer, in seconds, a job runs to which something is to be done meanwhile: a machine
// that has much else to do takes that long.
const busy = 3

// seen gives a job that runs for a while, is seen to, and exits by itself. One that had ended before
// anybody saw it, as the machine was busy, is followed by one that takes longer.
func (b *bench) seen(exit int) (adapters.Handle, adapters.Tag) {
	b.Helper()
	for sleep := b.h.pace(); ; sleep *= 2 {
		h, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Sleep: sleep, Exit: exit}))
		late := time.Duration(sleep)*time.Second > b.h.Patience
		if e := b.until(h, "the start", func(e adapters.Evidence) bool {
			return e.Phase == adapters.Running || !late && exited(e, exit)
		}); e.Phase == adapters.Running {
			return h, tag
		}
	}
}

// phase waits for a phase.
func (b *bench) phase(h adapters.Handle, p adapters.Phase) adapters.Evidence {
	b.Helper()
	return b.until(h, "the phase "+p.String(), func(e adapters.Evidence) bool { return e.Phase == p })
}

// chunks cuts a batch into what the adapter takes at once.
func chunks[T any](b *bench, all []T) [][]T {
	size := b.a.Properties().MaxBatch
	if size <= 0 || size > 1000 {
		size = 1000
	}
	var cut [][]T
	for len(all) > 0 {
		n := min(size, len(all))
		cut, all = append(cut, all[:n]), all[n:]
	}
	return cut
}

// finals waits for the ends of many jobs; it gives up when none of them has moved
// for as long as Patience.
func (b *bench) finals(handles []adapters.Handle) []adapters.Evidence {
	b.Helper()
	last := make([]adapters.Evidence, len(handles))
	open := make([]int, len(handles))
	for i := range open {
		open[i] = i
	}
	patience := time.NewTimer(b.h.Patience)
	defer patience.Stop()
	again := time.NewTicker(max(b.h.Poll, time.Duration(min(len(handles), 500))*time.Millisecond))
	defer again.Stop()
	var trouble error
	for {
		moved := false
		var left []int
		for _, some := range chunks(b, open) {
			ask := make([]adapters.Handle, len(some))
			for i, n := range some {
				ask[i] = handles[n]
			}
			all, err := b.ask(context.Background(), ask)
			if err != nil {
				if adapters.ClassOf(err) == adapters.Permanent {
					b.Fatalf("Status: %v", err)
				}
				trouble, left = err, append(left, some...)
				continue
			}
			for i, n := range some {
				moved = moved || all[i].Phase != last[n].Phase
				last[n] = all[i]
				if !all[i].Phase.Final() {
					left = append(left, n)
				}
			}
		}
		if open = left; len(open) == 0 {
			return last
		}
		if moved {
			patience.Reset(b.h.Patience)
		}
		select {
		case <-again.C:
		case <-patience.C:
			b.Fatalf("%d of %d jobs have not ended and nothing moved for %v; the first is %s (last error: %v)", len(open), len(handles), b.h.Patience, show(last[open[0]]), trouble)
		case <-b.Context().Done():
			b.Fatalf("was interrupted with %d of %d jobs not ended", len(open), len(handles))
		}
	}
}

// run places a job and waits for its end.
func (b *bench) run(d *jsdl.JobDefinition) (adapters.Handle, adapters.Evidence) {
	b.Helper()
	h := b.submit(d)
	return h, b.final(h)
}

// exits runs a job that must exit with the status, and gives its outputs.
func (b *bench) exits(d *jsdl.JobDefinition, status int) (stdout, stderr string) {
	b.Helper()
	h, e := b.run(d)
	stdout, stderr = b.output(h, adapters.Stdout, 0), b.output(h, adapters.Stderr, 0)
	if !exited(e, status) {
		b.Fatalf("want exit status %d, have %s\nstdout: %q\nstderr: %q", status, show(e), stdout, stderr)
	}
	return stdout, stderr
}

func exited(e adapters.Evidence, status int) bool {
	return e.Phase == adapters.Exited && e.ExitStatus != nil && *e.ExitStatus == status && e.Signal == ""
}

// stopped runs a job that must be stopped with a sentence that has each word.
func (b *bench) stopped(d *jsdl.JobDefinition, notRun bool, words ...string) adapters.Evidence {
	b.Helper()
	_, e := b.run(d)
	b.wasStopped(e, notRun, words...)
	return e
}

func (b *bench) wasStopped(e adapters.Evidence, notRun bool, words ...string) {
	b.Helper()
	if e.Phase != adapters.Stopped || e.NotRun != notRun {
		b.Errorf("want Stopped with NotRun %v, have %s", notRun, show(e))
	}
	b.sentence(e.Reason, words...)
}

func (b *bench) sentence(s string, words ...string) {
	b.Helper()
	if s == "" {
		b.Errorf("a sentence is missing; it must name %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(s, w) {
			b.Errorf("the sentence %q does not name %q", s, w)
		}
	}
}

// refused checks that Check and Submit refuse a job, by the kind, naming the words.
func (b *bench) refused(d *jsdl.JobDefinition, words ...string) {
	b.Helper()
	err := b.a.Check(d)
	if !fail.Is(err, fail.Unsupported) && !fail.Is(err, fail.Invalid) {
		b.Errorf("Check gives %v, want a refusal (fail.Unsupported or fail.Invalid) naming %q", err, words)
		return
	}
	b.sentence(fail.Sentence(err), words...)
	placed := b.a.Submit(b.Context(), []adapters.Job{{Tag: newTag(), Definition: d}})
	if k := fail.KindOf(placed[0].Err); placed[0].Err == nil || k != fail.Unsupported && k != fail.Invalid {
		b.Errorf("Submit takes what Check refuses: %+v", placed[0])
	}
}

func (b *bench) output(h adapters.Handle, s adapters.Stream, offset int64) string {
	b.Helper()
	r, err := b.a.Output(context.Background(), h, s, offset)
	if err != nil {
		b.Fatalf("Output: %v", err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			b.Errorf("closing an output: %v", err)
		}
	}()
	data, err := io.ReadAll(r)
	if err != nil {
		b.Fatalf("reading an output: %v", err)
	}
	return string(data)
}

func (b *bench) cancel(handles ...adapters.Handle) {
	b.Helper()
	errs := b.a.Cancel(context.Background(), handles)
	if len(errs) != len(handles) {
		b.Fatalf("Cancel of %d handles gives %d answers: each handle has one", len(handles), len(errs))
	}
	for _, err := range errs {
		if err != nil {
			b.Fatalf("Cancel: %v", err)
		}
	}
}

func show(e adapters.Evidence) string {
	s := fmt.Sprintf("%v", e.Phase)
	if e.ExitStatus != nil {
		s += fmt.Sprintf(" with status %d", *e.ExitStatus)
	}
	if e.Signal != "" {
		s += " by " + e.Signal
	}
	if e.NotRun {
		s += ", not run"
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Err != nil {
		s += fmt.Sprintf(" (%v)", e.Err)
	}
	return s
}

// capacity sums up what the site has.
func (b *bench) capacity() (adapters.Capacity, error) {
	r, err := b.a.Resources(b.Context())
	return r.Capacity(), err
}
