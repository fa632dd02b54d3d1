package xpath

import (
	"math"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t testing.TB, s string) *xmldoc.Document {
	t.Helper()
	d, err := xmldoc.ReadBytes([]byte(s), xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const offer = `<w:AgreementOffer xmlns:w="urn:w"><w:Name>n</w:Name><w:Terms><w:All>` +
	`<w:SDT w:Name="job"><j:Job xmlns:j="urn:j"><j:CPU><j:Exact>4</j:Exact></j:CPU><j:CPU><j:Exact>8.0</j:Exact></j:CPU></j:Job></w:SDT>` +
	`<w:SDT w:Name="time"><t>10</t>x<!--c-->y<![CDATA[z]]></w:SDT></w:All></w:Terms></w:AgreementOffer>`

func TestSelect(t *testing.T) {
	t.Parallel()
	root := read(t, offer).Root()
	scope := map[string]string{"w": "urn:w", "j": "urn:j", "": "urn:w"}
	o := Options{RootNames: []xmldoc.Name{{Space: "urn:w", Local: "Template"}}}
	for _, c := range []struct{ expr, want string }{
		{`/w:AgreementOffer/w:Name`, "/w:AgreementOffer/w:Name=n"},
		{`/w:Template/w:Name`, "/w:AgreementOffer/w:Name=n"},
		{`//w:Template/w:Name`, "/w:AgreementOffer/w:Name=n"},
		{`/*/w:Template`, ""},
		{`w:AgreementOffer/w:Name/text()`, "/w:AgreementOffer/w:Name/text()=n"},
		{`$this/w:AgreementOffer/w:Name`, "/w:AgreementOffer/w:Name=n"},
		{"declare namespace jsdl='urn:j';\n declare namespace w = \"urn:w\" ;$this/w:AgreementOffer//jsdl:Exact[. = 8]", "/w:AgreementOffer/w:Terms/w:All/w:SDT[1]/j:Job/j:CPU[2]/j:Exact=8.0"},
		{`//w:SDT[@w:Name="job"]//j:CPU[1]/j:Exact`, "/w:AgreementOffer/w:Terms/w:All/w:SDT[1]/j:Job/j:CPU[1]/j:Exact=4"},
		{`//w:SDT/@w:Name`, "/w:AgreementOffer/w:Terms/w:All/w:SDT[1]/@w:Name=job\n/w:AgreementOffer/w:Terms/w:All/w:SDT[2]/@w:Name=time"},
		{`//w:SDT[2]/text()`, "/w:AgreementOffer/w:Terms/w:All/w:SDT[2]/text()[1]=x\n/w:AgreementOffer/w:Terms/w:All/w:SDT[2]/text()[2]=yz"},
		{`//comment()`, "/w:AgreementOffer/w:Terms/w:All/w:SDT[2]/comment()=c"},
		{`//t`, "/w:AgreementOffer/w:Terms/w:All/w:SDT[2]/t=10"},
		{`//Name`, ""}, // no prefix, no namespace: the default one does not count
		{`/`, "/=n48.010xyz"},
		{`//j:Exact/../..//j:Exact[position() = last()]/ancestor::w:SDT`, "/w:AgreementOffer/w:Terms/w:All/w:SDT[1]=48.0"},
		{`declare/namespace`, ""},
		{`declare and/x`, "!gives a boolean"},
		{`//div/div`, ""},
		{`count(//t)`, "!the XPath expression gives a number where nodes are wanted"},
	} {
		e, err := Compile(c.expr, scope)
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		nodes, err := e.Select(root, o)
		if want, wrong := strings.CutPrefix(c.want, "!"); wrong {
			if !strings.Contains(fail.Sentence(err), want) {
				t.Errorf("%s: %v", c.expr, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		var got []string
		for _, n := range nodes {
			got = append(got, n.Path()+"="+n.Text())
		}
		if s := strings.Join(got, "\n"); s != c.want {
			t.Errorf("%s gives\n%s\nnot\n%s", c.expr, s, c.want)
		}
	}
}

func TestEval(t *testing.T) {
	t.Parallel()
	root := read(t, offer).Root()
	for _, c := range []struct {
		expr string
		want any
	}{
		{`sum(//j:Exact) <= 12`, true},
		{`sum(//j:Exact) < 12`, false},
		{`//j:Exact > 5 and not(//j:Exact > 8)`, true},
		{`count(//j:CPU) * 2 - 1`, 3.0},
		{`8 div 0`, math.Inf(1)},
		{`-5 mod 2`, -1.0},
		{`string(1 div 4)`, "0.25"},
		{`string(100000000000000000000)`, "100000000000000000000"},
		{`string(-0)`, "0"},
		{`string(- - 0.00001)`, "0.00001"},
		{`round(-2.5)`, -2.0},
		{`substring('12345', 1.5, 2.6)`, "234"},
		{`substring('12345', 0 div 0, 3)`, ""},
		{`substring('12345', -42, 1 div 0)`, "12345"},
		{`translate('--aaa--', 'abc-', 'ABC')`, "AAA"},
		{`normalize-space('  a
		b ')`, "a b"},
		{`number('1e3')`, 1000.0},
		{`string(number('+1'))`, "NaN"},
		{`string(number('0x10'))`, "NaN"},
		{`string(number('1_0'))`, "NaN"},
		{`string(number('Infinity'))`, "NaN"},
		{`boolean('false')`, true},
		{`//nothing = //nothing`, false},
		{`//nothing = false()`, true},
		{`string-length('é€')`, 2.0},
		{`starts-with(local-name(/*), 'Agree')`, true},
		{`name(/*)`, "w:AgreementOffer"},
		{`namespace-uri(//j:CPU)`, "urn:j"},
	} {
		e, err := Compile(c.expr, map[string]string{"j": "urn:j"})
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		v, err := e.Eval(root, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got any
		switch e.Type() {
		case Boolean:
			got = v.Bool
		case Number:
			got = v.Number
		case String, NodeSet:
			got = v.Text
		}
		if got != c.want {
			t.Errorf("%s gives %v, not %v", c.expr, got, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("(", MaxDepth+2) + "1" + strings.Repeat(")", MaxDepth+2)
	for _, c := range []struct {
		expr string
		kind fail.Kind
		want string
	}{
		{``, fail.Invalid, "the expression ends too early, at column 1"},
		{`/a/`, fail.Invalid, "the expression ends too early, at column 4"},
		{`/a[`, fail.Invalid, "the expression ends too early, at column 4"},
		{`/a[1`, fail.Invalid, `the expression ends where "]" is wanted, at column 5`},
		{`/a]`, fail.Invalid, `"]" does not belong here, at column 3`},
		{`/a b`, fail.Invalid, "the name b stands where an operator is wanted, at column 4"},
		{`//p:x`, fail.Invalid, "the prefix p is not declared, at column 3"},
		{`//p:*`, fail.Invalid, "the prefix p is not declared, at column 3"},
		{`"abc`, fail.Invalid, "the text that begins here is not closed, at column 1"},
		{`/é/#`, fail.Invalid, `the character '#' does not belong here, at column 4`},
		{"/a/\n  namespace::x", fail.Unsupported, "the axis namespace:: is not supported, at line 2, column 3"},
		{`/a/following::x`, fail.Unsupported, "the axis following:: is not supported, at column 4"},
		{`/a/preceding::x`, fail.Unsupported, "the axis preceding:: is not supported, at column 4"},
		{`/a/nowhere::x`, fail.Invalid, "there is no axis nowhere::, at column 4"},
		{`id('x')`, fail.Unsupported, "the function id() is not supported, at column 1"},
		{`/a[lang('en')]`, fail.Unsupported, "the function lang() is not supported, at column 4"},
		{`document('file:///etc/passwd')`, fail.Unsupported, "the function document() is not supported, at column 1"},
		{`/a/string()`, fail.Unsupported, "the function string() cannot stand as a step of a path in XPath 1.0, at column 4"},
		{`$that/a`, fail.Unsupported, "the variable $that is not known: only $this is, the document, at column 1"},
		{`$ this`, fail.Invalid, `"$" must be followed by a name, at column 1`},
		{`for $x in /a return $x`, fail.Invalid, "the variable"},
		{`count(1)`, fail.Invalid, "the function count() takes a node set, and this is a number, at column 7"},
		{`sum('1')`, fail.Invalid, "takes a node set"},
		{`concat('a')`, fail.Invalid, "the function concat() takes 2 or more arguments, not 1, at column 1"},
		{`true(1)`, fail.Invalid, "the function true() takes no arguments, not 1"},
		{`not()`, fail.Invalid, "the function not() takes 1 argument, not 0"},
		{`substring('a')`, fail.Invalid, "takes 2 or 3 arguments, not 1"},
		{`/a | 1`, fail.Invalid, "\"|\" joins node sets, and this is a number, at column 6"},
		{`'a' | /a`, fail.Invalid, "\"|\" joins node sets, and this is a string, at column 1"},
		{`(1)[1]`, fail.Invalid, "only node sets have predicates and steps"},
		{`string(/a)/b`, fail.Invalid, "only node sets have predicates and steps"},
		{`declare namespace p='u' /a`, fail.Invalid, "a \";\" must end the declaration of the prefix p, at column 25"},
		{`declare namespace p 'u'; /a`, fail.Invalid, "a declaration is written"},
		{`declare namespace p=u; /a`, fail.Invalid, "the namespace of the prefix p must stand between quotes"},
		{`declare namespace p='u; /a`, fail.Invalid, "the namespace that begins here is not closed, at column 21"},
		{`declare namespace p='u';declare namespace p='v'; /a`, fail.Invalid, "the prefix p is declared twice, at column 25"},
		{`declare default element namespace 'u'; /a`, fail.Unsupported, "the declaration \"declare default\" is not supported"},
		{`declare function local:f() {1}; /a`, fail.Unsupported, "the declaration \"declare function\" is not supported"},
		{`(: comment :) /a`, fail.Invalid, "does not belong here"},
		{`/a: b`, fail.Invalid, `a name or "*" must follow a:`},
		{deep, fail.Unsupported, "the expression is nested deeper than"},
		{strings.Repeat("-", MaxDepth+2) + "1", fail.Unsupported, "the expression is nested deeper than"},
		{strings.Repeat("a[", MaxDepth+2), fail.Unsupported, "the expression is nested deeper than"},
		{"1" + strings.Repeat("+1", maxNodes), fail.Unsupported, "the expression has more than"},
		{"/" + strings.Repeat("a/", MaxLength/2), fail.Unsupported, "the XPath expression has 4097 bytes: at most 4096 are taken"},
	} {
		_, err := Compile(c.expr, nil)
		if !fail.Is(err, c.kind) && c.want != "the variable" || err == nil {
			t.Errorf("%.60s: %v", c.expr, err)
		} else if s := fail.Sentence(err); c.want != "the variable" && !strings.Contains(s, c.want) {
			t.Errorf("%.60s: %s", c.expr, s)
		}
	}
}

// TestBudget: what would take long is stopped, and says what to change.
func TestBudget(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("<a>")
	for range 3000 {
		b.WriteString("<a x='1'>some text</a>")
	}
	b.WriteString("</a>")
	root := read(t, b.String()).Root()
	for _, expr := range []string{
		"//*[//*[//*]]", "//*[. = //*]", "//*[string-length(/) > 0]", "count(//*[count(//*) > 1])",
		"//a[contains(/, 'zzz')]", "//a[sum(//@x) > 1]", "//a/@x/../../a/@x[../../a]", "//a[preceding-sibling::a[preceding-sibling::a]]",
		"concat(/,/,/,/,/,/,/) = //a[translate(concat(/,/,/,/), 'a', 'b')]",
	} {
		e, err := Compile(expr, nil)
		if err != nil {
			t.Fatal(expr, err)
		}
		if _, err := e.Eval(root, Options{}); !fail.Is(err, fail.Exhausted) || !strings.Contains(fail.Sentence(err), "too many steps") {
			t.Errorf("%s: %v", expr, err)
		}
	}
	e, err := Compile("//a/@x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Select(root, Options{Steps: 100}); !fail.Is(err, fail.Exhausted) {
		t.Errorf("100 steps: %v", err)
	}
	if nodes, err := e.Select(root, Options{}); err != nil || len(nodes) != 3000 {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
}

// TestScopeAbove: an offer stands inside a message; the prefixes of what is above
// count, its elements do not.
func TestScopeAbove(t *testing.T) {
	t.Parallel()
	message := read(t, `<m xmlns:w="urn:w" xmlns="urn:d"><w:o><x w:y="1"/></w:o></m>`)
	root := message.Root().ChildElements()[0]
	for expr, want := range map[string]int{`/w:o/d:x[@w:y=1]`: 1, `//d:m`: 0, `/w:o/..`: 1, `/w:o/ancestor::*`: 0} {
		e, err := Compile(expr, map[string]string{"w": "urn:w", "d": "urn:d"})
		if err != nil {
			t.Fatal(err)
		}
		if nodes, err := e.Select(root, Options{}); err != nil || len(nodes) != want {
			t.Errorf("%s: %d nodes, %v", expr, len(nodes), err)
		}
	}
}

// TestNumbersAgainstLibxml2: what number() takes. libxml2 also takes "-" for 0 and
// "1e" for 1, which we do not.
func TestNumbersAgainstLibxml2(t *testing.T) {
	t.Parallel()
	var cases []testenv.XPathCase
	for _, n := range []string{
		"", " ", "1", " 1 ", "+1", "-1", "- 1", "--1", "1.", ".5", "-.5", ".", "1e3", "1E3", "1e+3", "1e-3", "e3", ".e3", "1.5e2",
		"1 2", "1,5", "0x10", "INF", "NaN", "Infinity", "007", "1.50", "1e400", "-1e400", "1_0", "١",
	} {
		for _, e := range []string{"number('" + n + "')", "'" + n + "' = 1", "'" + n + "' > 0"} {
			cases = append(cases, testenv.XPathCase{Document: "<a/>", Expression: e})
		}
	}
	compare(t, cases, 0)
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`declare namespace p="u"; $this/p:a//b[@c = "d" and position() < last()]/text()`, "count(//a | //b) * 2 - -1 div 3",
		"//a[substring(translate(., 'a', 'b'), 2) != concat('x', ..)]", "ancestor-or-self::node()/..", "'", "((((", "a:::b", "1 mod 0",
	} {
		f.Add(s)
	}
	root := read(f, offer).Root()
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Compile(s, map[string]string{"w": "urn:w", "j": "urn:j"})
		if err != nil {
			if fail.KindOf(err) == fail.Internal || fail.Sentence(err) == "" {
				t.Fatal(err)
			}
			return
		}
		v, err := e.Eval(root, Options{Steps: 20_000})
		if err != nil && !fail.Is(err, fail.Exhausted) {
			t.Fatal(err)
		}
		if again, err2 := e.Eval(root, Options{Steps: 20_000}); err2 == nil && err == nil && v != again && !math.IsNaN(v.Number) {
			t.Fatalf("%v, then %v", v, again)
		}
	})
}
