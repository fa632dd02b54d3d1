package terms

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Settings say what the gateway promises. The zero value works.
type Settings struct {
	// Promise is the part of each share, in percent, that may be promised; the rest is for
	// best effort. 0 is DefaultPromise; none at all is promised with Kinds.
	Promise int
	// Horizon is how far ahead promises reach, Notice how soon the earliest may begin,
	// MaxWindow how long a window may be.
	Horizon, Notice, MaxWindow time.Duration
	// Grace is how late a reservation may begin without being violated.
	Grace time.Duration
	// Penalty is due when a guarantee is violated, in thousandths of Unit; 0 is none.
	Penalty int64
	// Availability is the part of the time that reserved capacity is to be there, from 0 to 1;
	// 0 is DefaultAvailability.
	Availability float64
	Unit         string // of prices and penalties
	Kinds        []Kind // that are offered; none named is all
	MaxTemplates int    // that one asks for at once; more are left out, those of the last shares
}

// Defaults and bounds.
const (
	DefaultPromise      = 80
	DefaultHorizon      = 30 * 24 * time.Hour
	DefaultMaxWindow    = 7 * 24 * time.Hour
	DefaultGrace        = 5 * time.Minute
	DefaultAvailability = 0.99
	DefaultUnit         = "credit"
	DefaultMaxTemplates = 500

	maxPenalty = 1 << 40
)

// EnsureDefaults fills in what is zero.
func (s *Settings) EnsureDefaults() {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&s.Horizon, DefaultHorizon)
	set(&s.MaxWindow, min(DefaultMaxWindow, s.Horizon))
	set(&s.Grace, DefaultGrace)
	if s.Promise == 0 {
		s.Promise = DefaultPromise
	}
	if s.Availability == 0 {
		s.Availability = DefaultAvailability
	}
	if s.Unit == "" {
		s.Unit = DefaultUnit
	}
	if s.MaxTemplates == 0 {
		s.MaxTemplates = DefaultMaxTemplates
	}
}

// Validate reports what is wrong with settings that have their defaults.
func (s *Settings) Validate() error {
	bad := func(name, format string, args ...any) error {
		return fail.Errorf("terms.Settings", fail.Invalid, name, name+" "+format, args...)
	}
	switch {
	case s.Promise < 1 || s.Promise > 100:
		return bad("promise", "is %d%%; it must be from 1%% to 100%% of a share", s.Promise)
	case s.Horizon < time.Hour || s.Horizon > maxHorizon:
		return bad("horizon", "is %s; it must be from %s to %s", s.Horizon, time.Hour, maxHorizon)
	case s.Notice < 0 || s.Notice > s.Horizon/2:
		return bad("notice", "is %s; it must be from 0 to half of the horizon, %s", s.Notice, s.Horizon/2)
	case s.MaxWindow < time.Minute || s.MaxWindow > s.Horizon:
		return bad("window", "is %s; it must be from %s to the horizon, %s", s.MaxWindow, time.Minute, s.Horizon)
	case s.Grace < time.Second || s.Grace > time.Hour:
		return bad("grace", "is %s; it must be from %s to %s", s.Grace, time.Second, time.Hour)
	case s.Penalty < 0 || s.Penalty > maxPenalty:
		return bad("penalty", "is %d thousandths; it must be from 0 to %d", s.Penalty, int64(maxPenalty))
	case !(s.Availability > 0 && s.Availability <= 1):
		return bad("availability", "is %g; it must be above 0 and no more than 1", s.Availability)
	case len(s.Unit) > maxWord:
		return bad("unit", "has %d bytes; it may have %d", len(s.Unit), maxWord)
	case s.MaxTemplates < 1 || s.MaxTemplates > 10000:
		return bad("templates", "is %d; it must be from 1 to 10000", s.MaxTemplates)
	}
	for _, k := range s.Kinds {
		if !isKind(k) {
			return bad("kinds", "names %q, which is none; there are %s", string(k), listed(kindNames()))
		}
	}
	return nil
}

const maxHorizon = 366 * 24 * time.Hour

func isKind(k Kind) bool { return slices.Contains(Kinds(), k) }

func kindNames() []string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return names
}

// offers says whether templates of a kind are made.
func (s *Settings) offers(k Kind) bool {
	return len(s.Kinds) == 0 || slices.Contains(s.Kinds, k)
}
