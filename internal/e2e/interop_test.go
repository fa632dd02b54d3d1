package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/testenv"
)

// operations are what each stack does in each of its modes.
var operations = []string{
	"CreateActivity", "GetActivityStatuses", "GetActivityDocuments", "GetFactoryAttributesDocument",
	"TerminateActivities", "StopAcceptingNewActivities", "StartAcceptingNewActivities",
}

// allModes are SOAP's versions, with and without WS-Addressing.
var allModes = []string{"soap11", "soap12", "soap11 wsa", "soap12 wsa"}

// TestInterop has SOAP stacks that we did not write read ?wsdl as it is, and do
// every operation of the Factory and Management port types.
func TestInterop(t *testing.T) {
	clients, err := filepath.Abs("testdata/clients")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("zeep", func(t *testing.T) {
		// Debian's own Python has the Debian package; another may stand before it in PATH.
		python := testenv.Tool(t, "/usr/bin/python3", "python3-zeep")
		if exec.Command(python, "-c", "import zeep").Run() != nil {
			testenv.Missing(t, "python3-zeep is not installed: apt-get install python3-zeep")
		}
		g := start(t)
		wantModes(t, allModes, stack(t, t.TempDir(), python, filepath.Join(clients, "zeep_client.py"), g.endpoint))
	})
	t.Run("php", func(t *testing.T) {
		php := testenv.Tool(t, "php", "php-cli")
		if exec.Command(php, "-r", "exit(class_exists('SoapClient') ? 0 : 1);").Run() != nil {
			testenv.Missing(t, "PHP has no SoapClient: apt-get install php-soap")
		}
		g := start(t)
		wantModes(t, allModes, stack(t, t.TempDir(), php, filepath.Join(clients, "soap_client.php"), g.endpoint))
	})
	t.Run("mono", func(t *testing.T) {
		mono := testenv.Tool(t, "mono", "mono-devel")
		mcs := testenv.Tool(t, "mcs", "mono-mcs")
		wsdl := testenv.Tool(t, "wsdl", "mono-devel")
		g := start(t)
		dir := t.TempDir()
		command(t, dir, wsdl, "-out:Bes.cs", g.endpoint+"?wsdl")
		config, err := os.ReadFile(filepath.Join(clients, "client.exe.config"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "client.exe.config"), config, 0o600); err != nil {
			t.Fatal(err)
		}
		command(t, dir, mcs, "-r:System.Web.Services.dll", "-out:client.exe", "Bes.cs", filepath.Join(clients, "Client.cs"), filepath.Join(clients, "Addressing.cs"))
		wantModes(t, allModes, stack(t, dir, mono, filepath.Join(dir, "client.exe"), g.endpoint))
	})
}

// agreeable gives a gateway with a site that agreements are made about.
func agreeable(t *testing.T) *gateway {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "gateway.yaml")
	text := "sites:\n  - {name: hosts, type: shell, settings: {slots: 8}}\nagreements: {promise: 100, penalty: 7.5}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startOn(t, filepath.Join(dir, "data"), "--config", config)
}

// TestAgreementInterop has SOAP stacks that we did not write read the description of the agreement service as it is, fill in
// templates, make agreements of them, and follow those to their ends.
func TestAgreementInterop(t *testing.T) {
	clients, err := filepath.Abs("testdata/clients")
	if err != nil {
		t.Fatal(err)
	}
	both := []string{"templates", "finish_by", "pending", "reserve", "capacity", "refused", "unknown"}
	for name, c := range map[string]struct {
		program, apt, file string
		probe              []string
		deeds              []string
	}{
		// Debian's own Python has the Debian package; another may stand before it in PATH.
		"zeep": {"/usr/bin/python3", "python3-zeep", "zeep_agreement.py", []string{"-c", "import zeep"}, append([]string{"negotiate"}, both...)},
		"php":  {"php", "php-soap", "soap_agreement.php", []string{"-r", "exit(class_exists('SoapClient') ? 0 : 1);"}, both},
	} {
		t.Run(name, func(t *testing.T) {
			program := testenv.Tool(t, c.program, c.apt)
			if exec.CommandContext(t.Context(), program, c.probe...).Run() != nil {
				testenv.Missing(t, "%s is not installed: apt-get install %[1]s", c.apt)
			}
			g := agreeable(t)
			did := stack(t, t.TempDir(), program, filepath.Join(clients, c.file), g.agreement)
			for _, mode := range []string{"soap11", "soap12"} {
				for _, deed := range c.deeds {
					if !did[deed+" "+mode] {
						t.Errorf("%s was not done in %s", deed, mode)
					}
				}
			}
		})
	}
}

// command runs a program to its end; it must not fail.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	out, err := output(t, dir, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func output(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	// No proxy, so that nothing but loopback can be reached through one.
	cmd.Env = append(os.Environ(), "http_proxy=", "https_proxy=", "HTTP_PROXY=", "HTTPS_PROXY=", "no_proxy=*")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var stackLine = regexp.MustCompile(`(?m)^(ok|FAIL) (\S+) (soap1[12](?: wsa)?)(?: (.*))?$`)

// stack runs a client and gives what it did, by operation and mode.
func stack(t *testing.T, dir, name string, args ...string) map[string]bool {
	t.Helper()
	out, err := output(t, dir, name, args...)
	did := map[string]bool{}
	for _, m := range stackLine.FindAllStringSubmatch(out, -1) {
		did[m[2]+" "+m[3]] = m[1] == "ok"
		if m[1] == "FAIL" {
			t.Errorf("%s", m[0])
		}
	}
	if err != nil {
		t.Errorf("%s: %v\n%s", filepath.Base(name), err, out)
	}
	return did
}

func wantModes(t *testing.T, modes []string, did map[string]bool) {
	t.Helper()
	for _, m := range modes {
		for _, op := range operations {
			if ok, there := did[op+" "+m]; !there || !ok {
				t.Errorf("%s was not done in %s", op, m)
			}
		}
	}
}
