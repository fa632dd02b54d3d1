package handover

import (
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
)

// Bounds of names.
const (
	MaxDomain = 255 // bytes
	MaxID     = 256 // bytes
)

// Key names a job in all gateways: the domain where it was submitted and its id there.
// It is chosen once and travels with the job.
type Key struct {
	Origin string `json:"origin"`
	ID     string `json:"id"`
}

func (k Key) String() string { return k.Origin + "/" + k.ID }

// Check gives fail.Invalid for a key that names nothing.
func (k Key) Check() error {
	if err := checkDomain(k.Origin); err != nil {
		return err
	}
	if k.ID == "" || len(k.ID) > MaxID || !printable(k.ID) {
		return fail.Errorf("handover.Key", fail.Invalid, k.Origin, "the job's id must be 1 to %d printable bytes without blanks", MaxID)
	}
	return nil
}

func checkDomain(d string) error {
	if d == "" || len(d) > MaxDomain || !printable(d) || strings.Contains(d, "/") {
		return fail.Errorf("handover.Key", fail.Invalid, "", "a domain's name must be 1 to %d printable bytes without blanks and slashes", MaxDomain)
	}
	return nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// Token is the fencing token: the number of the attempt at each hop, the origin's first,
// "2.1.1". The origin's next attempt is higher than all that anybody made of the last
// one, without anybody being asked. "" is before all.
type Token string

// MaxToken bounds the hops of a token.
const MaxToken = MaxPath

// Next gives the token of the n-th attempt by who holds t; n begins with 1.
func (t Token) Next(n uint32) Token {
	s := strconv.FormatUint(uint64(n), 10)
	if t == "" {
		return Token(s)
	}
	return t + "." + Token(s)
}

// Check gives fail.Invalid for what is no token, or not in the one form that each has.
func (t Token) Check() error {
	if strings.Count(string(t), ".") < MaxToken {
		if numbers := t.numbers(); len(numbers) > 0 && t == join(numbers) && !slices.Contains(numbers, 0) {
			return nil
		}
	}
	return fail.Errorf("handover.Token", fail.Invalid, "", "the token must be 1 to %d whole numbers from 1 to 4294967295, joined by dots", MaxToken)
}

// Compare orders tokens that are right: number by number, and what continues another
// after it.
func (t Token) Compare(o Token) int {
	return slices.Compare(t.numbers(), o.numbers())
}

func (t Token) numbers() []uint32 {
	if t == "" {
		return nil
	}
	var out []uint32
	for part := range strings.SplitSeq(string(t), ".") {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return nil
		}
		out = append(out, uint32(n))
	}
	return out
}

func join(numbers []uint32) Token {
	var t Token
	for _, n := range numbers {
		t = t.Next(n)
	}
	return t
}
