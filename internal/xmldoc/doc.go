// Package xmldoc reads XML from strangers, strictly and within bounds, into one
// etree document whose elements know where they stood.
//
// Everything that this project reads as XML comes through here, once. The
// reader accepts namespace-well-formed XML 1.0 without a document type and
// refuses the rest while reading, before memory is spent: DOCTYPE and entities
// other than the five, processing instructions inside the root, second roots,
// undeclared prefixes, repeated attributes (by expanded name), characters that
// XML does not allow, and whatever exceeds the Limits.
package xmldoc
