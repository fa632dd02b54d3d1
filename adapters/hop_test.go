package adapters_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

func TestHops(t *testing.T) {
	at := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	for _, way := range [][]adapters.Hop{
		{{Domain: "fiu.example"}},
		{{Domain: "fiu.example", At: at}, {Domain: "ibm.example"}},
		{{Domain: "fiu.example"}, {Domain: "ibm.example", At: at.Add(time.Second)}},
	} {
		if got := adapters.SplitHops(adapters.JoinHops(way)); !reflect.DeepEqual(got, way) {
			t.Errorf("%q is read as %v, want %v", adapters.JoinHops(way), got, way)
		}
	}
	for _, bad := range []string{
		"", " > ", "fiu.example >", "fiu.example > ", "fiu example", "fiu.example@tomorrow", "@2026-11-29T08:00:00Z", "f\nu",
		strings.Repeat("a > ", adapters.MaxHops) + "a", strings.Repeat("a", 256),
	} {
		if got := adapters.SplitHops(bad); got != nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

func FuzzHops(f *testing.F) {
	f.Add("fiu.example@2026-11-29T08:00:00Z > ibm.example")
	f.Fuzz(func(t *testing.T, s string) {
		way := adapters.SplitHops(s)
		if again := adapters.SplitHops(adapters.JoinHops(way)); len(again) != len(way) {
			t.Errorf("%q gives %v, and then %v", s, way, again)
		}
	})
}
