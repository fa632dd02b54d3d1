package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
)

// policyPlugins are policies that are programs of their own. Which there are may change.
type policyPlugins struct {
	log   *slog.Logger
	hosts atomic.Pointer[map[string]policyPlugin] // by name; what it points to never changes
}

// policyPlugin is one program with the settings that it was started with.
type policyPlugin struct {
	*pluginpolicy.Host
	settings pluginpolicy.Settings
}

// openPolicies starts them, all at once, as that may take time. On an error none is
// left open.
func openPolicies(list map[string]pluginpolicy.Settings, log *slog.Logger) (*policyPlugins, error) {
	p := &policyPlugins{log: log}
	p.hosts.Store(&map[string]policyPlugin{})
	change, err := p.prepare(list)
	if err != nil {
		return nil, err
	}
	p.hosts.Store(&change.after)
	return p, nil
}

func (p *policyPlugins) close() { p.end(*p.hosts.Load()) }

func (p *policyPlugins) end(hosts map[string]policyPlugin) {
	for name, h := range hosts {
		if err := h.Close(); err != nil {
			p.log.Warn("a policy's program was not ended in order", "policy", name, "cause", err)
		}
	}
}

// policyChange is on its way from some programs to others. Both run until it is kept or
// dropped.
type policyChange struct {
	of            *policyPlugins
	before, after map[string]policyPlugin
	fresh, gone   map[string]policyPlugin // of after, and of before, that the other has not
}

// prepare starts the programs that a list has beside or in place of those that there are.
// On an error nothing is changed.
func (p *policyPlugins) prepare(list map[string]pluginpolicy.Settings) (*policyChange, error) {
	c := &policyChange{of: p, before: *p.hosts.Load(), after: map[string]policyPlugin{}, fresh: map[string]policyPlugin{}}
	c.gone = maps.Clone(c.before)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if h, ok := c.before[name]; ok && reflect.DeepEqual(h.settings, list[name]) {
			c.after[name] = h
			delete(c.gone, name)
			continue
		}
		names = append(names, name)
	}
	hosts := make([]*pluginpolicy.Host, len(names))
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() (err error) {
			hosts[i], err = pluginpolicy.Open(pluginpolicy.Config{Name: name, Settings: list[name], Log: p.log.With("part", "policy", "policy", name)})
			return err
		})
	}
	err := group.Wait()
	for i, h := range hosts {
		if h != nil {
			c.fresh[names[i]] = policyPlugin{h, list[names[i]]}
		}
	}
	if err != nil {
		p.end(c.fresh)
		return nil, err
	}
	maps.Copy(c.after, c.fresh)
	return c, nil
}

// none reports whether it changes nothing.
func (c *policyChange) none() bool { return len(c.fresh) == 0 && len(c.gone) == 0 }

// try puts the new programs in the place of the old ones. Remake makes the policies in
// force of them; where it can't, the old ones are back, and the new ones are ended.
func (c *policyChange) try(remake func() error) error {
	if c.none() {
		return nil
	}
	c.of.hosts.Store(&c.after)
	if err := remake(); err != nil {
		c.of.hosts.Store(&c.before)
		c.of.end(c.fresh)
		return fmt.Errorf("policies: %s: leave the program in, or take the policy away first ('portolan policy get' tells where it is, 'policy unset' does it)", sentence(err))
	}
	return nil
}

// keep ends the old programs, after try.
func (c *policyChange) keep() { c.of.end(c.gone) }

// drop goes back to the old programs, after try.
func (c *policyChange) drop(remake func() error) error {
	if c.none() {
		return nil
	}
	c.of.hosts.Store(&c.before)
	err := remake()
	c.of.end(c.fresh)
	if err != nil {
		return errors.New("the policies before could not be put back: " + sentence(err))
	}
	return nil
}

// catalogue makes policies of their settings: those that are built in, and these.
func (p *policyPlugins) catalogue() *schedule.Catalogue {
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
func (p *policyPlugins) of(s policy.Setting) *pluginpolicy.Host {
	name, _ := s.Plugin()
	return (*p.hosts.Load())[name].Host
}
