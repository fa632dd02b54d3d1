package agreement

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
)

// Type is what kind of value an expression has.
type Type string

// The types.
const (
	Number   Type = "number"
	Duration Type = "duration"
	DateTime Type = "dateTime"
	String   Type = "string"
	Boolean  Type = "boolean"
)

// ordered types have a smaller and a greater.
func (t Type) ordered() bool { return t == Number || t == Duration || t == DateTime }

// Value is what is known of a value: nothing, bounds, or exactly what it is. The zero
// Value of a Type is not known at all.
type Value struct {
	Type Type
	// What ordered types lie between: numbers, seconds of a duration, or seconds since
	// 1970 of a dateTime.
	low, high end
	known     bool // text or truth is
	text      string
	truth     bool
}

// end is a bound of a value. The zero end is none.
type end struct {
	at   decimal.Decimal
	set  bool
	open bool // at itself is not meant
}

// Unknown is a value of the type that is not known.
func Unknown(t Type) Value { return Value{Type: t} }

// OfNumber gives a number.
func OfNumber(d decimal.Decimal) Value { return exactly(Number, d) }

// OfDuration gives a duration.
func OfDuration(d time.Duration) Value { return exactly(Duration, decimal.Seconds(d)) }

// OfTime gives a moment.
func OfTime(t time.Time) Value { return exactly(DateTime, decimal.Moment(t)) }

// OfString gives a text.
func OfString(s string) Value { return Value{Type: String, known: true, text: s} }

// OfBoolean gives true or false.
func OfBoolean(b bool) Value { return Value{Type: Boolean, known: true, truth: b} }

func exactly(t Type, d decimal.Decimal) Value {
	return Value{Type: t, low: end{at: d, set: true}, high: end{at: d, set: true}}
}

// OrMore is what will be v or greater, of an ordered type; v is known exactly.
func (v Value) OrMore() Value {
	v.high = end{}
	return v
}

// More is what will be greater than v, of an ordered type; v is known exactly.
func (v Value) More() Value {
	v.low.open = v.low.set
	v.high = end{}
	return v
}

// UpTo is what will be from v to w, both of the same ordered type and known exactly.
func (v Value) UpTo(w Value) Value {
	v.high = w.high
	return v
}

// exact gives the one value that an ordered type has.
func (v Value) exact() (decimal.Decimal, bool) {
	return v.low.at, v.low.set && v.high.set && v.low.at == v.high.at && !v.low.open && !v.high.open
}

// Known reports whether the value is known exactly.
func (v Value) Known() bool {
	if v.Type.ordered() {
		_, ok := v.exact()
		return ok
	}
	return v.known
}

// Number gives an exactly known number; false for what is not known or none.
func (v Value) Number() (decimal.Decimal, bool) {
	if v.Type != Number {
		return decimal.Decimal{}, false
	}
	return v.exact()
}

// Duration gives an exactly known duration.
func (v Value) Duration() (time.Duration, bool) {
	d, ok := v.exact()
	if !ok || v.Type != Duration {
		return 0, false
	}
	return d.Duration()
}

// Time gives an exactly known moment, in UTC.
func (v Value) Time() (time.Time, bool) {
	d, ok := v.exact()
	if !ok || v.Type != DateTime {
		return time.Time{}, false
	}
	return d.Time()
}

// Text gives a known string.
func (v Value) Text() (string, bool) { return v.text, v.known && v.Type == String }

// Truth gives what a condition is, and whether that is determined.
func (v Value) Truth() (is, determined bool) { return v.truth, v.known && v.Type == Boolean }

// lexical is the value as an element's text; "" where it is not known exactly.
func (v Value) lexical() string {
	switch d, ok := v.exact(); v.Type {
	case Number:
		if ok {
			return d.String()
		}
	case Duration:
		if ok {
			return durationText(d)
		}
	case DateTime:
		if t, fits := d.Time(); ok && fits {
			return t.Format(time.RFC3339Nano)
		}
	case String:
		return v.text
	case Boolean:
		if v.known {
			return strconv.FormatBool(v.truth)
		}
	}
	return ""
}

// String gives the value, or its bounds, in plain words: "10 minutes", "after
// 2026-11-29 14:00 UTC", "from 0.5 to 1".
func (v Value) String() string {
	if _, ok := v.exact(); !ok && v.Type.ordered() {
		low, high := exactly(v.Type, v.low.at), exactly(v.Type, v.high.at)
		moment := v.Type == DateTime
		switch {
		case v.low.set && v.high.set:
			return "from " + low.String() + " to " + high.String()
		case v.low.set && v.low.open && moment:
			return "after " + low.String()
		case v.low.set && v.low.open:
			return "more than " + low.String()
		case v.low.set && moment:
			return "no earlier than " + low.String()
		case v.low.set:
			return "at least " + low.String()
		case v.high.set && moment:
			return "no later than " + high.String()
		case v.high.set:
			return "at most " + high.String()
		}
	}
	d, ok := v.exact()
	switch {
	case !v.Known():
		return "not known"
	case v.Type == Duration && ok:
		return durationWords(d)
	case v.Type == DateTime && ok:
		t, fits := d.Time()
		switch {
		case !fits:
			return "outside of the years 1 to 9999"
		case t.Nanosecond() != 0:
			return t.Format("2006-01-02 15:04:05.999999999 UTC")
		case t.Second() != 0:
			return t.Format("2006-01-02 15:04:05 UTC")
		}
		return t.Format("2006-01-02 15:04 UTC")
	case v.Type == String:
		return strconv.Quote(v.text)
	}
	return v.lexical()
}

// spans are the parts of a duration, the larger first.
var spans = []struct {
	seconds int64
	word    string
	letter  string
}{{86400, "day", "D"}, {3600, "hour", "H"}, {60, "minute", "M"}, {1, "second", "S"}}

// inSpans gives how many of each span a duration has, as texts, "" where none, and
// whether it is below zero.
func inSpans(d decimal.Decimal) (parts [4]string, negative bool) {
	if negative = d.Sign() < 0; negative {
		d = d.Neg()
	}
	whole, fraction, _ := strings.Cut(d.String(), ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil { // more seconds than an int64 has: nothing that lasts
		return [4]string{3: d.String()}, negative
	}
	for i, s := range spans {
		if k := n / s.seconds; k > 0 {
			parts[i] = strconv.FormatInt(k, 10)
		}
		n %= s.seconds
	}
	if fraction != "" {
		if parts[3] == "" {
			parts[3] = "0"
		}
		parts[3] += "." + fraction
	}
	return parts, negative
}

// FormatDuration writes an xs:duration that ParseDuration reads.
func FormatDuration(d time.Duration) string { return durationText(decimal.Seconds(d)) }

func durationText(d decimal.Decimal) string {
	parts, negative := inSpans(d)
	s := "P"
	for i, p := range parts {
		if i == 1 && parts[1]+parts[2]+parts[3] != "" {
			s += "T"
		}
		if p != "" {
			s += p + spans[i].letter
		}
	}
	if s == "P" {
		s = "PT0S"
	}
	if negative {
		s = "-" + s
	}
	return s
}

func durationWords(d decimal.Decimal) string {
	parts, negative := inSpans(d)
	var words []string
	for i, p := range parts {
		switch p {
		case "":
		case "1":
			words = append(words, "1 "+spans[i].word)
		default:
			words = append(words, p+" "+spans[i].word+"s")
		}
	}
	switch {
	case words == nil:
		return "0 seconds"
	case negative:
		return "minus " + strings.Join(words, " ")
	}
	return strings.Join(words, " ")
}

var (
	durationPattern = regexp.MustCompile(`^(-?)P(?:([0-9]{1,9})D)?(?:(T)(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,12}(?:\.[0-9]{1,9})?)S)?)?$`)
	dateTimePattern = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+\-](0[0-9]|1[0-3]):[0-5][0-9]|[+\-]14:00)$`)
)

// ParseDuration reads an xs:duration of days, hours, minutes and seconds: years and
// months have no length that is always the same. fail.Invalid says what to write.
func ParseDuration(s string) (time.Duration, error) {
	m := durationPattern.FindStringSubmatch(s)
	if m == nil || m[2]+m[3] == "" || m[3] != "" && m[4]+m[5]+m[6] == "" {
		return 0, fail.Errorf("agreement.ParseDuration", fail.Invalid, s, "%.40q is no duration: write one such as PT10M or P1DT12H, of days, hours, minutes and seconds", s)
	}
	sum := decimal.Decimal{}
	for i, span := range map[int]int{2: 0, 4: 1, 5: 2, 6: 3} {
		if m[i] == "" {
			continue
		}
		n, err := decimal.Parse(m[i])
		if err != nil {
			return 0, err
		}
		// At most 21 digits: neither can be too large.
		n, _ = n.Mul(decimal.New(spans[span].seconds))
		sum, _ = sum.Add(n)
	}
	if m[1] != "" {
		sum = sum.Neg()
	}
	d, ok := sum.Duration()
	if !ok {
		return 0, fail.Errorf("agreement.ParseDuration", fail.Invalid, s, "%.40q is longer than the 292 years that a duration may last", s)
	}
	return d, nil
}

// parseValue reads the text of a p:Value.
func parseValue(t Type, s string) (Value, error) {
	switch t {
	case Number:
		d, err := decimal.Parse(s)
		return OfNumber(d), err
	case Duration:
		d, err := ParseDuration(s)
		return OfDuration(d), err
	case DateTime:
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || !dateTimePattern.MatchString(s) || at.UTC().Year() < 1 || at.UTC().Year() > 9999 {
			return Value{}, fail.Errorf("agreement.ParseExpression", fail.Invalid, s, "%.40q is no time with its time zone: write one such as 2026-01-31T18:00:00Z or 2026-01-31T18:00:00+01:00", s)
		}
		return OfTime(at), nil
	case Boolean:
		switch s {
		case "true", "1":
			return OfBoolean(true), nil
		case "false", "0":
			return OfBoolean(false), nil
		}
		return Value{}, fail.Errorf("agreement.ParseExpression", fail.Invalid, s, "%.40q is neither true nor false", s)
	case String:
	}
	return OfString(s), nil
}
