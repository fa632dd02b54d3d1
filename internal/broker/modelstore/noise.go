package modelstore

import (
	"maps"

	"github.com/portolan-project/portolan/resourcemodel"
)

// weight is how much a change of a site's dynamic part matters.
type weight uint8

const (
	nothing weight = iota // it says the same
	noise                 // numbers moved within the dead-band
	news                  // worth writing, when the interval has passed
	urgent                // something came or went: jobs wait for that, or must not be sent there
)

// scale weighs changes of numbers.
type scale struct {
	band  float64
	heavy weight
}

func (s *scale) is(w weight) { s.heavy = max(s.heavy, w) }

// amount weighs a number that is worth something only while there is some.
func (s *scale) amount(old, now int64) {
	if (old == 0) != (now == 0) {
		s.is(urgent)
	}
	s.number(old, now)
}

func (s *scale) number(old, now int64) {
	switch {
	case old == now:
	case float64(max(old, now)-min(old, now)) <= s.band*float64(min(old, now)):
		s.is(noise)
	default:
		s.is(news)
	}
}

func (s *scale) amounts(old, now map[string]int64) {
	if !sameKeys(old, now) {
		s.is(urgent)
	}
	for name, n := range now {
		s.amount(old[name], n)
	}
}

func (s *scale) environment(a, b resourcemodel.EnvironmentState) {
	s.number(int64(a.Nodes), int64(b.Nodes))
	s.amount(int64(a.Available), int64(b.Available))
	s.amount(int64(a.FreeNodes), int64(b.FreeNodes))
	s.amount(int64(a.FreeCPUs), int64(b.FreeCPUs))
	s.amount(a.FreeMemory, b.FreeMemory)
	s.amount(int64(a.FreeGPUs), int64(b.FreeGPUs))
	switch {
	case (a.Best == nil) != (b.Best == nil):
		s.is(news)
	case a.Best != nil:
		s.environment(*a.Best, *b.Best)
	}
}

// weigh compares what a source says now with what was written.
func weigh(old, now *resourcemodel.Dynamic, band float64) weight {
	if old == nil || now == nil {
		if now == nil {
			return nothing
		}
		return urgent
	}
	if now.Same(old) {
		return nothing
	}
	s := &scale{band: max(0, band)}
	if old.Up != now.Up || !sameKeys(old.Shares, now.Shares) || !sameKeys(old.Environments, now.Environments) {
		return urgent
	}
	if old.Source != now.Source || old.Detail != now.Detail || old.Problem != now.Problem {
		s.is(news)
	}
	s.amounts(old.Consumables, now.Consumables)
	for id, b := range now.Shares {
		a := old.Shares[id]
		if a.Open != b.Open {
			return urgent
		}
		s.number(int64(a.Running), int64(b.Running))
		s.number(int64(a.Waiting), int64(b.Waiting))
		s.amount(int64(a.FreeSlots), int64(b.FreeSlots))
		s.number(int64(a.Forecast), int64(b.Forecast))
		s.amounts(a.Consumables, b.Consumables)
	}
	for id, b := range now.Environments {
		s.environment(old.Environments[id], b)
	}
	return max(s.heavy, noise)
}

func sameKeys[V any](a, b map[string]V) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range maps.Keys(a) {
		if _, ok := b[k]; !ok {
			return false
		}
	}
	return true
}
