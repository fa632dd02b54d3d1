package federation

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const sshd = "/usr/sbin/sshd"

// startHosts has n machines of their own in a namespace, as far as SSH can tell, and gives
// the entries of the site's configuration.
func startHosts(t *testing.T, s *space, dir string, n, slots int) string {
	t.Helper()
	key := func(path string) ssh.PublicKey {
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
		k, err := ssh.NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for _, d := range []string{"/run/sshd", dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	if err := os.WriteFile(at("authorized_keys"), ssh.MarshalAuthorizedKey(key(at("key"))), 0o600); err != nil {
		t.Fatal(err)
	}
	var known, entries strings.Builder
	for i := range n {
		name := fmt.Sprintf("host%d", i+1)
		home, port := at(name), 2201+i
		if err := os.Mkdir(home, 0o755); err != nil {
			t.Fatal(err)
		}
		public := key(filepath.Join(home, "hostkey"))
		config := fmt.Sprintf("ListenAddress 127.0.0.1:%d\nHostKey %s/hostkey\nPidFile none\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"+
			"PermitRootLogin yes\nSubsystem sftp internal-sftp\nMaxStartups 100\nLogLevel ERROR\nSetEnv HOME=%s\n", port, home, at("authorized_keys"), home)
		if err := os.WriteFile(filepath.Join(home, "config"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		cmd := exec.Command(sshd, "-D", "-e", "-f", filepath.Join(home, "config"))
		cmd.Dir = home // where it is found, should this process be killed
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var err error
		s.within(func() { err = cmd.Start() })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		if err := eventually(20*time.Second, func() error {
			c, err := s.dial(t.Context(), "tcp", address)
			if err == nil {
				_ = c.Close()
			}
			return err
		}); err != nil {
			t.Fatalf("the host %s: %v", name, err)
		}
		known.WriteString(knownhosts.Line([]string{knownhosts.Normalize(address)}, public) + "\n")
		fmt.Fprintf(&entries, "        - {name: %s, address: 127.0.0.1, port: %d, user: root, key: %s, knownHosts: %s, slots: %d, directory: %s/jobs}\n",
			name, port, at("key"), at("known_hosts"), slots, home)
	}
	if err := os.WriteFile(at("known_hosts"), []byte(known.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return entries.String()
}

// eventually tries until it succeeds.
func eventually(patience time.Duration, try func() error) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

// missing says what of the experiment's needs is not there.
func missing() error {
	if os.Getuid() != 0 {
		return errors.New("network namespaces need root")
	}
	for tool, apt := range map[string]string{"ip": "iproute2", "tc": "iproute2", sshd: "openssh-server"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is not installed: apt-get install %s", tool, apt)
		}
	}
	return nil
}
