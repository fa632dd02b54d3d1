package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/conformance"
)

// TestAgreementConformance: the program's own verb judges the agreements of the program's own
// gateway, with a template that has constraints of many kinds, and nothing fails.
func TestAgreementConformance(t *testing.T) {
	templates, err := filepath.Abs(filepath.Join("testdata", "agreement"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "gateway.yaml")
	text := fmt.Sprintf("sites:\n  - {name: hosts, type: shell, settings: {slots: 64}}\nagreements: {templates: %q}\n", templates)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startOn(t, filepath.Join(dir, "data"), "--config", config)
	o := conformance.Options{Profile: conformance.WSAG, Endpoint: strings.TrimSuffix(g.endpoint, "/bes") + "/agreement", Listen: "127.0.0.1:0"}
	rep, err := conformance.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range rep.Checks {
		switch c.Result {
		case conformance.Pass:
		case conformance.Skip:
			t.Logf("skipped %s: %s", c.ID, c.Saw)
		case conformance.Fail:
			t.Errorf("%s %s (%s): %s", c.ID, c.Title, c.Clause, c.Saw)
		}
	}
	t.Logf("%d checks, %d passed, %d skipped", rep.Summary.Total, rep.Summary.Passed, rep.Summary.Skipped)
	if rep.Summary.Passed < 220 {
		t.Errorf("%+v", rep.Summary)
	}
	if t.Failed() {
		t.Logf("the log of the gateway:\n%s", g.log.tail())
	}
}
