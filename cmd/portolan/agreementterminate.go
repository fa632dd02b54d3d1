package main

import (
	"fmt"

	"github.com/beevik/etree"
	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/agreement"
)

func (a *app) agreementTerminateCmd() *cobra.Command {
	var flags clientFlags
	var reason string
	cmd := &cobra.Command{
		Use:   "terminate [--reason TEXT] ID",
		Short: "End an agreement",
		Long: `Ask for the end of an agreement: its jobs are cancelled, and what was kept for it is free again.
It prints the state that the agreement is in then; the end itself may take a while, and 'portolan
agreement watch' waits for it. One that is over can't be ended: the exit code is 3.`,
		Example:           "  portolan agreement terminate --reason 'the paper was accepted' 01890a5d-ac96-774b-bcce-b302099a8057",
		Args:              needs(1, 1, "ID"),
		ValidArgsFunction: a.completeAgreements(&flags),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, key, err := a.agreementOf(flags, args[0])
			if err != nil {
				return err
			}
			var why *etree.Element
			if reason != "" {
				why = etree.NewElement("p:Reason")
				why.CreateAttr("xmlns:p", agreement.NSPortolan)
				why.SetText(plain(reason))
			}
			if err := s.service.Terminate(cmd.Context(), key, why); err != nil {
				return s.refused(err)
			}
			p, err := s.service.Agreement(cmd.Context(), key)
			if err != nil {
				return s.refused(err)
			}
			fmt.Fprintf(a.out, "%s  %s\n", args[0], p.State)
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record of the service")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions))
	return cmd
}
