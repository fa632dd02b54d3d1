package service

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/guarantee"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const nsAddressing = "http://www.w3.org/2005/08/addressing"

// ours makes an element of our namespace.
func ours(local string) *etree.Element {
	e := etree.NewElement("p:" + local)
	e.CreateAttr("xmlns:p", agreement.NSPortolan)
	return e
}

func text(parent *etree.Element, local, s string) {
	if s != "" {
		parent.CreateElement("p:" + local).SetText(clean(s, 4000))
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Agreement gives the properties of one of the caller's.
func (s *Service) Agreement(ctx context.Context, key string) (*agreement.Properties, error) {
	r, err := s.find(ctx, "service.Agreement", key)
	if err != nil {
		return nil, err
	}
	x, err := s.read(ctx, &r)
	if err != nil {
		return nil, err
	}
	n, err := noteOf(&r)
	if err != nil {
		return nil, err
	}
	p := &agreement.Properties{Agreement: x.agreement, State: r.State, SubState: stateOf(&r, n)}
	p.ID = r.ID
	if x.request == nil {
		return p, nil
	}
	live := s.jobs(ctx, &r, x, n)
	for i := range x.request.Services {
		v := served{}
		if i < len(n.Services) {
			v = n.Services[i]
		}
		state := s.serviceState(&r, x, i, &v, live[v.Job])
		p.Services = append(p.Services, state)
		p.Services = append(p.Services, beside(&x.agreement, &x.request.Services[i], state)...)
	}
	for _, g := range x.request.Guarantees {
		p.Guarantees = append(p.Guarantees, guaranteeState(g, &r, n))
	}
	return p, nil
}

// beside gives the states of the other terms that describe a service, such as its window: those of
// the service, which are told whole where its job or capacity is.
func beside(a *agreement.Agreement, of *terms.Service, state agreement.ServiceTermState) []agreement.ServiceTermState {
	var out []agreement.ServiceTermState
	a.Terms.Walk(func(t agreement.Term) bool {
		d, ok := t.(*agreement.ServiceDescription)
		if !ok || d.ServiceName != of.Name || d.Name == of.Term {
			return true
		}
		s := agreement.ServiceTermState{Term: d.Name, State: state.State, Activity: state.Activity}
		if state.Activity != "" { // whose element must have a child
			s.Detail = ours("With")
			s.Detail.SetText(of.Term)
		}
		out = append(out, s)
		return true
	})
	return out
}

// stateOf tells beside the state of an agreement why it is so, what it cost, and what happened.
func stateOf(r *engine.Record, n *note) *etree.Element {
	e := ours("Agreement")
	text(e, "Reason", r.Reason)
	text(e, "Owner", r.Owner)
	text(e, "VO", r.VO)
	text(e, "Created", stamp(r.Created))
	text(e, "Ended", stamp(r.Ended))
	if r.Plan != nil {
		text(e, "Plan", r.Plan.Name)
		if r.Plan.Price > 0 {
			text(e, "Price", shown(r.Plan.Price))
		}
	}
	switch {
	case r.Final():
		text(e, "Due", shown(r.Due))
	case r.Owed != nil:
		text(e, "Due", shown(*r.Owed))
	}
	for i := range n.Entries {
		e.AddChild(entryElement(&n.Entries[i]))
	}
	for _, l := range r.History {
		h := e.CreateElement("p:Event")
		h.CreateAttr("at", stamp(l.Time))
		h.CreateAttr("name", l.Event)
		h.CreateAttr("state", string(l.State))
		h.SetText(clean(l.Reason, 4000))
	}
	return e
}

func entryElement(x *ledger.Entry) *etree.Element {
	e := etree.NewElement("p:Entry")
	for _, a := range [][2]string{{"id", x.ID}, {"kind", string(x.Kind)}, {"at", stamp(x.Time)}, {"unit", x.Unit}, {"amount", x.Amount.String()}, {"vo", x.VO}, {"job", x.Job}} {
		if a[1] != "" {
			e.CreateAttr(a[0], a[1])
		}
	}
	e.SetText(x.Evidence)
	return e
}

// jobs gives the states of an agreement's jobs as they are now, so far as they are kept.
func (s *Service) jobs(ctx context.Context, r *engine.Record, x *reading, n *note) map[string]bes.Status {
	var list []soap.EPR
	var ids []string
	for i := range n.Services {
		if id := n.Services[i].Job; id != "" {
			list, ids = append(list, s.b.Reference(id)), append(ids, id)
		}
	}
	if len(list) == 0 {
		return nil
	}
	results, err := s.b.GetActivityStatuses(as(ctx, r, x), &bes.StatusRequest{Activities: list})
	if err != nil {
		return nil // what was heard of last is told
	}
	out := map[string]bes.Status{}
	for i := range results {
		if results[i].Err == nil {
			out[ids[i]] = results[i].Status
		}
	}
	return out
}

// pointOf says what a job is for the service that it is. For BES a job is Running as soon as a site is to
// have it; its service is in use only while it is known to run, as the site said. One that ran, and waits
// for its next run, is idle: there is no way back to NotReady (WS-Agreement §7.2).
func pointOf(v *served, live *bes.Status) agreement.ServicePoint {
	state := v.State
	if live.State != "" {
		state = live.State
	}
	runs := !v.Since.IsZero()
	if len(live.SubStates) > 0 && !state.Final() {
		switch live.SubStates[0].Local {
		case "Executing":
			runs = true
		case "Cancelling": // it may run until it has ended
		default:
			runs = false
		}
	}
	switch {
	case state.Final():
		return agreement.ServicePoint{State: agreement.Completed}
	case runs:
		return agreement.ServicePoint{State: agreement.Ready, Activity: agreement.Processing}
	case v.Ran || live.Details != nil && !live.Details.Started.IsZero():
		return agreement.ServicePoint{State: agreement.Ready, Activity: agreement.Idle}
	}
	return agreement.ServicePoint{State: agreement.NotReady}
}

func (s *Service) serviceState(r *engine.Record, x *reading, i int, v *served, live bes.Status) agreement.ServiceTermState {
	of := &x.request.Services[i]
	out := agreement.ServiceTermState{Term: of.Term, State: agreement.NotReady}
	if of.Job == nil {
		e := ours("Capacity")
		now := s.now()
		switch {
		case r.Final() || !now.Before(of.Window.End):
			out.State = agreement.Completed
		case r.State.Watched() && !now.Before(of.Window.Start):
			out.State, out.Activity = agreement.Ready, agreement.Idle
		}
		text(e, "Opens", stamp(of.Window.Start))
		text(e, "Closes", stamp(of.Window.End))
		if v.Opened {
			text(e, "Usable", strconv.FormatInt(v.Usable, 10))
		}
		out.Detail = e
		return out
	}
	state := v.State
	if live.State != "" {
		state = live.State
	}
	if state == "" {
		if r.Final() {
			out.State = agreement.Completed
		}
		return out
	}
	at := pointOf(v, &live)
	out.State, out.Activity = at.State, at.Activity
	e := ours("Job")
	text(e, "State", string(state))
	if v.Job != "" {
		epr := s.b.Reference(v.Job)
		e.AddChild(epr.Element("wsa", xmldoc.Name{Space: nsAddressing, Local: "EndpointReference"}))
	}
	text(e, "Site", v.Site)
	text(e, "Ended", stamp(v.Ended))
	text(e, "Problem", v.Refused)
	if live.Details != nil && v.Refused == "" {
		text(e, "Reason", live.Details.Reason)
	}
	out.Detail = e
	return out
}

// guaranteeState tells how a guarantee stands, by what evidence, and what is due.
func guaranteeState(g *guarantee.Guarantee, r *engine.Record, n *note) agreement.GuaranteeTermState {
	st, ok := n.Guarantees[g.Name]
	out := agreement.GuaranteeTermState{Term: g.Name, State: agreement.NotDetermined}
	e := ours("Guarantee")
	text(e, "Promise", g.String())
	if !ok {
		out.Detail = e
		return out
	}
	out.State = st.State
	text(e, "Count", strconv.FormatUint(st.Number, 10))
	prefix := "the guarantee " + g.Name + ": "
	for _, l := range slices.Backward(r.History) { // the last that was found of it
		if len(l.Reason) > len(prefix) && l.Reason[:len(prefix)] == prefix {
			a := e.CreateElement("p:Evidence")
			a.CreateAttr("at", stamp(l.Time))
			a.SetText(clean(l.Reason[len(prefix):], 4000))
			break
		}
	}
	for i := range n.Entries {
		if x := &n.Entries[i]; (x.Kind == ledger.Penalty || x.Kind == ledger.Reward) && ofGuarantee(x.ID, r.ID, g.Name) {
			e.AddChild(entryElement(x))
		}
	}
	out.Detail = e
	return out
}

// ofGuarantee reports whether an entry is for what was found of a guarantee.
func ofGuarantee(entry, id, name string) bool {
	prefix := id + "/" + short(name) + "/"
	return len(entry) > len(prefix) && entry[:len(prefix)] == prefix
}
