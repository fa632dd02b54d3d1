// Package moments reads the times that people write: "FRIDAY", "tomorrow 9:00", "+2h",
// "2026-12-01 14:00". What could mean two moments is refused with a sentence that
// says what to write instead.
//
// The package is pure: what time it is, and in which zone times without one are, are
// arguments.
package moments

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

const (
	// MaxLength is the most bytes of a time.
	MaxLength = 64
	// MaxAhead is how many years ahead a time may be: more is a slip of the pen.
	MaxAhead = 10
)

// Forms says what is understood, for help texts and refusals.
const Forms = "2026-12-01 14:00, 14:00, tomorrow 9:00, Friday, Friday 18:00, +2h, in 3 days or 2026-12-01T14:00:00Z"

// By reads a time by which something is to be done. A day without a time is its end,
// 24:00. It is not before now. fail.Invalid says what to write instead.
func By(s string, now time.Time, zone *time.Location) (time.Time, error) {
	return (&reading{now: now.In(zone), from: now.In(zone), zone: zone, end: true}).read(s)
}

// Period reads FROM/UNTIL. A day without a time is its beginning in FROM and its end
// in UNTIL. In UNTIL, a time without a day is of FROM's day, and what begins with + is
// the length.
func Period(s string, now time.Time, zone *time.Location) (from, until time.Time, err error) {
	a, b, ok := strings.Cut(s, "/")
	if !ok || strings.Contains(b, "/") {
		return from, until, invalid("%s is no period: write FROM/UNTIL, as 14:00/16:00 or 'tomorrow 9:00/+2h'", quoted(s))
	}
	now = now.In(zone)
	if from, err = (&reading{now: now, from: now, zone: zone}).read(a); err != nil {
		return from, until, err
	}
	if until, err = (&reading{now: now, from: from.In(zone), zone: zone, end: true, until: true}).read(b); err != nil {
		return from, until, err
	}
	if !until.After(from) {
		return from, until, invalid("the period %s ends at %s, which is not after its beginning, %s: write the day of its end too", quoted(s), shown(until, zone), shown(from, zone))
	}
	return from, until, nil
}

// reading is one time that is read.
type reading struct {
	now   time.Time // in the zone
	from  time.Time // of which a time without a day has its day, and from which + counts
	zone  *time.Location
	end   bool // a day is its end
	until bool // it is the end of a period
}

func invalid(format string, args ...any) error {
	return fail.Errorf("moments", fail.Invalid, "", format, args...)
}

func quoted(s string) string {
	if len(s) > MaxLength {
		s = strings.ToValidUTF8(s[:MaxLength], "") + "…"
	}
	return strconv.Quote(s)
}

func shown(t time.Time, zone *time.Location) string { return t.In(zone).Format("2006-01-02 15:04 MST") }

var (
	zoned    = regexp.MustCompile(`^(\d{4}-\d\d-\d\d)[t ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(z|[+-]\d\d:\d\d)$`)
	dated    = regexp.MustCompile(`^(\d{4})-(\d\d)-(\d\d)(?:[t ](\S+))?$`)
	hours    = regexp.MustCompile(`^(\d{1,2}):(\d\d)(?::(\d\d))?$`)
	numbers  = regexp.MustCompile(`^\d{1,4}[./-]\d{1,2}([./-]\d{1,4})?( .*)?$`)
	twelve   = regexp.MustCompile(`^\d{1,2}(:\d\d)? ?[ap]\.?m\.?$`)
	length   = regexp.MustCompile(`^\s*(\d{1,6})\s*([a-z]+)\s*(?:,|and )?`)
	weekdays = map[string]time.Weekday{}
)

func init() {
	for d := time.Sunday; d <= time.Saturday; d++ {
		name := strings.ToLower(d.String())
		weekdays[name], weekdays[name[:3]] = d, d
	}
}

func (r *reading) read(s string) (time.Time, error) {
	if len(s) > MaxLength {
		return time.Time{}, invalid("%s is too long for a time: write one like %s", quoted(s), Forms)
	}
	text := strings.ToLower(strings.Join(strings.Fields(s), " "))
	t, err := r.moment(text, s)
	if err != nil {
		return t, err
	}
	if t.Before(r.now) {
		return t, invalid("%s is %s, which has passed", quoted(s), shown(t, r.zone))
	}
	if t.After(r.now.AddDate(MaxAhead, 0, 0)) {
		return t, invalid("%s is %s, more than %d years ahead", quoted(s), shown(t, r.zone), MaxAhead)
	}
	return t, nil
}

func (r *reading) moment(text, s string) (time.Time, error) {
	if m := zoned.FindStringSubmatch(text); m != nil {
		t, err := time.Parse(time.RFC3339Nano, m[1]+"T"+m[2]+strings.ToUpper(m[3]))
		if err != nil {
			return t, invalid("%s is no time that there is", quoted(s))
		}
		return t, nil
	}
	if m := dated.FindStringSubmatch(text); m != nil {
		year, _ := strconv.Atoi(m[1])
		month, _ := strconv.Atoi(m[2])
		day, _ := strconv.Atoi(m[3])
		d := time.Date(year, time.Month(month), day, 12, 0, 0, 0, time.UTC)
		if int(d.Month()) != month || d.Day() != day {
			return d, invalid("%s: there is no day %s-%s-%s", quoted(s), m[1], m[2], m[3])
		}
		return r.on(d, m[4], s)
	}
	if hours.MatchString(text) {
		t, err := r.on(r.from, text, s)
		if err == nil && !r.until && t.Before(r.now) {
			return t, invalid("%s has passed today: write 'tomorrow %s', or the date", quoted(s), text)
		}
		return t, err
	}
	if rest, ok := strings.CutPrefix(text, "+"); ok {
		return r.later(r.from, rest, s)
	}
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "now":
		if rest == "" {
			return r.now, nil
		}
	case "in":
		if r.until {
			return time.Time{}, invalid("%s could count from now or from the period's beginning: write its length as +2h, or the time of its end", quoted(s))
		}
		return r.later(r.now, rest, s)
	case "today":
		return r.on(r.now, rest, s)
	case "tomorrow":
		return r.on(r.now.AddDate(0, 0, 1), rest, s)
	case "next", "this", "coming":
		return time.Time{}, invalid("%s does not mean the same day to everybody: write the date, as %s", quoted(s), r.now.AddDate(0, 0, 7).Format(time.DateOnly))
	}
	if day, ok := weekdays[word]; ok {
		ahead := (int(day) - int(r.now.Weekday()) + 7) % 7
		if ahead == 0 {
			return time.Time{}, invalid("%s: today is a %s; write 'today', or %s for the next one", quoted(s), day, r.now.AddDate(0, 0, 7).Format(time.DateOnly))
		}
		return r.on(r.now.AddDate(0, 0, ahead), rest, s)
	}
	switch {
	case twelve.MatchString(text):
		return time.Time{}, invalid("%s: write the time with 24 hours, as 14:00", quoted(s))
	case numbers.MatchString(text):
		return time.Time{}, invalid("%s: the day and the month can't be told apart; write the date as 2026-12-01", quoted(s))
	}
	return time.Time{}, invalid("%s is no time that is understood: write one like %s", quoted(s), Forms)
}

// on gives a time of a day; "" is the day's beginning or end.
func (r *reading) on(day time.Time, clock, s string) (time.Time, error) {
	at := func(days, h, m, sec int) time.Time {
		return time.Date(day.Year(), day.Month(), day.Day()+days, h, m, sec, 0, r.zone)
	}
	if clock == "" {
		if r.end {
			return at(1, 0, 0, 0), nil
		}
		return at(0, 0, 0, 0), nil
	}
	m := hours.FindStringSubmatch(clock)
	if m == nil {
		return time.Time{}, invalid("%s: %q is no time of a day; write it with 24 hours, as 14:00", quoted(s), clock)
	}
	h, _ := strconv.Atoi(m[1])
	minute, _ := strconv.Atoi(m[2])
	sec := 0
	if m[3] != "" {
		sec, _ = strconv.Atoi(m[3])
	}
	if h == 24 && minute == 0 && sec == 0 {
		return at(1, 0, 0, 0), nil
	}
	if h > 23 || minute > 59 || sec > 59 {
		return time.Time{}, invalid("%s: there is no time %s; a day goes from 00:00 to 24:00", quoted(s), clock)
	}
	t := at(0, h, minute, sec)
	if t.Hour() != h || t.Minute() != minute {
		return t, invalid("%s: the clocks go forward then, so that there is no %s in %s; write another time", quoted(s), clock, zoneOf(t))
	}
	// The same reading of the clock an hour away, where clocks go back; some do so by less.
	for _, d := range []time.Duration{-time.Hour, -30 * time.Minute, 30 * time.Minute, time.Hour} {
		if o := t.Add(d); o.Hour() == h && o.Minute() == minute && o.Day() == t.Day() {
			first, second := t, o
			if d < 0 {
				first, second = o, t
			}
			return t, invalid("%s: the clocks go back then, so that it is %s twice; write %s or %s", quoted(s), clock, first.Format(time.RFC3339), second.Format(time.RFC3339))
		}
	}
	return t, nil
}

func zoneOf(t time.Time) string {
	if name := t.Location().String(); name != "" && name != "Local" {
		return name
	}
	name, _ := t.Zone()
	return name
}

var units = map[string]string{
	"s": "s", "sec": "s", "second": "s", "m": "m", "min": "m", "minute": "m", "h": "h", "hour": "h",
	"d": "d", "day": "d", "w": "w", "week": "w",
}

// later gives what comes so long after a moment. Days are those of the calendar: the
// clock then shows the same.
func (r *reading) later(t time.Time, text, s string) (time.Time, error) {
	if text == "" {
		return t, invalid("%s says no length: write one like +2h or 'in 3 days'", quoted(s))
	}
	for rest := text; rest != ""; {
		m := length.FindStringSubmatch(rest)
		if m == nil {
			return t, invalid("%s: %q is no length; write one like +2h, +1h30m or 'in 3 days'", quoted(s), text)
		}
		rest = rest[len(m[0]):]
		n, _ := strconv.Atoi(m[1])
		unit := units[m[2]]
		if unit == "" {
			unit = units[strings.TrimSuffix(m[2], "s")]
		}
		switch unit {
		case "s":
			t = t.Add(time.Duration(n) * time.Second)
		case "m":
			t = t.Add(time.Duration(n) * time.Minute)
		case "h":
			t = t.Add(time.Duration(n) * time.Hour)
		case "d", "w":
			if unit == "w" {
				n *= 7
			}
			if n > MaxAhead*366 {
				return t, invalid("%s is more than %d years ahead", quoted(s), MaxAhead)
			}
			t = t.AddDate(0, 0, n)
		default:
			return t, invalid("%s: %q is no unit of time here; there are seconds, minutes, hours, days and weeks", quoted(s), m[2])
		}
		if t.After(r.now.AddDate(2*MaxAhead, 0, 0)) {
			return t, invalid("%s is more than %d years ahead", quoted(s), MaxAhead)
		}
	}
	return t, nil
}
