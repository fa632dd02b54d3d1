package offering

import (
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// maxFacts is how many facts of one term's state are told.
const maxFacts = 200

// nsWSA is WS-Addressing 1.0.
const nsWSA = "http://www.w3.org/2005/08/addressing"

// Fact is something that the service tells of a term's state, in its own words.
type Fact struct {
	Name string `json:"name"` // a path of elements, as "history/assessment"
	Text string `json:"text"`
}

// Facts reads the foreign detail of a term's state, whatever it is: each text and each
// attribute in it. References are left out.
func Facts(detail *etree.Element) []Fact {
	var list []Fact
	var walk func(e *etree.Element, path string)
	walk = func(e *etree.Element, path string) {
		if len(list) >= maxFacts || isReference(e) {
			return
		}
		for _, a := range e.Attr {
			if a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns" || a.Value == "" {
				continue
			}
			list = append(list, Fact{strings.TrimPrefix(path+" "+a.Key, " "), a.Value})
		}
		children := e.ChildElements()
		if text := xmldoc.Collapse(xmldoc.Text(e)); text != "" {
			name := path
			if name == "" {
				name = e.Tag
			}
			list = append(list, Fact{name, text})
		}
		for _, c := range children {
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

// Amount is what one party owes the other.
type Amount struct {
	Guarantee string `json:"guarantee"`
	Sort      string `json:"sort"` // "penalty" or "reward"
	Value     string `json:"value"`
	Unit      string `json:"unit"`
	// ToUser is that the user gets it.
	ToUser bool `json:"toUser"`
}

// Account tells what is due because guarantees were kept or broken: the Penalty and
// Reward elements in the states of the guarantees, with the total of each as their text
// and the attribute unit. Where a state has none, the terms alone say it, for a
// guarantee that is assessed once.
func Account(p *agreement.Properties) []Amount {
	var list []Amount
	for _, s := range p.Guarantees {
		g, _ := p.Term(s.Term).(*agreement.Guarantee)
		told := totals(s.Detail)
		if told == nil && g != nil {
			told = byTerms(g, s.State)
		}
		for _, a := range told {
			a.Guarantee = s.Term
			// A penalty goes to whom the guarantee was given, a reward to who gave it.
			consumers := g != nil && g.Obligated == agreement.ServiceConsumer
			a.ToUser = (a.Sort == "penalty") != consumers
			list = append(list, a)
		}
	}
	return list
}

// totals reads the amounts in a detail, those of one sort and unit together; nil is that
// nothing is told.
func totals(detail *etree.Element) []Amount {
	var list []Amount
	sums := []decimal.Decimal{}
	var walk func(*etree.Element)
	walk = func(e *etree.Element) {
		if name := xmldoc.NameOf(e); name.Space == agreement.NSPortolan && (name.Local == "Penalty" || name.Local == "Reward") {
			n, err := decimal.Parse(xmldoc.Collapse(xmldoc.Text(e)))
			if err != nil || n.Sign() <= 0 {
				return
			}
			a := Amount{Sort: strings.ToLower(name.Local), Unit: e.SelectAttrValue("unit", "")}
			i := slices.IndexFunc(list, func(b Amount) bool { return b.Sort == a.Sort && b.Unit == a.Unit })
			if i < 0 {
				i = len(list)
				list, sums = append(list, a), append(sums, decimal.Decimal{})
			}
			if sum, ok := sums[i].Add(n); ok {
				sums[i], list[i].Value = sum, sum.String()
			}
			return
		}
		for _, c := range e.ChildElements() {
			walk(c)
		}
	}
	if detail == nil {
		return nil
	}
	list = []Amount{}
	walk(detail)
	return list
}

func byTerms(g *agreement.Guarantee, state agreement.GuaranteeState) []Amount {
	var list []Amount
	add := func(sort string, due []agreement.Compensation) {
		for _, c := range due {
			if c.Count != 1 || c.Expression == nil || len(c.Expression.ChildElements()) > 0 {
				continue
			}
			if n, err := decimal.Parse(xmldoc.Collapse(xmldoc.Text(c.Expression))); err == nil && n.Sign() > 0 {
				list = append(list, Amount{Sort: sort, Value: n.String(), Unit: c.Unit})
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
