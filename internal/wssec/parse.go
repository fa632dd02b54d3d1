package wssec

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/c14n"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// refuse is how whatever is wrong with a signature is told: the message is of nobody.
func refuse(format string, args ...any) *fail.Error {
	return fail.Errorf("wssec.Verify", fail.Unauthenticated, "", format, args...)
}

// header is a wsse:Security header, read.
type header struct {
	token, stamp, signature *etree.Element

	chain            []*x509.Certificate
	created, expires time.Time

	info       *etree.Element // ds:SignedInfo
	prefixes   []string       // of its canonical form
	method     string
	references []reference
	value      []byte
}

// reference is a ds:Reference.
type reference struct {
	id       string
	prefixes []string
	digest   string // in base64
}

// elements gives the child elements of e; text beside white space, and more than most of them, are refused.
func elements(e *etree.Element, most int) ([]*etree.Element, error) {
	var list []*etree.Element
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.CharData:
			if strings.Trim(t.Data, " \t\r\n") != "" {
				return nil, refuse("%s holds text where elements are", e.Tag)
			}
		case *etree.Element:
			if list = append(list, t); len(list) > most {
				return nil, refuse("%s has more than %d elements", e.Tag, most)
			}
		}
	}
	return list, nil
}

// text gives the text of an element that has nothing else, without white space around and inside.
func text(e *etree.Element, most int) (string, error) {
	for _, t := range e.Child {
		if _, ok := t.(*etree.CharData); !ok {
			return "", refuse("%s holds more than text", e.Tag)
		}
	}
	s := xmldoc.Text(e)
	if len(s) > most {
		return "", refuse("%s is longer than %d bytes", e.Tag, most)
	}
	if strings.ContainsAny(s, " \t\r\n") {
		s = strings.Join(strings.Fields(s), "")
	}
	return s, nil
}

// binary gives what an element holds in base64, which has one form for each value.
func binary(e *etree.Element, most int) ([]byte, error) {
	s, err := text(e, most)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, refuse("%s is no base64", e.Tag)
	}
	return b, nil
}

// parseHeader reads the header. It looks at the form of everything and at no signature.
func parseHeader(e *etree.Element) (*header, error) {
	h := &header{}
	kids, err := elements(e, 3)
	if err != nil {
		return nil, err
	}
	for _, k := range kids {
		var into **etree.Element
		switch n := xmldoc.NameOf(k); n {
		case xmldoc.Name{Space: nsWSSE, Local: "BinarySecurityToken"}:
			into = &h.token
		case xmldoc.Name{Space: nsWSU, Local: "Timestamp"}:
			into = &h.stamp
		case xmldoc.Name{Space: nsDS, Local: "Signature"}:
			into = &h.signature
		default:
			return nil, refuse("the wsse:Security header holds %s: a BinarySecurityToken, a Timestamp and a Signature are taken", n.Local)
		}
		if *into != nil {
			return nil, refuse("the wsse:Security header holds %s twice", k.Tag)
		}
		*into = k
	}
	switch {
	case h.signature == nil:
		return nil, refuse("the message is not signed: its wsse:Security header has no ds:Signature")
	case h.token == nil:
		return nil, refuse("the wsse:Security header has no wsse:BinarySecurityToken with the sender's certificate")
	case h.stamp == nil:
		return nil, refuse("the wsse:Security header has no wsu:Timestamp")
	}
	if err := h.parseStamp(); err != nil {
		return nil, err
	}
	if err := h.parseSignature(); err != nil {
		return nil, err
	}
	return h, h.parseToken()
}

func (h *header) parseStamp() error {
	kids, err := elements(h.stamp, 2)
	if err != nil {
		return err
	}
	for _, k := range kids {
		var into *time.Time
		switch {
		case xmldoc.Is(k, nsWSU, "Created"):
			into = &h.created
		case xmldoc.Is(k, nsWSU, "Expires"):
			into = &h.expires
		default:
			return refuse("wsu:Timestamp holds %s", k.Tag)
		}
		s, err := text(k, 64)
		if err != nil {
			return err
		}
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || !into.IsZero() || at.Year() < 1970 {
			return refuse("wsu:Timestamp must hold one Created and one Expires, such as 2026-01-02T03:04:05.678Z")
		}
		*into = at
	}
	if h.created.IsZero() || h.expires.IsZero() {
		return refuse("wsu:Timestamp must hold Created and Expires")
	}
	return nil
}

// algorithm gives the Algorithm of an element that must have the name.
func algorithm(e *etree.Element, name string) (string, error) {
	if !xmldoc.Is(e, nsDS, name) {
		return "", refuse("%s stands where ds:%s must", e.Tag, name)
	}
	a, ok := xmldoc.Attr(e, "", "Algorithm")
	if !ok {
		return "", refuse("ds:%s names no Algorithm", name)
	}
	return a, nil
}

func notAllowed(what, got string) error {
	if len(got) > 100 {
		got = strings.ToValidUTF8(got[:100], "") + "…"
	}
	return refuse("%s %q is not allowed: use exclusive canonical form without comments, SHA-256, and ECDSA on P-256 or RSA of 2048 bits or more", what, got)
}

// form reads an element that says that exclusive canonical form is used, and gives its prefix list.
func form(e *etree.Element, name string) ([]string, error) {
	a, err := algorithm(e, name)
	if err != nil {
		return nil, err
	}
	if a != algorithmC14N {
		return nil, notAllowed("the "+name, a)
	}
	kids, err := elements(e, 1)
	if err != nil || len(kids) == 0 {
		return nil, err
	}
	if !xmldoc.Is(kids[0], c14n.Exclusive, "InclusiveNamespaces") {
		return nil, refuse("ds:%s holds %s", name, kids[0].Tag)
	}
	list, _ := xmldoc.Attr(kids[0], "", "PrefixList")
	prefixes := strings.Fields(list)
	if len(prefixes) > maxPrefixes {
		return nil, refuse("a PrefixList has more than %d prefixes", maxPrefixes)
	}
	return prefixes, nil
}

func (h *header) parseSignature() error {
	kids, err := elements(h.signature, 3)
	if err != nil {
		return err
	}
	if len(kids) != 3 || !xmldoc.Is(kids[0], nsDS, "SignedInfo") || !xmldoc.Is(kids[1], nsDS, "SignatureValue") || !xmldoc.Is(kids[2], nsDS, "KeyInfo") {
		return refuse("ds:Signature must hold SignedInfo, SignatureValue and KeyInfo, in this order, and nothing else")
	}
	h.info = kids[0]
	if h.value, err = binary(kids[1], maxSignature); err != nil {
		return err
	}
	if err := h.parseKeyInfo(kids[2]); err != nil {
		return err
	}
	kids, err = elements(h.info, 2+maxReferences)
	if err != nil {
		return err
	}
	if len(kids) < 3 {
		return refuse("ds:SignedInfo must hold CanonicalizationMethod, SignatureMethod and a Reference at least")
	}
	if h.prefixes, err = form(kids[0], "CanonicalizationMethod"); err != nil {
		return err
	}
	if h.method, err = algorithm(kids[1], "SignatureMethod"); err != nil {
		return err
	}
	if h.method != algorithmECDSA && h.method != algorithmRSA {
		return notAllowed("the SignatureMethod", h.method)
	}
	if under, err := elements(kids[1], 0); err != nil || len(under) > 0 {
		return refuse("ds:SignatureMethod holds elements")
	}
	for _, k := range kids[2:] {
		r, err := parseReference(k)
		if err != nil {
			return err
		}
		for _, o := range h.references {
			if o.id == r.id {
				return refuse("two references lead to the same element")
			}
		}
		h.references = append(h.references, r)
	}
	return nil
}

// localID gives the id of a reference within the document, which is the only kind that is taken.
func localID(uri string) (string, error) {
	id, ok := strings.CutPrefix(uri, "#")
	if !ok || id == "" || len(id) > maxID || strings.ContainsAny(id, "()[]/# \t\r\n%&'\"") {
		return "", refuse("references must lead to elements of the message by their wsu:Id, as #id")
	}
	return id, nil
}

func parseReference(e *etree.Element) (r reference, err error) {
	if !xmldoc.Is(e, nsDS, "Reference") {
		return r, refuse("ds:SignedInfo holds %s", e.Tag)
	}
	uri, _ := xmldoc.Attr(e, "", "URI")
	if r.id, err = localID(uri); err != nil {
		return r, err
	}
	kids, err := elements(e, 3)
	if err != nil {
		return r, err
	}
	if len(kids) != 3 || !xmldoc.Is(kids[0], nsDS, "Transforms") || !xmldoc.Is(kids[2], nsDS, "DigestValue") {
		return r, refuse("ds:Reference must hold Transforms, DigestMethod and DigestValue, in this order")
	}
	transforms, err := elements(kids[0], 1)
	if err != nil {
		return r, err
	}
	if len(transforms) != 1 {
		return r, refuse("ds:Transforms must hold one ds:Transform, exclusive canonical form")
	}
	if r.prefixes, err = form(transforms[0], "Transform"); err != nil {
		return r, err
	}
	method, err := algorithm(kids[1], "DigestMethod")
	if err != nil {
		return r, err
	}
	if method != algorithmSHA256 {
		return r, notAllowed("the DigestMethod", method)
	}
	sum, err := binary(kids[2], 64)
	if err != nil {
		return r, err
	}
	r.digest = base64.StdEncoding.EncodeToString(sum)
	return r, nil
}

// parseKeyInfo takes one reference to the token of the same header, by its id.
func (h *header) parseKeyInfo(e *etree.Element) error {
	bad := refuse("ds:KeyInfo must hold a wsse:SecurityTokenReference with a wsse:Reference to the BinarySecurityToken, and nothing else")
	for _, name := range []string{"SecurityTokenReference", "Reference"} {
		kids, err := elements(e, 1)
		if err != nil || len(kids) != 1 || !xmldoc.Is(kids[0], nsWSSE, name) {
			return bad
		}
		e = kids[0]
	}
	uri, _ := xmldoc.Attr(e, "", "URI")
	id, err := localID(uri)
	if err != nil {
		return err
	}
	if got, _ := xmldoc.Attr(h.token, nsWSU, "Id"); got != id {
		return bad
	}
	if value, ok := xmldoc.Attr(e, "", "ValueType"); ok {
		if got, _ := xmldoc.Attr(h.token, "", "ValueType"); got != value {
			return refuse("the reference in ds:KeyInfo and the token have other ValueTypes")
		}
	}
	return nil
}

func (h *header) parseToken() error {
	if enc, ok := xmldoc.Attr(h.token, "", "EncodingType"); ok && enc != encodingBase64 {
		return refuse("the BinarySecurityToken is in another encoding than base64")
	}
	der, err := binary(h.token, maxToken)
	if err != nil {
		return err
	}
	var path []asn1.RawValue
	switch value, _ := xmldoc.Attr(h.token, "", "ValueType"); value {
	case valueX509v3:
		path = []asn1.RawValue{{FullBytes: der}}
	case valuePKIPath:
		rest, err := asn1.Unmarshal(der, &path)
		if err != nil || len(rest) > 0 || len(path) == 0 || len(path) > maxChain {
			return refuse("the BinarySecurityToken is no path of 1 to %d certificates", maxChain)
		}
	default:
		return refuse("the BinarySecurityToken must be of the ValueType #X509v3 or #X509PKIPathv1")
	}
	for _, one := range slices.Backward(path) {
		c, err := x509.ParseCertificate(one.FullBytes)
		if err != nil {
			return refuse("the BinarySecurityToken holds what is no certificate").Because(err)
		}
		h.chain = append(h.chain, c)
	}
	return nil
}
