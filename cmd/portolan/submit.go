package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

func (a *app) submitCmd() *cobra.Command {
	var client clientFlags
	var form, site string
	var wait bool
	var more wishes
	var kept promise
	cmd := &cobra.Command{
		Use:   "submit [--wait] [--site NAME] [--finish-by TIME] [--criteria FILE] [--vo NAME] [-o text|json|wide|name] FILE…",
		Short: "Send JSDL documents to a BES service",
		Long: `Send JSDL documents to a BES service, each as it is, byte for byte, and print the id of
each new activity. '-' is standard input.

With --wait, the changes of state follow, a line each (on a terminal also one line that is
kept up to date), and the exit code is the jobs' outcome: 0 if all of them finished with
exit status 0, else 1. With -o, standard output holds that form alone and the changes go
to standard error.

--site lets a job run only at the named site: it becomes the document's CandidateHosts, in
place of those that it has. --criteria adds what an XML file demands and would like of the
place, after the document's own criteria; --vo says on whose behalf the job runs.

` + promiseHelp,
		Example: `  portolan submit job.jsdl
  portolan submit --finish-by FRIDAY job.jsdl
  portolan submit --wait one.jsdl two.jsdl
  portolan submit --criteria cheap.xml --vo bio.example.org job.jsdl
  id=$(portolan submit --site shell -o name job.jsdl)`,
		Args: needs(1, 0, "a FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.submit(cmd.Context(), client, args, site, more, kept, form, wait)
		},
	}
	client.add(cmd)
	more.add(cmd)
	kept.add(cmd)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the end, and exit with the jobs' outcome")
	cmd.Flags().StringVar(&site, "site", "", "run at this site only")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("site", cobra.NoFileCompletions))
	formFlag(cmd, &form, "text", "json", "wide", "name")
	return cmd
}

// sent is a document that became an activity.
type sent struct {
	activity
	file string
	name string
}

func (a *app) submit(ctx context.Context, flags clientFlags, files []string, site string, more wishes, kept promise, form string, wait bool) error {
	c, err := a.dial(flags)
	if err != nil {
		return err
	}
	wish, err := kept.wish(site, thisSecond())
	if err != nil {
		return err
	}
	create, err := c.promised(wish, a.tellAgreement(form))
	if err != nil {
		return err
	}
	// All files are read before the first is sent: a wrong name submits nothing.
	documents := make([][]byte, len(files))
	names := make([]string, len(files))
	for i, f := range files {
		if documents[i], names[i], err = a.document(f); err != nil {
			return err
		}
		if site != "" && wish == nil {
			if documents[i], err = pin(documents[i], names[i], site); err != nil {
				return err
			}
		}
	}
	if err := a.apply(more, documents, names); err != nil {
		return err
	}
	var jobs []sent
	var refused error
	for i, doc := range documents {
		act, err := create(ctx, doc, names[i])
		if err != nil {
			refused = err
			a.complain(err.Error())
			if passing(err) || ctx.Err() != nil {
				break // the others would fare no better
			}
			continue
		}
		job, _ := jsdl.Parse(doc, jsdl.Options{Lenient: true})
		s := sent{activity: act, file: names[i]}
		if job != nil {
			s.name = job.Name()
		}
		jobs = append(jobs, s)
		if form == "text" || form == "name" {
			fmt.Fprintln(a.out, act.id)
		}
	}
	acts := make([]activity, len(jobs))
	for i, j := range jobs {
		acts[i] = j.activity
	}
	switch {
	case !wait:
		if err := a.showSent(form, jobs); err != nil {
			return err
		}
	case len(acts) > 0:
		code, err := a.watch(ctx, c, acts, form)
		if err != nil {
			return err
		}
		if refused == nil && code != exitDone {
			return quietly(code)
		}
	}
	if refused != nil {
		code := exitRefused
		if e, ok := errors.AsType[*exitError](refused); ok {
			code = e.code
		}
		return quietly(code)
	}
	return nil
}

// tellAgreement tells the id of a new agreement, where it does not mix with a form that
// scripts read.
func (a *app) tellAgreement(form string) func(id string) {
	return func(id string) {
		w := a.out
		if form != "text" {
			w = a.err
		}
		fmt.Fprintln(w, "agreement "+id)
	}
}

// showSent prints new activities in the forms that are not written line by line.
func (a *app) showSent(form string, jobs []sent) error {
	switch form {
	case "json":
		type row struct {
			ID        string `json:"id"`
			Name      string `json:"name"`
			File      string `json:"file"`
			Reference string `json:"reference"`
		}
		rows := make([]row, len(jobs))
		for i, j := range jobs {
			rows[i] = row{j.id, j.name, j.file, string(eprBytes(j.epr))}
		}
		return asJSON(a.out, rows)
	case "wide":
		var rows [][]string
		for _, j := range jobs {
			rows = append(rows, []string{j.id, j.name, j.file, j.epr.Address})
		}
		return table(a.out, []string{"ID", "NAME", "FILE", "ADDRESS"}, rows)
	}
	return nil
}

// watch waits for the activities, shows how they go on, and gives the exit code
// that their outcome is.
func (a *app) watch(ctx context.Context, c *client, acts []activity, form string) (int, error) {
	w, live := a.out, a.live
	if form != "text" {
		w, live = a.err, false
	}
	p := newProgress(w, live, acts)
	outcomes, err := c.await(ctx, acts, p.news, p.away)
	p.close()
	if err != nil {
		if ctx.Err() != nil {
			return 0, &exitError{code: exitInterrupted, err: errors.New("no longer waiting; the job goes on: 'portolan status' shows it, 'portolan cancel' ends it")}
		}
		return 0, c.refused(err)
	}
	code := exitDone
	rows := make([]row, 0, len(acts))
	for i, o := range outcomes {
		if !o.well() {
			code = exitFailed
		}
		if o.err == nil {
			rows = append(rows, rowOf(acts[i], o.status))
		}
	}
	if form == "json" || form == "wide" {
		return code, a.showRows(form, rows)
	}
	return code, nil
}

// create makes an activity of a document. The submission id makes it safe to
// send the same again when an answer was lost: there is one activity all the same.
func (c *client) create(ctx context.Context, document []byte, file string) (activity, error) {
	resp, err := c.service.CreateActivity(ctx, &bes.CreateActivityRequest{Document: document, SubmissionID: uuid.NewString()})
	if err != nil {
		return activity{}, c.refusedDocument(err, document, file)
	}
	act, err := c.app.name(c.Endpoint, resp.Activity)
	if err != nil {
		c.app.complain(err.Error()) // the activity is there all the same
	}
	return act, nil
}

// refusedDocument tells what stands against a document. The service read it as
// a part of its message; reading it here gives the lines of the file.
func (c *client) refusedDocument(err error, document []byte, file string) error {
	kind := fail.KindOf(err)
	if kind != fail.Invalid && kind != fail.Unsupported {
		return c.refused(err)
	}
	var lines []string
	_, problems := jsdl.Parse(document, jsdl.Options{File: file})
	for _, p := range problems {
		if p.Severity != jsdl.Warning {
			lines = append(lines, problemLine(p))
		}
	}
	if len(lines) == 0 {
		return &exitError{code: exitRefused, err: fmt.Errorf("%s was refused: %s", file, sentence(err)), cause: err}
	}
	return &exitError{code: exitRefused, err: fmt.Errorf("%s was refused:\n%s", file, strings.Join(lines, "\n")), cause: err}
}

// pin makes a document run at one site only.
func pin(document []byte, file, site string) ([]byte, error) {
	job, problems := jsdl.Parse(document, jsdl.Options{File: file, Lenient: true})
	if invalid := problems.Invalid(); job == nil || len(invalid) > 0 {
		var lines []string
		for _, p := range invalid {
			lines = append(lines, problemLine(p))
		}
		return nil, failedf("--site needs to change the document, which is not valid:\n%s", strings.Join(lines, "\n"))
	}
	if strings.TrimSpace(site) != site || plain(site) != site {
		return nil, usagef("%q is no name of a site", site)
	}
	if job.Description.Resources == nil {
		job.Description.Resources = new(jsdl.Resources)
	}
	job.Description.Resources.CandidateHosts = []string{site}
	return job.Marshal(), nil
}
