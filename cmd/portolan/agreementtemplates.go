package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/offering"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func (a *app) agreementTemplatesCmd() *cobra.Command {
	var flags clientFlags
	var form, at string
	cmd := &cobra.Command{
		Use:   "templates [-o table|json|xml|name] [--at DOMAIN] [NAME]",
		Short: "Show what can be promised",
		Long: `Show the templates by which offers can be made, with today's limits: the items that an offer
fills in, and what each may be. Items without a limit are left out of the table. With a NAME,
tell all about that template in plain language.

With --at, they are those by which a peer of the gateway takes offers, for 'portolan agreement
together'.

Times are local. KIND is what a template promises; - is one that only its own text tells.`,
		Example: `  portolan agreement templates
  portolan agreement templates finish-by
  portolan agreement templates -o xml finish-by > template.xml`,
		Args: needs(0, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.dialAgreements(flags)
			if err != nil {
				return err
			}
			list, err := s.templates(cmd.Context(), at, "")
			if err != nil {
				return s.refused(err)
			}
			if len(args) == 0 {
				return a.showTemplates(form, list)
			}
			found := templatesMeant(list, args[0])
			if len(found) == 0 {
				return refusedf("there is no template %q: 'portolan agreement templates' lists those that there are", args[0])
			}
			if form != "table" {
				return a.showTemplates(form, found)
			}
			for i := range found {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				a.showTemplate(&found[i])
			}
			return nil
		},
		ValidArgsFunction: a.completeTemplates(&flags),
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&at, "at", "", "those of this domain, a peer of the gateway")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("at", cobra.NoFileCompletions))
	formFlag(cmd, &form, "table", "json", "xml", "name")
	return cmd
}

func templatesNamed(list []agreement.Template, name string) []agreement.Template {
	var found []agreement.Template
	for _, t := range list {
		if t.Name == name {
			found = append(found, t)
		}
	}
	return found
}

// templatesMeant gives the templates that somebody means who writes a name: where there is no template for all
// places, as there is one place only, the name of a kind is as good as that of the one at the place.
func templatesMeant(list []agreement.Template, name string) []agreement.Template {
	found := templatesNamed(list, name)
	if len(found) > 0 || name == "" {
		return found
	}
	for _, t := range list {
		if strings.HasPrefix(t.Name, name+"@") {
			found = append(found, t)
		}
	}
	return found
}

// templateKind says what a template promises, and where; "" is what only its text tells.
func templateKind(t *agreement.Template) string {
	kind, _ := kindAndPlace(&t.Agreement)
	return kind
}

func kindAndPlace(g *agreement.Agreement) (kind, where string) {
	q, err := terms.Preferred(g)
	if err != nil {
		return "", ""
	}
	var places []string
	for _, v := range q.Services {
		p := v.Place
		if v.Capacity != nil {
			p = v.Capacity.Place
		}
		where := p.String()
		if p.IsZero() {
			where = "any site"
		}
		if len(places) == 0 || places[len(places)-1] != where {
			places = append(places, where)
		}
	}
	return string(q.Kind), strings.Join(places, ", ")
}

// templateRow is a template for scripts.
type templateRow struct {
	Name       string    `json:"name"`
	ID         string    `json:"id"`
	Kind       *string   `json:"kind"`
	Where      *string   `json:"where"`
	Promises   []string  `json:"promises"`
	Items      []itemRow `json:"items"`
	Conditions []string  `json:"conditions"`
}

type itemRow struct {
	Name     string  `json:"name"`
	Location string  `json:"location"`
	Limits   *string `json:"limits"`
}

func templateRowOf(t *agreement.Template) templateRow {
	kind, where := kindAndPlace(&t.Agreement)
	r := templateRow{
		Name: t.Name, ID: t.TemplateID, Kind: known(kind), Where: known(where), Promises: terms.Summary(&t.Agreement, time.Local),
		Items: []itemRow{}, Conditions: append([]string{}, offering.Conditions(t)...),
	}
	for i, l := range offering.Limits(t, time.Local) {
		r.Items = append(r.Items, itemRow{l.Item, xmldoc.Collapse(t.Constraints.Items[i].Location), known(l.Words)})
	}
	return r
}

func (a *app) showTemplates(form string, list []agreement.Template) error {
	switch form {
	case "json":
		rows := make([]templateRow, len(list))
		for i := range list {
			rows[i] = templateRowOf(&list[i])
		}
		return asJSON(a.out, rows)
	case "xml":
		for i := range list {
			e := list[i].Element
			if e == nil {
				e = list[i].Encode()
			}
			if err := a.showXML(e); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for i := range list {
			fmt.Fprintln(a.out, plain(list[i].Name))
		}
		return nil
	}
	var rows [][]string
	for i := range list {
		t := &list[i]
		kind, where := kindAndPlace(&t.Agreement)
		var limits []string
		for _, l := range offering.Limits(t, time.Local) {
			if l.Words != "" {
				limits = append(limits, l.Item+" "+l.Words)
			}
		}
		if n := len(offering.Conditions(t)); n > 0 {
			limits = append(limits, counted(n, "condition"))
		}
		rows = append(rows, []string{t.Name, kind, where, strings.Join(limits, "; ")})
	}
	return table(a.out, []string{"NAME", "KIND", "WHERE", "LIMITS"}, rows)
}

// showXML prints an element as a document, indented.
func (a *app) showXML(e *etree.Element) error {
	doc := etree.NewDocument()
	doc.SetRoot(xmldoc.Detach(e))
	doc.Indent(2)
	text, err := doc.WriteToString()
	if err != nil {
		return failedf("writing XML: %v", err)
	}
	fmt.Fprintln(a.out, strings.TrimRight(text, "\n"))
	return nil
}

func (a *app) showTemplate(t *agreement.Template) {
	kind, where := kindAndPlace(&t.Agreement)
	for _, l := range [][2]string{{"name", t.Name}, {"id", t.TemplateID}, {"kind", kind}, {"where", where}} {
		if l[1] != "" {
			fmt.Fprintf(a.out, "%s: %s\n", l[0], plain(l[1]))
		}
	}
	a.paragraph("As it stands", terms.Summary(&t.Agreement, time.Local))
	var items []string
	for _, l := range offering.Limits(t, time.Local) {
		if l.Words == "" {
			l.Words = "anything"
		}
		items = append(items, l.Item+": "+l.Words)
	}
	a.paragraph("An offer fills in", items)
	a.paragraph("And keeps to", offering.Conditions(t))
}

// paragraph prints lines under a heading, and nothing if there are none.
func (a *app) paragraph(heading string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(a.out, "\n%s\n", heading)
	for _, l := range lines {
		fmt.Fprintf(a.out, "  %s\n", plain(l))
	}
}
