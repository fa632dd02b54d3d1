package main

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/console"
)

func (a *app) matchCmd() *cobra.Command {
	var flags clientFlags
	var more wishes
	var form string
	cmd := &cobra.Command{
		Use:   "match [--criteria FILE] [--vo NAME] [-o table|json|wide] FILE",
		Short: "Say where a job could run, and why not elsewhere",
		Long: `Say what would become of a JSDL document if it were submitted now; nothing is changed. '-' is
standard input.

Each place (site/share/environment) says whether the job would fit: now, later, or never, and
what stands against it; -o wide tells all that does. A sentence says where it would go or what it would
wait for, and, where it could not start now, the smallest change of the document with which
it could. WAIT is an estimate, from what jobs waited there or from the manager's own forecast,
and says by which factor such estimates were off lately.

Exit codes: 0 some place could run it, now or later; 1 none ever could; 3 refused.`,
		Example: `  portolan match job.jsdl
  portolan match --criteria cheap.xml --vo bio.example.org job.jsdl`,
		Args: needs(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			document, name, err := a.document(args[0])
			if err != nil {
				return err
			}
			documents := [][]byte{document}
			if err := a.apply(more, documents, []string{name}); err != nil {
				return err
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			var m console.Match
			if err := c.ask(cmd.Context(), call{
				method: http.MethodPost, path: console.MatchPath, body: documents[0], mediaType: "application/xml", into: &m,
			}); err != nil {
				return c.refusedDocument(err, documents[0], name)
			}
			if form == "json" {
				err = asJSON(a.out, m)
			} else {
				err = a.showMatch(&m, form == "wide")
			}
			if err == nil && !m.Could {
				err = quietly(exitFailed)
			}
			return err
		},
	}
	flags.add(cmd)
	more.add(cmd)
	formFlag(cmd, &form, "table", "json", "wide")
	return cmd
}

// sayWait gives an estimate in a few words, with how far such ones were off.
func sayWait(w *console.Wait) string {
	if w == nil {
		return ""
	}
	about := func(s float64) string {
		switch {
		case s < 1:
			return "0 s"
		case s < 90:
			return fmt.Sprintf("%.0f s", s)
		case s < 90*60:
			return fmt.Sprintf("%.0f min", s/60)
		case s < 48*3600:
			return fmt.Sprintf("%.0f h", s/3600)
		}
		return fmt.Sprintf("%.0f d", s/86400)
	}
	out := "about " + about(w.Median)
	if w.Most > w.Median {
		out += ", 9 of 10 within " + about(w.Most)
	}
	if w.Error > 0 {
		out += fmt.Sprintf(" (%s, off by a factor of %.1f)", w.Method, w.Error)
	} else {
		out += " (" + w.Method + ")"
	}
	return out
}

func (a *app) showMatch(m *console.Match, wide bool) error {
	fmt.Fprintln(a.out, plain(m.Sentence))
	if m.Nearest != "" {
		fmt.Fprintln(a.out, plain(m.Nearest))
	}
	fmt.Fprintln(a.out)
	rank := map[string]int{}
	for i, r := range m.Ranked {
		rank[r.Place.String()] = i + 1
	}
	var rows [][]string
	for _, v := range m.Places {
		place, fits, order := v.Place.String(), "never", ""
		switch {
		case v.Now:
			fits = "now"
		case v.Could:
			fits = "later"
		}
		if n := rank[place]; n > 0 {
			order = strconv.Itoa(n)
		}
		wait := sayWait(v.Wait)
		if len(v.Clauses) == 0 {
			rows = append(rows, []string{place, fits, order, wait, ""})
		}
		for i, c := range v.Clauses {
			switch {
			case i == 0:
				rows = append(rows, []string{place, fits, order, wait, c.Sentence})
			case wide:
				rows = append(rows, []string{"", "", "", "", c.Sentence})
			}
		}
	}
	return table(a.out, []string{"PLACE", "FITS", "RANK", "WAIT", "WHAT STANDS AGAINST IT"}, rows)
}
