package session

import (
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/wire"
)

// Config is what one side offers and wants. The zero value of what has a default means it.
type Config struct {
	Party    wire.Party
	Instance string // of this gateway: another after a loss of state
	Versions []string
	Features []string
	Beat     time.Duration // default 30 s
	Lost     time.Duration // default 5 min
	Window   int           // items taken before any is done with; default 1024
	// Budget is how many bytes of items are held that are not done with; default 32 MiB.
	// One item is always taken.
	Budget int
	// Queue is how many items wait to be sent or acknowledged; default twice the window.
	Queue int
	// QueueBytes is how many bytes of items wait so; default 64 MiB. One item is always taken.
	QueueBytes int
	// Frame is about how many bytes of items go into one message; default 1 MiB.
	Frame int
	Terms wire.Terms
}

// EnsureDefaults gives c with what is not said filled in.
func (c Config) EnsureDefaults() Config {
	c.Versions = orElse(len(c.Versions) == 0, []string{"1"}, c.Versions)
	c.Beat = orElse(c.Beat == 0, 30*time.Second, c.Beat)
	c.Lost = orElse(c.Lost == 0, 5*time.Minute, c.Lost)
	c.Window = orElse(c.Window == 0, limits.Undone, c.Window)
	c.Budget = orElse(c.Budget == 0, limits.UndoneBytes, c.Budget)
	c.Queue = orElse(c.Queue == 0, 2*c.Window, c.Queue)
	c.QueueBytes = orElse(c.QueueBytes == 0, limits.QueueBytes, c.QueueBytes)
	c.Frame = orElse(c.Frame == 0, 1<<20, c.Frame)
	set := func(d *time.Duration, to time.Duration) { *d = orElse(*d == 0, to, *d) }
	set(&c.Terms.Lease, 10*time.Minute)
	set(&c.Terms.Skew, 5*time.Second)
	set(&c.Terms.StopWithin, 30*time.Second)
	set(&c.Terms.Resend, 10*time.Second)
	set(&c.Terms.Keep, 7*24*time.Hour)
	return c
}

func orElse[T any](when bool, a, b T) T {
	if when {
		return a
	}
	return b
}

// Validate gives fail.Invalid for what can't be asked of another side, or not be kept.
func (c Config) Validate() error {
	if c.Window < 1 || c.Window > wire.MaxWindow || c.Budget < 1 || c.Queue < 1 || c.QueueBytes < 1 || c.Frame < 1 || c.Frame > wire.MaxMessage/8 {
		return fail.Errorf("session.Config", fail.Invalid, c.Party.Domain, "the window must be 1 to %d items, a message's items 1 to %d bytes, and queue and budget above zero", wire.MaxWindow, wire.MaxMessage/8)
	}
	_, err := wire.Encode(c.Open("check", time.Unix(1, 0)))
	return err
}

// Open gives the request for a session. Its name was never used before.
func (c Config) Open(session string, now time.Time) *wire.Open {
	c = c.EnsureDefaults()
	return &wire.Open{
		Session: session, Instance: c.Instance, Party: c.Party, Versions: c.Versions, Features: c.Features,
		Beat: c.Beat, Lost: c.Lost, Window: c.Window, Clock: now, Terms: c.Terms,
	}
}
