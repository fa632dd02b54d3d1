package etcd

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger gives etcd a logger that passes warnings and worse on to ours, and
// hands what etcd would die of (it calls Fatal when its disk fails, which ends
// the process) to dead instead. The goroutine that meets such an end never runs
// again: etcd does not expect to live on after it.
func newLogger(log *slog.Logger, dead func(error)) *zap.Logger {
	hook := lastWords{dead}
	return zap.New(&core{log: log}, zap.WithFatalHook(hook), zap.WithPanicHook(hook))
}

type lastWords struct{ dead func(error) }

// OnWrite implements zapcore.CheckWriteHook.
func (l lastWords) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	msg := entry.Message
	if cause, ok := enc.Fields["error"].(string); ok {
		msg += ": " + cause
	}
	l.dead(errors.New(msg))
	select {}
}

// core is a zapcore.Core over slog.
type core struct {
	log *slog.Logger
}

// ordinary are warnings that etcd gives for how it is embedded here, or beside an
// answer that its client gets anyway.
var ordinary = []string{
	"Running http and grpc server on single port",
	"it isn't recommended to use default name",
	"exceeded recommended request limit",
	"simple token is not cryptographically signed",
	"failed to apply request",
	"retrying of unary invoker failed",
	"error occurred during lease keep alive loop",
	"Failed to detect schema version", // of a database that has no term yet: its first start
	"failed to update storage version",
}

func (c *core) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	args := make([]any, 0, len(fields))
	for _, a := range attrs(fields) {
		args = append(args, a)
	}
	return &core{log: c.log.With(args...)}
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) {
		return ce
	}
	for _, o := range ordinary {
		if strings.HasPrefix(e.Message, o) {
			return ce
		}
	}
	return ce.AddCore(e, c)
}

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if strings.HasPrefix(e.Message, "unexpected error during readonly txn") && slices.ContainsFunc(attrs(fields), givenUp) {
		return nil // who asked has left, as happens when the gateway stops
	}
	level := slog.LevelWarn
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	c.log.LogAttrs(context.Background(), level, "etcd: "+e.Message, attrs(fields)...)
	return nil
}

func (c *core) Sync() error { return nil }

// givenUp reports whether an attribute says that a request was cancelled by who made it.
func givenUp(a slog.Attr) bool {
	return a.Key == "error" && strings.HasSuffix(a.Value.String(), context.Canceled.Error())
}

func attrs(fields []zapcore.Field) []slog.Attr {
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for k, v := range enc.Fields {
			out = append(out, slog.Any(k, v))
		}
	}
	return out
}
