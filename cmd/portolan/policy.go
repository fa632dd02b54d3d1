package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/resourcemodel"
)

func (a *app) policyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Say which policies decide, and change them",
		Long: `Say which policies decide which job comes next (scheduling), which place a job gets
(selection), both at once for all jobs of a round (pairing), and which running jobs get
copies (replication); and change them while the gateway runs.

A policy is in force for a SCOPE: gateway, vo:NAME, or queue:NAME (of the share that a job
names). The narrowest scope of a job that has a policy of the kind decides: its queue, then
its VO, then the gateway. A change holds for the next decision, for jobs that wait too, and
is remembered. A policy in shadow decides too, but is not obeyed: 'portolan policy compare'
shows what it would have done.`,
		Example: `  portolan policy list
  portolan policy set vo:bio selection 'best-fit{gpu=32}'
  portolan policy set --shadow gateway scheduling fairshare`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, c := range []*cobra.Command{a.policyListCmd(), a.policyGetCmd(), a.policySetCmd(), a.policyUnsetCmd(), a.policyCompareCmd(), a.policyHistoryCmd()} {
		c.DisableFlagsInUseLine = true
		cmd.AddCommand(c)
	}
	return cmd
}

func (c *client) policies(ctx context.Context) (*console.Policies, error) {
	p := new(console.Policies)
	return p, c.api(ctx, http.MethodGet, console.PoliciesPath, p)
}

func (a *app) policyListCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:   "list [-o table|wide|json|name] [KIND]",
		Short: "List the policies that there are",
		Long: `List the policies that the gateway has, all or those of a KIND: what each does, and the
scopes where it is in force. -o wide adds its parameters with their defaults, -o json their
bounds and meanings too.`,
		Example: `  portolan policy list
  portolan policy list selection`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if err := checkKind(args[0]); err != nil {
					return err
				}
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			p, err := c.policies(cmd.Context())
			if err != nil {
				return err
			}
			list := slices.DeleteFunc(p.Catalogue, func(d policy.Description) bool { return len(args) > 0 && string(d.Kind) != args[0] })
			switch form {
			case "json":
				return asJSON(a.out, list)
			case "name":
				for _, d := range list {
					fmt.Fprintln(a.out, plain(d.Name))
				}
				return nil
			}
			var rows [][]string
			for _, d := range list {
				var scopes, parameters []string
				for _, x := range p.Policies {
					if x.Kind == d.Kind && x.Name == d.Name {
						scope := string(x.Scope)
						if x.Shadow {
							scope += " (shadow)"
						}
						scopes = append(scopes, scope)
					}
				}
				for _, x := range d.Parameters {
					parameters = append(parameters, x.Name+"="+x.Unit.Format(x.Default))
				}
				row := []string{string(d.Kind), d.Name, strings.Join(scopes, ", "), d.What}
				if form == "wide" {
					row = append(row, strings.Join(parameters, ","))
				}
				rows = append(rows, row)
			}
			head := []string{"KIND", "NAME", "IN FORCE", "WHAT IT DOES"}
			if form == "wide" {
				head = append(head, "PARAMETERS")
			}
			return table(a.out, head, rows)
		},
		ValidArgsFunction: kindsAt(0),
	}
	flags.add(cmd)
	formFlag(cmd, &form, "table", "wide", "json", "name")
	return cmd
}

func (a *app) policyGetCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:   "get [-o table|json|wide] [SCOPE]",
		Short: "Say which policies are in force",
		Long: `Say which policies are in force and in shadow: in all scopes, or what holds in one SCOPE,
from wherever it comes. -o wide has all parameters.`,
		Example: `  portolan policy get
  portolan policy get vo:bio`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if err := checkScope(args[0]); err != nil {
					return err
				}
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			p, err := c.policies(cmd.Context())
			if err != nil {
				return err
			}
			list := p.Policies
			if len(args) > 0 {
				list = holding(list, schedule.Scope(args[0]))
			}
			if form == "json" {
				return asJSON(a.out, list)
			}
			return a.showPolicies(list, form == "wide")
		},
		ValidArgsFunction: scopesFirst,
	}
	flags.add(cmd)
	formFlag(cmd, &form, "table", "json", "wide")
	return cmd
}

// holding gives of each kind what holds in a scope: its own, or the gateway's.
func holding(all []console.Policy, scope schedule.Scope) []console.Policy {
	var out []console.Policy
	for _, kind := range policy.Kinds() {
		for _, shadow := range []bool{false, true} {
			at := -1
			for i, p := range all {
				if p.Kind == kind && p.Shadow == shadow && (p.Scope == scope || p.Scope == schedule.Gateway && at < 0) {
					at = i
				}
			}
			if at >= 0 {
				out = append(out, all[at])
			}
		}
	}
	return out
}

func (a *app) showPolicies(list []console.Policy, wide bool) error {
	head := []string{"SCOPE", "KIND", "POLICY", "REMARK"}
	if wide {
		head = append(head, "ALL PARAMETERS")
	}
	var rows [][]string
	for _, p := range list {
		remark := ""
		switch {
		case p.Shadow:
			remark = "in shadow"
		case p.Default:
			remark = "nobody chose it"
		}
		row := []string{string(p.Scope), string(p.Kind), p.Setting, remark}
		if wide {
			row = append(row, policy.Setting{Name: p.Name, Parameters: p.Parameters}.String())
		}
		rows = append(rows, row)
	}
	return table(a.out, head, rows)
}

func (a *app) policySetCmd() *cobra.Command {
	var flags clientFlags
	var shadow bool
	cmd := &cobra.Command{
		Use:   "set [--shadow] SCOPE KIND NAME{PARAMETER=VALUE,…}",
		Short: "Put a policy in force",
		Long: `Put a policy in force in a SCOPE, with parameters in braces; those that are not given have
their defaults. Durations are like 90s, 1h30m or 7d, switches on or off. It holds for the next
decision of every replica. With --shadow it only decides in shadow.`,
		Example: `  portolan policy set gateway scheduling fairshare
  portolan policy set gateway scheduling 'priority{age=2h}'
  portolan policy set --shadow queue:long selection best-fit`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changePolicy(cmd.Context(), flags, args[0], args[1], args[2], shadow)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return scopesFirst(cmd, args, word)
			case 1:
				return kindsAt(1)(cmd, args, word)
			case 2:
				var out []string
				for _, d := range policy.Offered() {
					if string(d.Kind) == args[1] {
						out = append(out, d.Name+"\t"+d.What)
					}
				}
				return out, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&shadow, "shadow", false, "only decide in shadow, for 'policy compare'")
	return cmd
}

func (a *app) policyUnsetCmd() *cobra.Command {
	var flags clientFlags
	var shadow bool
	cmd := &cobra.Command{
		Use:   "unset [--shadow] SCOPE KIND",
		Short: "Take a scope's policy away",
		Long: `Take a scope's own policy of a KIND away, so that the gateway's holds in it again, and at the
gateway itself the built-in default. With --shadow, the one in shadow.`,
		Example: "  portolan policy unset vo:bio selection",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changePolicy(cmd.Context(), flags, args[0], args[1], "", shadow)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return scopesFirst(cmd, args, word)
			}
			return kindsAt(1)(cmd, args, word)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&shadow, "shadow", false, "the one in shadow")
	return cmd
}

// changePolicy sets one, or takes it away when there is no setting.
func (a *app) changePolicy(ctx context.Context, flags clientFlags, scope, kind, setting string, shadow bool) error {
	if err := checkScope(scope); err != nil {
		return err
	}
	if err := checkKind(kind); err != nil {
		return err
	}
	c, err := a.dial(flags)
	if err != nil {
		return err
	}
	b, err := json.Marshal(console.SetPolicy{Scope: schedule.Scope(scope), Kind: policy.Kind(kind), Setting: setting, Shadow: shadow})
	if err != nil {
		return usagef("%v", err)
	}
	var after console.Policies
	if err := c.ask(ctx, call{method: http.MethodPut, path: console.PoliciesPath, body: b, mediaType: "application/json", into: &after}); err != nil {
		return err
	}
	now := holding(after.Policies, schedule.Scope(scope))
	now = slices.DeleteFunc(now, func(p console.Policy) bool { return string(p.Kind) != kind })
	return a.showPolicies(now, false)
}

func (a *app) policyCompareCmd() *cobra.Command {
	var flags clientFlags
	var form string
	var most int
	cmd := &cobra.Command{
		Use:   "compare [--most N] [-o text|json]",
		Short: "Compare the policies in shadow with those in force",
		Long: `Compare what the policies in shadow would have decided with what was decided, over the newest
recorded decisions: how many jobs would have got the same place, another, or none yet; and how
many jobs each site got and would have got.`,
		Example: "  portolan policy compare --most 1000",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			var got schedule.Comparison
			q := url.Values{"most": {strconv.Itoa(most)}}
			if err := c.ask(cmd.Context(), call{method: http.MethodGet, path: console.ComparePath, query: q, into: &got}); err != nil {
				return err
			}
			if form == "json" {
				return asJSON(a.out, got)
			}
			if got.Decisions == 0 {
				fmt.Fprintln(a.out, "no decision has a shadow: put a policy in shadow with 'portolan policy set --shadow', and let jobs be placed")
				return nil
			}
			return a.showComparison(&got, "in shadow")
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	cmd.Flags().IntVar(&most, "most", 10_000, "of the newest decisions, at most so many")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("most", cobra.NoFileCompletions))
	formFlag(cmd, &form, "text", "json")
	return cmd
}

// showComparison prints how other policies would have decided.
func (a *app) showComparison(c *schedule.Comparison, others string) error {
	fmt.Fprintf(a.out, "%s: %d the same place, %d another place, %d would have waited on\n\n", counted(c.Decisions, "decision"), c.Same, c.Elsewhere, c.Waited)
	var rows [][]string
	for _, site := range slices.Sorted(maps.Keys(c.Sites)) {
		t := c.Sites[site]
		rows = append(rows, []string{site, strconv.Itoa(t.InForce), strconv.Itoa(t.Shadow)})
	}
	if err := table(a.out, []string{"SITE", "JOBS", strings.ToUpper(others)}, rows); err != nil || len(c.Examples) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	rows = nil
	for _, e := range c.Examples {
		rows = append(rows, []string{e.Job, placed(e.InForce), placed(e.Shadow)})
	}
	return table(a.out, []string{"JOB", "WENT TO", strings.ToUpper(others)}, rows)
}

// placed names a place, or says that there is none.
func placed(p *resourcemodel.Place) string {
	if p == nil {
		return "waits"
	}
	return p.String()
}

// counted gives a number with its noun.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}

func (a *app) policyHistoryCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:     "history [-o table|json]",
		Short:   "Say who changed which policy",
		Long:    `Say who changed which policy and when, the newest first, as far as the gateway remembers.`,
		Example: "  portolan policy history",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			p, err := c.policies(cmd.Context())
			if err != nil {
				return err
			}
			if form == "json" {
				return asJSON(a.out, p.Changes)
			}
			var rows [][]string
			for _, x := range p.Changes {
				side := "in force"
				if x.Shadow {
					side = "shadow"
				}
				rows = append(rows, []string{clock(x.At), x.Who, string(x.Scope), string(x.Kind), side, x.From, x.To})
			}
			return table(a.out, []string{"TIME", "WHO", "SCOPE", "KIND", "WHERE", "FROM", "TO"}, rows)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	formFlag(cmd, &form, "table", "json")
	return cmd
}

func checkScope(s string) error {
	if !schedule.Scope(s).Valid() {
		return usagef("there is no scope %q: gateway, vo:NAME and queue:NAME are scopes", s)
	}
	return nil
}

func checkKind(s string) error {
	if !slices.Contains(policy.Kinds(), policy.Kind(s)) {
		return usagef("there is no kind of policy %q: use %s", s, strings.Join(kinds(), ", "))
	}
	return nil
}

func kinds() []string {
	var out []string
	for _, k := range policy.Kinds() {
		out = append(out, string(k))
	}
	return out
}

// kindsAt completes kinds as the nth argument.
func kindsAt(n int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) != n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return kinds(), cobra.ShellCompDirectiveNoFileComp
	}
}

// scopesFirst completes scopes as the first argument.
func scopesFirst(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch {
	case len(args) > 0:
		return nil, cobra.ShellCompDirectiveNoFileComp
	case strings.HasPrefix(word, "g"):
		return []string{string(schedule.Gateway)}, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{string(schedule.Gateway), "vo:", "queue:"}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
