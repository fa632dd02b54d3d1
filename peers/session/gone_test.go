package session

import (
	"testing"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

// A request that nobody waits for any more is not answered, and takes no items with it.
func TestGone(t *testing.T) {
	w := newWorld(t, 1, true)
	w.run(time.Second)
	s, now := w.b.s, w.now
	poll := func(id uint64) Request {
		s.heard = 100 + id
		return Request{ID: id, Message: &wire.Exchange{Frame: wire.Frame{
			Session: s.agreement.Session, Number: 101 + id, Heard: s.number, Limit: s.credit, Got: s.theirGot, Done: s.acked, Sent: s.theirSent,
			Clock: now, Hold: time.Minute, Poll: true,
		}}}
	}
	s.waiting = nil
	s, outs := s.Step(poll(1), now)
	if len(outs) != 0 || len(s.waiting) != 1 {
		t.Fatalf("%v", outs)
	}
	s, _ = s.Step(Gone{ID: 1}, now)
	s, outs = s.Step(Put{Items: []wire.Message{item("b", 0)}}, now)
	if len(outs) != 0 || s.sendable() != 1 {
		t.Fatalf("%v", outs)
	}
	_, outs = s.Step(poll(2), now)
	if r, ok := outs[0].(Reply); !ok || r.ID != 2 || len(r.Message.(*wire.Exchanged).Items) != 1 {
		t.Fatalf("%v", outs)
	}
}
