package federation

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/identity"
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

// identify makes the keys, the certificates and the CAs of the domains, each its own.
func (f *federation) identify(t *testing.T, dir string) {
	t.Helper()
	for _, d := range f.domains {
		d.keys = filepath.Join(dir, "keys-"+d.name)
		if _, err := identity.Open(identity.Options{Domain: d.domain(), Dir: d.keys}); err != nil {
			t.Fatal(err)
		}
	}
}

// configure writes the configuration of a domain that has peers. Times are by the length of
// the experiment: sessions are lost after seconds. The lease is longer than a cut: a job that ended at a peer which
// can't tell before the lease is over is run again, as nobody could know.
func (f *federation) configure(t *testing.T, d *domain, dir string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "domain: %s\nsites:\n%speer:\n", d.domain(), d.site)
	if url := f.endpoint(d); url != "" {
		fmt.Fprintf(&b, "  listen: %s:%d\n  url: %s\n", d.address, port, url)
	}
	fmt.Fprintf(&b, "  tls: {cert: %[1]s/gateway.pem, key: %[1]s/gateway.key}\n  trust:\n", d.keys)
	for _, o := range f.domains {
		if o != d {
			fmt.Fprintf(&b, "    %s: {ca: %s/ca.pem}\n", o.domain(), o.keys)
		}
	}
	b.WriteString("  peers:\n")
	for _, r := range f.relations(d) {
		fmt.Fprintf(&b, "    - domain: %s\n", r.to.domain())
		if r.url != "" {
			fmt.Fprintf(&b, "      url: %s\n", r.url)
		}
		fmt.Fprintf(&b, "      role: %s\n      vos: [%s]\n      shows: categorized\n      every: 500ms\n      beat: 2s\n      lost: 12s\n      terms: {lease: 1m, skew: 1s, stopWithin: 3s, resend: 2s, keep: 10m}\n", r.role, strings.Join(everywhere, ", "))
	}
	b.WriteString("  routing: {overload: 2s, recover: 500ms, hop: 500ms, typical: 5s}\n")
	b.WriteString("  mapping:\n")
	for _, o := range f.domains {
		if o != d {
			for _, vo := range everywhere {
				fmt.Fprintf(&b, "    - {origin: %s, vo: %s, account: %s, as: visitors}\n", o.domain(), vo, accountOf(d.name, o.name))
			}
		}
	}
	return write(t, filepath.Join(dir, d.name+".yaml"), b.String())
}

// accountOf is the local account as which jobs of a domain run at a place: own jobs as who runs the
// gateway or, with HTCondor, which runs nothing as root, as nobody; those of others as one of the
// accounts that each Debian has, another for each domain.
func accountOf(place, origin string) string {
	switch {
	case place != origin:
	case place == "fiu":
		return "nobody"
	default:
		return "root"
	}
	return map[string]map[string]string{
		"bsc": {"fiu": "games", "ibm": "news"},
		"fiu": {"bsc": "mail", "ibm": "irc"},
		"ibm": {"bsc": "backup", "fiu": "proxy"},
	}[place][origin]
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
