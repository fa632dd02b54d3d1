package discovery

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
)

// Bounds of what is found.
const (
	MaxProposals = 256  // at once, of all sources together
	MaxURL       = 2048 // bytes
	maxName      = 253  // bytes of a host's name: RFC 1035 §2.3.4 without the last dot
	maxRemarks   = 20
)

// Source says where a proposal comes from.
type Source string

// The sources, the most deliberate first.
const (
	Listed Source = "static" // in a list that somebody wrote
	InDNS  Source = "dns"
	OnLAN  Source = "lan"
)

// Sources gives all of them.
func Sources() []Source { return []Source{Listed, InDNS, OnLAN} }

// Proposal is a gateway that was found. All of it is what it, or whoever answered in its
// place, says of itself: see peers/status.Offer for what it can prove.
type Proposal struct {
	Domain string `json:"domain"`
	URL    string `json:"url"` // of its peer endpoint
	// Version is the highest version of the peer protocol that it says it speaks; "" if it
	// does not say.
	Version string `json:"version,omitempty"`
	// Fingerprint is that of its key, to be compared with what the endpoint shows and with
	// what its administrator says; "" if it does not say.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Sources are where it was found, in the order of Sources.
	Sources []Source `json:"sources"`
	// Found is when it was seen last.
	Found time.Time `json:"found"`
	// Conflict says what sources tell differently; "" if they agree.
	Conflict string `json:"conflict,omitempty"`
	// priority and weight are of SRV records (RFC 2782): lower priorities first.
	priority, weight uint16
}

// Check gives fail.Invalid for what can't be a gateway, with what is wrong.
func (p *Proposal) Check() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("discovery.Proposal", fail.Invalid, "", format, args...)
	}
	if err := CheckDomain(p.Domain); err != nil {
		return err
	}
	if err := CheckURL(p.URL); err != nil {
		return err
	}
	if len(p.Version) > 16 || !printable(p.Version) {
		return bad("the version of %s must be at most 16 printable characters", p.Domain)
	}
	if p.Fingerprint != "" {
		return CheckFingerprint(p.Fingerprint)
	}
	return nil
}

// CheckDomain gives fail.Invalid for what can't be the name of a gateway's domain.
func CheckDomain(d string) error {
	if d == "" || len(d) > wire.MaxDomain || !printable(d) || strings.Contains(d, "/") {
		return fail.Errorf("discovery.Proposal", fail.Invalid, "", "a domain must be 1 to %d printable ASCII characters without blanks and slashes", wire.MaxDomain)
	}
	return nil
}

// CheckURL gives fail.Invalid for what can't be the URL of a peer's endpoint.
func CheckURL(s string) error {
	bad := func(why string) error {
		return fail.Errorf("discovery.Proposal", fail.Invalid, "", "the URL of a peer must be like https://gw.example.org/peer: %s", why)
	}
	if len(s) > MaxURL || !printable(s) {
		return bad("it has more than 2048 bytes, or characters that are not printable ASCII")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "":
		return bad("this is none")
	case u.Scheme != "https" && u.Scheme != "http":
		return bad("its scheme must be https, or http for a test without TLS")
	case u.Hostname() == "" || len(u.Hostname()) > maxName:
		return bad("it must name a host, of at most 253 bytes")
	case u.User != nil:
		return bad("it holds a user name, which would end up in logs")
	case u.RawQuery != "" || u.Fragment != "":
		return bad("it must end with the path")
	}
	return nil
}

// fingerprintHead begins each fingerprint.
const fingerprintHead = "SHA256:"

// CheckFingerprint gives fail.Invalid for what is no fingerprint of a key.
func CheckFingerprint(s string) error {
	rest, ok := strings.CutPrefix(s, fingerprintHead)
	b, err := base64.RawStdEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(b) != 32 || strings.ContainsAny(rest, "\r\n") {
		return fail.Errorf("discovery.Proposal", fail.Invalid, "", "a fingerprint must be SHA256: and 43 characters of base64, as 'portolan peers add' shows it")
	}
	return nil
}

// printable reports whether all is printable ASCII without blanks.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// Merge makes one proposal of those that name the same domain and URL, keeping each
// source; sources that differ in more are told as a conflict, and a fingerprint that they
// differ in is left out. The order is that of domains, then of preference.
func Merge(all []Proposal) []Proposal {
	var out []Proposal
	at := map[[2]string]int{}
	for _, p := range all {
		k := [2]string{strings.ToLower(p.Domain), normal(p.URL)}
		i, seen := at[k]
		if !seen {
			at[k] = len(out)
			p.Sources = slices.Clone(p.Sources)
			out = append(out, p)
			continue
		}
		out[i].join(&p)
	}
	slices.SortStableFunc(out, func(a, b Proposal) int {
		return cmp.Or(
			cmp.Compare(strings.ToLower(a.Domain), strings.ToLower(b.Domain)), cmp.Compare(rank(a.Sources), rank(b.Sources)),
			cmp.Compare(a.priority, b.priority), -cmp.Compare(a.weight, b.weight), cmp.Compare(a.URL, b.URL),
		)
	})
	return out
}

func (p *Proposal) join(o *Proposal) {
	for _, s := range o.Sources {
		if !slices.Contains(p.Sources, s) {
			p.Sources = append(p.Sources, s)
		}
	}
	slices.SortFunc(p.Sources, func(a, b Source) int {
		return cmp.Compare(slices.Index(Sources(), a), slices.Index(Sources(), b))
	})
	if o.Found.After(p.Found) {
		p.Found = o.Found
	}
	switch {
	case p.Conflict != "":
	case p.Fingerprint == "":
		p.Fingerprint = o.Fingerprint
	case o.Fingerprint != "" && o.Fingerprint != p.Fingerprint:
		p.Conflict = "two fingerprints were found, " + p.Fingerprint + " and " + o.Fingerprint + ": ask its administrator"
		p.Fingerprint = ""
	}
	if p.Version == "" {
		p.Version = o.Version
	}
	if o.Conflict != "" && p.Conflict == "" {
		p.Conflict, p.Fingerprint = o.Conflict, ""
	}
}

func rank(s []Source) int {
	if len(s) == 0 {
		return len(Sources())
	}
	return slices.Index(Sources(), s[0])
}

// normal gives the form of a URL by which two are compared: host in lower case, without
// the port that the scheme has anyway.
func normal(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return s
	}
	u.Host = strings.ToLower(u.Host)
	u.Host = strings.TrimSuffix(u.Host, map[string]string{"https": ":443", "http": ":80"}[u.Scheme])
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u.String()
}
