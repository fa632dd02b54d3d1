package broker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// bag is what is remembered of jobs that are alike: those of one document and owner
// that may be run more than once, as long as one of them is live and has a place while
// a policy of replication is in force. Its jobs that ended are known as sums.
type bag struct {
	kind   *kind
	ready  bool            // kind and sums were read
	oldest string          // live job when it was made: those before are of another bag
	sample string          // a job of it, whose document is read
	seen   map[string]bool // that ended since it was made, until it is ready
	done   int             // jobs that gave a valid result
	ran    time.Duration   // theirs, together
	wasted float64         // CPU-seconds of replicas that ended
}

// birth is a replica that is to be made.
type birth struct {
	id    string
	of    *job
	kind  *kind
	place resourcemodel.Place
	cpus  int
	why   string // the end of what is told of it
}

const (
	// replicaPause is how long at least it is between two plans of replicas, as that looks at all
	// live jobs, and replicaInterval how long at most while there are jobs that may be replicated:
	// time alone makes a job late.
	replicaPause    = time.Second
	replicaInterval = 10 * time.Second
	// mostKinds bounds the kinds of waiting jobs of which it is worked out which sites they
	// could use. With more, they may want any.
	mostKinds = 64
	// mostBirths bounds the replicas that one plan makes.
	mostBirths = 256
)

// replicate plans replicas of jobs that have a place, on what a round left idle and no
// job that waits could ever use. It gives how long it is until it is to be asked again;
// 0 when only a change makes a difference. The caller holds the lock.
func (b *Broker) replicate(now time.Time) time.Duration {
	if !b.sched.Replicates() {
		clear(b.bags)
		return 0
	}
	if left := b.passed.Add(replicaPause).Sub(now); left > 0 {
		return left
	}
	if b.unread.Len() > 0 || len(b.creating) > 0 {
		return replicaPause // jobs are on their way, and go first
	}
	b.passed = now
	groups, wanted := b.groups()
	for key := range b.bags {
		if groups[key] == nil {
			delete(b.bags, key)
		}
	}
	keys := slices.SortedFunc(maps.Keys(groups), func(x, y kindKey) int { return cmp.Compare(groups[x][0].rec.ID, groups[y][0].rec.ID) })
	for _, key := range keys {
		jobs := groups[key]
		g := b.bags[key]
		if g == nil {
			g = &bag{oldest: jobs[0].rec.ID, sample: jobs[0].rec.ID, seen: map[string]bool{}}
			b.bags[key] = g
		}
		if g.sample = jobs[0].rec.ID; !g.ready || g.kind.epoch != b.epoch {
			nudge(b.wakeReplicas)
			continue
		}
		if len(b.births) < mostBirths {
			b.replicateBag(g, jobs, wanted, now)
		}
	}
	if len(b.births) > 0 {
		nudge(b.wakeReplicas)
	}
	if len(groups) == 0 {
		return 0
	}
	return replicaInterval
}

// groups gives the jobs that may be run more than once, by what they have in common,
// the oldest first, where one has a place; and the sites that jobs which wait could
// use, nil for any.
func (b *Broker) groups() (map[kindKey][]*job, map[string]bool) {
	groups := map[kindKey][]*job{}
	placed := map[kindKey]bool{}
	waits := map[*kind]bool{}
	for _, j := range b.jobs {
		st := &j.rec.Status
		p := Phase(st.Phase)
		if j.replica() {
			continue
		}
		if st.Foreign != nil || guestOf(st.Promise) != "" { // what it may run at once is its own gateway's to say
			if p.waits() && j.kind != nil && len(waits) <= mostKinds {
				waits[j.kind] = true
			}
			continue
		}
		key := keyOf(j)
		switch {
		case p.waits():
			if j.kind != nil && len(waits) <= mostKinds {
				waits[j.kind] = true
			}
			if j.kind != nil && !j.kind.rerunnable() {
				continue
			}
		case st.Cancel, st.Suspend, st.Placement == nil, !st.Placement.Rerunnable, !p.atSite() && p != Outlasted:
			continue
		default:
			placed[key] = true
		}
		groups[key] = append(groups[key], j)
	}
	for key, jobs := range groups {
		if !placed[key] {
			delete(groups, key)
			continue
		}
		slices.SortFunc(jobs, func(x, y *job) int { return cmp.Compare(x.rec.ID, y.rec.ID) })
	}
	if len(waits) > mostKinds {
		return groups, nil
	}
	wanted := map[string]bool{}
	for k := range waits {
		_, could := b.against(k, nil)
		for _, s := range could {
			wanted[s.name] = true
		}
	}
	return groups, wanted
}

// replicateBag plans replicas of the jobs of one bag.
func (b *Broker) replicateBag(g *bag, jobs []*job, wanted map[string]bool, now time.Time) {
	if g.kind.unfit || wanted == nil {
		return
	}
	e := schedule.Entry{Job: jobOf("", jobs[0].rec.Owner, now, 0, g.kind), Queue: g.kind.queue(), Avoid: g.kind.avoid(nil)}
	how := b.sched.Replication(&e)
	if how == nil {
		return
	}
	idle, most := b.sched.Idle(e, now)
	r := b.roster.Load()
	idle = slices.DeleteFunc(idle, func(c policy.Candidate) bool {
		return c.Place.Domain != "" || r.at(c.Place.Site) < 0 || wanted[c.Place.Site]
	})
	if len(idle) == 0 || most == 0 {
		return
	}
	for _, d := range policy.Replicas(b.bagJobs(g, jobs, e.Job, now), idle, now, *how) {
		if most == 0 || len(b.births) >= mostBirths {
			return
		}
		if d.Job >= len(jobs) {
			continue
		}
		j, place := jobs[d.Job], idle[d.Candidate].Place
		if gw := j.rec.Status.Gateway; gw != "" && gw != b.cfg.Replica || slices.Contains(j.rec.Status.Refused, place.Site) {
			continue // its own gateway sees to it; or the site would not have it
		}
		id, err := newID()
		if err != nil {
			b.cfg.Log.Error("a replica can't be named", "cause", err)
			return
		}
		most--
		b.creating[id] = true
		b.sched.Given(jobOf(id, j.rec.Owner, now, j.rec.Status.Class, g.kind), place, false)
		b.births = append(b.births, birth{id, j, g.kind, place, e.CPUs, "as the policy of replication wants"})
	}
}

// bagJobs gives the jobs of a bag as the planner sees them, and one more that stands for
// all that ended.
func (b *Broker) bagJobs(g *bag, jobs []*job, like *policy.Job, now time.Time) []policy.BagJob {
	out := make([]policy.BagJob, 0, len(jobs)+1)
	for _, j := range jobs {
		one := policy.BagJob{ID: j.rec.ID, CPUs: like.CPUs, Length: like.Length}
		for _, c := range append([]*job{j}, b.copies[j.rec.ID]...) {
			// One that ended without a result counts as a copy, too: its place is no better
			// the second time.
			if st := &c.rec.Status; st.Placement != nil && (Phase(st.Phase).atSite() || Phase(st.Phase) == Outlasted) {
				copied := policy.Copy{Place: placeOf(st.Placement)}
				if p := Phase(st.Phase); p != Placing && p != AtSite && p != SiteHeld {
					copied.Started = st.Started
				}
				one.Copies = append(one.Copies, copied)
			}
		}
		if len(one.Copies) == 0 && Phase(j.rec.Status.Phase) == Outlasted {
			// Its own end is about to be told: it is no job that goes first, nor one that may
			// be replicated.
			one.Copies = []policy.Copy{{Place: placeOf(cmp.Or(j.rec.Status.Placement, &store.Placement{}))}}
		}
		out = append(out, one)
	}
	ended := policy.BagJob{Done: true, CPUs: like.CPUs * g.done, Wasted: g.wasted}
	if g.done > 0 {
		ended.Ran = g.ran / time.Duration(g.done)
	} else {
		ended.CPUs = 1 // for no time
	}
	for of, replicas := range b.copies {
		if b.jobs[of] != nil {
			continue
		}
		for _, r := range replicas { // whose end is under way: so far
			if st := &r.rec.Status; keyOf(r) == g.kind.key && st.Placement != nil && !st.Started.IsZero() {
				ended.Wasted += max(0, now.Sub(st.Started).Seconds()) * float64(max(1, st.Placement.CPUs))
			}
		}
	}
	return append(out, ended)
}

// finished counts a job that ended in the bag that it is of; the caller holds the lock.
func (b *Broker) finished(p *plan) {
	g := b.bags[keyOf(p.j)]
	if g == nil {
		return
	}
	if g.seen != nil {
		g.seen[p.j.rec.ID] = true
	}
	if !p.j.replica() {
		g.add(&p.after)
	}
}

// add counts a job with a valid result.
func (g *bag) add(st *store.Status) {
	if Phase(st.Phase) != Finished || st.ExitStatus == nil || *st.ExitStatus != 0 || st.Started.IsZero() {
		return
	}
	g.done++
	g.ran += max(0, st.Ended.Sub(st.Started))
}

// wasted counts what a replica used in vain; the caller holds the lock.
func (b *Broker) wasted(j *job, cpuSeconds float64) {
	if g := b.bags[keyOf(j)]; g != nil {
		g.wasted += cpuSeconds
	}
	if b.cfg.Hooks.Wasted != nil {
		b.cfg.Hooks.Wasted(cpuSeconds)
	}
}

// replicaLoop reads what plans of replicas need, and makes the replicas.
func (b *Broker) replicaLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wakeReplicas:
		}
		b.readBags(ctx)
		b.rescue(ctx)
		b.bear(ctx)
		if ctx.Err() == nil {
			nudge(b.wakeDispatch)
		}
	}
}

// readBags makes bags ready. One that can't be read now is tried again with the next
// plan.
func (b *Broker) readBags(ctx context.Context) {
	type work struct {
		key kindKey
		bag *bag
	}
	var todo []work
	b.mu.Lock()
	r, epoch := b.roster.Load(), b.epoch
	for key, g := range b.bags {
		if !g.ready || g.kind.epoch != epoch {
			todo = append(todo, work{key, g})
		}
	}
	b.mu.Unlock()
	for _, w := range todo {
		b.mu.Lock()
		g, k := *w.bag, w.bag.kind
		b.mu.Unlock()
		if k == nil {
			var err error
			if k, err = b.readKind(ctx, &store.Job{ID: g.sample, Owner: w.key.owner}); err != nil {
				b.cfg.Log.Debug("the document of a bag of jobs can't be read now", "job", g.sample, "cause", err)
				continue
			}
		} else {
			k = k.again()
		}
		k.key = w.key
		k.examine(r, epoch)
		ended, err := map[string]*store.Job(nil), error(nil)
		if !g.ready {
			if ended, err = b.endedOf(ctx, w.key, g.oldest); err != nil {
				b.cfg.Log.Debug("the jobs of a bag that ended can't be read now", "job", g.sample, "cause", err)
				continue
			}
		}
		b.mu.Lock()
		w.bag.kind = k
		if !w.bag.ready {
			for id, rec := range ended {
				if w.bag.seen[id] {
					continue
				}
				st := &rec.Status
				if st.Of == "" {
					w.bag.add(st)
				} else if st.Placement != nil && !st.Started.IsZero() {
					w.bag.wasted += max(0, st.Ended.Sub(st.Started).Seconds()) * float64(max(1, st.Placement.CPUs))
				}
			}
			w.bag.ready, w.bag.seen = true, nil
		}
		b.mu.Unlock()
	}
}

// endedOf gives the final jobs and replicas of a bag that are not older than the oldest.
func (b *Broker) endedOf(ctx context.Context, key kindKey, oldest string) (map[string]*store.Job, error) {
	const page = 500
	out := map[string]*store.Job{}
	for _, owner := range []string{key.owner, replicaOwner} {
		for before := ""; ; {
			recs, err := b.cfg.Store.List(ctx, store.ListOptions{Owner: owner, Before: before, Limit: page})
			if err != nil {
				return nil, err
			}
			for i := range recs {
				rec := ofOwner(recs[i])
				if before = rec.ID; rec.ID >= oldest && rec.Status.Final && rec.DocumentSum == key.sum && rec.Owner == key.owner {
					out[rec.ID] = &rec
				}
			}
			if len(recs) < page || before < oldest {
				break
			}
		}
	}
	return out, nil
}

// bear makes the replicas that were planned.
func (b *Broker) bear(ctx context.Context) {
	b.mu.Lock()
	births := b.births
	b.births = nil
	b.mu.Unlock()
	docs := map[kindKey][]byte{}
	var g errgroup.Group
	g.SetLimit(16)
	for _, n := range births {
		b.mu.Lock()
		o := b.jobs[n.of.rec.ID]
		needed := b.serving && o == n.of && !o.rec.Status.Cancel && !o.rec.Status.Suspend
		rec := n.of.rec
		b.mu.Unlock()
		doc, err := docs[n.kind.key], error(nil)
		if needed && doc == nil {
			doc, err = b.cfg.Store.Document(ctx, rec.ID)
			docs[n.kind.key] = doc
		}
		if !needed || err != nil || ctx.Err() != nil {
			b.stillborn(n.id)
			continue
		}
		g.Go(func() error { b.bearOne(ctx, n, rec, doc); return nil })
	}
	_ = g.Wait() // none of them fails
}

// stillborn takes back what was kept for a replica that is not made.
func (b *Broker) stillborn(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.creating, id)
	if b.serving && b.jobs[id] == nil {
		b.sched.Left(id)
	}
}

// bearOne makes one replica durable, and then hands it to its site.
func (b *Broker) bearOne(ctx context.Context, n birth, of store.Job, doc []byte) {
	now := time.Now()
	f := fact{
		event: Copied, at: now, place: n.place, rerunnable: true, cpus: n.cpus, tag: adapters.Tag(n.id + "-1"), gateway: b.cfg.Replica,
		reason: fmt.Sprintf("a replica of the job %s, for the site %s, which was idle", of.ID, n.place.Site),
	}
	st, line, _, err := step(store.Status{VO: of.Status.VO, Gateway: b.cfg.Replica, Of: of.ID, For: of.Owner}, f)
	if err != nil {
		b.cfg.Log.Error("a replica can't begin", "job", of.ID, "cause", err)
		b.stillborn(n.id)
		return
	}
	sh, counts := b.shared.Load(), limits.Use{Site: n.place.Site, CPUs: n.cpus}
	if sh == nil {
		b.stillborn(n.id)
		return
	}
	if err := sh.limits.Reserve(ctx, sh.sess, counts)[0]; err != nil {
		b.cfg.Log.Debug("a replica is not made, as its site may not have it", "job", of.ID, "cause", err)
		b.stillborn(n.id)
		return
	}
	rec, _, err := b.create(ctx, "broker.replicate", store.NewJob{
		ID: n.id, Owner: replicaOwner, Name: of.Name, Document: doc, Submitted: now, Status: st, Event: *line,
	})
	if err != nil {
		if ctx.Err() == nil && !fail.Is(err, fail.NotAccepting) {
			b.cfg.Log.Warn("a replica could not be made", "job", of.ID, "cause", err)
		}
		sh.limits.Release(counts)
		b.stillborn(n.id)
		return
	}
	b.mu.Lock()
	delete(b.creating, n.id)
	if !b.serving {
		b.mu.Unlock()
		return // the next start finds it
	}
	j := b.adopt(rec)
	if j != nil && !j.rec.Status.Final {
		j.limited = &counts
	} else {
		sh.limits.Release(counts)
	}
	if j != nil && j.rec.Revision == rec.Revision {
		if old := b.kinds[n.kind.key]; old == nil || old.epoch < n.kind.epoch {
			b.kinds[n.kind.key] = n.kind
		}
		b.holdKind(j, n.kind)
		if s := b.siteOf(&j.rec.Status); s != nil {
			s.todo(j, DoSubmit)
		}
	}
	b.mu.Unlock()
	if b.cfg.Hooks.Replicated != nil {
		b.cfg.Hooks.Replicated(n.place.Site)
	}
	told := fact{
		event: Copied, place: n.place,
		reason: fmt.Sprintf("its replica %s was given to the site %s, which was idle, %s", n.id, n.place.Site, n.why),
	}
	b.post(input{id: of.ID, facts: func(_ *job, st store.Status) []fact {
		if _, ok := transitions[Phase(st.Phase)][Copied]; !ok {
			return nil
		}
		return []fact{told}
	}})
}
