package wire

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// all describes every message by its element.
func all() []*Type {
	return append(append(Operations(), Items()...), describe("PeerFault", "", new(Fault)), describe("Trace", "", new(Trace)))
}

// element draws an element by its description, within the bounds of each field. Small
// keeps texts and lists short.
func element(t *rapid.T, d *Type) *etree.Element {
	e := etree.NewElement(prefix + ":" + d.Name)
	e.CreateAttr("xmlns:"+prefix, NS)
	fill(t, e, d)
	settle(t, e)
	return e
}

func fill(t *rapid.T, e *etree.Element, d *Type) {
	for i := range d.Fields {
		f := &d.Fields[i]
		if f.Most == 0 {
			if f.Required || rapid.Bool().Draw(t, f.Name) {
				e.CreateAttr(f.Name, value(t, f))
			}
			continue
		}
		n := rapid.IntRange(f.Least, min(f.Most, f.Least+2)).Draw(t, f.Name)
		for range n {
			c := e.CreateElement(prefix + ":" + f.Name)
			if f.Type != nil {
				fill(t, c, f.Type)
			} else {
				c.SetText(value(t, f))
			}
			settle(t, c)
		}
	}
	if d.Items {
		n := rapid.IntRange(0, 3).Draw(t, "items")
		for range n {
			i := rapid.SampledFrom(Items()).Draw(t, "item")
			c := e.CreateElement(prefix + ":" + i.Name)
			fill(t, c, i)
			settle(t, c)
		}
	}
}

func value(t *rapid.T, f *Field) string {
	switch f.Kind {
	case "enum":
		return rapid.SampledFrom(f.Values).Draw(t, f.Name)
	case "integer", "milliseconds":
		n := rapid.Int64Range(f.Low, f.High).Draw(t, f.Name)
		if n == 0 && f.Low > 0 {
			n = f.Low
		}
		return strconv.FormatInt(n, 10)
	case "boolean":
		return "true"
	case "moment":
		return time.Unix(rapid.Int64Range(1, 1<<37).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC().Format(time.RFC3339Nano)
	case "base64":
		n := max(1, rapid.IntRange(int(f.Low), int(min(f.High, f.Low+8))).Draw(t, "n"))
		return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", n)))
	}
	letters := "abcXYZ019-_.:é<&\"' ]>"
	switch f.Form {
	case "text", "":
		letters += "\n\t\r"
	case word.String():
		letters = "abcXYZ019-_.:/<&\"'"
	case domain.String():
		letters = "abcXYZ019-_.:<&"
	}
	s := rapid.StringOfN(rapid.RuneFrom([]rune(letters)), max(1, int(f.Low)), max(1, int(f.Low), int(min(f.High/2, f.Low+12))), int(f.High)).Draw(t, f.Name)
	if len(s) < int(f.Low) {
		s = strings.Repeat("a", int(f.Low))
	}
	return s
}

func setAttr(e *etree.Element, name, v string) {
	e.RemoveAttr(name)
	if v != "" {
		e.CreateAttr(name, v)
	}
}

func has(e *etree.Element, name string) bool { return e.SelectAttrValue(name, "") != "" }

func number(e *etree.Element, name string) int64 {
	n, _ := strconv.ParseInt(e.SelectAttrValue(name, "0"), 10, 64)
	return n
}

func drop(e *etree.Element, names ...string) {
	for _, n := range names {
		for _, c := range e.SelectElements(n) {
			e.RemoveChild(c)
		}
	}
}

// settle makes the fields of an element go together.
func settle(t *rapid.T, e *etree.Element) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, a := range []string{"trace", "traceparent"} {
		if has(e, a) {
			setAttr(e, a, parent)
		}
	}
	for _, a := range []string{"token", "ranAs"} {
		if has(e, a) {
			setAttr(e, a, fmt.Sprintf("%d.%d", rapid.Uint32Range(1, 9).Draw(t, "t"), rapid.Uint32Min(1).Draw(t, "u")))
		}
	}
	if has(e, "got") || has(e, "done") {
		setAttr(e, "done", strconv.FormatInt(min(number(e, "done"), number(e, "got")), 10))
	}
	switch e.Tag {
	case "Terms":
		setAttr(e, "lease", "80000")
		for a, most := range map[string]int64{"skew": 10000, "stopWithin": 20000, "resend": 20000} {
			if has(e, a) {
				setAttr(e, a, strconv.FormatInt(min(number(e, a), most), 10))
			}
		}
	case "Exchange", "ExchangeResponse":
		n := 0
		for _, c := range e.ChildElements() {
			if c.Space == prefix {
				n++
			}
		}
		setAttr(e, "first", "")
		if n > 0 {
			setAttr(e, "first", "7")
			setAttr(e, "sent", strconv.Itoa(6+n))
		}
	case "CloseSession":
		setAttr(e, "closing", "draining")
	case "Pull":
		setAttr(e, "view", "")
		setAttr(e, "revision", "")
		if rapid.Bool().Draw(t, "view") {
			setAttr(e, "view", "v")
			setAttr(e, "revision", "4")
		}
	case "Change":
		if len(e.ChildElements()) == 0 {
			setAttr(e, "gone", "true")
		}
	case "Resources":
		setAttr(e, "from", "3")
		setAttr(e, "to", "4")
		setAttr(e, "buckets", "")
		for _, c := range e.SelectElements("Repairs") {
			c.SetText("gAA=")
			setAttr(e, "from", "4")
			setAttr(e, "buckets", "16")
		}
	case "Compare":
		setAttr(e, "buckets", "2")
		for _, c := range append(e.SelectElements("StaticBuckets"), e.SelectElements("DynamicBuckets")...) {
			c.SetText(base64Of(make([]byte, 16)))
		}
	case "Route":
		drop(e, "Domain")
		setAttr(e, "origin", "north")
		setAttr(e, "hops", "14")
		at := 0
		for _, d := range []string{"north", "south"} {
			c := etree.NewElement(prefix + ":Domain")
			c.SetText(d)
			e.InsertChildAt(at, c)
			at++
		}
	case "Answer":
		setAttr(e, "accepted", "")
		if !has(e, "kind") || !has(e, "reason") {
			setAttr(e, "kind", "")
			setAttr(e, "accepted", "true")
		}
	case "Report":
		setAttr(e, "status", "running")
		if e.SelectElement("Result") != nil {
			setAttr(e, "status", "ended")
			setAttr(e, "kind", "")
		} else if has(e, "kind") {
			setAttr(e, "status", "returned")
		}
	case "Output":
		setAttr(e, "kind", "")
	case "Account", "Statements", "Verdicts", "Probe":
		setAttr(e, "provider", "north")
		setAttr(e, "consumer", "south")
		if e.Tag == "Probe" {
			setAttr(e, "same", "3")
			setAttr(e, "differs", "9")
			for i, c := range e.SelectElements("At") {
				setAttr(c, "number", strconv.Itoa(4+i))
			}
		}
		if e.Tag == "Account" {
			setAttr(e, "number", "")
			if d := e.SelectElement("Digest"); d != nil {
				setAttr(e, "number", "7")
				d.SetText(base64Of(make([]byte, 32)))
			}
		}
	case "Said":
		if e.SelectAttrValue("verdict", "") == "contested" && !has(e, "reason") {
			setAttr(e, "verdict", "agreed")
		}
	}
}

// reread writes an element and reads it as a document.
func reread(t testing.TB, e *etree.Element) (*xmldoc.Document, []byte) {
	t.Helper()
	b := xmldoc.Marshal(e)
	doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return doc, b
}
