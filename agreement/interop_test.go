package agreement_test

import (
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
)

// SOAP stacks that we did not write make agreements by the description alone.
func TestInterop(t *testing.T) {
	for name, c := range map[string]struct {
		program, apt, probe string
		args                []string
		want                int
	}{
		// Debian's own Python has the Debian package; another may stand before it in PATH.
		"zeep": {"/usr/bin/python3", "python3-zeep", "import zeep", []string{"-c", "testdata/clients/zeep_client.py"}, 16},
		"php":  {"php", "php-soap", "exit(class_exists('SoapClient') ? 0 : 1);", []string{"-r", "testdata/clients/soap_client.php"}, 12},
	} {
		t.Run(name, func(t *testing.T) {
			program := testenv.Tool(t, c.program, c.apt)
			if exec.CommandContext(t.Context(), program, c.args[0], c.probe).Run() != nil {
				testenv.Missing(t, "%s is not installed: apt-get install %[1]s", c.apt)
			}
			svc := &agreementtest.Service{}
			s := httptest.NewServer(agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}, Negotiator: &agreementtest.Negotiator{}}))
			defer s.Close()
			out, err := exec.CommandContext(t.Context(), program, c.args[1], s.URL+"/agreement").CombinedOutput()
			if n := strings.Count(string(out), "ok "); err != nil || n != c.want {
				t.Fatalf("%v; %d of %d went well\n%s", err, n, c.want, out)
			}
			for _, r := range svc.Requests() {
				if g := r.Offer.Guarantees(); r.Offer.Name != "mine" || len(g) != 1 || g[0].Obligated != agreement.ServiceProvider || len(r.Received) == 0 {
					t.Errorf("an offer came as %s", r.Received)
				}
			}
		})
	}
}
