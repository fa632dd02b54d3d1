package resourcemodel

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"math"
	"slices"
)

// classTable numbers the classes of places that are alike in everything that static
// clauses look at, but for names. A number is not used again before the table is made anew,
// so that what is remembered of a class stays true.
type classTable struct {
	seeds [2]maphash.Seed
	ids   map[digest]uint32
	keys  []digest
	count []uint32 // of places
	nodes []int64  // of the environment; -1 is not known
	buf   []byte
	round uint64 // grows when numbers are given anew
}

// digest stands for content. The seeds are secret, so that nobody finds two contents
// with one digest.
type digest [2]uint64

func (c *classTable) init() {
	c.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	c.ids = map[digest]uint32{}
}

func (c *classTable) sum() digest {
	return digest{maphash.Bytes(c.seeds[0], c.buf), maphash.Bytes(c.seeds[1], c.buf)}
}

// siteDigests have the digests of a site's parts.
type siteDigests struct {
	table *classTable
	site  *Site
	own   digest
	share []digest
	env   []digest
}

// of takes the digests of a site's parts.
func (c *classTable) of(site *Site) *siteDigests {
	s := site.Static
	d := &siteDigests{table: c, site: site, share: make([]digest, len(s.Shares)), env: make([]digest, len(s.Environments))}
	c.buf = c.buf[:0]
	c.text(s.Type)
	c.texts(s.Labels)
	c.policy(s.Policy)
	c.consumables(s.Consumables)
	d.own = c.sum()
	for j := range s.Shares {
		h := &s.Shares[j]
		c.buf = c.buf[:0]
		c.number(uint64(h.MaxWallTime), uint64(h.MaxCPUs), uint64(h.MaxNodes), uint64(h.MaxMemory), uint64(h.Slots), math.Float64bits(h.Price))
		if h.Default {
			c.number(1)
		}
		c.policy(h.Policy)
		c.consumables(h.Consumables)
		d.share[j] = c.sum()
	}
	for k := range s.Environments {
		e := &s.Environments[k]
		c.buf = c.buf[:0]
		c.text(e.OperatingSystem)
		c.text(e.OSVersion)
		c.text(e.CPUArchitecture)
		c.number(uint64(e.CPUs), math.Float64bits(e.CPUSpeed), uint64(e.Memory), uint64(e.VirtualMemory), uint64(e.Disk), math.Float64bits(e.Bandwidth))
		c.number(uint64(len(e.GPUs)))
		for _, kind := range slices.Sorted(maps.Keys(e.GPUs)) {
			c.text(kind)
			c.number(uint64(e.GPUs[kind]))
		}
		c.texts(e.Features)
		c.number(uint64(len(e.FileSystems)))
		for i := range e.FileSystems {
			f := &e.FileSystems[i]
			c.text(f.Name)
			c.text(f.Type)
			c.text(f.MountPoint)
			c.number(uint64(f.Size))
		}
		c.number(uint64(len(e.Benchmarks)))
		for _, name := range slices.Sorted(maps.Keys(e.Benchmarks)) {
			c.text(name)
			c.number(math.Float64bits(e.Benchmarks[name]))
		}
		c.consumables(e.Consumables)
		for i := range s.Applications {
			if a := &s.Applications[i]; a.on(e.ID) {
				c.text(a.Name)
				c.text(a.Version)
			}
		}
		d.env[k] = c.sum()
	}
	return d
}

func (c *classTable) number(list ...uint64) {
	for _, n := range list {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, n)
	}
}

func (c *classTable) text(s string) {
	c.number(uint64(len(s)))
	c.buf = append(c.buf, s...)
}

func (c *classTable) texts(list []string) {
	c.number(uint64(len(list)))
	for _, s := range list {
		c.text(s)
	}
}

func (c *classTable) policy(p Policy) {
	c.texts(p.Allow)
	c.texts(p.Deny)
}

func (c *classTable) consumables(list []Consumable) {
	c.number(uint64(len(list)))
	for _, k := range list {
		c.text(k.Name)
		c.number(uint64(k.Total))
	}
}

// place gives the digest of a place, and its environment's nodes with it.
func (d *siteDigests) place(share, env int, nodes int64) (digest, int64) {
	c := d.table
	c.buf = c.buf[:0]
	for _, part := range []digest{d.own, d.share[share], d.env[env]} {
		c.number(part[0], part[1])
	}
	c.number(uint64(nodes))
	return c.sum(), nodes
}

// enter counts a place of a class, and gives the class's number.
func (c *classTable) enter(d digest, nodes int64) uint32 {
	id, ok := c.ids[d]
	if !ok {
		id = uint32(len(c.count))
		c.ids[d] = id
		c.keys, c.count, c.nodes = append(c.keys, d), append(c.count, 0), append(c.nodes, nodes)
	}
	c.count[id]++
	return id
}

func (c *classTable) leave(id uint32) {
	if c.count[id]--; c.count[id] == 0 {
		delete(c.ids, c.keys[id])
	}
}

// renumber gives numbers anew in the order of the rows, so that what is remembered of
// neighbours lies together.
func (c *classTable) renumber(places []place, rows []PlaceID) {
	next := classTable{seeds: c.seeds, ids: make(map[digest]uint32, len(c.ids)), buf: c.buf, round: c.round + 1}
	to := make([]uint32, len(c.count)) // number + 1
	for _, id := range rows {
		was := places[id].class
		if to[was] == 0 {
			next.keys, next.count, next.nodes = append(next.keys, c.keys[was]), append(next.count, c.count[was]), append(next.nodes, c.nodes[was])
			to[was] = uint32(len(next.count))
			next.ids[c.keys[was]] = to[was] - 1
		}
		places[id].class = to[was] - 1
	}
	*c = next
}
