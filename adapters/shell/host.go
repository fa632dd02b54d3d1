package shell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// host is one machine of a site of several.
type host struct {
	Host
	site *Hosts
	// Of the connection there is.
	mu      sync.Mutex
	link    *connection // nil: none
	waiting map[uint64]chan *answer
	last    uint64
	// With the site's mu held.
	facts   *facts // nil: never heard of
	up      bool
	problem string
	since   time.Time
	used    int           // slots
	tried   chan struct{} // closed when the first try to connect is over
}

const (
	beat      = 5 * time.Second // between signs of life
	firstWait = 100 * time.Millisecond
	lastWait  = 15 * time.Second
)

// run keeps a connection to the host until ctx ends.
func (h *host) run(ctx context.Context) {
	first := sync.OnceFunc(func() { close(h.tried) })
	defer first()
	wait := firstWait
	for ctx.Err() == nil {
		served, err := h.serve(ctx, first)
		first()
		if ctx.Err() != nil {
			return
		}
		h.site.down(h, err)
		if served {
			wait = firstWait
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // so that hosts are not all tried at once
		}
		wait = min(2*wait, lastWait)
	}
}

// serve has one connection, from its beginning to its end.
func (h *host) serve(ctx context.Context, first func()) (served bool, err error) {
	link, dir, err := connect(ctx, &h.Host, h.site.identity)
	if err != nil {
		return false, err
	}
	defer context.AfterFunc(ctx, link.close)()
	defer link.close()
	h.mu.Lock()
	h.link, h.waiting = link, map[uint64]chan *answer{}
	h.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- h.hear(link) }()
	// finish waits for the hearing to end, which closing the connection brings about.
	finish := func(err error) error {
		link.close()
		heard := <-ended
		if err == nil {
			err = heard
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.link = nil
		for _, c := range h.waiting {
			close(c)
		}
		h.waiting = nil
		if said := strings.TrimSpace(link.stderr.String()); said != "" {
			err = fmt.Errorf("%w; it says %q", err, clip(said))
		}
		return err
	}
	setup := h.site.setup(h, dir)
	opening, stop := context.WithTimeout(ctx, connectTime)
	r, err := h.call(opening, call{Do: hostOpen, Setup: setup})
	stop()
	if err != nil {
		return false, finish(err)
	}
	if r.Facts == nil {
		return false, finish(errors.New("it does not say what it is"))
	}
	h.site.arrived(ctx, h, r.Facts)
	first()
	tick := time.NewTicker(h.site.beat)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			ended <- err
			return true, finish(nil)
		case <-tick.C:
			silent := time.AfterFunc(3*h.site.beat, link.close) // also under one who waits to send
			r, err := h.call(ctx, call{Do: hostFree})
			silent.Stop()
			if err != nil {
				return true, finish(fmt.Errorf("it gives no sign of life: %w", err))
			}
			h.site.heard(h, r.Facts)
		}
	}
}

// hear takes what the host says until the connection ends.
func (h *host) hear(link *connection) error {
	for {
		r := new(answer)
		if err := link.receive(r); err != nil {
			return fmt.Errorf("the connection ended: %w", err)
		}
		h.site.contact.Store(time.Now().UnixNano())
		if r.ID == 0 {
			for _, e := range r.Evidence {
				h.site.news(h, e.evidence())
			}
			continue
		}
		h.mu.Lock()
		c := h.waiting[r.ID]
		delete(h.waiting, r.ID)
		h.mu.Unlock()
		if c != nil {
			c <- r
		}
	}
}

// errDown means that the host can't be asked now, and that it was not; errLost that
// it was asked and the answer was lost.
var (
	errDown = errors.New("the host can't be reached")
	errLost = errors.New("the host was asked and its answer was lost")
)

// call asks the host something.
func (h *host) call(ctx context.Context, c call) (*answer, error) {
	h.mu.Lock()
	link := h.link
	if link == nil {
		h.mu.Unlock()
		return nil, errDown
	}
	h.last++
	c.ID = h.last
	reply := make(chan *answer, 1)
	h.waiting[c.ID] = reply
	h.mu.Unlock()
	h.site.requests.Add(1)
	if err := link.send(c); err != nil {
		link.close()
		return nil, fmt.Errorf("%w: %w", errLost, err)
	}
	select {
	case r, ok := <-reply:
		if !ok {
			return nil, errLost
		}
		if r.Error != nil {
			return r, r.Error.err("shell.Host")
		}
		return r, nil
	case <-ctx.Done():
		h.mu.Lock()
		delete(h.waiting, c.ID)
		h.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", errLost, ctx.Err())
	}
}

// each asks for something for each of some things, and gives an error for each.
func (h *host) each(ctx context.Context, c call, n int) ([]error, error) {
	r, err := h.call(ctx, c)
	if err != nil {
		return nil, err
	}
	if len(r.Errors) != n {
		return nil, fmt.Errorf("%w: it answers %d of %d", errLost, len(r.Errors), n)
	}
	errs := make([]error, n)
	for i, e := range r.Errors {
		errs[i] = e.err("shell.Host")
	}
	return errs, nil
}

// unreachable says that the host is away, as an error for a caller.
func (h *host) unreachable(op string, tag adapters.Tag, err error) error {
	return fail.Errorf(op, fail.Unavailable, string(tag), "the host %s can't be reached at present", h.Name).Because(err)
}

// named reports whether the host has one of the names.
func (h *host) named(names []string) bool {
	mine := append([]string{h.Name, h.Address}, h.Labels...)
	if h.facts != nil {
		mine = append(mine, h.facts.Names...)
	}
	return slices.ContainsFunc(names, func(n string) bool {
		return slices.ContainsFunc(mine, func(m string) bool { return strings.EqualFold(m, n) })
	})
}

// slots gives how many the host has, so far as is known.
func (h *host) slots() int {
	if h.facts != nil {
		return h.facts.Slots
	}
	return max(h.Slots, 1)
}

// remember keeps what is known of the host for the next gateway, which may find it
// down.
func (h *host) remember(dir string) error {
	data, err := json.Marshal(h.facts)
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, h.Name), data, false)
}

func (h *host) recall(dir string) {
	data, err := readBounded(filepath.Join(dir, h.Name), 1<<20)
	if err != nil {
		return
	}
	var f facts
	if json.Unmarshal(data, &f) == nil && f.Slots > 0 {
		h.facts = &f
	}
}

// replace writes a file anew, whole or not at all; lasting syncs it.
func replace(path string, data []byte, lasting bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && lasting {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
