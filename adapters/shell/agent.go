package shell

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// hostWord makes a supervisor's process the agent of a host.
const hostWord = "host"

// chunk is how much of an output goes into one answer.
const chunk = 256 << 10

// agent is a gateway's hand on another machine: the shell adapter there, told what
// to do through SSH. It ends with the connection, as a gateway dies: jobs go on, and
// the next agent takes them over.
type agent struct {
	*frames
	shell    *Adapter
	calls    sync.WaitGroup
	room     chan struct{} // bounds the calls at once
	alive    *time.Timer
	silence  time.Duration
	listener *net.UnixListener
}

// fileAgent is the socket at which an agent learns that another takes over.
const fileAgent = "agent"

// standard makes a file of standard input or output that can be closed under a
// reader or writer who waits.
func standard(fd int, name string) (*os.File, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// hostMain serves a gateway on standard input and output.
func hostMain() int {
	in, err := standard(0, "gateway")
	if err != nil {
		return 1
	}
	out, err := standard(1, "gateway")
	if err != nil {
		return 1
	}
	leave := func() { _, _ = in.Close(), out.Close() }
	a := &agent{frames: &frames{in: bufio.NewReader(in), out: out}, room: make(chan struct{}, 64), silence: time.Minute}
	if _, err := io.WriteString(out, greeting); err != nil {
		return 1
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if err := a.open(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "agent of a host: "+fail.Sentence(err))
		return 1
	}
	// A connection may die without a word; then nobody closes standard input.
	a.alive = time.AfterFunc(a.silence, leave)
	if a.listener != nil {
		go func() {
			if conn, err := a.listener.Accept(); err == nil {
				_ = conn.Close()
				leave() // another agent takes over
			}
		}()
	}
	for {
		var c call
		if err := a.receive(&c); err != nil {
			break
		}
		a.alive.Reset(a.silence)
		a.room <- struct{}{}
		a.calls.Go(func() {
			defer func() { <-a.room }()
			r := a.obey(ctx, &c)
			r.ID = c.ID
			if err := a.send(r); err != nil {
				leave()
			}
		})
	}
	stop()
	a.calls.Wait()
	if err := a.shell.Close(); err != nil {
		return 1
	}
	return 0
}

// open hears what the adapter is to be opened with, and opens it; until ctx ends it
// passes on what becomes of jobs.
func (a *agent) open(ctx context.Context) error {
	var c call
	if err := a.receive(&c); err != nil {
		return err
	}
	if c.Do != hostOpen || c.Setup == nil {
		return errors.New("the gateway does not say what to open")
	}
	s := c.Setup
	if s.Silence > 0 {
		a.silence = s.Silence
	}
	err := a.openShell(s)
	if err != nil {
		return errors.Join(err, a.send(answer{ID: c.ID, Error: wireErrorOf(err)}))
	}
	// Before the answer, as the gateway gives jobs at once, and is told of each change once.
	watched := make(chan struct{})
	once := sync.OnceFunc(func() { close(watched) })
	go func() {
		_ = a.shell.Watch(ctx, func(batch []adapters.Evidence) {
			once()
			a.push(batch)
		})
	}()
	<-watched
	return a.send(answer{ID: c.ID, Facts: a.shell.facts()})
}

func (a *agent) openShell(s *hostSetup) (err error) {
	o := Options{
		Dir: s.Dir, Slots: s.Slots, Grace: s.Grace, Umask: &s.Umask, HostNames: s.HostNames, Path: s.Path, Track: s.Track,
		EnforceMemory: s.EnforceMemory, CPUShares: s.CPUShares, NoSync: s.NoSync, Sandbox: s.Sandbox, Launchers: s.Launchers, Environment: s.Environment,
	}
	socket := filepath.Join(s.Dir, fileAgent)
	for range 3 {
		if a.shell, err = Open(o); !fail.Is(err, fail.Conflict) {
			break
		}
		// The agent of a connection that broke may not know it yet.
		if conn, dialled := dial(socket); dialled == nil {
			_ = conn.Close()
		}
	}
	if err != nil {
		return err
	}
	_ = os.Remove(socket)
	if a.listener, err = listen(socket); err != nil {
		a.shell.options.Log.Warn("no other agent can take over", "error", err)
	}
	return nil
}

func (a *agent) push(batch []adapters.Evidence) {
	for len(batch) > 0 {
		n := min(len(batch), 1000)
		news := answer{}
		for _, e := range batch[:n] {
			news.Evidence = append(news.Evidence, hosted(e))
		}
		if a.send(news) != nil {
			return
		}
		batch = batch[n:]
	}
}

func (a *agent) obey(ctx context.Context, c *call) answer {
	handles := make([]adapters.Handle, 0, len(c.Tags))
	for _, tag := range c.Tags {
		handles = append(handles, handleOf(tag))
	}
	failed := func(err error) answer { return answer{Error: wireErrorOf(err)} }
	each := func(errs []error) answer {
		var r answer
		for _, err := range errs {
			r.Errors = append(r.Errors, wireErrorOf(err))
		}
		return r
	}
	switch c.Do {
	case hostPing:
		return answer{}
	case hostCheck:
		var r answer
		for i := range c.Jobs {
			w, err := c.Jobs[i].wanted()
			if err == nil {
				_, err = a.shell.plan(w)
			}
			r.Errors = append(r.Errors, wireErrorOf(err))
		}
		return r
	case hostPlace:
		return each(a.shell.submitHosted(c.Jobs))
	case hostFind:
		found, err := a.shell.Find(ctx, c.Tags)
		if err != nil {
			return failed(err)
		}
		var r answer
		for tag := range found {
			r.Tags = append(r.Tags, tag)
		}
		return r
	case hostStatus:
		es, err := a.shell.Status(ctx, handles)
		if err != nil {
			return failed(err)
		}
		var r answer
		for _, e := range es {
			r.Evidence = append(r.Evidence, hosted(e))
		}
		return r
	case hostCancel:
		return each(a.shell.Cancel(ctx, handles))
	case hostSuspend:
		return each(a.shell.Suspend(ctx, handles))
	case hostResume:
		return each(a.shell.Resume(ctx, handles))
	case hostForget:
		errs := make([]error, len(handles))
		for i, h := range handles {
			errs[i] = a.shell.Forget(ctx, h)
		}
		return each(errs)
	case hostExtend:
		if len(c.Until) != len(c.Tags) {
			return failed(fail.Errorf("shell.Extend", fail.Invalid, "", "each lease needs its end"))
		}
		xs := make([]adapters.Extension, len(handles))
		for i, h := range handles {
			xs[i] = adapters.Extension{Handle: h, NotAfter: c.Until[i]}
		}
		return each(a.shell.Extend(ctx, xs))
	case hostFree:
		return answer{Facts: a.shell.facts()}
	case hostRead, hostExtent:
		if len(handles) != 1 {
			return failed(fail.Errorf("shell.Output", fail.Invalid, "", "one output is read at a time"))
		}
		return a.output(ctx, c, handles[0])
	}
	return failed(fail.Errorf("shell.Host", fail.Invalid, c.Do, "the host does not know what %q is", c.Do))
}

// output reads a piece of an output, or sees how far its whole lines go.
func (a *agent) output(ctx context.Context, c *call, h adapters.Handle) answer {
	r, err := a.shell.Output(ctx, h, c.Stream, c.Offset)
	if err != nil {
		return answer{Error: wireErrorOf(err)}
	}
	defer r.Close() // only read
	if c.Do == hostRead {
		data, err := io.ReadAll(io.LimitReader(r, chunk))
		return answer{Data: data, Error: wireErrorOf(err)}
	}
	var length, read int64
	buffer := make([]byte, chunk)
	for {
		n, err := r.Read(buffer)
		if end := bytes.LastIndexByte(buffer[:n], '\n'); end >= 0 {
			length = read + int64(end) + 1
		}
		read += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return answer{Error: wireErrorOf(fail.E("shell.Output", fail.Unavailable, "", err))}
		}
	}
	if c.Partial {
		length = read
	}
	return answer{Length: length}
}

// submitHosted places jobs that a gateway sent.
func (a *Adapter) submitHosted(jobs []hostJob) []error {
	errs := make([]error, len(jobs))
	a.submit(len(jobs), func(i int) (*job, error) {
		j, err := a.placeHosted(&jobs[i])
		errs[i] = err
		return j, err
	})
	return errs
}

func (a *Adapter) placeHosted(h *hostJob) (*job, error) {
	if known, err := a.known(h.Tag); known || err != nil {
		return nil, err
	}
	w, err := h.wanted()
	if err != nil {
		return nil, err
	}
	return a.placePlanned(w, h.Owner)
}
