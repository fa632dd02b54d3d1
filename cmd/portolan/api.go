package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/telemetry"
)

// maxAnswer bounds an answer of the JSON API, in bytes.
const maxAnswer = 64 << 20

// call is one request to the gateway's JSON API.
type call struct {
	method, path string
	query        url.Values
	body         []byte
	mediaType    string
	longer       time.Duration         // than a request may take otherwise
	into         any                   // what the JSON of the answer is read into
	read         func(io.Reader) error // instead of into: reads an answer of any size
}

// api asks for what is answered in JSON.
func (c *client) api(ctx context.Context, method, path string, into any) error {
	return c.ask(ctx, call{method: method, path: path, into: into})
}

// ask asks the gateway's JSON API, which stands beside its BES endpoint.
func (c *client) ask(ctx context.Context, q call) error {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return usagef("%v", err)
	}
	base, ok := strings.CutSuffix(strings.TrimSuffix(u.Path, "/"), "/bes")
	if !ok {
		return refusedf("%s is no endpoint of a Portolan gateway, whose path ends in /bes", c.Endpoint)
	}
	u.Path, u.RawQuery = base+q.path, q.query.Encode()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout+q.longer)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, q.method, u.String(), bytes.NewReader(q.body))
	if err != nil {
		return usagef("%v", err)
	}
	if q.mediaType != "" {
		req.Header.Set("Content-Type", q.mediaType)
	}
	v, _ := build()
	req.Header.Set("User-Agent", "portolan/"+v)
	var transport http.RoundTripper = http.DefaultTransport
	if c.Token != "" {
		transport = bearer{c.Token, transport}
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // a token is for no other place
	resp, err := (&http.Client{Transport: transport, CheckRedirect: stay}).Do(req)
	if err != nil {
		return c.refused(fail.Errorf("api", fail.Unavailable, "", "%s can't be reached", c.Endpoint).Because(err))
	}
	defer resp.Body.Close()
	if q.read != nil && resp.StatusCode == http.StatusOK {
		return q.read(resp.Body)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil || len(b) > maxAnswer {
		return c.refused(fail.Errorf("api", fail.Unavailable, "", "the answer of %s could not be read", c.Endpoint).Because(err))
	}
	if resp.StatusCode != http.StatusOK {
		var p console.Problem
		if json.Unmarshal(b, &p) == nil && p.Error != "" {
			return &exitError{code: exitRefused, err: errors.New(p.Error), cause: fail.Errorf("api", kindOf(p.Kind), "", "%s", p.Error)}
		}
		return refusedf("%s has no such operation (%s): only Portolan gateways have it", c.Endpoint, resp.Status)
	}
	if err := json.Unmarshal(b, q.into); err != nil {
		return refusedf("the answer of %s is not that of a Portolan gateway: %v", c.Endpoint, err)
	}
	return nil
}

// kindOf gives the kind of an error by its words.
func kindOf(words string) fail.Kind {
	for _, k := range fail.Kinds() {
		if k.String() == words {
			return k
		}
	}
	return fail.Internal
}

// shown gives the configuration's state as the API tells it.
func (k *siteKeeper) shown() *console.Configuration {
	s := k.snapshot()
	if s == nil {
		return nil
	}
	c := &console.Configuration{File: s.File, Read: s.Read, Problem: s.Problem}
	if !s.Since.IsZero() {
		c.Since = &s.Since
	}
	return c
}

// siteMetrics gives what the metrics say of sites.
func siteMetrics(all []broker.SiteStatus) []telemetry.Site {
	out := make([]telemetry.Site, len(all))
	for i, s := range all {
		out[i] = telemetry.Site{
			Name: s.Name, Up: s.Problem == "" && s.State != broker.SiteUnconfigured, Requests: s.Health.Requests,
			Budget: s.Properties.Requests, Waiting: s.Health.Waiting, Jobs: map[string]int{},
		}
		if s.Capacity != nil {
			out[i].Slots, out[i].Free = s.Capacity.Slots, s.Capacity.FreeSlots
		}
		for phase, n := range s.Jobs {
			out[i].Jobs[string(phase)] = n
		}
	}
	return out
}
