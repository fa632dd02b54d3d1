package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	peerid "github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// startPeerEndpoint serves /peer of the domain host.example over mutual TLS, with messages
// that must be signed, by the table of sessions and the trust that gateways have, for a handler that
// knows of no jobs and answers a Query only. The files of guest.example and third.example,
// and the CA host-ca.pem, are put into $WORK; PEER says where it is, PIN the key's fingerprint.
func startPeerEndpoint(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: peerendpoint")
	}
	var anchors []peerid.Anchor
	open := func(domain string) *peerid.Identity {
		dir := ts.MkAbs(domain)
		ts.Check(os.MkdirAll(dir, 0o700))
		id, err := peerid.Open(peerid.Options{Domain: domain, Dir: dir})
		ts.Check(err)
		anchors = append(anchors, peerid.Anchor{Domain: domain, Pins: []peerid.Pin{id.Current().Pin()}})
		return id
	}
	host := open("host.example")
	open("guest.example")
	open("third.example")
	trust, err := peerid.NewTrust(anchors...)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("host-ca.pem"), peerid.EncodeCertificates(host.CA()), 0o600))
	ts.Setenv("PIN", host.Current().Pin().String())

	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
	at := "https://" + l.Addr().String() + "/peer"
	ts.Setenv("PEER", at)
	by := &peerid.Gateway{Identity: host, Trusted: trust, Endpoint: at}
	h := &quiet{}
	table, err := peers.New(peers.Options{Domain: "host.example", Endpoint: at, Trust: by, Handler: h})
	ts.Check(err)
	h.table = table
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- table.Run(ctx) }()
	for _, d := range []string{"guest.example", "third.example"} {
		ts.Check(table.Add(peers.Peer{Domain: d, Consumes: true}))
	}
	server := peers.NewServer(peers.ServerOptions{Trust: by})
	server.Serve(table)
	srv := &http.Server{Handler: soap.NewRouter(map[string]http.Handler{"/peer": server}), TLSConfig: host.ServerTLS(trust)} //nolint:gosec // of a test
	go func() { _ = srv.Serve(tls.NewListener(l, srv.TLSConfig)) }()
	ts.Defer(func() {
		stop()
		<-done
		_ = srv.Close()
	})
}

// quiet takes nothing.
type quiet struct{ table *peers.Table }

func (*quiet) Opened(string, session.Agreement)        {}
func (*quiet) Turned(string, session.Turn)             {}
func (*quiet) Draining(string, string)                 {}
func (*quiet) Closed(string, wire.CloseReason, string) {}
func (*quiet) Free(string)                             {}
func (q *quiet) Deliver(domain string, items []wire.Message, done func()) {
	for _, m := range items {
		if m, ok := m.(*wire.Query); ok {
			_ = q.table.Put(domain, &wire.Report{About: m.About, Status: wire.IsReturned, Reason: "no such copy is here"})
		}
	}
	done()
}
