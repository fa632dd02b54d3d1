package main

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/boinc"
	"github.com/portolan-project/portolan/adapters/condor"
	"github.com/portolan-project/portolan/adapters/plugin"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/adapters/slurm"
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
	shell.Type:  {open: shell.New, settings: func() any { return new(shell.Settings) }},
	slurm.Type:  {open: slurm.Open, settings: func() any { return new(slurm.Settings) }, detect: slurm.Detect},
	condor.Type: {open: condor.Open, settings: func() any { return new(condor.Settings) }, detect: condor.Detect},
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
