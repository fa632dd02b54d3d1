package wire

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// mode is what a visit is for.
type mode uint8

const (
	writing mode = iota
	reading
	weighing
	describing
)

// visit goes over the fields of a message. A field that has its zero value is not
// written, and one that is not there is zero: a field is required where its bounds
// don't allow zero. Scalars are attributes, the rest are child elements in order.
type visit struct {
	mode mode
	err  *error // the first; one for the whole message

	e     *etree.Element   // written, or nil to hold against the bounds alone; or read
	doc   *xmldoc.Document // read: for places; may be nil
	kids  []*etree.Element // read: those not yet taken
	known []string         // read: names of attributes that were asked for
	size  *int             // weighed
	d     *Type            // described
}

// form says which characters a string takes.
type form uint8

const (
	line   form = iota // any but controls
	word               // printable ASCII without blanks
	domain             // a word without slashes
	free               // any that XML has
)

func (f form) takes(s string) bool {
	for i := range len(s) { // ASCII, as nearly all is, needs no decoding
		switch c := s[i]; {
		case c > ' ' && c < 0x7f && (c != '/' || f != domain):
		case c == ' ' && (f == line || f == free), (c == '\t' || c == '\n' || c == '\r') && f == free:
		default:
			return f.takesRunes(s)
		}
	}
	return true
}

func (f form) takesRunes(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		switch f {
		case word:
			return r <= ' ' || r >= 0x7f
		case domain:
			return r <= ' ' || r >= 0x7f || r == '/'
		case line:
			return r < ' ' || r == 0x7f || r == 0xfffe || r == 0xffff
		case free:
		}
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff || r == 0xfffd
	})
}

func (f form) String() string {
	switch f {
	case word:
		return "printable ASCII without blanks"
	case domain:
		return "printable ASCII without blanks and slashes"
	case line:
		return "one line"
	case free:
	}
	return "text"
}

func (v *visit) failed() bool { return *v.err != nil }

// wrong notes the first thing that is wrong with a field.
func (v *visit) wrong(name, format string, args ...any) {
	if v.failed() {
		return
	}
	path := "/" + name
	if v.e != nil {
		path = v.e.Tag + path
	}
	sentence := fail.Errorf("wire", fail.Invalid, path, format, args...).Public
	if v.doc != nil {
		path = strings.TrimPrefix(v.doc.Path(v.e), "/Envelope/Body") + "/" + name
		*v.err = fail.Errorf("wire.Decode", fail.Invalid, path, "line %s: %s %s", v.doc.Position(v.e), path, sentence)
		return
	}
	*v.err = fail.Errorf("wire.Encode", fail.Invalid, path, "%s %s", path, sentence)
}

// check notes what a message says about its fields together.
func (v *visit) check(ok bool, name, format string, args ...any) {
	if (v.mode == writing || v.mode == reading) && !ok {
		v.wrong(name, format, args...)
	}
}

// str is an attribute of at least lo and at most hi bytes, none of them unless lo is
// more than zero.
func str[T ~string](v *visit, name string, p *T, lo, hi int, f form, meaning string) {
	switch v.mode {
	case reading:
		*p = T(strings.Clone(v.attr(name)))
		v.fits(name, string(*p), lo, hi, f)
	case writing:
		v.fits(name, string(*p), lo, hi, f)
		v.set(name, string(*p))
	case weighing:
		v.weigh(name, len(*p))
	case describing:
		v.describe(Field{Name: name, Kind: "string", Low: int64(lo), High: int64(hi), Form: f.String(), Required: lo > 0, Meaning: meaning})
	}
}

func (v *visit) fits(name, s string, lo, hi int, f form) {
	switch {
	case s == "" && lo > 0:
		v.wrong(name, "is missing; it takes %d to %d bytes, %s", lo, hi, f)
	case len(s) < lo || len(s) > hi:
		v.wrong(name, "has %d bytes; it takes %d to %d", len(s), lo, hi)
	case !f.takes(s):
		v.wrong(name, "has a character that it does not take; it takes %s", f)
	}
}

// enum is an attribute with one of some values; one that is not required may be "".
func enum[T ~string](v *visit, name string, p *T, required bool, meaning string, values ...T) {
	if v.mode == describing {
		f := Field{Name: name, Kind: "enum", Required: required, Meaning: meaning}
		for _, x := range values {
			f.Values = append(f.Values, string(x))
		}
		v.describe(f)
		return
	}
	if v.mode == reading {
		*p = T(strings.Clone(v.attr(name)))
	}
	if v.mode == weighing {
		v.weigh(name, len(*p))
		return
	}
	if (*p != "" || required) && !slices.Contains(values, *p) {
		v.wrong(name, "is %s; it takes one of %s", shown(string(*p)), joined(values))
	}
	if v.mode == writing {
		v.set(name, string(*p))
	}
}

func joined[T ~string](values []T) string {
	var b strings.Builder
	for i, x := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(x))
	}
	return b.String()
}

// num is an attribute with a whole number.
func num[T ~int | ~int64 | ~uint64 | ~uint32 | ~uint8](v *visit, name string, p *T, lo, hi int64, meaning string) {
	if v.mode == describing {
		v.describe(Field{Name: name, Kind: "integer", Low: lo, High: hi, Required: lo > 0 || hi < 0, Meaning: meaning})
		return
	}
	if n := v.number(name, int64(*p), lo, hi); n != int64(*p) {
		*p = T(n)
	}
}

// span is an attribute with a time in milliseconds.
func span(v *visit, name string, p *time.Duration, lo, hi time.Duration, meaning string) {
	if v.mode == describing {
		v.describe(Field{Name: name, Kind: "milliseconds", Low: lo.Milliseconds(), High: hi.Milliseconds(), Required: lo > 0, Meaning: meaning})
		return
	}
	if n := v.number(name, p.Milliseconds(), lo.Milliseconds(), hi.Milliseconds()); v.mode == reading {
		*p = time.Duration(n) * time.Millisecond
	}
}

// when is an attribute with a moment.
func when(v *visit, name string, p *time.Time, required bool, meaning string) {
	switch v.mode {
	case reading:
		if s := v.attr(name); s != "" {
			t, err := time.Parse(time.RFC3339Nano, s)
			if err != nil || !strings.HasSuffix(s, "Z") || t.Year() < 1970 || t.IsZero() {
				v.wrong(name, "is %s; it takes a moment in UTC from 1970 to 9999, such as 2026-01-02T03:04:05.678Z", shown(s))
			}
			*p = t
		}
		fallthrough
	case writing:
		if required && p.IsZero() {
			v.wrong(name, "is missing; it takes a moment in UTC")
		}
		if v.mode == writing && !p.IsZero() {
			if y := p.UTC().Year(); y < 1970 || y > 9999 {
				v.wrong(name, "is in the year %d; it takes a moment from 1970 to 9999", y)
			}
			if v.e != nil {
				v.set(name, p.UTC().Format(time.RFC3339Nano))
			}
		}
	case weighing:
		v.weigh(name, 30)
	case describing:
		v.describe(Field{Name: name, Kind: "moment", Required: required, Meaning: meaning})
	}
}

// yes is an attribute that is true or, as a rule by not being there, false.
func yes(v *visit, name string, p *bool, meaning string) {
	switch v.mode {
	case reading:
		switch s := v.attr(name); s {
		case "", "false", "0":
		case "true", "1":
			*p = true
		default:
			v.wrong(name, "is %s; it takes true or false", shown(s))
		}
	case writing:
		if *p {
			v.set(name, "true")
		}
	case weighing:
		v.weigh(name, 4)
	case describing:
		v.describe(Field{Name: name, Kind: "boolean", Meaning: meaning})
	}
}

// text is a child element with text.
func text[T ~string](v *visit, name string, p *T, lo, hi int, meaning string) {
	switch v.mode {
	case reading:
		if c := v.single(name); c != nil {
			*p = T(strings.Clone(v.content(c)))
		}
		v.fits(name, string(*p), lo, hi, free)
	case writing:
		v.fits(name, string(*p), lo, hi, free)
		if *p != "" {
			v.leaf(name, string(*p))
		}
	case weighing:
		v.weigh(name, len(*p)+len(name))
	case describing:
		v.describe(Field{Name: name, Kind: "text", Low: int64(lo), High: int64(hi), Least: min(lo, 1), Most: 1, Required: lo > 0, Meaning: meaning})
	}
}

// data is a child element with bytes in base64.
func data(v *visit, name string, p *[]byte, lo, hi int, meaning string) {
	switch v.mode {
	case reading:
		if c := v.single(name); c != nil {
			*p = v.bytes(name, v.content(c))
		}
		fallthrough
	case writing:
		if len(*p) < lo || len(*p) > hi {
			v.wrong(name, "has %d bytes; it takes %d to %d", len(*p), lo, hi)
		}
		if v.mode == writing && v.e != nil && len(*p) > 0 {
			v.leaf(name, base64Of(*p))
		}
	case weighing:
		v.weigh(name, len(*p)*4/3+len(name))
	case describing:
		v.describe(Field{Name: name, Kind: "base64", Low: int64(lo), High: int64(hi), Least: min(lo, 1), Most: 1, Required: lo > 0, Meaning: meaning})
	}
}

// words are child elements with a string each, lo to hi of them.
func words[T ~string](v *visit, name string, p *[]T, lo, hi, bytes int, f form, meaning string) {
	if v.mode == describing {
		v.describe(Field{Name: name, Kind: "string", Low: 1, High: int64(bytes), Form: f.String(), Least: lo, Most: hi, Required: lo > 0, Meaning: meaning})
		return
	}
	if v.mode == reading {
		for c := v.take(name); c != nil && len(*p) <= hi; c = v.take(name) {
			*p = append(*p, T(strings.Clone(v.content(c))))
		}
	}
	if v.mode != weighing && (len(*p) < lo || len(*p) > hi) {
		v.wrong(name, "stands here %d times; it may %d to %d times", len(*p), lo, hi)
		return
	}
	for _, s := range *p {
		if v.mode == weighing {
			v.weigh(name, len(s)+len(name))
			continue
		}
		v.fits(name, string(s), 1, bytes, f)
		if v.mode == writing {
			v.leaf(name, string(s))
		}
	}
}

// list are child elements with fields of their own, lo to hi of them.
func list[T any](v *visit, name string, p *[]T, lo, hi int, fields func(*visit, *T), meaning string) {
	switch v.mode {
	case describing:
		v.describeType(Field{Name: name, Least: lo, Most: hi, Required: lo > 0, Meaning: meaning}, func(v *visit) { fields(v, new(T)) })
		return
	case reading:
		for c := v.take(name); c != nil && len(*p) <= hi && !v.failed(); c = v.take(name) {
			var x T
			v.read(c, func(v *visit) { fields(v, &x) })
			*p = append(*p, x)
		}
	case writing, weighing:
		for i := range *p {
			if v.failed() || i > hi {
				break
			}
			v.write(name, func(v *visit) { fields(v, &(*p)[i]) })
		}
	}
	if v.mode != weighing && (len(*p) < lo || len(*p) > hi) {
		v.wrong(name, "stands here %d times; it may %d to %d times", len(*p), lo, hi)
	}
}

// one is a child element with fields of its own; it must be there.
func one[T any](v *visit, name string, p *T, fields func(*visit, *T), meaning string) {
	switch v.mode {
	case describing:
		v.describeType(Field{Name: name, Least: 1, Most: 1, Required: true, Meaning: meaning}, func(v *visit) { fields(v, p) })
	case reading:
		c := v.single(name)
		if c == nil {
			v.wrong(name, "is missing")
			return
		}
		v.read(c, func(v *visit) { fields(v, p) })
	case writing, weighing:
		v.write(name, func(v *visit) { fields(v, p) })
	}
}

// maybe is a child element with fields of its own; nil where it is not there.
func maybe[T any](v *visit, name string, p **T, fields func(*visit, *T), meaning string) {
	switch v.mode {
	case describing:
		v.describeType(Field{Name: name, Most: 1, Meaning: meaning}, func(v *visit) { fields(v, new(T)) })
	case reading:
		if c := v.single(name); c != nil {
			*p = new(T)
			v.read(c, func(v *visit) { fields(v, *p) })
		}
	case writing, weighing:
		if *p != nil {
			v.write(name, func(v *visit) { fields(v, *p) })
		}
	}
}
