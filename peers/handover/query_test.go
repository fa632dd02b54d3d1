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
