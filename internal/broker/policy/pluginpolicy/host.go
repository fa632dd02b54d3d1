package pluginpolicy

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// Times of a plug-in's life.
const (
	healthEvery = 5 * time.Second
	healthWait  = 5 * time.Second
	stopWait    = 5 * time.Second // between Close and SIGKILL
	leastDelay  = 200 * time.Millisecond
	mostDelay   = time.Minute
	steady      = time.Minute // so long up, and the next start is at once again
	maxMisses   = 3           // calls in a row that fail, and the plug-in is ended
)

// Config is what Open needs.
type Config struct {
	Name     string // settings name the policy "plugin:NAME"
	Dir      string // where the program works; "" is the gateway's own
	Settings Settings
	Log      *slog.Logger // nil: nothing is logged
}

// Host keeps a plug-in alive and makes policies of it. It is safe for use by several
// goroutines at once.
type Host struct {
	name     string
	dir      string
	settings Settings
	log      *slog.Logger
	order    policy.Order // what decides while the plug-in does not
	choice   policy.Choice
	stop     context.CancelFunc
	every    time.Duration // between questions for its health
	running  sync.WaitGroup

	mu       sync.Mutex
	current  *session         // nil while it is down
	claims   *proto.OpenReply // of the last session; nil before the first
	trusted  bool             // current makes the keys
	since    time.Time        // of trusted
	strikes  int              // times that it failed to give keys, of late
	penance  int              // good answers about its health until it may again
	revision uint64           // of the keys
	health   Health
}

// Health is how a plug-in is.
type Health struct {
	Up        bool
	Problem   string    // a sentence, while something is wrong
	Since     time.Time // when Up last changed
	Version   string    // of the plug-in, as it says
	Starts    int
	Ended     string // why it was down the last time
	Decisions int64  // calls that it decided
	Fallbacks int64  // that the built-in policy decided
	Fallback  string // why the last of those
}

// Open starts a plug-in. A program that is none, or of another version of the protocol,
// and settings that are wrong are errors: fail.Invalid, fail.Unsupported. One that
// can't be started now is not, as it may be later; meanwhile the built-in policies
// decide, and Health says why.
func Open(c Config) (*Host, error) { return open(c, healthEvery) }

func open(c Config, every time.Duration) (*Host, error) {
	h := &Host{name: policy.PluginPrefix + c.Name, dir: c.Dir, settings: c.Settings, log: c.Log, every: every}
	if err := (policy.Setting{Name: h.name}).Check(policy.Scheduling); err != nil {
		return nil, err
	}
	if err := h.settings.Validate(); err != nil {
		return nil, err
	}
	h.settings.ensureDefaults()
	var err error
	if h.order, h.choice, err = h.settings.fallbacks(); err != nil {
		return nil, err
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	s, claims, err := h.start(context.Background())
	if fail.Is(err, fail.Invalid) || fail.Is(err, fail.Unsupported) {
		return nil, err
	}
	h.health.Since = time.Now()
	if err != nil {
		h.health.Problem = fail.Sentence(err)
		h.log.Error("the plug-in could not be started", "policy", h.name, "error", err)
	} else {
		h.up(s, claims)
	}
	run, stop := context.WithCancel(context.Background())
	h.stop = stop
	h.running.Go(func() { h.run(run, s) })
	return h, nil
}

// Close ends the plug-in. The policies that were made of it go on with the built-in
// ones.
func (h *Host) Close() error {
	h.stop()
	h.running.Wait()
	return nil
}

// run keeps sessions going until ctx ends; s is up, or nil.
func (h *Host) run(ctx context.Context, s *session) {
	delay := leastDelay
	for {
		if s != nil {
			began := time.Now()
			h.attend(ctx, s)
			h.down("the plug-in is being ended")
			wait := time.Second
			if ctx.Err() != nil {
				wait = stopWait
			}
			s.close(wait)
			if ctx.Err() != nil {
				return
			}
			why := s.reason()
			h.down("the plug-in is down and will be started again: " + why)
			h.mu.Lock()
			h.health.Ended = why
			h.mu.Unlock()
			h.log.Error("the plug-in is down; the built-in policies decide", "policy", h.name, "reason", why, "again in", delay)
			if time.Since(began) > steady {
				delay = leastDelay
			}
		}
		t := time.NewTimer(delay + rand.N(delay/4)) //nolint:gosec // nobody gains by guessing when
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		delay = min(delay*2, mostDelay)
		next, claims, err := h.start(ctx)
		if s = next; err == nil {
			h.up(s, claims)
			continue
		}
		h.mu.Lock()
		h.health.Problem = fail.Sentence(err)
		h.mu.Unlock()
		if ctx.Err() == nil {
			h.log.Error("the plug-in could not be started", "policy", h.name, "error", err, "again in", delay)
		}
	}
}

// start makes a session and opens the policy in it.
func (h *Host) start(ctx context.Context) (*session, *proto.OpenReply, error) {
	ctx, cancel := context.WithTimeout(ctx, h.settings.StartTimeout)
	defer cancel()
	s, err := launch(ctx, &h.settings, h.dir, h.log)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.api.Open(ctx, &proto.OpenRequest{Name: h.name[len(policy.PluginPrefix):], Settings: valid(h.settings.Settings)})
	if err == nil {
		err = goodClaims(r)
	}
	if err != nil {
		what := clip(status.Convert(err).Message(), maxText/2)
		s.close(time.Second)
		return nil, nil, fail.Errorf("pluginpolicy.Open", fail.Unavailable, h.name, "the plug-in %s could not be opened: %s", h.name, what).Because(err)
	}
	return s, r, nil
}

func valid(m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[clip(k, maxText)] = clip(v, maxText)
	}
	return out
}

const maxParameters = 16

// goodClaims holds what a plug-in says of itself to the protocol.
func goodClaims(r *proto.OpenReply) error {
	if !r.Orders && !r.Chooses {
		return fmt.Errorf("it neither orders jobs nor chooses places")
	}
	if len(r.Parameters) > maxParameters {
		return fmt.Errorf("it has %d parameters; at most %d are taken", len(r.Parameters), maxParameters)
	}
	for _, p := range r.Parameters {
		one := policy.Setting{Name: policy.PluginPrefix + "x", Parameters: map[string]float64{p.GetName(): p.GetDefault()}}
		if one.Check(policy.Scheduling) != nil || !(p.Least <= p.Default && p.Default <= p.Most) {
			return fmt.Errorf("its parameter %q has no good name, or a default that is not within its bounds", clip(p.GetName(), 100))
		}
	}
	return nil
}

func (h *Host) up(s *session, claims *proto.OpenReply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current, h.claims = s, claims
	if claims.Orders && h.penance == 0 {
		h.trust()
	}
	h.health.Up, h.health.Problem, h.health.Since = true, "", time.Now()
	h.health.Version = clip(claims.Version, 200)
	h.health.Starts++
}

// trust lets the plug-in make the keys. It is called with mu held.
func (h *Host) trust() {
	h.trusted, h.since = true, time.Now()
	h.revision++
}

// distrust lets the built-in policy make the keys: until the plug-in is well again, and
// the longer the more often it failed, since all waiting jobs are put in order anew each
// time.
func (h *Host) distrust(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.trusted || h.current != s {
		return
	}
	if time.Since(h.since) > steady {
		h.strikes = 0
	}
	h.trusted = false
	h.revision++
	h.penance = 1 << min(h.strikes, 7)
	h.strikes++
}

func (h *Host) down(problem string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trusted {
		h.trusted = false
		h.revision++
	}
	h.current = nil
	if h.health.Up {
		h.health.Up, h.health.Since = false, time.Now()
	}
	h.health.Problem = problem
}

// attend returns when the session is over, which it makes happen when the plug-in
// answers nothing any more.
func (h *Host) attend(ctx context.Context, s *session) {
	tick := time.NewTicker(h.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.proc.done:
			return
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, healthWait)
		r, err := s.api.Health(ask, &proto.HealthRequest{})
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.count(err)
			continue
		}
		h.mu.Lock()
		h.health.Problem = clip(r.Problem, maxText)
		if h.penance > 0 {
			if h.penance--; h.penance == 0 && !h.trusted && h.claims.Orders {
				h.trust()
			}
		}
		h.mu.Unlock()
	}
}

// Health tells how the plug-in is.
func (h *Host) Health() Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.health
}

// Descriptions are the plug-in's entries in the catalogue: one for each kind that it
// decides; none before it was first up.
func (h *Host) Descriptions() []policy.Description {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.claims == nil {
		return nil
	}
	d := policy.Description{Name: h.name, What: clip(h.claims.What, maxText)}
	for _, p := range h.claims.Parameters {
		unit := policy.Number
		if p.Duration {
			unit = policy.Duration
		}
		d.Parameters = append(d.Parameters, policy.Parameter{Name: p.Name, What: clip(p.What, maxText), Default: p.Default, Least: p.Least, Most: p.Most, Unit: unit})
	}
	var out []policy.Description
	if h.claims.Orders {
		d.Kind = policy.Scheduling
		out = append(out, d)
	}
	if h.claims.Chooses {
		d.Kind = policy.Selection
		out = append(out, d)
	}
	return out
}

// prepare checks a setting of a kind and completes its parameters. What can't be
// checked since the plug-in was never up is taken.
func (h *Host) prepare(k policy.Kind, s policy.Setting) (map[string]float64, error) {
	const op = "pluginpolicy.New"
	if s.Name != h.name {
		return nil, fail.Errorf(op, fail.Unsupported, s.Name, "there is no plug-in %s here; this one is %s", s.Name, h.name)
	}
	if err := s.Check(k); err != nil {
		return nil, err
	}
	all := h.Descriptions()
	if all == nil {
		return s.Parameters, nil
	}
	for i := range all {
		if all[i].Kind != k {
			continue
		}
		if err := all[i].Check(s); err != nil {
			return nil, err
		}
		full := all[i].Complete(s).Parameters
		session := h.session()
		if session == nil {
			return full, nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*h.settings.Timeout)
		defer cancel()
		if r, err := session.api.Check(ctx, &proto.CheckRequest{Parameters: full}); err == nil && r.Problem != "" {
			return nil, fail.Errorf(op, fail.Invalid, s.Name, "%s: %s", s.Name, clip(r.Problem, maxText))
		}
		return full, nil
	}
	return nil, fail.Errorf(op, fail.Unsupported, s.Name, "%s is no policy of %s: it is one of %s", s.Name, k, all[0].Kind)
}

// NewOrder makes a scheduling policy of the plug-in. It is a policy.Batched and a
// policy.Revised.
func (h *Host) NewOrder(s policy.Setting) (policy.Order, error) {
	p, err := h.prepare(policy.Scheduling, s)
	if err != nil {
		return nil, err
	}
	return &order{h: h, parameters: p}, nil
}

// NewChoice makes a selection policy of the plug-in.
func (h *Host) NewChoice(s policy.Setting) (policy.Choice, error) {
	p, err := h.prepare(policy.Selection, s)
	if err != nil {
		return nil, err
	}
	return &choice{h: h, parameters: p}, nil
}

// session gives the current one; nil while the plug-in is down.
func (h *Host) session() *session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current
}

// decided takes note of a decision: by the plug-in, or for a reason not.
func (h *Host) decided(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if why == "" {
		h.health.Decisions++
		return
	}
	h.health.Fallbacks++
	h.health.Fallback = why
}

// finite reports whether a number can be compared and stored.
func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
