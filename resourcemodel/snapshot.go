package resourcemodel

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"
)

// maxChunk bounds the sites of one chunk. A change copies its chunk and the list of
// chunks, so that with 100,000 sites it moves some 12 KiB.
const maxChunk = 256

// sites are all sites in the order of their keys, cut into chunks that snapshots share.
// A chunk is never empty and never changed; what was changed is in a chunk of its own.
type sites [][]*Site

// Compare orders keys: by domain, then by site.
func (k Key) Compare(o Key) int {
	return cmp.Or(strings.Compare(k.Domain, o.Domain), strings.Compare(k.Site, o.Site))
}

// Compare orders places: by site, share and environment.
func (p Place) Compare(o Place) int {
	return cmp.Or(p.Key.Compare(o.Key), strings.Compare(p.Share, o.Share), strings.Compare(p.Environment, o.Environment))
}

// chunk gives the last chunk that begins at or before k; 0 where none does.
func (ss sites) chunk(k Key) int {
	i, found := slices.BinarySearchFunc(ss, k, func(c []*Site, k Key) int { return c[0].Key.Compare(k) })
	if !found && i > 0 {
		i--
	}
	return i
}

// find gives the first position that is not before k.
func (ss sites) find(k Key) (chunk, at int, found bool) {
	if len(ss) == 0 {
		return 0, 0, false
	}
	chunk = ss.chunk(k)
	at, found = slices.BinarySearchFunc(ss[chunk], k, func(s *Site, k Key) int { return s.Key.Compare(k) })
	return chunk, at, found
}

// Empty gives the model of a gateway that knows of no site, at revision 0.
func Empty() *Snapshot { return &Snapshot{} }

// Revision gives that of the last delta.
func (s *Snapshot) Revision() int64 { return s.revision }

// At gives when the last delta was made; it never goes back from one snapshot to the next.
func (s *Snapshot) At() time.Time { return s.at }

// Len gives the number of sites.
func (s *Snapshot) Len() int { return s.count }

// Site gives a site; nil if it is not known.
func (s *Snapshot) Site(k Key) *Site {
	c, i, found := s.sites.find(k)
	if !found || s.sites[c][i].Static == nil {
		return nil
	}
	return s.sites[c][i]
}

// Sites gives all sites in the order of their keys.
func (s *Snapshot) Sites() iter.Seq[*Site] { return s.from(Key{}, func(Key) bool { return true }) }

// SitesOf gives those of a domain in the order of their names.
func (s *Snapshot) SitesOf(domain string) iter.Seq[*Site] {
	return s.from(Key{Domain: domain}, func(k Key) bool { return k.Domain == domain })
}

// Domains gives the domains that have sites, in order.
func (s *Snapshot) Domains() []string {
	var names []string
	for site := range s.Sites() {
		if n := len(names); n == 0 || names[n-1] != site.Domain {
			names = append(names, site.Domain)
		}
	}
	return names
}

// from gives the sites from k on, while the key is one that is meant.
func (s *Snapshot) from(k Key, meant func(Key) bool) iter.Seq[*Site] {
	return func(yield func(*Site) bool) {
		c, i, _ := s.sites.find(k)
		for ; c < len(s.sites); c, i = c+1, 0 {
			for _, site := range s.sites[c][i:] {
				if !meant(site.Key) {
					return
				}
				if site.Static != nil && !yield(site) {
					return
				}
			}
		}
	}
}

// Spot is a place with what is known of it.
type Spot struct {
	Site        *Site
	Share       *Share
	Environment *Environment
}

// Place names it.
func (s Spot) Place() Place {
	return Place{Key: s.Site.Key, Share: s.Share.ID, Environment: s.Environment.ID}
}

// Share tells how the share stands; false if it is not known.
func (d *Dynamic) Share(id string) (ShareState, bool) {
	if d == nil {
		return ShareState{}, false
	}
	state, ok := d.Shares[id]
	return state, ok
}

// Environment tells how the environment stands; false if it is not known.
func (d *Dynamic) Environment(id string) (EnvironmentState, bool) {
	if d == nil {
		return EnvironmentState{}, false
	}
	state, ok := d.Environments[id]
	return state, ok
}

// Share gives a share; nil if there is none of this ID.
func (s *Static) Share(id string) *Share {
	for i := range s.Shares {
		if s.Shares[i].ID == id {
			return &s.Shares[i]
		}
	}
	return nil
}

// Environment gives an environment; nil if there is none of this ID.
func (s *Static) Environment(id string) *Environment {
	for i := range s.Environments {
		if s.Environments[i].ID == id {
			return &s.Environments[i]
		}
	}
	return nil
}

// Places gives the places of all sites: site by site, share by share, environment by
// environment, each in the order of the site's description.
func (s *Snapshot) Places() iter.Seq[Spot] {
	return func(yield func(Spot) bool) {
		for site := range s.Sites() {
			for spot := range site.Places() {
				if !yield(spot) {
					return
				}
			}
		}
	}
}

// Places gives the site's places, share by share.
func (s *Site) Places() iter.Seq[Spot] {
	return func(yield func(Spot) bool) {
		for i := range s.Static.Shares {
			share := &s.Static.Shares[i]
			for _, id := range share.Environments {
				env := s.Static.Environment(id)
				if env != nil && !yield(Spot{Site: s, Share: share, Environment: env}) {
					return
				}
			}
		}
	}
}
