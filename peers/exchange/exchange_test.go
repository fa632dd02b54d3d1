package exchange

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is an exporter's model, both sides, and the model that the importer feeds.
type world struct {
	t        testing.TB
	rng      *rand.Rand
	model    *resourcemodel.Snapshot
	e        *Exporter
	i        *Importer
	there    *resourcemodel.Snapshot
	to, back []wire.Message // under way
	bytes    int
	messages int
	versions uint64
	damages  int // what only the digests can find
	compares int
	fulls    int // pulls of all by an importer that has something
}

func newWorld(t testing.TB, seed uint64) *world {
	return &world{t: t, rng: rand.New(rand.NewPCG(seed, 3)), model: resourcemodel.Empty(), e: NewExporter("v1"), i: NewImporter("north"), there: resourcemodel.Empty()}
}

func (w *world) static() *resourcemodel.Static {
	w.versions++
	s := &resourcemodel.Static{Stamp: resourcemodel.Stamp{Version: w.versions, Changed: start.Add(time.Duration(w.versions) * time.Second), Source: "slurm"}, Type: "slurm"}
	for k := range 1 + w.rng.IntN(4) {
		id := fmt.Sprintf("e%d", k)
		s.Environments = append(s.Environments, resourcemodel.Environment{ID: id, CPUArchitecture: []string{"x86_64", "arm"}[w.rng.IntN(2)], CPUs: 8 << w.rng.IntN(3), Memory: int64(16+w.rng.IntN(64)) << 30})
		s.Shares = append(s.Shares, resourcemodel.Share{ID: "q" + id, Environments: []string{id}, MaxWallTime: time.Duration(1+w.rng.IntN(24)) * time.Hour})
	}
	return s
}

func (w *world) dynamic(s *resourcemodel.Static) *resourcemodel.Dynamic {
	w.versions++
	d := &resourcemodel.Dynamic{Stamp: resourcemodel.Stamp{Version: w.versions, Changed: start.Add(time.Duration(w.versions) * time.Second), Source: "slurm"}, Up: true, Shares: map[string]resourcemodel.ShareState{}, Environments: map[string]resourcemodel.EnvironmentState{}}
	for _, h := range s.Shares {
		d.Shares[h.ID] = resourcemodel.ShareState{Open: true, Running: w.rng.IntN(100), Waiting: w.rng.IntN(100)}
	}
	for _, e := range s.Environments {
		d.Environments[e.ID] = resourcemodel.EnvironmentState{Nodes: 10, Available: 10, FreeCPUs: w.rng.IntN(80)}
	}
	return d
}

// change changes a site of the model: its state, all of it, or whether it is there.
func (w *world) change(k resourcemodel.Key, what int) {
	c := resourcemodel.Change{Key: k}
	site := w.model.Site(k)
	switch {
	case site == nil || what == 1:
		c.Static = w.static()
		if site == nil && w.rng.IntN(4) == 0 {
			break // its state comes later
		}
		c.Dynamic = w.dynamic(c.Static)
	case what == 2:
		c.Gone = true
	case what == 3:
		c.Gone, c.Static = true, site.Static // its state is not known any more
	default:
		c.Dynamic = w.dynamic(site.Static)
	}
	w.apply(c)
}

func (w *world) apply(cs ...resourcemodel.Change) {
	next, err := w.model.Apply(resourcemodel.Delta{Revision: w.model.Revision() + 1, At: start, Changes: cs})
	if err != nil {
		w.t.Fatal(err)
	}
	w.model = next
}

// weigh passes a message through the XML and counts its bytes.
func (w *world) weigh(m wire.Message) wire.Message {
	e, err := wire.Encode(m)
	if err != nil {
		w.t.Fatal(err)
	}
	b := xmldoc.Marshal(e)
	w.bytes += len(b)
	w.messages++
	doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err != nil {
		w.t.Fatal(err)
	}
	if m, err = wire.Decode(doc, doc.Root()); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// session begins a new session: what was under way is lost.
func (w *world) session() {
	w.to, w.back = nil, nil
	w.e.Begin()
	w.back = append(w.back, w.i.Pull())
}

// deliver brings up to n messages to either side.
func (w *world) deliver(n int) {
	for ; n > 0 && len(w.to)+len(w.back) > 0; n-- {
		if len(w.back) > 0 && (len(w.to) == 0 || w.rng.IntN(2) == 0) {
			m := w.weigh(w.back[0])
			w.back = w.back[1:]
			switch m := m.(type) {
			case *wire.Pull:
				if view, _, _, _ := w.i.State(); m.View == "" && view != "" {
					w.fulls++
				}
				w.to = append(w.to, w.e.Pull(m)...)
			case *wire.Compare:
				w.compares++
				w.to = append(w.to, w.e.Compare(m)...)
			}
			continue
		}
		m := w.weigh(w.to[0])
		w.to = w.to[1:]
		changes, answers, err := w.i.Take(m)
		if err != nil {
			w.t.Fatal(err)
		}
		w.back = append(w.back, answers...)
		if len(changes) > 0 {
			if w.there, err = w.there.Apply(resourcemodel.Delta{Revision: w.there.Revision() + 1, At: start, Changes: changes}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// agree checks that both models have the same records, to the byte, at the detail.
func (w *world) agree(detail resourcemodel.Detail, of ...string) error {
	want := map[string][]byte{}
	for site := range w.model.Sites() {
		name := site.Site
		if site.Domain != "" {
			if !slices.Contains(of, site.Domain) {
				continue
			}
			name = site.Domain + resourcemodel.Via + name
		}
		if a := resourcemodel.Aggregate(site, detail); a != nil {
			want[name] = w.record(a)
		}
	}
	n := 0
	for site := range w.there.SitesOf("north") {
		n++
		got := w.record(site)
		if detail != resourcemodel.Full { // an aggregate that says the same as before keeps its stamp
			if s := w.e.tree.sites[site.Site]; s != nil {
				k := w.e.keys[site.Site]
				if a := resourcemodel.Aggregate(w.model.Site(k), detail); !s.static.Same(a.Static) || (s.dynamic == nil) != (a.Dynamic == nil) || s.dynamic != nil && !s.dynamic.Same(a.Dynamic) {
					return fmt.Errorf("the site %s is not shown as it is", site.Site)
				}
				want[site.Site] = w.record(&resourcemodel.Site{Key: site.Key, Static: s.static, Dynamic: s.dynamic})
			}
		}
		if !bytes.Equal(got, want[site.Site]) {
			return fmt.Errorf("the site %s is\n%s\nand not\n%s", site.Site, got, want[site.Site])
		}
	}
	if n != len(want) {
		return fmt.Errorf("%d sites and not %d", n, len(want))
	}
	if _, _, sites, agreed := w.i.State(); sites != n || !agreed {
		return fmt.Errorf("the importer counts %d sites of %d; it knows that they agree: %v", sites, n, agreed)
	}
	return nil
}

func (w *world) record(s *resourcemodel.Site) []byte {
	b, err := s.Static.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	if s.Dynamic != nil {
		d, err := s.Dynamic.Encode()
		if err != nil {
			w.t.Fatal(err)
		}
		b = append(append(b, '\n'), d...)
	}
	return b
}

func site(n int) resourcemodel.Key { return resourcemodel.Key{Site: fmt.Sprintf("s%04d", n)} }

// TestProperty: whatever changes, at whatever detail, however often the session breaks
// with messages under way, and whatever the importer lost or has wrong: after the last
// break both sides have the same records, to the byte.
func TestProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t, rapid.Uint64().Draw(r, "seed"))
		detail := resourcemodel.Full
		var of []string
		w.session()
		for range rapid.IntRange(1, 60).Draw(r, "happenings") {
			switch rapid.IntRange(0, 10).Draw(r, "what") {
			case 0, 1, 2, 3:
				k := site(rapid.IntRange(0, 40).Draw(r, "site"))
				k.Domain = rapid.SampledFrom([]string{"", "", "", "child", "stranger"}).Draw(r, "domain")
				w.change(k, rapid.IntRange(0, 4).Draw(r, "how"))
			case 4, 5:
				if err := w.e.Show(w.model, detail, of...); err != nil {
					r.Fatal(err)
				}
				w.to = append(w.to, w.e.Push()...)
			case 6, 7:
				w.deliver(rapid.IntRange(1, 10).Draw(r, "n"))
			case 8:
				w.session()
			case 9:
				detail = rapid.SampledFrom([]resourcemodel.Detail{resourcemodel.Full, resourcemodel.Categorized, resourcemodel.Simple, resourcemodel.None}).Draw(r, "detail")
				of = rapid.SampledFrom([][]string{nil, {"child"}}).Draw(r, "of")
			case 10:
				switch rapid.IntRange(0, 3).Draw(r, "damage") {
				case 0: // the exporter was started anew
					w.e = NewExporter(fmt.Sprintf("v%d", w.rng.Uint32()))
					w.damages++
					w.session()
				case 1: // the importer too
					w.i, w.there = NewImporter("north"), resourcemodel.Empty()
					w.session()
				default:
					w.damages++ // a record is wrong or missing
					w.damage(rapid.IntRange(1, 3).Draw(r, "sites"))
				}
			}
		}
		if err := w.e.Show(w.model, detail, of...); err != nil {
			r.Fatal(err)
		}
		w.to = append(w.to, w.e.Push()...)
		w.deliver(1000)
		w.to = append(w.to, w.e.Verify()...)
		w.deliver(1000)
		if err := w.agree(detail, of...); err != nil {
			r.Fatal(err)
		}
		// It did not come to that by asking for all again.
		if w.damages == 0 && w.compares > 0 || w.damages <= maxRepairs && w.fulls > 0 {
			r.Fatalf("%d damages: %d comparisons, and all was asked for again %d times", w.damages, w.compares, w.fulls)
		}
	})
}

// damage makes some of the importer's records wrong, in its own state and in the model.
func (w *world) damage(n int) {
	for name, s := range w.i.tree.sites {
		if n--; n < 0 {
			return
		}
		k := resourcemodel.Key{Domain: "north", Site: name}
		c := resourcemodel.Change{Key: k, Gone: true}
		if w.rng.IntN(2) == 0 {
			w.i.tree.set(name, nil)
		} else {
			d := w.dynamic(s.static)
			b, _ := d.Encode()
			next := *s
			next.dynamic, next.leaves[dynamic] = d, leaf(name, b)
			w.i.tree.set(name, &next)
			c = resourcemodel.Change{Key: k, Dynamic: d}
		}
		next, err := w.there.Apply(resourcemodel.Delta{Revision: w.there.Revision() + 1, At: start, Changes: []resourcemodel.Change{c}})
		if err != nil {
			w.t.Fatal(err)
		}
		w.there = next
	}
}

// full gives a world of n sites that both sides have, and the bytes that it took.
func full(t testing.TB, n int) (*world, int) {
	w := newWorld(t, 7)
	for k := range n {
		w.change(site(k), 1)
	}
	if err := w.e.Show(w.model, resourcemodel.Full); err != nil {
		t.Fatal(err)
	}
	w.session()
	w.deliver(10_000)
	if err := w.agree(resourcemodel.Full); err != nil {
		t.Fatal(err)
	}
	return w, w.bytes
}

// TestProportional: what is sent is by what changed, and not by what there is: for one
// change, for a break, for a break of which nobody has a log, and for a divergence.
func TestProportional(t *testing.T) {
	const sites = 800
	w, all := full(t, sites)
	spend := func(what string, most, messages int, do func()) {
		t.Helper()
		w.bytes, w.messages = 0, 0
		do()
		w.deliver(10_000)
		w.to = append(w.to, w.e.Verify()...)
		w.deliver(10_000)
		if err := w.agree(resourcemodel.Full); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		t.Logf("%s: %d bytes in %d messages; all %d sites are %d bytes", what, w.bytes, w.messages, sites, all)
		if w.bytes > most || w.messages > messages {
			t.Errorf("%s: %d bytes in %d messages, want at most %d in %d", what, w.bytes, w.messages, most, messages)
		}
	}
	show := func() {
		if err := w.e.Show(w.model, resourcemodel.Full); err != nil {
			t.Fatal(err)
		}
	}
	each := all / sites
	spend("one change", 2*each+600, 2, func() { w.change(site(3), 0); show(); w.to = append(w.to, w.e.Push()...) })
	spend("a site that changed a hundred times", 2*each+600, 2, func() {
		for range 100 {
			w.change(site(3), 0)
			show()
		}
		w.to = append(w.to, w.e.Push()...)
	})
	spend("a break in which 20 changed", 22*each+1200, 4, func() {
		for k := range 20 {
			w.change(site(k*7), 0)
		}
		show()
		w.session()
	})
	spend("a break without any change", 1200, 3, func() { w.session() })
	// By buckets: 8 bytes for each, in base64, and up to 8 sites of each that differs, more
	// where chance has it so.
	buckets := bucketsFor(sites)*wire.HashBytes*4/3*2 + 1200
	spend("an exporter that was started anew, with 3 that changed", 3*20*each+buckets, 6, func() {
		w.e = NewExporter("v2")
		for k := range 3 {
			w.change(site(k*11), 0)
		}
		show()
		w.session()
	})
	spend("five records that are wrong", 5*20*each+buckets, 4, func() { w.damage(5) })
}

// TestShow: at a coarser detail less is sent; what an aggregate does not show is not sent.
func TestShow(t *testing.T) {
	sizes := map[resourcemodel.Detail]int{}
	for _, detail := range []resourcemodel.Detail{resourcemodel.Full, resourcemodel.Categorized, resourcemodel.Simple, resourcemodel.None} {
		w := newWorld(t, 8)
		s := w.static()
		s.Shares, s.Environments = nil, nil
		for k := range 50 {
			id := fmt.Sprintf("e%02d", k)
			s.Environments = append(s.Environments, resourcemodel.Environment{ID: id, CPUArchitecture: "x86_64", CPUs: 16, Memory: int64(64+k%3) << 30})
			s.Shares = append(s.Shares, resourcemodel.Share{ID: "q" + id, Environments: []string{id}, Price: float64(k % 5)})
		}
		w.apply(resourcemodel.Change{Key: site(1), Static: s, Dynamic: w.dynamic(s)})
		if err := w.e.Show(w.model, detail); err != nil {
			t.Fatal(err)
		}
		w.session()
		w.deliver(100)
		if err := w.agree(detail); err != nil {
			t.Fatal(err)
		}
		sizes[detail] = w.bytes
		again := *s
		again.Version++
		w.apply(resourcemodel.Change{Key: site(1), Static: &again})
		if err := w.e.Show(w.model, detail); err != nil {
			t.Fatal(err)
		}
		if out := w.e.Push(); out != nil {
			t.Errorf("%s: what says the same is sent again: %+v", detail, out)
		}
	}
	t.Logf("%v", sizes)
	if !(sizes[resourcemodel.Full] > sizes[resourcemodel.Categorized] && sizes[resourcemodel.Categorized] > sizes[resourcemodel.Simple] && sizes[resourcemodel.Simple] > sizes[resourcemodel.None]) {
		t.Errorf("bytes by detail: %v", sizes)
	}
	w, _ := full(t, 3)
	w.e.Pull(&wire.Pull{Detail: wire.Simple})
	if err := w.e.Show(w.model, resourcemodel.Full); err != nil || w.e.detail != resourcemodel.Simple {
		t.Errorf("the importer has no use for %s: %v", w.e.detail, err)
	}
	w.e.Pull(&wire.Pull{})
	if err := w.e.Show(w.model, resourcemodel.Full); err != nil || w.e.detail != resourcemodel.Full {
		t.Errorf("the importer has use for all, and is shown %s: %v", w.e.detail, err)
	}
}

// TestHostile: what an exporter may not send changes nothing.
func TestHostile(t *testing.T) {
	w, _ := full(t, 5)
	good := w.e.tree.sites["s0001"]
	record, _ := good.static.Encode()
	state, _ := good.dynamic.Encode()
	_, revision, _, _ := w.i.State()
	base := wire.Resources{View: "v1", From: revision, To: revision + 1, Detail: wire.Full}
	for name, changes := range map[string][]wire.SiteChange{
		"no JSON":             {{Site: "x", Static: "{"}},
		"not canonical":       {{Site: "x", Static: " " + string(record)}},
		"twice":               {{Site: "x", Static: string(record)}, {Site: "x", Static: string(record)}},
		"a state alone":       {{Site: "x", Gone: true, Dynamic: string(state)}},
		"a state as the rest": {{Site: "x", Static: string(state)}},
	} {
		m := base
		m.Changes = changes
		c, a, err := w.i.Take(&m)
		if !fail.Is(err, fail.Invalid) || c != nil || a != nil {
			t.Errorf("%s: %v, %v, %v", name, c, a, err)
		}
	}
	if err := w.agree(resourcemodel.Full); err != nil {
		t.Error(err)
	}
	m := base
	m.From = revision + 5
	m.To = m.From
	for range 3 {
		c, a, err := w.i.Take(&m)
		if c != nil || err != nil || len(a) > 1 {
			t.Errorf("a revision that is not had: %v, %v, %v", c, a, err)
		}
		w.back = append(w.back, a...)
	}
	if len(w.back) != 1 {
		t.Errorf("%d pulls", len(w.back))
	}
	w.deliver(100)
	if err := w.agree(resourcemodel.Full); err != nil {
		t.Error(err)
	}
	if _, _, err := w.i.Take(&wire.Compare{}); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
	more := wire.Resources{View: "v9", To: 9, Detail: wire.Full, More: true, Changes: []wire.SiteChange{{Site: "x", Static: string(record)}}}
	w.i.MostSites = 3
	w.i.of, w.i.pending = &wire.Resources{View: "v9", To: 9}, make([]fresh, 2)
	if _, _, err := w.i.Take(&more); err != nil {
		t.Errorf("as many sites as may be: %v", err)
	}
	_, _, err := w.i.Take(&more)
	if !fail.Is(err, fail.Exhausted) {
		t.Errorf("sites without end: %v", err)
	}
	w.i.MostBytes, w.i.tree.bytes = 2*len(record), 0
	w.i.of, w.i.pending = &wire.Resources{View: "v9", To: 9}, []fresh{{size: 3 * len(record)}}
	if _, _, err = w.i.Take(&more); err != nil {
		t.Errorf("as many bytes as may be: %v", err)
	}
	w.i.of, w.i.pending = &wire.Resources{View: "v9", To: 9}, []fresh{{size: 3*len(record) + 1}}
	if _, _, err = w.i.Take(&more); !fail.Is(err, fail.Exhausted) {
		t.Errorf("bytes without end: %v", err)
	}
}

// TestAges: how old the values are reaches the importer.
func TestAges(t *testing.T) {
	w := newWorld(t, 9)
	for k := range 5 {
		w.change(site(k), 1)
	}
	at := map[string]time.Time{}
	for k := range 5 {
		at[site(k).Site] = start.Add(time.Duration(k) * time.Second)
	}
	at["s0002"] = start.Add(-time.Hour)
	w.e.Confirmed = func(k resourcemodel.Key) time.Time { return at[k.Site] }
	if err := w.e.Show(w.model, resourcemodel.Full); err != nil {
		t.Fatal(err)
	}
	w.session()
	w.deliver(100)
	for name, want := range at {
		if got := w.i.Confirmed(name); !got.Equal(want) {
			t.Errorf("%s is of %s, want %s", name, got, want)
		}
		if name != "s0002" {
			at[name] = want.Add(10 * time.Minute)
		}
	}
	w.to = append(w.to, w.e.Verify()...)
	w.deliver(10)
	for name, want := range at {
		if got := w.i.Confirmed(name); got.After(want) || got.Before(want.Add(-fresher)) {
			t.Errorf("%s is of %s, want %s", name, got, want)
		}
	}
}

// TestLog: changes that are no longer logged are told by all that there is, and a
// revision is never told in part.
func TestLog(t *testing.T) {
	w, _ := full(t, 4)
	w.e.log = make([]logged, maxLog)
	for k := range w.e.log {
		w.e.log[k] = logged{w.e.revision, "s0001", partDynamic}
	}
	w.change(site(2), 0)
	if err := w.e.Show(w.model, resourcemodel.Full); err != nil {
		t.Fatal(err)
	}
	if len(w.e.log) != 1 || w.e.logFrom != w.e.revision-1 {
		t.Errorf("%d changes after %d are logged; the revision is %d", len(w.e.log), w.e.logFrom, w.e.revision)
	}
	w.to = append(w.to, w.e.Push()...)
	w.deliver(10)
	w.to = append(w.to, w.e.Verify()...)
	w.deliver(10)
	if err := w.agree(resourcemodel.Full); err != nil || w.compares > 0 {
		t.Error(err, w.compares)
	}
	w.e.logFrom, w.e.log = w.e.revision, nil
	w.change(site(1), 0)
	if err := w.e.Show(w.model, resourcemodel.Full); err != nil {
		t.Fatal(err)
	}
	w.e.told = 1
	if out := w.e.Push(); len(out) != 1 || out[0].(*wire.Resources).From != 0 || len(out[0].(*wire.Resources).Changes) != 4 {
		t.Errorf("%+v", out)
	}
}

// TestUnshown: a site that can't be written is not shown, and told of.
func TestUnshown(t *testing.T) {
	w, _ := full(t, 3)
	s := *w.model.Site(site(1)).Static
	s.Version++
	for k := range 20_000 {
		s.Data = append(s.Data, resourcemodel.Data{Prefix: fmt.Sprint(k)})
	}
	next, err := w.model.Apply(resourcemodel.Delta{Revision: w.model.Revision() + 1, At: start, Changes: []resourcemodel.Change{{Key: site(1), Gone: true}}})
	if err != nil {
		t.Fatal(err)
	}
	w.model = next
	if p, err := w.e.show("s0001", &resourcemodel.Site{Key: site(1), Static: &s}); err == nil || p != whole {
		t.Errorf("%d, %v", p, err)
	}
	if len(w.e.tree.sites) != 2 {
		t.Errorf("%d sites", len(w.e.tree.sites))
	}
	quotas := []wire.Quota{{VO: "bio", MaxJobs: 3, Measured: start}}
	if _, _, err := w.i.Take(&wire.Quotas{List: quotas}); err != nil || len(w.i.Quotas()) != 1 {
		t.Error(err)
	}
}
