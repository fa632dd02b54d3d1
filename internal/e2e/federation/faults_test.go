package federation

import (
	"context"
	"fmt"
	"time"
)

// fault is something that goes wrong for a while.
type fault struct {
	at, lasts  time.Duration
	what       string
	begin, end func() error
}

// clocks are by how much those of the gateways are wrong in the faulty run: almost as much as the
// terms of the sessions allow, which is a second. `make sim` has those that are more wrong.
func (f *federation) clocks() map[string]time.Duration {
	return map[string]time.Duration{"fiu": 900 * time.Millisecond, "ibm": -900 * time.Millisecond}
}

// faults are those of the faulty run, by when they begin. Clocks are wrong all the time, and
// that of fiu jumps when its gateway is started again.
func (f *federation) faults(r *run) []fault {
	bsc, fiu, ibm := f.domains[0], f.domains[1], f.domains[2]
	kill := func(d *domain) func() error {
		return func() error {
			r.kill(d)
			return nil
		}
	}
	start := func(d *domain) func() error { return func() error { return r.again(d) } }
	jump := func(d *domain) func() error {
		return func() error {
			d.clock = -d.clock
			return r.again(d)
		}
	}
	p := f.phase
	return []fault{
		{p / 5, p * 4 / 5, "bsc and fiu are cut off from each other", f.cut(bsc, fiu), f.heal(bsc, fiu)},
		{p * 11 / 10, p / 2, "the link of ibm has 128 kbit/s, and 150 ms each way", f.slow(ibm, "128kbit", 150*time.Millisecond), f.slow(ibm, "", 0)},
		{p * 17 / 10, p / 10, "the gateway of bsc is killed", kill(bsc), start(bsc)},
		{p * 19 / 10, 0, "all connections are reset", f.reset, nil},
		{p * 21 / 10, p / 4, "the gateway of fiu is killed", kill(fiu), jump(fiu)},
		{p * 25 / 10, p / 10, "the gateway of ibm is killed", kill(ibm), start(ibm)},
	}
}

// suffer has the faults happen, and notes when.
func (f *federation) suffer(ctx context.Context, r *run, skewed bool) {
	note := func(format string, args ...any) {
		line := fmt.Sprintf("%5.1f s: ", time.Since(r.begin).Seconds()) + fmt.Sprintf(format, args...)
		r.mu.Lock()
		r.notes = append(r.notes, line)
		r.mu.Unlock()
	}
	r.mu.Lock()
	clocks := "clocks are right here: this Go's time.Now could not be wronged; make sim has wrong ones"
	if skewed {
		clocks = "clocks: that of fiu is 0.9 s ahead and, after its gateway was killed, 0.9 s behind; that of ibm is 0.9 s behind"
	}
	r.notes = append(r.notes, clocks)
	r.mu.Unlock()
	for _, x := range f.faults(r) {
		if !pause(ctx, time.Until(r.begin.Add(x.at))) {
			return
		}
		note("%s, for %s", x.what, x.lasts.Round(100*time.Millisecond))
		if err := x.begin(); err != nil {
			r.t.Errorf("%s: %v", x.what, err)
		}
		if x.end == nil {
			continue
		}
		// What was begun is ended, though the run is over.
		pause(ctx, x.lasts)
		if err := x.end(); err != nil {
			r.t.Errorf("%s, and its end: %v", x.what, err)
		}
	}
}

func (f *federation) ways(a, b *domain) []*way {
	var out []*way
	for _, p := range []struct{ at, from *domain }{{a, b}, {b, a}} {
		if x := f.proxies[p.at.name]; x != nil {
			if w := x.ways[p.from.address]; w != nil {
				out = append(out, w)
			}
		}
	}
	return out
}

func (f *federation) cut(a, b *domain) func() error {
	return func() error {
		for _, w := range f.ways(a, b) {
			w.cut()
		}
		return nil
	}
}

func (f *federation) heal(a, b *domain) func() error {
	return func() error {
		for _, w := range f.ways(a, b) {
			w.heal()
		}
		return nil
	}
}

func (f *federation) reset() error {
	for _, p := range f.proxies {
		for _, w := range p.ways {
			w.reset()
		}
	}
	return nil
}

// slow bounds the link of a domain: the kernel by tbf, and the proxy for the delay.
func (f *federation) slow(d *domain, rate string, delay time.Duration) func() error {
	return func() error {
		for _, o := range f.domains {
			if o != d {
				for _, w := range f.ways(o, d) {
					w.set(delay, 0)
				}
			}
		}
		return slow(f.hub, d.space, d.number, rate)
	}
}
