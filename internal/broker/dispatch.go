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
	wait := b.queue.due(now)
	views, reopen := b.views(now)
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
		if err := b.readAll(ctx, taken); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("documents of queued jobs can't be read now", "cause", err)
			wait = time.Second
		}
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	var jobs []*job
	var allowed []siteSet
	var ins []input
	for _, j := range taken {
		if b.jobs[j.rec.ID] != j || j.queued != nil || j.reserved >= 0 || !Phase(j.rec.Status.Phase).waits() {
			continue // the committer changed it meanwhile
		}
		set := j.candidates().without(b.refusedBy(&j.rec.Status))
		switch {
		case j.def == nil || !j.examined:
			b.queue.add(j, now)
		case set == 0:
			why := "no site can run it: " + j.why
			if j.why == "" {
				why = "no site that could run it is left; " + j.rec.Status.Reason
			}
			j.reserved = 0 // out of the queue until that is written
			ins = append(ins, input{id: j.rec.ID, facts: whileWaiting(fact{event: GaveUp, reason: why})})
		default:
			jobs = append(jobs, j)
			allowed = append(allowed, set)
		}
	}
	chosen := decide(views, allowed)
	placed := make(map[int]bool, len(chosen))
	for _, c := range chosen {
		placed[c.job] = true
		j, s := jobs[c.job], b.sites[c.site]
		j.reserved = c.site
		b.count(j, c.site)
		ins = append(ins, input{id: j.rec.ID, facts: func(j *job, st store.Status) []fact {
			if !Phase(st.Phase).waits() || j.def == nil {
				return nil
			}
			return []fact{{
				event: Chosen, site: s.name, reason: "chosen: the site " + s.name + " can run it and has room",
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
func (b *Broker) views(now time.Time) ([]siteView, time.Duration) {
	views := make([]siteView, len(b.sites))
	var reopen time.Duration
	for i, s := range b.sites {
		c := s.capacity.Load()
		if c == nil {
			continue
		}
		if wait := s.closed.Sub(now); wait > 0 {
			if reopen == 0 || wait < reopen {
				reopen = wait
			}
			continue
		}
		ahead := b.cfg.Limits.Ahead
		if ahead == 0 {
			ahead = max(c.Slots, 16)
		}
		v := siteView{Open: c.Slots > 0, Slots: c.Slots, InFlight: s.inFlight, Most: c.Slots + ahead}
		if s.failures > 0 {
			v.Most = min(v.Most, s.inFlight+1) // one job tries whether it is back
		}
		views[i] = v
	}
	return views, reopen
}

// readAll reads the documents of jobs that were not read yet. The jobs are out
// of the queue; only this goroutine reads documents.
func (b *Broker) readAll(ctx context.Context, jobs []*job) error {
	for _, j := range jobs {
		b.mu.Lock()
		have := j.def != nil && j.examined
		id := j.rec.ID
		b.mu.Unlock()
		if have {
			continue
		}
		doc, err := b.cfg.Store.Document(ctx, id)
		if fail.Is(err, fail.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		def, problems := jsdl.Parse(doc, b.cfg.JSDL)
		var allowed siteSet
		var why string
		if err := judge(def, problems); err != nil {
			def, why = &jsdl.JobDefinition{}, fail.Sentence(err)
		} else {
			allowed, why = b.examine(def)
		}
		b.mu.Lock()
		if b.jobs[id] == j {
			if j.def == nil {
				b.read++
			}
			j.def, j.allowed, j.why, j.examined = def, allowed, why, true
		}
		b.mu.Unlock()
	}
	return nil
}

// examine gives the sites that could ever run the definition, and what stands
// against each of the others. A site that can't say now counts as one that could.
func (b *Broker) examine(def *jsdl.JobDefinition) (siteSet, string) {
	var set siteSet
	var why []string
	for i, s := range b.sites {
		if err := s.check(def); err == nil || fail.Is(err, fail.Unavailable) {
			set |= only(i)
		} else {
			why = append(why, "site "+s.name+": "+fail.Sentence(err))
		}
	}
	return set, strings.Join(why, "; ")
}

// check says whether the site could ever run the definition.
func (s *site) check(def *jsdl.JobDefinition) error {
	if r := def.Description.Resources; r != nil && len(r.CandidateHosts) > 0 {
		mine, hosts := pins(r.CandidateHosts, s.name, s.b.siteIndex)
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
	return s.adapter.Check(forSite(def, s.name, s.b.siteIndex))
}

// pins splits candidate hosts into whether they name the site itself, and those
// that name no site of ours.
func pins(candidates []string, name string, siteIndex func(string) int) (mine bool, hosts []string) {
	for _, c := range candidates {
		switch {
		case c == name:
			mine = true
		case siteIndex(c) < 0:
			hosts = append(hosts, c)
		}
	}
	return mine, hosts
}

// forSite gives the definition as a site must see it: the names of sites among
// the candidate hosts are for us. A site that is named itself may use any of its
// hosts.
func forSite(def *jsdl.JobDefinition, name string, siteIndex func(string) int) *jsdl.JobDefinition {
	r := def.Description.Resources
	if r == nil || len(r.CandidateHosts) == 0 {
		return def
	}
	mine, hosts := pins(r.CandidateHosts, name, siteIndex)
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
