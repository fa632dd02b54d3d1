package main

import (
	"context"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/peering"
	among "github.com/portolan-project/portolan/internal/peering/gateway"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/members"
	"github.com/portolan-project/portolan/peers/status"
)

// peerBoard tells how it stands with the peers, and adds and removes them.
type peerBoard struct {
	keeper  *peerKeeper
	gateway *among.Gateway
	permit  func(ctx context.Context, op string, p broker.Permission) (soap.Principal, error)
	leaves  chan string // domains that were taken away
}

var _ console.Peers = (*peerBoard)(nil)

func newPeerBoard(k *peerKeeper, g *among.Gateway, b *broker.Broker) *peerBoard {
	return &peerBoard{keeper: k, gateway: g, permit: b.Permit, leaves: make(chan string, 64)}
}

// partTime is how long a removed peer is trusted at most, so that the session with it can be
// drained: longer than that is given to it.
const partTime = 45 * time.Second

// follow ends the trust in removed peers once the sessions with them are over, until ctx ends.
func (p *peerBoard) follow(ctx context.Context) error {
	over := make(chan string)
	under := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case domain := <-over:
			delete(under, domain)
			p.keeper.release(domain)
		case domain := <-p.leaves:
			if under[domain] {
				continue
			}
			under[domain] = true
			go func() {
				if t := p.gateway.Table(); t != nil {
					late, cancel := context.WithTimeout(ctx, partTime)
					_ = t.Left(late, domain) // then it is over all the same
					cancel()
				}
				select {
				case over <- domain:
				case <-ctx.Done():
				}
			}()
		}
	}
}

// Peers implements console.Peers.
func (p *peerBoard) Peers(ctx context.Context) ([]status.Peer, error) {
	const op = "serve.Peers"
	if _, err := p.permit(ctx, op, broker.Submit); err != nil {
		return nil, err
	}
	t, err := p.table(op)
	if err != nil {
		return nil, err
	}
	sessions := map[string]*peers.Status{}
	for _, s := range t.Sessions() {
		sessions[s.Peer.Domain] = &s
	}
	all, counts := p.keeper.members(), p.gateway.Engine.Counts()
	pins := p.pins()
	out := make([]status.Peer, 0, len(all))
	for i := range all {
		out = append(out, p.show(&all[i], sessions[all[i].Domain], pins, counts))
	}
	return out, nil
}

// table gives the sessions.
func (p *peerBoard) table(op string) (*peers.Table, error) {
	if t := p.gateway.Table(); t != nil {
		return t, nil
	}
	return nil, fail.Errorf(op, fail.Unavailable, "", "another replica of this gateway talks to the peers at present, or the gateway is starting: ask that one, or again in a moment")
}

// Peer implements console.Peers.
func (p *peerBoard) Peer(ctx context.Context, domain string) (*status.Peer, error) {
	const op = "serve.Peer"
	if _, err := p.permit(ctx, op, broker.Submit); err != nil {
		return nil, err
	}
	return p.one(op, domain)
}

func (p *peerBoard) one(op, domain string) (*status.Peer, error) {
	m, ok := p.member(domain)
	if !ok {
		return nil, noPeerHere(op, domain)
	}
	t, err := p.table(op)
	if err != nil {
		return nil, err
	}
	var of *peers.Status
	if s, err := t.Session(domain); err == nil {
		of = &s
	}
	return p.shown(&m, of), nil
}

// shown is show for one peer.
func (p *peerBoard) shown(m *members.Member, s *peers.Status) *status.Peer {
	out := p.show(m, s, p.pins(), p.gateway.Engine.Counts())
	return &out
}

func noPeerHere(op, domain string) error {
	return fail.Errorf(op, fail.NotFound, domain, "%s is no peer here: 'portolan peers' lists those that are", domain)
}

func (p *peerBoard) member(domain string) (members.Member, bool) {
	all := p.keeper.members()
	i := slices.IndexFunc(all, func(m members.Member) bool { return m.Domain == domain })
	if i < 0 {
		return members.Member{}, false
	}
	return all[i], true
}

// pins gives the fingerprints of those that are trusted by their key alone.
func (p *peerBoard) pins() map[string]string {
	out := map[string]string{}
	for _, a := range p.keeper.gateway.Trusted.Anchors() {
		if len(a.CAs) == 0 && len(a.Pins) > 0 {
			out[a.Domain] = a.Pins[0].String()
		}
	}
	return out
}

// show tells of one; s may be nil.
func (p *peerBoard) show(m *members.Member, s *peers.Status, pins map[string]string, counts map[string]peering.Counts) status.Peer {
	if s == nil {
		s = &peers.Status{Peer: m.Peer}
	}
	out := status.Of(s, time.Now())
	if m.Added {
		out.Source = status.Added
	}
	out.Fingerprint = pins[m.Domain]
	c := counts[m.Domain]
	out.Jobs = status.Jobs{Given: status.Count{Live: c.GivenLive, Total: c.Given}, Taken: status.Count{Live: c.TakenLive, Total: c.Taken}}
	out.Ledger = status.BalanceOf(p.gateway.Favours.Balance(m.Domain))
	return out
}

// InspectPeer implements console.Peers.
func (p *peerBoard) InspectPeer(ctx context.Context, url string) (*status.Offer, error) {
	if _, err := p.permit(ctx, "serve.InspectPeer", broker.Manage); err != nil {
		return nil, err
	}
	return p.keeper.inspect(ctx, url)
}

// AddPeer implements console.Peers.
func (p *peerBoard) AddPeer(ctx context.Context, url, domain, fingerprint string) (*status.Peer, error) {
	const op = "serve.AddPeer"
	who, err := p.permit(ctx, op, broker.Manage)
	if err != nil {
		return nil, err
	}
	if err := p.keeper.pin(ctx, url, domain, fingerprint, who.Name); err != nil {
		return nil, err
	}
	t := p.gateway.Table()
	if t == nil { // the replica that talks to the peers reads what was added
		m, ok := p.member(domain)
		if !ok {
			return nil, noPeerHere(op, domain)
		}
		return p.shown(&m, nil), nil
	}
	if s, err := t.Session(domain); err == nil && s.Session == "" {
		_ = t.Retry(domain) // it is there, as was just seen
	}
	return p.one(op, domain)
}

// RemovePeer implements console.Peers.
func (p *peerBoard) RemovePeer(ctx context.Context, domain string, now bool) (*status.Peer, error) {
	const op = "serve.RemovePeer"
	if _, err := p.permit(ctx, op, broker.Manage); err != nil {
		return nil, err
	}
	if p.keeper.configured(domain) {
		return nil, fail.Errorf(op, fail.Conflict, domain, "the configuration names %s: take it out there, and have it read again with SIGHUP", domain)
	}
	m, ok := p.member(domain)
	out := status.Peer{Domain: domain, Source: status.Added}
	switch {
	case ok:
		t := p.gateway.Table()
		var of *peers.Status
		if t != nil {
			if s, err := t.Session(domain); err == nil {
				of = &s
			}
		}
		out = *p.shown(&m, of)
		if err := p.keeper.retire(domain); err != nil {
			return nil, err
		}
		p.leaves <- domain
		if out.Session == nil {
			now = true
		}
	case !p.keeper.retired(domain):
		return nil, noPeerHere(op, domain)
	}
	out.State, out.Reason = status.Draining, "an administrator ended the relation"
	if now {
		out.State, out.Session = status.Closed, nil
		if t := p.gateway.Table(); t != nil {
			t.Hurry(domain)
		}
	}
	return &out, nil
}

// PeerLedger implements console.Peers.
func (p *peerBoard) PeerLedger(ctx context.Context, domain string, most int) (*status.Ledger, error) {
	const op = "serve.PeerLedger"
	if _, err := p.permit(ctx, op, broker.Submit); err != nil {
		return nil, err
	}
	l := p.gateway.Favours.Ledger(domain, most)
	nothing := !slices.ContainsFunc(l.Accounts, func(a status.Account) bool { return a.Number > 0 })
	if _, ok := p.member(domain); !ok && nothing && p.gateway.Favours.Balance(domain) == (ledger.Balance{}) {
		return nil, noPeerHere(op, domain)
	}
	return &l, nil
}
