// Package xpath is XPath 1.0 over etree, within a budget of steps: what the
// Locations, variables and free constraints of WS-Agreement documents are written
// in, and nothing that reaches outside the document.
//
// An expression may have an XQuery-like prologue ("declare namespace p='u';") and
// may begin a path with "$this", the document. All of XPath 1.0 is there but for the
// axes namespace, following and preceding, the functions id() and lang(), and
// variables: these are refused by name when the expression is compiled.
// Types are known when compiling: what could fail later is refused then. All that
// is left to go wrong while evaluating is the budget.
//
// lex.go and parse.go read expressions, tree.go numbers the nodes of a document,
// eval.go and functions.go evaluate. The tests hold it against libxml2.
package xpath
