package adapters

// MappingRow is a line of the table in docs/adapters.md: what becomes of one JSDL
// element at a manager. Each adapter gives its rows from the very table that its
// mapping code runs on, one for each of jsdl.Elements.
type MappingRow struct {
	Element string // as jsdl.Elements names it
	Becomes string // the manager's word for it: "--ntasks", "request_cpus"; "" when it is refused
	Note    string // a few words: rounding, conditions, why it is refused
}
