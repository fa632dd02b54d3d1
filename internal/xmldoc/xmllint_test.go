package xmldoc

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
)

// lint gives libxml2's verdict: whether the document is namespace-well-formed.
func lint(t *testing.T, tool string, doc []byte) (ok bool, said string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool, "--noout", "--nonet", "-")
	cmd.Stdin = bytes.NewReader(doc)
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return err == nil && !strings.Contains(string(out), "error"), string(out)
}

// TestAgainstXmllint holds our verdict beside libxml2's. Where we are stricter,
// the snippet says so.
func TestAgainstXmllint(t *testing.T) {
	tool := testenv.Tool(t, "xmllint", "libxml2-utils")
	for _, c := range snippets {
		if c.doc == "" {
			continue // xmllint takes an empty input for none
		}
		ok, said := lint(t, tool, []byte(c.doc))
		if want := c.ok || c.stricter; ok != want {
			t.Errorf("%s: xmllint says %v, the table %v:\n%s", c.name, ok, want, said)
		}
	}
}

// TestSharedDocuments reads every document of the shared folder.
func TestSharedDocuments(t *testing.T) {
	tool := testenv.Tool(t, "xmllint", "libxml2-utils")
	shared, seen := testenv.Shared(t), 0
	err := filepath.WalkDir(shared, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		ext := filepath.Ext(path)
		if ext != ".xml" && ext != ".jsdl" && ext != ".http" && ext != ".xsd" && ext != ".wsdl" {
			return nil
		}
		doc, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if ext == ".http" {
			_, doc, _ = bytes.Cut(doc, []byte("\r\n\r\n"))
		}
		if len(doc) == 0 {
			return nil
		}
		seen++
		ours := verdict(doc)
		if ours != nil && (ours.Reason == Forbidden || ours.Charset != "") {
			return nil // stricter, as documented
		}
		if ok, said := lint(t, tool, doc); ok != (ours == nil) {
			t.Errorf("%s: we say %v, xmllint: %v %s", path, ours, ok, said)
		}
		return nil
	})
	if err != nil || seen == 0 {
		t.Fatalf("%d documents, %v", seen, err)
	}
	t.Logf("%d documents", seen)
}

func verdict(doc []byte) *Error {
	_, err := ReadBytes(doc, Limits{})
	e, _ := errors.AsType[*Error](err)
	return e
}
