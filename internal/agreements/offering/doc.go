// Package offering is the other side of internal/agreements/terms: what somebody
// needs who makes an offer. It finds the template for a wish, fills it in by the names
// of its items, holds the offer against the template before it is sent, and tells
// limits in words.
//
// find.go, fill.go and limits.go are these steps; account.go reads what an agreement
// says of what happened and what is due for it. The package decides and does nothing
// else: the time is an argument.
package offering
