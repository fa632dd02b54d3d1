package limits

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table anew")

// TestDocument: the table of the document is what the constants say.
func TestDocument(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "peer-protocol.md")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const open, shut = "<!-- generated: limits -->\n", "<!-- end: limits -->"
	head, rest, ok := strings.Cut(string(b), open)
	old, tail, ok2 := strings.Cut(rest, shut)
	if !ok || !ok2 {
		t.Fatal("there is no place for the limits")
	}
	switch now := Table(); {
	case now == old:
	case *update:
		if err := os.WriteFile(file, []byte(head+open+now+shut+tail), 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		t.Error("the table of the limits is not what the constants say: run with -update")
	}
}
