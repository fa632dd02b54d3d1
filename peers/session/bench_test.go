package session

import (
	"testing"
	"time"
	"unsafe"
)

// BenchmarkIdle is an hour of an idle session, both sides: what ten thousand of them cost.
func BenchmarkIdle(b *testing.B) {
	w := newWorld(b, 1, false)
	for b.Loop() {
		w.steps = 0
		w.run(time.Hour)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/3600*1e6, "µs/s")
	b.ReportMetric(float64(unsafe.Sizeof(w.a.s)), "bytes")
}

// BenchmarkItems puts items through a session, from one side to the other.
func BenchmarkItems(b *testing.B) {
	w := newWorld(b, 2, false, func(a, b *Config) { a.Window, b.Window, a.Queue = 4096, 4096, 8192 })
	w.delay = 0
	const n = 1000
	for b.Loop() {
		w.steps = 0
		w.a.send(n)
		w.run(time.Millisecond)
	}
	if len(w.b.got) != w.a.put {
		b.Fatalf("%d of %d", len(w.b.got), w.a.put)
	}
	b.ReportMetric(float64(w.a.put)/b.Elapsed().Seconds(), "items/s")
}
