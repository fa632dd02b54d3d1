package ledger

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func usages(t testing.TB) map[string]JobUsage {
	return map[string]JobUsage{
		"least": {RecordID: "r1", Status: "Queued"},
		"whole": {
			RecordID: "urn:uuid:6a3f", Created: noon.Add(3 * time.Hour), GlobalJobID: "job-17", LocalJobID: "4711", ProcessIDs: []string{"1", "2"},
			LocalUser: "grid07", GlobalUser: "CN=Ada & Co,O=Example", JobName: "<nightly>", Project: "bio", Agreement: "agreement-3",
			Status: "Completed", Wall: 90 * time.Minute, UserCPU: 171*time.Minute + 250*time.Millisecond, SystemCPU: 2 * time.Second,
			Start: noon, End: noon.Add(90 * time.Minute), Nodes: 2, Processors: 64, MemoryBytes: 5 << 30,
			MachineName: "cluster.example.org", SubmitHost: "gateway.example.org", Hosts: []string{"n1.example.org", "x", "n_3"}, Queue: "long",
			Charges: []Charge{{amount(t, "12.000000001"), "credit", "0.125 for each core-hour"}, {amount(t, "-5"), "euro", ""}},
		},
		"failed": {RecordID: "r2", Status: "Failed", GlobalUser: "Ada", Hosts: []string{strings.Repeat("ab.", 90) + "org"}, UserCPU: 1},
	}
}

// TestRecords: what is written, word for word, and valid by the schema of GFD.98.
func TestRecords(t *testing.T) {
	a, err := txtar.ParseFile("testdata/records.txtar")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, f := range a.Files {
		want[f.Name] = string(f.Data)
	}
	out := &txtar.Archive{Comment: a.Comment}
	us := usages(t)
	dir := t.TempDir()
	var files []string
	keep := func(name string, b []byte) {
		if want[name] != string(b) && !*update {
			t.Errorf("%s is\n%s", name, b)
		}
		out.Files = append(out.Files, txtar.File{Name: name, Data: b})
		if strings.HasSuffix(name, ".xml") {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			files = append(files, path)
		}
	}
	var all []JobUsage
	for _, name := range []string{"least", "whole", "failed"} {
		u := us[name]
		all = append(all, u)
		var x, j bytes.Buffer
		if err := errors.Join(WriteXML(&x, &u), WriteJSON(&j, &u)); err != nil {
			t.Fatal(err)
		}
		keep(name+".xml", x.Bytes())
		keep(name+".json", j.Bytes())
	}
	var x bytes.Buffer
	if err := WriteAllXML(&x, all); err != nil {
		t.Fatal(err)
	}
	keep("all.xml", x.Bytes())
	if *update {
		if err := os.WriteFile("testdata/records.txtar", txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x.Reset()
	if err := WriteAllXML(&x, nil); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none.xml")
	if err := os.WriteFile(none, x.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	files = append(files, none)

	lint := testenv.Tool(t, "xmllint", "libxml2-utils")
	schemas := filepath.Join(testenv.Shared(t), "schemas", "jsdl")
	cmd := exec.CommandContext(t.Context(), lint, append([]string{"--nonet", "--noout", "--schema", filepath.Join(schemas, "ur.xsd")}, files...)...)
	cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+filepath.Join(schemas, "catalog.xml"))
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("xmllint: %v\n%s", err, said)
	}
}

func TestUsageRefuses(t *testing.T) {
	for name, change := range map[string]func(*JobUsage){
		"no id":     func(u *JobUsage) { u.RecordID = "" },
		"status":    func(u *JobUsage) { u.Status = "Done" },
		"control":   func(u *JobUsage) { u.JobName = "a\x00" },
		"long":      func(u *JobUsage) { u.Queue = strings.Repeat("q", maxEvidence+1) },
		"not UTF-8": func(u *JobUsage) { u.Hosts = []string{"\xff"} },
		"negative":  func(u *JobUsage) { u.Wall = -1 },
		"backwards": func(u *JobUsage) { u.End = u.Start.Add(-1) },
		"processes": func(u *JobUsage) { u.ProcessIDs = make([]string, maxRecordList+1) },
	} {
		u := usages(t)["whole"]
		change(&u)
		var b bytes.Buffer
		for _, err := range []error{WriteXML(&b, &u), WriteJSON(&b, &u), WriteAllXML(&b, []JobUsage{u})} {
			if !fail.Is(err, fail.Invalid) || b.Len() > 0 {
				t.Errorf("%s: %v, %d bytes written", name, err, b.Len())
			}
		}
	}
	u := usages(t)["whole"]
	if err := WriteXML(broken{}, &u); !errors.Is(err, errBroken) {
		t.Errorf("a writer that fails: %v", err)
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestChargesOfAJob(t *testing.T) {
	l := New()
	for i, e := range []Entry{
		{Job: "j", Kind: Price, Unit: "credit", Amount: amount(t, "0.1")},
		{Job: "j", Kind: Price, Unit: "credit", Amount: amount(t, "0.2")},
		{Job: "j", Kind: Penalty, Unit: "euro", Amount: amount(t, "-5")},
		{Job: "j", Kind: Usage, Unit: "core-seconds", Amount: amount(t, "9")},
		{Job: "other", Kind: Price, Unit: "credit", Amount: amount(t, "7")},
	} {
		e.ID, e.VO, e.Time = string(rune('a'+i)), "bio", noon
		no(t, l.Post(e))
	}
	got := l.Charges("j")
	if len(got) != 2 || got[0] != (Charge{Amount: amount(t, "0.3"), Unit: "credit"}) || got[1] != (Charge{Amount: amount(t, "-5"), Unit: "euro"}) {
		t.Errorf("the charges are %v", got)
	}
}
