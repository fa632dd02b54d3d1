package broker

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// kind is what jobs with the same document of the same owner have in common: the
// document, what it asks of a place, and which sites' adapters say no to it. It is in
// memory as long as such a job waits or is being handed over.
type kind struct {
	key     kindKey
	refs    int
	def     *jsdl.JobDefinition
	request *resourcemodel.Request
	foreign *store.Foreign    // of the first that came this way; nil for one of our own
	guest   string            // the account of another domain's user, whose agreement it is of; "" for others
	unfit   bool              // the document can't be read, or asks for what can't be
	why     string            // the sentence of that
	barred  map[string]string // sites whose adapters refuse it, with why
	keeps   map[string]bool   // sites for which the gateway does what their managers can't
	epoch   uint64            // Broker.epoch when the adapters were asked
	asked   time.Time         // when they were asked last; Broker.mu guards it
	size    int               // of the document, in bytes; 0 where that is not known
	fits    *site             // one that could run it by its parts as they were then
	as      *resourcemodel.Static
}

type kindKey struct {
	sum   [32]byte
	owner string
	way   string // of a peer's: its VO, its account and the way that it came (wayKey), as these bar places
	guest string // the account of another domain's user, whose agreement it is of
}

// queue gives the share that the document names, "" if none.
func (k *kind) queue() string {
	if r := k.def.Description.Resources; r != nil && r.Placement != nil && r.Placement.Share != nil {
		return *r.Placement.Share
	}
	return ""
}

// rerunnable reports whether the document allows that a job is run again that ran
// and is lost.
func (k *kind) rerunnable() bool {
	r := k.def.Description.Resources
	return r != nil && r.Placement != nil && r.Placement.Rerunnable != nil && *r.Placement.Rerunnable
}

// onceOnly reports whether the document forbids that a job is run again that ran and is
// lost.
func (k *kind) onceOnly() bool {
	r := k.def.Description.Resources
	return r != nil && r.Placement != nil && r.Placement.Rerunnable != nil && !*r.Placement.Rerunnable
}

// compile reads what a definition asks of a place. The VO is that of the document,
// where it names one.
func compile(def *jsdl.JobDefinition, subject resourcemodel.Subject) (*kind, error) {
	if r := def.Description.Resources; subject.VO == "" && r != nil && r.Placement != nil && r.Placement.VO != nil {
		subject.VO = *r.Placement.VO
	}
	req, err := resourcemodel.Compile(def, subject)
	if err != nil {
		return nil, err
	}
	return &kind{def: def, request: req}, nil
}

// athome gives the definition of a peer's job with the names among its candidate hosts as they
// are here: what others call own/hpc is hpc, and own is all that is here. So a job that is pinned to a site
// of ours is at home here whichever way it came.
func athome(def *jsdl.JobDefinition, own string) *jsdl.JobDefinition {
	r := def.Description.Resources
	if r == nil || len(r.CandidateHosts) == 0 {
		return def
	}
	hosts, changed := slices.Clone(r.CandidateHosts), false
	for i, h := range hosts {
		name, ours := resourcemodel.Beyond(h, own)
		if ours && name == "" {
			hosts, changed = nil, true
			break
		}
		if ours {
			hosts[i], changed = name, true
		}
	}
	if !changed {
		return def
	}
	d, res := *def, *r
	res.CandidateHosts = hosts
	d.Description.Resources = &res
	return &d
}

// compileForeign is compile for a job of a peer. For which VO it runs here is what its user was mapped
// to, and what the document says of it holds where it comes from.
func (b *Broker) compileForeign(def *jsdl.JobDefinition, owner, vo string) (*kind, error) {
	if own := b.far.own.Load(); own != nil {
		def = athome(def, *own)
	}
	if r := def.Description.Resources; r != nil && r.Placement != nil && r.Placement.VO != nil && *r.Placement.VO != vo {
		d, res, p := *def, *r, *r.Placement
		if p.VO = nil; vo != "" {
			p.VO = &vo
		}
		res.Placement, d.Description.Resources = &p, &res
		def = &d
	}
	return compile(def, resourcemodel.Subject{User: owner, VO: vo})
}

// unfitKind is of a document that is of no use any more.
func unfitKind(err error) *kind {
	return &kind{
		def: new(jsdl.JobDefinition), request: &resourcemodel.Request{Need: resourcemodel.Need{Slots: 1, CPUs: 1}},
		unfit: true, why: fail.Sentence(err),
	}
}

// examine asks the adapters of all sites: theirs is the last word, as they know what
// the model has no words for. A site that can't say now counts as one that could.
func (k *kind) examine(r *roster, epoch uint64) {
	if k.unfit {
		k.epoch = epoch
		return
	}
	account := "" // those of our own may be others at each site, and theirs are the administrator's affair
	if k.foreign != nil {
		account = k.foreign.Account
	} else if k.guest != "" {
		account = k.guest
	}
	barred, keeps := map[string]string{}, map[string]bool{}
	for _, s := range r.sites {
		if why := s.barsForeign(k.foreign); why != "" {
			barred[s.name] = why
			continue
		}
		if k.guest != "" && s.domain() != "" {
			barred[s.name] = "the job is of another domain's user, whose agreement is with this one: it is not passed on"
			continue
		}
		kept, err := s.checkKept(k.def, account, r)
		if err != nil && !fail.Is(err, fail.Unavailable) {
			barred[s.name] = fail.Sentence(err)
		}
		if kept {
			keeps[s.name] = true
		}
	}
	k.barred, k.keeps, k.epoch = barred, keeps, epoch
}

// askedFor is how long what the adapters said of a kind holds for further submissions.
// What waits is asked about again when a site changes, and each adapter has its own
// say when it is handed the job.
const askedFor = 2 * time.Second

// submitted gives the kind of a document that somebody hands in: what alike jobs have
// already, so that a document is compiled and the adapters are asked about it once for
// many. known says that the adapters were not asked anew for it.
func (b *Broker) submitted(def *jsdl.JobDefinition, key kindKey, size int, again bool) (k *kind, known bool, err error) {
	b.mu.Lock()
	r, epoch := b.roster.Load(), b.epoch
	old := b.kinds[key]
	if old == nil {
		old = b.spare.of[key]
	}
	if old != nil && (old.unfit || old.epoch != epoch) {
		old = nil
	}
	fresh := old != nil && !again && time.Since(old.asked) < askedFor
	b.mu.Unlock()
	if fresh {
		return old, true, nil
	}
	if old != nil {
		k = &kind{def: old.def, request: old.request}
	} else if k, err = compile(def, resourcemodel.Subject{User: key.owner}); err != nil {
		return nil, false, err
	}
	k.key, k.size, k.guest = key, size, key.guest
	asked := time.Now()
	k.examine(r, epoch)
	if old != nil && maps.Equal(old.barred, k.barred) && maps.Equal(old.keeps, k.keeps) {
		k = old // which the jobs that wait share
	}
	b.mu.Lock()
	k.asked, k.size = asked, size
	b.mu.Unlock()
	return k, false, nil
}

// spareKinds and spareDocument bound the kinds that are kept though no job has them: how
// many, and of documents of how many bytes.
const (
	spareKinds    = 128
	spareDocument = 16 << 10
)

// spares are kinds that no job has at present, and that the next alike one will want.
type spares struct {
	of    map[kindKey]*kind
	order []kindKey // the oldest first
}

// put keeps a kind in place of the oldest.
func (s *spares) put(k *kind) {
	if k.unfit || k.size == 0 || k.size > spareDocument {
		return
	}
	if s.of[k.key] == nil {
		if s.order = append(s.order, k.key); len(s.order) > spareKinds {
			delete(s.of, s.order[0])
			s.order = slices.Delete(s.order, 0, 1)
		}
	}
	if s.of == nil {
		s.of = map[kindKey]*kind{}
	}
	s.of[k.key] = k
}

// clear forgets them all: what their sites are has changed.
func (s *spares) clear() { *s = spares{} }

// member reports why a principal may not act for a VO; nil if they may.
func (b *Broker) member(who soap.Principal, vo string) error {
	if vo == "" || b.cfg.Member == nil {
		return nil
	}
	if err := b.cfg.Member(who, vo); err != nil {
		return fail.Errorf("broker.member", fail.Denied, vo, "%s is not known here as a member of the VO %s", who.Name, vo).Because(err)
	}
	return nil
}

// holdKind gives a kind a further holder; the caller holds the lock.
func (b *Broker) holdKind(j *job, k *kind) {
	if j.kind == k {
		return
	}
	b.dropKind(j)
	k.refs++
	j.kind = k
}

// dropKind lets go of a job's kind; the caller holds the lock.
func (b *Broker) dropKind(j *job) {
	k := j.kind
	if k == nil {
		return
	}
	j.kind = nil
	if k.refs--; k.refs == 0 && b.kinds[k.key] == k {
		delete(b.kinds, k.key)
		b.spare.put(k)
	}
}

// keyOf gives the key of a job's kind.
func keyOf(j *job) kindKey { return keyOfRecord(&j.rec) }

func keyOfRecord(rec *store.Job) kindKey {
	return kindKey{rec.DocumentSum, rec.Owner, wayKey(rec.Status.Foreign, rec.Status.VO), guestOf(rec.Status.Promise)}
}

// guestOf gives the account of another domain's user, whose agreement a job is of.
func guestOf(p *Promise) string {
	if p == nil {
		return ""
	}
	return p.Account
}

// against says what stands against each site that could not run a job of the kind, in
// the order of the roster, and whether any could. One that has not told what it has
// counts as one that could. The caller holds the lock.
func (b *Broker) against(k *kind, refused []string) (why string, could []*site) {
	var all []string
	r := b.roster.Load()
	for _, s := range r.sites {
		if no, barred := k.barred[s.name]; barred {
			all = append(all, "site "+s.name+": "+no)
			continue
		}
		if slices.Contains(refused, s.name) {
			continue
		}
		no := s.cannot(k.request)
		if domain := s.domain(); domain != "" {
			no = b.cannotFar(domain, k.request)
		}
		if no != "" {
			all = append(all, "site "+s.name+": "+no)
			continue
		}
		could = append(could, s)
	}
	if len(r.sites) == 0 {
		all = append(all, "no site takes jobs at present")
	}
	return strings.Join(all, "; "), could
}

// cannot gives the first clause that stands against each place of the site, as far as
// the model knows; "" when it could, or nobody knows. The caller holds the lock.
func (s *site) cannot(r *resourcemodel.Request) string {
	st := s.static
	if st == nil || len(st.Shares) == 0 {
		return ""
	}
	site := &resourcemodel.Site{Key: s.key(), Static: st, Dynamic: s.dynamic}
	first, best := "", 0
	for i := range st.Shares {
		for _, id := range st.Shares[i].Environments {
			e := st.Environment(id)
			if e == nil {
				continue
			}
			v := r.Judge(site, &st.Shares[i], e, resourcemodel.Derived{})
			if v.Could {
				return ""
			}
			// Of several places, the one against which the least stands.
			if n := statics(v.Clauses); first == "" || n < best {
				first, best = v.Clauses[0].Sentence, n
			}
		}
	}
	return first
}

func statics(clauses []resourcemodel.Clause) int {
	n := 0
	for _, c := range clauses {
		if !c.Dynamic {
			n++
		}
	}
	return n
}

// readKinds brings the jobs that wait to be read to the scheduler: documents of kinds
// that are not in memory are read, adapters that were not asked are. It gives whether
// there are more. Only the dispatcher does this.
func (b *Broker) readKinds(ctx context.Context) (more bool, err error) {
	const most = 1024
	b.mu.Lock()
	r, epoch := b.roster.Load(), b.epoch
	var jobs []*job
	byKey := map[kindKey]store.Job{} // the first job of each kind: others may change its record meanwhile
	known := map[kindKey]*kind{}
	for b.unread.Len() > 0 && len(jobs) < most {
		j := b.unread.first()
		b.unread.take(j)
		j.queued = reading
		k := keyOf(j)
		jobs = append(jobs, j)
		if byKey[k].ID == "" {
			byKey[k] = j.rec
		}
		if have := b.kinds[k]; have != nil {
			known[k] = have
		}
	}
	more = b.unread.Len() > 0
	b.mu.Unlock()
	if len(jobs) == 0 {
		return false, nil
	}
	made := make(map[kindKey]*kind, len(byKey))
	for key, first := range byKey {
		k := known[key]
		switch {
		case k != nil && k.epoch == epoch:
			made[key] = k
			continue
		case k != nil:
			k = k.again()
		default:
			k, err = b.readKind(ctx, &first)
		}
		if err != nil {
			break
		}
		k.key = key
		k.examine(r, epoch)
		made[key] = k
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range jobs {
		if b.jobs[j.rec.ID] != j || j.queued != reading {
			continue // the committer changed it meanwhile
		}
		j.queued = nowhere
		if k := made[keyOf(j)]; k != nil {
			if old := b.kinds[k.key]; old != nil && old != k && old.epoch < k.epoch {
				// Jobs that have the old one keep it: they are read again as well, or gone.
				b.kinds[k.key] = k
			} else if old == nil {
				b.kinds[k.key] = k
			} else {
				k = old
			}
			b.holdKind(j, k)
		} else if err != nil { // without waking anybody: that would be at once
			b.unread.put(j)
			j.queued = unread
			continue
		}
		b.enqueue(j)
	}
	return more || b.unread.Len() > 0, err
}

// again gives the kind as it is before adapters are asked.
func (k *kind) again() *kind {
	return &kind{def: k.def, request: k.request, foreign: k.foreign, guest: k.guest, unfit: k.unfit, why: k.why}
}

// readKind reads a job's document.
func (b *Broker) readKind(ctx context.Context, rec *store.Job) (*kind, error) {
	doc, err := b.cfg.Store.Document(ctx, rec.ID)
	if fail.Is(err, fail.NotFound) {
		return unfitKind(err), nil
	}
	if err != nil {
		return nil, err
	}
	def, problems := jsdl.Parse(doc, b.cfg.JSDL)
	if err := judge(def, problems); err != nil {
		return unfitKind(err), nil
	}
	var k *kind
	if rec.Status.Foreign != nil {
		k, err = b.compileForeign(def, rec.Owner, rec.Status.VO)
	} else {
		k, err = compile(def, resourcemodel.Subject{User: rec.Owner})
	}
	if err != nil {
		return unfitKind(err), nil
	}
	k.foreign, k.guest = rec.Status.Foreign, guestOf(rec.Status.Promise)
	return k, nil
}

// avoid gives the sites that a job is not to get, for the scheduler.
func (k *kind) avoid(refused []string) []resourcemodel.Key {
	names := map[string]bool{}
	for _, n := range refused {
		names[n] = true
	}
	for n := range k.barred {
		names[n] = true
	}
	var out []resourcemodel.Key
	for _, n := range slices.Sorted(maps.Keys(names)) {
		out = append(out, resourcemodel.Key{Site: n})
	}
	return out
}
