package adaptertest_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/jsdl"
)

func TestMain(m *testing.M) {
	// The mutants wait more than they compute.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// define puts a behaviour into the fake's own words.
func define(b adaptertest.Behaviour) *jsdl.JobDefinition {
	steps := ""
	add := func(on bool, format string, args ...any) {
		if on {
			steps += fmt.Sprintf(format, args...) + "; "
		}
	}
	add(b.Missing, "missing there is no such program")
	add(b.Stdout != "", "out %s", b.Stdout)
	add(b.Stderr != "", "err %s", b.Stderr)
	add(b.Hang, "hang")
	add(b.Sleep > 0, "sleep %d", b.Sleep)
	add(b.Signal != "", "signal %s", b.Signal)
	return adaptertest.Command("fake:" + steps + fmt.Sprintf("exit %d", b.Exit))
}

func world(site any) *fake.World { return site.(*fake.World) }

func harness(o fake.Options) adaptertest.Harness {
	return adaptertest.Harness{
		Site: func(t testing.TB) any {
			w := fake.NewWorld(4)
			t.Cleanup(w.Close)
			return w
		},
		Open:   func(_ testing.TB, site any) adapters.Adapter { return world(site).Open(o) },
		Define: define,
		Starts: func(site any, tag adapters.Tag) int { return world(site).Starts(tag) },
		Manager: adaptertest.Manager{
			Stop:                func(_ testing.TB, site any) { world(site).Down("") },
			Start:               func(_ testing.TB, site any) { world(site).Up() },
			Restart:             func(_ testing.TB, site any) { world(site).Down(""); world(site).Up() },
			LoseNextAnswer:      func(_ testing.TB, site any, done bool) { world(site).LoseNextAnswer(done) },
			LoseNextReservation: func(_ testing.TB, site any, done bool) { world(site).LoseNextReservation(done) },
			ReuseIDs:            func(_ testing.TB, site any) { world(site).ReuseIDs() },
			Requests:            func(site any) int64 { return world(site).Requests() },
		},
		Short: true,
	}
}

// Judge runs the parts that are asked for, says a line for each, and counts.
func TestJudge(t *testing.T) {
	t.Parallel()
	h := harness(fake.Options{NoSuspend: true})
	h.Lacks = map[string]string{"Suspend": "the manager has no way to stop a process", "Exits/137": "it takes 137 for SIGKILL", "Times": "it has no clock"}
	var out strings.Builder
	r, err := adaptertest.Judge(t.Context(), &out, h, "^(Properties|Exits|Suspend|Times|Programs/Umask)$")
	if err != nil || !r.OK() || r.Failed != 0 || r.Skipped != 4 {
		t.Fatalf("%v, %+v\n%s", err, r, &out)
	}
	for _, line := range []string{
		"pass  Properties (", "pass  Exits (", "pass  Exits/255 (", "skip  Exits/137: it takes 137 for SIGKILL\n", "skip  Times: it has no clock\n",
		"skip  Suspend: the manager has no way to stop a process\n", "skip  Programs/Umask: the adapter's jobs are no programs of this machine\n", " 4 skipped\n",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("there is no line %q in\n%s", line, &out)
		}
	}
}

// Whatever an adapter does, Judge goes on with the next part and leaves nothing behind.
func TestJudgeSurvives(t *testing.T) {
	t.Parallel()
	h := harness(fake.Options{})
	open := h.Open
	var dir string
	opened := 0
	h.Open = func(t testing.TB, site any) adapters.Adapter {
		dir = t.TempDir()
		t.Setenv("PORTOLAN_TEST_OF_JUDGE", "set")
		if opened++; opened == 1 {
			panic("an adapter that can't be opened")
		}
		return open(t, site)
	}
	var out strings.Builder
	r, err := adaptertest.Judge(t.Context(), &out, h, "^(Properties|Missing)$")
	if err != nil || r.OK() || r.Failed != 1 || r.Passed != 1 || !strings.Contains(out.String(), "an adapter that can't be opened") {
		t.Errorf("%v, %+v\n%s", err, r, &out)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory %s is left behind", dir)
	}
	if _, ok := os.LookupEnv("PORTOLAN_TEST_OF_JUDGE"); ok {
		t.Error("a variable is left behind")
	}
}

// What can't be judged is an error, not a success of nothing.
func TestJudgeRefuses(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name   string
		ended  bool
		filter string
		lacks  map[string]string
		says   string
	}{
		{"a filter that is none", false, "(", nil, "regular expression"},
		{"a filter that fits nothing", false, "^NoSuchPart$", nil, "NoSuchPart"},
		{"an unknown part", false, "", map[string]string{"Suspends": "why not"}, "Suspends"},
		{"an unknown detail", false, "", map[string]string{"Exits/7000": "why not"}, "Exits/7000"},
		{"no reason", false, "", map[string]string{"Suspend": " "}, "why"},
		{"no time", true, "", nil, "canceled"},
	} {
		h := harness(fake.Options{})
		h.Lacks = c.lacks
		var out strings.Builder
		ctx := t.Context()
		if c.ended {
			ctx = ended
		}
		if r, err := adaptertest.Judge(ctx, &out, h, c.filter); err == nil || !strings.Contains(err.Error(), c.says) || r.OK() {
			t.Errorf("%s: %v, %+v", c.name, err, r)
		}
	}
	// An ability that is claimed can't be lacking.
	h := harness(fake.Options{})
	h.Lacks = map[string]string{"Hold": "it can't"}
	var out strings.Builder
	if r, err := adaptertest.Judge(t.Context(), &out, h, "^Hold$"); err != nil || r.Failed != 1 || !strings.Contains(out.String(), "take one of them back") {
		t.Errorf("a claimed ability that is lacking: %v, %+v\n%s", err, r, &out)
	}
}
