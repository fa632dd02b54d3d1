// Package ledger is the favour ledger: who ran how much for whom, in statements that the
// two domains concerned both hold and can audit.
//
//   - statement.go: a Statement, its canonical bytes (which others sign) and its digest
//   - account.go: what one domain did for another, as either of the two has it
//   - book.go: all accounts of one domain; charges in, statements out, balances
//   - reconcile.go: how two books become alike again after a cut, and what tells that
//     they can't
//
// A provider claims in numbered statements, each with the digest of the one before, so
// that none can be changed, left out or put in later. A consumer holds each against what
// it noted itself when it heeded the end of the copy (handover.Charge): it agrees, or
// contests with a reason. Contested statements count for nobody; the provider withdraws
// them by a further statement. Both sides reckon by the same rule, so that equal heads
// and verdicts are equal balances.
//
// Everything is pure: what a book is told is to be written in the transaction that the
// handover's record is, and a Book is not safe for several goroutines at once.
package ledger
