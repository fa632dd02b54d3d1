package door

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/members"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Users says who the users of other domains are here, and vouches for one's own there:
// identity.Users.
type Users interface {
	VouchAsking(to, user, vo string) ([]byte, error)
	TakeAsking(peer, vo string, assertion []byte) (identity.Local, error)
}

// Options are those of a Door. Domain, Trust, Users and Member are required.
type Options struct {
	Domain string // one's own
	Trust  peers.Trust
	Users  Users
	// Member gives what is said of a peer, as it is now; false for a domain that is none.
	Member func(domain string) (members.Member, bool)
	// Transport carries requests to a peer; nil connects with the settings that Trust gives.
	Transport func(domain string) (http.RoundTripper, error)
	// AtOnce bounds the requests of one peer that are answered at a time; 0 is 32.
	AtOnce    int
	UserAgent string
	Log       *slog.Logger // nil discards
}

// Door is the way in for peers, and out to them. It is safe for concurrent use.
type Door struct {
	o Options

	mu    sync.Mutex
	ways  map[string]http.RoundTripper // to peers
	under map[string]int               // requests of peers that are answered
}

// New makes a Door.
func New(o Options) *Door {
	if o.AtOnce == 0 {
		o.AtOnce = 32
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Door{o: o, ways: map[string]http.RoundTripper{}, under: map[string]int{}}
}

// ServeOptions are those of Handler.
type ServeOptions struct {
	// ExternalURL is the endpoint's address as peers see it; "" takes it from each request.
	ExternalURL string
	Observe     func(operation string, status int, took time.Duration)
}

// Handler answers peers. What svc and n are asked is asked by a soap.Principal with a Domain.
func (d *Door) Handler(svc agreement.Service, n agreement.Negotiator, o ServeOptions) http.Handler {
	endpoint := agreement.NewServer(svc, agreement.ServerOptions{
		Negotiator: n, Verifier: d, ExternalURL: o.ExternalURL, Log: d.o.Log, Observe: o.Observe,
		Signer: func(to soap.Principal) func(context.Context, *etree.Element) error {
			return d.o.Trust.Signer(to.Domain)
		},
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Whom it is of is told by the message; what is counted here is by the certificate, as one that
		// was not read yet takes room already.
		by := keyOf(r.TLS)
		if !d.enter(by) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many of your requests are being answered: try again later", http.StatusServiceUnavailable)
			return
		}
		defer d.leave(by)
		// Managers of sites may be asked, who take their time.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // not every connection has one
		endpoint.ServeHTTP(w, r)
	})
}

// answerTime is how long an answer may take.
const answerTime = 4 * time.Minute

// keyOf names who connected, for counting.
func keyOf(conn *tls.ConnectionState) string {
	if conn == nil || len(conn.PeerCertificates) == 0 {
		return ""
	}
	return identity.PinOf(conn.PeerCertificates[0]).String()
}

func (d *Door) enter(by string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.under[by] >= d.o.AtOnce {
		return false
	}
	d.under[by]++
	return true
}

func (d *Door) leave(by string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.under[by]--; d.under[by] == 0 {
		delete(d.under, by)
	}
}

// onBehalf is the header block that says for which user a domain asks.
var onBehalf = xmldoc.Name{Space: agreement.NSPortolan, Local: "OnBehalf"}

// maxAssertion bounds what is read of one, in bytes.
const maxAssertion = 16 << 10

// Understands implements soap.Verifier.
func (d *Door) Understands(n xmldoc.Name) bool { return n == onBehalf || d.o.Trust.Understands(n) }

// Verify implements soap.Verifier: it says who asks, and refuses whom the administrator did not
// allow to.
func (d *Door) Verify(ctx context.Context, m *soap.Parsed) (*soap.Verified, error) {
	const op = "door.Verify"
	who, err := d.o.Trust.Sender(ctx, m)
	if err != nil {
		return nil, err
	}
	if who.Domain == "" {
		return nil, fail.Errorf(op, fail.Unauthenticated, "", "it could not be told which domain the message is of")
	}
	// A signature alone would be as good again tomorrow.
	if m.HTTP != nil && m.HTTP.TLS == nil && who.Method == "signature" {
		return nil, fail.Errorf(op, fail.Unauthenticated, who.Domain, "agreements are made over TLS, where both sides show their certificates")
	}
	peer, ok := d.o.Member(who.Domain)
	switch {
	case !ok:
		return nil, fail.Errorf(op, fail.Denied, who.Domain, "the domain %s is no peer of %s", who.Domain, d.o.Domain)
	case !peer.Agreements:
		return nil, fail.Errorf(op, fail.Denied, who.Domain, "the domain %s makes no agreements with %s: its administrator has to allow it (agreements: true)", d.o.Domain, who.Domain)
	}
	p := soap.Principal{Name: identity.DomainOwner(who.Domain), Method: who.Method, Domain: who.Domain}
	blocks := m.Blocks(onBehalf.Space, onBehalf.Local)
	if len(blocks) > 1 {
		return nil, fail.Errorf(op, fail.Invalid, who.Domain, "the message has %d OnBehalf headers; one is asked for", len(blocks))
	}
	for _, b := range blocks {
		token, vo := xmldoc.Collapse(xmldoc.Text(b)), ""
		if v, ok := xmldoc.Attr(b, "", "vo"); ok {
			vo = v
		}
		if len(token) > maxAssertion {
			return nil, fail.Errorf(op, fail.Invalid, who.Domain, "the assertion about the user is longer than %d bytes", maxAssertion)
		}
		local, err := d.o.Users.TakeAsking(who.Domain, vo, []byte(token))
		if err != nil {
			return nil, err
		}
		p.Name, p.Account, p.VO = local.Owner, local.Account, local.VO
	}
	return &soap.Verified{Parsed: m, Principal: p}, nil
}

// View gives what of the model a guest may be promised: the sites of one's own that the peer is shown.
func (d *Door) View(who soap.Principal, m *resourcemodel.Snapshot) (*resourcemodel.Snapshot, error) {
	peer, ok := d.o.Member(who.Domain)
	if !ok || !peer.Agreements {
		return nil, fail.Errorf("door.View", fail.Denied, who.Domain, "the domain %s makes no agreements with %s any more", d.o.Domain, who.Domain)
	}
	var gone []resourcemodel.Change
	for site := range m.Sites() {
		if site.Domain != "" || len(peer.Export.Sites) > 0 && !slices.Contains(peer.Export.Sites, site.Site) {
			gone = append(gone, resourcemodel.Change{Key: site.Key, Gone: true})
		}
	}
	if len(gone) == 0 {
		return m, nil
	}
	return m.Apply(resourcemodel.Delta{Revision: m.Revision() + apart, At: m.At(), Changes: gone})
}

// apart keeps the revisions of what guests are shown from those of the model: what is remembered of
// one must not be taken for the other's.
const apart = 1 << 40

// Admit says why a guest may not have a service: a job, or else capacity, of so many CPUs for so long.
func (d *Door) Admit(who soap.Principal, vo string, job bool, cpus int64, wall time.Duration) error {
	const op = "door.Admit"
	peer, ok := d.o.Member(who.Domain)
	user := who.Name != identity.DomainOwner(who.Domain)
	switch {
	case !ok || !peer.Agreements || !peer.Provides:
		return fail.Errorf(op, fail.Denied, who.Domain, "the domain %s promises nothing to %s", d.o.Domain, who.Domain)
	case job && (!user || who.Account == ""):
		return fail.Errorf(op, fail.Denied, who.Domain, "a job runs for a user: %s has to say for whom, by an assertion; without one it may have capacity", who.Domain)
	case user && vo != who.VO:
		return fail.Errorf(op, fail.Denied, who.Name, "%s comes here for the VO %q, and the offer is for the VO %q: they have to be the same", who.Name, who.VO, vo)
	case !user && vo != "" && !slices.Contains(peer.VOs, vo): // whose budget it would spend, though no user of it asks
		return fail.Errorf(op, fail.Denied, who.Domain, "the domain %s does not act for the VO %q here: its administrator has to name the VO (vos of the peer), or the offer to be for none", who.Domain, vo)
	}
	return routing.Admit(routing.Asking{Peer: who.Domain, Origin: who.Domain, VO: vo, CPUs: int(max(1, cpus)), WallTime: wall}, peer.Admission)
}
