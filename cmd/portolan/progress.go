package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/portolan-project/portolan/bes"
)

// progress shows how jobs go on: a line a change, and on a terminal one more
// line below, which is rewritten. It may be used from many goroutines.
type progress struct {
	w    io.Writer
	live bool

	mu     sync.Mutex
	ids    []string
	last   []outcome
	began  time.Time
	lost   bool // the service is away
	stop   chan struct{}
	ticker sync.WaitGroup
}

// newProgress starts showing; close ends it.
func newProgress(w io.Writer, live bool, acts []activity) *progress {
	p := &progress{w: w, live: live, last: make([]outcome, len(acts)), began: time.Now(), stop: make(chan struct{})}
	for _, act := range acts {
		p.ids = append(p.ids, act.id)
	}
	if live {
		p.ticker.Go(p.tick)
	}
	return p
}

// tick keeps the running time up to date.
func (p *progress) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// news tells a change.
func (p *progress) news(i int, o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[i], p.lost = o, false
	if !p.live || o.err != nil || o.status.State.Final() {
		p.say(p.ids[i] + "  " + describe(o))
	}
	p.draw()
}

// away tells, once, that the service does not answer.
func (p *progress) away(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.lost {
		p.lost = true
		p.say("waiting for the service: " + plain(sentence(err)))
	}
	p.draw()
}

// say writes a line that stays.
func (p *progress) say(s string) {
	if p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	fmt.Fprintln(p.w, s)
}

// draw rewrites the line of a terminal.
func (p *progress) draw() {
	if !p.live {
		return
	}
	line := []rune(p.line())
	if f, ok := p.w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 1 && len(line) >= width {
			line = append(line[:width-2], '…')
		}
	}
	fmt.Fprint(p.w, "\r\x1b[K"+string(line))
}

func (p *progress) line() string {
	took := time.Since(p.began).Truncate(time.Second).String()
	if len(p.ids) == 1 {
		if p.last[0].status.State == "" {
			return p.ids[0] + "  " + took
		}
		return p.ids[0] + "  " + describe(p.last[0]) + "  " + took
	}
	var pending, running, done, bad int
	for _, o := range p.last {
		switch st := o.status.State; {
		case o.err != nil:
			bad++
		case st.Final() && o.well():
			done++
		case st.Final():
			bad++
		case st == bes.Running:
			running++
		default:
			pending++
		}
	}
	parts := []string{}
	for _, n := range []struct {
		count int
		what  string
	}{{done, "done"}, {bad, "failed"}, {running, "running"}, {pending, "pending"}} {
		if n.count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n.count, n.what))
		}
	}
	return fmt.Sprintf("%d jobs: %s  %s", len(p.ids), strings.Join(parts, ", "), took)
}

// close takes the rewritten line away.
func (p *progress) close() {
	close(p.stop)
	p.ticker.Wait()
	if p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
