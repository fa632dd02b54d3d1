package limits

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Scope says what is limited.
type Scope string

// The scopes.
const (
	User Scope = "user"
	VO   Scope = "vo"
	Site Scope = "site"
)

// Scopes lists them.
func Scopes() []Scope { return []Scope{User, VO, Site} }

// Everybody is the name of the limit for those that have none of their own.
const Everybody = "*"

// Subject is who or what has a limit.
type Subject struct {
	Scope Scope
	Name  string
}

// String gives "user:ann".
func (s Subject) String() string { return string(s.Scope) + ":" + s.Name }

// ParseSubject reads what String gives: fail.Invalid.
func ParseSubject(text string) (Subject, error) {
	scope, name, _ := strings.Cut(text, ":")
	s := Subject{Scope(scope), name}
	return s, s.Check()
}

// Check reports what is wrong with a subject: fail.Invalid.
func (s Subject) Check() error {
	const op = "limits.Check"
	switch {
	case s.Scope != User && s.Scope != VO && s.Scope != Site:
		return fail.Errorf(op, fail.Invalid, s.String(), "%q has no limits: write user:NAME, vo:NAME or site:NAME, with * as the name for everybody", s.Scope)
	case s.Name == "":
		return fail.Errorf(op, fail.Invalid, s.String(), "the name behind %s: is missing; * is everybody", s.Scope)
	case len(store.Segment(s.Name)) > store.MaxKey-64:
		return fail.Errorf(op, fail.Invalid, "", "the name of a %s has %d bytes; limits take at most %d", s.Scope, len(s.Name), (store.MaxKey-64)/3)
	}
	return nil
}

func (s Subject) compare(o Subject) int {
	return cmp.Or(strings.Compare(string(s.Scope), string(o.Scope)), strings.Compare(s.Name, o.Name))
}

// everybody gives the subject whose limit stands in for that of s.
func (s Subject) everybody() Subject { return Subject{s.Scope, Everybody} }

// Use is one job: it counts for each that is not empty.
type Use struct{ User, VO, Site string }

// subjects gives for whom the use counts, the narrowest first: that one's limit is told
// when several are reached.
func (u Use) subjects() []Subject {
	var out []Subject
	for _, s := range []Subject{{User, u.User}, {VO, u.VO}, {Site, u.Site}} {
		if s.Name != "" {
			out = append(out, s)
		}
	}
	return out
}

// Status is a limit and what counts towards it.
type Status struct {
	Subject Subject
	Max     int
	Used    int // by all replicas; of "*" the most that one has who has no limit of their own
}

// MaxLimit bounds a limit.
const MaxLimit = 1 << 40

const (
	prefix       = "limits/"
	configPrefix = prefix + "config/"
	usedPrefix   = prefix + "used/"
)

func configKey(s Subject) string {
	return configPrefix + string(s.Scope) + "/" + store.Segment(s.Name)
}

func usedKey(s Subject) string { return usedPrefix + string(s.Scope) + "/" + store.Segment(s.Name) }

// splitKey gives the subject of a key below a prefix.
func splitKey(key, prefix string) (Subject, bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	scope, segment, found := strings.Cut(rest, "/")
	name, valid := store.Text(segment)
	s := Subject{Scope(scope), name}
	return s, ok && found && valid && s.Check() == nil
}

// limit is a limit as it is kept.
type limit struct {
	Max int `json:"max"`
}

// refusal is the error of a job for which there is no room.
func refusal(s Subject, used, most int) error {
	const op = "limits.Reserve"
	jobs := fmt.Sprintf("%d live jobs", used)
	if used == 1 {
		jobs = "1 live job"
	}
	switch s.Scope {
	case User:
		return fail.Errorf(op, fail.NotAccepting, s.String(), "the user %s has %s and may have %d: wait until one has ended or cancel one, or ask the gateway's administrator for a higher limit", s.Name, jobs, most)
	case VO:
		return fail.Errorf(op, fail.NotAccepting, s.String(), "the VO %s has %s and may have %d: wait until one has ended, submit for another VO, or ask the gateway's administrator for a higher limit", s.Name, jobs, most)
	case Site:
	}
	return fail.Errorf(op, fail.NotAccepting, s.String(), "the site %s has %s and may have %d: wait until one has ended, or let the job go to another site", s.Name, jobs, most)
}

// counts is what each replica counts for a subject.
type counts map[string]int

func (c counts) sum() int {
	n := 0
	for _, m := range c {
		n += m
	}
	return n
}

// with gives the record's value when the replica counts n; nil when nobody counts any.
func (c counts) with(replica string, n int, without string) []byte {
	next := counts{}
	for name, m := range c {
		if name != without {
			next[name] = m
		}
	}
	next[replica] = n
	if n == 0 {
		delete(next, replica)
	}
	if len(next) == 0 {
		return nil
	}
	b, err := json.Marshal(next)
	if err != nil {
		panic("limits: a map of numbers is no JSON: " + err.Error())
	}
	return b
}
