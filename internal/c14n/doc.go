// Package c14n writes the canonical form of XML that signatures are over: Exclusive XML
// Canonicalization 1.0 without comments (W3C, 18 July 2002), of elements that
// internal/xmldoc read or that were built. Such a tree has no document type and no
// processing instructions, so that nothing of the recommendation is left out.
//
// The form is written in one pass and without a copy of the tree; Hash gives it to a hash
// piece by piece, so that a message of megabytes needs no second one in memory.
package c14n
