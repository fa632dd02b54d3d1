package wssec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"slices"
	"strconv"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/portolan-project/portolan/internal/c14n"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Signer signs envelopes with one key. It is safe for concurrent use.
type Signer struct {
	ctx    *dsig.SigningContext
	method string
	token  string // the certificates, in base64
	value  string // the token's type
	life   time.Duration
}

// NewSigner makes one of a key and its certificate, which comes first in the chain; others that lead to
// its CA may follow. life is how long a message is good for: 0 is 5 minutes. A key
// that peers would not take is fail.Invalid.
func NewSigner(key crypto.Signer, chain []*x509.Certificate, life time.Duration) (*Signer, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fail.Errorf("wssec.NewSigner", fail.Invalid, "", "a signer has 1 to %d certificates", maxChain)
	}
	s := &Signer{life: life, value: valueX509v3}
	if life == 0 {
		s.life = DefaultLife
	}
	var err error
	if s.method, err = methodOf(key.Public()); err != nil {
		return nil, err
	}
	der := chain[0].Raw
	if len(chain) > 1 {
		s.value = valuePKIPath
		var path []asn1.RawValue
		for _, c := range slices.Backward(chain) {
			path = append(path, asn1.RawValue{FullBytes: c.Raw})
		}
		if der, err = asn1.Marshal(path); err != nil {
			return nil, fail.Errorf("wssec.NewSigner", fail.Invalid, "", "the certificates can't be written as a path").Because(err)
		}
	}
	s.token = base64.StdEncoding.EncodeToString(der)
	if len(s.token) > maxToken {
		return nil, fail.Errorf("wssec.NewSigner", fail.Invalid, "", "the certificates are too long")
	}
	s.ctx, err = signing(key, [][]byte{chain[0].Raw})
	return s, err
}

// DefaultLife is how long a message is good for.
const DefaultLife = 5 * time.Minute

// methodOf gives the algorithm of a key; fail.Unsupported for one that is not allowed.
func methodOf(public crypto.PublicKey) (string, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return algorithmECDSA, nil
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 8192 {
			return algorithmRSA, nil
		}
	}
	return "", fail.Errorf("wssec", fail.Unsupported, "", "signatures are made with ECDSA on P-256, or with RSA of 2048 to 8192 bits")
}

// Sign signs the Body, all header blocks, a timestamp and the certificate of an envelope, in place: it gives them ids and
// puts a wsse:Security header before the others. What is signed must not be changed after, and
// must be written so that it is read as it stands, as xmldoc.Marshal does. An envelope that has such a
// header, or more blocks than can be signed, is fail.Invalid.
func (s *Signer) Sign(envelope *etree.Element, now time.Time) error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("wssec.Sign", fail.Invalid, "", format, args...)
	}
	ns := xmldoc.NameOf(envelope).Space
	if envelope.Tag != "Envelope" || ns != nsSOAP11 && ns != nsSOAP12 {
		return bad("only SOAP envelopes are signed here")
	}
	header, body := xmldoc.Child(envelope, ns, "Header"), xmldoc.Child(envelope, ns, "Body")
	if body == nil {
		return bad("the envelope has no Body")
	}
	if header == nil {
		header = &etree.Element{Space: envelope.Space, Tag: "Header"}
		envelope.InsertChildAt(body.Index(), header)
	}
	blocks := header.ChildElements()
	if len(blocks)+3 > maxReferences {
		return bad("the envelope has %d header blocks; %d can be signed", len(blocks), maxReferences-3)
	}
	for _, b := range blocks {
		if xmldoc.Is(b, nsWSSE, "Security") {
			return bad("the envelope has a wsse:Security header already")
		}
	}
	security := element("wsse", "Security")
	declare(security, "wsse", nsWSSE)
	declare(security, "wsu", nsWSU)
	must := etree.Attr{Space: envelope.Space, Key: "mustUnderstand", Value: "1"}
	if envelope.Space == "" { // an attribute needs a prefix to be in a namespace
		declare(security, "s", ns)
		must.Space = "s"
	}
	security.Attr = append(security.Attr, must)
	header.InsertChildAt(0, security)

	token := child(security, "wsse", "BinarySecurityToken")
	attribute(token, "EncodingType", encodingBase64)
	attribute(token, "ValueType", s.value)
	mark(token, "X")
	token.CreateText(s.token)
	stamp := child(security, "wsu", "Timestamp")
	mark(stamp, "T")
	child(stamp, "wsu", "Created").CreateText(now.UTC().Format(stampForm))
	child(stamp, "wsu", "Expires").CreateText(now.Add(s.life).UTC().Format(stampForm))

	signature := child(security, "ds", "Signature")
	declare(signature, "ds", nsDS)
	info := child(signature, "ds", "SignedInfo")
	attribute(child(info, "ds", "CanonicalizationMethod"), "Algorithm", algorithmC14N)
	attribute(child(info, "ds", "SignatureMethod"), "Algorithm", s.method)
	refer := func(e *etree.Element, id string) {
		r := child(info, "ds", "Reference")
		attribute(r, "URI", "#"+id)
		attribute(child(child(r, "ds", "Transforms"), "ds", "Transform"), "Algorithm", algorithmC14N)
		attribute(child(r, "ds", "DigestMethod"), "Algorithm", algorithmSHA256)
		child(r, "ds", "DigestValue").CreateText(digest(e))
	}
	refer(token, "X")
	refer(stamp, "T")
	for i, b := range blocks {
		id := "H" + strconv.Itoa(i+1)
		markForeign(b, id)
		refer(b, id)
	}
	markForeign(body, "B")
	refer(body, "B")
	value, err := s.ctx.SignString(string(c14n.Append(nil, info)))
	if err != nil {
		return fail.Errorf("wssec.Sign", fail.Internal, "", "the message could not be signed: the gateway's log says why").Because(err)
	}
	child(signature, "ds", "SignatureValue").CreateText(base64.StdEncoding.EncodeToString(value))
	ref := child(child(child(signature, "ds", "KeyInfo"), "wsse", "SecurityTokenReference"), "wsse", "Reference")
	attribute(ref, "URI", "#X")
	attribute(ref, "ValueType", s.value)
	return nil
}

// stampForm is xsd:dateTime in UTC with milliseconds.
const stampForm = "2006-01-02T15:04:05.000Z"

// digest gives SHA-256 of an element's canonical form, in base64.
func digest(e *etree.Element, prefixes ...string) string {
	h := sha256.New()
	c14n.Hash(h, e, prefixes...)
	var sum [sha256.Size]byte
	return base64.StdEncoding.EncodeToString(h.Sum(sum[:0]))
}

func element(prefix, local string) *etree.Element { return &etree.Element{Space: prefix, Tag: local} }

func child(e *etree.Element, prefix, local string) *etree.Element {
	c := element(prefix, local)
	e.AddChild(c)
	return c
}

func declare(e *etree.Element, prefix, uri string) {
	e.Attr = append(e.Attr, etree.Attr{Space: "xmlns", Key: prefix, Value: uri})
}

func attribute(e *etree.Element, key, value string) {
	e.Attr = append(e.Attr, etree.Attr{Key: key, Value: value})
}

// mark gives an id to an element of the Security header, where the prefix is declared.
func mark(e *etree.Element, id string) {
	e.Attr = append(e.Attr, etree.Attr{Space: "wsu", Key: "Id", Value: id})
}

// markForeign gives an id to an element elsewhere, in the place of one that it has. The prefix must not
// be one that it declares for something else.
func markForeign(e *etree.Element, id string) {
	e.Attr = slices.DeleteFunc(e.Attr, func(a etree.Attr) bool {
		if a.Key != "Id" || a.Space == "" {
			return false
		}
		n, err := xmldoc.ResolveQName(e, a.Space+":Id")
		return err == nil && n.Space == nsWSU
	})
	prefix := "wsu"
	for i := 1; ; i++ {
		at := slices.IndexFunc(e.Attr, func(a etree.Attr) bool { return a.Space == "xmlns" && a.Key == prefix })
		if at < 0 {
			declare(e, prefix, nsWSU)
			break
		}
		if e.Attr[at].Value == nsWSU {
			break
		}
		prefix = "wsu" + strconv.Itoa(i)
	}
	e.Attr = append(e.Attr, etree.Attr{Space: prefix, Key: "Id", Value: id})
}
