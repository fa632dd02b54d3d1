package wire

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Bounds of jobs.
const (
	MaxPath      = 16      // domains that a job may go through
	MaxDocument  = 1 << 20 // bytes of a JSDL document
	MaxAssertion = 64 << 10
	MaxOutput    = 512 << 10 // bytes in one Output
	MaxRequest   = MaxSeq
)

// About names one copy of a job. It is in every message about one.
type About struct {
	Origin string // where the job was submitted
	ID     string // its name there
	Token  string // the fencing token
}

func (a *About) about(v *visit) {
	str(v, "origin", &a.Origin, 1, MaxDomain, domain, "of the job's key: the domain where it was submitted")
	str(v, "id", &a.ID, 1, MaxID, word, "of the job's key: its name there; origin and id stay the same at every hop")
	str(v, "token", &a.Token, 1, MaxPath*11-1, word, "the fencing token of this copy: whole numbers from 1 to 4294967295 joined by dots, the origin's attempt first, one more with each hop; tokens are ordered number by number, and who knows a higher one acts on no lower one")
	v.check(a.Token == "" || validToken(a.Token), "@token", "is %s, which is no fencing token", shown(a.Token))
}

func trace(v *visit, p *string) {
	str(v, "trace", p, 0, 55, word, "W3C traceparent (version 00) of the span that sent this; its trace id is the origin's through all hops")
	v.check(*p == "" || validTrace(*p), "@trace", "must be a traceparent of version 00, such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

// Route hands a job over.
type Route struct {
	About
	RecallBy  time.Time
	Hops      int
	Deadline  time.Time
	VO        string
	Digest    string
	Agreement string
	Trace     string
	Path      []string
	Document  string
	Assertion []byte
}

func (m *Route) visit(v *visit) {
	m.about(v)
	when(v, "recallBy", &m.RecallBy, true, "the recall deadline: every copy under this token has stopped by then, unless it is granted a later one")
	num(v, "hops", &m.Hops, 0, MaxPath, "how often the receiver's side may hand it on")
	when(v, "deadline", &m.Deadline, false, "the job is of no use after this")
	str(v, "vo", &m.VO, 0, MaxID, line, "the VO that the job is run for")
	str(v, "digest", &m.Digest, 0, 128, word, "names all that is routed: a route of the same key and token with another digest is refused (conflict)")
	str(v, "agreement", &m.Agreement, 0, MaxID, word, "the receiver's agreement by which the sender bought room there, in which the job is to run: its id (wsag:AgreementId); one that is not the sender's, or not in force, has no effect. Only who sold is sent one; it is not in the digest")
	trace(v, &m.Trace)
	words(v, "Domain", &m.Path, 1, MaxPath, MaxDomain, domain, "the path: the domains that hold the job, the origin first, the sender last; one that is there already refuses it, so that no loop can be")
	text(v, "Document", &m.Document, 1, MaxDocument, "the JSDL document, criteria in it, as the origin took it")
	data(v, "Assertion", &m.Assertion, 0, MaxAssertion, "the delegated identity: who the user is, vouched for by the origin, for the receiver alone, for a short time")
	v.check(len(m.Path) == 0 || m.Path[0] == m.Origin, "Domain", "must begin with the key's origin")
	v.check(len(m.Path)+m.Hops <= MaxPath, "@hops", "is %d with %d domains in the path; both together may be %d", m.Hops, len(m.Path), MaxPath)
	for i, d := range m.Path {
		for _, e := range m.Path[:i] {
			v.check(d != e, "Domain", "names %s twice: the job went in a loop", shown(d))
		}
	}
}

// Refusal says what the giver can do about a refusal.
type Refusal string

// The refusals: those kinds of error that a peer may be told.
const (
	Internal        Refusal = "internal"
	Invalid         Refusal = "invalid"
	Unsupported     Refusal = "unsupported"
	Unauthenticated Refusal = "unauthenticated"
	Denied          Refusal = "denied"
	NotFound        Refusal = "not-found"
	Conflict        Refusal = "conflict"
	NotAccepting    Refusal = "not-accepting"
	Unavailable     Refusal = "unavailable"
	Exhausted       Refusal = "exhausted"
	Uncertain       Refusal = "uncertain"
)

// refusals are in the order of the kinds.
var refusals = []Refusal{Internal, Invalid, Unsupported, Unauthenticated, Denied, NotFound, Conflict, NotAccepting, Unavailable, Exhausted, Uncertain}

// RefusalOf gives what a peer is told of an error of a kind.
func RefusalOf(k fail.Kind) Refusal {
	if int(k) < len(refusals) {
		return refusals[k]
	}
	return Internal
}

// Kind gives the kind of error; fail.Internal for what is no refusal.
func (r Refusal) Kind() fail.Kind {
	if i := slices.Index(refusals, r); i >= 0 {
		return fail.Kind(i)
	}
	return fail.Internal
}

// Answer accepts a Route or refuses it.
type Answer struct {
	About
	Accepted bool
	Kind     Refusal
	Reason   string
}

func (m *Answer) visit(v *visit) {
	m.about(v)
	yes(v, "accepted", &m.Accepted, "the job is taken, and durable; else it is refused, and this copy never runs")
	enum(v, "kind", &m.Kind, false, "of a refusal", refusals...)
	str(v, "reason", &m.Reason, 0, MaxReason, line, "of a refusal: what is wrong and what to change")
	v.check(m.Accepted == (m.Kind == "") && (m.Accepted || m.Reason != ""), "@kind", "must be there with a reason in a refusal, and only then")
}

// Status is how a copy stands.
type Status string

// The statuses; the last two are final.
const (
	IsWaiting   Status = "waiting"
	IsPlaced    Status = "placed"
	IsRunning   Status = "running"
	IsSuspended Status = "suspended"
	IsEnded     Status = "ended"
	IsReturned  Status = "returned"
)

// Outcome is how a job ended.
type Outcome string

// The outcomes.
const (
	Finished  Outcome = "finished"
	Failed    Outcome = "failed"
	Cancelled Outcome = "cancelled"
)

// Result is a job's end.
type Result struct {
	Outcome  Outcome
	ExitCode int
	Reason   string
	Token    string
}

func resultFields(v *visit, r *Result) {
	enum(v, "outcome", &r.Outcome, true, "how it ended", Finished, Failed, Cancelled)
	num(v, "exitCode", &r.ExitCode, -1<<31, 1<<31-1, "of the program")
	str(v, "reason", &r.Reason, 0, MaxReason, line, "why, for a person")
	str(v, "ranAs", &r.Token, 0, MaxPath*11-1, word, "the token of the placement that ran it; absent: it ran nowhere")
	v.check(r.Token == "" || validToken(r.Token), "@ranAs", "is no fencing token")
}

// Report tells the giver how its copy stands, and asks for a later recall deadline.
type Report struct {
	About
	Revision uint64
	Heeded   uint64
	Status   Status
	Site     string
	At       time.Time
	Used     time.Duration
	Kind     Refusal
	Reason   string
	Trace    string
	Where    []string
	Result   *Result
}

func (m *Report) visit(v *visit) {
	m.about(v)
	num(v, "revision", &m.Revision, 0, MaxSeq, "of the copy: grows with each change; a report with a lower one than was heard is not heeded")
	num(v, "heeded", &m.Heeded, 0, MaxSeq, "the number of the last Control that was heard; 0 is none")
	enum(v, "status", &m.Status, true, "how the copy stands; ended (there is a result) and returned (it does not run and never will) are final, and are repeated until they are settled", IsWaiting, IsPlaced, IsRunning, IsSuspended, IsEnded, IsReturned)
	str(v, "site", &m.Site, 0, MaxID, line, "the site where it is")
	when(v, "at", &m.At, false, "since when, by the clock of who saw it")
	span(v, "used", &m.Used, 0, 100*366*24*time.Hour, "CPU time that the copy took so far, work that was lost too")
	enum(v, "kind", &m.Kind, false, "of the reason of returned, where the copy was given back for it, and not as it was recalled or had lapsed: with invalid, unsupported, unauthenticated, denied, not-found and conflict the sender never runs this job, and is not given it again", refusals...)
	str(v, "reason", &m.Reason, 0, MaxReason, line, "of returned: why; else what it waits for")
	trace(v, &m.Trace)
	words(v, "Domain", &m.Where, 0, MaxPath, MaxDomain, domain, "the domains from the reporter to where the job is")
	maybe(v, "Result", &m.Result, resultFields, "how it ended: with ended, and only then")
	v.check(m.Kind == "" || m.Status == IsReturned, "@kind", "must be there with the status returned only")
	v.check((m.Result != nil) == (m.Status == IsEnded), "Result", "must be there with the status ended, and only then")
}

// Grant gives a copy a later recall deadline.
type Grant struct {
	About
	RecallBy time.Time
}

func (m *Grant) visit(v *visit) {
	m.about(v)
	when(v, "recallBy", &m.RecallBy, true, "the recall deadline from now on; an earlier one than is had is not heeded")
}

// Want is what the job's owner wants with it.
type Want string

// The wants; Cancel is final.
const (
	Run     Want = "run"
	Suspend Want = "suspend"
	Cancel  Want = "cancel"
)

// Recall says whether a copy is to be given back.
type Recall string

// The recalls; none is "".
const (
	RecallIdle    Recall = "idle"
	RecallRunning Recall = "running"
)

// Control tells what the giver wants with its copy: cancel, suspend, resume, recall.
type Control struct {
	About
	Number   uint64
	Want     Want
	Recall   Recall
	RecallBy time.Time
	Trace    string
}

func (m *Control) visit(v *visit) {
	m.about(v)
	num(v, "number", &m.Number, 0, MaxSeq, "grows with each change of what is wanted; one with a lower number than was heard is not heeded")
	enum(v, "want", &m.Want, true, "run resumes what was suspended; cancel is final", Run, Suspend, Cancel)
	enum(v, "recall", &m.Recall, false, "the copy is to be given back: idle if it does not run, running even if it runs, its work being lost", RecallIdle, RecallRunning)
	when(v, "recallBy", &m.RecallBy, true, "that of the route, for a receiver that never saw it: it refuses the route if that comes later")
	trace(v, &m.Trace)
}

// Settle ends the talk about a copy.
type Settle struct {
	About
	Taken bool
}

func (m *Settle) visit(v *visit) {
	m.about(v)
	yes(v, "taken", &m.Taken, "the copy's end was heeded, and what it used is owed; else a copy that still runs must be stopped")
}

// Query asks for a Report.
type Query struct{ About }

func (m *Query) visit(v *visit) { m.about(v) }

// Stream names an output of a job.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Read asks for output.
type Read struct {
	About
	Request uint64
	Stream  Stream
	Offset  uint64
	Most    int
	Follow  bool
}

func (m *Read) visit(v *visit) {
	m.about(v)
	num(v, "request", &m.Request, 1, MaxRequest, "of the sender's making; the answers name it")
	enum(v, "stream", &m.Stream, true, "which output", Stdout, Stderr)
	num(v, "offset", &m.Offset, 0, MaxSeq, "bytes to leave out at the beginning")
	num(v, "most", &m.Most, 0, MaxOutput, "bytes that are wanted at most; 0 stops what the request began")
	yes(v, "follow", &m.Follow, "Output follows as the job writes, until the end or most bytes")
}

// Output is some output, or why there is none.
type Output struct {
	About
	Request uint64
	Offset  uint64
	Last    bool
	Kind    Refusal
	Reason  string
	Data    []byte
}

func (m *Output) visit(v *visit) {
	m.about(v)
	num(v, "request", &m.Request, 1, MaxRequest, "that of Read")
	num(v, "offset", &m.Offset, 0, MaxSeq, "of the first byte here")
	yes(v, "last", &m.Last, "the request is answered, no more follows")
	enum(v, "kind", &m.Kind, false, "why it can't be had", refusals...)
	str(v, "reason", &m.Reason, 0, MaxReason, line, "the same for a person")
	data(v, "Data", &m.Data, 0, MaxOutput, "the bytes")
	v.check(m.Kind == "" || m.Last && m.Reason != "" && len(m.Data) == 0, "@kind", "goes with last and a reason, and without data")
}
