package peering

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers/handover"
)

// submission waits for what becomes of one job that was given to a peer.
type submission struct {
	token  handover.Token
	placed adapters.Placed
	over   bool
	left   *waitGroup
}

// waitGroup is done when all submissions of a call are.
type waitGroup struct {
	n    int // under Engine.mu
	done chan struct{}
}

// settle gives a submission its outcome, once; Engine.mu is held.
func (w *submission) settle(_ *entry, p adapters.Placed) {
	if w.over {
		return
	}
	w.placed, w.over = p, true
	if w.left.n--; w.left.n == 0 {
		close(w.left.done)
	}
}

// parcel is a job as it is to be routed.
type parcel struct {
	id       string // of the broker's job
	attempt  uint32 // of the broker's placements; 0 is not told
	owner    string
	vo       string
	deadline time.Time // the job is of no use after it; zero is none
	bought   string    // the peer's agreement in whose room it is to run
	document string
	packed   []byte
	err      error
}

// pack makes of a placement what is routed.
func pack(job adapters.Job) parcel {
	p := parcel{owner: job.Owner, bought: job.Agreement}
	tag := string(job.Tag)
	if p.err = job.Tag.Validate(); p.err != nil {
		return p
	}
	p.id = tag
	if i := strings.LastIndexByte(tag, '-'); i > 0 {
		if n, err := strconv.ParseUint(tag[i+1:], 10, 32); err == nil && n > 0 {
			p.id, p.attempt = tag[:i], uint32(n)
		}
	}
	if job.Definition == nil {
		p.err = fail.Errorf("peering.Submit", fail.Invalid, tag, "there is no job definition")
		return p
	}
	p.vo, p.deadline = voOf(job.Definition), deadlineOf(job.Definition)
	p.document = string(job.Definition.Marshal())
	f := freight{Document: p.document}
	p.packed, p.err = f.encode()
	return p
}

func voOf(d *jsdl.JobDefinition) string {
	if r := d.Description.Resources; r != nil && r.Placement != nil && r.Placement.VO != nil {
		return *r.Placement.VO
	}
	return ""
}

// deadlineOf gives the deadline that the document asks for, as routes have it; zero is none.
func deadlineOf(d *jsdl.JobDefinition) time.Time {
	r := d.Description.Resources
	if r == nil || r.Placement == nil || r.Placement.Deadline == nil {
		return time.Time{}
	}
	t := r.Placement.Deadline.UTC()
	if t.Year() < 1970 || t.Year() > 9999 { // a route can't say it, and the document does
		return time.Time{}
	}
	return t
}

// submit gives jobs to a peer and waits, for a while, for its answers. Whoever calls again
// with the same tags hears the same.
func (e *Engine) submit(ctx context.Context, to string, jobs []adapters.Job) []adapters.Placed {
	out := make([]adapters.Placed, len(jobs))
	parcels := make([]parcel, len(jobs))
	for i, j := range jobs {
		if parcels[i].err = j.WithoutReservations("peering.Submit"); parcels[i].err == nil {
			parcels[i] = pack(j)
		}
	}
	left := &waitGroup{n: 1, done: make(chan struct{})}
	waits := make([]*submission, len(jobs))
	e.mu.Lock()
	for i, j := range jobs {
		p := &parcels[i]
		if p.err != nil {
			out[i].Err = p.err
			continue
		}
		waits[i], out[i].Err = e.hand(to, string(j.Tag), p, left)
	}
	if left.n--; left.n == 0 {
		close(left.done)
	}
	e.mu.Unlock()
	patience := time.NewTimer(e.o.Patience)
	defer patience.Stop()
	select {
	case <-left.done:
	case <-patience.C:
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, w := range waits {
		if w == nil {
			continue
		}
		if !w.over {
			x := e.entryFor(parcels[i].id)
			if x == nil || x.dirty == handover.SaveFirst || x.flying || x.Token != w.token {
				w.settle(x, adapters.Placed{Err: fail.Errorf("peering.Submit", fail.Uncertain, string(jobs[i].Tag), "the record of the hand-over is not written yet")})
			} else {
				w.settle(x, adapters.Placed{Handle: x.handle().encode()}) // what the peer says comes as evidence
			}
		}
		out[i] = w.placed
	}
	return out
}

// entryFor gives the entry of a job of the broker, nil if there is none; the caller holds the
// lock.
func (e *Engine) entryFor(id string) *entry {
	if x := e.acts[id]; x != nil {
		return x
	}
	return e.jobs[handover.Key{Origin: e.o.Domain, ID: id}]
}

// hand gives one job to a peer; the caller holds the lock.
func (e *Engine) hand(to, tag string, p *parcel, left *waitGroup) (*submission, error) {
	key := handover.Key{Origin: e.o.Domain, ID: p.id}
	if err := key.Check(); err != nil {
		return nil, err
	}
	x := e.entryFor(p.id)
	if x != nil && x.job != nil && x.Tag == tag && x.Peer == to {
		return e.wait(x, left), nil // the same again
	}
	q := e.peer(to)
	switch {
	case e.term == nil:
		return nil, errNoTerm("peering.Submit", fail.Unavailable)
	case !q.open:
		return nil, fail.Errorf("peering.Submit", fail.Unavailable, to, "the domain %s can't be given jobs now: %s", to, q.why)
	case !q.provides:
		return nil, fail.Errorf("peering.Submit", fail.Denied, to, "the domain %s takes no jobs of this one", to)
	}
	if x != nil && e.acts[p.id] == x {
		return e.handOn(x, q, tag, p.bought, left)
	}
	return e.handOwn(x, key, q, tag, p, left)
}

// handOwn gives a job of our own to a peer.
func (e *Engine) handOwn(x *entry, key handover.Key, q *peer, tag string, p *parcel, left *waitGroup) (*submission, error) {
	if x == nil {
		x = e.entryOf(key)
	}
	if x.job != nil && x.job.Phase == handover.Given {
		at, _ := x.job.ElsewhereAt()
		return nil, fail.Errorf("peering.Submit", fail.Unavailable, key.String(), "the domain %s may have the job until %s; it is given to nobody else before", x.job.Gave.To, at.UTC().Format(time.RFC3339))
	}
	digest := digestOf(p.document, p.vo, p.deadline)
	if x.job != nil && (!live(x.job) || x.job.Want != handover.Run) {
		// The broker has gone on: it knows how the placement before ended. Its tokens are below.
		p.attempt = max(p.attempt, x.job.Attempts+1)
		x.job = nil
	}
	x.held = true
	defer func() { x.held = false }()
	was := x.meta
	x.meta = meta{Tag: tag, Peer: q.domain, Owner: p.owner, VO: p.vo, Deadline: p.deadline, Bought: p.bought}
	if x.job == nil {
		if err := e.step(x, handover.Submit{Key: key, Digest: digest, Attempts: max(p.attempt, 1) - 1}); err != nil {
			x.meta = was
			return nil, err
		}
	}
	x.Token, x.theirs = handover.Token("").Next(x.job.Attempts+1), ""
	x.freight, x.packed = &freight{Document: p.document}, p.packed
	if err := e.step(x, handover.Forward{To: q.domain, Terms: q.terms, Hops: e.hops() - 1, Digest: digest}); err != nil {
		e.drop(x)
		return nil, err
	}
	return e.wait(x, left), nil
}

// handOn gives a job that came from a peer to another.
func (e *Engine) handOn(x *entry, q *peer, tag, bought string, left *waitGroup) (*submission, error) {
	if !x.taken() || x.job.Phase != handover.Here {
		return nil, fail.Errorf("peering.Submit", fail.Unavailable, x.key.String(), "the job is being taken back, or is somewhere else; it is given to no other domain now")
	}
	if err := handover.MayForward(x.job, e.o.Domain, q.domain); err != nil {
		return nil, err
	}
	x.held = true
	defer func() { x.held = false }()
	was := x.meta
	if err := e.step(x, handover.Evidence{Token: x.job.Token(), Shows: handover.NotRun}); err != nil {
		return nil, err
	}
	x.Tag, x.Peer, x.Bought, x.Final, x.Ran, x.Started, x.Site, x.theirs = tag, q.domain, bought, nil, false, time.Time{}, "", ""
	if x.job.Phase == handover.Waiting {
		x.Token = x.job.Taken.Token.Next(x.job.Attempts + 1)
	}
	if err := e.step(x, handover.Forward{To: q.domain, Terms: q.terms, Hops: e.hops() - 1}); err != nil {
		x.meta = was
		if x.job != nil && x.job.Phase == handover.Waiting {
			e.place(x) // the broker has it, as before
		}
		if fail.Is(err, fail.Conflict) { // so little is left of the deadline, or it is recalled
			err = fail.E("peering.Submit", fail.Unavailable, x.key.String(), err)
		}
		return nil, err
	}
	return e.wait(x, left), nil
}

// hops is how many hops a job of our own may make.
func (e *Engine) hops() int {
	if e.o.Hops != nil {
		if n := e.o.Hops(); n > 0 {
			return n
		}
	}
	return 3
}

// wait files a submission that waits for the peer's answer.
func (e *Engine) wait(x *entry, left *waitGroup) *submission {
	w := &submission{token: x.Token, left: left}
	left.n++
	x.waits = append(x.waits, w)
	e.release(x)
	return w
}

// answer settles the submissions of which the outcome is known and durable; the caller holds
// the lock.
func (e *Engine) answer(x *entry) {
	if x.flying || x.dirty == handover.SaveFirst {
		return
	}
	var keep []*submission
	refused := false
	for _, w := range x.waits {
		switch f := x.Final; {
		case w.over:
		case x.job == nil || x.Token != w.token:
			w.settle(x, adapters.Placed{Err: fail.Errorf("peering.Submit", fail.Uncertain, x.Tag, "the placement is over already")})
		case f != nil && f.Refused:
			refused = true
			w.settle(x, adapters.Placed{Err: x.refusal()})
		case f != nil, x.job.Phase == handover.Given && x.job.Gave.Accepted:
			w.settle(x, adapters.Placed{Handle: x.handle().encode()})
		default:
			keep = append(keep, w)
		}
	}
	x.waits = keep
	if refused && !x.taken() && x.job != nil && x.job.Phase == handover.Waiting {
		e.drop(x)
	}
}

// refusal is why a peer did not take the job, as the answer to the submission: the broker
// tells that it is this site's.
func (x *entry) refusal() error {
	f := x.Final
	kind := f.Kind
	if !permanent(kind) && kind != fail.Exhausted {
		kind = fail.Unavailable
	}
	return fail.Errorf("peering.Submit", kind, x.Tag, "%s", f.Reason)
}

// find gives those of the tags that were given to the peer.
func (e *Engine) find(to string, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term == nil {
		return nil, errNoTerm("peering.Find", fail.Unavailable)
	}
	found := map[adapters.Tag]adapters.Handle{}
	for _, tag := range tags {
		id := string(tag)
		if i := strings.LastIndexByte(id, '-'); i > 0 {
			id = id[:i]
		}
		for _, x := range []*entry{e.entryFor(id), e.entryFor(string(tag))} {
			if x != nil && x.job != nil && x.Tag == string(tag) && x.Peer == to {
				found[tag] = x.handle().encode()
			}
		}
	}
	return found, nil
}

// status gives evidence of placements.
func (e *Engine) status(handles []adapters.Handle) ([]adapters.Evidence, error) {
	out := make([]adapters.Evidence, len(handles))
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term == nil {
		return nil, errNoTerm("peering.Status", fail.Unavailable)
	}
	for i, b := range handles {
		h, err := readHandle(b)
		if err != nil {
			out[i] = adapters.Evidence{Handle: b, Err: err}
			continue
		}
		out[i] = e.evidence(e.jobs[h.key], h)
		out[i].Handle = b
	}
	return out, nil
}

// steer steps the job of each handle and waits until that is durable.
func (e *Engine) steer(ctx context.Context, op string, handles []adapters.Handle, input func(*entry) (handover.Input, error)) []error {
	errs := make([]error, len(handles))
	waits := make([]chan struct{}, len(handles))
	e.mu.Lock()
	t := e.term
	for i, b := range handles {
		h, err := readHandle(b)
		switch x := e.jobs[h.key]; {
		case t == nil:
			errs[i] = errNoTerm(op, fail.Unavailable)
		case err != nil:
			errs[i] = err
		case x == nil || x.job == nil || x.Token != h.token || x.Tag != string(h.tag) || x.Final != nil:
			errs[i] = notKnown(op, h.key)
		default:
			var in handover.Input
			if in, errs[i] = input(x); errs[i] != nil || in == nil {
				continue
			}
			if errs[i] = e.step(x, in); errs[i] == nil {
				wait := make(chan struct{})
				waits[i] = wait
				e.durable(x, func() { close(wait) })
			}
		}
	}
	e.mu.Unlock()
	for i, w := range waits {
		if w == nil {
			continue
		}
		select {
		case <-w:
			if t.ctx.Err() != nil {
				errs[i] = fail.Errorf(op, fail.Uncertain, "", "the gateway stopped meanwhile")
			}
		case <-ctx.Done():
			errs[i] = fail.E(op, fail.Uncertain, "", ctx.Err())
		}
	}
	return errs
}

func (e *Engine) cancel(ctx context.Context, handles []adapters.Handle) []error {
	return e.steer(ctx, "peering.Cancel", handles, func(x *entry) (handover.Input, error) {
		if x.taken() {
			return handover.TakeBack{Running: true}, nil // whether it ends is its origin's to say
		}
		return handover.Wish{Want: handover.Cancel}, nil
	})
}

// want has jobs suspended or go on; only says of which.
func (e *Engine) want(ctx context.Context, op string, handles []adapters.Handle, want handover.Want, only func(*entry) error) []error {
	return e.steer(ctx, op, handles, func(x *entry) (handover.Input, error) {
		if x.job.Want == want {
			return nil, nil // its origin wanted it, and the peer was told
		}
		if x.taken() {
			return nil, fail.Errorf(op, fail.Unsupported, x.key.String(), "the job is of the domain %s, and only there it can be suspended and resumed while another domain has it", x.key.Origin)
		}
		if err := only(x); err != nil {
			return nil, err
		}
		return handover.Wish{Want: want}, nil
	})
}

// forget drops the record of a placement that ended.
func (e *Engine) forget(b adapters.Handle) error {
	h, err := readHandle(b)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.jobs[h.key]
	switch {
	case e.term == nil:
		return errNoTerm("peering.Forget", fail.Unavailable)
	case x == nil || x.job == nil || x.Token != h.token || x.Tag != string(h.tag):
		return nil
	case x.Final == nil:
		return fail.Errorf("peering.Forget", fail.Conflict, h.key.String(), "the job is %s; only one that ended can be forgotten", x.job.Status())
	case x.taken():
		x.Tag, x.Token, x.Peer, x.Final = "", "", "", nil
		e.saveLater(x)
	default:
		e.drop(x)
	}
	return nil
}
