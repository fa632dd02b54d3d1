package jsdl

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each document of the archives and what is said of it, word for word. The name
// tells the verdict: good_ is taken, fail_ is not; _lenient is read leniently.
func TestProblemTexts(t *testing.T) {
	for _, name := range []string{"testdata/schema.txtar", "testdata/rules.txtar", "testdata/lenient.txtar"} {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var out txtar.Archive
		out.Comment = a.Comment
		for i := 0; i < len(a.Files); i++ {
			f := a.Files[i]
			if !strings.HasSuffix(f.Name, ".jsdl") {
				continue
			}
			o := Options{File: f.Name, Lenient: strings.Contains(f.Name, "_lenient"), Ignore: []string{"urn:ignored"}}
			_, ps := Parse(f.Data, o)
			var b strings.Builder
			for _, p := range ps {
				b.WriteString(p.Severity.String() + ": " + strings.TrimPrefix(p.String(), f.Name+":") + "\n")
			}
			taken := ps.Err() == nil
			if strings.HasPrefix(f.Name, "good_") != taken || strings.HasPrefix(f.Name, "fail_") == taken {
				t.Errorf("%s: taken is %v:\n%s", f.Name, taken, b.String())
			}
			said := txtar.File{Name: strings.TrimSuffix(f.Name, ".jsdl") + ".said", Data: []byte(b.String())}
			out.Files = append(out.Files, f, said)
			if *update {
				continue
			}
			if i+1 >= len(a.Files) || a.Files[i+1].Name != said.Name {
				t.Errorf("%s has no %s; run with -update and read the change", f.Name, said.Name)
			} else if got, want := b.String(), string(a.Files[i+1].Data); got != want {
				t.Errorf("%s: said\n%swant\n%s", f.Name, got, want)
			}
		}
		if *update {
			if err := os.WriteFile(name, txtar.Format(&out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
