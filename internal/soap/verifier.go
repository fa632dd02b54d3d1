package soap

import (
	"context"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// DevVerifier lets everybody in. It is for a gateway of one developer on
// loopback: a WS-Security header is understood, so that clients which insist on
// one are served, but no password, timestamp or signature in it is looked at,
// and whoever sends is "anonymous", established by "none".
type DevVerifier struct{}

// Understands says yes to wsse:Security.
func (DevVerifier) Understands(n xmldoc.Name) bool {
	return n == xmldoc.Name{Space: NSWSSE, Local: "Security"}
}

// Verify refuses only a second wsse:Security for us, which would be wrong under
// any policy (SOAP Message Security 1.0 §5).
func (DevVerifier) Verify(_ context.Context, m *Parsed) (*Verified, error) {
	if n := len(m.Blocks(NSWSSE, "Security")); n > 1 {
		return nil, SecurityFault("InvalidSecurity", "%d wsse:Security headers are aimed at this endpoint: send one", n)
	}
	return &Verified{Parsed: m, Principal: Principal{Name: "anonymous", Method: "none"}}, nil
}
