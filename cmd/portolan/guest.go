package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"time"

	"github.com/beevik/etree"
	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/conformance"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/peers/wire"
)

// guestFlags say who `portolan conformance --profile peer` is to the endpoint.
type guestFlags struct {
	domain, cert, key               string
	other, otherCert, otherKey      string
	ca, fingerprint, user, vo, role string
	unsigned                        bool
}

func (g *guestFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	for _, x := range []struct {
		into       *string
		name, what string
		file       bool
	}{
		{&g.domain, "domain", "with --profile peer: the domain that the kit speaks for, which the endpoint trusts", false},
		{&g.cert, "cert", "that domain's certificate, PEM", true},
		{&g.key, "key", "its key, PEM", true},
		{&g.other, "other-domain", "a second domain that the endpoint trusts, for what one domain can't show", false},
		{&g.otherCert, "other-cert", "its certificate, PEM", true},
		{&g.otherKey, "other-key", "its key, PEM", true},
		{&g.ca, "ca", "the CA of the endpoint's certificate, PEM", true},
		{&g.fingerprint, "fingerprint", "the fingerprint of the endpoint's key, SHA256:…, instead of --ca", false},
		{&g.user, "user", "the user that the kit vouches for in jobs; none without it", false},
		{&g.vo, "vo", "the VO that jobs run for", false},
		{&g.role, "role", "what the kit is to the endpoint: peer, parent or child (default peer)", false},
	} {
		f.StringVar(x.into, x.name, "", x.what)
		if x.file {
			cobra.CheckErr(cmd.MarkFlagFilename(x.name, "pem", "crt", "key"))
		} else if x.name != "role" {
			cobra.CheckErr(cmd.RegisterFlagCompletionFunc(x.name, cobra.NoFileCompletions))
		}
	}
	f.BoolVar(&g.unsigned, "unsigned", false, "messages are not signed: the certificate alone says whom they are of")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("role", oneOf("peer", "parent", "child")))
}

func (g *guestFlags) any() bool { return *g != guestFlags{} }

// fill says it to the kit.
func (g *guestFlags) fill(o *conformance.Options) error {
	u, err := url.Parse(o.Endpoint)
	if err != nil {
		return usagef("the endpoint %q is no URL", o.Endpoint)
	}
	switch wire.Role(g.role) {
	case "", wire.Peer, wire.Parent, wire.Child:
	default:
		return usagef("--role %q: use peer, parent or child", g.role)
	}
	o.Guest = conformance.Guest{Domain: g.domain, Role: wire.Role(g.role), VO: g.vo, OtherDomain: g.other}
	if u.Scheme != "https" {
		if g.ca != "" || g.fingerprint != "" || g.other != "" || g.otherCert != "" {
			return usagef("without TLS nobody shows a certificate: use an https endpoint with --ca, --fingerprint and --other-domain")
		}
		if g.cert == "" {
			return nil // an endpoint for tests, which asks for none
		}
	}
	if g.domain == "" || g.cert == "" || g.key == "" {
		return usagef("the endpoint wants to know who asks: give --domain, --cert and --key")
	}
	id, err := identity.Open(identity.Options{Domain: g.domain, Cert: g.cert, Key: g.key})
	if err != nil {
		return usagef("%s", sentence(err))
	}
	if !g.unsigned {
		if o.Guest.Sign, err = signer(id); err != nil {
			return usagef("%s", sentence(err))
		}
	} else if u.Scheme != "https" {
		return usagef("without TLS messages must be signed: leave --unsigned out, or use an https endpoint")
	}
	o.Guest.Signature = (&identity.Gateway{Identity: id}).Sign
	if g.user != "" {
		o.Guest.Vouch = g.vouch(id)
	}
	if u.Scheme != "https" {
		return nil
	}
	anchor, err := g.anchor()
	if err != nil {
		return err
	}
	o.Guest.Signed = signedBy(id, anchor)
	verify := verifier(anchor)
	o.HTTP = showing(id.Current(), verify)
	o.Guest.Nobody = showing(nil, verify)
	if g.other == "" {
		return nil
	}
	second, err := identity.Open(identity.Options{Domain: g.other, Cert: g.otherCert, Key: g.otherKey})
	if err != nil || g.otherCert == "" {
		return usagef("--other-domain goes with --other-cert and --other-key: %v", err)
	}
	if !g.unsigned {
		if o.Guest.OtherSign, err = signer(second); err != nil {
			return usagef("%s", sentence(err))
		}
	}
	o.Guest.Other = showing(second.Current(), verify)
	return nil
}

// signer gives what signs messages of an identity.
func signer(id *identity.Identity) (func(context.Context, *etree.Element) error, error) {
	trust, err := identity.NewTrust()
	if err != nil {
		return nil, err
	}
	return (&identity.Gateway{Identity: id, Trusted: trust}).Signer(""), nil
}

// anchor is how the endpoint is known; its domain is not yet.
func (g *guestFlags) anchor() (identity.Anchor, error) {
	switch {
	case (g.ca == "") == (g.fingerprint == ""):
		return identity.Anchor{}, usagef("say how the endpoint is known, with one of --ca and --fingerprint")
	case g.fingerprint != "":
		pin, err := identity.ParsePin(g.fingerprint)
		if err != nil {
			return identity.Anchor{}, usagef("--fingerprint: %s", sentence(err))
		}
		return identity.Anchor{Pins: []identity.Pin{pin}}, nil
	}
	cas, err := identity.ReadCertificates(g.ca, 16)
	if err != nil {
		return identity.Anchor{}, usagef("--ca: %s", sentence(err))
	}
	return identity.Anchor{CAs: cas}, nil
}

// signedBy gives what checks signatures of the domain that the endpoint speaks for.
func signedBy(id *identity.Identity, anchor identity.Anchor) func(domain string, data, signature []byte) error {
	return func(domain string, data, signature []byte) error {
		of := anchor
		of.Domain = domain
		trust, err := identity.NewTrust(of)
		if err != nil {
			return err
		}
		return (&identity.Gateway{Identity: id, Trusted: trust}).Verify(domain, data, signature)
	}
}

// verifier gives what knows the endpoint by its certificate.
func verifier(anchor identity.Anchor) func(tls.ConnectionState) error {
	unknown := func(c *x509.Certificate) error {
		return fail.Errorf("conformance", fail.Denied, "", "the endpoint shows a certificate of %q with the fingerprint %s, which is not the one that --ca or --fingerprint know", c.Subject, identity.PinOf(c))
	}
	if len(anchor.Pins) > 0 {
		return func(s tls.ConnectionState) error {
			if c := s.PeerCertificates[0]; identity.PinOf(c) != anchor.Pins[0] {
				return unknown(c)
			}
			return nil
		}
	}
	roots := x509.NewCertPool()
	for _, c := range anchor.CAs {
		roots.AddCert(c)
	}
	return func(s tls.ConnectionState) error {
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		c := s.PeerCertificates[0]
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			return unknown(c)
		}
		return nil
	}
}

// showing is a client that shows a certificate, or none.
func showing(c *identity.Credential, verify func(tls.ConnectionState) error) *http.Client {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies, by key or CA and not by host
		VerifyConnection:   verify,
	}
	if c != nil {
		var chain [][]byte
		for _, x := range c.Chain {
			chain = append(chain, x.Raw)
		}
		config.Certificates = []tls.Certificate{{Certificate: chain, PrivateKey: c.Key, Leaf: c.Leaf()}}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableCompression: true, ExpectContinueTimeout: time.Second, MaxResponseHeaderBytes: 256 << 10}}
}

// vouchFor is how long an assertion of the kit is good.
const vouchFor = time.Hour

// vouch gives what vouches for the user.
func (g *guestFlags) vouch(id *identity.Identity) func(audience, job, document string) ([]byte, error) {
	var vos []string
	if g.vo != "" {
		vos = []string{g.vo}
	}
	return func(audience, job, document string) ([]byte, error) {
		now := time.Now().Truncate(time.Second)
		return id.Vouch(identity.Claims{
			Issuer: g.domain, Audience: audience, Origin: g.domain, Job: job, User: g.user, VOs: vos,
			Document: sha256.Sum256([]byte(document)), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(vouchFor),
		})
	}
}
