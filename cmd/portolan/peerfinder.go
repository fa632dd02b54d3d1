package main

import (
	"context"
	"net"

	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/peers/discovery"
)

// finder gives what looks for further gateways; nil where there is no section peer.
func (k *peerKeeper) finder() console.Finder {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	lan := k.config.LAN
	k.mu.Unlock()
	f := &discovery.Finder{Static: k.listed, DNS: net.DefaultResolver, Own: k.gateway.Domain()}
	if lan != "" {
		f.LAN = &discovery.LAN{Interface: lan, Log: k.log}
	}
	return f
}

// listed gives the peers of the configuration that can be reached, as proposals.
func (k *peerKeeper) listed() []discovery.Proposal {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []discovery.Proposal
	for i := range k.config.Peers {
		if m := &k.config.Peers[i]; m.URL != "" {
			out = append(out, discovery.Proposal{Domain: m.Domain, URL: m.URL})
		}
	}
	return out
}

// announce has others on the LAN find the gateway, if the configuration says so. That it
// can't is told and ends nothing: who knows the gateway reaches it all the same.
func (k *peerKeeper) announce(ctx context.Context) error {
	k.mu.Lock()
	lan, wanted := k.config.LAN, k.config.Announce
	k.mu.Unlock()
	if !wanted || k.listener == nil {
		return nil
	}
	at, ok := k.listener.Addr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	a := discovery.Announcement{Domain: k.gateway.Domain(), Port: at.Port, Version: "1", Fingerprint: k.gateway.Current().Pin().String()}
	if err := (&discovery.LAN{Interface: lan, Log: k.log}).Announce(ctx, a); err != nil {
		k.log.Warn("the gateway can't be found on the LAN", "cause", sentence(err))
	}
	return nil
}
