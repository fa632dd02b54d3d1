// Package fake is an adapter in memory whose jobs say themselves how long they
// run and how they fail.
//
// The jobs live in a World, which outlives the adapters opened on it as a local
// manager outlives a gateway. An executable of the form "fake:STEP; STEP…" is a
// script:
//
//	out TEXT, err TEXT   write a line to standard output or standard error
//	sleep 3s             take so long (a bare number is in seconds)
//	exit N               end with the exit status
//	signal SIGSEGV       end by the signal
//	stop REASON          be ended by the manager for the reason
//	missing REASON       never start, for the reason
//	lose                 vanish
//	hang                 run until World.Finish or a cancel
//	hold REASON          stay held until World.Release or a cancel
//	progress 0.5         tell how far it is
//	hosts NAME NAME…     tell where it runs
//	usage 3s 4096        tell the time of processors and the bytes that it used
//	attribute NAME VALUE tell an attribute of the manager's own
//	reject REASON        be refused when submitted
//	unsupported REASON   be refused by Check and when submitted
//
// A script that ends without a verdict exits with 0, and so does any executable
// that is not a script. Arguments continue the last step, so that Executable
// "fake:sleep" with Argument "3" sleeps three seconds. Time is package time's:
// inside a testing/synctest bubble it is the caller's. A WallTimeLimit is kept.
//
// The manager can be made to fail: World.Inject fails single calls, Down and Up take
// it away and bring it back, LoseNextAnswer and LoseNextReservation lose one, ReuseIDs
// makes it forgetful, Trouble befalls a reservation.
// Requests counts what reached it.
package fake
