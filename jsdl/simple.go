package jsdl

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// The simple types of XML Schema part 2 that JSDL uses. Each function takes the
// text as it stands in the document and says whether it is in the type's lexical
// space after the type's own white space rule.

// maxDigits bounds an integer: the schema sets no limit, memory does.
const maxDigits = 1000

// space reports whether b is white space in XML.
func space(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// blank reports whether s is white space only.
func blank(s string) bool {
	for i := range len(s) {
		if !space(s[i]) {
			return false
		}
	}
	return true
}

// trim takes white space off both ends.
func trim(s string) string {
	for len(s) > 0 && space(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && space(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// normalize applies the white space rule "replace" (normalizedString).
func normalize(s string) string {
	if !strings.ContainsAny(s, "\t\n\r") {
		return s
	}
	return strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(s)
}

// parseBoolean reads xsd:boolean.
func parseBoolean(s string) (v, ok bool) {
	switch trim(s) {
	case "true", "1":
		return true, true
	case "false", "0":
		return false, true
	}
	return false, false
}

// parseDouble reads xsd:double. What is too large for one is infinite, as the
// standard's rounding says.
func parseDouble(s string) (float64, bool) {
	s = trim(s)
	switch s {
	case "INF":
		return math.Inf(1), true
	case "-INF":
		return math.Inf(-1), true
	case "NaN":
		return math.NaN(), true
	}
	if !decimalForm(s) {
		return 0, false
	}
	v, _ := strconv.ParseFloat(s, 64) // only a range error is left
	return v, true
}

// decimalForm reports whether s is a number as xsd:double writes finite ones;
// strconv alone would also take hexadecimal, underscores and words.
func decimalForm(s string) bool {
	s = unsigned(s)
	whole := digits(s)
	s = s[whole:]
	frac := 0
	if s != "" && s[0] == '.' {
		frac = digits(s[1:])
		s = s[1+frac:]
	}
	if whole+frac == 0 {
		return false
	}
	if s == "" {
		return true
	}
	if s[0] != 'e' && s[0] != 'E' {
		return false
	}
	s = unsigned(s[1:])
	return s != "" && digits(s) == len(s)
}

func unsigned(s string) string {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		return s[1:]
	}
	return s
}

// digits counts the decimal digits that s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// parseInteger reads xsd:integer. One of more than maxDigits digits is cut to the
// nearest that has so many, which no machine tells apart.
func parseInteger(s string) (v *big.Int, ok, cut bool) {
	s = trim(s)
	d := unsigned(s)
	if d == "" || digits(d) != len(d) {
		return nil, false, false
	}
	negative := s[0] == '-'
	d = strings.TrimLeft(d, "0")
	if cut = len(d) > maxDigits; cut {
		d = strings.Repeat("9", maxDigits)
	}
	v = new(big.Int)
	if d != "" {
		v.SetString(d, 10)
	}
	if negative {
		v.Neg(v)
	}
	return v, true, cut
}

// parseNCName reads xsd:NCName (Namespaces in XML 1.0): a name without colon.
func parseNCName(s string) (string, bool) {
	s = trim(s)
	if s == "" {
		return s, false
	}
	for i, r := range s {
		if !nameStart(r) && (i == 0 || !nameRest(r)) {
			return s, false
		}
	}
	return s, true
}

// nameStart and nameRest follow the second to fourth editions, which XML Schema 1.0
// refers to, but read their tables of letters by what Unicode calls letters today.
// The compatibility area from U+F900 has no name characters in those editions.
func nameStart(r rune) bool {
	if r < 0x80 {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
	}
	return r >= 0xC0 && r < 0xF900 && (unicode.IsLetter(r) || r == 0x3007 || r >= 0x3021 && r <= 0x3029)
}

func nameRest(r rune) bool {
	if r < 0x80 {
		return r == '-' || r == '.' || r >= '0' && r <= '9'
	}
	return r == 0xB7 || r >= 0xC0 && r < 0xF900 && unicode.In(r, unicode.Mn, unicode.Mc, unicode.Nd, unicode.Lm)
}

// parseURI reads xsd:anyURI: a reference of RFC 3986, in which the characters
// that URIs exclude stand for their percent-encoded form (XML Schema part 2 §3.2.17).
func parseURI(s string) (string, bool) {
	s = xmldoc.Collapse(s)
	return s, reference(s)
}

// reference reports whether s is a URI reference in the sense of parseURI.
func reference(s string) bool {
	s, fragment, _ := strings.Cut(s, "#")
	if !uriChars(fragment) {
		return false
	}
	s, query, _ := strings.Cut(s, "?")
	if !uriChars(query) {
		return false
	}
	if i := strings.IndexAny(s, ":/"); i >= 0 && s[i] == ':' {
		if !scheme(s[:i]) {
			return false
		}
		s = s[i+1:]
	}
	if rest, ok := strings.CutPrefix(s, "//"); ok {
		host, path := rest, ""
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			host, path = rest[:i], rest[i:]
		}
		if !authority(host) {
			return false
		}
		s = path
	}
	return uriChars(s)
}

func scheme(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.')) {
			return false
		}
	}
	return s != ""
}

func authority(s string) bool {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		if strings.IndexByte(s[:i], '@') >= 0 || !uriChars(s[:i]) {
			return false
		}
		s = s[i+1:]
	}
	if strings.HasPrefix(s, "[") {
		i := strings.IndexByte(s, ']')
		if i < 0 || !uriChars(s[1:i]) {
			return false
		}
		s = s[i+1:]
		if s != "" && s[0] != ':' {
			return false
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		if !uriChars(s[:i]) {
			return false
		}
		s = s[i:]
	} else {
		return uriChars(s)
	}
	if s == "" {
		return true
	}
	return digits(s[1:]) == len(s)-1
}

// uriChars reports whether every percent sign begins an escape, and no bracket or
// hash stands where RFC 3986 has none.
func uriChars(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '%':
			if i+2 >= len(s) || !hex(s[i+1]) || !hex(s[i+2]) {
				return false
			}
		case '[', ']', '#':
			return false
		}
	}
	return true
}

func hex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
