package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

const greeting = "conformance says hello"

// readable gives a copy that has ended and wrote greeting.
func (p *probe) readable(ctx context.Context) (*visit, *wire.Route, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !slices.Contains(v.opened.Features, wire.FeatureOutput) {
		return nil, nil, skip("the endpoint does not know the feature %s", wire.FeatureOutput)
	}
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Echo, greeting)
	if err != nil {
		return nil, nil, err
	}
	end, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err == nil && (end.Status != wire.IsEnded || end.Result.Outcome != wire.Finished) {
		err = fmt.Errorf("%s ended as %s: %s", p.opts.Programs.Echo, end.Status, end.Reason)
	}
	return v, r, err
}

// output reads, and gives what came.
func (v *visit) output(ctx context.Context, q *wire.Read) (string, *wire.Output, error) {
	mark := v.mark()
	if _, err := v.give(ctx, q); err != nil {
		return "", nil, err
	}
	last, err := await(ctx, v, mark, "Output that is the last", func(o *wire.Output) bool { return o.About == q.About && o.Request == q.Request && o.Last })
	if err != nil {
		return "", nil, err
	}
	text, at := "", q.Offset
	for _, m := range v.since(mark) {
		o, ok := m.(*wire.Output)
		if !ok || o.About != q.About || o.Request != q.Request {
			continue
		}
		if len(o.Data) > 0 && o.Offset != at {
			return "", nil, fmt.Errorf("output from %d came where %d was next", o.Offset, at)
		}
		text += string(o.Data)
		at += uint64(len(o.Data))
	}
	return text, last, nil
}

func outputRead(ctx context.Context, p *probe) (string, error) {
	v, r, err := p.readable(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	text, last, err := v.output(ctx, &wire.Read{About: r.About, Request: 11, Stream: wire.Stdout, Most: wire.MaxOutput})
	if err != nil {
		return "", err
	}
	if last.Kind != "" || strings.TrimSpace(text) != greeting {
		return "", fmt.Errorf("the output is %q (%s %s): wanted %q", text, last.Kind, last.Reason, greeting)
	}
	return fmt.Sprintf("%q", text), nil
}

func outputUnknown(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if !slices.Contains(v.opened.Features, wire.FeatureOutput) {
		return "", skip("the endpoint does not know the feature %s", wire.FeatureOutput)
	}
	_, last, err := v.output(ctx, &wire.Read{About: p.unknown(), Request: 12, Stream: wire.Stderr, Most: 100})
	if err != nil {
		return "", err
	}
	if last.Kind == "" {
		return "", errors.New("nobody has the copy, and its output was given")
	}
	return string(last.Kind) + ": " + last.Reason, nil
}

func outputPart(ctx context.Context, p *probe) (string, error) {
	v, r, err := p.readable(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	text, last, err := v.output(ctx, &wire.Read{About: r.About, Request: 13, Stream: wire.Stdout, Offset: 12, Most: 4})
	if err != nil {
		return "", err
	}
	if last.Kind != "" || text != greeting[12:16] {
		return "", fmt.Errorf("4 bytes from 12 are %q (%s %s): wanted %q", text, last.Kind, last.Reason, greeting[12:16])
	}
	return fmt.Sprintf("%q", text), nil
}

func usedSome(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.True)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	end, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", err
	}
	if end.Used < time.Millisecond {
		return "", fmt.Errorf("the copy ran, is %s, and used nothing", end.Status)
	}
	return end.Used.String(), nil
}
