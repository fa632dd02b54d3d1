package handover_test

import (
	"testing"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// A copy is said to be returned only where it certainly never runs under its token: of one
// whose route may still come nothing is said.
func TestQueryOfACopyThatIsNotKnown(t *testing.T) {
	asks := func(l *lab, from string, token handover.Token) error {
		return l.try("b", handover.Received{From: from, Message: handover.Query{Key: key, Token: token}, Terms: terms})
	}
	l := newLab(t)
	if err := asks(l, "a", "1"); !fail.Is(err, fail.NotFound) || len(l.mail) > 0 {
		t.Errorf("before its route: %v, %v", err, l.mail)
	}
	l.cut["b"] = true
	l.gives("a", "b") // the route under token 1 is lost
	l.pass(terms.Lease + terms.Skew*2)
	l.is("a", handover.Waiting)
	l.cut["b"] = false
	l.gives("a", "b")
	l.is("b", handover.Waiting)
	if err := asks(l, "a", "1"); err != nil {
		t.Fatal(err)
	}
	if r := last[handover.Report](l, "b"); r.Status != handover.IsReturned || r.Token != "1" {
		t.Errorf("of the lower token: %+v", r)
	}
	l.mail = nil
	held := l.jobs["b"].Taken.Token
	if err := asks(l, "a", held+".1"); !fail.Is(err, fail.NotFound) || len(l.mail) > 0 {
		t.Errorf("of a higher token: %v, %v", err, l.mail)
	}
	if err := asks(l, "c", held); !fail.Is(err, fail.Denied) || len(l.mail) > 0 {
		t.Errorf("of another's copy: %v, %v", err, l.mail)
	}
	if err := asks(l, "a", held); err != nil || last[handover.Report](l, "b").Token != held {
		t.Errorf("of the copy: %v", err)
	}
	if err := l.try("a", handover.Received{From: "b", Message: handover.Query{Key: key, Token: "1"}, Terms: terms}); !fail.Is(err, fail.Denied) {
		t.Errorf("of the origin's own: %v", err)
	}
}

// A route whose copy was recalled before it came is refused, and told so each time.
func TestARouteThatWasRecalledBeforeItCame(t *testing.T) {
	l := newLab(t)
	l.gives("a", "c") // for a route that was never at b
	r := last[handover.Route](l, "a")
	if err := l.try("b", handover.Received{From: "a", Message: handover.Control{Key: key, Token: r.Token, Seq: 1, Want: handover.Cancel, RecallBy: r.RecallBy}, Terms: terms}); err != nil {
		t.Fatal(err)
	}
	if x := last[handover.Report](l, "b"); x.Status != handover.IsReturned {
		t.Errorf("the Control is answered with %+v", x)
	}
	for range 2 {
		l.mail = nil
		if err := l.try("b", handover.Received{From: "a", Message: r, Terms: terms}); err != nil {
			t.Fatal(err)
		}
		if x := last[handover.Answer](l, "b"); x.Accepted || x.Kind != fail.NotAccepting {
			t.Errorf("its route is answered with %+v", x)
		}
	}
}
