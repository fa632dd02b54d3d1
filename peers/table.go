package peers

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// Options are those of a Table. Domain, Trust and Handler are required.
type Options struct {
	// Domain that this gateway speaks for.
	Domain string
	// Software names it and its version, for people.
	Software string
	// Endpoint is the URL at which peers reach its Server; "" for a gateway that is
	// outbound-only.
	Endpoint string
	// Instance changes whenever the gateway lost what it knew of its sessions, as by a
	// restart; "" makes one up.
	Instance string
	Trust    Trust
	Handler  Handler
	// Transport makes what carries requests to a peer; nil is a pool of connections with
	// the settings that Trust gives.
	Transport func(p Peer) (http.RoundTripper, error)
	// Version of SOAP that requests are sent in; 1.1 unless set.
	Version soap.Version
	// MaxPeers bounds the peers; default 20 000.
	MaxPeers int
	Log      *slog.Logger // nil discards
}

// Table is all sessions of one gateway: one with each peer at most. It is safe for
// concurrent use.
type Table struct {
	o Options

	// mu is taken after the lock of an entry, never before it.
	mu       sync.RWMutex
	entries  map[string]*entry   // by domain
	leaving  map[string][]*entry // removed ones whose session is being drained, the last removed last
	sessions map[string]*entry   // by the names of sessions: those that stand, and closed ones that are remembered
	ran      bool
	// start runs something until Run ends; nil before Run and after it.
	start   func(do func(context.Context))
	closing bool
	ended   chan struct{} // closed with Run
	wg      sync.WaitGroup
}

// New makes a Table without peers. It does nothing before Run. The error is fail.Invalid.
func New(o Options) (*Table, error) {
	if o.Domain == "" || o.Trust == nil || o.Handler == nil {
		return nil, fail.Errorf("peers.New", fail.Invalid, o.Domain, "a table of peers needs a domain, trust and a handler")
	}
	if o.Endpoint != "" {
		if err := checkURL(o.Endpoint); err != nil {
			return nil, fail.Errorf("peers.New", fail.Invalid, o.Endpoint, "the endpoint %q is no absolute http or https URL", o.Endpoint).Because(err)
		}
	}
	if o.Instance == "" {
		o.Instance = "urn:uuid:" + uuid.NewString()
	}
	if o.MaxPeers == 0 {
		o.MaxPeers = 20_000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Table{
		o: o, entries: map[string]*entry{}, leaving: map[string][]*entry{}, sessions: map[string]*entry{}, ended: make(chan struct{}),
	}, nil
}

// Run keeps sessions with all peers until ctx is over. Then they are left as they are, as
// in a crash: the Handler hears nothing more, and nothing that the table started goes on
// when Run returns. See Close for a kinder end. It may run once: else fail.Conflict.
func (t *Table) Run(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	if t.ran {
		t.mu.Unlock()
		return fail.Errorf("peers.Run", fail.Conflict, t.o.Domain, "the table of peers runs, or ran")
	}
	t.ran = true
	t.start = func(do func(context.Context)) { t.wg.Go(func() { do(inner) }) }
	t.mu.Unlock()
	for _, e := range t.all() {
		e.locked(e.open)
	}
	<-ctx.Done()
	t.mu.Lock()
	t.start = nil
	close(t.ended)
	t.mu.Unlock()
	for _, e := range t.all() {
		e.locked(e.stop)
	}
	t.wg.Wait()
	return nil
}

// spawn runs something until Run ends. It is false where Run does not run.
func (t *Table) spawn(do func(context.Context)) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.start == nil {
		return false
	}
	t.start(do)
	return true
}

// all gives the entries, those that leave too.
func (t *Table) all() []*entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := slices.Collect(maps.Values(t.entries))
	for _, l := range t.leaving {
		all = append(all, l...)
	}
	return all
}

// goodbyeTime is how long Close waits for the other sides to hear of an end without drain.
const goodbyeTime = 2 * time.Second

// Close drains all sessions and takes no others: what was put is done with by the other
// sides first, and what they sent by this. Where ctx is over before, they are closed as
// they stand, and its error is returned. Run is to be ended after it.
func (t *Table) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closing = true
	runs := t.start != nil
	t.mu.Unlock()
	if !runs {
		return nil
	}
	var gone []<-chan struct{}
	for _, e := range t.all() {
		e.locked(func() {
			gone = append(gone, e.close(session.Stop{Reason: wire.Shutdown, Sentence: "the gateway stops", Drain: true})...)
		})
	}
	err := t.wait(ctx, gone)
	if err == nil {
		return t.wait(ctx, t.told())
	}
	for _, e := range t.all() {
		e.locked(func() {
			e.close(session.Stop{Reason: wire.Shutdown, Sentence: "the gateway stops and was given no time to drain the session"})
		})
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTime)
	defer cancel()
	_ = t.wait(last, append(gone, t.told()...)) // who does not hear of it finds out
	return err
}

// told gives what is closed when the handler was told all that there was.
func (t *Table) told() (told []<-chan struct{}) {
	for _, e := range t.all() {
		ch := make(chan struct{})
		told = append(told, ch)
		e.tell(func(Handler) { close(ch) })
	}
	return told
}

func (t *Table) wait(ctx context.Context, gone []<-chan struct{}) error {
	for _, g := range gone {
		select {
		case <-g:
		case <-t.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Add adds a peer. The error is fail.Conflict where the domain is there, fail.Invalid for
// what can't be a peer, fail.Exhausted where there are too many.
func (t *Table) Add(p Peer) error {
	p = p.clone()
	if err := t.o.validate(p); err != nil {
		return err
	}
	e := newEntry(t, p)
	t.mu.Lock()
	var err error
	switch {
	case t.entries[p.Domain] != nil:
		err = fail.Errorf("peers.Add", fail.Conflict, p.Domain, "%s is a peer already: change it, or remove it first", p.Domain)
	case len(t.entries) >= t.o.MaxPeers:
		err = fail.Errorf("peers.Add", fail.Exhausted, p.Domain, "there are %d peers, which is all that there may be: remove one first", len(t.entries))
	}
	var old *entry
	if err == nil {
		t.entries[p.Domain] = e
		if l := t.leaving[p.Domain]; len(l) > 0 {
			old = l[len(l)-1]
			e.stream = old.stream // what the handler is told stays in order
		}
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	if old != nil {
		old.locked(func() {
			old.close(session.Stop{Reason: wire.Superseded, Sentence: "the peer was added anew"})
		})
	}
	e.locked(e.open)
	return nil
}

// Change changes a peer. A session that was agreed on under other wishes is drained for
// half a minute and opened anew; where only its URL, or what it is shown, changed, it
// stays. The error is fail.NotFound or fail.Invalid.
func (t *Table) Change(p Peer) error {
	p = p.clone()
	if err := t.o.validate(p); err != nil {
		return err
	}
	e := t.entry(p.Domain)
	if e == nil {
		return noPeer("peers.Change", p.Domain)
	}
	e.locked(func() { e.change(p) })
	return nil
}

// drainTime is what a session is given that is not wanted any more.
const drainTime = 30 * time.Second

// Remove removes a peer: its session is drained for half a minute and closed as withdrawn,
// and no other is taken. The error is fail.NotFound.
func (t *Table) Remove(domain string) error {
	t.mu.Lock()
	e := t.entries[domain]
	delete(t.entries, domain)
	if e != nil {
		t.leaving[domain] = append(t.leaving[domain], e)
	}
	t.mu.Unlock()
	if e == nil {
		return noPeer("peers.Remove", domain)
	}
	e.locked(func() {
		e.removed = true
		e.close(session.Stop{Reason: wire.Withdrawn, Sentence: "the administrator of " + t.o.Domain + " ended the relation", Drain: true, By: time.Now().Add(drainTime)})
		e.settle()
	})
	return nil
}

// Hurry closes at once what still stands with a removed peer. It does nothing where nothing does.
func (t *Table) Hurry(domain string) {
	for _, e := range t.left(domain) {
		e.locked(func() {
			e.close(session.Stop{Reason: wire.Withdrawn, Sentence: "the administrator of " + t.o.Domain + " ended the relation"})
		})
	}
}

// Left waits until nothing stands any more with a removed peer, or the table ends. The error
// is that of ctx.
func (t *Table) Left(ctx context.Context, domain string) error {
	var gone []<-chan struct{}
	for _, e := range t.left(domain) {
		e.locked(func() {
			for _, l := range e.links() {
				gone = append(gone, l.gone)
			}
		})
	}
	return t.wait(ctx, gone)
}

// left gives what still stands with a removed peer.
func (t *Table) left(domain string) []*entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.leaving[domain])
}

func (t *Table) entry(domain string) *entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.entries[domain]
}

func noPeer(op, domain string) error {
	return fail.Errorf(op, fail.NotFound, domain, "%s is no peer here: add it first", domain)
}

// Put gives items to be sent to a peer: all are taken, or none. They go in order, once,
// while the session lasts; with the session those go that were not acknowledged. The items
// are not to be changed afterwards. The error is fail.NotFound without such a peer,
// fail.Unavailable without a session, fail.NotAccepting where it is being drained,
// fail.Exhausted without room (Handler.Free tells when there is some), fail.Unsupported
// where an item belongs to a feature that was not agreed on, fail.Invalid for what is no
// item, or breaks its bounds.
func (t *Table) Put(domain string, items ...wire.Message) error {
	for _, m := range items {
		if err := wire.Sendable(m); err != nil {
			return err
		}
	}
	e := t.entry(domain)
	if e == nil {
		return noPeer("peers.Put", domain)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.put(items)
}

// Sessions tells how it stands with each peer, in the order of their domains.
func (t *Table) Sessions() []Status {
	t.mu.RLock()
	all := slices.Collect(maps.Values(t.entries))
	t.mu.RUnlock()
	out := make([]Status, len(all))
	for i, e := range all {
		e.locked(func() { out[i] = e.status() })
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Peer.Domain, b.Peer.Domain) })
	return out
}

// Session tells how it stands with one peer. The error is fail.NotFound.
func (t *Table) Session(domain string) (Status, error) {
	e := t.entry(domain)
	if e == nil {
		return Status{}, noPeer("peers.Session", domain)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status(), nil
}

// Retry asks for a session with a peer at once, where there is none and it has a URL. The
// error is fail.NotFound.
func (t *Table) Retry(domain string) error {
	e := t.entry(domain)
	if e == nil {
		return noPeer("peers.Retry", domain)
	}
	e.locked(func() {
		e.tries = 0
		e.open()
	})
	return nil
}

// answer answers a request of the other side. The error is a *wire.Fault, or becomes one.
func (t *Table) answer(ctx context.Context, who Sender, request wire.Message) (wire.Message, error) {
	open, _ := request.(*wire.Open)
	name := ""
	if open != nil {
		name = open.Session
	} else if f := frameOf(request); f != nil {
		name = f.Session
	}
	t.mu.RLock()
	e, owner, runs, closing := t.entries[who.Domain], t.sessions[name], t.start != nil, t.closing
	t.mu.RUnlock()
	fault := func(code wire.FaultCode, sentence string) (wire.Message, error) {
		return nil, &wire.Fault{Code: code, Session: name, Sentence: wire.Sentence(sentence)}
	}
	if owner != nil && owner.domain != who.Domain {
		return fault(wire.NotTrusted, "the session is of another domain than the message, which is of "+who.Domain)
	}
	if e == nil && (owner == nil || open != nil) {
		return fault(wire.NotTrusted, who.Domain+" is no peer of "+t.o.Domain+": its administrator must add it")
	}
	if open == nil && owner != nil {
		e = owner
	}
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.entry = e
	}
	switch {
	case !runs:
		return nil, busy(name, "this gateway does not keep sessions now: come again", 5*time.Second)
	case open != nil && open.Domain != who.Domain:
		return fault(wire.NotTrusted, "the message is of "+who.Domain+" and speaks for "+open.Domain)
	case open != nil && closing:
		return nil, busy(name, "this gateway is about to stop: come again", drainTime)
	case open != nil:
		return e.accept(open, owner != nil && owner != e)
	case owner == nil && e.isAsking(name):
		// The other side agreed, and is faster than its answer.
		return nil, busy(name, "the session is being opened: come again", soonTime)
	}
	// Which sessions there are is looked at once more: it may have been opened this moment.
	return e.answer(ctx, request)
}
