package identity

import (
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
)

// MaxDomain bounds the name of a domain that has peers, in bytes: it stands in a certificate, where
// DNS has the say (RFC 1035 §2.3.4).
const MaxDomain = 253

// BadDomain says what is wrong with the name of a domain that has peers; "" is nothing.
func BadDomain(s string) string {
	const rule = "a domain with peers is named like a host: lower-case letters, digits and '-', in parts of 1 to 63 with dots between them"
	if s == "" {
		return "it has no name: " + rule
	}
	if len(s) > MaxDomain {
		return fmt.Sprintf("%s is longer than %d: %s", shown(s), MaxDomain, rule)
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || len(part) > 63 || part[0] == '-' || part[len(part)-1] == '-' || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Sprintf("%s: %s", shown(s), rule)
		}
	}
	return ""
}

// named reports whether a certificate has the name: as one of its DNS names, to the letter but
// for case. Wildcards do not count, as none can speak for domains that it does not name, nor does the
// subject's common name.
func named(c *x509.Certificate, name string) bool {
	for _, n := range c.DNSNames {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// shown quotes a stranger's text in a sentence.
func shown(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
