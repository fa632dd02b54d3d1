package resourcemodel

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"time"
)

// Digest sums up what one side believes about a domain, each category of attributes
// apart, so that two sides find out with one message whether they agree.
type Digest struct {
	Sites   int      `json:"sites"`
	Static  [32]byte `json:"static"`
	Dynamic [32]byte `json:"dynamic"`
}

// Digest gives that of a domain. It covers the sites' names, the values, their versions,
// sources and details; it does not cover what the two sides call the domain, nor when the
// values changed. It reads every site of the domain.
func (s *Snapshot) Digest(domain string) (Digest, error) {
	var d Digest
	static, dynamic := sha256.New(), sha256.New()
	for site := range s.SitesOf(domain) {
		d.Sites++
		st := *site.Static
		st.Changed = time.Time{}
		b, err := st.Encode()
		if err != nil {
			return Digest{}, err
		}
		frame(static, site.Site, b)
		b = nil
		if site.Dynamic != nil {
			dyn := *site.Dynamic
			dyn.Changed = time.Time{}
			if b, err = dyn.Encode(); err != nil {
				return Digest{}, err
			}
		}
		frame(dynamic, site.Site, b)
	}
	static.Sum(d.Static[:0])
	dynamic.Sum(d.Dynamic[:0])
	return d, nil
}

// frame writes both with their lengths, so that no two pairs have the same bytes.
func frame(h hash.Hash, name string, value []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(name)))
	h.Write(n[:])
	h.Write([]byte(name))
	binary.BigEndian.PutUint64(n[:], uint64(len(value)))
	h.Write(n[:])
	h.Write(value)
}
