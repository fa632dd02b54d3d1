package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const stateClause = "WS-Agreement 1.0, run-time states"

var wsagStateChecks = []check{
	{"WSAG-STA-1", schemaOf("AgreementStateType"), "an agreement's sub-state, if any, is one element of another namespace before its State", agreementStateForm},
	{"WSAG-STA-2", schemaOf("AgreementStateDefinition"), "an agreement's state is one of the standard's seven", func(ctx context.Context, p *probe) (string, error) {
		d, err := p.agreed(ctx)
		if err != nil {
			return "", err
		}
		s, _, err := p.dealState(ctx, d)
		return string(s), err
	}},
	{"WSAG-STA-3", schemaOf("ServiceTermStateType"), "a service term's state has its State first, then one sub-state at most", termStates("ServiceTermState", serviceStateForm)},
	{"WSAG-STA-4", schemaOf("ServiceTermStateDefinition"), "a service term's state is NotReady, Ready or Completed", termStates("ServiceTermState", stateIn("NotReady", "Ready", "Completed"))},
	{"WSAG-STA-5", schemaOf("ServiceTermStateType") + "; " + stateClause, "Processing and Idle are of Ready, and hold one element of another namespace", termStates("ServiceTermState", activityForm)},
	{"WSAG-STA-6", schemaOf("GuaranteeTermStateType"), "a guarantee's state has its State first, then one element of another namespace at most", termStates("GuaranteeTermState", guaranteeStateForm)},
	{"WSAG-STA-7", schemaOf("GuaranteeTermStateDefinition"), "a guarantee's state is NotDetermined, Fulfilled or Violated", termStates("GuaranteeTermState", stateIn("NotDetermined", "Fulfilled", "Violated"))},
	{"WSAG-STA-8", "GFD.107 schema (attributeFormDefault is qualified)", "the termName of a state is in the namespace of WS-Agreement", func(ctx context.Context, p *probe) (string, error) {
		for _, of := range []string{"ServiceTermState", "GuaranteeTermState"} {
			if saw, err := termStates(of, hasTermName)(ctx, p); err != nil {
				return saw, err
			}
		}
		return "qualified", nil
	}},
	{"WSAG-STA-9", stateClause, "service states are of the agreement's service terms, each of one", statesOf("ServiceTermState", "ServiceDescriptionTerm", "ServiceReference", "ServiceProperties")},
	{"WSAG-STA-10", stateClause, "guarantee states are of the agreement's guarantees, each of one", statesOf("GuaranteeTermState", "GuaranteeTerm")},
	{"WSAG-STA-11", stateClause, "while the agreement is observed every described service has a state", eachHasState("ServiceTermState", "ServiceDescriptionTerm")},
	{"WSAG-STA-12", stateClause, "while the agreement is observed every guarantee has a state", eachHasState("GuaranteeTermState", "GuaranteeTerm")},
	{"WSAG-STA-13", stateClause, "what is asked for twice follows on what was before", followsOn},
}

func foreignElement(e *etree.Element) bool {
	n := xmldoc.NameOf(e)
	return n.Space != agreement.NS && n.Space != ""
}

func agreementStateForm(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	_, e, err := p.dealState(ctx, d)
	if err != nil {
		return "", err
	}
	kids := e.ChildElements()
	switch {
	case len(kids) == 1:
	case len(kids) == 2 && foreignElement(kids[0]) && xmldoc.Is(kids[1], agreement.NS, "State"):
	default:
		var list []string
		for _, k := range kids {
			list = append(list, xmldoc.NameOf(k).String())
		}
		return "", fmt.Errorf("AgreementState holds %s: wanted a sub-state at most, and then State", strings.Join(list, ", "))
	}
	return xmlOf(xmldoc.Detach(e)), nil
}

// termStates makes a check of each state of a kind that an agreement has.
func termStates(local string, ok func(*etree.Element) error) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d, err := p.agreed(ctx)
		if err != nil {
			return "", err
		}
		list, err := p.property(ctx, d, local)
		if err != nil {
			return "", err
		}
		if len(list) == 0 {
			return "", skip("the agreement has no %s", local)
		}
		for _, e := range list {
			if err := ok(e); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("%d of them", len(list)), nil
	}
}

func stateText(e *etree.Element) string {
	if s := xmldoc.Child(e, agreement.NS, "State"); s != nil {
		return xmldoc.Text(s)
	}
	return ""
}

func stateIn(list ...string) func(*etree.Element) error {
	return func(e *etree.Element) error {
		if s := stateText(e); !slices.Contains(list, s) {
			return fmt.Errorf("a %s is %q: wanted %s", e.Tag, s, strings.Join(list, " or "))
		}
		return nil
	}
}

func stateFirst(e *etree.Element) ([]*etree.Element, error) {
	kids := e.ChildElements()
	if len(kids) == 0 || !xmldoc.Is(kids[0], agreement.NS, "State") {
		return nil, fmt.Errorf("a %s does not begin with State", e.Tag)
	}
	if len(kids) > 2 {
		return nil, fmt.Errorf("a %s holds %d elements: wanted State and one at most", e.Tag, len(kids))
	}
	return kids[1:], nil
}

func serviceStateForm(e *etree.Element) error {
	more, err := stateFirst(e)
	if err != nil {
		return err
	}
	for _, k := range more {
		if !foreignElement(k) && !xmldoc.Is(k, agreement.NS, "Processing") && !xmldoc.Is(k, agreement.NS, "Idle") {
			return fmt.Errorf("a ServiceTermState has the sub-state %s", xmldoc.NameOf(k))
		}
	}
	return nil
}

func guaranteeStateForm(e *etree.Element) error {
	more, err := stateFirst(e)
	if err != nil {
		return err
	}
	for _, k := range more {
		if !foreignElement(k) {
			return fmt.Errorf("a GuaranteeTermState holds %s", xmldoc.NameOf(k))
		}
	}
	return nil
}

func activityForm(e *etree.Element) error {
	for _, l := range []string{"Processing", "Idle"} {
		a := xmldoc.Child(e, agreement.NS, l)
		if a == nil {
			continue
		}
		if s := stateText(e); s != "Ready" {
			return fmt.Errorf("a service term that is %s is %s", s, l)
		}
		if kids := a.ChildElements(); len(kids) != 1 || !foreignElement(kids[0]) {
			return fmt.Errorf("%s holds %d elements: the schema has one of another namespace", l, len(kids))
		}
	}
	return nil
}

func hasTermName(e *etree.Element) error {
	if n, ok := xmldoc.Attr(e, agreement.NS, "termName"); !ok || n == "" {
		return fmt.Errorf("a %s has no wsag:termName", e.Tag)
	}
	return nil
}

// stateNames gives the termName of each state of a kind, and the names of the terms of some tags.
func (p *probe) stateNames(ctx context.Context, d *deal, local string, tags ...string) (states, terms []string, err error) {
	list, err := p.property(ctx, d, local)
	if err != nil {
		return nil, nil, err
	}
	t, err := p.terms(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range list {
		n, _ := xmldoc.Attr(e, agreement.NS, "termName")
		states = append(states, n)
	}
	return states, termNames(t, tags...), nil
}

func statesOf(local string, tags ...string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d, err := p.agreed(ctx)
		if err != nil {
			return "", err
		}
		got, terms, err := p.stateNames(ctx, d, local, tags...)
		if err != nil {
			return "", err
		}
		if len(got) == 0 {
			return "", skip("the agreement has no %s", local)
		}
		seen := map[string]bool{}
		for _, n := range got {
			if !slices.Contains(terms, n) {
				return "", fmt.Errorf("a %s is of %q: the agreement has %s", local, n, strings.Join(terms, ", "))
			}
			if seen[n] {
				return "", fmt.Errorf("two %s are of %q", local, n)
			}
			seen[n] = true
		}
		return strings.Join(got, ", "), nil
	}
}

func eachHasState(local, tag string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d, err := p.agreed(ctx)
		if err != nil {
			return "", err
		}
		s, _, err := p.dealState(ctx, d)
		if err != nil {
			return "", err
		}
		if !s.Watched() {
			return "", skip("the agreement is %s, where terms have no states that mean anything", s)
		}
		got, terms, err := p.stateNames(ctx, d, local, tag)
		if err != nil {
			return "", err
		}
		if len(terms) == 0 {
			return "", skip("the agreement has no %s", tag)
		}
		for _, n := range terms {
			if !slices.Contains(got, n) {
				return "", fmt.Errorf("the term %q has no %s", n, local)
			}
		}
		return strings.Join(got, ", "), nil
	}
}

// after lists which states may be seen later than one: by any number of transitions.
var after = map[agreement.State][]agreement.State{
	agreement.Pending:                {agreement.Pending, agreement.PendingAndTerminating, agreement.Observed, agreement.ObservedAndTerminating, agreement.Rejected, agreement.Complete, agreement.Terminated},
	agreement.PendingAndTerminating:  {agreement.PendingAndTerminating, agreement.Observed, agreement.ObservedAndTerminating, agreement.Rejected, agreement.Complete, agreement.Terminated},
	agreement.Observed:               {agreement.Observed, agreement.ObservedAndTerminating, agreement.Complete, agreement.Terminated},
	agreement.ObservedAndTerminating: {agreement.ObservedAndTerminating, agreement.Complete, agreement.Terminated},
	agreement.Rejected:               {agreement.Rejected},
	agreement.Complete:               {agreement.Complete},
	agreement.Terminated:             {agreement.Terminated},
}

// inOrder fails unless each state may be seen after the one before.
func inOrder(seen []agreement.State) error {
	for i := 1; i < len(seen); i++ {
		if !slices.Contains(after[seen[i-1]], seen[i]) {
			return fmt.Errorf("the agreement was %s and then %s (%s)", seen[i-1], seen[i], joined(seen))
		}
	}
	return nil
}

func followsOn(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	var seen []agreement.State
	for range 3 {
		s, _, err := p.dealState(ctx, d)
		if err != nil {
			return "", err
		}
		seen = append(seen, s)
	}
	return joined(seen), inOrder(seen)
}

const terminating = "WS-Agreement 1.0, the Agreement port type (Terminate)"

var wsagTerminateChecks = []check{
	{"WSAG-TRM-1", terminating + "; GFD.107 schema, TerminateResponse", "Terminate of an agreement that is observed is answered with an empty TerminateResponse", endAnswer},
	{"WSAG-TRM-2", terminating + "; " + stateClause, "after it the agreement is ending, or has ended", endBegins},
	{"WSAG-TRM-3", stateClause, "one that is ending ends, by the states of the standard", endComes},
	{"WSAG-TRM-4", terminating + ": nothing follows a final state", "Terminate of an agreement that has ended is refused", endTwice},
	{"WSAG-TRM-5", "WS-Agreement 1.0: obligations outlive the request", "an agreement that has ended can still be read", endReadable},
	{"WSAG-TRM-6", terminating, "asked for its end twice, an agreement does not go back", endAgain},
	{"WSAG-TRM-7", terminating, "the end of one agreement is not that of another", endAlone},
	{"WSAG-TRM-8", schemaOf("TerminateInputType") + " (any namespace)", "a reason in the namespace of WS-Agreement is taken", endFor(`<wsag:Name>enough</wsag:Name>`)},
	{"WSAG-TRM-9", schemaOf("TerminateInputType"), "a request without a reason is taken, or refused with a fault", endWithout},
	{"WSAG-TRM-10", schemaOf("TerminateInputType"), "two reasons are refused, and the agreement stays", endRefused(reason + reason)},
	{"WSAG-TRM-11", schemaOf("TerminateInputType"), "a reason in words alone is refused, and the agreement stays", endRefused("enough")},
	{"WSAG-TRM-12", "WS-Resource 1.2 §3; " + terminating, "Terminate of an agreement that does not exist is refused", strange(wsagMessage("TerminateInput", reason))},
	{"WSAG-TRM-13", "GFD.193 schema, TerminateInput: one name in two namespaces", "the TerminateInput of WS-Agreement Negotiation ends no agreement", endNegotiation},
	{"WSAG-TRM-14", "WS-Addressing 1.0 core §3.3", "Terminate that names no agreement is refused", func(ctx context.Context, p *probe) (string, error) {
		d, err := p.agreed(ctx)
		if err != nil {
			return "", err
		}
		if len(d.epr.ReferenceParameters) == 0 {
			return "", skip("the EPR has no reference parameters: its address alone says which agreement is meant")
		}
		rep, err := p.ask(ctx, wsagMessage("TerminateInput", reason))
		if err != nil {
			return "", err
		}
		if _, err := rep.wantDetail(resourceUnknown, continuingFault); err == nil {
			return rep.String(), nil
		}
		return rep.String(), rep.wantRefusal()
	}},
	{"WSAG-TRM-15", "SOAP 1.2 part 1; " + terminating, "Terminate works in SOAP 1.2", func(ctx context.Context, p *probe) (string, error) {
		d, err := p.freshDeal(ctx)
		if err != nil {
			return "", err
		}
		rep, err := p.askAbout(ctx, d, wsagMessage("TerminateInput", reason).with(soap.V12))
		if err != nil {
			return "", err
		}
		return rep.String(), endTaken(rep)
	}},
}

// endTaken fails unless Terminate was answered; a responder may refuse to end an agreement.
func endTaken(rep *reply) error {
	if rep.fault != nil {
		if _, err := rep.wantContinuing(); err != nil {
			return err
		}
		return skip("the endpoint did not let the agreement end, as it may: %s", rep)
	}
	return rep.wantPayload(agreement.NS, "TerminateResponse")
}

// endDeal asks for the end of an agreement.
func (p *probe) endDeal(ctx context.Context, d *deal, content string) (*reply, error) {
	rep, err := p.askAbout(ctx, d, wsagMessage("TerminateInput", content))
	if err != nil {
		return nil, err
	}
	return rep, endTaken(rep)
}

// ending makes an agreement and asks for its end.
func (p *probe) ending(ctx context.Context) (*deal, *reply, error) {
	d, err := p.freshDeal(ctx)
	if err != nil {
		return nil, nil, err
	}
	rep, err := p.endDeal(ctx, d, reason)
	return d, rep, err
}

func endAnswer(ctx context.Context, p *probe) (string, error) {
	_, rep, err := p.ending(ctx)
	if err != nil {
		return "", err
	}
	if n := len(rep.payload.ChildElements()); n > 0 || strings.TrimSpace(xmldoc.Text(rep.payload)) != "" {
		return "", fmt.Errorf("TerminateResponse is not empty: it holds %d elements", n)
	}
	return rep.String(), nil
}

func endBegins(ctx context.Context, p *probe) (string, error) {
	d, _, err := p.ending(ctx)
	if err != nil {
		return "", err
	}
	s, _, err := p.dealState(ctx, d)
	if err != nil {
		return "", err
	}
	if s != agreement.ObservedAndTerminating && !(s.Final() && s != agreement.Rejected) {
		return "", fmt.Errorf("after Terminate the agreement is %s: wanted ObservedAndTerminating, Terminated or Complete", s)
	}
	return string(s), nil
}

// endedDeal gives an agreement that has ended.
func (p *probe) endedDeal(ctx context.Context) (*deal, []agreement.State, error) {
	d, _, err := p.ending(ctx)
	if err != nil {
		return nil, nil, err
	}
	seen, err := p.awaitDeal(ctx, d, agreement.State.Final)
	return d, seen, err
}

func endComes(ctx context.Context, p *probe) (string, error) {
	_, seen, err := p.endedDeal(ctx)
	if err != nil {
		return "", err
	}
	seen = append([]agreement.State{agreement.Observed}, seen...)
	return joined(seen), inOrder(seen)
}

func endTwice(ctx context.Context, p *probe) (string, error) {
	d, _, err := p.endedDeal(ctx)
	if err != nil {
		return "", err
	}
	rep, err := p.askAbout(ctx, d, wsagMessage("TerminateInput", reason))
	if err != nil {
		return "", err
	}
	_, err = rep.wantDetail(continuingFault, resourceUnknown)
	return rep.String(), err
}

func endReadable(ctx context.Context, p *probe) (string, error) {
	d, _, err := p.endedDeal(ctx)
	if err != nil {
		return "", err
	}
	id, err := p.word(ctx, d, "AgreementId")
	if err != nil {
		return "", err
	}
	if _, err := p.terms(ctx, d); err != nil {
		return "", err
	}
	return "AgreementId " + id, nil
}

func endAgain(ctx context.Context, p *probe) (string, error) {
	d, _, err := p.ending(ctx)
	if err != nil {
		return "", err
	}
	before, _, err := p.dealState(ctx, d)
	if err != nil {
		return "", err
	}
	rep, err := p.askAbout(ctx, d, wsagMessage("TerminateInput", reason))
	if err != nil {
		return "", err
	}
	if rep.fault != nil {
		if _, err := rep.wantDetail(continuingFault, resourceUnknown); err != nil {
			return "", err
		}
	} else if err := rep.wantPayload(agreement.NS, "TerminateResponse"); err != nil {
		return "", err
	}
	now, _, err := p.dealState(ctx, d)
	if err != nil {
		return "", err
	}
	return rep.String(), inOrder([]agreement.State{before, now})
}

func endAlone(ctx context.Context, p *probe) (string, error) {
	other, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	before, _, err := p.dealState(ctx, other)
	if err != nil {
		return "", err
	}
	if before != agreement.Observed {
		return "", skip("the other agreement is %s already", before)
	}
	if _, _, err := p.ending(ctx); err != nil {
		return "", err
	}
	now, _, err := p.dealState(ctx, other)
	if err != nil {
		return "", err
	}
	if now != agreement.Observed && now != agreement.Complete {
		return "", fmt.Errorf("the end of another agreement made it %s", now)
	}
	return string(now), nil
}

func endFor(content string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d, err := p.freshDeal(ctx)
		if err != nil {
			return "", err
		}
		rep, err := p.endDeal(ctx, d, content)
		if err != nil {
			return "", err
		}
		return rep.String(), nil
	}
}

func endWithout(ctx context.Context, p *probe) (string, error) {
	d, err := p.freshDeal(ctx)
	if err != nil {
		return "", err
	}
	rep, err := p.askAbout(ctx, d, wsagMessage("TerminateInput", ""))
	if err != nil {
		return "", err
	}
	if rep.fault != nil {
		return rep.String(), rep.wantRefusal()
	}
	return rep.String(), rep.wantPayload(agreement.NS, "TerminateResponse")
}

// stays fails unless a message about an agreement is refused and changes nothing.
func (p *probe) stays(ctx context.Context, m message) (string, error) {
	d, err := p.freshDeal(ctx)
	if err != nil {
		return "", err
	}
	before, _, err := p.dealState(ctx, d)
	if err != nil {
		return "", err
	}
	rep, err := p.askAbout(ctx, d, m)
	if err != nil {
		return "", err
	}
	if err := rep.wantRefusal(); err != nil {
		return "", err
	}
	now, _, err := p.dealState(ctx, d)
	if err != nil {
		return "", err
	}
	if now != before && now != agreement.Complete {
		return "", errors.New("the request was refused, and the agreement became " + string(now))
	}
	return rep.String(), nil
}

func endRefused(content string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		return p.stays(ctx, wsagMessage("TerminateInput", content))
	}
}

func endNegotiation(ctx context.Context, p *probe) (string, error) {
	m := wsagMessage("TerminateInput", "")
	m.body = `<neg:TerminateInput xmlns:neg="` + agreement.NSNegotiation + `"/>`
	m.action = agreement.NSNegotiation + "/TerminateRequest"
	return p.stays(ctx, m)
}
