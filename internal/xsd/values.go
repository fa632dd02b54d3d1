package xsd

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

type kind uint8

const (
	kindString kind = iota
	kindURI
	kindQName
	kindHex
	kindBase64
	kindBoolean
	kindDecimal
	kindFloat
	kindNumber // a decimal or double, where facets have no type
	kindMoment
	kindDuration
)

func (k kind) measured() bool { return k <= kindBase64 }
func (k kind) ordered() bool  { return k >= kindDecimal }

// builtin is a built-in atomic type.
type builtin struct {
	name  string // "" is what has no name of XML Schema's
	kind  kind
	space space
	whole bool // an integer
	parse func(literal string, scope *etree.Element) (any, bool)
}

func (b *builtin) what() string {
	switch {
	case b.kind == kindNumber:
		return "a number"
	case b.name == "token", b.name == "string":
		return "text"
	}
	return "an xs:" + b.name
}

// number is what facets without a type bound by numbers are about: JSDL's values are
// doubles that most write as decimals. Two decimals compare exactly.
var number = &builtin{kind: kindNumber, space: collapse, parse: func(s string, _ *etree.Element) (any, bool) {
	f, ok := parseFloat(s, 64)
	if !ok {
		return nil, false
	}
	d, exact := parseDecimal(s)
	return numeric{d, exact, f}, true
}}

type numeric struct {
	d     decimal
	exact bool
	f     float64
}

// plurals are the built-in lists.
var plurals = map[string]string{"NMTOKENS": "NMTOKEN", "IDREFS": "IDREF"}

var builtins = makeBuiltins()

func makeBuiltins() map[string]*builtin {
	builtins := map[string]*builtin{}
	add := func(name string, k kind, w space, parse func(string, *etree.Element) (any, bool)) {
		builtins[name] = &builtin{name: name, kind: k, space: w, parse: parse}
	}
	text := func(name string, w space, form string) {
		var re *regexp.Regexp
		if form != "" {
			re = regexp.MustCompile(`\A(?:` + form + `)\z`)
		}
		add(name, kindString, w, func(s string, _ *etree.Element) (any, bool) { return s, re == nil || re.MatchString(s) })
	}
	text("string", preserve, "")
	text("normalizedString", replace, "")
	text("token", collapse, "")
	text("language", collapse, `[a-zA-Z]{1,8}(?:-[a-zA-Z0-9]{1,8})*`)
	text("Name", collapse, nameStart.emit()+nameRest.emit()+"*")
	text("NMTOKEN", collapse, nameRest.emit()+"+")
	colon := set{{':', ':'}}
	for _, n := range []string{"NCName", "ID", "IDREF"} {
		text(n, collapse, nameStart.minus(colon).emit()+nameRest.minus(colon).emit()+"*")
	}
	add("boolean", kindBoolean, collapse, func(s string, _ *etree.Element) (any, bool) {
		return s == "true" || s == "1", s == "true" || s == "1" || s == "false" || s == "0"
	})
	add("decimal", kindDecimal, collapse, func(s string, _ *etree.Element) (any, bool) {
		d, ok := parseDecimal(s)
		return d, ok
	})
	for name, ends := range map[string][2]string{
		"integer": {"", ""}, "nonPositiveInteger": {"", "0"}, "negativeInteger": {"", "-1"}, "nonNegativeInteger": {"0", ""}, "positiveInteger": {"1", ""},
		"long": {"-9223372036854775808", "9223372036854775807"}, "int": {"-2147483648", "2147483647"}, "short": {"-32768", "32767"}, "byte": {"-128", "127"},
		"unsignedLong": {"0", "18446744073709551615"}, "unsignedInt": {"0", "4294967295"}, "unsignedShort": {"0", "65535"}, "unsignedByte": {"0", "255"},
	} {
		low, hasLow := parseDecimal(ends[0])
		high, hasHigh := parseDecimal(ends[1])
		add(name, kindDecimal, collapse, func(s string, _ *etree.Element) (any, bool) {
			d, ok := parseDecimal(s)
			if !ok || strings.Contains(s, ".") || hasLow && d.compare(low) < 0 || hasHigh && d.compare(high) > 0 {
				return nil, false
			}
			return d, true
		})
		builtins[name].whole = true
	}
	add("float", kindFloat, collapse, func(s string, _ *etree.Element) (any, bool) { f, ok := parseFloat(s, 32); return f, ok })
	add("double", kindFloat, collapse, func(s string, _ *etree.Element) (any, bool) { f, ok := parseFloat(s, 64); return f, ok })
	for name, form := range moments {
		re := regexp.MustCompile(`\A` + form + zone + `\z`)
		add(name, kindMoment, collapse, func(s string, _ *etree.Element) (any, bool) { return parseMoment(re, s) })
	}
	add("duration", kindDuration, collapse, func(s string, _ *etree.Element) (any, bool) { return parseDuration(s) })
	add("anyURI", kindURI, collapse, func(s string, _ *etree.Element) (any, bool) { return s, isURI(s) })
	add("QName", kindQName, collapse, func(s string, scope *etree.Element) (any, bool) {
		if scope == nil {
			return nil, false
		}
		n, err := xmldoc.ResolveQName(scope, s)
		return n, err == nil
	})
	add("hexBinary", kindHex, collapse, func(s string, _ *etree.Element) (any, bool) {
		b, err := hex.DecodeString(s)
		return octets(b), err == nil
	})
	add("base64Binary", kindBase64, collapse, func(s string, _ *etree.Element) (any, bool) {
		b, err := base64.StdEncoding.Strict().DecodeString(strings.ReplaceAll(s, " ", ""))
		return octets(b), err == nil
	})
	return builtins
}

type octets []byte

// isURI takes what RFC 2396 does once the characters that XLink escapes are escaped
// (XML Schema part 2 §3.2.17).
func isURI(s string) bool {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7F || strings.IndexByte("<>\"{}|\\^`", c) >= 0 {
			b.WriteString("%20")
		} else {
			b.WriteByte(c)
		}
	}
	u, err := url.Parse(b.String())
	// Brackets are for the host alone (RFC 2732 §3).
	return err == nil && strings.Count(s, "[")+strings.Count(s, "]") == strings.Count(u.Host, "[")+strings.Count(u.Host, "]")
}

// decimal is a number without exponent, in its canonical digits.
type decimal struct {
	negative        bool
	whole, fraction string // without leading or trailing zeros; both empty is 0
}

var decimalForm = regexp.MustCompile(`\A[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\z`)

func parseDecimal(s string) (decimal, bool) {
	if !decimalForm.MatchString(s) {
		return decimal{}, false
	}
	negative := strings.HasPrefix(s, "-")
	whole, fraction, _ := strings.Cut(strings.TrimLeft(s, "+-"), ".")
	d := decimal{negative, strings.TrimLeft(whole, "0"), strings.TrimRight(fraction, "0")}
	if d.whole == "" && d.fraction == "" {
		d.negative = false
	}
	return d, true
}

// digits counts those that totalDigits does: i of i × 10^-n (§4.3.11).
func (d decimal) digits() int {
	if d.whole == "" {
		return max(1, len(strings.TrimLeft(d.fraction, "0")))
	}
	return len(d.whole) + len(d.fraction)
}

func (d decimal) compare(o decimal) int {
	if d.negative != o.negative {
		if d.negative {
			return -1
		}
		return 1
	}
	c := cmp.Or(cmp.Compare(len(d.whole), len(o.whole)), strings.Compare(d.whole, o.whole), strings.Compare(d.fraction, o.fraction))
	if d.negative {
		return -c
	}
	return c
}

var floatForm = regexp.MustCompile(`\A[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\z`)

func parseFloat(s string, bits int) (float64, bool) {
	switch s {
	case "INF":
		return math.Inf(1), true
	case "-INF":
		return math.Inf(-1), true
	case "NaN":
		return math.NaN(), true
	}
	if !floatForm.MatchString(s) {
		return 0, false
	}
	// Out of range is an infinity or nought, which is the nearest there is.
	f, _ := strconv.ParseFloat(s, bits)
	return f, true
}

// compare gives the order of two values of one type; ok is false where there is
// none.
func compare(a, b any) (order int, ok bool) {
	switch a := a.(type) {
	case decimal:
		b, same := b.(decimal)
		return a.compare(b), same
	case float64:
		b, same := b.(float64)
		return cmp.Compare(a, b), same && !math.IsNaN(a) && !math.IsNaN(b)
	case numeric:
		b, same := b.(numeric)
		if a.exact && b.exact {
			return a.d.compare(b.d), same
		}
		return cmp.Compare(a.f, b.f), same && !math.IsNaN(a.f) && !math.IsNaN(b.f)
	case moment:
		b, same := b.(moment)
		order, ok = a.compare(b)
		return order, ok && same
	case duration:
		b, same := b.(duration)
		order, ok = a.compare(b)
		return order, ok && same
	}
	return 0, false
}

// equal is identity in the value space; NaN is itself.
func equal(a, b any) bool {
	switch a := a.(type) {
	case float64:
		b, same := b.(float64)
		return same && (a == b || math.IsNaN(a) && math.IsNaN(b))
	case octets:
		b, same := b.(octets)
		return same && bytes.Equal(a, b)
	case []any:
		b, same := b.([]any)
		return same && slices.EqualFunc(a, b, equal)
	case decimal, numeric, moment, duration:
		order, ok := compare(a, b)
		return ok && order == 0
	}
	return a == b
}
