package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/offering"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

func (a *app) agreementShowCmd() *cobra.Command {
	var flags clientFlags
	var form string
	var most int
	cmd := &cobra.Command{
		Use:   "show [-o text|json|name] [--most N] [ID]",
		Short: "Show what was promised, what happened and what it cost",
		Long: `Show an agreement: what was promised, what happened and what it cost. Without an ID, list your
agreements, the newest first. Times are local.

PROMISES counts the guarantees: kept, broken and still open. DUE is what is due in all, prices
and penalties: + to you, - from you. -o json is an array of objects with id, name, template,
state, expires, promises, services, guarantees, history and account.`,
		Example: `  portolan agreement show
  portolan agreement show 01890a5d-ac96-774b-bcce-b302099a8057
  portolan agreement show -o json`,
		Args: needs(0, 1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				s, key, err := a.agreementOf(flags, args[0])
				if err != nil {
					return err
				}
				p, err := s.service.Agreement(cmd.Context(), key)
				if err != nil {
					return s.refused(err)
				}
				if form == "text" {
					a.showAgreement(s.viewOf(key, p), p)
					return nil
				}
				return a.showAgreements(form, []view{s.viewOf(key, p)})
			}
			if most < 1 || most > agreement.MaxList {
				return usagef("--most %d: give a number from 1 to %d", most, agreement.MaxList)
			}
			s, err := a.dialAgreements(flags)
			if err != nil {
				return err
			}
			views, err := s.list(cmd.Context(), most, form == "name")
			if err != nil {
				return s.refused(err)
			}
			return a.showAgreements(form, views)
		},
		ValidArgsFunction: a.completeAgreements(&flags),
	}
	flags.add(cmd)
	cmd.Flags().IntVar(&most, "most", 50, "list at most so many, the newest")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("most", cobra.NoFileCompletions))
	formFlag(cmd, &form, "text", "json", "name")
	return cmd
}

// view is an agreement as it is shown.
type view struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Template   string            `json:"template"`
	State      string            `json:"state"`
	Expires    *string           `json:"expires"`
	Promises   []string          `json:"promises"`
	Services   []serviceView     `json:"services"`
	Guarantees []guaranteeView   `json:"guarantees"`
	History    []offering.Event  `json:"history"`
	Account    []offering.Amount `json:"account"`
}

type serviceView struct {
	Term     string          `json:"term"`
	State    string          `json:"state"`
	SubState *string         `json:"substate"`
	Activity *string         `json:"activity"`
	Facts    []offering.Fact `json:"facts"`
}

type guaranteeView struct {
	Term  string          `json:"term"`
	State string          `json:"state"`
	Facts []offering.Fact `json:"facts"`
}

func (s *agreementClient) viewOf(key string, p *agreement.Properties) view {
	v := view{
		ID: s.named(key), Name: p.Name, Template: p.Context.TemplateName, State: string(p.State), Expires: stamp(p.Context.ExpirationTime),
		Promises: terms.Summary(&p.Agreement, time.Local), Services: []serviceView{}, Guarantees: []guaranteeView{},
		History: append([]offering.Event{}, offering.History(p)...), Account: append([]offering.Amount{}, offering.Account(p)...),
	}
	activities := map[string]string{}
	for _, x := range offering.Activities(p) {
		if act, ok := s.activityOf(x); ok {
			activities[x.Term] = act.id
		}
	}
	for _, t := range p.Services {
		v.Services = append(v.Services, serviceView{t.Term, string(t.State), known(string(t.Activity)), known(activities[t.Term]), facts(t.Detail)})
	}
	for _, t := range p.Guarantees {
		v.Guarantees = append(v.Guarantees, guaranteeView{t.Term, string(t.State), facts(t.Detail)})
	}
	return v
}

// activityOf gives an activity that an agreement names; false is that its reference
// can't be read.
func (s *agreementClient) activityOf(x offering.Activity) (activity, bool) {
	epr, err := soap.DecodeEPR(x.Reference)
	if err != nil {
		return activity{}, false
	}
	act, err := s.app.name(s.Endpoint, epr)
	if err != nil {
		s.app.complain(err.Error()) // the activity is there all the same
	}
	return act, true
}

// list gives the caller's agreements, the newest first.
func (s *agreementClient) list(ctx context.Context, most int, idsOnly bool) ([]view, error) {
	keys, err := s.service.List(ctx, "", most)
	if fail.Is(err, fail.Unsupported) {
		return nil, refusedf("%s does not list agreements: WS-Agreement leaves that out; give the ID of one", s.url)
	}
	if err != nil {
		return nil, err
	}
	var views []view
	for _, key := range keys {
		if idsOnly {
			views = append(views, view{ID: s.named(key)})
			continue
		}
		p, err := s.service.Agreement(ctx, key)
		if fail.Is(err, fail.NotFound) {
			continue // it is gone since
		}
		if err != nil {
			return nil, err
		}
		views = append(views, s.viewOf(key, p))
	}
	return views, nil
}

func (a *app) showAgreements(form string, views []view) error {
	switch form {
	case "json":
		return asJSON(a.out, append([]view{}, views...))
	case "name":
		for _, v := range views {
			fmt.Fprintln(a.out, plain(v.ID))
		}
		return nil
	}
	var rows [][]string
	for _, v := range views {
		rows = append(rows, []string{v.ID, v.Name, v.Template, v.State, v.tally(), v.balance()})
	}
	return table(a.out, []string{"ID", "NAME", "TEMPLATE", "STATE", "PROMISES", "DUE"}, rows)
}

// tally counts guarantees: "1 kept, 2 open".
func (v *view) tally() string {
	n := map[string]int{}
	for _, g := range v.Guarantees {
		n[g.State]++
	}
	var parts []string
	for _, x := range []struct{ state, word string }{{string(agreement.Fulfilled), "kept"}, {string(agreement.Violated), "broken"}, {string(agreement.NotDetermined), "open"}} {
		if n[x.state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[x.state], x.word))
		}
	}
	return strings.Join(parts, ", ")
}

func (v *view) balance() string {
	var parts []string
	for _, d := range offering.Total(v.Account) {
		sign := "-"
		if d.ToUser {
			sign = "+"
		}
		parts = append(parts, strings.TrimSpace(sign+d.Value+" "+d.Unit))
	}
	return strings.Join(parts, ", ")
}

// stateWords say what the state of an agreement is.
var stateWords = map[agreement.State]string{
	agreement.Pending:                "the service has not decided on it yet",
	agreement.PendingAndTerminating:  "the service has not decided on it yet, and is to end it",
	agreement.Observed:               "it was accepted and is watched",
	agreement.ObservedAndTerminating: "it is watched until its end, which was asked for",
	agreement.Rejected:               "the service did not accept it",
	agreement.Complete:               "all of it is over",
	agreement.Terminated:             "it was ended before it was over",
}

// showAgreement prints one agreement in plain language.
func (a *app) showAgreement(v view, p *agreement.Properties) {
	line := func(what, is string) {
		if is != "" {
			fmt.Fprintf(a.out, "%s: %s\n", what, plain(is))
		}
	}
	line("agreement", v.ID)
	line("name", v.Name)
	line("template", v.Template)
	line("state", v.State+": "+stateWords[p.State])
	line("ends at", clock(p.Context.ExpirationTime))
	for _, f := range facts(p.SubState) {
		line(strings.ToLower(f.Name), f.Text)
	}
	a.paragraph("What was promised", v.Promises)
	var happened []string
	add := func(head string, list []offering.Fact) {
		happened = append(happened, head)
		for _, f := range list {
			if !f.At.IsZero() {
				f.Text += " (" + clock(f.At) + ")"
			}
			happened = append(happened, "  "+f.Name+": "+f.Text)
		}
	}
	for _, e := range v.History {
		happened = append(happened, strings.TrimSuffix(clock(e.At)+"  "+e.Name+": "+e.Text, ": "))
	}
	for i, t := range p.Services {
		add(t.Term+": "+told(t.State, t.Activity), v.Services[i].Facts)
		if act := v.Services[i].Activity; act != nil {
			happened = append(happened, "  activity: "+*act)
		}
	}
	for i, t := range p.Guarantees {
		add(t.Term+": "+verdict(t.State), v.Guarantees[i].Facts)
	}
	a.paragraph("What happened", happened)
	var cost []string
	for _, x := range v.Account {
		cost = append(cost, strings.TrimSuffix(x.Kind+" "+amountText(x)+": "+x.Evidence, ": "))
	}
	total := offering.Total(v.Account)
	for _, x := range total {
		cost = append(cost, "in all "+amountText(x))
	}
	if len(total) == 0 {
		cost = append(cost, "nothing is due")
	}
	a.paragraph("What it cost", cost)
}

// amountText says "2.5 credit to you".
func amountText(x offering.Amount) string {
	s := strings.TrimSpace(x.Value + " " + x.Unit)
	switch {
	case x.Kind == "usage":
		return s
	case x.ToUser:
		return s + " to you"
	}
	return s + " from you"
}

// facts gives what the service tells of a state, times in the local zone. What is
// promised is told by the terms.
func facts(detail *etree.Element) []offering.Fact {
	list := []offering.Fact{}
	for _, f := range offering.Facts(detail) {
		if t, err := time.Parse(time.RFC3339Nano, f.Text); err == nil {
			f.Text = clock(t)
		}
		if f.Name != "Promise" {
			list = append(list, f)
		}
	}
	return list
}

// told says how a service stands.
func told(state agreement.ServiceState, activity agreement.Activity) string {
	switch state {
	case agreement.NotReady:
		return "it has not begun"
	case agreement.Ready:
		switch activity {
		case agreement.Processing:
			return "it is in use"
		case agreement.Idle:
			return "it can be used, and is not just now"
		}
		return "it can be used"
	case agreement.Completed:
		return "it is over"
	}
	return string(state)
}

// verdict says how a guarantee stands.
func verdict(state agreement.GuaranteeState) string {
	switch state {
	case agreement.Fulfilled:
		return "kept"
	case agreement.Violated:
		return "broken"
	case agreement.NotDetermined:
		return "not determined yet"
	}
	return string(state)
}
