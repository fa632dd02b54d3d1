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

// bench is one test's site with the adapter that is open on it.
type bench struct {
	*testing.T
	h    *Harness
	site any
	a    adapters.Adapter

	placed  []adapters.Handle
	stop    context.CancelFunc
	watched sync.WaitGroup
	mu      sync.Mutex
	news    chan struct{} // closed and made anew when evidence is pushed
	pushed  map[adapters.Tag][]adapters.Evidence
}

func (b *bench) open() {
	b.a = b.h.Open(b.T, b.site)
	b.mu.Lock()
	b.news, b.pushed = make(chan struct{}), map[adapters.Tag][]adapters.Evidence{}
	b.mu.Unlock()
	w, ok := b.a.(adapters.Watcher)
	if !ok {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.watched.Go(func() {
		_ = w.Watch(ctx, func(batch []adapters.Evidence) {
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
		if b.Failed() { // so that what hangs does not outlive the test
			b.a.Cancel(context.Background(), b.placed)
		}
		b.end(func(a adapters.Adapter) {
			if err := a.Close(); err != nil {
				b.Errorf("Close: %v", err)
			}
		})
	}
}

// restart ends the adapter as a crash does and opens it again.
func (b *bench) restart() {
	b.end(b.h.Crash)
	b.open()
}

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
		b.Fatalf("Submit: %+v", placed)
	}
	b.placed = append(b.placed, placed[0].Handle)
	return placed[0].Handle, tag
}

func (b *bench) status(h adapters.Handle) adapters.Evidence {
	b.Helper()
	all, err := b.a.Status(context.Background(), []adapters.Handle{h})
	if err != nil || len(all) != 1 {
		b.Fatalf("Status: %v, %v", all, err)
	}
	return all[0]
}

// until waits for evidence that satisfies ok.
func (b *bench) until(h adapters.Handle, what string, ok func(adapters.Evidence) bool) adapters.Evidence {
	b.Helper()
	var last adapters.Evidence
	b.eventually(what, func() bool {
		last = b.status(h)
		if !ok(last) && last.Phase.Final() {
			b.Fatalf("waiting for %s: the job has ended otherwise: %s", what, show(last))
		}
		return ok(last)
	}, func() string { return show(last) })
	return last
}

// eventually tries again on every push, and now and then in between, for what is
// not pushed.
func (b *bench) eventually(what string, ok func() bool, seen func() string) {
	b.Helper()
	patience := time.NewTimer(b.h.Patience)
	defer patience.Stop()
	again := time.NewTicker(20 * time.Millisecond)
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
	if e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != status {
		b.Fatalf("want exit status %d, have %s\nstdout: %q\nstderr: %q", status, show(e), stdout, stderr)
	}
	return stdout, stderr
}

// stopped runs a job that must be stopped with a sentence that has each word.
func (b *bench) stopped(d *jsdl.JobDefinition, notRun bool, words ...string) adapters.Evidence {
	b.Helper()
	_, e := b.run(d)
	if e.Phase != adapters.Stopped || e.NotRun != notRun || e.ExitStatus != nil {
		b.Errorf("want Stopped with NotRun %v, have %s", notRun, show(e))
	}
	b.sentence(e.Reason, words...)
	return e
}

func (b *bench) sentence(s string, words ...string) {
	b.Helper()
	if s == "" {
		b.Errorf("a sentence is missing")
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
		b.Errorf("Check gives %v, want a refusal naming %q", err, words)
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

func (b *bench) cancel(h adapters.Handle) {
	b.Helper()
	if errs := b.a.Cancel(context.Background(), []adapters.Handle{h}); len(errs) != 1 || errs[0] != nil {
		b.Fatalf("Cancel: %v", errs)
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
