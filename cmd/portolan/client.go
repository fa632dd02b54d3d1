package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// client is a service that the user asks, and what was settled about it.
type client struct {
	settings
	app     *app
	service bes.Service
}

// dial makes a client of the flags, the environment and client.yaml. Nothing is
// sent yet.
func (a *app) dial(flags clientFlags) (*client, error) {
	s, err := a.settings(flags)
	if err != nil {
		return nil, err
	}
	return a.client(s), nil
}

func (a *app) client(s settings) *client {
	v, _ := build()
	conn := &soap.Client{URL: s.Endpoint, Addressing: true, Timeout: s.Timeout, UserAgent: "portolan/" + v}
	if s.Token != "" {
		conn.Transport = bearer{s.Token, http.DefaultTransport}
	}
	return &client{settings: s, app: a, service: bes.NewClient(conn)}
}

// bearer adds the token to what is sent to the endpoint.
type bearer struct {
	token string
	next  http.RoundTripper
}

// RoundTrip sends the request with the token (RFC 6750 §2.1).
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// controller gives what BES 1.0 leaves out, where the service has it.
func (c *client) controller() (bes.Controller, error) {
	control, ok := c.service.(bes.Controller)
	if !ok {
		return nil, refusedf("%s has no such operation: BES 1.0 leaves it out, and only Portolan gateways add it", c.Endpoint)
	}
	return control, nil
}

// refused turns what the service answered, or the lack of an answer, into a
// sentence that says what to do.
func (c *client) refused(err error) error {
	if !fail.Is(err, fail.Unavailable) || errors.Is(err, context.Canceled) {
		return refusal(err)
	}
	s := sentence(err)
	// Which step failed (the name, the connection, the certificate) is for the
	// user to know: it is their own machine that says it.
	if u, ok := errors.AsType[*url.Error](err); ok && u.Err != nil {
		s += ": " + u.Err.Error()
	}
	if !c.chosen {
		s += "\nthis is the default endpoint: start a gateway there with 'portolan serve --dev', or name another with --endpoint"
	}
	return &exitError{code: exitRefused, err: errors.New(s), cause: err}
}

// targets gives the activities that the arguments name, and a client of the
// service that has them.
func (a *app) targets(flags clientFlags, args []string) (*client, []activity, error) {
	s, err := a.settings(flags)
	if err != nil {
		return nil, nil, err
	}
	acts := make([]activity, 0, len(args))
	at := ""
	for _, arg := range args {
		act, where, err := a.resolve(arg, s.Endpoint)
		if err != nil {
			return nil, nil, err
		}
		// An endpoint on the command line is meant, whatever is remembered.
		if flags.endpoint != "" {
			where = s.Endpoint
		}
		if at != "" && where != at {
			return nil, nil, usagef("%s is at %s and the activities before it are at %s: name those of one endpoint at a time", arg, where, at)
		}
		at = where
		acts = append(acts, act)
	}
	if at != "" && at != s.Endpoint {
		// A token for one endpoint is nothing for another.
		s.Endpoint, s.Token, s.chosen = at, "", true
	}
	return a.client(s), acts, nil
}

// completeIDs completes the ids of activities that are the caller's, as far as
// the service tells them quickly.
func (a *app) completeIDs(flags *clientFlags, one bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if one && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		parent := cmd.Context()
		if parent == nil { // cobra gives a completion none
			parent = context.Background()
		}
		ctx, cancel := context.WithTimeout(parent, 2*time.Second)
		defer cancel()
		c, err := a.dial(*flags)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		acts, _, err := c.list(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		acts = acts[:min(len(acts), maxVector)]
		got, err := c.statuses(ctx, acts, 0, 0)
		var out []cobra.Completion
		for i, act := range acts {
			word := cobra.Completion(act.id)
			if err == nil && got[i].Err == nil {
				what := string(got[i].Status.State)
				if d := got[i].Status.Details; d != nil && d.Name != "" {
					what += " " + d.Name
				}
				word = cobra.CompletionWithDesc(act.id, plain(what))
			}
			out = append(out, word)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
