package pluginpolicy

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

// logWriter puts what a plug-in writes to standard error into the log, line by line,
// no more than so many a second: a flood costs little.
type logWriter struct {
	log     *slog.Logger
	limiter *rate.Limiter

	mu   sync.Mutex
	rest []byte   // of a line that has not ended
	last []string // lines, for the reason of a crash
}

const (
	maxText = 4 << 10 // bytes of a line or a sentence
	logLast = 5       // lines that are kept
)

func newLogWriter(log *slog.Logger) *logWriter {
	return &logWriter{log: log, limiter: rate.NewLimiter(20, 200)}
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
		w.rest = append(w.rest, piece[:min(len(piece), maxText-len(w.rest))]...)
		if i < 0 {
			break
		}
		w.emit(strings.TrimSpace(string(w.rest)))
		w.rest, b = w.rest[:0], b[i+1:]
	}
	return n, nil
}

func (w *logWriter) emit(line string) {
	if line == "" {
		return
	}
	if w.last = append(w.last, clip(line, 300)); len(w.last) > logLast {
		w.last = w.last[1:]
	}
	if w.limiter.Allow() {
		w.log.Info("the plug-in says", "line", clip(line, maxText))
	}
}

// tail gives the last lines, for a sentence.
func (w *logWriter) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.last, " / ")
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
