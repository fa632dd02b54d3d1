package estimate

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// note is one thing that a Book learned, as it is written down: a share, a place or a
// kind of jobs.
type note struct {
	Share  *shareNote `json:"share,omitempty"`
	Place  *placeNote `json:"place,omitempty"`
	Kind   *kindNote  `json:"kind,omitempty"`
	Domain string     `json:"domain,omitempty"`
	Site   string     `json:"site,omitempty"`
	Of     string     `json:"of,omitempty"`          // the share's name, or the kind's
	Env    string     `json:"environment,omitempty"` // of a place
	Used   time.Time  `json:"used"`
}

type shareNote struct {
	Waits  []histogramNote     `json:"waits"`
	Errors map[Method]meanNote `json:"errors,omitempty"`
}

type histogramNote struct {
	Free   int             `json:"free"`
	Size   int             `json:"size"`
	At     time.Time       `json:"at"`
	Weight map[int]float64 `json:"weight"`
}

type meanNote struct {
	At     time.Time `json:"at"`
	Sum    float64   `json:"sum"`
	Weight float64   `json:"weight"`
}

type placeNote struct {
	Success meanNote `json:"success"`
	Speed   meanNote `json:"speed"`
}

type kindNote struct {
	Length meanNote            `json:"length"`
	First  resourcemodel.Place `json:"first"`
	Many   bool                `json:"many,omitempty"`
}

// worthless is after how many half-lives something is not written down any more.
const worthless = 10

// Encode gives what the Book knows in parts of at most so many bytes, or one note if
// that has more; the same Book gives the same.
func (b *Book) Encode(most int, now time.Time) ([][]byte, error) {
	var notes []note
	late := now.Add(-worthless * b.o.HalfLife)
	for _, at := range b.Shares() {
		sh := b.shares[at]
		if sh.used.Before(late) {
			continue
		}
		n := &shareNote{}
		for free := range sh.waits {
			for size := range sh.waits[free] {
				if h := &sh.waits[free][size]; !h.at.IsZero() {
					n.Waits = append(n.Waits, histogramNote{free, size, h.at, h.weights()})
				}
			}
		}
		for _, m := range slices.Sorted(maps.Keys(sh.errors)) {
			if n.Errors == nil {
				n.Errors = map[Method]meanNote{}
			}
			n.Errors[m] = noteOf(sh.errors[m])
		}
		notes = append(notes, note{Share: n, Domain: at.Domain, Site: at.Site, Of: at.Share, Used: sh.used})
	}
	for _, at := range slices.SortedFunc(maps.Keys(b.places), resourcemodel.Place.Compare) {
		if p := b.places[at]; !p.used.Before(late) {
			notes = append(notes, note{
				Place:  &placeNote{noteOf(&p.success), noteOf(&p.speed)},
				Domain: at.Domain, Site: at.Site, Of: at.Share, Env: at.Environment, Used: p.used,
			})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.kinds)) {
		if k := b.kinds[name]; !k.used.Before(late) {
			notes = append(notes, note{Kind: &kindNote{noteOf(&k.length), k.first, k.many}, Of: name, Used: k.used})
		}
	}
	var parts [][]byte
	var part []byte
	for i := range notes {
		line, err := json.Marshal(&notes[i])
		if err != nil {
			return nil, fail.E("estimate.Encode", fail.Internal, "", err)
		}
		if len(part) > 0 && len(part)+len(line) >= most {
			parts, part = append(parts, part), nil
		}
		part = append(append(part, line...), '\n')
	}
	if len(part) > 0 {
		parts = append(parts, part)
	}
	return parts, nil
}

func (h *histogram) weights() map[int]float64 {
	out := map[int]float64{}
	for i, w := range h.weight {
		if w > 0 {
			out[i] = w
		}
	}
	return out
}

func noteOf(m *mean) meanNote { return meanNote{m.at, m.sum, m.weight} }

// Take adds what another Book's Encode wrote down in a part; of what both know, what was
// used later counts. fail.Invalid is what can't be such a part; what stands before that is taken.
func (b *Book) Take(part []byte) error {
	for line := range strings.Lines(string(part)) {
		var n note
		if err := json.Unmarshal([]byte(line), &n); err != nil {
			return bad("it is not readable").Because(err)
		}
		if err := b.take(&n); err != nil {
			return err
		}
	}
	return nil
}

func bad(why string) *fail.Error {
	return fail.Errorf("estimate.Take", fail.Invalid, "", "a note of what was learned of sites can't be used: %s", why)
}

func (b *Book) take(n *note) error {
	switch {
	case n.Share != nil:
		at := Share{resourcemodel.Key{Domain: n.Domain, Site: n.Site}, n.Of}
		sh := &share{used: n.Used, errors: map[Method]*mean{}}
		for _, w := range n.Share.Waits {
			if w.Free < 0 || w.Free > 1 || w.Size < 0 || w.Size >= sizes {
				return bad("there is no such class of jobs")
			}
			h := &sh.waits[w.Free][w.Size]
			h.at = w.At
			for i, v := range w.Weight {
				if i < 0 || i >= buckets || !countable(v) {
					return bad("a number of it is none")
				}
				h.weight[i] = v
			}
		}
		for m, v := range n.Share.Errors {
			if m != History && m != Forecast || !v.sound() {
				return bad("an error of it is none")
			}
			sh.errors[m] = v.mean()
		}
		if old := b.shares[at]; old == nil || old.used.Before(n.Used) {
			makeRoom(b.shares, b.o.Shares, func(s *share) time.Time { return s.used })
			b.shares[at] = sh
		}
	case n.Place != nil:
		if !n.Place.Success.sound() || !n.Place.Speed.sound() {
			return bad("a number of it is none")
		}
		at := resourcemodel.Place{Key: resourcemodel.Key{Domain: n.Domain, Site: n.Site}, Share: n.Of, Environment: n.Env}
		if old := b.places[at]; old == nil || old.used.Before(n.Used) {
			makeRoom(b.places, b.o.Shares, func(p *place) time.Time { return p.used })
			b.places[at] = &place{n.Used, *n.Place.Success.mean(), *n.Place.Speed.mean()}
		}
	case n.Kind != nil:
		if !n.Kind.Length.sound() || n.Of == "" {
			return bad("a number of it is none")
		}
		if old := b.kinds[n.Of]; old == nil || old.used.Before(n.Used) {
			makeRoom(b.kinds, b.o.Shares, func(k *kind) time.Time { return k.used })
			b.kinds[n.Of] = &kind{n.Used, *n.Kind.Length.mean(), n.Kind.First, n.Kind.Many}
		}
	default:
		return bad("it is of nothing")
	}
	return nil
}

func (m meanNote) mean() *mean { return &mean{m.At, m.Sum, m.Weight} }

func (m meanNote) sound() bool {
	return countable(m.Weight) && !math.IsNaN(m.Sum) && math.Abs(m.Sum) < 1e12
}

// countable reports whether a sum of weights can be one.
func countable(w float64) bool { return w >= 0 && w < 1e12 }
