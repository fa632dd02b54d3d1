// Package soap is SOAP 1.1 and 1.2 over HTTP with WS-Addressing 1.0: envelopes,
// faults, dispatch by the body's element, for servers and clients.
//
// A message is parsed once (Parsed), then verified (Verified, which carries the
// principal); handlers take only the latter. The server answers in the version
// it was asked in, and never dispatches on an action: real clients send wrong,
// empty and stale ones. One Endpoint serves any number of operations.
package soap
