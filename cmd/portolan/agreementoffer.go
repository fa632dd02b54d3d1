package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/offering"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/moments"
)

// offerFlags are what an offer is made of.
type offerFlags struct {
	template, name, expires string
	at                      string // the domain that it is for; "" is that of the service
	set, jobs               []string
	show                    bool
	pending, wait           bool
	callback                string
}

func (a *app) agreementOfferCmd() *cobra.Command {
	var flags clientFlags
	var form string
	var o offerFlags
	cmd := &cobra.Command{
		Use:   "offer [-o text|json|name] [--print] FILE | offer --template NAME [--set ITEM=VALUE…] [--job FILE…]",
		Short: "Make an offer",
		Long: `Make an offer: from a file that holds a wsag:AgreementOffer ('-' is standard input), or from a
template, whose items are filled in by their names: 'portolan agreement templates NAME' tells them.
What is not filled in stays as the template has it. Where the template has a time, VALUE is one like
` + moments.Forms + `; times without a zone are local, and a day is
its end.

--job is the JSDL document of the template's job; if it has several services, one for each, in
their order. A file's offer that names a template without its id is for the template as it is now.

The offer is held against the template's constraints before it is sent; what it breaks is told, and
the exit code is 1. A refusal of the service exits with 3, and with the earliest time that can be
kept, if the service knows one. --print shows the offer and sends nothing.

Accepted, it prints the agreement's id, and what is promised.

With --pending the service may take its time to decide (CreatePendingAgreement): it prints the id at
once, and 'portolan agreement watch' or --wait waits for the decision. --callback has the service
tell its decision to an AgreementAcceptance endpoint, with the agreement's name as AgreementKey, if
it tells decisions there at all. With --wait, the exit code is 3 if the offer is rejected.`,
		Example: `  portolan agreement offer --template finish-by --set finishBy=FRIDAY --job job.jsdl
  portolan agreement offer --template capacity --set cpus=64 --set 'start=tomorrow 14:00' --set 'end=tomorrow 16:00'
  portolan agreement offer --template finish-by --job job.jsdl --print > offer.xml
  portolan agreement offer offer.xml
  portolan agreement offer --pending --wait offer.xml`,
		Args: needs(0, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && (o.template != "" || len(o.set) > 0 || len(o.jobs) > 0):
				return usagef("an offer is made from a FILE, or from a --template with --set and --job: not from both")
			case len(args) == 0 && o.template == "":
				return usagef("offer needs a FILE or a --template")
			case o.at != "" && !o.show:
				return usagef("--at is for --print: what is offered to another domain is sent with 'portolan agreement together --part %s=FILE'", o.at)
			case !o.pending && (o.wait || o.callback != ""):
				return usagef("--wait and --callback are for --pending: any other offer is decided when it is answered")
			}
			if err := o.callable(); err != nil {
				return err
			}
			s, err := a.dialAgreements(flags)
			if err != nil {
				return err
			}
			list, err := s.templates(cmd.Context(), o.at, "")
			if err != nil {
				return s.refused(err)
			}
			var m *offering.Made
			if len(args) == 1 {
				m, err = a.offerOfFile(list, args[0])
			} else {
				m, err = a.offerOfTemplate(list, &o)
			}
			if err != nil {
				return err
			}
			if err := o.finish(m.Offer); err != nil {
				return err
			}
			if o.show {
				return a.showXML(m.Offer.Encode())
			}
			return a.offer(cmd.Context(), s, m, &o, form)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return []cobra.Completion{"xml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&o.template, "template", "", "make the offer from this template")
	cmd.Flags().StringArrayVar(&o.set, "set", nil, "ITEM=VALUE of the template")
	cmd.Flags().StringArrayVar(&o.jobs, "job", nil, "the JSDL document of the template's job")
	cmd.Flags().StringVar(&o.at, "at", "", "with --print, by the templates of this domain, a peer of the gateway")
	cmd.Flags().StringVar(&o.name, "name", "", "name of the agreement")
	cmd.Flags().StringVar(&o.expires, "expires", "", "when the agreement as a whole ends, done or not")
	cmd.Flags().BoolVar(&o.show, "print", false, "print the offer and send nothing")
	cmd.Flags().BoolVar(&o.pending, "pending", false, "let the service decide later")
	cmd.Flags().BoolVar(&o.wait, "wait", false, "with --pending: wait for the decision")
	cmd.Flags().StringVar(&o.callback, "callback", "", "with --pending: URL that the decision is told to")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("template", a.completeTemplates(&flags)))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("set", a.completeItems(&flags, &o.template)))
	for _, f := range []string{"name", "expires", "at", "callback"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(f, cobra.NoFileCompletions))
	}
	formFlag(cmd, &form, "text", "json", "name")
	return cmd
}

// completeItems completes the items of the template that --template names.
func (a *app) completeItems(flags *clientFlags, template *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := quickly(cmd)
		defer cancel()
		s, err := a.dialAgreements(*flags)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := s.service.Templates(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for _, t := range templatesMeant(list, *template) {
			for _, l := range offering.Limits(&t, time.Local) {
				out = append(out, cobra.CompletionWithDesc(plain(l.Item)+"=", plain(l.Words)))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// readOffer reads an offer, and gives what its file is called.
func (a *app) readOffer(file string) (*agreement.Offer, string, error) {
	b, name, err := a.document(file)
	if err != nil {
		return nil, name, err
	}
	o, err := agreement.ParseOffer(b)
	if err != nil {
		return nil, name, usagef("%s: %s", name, sentence(err))
	}
	return o, name, nil
}

// offerOfFile reads an offer and finds its template, so far as the service has it.
func (a *app) offerOfFile(list []agreement.Template, file string) (*offering.Made, error) {
	o, name, err := a.readOffer(file)
	if err != nil {
		return nil, err
	}
	return offerBy(list, o, name)
}

// offerBy finds the template of an offer, so far as it is in the list.
func offerBy(list []agreement.Template, o *agreement.Offer, name string) (*offering.Made, error) {
	var err error
	c := &o.Context
	if same := templatesNamed(list, c.TemplateName); c.TemplateID == "" && len(same) == 1 {
		c.TemplateID = same[0].TemplateID
		if o, err = agreement.DecodeOffer(o.Encode()); err != nil {
			return nil, usagef("%s: %s", name, sentence(err))
		}
	}
	m := &offering.Made{Offer: o}
	m.Template, err = terms.Current(list, c.TemplateName, c.TemplateID)
	if err != nil {
		return m, nil //nolint:nilerr // the service says what it makes of an offer by a template that is not listed
	}
	return m, checked(m)
}

// offerOfTemplate fills in a template.
func (a *app) offerOfTemplate(list []agreement.Template, o *offerFlags) (*offering.Made, error) {
	found := templatesMeant(list, o.template)
	switch len(found) {
	case 0:
		return nil, refusedf("there is no template %q: 'portolan agreement templates' lists those that there are", o.template)
	case 1:
	default:
		if found[0].Name != o.template { // of a kind, at places
			names := make([]string, len(found))
			for i := range found {
				names[i] = found[i].Name
			}
			return nil, refusedf("there is no template %q, but %s: name one of these", o.template, strings.Join(names, ", "))
		}
		return nil, refusedf("there are %d templates %q: write the offer as a file, with the TemplateId of one", len(found), o.template)
	}
	f := offering.Filling{Moment: moment}
	for _, s := range o.set {
		item, value, ok := strings.Cut(s, "=")
		if !ok || item == "" {
			return nil, usagef("--set %s: write ITEM=VALUE", s)
		}
		f.Values = append(f.Values, offering.Value{Item: item, Text: value})
	}
	for _, file := range o.jobs {
		b, _, err := a.document(file)
		if err != nil {
			return nil, err
		}
		f.Jobs = append(f.Jobs, b)
	}
	m := &offering.Made{Template: &found[0]}
	var err error
	if m.Offer, err = offering.Fill(m.Template, f); err != nil {
		return nil, usagef("%s", sentence(err))
	}
	return m, checked(m)
}

// moment reads a time by which something is to be done, in the local zone.
func moment(s string) (time.Time, error) { return moments.By(s, thisSecond(), time.Local) }

// thisSecond is now, as people mean it.
func thisSecond() time.Time { return time.Now().Truncate(time.Second) }

// checked holds an offer against its template.
func checked(m *offering.Made) error {
	var broken []string
	if broken, m.Unchecked = offering.Check(m.Template, m.Offer); len(broken) > 0 {
		return failedf("%s", sentence(offering.Broken(m.Template, broken)))
	}
	return nil
}

// finish gives the offer what is the offerer's own.
func (o *offerFlags) finish(offer *agreement.Offer) error {
	if o.name != "" {
		offer.Name = o.name
	}
	if o.expires != "" {
		t, err := moment(o.expires)
		if err != nil {
			return usagef("--expires: %s", sentence(err))
		}
		offer.Context.ExpirationTime = t.UTC()
	}
	return nil
}

// callable reports a callback that is no URL.
func (o *offerFlags) callable() error {
	if o.callback == "" {
		return nil
	}
	if u, err := url.Parse(o.callback); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usagef("--callback %s: give an http or https URL", o.callback)
	}
	return nil
}

// send makes an agreement of an offer, decided or pending.
func (s *agreementClient) send(ctx context.Context, offer *agreement.Offer, o *offerFlags) (string, error) {
	req := &agreement.CreateRequest{Offer: *offer}
	if !o.pending {
		return s.service.Create(ctx, req)
	}
	if o.callback != "" {
		req.AcceptanceEPR = new(agreement.NewEPR(o.callback, cmp.Or(offer.Name, "offer")))
	}
	return s.service.CreatePending(ctx, req)
}

// decided waits until a pending agreement is decided, and gives its state then.
func (s *agreementClient) decided(ctx context.Context, key string) (*agreement.Properties, error) {
	pause, heard, lost := shortPause, time.Now(), false
	for {
		p, err := s.service.Agreement(ctx, key)
		switch {
		case err == nil && p.State != agreement.Pending && p.State != agreement.PendingAndTerminating:
			return p, nil
		case err == nil:
			heard, lost = time.Now(), false
		case ctx.Err() != nil || !passing(err) || time.Since(heard) > patience:
			return nil, err
		case !lost:
			lost = true
			s.app.complain("waiting for the service: " + sentence(err))
		}
		if err := rest(ctx, &pause); err != nil {
			return nil, err
		}
	}
}

// offer sends an offer and tells the agreement.
func (a *app) offer(ctx context.Context, s *agreementClient, m *offering.Made, o *offerFlags, form string) error {
	if m.Unchecked != "" {
		a.complain("the offer is sent unchecked: " + m.Unchecked)
	}
	key, err := s.send(ctx, m.Offer, o)
	if err != nil {
		return s.refused(err)
	}
	id := s.named(key)
	if err := a.tellOffer(id, m, o, form); err != nil || !o.wait {
		return err
	}
	p, err := s.decided(ctx, key)
	switch {
	case err != nil && ctx.Err() != nil:
		return &exitError{code: exitInterrupted, err: errors.New("no longer waiting; the offer stands: 'portolan agreement terminate' takes it back")}
	case err != nil:
		return s.refused(err)
	case p.State == agreement.Rejected:
		why := strings.TrimPrefix(fact(p.SubState, "Reason"), ", ")
		return refusedf("%s is rejected: %s", id, cmp.Or(plain(why), "the service does not say why"))
	}
	if form == "text" {
		fmt.Fprintf(a.out, "accepted: it is %s\n", p.State)
	}
	return nil
}

// tellOffer tells an offer that was taken.
func (a *app) tellOffer(id string, m *offering.Made, o *offerFlags, form string) error {
	promises := terms.Summary(&m.Offer.Agreement, time.Local)
	switch form {
	case "name":
		fmt.Fprintln(a.out, id)
	case "json":
		return asJSON(a.out, struct {
			ID       string   `json:"id"`
			Name     string   `json:"name"`
			Template string   `json:"template"`
			Promises []string `json:"promises"`
			Pending  bool     `json:"pending,omitempty"` // when it was answered
		}{id, m.Offer.Name, m.Offer.Context.TemplateName, promises, o.pending})
	default:
		fmt.Fprintln(a.out, id)
		for _, p := range promises {
			fmt.Fprintf(a.out, "  %s\n", plain(p))
		}
		if o.pending && !o.wait {
			fmt.Fprintf(a.out, "  It is not decided yet: 'portolan agreement show %s' tells when it is.\n", id)
		}
	}
	return nil
}
