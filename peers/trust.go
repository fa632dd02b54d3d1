package peers

import (
	"context"
	"crypto/tls"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Sender is who a message is of.
type Sender struct {
	// Domain that the certificate or key is trusted for. It need not be one of a peer:
	// the Table knows those.
	Domain string
	// Method by which this was established: "tls", "signature", or both as "tls+signature".
	Method string
}

// Signer makes an envelope show whom it is of: it adds header blocks (wsse:Security) and
// marks what they cover. The envelope is whole, the prefixes of each header block and of the
// Body's element are declared on themselves, and nothing is changed behind the signer.
type Signer func(ctx context.Context, envelope *etree.Element) error

// Trust is what a gateway believes of other domains, and how it shows them who it is
// itself. internal/identity implements it. It is safe for concurrent use, and what it
// answers may change while sessions go on: a message is judged by what is trusted then.
type Trust interface {
	// Understands names the header blocks that Sender and Answer process, so that
	// mustUnderstand on them is honoured.
	Understands(n xmldoc.Name) bool

	// Sender establishes whom a request is of, before its Body is heeded: by the client's
	// certificate (m.HTTP.TLS, nil without TLS), by a signature that covers Body, addressing
	// and Trace and was made for this domain not long ago, or as its policy asks by both. The
	// error is fail.Unauthenticated where nothing tells it, or fail.Denied where it is told
	// and not trusted; its sentence is shown to the sender.
	Sender(ctx context.Context, m *soap.Parsed) (Sender, error)

	// Answer checks that an answer, or a fault, is of the domain that was asked. conn is the
	// connection that it came on, whose certificate ClientTLS had checked; nil without TLS.
	// The error is as that of Sender. An answer that is not of the domain is none.
	Answer(ctx context.Context, domain string, m *soap.Parsed, conn *tls.ConnectionState) error

	// Signer gives what signs messages to a domain, requests and answers alike; nil where
	// they need none, as the connection tells. domain is "" where it could not be
	// established whom a fault goes to.
	Signer(domain string) Signer

	// ClientTLS gives the settings of connections to a domain: this side's certificate, and
	// what the other's must be. It is asked once for each client; what may change after
	// that belongs into its callbacks. The caller does not change it. nil uses the system's
	// roots and no certificate. The error is fail.Denied where nothing is trusted for the
	// domain.
	ClientTLS(domain string) (*tls.Config, error)
}
