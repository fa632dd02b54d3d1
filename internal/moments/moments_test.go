package moments

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // zones by name, wherever the tests run

	"github.com/portolan-project/portolan/internal/fail"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestBy(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	sunday := time.Date(2026, 11, 29, 15, 30, 20, 0, berlin) // a Sunday, in winter time
	for in, want := range map[string]string{
		"2026-12-01T14:00:00Z":         "2026-12-01T14:00:00Z",
		"2026-12-01t14:00:00z":         "2026-12-01T14:00:00Z",
		"2026-12-01 14:00:00+05:30":    "2026-12-01T08:30:00Z",
		"2026-12-01T14:00:00.25-08:00": "2026-12-01T22:00:00.25Z",
		"2026-12-01 14:00":             "2026-12-01T13:00:00Z",
		"2026-12-01T14:00":             "2026-12-01T13:00:00Z",
		"2026-12-01 9:00":              "2026-12-01T08:00:00Z",
		"2026-12-01 14:00:07":          "2026-12-01T13:00:07Z",
		"  2026-12-01   14:00 ":        "2026-12-01T13:00:00Z",
		"2026-12-01":                   "2026-12-01T23:00:00Z",
		"2026-12-01 24:00":             "2026-12-01T23:00:00Z",
		"2026-12-31":                   "2026-12-31T23:00:00Z",
		"2028-02-29":                   "2028-02-29T23:00:00Z",
		"16:00":                        "2026-11-29T15:00:00Z",
		"15:31":                        "2026-11-29T14:31:00Z",
		"24:00":                        "2026-11-29T23:00:00Z",
		"today":                        "2026-11-29T23:00:00Z",
		"today 18:00":                  "2026-11-29T17:00:00Z",
		"tomorrow":                     "2026-11-30T23:00:00Z",
		"tomorrow 9:00":                "2026-11-30T08:00:00Z",
		"TOMORROW 09:00":               "2026-11-30T08:00:00Z",
		"FRIDAY":                       "2026-12-04T23:00:00Z",
		"fri":                          "2026-12-04T23:00:00Z",
		"Friday 18:00":                 "2026-12-04T17:00:00Z",
		"monday 0:00":                  "2026-11-29T23:00:00Z",
		"saturday":                     "2026-12-05T23:00:00Z",
		"now":                          "2026-11-29T14:30:20Z",
		"+2h":                          "2026-11-29T16:30:20Z",
		"+ 2 h":                        "2026-11-29T16:30:20Z",
		"+1h30m":                       "2026-11-29T16:00:20Z",
		"+90min":                       "2026-11-29T16:00:20Z",
		"+45s":                         "2026-11-29T14:31:05Z",
		"+3d":                          "2026-12-02T14:30:20Z",
		"+1w":                          "2026-12-06T14:30:20Z",
		"in 3 days":                    "2026-12-02T14:30:20Z",
		"in 1 day":                     "2026-11-30T14:30:20Z",
		"in 2 hours and 5 minutes":     "2026-11-29T16:35:20Z",
		"In 2 weeks":                   "2026-12-13T14:30:20Z",
		"+0s":                          "2026-11-29T14:30:20Z",
	} {
		got, err := By(in, sunday, berlin)
		if err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %s, %v; not %s", in, got.UTC().Format(time.RFC3339Nano), err, want)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	sunday := time.Date(2026, 11, 29, 15, 30, 20, 0, berlin)
	for in, want := range map[string]string{
		"":                      "no time that is understood",
		"soon":                  "no time that is understood",
		"9":                     "no time that is understood",
		"14:00":                 "write 'tomorrow 14:00'",
		"today 14:00":           "has passed",
		"2026-11-28":            "has passed",
		"2026-11-29T14:30:19Z":  "has passed",
		"SUNDAY":                "today is a Sunday; write 'today', or 2026-12-06",
		"sun 18:00":             "today is a Sunday",
		"next friday":           "does not mean the same day to everybody",
		"this friday":           "does not mean the same day to everybody",
		"2pm":                   "24 hours",
		"2:30 p.m.":             "24 hours",
		"tomorrow 2pm":          "24 hours",
		"friday evening":        `"evening" is no time of a day`,
		"01/12/2026":            "the day and the month can't be told apart",
		"1.12.2026":             "the day and the month can't be told apart",
		"1-12":                  "the day and the month can't be told apart",
		"25:00":                 "there is no time 25:00",
		"24:01":                 "there is no time 24:01",
		"16:60":                 "there is no time 16:60",
		"2026-02-30":            "there is no day 2026-02-30",
		"2026-13-01":            "there is no day 2026-13-01",
		"2026-12-01T25:00:00Z":  "no time that there is",
		"2026-12-01 noon":       `"noon" is no time of a day`,
		"in 2 months":           `"months" is no unit of time here`,
		"+2":                    "no length",
		"+":                     "says no length",
		"in":                    "says no length",
		"+2h later":             "no length",
		"+11w5000d":             "more than 10 years ahead",
		"in 999999 weeks":       "more than 10 years ahead",
		"2037-01-01":            "more than 10 years ahead",
		"now or never":          "no time that is understood",
		strings.Repeat("1", 65): "too long",
		"2026-12-01\x00":        "no time",
	} {
		got, err := By(in, sunday, berlin)
		if err == nil || !fail.Is(err, fail.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
}

// Where the clocks change, some times are none and some are two.
func TestClocksThatChange(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	before := time.Date(2026, 3, 28, 12, 0, 0, 0, berlin)
	for in, want := range map[string]string{
		"tomorrow":         "2026-03-29T22:00:00Z", // a day of 23 hours ends at its midnight
		"+1d":              "2026-03-29T10:00:00Z",
		"+24h":             "2026-03-29T11:00:00Z",
		"tomorrow 3:00":    "2026-03-29T01:00:00Z",
		"2026-10-25":       "2026-10-25T23:00:00Z",
		"2026-10-25 1:59":  "2026-10-24T23:59:00Z",
		"2026-10-25 3:00":  "2026-10-25T02:00:00Z",
		"tomorrow 1:59:59": "2026-03-29T00:59:59Z",
	} {
		got, err := By(in, before, berlin)
		if err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %s, %v; not %s", in, got.UTC().Format(time.RFC3339), err, want)
		}
	}
	for in, want := range map[string]string{
		"tomorrow 2:30":    "there is no 2:30 in Europe/Berlin",
		"2026-10-25 2:30":  "write 2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00",
		"2026-10-25 02:00": "twice",
	} {
		if got, err := By(in, before, berlin); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
	// Clocks that go back by half an hour.
	howe := zone(t, "Australia/Lord_Howe")
	if got, err := By("2026-04-05 1:45", time.Date(2026, 4, 1, 0, 0, 0, 0, howe), howe); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestPeriod(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	sunday := time.Date(2026, 11, 29, 15, 30, 20, 0, berlin)
	for in, want := range map[string]string{
		"16:00/18:00":                               "2026-11-29T15:00:00Z 2026-11-29T17:00:00Z",
		"tomorrow 14:00/16:00":                      "2026-11-30T13:00:00Z 2026-11-30T15:00:00Z",
		"tomorrow 22:00/24:00":                      "2026-11-30T21:00:00Z 2026-11-30T23:00:00Z",
		"tomorrow 9:00/+2h":                         "2026-11-30T08:00:00Z 2026-11-30T10:00:00Z",
		"friday 14:00/friday 16:00":                 "2026-12-04T13:00:00Z 2026-12-04T15:00:00Z",
		"friday 14:00/saturday":                     "2026-12-04T13:00:00Z 2026-12-05T23:00:00Z",
		"2026-12-01/2026-12-02":                     "2026-11-30T23:00:00Z 2026-12-02T23:00:00Z",
		"now/+30m":                                  "2026-11-29T14:30:20Z 2026-11-29T15:00:20Z",
		"in 2 hours/+1d":                            "2026-11-29T16:30:20Z 2026-11-30T16:30:20Z",
		"2026-12-01T14:00:00Z/2026-12-01T16:00:00Z": "2026-12-01T14:00:00Z 2026-12-01T16:00:00Z",
		"tomorrow/tomorrow":                         "2026-11-29T23:00:00Z 2026-11-30T23:00:00Z",
	} {
		from, until, err := Period(in, sunday, berlin)
		if got := from.UTC().Format(time.RFC3339) + " " + until.UTC().Format(time.RFC3339); err != nil || got != want {
			t.Errorf("%q: %s, %v; not %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"16:00":                 "write FROM/UNTIL",
		"16:00/17:00/18:00":     "write FROM/UNTIL",
		"/":                     "no time that is understood",
		"16:00/":                "no time that is understood",
		"today/tomorrow":        "has passed",
		"tomorrow 22:00/06:00":  "write the day of its end too",
		"tomorrow 9:00/+0h":     "not after its beginning",
		"friday/today":          "not after its beginning",
		"16:00/in 3 hours":      "could count from now",
		"14:00/16:00":           "has passed today",
		"tomorrow 9:00/+999999": "no length",
	} {
		if from, until, err := Period(in, sunday, berlin); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s %s, %v", in, from, until, err)
		}
	}
}

func FuzzBy(f *testing.F) {
	for _, s := range []string{"FRIDAY", "tomorrow 9:00", "+1h30m", "in 3 days", "2026-12-01T14:00:00Z", "2026-03-29 2:30", "14:00/+2h", "+999999w999999w"} {
		f.Add(s)
	}
	berlin := zone(f, "Europe/Berlin")
	now := time.Date(2026, 3, 28, 12, 0, 0, 0, berlin)
	f.Fuzz(func(t *testing.T, s string) {
		if at, err := By(s, now, berlin); err == nil && (at.Before(now) || at.After(now.AddDate(MaxAhead, 0, 0))) {
			t.Errorf("%q gives %s", s, at)
		} else if err == nil {
			// What is written back means the same, wherever one is.
			if again, err := By(at.Format(time.RFC3339Nano), now, time.UTC); err != nil || !again.Equal(at) {
				t.Errorf("%q gives %s, and that %s, %v", s, at, again, err)
			}
		} else if !fail.Is(err, fail.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
		if from, until, err := Period(s, now, berlin); err == nil && !until.After(from) {
			t.Errorf("%q gives %s to %s", s, from, until)
		}
	})
}
