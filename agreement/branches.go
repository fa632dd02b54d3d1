package agreement

import (
	"slices"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/internal/xpath"
)

// An offer may take one branch of a choice that its template leaves, and then has nothing of the
// others. So what an Item locates under a choice is missing in an offer only if the offer takes that
// branch, or takes none, or says by a term of its own what the template says there.

// fork is a branch of a choice.
type fork struct {
	branch map[string]bool // the names of its terms
	all    map[string]bool // and those of the whole choice
}

// termKind is what a term is about, whatever its name is.
type termKind struct {
	term    string // the element
	content xmldoc.Name
}

// optional is what an Item locates under a choice.
type optional struct {
	forks []int // of Checker.forks: the branches that it is in, the outermost first
	kinds []termKind
}

// branches are the choices of a template.
type branches struct {
	forks []fork
	of    map[*etree.Element][]int // of a term or compositor that is in a branch
	terms map[string]termKind
}

func branchesOf(root *etree.Element) *branches {
	b := &branches{of: map[*etree.Element][]int{}, terms: termsOf(root)}
	if t := xmldoc.Child(root, NS, "Terms"); t != nil {
		b.walk(t, nil)
	}
	return b
}

func isTerm(e *etree.Element) bool {
	switch e.Tag {
	case "ServiceDescriptionTerm", "ServiceReference", "ServiceProperties", "GuaranteeTerm":
		return xmldoc.NameOf(e).Space == NS
	}
	return false
}

func isCompositor(e *etree.Element) bool {
	switch e.Tag {
	case string(All), string(OneOrMore), string(ExactlyOne):
		return xmldoc.NameOf(e).Space == NS
	}
	return false
}

// walk notes the branches below a compositor, or a wsag:Terms, that is in those.
func (b *branches) walk(e *etree.Element, in []int) {
	var all map[string]bool
	choice := isCompositor(e) && e.Tag != string(All)
	if choice {
		all = namesOf(e)
	}
	for _, k := range e.ChildElements() {
		if !isTerm(k) && !isCompositor(k) {
			continue
		}
		at := in
		if choice {
			at = append(slices.Clip(in), len(b.forks))
			b.forks = append(b.forks, fork{namesOf(k), all})
		}
		if len(at) > 0 {
			b.of[k] = at
		}
		if isCompositor(k) {
			b.walk(k, at)
		}
	}
}

// eachTerm visits the terms at and below e.
func eachTerm(e *etree.Element, visit func(name string, t *etree.Element)) {
	if isTerm(e) {
		name, _ := xmldoc.Attr(e, NS, "Name")
		visit(name, e)
		return
	}
	for _, k := range e.ChildElements() {
		if isTerm(k) || isCompositor(k) {
			eachTerm(k, visit)
		}
	}
}

func namesOf(e *etree.Element) map[string]bool {
	names := map[string]bool{}
	eachTerm(e, func(name string, _ *etree.Element) { names[name] = true })
	return names
}

func kindOf(t *etree.Element) termKind {
	k := termKind{term: t.Tag}
	if kids := t.ChildElements(); len(kids) > 0 && (t.Tag == "ServiceDescriptionTerm" || t.Tag == "ServiceReference") {
		k.content = xmldoc.NameOf(kids[0])
	}
	return k
}

// termsOf gives the terms of a document by their names.
func termsOf(root *etree.Element) map[string]termKind {
	found := map[string]termKind{}
	if t := xmldoc.Child(root, NS, "Terms"); t != nil {
		eachTerm(t, func(name string, e *etree.Element) { found[name] = kindOf(e) })
	}
	return found
}

// optional tells what an Item locates in the template: there is whether some of it is in no branch.
func (b *branches) optional(nodes []xpath.Node) (there bool, list []optional) {
	seen := map[*etree.Element]bool{}
	for _, n := range nodes {
		e := n.Element()
		for e != nil && b.of[e] == nil {
			e = e.Parent()
		}
		if e == nil {
			return true, nil
		}
		if seen[e] {
			continue
		}
		seen[e] = true
		o := optional{forks: b.of[e]}
		eachTerm(e, func(_ string, t *etree.Element) { o.kinds = append(o.kinds, kindOf(t)) })
		list = append(list, o)
	}
	return false, list
}

// choice is what an offer takes of a template's choices.
type choice struct {
	forgone   []bool              // of each fork: nothing of it, and something of the same choice
	strangers map[termKind]string // the names of terms that the template does not have so
}

func (b *branches) choice(offer *etree.Element) *choice {
	x := &choice{forgone: make([]bool, len(b.forks)), strangers: map[termKind]string{}}
	if len(b.forks) == 0 {
		return x
	}
	terms := termsOf(offer)
	for name, k := range terms {
		if b.terms[name] != k && (x.strangers[k] == "" || name < x.strangers[k]) {
			x.strangers[k] = name
		}
	}
	has := func(names map[string]bool) bool {
		for n := range names {
			if _, ok := terms[n]; ok {
				return true
			}
		}
		return false
	}
	for i, f := range b.forks {
		x.forgone[i] = !has(f.branch) && has(f.all)
	}
	return x
}

// needed reports whether an offer must have something at the Item's Location; stranger is the term that
// stands in its place, if that is why.
func (i *checkedItem) needed(x *choice) (needed bool, stranger string) {
	switch {
	case i.there:
		return true, ""
	case len(i.optional) == 0:
		return i.typ.Required(), ""
	}
	for _, o := range i.optional {
		for _, k := range o.kinds {
			if name, ok := x.strangers[k]; ok {
				return true, name
			}
		}
		if !slices.ContainsFunc(o.forks, func(f int) bool { return x.forgone[f] }) {
			return true, ""
		}
	}
	return false, ""
}
