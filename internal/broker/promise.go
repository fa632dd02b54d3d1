package broker

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/estimate"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// A job of an agreement is a job like others, with a promise: it goes where its room is held, not
// before its time, and when what is promised of it is in danger, the broker acts. It gets a
// higher class, then another site, then a replica where its document allows that. Each is said in its
// history once. The broker knows nothing of agreements beyond their ids: whoever makes
// them calls SubmitPromised and KeepRoom, asks Outlook, and hears by Follow what came of it.

// Promise is what an agreement says of a job. The fields of what became of it are the broker's own:
// those that a caller gives are not heeded.
type Promise = store.Promise

// PromisePrefix begins the SubmissionIDs of jobs of agreements, which no user may choose.
const PromisePrefix = "agreement:"

// Promised is a job of an agreement.
type Promised struct {
	ID       string
	Activity soap.EPR
	Created  bool // false: it was there already
}

// SubmitPromised makes a job of an agreement durable, for the principal in ctx, as CreateActivity
// does. It is for callers in this process that are trusted with what they promise. The request's
// SubmissionID names the job within its agreement: asking again with it gives the same
// job, and tells who follows all of it. fail.Invalid is a promise that can't be meant, or no SubmissionID; fail.Unsupported that the
// promise's site can never run it; else the errors are those of CreateActivity.
func (b *Broker) SubmitPromised(ctx context.Context, req *bes.CreateActivityRequest, p Promise) (*Promised, error) {
	const op = "broker.SubmitPromised"
	p.Pressed, p.Loose, p.Noted = false, false, false
	p.Account = soap.PrincipalFrom(ctx).Account
	for _, t := range []*time.Time{&p.StartBy, &p.FinishBy, &p.NotBefore} {
		if !t.IsZero() {
			*t = t.UTC().Round(0)
		}
	}
	switch {
	case p.Agreement == "":
		return nil, fail.Errorf(op, fail.Invalid, "", "a promise needs the id of its agreement")
	case req.SubmissionID == "":
		return nil, fail.Errorf(op, fail.Invalid, p.Agreement, "a job of an agreement needs a SubmissionID, which names it within the agreement")
	case p.Site == "" && (p.Share != "" || p.Room != "" || len(p.Reservation) > 0):
		return nil, fail.Errorf(op, fail.Invalid, p.Agreement, "a share, a room or a reservation is at a site, and the promise names none")
	case !p.StartBy.IsZero() && p.NotBefore.After(p.StartBy), !p.FinishBy.IsZero() && !p.NotBefore.Before(p.FinishBy):
		return nil, fail.Errorf(op, fail.Invalid, p.Agreement, "the job is not to be placed before %s, which is too late for what is promised of it", p.NotBefore.Format(time.RFC3339))
	}
	named := *req
	named.SubmissionID = PromisePrefix + p.Agreement + "/" + req.SubmissionID
	rec, created, err := b.createActivity(ctx, op, &named, &p)
	if err != nil {
		return nil, err
	}
	if !created { // it may have ended before who follows did, who had no id of it then
		b.mu.Lock()
		b.followed(rec.ID)
		b.mu.Unlock()
	}
	return &Promised{ID: rec.ID, Activity: b.reference(rec.ID), Created: created}, nil
}

// promisable says why the site of a promise can never have a job of the kind; nil if it can.
func (b *Broker) promisable(op string, k *kind, p *Promise) error {
	if p.Site == "" {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	why, could := b.against(k, nil)
	switch no := k.barred[p.Site]; {
	case b.roster.Load().at(p.Site) < 0:
		return fail.Errorf(op, fail.Unsupported, p.Site, "there is no site %s here that takes jobs", p.Site)
	case no != "":
		return fail.Errorf(op, fail.Unsupported, p.Site, "the site %s of its agreement can't run it: %s", p.Site, no)
	case !slices.Contains(could, b.sites[p.Site]):
		return fail.Errorf(op, fail.Unsupported, p.Site, "the site %s of its agreement can't run it: %s", p.Site, why)
	}
	return nil
}

// promisedWords tells of a promise at the end of a sentence.
func promisedWords(p *Promise) string {
	if p == nil {
		return ""
	}
	return ", by the agreement " + p.Agreement + ", which promises it " + promiseOf(p)
}

// timesOf says by when what is promised of a job: "to start by … and to finish by …"; "" is by no time.
func timesOf(p *Promise) string {
	var all []string
	if !p.StartBy.IsZero() {
		all = append(all, "to start by "+p.StartBy.UTC().Format(time.RFC3339))
	}
	if !p.FinishBy.IsZero() {
		all = append(all, "to finish by "+p.FinishBy.UTC().Format(time.RFC3339))
	}
	return strings.Join(all, " and ")
}

// promiseOf says what is promised of a job: the times, and where it has room.
func promiseOf(p *Promise) string {
	var all []string
	if times := timesOf(p); times != "" {
		all = append(all, times)
	}
	if p.Room != "" || len(p.Reservation) > 0 {
		all = append(all, "room at the site "+p.Site)
	}
	if len(all) == 0 {
		return "no time"
	}
	return strings.Join(all, " and ")
}

// showPromise tells what is promised among what is told of an activity.
func showPromise(rec *store.Job, d *bes.Details) {
	p := rec.Status.Promise
	if p == nil {
		return
	}
	all := make(map[string]string, len(d.Attributes)+6)
	maps.Copy(all, d.Attributes)
	all["agreement"] = p.Agreement
	for name, t := range map[string]time.Time{"agreement.startBy": p.StartBy, "agreement.finishBy": p.FinishBy, "agreement.notBefore": p.NotBefore} {
		if !t.IsZero() {
			all[name] = t.UTC().Format(time.RFC3339)
		}
	}
	if p.Site != "" {
		all["agreement.site"] = p.Site
		if p.Loose {
			all["agreement.site"] += ", or any other: it could not have the job"
		}
	}
	if p.Pressed || p.Noted {
		all["agreement.danger"] = "what is promised was in danger: see the history"
	}
	d.Attributes = all
}

// promisedEntry gives the scheduler what a promise says of a waiting job.
func promisedEntry(e *schedule.Entry, p *Promise) {
	if p.NotBefore.After(e.NotBefore) {
		e.NotBefore = p.NotBefore
	}
	due := p.FinishBy
	if latest := p.StartBy; due.IsZero() && !latest.IsZero() {
		due = latest.Add(max(e.Length, 0))
	}
	if !due.IsZero() && (e.Deadline.IsZero() || due.Before(e.Deadline)) {
		e.Deadline = due
	}
	e.Room = p.Room
	if p.Site != "" && !p.Loose {
		e.Only = &schedule.Pin{Key: resourcemodel.Key{Site: p.Site}, Share: p.Share, Reserved: len(p.Reservation) > 0}
	}
}

// reservationOf gives the reservation that a job runs in at a site, for its manager; nil where it has
// none there.
func (s *site) reservationOf(j *job) adapters.Handle {
	p, c := j.rec.Status.Promise, s.conn.Load()
	if p != nil && p.Site == s.name && len(p.Reservation) > 0 && c != nil && c.props.Reserve {
		return adapters.Handle(p.Reservation)
	}
	return nil
}

// unreserved turns the refusal of a job for its reservation, which is not there or not for it, into its
// being placed as any other; nil is that it was refused for something else.
func (s *site) unreserved(j *job, st *store.Status, err error) *fact {
	if s.reservationOf(j) == nil || !fail.Is(err, fail.NotFound) && !fail.Is(err, fail.Denied) {
		return nil
	}
	return &fact{
		event: Deferred, unreserved: true, notBefore: s.b.later(st.Attempt),
		reason: fmt.Sprintf("the reservation of its agreement at the site %s can't be used (%s); it is placed as any other job", s.name, fail.Sentence(err)),
	}
}

// pinnedTo reports whether a job is to stay at a site, by its agreement.
func pinnedTo(j *job, site string) bool {
	p := j.rec.Status.Promise
	return p != nil && p.Site == site && !p.Loose
}

// KeepRoom tells which room is promised to whom, in place of what was told before. It holds at once for
// all that is placed from now on; jobs of others that have the room keep it. Nothing of it is
// remembered: whoever keeps the agreements tells it after each start, see Config.AwaitRoom. What is placed
// is counted under the lock under which it is decided, so that one broker gives no hold away twice; two
// that place at the same sites in the same moment could, and so there is one in a domain.
func (b *Broker) KeepRoom(holds []schedule.Hold) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roomTold = true
	b.sched.SetHolds(holds)
	b.setOwn(holds)
	nudge(b.wakeDispatch)
}

// setOwn notes who holds room for themselves, by the agreement. Their jobs that wait enter the scheduler anew,
// as they may have it by now, or no more: of others nobody needs to be told apart. The caller holds the lock.
func (b *Broker) setOwn(holds []schedule.Hold) {
	was := b.owning
	b.roomOf, b.owning = map[string][]string{}, map[string]int{}
	for i := range holds {
		b.countOwn(&holds[i])
	}
	owners := map[string]bool{}
	for _, of := range []map[string]int{was, b.owning} {
		for o := range of {
			if (was[o] > 0) != (b.owning[o] > 0) {
				owners[o] = true
			}
		}
	}
	b.reenter(owners)
}

// countOwn counts a hold that is its owner's own. The caller holds the lock.
func (b *Broker) countOwn(h *schedule.Hold) {
	if isOwn(h) {
		b.roomOf[h.Agreement] = append(b.roomOf[h.Agreement], h.Owner)
		b.owning[h.Owner]++
	}
}

// isOwn reports whether room is for its owner's jobs without a VO.
func isOwn(h *schedule.Hold) bool { return h.ForVO && h.VO == "" && h.Owner != "" }

// reenter has jobs of owners that wait enter the scheduler anew. The caller holds the lock.
func (b *Broker) reenter(owners map[string]bool) {
	if len(owners) == 0 {
		return
	}
	for _, j := range b.jobs {
		if j.queued == waiting && owners[j.rec.Owner] {
			b.sched.Remove(j.rec.ID)
			b.sched.Add(b.entry(j))
		}
	}
}

// ownRoom gives what an owner holds for jobs that are for no VO; "" is nothing. The caller holds the lock.
func (b *Broker) ownRoom(owner, vo string) string {
	if vo != "" || b.owning[owner] == 0 {
		return ""
	}
	return schedule.OwnRoom(owner)
}

// ChangeRoom is KeepRoom for what one agreement promises, which each of its holds names; what others
// promise stays.
func (b *Broker) ChangeRoom(agreement string, holds []schedule.Hold) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sched.ChangeHolds(agreement, holds)
	// Only what this agreement changes is counted: there may be many others.
	before := b.roomOf[agreement]
	delete(b.roomOf, agreement)
	had := map[string]bool{}
	for _, o := range before {
		had[o] = true
		if b.owning[o]--; b.owning[o] == 0 {
			delete(b.owning, o)
		}
	}
	owners := map[string]bool{} // who has some now and had none, or has none any more
	for i := range holds {
		h := &holds[i]
		if isOwn(h) && b.owning[h.Owner] == 0 && !had[h.Owner] {
			owners[h.Owner] = true
		}
		b.countOwn(h)
	}
	for o := range had {
		if b.owning[o] == 0 {
			owners[o] = true
		}
	}
	b.reenter(owners)
	nudge(b.wakeDispatch)
}

// Outlook tells when a job with so many CPUs could start at the earliest at a share of a site (""
// is its usual one) and run for so long (0 is for ever), by what the jobs there declared and what is
// promised; one of a VO may have what the VO bought. Jobs that have no place yet are not reckoned with, as what
// is promised goes before them. fail.NotFound says that there is no such site or share.
func (b *Broker) Outlook(site, share string, cpus int, length time.Duration, vo string) (schedule.Outlook, error) {
	const op = "broker.Outlook"
	now := time.Now()
	b.mu.Lock()
	if !b.serving {
		b.mu.Unlock()
		return schedule.Outlook{}, errStarting
	}
	b.feedAll(now)
	s := b.sites[site]
	if s == nil || b.roster.Load().at(site) < 0 {
		b.mu.Unlock()
		return schedule.Outlook{}, fail.Errorf(op, fail.NotFound, site, "there is no site %s here that takes jobs", site)
	}
	if why := cmp.Or(s.outageLocked(), s.barredLocked()); why != "" {
		b.mu.Unlock()
		return unclear(site, why), nil
	}
	if share == "" && s.static != nil {
		for i := range s.static.Shares {
			if h := &s.static.Shares[i]; share == "" || h.Default {
				share = h.ID
			}
		}
	}
	// Mostly it could start at once, and to know that it is enough to look as far as its end.
	var look schedule.Look
	known, soon := true, false
	if length > 0 {
		if look, known = b.sched.Look(s.key(), share, now.Add(length), now); known {
			soon = look.Now(cpus, length, vo)
		}
	}
	if known && !soon {
		look, known = b.sched.Look(s.key(), share, time.Time{}, now)
	}
	b.mu.Unlock()
	if !known {
		return schedule.Outlook{}, noShare(op, site, share)
	}
	return look.Outlook(cpus, length, vo), nil
}

// settlePromised keeps what is derived from a promised job; the caller holds the lock.
func (b *Broker) settlePromised(j *job) {
	b.followed(j.rec.ID)
	if j.rec.Status.Final {
		return
	}
	b.promised[j.rec.ID] = j
	if Phase(j.rec.Status.Phase).atSite() {
		b.lookAt(j, time.Time{})
	}
}

// lookAt has it looked at a job's promise at a moment, if that is not done before anyhow; the zero
// time is at once. The caller holds the lock.
func (b *Broker) lookAt(j *job, at time.Time) {
	if at.IsZero() {
		at = time.Unix(0, 0)
		nudge(b.wakeDispatch)
	}
	if !j.look.IsZero() && !at.Before(j.look) {
		return
	}
	j.look = at
	heap.Push(&b.promises, due{at, j.rec.ID})
}

// keepPromises looks at the promises that it is time for, and gives what is done about those in danger
// and how long it is until the next one is to be looked at; 0 when none is. The caller holds the
// lock.
func (b *Broker) keepPromises(now time.Time) (ins []input, wait time.Duration) {
	if b.restless {
		b.restless = false
		for _, j := range b.promised {
			b.lookAt(j, time.Time{})
		}
	}
	for len(b.promises) > 0 {
		d := b.promises[0]
		if wait = d.at.Sub(now); wait > 0 {
			return ins, wait
		}
		heap.Pop(&b.promises)
		j := b.promised[d.id]
		if j == nil || !j.look.Equal(d.at) {
			continue // it was to be looked at sooner, and was
		}
		j.look = time.Time{}
		f, again := b.keepPromise(j, now)
		if f != nil {
			ins = append(ins, input{id: d.id, facts: stillPromised(*f)})
		}
		if !again.IsZero() {
			b.lookAt(j, maxTime(again, now.Add(time.Second)))
		}
	}
	return ins, 0
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// stillPromised gives a fact about a promise, unless it was told already or the job is elsewhere by now.
func stillPromised(f fact) func(*job, store.Status) []fact {
	return func(_ *job, st store.Status) []fact {
		p, phase := st.Promise, Phase(st.Phase)
		if _, ok := transitions[phase][f.event]; !ok || p == nil || st.Cancel {
			return nil
		}
		switch there := f.place.Site; {
		case f.event == Loosened && p.Loose,
			f.event == Pressed && there == "" && (p.Pressed || phase.atSite()),
			there != "" && (p.Noted || !phase.atSite() || st.Placement == nil || st.Placement.Site != there):
			return nil
		}
		return []fact{f}
	}
}

// keepPromise looks at one: it gives what is to be done, nil for nothing, and when to look again.
func (b *Broker) keepPromise(j *job, now time.Time) (*fact, time.Time) {
	st := &j.rec.Status
	switch phase := Phase(st.Phase); {
	case st.Promise == nil || st.Cancel:
	case j.queued == waiting:
		return b.keepWaiting(j, now)
	case phase.atSite():
		return b.keepPlaced(j, now)
	}
	return nil, time.Time{}
}

// keepWaiting is keepPromise of a job that waits for a place.
func (b *Broker) keepWaiting(j *job, now time.Time) (*fact, time.Time) {
	st := &j.rec.Status
	p := st.Promise
	pinned := p.Site != "" && !p.Loose
	from := maxTime(p.NotBefore, j.kind.request.NotBefore)
	if pinned && !from.After(now) {
		if why := b.away(p.Site, st); why != "" && b.another(j) {
			return &fact{event: Loosened, reason: "the site " + p.Site + " of its agreement is away (" + why + "): another is tried so that the promise holds"}, time.Time{}
		}
	}
	length := j.kind.request.Need.WallTime
	latest := schedule.LatestStart(p.StartBy, p.FinishBy, length)
	margin := schedule.Margin(maxTime(from, j.rec.Submitted), latest)
	danger, look := schedule.Endangered(latest, margin, b.expected(p, j, now), now)
	if from.After(now) && (look.IsZero() || from.Before(look)) {
		look = from
	}
	switch {
	case !danger:
		return nil, look
	case !p.Pressed && from.After(now):
		return nil, from // it may not have a place before
	case !p.Pressed:
		why := ""
		if !latest.Equal(p.StartBy) {
			why = ", as it must have started by " + latest.UTC().Format(time.RFC3339)
		}
		return &fact{event: Pressed, reason: fmt.Sprintf("its promise %s is in danger%s: it goes first", timesOf(p), why)}, time.Time{}
	case pinned && latest.Sub(now) > margin/2:
		return nil, latest.Add(-margin / 2)
	case pinned && b.another(j):
		return &fact{event: Loosened, reason: "the site " + p.Site + " of its agreement has no room for it in time: another is tried so that the promise holds"}, time.Time{}
	case pinned && now.Before(latest):
		return nil, now.Add(2 * rescuePause)
	}
	return nil, time.Time{}
}

// expected gives how long a job is expected to wait at the share where its room would be; 0 where
// nobody knows, or room is held there.
func (b *Broker) expected(p *Promise, j *job, now time.Time) time.Duration {
	if p.Site == "" || p.Share == "" || p.Loose || p.Room != "" || len(p.Reservation) > 0 {
		return 0
	}
	key := resourcemodel.Key{Site: p.Site}
	st := b.stands(resourcemodel.Place{Key: key, Share: p.Share}, &j.kind.request.Need)
	if st.Free {
		return 0
	}
	w, _ := b.book.Wait(estimate.Share{Key: key, Share: p.Share}, st, now)
	return w.Most
}

// away says why the site of an agreement can't have a job now; "" if it can. The caller holds the
// lock.
func (b *Broker) away(name string, st *store.Status) string {
	s := b.sites[name]
	switch {
	case slices.Contains(st.Refused, name):
		return "it refused the job"
	case s == nil || !s.configured || b.roster.Load().at(name) < 0:
		return "it takes no jobs here any more"
	}
	return cmp.Or(s.outageLocked(), s.barredLocked())
}

// another reports whether some other site than that of its agreement could have a job now; the
// caller holds the lock.
func (b *Broker) another(j *job) bool {
	st := &j.rec.Status
	_, could := b.against(j.kind, append(slices.Clip(st.Refused), st.Promise.Site))
	return len(could) > len(troubles(could))
}

// keepPlaced is keepPromise of a job that a site has: one that it does not start in time, or that nobody
// can ask about.
func (b *Broker) keepPlaced(j *job, now time.Time) (*fact, time.Time) {
	st := &j.rec.Status
	p, at := st.Promise, st.Placement
	if p.Noted || at == nil || st.Suspend {
		return nil, time.Time{}
	}
	outage := "it is not configured any more"
	if s := b.siteOf(st); s != nil {
		outage = s.outageLocked()
	}
	if !st.Started.IsZero() && outage == "" {
		return nil, time.Time{} // it runs, and all that is left is to wait
	}
	latest := schedule.LatestStart(p.StartBy, p.FinishBy, at.Length)
	if !st.Started.IsZero() {
		latest = schedule.LatestStart(time.Time{}, p.FinishBy, at.Length) // of a second run
	}
	margin := schedule.Margin(maxTime(p.NotBefore, j.rec.Submitted), latest)
	danger, look := schedule.Endangered(latest, margin, 0, now)
	if !danger {
		return nil, look
	}
	if until := maxTime(j.since, j.handed).Add(startGrace); outage == "" && until.After(now) {
		return nil, until
	}
	why := "it has not started it"
	if outage != "" {
		why = outage
	}
	f := &fact{event: Pressed, place: resourcemodel.Place{Key: resourcemodel.Key{Site: at.Site}}}
	f.reason = fmt.Sprintf("its promise %s is in danger at the site %s (%s)", timesOf(p), at.Site, why)
	switch {
	case !at.Rerunnable:
		f.reason += "; it is not run elsewhere, too, as its document does not say that it is Rerunnable"
	case p.Account != "":
		f.reason += "; it is not run elsewhere, too, as it is of another domain's user"
	case !now.Before(latest):
		f.reason += "; no other site had room for a replica of it in time"
	default:
		b.rescues[j.rec.ID] = true
		nudge(b.wakeReplicas)
		return nil, maxTime(now.Add(rescuePause), minTime(latest, now.Add(2*rescuePause)))
	}
	return f, time.Time{}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// rescuePause is how long it is between two looks for room for a replica of a job whose promise is in
// danger.
const rescuePause = 15 * time.Second

// startGrace is how long a site that answers may take to start a job before that is a danger.
const startGrace = 30 * time.Second

// rescue plans replicas of promised jobs that their sites do not start, or lost sight of, on what is
// idle at other sites. A job has one at most by this.
func (b *Broker) rescue(ctx context.Context) {
	b.mu.Lock()
	var recs []store.Job
	for id := range b.rescues {
		if j := b.jobs[id]; j != nil && b.copies[id] == nil {
			recs = append(recs, j.rec)
		}
	}
	clear(b.rescues)
	r, epoch := b.roster.Load(), b.epoch
	b.mu.Unlock()
	for _, rec := range recs {
		key := keyOfRecord(&rec)
		b.mu.Lock()
		k := b.kinds[key]
		b.mu.Unlock()
		if k == nil || k.epoch != epoch {
			var err error
			if k, err = b.readKind(ctx, &rec); err != nil {
				b.cfg.Log.Debug("the document of a promised job can't be read now", "job", rec.ID, "cause", err)
				continue
			}
			k.key = key
			k.examine(r, epoch)
		}
		if !k.unfit {
			b.rescueOne(rec.ID, k, time.Now())
		}
	}
}

func (b *Broker) rescueOne(id string, k *kind, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.jobs[id]
	if j == nil || !b.serving || b.copies[id] != nil || j.rec.Status.Placement == nil || j.rec.Status.Promise == nil || j.rec.Status.Cancel {
		return
	}
	st := &j.rec.Status
	e := schedule.Entry{Job: jobOf("", j.rec.Owner, now, st.Class, k), Queue: k.queue(), Avoid: k.avoid(st.Refused)}
	e.Room = st.Promise.Room
	idle, most := b.sched.Idle(e, now)
	roster := b.roster.Load()
	at := slices.IndexFunc(idle, func(c policy.Candidate) bool {
		return c.Place.Domain == "" && c.Place.Site != st.Placement.Site && roster.at(c.Place.Site) >= 0
	})
	if at < 0 || most == 0 {
		return // it is looked for again
	}
	copied, err := newID()
	if err != nil {
		b.cfg.Log.Error("a replica can't be named", "cause", err)
		return
	}
	place := idle[at].Place
	b.creating[copied] = true
	like := jobOf(copied, j.rec.Owner, now, st.Class, k)
	like.Room = st.Promise.Room
	b.sched.Given(like, place, false)
	b.births = append(b.births, birth{copied, j, k, place, e.CPUs, "as its promise is in danger"})
	b.inbox = append(b.inbox, input{id: id, facts: stillPromised(fact{
		event: Pressed, place: resourcemodel.Place{Key: resourcemodel.Key{Site: st.Placement.Site}},
		reason: fmt.Sprintf("its promise %s is in danger at the site %s: a replica of it is tried at the site %s", timesOf(st.Promise), st.Placement.Site, place.Site),
	})})
	nudge(b.wakeCommit)
}
