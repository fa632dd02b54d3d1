package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/decimal"
)

// mostUsage bounds the agreements of one export.
const mostUsage = 100_000

func (a *app) agreementUsageCmd() *cobra.Command {
	var flags clientFlags
	var form, vo, from, until string
	cmd := &cobra.Command{
		Use:   "usage [--vo VO] [--from TIME] [--until TIME] [-o text|json|xml]",
		Short: "Show what agreements used and what is due",
		Long: `Show what was settled of agreements that have ended: yours, and everybody's if you oversee the
gateway. --from and --until bound when they ended; UNTIL itself is left out. A TIME is like
2026-01-31T18:00:00Z, '2026-01-31 18:00', 2026-01-31 (its beginning), or 720h for so long ago.

The table has the sums of each VO, and of each user for what is no VO's, in each unit. What is
above zero is owed by the VO, what is below zero is for it.

-o xml writes usage records of the OGF (GFD.98), one for each job, or for each agreement that had
none; -o json has the same. The charges of a record are prices, penalties and rewards together. An
agreement is known for 30 days after its end: export what is to be kept for longer.`,
		Example: `  portolan agreement usage --vo bio --from 2026-01-01 --until 2026-02-01
  portolan agreement usage --from 24h -o xml > usage.xml`,
		Args: needs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"most": {strconv.Itoa(ledger.MaxPage)}}
			if vo != "" {
				q.Set("vo", vo)
			}
			for _, x := range []struct{ name, text string }{{"from", from}, {"until", until}} {
				if x.text == "" {
					continue
				}
				t, err := momentOf(x.text, time.Now())
				if err != nil {
					return usagef("--%s: %s", x.name, sentence(err))
				}
				q.Set(x.name, t.UTC().Format(time.RFC3339Nano))
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			list, err := c.usage(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.showUsage(form, list)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&vo, "vo", "", "only agreements of this VO")
	cmd.Flags().StringVar(&from, "from", "", "only those that ended at this time or later")
	cmd.Flags().StringVar(&until, "until", "", "only those that ended before this time")
	for _, f := range []string{"vo", "from", "until"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(f, cobra.NoFileCompletions))
	}
	formFlag(cmd, &form, "text", "json", "xml")
	return cmd
}

// usage gives all pages, those that ended first first.
func (c *client) usage(ctx context.Context, q url.Values) ([]ledger.Settled, error) {
	var list []ledger.Settled
	for {
		var p ledger.Page
		if err := c.ask(ctx, call{method: http.MethodGet, path: console.UsagePath, query: q, into: &p}); err != nil {
			return nil, err
		}
		list = append(list, p.Agreements...)
		if len(list) > mostUsage {
			return nil, refusedf("there are more than %d agreements: ask for a part of them with --from and --until", mostUsage)
		}
		if p.Next == "" {
			break
		}
		if p.Next == q.Get("before") {
			return nil, refusedf("the answer of %s is not that of a Portolan gateway: its pages have no end", c.Endpoint)
		}
		q.Set("before", p.Next)
	}
	slices.Reverse(list) // of those that ended together, the oldest first
	slices.SortStableFunc(list, func(x, y ledger.Settled) int { return x.Ended.Compare(y.Ended) })
	return list, nil
}

func (a *app) showUsage(form string, list []ledger.Settled) error {
	if form == "text" {
		sums, err := ledger.Sums(list)
		if err != nil {
			return refusedf("%s", sentence(err))
		}
		var rows [][]string
		for i := range sums {
			s := &sums[i]
			due, ok := s.Balance()
			if !ok {
				return refusedf("what is due of %s is more than can be told", plain(s.Account))
			}
			rows = append(rows, []string{s.Account, s.Unit, amountOrNone(s.Used), amountOrNone(s.Charges), amountOrNone(s.Penalties), amountOrNone(s.Rewards), amountOrNone(due)})
		}
		return table(a.out, []string{"VO", "UNIT", "USED", "CHARGES", "PENALTIES", "REWARDS", "DUE"}, rows)
	}
	var records []ledger.JobUsage
	for i := range list {
		of, err := list[i].Records()
		if err != nil {
			return refusedf("%s", sentence(err))
		}
		records = append(records, of...)
	}
	write := ledger.WriteAllJSON
	if form == "xml" {
		write = ledger.WriteAllXML
	}
	if err := write(a.out, records); err != nil {
		return fmt.Errorf("the usage records can't be written: %w", err)
	}
	return nil
}

// amountOrNone leaves a nought out.
func amountOrNone(d decimal.Decimal) string {
	if d.Sign() == 0 {
		return ""
	}
	return d.String()
}
