package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

func (a *app) cancelCmd() *cobra.Command {
	return a.steerCmd("cancel", "End activities",
		`Ask for activities to be ended, and print the id of each that will be. A job that runs is
ended with all of its processes; its state is Cancelled once that is done.`,
		"  portolan cancel 01890a5d-ac96-774b-bcce-b302099a8057",
		func(c *client) (func(context.Context, []soap.EPR) ([]bes.Result, error), error) {
			return c.service.TerminateActivities, nil
		})
}
