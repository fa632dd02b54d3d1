package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/conformance"
)

func (a *app) conformanceCmd() *cobra.Command {
	var flags clientFlags
	var form string
	var list bool
	var only []string
	var settle time.Duration
	var programs conformance.Programs
	cmd := &cobra.Command{
		Use:   "conformance [--endpoint URL] [--only PREFIX] [--list] [-o text|json|junit]",
		Short: "Judge a BES service by the standards",
		Long: `Send messages to any OGSA-BES service and judge its answers by SOAP 1.1 and 1.2,
WS-Addressing 1.0, OGSA-BES 1.0 and JSDL 1.0. Each check has an id, the clause that it
proves, and what it saw. Small jobs are created, and ended again.

Exit codes: 0 nothing failed; 1 a check failed; 2 wrong usage.`,
		Example: `  portolan conformance --endpoint http://127.0.0.1:8700/bes
  portolan conformance --only SOAP -o junit > report.xml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				var rows [][]string
				for _, c := range conformance.List(conformance.BES) {
					rows = append(rows, []string{c.ID, c.Title, c.Clause})
				}
				return table(a.out, []string{"ID", "TITLE", "CLAUSE"}, rows)
			}
			s, err := a.settings(flags)
			if err != nil {
				return err
			}
			o := conformance.Options{Endpoint: s.Endpoint, Filter: only, Settle: settle, Programs: programs, Timeout: flags.timeout}
			if s.Token != "" {
				o.HTTP = &http.Client{Transport: bearer{s.Token, http.DefaultTransport}}
			}
			if err := o.Validate(); err != nil {
				return usagef("%s", sentence(err))
			}
			rep, err := conformance.Run(cmd.Context(), o)
			if err != nil {
				return refusal(err)
			}
			write := map[string]func(io.Writer) error{"text": rep.WriteText, "json": rep.WriteJSON, "junit": rep.WriteJUnit}[form]
			if err := write(a.out); err != nil {
				return fmt.Errorf("writing the report: %w", err)
			}
			if !rep.Reached {
				return refusedf("the endpoint %s could not be reached: nothing answered", plain(s.Endpoint))
			}
			if !rep.OK() {
				return quietly(exitFailed)
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().StringSliceVar(&only, "only", nil, "only the checks whose ids begin so")
	cmd.Flags().BoolVar(&list, "list", false, "list the checks and make none")
	cmd.Flags().DurationVar(&settle, "settle", 0, "how long an activity may take to reach a state (default 1m)")
	cmd.Flags().StringVar(&programs.True, "true-program", "", "on the service's machines, a program that ends at once (default /bin/true)")
	cmd.Flags().StringVar(&programs.Sleep, "sleep-program", "", "one that takes a number of seconds (default /bin/sleep)")
	cmd.Flags().StringVar(&programs.Echo, "echo-program", "", "one that writes its arguments (default /bin/echo)")
	for _, f := range []string{"only", "settle", "true-program", "sleep-program", "echo-program"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(f, cobra.NoFileCompletions))
	}
	formFlag(cmd, &form, "text", "json", "junit")
	return cmd
}
