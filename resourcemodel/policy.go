package resourcemodel

import (
	"slices"
	"strings"
)

// Rules of a Policy.
const (
	ruleVO   = "vo:"
	ruleUser = "user:"
	ruleAll  = "*"
)

// Allows reports whether the subject may use what the policy guards. A denial is
// stronger than a permission.
func (p Policy) Allows(s Subject) bool {
	named := func(rule string) bool {
		if vo, ok := strings.CutPrefix(rule, ruleVO); ok {
			return vo != "" && vo == s.VO
		}
		if user, ok := strings.CutPrefix(rule, ruleUser); ok {
			return user != "" && user == s.User
		}
		return rule == ruleAll
	}
	return (len(p.Allow) == 0 || slices.ContainsFunc(p.Allow, named)) && !slices.ContainsFunc(p.Deny, named)
}

func (p Policy) namesUsers() bool {
	is := func(rule string) bool { return strings.HasPrefix(rule, ruleUser) }
	return slices.ContainsFunc(p.Allow, is) || slices.ContainsFunc(p.Deny, is)
}

// who says for whom it is: "the VO bio, the VO chem and the user ann".
func who(rules []string) string {
	var out []string
	for _, rule := range rules {
		if vo, ok := strings.CutPrefix(rule, ruleVO); ok {
			out = append(out, "the VO "+vo)
		} else if user, ok := strings.CutPrefix(rule, ruleUser); ok {
			out = append(out, "the user "+user)
		}
	}
	return listed(out, "and")
}

// listed puts at most eight words into a sentence.
func listed(words []string, last string) string {
	const most = 8
	if n := len(words); n > most {
		words = append(slices.Clone(words[:most]), "others")
	}
	switch n := len(words); n {
	case 0:
		return ""
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " " + last + " " + words[n-1]
	}
}
