package xsd

import (
	"cmp"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	year   = `(?P<year>-?[0-9]{4,9})`
	month  = `(?P<month>[0-9]{2})`
	day    = `(?P<day>[0-9]{2})`
	clock  = `(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]+))?`
	zone   = `(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?`
	ofDay  = 24 * 60 * 60
	atMost = 14 * 60 * 60 // a time zone is this far from UTC, either way
)

var moments = map[string]string{
	"dateTime": year + "-" + month + "-" + day + "T" + clock, "date": year + "-" + month + "-" + day, "time": clock,
	"gYear": year, "gYearMonth": year + "-" + month, "gMonth": "--" + month, "gMonthDay": "--" + month + "-" + day, "gDay": "---" + day,
}

// moment is a dateTime, or one of what has less, filled up (XML Schema part 2 §3.2.7).
type moment struct {
	seconds  int64  // of the day count, in UTC where zoned
	fraction string // of a second, without trailing zeros
	zoned    bool
}

func parseMoment(re *regexp.Regexp, s string) (any, bool) {
	m := re.FindStringSubmatch(s)
	if m == nil {
		return nil, false
	}
	get := func(name string, or int64) (int64, string) {
		i := re.SubexpIndex(name)
		if i < 0 || m[i] == "" {
			return or, ""
		}
		n, _ := strconv.ParseInt(m[i], 10, 64) // the expression has taken digits only, few enough
		return n, m[i]
	}
	y, written := get("year", 1972)
	if digits := strings.TrimPrefix(written, "-"); written != "" && (y == 0 || len(digits) > 4 && digits[0] == '0') {
		return nil, false
	}
	mo, _ := get("month", 12)
	if mo < 1 || mo > 12 {
		return nil, false
	}
	d, _ := get("day", 1)
	if d < 1 || d > daysIn(y, mo) {
		return nil, false
	}
	h, _ := get("hour", 0)
	mi, _ := get("minute", 0)
	sec, _ := get("second", 0)
	fraction := ""
	if i := re.SubexpIndex("fraction"); i >= 0 {
		fraction = strings.TrimRight(m[i], "0")
	}
	switch {
	case h == 24 && mi == 0 && sec == 0 && fraction == "": // the end of a day
	case h > 23 || mi > 59 || sec > 59:
		return nil, false
	}
	v := moment{fraction: fraction}
	if re.SubexpIndex("year") < 0 && re.SubexpIndex("hour") >= 0 {
		h %= 24 // a time alone goes round
	}
	v.seconds = days(y, mo, d)*ofDay + h*3600 + mi*60 + sec
	if z := m[re.SubexpIndex("zone")]; z != "" {
		v.zoned = true
		if z != "Z" {
			zh, _ := strconv.ParseInt(z[1:3], 10, 64)
			zm, _ := strconv.ParseInt(z[4:], 10, 64)
			offset := zh*3600 + zm*60
			if zm > 59 || offset > atMost {
				return nil, false
			}
			if z[0] == '-' {
				offset = -offset
			}
			v.seconds -= offset
		}
	}
	return v, true
}

func daysIn(y, m int64) int64 {
	if y < 0 {
		y++ // there is no year 0
	}
	y = (y%400 + 400) % 400
	return int64(time.Date(int(y)+2000, time.Month(m)+1, 0, 0, 0, 0, 0, time.UTC).Day())
}

// days counts from an epoch, in the proleptic Gregorian calendar.
func days(y, m, d int64) int64 {
	if y < 0 {
		y++
	}
	return civil(y, m) + d - 1
}

// civil gives the days before a month; y is astronomical, m from 1.
func civil(y, m int64) int64 {
	rounds := y / 400
	if y%400 < 0 {
		rounds--
	}
	const inRound = 146097
	at := time.Date(int(y-rounds*400)+2000, time.Month(m), 1, 0, 0, 0, 0, time.UTC)
	return rounds*inRound + at.Unix()/ofDay
}

// compare is §3.2.7.4: without a zone it could be any.
func (a moment) compare(b moment) (int, bool) {
	if a.zoned == b.zoned {
		return cmp.Or(cmp.Compare(a.seconds, b.seconds), strings.Compare(a.fraction, b.fraction)), true
	}
	if !a.zoned {
		order, ok := b.compare(a)
		return -order, ok
	}
	early, late := b, b
	early.seconds -= atMost
	late.seconds += atMost
	early.zoned, late.zoned = true, true
	if order, _ := a.compare(early); order < 0 {
		return -1, true
	}
	if order, _ := a.compare(late); order > 0 {
		return 1, true
	}
	return 0, false
}

// duration is months and seconds, which have no fixed ratio (§3.2.6).
type duration struct {
	months  int64
	seconds *big.Rat
}

var durationForm = regexp.MustCompile(`\A(-?)P(?:([0-9]{1,10})Y)?(?:([0-9]{1,10})M)?(?:([0-9]{1,10})D)?(T(?:([0-9]{1,10})H)?(?:([0-9]{1,10})M)?(?:([0-9]{1,10}(?:\.[0-9]{1,30})?)S)?)?\z`)

func parseDuration(s string) (any, bool) {
	m := durationForm.FindStringSubmatch(s)
	if m == nil || strings.HasSuffix(s, "T") || strings.HasSuffix(s, "P") {
		return nil, false
	}
	n := func(i int) int64 {
		v, _ := strconv.ParseInt(m[i], 10, 64) // digits, few enough, or nothing
		return v
	}
	d := duration{n(2)*12 + n(3), new(big.Rat).SetInt64(n(4)*ofDay + n(6)*3600 + n(7)*60)}
	if m[8] != "" {
		seconds, ok := new(big.Rat).SetString(m[8])
		if !ok {
			return nil, false
		}
		d.seconds.Add(d.seconds, seconds)
	}
	if m[1] != "" {
		d.months = -d.months
		d.seconds.Neg(d.seconds)
	}
	return d, true
}

// compare is §3.2.6.2: as the sums with four dates compare, if all do alike.
func (a duration) compare(b duration) (int, bool) {
	var order int
	for i, from := range [][2]int64{{1696, 9}, {1697, 2}, {1903, 3}, {1903, 7}} {
		c := a.after(from).Cmp(b.after(from))
		if i > 0 && c != order {
			return 0, false
		}
		order = c
	}
	return order, true
}

func (a duration) after(from [2]int64) *big.Rat {
	months := from[0]*12 + from[1] - 1 + a.months
	y, m := months/12, months%12
	if m < 0 {
		y, m = y-1, m+12
	}
	at := new(big.Rat).SetInt64(civil(y, m+1))
	at.Mul(at, new(big.Rat).SetInt64(ofDay))
	return at.Add(at, a.seconds)
}
