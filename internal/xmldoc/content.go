package xmldoc

import (
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"
)

// addText puts character data into the open element.
func (r *reader) addText(s string) {
	if len(r.textSlab) == 0 {
		r.textSlab = make([]etree.CharData, min(64, len(r.doc.nodes)+8))
	}
	t := &r.textSlab[0]
	r.textSlab = r.textSlab[1:]
	t.SetData(s)
	r.open[len(r.open)-1].el.AddChild(t)
}

// text scans character data and references up to the next markup. What needs no
// change is not copied.
func (r *reader) text() *Error {
	start, copied := r.i, r.i
	var b []byte
	for r.i < len(r.s) {
		c := r.s[r.i]
		if class[c]&cText != 0 {
			r.i++
			continue
		}
		if c == '<' {
			break
		}
		switch c {
		case ']':
			if strings.HasPrefix(r.s[r.i:], "]]>") {
				return malformed("\"]]>\" must not stand in text: write \"]]&gt;\"")
			}
			r.i++
		case '&':
			b = append(b, r.s[copied:r.i]...)
			ch, err := r.reference()
			if err != nil {
				return err
			}
			b = utf8.AppendRune(b, ch)
			copied = r.i
		case '\r':
			b = append(b, r.s[copied:r.i]...)
			b = append(b, '\n')
			r.i++
			if r.i < len(r.s) && r.s[r.i] == '\n' {
				r.i++
			}
			copied = r.i
		default:
			return illegal(rune(c))
		}
	}
	if r.i-start > r.lim.Text {
		r.i = start
		return tooLarge("Text", r.lim.Text, "bytes of text in one place")
	}
	if copied == start {
		r.addText(r.s[start:r.i])
		return nil
	}
	r.addText(string(append(b, r.s[copied:r.i]...)))
	return nil
}

func illegal(c rune) *Error {
	return malformed("the character U+%04X is not allowed in XML", c)
}

// attributeValue scans a quoted value and normalises it (XML 1.0 §3.3.3).
func (r *reader) attributeValue(name string) (string, *Error) {
	if r.i >= len(r.s) || r.s[r.i] != '"' && r.s[r.i] != '\'' {
		return "", malformed("the value of the attribute %s must stand between quotes", quote(name))
	}
	q := r.s[r.i]
	plain := uint8(cDouble)
	if q == '\'' {
		plain = cSingle
	}
	r.i++
	start, copied := r.i, r.i
	var b []byte
	for {
		for r.i < len(r.s) && class[r.s[r.i]]&plain != 0 {
			r.i++
		}
		if r.i-start > r.lim.AttributeValue {
			r.i = start
			return "", tooLarge("AttributeValue", r.lim.AttributeValue, "bytes in the value of an attribute")
		}
		if r.i >= len(r.s) {
			return "", malformed("the document ends inside the value of the attribute %s", quote(name))
		}
		switch c := r.s[r.i]; c {
		case q:
			v := r.s[copied:r.i]
			if copied != start {
				v = string(append(b, v...))
			}
			r.i++
			return v, nil
		case '<':
			return "", malformed("\"<\" must not stand in the value of the attribute %s: write \"&lt;\"", quote(name))
		case '&':
			b = append(b, r.s[copied:r.i]...)
			ch, err := r.reference()
			if err != nil {
				return "", err
			}
			b = utf8.AppendRune(b, ch)
		case '\t', '\n', '\r':
			b = append(b, r.s[copied:r.i]...)
			b = append(b, ' ')
			r.i++
			if c == '\r' && r.i < len(r.s) && r.s[r.i] == '\n' { // one line end, one space
				r.i++
			}
		default:
			return "", illegal(rune(c))
		}
		copied = r.i
	}
}

// reference scans "&…;": the five entities and characters by number (XML 1.0 §4.1, §4.6).
func (r *reader) reference() (rune, *Error) {
	const longest = 32 // leading zeros are allowed, in reason
	rest := r.s[r.i:min(r.i+longest, len(r.s))]
	end := strings.IndexByte(rest, ';')
	if end < 0 {
		return 0, malformed("a \"&\" must begin a reference that ends with \";\": write \"&amp;\" for the character itself")
	}
	body := rest[1:end]
	var ch rune
	switch body {
	case "lt":
		ch = '<'
	case "gt":
		ch = '>'
	case "amp":
		ch = '&'
	case "quot":
		ch = '"'
	case "apos":
		ch = '\''
	default:
		var ok bool
		if ch, ok = charReference(body); !ok {
			if strings.HasPrefix(body, "#") {
				return 0, malformed("the reference %s does not stand for a character that XML allows", quote(rest[:end+1]))
			}
			return 0, malformed("the entity %s is not known: only lt, gt, amp, quot and apos are", quote(body))
		}
	}
	r.i += end + 1
	return ch, nil
}

func charReference(body string) (rune, bool) {
	digits, ok := strings.CutPrefix(body, "#")
	if !ok {
		return 0, false
	}
	base := rune(10)
	if hex, ok := strings.CutPrefix(digits, "x"); ok {
		base, digits = 16, hex
	}
	if digits == "" {
		return 0, false
	}
	var v rune
	for i := range len(digits) {
		d := rune(99)
		switch c := digits[i]; {
		case c >= '0' && c <= '9':
			d = rune(c - '0')
		case c >= 'a' && c <= 'f':
			d = rune(c-'a') + 10
		case c >= 'A' && c <= 'F':
			d = rune(c-'A') + 10
		}
		if d >= base {
			return 0, false
		}
		if v = v*base + d; v > utf8.MaxRune {
			return 0, false
		}
	}
	return v, isChar(v)
}

// allowed checks the characters of text that is taken whole; r.i is left at the
// first one that is not.
func (r *reader) allowed(from, to int) *Error {
	for i := from; i < to; i++ {
		if class[r.s[i]]&cIllegal != 0 {
			r.i = i
			return illegal(rune(r.s[i]))
		}
	}
	return nil
}

func (r *reader) comment() *Error {
	const begin = "<!--"
	if err := r.countNode(); err != nil {
		return err
	}
	from := r.i + len(begin)
	n := strings.Index(r.s[from:], "--")
	if n < 0 {
		return malformed("the comment that begins here is not closed")
	}
	to := from + n
	if !strings.HasPrefix(r.s[to:], "-->") {
		r.i = to
		return malformed("\"--\" must not stand inside a comment")
	}
	if err := r.allowed(from, to); err != nil {
		return err
	}
	if len(r.open) > 0 {
		r.open[len(r.open)-1].el.AddChild(etree.NewComment(normalizeLines(r.s[from:to])))
	}
	r.i = to + len("-->")
	return nil
}

func (r *reader) cdata() *Error {
	const begin = "<![CDATA["
	if len(r.open) == 0 {
		return malformed("a CDATA section stands outside the root element")
	}
	if err := r.countNode(); err != nil {
		return err
	}
	from := r.i + len(begin)
	n := strings.Index(r.s[from:], "]]>")
	if n < 0 {
		return malformed("the CDATA section that begins here is not closed")
	}
	if n > r.lim.Text {
		return tooLarge("Text", r.lim.Text, "bytes of text in one place")
	}
	if err := r.allowed(from, from+n); err != nil {
		return err
	}
	r.open[len(r.open)-1].el.AddChild(etree.NewCData(normalizeLines(r.s[from : from+n])))
	r.i = from + n + len("]]>")
	return nil
}

// instruction skips a processing instruction beside the root; SOAP 1.2 part 1 §5
// and WS-I Basic Profile 1.1 R1009 have none inside.
func (r *reader) instruction() *Error {
	if len(r.open) > 0 {
		return &Error{Reason: Forbidden, What: "a processing instruction inside the root element is not accepted: remove it"}
	}
	start := r.i
	n := ncNameLen(r.s[start+2:])
	if n == 0 {
		return malformed("\"<?\" must be followed by a name")
	}
	target := r.s[start+2 : start+2+n]
	if strings.EqualFold(target, "xml") {
		return malformed("an XML declaration can stand at the very beginning only")
	}
	from := start + 2 + n
	end := strings.Index(r.s[from:], "?>")
	if end < 0 {
		return malformed("the processing instruction that begins here is not closed")
	}
	if end > 0 && !isSpace(r.s[from]) {
		return malformed("white space must follow the target of a processing instruction")
	}
	if err := r.allowed(from, from+end); err != nil {
		return err
	}
	r.i = from + end + len("?>")
	return nil
}

// declaration is XMLDecl of XML 1.0 §2.8, of version 1.0.
func (r *reader) declaration() *Error {
	r.i = len("<?xml")
	version, found, err := r.pseudoAttribute("version")
	if err != nil {
		return err
	}
	if !found {
		return malformed("the XML declaration lacks its version")
	}
	if version != "1.0" {
		return malformed("XML version %s is not supported: send XML 1.0", quote(version))
	}
	name, found, err := r.pseudoAttribute("encoding")
	if err != nil {
		return err
	}
	if found && !r.external {
		if err := r.declaredEncoding(name); err != nil {
			return err
		}
	}
	standalone, found, err := r.pseudoAttribute("standalone")
	if err != nil {
		return err
	}
	if found && standalone != "yes" && standalone != "no" {
		return malformed("standalone must be \"yes\" or \"no\"")
	}
	r.space()
	if !strings.HasPrefix(r.s[r.i:], "?>") {
		return malformed("the XML declaration takes version, encoding and standalone, in this order, and ends with \"?>\"")
	}
	r.i += 2
	return nil
}

// declaredEncoding compares what the declaration says with what the bytes were.
func (r *reader) declaredEncoding(name string) *Error {
	e, ok := encodingNamed(name)
	if !ok || e == anyEncoding {
		return &Error{Reason: Encoding, Charset: name, What: "the character encoding " + quote(name) + " is not supported: send UTF-8 or UTF-16"}
	}
	if (e == utf8Encoding) != (r.enc == utf8Encoding) {
		return &Error{Reason: Encoding, What: "the document is not in the character encoding that it declares, " + quote(name)}
	}
	return nil
}

func (r *reader) pseudoAttribute(name string) (string, bool, *Error) {
	at := r.i
	if !r.space() || !strings.HasPrefix(r.s[r.i:], name) {
		r.i = at
		return "", false, nil
	}
	r.i += len(name)
	r.space()
	if r.i >= len(r.s) || r.s[r.i] != '=' {
		return "", false, malformed("a \"=\" must follow %s in the XML declaration", name)
	}
	r.i++
	r.space()
	if r.i < len(r.s) && (r.s[r.i] == '"' || r.s[r.i] == '\'') {
		if end := strings.IndexByte(r.s[r.i+1:], r.s[r.i]); end >= 0 {
			v := r.s[r.i+1 : r.i+1+end]
			r.i += end + 2
			return v, true, nil
		}
	}
	return "", false, malformed("the value of %s in the XML declaration must stand between quotes", name)
}
