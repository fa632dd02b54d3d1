package plugin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// host keeps a plug-in alive and speaks to it.
type host struct {
	site     string
	dir      string // the plug-in's
	memory   string // the file of the last claims; "" for none
	settings Settings
	log      *slog.Logger
	launch   func(context.Context) (*session, error)
	claims   adapters.Properties // what Open claimed: it stays
	stop     context.CancelFunc
	every    time.Duration // between questions for its health
	patient  time.Duration // for an answer to one
	running  sync.WaitGroup
	odd      rate.Sometimes // that its evidence can't be true is said now and then

	mu       sync.Mutex
	current  *session            // nil while it is down
	props    adapters.Properties // of current
	changed  chan struct{}       // closed and made anew when current changes
	problem  string
	since    time.Time
	starts   int
	ended    string // why the last session was over
	health   adapters.Health
	requests int64 // of sessions that are over
	remark   string
	flights  map[adapters.Tag][]*flight
	live     map[adapters.Tag]adapters.Handle // not seen to have ended
}

// flight is a Submit that the plug-in has not answered.
type flight struct{ landed chan struct{} }

// begin makes the first start. An error that no later start could heal is Open's.
func (h *host) begin(ctx context.Context) error {
	h.changed, h.flights, h.live = make(chan struct{}), map[adapters.Tag][]*flight{}, map[adapters.Tag]adapters.Handle{}
	h.odd = rate.Sometimes{First: 5, Interval: time.Minute}
	if h.every == 0 {
		h.every, h.patient = healthEvery, healthWait
	}
	run, stop := context.WithCancel(context.Background())
	h.stop = stop
	s, props, err := h.start(ctx)
	if adapters.ClassOf(err) == adapters.Permanent {
		stop()
		return err
	}
	h.mu.Lock()
	if err != nil {
		h.problem, h.since = fail.Sentence(err), time.Now()
		if h.claims, err = h.recall(); err != nil {
			h.claims = readProperties(nil)
			h.remark = "what the plug-in can is not known before it started once: open the site again then"
		}
	} else {
		h.claims = props
		h.remember(props)
	}
	h.mu.Unlock()
	if s != nil {
		h.up(s, props)
	}
	h.running.Go(func() { h.run(run, s) })
	return nil
}

// run keeps sessions going until ctx ends; s is up, or nil.
func (h *host) run(ctx context.Context, s *session) {
	delay := leastDelay
	for {
		if s != nil {
			began := time.Now()
			h.attend(ctx, s)
			h.down()
			s.close(h.patience(ctx, s))
			if ctx.Err() != nil {
				return
			}
			why := s.reason()
			h.mu.Lock()
			h.ended, h.problem = why, "the plug-in is down and will be started again: "+why
			h.mu.Unlock()
			h.log.Error("the plug-in is down", "reason", why, "again in", delay)
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
		next, props, err := h.start(ctx)
		if s = next; err == nil {
			h.up(s, props)
		} else {
			h.mu.Lock()
			h.problem = fail.Sentence(err)
			h.mu.Unlock()
			if ctx.Err() == nil {
				h.log.Error("the plug-in could not be started", "error", err, "again in", delay)
			}
		}
	}
}

// patience is how long a session may take to close: none if it has been killed.
func (h *host) patience(ctx context.Context, s *session) time.Duration {
	if ctx.Err() == nil {
		return time.Second
	}
	select {
	case <-s.done:
		return time.Second
	default:
		return stopWait
	}
}

// start makes a session and opens the adapter in it.
func (h *host) start(ctx context.Context) (*session, adapters.Properties, error) {
	const op = "plugin.Open"
	none := adapters.Properties{}
	y, j, err := settingsText(h.settings.Settings)
	if err != nil {
		return nil, none, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.settings.StartTimeout)
	defer cancel()
	s, err := h.launch(ctx)
	if err != nil {
		return nil, none, err
	}
	r, err := s.api.Open(ctx, &proto.OpenRequest{Site: h.site, Directory: h.dir, SettingsYaml: y, SettingsJson: j, Gateway: "portolan"})
	if err != nil {
		refused := refusal("Open", err)
		if refused == nil {
			s.kill("it did not answer Open: %s", status.Convert(err).Message())
		}
		s.close(time.Second)
		if refused != nil {
			return nil, none, refused
		}
		return nil, none, fail.Errorf(op, fail.Unavailable, h.site, "the plug-in could not be opened: %s; %s", clip(status.Convert(err).Message(), 1000), clip(s.how(), 1000)).Because(err)
	}
	return s, readProperties(r.Properties), nil
}

func (h *host) up(s *session, props adapters.Properties) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current, h.props, h.problem, h.since = s, props, "", time.Now()
	h.starts++
	h.health = adapters.Health{}
	if h.remark == "" || h.starts > 1 {
		h.remark = claimsDiffer(h.claims, props)
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// claimsDiffer says what a plug-in claims otherwise than when the site was opened.
func claimsDiffer(before, now adapters.Properties) string {
	if before.Suspend == now.Suspend && before.Hold == now.Hold && before.Push == now.Push && before.Lease == now.Lease {
		return ""
	}
	return "the plug-in claims other abilities than when the site was opened: open the site again to use them"
}

func (h *host) down() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current, h.since = nil, time.Now()
	h.problem = "the plug-in is down"
	h.requests += h.health.Requests
	h.health.Requests = 0
	close(h.changed)
	h.changed = make(chan struct{})
}

// attend returns when the session is over, which it makes happen when the plug-in
// answers nothing any more.
func (h *host) attend(ctx context.Context, s *session) {
	tick := time.NewTicker(h.every)
	defer tick.Stop()
	misses := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			return
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, h.patient)
		err := h.ask(ask, s)
		cancel()
		switch {
		case err == nil, refusal("Health", err) != nil:
			misses = 0
		default:
			if misses++; misses >= healthMisses {
				s.kill("it did not answer %d questions for its health in a row", misses)
			}
		}
	}
}

// ask takes the newest word of the plug-in on its health.
func (h *host) ask(ctx context.Context, s *session) error {
	r, err := s.api.Health(ctx, &proto.HealthRequest{})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == s {
		before := h.health.Requests
		h.health = readHealth(r)
		h.health.Requests = max(h.health.Requests, before)
	}
	return nil
}

// alive says whether there is a session whose program is there. It is called with mu
// held.
func (h *host) alive() bool {
	if h.current == nil {
		return false
	}
	select {
	case <-h.current.done:
		return false
	default:
		return true
	}
}

// session gives the current one, or why there is none.
func (h *host) session(op string) (*session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.alive() {
		return nil, fail.Errorf("plugin."+op, fail.Unavailable, h.site, "%s", cmp.Or(h.problem, "the plug-in is down"))
	}
	return h.current, nil
}

var errTooLong = errors.New("the plug-in took too long")

// call makes one call. The plug-in's own refusals come back as they are; whatever
// else goes wrong is of the kind lost. A call that takes too long ends the plug-in.
func call[Q, R any](ctx context.Context, h *host, op string, lost fail.Kind, q *Q, do func(proto.AdapterClient, context.Context, *Q, ...grpc.CallOption) (*R, error)) (*R, error) {
	s, err := h.session(op)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fail.E("plugin."+op, fail.Unavailable, h.site, err)
	}
	// The plug-in is not told the time: it must be clear who gave up.
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(h.settings.CallTimeout, func() { cancel(errTooLong) })
	defer timer.Stop()
	r, err := do(s.api, limited, q)
	if err == nil {
		return r, nil
	}
	if refused := refusal(op, err); refused != nil {
		return nil, refused
	}
	if ctx.Err() != nil {
		return nil, fail.Errorf("plugin."+op, lost, h.site, "the plug-in had not answered when the call was given up").Because(ctx.Err())
	}
	what := clip(status.Convert(err).Message(), 1000)
	if errors.Is(context.Cause(limited), errTooLong) {
		what = fmt.Sprintf("it did not answer %s within %v", op, h.settings.CallTimeout)
		s.kill("%s", what)
	}
	if lost == fail.Uncertain && status.Code(err) != codes.Unknown {
		// It may still be at work on the call, and must not be when Find is asked.
		s.kill("%s was not answered: %s", op, what)
		<-s.done
	}
	return nil, fail.Errorf("plugin."+op, lost, h.site, "the plug-in gave no answer: %s", what).Because(err)
}

// memory of what the plug-in claimed, for a start of the gateway while it is broken.

func (h *host) remember(p adapters.Properties) {
	if h.memory == "" {
		return
	}
	data, err := json.Marshal(p)
	if err == nil {
		tmp := h.memory + ".new"
		if err = os.WriteFile(tmp, data, 0o600); err == nil {
			err = os.Rename(tmp, h.memory)
		}
	}
	if err != nil {
		h.log.Warn("what the plug-in claims could not be written down", "error", err)
	}
}

func (h *host) recall() (adapters.Properties, error) {
	var p adapters.Properties
	if h.memory == "" {
		return p, os.ErrNotExist
	}
	data, err := os.ReadFile(filepath.Clean(h.memory))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(data, &p)
}
