package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
)

// dispatchLoop chooses sites for jobs whenever something changed that a choice
// depends on, or the time of a retry has come.
func (b *Broker) dispatchLoop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-b.wakeDispatch:
		}
		if wait := b.dispatch(ctx); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// roundBudget bounds the placements of one round, as the broker is locked meanwhile.
const roundBudget = 512

// dispatch makes one round of choices and gives how long it is until time alone
// may change them; 0 when it can't.
func (b *Broker) dispatch(ctx context.Context) time.Duration {
	more, err := b.readKinds(ctx)
	if ctx.Err() != nil {
		return 0
	}
	var wait time.Duration
	if err != nil {
		b.cfg.Log.Warn("documents of queued jobs can't be read now", "cause", err)
		wait, more = time.Second, false
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.serving || b.cfg.AwaitRoom && !b.roomTold {
		return 0
	}
	b.feedAll(now)
	if late := b.passDeadlines(now); late > 0 && (wait == 0 || late < wait) {
		wait = late
	}
	if again := b.passAsides(now); again > 0 && (wait == 0 || again < wait) {
		wait = again
	}
	if due := b.passLeases(now); due > 0 && (wait == 0 || due < wait) {
		wait = due
	}
	ins, look := b.keepPromises(now)
	if look > 0 && (wait == 0 || look < wait) {
		wait = look
	}
	ins = append(ins, b.tend()...)
	r := b.roster.Load()
	chosen, believed := b.sched.Round(now, roundBudget), b.believed()
	for i := range chosen {
		d := &chosen[i]
		j, s := b.jobs[d.Job], b.sites[d.Place.Site]
		if j == nil || j.queued != waiting || s == nil || r.at(s.name) < 0 {
			b.sched.Left(d.Job)
			if j != nil && j.queued == waiting {
				j.queued = nowhere
				b.enqueue(j)
			}
			continue
		}
		d.Model = believed // ours is numbered for itself
		j.queued, j.reserved, j.chosen = nowhere, s, d
		b.count(j, s, Placing)
		ins = append(ins, input{id: d.Job, facts: func(j *job, st store.Status) []fact { return b.placing(j, &st, d) }})
	}
	b.busy = more || len(chosen) == roundBudget
	if b.busy {
		nudge(b.wakeDispatch)
	} else if again := b.replicate(now); again > 0 && (wait == 0 || again < wait) {
		wait = again
	}
	if again := b.takeBack(now); again > 0 && (wait == 0 || again < wait) {
		wait = again
	}
	if b.cfg.Hooks.Gauges != nil {
		b.cfg.Hooks.Gauges(b.live, b.waits())
	}
	if len(ins) > 0 {
		b.inbox = append(b.inbox, ins...)
		nudge(b.wakeCommit)
	}
	if next := b.sched.Next(now); !next.IsZero() {
		// At once would spin if the moment is that of this round.
		if until := max(time.Millisecond, next.Sub(now)); wait == 0 || until < wait {
			wait = until
		}
	}
	return wait
}

// placing turns a choice into what is written down, if the job still waits for it.
func (b *Broker) placing(j *job, st *store.Status, d *schedule.Decision) []fact {
	if !Phase(st.Phase).waits() || j.kind == nil || j.chosen != d {
		return nil
	}
	return []fact{{
		event: Chosen, place: d.Place, rerunnable: j.kind.rerunnable(), recallable: b.recallable(d.Place.Site) && !j.kind.onceOnly(), cpus: max(1, j.kind.request.Need.CPUs), length: j.kind.request.Need.WallTime, gateway: b.cfg.Replica, bought: d.Bought,
		reason: "chosen: " + b.chosenBecause(d), tag: adapters.Tag(fmt.Sprintf("%s-%d", j.rec.ID, st.Attempt+1)),
	}}
}

// chosenBecause says in a few words why a place was chosen.
func (b *Broker) chosenBecause(d *schedule.Decision) string {
	if d.Domain != "" {
		return d.Why + "; it is given to the site " + d.Place.Site + ", which is that peer"
	}
	site := "the site " + d.Place.Site
	room := "can run it and has room"
	if len(d.Ranked) > 0 && d.Ranked[0].Place == d.Place && d.Ranked[0].Free <= 0 {
		room = "can run it, and takes it into its queue"
	}
	if n := len(d.Ranked); n > 1 {
		return fmt.Sprintf("%s %s; of %d places it is the first by %s", site, room, n+d.More-len(d.Out), d.Policy[policy.Selection])
	}
	return site + " " + room
}

// whileWaiting gives a fact that is void for a job that left the queue.
func whileWaiting(f fact) func(*job, store.Status) []fact {
	return func(_ *job, st store.Status) []fact {
		if !Phase(st.Phase).waits() {
			return nil
		}
		return []fact{f}
	}
}

// check says whether the site could ever run the definition as an account; "" is the usual one.
func (s *site) check(def *jsdl.JobDefinition, account string, ros *roster) error {
	if r := def.Description.Resources; r != nil && len(r.CandidateHosts) > 0 {
		mine, hosts := pins(r.CandidateHosts, s.name, ros)
		if !mine && len(hosts) == 0 {
			return fail.Errorf("broker.check", fail.Unsupported, "CandidateHosts", "CandidateHosts names other sites (%s)", strings.Join(r.CandidateHosts, ", "))
		}
		c := s.capacity.Load()
		if !mine && c != nil && len(c.HostNames) > 0 && !slices.ContainsFunc(hosts, func(h string) bool {
			return slices.ContainsFunc(c.HostNames, func(n string) bool { return strings.EqualFold(n, h) })
		}) {
			return fail.Errorf("broker.check", fail.Unsupported, "CandidateHosts", "it has no host called %s (CandidateHosts)", strings.Join(hosts, " or "))
		}
	}
	c, done, err := s.borrow()
	if err != nil {
		return err
	}
	defer done()
	return c.checkAs(forSite(def, s.name, ros), account)
}

// pins splits candidate hosts into whether they name the site itself, and those
// that name no site of ours.
func pins(candidates []string, name string, r *roster) (mine bool, hosts []string) {
	for _, c := range candidates {
		switch {
		case c == name:
			mine = true
		case r.at(c) < 0:
			hosts = append(hosts, c)
		}
	}
	return mine, hosts
}

// forSite gives the definition as a site must see it: the names of sites among
// the candidate hosts are for us. A site that is named itself may use any of its
// hosts.
func forSite(def *jsdl.JobDefinition, name string, ros *roster) *jsdl.JobDefinition {
	r := def.Description.Resources
	if r == nil || len(r.CandidateHosts) == 0 {
		return def
	}
	mine, hosts := pins(r.CandidateHosts, name, ros)
	if mine {
		hosts = nil
	}
	if len(hosts) == len(r.CandidateHosts) {
		return def
	}
	d, res := *def, *r
	res.CandidateHosts = hosts
	d.Description.Resources = &res
	return &d
}
