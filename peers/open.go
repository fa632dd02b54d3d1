package peers

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

const (
	// openWait is how long the answer to OpenSession may take.
	openWait = 20 * time.Second
	// A request for a session that comes while one of ours has been on its way for less
	// than atOnce, or so soon after one of ours was answered, may have been made before the
	// other side saw ours.
	atOnce = 10 * time.Second
	// After a session that did not come to be, or ended, the next is asked for after
	// firstWait, doubled each time up to longestWait; what only a person can change is not
	// asked again before refusedWait.
	firstWait   = time.Second
	longestWait = time.Minute
	refusedWait = 15 * time.Second
)

// soonTime is after how long a request comes again that came before the answer which made its session.
const soonTime = 50 * time.Millisecond

// isAsking reports whether a session of this name was asked for, and there is no answer yet. It
// takes the lock.
func (e *entry) isAsking(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asking != nil && e.asking.Session == name || e.opening != nil && e.opening.open.Session == name
}

// opening is a request for a session that is on its way.
type opening struct {
	open   *wire.Open
	config session.Config
	since  time.Time
}

// wait sets when a session is asked for; never where at is zero.
func (e *entry) wait(at time.Time) {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	e.nextTry = at
	if at.IsZero() || e.peer.URL == "" || e.removed || e.stopped {
		e.nextTry = time.Time{}
		return
	}
	e.timer = time.AfterFunc(time.Until(at), func() {
		e.locked(func() {
			if !e.nextTry.IsZero() && !time.Now().Before(e.nextTry) {
				e.open()
			}
		})
	})
}

// later puts the next request for a session off.
func (e *entry) later(least time.Duration) {
	d := max(least, min(firstWait<<min(e.tries, 10), longestWait))
	e.tries++
	// Not all that lost one peer at the same moment come back at the same moment.
	d += time.Duration(rand.Int64N(int64(d)/4 + 1)) //nolint:gosec // it is no secret
	e.wait(time.Now().Add(d))
}

// open asks for a session, unless there is one or none is wanted.
func (e *entry) open() {
	if e.stopped || e.removed || e.peer.URL == "" || e.link != nil || e.opening != nil {
		return
	}
	e.wait(time.Time{})
	if why := e.behind(); why != "" {
		e.reason, e.since = "no session is asked for yet: "+why, time.Now()
		e.later(limits.OpenEvery)
		return
	}
	if e.asking == nil {
		e.asking = e.config.Open("urn:uuid:"+uuid.NewString(), time.Now())
	}
	o := &opening{open: e.asking, config: e.config, since: time.Now()}
	e.client, e.url = e.clientFor("")
	client := e.client
	e.t.mu.RLock()
	closing := e.t.closing
	e.t.mu.RUnlock()
	if closing {
		return
	}
	if e.t.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, openWait)
		defer cancel()
		m, err := client.Call(ctx, o.open)
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.opening != o || e.stopped { // it was given up
			if _, ok := m.(*wire.Opened); ok && e.find(o.open.Session) == nil {
				e.give(client, o.open.Session, wire.Superseded, "the request for this session was given up")
			}
			return
		}
		e.opening = nil
		e.agreed(o, m, err)
	}) {
		e.opening = o
	}
}

// agreed takes what came of a request for a session.
func (e *entry) agreed(o *opening, m wire.Message, err error) {
	var a session.Agreement
	if answer, ok := m.(*wire.Opened); ok {
		sent := o.since
		e.measure(answer.Clock, sent)
		if answer.Domain != e.domain {
			err = &wire.Fault{Code: wire.NotTrusted, Session: answer.Session, Sentence: wire.Sentence("the endpoint " + e.url + " speaks for " + answer.Domain + " and not for " + e.domain)}
		} else {
			a, err = o.config.Accepted(o.open, answer)
		}
		if err == nil {
			e.trouble = ""
			e.begin(o.config, a)
			return
		}
		e.give(e.client, o.open.Session, wire.Broken, err.Error())
	}
	fault, ok := errors.AsType[*wire.Fault](err)
	sentence := fail.Sentence(err)
	if ok {
		sentence = string(fault.Code) + ": " + fault.Sentence
	}
	e.reason, e.since, e.trouble = "no session could be opened: "+sentence, time.Now(), sentence
	e.t.o.Log.Info("a session with a peer could not be opened", "peer", e.domain, "url", e.url, "err", err)
	switch {
	case !ok && (fail.Is(err, fail.Unavailable) || fail.Is(err, fail.Uncertain)):
		e.unanswered()
		e.later(0) // with the same request: it may have been carried out
	case !ok:
		e.asking = nil
		e.later(refusedWait)
	case fault.Code == wire.SessionExists:
		// Theirs stands and is on its way.
		e.asking = nil
		e.later(0)
	case fault.Code == wire.Busy:
		e.later(fault.Retry)
	case fault.Code == wire.InternalProblem, fault.Code == wire.SessionClosed, fault.Code == wire.UnknownSession, fault.Code == wire.CursorMismatch, fault.Code == wire.MustResume:
		e.asking = nil
		e.later(0)
	default:
		e.asking = nil
		e.later(refusedWait)
	}
}

// give tells the other side that this one does not take the session that it agreed to.
func (e *entry) give(client *Client, name string, reason wire.CloseReason, why string) {
	m := &wire.Close{
		Frame:  wire.Frame{Session: name, Number: 1, Closing: wire.Ended, Clock: time.Now()},
		Reason: reason, Sentence: wire.Sentence(why),
	}
	e.t.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, openWait)
		defer cancel()
		_, _ = client.Call(ctx, m) // the other side finds out by itself, if later
	})
}

// digest tells two requests for a session apart.
func digest(o *wire.Open) [32]byte {
	c := *o
	c.Clock = time.Unix(0, 0)
	e, err := wire.Encode(&c)
	if err != nil {
		return [32]byte{} // it was read, so that this can't be
	}
	return sha256.Sum256(xmldoc.Marshal(e))
}

// accept answers a request for a session; taken says that another domain has one of its
// name. It takes the lock.
func (e *entry) accept(o *wire.Open, taken bool) (wire.Message, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fault := func(code wire.FaultCode, name, sentence string) (wire.Message, error) {
		return nil, &wire.Fault{Code: code, Session: name, Sentence: sentence}
	}
	if e.stopped || e.removed {
		return nil, errStopped(o.Session)
	}
	same := digest(o)
	if l := e.find(o.Session); l != nil {
		switch phase, _, _ := l.state.Phase(); {
		case l.answer == nil || l.asked != same:
			return fault(wire.BadMessage, o.Session, "there was a session of this name, asked for in another way: give each a name of its own")
		case phase == session.Closed:
			return fault(wire.SessionClosed, o.Session, "the session was closed: open another")
		}
		return l.answer, nil
	}
	switch {
	case slices.Contains(e.names, o.Session):
		return fault(wire.SessionClosed, o.Session, "the session was closed: open another")
	case taken:
		return fault(wire.BadMessage, o.Session, "the name of the session is taken: give each a name of its own")
	case !e.opens.Allow():
		return nil, busy(o.Session, "sessions were opened too often: come again later", limits.OpenEvery)
	}
	if why := e.behind(); why != "" {
		return nil, busy(o.Session, why, limits.OpenEvery)
	}
	now := time.Now()
	if session.Stands(e.t.o.Domain, e.domain) {
		if e.opening != nil && now.Sub(e.opening.since) < atOnce {
			return fault(wire.SessionExists, e.opening.open.Session, "this side asked for a session at the same time, and its request stands")
		}
		if l := e.link; l != nil && l.answer == nil && now.Sub(l.born) < atOnce && l.state.Agreement().TheirInstance == o.Instance {
			return fault(wire.SessionExists, l.name, "this side asked for a session at the same time, and it stands")
		}
	}
	config := e.config
	answer, a, err := config.Accept(o, now)
	if err != nil {
		return nil, err
	}
	if a.Theirs.Endpoint != "" && e.peer.URL == "" {
		if err := checkURL(a.Theirs.Endpoint); err != nil {
			return fault(wire.TermsRefused, o.Session, "the endpoint is no absolute http or https URL")
		}
	}
	if e.link != nil {
		_ = e.link.step(session.Stop{Reason: wire.Superseded, Sentence: e.domain + " opened another session"})
	}
	l := e.begin(config, a)
	l.asked, l.answer = same, answer
	return answer, nil
}

// measure takes the other side's clock from an answer to what was sent at a time. Of two
// measurements the closer one counts, as long as it is not old.
func (e *entry) measure(theirs, sent time.Time) {
	const old = 10 * time.Minute
	now := time.Now()
	took := now.Sub(sent)
	c := Clock{Difference: theirs.Sub(sent.Add(took / 2)), Within: took / 2, At: now}
	if e.clock.At.IsZero() || c.Within <= e.clock.Within || now.Sub(e.clock.At) > old {
		e.clock = c
	}
}
