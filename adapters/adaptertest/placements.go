package adaptertest

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

func testProperties(b *bench) {
	p := b.a.Properties()
	if p.Type == "" || p.Version == "" {
		b.Errorf("Properties has no type or version: %+v", p)
	}
	if u, err := url.Parse(p.ManagerURI); err != nil || !u.IsAbs() {
		b.Errorf("ManagerURI %q is no absolute URI (GFD.108 §5: LocalResourceManagerType)", p.ManagerURI)
	}
	if _, ok := b.a.(adapters.Suspender); ok != p.Suspend {
		b.Errorf("Suspend is claimed %v and implemented %v", p.Suspend, ok)
	}
	if _, ok := b.a.(adapters.Holder); ok != p.Hold {
		b.Errorf("Hold is claimed %v and implemented %v", p.Hold, ok)
	}
	if _, ok := b.a.(adapters.Leaser); p.Lease && !ok {
		b.Errorf("Lease is claimed and not implemented")
	}
	if _, ok := b.a.(adapters.Reserver); p.Reserve && !ok {
		b.Errorf("Reserve is claimed and not implemented")
	}
	if p.MaxBatch < 0 || p.MaxJobs < 0 || p.Requests < 0 || p.MaxOutput < 0 {
		b.Errorf("a bound is negative: %+v", p)
	}
	if _, ok := b.a.(adapters.Watcher); ok != p.Push {
		b.Errorf("Push is claimed %v and implemented %v", p.Push, ok)
	}
}

// statuses are those that managers are known to confuse, with a sample of the rest:
// 137 and 139 are what shells make of SIGKILL and SIGSEGV, 143 of SIGTERM; 85 asks
// some managers for a restart.
var statuses = []int{0, 1, 2, 3, 42, 53, 64, 85, 99, 100, 124, 125, 126, 127, 128, 129, 134, 137, 139, 143, 195, 200, 254, 255}

var signals = []string{"SIGSEGV", "SIGKILL", "SIGTERM", "SIGABRT", "SIGUSR1", "SIGXCPU"}

func exitNames() (names []string) {
	for _, status := range statuses {
		names = append(names, strconv.Itoa(status))
	}
	return names
}

// The exit status is the program's, whatever it is.
func testExits(b *bench) {
	var handles []adapters.Handle
	for _, status := range statuses {
		handles = append(handles, b.submit(b.h.Define(Behaviour{Exit: status})))
	}
	ends := b.finals(handles)
	for i, status := range statuses {
		b.detail(strconv.Itoa(status), func(b *bench) {
			if !exited(ends[i], status) {
				b.Errorf("a program that exits with %d gives %s; want Exited with that status and no signal", status, show(ends[i]))
			}
		})
	}
}

// A program ended by a signal is told apart from one that exits with 128 and the number.
func testSignal(b *bench) {
	var handles []adapters.Handle
	for _, signal := range signals {
		handles = append(handles, b.submit(b.h.Define(Behaviour{Signal: signal})))
	}
	ends := b.finals(handles)
	for i, signal := range signals {
		b.detail(signal, func(b *bench) {
			if e := ends[i]; e.Phase != adapters.Exited || e.Signal != signal || e.ExitStatus != nil {
				b.Errorf("a program ended by %s gives %s; want Exited with that signal and no status", signal, show(e))
			}
		})
	}
}

func testMissing(b *bench) {
	_, e := b.run(b.h.Define(Behaviour{Missing: true}))
	if e.Phase != adapters.Stopped || !e.NotRun || e.ExitStatus != nil || e.Reason == "" {
		b.Errorf("a missing executable gives %s, want Stopped, not run, with a sentence", show(e))
	}
}

// A definition without an application is valid (GFD.56 §4.1); there is nothing that can fail.
func testNothing(b *bench) {
	_, e := b.run(&jsdl.JobDefinition{})
	if e.Phase != adapters.Exited || e.ExitStatus != nil && *e.ExitStatus != 0 || e.Signal != "" {
		b.Errorf("an empty job gives %s, want Exited", show(e))
	}
}

func testBadTags(b *bench) {
	for _, tag := range []adapters.Tag{"", "..", "a/b", "a b", "é", "a\x00b", "a_b", adapters.Tag(strings.Repeat("x", adapters.MaxTag+1))} {
		p := b.a.Submit(b.Context(), []adapters.Job{{Tag: tag, Definition: b.h.Define(Behaviour{})}})
		if !fail.Is(p[0].Err, fail.Invalid) {
			b.Errorf("the tag %q is not refused as invalid: %+v", tag, p[0])
		}
	}
	long := adapters.Tag(strings.Repeat("x", adapters.MaxTag))
	b.submitTag(long, b.h.Define(Behaviour{}))
}

func testBadHandles(b *bench) {
	for _, h := range []adapters.Handle{nil, {}, adapters.Handle("nonsense"), adapters.Handle("../../etc"), adapters.Handle("\x00\xff")} {
		if all, err := b.a.Status(b.Context(), []adapters.Handle{h}); err == nil && (len(all) != 1 || all[0].Phase != adapters.Unknown || all[0].Err == nil) {
			b.Errorf("Status of the handle %q: %+v", h, all)
		}
		if errs := b.a.Cancel(b.Context(), []adapters.Handle{h}); len(errs) != 1 || errs[0] == nil {
			b.Errorf("Cancel of the handle %q: %v", h, errs)
		}
		if r, err := b.a.Output(b.Context(), h, adapters.Stdout, 0); err == nil {
			_ = r.Close()
			b.Errorf("Output of the handle %q is given", h)
		}
		if b.a.Forget(b.Context(), h) == nil {
			b.Errorf("Forget of the handle %q succeeds", h)
		}
	}
}

// A handle proves that there was a placement: that the site knows nothing of it is evidence.
func testUnknown(b *bench) {
	h, _ := b.run(b.h.Define(Behaviour{}))
	if err := b.forget(h); err != nil {
		b.Fatalf("Forget of a job that ended: %v", err)
	}
	if e := b.status(h); e.Phase != adapters.Lost || e.Reason == "" {
		b.Errorf("the status of a job that the site does not know is %s, want Lost with a sentence", show(e))
	}
	if errs := b.a.Cancel(b.Context(), []adapters.Handle{h}); !fail.Is(errs[0], fail.NotFound) {
		b.Errorf("Cancel of a job that the site does not know: %v, want not found", errs[0])
	}
}

func (b *bench) ranOnce(tag adapters.Tag) {
	b.Helper()
	if b.h.Starts == nil {
		return
	}
	if n := b.h.Starts(b.site, tag); n != 1 {
		b.Errorf("job %s was started %d times", tag, n)
	}
}

func testSameTag(b *bench) {
	d := b.h.Define(Behaviour{Stdout: "once"})
	h, tag := b.submitTag(newTag(), d)
	again, _ := b.submitTag(tag, d)
	b.final(h)
	after, _ := b.submitTag(tag, d)
	if string(again) != string(h) || string(after) != string(h) {
		b.Errorf("placing one tag three times gives handles %q, %q, %q", h, again, after)
	}
	if out := b.output(h, adapters.Stdout, 0); out != "once\n" {
		b.Errorf("after placing a tag three times the output is %q", out)
	}
	b.ranOnce(tag)
}

func testSameTagAtOnce(b *bench) {
	tag, d := newTag(), b.h.Define(Behaviour{Stdout: "once"})
	var wg sync.WaitGroup
	handles := make([]string, 8)
	for i := range handles {
		wg.Go(func() {
			// Twice in one batch, too.
			p := b.a.Submit(context.Background(), []adapters.Job{{Tag: tag, Definition: d}, {Tag: tag, Definition: d}})
			for _, one := range p {
				if one.Err != nil {
					b.Errorf("Submit of one tag at once: %v", one.Err)
				}
				handles[i] = string(one.Handle)
			}
		})
	}
	wg.Wait()
	for _, h := range handles {
		if h != handles[0] {
			b.Fatalf("one tag has several handles: %q", handles)
		}
	}
	h := adapters.Handle(handles[0])
	b.final(h)
	if out := b.output(h, adapters.Stdout, 0); out != "once\n" {
		b.Errorf("after placing a tag at once the output is %q", out)
	}
	b.ranOnce(tag)
}

func testFind(b *bench) {
	h, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Hang: true}))
	ended, endedTag := b.submitTag(newTag(), b.h.Define(Behaviour{Missing: true}))
	for range 2 {
		b.final(ended)
		found, err := b.a.Find(b.Context(), []adapters.Tag{tag, "never-placed", endedTag})
		if err != nil || len(found) != 2 || string(found[tag]) != string(h) || string(found[endedTag]) != string(ended) {
			b.Errorf("Find gives %q, %v; want %q and %q", found, err, h, ended)
		}
		b.restart()
	}
	if found, err := b.a.Find(b.Context(), nil); err != nil || len(found) != 0 {
		b.Errorf("Find of nothing gives %v, %v", found, err)
	}
	b.cancel(h)
	b.final(h)
}

// Batches are answered in order, one answer for each item, and a bad item does not spoil the others.
func testBatch(b *bench) {
	t1, t2, bad := newTag(), newTag(), adapters.Tag("not a tag")
	p := b.a.Submit(b.Context(), []adapters.Job{
		{Tag: t1, Definition: b.h.Define(Behaviour{Exit: 4})},
		{Tag: bad, Definition: b.h.Define(Behaviour{})},
		{Tag: t2, Definition: b.h.Define(Behaviour{Exit: 5})},
	})
	if len(p) != 3 || p[0].Err != nil || p[1].Err == nil || p[2].Err != nil {
		b.Fatalf("Submit of a batch with one bad job: %+v", p)
	}
	b.final(p[0].Handle)
	b.final(p[2].Handle)
	all, err := b.a.Status(b.Context(), []adapters.Handle{p[2].Handle, p[0].Handle, p[2].Handle})
	if err != nil || len(all) != 3 {
		b.Fatalf("Status: %v, %v", all, err)
	}
	for i, want := range []struct {
		tag    adapters.Tag
		status int
	}{{t2, 5}, {t1, 4}, {t2, 5}} {
		if all[i].Tag != want.tag || all[i].ExitStatus == nil || *all[i].ExitStatus != want.status || len(all[i].Handle) == 0 {
			b.Errorf("Status answer %d is for %s: %s; want %s with %d", i, all[i].Tag, show(all[i]), want.tag, want.status)
		}
	}
	if all, err := b.a.Status(b.Context(), nil); err != nil || len(all) != 0 {
		b.Errorf("Status of nothing gives %v, %v", all, err)
	}
}

func (b *bench) cancelled(h adapters.Handle) adapters.Evidence {
	b.Helper()
	e := b.final(h)
	b.wasCancelled(e)
	return e
}

func (b *bench) wasCancelled(e adapters.Evidence) {
	b.Helper()
	if e.Phase != adapters.Cancelled || e.Ended.IsZero() {
		b.Errorf("a cancelled job gives %s, ended at %v; want Cancelled, with the time", show(e), e.Ended)
	}
}

func testCancel(b *bench) {
	h := b.submit(b.h.Define(Behaviour{Hang: true}))
	b.running(h)
	b.cancel(h)
	b.cancel(h) // idempotent
	b.cancelled(h)
	b.cancel(h)
	b.restart()
	b.cancelled(h)
}

// A cancel may come in any moment of a start.
func testCancelAtOnce(b *bench) {
	var handles []adapters.Handle
	for range 20 {
		h := b.submit(b.h.Define(Behaviour{Hang: true}))
		b.cancel(h)
		handles = append(handles, h)
	}
	for _, e := range b.finals(handles) {
		b.wasCancelled(e)
	}
}

func testCancelEnded(b *bench) {
	h, e := b.run(b.h.Define(Behaviour{Exit: 7}))
	b.cancel(h)
	if after := b.status(h); after.Phase != adapters.Exited || after.ExitStatus == nil || *after.ExitStatus != 7 {
		b.Errorf("after a late cancel the job is %s, before it was %s", show(after), show(e))
	}
}

func (b *bench) suspender() adapters.Suspender {
	s, ok := b.a.(adapters.Suspender)
	if !ok {
		b.Skip("skipped: the adapter does not claim Suspend")
	}
	return s
}

func (b *bench) suspend(h adapters.Handle) {
	b.Helper()
	if errs := b.suspender().Suspend(b.Context(), []adapters.Handle{h}); len(errs) != 1 || errs[0] != nil {
		b.Fatalf("Suspend: %v", errs)
	}
	b.until(h, "the suspension", func(e adapters.Evidence) bool { return e.Phase == adapters.Suspended })
}

func testSuspend(b *bench) {
	b.suspender()
	h := b.submit(b.h.Define(Behaviour{Sleep: b.h.pace() + busy, Exit: 6}))
	b.running(h)
	b.suspend(h)
	b.suspend(h) // idempotent
	b.restart()
	b.until(h, "the suspension after a restart", func(e adapters.Evidence) bool { return e.Phase == adapters.Suspended })
	s := b.suspender()
	for range 2 {
		if errs := s.Resume(b.Context(), []adapters.Handle{h}); errs[0] != nil && !b.status(h).Phase.Final() {
			b.Fatalf("Resume: %v", errs[0])
		}
	}
	if e := b.final(h); e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != 6 {
		b.Errorf("a job that was suspended and resumed gives %s", show(e))
	}
	if errs := s.Suspend(b.Context(), []adapters.Handle{h}); !fail.Is(errs[0], fail.Conflict) {
		b.Errorf("suspending a job that ended gives %v, want a conflict", errs[0])
	}
	if errs := s.Resume(b.Context(), []adapters.Handle{h}); !fail.Is(errs[0], fail.Conflict) {
		b.Errorf("resuming a job that ended gives %v, want a conflict", errs[0])
	}
}

func testCancelSuspended(b *bench) {
	b.suspender()
	h := b.submit(b.h.Define(Behaviour{Hang: true}))
	b.running(h)
	b.suspend(h)
	b.cancel(h)
	b.cancelled(h)
}

func testRestartRunning(b *bench) {
	h, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Stdout: "before", Hang: true}))
	first := b.running(h)
	b.restart()
	e := b.running(h)
	if !e.Started.Equal(first.Started) || e.Tag != tag {
		b.Errorf("after a restart the job %s started at %v; before, %s at %v", e.Tag, e.Started, tag, first.Started)
	}
	b.submitTag(tag, b.h.Define(Behaviour{Stdout: "before", Hang: true}))
	b.ranOnce(tag)
	b.cancel(h)
	b.cancelled(h)
}

// What a job has written can be read while it runs, before and after a restart.
func testOutputHanging(b *bench) {
	h := b.submit(b.h.Define(Behaviour{Stdout: "before", Hang: true}))
	for range 2 {
		b.running(h)
		b.eventually("the output", func() bool { return b.output(h, adapters.Stdout, 0) == "before\n" }, func() string { return b.output(h, adapters.Stdout, 0) })
		if out := b.output(h, adapters.Stdout, 3); out != "ore\n" {
			b.Errorf("the output from 3 is %q", out)
		}
		b.restart()
	}
	b.cancel(h)
	b.cancelled(h)
}

func testRestartEnded(b *bench) {
	h, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Stdout: "out", Stderr: "err", Exit: 9}))
	before := b.final(h)
	b.restart()
	e := b.status(h)
	if e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != 9 || !e.Ended.Equal(before.Ended) || !e.Started.Equal(before.Started) {
		b.Errorf("after a restart the ended job is %s, %+v; before, %+v", show(e), e, before)
	}
	if out, err := b.output(h, adapters.Stdout, 0), b.output(h, adapters.Stderr, 0); out != "out\n" || err != "err\n" {
		b.Errorf("after a restart the outputs are %q and %q", out, err)
	}
	b.submitTag(tag, b.h.Define(Behaviour{Stdout: "out", Stderr: "err", Exit: 9}))
	b.ranOnce(tag)
}

func testEndWhileAway(b *bench) {
	h, tag := b.seen(8)
	b.restart() // ends while the new adapter looks on
	if e := b.final(h); e.ExitStatus == nil || *e.ExitStatus != 8 {
		b.Errorf("a job that ended after a restart gives %s", show(e))
	}
	b.ranOnce(tag)
}

func testCrashQueued(b *bench) {
	var handles []adapters.Handle
	var placed []adapters.Tag
	for range 3 * b.slots() {
		h, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Exit: 2}))
		handles, placed = append(handles, h), append(placed, tag)
	}
	b.restart()
	for i, h := range handles {
		if e := b.final(h); e.ExitStatus == nil || *e.ExitStatus != 2 {
			b.Errorf("a job that was queued at a crash gives %s", show(e))
		}
		b.ranOnce(placed[i])
	}
}

// slots bounds the slots of a site for tests that use them all.
func (b *bench) slots() int {
	b.Helper()
	c, err := b.capacity()
	if err != nil {
		b.Fatal(err)
	}
	return max(1, min(c.Slots, 20))
}

func testOutput(b *bench) {
	h, _ := b.run(b.h.Define(Behaviour{Stdout: "0123456789", Stderr: "abc"}))
	for _, c := range []struct {
		stream adapters.Stream
		offset int64
		want   string
	}{
		{adapters.Stdout, 0, "0123456789\n"},
		{adapters.Stdout, 4, "456789\n"},
		{adapters.Stdout, 11, ""},
		{adapters.Stdout, 1000, ""},
		{adapters.Stderr, 0, "abc\n"},
		{adapters.Stderr, 3, "\n"},
	} {
		if got := b.output(h, c.stream, c.offset); got != c.want {
			b.Errorf("stream %d from %d is %q, want %q", c.stream, c.offset, got, c.want)
		}
	}
	silent, _ := b.run(b.h.Define(Behaviour{}))
	if out := b.output(silent, adapters.Stdout, 0); out != "" {
		b.Errorf("a silent job has output %q", out)
	}
	never, _ := b.run(b.h.Define(Behaviour{Missing: true}))
	if out := b.output(never, adapters.Stdout, 0); out != "" {
		b.Errorf("a job that never ran has output %q", out)
	}
}

func testForget(b *bench) {
	live, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Hang: true}))
	if err := b.a.Forget(b.Context(), live); !fail.Is(err, fail.Conflict) {
		b.Errorf("forgetting a live job gives %v, want a conflict", err)
	}
	b.running(live)
	b.cancel(live)
	b.final(live)
	b.forgets(tag)
	for range 2 { // idempotent
		if err := b.a.Forget(b.Context(), live); err != nil {
			b.Errorf("Forget: %v", err)
		}
	}
	if found, err := b.a.Find(b.Context(), []adapters.Tag{tag}); err != nil || len(found) != 0 {
		b.Errorf("a forgotten job is found: %v, %v", found, err)
	}
}

// The site summed up is what a job may hope for, and slots are counted.
func testCapacity(b *bench) {
	r := b.resources()
	c := r.Capacity()
	if c.Hosts < 1 || c.CPUs < 1 || c.Memory <= 0 || c.Disk < 0 || c.Slots < 0 || c.FreeSlots > c.Slots || len(c.HostNames) == 0 ||
		c.OperatingSystem == "" || c.CPUArchitecture == "" || c.VirtualMemory < 0 || c.CPUSpeed < 0 {
		b.Errorf("the capacity of an idle site is %+v", c)
	}
	if c.Slots == 0 {
		b.Skip("skipped: the site knows no bound of jobs at once (Share.Slots is 0)")
	}
	h := b.submit(b.h.Define(Behaviour{Hang: true}))
	b.running(h)
	var now adapters.Capacity
	seen := func() string { return fmt.Sprintf("%d of %d slots free", now.FreeSlots, now.Slots) }
	b.eventually("a slot to be in use", func() bool {
		again, err := b.a.Resources(b.Context())
		now = again.Capacity()
		// Shares over the same nodes all lose what one of them gives away.
		return err == nil && (now.FreeSlots == c.FreeSlots-1 || len(r.Shares) > 1 && now.FreeSlots < c.FreeSlots)
	}, seen)
	b.cancel(h)
	b.final(h)
	b.eventually("the slot to be free", func() bool {
		again, err := b.a.Resources(b.Context())
		now = again.Capacity()
		return err == nil && now.FreeSlots == c.FreeSlots
	}, seen)
}

func testPush(b *bench) {
	// Evidence may be missed until Watch is up, so the first jobs only show that it is.
	b.eventually("Watch to be up", func() bool {
		b.submit(b.h.Define(Behaviour{}))
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.pushed) > 0
	}, func() string { return "nothing pushed" })
	h, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Exit: 11}))
	b.eventually("the pushed end", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		seen := b.pushed[tag]
		if len(seen) == 0 || !seen[len(seen)-1].Phase.Final() {
			return false
		}
		last := seen[len(seen)-1]
		if last.ExitStatus == nil || *last.ExitStatus != 11 || string(last.Handle) != string(h) {
			b.Errorf("pushed: %s with handle %q", show(last), last.Handle)
		}
		// Evidence never goes back from an end.
		for _, e := range seen[:len(seen)-1] {
			if e.Phase.Final() {
				b.Errorf("evidence %s was pushed before %s", show(e), show(last))
			}
		}
		return true
	}, func() string { return "nothing pushed" })
	ctx, stop := context.WithCancel(b.Context())
	stop()
	if err := b.a.(adapters.Watcher).Watch(ctx, func([]adapters.Evidence) {}); err == nil {
		b.Error("Watch with an ended context gives no error")
	}
}

// Many jobs at once: each is answered in its place, with its own end.
func testMany(b *bench) {
	jobs := make([]adapters.Job, b.h.Many)
	for i := range jobs {
		jobs[i] = adapters.Job{Tag: newTag(), Definition: b.h.Define(Behaviour{Exit: i % 100})}
	}
	var handles []adapters.Handle
	for _, some := range chunks(b, jobs) {
		placed := b.a.Submit(b.Context(), some)
		if len(placed) != len(some) {
			b.Fatalf("Submit of %d jobs gives %d answers: each job has one", len(some), len(placed))
		}
		for _, p := range placed {
			if p.Err != nil {
				b.Fatalf("Submit of many: %v", p.Err)
			}
			handles = append(handles, p.Handle)
		}
	}
	for i, e := range b.finals(handles) {
		if !exited(e, i%100) || e.Tag != jobs[i].Tag {
			b.Errorf("job %d of many gives %s", i, show(e))
		}
		b.ranOnce(jobs[i].Tag)
	}
}

func testTimes(b *bench) {
	_, e := b.run(b.h.Define(Behaviour{Sleep: 1}))
	if e.Started.IsZero() || e.Ended.Before(e.Started) {
		b.Errorf("a job ran from %v to %v", e.Started, e.Ended)
	}
	if d := e.Ended.Sub(e.Started); d.Seconds() < 0.9 {
		b.Errorf("a job that sleeps for a second ran for %v", d)
	}
}
