package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/bes"
)

func (a *app) statusCmd() *cobra.Command {
	var client clientFlags
	var form string
	cmd := &cobra.Command{
		Use:   "status [-o table|json|wide|name] [ID…]",
		Short: "Say where activities stand",
		Long: `Say where activities stand: the named ones, or without ids those of yours that the service
lists, newest first.

An ID is what submit printed; a file that holds the activity's endpoint reference (a name
with a / or ending in .xml or .epr), or - for one on standard input, does as well. Ids of
Portolan gateways work from anywhere; references of other makes are remembered in
~/.local/state/portolan/activities when they are first seen.

-o json is an array of objects with id, name, state, substates, reason, exitStatus, signal,
site, submitted, started, ended, and where the site tells them progress (0 to 1), hosts, usage
(cpu in seconds, memory in bytes) and attributes; what is not known is null.`,
		Example: `  portolan status
  portolan status -o json 01890a5d-ac96-774b-bcce-b302099a8057
  portolan status -o name | xargs portolan cancel`,
		ValidArgsFunction: a.completeIDs(&client, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.status(cmd.Context(), client, args, form)
		},
	}
	client.add(cmd)
	formFlag(cmd, &form, "table", "json", "wide", "name")
	return cmd
}

func (a *app) status(ctx context.Context, flags clientFlags, args []string, form string) error {
	c, acts, err := a.targets(flags, args)
	if err != nil {
		return err
	}
	var unlisted int64
	if len(args) == 0 {
		if acts, unlisted, err = c.list(ctx); err != nil {
			return c.refused(err)
		}
	}
	var rows []row
	missing := false
	for part := range slices.Chunk(acts, maxVector) {
		got, err := c.statuses(ctx, part, 0, 0)
		if err != nil {
			return c.refused(err)
		}
		for i, r := range got {
			switch {
			case r.Err == nil:
				rows = append(rows, rowOf(part[i], r.Status))
			case len(args) > 0: // a listed one may be gone since
				a.complain(part[i].id + ": " + sentence(r.Err))
				missing = true
			}
		}
	}
	if len(args) == 0 {
		// Services of other makes list in any order and may not tell times.
		slices.SortStableFunc(rows, func(x, y row) int { return y.submitted.Compare(x.submitted) })
	}
	if err := a.showRows(form, rows); err != nil {
		return err
	}
	if unlisted > 0 {
		a.complain(fmt.Sprintf("%d more activities of yours are not listed by the service", unlisted))
	}
	if missing {
		return quietly(exitRefused)
	}
	return nil
}

// maxVector is how many activities are asked for in one message.
const maxVector = 256

// list gives the caller's activities that the service lists, and how many it
// does not.
func (c *client) list(ctx context.Context) (acts []activity, unlisted int64, err error) {
	attr, err := c.service.GetFactoryAttributesDocument(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, epr := range attr.Activities {
		act, err := c.app.name(c.Endpoint, epr)
		if err != nil {
			c.app.complain(err.Error())
		}
		acts = append(acts, act)
	}
	return acts, attr.TotalNumberOfActivities - int64(len(acts)), nil
}

// row is an activity as it is shown.
type row struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	State      string   `json:"state"`
	SubStates  []string `json:"substates"`
	Reason     string   `json:"reason"`
	ExitStatus *int     `json:"exitStatus"`
	Signal     *string  `json:"signal"`
	Site       *string  `json:"site"`
	Submitted  *string  `json:"submitted"`
	Started    *string  `json:"started"`
	Ended      *string  `json:"ended"`

	// What some sites tell beside.
	Progress   *float64          `json:"progress"` // 0 to 1
	Hosts      []string          `json:"hosts"`
	Usage      *usage            `json:"usage"`
	Attributes map[string]string `json:"attributes"` // the site's own

	submitted, started, ended time.Time
}

// usage is what a job used so far.
type usage struct {
	CPU    float64 `json:"cpu"`    // seconds, of all its processes
	Memory int64   `json:"memory"` // bytes, the most that was resident at once
}

func rowOf(act activity, st bes.Status) row {
	r := row{ID: act.id, State: string(st.State), SubStates: subStates(st)}
	if d := st.Details; d != nil {
		r.Name, r.Reason, r.ExitStatus = d.Name, d.Reason, d.ExitStatus
		r.Signal, r.Site = known(d.Signal), known(d.Site)
		r.Progress, r.Hosts, r.Attributes = known(d.Progress), d.Hosts, d.Attributes
		if d.Usage != (bes.Usage{}) {
			r.Usage = &usage{CPU: d.Usage.CPU.Seconds(), Memory: d.Usage.Memory}
		}
		r.submitted, r.started, r.ended = d.Submitted, d.Started, d.Ended
		r.Submitted, r.Started, r.Ended = stamp(d.Submitted), stamp(d.Started), stamp(d.Ended)
	}
	return r
}

// percent gives a part of 1 as people write it; what is not done is below 100.
func percent(part float64) string {
	return strconv.Itoa(int(min(math.Floor(part*100+1e-9), 100))) + " %"
}

// stamp gives a time in RFC 3339, or nil.
func stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339Nano)
	return &s
}

// showRows prints activities in a form of status.
func (a *app) showRows(form string, rows []row) error {
	switch form {
	case "json":
		if rows == nil {
			rows = []row{}
		}
		return asJSON(a.out, rows)
	case "name":
		for _, r := range rows {
			fmt.Fprintln(a.out, plain(r.ID))
		}
		return nil
	}
	head := []string{"ID", "NAME", "STATE", "EXIT", "SITE", "SUBMITTED"}
	if form == "wide" {
		head = append(head, "STARTED", "ENDED", "REASON")
	}
	var cells [][]string
	for _, r := range rows {
		state := r.State
		if len(r.SubStates) > 0 {
			state += "/" + r.SubStates[0]
		}
		if r.Progress != nil && !bes.State(r.State).Final() {
			state += " " + percent(*r.Progress)
		}
		exit := ""
		switch {
		case r.Signal != nil:
			exit = *r.Signal
		case r.ExitStatus != nil:
			exit = strconv.Itoa(*r.ExitStatus)
		}
		site := ""
		if r.Site != nil {
			site = *r.Site
		}
		line := []string{r.ID, r.Name, state, exit, site, clock(r.submitted)}
		if form == "wide" {
			line = append(line, clock(r.started), clock(r.ended), r.Reason)
		}
		cells = append(cells, line)
	}
	return table(a.out, head, cells)
}
