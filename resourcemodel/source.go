package resourcemodel

import "github.com/portolan-project/portolan/jsdl"

// Definition gives the definition that the request was compiled of, with the criteria
// that it has: compiled again for the same Subject, it is the same request. It is nil for
// a request that was not compiled, and must not be changed.
func (r *Request) Definition() *jsdl.JobDefinition {
	if r.definition == nil {
		return nil
	}
	own := criteriaOf(r.definition)
	if own == r.criteria {
		return r.definition
	}
	def := *r.definition
	resources := jsdl.Resources{}
	if def.Description.Resources != nil {
		resources = *def.Description.Resources
	}
	resources.Criteria = r.criteria
	def.Description.Resources = &resources
	return &def
}
