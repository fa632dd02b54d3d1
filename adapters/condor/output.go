package condor

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Output opens a stream of a job.
func (a *Adapter) Output(_ context.Context, h adapters.Handle, s adapters.Stream, offset int64) (io.ReadCloser, error) {
	const op = "condor.Output"
	tag, err := parseHandle(h)
	if err != nil {
		return nil, fail.Errorf(op, fail.Invalid, "", "%v", err)
	}
	a.book.mu.Lock()
	j := a.book.jobs[tag]
	var dir jobDir
	var uid int
	if j != nil {
		dir, uid = j.dir, j.spec.uid
	}
	a.book.mu.Unlock()
	if j == nil {
		return nil, fail.Errorf(op, fail.NotFound, string(tag), "the site knows nothing of this job")
	}
	spec, err := dir.spec()
	if err != nil {
		return nil, fail.Errorf(op, fail.Internal, string(tag), "the job's record can't be read").Because(err)
	}
	stdout, stderr := spec.Program.Outputs(string(dir))
	path := stdout
	switch s {
	case adapters.Stdout:
	case adapters.Stderr:
		path = stderr
	default:
		return nil, fail.Errorf(op, fail.Invalid, "", "there is no stream %d", s)
	}
	if a.settings.Transfer {
		if spec.Program.Output != "" && s == adapters.Stdout || spec.Program.Error != "" && s == adapters.Stderr {
			return nil, fail.Errorf(op, fail.Unsupported, string(tag), "the job writes to a file of its node, which the gateway can't read")
		}
	}
	f, err := a.openAs(uid, path)
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, fail.Errorf(op, fail.Unavailable, string(tag), "the output can't be read").Because(err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, fail.Errorf(op, fail.Unavailable, string(tag), "the output can't be read").Because(err)
	}
	if !info.Mode().IsRegular() || offset >= info.Size() {
		_ = f.Close()
		return io.NopCloser(strings.NewReader("")), nil // a device holds nothing
	}
	offset = max(offset, 0)
	return &section{io.NewSectionReader(f, offset, info.Size()-offset), f}, nil
}

type section struct {
	*io.SectionReader
	f *os.File
}

func (s *section) Close() error { return s.f.Close() }

// openAs opens a file with the rights of a job's account: the name is the job's own
// choice, and may lead anywhere.
func (a *Adapter) openAs(uid int, path string) (*os.File, error) {
	const flags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY
	if !a.site.root {
		return os.OpenFile(path, flags, 0)
	}
	if uid == 0 {
		return nil, errors.New("it is not known whose the job is")
	}
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened)
	go func() {
		// The thread is never given back: it ends with the goroutine.
		runtime.LockOSThread()
		if _, err := unix.SetfsuidRetUid(uid); err != nil {
			done <- opened{nil, err}
			return
		}
		f, err := os.OpenFile(path, flags, 0)
		done <- opened{f, err}
	}()
	o := <-done
	if o.err != nil {
		return nil, o.err
	}
	// The groups are still the gateway's: what only they may read is not the job's.
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(o.f.Fd()), &stat); err != nil || int(stat.Uid) != uid && stat.Mode&0o004 == 0 {
		_ = o.f.Close()
		return nil, errors.Join(err, fs.ErrPermission)
	}
	return o.f, nil
}

func isNotEmpty(err error) bool { return errors.Is(err, syscall.ENOTEMPTY) }
