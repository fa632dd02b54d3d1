package discovery

import (
	"strings"
)

// announcement is what a TXT record tells (RFC 6763 §6): key=value strings, keys without
// regard to case, the first of each counting.
type announcement struct {
	domain, path, version, fingerprint string
	plain                              bool // without TLS
}

// The keys.
const (
	keyFormat      = "txtvers" // of the record: 1
	keyDomain      = "domain"
	keyPath        = "path" // of the endpoint; /peer without it
	keyVersion     = "version"
	keyFingerprint = "fingerprint"
	keyTLS         = "tls" // "no": http; else https
)

// Bounds of a TXT record.
const (
	maxText     = 255 // bytes of a string: RFC 6763 §6.1
	maxTexts    = 32  // strings that are looked at
	maxPath     = 200
	defaultPath = "/peer"
)

// readTexts reads the strings of TXT records. What can't be right is left out, with a
// remark; keys that are not known have no effect.
func readTexts(texts []string) (announcement, string) {
	a := announcement{path: defaultPath}
	seen := map[string]bool{}
	remark := ""
	wrong := func(key, why string) {
		if remark == "" {
			remark = "its " + key + " " + why + " and is left out"
		}
	}
	for i, t := range texts {
		if i == maxTexts {
			break
		}
		// A record of another use at the same name may be anything.
		key, value, ok := strings.Cut(t, "=")
		key = strings.ToLower(key)
		if !ok || key == "" || seen[key] || !printable(key) {
			continue
		}
		seen[key] = true
		// What multicast brings has odd bytes as escapes already.
		if len(t) > maxText || !printable(value) || strings.ContainsAny(value, `\"`) {
			switch key {
			case keyDomain, keyPath, keyVersion, keyFingerprint, keyTLS:
				wrong(key, "is too long or has characters that it may not have")
			}
			continue
		}
		switch key {
		case keyDomain:
			if err := CheckDomain(value); err != nil {
				wrong(key, "can't be a domain")
				continue
			}
			a.domain = value
		case keyPath:
			if !strings.HasPrefix(value, "/") || strings.HasPrefix(value, "//") || len(value) > maxPath || strings.ContainsAny(value, `?#\`) {
				wrong(key, "is no path of a URL")
				continue
			}
			a.path = value
		case keyVersion:
			if value == "" || len(value) > 16 {
				wrong(key, "is longer than 16 bytes, or empty")
				continue
			}
			a.version = value
		case keyFingerprint:
			if err := CheckFingerprint(value); err != nil {
				wrong(key, "is no fingerprint")
				continue
			}
			a.fingerprint = value
		case keyTLS:
			a.plain = strings.EqualFold(value, "no")
		}
	}
	return a, remark
}

// split parts what a TXT record of the DNS has: a resolver joins the strings of a record,
// so there the keys are parted by blanks or semicolons, or have a record each.
func split(records []string) []string {
	var out []string
	for _, r := range records {
		for f := range strings.FieldsFuncSeq(r, func(c rune) bool { return c == ' ' || c == ';' }) {
			if out = append(out, f); len(out) > maxTexts {
				return out
			}
		}
	}
	return out
}

// texts gives the strings of a TXT record.
func (a announcement) texts() []string {
	out := []string{keyFormat + "=1", keyDomain + "=" + a.domain}
	for _, kv := range [][2]string{{keyPath, a.path}, {keyVersion, a.version}, {keyFingerprint, a.fingerprint}} {
		if kv[1] != "" {
			out = append(out, kv[0]+"="+kv[1])
		}
	}
	if a.plain {
		out = append(out, keyTLS+"=no")
	}
	return out
}

// proposal gives that of the gateway at host and port.
func (a announcement) proposal(at string) Proposal {
	scheme := "https"
	if a.plain {
		scheme = "http"
	}
	return Proposal{Domain: a.domain, URL: scheme + "://" + at + a.path, Version: a.version, Fingerprint: a.fingerprint}
}
