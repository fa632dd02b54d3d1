package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/status"
)

func (a *app) peersCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:   "peers [-o table|wide|json|name]",
		Short: "Say which domains the gateway works with, and change that",
		Long: `Say how the gateway stands with the domains that it works with: its peers.

STATE is the session's phase: alive, suspect or lost (nothing was heard for long), draining or
closed, and opening while there is none; REASON says why, SINCE how long. LAG is how long the
oldest item waits that the peer is not done with. OUT and IN are bytes and messages, CLOCK is how
far the peer's clock is ahead. GIVEN and TAKEN are the jobs that we gave the peer and took of it:
those that have not ended, of all. BALANCE is the ledger's, in CPU time.

-o wide adds what the session was agreed on; -o json is the peers of GET /api/v1/peers.`,
		Example: `  portolan peers
  portolan peers show fiu.example
  portolan peers add https://gw.fiu.example/peer`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			all, err := c.peers(cmd.Context())
			if err != nil {
				return err
			}
			return a.showPeers(form, all, time.Now())
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	formFlag(cmd, &form, "table", "wide", "json", "name")
	for _, c := range []*cobra.Command{a.peersShowCmd(), a.peersAddCmd(), a.peersRemoveCmd(), a.peersDiscoverCmd(), a.peersLedgerCmd(), a.peersBuyCmd(), a.peersBoughtCmd(), a.peersReleaseCmd()} {
		c.DisableFlagsInUseLine = true
		cmd.AddCommand(c)
	}
	return cmd
}

func (c *client) peers(ctx context.Context) ([]status.Peer, error) {
	var l console.PeerList
	err := c.api(ctx, http.MethodGet, console.PeersPath, &l)
	return l.Peers, err
}

// ofPeer gives a path of the API for a domain.
func ofPeer(path, domain string) (string, error) {
	if domain == "" || strings.Contains(domain, "/") {
		return "", usagef("%q is no domain: 'portolan peers -o name' lists those of the peers", domain)
	}
	return strings.ReplaceAll(path, "{domain}", domain), nil
}

// post sends JSON to the API.
func (c *client) post(ctx context.Context, path string, in, into any, longer time.Duration) error {
	b, err := json.Marshal(in)
	if err != nil {
		return usagef("%v", err)
	}
	return c.ask(ctx, call{method: http.MethodPost, path: path, body: b, mediaType: "application/json", into: into, longer: longer})
}

// completePeers completes the domains of peers, as far as the gateway tells them quickly.
func (a *app) completePeers(flags *clientFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		parent := cmd.Context()
		if parent == nil { // cobra gives a completion none
			parent = context.Background()
		}
		ctx, cancel := context.WithTimeout(parent, 2*time.Second)
		defer cancel()
		c, err := a.dial(*flags)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := c.peers(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for _, p := range all {
			out = append(out, cobra.CompletionWithDesc(plain(p.Domain), plain(string(p.State))))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// showPeers prints peers in a form.
func (a *app) showPeers(form string, all []status.Peer, now time.Time) error {
	switch form {
	case "json":
		return asJSON(a.out, append([]status.Peer{}, all...))
	case "name":
		for _, p := range all {
			fmt.Fprintln(a.out, plain(p.Domain))
		}
		return nil
	}
	head := []string{"DOMAIN", "STATE", "SINCE", "LAG", "OUT", "IN", "CLOCK", "GIVEN", "TAKEN", "BALANCE", "REASON"}
	if form == "wide" {
		head = slices.Insert(head, 2, "ROLE", "URL", "FEATURES", "SHOWS US", "SEES OF US")
	}
	var rows [][]string
	for i := range all {
		rows = append(rows, peerRow(&all[i], now, form == "wide"))
	}
	return table(a.out, head, rows)
}

func peerRow(p *status.Peer, now time.Time, wide bool) []string {
	row := []string{p.Domain, string(p.State)}
	s := p.Session
	if wide {
		row = append(row, string(p.Role), p.URL)
		if s != nil {
			row = append(row, strings.Join(s.Features, ","), string(s.Shows), string(s.Shown))
		} else {
			row = append(row, "", "", "")
		}
	}
	since := ""
	if p.Since != nil {
		since = ago(now.Sub(*p.Since))
	}
	row = append(row, since)
	if s != nil {
		row = append(row, lagText(s), trafficText(s.Out), trafficText(s.In), clockText(s.Clock))
	} else {
		row = append(row, "", "", "", "")
	}
	return append(row, countText(p.Jobs.Given), countText(p.Jobs.Taken), balanceText(p.Ledger), p.Reason)
}

func lagText(s *status.Session) string {
	if s.Behind == 0 {
		return "none"
	}
	return fmt.Sprintf("%.1f s (%s)", s.Lag, counted(s.Behind, "item"))
}

func trafficText(t status.Traffic) string {
	return fmt.Sprintf("%s in %d", bytesText(t.Bytes), t.Messages)
}

func bytesText(n uint64) string {
	const unit = 1 << 10
	if n < unit {
		return strconv.FormatUint(n, 10) + " B"
	}
	f, i := float64(n)/unit, 0
	for ; f >= unit && i < 4; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[i])
}

func clockText(c *status.Clock) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%+.3f s", c.Ahead)
}

func countText(c status.Count) string { return fmt.Sprintf("%d of %d", c.Live, c.Total) }

// balanceText says who owes whom.
func balanceText(b status.Balance) string {
	switch n := handover.CPUTime(b.Surplus); {
	case n > 0:
		return "we owe " + n.String()
	case n < 0:
		return "it owes " + (-n).String()
	}
	return "even"
}

func (a *app) peersShowCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:   "show [-o text|json] DOMAIN",
		Short: "Show everything about one peer",
		Long: `Show everything about one peer: where it is, what it is trusted by, what the session was agreed
on and how it stands, what went over it, and the ledger's balance.`,
		Example: "  portolan peers show fiu.example",
		Args:    needs(1, 1, "a DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := ofPeer(console.PeerPath, args[0])
			if err != nil {
				return err
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			var p status.Peer
			if err := c.api(cmd.Context(), http.MethodGet, path, &p); err != nil {
				return err
			}
			if form == "json" {
				return asJSON(a.out, p)
			}
			a.showPeer(&p)
			return nil
		},
		ValidArgsFunction: a.completePeers(&flags),
	}
	flags.add(cmd)
	formFlag(cmd, &form, "text", "json")
	return cmd
}

// showPeer prints one peer, a line for each thing that is known of it.
func (a *app) showPeer(p *status.Peer) {
	line := func(what, is string) {
		if is != "" {
			fmt.Fprintf(a.out, "%s: %s\n", what, plain(is))
		}
	}
	at := func(t *time.Time) string { return clock(when(t)) }
	line("domain", p.Domain)
	line("url", p.URL)
	line("known", string(p.Source))
	line("fingerprint", p.Fingerprint)
	line("role", string(p.Role))
	line("state", string(p.State))
	line("reason", p.Reason)
	line("since", at(p.Since))
	if s := p.Session; s != nil {
		line("session", s.ID)
		line("version", s.Version)
		line("software", s.Software)
		line("features", strings.Join(s.Features, ", "))
		who := "the peer"
		if s.Ours {
			who = "we"
		}
		line("opened by", who)
		if s.Outbound {
			line("way", "one side can't be reached: all goes over its polls")
		}
		line("takes our jobs", yesNo(s.Provides))
		line("gives us jobs", yesNo(s.Consumes))
		line("shows us", string(s.Shows))
		line("sees of us", string(s.Shown))
		line("VOs", strings.Join(s.VOs, ", "))
		line("beat", seconds(s.Beat))
		line("lost after", seconds(s.Lost))
		line("lease", seconds(s.Lease))
		line("heard", at(s.Heard))
		line("lag", lagText(s))
		line("not done here", counted(s.Owed, "item"))
		if s.Clock != nil {
			line("clock", fmt.Sprintf("%s ahead, within %.3f s", clockText(s.Clock), s.Clock.Within))
		}
		for _, t := range []struct {
			way string
			status.Traffic
		}{{"out", s.Out}, {"in", s.In}} {
			line(t.way, fmt.Sprintf("%s, %d messages, %d items", bytesText(t.Bytes), t.Messages, t.Items))
		}
	}
	line("jobs given", countText(p.Jobs.Given))
	line("jobs taken", countText(p.Jobs.Taken))
	line("balance", balanceText(p.Ledger))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func seconds(s float64) string { return time.Duration(s * float64(time.Second)).String() }

func (a *app) peersRemoveCmd() *cobra.Command {
	var flags clientFlags
	var now bool
	cmd := &cobra.Command{
		Use:   "remove [--now] DOMAIN",
		Short: "End the relation with a peer",
		Long: `End the relation with a peer: the session is drained, so that what is under way is done with by
both sides, and then the peer's key is not trusted any more. Jobs that it has are taken back at their
recall deadline, and not before. --now closes the session at once.

A peer that the configuration names is taken out there.`,
		Example: "  portolan peers remove fiu.example",
		Args:    needs(1, 1, "a DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := ofPeer(console.PeerPath, args[0])
			if err != nil {
				return err
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			var p status.Peer
			q := call{method: http.MethodDelete, path: path, into: &p}
			if now {
				q.query = url.Values{"now": {"true"}}
			}
			if err := c.ask(cmd.Context(), q); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s: %s\n", plain(p.Domain), plain(strings.TrimSuffix(string(p.State)+": "+p.Reason, ": ")))
			return nil
		},
		ValidArgsFunction: a.completePeers(&flags),
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&now, "now", false, "close the session without draining it")
	return cmd
}

func (a *app) peersLedgerCmd() *cobra.Command {
	var flags clientFlags
	var form string
	var most int
	cmd := &cobra.Command{
		Use:   "ledger [--most N] [-o table|json] DOMAIN",
		Short: "Show who ran how much for whom",
		Long: `Show the favour ledger of this domain and a peer: the balance, and of each of the two accounts the
newest statements with what the other side said to them. A provider signs a statement of each job
that it ran; the consumer holds it against what it saw, and agrees or contests. What is contested
counts for nobody. Two domains whose accounts end with the same digest have the same account.

-o json has the signatures too.`,
		Example: `  portolan peers ledger fiu.example
  portolan peers ledger --most 1000 -o json fiu.example`,
		Args: needs(1, 1, "a DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if most < 1 || most > status.MaxStatements {
				return usagef("--most %d: give a number from 1 to %d", most, status.MaxStatements)
			}
			path, err := ofPeer(console.PeerLedgerPath, args[0])
			if err != nil {
				return err
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			var l status.Ledger
			if err := c.ask(cmd.Context(), call{method: http.MethodGet, path: path, query: url.Values{"most": {strconv.Itoa(most)}}, into: &l}); err != nil {
				return err
			}
			if form == "json" {
				return asJSON(a.out, l)
			}
			return a.showLedger(&l)
		},
		ValidArgsFunction: a.completePeers(&flags),
	}
	flags.add(cmd)
	cmd.Flags().IntVar(&most, "most", status.UsualStatements, "of each account, at most so many of the newest statements")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("most", cobra.NoFileCompletions))
	formFlag(cmd, &form, "table", "json")
	return cmd
}

func (a *app) showLedger(l *status.Ledger) error {
	b := l.Balance
	cpu := func(ms int64) string { return handover.CPUTime(ms).String() }
	fmt.Fprintf(a.out, "balance: %s\n", balanceText(b))
	for _, x := range []struct {
		what string
		ms   int64
	}{
		{"we ran for it, agreed", b.Did},
		{"it ran for us, agreed", b.Got},
		{"we ran, it said nothing yet", b.Unheard},
		{"it ran, and did not claim yet", b.Unclaimed},
		{"contested", b.Contested},
	} {
		fmt.Fprintf(a.out, "%s: %s\n", x.what, cpu(x.ms))
	}
	for _, c := range l.Accounts {
		fmt.Fprintf(a.out, "\n%s for %s: %s, %s in all", plain(c.Provider), plain(c.Consumer), counted(int(c.Number), "statement"), cpu(c.Sum))
		if c.Number > 0 {
			fmt.Fprintf(a.out, ", digest %.16s", plain(c.Digest))
		}
		fmt.Fprintln(a.out)
		if c.Problem != "" {
			fmt.Fprintf(a.out, "PROBLEM: %s\n", plain(c.Problem))
		}
		if len(c.Statements) == 0 {
			continue
		}
		var rows [][]string
		for _, s := range c.Statements {
			what := string(s.Outcome)
			if s.Withdraws > 0 {
				what = fmt.Sprintf("withdraws %d", s.Withdraws)
			}
			rows = append(rows, []string{
				strconv.FormatUint(s.Number, 10), clock(s.Issued), s.Origin + "/" + s.Job, s.Token, what, cpu(s.Used), cpu(s.Sum), string(s.Verdict), s.Reason,
			})
		}
		if err := table(a.out, []string{"NO", "ISSUED", "JOB", "TOKEN", "OUTCOME", "USED", "SUM", "VERDICT", "REASON"}, rows); err != nil {
			return err
		}
	}
	return nil
}
