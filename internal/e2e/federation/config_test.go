package federation

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serveArgs are those of the program.
func serveArgs(config, data string) []string {
	return []string{"serve", "--dev", "--listen", "127.0.0.1:0", "--config", config, "--data", data, "--log-level", "warn"}
}

// isolated writes the configuration of a domain that knows nobody.
func (d *domain) isolated(t *testing.T, dir string) string {
	t.Helper()
	return write(t, filepath.Join(dir, d.name+".yaml"), "domain: "+d.name+".example\nsites:\n"+d.site)
}

// configure writes the configuration of a domain that has peers.
func (f *federation) configure(t *testing.T, d *domain, keys, dir string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "domain: %s\nsites:\n%s", d.domain(), d.site)
	return write(t, filepath.Join(dir, d.name+".yaml"), b.String())
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
