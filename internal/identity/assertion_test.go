package identity_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
)

const document = "<JobDefinition/>"

// ada is what fiu vouches for of a user of its own, for bsc.
func ada(edit func(*identity.Claims)) identity.Claims {
	c := identity.Claims{Audience: "bsc.example", Job: "00000007", User: "ada", VOs: []string{"bio", "physics"}, Document: sha256.Sum256([]byte(document)), NotBefore: noon, NotAfter: noon.Add(10 * time.Minute)}
	if edit != nil {
		edit(&c)
	}
	return c
}

func vouch(t testing.TB, i *identity.Identity, edit func(*identity.Claims)) []byte {
	t.Helper()
	b, err := i.Vouch(ada(edit))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func handed(edit func(*identity.Handed)) identity.Handed {
	h := identity.Handed{By: "fiu.example", To: "bsc.example", Path: []string{"fiu.example"}, Job: "00000007", VO: "bio", Document: []byte(document)}
	if edit != nil {
		edit(&h)
	}
	return h
}

func TestAssertions(t *testing.T) {
	clk := &clock{noon}
	fiu, ibm := open(t, "fiu.example", clk), open(t, "ibm.example", clk)
	tr := trust(t, byKey(fiu))
	for _, c := range []struct {
		name   string
		by     *identity.Identity
		claims func(*identity.Claims)
		handed func(*identity.Handed)
		after  time.Duration
		want   string
	}{
		{"a user", fiu, nil, nil, 0, ""},
		{"in the last minute", fiu, nil, nil, 10 * time.Minute, ""},
		{"a clock behind", fiu, nil, nil, -time.Minute, ""},
		{"no VO", fiu, func(c *identity.Claims) { c.VOs = nil }, func(h *identity.Handed) { h.VO = "" }, 0, ""},
		{"a name to escape", fiu, func(c *identity.Claims) { c.User = `a"\é b` }, nil, 0, ""},
		{"too late", fiu, nil, nil, 13 * time.Minute, "which is over"},
		{"too early", fiu, nil, nil, -3 * time.Minute, "not yet"},
		{"another audience", fiu, func(c *identity.Claims) { c.Audience = "ibm.example" }, nil, 0, "for ibm.example and not for bsc.example"},
		{"another job", fiu, func(c *identity.Claims) { c.Job = "8" }, nil, 0, "about another job"},
		{"another document", fiu, nil, func(h *identity.Handed) { h.Document = []byte("<JobDefinition />") }, 0, "about another document"},
		{"another VO", fiu, nil, func(h *identity.Handed) { h.VO = "chemistry" }, 0, "says nothing of the VO"},
		{"another path", fiu, nil, func(h *identity.Handed) { h.Path = []string{"ibm.example", "fiu.example"} }, 0, "came through 2"},
		{"another sender", fiu, nil, func(h *identity.Handed) { h.By = "ibm.example" }, 0, "must end with"},
		{"another issuer", ibm, nil, nil, 0, "where the path has fiu.example"},
		{"nobody trusts it", ibm, nil, func(h *identity.Handed) { h.By, h.Path = "ibm.example", []string{"ibm.example"} }, 0, "not trusted here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := tr.Check(vouch(t, c.by, c.claims), handed(c.handed), noon.Add(c.after))
			if c.want != "" {
				if err == nil || !strings.Contains(fail.Sentence(err), c.want) || !fail.Is(err, fail.Unauthenticated) && !fail.Is(err, fail.Denied) {
					t.Errorf("%v; want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := ada(c.claims); s.User != want.User || s.Origin != "fiu.example" || s.By != "fiu.example" || !s.Signed || !slices.Equal(s.VOs, want.VOs) {
				t.Errorf("%+v", s)
			}
		})
	}
	if _, err := tr.Check(nil, handed(nil), noon); err == nil || !strings.Contains(fail.Sentence(err), "missing") {
		t.Error(err)
	}
	for _, bad := range []func(*identity.Claims){
		func(c *identity.Claims) { c.User = "" }, func(c *identity.Claims) { c.User = "a\nb" }, func(c *identity.Claims) { c.User = strings.Repeat("x", 300) },
		func(c *identity.Claims) { c.User = "\xff" }, func(c *identity.Claims) { c.Audience = "A" }, func(c *identity.Claims) { c.Job = "" }, func(c *identity.Claims) { c.VOs = make([]string, 100) },
		func(c *identity.Claims) { c.NotAfter = c.NotBefore }, func(c *identity.Claims) { c.NotAfter = c.NotBefore.Add(30 * 24 * time.Hour) },
	} {
		if _, err := fiu.Vouch(ada(bad)); !fail.Is(err, fail.Invalid) {
			t.Errorf("%+v: %v", ada(bad), err)
		}
	}
}

// TestPassedOn: fiu gives a job to ibm, which gives it to bsc.
func TestPassedOn(t *testing.T) {
	clk := &clock{noon}
	fiu, ibm, evil := open(t, "fiu.example", clk), open(t, "ibm.example", clk), open(t, "fiu.example", clk)
	toIBM := func(c *identity.Claims) { c.Audience = "ibm.example" }
	later := noon.Add(time.Hour) // the first has ended by then
	pass := func(came []byte, vos ...string) []byte {
		t.Helper()
		b, err := ibm.Pass(came, "bsc.example", vos, later, later.Add(10*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	over := func(edit func(*identity.Handed)) identity.Handed {
		return handed(func(h *identity.Handed) {
			h.By, h.Path = "ibm.example", []string{"fiu.example", "ibm.example"}
			if edit != nil {
				edit(h)
			}
		})
	}
	good := pass(vouch(t, fiu, toIBM), "bio", "physics")
	tokens := strings.Split(string(good), "~")
	other := strings.Split(string(pass(vouch(t, evil, toIBM), "bio")), "~")
	more := func() []byte { // ibm says more than fiu did
		b, err := ibm.Pass(vouch(t, evil, func(c *identity.Claims) { toIBM(c); c.VOs = []string{"bio", "chemistry"} }), "bsc.example", []string{"bio", "chemistry"}, later, later.Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		return []byte(tokens[0] + "~" + strings.Split(string(b), "~")[1])
	}()
	for _, c := range []struct {
		name    string
		b       []byte
		anchors []identity.Anchor
		handed  func(*identity.Handed)
		signed  bool
		want    string
	}{
		{"both are trusted", good, []identity.Anchor{byKey(fiu), byKey(ibm)}, nil, true, ""},
		{"the last hop's word", good, []identity.Anchor{byKey(ibm)}, nil, false, ""},
		{"the last hop is not trusted", good, []identity.Anchor{byKey(fiu)}, nil, false, "not trusted"},
		{"a made-up origin", []byte(strings.Join(other, "~")), []identity.Anchor{byKey(fiu), byKey(ibm)}, nil, false, "somebody is in between"},
		{"a made-up origin that nobody knows", []byte(strings.Join(other, "~")), []identity.Anchor{byKey(ibm)}, nil, false, ""},
		{"the origin's alone", []byte(tokens[0]), []identity.Anchor{byKey(fiu), byKey(ibm)}, nil, false, "of 1 domains"},
		{"the last hop's alone", []byte(tokens[1]), []identity.Anchor{byKey(fiu), byKey(ibm)}, nil, false, "of 1 domains"},
		{"in the wrong order", []byte(tokens[1] + "~" + tokens[0]), []identity.Anchor{byKey(fiu), byKey(ibm)}, nil, false, "where the path has"},
		{"a VO more", more, []identity.Anchor{byKey(fiu), byKey(ibm)}, nil, false, "that the one before it does not"},
		{"a VO that was not passed on", pass(vouch(t, fiu, toIBM), "physics"), []identity.Anchor{byKey(fiu), byKey(ibm)}, nil, false, "says nothing of the VO"},
		{"another user", []byte(tokens[0] + "~" + strings.Split(string(pass(vouch(t, fiu, func(c *identity.Claims) { toIBM(c); c.User = "root" }), "bio")), "~")[1]), []identity.Anchor{byKey(fiu), byKey(ibm)}, nil, false, "names"},
		{"the first is for somebody else", pass(vouch(t, fiu, toIBM), "bio"), []identity.Anchor{byKey(fiu), byKey(ibm)}, func(h *identity.Handed) { h.Path = []string{"fiu.example", "ibm.example"}; h.To = "x.example" }, false, "for bsc.example and not for x.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := trust(t, c.anchors...).Check(c.b, over(c.handed), later)
			switch {
			case c.want != "" && (err == nil || !strings.Contains(fail.Sentence(err), c.want)):
				t.Errorf("%v; want %q", err, c.want)
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "" && (s.Signed != c.signed || s.By != "ibm.example" || s.Origin != "fiu.example"):
				t.Errorf("%+v", s)
			}
		})
	}
	if _, err := trust(t, byKey(fiu), byKey(ibm)).Check(good, over(nil), later.Add(100*24*time.Hour)); err == nil {
		t.Error("it is good for ever")
	}
	if _, err := ibm.Pass(vouch(t, fiu, nil), "x.example", nil, later, later.Add(time.Minute)); !fail.Is(err, fail.Invalid) {
		t.Errorf("one for somebody else is passed on: %v", err)
	}
	list, err := identity.Asserted(good)
	if err != nil || len(list) != 2 || list[0].Issuer != "fiu.example" || list[1].Issuer != "ibm.example" || list[1].User != "ada" {
		t.Errorf("%+v %v", list, err)
	}
}

// TestAnyByteOfAnAssertion: with any one byte changed it is refused.
func TestAnyByteOfAnAssertion(t *testing.T) {
	fiu := open(t, "fiu.example", &clock{noon})
	tr := trust(t, byKey(fiu))
	b := vouch(t, fiu, nil)
	if _, err := tr.Check(b, handed(nil), noon); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		for _, flip := range []byte{1, 2, 4, 0x20} {
			c := slices.Clone(b)
			c[i] ^= flip
			if s, err := tr.Check(c, handed(nil), noon); err == nil {
				t.Fatalf("byte %d of %q: %+v", i, c, s)
			}
		}
	}
}

// TestAnyClaims: what is vouched for is read again as it was.
func TestAnyClaims(t *testing.T) {
	fiu := open(t, "fiu.example", &clock{noon})
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.StringOfN(rapid.SampledFrom([]rune(`ab "\é𝄞~.{}`)), 1, 30, 200)
		c := identity.Claims{
			Audience: "b", Job: line.Draw(t, "job"), User: line.Draw(t, "user"), VOs: rapid.SliceOfN(line, 0, 5).Draw(t, "VOs"),
			NotBefore: time.Unix(rapid.Int64Range(0, 1e10).Draw(t, "from"), 0),
		}
		c.NotAfter = c.NotBefore.Add(time.Duration(rapid.IntRange(1, 600000).Draw(t, "life")) * time.Second)
		copy(c.Document[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "document"))
		b, err := fiu.Vouch(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := identity.Asserted(b)
		if err != nil {
			t.Fatal(err)
		}
		c.Issuer, c.Origin = "fiu.example", "fiu.example"
		if len(c.VOs) == 0 {
			c.VOs = nil
		}
		if len(got) != 1 || !reflect.DeepEqual(got[0], c) {
			t.Fatalf("\n%+v\n%+v", got, c)
		}
	})
}

// TestForeignTokens: tokens are JSON Web Tokens, which others can make and read.
func TestForeignTokens(t *testing.T) {
	clk := &clock{noon}
	is := newIssuer(t, nil)
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := is.make(t, func(c *x509.Certificate) { c.DNSNames = []string{"fiu.example"} }, big)
	withRSA, err := openFiles(t, "fiu.example", clk, big, cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []*identity.Identity{open(t, "fiu.example", clk), withRSA} {
		b := vouch(t, i, nil)
		if _, err := trust(t, byKey(i)).Check(b, handed(nil), noon); err != nil {
			t.Error(err)
		}
		tok, err := jwt.NewParser(jwt.WithTimeFunc(clk.now), jwt.WithAudience("bsc.example"), jwt.WithIssuer("fiu.example"), jwt.WithSubject("ada"), jwt.WithExpirationRequired()).
			Parse(string(b), func(*jwt.Token) (any, error) { return i.Current().Leaf().PublicKey, nil })
		if err != nil || tok.Header["typ"] != "portolan-assertion+jwt" {
			t.Errorf("another library does not take it: %v", err)
		}
	}
	// Of another key, algorithm or type it is none.
	fiu := open(t, "fiu.example", clk)
	tr := trust(t, byKey(fiu))
	good := string(vouch(t, fiu, nil))
	parts := strings.Split(good, ".")
	head, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][2]string{
		"none": {`"ES256"`, `"none"`}, "HMAC": {`"ES256"`, `"HS256"`}, "RSA": {`"ES256"`, `"RS256"`}, "another type": {"portolan-assertion+jwt", "jwt"},
		"more in it": {`"alg"`, `"crit":["x"],"alg"`}, "no certificate": {`"x5c":[`, `"x5c":[],"y":[`},
	} {
		h := base64.RawURLEncoding.EncodeToString(bytes.Replace(head, []byte(edit[0]), []byte(edit[1]), 1))
		if _, err := tr.Check([]byte(h+"."+parts[1]+"."+parts[2]), handed(nil), noon); !fail.Is(err, fail.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tr.Check([]byte(parts[0]+"."+parts[1]+"."), handed(nil), noon); !fail.Is(err, fail.Unauthenticated) {
		t.Errorf("no signature: %v", err)
	}
}

func FuzzAsserted(f *testing.F) {
	fiu := open(f, "fiu.example", &clock{noon})
	ibm := open(f, "ibm.example", &clock{noon})
	tr := trust(f, byKey(fiu), byKey(ibm))
	good := vouch(f, fiu, nil)
	f.Add(good)
	f.Add(append(append(slices.Clone(good), '~'), good...))
	f.Add([]byte(`e30.e30.e30`))
	want, err := identity.Asserted(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := identity.Asserted(b); err != nil && !fail.Is(err, fail.Unauthenticated) || err == nil && len(list) == 0 {
			t.Errorf("%v %v", list, err)
		}
		s, err := tr.Check(b, handed(nil), noon)
		if err == nil && (s.User != want[0].User || !slices.Equal(s.VOs, want[0].VOs)) {
			t.Errorf("%q is taken: %+v", b, s)
		}
	})
}

func BenchmarkVouch(b *testing.B) {
	fiu := open(b, "fiu.example", &clock{noon})
	c := ada(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fiu.Vouch(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	fiu := open(b, "fiu.example", &clock{noon})
	tr, h := trust(b, byCA(fiu)), handed(func(h *identity.Handed) { h.Document = bytes.Repeat([]byte("x"), 3000) })
	a := vouch(b, fiu, func(c *identity.Claims) { c.Document = sha256.Sum256(h.Document) })
	b.ReportAllocs()
	b.ReportMetric(float64(len(a)), "bytes")
	for b.Loop() {
		if _, err := tr.Check(a, h, noon); err != nil {
			b.Fatal(err)
		}
	}
}
