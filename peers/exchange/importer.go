package exchange

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

const (
	// MaxSites is how many sites one domain may show, where nothing else is said.
	MaxSites = 100_000
	// MaxBytes is how many bytes of records one domain may show, likewise.
	MaxBytes = 256 << 20
	// maxRepairs is how often a repair is tried before all is asked for again.
	maxRepairs = 3
)

// fresh is a change that was checked.
type fresh struct {
	site      string
	gone      bool
	confirmed time.Time
	static    *resourcemodel.Static
	dynamic   *resourcemodel.Dynamic
	leaves    [categories]digest
	size      int // bytes of both records

	staticBytes int
}

// Importer is what a peer showed of its resources. It is not safe for concurrent use.
type Importer struct {
	// MostSites and MostBytes are how much the domain may show; they may be changed at any time.
	MostSites, MostBytes int

	domain    string
	view      string
	revision  uint64
	tree      tree
	confirmed map[string]time.Time
	quotas    []wire.Quota
	pending   []fresh         // of a revision that is not whole
	of        *wire.Resources // its first message, without the changes
	repairs   int
	agreed    bool
	pulling   bool // a pull was sent, and what comes of before it is not heeded
}

// NewImporter gives one that has nothing, of a peer that speaks for the domain.
func NewImporter(domain string) *Importer {
	return &Importer{MostSites: MaxSites, MostBytes: MaxBytes, domain: domain, tree: tree{sites: map[string]*shown{}}, confirmed: map[string]time.Time{}}
}

// Seed begins with sites that the domain showed in an earlier life of this gateway, under a
// view that is nobody's: the exporter compares them by digests, and only what differs is
// told anew. One that can't be written as a record is left out.
func (i *Importer) Seed(sites []*resourcemodel.Site) {
	for _, s := range sites {
		if s.Static == nil || s.Domain != i.domain {
			continue
		}
		next := shown{static: s.Static, dynamic: s.Dynamic}
		b, err := s.Static.Encode()
		if err != nil {
			continue
		}
		next.leaves[static], next.bytes[static] = leaf(s.Site, b), len(b)
		if s.Dynamic != nil {
			if b, err = s.Dynamic.Encode(); err != nil {
				continue
			}
			next.leaves[dynamic], next.bytes[dynamic] = leaf(s.Site, b), len(b)
		}
		i.tree.set(s.Site, &next)
	}
	if len(i.tree.sites) > 0 {
		i.view, i.revision = "before", 1
	}
}

// Digests gives those of the categories as they are here.
func (i *Importer) Digests() (static, dynamic [32]byte) { return i.tree.roots[0], i.tree.roots[1] }

// Pull gives what to send when a session begins.
func (i *Importer) Pull() *wire.Pull {
	i.pending, i.of, i.repairs, i.agreed = nil, nil, 0, false
	return &wire.Pull{View: i.view, Revision: i.revision}
}

// State tells which state is had, and whether it is known to be the exporter's.
func (i *Importer) State() (view string, revision uint64, sites int, agreed bool) {
	return i.view, i.revision, len(i.tree.sites), i.agreed
}

// Confirmed tells when a site's source last gave a sign of life, by the exporter's clock;
// zero where it did not say.
func (i *Importer) Confirmed(site string) time.Time { return i.confirmed[site] }

// Quotas gives what our VOs may use there and use.
func (i *Importer) Quotas() []wire.Quota { return i.quotas }

// Take takes a message of the exporter, and gives what changes in the model by it and
// what to answer. Its error is fail.Invalid or fail.Exhausted: the exporter broke the
// protocol, nothing changed, and the session is at its end.
func (i *Importer) Take(m wire.Message) (changes []resourcemodel.Change, answers []wire.Message, err error) {
	switch m := m.(type) {
	case *wire.Resources:
		return i.resources(m)
	case *wire.Digests:
		return nil, i.digests(m), nil
	case *wire.Quotas:
		i.quotas = m.List
		return nil, nil, nil
	}
	return nil, nil, fail.Errorf("exchange.Take", fail.Invalid, i.domain, "an exporter does not send %T", m)
}

func (i *Importer) resources(m *wire.Resources) ([]resourcemodel.Change, []wire.Message, error) {
	fits := m.From == 0 || m.View == i.view && m.From == i.revision
	if i.of != nil {
		fits = m.View == i.of.View && m.From == i.of.From && m.To == i.of.To && m.Buckets == i.of.Buckets && slices.Equal(m.Repairs, i.of.Repairs)
	}
	if !fits {
		i.pending, i.of = nil, nil
		if i.pulling {
			return nil, nil, nil
		}
		i.pulling = true
		return nil, []wire.Message{i.Pull()}, nil
	}
	i.pulling = false
	if len(i.pending)+len(m.Changes) > 2*i.MostSites || m.From == 0 && len(i.pending)+len(m.Changes) > i.MostSites { // a revision may take away as many as it brings
		return nil, nil, fail.Errorf("exchange.Take", fail.Exhausted, i.domain, "the domain shows more than %d sites: show fewer, or less of them", i.MostSites)
	}
	bytes := i.tree.bytes
	for _, f := range i.pending {
		bytes += f.size
	}
	for k := range m.Changes {
		bytes += len(m.Changes[k].Static) + len(m.Changes[k].Dynamic)
	}
	if bytes > 2*i.MostBytes { // what is told anew is there beside what was
		return nil, nil, fail.Errorf("exchange.Take", fail.Exhausted, i.domain, "the domain shows more than %d bytes of records: show fewer sites, or less of them", i.MostBytes)
	}
	for k := range m.Changes {
		f, err := i.check(&m.Changes[k])
		if err != nil {
			i.pending, i.of = nil, nil
			return nil, nil, err
		}
		i.pending = append(i.pending, f)
	}
	if m.More {
		head := *m
		head.Changes = nil
		i.of = &head
		return nil, nil, nil
	}
	pending := i.pending
	i.pending, i.of = nil, nil
	changes, err := i.apply(m, pending)
	return changes, nil, err
}

// check reads the parts of a change.
func (i *Importer) check(c *wire.SiteChange) (fresh, error) {
	f := fresh{site: c.Site, gone: c.Gone, confirmed: c.Confirmed, size: len(c.Static) + len(c.Dynamic), staticBytes: len(c.Static)}
	var err error
	if c.Static != "" {
		if f.static, err = resourcemodel.DecodeStatic([]byte(c.Static)); err != nil {
			return f, fail.E("exchange.Take", fail.Invalid, i.domain+"/"+c.Site, err)
		}
		f.leaves[static] = leaf(c.Site, []byte(c.Static))
	}
	if c.Dynamic != "" {
		if f.dynamic, err = resourcemodel.DecodeDynamic([]byte(c.Dynamic)); err != nil {
			return f, fail.E("exchange.Take", fail.Invalid, i.domain+"/"+c.Site, err)
		}
		f.leaves[dynamic] = leaf(c.Site, []byte(c.Dynamic))
	}
	return f, nil
}

// apply brings the state to a revision.
func (i *Importer) apply(m *wire.Resources, list []fresh) ([]resourcemodel.Change, error) {
	named := make(map[string]bool, len(list))
	added := 0
	for _, f := range list {
		if named[f.site] {
			return nil, fail.Errorf("exchange.Take", fail.Invalid, i.domain, "the site %s is twice in one revision", f.site)
		}
		named[f.site] = true
		was := i.tree.sites[f.site]
		switch {
		case was == nil && f.static != nil:
			added++
		case f.static == nil && f.gone && f.dynamic != nil:
			return nil, fail.Errorf("exchange.Take", fail.Invalid, i.domain, "the site %s has a state and no description", f.site)
		}
	}
	if len(i.tree.sites)+added > i.MostSites && m.From != 0 {
		return nil, fail.Errorf("exchange.Take", fail.Exhausted, i.domain, "the domain shows more than %d sites: show fewer, or less of them", i.MostSites)
	}
	var out []resourcemodel.Change
	drop := func(name string) {
		i.tree.set(name, nil)
		delete(i.confirmed, name)
		out = append(out, resourcemodel.Change{Key: i.key(name), Gone: true})
	}
	for _, name := range slices.Sorted(maps.Keys(i.tree.sites)) {
		if !named[name] && (m.From == 0 || m.Buckets > 0 && i.repaired(m, name)) {
			drop(name)
		}
	}
	for _, f := range list {
		was := i.tree.sites[f.site]
		if f.gone && f.static == nil {
			if was != nil {
				drop(f.site)
			}
			continue
		}
		if was == nil && f.static == nil {
			continue // what changed of a site that is missed here: the digests will tell
		}
		next := shown{}
		gone := f.gone || m.From == 0
		if was != nil && !gone {
			next = *was
		}
		c := resourcemodel.Change{Key: i.key(f.site), Gone: gone && was != nil}
		if f.static != nil {
			next.static, next.leaves[static], c.Static = f.static, f.leaves[static], f.static
			next.bytes[static] = f.staticBytes
		}
		if f.dynamic != nil {
			next.dynamic, next.leaves[dynamic], c.Dynamic = f.dynamic, f.leaves[dynamic], f.dynamic
			next.bytes[dynamic] = f.size - f.staticBytes
		}
		i.confirmed[f.site] = f.confirmed
		if was != nil && was.leaves == next.leaves {
			continue // a repair brings its neighbours too
		}
		i.tree.set(f.site, &next)
		out = append(out, c)
	}
	i.view, i.revision, i.agreed = m.View, m.To, false
	return out, nil
}

func (i *Importer) key(site string) resourcemodel.Key {
	return resourcemodel.Key{Domain: i.domain, Site: site}
}

func (i *Importer) repaired(m *wire.Resources, site string) bool {
	b := bucketOf(site, m.Buckets)
	return m.Repairs[b/8]&(0x80>>(b%8)) != 0
}

// digests holds the state against what it must be.
func (i *Importer) digests(m *wire.Digests) []wire.Message {
	i.pulling = false
	if i.of != nil {
		return nil // of something else than what is being told
	}
	same := [categories]bool{bytes.Equal(i.tree.roots[static][:], m.Static), bytes.Equal(i.tree.roots[dynamic][:], m.Dynamic)}
	i.view, i.revision = m.View, m.Revision
	if !m.Confirmed.IsZero() {
		for name := range i.tree.sites {
			if i.confirmed[name].Before(m.Confirmed) {
				i.confirmed[name] = m.Confirmed
			}
		}
		for _, s := range m.Stale {
			if i.tree.sites[s.Site] != nil {
				i.confirmed[s.Site] = s.Confirmed
			}
		}
	}
	if same[static] && same[dynamic] && m.Sites == len(i.tree.sites) {
		i.repairs, i.agreed = 0, true
		return nil
	}
	i.agreed = false
	if i.repairs++; i.repairs > maxRepairs {
		i.repairs = 0
		return []wire.Message{&wire.Pull{}}
	}
	n := bucketsFor(len(i.tree.sites))
	c := &wire.Compare{View: m.View, Revision: m.Revision, Buckets: n}
	if !same[static] {
		c.Static = i.tree.buckets(static, n)
	}
	if !same[dynamic] {
		c.Dynamic = i.tree.buckets(dynamic, n)
	}
	return []wire.Message{c}
}
