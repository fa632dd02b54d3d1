package agreement

import (
	"fmt"
	"slices"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xpath"
)

// Negotiable says what may be changed in an offer of a negotiation. It is immutable.
type Negotiable struct {
	required *Checker // all Items, of which the Optional ones let anything
	optional *Checker
	// importance is that of each Item of optional.
	importance []int64
	items      []negotiableItem
}

type negotiableItem struct {
	NegotiationItem
	location *xpath.Expr
}

// Negotiable makes the offer's constraints ready. What could not be checked here is
// refused, as Template.Compile has it: no counter offer is made or taken that might break
// a constraint which was not understood.
func (o *NegotiationOffer) Negotiable() (*Negotiable, error) {
	must := Template{Agreement: o.Agreement, Constraints: Constraints{Free: o.Constraints.Free}}
	should := Template{Agreement: o.Agreement}
	n := new(Negotiable)
	for i := range o.Constraints.Items {
		x := &o.Constraints.Items[i]
		item := x.Item
		if x.Type == Optional {
			should.Constraints.Items = append(should.Constraints.Items, item)
			n.importance = append(n.importance, x.Importance)
			item.Constraint = nil
		}
		must.Constraints.Items = append(must.Constraints.Items, item)
	}
	var err error
	for _, t := range []struct {
		of *Template
		to **Checker
	}{{&must, &n.required}, {&should, &n.optional}} {
		if *t.to, err = t.of.Compile(); err != nil {
			return nil, fail.Errorf("agreement.Negotiable", fail.KindOf(err), o.OfferID, "the negotiation constraints of the offer %s: %s", quoted(o.OfferID), fail.Sentence(err)).Because(err)
		}
	}
	for i := range o.Constraints.Items {
		n.items = append(n.items, negotiableItem{o.Constraints.Items[i], n.required.items[i].location})
	}
	return n, nil
}

// Check gives what a later offer may not be like: Required and free constraints that it
// breaks, and what it has changed that no Item locates. None is that it may be.
func (n *Negotiable) Check(o *Offer) []Broken { return n.required.CheckStrictly(o) }

// Lost weighs the Optional constraints that an offer breaks: for each one more than its
// Importance, and never less than one.
func (n *Negotiable) Lost(o *Offer) int64 {
	e := element(o)
	tree, taken := xpath.Build(e), n.optional.branches.choice(e)
	opt := stepsFor(len(n.importance))
	lost := int64(0)
	for i := range n.optional.items {
		if broken, _ := n.optional.items[i].check(i, tree, taken, opt); len(broken) > 0 {
			lost += 1 + min(max(n.importance[i], 0), 1<<40)
		}
	}
	return lost
}

// Changeable is an element of an offer, without elements in it, whose text may be changed.
type Changeable struct {
	Element *etree.Element
	Item    NegotiationItem
}

// maxChangeable bounds what Changeables gives.
const maxChangeable = 200

// Changeables gives what may be changed in an offer: the elements that the Items locate,
// or those in them, each by the first of the Items that says so.
func (n *Negotiable) Changeables(offer *etree.Element) ([]Changeable, error) {
	tree := xpath.Build(offer)
	var list []Changeable
	seen := map[*etree.Element]bool{}
	opt := stepsFor(len(n.items))
	for _, i := range n.items {
		nodes, err := i.location.SelectIn(tree, opt)
		if err != nil {
			return nil, fail.Errorf("agreement.Changeables", fail.KindOf(err), i.Name, "the item %s: %s", quoted(i.Name), fail.Sentence(err)).Because(err)
		}
		var leaves func(e *etree.Element)
		leaves = func(e *etree.Element) {
			kids := e.ChildElements()
			for _, k := range kids {
				leaves(k)
			}
			if len(kids) == 0 && !seen[e] && len(list) < maxChangeable {
				seen[e] = true
				list = append(list, Changeable{e, i.NegotiationItem})
			}
		}
		for _, x := range nodes {
			if k := x.Kind(); k == xpath.Element || k == xpath.Text {
				leaves(x.Element())
			}
		}
	}
	return list, nil
}

// Follows refuses an offer that may not answer another: by its state, by a Required
// constraint that it breaks or by what it changes.
func (o *NegotiationOffer) Follows(before *NegotiationOffer) error {
	if err := before.OfferContext.State.Answer(o.OfferContext.State); err != nil {
		return err
	}
	n, err := before.Negotiable()
	if err != nil {
		return err
	}
	a := o.Offer()
	broken := n.Check(&a)
	if len(broken) == 0 {
		return nil
	}
	r := Refuse(NotCompliant, fmt.Sprintf("the offer %s answers %s and may change only what the negotiation constraints there let: keep to them, or begin again with an offer that answers none", quoted(o.OfferID), quoted(before.OfferID)))
	for _, b := range slices.Clip(broken) {
		r.Sentences = append(r.Sentences, b.Sentence)
	}
	return r
}
