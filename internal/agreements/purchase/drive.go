package purchase

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/agreements/offering"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	// maxTries bounds the offers of a purchase: between the question and the offer others may be faster.
	maxTries = 8
	// maxTemplates bounds the templates of a domain that are asked by.
	maxTemplates = 8
	// lead is how long before a window that is open already the offer begins: it takes time to reach
	// the domain.
	lead = 2 * time.Second
	// maxBackoff bounds the time between two requests that are not answered.
	maxBackoff = 30 * time.Second
)

// drive does the next step of a purchase, in the record, which is then to be written; false is that
// nothing is to be.
func (b *Buyer) drive(ctx context.Context, r *Record) bool {
	now := b.now()
	switch r.State {
	case Bought:
		if !now.Before(r.Closes) {
			return b.over(r, now)
		}
		news := r.open(now) && b.looked(r, now)
		if now.Before(r.Next) {
			return news
		}
	case Asking:
		if why := b.tooLate(r, now); why != "" {
			return b.step(r, Declined, why)
		}
	case Preparing:
		if !now.Before(r.Until) { // who holds it has let go
			return b.again(r, LetGo, "it was not held in time")
		}
	case Confirming:
		if !now.Before(r.Closes) { // it may have been sold all the same, and then it costs something
			r.Outcome = Lost
			return b.step(r, Unheard, "the domain "+r.From+" never answered whether it sold the capacity, and the window is over")
		}
	case Releasing:
		if r.Key != "" && now.After(r.Closes.Add(b.o.Settle)) {
			return b.step(r, Over, "the domain "+r.From+" could not be told that it is given back, and the window is over")
		}
		if r.Key == "" {
			if now.Before(r.Until) { // it may be held, and lets go by itself
				r.Next = r.Until
				return true
			}
			return b.withdrawn(r, "nothing of it is held any more")
		}
	case Settling, Refused, Ended, Released, Lost:
	}
	ctx, cancel := context.WithTimeout(ctx, 4*b.o.Timeout)
	defer cancel()
	p, err := b.o.Dial(ctx, r.From)
	switch {
	case err == nil:
		err = b.ask(ctx, r, p)
	case r.State != Asking: // we can't ask it now, and it has said nothing of what it holds or owes
		err = fail.E("purchase.Dial", fail.Unavailable, r.ID, err)
	}
	if errors.Is(err, errNothing) {
		return false
	}
	if err == nil {
		return true
	}
	return b.failed(r, err)
}

// errNothing is that nothing is to be written.
var errNothing = errors.New("nothing changed")

// step moves a record on, to be looked at again at once.
func (b *Buyer) step(r *Record, e Event, reason string) bool {
	if err := r.step(b.now(), e, reason); err != nil {
		b.o.Log.Error("a purchase can't go on", "purchase", r.ID, "cause", err)
		r.Next = b.now().Add(maxBackoff)
		return true
	}
	b.o.Log.Info("a purchase of capacity goes on", "purchase", r.ID, "domain", r.From, "event", string(e), "state", string(r.State), "because", r.Reason)
	if !r.State.Final() {
		r.Next = b.now()
	}
	return true
}

// again is step for an offer that is to be made anew.
func (b *Buyer) again(r *Record, e Event, reason string) bool {
	r.Offer, r.Key, r.Agreement, r.Until = nil, "", "", time.Time{}
	if ok := b.step(r, e, reason); r.Tries < maxTries {
		return ok
	}
	return b.step(r, Declined, fmt.Sprintf("%d offers came to nothing; the last, as %s", r.Tries, reason))
}

// withdrawn ends a release of which the domain has nothing.
func (b *Buyer) withdrawn(r *Record, reason string) bool {
	if r.Outcome == Refused {
		return b.step(r, Declined, reason)
	}
	return b.step(r, Withdrawn, reason)
}

// tooLate says why it is not asked for any more.
func (b *Buyer) tooLate(r *Record, now time.Time) string {
	if last := r.last(); !now.Before(last) {
		why := "the window was over at " + stamp(last) + " before it was bought"
		if r.Reason != "" && len(r.History) > 1 {
			why += ": " + r.Reason
		}
		return why
	}
	return ""
}

// failed takes in an error of the domain, or of the way to it.
func (b *Buyer) failed(r *Record, err error) bool {
	now := b.now()
	reason := fail.Sentence(err)
	switch {
	case passing(err):
	case r.State == Asking && r.Order != "" && (fail.Is(err, fail.Exhausted) || fail.Is(err, fail.NotFound)) && now.Add(b.o.Again).Before(r.Start.Add(r.Later)):
		r.tell(now, "refused", reason+"; it is asked for again")
		r.Next = now.Add(b.o.Again)
		return true
	case r.State == Asking:
		return b.step(r, Declined, reason)
	case r.State == Preparing && (fail.Is(err, fail.Exhausted) || fail.Is(err, fail.Conflict)):
		return b.again(r, LetGo, reason) // somebody was faster, or it was let go
	case r.State == Preparing:
		return b.step(r, Declined, reason)
	case r.State == Confirming && (fail.Is(err, fail.Conflict) || fail.Is(err, fail.NotFound)):
		return b.again(r, LetGo, reason)
	case r.State == Bought && fail.Is(err, fail.NotFound):
		r.Outcome = Lost
		return b.step(r, Dropped, "the domain "+r.From+" knows of no such agreement any more: "+reason)
	case r.State == Releasing && (fail.Is(err, fail.Conflict) || fail.Is(err, fail.NotFound)):
		return b.gone(r, "it was over already: "+reason) // it was over
	case r.State == Settling && (fail.Is(err, fail.NotFound) || !now.Before(r.settleBy(b.o.Settle))):
		return b.step(r, Settled, "what it costs can't be learnt: "+reason)
	}
	if r.State == Settling && !now.Before(r.settleBy(b.o.Settle)) {
		return b.step(r, Settled, "the domain "+r.From+" could not be asked what it costs: "+reason)
	}
	// What is not answered is asked again, and said once in a row.
	if r.Fails == 0 {
		r.tell(now, "unanswered", reason)
	}
	r.Fails++
	wait := min(soon<<min(r.Fails, 16), maxBackoff)
	r.Next = now.Add(wait)
	if r.State == Preparing && r.Next.After(r.Until) {
		r.Next = r.Until
	}
	return true
}

// settleBy gives until when the domain is asked what it costs.
func (r *Record) settleBy(d time.Duration) time.Time {
	at := r.Created
	for _, l := range r.History {
		if l.State == Settling {
			at = l.Time
			break
		}
	}
	return at.Add(d)
}

// passing reports whether the same request may succeed later.
func passing(err error) bool {
	switch fail.KindOf(err) {
	case fail.Unavailable, fail.Uncertain, fail.NotAccepting, fail.Internal:
		return true
	case fail.Exhausted, fail.Invalid, fail.Unsupported, fail.Unauthenticated, fail.Denied, fail.NotFound, fail.Conflict:
	}
	return false
}

// looked notes whether the domain is away, and reports whether that changed.
func (b *Buyer) looked(r *Record, now time.Time) bool {
	why := b.o.Away(r.From)
	switch {
	case why != "" && !r.isAway():
		r.away(now, why)
	case why == "" && r.isAway():
		r.back(now)
		r.tell(now, "back", "what was bought of "+r.From+" can be used again")
	default:
		return false
	}
	return true
}

// over ends a purchase whose window is over.
func (b *Buyer) over(r *Record, now time.Time) bool {
	r.back(now)
	reason := "its window is over"
	if lost := r.Unusable(now); lost > 0 {
		reason += fmt.Sprintf("; for %s of it what was bought could not be used", lost.Round(time.Second))
	}
	r.Outcome = Ended
	return b.step(r, Over, reason)
}

func (b *Buyer) gone(r *Record, reason string) bool {
	if r.Outcome == Refused {
		return b.step(r, Declined, reason)
	}
	return b.step(r, Gone, reason)
}

// ask does the step of a purchase that its domain is asked for.
func (b *Buyer) ask(ctx context.Context, r *Record, p Provider) error {
	switch r.State {
	case Asking:
		return b.find(ctx, r, p)
	case Preparing:
		return b.prepare(ctx, r, p)
	case Confirming:
		if err := p.Confirm(ctx, r.Key); err != nil {
			return err
		}
		r.Offer = nil
		b.step(r, Confirmed, fmt.Sprintf("%s of %s are ours from %s to %s, by its agreement %s", cpus(r.Room), r.From, stamp(r.Opens), stamp(r.Closes), r.Agreement))
		r.Next = r.Opens
		return nil
	case Bought:
		return b.watch(ctx, r, p)
	case Releasing:
		if err := p.Terminate(ctx, r.Key, nil); err != nil {
			return err
		}
		b.gone(r, "the domain "+r.From+" was told that it is given back: "+r.Reason)
		return nil
	case Settling:
		return b.settle(ctx, r, p)
	case Refused, Ended, Released, Lost:
	}
	return errNothing
}

// found is an offer that a domain could keep.
type found struct {
	offer  agreement.Offer
	cpus   int
	window terms.Window
	price  int64
	priced bool
	unit   string
}

// better puts offers in order: who has more, then who begins sooner, then who is cheaper.
func (f *found) better(o *found) bool {
	switch {
	case o == nil:
		return true
	case f.cpus != o.cpus:
		return f.cpus > o.cpus
	case !f.window.Start.Equal(o.window.Start):
		return f.window.Start.Before(o.window.Start)
	}
	return f.price < o.price
}

// find asks what could be kept, and writes down the offer that is to be made.
func (b *Buyer) find(ctx context.Context, r *Record, p Provider) error {
	now := b.now()
	w := terms.Window{Start: r.Start, End: r.End}
	if begin := now.Add(lead).Truncate(time.Second).Add(time.Second); w.Start.Before(begin) {
		w.Start = begin
	}
	// What it is late already is not left of that by which it may be later; when the window that was wished
	// for is over, the whole of it has to be.
	late := max(0, w.Start.Sub(r.Start))
	if !w.End.After(w.Start) {
		if late > r.Later {
			return fail.Errorf("purchase", fail.Invalid, r.ID, "the window was over before it was bought: it could begin at %s, and was to end at %s", stamp(w.Start), stamp(r.End))
		}
		w.End = r.End.Add(late)
	}
	later := max(0, r.Later-late)
	list, err := p.Templates(ctx)
	if err != nil {
		return err
	}
	rooms, err := offering.Rooms(list, offering.Room{Name: "capacity for " + b.o.Own, CPUs: r.CPUs, Window: w})
	if err != nil {
		return err
	}
	rooms = rooms[:min(len(rooms), maxTemplates)]
	best, refused := (*found)(nil), error(nil)
	for i := range rooms {
		list, err := b.negotiate(ctx, r, p, &rooms[i], w, later)
		switch {
		case err != nil && passing(err):
			return err
		case err != nil:
			if refused == nil {
				refused = err
			}
		}
		for k := range list {
			switch f := &list[k]; {
			case r.MaxPrice != nil && f.priced && f.price > *r.MaxPrice:
				refused = dear(r, f.price, f.unit)
			case f.better(best):
				best = f
			}
		}
		if best != nil && best.cpus == r.CPUs && best.window.Start.Equal(w.Start) {
			break
		}
	}
	if best == nil {
		if refused == nil {
			refused = fail.Errorf("purchase", fail.Exhausted, r.From, "the domain %s could not keep anything of what is wanted", r.From)
		}
		return refused
	}
	doc := xmldoc.Marshal(best.offer.Encode())
	if len(doc) > maxOffer {
		return fail.Errorf("purchase", fail.Unsupported, r.From, "the offer would have %d bytes; at most %d are made", len(doc), maxOffer)
	}
	r.Offer, r.Tries = doc, r.Tries+1
	r.Until = now.Add(b.o.Hold).Truncate(time.Millisecond)
	r.Room, r.Opens, r.Closes, r.Price, r.Unit = best.cpus, best.window.Start, best.window.End, best.price, best.unit
	b.step(r, Found, fmt.Sprintf("the domain %s could keep %s from %s to %s%s", r.From, cpus(best.cpus), stamp(best.window.Start), stamp(best.window.End), costing(best.price, best.unit)))
	return nil
}

func cpus(n int) string {
	if n == 1 {
		return "1 CPU"
	}
	return strconv.Itoa(n) + " CPUs"
}

func costing(price int64, unit string) string {
	if price == 0 {
		return ""
	}
	return ", for at most " + shown(price) + " " + unit
}

func dear(r *Record, price int64, unit string) error {
	return fail.Errorf("purchase", fail.Denied, r.From, "the domain %s asks for %s %s, and it may cost %s: allow more, or ask for less", r.From, shown(price), unit, shown(*r.MaxPrice))
}

// shown writes thousandths as a decimal.
func shown(n int64) string {
	d, err := decimal.Parse(fmt.Sprintf("%d.%03d", n/1000, n%1000))
	if err != nil {
		return strconv.FormatInt(n, 10) + "/1000"
	}
	return d.String()
}

// negotiate asks by one template what could be kept, without any obligation: the window, or one that is
// later by so much at most. A domain that does not negotiate is offered what is wanted, as it is.
func (b *Buyer) negotiate(ctx context.Context, r *Record, p Provider, room *offering.Roomy, w terms.Window, later time.Duration) ([]found, error) {
	asked := found{offer: *room.Offer, cpus: r.CPUs, window: w}
	key, err := p.Initiate(ctx, &agreement.InitiateRequest{Context: agreement.NegotiationContext{AgreementResponder: agreement.NegotiationResponder}})
	switch {
	case fail.Is(err, fail.Unsupported):
		return []found{asked}, nil
	case err != nil:
		return nil, err
	}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.o.Timeout)
		defer cancel()
		if err := p.TerminateNegotiation(late, key, nil); err != nil {
			b.o.Log.Debug("a negotiation ends by itself", "domain", r.From, "cause", err)
		}
	}()
	o := agreement.NegotiationOffer{Agreement: room.Offer.Agreement, OfferID: "wished"}
	o.OfferContext = agreement.OfferContext{CounterOfferTo: room.Offer.Context.TemplateID, Creator: agreement.NegotiationInitiator, State: agreement.Advisory}
	o.Constraints = within(r, room, w, later)
	list, err := p.Negotiate(ctx, key, []agreement.NegotiationOffer{o})
	if err != nil {
		return nil, err
	}
	var out []found
	var refused error
	for i := range list {
		c := &list[i]
		if c.OfferContext.State == agreement.OfferRejected {
			why := c.OfferContext.Reason()
			if why == "" {
				why = "it does not say why"
			}
			refused = fail.Errorf("purchase", fail.Exhausted, r.From, "%s", why)
			continue
		}
		f, err := b.counter(r, c, w, later)
		if err != nil {
			refused = err
			continue
		}
		out = append(out, *f)
	}
	if len(out) == 0 {
		return nil, refused
	}
	return out, nil
}

// counter reads a counter offer, and refuses one that is not what was asked for: what a domain offers is
// not trusted to keep to the constraints.
func (b *Buyer) counter(r *Record, c *agreement.NegotiationOffer, w terms.Window, later time.Duration) (*found, error) {
	odd := func(format string, args ...any) (*found, error) {
		return nil, fail.Errorf("purchase", fail.Unsupported, r.From, "what the domain "+r.From+" offers instead is not what was asked for: "+format, args...)
	}
	q, err := terms.Preferred(&c.Agreement)
	if err != nil {
		return nil, err
	}
	if q.Kind != terms.Capacity || len(q.Services) != 1 || q.Services[0].Capacity == nil {
		return odd("it is no capacity")
	}
	s := q.Services[0].Capacity
	f := &found{offer: c.Offer(), cpus: int(min(s.Amount.CPUs, MaxCPUs)), window: s.Window}
	switch least := r.least(); {
	case f.cpus < least || f.cpus > r.CPUs:
		return odd("it has %d CPUs, and not %d to %d", f.cpus, least, r.CPUs)
	case f.window.Start.Before(w.Start) || f.window.Start.After(w.Start.Add(later)) || f.window.End.After(w.End.Add(later)) || f.window.End.Before(w.End) || f.window.Length() < w.Length():
		return odd("its window is from %s to %s", stamp(f.window.Start), stamp(f.window.End))
	}
	if quote, ok := c.OfferContext.Quoted(); ok && quote.Price != "" {
		if f.price, err = thousandths(quote.Price); err != nil {
			return odd("its price %q is none", quote.Price)
		}
		f.priced, f.unit = true, cut(quote.Unit)
	}
	return f, nil
}

// thousandths reads a price, rounded up.
func thousandths(s string) (int64, error) {
	bad := fail.Errorf("purchase", fail.Invalid, "", "%q is no price", s)
	d, err := decimal.Parse(s)
	if err != nil || d.Sign() < 0 {
		return 0, bad
	}
	d, ok := d.Mul(decimal.New(1000))
	if !ok {
		return 0, bad
	}
	text := d.String()
	whole, rest := text, false
	for i := range text {
		if text[i] == '.' {
			whole, rest = text[:i], true
			break
		}
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > 1<<53 {
		return 0, bad
	}
	if rest {
		n++
	}
	return n, nil
}

// within says what a counter offer may change.
func within(r *Record, room *offering.Roomy, w terms.Window, later time.Duration) agreement.NegotiationConstraints {
	var out agreement.NegotiationConstraints
	item := func(of agreement.Item, facets ...[2]string) {
		c := agreement.NewElement("ItemConstraint")
		c.CreateAttr("xmlns:xs", "http://www.w3.org/2001/XMLSchema")
		for _, f := range facets {
			c.CreateElement("xs:"+f[0]).CreateAttr("value", f[1])
		}
		out.Items = append(out.Items, agreement.NegotiationItem{
			Item: agreement.Item{Name: of.Name, Location: of.Location, Scope: of.Scope, Constraint: c}, Type: agreement.Required,
		})
	}
	if least := r.least(); least < r.CPUs {
		item(room.CPUs, [2]string{"minInclusive", strconv.Itoa(least)}, [2]string{"maxInclusive", strconv.Itoa(r.CPUs)})
	}
	if later > 0 {
		at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
		item(room.Start, [2]string{"minInclusive", at(w.Start)}, [2]string{"maxInclusive", at(w.Start.Add(later))})
		item(room.End, [2]string{"minInclusive", at(w.End)}, [2]string{"maxInclusive", at(w.End.Add(later))})
	}
	return out
}

// prepare has the offer held, and decides to buy what is held.
func (b *Buyer) prepare(ctx context.Context, r *Record, p Provider) error {
	o, err := agreement.ParseOffer(r.Offer)
	if err != nil {
		return fail.E("purchase.prepare", fail.Invalid, r.ID, err)
	}
	o.Element = nil // it is sent as it was made here
	if r.Key == "" {
		key, err := p.Prepare(ctx, &agreement.CreateRequest{Offer: *o}, r.preparation())
		if err != nil {
			return err
		}
		if len(key) > maxKey {
			return fail.Errorf("purchase.prepare", fail.Unsupported, r.ID, "the domain %s names its agreement in %d bytes; at most %d are kept", r.From, len(key), maxKey)
		}
		r.Key = key
	}
	is, err := p.Agreement(ctx, r.Key)
	if err != nil {
		return err
	}
	if !routable(is.ID) {
		return fail.Errorf("purchase.prepare", fail.Unsupported, r.ID, "the domain %s names its agreement %q, and no job can be given to it by that: an id must have 1 to %d characters of ASCII, and no blanks", r.From, cut(is.ID), maxAgreement)
	}
	r.Agreement = is.ID
	if price, unit := priceOf(is); price != "" {
		n, err := thousandths(price)
		if err != nil {
			return err
		}
		if r.Price = n; unit != "" {
			r.Unit = cut(unit)
		}
	}
	if r.MaxPrice != nil && r.Price > *r.MaxPrice {
		r.Outcome = Refused
		b.step(r, Dear, fail.Sentence(dear(r, r.Price, r.Unit)))
		return nil
	}
	b.step(r, Held, fmt.Sprintf("the domain %s holds it by its agreement %s%s", r.From, r.Agreement, costing(r.Price, r.Unit)))
	return nil
}

// routable reports whether jobs can be given to a domain by the id of its agreement, as a Route has it.
func routable(id string) bool {
	return id != "" && len(id) <= maxAgreement && !strings.ContainsFunc(id, func(c rune) bool { return c < '!' || c > '~' })
}

// details gives our element beside the state of an agreement; nil where there is none.
func details(p *agreement.Properties) *etree.Element {
	if p.SubState == nil || !xmldoc.Is(p.SubState, agreement.NSPortolan, "Agreement") {
		return nil
	}
	return p.SubState
}

// priceOf gives the most that an agreement costs, as its domain says it.
func priceOf(p *agreement.Properties) (price, unit string) {
	e := details(p)
	if e == nil {
		return "", ""
	}
	x := xmldoc.Child(e, agreement.NSPortolan, "Price")
	if x == nil {
		return "", ""
	}
	unit, _ = xmldoc.Attr(x, "", "unit")
	return xmldoc.Collapse(xmldoc.Text(x)), unit
}

// watch looks whether the domain keeps what was bought.
func (b *Buyer) watch(ctx context.Context, r *Record, p Provider) error {
	is, err := p.Agreement(ctx, r.Key)
	if err != nil {
		return err
	}
	now := b.now()
	r.Fails = 0
	switch is.State {
	case agreement.Observed:
	case agreement.ObservedAndTerminating, agreement.Terminated, agreement.Complete, agreement.Rejected:
		r.Outcome = Lost
		b.step(r, Dropped, fmt.Sprintf("the domain %s ended it: its agreement is %s%s", r.From, is.State, reasonOf(is)))
		return nil
	case agreement.Pending, agreement.PendingAndTerminating: // which a binding one is not
		return fail.Errorf("purchase.watch", fail.Unavailable, r.ID, "the domain %s says that its agreement is %s", r.From, is.State)
	}
	r.Next = now.Add(b.o.Watch)
	for _, at := range []time.Time{r.Opens, r.Closes} {
		if at.After(now) && at.Before(r.Next) {
			r.Next = at
		}
	}
	if now.Before(r.Opens) { // until then nothing needs to be looked at
		r.Next = r.Opens
	}
	return nil
}

func reasonOf(p *agreement.Properties) string {
	e := details(p)
	if e == nil {
		return ""
	}
	if x := xmldoc.Child(e, agreement.NSPortolan, "Reason"); x != nil {
		return ", as " + cut(xmldoc.Collapse(xmldoc.Text(x)))
	}
	return ""
}

// settle learns what it costs.
func (b *Buyer) settle(ctx context.Context, r *Record, p Provider) error {
	is, err := p.Agreement(ctx, r.Key)
	if err != nil {
		return err
	}
	if !is.State.Final() {
		return fail.Errorf("purchase.settle", fail.Unavailable, r.ID, "the domain %s says that its agreement is %s still", r.From, is.State)
	}
	var sum decimal.Decimal
	unit := r.Unit
	r.Entries = nil
	if e := details(is); e != nil {
		for _, x := range e.ChildElements() {
			if !xmldoc.Is(x, agreement.NSPortolan, "Entry") || len(r.Entries) >= maxEntries {
				continue
			}
			entry, ok := b.entry(r, x)
			if !ok {
				b.o.Log.Warn("an entry of the ledger of a domain can't be read", "purchase", r.ID, "domain", r.From)
				continue
			}
			r.Entries = append(r.Entries, entry)
			if entry.Kind != ledger.Usage && (unit == "" || entry.Unit == unit) {
				unit = entry.Unit
				if s, ok := sum.Add(entry.Amount); ok {
					sum = s
				}
			}
		}
	}
	reason := "it costs nothing"
	if sum.Sign() != 0 {
		reason = "it costs " + sum.String() + " " + unit
	}
	b.step(r, Settled, reason+", by the word of the domain "+r.From)
	return nil
}

// entry makes an entry of our ledger of one that the domain tells: its price is what our VO, or our
// domain, owes.
func (b *Buyer) entry(r *Record, x *etree.Element) (ledger.Entry, bool) {
	at := func(name string) string { s, _ := xmldoc.Attr(x, "", name); return cut(s) }
	when, err := time.Parse(time.RFC3339Nano, at("at"))
	amount, err2 := decimal.Parse(at("amount"))
	kind := ledger.Kind(at("kind"))
	if err != nil || err2 != nil || at("id") == "" || at("unit") == "" {
		return ledger.Entry{}, false
	}
	switch kind {
	case ledger.Usage, ledger.Price, ledger.Penalty, ledger.Reward:
	default:
		return ledger.Entry{}, false
	}
	vo := r.VO
	if vo == "" {
		vo = "domain:" + b.o.Own
	}
	return ledger.Entry{
		ID: bounded("purchase/" + r.ID + "/" + at("id")), Agreement: bounded(r.Agreement), VO: bounded(vo), User: bounded(r.By), Domain: bounded(r.From),
		Time: when.UTC(), Kind: kind, Unit: bounded(at("unit")), Amount: amount, Evidence: cut(xmldoc.Collapse(xmldoc.Text(x))),
	}, true
}

// bounded keeps a name within what the ledger takes.
func bounded(s string) string {
	const most = 255
	if r := []rune(s); len(r) > most {
		return string(r[:most])
	}
	return s
}
