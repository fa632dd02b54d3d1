package handover

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/portolan-project/portolan/internal/fail"
)

// Bounds of messages.
const (
	MaxPath   = 16   // domains that a job may go through
	MaxReason = 1024 // bytes
	MaxDigest = 128  // bytes
)

// Message is what gateways say to each other about one copy of a job: its key and token
// are in each.
type Message interface {
	// About names the copy.
	About() (Key, Token)
	// Check gives fail.Invalid for a message that can't be right, whoever it is for.
	Check() error
}

// Route asks a peer to take the job. It is the same, to the byte, however often it is
// sent. The answer is an Answer.
type Route struct {
	Key      Key
	Token    Token
	RecallBy time.Time // every copy under the token has stopped by then, unless it is renewed
	Path     []string  // domains that hold the job: the origin first, the sender last
	Hops     int       // how many hops more the receiver may make
	Digest   string    // of the document and all else that is routed with it
}

// Answer accepts a Route or refuses it.
type Answer struct {
	Key      Key
	Token    Token
	Accepted bool
	Kind     fail.Kind // of a refusal
	Reason   string    // of a refusal: what is wrong and what to change
}

// Status is how a copy stands.
type Status string

// The statuses. The last two are final, and are reported until they are settled.
const (
	IsWaiting   Status = "waiting"   // for a place
	IsPlaced    Status = "placed"    // at a site, which has not begun
	IsRunning   Status = "running"   // it was started
	IsSuspended Status = "suspended" // kept from going on by the user's wish
	IsEnded     Status = "ended"     // there is a result
	IsReturned  Status = "returned"  // the copy is dead: it does not run and never will
)

// Final reports whether nothing follows.
func (s Status) Final() bool { return s == IsEnded || s == IsReturned }

// Report tells the giver how its copy stands. One that is not final asks for a later
// recall deadline too; the answer is a Granted, that to a final one a Settle.
type Report struct {
	Key      Key
	Token    Token
	Revision uint64 // grows with each change; older ones are not heeded
	Seq      uint64 // of the last Control that was heard
	Status   Status
	Where    []string // domains from the reporter to where the job is
	Result   *Result  // of IsEnded
	Reason   string   // of IsReturned
	// Kind is of Reason, where the copy was given back for it and not as it was recalled or
	// lapsed; fail.Internal, the zero, says nothing. What is permanent bars the reporter from
	// the job.
	Kind fail.Kind
	// Used is what the copy took so far, work that was lost too.
	Used CPUTime
}

// Granted gives the copy a later recall deadline.
type Granted struct {
	Key      Key
	Token    Token
	RecallBy time.Time
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
type Recall uint8

// The recalls; a higher one stands.
const (
	Keep    Recall = iota
	Idle           // if it does not run
	Running        // even if it runs: its work is lost
)

// Control tells what the giver wants with the copy. The answer is a Report. A taker that
// never saw the copy answers a Control that ends it, and refuses a Route that comes later.
type Control struct {
	Key      Key
	Token    Token
	Seq      uint64 // grows with each change; older ones are not heeded
	Want     Want
	Recall   Recall
	RecallBy time.Time // the Route's
}

// Settle ends the talk about a copy: the taker may forget it, and must stop it if it
// still runs. Taken says that its end was heeded, and that its Used is owed.
type Settle struct {
	Key   Key
	Token Token
	Taken bool
}

// Query asks for a Report.
type Query struct {
	Key   Key
	Token Token
}

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
	Outcome  Outcome `json:"outcome"`
	ExitCode int     `json:"exitCode,omitempty"`
	Reason   string  `json:"reason,omitempty"`
	Token    Token   `json:"token,omitempty"` // of the placement that ran it; "" ran nowhere
}

// About names the copy.
func (m Route) About() (Key, Token) { return m.Key, m.Token }

// About names the copy.
func (m Answer) About() (Key, Token) { return m.Key, m.Token }

// About names the copy.
func (m Report) About() (Key, Token) { return m.Key, m.Token }

// About names the copy.
func (m Granted) About() (Key, Token) { return m.Key, m.Token }

// About names the copy.
func (m Control) About() (Key, Token) { return m.Key, m.Token }

// About names the copy.
func (m Settle) About() (Key, Token) { return m.Key, m.Token }

// About names the copy.
func (m Query) About() (Key, Token) { return m.Key, m.Token }

func invalid(k Key, format string, args ...any) error {
	return fail.Errorf("handover.Message", fail.Invalid, k.String(), format, args...)
}

func checkAbout(k Key, t Token) error {
	if err := k.Check(); err != nil {
		return err
	}
	return t.Check()
}

// Check tells what is wrong with the route, for any receiver; see Refuses for one.
func (m Route) Check() error {
	if err := checkAbout(m.Key, m.Token); err != nil {
		return err
	}
	switch {
	case len(m.Path) == 0 || m.Hops < 0 || m.Hops > MaxPath || len(m.Path)+m.Hops > MaxPath:
		return invalid(m.Key, "the path has %d domains and %d hops are left; there must be one domain at least, and %d at most with those hops", len(m.Path), m.Hops, MaxPath)
	case m.Path[0] != m.Key.Origin:
		return invalid(m.Key, "the path begins with %q, and the key's origin is %q: they must be the same", m.Path[0], m.Key.Origin)
	case len(m.Token.numbers()) != len(m.Path):
		return invalid(m.Key, "the token %s must have one number for each of the path's %d domains", m.Token, len(m.Path))
	case m.RecallBy.IsZero():
		return invalid(m.Key, "the route needs a recall deadline")
	}
	if err := checkDigest(m.Key, m.Digest); err != nil {
		return err
	}
	return checkDomains(m.Key, m.Path)
}

func checkDigest(k Key, digest string) error {
	if len(digest) > MaxDigest || !printable(digest) {
		return invalid(k, "the digest must be at most %d printable bytes", MaxDigest)
	}
	return nil
}

// sentence reports whether it may be shown and logged as it is.
func sentence(s string) bool {
	return len(s) <= MaxReason && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Short makes a sentence that may be sent of what others say: one line of at most MaxReason bytes.
func Short(reason string) string {
	reason = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(reason, "?"))
	for i := range reason {
		if i > MaxReason-utf8.UTFMax {
			return reason[:i]
		}
	}
	return reason
}

// checkDomains: each is a name, and none is there twice.
func checkDomains(k Key, path []string) error {
	for i, d := range path {
		if err := checkDomain(d); err != nil {
			return err
		}
		if slices.Contains(path[:i], d) {
			return invalid(k, "the domain %q is twice in the path: the job went in a loop", d)
		}
	}
	return nil
}

// Check tells what is wrong with it.
func (m Answer) Check() error {
	if !sentence(m.Reason) || !m.Accepted && m.Reason == "" {
		return invalid(m.Key, "a refusal must give its reason, in at most %d bytes of text", MaxReason)
	}
	if !m.Accepted && !slices.Contains(fail.Kinds(), m.Kind) {
		return invalid(m.Key, "the kind of the refusal is none")
	}
	return checkAbout(m.Key, m.Token)
}

// Check tells what is wrong with it.
func (m Report) Check() error {
	if err := checkAbout(m.Key, m.Token); err != nil {
		return err
	}
	switch m.Status {
	case IsWaiting, IsPlaced, IsRunning, IsSuspended, IsReturned:
		if m.Result != nil {
			return invalid(m.Key, "a job that is %s has no result", m.Status)
		}
	case IsEnded:
		if m.Result == nil {
			return invalid(m.Key, "a job that is %s needs its result", m.Status)
		}
		if err := m.Result.check(m.Key); err != nil {
			return err
		}
	default:
		return invalid(m.Key, "the status %q is none of waiting, placed, running, suspended, ended, returned", m.Status)
	}
	if m.Kind != fail.Internal && (m.Status != IsReturned || !slices.Contains(fail.Kinds(), m.Kind)) {
		return invalid(m.Key, "only a job that is %s has a kind of reason, and that is a kind of error", IsReturned)
	}
	if len(m.Where) > MaxPath || !sentence(m.Reason) || m.Used < 0 || m.Used > MaxUsed {
		return invalid(m.Key, "a report has at most %d domains and %d bytes of text as reason, and a time used from 0 to %d", MaxPath, MaxReason, MaxUsed)
	}
	return checkDomains(m.Key, m.Where)
}

func (r *Result) check(k Key) error {
	if !sentence(r.Reason) {
		return invalid(k, "the reason must be at most %d bytes of text", MaxReason)
	}
	if r.Token != "" {
		if err := r.Token.Check(); err != nil {
			return err
		}
	}
	switch r.Outcome {
	case Finished, Failed, Cancelled:
		return nil
	}
	return invalid(k, "the outcome %q is none of finished, failed, cancelled", r.Outcome)
}

// Check tells what is wrong with it.
func (m Granted) Check() error { return checkAbout(m.Key, m.Token) }

// Check tells what is wrong with it.
func (m Control) Check() error {
	switch m.Want {
	case Run, Suspend, Cancel:
	default:
		return invalid(m.Key, "what is wanted, %q, is none of run, suspend, cancel", m.Want)
	}
	if m.Recall > Running || m.RecallBy.IsZero() {
		return invalid(m.Key, "a control needs the route's recall deadline, and a recall from 0 to %d", Running)
	}
	return checkAbout(m.Key, m.Token)
}

// Check tells what is wrong with it.
func (m Settle) Check() error { return checkAbout(m.Key, m.Token) }

// Check tells what is wrong with it.
func (m Query) Check() error { return checkAbout(m.Key, m.Token) }
