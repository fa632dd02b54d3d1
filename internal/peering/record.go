package peering

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

// The records of the engine.
const (
	engineKey     = "peers/engine"   // which replica is the engine; bound to its session
	jobPrefix     = "peers/jobs/"    // ORIGIN/ID: jobRecord
	freightPrefix = "peers/freight/" // ORIGIN/ID: what is routed, compressed
	keptPrefix    = "peers/kept/"    // ORIGIN/ID: keptRecord, for those who read output later
)

// maxFreight bounds what is routed, compressed, so that it fits into a transaction with
// its record.
const maxFreight = store.MaxRecord - 2*handover.MaxRecord

// keyPath names a job in the keys of records, whatever a peer calls it.
func keyPath(k handover.Key) string { return store.Path(store.MaxKey/2, k.Origin, k.ID) }

// jobRecord is a job in the store.
type jobRecord struct {
	Job json.RawMessage `json:"job"`
	meta
}

// meta is what is known of a job beside its handover.
type meta struct {
	// Of a placement at a peer: the broker's tag, and the token under which it was made.
	Tag   string         `json:"tag,omitempty"`
	Token handover.Token `json:"token,omitempty"`
	Peer  string         `json:"peer,omitempty"`
	// Final is how that placement ended; nil while it has not.
	Final *ending `json:"final,omitempty"`
	// Ran says that the peer told of it as running, first at Started.
	Ran     bool      `json:"ran,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Site    string    `json:"site,omitempty"` // where it is, as far as is told
	// Bought is the peer's agreement in whose room it is to run there.
	Bought string `json:"bought,omitempty"`

	Owner string `json:"owner,omitempty"` // for whom it runs here
	// Of a job that a peer gave: how it was admitted, and the broker's name of it.
	Account  string    `json:"account,omitempty"`
	LocalVO  string    `json:"localVO,omitempty"`
	VO       string    `json:"vo,omitempty"` // as it is routed
	Deadline time.Time `json:"deadline,omitzero"`
	// Agreement is that of ours in whose room it is to run here, as it was routed.
	Agreement string    `json:"agreement,omitempty"`
	Trace     string    `json:"trace,omitempty"`
	Activity  string    `json:"activity,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	// Closed says that the broker's job has ended.
	Closed bool `json:"closed,omitempty"`
}

// keptRecord tells where the output of a job is that is over.
type keptRecord struct {
	From     string         `json:"from"`
	Token    handover.Token `json:"token"`
	Activity string         `json:"activity"`
	Until    time.Time      `json:"until"`
}

// freight is what is routed with a job.
type freight struct {
	Document  string `json:"document"`
	Assertion []byte `json:"assertion,omitempty"` // with which it came
}

// smallFreight is below what it is not worth compressing.
const smallFreight = 4 << 10

// deflated begins freight that is compressed; other begins with '{'.
const deflated = 'z'

// deflaters are costly to make.
var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is one that there is
	return w
}}

// encode gives it as it is stored, compressed if it is large. One that is too large is
// fail.Unsupported.
func (f *freight) encode() ([]byte, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fail.E("peering.freight", fail.Internal, "", err)
	}
	if len(b) < smallFreight {
		return b, nil
	}
	var out bytes.Buffer
	out.WriteByte(deflated)
	w := deflaters.Get().(*flate.Writer) //nolint:forcetypeassert // the pool has no others
	defer deflaters.Put(w)
	w.Reset(&out)
	_, err = w.Write(b)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fail.E("peering.freight", fail.Internal, "", err)
	}
	if out.Len() > maxFreight {
		return nil, fail.Errorf("peering.freight", fail.Unsupported, "", "the job's document has %d bytes even when it is compressed; %d can be handed over", out.Len(), maxFreight)
	}
	return out.Bytes(), nil
}

func decodeFreight(b []byte) (*freight, error) {
	bad := func(err error) error {
		return fail.Errorf("peering.freight", fail.Invalid, "", "what is routed with a job can't be read; restore it from a backup").Because(err)
	}
	if len(b) > 0 && b[0] == deflated {
		const most = 8 * (wire.MaxDocument + wire.MaxAssertion)
		plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b[1:])), most))
		if err != nil {
			return nil, bad(err)
		}
		b = plain
	}
	f := new(freight)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, bad(err)
	}
	return f, nil
}

// digestOf names what is routed: the document, the VO and the deadline.
func digestOf(document, vo string, deadline time.Time) string {
	h := sha256.New()
	_, _ = io.WriteString(h, document) // a hash takes everything
	_, _ = io.WriteString(h, "\x00"+vo+"\x00")
	if !deadline.IsZero() {
		_, _ = io.WriteString(h, deadline.UTC().Format(time.RFC3339Nano))
	}
	return "sha-256:" + hex.EncodeToString(h.Sum(nil))
}

// traceID gives the trace id of a job: that with which it came, or the one that its origin
// made of its id, as the broker has it.
func traceID(k handover.Key, came string) string {
	if parts := strings.Split(came, "-"); len(parts) == 4 {
		return parts[1]
	}
	return broker.TraceID(&store.Job{ID: k.ID})
}

// traceOf gives the trace of a message about a job: the span is of the gateway and the token.
func traceOf(k handover.Key, came, domain string, token handover.Token) string {
	span := sha256.Sum256([]byte(k.String() + "#" + string(token) + " " + domain))
	span[0] |= 1 // not all zero
	return "00-" + traceID(k, came) + "-" + hex.EncodeToString(span[:8]) + "-01"
}

// encode gives the entry's record.
func (x *entry) encode() ([]byte, error) {
	j, err := x.job.Encode()
	if err != nil {
		return nil, err
	}
	// As a jobRecord is encoded, but for going through the job's part a second time.
	m, err := json.Marshal(&x.meta)
	if err != nil {
		return nil, fail.E("peering.encode", fail.Internal, x.key.String(), err)
	}
	b := make([]byte, 0, len(j)+len(m)+len(`{"job":,`))
	b = append(append(b, `{"job":`...), j...)
	if len(m) > len(`{}`) {
		b = append(b, ',')
	}
	return append(b, m[1:]...), nil
}

func decodeEntry(b []byte) (*entry, error) {
	var r jobRecord
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, fail.Errorf("peering.decode", fail.Invalid, "", "the record of a job can't be read; restore it from a backup").Because(err)
	}
	j, err := handover.Decode(r.Job)
	if err != nil {
		return nil, err
	}
	return &entry{key: j.Key, job: j, meta: r.meta, index: -1, stored: true, freighted: true}, nil
}
