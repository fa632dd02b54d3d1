package shell_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

func newSite(t *testing.T, settings string) (adapters.Adapter, error) {
	t.Helper()
	s, err := adapters.ParseSettings(settings)
	if err != nil {
		t.Fatal(err)
	}
	a, err := shell.New(adapters.Config{Site: "here", Dir: t.TempDir(), Settings: s})
	if err == nil {
		t.Cleanup(func() { _ = a.Close() })
	}
	return a, err
}

// A site is made of its settings.
func TestSettings(t *testing.T) {
	t.Parallel()
	a, err := newSite(t, `
slots: 2
grace: 1s
umask: "027"
path: /usr/bin:/bin
hostNames: [here.example]
sandbox:
  noNewPrivileges: true
  network: host
launchers:
  http://www.ogf.org/jsdl/2007/02/jsdl-spmd/OpenMPI: [/no/such/mpiexec, -n, "{processes}"]
`)
	if err != nil {
		t.Fatal(err)
	}
	d := adaptertest.Command("/bin/sh", "-c", "umask; echo $PATH; grep NoNewPrivs /proc/self/status")
	d.Description.Resources = &jsdl.Resources{CandidateHosts: []string{"here.example"}}
	if _, out := ends(t, a, adapters.Job{Tag: "set", Definition: d}); out != "0027\n/usr/bin:/bin\nNoNewPrivs:\t1\n" {
		t.Errorf("the job wrote %q", out)
	}
	if r, err := a.Resources(t.Context()); err != nil || r.Shares[0].Slots != 2 {
		t.Errorf("the site has %+v (%v)", r, err)
	}
	if _, err := newSite(t, ""); err != nil {
		t.Errorf("without settings: %v", err)
	}
}

// Bad settings are refused by name.
func TestBadSettings(t *testing.T) {
	t.Parallel()
	host := "hosts: [{address: h, user: u, key: k, knownHosts: f%s}]"
	for settings, want := range map[string]string{
		"slot: 2":                                        "slot",
		"slots: -1":                                      "slots",
		"grace: soon":                                    "grace",
		"umask: \"9\"":                                   "umask",
		"track: rope":                                    "rope",
		"sandbox: {network: some}":                       "network",
		"sandbox: {accounts: [\"\"]}":                    "accounts",
		"sandbox: {tmp: true}":                           "tmp",
		"launchers: {OpenMPI: [mpiexec]}":                "launchers",
		"launchers: {\"urn:x\": []}":                     "launchers",
		"hosts: [{user: u}]":                             "address",
		"hosts: [{address: h}]":                          "user",
		"hosts: [{address: h, user: u}]":                 "key",
		"hosts: [{address: h, user: u, key: k}]":         "knownHosts",
		fmt.Sprintf(host, ", port: 70000"):               "port",
		fmt.Sprintf(host, ", slots: -1"):                 "slots",
		fmt.Sprintf(host, ", name: \"a b\""):             "name",
		fmt.Sprintf(host, ", name: ../x"):                "name",
		fmt.Sprintf(host, ", directory: rel"):            "directory",
		fmt.Sprintf(host, ", program: rel"):              "program",
		fmt.Sprintf(host, ", environment: {\"a=b\": c}"): "environment",
		"hosts: [{address: h, user: u, key: k, knownHosts: f}, {address: h, user: u, key: k, knownHosts: f}]": "two hosts",
	} {
		if _, err := newSite(t, settings); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), want) {
			t.Errorf("%s: gives %v, want %q", settings, err, want)
		}
	}
}

// A site of hosts is made of settings, too; that they are down is no error.
func TestHostsSettings(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1)
	o := f.options(t, t.TempDir(), 2).Hosts[0]
	settings := fmt.Sprintf(`
grace: 1s
hosts:
  - {name: one, address: %s, port: %d, user: %s, key: %s, knownHosts: %s, slots: 2, directory: %s, environment: {GREETING: "hello $HOME '"}, labels: [fast]}
  - {name: two, address: 127.0.0.1, port: 1, user: nobody, key: %s, knownHosts: %s}
`, o.Address, o.Port, o.User, o.Key, o.KnownHosts, filepath.Join(f.dir, "a b"), o.Key, o.KnownHosts)
	a, err := newSite(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	d := adaptertest.Command("/bin/sh", "-c", `echo "$GREETING"`)
	d.Description.Resources = &jsdl.Resources{CandidateHosts: []string{"fast"}}
	if e, out := ends(t, a, adapters.Job{Tag: "greets", Definition: d}); out != "hello $HOME '\n" {
		t.Errorf("the job is %+v and wrote %q", e, out)
	}
	h := a.Health()
	if all := strings.Join(h.Remarks, "\n"); h.Problem != "" || !strings.Contains(all, "host two is down") || !strings.Contains(all, "host one is up") {
		t.Errorf("the site says %q %q", h.Problem, h.Remarks)
	}
}
