package offering

import (
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// maxFacts is how many facts of one term's state are told.
const maxFacts = 200

// nsWSA is WS-Addressing 1.0.
const nsWSA = "http://www.w3.org/2005/08/addressing"

// Fact is something that the service tells of a state, in its own words.
type Fact struct {
	Name string    `json:"name"` // a path of elements, as "history/assessment"
	Text string    `json:"text"`
	At   time.Time `json:"at,omitzero"` // the attribute of that name
}

// Facts reads the foreign detail of a state, whatever it is: each text and each
// attribute in it. References are left out, and so is what History and Account read.
func Facts(detail *etree.Element) []Fact {
	var list []Fact
	var walk func(e *etree.Element, path string)
	walk = func(e *etree.Element, path string) {
		if len(list) >= maxFacts || isReference(e) || isOurs(e, "Entry") || isOurs(e, "Event") {
			return
		}
		name := path
		if name == "" {
			name = e.Tag
		}
		f := Fact{Name: name, Text: xmldoc.Collapse(xmldoc.Text(e))}
		for _, a := range e.Attr {
			if a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns" || a.Value == "" {
				continue
			}
			if t, err := time.Parse(time.RFC3339Nano, a.Value); err == nil && a.Space == "" && a.Key == "at" && f.Text != "" {
				f.At = t
				continue
			}
			list = append(list, Fact{Name: strings.TrimPrefix(path+" "+a.Key, " "), Text: a.Value})
		}
		if f.Text != "" {
			list = append(list, f)
		}
		for _, c := range e.ChildElements() {
			below := c.Tag
			if path != "" {
				below = path + "/" + c.Tag
			}
			walk(c, below)
		}
	}
	if detail != nil {
		walk(detail, "")
	}
	return list[:min(len(list), maxFacts)]
}

func isOurs(e *etree.Element, local string) bool {
	return xmldoc.Is(e, agreement.NSPortolan, local)
}

// Event is a line of an agreement's history.
type Event struct {
	At    time.Time `json:"at"`
	Name  string    `json:"name"`
	State string    `json:"state"`
	Text  string    `json:"text"`
}

// History gives the history that a gateway tells in the sub-state of an agreement, the
// oldest first.
func History(p *agreement.Properties) []Event {
	var list []Event
	for _, e := range ofSubState(p, "Event") {
		at, err := time.Parse(time.RFC3339Nano, e.SelectAttrValue("at", ""))
		if err == nil {
			list = append(list, Event{at, e.SelectAttrValue("name", ""), e.SelectAttrValue("state", ""), xmldoc.Collapse(xmldoc.Text(e))})
		}
	}
	return list
}

func ofSubState(p *agreement.Properties, local string) []*etree.Element {
	var list []*etree.Element
	if p.SubState != nil && isOurs(p.SubState, "Agreement") {
		for _, e := range p.SubState.ChildElements() {
			if isOurs(e, local) {
				list = append(list, e)
			}
		}
	}
	return list
}

func isReference(e *etree.Element) bool {
	return xmldoc.Is(e, nsWSA, "EndpointReference")
}

// Activity is a job of an agreement, as the state of a service term tells of it.
type Activity struct {
	Term      string
	Reference *etree.Element // a wsa:EndpointReference
}

// Activities gives the activities that the service terms of an agreement name: the
// wsa:EndpointReference anywhere in a term's detail, one for each term.
func Activities(p *agreement.Properties) []Activity {
	var list []Activity
	for _, s := range p.Services {
		if e := reference(s.Detail); e != nil {
			list = append(list, Activity{s.Term, e})
		}
	}
	return list
}

func reference(e *etree.Element) *etree.Element {
	if e == nil || isReference(e) {
		return e
	}
	for _, c := range e.ChildElements() {
		if r := reference(c); r != nil {
			return r
		}
	}
	return nil
}

// Amount is what was used, or what one party owes the other.
type Amount struct {
	Kind  string `json:"kind"`  // "usage", "price", "penalty" or "reward"
	Value string `json:"value"` // above zero
	Unit  string `json:"unit"`
	// ToUser is that the user gets it.
	ToUser   bool   `json:"toUser"`
	Evidence string `json:"evidence"`
}

// Account tells what was used and what is due: the entries of the ledger that a gateway
// tells in the sub-state of an agreement. Where there is no such sub-state, the terms
// alone say it, for guarantees that are assessed once.
func Account(p *agreement.Properties) []Amount {
	var list []Amount
	if p.SubState == nil || !isOurs(p.SubState, "Agreement") {
		for _, s := range p.Guarantees {
			if g, ok := p.Term(s.Term).(*agreement.Guarantee); ok {
				list = append(list, byTerms(g, s.State)...)
			}
		}
		return list
	}
	for _, e := range ofSubState(p, "Entry") {
		n, err := decimal.Parse(e.SelectAttrValue("amount", ""))
		if err != nil || n.Sign() == 0 {
			continue
		}
		a := Amount{Kind: e.SelectAttrValue("kind", ""), Unit: e.SelectAttrValue("unit", ""), Evidence: xmldoc.Collapse(xmldoc.Text(e))}
		if a.ToUser = n.Sign() < 0; a.ToUser {
			n = n.Neg()
		}
		a.Value = n.String()
		list = append(list, a)
	}
	return list
}

// Total adds up what is due, by unit: what was used is not. The sums are in the order in
// which their units come first; a sum that is nothing is left out.
func Total(list []Amount) []Amount {
	var units []string
	sums := map[string]decimal.Decimal{}
	for _, a := range list {
		n, err := decimal.Parse(a.Value)
		if err != nil || a.Kind == "usage" {
			continue
		}
		if a.ToUser {
			n = n.Neg()
		}
		if !slices.Contains(units, a.Unit) {
			units = append(units, a.Unit)
		}
		if sum, ok := sums[a.Unit].Add(n); ok {
			sums[a.Unit] = sum
		}
	}
	var out []Amount
	for _, u := range units {
		sum := sums[u]
		a := Amount{Unit: u}
		if a.ToUser = sum.Sign() < 0; a.ToUser {
			sum = sum.Neg()
		}
		if a.Value = sum.String(); sum.Sign() > 0 {
			out = append(out, a)
		}
	}
	return out
}

func byTerms(g *agreement.Guarantee, state agreement.GuaranteeState) []Amount {
	var list []Amount
	add := func(kind string, due []agreement.Compensation) {
		for _, c := range due {
			if c.Count != 1 || c.Expression == nil || len(c.Expression.ChildElements()) > 0 {
				continue
			}
			if n, err := decimal.Parse(xmldoc.Collapse(xmldoc.Text(c.Expression))); err == nil && n.Sign() > 0 {
				// A penalty goes to whom the guarantee was given, a reward to who gave it.
				list = append(list, Amount{
					Kind: kind, Value: n.String(), Unit: c.Unit, ToUser: (kind == "penalty") != (g.Obligated == agreement.ServiceConsumer),
					Evidence: "by the terms of " + g.Name,
				})
			}
		}
	}
	switch state {
	case agreement.Violated:
		add("penalty", g.Values.Penalties)
	case agreement.Fulfilled:
		add("reward", g.Values.Rewards)
	case agreement.NotDetermined:
	}
	return list
}
