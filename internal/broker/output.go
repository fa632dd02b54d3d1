package broker

import (
	"context"
	"errors"
	"io"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
)

// GetActivityOutput reads a piece of a stream of the last placement. Before
// there is one, the piece is empty and More is true.
func (b *Broker) GetActivityOutput(ctx context.Context, activity soap.EPR, stream bes.Stream, offset int64, max int) (*bes.OutputChunk, error) {
	const op = "broker.GetActivityOutput"
	if err := checkOutput(op, stream, offset); err != nil {
		return nil, err
	}
	recs, errs, err := b.find(ctx, op, []soap.EPR{activity})
	if err != nil {
		return nil, err
	}
	if errs[0] != nil {
		return nil, errs[0]
	}
	return b.output(ctx, &recs[0], stream, offset, max)
}

var streams = map[bes.Stream]adapters.Stream{bes.Stdout: adapters.Stdout, bes.Stderr: adapters.Stderr}

func checkOutput(op string, stream bes.Stream, offset int64) error {
	if _, ok := streams[stream]; !ok {
		return fail.Errorf(op, fail.Invalid, string(stream), "there is no stream %q; there are %q and %q", stream, bes.Stdout, bes.Stderr)
	}
	if offset < 0 {
		return fail.Errorf(op, fail.Invalid, "", "the offset %d is negative; offsets count bytes from 0", offset)
	}
	return nil
}

// output reads a piece of a stream of a job's last placement.
func (b *Broker) output(ctx context.Context, rec *store.Job, stream bes.Stream, offset int64, max int) (*bes.OutputChunk, error) {
	const op = "broker.GetActivityOutput"
	chunk := &bes.OutputChunk{Offset: offset, More: !rec.Status.Final}
	p := rec.Status.Placement
	if p == nil || p.Handle == nil {
		return chunk, nil
	}
	b.mu.Lock()
	s := b.siteOf(&rec.Status)
	b.mu.Unlock()
	if s == nil {
		return nil, fail.Errorf(op, fail.Unavailable, rec.ID, "the site %s, which has the output, is not configured here any more", p.Site)
	}
	if max <= 0 || max > b.cfg.Limits.Output {
		max = b.cfg.Limits.Output
	}
	c, done, err := s.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := c.Output(ctx, p.Handle, streams[stream], offset)
	if fail.Is(err, fail.NotFound) && rec.Status.Final {
		return nil, fail.Errorf(op, fail.NotFound, rec.ID, "the output of the activity is not kept any more").Because(err)
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// One byte more tells whether the stream goes on. Whether the job had ended
	// was read before the stream: what comes later is then nothing.
	chunk.Data, err = io.ReadAll(io.LimitReader(r, int64(max)+1))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fail.E(op, fail.Unavailable, rec.ID, err)
	}
	if len(chunk.Data) > max {
		chunk.Data, chunk.More = chunk.Data[:max], true
	}
	return chunk, nil
}
