package ledger

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
)

// Kind is what an entry is for.
type Kind string

// The kinds.
const (
	Usage   Kind = "usage"   // what was used, in a unit of its own such as core-seconds
	Price   Kind = "price"   // what an agreement costs
	Penalty Kind = "penalty" // for a promise that was broken
	Reward  Kind = "reward"  // for one that was kept
)

// Kinds gives all of them.
func Kinds() []Kind { return []Kind{Usage, Price, Penalty, Reward} }

const (
	maxName     = 255  // characters of each name
	maxEvidence = 4096 // characters
)

// Entry is one line of the ledger. It does not change: what was wrong is put right by
// another.
type Entry struct {
	// ID is the writer's own; the same entry may come as often as it likes.
	ID        string    `json:"id"`
	Agreement string    `json:"agreement,omitempty"`
	VO        string    `json:"vo"`
	User      string    `json:"user,omitempty"`
	Domain    string    `json:"domain,omitempty"` // whose gateway provides it; "" is this one
	Job       string    `json:"job,omitempty"`
	Time      time.Time `json:"time"`
	Kind      Kind      `json:"kind"`
	Unit      string    `json:"unit"`
	// Amount is above zero for what the VO used or owes, below zero for what it gets.
	Amount   decimal.Decimal `json:"amount"`
	Evidence string          `json:"evidence,omitempty"`
	// Commitment is the ID of the one that a Price is taken from; "" is none.
	Commitment string `json:"commitment,omitempty"`
	// Counted is the moment by whose period a budget counts it: that of its commitment,
	// or Time. Post sets it.
	Counted time.Time `json:"counted,omitzero"`
}

// Signed gives the amount of an entry for what a guarantee makes due: a provider's
// penalty and a consumer's reward are the VO's gain.
func Signed(obligated agreement.Obligation, k Kind, value decimal.Decimal) decimal.Decimal {
	if (obligated == agreement.ServiceConsumer) == (k == Reward) {
		return value.Neg()
	}
	return value
}

// proper reports whether a text is of at most so many characters, with none that a
// document or a terminal would trip over.
func proper(s string, most int) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= most &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == 0xFFFE || r == 0xFFFF })
}

func invalid(op, subject, format string, args ...any) error {
	return fail.Errorf("ledger."+op, fail.Invalid, subject, format, args...)
}

func (e *Entry) check() error {
	for what, s := range map[string]string{
		"id": e.ID, "agreement": e.Agreement, "VO": e.VO, "user": e.User, "domain": e.Domain,
		"job": e.Job, "unit": e.Unit, "commitment": e.Commitment,
	} {
		if !proper(s, maxName) {
			return invalid("Post", e.ID, "the entry's %s must have at most %d characters and no control characters", what, maxName)
		}
	}
	switch {
	case e.ID == "" || e.VO == "" || e.Unit == "" || e.Time.IsZero():
		return invalid("Post", e.ID, "an entry needs an id, a VO, a unit and a time")
	case !proper(e.Evidence, maxEvidence):
		return invalid("Post", e.ID, "the entry's evidence must have at most %d characters and no control characters", maxEvidence)
	case e.Commitment != "" && e.Kind != Price:
		return invalid("Post", e.ID, "only a price is taken from a commitment")
	}
	switch e.Kind {
	case Usage, Price:
		if e.Amount.Sign() < 0 {
			return invalid("Post", e.ID, "a %s can't be below zero", e.Kind)
		}
	case Penalty, Reward:
		if e.Amount.Sign() == 0 {
			return invalid("Post", e.ID, "a %s of nothing is none", e.Kind)
		}
	default:
		return invalid("Post", e.ID, "%.40q is no kind of entry; there are usage, price, penalty and reward", string(e.Kind))
	}
	return nil
}

// plain takes off what two equal moments may differ in.
func plain(t time.Time) time.Time { return t.Round(0).UTC() }
