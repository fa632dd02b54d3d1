package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

func (a *app) suspendCmd() *cobra.Command {
	return a.steerCmd("suspend", "", "Keep activities from running for now",
		`Ask for activities to be stopped until they are resumed, and print the id of each that will
be. One that waits is not started, one that runs is stopped where it is.`,
		"  portolan suspend 01890a5d-ac96-774b-bcce-b302099a8057",
		func(c *client) (func(context.Context, []soap.EPR) ([]bes.Result, error), error) {
			control, err := c.controller()
			if err != nil {
				return nil, err
			}
			return control.SuspendActivities, nil
		})
}
