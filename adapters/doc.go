// Package adapters is the contract between the broker and whatever runs jobs at
// a site: a local resource manager, or the gateway's own machine.
//
// An adapter takes jobs, says where they stand, and stops them. It knows nothing
// of SOAP, of stores or of other sites. adaptertest decides what an adapter is:
// each one passes the same suite, and abilities that it does not claim are
// skipped aloud.
package adapters
