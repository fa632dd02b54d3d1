package exchange

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Bounds of what an exporter keeps and sends.
const (
	maxLog   = 1 << 16   // changes by which an importer can be told what is new since a revision
	maxChunk = 512 << 10 // bytes of one Resources, as a rule
)

// details are the words of the protocol for the model's.
var details = map[resourcemodel.Detail]wire.Detail{
	resourcemodel.Full: wire.Full, resourcemodel.Categorized: wire.Categorized, resourcemodel.Simple: wire.Simple, resourcemodel.None: wire.None,
}

// parts says what changed of a site.
type parts uint8

const (
	partStatic parts = 1 << iota
	partDynamic
	whole // it is new, or gone, or lost a part
)

type logged struct {
	revision uint64
	site     string
	parts    parts
}

// Exporter is what a domain shows to one peer. It is not safe for concurrent use.
type Exporter struct {
	// Confirmed tells when a site's source last gave a sign of life; may be nil.
	Confirmed func(resourcemodel.Key) time.Time

	view     string
	revision uint64
	told     uint64 // the revision that the importer has when it has read what was sent; 0: none yet
	pulled   bool
	detail   resourcemodel.Detail
	finest   resourcemodel.Detail // that the importer has use for
	source   *resourcemodel.Snapshot
	of       []string
	tree     tree
	keys     map[string]resourcemodel.Key
	log      []logged // in order of revisions, all after logFrom
	logFrom  uint64
}

// NewExporter gives one that shows nothing yet. View names its revisions; it was never
// used before with this peer, and keeps to wire.MaxID.
func NewExporter(view string) *Exporter {
	return &Exporter{view: view, revision: 1, logFrom: 1, source: resourcemodel.Empty(), detail: resourcemodel.None, tree: tree{sites: map[string]*shown{}}, keys: map[string]resourcemodel.Key{}}
}

// Show makes the view that of a snapshot, at a detail: our own sites, and those of the
// domains in of (a parent's children) as our own. It looks at what changed since the last
// snapshot. A site that can't be written as a record is not shown; the error tells of it.
func (e *Exporter) Show(s *resourcemodel.Snapshot, detail resourcemodel.Detail, of ...string) error {
	detail = max(detail, e.finest)
	var keys []resourcemodel.Key
	if detail == e.detail && slices.Equal(of, e.of) {
		for _, c := range resourcemodel.Diff(e.source, s).Changes {
			keys = append(keys, c.Key)
		}
	} else {
		seen := map[resourcemodel.Key]bool{}
		for _, k := range e.keys {
			seen[k] = true
		}
		for site := range s.Sites() {
			seen[site.Key] = true
		}
		keys = slices.SortedFunc(maps.Keys(seen), resourcemodel.Key.Compare)
	}
	e.source, e.detail, e.of = s, detail, slices.Clone(of)
	var errs []error
	next := e.revision + 1
	changed := false
	for _, k := range keys {
		name, ours := k.Site, k.Domain == ""
		if !ours {
			name, ours = k.Domain+resourcemodel.Via+k.Site, slices.Contains(of, k.Domain)
		}
		var site *resourcemodel.Site
		if ours && len(name) <= resourcemodel.MaxName {
			if site = s.Site(k); site != nil {
				site = resourcemodel.Aggregate(site, detail)
			}
		}
		p, err := e.show(name, site)
		if err != nil {
			errs = append(errs, err)
		}
		if p != 0 {
			e.keys[name] = k
			if site == nil {
				delete(e.keys, name)
			}
			e.log = append(e.log, logged{next, name, p})
			changed = true
		}
	}
	if changed {
		e.revision = next
	}
	if over := len(e.log) - maxLog; over > 0 {
		for over < len(e.log) && e.log[over].revision == e.log[over-1].revision {
			over++ // a revision is told whole
		}
		e.logFrom = e.log[over-1].revision
		e.log = slices.Clone(e.log[over:])
	}
	return errors.Join(errs...)
}

// show puts a site into the view, nil taking it away, and gives what changed by that. What
// says the same as before is no change: an aggregate often does.
func (e *Exporter) show(name string, site *resourcemodel.Site) (parts, error) {
	was := e.tree.sites[name]
	if site == nil || site.Static == nil {
		if was == nil {
			return 0, nil
		}
		e.tree.set(name, nil)
		return whole, nil
	}
	next := shown{static: site.Static, dynamic: site.Dynamic}
	var p parts
	gone := func(err error) (parts, error) {
		p, _ := e.show(name, nil)
		return p, err
	}
	if was != nil && (was.static == next.static || next.static.Same(was.static)) {
		next.static, next.leaves[static] = was.static, was.leaves[static]
	} else {
		b, err := next.static.Encode()
		if err != nil {
			return gone(err)
		}
		next.leaves[static] = leaf(name, b)
		p |= partStatic
	}
	switch {
	case next.dynamic == nil:
		if was != nil && was.dynamic != nil {
			p |= whole
		}
	case was != nil && was.dynamic != nil && (was.dynamic == next.dynamic || next.dynamic.Same(was.dynamic)):
		next.dynamic, next.leaves[dynamic] = was.dynamic, was.leaves[dynamic]
	default:
		b, err := next.dynamic.Encode()
		if err != nil {
			return gone(err)
		}
		next.leaves[dynamic] = leaf(name, b)
		p |= partDynamic
	}
	if was == nil {
		p |= whole
	}
	if p != 0 {
		e.tree.set(name, &next)
	}
	return p, nil
}

// Begin is for a new session: nothing is pushed until the importer pulled.
func (e *Exporter) Begin() { e.pulled = false }

// Revision gives that of the view, and that which the importer has when it has read all.
func (e *Exporter) Revision() (now, told uint64) { return e.revision, e.told }

// Wants notes the finest detail that the importer has use for, by its pull. It reports whether
// that is another than before, so that Show is to be called before Pull.
func (e *Exporter) Wants(m *wire.Pull) bool {
	was := e.finest
	e.finest = resourcemodel.Full
	for d, w := range details {
		if w == m.Detail {
			e.finest = d
		}
	}
	return e.finest != was
}

// Pull answers a pull, and pushes begin.
func (e *Exporter) Pull(m *wire.Pull) []wire.Message {
	e.Wants(m)
	e.pulled = true
	switch {
	case m.View == e.view && m.Revision >= e.logFrom && m.Revision <= e.revision:
		e.told = m.Revision
		return append(e.Push(), e.Verify()...)
	case m.View == "":
		e.told = 0
		return append(e.Push(), e.Verify()...)
	}
	// It has the state of another view, or an old one: most of it is still true.
	e.told = e.revision
	return e.Verify()
}

// Push gives what brings the importer to the view as it is now; nothing before its first
// pull, and where there is nothing new. What is not pushed adds up: a site that changed
// often is sent once. So there is to be room in the session for what comes; a view of
// 10,000 sites makes some 40 messages.
func (e *Exporter) Push() []wire.Message {
	if !e.pulled || e.told == e.revision {
		return nil
	}
	p := packer{e: e, from: e.told}
	if e.told < e.logFrom {
		p.from = 0
		for _, name := range slices.Sorted(maps.Keys(e.tree.sites)) {
			p.add(name, partStatic|partDynamic)
		}
	} else {
		changed := map[string]parts{}
		for _, l := range e.log {
			if l.revision > e.told {
				changed[l.site] |= l.parts
			}
		}
		for _, name := range slices.Sorted(maps.Keys(changed)) {
			p.add(name, changed[name])
		}
	}
	e.told = e.revision
	return p.messages()
}

// Verify gives the digests of what the importer has when it has read all that was sent;
// nothing before its first pull, and while something new is not pushed.
func (e *Exporter) Verify() []wire.Message {
	if !e.pulled || e.told != e.revision {
		return nil
	}
	d := &wire.Digests{
		View: e.view, Revision: e.revision, Sites: len(e.tree.sites),
		Static: slices.Clone(e.tree.roots[static][:]), Dynamic: slices.Clone(e.tree.roots[dynamic][:]),
	}
	if e.Confirmed != nil {
		e.ages(d)
	}
	return []wire.Message{d}
}

// fresher is how far behind the latest a site's confirmation is told with all others'.
const fresher = time.Minute

// ages tells when the sites were confirmed: one moment for most, and those that are behind.
func (e *Exporter) ages(d *wire.Digests) {
	var all []wire.Stale
	for name, k := range e.keys {
		if at := e.Confirmed(k); !at.IsZero() {
			all = append(all, wire.Stale{Site: name, Confirmed: at})
		}
	}
	if len(all) == 0 || len(all) < len(e.keys) {
		return // nothing is true of all
	}
	slices.SortFunc(all, func(a, b wire.Stale) int {
		return cmp.Or(a.Confirmed.Compare(b.Confirmed), strings.Compare(a.Site, b.Site))
	})
	limit := all[len(all)-1].Confirmed.Add(-fresher)
	n := 0
	for n < wire.MaxStale && all[n].Confirmed.Before(limit) {
		n++
	}
	d.Stale, d.Confirmed = all[:n:n], all[n].Confirmed
}

// Compare repairs what differs in an importer's state. What is new goes first.
func (e *Exporter) Compare(m *wire.Compare) []wire.Message {
	if m.View != e.view || !e.pulled {
		return nil // of an earlier session
	}
	out := e.Push()
	n := m.Buckets
	var wrong [categories][]bool
	for c, theirs := range [categories][]byte{m.Static, m.Dynamic} {
		wrong[c] = make([]bool, n)
		if len(theirs) > 0 {
			wrong[c] = differ(theirs, e.tree.buckets(c, n), n)
		}
	}
	p := packer{e: e, from: e.revision, buckets: n, repairs: make([]byte, (n+7)/8)}
	for i := range n {
		if wrong[static][i] || wrong[dynamic][i] {
			p.repairs[i/8] |= 0x80 >> (i % 8)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.tree.sites)) {
		i := bucketOf(name, n)
		switch s, d := wrong[static][i], wrong[dynamic][i]; {
		case s && d || d && e.tree.sites[name].dynamic == nil:
			p.add(name, whole)
		case s:
			p.add(name, partStatic)
		case d:
			p.add(name, partDynamic)
		}
	}
	return append(append(out, p.messages()...), e.Verify()...)
}

// packer puts changes into messages.
type packer struct {
	e       *Exporter
	from    uint64
	buckets int
	repairs []byte
	out     []*wire.Resources
	bytes   int
}

func (p *packer) add(name string, changed parts) {
	e := p.e
	c := wire.SiteChange{Site: name}
	s := e.tree.sites[name]
	if s == nil {
		c.Gone = true
	} else {
		c.Gone = changed&whole != 0
		if e.Confirmed != nil {
			c.Confirmed = e.Confirmed(e.keys[name])
		}
		if changed&(partStatic|whole) != 0 {
			b, _ := s.static.Encode() // it was encoded before
			c.Static = string(b)
		}
		if changed&(partDynamic|whole) != 0 && s.dynamic != nil {
			b, _ := s.dynamic.Encode()
			c.Dynamic = string(b)
		}
	}
	size := len(c.Site) + len(c.Static) + len(c.Dynamic) + 100
	if len(p.out) == 0 || p.bytes+size > maxChunk || len(p.out[len(p.out)-1].Changes) == wire.MaxChanges {
		p.next()
	}
	last := p.out[len(p.out)-1]
	last.Changes = append(last.Changes, c)
	p.bytes += size
}

func (p *packer) next() {
	p.bytes = 0
	p.out = append(p.out, &wire.Resources{
		View: p.e.view, From: p.from, To: p.e.revision, Detail: details[p.e.detail], Buckets: p.buckets, Repairs: p.repairs, More: true,
	})
}

func (p *packer) messages() []wire.Message {
	if len(p.out) == 0 {
		p.next()
	}
	out := make([]wire.Message, len(p.out))
	for i, m := range p.out {
		m.More = i < len(p.out)-1
		out[i] = m
	}
	return out
}
