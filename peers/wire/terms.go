package wire

import (
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Bounds of Terms.
const (
	MinLease = time.Second
	MaxLease = 7 * 24 * time.Hour
	MaxKeep  = 365 * 24 * time.Hour
	// Lease is at least so many times each of the others, else a copy would end before it
	// could be renewed.
	leaseOverSkew, leaseOverStop, leaseOverResend = 8, 4, 4
)

// Terms are those under which jobs are handed over: see docs/peer-protocol.md, Handing over.
type Terms struct {
	Lease, Skew, StopWithin, Resend, Keep time.Duration
}

func termsFields(v *visit, t *Terms) {
	span(v, "lease", &t.Lease, MinLease, MaxLease, "the longest time that a recall deadline is ahead when it is promised")
	span(v, "skew", &t.Skew, 0, MaxLease/leaseOverSkew, "bound of the error of each side's clock against true time")
	span(v, "stopWithin", &t.StopWithin, 0, MaxLease/leaseOverStop, "how long a site may take to end a job")
	span(v, "resend", &t.Resend, time.Millisecond, MaxLease/leaseOverResend, "time between a message about a job and its repetition")
	span(v, "keep", &t.Keep, 0, MaxKeep, "how long after its recall deadline a result waits for a giver that is not heard of")
	if v.mode == reading || v.mode == writing {
		if err := t.Check(); err != nil {
			v.wrong("@lease", "does not fit: %s", fail.Sentence(err))
		}
	}
}

// Check gives fail.Invalid for terms under which no job could be held.
func (t Terms) Check() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("wire.Terms", fail.Invalid, "", format, args...)
	}
	switch {
	case t.Skew < 0 || t.StopWithin < 0:
		return bad("the bound of the clocks' error and the time to stop a job must not be negative")
	case t.Lease < MinLease || t.Lease > MaxLease:
		return bad("the recall deadline must be at least %s and at most %s ahead", MinLease, MaxLease)
	case t.Resend <= 0 || t.Resend > t.Lease/leaseOverResend:
		return bad("the time after which a message is repeated must be above zero and at most a quarter of the %s to the recall deadline", t.Lease)
	case t.Skew > t.Lease/leaseOverSkew || t.StopWithin > t.Lease/leaseOverStop:
		return bad("the clocks' error must be at most an eighth, and the time to stop a job a quarter, of the %s to the recall deadline, else a copy would end before it could be renewed", t.Lease)
	case t.Keep < 0 || t.Keep > MaxKeep:
		return bad("results must be kept at least no time and at most %s", MaxKeep)
	}
	return nil
}
