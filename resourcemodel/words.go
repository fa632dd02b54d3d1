package resourcemodel

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// unit is what a number counts.
type unit uint8

// The units.
const (
	unitCount unit = iota
	unitBytes
	unitSeconds
	unitHertz
	unitBits // a second
)

func (u unit) say(x float64) string {
	if math.IsInf(x, 0) {
		return "no limit"
	}
	switch u {
	case unitBytes:
		return scaled(x, 1024, "bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
	case unitHertz:
		return scaled(x, 1000, "Hz", "kHz", "MHz", "GHz", "THz")
	case unitBits:
		return scaled(x, 1000, "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")
	case unitSeconds:
		return seconds(x)
	case unitCount:
	}
	return plain(x)
}

func plain(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

// scaled takes the largest unit that leaves the number as short as it is.
func scaled(x, by float64, units ...string) string {
	i, y := 0, x
	for i < len(units)-1 && y >= by && y/by*4 == math.Trunc(y/by*4) {
		y /= by
		i++
	}
	return plain(y) + " " + units[i]
}

func seconds(x float64) string {
	if x != math.Trunc(x) || x >= 1<<33 || x < 60 {
		return plain(x) + " s"
	}
	s := (time.Duration(x) * time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// describe puts a range into words: "at least 64", "2 or 4 to 8".
func describe(r *jsdl.RangeValue, u unit) string {
	var out []string
	if r.Lower != nil || r.Upper != nil {
		out = append(out, bounded(r.Lower, r.Upper, u))
	}
	for _, x := range r.Exact {
		if x.Epsilon != 0 {
			out = append(out, u.say(x.Value)+" ± "+u.say(x.Epsilon))
			continue
		}
		out = append(out, u.say(x.Value))
	}
	for i := range r.Ranges {
		out = append(out, bounded(&r.Ranges[i].Lower, &r.Ranges[i].Upper, u))
	}
	if len(out) == 0 {
		return "any"
	}
	return listed(out, "or")
}

func bounded(lower, upper *jsdl.Bound, u unit) string {
	lo, hi := "", ""
	if lower != nil && !math.IsInf(lower.Value, -1) {
		lo = "at least " + u.say(lower.Value)
		if lower.Exclusive {
			lo = "more than " + u.say(lower.Value)
		}
	}
	if upper != nil && !math.IsInf(upper.Value, 1) {
		hi = "at most " + u.say(upper.Value)
		if upper.Exclusive {
			hi = "less than " + u.say(upper.Value)
		}
	}
	switch {
	case lo == "" && hi == "":
		return "any"
	case lo == "":
		return hi
	case hi == "":
		return lo
	case !lower.Exclusive && !upper.Exclusive:
		return u.say(lower.Value) + " to " + u.say(upper.Value)
	}
	return lo + " and " + hi
}

// clipped keeps what a stranger wrote within reason.
func clipped(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func quoted(s string) string { return strconv.Quote(clipped(s)) }

// many gives "1 node", "4 nodes".
func many(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
