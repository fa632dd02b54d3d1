package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

func (a *app) agreementCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agreement",
		Short: "Make agreements, whose promises are kept, and see what became of them",
		Long: `Make agreements (WS-Agreement 1.0): a job with a promise, or capacity for a time. The
service publishes templates; an offer is one of them filled in. The service accepts it, and
keeps the room before it says so, or refuses it and says what to change.

The service is the one beside the BES endpoint of the settings: for .../bes it is
.../agreement. An endpoint with another path is taken as it is.

For one job, 'portolan submit --finish-by FRIDAY' does all of it.`,
		Example: `  portolan agreement templates
  portolan agreement offer --template finish-by --set finishBy=FRIDAY --job job.jsdl
  portolan agreement show`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, c := range []*cobra.Command{a.agreementTemplatesCmd(), a.agreementOfferCmd(), a.agreementShowCmd(), a.agreementWatchCmd(), a.agreementTerminateCmd(), a.agreementTogetherCmd()} {
		c.DisableFlagsInUseLine = true
		cmd.AddCommand(c)
	}
	return cmd
}

// agreementClient is an agreement service that the user asks.
type agreementClient struct {
	*client
	url     string
	service interface {
		agreement.Service
		agreement.Lister
		agreement.Coordinator
	}
}

// dialAgreements makes a client of the agreement service by the flags, the environment
// and client.yaml. Nothing is sent yet.
func (a *app) dialAgreements(flags clientFlags) (*agreementClient, error) {
	c, err := a.dial(flags)
	if err != nil {
		return nil, err
	}
	return c.agreements()
}

// agreements gives the agreement service beside a BES service.
func (c *client) agreements() (*agreementClient, error) {
	at, err := agreementURL(c.Endpoint)
	if err != nil {
		return nil, err
	}
	connect := func(address, token string) *soap.Client {
		v, _ := build()
		conn := &soap.Client{URL: address, Addressing: true, Timeout: c.Timeout, UserAgent: "portolan/" + v}
		if token != "" {
			conn.Transport = bearer{token, http.DefaultTransport}
		}
		return conn
	}
	service := agreement.NewClient(connect(at, c.Token))
	service.At = func(address string) (*soap.Client, error) {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fail.Errorf("agreement", fail.Invalid, "", "the agreement is at %q, which is no URL", address)
		}
		token := ""
		if own, err := url.Parse(at); err == nil && own.Scheme == u.Scheme && own.Host == u.Host {
			token = c.Token // a token is for no other place
		}
		return connect(address, token), nil
	}
	return &agreementClient{client: c, url: at, service: service}, nil
}

// agreementURL gives the agreement service that belongs to an endpoint.
func agreementURL(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", usagef("%v", err)
	}
	if base, ok := strings.CutSuffix(strings.TrimSuffix(u.Path, "/"), "/bes"); ok {
		u.Path = base + "/agreement"
	}
	return u.String(), nil
}

// refused turns what the service answered into sentences that say what to change.
func (s *agreementClient) refused(err error) error {
	r, ok := errors.AsType[*agreement.Refusal](err)
	if !ok {
		return s.client.refused(err)
	}
	said := strings.Join(r.Sentences, "\n")
	if said == "" {
		said = sentence(err)
	}
	if !r.Earliest.IsZero() {
		said += "\nthe earliest that can be kept: " + clock(r.Earliest)
	}
	return &exitError{code: exitRefused, err: errors.New(said), cause: err}
}

// agreementsFolder remembers the references of agreements of other makes.
const agreementsFolder = "agreements"

// named gives the id of an agreement that the user sees: its key, or for the reference
// of another make a short name under which that is remembered.
func (s *agreementClient) named(key string) string {
	if fitsPath(key) {
		return key
	}
	id, err := s.app.remember(agreementsFolder, remembered{Endpoint: s.Endpoint, Reference: key})
	if err != nil {
		s.app.complain("the reference of the agreement cannot be remembered: " + err.Error())
	}
	return id
}

// agreementOf gives the service and the key of an agreement by its id.
func (a *app) agreementOf(flags clientFlags, id string) (*agreementClient, string, error) {
	if !fitsPath(id) {
		return nil, "", usagef("%q is no agreement: 'portolan agreement show' lists those that are yours", id)
	}
	c, err := a.dial(flags)
	if err != nil {
		return nil, "", err
	}
	m, ok, err := a.recall(agreementsFolder, id)
	if err != nil {
		return nil, "", err
	}
	key := id
	switch {
	case ok:
		key = m.Reference
		if flags.endpoint == "" && m.Endpoint != c.Endpoint {
			c.Endpoint, c.Token, c.chosen = m.Endpoint, "", true // a token is for no other place
		}
	case strings.HasPrefix(id, "epr-"):
		return nil, "", usagef("the agreement %s is not remembered here (in %s)", id, filepath.Join("~/.local/state/portolan", agreementsFolder))
	}
	s, err := c.agreements()
	return s, key, err
}

// quickly bounds what completions ask for.
func quickly(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	parent := cmd.Context()
	if parent == nil { // cobra gives a completion none
		parent = context.Background()
	}
	return context.WithTimeout(parent, 2*time.Second)
}

// completeAgreements completes the ids of the caller's agreements.
func (a *app) completeAgreements(flags *clientFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := quickly(cmd)
		defer cancel()
		s, err := a.dialAgreements(*flags)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		keys, err := s.service.List(ctx, "", 50)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for _, k := range keys {
			word := cobra.Completion(s.named(k))
			if p, err := s.service.Agreement(ctx, k); err == nil {
				word = cobra.CompletionWithDesc(word, plain(strings.TrimSpace(string(p.State)+" "+p.Name)))
			}
			out = append(out, word)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeTemplates completes the names of templates.
func (a *app) completeTemplates(flags *clientFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && cmd.Name() == "templates" {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := quickly(cmd)
		defer cancel()
		s, err := a.dialAgreements(*flags)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := s.service.Templates(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for i := range list {
			out = append(out, cobra.CompletionWithDesc(plain(list[i].Name), plain(templateKind(&list[i]))))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
