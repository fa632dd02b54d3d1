package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"
)

// process runs a plug-in's program for go-plugin. It is in a process group of its
// own, which ends with the program; it is killed when we die; and what it writes
// can't stop us.
type process struct {
	cmd     *exec.Cmd
	sockets string // the directory where it may listen
	tls     bool

	stdout, stderr *os.File // our ends
	lines          *io.PipeReader
	line           *io.PipeWriter
	stdin          *os.File
	mu             sync.Mutex
	running        bool          // the program was started; only then is cmd.Process to be read
	doomed         bool          // it is to be killed as soon as it is
	done           chan struct{} // closed when the program and its group are gone
	err            error         // how it ended; valid after done
	shook          chan struct{} // closed when the handshake was judged
	bad            error         // what is wrong with it; valid after shook
}

var _ runner.Runner = (*process)(nil)

// newProcess makes the runner that go-plugin asks for; env is what it adds.
func newProcess(path string, argv []string, dir string, env []string, sockets string, tls bool) *process {
	cmd := exec.Command(path) //nolint:noctx // it is killed by its group, and outlives the call that starts it
	cmd.Args = argv
	cmd.Dir = dir
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, sockets: sockets, tls: tls, done: make(chan struct{}), shook: make(chan struct{})}
	p.lines, p.line = io.Pipe()
	return p
}

// Start starts the program.
func (p *process) Start(context.Context) error {
	var theirs []*os.File
	closeAll := func(files ...*os.File) {
		for _, f := range files {
			if f != nil {
				_ = f.Close()
			}
		}
	}
	pipe := func(ours **os.File, read bool) (*os.File, error) {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		other := r
		*ours = w
		if read {
			*ours, other = r, w
		}
		theirs = append(theirs, other)
		return other, nil
	}
	in, err := pipe(&p.stdin, false)
	if err != nil {
		return err
	}
	out, err := pipe(&p.stdout, true)
	if err != nil {
		closeAll(append(theirs, p.stdin)...)
		return err
	}
	errs, err := pipe(&p.stderr, true)
	if err != nil {
		closeAll(append(theirs, p.stdin, p.stdout)...)
		return err
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = in, out, errs
	started := make(chan error, 1)
	go func() {
		// The death signal comes when the thread that forked ends, so this one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		closeAll(theirs...)
		p.mu.Lock()
		p.running = err == nil
		if p.running && p.doomed {
			_ = p.cmd.Process.Kill()
		}
		p.mu.Unlock()
		started <- err
		if err == nil {
			p.wait()
		}
	}()
	if err := <-started; err != nil {
		closeAll(p.stdin, p.stdout, p.stderr)
		return err
	}
	go p.handshake()
	return nil
}

// wait waits for the program's end and ends its group. The program is still a
// zombie then, so that the group's number can't be another's.
func (p *process) wait() {
	pid := p.cmd.Process.Pid
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	p.err = p.cmd.Wait()
	// What the killed left in the pipes is read; a job that holds them open, as it
	// should not, can't keep us.
	deadline := time.Now().Add(200 * time.Millisecond)
	_ = p.stdout.SetReadDeadline(deadline)
	_ = p.stderr.SetReadDeadline(deadline)
	_ = p.stdin.Close()
	close(p.done)
}

// handshake reads the first line of standard output, and gives it to go-plugin only
// if it is one that go-plugin can take; the rest is thrown away.
func (p *process) handshake() {
	r := bufio.NewReaderSize(p.stdout, maxLine)
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		p.bad = fmt.Errorf("its first line of standard output has more than %d bytes; it must be the handshake", maxLine)
	case err != nil && len(line) == 0:
		p.bad = errors.New("it wrote no handshake to standard output")
	default:
		var good string
		if good, p.bad = p.check(strings.TrimSpace(string(line))); p.bad == nil {
			_, _ = io.WriteString(p.line, good+"\n")
		}
	}
	close(p.shook)
	_ = p.line.Close()
	_, _ = io.Copy(io.Discard, r)
	_ = p.stdout.Close()
}

// check reads a handshake's line and gives what of it go-plugin is to see.
func (p *process) check(line string) (string, error) {
	parts := strings.Split(line, "|")
	if len(parts) < 5 || parts[0] != "1" {
		return "", fmt.Errorf("its first line of standard output is %s; a handshake is \"1|VERSION|unix|PATH|grpc|CERTIFICATE\"", clip(strconv.Quote(line), 200))
	}
	version, err := strconv.Atoi(parts[1])
	if err != nil {
		return "", fmt.Errorf("its handshake has %s where the version of the protocol must be", clip(strconv.Quote(parts[1]), 200))
	}
	if version != ProtocolVersion {
		return "", &versionError{theirs: version}
	}
	if parts[4] != "grpc" {
		return "", fmt.Errorf("it speaks %s; an adapter speaks grpc", clip(strconv.Quote(parts[4]), 200))
	}
	certificate := ""
	if len(parts) > 5 {
		certificate = parts[5]
	}
	switch {
	case p.tls && certificate == "":
		return "", errors.New("its handshake has no certificate: it must serve TLS and take the client of PLUGIN_CLIENT_CERT, or the site must say \"tls: false\"")
	case !p.tls && certificate != "":
		return "", errors.New("its handshake has a certificate, but the site says \"tls: false\"")
	case parts[2] == "unix":
		if !filepath.IsAbs(parts[3]) || !p.tls && filepath.Dir(filepath.Clean(parts[3])) != p.sockets {
			return "", fmt.Errorf("it listens on %s; it must listen in the directory of PLUGIN_UNIX_SOCKET_DIR", clip(strconv.Quote(parts[3]), 200))
		}
	case parts[2] == "tcp":
		if host, _, ok := strings.Cut(parts[3], ":"); !p.tls || !ok || host != "127.0.0.1" {
			return "", fmt.Errorf("it listens on %s; without a socket it must be 127.0.0.1, with TLS", clip(strconv.Quote(parts[3]), 200))
		}
	default:
		return "", fmt.Errorf("it listens on a network %s; it must be \"unix\"", clip(strconv.Quote(parts[2]), 200))
	}
	return strings.Join([]string{"1", parts[1], parts[2], parts[3], "grpc", certificate}, "|"), nil
}

// versionError is a plug-in of another version of the protocol.
type versionError struct{ theirs int }

func (e *versionError) Error() string {
	return fmt.Sprintf("it speaks version %d of the adapter protocol and this gateway speaks version %d: install one that was made for this version", e.theirs, ProtocolVersion)
}

// Stdout gives go-plugin the handshake.
func (p *process) Stdout() io.ReadCloser { return p.lines }

// Stderr gives go-plugin the log.
func (p *process) Stderr() io.ReadCloser { return quiet{p.stderr} }

// quiet ends at whatever ends it.
type quiet struct{ *os.File }

func (q quiet) Read(b []byte) (int, error) {
	n, err := q.File.Read(b)
	if err != nil {
		_ = q.Close()
		err = io.EOF
	}
	return n, err
}

// Wait waits for the end.
func (p *process) Wait(context.Context) error {
	<-p.done
	return p.err
}

// Kill ends the program and its group at once.
func (p *process) Kill(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		p.doomed = true
		return nil
	}
	// os.Process knows when it was reaped: another's number is never signalled.
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// started says whether there is, or was, a process.
func (p *process) started() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}

// Diagnose has nothing to add.
func (p *process) Diagnose(context.Context) string { return "" }

// Name names the program.
func (p *process) Name() string { return p.cmd.Path }

// ID is the process id.
func (p *process) ID() string {
	if !p.started() {
		return ""
	}
	return strconv.Itoa(p.cmd.Process.Pid)
}

// PluginToHost and HostToPlugin: addresses are the same on both sides.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin: see PluginToHost.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// runWith gives go-plugin the process with the environment that go-plugin adds.
func runWith(p *process) func(hclog.Logger, *exec.Cmd, string) (runner.Runner, error) {
	return func(_ hclog.Logger, cmd *exec.Cmd, sockets string) (runner.Runner, error) {
		p.cmd.Env = append(p.cmd.Env, cmd.Env...)
		p.sockets = sockets
		return p, nil
	}
}
