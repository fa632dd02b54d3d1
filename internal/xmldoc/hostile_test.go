package xmldoc

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostile are documents made to cost: each is as large as the limits let through,
// or larger.
func hostile() map[string]string {
	const size = 8 << 20
	fill := func(open, piece, end string) string {
		return open + strings.Repeat(piece, (size-len(open)-len(end))/len(piece)) + end
	}
	var decls, attrs strings.Builder
	for i := range 127 {
		fmt.Fprintf(&decls, " xmlns:p%03d='u%d'", i, i)
		fmt.Fprintf(&attrs, " a%03d=''", i)
	}
	wide := "<r" + decls.String() + "><r" + strings.ReplaceAll(decls.String(), "xmlns:p", "xmlns:q") + ">"
	return map[string]string{
		"elements":            fill("<r>", "<a/>", "</r>"),
		"199000 elements":     "<r>" + strings.Repeat("<a/>", 199_000) + "</r>",
		"comments":            fill("<r>", "<!---->", "</r>"),
		"CDATA":               fill("<r>", "<![CDATA[]]>", "</r>"),
		"text and comments":   fill("<r>", "x<!---->", "</r>"),
		"depth":               fill("", "<a>", ""),
		"text":                fill("<r>", "x", "</r>"),
		"references":          fill("<r>", "&lt;", "</r>"),
		"carriage returns":    fill("<r>", "\r", "</r>"),
		"brackets":            fill("<r>", "]", "</r>"),
		"a value":             fill("<r a='", "x", "'/>"),
		"attributes":          fill("<r>", "<a"+attrs.String()+"/>", "</r>"),
		"prefixed attributes": fill(wide, "<a"+strings.ReplaceAll(attrs.String(), " a", " p000:a")+"/>", "</r></r>"),
		"scope":               fill(wide, "<p000:a/>", "</r></r>"),
		"declarations":        fill("<r>", "<a"+decls.String()+"/>", "</r>"),
		"a name":              fill("<", "x", "/>"),
		"unclosed":            fill("<r>", "<!-", ""),
		"space":               fill("", " ", "<r/>"),
		"space in a tag":      fill("<r", " ", "/>"),
		"instructions":        fill("", "<?a?>", "<r/>"),
		"entities":            fill("<!DOCTYPE r [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]><r>", "&b;", "</r>"),
	}
}

// TestHostileDocumentsCostLittle bounds what the worst documents allocate in all,
// garbage included, by what the limits on bytes and elements allow; the time is
// printed for who reads it.
func TestHostileDocumentsCostLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("needs some hundred MB of documents")
	}
	for name, doc := range hostile() {
		b := []byte(doc)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		_, err := ReadBytes(b, Limits{})
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		spent := after.TotalAlloc - before.TotalAlloc
		if most := uint64(3*defaultBytes + 600*defaultElements); spent > most {
			t.Errorf("%s: %d MB for a document of %d MB", name, spent>>20, len(b)>>20)
		}
		t.Logf("%-20s %4d ms %4d MB  %v", name, took.Milliseconds(), spent>>20, err)
	}
}
