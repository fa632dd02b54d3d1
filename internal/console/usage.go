package console

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/fail"
)

// UsagePath has what was settled of agreements, page by page.
const UsagePath = "/api/v1/agreements/usage"

// Agreements is what the API needs of the service of agreements.
type Agreements interface {
	// Usage gives what was settled of the caller's agreements, and of everybody's where the caller
	// oversees them.
	Usage(context.Context, ledger.Query) (*ledger.Page, error)
}

func (a *api) usage(r *http.Request) (any, error) {
	const op = "console.usage"
	if a.options.Agreements == nil {
		return nil, fail.Errorf(op, fail.NotFound, "", "this gateway makes no agreements: its configuration says agreements.off")
	}
	in := r.URL.Query()
	q := ledger.Query{VO: in.Get("vo"), Before: in.Get("before"), Most: ledger.UsualPage}
	var err error
	if q.From, err = momentIn(in, "from"); err != nil {
		return nil, err
	}
	if q.Until, err = momentIn(in, "until"); err != nil {
		return nil, err
	}
	if text := in.Get("most"); text != "" {
		if q.Most, err = strconv.Atoi(text); err != nil {
			return nil, fail.Errorf(op, fail.Invalid, "most", "most is %q; expected a number from 1 to %d", text, ledger.MaxPage)
		}
	}
	return a.options.Agreements.Usage(r.Context(), q)
}

// momentIn reads a moment of a query; zero is none.
func momentIn(in url.Values, name string) (time.Time, error) {
	text := in.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, fail.Errorf("console.usage", fail.Invalid, name, "%s is %q; expected a time with its zone such as 2026-01-31T18:00:00Z", name, text)
	}
	return t, nil
}
