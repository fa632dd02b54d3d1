package together

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/beevik/etree"
	"github.com/google/uuid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Home is the provider that is the gateway itself where its domain has no name, for Options.Dial.
const Home = "this gateway"

// FrontOptions says how a Front works. All but Domain are required.
type FrontOptions struct {
	Coordinator *Coordinator
	Domain      string // one's own; "" has no name
	// Owner gives whose coordinations the caller's are.
	Owner func(context.Context) (string, error)
	// VO gives the VO that an offer is for; "" is none.
	VO func(*agreement.CreateRequest) (string, error)
}

// Front is a Coordinator for users: it is asked by whoever is in the context.
type Front struct{ o FrontOptions }

var _ agreement.Coordinator = (*Front)(nil)

// NewFront makes a Front.
func NewFront(o FrontOptions) (*Front, error) {
	if o.Coordinator == nil || o.Owner == nil || o.VO == nil {
		return nil, fail.Errorf("together.NewFront", fail.Invalid, "", "who makes agreements together needs a coordinator, and to be told whose they are and for which VO: set Coordinator, Owner and VO")
	}
	return &Front{o}, nil
}

// plan makes a plan of a request.
func (f *Front) plan(owner string, q *agreement.TogetherRequest) (Plan, error) {
	const op = "together.CreateTogether"
	p := Plan{ID: q.ID, Owner: owner, Deadline: q.Deadline}
	if p.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return p, fail.E(op, fail.Internal, "", err)
		}
		p.ID = id.String()
	}
	seen := map[string]bool{}
	for i := range q.Parts {
		seen[q.Parts[i].Name] = true
	}
	for i := range q.Parts {
		x := &q.Parts[i]
		part := Part{Name: x.Name, Provider: x.Domain, Offer: x.Offer}
		if x.Domain == "" {
			part.Provider = f.home()
		}
		if part.Name == "" {
			base := part.Provider
			part.Name = base
			for n := 2; seen[part.Name]; n++ {
				part.Name = fmt.Sprintf("%s (%d)", base, n)
			}
			seen[part.Name] = true
		}
		var err error
		if part.VO, err = f.o.VO(&agreement.CreateRequest{Offer: x.Offer}); err != nil {
			return p, fail.Errorf(op, fail.KindOf(err), part.Name, "the part %q: %s", part.Name, fail.Sentence(err)).Because(err)
		}
		p.Parts = append(p.Parts, part)
	}
	return p, nil
}

// home gives what the gateway itself is called as a provider.
func (f *Front) home() string {
	if f.o.Domain == "" {
		return Home
	}
	return f.o.Domain
}

// longest is how long a caller waits for the outcome; it is told to ask again then.
const longest = 2 * time.Minute

// CreateTogether implements agreement.Coordinator.
func (f *Front) CreateTogether(ctx context.Context, q *agreement.TogetherRequest) (*agreement.Together, error) {
	owner, err := f.o.Owner(ctx)
	if err != nil {
		return nil, err
	}
	p, err := f.plan(owner, q)
	if err != nil {
		return nil, err
	}
	in, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	out, err := f.o.Coordinator.Coordinate(in, p)
	if err != nil {
		return nil, err
	}
	if err := refusal(&out); err != nil {
		return nil, err
	}
	r, err := f.o.Coordinator.Get(ctx, owner, p.ID)
	if err != nil { // it is agreed on all the same
		r = Record{ID: out.ID, State: out.State, Reason: out.Reason, Parts: out.Parts}
	}
	return show(&r), nil
}

// refusal says why there are no agreements; nil where there are, or were.
func refusal(o *Outcome) error {
	const op = "together.CreateTogether"
	switch o.State {
	case Committed, Dissolving, Dissolved:
		return nil
	case Unsettled:
		return fail.Errorf(op, fail.Uncertain, o.ID, "it is not known what became of all parts: %s", o.Reason)
	case Preparing, Committing, Aborting, Compensating, Aborted, RolledBack:
	}
	var first *PartOutcome
	var sentences []string
	var earliest time.Time
	known := true
	for i := range o.Parts {
		x := &o.Parts[i]
		if x.State != PartRefused {
			continue
		}
		if first == nil {
			first = x
		}
		if known = known && !x.Earliest.IsZero(); known && x.Earliest.After(earliest) {
			earliest = x.Earliest
		}
		sentences = append(sentences, refusedBy(x))
	}
	if first == nil {
		return fail.Errorf(op, fail.NotAccepting, o.ID, "nothing is agreed on, and nothing is held: %s; ask again, by another ID", o.Reason)
	}
	sentences[len(sentences)-1] += "; nothing is agreed on, and nothing is held anywhere"
	if first.Code == "" {
		return fail.Errorf(op, kindHere(kindNamed(first.Kind)), o.ID, "%s", strings.Join(sentences, "\n"))
	}
	r := agreement.Refuse(first.Code, sentences...)
	if known {
		r.Earliest = earliest
	}
	return r
}

// kindHere gives the kind that a provider's refusal is for who asks us: that the provider does not know
// who we are says nothing of how our caller showed who it is.
func kindHere(k fail.Kind) fail.Kind {
	if k == fail.Unauthenticated {
		return fail.Denied
	}
	return k
}

// stranger says that a provider does not know us.
func stranger(provider, why string) string {
	return fmt.Sprintf("%s does not take this gateway for who it is, or its word for whom it asks: %s; that is for the administrators of both to mend", provider, why)
}

// refusedBy says who refused a part, and why.
func refusedBy(x *PartOutcome) string {
	if kindNamed(x.Kind) == fail.Unauthenticated {
		return stranger(x.Provider, x.Reason)
	}
	if x.Name == x.Provider {
		return fmt.Sprintf("%s refuses: %s", x.Provider, x.Reason)
	}
	return fmt.Sprintf("%s refuses the part %q: %s", x.Provider, x.Name, x.Reason)
}

// kindNamed finds a kind by its words.
func kindNamed(s string) fail.Kind {
	for _, k := range fail.Kinds() {
		if k.String() == s {
			return k
		}
	}
	return fail.Invalid
}

// show gives a coordination as it is told.
func show(r *Record) *agreement.Together {
	t := &agreement.Together{ID: r.ID, State: string(r.State), Reason: r.Reason, Created: r.Created}
	for i := range r.Parts {
		x := &r.Parts[i]
		t.Parts = append(t.Parts, agreement.TogetherPart{
			Name: x.Name, Domain: x.Provider, State: string(x.State), Key: x.Agreement, Reason: x.Reason, Earliest: x.Earliest,
		})
	}
	return t
}

// Together implements agreement.Coordinator: it asks each provider how its part is.
func (f *Front) Together(ctx context.Context, id string) (*agreement.Together, error) {
	owner, err := f.o.Owner(ctx)
	if err != nil {
		return nil, err
	}
	c := f.o.Coordinator
	r, err := c.Get(ctx, owner, id)
	if err != nil {
		return nil, err
	}
	t := show(&r)
	var wg sync.WaitGroup
	var size atomic.Int64
	for i := range r.Parts {
		if r.Parts[i].Agreement == "" {
			continue
		}
		wg.Go(func() {
			a, err := c.ofPart(ctx, &r, &r.Parts[i])
			if err == nil && size.Add(int64(xmldoc.Size(a.Encode()))) > maxShown {
				a, err = nil, fail.Errorf("together.Together", fail.Exhausted, r.ID, "the agreements are too long to be told of together; ask %s", r.Parts[i].Provider)
			}
			if t.Parts[i].Agreement = a; err != nil && t.Parts[i].Reason == "" {
				t.Parts[i].Reason = "how it is now is not known: " + fail.Sentence(err)
			}
		})
	}
	wg.Wait()
	return t, nil
}

// maxShown bounds the agreements that are told of together, in bytes.
const maxShown = 4 << 20

// ofPart asks a provider how its part is.
func (c *Coordinator) ofPart(ctx context.Context, r *Record, p *PartOutcome) (*agreement.Properties, error) {
	var a *agreement.Properties
	err := c.ask(ctx, reading, p.Provider, c.opts.Timeout, func(ctx context.Context) error {
		provider, err := c.dial(ctx, r, p)
		if err == nil {
			a, err = provider.Agreement(ctx, p.Agreement)
		}
		return err
	})
	return a, err
}

// ListTogether implements agreement.Coordinator.
func (f *Front) ListTogether(ctx context.Context, before string, limit int) ([]string, error) {
	owner, err := f.o.Owner(ctx)
	if err != nil {
		return nil, err
	}
	list, err := f.o.Coordinator.List(ctx, owner, before, limit)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids, nil
}

// TerminateTogether implements agreement.Coordinator.
func (f *Front) TerminateTogether(ctx context.Context, id string, reason *etree.Element) error {
	owner, err := f.o.Owner(ctx)
	if err != nil {
		return err
	}
	why := owner + " asked for its end"
	if reason != nil {
		if said := xmldoc.Collapse(xmldoc.Text(reason)); said != "" {
			why += ": " + said
		}
	}
	err = f.o.Coordinator.Dissolve(ctx, owner, id, why)
	if fail.Is(err, fail.Conflict) {
		return agreement.Refuse(agreement.WrongState, fail.Sentence(err))
	}
	return err
}

// TemplatesOf implements agreement.Coordinator.
func (f *Front) TemplatesOf(ctx context.Context, domain, vo string) ([]agreement.Template, error) {
	const op = "together.TemplatesOf"
	owner, err := f.o.Owner(ctx)
	if err != nil {
		return nil, err
	}
	if domain == "" {
		domain = f.home()
	}
	provider, err := f.o.Coordinator.opts.Dial(ctx, owner, domain, vo)
	if err != nil {
		return nil, err
	}
	p, ok := provider.(interface {
		Templates(context.Context) ([]agreement.Template, error)
	})
	if !ok {
		return nil, fail.Errorf(op, fail.Unsupported, domain, "%s tells no templates", domain)
	}
	var list []agreement.Template
	err = f.o.Coordinator.ask(ctx, reading, domain, f.o.Coordinator.opts.Timeout, func(ctx context.Context) (err error) {
		list, err = p.Templates(ctx)
		return err
	})
	switch {
	case fail.Is(err, fail.Unauthenticated):
		return nil, fail.Errorf(op, fail.Denied, domain, "%s", stranger(domain, fail.Sentence(err))).Because(err)
	case err != nil:
		return nil, fail.Errorf(op, fail.KindOf(err), domain, "%s: %s", domain, fail.Sentence(err)).Because(err)
	}
	return list, nil
}
