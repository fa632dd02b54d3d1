package decimal

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "+1.50": "1.5", ".5": "0.5", "5.": "5", "-0.000000001": "-0.000000001", "007": "7",
		"999999999999999999999999.999999999": "999999999999999999999999.999999999", "1.000000000000": "1",
	} {
		d, err := Parse(in)
		if err != nil || d.String() != want {
			t.Errorf("%q is %v (%v), want %s", in, d, err, want)
		}
	}
	for _, in := range []string{"", ".", "-", "1e3", "NaN", "0x1", "1_0", " 1", "1,5", "1.2.3", "--1", "0.0000000001", "1" + strings.Repeat("0", 24), "٣"} {
		if d, err := Parse(in); err == nil {
			t.Errorf("%q was read as %v", in, d)
		}
	}
}

// number draws from all that can be held, the bounds often.
func number() *rapid.Generator[Decimal] {
	return rapid.Custom(func(t *rapid.T) Decimal {
		s := rapid.StringMatching(`-?[0-9]{1,24}(\.[0-9]{1,9})?`).Draw(t, "number")
		if rapid.IntRange(0, 9).Draw(t, "bound") == 0 {
			s = rapid.SampledFrom([]string{"999999999999999999999999.999999999", "-999999999999999999999999.999999999", "0", "1", "-1", "18446744073.709551616", "-18446744073.709551616"}).Draw(t, "at")
		}
		d, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

// TestAgainstBig: each operation gives what unbounded numbers give, or says that it can't.
func TestAgainstBig(t *testing.T) {
	scale := new(big.Rat).SetInt(unit)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number().Draw(t, "a"), number().Draw(t, "b")
		ra, rb := new(big.Rat).Quo(new(big.Rat).SetInt(a.big()), scale), new(big.Rat).Quo(new(big.Rat).SetInt(b.big()), scale)
		if a.Cmp(b) != ra.Cmp(rb) || a.Sign() != ra.Sign() || (a.Cmp(b) == 0) != (a == b) {
			t.Fatalf("%v and %v do not compare as they should", a, b)
		}
		if back, err := Parse(a.String()); err != nil || back != a {
			t.Fatalf("%v is read back as %v (%v)", a, back, err)
		}
		check := func(op string, got Decimal, ok bool, want *big.Rat, exact bool) {
			scaled := new(big.Rat).Mul(want, scale)
			diff := new(big.Rat).Sub(new(big.Rat).SetInt(got.big()), scaled)
			diff.Abs(diff)
			large := new(big.Rat).Abs(scaled).Cmp(new(big.Rat).SetInt(bound)) >= 0
			switch {
			case !ok && !large && new(big.Rat).Sub(new(big.Rat).SetInt(bound), new(big.Rat).Abs(scaled)).Cmp(big.NewRat(1, 1)) > 0:
				t.Fatalf("%v %s %v is said not to be held", a, op, b)
			case ok && (large || diff.Cmp(big.NewRat(1, 2)) > 0 || exact && diff.Sign() != 0):
				t.Fatalf("%v %s %v is %v, want %s", a, op, b, got, want.FloatString(Places))
			}
		}
		sum, ok := a.Add(b)
		check("+", sum, ok, new(big.Rat).Add(ra, rb), true)
		diff, ok := a.Sub(b)
		check("-", diff, ok, new(big.Rat).Sub(ra, rb), true)
		p, ok := a.Mul(b)
		check("·", p, ok, new(big.Rat).Mul(ra, rb), false)
		if b.Sign() == 0 {
			if _, ok := a.Div(b); ok {
				t.Fatal("something was divided by zero")
			}
			return
		}
		q, ok := a.Div(b)
		check("/", q, ok, new(big.Rat).Quo(ra, rb), false)
	})
}

func TestHalvesGoToTheEven(t *testing.T) {
	for in, want := range map[string]string{"0.000000001": "0", "0.000000003": "0.000000002", "-0.000000003": "-0.000000002", "-0.000000001": "0", "0.000000005": "0.000000002"} {
		d, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := d.Div(New(2)); got.String() != want {
			t.Errorf("half of %s is %v, want %s", in, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64().Draw(t, "duration"))
		if got, ok := Seconds(d).Duration(); !ok || got != d {
			t.Fatalf("%v came back as %v", d, got)
		}
		at := time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(t, "second"), rapid.Int64Range(0, 999999999).Draw(t, "nanosecond")).UTC()
		if got, ok := Moment(at).Time(); !ok || !got.Equal(at) {
			t.Fatalf("%v came back as %v", at, got)
		}
	})
	if _, ok := New(1 << 40).Duration(); ok {
		t.Error("a duration of 30000 years was told")
	}
	if _, ok := New(1 << 40).Time(); ok {
		t.Error("a moment after the year 9999 was told")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"1.5", "-0.000000001", "+", "1e9", "999999999999999999999999.999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(d.String()); err != nil || again != d {
			t.Fatalf("%q is %v, and that %v (%v)", s, d, again, err)
		}
	})
}
