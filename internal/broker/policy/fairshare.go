package policy

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Accounts gives the groups that a job's use is charged to, and that fair share
// compares: its VO and its owner.
func Accounts(j *Job) [NumAccounts]string {
	return [NumAccounts]string{vo + j.VO, user + j.Owner}
}

// NumAccounts is how many groups a job is charged to.
const NumAccounts = 2

// What the names of the accounts begin with.
const (
	vo   = "vo:"
	user = "user:"
)

// AppendAccount appends the name of one of Accounts.
func AppendAccount(into []byte, j *Job, i int) []byte {
	if i == 0 {
		return append(append(into, vo...), j.VO...)
	}
	return append(append(into, user...), j.Owner...)
}

// groupSeparator stands between the accounts in the name of a group; it can be in
// neither.
const groupSeparator = "\x00"

// first begins the groups of jobs whose place was lost. They go before all others,
// whatever was used, since they had their turn already: in each class by age.
const first = "class:"

// fairShare orders a tree of two levels: the VO with the least use for its share goes
// first, and in it the user with the least. A group is a user in a VO, and its weight
// has the VO's level in its upper half and the user's in the lower one, so that users
// are compared only where their VOs are level, to one part in a quarter million.
//
// Without the VOs there is one level, and a group is a user: that is the policy "priority".
//
// All use decays alike. So the order of groups changes only by use, not by time alone.
type fairShare struct {
	halfLife   time.Duration
	vos, users bool // the levels
	within     byPriority
}

func (p *fairShare) Group(j *Job) string {
	if j.Class > 0 {
		return first + strconv.Itoa(j.Class)
	}
	switch {
	case !p.users:
		return vo + j.VO
	case !p.vos:
		return user + j.Owner
	}
	return vo + j.VO + groupSeparator + user + j.Owner
}

// Key orders the jobs of one owner by priority, which is the owner's own: to say a higher one
// gains nothing on others. Those whose place was lost by age alone.
func (p *fairShare) Key(j *Job) Key {
	if j.Class > 0 {
		return fifo{}.Key(j)
	}
	return p.within.Key(j)
}

var _ Tiered = (*fairShare)(nil)

func (p *fairShare) Weight(group string, now time.Time, u Usage) float64 {
	if lost(group) {
		return p.TierWeight(group, now, u)
	}
	return p.TierWeight(p.Tier(group), now, u)*(1<<levelBits) + p.GroupWeight(group, now, u)
}

// Tier is the VO, or the user where there are no VOs; jobs whose place was lost are a tier by themselves.
func (p *fairShare) Tier(group string) string {
	if lost(group) {
		return group
	}
	tier, _, _ := strings.Cut(group, groupSeparator)
	return tier
}

func (p *fairShare) TierWeight(tier string, now time.Time, u Usage) float64 {
	if lost(tier) {
		class, _ := strconv.Atoi(tier[len(first):]) // Group made it
		return -float64(class)
	}
	return level(u, tier, now, p.halfLife)
}

func (p *fairShare) GroupWeight(group string, now time.Time, u Usage) float64 {
	if _, owner, both := strings.Cut(group, groupSeparator); both {
		return level(u, owner, now, p.halfLife)
	}
	return 0
}

// lost reports whether a group has the jobs whose place was lost: "vo:" or "user:" begins the others.
func lost(group string) bool { return strings.HasPrefix(group, first) }

// levelBits is what a level has: two of them are whole in a float64.
const levelBits = 26

// level gives how much a group used for its share, as a whole number that grows with
// it: the upper bits of a float32, which are a logarithm with a mantissa of 18 bits.
// Who has no share is behind all who have one.
func level(u Usage, group string, now time.Time, halfLife time.Duration) float64 {
	share := u.Share(group)
	if !(share > 0) {
		return 1<<levelBits - 1
	}
	used := max(u.Used(group, now, halfLife), 0) / share
	return float64(math.Float32bits(float32(min(used, math.MaxFloat32))) >> (32 - 1 - levelBits))
}
