package adaptertest

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// place places many jobs from several goroutines, as a broker with much to do does:
// what is Transient is tried again, what is Doubtful is looked for first.
func (b *bench) place(jobs []adapters.Job) []adapters.Handle {
	b.Helper()
	handles := make([]adapters.Handle, len(jobs))
	left := make([]int, len(jobs))
	for i := range left {
		left[i] = i
	}
	patience := time.NewTimer(b.h.Patience)
	defer patience.Stop()
	again := time.NewTicker(max(b.h.Poll, 100*time.Millisecond))
	defer again.Stop()
	for {
		before := len(left)
		var err error
		if left, err = b.placeSome(jobs, left, handles); len(left) == 0 {
			return handles
		}
		if adapters.ClassOf(err) == adapters.Permanent {
			b.Fatalf("Submit of many jobs at once: %v", err)
		}
		if len(left) < before {
			patience.Reset(b.h.Patience)
		}
		select {
		case <-again.C:
		case <-patience.C:
			b.Fatalf("%d of %d jobs can't be placed; the last error: %v", len(left), len(jobs), err)
		case <-b.Context().Done():
			b.Fatal("was interrupted")
		}
	}
}

// placeSome tries once, and gives what is left with the worst of the errors.
func (b *bench) placeSome(jobs []adapters.Job, todo []int, handles []adapters.Handle) (left []int, worst error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var doubtful []adapters.Tag
	turn := make(chan struct{}, 4)
	for _, some := range chunks(b, todo) {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			batch := make([]adapters.Job, len(some))
			for i, n := range some {
				batch[i] = jobs[n]
			}
			placed := b.a.Submit(context.Background(), batch)
			mu.Lock()
			defer mu.Unlock()
			if len(placed) != len(batch) {
				worst = fmt.Errorf("Submit of %d jobs gives %d answers", len(batch), len(placed))
				left = append(left, some...)
				return
			}
			for i, n := range some {
				if placed[i].Err == nil {
					handles[n] = placed[i].Handle
					continue
				}
				if left = append(left, n); worst == nil || adapters.ClassOf(placed[i].Err) == adapters.Permanent {
					worst = placed[i].Err
				}
				if adapters.ClassOf(placed[i].Err) == adapters.Doubtful {
					doubtful = append(doubtful, jobs[n].Tag)
				}
			}
		})
	}
	wg.Wait()
	for _, some := range chunks(b, doubtful) {
		_, err := b.a.Find(context.Background(), some)
		for err != nil && claimsNothing(err) && b.Context().Err() == nil {
			_, err = b.a.Find(context.Background(), some)
		}
	}
	return left, worst
}

// Five thousand jobs at once that do nothing: each ends once, with its own status,
// under its own handle.
func testFiveThousand(b *bench) {
	if b.h.Short || testing.Testing() && testing.Short() {
		b.Skip("skipped: -short")
	}
	const many = 5000
	ledger := ""
	if b.h.Programs {
		ledger = filepath.Join(b.TempDir(), "ledger")
		if err := os.WriteFile(ledger, nil, 0o666); err != nil {
			b.Fatal(err)
		}
		if err := os.Chmod(ledger, 0o666); err != nil { // jobs may have another account
			b.Fatal(err)
		}
	}
	jobs := make([]adapters.Job, many)
	for i := range jobs {
		tag := newTag()
		d := b.h.Define(Behaviour{Exit: i % 100})
		if b.h.Programs {
			d = shell(`echo "$1" >> "$2"; exit "$3"`, string(tag), ledger, strconv.Itoa(i%100))
		}
		jobs[i] = adapters.Job{Tag: tag, Definition: d, Owner: "tester"}
	}
	begin := time.Now()
	handles := b.place(jobs)
	placed := time.Since(begin)
	ends := b.finals(handles)
	b.Logf("%d jobs placed in %v and ended in %v", many, placed.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	seen := map[string]bool{}
	wrong := 0
	for i, e := range ends {
		if !exited(e, i%100) || e.Tag != jobs[i].Tag || seen[string(handles[i])] {
			if wrong++; wrong <= 5 {
				b.Errorf("job %d of %d, %s, gives %s of %s with handle %q; want exit status %d and a handle of its own", i, many, jobs[i].Tag, show(e), e.Tag, handles[i], i%100)
			}
		}
		seen[string(handles[i])] = true
	}
	if wrong > 5 {
		b.Errorf("… and %d more", wrong-5)
	}
	runs := map[string]int{}
	if ledger != "" {
		data, err := os.ReadFile(ledger)
		if err != nil {
			b.Fatal(err)
		}
		for tag := range strings.Lines(string(data)) {
			runs[strings.TrimSpace(tag)]++
		}
	}
	for _, j := range jobs {
		n := 1
		switch {
		case b.h.Starts != nil:
			n = b.h.Starts(b.site, j.Tag)
		case ledger != "":
			n = runs[string(j.Tag)]
		}
		if n != 1 {
			b.Fatalf("job %s ran %d times", j.Tag, n)
		}
	}
}

// requests counts what the manager was asked so far.
func (b *bench) requests() int64 {
	if b.h.Manager.Requests != nil {
		return b.h.Manager.Requests(b.site)
	}
	return b.a.Health().Requests
}

// The budget of requests is kept whoever asks for whatever, in every second.
func testBudget(b *bench) {
	budget := b.a.Properties().Requests
	if budget <= 0 {
		b.Skip("skipped: the adapter claims no budget of requests (Properties.Requests is 0)")
	}
	h, tag := b.submitTag(newTag(), b.h.Define(Behaviour{Hang: true}))
	b.running(h)
	ctx, stop := context.WithCancel(b.Context())
	var askers sync.WaitGroup
	defer func() { // also when the test ends early
		stop()
		askers.Wait()
	}()
	for i := range 50 {
		askers.Go(func() {
			for ctx.Err() == nil {
				switch i % 5 {
				case 0:
					_, _ = b.a.Resources(ctx)
				case 1:
					_, _ = b.a.Find(ctx, []adapters.Tag{tag})
				default:
					_, _ = b.a.Status(ctx, []adapters.Handle{h})
				}
			}
		})
	}
	type sample struct {
		before, after time.Time
		n             int64
	}
	var samples []sample
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for len(samples) == 0 || time.Since(samples[0].before) < 3*time.Second {
		s := sample{before: time.Now(), n: b.requests()}
		s.after = time.Now()
		samples = append(samples, s)
		<-tick.C
	}
	// A counter that is read late sees requests bunched, hence the room.
	inSecond := int64(math.Ceil(1.5*budget)) + 2
	for i, from := range samples {
		for _, to := range samples[i:] {
			if to.after.Sub(from.before) <= time.Second && to.n-from.n > inSecond {
				b.Fatalf("%d requests were sent within %v; the budget is %v a second", to.n-from.n, to.after.Sub(from.before), budget)
			}
		}
	}
	first, last := samples[0], samples[len(samples)-1]
	took := last.after.Sub(first.before).Seconds()
	if n := float64(last.n - first.n); n > budget*took+budget/2+2 {
		b.Errorf("%v requests were sent in %.1f s; the budget is %v a second", n, took, budget)
	}
	stop()
	askers.Wait()
	b.cancel(h)
	b.cancelled(h)
}

// Many who ask at once about many jobs cost the manager what one costs who asks
// about one.
func testCoalesced(b *bench) {
	p := b.a.Properties()
	if !p.Bulk && !p.Push {
		b.Skip("skipped: the adapter claims neither Bulk nor Push in Properties")
	}
	n := 40
	if p.MaxBatch > 0 {
		n = min(n, p.MaxBatch)
	}
	var handles []adapters.Handle
	for range n {
		handles = append(handles, b.submit(b.h.Define(Behaviour{Hang: true})))
	}
	ask := func(handles []adapters.Handle) int64 {
		before := b.requests()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if all, err := b.a.Status(context.Background(), handles); err != nil || len(all) != len(handles) {
					b.Errorf("Status of %d handles by one of 50 callers: %d answers, %v", len(handles), len(all), err)
				}
			})
		}
		wg.Wait()
		return b.requests() - before
	}
	one := ask(handles[:1])
	all := ask(handles)
	b.Logf("50 callers cost %d requests for one job, %d for %d jobs", one, all, n)
	if all > one+one/2+10 {
		b.Errorf("asking for %d jobs costs %d requests, for one %d: ask the manager for all of them in one", n, all, one)
	}
	if p.Requests > 0 && max(one, all) > 20 {
		b.Errorf("50 callers at once cost %d requests: an adapter with a budget makes one request for all who wait", max(one, all))
	}
	b.cancel(handles...)
	b.finals(handles)
}

// Alike jobs of one Submit cost about one request (Properties.Bulk), and are jobs
// of their own all the same.
func testAlike(b *bench) {
	many := 500
	if b.h.Short {
		many = 100
	}
	jobs := make([]adapters.Job, many)
	for i := range jobs {
		jobs[i] = adapters.Job{Tag: newTag(), Definition: b.h.Define(Behaviour{Stdout: "alike", Exit: 3}), Owner: "tester"}
	}
	calls := len(chunks(b, jobs))
	begin, before := time.Now(), b.requests()
	handles := b.place(jobs)
	asked, took := b.requests()-before, time.Since(begin)
	allowed := int64(10 + 5*calls + 2*int(took.Seconds()))
	b.Logf("%d alike jobs cost %d requests in %d calls of Submit", many, asked, calls)
	if asked > allowed {
		b.Errorf("%d alike jobs cost %d requests, more than %d: fold them into what the manager has for it (array, cluster, batch), or don't claim Bulk", many, asked, allowed)
	}
	seen := map[string]bool{}
	for i, e := range b.finals(handles) {
		if !exited(e, 3) || e.Tag != jobs[i].Tag || seen[string(handles[i])] {
			b.Fatalf("alike job %d, %s, gives %s of %s with handle %q; each has its own", i, jobs[i].Tag, show(e), e.Tag, handles[i])
		}
		seen[string(handles[i])] = true
		b.ranOnce(jobs[i].Tag)
	}
	for _, i := range []int{0, 1, many / 2, many - 1} {
		if out := b.output(handles[i], adapters.Stdout, 0); out != "alike\n" {
			b.Errorf("the output of alike job %d is %q", i, out)
		}
	}
	// What is done to one is not done to its like.
	var some []adapters.Job
	d := b.h.Define(Behaviour{Hang: true})
	for range 3 {
		some = append(some, adapters.Job{Tag: newTag(), Definition: d, Owner: "tester"})
	}
	three := b.place(some)
	b.cancel(three[1])
	b.cancelled(three[1])
	for _, i := range []int{0, 2} {
		if e := b.status(three[i]); e.Phase.Final() {
			b.Errorf("cancelling one of three alike jobs left another %s", show(e))
		}
	}
	b.cancel(three[0], three[2])
	b.finals(three)
}
