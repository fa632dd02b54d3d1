package exchange

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

type digest = [sha256.Size]byte

// The categories.
const (
	static = iota
	dynamic
	categories
)

// shown is a site with the digests of its parts; that of a part that is not there is zero.
type shown struct {
	static  *resourcemodel.Static
	dynamic *resourcemodel.Dynamic
	leaves  [categories]digest
	bytes   [categories]int // of the records; counted by importers
}

// tree is a view: its sites, and the digest of each category, kept up as it changes.
type tree struct {
	sites map[string]*shown
	roots [categories]digest
	bytes int
}

// leaf is the digest of a site's part, by its record.
func leaf(site string, record []byte) (d digest) {
	h := sha256.New()
	for _, b := range [][]byte{[]byte(site), record} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	h.Sum(d[:0])
	return d
}

func xor(d *digest, o *digest) {
	for i := range d {
		d[i] ^= o[i]
	}
}

// set replaces a site; nil takes it away.
func (t *tree) set(name string, s *shown) {
	was := t.sites[name]
	for c := range categories {
		if was != nil {
			xor(&t.roots[c], &was.leaves[c])
			t.bytes -= was.bytes[c]
		}
		if s != nil {
			xor(&t.roots[c], &s.leaves[c])
			t.bytes += s.bytes[c]
		}
	}
	if s == nil {
		delete(t.sites, name)
	} else {
		t.sites[name] = s
	}
}

// The number of buckets is at least minBuckets; as a rule a bucket has up to perBucket sites.
const (
	minBuckets = 16
	perBucket  = 8
)

// bucketsFor gives the number of buckets by which to compare so many sites.
func bucketsFor(sites int) int {
	n := minBuckets
	for n < wire.MaxBuckets && n*perBucket < sites {
		n *= 2
	}
	return n
}

// bucketOf gives the bucket of a site among n, a power of two.
func bucketOf(site string, n int) int {
	h := sha256.Sum256([]byte(site))
	return int(uint64(binary.BigEndian.Uint32(h[:])) >> (32 - (bits.Len(uint(n)) - 1)))
}

// buckets gives the digests of a category by n buckets, wire.HashBytes each.
func (t *tree) buckets(category, n int) []byte {
	all := make([]digest, n)
	for name, s := range t.sites {
		xor(&all[bucketOf(name, n)], &s.leaves[category])
	}
	out := make([]byte, 0, n*wire.HashBytes)
	for i := range all {
		out = append(out, all[i][:wire.HashBytes]...)
	}
	return out
}

// differ reports which buckets of two lists are not alike; an empty list agrees.
func differ(a, b []byte, n int) []bool {
	out := make([]bool, n)
	if len(a) != len(b) {
		return out
	}
	for i := range n {
		out[i] = !bytes.Equal(a[i*wire.HashBytes:(i+1)*wire.HashBytes], b[i*wire.HashBytes:(i+1)*wire.HashBytes])
	}
	return out
}
