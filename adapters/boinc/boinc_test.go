package boinc_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/boinc"
	"github.com/portolan-project/portolan/adapters/boinc/boinctest"
	"github.com/portolan-project/portolan/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a project with the directory of a gateway's adapter for it.
type site struct {
	*boinctest.World
	dir string
}

func start(t testing.TB, config boinctest.Config, hosts ...*boinctest.Volunteer) *site {
	t.Helper()
	w, err := boinctest.Start(t.TempDir(), config, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return &site{World: w, dir: t.TempDir()}
}

// settings are those of a project that answers at once.
const settings = `
url: %s
authenticatorFile: %s
wrapper: run
requestsPerSecond: 300
poll: %s
settle: 500ms
timeout: 20s
unproven: -1
maxFile: 8000000
absolutePaths: true
capacity: {hosts: 1, cpus: 4, slots: 4, memory: 1000000000000, disk: 1000000000000}
`

func (s *site) open(t testing.TB, more string) *boinc.Adapter {
	t.Helper()
	key, err := s.WriteKey()
	if err != nil {
		t.Fatal(err)
	}
	poll := "100ms"
	if strings.Contains(t.Name(), "FiveThousand") {
		poll = "2s" // whoever has thousands of jobs does not ask about all of them ten times a second
	}
	var base []string // what more says holds
	for line := range strings.Lines(fmt.Sprintf(settings, s.URL, key, poll)) {
		name, _, _ := strings.Cut(line, ":")
		if !strings.Contains("\n"+more, "\n"+name+":") {
			base = append(base, line)
		}
	}
	parsed, err := adapters.ParseSettings(strings.Join(base, "") + more)
	if err != nil {
		t.Fatal(err)
	}
	a, err := boinc.Open(adapters.Config{Site: "volunteers", Dir: s.dir, Settings: parsed})
	if err != nil {
		t.Fatal(err)
	}
	return a.(*boinc.Adapter)
}

func host() *boinctest.Volunteer {
	return &boinctest.Volunteer{Slots: 4, Grace: 500 * time.Millisecond}
}

func harness() adaptertest.Harness {
	return adaptertest.Harness{
		Site:     func(t testing.TB) any { return start(t, boinctest.Standard(), host()) },
		Open:     func(t testing.TB, s any) adapters.Adapter { return s.(*site).open(t, "") },
		Programs: true, Parallel: true, Many: 100, Short: !testenv.Thorough(), Umask: 0o022, Patience: 2 * time.Minute,
		Limits: map[string]bool{
			"WallTimeLimit": true, "CPUTimeLimit": true, "FileSizeLimit": true, "CoreDumpLimit": true, "DataSegmentLimit": true,
			"LockedMemoryLimit": true, "OpenDescriptorsLimit": true, "StackSizeLimit": true, "VirtualMemoryLimit": true,
		},
		Starts: func(s any, tag adapters.Tag) int { return s.(*site).Starts("portolan_" + string(tag)) },
		Manager: adaptertest.Manager{
			Stop:  func(_ testing.TB, s any) { s.(*site).Down(true) },
			Start: func(_ testing.TB, s any) { s.(*site).Down(false) },
			Restart: func(t testing.TB, s any) {
				if err := s.(*site).Restart(); err != nil {
					t.Fatal(err)
				}
			},
			LoseNextAnswer: func(_ testing.TB, s any, done bool) {
				s.(*site).Project().Inject(boinctest.Fault{Operation: "submit_batch", Cut: done, Refuse: !done})
			},
			Requests: func(s any) int64 { return s.(*site).Total() },
		},
		Lacks: map[string]string{
			"OutputWhileHanging":          "hosts upload what a job wrote when it has ended, not before (the reference's §6)",
			"Programs/OutputWhileRunning": "hosts upload what a job wrote when it has ended, not before (the reference's §6)",
			"Programs/CancelStubborn":     "hosts upload nothing of a job that the project wants aborted (recorded as abort/279)",
			"Programs/Accounts":           "hosts of volunteers have no accounts for jobs",
			"Programs/FileSystems":        "what a host mounts can't be looked at before a job is sent to it",
			"Programs/Resources":          "a project sends a job to whichever host asks: none can be named, not even this machine",
		},
	}
}

func TestSuite(t *testing.T) {
	t.Parallel()
	adaptertest.Run(t, harness())
}
