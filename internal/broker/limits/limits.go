package limits

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Scope says what is limited.
type Scope string

// The scopes. Those of users and VOs bound what is live, those of sites what is at the
// site or on its way there; each as jobs, or as the CPUs that these ask for.
const (
	User     Scope = "user"
	VO       Scope = "vo"
	Site     Scope = "site"
	UserCPUs Scope = "user-cpus"
	VOCPUs   Scope = "vo-cpus"
	SiteCPUs Scope = "site-cpus"
)

// Scopes lists them.
func Scopes() []Scope { return []Scope{User, VO, Site, UserCPUs, VOCPUs, SiteCPUs} }

// Of gives "user", "vo" or "site".
func (s Scope) Of() string { return strings.TrimSuffix(string(s), "-cpus") }

// Counts gives "jobs" or "CPUs".
func (s Scope) Counts() string {
	if strings.HasSuffix(string(s), "-cpus") {
		return "CPUs"
	}
	return "jobs"
}

// counted gives the noun for so many.
func (s Scope) counted(n int) string {
	if n == 1 {
		return strings.TrimSuffix(s.Counts(), "s")
	}
	return s.Counts()
}

// word gives the scope's noun as people write it.
func (s Scope) word() string {
	if s.Of() == "vo" {
		return "VO"
	}
	return s.Of()
}

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
	case !slices.Contains(Scopes(), s.Scope):
		return fail.Errorf(op, fail.Invalid, s.String(), "%q has no limits: write user:NAME, vo:NAME or site:NAME, or user-cpus:, vo-cpus: or site-cpus: for a limit of CPUs, with * as the name for everybody", s.Scope)
	case s.Name == "":
		return fail.Errorf(op, fail.Invalid, s.String(), "the name behind %s: is missing; * is everybody", s.Scope)
	case 3*len(s.Name) > store.MaxKey-64 && len(store.Segment(s.Name)) > store.MaxKey-64:
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
type Use struct {
	User, VO, Site string
	CPUs           int // that it has or asks for; 0 is 1
}

// part is what a use counts towards one subject.
type part struct {
	Subject
	n int
}

// parts gives towards what the use counts, the narrowest first: that one's limit is told
// when several are reached.
func (u Use) parts() []part {
	out := make([]part, 0, 4)
	for _, w := range [...]struct {
		jobs, cpus Scope
		name       string
	}{{User, UserCPUs, u.User}, {VO, VOCPUs, u.VO}, {Site, SiteCPUs, u.Site}} {
		if w.name != "" {
			out = append(out, part{Subject{w.jobs, w.name}, 1}, part{Subject{w.cpus, w.name}, max(1, u.CPUs)})
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

// String gives the limit as people write it: "site:slurm: 500 jobs".
func (s Status) String() string {
	return fmt.Sprintf("%s: %d %s", s.Subject, s.Max, s.Subject.Scope.counted(s.Max))
}

// Change is one change of a limit.
type Change struct {
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	Scope  Scope     `json:"scope"`
	Name   string    `json:"name"`
	Before *int      `json:"before,omitempty"` // nil: there was none
	After  *int      `json:"after,omitempty"`  // nil: there is none any more
}

// MaxChanges bounds what is remembered of changes.
const MaxChanges = 256

// MaxLimit bounds a limit.
const MaxLimit = 1 << 40

const (
	prefix       = "limits/"
	configPrefix = prefix + "config/"
	usedPrefix   = prefix + "used/"
	changesKey   = prefix + "changes"
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
func refusal(s Subject, n, used, most int) error {
	const op = "limits.Reserve"
	has := fmt.Sprintf("%d %s", used, s.Scope.counted(used))
	switch {
	case s.Scope.Of() == "site":
	case s.Scope.Counts() == "CPUs":
		has = "live jobs with " + has
	default:
		has = fmt.Sprintf("%d live %s", used, s.Scope.counted(used))
	}
	asks := ""
	if s.Scope.Counts() == "CPUs" {
		asks = fmt.Sprintf(", and the job asks for %d", n)
	}
	advice := map[string]string{
		"user": "wait until one has ended or cancel one, or ask the gateway's administrator for a higher limit",
		"vo":   "wait until one has ended, submit for another VO, or ask the gateway's administrator for a higher limit",
		"site": "wait until one has ended, or let the job go to another site",
	}[s.Scope.Of()]
	return fail.Errorf(op, fail.NotAccepting, s.String(), "the %s %s has %s and may have %d%s: %s", s.Scope.word(), s.Name, has, most, asks, advice)
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
