package wire

import (
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// routes is a frame with n jobs of a usual size.
func routes(n int) *Exchange {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := &Exchange{Frame{Session: "s", Number: 1, Sent: uint64(n), First: 1, Clock: at}}
	document := "<JobDefinition>" + strings.Repeat("<Argument>x</Argument>", 60) + "</JobDefinition>"
	for range n {
		m.Items = append(m.Items, &Route{
			About: About{Origin: "fiu.example", ID: "00000007", Token: "1"}, RecallBy: at, Hops: 3, VO: "bio", Digest: "sha-256:9f86d081",
			Path: []string{"fiu.example"}, Document: document, Assertion: make([]byte, 1000),
		})
	}
	return m
}

// BenchmarkRoutes writes and reads a frame with 500 routes.
func BenchmarkRoutes(b *testing.B) {
	const jobs = 500
	m := routes(jobs)
	bytes := 0
	for b.Loop() {
		e, err := Encode(m)
		if err != nil {
			b.Fatal(err)
		}
		raw := xmldoc.Marshal(e)
		bytes = len(raw)
		doc, err := xmldoc.ReadBytes(raw, xmldoc.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Decode(doc, doc.Root()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*jobs/b.Elapsed().Seconds(), "jobs/s")
	b.ReportMetric(float64(bytes)/jobs, "bytes/job")
}
