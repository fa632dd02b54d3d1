package jsdl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
)

// Whatever is read: no panic, bounded problems, and what is written reads back the same.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{
		filepath.Join(testenv.Shared(f), "samples", "jsdl", "*.*sdl"),
		filepath.Join(testenv.Shared(f), "samples", "jsdl", "*.xml"),
		"testdata/*.xml",
	} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			f.Fatal(pattern, err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, false)
			f.Add(b, true)
		}
	}
	for _, name := range []string{"testdata/schema.txtar", "testdata/rules.txtar", "testdata/lenient.txtar"} {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, x := range a.Files {
			if strings.HasSuffix(x.Name, ".jsdl") {
				f.Add(x.Data, strings.Contains(x.Name, "lenient"))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, lenient bool) {
		j, ps := Parse(b, Options{Lenient: lenient})
		if len(ps) > numSeverities*maxProblems {
			t.Fatalf("%d problems", len(ps))
		}
		if j == nil {
			if ps.Err() == nil {
				t.Fatal("nothing was read and nothing said")
			}
			return
		}
		j.Program()
		j.Uses()
		if _, err := j.Request(); err != nil && !fail.Is(err, fail.Unsupported) {
			t.Fatal(err)
		}
		if len(ps.Invalid()) > 0 {
			return
		}
		first := j.Marshal()
		again, said := Parse(first, Options{Lenient: lenient})
		if again == nil || len(said.Invalid()) > 0 {
			t.Fatalf("%v\nin what was written:\n%s", said, first)
		}
		if (ps.Err() == nil) != (said.Err() == nil) {
			t.Fatalf("the verdict changed:\n%v\n%v\n%s", ps, said, first)
		}
		// The first writing adds the declarations that foreign elements inherit.
		second := again.Marshal()
		if third, _ := Parse(second, Options{Lenient: lenient}); string(third.Marshal()) != string(second) {
			t.Fatalf("not a fixed point:\n%s\n%s", second, third.Marshal())
		}
	})
}

// The walker counts on its tables.
func TestTablesFitTheWalker(t *testing.T) {
	fits(t, &jobDefinitionType)
	fits(t, &jobDescriptionType)
	fits(t, &jobIdentificationType)
	fits(t, &applicationType)
	fits(t, &resourcesType)
	fits(t, &fileSystemType)
	fits(t, &dataStagingType)
	fits(t, &posixApplicationType)
	fits(t, hpcApplicationType)
	fits(t, &spmdApplicationType)
	fits(t, &placementType)
	fits(t, &criteriaType)
	fits(t, &criterionType)
	fits(t, &sweepType)
	fits(t, &loopDoubleType)
}

func fits[T any](t *testing.T, c *content[T]) {
	t.Helper()
	if len(c.parts) > maxParts || len(c.attrs) > 8 {
		t.Errorf("%d parts and %d attributes are more than the walker counts", len(c.parts), len(c.attrs))
	}
	names := map[string]bool{}
	for _, p := range c.parts {
		if key := p.space + " " + p.local; names[key] {
			t.Errorf("%s stands twice in a sequence", p.local)
		} else {
			names[key] = true
		}
	}
}
