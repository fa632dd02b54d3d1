package adaptertest

import (
	"context"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// claimsNothing: an error that says that a deed may have been done, or may be done
// later. Anything else would end a job for want of a manager.
func claimsNothing(err error) bool {
	c := adapters.ClassOf(err)
	return c == adapters.Transient || c == adapters.Doubtful
}

// brief gives calls to a manager that does not answer a bound: they must not take
// longer than the suite's patience.
func (b *bench) brief(do func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), b.h.Patience)
	defer cancel()
	do(ctx)
}

// settle places a job as the broker does: it tries again what is Transient and asks
// Find about what is Doubtful.
func (b *bench) settle(tag adapters.Tag, d *jsdl.JobDefinition) adapters.Handle {
	b.Helper()
	var handle adapters.Handle
	var last error
	b.eventually("the job to be placed", func() bool {
		if last != nil && adapters.ClassOf(last) == adapters.Doubtful {
			found, err := b.a.Find(b.Context(), []adapters.Tag{tag})
			if err != nil {
				if !claimsNothing(err) {
					b.Fatalf("Find: %v", err)
				}
				return false
			}
			if h, ok := found[tag]; ok {
				handle = h
				return true
			}
		}
		p := b.a.Submit(b.Context(), []adapters.Job{{Tag: tag, Definition: d, Owner: "tester"}})[0]
		if last = p.Err; last == nil {
			handle = p.Handle
			return true
		}
		if !claimsNothing(last) {
			b.Fatalf("Submit: %v", last)
		}
		return false
	}, func() string { return show(adapters.Evidence{Err: last}) })
	b.placed = append(b.placed, handle)
	return handle
}

// found waits until Find can tell, and gives what it tells.
func (b *bench) found(tag adapters.Tag) (adapters.Handle, bool) {
	b.Helper()
	var found map[adapters.Tag]adapters.Handle
	var err error
	b.eventually("Find to answer", func() bool {
		if found, err = b.a.Find(b.Context(), []adapters.Tag{tag}); err != nil && !claimsNothing(err) {
			b.Fatalf("Find: %v", err)
		}
		return err == nil
	}, func() string { return err.Error() })
	h, ok := found[tag]
	return h, ok
}

// A manager that is away ends no job: calls are Transient or Doubtful, evidence is
// missing or true, and when it is back everything is right.
func testDown(b *bench) {
	m := b.h.Manager
	if m.Stop == nil || m.Start == nil {
		b.Skip("skipped: the harness can't take the manager down (Harness.Manager.Stop and Start)")
	}
	hang, hangTag := b.submitTag(newTag(), b.h.Define(Behaviour{Hang: true}))
	victim := b.submit(b.h.Define(Behaviour{Hang: true}))
	b.running(hang)
	b.running(victim)
	done, _ := b.run(b.h.Define(Behaviour{Exit: 3}))
	brief, briefTag := b.submitTag(newTag(), b.h.Define(Behaviour{Sleep: b.h.pace(), Exit: 5}))

	m.Stop(b.TB, b.site)
	up := false
	start := func() {
		if !up {
			up = true
			m.Start(b.TB, b.site)
		}
	}
	b.Cleanup(start)
	b.whileDown(hang, hangTag, done, brief)
	b.restart() // a manager that is away is no reason not to open
	b.whileDown(hang, hangTag, done, brief)

	lateTag, late := newTag(), b.h.Define(Behaviour{Exit: 6})
	if err := b.a.Check(late); err != nil && !claimsNothing(err) {
		b.Errorf("while the manager is down Check refuses for good what can run: %v; say fail.Unavailable, or nothing", err)
	}
	var placed adapters.Placed
	var cancelled error
	b.brief(func(ctx context.Context) {
		placed = b.a.Submit(ctx, []adapters.Job{{Tag: lateTag, Definition: late, Owner: "tester"}})[0]
		cancelled = b.a.Cancel(ctx, []adapters.Handle{victim})[0]
		if _, err := b.a.Resources(ctx); err != nil && !claimsNothing(err) {
			b.Errorf("while the manager is down Resources gives %v; want fail.Unavailable, or what is known", err)
		}
	})
	if placed.Err != nil && !claimsNothing(placed.Err) {
		b.Errorf("while the manager is down Submit gives %v; want fail.Unavailable, or fail.Uncertain when it may have been done", placed.Err)
	}
	if cancelled != nil && !claimsNothing(cancelled) {
		b.Errorf("while the manager is down Cancel gives %v; want fail.Unavailable, or nil when it will happen", cancelled)
	}

	start()
	b.eventually("Health to be well again", func() bool {
		_, _ = b.look(hang)
		return b.a.Health().Problem == ""
	}, func() string { return b.a.Health().Problem })
	if b.a.Health().Contact.IsZero() {
		b.Errorf("Health().Contact is not set although the manager answers")
	}
	if placed.Err != nil {
		placed.Handle = b.settle(lateTag, late)
	}
	if e := b.final(placed.Handle); !exited(e, 6) {
		b.Errorf("a job submitted while the manager was down gives %s", show(e))
	}
	b.ranOnce(lateTag)
	if e := b.final(brief); !exited(e, 5) {
		b.Errorf("a job that may have ended while the manager was down gives %s, want exit status 5", show(e))
	}
	b.ranOnce(briefTag)
	b.running(hang)
	if cancelled != nil {
		b.eventually("Cancel to be taken", func() bool { return b.a.Cancel(b.Context(), []adapters.Handle{victim})[0] == nil }, func() string { return "refused" })
	}
	b.cancelled(victim)
	b.cancel(hang)
	b.cancelled(hang)
	b.ranOnce(hangTag)
}

// whileDown checks what may be said while the manager is away.
func (b *bench) whileDown(hang adapters.Handle, tag adapters.Tag, done, brief adapters.Handle) {
	b.Helper()
	check := func() {
		b.brief(func(ctx context.Context) {
			all, err := b.ask(ctx, []adapters.Handle{hang, done, brief})
			switch {
			case err != nil && !claimsNothing(err):
				b.Fatalf("while the manager is down Status gives %v; want fail.Unavailable, or evidence of phase Unknown", err)
			case err == nil:
				for i, e := range all {
					if e.Phase.Final() && (i == 0 || !exited(e, []int{0, 3, 5}[i])) {
						b.Fatalf("while the manager is down a job is said to be %s: only evidence ends a job, silence does not", show(e))
					}
				}
			}
			found, err := b.a.Find(ctx, []adapters.Tag{tag})
			if _, ok := found[tag]; err == nil && !ok {
				b.Fatalf("while the manager is down Find says that a running job is not placed; it must answer an error when it can't ask")
			}
			if err != nil && !claimsNothing(err) {
				b.Fatalf("while the manager is down Find gives %v; want fail.Unavailable", err)
			}
		})
	}
	b.eventually("Health().Problem to say that the manager is down", func() bool {
		check()
		return b.a.Health().Problem != ""
	}, func() string { return "no problem" })
	check()
}

// A controller that is killed and started again loses nothing and runs nothing twice.
func testControllerKilled(b *bench) {
	if b.h.Manager.Restart == nil {
		b.Skip("skipped: the harness can't kill the manager's controller (Harness.Manager.Restart)")
	}
	hang, hangTag := b.submitTag(newTag(), b.h.Define(Behaviour{Hang: true}))
	b.running(hang)
	var handles []adapters.Handle
	var tags []adapters.Tag
	place := func(d *jsdl.JobDefinition) {
		tag := newTag()
		handles, tags = append(handles, b.settle(tag, d)), append(tags, tag)
	}
	n := b.slots()
	for range n {
		place(b.h.Define(Behaviour{Sleep: b.h.pace(), Exit: 4})) // running
	}
	for range n {
		place(b.h.Define(Behaviour{Exit: 4})) // queued
	}
	for range 2 {
		b.h.Manager.Restart(b.TB, b.site)
		b.running(hang)
		place(b.h.Define(Behaviour{Exit: 4}))
	}
	b.cancelSoon(hang)
	b.cancelled(hang)
	lost := 0
	for i, e := range b.finals(handles) {
		switch forgotten := e.Phase == adapters.Lost && !e.NotRun && !e.Started.IsZero(); {
		case b.h.Manager.Forgets && forgotten:
			lost++
		case !exited(e, 4):
			b.Errorf("over a restart of the controller job %d gives %s, want exit status 4", i, show(e))
		}
		b.ranOnce(tags[i])
	}
	if lost > 0 {
		b.Logf("the manager forgot and ended %d of %d jobs that it had started", lost, len(handles))
	}
	b.ranOnce(hangTag)
}

// cancelSoon cancels as soon as the manager takes it.
func (b *bench) cancelSoon(h adapters.Handle) {
	b.Helper()
	var err error
	b.eventually("Cancel to be taken", func() bool {
		if err = b.a.Cancel(b.Context(), []adapters.Handle{h})[0]; err != nil && !claimsNothing(err) {
			b.Fatalf("Cancel: %v", err)
		}
		return err == nil
	}, func() string { return err.Error() })
}

// A submission that was done and whose answer was lost is Doubtful, and Find adopts
// exactly the one placement that there is, in this process or the next.
func testAnswerLost(b *bench) {
	b.lost(true, false)
	b.lost(true, true)
}

// A submission that was lost on its way was not done, and Find says so for certain.
func testSubmissionLost(b *bench) {
	b.lost(false, false)
	b.lost(false, true)
}

func (b *bench) lost(done, crash bool) {
	b.Helper()
	if b.h.Manager.LoseNextAnswer == nil {
		b.Skip("skipped: the harness can't lose an answer (Harness.Manager.LoseNextAnswer)")
	}
	tag, d := newTag(), b.h.Define(Behaviour{Stdout: "once", Exit: 4})
	if err := b.a.Check(d); err != nil {
		b.Fatalf("Check refuses a job that can run: %v", err)
	}
	b.h.Manager.LoseNextAnswer(b.TB, b.site, done)
	p := b.a.Submit(b.Context(), []adapters.Job{{Tag: tag, Definition: d, Owner: "tester"}})[0]
	class := adapters.ClassOf(p.Err)
	switch {
	case class == adapters.Permanent:
		b.Fatalf("a lost submission is refused for good: %v; it may have been done: say fail.Uncertain", p.Err)
	case class == adapters.Transient && done:
		b.Fatalf("a submission that was done and whose answer was lost is said not to be done: %v; say fail.Uncertain", p.Err)
	}
	if crash {
		b.restart()
	}
	h, ok := b.found(tag)
	switch {
	case (done || p.Err == nil) && !ok:
		b.Fatalf("Find says that a job is not placed which is (Submit said: %v): it would be run twice", p.Err)
	case p.Err == nil && string(h) != string(p.Handle):
		b.Errorf("Find gives another handle, %q, than Submit did, %q", h, p.Handle)
	}
	// Placing the tag again adopts what is there, and places what is not.
	again := b.settle(tag, d)
	if ok && string(again) != string(h) {
		b.Errorf("placing the tag again gives the handle %q, Find gave %q", again, h)
	}
	if e := b.final(again); !exited(e, 4) {
		b.Errorf("a job whose submission was lost gives %s", show(e))
	}
	if out := b.output(again, adapters.Stdout, 0); out != "once\n" {
		b.Errorf("a job whose submission was lost has the output %q, want one line", out)
	}
	b.ranOnce(tag)
}

// A manager gives the ids of jobs that ended to others: a handle of before never
// shows, cancels or reads the new job.
func testReuseIDs(b *bench) {
	if b.h.Manager.ReuseIDs == nil {
		b.Skip("skipped: the harness can't make the manager reuse ids (Harness.Manager.ReuseIDs)")
	}
	var old []adapters.Handle
	var tags []adapters.Tag
	for range 3 {
		h, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Stdout: "old", Exit: 3}))
		old, tags = append(old, h), append(tags, tag)
	}
	b.finals(old)
	b.forgets(tags...) // the manager may have, from now on
	b.h.Manager.ReuseIDs(b.TB, b.site)
	for _, crash := range []bool{false, true} {
		if crash {
			b.restart()
		}
		h := b.settle(newTag(), b.h.Define(Behaviour{Stdout: "new", Hang: true}))
		b.running(h)
		for i, o := range old {
			e := b.status(o)
			if e.Tag != tags[i] || e.Phase != adapters.Unknown && e.Phase != adapters.Lost && !exited(e, 3) {
				b.Errorf("after its id was given to another job, job %s is %s as %s; want its own end or Lost", tags[i], show(e), e.Tag)
			}
			if err := b.a.Cancel(b.Context(), []adapters.Handle{o})[0]; err != nil && !fail.Is(err, fail.NotFound) {
				b.Errorf("Cancel of a job of before: %v; want nil, or fail.NotFound", err)
			}
			if r, err := b.a.Output(b.Context(), o, adapters.Stdout, 0); err == nil {
				_ = r.Close()
				if out := b.output(o, adapters.Stdout, 0); out != "old\n" && out != "" {
					b.Errorf("the output of a job of before is %q", out)
				}
			}
		}
		if e := b.status(h); e.Phase != adapters.Running {
			b.Errorf("cancelling a job of before touched the one that bears its id now: %s", show(e))
		}
		b.cancel(h)
		b.cancelled(h)
	}
}

// A handle that an earlier version of the adapter wrote is read.
func testOldHandles(b *bench) {
	if b.h.OldHandles == nil {
		b.Skip("skipped: there is no earlier version of this adapter's handles (Harness.OldHandles)")
	}
	h, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Stdout: "x", Exit: 9}))
	b.final(h)
	b.restart()
	for _, old := range b.h.OldHandles(b.site, h) {
		if e := b.status(old); !exited(e, 9) || e.Tag != tag {
			b.Errorf("the handle %q of an earlier version shows %s of %s", old, show(e), e.Tag)
		}
		if out := b.output(old, adapters.Stdout, 0); out != "x\n" {
			b.Errorf("by the handle %q of an earlier version the output is %q", old, out)
		}
	}
}
