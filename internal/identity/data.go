package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"

	"github.com/portolan-project/portolan/internal/fail"
)

// mostSignature bounds a signature with its certificate: what fits into an item of the protocol.
const mostSignature = 1024

// Sign signs data with this domain's key: SHA-256, behind the certificate of the key, the
// length of which comes first in two bytes, big end first. Whoever keeps it can check it
// later without asking. fail.Unsupported says that the certificate is too large for that.
func (g *Gateway) Sign(data []byte) ([]byte, error) {
	c := g.Identity.Current()
	sum := sha256.Sum256(data)
	sig, err := c.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fail.E("identity.Sign", fail.Internal, g.Domain(), err)
	}
	leaf := c.Chain[0].Raw
	if 2+len(leaf)+len(sig) > mostSignature {
		return nil, fail.Errorf("identity.Sign", fail.Unsupported, g.Domain(), "the gateway's certificate of %d bytes is too large to go with what is signed; one of an ECDSA key fits", len(leaf))
	}
	out := binary.BigEndian.AppendUint16(nil, uint16(len(leaf)))
	return append(append(out, leaf...), sig...), nil
}

// Verify checks that data was signed by the domain, as far as its key is trusted now:
// fail.Denied if not.
func (g *Gateway) Verify(domain string, data, signature []byte) error {
	denied := func(err error) error {
		return fail.Errorf("identity.Verify", fail.Denied, domain, "the signature is not one of the domain %s over what it is said to be over", domain).Because(err)
	}
	if len(signature) < 2 || len(signature) > mostSignature {
		return denied(nil)
	}
	n := int(binary.BigEndian.Uint16(signature))
	if len(signature) < 2+n {
		return denied(nil)
	}
	leaf, err := x509.ParseCertificate(signature[2 : 2+n])
	if err != nil {
		return denied(err)
	}
	if domain != g.Domain() {
		if err := g.Trusted.Verify(domain, []*x509.Certificate{leaf}, g.o.Now()); err != nil {
			return err
		}
	} else if !leaf.Equal(g.Identity.Current().Chain[0]) {
		return denied(nil)
	}
	algorithm := x509.ECDSAWithSHA256
	switch leaf.PublicKeyAlgorithm { //nolint:exhaustive // others are no keys of gateways
	case x509.ECDSA:
	case x509.RSA:
		algorithm = x509.SHA256WithRSA
	default:
		return denied(nil)
	}
	if err := leaf.CheckSignature(algorithm, data, signature[2+n:]); err != nil {
		return denied(err)
	}
	return nil
}
