package adapters

import (
	"strings"
	"time"
)

// Hop is a domain on a job's way, and when the job came there; the zero time is not told.
type Hop struct {
	Domain string
	At     time.Time
}

const hopArrow = " > "

// MaxHops bounds the way that is read of an attribute.
const MaxHops = 16

// JoinHops writes a way as AttributePath has it: "fiu.example@2026-11-29T08:00:00Z >
// ibm.example".
func JoinHops(way []Hop) string {
	parts := make([]string, len(way))
	for i, h := range way {
		if parts[i] = h.Domain; !h.At.IsZero() {
			parts[i] += "@" + h.At.UTC().Format(time.RFC3339)
		}
	}
	return strings.Join(parts, hopArrow)
}

// SplitHops reads it; nil where that is no way.
func SplitHops(s string) []Hop {
	if s == "" {
		return nil
	}
	parts := strings.Split(s, hopArrow)
	if len(parts) > MaxHops {
		return nil
	}
	way := make([]Hop, len(parts))
	for i, p := range parts {
		domain, at, timed := strings.Cut(p, "@")
		if domain == "" || len(domain) > 255 || strings.ContainsFunc(domain, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return nil
		}
		way[i].Domain = domain
		if timed {
			t, err := time.Parse(time.RFC3339, at)
			if err != nil {
				return nil
			}
			way[i].At = t.UTC()
		}
	}
	return way
}
