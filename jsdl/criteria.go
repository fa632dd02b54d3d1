package jsdl

// Criteria is our own extension, an element of jsdl:Resources: what the user demands
// (HARD) and would like (SOFT) of the place, over the attributes of the gateway's
// resource model. The same element stands alone in a file (ParseCriteria).
type Criteria struct {
	List    []Criterion
	Foreign Foreign
}

// Criterion is one wish.
type Criterion struct {
	Name     string // of an attribute: docs/criteria.md
	Type     string // integer, decimal, string, boolean, duration; never ""
	Operator string // eq ne lt le gt ge in contains matches, min and max (SOFT only: the less or the more the better)
	Value    string // lexically right for Type; a list separated by blanks for "in"; "" for min and max
	Hard     bool
	Priority int // weight of a soft one among the others, 1 to 1000; default 100
}
