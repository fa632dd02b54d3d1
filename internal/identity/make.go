package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// How long certificates that are made here are good for. The one of the gateway is made anew when a third
// of its time is left, of the same key; those of ten years are not.
const (
	caTime      = 10 * 365 * 24 * time.Hour
	gatewayTime = 398 * 24 * time.Hour
	renewAt     = gatewayTime / 3
	// early is how far back a certificate begins, for peers whose clocks are behind.
	early = time.Hour
)

// Names of the files below the identity's directory.
const (
	caCertFile  = "ca.pem"
	caKeyFile   = "ca.key"
	certFile    = "gateway.pem"
	keyFile     = "gateway.key"
	maxPEM      = 256 << 10
	maxChain    = 8 // certificates of a chain, the gateway's own included
	typeKey     = "PRIVATE KEY"
	typeCert    = "CERTIFICATE"
	filePrivate = 0o600
)

// authority is a domain's own small CA. It may sign for that domain only.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// serial gives a serial number that nobody can foresee (RFC 5280 §4.1.2.2).
func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

func newAuthority(domain string, now time.Time) (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	n, err := serial()
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: commonName("Portolan CA of " + domain)},
		NotBefore: now.Add(-early).UTC(), NotAfter: now.Add(caTime).UTC(),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		// Whoever trusts it for more than this domain by mistake gets no more than this domain.
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{domain},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

// commonName cuts a name to what X.520 allows.
func commonName(s string) string { return s[:min(len(s), 64)] }

// issue makes the gateway's certificate.
func (a *authority) issue(domain string, key crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	n, err := serial()
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	until := now.Add(gatewayTime)
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	c := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: commonName(domain)}, DNSNames: []string{domain},
		NotBefore: now.Add(-early).UTC(), NotAfter: until.UTC(), SubjectKeyId: id[:20],
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// writeFile puts a whole file in the place of what was there, for the owner alone.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(filePrivate), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // the error before tells
	}
	return err
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: typeKey, Bytes: der}))
}

// EncodeCertificates gives certificates as PEM.
func EncodeCertificates(chain ...*x509.Certificate) []byte {
	var b []byte
	for _, c := range chain {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: typeCert, Bytes: c.Raw})...)
	}
	return b
}

// ParseCertificates reads certificates in PEM: one at least, most at most, and nothing else beside
// comments between them.
func ParseCertificates(b []byte, most int) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != typeCert {
			return nil, fail.Errorf("identity.ParseCertificates", fail.Invalid, "", "it has a block %s, where only certificates are taken", shown(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fail.Errorf("identity.ParseCertificates", fail.Invalid, "", "its certificate number %d can't be read: %v", len(list)+1, err)
		}
		if list = append(list, c); len(list) > most {
			return nil, fail.Errorf("identity.ParseCertificates", fail.Invalid, "", "it has more than %d certificates", most)
		}
	}
	if len(list) == 0 {
		return nil, fail.Errorf("identity.ParseCertificates", fail.Invalid, "", "it has no certificate in PEM")
	}
	return list, nil
}

// ReadCertificates reads a file of certificates, as ParseCertificates does.
func ReadCertificates(file string, most int) ([]*x509.Certificate, error) {
	b, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	list, err := ParseCertificates(b, most)
	if err != nil {
		return nil, fail.Errorf("identity.ReadCertificates", fail.Invalid, file, "%s: %s", file, fail.Sentence(err))
	}
	return list, nil
}

func readBounded(file string) ([]byte, error) {
	i, err := os.Stat(file)
	if err == nil && !i.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err == nil && i.Size() > maxPEM {
		err = errors.New("it is too long")
	}
	if err != nil {
		return nil, fail.Errorf("identity", fail.Invalid, file, "%s can't be used: %s", file, why(err)).Because(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fail.Errorf("identity", fail.Invalid, file, "%s can't be read: %s", file, why(err)).Because(err)
	}
	return b, nil
}

// why leaves out of a file's error what the sentence says already.
func why(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// readKey reads a private key in PEM that its owner alone may read, or a group of the owner's choosing.
func readKey(file string) (crypto.Signer, error) {
	b, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	bad := func(format string, args ...any) (crypto.Signer, error) {
		return nil, fail.Errorf("identity.readKey", fail.Invalid, file, "%s: "+format, append([]any{file}, args...)...)
	}
	i, err := os.Stat(file)
	if err != nil {
		return bad("%s", why(err))
	}
	if m := i.Mode().Perm(); m&0o027 != 0 {
		return bad("others may use the key (its mode is %04o): chmod 600 it", m)
	}
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			return bad("it has no private key in PEM")
		}
		b = rest
		var key any
		switch block.Type {
		case typeKey:
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return bad("the key has a passphrase, which nobody could type when the gateway starts: keep it without one, for the gateway's account alone")
		default:
			continue // parameters of curves, certificates
		}
		if err != nil {
			return bad("its key can't be read: %v", err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return bad("its key is none to sign with")
		}
		return signer, nil
	}
}
