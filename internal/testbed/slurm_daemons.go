package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// daemon is one that runs as a child of this process.
type daemon struct {
	cmd  *exec.Cmd
	gone chan struct{}
}

// loopback reports whether this machine's own name leads to itself only.
func (s *Slurm) loopback() bool {
	return strings.HasPrefix(s.addr, "127.") && resolvesTo(s.host, s.addr)
}

// Up starts every daemon that does not run, and waits until the nodes take jobs.
func (s *Slurm) Up() error {
	steps := []string{Munged}
	if s.options.DBD {
		steps = append(steps, MariaDB, Slurmdbd)
	}
	steps = append(steps, Slurmctld)
	for _, n := range s.Nodes {
		steps = append(steps, Slurmd(n))
	}
	if s.options.REST {
		steps = append(steps, Slurmrestd)
	}
	for _, name := range steps {
		if err := s.start(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return s.waitNodes()
}

func (s *Slurm) waitNodes() error {
	return eventually(2*time.Minute, func() error {
		out, err := s.Run("sinfo", "-h", "-N", "-t", "idle,alloc,mix", "-o", "%N")
		if err != nil {
			return err
		}
		up := map[string]bool{}
		for n := range strings.FieldsSeq(out) {
			up[n] = true
		}
		if len(up) != len(s.Nodes) {
			return fmt.Errorf("%d of %d nodes are up", len(up), len(s.Nodes))
		}
		return nil
	})
}

// eventually tries until it succeeds.
func eventually(patience time.Duration, try func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-time.After(50 * time.Millisecond)
	}
}

// Start starts a daemon and waits until it answers.
func (s *Slurm) Start(tb testing.TB, name string) {
	tb.Helper()
	if err := s.start(name); err != nil {
		tb.Fatalf("starting %s: %v\n%s", name, err, s.Logs(10))
	}
}

// Kill ends a daemon by SIGKILL and waits for its end.
func (s *Slurm) Kill(tb testing.TB, name string) {
	tb.Helper()
	if err := s.end(name, syscall.SIGKILL); err != nil {
		tb.Fatalf("killing %s: %v", name, err)
	}
}

// Stop ends a daemon as its administrator would, and waits for its end.
func (s *Slurm) Stop(tb testing.TB, name string) {
	tb.Helper()
	if err := s.end(name, syscall.SIGTERM); err != nil {
		tb.Fatalf("stopping %s: %v", name, err)
	}
}

// Freeze holds a daemon in mid-flight (SIGSTOP), Thaw lets it go on.
func (s *Slurm) Freeze(tb testing.TB, name string) { tb.Helper(); s.signal(tb, name, syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Slurm) Thaw(tb testing.TB, name string) { tb.Helper(); s.signal(tb, name, syscall.SIGCONT) }

func (s *Slurm) signal(tb testing.TB, name string, sig syscall.Signal) {
	tb.Helper()
	pid, ok := s.pid(name)
	if !ok {
		tb.Fatalf("%s does not run", name)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		tb.Fatalf("%v to %s: %v", sig, name, err)
	}
}

// pid gives the id of a daemon that runs, whoever started it.
func (s *Slurm) pid(name string) (int, bool) {
	if d := s.daemons[name]; d != nil {
		select {
		case <-d.gone:
			return 0, false
		default:
			return d.cmd.Process.Pid, true
		}
	}
	data, err := os.ReadFile(s.path("run", name+".pid"))
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, false
	}
	// A number may have been given to another process since.
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != s.Dir && !strings.HasPrefix(cwd, s.Dir+"/") {
		return 0, false
	}
	return pid, true
}

func (s *Slurm) end(name string, sig syscall.Signal) error {
	pid, ok := s.pid(name)
	if !ok {
		return nil
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	_ = syscall.Kill(pid, syscall.SIGCONT) // one that is frozen heeds nothing
	if err := eventually(20*time.Second, func() error {
		if _, ok := s.pid(name); ok {
			return errors.New("it does not end")
		}
		return nil
	}); err != nil {
		if sig == syscall.SIGKILL {
			return err
		}
		return s.end(name, syscall.SIGKILL)
	}
	delete(s.daemons, name)
	return nil
}

// Down ends all daemons and what they started.
func (s *Slurm) Down() {
	names := []string{Slurmrestd}
	for _, n := range s.Nodes {
		names = append(names, Slurmd(n))
	}
	for _, name := range append(names, Slurmctld, Slurmdbd, MariaDB, Munged) {
		sig := syscall.SIGKILL
		if name == MariaDB || name == Slurmdbd { // they keep state for another time
			sig = syscall.SIGTERM
		}
		_ = s.end(name, sig) // the reaper gets what is left
	}
}

// start starts a daemon unless it runs, and waits until it answers.
func (s *Slurm) start(name string) error {
	if _, runs := s.pid(name); runs {
		return nil
	}
	var args []string
	var ready func() error
	env := append(s.Env(), "LC_ALL=C", "MYSQL_UNIX_PORT="+s.path("run", "db.sock"), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "HOME=/")
	attr := &syscall.SysProcAttr{Setsid: true}
	is := func(path string) func() error { return func() error { _, err := os.Stat(path); return err } }
	answers := func(command string, args ...string) func() error {
		return func() error { _, err := s.Run(command, args...); return err }
	}
	switch kind, node, _ := strings.Cut(name, "."); kind {
	case Munged:
		_ = os.Remove(s.path("run", "munge.sock"))
		args = []string{
			"--foreground", "--force", "--key-file=" + s.path("munge", "key"), "--socket=" + s.path("run", "munge.sock"), "--num-threads=4",
			"--pid-file=" + s.path("run", "munged.own.pid"), "--log-file=" + s.path("log", "munged.log"), "--seed-file=" + s.path("munge", "seed"),
		}
		ready = is(s.path("run", "munge.sock"))
	case MariaDB:
		if err := s.installDatabase(); err != nil {
			return err
		}
		args = append(s.database(), "--skip-networking", "--socket="+s.path("run", "db.sock"), "--log-error="+s.path("log", "db.log"),
			"--pid-file="+s.path("run", "mariadbd.own.pid"), "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900")
		ready = answers("mariadb", "--no-defaults", "-u", s.user, "-e", "create database if not exists slurm_acct")
	case Slurmdbd:
		args, ready = []string{"-D"}, s.accounts
	case Slurmctld:
		args, ready = []string{"-D"}, answers("scontrol", "ping")
	case "slurmd":
		args = []string{"-D", "-N", node}
	case Slurmrestd:
		_ = os.Remove(s.RESTSocket)
		args, ready = []string{"-a", "rest_auth/jwt"}, is(s.RESTSocket)
		if !s.options.DBD { // it would insist on accounting
			args = append(args, "-s", "v0.0.38")
		}
		args = append(args, "unix:"+s.RESTSocket, s.RESTAddr)
		// It runs neither as root nor as Slurm's own account.
		env = append(env, "SLURM_JWT=daemon")
		attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(s.path("rest"), 65534, 65534); err != nil {
			return err
		}
	default:
		return errors.New("there is no such daemon")
	}
	kind, _, _ := strings.Cut(name, ".")
	log, err := os.OpenFile(s.path("log", name+".out.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()                           // the daemon has its own
	cmd := exec.Command(program(kind), args...) //nolint:noctx // a daemon outlives the call, and where it is to stay, this process
	cmd.Env, cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = env, s.path("run"), attr, log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	d := &daemon{cmd: cmd, gone: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(d.gone) }()
	s.daemons[name] = d
	if err := os.WriteFile(s.path("run", name+".pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return err
	}
	if ready == nil {
		return nil
	}
	return eventually(2*time.Minute, func() error {
		select {
		case <-d.gone:
			return fmt.Errorf("it ended at once: %v", cmd.ProcessState)
		default:
		}
		return ready()
	})
}

func (s *Slurm) database() []string {
	// A server that starts removes what it takes for left-overs from its folder for
	// temporary files, which are another one's where they share it.
	return []string{"--no-defaults", "--user=" + s.user, "--datadir=" + s.path("db"), "--tmpdir=" + s.path("db-tmp")}
}

func (s *Slurm) installDatabase() error {
	if _, err := os.Stat(s.path("db", "mysql")); err == nil {
		return nil
	}
	args := append([]string{"--no-defaults", "--force"}, s.database()[1:]...)
	_, err := s.Run("mariadb-install-db", append(args, "--auth-root-authentication-method=socket", "--auth-root-socket-user="+s.user, "--skip-test-db")...)
	return err
}

// accounts makes the cluster, an account and a user known to slurmdbd.
func (s *Slurm) accounts() error {
	out, err := s.Run("sacctmgr", "-n", "-P", "list", "cluster", "format=cluster")
	if err != nil {
		return err
	}
	if strings.Contains(out, "testbed") {
		return nil
	}
	for _, args := range [][]string{{"cluster", "testbed"}, {"account", "grid"}, {"user", s.user, "account=grid"}, {"qos", "high"}} {
		if _, err := s.Run("sacctmgr", append([]string{"-i", "add"}, args...)...); err != nil {
			return err
		}
	}
	_, err = s.Run("sacctmgr", "-i", "modify", "user", s.user, "set", "qos+=high")
	return err
}

// UpSlurm brings a cluster up that outlives this process, and gives the variables to
// set for its use.
func UpSlurm(dir string, o SlurmOptions) ([]string, error) {
	if err := slurmMissing(o); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s, err := NewSlurm(dir, o)
	if err != nil {
		return nil, err
	}
	if err := s.Up(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.Logs(10))
	}
	env := s.Env()
	if s.RESTAddr != "" {
		env = append(env, "PORTOLAN_TESTBED_SLURMRESTD="+s.RESTSocket)
	}
	return env, nil
}

// DownSlurm ends a cluster that UpSlurm brought up; what it knows stays there.
func DownSlurm(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	nodes, err := os.ReadDir(filepath.Join(dir, "d"))
	if err != nil {
		return fmt.Errorf("%s holds no cluster: %w", dir, err)
	}
	s := &Slurm{Dir: dir, daemons: map[string]*daemon{}}
	for _, n := range nodes {
		s.Nodes = append(s.Nodes, n.Name())
	}
	s.Down()
	return reap(dir)
}
