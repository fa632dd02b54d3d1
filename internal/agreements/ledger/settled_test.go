package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
)

func someSettled() []Settled {
	return []Settled{
		{
			Agreement: "a1", Name: "nightly", VO: "bio", User: "ada", Status: "Completed", Ended: noon.Add(2 * time.Hour),
			Jobs: []SettledJob{
				{Job: "j1", Status: "Completed", Site: "slurm", Share: "batch", CPUs: 4, Begun: noon, Ended: noon.Add(time.Hour), Wall: time.Hour},
				{Job: "j2", Status: "Failed", Site: "hosts", Begun: noon.Add(time.Hour), Ended: noon, Wall: time.Second}, // by two clocks
			},
			Amounts: []SettledAmount{
				{Usage, "cpu-second", "14400", "j1"},
				{Usage, "cpu-second", "1", "j2"},
				{Price, "credit", "1.25", ""},
				{Penalty, "credit", "-7.5", "j2"},
				{Reward, "euro", "2", "j1"},
			},
		},
		{Agreement: "a2", User: "bob", Status: "Aborted", Ended: noon, Amounts: []SettledAmount{{Price, "credit", "3", ""}, {Penalty, "credit", "-1", "lost"}}},
		{Agreement: "a3", VO: "bio", User: "eve", Status: "Completed", Ended: noon, Amounts: []SettledAmount{{Price, "credit", "0.75", ""}}},
	}
}

func TestSettledRecords(t *testing.T) {
	var all []JobUsage
	list := someSettled()
	for i := range list {
		us, err := list[i].Records()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, us...)
	}
	if len(all) != 4 {
		t.Fatalf("%+v", all)
	}
	charge := func(amount0, unit string) Charge { return Charge{Amount: amount(t, amount0), Unit: unit} }
	for i, want := range []JobUsage{
		{RecordID: "a1/0", GlobalJobID: "j1", Status: "Completed", Wall: time.Hour, Start: noon, End: noon.Add(time.Hour), Processors: 4, MachineName: "slurm", Queue: "batch", Charges: []Charge{charge("1.25", "credit"), charge("2", "euro")}},
		{RecordID: "a1/1", GlobalJobID: "j2", Status: "Failed", Wall: time.Second, End: noon, MachineName: "hosts", Charges: []Charge{charge("-7.5", "credit")}},
		{RecordID: "a2", Status: "Aborted", End: noon, Charges: []Charge{charge("2", "credit")}},
		{RecordID: "a3", Status: "Completed", End: noon, Charges: []Charge{charge("0.75", "credit")}},
	} {
		got := all[i]
		if got.Agreement == "" || got.GlobalUser == "" || got.Created.IsZero() {
			t.Errorf("%d: %+v", i, got)
		}
		got.Created, got.Agreement, got.GlobalUser, got.JobName, got.Project = time.Time{}, "", "", "", ""
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d is\n%+v\nand should be\n%+v", i, got, want)
		}
	}

	var b bytes.Buffer
	if err := WriteAllJSON(&b, all); err != nil {
		t.Fatal(err)
	}
	var back []map[string]any
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back) != 4 || back[0]["WallDuration"] == nil {
		t.Errorf("%v: %s", err, b.String())
	}
	b.Reset()
	if err := WriteAllJSON(&b, nil); err != nil || b.String() != "[]\n" {
		t.Errorf("of none: %v, %q", err, b.String())
	}
	bad := []JobUsage{all[0], {}}
	b.Reset()
	if err := WriteAllJSON(&b, bad); !fail.Is(err, fail.Invalid) || b.Len() > 0 {
		t.Errorf("one that is none: %v, %d bytes written", err, b.Len())
	}
	if err := WriteAllJSON(broken{}, all); !errors.Is(err, errBroken) {
		t.Errorf("a writer that fails: %v", err)
	}

	// By the schema of GFD.98.
	file := filepath.Join(t.TempDir(), "usage.xml")
	b.Reset()
	if err := WriteAllXML(&b, all); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	schemas := filepath.Join(testenv.Shared(t), "schemas", "jsdl")
	cmd := exec.CommandContext(t.Context(), testenv.Tool(t, "xmllint", "libxml2-utils"), "--nonet", "--noout", "--schema", filepath.Join(schemas, "ur.xsd"), file)
	cmd.Env = append(os.Environ(), "XML_CATALOG_FILES="+filepath.Join(schemas, "catalog.xml"))
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("xmllint: %v\n%s\n%s", err, said, b.String())
	}
}

func TestSums(t *testing.T) {
	got, err := Sums(someSettled())
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for i := range got {
		s := &got[i]
		due, ok := s.Balance()
		if !ok {
			t.Errorf("%+v has no balance", s)
		}
		said = append(said, strings.Join([]string{s.Account, s.Unit, s.Used.String(), s.Charges.String(), s.Penalties.String(), s.Rewards.String(), due.String()}, " "))
	}
	want := []string{"bio cpu-second 14401 0 0 0 0", "bio credit 0 2 -7.5 0 -5.5", "bio euro 0 0 0 2 2", "user:bob credit 0 3 -1 0 2"}
	if !reflect.DeepEqual(said, want) {
		t.Errorf("the sums are\n%s", strings.Join(said, "\n"))
	}
}

func TestSettledRefuses(t *testing.T) {
	large := strings.Repeat("9", 28)
	for name, x := range map[string][]SettledAmount{
		"no amount": {{Price, "credit", "much", ""}},
		"too much":  {{Price, "credit", large, ""}, {Price, "credit", large, ""}, {Price, "credit", large, ""}, {Price, "credit", large, ""}},
	} {
		s := Settled{Agreement: "a", User: "ada", Status: "Completed", Amounts: x}
		if _, err := s.Records(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: the records: %v", name, err)
		}
		if _, err := Sums([]Settled{s}); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: the sums: %v", name, err)
		}
	}
	if _, err := Sums([]Settled{{Amounts: []SettledAmount{{"gift", "credit", "1", ""}}}}); !fail.Is(err, fail.Invalid) {
		t.Errorf("another kind: %v", err)
	}
	for name, q := range map[string]Query{
		"none": {}, "many": {Most: MaxPage + 1}, "backwards": {Most: 1, From: noon, Until: noon},
	} {
		if err := q.Check(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, q := range []Query{{Most: 1}, {Most: MaxPage, From: noon, Until: noon.Add(1)}, {Most: 1, Until: noon}} {
		if err := q.Check(); err != nil {
			t.Error(err)
		}
	}
}
