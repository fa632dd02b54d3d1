package pluginpolicy

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

// process runs a plug-in's program for go-plugin, as adapters/plugin does: in a process
// group of its own, which ends with the program; killed when we die; and unable to stop
// us by what it writes.
type process struct {
	cmd                   *exec.Cmd
	sockets               string // the directory where it must listen
	stdin, stdout, stderr *os.File
	lines                 *io.PipeReader // the handshake, once it was judged
	line                  *io.PipeWriter
	done                  chan struct{} // closed when the program and its group are gone
	err                   error         // how it ended; valid after done
	shook                 chan struct{} // closed when the handshake was judged
	bad                   error         // what is wrong with it; valid after shook

	mu              sync.Mutex
	running, doomed bool
}

var _ runner.Runner = (*process)(nil)

const maxLine = 16 << 10 // bytes of the handshake's line

func newProcess(path string, argv []string, dir string, env []string) *process {
	cmd := exec.Command(path) //nolint:noctx // it is killed by its group, and outlives the call that starts it
	cmd.Args, cmd.Dir, cmd.Env = argv, dir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, done: make(chan struct{}), shook: make(chan struct{})}
	p.lines, p.line = io.Pipe()
	return p
}

// Start starts the program.
func (p *process) Start(context.Context) error {
	var files [6]*os.File // the reading and the writing end of each
	for i := 0; i < len(files); i += 2 {
		var err error
		if files[i], files[i+1], err = os.Pipe(); err != nil {
			for _, f := range files[:i] {
				_ = f.Close()
			}
			return err
		}
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = files[0], files[3], files[5]
	p.stdin, p.stdout, p.stderr = files[1], files[2], files[4]
	started := make(chan error, 1)
	go func() {
		// The death signal comes when the thread that forked ends, so this one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		for _, f := range []*os.File{files[0], files[3], files[5]} {
			_ = f.Close()
		}
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
		for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
			_ = f.Close()
		}
		return err
	}
	go p.handshake()
	return nil
}

// wait waits for the program's end and ends its group. The program is still a zombie
// then, so that the group's number can't be another's.
func (p *process) wait() {
	pid := p.cmd.Process.Pid
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	p.err = p.cmd.Wait()
	// What the killed left in the pipes is read; who holds them open can't keep us.
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
		if p.bad = p.check(strings.TrimSpace(string(line))); p.bad == nil {
			_, _ = p.line.Write(line)
		}
	}
	close(p.shook)
	_ = p.line.Close()
	_, _ = io.Copy(io.Discard, r)
	_ = p.stdout.Close()
}

// check judges a handshake's line.
func (p *process) check(line string) error {
	parts := strings.Split(line, "|")
	if len(parts) < 6 || parts[0] != "1" || parts[5] == "" {
		return fmt.Errorf("its first line of standard output is %s; a handshake is \"1|VERSION|unix|PATH|grpc|CERTIFICATE\"", clip(strconv.Quote(line), 200))
	}
	if parts[1] != strconv.Itoa(ProtocolVersion) {
		return &versionError{clip(strconv.Quote(parts[1]), 20)}
	}
	if parts[4] != "grpc" {
		return fmt.Errorf("it speaks %s; a policy speaks grpc", clip(strconv.Quote(parts[4]), 200))
	}
	if parts[2] != "unix" || filepath.Dir(filepath.Clean(parts[3])) != filepath.Clean(p.sockets) {
		return fmt.Errorf("it listens on %s; it must listen on a unix socket in the directory of PLUGIN_UNIX_SOCKET_DIR", clip(strconv.Quote(parts[3]), 200))
	}
	return nil
}

// versionError is a plug-in of another version of the protocol.
type versionError struct{ theirs string }

func (e *versionError) Error() string {
	return fmt.Sprintf("it speaks version %s of the policy protocol and this gateway speaks version %d: install one that was made for this version", e.theirs, ProtocolVersion)
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
