package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"io"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
)

var quiet = log.New(io.Discard, "", 0)

func TestMadeOnce(t *testing.T) {
	c := &clock{noon}
	dir := filepath.Join(t.TempDir(), "identity")
	o := identity.Options{Domain: "bsc.example", Dir: dir, Now: c.now}
	first, err := identity.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := identity.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if first.Current().Pin() != again.Current().Pin() || !first.CA().Equal(again.CA()) {
		t.Error("another key after a restart")
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; i.Mode().Perm() != want {
			t.Errorf("%s: mode %o, not %o", path, i.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Domain = "other.example"
	if _, err := identity.Open(o); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), "other.example") {
		t.Errorf("another domain: %v", err)
	}
}

// TestStartsCutShort: whatever of the files is missing, the next start has an identity, or says what to do.
func TestStartsCutShort(t *testing.T) {
	for _, c := range []struct {
		name    string
		remove  []string
		samekey bool
		want    string // of the error
	}{
		{"the certificate", []string{"gateway.pem"}, true, ""},
		{"certificate and key", []string{"gateway.pem", "gateway.key"}, false, ""},
		{"the key", []string{"gateway.key"}, false, ""},
		{"the CA's key", []string{"ca.key"}, true, ""},
		{"the CA", []string{"ca.key", "ca.pem"}, true, ""},
		{"the CA's certificate and the gateway's", []string{"ca.pem", "gateway.pem"}, true, ""},
		{"all but the certificate", []string{"ca.key", "ca.pem", "gateway.key"}, false, "nor a CA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clk := &clock{noon}
			dir := t.TempDir()
			o := identity.Options{Domain: "bsc.example", Dir: dir, Now: clk.now}
			first, err := identity.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range c.remove {
				if err := os.Remove(filepath.Join(dir, f)); err != nil {
					t.Fatal(err)
				}
			}
			again, err := identity.Open(o)
			if c.want != "" {
				if err == nil || !strings.Contains(fail.Sentence(err), c.want) {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if same := first.Current().Pin() == again.Current().Pin(); same != c.samekey {
				t.Errorf("the same key: %v", same)
			}
			if err := trust(t, byKey(again)).Verify("bsc.example", again.Current().Chain, noon); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRenewal: the certificate is made anew in time, of the same key; peers notice nothing.
func TestRenewal(t *testing.T) {
	c := &clock{noon}
	i := open(t, "bsc.example", c)
	pinned, ca := trust(t, byKey(i)), trust(t, byCA(i))
	first := i.Current().Leaf()
	for range 60 {
		c.at = c.at.Add(30 * 24 * time.Hour)
		now := i.Current()
		for _, tr := range []*identity.Trust{pinned, ca} {
			if err := tr.Verify("bsc.example", now.Chain, c.at); err != nil {
				t.Fatalf("%s: %v", c.at, err)
			}
		}
	}
	if i.Current().Leaf().Equal(first) {
		t.Error("it was never renewed")
	}
}

func TestConfiguredFiles(t *testing.T) {
	is := newIssuer(t, nil)
	name := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = names }
	}
	good, key := is.make(t, name("bsc.example"), nil)
	other, _ := is.make(t, name("bsc.example"), nil)
	foreign, foreignKey := is.make(t, name("www.bsc.example", "*.example"), nil)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c384, _ := is.make(t, name("bsc.example"), p384)
	cSmall, _ := is.make(t, name("bsc.example"), small)
	cBig, _ := is.make(t, name("bsc.example"), big)
	clk := &clock{noon}
	open := func(want string, i *identity.Identity, err error) {
		t.Helper()
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want == "" && i.CA() != nil:
			t.Error("it has a CA")
		case want != "" && (!fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), want)):
			t.Errorf("%v; want %q", err, want)
		}
	}
	i, err := openFiles(t, "bsc.example", clk, key, good, is.cert)
	open("", i, err)
	i, err = openFiles(t, "bsc.example", clk, big, cBig)
	open("", i, err)
	i, err = openFiles(t, "bsc.example", clk, key, other)
	open("not that of the key", i, err)
	i, err = openFiles(t, "bsc.example", clk, foreignKey, foreign)
	open("does not name the domain", i, err)
	i, err = openFiles(t, "bsc.example", clk, p384, c384)
	open("P-384", i, err)
	i, err = openFiles(t, "bsc.example", clk, small, cSmall)
	open("2048", i, err)
	i, err = openFiles(t, "bsc.example", clk, is.key, is.cert, good)
	open("does not name", i, err)

	// Files that change are read anew, wrong ones are not heeded.
	dir := t.TempDir()
	o := identity.Options{Domain: "bsc.example", Cert: filepath.Join(dir, "c"), Key: filepath.Join(dir, "k"), Now: clk.now}
	writeFiles(t, o, key, good)
	i, err = identity.Open(o)
	open("", i, err)
	step := func(want identity.Pin) {
		t.Helper()
		clk.at = clk.at.Add(2 * time.Minute)
		if i.Current().Pin() != want {
			t.Error("another certificate is in use")
		}
	}
	step(identity.PinOf(good))
	writeFiles(t, o, key, foreign)
	step(identity.PinOf(good))
	writeFiles(t, o, big, cBig)
	step(identity.PinOf(cBig))
	if err := os.Chmod(o.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := identity.Check(o); err == nil || !strings.Contains(fail.Sentence(err), "chmod 600") {
		t.Errorf("a key that all may read: %v", err)
	}
}

func TestPins(t *testing.T) {
	i := open(t, "a", &clock{noon})
	p := i.Current().Pin()
	hexed := strings.NewReplacer(" ", "", "\n", "").Replace(p.Groups())
	for _, s := range []string{p.String(), p.String() + "=", strings.TrimPrefix(p.String(), "SHA256:"), "sha256:" + hexed, strings.ToUpper(hexed), p.Groups(), "  " + p.String() + "\n", "sha256//" + strings.TrimPrefix(p.String(), "SHA256:") + "="} {
		if got, err := identity.ParsePin(s); err != nil || !got.Equal(p) {
			t.Errorf("%q: %v %v", s, got, err)
		}
	}
	for _, s := range []string{"", "SHA256:", hexed[1:], hexed + "00", "MD5:" + hexed, p.String()[:49], strings.Repeat("x", 1000), p.String() + "é"} {
		if _, err := identity.ParsePin(s); !fail.Is(err, fail.Invalid) {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestDomainNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"bsc": true, "a-b.c1": true, "x": true, strings.Repeat("a", 63): true,
		"": false, "a..b": false, ".a": false, "a.": false, "-a": false, "a-.b": false, "A": false, "a_b": false, "a/b": false, "ä": false, strings.Repeat("a", 64): false, strings.Repeat("a.", 126) + "a": true, strings.Repeat("a.", 127) + "a": false,
	} {
		if got := identity.BadDomain(name) == ""; got != ok {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestTrust(t *testing.T) {
	clk := &clock{noon}
	fiu, ibm := open(t, "fiu.example", clk), open(t, "ibm.example", clk)
	is := newIssuer(t, nil)
	between, betweenKey := is.make(t, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	}, nil)
	sub := &issuer{between, betweenKey}
	named := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = names }
	}
	leaf := func(by *issuer, edit func(*x509.Certificate)) *x509.Certificate {
		c, _ := by.make(t, edit, nil)
		return c
	}
	good := leaf(is, named("fiu.example"))
	for _, c := range []struct {
		name    string
		anchors []identity.Anchor
		chain   []*x509.Certificate
		at      time.Time
		domain  string
		want    string // of the refusal; "" is trusted
	}{
		{"a pinned key", []identity.Anchor{byKey(fiu)}, fiu.Current().Chain, noon, "fiu.example", ""},
		{"a CA", []identity.Anchor{byCA(fiu)}, fiu.Current().Chain, noon, "fiu.example", ""},
		{"the key before and the one after", []identity.Anchor{byKey(fiu), {Domain: "fiu.example", Pins: []identity.Pin{identity.PinOf(good)}}}, fiu.Current().Chain, noon, "fiu.example", ""},
		{"another domain's certificate", []identity.Anchor{byKey(fiu), byKey(ibm)}, ibm.Current().Chain, noon, "fiu.example", "not of fiu.example"},
		{"nobody knows the domain", []identity.Anchor{byKey(fiu)}, ibm.Current().Chain, noon, "ibm.example", "not trusted here"},
		{"a CA of one domain for another", []identity.Anchor{{Domain: "ibm.example", CAs: []*x509.Certificate{is.cert}}, {Domain: "fiu.example", CAs: []*x509.Certificate{fiu.CA()}}}, []*x509.Certificate{good}, noon, "fiu.example", "does not lead to a CA"},
		{"its own CA names another domain", []identity.Anchor{{Domain: "ibm.example", CAs: []*x509.Certificate{fiu.CA()}}}, fiu.Current().Chain, noon, "ibm.example", "not of ibm.example"},
		{"no certificate", []identity.Anchor{byKey(fiu)}, nil, noon, "fiu.example", "no certificate"},
		{"expired", []identity.Anchor{{Domain: "fiu.example", CAs: []*x509.Certificate{is.cert}}}, []*x509.Certificate{good}, noon.Add(2 * time.Hour), "fiu.example", "ended at"},
		{"a pinned key, expired", []identity.Anchor{{Domain: "fiu.example", Pins: []identity.Pin{identity.PinOf(good)}}}, []*x509.Certificate{good}, noon.Add(2 * time.Hour), "fiu.example", "ended at"},
		{"too early", []identity.Anchor{byKey(fiu)}, fiu.Current().Chain, noon.Add(-2 * time.Hour), "fiu.example", "holds from"},
		{"another key", []identity.Anchor{{Domain: "fiu.example", Pins: []identity.Pin{identity.PinOf(good)}}}, fiu.Current().Chain, noon, "fiu.example", "somebody is in between"},
		{"an unknown CA", []identity.Anchor{byCA(fiu)}, []*x509.Certificate{good}, noon, "fiu.example", "does not lead to a CA"},
		{"by an intermediate", []identity.Anchor{{Domain: "fiu.example", CAs: []*x509.Certificate{is.cert}}}, []*x509.Certificate{leaf(sub, named("fiu.example")), between}, noon, "fiu.example", ""},
		{"the intermediate is missing", []identity.Anchor{{Domain: "fiu.example", CAs: []*x509.Certificate{is.cert}}}, []*x509.Certificate{leaf(sub, named("fiu.example"))}, noon, "fiu.example", "does not lead to a CA"},
		{"a wildcard", []identity.Anchor{{Domain: "fiu.example", CAs: []*x509.Certificate{is.cert}}}, []*x509.Certificate{leaf(is, named("*.example"))}, noon, "fiu.example", "not of fiu.example"},
		{"the common name alone", []identity.Anchor{{Domain: "fiu.example", CAs: []*x509.Certificate{is.cert}}}, []*x509.Certificate{leaf(is, func(c *x509.Certificate) { c.Subject.CommonName = "fiu.example" })}, noon, "fiu.example", "not of fiu.example"},
		{"a name of its own", []identity.Anchor{{Domain: "fiu.example", Name: "gw.fiu.example", CAs: []*x509.Certificate{is.cert}}}, []*x509.Certificate{leaf(is, named("gw.fiu.example"))}, noon, "fiu.example", ""},
		{"for another purpose", []identity.Anchor{{Domain: "fiu.example", CAs: []*x509.Certificate{is.cert}}}, []*x509.Certificate{leaf(is, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"fiu.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
		})}, noon, "fiu.example", "does not lead to a CA"},
		{"as a server only", []identity.Anchor{{Domain: "fiu.example", CAs: []*x509.Certificate{is.cert}}}, []*x509.Certificate{leaf(is, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"fiu.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})}, noon, "fiu.example", ""},
		{"the CA itself", []identity.Anchor{{Domain: "fiu.example", CAs: []*x509.Certificate{is.cert}}}, []*x509.Certificate{leaf(is, func(c *x509.Certificate) {
			c.DNSNames, c.IsCA, c.BasicConstraintsValid = []string{"fiu.example"}, true, true
		})}, noon, "fiu.example", "of a CA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := trust(t, c.anchors...)
			for range 2 { // the second time by what is remembered
				err := tr.Verify(c.domain, c.chain, c.at)
				switch {
				case c.want == "" && err != nil:
					t.Error(err)
				case c.want != "" && (err == nil || !strings.Contains(fail.Sentence(err), c.want)):
					t.Errorf("%v; want %q", err, c.want)
				}
				domains, err := tr.Domains(c.chain, c.at)
				if (err == nil) != (len(domains) > 0) || c.want == "" && (len(domains) != 1 || domains[0] != c.domain) {
					t.Errorf("%v %v", domains, err)
				}
			}
		})
	}
	// What is remembered does not outlive the certificate, nor the trust.
	tr := trust(t, identity.Anchor{Domain: "fiu.example", CAs: []*x509.Certificate{is.cert}})
	chain := []*x509.Certificate{good}
	if err := tr.Verify("fiu.example", chain, noon); err != nil {
		t.Fatal(err)
	}
	if err := tr.Verify("fiu.example", chain, noon.Add(2*time.Hour)); err == nil {
		t.Error("it is trusted after its end")
	}
	if err := tr.Set(nil); err != nil {
		t.Fatal(err)
	}
	if err := tr.Verify("fiu.example", chain, noon); err == nil {
		t.Error("it is trusted after the trust ended")
	}
	for _, bad := range []identity.Anchor{{}, {Domain: "a"}, {Domain: "A", Pins: []identity.Pin{{1}}}, {Domain: "a", CAs: []*x509.Certificate{good}}, {Domain: "a", Name: "*.b", Pins: []identity.Pin{{1}}}} {
		if err := tr.Set([]identity.Anchor{byKey(fiu), bad}); !fail.Is(err, fail.Invalid) || tr.Knows("fiu.example") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := tr.Set([]identity.Anchor{byKey(fiu), {Domain: "fiu.example", Name: "x", Pins: []identity.Pin{{1}}}}); !fail.Is(err, fail.Invalid) {
		t.Errorf("two names: %v", err)
	}
}

// TestHandshakes are real ones between two gateways.
func TestHandshakes(t *testing.T) {
	clk := &clock{time.Now()}
	bsc, fiu, ibm := open(t, "bsc.example", clk), open(t, "fiu.example", clk), open(t, "ibm.example", clk)
	late := open(t, "fiu.example", &clock{time.Now().Add(-3 * 365 * 24 * time.Hour)})
	changed := open(t, "fiu.example", clk)
	nobody := trust(t)
	for _, c := range []struct {
		name           string
		client         *identity.Identity
		atServer, here *identity.Trust // whom the server trusts, and whom the client
		asked          string
		ok             bool
	}{
		{"pinned keys", fiu, trust(t, byKey(fiu)), trust(t, byKey(bsc)), "bsc.example", true},
		{"CAs", fiu, trust(t, byCA(fiu)), trust(t, byCA(bsc)), "bsc.example", true},
		{"the server trusts nobody", fiu, nobody, trust(t, byKey(bsc)), "bsc.example", false},
		{"the client trusts nobody", fiu, trust(t, byKey(fiu)), nobody, "bsc.example", false},
		{"an unknown CA", ibm, trust(t, byCA(fiu)), trust(t, byCA(bsc)), "bsc.example", false},
		{"another domain was asked", fiu, trust(t, byKey(fiu)), trust(t, byKey(bsc), byKey(ibm)), "ibm.example", false},
		{"the client's key changed", changed, trust(t, byKey(fiu)), trust(t, byKey(bsc)), "bsc.example", false},
		{"the client's certificate expired", late, trust(t, byKey(late)), trust(t, byKey(bsc)), "bsc.example", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, bsc, c.atServer)
			status, err := get(t, s.url, c.client.ClientTLS(c.here, c.asked))
			if (err == nil && status == 200) != c.ok {
				t.Fatalf("%d %v", status, err)
			}
			if c.ok {
				if got := <-s.seen; len(got) != 1 || got[0] != c.client.Domain() {
					t.Errorf("the server saw %v", got)
				}
			}
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		s := serve(t, bsc, trust(t, byKey(fiu)))
		if status, err := get(t, s.url, &tls.Config{InsecureSkipVerify: true}); err == nil {
			t.Errorf("it got %d", status)
		}
	})
	t.Run("an older TLS", func(t *testing.T) {
		s := serve(t, bsc, trust(t, byKey(fiu)))
		o := fiu.ClientTLS(trust(t, byKey(bsc)), "bsc.example")
		o.MinVersion, o.MaxVersion = 0, tls.VersionTLS12
		if status, err := get(t, s.url, o); err == nil {
			t.Errorf("it got %d", status)
		}
	})
	t.Run("trust ends while a connection is open", func(t *testing.T) {
		tr := trust(t, byKey(fiu))
		s := serve(t, bsc, tr)
		o := fiu.ClientTLS(trust(t, byKey(bsc)), "bsc.example")
		o.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		if status, err := get(t, s.url, o); err != nil || status != 200 {
			t.Fatal(status, err)
		}
		if err := tr.Set([]identity.Anchor{byKey(ibm)}); err != nil {
			t.Fatal(err)
		}
		if status, err := get(t, s.url, o); err == nil { // by a resumed session
			t.Errorf("it got %d", status)
		}
	})
}

func TestFetch(t *testing.T) {
	clk := &clock{time.Now()}
	bsc := open(t, "bsc.example", clk)
	s := serve(t, bsc, trust(t, byKey(open(t, "fiu.example", clk))))
	o, err := identity.Fetch(t.Context(), s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.Pin != bsc.Current().Pin() || len(o.Domains()) != 1 || o.Domains()[0] != "bsc.example" {
		t.Errorf("%+v", o)
	}
	// It is pinned, kept, read again, and trusted.
	st := identity.Store{Dir: filepath.Join(t.TempDir(), "trust")}
	if list, err := st.List(); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	if err := st.Put(o.Pinned("bsc.example", "ada", noon)); err != nil {
		t.Fatal(err)
	}
	list, err := st.List()
	if err != nil || len(list) != 1 || list[0].URL != s.url || list[0].By != "ada" || !list[0].At.Equal(noon) {
		t.Fatalf("%+v %v", list, err)
	}
	a, err := list[0].Anchor()
	if err != nil {
		t.Fatal(err)
	}
	if err := trust(t, a).Verify("bsc.example", bsc.Current().Chain, clk.at); err != nil {
		t.Error(err)
	}
	if i, err := os.Stat(filepath.Join(st.Dir, "bsc.example.yaml")); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", i, err)
	}

	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	plain := make(chan struct{})
	go func() {
		defer close(plain)
		if c, err := l.Accept(); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\n")
			_ = c.Close()
		}
	}()
	for url, want := range map[string]string{"https://" + l.Addr().String(): "does not speak TLS", "http://a/peer": "no address", "https://": "no address", "": "no address"} {
		if want == "no address" {
			want = "not the address"
		}
		if _, err := identity.Fetch(t.Context(), url, nil); err == nil || !strings.Contains(fail.Sentence(err), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
	_ = l.Close()
	<-plain
	if _, err := identity.Fetch(t.Context(), "https://"+l.Addr().String(), nil); !fail.Is(err, fail.Unavailable) || !strings.Contains(fail.Sentence(err), "refused") {
		t.Error(err)
	}
}

func TestStoreOfWrongFiles(t *testing.T) {
	st := identity.Store{Dir: t.TempDir()}
	pin := open(t, "a", &clock{noon}).Current().Pin().String()
	if err := st.Put(identity.Added{Domain: "good", Key: pin, At: noon}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []identity.Added{{}, {Domain: "../x", Key: pin}, {Domain: "x"}, {Domain: "x", Key: "y"}, {Domain: "x", CA: "y"}} {
		if err := st.Put(bad); !fail.Is(err, fail.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for name, text := range map[string]string{
		"unknown.yaml": "domain: unknown\nkey: " + pin + "\nx: y\n",
		"other.yaml":   "domain: another\nkey: " + pin + "\n",
		"nokey.yaml":   "domain: nokey\n",
		"text.yaml":    "no yaml: at: all",
		"long.yaml":    "# " + strings.Repeat("x", 70000),
		"open.yaml":    "domain: open\nkey: " + pin + "\n",
		"README":       "nothing of ours",
	} {
		if err := os.WriteFile(filepath.Join(st.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(st.Dir, "open.yaml"), 0o666); err != nil {
		t.Fatal(err)
	}
	list, err := st.List()
	if len(list) != 1 || list[0].Domain != "good" {
		t.Errorf("%+v", list)
	}
	for _, want := range []string{"unknown.yaml", "other.yaml", "nokey.yaml", "text.yaml", "long.yaml", "chmod 600"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing is said of %s: %v", want, err)
		}
	}
	if err := st.Remove("good"); err != nil {
		t.Error(err)
	}
	for _, d := range []string{"good", "../identity", ""} {
		if err := st.Remove(d); !fail.Is(err, fail.NotFound) {
			t.Errorf("%q: %v", d, err)
		}
	}
}
