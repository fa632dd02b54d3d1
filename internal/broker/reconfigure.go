package broker

import (
	"maps"
	"reflect"

	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
)

// SetBounds changes Config.Bounds while the gateway runs. The next decision obeys them;
// what is at sites beyond them goes on.
func (b *Broker) SetBounds(l schedule.Limits) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if reflect.DeepEqual(b.cfg.Bounds, l) {
		return
	}
	b.cfg.Bounds = l
	b.sched.SetLimits(l)
	nudge(b.wakeDispatch)
}

// SetShares changes Config.Shares while the gateway runs: the next decision reckons with
// them.
func (b *Broker) SetShares(shares map[string]float64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if maps.Equal(b.cfg.Shares, shares) {
		return nil
	}
	before := b.cfg.Shares
	b.cfg.Shares = maps.Clone(shares)
	if err := b.setUsage(); err != nil {
		b.cfg.Shares = before
		return err
	}
	nudge(b.wakeDispatch)
	return nil
}

// RemakePolicies makes the policies in force and in shadow anew, after what the catalogue
// makes has changed. An error says which of them can't be made any more; those before
// then decide on.
func (b *Broker) RemakePolicies() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.sched.SetPolicies(&b.policies.Policies); err != nil {
		return fail.Errorf("broker.RemakePolicies", fail.Conflict, "", "a policy that is in force or in shadow could not go on: %s", fail.Sentence(err)).Because(err)
	}
	nudge(b.wakeDispatch)
	return nil
}
