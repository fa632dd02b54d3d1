package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

// steerCmd makes a verb that asks something of activities. Each has its own
// answer; the verb fails if one was refused.
func (a *app) steerCmd(verb, options, short, long, example string, ask func(*client) (func(context.Context, []soap.EPR) ([]bes.Result, error), error)) *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:               strings.TrimSpace(verb+" "+options) + " ID…",
		Short:             short,
		Long:              long,
		Example:           example,
		Args:              needs(1, 0, "the ID of an activity"),
		ValidArgsFunction: a.completeIDs(&flags, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, acts, err := a.targets(flags, args)
			if err != nil {
				return err
			}
			do, err := ask(c)
			if err != nil {
				return err
			}
			got, err := do(cmd.Context(), references(acts))
			if err != nil {
				return c.refused(err)
			}
			if len(got) != len(acts) {
				return refusedf("the service gave %d answers for %d activities", len(got), len(acts))
			}
			refused := false
			for i, r := range got {
				if r.Err != nil {
					a.complain(acts[i].id + ": " + sentence(r.Err))
					refused = true
					continue
				}
				fmt.Fprintln(a.out, acts[i].id)
			}
			if refused {
				return quietly(exitRefused)
			}
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}
