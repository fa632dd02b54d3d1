package offering

import (
	"testing"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// FuzzFill fills any value into any item: nothing panics, and what comes out is an
// offer that goes over the wire.
func FuzzFill(f *testing.F) {
	list := world(f, "slurm", "condor")
	for i, v := range []Value{{"cpus", "16"}, {"finishBy", "2026-12-04T12:00:00Z"}, {"site", "slurm"}, {"share", "</a>"}, {"start", "x"}, {"price", "1"}, {"1", "]]>"}, {"cpus", "1e400"}} {
		f.Add(i, v.Item, v.Text)
	}
	f.Fuzz(func(t *testing.T, n int, item, text string) {
		tpl := &list[uint(n)%uint(len(list))]
		fill := Filling{Values: []Value{{item, text}}}
		if _, err := Fill(tpl, Filling{}); err != nil {
			fill.Jobs = [][]byte{job("a", 60)}
		}
		o, err := Fill(tpl, fill)
		if err != nil {
			if fail.KindOf(err) == fail.Internal {
				t.Error(err)
			}
			return
		}
		Check(tpl, o)
		Limits(tpl, time.UTC)
		if back, err := agreement.ParseOffer(xmldoc.Marshal(o.Encode())); err == nil {
			if a, b := xmldoc.Marshal(back.Encode()), xmldoc.Marshal(o.Encode()); string(a) != string(b) {
				t.Errorf("%s\nbecomes\n%s", b, a)
			}
		}
	})
}
