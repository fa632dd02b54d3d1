package handover

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Gateway is who steps: the domain that one gateway, or a set of replicas with one store,
// speaks for.
type Gateway struct{ Domain string }

// Input is what happens to a job at one gateway.
type Input interface{ input() }

// The inputs.
type (
	// Submit begins a job at its origin. Attempts is how many placements were made of it
	// before there was a record, so that the tokens of this one are higher.
	Submit struct {
		Key      Key
		Digest   string
		Attempts uint32
	}
	// PlaceHere gives a waiting job to a site of this gateway's own.
	PlaceHere struct{}
	// Forward gives a waiting job to a peer, which may make Hops hops more. Digest is of what
	// is routed, where that is another than before; at the origin only.
	Forward struct {
		To     string
		Terms  Terms
		Hops   int
		Digest string
	}
	// Wish says what the user wants; at the origin only.
	Wish struct{ Want Want }
	// TakeBack recalls the job from the peer that has it, so that it may be placed
	// elsewhere; even if it runs, where that is said.
	TakeBack struct{ Running bool }
	// Return gives the job back to its giver, at a taker only; even if it runs, where that
	// is said. Kind is of the reason: see Report.
	Return struct {
		Running bool
		Reason  string
		Kind    fail.Kind
	}
	// Evidence is what an own site shows of the placement with the token.
	Evidence struct {
		Token  Token
		Shows  Shows
		Result *Result   // of HasEnded
		Reason string    // of NotRun
		Kind   fail.Kind // of the reason: see Report
		Used   CPUTime   // by the whole placement; of HasEnded and NotRun
	}
	// Received is a message from a peer that was proved to be From.
	Received struct {
		From    string
		Message Message
		// Terms are those of the session with From; of a Route and a Control.
		Terms Terms
		// Refuse is why a new Route is not to be taken; nil takes it. A Route that was
		// answered before is answered as it was.
		Refuse error
		// Owed says that a charge by From for this key and token is in the book, so that
		// what was settled once is settled the same again.
		Owed bool
	}
	// Ask asks the peer that has the job how it stands; what it says comes as a Report.
	Ask struct{}
	// Tell tells the giver how the copy stands, as what the caller adds to that has changed.
	Tell struct{}
	// Tick says that it is later: see Job.Next.
	Tick struct{}
)

func (Submit) input()    {}
func (PlaceHere) input() {}
func (Forward) input()   {}
func (Wish) input()      {}
func (TakeBack) input()  {}
func (Return) input()    {}
func (Evidence) input()  {}
func (Received) input()  {}
func (Ask) input()       {}
func (Tell) input()      {}
func (Tick) input()      {}

// Shows is what evidence shows.
type Shows string

// What evidence shows; the last two are its end there.
const (
	HasQueued  Shows = "queued" // it is not kept from running any more, and waits to
	HasStarted Shows = "started"
	HasPaused  Shows = "paused" // stopped for now, whether it had begun or not
	HasResumed Shows = "resumed"
	HasEnded   Shows = "ended"   // the program ended, or could not be run: there is a result
	NotRun     Shows = "not run" // the site has it no more and never will, and there is no result
)

// Output is what is to be done once the step is durable.
type Output interface{ output() }

// The outputs.
type (
	// Send sends a message to a peer; it may be lost.
	Send struct {
		To      string
		Message Message
	}
	// Place says that the job waits for a place: route it, then PlaceHere, Forward or
	// Return.
	Place struct{}
	// Start gives the job to an own site, once for each token however often it is asked.
	// NotAfter, unless it is zero, is when by its own clock the site has ended it by
	// itself, and starts it no more, though this gateway be dead: Slurm's deadline,
	// HTCondor's periodic removal, the shell supervisor's limit.
	Start struct {
		Token    Token
		NotAfter time.Time
	}
	// Extend moves NotAfter on.
	Extend struct {
		Token    Token
		NotAfter time.Time
	}
	// Stop ends it at the own site, and keeps it from ever starting there under the token.
	// The evidence is NotRun or HasEnded.
	Stop struct{ Token Token }
	// Hold keeps it at the own site from running for now, or lets it go on.
	Hold struct {
		Token Token
		Held  bool
	}
	// Done tells the user, at the origin.
	Done struct{ Result Result }
)

func (Send) output()   {}
func (Place) output()  {}
func (Start) output()  {}
func (Extend) output() {}
func (Stop) output()   {}
func (Hold) output()   {}
func (Done) output()   {}

// Save says what must happen to the record before anything is done.
type Save uint8

// The saves; a higher one stands.
const (
	SaveNothing Save = iota
	SaveLater        // forgetting it is safe, and a pity
	SaveFirst        // committed, with the charges, before anything is done
)

// Charge is what one domain did for another under one token: for the ledgers of both.
type Charge struct {
	Provider, Consumer string
	Key                Key
	Token              Token
	Outcome            Outcome // "" where the copy was given back
	Used               CPUTime
}

// Step is what comes of an input.
type Step struct {
	Job  *Job // nil: the record is to be forgotten, or there is none
	Save Save
	// Owe is what this domain owes, and Earn what it may claim; each once. They are
	// committed with the record.
	Owe, Earn *Charge
	Do        []Output
}

// Step makes the next record of j, which is nil for a job that is not known. Where it gives
// an error, nothing has happened but what time brought: fail.Invalid for an input that is wrong, fail.Conflict
// for one that the job's state forbids, fail.Denied for a peer that does not have the copy.
func (g Gateway) Step(j *Job, in Input, now time.Time) (Step, error) {
	s := g.stepper(j, now)
	err := s.take(in)
	if err != nil {
		s = g.stepper(j, now) // what time brought holds, though the input was wrong
	}
	s.end()
	s.out.Job = s.job
	return s.out, err
}

func (g Gateway) stepper(j *Job, now time.Time) *stepper {
	s := &stepper{self: g.Domain, now: now.UTC().Round(0)}
	if j != nil {
		s.job = j.clone()
		s.begin()
	}
	return s
}

// stepper is a step being made.
type stepper struct {
	self string
	now  time.Time
	job  *Job
	out  Step
	redo bool // what was in progress is done again
	told bool // the giver has its answer in this step
}

func (s *stepper) save(how Save) { s.out.Save = max(s.out.Save, how) }

func (s *stepper) do(o Output) { s.out.Do = append(s.out.Do, o) }

func (s *stepper) send(to string, m Message) { s.do(Send{to, m}) }

func (s *stepper) conflict(format string, args ...any) error {
	subject := ""
	if s.job != nil {
		subject = s.job.Key.String()
	}
	return fail.Errorf("handover.Step", fail.Conflict, subject, format, args...)
}

// move is the only place where a phase changes.
func (s *stepper) move(e event) error {
	to, ok := transitions[s.job.Phase][e]
	if !ok {
		return s.conflict("a job that is %q can't be %s", s.job.Phase, e)
	}
	if t := s.job.Taken; t != nil && s.job.live() && (to == Over || to == Released) {
		t.Until = s.now.Add(t.Terms.Keep)
	}
	s.job.Phase = to
	s.changed()
	return nil
}

// changed notes what the giver is to hear of.
func (s *stepper) changed() {
	s.job.Revision++
	s.save(SaveFirst)
}

// begin lets time do its work before anything else: a deadline that has passed has passed,
// whatever the message that comes after it says.
func (s *stepper) begin() {
	if s.job.restored {
		s.restore()
	}
	s.lapse()
	s.overdue()
}

func (s *stepper) take(in Input) error {
	if s.job == nil {
		switch in := in.(type) {
		case Submit:
			return s.submit(in)
		case Received:
			return s.received(in)
		case PlaceHere, Forward, Wish, TakeBack, Return, Evidence, Ask, Tell, Tick:
		}
		return fail.Errorf("handover.Step", fail.NotFound, "", "the job is not known here")
	}
	switch in := in.(type) {
	case Submit:
		return s.conflict("the job was submitted before")
	case PlaceHere:
		return s.placeHere()
	case Forward:
		return s.forward(in)
	case Wish:
		return s.wish(in)
	case TakeBack:
		return s.takeBack(in)
	case Return:
		return s.giveBack(in)
	case Evidence:
		return s.evidence(in)
	case Received:
		return s.received(in)
	case Ask:
		if s.job.Phase != Given {
			return s.conflict("no peer has the job")
		}
		s.send(s.job.Gave.To, Query{s.job.Key, s.job.Gave.Token})
		return nil
	case Tell:
		if t := s.job.Taken; t != nil && s.job.live() {
			s.send(t.From, s.reportOf())
			s.told = true
		}
		return nil
	case Tick:
		return nil
	}
	return s.conflict("the input %T is none", in)
}

func (s *stepper) submit(in Submit) error {
	if err := in.Key.Check(); err != nil {
		return err
	}
	if in.Key.Origin != s.self {
		return fail.Errorf("handover.Step", fail.Invalid, in.Key.String(), "a job of the domain %s must be submitted there, and this is %s", in.Key.Origin, s.self)
	}
	if err := checkDigest(in.Key, in.Digest); err != nil {
		return err
	}
	s.job = &Job{Key: in.Key, Digest: in.Digest, Want: Run, Attempts: in.Attempts}
	if err := s.move(submitted); err != nil {
		return err
	}
	s.do(Place{})
	return nil
}

func (s *stepper) wish(in Wish) error {
	j := s.job
	switch {
	case j.Taken != nil:
		return s.conflict("the job is the domain %s's: ask there", j.Key.Origin)
	case in.Want != Run && in.Want != Suspend && in.Want != Cancel:
		return invalid(j.Key, "what is wanted, %q, is none of run, suspend, cancel", in.Want)
	case !j.live():
		return s.conflict("the job has ended")
	case j.Want == Cancel && in.Want != Cancel:
		return s.conflict("the job's end was asked for, which is final")
	}
	s.want(in.Want)
	return nil
}

// want changes what the job's owner wants, here and for whoever has it.
func (s *stepper) want(w Want) {
	j := s.job
	if j.Want == w {
		return
	}
	j.Want = w
	s.changed()
	switch {
	case j.Phase == Here && w != Cancel:
		s.do(Hold{j.Token(), w == Suspend})
	case j.Phase == Waiting && w == Run && !j.asked().ends():
		s.do(Place{})
	}
}

func (s *stepper) received(in Received) error {
	if in.Message == nil {
		return fail.Errorf("handover.Step", fail.Invalid, in.From, "there is no message")
	}
	if err := in.Message.Check(); err != nil {
		return err
	}
	if key, _ := in.Message.About(); s.job != nil && s.job.Key != key {
		return s.conflict("the message is about the job %s", key)
	}
	switch m := in.Message.(type) {
	case Route:
		return s.route(in, m)
	case Control:
		return s.control(in, m)
	case Query:
		return s.query(in, m)
	case Granted:
		return s.granted(in, m)
	case Settle:
		return s.settle(in, m)
	case Answer:
		return s.answer(in, m)
	case Report:
		return s.report(in, m)
	}
	return fail.Errorf("handover.Step", fail.Unsupported, in.From, "the message %T is none", in.Message)
}

// end follows from where the job now stands: it is ended, given back, asked for, told of.
func (s *stepper) end() {
	if s.job == nil {
		return
	}
	s.conclude()
	if s.redo {
		s.resume()
	}
	s.askPeer()
	s.repeat()
	s.forget()
}

// conclude ends what is wanted to be ended.
func (s *stepper) conclude() {
	j := s.job
	a := j.asked()
	back := a.Recall == Running || a.Recall == Idle && !j.Started
	if a.Want != Cancel && (j.Taken == nil || !back) {
		return
	}
	switch j.Phase {
	case Here:
		_ = s.move(stopped) // the table has it
		s.do(Stop{j.Token()})
	case Waiting:
		switch {
		case a.Want == Cancel:
			j.Result = &Result{Outcome: Cancelled, Reason: "its end was asked for"}
			_ = s.move(cancelled)
			s.finish()
		default:
			if j.Reason == "" {
				j.Reason = "it was recalled"
			}
			_ = s.move(released)
			j.retry = time.Time{}
		}
	case Stopping, Given, Over, Released:
	}
}

// finish says that there is a result.
func (s *stepper) finish() {
	if s.job.Taken == nil {
		s.do(Done{*s.job.Result})
	}
	s.job.retry = time.Time{} // the giver is told at once
}

// repeat sends what was not answered, when it is time.
func (s *stepper) repeat() {
	j := s.job
	changed := s.out.Save == SaveFirst
	if !changed && s.now.Before(j.retry) {
		return
	}
	sent := false
	if j.Phase == Given {
		sent = s.repeatToPeer()
	}
	if t := j.Taken; t != nil && !t.Refused && !t.Settled && !(s.told && j.live()) {
		// A change is told once, at once; a deadline that comes near is asked for again.
		if changed || !j.live() || !s.now.Before(t.Terms.ask(t.RecallBy)) {
			s.send(t.From, s.reportOf())
			sent = true
		}
	}
	if sent {
		j.retry = s.now.Add(j.resend())
	}
}

func (j *Job) resend() time.Duration {
	var d time.Duration
	if j.Gave != nil {
		d = j.Gave.Terms.Resend
	}
	if j.Taken != nil && (d == 0 || j.Taken.Terms.Resend < d) {
		d = j.Taken.Terms.Resend
	}
	return d
}

// forget drops a record of which nothing that comes late can do harm.
func (s *stepper) forget() {
	j := s.job
	if at, ok := j.forgetAt(); ok && s.now.After(at) {
		s.save(SaveLater)
		s.job = nil
	}
}

// forgetAt: a route that comes after its deadline is refused without a record. The origin's
// record is its user's, and never forgotten here.
func (j *Job) forgetAt() (time.Time, bool) {
	t := j.Taken
	if t == nil || j.live() {
		return time.Time{}, false
	}
	at := t.Terms.Elsewhere(t.RecallBy)
	if t.Refused || t.Settled {
		return at, true
	}
	if at.Before(t.Until) {
		at = t.Until
	}
	return at, true
}

// Next is when a Tick is wanted, if nothing else happens before; zero is never.
func (j *Job) Next() time.Time {
	if j.restored {
		return time.Unix(0, 0) // at once
	}
	var times []time.Time
	add := func(t time.Time) { times = append(times, t) }
	if g := j.Gave; j.Phase == Given {
		add(g.Terms.Elsewhere(g.RecallBy).Add(1))
		if !g.Accepted || g.Heard < g.Seq {
			add(j.retry)
		}
	}
	if t := j.Taken; t != nil {
		if at, ok := j.forgetAt(); ok {
			add(at.Add(1))
			if !t.Refused && !t.Settled {
				add(j.retry)
			}
		} else {
			if !t.Lapsed {
				add(t.Terms.lapse(t.RecallBy))
				ask := t.Terms.ask(t.RecallBy)
				if ask.Before(j.retry) {
					ask = j.retry
				}
				add(ask)
			}
		}
	}
	if len(times) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(times, time.Time.Compare)
}
