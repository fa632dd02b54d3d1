// Package xsd checks values by what stands in the ItemConstraint of a
// WS-Agreement template: facets of XML Schema 1.0 on a simple type, or a particle
// of elements.
//
// Simple types are the built-in ones but for NOTATION and ENTITY, restrictions,
// lists and unions of them, with all twelve facets. Facets that stand without a
// type take one from their bounds: numbers, dates or durations; without bounds the
// value is text, its white space collapsed, and an enumeration of numbers or times lets
// these however they are written. Patterns are translated to RE2, so that
// matching takes time linear in the value; what RE2 cannot do is refused by name.
//
// Particles are xs:sequence, xs:choice and xs:all of xs:element and xs:any. No other
// schema is known: an element is checked by its name and, where it is given, its simple
// type. An xs:element with a name is in the namespace of the element that it is in,
// unless form="unqualified"; one with a ref is in that of its prefix.
//
// What is not supported is an error of Compile, so that a template is refused when
// it is loaded. The tests hold verdicts against libxml2.
package xsd
