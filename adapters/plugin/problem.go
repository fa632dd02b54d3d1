package plugin

import (
	"errors"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// kinds puts our kinds beside those of the wire, and the status code that says the
// same to a program that reads no details.
var kinds = []struct {
	kind fail.Kind
	wire proto.Kind
	code codes.Code
}{
	{fail.Invalid, proto.Kind_KIND_INVALID, codes.InvalidArgument},
	{fail.Unsupported, proto.Kind_KIND_UNSUPPORTED, codes.Unimplemented},
	{fail.Unauthenticated, proto.Kind_KIND_UNAUTHENTICATED, codes.Unauthenticated},
	{fail.Denied, proto.Kind_KIND_DENIED, codes.PermissionDenied},
	{fail.NotFound, proto.Kind_KIND_NOT_FOUND, codes.NotFound},
	{fail.Conflict, proto.Kind_KIND_CONFLICT, codes.FailedPrecondition},
	{fail.NotAccepting, proto.Kind_KIND_NOT_ACCEPTING, codes.Aborted},
	{fail.Unavailable, proto.Kind_KIND_UNAVAILABLE, codes.Unavailable},
	{fail.Exhausted, proto.Kind_KIND_EXHAUSTED, codes.ResourceExhausted},
	{fail.Uncertain, proto.Kind_KIND_UNCERTAIN, codes.Unknown},
	{fail.Internal, proto.Kind_KIND_INTERNAL, codes.Internal},
}

// plain are the codes that the gRPC libraries do not make up themselves, or only
// where nothing was done: without details they are the plug-in's word.
var plain = []codes.Code{
	codes.InvalidArgument, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.FailedPrecondition,
}

const noSentence = "the plug-in gave no reason"

// problem puts an error on the wire; nil for nil.
func problem(err error) *proto.Problem {
	if err == nil {
		return nil
	}
	p := &proto.Problem{Kind: proto.Kind_KIND_INTERNAL, Sentence: clip(fail.Sentence(err), maxSentence)}
	e, ok := errors.AsType[*fail.Error](err)
	if !ok {
		p.Cause = clip(err.Error(), maxSentence)
		return p
	}
	for _, k := range kinds {
		if k.kind == e.Kind {
			p.Kind = k.wire
		}
	}
	p.Subject = clip(e.Subject, maxSentence)
	if e.Cause != nil {
		p.Cause = clip(e.Cause.Error(), maxSentence)
	}
	return p
}

// failure is the error that a Problem tells; nil for nil. A kind that we do not know
// claims nothing.
func failure(op string, p *proto.Problem) error {
	if p == nil {
		return nil
	}
	kind := fail.Uncertain
	for _, k := range kinds {
		if k.wire == p.Kind {
			kind = k.kind
		}
	}
	e := &fail.Error{Op: "plugin." + op, Kind: kind, Subject: clip(p.Subject, maxSentence), Public: clip(p.Sentence, maxSentence)}
	if e.Public == "" {
		e.Public = noSentence
	}
	if p.Cause != "" {
		e.Cause = errors.New(clip(p.Cause, maxSentence))
	}
	return e
}

// statusOf is how a call that failed as a whole ends.
func statusOf(err error) error {
	p := problem(err)
	if p == nil {
		return nil
	}
	code := codes.Internal
	for _, k := range kinds {
		if k.wire == p.Kind {
			code = k.code
		}
	}
	s, detailErr := status.New(code, p.Sentence).WithDetails(p)
	if detailErr != nil {
		return status.Error(code, p.Sentence)
	}
	return s.Err()
}

// refusal reads the end of a call that failed as a whole; nil when the plug-in did
// not say why itself, so that the failure is one of the connection.
func refusal(op string, err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return nil
	}
	for _, d := range s.Details() {
		if p, ok := d.(*proto.Problem); ok {
			if p.Sentence == "" {
				p.Sentence = s.Message()
			}
			return failure(op, p)
		}
	}
	for _, c := range plain {
		if s.Code() != c {
			continue
		}
		for _, k := range kinds {
			if k.code == c {
				return failure(op, &proto.Problem{Kind: k.wire, Sentence: s.Message()})
			}
		}
	}
	return nil
}

// clip makes a string one that can be shown and sent: UTF-8 of at most n bytes.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n-len("…")]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		if len(s) > 0 && s[len(s)-1] >= utf8.RuneSelf {
			s = s[:len(s)-1] // a character that was cut
		}
		s += "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
