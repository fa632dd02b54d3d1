package adaptertest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

func claimsReserve(p adapters.Properties) bool { return p.Reserve }

func (b *bench) reserver() adapters.Reserver { return b.a.(adapters.Reserver) }

// reserveAll asks for reservations, which are released when the part ends.
func (b *bench) reserveAll(all ...adapters.Reservation) []adapters.Reserved {
	b.Helper()
	out := b.reserver().Reserve(context.Background(), all)
	if len(out) != len(all) {
		b.Fatalf("Reserve of %d reservations gives %d answers: each has one", len(all), len(out))
	}
	for i, r := range out {
		if r.Err == nil {
			if len(r.Handle) == 0 {
				b.Fatalf("Reserve makes %s and gives no handle", all[i].Tag)
			}
			b.reserved = append(b.reserved, r.Handle)
		}
	}
	return out
}

// reserve makes a reservation that there must be room for.
func (b *bench) reserve(r adapters.Reservation) adapters.Handle {
	b.Helper()
	if r.Tag == "" {
		r.Tag = newTag()
	}
	out := b.reserveAll(r)
	if out[0].Err != nil {
		b.Fatalf("Reserve refuses what the site has room for: %v", out[0].Err)
	}
	return out[0].Handle
}

// reservations tells of reservations, and holds it to what any must be.
func (b *bench) reservations(tags []adapters.Tag) ([]adapters.ReservationState, error) {
	b.Helper()
	all, err := b.reserver().Reservations(context.Background(), tags)
	if err != nil {
		return nil, err
	}
	if tags != nil && len(all) != len(tags) {
		b.Fatalf("Reservations of %d tags gives %d answers: each has one", len(tags), len(all))
	}
	for i, s := range all {
		if tags != nil && s.Tag != tags[i] {
			b.Errorf("Reservations tells of %q at the place of %q", s.Tag, tags[i])
		}
		kept := s.Phase == adapters.ReservationPending || s.Phase == adapters.ReservationActive || s.Phase == adapters.ReservationEnded
		switch {
		case kept && (len(s.Handle) == 0 || s.From.IsZero() || !s.Until.After(s.From)):
			b.Errorf("a reservation that is %v must have a handle and a window: %+v", s.Phase, s)
		case !kept && len(s.Handle) > 0:
			b.Errorf("a reservation that is %v has no handle: %+v", s.Phase, s)
		case (s.Phase == adapters.ReservationUnknown) != (s.Err != nil):
			b.Errorf("a reservation has an Err where it is unknown, and only there: %+v", s)
		case s.CPUs < 0 || len(s.Nodes) > adapters.MaxHostNames:
			b.Errorf("a reservation has an amount that can't be: %+v", s)
		}
	}
	return all, nil
}

// reservation waits until one is in a phase.
func (b *bench) reservation(tag adapters.Tag, phase adapters.ReservationPhase) adapters.ReservationState {
	b.Helper()
	var last adapters.ReservationState
	var trouble error
	b.eventually("the reservation to be "+phase.String(), func() bool {
		all, err := b.reservations([]adapters.Tag{tag})
		if trouble = err; err != nil {
			if !claimsNothing(err) {
				b.Fatalf("Reservations: %v", err)
			}
			return false
		}
		last = all[0]
		return last.Phase == phase
	}, func() string { return fmt.Sprintf("%+v, %v", last, trouble) })
	return last
}

// listed holds the list of all reservations to the tags.
func (b *bench) listed(want ...adapters.Tag) {
	b.Helper()
	all, err := b.reservations(nil)
	if err != nil {
		b.Fatalf("Reservations of all: %v", err)
	}
	var have []adapters.Tag
	for _, s := range all {
		have = append(have, s.Tag)
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		b.Errorf("the reservations of the site are %q, want %q", have, want)
	}
}

func (b *bench) unreserve(handles ...adapters.Handle) []error {
	b.Helper()
	errs := b.reserver().Unreserve(context.Background(), handles)
	if len(errs) != len(handles) {
		b.Fatalf("Unreserve of %d handles gives %d answers: each has one", len(handles), len(errs))
	}
	return errs
}

// released releases a reservation, as soon as its last jobs are out.
func (b *bench) released(h adapters.Handle, tag adapters.Tag) {
	b.Helper()
	var err error
	b.eventually("the reservation to be released", func() bool {
		if err = b.unreserve(h)[0]; err != nil && !fail.Is(err, fail.Conflict) && !claimsNothing(err) {
			b.Fatalf("Unreserve: %v", err)
		}
		return err == nil
	}, func() string { return fmt.Sprint(err) })
	if errs := b.unreserve(h, h); errs[0] != nil || errs[1] != nil {
		b.Errorf("releasing what is released gives %v, want nothing", errs)
	}
	b.reservation(tag, adapters.ReservationGone)
}

// unreserveAll ends what the part reserved.
func (b *bench) unreserveAll(ctx context.Context) {
	left := b.reserved
	for b.reserved = nil; len(left) > 0; {
		var still []adapters.Handle
		for i, err := range b.reserver().Unreserve(ctx, left) {
			if err != nil {
				still = append(still, left[i])
			}
		}
		if left = still; len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(b.h.Poll):
		}
	}
}

func (b *bench) within(h adapters.Handle, does Behaviour) (adapters.Handle, adapters.Tag) {
	b.Helper()
	tag := newTag()
	placed := b.a.Submit(b.Context(), []adapters.Job{{Tag: tag, Definition: b.h.Define(does), Owner: "tester", Reservation: h}})
	if len(placed) != 1 || placed[0].Err != nil {
		b.Fatalf("a job is not taken into a reservation: %+v", placed)
	}
	b.placed = append(b.placed, placed[0].Handle)
	return placed[0].Handle, tag
}

// A site that claims no reservations refuses jobs that name one.
func testReserveNone(b *bench) {
	if b.a.Properties().Reserve {
		b.Skip("skipped: the adapter claims this ability in Properties")
	}
	got := b.a.Submit(b.Context(), []adapters.Job{{Tag: newTag(), Definition: b.h.Define(Behaviour{}), Owner: "tester", Reservation: adapters.Handle("of another site")}})
	if len(got) == 1 && got[0].Err == nil {
		b.placed = append(b.placed, got[0].Handle)
	}
	if len(got) != 1 || !fail.Is(got[0].Err, fail.Unsupported) {
		b.Errorf("a job in a reservation gives %+v where there are none, want fail.Unsupported", got)
	}
}

// Reservations are made once, told of, found again by whoever opens the site next, and
// released.
func testReserve(b *bench) {
	from := time.Now().Add(time.Hour)
	until := from.Add(time.Hour)
	one, two, never := newTag(), newTag(), newTag()
	ask := func(tag adapters.Tag, cpus int) adapters.Reservation {
		return adapters.Reservation{Tag: tag, CPUs: cpus, From: from, Until: until}
	}
	if got := b.reserveAll(); len(got) != 0 {
		b.Errorf("Reserve of nothing gives %+v", got)
	}
	made := b.reserveAll(ask(one, 1), ask("no tag", 1), ask(two, 1))
	if made[0].Err != nil || made[2].Err != nil || string(made[0].Handle) == string(made[2].Handle) {
		b.Fatalf("two reservations are %+v", made)
	}
	if !fail.Is(made[1].Err, fail.Invalid) {
		b.Errorf("a reservation without a tag that is one gives %v, want fail.Invalid", made[1].Err)
	}
	judge := func(when string) {
		b.Helper()
		for _, again := range b.reserveAll(ask(one, 1), adapters.Reservation{Tag: one, Nodes: 1, From: from.Add(time.Hour), Until: until.Add(time.Hour)}) {
			if again.Err != nil || string(again.Handle) != string(made[0].Handle) {
				b.Errorf("%s the tag again gives %q, %v; want the handle %q", when, again.Handle, again.Err, made[0].Handle)
			}
		}
		all, err := b.reservations([]adapters.Tag{two, never, one})
		if err != nil {
			b.Fatalf("%s: Reservations: %v", when, err)
		}
		for i, want := range map[int]adapters.Handle{0: made[2].Handle, 2: made[0].Handle} {
			s := all[i]
			if s.Phase != adapters.ReservationPending || string(s.Handle) != string(want) || s.From.After(from) || s.Until.Before(until) || s.Problem != "" {
				b.Errorf("%s a reservation of the handle %q from %v until %v is %+v", when, want, from, until, s)
			}
		}
		if s := all[1]; s.Phase != adapters.ReservationGone {
			b.Errorf("%s a tag that was never reserved is %+v", when, s)
		}
		b.listed(one, two)
	}
	judge("at first")
	b.restart()
	judge("after a crash")
	if found, err := b.a.Find(b.Context(), []adapters.Tag{one}); err != nil || len(found) != 0 {
		b.Errorf("Find takes a reservation for a job: %v, %v", found, err)
	}
	b.released(made[0].Handle, one)
	b.listed(two)
	if errs := b.unreserve(adapters.Handle("nonsense"), made[2].Handle); errs[0] == nil || errs[1] != nil {
		b.Errorf("releasing nonsense, and a reservation, gives %v", errs)
	}
	b.reservation(two, adapters.ReservationGone)
	b.listed()
	if all, err := b.reservations([]adapters.Tag{}); err != nil || len(all) != 0 {
		b.Errorf("Reservations of no tags gives %+v, %v", all, err)
	}
}

// A job in a reservation starts in its window, though the site is full and others have
// waited for longer; once it is released, they have the room.
func testReserveRuns(b *bench) {
	c, err := b.capacity()
	if err != nil || c.FreeSlots < 2 || c.FreeSlots > maxFill {
		b.Skipf("skipped: the site says that %d slots are free (%v); to fill it a harness must offer 2 to %d", c.FreeSlots, err, maxFill)
	}
	tag, from := newTag(), time.Now().Add(b.h.Lease)
	r := b.reserve(adapters.Reservation{Tag: tag, CPUs: 1, From: from, Until: from.Add(time.Hour)})
	got := b.reservation(tag, adapters.ReservationPending)
	kept := max(got.CPUs, 1)
	var others []adapters.Handle
	for range c.FreeSlots {
		others = append(others, b.submit(b.h.Define(Behaviour{Hang: true})))
	}
	running := func() int {
		all, err := b.a.Status(context.Background(), others)
		if err != nil {
			return -1
		}
		n := 0
		for _, e := range all {
			if e.Phase == adapters.Running {
				n++
			}
		}
		return n
	}
	b.eventually("the site to be full but for the reservation", func() bool { return running() >= c.FreeSlots-kept }, func() string { return fmt.Sprint(running()) })
	in, inTag := b.within(r, Behaviour{Hang: true})
	next, _ := b.within(r, Behaviour{Hang: true})
	b.patient(b.h.Lease, func(b *bench) {
		e := b.running(in)
		if e.Started.Before(from.Add(-leaseSlack)) {
			b.Errorf("a job in a reservation from %v started at %v", from, e.Started)
		}
	})
	b.ranOnce(inTag)
	b.reservation(tag, adapters.ReservationActive)
	if n := running(); n > c.FreeSlots-kept {
		b.Errorf("%d jobs run beside a reservation of %d of %d CPUs", n, kept, c.FreeSlots)
	}
	if kept == 1 {
		b.phase(next, adapters.Queued)
	}
	if err := b.unreserve(r)[0]; err != nil && !fail.Is(err, fail.Conflict) {
		b.Errorf("releasing a reservation in which a job runs gives %v, want nothing or fail.Conflict", err)
	}
	b.cancel(next, in)
	b.finals([]adapters.Handle{next, in})
	b.released(r, tag)
	b.eventually("those who waited to have the room", func() bool { return running() == c.FreeSlots }, func() string { return fmt.Sprint(running()) })
	b.cancel(others...)
	b.finals(others)
}

// A reservation ends with its window. What waited for it goes on waiting as any other job.
func testReserveEnds(b *bench) {
	tag, now := newTag(), time.Now()
	r := b.reserve(adapters.Reservation{Tag: tag, CPUs: 1, Until: now.Add(2 * b.h.Lease)})
	got := b.reservation(tag, adapters.ReservationActive)
	in, _ := b.within(r, Behaviour{Hang: true})
	b.running(in)
	waits, waitsTag := b.within(r, Behaviour{Exit: 4})
	if got.CPUs == 1 {
		b.phase(waits, adapters.Queued)
	}
	b.patient(2*b.h.Lease, func(b *bench) {
		if s := b.reservation(tag, adapters.ReservationEnded); string(s.Handle) != string(r) {
			b.Errorf("a reservation that ended is %+v, want the handle %q", s, r)
		}
		if !b.status(in).Phase.Final() {
			b.cancel(in)
		}
		if e := b.final(in); e.Phase != adapters.Stopped && e.Phase != adapters.Cancelled {
			b.Errorf("a job whose reservation ended is %s, want it stopped or cancelled", show(e))
		}
		if e := b.final(waits); !exited(e, 4) {
			b.Errorf("a job that waited for a reservation that ended gives %s", show(e))
		}
	})
	b.ranOnce(waitsTag)
	b.restart()
	b.reservation(tag, adapters.ReservationEnded)
	b.released(r, tag)
	b.listed()
}

// What makes no sense, what the site can't give, and what it has no room for are refused,
// each by its kind, and nothing is kept of them.
func testReserveRefused(b *bench) {
	now := time.Now()
	from, until := now.Add(time.Hour), now.Add(2*time.Hour)
	for what, r := range map[string]adapters.Reservation{
		"nothing":              {From: from, Until: until},
		"fewer than no CPUs":   {CPUs: -1, From: from, Until: until},
		"more nodes than CPUs": {CPUs: 1, Nodes: 2, From: from, Until: until},
		"no end":               {CPUs: 1, From: from},
		"an end too early":     {CPUs: 1, From: until, Until: from},
		"an empty window":      {CPUs: 1, From: from, Until: from},
		"a window of old":      {CPUs: 1, From: now.Add(-2 * time.Hour), Until: now.Add(-time.Hour)},
	} {
		r.Tag = newTag()
		if got := b.reserveAll(r)[0]; !fail.Is(got.Err, fail.Invalid) {
			b.Errorf("a reservation of %s gives %v, want fail.Invalid", what, got.Err)
		}
	}
	all := b.resources()
	slots := all.Shares[0].Slots
	for _, s := range all.Shares {
		if s.Default {
			slots = s.Slots
		}
	}
	for what, r := range map[string]adapters.Reservation{
		"too many CPUs":  {CPUs: slots + 1, From: from, Until: until},
		"too many nodes": {Nodes: 1 << 20, From: from, Until: until},
		"no share":       {CPUs: 1, Share: "no-such-share", From: from, Until: until},
	} {
		r.Tag = newTag()
		if got := b.reserveAll(r)[0]; !fail.Is(got.Err, fail.Unsupported) {
			b.Errorf("a reservation of %s gives %v, want fail.Unsupported", what, got.Err)
		}
	}
	b.listed()

	exhausted := func(what string, r adapters.Reservation) {
		b.Helper()
		r.Tag = newTag()
		if got := b.reserveAll(r)[0]; !fail.Is(got.Err, fail.Exhausted) {
			b.Errorf("a reservation %s gives %v, want fail.Exhausted", what, got.Err)
		}
	}
	whole := newTag()
	h := b.reserve(adapters.Reservation{Tag: whole, CPUs: slots, From: from, Until: until})
	exhausted("in a window for which all is reserved", adapters.Reservation{CPUs: 1, From: from.Add(30 * time.Minute), Until: until.Add(30 * time.Minute)})
	after := newTag()
	next := b.reserve(adapters.Reservation{Tag: after, CPUs: slots, From: until.Add(time.Second), Until: until.Add(time.Hour)})
	b.listed(whole, after)
	b.released(h, whole)
	b.released(next, after)

	busy := b.submit(b.h.Define(Behaviour{Hang: true}))
	b.running(busy)
	from = time.Now().Add(time.Minute)
	exhausted("of all, where a job runs that may go on", adapters.Reservation{CPUs: slots, From: from, Until: from.Add(time.Minute)})
	rest := newTag()
	h = b.reserve(adapters.Reservation{Tag: rest, CPUs: slots - 1, From: from, Until: from.Add(time.Minute)})
	b.listed(rest)
	b.released(h, rest)
	b.cancel(busy)
	b.final(busy)

	for what, r := range map[string]adapters.Handle{"nonsense": adapters.Handle("nonsense"), "one that is released": h} {
		got := b.a.Submit(b.Context(), []adapters.Job{{Tag: newTag(), Definition: b.h.Define(Behaviour{}), Owner: "tester", Reservation: r}})[0]
		if got.Err == nil {
			b.placed = append(b.placed, got.Handle)
		}
		if adapters.ClassOf(got.Err) != adapters.Permanent || what != "nonsense" && !fail.Is(got.Err, fail.NotFound) {
			b.Errorf("a job in a reservation that is %s gives %v, want an error that is permanent, and fail.NotFound for what is gone", what, got.Err)
		}
	}
}

// The answer to a reservation is lost, and settled by its tag.
func testReserveLost(b *bench) {
	lose := b.h.Manager.LoseNextReservation
	if lose == nil {
		b.Skip("skipped: the harness can't lose an answer (Harness.Manager.LoseNextReservation)")
	}
	for _, done := range []bool{true, false} {
		from := time.Now().Add(time.Hour)
		r := adapters.Reservation{Tag: newTag(), CPUs: 1, From: from, Until: from.Add(time.Hour)}
		lose(b.TB, b.site, done)
		if got := b.reserveAll(r)[0]; adapters.ClassOf(got.Err) != adapters.Doubtful {
			b.Errorf("a reservation whose answer was lost gives %v, want fail.Uncertain", got.Err)
		}
		b.restart()
		phase := adapters.ReservationPending
		if !done {
			phase = adapters.ReservationGone
		}
		s := b.reservation(r.Tag, phase)
		h := b.reserve(r)
		if done && string(h) != string(s.Handle) {
			b.Errorf("a reservation whose answer was lost is %q, and %q when it is asked for again", s.Handle, h)
		}
		b.listed(r.Tag)
		b.released(h, r.Tag)
	}
}

// While the manager is away nothing is claimed about reservations, and they are there when
// it is back.
func testReserveDown(b *bench) {
	m := b.h.Manager
	if m.Stop == nil || m.Start == nil {
		b.Skip("skipped: the harness can't take the manager down (Harness.Manager.Stop and Start)")
	}
	tag, from := newTag(), time.Now().Add(time.Hour)
	h := b.reserve(adapters.Reservation{Tag: tag, CPUs: 1, From: from, Until: from.Add(time.Hour)})
	m.Stop(b.TB, b.site)
	up := false
	start := func() {
		if !up {
			up = true
			m.Start(b.TB, b.site)
		}
	}
	b.Cleanup(start)
	late := newTag()
	b.brief(func(ctx context.Context) {
		if got := b.reserver().Reserve(ctx, []adapters.Reservation{{Tag: late, CPUs: 1, From: from, Until: from.Add(time.Hour)}}); len(got) != 1 || !claimsNothing(got[0].Err) {
			b.Errorf("while the manager is down Reserve gives %+v", got)
		}
		if errs := b.reserver().Unreserve(ctx, []adapters.Handle{h}); len(errs) != 1 || !claimsNothing(errs[0]) {
			b.Errorf("while the manager is down Unreserve gives %v", errs)
		}
		all, err := b.reserver().Reservations(ctx, []adapters.Tag{tag})
		if err == nil && (len(all) != 1 || all[0].Phase != adapters.ReservationUnknown) || err != nil && !claimsNothing(err) {
			b.Errorf("while the manager is down Reservations gives %+v, %v", all, err)
		}
	})
	start()
	b.reservation(tag, adapters.ReservationPending)
	b.reservation(late, adapters.ReservationGone)
	b.released(h, tag)
}
