package resourcemodel

import "testing"

// TestNamed: a site that is known through others goes by each of the names that it has on the way.
func TestNamed(t *testing.T) {
	for _, c := range []struct {
		key Key
		yes []string
		no  []string
	}{
		{Key{"", "hpc"}, []string{"hpc", "HPC"}, []string{"", "~", "/", "hp", "hub/hpc", "hpc~x"}},
		{Key{"hub", "hpc"}, []string{"hpc", "hub", "hub/hpc", "hub~hpc", "Hub/HPC"}, []string{"hpc/hub", "leaf/hpc", "hu"}},
		{Key{"hub", "leaf~hpc"}, []string{"hpc", "leaf", "leaf~hpc", "leaf/hpc", "hub", "hub/leaf", "hub/leaf~hpc", "hub~leaf~hpc"}, []string{"hub/hpc", "hub~hpc", "hpc~leaf", "x/leaf/hpc", "af~hpc"}},
		{Key{"hub", "leaf~twig~hpc"}, []string{"twig", "twig/hpc", "leaf/twig", "leaf~twig~hpc"}, []string{"leaf/hpc", "hub/twig"}},
	} {
		for _, name := range c.yes {
			if !c.key.Named(name) {
				t.Errorf("%s is not named by %q", c.key, name)
			}
		}
		for _, name := range c.no {
			if c.key.Named(name) {
				t.Errorf("%s is named by %q", c.key, name)
			}
		}
	}
}

// TestBeyond: what a gateway makes of the names that others have for what it has.
func TestBeyond(t *testing.T) {
	for _, c := range []struct {
		name, domain, want string
		of                 bool
	}{
		{"hub/leaf~hpc", "leaf", "hpc", true},
		{"hub/leaf~hpc", "hub", "leaf~hpc", true},
		{"leaf", "leaf", "", true},
		{"Leaf/hpc", "leaf", "hpc", true},
		{"hub/leaf", "leaf", "", true},
		{"hpc", "leaf", "hpc", false},
		{"leaflet/hpc", "leaf", "leaflet/hpc", false},
		{"leaf/hpc", "", "leaf/hpc", false},
		{"leaf/leaf", "leaf", "", true},
	} {
		if got, of := Beyond(c.name, c.domain); got != c.want || of != c.of {
			t.Errorf("%q beyond %s is %q, %v", c.name, c.domain, got, of)
		}
	}
}
