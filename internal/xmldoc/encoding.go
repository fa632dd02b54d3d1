package xmldoc

import (
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// readAll reads at most max bytes and one more to know that there is more. Room
// grows with what arrives, not with what was announced.
func readAll(r io.Reader, most int64) ([]byte, error) {
	b := make([]byte, 0, 4096)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		room := int64(cap(b) - len(b))
		if left := most + 1 - int64(len(b)); left < room {
			room = left
		}
		if room == 0 {
			return b, nil
		}
		n, err := r.Read(b[len(b) : len(b)+int(room)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

type encoding uint8

const (
	anyEncoding encoding = iota
	utf8Encoding
	utf16Encoding
	utf16LE
	utf16BE
)

// encodingNamed knows the names of the two encodings that every XML processor
// must read (XML 1.0 §2.2), in any case.
func encodingNamed(name string) (encoding, bool) {
	switch strings.ToLower(name) {
	case "":
		return anyEncoding, true
	case "utf-8", "utf8":
		return utf8Encoding, true
	case "utf-16", "utf16":
		return utf16Encoding, true
	case "utf-16le":
		return utf16LE, true
	case "utf-16be":
		return utf16BE, true
	}
	return anyEncoding, false
}

// decode gives the document in UTF-8, without a byte order mark, and what it was
// written in. Precedence is that of RFC 7303 §3: the mark, then the charset
// from outside, then what the bytes look like (XML 1.0 appendix F).
func decode(b []byte, charset string) (string, encoding, *Error) {
	given, ok := encodingNamed(charset)
	if !ok {
		return "", 0, &Error{Reason: Encoding, Charset: charset, What: "the character encoding " + quote(charset) + " is not supported: send UTF-8 or UTF-16"}
	}
	has := func(prefix string) bool { return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix }
	switch {
	case has("\xEF\xBB\xBF"):
		return decode8(b[3:])
	case has("\xFE\xFF"):
		return decode16(b[2:], true)
	case has("\xFF\xFE"):
		return decode16(b[2:], false)
	case given == utf8Encoding:
		return decode8(b)
	case given == utf16BE, given != utf16LE && has("\x00<"):
		return decode16(b, true)
	case given == utf16LE, has("<\x00"):
		return decode16(b, false)
	case given == utf16Encoding: // RFC 2781 §4.3: without a mark, big-endian
		return decode16(b, true)
	}
	return decode8(b)
}

func decode8(b []byte) (string, encoding, *Error) {
	s := string(b)
	if !utf8.ValidString(s) {
		off := 0
		for off < len(s) {
			r, n := utf8.DecodeRuneInString(s[off:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			off += n
		}
		return "", 0, &Error{Reason: Encoding, Pos: positionAt(s, off), What: "the bytes here are not UTF-8: send the document in UTF-8, or name its encoding"}
	}
	return s, utf8Encoding, nil
}

func decode16(b []byte, big bool) (string, encoding, *Error) {
	var out strings.Builder
	out.Grow(len(b)/2 + len(b)/8)
	bad := func() (string, encoding, *Error) {
		s := out.String()
		return "", 0, &Error{Reason: Encoding, Pos: positionAt(s, len(s)), What: "the bytes here are not UTF-16"}
	}
	unit := func(i int) rune {
		if big {
			return rune(b[i])<<8 | rune(b[i+1])
		}
		return rune(b[i+1])<<8 | rune(b[i])
	}
	for i := 0; i < len(b); i += 2 {
		if i+1 >= len(b) {
			return bad()
		}
		r := unit(i)
		if utf16.IsSurrogate(r) {
			if i+3 >= len(b) {
				return bad()
			}
			if r = utf16.DecodeRune(r, unit(i+2)); r == utf8.RuneError {
				return bad()
			}
			i += 2
		}
		out.WriteRune(r)
	}
	return out.String(), utf16Encoding, nil
}
