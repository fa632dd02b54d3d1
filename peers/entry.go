package peers

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// requestBurst are requests that a peer may make at once, limits.CallRate being those of a
// second: far more than the protocol needs.
const requestBurst = 2 * limits.CallRate

// entry is one peer. Its methods want its lock unless they say otherwise.
type entry struct {
	t      *Table
	domain string
	count  counts
	stream *stream

	mu     sync.Mutex
	peer   Peer
	config session.Config
	client *Client
	url    string // of client
	told   string // where the peer said last that it is reached; "" is nowhere
	aside  bool   // the last request to its URL got no answer: it is called where it was told

	link   *link    // the session that stands
	old    []*link  // closed ones, the last closed last
	names  []string // of those before
	opened int

	opening *opening
	asking  *wire.Open // the request that has no answer yet, for the next try
	tries   int
	nextTry time.Time
	timer   *time.Timer // for nextTry
	reason  string      // why there is no session
	since   time.Time
	trouble string
	clock   Clock

	undone struct { // items that the handler was given, or is to be, and is not done with, of all sessions
		items, bytes int
	}

	inside  int
	asks    *rate.Limiter
	opens   *rate.Limiter
	removed bool
	stopped bool
}

func newEntry(t *Table, p Peer) *entry {
	e := &entry{t: t, domain: p.Domain, stream: new(stream), peer: p, config: t.o.config(p), asks: rate.NewLimiter(limits.CallRate, requestBurst), opens: rate.NewLimiter(rate.Every(limits.OpenEvery), limits.Opens), since: time.Now()}
	e.reason = e.waitsFor()
	return e
}

func (e *entry) waitsFor() string {
	if e.peer.URL == "" {
		return "there is no URL to call: the peer has to open the session"
	}
	return "no session was opened yet"
}

// locked takes the lock for what do does.
func (e *entry) locked(do func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do()
}

// stream is what a handler is told about one peer, in order.
type stream struct {
	mu    sync.Mutex
	queue []func(Handler)
	busy  bool
	ended bool
}

// tell tells the handler, after what it was told before. It takes no lock of an entry.
func (e *entry) tell(what func(Handler)) {
	s := e.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.queue = append(s.queue, what)
	if !s.busy {
		s.busy = e.t.spawn(func(context.Context) { s.run(e.t.o.Handler) })
	}
}

func (s *stream) run(h Handler) {
	for {
		s.mu.Lock()
		if len(s.queue) == 0 || s.ended {
			s.queue, s.busy = nil, false
			s.mu.Unlock()
			return
		}
		what := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		what(h)
	}
}

// untold is how much the handler was not told yet.
func (s *stream) untold() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue, s.ended = nil, true
}

// stop leaves everything as it is, with the end of Run.
func (e *entry) stop() {
	e.stopped = true
	e.stream.end()
	e.wait(time.Time{})
	for _, l := range e.links() {
		l.leave()
	}
	if e.client != nil {
		e.client.CloseIdle()
	}
}

// links gives all sessions that are known.
func (e *entry) links() []*link {
	if e.link == nil {
		return e.old
	}
	return append(slices.Clip(e.old), e.link)
}

func (e *entry) find(name string) *link {
	for _, l := range e.links() {
		if l.name == name {
			return l
		}
	}
	return nil
}

// close begins the end of what stands, and gives what is closed when it is over and told.
func (e *entry) close(how session.Stop) (gone []<-chan struct{}) {
	e.wait(time.Time{})
	e.opening, e.asking = nil, nil
	if l := e.link; l != nil {
		if phase, _, _ := l.state.Phase(); phase == session.Lost {
			how.Drain = false // it can't
		}
		_ = l.step(how)
	}
	for _, l := range e.links() {
		gone = append(gone, l.gone)
	}
	return gone
}

// behind says why no other session may begin yet: what the earlier ones brought is not done
// with, and each could bring as much again. "" is that one may.
func (e *entry) behind() string {
	c := e.config.EnsureDefaults()
	if u := &e.undone; u.items > c.Window || u.bytes > c.Budget {
		return fmt.Sprintf("%d items of earlier sessions, of %d bytes, are not done with yet: come again later", u.items, u.bytes)
	}
	if n := e.stream.untold(); n > limits.Untold {
		return fmt.Sprintf("%d things of earlier sessions are not heeded yet: come again later", n)
	}
	return ""
}

// over takes that a session was closed.
func (e *entry) over(l *link) {
	reason, sentence := l.state.End()
	e.tell(func(h Handler) { h.Closed(e.domain, reason, sentence) })
	if e.link != l {
		return
	}
	e.link = nil
	e.reason, e.since = "the last session was closed as "+string(reason)+": "+sentence, time.Now()
	e.old = append(e.old, l)
	if len(e.old) > limits.Closed {
		e.forget(e.old[0])
		e.old = slices.Delete(e.old, 0, 1)
	}
	if time.Since(l.born) > longestWait {
		e.tries = 0
	}
	switch {
	case l.anew:
		e.tries = 0
		e.wait(time.Now())
	case reason == wire.Withdrawn:
		e.later(longestWait)
	default:
		e.later(0)
	}
}

// forget leaves of a closed session its name.
func (e *entry) forget(l *link) {
	l.leave()
	e.t.mu.Lock()
	delete(e.t.sessions, l.name)
	e.t.mu.Unlock()
	e.names = append(e.names, l.name)
	if len(e.names) > limits.Names {
		e.names = slices.Delete(e.names, 0, 1)
	}
}

// settle lets go of a removed peer when its session is over and told.
func (e *entry) settle() {
	if !e.removed || e.link != nil {
		return
	}
	for _, l := range e.old {
		if !l.isGone {
			return
		}
	}
	for _, l := range e.old {
		e.forget(l)
	}
	e.old = nil
	e.t.mu.Lock()
	left := slices.DeleteFunc(e.t.leaving[e.domain], func(o *entry) bool { return o == e })
	if e.t.leaving[e.domain] = left; len(left) == 0 {
		delete(e.t.leaving, e.domain)
	}
	e.t.mu.Unlock()
	if e.client != nil {
		e.client.CloseIdle()
	}
}

// change takes other wishes.
func (e *entry) change(p Peer) {
	before, after := e.config, e.t.o.config(p)
	if p.URL != e.peer.URL {
		e.aside = false
	}
	e.peer, e.config = p, after
	// What is shown may change in a session.
	before.Party.Shows, before.Party.Every = after.Party.Shows, after.Party.Every
	e.client, e.url = e.clientFor(e.url)
	if reflect.DeepEqual(before, after) && e.link != nil {
		return
	}
	e.opening, e.asking, e.tries = nil, nil, 0
	if e.link != nil {
		e.link.anew = true
		_ = e.link.step(session.Stop{Reason: wire.Superseded, Sentence: "what " + e.t.o.Domain + " wants of the session changed", Drain: true, By: time.Now().Add(drainTime)})
		return
	}
	e.reason, e.since = e.waitsFor(), time.Now()
	e.open()
}

// unanswered has a peer be called elsewhere the next time, if it told another endpoint than the
// URL that is known: it may have come back at another port. The two take turns until one answers.
func (e *entry) unanswered() { e.aside = !e.aside && e.told != "" && e.told != e.peer.URL }

// clientFor gives what calls the peer: at its URL, or where that is not known, or does not
// answer, at the endpoint that it told.
func (e *entry) clientFor(told string) (*Client, string) {
	url := e.peer.URL
	switch {
	case url == "":
		url = told
	case e.aside && e.told != "":
		url = e.told
	}
	if url == e.url && e.client != nil && !e.client.broken.Load() {
		return e.client, e.url
	}
	if e.client != nil {
		e.client.CloseIdle()
	}
	c := &Client{URL: url, Domain: e.domain, Trust: e.t.o.Trust, Version: e.t.o.Version, UserAgent: e.t.o.Software, count: &e.count}
	if e.t.o.Transport != nil {
		p := e.peer
		p.URL = url
		if c.Transport, c.failed = e.t.o.Transport(p); c.failed != nil {
			c.failed = fail.Errorf("peers", fail.Unavailable, url, "there is no way to call %s", url).Because(c.failed)
			c.broken.Store(true)
		}
	}
	return c, url
}

// put gives items to the session.
func (e *entry) put(items []wire.Message) error {
	l := e.link
	if l == nil {
		return fail.Errorf("peers.Put", fail.Unavailable, e.domain, "there is no session with %s: %s", e.domain, e.reason)
	}
	if m, feature := wire.Beyond(l.state.Agreement().Features, items); m != nil {
		return fail.Errorf("peers.Put", fail.Unsupported, e.domain, "%s does not know %s: the session did not agree on the feature %s", e.domain, wire.Name(m).Local, feature)
	}
	if err := l.step(session.Put{Items: items}); err != nil {
		return err
	}
	l.stamp()
	return nil
}

// answer answers a request in a session. It takes the lock.
func (e *entry) answer(ctx context.Context, request wire.Message) (wire.Message, error) {
	f := frameOf(request)
	e.mu.Lock()
	l := e.find(f.Session)
	var err error
	switch {
	case e.stopped:
		err = errStopped(f.Session)
	case l == nil:
		err = &wire.Fault{Code: wire.UnknownSession, Session: f.Session, Sentence: "the session is not known here: open another"}
	case !e.asks.Allow():
		err = busy(f.Session, "there are too many requests of "+e.domain+": come again later", time.Second)
	case e.inside >= limits.Calls:
		err = busy(f.Session, fmt.Sprintf("%d requests of %s are being answered: come again when there are fewer", e.inside, e.domain), time.Second)
	default:
		err = l.refuse(f)
	}
	if err != nil {
		e.mu.Unlock()
		return nil, err
	}
	e.inside++
	e.count.in.items.Add(uint64(len(f.Items)))
	if e.clock.At.IsZero() && l.state.Agreement().Theirs.Endpoint == "" {
		// It is never called, so that only this tells: of a request that was not given up
		// on the way.
		now := time.Now()
		e.clock = Clock{Difference: f.Clock.Sub(now), Within: openWait, At: now}
	}
	id, ch := l.request(request)
	e.mu.Unlock()
	defer e.locked(func() { e.inside-- })
	select {
	case a := <-ch:
		return a.message, a.err
	case <-ctx.Done():
		e.locked(func() { l.gave(id) })
		// Who asked went away, or this side stops to answer.
		return nil, busy(f.Session, "the request was not answered before it was given up: come again", time.Second)
	}
}

func errStopped(session string) error {
	return busy(session, "this gateway stopped: come again", 5*time.Second)
}

// status tells how it stands.
func (e *entry) status() Status {
	s := Status{
		Peer: e.peer.clone(), Endpoint: e.url, Reason: e.reason, Since: e.since, Trouble: e.trouble, NextTry: e.nextTry,
		In: e.count.in.traffic(), Out: e.count.out.traffic(), Clock: e.clock, Sessions: e.opened,
	}
	if l := e.link; l != nil {
		l.status(&s)
	}
	return s
}
