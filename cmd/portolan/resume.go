package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

func (a *app) resumeCmd() *cobra.Command {
	return a.steerCmd("resume", "", "Let suspended activities go on",
		"Ask for suspended activities to go on, and print the id of each that will.",
		"  portolan resume 01890a5d-ac96-774b-bcce-b302099a8057",
		func(c *client) (func(context.Context, []soap.EPR) ([]bes.Result, error), error) {
			control, err := c.controller()
			if err != nil {
				return nil, err
			}
			return control.ResumeActivities, nil
		})
}
