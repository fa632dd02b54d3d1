// Package wssec signs SOAP envelopes and verifies what is signed: WS-Security 1.1 with the X.509
// token profile, of which it speaks one narrow form.
//
//   - names.go: namespaces and the algorithms that are allowed
//   - sign.go: Signer puts a wsse:Security header into an envelope
//   - verify.go: Verify gives what of an envelope is signed, by which certificate
//   - parse.go: the header, read strictly
//   - goxmldsig.go: goxmldsig makes the signature value, with our canonical form and ECDSA as
//     XML wants it
//
// # What holds
//
// What is verified is what is used. The verifier works on the very tree that is dispatched and gives the
// elements that are covered as pointers into it; a caller asks Covers of what it heeds. A
// reference leads to an element by its place (the Body of the envelope, a block of its Header, the
// timestamp of the Security header) that must have the reference's id; ids are unique in the whole
// document. So nothing can be moved to where it is not looked at, or be put in the place of what was
// signed.
//
// One wsse:Security header without actor, or with the one of next; in it one BinarySecurityToken, one
// Timestamp, one Signature, and nothing else. Canonical form is exclusive without comments;
// signatures are ECDSA on P-256 or RSA of 2048 bits or more, both with SHA-256. All that is counted is
// bounded, and no signature is looked at before all of its form is right.
//
// Whether the certificate is trusted, and for whom, is not decided here: see internal/identity. Replay is
// left to the caller too; the timestamp bounds for how long it must remember.
package wssec
