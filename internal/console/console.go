package console

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// Paths of the API, for the router that it is mounted on.
const (
	SitesPath   = "/api/v1/sites"
	AbandonPath = "/api/v1/activities/{id}/abandon"
)

// Gateway is what the API needs of the broker.
type Gateway interface {
	Sites(context.Context) ([]broker.SiteStatus, error)
	AbandonActivities(context.Context, []soap.EPR) ([]bes.Result, error)
}

// Options say how the API works. The zero value of each works.
type Options struct {
	// Configuration says which file the sites come from; nil when there is none.
	Configuration func() *Configuration
	// Principal says who asks; its error is answered with 401. Nil takes everybody
	// as anonymous.
	Principal func(*http.Request) (soap.Principal, error)
	Log       *slog.Logger
}

// maxRequests bounds the requests that are answered at once.
const maxRequests = 32

type api struct {
	gateway Gateway
	options Options
	slots   chan struct{}
}

// New gives a handler for all paths of the API.
func New(g Gateway, o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &api{gateway: g, options: o, slots: make(chan struct{}, maxRequests)}
}

// ServeHTTP answers one request. No request has a body that is read.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		a.refuse(w, fail.Errorf("console", fail.Unavailable, "", "too many requests at once; try again in a moment"))
		return
	}
	if a.options.Principal != nil {
		who, err := a.options.Principal(r)
		if err != nil {
			a.refuse(w, fail.E("console", fail.Unauthenticated, "", err))
			return
		}
		r = r.WithContext(soap.WithPrincipal(r.Context(), who))
	}
	id, steers := mux.Vars(r)["id"]
	method, do := http.MethodGet, a.sites
	if steers {
		method, do = http.MethodPost, func(ctx context.Context) (any, error) { return a.abandon(ctx, id) }
	}
	if r.Method != method && (method != http.MethodGet || r.Method != http.MethodHead) {
		w.Header().Set("Allow", method)
		a.write(w, http.StatusMethodNotAllowed, Problem{Error: "use " + method + " here"})
		return
	}
	answer, err := do(r.Context())
	if err != nil {
		a.refuse(w, err)
		return
	}
	a.write(w, http.StatusOK, answer)
}

func (a *api) sites(ctx context.Context) (any, error) {
	all, err := a.gateway.Sites(ctx)
	if err != nil {
		return nil, err
	}
	out := Sites{Sites: make([]Site, len(all))}
	for i := range all {
		out.Sites[i] = siteOf(&all[i])
	}
	if a.options.Configuration != nil {
		out.Configuration = a.options.Configuration()
	}
	return out, nil
}

func (a *api) abandon(ctx context.Context, id string) (any, error) {
	if _, err := uuid.Parse(id); err != nil {
		return nil, fail.Errorf("console.abandon", fail.NotFound, "", "there is no such activity")
	}
	rs, err := a.gateway.AbandonActivities(ctx, []soap.EPR{bes.NewEPR("", id)})
	if err != nil {
		return nil, err
	}
	if rs[0].Err != nil {
		return nil, rs[0].Err
	}
	return struct{}{}, nil
}

// Problem is the answer to a request that is refused.
type Problem struct {
	Error string `json:"error"` // a sentence
	Kind  string `json:"kind,omitempty"`
}

// codes give the HTTP status of each kind of error.
var codes = map[fail.Kind]int{
	fail.Invalid: http.StatusBadRequest, fail.Unsupported: http.StatusBadRequest, fail.Unauthenticated: http.StatusUnauthorized,
	fail.Denied: http.StatusForbidden, fail.NotFound: http.StatusNotFound, fail.Conflict: http.StatusConflict,
	fail.NotAccepting: http.StatusServiceUnavailable, fail.Exhausted: http.StatusServiceUnavailable,
	fail.Unavailable: http.StatusServiceUnavailable, fail.Uncertain: http.StatusServiceUnavailable, fail.Internal: http.StatusInternalServerError,
}

func (a *api) refuse(w http.ResponseWriter, err error) {
	kind := fail.KindOf(err)
	code, ok := codes[kind]
	if !ok {
		code = http.StatusInternalServerError
	}
	if code == http.StatusInternalServerError {
		a.options.Log.Error("a request of the JSON API failed", "cause", err)
	}
	a.write(w, code, Problem{Error: fail.Sentence(err), Kind: kind.String()})
}

func (a *api) write(w http.ResponseWriter, code int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		a.options.Log.Error("an answer of the JSON API can't be written", "cause", err)
		http.Error(w, `{"error": "the answer can't be written"}`, http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	w.Write(b.Bytes()) //nolint:errcheck // who asked is gone
}

// Configuration says which file the sites come from.
type Configuration struct {
	File    string     `json:"file"`
	Read    time.Time  `json:"read"`              // when what is in use was read
	Problem string     `json:"problem,omitempty"` // why the file as it is now is not in use
	Since   *time.Time `json:"since,omitempty"`   // of Problem
}
