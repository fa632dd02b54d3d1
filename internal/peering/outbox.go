package peering

import (
	"slices"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// peer is what is known of another domain's gateway; Engine.mu guards it, but for the feed.
type peer struct {
	domain string
	feed   adapters.Feed // of the jobs that it has, for the broker

	open     bool // there is a session, and it is not lost
	why      string
	since    time.Time
	terms    handover.Terms // of the last session
	features []string
	consumes bool // it gives us jobs
	provides bool // it takes ours

	ears      sync.Mutex
	listeners map[chan struct{}]struct{} // who is told that there is a session

	crowded time.Time // when the log said last that too many of its jobs are over

	outbox  []letter
	sending bool // a goroutine takes from the outbox
	full    bool // the session has no room, or is asked; it says when it has
}

func (p *peer) listen() chan struct{} {
	p.ears.Lock()
	defer p.ears.Unlock()
	if p.listeners == nil {
		p.listeners = map[chan struct{}]struct{}{}
	}
	c := make(chan struct{}, 1)
	p.listeners[c] = struct{}{}
	return c
}

func (p *peer) deafen(c chan struct{}) {
	p.ears.Lock()
	defer p.ears.Unlock()
	delete(p.listeners, c)
}

// turned tells that there is a session, or that there is none any more.
func (p *peer) turned() {
	p.ears.Lock()
	defer p.ears.Unlock()
	for c := range p.listeners {
		nudge(c)
	}
}

// letter is something for a peer: a message about a job, an item, or a word to the session
// that all up to here was put.
type letter struct {
	message handover.Message
	about   *entry
	item    wire.Message
	done    func()
}

const (
	// mostPut is how many items are put at once, and putBytes about how many bytes.
	mostPut  = 128
	putBytes = 2 << 20
)

// peer gives what is known of a domain's gateway; the caller holds the lock.
func (e *Engine) peer(domain string) *peer {
	p := e.peers[domain]
	if p == nil {
		p = &peer{domain: domain, why: "there was no session with " + domain + " yet", since: time.Now()}
		e.peers[domain] = p
	}
	return p
}

// post files a letter; the caller holds the lock. Without a session it is dropped, as jobs
// repeat what is not answered.
func (e *Engine) post(domain string, l letter) {
	p := e.peer(domain)
	if l.done == nil && (!p.open || len(p.outbox) >= limits.Letters) {
		return
	}
	if l.done != nil && e.term == nil {
		go l.done() // it may come back to us
		return
	}
	p.outbox = append(p.outbox, l)
	e.send(p)
}

// send sees that the outbox is emptied; the caller holds the lock.
func (e *Engine) send(p *peer) {
	if t := e.term; t != nil && !p.sending && !p.full && len(p.outbox) > 0 {
		p.sending = true
		t.bg.Go(func() { e.sendLoop(t, p) })
	}
}

func (e *Engine) sendLoop(t *term, p *peer) {
	for {
		e.mu.Lock()
		if e.term != t || p.full || len(p.outbox) == 0 {
			p.sending = false
			e.mu.Unlock()
			return
		}
		n := min(len(p.outbox), mostPut)
		letters := slices.Clone(p.outbox[:n])
		clear(p.outbox[:n])
		if p.outbox = p.outbox[n:]; len(p.outbox) == 0 {
			p.outbox = nil
		}
		cargos := make([]cargo, n)
		promise := time.Duration(-1)
		for i, l := range letters {
			if l.message != nil {
				cargos[i] = e.cargoOf(l)
			}
			if _, ok := l.message.(handover.Granted); ok && l.about.job != nil && l.about.job.Gave != nil {
				if skew := l.about.job.Gave.Terms.Skew; promise < 0 || skew < promise {
					promise = skew
				}
			}
		}
		p.full = true // Free may be told before Put has returned
		e.mu.Unlock()
		// A deadline is moved on without a write, and who becomes the engine takes for promised
		// what could be until then, with twice that bound to spare.
		may := promise < 0 || e.confirm(t, promise)
		var items, left []wire.Message
		rest, bytes, full := n, 0, false
		for i, l := range letters {
			if _, ok := l.message.(handover.Granted); ok && !may {
				continue
			}
			m := l.item
			if l.message != nil {
				m = e.seal(t, p.domain, l, cargos[i])
			}
			if m == nil {
				continue
			}
			items, bytes = append(items, m), bytes+wire.Size(m)
			if bytes >= putBytes { // documents are read as there is room for them
				if left, full = e.put(p.domain, items); full {
					items, rest = nil, i+1
					break
				}
				items, bytes = nil, 0
			}
		}
		if !full {
			left, full = e.put(p.domain, items)
		}
		e.mu.Lock()
		if full && e.term == t && p.open {
			again := make([]letter, 0, len(left)+n-rest+len(p.outbox))
			for _, m := range left {
				again = append(again, letter{item: m})
			}
			p.outbox = append(append(again, letters[rest:]...), p.outbox...)
		} else {
			p.full, rest = false, n
		}
		e.mu.Unlock()
		for _, l := range letters[:rest] {
			if l.done != nil {
				l.done()
			}
		}
	}
}

// put gives items to the session, as many as it takes; full says that the rest may go later.
func (e *Engine) put(domain string, items []wire.Message) (left []wire.Message, full bool) {
	for n := len(items); len(items) > 0; {
		n = min(n, len(items))
		err := e.o.Link.Put(domain, items[:n]...)
		switch {
		case err == nil:
			items = items[n:]
		case fail.Is(err, fail.Exhausted) && n == 1:
			return items, true
		case fail.Is(err, fail.Exhausted):
			n = max(1, n/2)
		case fail.Is(err, fail.Unavailable), fail.Is(err, fail.NotAccepting), fail.Is(err, fail.NotFound):
			return nil, false // there is no session to take it
		case n > 1:
			n = 1 // one of them can't be sent
		default:
			e.o.Log.Error("an item can't be sent to a peer", "peer", domain, "cause", err)
			items = items[1:]
		}
	}
	return nil, false
}

// cargoOf gathers what goes with a message; the caller holds the lock.
func (e *Engine) cargoOf(l letter) cargo {
	x := l.about
	key, token := l.message.About()
	c := cargo{VO: x.VO, Deadline: x.Deadline, Site: x.Site}
	switch l.message.(type) {
	case handover.Route:
		c.Agreement = x.Bought
		c.Trace = traceOf(key, x.Trace, e.o.Domain, token)
		if x.freight != nil {
			c.Document, c.Assertion = x.freight.Document, x.freight.Assertion
		}
	case handover.Report:
		c.Trace, c.At = traceOf(key, x.Trace, e.o.Domain, token), time.Now().UTC().Round(0)
		c.Why, x.toldWhy, x.told = x.why, x.why, c.At
	case handover.Control:
		c.Trace = traceOf(key, x.Trace, e.o.Domain, token)
	case handover.Answer, handover.Granted, handover.Settle, handover.Query:
	}
	return c
}

// seal makes an item of a message; nil where that is not possible now.
func (e *Engine) seal(t *term, to string, l letter, c cargo) wire.Message {
	r, ok := l.message.(handover.Route)
	if !ok {
		return toWire(l.message, c)
	}
	if c.Document == "" {
		f, err := e.readFreight(t, r.Key)
		if err != nil {
			e.o.Log.Warn("what is routed with a job can't be read; it is tried again", "job", r.Key.String(), "cause", err)
			return nil
		}
		if f == nil {
			return nil // the job was answered meanwhile
		}
		c.Document, c.Assertion = f.Document, f.Assertion
	}
	came := c.Assertion
	c.Assertion = nil
	if e.o.Voucher != nil {
		e.mu.Lock()
		owner := l.about.Owner
		e.mu.Unlock()
		a, err := e.o.Voucher.Vouch(t.ctx, to, r.Key, owner, c.VO, c.Document, r.RecallBy, came)
		if err != nil {
			e.o.Log.Warn("the owner of a job can't be vouched for; it is tried again", "job", r.Key.String(), "cause", err)
			return nil
		}
		c.Assertion = a
	}
	return toWire(r, c)
}

// readFreight reads what is routed with a job from the store; nil if it is not there.
func (e *Engine) readFreight(t *term, k handover.Key) (*freight, error) {
	key := freightPrefix + keyPath(k)
	recs, _, err := e.o.Store.ListRecords(t.ctx, key, store.RecordOptions{Limit: 1})
	if err != nil || len(recs) == 0 || recs[0].Key != key {
		return nil, err
	}
	return decodeFreight(recs[0].Value)
}

// Opened takes note of a session: peers.Handler.
func (e *Engine) Opened(domain string, a session.Agreement) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peer(domain)
	p.open, p.why, p.since, p.full = true, "", time.Now(), false
	p.terms, p.features = termsOf(a.Terms), slices.Clone(a.Features)
	p.provides, p.consumes = a.Theirs.Provides, a.Theirs.Consumes
	p.outbox = slices.DeleteFunc(p.outbox, func(l letter) bool { return l.done == nil })
	e.send(p)
	p.turned()
}

// Turned takes note of a session's phase: peers.Handler.
func (e *Engine) Turned(domain string, t session.Turn) {
	switch t.To {
	case session.Lost:
		e.away(domain, t.Reason)
	case session.Alive, session.Suspect:
		e.mu.Lock()
		defer e.mu.Unlock()
		if p := e.peer(domain); !p.open {
			p.open, p.why, p.since, p.full = true, "", time.Now(), false
			e.send(p)
			p.turned()
		}
	case session.Closed:
	}
}

// Draining takes note that no more can be put: peers.Handler.
func (e *Engine) Draining(domain, sentence string) {
	e.away(domain, "the session is being closed: "+sentence)
}

// Closed takes note of the end of a session: peers.Handler.
func (e *Engine) Closed(domain string, reason wire.CloseReason, sentence string) {
	e.away(domain, "the session was closed ("+string(reason)+"): "+sentence)
}

func (e *Engine) away(domain, why string) {
	e.mu.Lock()
	p := e.peer(domain)
	p.open, p.why, p.since, p.full = false, why, time.Now(), false
	p.outbox = slices.DeleteFunc(p.outbox, func(l letter) bool { return l.done == nil })
	e.send(p) // words to the session go
	p.turned()
	e.mu.Unlock()
	e.reads.gone(domain)
}

// Free goes on with what waits for room in a session: peers.Handler.
func (e *Engine) Free(domain string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peer(domain)
	p.full = false
	e.send(p)
}
