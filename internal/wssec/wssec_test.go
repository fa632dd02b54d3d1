package wssec

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/c14n"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// made are the keys and certificates of the tests.
var made = sync.OnceValue(func() (m struct {
	ec, other *ecdsa.PrivateKey
	rsa       *rsa.PrivateKey
	chain     map[crypto.Signer][]*x509.Certificate
},
) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var err error
	m.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	m.other, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	m.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	m.chain = map[crypto.Signer][]*x509.Certificate{}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(1e5 * time.Hour), IsCA: true, BasicConstraintsValid: true}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, m.other.Public(), m.other)
	must(err)
	ca, err = x509.ParseCertificate(caDER)
	must(err)
	m.chain[m.other] = []*x509.Certificate{ca}
	for _, k := range []crypto.Signer{m.ec, m.rsa} {
		c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "fiu.example"}, DNSNames: []string{"fiu.example"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(1e5 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, k.Public(), m.other)
		must(err)
		leaf, err := x509.ParseCertificate(der)
		must(err)
		m.chain[k] = []*x509.Certificate{leaf, ca}
	}
	return m
})

// signer gives one of the key with so many certificates.
func signer(t testing.TB, key crypto.Signer, certificates int) *Signer {
	t.Helper()
	s, err := NewSigner(key, made().chain[key][:certificates], 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const envelope = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:wsa="http://www.w3.org/2005/08/addressing"><s:Header>` +
	`<wsa:To>https://gw.bsc.example/peer</wsa:To><wsa:Action>http://portolan-project.org/ns/2026/peer/PeerPortType/Exchange</wsa:Action>` +
	`<wsa:MessageID>urn:uuid:0a6f3a0e</wsa:MessageID><wsa:ReplyTo><wsa:Address>http://www.w3.org/2005/08/addressing/anonymous</wsa:Address></wsa:ReplyTo>` +
	`<p:Trace xmlns:p="http://portolan-project.org/ns/2026/peer" traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"/></s:Header>` +
	`<s:Body><p:Exchange xmlns:p="http://portolan-project.org/ns/2026/peer" session="s" number="44"><p:Route id="H1" origin="fiu.example"><p:Document>&lt;x a="b"/>&#13; é</p:Document></p:Route></p:Exchange></s:Body></s:Envelope>`

func read(t testing.TB, b []byte) *etree.Element {
	t.Helper()
	d, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return d.Root()
}

// sign gives a signed message.
func sign(t testing.TB, s *Signer, doc string) []byte {
	t.Helper()
	e := read(t, []byte(doc))
	if err := s.Sign(e, noon); err != nil {
		t.Fatal(err)
	}
	return xmldoc.Marshal(e)
}

// everything checks that all that is heeded of a message is covered.
func everything(root *etree.Element, s *Signed) error {
	ns := xmldoc.NameOf(root).Space
	if !s.Covers(xmldoc.Child(root, ns, "Body")) {
		return errors.New("the Body is not covered")
	}
	if h := xmldoc.Child(root, ns, "Header"); h != nil {
		for _, b := range h.ChildElements() {
			if !xmldoc.Is(b, nsWSSE, "Security") && !s.Covers(b) {
				return fmt.Errorf("%s is not covered", b.Tag)
			}
		}
	}
	return nil
}

func TestWhatIsSignedVerifies(t *testing.T) {
	m := made()
	for _, c := range []struct {
		name  string
		key   crypto.Signer
		certs int
		doc   string
	}{
		{"ECDSA", m.ec, 1, envelope},
		{"a path of certificates", m.ec, 2, envelope},
		{"RSA", m.rsa, 1, envelope},
		{"SOAP 1.2", m.ec, 1, strings.ReplaceAll(envelope, nsSOAP11, nsSOAP12)},
		{"without a header", m.ec, 1, `<e:Envelope xmlns:e="` + nsSOAP12 + `"><e:Body/></e:Envelope>`},
		{"without prefixes", m.ec, 1, `<Envelope xmlns="` + nsSOAP11 + `"><Header><a xmlns="u"/></Header><Body><b xmlns=""/></Body></Envelope>`},
		{"the prefix is taken", m.ec, 1, `<s:Envelope xmlns:s="` + nsSOAP11 + `" xmlns:wsu="u:other"><s:Header><wsu:a xmlns:wsu="u:mine" wsu:Id="x"/></s:Header><s:Body xmlns:wsu="` + nsWSU + `" wsu:Id="old"><wsu:b/></s:Body></s:Envelope>`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := sign(t, signer(t, c.key, c.certs), c.doc)
			root := read(t, b)
			s, err := Verify(root, noon, Window{}, nil)
			if err != nil {
				t.Fatalf("%v\n%s", err, b)
			}
			if err := everything(root, s); err != nil {
				t.Error(err)
			}
			if len(s.Chain) != c.certs || !s.Chain[0].Equal(m.chain[c.key][0]) || !s.Created.Equal(noon) || !s.Expires.Equal(noon.Add(DefaultLife)) {
				t.Errorf("%+v", s)
			}
			if _, err := Verify(root, noon, Window{}, func([]*x509.Certificate) error { return errors.New("no") }); err == nil || err.Error() != "no" {
				t.Errorf("trust is not asked: %v", err)
			}
		})
	}
}

func TestFreshness(t *testing.T) {
	root := read(t, sign(t, signer(t, made().ec, 1), envelope))
	for _, c := range []struct {
		after time.Duration
		w     Window
		want  string
	}{
		{0, Window{}, ""},
		{-59 * time.Second, Window{}, ""},
		{-61 * time.Second, Window{}, "not yet"},
		{DefaultLife + 59*time.Second, Window{}, ""},
		{DefaultLife + 61*time.Second, Window{}, "is over"},
		{DefaultLife + 61*time.Second, Window{Skew: time.Hour}, ""},
		{0, Window{Life: time.Minute}, "at most"},
	} {
		_, err := Verify(root, noon.Add(c.after), c.w, nil)
		if c.want == "" && err != nil || c.want != "" && (!fail.Is(err, fail.Unauthenticated) || !strings.Contains(fail.Sentence(err), c.want)) {
			t.Errorf("%v after: %v; want %q", c.after, err, c.want)
		}
	}
}

// find gives the element of a name, the first in the order of the document.
func find(e *etree.Element, tag string) *etree.Element {
	if e.Tag == tag {
		return e
	}
	for _, c := range e.ChildElements() {
		if f := find(c, tag); f != nil {
			return f
		}
	}
	return nil
}

// resign makes the signature right again after SignedInfo was changed: as somebody does who has a key.
func resign(t testing.TB, root *etree.Element, key *ecdsa.PrivateKey) {
	t.Helper()
	sum := sha256.Sum256(c14n.Append(nil, find(root, "SignedInfo")))
	v, err := rawECDSA{key}.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	find(root, "SignatureValue").SetText(base64.StdEncoding.EncodeToString(v))
}

// TestAttacks: the known tricks to have one thing signed and another one used, and what else is none of
// what is taken. Each is done to the tree, written, and read again.
func TestAttacks(t *testing.T) {
	m := made()
	header := func(r *etree.Element) *etree.Element { return find(r, "Header") }
	body := func(r *etree.Element) *etree.Element { return xmldoc.Child(r, nsSOAP11, "Body") }
	evil := func() *etree.Element {
		e := etree.NewElement("p:Exchange")
		e.CreateAttr("xmlns:p", "http://portolan-project.org/ns/2026/peer")
		e.CreateAttr("session", "evil")
		return e
	}
	wrapper := func(children ...etree.Token) *etree.Element {
		w := etree.NewElement("x:Wrapper")
		w.CreateAttr("xmlns:x", "u:x")
		for _, c := range children {
			w.AddChild(c)
		}
		return w
	}
	detach := func(e *etree.Element) *etree.Element {
		d := xmldoc.Detach(e)
		e.Parent().RemoveChildAt(e.Index())
		return d
	}
	// again adds a second of an element behind it.
	again := func(e *etree.Element) { e.Parent().InsertChildAt(e.Index(), e.Copy()) }
	for _, c := range []struct {
		name string
		do   func(r *etree.Element)
		want string
	}{
		// Wrapping (McIntosh and Austel, 2005; Gruschka and Lo Iacono, 2009).
		{"the Body moves into a header and another takes its place", func(r *etree.Element) {
			old := detach(body(r))
			header(r).AddChild(wrapper(old))
			r.CreateElement("s:Body").AddChild(evil())
		}, "leads to nothing"},
		{"likewise, with the id of the first", func(r *etree.Element) {
			old := detach(body(r))
			header(r).AddChild(wrapper(old))
			b := r.CreateElement("s:Body")
			b.CreateAttr("xmlns:wsu", nsWSU)
			b.CreateAttr("wsu:Id", "B")
			b.AddChild(evil())
		}, "same id"},
		{"likewise, with the id as an xml:id", func(r *etree.Element) {
			old := detach(body(r))
			header(r).AddChild(wrapper(old))
			b := r.CreateElement("s:Body")
			b.CreateAttr("xml:id", "B")
			b.AddChild(evil())
		}, "same id"},
		{"the Body moves into another Body", func(r *etree.Element) {
			old := detach(body(r))
			b := r.CreateElement("s:Body")
			b.AddChild(evil())
			b.AddChild(old)
		}, "leads to nothing"},
		{"the Body moves into the Security header", func(r *etree.Element) {
			old := detach(body(r))
			find(r, "Security").AddChild(old)
			r.CreateElement("s:Body").AddChild(evil())
		}, "more than 3 elements"},
		{"the Body moves into an Object of the signature", func(r *etree.Element) {
			old := detach(body(r))
			find(r, "Signature").CreateElement("ds:Object").AddChild(old)
			r.CreateElement("s:Body").AddChild(evil())
		}, "more than 3 elements"},
		{"the Body becomes a header block", func(r *etree.Element) {
			old := detach(body(r))
			header(r).AddChild(old)
			r.CreateElement("s:Body").AddChild(evil())
		}, "must cover the Body"},
		{"a header block moves into another", func(r *etree.Element) {
			old := detach(find(r, "To"))
			header(r).AddChild(wrapper(old))
			header(r).CreateElement("wsa:To").SetText("https://gw.evil.example/peer")
		}, "leads to nothing"},
		{"a timestamp moves, and another takes its place", func(r *etree.Element) {
			old := detach(find(r, "Timestamp"))
			header(r).AddChild(wrapper(old))
			ts := find(r, "Security").CreateElement("wsu:Timestamp")
			ts.CreateElement("wsu:Created").SetText("2026-06-01T12:00:00Z")
			ts.CreateElement("wsu:Expires").SetText("2026-06-01T12:05:00Z")
		}, "leads to nothing"},
		{"a second signed thing with the id of the first", func(r *etree.Element) { again(find(r, "To")) }, "same id"},
		{"a second Security header", func(r *etree.Element) { again(find(r, "Security")) }, "two wsse:Security"},
		{"the Security header is for somebody else", func(r *etree.Element) { find(r, "Security").CreateAttr("s:actor", "u:x") }, "no wsse:Security"},
		{"an envelope in an envelope", func(r *etree.Element) {
			inner := r.Copy()
			for _, c := range r.ChildElements() {
				r.RemoveChildAt(c.Index())
			}
			b := r.CreateElement("s:Body")
			b.AddChild(evil())
			b.AddChild(inner)
		}, "no wsse:Security"},
		// What is there is not what was signed.
		{"another content", func(r *etree.Element) { find(r, "Exchange").CreateAttr("session", "evil") }, "not what was signed"},
		{"another header", func(r *etree.Element) { find(r, "To").SetText("https://evil") }, "not what was signed"},
		{"another time", func(r *etree.Element) { find(r, "Expires").SetText("2026-06-01T12:06:00Z") }, "not what was signed"},
		{"text around the request", func(r *etree.Element) { body(r).CreateText("x") }, "not what was signed"},
		{"another prefix of the same namespace", func(r *etree.Element) {
			find(r, "Exchange").Space = "q"
			find(r, "Exchange").CreateAttr("xmlns:q", "u")
		}, "not what was signed"},
		// What the signature says of itself.
		{"no signature", func(r *etree.Element) { detach(find(r, "Signature")) }, "not signed"},
		{"no timestamp", func(r *etree.Element) { detach(find(r, "Timestamp")) }, "no wsu:Timestamp"},
		{"no certificate", func(r *etree.Element) { detach(find(r, "BinarySecurityToken")) }, "no wsse:BinarySecurityToken"},
		{"another's certificate", func(r *etree.Element) {
			find(r, "BinarySecurityToken").SetText(base64.StdEncoding.EncodeToString(m.chain[m.other][0].Raw))
		}, "signature of the message is not right"},
		{"a certificate of another kind of key", func(r *etree.Element) {
			find(r, "BinarySecurityToken").SetText(base64.StdEncoding.EncodeToString(m.chain[m.rsa][0].Raw))
		}, "signature of the message is not right"},
		{"no reference to the Body", func(r *etree.Element) {
			refs := find(r, "SignedInfo").SelectElements("Reference")
			detach(refs[len(refs)-1])
			resign(t, r, m.ec)
		}, "must cover the Body"},
		{"no reference to the timestamp", func(r *etree.Element) {
			detach(find(r, "SignedInfo").SelectElements("Reference")[1])
			resign(t, r, m.ec)
		}, "must cover the Body and the wsu:Timestamp"},
		{"a reference is gone", func(r *etree.Element) { detach(find(r, "SignedInfo").SelectElements("Reference")[3]) }, "signature of the message is not right"},
		{"a reference twice", func(r *etree.Element) { again(find(r, "Reference")); resign(t, r, m.ec) }, "two references"},
		{"too many references", func(r *etree.Element) {
			for i := range maxReferences {
				x := find(r, "Reference").Copy()
				x.CreateAttr("URI", fmt.Sprintf("#n%d", i))
				find(r, "SignedInfo").AddChild(x)
			}
			resign(t, r, m.ec)
		}, "more than"},
		{"a reference to all", func(r *etree.Element) { find(r, "Reference").CreateAttr("URI", ""); resign(t, r, m.ec) }, "by their wsu:Id"},
		{"a reference elsewhere", func(r *etree.Element) {
			find(r, "Reference").CreateAttr("URI", "https://evil/")
			resign(t, r, m.ec)
		}, "by their wsu:Id"},
		{"an XPointer", func(r *etree.Element) {
			find(r, "Reference").CreateAttr("URI", "#xpointer(id('B'))")
			resign(t, r, m.ec)
		}, "by their wsu:Id"},
		{"a reference to the signature", func(r *etree.Element) {
			find(r, "KeyInfo").CreateAttr("Id", "K")
			find(r, "Reference").CreateAttr("URI", "#K")
			resign(t, r, m.ec)
		}, "leads to nothing"},
		{"HMAC with the public key", func(r *etree.Element) {
			find(r, "SignatureMethod").CreateAttr("Algorithm", "http://www.w3.org/2000/09/xmldsig#hmac-sha1")
			resign(t, r, m.ec)
		}, "is not allowed"},
		{"SHA-1 in the signature", func(r *etree.Element) {
			find(r, "SignatureMethod").CreateAttr("Algorithm", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha1")
			resign(t, r, m.ec)
		}, "is not allowed"},
		{"SHA-1 in a digest", func(r *etree.Element) {
			find(r, "DigestMethod").CreateAttr("Algorithm", "http://www.w3.org/2000/09/xmldsig#sha1")
			resign(t, r, m.ec)
		}, "is not allowed"},
		{"the method of another key", func(r *etree.Element) {
			find(r, "SignatureMethod").CreateAttr("Algorithm", algorithmRSA)
			resign(t, r, m.ec)
		}, "signature of the message is not right"},
		{"canonical form with comments", func(r *etree.Element) {
			find(r, "CanonicalizationMethod").CreateAttr("Algorithm", c14n.Exclusive+"WithComments")
			resign(t, r, m.ec)
		}, "is not allowed"},
		{"inclusive canonical form", func(r *etree.Element) {
			find(r, "Transform").CreateAttr("Algorithm", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315")
			resign(t, r, m.ec)
		}, "is not allowed"},
		{"an XSLT", func(r *etree.Element) {
			find(r, "Transform").CreateAttr("Algorithm", "http://www.w3.org/TR/1999/REC-xslt-19991116")
			resign(t, r, m.ec)
		}, "is not allowed"},
		{"a second transform", func(r *etree.Element) { again(find(r, "Transform")); resign(t, r, m.ec) }, "more than 1 elements"},
		{"no transform", func(r *etree.Element) { detach(find(r, "Transform")); resign(t, r, m.ec) }, "must hold one"},
		{"STR-Transform", func(r *etree.Element) {
			find(r, "Transform").CreateAttr("Algorithm", nsWSSE+"#STR-Transform")
			resign(t, r, m.ec)
		}, "is not allowed"},
		{"too many prefixes", func(r *etree.Element) {
			x := find(r, "Transform").CreateElement("InclusiveNamespaces")
			x.CreateAttr("xmlns", c14n.Exclusive)
			x.CreateAttr("PrefixList", strings.Repeat("a ", maxPrefixes+1))
			resign(t, r, m.ec)
		}, "more than 8 prefixes"},
		{"a digest that is cut", func(r *etree.Element) {
			find(r, "DigestValue").SetText("QUJD")
			resign(t, r, m.ec)
		}, "not what was signed"},
		{"a signature value in ASN.1", func(r *etree.Element) {
			sum := sha256.Sum256(c14n.Append(nil, find(r, "SignedInfo")))
			v, _ := ecdsa.SignASN1(rand.Reader, m.ec, sum[:])
			find(r, "SignatureValue").SetText(base64.StdEncoding.EncodeToString(v))
		}, "signature of the message is not right"},
		{"a signature of zeros", func(r *etree.Element) {
			find(r, "SignatureValue").SetText(base64.StdEncoding.EncodeToString(make([]byte, 64)))
		}, "signature of the message is not right"},
		{"a signature with two SignedInfos", func(r *etree.Element) { again(find(r, "SignedInfo")) }, "more than 3 elements"},
		{"a SignedInfo behind the KeyInfo", func(r *etree.Element) { find(r, "Signature").AddChild(detach(find(r, "SignedInfo"))) }, "in this order"},
		{"a key in the KeyInfo", func(r *etree.Element) { find(r, "KeyInfo").CreateElement("ds:KeyValue") }, "KeyInfo must hold"},
		{"a key elsewhere", func(r *etree.Element) {
			find(r, "SecurityTokenReference").SelectElement("Reference").CreateAttr("URI", "#B")
		}, "KeyInfo must hold"},
		{"a token of another kind", func(r *etree.Element) { find(r, "BinarySecurityToken").CreateAttr("ValueType", profileX509+"#PKCS7") }, "ValueType"},
		{"a token that is none", func(r *etree.Element) { find(r, "BinarySecurityToken").SetText("QUJD") }, "no certificate"},
		{"a token that is too long", func(r *etree.Element) {
			find(r, "BinarySecurityToken").SetText(strings.Repeat("QUJD", maxToken/4+1))
		}, "longer"},
		{"a user name beside", func(r *etree.Element) {
			detach(find(r, "Timestamp"))
			find(r, "Security").CreateElement("wsse:UsernameToken")
		}, "holds UsernameToken"},
		{"two timestamps", func(r *etree.Element) { detach(find(r, "BinarySecurityToken")); again(find(r, "Timestamp")) }, "twice"},
		{"text in the header", func(r *etree.Element) { find(r, "Security").CreateText("x") }, "text"},
		{"two Createds", func(r *etree.Element) { detach(find(r, "Expires")); again(find(r, "Created")) }, "one Created"},
		{"a year before there was time", func(r *etree.Element) { find(r, "Created").SetText("0001-01-01T00:00:00Z") }, "one Created"},
		{"no body", func(r *etree.Element) { detach(body(r)) }, "no Body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := read(t, sign(t, signer(t, m.ec, 1), envelope))
			c.do(root)
			root = read(t, xmldoc.Marshal(root))
			s, err := Verify(root, noon, Window{}, nil)
			if err == nil {
				t.Fatalf("it is taken; covered: %d", len(s.covered))
			}
			if !fail.Is(err, fail.Unauthenticated) || !strings.Contains(fail.Sentence(err), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// TestNotCovered: what was put in later is there, and Covers says that it is not signed.
func TestNotCovered(t *testing.T) {
	root := read(t, sign(t, signer(t, made().ec, 1), envelope))
	find(root, "Header").CreateElement("wsa:FaultTo").CreateElement("wsa:Address").SetText("https://evil/")
	root = read(t, xmldoc.Marshal(root))
	s, err := Verify(root, noon, Window{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Covers(find(root, "FaultTo")) || !s.Covers(find(root, "To")) || s.Covers(find(root, "Exchange")) || s.Covers(nil) || everything(root, s) == nil {
		t.Error("it is said to be covered")
	}
}

// TestForeignForms: what other implementations write.
func TestForeignForms(t *testing.T) {
	m := made()
	root := read(t, sign(t, signer(t, m.ec, 1), envelope))
	list := func(e *etree.Element) {
		x := e.CreateElement("ec:InclusiveNamespaces")
		x.CreateAttr("xmlns:ec", c14n.Exclusive)
		x.CreateAttr("PrefixList", "s wsa #default")
	}
	list(find(root, "CanonicalizationMethod"))
	refs := find(root, "SignedInfo").SelectElements("Reference")
	list(refs[len(refs)-1].FindElement("Transforms/Transform"))
	refs[len(refs)-1].SelectElement("DigestValue").SetText(digest(xmldoc.Child(root, nsSOAP11, "Body"), "s", "wsa", "#default"))
	find(root, "DigestValue").SetText("\n  " + find(root, "DigestValue").Text() + "\n")
	sum := sha256.Sum256(c14n.Append(nil, find(root, "SignedInfo"), "s", "wsa", "#default"))
	v, err := rawECDSA{m.ec}.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(v)
	find(root, "SignatureValue").SetText("\n" + text[:40] + "\n" + text[40:] + "\n")
	find(root, "Security").CreateText("\n")
	root = read(t, xmldoc.Marshal(root))
	if _, err := Verify(root, noon, Window{}, nil); err != nil {
		t.Error(err)
	}
}

// TestAnyByteFlipped: with any one byte changed the message is refused, or says the same.
func TestAnyByteFlipped(t *testing.T) {
	b := sign(t, signer(t, made().ec, 1), envelope)
	said := func(root *etree.Element) []byte {
		var all []byte
		for _, e := range append(find(root, "Header").ChildElements(), xmldoc.Child(root, nsSOAP11, "Body")) {
			if e.Tag != "Security" {
				all = c14n.Append(all, e)
			}
		}
		return all
	}
	want := said(read(t, b))
	refused, same := 0, 0
	for i := range b {
		for _, flip := range []byte{1 << (i % 8)} {
			c := slices.Clone(b)
			c[i] ^= flip
			d, err := xmldoc.ReadBytes(c, xmldoc.Limits{})
			if err != nil {
				refused++
				continue
			}
			s, err := Verify(d.Root(), noon, Window{}, nil)
			if err != nil || everything(d.Root(), s) != nil {
				refused++
				continue
			}
			same++
			if got := said(d.Root()); !bytes.Equal(got, want) {
				t.Fatalf("byte %d, %q: it verifies and says\n%s", i, c[max(0, i-20):min(i+20, len(c))], got)
			}
		}
	}
	t.Logf("%d refused, %d say the same", refused, same)
	if same > 20 {
		t.Errorf("%d changes are not seen", same)
	}
}

// TestAnythingSigned: whatever an envelope holds, what is signed verifies, written in any way that XML has.
func TestAnythingSigned(t *testing.T) {
	s := signer(t, made().ec, 1)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.SampledFrom([]rune("ab <>&\"'\t\n\r]é€𝄞-")))
		e := read2(t, `<s:Envelope xmlns:s="`+nsSOAP11+`" xmlns:q="u:q"><s:Header/><s:Body/></s:Envelope>`)
		some := func(name string) *etree.Element {
			x := etree.NewElement(name)
			x.CreateAttr("xmlns", rapid.SampledFrom([]string{"u:1", "u:2"}).Draw(t, "namespace"))
			x.CreateAttr("k", text.Draw(t, "value"))
			x.CreateAttr("q:k", text.Draw(t, "value"))
			x.CreateText(text.Draw(t, "text"))
			x.CreateElement("q:x").CreateCData(strings.ReplaceAll(strings.ReplaceAll(text.Draw(t, "cdata"), "]]>", ""), "\r", ""))
			return x
		}
		for i := range rapid.IntRange(0, 5).Draw(t, "blocks") {
			find(e, "Header").AddChild(some(fmt.Sprintf("b%d", i)))
		}
		xmldoc.Child(e, nsSOAP11, "Body").AddChild(some("request"))
		if err := s.Sign(e, noon); err != nil {
			t.Fatal(err)
		}
		b := xmldoc.Marshal(e)
		root := read2(t, string(b))
		got, err := Verify(root, noon, Window{}, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if err := everything(root, got); err != nil {
			t.Fatal(err)
		}
	})
}

func read2(t *rapid.T, s string) *etree.Element {
	d, err := xmldoc.ReadBytes([]byte(s), xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%v\n%s", err, s)
	}
	return d.Root()
}

func TestSignRefuses(t *testing.T) {
	s := signer(t, made().ec, 1)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewSigner(p384, made().chain[made().ec], 0); !fail.Is(err, fail.Unsupported) {
		t.Error(err)
	}
	if _, err := NewSigner(made().ec, nil, 0); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
	signed := string(sign(t, s, envelope))
	for _, doc := range []string{`<a/>`, `<Envelope/>`, `<s:Envelope xmlns:s="` + nsSOAP11 + `"/>`, signed, strings.Replace(envelope, "<s:Header>", "<s:Header>"+strings.Repeat("<a/>", maxReferences), 1)} {
		if err := s.Sign(read(t, []byte(doc)), noon); !fail.Is(err, fail.Invalid) {
			t.Errorf("%v: %.80s", err, doc)
		}
	}
	for _, doc := range []string{`<a/>`, `<Envelope/>`, envelope} {
		if _, err := Verify(read(t, []byte(doc)), noon, Window{}, nil); !fail.Is(err, fail.Unauthenticated) {
			t.Errorf("%v: %.80s", err, doc)
		}
		if Has(read(t, []byte(doc))) {
			t.Errorf("it has a signature: %.80s", doc)
		}
	}
	if !Has(read(t, []byte(signed))) {
		t.Error("it has no signature")
	}
	outer := read(t, []byte("<a>"+signed+"</a>")).ChildElements()[0]
	if _, err := Verify(outer, noon, Window{}, nil); !fail.Is(err, fail.Unauthenticated) {
		t.Errorf("an envelope inside: %v", err)
	}
}

// TestAgainstXmlsec: another implementation takes our signatures, and we take its.
func TestAgainstXmlsec(t *testing.T) {
	tool := testenv.Tool(t, "xmlsec1", "xmlsec1")
	m := made()
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	run := func(args ...string) ([]byte, error) {
		out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
		return out, err
	}
	var ids []string
	for _, tag := range []string{"Body", "Timestamp", "To", "Action", "MessageID", "ReplyTo", "Trace", "BinarySecurityToken"} {
		ids = append(ids, "--id-attr:Id", tag)
	}
	for name, key := range map[string]crypto.Signer{"ECDSA": m.ec, "RSA": m.rsa} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		secret := file(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		public := file(name+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
		signed := sign(t, signer(t, key, 1), envelope)
		out, err := run(slices.Concat([]string{"--verify", "--pubkey-pem", public}, ids, []string{file(name+".xml", signed)})...)
		if err != nil {
			t.Errorf("%s: xmlsec1 does not take ours: %v\n%s\n%s", name, err, out, signed)
		}
		wrong := bytes.Replace(signed, []byte("fiu.example"), []byte("ibm.example"), 1)
		if out, err := run(slices.Concat([]string{"--verify", "--pubkey-pem", public}, ids, []string{file("wrong.xml", wrong)})...); err == nil {
			t.Errorf("%s: it takes anything: %s", name, out)
		}
		// The same with all values taken out is a template, which it fills in.
		blank := regexp.MustCompile(`(<ds:(DigestValue|SignatureValue)>)[^<]*`).ReplaceAll(signed, []byte("$1"))
		theirs := filepath.Join(dir, name+".theirs.xml")
		out, err = run(slices.Concat([]string{"--sign", "--privkey-pem", secret, "--output", theirs}, ids, []string{file("blank.xml", blank)})...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		root := read(t, b)
		s, err := Verify(root, noon, Window{}, nil)
		if err != nil {
			t.Fatalf("%s: we do not take what xmlsec1 signs: %v\n%s", name, err, b)
		}
		if err := everything(root, s); err != nil {
			t.Error(err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	b := sign(f, signer(f, made().ec, 1), envelope)
	f.Add(b)
	f.Add([]byte(envelope))
	path, err := asn1.Marshal([]int{1, 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.ReplaceAll(b, []byte("#X509v3"), []byte("#X509PKIPathv1")))
	f.Add(bytes.ReplaceAll(b, []byte("MII"), []byte(base64.StdEncoding.EncodeToString(path))))
	signedBefore := c14n.Append(nil, xmldoc.Child(read(f, b), nsSOAP11, "Body"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := xmldoc.ReadBytes(b, xmldoc.Limits{Bytes: 1 << 20})
		if err != nil {
			return
		}
		s, err := Verify(d.Root(), noon, Window{}, nil)
		if err != nil {
			if !fail.Is(err, fail.Unauthenticated) {
				t.Errorf("%v", err)
			}
			return
		}
		// Only what was signed above can verify with that key.
		if s.Chain[0].Equal(made().chain[made().ec][0]) {
			body := xmldoc.Child(d.Root(), xmldoc.NameOf(d.Root()).Space, "Body")
			if !s.Covers(body) || !bytes.Equal(c14n.Append(nil, body), signedBefore) {
				t.Errorf("it verifies:\n%s", b)
			}
		}
	})
}

// message is one of n routes; of none a heartbeat.
func message(n int) string {
	if n == 0 {
		return strings.Replace(envelope, `<p:Route id="H1" origin="fiu.example"><p:Document>&lt;x a="b"/>&#13; é</p:Document></p:Route>`, "", 1)
	}
	document := strings.Repeat("&lt;Argument&gt;something&lt;/Argument&gt;", 40)
	route := `<p:Route origin="fiu.example" id="00000007" token="1" recallBy="2026-01-02T03:14:05Z" hops="3" vo="bio" digest="sha-256:9f86d081" trace="00-4bf92f3577b34da6a3ce929d0e0e4736-53995c3f42cd8ad8-01"><p:Domain>fiu.example</p:Domain><p:Document>` + document + `</p:Document><p:Assertion>` + strings.Repeat("QUJD", 300) + `</p:Assertion></p:Route>`
	return strings.Replace(envelope, `<p:Route id="H1" origin="fiu.example"><p:Document>&lt;x a="b"/>&#13; é</p:Document></p:Route>`, strings.Repeat(route, n), 1)
}

func BenchmarkSign(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			s, doc := signer(b, made().ec, 1), []byte(message(n))
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			root := read(b, doc)
			for b.Loop() {
				if err := s.Sign(root, noon); err != nil {
					b.Fatal(err)
				}
				h := find(root, "Header")
				h.RemoveChildAt(0) // the signature, for the next
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			doc := sign(b, signer(b, made().ec, 1), message(n))
			root := read(b, doc)
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Verify(root, noon, Window{}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRead is what reading the same message costs, beside which the rest is to be seen.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			doc := sign(b, signer(b, made().ec, 1), message(n))
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				if _, err := xmldoc.ReadBytes(doc, xmldoc.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
