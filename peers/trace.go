package peers

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/wire"
)

var traceName = wire.Name(&wire.Trace{})

type traceKey struct{}

// WithTrace gives a context whose calls are made by the span that a traceparent (W3C Trace
// Context, version 00) names. Without one each call is a trace of its own.
func WithTrace(ctx context.Context, parent string) context.Context {
	return context.WithValue(ctx, traceKey{}, parent)
}

// TraceFrom gives the traceparent of the message that is being answered, or of WithTrace;
// "" where there is none.
func TraceFrom(ctx context.Context) string {
	s, _ := ctx.Value(traceKey{}).(string)
	return s
}

// newTrace begins a trace.
func newTrace() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[0], b[16] = b[0]|1, b[16]|1
	return "00-" + hex.EncodeToString(b[:16]) + "-" + hex.EncodeToString(b[16:]) + "-00"
}

// traceOf reads the header block of a message; "" without one.
func traceOf(m *soap.Parsed) (string, error) {
	blocks := m.Blocks(traceName.Space, traceName.Local)
	switch len(blocks) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", fail.Errorf("peers", fail.Invalid, "Trace", "there are %d p:Trace headers: send one", len(blocks))
	}
	// SOAP's own attributes may stand on a header block.
	block := xmldoc.Detach(blocks[0])
	msg, err := wire.Decode(nil, block)
	if err != nil {
		return "", err
	}
	return msg.(*wire.Trace).Parent, nil
}
