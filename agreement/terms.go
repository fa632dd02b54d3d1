package agreement

import (
	"cmp"
	"slices"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Walk visits c and every term below it in document order, a compositor before
// what is in it. Where visit returns false, what is below is left out. A nil
// compositor has nothing to visit.
func (c *Compositor) Walk(visit func(Term) bool) {
	if c == nil || !visit(c) {
		return
	}
	for _, t := range c.Terms {
		if x, ok := t.(*Compositor); ok {
			x.Walk(visit)
			continue
		}
		visit(t)
	}
}

// Term gives the term of that name; nil where there is none.
func (a *Agreement) Term(name string) Term {
	var found Term
	a.Terms.Walk(func(t Term) bool {
		if _, ok := t.(*Compositor); !ok && found == nil && t.TermName() == name {
			found = t
		}
		return found == nil
	})
	return found
}

// ServiceTerms are the terms about one service: several descriptions of one
// service belong together (they are a conjunction).
type ServiceTerms struct {
	Name         string // the wsag:ServiceName
	Descriptions []*ServiceDescription
	References   []*ServiceReference
	Properties   []*ServiceProperties
	// Guarantees are those whose scopes name the service, and those without any
	// scope or with one that names no service: they are about all.
	Guarantees []*Guarantee
}

// Services gives the services of an agreement, in the order in which the document
// first describes or refers to them. Properties and guarantees alone make no
// service.
func (a *Agreement) Services() []ServiceTerms {
	var list []ServiceTerms
	at := map[string]int{}
	find := func(name string) *ServiceTerms {
		i, ok := at[name]
		if !ok {
			i = len(list)
			at[name] = i
			list = append(list, ServiceTerms{Name: name})
		}
		return &list[i]
	}
	a.Terms.Walk(func(t Term) bool {
		switch t := t.(type) {
		case *ServiceDescription:
			s := find(t.ServiceName)
			s.Descriptions = append(s.Descriptions, t)
		case *ServiceReference:
			s := find(t.ServiceName)
			s.References = append(s.References, t)
		}
		return true
	})
	a.Terms.Walk(func(t Term) bool {
		switch t := t.(type) {
		case *ServiceProperties:
			if i, ok := at[t.ServiceName]; ok {
				list[i].Properties = append(list[i].Properties, t)
			}
		case *Guarantee:
			for i := range list {
				if len(t.Scopes) == 0 || slices.ContainsFunc(t.Scopes, func(s Scope) bool { return s.ServiceName == "" || s.ServiceName == list[i].Name }) {
					list[i].Guarantees = append(list[i].Guarantees, t)
				}
			}
		}
		return true
	})
	return list
}

// Guarantees gives the guarantee terms, in document order.
func (a *Agreement) Guarantees() []*Guarantee {
	var list []*Guarantee
	a.Terms.Walk(func(t Term) bool {
		if g, ok := t.(*Guarantee); ok {
			list = append(list, g)
		}
		return true
	})
	return list
}

// Preferences gives those of all guarantees, in document order.
func (a *Agreement) Preferences() []Preference {
	var list []Preference
	for _, g := range a.Guarantees() {
		list = append(list, g.Values.Preferences...)
	}
	return list
}

// Alternative is one definite set of terms.
type Alternative struct {
	Terms   *Compositor // a wsag:All without compositors in it
	Utility float64     // the sum of the preferences for its terms
}

// Choose gives the definite alternatives that the compositors of c leave, each
// flattened under one wsag:All with its terms in document order: of ExactlyOne one
// member, of OneOrMore any of them but none. The most useful by the preferences
// comes first; of equals, the one with fewer terms, then the one that the document
// has first. At most `most` are given (1 at least), and they are the best ones; cut
// tells that there are more.
func Choose(c *Compositor, preferences []Preference, most int) (list []Alternative, cut bool) {
	if c == nil {
		return nil, false
	}
	ch := chooser{most: max(most, 1), utility: map[string]float64{}}
	for _, p := range preferences {
		ch.utility[xmldoc.Collapse(p.Term)] += p.Utility
	}
	for _, s := range ch.choices(c) {
		list = append(list, Alternative{&Compositor{All, s.terms}, s.utility})
	}
	return list, ch.cut
}

type chooser struct {
	most    int
	utility map[string]float64
	cut     bool
}

// selection is a set of terms without compositors.
type selection struct {
	terms   []Term
	utility float64
}

// choices gives the best selections of a term. The order is one of sums, so that
// the best of a whole are made of the best of its parts.
func (ch *chooser) choices(t Term) []selection {
	c, ok := t.(*Compositor)
	if !ok {
		return []selection{{[]Term{t}, ch.utility[xmldoc.Collapse(t.TermName())]}}
	}
	var list []selection
	switch c.Kind {
	case ExactlyOne:
		for _, m := range c.Terms {
			list = ch.best(append(list, ch.choices(m)...))
		}
	case OneOrMore:
		for _, m := range c.Terms {
			with := ch.choices(m)
			list = ch.best(slices.Concat(list, with, ch.joined(list, with)))
		}
	case All:
		list = []selection{{}}
		for _, m := range c.Terms {
			list = ch.joined(list, ch.choices(m))
		}
	}
	return list
}

// joined gives the best pairs of one of a and one of b.
func (ch *chooser) joined(a, b []selection) []selection {
	type pair struct {
		x, y    int
		utility float64
		terms   int
	}
	pairs := make([]pair, 0, len(a)*len(b))
	for x := range a {
		for y := range b {
			pairs = append(pairs, pair{x, y, a[x].utility + b[y].utility, len(a[x].terms) + len(b[y].terms)})
		}
	}
	slices.SortStableFunc(pairs, func(p, q pair) int {
		return cmp.Or(cmp.Compare(q.utility, p.utility), cmp.Compare(p.terms, q.terms))
	})
	if len(pairs) > ch.most {
		ch.cut = true
		pairs = pairs[:ch.most]
	}
	list := make([]selection, len(pairs))
	for i, p := range pairs {
		list[i] = selection{slices.Concat(a[p.x].terms, b[p.y].terms), p.utility}
	}
	return list
}

func (ch *chooser) best(list []selection) []selection {
	slices.SortStableFunc(list, func(x, y selection) int {
		return cmp.Or(cmp.Compare(y.utility, x.utility), cmp.Compare(len(x.terms), len(y.terms)))
	})
	if len(list) > ch.most {
		ch.cut = true
		list = list[:ch.most:ch.most]
	}
	return list
}
