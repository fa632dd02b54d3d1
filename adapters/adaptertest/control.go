package adaptertest

import (
	"os"
	"path/filepath"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// maxFill bounds how many jobs are placed to fill a site.
const maxFill = 64

// fill occupies every slot, so that the next job waits, and gives the way to free
// them again.
func (b *bench) fill() (free func()) {
	b.Helper()
	c, err := b.capacity()
	if err != nil {
		b.Fatalf("Resources: %v", err)
	}
	if c.FreeSlots < 1 || c.FreeSlots > maxFill {
		b.Skipf("skipped: the site says that %d slots are free; to fill it a harness must offer 1 to %d", c.FreeSlots, maxFill)
	}
	var handles []adapters.Handle
	for range c.FreeSlots {
		handles = append(handles, b.submit(b.h.Define(Behaviour{Hang: true})))
	}
	b.eventually("the site to be full", func() bool {
		all, err := b.a.Status(b.Context(), handles)
		if err != nil {
			return false
		}
		running := 0
		for _, e := range all {
			if e.Phase == adapters.Running {
				running++
			}
		}
		if running == len(handles) {
			return true
		}
		now, err := b.capacity()
		return err == nil && now.FreeSlots == 0 && running > 0
	}, func() string { return "free slots" })
	return func() {
		b.Helper()
		b.cancel(handles...)
		for _, e := range b.finals(handles) {
			b.wasCancelled(e)
		}
	}
}

// waiting places a job on a full site.
func (b *bench) waiting(d Behaviour) (adapters.Handle, adapters.Tag) {
	b.Helper()
	h, tag := b.submitTag(newTag(), b.h.Define(d))
	b.phase(h, adapters.Queued)
	return h, tag
}

// neverRan checks what is said of a job that was ended before its start.
func (b *bench) neverRan(h adapters.Handle, tag adapters.Tag) {
	b.Helper()
	e := b.cancelled(h)
	if !e.NotRun {
		b.Errorf("a job that was cancelled before its start gives %s; want NotRun, as that is certain", show(e))
	}
	if b.h.Starts != nil {
		if n := b.h.Starts(b.site, tag); n != 0 {
			b.Errorf("a job that was cancelled before its start was started %d times", n)
		}
	}
}

// A job that waits is cancelled where it stands and never starts.
func testCancelQueued(b *bench) {
	free := b.fill()
	h, tag := b.waiting(Behaviour{Exit: 1})
	b.cancel(h)
	b.neverRan(h, tag)
	free()
	b.neverRan(h, tag)
}

// A held job is cancelled as any other.
func testCancelHeld(b *bench) {
	free := b.fill()
	h, tag := b.waiting(Behaviour{Exit: 1})
	b.hold(h)
	b.cancel(h)
	b.neverRan(h, tag)
	free()
}

// A cancel that races with the end of the job gives one of the two, for good.
func testCancelRace(b *bench) {
	var handles []adapters.Handle
	for range 20 {
		handles = append(handles, b.submit(b.h.Define(Behaviour{Exit: 7})))
	}
	for _, h := range handles {
		b.cancel(h)
	}
	for i, e := range b.finals(handles) {
		if !exited(e, 7) && e.Phase != adapters.Cancelled {
			b.Errorf("a job cancelled at its end gives %s; want exit status 7, or Cancelled", show(e))
		}
		b.cancel(handles[i])
	}
	b.restart()
	b.finals(handles) // the same as before, which every look checks
}

func (b *bench) hold(h adapters.Handle) {
	b.Helper()
	for range 2 { // idempotent
		if errs := b.a.(adapters.Holder).Hold(b.Context(), []adapters.Handle{h}); len(errs) != 1 || errs[0] != nil {
			b.Fatalf("Hold of a job that has not started: %v", errs)
		}
		b.phase(h, adapters.Held)
	}
}

// A held job does not start when there is room, over a restart too, and runs once
// when it is released.
func testHold(b *bench) {
	free := b.fill()
	h, tag := b.waiting(Behaviour{Exit: 6})
	b.hold(h)
	b.restart()
	b.phase(h, adapters.Held)
	free()
	for range 3 {
		b.run(b.h.Define(Behaviour{}))
	}
	if e := b.status(h); e.Phase != adapters.Held {
		b.Fatalf("with free slots a held job is %s", show(e))
	}
	holder := b.a.(adapters.Holder)
	for i := range 2 {
		if errs := holder.Release(b.Context(), []adapters.Handle{h}); errs[0] != nil {
			// The second time it may have started, which is a conflict.
			if e := b.status(h); !fail.Is(errs[0], fail.Conflict) || e.Phase == adapters.Held || e.Phase == adapters.Queued || i == 0 && !e.Phase.Final() {
				b.Fatalf("Release: %v, of a job that is %s", errs[0], show(e))
			}
		}
	}
	if e := b.final(h); !exited(e, 6) {
		b.Errorf("a job that was held and released gives %s", show(e))
	}
	b.ranOnce(tag)
	if errs := holder.Hold(b.Context(), []adapters.Handle{h}); !fail.Is(errs[0], fail.Conflict) {
		b.Errorf("holding a job that ended gives %v, want a conflict", errs[0])
	}
	if errs := holder.Release(b.Context(), []adapters.Handle{h}); !fail.Is(errs[0], fail.Conflict) {
		b.Errorf("releasing a job that ended gives %v, want a conflict", errs[0])
	}
}

// Holding a job that runs is a conflict, and leaves it alone.
func testHoldRunning(b *bench) {
	h := b.submit(b.h.Define(Behaviour{Sleep: b.h.pace() + busy, Exit: 2}))
	b.running(h)
	if errs := b.a.(adapters.Holder).Hold(b.Context(), []adapters.Handle{h}); !fail.Is(errs[0], fail.Conflict) {
		b.Errorf("holding a job that runs gives %v, want a conflict", errs[0])
	}
	if e := b.final(h); !exited(e, 2) {
		b.Errorf("a running job that could not be held gives %s", show(e))
	}
}

// The processes of a suspended job really stop: a file that they write stays as it is.
func testSuspendStops(b *bench) {
	path := filepath.Join(b.TempDir(), "count")
	h := b.submit(shell(`while :; do echo >> "$1"; sleep 0.01; done`, path))
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			return -1
		}
		return info.Size()
	}
	grows := func() {
		b.Helper()
		from := size()
		b.eventually("the counter to grow", func() bool { return size() > from+3 }, func() string { return "still" })
	}
	b.running(h)
	grows()
	b.suspend(h)
	look := time.NewTicker(30 * time.Millisecond)
	defer look.Stop()
	// The manager's word may come a moment before the deed.
	patience := time.Now().Add(b.h.Patience)
	for still, last := 0, size(); still < 20; {
		<-look.C
		if now := size(); now == last {
			still++
		} else {
			still, last = 0, now
		}
		if time.Now().After(patience) {
			b.Fatalf("the job is said to be suspended, but its processes go on")
		}
	}
	if errs := b.suspender().Resume(b.Context(), []adapters.Handle{h}); errs[0] != nil {
		b.Fatalf("Resume: %v", errs[0])
	}
	b.running(h)
	grows()
	b.cancel(h)
	b.cancelled(h)
}
