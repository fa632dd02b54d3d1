package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

var peerOpenChecks = []check{
	{"PEER-OPN-1", chapter("Sessions: Opening; OpenSessionResponse"), "a session is opened: its name, the version, two domains, roles that fit", opens},
	{"PEER-OPN-2", chapter("Sessions: Opening (version)"), "of several versions the highest that both speak is agreed on", versions},
	{"PEER-OPN-3", chapter("Sessions: Opening (version); Faults: NoVersion"), "without a version that both speak there is no session", noVersion},
	{"PEER-OPN-4", chapter("Sessions: Opening (features)"), "the features are those that both know, sorted by bytes", features},
	{"PEER-OPN-5", chapter("Sessions: Opening (beat)"), "the beat is the longer of both wishes", longestBeat},
	{"PEER-OPN-6", chapter("Sessions: Opening (lost)"), "lost is the longest of both wishes and six beats", longestLost},
	{"PEER-OPN-7", chapter("Sessions: Opening (terms)"), "the terms are the shorter lease and the longer of all others", agreedTerms},
	{"PEER-OPN-8", chapter("Sessions: Opening (terms); Faults: TermsRefused"), "terms that can't be held together are refused", unfitTerms},
	{"PEER-OPN-9", chapter("Sessions: Opening (roles); Faults: TermsRefused"), "roles that do not fit are refused", unfitRoles},
	{"PEER-OPN-10", chapter("Sessions: Opening"), "the same request again is answered the same again", sameAgain},
	{"PEER-OPN-11", chapter("Sessions: Opening (OpenSession: session)"), "a name that was used is not agreed to with other content", nameAgain},
	{"PEER-OPN-12", chapter("Sessions: Opening"), "a session of the same domain that is opened later takes the place of the earlier one", supersedes},
	{"PEER-OPN-13", chapter("Sessions: Opening; Outbound-only sides"), "the endpoint has a URL, as the kit has none", hasEndpoint},
	{"PEER-TRU-1", chapter("Messages: Who it is; Faults: NotTrusted"), "who says it is another domain than its certificate's is not trusted", wrongDomain},
	{"PEER-TRU-2", chapter("Messages: Who it is; Faults: NotTrusted"), "who says it is the endpoint's own domain gets no session", ownDomain},
	{"PEER-TRU-3", chapter("Messages: Who it is; Faults: NotTrusted"), "who shows no certificate is not heard", nobody},
	{"PEER-TRU-4", chapter("Messages: Who it is; Faults: NotTrusted"), "a message of a session must be of the domain that opened it", otherDomain},
	{"PEER-TRU-5", chapter("Messages: Who it is; Trust: Signed messages"), "a message that was changed after it was signed is not heeded", tampered},
}

func opens(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	o, a := v.open, v.opened
	switch {
	case a.Session != o.Session:
		return "", fmt.Errorf("the answer is of the session %q: wanted %q", a.Session, o.Session)
	case a.Version != "1":
		return "", fmt.Errorf("the version is %q: wanted 1", a.Version)
	case a.Domain == o.Domain:
		return "", fmt.Errorf("both sides speak for the domain %s", a.Domain)
	case a.Role != o.Role.Other():
		return "", fmt.Errorf("the kit is %s and the endpoint %s", o.Role, a.Role)
	case a.Clock.IsZero():
		return "", errors.New("the answer does not tell its clock")
	}
	return fmt.Sprintf("%s, %s, beat %v, lost %v, window %d", a.Domain, a.Software, a.Beat, a.Lost, a.Window), nil
}

func versions(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, func(o *wire.Open) { o.Versions = []string{"0", "1", "0.9"} })
	if err != nil {
		return "", err
	}
	// By length, then by bytes: 0.9 is longer, and nobody but a later kit speaks it.
	if v.opened.Version != "1" {
		return "", fmt.Errorf("of 0, 1 and 0.9 the version %q was agreed on: wanted 1", v.opened.Version)
	}
	return "1 of 0, 1 and 0.9", nil
}

func noVersion(ctx context.Context, p *probe) (string, error) {
	m, err := p.patient(ctx, p.offer(func(o *wire.Open) { o.Versions = []string{"0", "999999"} }))
	return wantCode(m, err, wire.NoVersion)
}

func features(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, func(o *wire.Open) { o.Features = []string{"x-nobody-knows", "output", "digests", "digests"} })
	if err != nil {
		return "", err
	}
	got := v.opened.Features
	for _, f := range got {
		if f != "output" && f != "digests" {
			return "", fmt.Errorf("the feature %q was agreed on, which the kit did not offer, or nobody knows", f)
		}
	}
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		return "", fmt.Errorf("the features are %q: wanted them once each and sorted by bytes", got)
	}
	return fmt.Sprintf("%q", got), nil
}

func longestBeat(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, func(o *wire.Open) { o.Beat = wire.MaxBeat })
	if err != nil {
		return "", err
	}
	if a := v.opened; a.Beat != wire.MaxBeat || a.Lost < 6*a.Beat {
		return "", fmt.Errorf("the kit wished a beat of %v, and beat is %v and lost %v: wanted %v and six times that at least", wire.MaxBeat, a.Beat, a.Lost, wire.MaxBeat)
	}
	return v.opened.Beat.String(), nil
}

func longestLost(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, func(o *wire.Open) { o.Lost = wire.MaxLost })
	if err != nil {
		return "", err
	}
	if a := v.opened; a.Lost != wire.MaxLost || a.Beat < v.open.Beat {
		return "", fmt.Errorf("the kit wished lost after %v and a beat of %v, and they are %v and %v", wire.MaxLost, v.open.Beat, a.Lost, a.Beat)
	}
	return v.opened.Lost.String(), nil
}

func agreedTerms(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, func(o *wire.Open) {
		o.Terms = wire.Terms{Lease: 9 * time.Minute, Skew: 11 * time.Second, StopWithin: 31 * time.Second, Resend: 11 * time.Second, Keep: 300 * 24 * time.Hour}
	})
	if f, ok := errors.AsType[*wire.Fault](err); ok && f.Code == wire.TermsRefused {
		return "", skip("the endpoint does not take a lease of 9 minutes: %s", f.Sentence)
	}
	if err != nil {
		return "", err
	}
	mine, a := v.open.Terms, v.opened.Terms
	switch {
	case a.Lease > mine.Lease:
		return "", fmt.Errorf("the lease is %v, longer than the kit's, %v", a.Lease, mine.Lease)
	case a.Skew < mine.Skew || a.StopWithin < mine.StopWithin || a.Resend < mine.Resend || a.Keep < mine.Keep:
		return "", fmt.Errorf("skew, stopWithin, resend, keep are %v, %v, %v, %v: wanted none shorter than the kit's, %v, %v, %v, %v",
			a.Skew, a.StopWithin, a.Resend, a.Keep, mine.Skew, mine.StopWithin, mine.Resend, mine.Keep)
	case a.Lease < 8*a.Skew || a.Lease < 4*a.StopWithin || a.Lease < 4*a.Resend:
		return "", fmt.Errorf("the lease, %v, is not 8 times skew, %v, and 4 times stopWithin and resend, %v and %v", a.Lease, a.Skew, a.StopWithin, a.Resend)
	}
	return fmt.Sprintf("lease %v, skew %v, stopWithin %v, resend %v", a.Lease, a.Skew, a.StopWithin, a.Resend), nil
}

// unfitTerms wants a skew that only the kit's own long lease has room for.
func unfitTerms(ctx context.Context, p *probe) (string, error) {
	m, err := p.patient(ctx, p.offer(func(o *wire.Open) {
		o.Terms = wire.Terms{Lease: 168 * time.Hour, Skew: 21 * time.Hour, Resend: time.Second}
	}))
	if a, ok := m.(*wire.Opened); ok && err == nil && a.Terms.Lease == 168*time.Hour && a.Terms.Skew == 21*time.Hour {
		p.visit = nil
		return "", skip("the endpoint's own lease is as long as there is")
	}
	return wantCode(m, err, wire.TermsRefused)
}

func unfitRoles(ctx context.Context, p *probe) (string, error) {
	m, err := p.patient(ctx, p.offer(func(o *wire.Open) {
		if o.Role = wire.Parent; p.opts.Guest.Role == wire.Parent {
			o.Role = wire.Peer
		}
	}))
	return wantCode(m, err, wire.TermsRefused)
}

func sameAgain(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	m, err := p.send(ctx, v.open, 0)
	if err != nil {
		return "", err
	}
	again, ok := m.(*wire.Opened)
	if !ok {
		return "", fmt.Errorf("the same request was answered with %s", wire.Name(m).Local)
	}
	first, second := *v.opened, *again
	first.Clock, second.Clock = time.Time{}, time.Time{}
	if !reflect.DeepEqual(first, second) {
		return "", fmt.Errorf("the same request was answered with %+v, and before with %+v", second, first)
	}
	if _, err := v.heartbeat(ctx); err != nil {
		return "", fmt.Errorf("after that the session is not what it was: %w", err)
	}
	return "the same answer, and one session", nil
}

func nameAgain(ctx context.Context, p *probe) (string, error) {
	v, err := p.begin(ctx, nil)
	if err != nil {
		return "", err
	}
	other := *v.open
	other.Beat = wire.MaxBeat
	m, err := p.patient(ctx, &other)
	if a, ok := m.(*wire.Opened); ok {
		return "", fmt.Errorf("the name %s was agreed to again, with a beat of %v", a.Session, a.Beat)
	}
	return wantCode(m, err, wire.BadMessage, wire.SessionClosed, wire.SessionExists)
}

func supersedes(ctx context.Context, p *probe) (string, error) {
	first, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	second, err := p.begin(ctx, nil)
	if err != nil {
		return "", err
	}
	p.visit = second
	saw, err := first.over(ctx)
	if err != nil {
		return "", fmt.Errorf("the earlier session: %w", err)
	}
	if _, err := second.heartbeat(ctx); err != nil {
		return "", fmt.Errorf("the later session: %w", err)
	}
	return "the earlier one: " + saw, nil
}

// over wants the session to be closed: a frame that says ended, or, where it is not known
// any more, a fault that says so.
func (v *visit) over(ctx context.Context) (string, error) {
	f, err := v.heartbeat(ctx)
	if fault, ok := errors.AsType[*wire.Fault](err); ok && (fault.Code == wire.UnknownSession || fault.Code == wire.SessionClosed) {
		return string(fault.Code), nil
	}
	if err != nil {
		return "", err
	}
	if f.Closing != wire.Ended {
		return "", fmt.Errorf("a Heartbeat of it is answered with closing=%q: wanted %s", f.Closing, wire.Ended)
	}
	return "closing=ended", nil
}

func hasEndpoint(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if v.opened.Endpoint == "" {
		return "", errors.New("neither side has an endpoint, and there is a session all the same")
	}
	return v.opened.Endpoint, nil
}

func wrongDomain(ctx context.Context, p *probe) (string, error) {
	m, err := p.patient(ctx, p.offer(func(o *wire.Open) { o.Domain = "stranger.invalid" }))
	return wantCode(m, err, wire.NotTrusted)
}

func ownDomain(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	m, err := p.patient(ctx, p.offer(func(o *wire.Open) { o.Domain = v.opened.Domain }))
	return wantCode(m, err, wire.NotTrusted, wire.TermsRefused)
}

func nobody(ctx context.Context, p *probe) (string, error) {
	if p.opts.Guest.Nobody == nil {
		return "", skip("the kit has no client that shows no certificate")
	}
	text, err := textOf(p.offer(nil))
	if err != nil {
		return "", err
	}
	m := p.carrying("OpenSession", text)
	m.client, m.sign = p.opts.Guest.Nobody, nil
	return p.shutOut(ctx, m)
}

// shutOut wants that a message is not heeded: there is no connection, HTTP refuses it, or
// a fault does.
func (p *probe) shutOut(ctx context.Context, m message) (string, error) {
	rep, err := p.exchange(ctx, m.request())
	if err != nil {
		p.mu.Lock()
		p.unanswered = 0 // it is what was wanted
		p.mu.Unlock()
		if errors.Is(err, errLate) {
			return "", err
		}
		return err.Error(), nil
	}
	if rep.status == 401 || rep.status == 403 {
		return rep.String(), nil
	}
	if err := rep.parse(); err != nil {
		return "", err
	}
	got, err := rep.spoken()
	if _, plain := errors.AsType[refusal](err); plain {
		return rep.String(), nil // by WS-Security
	}
	return wantCode(got, err, wire.NotTrusted)
}

func otherDomain(ctx context.Context, p *probe) (string, error) {
	if p.opts.Guest.Other == nil {
		return "", skip("the kit has no certificate of a second domain that is trusted")
	}
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	text, err := textOf(&wire.Heartbeat{Frame: v.frame()})
	if err != nil {
		return "", err
	}
	m := p.carrying("Heartbeat", text)
	m.client, m.sign = p.opts.Guest.Other, signing(p.opts.Guest.OtherSign)
	saw, err := p.shutOut(ctx, m)
	if err != nil {
		return "", err
	}
	if _, err := v.heartbeat(ctx); err != nil {
		return "", fmt.Errorf("after that the session is not what it was: %w", err)
	}
	return saw, nil
}

var peerBusyChecks = []check{
	{"PEER-BSY-1", chapter("Sessions: Opening; Faults: Busy"), "who opens sessions without end is told Busy, and when to come again", opensTooOften},
}

func opensTooOften(ctx context.Context, p *probe) (string, error) {
	p.visit = nil
	const most = 100
	began := time.Now()
	for n := range most {
		_, err := p.send(ctx, p.offer(nil), 0)
		f, ok := errors.AsType[*wire.Fault](err)
		switch {
		case err == nil:
			continue
		case !ok || f.Code != wire.Busy:
			return wantCode(nil, err, wire.Busy)
		case f.Retry <= 0:
			return "", fmt.Errorf("the fault %s does not say when to come again: %s", f.Code, f.Sentence)
		}
		if _, err := p.standing(ctx); err != nil {
			return "", fmt.Errorf("after that no session was opened within %v: %w", p.opts.Settle, err)
		}
		return fmt.Sprintf("after %d sessions, to come again after %v", n, f.Retry), nil
	}
	if took := time.Since(began); took > most*time.Second {
		return "", skip("%d sessions took %v to open, which is not too often", most, took.Round(time.Second))
	}
	return "", fmt.Errorf("%d sessions were opened in a row, and nothing was said of it", most)
}

// tampered changes a signed Heartbeat on its way.
func tampered(ctx context.Context, p *probe) (string, error) {
	if p.opts.Guest.Sign == nil {
		return "", skip("the kit does not sign its messages")
	}
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	text, err := textOf(&wire.Heartbeat{Frame: v.frame()})
	if err != nil {
		return "", err
	}
	m := p.carrying("Heartbeat", text)
	sign := m.sign
	m.sign = func(b []byte) []byte { return bytes.Replace(sign(b), []byte(` number="`), []byte(` number="1`), 1) }
	saw, err := p.shutOut(ctx, m)
	if err != nil {
		return "", err
	}
	if _, err := v.heartbeat(ctx); err != nil {
		return "", fmt.Errorf("after that the session is not what it was: %w", err)
	}
	return saw, nil
}
