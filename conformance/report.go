package conformance

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Result is the outcome of a check.
type Result string

// The results.
const (
	Pass Result = "pass"
	Fail Result = "fail"
	Skip Result = "skip"
)

// Check is one check with its outcome.
type Check struct {
	ID     string        `json:"id"`
	Clause string        `json:"clause"` // the document and the clause that it proves
	Title  string        `json:"title"`
	Result Result        `json:"result"`
	Saw    string        `json:"saw"` // what came back, or why the check was not made
	Took   time.Duration `json:"-"`
}

// Summary counts.
type Summary struct {
	Total   int `json:"total"`
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
}

// Report is a run.
type Report struct {
	Endpoint string        `json:"-"`
	Started  time.Time     `json:"-"`
	Took     time.Duration `json:"-"`
	Reached  bool          `json:"-"` // something answered at least once
	Checks   []Check       `json:"checks"`
	Summary  Summary       `json:"summary"`
}

func (r *Report) add(c Check) {
	r.Checks = append(r.Checks, c)
	r.Summary.Total++
	switch c.Result {
	case Pass:
		r.Summary.Passed++
	case Fail:
		r.Summary.Failed++
	case Skip:
		r.Summary.Skipped++
	}
}

// OK reports whether something passed and nothing failed.
func (r *Report) OK() bool { return r.Summary.Failed == 0 && r.Summary.Passed > 0 }

// WriteText writes the report for people: a line a check, the failures and what
// was skipped with what was seen, the counts.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Endpoint)
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-4s  %-14s  %s\n", c.Result, c.ID, c.Title)
		if c.Result != Pass {
			fmt.Fprintf(&b, "      %s\n      clause: %s\n", c.Saw, c.Clause)
		}
	}
	s := r.Summary
	fmt.Fprintf(&b, "%d checks: %d passed, %d failed, %d skipped\n", s.Total, s.Passed, s.Failed, s.Skipped)
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes {"checks": [...], "summary": {...}}.
func (r *Report) WriteJSON(w io.Writer) error {
	out := *r
	if out.Checks == nil {
		out.Checks = []Check{}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(&out)
}

type junitSuite struct {
	XMLName   xml.Name    `xml:"testsuite"`
	Name      string      `xml:"name,attr"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Errors    int         `xml:"errors,attr"`
	Skipped   int         `xml:"skipped,attr"`
	Time      string      `xml:"time,attr"`
	Timestamp string      `xml:"timestamp,attr"`
	Hostname  string      `xml:"hostname,attr"`
	Cases     []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes the report as one JUnit test suite.
func (r *Report) WriteJUnit(w io.Writer) error {
	s := junitSuite{
		Name: "portolan conformance", Hostname: r.Endpoint,
		Tests: r.Summary.Total, Failures: r.Summary.Failed, Skipped: r.Summary.Skipped,
		Time: seconds(r.Took), Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05"),
	}
	for _, c := range r.Checks {
		chapter, _, _ := strings.Cut(c.ID, "-")
		jc := junitCase{Class: "conformance." + chapter, Name: c.ID + ": " + c.Title, Time: seconds(c.Took)}
		switch c.Result {
		case Pass:
			jc.Out = c.Saw
		case Fail:
			jc.Failure = &junitMessage{Message: c.Saw, Text: "clause: " + c.Clause}
		case Skip:
			jc.Skipped = &junitMessage{Message: c.Saw}
		}
		s.Cases = append(s.Cases, jc)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// shown bounds a sentence of a report, in bytes.
const shown = 400

// printable makes what a stranger sent fit for a terminal: one line, no control
// characters, not long.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	var b strings.Builder
	space := false
	for _, c := range s {
		if unicode.IsSpace(c) {
			space = true
			continue
		}
		if space && b.Len() > 0 {
			b.WriteByte(' ')
		}
		space = false
		if !unicode.IsPrint(c) {
			c = utf8.RuneError
		}
		if b.Len() >= shown {
			b.WriteString("…")
			break
		}
		b.WriteRune(c)
	}
	return b.String()
}
