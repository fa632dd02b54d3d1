package main

import (
	"log/slog"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/internal/agreements/door"
	"github.com/portolan-project/portolan/peers/members"
)

// door gives how agreements are made with peers; nil where there is no section peer.
func (k *peerKeeper) door(log *slog.Logger) *door.Door {
	if k == nil {
		return nil
	}
	v, _ := build()
	return door.New(door.Options{
		Domain: k.gateway.Domain(), Trust: k.gateway, Users: k.users, Member: k.member, UserAgent: "portolan/" + v, Log: log.With("part", "agreements"),
	})
}

// member gives what is said of a peer, as it is now.
func (k *peerKeeper) member(domain string) (members.Member, bool) {
	all := k.members()
	i, ok := slices.BinarySearchFunc(all, domain, func(m members.Member, d string) int { return strings.Compare(m.Domain, d) })
	if !ok {
		return members.Member{}, false
	}
	return all[i], true
}
