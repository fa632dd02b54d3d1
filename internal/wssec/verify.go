package wssec

import (
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"slices"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/c14n"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Window says which timestamps are taken. The zero value means the defaults.
type Window struct {
	// Skew bounds the difference of both clocks; 1 minute.
	Skew time.Duration
	// Life is the longest time from Created to Expires; 10 minutes.
	Life time.Duration
}

func (w Window) ensureDefaults() Window {
	if w.Skew == 0 {
		w.Skew = time.Minute
	}
	if w.Life == 0 {
		w.Life = 10 * time.Minute
	}
	return w
}

// Signed is what of an envelope a certificate's key has signed.
type Signed struct {
	// Chain is the certificate, then those that the sender sent along.
	Chain []*x509.Certificate
	// Created and Expires are the sender's; the window was held against them.
	Created, Expires time.Time

	covered []*etree.Element
}

// Covers reports whether the element, of the tree that was verified, is signed with all below it.
func (s *Signed) Covers(e *etree.Element) bool {
	return e != nil && slices.Contains(s.covered, e)
}

// Has reports whether an envelope has a wsse:Security header that Verify would look at.
func Has(root *etree.Element) bool {
	h, err := security(root)
	return h != nil || err != nil
}

// security finds the one header that is for us; nil without one.
func security(root *etree.Element) (*etree.Element, error) {
	ns := xmldoc.NameOf(root).Space
	h := xmldoc.Child(root, ns, "Header")
	if h == nil {
		return nil, nil //nolint:nilnil // an envelope without a header
	}
	var found *etree.Element
	for _, t := range h.Child {
		b, ok := t.(*etree.Element)
		if !ok || !xmldoc.Is(b, nsWSSE, "Security") || !ours(b, ns) {
			continue
		}
		if found != nil {
			return nil, refuse("two wsse:Security headers are aimed at this endpoint: send one")
		}
		found = b
	}
	return found, nil
}

// ours: a header with an actor or role of somebody else is not for us.
func ours(b *etree.Element, ns string) bool {
	attr, next := "actor", "http://schemas.xmlsoap.org/soap/actor/next"
	if ns == nsSOAP12 {
		attr, next = "role", nsSOAP12+"/role/next"
	}
	role, ok := xmldoc.Attr(b, ns, attr)
	return !ok || role == "" || role == next || ns == nsSOAP12 && role == nsSOAP12+"/role/ultimateReceiver"
}

// Verify finds out what of an envelope is signed. root is the Envelope of a document that internal/xmldoc
// read, and that is used as it stands. trusted is asked of the certificates before anything that costs
// much is done, and its error is given; nil leaves that to the caller. An envelope without a signature,
// with one that is not right, or one that is not of now, is fail.Unauthenticated. What it gives covers the
// Body and the timestamp always; of header blocks the caller asks.
func Verify(root *etree.Element, now time.Time, w Window, trusted func(chain []*x509.Certificate) error) (*Signed, error) {
	w = w.ensureDefaults()
	ns := xmldoc.NameOf(root).Space
	if root.Parent() != nil || root.Tag != "Envelope" || ns != nsSOAP11 && ns != nsSOAP12 {
		return nil, refuse("it is no SOAP envelope")
	}
	sec, err := security(root)
	if err != nil {
		return nil, err
	}
	if sec == nil {
		return nil, refuse("the message is not signed: it has no wsse:Security header")
	}
	h, err := parseHeader(sec)
	if err != nil {
		return nil, err
	}
	switch {
	case h.created.After(now.Add(w.Skew)):
		return nil, refuse("the message was signed at %s, which is not yet: one of the two clocks is wrong, as it is %s here", h.created.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !h.expires.After(now.Add(-w.Skew)):
		return nil, refuse("the message was good until %s, which is over: it came too late, or one of the two clocks is wrong, as it is %s here", h.expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !h.expires.After(h.created) || h.expires.Sub(h.created) > w.Life:
		return nil, refuse("the message must be good for more than no time and for %s at most", w.Life)
	}
	if trusted != nil {
		if err := trusted(h.chain); err != nil {
			return nil, err
		}
	}
	places, err := h.places(root, ns, sec)
	if err != nil {
		return nil, err
	}
	if !h.signedBy(h.chain[0].PublicKey) {
		return nil, refuse("the signature of the message is not right")
	}
	for i, r := range h.references {
		if got := digest(places[i], r.prefixes...); subtle.ConstantTimeCompare([]byte(got), []byte(r.digest)) != 1 {
			return nil, refuse("%s is not what was signed", places[i].Tag)
		}
	}
	return &Signed{Chain: h.chain, Created: h.created, Expires: h.expires, covered: places}, nil
}

// places finds the element of each reference, by its place: the Body, a block of the Header, the
// timestamp, the token. The Body and the timestamp are among them, and ids are unique in the whole document.
func (h *header) places(root *etree.Element, ns string, sec *etree.Element) ([]*etree.Element, error) {
	body := xmldoc.Child(root, ns, "Body")
	if body == nil {
		return nil, refuse("the envelope has no Body")
	}
	candidates := []*etree.Element{body, h.stamp, h.token}
	for _, t := range xmldoc.Child(root, ns, "Header").Child {
		if b, ok := t.(*etree.Element); ok && b != sec {
			candidates = append(candidates, b)
		}
	}
	seen := map[string]*etree.Element{}
	if err := uniqueIDs(root, seen, 0); err != nil {
		return nil, err
	}
	list := make([]*etree.Element, 0, len(h.references))
	var haveBody, haveStamp bool
	for _, r := range h.references {
		var found *etree.Element
		for _, c := range candidates {
			if id, ok := xmldoc.Attr(c, nsWSU, "Id"); ok && id == r.id {
				found = c
				break
			}
		}
		if found == nil || seen[r.id] != found {
			return nil, refuse("a reference leads to nothing that can be signed: the Body, header blocks, the timestamp and the token are")
		}
		haveBody = haveBody || found == body
		haveStamp = haveStamp || found == h.stamp
		list = append(list, found)
	}
	if !haveBody || !haveStamp {
		return nil, refuse("the signature must cover the Body and the wsu:Timestamp")
	}
	return list, nil
}

// maxDepth bounds the nesting that is followed; documents that were read have less.
const maxDepth = 512

// uniqueIDs goes over all ids of a document: wsu:Id and xml:id anywhere, Id on elements of signatures and
// encryption. None may be there twice.
func uniqueIDs(e *etree.Element, seen map[string]*etree.Element, depth int) error {
	if depth > maxDepth {
		return refuse("the message is nested too deep")
	}
	for i := range e.Attr {
		a := &e.Attr[i]
		if a.Key != "Id" && a.Key != "id" || a.Space == "xmlns" {
			continue
		}
		switch {
		case a.Space == "":
			if space := xmldoc.NameOf(e).Space; a.Key != "Id" || space != nsDS && space != nsWSSE && space != "http://www.w3.org/2001/04/xmlenc#" {
				continue
			}
		case a.Space == "xml" && a.Key == "id":
		default:
			if n, err := xmldoc.ResolveQName(e, a.Space+":"+a.Key); err != nil || n.Space != nsWSU || a.Key != "Id" {
				continue
			}
		}
		if seen[a.Value] != nil {
			return refuse("two elements of the message have the same id")
		}
		seen[a.Value] = e
	}
	for _, t := range e.Child {
		if c, ok := t.(*etree.Element); ok {
			if err := uniqueIDs(c, seen, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// signedBy checks the signature's value. The key decides the algorithm, and the message must name the same.
func (h *header) signedBy(key crypto.PublicKey) bool {
	if method, err := methodOf(key); err != nil || method != h.method {
		return false
	}
	sum := sha256.New()
	c14n.Hash(sum, h.info, h.prefixes...)
	return VerifyDigest(key, sum.Sum(nil), h.value)
}
