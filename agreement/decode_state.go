package agreement

import (
	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

func (r *reader) properties(e *etree.Element) (*Properties, error) {
	r.root(e, "AgreementProperties", "AgreementStateProperties")
	r.attributes(e, e.Tag+"Type")
	c := r.children(e)
	p := new(Properties)
	p.Name = r.text(c.take("Name"), "xs:string", MaxName)
	p.ID = r.text(c.need("AgreementId"), "xs:string", MaxName)
	p.Context = r.context(c.need("Context"))
	p.Terms = r.tree(c.need("Terms"))
	p.State, p.SubState = r.agreementState(c.need("AgreementState"))
	for s := c.take("GuaranteeTermState"); s != nil; s = c.take("GuaranteeTermState") {
		p.Guarantees = append(p.Guarantees, r.guaranteeState(s))
		r.countStates(s, len(p.Guarantees))
	}
	for s := c.take("ServiceTermState"); s != nil; s = c.take("ServiceTermState") {
		p.Services = append(p.Services, r.serviceState(s))
		r.countStates(s, len(p.Services))
	}
	c.end()
	return done(r, p)
}

func (r *reader) countStates(e *etree.Element, n int) {
	if n > MaxTerms {
		r.refuse(e, "is more than the %d states that are taken", MaxTerms)
	}
}

func (r *reader) agreementState(e *etree.Element) (State, *etree.Element) {
	if e == nil {
		return "", nil
	}
	r.attributes(e, "AgreementStateType")
	c := r.children(e)
	sub := c.one()
	s := r.word(c.need("State"), "AgreementStateDefinition", names(transitions)...)
	c.end()
	return State(s), sub
}

func (r *reader) guaranteeState(e *etree.Element) (x GuaranteeTermState) {
	x.Term = r.required(e, r.attributes(e, "GuaranteeTermStateType", "termName"), "termName")
	c := r.children(e)
	x.State = GuaranteeState(r.word(c.need("State"), "GuaranteeTermStateDefinition", names(guaranteeTransitions)...))
	x.Detail = c.one()
	c.end()
	return x
}

func (r *reader) serviceState(e *etree.Element) (x ServiceTermState) {
	x.Term = r.required(e, r.attributes(e, "ServiceTermStateType", "termName"), "termName")
	c := r.children(e)
	x.State = ServiceState(r.word(c.need("State"), "ServiceTermStateDefinition", names(serviceTransitions)...))
	for _, a := range [...]Activity{Processing, Idle} {
		if s := c.take(string(a)); s != nil {
			x.Activity = a
			c.end()
			r.attributes(s, "InnerTermStateType")
			c = r.children(s)
		}
	}
	if x.Detail = c.one(); x.Activity != "" && x.Detail != nil && xmldoc.Is(x.Detail, NSPortolan, noDetail) {
		x.Detail = nil
	}
	c.end()
	return x
}

// noDetail fills a sub-state of which nothing is told: the schema wants a child.
const noDetail = "NoDetail"
