package docs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/jsdl"
)

// Each example document is taken without a word, and says what a manager can be asked.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testenv.Root(t), "docs", "examples", "*.jsdl"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		document, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		j, problems := jsdl.Parse(document, jsdl.Options{File: filepath.Base(file)})
		if len(problems) > 0 {
			t.Errorf("%v", problems)
			continue
		}
		if _, err := j.Request(); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
