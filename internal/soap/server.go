package soap

import (
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

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
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "nothing is served here; served are "+served, http.StatusNotFound)
	})
	return r
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
