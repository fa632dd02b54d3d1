package shell_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/internal/testenv"
)

// sshd is a machine of its own, as far as SSH can tell: a real sshd with keys and a
// spool directory of its own, behind a door that can be shut.
type sshd struct {
	name, dir string
	port      int // of the door
	inner     int // of sshd
	cmd       *exec.Cmd
	door      net.Listener

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// fleet is a few of them, with what is needed to log in.
type fleet struct {
	dir        string
	key, known string
	hosts      []*sshd
}

func keyFile(t testing.TB, path string) ssh.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func startFleet(t testing.TB, n int) *fleet {
	t.Helper()
	program := "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		testenv.Missing(t, "%s is not installed: apt-get install openssh-server", program)
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := &fleet{dir: openDir(t)}
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f.key, f.known = filepath.Join(f.dir, "key"), filepath.Join(f.dir, "known_hosts")
	authorized := filepath.Join(f.dir, "authorized_keys")
	if err := os.WriteFile(authorized, ssh.MarshalAuthorizedKey(keyFile(t, f.key)), 0o600); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for i := range n {
		h := &sshd{name: fmt.Sprintf("host%d", i), dir: filepath.Join(f.dir, fmt.Sprintf("host%d", i)), conns: map[net.Conn]struct{}{}}
		if err := os.Mkdir(h.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		public := keyFile(t, filepath.Join(h.dir, "hostkey"))
		// A login shell that says something is no trouble.
		if err := os.WriteFile(filepath.Join(h.dir, ".bashrc"), []byte("echo Welcome to "+h.name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.inner = freePort(t)
		h.openDoor(t)
		config := fmt.Sprintf("ListenAddress 127.0.0.1:%d\nHostKey %s/hostkey\nPidFile none\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"+
			"PermitRootLogin yes\nSubsystem sftp internal-sftp\nMaxStartups 100\nLogLevel ERROR\nSetEnv HOME=%s\n", h.inner, h.dir, authorized, h.dir)
		if err := os.WriteFile(filepath.Join(h.dir, "config"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		h.start(t)
		lines.WriteString(knownhosts.Line([]string{knownhosts.Normalize(net.JoinHostPort("127.0.0.1", strconv.Itoa(h.port)))}, public) + "\n")
		f.hosts = append(f.hosts, h)
		t.Cleanup(func() { h.end() })
	}
	if err := os.WriteFile(f.known, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start starts the sshd, which may have been killed.
func (h *sshd) start(t testing.TB) {
	t.Helper()
	h.cmd = exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(h.dir, "config"))
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "sshd to listen", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.inner))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// kill kills sshd, and the connections that there are through it.
func (h *sshd) kill() {
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Signal(unix.SIGKILL)
	_ = h.cmd.Wait()
	h.cmd = nil
	h.cut()
}

func (h *sshd) end() {
	h.kill()
	_ = h.door.Close()
	h.wg.Wait()
}

// openDoor passes connections on, so that they can be cut and silenced.
func (h *sshd) openDoor(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.door, h.port = l, l.Addr().(*net.TCPAddr).Port
	h.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.wg.Go(func() { h.pass(c) })
		}
	})
}

func (h *sshd) pass(out net.Conn) {
	defer out.Close()
	h.mu.Lock()
	if h.shut {
		h.mu.Unlock()
		return
	}
	in, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.inner))
	if err != nil {
		h.mu.Unlock()
		return
	}
	defer in.Close()
	h.conns[out], h.conns[in] = struct{}{}, struct{}{}
	h.mu.Unlock()
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(in, out); _ = in.Close(); _ = out.Close(); done <- struct{}{} }()
	go func() { _, _ = io.Copy(out, in); _ = in.Close(); _ = out.Close(); done <- struct{}{} }()
	<-done
	<-done
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, out)
	delete(h.conns, in)
}

// cut ends the connections that there are.
func (h *sshd) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		_ = c.Close()
	}
}

// bar lets nobody through any more, or again.
func (h *sshd) bar(shut bool) {
	h.mu.Lock()
	h.shut = shut
	h.mu.Unlock()
	if shut {
		h.cut()
	}
}

// options are those of a site of all of the fleet's hosts.
func (f *fleet) options(t testing.TB, dir string, slots int) shell.Options {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	o := options(dir)
	for _, h := range f.hosts {
		o.Hosts = append(o.Hosts, shell.Host{
			Name: h.name, Address: "127.0.0.1", Port: h.port, User: me.Username, Key: f.key, KnownHosts: f.known, Slots: slots,
			Directory: filepath.Join(h.dir, "spool"),
		})
	}
	return o
}

func (f *fleet) open(t testing.TB, dir string, slots int, change func(*shell.Options)) *shell.Hosts {
	t.Helper()
	o := f.options(t, dir, slots)
	if change != nil {
		change(&o)
	}
	s, err := shell.OpenHosts(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
