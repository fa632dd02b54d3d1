package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
)

const module = "github.com/portolan-project/portolan"

// layers lists every package of this module, the highest first. A package may
// import only from layers below its own; never up, never sideways.
var layers = [][]string{
	{"cmd/portolan"},
	{"internal/console", "internal/sim", "conformance"},
	{"internal/agreements/replica"},
	{"internal/agreements/service"},
	{"internal/agreements/together", "internal/agreements/purchase"},
	{"internal/agreements/delivery"},
	{"internal/peering"},
	{"internal/broker"},
	{"internal/agreements/offering"},
	{"internal/agreements/negotiator"},
	{"internal/agreements/terms"},
	{"internal/agreements/engine"},
	{"internal/agreements/calendar", "internal/agreements/guarantee", "internal/agreements/ledger", "internal/agreements/door"},
	{
		"adapters/shell", "adapters/slurm", "adapters/condor", "adapters/boinc", "adapters/plugin", "adapters/fake",
		"internal/store/etcd", "internal/store/mem", "internal/store/faulty", "internal/staging", "internal/checkpoint", "internal/identity",
	},
	{"bes", "agreement", "peers", "adapters", "internal/store"},
	{"resourcemodel"},
	{"jsdl", "internal/soap"},
	{"internal/wssec", "internal/xpath", "internal/xsd"},
	{"internal/xmldoc", "internal/c14n", "internal/decimal", "internal/moments", "internal/telemetry"},
	{"internal/fail"},
}

// suites are imported by tests only, from anywhere; they may import what they judge.
var suites = []string{"adapters/adaptertest", "internal/store/storetest", "internal/testenv", "internal/archtest", "internal/e2e", "internal/docs", "bes/bestest", "peers/peertest", "peers/simtest", "internal/tools", "internal/testbed", "adapters/boinc/boinctest", "adapters/plugin/examples", "agreement/agreementtest"}

// exposed are the suites that the product itself runs, with who may and why.
var exposed = map[string]map[string]string{
	"adapters/adaptertest": {
		"cmd/portolan":               "`portolan adapter test` judges a site's own plug-in with the suite that judges ours",
		"adapters/plugin/plugintest": "a plug-in's author runs the suite against the program",
	},
}

// rules forbid an import to all but some, with the reason.
var rules = []struct {
	what   string   // an import path or the beginning of one
	except []string // packages (or trees of them) that may
	reason string
}{
	{"go.etcd.io/", []string{"internal/store/etcd"}, "what the gateway remembers goes through internal/store, so that the in-memory twin can stand in"},
	{"github.com/spf13/cobra", []string{"cmd"}, "only the program has a command line"},
	{"github.com/gorilla/mux", []string{"internal/soap", "internal/console", "cmd"}, "protocol packages give handlers; routes are made in one place"},
	{"encoding/xml", []string{"conformance"}, "XML from strangers is read by internal/xmldoc alone, which is strict and bounded; conformance writes its JUnit report with it"},
	{module + "/internal/soap", []string{"bes", "agreement", "peers", "internal/broker", "internal/agreements/service", "internal/agreements/replica", "internal/agreements/door", "internal/agreements/negotiator", "internal/console", "conformance", "cmd", "internal/wssec", "internal/identity"}, "adapters and stores know nothing of SOAP"},
	{"unsafe", []string{"adapters/plugin/proto", "internal/broker/policy/pluginpolicy/proto"}, "nothing here is worth it; what protoc writes is its own affair"},
	{"math/rand", nil, "math/rand/v2 is the one in use"},
	{"log", nil, "log/slog is the one in use"},
}

// pure packages decide: they start no goroutine, open no file and read no clock,
// so that the simulator and the property tests run the code that ships.
var pure = map[string][]string{
	"jsdl":                          {"os", "net", "net/http", "io/fs", "os/exec"},
	"resourcemodel":                 {"os", "net", "net/http", "io/fs", "os/exec"},
	"internal/broker/policy":        {"os", "net", "net/http", "io/fs", "os/exec"},
	"internal/broker/schedule":      {"os", "net", "net/http", "io/fs", "os/exec"},
	"internal/agreements/calendar":  {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"peers/wire":                    {"os", "net", "net/http", "io/fs", "os/exec"},
	"peers/exchange":                {"os", "net", "net/http", "io/fs", "os/exec"},
	"peers/session":                 {"os", "net", "net/http", "io/fs", "os/exec"},
	"peers/handover":                {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"peers/ledger":                  {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"peers/routing":                 {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"internal/agreements/terms":     {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"internal/agreements/offering":  {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"internal/decimal":              {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"internal/moments":              {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"internal/agreements/guarantee": {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"internal/agreements/ledger":    {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
	"peers/limits":                  {"os", "net", "net/http", "io/fs", "os/exec", "math/rand/v2", "context", "sync"},
}

func TestImportsPointDown(t *testing.T) {
	level := map[string]int{}
	for i, layer := range layers {
		for _, p := range layer {
			level[p] = i
		}
	}
	for pkg, imports := range packages(t) {
		if slices.ContainsFunc(suites, func(s string) bool { return within(pkg, s) }) {
			continue
		}
		from, known := levelOf(level, pkg)
		if !known {
			t.Errorf("%s is in no layer: say in internal/archtest where it belongs", pkg)
			continue
		}
		for _, imp := range imports {
			inner, ours := strings.CutPrefix(imp, module+"/")
			if !ours || sameRoom(pkg, inner) {
				continue
			}
			if slices.ContainsFunc(suites, func(s string) bool { return within(inner, s) }) {
				if exposed[inner][pkg] != "" {
					continue
				}
				t.Errorf("%s imports %s: suites are for tests", pkg, inner)
				continue
			}
			to, known := levelOf(level, inner)
			if known && to <= from {
				t.Errorf("%s imports %s: imports point down the list of layers, never up or sideways", pkg, inner)
			}
		}
	}
}

func TestRules(t *testing.T) {
	for pkg, imports := range packages(t) {
		if slices.ContainsFunc(suites, func(s string) bool { return within(pkg, s) }) {
			continue
		}
		for _, imp := range imports {
			for _, r := range rules {
				matches := imp == r.what || strings.HasSuffix(r.what, "/") && strings.HasPrefix(imp, r.what)
				if matches && !slices.ContainsFunc(r.except, func(e string) bool { return within(pkg, e) }) {
					t.Errorf("%s imports %s: %s", pkg, imp, r.reason)
				}
			}
			if slices.Contains(pure[pkg], imp) {
				t.Errorf("%s imports %s: the package is pure", pkg, imp)
			}
		}
	}
}

// TestOnlyTheProgramActsOnTheProcess: the environment, exits and loggers are
// cmd's; elsewhere they would hide what a package depends on.
func TestOnlyTheProgramActsOnTheProcess(t *testing.T) {
	forbidden := []string{"os.Getenv(", "os.LookupEnv(", "os.Exit(", "slog.SetDefault(", "slog.Default()", "slog.New("}
	root := testenv.Root(t)
	walk(t, root, func(path, pkg string) {
		if strings.HasSuffix(path, "_test.go") || within(pkg, "cmd") || pkg == "internal/telemetry" || slices.ContainsFunc(suites, func(s string) bool { return within(pkg, s) }) {
			return
		}
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(src), "\n") {
			code, _, _ := strings.Cut(line, "//")
			code = strings.ReplaceAll(code, "slog.New(slog.DiscardHandler)", "") // no logger is a logger too
			for _, f := range forbidden {
				if strings.Contains(code, f) {
					t.Errorf("%s:%d: %s…) belongs to cmd", path, n+1, strings.TrimSuffix(f, ")"))
				}
			}
		}
	})
}

// TestZonesComeAlong: the program knows the zones of the configuration on hosts that have none.
func TestZonesComeAlong(t *testing.T) {
	if !slices.Contains(packages(t)["cmd/portolan"], "time/tzdata") {
		t.Error("cmd/portolan does not import time/tzdata: zones such as Europe/Madrid would be unknown in a bare container")
	}
}

// TestTopLevel: the top level of the repository is fixed.
func TestTopLevel(t *testing.T) {
	allowed := strings.Fields("cmd jsdl bes agreement resourcemodel peers adapters conformance go.mod go.sum Makefile README.md internal docs LICENSE CHANGELOG.md CONTRIBUTING.md bin dist")
	entries, err := os.ReadDir(testenv.Root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s stands at the top level, which is fixed: it belongs in one of the rooms", e.Name())
		}
	}
}

// packages gives the imports of every package of the module.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	root := testenv.Root(t)
	found := map[string][]string{}
	walk(t, root, func(path, pkg string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := found[pkg]; !ok {
			found[pkg] = nil
		}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(found[pkg], p) {
				found[pkg] = append(found[pkg], p)
			}
		}
	})
	return found
}

// walk calls do with each Go file of the module and its package's folder.
func walk(t *testing.T, root string, do func(path, pkg string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "tools") {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".go") {
			pkg, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			do(path, filepath.ToSlash(pkg))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// levelOf gives a package's layer; a package below a named one belongs to it.
func levelOf(level map[string]int, pkg string) (int, bool) {
	for p := pkg; p != "." && p != ""; p = parent(p) {
		if l, ok := level[p]; ok {
			return l, true
		}
	}
	return 0, false
}

func parent(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

// sameRoom: a part may split itself into packages below its own, unless they are
// named as rooms of their own.
func sameRoom(a, b string) bool {
	named := func(p string) string {
		for ; p != ""; p = parent(p) {
			for _, l := range layers {
				if slices.Contains(l, p) {
					return p
				}
			}
		}
		return ""
	}
	ra, rb := named(a), named(b)
	return ra != "" && ra == rb
}

// within reports whether pkg is tree or below it.
func within(pkg, tree string) bool { return pkg == tree || strings.HasPrefix(pkg, tree+"/") }
