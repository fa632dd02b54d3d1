package soap

import (
	"bytes"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/gorilla/mux"
)

// NewRouter mounts handlers at paths, each with and without a slash behind it.
// A path that nothing serves is answered with those that are.
func NewRouter(mounts map[string]http.Handler) *mux.Router {
	r := mux.NewRouter().SkipClean(true) // a redirect would turn a POST into a GET
	paths := slices.Sorted(maps.Keys(mounts))
	for _, p := range paths {
		r.Handle(p, mounts[p])
		if p != "/" {
			r.Handle(p+"/", mounts[p])
		}
	}
	served := strings.Join(paths, ", ")
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.Contains(r.Header.Get("Content-Type"), "xml") {
			nowhere(w, r, served)
			return
		}
		http.Error(w, "nothing is served here; served are "+served, http.StatusNotFound)
	})
	return r
}

// nowhere answers a message to a path that nothing serves with a fault that its
// sender's stack can read; wsa:DestinationUnreachable where addressing is used
// (WS-Addressing 1.0 SOAP binding §6.4.3).
func nowhere(w http.ResponseWriter, r *http.Request, served string) {
	refuse(w, r, http.StatusNotFound, func(p *Parsed) *Fault {
		fault := &Fault{Code: Sender, Reason: "nothing is served at " + bounded(r.URL.Path) + "; served are " + served}
		if p.Addressing.Engaged {
			problem := wsaElement("ProblemIRI")
			problem.SetText(p.Addressing.To)
			fault.Subcodes, fault.Action = wsaNames("DestinationUnreachable"), ActionWSAFault
			fault.HeaderDetail = []*etree.Element{problem}
		}
		return fault
	})
}

// Refuse answers a request that is not looked at with a fault: a message as its sender's stack can
// read it, and anything else in plain text, with the fault's status.
func Refuse(w http.ResponseWriter, r *http.Request, f *Fault) {
	if r.Method == http.MethodPost && strings.Contains(r.Header.Get("Content-Type"), "xml") {
		refuse(w, r, f.Status, func(*Parsed) *Fault { return f })
		return
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
	}
	http.Error(w, f.Reason, f.status(V12))
}

// refuse answers a message with a fault and a status, if that is not 0; one that is no message is told so in
// its place.
func refuse(w http.ResponseWriter, r *http.Request, status int, with func(*Parsed) *Fault) {
	x := &exchange{e: &Endpoint{}, w: w, r: r}
	charset, ok := x.media()
	if !ok {
		return
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer putBuffer(buf)
	doc, ok := x.read(buf, charset)
	if !ok {
		return
	}
	p, fault := parseEnvelope(doc, nil)
	x.parsed, x.version = p, p.Version
	if fault == nil {
		fault = parseAddressing(p)
	}
	if fault == nil {
		fault = with(p)
	}
	if status != 0 {
		fault.Status = status
	}
	x.fault(fault, nil)
}

// NewHTTPServer gives a server with bounds on what a client can make it wait for
// and hold: 10 s and 64 KiB for headers, 2 min between requests, 5 min for an
// answer. Endpoint bounds the time of the body. log gets the server's own
// errors; it may be nil.
func NewHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		WriteTimeout:      5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	if log != nil {
		s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelInfo)
	}
	return s
}
