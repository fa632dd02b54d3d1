package peers_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/peertest"
)

// A SOAP stack that we did not write is a peer by the description alone.
func TestZeep(t *testing.T) {
	// Debian's own Python has the Debian package; another may stand before it in PATH.
	python := testenv.Tool(t, "/usr/bin/python3", "python3-zeep")
	if exec.CommandContext(t.Context(), python, "-c", "import zeep").Run() != nil {
		testenv.Missing(t, "python3-zeep is not installed: apt-get install python3-zeep")
	}
	keys := peertest.NewKeys(domA, domB)
	b := newSite(t, domB, keys.Trust(domB), nil)
	must(t, b.table.Add(peers.Peer{Domain: domA, Provides: true, Consumes: true, Beat: time.Second}))
	out, err := exec.CommandContext(t.Context(), python, "testdata/zeep_peer.py", b.http.URL+"/peer", domA, "password of "+domA).CombinedOutput()
	if n := strings.Count(string(out), "ok "); err != nil || n != 12 {
		t.Fatalf("%v; %d of 12 went well\n%s\n%v", err, n, out, b.seen.Events())
	}
	if n := len(b.seen.Items(domA)); n != 2 {
		t.Errorf("%d items came, of 2", n)
	}
}
