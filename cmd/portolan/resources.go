package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/resourcemodel"
)

func (a *app) resourcesCmd() *cobra.Command {
	var flags clientFlags
	var form, at, domain string
	cmd := &cobra.Command{
		Use:   "resources [--at TIME] [-o table|wide|json|xml] [[DOMAIN/]SITE…]",
		Short: "Show the resource model that jobs are matched with",
		Long: `Show what the gateway believes of its sites and of those of its peers: each share (queue or
partition) on each environment (set of like nodes), all or those of the named sites.

--at shows what it believed at an earlier moment: a time with its zone (2026-01-31T18:00:00Z),
without one in this machine's zone (2026-01-31 18:00), of today (14:03), or how long ago (90m).

Sites of other domains are shown as DOMAIN/SITE, as far as they are known; jobs are not sent
to them.

NODES are those that take jobs, of all; CPUS those that are free, of all; AGE is how long ago
the gateway that has the site vouched for this last, with --at how long ago something changed;
CHANGED (wide) is always that. -o xml is a GLUE 2.0 document of one domain, the gateway's own
without --domain.`,
		Example: `  portolan resources
  portolan resources --at 14:03 slurm north/condor
  portolan resources -o xml >glue.xml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"site": args}
			if at != "" {
				t, err := momentOf(at, time.Now())
				if err != nil {
					return err
				}
				q.Set("at", t.Format(time.RFC3339Nano))
			}
			switch {
			case form == "xml" && len(args) > 0:
				return usagef("-o xml is of a whole domain: leave the sites out")
			case form != "xml" && domain != "":
				return usagef("--domain is for -o xml")
			case form == "xml":
				q = url.Values{"at": q["at"], "format": {"xml"}, "domain": {domain}}
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			get := call{method: http.MethodGet, path: console.ResourcesPath, query: q}
			if form == "xml" {
				get.read = func(r io.Reader) error {
					if _, err := io.Copy(a.out, r); err != nil {
						return refusedf("the answer of %s broke off: what was written is not whole: %v", c.Endpoint, err)
					}
					return nil
				}
				return c.ask(cmd.Context(), get)
			}
			var model console.Resources
			get.read = func(r io.Reader) error {
				if err := json.NewDecoder(r).Decode(&model); err != nil {
					return refusedf("the answer of %s is not that of a Portolan gateway: %v", c.Endpoint, err)
				}
				return nil
			}
			if err := c.ask(cmd.Context(), get); err != nil {
				return err
			}
			for _, name := range args {
				name = strings.TrimPrefix(name, cmp.Or(model.Domain, modelstore.Nameless)+"/")
				found := false
				for _, s := range model.Sites {
					found = found || resourcemodel.Key{Domain: s.Domain, Site: s.Site}.String() == name
				}
				if !found {
					return refusedf("the model has no site %s", name)
				}
			}
			if form == "json" {
				return asJSON(a.out, model)
			}
			if len(model.Sites) == 0 {
				a.complain("the model has no sites")
			}
			return a.showResources(&model, form == "wide", time.Now())
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&at, "at", "", "as it was believed at this time")
	cmd.Flags().StringVar(&domain, "domain", "", "of this domain, with -o xml")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("at", cobra.NoFileCompletions))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("domain", cobra.NoFileCompletions))
	formFlag(cmd, &form, "table", "wide", "json", "xml")
	return cmd
}

// momentOf reads a moment as people write it.
func momentOf(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, usagef("%q is no time: write one like 2026-01-31T18:00:00Z, '2026-01-31 18:00', 14:03, or 90m for so long ago", s)
}

func (a *app) showResources(m *console.Resources, wide bool, now time.Time) error {
	head := []string{"PLACE", "STATE", "NODES", "CPUS", "MEMORY", "GPUS", "RUNNING", "WAITING", "AGE"}
	if wide {
		head = append(head, "TYPE", "OS", "ARCH", "FEATURES", "LONGEST", "PRICE", "SOURCE", "CHANGED")
	}
	var rows [][]string
	for i := range m.Sites {
		s := &m.Sites[i]
		site := &resourcemodel.Site{Key: resourcemodel.Key{Domain: s.Domain, Site: s.Site}, Static: s.Static, Dynamic: s.Dynamic}
		n := len(rows)
		if s.Static != nil {
			for w := range site.Places() {
				rows = append(rows, placeRow(w, s.Confirmed, wide, now))
			}
		}
		if len(rows) == n {
			rows = append(rows, append([]string{site.Key.String(), siteState(site)}, make([]string, len(head)-2)...))
		}
	}
	return table(a.out, head, rows)
}

func siteState(s *resourcemodel.Site) string {
	switch {
	case s.Dynamic == nil:
		return "not known"
	case s.Dynamic.Up:
		return "up"
	case s.Dynamic.Problem != "":
		return "down: " + s.Dynamic.Problem
	}
	return "down"
}

func placeRow(w resourcemodel.Spot, confirmed *time.Time, wide bool, now time.Time) []string {
	e, state := w.Environment, siteState(w.Site)
	row := []string{w.Place().String(), state, "", "", size(e.Memory), gpus(e.GPUs), "", "", ""}
	changed, source := w.Site.Static.Changed, w.Site.Static.Source
	if d := w.Site.Dynamic; d != nil {
		if d.Changed.After(changed) {
			changed = d.Changed
		}
		if st, ok := d.Shares[w.Share.ID]; ok {
			row[6], row[7] = strconv.Itoa(st.Running), strconv.Itoa(st.Waiting)
			if d.Up && !st.Open {
				row[1] = "closed"
			}
		}
		if st, ok := d.Environments[e.ID]; ok {
			row[2] = fmt.Sprintf("%d/%d", st.Available, st.Nodes)
			row[3] = fmt.Sprintf("%d/%d", st.FreeCPUs, st.Nodes*e.CPUs)
		}
	}
	since := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return ago(max(0, now.Sub(t)))
	}
	row[8] = since(changed)
	if confirmed != nil {
		row[8] = since(*confirmed)
	}
	if wide {
		longest, price := "", ""
		if w.Share.MaxWallTime > 0 {
			longest = w.Share.MaxWallTime.String()
		}
		if w.Share.Price > 0 {
			price = strconv.FormatFloat(w.Share.Price, 'g', -1, 64)
		}
		row = append(row, w.Site.Static.Type, e.OperatingSystem, e.CPUArchitecture, strings.Join(e.Features, ","), longest, price, source, since(changed))
	}
	return row
}

// size gives a number of bytes for people; nothing for one that is not known.
func size(n int64) string {
	if n <= 0 {
		return ""
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	x, i := float64(n), 0
	for x >= 1024 && i < len(units)-1 {
		x, i = x/1024, i+1
	}
	return strconv.FormatFloat(x, 'f', 1-min(1, int(x/10)), 64) + " " + units[i]
}

// gpus gives the devices of a node.
func gpus(all map[string]int) string {
	n := 0
	for _, c := range all {
		n += c
	}
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
