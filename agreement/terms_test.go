package agreement

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func leaf(name string) Term { return &ServiceDescription{Name: name, ServiceName: "s"} }

func shown(c *Compositor) string {
	var list []string
	for _, t := range c.Terms {
		list = append(list, t.TermName())
	}
	return strings.Join(list, "")
}

func TestChoose(t *testing.T) {
	c := &Compositor{All, []Term{
		leaf("a"),
		&Compositor{ExactlyOne, []Term{leaf("b"), &Compositor{All, []Term{leaf("c"), leaf("d")}}}},
		&Compositor{OneOrMore, []Term{leaf("e"), leaf("f")}},
		leaf("g"),
	}}
	list, cut := Choose(c, nil, 100)
	var got []string
	for _, x := range list {
		if x.Terms.Kind != All {
			t.Errorf("it is under %s", x.Terms.Kind)
		}
		got = append(got, shown(x.Terms))
	}
	if want := []string{"abeg", "abfg", "abefg", "acdeg", "acdfg", "acdefg"}; cut || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) || got[0] != "abeg" {
		t.Errorf("%v, cut %v", got, cut)
	}
	list, cut = Choose(c, []Preference{{" c\n", 2}, {"f", 1}, {"e", -5}, {"nobody", 99}}, 2)
	if !cut || len(list) != 2 || shown(list[0].Terms) != "acdfg" || list[0].Utility != 3 || shown(list[1].Terms) != "abfg" {
		t.Errorf("%v, cut %v", list, cut)
	}
	if list, cut = Choose(nil, nil, 1); list != nil || cut {
		t.Error("nothing to choose from")
	}
}

// enumerate lists every selection, as the definition has it.
func enumerate(t Term) [][]Term {
	c, ok := t.(*Compositor)
	if !ok {
		return [][]Term{{t}}
	}
	var list [][]Term
	if c.Kind == ExactlyOne {
		for _, m := range c.Terms {
			list = append(list, enumerate(m)...)
		}
		return list
	}
	for mask := range 1 << len(c.Terms) {
		if mask == 0 || c.Kind == All && mask != 1<<len(c.Terms)-1 {
			continue
		}
		sets := [][]Term{nil}
		for i, m := range c.Terms {
			if mask&(1<<i) == 0 {
				continue
			}
			var next [][]Term
			for _, s := range sets {
				for _, x := range enumerate(m) {
					next = append(next, slices.Concat(s, x))
				}
			}
			sets = next
		}
		list = append(list, sets...)
	}
	return list
}

// TestChoicesAreTheBest: however many are asked for, they are the best of all that
// there are.
func TestChoicesAreTheBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := 0
		var prefs []Preference
		var tree func(depth int) Term
		tree = func(depth int) Term {
			if n > 8 || depth == 0 || rapid.IntRange(0, 2).Draw(t, "leaf") == 0 {
				n++
				name := fmt.Sprintf("t%d", n)
				prefs = append(prefs, Preference{name, float64(rapid.IntRange(-3, 3).Draw(t, "utility"))})
				return leaf(name)
			}
			c := &Compositor{Kind: rapid.SampledFrom([]Composition{All, OneOrMore, ExactlyOne}).Draw(t, "kind")}
			for range rapid.IntRange(1, 3).Draw(t, "members") {
				c.Terms = append(c.Terms, tree(depth-1))
			}
			return c
		}
		root := &Compositor{All, []Term{tree(3), tree(2)}}
		utility := map[string]float64{}
		for _, p := range prefs {
			utility[p.Term] += p.Utility
		}
		type outcome struct {
			utility float64
			terms   int
			names   string
		}
		order := func(a, b outcome) int {
			return cmp.Or(cmp.Compare(b.utility, a.utility), cmp.Compare(a.terms, b.terms))
		}
		var all []outcome
		exists := map[string]bool{}
		for _, s := range enumerate(root) {
			x := outcome{terms: len(s), names: shown(&Compositor{All, s})}
			for _, m := range s {
				x.utility += utility[m.TermName()]
			}
			exists[x.names] = true
			all = append(all, x)
		}
		slices.SortFunc(all, order)
		most := rapid.IntRange(1, 40).Draw(t, "most")
		list, cut := Choose(root, prefs, most)
		if len(list) != min(most, len(all)) || len(all) > most && !cut {
			t.Fatalf("%d of %d, cut %v", len(list), len(all), cut)
		}
		seen := map[string]bool{}
		for i, x := range list {
			names := shown(x.Terms)
			if seen[names] || !exists[names] {
				t.Fatalf("%s is no choice, or twice", names)
			}
			seen[names] = true
			if math.Abs(x.Utility-all[i].utility) > 1e-9 || len(x.Terms.Terms) != all[i].terms {
				t.Fatalf("choice %d is %s (%v), and %v is better", i, names, x.Utility, all[i])
			}
		}
	})
}

// TestChoosingIsBounded: the worst offers that are read cost little.
func TestChoosingIsBounded(t *testing.T) {
	wide := &Compositor{Kind: OneOrMore}
	for i := range MaxTerms {
		wide.Terms = append(wide.Terms, leaf(fmt.Sprint(i)))
	}
	deep := &Compositor{Kind: All}
	for i := range MaxTerms / 7 {
		m := &Compositor{Kind: OneOrMore}
		for j := range 6 {
			m.Terms = append(m.Terms, leaf(fmt.Sprint(i, j)))
		}
		deep.Terms = append(deep.Terms, m)
	}
	for _, c := range []*Compositor{wide, deep} {
		if list, cut := Choose(c, nil, 32); len(list) != 32 || !cut {
			t.Errorf("%d, %v", len(list), cut)
		}
	}
}

func TestWalk(t *testing.T) {
	inner := &Compositor{ExactlyOne, []Term{leaf("b"), leaf("c")}}
	c := &Compositor{All, []Term{leaf("a"), inner, &Guarantee{Name: "g"}}}
	a := Agreement{Terms: c}
	n := 0
	c.Walk(func(Term) bool { n++; return true })
	if n != 6 {
		t.Errorf("%d terms", n)
	}
	n = 0
	c.Walk(func(t Term) bool { n++; return t != Term(inner) })
	if n != 4 {
		t.Errorf("%d terms without what is in one", n)
	}
	if a.Term("c").TermName() != "c" || a.Term("") != nil || a.Term("z") != nil || len(a.Guarantees()) != 1 {
		t.Error("terms by name")
	}
	(&Agreement{}).Terms.Walk(func(Term) bool { t.Error("nothing"); return true })
}

// TestServicesHaveTheirGuarantees: a scope that names no service is about all of them.
func TestServicesHaveTheirGuarantees(t *testing.T) {
	of := func(names ...string) *Guarantee {
		g := &Guarantee{Name: strings.Join(names, "+")}
		for _, n := range names {
			g.Scopes = append(g.Scopes, Scope{ServiceName: n})
		}
		return g
	}
	a := Agreement{Terms: &Compositor{All, []Term{
		&ServiceDescription{Name: "x", ServiceName: "a"}, &ServiceDescription{Name: "y", ServiceName: "b"},
		of(), of("a"), of("b", ""), of("c"),
	}}}
	var got []string
	for _, s := range a.Services() {
		for _, g := range s.Guarantees {
			got = append(got, s.Name+":"+g.Name)
		}
	}
	if want := []string{"a:", "a:a", "a:b+", "b:", "b:b+"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}
