package policy

import (
	"cmp"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Bounds of a Ledger.
const (
	MaxHalfLives   = 8
	MaxAccounts    = 100_000
	MaxAccountName = 1024 // bytes
)

// Ledger keeps what groups used, with exponential decay: what was used a half-life ago
// counts half. It keeps a sum for each half-life that a policy in force has, and never
// goes through what was used one by one. It reads no clock, and is not safe for use
// by several goroutines at once.
type Ledger struct {
	halfLives []time.Duration      // sorted; at least one
	at        time.Time            // that the sums are of
	last      time.Time            // of the latest charge, never long after at
	sums      map[string][]float64 // by group, one for each half-life, CPU-seconds
	shares    map[string]float64
}

var _ Usage = (*Ledger)(nil)

// NewLedger makes an empty one that keeps the half-lives; without any, that which
// fair share has by default. fail.Invalid is one that is none, or too many.
func NewLedger(halfLives ...time.Duration) (*Ledger, error) {
	l := &Ledger{sums: map[string][]float64{}}
	if len(halfLives) == 0 {
		halfLives = []time.Duration{seconds(Find(Scheduling, "fairshare").parameter("halfLife").Default)}
	}
	return l, l.Keep(halfLives...)
}

// Keep changes which half-lives are kept, when policies change. The sum of a new one
// is reckoned from that of the nearest one there was, as if the group had always used
// as much a second: it is right in the long run.
func (l *Ledger) Keep(halfLives ...time.Duration) error {
	next := slices.Clone(halfLives)
	slices.Sort(next)
	next = slices.Compact(next)
	if len(next) == 0 || len(next) > MaxHalfLives || next[0] <= 0 {
		return fail.Errorf("policy.Ledger", fail.Invalid, "halfLife", "%d half-lives are to be kept; it must be 1 to %d different ones, all above zero", len(next), MaxHalfLives)
	}
	if slices.Equal(next, l.halfLives) {
		return nil
	}
	l.advance(l.last)
	for g, sums := range l.sums {
		fresh := make([]float64, len(next))
		for i, h := range next {
			at, factor := l.nearest(h)
			fresh[i] = sums[at] * factor
		}
		l.sums[g] = fresh
	}
	l.halfLives = next
	return nil
}

// HalfLives lists what is kept.
func (l *Ledger) HalfLives() []time.Duration { return slices.Clone(l.halfLives) }

// nearest gives the kept half-life that is nearest by ratio, and what its sums are to be
// multiplied with: steady use of r a second has a sum of r × halfLife ÷ ln 2.
func (l *Ledger) nearest(h time.Duration) (at int, factor float64) {
	at, found := slices.BinarySearch(l.halfLives, h)
	if found {
		return at, 1
	}
	if at == len(l.halfLives) || at > 0 && float64(h)/float64(l.halfLives[at-1]) < float64(l.halfLives[at])/float64(h) {
		at--
	}
	return at, float64(h) / float64(l.halfLives[at])
}

// decay is what is left of use after a time; more than 1 for a time that has not come
// yet.
func decay(since time.Duration, halfLife time.Duration) float64 {
	return math.Exp2(-float64(since) / float64(halfLife))
}

// Add charges a group with CPU-seconds that it used at a moment. A negative amount
// takes back what was charged too much, at the moment of the charge. It may come after
// later ones, and any order gives the same but for rounding. What is no number, and a
// name beyond MaxAccountName, is left out.
func (l *Ledger) Add(group string, cpuSeconds float64, at time.Time) {
	if math.IsNaN(cpuSeconds) || math.IsInf(cpuSeconds, 0) || cpuSeconds == 0 || group == "" || len(group) > MaxAccountName {
		return
	}
	if l.at.IsZero() {
		l.at = at
	}
	l.reach(at)
	sums := l.sums[group]
	if sums == nil {
		if len(l.sums) >= MaxAccounts {
			l.drop()
		}
		sums = make([]float64, len(l.halfLives))
		l.sums[group] = sums
	}
	for i, h := range l.halfLives {
		sums[i] += cpuSeconds * decay(l.at.Sub(at), h)
	}
}

// reach takes note that the time has come to a moment. The sums are not brought there
// each time: a charge that is a little ahead is reckoned back instead, which is exact.
func (l *Ledger) reach(at time.Time) {
	if at.After(l.last) {
		l.last = at
	}
	if at.Sub(l.at) >= l.halfLives[0] {
		l.advance(at)
	}
}

// advance brings all sums to a moment.
func (l *Ledger) advance(to time.Time) {
	if !to.After(l.at) {
		return
	}
	factors := make([]float64, len(l.halfLives))
	for i, h := range l.halfLives {
		factors[i] = decay(to.Sub(l.at), h)
	}
	l.at = to
	for g, sums := range l.sums {
		most := 0.0
		for i := range sums {
			sums[i] *= factors[i]
			most = max(most, math.Abs(sums[i]))
		}
		if most < forgotten {
			delete(l.sums, g)
		}
	}
}

// forgotten is use that is not remembered any more, in CPU-seconds.
const forgotten = 1e-3

// drop forgets the tenth of the groups that used the least.
func (l *Ledger) drop() {
	last := len(l.halfLives) - 1
	groups := slices.SortedFunc(maps.Keys(l.sums), func(a, b string) int {
		return cmp.Or(cmp.Compare(l.sums[a][last], l.sums[b][last]), strings.Compare(a, b))
	})
	for _, g := range groups[:len(groups)/10+1] {
		delete(l.sums, g)
	}
}

// Used gives the CPU-seconds of a group at a moment. A half-life that is not kept
// gives what Keep would make of it.
func (l *Ledger) Used(group string, now time.Time, halfLife time.Duration) float64 {
	sums := l.sums[group]
	if sums == nil || halfLife <= 0 {
		return 0
	}
	at, factor := l.nearest(halfLife)
	used := sums[at] * factor * decay(now.Sub(l.at), l.halfLives[at])
	if !(used > 0) { // nor a number, where a record was tampered with
		return 0
	}
	return min(used, math.MaxFloat64)
}

// Groups lists those that used something, sorted.
func (l *Ledger) Groups() []string { return slices.Sorted(maps.Keys(l.sums)) }

// SetShares says what groups are entitled to, "vo:bio" to 2 for twice the usual. The
// map is not to be changed afterwards. Shares are not among what Encode gives: they
// are of the configuration.
func (l *Ledger) SetShares(shares map[string]float64) { l.shares = shares }

// Share gives what a group is entitled to; 1 where nothing is said.
func (l *Ledger) Share(group string) float64 {
	if s, ok := l.shares[group]; ok {
		return s
	}
	return 1
}

// Merge adds what another one has, of another replica of the gateway: sums of use
// decay alike, so that nothing is lost by it.
func (l *Ledger) Merge(o *Ledger) {
	if len(o.sums) == 0 {
		return
	}
	if l.at.IsZero() {
		l.at = o.at
	}
	l.reach(o.last)
	for _, g := range o.Groups() {
		sums := l.sums[g]
		if sums == nil {
			if len(l.sums) >= MaxAccounts {
				l.drop()
			}
			sums = make([]float64, len(l.halfLives))
			l.sums[g] = sums
		}
		for i, h := range l.halfLives {
			at, factor := o.nearest(h)
			sums[i] += o.sums[g][at] * factor * decay(l.at.Sub(o.at), o.halfLives[at])
		}
	}
}

// ledgerText is a Ledger as it is stored, or a part of one.
type ledgerText struct {
	HalfLives []float64            `json:"halfLives"` // seconds
	At        time.Time            `json:"at"`
	Used      map[string][]float64 `json:"used"`
}

// Encode gives the ledger as JSON, in as many parts as it takes that none has more than
// limit bytes; each part is a ledger of some of the groups. An empty ledger has one.
func (l *Ledger) Encode(limit int) ([][]byte, error) {
	const op = "policy.Ledger.Encode"
	l.advance(l.last)
	head := ledgerText{At: l.at, Used: map[string][]float64{}}
	for _, h := range l.halfLives {
		head.HalfLives = append(head.HalfLives, h.Seconds())
	}
	empty, err := json.Marshal(head)
	if err != nil {
		return nil, fail.E(op, fail.Internal, "", err)
	}
	var out [][]byte
	part, size := head, len(empty)
	part.Used = map[string][]float64{}
	flush := func() error {
		text, err := json.Marshal(part)
		if err != nil {
			return fail.E(op, fail.Internal, "", err)
		}
		out = append(out, text)
		part.Used, size = map[string][]float64{}, len(empty)
		return nil
	}
	for _, g := range l.Groups() {
		one, err := json.Marshal(map[string][]float64{g: l.sums[g]})
		if err != nil {
			return nil, fail.E(op, fail.Internal, g, err)
		}
		n := len(one) - 1 // braces away, a comma to it
		if len(empty)+n > limit {
			return nil, fail.Errorf(op, fail.Exhausted, g, "what a group used does not fit into %d bytes", limit)
		}
		if size+n > limit {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		part.Used[g], size = l.sums[g], size+n
	}
	if len(part.Used) > 0 || len(out) == 0 {
		err = flush()
	}
	return out, err
}

// DecodeLedger gives the ledger of parts that Encode made, together. fail.Invalid is
// what can't be one.
func DecodeLedger(parts ...[]byte) (*Ledger, error) {
	const op = "policy.DecodeLedger"
	var sum *Ledger
	for _, p := range parts {
		var t ledgerText
		if err := json.Unmarshal(p, &t); err != nil {
			return nil, fail.Errorf(op, fail.Invalid, "", "the record of what was used is not readable").Because(err)
		}
		var halfLives []time.Duration
		for _, h := range t.HalfLives {
			halfLives = append(halfLives, seconds(h))
		}
		if len(halfLives) == 0 || len(t.Used) > MaxAccounts {
			return nil, fail.Errorf(op, fail.Invalid, "", "the record of what was used has %d half-lives and %d groups; it must have one and at most %d", len(halfLives), len(t.Used), MaxAccounts)
		}
		l, err := NewLedger(halfLives...)
		if err != nil {
			return nil, err
		}
		if len(l.halfLives) != len(halfLives) || !slices.Equal(l.halfLives, halfLives) {
			return nil, fail.Errorf(op, fail.Invalid, "", "the half-lives in the record of what was used are not in order")
		}
		l.at, l.last = t.At, t.At
		for g, sums := range t.Used {
			if len(sums) != len(halfLives) || g == "" || len(g) > MaxAccountName {
				return nil, fail.Errorf(op, fail.Invalid, clip(g), "the record of what a group used has %d sums for %d half-lives, or a name that is none", len(sums), len(halfLives))
			}
			l.sums[g] = sums
		}
		if sum == nil {
			sum = l
		} else {
			sum.Merge(l)
		}
	}
	if sum == nil {
		return NewLedger()
	}
	return sum, nil
}
