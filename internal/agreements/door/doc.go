// Package door is how gateways make agreements with each other: who may come in at the endpoint
// that peers reach, as whom and to what (Handler, View, Admit), and how those of peers are
// reached (Dial).
//
// Both sides show their certificates, by the same trust as in sessions. Who comes is the domain, whose
// owner's name is identity.DomainOwner, or the user that an assertion of the domain tells of, in
// a header block:
//
//	<p:OnBehalf vo="bio">ASSERTION</p:OnBehalf>
//
// as whom the rules of the mapping say. A domain may have capacity, and only its users jobs, as
// jobs run as somebody.
package door
