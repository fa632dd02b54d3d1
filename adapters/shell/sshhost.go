package shell

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"
)

// connectTime bounds everything up to the host's greeting but copying the program.
const connectTime = 20 * time.Second

// shellTime is how long a host's login shell may take to come to the command: what
// people put into its start files is slow at times.
const shellTime = time.Minute

// connection is a host's agent at the other end of SSH.
type connection struct {
	*frames
	client  *ssh.Client
	session *ssh.Session
	stderr  *tail
}

func (c *connection) close() { _ = c.client.Close() }

// connect logs in to a host, sees to it that this program is there, and starts it
// as the site's agent.
func connect(ctx context.Context, h *Host, site string) (*connection, string, error) {
	client, err := login(ctx, h)
	if err != nil {
		return nil, "", err
	}
	c := &connection{client: client, stderr: &tail{}}
	// A host that stops in the middle is as good as one that is down.
	watchdog := time.AfterFunc(connectTime, c.close)
	defer watchdog.Stop()
	dir, program, err := install(client, h, site, watchdog)
	if err != nil {
		c.close()
		return nil, "", err
	}
	watchdog.Reset(shellTime)
	if err := c.start(program); err != nil {
		c.close()
		return nil, "", err
	}
	if !watchdog.Stop() {
		return nil, "", errors.New("it does not answer in time")
	}
	return c, dir, nil
}

func login(ctx context.Context, h *Host) (*ssh.Client, error) {
	key, err := os.ReadFile(h.Key)
	if err != nil {
		return nil, fmt.Errorf("the key %s can't be read: %s", h.Key, why(err))
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("the key %s is no private key without a pass phrase: %w", h.Key, err)
	}
	check, err := knownhosts.New(h.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("the file of known hosts %s can't be read: %w", h.KnownHosts, err)
	}
	address := net.JoinHostPort(h.Address, strconv.Itoa(h.Port))
	algorithms, err := knownAlgorithms(check, address, h.KnownHosts)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: connectTime}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("it can't be reached: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(connectTime)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	link, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		User: h.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: check, HostKeyAlgorithms: algorithms,
	})
	if err != nil {
		_ = conn.Close()
		if unknown, ok := errors.AsType[*knownhosts.KeyError](err); ok && len(unknown.Want) > 0 {
			return nil, fmt.Errorf("its host key is not the one in %s: it is another machine, or somebody stands between", h.KnownHosts)
		}
		return nil, fmt.Errorf("logging in as %s failed: %w", h.User, err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, link.Close())
	}
	return ssh.NewClient(link, channels, requests), nil
}

// knownAlgorithms gives the kinds of keys that are known of a host, so that it shows
// one of these and not another that it has as well.
func knownAlgorithms(check ssh.HostKeyCallback, address, file string) ([]string, error) {
	err := check(address, &net.TCPAddr{IP: net.IPv4zero}, noKey{})
	known, ok := errors.AsType[*knownhosts.KeyError](err)
	if !ok || len(known.Want) == 0 {
		return nil, fmt.Errorf("no key of %s is in %s; put the one there that the host's administrator tells", knownhosts.Normalize(address), file)
	}
	var list []string
	for _, k := range known.Want {
		if k.Key.Type() == ssh.KeyAlgoRSA {
			list = append(list, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		list = append(list, k.Key.Type())
	}
	return list, nil
}

// noKey is a key that no host has.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("it is no key") }

// unusedProgram is after what time a copied program is removed that no gateway uses.
const unusedProgram = 30 * 24 * time.Hour

// thisProgram is this program's own content and its hash, as it runs: what stands
// under its name may be newer.
var thisProgram = sync.OnceValues(func() (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer f.Close() // only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
})

// install finds or makes the site's directory, and the program in it.
func install(client *ssh.Client, h *Host, site string, watchdog *time.Timer) (dir, program string, err error) {
	files, err := sftp.NewClient(client, sftp.UseConcurrentWrites(true))
	if err != nil {
		return "", "", fmt.Errorf("it offers no SFTP: %w", err)
	}
	defer files.Close() //nolint:errcheck // nothing is left to be written
	base := h.Directory
	if base == "" {
		home, err := files.RealPath(".")
		if err != nil {
			return "", "", fmt.Errorf("the home directory can't be found: %w", err)
		}
		base = path.Join(home, ".portolan")
	}
	dir = path.Join(base, site)
	if !quotable(dir) {
		return "", "", fmt.Errorf("the directory %q has characters that are not safe in a command", dir)
	}
	bin := path.Join(base, "bin")
	for _, d := range []string{dir, bin} {
		if err := files.MkdirAll(d); err != nil {
			return "", "", fmt.Errorf("the directory %s can't be made: %w", d, err)
		}
	}
	if h.Program != "" {
		return dir, h.Program, nil
	}
	hash, err := thisProgram()
	if err != nil {
		return "", "", fmt.Errorf("this program can't read itself: %w", err)
	}
	program = path.Join(bin, hash)
	if info, err := files.Stat(program); err == nil && info.Mode()&0o100 != 0 { // it has its name only once it is whole
		if time.Since(info.ModTime()) > unusedProgram/30 {
			_ = files.Chtimes(program, time.Now(), time.Now()) // it is in use
		}
		return dir, program, nil
	}
	watchdog.Reset(shellTime)
	if err := alike(client); err != nil {
		return "", "", err
	}
	watchdog.Reset(10 * time.Minute) // a slow line
	if err := upload(files, program); err != nil {
		return "", "", fmt.Errorf("the program can't be copied to %s: %w", program, err)
	}
	// Those that no gateway has used for long are in the way; what runs of them goes on.
	if old, err := files.ReadDir(bin); err == nil {
		for _, e := range old {
			if time.Since(e.ModTime()) > unusedProgram {
				_ = files.Remove(path.Join(bin, e.Name()))
			}
		}
	}
	return dir, program, nil
}

// alike makes sure that the host can run this program.
func alike(client *ssh.Client) error {
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close() //nolint:errcheck // it has ended
	out := &tail{}
	session.Stdout = out
	if err := session.Run("uname -sm"); err != nil {
		return fmt.Errorf("it can't say what it runs on: %w", err)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	want := unix.ByteSliceToString(uts.Sysname[:]) + " " + unix.ByteSliceToString(uts.Machine[:])
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if got := strings.TrimSpace(lines[len(lines)-1]); got != want {
		return fmt.Errorf("it runs %q, and this program is for %q; install portolan there and name it in the setting program", clip(got), want)
	}
	return nil
}

func upload(files *sftp.Client, program string) (err error) {
	own, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer own.Close() // only read
	name := program + ".new-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	f, err := files.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = files.Remove(name)
		}
	}()
	if err := f.Chmod(0o700); err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := f.ReadFrom(own); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return files.PosixRename(name, program)
}

// start starts the agent and hears its greeting.
func (c *connection) start(program string) error {
	session, err := c.client.NewSession()
	if err != nil {
		return err
	}
	in, err := session.StdinPipe()
	if err != nil {
		return err
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return err
	}
	session.Stderr = c.stderr
	c.session, c.frames = session, &frames{in: bufio.NewReaderSize(out, 64<<10), out: in}
	if err := session.Start(quote(program) + " " + SuperviseWord + " " + hostWord); err != nil {
		return fmt.Errorf("%s can't be started: %w", program, err)
	}
	if err := c.greeted(); err != nil {
		return fmt.Errorf("%s does not greet: %w %s", program, err, clip(c.stderr.String()))
	}
	return nil
}

// quote makes one word of the host's shell, whichever it is.
func quote(s string) string { return "'" + s + "'" }

// quotable reports whether a path means itself between quotes in every shell.
func quotable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`'!\`, r) })
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const maxTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p[max(0, len(p)-maxTail):]...)
	t.data = bytes.Clone(t.data[max(0, len(t.data)-maxTail):])
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.data), "?")
}
