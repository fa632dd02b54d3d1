package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/agreement"
)

func (a *app) agreementWatchCmd() *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:   "watch ID",
		Short: "Follow an agreement to its end",
		Long: `Follow an agreement to its end: a line for each change of its state, and of those of its
services and guarantees. The exit code is 0 if it was kept: it is complete, and no guarantee
was broken; else 1: it was rejected or ended early, or a guarantee was broken.`,
		Example:           "  portolan agreement watch 01890a5d-ac96-774b-bcce-b302099a8057",
		Args:              needs(1, 1, "ID"),
		ValidArgsFunction: a.completeAgreements(&flags),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, key, err := a.agreementOf(flags, args[0])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			kept, err := s.follow(ctx, key, func(line string) { fmt.Fprintln(a.out, plain(line)) }, func(err error) {
				a.complain("waiting for the service: " + sentence(err))
			})
			switch {
			case err != nil && ctx.Err() != nil:
				return &exitError{code: exitInterrupted, err: errors.New("no longer watching; the agreement goes on: 'portolan agreement terminate' ends it")}
			case err != nil:
				return s.refused(err)
			case !kept:
				return quietly(exitFailed)
			}
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}

// follow tells each change of an agreement until its state is final, and says whether
// it was kept. away is told once when the service does not answer.
func (s *agreementClient) follow(ctx context.Context, key string, say func(string), away func(error)) (kept bool, err error) {
	told := map[string]string{}
	changed := false
	tell := func(what, is string) {
		if told[what] != is {
			told[what], changed = is, true
			say(what + ": " + is)
		}
	}
	kept = true
	pause, heard, lost := shortPause, time.Now(), false
	for {
		p, err := s.service.Agreement(ctx, key)
		if err != nil {
			if ctx.Err() != nil || !passing(err) || time.Since(heard) > patience {
				return false, err
			}
			if !lost {
				lost = true
				away(err)
			}
			if err := rest(ctx, &pause); err != nil {
				return false, err
			}
			continue
		}
		heard, lost, changed = time.Now(), false, false
		if !p.State.Final() {
			tell("agreement", string(p.State))
		}
		for _, t := range p.Services {
			is := string(t.State)
			if t.Activity != "" {
				is += " (" + string(t.Activity) + ")"
			}
			tell(t.Term, is+fact(t.Detail, "State"))
		}
		for _, t := range p.Guarantees {
			tell(t.Term, string(t.State)+fact(t.Detail, "Evidence"))
			kept = kept && t.State != agreement.Violated
		}
		if p.State.Final() {
			tell("agreement", string(p.State))
			return kept && p.State == agreement.Complete, nil
		}
		if changed {
			pause = shortPause
		}
		if err := rest(ctx, &pause); err != nil {
			return false, err
		}
	}
}

// fact gives one of the facts of a term's state, the latest of that name, as the rest of
// a line; "" is none.
func fact(detail *etree.Element, name string) string {
	said := ""
	for _, f := range facts(detail) {
		if f.Name == name || strings.HasSuffix(f.Name, "/"+name) {
			said = ", " + f.Text
		}
	}
	return said
}
