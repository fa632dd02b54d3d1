package plugintest_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters/plugin/plugintest"
	"github.com/portolan-project/portolan/internal/fail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestJudge(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "queue")
	if out, err := exec.Command("go", "build", "-o", bin, "../examples/go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var out bytes.Buffer
	o := plugintest.Options{Command: []string{bin}, Settings: "slots: 2", Programs: true, Umask: 0o022, Filter: "^(Properties|Exits|Find|Hold|Health)$"}
	report, err := plugintest.Judge(t.Context(), &out, o)
	if err != nil || !report.OK() {
		t.Errorf("%v\n%s", err, &out)
	}
	if !strings.Contains(out.String(), "queue, version 1 (urn:portolan:example:queue); abilities: suspend, hold, push") {
		t.Errorf("%s", &out)
	}
	// A claim that is not kept is found.
	out.Reset()
	o.Umask, o.Filter = 0o077, "Programs/Umask"
	if report, err := plugintest.Judge(t.Context(), &out, o); err != nil || report.OK() {
		t.Errorf("another umask than the one that was said passes: %v\n%s", err, &out)
	}
	for _, c := range []struct {
		change func(*plugintest.Options)
		word   string
	}{
		{func(o *plugintest.Options) { o.Command = []string{"/no/such/plug-in"} }, "/no/such/plug-in"},
		{func(o *plugintest.Options) { o.Command = []string{"/bin/true"} }, "handshake"},
		{func(o *plugintest.Options) { o.Settings = "slotz: 1" }, "slotz"},
		{func(o *plugintest.Options) { o.Settings = "[" }, "YAML"},
		{func(o *plugintest.Options) { o.NoTLS = true; o.Command = []string{"/bin/echo", "1|7|unix|/x|grpc|"} }, "version 7"},
	} {
		bad := o
		c.change(&bad)
		if _, err := plugintest.Judge(t.Context(), &out, bad); err == nil || !strings.Contains(fail.Sentence(err), c.word) {
			t.Errorf("%q: %v", c.word, err)
		}
	}
}
