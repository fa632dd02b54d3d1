package program

import (
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watcher is what this process hears while the program runs.
type watcher struct {
	signals chan os.Signal
	over    chan struct{} // closed when the program has ended
	told    atomic.Bool
	lease   chan time.Duration // the lease is about to be over: what is left
	lapsed  atomic.Bool
	limit   atomic.Pointer[string] // which limit ended it
}

// listen takes the signals by which managers steer a job: SIGTERM asks for its end.
// Those that would end this process are taken as well, as it must see the end.
func listen() *watcher {
	w := &watcher{signals: make(chan os.Signal, 8), over: make(chan struct{}), lease: make(chan time.Duration, 1)}
	signal.Notify(w.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGXCPU)
	return w
}

func (w *watcher) stop() { signal.Stop(w.signals) }

func reset(n syscall.Signal) { signal.Reset(n) }

// guard passes signals on to the program, and ends it when its time is over.
func (p *Program) guard(w *watcher, pids []int, began time.Time) {
	var wall, deadline, kill <-chan time.Time
	if limit, ok := p.wallTime(); ok {
		wall = time.After(max(limit-time.Since(began), 0))
	}
	if !p.Deadline.IsZero() {
		deadline = time.After(max(time.Until(p.Deadline), 0))
	}
	end := func() {
		p.signal(pids, unix.SIGTERM)
		p.signal(pids, unix.SIGCONT) // one that is stopped heeds nothing
		if kill == nil {
			kill = time.After(p.Grace)
		}
	}
	for {
		select {
		case <-w.over:
			return
		case s := <-w.signals:
			n, ok := s.(syscall.Signal)
			switch {
			case !ok:
			case n == syscall.SIGTERM || n == syscall.SIGQUIT || n == syscall.SIGINT || n == syscall.SIGHUP:
				w.told.Store(true)
				end()
			default:
				p.signal(pids, n)
			}
		case <-wall:
			reason := p.over(LimitWallTime, "it ran for", "seconds")
			w.limit.CompareAndSwap(nil, &reason)
			end()
		case <-deadline:
			reason := fmt.Sprintf("Deadline: the program was stopped because it had not ended by %s", p.Deadline.UTC().Format(time.RFC3339))
			w.limit.CompareAndSwap(nil, &reason)
			end()
		case within := <-w.lease:
			if kill == nil { // else it is being ended for another reason
				w.lapsed.Store(true)
			}
			end()
			kill = time.After(min(within, p.Grace))
		case <-kill:
			p.signal(pids, unix.SIGKILL)
			for _, pid := range descendants(os.Getpid()) {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			kill = nil
		}
	}
}

// signal reaches the processes of the program with their groups.
func (p *Program) signal(pids []int, n syscall.Signal) {
	for _, pid := range pids {
		if unix.Kill(-pid, n) != nil {
			_ = unix.Kill(pid, n)
		}
	}
}
