package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"

	"github.com/portolan-project/portolan/bes"
)

var httpChecks = []check{
	{"HTTP-POST-1", "SOAP 1.1 §6; BES 1.0 WSDL", "the endpoint answers an ordinary request", answered(func(*probe) message { return plain() })},
	{"HTTP-GET-1", "RFC 9110 §15.5.6", "GET without ?wsdl is refused with 405 and Allow, or shows something for people", get},
	{"HTTP-PUT-1", "RFC 9110 §15.5.6, §15.6.2", "PUT is refused with 405 or 501", method(http.MethodPut)},
	{"HTTP-DEL-1", "RFC 9110 §15.5.6, §15.6.2", "DELETE is refused with 405 or 501", method(http.MethodDelete)},
	{"HTTP-CT-1", "RFC 9110 §15.5.16", "a body of text/plain is refused", media("text/plain")},
	{"HTTP-CT-2", "RFC 9110 §15.5.16", "a body of application/json is refused", media("application/json")},
	{"HTTP-CT-3", "RFC 9110 §15.5.16; WS-I BP 1.1 R4003", "a charset that does not exist is refused", media("text/xml; charset=x-no-such")},
	{
		"HTTP-CT-4", "RFC 9110 §8.3.1", "media type and charset are compared without regard to case, quotes allowed",
		answered(func(*probe) message { m := plain(); m.media = `TEXT/XML; Charset="UTF-8"`; return m }),
	},
	{"HTTP-CHK-1", "RFC 9112 §7.1; WS-I BP 1.1 R1140", "a chunked request works", chunked},
	{
		"HTTP-EXP-1", "RFC 9110 §10.1.1", "Expect: 100-continue works",
		answered(func(*probe) message {
			m := plain()
			m.header = http.Header{"Expect": {"100-continue"}}
			return m
		}),
	},
	{
		"HTTP-HDR-1", "RFC 9110 §5.1", "header names are compared without regard to case",
		answered(func(*probe) message {
			m := plain()
			m.noAction = true
			m.header = http.Header{"soapaction": {`""`}, "te": {"deflate,gzip;q=0.3"}, "accept": {"text/xml", "application/soap"}}
			return m
		}),
	},
	{"HTTP-ABS-1", "RFC 9112 §3.2.2", "an absolute URI in the request line works", absoluteURI},
	{"HTTP-KA-1", "RFC 9112 §9.3", "a connection serves more than one request", keepAlive},
	{"HTTP-PATH-1", "RFC 9110 §15.5.5", "a path that does not exist is no endpoint", noSuchPath},
}

func get(ctx context.Context, p *probe) (string, error) {
	rep, err := p.exchange(ctx, request{method: http.MethodGet})
	if err != nil {
		return "", err
	}
	switch {
	case rep.status == http.StatusMethodNotAllowed:
		if !strings.Contains(rep.header.Get("Allow"), http.MethodPost) {
			return "", fmt.Errorf("405 came with Allow %q: wanted it to name POST", rep.header.Get("Allow"))
		}
	case rep.status == http.StatusOK && rep.parse() == nil && rep.fault == nil:
		return "", errors.New("a GET got a SOAP reply, as if something had been asked")
	case rep.status >= 500:
		return "", fmt.Errorf("a GET got %s", rep)
	}
	return rep.String(), nil
}

func method(name string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.exchange(ctx, request{method: name, contentType: "text/xml; charset=utf-8", body: []byte(plain().text())})
		if err != nil {
			return "", err
		}
		if !httpRefusal(rep, notAllowed...) {
			return "", fmt.Errorf("%s got %s: wanted 405 or 501", name, rep)
		}
		return rep.String(), nil
	}
}

// media checks that a body of another kind is refused, by HTTP or by a fault.
func media(contentType string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		m := plain()
		m.media = contentType
		rep, err := p.exchange(ctx, m.request())
		if err != nil {
			return "", err
		}
		if httpRefusal(rep, http.StatusUnsupportedMediaType, http.StatusBadRequest, http.StatusNotAcceptable) {
			return rep.String(), nil
		}
		if err := rep.parse(); err != nil {
			return "", err
		}
		if rep.fault == nil {
			return "", fmt.Errorf("a body of %s was taken for a SOAP message: %s", contentType, rep)
		}
		return rep.String(), nil
	}
}

func chunked(ctx context.Context, p *probe) (string, error) {
	r := plain().request()
	body := string(r.body)
	r.body = nil
	// Readers of no known length are sent chunked; two of them make two chunks.
	r.stream = io.MultiReader(strings.NewReader(body[:len(body)/2]), strings.NewReader(body[len(body)/2:]))
	rep, err := p.exchange(ctx, r)
	if err != nil {
		return "", err
	}
	if err := rep.parse(); err != nil {
		return "", err
	}
	return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
}

// absoluteURI asks as one would a proxy, which makes the client write the whole
// URL in the request line.
func absoluteURI(ctx context.Context, p *probe) (string, error) {
	u, err := url.Parse(p.opts.Endpoint)
	if err != nil {
		return "", err
	}
	if u.Scheme != "http" {
		return "", skip("over TLS this client writes no absolute request line")
	}
	if p.own == nil {
		return "", skip("the HTTP client is the caller's own")
	}
	t := p.own.Clone()
	t.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: u.Host})
	defer t.CloseIdleConnections()
	r := plain().request()
	r.client = &http.Client{Transport: t, CheckRedirect: p.client.CheckRedirect}
	rep, err := p.exchange(ctx, r)
	if err != nil {
		return "", err
	}
	if err := rep.parse(); err != nil {
		return "", err
	}
	return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
}

func keepAlive(ctx context.Context, p *probe) (string, error) {
	if p.own == nil {
		return "", skip("the HTTP client is the caller's own")
	}
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	for range 2 {
		rep, err := p.ask(httptrace.WithClientTrace(ctx, trace), plain())
		if err != nil {
			return "", err
		}
		if rep.sentClose {
			return "", skip("the endpoint says Connection: close, as it may")
		}
		if err := rep.wantPayload(bes.NSFactory, plainResponse); err != nil {
			return "", err
		}
	}
	if !reused {
		return "", errors.New("the endpoint closed the connection after one request without saying so")
	}
	return "the second request went over the first one's connection", nil
}

func noSuchPath(ctx context.Context, p *probe) (string, error) {
	u, err := url.Parse(p.opts.Endpoint)
	if err != nil {
		return "", err
	}
	u.Path, u.RawPath, u.RawQuery = "/no-such-path-"+p.fresh("x"), "", ""
	r := plain().request()
	r.query = u.String()
	rep, err := p.exchange(ctx, r)
	if err != nil {
		return "", err
	}
	if rep.status >= 200 && rep.status < 300 {
		return "", fmt.Errorf("%s answered with %s", u.Path, rep)
	}
	return rep.String(), nil
}
