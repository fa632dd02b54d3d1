package main

import (
	"log/slog"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
)

// policyPlugins are policies that are programs of their own, by name.
type policyPlugins map[string]*pluginpolicy.Host

// openPolicies starts them, all at once, as that may take time. On an error none is
// left open.
func openPolicies(list map[string]pluginpolicy.Settings, log *slog.Logger) (policyPlugins, error) {
	names := slices.Sorted(maps.Keys(list))
	hosts := make([]*pluginpolicy.Host, len(names))
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() (err error) {
			hosts[i], err = pluginpolicy.Open(pluginpolicy.Config{Name: name, Settings: list[name], Log: log.With("part", "policy", "policy", name)})
			return err
		})
	}
	err := group.Wait()
	open := policyPlugins{}
	for i, h := range hosts {
		if h != nil {
			open[names[i]] = h
		}
	}
	if err != nil {
		open.close(log)
		return nil, err
	}
	return open, nil
}

func (p policyPlugins) close(log *slog.Logger) {
	for name, h := range p {
		if err := h.Close(); err != nil {
			log.Warn("a policy's program was not ended in order", "policy", name, "cause", err)
		}
	}
}

// catalogue makes policies of their settings: those that are built in, and these.
func (p policyPlugins) catalogue() *schedule.Catalogue {
	c := schedule.BuiltIn()
	c.Order = func(s policy.Setting) (policy.Order, error) {
		if h := p.of(s); h != nil {
			return h.NewOrder(s)
		}
		return policy.NewOrder(s)
	}
	c.Choice = func(s policy.Setting) (policy.Choice, error) {
		if h := p.of(s); h != nil {
			return h.NewChoice(s)
		}
		return policy.NewChoice(s)
	}
	return c
}

// of gives the program that a setting names; nil for none of ours.
func (p policyPlugins) of(s policy.Setting) *pluginpolicy.Host {
	name, _ := s.Plugin()
	return p[name]
}
