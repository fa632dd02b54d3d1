package shell

import (
	"math/bits"
	"reflect"
	"slices"

	"github.com/portolan-project/portolan/adapters"
)

// versions numbers what Resources tells: a number grows only when something has
// changed that it stands for.
type versions struct {
	static, dynamic uint64
	last            adapters.Resources
}

func (v *versions) of(r adapters.Resources) adapters.Resources {
	if v.static == 0 || !reflect.DeepEqual(lasting(r), lasting(v.last)) {
		v.static++
	}
	if v.dynamic == 0 || !reflect.DeepEqual(passing(r), passing(v.last)) {
		v.dynamic++
	}
	v.last = r
	r.Static, r.Dynamic = v.static, v.dynamic
	// The caller's to keep: what is remembered here stays as it is.
	r.Environments, r.Shares = slices.Clone(r.Environments), slices.Clone(r.Shares)
	return r
}

// lasting is r without what is dynamic, passing is the rest.
func lasting(r adapters.Resources) adapters.Resources {
	r.Static, r.Dynamic = 0, 0
	r.Environments, r.Shares = slices.Clone(r.Environments), slices.Clone(r.Shares)
	for i := range r.Environments {
		e := &r.Environments[i]
		e.Nodes, e.Available, e.FreeCPUs, e.FreeMemory = 0, 0, 0, 0
	}
	for i := range r.Shares {
		s := &r.Shares[i]
		s.Open, s.Running, s.Waiting, s.FreeSlots = false, 0, 0, 0
	}
	return r
}

func passing(r adapters.Resources) adapters.Resources {
	var out adapters.Resources
	for _, e := range r.Environments {
		out.Environments = append(out.Environments, adapters.Environment{ID: e.ID, Nodes: e.Nodes, Available: e.Available, FreeCPUs: e.FreeCPUs, FreeMemory: e.FreeMemory})
	}
	for _, s := range r.Shares {
		out.Shares = append(out.Shares, adapters.Share{ID: s.ID, Open: s.Open, Running: s.Running, Waiting: s.Waiting, FreeSlots: s.FreeSlots})
	}
	return out
}

// coarse rounds a number of bytes down to its first four bits: a file that somebody
// writes is no news for those who follow a site's resources.
func coarse(n int64) int64 {
	if n <= 0 {
		return 0
	}
	if extra := bits.Len64(uint64(n)) - 4; extra > 0 {
		return n >> extra << extra
	}
	return n
}
