package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Fence is the word of somebody who can know it that nothing runs any more of what a
// site was given, and never will: its machines are off, or gone. It is the evidence
// that silence is not, and lets the jobs of a site that will not be back run elsewhere.
type Fence struct {
	At time.Time `json:"at"`
	// Died is when the site ended; zero: when it answered last, which is Word if it did
	// since the gateway began.
	Died   time.Time `json:"died,omitzero"`
	Word   time.Time `json:"word,omitzero"`
	Who    string    `json:"who"`
	Reason string    `json:"reason,omitempty"`

	settled bool // every placement there is given up
}

// FenceReport says what became of the jobs that a fenced site had.
type FenceReport struct {
	Jobs  int `json:"jobs"`  // that it had
	Again int `json:"again"` // of these, that wait for another place
	Ended int `json:"ended"` // that are final, or whose end was asked for before
	// Replicas are those that it had, of jobs that are elsewhere. They are no jobs of anybody's,
	// and end.
	Replicas int `json:"replicas"`
}

// Fencing is how a gateway makes sure by itself that a site runs nothing any more.
type Fencing struct {
	// After is how long the site must not have answered; 0 is never.
	After time.Duration
	// Do makes it sure, by cutting its power, say. It gives when the site died, if that is
	// known to be before Do returned. An error says that it is not sure; it is done again.
	Do func(ctx context.Context, site string, answered time.Time) (died time.Time, err error)
}

// The records of fences: the fence of a site, and the placements that were given up.
const fencePrefix = "fence/"

func fenceKey(site string) string     { return fencePrefix + store.Segment(site) + "/site" }
func fencedPrefix(site string) string { return fencePrefix + store.Segment(site) + "/job/" }

// FenceSite gives up everything that a site has which does not answer. Jobs that had
// not begun wait for another place, before others; those that ran do so if their
// document allows that they are run again (Rerunnable), and are Failed otherwise, as
// how far they came is not known. When the site answers again, what it still has of
// them is ended before it is given jobs. died is when the site ended, zero if that was
// when it answered last. It needs Manage; fail.Conflict says that the site answers,
// fail.NotFound that there is none of the name.
func (b *Broker) FenceSite(ctx context.Context, name, reason string, died time.Time) (*FenceReport, error) {
	const op = "broker.FenceSite"
	who, err := b.caller(ctx, op, Manage)
	if err != nil {
		return nil, err
	}
	switch now := time.Now(); {
	case len(reason) > maxFenceReason:
		return nil, fail.Errorf(op, fail.Invalid, name, "the reason has %d bytes; at most %d are kept", len(reason), maxFenceReason)
	case died.After(now):
		return nil, fail.Errorf(op, fail.Invalid, name, "the site can't have died at %s, as that is yet to come", died.UTC().Format(time.RFC3339))
	}
	return b.fence(ctx, name, Fence{Died: died, Who: who.Name, Reason: clean(reason)})
}

const maxFenceReason = 512

func (b *Broker) fence(ctx context.Context, name string, f Fence) (*FenceReport, error) {
	const op = "broker.FenceSite"
	b.mu.Lock()
	s, known := b.sites[name], b.fences[name]
	switch {
	case !b.serving:
		b.mu.Unlock()
		return nil, errStarting
	case s == nil:
		b.mu.Unlock()
		return nil, fail.Errorf(op, fail.NotFound, name, "there is no site %s", name)
	case known == nil && s.conn.Load() != nil && s.outageLocked() == "":
		b.mu.Unlock()
		return nil, fail.Errorf(op, fail.Conflict, name, "the site %s answers, so that its jobs can be asked after: end them there, or take the site out of the configuration to drain it", name)
	}
	b.mu.Unlock()
	if known == nil {
		f.At = time.Now().UTC().Round(0)
		f.Word = s.lastWord()
		value, err := json.Marshal(f)
		if err != nil {
			return nil, fail.E(op, fail.Internal, name, err)
		}
		// Kept before anything is given up, so that a start in the middle goes on with it.
		if _, err := b.cfg.Store.PutRecords(ctx, nil, store.RecordChange{Key: fenceKey(name), Value: value, If: -1}); err != nil {
			return nil, err
		}
		b.mu.Lock()
		if b.fences[name] == nil {
			b.fences[name] = &f
		}
		s.stale, s.news = true, true
		b.mu.Unlock()
		b.cfg.Log.Warn("a site is fenced: what it had is given up", "site", name, "who", f.Who, "reason", f.Reason, "died", f.Died)
		nudge(s.wakeSubmit) // what was not handed over yet
		nudge(b.wakeDispatch)
		nudge(b.wakeFeed)
	}
	report, err := b.disown(ctx, name)
	if err != nil {
		nudge(b.wakeDisown)
	}
	return report, err
}

// ForgetFence forgets a fenced site that is not configured any more, with what would have
// been ended there should it answer again: it is for one that was replaced, or whose name is
// to be another's. It needs Manage; fail.NotFound says that no site of the name is fenced,
// fail.Conflict that it is configured, or that what it had is not given up yet.
func (b *Broker) ForgetFence(ctx context.Context, name string) error {
	const op = "broker.ForgetFence"
	who, err := b.caller(ctx, op, Manage)
	if err != nil {
		return err
	}
	select {
	case b.ops <- struct{}{}: // it must not be configured meanwhile
		defer func() { <-b.ops }()
	case <-ctx.Done():
		return fail.E(op, fail.Unavailable, name, context.Cause(ctx))
	}
	b.mu.Lock()
	s, f := b.sites[name], b.fences[name]
	switch {
	case !b.serving:
		err = errStarting
	case f == nil:
		err = fail.Errorf(op, fail.NotFound, name, "no site %s is fenced", name)
	case s != nil && s.configured:
		err = fail.Errorf(op, fail.Conflict, name, "the site %s is configured, so that it is rid of what it had as soon as it answers, and is given jobs again: take it out of the configuration if it will not be back", name)
	case s != nil && s.inFlight > 0:
		err = fail.Errorf(op, fail.Conflict, name, "%d jobs that the site %s had are not given up yet: try again in a moment", s.inFlight, name)
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		recs, _, err := b.cfg.Store.ListRecords(ctx, fencedPrefix(name), store.RecordOptions{Limit: store.MaxTransaction})
		if err != nil {
			return err
		}
		if len(recs) == 0 {
			break
		}
		changes := make([]store.RecordChange, len(recs))
		for i, r := range recs {
			changes[i] = store.RecordChange{Key: r.Key, If: -1}
		}
		if _, err := b.cfg.Store.PutRecords(ctx, nil, changes...); err != nil {
			return err
		}
	}
	// The fence goes last, so that what is cut off in the middle can be done again.
	if _, err := b.cfg.Store.PutRecords(ctx, nil, store.RecordChange{Key: fenceKey(name), If: -1}); err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.fences, name)
	b.mu.Unlock()
	b.cfg.Log.Warn("a fenced site is forgotten", "site", name, "who", who.Name, "fence", f.sentence())
	return nil
}

// disown gives up the placements of a fenced site. It may be done again.
func (b *Broker) disown(ctx context.Context, name string) (*FenceReport, error) {
	report := &FenceReport{}
	var ids []string
	var ins []input
	var changes []store.RecordChange
	b.mu.Lock()
	s, f := b.sites[name], b.fences[name]
	if f == nil || s == nil {
		b.mu.Unlock()
		return report, nil
	}
	for id, j := range b.jobs {
		if !s.has(j) {
			continue
		}
		p := j.rec.Status.Placement
		changes = append(changes, store.RecordChange{Key: fencedPrefix(name) + store.Segment(p.Tag), Value: []byte(f.At.Format(time.RFC3339)), If: -1})
		if j.replica() {
			report.Replicas++
		} else {
			ids = append(ids, id)
		}
		ins = append(ins, input{
			id: id, tag: p.Tag, reply: make(chan error, 1),
			facts: func(_ *job, st store.Status) []fact { return s.givenUp(f, &st) },
		})
	}
	b.mu.Unlock()
	// First where to look once the site is back: what is given up may come to life there.
	for chunk := range slices.Chunk(changes, store.MaxTransaction) {
		if _, err := b.cfg.Store.PutRecords(ctx, nil, chunk...); err != nil {
			return nil, err
		}
	}
	b.post(ins...)
	report.Jobs = len(ids)
	for i := range ins {
		select {
		case err := <-ins[i].reply:
			if err != nil && err != errEnded && err != errUnknown { //nolint:errorlint // these are answered as they are
				return nil, err
			}
		case <-ctx.Done():
			return nil, fail.E("broker.FenceSite", fail.Unavailable, name, context.Cause(ctx))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if j := b.jobs[id]; j != nil && !j.rec.Status.Final {
			report.Again++
		} else {
			report.Ended++
		}
	}
	f.settled = true
	nudge(s.wakePurge)
	nudge(b.wakeDispatch)
	return report, nil
}

// givenUp says what it means for a job that the site which has it is fenced; the caller
// holds the lock.
func (s *site) givenUp(f *Fence, st *store.Status) []fact {
	why := "the site " + s.name + " is out for good, as " + f.Who + " says"
	if f.Reason != "" {
		why += " (" + f.Reason + ")"
	}
	p := st.Placement
	// What it did not tell in time it may have begun.
	unsure := !f.Died.IsZero() && f.Died.Sub(f.Word) > staleTime
	switch {
	case st.Cancel:
		return []fact{{event: Ended, reason: why + "; its end was asked for before"}}
	case st.Started.IsZero() && !unsure && Phase(st.Phase) == Placing && p.Handle == nil:
		return []fact{{event: Absent, reason: why + ", and did not tell that it had received it" + again(st)}}
	case st.Started.IsZero() && !unsure:
		return []fact{{event: Unrun, reason: why + ", and had not begun it" + again(st)}}
	case p.Rerunnable:
		return []fact{{event: Rerun, reason: why + ", and may have begun it" + anew(st)}}
	case st.Started.IsZero():
		return []fact{{event: Vanished, reason: why + ", and may have begun it, as it did not tell after " +
			cmp.Or(clockOf(f.Word), "this gateway began") + ": it is not run a second time, as its document does not allow that (Rerunnable)"}}
	}
	return []fact{{event: Vanished, reason: why + ": how far the job came there is not known, and it is not run a second time, as its document does not allow that (Rerunnable)"}}
}

func clockOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// lastWord is when the site answered or told something, zero if it did not since the
// gateway began.
func (s *site) lastWord() time.Time {
	if c := s.conn.Load(); c != nil { // the adapter may answer from memory
		if h := s.condition.Load(); h != nil && !h.Contact.IsZero() {
			return h.Contact.UTC()
		}
	}
	if n := s.answered.Load(); n != 0 {
		return time.Unix(0, n).UTC()
	}
	return time.Time{}
}

// fencedLocked says why a site is given no jobs though it may answer; "" if it is not
// fenced. The caller holds the lock.
func (s *site) fencedLocked() string {
	f := s.b.fences[s.name]
	if f == nil {
		return ""
	}
	why := f.sentence()
	if s.conn.Load() != nil && s.outageLocked() == "" {
		return why + ": what it was given before must be gone before it is given jobs"
	}
	return why
}

func (f *Fence) sentence() string {
	why := "fenced by " + f.Who + " at " + f.At.Format(time.RFC3339)
	if f.Reason != "" {
		why += " (" + f.Reason + ")"
	}
	return why
}

// readFences reads which sites are fenced.
func (b *Broker) readFences(ctx context.Context) (map[string]*Fence, error) {
	recs, _, err := b.cfg.Store.ListRecords(ctx, fencePrefix, store.RecordOptions{})
	if err != nil {
		return nil, err
	}
	out := map[string]*Fence{}
	for _, r := range recs {
		segment, ok := fencedSite(r.Key)
		if !ok {
			continue
		}
		f := new(Fence)
		if err := json.Unmarshal(r.Value, f); err != nil {
			return nil, fail.Errorf("broker.recover", fail.Internal, r.Key, "the record of a fence can't be read").Because(err)
		}
		out[segment] = f
	}
	return out, nil
}

// fencedSite gives the site whose fence has a key.
func fencedSite(key string) (string, bool) {
	segment, ok := strings.CutSuffix(strings.TrimPrefix(key, fencePrefix), "/site")
	if !ok {
		return "", false
	}
	return store.Text(segment)
}

// disownLoop gives up what fenced sites have that could not be given up at once: the
// store was away, who asked has left, or the gateway was started in the middle.
func (b *Broker) disownLoop(ctx context.Context) error {
	for failures := 0; ; {
		name := b.unsettled()
		var again <-chan time.Time
		if name != "" && ctx.Err() == nil {
			_, err := b.disown(ctx, name)
			if err == nil {
				failures = 0
				continue
			}
			failures++
			b.cfg.Log.Warn("what a fenced site has can't be given up at present; it is tried again", "site", name, "cause", err)
			again = time.After(b.cfg.Retry.backoff(failures, b.cfg.Jitter()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-b.wakeDisown:
		}
	}
}

// unsettled gives a fenced site that has placements which are not given up; "" if none.
func (b *Broker) unsettled() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, f := range b.fences {
		if b.sites[name] == nil {
			f.settled = true // nothing is there
		}
		if !f.settled {
			return name
		}
	}
	return ""
}

// fenceLoop makes sure that a site which has not answered for long runs nothing.
func (s *site) fenceLoop(ctx context.Context) {
	b := s.b
	silentSince := time.Now() // of a site that never answered
	for failures := 0; ; {
		b.mu.Lock()
		f := s.fencing
		out := s.outageLocked() != "" && b.fences[s.name] == nil && b.serving
		b.mu.Unlock()
		var timer <-chan time.Time
		if f.After > 0 && f.Do != nil {
			last := silentSince
			if w := s.lastWord(); w.After(last) {
				last = w
			}
			left := time.Until(last.Add(f.After))
			switch {
			case left > 0:
				timer = time.After(left)
			case !out:
				timer = time.After(max(time.Second, f.After/4))
			default:
				err := s.fenceNow(ctx, f)
				if ctx.Err() != nil {
					return
				}
				if err == nil {
					failures = 0
					continue
				}
				failures++
				b.cfg.Log.Error("it could not be made sure that a site runs nothing any more; it is tried again", "site", s.name, "cause", err)
				b.mu.Lock()
				s.unfenced = fail.Sentence(err)
				b.mu.Unlock()
				timer = time.After(b.cfg.Retry.backoff(failures, b.cfg.Jitter()))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-timer:
		case <-s.wakeFence:
		}
	}
}

func (s *site) fenceNow(ctx context.Context, f Fencing) error {
	last := s.lastWord()
	died, err := f.Do(ctx, s.name, last)
	if err != nil {
		return err
	}
	if now := time.Now(); died.IsZero() || died.After(now) {
		died = now // it may have gone on until it was stopped
	}
	s.b.mu.Lock()
	s.unfenced = ""
	s.b.mu.Unlock()
	_, err = s.b.fence(ctx, s.name, Fence{Died: died.UTC().Round(0), Who: "the gateway", Reason: fmt.Sprintf("it did not answer for %v, and its fencing command made sure", f.After)})
	return err
}

// purgeLoop ends at a fenced site that answers again what it was given before, and
// then lets it have jobs.
func (s *site) purgeLoop(ctx context.Context, c *conn) {
	for failures := 0; ; {
		s.b.mu.Lock()
		f := s.b.fences[s.name]
		// A submission under way may still arrive, and must not after Find has said that it did not.
		ready := f != nil && f.settled && s.outageLocked() == "" && !s.submitting
		s.b.mu.Unlock()
		if ready {
			left, err := s.purge(ctx, c, f)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.b.cfg.Log.Warn("what a fenced site was given before can't be ended yet; it is tried again", "site", s.name, "cause", err)
			}
			if err == nil && left == 0 {
				failures = 0
				continue
			}
			failures++
			if !sleep(ctx, s.b.cfg.Retry.backoff(min(failures, 5), s.b.cfg.Jitter())) {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wakePurge:
		}
	}
}

// purge makes one round and gives how many placements may still be there. When none is,
// the fence is taken down.
func (s *site) purge(ctx context.Context, c *conn, f *Fence) (left int, err error) {
	b := s.b
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	recs, _, err := b.cfg.Store.ListRecords(ctx, fencedPrefix(s.name), store.RecordOptions{})
	if err != nil {
		return 0, err
	}
	var end [2][]adapters.Handle
	for chunk := range slices.Chunk(recs, max(1, c.batch(min(len(recs), store.MaxTransaction), store.MaxTransaction))) {
		gone, live, err := s.purgeSome(ctx, c, f, chunk)
		if err != nil {
			return left, err
		}
		left += len(chunk) - len(gone)
		for i := range end {
			end[i] = append(end[i], live[i]...)
		}
		if len(gone) == 0 {
			continue
		}
		if _, err := b.cfg.Store.PutRecords(ctx, nil, gone...); err != nil {
			return left, err
		}
	}
	// Those that wait first, or they would begin when those that run make room.
	for _, handles := range end {
		for len(handles) > 0 {
			n := c.batch(len(handles), mostAlike)
			for _, err := range c.Cancel(ctx, handles[:n]) {
				if err != nil && !fail.Is(err, fail.NotFound) && !fail.Is(err, fail.Conflict) {
					return left, err
				}
			}
			handles = handles[n:]
		}
	}
	if left > 0 {
		return left, nil
	}
	if _, err := b.cfg.Store.PutRecords(ctx, nil, store.RecordChange{Key: fenceKey(s.name), If: -1}); err != nil {
		return 0, err
	}
	b.mu.Lock()
	delete(b.fences, s.name)
	s.stale, s.news = true, true
	b.mu.Unlock()
	b.cfg.Log.Info("a site that was fenced is back, has nothing of before, and is given jobs again", "site", s.name, "placements", len(recs))
	nudge(s.wakeAudit) // it has room again
	nudge(b.wakeDispatch)
	nudge(b.wakeFeed)
	return 0, nil
}

// purgeSome gives the records that are done with, and what is to be ended: what waits,
// and what runs.
func (s *site) purgeSome(ctx context.Context, c *conn, f *Fence, recs []store.Record) (done []store.RecordChange, live [2][]adapters.Handle, err error) {
	keys := make(map[adapters.Tag]string, len(recs))
	tags := make([]string, 0, len(recs))
	for _, r := range recs {
		tag, _ := store.Text(r.Key[len(fencedPrefix(s.name)):])
		keys[adapters.Tag(tag)] = r.Key
		tags = append(tags, tag)
	}
	holders, err := s.b.holders(ctx, tags)
	if err != nil {
		return nil, live, err
	}
	// mine reports whether the placement is the one that counts: the last of a job. Then its
	// output is still wanted.
	mine := func(tag adapters.Tag) (is, live bool) {
		j := holders[string(tag)]
		return j != nil, j != nil && !j.Status.Final
	}
	found, err := c.Find(ctx, slices.Sorted(maps.Keys(keys)))
	if err != nil {
		return nil, live, err
	}
	var there []adapters.Tag
	var handles []adapters.Handle
	for tag, key := range keys {
		h, ok := found[tag]
		if _, live := mine(tag); ok && !live {
			there, handles = append(there, tag), append(handles, h)
			continue
		}
		done = append(done, store.RecordChange{Key: key, If: -1})
	}
	if len(handles) == 0 {
		return done, live, nil
	}
	es, err := c.Status(ctx, handles)
	if err != nil {
		return nil, live, err
	}
	if len(es) != len(handles) {
		return nil, live, fail.Errorf("broker.purge", fail.Unavailable, s.name, "the site answers for %d of %d jobs", len(es), len(handles))
	}
	for i := range es {
		e := &es[i]
		if !e.Phase.Final() {
			runs := 0
			if e.Phase == adapters.Running || e.Phase == adapters.Suspended {
				runs = 1
			}
			live[runs] = append(live[runs], handles[i])
			continue
		}
		if e.Ended.After(f.At) && !e.NotRun && !e.Started.IsZero() {
			s.b.cfg.Log.Error("a job ran at a site though somebody vouched that nothing ran there any more: it may have run twice", "site", s.name, "tag", there[i], "ended", e.Ended, "who", f.Who)
		}
		if is, _ := mine(there[i]); !is {
			if err := c.Forget(ctx, handles[i]); err != nil && !fail.Is(err, fail.NotFound) {
				s.b.cfg.Log.Debug("a site keeps what it need not", "site", s.name, "cause", err)
			}
		}
		done = append(done, store.RecordChange{Key: keys[there[i]], If: -1})
	}
	return done, live, nil
}

// jobOfTag gives the job that a placement's tag is of.
func jobOfTag(tag string) string {
	return tag[:max(0, strings.LastIndexByte(tag, '-'))]
}

// holders gives the jobs and replicas that have placements, by tag, as the store has them:
// those of which the tags are, or with which these have exchanged them.
func (b *Broker) holders(ctx context.Context, tags []string) (map[string]*store.Job, error) {
	held := make(map[string]*store.Job, len(tags))
	look := func(ids []string) ([]string, error) {
		recs, err := b.cfg.Store.Get(ctx, slices.Compact(slices.Sorted(slices.Values(ids)))...)
		var more []string // the jobs of the replicas among them
		for _, rec := range recs {
			if p := rec.Status.Placement; p != nil {
				held[p.Tag] = &rec
			}
			if rec.Status.Of != "" {
				more = append(more, rec.Status.Of)
			}
		}
		return more, err
	}
	ids := make([]string, 0, len(tags))
	b.mu.Lock()
	for _, tag := range tags {
		if ids = append(ids, jobOfTag(tag)); b.moved[tag] != "" {
			ids = append(ids, b.moved[tag])
		}
	}
	b.mu.Unlock()
	more, err := look(ids)
	if err == nil && len(more) > 0 {
		_, err = look(more)
	}
	return held, err
}
