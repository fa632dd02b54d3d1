// Package service takes agreements and keeps them: it answers offers (agreement.Service), has what is
// accepted run, watches what was promised against evidence, and settles what is due.
//
//	service.go      what it is made of, and its loops
//	broker.go       what it needs of a broker
//	offer.go        from an offer to plans, and from these to an agreement
//	reserve.go      reservations that managers of sites make
//	note.go         what is kept of an agreement beside its record
//	keep.go         what is to be done about an agreement, by its state
//	watch.go        from evidence to events of guarantees, and to the ledger
//	show.go         an agreement as resource properties
//	room.go         what is held, told to the broker; what there is, told to the engine
//	acceptance.go   decisions told to who offered
//
// Everything that was decided is in the engine's records, and whatever is to be done follows from
// them: keep looks at a record, does the next thing and notes that it is done. Each thing may be done
// twice with the effect of once, so that a crash at any point loses nothing, and replicas that
// do the same are none the worse.
package service
