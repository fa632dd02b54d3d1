package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// Digest is SHA-256 of canonical bytes.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText gives it in hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads that.
func (d *Digest) UnmarshalText(b []byte) error {
	if n, err := hex.Decode(d[:], b); err != nil || n != len(d) || len(b) != 2*len(d) {
		return fail.Errorf("ledger.Digest", fail.Invalid, "", "a digest must be %d hexadecimal digits", 2*len(d))
	}
	return nil
}

// Pair names an account: what Provider did for Consumer.
type Pair struct {
	Provider string `json:"provider"`
	Consumer string `json:"consumer"`
}

func (p Pair) String() string { return p.Provider + " for " + p.Consumer }

// Statement is one claim of a provider. Number begins with 1 and has no gaps. It claims
// what was used under a job's token or, where Withdraws is not zero, takes the claim of
// that number back and has the same Key, Token, Outcome and Used.
type Statement struct {
	Pair
	Number    uint64           `json:"number"`
	Previous  Digest           `json:"previous"` // of the statement before; zero of the first
	Key       handover.Key     `json:"key"`
	Token     handover.Token   `json:"token"`
	Outcome   handover.Outcome `json:"outcome,omitempty"`
	Used      handover.CPUTime `json:"used"`
	Withdraws uint64           `json:"withdraws,omitempty"`
	Sum       handover.CPUTime `json:"sum"` // of all claims up to this one that were not withdrawn
	Issued    time.Time        `json:"issued"`
}

func (s Statement) String() string {
	what := "claims"
	if s.Withdraws > 0 {
		what = "withdraws " + strconv.FormatUint(s.Withdraws, 10) + ","
	}
	return s.Pair.String() + ", statement " + strconv.FormatUint(s.Number, 10) + ", " + what + " " + s.Used.String() + " for " + s.Key.String() + " under " + string(s.Token)
}

const canonicalHead = "portolan-favour/1\n"

// fields are what canonical bytes hold, in this order.
var fields = [...]string{"provider", "consumer", "number", "previous", "origin", "job", "token", "outcome", "used", "withdraws", "sum", "issued"}

// Canonical gives the bytes that are signed: a line that names the form, then a line for
// each field, "name:length:value", numbers in decimal, CPU time in milliseconds, moments in nanoseconds since 1970.
// Equal statements have equal bytes, and unlike ones unlike bytes.
func (s Statement) Canonical() []byte {
	values := [len(fields)]string{
		s.Provider, s.Consumer, strconv.FormatUint(s.Number, 10), s.Previous.String(), s.Key.Origin, s.Key.ID, string(s.Token), string(s.Outcome),
		strconv.FormatInt(int64(s.Used), 10), strconv.FormatUint(s.Withdraws, 10), strconv.FormatInt(int64(s.Sum), 10), strconv.FormatInt(s.Issued.UnixNano(), 10),
	}
	b := []byte(canonicalHead)
	for i, v := range values {
		b = append(b, fields[i]...)
		b = append(b, ':')
		b = strconv.AppendInt(b, int64(len(v)), 10)
		b = append(b, ':')
		b = append(b, v...)
		b = append(b, '\n')
	}
	return b
}

// Digest gives that of the canonical bytes.
func (s Statement) Digest() Digest { return sha256.Sum256(s.Canonical()) }

// MaxCanonical bounds canonical bytes.
const MaxCanonical = 4096

// Parse reads canonical bytes; what is not in the one form is fail.Invalid.
func Parse(b []byte) (Statement, error) {
	var s Statement
	bad := func(why string) (Statement, error) {
		return Statement{}, fail.Errorf("ledger.Parse", fail.Invalid, "", "the statement is not in its canonical form: %s", why)
	}
	if len(b) > MaxCanonical {
		return bad("it is too long")
	}
	rest, ok := strings.CutPrefix(string(b), canonicalHead)
	if !ok {
		return bad("its first line must be " + strings.TrimSpace(canonicalHead))
	}
	var values [len(fields)]string
	for i, name := range fields {
		var length string
		if rest, ok = strings.CutPrefix(rest, name+":"); !ok {
			return bad("the field " + name + " is missing")
		}
		length, rest, ok = strings.Cut(rest, ":")
		n, err := strconv.Atoi(length)
		if !ok || err != nil || n < 0 || n >= len(rest) || rest[n] != '\n' {
			return bad("the length of " + name + " is wrong")
		}
		values[i], rest = rest[:n], rest[n+1:]
	}
	if rest != "" {
		return bad("something follows its last field")
	}
	var err error
	number := func(v string) int64 {
		n, e := strconv.ParseInt(v, 10, 64)
		if e != nil {
			err = e
		}
		return n
	}
	s.Provider, s.Consumer = values[0], values[1]
	s.Number = uint64(number(values[2]))
	if e := s.Previous.UnmarshalText([]byte(values[3])); e != nil {
		return Statement{}, e
	}
	s.Key = handover.Key{Origin: values[4], ID: values[5]}
	s.Token, s.Outcome = handover.Token(values[6]), handover.Outcome(values[7])
	s.Used, s.Withdraws, s.Sum = handover.CPUTime(number(values[8])), uint64(number(values[9])), handover.CPUTime(number(values[10]))
	s.Issued = time.Unix(0, number(values[11])).UTC()
	if err != nil {
		return bad("a number is none")
	}
	if err := s.Check(); err != nil {
		return Statement{}, err
	}
	if string(s.Canonical()) != string(b) {
		return bad("a value is not in its one form")
	}
	return s, nil
}

// Check gives fail.Invalid for a statement that can't be right by itself.
func (s Statement) Check() error {
	bad := func(why string) error {
		return fail.Errorf("ledger.Statement", fail.Invalid, s.Pair.String(), "statement %d %s", s.Number, why)
	}
	if err := s.Key.Check(); err != nil {
		return err
	}
	if err := s.Token.Check(); err != nil {
		return err
	}
	switch {
	case s.Provider == "" || s.Consumer == "" || s.Provider == s.Consumer || len(s.Provider) > handover.MaxDomain || len(s.Consumer) > handover.MaxDomain:
		return bad("must name two domains that are not the same")
	case s.Number == 0 || s.Number > 1<<62 || s.Withdraws >= s.Number:
		return bad("must have a number above zero, and may only withdraw one before it")
	case s.Used <= 0 || s.Used > handover.MaxUsed || s.Sum < 0:
		return bad("must claim a time above zero that a job may have, and the sum must not be negative")
	}
	switch s.Outcome {
	case "", handover.Finished, handover.Failed, handover.Cancelled:
		return nil
	}
	return bad("has an outcome that is none")
}
