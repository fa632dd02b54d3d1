package xmldoc

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const white = " \t\r\n"

// What a byte means to the scanner, as bits.
const (
	cSpace     = 1 << iota // white space (XML 1.0 §2.3 S)
	cText                  // goes on in character data without another look
	cDouble                // goes on in an attribute value between "
	cSingle                // goes on in an attribute value between '
	cNameStart             // begins a name; bytes from 0x80 need a look at the character
	cName                  // goes on in a name; likewise
	cIllegal               // a control character that XML 1.0 §2.2 does not allow
	cPlain                 // is written as it is, in character data as in attribute values
)

var class = func() (t [256]uint8) {
	for i := range t {
		c := byte(i)
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			t[i] |= cSpace
		case c < 0x20:
			t[i] |= cIllegal
		}
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if letter {
			t[i] |= cNameStart | cName
		}
		if c >= '0' && c <= '9' || c == '-' || c == '.' {
			t[i] |= cName
		}
		if c >= 0x20 || c == '\t' || c == '\n' {
			if c != '<' && c != '&' && c != ']' {
				t[i] |= cText
			}
		}
		if c >= 0x20 && c < utf8.RuneSelf && c != '<' && c != '>' && c != '&' && c != '"' {
			t[i] |= cPlain
		}
		if c >= 0x20 && c != '<' && c != '&' {
			if c != '"' {
				t[i] |= cDouble
			}
			if c != '\'' {
				t[i] |= cSingle
			}
		}
	}
	return t
}()

func isSpace(c byte) bool { return class[c]&cSpace != 0 }

// isChar is Char of XML 1.0 §2.2.
func isChar(r rune) bool {
	return r >= 0x20 && r <= 0xD7FF || r == '\t' || r == '\n' || r == '\r' ||
		r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}

type runeRange struct{ lo, hi rune }

// Beyond ASCII: NameStartChar and what NameChar adds (XML 1.0, fifth edition, §2.3).
var (
	nameStartRanges = [...]runeRange{
		{0xC0, 0xD6},
		{0xD8, 0xF6},
		{0xF8, 0x2FF},
		{0x370, 0x37D},
		{0x37F, 0x1FFF},
		{0x200C, 0x200D},
		{0x2070, 0x218F},
		{0x2C00, 0x2FEF},
		{0x3001, 0xD7FF},
		{0xF900, 0xFDCF},
		{0xFDF0, 0xFFFD},
		{0x10000, 0xEFFFF},
	}
	nameMoreRanges = [...]runeRange{{0xB7, 0xB7}, {0x300, 0x36F}, {0x203F, 0x2040}}
)

func in(r rune, ranges []runeRange) bool {
	for _, x := range ranges {
		if r >= x.lo && r <= x.hi {
			return true
		}
	}
	return false
}

// ncNameLen gives the length of the NCName (Namespaces in XML 1.0 §3) that s
// begins with; 0 if there is none.
func ncNameLen(s string) int {
	if s == "" {
		return 0
	}
	i := 0
	if c := s[0]; c < utf8.RuneSelf {
		if class[c]&cNameStart == 0 {
			return 0
		}
		i = 1
	} else {
		r, n := utf8.DecodeRuneInString(s)
		if !in(r, nameStartRanges[:]) || r == utf8.RuneError && n == 1 {
			return 0
		}
		i = n
	}
	for i < len(s) {
		if c := s[i]; c < utf8.RuneSelf {
			if class[c]&cName == 0 {
				break
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !in(r, nameStartRanges[:]) && !in(r, nameMoreRanges[:]) {
			break
		}
		i += n
	}
	return i
}

// splitQName splits a whole string that is a QName.
func splitQName(s string) (prefix, local string, ok bool) {
	n := ncNameLen(s)
	if n == 0 || n == len(s) {
		return "", s, n > 0
	}
	if s[n] != ':' || len(s) == n+1 || ncNameLen(s[n+1:]) != len(s)-n-1 {
		return "", "", false
	}
	return s[:n], s[n+1:], true
}

// quote shows a stranger's text in a message: bounded and on one line.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}

// normalizeLines turns CRLF and CR into LF (XML 1.0 §2.11).
func normalizeLines(s string) string {
	if strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}
