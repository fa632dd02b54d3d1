package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
)

// Pin is the fingerprint of a public key: SHA-256 of its SubjectPublicKeyInfo (RFC 7469 §2.4). A
// certificate that is made anew of the same key keeps it.
type Pin [sha256.Size]byte

// PinOf gives the pin of a certificate's key.
func PinOf(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// pinPrefix begins a pin as it is written.
const pinPrefix = "SHA256:"

// String gives the pin as people know it of SSH, and as configurations have it: "SHA256:" and
// 43 characters of unpadded base64.
func (p Pin) String() string { return pinPrefix + base64.RawStdEncoding.EncodeToString(p[:]) }

// Groups gives the pin to be read out aloud: sixteen groups of four hexadecimal digits, on two lines.
func (p Pin) Groups() string {
	s := hex.EncodeToString(p[:])
	var b strings.Builder
	for i := 0; i < len(s); i += 4 {
		switch {
		case i == len(s)/2:
			b.WriteByte('\n')
		case i > 0:
			b.WriteByte(' ')
		}
		b.WriteString(s[i : i+4])
	}
	return b.String()
}

// Equal compares two pins.
func (p Pin) Equal(o Pin) bool { return subtle.ConstantTimeCompare(p[:], o[:]) == 1 }

// ParsePin reads a pin in any form that people have it in, with "SHA256:" before or not: base64 as of
// String, padded or not; or hexadecimal digits of either case, with blanks, line ends, colons or dashes
// between them. Curl's "sha256//" is taken too. Anything else is fail.Invalid.
func ParsePin(s string) (Pin, error) {
	var p Pin
	t := strings.TrimSpace(s)
	for _, prefix := range []string{pinPrefix, "sha256//"} {
		if len(t) >= len(prefix) && strings.EqualFold(t[:len(prefix)], prefix) {
			t = t[len(prefix):]
			break
		}
	}
	if len(t) <= 128 {
		if b, err := base64.RawStdEncoding.Strict().DecodeString(strings.TrimSuffix(t, "=")); err == nil && len(b) == len(p) {
			copy(p[:], b)
			return p, nil
		}
		t = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "", ":", "", "-", "").Replace(t)
		if b, err := hex.DecodeString(t); err == nil && len(b) == len(p) {
			copy(p[:], b)
			return p, nil
		}
	}
	return Pin{}, fail.Errorf("identity.ParsePin", fail.Invalid, "", "%s is no fingerprint of a key: write %s and 43 characters of base64, or 64 hexadecimal digits", shown(s), pinPrefix)
}
