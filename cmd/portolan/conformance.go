package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
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
	var guest guestFlags
	var listen string
	profile := string(conformance.BES)
	cmd := &cobra.Command{
		Use:   "conformance [--profile bes|peer|wsag] [--endpoint URL] [--only PREFIX] [--list] [-o text|json|junit]",
		Short: "Judge a BES service or a WS-Agreement provider by the standards, or a peer endpoint by its protocol",
		Long: `Send messages to any OGSA-BES service and judge its answers by SOAP 1.1 and 1.2,
WS-Addressing 1.0, OGSA-BES 1.0 and JSDL 1.0. Each check has an id, the clause that it
proves, and what it saw. Small jobs are created, and ended again.

--profile peer judges the endpoint that a gateway has for those of other domains, by
docs/peer-protocol.md: its messages, sessions, resources, jobs, favour ledger and trust. The kit is
then a gateway of --domain that can't be reached: the endpoint must trust that domain by the
certificate --cert (or its CA or key), take jobs of it, and know no URL of it. Use a domain that is
there for this alone, as the kit opens and breaks sessions; what needs jobs, or a second domain
(--other-domain), is skipped without them. --ca or --fingerprint say how the endpoint itself is
known. --user has the kit vouch for a user, whom the endpoint's rules must map to an account.
Messages are signed unless --unsigned says that TLS is enough. How to make the certificate and set
up the endpoint is in the chapter Conformance of that page.

--profile wsag judges any WS-Agreement 1.0 endpoint. What is sent is made of the templates that it
offers: agreements are made, and ended again. What the endpoint does not offer, and what no template
of it has, is skipped with a sentence. --listen HOST:PORT has the kit listen there for decisions on
pending agreements; the endpoint must be able to reach it by that name.

Exit codes: 0 nothing failed; 1 a check failed; 2 wrong usage; 3 nothing answered.`,
		Example: `  portolan conformance --endpoint http://127.0.0.1:8700/bes
  portolan conformance --only SOAP -o junit > report.xml
  portolan conformance --profile wsag --endpoint http://127.0.0.1:8700/agreement --listen 127.0.0.1:8099
  portolan conformance --profile peer --endpoint https://gw.fiu.example/peer --ca fiu-ca.pem \
    --domain check.example --cert check.pem --key check-key.pem --user ann`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			of := conformance.Profile(profile)
			if !slices.Contains(conformance.Profiles(), of) {
				return usagef("there is no profile %q: use bes, peer or wsag", profile)
			}
			if list {
				var rows [][]string
				for _, c := range conformance.List(of) {
					rows = append(rows, []string{c.ID, c.Title, c.Clause})
				}
				return table(a.out, []string{"ID", "TITLE", "CLAUSE"}, rows)
			}
			if of != conformance.Peer && guest.any() {
				return usagef("the kit is of a domain, with a certificate, in the profile peer only: add --profile peer")
			}
			if of != conformance.WSAG && listen != "" {
				return usagef("the kit listens for decisions on agreements in the profile wsag only: add --profile wsag")
			}
			s, err := a.settings(flags)
			if err != nil {
				return err
			}
			o := conformance.Options{Profile: of, Endpoint: s.Endpoint, Filter: only, Settle: settle, Programs: programs, Timeout: flags.timeout, Listen: listen}
			if of == conformance.WSAG {
				if o.Endpoint = strings.TrimSuffix(s.Endpoint, "/bes"); o.Endpoint != s.Endpoint {
					o.Endpoint += "/agreement"
				}
			}
			if of == conformance.Peer {
				if !s.chosen {
					return usagef("name the peer endpoint with --endpoint, like https://gw.example.org/peer")
				}
				o.Endpoint = strings.TrimSuffix(s.Endpoint, "/bes")
				if o.Endpoint != s.Endpoint {
					o.Endpoint += "/peer"
				}
				if err := guest.fill(&o); err != nil {
					return err
				}
			} else if s.Token != "" {
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
				return refusedf("the endpoint %s could not be reached: nothing answered", plain(o.Endpoint))
			}
			if !rep.OK() {
				return quietly(exitFailed)
			}
			return nil
		},
	}
	flags.add(cmd)
	guest.add(cmd)
	cmd.Flags().StringVar(&profile, "profile", profile, "what the endpoint is judged as: bes, peer, or wsag")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("profile", oneOf("bes", "peer", "wsag")))
	cmd.Flags().StringSliceVar(&only, "only", nil, "only the checks whose ids begin so")
	cmd.Flags().BoolVar(&list, "list", false, "list the checks and make none")
	cmd.Flags().DurationVar(&settle, "settle", 0, "how long an activity or an agreement may take to reach a state (default 1m)")
	cmd.Flags().StringVar(&programs.True, "true-program", "", "on the service's machines, a program that ends at once (default /bin/true)")
	cmd.Flags().StringVar(&programs.Sleep, "sleep-program", "", "one that takes a number of seconds (default /bin/sleep)")
	cmd.Flags().StringVar(&programs.Echo, "echo-program", "", "one that writes its arguments (default /bin/echo)")
	cmd.Flags().StringVar(&listen, "listen", "", "with --profile wsag, the host and port where decisions on pending agreements are told")
	for _, f := range []string{"only", "listen", "settle", "true-program", "sleep-program", "echo-program"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(f, cobra.NoFileCompletions))
	}
	formFlag(cmd, &form, "text", "json", "junit")
	return cmd
}
