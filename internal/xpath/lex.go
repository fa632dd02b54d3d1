package xpath

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/portolan-project/portolan/internal/fail"
)

type tokenKind uint8

const (
	tokEnd      tokenKind = iota
	tokSymbol             // ( ) [ ] . .. @ , :: / // | + - = != < <= > >= * and the operators by name
	tokName               // a name test: p:local, local, p:*, *
	tokFunction           // a name before "("
	tokNodeType           // comment, text, processing-instruction, node before "("
	tokAxis               // a name before "::"
	tokLiteral
	tokNumber
	tokVariable
)

type token struct {
	kind          tokenKind
	text          string // of a symbol, literal, number, function, axis
	prefix, local string // of a name; local may be "*"
	at            int    // byte offset in the source
}

// problem is why an expression is refused, and where.
type problem struct {
	kind fail.Kind
	at   int
	what string
}

func invalid(at int, format string, args ...any) *problem {
	return &problem{fail.Invalid, at, fmt.Sprintf(format, args...)}
}

func unsupported(at int, format string, args ...any) *problem {
	return &problem{fail.Unsupported, at, fmt.Sprintf(format, args...)}
}

// lex makes tokens of s from the offset on (XPath 1.0 §3.7). Whether "*" and the
// names and, or, div, mod are operators follows from the token before.
func lex(s string, i int) ([]token, *problem) {
	var toks []token
	for {
		i += spaces(s[i:])
		if i >= len(s) {
			return append(toks, token{kind: tokEnd, at: i}), nil
		}
		t := token{kind: tokSymbol, at: i}
		operator := false // an operator, not an operand, must stand here
		if len(toks) > 0 {
			switch last := toks[len(toks)-1]; last.kind {
			case tokSymbol:
				operator = last.text == ")" || last.text == "]" || last.text == "." || last.text == ".."
			case tokName, tokLiteral, tokNumber, tokVariable:
				operator = true
			case tokFunction, tokNodeType, tokAxis, tokEnd:
			}
		}
		rest := s[i:]
		switch c := s[i]; {
		case strings.HasPrefix(rest, "::"), strings.HasPrefix(rest, "//"), strings.HasPrefix(rest, ".."),
			strings.HasPrefix(rest, "!="), strings.HasPrefix(rest, "<="), strings.HasPrefix(rest, ">="):
			t.text = rest[:2]
		case c >= '0' && c <= '9', c == '.' && len(rest) > 1 && rest[1] >= '0' && rest[1] <= '9':
			n := digits(rest)
			if n < len(rest) && rest[n] == '.' {
				n++
				n += digits(rest[n:])
			}
			t.kind, t.text = tokNumber, rest[:n]
		case strings.IndexByte("()[].@,/|+-=<>", c) >= 0:
			t.text = rest[:1]
		case c == '*':
			t.text = "*"
			if !operator {
				t.kind, t.local = tokName, "*"
			}
		case c == '"' || c == '\'':
			n := strings.IndexByte(rest[1:], c)
			if n < 0 {
				return nil, invalid(i, "the text that begins here is not closed")
			}
			t.kind, t.text = tokLiteral, rest[1:1+n]
			i += n + 2
			toks = append(toks, t)
			continue
		case c == '$':
			n := 1 + nameLen(rest[1:])
			if n == 1 {
				return nil, invalid(i, "\"$\" must be followed by a name")
			}
			t.kind, t.text = tokVariable, rest[:n]
		default:
			n := nameLen(rest)
			if n == 0 {
				r, _ := utf8.DecodeRuneInString(rest)
				return nil, invalid(i, "the character %q does not belong here", r)
			}
			name := rest[:n]
			if operator {
				switch name {
				case "and", "or", "div", "mod":
					t.text = name
				default:
					return nil, invalid(i, "the name %s stands where an operator is wanted", name)
				}
				break
			}
			t.kind, t.local = tokName, name
			if n+1 < len(rest) && rest[n] == ':' && rest[n+1] != ':' {
				t.prefix = name
				if rest[n+1] == '*' {
					t.local = "*"
					n += 2
				} else if m := nameLen(rest[n+1:]); m > 0 {
					t.local = rest[n+1 : n+1+m]
					n += 1 + m
				} else {
					return nil, invalid(i+n, "a name or \"*\" must follow %s:", name)
				}
			}
			t.text = rest[:n]
			switch after := strings.TrimLeft(rest[n:], white); {
			case strings.HasPrefix(after, "::") && t.prefix == "":
				t.kind = tokAxis
			case strings.HasPrefix(after, "(") && t.local != "*":
				t.kind = tokFunction
				switch t.text {
				case "comment", "text", "processing-instruction", "node":
					t.kind = tokNodeType
				}
			}
		}
		i += len(t.text)
		toks = append(toks, t)
	}
}

const white = " \t\r\n"

func spaces(s string) int { return len(s) - len(strings.TrimLeft(s, white)) }

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// nameLen gives the length of the NCName that s begins with (XML 1.0 fifth edition).
func nameLen(s string) int {
	for i, r := range s {
		if !nameStart(r) && (i == 0 || !nameRest(r)) {
			return i
		}
	}
	return len(s)
}

func nameStart(r rune) bool {
	switch {
	case r < 0x80:
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
	case r < 0xC0, r == 0xD7, r == 0xF7, r == 0x37E, r >= 0x300 && r < 0x370, r == utf8.RuneError:
		return false
	}
	return r < 0x2000 || r == 0x200C || r == 0x200D || r >= 0x2070 && r <= 0x218F || r >= 0x2C00 && r <= 0x2FEF ||
		r >= 0x3001 && r <= 0xD7FF || r >= 0xF900 && r <= 0xFDCF || r >= 0xFDF0 && r < utf8.RuneError || r >= 0x10000 && r <= 0xEFFFF
}

func nameRest(r rune) bool {
	return r == '-' || r == '.' || r >= '0' && r <= '9' || r == 0xB7 || r >= 0x300 && r <= 0x36F || r == 0x203F || r == 0x2040
}
