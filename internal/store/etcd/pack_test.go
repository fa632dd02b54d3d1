package etcd

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/store"
)

// packed gives a document as it is kept.
func packed(t testing.TB, doc []byte) *part {
	t.Helper()
	p, err := pack(&store.NewJob{ID: "a", Document: doc, Submitted: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPack(t *testing.T) {
	job := []byte(strings.Repeat("<posix:Argument>--input=/data/run/events.dat</posix:Argument>\n", 20))
	for name, doc := range map[string][]byte{"nothing": nil, "small": job[:minCompressed-1], "job": job, "no text": {0, 1, 254}} {
		p := packed(t, doc)
		back, err := unpack(p, p.document)
		if err != nil || !bytes.Equal(back, doc) {
			t.Errorf("%s: %q, %v", name, back, err)
		}
	}
	p := packed(t, job)
	if !p.s2 || len(p.document) > len(job)/2 {
		t.Errorf("a job of %d bytes is kept in %d", len(job), len(p.document))
	}
	for i := range p.document {
		bad := bytes.Clone(p.document)
		bad[i] ^= 0x55
		if back, err := unpack(p, bad); err == nil {
			t.Errorf("a record damaged at %d gave %q", i, back)
		}
	}
}

func BenchmarkPack(b *testing.B) {
	doc := []byte(strings.Repeat("<posix:Argument>--input=/data/run/events.dat</posix:Argument>\n", 20))
	for b.Loop() {
		if _, err := pack(&store.NewJob{ID: "a", Document: doc}); err != nil {
			b.Fatal(err)
		}
	}
}
