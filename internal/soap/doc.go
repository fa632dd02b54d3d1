// Package soap is SOAP 1.1 and 1.2 over HTTP with WS-Addressing 1.0: envelopes,
// faults, dispatch by the body's element, for servers and clients.
//
// A message is parsed once (Parsed), then verified (Verified, which carries the
// principal); handlers take only the latter. The server answers in the version
// it was asked in, and never dispatches on an action: real clients send wrong,
// empty and stale ones. One Endpoint serves any number of operations.
//
// The order of work on a message is in exchange.serve: media type, size and XML,
// the envelope's structure, mustUnderstand, addressing, the Body, the sender, the
// operation, where the answer goes. Nothing has an effect before all of it holds,
// and every refusal is a *Fault.
//
// A Client tells apart what a caller must know: the server's *Fault, a server
// that was not reached (fail.Unavailable), and an answer that was lost although
// the request may have been carried out (fail.Uncertain).
package soap
