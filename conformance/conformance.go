package conformance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Profile is what an endpoint is judged as.
type Profile string

// The profiles.
const (
	BES  Profile = "bes"  // an OGSA-BES service
	Peer Profile = "peer" // a gateway's endpoint for those of other domains: docs/peer-protocol.md
	WSAG Profile = "wsag" // a WS-Agreement 1.0 provider
)

// Profiles gives all of them.
func Profiles() []Profile { return []Profile{BES, Peer, WSAG} }

// Options says what is judged and how. Only Endpoint is required; of the profile Peer the
// domain in Guest too.
type Options struct {
	Profile  Profile // BES if ""
	Guest    Guest   // who the kit is, in the profile Peer
	Endpoint string  // the URL of the BES Factory port type, of the peer endpoint, or of the AgreementFactory
	// Listen is where the kit listens for decisions on pending agreements, in the profile
	// WSAG: a host and port by which the endpoint reaches it. "" skips what needs it.
	Listen   string
	HTTP     *http.Client  // nil: a client of the kit's own, which keeps connections
	Log      *slog.Logger  // nil: nothing is logged
	Timeout  time.Duration // for one exchange; default 10 s
	Budget   time.Duration // for the whole run; default 10 min
	Settle   time.Duration // how long an activity may take to reach a state; default 60 s
	Programs Programs      // what the activities run
	// Filter keeps only the checks whose id begins with one of these, numbers counting as a
	// whole; empty keeps all.
	Filter []string
	// Progress is called after each check; nil calls nothing.
	Progress func(Check)
}

// Programs are paths, on the endpoint's own machines, of programs that its
// activities may run.
type Programs struct {
	True  string // ends at once with status 0; default /bin/true
	Sleep string // takes a number of seconds; default /bin/sleep
	Echo  string // writes its arguments; default /bin/echo
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.Profile == "" {
		o.Profile = BES
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Budget <= 0 {
		o.Budget = 10 * time.Minute
	}
	if o.Settle <= 0 {
		o.Settle = time.Minute
	}
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&o.Programs.True, "/bin/true")
	def(&o.Programs.Sleep, "/bin/sleep")
	def(&o.Programs.Echo, "/bin/echo")
}

// Validate says what stands against using the options.
func (o *Options) Validate() error {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fail.Errorf("conformance.Run", fail.Invalid, o.Endpoint,
			"the endpoint %q is not an http or https URL: give one like http://127.0.0.1:8080/bes", o.Endpoint)
	}
	switch o.Profile {
	case "", BES:
	case WSAG:
		if _, _, err := net.SplitHostPort(o.Listen); o.Listen != "" && err != nil {
			return fail.Errorf("conformance.Run", fail.Invalid, o.Listen, "%q is no host and port to listen at: give one like gw.example.org:8099", o.Listen)
		}
	case Peer:
		if err := o.Guest.validate(); err != nil {
			return err
		}
	default:
		return fail.Errorf("conformance.Run", fail.Invalid, string(o.Profile), "there is no profile %q: use %s, %s or %s", o.Profile, BES, Peer, WSAG)
	}
	if len(o.selected()) == 0 {
		return fail.Errorf("conformance.Run", fail.Invalid, strings.Join(o.Filter, ","),
			"no check has an id that begins with %s: List shows the ids", strings.Join(o.Filter, " or "))
	}
	return nil
}

func (o *Options) selected() []check {
	if len(o.Filter) == 0 {
		return checks(o.Profile)
	}
	return slices.DeleteFunc(checks(o.Profile), func(c check) bool {
		return !slices.ContainsFunc(o.Filter, func(f string) bool {
			rest, ok := strings.CutPrefix(strings.ToUpper(c.id), strings.ToUpper(f))
			digit := func(s string, at int) bool { return len(s) > 0 && s[at] >= '0' && s[at] <= '9' }
			return ok && (!digit(rest, 0) || !digit(f, len(f)-1))
		})
	})
}

// check is one thing to prove. Its function gives what it saw; a nil error is a
// pass, a skipped one a skip, any other a failure.
type check struct {
	id, clause, title string
	run               func(context.Context, *probe) (saw string, err error)
}

// checks lists every check of a profile, in the order in which they run: what the others
// build on comes first, what may upset an endpoint comes last.
func checks(of Profile) []check {
	if of == WSAG {
		return wsagChecks()
	}
	if of == Peer {
		return slices.Concat(peerMessageChecks, peerOpenChecks, peerFrameChecks, peerPollChecks, peerResourceChecks, peerQuotaChecks, peerImportChecks, peerJobChecks,
			peerLedgerChecks, peerStrictChecks, peerTwoChecks, peerEndChecks, peerPhaseChecks, peerBusyChecks)
	}
	return slices.Concat(httpChecks, wsdlChecks, soap11Checks, soap12Checks, addressingChecks, factoryAttributeChecks,
		createChecks, submissionChecks, vectorChecks, documentChecks, stateChecks, jsdlChecks, managementChecks, hostileChecks)
}

// List gives the checks of a profile without running them; results are empty.
func List(of Profile) []Check {
	var out []Check
	for _, c := range checks(of) {
		out = append(out, Check{ID: c.id, Clause: c.clause, Title: c.title})
	}
	return out
}

// skipped is the error of a check that could not be made.
type skipped struct{ why string }

func (s skipped) Error() string { return s.why }

func skip(format string, args ...any) error { return skipped{fmt.Sprintf(format, args...)} }

// silent is how many exchanges in a row may go unanswered before the rest is
// not tried: each of them may cost the whole Timeout.
const silent = 4

// Run makes the checks and gives the report. The error says that the options
// cannot be used or that ctx ended; what the endpoint does wrong is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	p := newProbe(o)
	defer p.close(context.WithoutCancel(ctx))
	rep := &Report{Endpoint: o.Endpoint, Started: time.Now()}
	budget, stop := context.WithTimeoutCause(ctx, o.Budget, errBudget)
	defer stop()
	if o.Profile == Peer {
		p.awake(budget)
	}
	for _, c := range o.selected() {
		began := time.Now()
		got := Check{ID: c.id, Clause: c.clause, Title: c.title}
		switch {
		case ctx.Err() != nil:
			return rep, context.Cause(ctx)
		case budget.Err() != nil:
			got.Result, got.Saw = Fail, fmt.Sprintf("not tried: the run's %v were used up by the answers before", o.Budget)
		case p.unanswered >= silent:
			got.Result, got.Saw = Fail, fmt.Sprintf("not tried: the last %d messages got no answer (%v)", p.unanswered, p.lastErr)
		default:
			got.Result, got.Saw = runOne(budget, c, p)
			if got.Result == Fail {
				p.visit = nil // what is wrong with it should not be seen twice
			}
		}
		got.Took = time.Since(began)
		rep.add(got)
		o.Log.DebugContext(ctx, "checked", "id", got.ID, "result", got.Result, "saw", got.Saw)
		if o.Progress != nil {
			o.Progress(got)
		}
	}
	rep.Took, rep.Reached = time.Since(rep.Started), p.reached
	return rep, nil
}

var errBudget = errors.New("the time for the run is used up")

// runOne makes one check. A panic is a mistake of this kit; it costs that
// check's verdict and not the report.
func runOne(ctx context.Context, c check, p *probe) (res Result, saw string) {
	defer func() {
		if v := recover(); v != nil {
			p.opts.Log.ErrorContext(ctx, "a check broke", "id", c.id, "panic", v, "stack", string(debug.Stack()))
			res, saw = Fail, fmt.Sprintf("the check itself broke, which is a mistake of the kit: %v", v)
		}
	}()
	saw, err := c.run(ctx, p)
	if err == nil {
		return Pass, printable(saw)
	}
	if s, ok := errors.AsType[skipped](err); ok {
		return Skip, printable(s.why)
	}
	return Fail, printable(err.Error())
}
