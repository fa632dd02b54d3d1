package testbed

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/testenv"
)

// CondorOptions say what a pool has. The zero value is one partitionable slot of
// eight CPUs.
type CondorOptions struct {
	CPUs   int // 0 is 8
	Memory int // MiB; 0 is 1024 for each CPU
	// Conf are further lines of the configuration; what they set holds. %DIR% in one is
	// the pool's directory.
	Conf []string
}

func (o *CondorOptions) ensureDefaults() {
	if o.CPUs == 0 {
		o.CPUs = 8
	}
	if o.Memory == 0 {
		o.Memory = o.CPUs * 1024
	}
}

// The daemons of a pool, by the names of their programs. Where one is named, the name
// without "condor_" does as well.
const (
	CondorMaster     = "condor_master"
	CondorCollector  = "condor_collector"
	CondorNegotiator = "condor_negotiator"
	CondorSchedd     = "condor_schedd"
	CondorStartd     = "condor_startd"
)

// Condor is a pool of its own, below one directory and on a port of its own.
type Condor struct {
	Dir     string
	Work    string // a directory below it in which jobs may write
	User    string // that root's jobs run as; "" if this process is not root's
	options CondorOptions
	soft    string
	port    int
	uid     int
	gid     int
	down    map[string]bool // daemons that are to stay away
}

// StartCondor brings a pool up for a test, which ends it. It dies with the test's
// process, too. HTCondor's programs are fetched when they are not in the cache.
func StartCondor(tb testing.TB, o CondorOptions) *Condor {
	tb.Helper()
	if _, err := CondorSoftware(tb.Context()); err != nil {
		testenv.Missing(tb, "%v", err)
	}
	dir, err := os.MkdirTemp("", "ptc") //nolint:usetesting // short, for sockets
	if err != nil {
		tb.Fatal(err)
	}
	release, err := keep(dir)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := NewCondor(tb.Context(), dir, o)
	if err == nil {
		err = c.Up()
	}
	tb.Cleanup(func() {
		if tb.Failed() && c != nil {
			tb.Logf("the last lines of the logs:\n%s", c.Logs(15))
		}
		if c != nil {
			c.Down()
		}
		if err := release(); err != nil {
			tb.Errorf("ending the pool: %v", err)
		}
	})
	if err != nil {
		tb.Fatalf("no HTCondor: %v\n%s", err, c.Logs(30))
	}
	return c
}

// NewCondor writes the configuration of a pool below an empty directory, or takes one
// that is there.
func NewCondor(ctx context.Context, dir string, o CondorOptions) (*Condor, error) {
	o.ensureDefaults()
	soft, err := CondorSoftware(ctx)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if len(dir) > 60 {
		return nil, fmt.Errorf("the path %s is too long: sockets below it may have 108 bytes in all", dir)
	}
	c := &Condor{Dir: dir, options: o, soft: soft, uid: os.Getuid(), gid: os.Getgid(), down: map[string]bool{}}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if c.uid == 0 { // HTCondor runs no job as root
		if err := c.borrow("nobody"); err != nil {
			return nil, err
		}
		for _, path := range []string{dir, soft} {
			if err := reachable(path); err != nil {
				return nil, err
			}
		}
	}
	c.Work = c.path("work")
	for _, d := range []string{"log", "run", "lock", "spool", "execute", "work", "etc", "sock"} {
		if err := os.MkdirAll(c.path(d), 0o755); err != nil {
			return nil, err
		}
		if err := os.Chmod(c.path(d), 0o755); err != nil {
			return nil, err
		}
		if err := os.Chown(c.path(d), c.uid, c.gid); err != nil {
			return nil, err
		}
	}
	if c.port, err = c.findPort(); err != nil {
		return nil, err
	}
	return c, c.configure()
}

func (c *Condor) borrow(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	c.User = name
	var errs [2]error
	c.uid, errs[0] = strconv.Atoi(u.Uid)
	c.gid, errs[1] = strconv.Atoi(u.Gid)
	return errors.Join(errs[:]...)
}

func (c *Condor) path(parts ...string) string {
	return filepath.Join(append([]string{c.Dir}, parts...)...)
}

// findPort looks for a free port, below those that the kernel gives away; all daemons
// share it. A pool that was there keeps its own.
func (c *Condor) findPort() (int, error) {
	if data, err := os.ReadFile(c.path("port")); err == nil {
		return strconv.Atoi(strings.TrimSpace(string(data)))
	}
	var b [2]byte
	for range 200 {
		_, _ = rand.Read(b[:])
		port := 10000 + (int(b[0])<<8|int(b[1]))%20000
		if free("127.0.0.1", port, 1) {
			return port, os.WriteFile(c.path("port"), []byte(strconv.Itoa(port)), 0o600)
		}
	}
	return 0, errors.New("no free port")
}

// Up starts the daemons that do not run, and waits until the pool takes jobs.
func (c *Condor) Up() error {
	if _, runs := c.pid(CondorMaster); !runs {
		if err := c.startMaster(); err != nil {
			return err
		}
	}
	return c.ready()
}

func (c *Condor) startMaster() error {
	log, err := os.OpenFile(c.path("log", "start.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()                                                                           // the master has its own
	cmd := exec.Command(c.program(CondorMaster), "-f", "-pidfile", c.path("run", "master.pid")) //nolint:noctx // it is ended by Down
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(c.environ(), "HOME=/"), c.path("run"), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// ready waits until a slot is known and the queue answers.
func (c *Condor) ready() error {
	return eventually(time.Minute, func() error {
		for _, name := range []string{CondorMaster, CondorCollector, CondorNegotiator, CondorSchedd, CondorStartd} {
			if _, runs := c.pid(name); !runs && !c.down[name] {
				return fmt.Errorf("%s does not run", name)
			}
		}
		if c.down[CondorCollector] {
			return nil
		}
		if !c.down[CondorStartd] {
			out, err := c.Run("condor_status", "-af", "Name")
			if err != nil {
				return err
			}
			if !strings.Contains(out, "slot1") {
				return errors.New("no slot is there yet")
			}
		}
		if c.down[CondorSchedd] {
			return nil
		}
		out, err := c.Run("condor_status", "-schedd", "-af", "Name")
		if err == nil && strings.TrimSpace(out) == "" {
			err = errors.New("the collector does not know the schedd yet")
		}
		if err == nil {
			_, err = c.Run("condor_q", "-totals")
		}
		return err
	})
}

// Down ends all daemons and what they started.
func (c *Condor) Down() {
	if pid, ok := c.pid(CondorMaster); ok {
		for _, p := range tree(pid) {
			_ = syscall.Kill(p, syscall.SIGCONT) // one that is frozen heeds nothing
		}
		_ = syscall.Kill(pid, syscall.SIGQUIT) // fast: jobs are killed
		_ = eventually(10*time.Second, func() error {
			if _, ok := c.pid(CondorMaster); ok {
				return errors.New("it has not ended")
			}
			return nil
		})
	}
	_ = reap(c.Dir) // what is left of them
	clear(c.down)
}

// program gives the path of one of HTCondor's programs.
func (c *Condor) program(name string) string {
	for _, dir := range []string{"bin", "sbin"} {
		path := filepath.Join(c.soft, "usr", dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return name
}

// Bin gives the path of a program by its name, or, without one, the directory of the
// users' commands.
func (c *Condor) Bin(name ...string) string {
	if len(name) > 0 {
		return c.program(name[0])
	}
	return filepath.Join(c.soft, "usr", "bin")
}

// EventLog is the path of the pool-wide event log, which is a stream of JSON objects.
func (c *Condor) EventLog() string { return c.path("log", "EventLog") }

// Config is the path of the pool's configuration.
func (c *Condor) Config() string { return c.path("condor_config") }

// Env is what programs need to speak with the pool.
func (c *Condor) Env() []string {
	return []string{"CONDOR_CONFIG=" + c.Config(), "PATH=" + c.Bin() + ":" + filepath.Join(c.soft, "usr", "sbin") + ":" + os.Getenv("PATH")}
}

func (c *Condor) environ() []string {
	return append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "_CONDOR_") || strings.HasPrefix(v, "CONDOR_") || strings.HasPrefix(v, "LC_")
	}), append(c.Env(), "LC_ALL=C")...)
}

// Run runs one of HTCondor's commands and gives its standard output; an error has
// what it complained of.
func (c *Condor) Run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program(name), args...)
	cmd.Env, cmd.Dir = c.environ(), "/"
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(complaint.String()+out.String()))
	}
	return out.String(), nil
}

// MustRun is Run for a command that must succeed.
func (c *Condor) MustRun(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := c.Run(name, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Logs gives the last lines of each daemon's log.
func (c *Condor) Logs(lines int) string {
	if c == nil {
		return ""
	}
	var b strings.Builder
	for _, name := range []string{"start.log", "MasterLog", "SchedLog", "StartLog", "NegotiatorLog"} {
		data, err := os.ReadFile(c.path("log", name))
		if err == nil && len(data) > 0 {
			fmt.Fprintf(&b, "== %s\n%s\n", name, lastLines(string(data), lines))
		}
	}
	return b.String()
}

// configure writes the pool's configuration.
func (c *Condor) configure() error {
	release := filepath.Join(c.soft, "usr")
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))
	set := map[string]string{
		"RELEASE_DIR": release, "LOCAL_DIR": c.Dir, "CONDOR_IDS": fmt.Sprintf("%d.%d", c.uid, c.gid),
		"BIN": release + "/bin", "SBIN": release + "/sbin", "LIBEXEC": release + "/libexec/condor", "LIB": release + "/lib/condor", "SHARE": release + "/share/condor",
		"LOG": c.path("log"), "RUN": c.path("run"), "LOCK": c.path("lock"), "SPOOL": c.path("spool"), "EXECUTE": c.path("execute"),
		"DAEMON_SOCKET_DIR": c.path("sock"), "DAEMON_LIST": "MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD",
		// Nothing of the machine's own HTCondor, or of the user's, plays a part; nor do
		// cgroups, which would be left behind.
		"ETC": c.path("etc"), "LOCAL_CONFIG_FILE": "", "LOCAL_CONFIG_DIR": "", "USER_CONFIG_FILE": "", "COLLECTOR_BOOTSTRAP_SSL_CERTIFICATE": "False",
		"BASE_CGROUP": "",
		// As root the master would change settings of the whole machine's kernel.
		"ENABLE_KERNEL_TUNING": "False",
		"RUNBENCHMARKS":        "0", "MAIL": "/bin/true", "MOUNT_UNDER_SCRATCH": "",
		"CONDOR_HOST": "127.0.0.1", "COLLECTOR_HOST": address, "SHARED_PORT_PORT": strconv.Itoa(c.port), "USE_SHARED_PORT": "True",
		"NETWORK_INTERFACE": "127.0.0.1", "BIND_ALL_INTERFACES": "False", "UID_DOMAIN": "testbed", "FILESYSTEM_DOMAIN": "testbed",
		"SEC_DEFAULT_AUTHENTICATION": "REQUIRED", "SEC_DEFAULT_AUTHENTICATION_METHODS": "FS",
		"ALLOW_READ": "*", "ALLOW_WRITE": "*", "ALLOW_DAEMON": "*", "ALLOW_NEGOTIATOR": "*", "ALLOW_ADMINISTRATOR": "*",
		"NUM_CPUS": strconv.Itoa(c.options.CPUs), "MEMORY": strconv.Itoa(c.options.Memory),
		"NUM_SLOTS": "1", "NUM_SLOTS_TYPE_1": "1", "SLOT_TYPE_1": "100%", "SLOT_TYPE_1_PARTITIONABLE": "True",
		"START": "True", "SUSPEND": "False", "PREEMPT": "False", "KILL": "False", "MachineMaxVacateTime": "10",
		// Turns of a second or so, where a pool of thousands has minutes.
		"NEGOTIATOR_INTERVAL": "2", "NEGOTIATOR_CYCLE_DELAY": "1", "NEGOTIATOR_MIN_INTERVAL": "1", "SCHEDD_INTERVAL": "2", "SCHEDD_MIN_INTERVAL": "1",
		"UPDATE_INTERVAL": "2", "UPDATE_OFFSET": "0", "STARTER_UPDATE_INTERVAL": "5", "STARTER_INITIAL_UPDATE_INTERVAL": "1", "SHADOW_QUEUE_UPDATE_INTERVAL": "5",
		"PERIODIC_EXPR_INTERVAL": "3", "SHUTDOWN_FAST_TIMEOUT": "5", "MASTER_BACKOFF_CONSTANT": "0", "MASTER_BACKOFF_FACTOR": "1.0", "MASTER_BACKOFF_CEILING": "1",
		"SCHEDD_RESTART_REPORT": "", "JOB_START_DELAY": "0",
		// A claim that a killed schedd left behind is free again after two minutes, not thirty.
		"ALIVE_INTERVAL": "20", "MAX_CLAIM_ALIVES_MISSED": "6",
		"EVENT_LOG": c.EventLog(), "EVENT_LOG_FORMAT_OPTIONS": "JSON, UTC",
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(set)) {
		fmt.Fprintf(&b, "%s = %s\n", name, set[name])
	}
	for _, line := range c.options.Conf {
		fmt.Fprintln(&b, strings.ReplaceAll(line, "%DIR%", c.Dir))
	}
	fmt.Fprintf(&b, "include ifexist : %s\n", c.path("local.conf"))
	return os.WriteFile(c.Config(), []byte(b.String()), 0o644)
}
