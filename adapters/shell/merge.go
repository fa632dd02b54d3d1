package shell

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// maxMerged is how long a line may be to be kept whole among those of other
// processes.
const maxMerged = 64 << 10

// merge brings the output of several processes into one file, whole lines at a time.
type merge struct {
	file  *os.File
	limit uint64 // bytes
	over  func() // called once, when there is more

	mu      sync.Mutex
	written uint64
	broken  bool
	readers sync.WaitGroup
	pipes   []*os.File
}

// pipe gives a descriptor for one more process to write to.
func (m *merge) pipe() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	m.pipes = append(m.pipes, r)
	m.readers.Go(func() {
		m.copy(r)
		_ = r.Close() // the writer, if there still is one, is told by SIGPIPE
	})
	return w, nil
}

func (m *merge) copy(r io.Reader) {
	buffer := make([]byte, 0, 4096)
	for {
		if len(buffer) == cap(buffer) {
			buffer = append(buffer, 0)[:len(buffer)]
		}
		n, err := r.Read(buffer[len(buffer):min(cap(buffer), maxMerged)])
		buffer = buffer[:len(buffer)+n]
		end := bytes.LastIndexByte(buffer, '\n') + 1
		if err != nil || len(buffer) == maxMerged && end == 0 {
			end = len(buffer)
		}
		if end > 0 && !m.write(buffer[:end]) {
			return
		}
		buffer = append(buffer[:0], buffer[end:]...)
		if err != nil {
			return
		}
	}
}

func (m *merge) write(data []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken {
		return false
	}
	rest := m.limit - m.written
	over := uint64(len(data)) > rest
	if over {
		data = data[:rest]
	}
	n, err := m.file.Write(data)
	m.written += uint64(n)
	if err != nil || over {
		m.broken = true
	}
	if over {
		m.over()
	}
	return !m.broken
}

// wait waits until everything is written that the processes wrote, which have ended.
func (m *merge) wait() {
	if m == nil {
		return
	}
	done := make(chan struct{})
	go func() { m.readers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second): // somebody outside of the job was handed the pipe
		for _, p := range m.pipes {
			_ = p.SetReadDeadline(time.Now())
		}
		<-done
	}
}

func closeAll(files []*os.File) error {
	var errs []error
	for i, f := range files {
		if f != nil && (i == 0 || f != files[i-1]) {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
