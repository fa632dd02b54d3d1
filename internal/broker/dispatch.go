package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
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

// dispatch makes one round of choices and gives how long it is until time alone
// may change them; 0 when it can't.
func (b *Broker) dispatch(ctx context.Context) time.Duration {
	now := time.Now()
	b.mu.Lock()
	r := b.roster.Load()
	wait := b.queue.due(now)
	views, reopen := b.views(r, now)
	if reopen > 0 && (wait == 0 || reopen < wait) {
		wait = reopen
	}
	room := make([]int, len(views))
	for i, v := range views {
		room[i] = v.room()
	}
	taken := b.queue.take(room)
	unread := slices.ContainsFunc(taken, func(j *job) bool { return j.def == nil || !j.examined })
	b.mu.Unlock()
	if unread {
		if err := b.readAll(ctx, r, taken); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("documents of queued jobs can't be read now", "cause", err)
			wait = time.Second
		}
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	changed := b.roster.Load() != r // the choice is made anew
	var jobs []*job
	var allowed []siteSet
	var ins []input
	for _, j := range taken {
		if b.jobs[j.rec.ID] != j || j.queued != nil || j.reserved != nil || !Phase(j.rec.Status.Phase).waits() {
			continue // the committer changed it meanwhile
		}
		st := &j.rec.Status
		set := j.candidates().without(r.named(st.Refused))
		switch {
		case changed || j.def == nil || !j.examined:
			b.queue.add(j, now)
		case set == 0 && len(st.Refused) == 0 && !j.unfit:
			// It was taken in because a site could run it. That the sites changed since is
			// no reason to end it: it waits, and its status says for what.
			b.dropDefinition(j)
			j.examined = true
			b.queue.add(j, now)
		case set == 0:
			why := "no site can run it: " + j.why
			if j.why == "" {
				why = "no site that could run it is left; " + j.rec.Status.Reason
			}
			j.deciding = true // out of the queue until that is written
			ins = append(ins, input{id: j.rec.ID, facts: whileWaiting(fact{event: GaveUp, reason: why})})
		default:
			jobs = append(jobs, j)
			allowed = append(allowed, set)
		}
	}
	if changed {
		nudge(b.wakeDispatch)
	}
	chosen := decide(views, allowed)
	placed := make(map[int]bool, len(chosen))
	for _, c := range chosen {
		placed[c.job] = true
		j, s := jobs[c.job], r.sites[c.site]
		j.reserved = s
		b.count(j, s, Placing)
		ins = append(ins, input{id: j.rec.ID, facts: func(j *job, st store.Status) []fact {
			if !Phase(st.Phase).waits() || j.def == nil {
				return nil
			}
			return []fact{{
				event: Chosen, place: resourcemodel.Place{Key: resourcemodel.Key{Site: s.name}}, rerunnable: rerunnable(j.def), reason: "chosen: the site " + s.name + " can run it and has room",
				tag: adapters.Tag(fmt.Sprintf("%s-%d", j.rec.ID, st.Attempt+1)),
			}}
		}})
	}
	for i, j := range jobs {
		if !placed[i] {
			b.queue.add(j, now)
		}
	}
	if b.cfg.Hooks.Gauges != nil {
		b.cfg.Hooks.Gauges(b.live, b.queue.n)
	}
	if len(ins) > 0 {
		b.inbox = append(b.inbox, ins...)
		nudge(b.wakeCommit)
	}
	return wait
}

// rerunnable reports whether the document allows that a job is run again that ran
// and is lost.
func rerunnable(def *jsdl.JobDefinition) bool {
	r := def.Description.Resources
	return r != nil && r.Placement != nil && r.Placement.Rerunnable != nil && *r.Placement.Rerunnable
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

// views gives what a choice needs to know of each site, and how long it is until
// the next one opens again; the caller holds the lock.
func (b *Broker) views(r *roster, now time.Time) ([]siteView, time.Duration) {
	views := make([]siteView, len(r.sites))
	var reopen time.Duration
	for i, s := range r.sites {
		c, conn := s.capacity.Load(), s.conn.Load()
		if c == nil || conn == nil {
			continue
		}
		if h := s.condition.Load(); h != nil && h.Problem != "" {
			continue // its next audit tells when it is back
		}
		if wait := max(s.closed.Sub(now), s.quarantine.left(now)); wait > 0 {
			if reopen == 0 || wait < reopen {
				reopen = wait
			}
			continue
		}
		if s.lapsed {
			continue // its next answer tells when it is back
		}
		v := siteView{
			Open: c.Slots > 0, Slots: c.Slots, InFlight: s.inFlight, Load: s.inFlight + s.foreign,
			Most: c.Slots + b.ahead(c, conn),
		}
		if most := conn.props.MaxJobs; most > 0 {
			v.Most = min(v.Most, most)
		}
		if s.failures > 0 {
			v.Most = min(v.Most, s.inFlight+1) // one job tries whether it is back
		}
		v.Most = min(v.Most, s.inFlight+max(0, s.credit.window()-s.phases[Placing]))
		views[i] = v
	}
	return views, reopen
}

// ahead gives how many jobs a site is given beyond its slots.
func (b *Broker) ahead(c *adapters.Capacity, conn *conn) int {
	switch {
	case b.cfg.Limits.Ahead > 0:
		return b.cfg.Limits.Ahead
	case conn.props.Bulk:
		return b.cfg.Limits.AheadBulk
	}
	return max(c.Slots, 16)
}

// readAll reads the documents of jobs that were not read yet. The jobs are out
// of the queue; only this goroutine reads documents.
func (b *Broker) readAll(ctx context.Context, r *roster, jobs []*job) error {
	for _, j := range jobs {
		b.mu.Lock()
		have, def := j.def != nil && j.examined, j.def
		id := j.rec.ID
		b.mu.Unlock()
		if have {
			continue
		}
		var problem error
		if def == nil {
			doc, err := b.cfg.Store.Document(ctx, id)
			if fail.Is(err, fail.NotFound) {
				continue
			}
			if err != nil {
				return err
			}
			var problems jsdl.Problems
			def, problems = jsdl.Parse(doc, b.cfg.JSDL)
			problem = judge(def, problems)
		}
		var allowed siteSet
		var why string
		if problem != nil {
			def, why = &jsdl.JobDefinition{}, fail.Sentence(problem)
		} else {
			allowed, why = r.examine(def)
		}
		b.mu.Lock()
		if b.jobs[id] == j && b.roster.Load() == r {
			if j.def == nil {
				b.read++
			}
			j.def, j.allowed, j.why, j.examined, j.unfit = def, allowed, why, true, problem != nil
		}
		b.mu.Unlock()
	}
	return nil
}

// examine gives the sites that could ever run the definition, and what stands
// against each of the others. A site that can't say now counts as one that could.
func (r *roster) examine(def *jsdl.JobDefinition) (siteSet, string) {
	var set siteSet
	var why []string
	for i, s := range r.sites {
		if err := s.check(def, r); err == nil || fail.Is(err, fail.Unavailable) {
			set |= only(i)
		} else {
			why = append(why, "site "+s.name+": "+fail.Sentence(err))
		}
	}
	if len(r.sites) == 0 {
		why = append(why, "no site takes jobs at present")
	}
	return set, strings.Join(why, "; ")
}

// check says whether the site could ever run the definition.
func (s *site) check(def *jsdl.JobDefinition, ros *roster) error {
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
	return c.Check(forSite(def, s.name, ros))
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
