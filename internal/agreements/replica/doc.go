// Package replica lets further processes of a domain take agreements, beside the one that has the domain's
// sites.
//
//	record.go    what the processes tell each other, in the store of the domain
//	holder.go    the process that has the sites: it says where it is, and how its sites stand
//	replica.go   one that has none: it decides about offers by that (service.Broker)
//	proxy.go     and passes on what only the holder can do
//
// A replica's agreements are the engine's, as the holder's are: decided in the same transactions, by the same
// calendar. It does nothing about them. The holder hears of each by the engine's watch, and keeps it; where
// it is away, it finds what was agreed meanwhile when it is back. Nobody takes its place.
package replica
