package agreement

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var updateExpressions = flag.Bool("update-expressions", false, "rewrite the golden file of expressions")

// exprWorld is what the expressions of these tests speak of.
var exprWorld = Environment{
	Target: "queueWait",
	Variables: map[string]Declared{
		"queueWait":  {Duration, "the wait in the queue"},
		"startTime":  {DateTime, "the start"},
		"finishTime": {DateTime, "the end"},
		"cores":      {Number, ""},
		"success":    {Boolean, "the success"},
		"site":       {String, "the site"},
	},
}

func heldExpression(t testing.TB, inner string) *etree.Element {
	t.Helper()
	d, err := xmldoc.ReadBytes(fmt.Appendf(nil, `<w:CustomServiceLevel xmlns:w=%q xmlns:p=%q>%s</w:CustomServiceLevel>`, NS, NSPortolan, inner), xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return d.Root()
}

// parsed reads a condition or a number, whichever it is.
func parsed(holder *etree.Element) (*Expression, error) {
	x, err := ParseCondition(holder, exprWorld)
	if err == nil {
		return x, nil
	}
	if y, e := ParseAmount(holder, exprWorld); e == nil {
		return y, nil
	}
	return nil, err
}

func exprKnown(name string) Value {
	at := time.Date(2026, 11, 29, 14, 0, 0, 0, time.UTC)
	switch name {
	case "queueWait":
		return OfDuration(8 * time.Minute)
	case "startTime":
		return OfTime(at)
	case "cores":
		return OfNumber(decimal.New(64))
	case "site":
		return OfString("alpha")
	case "success":
		return Unknown(Boolean)
	}
	return OfTime(at).More() // the end is still to come
}

// TestExpressionsGolden: what each expression says in plain words and what it gives,
// or with which sentence it is refused.
func TestExpressionsGolden(t *testing.T) {
	const name = "testdata/expressions.txtar"
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	out := &txtar.Archive{Comment: a.Comment}
	for i, f := range a.Files {
		if !strings.HasSuffix(f.Name, ".xml") {
			continue
		}
		x, err := parsed(heldExpression(t, strings.TrimSpace(string(f.Data))))
		var said string
		switch {
		case err != nil:
			said = fail.KindOf(err).String() + ": " + fail.Sentence(err) + "\n"
		default:
			v := x.Evaluate(exprKnown)
			said = x.String() + "\n= " + v.String() + "\n"
			again, err := parsed(heldExpression(t, string(xmldoc.Marshal(x.Element()))))
			if err != nil || again.String() != x.String() || again.Evaluate(exprKnown) != v {
				t.Errorf("%s: written and read again it is %v (%v)", f.Name, again, err)
			}
		}
		if good := strings.HasPrefix(f.Name, "good_"); good != (err == nil) {
			t.Errorf("%s: %s", f.Name, said)
		}
		said = strings.ReplaceAll(said, "\r", "")
		file := txtar.File{Name: strings.TrimSuffix(f.Name, ".xml") + ".said", Data: []byte(said)}
		out.Files = append(out.Files, f, file)
		if !*updateExpressions && (i+1 >= len(a.Files) || string(a.Files[i+1].Data) != said) {
			t.Errorf("%s: said\n%s(run with -update-expressions and read the change)", f.Name, said)
		}
	}
	if *updateExpressions {
		if err := os.WriteFile(name, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExpressionBounds(t *testing.T) {
	value, yes := `<p:Value>1</p:Value>`, `<p:Equal><p:Value>1</p:Value><p:Value>1</p:Value></p:Equal>`
	nots := func(n int) string { return strings.Repeat("<p:Not>", n) + yes + strings.Repeat("</p:Not>", n) }
	for name, c := range map[string]struct {
		inner, want string
	}{
		"depth kept":        {nots(maxExpressionDepth - 2), ""},
		"depth":             {nots(maxExpressionDepth - 1), "deep"},
		"operands kept":     {`<p:Less>` + value + `<p:Add>` + strings.Repeat(value, maxOperands) + `</p:Add></p:Less>`, ""},
		"operands":          {`<p:Less>` + value + `<p:Add>` + strings.Repeat(value, maxOperands+1) + `</p:Add></p:Less>`, "operands"},
		"elements kept":     {`<p:And>` + strings.Repeat(`<p:And>`+strings.Repeat(yes, 12)+`</p:And>`, 6) + strings.Repeat(yes, 11) + `</p:And>`, ""},
		"elements":          {`<p:And>` + strings.Repeat(`<p:And>`+strings.Repeat(yes, 16)+`</p:And>`, 6) + `</p:And>`, "elements"},
		"text kept":         {`<p:Equal><p:Variable name="site"/><p:Value type="string">` + strings.Repeat("ä", maxExpressionText) + `</p:Value></p:Equal>`, ""},
		"text":              {`<p:Equal><p:Variable name="site"/><p:Value type="string">` + strings.Repeat("ä", maxExpressionText+1) + `</p:Value></p:Equal>`, "characters"},
		"name":              {`<p:Equal><p:Variable name="` + strings.Repeat("n", maxVariableName+1) + `"/>` + value + `</p:Equal>`, "characters"},
		"years are none":    {`<p:atMost>P1Y</p:atMost>`, "PT10M"},
		"longest kept":      {`<p:atMost>P106751D</p:atMost>`, ""},
		"longest":           {`<p:atMost>P106752D</p:atMost>`, "292 years"},
		"no time zone":      {`<p:Less><p:Variable name="startTime"/><p:Value type="dateTime">2026-01-31T18:00:00</p:Value></p:Less>`, "time zone"},
		"too exact":         {`<p:Less>` + value + `<p:Value>0.1234567891</p:Value></p:Less>`, "too exact"},
		"year ten thousand": {`<p:Less><p:Variable name="startTime"/><p:Value type="dateTime">9999-12-31T23:59:59-14:00</p:Value></p:Less>`, "time zone"},
	} {
		_, err := ParseCondition(heldExpression(t, c.inner), exprWorld)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(fail.Sentence(err), c.want) || !fail.Is(err, fail.Invalid)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"PT10M": 10 * time.Minute, "P1DT12H": 36 * time.Hour, "-PT0.5S": -500 * time.Millisecond, "PT0S": 0, "PT90M": 90 * time.Minute, "P2D": 48 * time.Hour,
	} {
		if d, err := ParseDuration(in); err != nil || d != want {
			t.Errorf("%s is %v (%v)", in, d, err)
		}
	}
	for _, in := range []string{"", "P", "PT", "P1DT", "10M", "P1M", "P1Y", "PT-1M", "PT1.5M", "pt1m", "PT1S ", "P1H", "PT1D", "PT9999999999999S"} {
		if d, err := ParseDuration(in); !fail.Is(err, fail.Invalid) {
			t.Errorf("%q is %v (%v)", in, d, err)
		}
	}
}

// anExpression draws one of the type that can be read.
func anExpression(t *rapid.T, typ Type, depth int) *Expression {
	x := &Expression{typ: typ}
	if depth == 0 || rapid.IntRange(0, 3).Draw(t, "leaf") == 0 {
		names := map[Type][]string{Number: {"cores"}, Duration: {"queueWait"}, DateTime: {"startTime", "finishTime"}, Boolean: {"success"}}[typ]
		if rapid.Bool().Draw(t, "variable") {
			x.form, x.name = "Variable", rapid.SampledFrom(names).Draw(t, "name")
			x.words = exprWorld.Variables[x.name].Words
			if x.words == "" {
				x.words = x.name
			}
			return x
		}
		x.form, x.value = "Value", aValue(t, typ)
		return x
	}
	kinds := func(form string, types ...Type) *Expression {
		x.form = form
		for _, o := range types {
			x.operands = append(x.operands, anExpression(t, o, depth-1))
		}
		return x
	}
	pick := func(of ...string) string { return rapid.SampledFrom(of).Draw(t, "form") }
	switch typ {
	case Boolean:
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return kinds(pick("And", "Or"), Boolean, Boolean)
		case 1:
			return kinds("Not", Boolean)
		case 2:
			x.form = pick("atMost", "atLeast")
			x.name, x.words, x.value = "queueWait", "the wait in the queue", aValue(t, Duration)
			return x
		}
		o := rapid.SampledFrom([]Type{Number, Duration, DateTime}).Draw(t, "of")
		return kinds(pick("Less", "LessOrEqual", "Equal", "NotEqual", "Greater", "GreaterOrEqual"), o, o)
	case Number:
		if rapid.Bool().Draw(t, "of durations") {
			return kinds("Divide", Duration, Duration)
		}
		return kinds(pick("Add", "Subtract", "Multiply", "Divide", "Min", "Max"), Number, Number)
	case Duration:
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			return kinds("Subtract", DateTime, DateTime)
		case 1:
			return kinds(pick("Multiply", "Divide"), Duration, Number)
		}
		return kinds(pick("Add", "Subtract", "Min", "Max"), Duration, Duration)
	case DateTime, String:
	}
	if rapid.Bool().Draw(t, "moved") {
		return kinds(pick("Add", "Subtract"), DateTime, Duration)
	}
	return kinds(pick("Min", "Max"), DateTime, DateTime)
}

func aValue(t *rapid.T, typ Type) Value {
	switch typ {
	case Number:
		d, _ := decimal.New(rapid.Int64Range(-6, 6).Draw(t, "number")).Div(decimal.New(2))
		return OfNumber(d)
	case Duration:
		return OfDuration(time.Duration(rapid.Int64Range(-4, 4).Draw(t, "minutes")) * time.Minute)
	case DateTime:
		return OfTime(time.Unix(1_800_000_000, 0).Add(time.Duration(rapid.Int64Range(-4, 4).Draw(t, "at")) * time.Minute))
	case Boolean, String:
	}
	return OfBoolean(rapid.Bool().Draw(t, "truth"))
}

// TestWhatIsDeterminedStays: an expression over bounds gives bounds in which each value
// lies that it could come to; what is determined by bounds is so by every value in them.
// And it is written and read the same.
func TestWhatIsDeterminedStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := anExpression(t, rapid.SampledFrom([]Type{Boolean, Number, Duration, DateTime}).Draw(t, "type"), 4)
		before, after := map[string]Value{}, map[string]Value{}
		for _, name := range x.Variables() {
			typ := exprWorld.Variables[name].Type
			v := aValue(t, typ)
			after[name] = v
			if typ == Boolean {
				before[name] = rapid.SampledFrom([]Value{v, Unknown(typ)}).Draw(t, "known")
				continue
			}
			w := aValue(t, typ)
			c := v.low.at.Cmp(w.low.at)
			switch k := rapid.IntRange(0, 4).Draw(t, "known"); {
			case k == 0:
				before[name] = Unknown(typ)
			case k == 1 && c > 0:
				before[name] = w.More()
			case k == 2 && c >= 0:
				before[name] = w.OrMore()
			case k == 3 && c <= 0:
				before[name] = Value{Type: typ}.UpTo(w)
			default:
				before[name] = v
			}
		}
		b := x.Evaluate(func(n string) Value { return before[n] })
		a := x.Evaluate(func(n string) Value { return after[n] })
		if b.Type != x.Type() || a.Type != x.Type() {
			t.Fatalf("%s is a %s and gave a %s", x, x.Type(), a.Type)
		}
		if x.Type() == Boolean {
			was, ok := b.Truth()
			is, still := a.Truth()
			if ok && (!still || is != was) {
				t.Fatalf("%s was %v by %v and is %v by %v", x, was, before, a, after)
			}
		} else if at, ok := a.exact(); ok {
			if b.low.set && (at.Cmp(b.low.at) < 0 || b.low.open && at == b.low.at) || b.high.set && (at.Cmp(b.high.at) > 0 || b.high.open && at == b.high.at) {
				t.Fatalf("%s came to %v, out of its bounds %+v", x, a, b)
			}
		}
		holder := etree.NewElement("CustomServiceLevel")
		holder.AddChild(x.Element())
		again, err := parseHeld(holder, exprWorld, x.Type())
		if err != nil || again.String() != x.String() || string(xmldoc.Marshal(again.Element())) != string(xmldoc.Marshal(x.Element())) {
			t.Fatalf("%s is read again as %v (%v)", x, again, err)
		}
	})
}

// TestExpressionSchema: what is read is valid by expr.xsd, and what breaks the grammar
// (not only the types) is not.
func TestExpressionSchema(t *testing.T) {
	lint := testenv.Tool(t, "xmllint", "libxml2-utils")
	a, err := txtar.ParseFile("testdata/expressions.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args := []string{"--nonet", "--noout", "--schema", "expr.xsd"}
	for _, f := range a.Files {
		name, ok := strings.CutSuffix(f.Name, ".xml")
		// A file fail_type_… breaks what only prose says; plain numbers are no elements.
		if !ok || strings.HasPrefix(name, "fail_type_") || strings.HasPrefix(name, "fail_language") || !strings.HasPrefix(strings.TrimSpace(string(f.Data)), "<") {
			continue
		}
		children := heldExpression(t, strings.TrimSpace(string(f.Data))).ChildElements()
		if len(children) != 1 {
			continue
		}
		path := filepath.Join(dir, f.Name)
		if err := os.WriteFile(path, xmldoc.Marshal(xmldoc.Detach(children[0])), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	said, err := exec.CommandContext(t.Context(), lint, args...).CombinedOutput()
	judged := 0
	for line := range strings.Lines(string(said)) {
		name, verdict, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, dir+"/")), " ")
		if verdict != "validates" && verdict != "fails to validate" {
			continue
		}
		judged++
		if strings.HasPrefix(name, "good_") != (verdict == "validates") {
			t.Errorf("%s %s", name, verdict)
		}
	}
	if judged != len(args)-4 || judged == 0 || t.Failed() {
		t.Errorf("%d of %d judged (%v):\n%s", judged, len(args)-4, err, said)
	}
}

func FuzzParseCondition(f *testing.F) {
	a, err := txtar.ParseFile("testdata/expressions.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range a.Files {
		if strings.HasSuffix(file.Name, ".xml") {
			f.Add(string(file.Data))
		}
	}
	f.Fuzz(func(t *testing.T, inner string) {
		d, err := xmldoc.ReadBytes(fmt.Appendf(nil, `<w:L xmlns:w=%q xmlns:p=%q>%s</w:L>`, NS, NSPortolan, inner), xmldoc.Limits{})
		if err != nil {
			return
		}
		x, err := parsed(d.Root())
		if err != nil {
			if k := fail.KindOf(err); k != fail.Invalid && k != fail.Unsupported || fail.Sentence(err) == "" {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		first := string(xmldoc.Marshal(x.Element()))
		holder := etree.NewElement("L")
		holder.AddChild(x.Element())
		again, err := parsed(holder)
		if err != nil || string(xmldoc.Marshal(again.Element())) != first || again.Evaluate(exprKnown) != x.Evaluate(exprKnown) {
			t.Fatalf("%s is read again as %v (%v)", first, again, err)
		}
	})
}
