package console

import (
	"bufio"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// ResourcesPath has the resource model: as it is now, or as it was believed at a moment,
// the query's at (RFC 3339). Its format is json (also without it) or xml, which is
// GLUE 2.0 of one domain, the query's domain; without it our own. Its site, which may be
// given several times, leaves all others out of JSON.
const ResourcesPath = "/api/v1/resources"

// Resources answers GET in JSON.
type Resources struct {
	Revision int64      `json:"revision"`
	Domain   string     `json:"domain,omitempty"` // that this gateway speaks for; "" has no name
	At       *time.Time `json:"at,omitempty"`     // of the last change
	Sites    []Resource `json:"sites"`
}

// Resource is one site of the model.
type Resource struct {
	Domain  string                 `json:"domain,omitempty"` // "" is our own
	Site    string                 `json:"site"`
	Static  *resourcemodel.Static  `json:"static,omitempty"`
	Dynamic *resourcemodel.Dynamic `json:"dynamic,omitempty"`
	// Confirmed is when the gateway that tells of the site last vouched for this; not of an
	// earlier moment.
	Confirmed *time.Time `json:"confirmed,omitempty"`
}

func (a *api) resources(r *http.Request) (any, error) {
	const op = "console.resources"
	q := r.URL.Query()
	var at time.Time
	if text := q.Get("at"); text != "" {
		var err error
		if at, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return nil, fail.Errorf(op, fail.Invalid, "at", "at is %q; expected a time with its zone such as 2026-01-31T18:00:00Z", text)
		}
	}
	format := q.Get("format")
	if format != "" && format != "json" && format != "xml" {
		return nil, fail.Errorf(op, fail.Invalid, "format", "there is no format %q; expected json or xml", format)
	}
	m, err := a.gateway.Resources(r.Context(), at)
	if err != nil {
		return nil, err
	}
	if format != "xml" {
		return stream{"application/json", func(w io.Writer) error { return a.writeResources(w, m, a.sitesOf(q["site"]), at.IsZero()) }}, nil
	}
	domain := q.Get("domain")
	if domain == a.domain() {
		domain = ""
	}
	if domain != "" && !slices.Contains(m.Domains(), domain) {
		return nil, fail.Errorf(op, fail.NotFound, domain, "the model has no domain %q", domain)
	}
	return stream{"application/xml", func(w io.Writer) error {
		name := domain
		if name == "" {
			name = a.domain()
		}
		return resourcemodel.WriteGLUE(w, m, domain, name)
	}}, nil
}

// domain is what our own is called where it needs a name.
func (a *api) domain() string { return cmp.Or(a.options.Domain, modelstore.Nameless) }

// sitesOf gives the keys that SITE and DOMAIN/SITE name, with our own domain left out.
func (a *api) sitesOf(names []string) map[string]bool {
	if len(names) == 0 {
		return nil
	}
	out := map[string]bool{}
	for _, name := range names {
		out[strings.TrimPrefix(name, a.domain()+"/")] = true
	}
	return out
}

// writeResources writes Resources one site after the other; all where only is nil.
func (a *api) writeResources(to io.Writer, m *resourcemodel.Snapshot, only map[string]bool, present bool) error {
	w := bufio.NewWriterSize(to, 1<<16)
	now := time.Now()
	head := Resources{Revision: m.Revision(), Domain: a.options.Domain, At: moment(m.At())}
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	const open = `"sites":null}`
	w.Write(text[:len(text)-len(open)]) //nolint:errcheck // what the writer said is asked once, at the end
	w.WriteString(`"sites":[`)          //nolint:errcheck // likewise
	first := true
	for s := range m.Sites() {
		if only != nil && !only[s.Key.String()] {
			continue
		}
		r := Resource{s.Domain, s.Site, s.Static, s.Dynamic, nil}
		if present {
			if age, ok := a.gateway.Age(s.Key); ok {
				r.Confirmed = moment(now.Add(-age).UTC())
			}
		}
		one, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if !first {
			w.WriteByte(',') //nolint:errcheck // likewise
		}
		first = false
		w.WriteByte('\n') //nolint:errcheck // likewise
		w.Write(one)      //nolint:errcheck // likewise
	}
	w.WriteString("]}\n") //nolint:errcheck // likewise
	return w.Flush()
}
