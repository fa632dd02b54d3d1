package shell_test

import (
	"bytes"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/jsdl"
)

// open opens an adapter on a directory that other accounts can get at.
func open(t *testing.T, change func(*shell.Options)) *shell.Adapter {
	t.Helper()
	o := options(openDir(t))
	change(&o)
	a, err := shell.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// says runs a script, as the account and with changes, and gives what it wrote.
func says(t *testing.T, a adapters.Adapter, tag adapters.Tag, account, script string, change func(*jsdl.POSIXApplication)) (adapters.Evidence, string) {
	t.Helper()
	d := adaptertest.Command("/bin/sh", "-c", script)
	if change != nil {
		change(d.Description.Application.POSIX)
	}
	return ends(t, a, adapters.Job{Tag: tag, Account: account, Definition: d})
}

// ends runs a job and gives its end and its output.
func ends(t *testing.T, a adapters.Adapter, j adapters.Job) (e adapters.Evidence, out string) {
	t.Helper()
	p := a.Submit(t.Context(), []adapters.Job{j})
	if p[0].Err != nil {
		t.Fatal(p[0].Err)
	}
	wait(t, "the end of "+string(j.Tag), func() bool {
		es, err := a.Status(t.Context(), []adapters.Handle{p[0].Handle})
		if err != nil {
			t.Fatal(err)
		}
		e = es[0]
		return e.Phase.Final()
	})
	r, err := a.Output(t.Context(), p[0].Handle, adapters.Stdout, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return e, b.String()
}

func root(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can run jobs as other accounts")
	}
}

// other gives an account that is not root's, and its groups as id(1) tells them.
func other(t *testing.T) (*user.User, string) {
	t.Helper()
	for _, name := range []string{"nobody", "daemon", "bin"} {
		if u, err := user.Lookup(name); err == nil && u.Uid != "0" {
			out, err := exec.CommandContext(t.Context(), "id", name).Output()
			if err != nil {
				t.Fatal(err)
			}
			return u, string(out)
		}
	}
	testenv.Missing(t, "there is no account but root's")
	return nil, ""
}

// A job whose owner is mapped to an account is that account, wholly.
func TestAccount(t *testing.T) {
	t.Parallel()
	root(t)
	u, groups := other(t)
	a := open(t, func(o *shell.Options) { o.Sandbox.Accounts = []string{u.Username} })
	name := u.Username
	for i, how := range []struct {
		account string
		change  func(*jsdl.POSIXApplication)
	}{
		{name, nil},
		{"", func(p *jsdl.POSIXApplication) { p.UserName = &name }},
		{name, func(p *jsdl.POSIXApplication) { p.UserName = &name }},
	} {
		e, out := says(t, a, adapters.Tag(fmt.Sprintf("who-%d", i)), how.account,
			`id; grep -E '^(Uid|Gid|CapEff)' /proc/self/status; echo "$USER $LOGNAME $HOME"; echo mine > file; stat -c %U file . ; cat file; head -c 1 /etc/shadow`, how.change)
		uid := fmt.Sprintf("Uid:\t%[1]s\t%[1]s\t%[1]s\t%[1]s\n", u.Uid)
		for _, want := range []string{groups, uid, fmt.Sprintf("%s %s %s\n", name, name, u.HomeDir), name + "\n" + name + "\nmine\n", "CapEff:\t0000000000000000\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("the job wrote\n%s\nwant %q", out, want)
			}
		}
		if e.ExitStatus == nil || *e.ExitStatus == 0 {
			t.Errorf("the job could read what is root's: %+v", e)
		}
	}
	// Supplementary groups are the account's, not the gateway's; GroupName picks one.
	group := "daemon"
	if _, err := user.LookupGroup(group); err == nil && name != group {
		e := a.Check(with(func(p *jsdl.POSIXApplication) { p.UserName, p.GroupName = &name, &group }))
		if !fail.Is(e, fail.Unsupported) || !strings.Contains(fail.Sentence(e), "GroupName") {
			t.Errorf("a group that the account is not in gives %v", e)
		}
	}
	for _, no := range []string{"root", "no-such-account", ""} {
		if no == "root" {
			continue // the gateway's own account here
		}
		if err := a.Check(with(func(p *jsdl.POSIXApplication) { p.UserName = &no })); !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "UserName") {
			t.Errorf("UserName %q gives %v", no, err)
		}
	}
	p := a.Submit(t.Context(), []adapters.Job{{Tag: "mapped-nowhere", Account: "no-such-account", Definition: adaptertest.Command("/bin/true")}})
	if adapters.ClassOf(p[0].Err) != adapters.Permanent {
		t.Errorf("a mapping to no account gives %v", p[0].Err)
	}
}

func with(change func(*jsdl.POSIXApplication)) *jsdl.JobDefinition {
	d := adaptertest.Command("/bin/true")
	change(d.Description.Application.POSIX)
	return d
}

// An account's job reaches files with the rights of the account alone, whatever the
// gateway could do, and the gateway reads for it only what is the account's own.
func TestAccountFiles(t *testing.T) {
	t.Parallel()
	root(t)
	u, _ := other(t)
	a := open(t, func(*shell.Options) {})
	dir, err := os.MkdirTemp("", "files-") //nolint:usetesting // below t.TempDir only its owner may go
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	secret, closed := filepath.Join(dir, "secret"), filepath.Join(dir, "closed")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	text := func(s string) *jsdl.Text { return &jsdl.Text{Value: s} }
	for name, change := range map[string]func(*jsdl.POSIXApplication){
		"Input":            func(p *jsdl.POSIXApplication) { p.Input = text(secret) },
		"Output":           func(p *jsdl.POSIXApplication) { p.Output = text(secret) },
		"Error":            func(p *jsdl.POSIXApplication) { p.Error = text(filepath.Join(closed, "new")) },
		"WorkingDirectory": func(p *jsdl.POSIXApplication) { p.WorkingDirectory = text(closed) },
	} {
		d := with(change)
		p := a.Submit(t.Context(), []adapters.Job{{Tag: adapters.Tag("rights-" + name), Account: u.Username, Definition: d}})
		if p[0].Err != nil {
			t.Fatal(p[0].Err)
		}
		if e := final(t, a, p[0].Handle); e.Phase != adapters.Stopped || !e.NotRun || !strings.Contains(e.Reason, name) {
			t.Errorf("%s of root's gives %+v", name, e)
		}
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret\n" {
		t.Errorf("the file of root's holds %q (%v)", data, err)
	}
	// A link from the place of the output to root's file shows nothing.
	out := filepath.Join(dir, "out")
	p := a.Submit(t.Context(), []adapters.Job{{Tag: "link", Account: u.Username, Definition: with(func(p *jsdl.POSIXApplication) {
		p.Executable.Value, p.Arguments = "/bin/sh", []jsdl.Text{{Value: "-c"}, {Value: fmt.Sprintf("rm -f %[1]s; ln -s %[2]s %[1]s", out, secret)}}
		p.Output = text(out)
	})}})
	if p[0].Err != nil {
		t.Fatal(p[0].Err)
	}
	if e := final(t, a, p[0].Handle); e.ExitStatus == nil || *e.ExitStatus != 0 {
		t.Fatalf("the job is %+v", e)
	}
	if r, err := a.Output(t.Context(), p[0].Handle, adapters.Stdout, 0); err == nil {
		_ = r.Close()
		t.Error("a link to root's file is followed")
	}
	// Nor can another account look into the job.
	if out, err := exec.CommandContext(t.Context(), "setpriv", "--reuid=2", "--regid=2", "--clear-groups", "ls", filepath.Dir(secret)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// Forgetting takes away what is the account's.
	if err := a.Forget(t.Context(), p[0].Handle); err != nil {
		t.Error(err)
	}
}

func TestNoNewPrivileges(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		a := open(t, func(o *shell.Options) { o.Sandbox.NoNewPrivileges = on })
		want := map[bool]string{false: "NoNewPrivs:\t0\n", true: "NoNewPrivs:\t1\n"}[on]
		if _, out := says(t, a, "nnp", "", "grep NoNewPrivs /proc/self/status", nil); out != want {
			t.Errorf("with noNewPrivileges %v a program sees %q", on, out)
		}
	}
	root(t)
	u, _ := other(t)
	su := "/bin/su"
	if info, err := os.Stat(su); err != nil || info.Mode()&os.ModeSetuid == 0 {
		t.Skip("skipped: there is no set-user-ID program to try")
	}
	a := open(t, func(o *shell.Options) { o.Sandbox.NoNewPrivileges = true })
	// A program that would be root stays what its caller is.
	_, out := says(t, a, "su", u.Username, `cat /proc/self/status > /dev/null; /bin/su -c id root < /dev/null; echo "rc $?"`, nil)
	if strings.Contains(out, "uid=0") || strings.Contains(out, "rc 0") {
		t.Errorf("su gave %q", out)
	}
}

// offered asks whether the machine has what a sandbox needs; the adapter must say the
// same to whoever wants it.
func offered(t *testing.T, a *shell.Adapter, what string) bool {
	t.Helper()
	line := regexp.MustCompile("^" + regexp.QuoteMeta(what) + ": (offered|not offered here)")
	for _, r := range a.Health().Remarks {
		if m := line.FindStringSubmatch(r); m != nil {
			err := a.Check(adaptertest.Command("/bin/true"))
			if yes := m[1] == "offered"; yes != (err == nil) {
				t.Errorf("%q, and a job gets %v", r, err)
			}
			return m[1] == "offered"
		}
	}
	t.Errorf("nothing is said of %s in %q", what, a.Health().Remarks)
	return false
}

func TestPrivateTmp(t *testing.T) {
	t.Parallel()
	// The suite's directory is below /tmp, too: the job's own directory must be there.
	a := open(t, func(o *shell.Options) { o.Sandbox.PrivateTmp, o.Slots = true, 1 })
	if !offered(t, a, "sandbox privateTmp") {
		t.Skip("skipped: this machine lets nobody make namespaces; the adapter was seen to refuse")
	}
	mark := fmt.Sprintf("portolan-mark-%d", os.Getpid())
	if err := os.WriteFile(filepath.Join(os.TempDir(), mark), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(filepath.Join(os.TempDir(), mark)) })
	script := `ls /tmp /var/tmp; echo x > /tmp/` + mark + `-job && echo x > /var/tmp/` + mark + `-job && echo wrote; echo here > file; cat file; ls /tmp | wc -l; stat -c %a /tmp`
	for i := range 3 { // one after another, by one supervisor
		e, out := says(t, a, adapters.Tag(fmt.Sprintf("tmp-%d", i)), "", script, nil)
		if e.ExitStatus == nil || *e.ExitStatus != 0 || strings.Contains(out, mark) || !strings.Contains(out, "wrote\nhere\n") || !strings.HasSuffix(out, "1777\n") {
			t.Errorf("job %d is %+v and wrote %q", i, e, out)
		}
	}
	for _, dir := range private {
		if _, err := os.Stat(filepath.Join(dir, mark+"-job")); err == nil {
			t.Errorf("what a job writes to %s is there for all", dir)
		}
	}
	// Standard output may go there as well, and is read back from there.
	d := adaptertest.Command("/bin/echo", "hello")
	d.Description.Application.POSIX.Output = &jsdl.Text{Value: "out"}
	if _, out := ends(t, a, adapters.Job{Tag: "tmp-out", Definition: d}); out != "hello\n" {
		t.Errorf("an output beside the program is %q", out)
	}
	if os.Getuid() != 0 {
		return
	}
	u, _ := other(t)
	if _, out := says(t, a, "tmp-account", u.Username, `echo x > /tmp/f && stat -c %U /tmp/f && pwd > /dev/null && echo > g && echo done`, nil); out != u.Username+"\ndone\n" {
		t.Errorf("an account's job wrote %q", out)
	}
}

var private = []string{"/tmp", "/var/tmp"}

func TestNoNetwork(t *testing.T) {
	t.Parallel()
	a := open(t, func(o *shell.Options) { o.Sandbox.Network, o.Slots = "none", 1 })
	if !offered(t, a, "sandbox network none") {
		t.Skip("skipped: this machine lets nobody make namespaces; the adapter was seen to refuse")
	}
	for i := range 2 {
		_, out := says(t, a, adapters.Tag(fmt.Sprintf("net-%d", i)), "", `tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; tail -n +2 /proc/net/route | wc -l; cat /proc/net/fib_trie | grep -c 127.0.0.1; readlink /proc/self/ns/net`, nil)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		own, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		// Loopback is there and up: its address is in the table of routes.
		if len(lines) != 4 || slices.ContainsFunc(lines[:1], func(s string) bool { return s != "lo" }) || lines[1] != "0" || lines[2] == "0" || lines[3] == own {
			t.Errorf("the program sees %q", out)
		}
	}
}

// What a site's settings promise and the machine has not, is said, and every job refused.
func TestSandboxMissing(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("skipped: root has it all")
	}
	a := open(t, func(o *shell.Options) { o.Sandbox.Accounts = []string{"daemon"} })
	if err := a.Check(adaptertest.Command("/bin/true")); !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "accounts") {
		t.Errorf("Check gives %v", err)
	}
}

// Whether jobs can run as an account is told before one is placed.
func TestCheckAs(t *testing.T) {
	t.Parallel()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, func(*shell.Options) {})
	d := adaptertest.Command("/bin/true")
	for _, name := range []string{"", u.Username} {
		if err := a.CheckAs(d, name); err != nil {
			t.Errorf("as %q: %v", name, err)
		}
	}
	err = a.CheckAs(d, "no-such-account")
	if !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), `"no-such-account"`) {
		t.Errorf("as nobody: %v", err)
	}
	if p := a.Submit(t.Context(), []adapters.Job{{Tag: "as-1", Definition: d, Account: "no-such-account"}})[0]; fail.Sentence(p.Err) != fail.Sentence(err) {
		t.Errorf("Submit says %v", p.Err)
	}
}

// The memory that a job requires is its limit where the site wants it so; being
// killed for it is told apart from being killed.
func TestEnforcedMemory(t *testing.T) {
	t.Parallel()
	a := open(t, func(o *shell.Options) { o.EnforceMemory = true })
	job := func(script string, memory *jsdl.RangeValue) *jsdl.JobDefinition {
		d := adaptertest.Command("/bin/sh", "-c", script)
		d.Description.Resources = &jsdl.Resources{IndividualPhysicalMemory: memory}
		return d
	}
	exactly := &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: 48 << 20}}}
	eat := "exec tail -n 1 /dev/zero"
	if err := a.Check(job(eat, exactly)); err != nil {
		if !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "IndividualPhysicalMemory") {
			t.Errorf("without a memory controller Check gives %v", err)
		}
		t.Skipf("skipped: %v", err)
	}
	for i, memory := range []*jsdl.RangeValue{
		exactly, {Lower: &jsdl.Bound{Value: 48 << 20}}, {Upper: &jsdl.Bound{Value: 48 << 20}}, {Lower: &jsdl.Bound{Value: 1 << 20}, Upper: &jsdl.Bound{Value: 48 << 20}},
	} {
		if e, _ := ends(t, a, adapters.Job{Tag: adapters.Tag(fmt.Sprintf("eats-%d", i)), Definition: job(eat, memory)}); e.Phase != adapters.Stopped || !strings.Contains(e.Reason, "IndividualPhysicalMemory") {
			t.Errorf("with %+v the job is %+v", memory, e)
		}
	}
	if e, _ := ends(t, a, adapters.Job{Tag: "killed", Definition: job("kill -KILL $$", exactly)}); e.Phase != adapters.Exited || e.Signal != "SIGKILL" || e.Reason != "" {
		t.Errorf("a job that was killed is %+v", e)
	}
	if e, _ := ends(t, a, adapters.Job{Tag: "status137", Definition: job("exit 137", exactly)}); e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != 137 || e.Reason != "" {
		t.Errorf("a job that gives 137 is %+v", e)
	}
	small := job(eat, exactly)
	small.Description.Application.POSIX.Limits.Memory = big.NewInt(24 << 20)
	if e, _ := ends(t, a, adapters.Job{Tag: "smaller", Definition: small}); e.Phase != adapters.Stopped || !strings.Contains(e.Reason, "MemoryLimit") {
		t.Errorf("with a smaller MemoryLimit the job is %+v", e)
	}
}

// Processor time goes by slots.
func TestCPUShares(t *testing.T) {
	t.Parallel()
	a := open(t, func(o *shell.Options) { o.CPUShares = true })
	if !offered(t, a, "cpuShares") {
		t.Skip("skipped: no cgroup for processor time; the adapter was seen to refuse")
	}
	d := adaptertest.Command("/bin/sh", "-c", `
		for d in $(sed -n 's/^[0-9]*:\(cpu\|\|[^:]*,cpu\|cpu,[^:]*\):\(.*\)/\2/p' /proc/self/cgroup); do
			for m in /sys/fs/cgroup /sys/fs/cgroup/cpu /sys/fs/cgroup/unified; do cat $m$d/cpu.shares $m$d/cpu.weight 2> /dev/null; done
		done; true`)
	d.Description.Resources = &jsdl.Resources{TotalCPUCount: &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: 2}}}}
	if err := a.Check(d); err != nil {
		t.Skipf("skipped: %v", err)
	}
	if _, out := ends(t, a, adapters.Job{Tag: "shares", Definition: d}); !slices.Contains(strings.Fields(out), "2048") && !slices.Contains(strings.Fields(out), "200") {
		t.Errorf("a job with two slots sees the shares %q", out)
	}
}

// The versions of what a site has grow with it, and only then.
func TestResourceVersions(t *testing.T) {
	t.Parallel()
	a := open(t, func(*shell.Options) {})
	ask := func() adapters.Resources {
		r, err := a.Resources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.Environments[0].FreeMemory, r.Environments[0].Disk = 0, 0
		return r
	}
	before := ask()
	gate := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	h := place(t, a, "waits", "cat "+gate)
	w, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	during := ask()
	if during.Dynamic <= before.Dynamic || during.Shares[0].Running != 1 || during.Shares[0].FreeSlots != before.Shares[0].FreeSlots-1 {
		t.Errorf("with a job running it is %+v, before %+v", during, before)
	}
	_ = w.Close()
	final(t, a, h)
	if after := ask(); after.Dynamic <= during.Dynamic || after.Shares[0].Running != 0 {
		t.Errorf("after the job it is %+v", after)
	}
}
