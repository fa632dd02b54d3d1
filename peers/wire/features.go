package wire

import "slices"

// The optional features of version 1, FeatureLedger beside them. Their items are sent only in
// sessions that agreed on them.
const (
	FeatureOutput  = "output"  // Read and Output
	FeatureDigests = "digests" // Digests and Compare
	FeatureQuotas  = "quotas"  // Quotas
)

// Features gives those that this package knows, sorted by bytes.
func Features() []string {
	return []string{FeatureDigests, FeatureLedger, FeatureOutput, FeatureQuotas}
}

// Feature gives the feature that an item belongs to; "" for one that every session has.
func Feature(m Message) string {
	switch m.(type) {
	case *Read, *Output:
		return FeatureOutput
	case *Digests, *Compare:
		return FeatureDigests
	case *Quotas:
		return FeatureQuotas
	case *Account, *Statements, *Verdicts, *Probe:
		return FeatureLedger
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
