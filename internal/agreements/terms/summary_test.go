package terms

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestSummary: what is said of offers, in a zone.
func TestSummary(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	late := guaranteeTerm("late", "startTime", `<p:LessOrEqual><p:Variable name="startTime"/><p:Variable name="windowStart"/></p:LessOrEqual>`, "run")
	due := strings.Replace(late, "<wsag:BusinessValueList/>", "<wsag:BusinessValueList><wsag:Penalty><wsag:AssessmentInterval><wsag:Count>1</wsag:Count></wsag:AssessmentInterval><wsag:ValueUnit>credit</wsag:ValueUnit><wsag:ValueExpression>5</wsag:ValueExpression></wsag:Penalty></wsag:BusinessValueList>", 1)
	place := sdt("place", "<p:Place><p:Site>slurm</p:Site><p:Share>batch</p:Share></p:Place>")
	out := &txtar.Archive{Comment: []byte("What is said of offers.\n")}
	for _, c := range []struct {
		name  string
		terms []string
	}{
		{"best effort", []string{sdt("job", job("x", 0, ""))}},
		{"start by", []string{sdt("job", job("x", 5400, cpus(64))), place, sdt("by", "<p:StartBy>"+at(hours)+"</p:StartBy>")}},
		{"finish by", []string{sdt("job", job("x", 93784, "")), sdt("by", "<p:FinishBy>"+at(80*hours)+"</p:FinishBy>"), sdt("s", "<p:StartBy>"+at(hours)+"</p:StartBy>"), sdt("price", "<p:Price>0.5</p:Price>")}},
		{"window", []string{sdt("job", job("x", 60, cpus(64))), place, sdt("w", window(90*time.Minute-30*time.Second, 3*hours-30*time.Second)), due}},
		{"over midnight", []string{sdt("job", job("x", 60, "")), sdt("w", window(9*hours, 12*hours)), late}},
		{"capacity", []string{sdt("c", "<p:Capacity><p:Site>slurm</p:Site><p:Nodes>3</p:Nodes><p:StartTime>"+at(hours)+"</p:StartTime><p:EndTime>"+at(2*hours)+"</p:EndTime></p:Capacity>"), guaranteeTerm("there", "availability", "<p:atLeast>0.99</p:atLeast>")}},
		{"two services", []string{sdtOf("a", "ja", job("x", 60, "")), sdtOf("b", "jb", job("y", 60, "")), guaranteeTerm("soon", "queueWait", "<p:atMost>PT1H</p:atMost>", "b")}},
		{"two services and a scope of all", []string{sdtOf("a", "ja", job("x", 60, "")), sdtOf("b", "jb", job("y", 60, "")), strings.Replace(guaranteeTerm("soon", "queueWait", "<p:atMost>PT1H</p:atMost>", "b"), "<wsag:ServiceScope ", "<wsag:ServiceScope/><wsag:ServiceScope ", 1)}},
		{"a choice", []string{sdt("job", job("x", 60, "")), "<wsag:ExactlyOne>" + sdt("s", "<p:StartBy>"+at(hours)+"</p:StartBy>") + sdt("f", "<p:FinishBy>"+at(hours)+"</p:FinishBy>") + "</wsag:ExactlyOne>"}},
		{"a stranger", []string{sdt("odd", `<x:Thing xmlns:x="urn:x"/>`), guaranteeTerm("g", "luck", "<p:atMost>1</p:atMost>")}},
	} {
		a := offer(t, documentUntil(at(240*hours), c.terms...))
		list := Summary(a, berlin)
		if again := Summary(a, berlin); !slices.Equal(list, again) {
			t.Errorf("%s: said %q and %q", c.name, list, again)
		}
		out.Files = append(out.Files, txtar.File{Name: c.name, Data: []byte(strings.Join(list, "\n") + "\n")})
	}
	golden(t, "testdata/summary.txtar", out)
}
