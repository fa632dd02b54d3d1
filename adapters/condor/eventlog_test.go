package condor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const submitRecord = `<c>
    <a n="Proc"><i>1</i></a>
    <a n="MyType"><s>SubmitEvent</s></a>
    <a n="Cluster"><i>7</i></a>
    <a n="LogNotes"><s>portolan tag-1 b12</s></a>
    <a n="EventTime"><s>2026-11-24T22:35:43.743</s></a>
    <a n="SubmitHost"><s>&lt;127.0.0.1:24419?a=&amp;b&gt;</s></a>
    <a n="EventTypeNumber"><i>0</i></a>
</c>
`

const executeRecord = `<c>
    <a n="Proc"><i>1</i></a>
    <a n="Cluster"><i>7</i></a>
    <a n="SlotName"><s>slot1_1@node</s></a>
    <a n="ExecuteProps"><c>
        <a n="Cpus"><i>1</i></a>
        <a n="EventTypeNumber"><i>99</i></a>
        <a n="L"><l><i>1</i><s>x</s></l></a>
    </c></a>
    <a n="Odd"><un/></a>
    <a n="Normal"><b v="t"/></a>
    <a n="EventTypeNumber"><i>1</i></a>
</c>
`

func scanAll(data string) (events []*event, rest string, damaged int) {
	left, damaged := scan([]byte(data), func(e *event) { events = append(events, e) })
	return events, string(left), damaged
}

func TestEventLog(t *testing.T) {
	events, rest, damaged := scanAll(submitRecord + executeRecord + submitRecord[:40])
	if len(events) != 2 || rest != submitRecord[:40] || damaged != 0 {
		t.Fatalf("two records and a piece give %d, %q, %d damaged", len(events), rest, damaged)
	}
	s, x := events[0], events[1]
	if s.number != 0 || s.cluster != 7 || s.proc != 1 || s.text("SubmitHost") != "<127.0.0.1:24419?a=&b>" {
		t.Errorf("a submission is read as %+v", s)
	}
	if tag, batch, ok := parseNote(s.text("LogNotes")); tag != "tag-1" || batch != "b12" || !ok {
		t.Errorf("its note is read as %q, %q, %v", tag, batch, ok)
	}
	if want := time.Date(2026, 11, 24, 22, 35, 43, 743e6, time.Local); !s.time().Equal(want) {
		t.Errorf("its time is %v", s.time())
	}
	if x.number != 1 || x.text("SlotName") != "slot1_1@node" || !x.yes("Normal") || x.text("Cpus") != "" {
		t.Errorf("what is within a record is not its own: %+v", x)
	}
}

// What a writer left that died in the middle costs its own record alone.
func TestEventLogDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		data    string
		events  int
		damaged bool
	}{
		"half a record":      {submitRecord[:100] + "\n" + executeRecord, 1, true},
		"half a word":        {submitRecord[:102] + submitRecord, 0, true},
		"noise":              {"noise\n" + executeRecord + "more\n" + submitRecord, 2, true},
		"no number":          {strings.Replace(submitRecord, "EventTypeNumber", "X", 1) + executeRecord, 1, true},
		"a number too large": {strings.Replace(submitRecord, "<i>7</i>", "<i>99999999999999999999</i>", 1) + executeRecord, 1, true},
		"zeros":              {submitRecord + strings.Repeat("\x00", 100) + "\n" + executeRecord, 2, true},
		"too long":           {"<c>\n" + strings.Repeat("x", maxEvent+1) + "\n" + executeRecord, 1, true},
		"too deep":           {"<c>\n" + strings.Repeat(`<a n="a"><c>`, 100) + "\n</c>\n" + executeRecord, 1, true},
		"a text with a mark": {strings.Replace(submitRecord, "b12", "b12 &lt;c&gt;", 1), 1, false},
		"nothing":            {"", 0, false},
		"a cut entity":       {strings.Replace(submitRecord, "&amp;", "&", 1), 1, false},
	} {
		events, _, damaged := scanAll(c.data)
		if len(events) != c.events || (damaged > 0) != c.damaged {
			t.Errorf("%s: %d events, %d damaged; want %d and %v", name, len(events), damaged, c.events, c.damaged)
		}
	}
}

// Wherever the reading is cut, the events are the same.
func TestEventLogInPieces(t *testing.T) {
	whole := strings.Repeat(submitRecord+executeRecord, 5)
	want, _, _ := scanAll(whole)
	rapid.Check(t, func(t *rapid.T) {
		var rest []byte
		var got []*event
		for left := whole; left != ""; {
			n := rapid.IntRange(1, len(left)).Draw(t, "n")
			var damaged int
			rest, damaged = scan(append(slices.Clone(rest), left[:n]...), func(e *event) { got = append(got, e) })
			if damaged > 0 {
				t.Fatalf("a cut is taken for damage")
			}
			left = left[n:]
		}
		if len(got) != len(want) || len(strings.TrimSpace(string(rest))) > 0 {
			t.Fatalf("%d events, want %d; %q is left", len(got), len(want), rest)
		}
	})
}

// A log that is shortened under its reader is read from its beginning, and said to be.
func TestLogShrinks(t *testing.T) {
	l := &logFile{path: filepath.Join(t.TempDir(), "0.0.log"), jobs: map[ids]*job{}}
	n := 0
	grow := func() bool {
		t.Helper()
		_, shrunk, err := l.grow(func(*event) { n++ })
		if err != nil {
			t.Fatal(err)
		}
		return shrunk
	}
	if grow() || n != 0 {
		t.Error("a log that is not there yet has events")
	}
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(l.path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(submitRecord + executeRecord[:30])
	if grow() || n != 1 {
		t.Errorf("%d events, want 1", n)
	}
	write(submitRecord + executeRecord)
	if grow() || n != 2 {
		t.Errorf("%d events, want 2", n)
	}
	write(submitRecord)
	if !grow() || n != 3 {
		t.Errorf("a shortened log is not noticed: %d events", n)
	}
}

func FuzzEventLog(f *testing.F) {
	for _, s := range []string{submitRecord, executeRecord, submitRecord[:77] + executeRecord, "<c></c>", "<c>\n</c>\n<c>", `<c><a n="a"><c>`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rest, _ := scan(data, func(e *event) {
			if e.number < 0 || e.cluster < 0 || e.proc < -1 || len(e.attributes) > maxAttributes {
				t.Errorf("an impossible event: %+v", e)
			}
			_ = e.time()
			_, _, _ = parseNote(e.text("LogNotes"))
			_, _ = parseUsage(e.text("RunRemoteUsage"))
		})
		if len(rest) > len(data) || len(rest) > maxEvent {
			t.Errorf("%d bytes are kept of %d", len(rest), len(data))
		}
	})
}

func FuzzAds(f *testing.F) {
	f.Add([]byte(`[{"ClusterId":1,"ProcId":0,"JobStatus":4,"ExitCode":3,"HoldReason":"x","RemoteHost":"slot1@a","ResidentSetSize":"\/Expr(x)\/"}]`))
	f.Add([]byte(``))
	f.Add([]byte("[\n]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ads, err := parseAds(data)
		if err != nil {
			return
		}
		for i := range ads {
			j := &job{tag: "t", dir: jobDir(t.TempDir())}
			j.takeAd(&ads[i], i%2 == 0, &Settings{Holds: "end"})
			if j.evidence().Phase == 0 && i%2 == 0 {
				t.Error("a job of the history is of no phase")
			}
		}
		_, _ = parseSlots(data)
		_, _, _ = parseSchedds(data)
	})
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", `"`, `\`, `\"`, `\\`, "$$(Cpus)", "$$$", "a\nb", `\\\"`, "żó"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q := quote(s)
		if strings.ContainsAny(q, "\n\r\x00") || strings.Contains(q, "$$") || q[0] != '"' || q[len(q)-1] != '"' {
			t.Fatalf("%q is quoted as %s", s, q)
		}
		// As the old ClassAd language reads it: a backslash escapes a quote and nothing else.
		inner := q[1 : len(q)-1]
		for i := 0; i < len(inner); i++ {
			switch {
			case inner[i] == '\\' && i+1 < len(inner) && inner[i+1] == '"':
				i++
			case inner[i] == '"':
				t.Fatalf("%q ends early: %s", s, q)
			}
		}
		if strings.HasSuffix(inner, `\`) {
			t.Fatalf("%q escapes its own end: %s", s, q)
		}
	})
}

func FuzzExpression(f *testing.F) {
	for _, s := range []string{"a", "(a) || (b", `"x`, "a)", "[a={1}]", `"a\"b"`, "a//b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if expression(s) == nil && (strings.TrimSpace(s) == "" || strings.Contains(s, "$$") || strings.ContainsAny(oneLine(s), "\n\r")) {
			t.Errorf("%q is taken for an expression", s)
		}
	})
}

func TestTerse(t *testing.T) {
	for _, c := range []struct {
		said    string
		n, want int
	}{
		{"12.0 - 12.4\n", 5, 12},
		{"WARNING: x\n3.0 - 3.0", 1, 3},
		{"12.0 - 12.4", 4, 0},
		{"12.1 - 12.4", 4, 0},
		{"12.0 - 13.0", 1, 0},
		{"", 1, 0},
		{"x.0 - x.1", 2, 0},
	} {
		if got, err := parseTerse(c.said, c.n); got != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%q for %d jobs gives %d, %v", c.said, c.n, got, err)
		}
	}
}

func TestUsage(t *testing.T) {
	if d, ok := parseUsage("Usr 1 02:03:04, Sys 0 00:00:06"); !ok || d != 26*time.Hour+3*time.Minute+10*time.Second {
		t.Errorf("%v, %v", d, ok)
	}
	for _, bad := range []string{"", "Usr", "Usr -1 00:00:00, Sys 0 00:00:00", "Usr 99999999999 00:00:00, Sys 0 00:00:00"} {
		if _, ok := parseUsage(bad); ok {
			t.Errorf("%q is a usage", bad)
		}
	}
}
