package modelstore

import (
	"log/slog"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Options says how a Model works. The zero value works.
type Options struct {
	Replica string // our name in claims; "" is "gateway"
	// Domain is what our own sites are filed under, so that gateways share a model: ours
	// are those of the domain "" for each, and those of a gateway without a name are of
	// Nameless for the others. "" is a gateway without a name.
	Domain string
	Log    *slog.Logger
	Now    func() time.Time // nil is time.Now

	// Interval is how often, at most, changes of a site's numbers are written that bring
	// nothing to zero or from it; 0 is 5 s, negative is no bound.
	Interval time.Duration
	// DeadBand is how far a number may be from what was written, in parts of the smaller
	// one, before that is a change; 0 is 0.05, negative is none.
	DeadBand float64
	// Silence is after how long without a Feed a site's claim is given up; 0 is 1 minute.
	Silence time.Duration
	// MaxSites bounds the sites of the model; 0 is 65 536.
	MaxSites int

	// The history keeps at most so many changes (0 is 10 000), of at most so many bytes
	// (0 is 32 MiB), not older than Age (0 is 7 days). What is beyond is folded into the
	// state from which it begins.
	HistoryChanges int
	HistoryBytes   int
	HistoryAge     time.Duration
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Replica == "" {
		o.Replica = "gateway"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Interval == 0 {
		o.Interval = 5 * time.Second
	}
	if o.DeadBand == 0 {
		o.DeadBand = 0.05
	}
	if o.Silence == 0 {
		o.Silence = time.Minute
	}
	if o.MaxSites == 0 {
		o.MaxSites = 1 << 16
	}
	if o.HistoryChanges == 0 {
		o.HistoryChanges = 10_000
	}
	if o.HistoryBytes == 0 {
		o.HistoryBytes = 32 << 20
	}
	if o.HistoryAge == 0 {
		o.HistoryAge = 7 * 24 * time.Hour
	}
}

// Validate reports what cannot be worked with: fail.Invalid.
func (o *Options) Validate() error {
	const op = "modelstore.Open"
	switch {
	case o.Domain == Nameless:
		return fail.Errorf(op, fail.Invalid, "", "%s is what a gateway without a name is called by others; give the domain another name", Nameless)
	case (resourcemodel.Key{Domain: o.Domain, Site: "x"}).Check() != nil:
		return fail.Errorf(op, fail.Invalid, "", "the domain %q is no name: write letters, digits and - . _", o.Domain)
	case o.DeadBand >= 1:
		return fail.Errorf(op, fail.Invalid, "", "the dead-band of the model is %g; it must be below 1", o.DeadBand)
	case o.Silence < time.Second:
		return fail.Errorf(op, fail.Invalid, "", "a site is taken for silent after %v; it needs 1s or more", o.Silence)
	case o.MaxSites < 1:
		return fail.Errorf(op, fail.Invalid, "", "the model may have %d sites; it needs 1 or more", o.MaxSites)
	case o.HistoryChanges < 1 || o.HistoryBytes < 1 || o.HistoryAge < time.Second:
		return fail.Errorf(op, fail.Invalid, "", "the history of the model may have %d changes of %d bytes and an age of %v; each must be 1 or more, the age 1s or more", o.HistoryChanges, o.HistoryBytes, o.HistoryAge)
	}
	return nil
}
