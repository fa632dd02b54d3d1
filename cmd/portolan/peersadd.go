package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/peers/discovery"
	"github.com/portolan-project/portolan/peers/status"
)

func (a *app) peersAddCmd() *cobra.Command {
	var flags clientFlags
	var domain, fingerprint string
	var yes bool
	cmd := &cobra.Command{
		Use:   "add [--domain DOMAIN] [--fingerprint SHA256:…] [--yes] URL",
		Short: "Trust another gateway, and open a session with it",
		Long: `Trust the gateway at URL for its domain, and open a session with it. It takes effect at once.

The gateway connects to URL, and what the certificate there says is shown: the domain and the
fingerprint of its key. Ask the other gateway's administrator, by another way than this network,
for the fingerprint, and compare: whoever sits in between shows a key of their own. With
--fingerprint the comparison is made for you, and nothing is asked; --yes compares nothing.

The other side trusts nobody by this: its administrator adds this gateway likewise.

--domain is for a certificate that names no domain, or several. A URL without https:// and path
gets both.`,
		Example: `  portolan peers add https://gw.fiu.example/peer
  portolan peers add --fingerprint SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU gw.fiu.example`,
		Args: needs(1, 1, "a URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at := peerURL(args[0])
			if err := discovery.CheckURL(at); err != nil {
				return usagef("%s", sentence(err))
			}
			if fingerprint != "" {
				if yes {
					return usagef("--fingerprint compares, and --yes does not: give one of them")
				}
				if err := discovery.CheckFingerprint(fingerprint); err != nil {
					return usagef("--fingerprint: %s", sentence(err))
				}
			}
			if domain != "" {
				if err := discovery.CheckDomain(domain); err != nil {
					return usagef("--domain: %s", sentence(err))
				}
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			var offer status.Offer
			if err := c.post(cmd.Context(), console.InspectPath, console.InspectPeer{URL: at}, &offer, 0); err != nil {
				return err
			}
			who, err := offered(&offer, domain)
			if err != nil {
				return err
			}
			a.showOffer(&offer, who)
			if err := a.compare(&offer, who, fingerprint, yes); err != nil {
				return err
			}
			var p status.Peer
			if err := c.post(cmd.Context(), console.PeersPath, console.AddPeer{URL: at, Domain: who, Fingerprint: offer.Fingerprint}, &p, 0); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is trusted by this key, and is a peer: %s\n", plain(p.Domain), plain(strings.TrimSuffix(string(p.State)+", "+p.Reason, ", ")))
			return nil
		},
		ValidArgsFunction: a.completeProposals(&flags),
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&domain, "domain", "", "the domain that the gateway at URL must be of")
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "the fingerprint of its key, as its administrator told it")
	cmd.Flags().BoolVar(&yes, "yes", false, "trust what is there without a comparison")
	for _, name := range []string{"domain", "fingerprint"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

// peerURL completes the URL of a peer's endpoint.
func peerURL(s string) string {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	scheme, rest, _ := strings.Cut(s, "://")
	if host, path, _ := strings.Cut(rest, "/"); path == "" && host != "" {
		return scheme + "://" + host + "/peer"
	}
	return s
}

// offered gives the domain that is to be trusted; the one that was asked for must be among
// those of the certificate, where it names some.
func offered(o *status.Offer, domain string) (string, error) {
	if o.Problem != "" {
		return "", refusedf("%s: %s", o.URL, o.Problem)
	}
	all := o.Domains
	if o.Domain != "" {
		all = append([]string{o.Domain}, all...)
	}
	switch {
	case domain == "" && o.Domain != "":
		return o.Domain, nil
	case domain == "" && len(all) > 0:
		return "", usagef("the certificate at %s names several domains, %s: choose one with --domain", o.URL, strings.Join(all, ", "))
	case domain == "":
		return "", usagef("the certificate at %s names no domain: say with --domain which one it must be", o.URL)
	case len(all) > 0 && !slices.ContainsFunc(all, func(d string) bool { return strings.EqualFold(d, domain) }):
		return "", failedf("the certificate at %s is of %s, and not of %s: nothing was changed", o.URL, strings.Join(all, ", "), domain)
	}
	return domain, nil
}

func (a *app) showOffer(o *status.Offer, domain string) {
	fmt.Fprintf(a.err, "%s shows\n  domain:      %s\n  fingerprint: %s\n", plain(o.URL), plain(domain), plain(o.Fingerprint))
	fmt.Fprintf(a.err, "  certificate: of %s, by %s, good until %s\n", plain(o.Subject), plain(o.Issuer), clock(o.NotAfter))
	if o.Trusted {
		fmt.Fprintln(a.err, "  this key is trusted for the domain already")
	}
}

// compare has the fingerprint compared; an error says that it was not, or that it differs.
func (a *app) compare(o *status.Offer, domain, fingerprint string, yes bool) error {
	switch {
	case fingerprint != "" && fingerprint == o.Fingerprint:
		return nil
	case fingerprint != "":
		return failedf("the key at %s is not the one of --fingerprint: somebody sits in between, or the key was changed. Nothing was changed here; ask the administrator of %s", o.URL, domain)
	case yes:
		a.complain("the fingerprint was compared with nothing")
		return nil
	}
	fmt.Fprintf(a.err, "Compare the fingerprint with what the administrator of %s says.\nIs it the same? (yes/no) ", plain(domain))
	line, err := bufio.NewReader(io.LimitReader(a.in, 1024)).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(a.err)
		return usagef("nobody answers: give --fingerprint, as the administrator of %s told it", domain)
	}
	if strings.EqualFold(strings.TrimSpace(line), "yes") {
		return nil
	}
	return failedf("nothing was changed")
}

// completeProposals completes the URLs of the configuration's list.
func (a *app) completeProposals(flags *clientFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 || cmd.Context() == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.dial(*flags)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c.Timeout = 2 * time.Second
		var found discovery.Found
		if c.post(cmd.Context(), console.ProposalsPath, console.Discover{}, &found, 0) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for _, p := range found.Proposals {
			out = append(out, cobra.CompletionWithDesc(plain(p.URL), plain(p.Domain)))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) peersDiscoverCmd() *cobra.Command {
	var flags clientFlags
	var form string
	var q console.Discover
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "discover [--lan] [--dns DOMAIN]… [--wait TIME] [-o table|json|name]",
		Short: "Look for gateways that could become peers",
		Long: `Look for gateways that could become peers: in the list of the gateway's configuration; with --dns
in the DNS of a domain (SRV and TXT records of ` + discovery.Service + `.DOMAIN); with --lan among those
that announce themselves on the LAN (DNS-SD over multicast). It is the gateway that looks.

What is found is a proposal, and nobody is trusted by it: anybody can answer. 'portolan peers add
URL' makes one a peer. FINGERPRINT is what the source says; compare it with what the administrator
says all the same. NOTE says which ones are peers already, and where sources do not agree. What was
found and can't be right is told on standard error.`,
		Example: `  portolan peers discover --dns fiu.example
  portolan peers discover --lan --wait 5s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait < 0 || wait > discovery.MaxWait {
				return usagef("--wait %s: give a time up to %s", wait, discovery.MaxWait)
			}
			if err := (discovery.Query{DNS: q.DNS}).Validate(); err != nil {
				return usagef("--dns: %s", sentence(err))
			}
			c, err := a.dial(flags)
			if err != nil {
				return err
			}
			q.Wait = wait.Seconds()
			var found discovery.Found
			if err := c.post(cmd.Context(), console.ProposalsPath, q, &found, wait); err != nil {
				return err
			}
			for _, r := range found.Remarks {
				a.complain(r)
			}
			switch form {
			case "json":
				return asJSON(a.out, append([]discovery.Proposal{}, found.Proposals...))
			case "name":
				for _, p := range found.Proposals {
					fmt.Fprintln(a.out, plain(p.URL))
				}
				return nil
			}
			known, err := c.peers(cmd.Context())
			if err != nil {
				known = nil // what was found is told all the same, without what is known of it
			}
			var rows [][]string
			for _, p := range found.Proposals {
				rows = append(rows, proposalRow(&p, known, time.Now()))
			}
			return table(a.out, []string{"DOMAIN", "URL", "VERSION", "FINGERPRINT", "FOUND IN", "AGE", "NOTE"}, rows)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&q.LAN, "lan", false, "browse the LAN")
	cmd.Flags().StringSliceVar(&q.DNS, "dns", nil, "ask the DNS for the gateways of a domain; may be repeated")
	cmd.Flags().DurationVar(&wait, "wait", 3*time.Second, "how long to wait for answers")
	for _, name := range []string{"dns", "wait"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	formFlag(cmd, &form, "table", "json", "name")
	return cmd
}

func proposalRow(p *discovery.Proposal, known []status.Peer, now time.Time) []string {
	var sources []string
	for _, s := range p.Sources {
		sources = append(sources, string(s))
	}
	note := p.Conflict
	for _, k := range known {
		if strings.EqualFold(k.Domain, p.Domain) {
			note = strings.TrimSuffix("a peer already; "+note, "; ")
		}
	}
	return []string{p.Domain, p.URL, p.Version, p.Fingerprint, strings.Join(sources, ", "), ago(now.Sub(p.Found)), note}
}
