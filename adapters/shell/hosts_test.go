package shell_test

import (
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

type sshSite struct {
	*fleet
	dir string
}

func hostsHarness(t *testing.T) adaptertest.Harness {
	f := startFleet(t, 2)
	h, limits := harness(func(*shell.Options) {}), able(t, "")
	limits["IndividualPhysicalMemory"] = limits["MemoryLimit"]
	h.Limits = limits
	if os.Getuid() == 0 {
		u, _ := other(t)
		h.Accounts = []string{u.Username}
	}
	h.Site = func(t testing.TB) any {
		// Most parts share the hosts: sites are apart by their identities. Who harms
		// the hosts has some alone.
		if strings.Contains(t.Name(), "/Faults/") {
			return &sshSite{fleet: startFleet(t, 2), dir: t.TempDir()}
		}
		return &sshSite{fleet: f, dir: t.TempDir()}
	}
	h.Open = func(t testing.TB, site any) adapters.Adapter {
		s := site.(*sshSite)
		o := s.options(t, s.dir, 2)
		o.EnforceMemory = limits["MemoryLimit"]
		a, err := shell.OpenHosts(o)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	h.Lacks = maps.Clone(lacks)
	for _, part := range []string{"Faults/Down", "Faults/ControllerKilled", "Budget"} {
		delete(h.Lacks, part)
	}
	h.Lacks["Budget"] = "each host is asked once for many jobs, and tells the rest by itself"
	h.Manager.Stop = func(_ testing.TB, site any) {
		for _, one := range site.(*sshSite).hosts {
			one.bar(true)
		}
	}
	h.Manager.Start = func(_ testing.TB, site any) {
		for _, one := range site.(*sshSite).hosts {
			one.bar(false)
		}
	}
	h.Manager.Restart = func(t testing.TB, site any) {
		for _, one := range site.(*sshSite).hosts {
			one.kill()
			one.start(t)
		}
	}
	return h
}

// A site of two hosts passes the same suite as the machine itself.
func TestSuiteHosts(t *testing.T) {
	t.Parallel()
	adaptertest.Run(t, hostsHarness(t))
}

func phaseOf(t *testing.T, a adapters.Adapter, h adapters.Handle) adapters.Evidence {
	t.Helper()
	e, err := a.Status(t.Context(), []adapters.Handle{h})
	if err != nil {
		t.Fatal(err)
	}
	return e[0]
}

func submit(t *testing.T, a adapters.Adapter, tag adapters.Tag, d *jsdl.JobDefinition) adapters.Handle {
	t.Helper()
	p := a.Submit(t.Context(), []adapters.Job{{Tag: tag, Definition: d}})
	if p[0].Err != nil {
		t.Fatal(p[0].Err)
	}
	return p[0].Handle
}

func script(s string) *jsdl.JobDefinition { return adaptertest.Command("/bin/sh", "-c", s) }

// A job whose host is away is unknown, not ended; when the host is back its end is
// found, and it ran once.
func TestHostAway(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"sshd killed", "connection cut", "connection cut, agent left"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t, 1)
			s := f.open(t, t.TempDir(), 2, nil)
			notes := t.TempDir()
			gate := filepath.Join(notes, "gate")
			if err := unix.Mkfifo(gate, 0o600); err != nil {
				t.Fatal(err)
			}
			h := submit(t, s, "away", script(fmt.Sprintf("echo started >> %[1]s/ledger; cat %[1]s/gate; echo done; exit 5", notes)))
			w, err := os.OpenFile(gate, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			wait(t, "the job to run", func() bool { return phaseOf(t, s, h).Phase == adapters.Running })
			switch how {
			case "sshd killed":
				f.hosts[0].kill()
			default:
				f.hosts[0].bar(true)
			}
			wait(t, "the job to be unknown", func() bool {
				e := phaseOf(t, s, h)
				return e.Phase == adapters.Unknown && fail.Is(e.Err, fail.Unavailable)
			})
			if p := s.Health().Problem; !strings.Contains(p, "host0") {
				t.Errorf("the site's problem is %q", p)
			}
			queued := submit(t, s, "queued", script("exit 6"))
			if e := phaseOf(t, s, queued); e.Phase != adapters.Queued {
				t.Errorf("a job that waits for its host is %+v", e)
			}
			if _, err := s.Output(t.Context(), h, adapters.Stdout, 0); !fail.Is(err, fail.Unavailable) {
				t.Errorf("output of a host that is away gives %v", err)
			}
			if how == "sshd killed" {
				_ = w.Close() // it ends meanwhile
				f.hosts[0].start(t)
			} else {
				f.hosts[0].bar(false)
				_ = w.Close()
			}
			for h, want := range map[string]int{string(h): 5, string(queued): 6} {
				var e adapters.Evidence
				wait(t, "the end of "+h, func() bool { e = phaseOf(t, s, adapters.Handle(h)); return e.Phase.Final() })
				if e.ExitStatus == nil || *e.ExitStatus != want || !slices.Equal(e.Hosts, []string{"host0"}) {
					t.Errorf("the job is %+v", e)
				}
			}
			if data, err := os.ReadFile(notes + "/ledger"); err != nil || string(data) != "started\n" {
				t.Errorf("the ledger says %q (%v)", data, err)
			}
			if p := s.Health().Problem; p != "" {
				t.Errorf("with the host back the problem is %q", p)
			}
		})
	}
}

// While one host is away the other takes the jobs, and a job that names the one waits
// for it without holding up others.
func TestOneHostAway(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	f.hosts[1].bar(true)
	s := f.open(t, t.TempDir(), 1, nil)
	named := script("exit 3")
	named.Description.Resources = &jsdl.Resources{CandidateHosts: []string{"HOST1"}}
	h := submit(t, s, "named", named)
	for i := range 3 {
		e, _ := ends(t, s, adapters.Job{Tag: adapters.Tag(fmt.Sprintf("any-%d", i)), Definition: script("exit 0")})
		if !slices.Equal(e.Hosts, []string{"host0"}) {
			t.Errorf("the job is %+v", e)
		}
	}
	if e := phaseOf(t, s, h); e.Phase != adapters.Queued {
		t.Errorf("the job that names a host that is away is %+v", e)
	}
	if r := s.Health().Remarks; s.Health().Problem != "" || !slices.ContainsFunc(r, func(r string) bool { return strings.Contains(r, "host1 is down") }) {
		t.Errorf("the site says %q %q", s.Health().Problem, r)
	}
	f.hosts[1].bar(false)
	var e adapters.Evidence
	wait(t, "the named job's end", func() bool { e = phaseOf(t, s, h); return e.Phase.Final() })
	if !slices.Equal(e.Hosts, []string{"host1"}) || e.ExitStatus == nil || *e.ExitStatus != 3 {
		t.Errorf("the job is %+v", e)
	}
	// Neither the one nor the other.
	none := script("true")
	none.Description.Resources = &jsdl.Resources{CandidateHosts: []string{"host7"}}
	if err := s.Check(none); !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "CandidateHosts") {
		t.Errorf("a host that there is not gives %v", err)
	}
	r, err := s.Resources(t.Context())
	if err != nil || len(r.Environments) != 2 || r.Environments[0].ID != "host0" || len(r.Shares) != 1 || r.Shares[0].Slots != 2 {
		t.Errorf("the site has %+v (%v)", r, err)
	}
}

// Jobs go where there is room.
func TestHostsShareJobs(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	s := f.open(t, t.TempDir(), 2, nil)
	notes := t.TempDir()
	if err := unix.Mkfifo(notes+"/gate", 0o600); err != nil {
		t.Fatal(err)
	}
	var handles []adapters.Handle
	for i := range 4 {
		handles = append(handles, submit(t, s, adapters.Tag(fmt.Sprintf("share-%d", i)), script("read x < "+notes+"/gate")))
	}
	on := map[string]int{}
	for _, h := range handles {
		wait(t, string(h)+" to run", func() bool { return phaseOf(t, s, h).Phase == adapters.Running }, func() string {
			return fmt.Sprintf("it is %+v; the site says %+v", phaseOf(t, s, h), s.Health())
		})
		on[phaseOf(t, s, h).Hosts[0]]++
	}
	if on["host0"] != 2 || on["host1"] != 2 {
		t.Errorf("the jobs run on %v", on)
	}
	w, err := os.OpenFile(notes+"/gate", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("\n\n\n\n"); err != nil {
		t.Fatal(err)
	}
	for _, h := range handles {
		wait(t, string(h)+" to end", func() bool { return phaseOf(t, s, h).Phase.Final() })
	}
}

// A host key that is not the known one is refused, and so is one that is not known.
func TestHostKeys(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1)
	for name, known := range map[string]func(o *shell.Options){
		"another key": func(o *shell.Options) {
			data, err := os.ReadFile(f.known)
			if err != nil {
				t.Fatal(err)
			}
			other := filepath.Join(t.TempDir(), "known")
			public := keyFile(t, other+".key")
			address, _, _ := strings.Cut(string(data), " ")
			if err := os.WriteFile(other, []byte(address+" "+strings.TrimSpace(string(marshal(public)))+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			o.Hosts[0].KnownHosts = other
		},
		"no key": func(o *shell.Options) {
			other := filepath.Join(t.TempDir(), "empty")
			if err := os.WriteFile(other, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			o.Hosts[0].KnownHosts = other
		},
		"no file":   func(o *shell.Options) { o.Hosts[0].KnownHosts = "/no/such/file" },
		"no login":  func(o *shell.Options) { o.Hosts[0].Key = filepath.Join(t.TempDir(), "key"); keyFile(t, o.Hosts[0].Key) },
		"no access": func(o *shell.Options) { o.Hosts[0].Key = "/no/such/key" },
	} {
		s := f.open(t, t.TempDir(), 1, known)
		if p := s.Health().Problem; !strings.Contains(p, "host0") || p == "" {
			t.Errorf("%s: the problem is %q", name, p)
		}
		t.Logf("%s: %s", name, s.Health().Problem)
		if left, err := os.ReadDir(filepath.Join(f.hosts[0].dir, "spool")); err == nil {
			t.Errorf("%s: something was made on the host: %v", name, left)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Connections are cut while jobs are given to hosts: none is lost, none runs twice.
func TestHostsCut(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	dir, ledger := t.TempDir(), filepath.Join(t.TempDir(), "ledger")
	s := f.open(t, dir, 3, nil)
	var cutting sync.WaitGroup
	defer cutting.Wait()
	cutting.Go(func() { // a connection takes a while to be made, and is to be of use at times
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for i := range 24 {
			<-tick.C
			f.hosts[i*5/3%2].cut()
		}
	})
	n := 60
	if testing.Short() {
		n = 20
	}
	var handles []adapters.Handle
	for i := range n {
		tag := adapters.Tag(fmt.Sprintf("cut-%d", i))
		handles = append(handles, submit(t, s, tag, script(fmt.Sprintf("echo %s >> %s; sleep 0.02; exit %d", tag, ledger, i%7))))
		if i == n/2 { // the gateway goes away as well, and the next takes over
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = f.open(t, dir, 3, nil)
		}
	}
	for i := range handles {
		var e adapters.Evidence
		wait(t, string(handles[i]), func() bool { e = phaseOf(t, s, handles[i]); return e.Phase.Final() })
		if e.ExitStatus == nil || *e.ExitStatus != i%7 {
			t.Errorf("job %d is %+v", i, e)
		}
	}
	data, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for tag := range strings.FieldsSeq(string(data)) {
		ran[tag]++
	}
	if len(ran) != n {
		t.Errorf("%d of %d jobs ran", len(ran), n)
	}
	for tag, times := range ran {
		if times != 1 {
			t.Errorf("%s ran %d times", tag, times)
		}
	}
}

// The processes of one job run on several hosts, and know of each other.
func TestRanksOnHosts(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	dir := t.TempDir()
	s := f.open(t, dir, 3, nil)
	place := func(o *jsdl.SPMDApplication, _ *jsdl.Resources) { o.ProcessesPerHost = big.NewInt(2) }
	j := adapters.Job{Tag: "ranks", Definition: spmd(4, place4, place)}
	e, out := ends(t, s, j)
	want := []string{}
	for i := range 4 {
		want = append(want, fmt.Sprintf("%d/4 local %d/2 node %d/2 pmi %d/4 omp ", i, i%2, i/2, i))
	}
	if e.ExitStatus == nil || *e.ExitStatus != 0 || !slices.Equal(sorted(out), want) || len(e.Hosts) != 2 {
		t.Errorf("the job is %+v and wrote %q", e, out)
	}
	// The output reads the same from any offset, and by the next gateway.
	if again := outputOf(t, s, "ranks", 7); again != out[7:] {
		t.Errorf("from 7 the output is %q, of %q", again, out)
	}
	// More processes than one host has slots.
	e, out = ends(t, s, adapters.Job{Tag: "five", Definition: spmd(5, "echo $PORTOLAN_RANK", nil)})
	if !slices.Equal(sorted(out), []string{"0", "1", "2", "3", "4"}) || len(e.Hosts) != 2 {
		t.Errorf("the job is %+v and wrote %q", e, out)
	}
	if err := s.Check(spmd(7, "", nil)); !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "NumberOfProcesses") {
		t.Errorf("more processes than slots give %v", err)
	}
	// One that fails on one host ends those on the other.
	notes := t.TempDir()
	e, _ = ends(t, s, adapters.Job{Tag: "fails", Definition: spmd(4, `echo $$ > `+notes+`/t$PORTOLAN_RANK; mv `+notes+`/t$PORTOLAN_RANK `+notes+`/$PORTOLAN_RANK
		if [ $PORTOLAN_RANK = 3 ]; then while [ ! -e `+notes+`/0 -o ! -e `+notes+`/1 -o ! -e `+notes+`/2 ]; do sleep 0.05; done; exit 9; fi; while :; do sleep 1000; done`, place)})
	if e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != 9 {
		t.Errorf("the job is %+v", e)
	}
	for i := range 4 {
		gone(t, pid(t, fmt.Sprintf("%s/%d", notes, i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.open(t, dir, 3, nil)
	if again := outputOf(t, s, "five", 0); again != out {
		t.Errorf("the next gateway gives %q, the one before %q", again, out)
	}
	if r, err := s.Resources(t.Context()); err != nil || r.Shares[0].FreeSlots != 6 {
		t.Errorf("the site has %+v (%v)", r, err)
	}
}

func outputOf(t *testing.T, a adapters.Adapter, tag adapters.Tag, offset int64) string {
	t.Helper()
	found, err := a.Find(t.Context(), []adapters.Tag{tag})
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.Output(t.Context(), found[tag], adapters.Stdout, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b strings.Builder
	if _, err := io.Copy(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func marshal(key ssh.PublicKey) []byte { return ssh.MarshalAuthorizedKey(key) }
