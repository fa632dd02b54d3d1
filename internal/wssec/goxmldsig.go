package wssec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"io"
	"math/big"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/portolan-project/portolan/internal/c14n"
	"github.com/portolan-project/portolan/internal/fail"
)

// canonical is our canonical form, as goxmldsig asks for one.
type canonical struct{}

var _ dsig.Canonicalizer = canonical{}

func (canonical) Canonicalize(e *etree.Element) ([]byte, error) { return c14n.Append(nil, e), nil }
func (canonical) Algorithm() dsig.AlgorithmID                   { return algorithmC14N }

// rawECDSA signs with ECDSA as XML signatures have it: both numbers one behind the other, each of the
// length of the curve's order (RFC 6931 §2.3.6), and not the ASN.1 that a crypto.Signer gives.
type rawECDSA struct{ crypto.Signer }

// p256 is the length of a number on the curve, in bytes.
const p256 = 32

func (r rawECDSA) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	der, err := r.Signer.Sign(random, digest, opts)
	if err != nil {
		return nil, err
	}
	var n struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &n); err != nil || len(rest) > 0 || n.R.Sign() <= 0 || n.S.Sign() <= 0 || n.R.BitLen() > 8*p256 || n.S.BitLen() > 8*p256 {
		return nil, fail.Errorf("wssec.Sign", fail.Internal, "", "the key gave no ECDSA signature").Because(err)
	}
	out := make([]byte, 2*p256)
	n.R.FillBytes(out[:p256])
	n.S.FillBytes(out[p256:])
	return out, nil
}

// SignDigest signs a SHA-256 digest in the form of XML signatures, which is that of ES256 and RS256 of
// JSON Web Signatures too. A key that is not allowed is fail.Unsupported.
func SignDigest(key crypto.Signer, digest []byte) ([]byte, error) {
	method, err := methodOf(key.Public())
	if err != nil {
		return nil, err
	}
	if method == algorithmECDSA {
		key = rawECDSA{key}
	}
	return key.Sign(rand.Reader, digest, crypto.SHA256)
}

// VerifyDigest reports whether SignDigest made the signature with the key's private part.
func VerifyDigest(key crypto.PublicKey, digest, signature []byte) bool {
	if _, err := methodOf(key); err != nil {
		return false
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if len(signature) != 2*p256 {
			return false
		}
		return ecdsa.Verify(k, digest, new(big.Int).SetBytes(signature[:p256]), new(big.Int).SetBytes(signature[p256:]))
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, signature) == nil
	}
	return false
}

// signing gives goxmldsig's context for a key.
func signing(key crypto.Signer, chain [][]byte) (*dsig.SigningContext, error) {
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		key = rawECDSA{key}
	}
	ctx, err := dsig.NewSigningContext(key, chain)
	if err != nil {
		return nil, err
	}
	ctx.Canonicalizer, ctx.Hash = canonical{}, crypto.SHA256
	return ctx, nil
}
