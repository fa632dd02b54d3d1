package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	// aside is how often a replica that is not responsible for an agreement looks whether it is by now.
	aside = 30 * time.Second
	// undecided is how long an offer that is Pending may wait for managers that do not answer.
	undecided = 10 * time.Minute
)

// keep does what is to be done about an agreement, and gives when to look again.
func (s *Service) keep(ctx context.Context, id string) (time.Time, error) {
	r, err := s.e.Get(ctx, id)
	if fail.Is(err, fail.NotFound) {
		s.forget(id)
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	if !s.e.Responsible(id) {
		if r.Final() && !untold(&r) && !unbilled(&r) && !Unfinished(&r) {
			s.forget(id)
			return time.Time{}, nil
		}
		return s.now().Add(aside), nil // whoever is may go before it is done
	}
	if r.Plan == nil {
		return time.Time{}, nil // it is none of what is made here
	}
	switch r.State {
	case agreement.Pending:
		if r.Awaiting() {
			return time.Time{}, nil // whoever prepared it decides, or its time passes
		}
		return time.Time{}, s.decide(ctx, r)
	case agreement.PendingAndTerminating:
		_, err := s.e.Terminated(ctx, id, engine.Ending{Reason: "it was not decided yet"})
		return time.Time{}, unlessOver(err)
	case agreement.Observed, agreement.ObservedAndTerminating:
		return s.observe(ctx, r)
	case agreement.Rejected, agreement.Complete, agreement.Terminated:
		if until := s.began.Add(s.o.Patience); s.now().Before(until) && s.unheard(&r) {
			return until, nil
		}
		return time.Time{}, s.settle(ctx, r)
	}
	return time.Time{}, fail.Errorf("service.keep", fail.Internal, id, "the agreement %s is %q, which is no state", id, string(r.State))
}

// unlessOver gives no error for one that says that another was faster: the change is told.
func unlessOver(err error) error {
	if fail.Is(err, fail.Conflict) || fail.Is(err, fail.NotFound) || errors.Is(err, errSame) {
		return nil
	}
	return err
}

// decide decides a pending agreement.
func (s *Service) decide(ctx context.Context, r engine.Record) error {
	_, refused := s.secure(ctx, r, []engine.Plan{*r.Plan})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if refused == nil {
		done, err := s.e.Decide(ctx, r.ID, engine.Decision{Accept: true, Reason: "what it asks for is held"})
		if err == nil {
			s.accepted(&done)
		}
		return unlessOver(err)
	}
	if passing(refused) && !fail.Is(refused, fail.Exhausted) && s.now().Before(r.Created.Add(undecided)) {
		return refused
	}
	_, err := s.e.Decide(ctx, r.ID, engine.Decision{Reason: fail.Sentence(refused)})
	return unlessOver(err)
}

// as gives a context in which an agreement's owner asks.
func as(ctx context.Context, r *engine.Record, x *reading) context.Context {
	d := &x.detail
	return soap.WithPrincipal(ctx, soap.Principal{Name: r.Owner, Method: d.Method, Domain: d.Domain, Account: d.Account, VO: r.VO})
}

// observe looks after an agreement that was accepted.
func (s *Service) observe(ctx context.Context, r engine.Record) (time.Time, error) {
	began := s.now()
	x, err := s.read(ctx, &r)
	if err != nil {
		return time.Time{}, err
	}
	n, err := noteOf(&r)
	if err != nil {
		return time.Time{}, err
	}
	if untold(&r) { // by the record: what was read of it may be older
		s.callers.work.add(r.ID, time.Time{})
	}
	in, err := s.provide(ctx, &r, x, n, began)
	if err != nil {
		return time.Time{}, err
	}
	if r, err = s.update(ctx, &r, x, in); err != nil {
		return time.Time{}, unlessOver(err)
	}
	if n, err = noteOf(&r); err != nil {
		return time.Time{}, err
	}
	if err := s.cut(ctx, &r, x, n); err != nil {
		return time.Time{}, err
	}
	if !s.over(&r, x, n) {
		return s.next(x, n, began), nil
	}
	if !n.Over {
		if r, err = s.update(ctx, &r, x, input{over: true}); err != nil {
			return time.Time{}, unlessOver(err)
		}
	}
	if r.State == agreement.ObservedAndTerminating {
		if err := s.release(ctx, r.ID); err != nil {
			s.o.Log.Warn("a reservation is released later", "agreement", r.ID, "cause", err)
		}
		_, err = s.e.Terminated(ctx, r.ID, engine.Ending{Reason: "what ran for it has ended"})
	} else {
		_, err = s.e.Complete(ctx, r.ID, engine.Ending{Reason: "all of its services are completed"})
	}
	return time.Time{}, unlessOver(err)
}

// provide makes the jobs of an agreement that are not there yet, and looks what of its capacity is.
func (s *Service) provide(ctx context.Context, r *engine.Record, x *reading, n *note, now time.Time) (in input, err error) {
	placed, err := terms.Placements(r.Plan)
	if err != nil {
		return in, err
	}
	for i := range x.request.Services {
		v := &x.request.Services[i]
		if v.Job == nil {
			if !now.Before(v.Window.Start) {
				in.usable = append(in.usable, usable{i, s.usable(r, placed, i)})
			}
			continue
		}
		if n.Over || i < len(n.Services) && (n.Services[i].Job != "" || n.Services[i].over()) {
			continue
		}
		made, err := s.b.SubmitPromised(as(ctx, r, x), &bes.CreateActivityRequest{SubmissionID: strconv.Itoa(i), Document: v.Document}, s.promise(r, x, n, placed, i))
		switch {
		case err == nil:
			in.jobs = append(in.jobs, named{i, made.ID})
		case passing(err):
			return in, err
		default:
			in.refused = append(in.refused, named{i, fail.Sentence(err)})
		}
	}
	return in, nil
}

// roomOf names what is held for a service of an agreement.
func roomOf(id string, service int) string { return id + "/" + strconv.Itoa(service) }

// promise gives what the broker is to know of a job.
func (s *Service) promise(r *engine.Record, x *reading, n *note, placed []terms.Placed, i int) broker.Promise {
	v := &x.request.Services[i]
	p := broker.Promise{Agreement: r.ID, StartBy: v.StartBy, FinishBy: v.FinishBy, NotBefore: v.NotBefore}
	if i < len(placed) {
		p.Site, p.Share = placed[i].Site, placed[i].Share
		if p.Site != "" && len(placed[i].Holds) > 0 {
			p.Room = roomOf(r.ID, i)
		}
	}
	if p.Site == "" {
		p.Share = "" // a share alone is nowhere; the job's own document names it
	}
	if x.detail.Kind == terms.AdvanceReservation {
		p.NotBefore, p.StartBy = v.Window.Start, v.Window.Start.Add(s.o.Settings.Grace)
		p.Reservation = n.held(i)
	}
	return p
}

// cut ends jobs: of an agreement whose end was asked for, and those whose window is over.
func (s *Service) cut(ctx context.Context, r *engine.Record, x *reading, n *note) error {
	terminating := r.State == agreement.ObservedAndTerminating
	var which []int
	var epr []soap.EPR
	for i := range n.Services {
		v := &n.Services[i]
		w := x.request.Services[i].Window
		past := x.detail.Kind == terms.AdvanceReservation && !s.now().Before(w.End)
		if v.Job == "" || v.over() || v.Cut || !terminating && !past {
			continue
		}
		which, epr = append(which, i), append(epr, s.b.Reference(v.Job))
	}
	if len(which) == 0 {
		return nil
	}
	results, err := s.b.TerminateActivities(as(ctx, r, x), epr)
	if err != nil {
		return err
	}
	var done []int
	for k, res := range results {
		switch {
		case res.Err == nil || fail.Is(res.Err, fail.Conflict): // or it has ended, which is told
			done = append(done, which[k])
		case fail.Is(res.Err, fail.NotFound): // it is not kept any more, and so it has ended
			done = append(done, which[k])
		default:
			return res.Err
		}
	}
	_, err = s.update(ctx, r, x, input{cut: done, past: !terminating})
	return unlessOver(err)
}

// over reports whether all services of an agreement are completed.
func (s *Service) over(r *engine.Record, x *reading, n *note) bool {
	for i := range x.request.Services {
		v := &x.request.Services[i]
		switch {
		case n.Over:
		case v.Job == nil && r.State != agreement.ObservedAndTerminating && s.now().Before(v.Window.End):
			return false
		case v.Job != nil && (i >= len(n.Services) || !n.Services[i].over()):
			return false
		}
	}
	return true
}

// next gives when something is to be done about an agreement without any news, where it was looked at at a
// moment: what began meanwhile is to be done, too.
func (s *Service) next(x *reading, n *note, now time.Time) time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for i := range x.request.Services {
		w := x.request.Services[i].Window
		sooner(w.Start)
		sooner(w.End)
	}
	for _, g := range x.request.Guarantees {
		if st, ok := n.Guarantees[g.Name]; ok {
			if due := g.Due(st); !due.IsZero() {
				sooner(latest(due.Add(s.o.Lag), s.now().Add(time.Millisecond)))
			}
		}
	}
	return at
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// settle does what is left of an agreement that has ended.
func (s *Service) settle(ctx context.Context, r engine.Record) error {
	if unbilled(&r) {
		x, err := s.read(ctx, &r)
		if err != nil {
			return err
		}
		if r, err = s.update(ctx, &r, x, input{over: true, at: r.Ended}); err != nil {
			return err
		}
	}
	if untold(&r) {
		s.callers.work.add(r.ID, time.Time{})
	}
	if err := s.release(ctx, r.ID); err != nil {
		return err
	}
	s.forget(r.ID)
	return nil
}

// unbilled reports whether what is due of an agreement that has ended was not written down yet.
func unbilled(r *engine.Record) bool {
	if !r.Final() || r.State == agreement.Rejected || r.Plan == nil || !wasAccepted(r) {
		return false
	}
	n, err := noteOf(r)
	return err == nil && !n.Over
}

// unheard reports whether an agreement ended while nobody was here, and what became of its jobs by then may
// still be heard of: what they used is known then.
func (s *Service) unheard(r *engine.Record) bool {
	if !unbilled(r) || !r.Ended.Before(s.began) {
		return false
	}
	n, err := noteOf(r)
	return err == nil && slices.ContainsFunc(n.Services, func(v served) bool { return v.Job != "" && !v.over() })
}

// wasAccepted reports whether an agreement was binding once.
func wasAccepted(r *engine.Record) bool {
	return slices.ContainsFunc(r.History, func(l engine.Line) bool {
		return l.State == agreement.Observed || l.State == agreement.ObservedAndTerminating
	})
}

// Replaceable is engine.Options.Replaceable: the job of an agreement would go on beside that of the one which replaces it.
func Replaceable(r *engine.Record) error {
	d, err := detailOf(r)
	if err != nil {
		return err
	}
	if d.Kind == terms.Capacity && len(r.Jobs) == 0 {
		return nil
	}
	return agreement.Refuse(agreement.WrongState, fmt.Sprintf("the agreement %s has a job, and the one that replaces it would run another: only agreements of capacity alone can be renegotiated; end it and make another, or leave it as it is", r.ID))
}

// Terminate asks for the end of one of the caller's agreements: its jobs are ended, and then it is
// Terminated.
func (s *Service) Terminate(ctx context.Context, key string, reason *etree.Element) error {
	const op = "service.Terminate"
	r, err := s.find(ctx, op, key)
	if err != nil {
		return err
	}
	who := soap.PrincipalFrom(ctx)
	why := fmt.Sprintf("%s asked for its end", who.Name)
	if reason != nil {
		if said := xmldoc.Collapse(xmldoc.Text(reason)); said != "" {
			const most = 500
			if len(said) > most {
				said = said[:most] + "…"
			}
			why += ": " + said
		}
	}
	if r.Awaiting() { // it is let go
		if done, err := s.held.Abort(ctx, r.ID, why); err != nil || done {
			s.work.add(r.ID, time.Time{})
			return err
		}
	}
	if _, err := s.e.Terminate(ctx, r.ID, why); err != nil {
		return err
	}
	s.work.add(r.ID, time.Time{})
	return nil
}
