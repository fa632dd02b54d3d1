package terms

import (
	"os"
	"strings"
	"testing"
)

// TestDocs: the offers of docs/agreement.md are understood, one of each kind, and can be
// planned.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../../docs/agreement.md")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for i, part := range strings.Split(string(b), "```") {
		doc, ok := strings.CutPrefix(part, "xml\n")
		if i%2 == 0 || !ok {
			continue
		}
		a := offer(t, doc)
		q, err := Read(a, noon, Settings{})
		if err != nil {
			t.Errorf("%v in %s", err, doc)
			continue
		}
		kinds = append(kinds, string(q.Kind))
		if kind, _, _ := strings.Cut(a.Context.TemplateName, "@"); kind != string(q.Kind) {
			t.Errorf("the template is %s, and the offer %s", a.Context.TemplateName, q.Kind)
		}
		plans, err := Plans(q, model(t, slurm(), condor()), bio, noon, Settings{})
		if err != nil {
			t.Errorf("%v in %s", err, doc)
			continue
		}
		sound(t, q, plans)
	}
	if got := strings.Join(kinds, " "); got != strings.Join(kindNames(), " ") {
		t.Errorf("the offers are of the kinds %s", got)
	}
}
