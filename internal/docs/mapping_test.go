package docs

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/boinc"
	"github.com/portolan-project/portolan/adapters/condor"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/adapters/slurm"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/jsdl"
)

var update = flag.Bool("update", false, "rewrite the generated parts of docs/")

// managers are the columns of the table.
var managers = []struct {
	title string
	rows  func() []adapters.MappingRow
}{
	{"shell", shell.Mapping},
	{"Slurm", slurm.Mapping},
	{"HTCondor", condor.Mapping},
	{"BOINC", boinc.Mapping},
}

const begin, end = "<!-- mapping:begin -->\n", "<!-- mapping:end -->\n"

// TestMappingTable: the table in docs/adapters.md is what the adapters' mapping code
// runs on; -update rewrites it.
func TestMappingTable(t *testing.T) {
	file := filepath.Join(testenv.Root(t), "docs", "adapters.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(page, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !ok || !closed {
		t.Fatalf("%s has no place for the table, between %q and %q", file, begin, end)
	}
	want := bytes.Join([][]byte{before, []byte(begin + "\n" + table(t) + "\n" + end), after}, nil)
	switch {
	case bytes.Equal(page, want):
	case *update:
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is stale; run go test ./internal/docs -update", file)
	}
}

// table has a row for each element and a column for each manager.
func table(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	cells := make([][]adapters.MappingRow, len(managers))
	b.WriteString("| element |")
	for i, m := range managers {
		rows, err := adapters.Mapped(m.rows())
		if err != nil {
			t.Fatalf("%s: %v", m.title, err)
		}
		cells[i] = rows
		fmt.Fprintf(&b, " %s |", m.title)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(managers)) + "\n")
	for i, e := range jsdl.Elements() {
		fmt.Fprintf(&b, "| `%s` |", e)
		for _, rows := range cells {
			fmt.Fprintf(&b, " %s |", cell(rows[i]))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func cell(r adapters.MappingRow) string {
	s := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(r.Note)
	switch {
	case r.Becomes == "" && s == "":
		return "**refused**"
	case r.Becomes == "":
		return "**refused**: " + s
	}
	// Words of the manager are set as code, words of ours are not.
	becomes := "`" + strings.ReplaceAll(r.Becomes, "|", `\|`) + "`"
	if strings.HasPrefix(r.Becomes, "(") || strings.HasPrefix(r.Becomes, "the ") {
		becomes = r.Becomes
	}
	if s == "" {
		return becomes
	}
	return becomes + ": " + s
}
