package e2e

import (
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"
)

// TestConformance: the program's own verb judges the program's own gateway, and
// everything passes.
func TestConformance(t *testing.T) {
	g := start(t)
	out, errs, code := portolan(t, "conformance", "--endpoint", g.endpoint, "-o", "json")
	var rep struct {
		Checks []struct {
			ID     string `json:"id"`
			Clause string `json:"clause"`
			Title  string `json:"title"`
			Result string `json:"result"`
			Saw    string `json:"saw"`
		} `json:"checks"`
		Summary struct{ Total, Passed, Failed, Skipped int } `json:"summary"`
	}
	if err := json.Unmarshal([]byte(out), &rep); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, errs)
	}
	for _, c := range rep.Checks {
		switch c.Result {
		case "pass":
		case "skip":
			t.Logf("skipped %s: %s", c.ID, c.Saw)
		default:
			t.Errorf("%s %s (%s): %s", c.ID, c.Title, c.Clause, c.Saw)
		}
	}
	if code != 0 || rep.Summary.Failed != 0 || rep.Summary.Passed < 60 || rep.Summary.Total != len(rep.Checks) {
		t.Errorf("exit code %d, %+v\n%s", code, rep.Summary, errs)
	}
}

// TestConformanceOfTheOtherDialect: the published lineage conforms as well.
func TestConformanceOfTheOtherDialect(t *testing.T) {
	g := start(t, "--bes-dialect", "2007")
	out, errs, code := portolan(t, "conformance", "--endpoint", g.endpoint)
	if code != 0 || !strings.Contains(out, " 0 failed") {
		t.Errorf("exit code %d\n%s\n%s", code, out, errs)
	}
}

// TestConformanceJUnit: the report is XML that CI servers read, also where
// nobody answers.
func TestConformanceJUnit(t *testing.T) {
	out, _, code := portolan(t, "conformance", "--endpoint", "http://127.0.0.1:9/bes", "--only", "SOAP11", "-o", "junit")
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
	}
	if err := xml.Unmarshal([]byte(out), &suite); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if suite.Tests == 0 || suite.Failures == 0 || code != 3 {
		t.Errorf("exit code %d, %+v", code, suite)
	}
}
