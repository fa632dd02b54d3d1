package wire

// Bounds of the favour ledger.
const (
	MaxStatements = 200  // in one Statements
	MaxVerdicts   = 500  // in one Verdicts
	MaxProbes     = 16   // in one Probe
	MaxStatement  = 4096 // bytes of a statement in its canonical form
	MaxSignature  = 1024 // bytes
	MaxBooked     = 1<<62 - 1
)

// FeatureLedger is the feature by which the messages of this file are agreed on.
const FeatureLedger = "ledger"

// Pair names an account of the favour ledger: what Provider did for Consumer.
type Pair struct{ Provider, Consumer string }

func (p *Pair) pair(v *visit) {
	str(v, "provider", &p.Provider, 1, MaxDomain, domain, "of the account: the domain that ran jobs")
	str(v, "consumer", &p.Consumer, 1, MaxDomain, domain, "of the account: the domain for which it did")
	v.check(p.Provider != p.Consumer || p.Provider == "", "@consumer", "must be another domain than provider")
}

// Account tells how far an account goes at the sender: the head of its book.
type Account struct {
	Pair
	Number uint64
	Digest []byte
	Sum    int64 // CPU time in milliseconds
	Heard  uint64
}

func (m *Account) visit(v *visit) {
	m.pair(v)
	num(v, "number", &m.Number, 0, MaxBooked, "of the last statement that the sender has; absent: it has none")
	num(v, "sum", &m.Sum, 0, MaxBooked, "CPU time in milliseconds of all claims up to that one that were not withdrawn")
	num(v, "heard", &m.Heard, 0, MaxBooked, "of a provider: the sender knows the verdicts on all statements up to this one")
	data(v, "Digest", &m.Digest, 0, 32, "SHA-256 of the canonical form of the last statement; absent: there is none")
	v.check((m.Number == 0) == (len(m.Digest) == 0) && (len(m.Digest) == 0 || len(m.Digest) == 32), "Digest", "must have 32 bytes where number is above 0, and only there")
}

// Verdict is what a consumer says to a statement.
type Verdict string

// The verdicts.
const (
	VerdictUnheard   Verdict = "unheard"
	VerdictAgreed    Verdict = "agreed"
	VerdictContested Verdict = "contested"
	VerdictWithdrawn Verdict = "withdrawn"
)

// Statement is one statement of a provider, with what was said to it.
type Statement struct {
	Verdict   Verdict
	Reason    string
	Canonical []byte
	Signature []byte
	Answer    []byte
}

func statementFields(v *visit, s *Statement) {
	enum(v, "verdict", &s.Verdict, false, "what the consumer said to it; only where a consumer gives a provider back what that lost", VerdictUnheard, VerdictAgreed, VerdictContested, VerdictWithdrawn)
	str(v, "reason", &s.Reason, 0, MaxReason, line, "of contested")
	data(v, "Canonical", &s.Canonical, 1, MaxStatement, "the statement in its canonical form: that is what is signed")
	data(v, "Signature", &s.Signature, 1, MaxSignature, "the provider's over that")
	data(v, "Countersignature", &s.Answer, 0, MaxSignature, "the consumer's over its verdict, where there is one")
}

// Statements are those that follow the account's head at the receiver, in order.
type Statements struct {
	Pair
	More bool
	List []Statement
}

func (m *Statements) visit(v *visit) {
	m.pair(v)
	yes(v, "more", &m.More, "further ones follow these: the receiver asks for them by its Account")
	list(v, "Statement", &m.List, 1, MaxStatements, statementFields, "one statement")
}

// Said is what a consumer says to one statement.
type Said struct {
	Number    uint64
	Verdict   Verdict
	Reason    string
	Digest    []byte
	Signature []byte
}

func saidFields(v *visit, s *Said) {
	num(v, "number", &s.Number, 1, MaxBooked, "of the statement")
	enum(v, "verdict", &s.Verdict, true, "agreed: it is owed; contested: it counts for nobody; withdrawn: the provider took it back", VerdictAgreed, VerdictContested, VerdictWithdrawn)
	str(v, "reason", &s.Reason, 0, MaxReason, line, "of contested: why, for a person")
	data(v, "Digest", &s.Digest, 32, 32, "SHA-256 of the statement's canonical form")
	data(v, "Signature", &s.Signature, 0, MaxSignature, "the consumer's over its verdict; absent: it was made before it could sign")
	v.check(s.Verdict != VerdictContested || s.Reason != "", "@reason", "must be there with contested")
}

// Verdicts are what the consumer says to statements.
type Verdicts struct {
	Pair
	List []Said
}

func (m *Verdicts) visit(v *visit) {
	m.pair(v)
	list(v, "Said", &m.List, 1, MaxVerdicts, saidFields, "one verdict")
}

// ProbeDigest is that of one statement, at the sender.
type ProbeDigest struct {
	Number uint64
	Digest []byte
}

func probeFields(v *visit, p *ProbeDigest) {
	num(v, "number", &p.Number, 1, MaxBooked, "of the statement")
	data(v, "Digest", &p.Digest, 32, 32, "SHA-256 of its canonical form at the sender")
}

// Probe narrows down where two accounts begin to differ.
type Probe struct {
	Pair
	Same    uint64
	Differs uint64
	List    []ProbeDigest
}

func (m *Probe) visit(v *visit) {
	m.pair(v)
	num(v, "same", &m.Same, 0, MaxBooked, "both have the same up to this statement")
	num(v, "differs", &m.Differs, 1, MaxBooked, "they have another one of this number; where it follows same, it is the first")
	list(v, "At", &m.List, 0, MaxProbes, probeFields, "a statement between the two")
	v.check(m.Same < m.Differs, "@same", "must be below differs")
	for _, p := range m.List {
		v.check(p.Number > m.Same && p.Number <= m.Differs, "At", "must be of a statement above same and up to differs")
	}
}
