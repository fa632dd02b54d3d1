package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/console"
)

// decisions asks for the records of an activity's placements.
func (c *client) decisions(ctx context.Context, act activity) ([]schedule.Decision, error) {
	id, ok := bes.ActivityID(act.epr)
	if !ok {
		return nil, refusedf("%s is no activity of a Portolan gateway", act.id)
	}
	var all console.Decisions
	err := c.api(ctx, http.MethodGet, strings.ReplaceAll(console.DecisionsPath, "{id}", id), &all)
	return all.Decisions, err
}

// showDecisions prints the records of placements.
func (a *app) showDecisions(all []schedule.Decision) error {
	if len(all) == 0 {
		fmt.Fprintln(a.out, "\nno choice of a place is recorded")
		return nil
	}
	for i := range all {
		if err := a.showDecision(&all[i]); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) showDecision(d *schedule.Decision) error {
	seed := ""
	if d.Seed != 0 {
		seed = ", seed " + strconv.FormatUint(d.Seed, 10)
	}
	fmt.Fprintf(a.out, "\nattempt %d, %s: %s, when %s waited\n", d.Attempt, clock(d.At), plain(d.Place.String()), counted(d.Waited, "job"))
	fmt.Fprintf(a.out, "by %s (model %d, policies %d%s)\n", plain(byPolicies(d.Policy)), d.Model, d.Policies, seed)
	if s := d.Shadow; s != nil {
		would := "it would have gone to " + placed(s.Place)
		if s.Place == nil {
			would = "it would have waited on"
		}
		fmt.Fprintf(a.out, "in shadow, by %s, %s\n", plain(byPolicies(s.Policy)), plain(would))
	}
	if len(d.Ranked) > 0 {
		fmt.Fprintln(a.out)
		var rows [][]string
		for i, r := range d.Ranked {
			rows = append(rows, []string{strconv.Itoa(i + 1), r.Place.String(), mark(r.Soft), mark(r.Score), strconv.Itoa(r.Free)})
		}
		if err := table(a.out, []string{"RANK", "PLACE", "SOFT", "SCORE", "FREE"}, rows); err != nil {
			return err
		}
	}
	if len(d.Out) > 0 {
		fmt.Fprintln(a.out)
		var rows [][]string
		for _, r := range d.Out {
			rows = append(rows, []string{r.Place.String(), r.Element, r.Sentence})
		}
		if err := table(a.out, []string{"RULED OUT", "BY", "WHY"}, rows); err != nil {
			return err
		}
	}
	if d.More > 0 {
		fmt.Fprintf(a.out, "and %d more places, of which no record was kept\n", d.More)
	}
	return nil
}

func byPolicies(m map[policy.Kind]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, string(k)+" "+m[k])
	}
	return strings.Join(out, ", ")
}

// mark writes a number with as many digits as people compare.
func mark(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }
