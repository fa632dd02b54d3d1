package peers

import (
	"context"
	"errors"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// link is one session. Its methods want the lock of its entry.
type link struct {
	e     *entry
	name  string
	state session.State
	born  time.Time
	// Of one that the other side opened: what it asked for, and was answered.
	asked  [32]byte
	answer *wire.Opened

	timer  *time.Timer
	due    time.Time // of timer; zero is none
	held   map[uint64]chan answer
	lastID uint64
	parts  []*part // delivered and not done with, in order
	puts   []stamp // put and not acknowledged
	gone   chan struct{}
	isGone bool
	left   bool
	anew   bool // another one is wanted as soon as this is closed
}

// answer is one to a request of the other side.
type answer struct {
	message wire.Message
	err     error
}

// part are items that were delivered at once.
type part struct {
	upto uint64
	done bool
}

// stamp is when items up to one were put.
type stamp struct {
	upto uint64
	at   time.Time
}

// begin begins a session that was agreed on.
func (e *entry) begin(c session.Config, a session.Agreement) *link {
	now := time.Now()
	if e.told = a.Theirs.Endpoint; checkURL(e.told) != nil {
		e.told = ""
	}
	e.client, e.url = e.clientFor(a.Theirs.Endpoint)
	l := &link{e: e, name: a.Session, state: session.New(c, a, now), born: now, gone: make(chan struct{})}
	e.link, e.opening, e.asking = l, nil, nil
	e.opened++
	e.wait(time.Time{})
	e.t.mu.Lock()
	e.t.sessions[l.name] = e
	e.t.mu.Unlock()
	e.t.o.Log.Info("a session with a peer began", "peer", e.domain, "session", l.name, "opener", a.Opener, "version", a.Version, "beat", a.Beat)
	e.tell(func(h Handler) { h.Opened(e.domain, a) })
	_ = l.step(session.Tick{})
	return l
}

// step takes one step and does what comes of it. The error is that of an input that was
// not heeded.
func (l *link) step(in session.Input) (err error) {
	if l.left {
		return errStopped(l.name)
	}
	e := l.e
	var outs []session.Output
	l.state, outs = l.state.Step(in, time.Now())
	for _, o := range outs {
		switch o := o.(type) {
		case session.Ask:
			l.ask(o)
		case session.Reply:
			l.reply(o)
		case session.Deliver:
			l.deliver(o)
		case session.Turn:
			e.t.o.Log.Info("a session with a peer turned", "peer", e.domain, "session", l.name, "from", o.From, "to", o.To, "reason", o.Reason)
			if o.To == session.Closed {
				e.over(l)
			} else {
				e.tell(func(h Handler) { h.Turned(e.domain, o) })
			}
		case session.Free:
			e.tell(func(h Handler) { h.Free(e.domain) })
		case session.Draining:
			e.tell(func(h Handler) { h.Draining(e.domain, o.Sentence) })
		case session.Rejected:
			err = o.Err
		}
	}
	l.arm()
	return err
}

// arm sets the timer to when the state wants the next step.
func (l *link) arm() {
	at, ok := l.state.Wake()
	if phase, _, _ := l.state.Phase(); !ok && phase == session.Closed && !l.isGone {
		l.isGone = true
		close(l.gone)
		l.parts, l.puts, l.held = nil, nil, nil
		l.e.settle()
	}
	switch {
	case !ok:
		l.due = time.Time{}
		if l.timer != nil {
			l.timer.Stop()
		}
	case at.Equal(l.due):
	case l.timer == nil:
		l.due = at
		l.timer = time.AfterFunc(time.Until(at), l.wake)
	default:
		l.due = at
		l.timer.Reset(time.Until(at))
	}
}

// wake is the timer's. It takes the lock.
func (l *link) wake() {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	if l.left || l.due.IsZero() {
		return
	}
	l.due = time.Time{}
	_ = l.step(session.Tick{})
}

// leave stops everything of the session, as it is.
func (l *link) leave() {
	l.left = true
	if l.timer != nil {
		l.timer.Stop()
	}
	for _, ch := range l.held {
		ch <- answer{err: errStopped(l.name)}
	}
	l.held = nil
	if !l.isGone {
		l.isGone = true
		close(l.gone)
	}
}

// request takes a request of the other side; the answer comes over the channel.
func (l *link) request(m wire.Message) (uint64, <-chan answer) {
	l.lastID++
	id, ch := l.lastID, make(chan answer, 1)
	if l.held == nil {
		l.held = map[uint64]chan answer{}
	}
	l.held[id] = ch
	_ = l.step(session.Request{ID: id, Message: m})
	return id, ch
}

// gave takes that nobody waits for an answer any more.
func (l *link) gave(id uint64) {
	if l.held[id] != nil {
		delete(l.held, id)
		_ = l.step(session.Gone{ID: id})
	}
}

func (l *link) reply(o session.Reply) {
	ch := l.held[o.ID]
	if ch == nil {
		return
	}
	delete(l.held, o.ID)
	if o.Fault != nil {
		ch <- answer{err: o.Fault}
		return
	}
	if f := frameOf(o.Message); f != nil {
		l.e.count.out.items.Add(uint64(len(f.Items)))
	}
	ch <- answer{message: o.Message}
}

// refuse gives the fault for a frame that has what was not agreed on, and closes.
func (l *link) refuse(f *wire.Frame) error {
	m, feature := wire.Beyond(l.state.Agreement().Features, f.Items)
	if m == nil {
		return nil
	}
	sentence := wire.Name(m).Local + " is of the feature " + feature + ", which was not agreed on"
	_ = l.step(session.Stop{Reason: wire.Broken, Sentence: sentence})
	return &wire.Fault{Code: wire.BadMessage, Session: l.name, Sentence: sentence}
}

// ask sends a request; what comes of it is a step.
func (l *link) ask(o session.Ask) {
	e := l.e
	e.client, e.url = e.clientFor(e.url)
	client := e.client
	if f := frameOf(o.Message); f != nil {
		e.count.out.items.Add(uint64(len(f.Items)))
	}
	e.t.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, o.Within)
		defer cancel()
		sent := time.Now()
		m, err := client.Call(ctx, o.Message)
		e.locked(func() { l.answered(o.ID, sent, m, err) })
	})
}

// answered takes what came of a request.
func (l *link) answered(id uint64, sent time.Time, m wire.Message, err error) {
	if l.left {
		return
	}
	e := l.e
	fault, isFault := errors.AsType[*wire.Fault](err)
	switch {
	case err == nil:
		e.trouble = ""
		f := frameOf(m)
		e.count.in.items.Add(uint64(len(f.Items)))
		e.measure(f.Clock, sent)
		if l.refuse(f) != nil {
			_ = l.step(session.Failed{ID: id})
			return
		}
		_ = l.step(session.Response{ID: id, Message: m})
		return
	case isFault:
		e.trouble = string(fault.Code) + ": " + fault.Sentence
		_ = l.step(session.Failed{ID: id, Fault: fault})
	case fail.Is(err, fail.Invalid):
		e.trouble = fail.Sentence(err)
		_ = l.step(session.Failed{ID: id, Fault: &wire.Fault{Code: wire.BadMessage, Session: l.name, Sentence: wire.Sentence(e.trouble)}})
	default:
		e.trouble = fail.Sentence(err)
		e.unanswered()
		_ = l.step(session.Failed{ID: id})
	}
	e.t.o.Log.Info("a request to a peer failed", "peer", e.domain, "session", l.name, "err", err)
}

// deliver hands items over.
func (l *link) deliver(o session.Deliver) {
	e := l.e
	p := &part{upto: o.First + uint64(len(o.Items)) - 1}
	l.parts = append(l.parts, p)
	e.undone.items += len(o.Items)
	e.undone.bytes += o.Bytes
	done := func() {
		e.locked(func() {
			if !p.done {
				e.undone.items -= len(o.Items)
				e.undone.bytes -= o.Bytes
			}
			p.done = true
			l.advance()
		})
	}
	e.tell(func(h Handler) { h.Deliver(e.domain, o.Items, done) })
}

// advance tells the state which items are done with: those before the first that is not.
func (l *link) advance() {
	n := 0
	for n < len(l.parts) && l.parts[n].done {
		n++
	}
	if n == 0 {
		return
	}
	upto := l.parts[n-1].upto
	l.parts = l.parts[n:]
	if len(l.parts) == 0 {
		l.parts = nil
	}
	_ = l.step(session.Done{Upto: upto})
}

// stamp notes when the last items were put.
func (l *link) stamp() {
	const grain = time.Second
	l.acknowledged()
	sent, _, _, _ := l.state.Cursors()
	now := time.Now()
	if n := len(l.puts); n > 0 && now.Sub(l.puts[n-1].at) < grain {
		l.puts[n-1].upto = sent
		return
	}
	l.puts = append(l.puts, stamp{upto: sent, at: now})
}

// acknowledged drops the stamps of what was acknowledged.
func (l *link) acknowledged() {
	_, acked, _, _ := l.state.Cursors()
	n := 0
	for n < len(l.puts) && l.puts[n].upto <= acked {
		n++
	}
	if l.puts = l.puts[n:]; len(l.puts) == 0 {
		l.puts = nil
	}
}

func (l *link) status(s *Status) {
	l.acknowledged()
	sent, acked, got, done := l.state.Cursors()
	s.Session, s.Agreement, s.Heard = l.name, l.state.Agreement(), l.state.Heard()
	s.Phase, s.Reason, s.Since = l.state.Phase()
	s.Unacknowledged, s.Undone, s.Room = int(sent-acked), int(got-done), l.state.Room()
	if len(l.puts) > 0 {
		s.Oldest = l.puts[0].at
	}
	if !s.Agreement.Dials {
		s.Endpoint = ""
	}
}

// frameOf gives the frame of a message of a session; nil for OpenSession and its answer.
func frameOf(m wire.Message) *wire.Frame {
	switch m := m.(type) {
	case *wire.Exchange:
		return &m.Frame
	case *wire.Exchanged:
		return &m.Frame
	case *wire.Heartbeat:
		return &m.Frame
	case *wire.HeartbeatAnswer:
		return &m.Frame
	case *wire.Resume:
		return &m.Frame
	case *wire.Resumed:
		return &m.Frame
	case *wire.Close:
		return &m.Frame
	case *wire.Closed:
		return &m.Frame
	}
	return nil
}
