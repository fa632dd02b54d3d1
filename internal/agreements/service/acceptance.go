package service

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	// callTime bounds one attempt to tell a decision, mostTries the attempts, of which each comes twice as
	// long after the one before, and callersAtOnce those under way.
	callTime      = 10 * time.Second
	mostTries     = 8
	firstRetry    = 5 * time.Second
	callersAtOnce = 8
)

// allowed says which addresses may be called.
type allowed struct {
	hosts    []string // in lower case; "*.x" is any below x
	networks []netip.Prefix
	loopback bool
}

// parseAllowed reads Options.Callbacks.
func parseAllowed(list []string) (*allowed, error) {
	a := &allowed{}
	for _, s := range list {
		s = strings.ToLower(strings.TrimSpace(s))
		if s == "loopback" {
			a.loopback = true
			continue
		}
		if p, err := netip.ParsePrefix(s); err == nil {
			a.networks = append(a.networks, p.Masked())
			continue
		}
		if ip, err := netip.ParseAddr(s); err == nil {
			a.networks = append(a.networks, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		name := strings.TrimPrefix(s, "*.")
		if name == "" || strings.ContainsAny(name, "*/:@ \t") || len(name) > 253 {
			return nil, fail.Errorf("service.Callbacks", fail.Invalid, s, "%q is nothing that decisions could be told to: write a host's name, *.DOMAIN, a network like 10.0.0.0/8, or loopback", s)
		}
		a.hosts = append(a.hosts, s)
	}
	return a, nil
}

// CheckCallbacks reports what is wrong with Options.Callbacks.
func CheckCallbacks(list []string) error {
	_, err := parseAllowed(list)
	return err
}

// named reports whether a host may be called by its name, whatever its address.
func (a *allowed) named(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return slices.ContainsFunc(a.hosts, func(h string) bool {
		if domain, ok := strings.CutPrefix(h, "*"); ok {
			return strings.HasSuffix(host, domain)
		}
		return h == host
	})
}

// reached reports whether an address may be connected to.
func (a *allowed) reached(ip netip.Addr) bool {
	ip = ip.Unmap()
	return a.loopback && ip.IsLoopback() || slices.ContainsFunc(a.networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// callers tell decisions to those who offered.
type callers struct {
	users, guests caller
	work          *queue
}

// caller tells decisions to some of them.
type caller struct {
	allowed   *allowed
	transport http.RoundTripper
	own       *http.Transport // nil where the transport was given
}

func newCallers(list []string, given http.RoundTripper) (*callers, error) {
	a, err := parseAllowed(list)
	if err != nil {
		return nil, err
	}
	// What listens at the gateway's own machine is no peer's business.
	g := *a
	g.loopback = false
	if given != nil {
		return &callers{users: caller{allowed: a, transport: given}, guests: caller{allowed: &g, transport: given}}, nil
	}
	return &callers{users: newCaller(a), guests: newCaller(&g)}, nil
}

// of gives what tells those of a domain, "" is our own.
func (c *callers) of(domain string) *caller {
	if domain != "" {
		return &c.guests
	}
	return &c.users
}

func (c *callers) close() {
	c.users.close()
	c.guests.close()
}

func newCaller(a *allowed) caller {
	c := caller{allowed: a}
	// A name that may be called may have any address; any other host is held against the address
	// that it really has, when it is connected to, so that no name leads elsewhere.
	free := &net.Dialer{Timeout: callTime}
	bound := &net.Dialer{Timeout: callTime, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !a.reached(ap.Addr()) {
			return fail.Errorf("service.call", fail.Denied, address, "decisions may not be told to %s", address)
		}
		return nil
	}}
	c.own = &http.Transport{
		MaxIdleConns: callersAtOnce, IdleConnTimeout: callTime, TLSHandshakeTimeout: callTime, ResponseHeaderTimeout: callTime,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err == nil && a.named(host) {
				return free.DialContext(ctx, network, address)
			}
			return bound.DialContext(ctx, network, address)
		},
	}
	c.transport = c.own
	return c
}

func (c *caller) close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// allows says why decisions can't be told to an address; nil if they can.
func (c *caller) allows(address string) error {
	const op = "service.AgreementAcceptanceEPR"
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil:
		return fail.Errorf(op, fail.Invalid, "AgreementAcceptanceEPR", "the AgreementAcceptanceEPR has the address %.200q; decisions are told to http and https addresses only: give one, or leave the EPR out and ask for the agreement's state", address)
	case c.allowed.named(u.Hostname()):
		return nil
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && c.allowed.reached(ip) {
		return nil
	}
	if c.allowed.loopback && strings.EqualFold(u.Hostname(), "localhost") {
		return nil
	}
	return fail.Errorf(op, fail.Denied, "AgreementAcceptanceEPR", "this gateway does not tell decisions to %.200s: leave the AgreementAcceptanceEPR out and ask for the agreement's state, or have the administrator allow the host under agreements.callbacks", u.Host)
}

// decided gives how an agreement was decided; known is false while it is not.
func decided(r *engine.Record) (accepted, known bool) {
	switch {
	case wasAccepted(r):
		return true, true
	case r.State == agreement.Rejected:
		return false, true
	}
	return false, false
}

// untold reports whether who offered an agreement is to be told of its decision, and was not yet.
func untold(r *engine.Record) bool {
	if _, known := decided(r); !known || r.Plan == nil {
		return false
	}
	n, err := noteOf(r)
	d, derr := detailOf(r)
	return err == nil && derr == nil && d.Acceptance != "" && !n.Told
}

// tellDecision tells who offered an agreement how it was decided, and gives when to try again.
func (s *Service) tellDecision(ctx context.Context, id string) time.Time {
	r, err := s.e.Get(ctx, id)
	if err != nil {
		if passing(err) {
			return s.now().Add(firstRetry)
		}
		return time.Time{}
	}
	if !untold(&r) {
		return time.Time{}
	}
	if !s.e.Responsible(id) {
		return s.now().Add(aside) // whoever is may go before it is told
	}
	n, err := noteOf(&r)
	if err != nil {
		return time.Time{}
	}
	d, err := detailOf(&r)
	if err != nil {
		return time.Time{}
	}
	if s.now().Before(n.Again) { // as it was before a start, too
		return n.Again
	}
	accepted, _ := decided(&r)
	failed := s.call(ctx, &r, s.callers.of(d.Domain), d.Acceptance, accepted)
	if ctx.Err() != nil {
		return time.Time{}
	}
	tries := n.Tries + 1
	again := s.now().Add(firstRetry << (tries - 1))
	_, err = s.e.Update(ctx, id, func(r *engine.Record) error {
		n, err := noteOf(r)
		if err != nil {
			return err
		}
		n.Tries, n.Again = tries, again
		switch {
		case failed == nil:
			n.Told, n.Again = true, time.Time{}
			r.Tell(s.now(), "told", "who offered it was told of the decision")
		case tries >= mostTries || !passing(failed):
			n.Told, n.Again = true, time.Time{}
			r.Tell(s.now(), "not told", "who offered it could not be told of the decision: "+fail.Sentence(failed))
		}
		return n.encode(r)
	})
	if err != nil {
		s.o.Log.Warn("that a decision was told is not written down; it may be told again", "agreement", id, "cause", err)
	}
	if failed == nil || tries >= mostTries || !passing(failed) {
		return time.Time{}
	}
	return again
}

// call tells a decision once.
func (s *Service) call(ctx context.Context, r *engine.Record, by *caller, to string, accepted bool) error {
	doc, err := xmldoc.ReadBytes([]byte(to), xmldoc.Limits{})
	if err != nil {
		return fail.E("service.call", fail.Invalid, r.ID, err)
	}
	epr, err := soap.DecodeEPR(doc.Root())
	if err != nil {
		return fail.E("service.call", fail.Invalid, r.ID, err)
	}
	if err := by.allows(epr.Address); err != nil {
		return err // what is allowed may have changed
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c := agreement.NewAcceptance(&soap.Client{URL: epr.Address, Addressing: true, Transport: refuseRedirects{by.transport}, Timeout: callTime, Retries: -1}, epr)
	if accepted {
		err = c.Accept(ctx)
	} else {
		why := etree.NewElement("p:Reason")
		why.CreateAttr("xmlns:p", agreement.NSPortolan)
		why.SetText(r.Reason)
		err = c.Reject(ctx, []*etree.Element{why})
	}
	if err != nil && !passing(err) {
		return fail.Errorf("service.call", fail.Unavailable, r.ID, "%s answered: %s", epr.Address, fail.Sentence(err)).Because(err)
	}
	return err
}

// refuseRedirects lets no answer lead to another address.
type refuseRedirects struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t refuseRedirects) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil && resp.StatusCode >= 300 && resp.StatusCode < 400 {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s answered with a redirection, which is not followed", r.URL.Host)
	}
	return resp, err
}
