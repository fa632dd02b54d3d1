// Package decimal has exact numbers for what is counted and paid: nine places after
// the point, 24 digits before it. Sums and differences are exact; products and
// quotients are rounded to the ninth place, a half to the even neighbour.
package decimal

import (
	"math/big"
	"math/bits"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Places is how many digits stand after the point at most.
const Places = 9

// Digits is how many stand before it at most.
const Digits = 24

// Decimal is a number; its zero value is 0, and == compares.
type Decimal struct {
	hi int64 // the number times 10^Places, as two's complement of 128 bits
	lo uint64
}

var (
	unit  = new(big.Int).Exp(big.NewInt(10), big.NewInt(Places), nil)
	bound = new(big.Int).Exp(big.NewInt(10), big.NewInt(Places+Digits), nil) // the first that is too large
)

// New gives a whole number.
func New(n int64) Decimal {
	d, _ := fromBig(new(big.Int).Mul(big.NewInt(n), unit)) // an int64 is within the bound
	return d
}

// Seconds gives a duration in seconds, exactly.
func Seconds(d time.Duration) Decimal { return nano(int64(d)) }

// Moment gives the seconds since 1970 began, exactly.
func Moment(t time.Time) Decimal {
	b := new(big.Int).Mul(big.NewInt(t.Unix()), unit)
	d, _ := fromBig(b.Add(b, big.NewInt(int64(t.Nanosecond()))))
	return d
}

// Duration is what Seconds was made of; false if it is longer than can be told.
func (d Decimal) Duration() (time.Duration, bool) {
	n := int64(d.lo)
	return time.Duration(n), d.hi == n>>63
}

// Time is what Moment was made of, in UTC; false outside the years 1 to 9999.
func (d Decimal) Time() (time.Time, bool) {
	s, n := new(big.Int).DivMod(d.big(), unit, new(big.Int))
	if !s.IsInt64() || s.Int64() < -62135596800 || s.Int64() > 253402300799 {
		return time.Time{}, false
	}
	return time.Unix(s.Int64(), n.Int64()).UTC(), true
}

func nano(n int64) Decimal { return Decimal{n >> 63, uint64(n)} }

func (d Decimal) big() *big.Int {
	b := new(big.Int).Lsh(big.NewInt(d.hi), 64)
	return b.Add(b, new(big.Int).SetUint64(d.lo))
}

func fromBig(b *big.Int) (Decimal, bool) {
	if b.CmpAbs(bound) >= 0 {
		return Decimal{}, false
	}
	hi := new(big.Int).Rsh(b, 64) // rounds down, as two's complement does
	lo := new(big.Int).Sub(b, new(big.Int).Lsh(hi, 64))
	return Decimal{hi.Int64(), lo.Uint64()}, true
}

// Parse reads digits with at most one point and a sign (xs:decimal), whose value can
// be held exactly: fail.Invalid else.
func Parse(s string) (Decimal, error) {
	bad := func(why string) (Decimal, error) {
		return Decimal{}, fail.Errorf("decimal.Parse", fail.Invalid, s, "%.40q %s: write a number such as 12.5, of at most %d digits before the point and %d after it", s, why, Digits, Places)
	}
	digits, negative := s, false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		digits, negative = s[1:], s[0] == '-'
	}
	whole, part, _ := strings.Cut(digits, ".")
	if whole+part == "" || strings.Trim(whole+part, "0123456789") != "" {
		return bad("is no number")
	}
	whole, part = strings.TrimLeft(whole, "0"), strings.TrimRight(part, "0")
	switch {
	case len(whole) > Digits:
		return bad("is too large")
	case len(part) > Places:
		return bad("is too exact")
	}
	b, ok := new(big.Int).SetString("0"+whole+part+strings.Repeat("0", Places-len(part)), 10)
	if !ok {
		return bad("is no number")
	}
	if negative {
		b.Neg(b)
	}
	d, _ := fromBig(b)
	return d, nil
}

// String gives the shortest text that Parse reads the same number from.
func (d Decimal) String() string {
	b := d.big()
	sign := ""
	if b.Sign() < 0 {
		sign = "-"
		b.Neg(b)
	}
	s := b.String()
	if len(s) <= Places {
		s = strings.Repeat("0", Places+1-len(s)) + s
	}
	whole, part := s[:len(s)-Places], strings.TrimRight(s[len(s)-Places:], "0")
	if part == "" {
		return sign + whole
	}
	return sign + whole + "." + part
}

// MarshalText implements encoding.TextMarshaler.
func (d Decimal) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Decimal) UnmarshalText(b []byte) (err error) {
	*d, err = Parse(string(b))
	return err
}

// Sign is -1, 0 or 1.
func (d Decimal) Sign() int {
	switch {
	case d.hi < 0:
		return -1
	case d == Decimal{}:
		return 0
	}
	return 1
}

// Cmp is -1 if d is less than e, 0 if it is the same, 1 if it is greater.
func (d Decimal) Cmp(e Decimal) int {
	switch {
	case d == e:
		return 0
	case d.hi < e.hi || d.hi == e.hi && d.lo < e.lo:
		return -1
	}
	return 1
}

// Neg gives -d.
func (d Decimal) Neg() Decimal {
	lo, carry := bits.Add64(^d.lo, 1, 0)
	return Decimal{^d.hi + int64(carry), lo}
}

// Add gives d+e; false if that is too large.
func (d Decimal) Add(e Decimal) (Decimal, bool) {
	lo, carry := bits.Add64(d.lo, e.lo, 0)
	sum := Decimal{d.hi + e.hi + int64(carry), lo} // both are below 2^110: this can't overflow
	return sum, sum.held()
}

// Sub gives d-e; false if that is too large.
func (d Decimal) Sub(e Decimal) (Decimal, bool) { return d.Add(e.Neg()) }

var most, _ = fromBig(new(big.Int).Sub(bound, big.NewInt(1)))

func (d Decimal) held() bool { return d.Cmp(most) <= 0 && d.Cmp(most.Neg()) >= 0 }

// Mul gives d·e, rounded; false if that is too large.
func (d Decimal) Mul(e Decimal) (Decimal, bool) {
	return fromBig(round(new(big.Int).Mul(d.big(), e.big()), unit))
}

// Div gives d/e, rounded; false if e is 0 or the quotient too large.
func (d Decimal) Div(e Decimal) (Decimal, bool) {
	if e.Sign() == 0 {
		return Decimal{}, false
	}
	return fromBig(round(new(big.Int).Mul(d.big(), unit), e.big()))
}

// round gives a/b to the nearest whole number, a half to the even one.
func round(a, b *big.Int) *big.Int {
	q, r := new(big.Int).QuoRem(a, b, new(big.Int))
	r.Abs(r).Lsh(r, 1)
	if c := r.CmpAbs(b); c > 0 || c == 0 && q.Bit(0) == 1 {
		if a.Sign()*b.Sign() < 0 {
			return q.Sub(q, big.NewInt(1))
		}
		return q.Add(q, big.NewInt(1))
	}
	return q
}
