package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	routedRounds = 3
	routedTurn   = 2 * time.Second       // of submitting, of one side in one round
	hopRounds    = 41                    // of one job to each distance, at most
	hopTime      = 15 * time.Second      // for them, unless the machine is so slow that five rounds take longer
	hopPause     = 20 * time.Millisecond // between jobs, so that none meets what is said of the one before
	published    = 1.31                  // jobs/s that MultiKueue dispatches, as was published
	otherEnv     = "PORTOLAN_BENCH_OTHER_DOMAIN"
)

// BenchmarkPeerRatios prints what peers cost: a job that goes to another domain beside one that stays,
// and sessions in which nothing happens.
func BenchmarkPeerRatios(b *testing.B) {
	for b.Loop() {
		routed(b)
		hops(b)
		idle(b)
	}
	fmt.Println()
}

// routed compares jobs that go to a peer with those that stay. Each of the two gateways has a process and
// one processor: the clients and the gateway that they submit to are this one.
func routed(b *testing.B) {
	b.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	home := openDomain(b, "d0.example", architectures[0])
	home.meet(b)
	other := startOther(b, home)
	home.first(b, architectures[1], other.reached)
	home.first(b, architectures[0], home.reached)
	var rates, used [2][]float64
	var ratios []float64
	for range routedRounds {
		local := flood(b, home, architectures[0], home.reached)
		away := flood(b, home, architectures[1], other.reached)
		for i, r := range []rate{local, away} {
			rates[i], used[i] = append(rates[i], r.perSecond()), append(used[i], r.each())
		}
		ratios = append(ratios, away.perSecond()/local.perSecond())
	}
	other.end(b)
	home.close(b)
	fmt.Printf("5  jobs to a peer through one session      %8.0f /s   (%4.0f µs of processor each at home, clients included)\n", median(rates[1]), median(used[1]))
	fmt.Printf("   the same jobs to the own site           %8.0f /s   (%4.0f µs)\n", median(rates[0]), median(used[0]))
	report(b, "routed/local", median(ratios), "≥ 0.5")
	fmt.Printf("   MultiKueue dispatches, as published     %8.2f /s\n", published)
	fmt.Printf("   times as many                           %8.0f\n", median(rates[1])/published)
}

// flood submits jobs for a time, and waits until all have reached the site that they are for.
func flood(b *testing.B, from *domain, architecture string, reached <-chan struct{}) rate {
	b.Helper()
	request := from.request(architecture)
	var submitted atomic.Int64
	errs := make(chan error, clients)
	began, used := time.Now(), processor()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			c, err := dial(from.address)
			if err != nil {
				errs <- err
				return
			}
			defer c.conn.Close() //nolint:errcheck // nothing of it is needed
			for time.Since(began) < routedTurn {
				if err := c.do(request, made); err != nil {
					errs <- err
					return
				}
				submitted.Add(1)
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		b.Fatal(err)
	default:
	}
	await(b, reached, int(submitted.Load()))
	return rate{submitted.Load(), time.Since(began), processor() - used}
}

// other is a domain in a process of its own.
type other struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	reached chan struct{}
}

func startOther(b *testing.B, home *domain) *other {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	o := &other{cmd: exec.Command(self, "-test.run=^$", "-test.bench=^BenchmarkOtherDomain$", "-test.benchtime=1x"), reached: make(chan struct{}, 1<<16)}
	o.cmd.Env = append(os.Environ(), otherEnv+"=1", "GOMAXPROCS=1")
	o.cmd.ExtraFiles, o.cmd.Stderr = []*os.File{theirs}, os.Stderr
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	if err := o.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_ = theirs.Close() // it has its own
	in := bufio.NewReader(out)
	line, err := in.ReadBytes('\n')
	if err != nil {
		b.Fatal(err)
	}
	var card neighbour
	if err := json.Unmarshal(line, &card); err != nil {
		b.Fatal(err)
	}
	if err := json.NewEncoder(o.in).Encode(home.card()); err != nil {
		b.Fatal(err)
	}
	home.join(b, []neighbour{home.card(), card}, 0)
	go func() {
		defer out.Close() //nolint:errcheck // nothing of it is kept
		for {
			if _, err := in.ReadByte(); err != nil {
				return
			}
			o.reached <- struct{}{}
		}
	}()
	return o
}

func (o *other) end(b *testing.B) {
	b.Helper()
	_ = o.in.Close()
	if err := o.cmd.Wait(); err != nil {
		b.Error(err)
	}
}

// BenchmarkOtherDomain is the process of the other domain: it tells who it is, is told who is beside it,
// and then writes a byte for each job that reaches its site, until its input ends.
func BenchmarkOtherDomain(b *testing.B) {
	if os.Getenv(otherEnv) == "" {
		b.Skip("BenchmarkPeerRatios starts it")
	}
	out := os.NewFile(3, "out")
	d := openDomain(b, "d1.example", architectures[1])
	d.meet(b)
	if err := json.NewEncoder(out).Encode(d.card()); err != nil {
		b.Fatal(err)
	}
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		b.Fatal(err)
	}
	var home neighbour
	if err := json.Unmarshal(line, &home); err != nil {
		b.Fatal(err)
	}
	d.join(b, []neighbour{home, d.card()}, 1)
	for b.Loop() {
		over := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, in) // it ends with who started this
			close(over)
		}()
		for open := true; open; {
			select {
			case <-d.reached:
				n := 1 + len(d.reached)
				for range n - 1 {
					<-d.reached
				}
				if _, err := out.Write(make([]byte, n)); err != nil {
					open = false
				}
			case <-over:
				open = false
			}
		}
	}
	d.close(b)
}

// hops has single jobs go through a row of gateways in this process, each over HTTP and TLS to the next:
// from the submission until the site is given the job.
func hops(b *testing.B) {
	b.Helper()
	all := street(b, 9)
	c, err := dial(all[0].address)
	if err != nil {
		b.Fatal(err)
	}
	far := []int{0, 1, 8}
	took := make([][]float64, len(far))
	start := time.Now()
	for round := 0; round < hopRounds && (round < 5 || time.Since(start) < hopTime); round++ {
		for i, n := range far {
			request := all[0].request(architectures[n])
			<-time.After(hopPause)
			began := time.Now()
			if err := c.do(request, made); err != nil {
				b.Fatal(err)
			}
			await(b, all[n].reached, 1)
			took[i] = append(took[i], float64(time.Since(began).Microseconds()))
		}
	}
	_ = c.conn.Close()
	for _, d := range all {
		d.close(b)
	}
	local := median(took[0])
	for i, n := range far[1:] {
		aim, unit := "≤ 1.25", "hop/local"
		if n > 1 {
			aim, unit = "≤ 9", "hops/local"
		}
		at := median(took[i+1])
		fmt.Printf("%d  from submission to a site %d hops away    %8.0f µs\n", 6+i, n, at)
		fmt.Printf("   to the own site                         %8.0f µs\n", local)
		report(b, unit, (at-local)/local, "added "+aim)
	}
}
