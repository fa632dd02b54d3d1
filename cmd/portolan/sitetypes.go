package main

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/boinc"
	"github.com/portolan-project/portolan/adapters/plugin"
	"github.com/portolan-project/portolan/adapters/shell"
)

// siteType is a kind of site that this program can run jobs at.
type siteType struct {
	open     func(adapters.Config) (adapters.Adapter, error)
	settings func() any // a fresh value of the type's settings, to check a file against
	// detect finds a manager on this machine that answers with default settings, for
	// serve --dev; nil looks for none.
	detect func(context.Context) (version string, err error)
}

// siteTypes are all of them: nothing registers itself by being linked.
var siteTypes = map[string]siteType{
	"shell":     {open: openShell, settings: func() any { return new(shellSettings) }},
	boinc.Type:  {open: boinc.Open, settings: func() any { return new(boinc.Settings) }},
	plugin.Type: {open: plugin.Open, settings: func() any { return new(plugin.Settings) }},
}

func siteRegistry() adapters.Registry {
	r := adapters.Registry{}
	for name, t := range siteTypes {
		r[name] = t.open
	}
	return r
}

// detectTime is how long a local manager has to answer when it is looked for.
const detectTime = 3 * time.Second

type shellSettings struct {
	// Slots is how many CPUs' worth of jobs run at once; 0 is all.
	Slots int `yaml:"slots"`
}

func openShell(c adapters.Config) (adapters.Adapter, error) {
	var s shellSettings
	if err := c.Settings.Decode(&s); err != nil {
		return nil, err
	}
	a, err := shell.Open(shell.Options{Dir: c.Dir, Slots: s.Slots, Log: c.Log})
	if err != nil {
		return nil, err
	}
	return a, nil
}
