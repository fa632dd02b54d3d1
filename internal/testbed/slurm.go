package testbed

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/testenv"
)

// SlurmOptions say what a cluster has. The zero value is a controller with two nodes
// of four CPUs and four GiB.
type SlurmOptions struct {
	Nodes  int  // 0 is 2
	CPUs   int  // of a node; 0 is 4
	Memory int  // of a node, MiB; 0 is 4096
	DBD    bool // accounting: slurmdbd over a MariaDB of its own
	REST   bool // slurmrestd, with JWT, on a socket and a port; needs root
	Cgroup bool // memory limits and process tracking by cgroups; needs root and cgroup v1
	// Conf are further lines of slurm.conf. One whose key is there already replaces
	// it; lines of nodes and partitions are added.
	Conf []string
	// Files are further files below the cluster's directory, with their content; they
	// are executable, as they are hooks or files that do not mind.
	Files map[string]string
}

func (o *SlurmOptions) ensureDefaults() {
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.CPUs == 0 {
		o.CPUs = 4
	}
	if o.Memory == 0 {
		o.Memory = 4096
	}
}

// SlurmPackages are the Debian packages that a cluster with everything needs.
const SlurmPackages = "munge slurmctld slurmd slurm-client slurmdbd slurmrestd slurm-wlm-jwt-plugin mariadb-server"

// The daemons of a cluster; those of nodes are named by Slurmd.
const (
	Munged     = "munged"
	MariaDB    = "mariadbd"
	Slurmdbd   = "slurmdbd"
	Slurmctld  = "slurmctld"
	Slurmrestd = "slurmrestd"
)

// Slurmd names the daemon of a node.
func Slurmd(node string) string { return "slurmd." + node }

// Slurm is a cluster of its own, below one directory and on ports of its own.
type Slurm struct {
	Dir        string
	Nodes      []string // their names
	RESTSocket string   // "" without REST
	RESTAddr   string   // host:port
	options    SlurmOptions
	ports      ports
	host, addr string // this machine's name, and where it resolves to
	user       string
	daemons    map[string]*daemon
}

type ports struct{ ctld, dbd, rest, slurmd int } // slurmd is the first of the nodes'

// StartSlurm brings a cluster up for a test, which ends it. It dies with the test's
// process, too. Where Slurm is not installed the test is skipped, or fails under CI.
func StartSlurm(tb testing.TB, o SlurmOptions) *Slurm {
	tb.Helper()
	if err := slurmMissing(o); err != nil {
		testenv.Missing(tb, "%v", err)
	}
	dir, err := os.MkdirTemp("", "ptb") //nolint:usetesting // short, for sockets
	if err != nil {
		tb.Fatal(err)
	}
	release, err := keep(dir)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := NewSlurm(dir, o)
	if err == nil {
		err = s.Up()
	}
	tb.Cleanup(func() {
		if tb.Failed() && s != nil {
			tb.Logf("the last lines of the logs:\n%s", s.Logs(15))
		}
		if s != nil {
			s.Down()
		}
		if err := release(); err != nil {
			tb.Errorf("ending the cluster: %v", err)
		}
	})
	if err != nil {
		tb.Fatalf("no Slurm: %v\n%s", err, s.Logs(30))
	}
	return s
}

// slurmMissing says what is not installed of what the options want.
func slurmMissing(o SlurmOptions) error {
	tools := []string{"munged", "slurmctld", "slurmd", "sbatch"}
	if o.DBD {
		tools = append(tools, "slurmdbd", "mariadbd", "mariadb-install-db")
	}
	if o.REST {
		tools = append(tools, "slurmrestd")
	}
	for _, t := range tools {
		if program(t) == "" {
			return fmt.Errorf("%s is not installed: apt-get install %s", t, SlurmPackages)
		}
	}
	if os.Getuid() != 0 && (o.REST || o.Cgroup) {
		return errors.New("slurmrestd beside its cluster, and cgroups, need root")
	}
	if o.Cgroup {
		if !MemoryController() {
			return errors.New("this machine has no memory controller of cgroup v1, which the memory limits of Slurm 22.05 need here")
		}
	}
	return nil
}

// MemoryController reports whether this machine has what memory limits need.
func MemoryController() bool {
	_, err := os.Stat("/sys/fs/cgroup/memory/tasks")
	return err == nil
}

// program finds a program, also where only root's PATH leads.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// NewSlurm writes the configuration of a cluster below an empty directory, or takes
// one that is there.
func NewSlurm(dir string, o SlurmOptions) (*Slurm, error) {
	o.ensureDefaults()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if len(dir) > 70 {
		return nil, fmt.Errorf("the path %s is too long: sockets below it may have 108 bytes in all", dir)
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	s := &Slurm{Dir: dir, options: o, user: me.Username, daemons: map[string]*daemon{}}
	if s.host, err = os.Hostname(); err != nil {
		return nil, err
	}
	s.host, _, _ = strings.Cut(s.host, ".")
	s.addr = "127.0.0.1"
	if addrs, err := net.DefaultResolver.LookupIP(context.Background(), "ip4", s.host); err == nil && len(addrs) > 0 && addrs[0].IsLoopback() {
		s.addr = addrs[0].String()
	}
	for _, d := range []string{"munge", "db", "db-tmp", "ctld", "log", "run", "rest", "d"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { // jobs of others come here
		return nil, err
	}
	if s.ports, err = s.findPorts(); err != nil {
		return nil, err
	}
	for i := range o.Nodes {
		// Two clusters on one machine share its cgroups, which are named by the node.
		node := fmt.Sprintf("n%d-%d", s.ports.ctld, i+1)
		s.Nodes = append(s.Nodes, node)
		if err := os.MkdirAll(s.path("d", node), 0o755); err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"munge/key", "jwt.key"} {
		if _, err := os.Stat(s.path(key)); errors.Is(err, fs.ErrNotExist) {
			secret := make([]byte, 128)
			_, _ = rand.Read(secret) // it never fails
			if err := os.WriteFile(s.path(key), secret, 0o600); err != nil {
				return nil, err
			}
		}
	}
	for name, content := range o.Files {
		if err := os.WriteFile(s.path(name), []byte(content), 0o755); err != nil {
			return nil, err
		}
	}
	if o.REST {
		s.RESTSocket, s.RESTAddr = s.path("rest", "sock"), net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports.rest))
	}
	return s, s.configure()
}

func (s *Slurm) path(parts ...string) string {
	return filepath.Join(append([]string{s.Dir}, parts...)...)
}

// findPorts looks for a row of free ports, below those that the kernel gives away. A
// cluster that was there keeps its own.
func (s *Slurm) findPorts() (ports, error) {
	row := func(first int) ports { return ports{ctld: first, dbd: first + 1, rest: first + 2, slurmd: first + 3} }
	if data, err := os.ReadFile(s.path("port")); err == nil {
		first, err := strconv.Atoi(strings.TrimSpace(string(data)))
		return row(first), err
	}
	n := 3 + s.options.Nodes
	var b [2]byte
	for range 200 {
		_, _ = rand.Read(b[:])
		first := 10000 + (int(b[0])<<8|int(b[1]))%20000
		if free(s.addr, first, n) {
			return row(first), os.WriteFile(s.path("port"), []byte(strconv.Itoa(first)), 0o600)
		}
	}
	return ports{}, fmt.Errorf("no %d free ports in a row", n)
}

func free(addr string, first, n int) bool {
	for i := range n {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(first+i))) //nolint:noctx // at once
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// Env is what programs need to speak with the cluster.
func (s *Slurm) Env() []string { return []string{"SLURM_CONF=" + s.path("slurm.conf")} }

// Conf is the path of slurm.conf.
func (s *Slurm) Conf() string { return s.path("slurm.conf") }

// Run runs one of Slurm's commands and gives its standard output; an error has what
// it complained of.
func (s *Slurm) Run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(name), args...)
	cmd.Env = append(os.Environ(), append(s.Env(), "LC_ALL=C", "MYSQL_UNIX_PORT="+s.path("run", "db.sock"))...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// MustRun is Run for a command that must succeed.
func (s *Slurm) MustRun(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := s.Run(name, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Logs gives the last lines of each daemon's log.
func (s *Slurm) Logs(lines int) string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	logs, _ := filepath.Glob(s.path("log", "*.log"))
	for _, log := range logs {
		data, err := os.ReadFile(log)
		if err != nil || len(data) == 0 {
			continue
		}
		all := strings.Split(strings.TrimSpace(string(data)), "\n")
		fmt.Fprintf(&b, "== %s\n%s\n", filepath.Base(log), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return b.String()
}
