package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/console"
)

func (a *app) limitCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "limit",
		Short: "Say how many jobs users, VOs and sites may have, and change that",
		Long: `Say how many jobs users, VOs and sites may have at once, or CPUs of these, and change that
while the gateway runs.

A limit is of a SUBJECT: user:NAME and vo:NAME bound the jobs that have not ended, site:NAME those
that are at the site or on their way there; user-cpus:, vo-cpus: and site-cpus: bound the CPUs that
these jobs ask for. The name * is everybody who has no limit of the kind of their own. A job beyond
a user's or a VO's limit is refused when it is submitted; one beyond a site's goes elsewhere, or
waits and says so. Limits hold over all replicas of the gateway, are remembered, and end nothing.`,
		Example: `  portolan limit list
  portolan limit set site:slurm 500
  portolan limit set 'user:*' 2000
  portolan limit unset site:slurm`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, c := range []*cobra.Command{a.limitListCmd(), a.limitSetCmd(), a.limitUnsetCmd(), a.limitHistoryCmd()} {
		c.DisableFlagsInUseLine = true
		cmd.AddCommand(c)
	}
	return cmd
}

// limits asks the gateway for the limits in force and their changes.
func (a *app) limits(ctx context.Context, flags clientFlags) (*console.Limits, error) {
	c, err := a.dial(flags)
	if err != nil {
		return nil, err
	}
	l := new(console.Limits)
	return l, c.api(ctx, http.MethodGet, console.LimitsPath, l)
}

func (a *app) limitListCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:   "list [-o table|json|name]",
		Short: "List the limits in force",
		Long: `List the limits in force with what counts towards them now. Of a limit of everybody (*) that is
the most that one has who has no limit of their own.`,
		Example: "  portolan limit list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.limits(cmd.Context(), flags)
			if err != nil {
				return err
			}
			switch form {
			case "json":
				return asJSON(a.out, l.Limits)
			case "name":
				for _, x := range l.Limits {
					fmt.Fprintln(a.out, plain(x.Subject))
				}
				return nil
			}
			return a.showLimits(l.Limits)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	formFlag(cmd, &form, "table", "json", "name")
	return cmd
}

func (a *app) showLimits(list []console.Limit) error {
	var rows [][]string
	for _, x := range list {
		rows = append(rows, []string{x.Subject, strconv.Itoa(x.Used), strconv.Itoa(x.Max), x.Counts})
	}
	return table(a.out, []string{"SUBJECT", "USED", "MAX", "OF"}, rows)
}

func (a *app) limitSetCmd() *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:   "set SUBJECT NUMBER",
		Short: "Put a limit in force",
		Long: `Put a limit in force for a SUBJECT, in place of the one that it may have. 0 lets nothing through.
It holds at once, and ends nothing: what is above it goes on, and nothing is added until there is room.`,
		Example: `  portolan limit set site:slurm 500
  portolan limit set site-cpus:slurm 4096
  portolan limit set 'vo:*' 10000`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			most, err := strconv.Atoi(args[1])
			if err != nil || most < 0 || most > limits.MaxLimit {
				return usagef("%q is no limit: give a number from 0 to %d", args[1], int64(limits.MaxLimit))
			}
			return a.changeLimit(cmd.Context(), flags, args[0], &most)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var out []string
			for _, s := range limits.Scopes() {
				out = append(out, string(s)+":")
			}
			return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		},
	}
	flags.add(cmd)
	return cmd
}

func (a *app) limitUnsetCmd() *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:     "unset SUBJECT",
		Short:   "Take a limit away",
		Long:    `Take a SUBJECT's own limit away, so that the one of everybody (*) holds for it again, if there is one.`,
		Example: "  portolan limit unset site:slurm",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeLimit(cmd.Context(), flags, args[0], nil)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			l, err := a.limits(cmd.Context(), flags)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var out []string
			for _, x := range l.Limits {
				out = append(out, fmt.Sprintf("%s\t%d of %d %s", plain(x.Subject), x.Used, x.Max, x.Counts))
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags.add(cmd)
	return cmd
}

// changeLimit sets one, or takes it away when most is nil, and shows what holds then for
// its kind.
func (a *app) changeLimit(ctx context.Context, flags clientFlags, subject string, most *int) error {
	s, err := limits.ParseSubject(subject)
	if err != nil {
		return usagef("%s", sentence(err))
	}
	c, err := a.dial(flags)
	if err != nil {
		return err
	}
	b, err := json.Marshal(console.SetLimit{Subject: subject, Max: most})
	if err != nil {
		return usagef("%v", err)
	}
	var after console.Limits
	if err := c.ask(ctx, call{method: http.MethodPut, path: console.LimitsPath, body: b, mediaType: "application/json", into: &after}); err != nil {
		return err
	}
	return a.showLimits(slices.DeleteFunc(after.Limits, func(x console.Limit) bool {
		return x.Scope != s.Scope || x.Name != s.Name && x.Name != limits.Everybody
	}))
}

func (a *app) limitHistoryCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:     "history [-o table|json]",
		Short:   "Say who changed which limit",
		Long:    `Say who changed which limit and when, the newest first, as far as the gateway remembers.`,
		Example: "  portolan limit history",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.limits(cmd.Context(), flags)
			if err != nil {
				return err
			}
			if form == "json" {
				return asJSON(a.out, l.Changes)
			}
			var rows [][]string
			for _, x := range l.Changes {
				s := limits.Subject{Scope: x.Scope, Name: x.Name}
				rows = append(rows, []string{clock(x.At), x.Who, s.String(), limitText(x.Before), limitText(x.After)})
			}
			return table(a.out, []string{"TIME", "WHO", "SUBJECT", "FROM", "TO"}, rows)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	formFlag(cmd, &form, "table", "json")
	return cmd
}

// limitText writes a limit, or nothing where there is none.
func limitText(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n)
}
