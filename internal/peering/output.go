package peering

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/wire"
)

const (
	// pieceSize is how much output is asked of a peer at once.
	pieceSize = 256 << 10
	// pieceTime is how long a piece is waited for: each hop of the way waits less long than
	// the one before, as they all began later.
	pieceTime = 30 * time.Second
	// followPause is how often a job's output is looked at for a peer that follows it.
	followPause = time.Second
	// followTime bounds how long one request follows.
	followTime = 10 * time.Minute
)

// requests are those for output that wait for peers.
type requests struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]*request
	serving map[string]map[uint64]context.CancelFunc // by peer and its request
}

type request struct {
	from  string
	about wire.About
	items chan *wire.Output
	gone  chan struct{}
}

// hear takes output in.
func (q *requests) hear(from string, m *wire.Output) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.waiting[m.Request]
	if r == nil || r.from != from || r.about != m.About {
		return // nobody waits for it any more
	}
	select {
	case r.items <- m:
	default:
		// More than was asked for: the reader does without.
		q.drop(m.Request)
	}
}

func (q *requests) drop(n uint64) {
	if r := q.waiting[n]; r != nil {
		delete(q.waiting, n)
		close(r.gone)
	}
}

// gone ends what a peer was asked for or asked, as there is no session with it any more.
func (q *requests) gone(domain string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n, r := range q.waiting {
		if r.from == domain {
			q.drop(n)
		}
	}
	for _, stop := range q.serving[domain] {
		stop()
	}
}

func (q *requests) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n := range q.waiting {
		q.drop(n)
	}
}

// ask files a request of a peer.
func (q *requests) ask(from string, about wire.About) (uint64, *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting == nil {
		q.waiting = map[uint64]*request{}
		q.last = uint64(time.Now().UnixNano()) & (wire.MaxRequest >> 1) // answers to the process before are no answers
	}
	q.last++
	r := &request{from, about, make(chan *wire.Output, 64), make(chan struct{})}
	q.waiting[q.last] = r
	return q.last, r
}

func (q *requests) forget(n uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, n)
}

// output opens a stream of a job that a peer has or had.
func (e *Engine) output(ctx context.Context, b adapters.Handle, s adapters.Stream, offset int64) (io.ReadCloser, error) {
	h, err := readHandle(b)
	if err != nil {
		return nil, err
	}
	which := wire.Stdout
	if s == adapters.Stderr {
		which = wire.Stderr
	}
	r := &reader{e: e, ctx: ctx, h: h, stream: which, offset: uint64(max(0, offset))}
	if err := r.fetch(); err != nil { // so that whoever opens it hears that there is none
		return nil, err
	}
	return r, nil
}

// reader reads a stream piece by piece.
type reader struct {
	e      *Engine
	ctx    context.Context //nolint:containedctx // a reader lives as long as the call that opened it
	h      handle
	stream wire.Stream
	offset uint64
	have   []byte
	ended  bool
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for len(r.have) == 0 {
		if r.ended {
			return 0, io.EOF
		}
		if err := r.fetch(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.have)
	r.have = r.have[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *reader) Close() error { return nil }

// fetch asks for the next piece.
func (r *reader) fetch() error {
	const op = "peering.Output"
	e := r.e
	about := wire.About{Origin: r.h.key.Origin, ID: r.h.key.ID, Token: string(r.h.token)}
	away := func(why string) error {
		return fail.Errorf(op, fail.Unavailable, r.h.key.String(), "the domain %s, which has the output, %s; try again later", r.h.to, why)
	}
	e.mu.Lock()
	p := e.peer(r.h.to)
	open, able := e.term != nil && p.open, slices.Contains(p.features, wire.FeatureOutput)
	e.mu.Unlock()
	switch {
	case !open:
		return away("can't be asked now")
	case !able:
		return fail.Errorf(op, fail.Unsupported, r.h.key.String(), "the domain %s gives no output", r.h.to)
	}
	n, q := e.reads.ask(r.h.to, about)
	defer e.reads.forget(n)
	if err := e.o.Link.Put(r.h.to, &wire.Read{About: about, Request: n, Stream: r.stream, Offset: r.offset, Most: pieceSize}); err != nil {
		return fail.E(op, fail.Unavailable, r.h.key.String(), err)
	}
	late := time.NewTimer(pieceTime)
	defer late.Stop()
	got := 0
	for {
		select {
		case m := <-q.items:
			if m.Kind != "" {
				return fail.Errorf(op, m.Kind.Kind(), r.h.key.String(), "%s", m.Reason)
			}
			if m.Offset == r.offset && got+len(m.Data) <= pieceSize {
				r.have = append(r.have, m.Data...)
				r.offset += uint64(len(m.Data))
				got += len(m.Data)
			} else if len(m.Data) > 0 {
				return away("sent another piece than was asked for")
			}
			if m.Last {
				r.ended = got < pieceSize
				return nil
			}
		case <-q.gone:
			return away("was lost")
		case <-late.C:
			return away("did not answer in time")
		case <-r.ctx.Done():
			return fail.E(op, fail.Unavailable, r.h.key.String(), context.Cause(r.ctx))
		}
	}
}

// read serves a peer's request for output; the caller holds the lock.
func (e *Engine) read(t *term, from string, m *wire.Read) {
	q := &e.reads
	q.mu.Lock()
	defer q.mu.Unlock()
	if m.Most == 0 {
		if stop := q.serving[from][m.Request]; stop != nil {
			stop()
		}
		return
	}
	if q.serving == nil {
		q.serving = map[string]map[uint64]context.CancelFunc{}
	}
	if q.serving[from] == nil {
		q.serving[from] = map[uint64]context.CancelFunc{}
	}
	switch {
	case q.serving[from][m.Request] != nil:
		return // it is being answered
	case len(q.serving[from]) >= limits.Reads:
		e.post(from, letter{item: noOutput(m, fail.Errorf("peering.read", fail.Exhausted, "", "%d requests for output are being served: send fewer at once, or try again", limits.Reads))})
		return
	}
	activity := ""
	x := e.jobs[keyOf(m.About)]
	known := x.knows(from, m.Token)
	if known {
		activity = x.Activity
	}
	ctx, stop := context.WithTimeout(t.ctx, followTime)
	q.serving[from][m.Request] = stop
	t.bg.Go(func() {
		defer func() {
			stop()
			q.mu.Lock()
			defer q.mu.Unlock()
			if delete(q.serving[from], m.Request); len(q.serving[from]) == 0 {
				delete(q.serving, from)
			}
		}()
		if !known {
			var err error
			if activity, err = e.kept(ctx, from, m); err != nil {
				e.say(from, noOutput(m, err))
				return
			}
		}
		e.copyOut(ctx, from, m, x, activity)
	})
}

// awaited reports whether the broker may not have the job of an entry yet.
func (e *Engine) awaited(x *entry) bool {
	if x == nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return x.taken() && !x.worker.started && !x.Closed
}

// knows reports whether the copy of a peer is the one of the entry.
func (x *entry) knows(from, token string) bool {
	return x != nil && x.taken() && x.job.Taken.From == from && string(x.job.Taken.Token) == token
}

func noOutput(m *wire.Read, err error) *wire.Output {
	return &wire.Output{About: m.About, Request: m.Request, Offset: m.Offset, Last: true, Kind: wire.RefusalOf(fail.KindOf(err)), Reason: sentenceOf(err)}
}

// sentenceOf gives what a peer may be told of an error, on one line.
func sentenceOf(err error) string {
	line := []rune(fail.Sentence(err))
	for i, r := range line {
		if r < ' ' || r == 0x7f {
			line[i] = ' '
		}
	}
	for len(string(line)) > handover.MaxReason {
		line = line[:len(line)-1]
	}
	return string(line)
}

func (e *Engine) say(to string, m wire.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.post(to, letter{item: m})
}

// deal sends a piece of output, unless too much of it waits for the peer to take it.
func (e *Engine) deal(to string, m *wire.Output) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(m.Data) > 0 {
		waits := 0
		for _, l := range e.peer(to).outbox {
			if o, ok := l.item.(*wire.Output); ok {
				waits += len(o.Data)
			}
		}
		if waits+len(m.Data) > limits.OutputBytes {
			return fail.Errorf("peering.read", fail.Exhausted, m.Origin+"/"+m.ID, "%d bytes of output wait to be taken by the domain %s, and %d may: acknowledge them, and ask again", waits, to, limits.OutputBytes)
		}
	}
	e.post(to, letter{item: m})
	return nil
}

// copyOut sends output to a peer; x is the job's entry, if there is one.
func (e *Engine) copyOut(ctx context.Context, to string, m *wire.Read, x *entry, activity string) {
	out := &wire.Output{About: m.About, Request: m.Request, Offset: m.Offset}
	if activity == "" {
		out.Last = true // it has no place yet
		e.say(to, out)
		return
	}
	for left := m.Most; ; {
		awaited := e.awaited(x) // before it is asked: it may have the job just after
		data, more, err := e.o.Jobs.Output(ctx, activity, string(m.Stream), int64(out.Offset), min(left, pieceSize))
		if awaited && fail.Is(err, fail.NotFound) {
			data, more, err = nil, true, nil
		}
		if err != nil {
			if t := (&wire.Output{About: m.About, Request: m.Request, Offset: out.Offset}); m.Follow && ctx.Err() != nil {
				t.Last = true
				e.say(to, t)
				return
			}
			e.say(to, noOutput(m, err))
			return
		}
		data = data[:min(len(data), left)]
		left -= len(data)
		wait := m.Follow && more && left > 0
		next := &wire.Output{About: m.About, Request: m.Request, Offset: out.Offset, Data: data, Last: left == 0 || len(data) == 0 && !wait}
		if !m.Follow && len(data) > 0 && len(data) < pieceSize {
			next.Last = true
		}
		if len(data) > 0 || next.Last {
			if err := e.deal(to, next); err != nil {
				e.say(to, noOutput(&wire.Read{About: m.About, Request: m.Request, Offset: out.Offset}, err))
				return
			}
		}
		if next.Last {
			return
		}
		out.Offset += uint64(len(data))
		if len(data) == 0 && !sleep(ctx, followPause) {
			e.say(to, &wire.Output{About: m.About, Request: m.Request, Offset: out.Offset, Last: true})
			return
		}
	}
}
