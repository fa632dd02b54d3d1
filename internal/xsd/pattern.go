package xsd

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// translate makes an RE2 of a pattern (XML Schema part 2 appendix F). Classes are
// computed here, so that subtraction is there too.
func translate(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > MaxPattern {
		return nil, unsupported("an xs:pattern has %d bytes: at most %d are taken", len(pattern), MaxPattern)
	}
	p := &patterns{s: pattern}
	if err := p.branches(0); err != nil {
		return nil, err
	}
	if p.i < len(p.s) {
		return nil, p.wrong("%q does not belong there", p.s[p.i:p.i+1])
	}
	re, err := regexp.Compile(`\A(?:` + p.out.String() + `)\z`)
	if err != nil {
		return nil, unsupported("the xs:pattern %s is too large", Quote(pattern))
	}
	return re, nil
}

type patterns struct {
	s   string
	i   int
	out strings.Builder
}

func (p *patterns) wrong(format string, args ...any) error {
	return invalid("the xs:pattern %s is wrong at character %d: %s", Quote(p.s), utf8.RuneCountInString(p.s[:min(p.i, len(p.s))])+1, fmt.Sprintf(format, args...))
}

func (p *patterns) refused(format string, args ...any) error {
	return unsupported("the xs:pattern %s cannot be taken: %s", Quote(p.s), fmt.Sprintf(format, args...))
}

func (p *patterns) peek() rune {
	if p.i >= len(p.s) {
		return -1
	}
	r, _ := utf8.DecodeRuneInString(p.s[p.i:])
	return r
}

func (p *patterns) next() rune {
	r := p.peek()
	if r >= 0 {
		p.i += utf8.RuneLen(r)
	}
	return r
}

func (p *patterns) branches(depth int) error {
	const deepest = 32
	if depth > deepest {
		return p.refused("it is nested deeper than %d", deepest)
	}
	for {
		switch r := p.peek(); r {
		case -1, ')':
			return nil
		case '|':
			p.i++
			p.out.WriteByte('|')
		default:
			if err := p.piece(depth); err != nil {
				return err
			}
		}
	}
}

func (p *patterns) piece(depth int) error {
	switch r := p.next(); r {
	case '(':
		p.out.WriteString("(?:")
		if err := p.branches(depth + 1); err != nil {
			return err
		}
		if p.next() != ')' {
			return p.wrong("a \")\" is missing")
		}
		p.out.WriteByte(')')
	case '[':
		s, err := p.class(depth)
		if err != nil {
			return err
		}
		p.out.WriteString(s.emit())
	case '.':
		p.out.WriteString(`[^\n\r]`)
	case '\\':
		s, _, err := p.escape()
		if err != nil {
			return err
		}
		p.out.WriteString(s.emit())
	case '?', '*', '+', '{', '}', ']':
		p.i--
		return p.wrong("%q does not belong there: write \\%c for the character", r, r)
	default:
		p.out.WriteString(regexp.QuoteMeta(string(r)))
	}
	switch r := p.peek(); r {
	case '?', '*', '+':
		p.i++
		p.out.WriteRune(r)
	case '{':
		return p.quantity()
	default:
		return nil
	}
	return nil
}

var quantityForm = regexp.MustCompile(`\A\{([0-9]+)(,([0-9]*))?\}`)

func (p *patterns) quantity() error {
	const most = 1000 // of RE2
	m := quantityForm.FindStringSubmatch(p.s[p.i:])
	if m == nil {
		return p.wrong("a quantity is written {n}, {n,} or {n,m}")
	}
	least := -1
	for _, n := range []string{m[1], m[3]} {
		if n == "" {
			continue
		}
		v, err := strconv.Atoi(n)
		if err != nil || v > most {
			return p.refused("a quantity is more than %d", most)
		}
		if v < least {
			return p.wrong("a quantity's second number is less than its first")
		}
		least = v
	}
	p.i += len(m[0])
	p.out.WriteString(m[0])
	return nil
}

// escape reads what follows a backslash. One is set where it stands for one character.
func (p *patterns) escape() (s set, one bool, err error) {
	r := p.next()
	switch r {
	case 'n':
		return of('\n'), true, nil
	case 'r':
		return of('\r'), true, nil
	case 't':
		return of('\t'), true, nil
	case '\\', '|', '.', '-', '^', '?', '*', '+', '{', '}', '(', ')', '[', ']':
		return of(r), true, nil
	case 's', 'S':
		s = set{{'\t', '\n'}, {'\r', '\r'}, {' ', ' '}}
	case 'i', 'I':
		s = nameStart
	case 'c', 'C':
		s = nameRest
	case 'd', 'D':
		s = category(unicode.Nd)
	case 'w', 'W':
		s = category(unicode.L, unicode.M, unicode.N, unicode.S)
	case 'p', 'P':
		end := strings.IndexByte(p.s[p.i:], '}')
		if p.peek() != '{' || end < 0 {
			return nil, false, p.wrong("\\%c must be followed by {…}", r)
		}
		name := p.s[p.i+1 : p.i+end]
		p.i += end + 1
		if strings.HasPrefix(name, "Is") {
			return nil, false, p.refused("the block %s is not supported: write the range of characters", name)
		}
		switch table, ok := unicode.Categories[name]; {
		case name == "Cn", name == "C":
			s = category(unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z)
			if name == "Cn" {
				s = slices.Concat(s, category(unicode.C)).tidy()
			}
			s = s.not()
		case !ok || name == "LC":
			return nil, false, p.wrong("there is no category %s", Quote(name))
		default:
			s = category(table)
		}
	case -1:
		return nil, false, p.wrong("a backslash must be followed by something")
	default:
		return nil, false, p.wrong("there is no escape \\%c", r)
	}
	if r < 'a' {
		s = s.not()
	}
	return s, false, nil
}

// class reads a character class after its "[".
func (p *patterns) class(depth int) (set, error) {
	const deepest = 32
	if depth > deepest {
		return nil, p.refused("it is nested deeper than %d", deepest)
	}
	negated := p.peek() == '^'
	if negated {
		p.i++
	}
	var s set
	for first := true; ; first = false {
		r := p.next()
		var from rune
		switch r {
		case -1:
			return nil, p.wrong("a \"]\" is missing")
		case ']':
			if first {
				return nil, p.wrong("a class is empty")
			}
			s = s.tidy()
			if negated {
				s = s.not()
			}
			return s, nil
		case '[':
			return nil, p.wrong("\"[\" does not belong into a class: write \\[ for the character")
		case '-':
			if p.peek() == '[' && !first {
				p.i++
				without, err := p.class(depth + 1)
				if err != nil {
					return nil, err
				}
				if p.next() != ']' {
					return nil, p.wrong("a subtraction must end its class")
				}
				s = s.tidy()
				if negated {
					s = s.not()
				}
				return s.minus(without), nil
			}
			if !first && p.peek() != ']' {
				return nil, p.wrong("\"-\" does not belong there: write \\- for the character")
			}
			from = r
		case '\\':
			e, one, err := p.escape()
			if err != nil {
				return nil, err
			}
			if !one {
				s = append(s, e...)
				continue
			}
			from = e[0][0]
		default:
			from = r
		}
		to := from
		if rest := p.s[p.i:]; strings.HasPrefix(rest, "-") && !strings.HasPrefix(rest, "-]") && !strings.HasPrefix(rest, "-[") {
			p.i++
			switch to = p.next(); to {
			case '\\':
				e, one, err := p.escape()
				if err != nil {
					return nil, err
				}
				if !one {
					return nil, p.wrong("a range must end with one character")
				}
				to = e[0][0]
			case '-', -1:
				return nil, p.wrong("a range must end with one character")
			}
			if to < from {
				return nil, p.wrong("a range ends before it begins")
			}
		}
		s = append(s, [2]rune{from, to})
	}
}

// set is ranges of characters; a tidy one has them in order and apart.
type set [][2]rune

func of(r rune) set { return set{{r, r}} }

func (s set) tidy() set {
	s = slices.Clone(s)
	slices.SortFunc(s, func(a, b [2]rune) int { return int(a[0]) - int(b[0]) })
	var out set
	for _, r := range s {
		if n := len(out); n > 0 && r[0] <= out[n-1][1]+1 {
			out[n-1][1] = max(out[n-1][1], r[1])
		} else {
			out = append(out, r)
		}
	}
	return out
}

func (s set) not() set {
	var out set
	at := rune(0)
	for _, r := range s.tidy() {
		if r[0] > at {
			out = append(out, [2]rune{at, r[0] - 1})
		}
		at = r[1] + 1
	}
	if at <= unicode.MaxRune {
		out = append(out, [2]rune{at, unicode.MaxRune})
	}
	return out
}

func (s set) minus(o set) set { return slices.Concat(s.not(), o).not() }

func (s set) emit() string {
	if len(s) == 0 {
		return `[^\x00-\x{10FFFF}]`
	}
	if len(s) == 1 && s[0][0] == s[0][1] {
		return regexp.QuoteMeta(string(s[0][0]))
	}
	var b strings.Builder
	b.WriteByte('[')
	for _, r := range s {
		fmt.Fprintf(&b, `\x{%X}-\x{%X}`, r[0], r[1])
	}
	b.WriteByte(']')
	return b.String()
}

func category(tables ...*unicode.RangeTable) set {
	var s set
	for _, t := range tables {
		for _, r := range t.R16 {
			s = strided(s, rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
		for _, r := range t.R32 {
			s = strided(s, rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
	}
	return s.tidy()
}

func strided(s set, low, high, stride rune) set {
	if stride == 1 {
		return append(s, [2]rune{low, high})
	}
	for r := low; r <= high; r += stride {
		s = append(s, [2]rune{r, r})
	}
	return s
}

// The characters of names (XML 1.0 fifth edition, with the colon).
var (
	nameStart = set{
		{':', ':'},
		{'A', 'Z'},
		{'_', '_'},
		{'a', 'z'},
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
	nameRest = slices.Concat(nameStart, set{{'-', '.'}, {'0', '9'}, {0xB7, 0xB7}, {0x300, 0x36F}, {0x203F, 0x2040}}).tidy()
)
