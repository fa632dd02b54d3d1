package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/service"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
)

func (a *app) agreementTogetherCmd() *cobra.Command {
	var flags clientFlags
	var form string
	var parts []string
	cmd := &cobra.Command{
		Use:   "together [-o text|json|name] --part [DOMAIN=]FILE…",
		Short: "Make agreements with several domains, all or none",
		Long: `Make agreements at several places as one: all of the offers are agreed on, or none is. FILE is
an offer as for 'portolan agreement offer'; DOMAIN is a peer of the gateway to which it is made, and
without one it is for the gateway itself. A FILE may be written with
'portolan agreement offer --at DOMAIN --template NAME --print'.

The gateway has each domain hold what it is offered for, and confirms all of them when all hold; when
one refuses, all are let go. That takes as long as the slowest domain, half a minute at most. It
prints the id of the whole, and 'show' tells of each part. A refusal names the domain, and exits with 3.

The gateway asks in your name: the rules of each domain say who you are there.`,
		Example: `  portolan agreement together --part offer.xml --part fiu.example=theirs.xml
  portolan agreement together show 01890a5d-ac96-774b-bcce-b302099a8057
  portolan agreement together terminate 01890a5d-ac96-774b-bcce-b302099a8057`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(parts) == 0 {
				return usagef("together needs a --part [DOMAIN=]FILE for each of the agreements")
			}
			s, err := a.dialAgreements(flags)
			if err != nil {
				return err
			}
			return a.makeTogether(cmd.Context(), s, parts, form)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringArrayVar(&parts, "part", nil, "an offer, and the domain that it is made to")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("part", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return []cobra.Completion{"xml"}, cobra.ShellCompDirectiveFilterFileExt
	}))
	formFlag(cmd, &form, "text", "json", "name")
	for _, c := range []*cobra.Command{a.togetherShowCmd(), a.togetherTerminateCmd()} {
		c.DisableFlagsInUseLine = true
		cmd.AddCommand(c)
	}
	return cmd
}

// partOf divides [DOMAIN=]FILE.
func partOf(s string) (domain, file string, err error) {
	before, after, ok := strings.Cut(s, "=")
	if !ok || strings.ContainsAny(before, "/.") && identity.BadDomain(before) != "" {
		return "", s, nil
	}
	if why := identity.BadDomain(before); why != "" {
		return "", "", usagef("--part %s: %s; a file whose name has a '=' is written as ./FILE", s, why)
	}
	if after == "" {
		return "", "", usagef("--part %s: write DOMAIN=FILE", s)
	}
	return before, after, nil
}

// makeTogether makes offers of files, and tells what became of them.
func (a *app) makeTogether(ctx context.Context, s *agreementClient, parts []string, form string) error {
	if len(parts) > agreement.MaxTogetherParts {
		return usagef("%d parts are given; %d may be made as one", len(parts), agreement.MaxTogetherParts)
	}
	q := &agreement.TogetherRequest{}
	known := map[string][]agreement.Template{}
	for _, p := range parts {
		domain, file, err := partOf(p)
		if err != nil {
			return err
		}
		o, name, err := a.readOffer(file)
		if err != nil {
			return err
		}
		list, ok := known[domain]
		if !ok {
			vo, err := service.VO(&agreement.CreateRequest{Offer: *o})
			if err != nil {
				return usagef("%s: %s", name, sentence(err))
			}
			if list, err = s.templates(ctx, domain, vo); err != nil {
				return s.refused(err)
			}
			known[domain] = list
		}
		m, err := offerBy(list, o, name)
		if err != nil {
			return err
		}
		if m.Unchecked != "" {
			a.complain("the offer " + name + " is sent unchecked: " + m.Unchecked)
		}
		q.Parts = append(q.Parts, agreement.TogetherOffer{Domain: domain, Offer: *m.Offer})
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	q.ID = id.String()
	t, err := s.service.CreateTogether(ctx, q)
	if fail.Is(err, fail.Unavailable) || fail.Is(err, fail.Uncertain) {
		err = s.refused(err)
		return &exitError{code: exitRefused, err: errors.New(sentence(err) + "\nwhether it is agreed on is not known yet: 'portolan agreement together show " + q.ID + "' tells"), cause: err}
	}
	if err != nil {
		return s.refused(err)
	}
	return a.showTogether(form, []*agreement.Together{t}, true)
}

// templates gives those of a domain; "" is that of the service.
func (s *agreementClient) templates(ctx context.Context, domain, vo string) ([]agreement.Template, error) {
	if domain == "" {
		return s.service.Templates(ctx)
	}
	return s.service.TemplatesOf(ctx, domain, vo)
}

func (a *app) togetherShowCmd() *cobra.Command {
	var flags clientFlags
	var form string
	var most int
	cmd := &cobra.Command{
		Use:   "show [-o text|json|name] [--most N] [ID]",
		Short: "Show agreements that were made together",
		Long: `Show what became of agreements that were made together: the state of the whole, and of each part
with the agreement that it is at its domain. Without an ID, list them, the newest first.`,
		Example: `  portolan agreement together show
  portolan agreement together show -o json 01890a5d-ac96-774b-bcce-b302099a8057`,
		Args: needs(0, 1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if most < 1 || most > agreement.MaxList {
				return usagef("--most %d: give a number from 1 to %d", most, agreement.MaxList)
			}
			s, err := a.dialAgreements(flags)
			if err != nil {
				return err
			}
			ids := args
			if len(args) == 0 {
				if ids, err = s.service.ListTogether(cmd.Context(), "", most); err != nil {
					return s.refused(err)
				}
			}
			var list []*agreement.Together
			for _, id := range ids {
				t := &agreement.Together{ID: id}
				if len(args) == 1 || form != "name" {
					if t, err = s.service.Together(cmd.Context(), id); err != nil {
						return s.refused(err)
					}
				}
				list = append(list, t)
			}
			return a.showTogether(form, list, len(args) == 1)
		},
		ValidArgsFunction: a.completeTogether(&flags),
	}
	flags.add(cmd)
	cmd.Flags().IntVar(&most, "most", 50, "list at most so many, the newest")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("most", cobra.NoFileCompletions))
	formFlag(cmd, &form, "text", "json", "name")
	return cmd
}

func (a *app) togetherTerminateCmd() *cobra.Command {
	var flags clientFlags
	var reason string
	cmd := &cobra.Command{
		Use:   "terminate [--reason TEXT] ID",
		Short: "End agreements that were made together",
		Long: `Ask for the end of all agreements that were made together. Each domain is asked until it answers,
also when the gateway ends meanwhile: 'show' tells how far it is. It prints the state of the whole.`,
		Example:           "  portolan agreement together terminate --reason 'the paper was accepted' 01890a5d-ac96-774b-bcce-b302099a8057",
		Args:              needs(1, 1, "ID"),
		ValidArgsFunction: a.completeTogether(&flags),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.dialAgreements(flags)
			if err != nil {
				return err
			}
			var why *etree.Element
			if reason != "" {
				why = etree.NewElement("p:Reason")
				why.CreateAttr("xmlns:p", agreement.NSPortolan)
				why.SetText(plain(reason))
			}
			if err := s.service.TerminateTogether(cmd.Context(), args[0], why); err != nil {
				return s.refused(err)
			}
			t, err := s.service.Together(cmd.Context(), args[0])
			if err != nil {
				return s.refused(err)
			}
			fmt.Fprintf(a.out, "%s  %s\n", plain(t.ID), plain(t.State))
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record of the domains")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions))
	return cmd
}

// completeTogether completes the ids of what was made together.
func (a *app) completeTogether(flags *clientFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := quickly(cmd)
		defer cancel()
		s, err := a.dialAgreements(*flags)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ids, err := s.service.ListTogether(ctx, "", 50)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for _, id := range ids {
			out = append(out, cobra.Completion(plain(id)))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// togetherView is what was made together, for scripts.
type togetherView struct {
	ID      string             `json:"id"`
	State   string             `json:"state"`
	Reason  string             `json:"reason"`
	Created *string            `json:"created"`
	Parts   []togetherPartView `json:"parts"`
}

type togetherPartView struct {
	Name      string   `json:"name"`
	Domain    string   `json:"domain"`
	State     string   `json:"state"`
	Agreement *string  `json:"agreement"`
	Now       *string  `json:"agreementState"` // null where its domain did not answer
	Reason    string   `json:"reason"`
	Earliest  *string  `json:"earliest"`
	Promises  []string `json:"promises"`
}

// togetherWords say what the state of the whole is.
var togetherWords = map[string]string{
	string(together.Preparing):    "each domain is asked to hold its part",
	string(together.Committing):   "all hold, and are confirmed",
	string(together.Aborting):     "one refused, or it took too long: all are let go",
	string(together.Compensating): "one let go before it was confirmed: the others are ended",
	string(together.Committed):    "all of it is agreed on",
	string(together.Aborted):      "nothing is agreed on",
	string(together.RolledBack):   "nothing is agreed on any more",
	string(together.Unsettled):    "a domain was out of reach for so long that it is not known what it keeps",
	string(together.Dissolving):   "its end was asked for, and each domain is told",
	string(together.Dissolved):    "all of it was ended",
}

func viewOfTogether(t *agreement.Together) togetherView {
	v := togetherView{ID: t.ID, State: t.State, Reason: t.Reason, Created: stamp(t.Created), Parts: []togetherPartView{}}
	for i := range t.Parts {
		x := &t.Parts[i]
		p := togetherPartView{Name: x.Name, Domain: x.Domain, State: x.State, Agreement: known(x.Key), Reason: x.Reason, Earliest: stamp(x.Earliest), Promises: []string{}}
		if x.Agreement != nil {
			p.Now = known(string(x.Agreement.State))
			p.Promises = append(p.Promises, terms.Summary(&x.Agreement.Agreement, time.Local)...)
		}
		v.Parts = append(v.Parts, p)
	}
	return v
}

// showTogether prints what was made together; whole is one of them with its parts.
func (a *app) showTogether(form string, list []*agreement.Together, whole bool) error {
	views := []togetherView{}
	for _, t := range list {
		views = append(views, viewOfTogether(t))
	}
	switch {
	case form == "name":
		for _, v := range views {
			fmt.Fprintln(a.out, plain(v.ID))
		}
		return nil
	case form == "json":
		return asJSON(a.out, views)
	case !whole:
		var rows [][]string
		for _, v := range views {
			var at []string
			for _, p := range v.Parts {
				at = append(at, p.Domain)
			}
			rows = append(rows, []string{v.ID, v.State, strings.Join(at, ", ")})
		}
		return table(a.out, []string{"ID", "STATE", "DOMAINS"}, rows)
	}
	v := views[0]
	line := func(what, is string) {
		if is != "" {
			fmt.Fprintf(a.out, "%s: %s\n", what, plain(is))
		}
	}
	line("together", v.ID)
	line("state", strings.TrimSuffix(v.State+": "+togetherWords[v.State], ": "))
	line("reason", v.Reason)
	for _, p := range v.Parts {
		lines := []string{"state: " + p.State}
		if p.Agreement != nil {
			lines = append(lines, "agreement: "+*p.Agreement)
		}
		if p.Now != nil {
			lines = append(lines, "which is "+*p.Now+": "+stateWords[agreement.State(*p.Now)])
		}
		if p.Reason != "" {
			lines = append(lines, "reason: "+p.Reason)
		}
		if p.Earliest != nil {
			lines = append(lines, "the earliest that can be kept: "+*p.Earliest)
		}
		title := p.Domain
		if p.Name != p.Domain {
			title = p.Name + " at " + p.Domain
		}
		a.paragraph(title, append(lines, p.Promises...))
	}
	return nil
}
