package identity

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
)

// Rule says as whom some users of other domains run here. A pattern matches a whole name; "*" in it
// stands for any characters, and "" matches all.
type Rule struct {
	Peer   string // the domain that hands the job over
	Origin string // the domain of the user
	VO     string // the VO that the job is run for; NoVO for those that are run for none
	User   string // the user's name in the origin
	// Vouched lets the rule hold for users whose origin is not trusted here, on the peer's word. Without
	// it, only the origin's own signature counts.
	Vouched bool
	// Account is the local account: UserHere in it stands for the user's name, where that is a plain name of
	// an account.
	Account string
	// As is the VO here; "" is the one that the job came with.
	As string
	// Refuse takes no job of these users, and is the sentence that tells why.
	Refuse string
	// From says where the rule stands, for people.
	From string
}

// Words of rules.
const (
	NoVO     = "-"
	UserHere = "{user}"
)

// Mapping are rules; the first that matches holds, and who matches none is refused.
type Mapping []Rule

// Local is who a user of another domain is here.
type Local struct {
	// Owner of the job: USER@ORIGIN, which no user of one's own is called.
	Owner   string
	Account string
	VO      string
	// Rule is where the rule stands, for the job's history.
	Rule string
}

// accountName is a name of an account as POSIX has it to be portable.
var accountName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

// Check gives fail.Invalid for a rule that can't hold.
func (r Rule) Check() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("identity.Rule", fail.Invalid, r.From, format, args...)
	}
	for _, p := range []struct{ what, pattern string }{{"peer", r.Peer}, {"origin", r.Origin}, {"vo", r.VO}, {"user", r.User}} {
		if p.pattern != "" && !plainLine(p.pattern, MaxUser) || strings.Count(p.pattern, "*") > 8 {
			return bad("%s: %s is no pattern: write a name of one line, with at most 8 times '*' for any characters", p.what, shown(p.pattern))
		}
	}
	for _, p := range []struct{ what, pattern string }{{"peer", r.Peer}, {"origin", r.Origin}} {
		if p.pattern != "" && BadDomain(strings.ReplaceAll(p.pattern, "*", "x")) != "" {
			return bad("%s: %s can match no domain", p.what, shown(p.pattern))
		}
	}
	if r.Refuse != "" {
		if r.Account != "" || r.As != "" {
			return bad("a rule gives an account, or refuses: leave one of them out")
		}
		if !plainLine(r.Refuse, 512) {
			return bad("refuse: write one sentence of at most 512 bytes, which the user will read")
		}
		return nil
	}
	switch plain := strings.ReplaceAll(r.Account, UserHere, "u"); {
	case r.Account == "":
		return bad("the rule says neither an account nor why it refuses")
	case !accountName.MatchString(plain) || strings.Count(r.Account, UserHere) > 1:
		return bad("account: %s is no name of an account", shown(r.Account))
	case r.Account == "root":
		return bad("account: jobs of other domains don't run as root")
	case r.As != "" && !plainLine(r.As, maxVO):
		return bad("as: %s is no name of a VO", shown(r.As))
	}
	return nil
}

// matches reports whether a pattern matches a name.
func matches(pattern, name string) bool {
	if pattern == "" || pattern == "*" {
		return true
	}
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(name, p)
		if i < 0 {
			return false
		}
		name = name[i+len(p):]
	}
	return strings.HasSuffix(name, parts[len(parts)-1])
}

func (r *Rule) concerns(s *Subject) bool {
	vo := r.VO == NoVO && s.VO == "" || r.VO != NoVO && matches(r.VO, s.VO)
	return vo && matches(r.Peer, s.By) && matches(r.Origin, s.Origin) && matches(r.User, s.User)
}

// Map gives who a user is here. One who is refused is fail.Denied, with a sentence for the user.
func (m Mapping) Map(s *Subject) (Local, error) {
	deny := func(format string, args ...any) (Local, error) {
		return Local{}, fail.Errorf("identity.Map", fail.Denied, s.User+"@"+s.Origin, format, args...)
	}
	unsigned := false
	for i := range m {
		r := &m[i]
		if !r.concerns(s) {
			continue
		}
		if r.Refuse != "" {
			return deny("%s", r.Refuse)
		}
		if !s.Signed && !r.Vouched {
			unsigned = true
			continue
		}
		account := r.Account
		if strings.Contains(account, UserHere) {
			account = strings.Replace(account, UserHere, s.User, 1)
			if !accountName.MatchString(account) || account == "root" {
				return deny("the user %s can't have the account %s here, which is no name of one: ask for a rule of its own", shown(s.User), shown(account))
			}
		}
		l := Local{Owner: s.User + "@" + s.Origin, Account: account, VO: s.VO, Rule: r.From}
		if r.As != "" {
			l.VO = r.As
		}
		return l, nil
	}
	who := fmt.Sprintf("the user %s of %s", shown(s.User), s.Origin)
	if s.VO != "" {
		who += ", VO " + shown(s.VO) + ","
	}
	if unsigned {
		return deny("no rule takes %s on the word of %s alone, and the domain %s itself is not trusted here: ask for trust in it, or for a rule with vouched", who, s.By, s.Origin)
	}
	return deny("no rule takes %s from %s: ask the administrator for one", who, s.By)
}
