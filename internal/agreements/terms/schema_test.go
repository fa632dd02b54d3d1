package terms

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// TestSchema: agreement/terms.xsd, asked by libxml2, and the reader have one opinion of what is a
// term of ours.
func TestSchema(t *testing.T) {
	lint := testenv.Tool(t, "xmllint", "libxml2-utils")
	word, long := strings.Repeat("é", maxWord), strings.Repeat("é", maxWord+1)
	var docs []string
	add := func(format string, args ...any) { docs = append(docs, fmt.Sprintf(format, args...)) }
	const when = "2026-01-02T03:04:05Z"
	for _, s := range []string{
		when, " " + when + "\n", "2026-01-02T03:04:05", "2026-01-02T24:00:00Z", "2026-01-02T03:04:60Z", "2026-01-02T03:04:05.5+14:00", "2026-01-02T03:04:05+14:01", "2026-01-02T03:04:05-00:00",
		"2026-02-29T00:00:00Z", "2028-02-29T00:00:00Z", "0026-01-02T03:04:05Z", "12026-01-02T03:04:05Z", "2026-1-02T03:04:05Z", "2026-01-02t03:04:05z", "2026-01-02T03:04:05.1234567890Z", "2026-01-02T03:04:05.123456789Z", "", "soon", "2026-13-01T00:00:00Z",
	} {
		add("<p:StartBy>%s</p:StartBy>", s)
		add("<p:FinishBy>%s</p:FinishBy>", s)
	}
	add("<p:StartBy a='1'>%s</p:StartBy>", when)
	add("<p:StartBy><p:x/></p:StartBy>")
	times := "<p:StartTime>2026-01-02T03:04:05Z</p:StartTime><p:EndTime>2026-01-02T04:04:05Z</p:EndTime>"
	for _, s := range []string{times, "", "x", times + times, "<p:EndTime>2026-01-02T04:04:05Z</p:EndTime>", "<p:StartTime>2026-01-02T03:04:05Z</p:StartTime>", "<!-- no --> " + times, strings.ReplaceAll(times, "p:", ""), times + "<p:Site>s</p:Site>"} {
		add("<p:Window>%s</p:Window>", s)
		add("<p:Capacity><p:CPUs>1</p:CPUs>%s</p:Capacity>", s)
	}
	add("<p:Window a='1'>%s</p:Window>", times)
	for _, s := range []string{"1", "0", "-1", "+1", " 7 ", "007", "1.0", "1000000000", "1000000001", "9999999999", "00000000001", "", "x", "1e3"} {
		for _, n := range []string{"CPUs", "Slots", "Nodes"} {
			add("<p:Capacity><p:%s>%s</p:%s>%s</p:Capacity>", n, s, n, times)
		}
	}
	for _, s := range []string{
		"", "<p:CPUs>1</p:CPUs><p:Slots>1</p:Slots>", "<p:Site>s</p:Site><p:Nodes>1</p:Nodes>", "<p:Site>s</p:Site><p:Share>h</p:Share><p:Nodes>1</p:Nodes>", "<p:Share>h</p:Share><p:Nodes>1</p:Nodes>", "<p:Share>h</p:Share><p:Site>s</p:Site><p:Nodes>1</p:Nodes>", "<p:GPUs>1</p:GPUs>",
	} {
		add("<p:Capacity>%s%s</p:Capacity>", s, times)
	}
	for _, s := range []string{"s", "", " ", "a  b\n", word, long, "<p:x/>"} {
		add("<p:Place><p:Site>%s</p:Site></p:Place>", s)
		add("<p:Place><p:Site>s</p:Site><p:Share>%s</p:Share></p:Place>", s)
		add("<p:Price unit='%s'>1</p:Price>", strings.ReplaceAll(s, "<p:x/>", "x"))
	}
	add("<p:Place/>")
	add("<p:Place><p:Share>s</p:Share></p:Place>")
	add("<p:Place><p:Site>s</p:Site><p:Site>s</p:Site></p:Place>")
	for _, s := range []string{"0", "1", "0.125", "0.1250", "-1", "+1", ".5", "1.", "1e3", "999999999.999", "1000000000", "", "INF", " 2 "} {
		add("<p:Price>%s</p:Price>", s)
	}
	add("<p:Price units='x'>1</p:Price>")
	add("<p:Luck/>")
	// What is written here is of the schema.
	w := Window{noon, noon.Add(hours)}
	for _, e := range []string{
		string(xmldoc.Marshal(w.Element())), string(xmldoc.Marshal(StartByElement(noon))), string(xmldoc.Marshal(FinishByElement(noon.Add(1)))), string(xmldoc.Marshal(Place{"a&b", "c"}.Element())),
		string(xmldoc.Marshal(Price{0.125, "EUR"}.Element())), string(xmldoc.Marshal(Booking{Place{"s", ""}, calendar.Amount{Nodes: 3}, w}.Element())), string(xmldoc.Marshal(Price{maxPrice, ""}.Element())),
	} {
		add("%s", e)
	}
	dir := t.TempDir()
	schema, err := filepath.Abs("../../../agreement/terms.xsd")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--nonet", "--noout", "--schema", schema}
	for i, d := range docs {
		d = strings.Replace(d, "<p:", `<p:`, 1)
		end := strings.IndexAny(d, " />")
		docs[i] = d[:end] + ` xmlns:p="` + agreement.NSPortolan + `"` + strings.Replace(d[end:], ` xmlns:p="`+agreement.NSPortolan+`"`, "", 1)
		name := filepath.Join(dir, fmt.Sprintf("%04d.xml", i))
		if err := os.WriteFile(name, []byte(docs[i]), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	out, err := exec.CommandContext(t.Context(), lint, args...).CombinedOutput()
	if err == nil {
		t.Fatal("libxml2 takes everything")
	}
	good := 0
	for i, d := range docs {
		name := fmt.Sprintf("%04d.xml", i)
		valid := strings.Contains(string(out), name+" validates")
		if !valid && !strings.Contains(string(out), name+" fails to validate") {
			t.Fatalf("no verdict on %s: %.2000s", d, out)
		}
		doc, err := xmldoc.ReadBytes([]byte(d), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		r := &reading{Service: Service{Name: "run"}, terms: map[string]string{}}
		err = r.description(&agreement.ServiceDescription{Name: "t", ServiceName: "run", Description: doc.Root()})
		if (err == nil) != valid {
			t.Errorf("%s: libxml2 takes it: %v; here: %v", d, valid, err)
		}
		if valid {
			good++
		}
	}
	if good < 40 || good > len(docs)-60 {
		t.Errorf("%d of %d are good", good, len(docs))
	}
}
