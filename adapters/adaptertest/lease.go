package adaptertest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

func claimsLease(p adapters.Properties) bool { return p.Lease }

func (b *bench) leaser() adapters.Leaser { return b.a.(adapters.Leaser) }

// lease places a job with a lease, which begins when the job is handed over.
func (b *bench) lease(d *jsdl.JobDefinition, length time.Duration) (adapters.Handle, adapters.Tag, time.Time) {
	b.Helper()
	if err := b.a.Check(d); err != nil {
		b.Fatalf("Check refuses a job that can run: %v", err)
	}
	tag, until := newTag(), time.Now().Add(length)
	placed := b.a.Submit(b.Context(), []adapters.Job{{Tag: tag, Definition: d, Owner: "tester", NotAfter: until}})
	if len(placed) != 1 || placed[0].Err != nil || len(placed[0].Handle) == 0 {
		b.Fatalf("Submit of a job with a lease must answer one handle: %+v", placed)
	}
	b.placed = append(b.placed, placed[0].Handle)
	return placed[0].Handle, tag, until
}

func (b *bench) extend(h adapters.Handle, until time.Time) {
	b.Helper()
	for range 2 { // idempotent
		if errs := b.leaser().Extend(b.Context(), []adapters.Extension{{Handle: h, NotAfter: until}}); len(errs) != 1 || errs[0] != nil {
			b.Fatalf("Extend: %v", errs)
		}
	}
}

// away closes the adapter until a moment has passed: nobody of the gateway's is there then.
func (b *bench) away(until time.Time) {
	b.Helper()
	b.end(func(a adapters.Adapter) {
		if err := a.Close(); err != nil {
			b.Errorf("Close: %v", err)
		}
	})
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.Context().Done():
	}
}

// leaseSlack is how much later than its lease a job may be seen to write, as file times and
// clocks are coarse.
const leaseSlack = time.Second

func (b *bench) leaseEnded(e adapters.Evidence, notRun bool) {
	b.Helper()
	if e.Phase != adapters.Stopped || !e.LeaseEnded || e.NotRun != notRun || e.Reason == "" {
		b.Errorf("a job whose lease ended gives %s, lease ended %v; want it stopped with LeaseEnded, NotRun %v and a reason", show(e), e.LeaseEnded, notRun)
	}
}

// A job has ended with its lease, as a whole tree, while nobody of the gateway's is there;
// and nothing changes that afterwards.
func testLeaseEnds(b *bench) {
	names := []string{".main", ".child", ".orphan"}
	var beats string
	written := func(name string) (size int64, last time.Time) {
		info, err := os.Stat(beats + name)
		if err != nil {
			return 0, time.Time{}
		}
		return info.Size(), info.ModTime()
	}
	var h adapters.Handle
	var tag adapters.Tag
	var until time.Time
	for length := b.h.Lease; ; length *= 2 { // a machine that is too busy to begin it in time gets more
		d := b.h.Define(Behaviour{Hang: true})
		if b.h.Programs {
			beats = filepath.Join(b.TempDir(), "beats")
			// A child, and one in a session of its own that heeds no SIGTERM, write as long as they live.
			d = shell(`trap '' TERM
				beat() { trap '' TERM; while :; do echo x >> "$1"; sleep 0.05; done; }
				beat "$1.child" &
				setsid /bin/sh -c 'trap "" TERM; while :; do echo x >> "$1.orphan"; sleep 0.05; done' sh "$1" &
				beat "$1.main"`, beats)
		}
		h, tag, until = b.lease(d, length)
		last, began := length > b.h.Patience, false
		b.until(h, "the start", func(e adapters.Evidence) bool {
			began = e.Phase == adapters.Running
			return began || !last && e.LeaseEnded && e.NotRun
		})
		writes := func() bool {
			return beats == "" || !slices.ContainsFunc(names, func(n string) bool { size, _ := written(n); return size == 0 })
		}
		if began {
			b.eventually("the whole tree to write", func() bool { return writes() || !last && time.Now().After(until) }, func() string { return "silence" })
		}
		if began && writes() {
			break
		}
	}
	b.away(until.Add(leaseSlack))
	if beats != "" {
		sizes := map[string]int64{}
		for _, n := range names {
			size, last := written(n)
			if sizes[n] = size; last.After(until.Add(leaseSlack)) {
				b.Errorf("a process of a job whose lease ended at %v (%s) wrote at %v", until, n, last)
			}
		}
		defer func() {
			for _, n := range names {
				if size, _ := written(n); size != sizes[n] {
					b.Errorf("a process of a job whose lease is over (%s) goes on", n)
				}
			}
		}()
	}
	b.open()
	b.patient(b.h.Lease, func(b *bench) { b.leaseEnded(b.final(h), false) })
	b.ranOnce(tag)
	b.extend(h, time.Now().Add(time.Hour))
	if e := b.status(h); !e.LeaseEnded {
		b.Errorf("a lease that was extended after the job's end makes it %s", show(e))
	}
}

// A job that waits never starts after the end of its lease, whoever is there.
func testLeaseNeverStarts(b *bench) {
	past := b.a.Submit(b.Context(), []adapters.Job{{Tag: newTag(), Definition: b.h.Define(Behaviour{Exit: 1}), Owner: "tester", NotAfter: time.Now().Add(-time.Minute)}})
	if len(past) != 1 {
		b.Fatalf("Submit answers %d of 1", len(past))
	}
	if past[0].Err == nil {
		b.leaseEnded(b.final(past[0].Handle), true)
	} else if adapters.ClassOf(past[0].Err) != adapters.Permanent {
		b.Errorf("a job whose lease is over is refused with %v, want an error that is permanent", past[0].Err)
	}
	free := b.fill()
	h, tag, _ := b.lease(b.h.Define(Behaviour{Exit: 1}), b.h.Lease)
	gone, tagGone, until := b.lease(b.h.Define(Behaviour{Exit: 1}), b.h.Lease)
	kept, _, _ := b.lease(b.h.Define(Behaviour{Exit: 3}), b.h.Lease)
	for _, waits := range []adapters.Handle{h, gone, kept} {
		b.phase(waits, adapters.Queued)
	}
	b.extend(kept, until.Add(time.Hour))
	b.patient(b.h.Lease, func(b *bench) { b.leaseEnded(b.final(h), true) })
	b.away(until.Add(leaseSlack))
	b.open()
	free()
	b.patient(b.h.Lease, func(b *bench) { b.leaseEnded(b.final(gone), true) })
	if e := b.final(kept); !exited(e, 3) {
		b.Errorf("a job whose lease was extended while it waited gives %s", show(e))
	}
	if b.h.Starts != nil {
		for _, t := range []adapters.Tag{tag, tagGone} {
			if n := b.h.Starts(b.site, t); n != 0 {
				b.Errorf("a job that waited until its lease was over was started %d times", n)
			}
		}
	}
}

// A lease that is extended in time holds, though the adapter goes away; a shorter one is not
// heeded, and neither is any for a job without.
func testLeaseExtend(b *bench) {
	beyond := int((b.h.Lease+time.Second-1)/time.Second) + b.h.pace()
	h, tag, until := b.lease(b.h.Define(Behaviour{Sleep: beyond, Exit: 4}), b.h.Lease)
	free, freeTag := b.submitTag(newTag(), b.h.Define(Behaviour{Sleep: beyond, Exit: 5}))
	b.extend(h, until.Add(time.Hour))
	b.extend(h, time.Now().Add(time.Second))
	b.extend(free, time.Now().Add(time.Second))
	b.away(until.Add(leaseSlack))
	b.open()
	b.patient(2*b.h.Lease, func(b *bench) {
		if e := b.final(h); !exited(e, 4) {
			b.Errorf("a job whose lease was extended gives %s", show(e))
		}
		if e := b.final(free); !exited(e, 5) {
			b.Errorf("a job without a lease gives %s", show(e))
		}
	})
	b.ranOnce(tag)
	b.ranOnce(freeTag)
	b.extend(h, time.Now().Add(2*time.Hour)) // it has ended
	if errs := b.leaser().Extend(b.Context(), []adapters.Extension{{Handle: adapters.Handle("nonsense"), NotAfter: until}}); len(errs) != 1 || errs[0] == nil {
		b.Errorf("extending the lease of a handle that is none gives %v", errs)
	}
	if err := b.forget(h); err != nil {
		b.Fatalf("Forget: %v", err)
	}
	if errs := b.leaser().Extend(b.Context(), []adapters.Extension{{Handle: h, NotAfter: until.Add(2 * time.Hour)}}); len(errs) != 1 || !fail.Is(errs[0], fail.NotFound) {
		b.Errorf("extending the lease of a job that is forgotten gives %v, want fail.NotFound", fmt.Sprint(errs))
	}
}
