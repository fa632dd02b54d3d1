package conformance

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/beevik/etree"
	"github.com/google/uuid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/wire"
)

// Guest is who the kit is to a peer endpoint. The endpoint must trust the domain, by the
// certificate that Options.HTTP shows, as one that may give it jobs, and know no endpoint
// of it: the kit can't be reached, and polls.
type Guest struct {
	Domain string    // that the kit speaks for; required
	Role   wire.Role // what the kit is to the endpoint; wire.Peer if ""
	VO     string    // that jobs run for
	// Vouch makes the assertion about the user of a job with an id and a document, for the
	// domain that is to run it; nil sends none.
	Vouch func(audience, job, document string) ([]byte, error)
	// Signature signs what the kit says in the favour ledger, and Signed checks that a domain
	// signed what the endpoint says there; a nil one skips what needs it.
	Signature func(data []byte) ([]byte, error)
	Signed    func(domain string, data, signature []byte) error
	// Nobody shows no certificate, and Other that of another domain that is trusted too; a
	// nil one skips what needs it.
	Nobody, Other *http.Client
	OtherDomain   string
	// Sign makes an envelope show whom it is of, and OtherSign that it is of OtherDomain; nil
	// leaves that to the certificate. What is no XML is sent as it is.
	Sign, OtherSign func(ctx context.Context, envelope *etree.Element) error
}

func (g *Guest) validate() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("conformance.Run", fail.Invalid, g.Domain, format, args...)
	}
	if _, err := wire.Encode(&wire.Query{About: wire.About{Origin: g.Domain, ID: "x", Token: "1"}}); err != nil {
		return bad("the profile %s needs the domain that the kit speaks for, which the endpoint trusts", Peer)
	}
	if (g.Other == nil) != (g.OtherDomain == "") {
		return bad("the second domain needs its name and its certificate")
	}
	return nil
}

// chapter names a part of docs/peer-protocol.md.
func chapter(where string) string { return "Portolan peer protocol 1, " + where }

// textOf gives the XML of a message of the protocol.
func textOf(m wire.Message) (string, error) {
	e, err := wire.Encode(m)
	if err != nil {
		return "", fmt.Errorf("the kit can't write its message, which is a mistake of the kit or of what the endpoint agreed to: %w", err)
	}
	return string(xmldoc.Marshal(e)), nil
}

// peerPort begins the actions of the protocol.
const peerPort = wire.NS + "/PeerPortType/"

// carrying gives a SOAP message around the text of an operation, addressed as the protocol
// asks.
func (p *probe) carrying(operation, text string) message {
	m := p.identified(operation, text, "urn:uuid:"+uuid.NewString())
	return m.under(wsaHeader("ReplyTo", "", address(soap.Anonymous)))
}

// identified is that with a MessageID that the caller knows, and without a ReplyTo.
func (p *probe) identified(operation, text, id string) message {
	m := p.addressed(message{action: peerPort + operation, body: text}, id)
	m.sign = signing(p.opts.Guest.Sign)
	return m
}

// signing gives what signs the text of an envelope.
func signing(sign func(context.Context, *etree.Element) error) func([]byte) []byte {
	if sign == nil {
		return nil
	}
	return func(b []byte) []byte {
		doc, err := xmldoc.ReadBytes(b, replyLimits)
		if err != nil {
			return b
		}
		if err := sign(context.Background(), doc.Root()); err != nil {
			return b // the endpoint says that it is not signed
		}
		return xmldoc.Marshal(doc.Root())
	}
}

// refusal is a fault that is no wire.Fault.
type refusal struct{ rep *reply }

func (r refusal) Error() string { return r.rep.String() }

// spoken reads a reply as one of the protocol: a message, or a *wire.Fault as the error.
func (r *reply) spoken() (wire.Message, error) {
	if r.fault != nil {
		d := r.fault.detailChild()
		if d == nil {
			return nil, refusal{r}
		}
		m, err := wire.Decode(r.doc, d)
		if err != nil {
			return nil, fmt.Errorf("the fault's detail does not keep to the protocol: %w (%s)", err, r)
		}
		f, ok := m.(*wire.Fault)
		if !ok {
			return nil, refusal{r}
		}
		return nil, f
	}
	if r.payload == nil {
		return nil, fmt.Errorf("the answer is empty: %s", r)
	}
	m, err := wire.Decode(r.doc, r.payload)
	if err != nil {
		return nil, fmt.Errorf("the answer does not keep to the protocol: %w", err)
	}
	if r.status != http.StatusOK {
		return nil, fmt.Errorf("%s came with HTTP %d: wanted 200", wire.Name(m).Local, r.status)
	}
	return m, nil
}

// say sends a SOAP message and reads the answer as one of the protocol.
func (p *probe) say(ctx context.Context, m message) (wire.Message, error) {
	rep, err := p.ask(ctx, m)
	if err != nil {
		return nil, err
	}
	return rep.spoken()
}

// send sends a message of the protocol.
func (p *probe) send(ctx context.Context, m wire.Message, patience time.Duration) (wire.Message, error) {
	text, err := textOf(m)
	if err != nil {
		return nil, err
	}
	c := p.carrying(wire.Name(m).Local, text)
	c.patience = patience
	return p.say(ctx, c)
}

// wantCode fails unless err is a fault of the protocol with one of the codes.
func wantCode(got wire.Message, err error, codes ...wire.FaultCode) (string, error) {
	if f, ok := errors.AsType[*wire.Fault](err); ok {
		if slices.Contains(codes, f.Code) {
			return string(f.Code) + ": " + f.Sentence, nil
		}
		return "", fmt.Errorf("wanted a fault %s, got %s: %s", joinCodes(codes), f.Code, f.Sentence)
	}
	if err != nil {
		return "", fmt.Errorf("wanted a fault %s, got: %w", joinCodes(codes), err)
	}
	return "", fmt.Errorf("wanted a fault %s, got %s", joinCodes(codes), wire.Name(got).Local)
}

func joinCodes(codes []wire.FaultCode) string {
	var all []string
	for _, c := range codes {
		all = append(all, string(c))
	}
	return strings.Join(all, " or ")
}

// visit is the kit's side of one session: no more than the rules of the protocol need.
type visit struct {
	p      *probe
	open   *wire.Open
	opened *wire.Opened

	mu      sync.Mutex
	number  uint64 // of the last frame that was made
	heard   uint64 // the highest of theirs
	numbers map[uint64]bool
	sent    uint64 // items
	theirs  wire.Frame
	got     uint64
	holds   bool // nothing is said to be done with
	done    uint64
	limit   uint64
	seen    []wire.Message // their items; seen[i] has the number i+1
}

// errands are what is to be sent with the next frame of any session, so that the endpoint is left
// as it was found.
type errands struct {
	mu      sync.Mutex
	owed    []wire.Message
	dropped map[wire.About]bool // copies whose end is to be settled
}

// add has something sent.
func (e *errands) add(m wire.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.owed = append(e.owed, m)
}

// take gives some of what is to be sent.
func (e *errands) take(most int) []wire.Message {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := min(len(e.owed), max(0, most))
	out := slices.Clone(e.owed[:n])
	e.owed = e.owed[n:]
	return out
}

// left reports whether there is something to be sent or waited for.
func (e *errands) left() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.owed)+len(e.dropped) > 0
}

// offer gives what the kit asks for in a session.
func (p *probe) offer(change func(*wire.Open)) *wire.Open {
	role := p.opts.Guest.Role
	if role == "" {
		role = wire.Peer
	}
	var vos []string
	if vo := p.opts.Guest.VO; vo != "" {
		vos = []string{vo}
	}
	o := &wire.Open{
		Session: "urn:uuid:" + uuid.NewString(), Instance: "conformance",
		Party:    wire.Party{Domain: p.opts.Guest.Domain, Software: "portolan-conformance", Role: role, Consumes: true, Provides: true, Shows: wire.None, VOs: vos},
		Versions: []string{"1"}, Features: wire.Features(), Beat: 30 * time.Second, Window: 64, Clock: time.Now().UTC(),
		Terms: wire.Terms{Lease: 10 * time.Minute, Skew: time.Second, StopWithin: time.Second, Resend: time.Second, Keep: time.Hour},
	}
	if change != nil {
		change(o)
	}
	return o
}

// patient sends what may be answered with Busy, and comes again when it says.
func (p *probe) patient(ctx context.Context, m wire.Message) (wire.Message, error) {
	for until := time.Now().Add(p.opts.Settle); ; {
		got, err := p.send(ctx, m, 0)
		f, ok := errors.AsType[*wire.Fault](err)
		if !ok || f.Code != wire.Busy || time.Now().Add(f.Retry).After(until) {
			return got, err
		}
		t := time.NewTimer(max(f.Retry, 100*time.Millisecond))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

// awake waits until an endpoint that is starting is not busy any more.
func (p *probe) awake(ctx context.Context) {
	if m, _, err := p.stray(); err == nil {
		_, _ = p.patient(ctx, m) // what is wrong with it is told by the checks
	}
}

// begin opens a session of its own, which takes the place of the one before.
func (p *probe) begin(ctx context.Context, change func(*wire.Open)) (*visit, error) {
	p.visit = nil
	o := p.offer(change)
	m, err := p.patient(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("OpenSession: %w", err)
	}
	a, ok := m.(*wire.Opened)
	if !ok {
		return nil, fmt.Errorf("OpenSession was answered with %s", wire.Name(m).Local)
	}
	return &visit{
		p: p, open: o, opened: a, limit: uint64(o.Window), theirs: wire.Frame{Limit: uint64(a.Window)},
		numbers: map[uint64]bool{},
	}, nil
}

// standing gives a session that is open, which checks use that leave it as it is.
func (p *probe) standing(ctx context.Context) (*visit, error) {
	if p.visit != nil {
		return p.visit, nil
	}
	v, err := p.begin(ctx, nil)
	if err == nil {
		p.visit = v
	}
	return v, err
}

// leave ends what the run left open: jobs, and the session.
func (p *probe) leave(ctx context.Context) {
	if p.unanswered >= silent {
		return
	}
	if p.errands.left() {
		if v, err := p.standing(ctx); err == nil {
			for until := time.Now().Add(3 * time.Second); p.errands.left() && time.Now().Before(until); {
				if _, err := v.poll(ctx, 500*time.Millisecond); err != nil {
					break
				}
			}
		}
	}
	if p.visit == nil {
		return
	}
	f := p.visit.frame()
	f.Closing = wire.Ended
	if _, err := p.send(ctx, &wire.Close{Frame: f, Reason: wire.Shutdown, Sentence: "the run is over"}, 0); err != nil {
		p.opts.Log.WarnContext(ctx, "the session of the run was not closed", "error", err)
	}
}

// frame makes the next frame.
func (v *visit) frame() wire.Frame {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.number++
	if !v.holds {
		v.done = v.got
	}
	v.limit = max(v.limit, v.done+uint64(v.open.Window))
	return wire.Frame{Session: v.open.Session, Number: v.number, Heard: v.heard, Sent: v.sent, Got: v.got, Done: v.done, Limit: v.limit, Clock: time.Now().UTC()}
}

// read takes a frame of the other side by the receiver's rules; the error says which rule of
// the sender's was broken.
func (v *visit) read(f *wire.Frame) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	broken := func(format string, args ...any) error {
		return fmt.Errorf("frame %d: %s", f.Number, fmt.Sprintf(format, args...))
	}
	switch {
	case f.Session != v.open.Session:
		return broken("it is of the session %q", f.Session)
	case v.numbers[f.Number]:
		return broken("an earlier frame had this number")
	case f.Heard > v.number:
		return broken("heard is %d, and the kit made %d frames", f.Heard, v.number)
	case f.Got > v.sent:
		return broken("got is %d, and the kit sent %d items", f.Got, v.sent)
	}
	v.numbers[f.Number] = true
	if f.Number > v.heard {
		switch t := &v.theirs; {
		case f.Got < t.Got || f.Done < t.Done || f.Sent < t.Sent || f.Limit < t.Limit:
			return broken("got, done, sent, limit went back from %d, %d, %d, %d to %d, %d, %d, %d", t.Got, t.Done, t.Sent, t.Limit, f.Got, f.Done, f.Sent, f.Limit)
		case f.Limit > f.Done+uint64(v.opened.Window) && f.Limit > t.Limit:
			return broken("limit is %d, which is more than done, %d, and the window, %d", f.Limit, f.Done, v.opened.Window)
		}
		v.heard, v.theirs = f.Number, *f
		v.theirs.Items = nil
	}
	for i, m := range f.Items {
		switch n := f.First + uint64(i); {
		case n > v.limit:
			return broken("it has item %d, above the credit, %d", n, v.limit)
		case n <= v.got:
			if !same(v.seen[n-1], m) {
				return broken("item %d is another than it was before", n)
			}
		case n > v.got+1:
			return broken("it has item %d after item %d", n, v.got)
		default:
			v.got++
			v.seen = append(v.seen, m)
			v.settle(m)
		}
	}
	return nil
}

// settle has the other side forget what a check is through with.
func (v *visit) settle(m wire.Message) {
	e := &v.p.errands
	e.mu.Lock()
	defer e.mu.Unlock()
	if r, ok := m.(*wire.Report); ok && e.dropped[r.About] && final(r) {
		delete(e.dropped, r.About)
		e.owed = append(e.owed, &wire.Settle{About: r.About, Taken: true})
	}
}

// same compares items as they are written.
func same(a, b wire.Message) bool {
	x, errX := textOf(a)
	y, errY := textOf(b)
	return errX == nil && errY == nil && x == y
}

// with puts items into a frame, as the next ones.
func (v *visit) with(f *wire.Frame, items ...wire.Message) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// What is owed goes first, as far as the credit leaves room for it.
	items = append(v.p.errands.take(int(v.theirs.Limit)-int(v.sent)-len(items)), items...)
	if len(items) == 0 {
		return
	}
	f.First, f.Items = v.sent+1, items
	v.sent += uint64(len(items))
	f.Sent = v.sent
}

// exchanged sends an Exchange and reads the answer's frame.
func (v *visit) exchanged(ctx context.Context, f wire.Frame) (*wire.Frame, error) {
	m, err := v.p.send(ctx, &wire.Exchange{Frame: f}, f.Hold)
	if err != nil {
		return nil, fmt.Errorf("Exchange: %w", err)
	}
	a, ok := m.(*wire.Exchanged)
	if !ok {
		return nil, fmt.Errorf("Exchange was answered with %s", wire.Name(m).Local)
	}
	return &a.Frame, v.read(&a.Frame)
}

// give sends items, whose answer is held until they are done with, or for 5 s.
func (v *visit) give(ctx context.Context, items ...wire.Message) (*wire.Frame, error) {
	f := v.frame()
	f.Hold = 5 * time.Second
	v.with(&f, items...)
	return v.exchanged(ctx, f)
}

// poll waits for items.
func (v *visit) poll(ctx context.Context, hold time.Duration) (*wire.Frame, error) {
	f := v.frame()
	f.Hold, f.Poll = hold, true
	v.with(&f)
	return v.exchanged(ctx, f)
}

// heartbeat gives a sign of life.
func (v *visit) heartbeat(ctx context.Context) (*wire.Frame, error) {
	return v.beat(ctx, v.frame())
}

func (v *visit) beat(ctx context.Context, f wire.Frame) (*wire.Frame, error) {
	m, err := v.p.send(ctx, &wire.Heartbeat{Frame: f}, 0)
	if err != nil {
		return nil, fmt.Errorf("Heartbeat: %w", err)
	}
	a, ok := m.(*wire.HeartbeatAnswer)
	if !ok {
		return nil, fmt.Errorf("Heartbeat was answered with %s", wire.Name(m).Local)
	}
	return &a.Frame, v.read(&a.Frame)
}

// mark gives how many items were seen, for await.
func (v *visit) mark() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.seen)
}

// since gives the items after a mark.
func (v *visit) since(mark int) []wire.Message {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.seen[mark:])
}

// await polls until an item after the mark is the one that is waited for.
func await[T wire.Message](ctx context.Context, v *visit, mark int, what string, is func(T) bool) (T, error) {
	for until := time.Now().Add(v.p.opts.Settle); ; {
		for _, m := range v.since(mark) {
			if x, ok := m.(T); ok && is(x) {
				return x, nil
			}
		}
		var none T
		if left := time.Until(until); left <= 0 {
			return none, fmt.Errorf("no %s came within %v; there came %s", what, v.p.opts.Settle, kinds(v.since(mark)))
		}
		f, err := v.poll(ctx, min(time.Second, time.Until(until)))
		if err != nil {
			return none, fmt.Errorf("while %s was waited for: %w", what, err)
		}
		if f.Closing == wire.Ended {
			return none, fmt.Errorf("the session was closed while %s was waited for", what)
		}
	}
}

// kinds tells which items there are.
func kinds(items []wire.Message) string {
	if len(items) == 0 {
		return "nothing"
	}
	var all []string
	for _, m := range items[:min(len(items), 8)] {
		all = append(all, wire.Name(m).Local)
	}
	return strings.Join(all, ", ")
}

// unknown gives a copy that nobody has.
func (p *probe) unknown() wire.About {
	return wire.About{Origin: p.opts.Guest.Domain, ID: p.fresh("unknown"), Token: "1"}
}

// asks gives so many items, each of which has one answer of its own and no effect besides, whatever
// the endpoint offers: routes of jobs that came through its domain before, which nobody takes.
func (v *visit) asks(n int) []wire.Message {
	var out []wire.Message
	for range n {
		out = append(out, v.asking())
	}
	return out
}

func (v *visit) asking() *wire.Route {
	r := &wire.Route{
		About: wire.About{Origin: v.opened.Domain, ID: v.p.fresh("ask"), Token: "1.1"}, RecallBy: time.Now().UTC().Add(v.opened.Terms.Lease / 2).Truncate(time.Millisecond),
		Hops: 2, VO: v.p.opts.Guest.VO, Path: []string{v.opened.Domain, v.p.opts.Guest.Domain}, Document: v.p.documentFor(v.p.opts.Programs.True),
	}
	r.Digest = digestOf(r)
	return r
}

// about reports whether an answer is about a copy.
func about(a wire.About) func(*wire.Answer) bool {
	return func(r *wire.Answer) bool { return r.About == a }
}

// answered waits for the answer to what was asked.
func (v *visit) answered(ctx context.Context, mark int, q wire.Message) (*wire.Answer, error) {
	return await(ctx, v, mark, "Answer to what was asked", about(q.(*wire.Route).About))
}

// caughtUp sends items and waits until all of them, and what came before, was answered.
func (v *visit) caughtUp(ctx context.Context, items ...wire.Message) error {
	mark, q := v.mark(), v.asking()
	if _, err := v.give(ctx, append(items, q)...); err != nil {
		return err
	}
	_, err := v.answered(ctx, mark, q)
	return err
}

// zip compresses.
func zip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b) // a Buffer takes everything
	_ = w.Close()
	return out.Bytes()
}
