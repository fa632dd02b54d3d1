package exchange

import (
	"fmt"
	"testing"

	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// BenchmarkSyncRatios: with 10,000 sites, the bytes on the wire for one that changed its state,
// by the bytes of telling all; and those of finding and repairing one that differs after a
// cut in which the session was lost. The aim for the first is 1/200 at most.
func BenchmarkSyncRatios(b *testing.B) {
	for b.Loop() {
		w := newWorld(b, 1)
		at := func(n int) resourcemodel.Key { return resourcemodel.Key{Site: fmt.Sprintf("site-%05d", n)} }
		for n := range 10_000 {
			w.change(at(n), 0)
		}
		said := 0
		tell := func(messages []wire.Message) {
			for len(messages) > 0 {
				m := messages[0]
				messages = messages[1:]
				said += encoded(b, m)
				switch m := m.(type) {
				case *wire.Pull:
					messages = append(messages, w.e.Pull(m)...)
				case *wire.Compare:
					messages = append(messages, w.e.Compare(m)...)
				default:
					_, answers, err := w.i.Take(m)
					if err != nil {
						b.Fatal(err)
					}
					messages = append(messages, answers...)
				}
			}
		}
		show := func() {
			if err := w.e.Show(w.model, resourcemodel.Full); err != nil {
				b.Fatal(err)
			}
		}
		show()
		tell([]wire.Message{w.i.Pull()})
		full := said
		said = 0
		for n := range 100 {
			w.change(at(n*97), 4)
			show()
			tell(w.e.Push())
		}
		each := float64(said) / 100
		said = 0
		w.e.Begin()
		w.change(at(42), 4)
		show()
		w.i.view = "another" // the importer was started anew
		tell([]wire.Message{w.i.Pull()})
		if _, _, sites, agreed := w.i.State(); sites != 10_000 || !agreed {
			b.Fatal("they do not agree")
		}
		fmt.Printf("\n   telling of one changed resource         %8.0f bytes\n   telling of all 10,000                   %8d bytes\n   ratio 1/%.0f (aim ≤ 1/200)\n", each, full, float64(full)/each)
		fmt.Printf("   finding and repairing one that differs  %8d bytes\n   ratio 1/%.0f\n", said, float64(full)/float64(said))
		b.ReportMetric(float64(full), "full-bytes")
		b.ReportMetric(each, "bytes/change")
		b.ReportMetric(float64(full)/each, "full/change")
		b.ReportMetric(float64(full)/float64(said), "full/repair")
	}
}

// encoded gives the bytes of a message on the wire, before compression.
func encoded(b *testing.B, m wire.Message) int {
	b.Helper()
	e, err := wire.Encode(m)
	if err != nil {
		b.Fatal(err)
	}
	return len(xmldoc.Marshal(e))
}
