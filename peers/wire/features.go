package wire

import "slices"

// The optional features of version 1. Their items are sent only in sessions that agreed on
// them.
const (
	OutputFeature  = "output"  // Read and Output
	DigestsFeature = "digests" // Digests and Compare
	QuotasFeature  = "quotas"  // Quotas
)

// Features gives those that this package knows, sorted by bytes.
func Features() []string { return []string{DigestsFeature, OutputFeature, QuotasFeature} }

// Feature gives the feature that an item belongs to; "" for one that every session has.
func Feature(m Message) string {
	switch m.(type) {
	case *Read, *Output:
		return OutputFeature
	case *Digests, *Compare:
		return DigestsFeature
	case *Quotas:
		return QuotasFeature
	}
	return ""
}

// Beyond gives the first of the items that belongs to a feature which is not among those
// agreed on, and the feature; nil where there is none.
func Beyond(agreed []string, items []Message) (Message, string) {
	for _, m := range items {
		if f := Feature(m); f != "" && !slices.Contains(agreed, f) {
			return m, f
		}
	}
	return nil, ""
}
