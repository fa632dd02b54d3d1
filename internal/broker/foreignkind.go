package broker

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// CheckForeign says whether a job of a peer could be taken in: what TakeIn checks of its
// document, of the sites that could have it and of its account there, and what it asks for. It
// changes nothing. The lease, the copy's name and its time are not looked at. The errors are
// those of TakeIn; fail.Unsupported has a sentence with what stands against each site.
func (b *Broker) CheckForeign(f *Foreign) (resourcemodel.Need, error) {
	const op = "broker.CheckForeign"
	var none resourcemodel.Need
	select {
	case <-b.ready:
	default:
		return none, errStarting
	}
	switch {
	case !b.accepting.Load():
		return none, fail.Errorf(op, fail.NotAccepting, "", "the gateway takes no new activities at present; its operator has stopped them")
	case len(f.Document) > b.cfg.Limits.Document:
		return none, fail.Errorf(op, fail.Invalid, "", "the job's document has %d bytes; at most %d are taken", len(f.Document), b.cfg.Limits.Document)
	}
	f, err := b.dated(f)
	if err != nil {
		return none, err
	}
	k, err := b.foreignKind(f)
	if err != nil {
		return none, err
	}
	if err := b.foreignRefusal(op, k, f.Owner); err != nil {
		return none, err
	}
	return k.request.Need, nil
}

// foreignRefusal is refusal for a job of a peer. One that is too late for its Deadline wherever
// it runs is refused as well: it would wait here for nothing, and its domain is told at once.
func (b *Broker) foreignRefusal(op string, k *kind, owner string) error {
	if why := k.request.Late(time.Now()); why != "" {
		return fail.Errorf(op, fail.Unsupported, "", "%s", why)
	}
	return b.refusal(op, k, owner)
}

// judged remembers kinds of jobs of peers between the admission of a route and the taking in
// of its job, and from one of many alike to the next.
type judged struct {
	mu   sync.Mutex
	kind map[kindKey]judgement
}

type judgement struct {
	kind *kind
	at   time.Time
}

// Bounds of what is remembered.
const (
	mostJudged    = 256
	mostJudgedDoc = 16 << 10 // bytes of a document
	judgedTime    = 30 * time.Second
)

func (m *judged) get(key kindKey, epoch uint64) *kind {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.kind[key]
	if !ok || j.kind.epoch != epoch || time.Since(j.at) > judgedTime {
		return nil
	}
	k := j.kind.again()
	k.barred, k.keeps, k.epoch = j.kind.barred, j.kind.keeps, j.kind.epoch
	return k
}

func (m *judged) put(key kindKey, k *kind) {
	kept := k.again()
	kept.barred, kept.keeps, kept.epoch = k.barred, k.keeps, k.epoch
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kind == nil || len(m.kind) >= mostJudged {
		m.kind = map[kindKey]judgement{}
	}
	m.kind[key] = judgement{kept, time.Now()}
}

// foreignKind gives the kind of a job of a peer, of which the adapters were asked.
func (b *Broker) foreignKind(f *Foreign) (*kind, error) {
	foreign := &store.Foreign{From: f.From, Origin: f.Origin, ID: f.ID, Path: f.Path, Hops: f.Hops, Account: f.Account, Agreement: f.Agreement}
	if f.Trace != traceOf(f.ID) {
		foreign.Trace = f.Trace
	}
	b.mu.Lock()
	r, epoch := b.roster.Load(), b.epoch
	b.mu.Unlock()
	key := kindKey{sum: sha256.Sum256(f.Document), owner: f.Owner, way: wayKey(foreign, f.VO)}
	if k := b.judged.get(key, epoch); k != nil {
		k.foreign = foreign
		return k, nil
	}
	def := f.Job
	if def == nil {
		var problems jsdl.Problems
		def, problems = jsdl.Parse(f.Document, b.cfg.JSDL)
		if err := judge(def, problems); err != nil {
			return nil, err
		}
	}
	k, err := b.compileForeign(def, f.Owner, f.VO)
	if err != nil {
		return nil, err
	}
	k.foreign = foreign
	k.examine(r, epoch)
	if len(f.Document) <= mostJudgedDoc {
		b.judged.put(key, k)
	}
	return k, nil
}
