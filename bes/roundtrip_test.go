package bes

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// reread writes an element and reads it again, as the wire does.
func reread(t *rapid.T, e *etree.Element) *etree.Element {
	doc, err := xmldoc.ReadBytes(xmldoc.Marshal(e), xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%v: %s", err, xmldoc.Marshal(e))
	}
	return doc.Root()
}

// words are texts that survive: answers are read without the white space around.
func words(t *rapid.T, label string) string {
	return strings.TrimSpace(rapid.StringOfN(rapid.RuneFrom([]rune("aZ09 <&>\"'é∞\n.:/")), 0, 20, -1).Draw(t, label))
}

func moment(t *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(t, label+" known") {
		return time.Unix(rapid.Int64Range(0, 4e9).Draw(t, label), rapid.Int64Range(0, 999_999_999).Draw(t, label+" ns")).UTC()
	}
	return time.Time{}
}

func TestStatusThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Status{State: rapid.SampledFrom([]State{Pending, Running, Finished, Cancelled, Failed}).Draw(t, "state")}
		for range rapid.IntRange(0, 3).Draw(t, "subs") {
			s.SubStates = append(s.SubStates, xmldoc.Name{
				Space: rapid.SampledFrom([]string{NSPortolan, "http://schemas.ogf.org/hpcp/2007/01/fs"}).Draw(t, "space"),
				Local: rapid.SampledFrom([]string{"Queued", "Executing", "Staging-In"}).Draw(t, "local"),
			})
		}
		if rapid.Bool().Draw(t, "details") {
			s.Details = &Details{
				Name: words(t, "name"), Site: words(t, "site"), Reason: words(t, "reason"), Signal: words(t, "signal"),
				Submitted: moment(t, "submitted"), Started: moment(t, "started"), Ended: moment(t, "ended"),
				Revision: rapid.Int64().Draw(t, "revision"),
			}
			if rapid.Bool().Draw(t, "exited") {
				v := rapid.IntRange(-1, 255).Draw(t, "exit")
				s.Details.ExitStatus = &v
			}
			s.Details.Progress = rapid.SampledFrom([]float64{0, 0.01, 1. / 3, 1}).Draw(t, "progress")
			s.Details.Usage = Usage{
				CPU:    time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "cpu")),
				Memory: rapid.Int64Range(0, 1<<50).Draw(t, "memory"),
			}
			for i := range rapid.IntRange(0, 3).Draw(t, "hosts") {
				s.Details.Hosts = append(s.Details.Hosts, fmt.Sprintf("node%d", i))
			}
			for i := range rapid.IntRange(0, 3).Draw(t, "attributes") {
				if s.Details.Attributes == nil {
					s.Details.Attributes = map[string]string{}
				}
				s.Details.Attributes[fmt.Sprintf("Name<%d>", i)] = words(t, "value")
			}
		}
		if got := decodeStatus(reread(t, encodeStatus(s))); !reflect.DeepEqual(got, s) {
			t.Fatalf("%+v became %+v", s, got)
		}
	})
}

func TestFactoryAttributesThereAndBack(t *testing.T) {
	number := func(t *rapid.T, label string) float64 {
		return rapid.SampledFrom([]float64{0, 1, 2.5e9, 1 << 40, 0.25, 1e300}).Draw(t, label)
	}
	basic := func(t *rapid.T) BasicResource {
		return BasicResource{
			ResourceName: words(t, "name"), OperatingSystem: rapid.SampledFrom([]string{"", "LINUX"}).Draw(t, "os"),
			OperatingSystemVersion: words(t, "version"), CPUArchitecture: rapid.SampledFrom([]string{"", "arm"}).Draw(t, "arch"),
			CPUCount: number(t, "cpus"), CPUSpeed: number(t, "speed"), PhysicalMemory: number(t, "memory"), VirtualMemory: number(t, "virtual"),
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		fa := &FactoryAttributes{
			IsAcceptingNewActivities: rapid.Bool().Draw(t, "accepting"), CommonName: words(t, "common"), LongDescription: words(t, "long"),
			TotalNumberOfActivities: rapid.Int64().Draw(t, "total"), TotalContainedResources: rapid.Int64().Draw(t, "resources"),
			NamingProfiles: []string{namingBasic}, Extensions: rapid.SampledFrom([][]string{nil, {"urn:a", "urn:b"}}).Draw(t, "extensions"),
			LocalResourceManagerType: words(t, "manager"),
		}
		if rapid.Bool().Draw(t, "basic") {
			b := basic(t)
			fa.Basic = &b
		}
		for range rapid.IntRange(0, 3).Draw(t, "contained") {
			fa.ContainedResources = append(fa.ContainedResources, basic(t))
		}
		if got := decodeFactory(reread(t, encodeFactory(fa))); !reflect.DeepEqual(got, fa) {
			t.Fatalf("%+v became %+v", fa, got)
		}
	})
}

func TestHistoryAndOutputThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lines []HistoryEntry
		for i := range rapid.IntRange(0, 4).Draw(t, "lines") {
			lines = append(lines, HistoryEntry{
				Sequence: i, Time: time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "time"), 0).UTC(), State: Running, SubState: words(t, "sub"),
				Site: words(t, "site"), Attempt: rapid.IntRange(0, 9).Draw(t, "attempt"), Event: words(t, "event"), Reason: words(t, "reason"),
			})
		}
		e := controlPort.message("GetActivityHistoryResponse")
		encodeHistory(e, lines)
		if got := decodeHistory(reread(t, e)); !reflect.DeepEqual(got, lines) {
			t.Fatalf("%+v became %+v", lines, got)
		}
		chunk := &OutputChunk{Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data"), Offset: rapid.Int64Range(0, 1<<60).Draw(t, "offset"), More: rapid.Bool().Draw(t, "more")}
		e = controlPort.message("GetActivityOutputResponse")
		encodeOutput(e, chunk)
		got, err := decodeOutput(reread(t, e))
		if err != nil || string(got.Data) != string(chunk.Data) || got.Offset != chunk.Offset || got.More != chunk.More {
			t.Fatalf("%+v became %+v, %v", chunk, got, err)
		}
	})
}

// TestDetachedReferencesMeanTheSame: what detachUsed leaves out is not used.
func TestDetachedReferencesMeanTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefixes := []string{"a", "b", "c", "d"}
		var b strings.Builder
		b.WriteString(`<root xmlns="urn:default"`)
		for _, p := range prefixes {
			fmt.Fprintf(&b, ` xmlns:%s="urn:%s"`, p, p)
		}
		p := func(label string) string { return rapid.SampledFrom(prefixes).Draw(t, label) }
		fmt.Fprintf(&b, `><mid xmlns:b="urn:again"><%s:e %s:x="%s:q"><f>see %s:r, (%s:s)</f><%s:g xmlns:a="urn:own"/></%[1]s:e></mid></root>`, p("element"), p("attribute"), p("value"), p("text"), p("text"), p("child"))
		doc, err := xmldoc.ReadBytes([]byte(b.String()), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		e := doc.Root().ChildElements()[0].ChildElements()[0]
		copied, _ := detachUsed(e)
		back := reread(t, copied)
		var compare func(x, y *etree.Element)
		compare = func(x, y *etree.Element) {
			if xmldoc.NameOf(x) != xmldoc.NameOf(y) || xmldoc.Text(x) != xmldoc.Text(y) {
				t.Fatalf("%s became %s", xmldoc.Marshal(x), xmldoc.Marshal(y))
			}
			for _, q := range []string{"a:q", "b:q", "c:q", "d:q"} {
				n, _ := xmldoc.ResolveQName(x, q)
				if m, err := xmldoc.ResolveQName(y, q); strings.Contains(string(xmldoc.Marshal(e)), q[:2]) && (err != nil || n != m) {
					t.Fatalf("%s means %v, %v in %s", q, m, err, xmldoc.Marshal(copied))
				}
			}
			for i, c := range x.ChildElements() {
				compare(c, y.ChildElements()[i])
			}
		}
		compare(e, back)
	})
}

// TestReferencesAndAnswersOfTheSamples reads what the samples have for clients.
func TestReferencesAndAnswersOfTheSamples(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "samples", "soap")
	for name, want := range map[string]string{
		"epr-bespp-arc-xml.xml":     "https://interop.grid.niif.hu:2010/arex-x509",
		"epr-bespp-gridsam-xml.xml": "https://gridsam-test.oerc.ox.ac.uk:18443/gridsam/services/hpcbp",
		"epr-bespp-unicore-xml.xml": "https://zam1161v01.zam.kfa-juelich.de:8002/DEMO-SITE/services/BESFactory?res=default_bes_factory",
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e, err := soap.DecodeEPR(doc.Root())
		if err != nil || e.Address != want {
			t.Errorf("%s: %q, %v", name, e.Address, err)
		}
		if id, ok := ActivityID(e); ok {
			t.Errorf("%s names our activity %q", name, id)
		}
	}
}
