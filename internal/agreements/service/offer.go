package service

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// templateSet is the templates of a caller at a state of the model, with those that were compiled.
type templateSet struct {
	revision int64
	minute   time.Time // their limits are to the minute
	list     []agreement.Template
	checkers map[string]*agreement.Checker
	patterns map[string]*terms.Pattern
}

// mostSets bounds the callers whose templates are in memory.
const mostSets = 64

func templateKey(t *agreement.Template) string { return t.Name + "\x00" + t.TemplateID }

// subjects gives as whom a caller may use what the sites have: without a VO, and for each that a site is
// open to and the caller belongs to.
func (s *Service) subjects(ctx context.Context, m *resourcemodel.Snapshot, who string) []resourcemodel.Subject {
	s.mu.Lock()
	if s.vosOf != m { // which of its states says less: what a peer is shown of it is its own
		s.vos, s.vosOf = terms.VOs(m), m
	}
	vos := s.vos
	s.mu.Unlock()
	as := []resourcemodel.Subject{{User: who}}
	for _, vo := range vos {
		if s.b.Belongs(ctx, vo) == nil {
			as = append(as, resourcemodel.Subject{User: who, VO: vo})
		}
	}
	return as
}

// templates gives those that the caller may use, for whatever VO.
func (s *Service) templates(ctx context.Context, m *resourcemodel.Snapshot, user string, now time.Time) *templateSet {
	minute := now.Truncate(time.Minute)
	as := s.subjects(ctx, m, user)
	key := []string{user}
	for i := range as {
		key = append(key, as[i].VO)
	}
	who := strings.Join(key, "\x00")
	s.mu.Lock()
	set := s.sets[who]
	s.mu.Unlock()
	if set != nil && set.revision == m.Revision() && set.minute.Equal(minute) {
		return set
	}
	set = &templateSet{revision: m.Revision(), minute: minute, checkers: map[string]*agreement.Checker{}, patterns: map[string]*terms.Pattern{}}
	set.list = terms.TemplatesFor(m, as, now, s.o.Settings)
	for i := range s.o.Own {
		if terms.Usable(&s.o.Own[i], m, as) {
			set.list = append(set.list, s.o.Own[i])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sets) >= mostSets {
		clear(s.sets)
	}
	s.sets[who] = set
	return set
}

// checker gives what offers by a template are held against.
func (s *Service) checker(set *templateSet, t *agreement.Template) (*agreement.Checker, error) {
	key := templateKey(t)
	s.mu.Lock()
	c := s.own[key]
	if c == nil {
		c = set.checkers[key]
	}
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	c, err := t.Compile()
	if err != nil {
		return nil, fail.E("service.checker", fail.Internal, t.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set.checkers[key] = c
	return c, nil
}

// pattern gives what offers by a template may not differ in.
func (s *Service) pattern(set *templateSet, t *agreement.Template) (*terms.Pattern, error) {
	key := templateKey(t)
	s.mu.Lock()
	p := set.patterns[key]
	s.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := terms.PatternOf(t)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set.patterns[key] = p
	return p, nil
}

// Templates gives those that the caller may offer by.
func (s *Service) Templates(ctx context.Context) ([]agreement.Template, error) {
	who, err := s.b.Permit(ctx, "service.Templates", broker.Submit)
	if err != nil {
		return nil, err
	}
	m, err := s.view(who)
	if err != nil {
		return nil, err
	}
	return slices.Clone(s.templates(ctx, m, who.Name, s.now()).list), nil
}

// Create decides an offer: what it gives is Observed already, and what it needs is held.
func (s *Service) Create(ctx context.Context, req *agreement.CreateRequest) (string, error) {
	if key, handled, err := s.negotiated(ctx, req); err != nil || handled {
		return key, err
	}
	p, err := s.prepare(ctx, "service.Create", req)
	if err == nil {
		err = s.welcome(p.proposal.Domain, len(p.proposal.Document))
	}
	if err != nil {
		return "", err
	}
	if !p.reserves() {
		r, err := s.propose(ctx, p.proposal)
		if err != nil {
			return "", p.refusal(err)
		}
		p.chose(&r)
		s.accepted(&r)
		return r.ID, nil
	}
	p.proposal.Prepared = p.now.Add(s.o.Patience)
	r, err := s.propose(ctx, p.proposal)
	if err != nil {
		return "", p.refusal(err)
	}
	// Whoever asked may have gone by now: what was begun is ended all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.Patience)
	defer cancel()
	if r, err = s.secure(ctx, r, p.proposal.Alternatives); err == nil {
		r, err = s.e.Confirm(ctx, r.ID)
	}
	if err != nil {
		if _, aborted := s.e.Abort(ctx, p.proposal.ID, fail.Sentence(err)); aborted != nil {
			s.o.Log.Warn("an agreement that could not be kept is let go when its time is over", "agreement", p.proposal.ID, "cause", aborted)
		}
		return "", p.refusal(err)
	}
	s.accepted(&r)
	return r.ID, nil
}

// negotiated makes an agreement of what was quoted in a negotiation, where the request is about one.
func (s *Service) negotiated(ctx context.Context, req *agreement.CreateRequest) (key string, handled bool, err error) {
	x, err := req.Negotiated()
	if err != nil || x == nil || s.bind == nil {
		return "", false, err
	}
	if err := s.welcome(soap.PrincipalFrom(ctx).Domain, len(document(req))); err != nil {
		return "", false, err
	}
	return s.bind(ctx, x, req)
}

// tellThem has the decision on an agreement that is made already told to the AcceptanceEPR of the
// request. Where that can't be written down, the same request may be made again.
func (s *Service) tellThem(ctx context.Context, key string, req *agreement.CreateRequest) error {
	if req.AcceptanceEPR == nil {
		return nil
	}
	_, err := s.e.Update(ctx, key, func(r *engine.Record) error {
		d, err := detailOf(r)
		if err != nil {
			return err
		}
		if d.Acceptance != "" {
			return errSame // it was asked for before
		}
		d.Acceptance = acceptanceOf(req)
		r.Plan.Detail, err = json.Marshal(d)
		return err
	})
	if err != nil && !errors.Is(err, errSame) {
		return err
	}
	s.forget(key) // what was read of it
	s.callers.work.add(key, time.Time{})
	return nil
}

// acceptanceOf gives where the decision on an offer is to be told, as XML; "" is nowhere.
func acceptanceOf(req *agreement.CreateRequest) string {
	if req.AcceptanceEPR == nil {
		return ""
	}
	return string(xmldoc.Marshal(req.AcceptanceEPR.Echo("wsag", xmldoc.Name{Space: agreement.NS, Local: "AgreementAcceptanceEPR"})))
}

// Plan gives what would be proposed for an offer, all but the id, with the refusals of Create: it
// is for negotiations.
func (s *Service) Plan(ctx context.Context, o *agreement.Offer) (engine.Proposal, error) {
	p, err := s.prepare(ctx, "service.Plan", &agreement.CreateRequest{Offer: *o})
	if err != nil {
		return engine.Proposal{}, err
	}
	return p.proposal, nil
}

// CreatePending takes an offer whose decision is made later: what it needs is held, and managers of
// sites are asked meanwhile.
func (s *Service) CreatePending(ctx context.Context, req *agreement.CreateRequest) (string, error) {
	if req.AcceptanceEPR != nil {
		if err := s.callers.of(soap.PrincipalFrom(ctx).Domain).allows(req.AcceptanceEPR.Address); err != nil {
			return "", err
		}
	}
	if key, handled, err := s.negotiated(ctx, req); err != nil || handled {
		if err == nil {
			err = s.tellThem(ctx, key, req)
		}
		return key, err
	}
	p, err := s.prepare(ctx, "service.CreatePending", req)
	if err == nil {
		err = s.welcome(p.proposal.Domain, len(p.proposal.Document))
	}
	if err != nil {
		return "", err
	}
	p.proposal.Pending = true
	r, err := s.propose(ctx, p.proposal)
	if err != nil {
		return "", p.refusal(err)
	}
	s.work.add(r.ID, time.Time{})
	return r.ID, nil
}

// Prepare takes an offer that is made together with others: what it needs is held, at the managers
// of the sites too, until it is confirmed.
func (s *Service) Prepare(ctx context.Context, req *agreement.CreateRequest, p agreement.Preparation) (string, error) {
	const op = "service.Prepare"
	who, over, err := s.oneAtATime(ctx, op, p)
	defer over()
	if err != nil {
		return "", err
	}
	for _, x := range req.Critical {
		if agreement.IsNegotiationExtension(xmldoc.NameOf(x)) {
			return "", agreement.Refuse(agreement.UnsupportedTerm, fmt.Sprintf("what was negotiated can't be prepared, to be confirmed later: leave Prepare out, or the %s", x.Tag))
		}
	}
	// Asked again it is not judged again: what it holds itself would stand against it.
	if r, err := s.e.Get(ctx, together.AgreementID(who.Name, p)); err == nil && r.Owner == who.Name && !r.Final() {
		doc, err := s.e.Document(ctx, r.ID)
		switch {
		case err != nil:
			return "", err
		case !bytes.Equal(doc, document(req)):
			return "", fail.Errorf(op, fail.Conflict, p.Key, "another offer was prepared by the Key %q; give this one another", p.Key)
		case !r.Awaiting():
			return r.ID, nil
		}
		if d, err := detailOf(&r); s.o.Decides && (err != nil || d.Kind != terms.Capacity) {
			return "", cmp.Or(err, s.b.Admissible(ctx, nil, nil)) // who has the sites goes on with it
		}
		if err := s.held.Hold(ctx, r); err != nil {
			return "", err
		}
		return r.ID, nil
	}
	id, err := s.held.Prepare(ctx, req, p)
	return id, roomless(err)
}

// roomless turns a lack of room into what the other side is told.
func roomless(err error) error {
	full, ok := errors.AsType[*engine.NoRoom](err)
	if !ok {
		return err
	}
	r := agreement.Refuse(agreement.NoCapacity, full.Sentence)
	r.Earliest, r.Cause = full.Earliest, err
	return r
}

// Confirm makes an agreement that was prepared binding.
func (s *Service) Confirm(ctx context.Context, key string) error {
	if err := s.held.Confirm(ctx, key); err != nil {
		return err
	}
	r, err := s.e.Get(ctx, key)
	if err == nil {
		s.accepted(&r)
	}
	return nil // it is binding, and looked after by what the engine tells
}

// document gives an offer as it came.
func document(req *agreement.CreateRequest) []byte {
	if req.Received != nil {
		return req.Received
	}
	return xmldoc.Marshal(req.Offer.Encode())
}

// accepted has an agreement that was accepted looked after; what is held for it is told before
// anybody hears of it.
func (s *Service) accepted(r *engine.Record) {
	s.hold(r)
	s.work.add(r.ID, time.Time{})
}

// propose is engine.Propose, again where the answer was lost.
func (s *Service) propose(ctx context.Context, p engine.Proposal) (engine.Record, error) {
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		r, err := s.e.Propose(ctx, p)
		if err == nil || !fail.Is(err, fail.Uncertain) || wait > 2*time.Second || !pause(ctx, wait) {
			return r, err
		}
	}
}

// maxChoices bounds the alternatives of an offer that are looked at, the most useful first.
const maxChoices = 16

// prepared is an offer that nothing stands against but, perhaps, that there is no room.
type prepared struct {
	s        *Service
	now      time.Time
	offer    *agreement.Offer
	proposal engine.Proposal
	plans    []candidate // of the proposal's alternatives
	cut      bool        // the offer leaves more choices than were looked at
}

// candidate is a plan for an alternative of an offer.
type candidate struct {
	request *terms.Request
	plan    terms.Plan
	reserve bool // a manager is to be asked
}

// choice is one definite set of terms of an offer.
type choice struct {
	request *terms.Request
	detail  json.RawMessage
	open    []terms.Plan  // that were not looked at yet, the best first
	plans   []candidate   // that may do, the best first,
	tried   []engine.Plan // the same as the engine tries them
	refused error         // why others do not; nil: there are none
}

func (p *prepared) reserves() bool {
	return slices.ContainsFunc(p.plans, func(c candidate) bool { return c.reserve })
}

// chose remembers an agreement as it was read, which it would be again to be looked after.
func (p *prepared) chose(r *engine.Record) {
	if r.Alternative >= len(p.plans) || r.ID != p.proposal.ID {
		return
	}
	d, err := detailOf(r)
	if err != nil {
		return // it is read, and said, then
	}
	x := &reading{agreement: p.offer.Agreement, request: p.plans[r.Alternative].request, detail: d}
	x.agreement.Terms = chosen(p.offer.Terms, d.Terms)
	p.s.remember(r.ID, x)
}

// prepare checks an offer, and gives the plans by which it could be kept, the best first.
func (s *Service) prepare(ctx context.Context, op string, req *agreement.CreateRequest) (*prepared, error) {
	who, err := s.b.Permit(ctx, op, broker.Submit)
	if err != nil {
		return nil, err
	}
	vo, err := voOf(req)
	if err != nil {
		return nil, err
	}
	if err := s.b.Belongs(ctx, vo); err != nil {
		return nil, err
	}
	o := &req.Offer
	m, err := s.view(who)
	if err != nil {
		return nil, err
	}
	p := &prepared{s: s, now: s.now(), offer: o}
	subject := resourcemodel.Subject{User: who.Name, VO: vo}
	set := s.templates(ctx, m, who.Name, p.now)
	t, err := terms.Current(set.list, o.Context.TemplateName, o.Context.TemplateID)
	if err != nil {
		return nil, err
	}
	c, err := s.checker(set, t)
	if err != nil {
		return nil, err
	}
	// What is outside of the items is not compared: terms that narrow an offer may be added, and
	// guarantees left out; Pattern.Read says what may not be.
	if broken := c.Check(o); len(broken) > 0 {
		sentences := make([]string, len(broken))
		for i := range broken {
			sentences[i] = broken[i].Sentence
		}
		return nil, agreement.Refuse(agreement.NotCompliant, sentences...)
	}
	pattern, err := s.pattern(set, t)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fail.E(op, fail.Internal, "", err)
	}
	p.proposal = engine.Proposal{
		ID: id.String(), Owner: who.Name, VO: vo, Domain: who.Domain, Name: o.Name, TemplateID: t.TemplateID, TemplateName: t.Name, Document: document(req),
		ExpirationTime: o.Context.ExpirationTime, Reason: fmt.Sprintf("offered by %s, by the template %s", who.Name, t.Name),
	}
	alternatives, cut := agreement.Choose(o.Terms, o.Preferences(), maxChoices)
	p.cut = cut
	var choices []*choice
	for _, alt := range alternatives {
		x := o.Agreement
		x.Terms = alt.Terms
		c, err := s.alternative(ctx, p, pattern, &x, m, subject, who, req)
		if err != nil {
			c = &choice{refused: err}
		}
		choices = append(choices, c)
	}
	s.share(ctx, p, choices, vo)
	var refused error
	for _, c := range choices {
		p.plans = append(p.plans, c.plans...)
		p.proposal.Alternatives = append(p.proposal.Alternatives, c.tried...)
		if refused == nil {
			refused = c.refused
		}
	}
	switch {
	case ctx.Err() != nil: // who has the sites may answer in our place: nothing is to be made of what else was found
		return nil, fail.E(op, fail.Unavailable, "", context.Cause(ctx))
	case len(p.plans) > 0:
		return p, nil
	case refused == nil:
		refused = agreement.Refuse(agreement.NotCompliant, "the offer has no terms; describe a service in a ServiceDescriptionTerm")
	}
	return nil, p.abridged(refused)
}

// share looks at the plans of each choice, so far as they may be tried. Of those each choice has a fair
// part; what one leaves of its part is for the others, the most useful first.
func (s *Service) share(ctx context.Context, p *prepared, choices []*choice, vo string) {
	left := engine.MaxAlternatives
	waiting := func() []*choice {
		return slices.DeleteFunc(slices.Clone(choices), func(c *choice) bool { return len(c.open) == 0 })
	}
	all := waiting()
	for i, c := range all {
		left -= s.weigh(ctx, p, c, (left+len(all)-i-1)/(len(all)-i), vo)
	}
	for _, c := range waiting() {
		left -= s.weigh(ctx, p, c, left, vo)
	}
}

// abridged says of a refusal that there were choices that were not looked at.
func (p *prepared) abridged(err error) error {
	const more = "the offer leaves more choices of terms than the %d that are looked at, the most useful first; leave fewer of them"
	if !p.cut {
		return err
	}
	if r, ok := errors.AsType[*agreement.Refusal](err); ok {
		c := *r
		c.Sentences = append(slices.Clone(r.Sentences), fmt.Sprintf(more, maxChoices))
		return &c
	}
	if kind := fail.KindOf(err); slices.Contains([]fail.Kind{fail.Invalid, fail.Unsupported, fail.Exhausted, fail.Denied, fail.NotFound}, kind) {
		return fail.Errorf("service.offer", kind, "", "%s; "+more, fail.Sentence(err), maxChoices).Because(err)
	}
	return err
}

// alternative gives the plans for one definite set of terms.
func (s *Service) alternative(ctx context.Context, p *prepared, pattern *terms.Pattern, a *agreement.Agreement, m *resourcemodel.Snapshot, subject resourcemodel.Subject, who soap.Principal, req *agreement.CreateRequest) (*choice, error) {
	q, err := pattern.Read(a, p.now, s.o.Settings)
	if err != nil {
		return nil, err
	}
	if err := s.admit(who, subject.VO, q); err != nil {
		return nil, err
	}
	for i := range q.Services {
		if v := &q.Services[i]; v.Job != nil {
			if err := s.b.Admissible(ctx, v.Document, nil); err != nil {
				return nil, fail.Errorf("service.offer", fail.KindOf(err), v.Term, "the job of the term %q: %s", v.Term, fail.Sentence(err)).Because(err)
			}
		}
	}
	plans, err := s.plans(q, m, subject, who, p.now)
	if err != nil {
		return nil, err
	}
	d := detail{Kind: q.Kind, Method: who.Method, Domain: who.Domain, Account: who.Account}
	a.Terms.Walk(func(t agreement.Term) bool {
		if _, ok := t.(*agreement.Compositor); !ok {
			d.Terms = append(d.Terms, t.TermName())
		}
		return true
	})
	d.Acceptance = acceptanceOf(req)
	said, err := json.Marshal(d)
	if err != nil {
		return nil, fail.E("service.offer", fail.Internal, "", err)
	}
	return &choice{request: q, detail: said, open: plans}, nil
}

// weigh looks at the plans of a choice until there are so many more that may do, and gives how many there are.
func (s *Service) weigh(ctx context.Context, p *prepared, x *choice, most int, vo string) (n int) {
	for ; n < most && len(x.open) > 0; x.open = x.open[1:] {
		c := candidate{request: x.request, plan: x.open[0]}
		c.reserve = s.wantsReservation(x.request.Kind, c.plan.Placed)
		if err := s.possible(ctx, &c, vo, p.now); err != nil {
			x.refused = sooner(x.refused, err)
			continue
		}
		e, err := c.plan.Engine()
		if err != nil {
			x.refused = sooner(x.refused, err)
			continue
		}
		e.Detail = x.detail
		x.plans, x.tried = append(x.plans, c), append(x.tried, e)
		n++
	}
	return n
}

// sooner gives the refusal that tells of the earlier time, or else the first.
func sooner(a, b error) error {
	x, ok := errors.AsType[*agreement.Refusal](a)
	y, also := errors.AsType[*agreement.Refusal](b)
	if a == nil || also && !y.Earliest.IsZero() && (!ok || x.Earliest.IsZero() || y.Earliest.Before(x.Earliest)) {
		return b
	}
	return a
}

// possible says whether what runs at the places of a plan leaves it possible: the calendar knows
// what is promised, and not that jobs of others run. What need not begin at once is put off until it can.
func (s *Service) possible(ctx context.Context, c *candidate, vo string, now time.Time) error {
	q := c.request
	var late time.Duration // by which all is put off
	var slowest *terms.Placed
	var unknown int // jobs there that do not say how long they run
	for i := range c.plan.Placed {
		at := &c.plan.Placed[i]
		v := &q.Services[i]
		if v.Job != nil && at.Site != "" {
			if err := s.b.Admissible(ctx, v.Document, &broker.Promise{Site: at.Site, Share: at.Share, Agreement: "offered"}); err != nil {
				return fail.Errorf("service.offer", fail.KindOf(err), v.Term, "the job of the term %q: %s", v.Term, fail.Sentence(err)).Because(err)
			}
		}
		if q.Kind == terms.BestEffort || len(at.Holds) == 0 || c.reserve {
			continue // a manager knows what runs there
		}
		h := c.plan.Holds[at.Holds[0]]
		o, err := s.b.Outlook(at.Site, at.Share, int(max(1, at.CPUs)), h.Until.Sub(h.From), vo)
		if err != nil {
			return err
		}
		place := terms.Place{Site: at.Site, Share: at.Share}
		if o.Start.IsZero() {
			return agreement.Refuse(agreement.NoCapacity, fmt.Sprintf("nothing can be promised of %s now: %s", place.String(), o.Sentence))
		}
		if d := o.Start.Sub(h.From); d > late {
			late, slowest, unknown = d, at, o.Unknown
		}
	}
	if late == 0 {
		return nil
	}
	late = (late + time.Second - 1).Truncate(time.Second)
	first := slices.MinFunc(c.plan.Holds, func(a, b calendar.Hold) int { return a.From.Compare(b.From) })
	begin := first.From.Add(late)
	if c.plan.StartBy.IsZero() || begin.After(c.plan.StartBy) {
		why := terms.Place{Site: slowest.Site, Share: slowest.Share}.String() + " has no room in time beside the jobs that run there, which are not stopped"
		switch {
		case unknown == 1:
			why += "; one of them does not say how long it runs, and it may be sooner"
		case unknown > 1:
			why += fmt.Sprintf("; %d of them do not say how long they run, and it may be sooner", unknown)
		}
		return earliest(agreement.Refuse(agreement.NoCapacity, why), q, begin)
	}
	for i := range c.plan.Holds {
		c.plan.Holds[i] = c.plan.Holds[i].Shift(late)
	}
	return nil
}

// earliest has a refusal say when the offer could be kept, if what it asks for begins at a time.
func earliest(r *agreement.Refusal, q *terms.Request, begin time.Time) *agreement.Refusal {
	begin = begin.UTC()
	r.Earliest = begin
	stamp := func(t time.Time) string { return t.Format(time.RFC3339) }
	if q.Kind != terms.FinishBy {
		r.Sentences[len(r.Sentences)-1] += "; the earliest begin that can be promised is " + stamp(begin)
		return r
	}
	for i := range q.Services {
		if end := begin.Add(q.Services[i].Duration); end.After(r.Earliest) {
			r.Earliest = end
		}
	}
	r.Sentences[len(r.Sentences)-1] += fmt.Sprintf("; it could begin at %s, so that the earliest end that can be promised is %s", stamp(begin), stamp(r.Earliest))
	return r
}

// refusal turns an error of the engine into what the other side is told.
func (p *prepared) refusal(err error) error {
	return p.abridged(p.roomless(err))
}

func (p *prepared) roomless(err error) error {
	full, ok := errors.AsType[*engine.NoRoom](err)
	if !ok {
		return err
	}
	r := agreement.Refuse(agreement.NoCapacity, full.Sentence)
	r.Cause = err
	switch q := p.plans[0].request; {
	case full.Earliest.IsZero():
		return r
	case q.Kind == terms.FinishBy: // what was asked for is an end
		r.Sentences[0] = full.Lack // which is told once
		return earliest(r, q, full.Earliest)
	}
	r.Earliest = full.Earliest.UTC()
	return r
}

// extVO is an extension that names the VO.
const extVO = "VO"

// Understands gives which extensions may be critical, beside p:Prepare.
func (s *Service) Understands(n xmldoc.Name) bool {
	return n == xmldoc.Name{Space: agreement.NSPortolan, Local: extVO} || s.bind != nil && agreement.IsNegotiationExtension(n)
}

// VO gives the VO that an offer is for; "" is none.
func VO(req *agreement.CreateRequest) (string, error) { return voOf(req) }

// voOf gives the VO that an offer is for: the one that its jobs name, or else, where it has none, the
// one that an extension names by a VO element of ours; "" is none. Where the extension is critical, both
// must be the same.
func voOf(req *agreement.CreateRequest) (string, error) {
	vo, job := "", false
	say := func(name, term string) error {
		if job && name != vo {
			return fail.Errorf("service.offer", fail.Invalid, term, "the jobs of the offer are for the VOs %q and %q; one agreement is for one VO: make two offers", vo, name)
		}
		vo, job = name, true
		return nil
	}
	var err error
	req.Offer.Terms.Walk(func(t agreement.Term) bool {
		d, ok := t.(*agreement.ServiceDescription)
		if !ok || d.Description == nil || xmldoc.NameOf(d.Description).Space != jsdl.NS || err != nil {
			return err == nil
		}
		description := d.Description
		if description.Tag == "JobDefinition" {
			description = xmldoc.Child(description, jsdl.NS, "JobDescription")
		}
		name := ""
		if description != nil {
			if res := xmldoc.Child(description, jsdl.NS, "Resources"); res != nil {
				if place := xmldoc.Child(res, jsdl.NSPortolan, "Placement"); place != nil {
					if e := xmldoc.Child(place, jsdl.NSPortolan, "VO"); e != nil {
						name = xmldoc.Collapse(xmldoc.Text(e))
					}
				}
			}
		}
		err = say(name, d.Name)
		return err == nil
	})
	if err != nil {
		return vo, err
	}
	for _, x := range req.Critical {
		if !xmldoc.Is(x, agreement.NSPortolan, extVO) {
			continue
		}
		name := xmldoc.Collapse(xmldoc.Text(x))
		if job && name != vo {
			return "", fail.Errorf("service.offer", fail.Invalid, extVO, "the extension VO says %q, and another or the jobs of the offer %q; make them alike", name, vo)
		}
		vo, job = name, true
	}
	for _, x := range req.Noncritical {
		if !job && xmldoc.Is(x, agreement.NSPortolan, extVO) {
			vo = xmldoc.Collapse(xmldoc.Text(x))
		}
	}
	if len(vo) > engine.MaxName {
		return "", fail.Errorf("service.offer", fail.Invalid, "VO", "the name of the VO has %d bytes; it may have %d", len(vo), engine.MaxName)
	}
	return vo, nil
}
