// Package ledger has what agreements cost: entries of usage, prices, penalties and
// rewards, the balances of VOs, and the budgets that they can't exceed.
//
// entry.go has an entry; ledger.go the book of them; budget.go limits and what is
// committed against them; usage.go a job's usage as OGF usage records.
//
// Amounts are exact decimals: a balance is the sum of its entries, to the last digit.
// The package decides and does nothing else: the time is an argument, keeping and
// locking are others' affair.
package ledger
