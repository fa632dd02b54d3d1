package etcd

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/s2"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// part is a job's immutable part as it is kept.
type part struct {
	header
	first    []byte // the first history line, JSON
	size     int    // of the document
	s2       bool   // the document is compressed
	apart    int    // how many keys below doc/ it is in; 0: it is in document
	document []byte
}

// header is what a store.Job has of it.
type header struct {
	id, owner, name, submission string
	sum                         [32]byte
	submitted                   time.Time
}

func (h *header) job(revision int64, st store.Status) store.Job {
	return store.Job{
		ID: h.id, Owner: h.owner, Name: h.name, SubmissionID: h.submission, DocumentSum: h.sum,
		Submitted: h.submitted, Status: st, Revision: revision,
	}
}

// encodeStatus writes a status: the digest of the job's owner, which says where
// its part is, and JSON.
func encodeStatus(owner string, st *store.Status) ([]byte, error) {
	b, err := json.Marshal(st)
	if err != nil {
		return nil, fail.E("store.Update", fail.Invalid, "", err)
	}
	return append([]byte(owner), b...), nil
}

// asStored says that a status is what decodeStatus would make of its encoding: one of
// words and numbers alone, as that of most jobs is that are new. Times lose their zone and
// their monotonic reading, and what is behind a pointer must not be shared.
func asStored(st *store.Status) bool {
	return st.Refused == nil && st.Aside == nil && st.Placement == nil && st.ExitStatus == nil && st.Verdict == nil && st.Told == nil && st.Foreign == nil && st.Promise == nil &&
		st.Started == (time.Time{}) && st.Ended == (time.Time{}) && st.NotBefore == (time.Time{}) && st.NotAfter == (time.Time{}) &&
		utf8.ValidString(st.Phase) && utf8.ValidString(st.Reason) && utf8.ValidString(st.VO) && utf8.ValidString(st.Gateway) &&
		utf8.ValidString(st.Signal) && utf8.ValidString(st.Of) && utf8.ValidString(st.For)
}

func decodeStatus(b []byte) (owner string, st store.Status, err error) {
	if len(b) < digestSize {
		return "", st, errPart
	}
	err = json.Unmarshal(b[digestSize:], &st)
	return string(b[:digestSize]), st, err
}

// partVersion begins every encoded part.
const partVersion = 1

// encode writes a part: the version, then each field with its length before it.
func (p *part) encode() []byte {
	b := make([]byte, 0, 128+len(p.id)+len(p.owner)+len(p.name)+len(p.submission)+len(p.first)+len(p.document))
	b = append(b, partVersion)
	for _, s := range []string{p.id, p.owner, p.name, p.submission} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = append(b, p.sum[:]...)
	b = binary.AppendVarint(b, p.submitted.Unix())
	b = binary.AppendUvarint(b, uint64(p.submitted.Nanosecond()))
	b = binary.AppendUvarint(b, uint64(len(p.first)))
	b = append(b, p.first...)
	b = binary.AppendUvarint(b, uint64(p.size))
	flags := byte(0)
	if p.s2 {
		flags = 1
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(p.apart))
	return append(b, p.document...)
}

var errPart = errors.New("a job's record is damaged")

func decodePart(b []byte) (*part, error) {
	if len(b) == 0 || b[0] != partVersion {
		return nil, errPart
	}
	r := reader{b: b[1:]}
	p := &part{}
	p.id, p.owner, p.name, p.submission = string(r.text()), string(r.text()), string(r.text()), string(r.text())
	copy(p.sum[:], r.take(len(p.sum)))
	seconds := r.varint()
	p.submitted = time.Unix(seconds, int64(r.uvarint()%1e9)).UTC()
	p.first = r.text()
	p.size = int(r.uvarint() & (1<<40 - 1))
	if flags := r.take(1); len(flags) == 1 {
		p.s2 = flags[0]&1 != 0
	}
	p.apart = int(r.uvarint() & (1<<20 - 1))
	p.document = r.b
	if r.bad {
		return nil, errPart
	}
	return p, nil
}

// reader takes fields from the front; after one that is not there all are empty.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	f := r.b[:n]
	r.b = r.b[n:]
	return f
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	return r.take(int(n))
}

// maxDocument bounds a document before and after compression.
const maxDocument = 64 << 20

// minCompressed is the size below which compressing saves next to nothing.
const minCompressed = 512

// pack gives a part for a job, with its whole document in it.
func pack(n *store.NewJob) (*part, error) {
	const op = "store.Create"
	if len(n.Document) > maxDocument {
		return nil, fail.Errorf(op, fail.Exhausted, n.ID, "the document has %d bytes; the store takes %d", len(n.Document), maxDocument)
	}
	n.Event.Sequence = 1
	first, err := json.Marshal(n.Event)
	if err != nil {
		return nil, fail.E(op, fail.Invalid, n.ID, err)
	}
	p := &part{
		header: header{
			id: n.ID, owner: n.Owner, name: n.Name, submission: n.SubmissionID,
			sum: sha256.Sum256(n.Document), submitted: n.Submitted.Round(0).UTC(),
		},
		first: first, size: len(n.Document), document: n.Document,
	}
	if len(n.Document) >= minCompressed {
		// S2 and not zstd: most documents have a kilobyte, and its time counts.
		if small := s2.Encode(nil, n.Document); len(small) < len(n.Document) {
			p.document, p.s2 = small, true
		}
	}
	return p, nil
}

// unpack gives back the document and checks that it is the one that was stored.
func unpack(p *part, packed []byte) ([]byte, error) {
	doc := packed
	if p.s2 {
		n, err := s2.DecodedLen(packed)
		if err == nil && n != p.size {
			err = errPart
		}
		if err == nil {
			doc, err = s2.Decode(nil, packed)
		}
		if err != nil {
			return nil, fail.E("store.Document", fail.Internal, p.id, err)
		}
	}
	if sha256.Sum256(doc) != p.sum {
		return nil, fail.E("store.Document", fail.Internal, p.id, errors.New("a document does not have its sum"))
	}
	return doc, nil
}
