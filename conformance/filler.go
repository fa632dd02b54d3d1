package conformance

import (
	"io"
	"sync"
)

// filler is a reader of a head and then of blanks, that counts what was taken.
// The transport may still read it when the answer is there.
type filler struct {
	mu   sync.Mutex
	head string
	left int64
	gave int64
}

// Read gives the next piece.
func (f *filler) Read(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.head != "" {
		n := copy(b, f.head)
		f.head = f.head[n:]
		f.gave += int64(n)
		return n, nil
	}
	if f.left <= 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), f.left))
	for i := range b[:n] {
		b[i] = ' '
	}
	f.left -= int64(n)
	f.gave += int64(n)
	return n, nil
}

func (f *filler) taken() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gave
}
