package console

import (
	"io"
	"net/http"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// TracePath writes down what is decided from now on and for the time of the query's for
// ("10m", without it a minute), in the form that "portolan replay" reads.
const TracePath = "/api/v1/trace"

func (a *api) trace(r *http.Request) (any, error) {
	d := time.Minute
	if text := r.URL.Query().Get("for"); text != "" {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			return nil, fail.Errorf("console.trace", fail.Invalid, "for", "for is %q; expected a time such as 90s or 10m", text)
		}
	}
	return stream{"application/x-ndjson", func(w io.Writer) error { return a.gateway.Trace(r.Context(), w, d) }}, nil
}
