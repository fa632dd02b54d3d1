package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/console"
)

func (a *app) sitesCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:   "sites [-o table|wide|json|name] [NAME…]",
		Short: "Say which sites a gateway has and how they stand",
		Long: `Say which sites a Portolan gateway has and how they stand: all, or the named ones.

A site is up, down (REMARK says why and since when), fenced (somebody vouched that it runs
nothing any more: see portolan fence), draining (it was taken out of the
configuration and has jobs that have not ended), or unconfigured (jobs are there, and the
gateway does not know how to ask it any more). PATH is the way to its manager that is in use,
with the manager's version. SLOTS are those that are free, of all. JOBS are those that it has.
CONTACT is how long ago the manager answered last, REQUESTS how many it was sent, with the
budget a second that is never exceeded.

-o wide adds what the manager offers and each share; -o json is the sites of GET /api/v1/sites.
A configuration that is wrong, and therefore not in use, is told on standard error.`,
		Example: `  portolan sites
  portolan sites -o json slurm`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			var all console.Sites
			if err := c.api(cmd.Context(), http.MethodGet, console.SitesPath, &all); err != nil {
				return err
			}
			if len(args) > 0 {
				for _, name := range args {
					if !slices.ContainsFunc(all.Sites, func(s console.Site) bool { return s.Name == name }) {
						return refusedf("the gateway has no site %s", name)
					}
				}
				all.Sites = slices.DeleteFunc(all.Sites, func(s console.Site) bool { return !slices.Contains(args, s.Name) })
			}
			if err := a.showSites(form, all.Sites, time.Now()); err != nil {
				return err
			}
			if p := all.Configuration; p != nil && p.Problem != "" {
				a.complain(fmt.Sprintf("the configuration of the gateway is wrong since %s, and the one of %s is in use: %s", clock(when(p.Since)), clock(p.Read), p.Problem))
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	formFlag(cmd, &form, "table", "wide", "json", "name")
	return cmd
}

func when(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// showSites prints sites in a form.
func (a *app) showSites(form string, sites []console.Site, now time.Time) error {
	switch form {
	case "json":
		return asJSON(a.out, sites)
	case "name":
		for _, s := range sites {
			fmt.Fprintln(a.out, plain(s.Name))
		}
		return nil
	}
	var cells [][]string
	for _, s := range sites {
		cells = append(cells, siteRow(s, now))
	}
	if err := table(a.out, []string{"NAME", "TYPE", "STATE", "PATH", "SLOTS", "JOBS", "CONTACT", "REQUESTS", "REMARK"}, cells); err != nil {
		return err
	}
	if form == "wide" {
		return a.showShares(sites)
	}
	return nil
}

func siteRow(s console.Site, now time.Time) []string {
	row := []string{s.Name, s.Type, string(s.State), "", "", strconv.Itoa(s.Live), "", "", s.Problem}
	if m := s.Manager; m != nil {
		row[3] = strings.TrimSpace(m.Path + " " + m.Version)
		if m.Contact != nil {
			row[6] = ago(now.Sub(*m.Contact))
		}
		row[7] = strconv.FormatInt(m.Requests, 10)
		if m.Budget > 0 {
			row[7] += fmt.Sprintf(" (%g/s", m.Budget)
			if m.Waiting > 0 {
				row[7] += fmt.Sprintf(", %d wait", m.Waiting)
			}
			row[7] += ")"
		}
	}
	if c := s.Capacity; c != nil {
		row[4] = fmt.Sprintf("%d/%d", c.FreeSlots, c.Slots)
	}
	if s.Problem != "" && s.Since != nil {
		row[8] += ", since " + clock(*s.Since)
	}
	return row
}

// ago gives a time that has passed in one number.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// showShares prints what stands behind each site.
func (a *app) showShares(sites []console.Site) error {
	for _, s := range sites {
		fmt.Fprintf(a.out, "\n%s\n", plain(s.Name))
		line := func(what, is string) {
			if is != "" {
				fmt.Fprintf(a.out, "  %s: %s\n", what, plain(is))
			}
		}
		if m := s.Manager; m != nil {
			line("manager", m.URI)
			line("offered", strings.Join(m.Offered, ", "))
			line("abilities", strings.Join(m.Abilities, ", "))
			for _, r := range m.Remarks {
				line("remark", r)
			}
		}
		if c := s.Capacity; c != nil {
			line("capacity", fmt.Sprintf("%d hosts, %d CPUs, %d MiB", c.Hosts, c.CPUs, c.Memory>>20))
		}
		if s.Evidence != nil {
			line("evidence", "last "+clock(*s.Evidence))
		}
		var phases []string
		for _, phase := range slices.Sorted(maps.Keys(s.Jobs)) {
			phases = append(phases, fmt.Sprintf("%d %s", s.Jobs[phase], phase))
		}
		line("jobs", strings.Join(phases, ", "))
		for _, sh := range s.Shares {
			what := fmt.Sprintf("%d running, %d waiting, %d of %d slots free", sh.Running, sh.Waiting, sh.FreeSlots, sh.Slots)
			if !sh.Open {
				what += ", closed"
			}
			if sh.MaxWallTime > 0 {
				what += ", at most " + (time.Duration(sh.MaxWallTime) * time.Second).String()
			}
			if wait := sayWait(sh.Wait); wait != "" {
				what += ", a job waits " + wait
			}
			line("share "+sh.ID, what)
		}
	}
	return nil
}
