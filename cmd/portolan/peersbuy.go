package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/moments"
)

func (a *app) peersBuyCmd() *cobra.Command {
	var flags clientFlags
	var from, until string
	var later time.Duration
	var q console.Buy
	var price float64
	cmd := &cobra.Command{
		Use:   "buy --cpus N --from TIME --until TIME [--least N] [--later DURATION] [--max-price PRICE] [--vo VO] DOMAIN",
		Short: "Buy capacity of a peer for a window",
		Long: `Buy CPUs of the peer DOMAIN for a window of time, and route jobs against them: while the window
is open, jobs that our own sites have no room for at once go there first, as long as they fit in.
A job that says that it runs beyond the end of the window is given to nobody on its account.

The peer is asked what it could keep. If it can't keep all of it, --least lets fewer CPUs do, and
--later a window that is later by up to DURATION, such as 2h. What it asks for may not be more than
--max-price, in its own unit. What comes of it is shown by 'portolan peers bought'; it is paid for
when the window has begun, and settled when it is over.

TIME is one like ` + moments.Forms + `; times without a zone are local.
This is for managers of the gateway; orders for each day stand in its configuration (peer.buy).`,
		Example: `  portolan peers buy --cpus 64 --from 14:00 --until 18:00 fiu.example
  portolan peers buy --cpus 64 --least 16 --from 'friday 08:00' --until 'friday 18:00' --later 2h --max-price 500 fiu.example`,
		Args: needs(1, 1, "DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Domain, q.Later = args[0], later.Seconds()
			if _, err := ofPeer(console.PeerPath, q.Domain); err != nil {
				return err
			}
			if q.CPUs < 1 {
				return usagef("say with --cpus how many are wanted")
			}
			now := thisSecond()
			var err error
			if q.Start, err = moments.By(from, now, time.Local); err != nil {
				return usagef("--from: %s", sentence(err))
			}
			if q.End, err = moments.By(until, now, time.Local); err != nil {
				return usagef("--until: %s", sentence(err))
			}
			if !q.End.After(q.Start) {
				return usagef("the window ends at %s, and begins at %s: let it end later", clock(q.End), clock(q.Start))
			}
			if cmd.Flags().Changed("max-price") {
				if _, err := priceOf(price); err != nil {
					return usagef("--max-price: %v", err)
				}
				q.MaxPrice = &price
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			var p console.Purchase
			if err := c.post(cmd.Context(), console.PurchasesPath, q, &p, 0); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s: %s\n", plain(p.ID), plain(p.Reason))
			return nil
		},
		ValidArgsFunction: a.completePeers(&flags),
	}
	flags.add(cmd)
	f := cmd.Flags()
	f.IntVar(&q.CPUs, "cpus", 0, "how many CPUs")
	f.IntVar(&q.Least, "least", 0, "the fewest CPUs that would do; without it, all")
	f.StringVar(&from, "from", "", "when the window begins")
	f.StringVar(&until, "until", "", "when it ends")
	f.DurationVar(&later, "later", 0, "by how much the window may be later")
	f.Float64Var(&price, "max-price", 0, "the most that it may cost; without it, any price")
	f.StringVar(&q.VO, "vo", "", "the VO whose jobs alone may have the room; without it, all of ours")
	for _, name := range []string{"cpus", "from", "until"} {
		cobra.CheckErr(cmd.MarkFlagRequired(name))
	}
	for _, name := range []string{"cpus", "least", "from", "until", "later", "max-price", "vo"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

func (a *app) peersBoughtCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:   "bought [-o table|json|name] [ID]",
		Short: "Show what capacity was bought of peers",
		Long: `Show the capacity that was bought of peers, or is to be. With an ID, tell all about one: what was
wanted, what was bought by which agreement, what it costs, when it could not be used, and what happened.

STATE is asking, preparing or confirming while it is being bought; bought; releasing or settling when it
is given back or over; and in the end ended, released, refused (nothing was bought) or lost (the peer ended
it). OPEN says that it can be used now. PRICE is the most that it costs, in the peer's unit.`,
		Example: `  portolan peers bought
  portolan peers bought 0198c0de-7000-7000-8000-000000000001`,
		Args: needs(0, 1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				var p console.Purchase
				if err := c.api(cmd.Context(), http.MethodGet, ofPurchase(args[0]), &p); err != nil {
					return err
				}
				switch form {
				case "json":
					return asJSON(a.out, &p)
				case "name":
					fmt.Fprintln(a.out, plain(p.ID))
					return nil
				}
				a.showPurchase(&p)
				return nil
			}
			var l console.PurchaseList
			if err := c.api(cmd.Context(), http.MethodGet, console.PurchasesPath, &l); err != nil {
				return err
			}
			return a.showPurchases(form, l.Purchases)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	formFlag(cmd, &form, "table", "json", "name")
	return cmd
}

func (a *app) peersReleaseCmd() *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:   "release ID",
		Short: "Give capacity back that was bought of a peer",
		Long: `Give capacity back that was bought of a peer, or stop buying it. No job is given to the peer on its
account from then on; those that are there go on, as others of ours there. What it costs is the peer's to
say: a window that has begun is paid for as a whole.

This is for managers of the gateway. What a standing order has bought is given back likewise, and is not
bought again for that window.`,
		Example: `  portolan peers release 0198c0de-7000-7000-8000-000000000001`,
		Args:    needs(1, 1, "the ID of what was bought"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			var p console.Purchase
			if err := c.ask(cmd.Context(), call{method: http.MethodDelete, path: ofPurchase(args[0]), into: &p}); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s: %s\n", plain(p.ID), plain(p.State))
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	return cmd
}

func ofPurchase(id string) string {
	return strings.ReplaceAll(console.PurchasePath, "{id}", url.PathEscape(id))
}

// showPurchases prints purchases in a form.
func (a *app) showPurchases(form string, all []console.Purchase) error {
	switch form {
	case "json":
		return asJSON(a.out, append([]console.Purchase{}, all...))
	case "name":
		for i := range all {
			fmt.Fprintln(a.out, plain(all[i].ID))
		}
		return nil
	}
	var rows [][]string
	for i := range all {
		p := &all[i]
		cpus, from, until, open := p.CPUs, p.Start, p.End, ""
		if p.Opens != nil && p.Closes != nil {
			cpus, from, until = p.Room, *p.Opens, *p.Closes
		}
		if p.Open {
			open = "yes"
		}
		rows = append(rows, []string{p.ID, p.Domain, strconv.Itoa(cpus), clock(from), clock(until), p.State, open, strings.TrimSpace(p.Price + " " + p.Unit), p.Reason})
	}
	return table(a.out, []string{"ID", "DOMAIN", "CPUS", "FROM", "UNTIL", "STATE", "OPEN", "PRICE", "REASON"}, rows)
}

// showPurchase tells all about one.
func (a *app) showPurchase(p *console.Purchase) {
	line := func(format string, args ...any) { fmt.Fprintln(a.out, plain(fmt.Sprintf(format, args...))) }
	line("%s of %s from %s to %s are %s: %s", counted(p.CPUs, "CPU"), p.Domain, clock(p.Start), clock(p.End), p.State, p.Reason)
	switch {
	case p.Order != "":
		line("ordered by the configuration, as %s", p.Order)
	case p.By != "":
		line("wanted by %s", p.By)
	}
	if p.VO != "" {
		line("for jobs of the VO %s", p.VO)
	}
	if p.MaxPrice != "" {
		line("for at most %s", p.MaxPrice)
	}
	if p.Opens != nil && p.Closes != nil {
		line("bought: %s from %s to %s, by its agreement %s, for at most %s", counted(p.Room, "CPU"), clock(*p.Opens), clock(*p.Closes), p.Agreement, strings.TrimSpace(p.Price+" "+p.Unit))
	}
	if p.Unusable > 0 {
		line("could not be used for %s:", time.Duration(p.Unusable*float64(time.Second)).Round(time.Second))
		for _, o := range p.Outages {
			until := "now"
			if o.Until != nil {
				until = clock(*o.Until)
			}
			line("  from %s to %s: %s", clock(o.From), until, o.Why)
		}
	}
	for _, e := range p.Entries {
		line("%s of %s %s, at %s: %s", e.Kind, e.Amount, e.Unit, clock(e.At), e.Evidence)
	}
	var rows [][]string
	for _, l := range p.History {
		rows = append(rows, []string{clock(l.At), l.Event, l.State, l.Reason})
	}
	if len(rows) > 0 {
		fmt.Fprintln(a.out)
		_ = table(a.out, []string{"TIME", "EVENT", "STATE", "REASON"}, rows) // as the lines before
	}
}
