package broker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
)

// A job of a peer is a job like others, with three differences: it has a lease, after
// which nobody here runs it; only sites that keep that by themselves, and peers, are
// given it; and its end is the word of the domain that handed it over, which alone may
// cancel it. The functions of this file and of lease.go and watch.go are what the engine
// of this gateway's domain uses of the broker.

// ForeignPrefix begins the SubmissionIDs of jobs of peers, which no user may choose.
const ForeignPrefix = "peer:"

// Foreign is a job that a peer handed over.
type Foreign struct {
	// SubmissionID names the copy: ForeignPrefix, the job's key and token. Taking it in again
	// gives the same job.
	SubmissionID string
	// Since is a moment that is the same whenever this copy is taken in: of the record of its
	// hand-over. The job's id is ordered by it.
	Since time.Time
	// Owner is who owns the job here, and Account the local account as which it runs ("" is
	// that of the owner at each site): what the identity of its user was mapped to, and VO
	// that for which it runs.
	Owner, Account, VO string
	Document           []byte
	Job                *jsdl.JobDefinition // Document, read; nil has it read here
	NotAfter           time.Time           // the end of its lease
	Deadline           time.Time           // by when it must have ended, beside what Document says; zero is none
	From               string              // the domain that handed it over
	Origin, ID         string              // the domain where it was submitted, and its id there
	Path               []string            // domains that hold it: the origin first, From last
	Hops               int                 // that it may make from here
	Trace              string              // W3C trace id, 32 hexadecimal digits; "" is that of ID
	// Agreement is that of ours in whose room it is to run, by the word of From; "" is none. One that
	// is not of From, or not in force, gives the job no room, and it is a job like others.
	Agreement string
}

// TakenIn is what became of taking one job in.
type TakenIn struct {
	ID    string
	State ForeignState // where there was no error
	// Err is fail.Unsupported where neither a site here nor a peer that may have it could
	// ever run it, fail.Invalid for a document that is wrong, fail.NotAccepting where there
	// is no room, fail.Uncertain where it is not known whether it was taken in. All but the
	// last say that it was not.
	Err error
}

// ForeignPhase is how a job of a peer stands.
type ForeignPhase string

// The phases; the last two are final.
const (
	ForeignWaiting   ForeignPhase = "waiting"   // for a place
	ForeignPlaced    ForeignPhase = "placed"    // at a site, which has not begun
	ForeignRunning   ForeignPhase = "running"   // it was started
	ForeignSuspended ForeignPhase = "suspended" // kept from going on
	ForeignEnded     ForeignPhase = "ended"     // there is a result
	ForeignGone      ForeignPhase = "gone"      // it runs nowhere here and never will, and there is no result
)

// ForeignState is how a job of a peer stands, as the store has it.
type ForeignState struct {
	ID, SubmissionID string
	Revision         int64 // of the job's record: grows
	Phase            ForeignPhase
	Site             string // "" while it has no place
	Attempt          int    // the placement
	// Outcome is that of ForeignEnded: bes.Finished, bes.Failed or bes.Cancelled.
	Outcome    bes.State
	ExitStatus *int   // nil where the program did not end by itself
	Signal     string // that ended it; "" if none
	Reason     string
	Started    time.Time     // zero until it runs
	Ended      time.Time     // zero until it is final
	Used       time.Duration // CPU time of all placements here
	NotAfter   time.Time     // the end of its lease
	// Stopping says that its end was asked for.
	Stopping bool
	// Return says that an administrator here wants it given back to the peer, even if it runs.
	Return bool
	// Unfit, with ForeignGone, says that no site here can run it, ever.
	Unfit bool
}

// stateOf tells how a job of a peer stands.
func stateOf(rec *store.Job, told *store.Told) ForeignState {
	st := &rec.Status
	if told == nil {
		told = st.Told
	}
	s := ForeignState{
		ID: rec.ID, SubmissionID: rec.SubmissionID, Revision: rec.Revision, Attempt: st.Attempt, Reason: st.Reason,
		Started: st.Started, NotAfter: st.NotAfter, Stopping: st.Cancel, Return: st.Return, Used: st.Spent + cpuOf(told),
	}
	if st.Placement != nil {
		s.Site = st.Placement.Site
	}
	switch p := Phase(st.Phase); p {
	case Queued, Requeued:
		s.Phase = ForeignWaiting
	case Held, Withheld, Suspended:
		s.Phase = ForeignSuspended
	case Placing, AtSite, SiteHeld:
		if s.Phase = ForeignPlaced; p == SiteHeld && st.Suspend {
			s.Phase = ForeignSuspended
		}
	case Running, Resuming, Outlasted:
		s.Phase = ForeignRunning
	case Cancelling:
		if s.Phase = ForeignRunning; st.Started.IsZero() {
			s.Phase = ForeignPlaced
		}
	case Finished, Failed, Cancelled:
		s.Phase, s.Ended = ForeignEnded, st.Ended
		if st.Gone {
			s.Phase, s.Unfit = ForeignGone, st.Unfit
			return s
		}
		s.Outcome, s.ExitStatus, s.Signal = p.State(), st.ExitStatus, st.Signal
	}
	return s
}

// check says what is wrong with it.
func (f *Foreign) check(limit int) error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("broker.TakeIn", fail.Invalid, f.SubmissionID, format, args...)
	}
	switch {
	case !strings.HasPrefix(f.SubmissionID, ForeignPrefix) || f.Since.IsZero() || f.Owner == "" || f.From == "" || f.Origin == "" || f.ID == "":
		return bad("a job of a peer needs the name and the time of its copy, an owner, and where it comes from")
	case f.NotAfter.IsZero():
		return bad("a job of a peer needs the end of its lease")
	case !f.NotAfter.After(time.Now()): // which says nothing against the job
		return fail.Errorf("broker.TakeIn", fail.Unavailable, f.SubmissionID, "its lease was over at %s", f.NotAfter.UTC().Format(time.RFC3339))
	case len(f.Document) > limit:
		return bad("the job's document has %d bytes; at most %d are taken", len(f.Document), limit)
	case f.Trace != "" && !isTrace(f.Trace):
		return bad("the trace id must be 32 hexadecimal digits, not all 0")
	}
	return nil
}

// ForeignID gives the id of a copy: a UUIDv7 (RFC 9562 §5.7) whose random part is the
// digest of its name, so that it is the same each time, and ordered among ours.
func ForeignID(since time.Time, submission string) string {
	sum := sha256.Sum256([]byte(submission))
	id := uuid.UUID(sum[:16])
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, since.UnixMilli())))
	copy(id[:6], ms[2:])
	id[6], id[8] = 0x70|id[6]&0x0f, 0x80|id[8]&0x3f
	return id.String()
}

// mostIntakes bounds the creations of one TakeIn that are under way at once, and so what
// the store commits together.
const mostIntakes = 256

// TakeIn makes jobs of peers ours, each durable when it is answered; they are answered in
// order. One that was taken in before is given as it is now, whatever else is said of it:
// the caller's record of it is the first word.
func (b *Broker) TakeIn(ctx context.Context, jobs ...Foreign) []TakenIn {
	out := make([]TakenIn, len(jobs))
	ids := make([]string, 0, len(jobs))
	for i := range jobs {
		out[i].ID = ForeignID(jobs[i].Since, jobs[i].SubmissionID)
		ids = append(ids, out[i].ID)
	}
	known, err := b.foreigners(ctx, ids)
	var g errgroup.Group
	g.SetLimit(mostIntakes)
	for i := range jobs {
		if err != nil {
			out[i].Err = err
			continue
		}
		if rec, ok := known[out[i].ID]; ok {
			out[i] = b.already(rec, &jobs[i])
			continue
		}
		g.Go(func() error {
			out[i].State, out[i].Err = b.takeForeign(ctx, out[i].ID, &jobs[i])
			return nil
		})
	}
	_ = g.Wait() // none of them fails
	return out
}

func (b *Broker) already(rec store.Job, f *Foreign) TakenIn {
	if rec.Status.Foreign == nil || rec.SubmissionID != f.SubmissionID {
		return TakenIn{ID: rec.ID, Err: fail.Errorf("broker.TakeIn", fail.Conflict, rec.ID, "another job has the id that the copy %s would get", f.SubmissionID)}
	}
	return TakenIn{ID: rec.ID, State: stateOf(&rec, nil)}
}

// foreigners gives the records of those that are there.
func (b *Broker) foreigners(ctx context.Context, ids []string) (map[string]store.Job, error) {
	select {
	case <-b.ready:
	default:
		return nil, errStarting
	}
	out := make(map[string]store.Job, len(ids))
	var missing []string
	b.mu.Lock()
	for _, id := range ids {
		if j := b.jobs[id]; j != nil {
			rec := j.rec
			rec.Status.Told = j.told
			out[id] = rec
		} else {
			missing = append(missing, id)
		}
	}
	b.mu.Unlock()
	if len(missing) == 0 {
		return out, nil
	}
	recs, err := b.cfg.Store.Get(ctx, missing...)
	maps.Copy(out, recs)
	return out, err
}

// takeForeign takes one job in that is not there.
func (b *Broker) takeForeign(ctx context.Context, id string, f *Foreign) (ForeignState, error) {
	const op = "broker.TakeIn"
	var none ForeignState
	if err := f.check(b.cfg.Limits.Document); err != nil {
		return none, err
	}
	if !b.accepting.Load() {
		return none, fail.Errorf(op, fail.NotAccepting, "", "the gateway takes no new activities at present; its operator has stopped them")
	}
	f, err := b.dated(f)
	if err != nil {
		return none, err
	}
	k, err := b.foreignKind(f)
	if err != nil {
		return none, err
	}
	def := k.def
	if err := b.foreignRefusal(op, k, f.Owner); err != nil {
		return none, err
	}
	cpus := max(1, k.request.Need.CPUs)
	st, line, _, err := step(store.Status{
		VO: k.request.Subject.VO, Gateway: b.cfg.Replica, CPUs: cpus, Foreign: k.foreign, NotAfter: f.NotAfter.UTC().Round(0),
	}, fact{event: Accepted, at: time.Now(), reason: "accepted " + wordsOf(k.foreign) + ", for " + f.Owner})
	if err != nil {
		return none, err
	}
	rec, created, err := b.admit(ctx, op, k, limits.Use{User: f.Owner, VO: st.VO, CPUs: cpus}, store.NewJob{
		ID: id, Owner: f.Owner, Name: def.Name(), SubmissionID: f.SubmissionID,
		Document: f.Document, Submitted: line.Time, Status: st, Event: *line,
	})
	if err != nil {
		return none, err
	}
	if !created {
		taken := b.already(rec, f)
		return taken.State, taken.Err
	}
	return stateOf(&rec, nil), nil
}

// dated gives the job with a document that has the deadline with which it came, where it says
// nothing of one or a later one.
func (b *Broker) dated(f *Foreign) (*Foreign, error) {
	if f.Deadline.IsZero() {
		return f, nil
	}
	g := *f
	if g.Job == nil {
		var problems jsdl.Problems
		g.Job, problems = jsdl.Parse(f.Document, b.cfg.JSDL)
		if err := judge(g.Job, problems); err != nil {
			return nil, err
		}
	}
	var r jsdl.Resources
	if is := g.Job.Description.Resources; is != nil {
		r = *is
	}
	var p jsdl.Placement
	if r.Placement != nil {
		p = *r.Placement
	}
	at := f.Deadline.UTC()
	switch {
	case p.Deadline != nil && !p.Deadline.After(at):
		return &g, nil
	case p.NotBefore != nil && !p.NotBefore.Before(at):
		return nil, fail.Errorf("broker.TakeIn", fail.Invalid, f.SubmissionID, "the job must not start before %s, and came with the deadline %s; one of them must be changed",
			p.NotBefore.UTC().Format(time.RFC3339), at.Format(time.RFC3339))
	}
	p.Deadline, r.Placement = &at, &p
	d := *g.Job
	d.Description.Resources = &r
	g.Job, g.Document = &d, d.Marshal()
	return &g, nil
}

// ForeignStates gives how jobs of peers stand, live or ended; those that are not there are
// left out.
func (b *Broker) ForeignStates(ctx context.Context, ids ...string) (map[string]ForeignState, error) {
	recs, err := b.foreigners(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make(map[string]ForeignState, len(recs))
	for id, rec := range recs {
		if rec.Status.Foreign != nil {
			out[id] = stateOf(&rec, nil)
		}
	}
	return out, nil
}

// ForeignReason is what a job of a peer waits for.
type ForeignReason struct {
	Sentence string
	// Nowhere says that no site which could run it takes jobs now, and no peer that could.
	Nowhere bool
}

// ForeignReasons says what jobs of peers wait for that have no place yet, of the first 64 that
// wait with the scheduler.
func (b *Broker) ForeignReasons(ids ...string) map[string]ForeignReason {
	out := map[string]ForeignReason{}
	b.mu.Lock()
	defer b.mu.Unlock()
	for left, i := mostReasons, 0; i < len(ids) && left > 0; i++ {
		if j := b.jobs[ids[i]]; j != nil && j.rec.Status.Foreign != nil && j.queued == waiting {
			_, could := b.against(j.kind, j.rec.Status.Refused)
			out[ids[i]] = ForeignReason{b.shown(j, &left).Status.Reason, len(troubles(could)) == len(could)}
		}
	}
	return out
}

// StopForeign ends jobs of peers, as their domain wishes, or as the lease of their copy is
// over. It is idempotent: nil says that it will end, or has. fail.NotFound says that there
// is no such job.
func (b *Broker) StopForeign(ctx context.Context, reason string, ids ...string) []error {
	return b.wish(ctx, "broker.StopForeign", ids, func(st *store.Status) *fact {
		if Phase(st.Phase) == Cancelling {
			return nil
		}
		return &fact{event: Cancel, reason: reason + b.unheard(st)}
	})
}

// HoldForeign keeps jobs of peers from running for now, or lets them go on. A job that has
// ended, and one that is to end, is no error.
func (b *Broker) HoldForeign(ctx context.Context, held bool, ids ...string) []error {
	return b.wish(ctx, "broker.HoldForeign", ids, func(st *store.Status) *fact {
		f := &fact{event: Resume, reason: "its domain asked for it to go on"}
		if held {
			f = &fact{event: Suspend, reason: "its domain asked for suspension"}
		}
		if _, ok := transitions[Phase(st.Phase)][f.event]; !ok || st.Suspend == held {
			return nil
		}
		f.reason += b.unheard(st)
		return f
	})
}

// wish puts a fact to jobs of peers, all in one write; of gives nil where there is nothing
// to change.
func (b *Broker) wish(ctx context.Context, op string, ids []string, of func(*store.Status) *fact) []error {
	return b.wishEach(ctx, op, ids, func(_ string, st *store.Status) *fact { return of(st) })
}

// wishEach is wish where it matters which job it is.
func (b *Broker) wishEach(ctx context.Context, op string, ids []string, of func(string, *store.Status) *fact) []error {
	errs := make([]error, len(ids))
	recs, err := b.foreigners(ctx, ids)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	replies := make([]chan error, len(ids))
	var ins []input
	for i, id := range ids {
		rec, ok := recs[id]
		if !ok || rec.Status.Foreign == nil {
			errs[i] = fail.Errorf(op, fail.NotFound, id, "there is no job %s of a peer here", id)
			continue
		}
		if rec.Status.Final {
			continue
		}
		replies[i] = make(chan error, 1)
		ins = append(ins, input{id: id, reply: replies[i], facts: func(_ *job, st store.Status) []fact {
			if f := of(id, &st); f != nil {
				return []fact{*f}
			}
			return nil
		}})
	}
	b.post(ins...)
	for i, reply := range replies {
		if reply == nil {
			continue
		}
		select {
		case err := <-reply:
			if err != nil && err != errEnded { //nolint:errorlint // it is that very one
				if errs[i] = err; err == errUnknown { //nolint:errorlint // as above
					errs[i] = fail.Errorf(op, fail.Unavailable, ids[i], "the job is not known here yet; ask again")
				}
			}
		case <-ctx.Done():
			errs[i] = fail.E(op, fail.Unavailable, ids[i], context.Cause(ctx))
		}
	}
	return errs
}

// ForeignOutput reads a piece of a stream of a job of a peer, as GetActivityOutput does.
func (b *Broker) ForeignOutput(ctx context.Context, id string, stream bes.Stream, offset int64, max int) (*bes.OutputChunk, error) {
	const op = "broker.ForeignOutput"
	if err := checkOutput(op, stream, offset); err != nil {
		return nil, err
	}
	recs, err := b.foreigners(ctx, []string{id})
	if err != nil {
		return nil, err
	}
	rec, ok := recs[id]
	if !ok || rec.Status.Foreign == nil {
		return nil, fail.Errorf(op, fail.NotFound, id, "there is no job %s of a peer here", id)
	}
	return b.output(ctx, &rec, stream, offset, max)
}

// ofForeign gives what a request of a person here becomes for a job of a peer: whoever
// oversees may have it given back, and nobody decides more than that.
func (b *Broker) ofForeign(ctx context.Context, r request, rec *store.Job) (request, error) {
	f := rec.Status.Foreign
	who, err := b.caller(ctx, r.op, Submit)
	if err != nil {
		return r, err
	}
	switch {
	case r.event == Cancel && b.oversees(who):
		return request{
			op: r.op, event: GiveBack, done: r.done,
			reason: who.Name + " wants it given back to the domain " + f.From,
		}, nil
	case r.event == Abandon:
		b.mu.Lock()
		until := rec.Status.NotAfter
		if j := b.jobs[rec.ID]; j != nil && j.leased.After(until) {
			until = j.leased
		}
		b.mu.Unlock()
		if !time.Now().Before(until) {
			return r, nil
		}
		return r, fail.Errorf(r.op, fail.Conflict, rec.ID, "the activity came %s and may run until its lease ends at %s; abandon it then", wordsOf(f), until.UTC().Format(time.RFC3339))
	}
	return r, fail.Errorf(r.op, fail.Denied, rec.ID, "the activity came %s, whose user alone decides about it: ask there", wordsOf(f))
}

// barsForeign says why a site may not have a job that came from a peer; "" if it may, and for
// jobs of our own.
func (s *site) barsForeign(f *store.Foreign) string {
	if f == nil {
		return ""
	}
	c := s.conn.Load()
	switch {
	case c == nil:
		return ""
	case c.leaser == nil:
		return "it can't end a job by itself when the lease that a peer gave it is over"
	case c.props.Domain == "":
	case f.Hops <= 0:
		return "the job may not be handed on to a further domain"
	case slices.Contains(f.Path, c.props.Domain):
		return "the job came through the domain " + c.props.Domain
	}
	return ""
}

// recallable reports whether what a site loses may be run elsewhere; the caller holds the
// lock.
func (b *Broker) recallable(name string) bool {
	if s := b.sites[name]; s != nil {
		if c := s.conn.Load(); c != nil {
			return c.props.Recallable
		}
	}
	return false
}

// wayKey tells jobs of peers apart that may not use the same places.
func wayKey(f *store.Foreign, vo string) string {
	if f == nil {
		return ""
	}
	hops := "0"
	if f.Hops > 0 { // how many more makes no difference to us
		hops = "1"
	}
	return strings.Join(append([]string{hops, strconv.Quote(vo), strconv.Quote(f.Account)}, f.Path...), "/")
}

// TraceID gives the W3C trace id of a job, the same at each gateway that has it. It follows
// from the id that the job has where it was submitted.
func TraceID(rec *store.Job) string {
	if f := rec.Status.Foreign; f != nil {
		if f.Trace != "" {
			return f.Trace
		}
		return traceOf(f.ID)
	}
	return traceOf(rec.ID)
}

// traceOf gives the trace id of a job's id: a UUID's bytes, or of anything else the digest's.
func traceOf(id string) string {
	if u, err := uuid.Parse(id); err == nil && u != uuid.Nil {
		return hex.EncodeToString(u[:])
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

func isTrace(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16 && strings.ToLower(s) == s && strings.Trim(s, "0") != ""
}

// showForeign tells whose job it is among what is told of an activity.
func showForeign(rec *store.Job, d *bes.Details) {
	f := rec.Status.Foreign
	if f == nil {
		return
	}
	all := map[string]string{}
	maps.Copy(all, d.Attributes)
	all["peer.from"], all["peer.job"], all["peer.path"] = f.From, f.Origin+"/"+f.ID, strings.Join(f.Path, " > ")
	all["trace"] = TraceID(rec)
	if f.Agreement != "" {
		all["peer.agreement"] = f.Agreement
	}
	if !rec.Status.NotAfter.IsZero() {
		all["peer.lease"] = rec.Status.NotAfter.UTC().Format(time.RFC3339)
	}
	d.Attributes = all
}

// wordsOf says where a job of a peer came from.
func wordsOf(f *store.Foreign) string {
	words := "from " + f.From + ", job " + f.ID
	if f.Origin != f.From {
		words += " of " + f.Origin
	}
	if f.Agreement != "" {
		words += ", by the agreement " + f.Agreement
	}
	return words
}

// leaseReason says that a lease is over.
func leaseReason(f *store.Foreign, at time.Time) string {
	return fmt.Sprintf("its lease, until %s, is over: the domain %s did not extend it", at.UTC().Format(time.RFC3339), f.From)
}
