package federation

import (
	"os"
	"path/filepath"
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

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
