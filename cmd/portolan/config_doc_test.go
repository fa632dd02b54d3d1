package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
)

var update = flag.Bool("update", false, "rewrite the generated part of docs/configuration.md")

// TestConfigurationIsDocumented compares the reference of the configuration with
// the comments of the very structs that the file is read into.
func TestConfigurationIsDocumented(t *testing.T) {
	root := testenv.Root(t)
	var b strings.Builder
	structs := parseStructs(t, filepath.Join(root, "cmd", "portolan"))
	fmt.Fprintf(&b, "## agreements\n\n")
	describeStruct(t, &b, structs, "agreementsConfig", "")
	fmt.Fprintf(&b, "\n## limits\n\n")
	describeStruct(t, &b, structs, "limitsConfig", "")
	fmt.Fprintf(&b, "\n## An entry of policies\n\n")
	describeStruct(t, &b, parseStructs(t, filepath.Join(root, "internal", "broker", "policy", "pluginpolicy")), "Settings", "")
	fmt.Fprintf(&b, "\n## peer\n\n")
	describeStruct(t, &b, structs, "peerConfig", "")
	fmt.Fprintf(&b, "\n## An entry of sites\n\n")
	describeStruct(t, &b, structs, "siteConfig", "")
	for _, name := range slices.Sorted(maps.Keys(siteTypes)) {
		settings := reflect.TypeOf(siteTypes[name].settings()).Elem()
		fmt.Fprintf(&b, "\n## settings of type %s\n\n", name)
		dir := strings.TrimPrefix(settings.PkgPath(), "github.com/portolan-project/portolan/")
		describeStruct(t, &b, parseStructs(t, filepath.Join(root, filepath.FromSlash(dir))), settings.Name(), "")
	}
	const mark = "<!-- From here on generated of the comments in the code: go test ./cmd/portolan -run TestConfigurationIsDocumented -update -->\n"
	file := filepath.Join(root, "docs", "configuration.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	hand, have, ok := strings.Cut(string(page), mark)
	if !ok {
		t.Fatalf("%s has no line %q", file, mark)
	}
	if *update {
		if err := os.WriteFile(file, []byte(hand+mark+"\n"+b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != "\n"+b.String() {
		t.Errorf("docs/configuration.md is not what the code says; run this test with -update")
	}
}

// parseStructs gives the structs of a package's files by name.
func parseStructs(t *testing.T, dir string) map[string]*ast.StructType {
	t.Helper()
	out := map[string]*ast.StructType{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.TypeSpec); ok {
				if st, ok := s.Type.(*ast.StructType); ok {
					out[s.Name.Name] = st
				}
			}
			return true
		})
	}
	return out
}

// describeStruct writes a line for each key of a struct, and of those within it.
func describeStruct(t *testing.T, b *strings.Builder, structs map[string]*ast.StructType, name, prefix string) {
	t.Helper()
	st := structs[name]
	if st == nil {
		t.Fatalf("there is no struct %s", name)
	}
	if prefix == "" {
		b.WriteString("| key | is | meaning |\n|---|---|---|\n")
	}
	above := ""
	for _, f := range st.Fields.List {
		if f.Tag == nil {
			continue
		}
		key, options, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml"), ",")
		inner, list := typeName(f.Type)
		if options == "inline" {
			describeStruct(t, b, structs, inner, prefix+" ")
			continue
		}
		text := said(f)
		if f.Doc != nil {
			above = text
		}
		if text == "" && len(f.Names) == 1 && strings.Contains(above, f.Names[0].Name) {
			text = above // one sentence for several
		}
		if key == "" || key == "-" || len(f.Names) != 1 {
			continue
		}
		if text == "" {
			t.Errorf("%s.%s (%s): nothing says what it is", name, f.Names[0].Name, key)
		}
		path := strings.TrimSpace(prefix) + key
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", path, kind(f.Type, structs), strings.NewReplacer("|", "\\|", "\n", " ").Replace(meaning(f.Names[0].Name, text)))
		if structs[inner] != nil {
			if list {
				path += "[]"
			}
			describeStruct(t, b, structs, inner, path+".")
		}
	}
}

// said gives what is said of a field, above or behind it.
func said(f *ast.Field) string {
	return strings.TrimSpace(strings.TrimSpace(f.Doc.Text()) + " " + strings.TrimSpace(f.Comment.Text()))
}

// meaning leaves out the name that a comment begins with.
func meaning(field, doc string) string {
	for _, verb := range []string{" is ", " are ", " says ", " gives ", " has "} {
		if rest, ok := strings.CutPrefix(doc, field+verb); ok {
			if verb == " is " || verb == " are " {
				return rest
			}
			return strings.TrimSpace(verb) + " " + rest
		}
	}
	return doc
}

// typeName gives the name of the type behind pointers, lists and maps.
func typeName(e ast.Expr) (name string, many bool) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ArrayType:
		name, _ = typeName(e.Elt)
		return name, true
	case *ast.MapType:
		name, _ = typeName(e.Value)
		return name, true
	case *ast.Ident:
		return e.Name, false
	}
	return "", false
}

// kind says in a word what a value is.
func kind(e ast.Expr, structs map[string]*ast.StructType) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return kind(e.X, structs)
	case *ast.ArrayType:
		return "list of " + kind(e.Elt, structs)
	case *ast.MapType:
		return "names, each with " + kind(e.Value, structs)
	}
	switch s := types.ExprString(e); {
	case s == "string":
		return "text"
	case s == "bool":
		return "true or false"
	case s == "time.Duration":
		return "time (`30s`)"
	case strings.HasPrefix(s, "int"), strings.HasPrefix(s, "uint"), strings.HasPrefix(s, "float"):
		return "number"
	case s == "adapters.Settings":
		return "settings"
	case structs[s] != nil:
		return "entry"
	default:
		return s
	}
}

// TestConfigurationExample: what the page shows is a configuration.
func TestConfigurationExample(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```yaml\n")
	example, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("the page has no example")
	}
	c, err := parseConfig("example.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Sites) != len(siteTypes) {
		t.Errorf("it shows %d sites of %d types", len(c.Sites), len(siteTypes))
	}
}
