package shell

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Output opens a stream. Of a job over several hosts it is their whole lines in the
// order in which they were first asked for, which is kept: an offset means the same
// for ever.
func (s *Hosts) Output(ctx context.Context, handle adapters.Handle, stream adapters.Stream, offset int64) (io.ReadCloser, error) {
	const op = "shell.Output"
	tag, err := tagOf(handle)
	if err != nil {
		return nil, err
	}
	if offset < 0 || stream != adapters.Stdout && stream != adapters.Stderr {
		return nil, fail.Errorf(op, fail.Invalid, string(tag), "there is no stream %d from %d", stream, offset)
	}
	e := s.evidence(tag)
	if e.Phase == adapters.Lost {
		if _, err := os.Lstat(s.path(tag)); errors.Is(err, fs.ErrNotExist) {
			return nil, errUnknown(op, tag)
		}
	}
	parts, err := s.assigned(tag)
	if err != nil {
		return nil, fail.E(op, fail.Unavailable, string(tag), err)
	}
	with := parts[:0]
	for _, p := range parts {
		if !p.Idle {
			with = append(with, p)
		}
		if p.host == nil {
			return nil, fail.Errorf(op, fail.Unavailable, string(tag), "the host %s, which has the job's output, is not among the site's any more", p.Host)
		}
	}
	switch {
	case len(with) == 0 || e.NotRun && !anyDelivered(with):
		return io.NopCloser(strings.NewReader("")), nil
	case len(with) == 1:
		r := &hostReader{ctx: ctx, host: with[0].host, tag: tag, stream: stream, offset: offset, left: -1}
		// What can't be opened should be said now.
		if err := r.fill(); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return r, nil
	}
	segments, err := s.order(ctx, tag, stream, with, e.Phase.Final())
	if err != nil {
		return nil, err
	}
	var readers []io.Reader
	for _, g := range segments {
		if offset >= g.Length {
			offset -= g.Length
			continue
		}
		readers = append(readers, &hostReader{ctx: ctx, host: with[g.Part].host, tag: tag, stream: stream, offset: g.Offset + offset, left: g.Length - offset})
		offset = 0
	}
	return io.NopCloser(io.MultiReader(readers...)), nil
}

func anyDelivered(parts []*hostPart) bool {
	for _, p := range parts {
		if p.Delivered {
			return true
		}
	}
	return false
}

// hostReader reads an output from a host, as much as is left of it; -1 is all that is there.
type hostReader struct {
	ctx    context.Context //nolint:containedctx // an io.Reader has no other place for it
	host   *host
	tag    adapters.Tag
	stream adapters.Stream
	offset int64
	left   int64
	data   []byte
	done   bool
}

func (r *hostReader) fill() error {
	if r.done || r.left == 0 {
		return io.EOF
	}
	a, err := r.host.call(r.ctx, call{Do: hostRead, Tags: []adapters.Tag{r.tag}, Stream: r.stream, Offset: r.offset})
	if errNoAnswer(err) {
		return r.host.unreachable("shell.Output", r.tag, err)
	}
	if err != nil {
		return err
	}
	data := a.Data
	r.done = len(data) < chunk
	if r.left >= 0 && int64(len(data)) > r.left {
		data = data[:r.left]
	}
	if r.left >= 0 {
		r.left -= int64(len(data))
	}
	r.offset += int64(len(data))
	r.data = data
	if len(data) == 0 {
		return io.EOF
	}
	return nil
}

func (r *hostReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (r *hostReader) Close() error { return nil }

// segment is a stretch of lines of one of a job's hosts.
type segment struct {
	Part           uint32
	Offset, Length int64
}

// order gives the stretches that a job's output is made of, after adding what is new.
func (s *Hosts) order(ctx context.Context, tag adapters.Tag, stream adapters.Stream, parts []*hostPart, final bool) ([]segment, error) {
	const op = "shell.Output"
	s.outputs.Lock()
	defer s.outputs.Unlock()
	path := s.path(tag, fmt.Sprintf("%s%d", hostedOrderFile, stream))
	segments, err := readSegments(path, len(parts))
	if err != nil {
		return nil, fail.E(op, fail.Unavailable, string(tag), err)
	}
	have := make([]int64, len(parts))
	for _, g := range segments {
		have[g.Part] += g.Length
	}
	var fresh bytes.Buffer
	for i, p := range parts {
		c := call{Do: hostExtent, Tags: []adapters.Tag{tag}, Stream: stream, Offset: have[i], Partial: final}
		a, err := p.host.call(ctx, c)
		switch {
		case errNoAnswer(err):
			return nil, p.host.unreachable(op, tag, err)
		case fail.Is(err, fail.NotFound): // its part never came there
		case err != nil:
			return nil, err
		case a.Length > 0:
			g := segment{Part: uint32(i), Offset: have[i], Length: a.Length}
			segments = append(segments, g)
			if err := binary.Write(&fresh, binary.BigEndian, g); err != nil {
				return nil, fail.E(op, fail.Internal, string(tag), err)
			}
		}
	}
	if fresh.Len() > 0 {
		if err := appendTo(path, fresh.Bytes()); err != nil {
			return nil, fail.Errorf(op, fail.Unavailable, string(tag), "the order of the output's lines can't be recorded: %s", why(err)).Because(err)
		}
	}
	return segments, nil
}

// maxSegments bounds what is read of an order.
const maxSegments = 1 << 20

func readSegments(path string, parts int) ([]segment, error) {
	size := binary.Size(segment{})
	data, err := readBounded(path, int64(maxSegments*size))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	segments := make([]segment, len(data)/size) // a torn one at the end was never answered with
	if err := binary.Read(bytes.NewReader(data), binary.BigEndian, segments); err != nil {
		return nil, err
	}
	for _, g := range segments {
		if int(g.Part) >= parts || g.Offset < 0 || g.Length <= 0 {
			return nil, errors.New("the order of the output's lines is damaged")
		}
	}
	return segments, nil
}

// appendTo adds whole segments to a file, after those that are whole.
func appendTo(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		size := int64(binary.Size(segment{}))
		_, err = f.WriteAt(data, info.Size()/size*size)
	}
	return errors.Join(err, f.Close())
}
