package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/peers/discovery"
	"github.com/portolan-project/portolan/peers/status"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Paths of the API.
const (
	SitesPath   = "/api/v1/sites"
	AbandonPath = "/api/v1/activities/{id}/abandon"
)

// Paths gives all of them, for the router that the API is mounted on.
func Paths() []string {
	out := make([]string, len(operations))
	for i, o := range operations {
		out[i] = o.path
	}
	return slices.Compact(slices.Sorted(slices.Values(out)))
}

// Gateway is what the API needs of the broker.
type Gateway interface {
	Sites(context.Context) ([]broker.SiteStatus, error)
	AbandonActivities(context.Context, []soap.EPR) ([]bes.Result, error)
	FenceSite(ctx context.Context, site, reason string, died time.Time) (*broker.FenceReport, error)
	ForgetFence(ctx context.Context, site string) error
	broker.Scheduling
	// Age gives how long ago a site's values were last vouched for.
	Age(resourcemodel.Key) (time.Duration, bool)
	broker.Limiting
	Compare(ctx context.Context, most int) (*schedule.Comparison, error)
	Trace(ctx context.Context, w io.Writer, d time.Duration) error
}

// Options say how the API works. The zero value of each works.
type Options struct {
	// Configuration says which file the sites come from; nil when there is none.
	Configuration func() *Configuration
	// Principal says who asks; its error is answered with 401. Nil takes everybody
	// as anonymous.
	Principal func(*http.Request) (soap.Principal, error)
	// Version is that of the program, for the description of the API.
	Version string
	// Domain is what this gateway speaks for; "" is one without a name, whose sites
	// GLUE 2.0 documents have as those of "local".
	Domain string
	// Peers keeps the sessions with other domains; nil where there are none.
	Peers Peers
	// Purchases buys capacity of them; nil where nothing is bought.
	Purchases Purchases
	// Finder looks for further ones; nil where nobody may.
	Finder Finder
	// Agreements tells what of them was settled; nil where there are none.
	Agreements Agreements
	Log        *slog.Logger
}

// maxRequests bounds the requests that are answered at once.
const maxRequests = 32

// maxBody bounds what a request brings, in bytes.
const maxBody = 4 << 20

// bodyTime bounds how long that may take.
const bodyTime = 30 * time.Second

type api struct {
	gateway Gateway
	options Options
	slots   chan struct{}
	router  *mux.Router
	// description is of this API. It is made of the table once: to make it there would
	// have the table need itself.
	description any
}

// operation is something that can be asked. It gives what is written as JSON, or a
// stream, which writes itself. The table of them makes the routes and the description of
// the API alike, so that none can be there without the other.
type operation struct {
	method, path string
	do           func(*api, *http.Request) (any, error)
	name, what   string // an identifier for programs; a sentence for people
	query        []parameter
	takes        *content  // nil: nothing
	gives        []content // as the request chooses, the usual one first
}

// parameter is one of the query.
type parameter struct {
	name, what string
	of         any // a value of its type
	several    bool
}

// content is what a request or an answer has: JSON of a Go type, or text of another media
// type.
type content struct {
	mediaType string
	of        any // a value of the type that it is written from or read into; nil for text
}

func asJSON(of any) content { return content{"application/json", of} }

var operations = []operation{
	{
		method: http.MethodGet, path: SitesPath, do: (*api).sites, name: "getSites",
		what:  "Sites with their health, versions, capacity and jobs, and which configuration is in use.",
		gives: []content{asJSON(Sites{})},
	},
	{
		method: http.MethodPost, path: AbandonPath, do: (*api).abandon, name: "abandonActivity",
		what:  "Give an activity up whose site can't be asked any more: it is failed.",
		gives: []content{asJSON(struct{}{})},
	},
	{
		method: http.MethodPost, path: FencePath, do: (*api).fence, name: "fenceSite",
		what:  "Vouch that a site which does not answer runs nothing any more of what it was given, so that its jobs run elsewhere.",
		takes: &content{"application/json", FenceRequest{}}, gives: []content{asJSON(broker.FenceReport{})},
	},
	{
		method: http.MethodDelete, path: FencePath, do: (*api).forgetFence, name: "forgetFence",
		what:  "Forget a fenced site that is not configured any more.",
		gives: []content{asJSON(struct{}{})},
	},
	{
		method: http.MethodGet, path: DecisionsPath, do: (*api).decisions, name: "getDecisions",
		what:  "The placements of an activity with their reasons.",
		gives: []content{asJSON(Decisions{})},
	},
	{
		method: http.MethodGet, path: PoliciesPath, do: (*api).policies, name: "getPolicies",
		what:  "Which policies decide, which there are, and who changed them.",
		gives: []content{asJSON(Policies{})},
	},
	{
		method: http.MethodPut, path: PoliciesPath, do: (*api).setPolicy, name: "setPolicy",
		what:  "Put a policy in force or in shadow, or take it away where there is no setting. The answer has what holds then.",
		takes: &content{"application/json", SetPolicy{}}, gives: []content{asJSON(Policies{})},
	},
	{
		method: http.MethodGet, path: ComparePath, do: (*api).compare, name: "comparePolicies",
		what:  "How the policies in shadow would have decided the newest decisions.",
		query: []parameter{{name: "most", what: "of the newest decisions, at most so many; 10000 without it", of: 0}},
		gives: []content{asJSON(schedule.Comparison{})},
	},
	{
		method: http.MethodGet, path: LimitsPath, do: (*api).limits, name: "getLimits",
		what:  "The limits of users, VOs and sites, what counts towards them, and who changed them.",
		gives: []content{asJSON(Limits{})},
	},
	{
		method: http.MethodPut, path: LimitsPath, do: (*api).setLimit, name: "setLimit",
		what:  "Put a limit in force, or take it away where there is no max. The answer has what holds then.",
		takes: &content{"application/json", SetLimit{}}, gives: []content{asJSON(Limits{})},
	},
	{
		method: http.MethodPost, path: MatchPath, do: (*api).match, name: "match",
		what:  "What would become of a job with this JSDL document. Nothing is changed.",
		query: []parameter{{name: "vo", what: "the VO that the job would run for", of: ""}},
		takes: &content{"application/xml", nil}, gives: []content{asJSON(Match{})},
	},
	{
		method: http.MethodGet, path: ResourcesPath, do: (*api).resources, name: "getResources",
		what: "The resource model, as it is or as it was believed at a moment.",
		query: []parameter{
			{name: "at", what: "the moment; now without it", of: time.Time{}},
			{name: "format", what: "json, also without it, or xml, which is GLUE 2.0 of one domain", of: ""},
			{name: "domain", what: "the domain of the XML; our own without it", of: ""},
			{name: "site", what: "of the JSON, only this site: NAME, or DOMAIN/NAME", of: "", several: true},
		},
		gives: []content{asJSON(Resources{}), {"application/xml", nil}},
	},
	{
		method: http.MethodGet, path: TracePath, do: (*api).trace, name: "getTrace",
		what:  "What the scheduler is told and decides from now on, one JSON object a line, for 'portolan replay'.",
		query: []parameter{{name: "for", what: "how long, such as 90s or 10m; 1m without it", of: ""}},
		gives: []content{{"application/x-ndjson", nil}},
	},
	{
		method: http.MethodGet, path: UsagePath, do: (*api).usage, name: "getUsage",
		what: "What was settled of agreements that have ended: what their jobs used, and what is due. The newest come first; next, if it is there, asks for those that follow.",
		query: []parameter{
			{name: "vo", what: "only agreements of this VO", of: ""},
			{name: "from", what: "only those that ended at this moment or later", of: time.Time{}},
			{name: "until", what: "only those that ended before this moment", of: time.Time{}},
			{name: "before", what: "the next of the answer before", of: ""},
			{name: "most", what: "look at so many agreements at most, up to 1000; 200 without it", of: 0},
		},
		gives: []content{asJSON(ledger.Page{})},
	},
	{
		method: http.MethodGet, path: PeersPath, do: (*api).peers, name: "getPeers",
		what:  "The domains that this gateway works with: sessions, jobs given and taken, and the ledger's balance.",
		gives: []content{asJSON(PeerList{})},
	},
	{
		method: http.MethodPost, path: PeersPath, do: (*api).addPeer, name: "addPeer",
		what:  "Trust the key with a fingerprint for a domain, and open a session with the endpoint that shows it.",
		takes: &content{"application/json", AddPeer{}}, gives: []content{asJSON(status.Peer{})},
	},
	{
		method: http.MethodGet, path: PeerPath, do: (*api).peer, name: "getPeer",
		what:  "One of the domains that this gateway works with.",
		gives: []content{asJSON(status.Peer{})},
	},
	{
		method: http.MethodDelete, path: PeerPath, do: (*api).removePeer, name: "removePeer",
		what:  "End the relation with a domain: the session is drained, and then its key is not trusted any more.",
		query: []parameter{{name: "now", what: "close it at once; what is under way is recalled by its deadline", of: false}},
		gives: []content{asJSON(status.Peer{})},
	},
	{
		method: http.MethodGet, path: PeerLedgerPath, do: (*api).peerLedger, name: "getPeerLedger",
		what:  "Who ran how much for whom: balance, statements and what was said to them.",
		query: []parameter{{name: "most", what: "of each account, at most so many of the newest statements; 100 without it", of: 0}},
		gives: []content{asJSON(status.Ledger{})},
	},
	{
		method: http.MethodPost, path: InspectPath, do: (*api).inspectPeer, name: "inspectPeer",
		what:  "What an endpoint shows of itself: domain, certificate and the fingerprint to compare. Nothing is changed.",
		takes: &content{"application/json", InspectPeer{}}, gives: []content{asJSON(status.Offer{})},
	},
	{
		method: http.MethodPost, path: ProposalsPath, do: (*api).discover, name: "discoverPeers",
		what:  "Look for gateways in the list of the configuration, in the DNS and on the LAN. They are proposals: none is trusted.",
		takes: &content{"application/json", Discover{}}, gives: []content{asJSON(discovery.Found{})},
	},
	{
		method: http.MethodGet, path: PurchasesPath, do: (*api).purchases, name: "getPurchases",
		what:  "The capacity that was bought of other domains, or is to be.",
		gives: []content{asJSON(PurchaseList{})},
	},
	{
		method: http.MethodPost, path: PurchasesPath, do: (*api).buy, name: "buy",
		what:  "Buy capacity of another domain for a window. What comes of it is seen in its state.",
		takes: &content{"application/json", Buy{}}, gives: []content{asJSON(Purchase{})},
	},
	{
		method: http.MethodGet, path: PurchasePath, do: (*api).purchase, name: "getPurchase",
		what:  "Capacity that was bought, or is to be.",
		gives: []content{asJSON(Purchase{})},
	},
	{
		method: http.MethodDelete, path: PurchasePath, do: (*api).release, name: "releasePurchase",
		what:  "Give capacity back that was bought, or stop buying it.",
		gives: []content{asJSON(Purchase{})},
	},
	{
		method: http.MethodGet, path: DescriptionPath, do: (*api).described, name: "getDescription",
		what:  "This description of the API.",
		gives: []content{asJSON(map[string]any{})},
	},
}

// stream is an answer that is too large to be made in memory.
type stream struct {
	mediaType string
	write     func(io.Writer) error
}

// New gives a handler for all Paths.
func New(g Gateway, o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &api{gateway: g, options: o, slots: make(chan struct{}, maxRequests), router: mux.NewRouter().SkipClean(true)}
	a.description = describe(operations, o.Version)
	methods := map[string][]string{}
	for _, op := range operations {
		methods[op.path] = append(methods[op.path], op.method)
		a.router.HandleFunc(op.path, func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, op.do) }).Methods(op.method)
		if op.method == http.MethodGet {
			a.router.HandleFunc(op.path, func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, op.do) }).Methods(http.MethodHead)
		}
	}
	for _, path := range Paths() { // with a method that the path has not
		a.router.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", strings.Join(methods[path], ", "))
			a.write(w, http.StatusMethodNotAllowed, Problem{Error: "use " + strings.Join(methods[path], " or ") + " here"})
		})
	}
	a.router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a.refuse(w, fail.Errorf("console", fail.NotFound, "", "the API has no such path"))
	})
	return a
}

// ServeHTTP answers one request.
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
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	a.router.ServeHTTP(w, r)
}

func (a *api) answer(w http.ResponseWriter, r *http.Request, do func(*api, *http.Request) (any, error)) {
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		// Whoever sends slowly must not hold one of the few slots.
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(time.Now().Add(bodyTime)) // some writers of tests can't
		b, err := body(r)
		if err != nil {
			a.refuse(w, err)
			return
		}
		_ = c.SetReadDeadline(time.Time{})
		r.Body = io.NopCloser(bytes.NewReader(b))
	}
	answer, err := do(a, r)
	if err != nil {
		a.refuse(w, err)
		return
	}
	s, ok := answer.(stream)
	if !ok {
		a.write(w, http.StatusOK, answer)
		return
	}
	if r.Method == http.MethodHead {
		headers(w, s.mediaType)
		return
	}
	out := &lazy{w: w, mediaType: s.mediaType}
	if err := s.write(out); err != nil {
		if !out.begun {
			a.refuse(w, err)
			return
		}
		if r.Context().Err() == nil {
			a.options.Log.Warn("an answer of the API could not be written to its end", "cause", err)
		}
		panic(http.ErrAbortHandler) // so that nobody takes it for whole
	}
	out.begin()
	out.renew()
}

// partTime bounds how long each part of an answer may take that goes on for longer than
// the server gives an answer.
const partTime = time.Minute

// lazy sends its headers with the first byte, so that until then a request can be refused.
type lazy struct {
	w         http.ResponseWriter
	mediaType string
	begun     bool
	lasts     bool // it sends its parts as they come
}

func (l *lazy) begin() {
	if !l.begun {
		l.begun = true
		headers(l.w, l.mediaType)
	}
}

func (l *lazy) Write(p []byte) (int, error) {
	l.begin()
	l.renew()
	return l.w.Write(p)
}

// Flush sends what was written, for answers that go on for long.
func (l *lazy) Flush() {
	l.lasts = true
	l.renew()
	_ = http.NewResponseController(l.w).Flush() // some writers can't
}

// renew gives an answer that lasts time for its next part.
func (l *lazy) renew() {
	if l.lasts {
		_ = http.NewResponseController(l.w).SetWriteDeadline(time.Now().Add(partTime)) // likewise
	}
}

// body reads what a request brings.
func body(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(r.Body)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, fail.Errorf("console", fail.Invalid, "", "the request has more than %d bytes", maxBody)
	}
	if err != nil {
		return nil, fail.Errorf("console", fail.Invalid, "", "the request could not be read to its end").Because(err)
	}
	return b, nil
}

// decode reads what a request brings as one JSON object with no other keys than those of
// the struct; keys names them for people.
func decode(r *http.Request, into any, keys string) error {
	b, err := body(r)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fail.Errorf("console", fail.Invalid, "", "the request is no JSON object with %s: %v", keys, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fail.Errorf("console", fail.Invalid, "", "more follows the JSON object with %s", keys)
	}
	return nil
}

// activity gives the reference of the activity that a path names.
func activity(r *http.Request) (soap.EPR, error) {
	id := mux.Vars(r)["id"]
	if _, err := uuid.Parse(id); err != nil {
		return soap.EPR{}, fail.Errorf("console", fail.NotFound, "", "there is no such activity")
	}
	return bes.NewEPR("", id), nil
}

func (a *api) sites(r *http.Request) (any, error) {
	all, err := a.gateway.Sites(r.Context())
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

func (a *api) abandon(r *http.Request) (any, error) {
	which, err := activity(r)
	if err != nil {
		return nil, err
	}
	rs, err := a.gateway.AbandonActivities(r.Context(), []soap.EPR{which})
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
	headers(w, "application/json")
	w.WriteHeader(code)
	w.Write(b.Bytes()) //nolint:errcheck // who asked is gone
}

func headers(w http.ResponseWriter, mediaType string) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// Configuration says which file the sites come from.
type Configuration struct {
	File    string     `json:"file"`
	Read    time.Time  `json:"read"`              // when what is in use was read
	Problem string     `json:"problem,omitempty"` // why the file as it is now is not in use
	Since   *time.Time `json:"since,omitempty"`   // of Problem
}
