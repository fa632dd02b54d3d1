package ledger

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/portolan-project/portolan/internal/decimal"
)

// MaxPage bounds the agreements that are looked at for one Page, UsualPage is how many are where
// nothing is said.
const (
	MaxPage   = 1000
	UsualPage = 200
)

// Query asks for what was settled.
type Query struct {
	VO string // of this VO only; "" is all
	// From and Until bound when agreements ended: From is in, Until is not; zero is no bound.
	From, Until time.Time
	Before      string // the Next of the page before; "" begins with the newest
	Most        int    // agreements that are looked at, 1 to MaxPage
}

// Check gives fail.Invalid for what can't be asked.
func (q *Query) Check() error {
	switch {
	case q.Most < 1 || q.Most > MaxPage:
		return invalid("Usage", "most", "%d agreements can't be looked at at once; ask for 1 to %d, and go on with what the answer calls next", q.Most, MaxPage)
	case !q.From.IsZero() && !q.Until.IsZero() && !q.Until.After(q.From):
		return invalid("Usage", "until", "until is %s, which is not after from, %s", q.Until.UTC().Format(time.RFC3339), q.From.UTC().Format(time.RFC3339))
	}
	return nil
}

// Page is what was settled, the newest agreements first.
type Page struct {
	Agreements []Settled `json:"agreements"`
	// Next is the Before of what follows; without it, nothing does.
	Next string `json:"next,omitempty"`
}

// Settled is an agreement that has ended, and whose account is closed.
type Settled struct {
	Agreement string          `json:"agreement"`
	Name      string          `json:"name,omitempty"`
	VO        string          `json:"vo,omitempty"` // "" is its user's own
	User      string          `json:"user"`
	Status    string          `json:"status"` // one of Statuses
	Ended     time.Time       `json:"ended"`
	Jobs      []SettledJob    `json:"jobs"`
	Amounts   []SettledAmount `json:"amounts"`
}

// SettledJob is what a job of an agreement used.
type SettledJob struct {
	Job    string        `json:"job"`
	Status string        `json:"status"` // one of Statuses
	Site   string        `json:"site,omitempty"`
	Share  string        `json:"share,omitempty"`
	CPUs   int64         `json:"cpus,omitempty"` // that were kept for it
	Begun  time.Time     `json:"begun,omitzero"`
	Ended  time.Time     `json:"ended,omitzero"`
	Wall   time.Duration `json:"wall,omitempty"` // that it ran
}

// SettledAmount is an entry of an agreement in the ledger.
type SettledAmount struct {
	Kind   Kind   `json:"kind"`
	Unit   string `json:"unit"`
	Amount string `json:"amount"`        // a decimal: above zero is used or owed by the VO, below zero is for it
	Job    string `json:"job,omitempty"` // "" is the agreement as a whole
}

// amount gives the amount of an entry; one that is no decimal is fail.Invalid.
func (x *SettledAmount) amount() (decimal.Decimal, error) {
	d, err := decimal.Parse(x.Amount)
	if err != nil {
		return d, invalid("Usage", x.Job, "%.60q is no amount", x.Amount)
	}
	return d, nil
}

// Account gives who the ledger has an agreement's entries of: the VO, or else the user.
func (s *Settled) Account() string { return cmp.Or(s.VO, "user:"+s.User) }

// Records makes the usage records of an agreement: one for each job, or one for all of it where it
// had none. What is due for no job in particular is in the first. Errors are those of amounts that
// are none, or have no sum.
func (s *Settled) Records() ([]JobUsage, error) {
	base := JobUsage{
		RecordID: s.Agreement, Created: s.Ended, GlobalUser: s.User, JobName: s.Name, Project: s.VO, Agreement: s.Agreement, Status: s.Status,
	}
	jobs := s.Jobs
	if len(jobs) == 0 {
		jobs = []SettledJob{{Status: s.Status, Ended: s.Ended}}
	}
	known := map[string]bool{}
	for _, j := range jobs {
		known[j.Job] = true
	}
	var out []JobUsage
	for i, j := range jobs {
		u := base
		u.GlobalJobID, u.Status, u.MachineName, u.Queue, u.Wall, u.End = j.Job, j.Status, j.Site, j.Share, j.Wall, j.Ended
		if len(s.Jobs) > 0 {
			u.RecordID += "/" + strconv.Itoa(i)
		}
		if !j.Begun.IsZero() && !j.Begun.After(j.Ended) { // their sources may have clocks of their own
			u.Start = j.Begun
		}
		if j.CPUs > 0 && j.CPUs <= 1<<31-1 {
			u.Processors = int(j.CPUs)
		}
		sums := map[string]decimal.Decimal{}
		for k := range s.Amounts {
			x := &s.Amounts[k]
			if x.Kind == Usage || x.Job != j.Job && (i > 0 || known[x.Job]) {
				continue
			}
			d, err := x.amount()
			if err != nil {
				return nil, err
			}
			sum, ok := sums[x.Unit].Add(d)
			if !ok {
				return nil, invalid("Usage", s.Agreement, "the charges of the agreement %s in %s are more than can be told", s.Agreement, x.Unit)
			}
			sums[x.Unit] = sum
		}
		for _, unit := range slices.Sorted(maps.Keys(sums)) {
			u.Charges = append(u.Charges, Charge{Amount: sums[unit], Unit: unit})
		}
		out = append(out, u)
	}
	return out, nil
}

// Sum is what one account was settled with in one unit. Each is the plain sum of the entries: what
// is above zero is owed by the account, below zero it is owed to it.
type Sum struct {
	Account                     string // a VO, or user:NAME
	Unit                        string
	Charges, Penalties, Rewards decimal.Decimal
	Used                        decimal.Decimal // of entries for usage, whose units are their own
}

// Balance is what is due in all.
func (s *Sum) Balance() (decimal.Decimal, bool) {
	d, ok := s.Charges.Add(s.Penalties)
	if !ok {
		return d, false
	}
	return d.Add(s.Rewards)
}

// Sums adds up agreements by account and unit, in their order.
func Sums(list []Settled) ([]Sum, error) {
	type key struct{ account, unit string }
	sums := map[key]*Sum{}
	for i := range list {
		s := &list[i]
		for k := range s.Amounts {
			x := &s.Amounts[k]
			d, err := x.amount()
			if err != nil {
				return nil, err
			}
			at := key{s.Account(), x.Unit}
			if sums[at] == nil {
				sums[at] = &Sum{Account: at.account, Unit: at.unit}
			}
			var to *decimal.Decimal
			switch x.Kind {
			case Usage:
				to = &sums[at].Used
			case Price:
				to = &sums[at].Charges
			case Penalty:
				to = &sums[at].Penalties
			case Reward:
				to = &sums[at].Rewards
			default:
				return nil, invalid("Usage", s.Agreement, "%.40q is no kind of entry", string(x.Kind))
			}
			sum, ok := to.Add(d)
			if !ok {
				return nil, invalid("Usage", s.Agreement, "the sums of %s in %s are more than can be told", at.account, at.unit)
			}
			*to = sum
		}
	}
	out := make([]Sum, 0, len(sums))
	for _, s := range sums {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Sum) int { return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Unit, b.Unit)) })
	return out, nil
}

// WriteAllJSON writes usage records as one array of what WriteJSON writes. Errors are those of Check
// and of w.
func WriteAllJSON(w io.Writer, us []JobUsage) error {
	for i := range us {
		if err := us[i].Check(); err != nil {
			return err
		}
	}
	if len(us) == 0 {
		return write(w, []byte("[]"))
	}
	for i := range us {
		lead := ",\n"
		if i == 0 {
			lead = "[\n"
		}
		b, err := us[i].json()
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, lead+string(b)); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "\n]\n")
	return err
}
