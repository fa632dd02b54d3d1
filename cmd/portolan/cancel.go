package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/soap"
)

func (a *app) cancelCmd() *cobra.Command {
	var abandon bool
	cmd := a.steerCmd("cancel", "[--abandon]", "End activities",
		`Ask for activities to be ended, and print the id of each that will be. A job that runs is
ended with all of its processes; its state is Cancelled once that is done.

A job whose site can't be asked stays as it is until the site is back: nothing is claimed of
what nobody can see. If the site will never be back, the manager of a Portolan gateway may give
the job up with --abandon: it is Failed, as what became of it is not known, and it is not run
again. Should it still run there, it is left to run.`,
		`  portolan cancel 01890a5d-ac96-774b-bcce-b302099a8057
  portolan cancel --abandon 01890a5d-ac96-774b-bcce-b302099a8057`,
		func(c *client) (func(context.Context, []soap.EPR) ([]bes.Result, error), error) {
			if abandon {
				return c.abandon, nil
			}
			return c.service.TerminateActivities, nil
		})
	cmd.Flags().BoolVar(&abandon, "abandon", false, "give up jobs whose site can't be asked any more")
	return cmd
}

// abandon gives activities up; BES has no word for it.
func (c *client) abandon(ctx context.Context, refs []soap.EPR) ([]bes.Result, error) {
	out := make([]bes.Result, len(refs))
	for i, epr := range refs {
		out[i].Activity = epr
		id, own := ownID(epr)
		if !own {
			out[i].Err = refusedf("only activities of Portolan gateways can be abandoned")
			continue
		}
		var done struct{}
		out[i].Err = c.api(ctx, http.MethodPost, strings.ReplaceAll(console.AbandonPath, "{id}", id), &done)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return out, nil
}
