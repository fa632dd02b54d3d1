package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Options say where a domain's key and certificate are.
type Options struct {
	Domain string
	// Dir is where they are made at the first start, if Cert and Key do not say where they are.
	Dir string
	// Cert and Key are files in PEM: the gateway's certificate, followed by those that lead to its CA,
	// and its key.
	Cert, Key string
	// Now is the clock; nil is the real one.
	Now func() time.Time
	// Log is told of renewals, and of files that can't be used any more; may be nil.
	Log *slog.Logger
}

// Credential is a key with its certificate. It never changes.
type Credential struct {
	Key   crypto.Signer
	Chain []*x509.Certificate // the gateway's own first; without the CA where that is made here
	tls   tls.Certificate
	head  string // of assertions
}

// Leaf gives the gateway's own certificate.
func (c *Credential) Leaf() *x509.Certificate { return c.Chain[0] }

// Pin gives the fingerprint of its key.
func (c *Credential) Pin() Pin { return PinOf(c.Leaf()) }

// Identity is a domain's own. It is safe for concurrent use: certificates that are near their end, or
// whose files changed, are replaced while it is in use.
type Identity struct {
	o       Options
	current atomic.Pointer[Credential]
	checked atomic.Int64 // when files and end were looked at, in seconds

	mu    sync.Mutex // held while it is replaced
	stamp [2]stamp   // of the files that are configured
	ca    *authority // nil where certificates come from elsewhere
}

// stamp tells whether a file changed.
type stamp struct {
	size int64
	at   time.Time
}

// checkEvery is how often files and ends are looked at, when they are needed.
const checkEvery = time.Minute

// Open reads what there is, or makes it. What can't be used is fail.Invalid.
func Open(o Options) (*Identity, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if why := BadDomain(o.Domain); why != "" {
		return nil, fail.Errorf("identity.Open", fail.Invalid, o.Domain, "domain: %s", why)
	}
	i := &Identity{o: o}
	switch {
	case (o.Cert == "") != (o.Key == ""):
		return nil, fail.Errorf("identity.Open", fail.Invalid, o.Domain, "a certificate and its key are named together, or neither")
	case o.Cert != "":
		if err := i.load(); err != nil {
			return nil, err
		}
	default:
		if err := i.make(); err != nil {
			return nil, err
		}
	}
	i.checked.Store(o.Now().Unix())
	return i, nil
}

// Check says what is wrong with files of a certificate and its key, for a domain.
func Check(o Options) error {
	_, err := readCredential(o.Domain, o.Cert, o.Key)
	return err
}

// Domain gives its name.
func (i *Identity) Domain() string { return i.o.Domain }

// CA gives the certificate that peers may trust in place of the key, where it was made here; else nil.
func (i *Identity) CA() *x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ca == nil {
		return nil
	}
	return i.ca.cert
}

// Current gives the key and the certificate to use now.
func (i *Identity) Current() *Credential {
	now := i.o.Now()
	if last := i.checked.Load(); now.Unix()-last >= int64(checkEvery/time.Second) && i.checked.CompareAndSwap(last, now.Unix()) {
		i.refresh(now)
	}
	return i.current.Load()
}

// refresh replaces what is near its end or has changed. What can't be replaced stays in use.
func (i *Identity) refresh(now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var err error
	if i.o.Cert != "" {
		if i.stamps() == i.stamp {
			return
		}
		if err = i.load(); err == nil {
			i.o.Log.Info("the gateway's certificate was read anew", "file", i.o.Cert, "until", i.current.Load().Leaf().NotAfter)
		}
	} else if c := i.current.Load(); c.Leaf().NotAfter.Sub(now) < renewAt && i.ca != nil {
		err = i.renew(c.Key, now)
	}
	if err != nil {
		i.o.Log.Error("the gateway's certificate could not be replaced, and stays in use", "cause", err)
	}
}

func (i *Identity) stamps() (s [2]stamp) {
	for n, file := range []string{i.o.Cert, i.o.Key} {
		if info, err := os.Stat(file); err == nil {
			s[n] = stamp{info.Size(), info.ModTime()}
		}
	}
	return s
}

// load reads the configured files.
func (i *Identity) load() error {
	before := i.stamps()
	i.stamp = before // what can't be used is not tried again before it changes
	c, err := readCredential(i.o.Domain, i.o.Cert, i.o.Key)
	if err != nil {
		return err
	}
	i.current.Store(c)
	return nil
}

// make reads the identity below its directory, and makes what is missing there.
func (i *Identity) make() error {
	now, file := i.o.Now(), func(name string) string { return filepath.Join(i.o.Dir, name) }
	cant := func(err error) error {
		return fail.Errorf("identity.Open", fail.Invalid, i.o.Domain, "the gateway's key could not be kept in %s: %s", i.o.Dir, why(err)).Because(err)
	}
	if err := os.MkdirAll(i.o.Dir, 0o700); err != nil {
		return cant(err)
	}
	there := func(name string) bool {
		_, err := os.Stat(file(name))
		return !errors.Is(err, fs.ErrNotExist)
	}
	switch {
	case there(caKeyFile) && there(caCertFile):
		key, err := readKey(file(caKeyFile))
		if err != nil {
			return err
		}
		chain, err := ReadCertificates(file(caCertFile), 1)
		if err != nil {
			return err
		}
		if !samePublic(chain[0], key) {
			return fail.Errorf("identity.Open", fail.Invalid, i.o.Domain, "%s is not the certificate of the key %s: put back what belongs together, or remove all of %s and have your peers trust the new key", file(caCertFile), file(caKeyFile), i.o.Dir)
		}
		i.ca = &authority{chain[0], key}
	case !there(certFile): // or the start before was cut short
		ca, err := newAuthority(i.o.Domain, now)
		if err != nil {
			return cant(err)
		}
		if err := errors.Join(writeKey(file(caKeyFile), ca.key), writeFile(file(caCertFile), EncodeCertificates(ca.cert))); err != nil {
			return cant(err)
		}
		i.ca = ca
	}
	if !there(keyFile) {
		key, err := newKey()
		if err == nil {
			err = writeKey(file(keyFile), key)
		}
		if err != nil {
			return cant(err)
		}
		if there(certFile) { // of another key, which is gone
			if err := os.Remove(file(certFile)); err != nil {
				return cant(err)
			}
		}
	}
	if !there(certFile) {
		key, err := readKey(file(keyFile))
		if err != nil {
			return err
		}
		if i.ca == nil {
			return fail.Errorf("identity.Open", fail.Invalid, i.o.Domain, "%s has neither a certificate nor a CA to make one: put back what was there, or remove all of it and have your peers trust the new key", i.o.Dir)
		}
		return i.renew(key, now)
	}
	c, err := readCredential(i.o.Domain, file(certFile), file(keyFile))
	if err != nil {
		return err
	}
	i.current.Store(c)
	if c.Leaf().NotAfter.Sub(now) < renewAt && i.ca != nil {
		return i.renew(c.Key, now)
	}
	return nil
}

// renew makes the certificate anew, of the same key.
func (i *Identity) renew(key crypto.Signer, now time.Time) error {
	cert, err := i.ca.issue(i.o.Domain, key.Public(), now)
	if err == nil {
		err = writeFile(filepath.Join(i.o.Dir, certFile), EncodeCertificates(cert))
	}
	if err != nil {
		return fail.Errorf("identity.renew", fail.Internal, i.o.Domain, "the gateway's certificate could not be made: %s", why(err)).Because(err)
	}
	c, err := newCredential(i.o.Domain, key, []*x509.Certificate{cert})
	if err != nil {
		return err
	}
	i.current.Store(c)
	i.o.Log.Info("the gateway's certificate was made", "domain", i.o.Domain, "until", cert.NotAfter, "key", c.Pin())
	return nil
}

func readCredential(domain, cert, key string) (*Credential, error) {
	chain, err := ReadCertificates(cert, maxChain)
	if err != nil {
		return nil, err
	}
	k, err := readKey(key)
	if err != nil {
		return nil, err
	}
	c, err := newCredential(domain, k, chain)
	if err != nil {
		return nil, fail.Errorf("identity", fail.Invalid, cert, "%s: %s", cert, fail.Sentence(err))
	}
	return c, nil
}

func samePublic(c *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

func newCredential(domain string, key crypto.Signer, chain []*x509.Certificate) (*Credential, error) {
	leaf := chain[0]
	bad := func(format string, args ...any) (*Credential, error) {
		return nil, fail.Errorf("identity", fail.Invalid, domain, format, args...)
	}
	if !samePublic(leaf, key) {
		return bad("the first certificate is not that of the key")
	}
	if why := weakKey(leaf); why != "" {
		return bad("%s", why)
	}
	if !named(leaf, domain) {
		return bad("the certificate does not name the domain %s as a DNS name: peers would not take it for that of %s; it names %s", domain, domain, listed(leaf.DNSNames))
	}
	if leaf.IsCA {
		return bad("the first certificate is that of a CA: the gateway's own comes first")
	}
	c := &Credential{Key: key, Chain: chain, tls: tls.Certificate{PrivateKey: key, Leaf: leaf}}
	for _, x := range chain {
		c.tls.Certificate = append(c.tls.Certificate, x.Raw)
	}
	c.head = encodeHead(c)
	return c, nil
}

// weakKey says why a key is none to sign with: messages and assertions are signed with ECDSA over P-256
// or RSA, and nothing else.
func weakKey(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return ""
		}
		return "its key is on the curve " + k.Params().Name + ": peers take P-256, or RSA of 2048 bits or more"
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 8192 {
			return ""
		}
		return "its RSA key is not of 2048 to 8192 bits: make one of P-256, which is quicker too"
	}
	return "its key is neither ECDSA on P-256 nor RSA, which are what peers take"
}

func listed(names []string) string {
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > 4:
		names = append(names[:4:4], "…")
	}
	quoted := make([]string, len(names))
	for n, x := range names {
		quoted[n] = shown(x)
	}
	return strings.Join(quoted, ", ")
}
