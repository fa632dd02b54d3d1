package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-6+1e-9*max(math.Abs(a), math.Abs(b)) }

// TestLedger compares with a list of all that was used, in any order, and through
// Encode, Merge and Keep.
func TestLedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		halfLives := []time.Duration{time.Hour, 36 * time.Hour}
		type charge struct {
			group  string
			amount float64
			at     time.Time
		}
		charges := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) charge {
			return charge{
				rapid.SampledFrom([]string{"vo:bio", "user:ann", "user:/CN=\"x\" ü"}).Draw(t, "group"),
				rapid.Float64Range(1, 1e6).Draw(t, "amount"), epoch.Add(time.Duration(rapid.IntRange(0, 100_000).Draw(t, "at")) * time.Second),
			}
		}), 1, 40).Draw(t, "charges")
		ledgers := [2]*Ledger{}
		for i := range ledgers {
			var err error
			if ledgers[i], err = NewLedger(halfLives...); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range charges {
			ledgers[i%2].Add(c.group, c.amount, c.at)
		}
		l := ledgers[0]
		l.Merge(ledgers[1])
		if rapid.Bool().Draw(t, "stored") {
			parts, err := l.Encode(rapid.SampledFrom([]int{200, 1 << 20}).Draw(t, "limit"))
			if err != nil {
				t.Fatal(err)
			}
			if l, err = DecodeLedger(parts...); err != nil {
				t.Fatal(err)
			}
		}
		now := epoch.Add(time.Duration(rapid.IntRange(0, 200_000).Draw(t, "now")) * time.Second)
		for _, g := range []string{"vo:bio", "user:ann", "user:/CN=\"x\" ü", "vo:none"} {
			for _, h := range halfLives {
				want := 0.0
				for _, c := range charges {
					if c.group == g {
						want += c.amount * math.Exp2(-now.Sub(c.at).Hours()/h.Hours())
					}
				}
				// What is below forgotten may be so.
				if got := l.Used(g, now, h); !near(got, want) && math.Abs(got-want) > 2*forgotten {
					t.Fatalf("%s used %v by %v, want %v", g, got, h, want)
				}
			}
		}
	})
}

func TestLedgerTakesBack(t *testing.T) {
	l, err := NewLedger(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l.Add("user:ann", 3600, epoch)
	l.Add("user:ann", 5, epoch.Add(3*time.Hour))
	l.Add("user:ann", -3600, epoch) // it ended at once
	if got := l.Used("user:ann", epoch.Add(3*time.Hour), time.Hour); !near(got, 5) {
		t.Errorf("%v is left, want 5", got)
	}
	l.Add("user:ann", -50, epoch.Add(3*time.Hour))
	if got := l.Used("user:ann", epoch.Add(3*time.Hour), time.Hour); got != 0 {
		t.Errorf("%v used, and it can't be less than nothing", got)
	}
	l.Add("user:ann", math.NaN(), epoch)
	l.Add("", 7, epoch)
	if g := l.Groups(); len(g) != 1 {
		t.Errorf("%v", g)
	}
}

// TestLedgerKeep: with steady use, a new half-life is right at once.
func TestLedgerKeep(t *testing.T) {
	l, err := NewLedger(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewLedger(3 * time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now := epoch
	for range 10_000 {
		l.Add("vo:bio", 60, now)
		other.Add("vo:bio", 60, now)
		now = now.Add(time.Minute)
	}
	before := l.Used("vo:bio", now, 3*time.Hour)
	if err := l.Keep(3*time.Hour, 20*time.Hour); err != nil {
		t.Fatal(err)
	}
	got, want := l.Used("vo:bio", now, 3*time.Hour), other.Used("vo:bio", now, 3*time.Hour)
	if math.Abs(before-got)/want > 0.01 || math.Abs(got-want)/want > 0.01 {
		t.Errorf("used %v, and %v before; a ledger that always kept it has %v", got, before, want)
	}
	for _, bad := range [][]time.Duration{{0}, {-1}, {1, 2, 3, 4, 5, 6, 7, 8, 9}, {}} {
		if err := l.Keep(bad...); !fail.Is(err, fail.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestLedgerBounds(t *testing.T) {
	l, err := NewLedger(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for i := range MaxAccounts + 10 {
		l.Add(fmt.Sprint("user:", i), float64(i+1), epoch)
	}
	if n := len(l.Groups()); n > MaxAccounts || n < MaxAccounts*8/10 {
		t.Errorf("%d groups are kept", n)
	}
	if l.Used(fmt.Sprint("user:", MaxAccounts), epoch, time.Hour) == 0 {
		t.Error("the one that used the most is forgotten")
	}
	parts, err := l.Encode(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if len(p) > 1<<20 {
			t.Errorf("a part has %d bytes", len(p))
		}
	}
	l.Add("user:late", 1, epoch.Add(200*time.Hour))
	if n := len(l.Groups()); n != 1 {
		t.Errorf("%d groups are kept of long ago", n)
	}
	if _, err := l.Encode(10); !fail.Is(err, fail.Exhausted) {
		t.Errorf("%v", err)
	}
}

func FuzzDecodeLedger(f *testing.F) {
	f.Add([]byte(`{"halfLives":[3600],"at":"2026-03-01T12:00:00Z","used":{"vo:bio":[1.5]}}`))
	f.Add([]byte(`{"halfLives":[3600,7200],"at":"9999-03-01T12:00:00Z","used":{"vo:bio":[1e308,-1]}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := DecodeLedger(text)
		if err != nil {
			return
		}
		for _, g := range l.Groups() {
			if x := l.Used(g, epoch, l.HalfLives()[0]); math.IsNaN(x) || x < 0 {
				t.Fatalf("%s used %v", g, x)
			}
		}
		parts, err := l.Encode(1 << 20)
		if err != nil {
			return
		}
		if _, err := DecodeLedger(parts...); err != nil {
			t.Fatalf("what it encodes can't be decoded: %v", err)
		}
	})
}
