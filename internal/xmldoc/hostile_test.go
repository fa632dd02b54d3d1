package xmldoc

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostileLimits are an eighth of the defaults, to keep the tests quick.
var hostileLimits = Limits{Bytes: defaultBytes / 8, Elements: defaultElements / 8, Attributes: defaultAttributes / 8, Text: defaultText / 8}

// hostile are documents made to cost: each is as large as the limits let through,
// or larger.
func hostile() map[string]string {
	size := int(hostileLimits.Bytes)
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
		"all elements":        "<r>" + strings.Repeat("<a/>", hostileLimits.Elements-1) + "</r>",
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
	for name, doc := range hostile() {
		b := []byte(doc)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		_, err := ReadBytes(b, hostileLimits)
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		spent := after.TotalAlloc - before.TotalAlloc
		if most := uint64(3*int(hostileLimits.Bytes) + 600*hostileLimits.Elements); spent > most {
			t.Errorf("%s: %d kB for a document of %d kB", name, spent>>10, len(b)>>10)
		}
		t.Logf("%-20s %4d ms %6d kB  %v", name, took.Milliseconds(), spent>>10, err)
	}
}
