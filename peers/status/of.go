package status

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// Of gives how it stands with a peer, as peers.Table tells it: all but Source, Fingerprint,
// Jobs and Ledger, which others know. A session that is Closed is none.
func Of(s *peers.Status, now time.Time) Peer {
	out := Peer{
		Domain: s.Peer.Domain, URL: s.Endpoint, Source: Configured, State: State(s.Phase), Reason: wire.Sentence(s.Reason), Since: moment(s.Since), Role: s.Peer.Role,
	}
	if out.URL == "" {
		out.URL = s.Peer.URL
	}
	if s.Session == "" || s.Phase == "" {
		if out.State = Opening; out.Reason == "" {
			out.Reason = "no session was asked for yet"
			if out.URL == "" {
				out.Reason = "it has no URL here, so that it is waited for"
			}
		}
		return out
	}
	if s.Phase == session.Closed {
		return out
	}
	if s.Trouble != "" {
		out.Reason = wire.Sentence(s.Reason + "; the last request to it failed: " + s.Trouble)
	}
	a := &s.Agreement
	out.Session = &Session{
		ID: s.Session, Version: a.Version, Software: a.Theirs.Software, Features: append([]string{}, a.Features...), Ours: a.Opener, Outbound: !a.Dials || a.Polls,
		Provides: a.Theirs.Provides, Consumes: a.Theirs.Consumes, Shows: a.Theirs.Shows, Shown: s.Peer.Shows, VOs: slices.Clone(a.Theirs.VOs),
		Beat: a.Beat.Seconds(), Lost: a.Lost.Seconds(), Lease: a.Terms.Lease.Seconds(), Heard: moment(s.Heard),
		Behind: s.Unacknowledged, Owed: s.Undone, Out: traffic(s.Out), In: traffic(s.In),
	}
	if s.Unacknowledged > 0 && !s.Oldest.IsZero() {
		out.Session.Lag = max(now.Sub(s.Oldest), 0).Seconds()
	}
	if !s.Clock.At.IsZero() {
		out.Session.Clock = &Clock{s.Clock.Difference.Seconds(), s.Clock.Within.Seconds()}
	}
	return out
}

func traffic(t peers.Traffic) Traffic { return Traffic(t) }

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
