package resourcemodel

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// worldGen makes sites that are often alike, and requests and objectives for them.
type worldGen struct{ chance }

func newWorldGen(seed, stream uint64) worldGen {
	return worldGen{chance{rand.New(rand.NewPCG(seed, stream))}}
}

// site puts together what chance.place makes.
func (g worldGen) site(k Key) *Site {
	s := &Site{Key: k, Static: &Static{Type: pick(g.chance, "slurm", "condor"), Policy: g.policy()}}
	dyn := &Dynamic{Up: !g.one(6), Shares: map[string]ShareState{}, Environments: map[string]EnvironmentState{}, Consumables: map[string]int64{}}
	var ids []string
	for i := range 1 + g.IntN(3) {
		w := g.place()
		e := *w.Environment
		e.ID = fmt.Sprintf("e%d", i)
		if g.one(2) {
			e.Features = someOf(modelGen{g.Rand}, "avx", "ib")
		}
		if g.one(3) {
			e.Benchmarks = map[string]float64{pick(g.chance, "hs06", "linpack"): float64(g.IntN(6)) / 2}
		}
		s.Static.Environments = append(s.Static.Environments, e)
		ids = append(ids, e.ID)
		if state, ok := w.Site.Dynamic.Environments["e"]; ok && !g.one(9) {
			if g.one(9) {
				best := possible(state)
				best.FreeCPUs /= 2
				state.Best = &best
			}
			dyn.Environments[e.ID] = possible(state)
		}
		if s.Static.Consumables == nil && w.Site.Static.Consumables != nil {
			s.Static.Consumables, dyn.Consumables = w.Site.Static.Consumables, w.Site.Dynamic.Consumables
		}
		s.Static.Labels = append(s.Static.Labels, w.Site.Static.Labels...)
	}
	for i := range 1 + g.IntN(3) {
		w := g.place()
		h := *w.Share
		h.ID = pick(g.chance, "s", "t", "u")
		if s.Static.Share(h.ID) != nil {
			h.ID = fmt.Sprintf("q%d", i)
		}
		h.Environments = someOf(modelGen{g.Rand}, ids...)
		h.Price = float64(g.IntN(4)) / 4
		if g.one(5) { // merged of several
			h.Span = &ShareSpan{IDs: []string{h.ID, pick(g.chance, "s", "t", "u")}}
			slices.Sort(h.Span.IDs)
		}
		if g.one(15) {
			h.MaxWallTime = 300 * time.Millisecond
		}
		s.Static.Shares = append(s.Static.Shares, h)
		if state, ok := w.Site.Dynamic.Shares["s"]; ok {
			state.Running, state.Waiting = g.IntN(4), g.IntN(3)
			if g.one(6) {
				state.Forecast = time.Duration(g.IntN(5)) * time.Second
			}
			if g.one(20) {
				state.Running = 1 << 40
			}
			dyn.Shares[h.ID] = state
		}
	}
	if !g.one(10) {
		s.Dynamic = dyn
	}
	return s
}

// shift gives another dynamic part for the site.
func (g worldGen) shift(s *Site) *Dynamic {
	d := Dynamic{Up: true, Stamp: Stamp{Version: g.Uint64()}}
	if was := s.Dynamic; was != nil {
		d = *was
		d.Version = g.Uint64()
	}
	d.Shares, d.Environments = maps.Clone(d.Shares), maps.Clone(d.Environments)
	if d.Shares == nil {
		d.Shares, d.Environments = map[string]ShareState{}, map[string]EnvironmentState{}
	}
	switch g.IntN(6) {
	case 0:
		d.Up = !d.Up
	case 1:
		d.Consumables = map[string]int64{"m": int64(g.IntN(4))}
	case 2, 3:
		h := pick(g.chance, s.Static.Shares...)
		state := d.Shares[h.ID]
		state.Open, state.FreeSlots, state.Running = !g.one(5), g.IntN(5), g.IntN(5)
		d.Shares[h.ID] = state
	default:
		e := pick(g.chance, s.Static.Environments...)
		state := d.Environments[e.ID]
		if g.one(5) {
			state.Nodes = g.IntN(5)
		}
		if g.one(9) {
			state.Best = nil
		}
		state.Available, state.FreeCPUs, state.FreeMemory = g.IntN(5), g.IntN(20), int64(g.IntN(20))
		state.FreeNodes, state.FreeGPUs = g.IntN(3), g.IntN(3)
		d.Environments[e.ID] = possible(state)
	}
	return &d
}

// possible has no more nodes free than there are.
func possible(s EnvironmentState) EnvironmentState {
	s.Nodes = max(s.Nodes, s.Available, s.FreeNodes)
	return s
}

func (g worldGen) criterion(hard bool) jsdl.Criterion {
	a := pick(g.chance, attributes...)
	c := jsdl.Criterion{Name: a.Name, Type: string(a.Type), Hard: hard, Priority: 1 + g.IntN(200)}
	if a.Argument() {
		c.Name += pick(g.chance, "hs06", "linpack", "m", "n", "k")
	}
	number := func() string {
		if a.Type == Duration {
			return "PT" + strconv.Itoa(g.IntN(6)) + "S"
		}
		if a.Type == Integer {
			return strconv.Itoa(g.IntN(9) - 1)
		}
		return strconv.FormatFloat(float64(g.IntN(16))/2-1, 'g', -1, 64)
	}
	switch {
	case a.Type == Boolean:
		c.Operator, c.Value = pick(g.chance, "eq", "ne"), pick(g.chance, "true", "false")
	case a.Type == String:
		c.Operator = pick(g.chance, "eq", "ne", "contains", "in")
		c.Value = pick(g.chance, "LINUX", "x86_64", "slurm", "s", "1", "avx", "site001", "e0")
	default:
		c.Operator, c.Value = pick(g.chance, "eq", "ne", "lt", "le", "gt", "ge", "in"), number()
		if !hard && g.one(2) {
			c.Operator, c.Value = pick(g.chance, "min", "max"), ""
		}
	}
	return c
}

func (g worldGen) request() *Request {
	for {
		def := g.definition()
		criteria := new(jsdl.Criteria)
		for range g.IntN(3) {
			if g.one(2) {
				criteria.List = append(criteria.List, g.criterion(true))
			}
		}
		for range g.IntN(4) {
			criteria.List = append(criteria.List, g.criterion(false))
		}
		if g.one(2) { // ask for little
			def.Description.Resources = &jsdl.Resources{TotalCPUCount: &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: float64(1 + g.IntN(3))}}}}
		}
		if r, err := CompileWith(def, g.subject(), criteria); err == nil {
			return r
		}
	}
}

func (g worldGen) objective() *Objective {
	if g.one(3) {
		return nil
	}
	terms := func() []Term {
		var out []Term
		for range g.IntN(3) {
			out = append(out, Term{
				Attribute: pick(g.chance, "FreeCPUs", "Price", "Load", "FreeMemory", "MaxWallTime", "Memory", Room, "FreeSlots", "Benchmark:hs06"),
				Weight:    float64(g.IntN(9)-4) / 3, Unknown: float64(g.IntN(3)),
			})
		}
		return out
	}
	o, err := NewObjective(pick(g.chance, 0, 0, 20), terms(), terms())
	if err != nil {
		panic(err)
	}
	return o
}

func (g worldGen) derived() Derived {
	d := Derived{Now: noon}
	if g.one(3) {
		d.Wait = func(p Place, _ *Need) (time.Duration, bool) {
			return time.Duration(len(p.String())%7) * time.Second, p.Share != "t"
		}
	}
	if g.one(3) {
		d.SuccessRate = func(p Place) (float64, bool) { return float64(len(p.Environment)%3) / 2, true }
	}
	return d
}

// naiveIndex does what an Index does by looking at every place. What is taken is a list.
type naiveIndex struct {
	snap  *Snapshot
	taken map[Key][]naiveTaken
}

type naiveTaken struct {
	place Place
	need  Need
}

// site takes off what was taken, number by number.
func (n *naiveIndex) site(s *Site) *Site {
	if s.Dynamic == nil || len(n.taken[s.Key]) == 0 {
		return s
	}
	d := *s.Dynamic
	d.Shares, d.Environments, d.Consumables = maps.Clone(d.Shares), maps.Clone(d.Environments), maps.Clone(d.Consumables)
	down := func(have, by int) int { return max(have-by, 0) }
	for _, t := range n.taken[s.Key] {
		if h, ok := d.Shares[t.place.Share]; ok {
			h.FreeSlots = down(h.FreeSlots, t.need.Slots)
			if h.Consumables = maps.Clone(h.Consumables); h.Consumables != nil {
				for name, c := range t.need.Consumables {
					if have, ok := h.Consumables[name]; ok {
						h.Consumables[name] = max(have-c, 0)
					}
				}
			}
			d.Shares[t.place.Share] = h
		}
		if e, ok := d.Environments[t.place.Environment]; ok {
			e.FreeCPUs = down(e.FreeCPUs, t.need.CPUs)
			if e.FreeMemory > 0 && t.need.Memory > 0 {
				e.FreeMemory = max(e.FreeMemory-t.need.Memory, 1)
			}
			if e.FreeGPUs > 0 && t.need.GPUs > 0 {
				e.FreeGPUs = max(e.FreeGPUs-t.need.GPUs, 1)
			}
			if t.need.Exclusive {
				e.FreeNodes = down(e.FreeNodes, max(t.need.Hosts, 1))
			}
			d.Environments[t.place.Environment] = e
		}
		for name, c := range t.need.Consumables {
			if have, ok := d.Consumables[name]; ok {
				d.Consumables[name] = max(have-c, 0)
			}
		}
	}
	return &Site{Key: s.Key, Static: s.Static, Dynamic: &d}
}

func (n *naiveIndex) places() []Where {
	var out []Where
	for s := range n.snap.Sites() {
		for w := range n.site(s).Places() {
			out = append(out, w)
		}
	}
	return out
}

type naiveWinner struct {
	place Place
	mark  Mark
}

// top sorts all places that can start the request.
func (n *naiveIndex) top(r *Request, o *Objective, d Derived, skip func(Place) bool) []naiveWinner {
	var cands []Where
	for _, w := range n.places() {
		if r.Starts(w, d) {
			cands = append(cands, w)
		}
	}
	soft := r.SoftScore(cands, d)
	var out []naiveWinner
	for i, w := range cands {
		m := Mark{Soft: soft[i]}
		if o != nil {
			if o.Steps > 0 && len(r.Soft) > 0 {
				m.Soft = math.Floor(m.Soft*float64(o.Steps) + 1e-9)
			}
			var p at
			p.set(w, r, &d)
			sum := func(list []term) float64 {
				all := 0.0
				for _, t := range list {
					v := t.Unknown
					if t.Attribute == Room {
						v = float64(r.Room(w, d))
					} else if x, ok := t.attribute.number(&p, t.argument); ok {
						v = x
					}
					all += t.Weight * min(v, MaxNumber)
				}
				return all
			}
			m.Sum, m.Then = sum(o.terms[0]), sum(o.terms[1])
		}
		if skip == nil || !skip(w.Place()) {
			out = append(out, naiveWinner{w.Place(), m})
		}
	}
	slices.SortStableFunc(out, func(a, b naiveWinner) int {
		return cmp.Or(cmp.Compare(b.mark.Soft, a.mark.Soft), cmp.Compare(b.mark.Sum, a.mark.Sum), cmp.Compare(b.mark.Then, a.mark.Then))
	})
	return out
}

// both are an Index and a naive one that are told the same.
type both struct {
	*testing.T
	worldGen
	index  *Index
	naive  naiveIndex
	keys   []Key
	taken  []naiveTaken
	placed int
}

func newBoth(t *testing.T, seed uint64, sites int) *both {
	b := &both{T: t, worldGen: newWorldGen(seed, 77)}
	b.naive = naiveIndex{snap: Empty(), taken: map[Key][]naiveTaken{}}
	d := Delta{Revision: 1, At: noon}
	for i := range sites {
		k := Key{Site: fmt.Sprintf("site%03d", i*2)}
		if b.one(4) {
			k.Domain = "other"
		}
		s := b.site(k)
		b.keys = append(b.keys, k)
		d.Changes = append(d.Changes, Change{Key: k, Static: s.Static, Dynamic: s.Dynamic})
	}
	b.naive.snap = b.must(b.naive.snap.Apply(d))
	b.index = NewIndex(b.naive.snap)
	return b
}

func (b *both) must(s *Snapshot, err error) *Snapshot {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// change makes one random change, and gives the places that it touched.
func (b *both) change() []PlaceID {
	b.Helper()
	snap := b.naive.snap
	d := Delta{Revision: snap.Revision() + 1, At: noon}
	k := pick(b.chance, b.keys...)
	switch site := snap.Site(k); b.IntN(12) {
	case 0: // one more
		k = Key{Domain: pick(b.chance, "", "other"), Site: fmt.Sprintf("site%03d", b.IntN(2*len(b.keys)+4))}
		s := b.site(k)
		if !slices.Contains(b.keys, k) {
			b.keys = append(b.keys, k)
		}
		d.Changes = []Change{{Key: k, Static: s.Static, Dynamic: s.Dynamic}}
	case 1:
		d.Changes = []Change{{Key: k, Gone: true}}
	case 2: // other limits, the same parts or not
		if site == nil {
			return nil
		}
		static := *site.Static
		static.Shares = slices.Clone(static.Shares)
		static.Shares[0].MaxCPUs = b.IntN(9)
		if b.one(2) && len(static.Shares) > 1 {
			static.Shares = static.Shares[1:]
		}
		d.Changes = []Change{{Key: k, Static: &static}}
	case 3, 4, 5: // take
		if len(b.index.Of(nil, k)) == 0 {
			return nil
		}
		t := naiveTaken{b.index.Place(pick(b.chance, b.index.Of(nil, k)...)), b.request().Need}
		if b.one(9) {
			t.place.Environment = "elsewhere"
		}
		b.taken, b.naive.taken[k] = append(b.taken, t), append(b.naive.taken[k], t)
		return b.index.TakeAt(nil, t.place, &t.need)
	case 6, 7, 8: // give
		if len(b.taken) == 0 {
			return nil
		}
		i := b.IntN(len(b.taken))
		t := b.taken[i]
		b.taken = slices.Delete(b.taken, i, i+1)
		list := b.naive.taken[t.place.Key]
		at := slices.IndexFunc(list, func(o naiveTaken) bool { return o.place == t.place && fmt.Sprint(o.need) == fmt.Sprint(t.need) })
		b.naive.taken[t.place.Key] = slices.Delete(list, at, at+1)
		return b.index.GiveAt(nil, t.place, &t.need)
	default:
		if site == nil {
			return nil
		}
		d.Changes = []Change{{Key: k, Dynamic: b.shift(site)}}
	}
	b.naive.snap = b.must(snap.Apply(d))
	touched, err := b.index.Apply(d)
	if err != nil {
		b.Fatal(err)
	}
	return touched
}

// compare asks both the same.
func (b *both) compare(r *Request, o *Objective, d Derived) {
	b.Helper()
	var skip func(Place) bool
	var skipID func(PlaceID) bool
	if b.one(4) {
		skip = func(p Place) bool { return len(p.Site)%2 == 0 && p.Share == "s" }
		skipID = func(id PlaceID) bool { return skip(b.index.Place(id)) }
	}
	want := b.naive.top(r, o, d, skip)
	most := 1 + b.IntN(5)
	got := b.index.Top(nil, r, o, d, most, skipID)
	want = want[:min(most, len(want))]
	if len(want) != len(got) {
		b.Fatalf("%d winners, and looking at all places gives %d: %v, %v", len(got), len(want), got, want)
	}
	for i := range got {
		if p := b.index.Place(got[i].Place); p != want[i].place || got[i].Mark != want[i].mark {
			b.Fatalf("winner %d is %s with %+v, and looking at all places gives %s with %+v", i, p, got[i].Mark, want[i].place, want[i].mark)
		}
	}
	if len(got) > 0 {
		b.placed++
	}
	var could []Place
	for _, w := range b.naive.places() {
		if r.Fits(w, d) {
			could = append(could, w.Place())
		}
	}
	var names []Place
	for _, id := range b.index.Candidates(nil, r, d) {
		names = append(names, b.index.Place(id))
	}
	if !slices.Equal(names, could) {
		b.Fatalf("candidates %v, and looking at all places gives %v", names, could)
	}
	if len(got) > 0 {
		if room, want := b.index.Room(got[0].Place, r, d), r.Room(b.index.Where(got[0].Place), d); room != want {
			b.Fatalf("room for %d, and Request.Room says %d", room, want)
		}
	}
}

// check compares everything that an Index remembers with what it would work out anew.
func (b *both) check() {
	b.Helper()
	x := b.index
	at := 0
	ids := slices.Collect(x.All())
	for _, w := range b.naive.places() {
		if at == len(ids) || x.Place(ids[at]) != w.Place() {
			b.Fatalf("place %d of All is not %s", at, w.Place())
		}
		have := x.Where(ids[at])
		if !have.Site.Static.Same(w.Site.Static) || !sameStanding(have, w) {
			b.Fatalf("%s stands as %+v, and it is %+v", w.Place(), have.Site.Dynamic, w.Site.Dynamic)
		}
		if id, ok := x.Find(w.Place()); !ok || id != ids[at] {
			b.Fatalf("%s is not found", w.Place())
		}
		at++
	}
	if at != len(ids) || x.Len() != at {
		b.Fatalf("%d places, and All has %d, Len %d", at, len(ids), x.Len())
	}
	if err := x.consistent(); err != nil {
		b.Fatal(err)
	}
}

// sameStanding reports whether two stand alike. What the model says of shares that the site
// does not have is not asked.
func sameStanding(a, b Where) bool {
	if a.Site.Dynamic == nil || b.Site.Dynamic == nil {
		return a.Site.Dynamic == b.Site.Dynamic
	}
	h, ok := a.Site.Dynamic.Share(a.Share.ID)
	i, also := b.Site.Dynamic.Share(b.Share.ID)
	e, counted := a.Site.Dynamic.Environment(a.Environment.ID)
	f, alike := b.Site.Dynamic.Environment(b.Environment.ID)
	return a.Site.Dynamic.Up == b.Site.Dynamic.Up && maps.Equal(a.Site.Dynamic.Consumables, b.Site.Dynamic.Consumables) &&
		ok == also && sameShareState(h, i) && counted == alike && sameEnvironmentState(e, f)
}

// consistent reports what the columns have otherwise than the places.
func (x *Index) consistent() error {
	g := &x.grid
	rows := 0
	for row, id := range g.ids {
		b, bit := row>>blockBits, uint64(1)<<(row%blockRows)
		if id == noPlace {
			if g.masks[b].used&bit != 0 || g.masks[b].startup&bit != 0 {
				return fmt.Errorf("the hole %d is in use", row)
			}
			continue
		}
		rows++
		if g.masks[b].used&bit == 0 || x.places.list[id].row != uint32(row) {
			return fmt.Errorf("row %d of place %d is not in use", row, id)
		}
		var p at
		x.load(id, &p)
		if up := p.Site.Dynamic != nil && p.Site.Dynamic.Up && p.state.Open; up != (g.masks[b].startup&bit != 0) {
			return fmt.Errorf("row %d takes jobs: %v", row, up)
		}
		for e := merged; e < excepts; e++ {
			if e.holds(&p) != (g.masks[b].excepted[e]&bit != 0) {
				return fmt.Errorf("row %d and exception %d", row, e)
			}
		}
		for _, c := range g.columns {
			k := codeUnknown
			if v, ok := c.value(&p); ok {
				k = codeOf(v)
			}
			if have := g.code(uint32(row), c); have != k {
				return fmt.Errorf("%s of row %d is %d, not %d", c.attribute.Name, row, have, k)
			}
		}
		for _, c := range g.words {
			if c.codes[row] != c.code(g, &p) {
				return fmt.Errorf("%s of row %d", c.attribute, row)
			}
		}
	}
	if rows != x.Len() {
		return fmt.Errorf("%d rows, and %d are counted", rows, x.Len())
	}
	for b := range g.masks {
		least := uint64(math.MaxUint64)
		bounds := make([]bounds, len(g.columns))
		for i := range bounds {
			bounds[i].interval = nowhere
		}
		for i := range blockRows {
			id := g.ids[b<<blockBits|i]
			if id == noPlace {
				continue
			}
			least = min(least, x.order(id))
			var p at
			x.load(id, &p)
			for j, c := range g.columns {
				if v, ok := c.value(&p); ok {
					bounds[j].least, bounds[j].most = min(bounds[j].least, v), max(bounds[j].most, v)
				} else {
					bounds[j].unknown = true
				}
				bounds[j].unknown = bounds[j].unknown || c.except.holds(&p)
			}
		}
		if g.orders[0][b] > least {
			return fmt.Errorf("block %d begins at %d, and says %d", b, least, g.orders[0][b])
		}
		if g.accepts[0][b] != (g.masks[b].startup != 0) {
			return fmt.Errorf("block %d takes jobs or not", b)
		}
		for j, c := range g.columns {
			if z := &g.zones[0]; z.of(uint32(b), c) != bounds[j].interval || z.unsure(uint32(b), c) != bounds[j].unknown {
				return fmt.Errorf("%s of block %d is %v, %v, not %+v", c.attribute.Name, b, z.of(uint32(b), c), z.unsure(uint32(b), c), bounds[j])
			}
		}
	}
	for level := 1; level < g.levels(); level++ {
		for part := range uint32(len(g.orders[level])) {
			from, to := part<<fanBits, min((part+1)<<fanBits, uint32(len(g.orders[level-1])))
			if g.orders[level][part] > slices.Min(g.orders[level-1][from:to]) || g.accepts[level][part] != slices.Contains(g.accepts[level-1][from:to], true) {
				return fmt.Errorf("group %d of level %d", part, level)
			}
			for _, c := range g.columns {
				if c.sum(g, level, part) {
					return fmt.Errorf("%s of group %d of level %d", c.attribute.Name, part, level)
				}
			}
			for _, c := range g.words {
				was := c.zones[level][part]
				if c.sum(level, part); c.zones[level][part] != was {
					return fmt.Errorf("%s of group %d of level %d", c.attribute, part, level)
				}
			}
		}
	}
	return nil
}

// After every change all that the index remembers is as if it were made anew.
func TestIndexRemembers(t *testing.T) {
	worlds, steps := 200, 200
	if testing.Short() {
		worlds, steps = 30, 100
	}
	for seed := range worlds {
		b := newBoth(t, uint64(seed), 1+seed%5)
		for range steps {
			b.change()
			b.check()
		}
	}
}

// The groups of groups that come with many places are made one after the other, and all at once.
func TestIndexGrows(t *testing.T) {
	sites := 1500
	if testing.Short() {
		sites = 700
	}
	b := newBoth(t, 5, 1)
	for i := range sites {
		k := Key{Site: fmt.Sprintf("more%04d", b.IntN(9999))}
		s := b.site(k)
		d := Delta{Revision: b.naive.snap.Revision() + 1, Changes: []Change{{Key: k, Static: s.Static, Dynamic: s.Dynamic}}}
		b.naive.snap = b.must(b.naive.snap.Apply(d))
		if _, err := b.index.Apply(d); err != nil {
			t.Fatal(err)
		}
		b.keys = append(b.keys, k)
		if i%(sites/8) == 0 {
			b.check()
			b.compare(b.request(), b.objective(), b.derived())
		}
	}
	for range 2 {
		if b.index.grid.levels() < 2 {
			t.Fatalf("%d places are in one group", b.index.Len())
		}
		for range 30 {
			b.change()
			b.compare(b.request(), b.objective(), b.derived())
		}
		b.check()
		b.index.Arrange()
		b.check()
	}
	snap := b.naive.snap
	for len(b.keys) > 0 { // and go again
		d := Delta{Revision: snap.Revision() + 1}
		n := min(len(b.keys), 200)
		for _, k := range b.keys[:n] {
			d.Changes = append(d.Changes, Change{Key: k, Gone: true})
		}
		b.keys = b.keys[n:]
		snap = b.must(snap.Apply(d))
		if _, err := b.index.Apply(d); err != nil {
			t.Fatal(err)
		}
		b.naive.snap = snap
		b.check()
	}
	if _, ok := b.index.Best(b.request(), nil, Derived{Now: noon}, nil); ok || b.index.Len() != 0 {
		t.Error("no site is left, and one wins")
	}
}

// Among places of which no two are alike the index finds the winner of a plain scan.
func TestIndexFindsTheWinner(t *testing.T) {
	places, queries := 8000, 100_000
	if testing.Short() {
		places, queries = 3000, 10_000
	}
	snap, table := unlike(t, places, 2)
	x := NewIndex(snap)
	rng := rand.New(rand.NewPCG(8, 8))
	won, looked := 0, Looked{}
	for i := range queries {
		q := newQuery(t, rng, i%2 == 0)
		w, ok := x.Best(q.request, q.objective, Derived{Now: noon}, nil)
		at := q.scan(table)
		if ok != (at >= 0) || ok && x.Place(w.Place).Site != siteName(at) {
			t.Fatalf("query %d: the index finds %+v, and the scan place %d", i, w, at)
		}
		if ok {
			won++
		}
		looked.add(x.Looked())
	}
	t.Logf("%d queries, %d with a winner; each looked at %d of %d places", queries, won, looked.Rows/queries, places)
	if won < queries/3 || looked.Rows/queries > places/50 {
		t.Errorf("of %d queries %d had a winner, and each looked at %d places", queries, won, looked.Rows/queries)
	}
}

// Helped names those that can start after a change and could not before, no more and no
// fewer; and Audit finds a change that Helped was not told of.
func TestIndexHelped(t *testing.T) {
	worlds, steps := 60, 150
	if testing.Short() {
		worlds, steps = 15, 80
	}
	waited, helped, missed := 0, 0, 0
	for seed := range worlds {
		b := newBoth(t, uint64(seed), 1+seed%12)
		d := b.derived()
		asleep := map[ClassID]*Request{}
		can := func(r *Request) bool {
			return slices.ContainsFunc(b.naive.places(), func(w Where) bool { return r.Starts(w, d) })
		}
		for range steps {
			for range 4 {
				if r := b.request(); len(asleep) < 40 && !can(r) {
					asleep[b.index.Register(r)] = r
					waited++
				}
			}
			touched := b.change()
			var want []ClassID
			for id, r := range asleep {
				if can(r) {
					want = append(want, id)
				}
			}
			slices.Sort(want)
			if len(want) > 0 && b.one(3) {
				untimed := slices.ContainsFunc(want, func(id ClassID) bool { return !b.index.waiting.all[id].timed })
				if err := b.index.Audit(d); (err != nil) != untimed {
					b.Fatalf("%v are helped, and nothing told of it; the audit says: %v", want, err)
				}
				missed++
			}
			got := b.index.Helped(nil, touched, d)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				b.Fatalf("helped %v, and looking at all places gives %v", got, want)
			}
			if err := b.index.Audit(d); err != nil {
				b.Fatal(err)
			}
			for _, id := range got {
				b.index.Unregister(id)
				delete(asleep, id)
				helped++
			}
			if b.one(20) {
				id := slices.Min(append(slices.Collect(maps.Keys(asleep)), math.MaxUint32))
				b.index.Unregister(id)
				delete(asleep, id)
			}
			if b.index.Registered() != len(asleep) {
				b.Fatalf("%d are registered, not %d", b.index.Registered(), len(asleep))
			}
		}
	}
	t.Logf("%d waited, %d were helped; %d audits found a change that was kept back", waited, helped, missed)
	if helped < waited/20 || missed < helped/20 {
		t.Errorf("of %d that waited %d were helped, and %d audits had something to find", waited, helped, missed)
	}
}

// The index answers what looking at every place answers, whatever happens.
func TestIndexAnswersLikeAllPlaces(t *testing.T) {
	worlds, steps := 60, 60
	if testing.Short() {
		worlds, steps = 12, 40
	}
	queries, placed := 0, 0
	for seed := range worlds {
		b := newBoth(t, uint64(seed), 1+seed%60*3)
		for range steps {
			for range b.IntN(4) {
				b.change()
			}
			for range 3 {
				b.compare(b.request(), b.objective(), b.derived())
				queries++
			}
			if b.one(10) {
				b.check()
			}
			if b.one(25) {
				b.index.Arrange()
				b.check()
			}
		}
		b.check()
		placed += b.placed
	}
	t.Logf("%d queries, %d of them with a winner", queries, placed)
	if placed < queries/5 {
		t.Errorf("of %d queries only %d had a winner", queries, placed)
	}
}
