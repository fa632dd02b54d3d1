package status

import (
	"time"

	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
)

// Balance is how a domain stands with a peer, in milliseconds of CPU time.
type Balance struct {
	Did       int64 `json:"didMs"`       // we ran for the peer, agreed on both sides
	Got       int64 `json:"gotMs"`       // the peer ran for us, likewise
	Unheard   int64 `json:"unheardMs"`   // we ran, and the peer said nothing to it yet
	Unclaimed int64 `json:"unclaimedMs"` // the peer ran, and did not claim yet
	Contested int64 `json:"contestedMs"` // in both directions; counts for nobody
	Surplus   int64 `json:"surplusMs"`   // got and unclaimed, less did and unheard: above zero we owe
}

// BalanceOf gives that of a ledger.
func BalanceOf(b ledger.Balance) Balance {
	return Balance{int64(b.Did), int64(b.Got), int64(b.Unheard), int64(b.Unclaimed), int64(b.Contested), int64(b.Surplus())}
}

// Bounds of the statements that are shown of one account.
const (
	UsualStatements = 100
	MaxStatements   = 1000
)

// Ledger is the favour ledger of two domains, as this one has it.
type Ledger struct {
	Domain   string    `json:"domain"` // the peer
	Balance  Balance   `json:"balance"`
	Accounts []Account `json:"accounts"`
}

// Account is what one domain did for the other.
type Account struct {
	Provider string `json:"provider"`
	Consumer string `json:"consumer"`
	Number   uint64 `json:"number"` // of the last statement; 0 where there is none
	Digest   string `json:"digest"` // of it, in hexadecimal, zeros where there is none: both sides with the same have the same account
	Sum      int64  `json:"sumMs"`
	// Problem is why the two books can't become alike, and what to do; "" while they can.
	Problem    string      `json:"problem,omitempty"`
	Statements []Statement `json:"statements"` // the newest last
	// Before says that there were earlier statements than those here.
	Before bool `json:"before,omitempty"`
}

// Statement is one claim, with what was said to it. Its fields give the canonical bytes
// that Signature is over: see docs/peer-protocol.md.
type Statement struct {
	Number    uint64           `json:"number"`
	Previous  string           `json:"previous"`
	Digest    string           `json:"digest"`
	Origin    string           `json:"origin"`
	Job       string           `json:"job"`
	Token     string           `json:"token"`
	Outcome   handover.Outcome `json:"outcome,omitempty"`
	Used      int64            `json:"usedMs"`
	Withdraws uint64           `json:"withdraws,omitempty"`
	Sum       int64            `json:"sumMs"`
	Issued    time.Time        `json:"issued"`
	Verdict   ledger.Verdict   `json:"verdict"`
	Reason    string           `json:"reason,omitempty"`
	Signature []byte           `json:"signature,omitempty"` // the provider's
	Answer    []byte           `json:"answer,omitempty"`    // the consumer's, to what it said
}

// LedgerOf gives the ledger with a peer out of a book: at most so many of the newest
// statements of each account, UsualStatements for 0.
func LedgerOf(b *ledger.Book, domain, peer string, most int) Ledger {
	if most <= 0 {
		most = UsualStatements
	}
	most = min(most, MaxStatements)
	out := Ledger{Domain: peer, Balance: BalanceOf(b.Balance(peer)), Accounts: []Account{}}
	for _, p := range []ledger.Pair{{Provider: domain, Consumer: peer}, {Provider: peer, Consumer: domain}} {
		h := b.Head(p)
		a := Account{Provider: p.Provider, Consumer: p.Consumer, Number: h.Number, Digest: h.Digest.String(), Sum: int64(h.Sum), Statements: []Statement{}}
		entries := b.Entries(p)
		for _, e := range entries[max(0, len(entries)-most):] {
			a.Statements = append(a.Statements, statementOf(e))
		}
		a.Before = uint64(len(a.Statements)) < h.Number
		out.Accounts = append(out.Accounts, a)
	}
	return out
}

func statementOf(e ledger.Entry) Statement {
	s := e.Statement
	return Statement{
		Number: s.Number, Previous: s.Previous.String(), Digest: s.Digest().String(), Origin: s.Key.Origin, Job: s.Key.ID, Token: string(s.Token),
		Outcome: s.Outcome, Used: int64(s.Used), Withdraws: s.Withdraws, Sum: int64(s.Sum), Issued: s.Issued, Verdict: e.Verdict, Reason: e.Reason,
		Signature: e.Signature, Answer: e.Answer,
	}
}
