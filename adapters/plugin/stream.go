package plugin

import (
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// Output opens a stream of a job.
func (h *host) Output(ctx context.Context, handle adapters.Handle, which adapters.Stream, offset int64) (io.ReadCloser, error) {
	if err := tooLong(handle); err != nil {
		return nil, err
	}
	s, err := h.session("Output")
	if err != nil {
		return nil, err
	}
	q := &proto.OutputRequest{Handle: handle, Stream: proto.Stream_STREAM_STDOUT, Offset: offset}
	if which == adapters.Stderr {
		q.Stream = proto.Stream_STREAM_STDERR
	}
	ctx, cancel := context.WithCancel(ctx)
	o := &output{h: h, cancel: cancel, left: h.Properties().MaxOutput}
	if o.left <= 0 {
		o.left = maxOutput
	}
	if o.stream, err = s.api.Output(ctx, q); err == nil {
		// The first piece tells whether there is such a stream.
		err = o.next()
	}
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return o, nil
	}
	cancel()
	return nil, o.failed(err)
}

// maxOutput bounds a stream whose plug-in says nothing of a bound.
const maxOutput = 1 << 40

// output reads a stream in pieces. What is not read is not sent.
type output struct {
	h      *host
	stream grpc.ServerStreamingClient[proto.OutputChunk]
	cancel context.CancelFunc
	data   []byte
	left   int64
	end    error
}

// next waits for a piece, which may be empty.
func (o *output) next() error {
	if o.end != nil {
		return o.end
	}
	t := time.AfterFunc(o.h.settings.CallTimeout, o.cancel)
	c, err := o.stream.Recv()
	t.Stop()
	switch {
	case err != nil:
		o.end = err
	case len(c.Data) > maxChunk:
		o.end = fail.Errorf("plugin.Output", fail.Internal, "", "the plug-in sends a piece of %d bytes; at most %d are taken", len(c.Data), maxChunk)
	case int64(len(c.Data)) > o.left:
		o.end = fail.Errorf("plugin.Output", fail.Exhausted, "", "the plug-in sends more than the %d bytes that it claims can be read back", o.h.Properties().MaxOutput)
	default:
		o.data = c.Data
		o.left -= int64(len(c.Data))
		return nil
	}
	o.cancel()
	return o.end
}

func (o *output) failed(err error) error {
	if _, ours := errors.AsType[*fail.Error](err); ours || errors.Is(err, io.EOF) {
		return err
	}
	if refused := refusal("Output", err); refused != nil {
		return refused
	}
	return fail.Errorf("plugin.Output", fail.Unavailable, "", "the plug-in ended the output before its end: %s", clip(status.Convert(err).Message(), 1000)).Because(err)
}

// Read reads.
func (o *output) Read(b []byte) (int, error) {
	for empty := 0; len(o.data) == 0; empty++ {
		if empty > 1000 {
			o.cancel()
			return 0, fail.Errorf("plugin.Output", fail.Internal, "", "the plug-in sends nothing but empty pieces")
		}
		if err := o.next(); err != nil {
			return 0, o.failed(err)
		}
	}
	n := copy(b, o.data)
	o.data = o.data[n:]
	return n, nil
}

// Close ends the stream.
func (o *output) Close() error {
	o.cancel()
	return nil
}

// watchRate bounds the evidence that is taken a second in the long run.
const (
	watchRate  = 20_000
	watchBurst = 50_000
)

// Watch passes evidence on through all lives of the plug-in. After each new start it
// asks for the jobs that had not ended, since nobody watched meanwhile.
func (w watcher) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	h := w.h
	limiter := rate.NewLimiter(watchRate, watchBurst)
	for again := false; ; again = true {
		s, err := h.wait(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		err = h.watch(ctx, s, again, limiter, emit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		h.log.Debug("the plug-in's evidence ended", "error", err)
		if wait := time.Second - time.Since(began); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			case <-s.done: // the next session is news
				t.Stop()
			case <-t.C:
			}
		}
	}
}

// wait gives the session that is up, or waits for one.
func (h *host) wait(ctx context.Context) (*session, error) {
	for {
		h.mu.Lock()
		s, changed := h.current, h.changed
		h.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s != nil {
			select {
			case <-s.done: // it is about to be taken away
			default:
				return s, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

func (h *host) watch(ctx context.Context, s *session, again bool, limiter *rate.Limiter, emit func([]adapters.Evidence)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.api.Watch(ctx, &proto.WatchRequest{})
	if err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(r.Evidence) == 0 { // it listens from now on
			emit(nil)
			if again {
				h.catchUp(ctx, emit)
			}
			continue
		}
		batch := make([]adapters.Evidence, 0, len(r.Evidence))
		for _, p := range r.Evidence {
			e := readEvidence(p, nil)
			h.mu.Lock()
			known, live := h.live[e.Tag]
			h.mu.Unlock()
			if e.Phase == adapters.Unknown || live && known != nil && string(known) != string(e.Handle) {
				h.odd.Do(func() {
					h.log.Warn("evidence of the plug-in is not taken", "tag", e.Tag, "error", e.Err)
				})
				continue
			}
			h.seen(&e)
			batch = append(batch, e)
		}
		for n := len(batch); n > 0; n -= watchBurst {
			if err := limiter.WaitN(ctx, min(n, watchBurst)); err != nil {
				return err
			}
		}
		if len(batch) > 0 {
			emit(batch)
		}
	}
}

// catchUp tells what happened while nobody watched.
func (h *host) catchUp(ctx context.Context, emit func([]adapters.Evidence)) {
	h.mu.Lock()
	all := make([]adapters.Handle, 0, len(h.live))
	for _, handle := range h.live {
		if handle != nil {
			all = append(all, handle)
		}
	}
	h.mu.Unlock()
	if len(all) == 0 {
		return
	}
	news, err := h.Status(ctx, all)
	if err != nil {
		h.log.Warn("what happened while the plug-in was down is not known yet", "error", err)
		return
	}
	batch := news[:0]
	for _, e := range news {
		if e.Phase != adapters.Unknown {
			batch = append(batch, e)
		}
	}
	if len(batch) > 0 {
		emit(batch)
	}
}
