package federation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// prefix begins the names of all namespaces of the experiment; the number of the process
// follows, so that what a killed one left behind is known.
const prefix = "portolan"

// space is a network namespace.
type space struct {
	name  string
	inode string // as /proc/self/ns/net tells it to who is inside
	do    chan func()
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// sweep removes the namespaces of processes that are gone.
func sweep() {
	found, _ := filepath.Glob("/run/netns/" + prefix + "*-*")
	for _, path := range found {
		name := filepath.Base(path)
		number, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		if pid, err := strconv.Atoi(number); err == nil && !alive(pid) {
			_ = ip("netns", "del", name)
		}
	}
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }

// newSpace makes a namespace with its loopback up; the test's end removes it.
func newSpace(t *testing.T, name string) *space {
	t.Helper()
	s := &space{name: fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), name), do: make(chan func())}
	if err := ip("netns", "add", s.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ip("netns", "del", s.name); err != nil {
			t.Error(err)
		}
	})
	if err := ip("-n", s.name, "link", "set", "lo", "up"); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go s.work(failed)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(s.do) })
	var err error
	s.within(func() { s.inode, err = os.Readlink("/proc/thread-self/ns/net") })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// enter takes the thread of the caller, which must be locked to it, into the namespace.
func (s *space) enter() error {
	fd, err := unix.Open("/run/netns/"+s.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("the namespace %s: %w", s.name, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the namespace %s: %w", s.name, err)
	}
	return nil
}

// work does things on one thread that stays inside: what it starts lives in the namespace,
// and is told when the thread dies, which is with this process.
func (s *space) work(failed chan<- error) {
	runtime.LockOSThread() // and never let go: the thread is of no use for anything else
	err := s.enter()
	failed <- err
	if err != nil {
		return
	}
	for f := range s.do {
		f()
	}
}

// within does f inside, one after the other.
func (s *space) within(f func()) {
	done := make(chan struct{})
	s.do <- func() {
		defer close(done)
		f()
	}
	<-done
}

// dial connects from inside. The address is a number.
func (s *space) dial(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	out := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := s.enter(); err != nil {
			out <- result{nil, err}
			return
		}
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		out <- result{c, err}
	}()
	r := <-out
	return r.c, r.err
}

// listen listens inside.
func (s *space) listen(address string) (l net.Listener, err error) {
	s.within(func() { l, err = net.Listen("tcp", address) })
	return l, err
}

// The addresses of the bridge and of the domains.
const (
	network = "10.87.0."
	bridge  = network + "1"
)

// newNet makes the namespace with the bridge.
func newNet(t *testing.T) *space {
	t.Helper()
	s := newSpace(t, "net")
	for _, args := range [][]string{
		{"link", "add", "br0", "type", "bridge"},
		{"addr", "add", bridge + "/24", "dev", "br0"},
		{"link", "set", "br0", "up"},
	} {
		if err := ip(append([]string{"-n", s.name}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// join connects a domain's namespace to the bridge, and gives its address there.
func join(t *testing.T, hub, s *space, n int) string {
	t.Helper()
	address := network + strconv.Itoa(10+n)
	end := "v" + strconv.Itoa(n)
	for _, args := range [][]string{
		{"link", "add", "eth0", "netns", s.name, "type", "veth", "peer", "name", end, "netns", hub.name},
		{"-n", s.name, "addr", "add", address + "/24", "dev", "eth0"},
		{"-n", s.name, "link", "set", "eth0", "up"},
		{"-n", hub.name, "link", "set", end, "master", "br0"},
		{"-n", hub.name, "link", "set", end, "up"},
	} {
		if err := ip(args...); err != nil {
			t.Fatal(err)
		}
	}
	return address
}

// slow bounds what a domain is sent, in both directions, by the kernel: tbf is there where
// netem is not. "" lifts it.
func slow(hub, s *space, n int, rate string) error {
	var errs []error
	for _, at := range [][2]string{{hub.name, "v" + strconv.Itoa(n)}, {s.name, "eth0"}} {
		args := []string{"-n", at[0], "qdisc", "replace", "dev", at[1], "root", "tbf", "rate", rate, "burst", "16kb", "latency", "500ms"}
		if rate == "" {
			args = []string{"-n", at[0], "qdisc", "del", "dev", at[1], "root"}
		}
		if out, err := exec.Command("tc", args...).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("tc %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out))))
		}
	}
	return errors.Join(errs...)
}
