package agreement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// sdtOf is a term about an element of urn:x.
func sdtOf(name, content string) string {
	return `<wsag:ServiceDescriptionTerm wsag:Name="` + name + `" wsag:ServiceName="run">` + content + `</wsag:ServiceDescriptionTerm>`
}

func oneOfThem(members ...string) string {
	return `<wsag:ExactlyOne>` + strings.Join(members, "") + `</wsag:ExactlyOne>`
}

func someOf(members ...string) string {
	return `<wsag:OneOrMore>` + strings.Join(members, "") + `</wsag:OneOrMore>`
}

func allOf(members ...string) string { return `<wsag:All>` + strings.Join(members, "") + `</wsag:All>` }

func atMost(name, location string, most int) string {
	return fmt.Sprintf(`<wsag:Item wsag:Name="%s"><wsag:Location>%s</wsag:Location><wsag:ItemConstraint><xs:maxInclusive value="%d"/></wsag:ItemConstraint></wsag:Item>`, name, location, most)
}

func within(term, path string) string {
	return `//wsag:ServiceDescriptionTerm[@wsag:Name='` + term + `']/` + path
}

// TestBranchesOfATemplate: who takes one branch of a choice needs nothing of the others, and nobody gets
// past an Item by taking none, by another name, or by writing the terms elsewhere.
func TestBranchesOfATemplate(t *testing.T) {
	t.Parallel()
	job, early, late := sdtOf("job", "<x:job/>"), sdtOf("early", "<x:finish>5</x:finish>"), sdtOf("late", "<x:start>5</x:start>")
	length, width := sdtOf("length", "<x:length>5</x:length>"), sdtOf("width", "<x:width>5</x:width>")
	finish, start := atMost("finish", within("early", "x:finish"), 9), atMost("start", within("late", "x:start"), 9)
	fixed := atMost("finish", "/wsag:AgreementOffer/wsag:Terms/wsag:All/wsag:ExactlyOne/wsag:ServiceDescriptionTerm[@wsag:Name='early']/x:finish", 9)
	over := func(s string) string { return strings.Replace(s, ">5<", ">50<", 1) }
	as := func(s, name string) string {
		i := strings.Index(s, `wsag:Name="`) + len(`wsag:Name="`)
		return s[:i] + name + s[i+strings.IndexByte(s[i:], '"'):]
	}
	choice := job + oneOfThem(early, late)
	nested := job + oneOfThem(allOf(early, someOf(length, width)), late)
	sizes := finish + start + atMost("length", within("length", "x:length"), 9) + atMost("width", within("width", "x:width"), 9)
	for name, c := range map[string]struct {
		template, items, offer string
		broken                 string // the names of the Items that are broken, sorted
		says                   string
	}{
		"as it is":                        {choice, finish + start, choice, "", ""},
		"the first":                       {choice, finish + start, job + early, "", ""},
		"the other":                       {choice, finish + start, job + late, "", ""},
		"the other, left in its choice":   {choice, finish + start, job + oneOfThem(late), "", ""},
		"the other, before the job":       {choice, finish + start, late + job, "", ""},
		"the first, over its limit":       {choice, finish + start, job + over(early), "finish", ""},
		"the other, over its limit":       {choice, finish + start, job + over(late), "start", ""},
		"both":                            {choice, finish + start, job + early + late, "", ""},
		"both, one over":                  {choice, finish + start, job + over(early) + late, "finish", ""},
		"none":                            {choice, finish + start, job, "finish start", ""},
		"by another name":                 {choice, finish + start, job + as(over(early), "mine"), "finish start", `the term "mine", which`},
		"the other, and the first so":     {choice, finish, job + late + as(over(early), "mine"), "finish", `the term "mine", which the template does not have so, can't stand for it`},
		"in the other's name":             {choice, finish, job + as(over(early), "late"), "finish", `the term "late"`},
		"in the job's name":               {choice, finish, late + as(over(early), "job"), "finish", `the term "job"`},
		"more of one's own":               {choice, finish + start, job + late + sdtOf("more", "<x:more/>"), "", ""},
		"the first, moved":                {choice, fixed + start, job + early, "finish", ""},
		"the first, moved and over":       {choice, fixed + start, job + over(early), "finish", ""},
		"the first, moved from the other": {choice, fixed + start, job + early + oneOfThem(late), "finish", ""},
		"the first where it was":          {choice, fixed + start, job + oneOfThem(early), "", ""},
		"the other for one that is fixed": {choice, fixed + start, job + late, "", ""},
		"the first without what it has":   {choice, finish + start, job + sdtOf("early", "<x:job/>"), "finish", ""},
		"outside of the choice":           {choice, atMost("job", within("job", "x:job"), 9), late, "job", ""},
		"of a job for both":               {sdtOf("job", "<x:n>5</x:n>") + oneOfThem(sdtOf("a", "<x:n>5</x:n>"), late), atMost("n", "//x:n", 9), job + late, "n", ""},
		"a part of both":                  {job + oneOfThem(sdtOf("a", "<x:n>5</x:n>"), sdtOf("b", "<x:n>5</x:n>")), atMost("n", "//x:n", 9), job + sdtOf("b", "<x:n>50</x:n>"), "n", ""},
		"neither, of both":                {job + oneOfThem(sdtOf("a", "<x:n>5</x:n>"), sdtOf("b", "<x:n>5</x:n>")), atMost("n", "//x:n", 9), job + sdtOf("b", "<x:m>50</x:m>"), "n", ""},
		"alike, the other":                {job + oneOfThem(sdtOf("a", "<x:n>5</x:n>"), sdtOf("b", "<x:n>5</x:n>")), atMost("a", within("a", "x:n"), 9) + atMost("b", within("b", "x:n"), 9), job + sdtOf("b", "<x:n>5</x:n>"), "", ""},
		"what must be there, elsewhere":   {choice, `<wsag:Item wsag:Name="any"><wsag:Location>` + within("early", "x:finish") + `</wsag:Location><wsag:ItemConstraint><xs:sequence><xs:any/></xs:sequence></wsag:ItemConstraint></wsag:Item>`, job + late, "", ""},
		"what must be there, and nowhere": {choice, `<wsag:Item wsag:Name="any"><wsag:Location>//x:zzz</wsag:Location><wsag:ItemConstraint><xs:sequence><xs:any/></xs:sequence></wsag:ItemConstraint></wsag:Item>`, job + late, "any", ""},
		"the choice itself":               {choice, `<wsag:Item wsag:Name="it"><wsag:Location>//wsag:ExactlyOne</wsag:Location><wsag:ItemConstraint/></wsag:Item>`, job + late, "it", ""},
		"some: one":                       {job + someOf(length, width), sizes, job + width, "", ""},
		"some: the other, over":           {job + someOf(length, width), sizes, job + over(length), "length", ""},
		"some: none":                      {job + someOf(length, width), sizes, job, "length width", ""},
		"nested: the other":               {nested, sizes, job + late, "", ""},
		"nested: one of some":             {nested, sizes, job + early + width, "", ""},
		"nested: all of some":             {nested, sizes, job + early + width + length, "", ""},
		"nested: none of some":            {nested, sizes, job + early, "length width", ""},
		"nested: some without the rest":   {nested, sizes, job + width, "finish", ""},
		"nested: a part beside the other": {nested, sizes, job + late + width, "finish", ""},
		"nested: as it is":                {nested, sizes, nested, "", ""},
	} {
		checker, err := templateOf(t, c.template, c.items).Compile()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var broken, sentences []string
		for _, b := range checker.Check(offerOf(t, c.offer)) {
			broken, sentences = append(broken, b.Item), append(sentences, b.Sentence)
		}
		slices.Sort(broken)
		if got := strings.Join(broken, " "); got != c.broken || !strings.Contains(strings.Join(sentences, "\n"), c.says) {
			t.Errorf("%s: %q is broken, not %q: %q", name, got, c.broken, sentences)
		}
	}
}

// TestBranchesByDefinition: any offer of a template's terms, by any of its trees of choices, complies just
// if each term that it lacks is in a branch of a choice of which it has another branch and nothing of that one.
func TestBranchesByDefinition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var names []string
		var tree func(depth int) Term
		tree = func(depth int) Term {
			kind := rapid.SampledFrom([]Composition{"", "", All, ExactlyOne, OneOrMore}).Draw(rt, "kind")
			if kind == "" || depth == 0 || len(names) > 12 {
				names = append(names, fmt.Sprint("t", len(names)))
				return leaf(names[len(names)-1])
			}
			c := &Compositor{Kind: kind}
			for range rapid.IntRange(1, 3).Draw(rt, "members") {
				c.Terms = append(c.Terms, tree(depth-1))
			}
			return c
		}
		top := &Compositor{All, []Term{tree(3), tree(3)}}
		var write func(Term) string
		write = func(term Term) string {
			c, ok := term.(*Compositor)
			if !ok {
				return sdtOf(term.TermName(), "<x:"+term.TermName()+">5</x:"+term.TermName()+">")
			}
			var s strings.Builder
			for _, m := range c.Terms {
				s.WriteString(write(m))
			}
			return `<wsag:` + string(c.Kind) + `>` + s.String() + `</wsag:` + string(c.Kind) + `>`
		}
		var items strings.Builder
		for _, n := range names {
			items.WriteString(atMost(n, within(n, "x:"+n), 9))
		}
		whole := strings.TrimSuffix(strings.TrimPrefix(write(top), "<wsag:All>"), "</wsag:All>")
		checker, err := templateOf(t, whole, items.String()).Compile()
		if err != nil {
			rt.Fatal(err)
		}
		taken := map[string]bool{}
		offered := sdtOf("job", "<x:job/>")
		for _, n := range names {
			if rapid.Bool().Draw(rt, n) {
				taken[n] = true
				offered += sdtOf(n, "<x:"+n+">5</x:"+n+">")
			}
		}
		has := func(term Term) bool {
			if c, ok := term.(*Compositor); ok {
				found := false
				c.Walk(func(x Term) bool { found = found || taken[x.TermName()]; return true })
				return found
			}
			return taken[term.TermName()]
		}
		var want []string
		var lacking func(term Term, spared bool)
		lacking = func(term Term, spared bool) {
			c, ok := term.(*Compositor)
			if !ok {
				if !taken[term.TermName()] && !spared {
					want = append(want, term.TermName())
				}
				return
			}
			for _, m := range c.Terms {
				lacking(m, spared || c.Kind != All && !has(m) && has(c))
			}
		}
		lacking(top, false)
		var got []string
		for _, b := range checker.Check(offerOf(t, offered)) {
			got = append(got, b.Item)
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("%s\nby\n%s\nbreaks %q, not %q", offered, whole, got, want)
		}
		// Whatever the responder would choose itself, the initiator may offer.
		list, _ := Choose(top, nil, 20)
		for _, alt := range list {
			s := ""
			for _, x := range alt.Terms.Terms {
				s += write(x)
			}
			if broken := checker.Check(offerOf(t, s)); len(broken) > 0 {
				rt.Fatalf("%s\nby\n%s\nbreaks %v", s, whole, broken)
			}
		}
	})
}
