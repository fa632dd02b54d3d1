package session

import (
	"reflect"
	"slices"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

// Agreement is what both sides of a session hold to.
type Agreement struct {
	Session  string
	Version  string
	Features []string
	// Beat is the longest time between two signs of life of who opened the session, or
	// of the side that dials where only one does; the other waits a quarter longer, so
	// that an idle session has one exchange a beat.
	Beat time.Duration
	// Suspect and Lost are the times of silence after which a side takes the other for so.
	Suspect, Lost time.Duration
	Terms         wire.Terms
	Opener        bool // this side opened it
	Instance      string
	Theirs        wire.Party
	TheirInstance string
	// Window is how many items the other side takes before it is done with any; it is
	// the first limit.
	Window int
	Dials  bool // this side can reach the other's endpoint
	Polls  bool // the other can't reach ours, so that this side keeps a request open
}

// suspectBeats is how many beats of silence make a side suspect.
const suspectBeats = 3

// agreed gives what two sides' wishes come to.
func agreed(a, b *wire.Open) (version string, features []string, beat, lost time.Duration, terms wire.Terms) {
	for _, v := range a.Versions {
		if slices.Contains(b.Versions, v) && (len(v) > len(version) || len(v) == len(version) && v > version) {
			version = v
		}
	}
	for _, f := range a.Features {
		if slices.Contains(b.Features, f) && !slices.Contains(features, f) {
			features = append(features, f)
		}
	}
	slices.Sort(features)
	beat = max(a.Beat, b.Beat)
	lost = max(a.Lost, b.Lost, 2*suspectBeats*beat)
	terms = wire.Terms{
		Lease: min(a.Terms.Lease, b.Terms.Lease), Skew: max(a.Terms.Skew, b.Terms.Skew), StopWithin: max(a.Terms.StopWithin, b.Terms.StopWithin),
		Resend: max(a.Terms.Resend, b.Terms.Resend), Keep: max(a.Terms.Keep, b.Terms.Keep),
	}
	return version, features, beat, lost, terms
}

func refused(code wire.FaultCode, session, sentence string) error {
	return &wire.Fault{Code: code, Session: session, Sentence: sentence}
}

// fits tells why two sides can have no session.
func fits(mine, theirs *wire.Party, session, version string, terms wire.Terms) error {
	switch {
	case mine.Domain == theirs.Domain:
		return refused(wire.TermsRefused, session, "both sides speak for the domain "+mine.Domain+": a gateway is no peer of its own")
	case mine.Role != theirs.Role.Other():
		return refused(wire.TermsRefused, session, "one side says it is "+string(theirs.Role)+" and the other "+string(mine.Role)+": the roles must be peer and peer, or parent and child")
	case mine.Endpoint == "" && theirs.Endpoint == "":
		return refused(wire.TermsRefused, session, "neither side can be reached: one of them needs an endpoint")
	case version == "":
		return refused(wire.NoVersion, session, "there is no version of the protocol that both sides speak")
	case terms.Check() != nil:
		return refused(wire.TermsRefused, session, "the shorter lease must be at least 8 times the longer skew and 4 times the longer stopWithin and resend: agree on other terms")
	}
	return nil
}

// Accept answers a request for a session. The error is a *wire.Fault for the requester.
// Who the requester is, and that it may speak for its domain, is checked before.
func (c Config) Accept(o *wire.Open, now time.Time) (*wire.Opened, Agreement, error) {
	mine := c.Open(o.Session, now)
	version, features, beat, lost, terms := agreed(o, mine)
	if err := fits(&mine.Party, &o.Party, o.Session, version, terms); err != nil {
		return nil, Agreement{}, err
	}
	answer := &wire.Opened{
		Session: o.Session, Instance: mine.Instance, Party: mine.Party, Version: version, Features: features,
		Beat: beat, Lost: lost, Window: mine.Window, Clock: now, Terms: terms,
	}
	return answer, agreement(answer, &mine.Party, &o.Party, mine.Instance, o.Instance, o.Window, false), nil
}

// Accepted reads the answer to a request of this side. The error is a *wire.Fault where
// the other side did not hold to the rules.
func (c Config) Accepted(o *wire.Open, a *wire.Opened) (Agreement, error) {
	theirs := &wire.Open{Versions: []string{a.Version}, Features: a.Features, Beat: a.Beat, Lost: a.Lost, Terms: a.Terms}
	version, features, beat, lost, terms := agreed(o, theirs)
	if err := fits(&o.Party, &a.Party, o.Session, version, terms); err != nil {
		return Agreement{}, err
	}
	if a.Session != o.Session || a.Version != version || !slices.Equal(a.Features, features) || a.Beat != beat || a.Lost != lost || !reflect.DeepEqual(a.Terms, terms) {
		return Agreement{}, refused(wire.BadMessage, o.Session, "the answer to OpenSession is not what both sides' wishes come to")
	}
	return agreement(a, &o.Party, &a.Party, o.Instance, a.Instance, a.Window, true), nil
}

func agreement(a *wire.Opened, mine, theirs *wire.Party, instance, their string, window int, opener bool) Agreement {
	return Agreement{
		Session: a.Session, Version: a.Version, Features: a.Features, Beat: a.Beat, Suspect: suspectBeats * a.Beat, Lost: a.Lost, Terms: a.Terms,
		Opener: opener, Instance: instance, Theirs: *theirs, TheirInstance: their, Window: window,
		Dials: theirs.Endpoint != "", Polls: mine.Endpoint == "",
	}
}

// Stands reports whether, where two gateways open a session to each other at once, the one
// that mine opened is the one that stands: that of the domain which is first in the order
// of bytes. The other is refused with SessionExists, or closed as superseded.
func Stands(mine, theirs string) bool { return mine < theirs }
