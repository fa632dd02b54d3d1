package etcd_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
)

// document is 1 KiB that compresses as a JSDL document does.
func document() []byte {
	var b bytes.Buffer
	b.WriteString(`<jsdl:JobDefinition xmlns:jsdl="http://schemas.ggf.org/jsdl/2005/11/jsdl" xmlns:p="http://schemas.ggf.org/jsdl/2005/11/jsdl-posix"><jsdl:JobDescription>`)
	for b.Len() < 950 {
		noise := make([]byte, 12)
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		fmt.Fprintf(&b, "<p:Argument>%s</p:Argument>", hex.EncodeToString(noise))
	}
	b.WriteString("</jsdl:JobDescription></jsdl:JobDefinition>")
	return append(b.Bytes(), bytes.Repeat([]byte(" "), max(0, 1024-b.Len()))...)[:1024]
}

var benchIDs atomic.Int64

func benchJob(doc []byte) store.NewJob {
	now := time.Now()
	return store.NewJob{
		ID: fmt.Sprintf("%08x-0000-7000-8000-%012x", now.Unix(), benchIDs.Add(1)), Owner: "CN=alice,O=grid", Name: "bench", Document: doc,
		Submitted: now, Status: store.Status{Phase: "queued"}, Event: store.Event{Time: now, Phase: "queued", Event: "accepted", Reason: "accepted from CN=alice,O=grid"},
	}
}

// at runs do in n goroutines at once.
func at(b *testing.B, n int, do func() error) {
	began := processor()
	b.ResetTimer()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	for range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64((processor()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

// processor is the time that this process has used, which says more than the
// clock where others use the machine too.
func processor() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The raw puts are what the creations are measured by: 1 KiB through the same
// client.
func benchRaw(b *testing.B, n int) {
	s := open(b, etcd.Options{Dir: b.TempDir()})
	cli, value := etcd.Client(s), string(document())
	at(b, n, func() error {
		_, err := cli.Put(context.Background(), fmt.Sprintf("/raw/%016x", benchIDs.Add(1)), value)
		return err
	})
}

func benchCreate(b *testing.B, n int) {
	s := open(b, etcd.Options{Dir: b.TempDir()})
	doc := document()
	at(b, n, func() error {
		_, _, err := s.Create(context.Background(), benchJob(doc))
		return err
	})
}

func BenchmarkRawPut64(b *testing.B) { benchRaw(b, 64) }
func BenchmarkCreate64(b *testing.B) { benchCreate(b, 64) }

func BenchmarkRawPutLone(b *testing.B) { benchRaw(b, 1) }
func BenchmarkCreateLone(b *testing.B) { benchCreate(b, 1) }

// BenchmarkUpdate64 changes 64 jobs a call, as the broker does.
func BenchmarkUpdate64(b *testing.B) {
	s := open(b, etcd.Options{Dir: b.TempDir()})
	sess, err := s.Join(context.Background(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer sess.Close()
	doc := document()
	changes := make([]store.Change, 64)
	for i := range changes {
		job, _, err := s.Create(context.Background(), benchJob(doc))
		if err != nil {
			b.Fatal(err)
		}
		changes[i] = store.Change{ID: job.ID, Revision: job.Revision, Status: job.Status, Events: []store.Event{{Time: time.Now(), Phase: "running", Event: "started"}}}
	}
	for b.Loop() {
		for i, out := range s.Update(context.Background(), sess, changes...) {
			if out.Err != nil {
				b.Fatal(out.Err)
			}
			changes[i].Revision = out.Revision
		}
	}
	b.ReportMetric(float64(b.N*len(changes))/b.Elapsed().Seconds(), "op/s")
}
