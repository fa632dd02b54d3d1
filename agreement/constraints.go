package agreement

import (
	"fmt"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/internal/xpath"
	"github.com/portolan-project/portolan/internal/xsd"
)

// checkSteps is the budget of XPath for one offer, which the constraints share.
const checkSteps = 4_000_000

// roots are what the first step of a Location may say: a template's author may mean
// the template or the offer, and both are answered by either; so are the names that
// they have in a negotiation.
var roots = []xmldoc.Name{
	{Space: NS, Local: "AgreementOffer"},
	{Space: NS, Local: "Template"},
	{Space: NSNegotiation, Local: "NegotiationOffer"},
	{Space: NSNegotiation, Local: "NegotiationCounterOffer"},
	{Space: NSNegotiation, Local: "NegotiableTemplate"},
}

// Checker holds offers against the creation constraints of one template. It is
// immutable: any number of goroutines may check by it.
type Checker struct {
	template *etree.Element // without its creation constraints
	tree     *xpath.Tree    // of template
	branches *branches      // of template
	items    []checkedItem
	free     []assertion
}

type checkedItem struct {
	Item
	location *xpath.Expr
	typ      *xsd.Type
	// there is whether the template itself has something at the location, so that an
	// offer must have it too; optional what it has there in branches of its choices only.
	there    bool
	optional []optional
}

// assertion is a free constraint in our language: a boolean XPath expression over the
// offer, in one Assert element of NSPortolan, with the sentence for when it is false.
type assertion struct {
	expression *xpath.Expr
	message    string
}

// Compile makes the template's constraints ready for checking. What this gateway
// could not check is refused here, so that no offer is accepted because a
// constraint was not understood: Locations that are not XPath 1.0 as internal/xpath
// has it, constraints that are not XML Schema's as internal/xsd has it, extensions
// of Items, free constraints in other languages than ours, and more Items than
// MaxItems. Errors are fail.Invalid or fail.Unsupported and name the Item.
func (t *Template) Compile() (*Checker, error) {
	e := t.Element
	if e == nil {
		e = t.Encode()
	} else {
		e = xmldoc.Detach(e)
	}
	if c := xmldoc.Child(e, NS, "CreationConstraints"); c != nil {
		e.RemoveChild(c)
	}
	c := &Checker{template: e, tree: xpath.Build(e), branches: branchesOf(e)}
	if n := len(t.Constraints.Items); n > MaxItems {
		return nil, fail.Errorf("agreement.Compile", fail.Unsupported, t.Name, "the template has %d Items: at most %d are taken", n, MaxItems)
	}
	if n := len(t.Constraints.Free); n > MaxItems {
		return nil, fail.Errorf("agreement.Compile", fail.Unsupported, t.Name, "the template has %d free constraints: at most %d are taken", n, MaxItems)
	}
	for i := range t.Constraints.Items {
		item, err := c.item(t.Constraints.Items[i], stepsFor(len(t.Constraints.Items)))
		if err != nil {
			return nil, named(fmt.Sprintf("the Item %s of the template %s", itemName(t.Constraints.Items[i].Name, i), xsd.Quote(t.Name)), err)
		}
		c.items = append(c.items, item)
	}
	for i, f := range t.Constraints.Free {
		a, err := c.assertion(f)
		if err != nil {
			return nil, named(fmt.Sprintf("the free constraint %d of the template %s", i+1, xsd.Quote(t.Name)), err)
		}
		c.free = append(c.free, a)
	}
	return c, nil
}

func itemName(name string, i int) string {
	if name == "" {
		return fmt.Sprint(i + 1)
	}
	return xsd.Quote(name)
}

// named puts what an error is about before its sentence.
func named(what string, err error) error {
	return fail.Errorf("agreement.Compile", fail.KindOf(err), "", "%s cannot be checked here: %s", what, fail.Sentence(err)).Because(err)
}

// stepsFor shares the budget of XPath out to the Items of a template.
func stepsFor(items int) xpath.Options {
	return xpath.Options{RootNames: roots, Steps: checkSteps / max(8, items)}
}

func (c *Checker) item(i Item, opt xpath.Options) (checkedItem, error) {
	x := checkedItem{Item: i}
	var err error
	if x.location, err = xpath.Compile(i.Location, i.Scope); err != nil {
		return x, err
	}
	if got := x.location.Type(); got != xpath.NodeSet {
		return x, fail.Errorf("agreement.Compile", fail.Invalid, "", "its Location gives %s where nodes are wanted", got)
	}
	if x.typ, err = xsd.Compile(i.Constraint); err != nil {
		return x, err
	}
	if len(i.Extensions) > 0 {
		return x, fail.Errorf("agreement.Compile", fail.Unsupported, "", "its extension %s is not known", i.Extensions[0].FullTag())
	}
	nodes, err := x.location.SelectIn(c.tree, opt)
	if err != nil {
		return x, err
	}
	x.there, x.optional = c.branches.optional(nodes)
	return x, nil
}

func (c *Checker) assertion(f *etree.Element) (assertion, error) {
	inside := f.ChildElements()
	if len(inside) != 1 || strings.TrimSpace(xmldoc.Text(f)) != "" {
		return assertion{}, fail.Errorf("agreement.Compile", fail.Unsupported, "", "it must hold one Assert element of the namespace %s, as no other language is known", NSPortolan)
	}
	e := inside[0]
	if !xmldoc.Is(e, NSPortolan, "Assert") {
		return assertion{}, fail.Errorf("agreement.Compile", fail.Unsupported, "", "its language, %s, is not known: only the Assert element of the namespace %s is", xmldoc.NameOf(e), NSPortolan)
	}
	if len(e.ChildElements()) > 0 {
		return assertion{}, fail.Errorf("agreement.Compile", fail.Invalid, "", "its Assert must hold an XPath expression and no elements")
	}
	a := assertion{}
	for _, at := range e.Attr {
		switch {
		case at.Space == "xmlns" || at.Space == "" && at.Key == "xmlns":
		case at.Space == "" && at.Key == "message":
			a.message = xmldoc.Collapse(at.Value)
		default:
			return a, fail.Errorf("agreement.Compile", fail.Invalid, "", "the attribute %s of Assert is not known: message is", at.FullKey())
		}
	}
	if a.message == "" {
		return a, fail.Errorf("agreement.Compile", fail.Invalid, "", "its Assert lacks the message that says what an offer must be like")
	}
	var err error
	if a.expression, err = xpath.Compile(xmldoc.Text(e), scopeAt(e)); err != nil {
		return a, err
	}
	if got := a.expression.Type(); got != xpath.Boolean {
		return a, fail.Errorf("agreement.Compile", fail.Invalid, "", "its expression gives %s where a boolean is wanted: compare it, or write boolean(…)", got)
	}
	return a, nil
}

// scopeAt gives the prefixes in scope at e.
func scopeAt(e *etree.Element) map[string]string {
	scope := map[string]string{}
	for ; e != nil; e = e.Parent() {
		for _, a := range e.Attr {
			if a.Space != "xmlns" {
				continue
			}
			if _, nearer := scope[a.Key]; !nearer {
				scope[a.Key] = a.Value
			}
		}
	}
	return scope
}
