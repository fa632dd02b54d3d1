package etcd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"strings"
)

const (
	root      = "/portolan/v1/"
	schemaKey = root + "schema" // of all domains
)

// layout is where the keys of one domain are.
type layout struct {
	jobs, parts, live, final, docs, histories, submissions, replicas, settings, records string
}

// layoutOf gives the layout of a domain; "" is that of a gateway without a name.
func layoutOf(domain string) layout {
	at := root
	if domain != "" {
		at += "domain/" + domain + "/"
	}
	return layout{
		jobs: at + "job/", parts: at + "job/i/", live: at + "job/l/", final: at + "job/f/",
		docs: at + "doc/", histories: at + "history/", submissions: at + "submission/",
		replicas: at + "replica/", settings: at + "setting/", records: at + "r/",
	}
}

// shards is part of the layout: it never changes within a schema version.
const shards = 64

// partKey is where a job's immutable part is; owner is a digest. Those of an owner
// are together, so that they can be listed and counted.
func (l *layout) partKey(owner, id string) string { return l.ownerParts(owner) + newest(id) }

func (l *layout) ownerParts(owner string) string { return l.parts + owner + "/" }

// statusKey is where the status of a job is, by whether it is final.
func (l *layout) statusKey(id string, final bool) string {
	if final {
		return l.final + newest(id)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return l.shardPrefix(h.Sum32()%shards) + newest(id)
}

func (l *layout) shardPrefix(n uint32) string {
	const digits = "0123456789abcdef"
	return l.live + string([]byte{digits[n>>4], digits[n&15], '/'})
}

// statusID gives the id and finality that a status key stands for.
func (l *layout) statusID(key []byte) (id string, final, ok bool) {
	if rest, found := bytes.CutPrefix(key, []byte(l.final)); found {
		id, ok = newestID(rest)
		return id, true, ok
	}
	if rest, found := bytes.CutPrefix(key, []byte(l.live)); found && len(rest) > 3 {
		id, ok = newestID(rest[3:])
		return id, false, ok
	}
	return "", false, false
}

func (l *layout) documentPrefix(id string, sum [32]byte) string {
	return l.docs + escape(id) + hex.EncodeToString(sum[:16]) + "/"
}

func (l *layout) documentKey(id string, sum [32]byte, n int) string {
	return l.documentPrefix(id, sum) + fmt.Sprintf("%04x", n)
}

func (l *layout) historyKey(id string, sequence int) string {
	return l.histories + escape(id) + string(binary.BigEndian.AppendUint64(nil, uint64(max(sequence, 0))))
}

func (l *layout) submissionKey(owner, submission string) string {
	return l.submissions + owner + "/" + submission
}

// digestSize is that of a digest.
const digestSize = 32

// digest stands for an owner's name, which may have any length and bytes.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:digestSize/2])
}

// escape writes an id so that none is the beginning of another and their order
// stays: a zero byte becomes 00 ff, and 00 00 ends it.
func escape(id string) string {
	if strings.IndexByte(id, 0) >= 0 {
		id = strings.ReplaceAll(id, "\x00", "\x00\xff")
	}
	return id + "\x00\x00"
}

func unescape(b []byte) (string, bool) {
	b, ok := bytes.CutSuffix(b, []byte{0, 0})
	if !ok {
		return "", false
	}
	return strings.ReplaceAll(string(b), "\x00\xff", "\x00"), true
}

// newest writes an id so that greater ones come first.
func newest(id string) string {
	b := []byte(escape(id))
	invert(b)
	return string(b)
}

// newestID undoes newest.
func newestID(b []byte) (string, bool) {
	b = bytes.Clone(b)
	invert(b)
	return unescape(b)
}

func invert(b []byte) {
	for i := range b {
		b[i] = ^b[i]
	}
}
