package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
)

// Record is a small named value that every replica sees: a part of the resource
// model, a policy in force, a decision, a counter.
type Record struct {
	Key      string // segments of letters, digits and - . _ ~ %, separated by '/'; at most MaxKey bytes
	Value    []byte // at most MaxRecord bytes; nil in an answer of WatchRecords for one that is gone
	Revision int64  // of its last change; grows over all records and jobs
}

// MaxRecord bounds a record's value, in bytes.
const MaxRecord = 1 << 20

// RecordChange writes one record, or removes it.
type RecordChange struct {
	Key   string
	Value []byte // nil removes
	// If is the revision that the record must have; 0: it must not exist; -1: anything.
	If int64
	// Bound ties the record to the session's lease: it is gone when the lease is.
	Bound bool
}

// Records is the part of a Store that keeps them. PutRecords applies all changes of
// a call in one transaction or none (fail.Conflict, whose Subject is the key that moved
// on); at most MaxTransaction of them, with values of MaxRecord bytes together. A value
// that is the same already, and bound to the same lease if it is bound, is not written
// and costs no revision. With a session, the write is guarded by its lease (fail.Conflict
// without a Subject when that is lost); without, it is nobody's.
type Records interface {
	// PutRecords gives the revision of what it wrote; when nothing had to be written, the
	// newest revision that the records have, 0 when none is there.
	PutRecords(ctx context.Context, s Session, changes ...RecordChange) (revision int64, err error)
	// ListRecords gives the records whose key begins with prefix, in the order of keys, and the
	// store's revision at which they were read. Limit 0 is all.
	ListRecords(ctx context.Context, prefix string, o RecordOptions) (records []Record, revision int64, err error)
	// WatchRecords calls emit with records that changed after the revision, as Store.Watch does;
	// the revision that ListRecords gave is never too old if it was given just now. What one
	// transaction changed comes in one call, in the order of revisions and with the revision
	// up to which all has been told. Of a record that changed several times while emit was
	// busy only the last change is told, so that a slow emit costs no memory. When it falls
	// behind farther than the store remembers, that is fail.Conflict: list again.
	WatchRecords(ctx context.Context, prefix string, after int64, emit func([]Record, int64)) error
}

// RecordOptions selects records.
type RecordOptions struct {
	After  string // only keys after this in the order of the list: with Newest, those below
	Limit  int
	Newest bool // from the last key to the first
}

// MaxTransaction bounds the changes of one PutRecords. An etcd as it comes takes 128
// conditions in a transaction, of which the session's is one.
const MaxTransaction = 120

// Segment writes any text as one segment of a record's key. Those of two texts differ,
// and their order is that of the texts where they have letters and digits only.
func Segment(text string) string {
	if text == "" {
		return "%" // which no other text gives
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case plain(c) && c != '%':
			b.WriteByte(c)
		default:
			b.WriteString(string([]byte{'%', digits[c>>4], digits[c&15]}))
		}
	}
	return b.String()
}

// Path writes two texts or more as segments of a record's key. Where these would have more than
// most bytes it is one segment with their digest, after a ~, which no two texts give.
func Path(most int, texts ...string) string {
	segments := make([]string, len(texts))
	for i, t := range texts {
		segments[i] = Segment(t)
	}
	p := strings.Join(segments, "/")
	if len(p) <= most {
		return p
	}
	sum := sha256.Sum256([]byte(p))
	return "~" + hex.EncodeToString(sum[:])
}

// Text undoes Segment; false when no text gives this segment.
func Text(segment string) (string, bool) {
	if segment == "%" {
		return "", true
	}
	b := make([]byte, 0, len(segment))
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		if c == '%' {
			if i+2 >= len(segment) {
				return "", false
			}
			high, low := strings.IndexByte("0123456789ABCDEF", segment[i+1]), strings.IndexByte("0123456789ABCDEF", segment[i+2])
			if high < 0 || low < 0 {
				return "", false
			}
			c = byte(high<<4 | low)
			i += 2
		}
		b = append(b, c)
	}
	text := string(b)
	return text, Segment(text) == segment
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~%", c) >= 0
}

// CheckKey reports what is wrong with a record's key.
func CheckKey(op, key string) error {
	if err := CheckPrefix(op, key); err != nil {
		return err
	}
	if key == "" || strings.HasSuffix(key, "/") {
		return fail.Errorf(op, fail.Invalid, key, "a record's key is segments with '/' between them, and none of them is empty: %q", key)
	}
	return nil
}

// CheckPrefix reports what is wrong with the beginning of a record's key.
func CheckPrefix(op, prefix string) error {
	switch {
	case len(prefix) > MaxKey:
		return fail.Errorf(op, fail.Invalid, "", "a record's key may have %d bytes; this one has %d", MaxKey, len(prefix))
	case strings.HasPrefix(prefix, "/"), strings.Contains(prefix, "//"):
		return fail.Errorf(op, fail.Invalid, prefix, "a record's key is segments with '/' between them, and none of them is empty: %q", prefix)
	}
	for i := range len(prefix) {
		if c := prefix[i]; c != '/' && !plain(c) {
			return fail.Errorf(op, fail.Invalid, prefix, "a record's key has letters, digits and - . _ ~ %% / only: %q", prefix)
		}
	}
	return nil
}

// CheckRecords reports what is wrong with the changes of one PutRecords.
func CheckRecords(s Session, changes []RecordChange) error {
	const op = "store.PutRecords"
	if len(changes) > MaxTransaction {
		return fail.Errorf(op, fail.Invalid, "", "%d records are to change at once; a transaction takes %d", len(changes), MaxTransaction)
	}
	bytes := 0
	seen := make(map[string]bool, len(changes))
	for _, c := range changes {
		if err := CheckKey(op, c.Key); err != nil {
			return err
		}
		switch {
		case seen[c.Key]:
			return fail.Errorf(op, fail.Invalid, c.Key, "the record %s is to change twice in one transaction", c.Key)
		case c.If < -1:
			return fail.Errorf(op, fail.Invalid, c.Key, "a record has no revision %d", c.If)
		case c.Bound && s == nil:
			return fail.Errorf(op, fail.Invalid, c.Key, "the record %s is to be bound to a session, and there is none", c.Key)
		case len(c.Value) > MaxRecord:
			return fail.Errorf(op, fail.Exhausted, c.Key, "the record %s has %d bytes; the store takes %d", c.Key, len(c.Value), MaxRecord)
		}
		seen[c.Key] = true
		bytes += len(c.Value)
	}
	if bytes > MaxRecord {
		return fail.Errorf(op, fail.Exhausted, "", "the records of one transaction have %d bytes; the store takes %d", bytes, MaxRecord)
	}
	return nil
}

// Coalesce keeps of each record the last change, in the order of revisions.
func Coalesce(changes []Record) []Record {
	last := make(map[string]int, len(changes))
	for i, r := range changes {
		last[r.Key] = i
	}
	if len(last) == len(changes) {
		return changes
	}
	kept := make([]Record, 0, len(last))
	for i, r := range changes {
		if last[r.Key] == i {
			kept = append(kept, r)
		}
	}
	slices.SortStableFunc(kept, func(a, b Record) int { return cmp.Compare(a.Revision, b.Revision) })
	return kept
}
