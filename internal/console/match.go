package console

import (
	"net/http"

	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/resourcemodel"
)

// MatchPath takes a JSDL document by POST, and a VO as the query's vo, and says what
// would become of the job. Nothing is changed.
const MatchPath = "/api/v1/match"

// Match answers POST.
type Match struct {
	Could    bool              `json:"could"` // some place could ever run it
	Now      bool              `json:"now"`   // some place could start it now
	Sentence string            `json:"sentence"`
	Nearest  string            `json:"nearest,omitempty"` // the smallest change with which it could start now
	Model    int64             `json:"model"`             // revision of the snapshot
	Places   []Verdict         `json:"places"`            // those that could run it first
	Ranked   []schedule.Ranked `json:"ranked"`            // in the order of the policies in force, the best first
}

// Verdict is what one place says.
type Verdict struct {
	Place   Place    `json:"place"`
	Could   bool     `json:"could"`
	Now     bool     `json:"now"`
	Clauses []Clause `json:"clauses,omitempty"` // what stands against it
	Wait    *Wait    `json:"wait,omitempty"`    // estimated
}

// Place is a share on an environment of a site.
type Place struct {
	Domain      string `json:"domain,omitempty"` // "" is our own
	Site        string `json:"site"`
	Share       string `json:"share"`
	Environment string `json:"environment"`
}

// String gives it as people write it.
func (p Place) String() string {
	return resourcemodel.Place{Key: resourcemodel.Key{Domain: p.Domain, Site: p.Site}, Share: p.Share, Environment: p.Environment}.String()
}

// Clause is one wish that a place does not meet.
type Clause struct {
	Element  string `json:"element"`
	Asked    string `json:"asked,omitempty"`
	Has      string `json:"has,omitempty"`
	Sentence string `json:"sentence"`
	Dynamic  bool   `json:"dynamic,omitempty"` // it may change by itself
}

func (a *api) match(r *http.Request) (any, error) {
	doc, err := body(r)
	if err != nil {
		return nil, err
	}
	m, err := a.gateway.Match(r.Context(), doc, r.URL.Query().Get("vo"))
	if err != nil {
		return nil, err
	}
	out := Match{
		Could: m.Could, Now: m.Now, Sentence: m.Sentence, Nearest: m.Nearest, Model: m.Model,
		Places: make([]Verdict, len(m.Verdicts)), Ranked: append([]schedule.Ranked{}, m.Ranked...),
	}
	for i := range m.Verdicts {
		v := &m.Verdicts[i]
		to := &out.Places[i]
		w, known := m.Waits[v.Place]
		*to = Verdict{Place: placeOf(v.Place), Could: v.Could, Now: v.Now, Wait: waitOf(w, known)}
		for _, c := range v.Clauses {
			to.Clauses = append(to.Clauses, Clause{c.Element, c.Asked, c.Has, c.Sentence, c.Dynamic})
		}
	}
	return out, nil
}

func placeOf(p resourcemodel.Place) Place {
	return Place{p.Domain, p.Site, p.Share, p.Environment}
}
