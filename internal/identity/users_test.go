package identity_test

import (
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

// TestUsersOverTwoHops: fiu hands a job to ibm and that to bsc; each maps the user by its own rules.
func TestUsersOverTwoHops(t *testing.T) {
	clk := &clock{noon}
	fiu, ibm, bsc := open(t, "fiu.example", clk), open(t, "ibm.example", clk), open(t, "bsc.example", clk)
	users := func(i *identity.Identity, m identity.Mapping, anchors ...identity.Anchor) *identity.Users {
		u := identity.NewUsers(gate(t, i, "", anchors...))
		if m != nil {
			if err := u.SetMapping(m); err != nil {
				t.Fatal(err)
			}
		}
		return u
	}
	atFIU := users(fiu, nil)
	atIBM := users(ibm, identity.Mapping{{Account: "guest"}}, byKey(fiu))
	key := handover.Key{Origin: "fiu.example", ID: "00000007"}
	a, err := atFIU.Vouch(t.Context(), "ibm.example", key, "ada", "bio", document, noon.Add(10*time.Minute), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &wire.Route{About: wire.About{Origin: "fiu.example", ID: "00000007", Token: "1"}, VO: "bio", Path: []string{"fiu.example"}, Document: document, Assertion: a}
	if l, err := atIBM.Take("fiu.example", r); err != nil || l.Owner != "ada@fiu.example" || l.Account != "guest" || l.VO != "bio" {
		t.Fatalf("%+v %v", l, err)
	}
	if _, err := users(ibm, nil, byKey(fiu)).Take("fiu.example", r); !fail.Is(err, fail.Denied) {
		t.Errorf("without rules: %v", err)
	}
	clk.at = noon.Add(2 * time.Hour)
	if _, err := atIBM.Take("fiu.example", r); !fail.Is(err, fail.Unauthenticated) {
		t.Errorf("hours later: %v", err)
	}
	b, err := atIBM.Vouch(t.Context(), "bsc.example", key, "ada@fiu.example", "bio", document, clk.at.Add(10*time.Minute), a)
	if err != nil {
		t.Fatal(err)
	}
	on := *r
	on.Path, on.Assertion = []string{"fiu.example", "ibm.example"}, b
	m := identity.Mapping{{Origin: "fiu.example", Account: "signed"}, {Peer: "ibm.example", Vouched: true, Account: "vouched"}}
	for _, c := range []struct {
		name    string
		anchors []identity.Anchor
		want    string
	}{{"the origin is trusted", []identity.Anchor{byKey(fiu), byKey(ibm)}, "signed"}, {"the peer alone", []identity.Anchor{byKey(ibm)}, "vouched"}} {
		l, err := users(bsc, m, c.anchors...).Take("ibm.example", &on)
		if err != nil || l.Account != c.want || l.Owner != "ada@fiu.example" {
			t.Errorf("%s: %+v %v", c.name, l, err)
		}
	}
	other := on
	other.Origin = "ibm.example"
	if _, err := users(bsc, m, byKey(fiu), byKey(ibm)).Take("ibm.example", &other); !fail.Is(err, fail.Unauthenticated) {
		t.Errorf("another origin: %v", err)
	}
	other = on
	other.Document += " "
	if _, err := users(bsc, m, byKey(fiu), byKey(ibm)).Take("ibm.example", &other); err == nil || !strings.Contains(fail.Sentence(err), "another document") {
		t.Errorf("another document: %v", err)
	}
	if _, err := atFIU.Vouch(t.Context(), "x", key, "ada", "", document, clk.at, nil); !fail.Is(err, fail.Conflict) {
		t.Errorf("too late: %v", err)
	}
	if _, err := atIBM.Vouch(t.Context(), "x", key, "ada", "", document, clk.at.Add(time.Hour), nil); !fail.Is(err, fail.Internal) {
		t.Errorf("a job of another domain: %v", err)
	}
	if err := atIBM.SetMapping(identity.Mapping{{}}); !fail.Is(err, fail.Invalid) {
		t.Errorf("a wrong rule: %v", err)
	}
}
