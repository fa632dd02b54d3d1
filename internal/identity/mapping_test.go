package identity_test

import (
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
)

func TestMapping(t *testing.T) {
	m := identity.Mapping{
		{Peer: "*.example", User: "mallory", Refuse: "mallory is not welcome here", From: "1"},
		{Origin: "fiu.example", VO: "bio", Account: "gridbio", As: "biology", From: "2"},
		{Peer: "fiu.example", Origin: "fiu.example", VO: identity.NoVO, Account: "fiu_{user}", From: "3"},
		{Peer: "ibm.example", Origin: "*.far.example", User: "a*a", Vouched: true, Account: "far", From: "4"},
		{Peer: "ibm.example", Origin: "ibm.example", Account: "{user}", From: "5"},
	}
	for _, r := range m {
		if err := r.Check(); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		name string
		s    identity.Subject
		want identity.Local
		err  string
	}{
		{"the first that matches", identity.Subject{User: "ada", Origin: "fiu.example", VO: "bio", By: "fiu.example", Signed: true}, identity.Local{Owner: "ada@fiu.example", Account: "gridbio", VO: "biology", Rule: "2"}, ""},
		{"through another peer", identity.Subject{User: "ada", Origin: "fiu.example", VO: "bio", By: "ibm.example", Signed: true}, identity.Local{Owner: "ada@fiu.example", Account: "gridbio", VO: "biology", Rule: "2"}, ""},
		{"not signed by the origin", identity.Subject{User: "ada", Origin: "fiu.example", VO: "bio", By: "ibm.example"}, identity.Local{}, "on the word of ibm.example alone"},
		{"without a VO", identity.Subject{User: "ada", Origin: "fiu.example", By: "fiu.example", Signed: true}, identity.Local{Owner: "ada@fiu.example", Account: "fiu_ada", Rule: "3"}, ""},
		{"a VO that no rule has", identity.Subject{User: "ada", Origin: "fiu.example", VO: "x", By: "fiu.example", Signed: true}, identity.Local{}, "no rule takes"},
		{"refused", identity.Subject{User: "mallory", Origin: "fiu.example", VO: "bio", By: "fiu.example", Signed: true}, identity.Local{}, "mallory is not welcome here"},
		{"vouched for", identity.Subject{User: "anna", Origin: "x.far.example", VO: "q", By: "ibm.example"}, identity.Local{Owner: "anna@x.far.example", Account: "far", VO: "q", Rule: "4"}, ""},
		{"a user that the pattern leaves out", identity.Subject{User: "a", Origin: "x.far.example", VO: "q", By: "ibm.example"}, identity.Local{}, "no rule takes"},
		{"a name that is an account", identity.Subject{User: "bob", Origin: "ibm.example", By: "ibm.example", Signed: true}, identity.Local{Owner: "bob@ibm.example", Account: "bob", Rule: "5"}, ""},
		{"root", identity.Subject{User: "root", Origin: "ibm.example", By: "ibm.example", Signed: true}, identity.Local{}, "can't have the account"},
		{"a name that is none", identity.Subject{User: "../x", Origin: "ibm.example", By: "ibm.example", Signed: true}, identity.Local{}, "can't have the account"},
		{"nobody", identity.Subject{User: "ada", Origin: "q", VO: "bio", By: "q", Signed: true}, identity.Local{}, "no rule takes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := m.Map(&c.s)
			if c.err != "" {
				if !fail.Is(err, fail.Denied) || !strings.Contains(fail.Sentence(err), c.err) {
					t.Errorf("%v; want %q", err, c.err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	if _, err := (identity.Mapping{}).Map(&identity.Subject{User: "ada", Origin: "a", By: "a", Signed: true}); !fail.Is(err, fail.Denied) {
		t.Errorf("without rules: %v", err)
	}
	for _, bad := range []identity.Rule{
		{},
		{Account: "root"},
		{Account: "a b"},
		{Account: "{user}{user}"},
		{Account: "x", Refuse: "y"},
		{Refuse: "a\nb"},
		{Refuse: strings.Repeat("x", 600)},
		{Account: "x", Peer: "A"},
		{Account: "x", Origin: "a b"},
		{Account: "x", User: strings.Repeat("*", 9)},
		{Account: "x", User: "a\nb"},
		{Account: "x", As: "a\nb"},
	} {
		if err := bad.Check(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "x", true},
		{"*", "", true},
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "a", true},
		{"a*b", "ab", true},
		{"a*b", "acb", true},
		{"a*b", "abc", false},
		{"a*a", "a", false},
		{"*b*", "abc", true},
		{"*b*", "ac", false},
		{"a*b*c", "axbxc", true},
		{"a*bb*c", "abc", false},
		{"*.x", "a.x", true},
		{"*.x", ".x", true},
		{"*.x", "x", false},
		{"?", "a", false},
	} {
		m := identity.Mapping{{User: c.pattern, Account: "x"}}
		_, err := m.Map(&identity.Subject{User: c.name, Origin: "a", By: "a", Signed: true})
		if (err == nil) != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.name, err)
		}
	}
}
