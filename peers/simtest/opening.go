package simtest

import (
	"errors"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

const openWithin = 15 * time.Second // an answer to OpenSession is waited for

// seek opens a session after a while, if there is none then and the other side can be
// reached.
func (x *side) seek(within time.Duration) {
	w := x.g.w
	if w.options.Faults.SessionsNotOpened && x.opened > 0 {
		return
	}
	life := x.g.life
	w.after(w.between(0, within), func() {
		if !x.g.up || x.g.life != life || x.open || x.opening != nil || x.other().config.Party.Endpoint == "" {
			return
		}
		x.opened++
		x.opening = x.config.Open(fmt.Sprintf("%s-%s-%d-%d", x.g.g.Domain, x.peer.g.Domain, x.g.life, x.opened), w.now)
		x.open1(x.opening)
	})
}

// open1 sends OpenSession once.
func (x *side) open1(o *wire.Open) {
	w, life := x.g.w, x.g.life
	mine := func() bool { return x.g.up && x.g.life == life && x.opening == o }
	w.counters.Requests++
	w.fly(x.g.i, x.peer.i, func() {
		if !x.peer.up {
			return
		}
		answer, fault := x.other().accept(w.weigh(o).(*wire.Open))
		w.fly(x.peer.i, x.g.i, func() {
			if !mine() {
				return // it has given up, or was answered
			}
			if fault != nil {
				x.opening = nil
				w.say("%s may not open %s: %v", x.g.g.Domain, o.Session, fault)
				x.seek(20 * time.Second)
				return
			}
			a, err := x.config.Accepted(o, w.weigh(answer).(*wire.Opened))
			if err != nil {
				w.breach("%s is answered what was not agreed on: %v", x.g.g.Domain, err)
				return
			}
			x.opening = nil
			x.start(a)
		})
	})
	w.after(openWithin, func() {
		switch {
		case !mine():
		case w.chance(0.5):
			x.open1(o) // the same again
		default:
			x.opening = nil
			x.seek(20 * time.Second)
		}
	})
}

// accept answers OpenSession.
func (x *side) accept(o *wire.Open) (*wire.Opened, *wire.Fault) {
	w := x.g.w
	mine, theirs := x.g.g.Domain, x.peer.g.Domain
	refuse := func(code wire.FaultCode, name, sentence string) (*wire.Opened, *wire.Fault) {
		return nil, &wire.Fault{Code: code, Session: name, Sentence: sentence}
	}
	switch a := x.accepted[o.Session]; {
	case a != nil && x.open && x.name == o.Session:
		return a, nil
	case a != nil:
		return refuse(wire.SessionClosed, o.Session, "that session is over")
	case x.opening != nil && session.Stands(mine, theirs):
		return refuse(wire.SessionExists, x.opening.Session, "another one is being opened")
	case x.open && x.s.Agreement().Opener && x.s.Agreement().TheirInstance == o.Instance && session.Stands(mine, theirs):
		return refuse(wire.SessionExists, x.name, "there is another one")
	}
	answer, a, err := x.config.Accept(o, w.now)
	if err != nil {
		var f *wire.Fault
		if !errors.As(err, &f) {
			w.breach("%s: %v", mine, err)
		}
		return nil, f
	}
	x.opening = nil
	x.accepted[o.Session] = answer
	x.start(a)
	return answer, nil
}
