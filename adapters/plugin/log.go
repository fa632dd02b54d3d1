package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/time/rate"
)

// logWriter puts what a plug-in writes to standard error into the log, line by line:
// no more than logRate lines a second in the long run, so that a flood costs little.
type logWriter struct {
	log     *slog.Logger
	limiter *rate.Limiter

	mu       sync.Mutex
	rest     []byte // of a line that has not ended
	cut      bool   // the line was too long: what follows of it is thrown away
	dropped  int
	last     []string // for the reason of a crash
	panicked bool     // what follows is a trace: the first lines of it tell
}

const (
	logRate  = 50
	logBurst = 500
	logLast  = 5 // lines that are kept
)

func newLogWriter(log *slog.Logger) *logWriter {
	return &logWriter{log: log, limiter: rate.NewLimiter(logRate, logBurst)}
}

// Write takes a piece; it never fails.
func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(b)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		piece := b
		if i >= 0 {
			piece = b[:i]
		}
		if !w.cut {
			if room := maxStderr - len(w.rest); len(piece) > room {
				piece, w.cut = piece[:room], true
			}
			w.rest = append(w.rest, piece...)
		}
		if i < 0 {
			break
		}
		w.emit(string(w.rest))
		w.rest, w.cut = w.rest[:0], false
		b = b[i+1:]
	}
	return n, nil
}

// tail gives the last lines, for a sentence.
func (w *logWriter) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := w.last
	if len(w.rest) > 0 {
		lines = append(slices.Clone(lines), clip(string(w.rest), 300))
	}
	return strings.Join(lines, " / ")
}

func (w *logWriter) emit(line string) {
	line = strings.TrimRight(line, "\r")
	if strings.TrimSpace(line) == "" {
		return
	}
	level, message, attributes := readLine(line)
	if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
		w.panicked, w.last = true, nil
	}
	if (level >= slog.LevelWarn || len(attributes) == 0) && (!w.panicked || len(w.last) == 0) {
		if w.last = append(w.last, clip(message, 300)); len(w.last) > logLast {
			w.last = w.last[1:]
		}
	}
	if !w.limiter.Allow() {
		w.dropped++
		return
	}
	if w.dropped > 0 {
		w.log.Warn("the plug-in writes more to its log than is kept", "dropped", w.dropped)
		w.dropped = 0
	}
	w.log.LogAttrs(context.Background(), level, clip(message, maxSentence), attributes...)
}

var levels = map[string]slog.Level{
	"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "warning": slog.LevelWarn,
	"error": slog.LevelError, "critical": slog.LevelError, "fatal": slog.LevelError,
}

// readLine gives the level of a line that says one.
func readLine(line string) (slog.Level, string, []slog.Attr) {
	if strings.HasPrefix(line, "{") {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil {
			take := func(names ...string) string {
				for _, n := range names {
					if s, ok := fields[n].(string); ok {
						delete(fields, n)
						return s
					}
				}
				return ""
			}
			message := take("@message", "msg", "message")
			level, ok := levels[strings.ToLower(take("@level", "level"))]
			if message != "" && ok {
				for _, n := range []string{"@timestamp", "time", "@module", "@caller"} {
					delete(fields, n)
				}
				var attributes []slog.Attr
				for _, k := range slices.Sorted(maps.Keys(fields)) {
					if len(attributes) == 32 {
						break
					}
					attributes = append(attributes, slog.Any(clip(k, 100), bounded(fields[k])))
				}
				return level, message, attributes
			}
		}
	}
	if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "Traceback ") {
		return slog.LevelError, line, nil
	}
	if word, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), "]"); ok && line[0] == '[' {
		if level, ok := levels[strings.ToLower(word)]; ok {
			return level, strings.TrimSpace(rest), nil
		}
	}
	return slog.LevelDebug, line, nil
}

func bounded(v any) any {
	switch v := v.(type) {
	case string:
		return clip(v, 1000)
	case float64, bool, nil:
		return v
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return clip(string(text), 1000)
}
