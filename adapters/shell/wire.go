package shell

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
)

// What gateway and supervisor say to each other: lines of JSON on a stream socket.

// order is what the gateway wants.
type order struct {
	Do  string       `json:"do"` // run, cancel, suspend, resume
	Tag adapters.Tag `json:"tag"`
}

const (
	doRun     = "run"
	doCancel  = "cancel"
	doSuspend = "suspend"
	doResume  = "resume"
)

// report is what the supervisor has to say, about its job or, first thing on a new
// connection, about what it is doing.
type report struct {
	What    string       `json:"what"`
	Tag     adapters.Tag `json:"tag,omitzero"`
	Started time.Time    `json:"started,omitzero"`
	End     *ended       `json:"end,omitzero"`
	Error   string       `json:"error,omitzero"`
}

const (
	saidIdle      = "idle"      // there is no job
	saidRunning   = "running"   // the job has started, or goes on
	saidSuspended = "suspended" // the job is stopped for now
	saidEnded     = "ended"     // the job has ended, which is on disk
	saidTaken     = "taken"     // the job was not started: somebody else has it, or had
	saidNotBegun  = "notbegun"  // the job could not be begun, for want of its file
)

// maxLine bounds a message.
const maxLine = 64 << 10

// wire is one end of a connection.
type wire struct {
	conn    net.Conn
	scanner *bufio.Scanner
	mu      sync.Mutex
}

func newWire(conn net.Conn) *wire {
	s := bufio.NewScanner(conn)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	return &wire{conn: conn, scanner: s}
}

func (w *wire) send(message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// The other end reads at once, unless it was stopped from outside.
	if err := w.conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err = w.conn.Write(append(data, '\n'))
	return err
}

func (w *wire) receive(message any) error {
	if !w.scanner.Scan() {
		if err := w.scanner.Err(); err != nil {
			return err
		}
		return net.ErrClosed
	}
	return json.Unmarshal(w.scanner.Bytes(), message)
}

// A socket's address has room for 107 bytes, which the directory of a gateway may
// exceed: sockets are reached through a descriptor of their directory.
func socketAddress(dir int, name string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)}
}

func withDir[T any](path string, f func(fd int) (T, error)) (T, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		var none T
		return none, err
	}
	result, err := f(fd)
	return result, errors.Join(err, unix.Close(fd))
}

// unready ends the name of a socket that is bound and does not listen yet. Under
// its own name a socket refuses a connection only when nobody is there any more.
const unready = ".new"

func listen(path string) (*net.UnixListener, error) {
	return withDir(filepath.Dir(path), func(fd int) (*net.UnixListener, error) {
		l, err := net.ListenUnix("unix", socketAddress(fd, filepath.Base(path)+unready))
		if err != nil {
			return nil, err
		}
		l.SetUnlinkOnClose(false) // its address goes through a closed descriptor
		if err := os.Rename(path+unready, path); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		return l, nil
	})
}

// nobody reports whether a dial failed because no process has the socket. Any
// other failure is the dialler's own and proves nothing.
func nobody(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT)
}

func dial(path string) (*net.UnixConn, error) {
	return withDir(filepath.Dir(path), func(fd int) (*net.UnixConn, error) {
		return net.DialUnix("unix", nil, socketAddress(fd, filepath.Base(path)))
	})
}
